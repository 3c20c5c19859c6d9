"""A class list as a platform exports it: who should have submitted, and under which ids.

Any CSV will do that has a name, an id, a login or an email per row: Canvas's gradebook, Moodle's
grading worksheet, Gradescope's, Blackboard's and Brightspace's exports, Sakai's grades.csv, GitHub
Classroom's roster, or a list made by hand. Every row is kept as it was, with all of its columns, so
that a gradebook can be written back in the platform's own form.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

MAX_BYTES = 20_000_000  # of a class list; one of a thousand students has a few hundred thousand
HEADER_ROWS = 12  # the header is within this many rows (Sakai writes two above it)

# What a column is, by its heading in lower case, letters and digits only. One entry per heading
# that some platform writes; add to it freely.
HEADINGS: dict[str, tuple[str, ...]] = {
    "name": (
        "student",
        "name",
        "fullname",
        "studentname",
        "learner",
        "displayname",
        "vollstandigername",
        "nomcomplet",
        "nombrecompleto",
    ),
    "first": ("firstname", "givenname", "forename", "first", "vorname", "prenom", "nombre"),
    "last": ("lastname", "surname", "familyname", "last", "nachname", "nom", "apellidos"),
    "id": (
        "id",
        "userid",
        "canvasuserid",
        "canvasid",
        "identifier",
        "participant",
        "participantid",
        "githubid",
        "studentid",
        "id number",
        "teilnehmerin",
    ),
    "sid": (
        "sid",
        "sisuserid",
        "sisid",
        "idnumber",
        "orgdefinedid",
        "studentnumber",
        "matriculationnumber",
        "matrikelnummer",
        "integrationid",
    ),
    "login": (
        "sisloginid",
        "login",
        "loginid",
        "username",
        "user",
        "githubusername",
        "github",
        "displayid",
        "eid",
        "netid",
        "uid",
        "anmeldename",
        "benutzername",
    ),
    "email": ("email", "emailaddress", "mail", "studentemail", "emaildadresse", "emailadresse"),
}
KIND_OF = {heading: kind for kind, headings in HEADINGS.items() for heading in headings}

# rows that are not people: Canvas writes the points that are possible, and a test student
NOT_PEOPLE = re.compile(r"(?i)\s*(points possible|manual posting|student, test|test student)\s*")


@dataclass(frozen=True)
class Person:
    """One row of a class list. `row` has every column as it was, heading → text."""

    name: str = ""
    first: str = ""
    last: str = ""
    id: str = ""  # the platform's own, which download names hold (Canvas, Moodle, Brightspace)
    sid: str = ""  # the school's
    login: str = ""
    email: str = ""
    row: dict[str, str] = field(default_factory=dict, compare=False)
    line: int = 0  # place in `Roster.rows`

    @property
    def shown(self) -> str:
        """The name to show, or the best that there is."""
        both = f"{self.first} {self.last}".strip()
        return self.name or both or self.login or self.email or self.id or self.sid


@dataclass
class Roster:
    """A class list. `rows` are all rows of the file, those above and below the header included, so
    that it can be written again; `header` is the header's place among them.
    """

    path: Path
    people: list[Person]
    columns: list[str]
    rows: list[list[str]]
    header: int
    delimiter: str = ","

    def kinds(self) -> dict[str, str]:
        """Heading → what it is (name, first, last, id, sid, login, email); others are left out."""
        return {c: kind for c in self.columns if (kind := KIND_OF.get(_heading(c)))}

    def find(
        self, *, id: str = "", login: str = "", email: str = "", name: str = ""
    ) -> Person | None:
        """The one person that fits, by id, then login, then email, then name; None when none does,
        or when two would.
        """
        tries: list[list[Person]] = []
        if id:
            tries.append([p for p in self.people if _plain_id(id) == _plain_id(p.id)])
            tries.append([p for p in self.people if _plain_id(id) in _codes(p)])
        for word in (login, email):
            if word:
                tries.append([p for p in self.people if word.casefold() in _logins(p)])
        if name:
            tries.append([p for p in self.people if name.casefold() in _logins(p)])
            tries.append([p for p in self.people if _plain_id(name) in _codes(p)])
            wanted = _tokens(name)
            joined = _joined(name)
            tries.append([p for p in self.people if wanted and wanted in _names(p)])
            tries.append([p for p in self.people if joined and joined in _joined_names(p)])
        return next((found[0] for found in tries if len(found) == 1), None)


def read(path: Path) -> Roster:
    """A class list from a CSV file. ValueError when it can't be read or no column is understood."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError(f"the roster {path} can't be read: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ValueError(f"the roster {path} has more than {MAX_BYTES:,} bytes")
    text = _text(data)
    delimiter = _delimiter(text)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise ValueError(f"the roster {path} is not CSV: {error}") from None
    header, columns = _header(rows)
    if header < 0:
        raise ValueError(
            f"the roster {path} has no column that is known: one of its first rows must name a "
            "name, an id, a login or an email (Student, First Name, ID, SIS Login ID, Email …)"
        )
    people = []
    for place, row in enumerate(rows[header + 1 :], header + 1):
        person = _person(columns, row, place)
        if person is not None:
            people.append(person)
    if not people:
        raise ValueError(f"the roster {path} contains no students")
    return Roster(path, people, columns, rows, header, delimiter)


