"""Results that go back: what Canvas, Moodle, Gradescope and Classroom 50 read."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from learn_gpt2.grading import autograder, connectors, roster
from learn_gpt2.grading.connectors import Wishes
from tests import class_of_40
from tests.class_of_40 import put, solution
from tests.learn_gpt2.grading import made

# as the platforms export them; the students of `made` have ids from 1000 on
CANVAS = """\
Student,ID,SIS User ID,SIS Login ID,Section,Essay (77),GPT-2 (12345),Current Score
    Points Possible,,,,,10,100,(read only)
"Example, Ann",1000,S-1,login0,Section 1,9,,90
"1, =1+1",1001,S-2,login1,Section 1,8,,80
"Absent, Amy",2000,S-3,login9,Section 1,,55,
"Student, Test",2999,,teststudent,Section 1,,,
"""
MOODLE = """\
Identifier,"Full name","Email address",Status,Grade,"Maximum Grade","Grade can be changed",\
"Last modified (submission)","Last modified (grade)","Feedback comments"
"Participant 1000","Ann Example",s0@school.example,"Submitted for grading",,50.00,Yes,\
"Monday, 30 November 2026, 10:00 AM",-,
"Participant 2000","Amy Absent",amy@school.example,"No submission",12.00,50.00,Yes,-,-,keep
"""


def class_list(folder: Path, text: str) -> roster.Roster:
    """A class list as it is read from a file."""
    path = folder / "roster.csv"
    path.write_text(text, encoding="utf-8")
    return roster.read(path)


def rows(written: connectors.Written, name: str) -> list[list[str]]:
    """A written table's rows."""
    return list(csv.reader(io.StringIO(written.files[name].decode("utf-8"), newline="")))


# ── Canvas ──────────────────────────────────────────────────────────────────────────────────────


def test_canvas_gets_its_own_columns_and_one_assignment(tmp_path: Path) -> None:
    """Catches a gradebook that Canvas refuses (its student columns, the row of possible points),
    that overwrites other assignments, or whose points are not those of the column.
    """
    names = ("Ann Example", "=1+1", "nobody knows")
    written = connectors.write("canvas", made.report(names=names), class_list(tmp_path, CANVAS))
    table = rows(written, "canvas.csv")
    assert table[0] == [
        *("Student", "ID", "SIS User ID", "SIS Login ID", "Section", "GPT-2 (12345)"),
    ]
    assert table[1] == ["    Points Possible", "", "", "", "", "100"]
    by_id = {row[1]: row for row in table[2:]}
    assert by_id["1000"][:5] == ["Example, Ann", "1000", "S-1", "login0", "Section 1"]
    assert by_id["1000"][5] == "67.57"  # 25 of 37, of the 100 that the column has
    assert by_id["2000"][5] == ""  # who handed in nothing keeps what Canvas has
    notes = "\n".join(written.notes)
    assert "nobody knows" in notes
    assert "Absent, Amy" in notes
    assert "scaled to the 100 points" in notes


def test_canvas_is_told_of_a_new_assignment(tmp_path: Path) -> None:
    """Catches points that go into somebody else's column, and scaling where there is no column."""
    people = class_list(tmp_path, CANVAS)
    written = connectors.write(
        "canvas", made.report(names=("Ann Example",)), people, Wishes("Lab 3")
    )
    table = rows(written, "canvas.csv")
    assert table[0][-1] == "Lab 3"
    assert table[1][-1] == "37"
    assert table[2][-1] == "25"
    assert any("GPT-2 (12345)" in note for note in written.notes)


def test_canvas_without_a_class_list(tmp_path: Path) -> None:
    """Catches ids that are lost though the downloads' names held them, and formulas."""
    table = rows(connectors.write("canvas", made.report()), "canvas.csv")
    assert table[0][:5] == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section"]
    assert [row[1] for row in table[2:]] == [str(1000 + i) for i in range(len(made.NAMES))]
    assert not [row for row in table if row[0].startswith("=")]


# ── Moodle ──────────────────────────────────────────────────────────────────────────────────────


