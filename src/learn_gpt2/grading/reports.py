"""A class's marks written down: CSV, JSON, JUnit, feedback for each student, statistics.

All from the plain data of `grade.Class.report`. Every file is written as a whole.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from gpt2.common.files import write_atomically
from learn_gpt2 import manifest
from learn_gpt2.grading import connectors
from learn_gpt2.grading.escaping import (
    cell,
    file_names,
    json_text,
    markdown,
    one_line,
    quoted,
    xml,
)
from learn_gpt2.grading.page import page

if TYPE_CHECKING:
    from learn_gpt2.grading.connectors import Wishes
    from learn_gpt2.grading.roster import Roster

MOST_SHOWN = 12  # misconceptions in the plot
STATES = {"missing": "not handed in", "refused": "refused", "untouched": "untouched skeleton"}


def write_all(
    out: Path,
    report: dict,
    platforms: tuple[str, ...] = (),
    roster: Roster | None = None,
    wishes: Wishes | None = None,
) -> list[str]:
    """Write every report; the names of those written, and notes on those that were not.

    platforms: whose gradebooks to write as well, from the class list and the instructor's wishes.
    """
    files: dict[str, bytes] = {
        "grades.csv": grades_csv(report).encode(
            "utf-8-sig", "replace"
        ),  # so that Excel reads it as UTF-8
        "index.html": page(report).encode("utf-8", "replace"),
        "report.json": (json_text(report, indent=1) + "\n").encode(),
        "junit.xml": junit(report),
        "statistics.md": statistics_md(report).encode("utf-8", "replace"),
    }
    names = file_names([student["student"] for student in report["students"]])
    for student in report["students"]:
        path = f"feedback/{names[student['student']]}.md"
        files[path] = feedback_md(student, report).encode("utf-8", "replace")
    notes = []
    picture = plot(report)
    if isinstance(picture, bytes):
        files["statistics.png"] = picture
    else:
        notes.append(picture)
    for platform in platforms:
        written = connectors.write(platform, report, roster, wishes)
        files |= written.files
        notes += [f"{platform}: {note}" for note in written.notes]
    for name, data in files.items():
        write_atomically(out / name, data)
    for old in (out / "feedback").glob("*.md"):  # of a student who is no longer there
        if f"feedback/{old.name}" not in files:
            old.unlink()
    return [*files, *notes]


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def grades_csv(report: dict) -> str:
    """A row per student: points and percent per problem, then in all. The first row: the most."""
    numbers = report["options"]["problems"]
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    columns = [f"{n:02d} {word}" for n in numbers for word in ("points", "percent")]
    who = ("name", "id", "login", "email", "source")
    table.writerow(["student", *columns, "points", "percent", *who, "look", "notices"])
    if report["students"]:
        first = report["students"][0]
        most = [value for p in first["problems"] for value in (p["max"], 100.0)]
        table.writerow(["(maximum)", *most, first["max"], 100.0, *("" for _ in who), "", ""])
    for student in report["students"]:
        marks = [v for p in student["problems"] for v in (p["points"], p["percent"])]
        notices = "; ".join(student["notices"])
        row = [cell(student["student"]), *marks, student["points"], student["percent"]]
        told = [cell(str(student.get(column, ""))) for column in who]
        look = "yes" if student.get("attention") else ""
        table.writerow([*row, *told, look, cell(notices)])
    return file.getvalue()


def junit(report: dict) -> bytes:
    """A suite per student, a case per check, in the form that CI systems read."""
    root = ElementTree.Element("testsuites", name="learn grade")
    for student in report["students"]:
        results = [(p, r) for p in student["problems"] for r in p["results"]]
        counts = {
            "tests": len(results),
            "failures": sum(r["status"] == "failed" for _, r in results),
            "skipped": sum(r["status"] == "skipped" for _, r in results),
            "errors": 0,
        }
        suite = ElementTree.SubElement(
            root,
            "testsuite",
            name=xml(student["student"]),
            **{k: str(v) for k, v in counts.items()},
        )
        for problem, result in results:
            name = manifest.get(problem["number"]).folder
            case = ElementTree.SubElement(
                suite, "testcase", classname=name, name=result["name"], time="0"
            )
            if result["status"] != "passed":
                kind = "failure" if result["status"] == "failed" else "skipped"
                first = (result["message"].splitlines() or [""])[0]
                note = ElementTree.SubElement(case, kind, message=xml(first))
                note.text = xml(f"{result['title']}\n{result['message']}")
    ElementTree.indent(root, " ")
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


# ── feedback ────────────────────────────────────────────────────────────────────────────────────


def feedback_md(student: dict, report: dict) -> str:
    """What a student is told: marks, and for every check that did not pass the message."""
    lines = [
        f"# {markdown(student['student'])}: {student['points']} of {student['max']} points "
        f"({student['percent']:g} %)",
        "",
    ]
    lines += [f"- {markdown(notice)}" for notice in student["notices"]]
    if student["notices"]:
        lines.append("")
    lines += ["| problem | points | |", "|---|---|---|"]
    for problem in student["problems"]:
        note = STATES.get(problem["state"], "")
        if problem["points"] == problem["max"]:
            note = "all checks pass"
        name = f"{problem['number']:02d} {problem['title']}"
        lines.append(f"| {name} | {problem['points']} of {problem['max']} | {note} |")
    for problem in student["problems"]:
        if problem["points"] < problem["max"]:
            lines += ["", *_problem_md(problem)]
    built = "your own earlier pieces" if report["options"]["own_pieces"] else "the reference's"
    lines += ["", f"Earlier pieces that a problem builds on were {built}.", ""]
    return "\n".join(lines)


def _problem_md(problem: dict) -> list[str]:
    place = f": {markdown(problem['file'])} ({problem['digest']})" if problem["file"] else ""
    lines = [f"## {problem['number']:02d} {problem['title']}{place}"]
    results = problem["results"]
    if len({r["message"] for r in results}) == 1:  # one reason for all of them
        return [*lines, "", *quoted(results[0]["message"])]
    for result in results:
        points = f"{result['earned']} of {result['points']}"
        if result["status"] == "passed":
            lines += ["", f"✓ {markdown(result['title'])} ({points})"]
        else:
            mark = "✗" if result["status"] == "failed" else "·"
            lines += ["", f"{mark} **{markdown(result['title'])}** ({points})", ""]
            lines += quoted(result["message"])
    return lines


# ── statistics ──────────────────────────────────────────────────────────────────────────────────


def statistics_md(report: dict) -> str:
    """The class as a whole: per problem, by misconception, checks that most fail, copies."""
    students = report["students"]
    lines = [f"# {len(students)} students", "", markdown(finding(report)), ""]
    lines += ["| problem | handed in | all checks pass | mean |", "|---|---|---|---|"]
    for i, number in enumerate(report["options"]["problems"]):
        rows = [student["problems"][i] for student in students]
        handed_in = sum(row["state"] == "graded" for row in rows)
        full = sum(row["points"] == row["max"] for row in rows)
        mean = sum(row["percent"] for row in rows) / max(1, len(rows))
        title = manifest.get(number).title
        lines.append(f"| {number:02d} {title} | {handed_in} | {full} | {mean:.0f} % |")
    lines += ["", "## Misconceptions", ""]
    for found in report["misconceptions"]:
        lines.append(
            f"- {found['count']} of {found['handed_in']}: {markdown(found['says'])} "
            f"({markdown(found['mistake'])}, problem {found['problem']:02d})"
        )
    if not report["misconceptions"]:
        lines.append("None was found.")
    lines += ["", "## Same work", ""]
    for group in report["copies"]:
        who = ", ".join(markdown(name) for name in group["students"])
        lines.append(f"- {group['problem']:02d}, {group['kind']}: {who}")
    if not report["copies"]:
        lines.append("No two files are the same.")
    else:
        lines += [
            "",
            "Short pieces can be equal except for names although nobody copied: look at the "
            "files before you raise it with anybody.",
        ]
    lines += ["", "## To look at", ""]
    unusual = [
        f"- {markdown(student['student'])}, {problem['number']:02d}: "
        + ", ".join(markdown(name) for name in problem["unusual"])
        for student in students
        for problem in student["problems"]
        if problem["unusual"]
    ]
    lines += unusual or ["No file uses things that no piece needs."]
    return "\n".join([*lines, ""])


def finding(report: dict) -> str:
    """The statistics' first sentence, and the plot's title."""
    if not report["misconceptions"]:
        return "No misconception was found."
    first = report["misconceptions"][0]
    return (
        f"{first['count']} of {first['handed_in']}: {one_line(first['mistake'])} "
        f"(problem {first['problem']:02d}) is the most frequent mistake"
    )


def plot(report: dict) -> bytes | str:
    """The most frequent misconceptions as bars, a PNG; or a note on why there is none."""
    shown = report["misconceptions"][:MOST_SHOWN]
    if not shown:
        return "no statistics.png: there is no misconception to show"
    try:
        import matplotlib
    except ImportError:
        return 'no statistics.png: matplotlib is not installed (pip install -e ".[plots]")'
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1.6 + 0.36 * len(shown)), layout="constrained")
    labels = [f"{one_line(f['mistake'])}  ({f['problem']:02d})" for f in shown][::-1]
    counts = [f["count"] for f in shown][::-1]
    bars = axes.barh(range(len(shown)), counts, color="#4c72b0")
    axes.set_yticks(range(len(shown)), labels)
    axes.bar_label(bars, [f"{f['count']} of {f['handed_in']}" for f in shown][::-1], padding=3)
    axes.set_xlabel("students who have it (of those who submitted the problem)")
    axes.set_ylabel("misconception (problem)")
    title = axes.set_title(finding(report), loc="left", fontsize=10)
    for text in (title, *axes.get_yticklabels()):  # a dollar sign is a dollar sign
        text.set_parse_math(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(0, max(counts) * 1.15)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    # no date or version in it: the same class gives the same picture
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
    return file.getvalue()
