"""How platforms name what they export: one table of names, and one of the files beside them.

To teach this another platform, add a `Pattern` with an example; the tests read the examples. A
pattern's groups say what a name holds: student, id (the platform's), login, email, time, attempt,
upload (a number that grows with every upload), late, and file (the name that the student gave).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

# the first letters of the months' names in English, German, French, Spanish and their neighbors
MONTHS = {
    **{"jan": 1, "feb": 2, "mar": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9},
    **{"oct": 10, "nov": 11, "dec": 12},
    **{"mär": 3, "mai": 5, "okt": 10, "dez": 12, "fév": 2, "fev": 2, "avr": 4, "aoû": 8, "déc": 12},
    **{"ene": 1, "abr": 4, "ago": 8, "dic": 12, "maa": 3, "mei": 5, "set": 9, "out": 10, "gen": 1},
}


@dataclass(frozen=True)
class Pattern:
    """What one platform's names look like. of: "file" when the name is a file's whose end is the
    student's own name for it, "folder" when it is a folder's, or an archive's without its ending.
    example: (a name, what is read from it).
    """

    platform: str
    of: str
    regex: str
    example: tuple[str, dict[str, str]]


@dataclass(frozen=True)
class Named:
    """What a name says. time: digits that sort (yyyymmddhhmmss), "" when unknown."""

    platform: str
    student: str = ""
    id: str = ""
    login: str = ""
    email: str = ""
    time: str = ""
    attempt: int = 0
    upload: int = 0
    late: bool = False
    file: str = ""  # "" for a folder
    kind: str = ""  # receipt, text: a file of the platform's own

    @property
    def key(self) -> tuple[str, str]:
        """The same for everything of one student on one platform."""
        who = self.id or self.login.casefold() or self.email.casefold() or self.student.casefold()
        return self.platform, who

    @property
    def newness(self) -> tuple[str, int, int]:
        """A later submission compares greater."""
        return self.time, self.attempt, self.upload


_DATE = (
    r"(?P<time>(?:[^\W\d]{3,10}\.? \d{1,2}, \d{4}|"
    r"\d{1,2}\.? (?:de )?[^\W\d]{3,10}\.?,? (?:de )?\d{4},?|"
    r"\d{4}-\d{2}-\d{2}) \d{1,2}:?\d{2}(?: ?[AaPp]\.?[Mm]\.?)?)"
)

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "moodle",
        "folder",
        r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_?",
        (
            "Erin Example_1234567_assignsubmission_file_",
            {"student": "Erin Example", "id": "1234567"},
        ),
    ),
    Pattern(
        "moodle",
        "file",
        r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_onlinetext_(?P<text>.+)",
        (
            "Erin Example_1234567_assignsubmission_onlinetext_onlinetext.html",
            {"student": "Erin Example", "id": "1234567", "file": "onlinetext.html"},
        ),
    ),
    Pattern(
        "moodle",
        "file",
        r"(?P<student>.+?)_(?P<id>\d+)_assignsubmission_[a-z]+_(?P<file>.+)",
        (
            "Participant_7654321_assignsubmission_file_01-embeddings.py",
            {"student": "Participant", "id": "7654321", "file": "01-embeddings.py"},
        ),
    ),
    Pattern(
        "blackboard",
        "file",
        r"(?P<before>.+)_attempt_(?P<time>\d{4}(?:-\d{2}){5})_(?P<file>.+)",
        (
            "Problem 1_jdoe_attempt_2026-11-30-10-20-30_01-embeddings.py",
            {"login": "jdoe", "time": "20261130102030", "file": "01-embeddings.py"},
        ),
    ),
    Pattern(
        "blackboard",
        "file",
        r"(?P<before>.+)_attempt_(?P<time>\d{4}(?:-\d{2}){5})(?P<receipt>\.txt)",
        (
            "Problem 1_jdoe_attempt_2026-11-30-10-20-30.txt",
            {"login": "jdoe", "time": "20261130102030", "file": ".txt"},
        ),
    ),
    Pattern(
        "brightspace",
        "file",
        rf"(?P<id>\d+)-\d+ - (?:[A-Za-z]?\d{{6,}} - )?(?P<student>.+?) ?- {_DATE} - (?P<file>.+)",
        (
            "12345-67890 - First Last - Nov 30, 2026 1020 AM - 01-embeddings.py",
            {
                "student": "First Last",
                "id": "12345",
                "time": "20261130102000",
                "file": "01-embeddings.py",
            },
        ),
    ),
    Pattern(
        "brightspace",
        "folder",
        rf"(?P<id>\d+)-\d+ - (?:[A-Za-z]?\d{{6,}} - )?(?P<student>.+?)(?: - {_DATE})?",
        (
            "12345-67890 - First Last - Nov 30, 2026 120 PM",
            {"student": "First Last", "id": "12345", "time": "20261130132000"},
        ),
    ),
    Pattern(
        "brightspace",
        "file",
        rf"(?P<student>[^/]+?) - {_DATE} - (?P<file>.+)",
        (
            "First Last - 30 November 2026 1020 - problem.py",
            {"student": "First Last", "time": "20261130102000", "file": "problem.py"},
        ),
    ),
    Pattern(
        "brightspace",
        "folder",
        rf"(?P<student>[^/]+?) - {_DATE}",
        (
            "First Last - Nov 30, 2026 10:20 AM",
            {"student": "First Last", "time": "20261130102000"},
        ),
    ),
    Pattern(
        "brightspace",
        "file",
        rf"(?P<id>[A-Za-z]?\d{{5,}})_(?P<student>[^_]+)_{_DATE}_(?P<file>.+)",
        (
            "A12345678_First Last_Nov 30, 2026 1020 AM_problem.py",
            {
                "student": "First Last",
                "id": "A12345678",
                "time": "20261130102000",
                "file": "problem.py",
            },
        ),
    ),
    Pattern(
        "gradescope",
        "folder",
        r"submission_(?P<id>\d+)",
        ("submission_123456", {"id": "123456"}),
    ),
    Pattern(
        "sakai",
        "folder",
        r"(?P<student>[^()]+, [^()]+?) ?\((?P<login>[^()]+)\)",
        ("Last, First(eid1)", {"student": "Last, First", "login": "eid1"}),
    ),
    Pattern(
        "sakai",
        "file",
        r"(?P<student>[^()]+, [^()]+?) ?\((?P<login>[^()]+)\)_[^_]*\([^()]+\)_(?P<file>.+)",
        (
            "Last, First(eid1)_Submission attachment(s)_problem.py",
            {"student": "Last, First", "login": "eid1", "file": "problem.py"},
        ),
    ),
    Pattern(
        "sakai",
        "file",
        r"(?P<student>[^()]+, [^()]+?) ?\((?P<login>[^()]+)\)_(?P<text>submissionText\.html)",
        (
            "Last, First(eid1)_submissionText.html",
            {"student": "Last, First", "login": "eid1", "file": "submissionText.html"},
        ),
    ),
    Pattern(
        "ilias",
        "folder",
        r"(?P<last>[^_]+)_(?P<first>[^_]+)_(?P<login>[^_]+)_(?P<id>\d{3,})",
        (
            "Muster_Max_mmuster_4711",
            {"student": "Max Muster", "login": "mmuster", "id": "4711"},
        ),
    ),
    Pattern(
        "ilias",
        "folder",
        r"(?P<student>[^@]+?)[ _](?P<email>[^@\s_]+@[^@\s_]+)[ _](?P<id>\w+)",
        (
            "Muster Max mmuster@school.edu 4711",
            {"student": "Muster Max", "email": "mmuster@school.edu", "id": "4711"},
        ),
    ),
    Pattern(
        "vpl",
        "folder",
        r"(?P<student>[^\d_]+?) (?P<id>\d{2,}) (?P<login>[^\s/]+)",
        ("Ann Lee 1234 alee", {"student": "Ann Lee", "id": "1234", "login": "alee"}),
    ),
    Pattern(
        "zybooks",
        "folder",
        r"(?P<last>[^_]+)_(?P<first>[^_]+)_(?P<email>[^_]+\.[a-z]{2,})_"
        r"(?P<time>\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2})",
        (
            "Lee_Ann_alee@school.edu_2026-11-30_10-20-30",
            {"student": "Ann Lee", "email": "alee@school.edu", "time": "20261130102030"},
        ),
    ),
    Pattern(
        "autolab",
        "file",
        r"(?P<email>[^@\s/]+@[^@\s/_]+)_(?P<attempt>\d{1,4})_(?P<file>[^/]*[^\W\d][^/]*)",
        (
            "user@school.edu_3_handin.py",
            {"email": "user@school.edu", "attempt": "3", "file": "handin.py"},
        ),
    ),
    Pattern(
        "webassign",
        "file",
        r"(?P<login>[^@\s/]+)@[^@\s/_.]+_\d+_\d+_(?P<upload>\d+_\d+)(?P<file>\.\w+)",
        (
            "dmwhite@webassign_1010368_1217570_1_0.py",
            {"login": "dmwhite", "file": ".py"},
        ),
    ),
    # Canvas's anonymous marking
    Pattern(
        "canvas",
        "file",
        r"(?P<late>LATE_)?anon_(?P<id>[0-9A-Za-z]{5})_(?P<upload>\d+)_(?P<file>.+)",
        (
            "LATE_anon_a1B2c_678901_problem.py",
            {"id": "a1B2c", "late": "1", "upload": "678901", "file": "problem.py"},
        ),
    ),
    Pattern(
        "canvas",
        "file",
        r"(?P<student>[^_./ ]\w*?)(?P<late>_LATE)?_(?P<id>\d+)_(?P<upload>\d+)_(?P<file>.+)",
        (
            "examplebob_LATE_12345_678901_01-embeddings-1.py",
            {
                "student": "examplebob",
                "id": "12345",
                "late": "1",
                "upload": "678901",
                "file": "01-embeddings-1.py",
            },
        ),
    ),
    Pattern(
        "canvas",
        "file",
        r"(?P<student>[^_./ ]\w*?)(?P<late>_LATE)?_(?P<id>\d+)_(?P<text>(?:text|link)\.html)",
        (
            "examplebob_12345_text.html",
            {"student": "examplebob", "id": "12345", "file": "text.html"},
        ),
    ),
    Pattern(
        "codegrade",
        "folder",
        r"(?P<id>\d{3,}) - (?P<student>[^\d].*)",
        ("12345 - First Last", {"student": "First Last", "id": "12345"}),
    ),
    Pattern(
        "e-mail",
        "file",
        r"(?P<email>[^@\s/]+@[^@\s/_]+\.[a-z]{2,})[ _-]+(?P<file>.+\.\w+)",
        (
            "ann@school.edu - problem.py",
            {"email": "ann@school.edu", "file": "problem.py"},
        ),
    ),
)
_COMPILED = [(pattern, re.compile(pattern.regex, re.DOTALL)) for pattern in PATTERNS]
MOST = 400  # characters of a name that are looked at

# Folders that platforms and people put around a class. A name that fits is a wrapper when what is
# in it looks like several students, whatever else it could be.
WRAPPERS = re.compile(
    r"(?ix) submissions? | assignment_\d+_export | .+[-_ ]submissions | submissions[-_ ].+ "
    r"| gradebook_.+ | submitted | (?:hand|turned)[-_ ]?ed[-_ ]?in | hand(?:ed)?[-_ ]?ins? "
    r"| student\ work.* | submitted\ files? | working\ files? | abgaben? | rendus? | entregas? "
    r"| (?:downloads?|exports?|class|course|students?|all)(?:[-_ ].*)? "
    r"| (?:canvas|moodle|blackboard|gradescope|brightspace|d2l|sakai|github|teams|ilias).* "
    r"| .+\ download\ .+ "
)

# Files of the platform itself, which no student wrote
PLATFORM_FILES = re.compile(
    r"(?ix) submission_metadata\.(?:ya?ml|csv|json) | grades?\.(?:csv|xls|xlsx) "
    r"| (?:classroom[-_ ]?)?roster.*\.csv | index\.html? | timestamp\.txt | comments?\.txt "
    r"| feedbacktext\.html? | manifest\.(?:xml|json) | status\.(?:csv|xlsx) | gradebook.*\.csv "
    r"| grading\ worksheet.*\.csv | .*[-_ ]grades?\.csv | readme(?:\.(?:md|txt|rst))? "
    r"| .*\.crdownload"
)

# Folders inside a student's that hold what the instructor gave back
RETURNED = re.compile(r"(?i)feedback[ _-]?attachment.*|feedback|returned|graded|marked")


def read_name(name: str, of: str) -> Named | None:
    """What a platform's name says, None when no platform writes such names."""
    if len(name) > MOST:
        return None
    for pattern, regex in _COMPILED:
        if pattern.of == of and (match := regex.fullmatch(name)):
            return _named(pattern, match.groupdict(default=""))
    return None