def test_moodle_gets_its_worksheet_back_filled_in(tmp_path: Path) -> None:
    """Catches a worksheet without the columns that Moodle looks for, grades above its maximum (it
    skips those in silence), changed dates, and feedback that is read as HTML.
    """
    names = ("Ann Example", "nobody knows")
    written = connectors.write("moodle", made.report(names=names), class_list(tmp_path, MOODLE))
    header, ann, amy = rows(written, "moodle.csv")
    given = list(csv.reader(io.StringIO(MOODLE)))
    assert header == given[0]
    assert ann[0] == "Participant 1000"
    assert ann[4] == "33.78"  # 25 of 37, of 50
    assert ann[5:9] == given[1][5:9]
    assert "&lt;img src=x" in ann[9]
    assert "<img" not in ann[9]
    assert amy == given[2]
    assert any("nobody knows" in note for note in written.notes)


def test_moodle_in_another_language_and_without_feedback(tmp_path: Path) -> None:
    """Catches a worksheet that is only understood in English."""
    text = "ID,Vollständiger Name,E-Mail-Adresse,Status,Bewertung,Bestwertung\n"
    text += "Teilnehmer/in1000,Ann Example,s0@school.example,Abgegeben,,37\n"
    written = connectors.write(
        "moodle", made.report(names=("Ann Example",)), class_list(tmp_path, text)
    )
    assert rows(written, "moodle.csv")[1][4] == "25"
    assert any("Feedback comments" in note for note in written.notes)


def test_a_class_list_that_is_not_a_worksheet_is_refused(tmp_path: Path) -> None:
    """Catches a file that Moodle would refuse, written without a word."""
    with pytest.raises(ValueError, match="no column Grade"):
        connectors.write("moodle", made.report(), class_list(tmp_path, CANVAS))


def test_moodle_without_a_worksheet() -> None:
    """Catches columns that Moodle's importer does not find."""
    header, first, *_ = rows(connectors.write("moodle", made.report()), "moodle.csv")
    assert {"Identifier", "Grade", "Last modified (grade)"} <= set(header)
    assert first[0] == "Participant 1000"


# ── Gradescope ──────────────────────────────────────────────────────────────────────────────────

VISIBILITIES = {"hidden", "after_due_date", "after_published", "visible"}
FORMATS = {"text", "html", "simple_format", "md", "ansi"}


def expect_gradescope(results: dict) -> None:
    """What Gradescope's specification asks of results.json."""
    assert isinstance(results["score"], (int, float))
    assert results["visibility"] in VISIBILITIES
    assert results["stdout_visibility"] in VISIBILITIES
    for key in ("output_format", "test_output_format", "test_name_format"):
        assert results[key] == "text"
    for test in results["tests"]:
        assert 0 <= test["score"] <= test["max_score"]
        assert test["status"] in ("passed", "failed")
        assert test["visibility"] in VISIBILITIES
        assert test["output_format"] in FORMATS
        assert isinstance(test["name"], str)
        assert isinstance(test["output"], str)
    assert results["score"] == sum(test["score"] for test in results["tests"])


def test_gradescope_gets_a_file_per_student() -> None:
    """Catches a message that is read as HTML, and a score that is not the sum of the tests."""
    report = made.report()
    written = connectors.write("gradescope", report)
    assert len(written.files) == len(made.NAMES)
    for data in written.files.values():
        expect_gradescope(json.loads(data.decode("utf-8")))
    first = connectors.gradescope_results(report["students"][0], report)
    failed = next(test for test in first["tests"] if test["status"] == "failed")
    assert failed["output"] == report["students"][0]["problems"][1]["results"][0]["message"]


# ── Classroom 50 ────────────────────────────────────────────────────────────────────────────────


