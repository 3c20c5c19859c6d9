"""Tests of what is handed in: any platform's download, students found, nothing passed over.

What is expected is written down here by hand; the downloads are made by `downloads.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from downloads import (
    PICTURE,
    PLATFORMS,
    RIGHT,
    SKELETON,
    WRONG,
    Student,
    notebook,
    students,
    tarred,
    write,
    zipped,
)

from learn_gpt2 import manifest
from learn_gpt2.grading import submissions
from learn_gpt2.grading.submissions import Submission

ONE, TWO = RIGHT[1], RIGHT[2]
PROBLEMS = [manifest.get(1), manifest.get(2)]


def read(folder: Path, numbers: tuple[int, ...] = (1, 2), **options) -> dict[str, Submission]:
    """Everybody in a folder, by the name that is shown."""
    problems = [manifest.get(number) for number in numbers]
    found = submissions.read_all(folder, problems, skeletons=SKELETON, **options)
    assert len({s.student for s in found}) == len(found)
    return {s.student: s for s in found}


def kind(submission: Submission, number: int) -> str:
    """right, wrong, skeleton, other, refused or "" (nothing)."""
    if number in submission.refused:
        return "refused"
    data = submission.files.get(number)
    if data is None:
        return ""
    text = data.replace(b"\r\n", b"\n").removeprefix(b"\xef\xbb\xbf").strip()
    for name, sources in (("right", RIGHT), ("wrong", WRONG), ("skeleton", SKELETON)):
        if text == sources[number].strip():
            return name
    same = b"class Embeddings" if number == 1 else b"class SimpleAttention"
    cut = sources_start(RIGHT[number], same)
    return "right" if text.endswith(cut) or cut in text else "other"


def sources_start(source: bytes, word: bytes) -> bytes:
    """A source from its class on, which a notebook's cell keeps as it is."""
    return source[source.index(word) :].strip()


# ── whole downloads ─────────────────────────────────────────────────────────────────────────────


def of(found: dict[str, Submission], student: Student, platform: str) -> Submission:
    """A student's row, by what that platform knows of them."""
    fitting = [
        s
        for s in found.values()
        if str(student.id) == s.id
        or student.login in (s.login, s.student, s.email.partition("@")[0])
        or (not s.id and not s.login and s.name == student.full)
        or (platform == "teams" and s.student.rsplit(" ", 1)[0] == student.full == "Wei Wang")
    ]
    assert fitting, f"{student.full} is lost"
    return fitting[0]


@pytest.mark.parametrize("packed", ["folder", "archive", "wrapped archive"])
@pytest.mark.parametrize("platform", sorted(PLATFORMS))
def test_nobody_of_forty_is_lost(tmp_path: Path, platform: str, packed: str) -> None:
    """Catches a platform's name that isn't understood, a habit that gets a zero, and a student who
    is counted twice; whether the download is unpacked or not.
    """
    if packed != "folder" and platform in ("archives", "brightspace, flat", "autolab"):
        pytest.skip("one of the kind is enough")
    people, folder = students(), tmp_path / "in"
    folder.mkdir()
    files = PLATFORMS[platform](people)
    if packed == "folder":
        write(folder, files)
    elif packed == "archive":
        folder = write(tmp_path, {"submissions.zip": zipped(files)}) / "submissions.zip"
    else:
        write(folder, {"CS101 Problem Set.zip": zipped(files)})
    found = read(folder)
    assert len(found) == len(people)
    seen = set()
    for student in people:
        row = of({k: v for k, v in found.items() if k not in seen}, student, platform)
        seen.add(row.student)
        for number, wanted in student.work.pieces.items():
            got = kind(row, number)
            got = "" if got in ("skeleton", "refused") else got
            assert got == wanted, f"{student.full}: {list(student.work.uploads)}: {row.notices}"
        if not any(student.work.pieces.values()):
            assert row.attention, f"{student.full}: nothing is said"


# ── one by one ──────────────────────────────────────────────────────────────────────────────────