def _named(pattern: Pattern, found: dict[str, str]) -> Named:
    student = found.get("student") or f"{found.get('first', '')} {found.get('last', '')}".strip()
    login = found.get("login", "")
    if not login and "before" in found:  # assignment_login: the last part, until a receipt says
        login = found["before"].rpartition("_")[2]
    kind = "receipt" if found.get("receipt") else "text" if found.get("text") else ""
    upload = re.sub(r"\D", "", found.get("upload", ""))
    return Named(
        platform=pattern.platform,
        student=student.strip(),
        id=found.get("id", ""),
        login=login,
        email=found.get("email", ""),
        time=sortable(found.get("time", "")),
        attempt=int(found.get("attempt") or 0),
        upload=int(upload or 0),
        late=bool(found.get("late")),
        file=found.get("file") or found.get("text") or found.get("receipt") or "",
        kind=kind,
    )


def sortable(time: str) -> str:
    """A date and time as digits that sort, "" when it is not understood."""
    numbers = re.findall(r"\d+", time)
    word = next((w for w in re.findall(r"[^\W\d]{3,}", time) if w.lower()[:3] in MONTHS), "")
    if len(numbers) >= 5 and len(numbers[0]) == 4:
        parts = numbers[:6]
    elif re.match(r"\d{4}-", time) and len(numbers) == 4:  # 2026-11-30 1020
        parts = [*numbers[:3], numbers[3][:-2] or "0", numbers[3][-2:]]
    elif word and len(numbers) >= 3:
        month = str(MONTHS[word.lower()[:3]])
        day, year, clock = numbers[0], numbers[1], "".join(numbers[2:4])
        hour = int(clock[:-2] or 0)
        half = re.search(r"(?i)([ap])\.?m\.?\s*$", time)
        if half:
            hour = hour % 12 + (12 if half[1].lower() == "p" else 0)
        parts = [year, month, day, str(hour), clock[-2:]]
    else:
        return ""
    return "".join(part.zfill(2) for part in [*parts, "0"][:6]).ljust(14, "0")


