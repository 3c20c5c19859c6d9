"""A class's marks written down: CSV, JSON, JUnit, feedback for each student, statistics.

All from the plain data of `grade.Class.report`. Every file is written as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree

from learn_gpt2 import manifest
from learn_gpt2.assembly.swap import write_atomically

MOST_SHOWN = 12  # misconceptions in the plot
STATES = {"missing": "not handed in", "refused": "refused", "untouched": "untouched skeleton"}


def write_all(out: Path, report: dict) -> list[str]:
    """Write every report; the names of those written, and notes on those that were not."""
    files: dict[str, bytes] = {
        "grades.csv": grades_csv(report).encode("utf-8-sig"),  # so that Excel reads it as UTF-8
        "report.json": (json.dumps(report, ensure_ascii=False, indent=1) + "\n").encode(),
        "junit.xml": junit(report),
        "statistics.md": statistics_md(report).encode(),
    }
    names = file_names([student["student"] for student in report["students"]])
    for student in report["students"]:
        path = f"feedback/{names[student['student']]}.md"
        files[path] = feedback_md(student, report).encode()
    notes = []
    picture = plot(report)
    if isinstance(picture, bytes):
        files["statistics.png"] = picture
    else:
        notes.append(picture)
    for name, data in files.items():
        write_atomically(out / name, data)
    for old in (out / "feedback").glob("*.md"):  # of a student who is no longer there
        if f"feedback/{old.name}" not in files:
            old.unlink()
    return [*files, *notes]


def file_names(students: list[str]) -> dict[str, str]:
    """A file name for each student that every system takes, all different."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for student in students:
        name = re.sub(r"[^\w .()+@,-]", "_", student).strip(" .")[:100] or "student"
        if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", name):
            name += "_"
        number, unique = 1, name
        while unique.lower() in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique.lower())
        names[student] = unique
    return names


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


def grades_csv(report: dict) -> str:
    """A row per student: points and percent per problem, then in all. The first row: the most."""
    numbers = report["options"]["problems"]
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    columns = [f"{n:02d} {word}" for n in numbers for word in ("points", "percent")]
    table.writerow(["student", *columns, "points", "percent", "notices"])
    if report["students"]:
        first = report["students"][0]
        most = [value for p in first["problems"] for value in (p["max"], 100.0)]
        table.writerow(["(maximum)", *most, first["max"], 100.0, ""])
    for student in report["students"]:
        marks = [v for p in student["problems"] for v in (p["points"], p["percent"])]
        notices = "; ".join(student["notices"])
        row = [cell(student["student"]), *marks, student["points"], student["percent"]]
        table.writerow([*row, cell(notices)])
    return file.getvalue()


def cell(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


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


def xml(text: str) -> str:
    """A text without the characters that XML can't hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


# ── feedback ────────────────────────────────────────────────────────────────────────────────────


def feedback_md(student: dict, report: dict) -> str:
    """What a student is told: marks, and for every check that did not pass the message."""
    lines = [
        f"# {plain(student['student'])}: {student['points']} of {student['max']} points "
        f"({student['percent']:g} %)",
        "",
    ]
    lines += [f"- {plain(notice)}" for notice in student["notices"]]
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
    place = f": {plain(problem['file'])} ({problem['digest']})" if problem["file"] else ""
    lines = [f"## {problem['number']:02d} {problem['title']}{place}"]
    results = problem["results"]
    if len({r["message"] for r in results}) == 1:  # one reason for all of them
        return [*lines, "", *_quoted(results[0]["message"])]
    for result in results:
        points = f"{result['earned']} of {result['points']}"
        if result["status"] == "passed":
            lines += ["", f"✓ {plain(result['title'])} ({points})"]
        else:
            mark = "✗" if result["status"] == "failed" else "·"
            lines += ["", f"{mark} **{plain(result['title'])}** ({points})", ""]
            lines += _quoted(result["message"])
    return lines


def _quoted(message: str) -> list[str]:
    """A message as a block that nothing in it can end."""
    longest = max((len(run) for run in re.findall(r"`+", message)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *message.splitlines(), fence]


def plain(text: str) -> str:
    """A text that Markdown shows as it is, in one line."""
    text = "".join(c if c.isprintable() else "?" for c in text)
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", text)


# ── statistics ──────────────────────────────────────────────────────────────────────────────────


def statistics_md(report: dict) -> str:
    """The class as a whole: per problem, by misconception, checks that most fail, copies."""
    students = report["students"]
    lines = [f"# {len(students)} students", "", finding(report), ""]
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
            f"- {found['count']} of {found['handed_in']}: {plain(found['says'])} "
            f"({found['mistake']}, problem {found['problem']:02d})"
        )
    if not report["misconceptions"]:
        lines.append("None was found.")
    lines += ["", "## Same work", ""]
    for group in report["copies"]:
        who = ", ".join(plain(name) for name in group["students"])
        lines.append(f"- {group['problem']:02d}, {group['kind']}: {who}")
    if not report["copies"]:
        lines.append("No two files are the same.")
    else:
        lines += [
            "",
            "Short pieces come out equal but for names without anybody's having copied: look at "
            "the files before you speak of it.",
        ]
    lines += ["", "## To look at", ""]
    unusual = [
        f"- {plain(student['student'])}, {problem['number']:02d}: "
        + ", ".join(plain(name) for name in problem["unusual"])
        for student in students
        for problem in student["problems"]
        if problem["unusual"]
    ]
    lines += unusual or ["No file uses what a piece has no need for."]
    return "\n".join([*lines, ""])


def finding(report: dict) -> str:
    """The statistics' first sentence, and the plot's title."""
    if not report["misconceptions"]:
        return "No misconception was found."
    first = report["misconceptions"][0]
    return (
        f"{first['count']} of {first['handed_in']}: {first['mistake']} "
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
    labels = [f"{f['mistake']}  ({f['problem']:02d})" for f in shown][::-1]
    counts = [f["count"] for f in shown][::-1]
    bars = axes.barh(range(len(shown)), counts, color="#4c72b0")
    axes.set_yticks(range(len(shown)), labels)
    axes.bar_label(bars, [f"{f['count']} of {f['handed_in']}" for f in shown][::-1], padding=3)
    axes.set_xlabel("students who show it (of those who handed the problem in)")
    axes.set_ylabel("misconception (problem)")
    axes.set_title(finding(report), loc="left", fontsize=10)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(0, max(counts) * 1.15)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    # no date or version in it: the same class gives the same picture
    figure.savefig(file, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
    return file.getvalue()