def expect_classroom50(result: dict, classroom: str, assignment: str) -> None:
    """What Classroom 50's runner and collector ask of result.json."""
    assert result["schema"] == "classroom50/result/v1"
    assert (result["classroom"], result["assignment"]) == (classroom, assignment)
    assert result["assignment_type"] in ("individual", "group", "team")
    assert result["submission"].startswith("submit/")
    for key in ("owner", "commit", "release", "review", "datetime"):
        assert isinstance(result[key], str), key
        assert result[key], key
    for part in (result, *result["tests"]):
        assert type(part["score"]) is type(part["max-score"]) is int
        assert 0 <= part["score"] <= part["max-score"]
    for test in result["tests"]:
        assert test["test-name"]
        assert isinstance(test["passed"], bool)


def test_classroom50_gets_a_result_per_student(monkeypatch, tmp_path: Path) -> None:
    """Catches a result that its collector passes over."""
    for name in ("CLASSROOM", "ASSIGNMENT", "OWNER"):
        monkeypatch.delenv(name, raising=False)
    written = connectors.write("classroom50", made.report(), None, Wishes("gpt2", "cs-test"))
    assert len(written.files) == len(made.NAMES)
    assert not written.notes
    for data in written.files.values():
        expect_classroom50(json.loads(data.decode("utf-8")), "cs-test", "gpt2")
    asked = connectors.write("classroom50", made.report())
    assert any("--classroom" in note for note in asked.notes)


def test_classroom50_owner_is_the_login_of_the_class_list(monkeypatch, tmp_path: Path) -> None:
    """Catches a folder's name where the GitHub login must be."""
    monkeypatch.setenv("CLASSROOM", "cs-test")
    monkeypatch.setenv("ASSIGNMENT", "gpt2")
    monkeypatch.setenv("SUBMISSION_TAG", "submit/2026-11-30T10-00-00Z-abc1234")
    text = "username,first_name,last_name,email,section,github_id\n"
    text += "ann-hub,Ann,Example,s0@school.example,1,42\n"
    report = made.report(names=("Ann Example",))
    report["students"][0]["login"] = ""
    written = connectors.write("classroom50", report, class_list(tmp_path, text))
    (result,) = (json.loads(data) for data in written.files.values())
    assert result["owner"] == "ann-hub"
    assert result["submission"] == "submit/2026-11-30T10-00-00Z-abc1234"


# ── the autograder ──────────────────────────────────────────────────────────────────────────────


def unpacked(folder: Path, *numbers: int) -> Path:
    """/autograder as Gradescope lays it out, under another root; with Python from here."""
    base = folder / "autograder"
    (base / "submission").mkdir(parents=True)
    data = autograder.archive(class_of_40.ROOT, numbers)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        packed.extractall(base / "source")
        modes = {entry.filename: entry.external_attr >> 16 for entry in packed.infolist()}
    for name in ("setup.sh", "run_autograder"):
        assert modes[name] & 0o111 == 0o111
    # the platform copies it there, and makes it executable
    shutil.copy(base / "source" / "run_autograder", base / "run_autograder")
    os.chmod(base / "run_autograder", 0o755)
    python = base / "source" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return base


def test_the_archive_holds_what_it_needs_and_nothing_private() -> None:
    """Catches an archive without its two scripts at the top, with a student's pieces or a learner's
    memory in it, that differs from build to build, or whose scripts have no Unix line ends.
    """
    data = autograder.archive(class_of_40.ROOT, (1, 3), torch_index="https://x.example/a b")
    assert data == autograder.archive(class_of_40.ROOT, (1, 3), torch_index="https://x.example/a b")
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        names = set(packed.namelist())
        texts = {name: packed.read(name).decode() for name in ("setup.sh", "run_autograder")}
        options = json.loads(packed.read("options.json"))
    assert {"setup.sh", "run_autograder", "constraints.txt", "requirements.txt"} <= names
    assert "course/solutions/01-embeddings.py" in names
    assert not [name for name in names if "/.learn" in name or "/bundled/" in name]
    assert not [name for name in names if name.endswith((".ipynb", ".pyc", "problem.py"))]
    assert options["problems"] == [1, 3]
    for text in texts.values():
        assert text.startswith("#!/usr/bin/env bash\n")
        assert "\r" not in text
    assert "@" not in texts["setup.sh"].replace('"$@"', "")
    assert "--index-url 'https://x.example/a b' torch==" in texts["setup.sh"]
    if shutil.which("bash"):
        for text in texts.values():
            subprocess.run(["bash", "-n"], input=text.encode(), check=True)