# ── what stands in a platform's own files ───────────────────────────────────────────────────────


@dataclass
class Submitter:
    """One of those who handed a Gradescope submission in together."""

    name: str = ""
    sid: str = ""
    email: str = ""


@dataclass
class Metadata:
    """Gradescope's submission_metadata.yml: folder → who handed it in, and when."""

    submitters: dict[str, list[Submitter]] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)


_QUOTED = re.compile(r"""^(["'])(.*)\1$""")


def read_metadata(text: str) -> Metadata:
    """Who submitted what, from Gradescope's metadata; entries that are not understood are left out.

    The file is plain YAML of one form, with one key per submission in the first column.
    """
    found = Metadata()
    folder = ""
    inside = False
    for line in text.splitlines():
        if match := re.match(r"^[\"']?([^\s:\"'#][^:\"']*)[\"']?:\s*$", line):
            folder, inside = match[1], False
            found.submitters[folder] = []
        elif re.match(r"^ {1,4}:?[\"']?submitters[\"']?:\s*$", line):
            inside = True
        elif match := re.match(r"^ {1,4}:?created_at:\s*(.+?)\s*$", line):
            found.times[folder] = sortable(_value(match[1]))
            inside = False
        elif inside and (match := re.match(r"^\s+(- )?\s*:?(\w+):\s*(.*?)\s*$", line)):
            if match[1] or not found.submitters[folder]:
                found.submitters[folder].append(Submitter())
            if match[2] in ("name", "sid", "email"):
                setattr(found.submitters[folder][-1], match[2], _value(match[3]))
        elif re.match(r"^ {1,2}:?\w", line):
            inside = False
    return found


