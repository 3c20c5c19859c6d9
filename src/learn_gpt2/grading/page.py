"""`report/index.html`: the class at a glance, and every student's feedback, in one file.

It needs no network, works without JavaScript (which only sorts and filters), follows the reader's
light or dark setting, and prints. Everything that a student wrote goes through `escaping.html`, and
the page's own policy forbids all but its own style and script.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from statistics import mean, median

from learn_gpt2 import manifest
from learn_gpt2.grading.escaping import html

STATES = {
    "missing": "not handed in",
    "refused": "refused",
    "untouched": "untouched skeleton",
}
MARKS = {"passed": "✓", "failed": "✗", "skipped": "·"}


def page(report: dict) -> str:
    """The whole page for a report's plain data."""
    style, script = _given("page.css"), _given("page.js")
    policy = (
        "default-src 'none'; img-src data:; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; "
        "form-action 'none'"
    )
    students = report["students"]
    names = anchors(len(students))
    parts = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "<title>Class report</title>",
        f"<style>{style}</style>",
        "</head>",
        "<body>",
        '<header id="top">',
        "<h1>Class report</h1>",
        f"<p>{_summary(report)}</p>",
        '<nav><a href="#class">Marks</a> <a href="#misconceptions">Misconceptions</a> '
        '<a href="#look">To look at</a> <a href="#students">Feedback</a></nav>',
        "</header>",
        "<main>",
        *_tiles(report),
        *_marks(report, names),
        *_misconceptions(report, names),
        *_look(report, names),
        '<section id="students">',
        "<h2>Feedback</h2>",
    ]
    for student, name in zip(students, names, strict=True):
        parts += _student(student, name, report)
    parts += ["</section>", "</main>", f"<footer><p>{_footer(report)}</p></footer>"]
    parts += [f"<script>{script}</script>", "</body>", "</html>", ""]
    return "\n".join(parts)


def anchors(count: int) -> list[str]:
    """Ids of the students' sections: by place, so that no name can be another's."""
    return [f"s{i + 1}" for i in range(count)]