@pytest.mark.skipif(not shutil.which("bash") or not hasattr(os, "fork"), reason="Linux's way")
def test_the_autograder_grades_one_submission(tmp_path: Path) -> None:
    """Catches an autograder that does not run where Gradescope runs it, gives other points than
    `learn grade`, or fails on a link or a pipe among what was handed in.
    """
    base = unpacked(tmp_path, 3, 9)
    put(base / "submission", 3, solution(3).replace("softmax(scores", "softmax(2 * scores"))
    put(base / "submission", 9, solution(9), 2)
    (base / "submission" / "link").symlink_to("/etc/passwd")
    os.mkfifo(base / "submission" / "pipe")
    done = subprocess.run(
        [str(base / "run_autograder")],
        cwd="/",
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads((base / "results" / "results.json").read_text(encoding="utf-8"))
    expect_gradescope(results)
    known: dict = {}
    wrong = solution(3).replace("softmax(scores", "softmax(2 * scores")
    points = class_of_40.points_of(3, wrong, known) + class_of_40.points_of(9, solution(9), known)
    assert results["score"] == points
    assert any("pipe" in line for line in results["output"].splitlines())


def test_an_examiner_that_fails_gives_nobody_zero(tmp_path: Path) -> None:
    """Catches 0 points for a student because the platform's machine was broken."""
    base = unpacked(tmp_path, 3)
    put(base / "submission", 3, solution(3))
    broken = base / "source" / "course" / "solutions" / "03-scaled-dot-product.py"
    text = broken.read_text(encoding="utf-8")
    broken.write_text(text.replace("softmax(scores", "softmax(2 * scores"), encoding="utf-8")
    with pytest.raises(ValueError, match="reference of problem 03"):
        autograder.run(base)
    assert not (base / "results" / "results.json").exists()


# ── the commands ────────────────────────────────────────────────────────────────────────────────


def learn(*words: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-P", "-m", "learn_gpt2", "--root", str(class_of_40.ROOT), *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes minutes without fork")
def test_from_the_download_to_the_gradebook(tmp_path: Path) -> None:
    """Catches a command that does not find the students of the class list, or writes nothing."""
    handed_in = tmp_path / "in"
    put(handed_in / "Ann Example_1000_assignsubmission_file_", 9, solution(9), 2)
    (tmp_path / "roster.csv").write_text(MOODLE, encoding="utf-8")
    out = tmp_path / "report"
    words = ("--problems", "9", "--roster", str(tmp_path / "roster.csv"), "--out", str(out))
    done = learn("grade", str(handed_in), *words, "--for", "moodle", "--for", "gradescope")
    assert done.returncode in (0, 3), done.stderr
    table = list(csv.reader(io.StringIO((out / "moodle.csv").read_text(encoding="utf-8"))))
    assert [row[4] for row in table] == ["Grade", "50", "12.00"]
    (results,) = (out / "gradescope").glob("*/results.json")
    expect_gradescope(json.loads(results.read_text(encoding="utf-8")))
    assert (out / "index.html").exists()
    assert "Amy Absent" in done.stdout
    why = learn("grade", str(handed_in), "--why", "ann", "09")
    assert why.returncode == 0, why.stderr
    assert "19 of 19 points" in why.stdout


def test_wrong_calls_are_told(tmp_path: Path) -> None:
    """Catches a traceback for a platform or a student that is not there."""
    put(tmp_path / "in" / "ann", 9, solution(9))
    assert learn("grade", str(tmp_path / "in"), "--for", "nowhere").returncode == 2
    unknown = learn("grade", str(tmp_path / "in"), "--why", "bob", "09")
    assert unknown.returncode == 1
    assert unknown.stderr.count("\n") == 1
    assert "bob" in unknown.stderr
    assert learn("grade", str(tmp_path / "in"), "--why", "ann", "1-3").returncode == 2
    assert learn("export", "gradescope", "--problems", "99").returncode == 2