# what is handed in → student → what is found of problem 1 (and of 2 behind a comma)
CASES: dict[str, tuple[dict[str, bytes], dict[str, str]]] = {
    "the issue's own": (
        {
            "bob_12345_678901_01-embeddings.py": ONE,
            "carol.tar.gz": tarred({"01-embeddings.py": ONE}),
            "Erin Example_1234567_assignsubmission_file_/homework.zip": zipped(
                {"problems/01-embeddings/problem.py": ONE}
            ),
            "frank/01-embeddings-1.py": ONE,
            "heidi/01_embeddings.py": ONE,
            "ken/submission/problems/01-embeddings/problem.py": ONE,
            "ken/screenshots/a.png": PICTURE,
            "lea/problem.py": ONE,
        },
        dict.fromkeys(("bob", "carol", "Erin Example", "frank", "heidi", "ken", "lea"), "right"),
    ),
    "canvas, again and late": (
        {
            "doejane_11_2001_01-embeddings.py": WRONG[1],
            "doejane_LATE_11_2002_01-embeddings-1.py": ONE,
            "roejim_LATE_12_2003_problem.py": ONE,
            "anon_ab12C_2004_embeddings.py": ONE,
            "ngbo_13_text.html": b"<p>I could not upload</p>",
        },
        {"doejane": "right", "roejim": "right", "canvas ab12C": "right", "ngbo": ""},
    ),
    "a canvas download for each problem": (
        {
            "Problem 1/doejane_11_2001_problem.py": ONE,
            "Problem 2/doejane_11_2002_problem.py": TWO,
            "Problem 1/roejim_12_2003_main.py": ONE,
        },
        {"doejane": "right, right", "roejim": "right"},
    ),
    "moodle, one of them again in another": (
        {
            "M/Ann Lee_101_assignsubmission_file/01-embeddings.py": ONE,
            "M/Ann Lee_102_assignsubmission_file/01-embeddings.py": WRONG[1],
        },
        {"Ann Lee (101)": "right", "Ann Lee (102)": "wrong"},
    ),
    "moodle, the text typed in": (
        {
            "Ann Lee_101_assignsubmission_onlinetext_/onlinetext.html": (
                b"<html><body><pre>" + ONE.replace(b"<", b"&lt;") + b"</pre></body></html>"
            ),
        },
        {"Ann Lee": "right"},
    ),
    "blackboard, two attempts": (
        {
            "gradebook_CS1_PS 1/PS 1_jdoe_attempt_2026-11-29-10-20-30_01-embeddings.py": WRONG[1],
            "gradebook_CS1_PS 1/PS 1_jdoe_attempt_2026-11-30-10-20-30_01-embeddings.py": ONE,
            "gradebook_CS1_PS 1/PS 1_mroe_attempt_2026-11-30-10-20-30_hw.zip": zipped(
                {"01-embeddings.py": ONE}
            ),
            "gradebook_CS1_PS 1/PS 1_nobo_attempt_2026-11-30-10-20-30.txt": (
                b"Name: No Body (nobo)\nAssignment: PS 1\n"
            ),
        },
        {"jdoe": "right", "mroe": "right", "No Body": ""},
    ),
    "brightspace, two attempts": (
        {
            "7-9 - Ann Lee - Nov 9, 2026 1159 PM/01-embeddings.py": WRONG[1],
            "7-9 - Ann Lee - Nov 10, 2026 1205 AM/01-embeddings.py": ONE,
            "8-9 - Bo Ng - 30 November 2026 1020/problem.py": ONE,
        },
        {"Ann Lee": "right", "Bo Ng": "right"},
    ),
    "gradescope, handed in by two": (
        {
            "submission_5/01-embeddings.py": ONE,
            "submission_6/01-embeddings.py": WRONG[1],
            "submission_metadata.yml": (
                b"submission_5:\n  :submitters:\n  - :name: Ann Lee\n    :sid: '1'\n"
                b"  - :name: Bo Ng\n    :sid: '2'\n  :created_at: 2026-11-30 10:20:30 Z\n"
            ),
        },
        {"Ann Lee": "right", "Bo Ng": "right", "submission 6": "wrong"},
    ),
    "github, and one by hand": (
        {
            "hw1-alice/.git/HEAD": b"ref",
            "hw1-alice/01-embeddings.py": ONE,
            "hw1-bob/.git/HEAD": b"ref",
            "hw1-bob/problems/01-embeddings/problem.py": SKELETON[1],
            "hw1-bob/solutions/01-embeddings.py": ONE,
        },
        {"alice": "right", "bob": "skeleton"},
    ),
    "github's archives": (
        {
            "hw-submissions/hw-alice-main.zip": zipped({"hw-alice-main/01-embeddings.py": ONE}),
            "hw-submissions/hw-bob-main.zip": zipped({"hw-bob-main/embeddings.py": ONE}),
        },
        {"alice": "right", "bob": "right"},
    ),
    "two platforms' wrappers": (
        {
            "canvas/doejane_11_2001_01-embeddings.py": ONE,
            "canvas/roejim_12_2002_01-embeddings.py": WRONG[1],
            "moodle/Ann Lee_101_assignsubmission_file_/01-embeddings.py": ONE,
            "late by mail/bo/01-embeddings.py": ONE,
        },
        {"doejane": "right", "roejim": "wrong", "Ann Lee": "right", "late by mail": "right"},
    ),
    "a zip of zips": (
        {
            "class.zip": zipped(
                {
                    "alice.zip": zipped({"01-embeddings.py": ONE}),
                    "bob.zip": zipped({"x/01-embeddings.py": ONE}),
                    "carol.tgz": tarred({"problem.py": ONE}),
                }
            )
        },
        {"alice": "right", "bob": "right", "carol": "right"},
    ),
    "wrappers around the class": (
        {
            "download/submissions/alice/01-embeddings.py": ONE,
            "download/submissions/bob/main.py": ONE,
        },
        {"alice": "right", "bob": "right"},
    ),
    "weeks around the class": (
        {
            "week 1/alice/01-embeddings.py": ONE,
            "week 1/bob/01-embeddings.py": ONE,
            "week 2/alice/02-attention-basics.py": TWO,
            "week 2/bob/02-attention-basics.py": TWO,
        },
        {"alice": "right, right", "bob": "right, right"},
    ),
    "a problem around the class": (
        {
            "01-embeddings/alice/problem.py": ONE,
            "01-embeddings/bob/main.py": ONE,
            "02-attention-basics/alice/problem.py": TWO,
            "02-attention-basics/carol.py": TWO,
            "02-attention-basics/dave.py": TWO,
        },
        {"alice": "right, right", "bob": "right", "carol": ", right", "dave": ", right"},
    ),
    "loose files": (
        {
            "alice_01-embeddings.py": ONE,
            "alice_02-attention-basics.py": TWO,
            "01-embeddings_bob.py": ONE,
            "carol - problem 1.py": ONE,
            "dave.py": ONE,
            "erin-embeddings-final.ipynb": notebook(ONE.decode()),
            "01-embeddings.py": WRONG[1],
            "holiday.png": PICTURE,
        },
        {
            "alice": "right, right",
            "bob": "right",
            "carol": "right",
            "dave": "right",
            "erin": "right",
            "01-embeddings.py": "wrong",
            "holiday.png": "",
        },
    ),
    "one student's own folder": (
        {"problems/01-embeddings/problem.py": ONE, "screenshots/a.png": PICTURE, "README.md": b""},
        {"in": "right"},
    ),
    "one student's own files": (
        {"01-embeddings.py": ONE, "02-attention-basics-1.py": TWO},
        {"in": "right, right"},
    ),
    "one student in a class of one": (
        {"alice/laptop/01-embeddings.py": ONE, "alice/notes/x.md": b"#"},
        {"alice": "right"},
    ),
    "the same name twice, and different": (
        {
            "alice/01-embeddings.py": ONE,
            "alice.zip": zipped({"01-embeddings.py": WRONG[1]}),
            "bob/01-embeddings.py": ONE,
            "bob.zip": zipped({"bob/01-embeddings.py": ONE}),
            "Alice/01-embeddings.py": ONE,
        },
        {"alice": "right", "alice (2)": "wrong", "bob": "right", "Alice": "right"},
    ),
    "versions in folders": (
        {
            "Ann Lee/Problem 1/Version 1/main.py": WRONG[1],
            "Ann Lee/Problem 1/Version 2/main.py": ONE,
            "Bo Ng/1/01-embeddings.py": WRONG[1],
            "Bo Ng/2/01-embeddings.py": ONE,
            "Cy Oz/old/01-embeddings.py": WRONG[1],
            "Cy Oz/01-embeddings.py": ONE,
            "Di Po/2026-11-29T10:20:30/01-embeddings.py": WRONG[1],
            "Di Po/2026-11-30T10:20:30/01-embeddings.py": ONE,
        },
        dict.fromkeys(("Ann Lee", "Bo Ng", "Cy Oz", "Di Po"), "right"),
    ),
    "versions in names": (
        {
            "a/01-embeddings.py": WRONG[1],
            "a/01-embeddings (1).py": ONE,
            "b/01-embeddings.py": ONE,
            "b/Copy of 01-embeddings.py": WRONG[1],
            "c/01-embeddings_v1.py": WRONG[1],
            "c/01-embeddings_v10.py": ONE,
            "c/01-embeddings_v9.py": WRONG[1],
            "d/01-embeddings/problem.py": WRONG[1],
            "d/01-embeddings/problem (2).py": ONE,
            "e/embeddings_old.py": WRONG[1],
            "e/embeddings.py": ONE,
            "f/01-embeddings - Copy.py": WRONG[1],
            "f/01-embeddings.py": ONE,
            "g/01-embeddings.py": WRONG[1],
            "g/01-embeddings_FINAL_final2.py": ONE,
        },
        dict.fromkeys("abcdefg", "right"),
    ),
    "what is called code and is not": (
        {
            "a/01-embeddings.py": b"<!DOCTYPE html><html>class Embeddings</html>",
            "b/01-embeddings.py": b"{\\rtf1 class Embeddings}",
            "c/01-embeddings.py": zipped({"x": b"y"}),
            "d/01-embeddings.py": notebook(ONE.decode()),
            "e/01-embeddings.ipynb": b"not json",
            "f/01-embeddings.ipynb": notebook("print(1)"),
        },
        {n: "right" if n == "d" else "refused" for n in "abcdef"},
    ),
    "encodings": (
        {
            "a/01-embeddings.py": ONE.decode().encode("utf-16"),
            "b/01-embeddings.py": b"\xef\xbb\xbf" + ONE,
            "c/01-embeddings.py": ONE.replace(b"\n", b"\r\n"),
            "d/01-embeddings.py": b"# coding: latin-1\n# \xe9\n" + ONE,
        },
        {n: "right" for n in "abcd"},
    ),
    "a helper beside it": (
        {
            "a/01-embeddings.py": ONE,
            "a/helpers.py": b"def f(): pass",
            "b/embeddings/solution.py": ONE,
            "b/embeddings/test_embeddings.py": b"class Embeddings: pass",
            "c/main.py": ONE + TWO,
        },
        {"a": "right", "b": "right", "c": ""},
    ),
    "what systems leave behind": (
        {
            "__MACOSX/alice/._01-embeddings.py": b"\0",
            ".DS_Store": b"\0",
            "Thumbs.db": b"\0",
            "desktop.ini": b"",
            "alice/.git/01-embeddings.py": WRONG[1],
            "alice/.venv/lib/01-embeddings.py": WRONG[1],
            "alice/env/pyvenv.cfg": b"home = /usr",
            "alice/env/lib/01-embeddings.py": WRONG[1],
            "alice/.ipynb_checkpoints/01-embeddings.py": WRONG[1],
            "alice/__pycache__/01-embeddings.py": WRONG[1],
            "alice/work/01-embeddings.py": ONE,
        },
        {"alice": "right"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_cases(tmp_path: Path, name: str) -> None:
    """Catches each of these being lost, taken for somebody else's, or found in the wrong place."""
    files, expected = CASES[name]
    found = read(write(tmp_path / "in", files))
    got = {}
    for student, row in found.items():
        first, second = kind(row, 1), kind(row, 2)
        second = "" if second == "refused" else second
        got[student] = f"{first}, {second}" if second else first
    assert got == expected, {s.student: (s.where, s.notices) for s in found.values()}
    for row in found.values():
        if not row.files:
            assert row.attention, f"{row.student}: nothing is said"
