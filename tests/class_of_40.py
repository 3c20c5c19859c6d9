"""A class of 40 with known marks, and hostile ones, graded by the real command.

Run from the course's root: python -m tests.class_of_40 [--jobs 2] [--keep FOLDER]
Prints how many marks are right, how long it took, and what was touched that should not be.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.checking import runner

ROOT = Path(__file__).resolve().parents[1]
HOSTILE = ROOT / "tests" / "hostile"
TARGET = 3  # the problem that hostile files are for
MISTAKES = {  # what some hostile files must be told; the others say what they say
    "crashes": "crashed",
    "exits": "crashed",
    "exits_late": "crashed",
    "loops": "endless-loop",
    "loops_late": "endless-loop",
    "output": "too-much-output",
    "sleeps": "import-loops",
    "time_alarm_late": "endless-loop",
}


@dataclass
class Made:
    """A class on disk and what is known of it. points: (student, problem) → points."""

    folder: Path
    points: dict[tuple[str, int], int] = field(default_factory=dict)
    most: dict[tuple[str, int], int] = field(default_factory=dict)  # of the hostile
    mistakes: dict[tuple[str, int], str] = field(default_factory=dict)


def copy_course(to: Path) -> Path:
    """A copy of the course, so that nothing that happens here touches this one."""
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "bundled", "*.svg", ".ipynb*")
    for name in ("src", "problems", "solutions"):
        shutil.copytree(ROOT / name, to / name, ignore=skip)
    return to


def put(student: Path, number: int, text: str | bytes, layout: int = 0) -> Path:
    """Write a piece into a submission, in one of the three layouts."""
    name = manifest.get(number).folder
    path = student / (f"problems/{name}/problem.py", f"{name}/problem.py", f"{name}.py")[layout % 3]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ── the forty ───────────────────────────────────────────────────────────────────────────────────


def answers(number: int) -> list[tuple[str, str]]:
    """(source, the mistake that must be named or "") from the problem's bank; both kinds mixed."""
    if importlib.util.find_spec(f"tests.graders.p{number:02d}") is None:
        return [(solution(number), "")]
    from tests.graders import bank as banks

    bank = banks.load(number)
    wrong = [(answer.source, answer.mistake) for answer in bank.wrong]
    right = [(answer.source, "") for answer in bank.right] + [(solution(number), "")]
    return [pair for both in zip(wrong, right * len(wrong), strict=False) for pair in both]


def solution(number: int) -> str:
    return manifest.get(number).solution_path(ROOT).read_text(encoding="utf-8")


def points_of(number: int, source: str, known: dict[tuple[int, str], int]) -> int:
    """Points of a file, by the checks run in this process, without any of the grader's code."""
    if (number, source) not in known:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "problem.py"
            path.write_text(source, encoding="utf-8")
            report = runner.run_checks(ROOT, manifest.get(number), path)
        known[number, source] = sum(r.points for r in report.results if r.status == "passed")
    return known[number, source]


def make_honest(folder: Path, count: int, numbers: list[int]) -> Made:
    """`count` students: mixed right and wrong answers, files missing, untouched and unreadable;
    every fourth in a zip.
    """
    made = Made(folder)
    known: dict[tuple[int, str], int] = {}
    pools = {number: answers(number) for number in numbers}
    for i in range(count):
        name = f"student-{i:02d}"
        for number in numbers:
            place = (name, number)
            kind = (i + 3 * number) % 13
            if kind == 0:  # not handed in
                made.points[place], made.mistakes[place] = 0, "not-handed-in"
            elif kind == 1:
                skeleton = manifest.get(number).skeleton_path(ROOT).read_bytes()
                put(folder / name, number, skeleton, i)
                made.points[place], made.mistakes[place] = 0, "untouched"
            elif kind == 2:
                put(folder / name, number, 'print "Python 2"\n', i)
                made.points[place], made.mistakes[place] = 0, "syntax-error"
            else:
                source, mistake = pools[number][(7 * i + number) % len(pools[number])]
                put(folder / name, number, source, i)
                made.points[place] = points_of(number, source, known)
                made.mistakes[place] = mistake
        if i % 4 == 3 and (folder / name).is_dir():
            with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
                for path in sorted((folder / name).rglob("*.py")):
                    archive.write(path, f"{name}/{path.relative_to(folder / name).as_posix()}")
            shutil.rmtree(folder / name)
        elif not (folder / name).exists():
            (folder / name).mkdir()
    return made


# ── the hostile ─────────────────────────────────────────────────────────────────────────────────


