"""Marks in the form that a platform takes back.

Canvas and Moodle read a CSV with their own column names, and match students by their own ids; so
the file is made from the class list that the platform gave (`--roster`), row by row. Gradescope and
Classroom 50 read a JSON file per submission. Each `for_…` function returns what is to be written,
and what the instructor should know.

A cell that is left empty changes nothing on Canvas and Moodle: who handed nothing in keeps what the
platform has.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from learn_gpt2.grading.escaping import cell, file_names, html, json_text, one_line
from learn_gpt2.grading.roster import Person, Roster

FEEDBACK_MOST = 8_000  # characters of the comments that go into a gradebook
TITLE = "GPT-2"


@dataclass(frozen=True)
class Wishes:
    """What the instructor says of the gradebook. title: the assignment's, or its column's heading.

    classroom: Classroom 50's short name of the class.
    """

    title: str = ""
    classroom: str = ""


@dataclass
class Written:
    """files: name in the report's folder → content. notes: for the instructor to read."""

    files: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """A person of the class list, and their marks when they handed something in."""

    person: Person
    student: dict | None


# ── whose marks they are ────────────────────────────────────────────────────────────────────────


def matched(report: dict, roster: Roster, written: Written) -> list[Row]:
    """Everybody on the list with their marks, in the list's order; notes name everybody who is left
    over.

    A student is found by what their download tells of them: the platform's id, login, email, name.
    """
    marks: dict[int, dict] = {}
    unknown, twice = [], []
    for student in report["students"]:
        person = person_of(student, roster)
        if not handed_in(student):
            continue
        if person is None:
            unknown.append(student["student"])
        elif person.line in marks:
            twice.append(student["student"])
        else:
            marks[person.line] = student
    if unknown:
        written.notes.append(
            f"not in the class list, and therefore not in the gradebook: {_listed(unknown)}"
        )
    if twice:
        written.notes.append(
            f"a second submission of somebody who is there already, not in the gradebook: "
            f"{_listed(twice)}"
        )
    rows = [Row(person, marks.get(person.line)) for person in roster.people]
    empty = [row.person.shown for row in rows if row.student is None]
    if empty:
        written.notes.append(f"left empty, because nothing was submitted: {_listed(empty)}")
    return rows


def person_of(student: dict, roster: Roster) -> Person | None:
    """The one person of the class list whose work this is."""
    line = student.get("line")
    if line is not None:  # found while the submissions were read
        return next((person for person in roster.people if person.line == line), None)
    words = {key: _known(student, key) for key in ("id", "login", "email", "name")}
    return roster.find(**words) or roster.find(name=student["student"])


def handed_in(student: dict) -> bool:
    """Whether anything came from them; who is only on the class list has no source."""
    return bool(student.get("source", "?"))


