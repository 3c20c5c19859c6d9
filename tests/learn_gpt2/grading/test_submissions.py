"""Tests of what is handed in: any platform's download, students found, nothing passed over.

What is expected is written down here by hand; the downloads are made by `downloads.py`.
"""

from __future__ import annotations

import csv
import io
import os
import random
import subprocess
import sys
import tarfile
import zipfile
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
from learn_gpt2.grading import platforms, recognizing, roster, submissions, trees
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
            "carol/01-embeddings.py": ONE,
        },
        {"alice": "right", "bob": "skeleton", "carol": "right"},
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
    "sections of a class": (
        {
            "group A/alice/01-embeddings.py": ONE,
            "group A/bob/problem.py": ONE,
            "group A/bob/01-embeddings.py": ONE,
            "group B/carol/01-embeddings.py": WRONG[1],
            "group B/dave/01-embeddings.py": ONE,
            "group B/erin.zip": zipped({"01-embeddings.py": ONE}),
        },
        {"alice": "right", "bob": "right", "carol": "wrong", "dave": "right", "erin": "right"},
    ),
    "numbers instead of names": (
        {"spring 26/4711/01-embeddings.py": ONE, "spring 26/4712/01-embeddings.py": WRONG[1]},
        {"4711": "right", "4712": "wrong"},
    ),
    "a student with two computers": (
        {
            "alice/laptop/01-embeddings.py": ONE,
            "alice/desktop/01-embeddings.py": ONE,
            "bob/01-embeddings.py": ONE,
        },
        {"alice": "right", "bob": "right"},
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
    "versions of archives": (
        {
            "a/hw.zip": zipped({"01-embeddings.py": WRONG[1]}),
            "a/hw (1).zip": zipped({"01-embeddings.py": ONE}),
            "b/hw_final.zip": zipped({"x/01-embeddings.py": ONE}),
            "b/hw.zip": zipped({"x/01-embeddings.py": WRONG[1]}),
            "c/hw-2.tar.gz": tarred({"01-embeddings.py": ONE}),
            "c/hw-1.tar.gz": tarred({"01-embeddings.py": WRONG[1]}),
            "d.zip": zipped({"01-embeddings.py": WRONG[1]}),
            "d (1).zip": zipped({"01-embeddings.py": ONE}),
            "e (2).zip": zipped({"01-embeddings.py": ONE}),
        },
        {"a": "right", "b": "right", "c": "right", "d": "right", "e (2)": "right"},
    ),
    "the problem in an archive's name": (
        {
            "doejane_11_2001_01-embeddings.zip": zipped({"main.py": b"class Wrong: pass"}),
            "ann_01-embeddings.zip": zipped({"main.py": ONE}),
            "ann_problem 2.zip": zipped({"main.py": TWO}),
            "bo/02-attention-basics.zip": zipped({"code.py": b"class Wrong: pass"}),
        },
        {"doejane": "other", "ann": "right, right", "bo": ", other"},
    ),
    "odd dashes, endings and letters": (
        {
            "a/01\u2013embeddings.py": ONE,
            "b/０１＿Embeddings.py": ONE,
            "c/01%20embeddings.py": ONE,
            "d/01-embeddings.py (1)": ONE,
            "e/01-embeddings.py?download=1": ONE,
            "f/problems_01-embeddings_problem.py": ONE,
            "g/01-embeddings": ONE,
            "h/01-embeddings.py.download": ONE,
            "i/01-embeddings.py.py": ONE,
            "j/01-embeddings .py": ONE,
            "k/01. Embeddings.py": ONE,
            "l/Problem #1 (Embeddings).py": ONE,
            "m/p1.py": ONE,
            "n/01-embedings.py": ONE,
        },
        dict.fromkeys("abcdefghijklmn", "right"),
    ),
    "something hidden": (
        {".ann/01-embeddings.py": ONE, ".config/x.json": b"{}", "bo/01-embeddings.py": ONE},
        {".ann": "right", "bo": "right"},
    ),
    "the same class twice": (
        {
            "submissions.zip": zipped({"ann/01-embeddings.py": ONE, "bo/problem.py": ONE}),
            "submissions/ann/01-embeddings.py": ONE,
            "submissions/bo/problem.py": ONE,
        },
        {"ann": "right", "bo": "right"},
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


def test_windows_1252_is_read(tmp_path: Path) -> None:
    """Catches an editor's old encoding that costs all points, and a notice that isn't there."""
    plain = ONE.decode().encode("ascii", "replace")
    write(tmp_path / "in", {"a/01-embeddings.py": b"# caf\xe9\n" + plain})
    row = read(tmp_path / "in")["a"]
    assert row.files[1] == "# café\n".encode() + plain
    assert any("Windows-1252" in notice for notice in row.notices)


def test_bytes_that_are_no_text_stay_as_they_are(tmp_path: Path) -> None:
    """Catches a binary file that is turned into something else than what was handed in."""
    data = b"\xff\xfe\x00" + bytes(range(256))
    write(tmp_path / "in", {"a/01-embeddings.py": data})
    assert read(tmp_path / "in")["a"].files[1] == data


# ── names ───────────────────────────────────────────────────────────────────────────────────────

ODD_NAMES = [
    b"M\xfcller",  # Windows-1252
    "Müller".encode(),
    "Mu\u0308ller".encode(),  # decomposed
    b"\xff\xfe\xfd",
    "李" * 85,
    "علي حسن",
    "🎓👩‍💻",
    "ev\x1b[31mil\n\ttab",
    "\u202egnp.exe",
    "a" * 255,
    " leading and trailing ",
    "...dots",
    "=1+1",
    "-rf",
    "con",
    "a;b|c&d$e`f'g\"h",
    "<b>bold<b>",
    "%41%42",
    "İstanbul",
    "ﬁ",
    "o'brien, jr.",
    "Ἀθήνη",
    "\u200b",
    "\ufeffbom",
]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_are_graded_and_shown(tmp_path: Path) -> None:
    """Catches a name that ends the class, that is lost, or that steers whoever reads it."""
    folder = os.fsencode(tmp_path / "in")
    for name in ODD_NAMES:
        raw = name if isinstance(name, bytes) else name.encode()
        os.makedirs(os.path.join(folder, raw))
        with open(os.path.join(folder, raw, b"01-embeddings.py"), "wb") as file:
            file.write(ONE)
    found = read(tmp_path / "in")
    hidden = 1  # "...dots" is a hidden folder, as on every system
    assert len(found) >= len(ODD_NAMES) - hidden
    for student, row in found.items():
        assert row.files[1] == ONE
        student.encode("utf-8")
        assert not any(ord(c) < 32 or 0x202A <= ord(c) <= 0x202E for c in student), repr(student)


def test_a_name_of_300_letters_in_an_archive(tmp_path: Path) -> None:
    """Catches a name that no file system takes, and that an archive may have all the same."""
    long = "ü" * 300
    data = zipped({f"{long}/01-embeddings.py": ONE, f"bo/{'x' * 400}.py": ONE})
    write(tmp_path, {"class.zip": data})
    found = read(tmp_path / "class.zip")
    assert {kind(row, 1) for row in found.values()} == {"right"}
    assert long in found


@pytest.mark.parametrize(
    "name",
    ["-" * 60_000, "1" * 60_000, "(1)" * 20_000, "problem " * 7_000, " - Nov 9, 2026" * 4_000],
)
def test_a_name_of_60000_letters_takes_no_time(tmp_path: Path, name: str) -> None:
    """Catches a pattern that takes minutes for a name that only an archive can hold."""
    files = {f"{name}/01-embeddings.py": ONE, "bo/01-embeddings.py": ONE, f"bo/{name}.py": TWO}
    write(tmp_path, {"class.zip": zipped(files)})
    found = read(tmp_path / "class.zip")
    assert len(found) == 2
    assert kind(found["bo"], 1) == "right"


def test_names_in_archives_without_a_flag(tmp_path: Path) -> None:
    """Catches a Mac's zip, whose UTF-8 names are not marked as such, shown as "M├╝ller"."""
    data = bytearray(zipped({"Müller/01-embeddings.py": ONE, "Bo/01-embeddings.py": ONE}))
    for signature, place in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        start = data.find(signature)
        while start >= 0:
            data[start + place + 1] &= ~0x08
            start = data.find(signature, start + 1)
    write(tmp_path, {"class.zip": bytes(data)})
    assert read(tmp_path / "class.zip").keys() == {"Müller", "Bo"}


# ── archives that mean harm, or are broken ──────────────────────────────────────────────────────


def _flagged() -> bytes:
    """A zip whose names are marked as UTF-8 and are not."""
    data = zipped({"01-embeddings.py": ONE, "caf\u00e9": b""})
    return data.replace("caf\u00e9".encode(), b"caf\xff\xff")


def _version(data: bytes) -> bytes:
    """A zip that needs version 9.9."""
    changed = bytearray(data)
    start = data.find(b"PK\x01\x02")
    changed[start + 6] = 99
    return bytes(changed)


def _packed(method: int) -> bytes:
    """A zip of another method than deflate, that unpacks to much."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        archive.writestr("01-embeddings.py", b"#" * 3_000_000)
    return data.getvalue()


def _claims(size: int) -> bytes:
    """A tar whose file claims to be large and is not there."""
    info = tarfile.TarInfo("01-embeddings.py")
    info.size = size
    return info.tobuf() + b"x" * 100


HOSTILE: dict[str, tuple[str, bytes]] = {
    "empty": ("eve.zip", b""),
    "no zip": ("eve.zip", b"not a zip"),
    "cut short": ("eve.zip", zipped({"01-embeddings.py": ONE})[:-30]),
    "bzip2": ("eve.zip", _packed(zipfile.ZIP_BZIP2)),
    "LZMA": ("eve.zip", _packed(zipfile.ZIP_LZMA)),
    "deflate bomb": ("eve.zip", _packed(zipfile.ZIP_DEFLATED)),
    "version 9.9": ("eve.zip", _version(zipped({"01-embeddings.py": ONE}))),
    "a RAR called zip": ("eve.zip", b"Rar!\x1a\x07\x01\x00" + bytes(50)),
    "a 7z": ("eve.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50)),
    "a bzip2 tar": ("eve.tar.bz2", b"BZh91AY&SY"),
    "an XZ tar": ("eve.tar.xz", b"\xfd7zXZ\x00"),
    "a tar bomb": ("eve.tar.gz", tarred({"01-embeddings.py": b"#" * 3_000_000})),
    "a tar that claims": ("eve.tar", _claims(1 << 40)),
    "a gzip of noise": ("eve.tar.gz", b"\x1f\x8b\x08\x00" + os.urandom(200)),
    "outside": ("eve.zip", zipped({"../../01-embeddings.py": ONE, "/tmp/01-embeddings.py": ONE})),
    "nested deep": (
        "eve.zip",
        zipped(
            {
                "a.zip": zipped(
                    {
                        "b.zip": zipped(
                            {
                                "c.zip": zipped(
                                    {"d.zip": zipped({"e.zip": zipped({"01-embeddings.py": ONE})})}
                                )
                            }
                        )
                    }
                )
            }
        ),
    ),
    "broken inside": ("eve.zip", zipped({"a.zip": b"PK\x03\x04 no", "notes.txt": b"hi"})),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_archive_is_its_students_alone(tmp_path: Path, name: str) -> None:
    """Catches a reader that stops, hangs, fills the memory or is silent; and a class that pays."""
    file, data = HOSTILE[name]
    write(
        tmp_path / "in",
        {file: data, "ann/01-embeddings.py": ONE, "bo.zip": zipped({"01-embeddings.py": ONE})},
    )
    found = read(tmp_path / "in")
    assert kind(found["ann"], 1) == kind(found["bo"], 1) == "right"
    eve = found["eve"]
    assert 1 not in eve.files
    assert eve.attention
    assert not (tmp_path.parent / "01-embeddings.py").exists()


def test_a_false_flag_in_a_zip_loses_nothing(tmp_path: Path) -> None:
    """Catches a whole archive that is given up for one name."""
    write(tmp_path / "in", {"eve.zip": _flagged(), "ann/01-embeddings.py": ONE})
    assert kind(read(tmp_path / "in")["eve"], 1) == "right"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipes_links_and_closed_folders(tmp_path: Path) -> None:
    """Catches a grader that waits for a pipe, follows a link, or ends at a folder it can't list."""
    folder = write(tmp_path / "in", {"ann/01-embeddings.py": ONE, "hal/x/01-embeddings.py": ONE})
    outside = write(tmp_path / "outside", {"01-embeddings.py": ONE})
    os.mkfifo(folder / "eve.zip")
    os.mkfifo(folder / "fay_1_2_01-embeddings.py")
    (folder / "gil").symlink_to(outside)
    (folder / "ida.zip").symlink_to(outside)
    (folder / "joe").mkdir()
    (folder / "joe" / "01-embeddings.py").symlink_to(outside / "01-embeddings.py")
    (folder / "kim").mkdir()
    os.mkfifo(folder / "kim" / "01-embeddings.py")
    (folder / "loop").mkdir()
    (folder / "loop" / "loop").symlink_to(folder / "loop")
    found = read(folder)
    assert kind(found.pop("ann"), 1) == kind(found.pop("hal"), 1) == "right"
    assert found.keys() == {"eve", "fay", "gil", "ida", "joe", "kim", "loop"}
    for row in found.values():
        assert not row.files
        assert row.attention, row.student


def test_the_reader_of_archives_is_confined() -> None:
    """Catches a process that could still open files, or take all memory, while it reads."""
    script = Path(trees.__file__).with_name("intake_child.py")
    code = (
        f"import runpy; confine = runpy.run_path({str(script)!r})['confine']; confine()\n"
        "try:\n    bytearray(3 << 30)\nexcept MemoryError:\n    print('memory')\n"
        "try:\n    open('/etc/hostname')\nexcept OSError:\n    print('files')\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False
    )
    if sys.platform == "linux":
        assert "memory" in done.stdout
    if sys.platform == "linux" and os.path.exists("/sys/kernel/security/landlock"):
        assert "files" in done.stdout


# ── tables ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("pattern", platforms.PATTERNS, ids=lambda p: p.example[0])
def test_every_platforms_name_is_read(pattern: platforms.Pattern) -> None:
    """Catches a pattern that doesn't fit its own example, or that an earlier one takes away."""
    name, expected = pattern.example
    said = platforms.read_name(name, pattern.of)
    assert said is not None
    assert said.platform == pattern.platform
    for group, value in expected.items():
        got = getattr(said, group)
        assert str(int(got) if isinstance(got, bool) else got) == value


@pytest.mark.parametrize(
    "name",
    [
        "01-embeddings.py",
        "02-attention-basics",
        "alice",
        "alice-01-embeddings.py",
        "problem (2).py",
        "gpt2-course-main",
        "final_version_2.py",
        "2026-11-30",
        "homework_1_2.zip",
        "Problem 1",
    ],
)
@pytest.mark.parametrize("of", ["file", "folder"])
def test_ordinary_names_are_no_platforms(name: str, of: str) -> None:
    """Catches a pattern that sees a student id in a student's own file name."""
    said = platforms.read_name(name, of)
    assert said is None or name == "homework_1_2.zip"


@pytest.mark.parametrize(
    ("time", "digits"),
    [
        ("Nov 30, 2026 1020 AM", "20261130102000"),
        ("Nov 30, 2026 12:05 AM", "20261130000500"),
        ("Nov 3, 2026 1205 PM", "20261103120500"),
        ("30 November 2026 1020", "20261130102000"),
        ("2026-11-30-10-20-30", "20261130102030"),
        ("2026-11-30T10:20:30Z", "20261130102030"),
        ("2026-11-30 1020", "20261130102000"),
        ("30. Oktober 2026 10:20", "20261030102000"),
        ("5 de diciembre de 2026 9:05", "20261205090500"),
        ("whenever", ""),
    ],
)
def test_times_sort(time: str, digits: str) -> None:
    """Catches a later hand-in that compares as an earlier one."""
    assert platforms.sortable(time) == digits


@pytest.mark.parametrize(
    ("stem", "base", "rank", "number"),
    [
        ("01-embeddings", "01-embeddings", 0, 0),
        ("01-embeddings-1", "01-embeddings", 1, 1),
        ("01-embeddings (12)", "01-embeddings", 1, 12),
        ("01-embeddings_v2", "01-embeddings", 1, 2),
        ("01-embeddings-final", "01-embeddings", 2, 0),
        ("01-embeddings_final_3", "01-embeddings", 2, 3),
        ("01-embeddings.old", "01-embeddings", -2, 0),
        ("Copy of 01-embeddings", "01-embeddings", -1, 0),
        ("01-embeddings - Copy (2)", "01-embeddings", -1, 2),
        ("01-embeddings_fixed", "01-embeddings", 2, 0),
    ],
)
def test_endings_that_tell_versions_apart(stem: str, base: str, rank: int, number: int) -> None:
    """Catches a suffix that is taken for part of the name, or that counts the wrong way."""
    text, version = recognizing.versions(stem)[-1]
    assert (recognizing.plain(text), version.rank, version.number) == (base, rank, number)


@pytest.mark.parametrize("problem", manifest.PROBLEMS, ids=lambda p: p.folder)
def test_every_problem_is_known_by_its_content(problem: manifest.Problem) -> None:
    """Catches a solution that is not recognized, or is taken for another problem's."""
    source = problem.solution_path(Path(__file__).resolve().parents[3]).read_bytes()
    node = trees.Node("work.py", "work.py", "file", reads=lambda most: source[:most])
    file = recognizing.File(node, "work.py", "work.py")
    skeletons: dict[int, bytes] = {}
    got = recognizing.recognize([file], list(manifest.PROBLEMS), skeletons)
    assert got.files == {problem.number: source}


def test_a_notebooks_cells_come_with_what_they_need(tmp_path: Path) -> None:
    """Catches a class without its imports and helpers, and cells that train, plot or install."""
    cells = (
        "%pip install torch\nimport torch, os\nfrom torch import nn\n"
        "from google.colab import drive",
        "WIDTH = 3\ndef half(x):\n    return x / 2\nunused = WIDTH",
        "@half\nclass Embeddings(nn.Module):\n    y = half(WIDTH)",
        "model = Embeddings(1, 2, 3)\nmodel.train()\nprint(torch.zeros(3))",
        "def broken(:",
    )
    write(tmp_path / "in", {"ann/homework.ipynb": notebook(*cells)})
    text = read(tmp_path / "in")["ann"].files[1].decode()
    assert "from torch import nn" in text
    assert "def half" in text
    assert "WIDTH = 3" in text
    assert "@half\nclass Embeddings" in text
    for left_out in ("colab", "pip", "model", "unused", "broken", "print"):
        assert left_out not in text


@pytest.mark.parametrize(
    "name", ["problem.py", "main.py", "solution.py", "x.py", "hw.py", "a b.py"]
)
def test_a_file_alone_where_one_problem_is_graded(tmp_path: Path, name: str) -> None:
    """Catches a broken answer, which defines nothing, that is called "not handed in"."""
    write(tmp_path / "in", {f"ann/{name}": b"class Embedding:\n    pass\n", "ann/x.png": PICTURE})
    row = read(tmp_path / "in", (1,))["ann"]
    assert row.files[1].startswith(b"class Embedding:")
    assert row.where[1] == name


STYLES = [
    *("{folder}.py", "{under}.py", "{n}-{slug}.py", "{slug}.py", "{flat}.py", "{title}.py"),
    *("problem{n}.py", "Problem {n}.py", "problem_{n:02d}.py", "p{n}.py", "q{n:02d}.py", "{n}.py"),
    *("ann_{folder}.py", "{folder}_ann_lee.py", "hw3_problem_{n}.py", "lee_ann_p{n}.py"),
    *("problem{n}_final.py", "solution{n}.py", "gpt2_{slug}.py", "my_{under}_v2.py"),
    *("problem {n}/main.py", "{n:02d}/problem.py", "{slug}/main.py", "week 3/{n:02d}.py"),
    *("problems/{under}/Problem.py", "{folder}/code.py", "{folder} (1).py", "{folder}.py.txt"),
]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("broken", [False, True], ids=["right", "unreadable"])
def test_all_are_told_apart_by_name(style: str, broken: bool) -> None:
    """Catches a way of naming that mixes two problems up, or that needs the file to be right."""
    root, files, expected = Path(__file__).resolve().parents[3], [], {}
    for problem in manifest.PROBLEMS:
        slug, n = problem.slug, problem.number
        place = style.format(
            folder=problem.folder,
            under=problem.folder.replace("-", "_"),
            slug=slug,
            flat=slug.replace("-", ""),
            title=problem.title,
            n=n,
        )
        data = b"def f(:\n" if broken else problem.solution_path(root).read_bytes()
        *folders, name = place.split("/")
        node = trees.Node(name, place, "file", reads=lambda most, data=data: data[:most])
        files.append(recognizing.File(node, place, name, tuple(folders)))
        expected[n] = place
    got = recognizing.recognize(files, list(manifest.PROBLEMS), {})
    assert got.where == expected


@pytest.mark.parametrize(
    ("stem", "number"),
    [
        ("sampling", 13),
        ("keep_top_p", 13),
        ("text generation", 13),
        ("kv_cache", 14),
        ("cache", 14),
        ("KVCache_final", 14),
        ("training_step", 15),
        ("finetuning", 15),
        ("lora", 16),
        ("gpt2_lora", 16),
        ("my LoRA", 16),
        ("LoRALinear", 16),
        ("quantize", 17),
        ("data_parallel", 18),
        ("DataParallel_v2", 18),
    ],
)
def test_files_of_part_two_by_name(stem: str, number: int) -> None:
    """Catches a file that is called like the product's file, or like what it defines."""
    for text, _ in recognizing.versions(stem):
        if said := recognizing.problem_of(text, manifest.PROBLEMS):
            assert said[0].number == number
    assert said is not None


@pytest.mark.parametrize(
    "stem",
    [
        *("Shardul Patel", "shardul", "sample", "sample_submission", "samples", "Lora Smith"),
        *("lora_smith", "smith_lora", "Flora", "collate", "ignore", "please ignore", "sharding"),
    ],
)
def test_words_and_people_are_no_problem_of_part_two(stem: str) -> None:
    """Catches a student, or a folder of samples, that is taken for a piece."""
    assert recognizing.problem_of(stem, manifest.PROBLEMS) is None
    if "smith" not in stem.lower():
        assert recognizing.without_problem(stem, manifest.PROBLEMS)


def test_part_two_beside_part_one(tmp_path: Path) -> None:
    """Catches a hand-in of all eighteen in which two pieces are mixed up or one is lost, in a copy
    of the course and in a flat folder.
    """
    root = Path(__file__).resolve().parents[3]
    sources = {p.number: p.solution_path(root).read_bytes() for p in manifest.PROBLEMS}
    folders = {f"ann/problems/{p.folder}/problem.py": sources[p.number] for p in manifest.PROBLEMS}
    folders |= {f"ann/src/gpt2/{p.module}": b"x = 1\n" for p in manifest.PROBLEMS}
    flat = {f"bob/{p.slug}.py": sources[p.number] for p in manifest.PROBLEMS}
    modules = {f"eve/{p.module}": sources[p.number] for p in manifest.MODULE_PROBLEMS}
    write(tmp_path / "in", folders | flat | modules)
    found = read(tmp_path / "in", tuple(range(1, 19)))
    assert found["ann"].files == sources
    assert found["bob"].files == sources
    assert found["eve"].files == {n: sources[n] for n in range(13, 19)}
    part_one = read(tmp_path / "in", tuple(range(1, 13)))
    assert part_one["ann"].files == {n: sources[n] for n in range(1, 13)}


def test_a_tie_is_to_be_looked_at(tmp_path: Path) -> None:
    """Catches a choice between two answers that nothing supports, made in silence; and a question
    where the names do tell.
    """
    write(
        tmp_path / "in",
        {
            "a/01-embeddings.py": ONE,
            "a/embeddings.py": WRONG[1],
            "b/01-embeddings.py": ONE,
            "b/01-embeddings-old.py": WRONG[1],
            "c/x/01-embeddings.py": ONE,
            "c/y/01-embeddings.py": WRONG[1],
            "d/01-embeddings.py": ONE,
            "d/01-embeddings.ipynb": notebook(WRONG[1].decode()),
            "e/01-embeddings.py": WRONG[1],
            "e/embeddings_v2.py": ONE,
        },
    )
    found = read(tmp_path / "in")
    assert {name for name, row in found.items() if row.attention} == {"a", "c", "e"}
    assert all("more than once" in row.notices[0] for row in found.values())
    assert {name for name, row in found.items() if kind(row, 1) == "right"} >= set("abde")


# ── what is said ────────────────────────────────────────────────────────────────────────────────


def test_what_is_not_understood_is_named(tmp_path: Path) -> None:
    """Catches a zero without a word."""
    write(
        tmp_path / "in",
        {
            "frank/notes-on-attention.py": b"x = 1",
            "gina/": b"",
            "hugo/work.rar": b"Rar!\x1a\x07",
            "iris/01-embeddings.py": ONE,
            "iris/second.py": b"y = 2",
            "jack/01-embeddings.py": ONE,
            "jack/02-attention-basics.py": TWO,
            "jack/plot.png": PICTURE,
        },
    )
    found = read(tmp_path / "in")
    assert "nothing recognized; holds notes-on-attention.py" in found["frank"].attention
    assert "nothing is in it: it is empty" in found["gina"].attention
    assert "RAR archive" in found["hugo"].attention[0]
    assert ".zip" in found["hugo"].attention[0]
    assert "nothing was taken of second.py" in found["iris"].attention[0]
    assert not found["jack"].attention
    assert found["jack"].notices == ["not used: plot.png"]


def test_what_is_handed_in_for_other_problems_is_said(tmp_path: Path) -> None:
    """Catches "it is empty" said of a folder that holds what is not graded today."""
    write(tmp_path / "in", {"ann/01-embeddings.py": ONE, "bo/02-attention-basics.py": TWO})
    found = read(tmp_path / "in", (2,))
    assert found["ann"].notices == ["nothing for problem 02; problem 01 is there"]
    assert not found["ann"].attention
    assert kind(found["bo"], 2) == "right"


ROSTERS = {
    "canvas": (
        "Student,ID,SIS User ID,SIS Login ID,Section,Problem 1 (77)\n"
        '    Points Possible,,,,,18\n"Doe, Jane",11,S1,jdoe,A,\n"Roe, Jim",12,S2,jroe,A,\n'
        '"Ñandú, José",13,S3,jn,A,\n'
    ),
    "moodle": (
        "Identifier;Full name;Email address;Status;Grade\nParticipant 11;Jane Doe;jdoe@x.edu;;\n"
        "Participant 12;Jim Roe;jroe@x.edu;;\nParticipant 13;José Ñandú;jn@x.edu;;\n"
    ),
    "gradescope": (
        "First Name,Last Name,SID,Email,Role\nJane,Doe,11,jdoe@x.edu,Student\n"
        "Jim,Roe,12,jroe@x.edu,Student\nJosé,Ñandú,13,jn@x.edu,Student\n"
    ),
    "brightspace": (
        "OrgDefinedId,Username,Last Name,First Name,Email,End-of-Line Indicator\n"
        "#11,#jdoe,Doe,Jane,,#\n#12,#jroe,Roe,Jim,,#\n#13,#jn,Ñandú,José,,#\n"
    ),
    "sakai": (
        "Problem Set,Points\n\nDisplay ID,ID,Last Name,First Name,grade\njdoe,11,Doe,Jane,\n"
        "jroe,12,Roe,Jim,\njn,13,Ñandú,José,\n"
    ),
    "github": (
        "identifier,github_username,github_id,name\njdoe@x,jdoe,11,Jane Doe\n"
        "jroe@x,jroe,12,Jim Roe\njn@x,jn,13,José Ñandú\n"
    ),
    "by hand": "name\nJane Doe\nJim Roe\nJosé Ñandú\n",
}


@pytest.mark.parametrize("form", ROSTERS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_roster_finds_who_is_who_and_who_is_missing(
    tmp_path: Path, form: str, encoding: str
) -> None:
    """Catches a class list in a platform's own form that isn't understood."""
    path = tmp_path / "roster.csv"
    path.write_bytes(ROSTERS[form].encode(encoding))
    people = roster.read(path)
    assert len(people.people) == 3
    assert len(people.rows) == len(ROSTERS[form].splitlines())
    folder = write(
        tmp_path / "in",
        {
            "doejane_11_5001_01-embeddings.py": ONE,
            "Jim Roe/01-embeddings.py": ONE,
            "stranger/01-embeddings.py": ONE,
        },
    )
    found = read(folder, roster=people)
    assert len(found) == 4
    by_name = {s.person.shown if s.person else None: s for s in found.values()}
    jane = next(s for name, s in by_name.items() if name and "Jane" in name)
    jim = next(s for name, s in by_name.items() if name and "Jim" in name)
    jose = next(s for name, s in by_name.items() if name and "José" in name)
    assert jane.source == "doejane_11_5001_01-embeddings.py"
    assert jim.source == "Jim Roe"
    assert not jose.source
    assert "handed in nothing" in jose.notices[0]
    assert "not in the roster" in by_name[None].attention[0]
    if form != "by hand":
        assert jim.id == "12"


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "name\n", "\x00\x01"])
def test_what_is_no_roster_is_refused(tmp_path: Path, text: str) -> None:
    """Catches a wrong file that makes everybody missing."""
    path = tmp_path / "roster.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="roster"):
        roster.read(path)
    with pytest.raises(ValueError, match="read"):
        roster.read(tmp_path / "nowhere.csv")


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def learn(*words: object) -> subprocess.CompletedProcess[str]:
    """Run `learn grade` as an instructor does."""
    return subprocess.run(
        [sys.executable, "-m", "learn_gpt2", "grade", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        check=False,
    )


def test_a_dry_run_lists_and_runs_nothing(tmp_path: Path) -> None:
    """Catches a dry run that grades, writes, or says less than the grading would."""
    trap = b"open('trap', 'w')\n" + ONE
    folder = write(
        tmp_path / "in",
        {"doejane_11_5001_01-embeddings.py": trap, "frank_12_5002_notes.docx": b"PK"},
    )
    done = learn(folder, "--dry-run", "--problems", "1")
    assert done.returncode == 3
    assert "doejane (11)" in done.stdout
    assert "01  doejane_11_5001_01-embeddings.py" in done.stdout
    assert "frank (12)" in done.stdout
    assert "nothing recognized; holds frank_12_5002_notes.docx" in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]
    (folder / "frank_12_5002_notes.docx").unlink()
    assert learn(folder, "--dry-run", "--problems", "1").returncode == 0
    assert learn(tmp_path / "nowhere", "--dry-run").returncode not in (0, 3)


def test_forty_are_graded_to_the_right_marks(tmp_path: Path) -> None:
    """Catches a student who is found and not graded, or graded on something else: the whole way
    from a platform's download to the marks, and what was not understood in every report.
    """
    people = students()
    write(tmp_path / "in" / "canvas", PLATFORMS["canvas"](people))
    write(tmp_path / "in" / "moodle", PLATFORMS["moodle, blind"](people))
    list_ = "Student,ID\n" + "".join(f'"{s.last}, {s.first}",{s.id}\n' for s in people)
    (tmp_path / "roster.csv").write_text(list_ + '"Missing, Ing",99999\n', encoding="utf-8")
    out = tmp_path / "report"
    done = learn(
        tmp_path / "in",
        "--out",
        out,
        "--problems",
        "1-2",
        "--jobs",
        2,
        "--roster",
        tmp_path / "roster.csv",
    )
    assert done.returncode == 3, done.stdout + done.stderr
    with open(out / "grades.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    most = {1: int(rows[0]["01 points"]), 2: int(rows[0]["02 points"])}
    assert len(rows) == 1 + 2 * len(people) + 1
    for student in people:
        for row in (r for r in rows if r["id"] == str(student.id)):
            for number, wanted in student.work.pieces.items():
                points = int(row[f"0{number} points"])
                if wanted == "right":
                    assert points == most[number], (student.full, row)
                elif wanted == "wrong":
                    assert points < most[number], (student.full, row)
                    assert points > 0 or number == 2, (student.full, row)
                else:
                    assert points == 0, (student.full, row)
            if not any(student.work.pieces.values()):
                assert row["look"] == "yes"
                assert row["notices"]
                assert row["student"] in done.stdout
                feedback = (out / "feedback" / f"{row['student']}.md").read_text("utf-8")
                assert next(iter(student.work.uploads)) in feedback.replace("\\", "")
    (missing,) = [r for r in rows if r["id"] == "99999"]
    assert missing["points"] == "0"
    assert "handed in nothing" in missing["notices"]


# ── nothing is lost ─────────────────────────────────────────────────────────────────────────────

TOPS = [
    *("alice", "bob", "Ann Lee", "4711", "x.y", "final", "carol (1)", "carol", "group A"),
    *("Ann Lee_101_assignsubmission_file_", "doejane_11_2001_@", "roejim_LATE_12_2002_@"),
    *("7-9 - Cy Oz - Nov 9, 2026 1159 PM", "submission_55", "Last, First(eid)", "hw1-zed"),
    *("week 1", "submissions", "Problem 1", "01-embeddings", "alice_@", "@"),
    "PS_jdoe_attempt_2026-11-29-10-20-30_@",
]
INSIDE = [
    *("01-embeddings.py", "02-attention-basics.py", "problem.py", "main.py", "problem (1).py"),
    *("notes.txt", "shot.png", "report.pdf", "helpers.py", "old_01-embeddings.py"),
    *("Copy of problem.py", "test_embeddings.py", "hw.ipynb", "README.md"),
]
AROUND = ["", "", "problems/01-embeddings/", "01-embeddings/", "src/", "Version 2/", "a/b/", "old/"]


def _any_class(chance: random.Random) -> dict[str, bytes]:
    """Some hand-ins of all kinds in one folder, as nobody would plan them."""
    made: dict[str, bytes] = {}

    def content(name: str) -> bytes:
        if name.endswith(".ipynb"):
            return notebook(chance.choice([ONE, TWO]).decode())
        if not name.endswith(".py"):
            return b"hello"
        return chance.choice([ONE, TWO, SKELETON[1], b"x = 1\n", b""])

    for _ in range(chance.randint(1, 6)):
        top, inside = chance.choice(TOPS), {}
        if "@" in top:
            name = chance.choice(INSIDE)
            made[top.replace("@", name)] = content(name)
            continue
        for _ in range(chance.randint(0, 4)):
            name = chance.choice(INSIDE)
            inside[chance.choice(AROUND) + name] = content(name)
        if chance.random() < 0.3:
            made[f"{top}.zip"] = zipped(inside)
        else:
            made |= {f"{top}/": b""} | {f"{top}/{name}": data for name, data in inside.items()}
    return made


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_handed_in_is_graded_or_named(tmp_path: Path, seed: int) -> None:
    """Catches a file that is neither taken nor named, and a reader that ends at a mixture: every
    answer in any arrangement is some row's, or stands by name in what is said.
    """
    files = _any_class(random.Random(seed))
    folder = write(tmp_path / "in", files)
    if not any(
        name.endswith((".py", ".zip", ".ipynb", "/", ".txt", ".png", ".pdf")) for name in files
    ):
        return  # a README alone is nobody's
    found = read(folder)
    said, taken = "", set()
    for row in found.values():
        said += "\n".join([row.student, row.source, *row.where.values(), *row.unread, *row.notices])
        taken |= set(row.files.values())
        assert "could not be read" not in said
        assert row.files or row.notices, row
    for name, data in files.items():
        last = name.rpartition("/")[2]
        if data in (ONE, TWO) and not last.startswith("test_"):
            assert data in taken or last in said, name
    if found.keys() != {"in"}:
        for entry in folder.iterdir():
            assert entry.name in said or platforms.PLATFORM_FILES.fullmatch(entry.name)