def hostile_source(name: str, values: dict[str, str]) -> str:
    """A hostile file above a wrong answer, below it (`…_after`), or in its forward (`…_late`)."""
    text = (HOSTILE / f"{name}.py").read_text(encoding="utf-8")
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    wrong = wrong_answer()
    if name.endswith("_after"):
        return f"{wrong}\n\n{text}"
    if name.endswith("_late"):
        body = "def hostile():\n" + "".join(f"    {line}\n" for line in text.splitlines())
        start = wrong.index("scores = ")
        return wrong[:start] + "hostile()\n        " + wrong[start:] + "\n\n" + body
    start = wrong.index("import")
    return wrong[:start] + text + "\n\n" + wrong[start:]


def wrong_answer() -> str:
    """What hostile files are put around: it deserves the points of a module that is made."""
    right = solution(TARGET)
    wrong = right.replace("torch.softmax(scores", "torch.softmax(2 * scores")
    if wrong == right:
        raise ValueError("the solution of the hostile files' problem is written in another way now")
    return wrong


BROKEN = ["link", "slip", "newer_python", "huge", "binary", "linked_folder"]
# the first twelve are of twelve kinds
FIRST = ["loops", "forks", "memory", "output", "exits", "forges", "patches_torch", "patches_checks"]
FIRST += ["changes_files", "link", "newer_python", "sleeps"]


def hostile_names() -> list[str]:
    """All kinds, twelve different ones first."""
    every = sorted(path.stem for path in HOSTILE.glob("*.py")) + BROKEN
    return FIRST + [name for name in every if name not in FIRST]


def make_hostile(made: Made, values: dict[str, str], chosen: list[str]) -> None:
    """A student for each hostile kind: problem 02 right, problem 03 up to something."""
    known: dict[tuple[int, str], int] = {}
    for name in chosen:
        student = made.folder / f"hostile-{name}"
        put(student, 2, solution(2))
        made.points[student.name, 2] = points_of(2, solution(2), known)
        made.most[student.name, TARGET] = points_of(TARGET, wrong_answer(), known)
        if name not in BROKEN:
            put(student, TARGET, hostile_source(name, values))
            if name in MISTAKES:
                made.mistakes[student.name, TARGET] = MISTAKES[name]
        else:
            made.mistakes[student.name, TARGET] = _make_broken(made.folder, student, name)


def _make_broken(folder: Path, student: Path, name: str) -> str:
    """A file that is not one; the mistake that must be named."""
    problem = manifest.get(TARGET)
    outside = folder.parent / "outside.py"
    outside.write_text(solution(TARGET), encoding="utf-8")
    if name == "link":
        place = student / "problems" / problem.folder / "problem.py"
        place.parent.mkdir(parents=True)
        place.symlink_to(outside)
        return "refused"
    if name == "linked_folder":
        target = folder.parent / "elsewhere"
        put(target, TARGET, solution(TARGET), 1)
        (student / "problems" / problem.folder).symlink_to(target / problem.folder)
        return "refused"
    if name == "slip":
        with zipfile.ZipFile(folder / f"{student.name}.zip", "w") as archive:
            archive.writestr(f"problems/{manifest.get(2).folder}/problem.py", solution(2))
            archive.writestr("../../outside-by-zip.py", "owned")
            archive.writestr("/tmp/outside-by-zip.py", "owned")
            link = zipfile.ZipInfo(f"problems/{problem.folder}/problem.py")
            link.external_attr = 0o120777 << 16
            archive.writestr(link, str(outside))
        shutil.rmtree(student)
        return "refused"
    if name == "binary":
        put(student, TARGET, b"\xff\xfe\x00" + bytes(range(256)))
        return "not-utf8"
    if name == "huge":
        put(student, TARGET, solution(TARGET) + "# much\n" * 300_000)
        return "refused"
    put(student, TARGET, "def f[T: (int,](x: T) -> T: return x\n" + solution(TARGET))
    return "syntax-error"


# ── looking afterwards ──────────────────────────────────────────────────────────────────────────


def snapshot(folder: Path) -> dict[str, bytes | str]:
    """Every file below a folder, bytes or link, caches left out."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        if "__pycache__" in path.parts:
            continue
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def left_over(mark: str) -> list[str]:
    """Processes (Linux) whose command line names a folder of ours, other than this one's."""
    found = []
    for entry in Path("/proc").glob("[0-9]*") if sys.platform == "linux" else ():
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if (
            mark in words
            and "learn_gpt2.grading.examiner" in words
            and int(entry.name) != os.getpid()
        ):
            found.append(f"{entry.name}: {words[:80]}")
    return found


class Listener:
    """Counts whoever connects to a port of this machine."""

    def __init__(self):
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                self._socket.accept()[0].close()
            except OSError:
                return
            self.calls += 1

    def close(self) -> None:
        self._socket.close()


@dataclass
class Outcome:
    """What came of grading a made class."""

    report: dict
    out: Path
    seconds: float
    printed: str
    wrong_marks: list[str]
    wrong_mistakes: list[str]
    touched: list[str]
    calls: int