def _given(name: str) -> str:
    return (resources.files("learn_gpt2.grading") / "pages" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _summary(report: dict) -> str:
    numbers = report["options"]["problems"]
    most = report["students"][0]["max"] if report["students"] else 0
    return f"{_count(len(report['students']), 'student')}, {_span(numbers)}, {most} points in all"


def _span(numbers: list[int]) -> str:
    if len(numbers) == 1:
        return f"problem {numbers[0]:02d}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"problems {numbers[0]:02d}–{numbers[-1]:02d}"
    return "problems " + ", ".join(f"{n:02d}" for n in numbers)


def _footer(report: dict) -> str:
    built = (
        "each student's own earlier pieces" if report["options"]["own_pieces"] else "the reference"
    )
    versions = (("Course", "course"), ("Python", "python"), ("torch", "torch"))
    told = ", ".join(f"{name} {html(str(report[k]))}" for name, k in versions if report.get(k))
    told = f" {told}." if told else ""
    return f"Earlier pieces that a problem builds on were taken from {built}.{told}"


# ── the class ───────────────────────────────────────────────────────────────────────────────────


def _tiles(report: dict) -> list[str]:
    """Four numbers: who handed in, the median, the full marks, what must be looked at."""
    students = report["students"]
    handed_in = [s for s in students if any(p["state"] == "graded" for p in s["problems"])]
    percents = [s["percent"] for s in students]
    full = sum(s["points"] == s["max"] for s in students)
    look = sum(bool(_reasons(s)) for s in students)
    tiles = [
        (f"{len(handed_in)} of {len(students)}", "handed something in"),
        (f"{median(percents):.3g} %" if percents else "–", "median"),
        (str(full), "with full marks"),
        (str(look), "to look at"),
    ]
    cells = [f"<li><b>{html(number)}</b> <span>{html(text)}</span></li>" for number, text in tiles]
    return ['<ul class="tiles">', *cells, "</ul>"]


def _marks(report: dict, names: list[str]) -> list[str]:
    """The table of everybody's percent per problem, as a heat map."""
    students, numbers = report["students"], report["options"]["problems"]
    lines = [
        '<section id="class">',
        "<h2>Marks</h2>",
        '<p class="hint">Percent of each problem’s points. A name leads to the feedback, '
        "a problem’s heading sorts.</p>",
        '<p class="tools" hidden><input id="filter" type="search" placeholder="Find a student" '
        'aria-label="Find a student"></p>',
        '<div class="wide"><table class="marks sortable">',
        "<thead><tr>",
        '<th scope="col" data-sort="text">Student</th>',
        '<th scope="col" data-sort="number" class="n">Points</th>',
        '<th scope="col" data-sort="number" class="n">%</th>',
    ]
    for number in numbers:
        title = html(manifest.get(number).title)
        lines.append(f'<th scope="col" data-sort="number" title="{title}">{number:02d}</th>')
    lines.append("</tr></thead>\n<tbody>")
    for student, name in zip(students, names, strict=True):
        flag = ' <span class="flag" title="to look at">!</span>' if _reasons(student) else ""
        row = [
            f'<th scope="row"><a href="#{name}">{_name(student)}</a>{flag}</th>',
            f'<td class="n" data-value="{student["points"]:g}">{student["points"]:g}</td>',
            f'<td class="n" data-value="{student["percent"]:g}">{student["percent"]:g}</td>',
            *(_heat(problem, name) for problem in student["problems"]),
        ]
        lines.append(f"<tr>{''.join(row)}</tr>")
    lines.append("</tbody>")
    if students:
        lines.append(_means(students, len(numbers)))
    return [*lines, "</table></div>", _legend(), "</section>"]


def _heat(problem: dict, name: str) -> str:
    percent, state = problem["percent"], problem["state"]
    title = f"{problem['number']:02d} {problem['title']}: {problem['points']} of {problem['max']}"
    if state != "graded":
        title += f" ({STATES.get(state, state)})"
        text = {"missing": "–", "untouched": "○", "refused": "×"}.get(state, "–")
        shade = "none"
    else:
        text, shade = f"{percent:.0f}", f"h{min(10, int(percent // 10))}"
    if state == "graded" and problem["points"] < problem["max"] and text == "100":
        text = "99"  # full marks are for whoever has all points
    link = f'<a href="#{name}-{problem["number"]:02d}">{text}</a>'
    return f'<td class="{shade}" data-value="{percent:g}" title="{html(title)}">{link}</td>'


def _means(students: list[dict], count: int) -> str:
    cells = []
    for i in range(count):
        value = mean(student["problems"][i]["percent"] for student in students)
        cells.append(f"<td>{value:.0f}</td>")
    points = mean(student["points"] for student in students)
    percent = mean(student["percent"] for student in students)
    row = (
        f'<th scope="row">Mean</th><td class="n">{points:.1f}</td><td class="n">{percent:.1f}</td>'
    )
    return f"<tfoot><tr>{row}{''.join(cells)}</tr></tfoot>"


def _legend() -> str:
    steps = "".join(f'<i class="h{step}"></i>' for step in (0, 2, 4, 6, 8, 10))
    return (
        f'<p class="legend"><span>0 %</span>{steps}<span>100 %</span>'
        "<span>– not handed in</span><span>○ untouched skeleton</span><span>× rejected</span></p>"
    )


def _misconceptions(report: dict, names: list[str]) -> list[str]:
    """The misconceptions, commonest first, each with a bar and with who has it."""
    lines = ['<section id="misconceptions">', "<h2>Misconceptions</h2>"]
    if not report["misconceptions"]:
        return [*lines, "<p>None was found.</p>", "</section>"]
    place = {s["student"]: name for s, name in zip(report["students"], names, strict=True)}
    lines.append('<ol class="bars">')
    for found in report["misconceptions"]:
        number = found["problem"]
        who = ", ".join(
            f'<a href="#{place[name]}-{number:02d}"><bdi>{html(name)}</bdi></a>'
            for name in found["students"]
            if name in place
        )
        share = found["count"] / max(1, found["handed_in"])
        lines += [
            "<li>",
            f'<p class="bar"><span class="share w{round(20 * share)}"></span></p>',
            f'<p class="count"><b>{found["count"]}</b> of {found["handed_in"]}</p>',
            f"<div><p>{html(found['says'])}</p>",
            f"<details><summary>{html(found['mistake'])}, problem {number:02d} "
            f"{html(manifest.get(number).title)}</summary><p>{who}</p></details></div>",
            "</li>",
        ]
    return [*lines, "</ol>", "</section>"]


def _look(report: dict, names: list[str]) -> list[str]:
    """What somebody must look at: notices, unusual names, the same work."""
    lines = ['<section id="look">', "<h2>To look at</h2>"]
    rows = [
        f'<li><a href="#{name}">{_name(student)}</a>: {html(reason)}</li>'
        for student, name in zip(report["students"], names, strict=True)
        for reason in _reasons(student)
    ]
    rows += [
        f"<li>{group['problem']:02d}, {html(group['kind'])}: "
        f"{', '.join(f'<bdi>{html(name)}</bdi>' for name in group['students'])}</li>"
        for group in report["copies"]
    ]
    if not rows:
        return [*lines, "<p>Nothing.</p>", "</section>"]
    if report["copies"]:
        lines.append(
            '<p class="hint">Short pieces can be equal except for names although nobody copied: '
            "look at the files before you raise it with anybody.</p>"
        )
    return [*lines, "<ul>", *rows, "</ul>", "</section>"]


def _name(student: dict) -> str:
    """A student's name; a script that runs from right to left does not turn what follows."""
    return f"<bdi>{html(student['student'])}</bdi>"


def _reasons(student: dict) -> list[str]:
    """Why a student's work should be looked at."""
    found = list(student["notices"])
    for problem in student["problems"]:
        if problem["unusual"]:
            found.append(f"{problem['number']:02d} uses {', '.join(problem['unusual'])}")
    return found


# ── a student ───────────────────────────────────────────────────────────────────────────────────


def _student(student: dict, name: str, report: dict) -> list[str]:
    marks = f"{student['points']:g} of {student['max']:g} points ({student['percent']:g} %)"
    lines = [
        f'<article id="{name}">',
        f'<h3>{_name(student)} <a class="up" href="#class">back to the class</a></h3>',
        f"<p>{html(marks)}</p>",
    ]
    if student["notices"]:
        notices = "".join(f"<li>{html(text)}</li>" for text in student["notices"])
        lines.append(f'<ul class="notices">{notices}</ul>')
    for problem in student["problems"]:
        lines += _problem(problem, f"{name}-{problem['number']:02d}")
    return [*lines, "</article>"]


def _problem(problem: dict, name: str) -> list[str]:
    full = problem["points"] == problem["max"]
    note = "all checks pass" if full else STATES.get(problem["state"], "")
    shade = f"h{min(10, int(problem['percent'] // 10))}" if problem["state"] == "graded" else "none"
    head = (
        f'<span class="dot {shade}"></span><b>{problem["number"]:02d} {html(problem["title"])}</b> '
        f'<span class="n">{problem["points"]} of {problem["max"]}</span> '
        f'<span class="note">{html(note)}</span>'
    )
    lines = [f'<details id="{name}"><summary>{head}</summary>']
    if problem["file"]:
        lines.append(f'<p class="file">{html(problem["file"])} ({html(problem["digest"])})</p>')
    messages = {r["message"] for r in problem["results"]}
    if not full and len(messages) == 1:  # one reason for all of them
        lines.append(f"<pre>{html(problem['results'][0]['message'])}</pre>")
        return [*lines, "</details>"]
    lines.append('<ul class="checks">')
    for result in problem["results"]:
        mark, points = MARKS[result["status"]], f"{result['earned']} of {result['points']}"
        line = (
            f'<li class="{result["status"]}"><span class="mark">{mark}</span> '
            f'{html(result["title"])} <span class="n">{points}</span>'
        )
        if result["status"] != "passed" and result["message"]:
            line += f"<pre>{html(result['message'])}</pre>"
        lines.append(line + "</li>")
    return [*lines, "</ul>", "</details>"]