def _listed(names: list[str], most: int = 12) -> str:
    text = ", ".join(one_line(name) for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")


def score(student: dict, most: float | None) -> str:
    """Points for a gradebook, scaled to the most that its column takes, as a plain number."""
    points = float(student["points"])
    if most is not None and student["max"]:
        points = points * most / student["max"]
    return f"{points:.2f}".rstrip("0").rstrip(".")


def _amount(text: str | None) -> float | None:
    """A number from a cell, with a decimal point or comma; None when it is not a number."""
    try:
        value = float((text or "").strip().replace(",", "."))
    except ValueError:
        return None
    return value if 0 < value < 1e6 else None


def _table(rows: list[list[str]], delimiter: str = ",") -> bytes:
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
    return file.getvalue().encode("utf-8", "replace")


# an id is given back as it came, since the platform looks it up; a name is made harmless
_PLAIN_ID = re.compile(r"[\w.@ -]*\Z")


def _id(text: str) -> str:
    return text if _PLAIN_ID.match(text) and text[:1] not in ("-", "@") else cell(text)


# ── Canvas ──────────────────────────────────────────────────────────────────────────────────────

# what Canvas knows a student by, in its own order; all before the first assignment
CANVAS_STUDENT = (
    *("Student", "LastName", "FirstName", "ID", "SIS User ID", "SIS Login ID", "Integration ID"),
    *("Root Account", "Section"),
)
CANVAS_PLAIN = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")


def for_canvas(report: dict, roster: Roster | None, wishes: Wishes) -> Written:
    """`canvas.csv`, for the gradebook's Import: the student columns as Canvas exported them, the
    row of possible points, and one assignment's column.
    """
    written = Written()
    most = report["students"][0]["max"] if report["students"] else 0
    if roster is None:
        heading, possible = wishes.title or TITLE, None
        rows = [
            [cell(_name(s)), _id(_known(s, "id")), "", _id(_known(s, "login")), "", score(s, None)]
            for s in report["students"]
            if handed_in(s)
        ]
        written.notes.append(
            "without --roster, Canvas has to find students by the id in their download's name, or "
            "by their name: export the gradebook and give it as --roster"
        )
        columns = list(CANVAS_PLAIN)
    else:
        columns = [c for c in roster.columns if c.strip() in CANVAS_STUDENT]
        if not {"Student", "LastName"} & set(columns) or "ID" not in columns:
            columns = list(CANVAS_PLAIN)
            written.notes.append(
                "the class list is not Canvas's own (no columns Student and ID): students will be "
                "found by the ids that it has, or by their names"
            )
        heading, possible = _canvas_column(roster, wishes, written)
        rows = [
            [_canvas_cell(row.person, column) for column in columns]
            + [score(row.student, possible) if row.student else ""]
            for row in matched(report, roster, written)
        ]
    points = f"{possible:g}" if possible is not None else f"{most:g}"
    first = ["    Points Possible", *[""] * (len(columns) - 1), points]
    written.files["canvas.csv"] = _table([[*columns, heading], first, *rows])
    return written


def _canvas_cell(person: Person, column: str) -> str:
    if column in person.row:
        text = person.row[column]
        return (
            cell(text) if column in ("Student", "LastName", "FirstName", "Section") else _id(text)
        )
    given = {
        "Student": f"{person.last}, {person.first}" if person.last else person.shown,
        "ID": person.id,
        "SIS User ID": person.sid,
        "SIS Login ID": person.login,
    }
    text = given.get(column, "")
    return cell(text) if column == "Student" else _id(text)


def _canvas_column(roster: Roster, wishes: Wishes, written: Written) -> tuple[str, float | None]:
    """The heading of the assignment's column, and the points that it has on Canvas.

    A column that is there already is named like "GPT-2 (12345)"; any other makes a new assignment.
    """
    wanted = wishes.title or TITLE
    for column in roster.columns:
        title, number = _title_and_id(column)
        if number and wanted.strip().casefold() in (column.casefold(), title.casefold(), number):
            possible = _amount(_possible(roster, column))
            if possible is not None:
                written.notes.append(f"scaled to the {possible:g} points of {one_line(column)}")
            return column, possible
    there = [column for column in roster.columns if _title_and_id(column)[1]]
    if there:
        written.notes.append(
            f"Canvas will ask whether to make a new assignment {one_line(wanted)!r}; to fill one "
            f"that is there, say --title with one of: {_listed(there)}"
        )
    return wanted, None


def _title_and_id(column: str) -> tuple[str, str]:
    found = re.fullmatch(r"(.*\S)\s+\((\d+)\)", column.strip())
    return (found[1], found[2]) if found else (column.strip(), "")


def _possible(roster: Roster, column: str) -> str:
    place = roster.columns.index(column)
    for row in roster.rows:
        if row and "points possible" in row[0].casefold() and place < len(row):
            return row[place]
    return ""


# ── Moodle ──────────────────────────────────────────────────────────────────────────────────────

MOODLE_PLAIN = (
    *("Identifier", "Full name", "Email address", "Status", "Grade", "Maximum Grade"),
    *("Grade can be changed", "Last modified (submission)", "Last modified (grade)"),
    "Feedback comments",
)
# a worksheet comes in the site's language; one entry per heading that some site writes
MOODLE_HEADINGS: dict[str, tuple[str, ...]] = {
    "grade": ("grade", "bewertung", "note", "calificación", "valutazione", "beoordeling", "nota"),
    "most": (
        "maximum grade",
        "bestwertung",
        "note maximale",
        "calificación máxima",
        "valutazione massima",
        "maximumcijfer",
        "nota máxima",
    ),
    "feedback": (
        "feedback comments",
        "feedback als kommentar",
        "commentaires",
        "feedback par commentaires",
        "comentarios de retroalimentación",
        "commenti",
    ),
}


def for_moodle(report: dict, roster: Roster | None, wishes: Wishes) -> Written:
    """`moodle.csv`, for the assignment's "Upload grading worksheet": the worksheet that Moodle
    gave, with the grades and, where it has that column, the feedback filled in.
    """
    written = Written()
    if roster is None:
        most = report["students"][0]["max"] if report["students"] else 0
        rows = [
            [
                *(_participant(_known(s, "id")), cell(_name(s)), _id(_known(s, "email"))),
                *("Submitted for grading", score(s, None), f"{most:g}", "Yes", "-", "-"),
                feedback_html(s, report),
            ]
            for s in report["students"]
            if handed_in(s)
        ]
        written.files["moodle.csv"] = _table([list(MOODLE_PLAIN), *rows])
        written.notes.append(
            "without --roster, the worksheet is made from the downloads' names: give the grading "
            "worksheet that Moodle offers as --roster, so that Moodle knows every row"
        )
        return written
    place = {kind: _moodle_place(roster.columns, kind) for kind in MOODLE_HEADINGS}
    if place["grade"] is None:
        raise ValueError(
            "the class list has no column Grade: for Moodle it must be the assignment's grading "
            f"worksheet. Its columns are {_listed(roster.columns, 20)}"
        )
    rows = [list(row) for row in roster.rows]
    width = len(roster.columns)
    for row in matched(report, roster, written):
        cells = rows[row.person.line]
        cells += [""] * (width - len(cells))
        if row.student is not None:
            most = _amount(cells[place["most"]]) if place["most"] is not None else None
            cells[place["grade"]] = score(row.student, most)
            if place["feedback"] is not None:
                cells[place["feedback"]] = feedback_html(row.student, report)
        for i, heading in enumerate(roster.columns):
            if roster.kinds().get(heading) in ("name", "first", "last"):
                cells[i] = cell(cells[i])
    written.files["moodle.csv"] = _table(rows)
    if place["feedback"] is None:
        written.notes.append(
            "the worksheet has no column for feedback: switch on Feedback comments in the "
            "assignment's settings, and download it again"
        )
    return written


def _moodle_place(columns: list[str], kind: str) -> int | None:
    names = [column.strip().casefold() for column in columns]
    return next((names.index(h) for h in MOODLE_HEADINGS[kind] if h in names), None)


def _participant(number: str) -> str:
    return f"Participant {number}" if number.isdigit() else _id(number)


def feedback_html(student: dict, report: dict) -> str:
    """The feedback as HTML, which is what Moodle takes a comment for; at most FEEDBACK_MOST."""
    text = f"{student['points']} of {student['max']} points ({student['percent']:g} %)"
    parts = [f"<p>{html(text)}</p>"]
    length = len(parts[0])
    for problem in student["problems"]:
        marks = (
            f"{problem['number']:02d} {problem['title']}: {problem['points']} of {problem['max']}"
        )
        said = [r for r in problem["results"] if r["status"] != "passed" and r["message"]]
        once = dict.fromkeys(r["message"] for r in said)
        body = "".join(f"<br>{html(text)}" for text in once).replace("\n", "<br>")
        part = f"<p><b>{html(marks)}</b>{body}</p>"
        length += len(part)
        if length > FEEDBACK_MOST:
            parts.append("<p>… (the rest is in the feedback file)</p>")
            break
        parts.append(part)
    # a spreadsheet that opens the file must not see a formula behind a separator either
    return cell("".join(parts))


# ── Gradescope ──────────────────────────────────────────────────────────────────────────────────


def for_gradescope(report: dict, roster: Roster | None, wishes: Wishes) -> Written:
    """`gradescope/NAME/results.json` for every student."""
    return _each(report, "gradescope", "results.json", lambda s: gradescope_results(s, report))


def gradescope_results(student: dict, report: dict) -> dict:
    """What Gradescope's autograder hands over for one submission: a test per check.

    Every output is marked as text, so that nothing in a message is read as HTML or Markdown.
    """
    tests = []
    for problem in student["problems"]:
        for i, result in enumerate(problem["results"], start=1):
            passed = result["status"] == "passed"
            tests.append(
                {
                    "score": result["earned"],
                    "max_score": result["points"],
                    "status": "passed" if passed else "failed",
                    "name": f"{problem['number']:02d} {problem['title']}: {result['title']}",
                    "name_format": "text",
                    "number": f"{problem['number']}.{i}",
                    "output": "" if passed else result["message"],
                    "output_format": "text",
                    "visibility": "visible",
                }
            )
    notices = [*student["notices"]]
    text = f"{student['points']} of {student['max']} points ({student['percent']:g} %)"
    return {
        "score": student["points"],
        "output": "\n".join([text, *notices]),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": tests,
        "extra_data": {key: report[key] for key in ("course", "torch") if key in report},
    }


# ── Classroom 50 ────────────────────────────────────────────────────────────────────────────────


def for_classroom50(report: dict, roster: Roster | None, wishes: Wishes) -> Written:
    """`classroom50/NAME/result.json` for every student."""
    who = {s["student"]: person_of(s, roster) for s in report["students"]} if roster else {}
    environment = _classroom50_environment(wishes)

    def result(student: dict) -> dict:
        person = who.get(student["student"])
        owner = (person.login if person else "") or _known(student, "login") or student["student"]
        return classroom50_result(student, {"USERNAME": owner} | environment)

    written = _each(report, "classroom50", "result.json", result)
    if not environment.get("CLASSROOM") or not environment.get("ASSIGNMENT"):
        written.notes.append(
            "Classroom 50 takes a result only under its own names: say --classroom and --title "
            "(the assignment's slug)"
        )
    return written


def _classroom50_environment(wishes: Wishes) -> dict[str, str]:
    """What Classroom 50's runner tells an autograder, and what the instructor says instead."""
    names = "CLASSROOM ASSIGNMENT ASSIGNMENT_TYPE OWNER SUBMISSION_TAG COMMIT_URL RELEASE_URL"
    found = {
        name: os.environ[name] for name in (*names.split(), "REVIEW_URL") if name in os.environ
    }
    if wishes.classroom:
        found["CLASSROOM"] = wishes.classroom
    if wishes.title:
        found["ASSIGNMENT"] = wishes.title
    return found


def classroom50_result(student: dict, environment: Mapping[str, str]) -> dict:
    """One submission's result in the form `classroom50/result/v1`: a test per problem's check."""
    now = datetime.now(UTC)
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    tests = [
        {
            "test-name": one_line(f"{problem['number']:02d} {problem['title']}: {result['title']}"),
            "passed": result["status"] == "passed",
            "score": result["earned"],
            "max-score": result["points"],
        }
        for problem in student["problems"]
        for result in problem["results"]
    ]
    owner = environment.get("OWNER") or environment.get("USERNAME") or student["student"]
    commit = environment.get("COMMIT_URL") or "unknown"
    return {
        "schema": "classroom50/result/v1",
        "classroom": environment.get("CLASSROOM") or "unknown",
        "assignment": environment.get("ASSIGNMENT") or "unknown",
        "assignment_type": environment.get("ASSIGNMENT_TYPE") or "individual",
        "owner": one_line(owner),
        "submission": environment.get("SUBMISSION_TAG") or f"submit/{now:%Y-%m-%dT%H-%M-%SZ}",
        "commit": commit,
        "release": environment.get("RELEASE_URL") or commit,
        "review": environment.get("REVIEW_URL") or commit,
        "datetime": stamp,
        "graded_at": stamp,
        "score": student["points"],
        "max-score": student["max"],
        "tests": tests,
    }


# ── all of them ─────────────────────────────────────────────────────────────────────────────────


def _each(report: dict, folder: str, file: str, make: Callable[[dict], dict]) -> Written:
    """A JSON file per student, in a folder of the student's name."""
    written = Written()
    names = file_names([student["student"] for student in report["students"]])
    for student in filter(handed_in, report["students"]):
        text = json_text(make(student), indent=1)
        written.files[f"{folder}/{names[student['student']]}/{file}"] = f"{text}\n".encode()
    empty = [s["student"] for s in report["students"] if not handed_in(s)]
    if empty:
        written.notes.append(f"nothing handed in, and no file: {_listed(empty)}")
    return written


def _known(student: dict, key: str) -> str:
    return str(student.get(key) or "")


def _name(student: dict) -> str:
    return _known(student, "name") or student["student"]


def write(
    platform: str, report: dict, roster: Roster | None = None, wishes: Wishes | None = None
) -> Written:
    """What one platform takes back. ValueError when the class list can't serve it."""
    return PLATFORMS[platform](report, roster, wishes or Wishes())


PLATFORMS: dict[str, Callable[[dict, Roster | None, Wishes], Written]] = {
    "canvas": for_canvas,
    "moodle": for_moodle,
    "gradescope": for_gradescope,
    "classroom50": for_classroom50,
}