def grade_class(
    work: Path, count: int, numbers: list[int], jobs: int, *options: str, hostile: int | None = None
) -> Outcome:
    """Make a class in an empty folder, grade it by the command, and compare."""
    course = copy_course(work / "course")
    folder, out = work / "handed-in", work / "report"
    folder.mkdir()
    listener = Listener()
    canary = work / "canary.txt"
    canary.write_text("alive", encoding="utf-8")
    made = make_honest(folder, count, numbers)
    targets = [
        canary,
        out / "grades.csv",
        folder / "student-00" / "problem.py",
        course / "problems" / manifest.get(TARGET).folder / manifest.get(TARGET).test_file,
        course / "solutions" / f"{manifest.get(TARGET).folder}.py",
        Path(tempfile.gettempdir()) / f"{work.name}-outside.txt",
    ]
    values = {
        "COURSE": str(course),
        "TARGETS": os.pathsep.join(map(str, targets)),
        "PORT": str(listener.port),
    }
    make_hostile(made, values, hostile_names()[:hostile])
    before = snapshot(work)
    command = [sys.executable, "-P", "-m", "learn_gpt2", "--root", str(course), "grade"]
    span = ",".join(map(str, numbers))
    command += [str(folder), "--out", str(out), "--jobs", str(jobs), "--problems", span, *options]
    begun = time.monotonic()
    done = subprocess.run(
        command,
        env=os.environ | {"PYTHONPATH": str(course / "src"), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=1200,
    )
    seconds = time.monotonic() - begun
    calls = listener.calls
    listener.close()
    if done.returncode not in (0, 3):  # 3: what some handed in must be looked at
        raise RuntimeError(f"learn grade ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    after = {name: data for name, data in snapshot(work).items() if not name.startswith("report/")}
    touched = [name for name in sorted(before | after) if before.get(name) != after.get(name)]
    touched += [
        str(path) for path in (targets[-1], Path("/tmp/outside-by-zip.py")) if path.exists()
    ]
    touched += left_over(str(course))
    wrong_marks, wrong_mistakes = compare(made, report, numbers)
    return Outcome(report, out, seconds, done.stdout, wrong_marks, wrong_mistakes, touched, calls)


def compare(made: Made, report: dict, numbers: list[int]) -> tuple[list[str], list[str]]:
    """(marks that are not as known, mistakes that are not named), as texts."""
    marks, mistakes = [], []
    got = {
        (student["student"], problem["number"]): problem
        for student in report["students"]
        for problem in student["problems"]
    }
    for place, points in made.points.items():
        problem = got[place]
        if problem["points"] != points:
            marks.append(f"{place}: {problem['points']}, known to be {points}")
        named = {m for r in problem["results"] for m in r["mistakes"]}
        wanted = made.mistakes.get(place)
        if wanted and wanted not in named:
            mistakes.append(f"{place}: {sorted(named)}, known to be {wanted}")
    for place, points in made.most.items():
        problem = got.pop(place)
        if problem["points"] > points:
            marks.append(f"{place}: {problem['points']}, deserves {points} at most")
        named = {m for r in problem["results"] for m in r["mistakes"]}
        wanted = made.mistakes.get(place)
        if wanted and wanted not in named:
            mistakes.append(f"{place}: {sorted(named)}, known to be {wanted}")
    students = {student for student, _ in made.points}
    for place in got.keys() - made.points.keys():  # what a hostile student did not hand in
        if place[0] not in students or got[place]["points"] != 0:
            marks.append(f"{place}: {got[place]['points']}, known to be 0")
    return marks, mistakes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--hostile", type=int, help="how many of them (default: all)")
    parser.add_argument("--problems", default="all")
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it there")
    options = parser.parse_args()
    numbers = [p.number for p in manifest.select([options.problems])]
    work = options.keep or Path(tempfile.mkdtemp(prefix="class-of-40-"))
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    try:
        outcome = grade_class(work, options.count, numbers, options.jobs, hostile=options.hostile)
        with open(outcome.out / "grades.csv", encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    finally:
        if options.keep is None:
            shutil.rmtree(work, ignore_errors=True)
    print(outcome.printed)
    marks = len(outcome.report["students"]) * len(numbers)
    print(f"{len(rows) - 2} students, {marks - len(outcome.wrong_marks)} of {marks} marks right")
    print(f"{len(outcome.wrong_mistakes)} misconceptions not named as known")
    print(f"touched: {', '.join(outcome.touched) or 'nothing'}; connections: {outcome.calls}")
    print(f"{outcome.seconds:.0f} s with --jobs {options.jobs}")
    for text in (*outcome.wrong_marks, *outcome.wrong_mistakes):
        print(f"  {text}")
    bad = outcome.wrong_marks or outcome.wrong_mistakes or outcome.touched or outcome.calls
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