def _text(data: bytes) -> str:
    """A table's text; spreadsheets write UTF-8 with a mark, UTF-16 or Windows-1252."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _delimiter(text: str) -> str:
    """Comma, semicolon or tab, whichever splits the first lines most often."""
    head = "\n".join(text.splitlines()[:HEADER_ROWS])
    return max(",;\t", key=head.count)


def _heading(text: str) -> str:
    """A heading in lower case without accents, blanks and marks: "SIS Login ID" → "sisloginid"."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return re.sub(r"[^a-z0-9]", "", plain)


def _header(rows: list[list[str]]) -> tuple[int, list[str]]:
    """(place, headings) of the row with the most known headings; (-1, []) when there is none."""
    best, most = -1, 0
    for place, row in enumerate(rows[:HEADER_ROWS]):
        known = len({KIND_OF[h] for cell in row if (h := _heading(cell)) in KIND_OF})
        if known > most:
            best, most = place, known
    if best < 0:
        return -1, []
    columns: list[str] = []
    for number, cell in enumerate(rows[best], 1):
        name = cell.strip() or f"column {number}"
        while name in columns:  # two columns of one name: both are kept
            name += " "
        columns.append(name)
    return best, columns


def _person(columns: list[str], row: list[str], place: int) -> Person | None:
    if not any(cell.strip() for cell in row):
        return None
    if any(NOT_PEOPLE.fullmatch(cell) for cell in row[:2]):
        return None
    cells = dict(zip(columns, row, strict=False))
    found: dict[str, str] = {}
    for column, cell in cells.items():
        kind = KIND_OF.get(_heading(column))
        value = cell.strip().removeprefix("#")  # Brightspace marks ids and logins with it
        if kind == "id" and value.isdigit() and not found.get("id", "0").isdigit():
            found.setdefault("sid", found["id"])  # GitHub Classroom: identifier, then github_id
            found["id"] = value
        if kind and value and kind not in found:
            found[kind] = value
    if not found:
        return None
    if "id" in found:  # Moodle's grading worksheet: "Participant 1234567"
        found["id"] = re.sub(r"^\D*\s(\d+)$", r"\1", found["id"])
    return Person(**found, row=cells, line=place)


# ── comparing ───────────────────────────────────────────────────────────────────────────────────


def _plain_id(text: str) -> str:
    text = text.strip().casefold()
    return text.lstrip("0") or text if text.isdigit() else text


def _codes(person: Person) -> set[str]:
    return {_plain_id(code) for code in (person.id, person.sid) if code}


def _logins(person: Person) -> set[str]:
    """A person's login and email, and the email without its domain, in lower case."""
    words = {person.login.casefold(), person.email.casefold()}
    words |= {word.partition("@")[0] for word in words}
    return words - {""}


def plain_name(text: str) -> str:
    """A name in lower case without accents and marks, words apart by one blank."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if not unicodedata.combining(c))
    return " ".join(re.findall(r"\w+", plain.replace("_", " ")))


def _tokens(name: str) -> tuple[str, ...]:
    return tuple(sorted(plain_name(name).split()))


def _joined(name: str) -> str:
    return plain_name(name).replace(" ", "")


def _names(person: Person) -> set[tuple[str, ...]]:
    names = {_tokens(person.name), _tokens(f"{person.first} {person.last}")}
    return names - {()}


def _joined_names(person: Person) -> set[str]:
    """A person's names as Canvas writes them in downloads: last name first, without blanks."""
    words = {_joined(f"{person.last} {person.first}"), _joined(f"{person.first} {person.last}")}
    last, comma, first = person.name.partition(",")
    words.add(_joined(f"{last} {first}") if comma else _joined(person.name))
    parts = plain_name(person.name).split()
    if not comma and len(parts) > 1:
        words |= {"".join(parts[i:] + parts[:i]) for i in range(1, len(parts))}
    return words - {""}