def _value(text: str) -> str:
    quoted = _QUOTED.match(text)
    if not quoted:
        return "" if text in ("null", "~") else text
    if quoted[1] == "'":
        return quoted[2].replace("''", "'")
    return re.sub(r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|(.))", _unescaped, quoted[2])


def _unescaped(match: re.Match) -> str:
    code = match[1] or match[2]
    return chr(int(code, 16)) if code else match[3]


@dataclass
class Receipt:
    """What a Blackboard receipt says."""

    name: str = ""
    login: str = ""
    files: dict[str, str] = field(default_factory=dict)  # name in the download → the student's


def read_receipt(text: str) -> Receipt | None:
    """Blackboard's text file beside each attempt; None when it is something else."""
    lines = text.splitlines()
    match = next(
        (m for line in lines[:5] if (m := re.match(r"Name: (.*) \(([^()]+)\)\s*$", line))), None
    )
    if not match:
        return None
    receipt = Receipt(match[1].strip(), match[2].strip())
    original = ""
    for line in lines:
        if found := re.match(r"\s*Original filename:\s*(.+?)\s*$", line):
            original = found[1]
        elif (found := re.match(r"\s*Filename:\s*(.+?)\s*$", line)) and original:
            receipt.files[found[1]] = original
            original = ""
    return receipt
