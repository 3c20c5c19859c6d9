"""A report as plain data, with students that nobody would want: for tests of what is written."""

from __future__ import annotations

from learn_gpt2 import manifest
from learn_gpt2.grading import gradebook

# names and messages as they come, or as somebody makes them
NAMES = (
    "Ann Example",
    "bob;=1+1",
    "<script>alert(1)</script>",
    "=HYPERLINK(0)",
    "| pipe | # heading",
    "\x1b[31mred\x07",
    "M\udcfcller",
    "\u202egnp.exe",
    "李小龍",
    "محمد علي",
    "$\\frac{$",
    "http://evil.example @all",
)
MESSAGES = (
    "It is off. [off-by-one]\n```\n# not a heading\n<img src=x onerror=alert(1)>",
    "=cmd|' /C calc'!A0",
    "\x1b]0;title\x07\ud800 NUL\x00",
    "</pre></details><script>alert(2)</script>",
)


def report(mistake: str = "off-by-one", names: tuple[str, ...] = NAMES) -> dict:
    """A class in which everybody has problem 01 right, and 03 with one of MESSAGES."""
    students = [_student(name, i, mistake) for i, name in enumerate(names)]
    return {
        "format": gradebook.FORMAT,
        "course": "0123456789abcdef",
        "python": "3.11.7",
        "torch": "2.13.0",
        "options": {"problems": [1, 3], "own_pieces": False, "limits": {}},
        "protections": [],
        "students": students,
        "copies": [{"problem": 3, "kind": "equal", "students": list(names[:2])}],
        "misconceptions": gradebook.misconceptions(students),
    }


def _student(name: str, i: int, mistake: str) -> dict:
    message = MESSAGES[i % len(MESSAGES)]
    problems = [
        _problem(1, [_result("test_a", "It adds", "passed", 18)]),
        _problem(
            3,
            [
                _result("test_b", "It scales", "failed", 12, message, [mistake]),
                _result("test_c", "It masks", "passed", 7),
            ],
        ),
    ]
    return {
        "student": name,
        "points": 25,
        "max": 37,
        "percent": 67.6,
        "notices": [f"holds {name}"] if i % 2 else [],
        "attention": [],
        "name": name,
        "id": str(1000 + i),
        "login": f"login{i}",
        "email": f"s{i}@school.example",
        "platform": "canvas",
        "source": name,
        "late": False,
        "unread": [],
        "line": None,
        "problems": problems,
    }


def _problem(number: int, results: list[dict]) -> dict:
    points = sum(r["earned"] for r in results)
    most = sum(r["points"] for r in results)
    return {
        "number": number,
        "title": manifest.get(number).title,
        "state": "graded",
        "file": "<b>|`x`.py",
        "digest": "abcdef0",
        "points": points,
        "max": most,
        "percent": gradebook.percent(points, most),
        "unusual": ["import gc", "x|<i>"],
        "results": results,
    }


def _result(
    name: str, title: str, status: str, points: int, message: str = "", mistakes: tuple | list = ()
) -> dict:
    return {
        "name": name,
        "title": title,
        "status": status,
        "message": message,
        "mistakes": list(mistakes),
        "hint": None,
        "todo": None,
        "line": None,
        "points": points,
        "earned": points if status == "passed" else 0,
    }
