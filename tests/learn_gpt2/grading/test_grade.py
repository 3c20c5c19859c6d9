"""`learn grade`: marks, confinement, reports. A small class is graded once and looked at by all."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from learn_gpt2 import manifest
from learn_gpt2.grading import drawing, gradebook, reports, sandbox, similarity, submissions
from learn_gpt2.grading.sandbox import Limits, Means
from tests import class_of_40
from tests.class_of_40 import hostile_source, put, solution

NUMBERS = [2, 3]
NO_FORK = not hasattr(os, "fork")
slow_here = pytest.mark.skipif(NO_FORK, reason="takes minutes where every file is a new Python")


def once(factory: pytest.TempPathFactory, name: str, make) -> dict:
    """What make(folder) gives, made by one process of a parallel run and read by the others."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, result = base / name, base / f"{name}.json"
    try:
        folder.mkdir()
    except FileExistsError:
        end = time.monotonic() + 300
        while not result.exists():
            assert time.monotonic() < end, f"{name} was never finished"
            time.sleep(0.1)
    else:
        aside = result.with_suffix(".part")
        try:
            text = json.dumps(make(folder))
        except Exception as error:  # whoever waits must not wait in vain
            text = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        aside.write_text(text, encoding="utf-8")
        aside.replace(result)
    data = json.loads(result.read_text(encoding="utf-8"))
    assert "failed" not in data, data["failed"]
    return data


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Twelve students and every hostile file, by the real command."""
    if NO_FORK:
        pytest.skip("takes minutes where every file is a new Python")

    def make(folder: Path) -> dict:
        # little memory: a loaded machine takes seconds to hand out the usual 1024 MB
        limits = ("--load-seconds", "4", "--memory", "384")
        outcome = class_of_40.grade_class(folder, 12, NUMBERS, 2, *limits)
        return vars(outcome) | {"out": str(outcome.out)}

    return once(tmp_path_factory, "grade-class", make)


def small_class(folder: Path, **pieces: dict[int, str]) -> Path:
    """A folder with a student for each keyword."""
    for name, files in pieces.items():
        (folder / name).mkdir(parents=True)
        for number, text in files.items():
            put(folder / name, number, text)
    return folder


def run(course: Path, handed_in: Path, out: Path, **options) -> dict:
    """Grade in this process, one job; the report."""
    options = gradebook.Options(**{"problems": (3,), "jobs": 1} | options)
    return gradebook.Class(course, handed_in, out, options).grade()


# ── marks ───────────────────────────────────────────────────────────────────────────────────────


def test_every_mark_is_as_known(graded: dict) -> None:
    """Catches a mark that differs from what the checks give without the grader."""
    assert graded["wrong_marks"] == []
    assert len(graded["report"]["students"]) > 30


def test_every_mistake_is_named(graded: dict) -> None:
    """Catches a wrong answer that loses points without its misconception's being named."""
    assert graded["wrong_mistakes"] == []


def test_nothing_outside_is_touched(graded: dict) -> None:
    """Catches a hostile file that changes another's work, the course, the report or /tmp, leaves
    a process behind or reaches the network.
    """
    assert graded["touched"] == []
    if sandbox.probe().namespaces:
        assert graded["calls"] == 0


@pytest.mark.parametrize("name", sorted(p.stem for p in class_of_40.HOSTILE.glob("*.py")))
def test_a_hostile_file_costs_its_own_points(graded: dict, name: str) -> None:
    """Catches a trick that is rewarded beyond what the wrong answer deserves that it is put around,
    or that costs its author's other problems.
    """
    student = next(s for s in graded["report"]["students"] if s["student"] == f"hostile-{name}")
    other, own = student["problems"]
    assert other["points"] == other["max"]
    assert own["points"] <= class_of_40.points_of(3, class_of_40.wrong_answer(), {})
    told = json.dumps(own)
    assert "BOX OPEN" not in told
    assert all(re.fullmatch("[a-z0-9-]+", m) for r in own["results"] for m in r["mistakes"])


def test_every_lost_point_has_its_message(graded: dict) -> None:
    """Catches a grade that nobody can explain."""
    for student in graded["report"]["students"]:
        for problem in student["problems"]:
            assert problem["points"] == sum(r["earned"] for r in problem["results"])
            assert problem["max"] == sum(r["points"] for r in problem["results"])
            for result in problem["results"]:
                passed = result["status"] == "passed"
                assert result["earned"] == (result["points"] if passed else 0)
                assert passed or result["message"]


def test_points_come_from_the_checks(graded: dict, root: Path) -> None:
    """Catches weights that are kept a second time somewhere."""
    weights = gradebook.weights(root, (3,))[3]
    problem = graded["report"]["students"][0]["problems"][1]
    assert [(r["title"], r["points"]) for r in problem["results"]] == weights


def test_messages_name_no_folder_of_this_machine(graded: dict) -> None:
    """Catches messages that change with the place or the run: scratch folders, addresses."""
    for student in graded["report"]["students"]:
        if student["student"].startswith("hostile-"):
            continue
        text = json.dumps(student["problems"])
        assert "/scratch" not in text
        assert "learn-grade-" not in text
        assert "/tmp" not in text
        assert "object at 0x7" not in text


# ── reports ─────────────────────────────────────────────────────────────────────────────────────


def test_the_reports_agree(graded: dict) -> None:
    """Catches a table, a JUnit file or a feedback file that tells another story than the JSON."""
    out, students = Path(graded["out"]), graded["report"]["students"]
    with open(out / "grades.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["student"] == "(maximum)"
    assert [int(row["points"]) for row in rows[1:]] == [s["points"] for s in students]
    suites = ElementTree.parse(out / "junit.xml").getroot()
    assert len(suites) == len(students)
    for suite, student in zip(suites, students, strict=True):
        results = [r for p in student["problems"] for r in p["results"]]
        assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(results)
        failed = sum(r["status"] == "failed" for r in results)
        assert int(suite.get("failures")) == len(suite.findall("*/failure")) == failed
        feedback = (out / "feedback" / f"{student['student']}.md").read_text(encoding="utf-8")
        assert f"{student['points']} of {student['max']} points" in feedback.splitlines()[0]
        for result in results:
            if result["status"] == "failed":
                assert result["message"].splitlines()[0] in feedback


def test_statistics_count_students(graded: dict) -> None:
    """Catches counts of checks where students are meant, and a denominator with the absent."""
    students = graded["report"]["students"]
    for found in graded["report"]["misconceptions"]:
        place = NUMBERS.index(found["problem"])
        problems = [s["problems"][place] for s in students]
        show = [p for p in problems if any(found["mistake"] in r["mistakes"] for r in p["results"])]
        assert found["count"] == len(show)
        assert found["handed_in"] == sum(p["state"] == "graded" for p in problems)
    text = (Path(graded["out"]) / "statistics.md").read_text(encoding="utf-8")
    first = graded["report"]["misconceptions"][0]
    assert f"{first['count']} of {first['handed_in']}" in text


def test_the_plot_is_a_picture(graded: dict) -> None:
    """Catches an empty or missing picture where matplotlib is there."""
    pytest.importorskip("matplotlib")
    data = (Path(graded["out"]) / "statistics.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 5_000


def test_no_plot_without_matplotlib(graded: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a grader that needs matplotlib."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "matplotlib is not installed" in reports.plot(graded["report"])


def test_reports_hold_what_a_student_writes(tmp_path: Path) -> None:
    """Catches a name or a message that becomes a formula, markup, or invalid XML."""
    bad = "a`b ``` <x> | \x1b[31m \x00 &"
    result = dict(
        name="test_x", title=bad, status="failed", message=bad, mistakes=[], points=1, earned=0
    )
    problem = dict(
        number=3, title="t", state="graded", file=bad, digest="x", points=0, max=1, percent=0.0
    )
    problem |= {"unusual": [bad], "results": [result, result | {"message": "other"}]}
    student = dict(student="=1+1|x", points=0, max=1, percent=0.0, notices=["@x"])
    student["problems"] = [problem]
    report = dict(students=[student], options={"problems": [3], "own_pieces": False})
    report |= {"misconceptions": [], "copies": []}
    reports.write_all(tmp_path, report)
    rows = list(csv.reader(io.StringIO((tmp_path / "grades.csv").read_text("utf-8-sig"))))
    assert rows[2][0] == "'=1+1|x"
    assert rows[2][-1] == "'@x"
    ElementTree.parse(tmp_path / "junit.xml")
    feedback = (tmp_path / "feedback" / "_1+1_x.md").read_text(encoding="utf-8")
    assert "````text\na`b ```" in feedback
    assert "\x1b" not in feedback.splitlines()[0]


@pytest.mark.parametrize(
    ("students", "names"),
    [
        (["a", "A", "a-2"], ["a", "A-2", "a-2-2"]),
        (["../x", "con", ".."], ["_x", "con_", "student"]),
    ],
)
def test_feedback_files_have_names_of_their_own(students: list[str], names: list[str]) -> None:
    """Catches two students with one file, or a file outside the folder."""
    got = reports.file_names(students)
    assert [got[s] for s in students] == names
    assert len({n.lower() for n in got.values()}) == len(students)


# ── the same marks again ────────────────────────────────────────────────────────────────────────


@slow_here
def test_marks_are_the_same_again_and_from_the_cache(
    course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches marks that depend on the run, and a cache that is not read, or read for another
    file.
    """
    wrong = solution(3).replace("softmax(scores", "softmax(2 * scores")
    handed_in = small_class(tmp_path / "in", ann={3: solution(3)}, bob={3: wrong})
    first = run(course, handed_in, tmp_path / "out")
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy2(tmp_path / "out" / drawing.NAME, other)  # the numbers that the checks draw
    assert run(course, handed_in, other) == first
    drawn_anew = run(course, handed_in, tmp_path / "third")
    for one, two in zip(first["students"], drawn_anew["students"], strict=True):
        assert (one["student"], one["points"]) == (two["student"], two["points"])
    with monkeypatch.context() as patch:
        patch.setattr(gradebook.Examiner, "start", lambda self: pytest.fail("graded again"))
        assert run(course, handed_in, tmp_path / "out") == first
    put(handed_in / "bob", 3, solution(3) + "# mended\n")
    assert run(course, handed_in, tmp_path / "out")["students"][1]["percent"] == 100.0


@slow_here
def test_an_interrupted_run_goes_on(course: Path, tmp_path: Path) -> None:
    """Catches half-written files after Ctrl-C, and a second run that starts again."""
    pieces = {f"s{i}": {3: solution(3) + f"# {i}\n"} for i in range(3)}
    handed_in = small_class(tmp_path / "in", **pieces)

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    work = gradebook.Class(course, handed_in, tmp_path / "out", gradebook.Options((3,), jobs=1))
    with pytest.raises(gradebook.Interrupted) as stopped:
        work.grade(stop)
    assert (stopped.value.done, stopped.value.total) == (2, 4)
    for path in (tmp_path / "out" / ".cache").iterdir():
        json.loads(path.read_text(encoding="utf-8"))
    begun = []
    work = gradebook.Class(course, handed_in, tmp_path / "out", gradebook.Options((3,), jobs=1))
    work.grade(lambda done, total: begun.append(done))
    assert begun[0] >= 2
    assert begun[-1] == 4


# ── the reference and own pieces ────────────────────────────────────────────────────────────────


@slow_here
def test_a_broken_course_grades_nobody(course: Path, tmp_path: Path) -> None:
    """Catches a class that is failed because the course, and not their work, is broken."""
    path = manifest.get(3).solution_path(course)
    path.write_text(solution(3).replace("softmax(scores", "sigmoid(scores"), encoding="utf-8")
    handed_in = small_class(tmp_path / "in", ann={3: solution(3)})
    with pytest.raises(ValueError, match="reference of problem 03"):
        run(course, handed_in, tmp_path / "out")


@slow_here
def test_a_changed_model_does_not_matter(course: Path, tmp_path: Path) -> None:
    """Catches grading in whatever model.py the instructor has swapped together."""
    (course / "src" / "gpt2" / "model.py").write_text("raise RuntimeError\n", encoding="utf-8")
    handed_in = small_class(tmp_path / "in", ann={4: solution(4)})
    assert run(course, handed_in, tmp_path / "out", problems=(4,))["students"][0]["percent"] == 100


@slow_here
def test_own_pieces_are_built_on(course: Path, tmp_path: Path) -> None:
    """Catches --own-pieces that grades in the reference's model, or the other way round."""
    wrong = solution(3).replace("softmax(scores", "sigmoid(scores")
    loop = "while True: pass\n"
    handed_in = small_class(
        tmp_path / "in",
        ann={3: wrong, 4: solution(4)},
        bob={3: loop, 4: solution(4)},
        cat={3: "def (", 4: solution(4)},
        dan={4: solution(4)},
    )
    limits = Limits(load_seconds=2.0)
    plain = run(course, handed_in, tmp_path / "a", problems=(4,), limits=limits)
    assert [s["percent"] for s in plain["students"]] == [100.0] * 4
    own = run(course, handed_in, tmp_path / "b", problems=(4,), limits=limits, own_pieces=True)
    ann, bob, cat, dan = (s["problems"][0] for s in own["students"])
    assert 0 < ann["points"] < ann["max"]
    assert bob["points"] == cat["points"] == 0
    assert dan["points"] == dan["max"]
    assert bob["results"][0]["mistakes"] == cat["results"][0]["mistakes"] == ["own-pieces"]
    assert "03-scaled-dot-product" in cat["results"][0]["message"]


# ── confinement ─────────────────────────────────────────────────────────────────────────────────

WEAKER = {
    "Landlock, no namespaces": lambda m: Means(fork=True, landlock=m.landlock),
    "nothing but processes and limits": lambda m: Means(fork=True),
}


@slow_here
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have nothing stronger")
@pytest.mark.parametrize("kind", WEAKER)
def test_weaker_systems_get_the_same_marks(course: Path, tmp_path: Path, kind: str) -> None:
    """Catches limits that hold only where the system gives namespaces."""
    found = sandbox.probe()
    if "Landlock" in kind and not found.landlock:
        pytest.skip("this kernel has no Landlock")
    names = ["exits", "output", "memory", "patches_checks", "forks", "fills_disk"]
    names += ["changes_files"] if "Landlock" in kind else []
    canary = tmp_path / "canary.txt"
    canary.write_text("alive", encoding="utf-8")
    values = {"COURSE": str(course), "TARGETS": str(canary)}
    pieces = {name: {3: hostile_source(name, values)} for name in names}
    handed_in = small_class(tmp_path / "in", right={3: solution(3)}, **pieces)
    options = gradebook.Options((3,), Limits(seconds=20), jobs=2)
    work = gradebook.Class(course, handed_in, tmp_path / "out", options, WEAKER[kind](found))
    report = work.grade()
    marks = {s["student"]: s["points"] for s in report["students"]}
    assert marks.pop("right") > 0
    assert max(marks.values()) <= class_of_40.points_of(3, class_of_40.wrong_answer(), {})
    assert canary.read_text(encoding="utf-8") == "alive"
    assert class_of_40.left_over(str(course)) == []


def test_without_fork_the_marks_are_the_same(course: Path, tmp_path: Path) -> None:
    """Catches another grade on systems that can't fork."""
    wrong = solution(3).replace("softmax(scores", "softmax(2 * scores")
    pieces = {"right": solution(3), "wrong": wrong}
    pieces |= {name: hostile_source(name, {}) for name in ("exits", "patches_torch")}
    handed_in = small_class(tmp_path / "in", **{k: {3: v} for k, v in pieces.items()})
    options = gradebook.Options((3,), jobs=2)
    work = gradebook.Class(course, handed_in, tmp_path / "out", options, Means(fork=False))
    alone = {s["student"]: s["problems"][0] for s in work.grade()["students"]}
    assert alone["right"]["points"] == alone["right"]["max"]
    assert 0 < alone["wrong"]["points"] < alone["wrong"]["max"]
    assert alone["exits"]["results"][0]["mistakes"] == ["crashed"]
    assert alone["patches_torch"]["results"][0]["mistakes"] == ["tampering"]
    assert alone["wrong"]["points"] == class_of_40.points_of(3, wrong, {})


SEES = """
import os, sys
seen = [p for p in {paths!r} if os.path.isdir(p) or os.path.isfile(p)]
raise RuntimeError("SEEN " + ",".join(seen) + " UID " + str(os.getuid()) + " ENV "
                   + str("SECRET_TOKEN" in os.environ) + " PIDS "
                   + str(sum(p.isdigit() for p in os.listdir("/proc"))))
"""


@slow_here
def test_what_the_code_sees(course: Path, tmp_path: Path, monkeypatch) -> None:
    """Catches answers, other students' files, other processes or secrets within its reach."""
    if not sandbox.probe().namespaces:
        pytest.skip("this system gives no namespaces")
    monkeypatch.setenv("SECRET_TOKEN", "x")
    handed_in = small_class(tmp_path / "in", bob={3: solution(3)})
    hidden = [course / "solutions", course / "problems", course / "src" / "gpt2" / "model.py"]
    hidden += [handed_in / "bob", tmp_path, Path("/etc/shadow"), Path("/root/.bashrc")]
    hidden += [course / "src" / "gpt2" / "cache.py"]  # a file may import it, from a text
    shown = [Path(os.__file__)]
    source = SEES.format(paths=[str(p) for p in hidden + shown])
    put(handed_in / "ann", 3, source)
    report = run(course, handed_in, tmp_path / "out")
    message = report["students"][0]["problems"][0]["results"][0]["message"]
    seen, rest = message.split("SEEN ")[1].split(" UID ")
    assert set(seen.split(",")) == {str(p) for p in shown}
    assert "ENV False" in rest
    assert int(rest.split("PIDS ")[1].split()[0]) <= 2
    if os.geteuid() == 0:
        assert int(rest.split()[0]) >= sandbox.FIRST_UID


@slow_here
@pytest.mark.skipif(sys.platform != "linux", reason="made with Linux's tools")
def test_an_ordinary_user_is_confined_too(course: Path, tmp_path: Path) -> None:
    """Catches protections that only root has: the user's own namespaces, or Landlock."""
    means = sandbox.probe()
    if os.geteuid() == 0:
        if not sandbox._works(lambda: sandbox._try_namespaces("user")):
            pytest.skip("this system gives users no namespaces")
        means = replace(means, namespaces="user", drops=False)
    elif not means.namespaces:
        pytest.skip("this system gives users no namespaces")
    canary = tmp_path / "canary.txt"
    canary.write_text("alive", encoding="utf-8")
    new = tmp_path / "new.txt"
    values = {"COURSE": str(course), "TARGETS": f"{canary}{os.pathsep}{new}"}
    names = ("changes_files", "outlives", "kills", "forks")
    pieces = {name: {3: hostile_source(name, values)} for name in names}
    handed_in = small_class(tmp_path / "in", right={3: solution(3)}, **pieces)
    options = gradebook.Options((3,), Limits(seconds=20), jobs=2)
    report = gradebook.Class(course, handed_in, tmp_path / "out", options, means).grade()
    marks = {s["student"]: s["percent"] for s in report["students"]}
    assert marks.pop("right") == 100.0
    # /tmp is a folder of its own there: what it writes reaches nobody, and costs nothing more
    points = {s["student"]: s["points"] for s in report["students"]}
    deserved = class_of_40.points_of(3, class_of_40.wrong_answer(), {})
    del marks["changes_files"]
    assert points["changes_files"] <= deserved
    assert canary.read_text(encoding="utf-8") == "alive"
    assert set(marks.values()) == {0.0}
    assert not new.exists()


def test_protections_are_told_for_every_system() -> None:
    """Catches a protection that is claimed where it isn't given."""
    none = {p.name: p.given for p in sandbox.protections(Means(fork=False), Limits())}
    assert not any(none[name] for name in ("files", "network", "memory", "process tree"))
    best = {
        p.name: p.given
        for p in sandbox.protections(Means(fork=True, namespaces="root", drops=True), Limits())
    }
    assert all(best[name] for name in ("files", "network", "privileges", "process tree"))
    weak = {p.name: p.given for p in sandbox.protections(Means(fork=True), Limits())}
    assert not weak["network"]
    assert not weak["files"]


@pytest.mark.skipif(NO_FORK or os.geteuid() != 0, reason="about root")
def test_root_does_not_lend_itself() -> None:
    """Catches students' code that runs as root because there was no other way."""
    assert Means(fork=True, readable=False).reason_to_refuse
    assert not Means(fork=True, namespaces="root", readable=False).reason_to_refuse


@pytest.mark.skipif(NO_FORK, reason="made with fork")
def test_ending_everything_ends_its_own_alone() -> None:
    """Catches a signal to all processes there are, where a namespace could not be entered."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        sent = []
        sandbox.os.kill = lambda process, number: sent.append(process)
        sandbox.end_all(True)
        os.write(writable, json.dumps(sent).encode())
        os._exit(0)
    os.close(writable)
    assert os.waitpid(child, 0)[1] == 0
    assert json.loads(os.read(readable, 1000)) == []
    os.close(readable)


@slow_here
def test_a_course_that_changes_is_told(course: Path, tmp_path: Path) -> None:
    """Catches marks from tests that were changed while the class was graded."""
    handed_in = small_class(tmp_path / "in", ann={3: solution(3)})

    def tamper(done: int, total: int) -> None:
        path = manifest.get(5).test_path(course)
        path.write_text(path.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")

    work = gradebook.Class(course, handed_in, tmp_path / "out", gradebook.Options((3,), jobs=1))
    with pytest.raises(ValueError, match="test_causal_masking"):
        work.grade(tamper)


# ── submissions ─────────────────────────────────────────────────────────────────────────────────


def test_three_layouts_and_wrappers(tmp_path: Path) -> None:
    """Catches a layout that is not found, or a zip that is read otherwise than a folder."""
    problem = manifest.get(3)
    for i in range(3):
        put(tmp_path / f"layout{i}", 3, "x = 1\n", i)
        put(tmp_path / f"wrapped{i}" / "some" / "folder", 3, "x = 1\n", i)
    for source in sorted(tmp_path.iterdir()):
        with zipfile.ZipFile(tmp_path / f"zip-{source.name}.zip", "w") as archive:
            for path in source.rglob("*.py"):
                archive.write(path, path.relative_to(source).as_posix())
            archive.writestr("__MACOSX/x", "")
    found = submissions.read_all(tmp_path, [problem])
    assert len(found) == 12
    assert {s.files.get(3) for s in found} == {b"x = 1\n"}


def test_what_is_no_student_is_refused(tmp_path: Path) -> None:
    """Catches a report graded as a student, one student counted twice, and an empty folder."""
    problems = [manifest.get(3)]
    with pytest.raises(ValueError, match=r"no folder and no \.zip"):
        submissions.read_all(tmp_path, problems)
    (tmp_path / "ann").mkdir()
    with pytest.raises(ValueError, match="inside"):
        submissions.read_all(tmp_path, problems, tmp_path / "report")
    zipfile.ZipFile(tmp_path / "ann.zip", "w").close()
    assert [s.student for s in submissions.read_all(tmp_path, problems)] == ["ann"]
    with pytest.raises(ValueError, match="not a folder"):
        submissions.read_all(tmp_path / "nowhere", problems)


@pytest.mark.parametrize("kind", ["pipe", "bomb", "no zip", "folder", "twice"])
def test_strange_submissions_are_told(tmp_path: Path, kind: str) -> None:
    """Catches a grader that hangs on a pipe, unpacks a bomb, or stops at a broken archive."""
    problem = manifest.get(3)
    place = tmp_path / "ann" / problem.folder / "problem.py"
    if kind == "pipe":
        if not hasattr(os, "mkfifo"):
            pytest.skip("no pipes here")
        place.parent.mkdir(parents=True)
        os.mkfifo(place)
    elif kind == "bomb":
        with zipfile.ZipFile(tmp_path / "ann.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{problem.folder}.py", b"#" * 300_000_000)
    elif kind == "no zip":
        (tmp_path / "ann.zip").write_bytes(b"not a zip")
    elif kind == "folder":
        place.mkdir(parents=True)
    else:
        put(tmp_path / "ann", 3, "x = 1\n", 0)
        put(tmp_path / "ann", 3, "x = 2\n", 1)
    (submission,) = submissions.read_all(tmp_path, [problem])
    assert len(submission.notices) == 1
    if kind == "twice":
        assert submission.files[3] == b"x = 1\n"
        assert "more than once" in submission.notices[0]
    else:
        assert submission.refused.keys() == {3}


# ── copies ──────────────────────────────────────────────────────────────────────────────────────

LONG = """
import torch.nn.functional as F
from torch import nn

class ScaledDotProductAttention(nn.Module):
    '''Mine.'''
    def __init__(self, n_embd, dropout=0.1):
        super().__init__()
        self.width = n_embd
        self.drop = nn.Dropout(dropout)

    def forward(self, q, k, v, mask=None):
        scores = q @ k.transpose(-2, -1) / self.width**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = self.drop(F.softmax(scores, dim=-1))
        return weights @ v, weights
"""
LAYOUT = (
    LONG.replace("Mine", "Yours")
    .replace("@ v, weights", "@ v,  weights  # !")
    .replace('"-inf"', "'-inf'")
)
NAMES = (
    LONG.replace("scores", "a")
    .replace("weights", "w")
    .replace("self.width", "self.n")
    # the same function under another name
    .replace("import torch.nn.functional as F", "from torch.nn import functional")
    .replace("F.softmax", "functional.softmax")
)


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        (LONG, similarity.EXACT),
        (LONG.replace("\n", "\r\n"), similarity.EXACT),
        (LAYOUT, similarity.LAYOUT),
        (NAMES, similarity.NAMES),
        (LONG.replace("**0.5", "**-0.5"), None),
        (LONG.replace("softmax", "log_softmax"), None),
        (LONG.replace("return weights @ v, weights", "return scores @ v, weights"), None),
    ],
    ids=["equal", "line ends", "layout", "names", "number", "function", "variable"],
)
def test_copies_are_told_apart(other: str, kind: str | None) -> None:
    """Catches a copy that is overlooked, and different work that is called a copy."""
    skeleton = similarity.fingerprints(b"class ScaledDotProductAttention:\n    pass\n")
    prints = {"a": LONG, "b": other}
    prints = {name: similarity.fingerprints(text.encode()) for name, text in prints.items()}
    found = similarity.groups(3, prints, {}, skeleton)
    assert [group.kind for group in found] == ([kind] if kind else [])


def test_the_skeleton_is_nobodys_copy() -> None:
    """Catches a class whose untouched files are called copies; and that the reference's is told."""
    problem = manifest.get(3)
    skeleton = similarity.fingerprints(problem.skeleton_path(class_of_40.ROOT).read_bytes())
    reference = similarity.fingerprints(solution(3).encode())
    prints = {"a": skeleton, "b": skeleton, "c": reference}
    (group,) = similarity.groups(3, prints, {"the reference solution": reference}, skeleton)
    assert group.students == ("c", "the reference solution")


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def learn(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "learn_gpt2", *words]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)


def test_a_class_of_part_one_is_the_default() -> None:
    """Catches a class whose marks fall by a third when the course gets six more problems."""
    from learn_gpt2.commands.export import command as export
    from learn_gpt2.commands.grade import command as grade

    assert gradebook.Options().problems == tuple(range(1, 13))
    for command in (grade, export.commands["gradescope"]):
        option = next(p for p in command.params if p.name == "problems")
        chosen = [problem.number for problem in manifest.select([option.default])]
        assert chosen == list(range(1, 13))


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        ("1-18", range(1, 19)),
        ("13-18", range(13, 19)),
        ("all", range(1, 19)),
        ("part-one", range(1, 13)),
        ("Part Two", range(13, 19)),
        ("part-two,5", [5, *range(13, 19)]),
    ],
)
def test_which_problems(words: str, numbers: Iterable[int]) -> None:
    """Catches words for a part that mean the other one, or half of it."""
    assert [problem.number for problem in manifest.select([words])] == list(numbers)


def test_the_command_says_what_it_needs(root: Path, tmp_path: Path) -> None:
    """Catches a traceback, and a wrong exit code, for a wrong call."""
    there = ("--root", str(root), "grade")
    assert learn(*there).returncode == 2
    assert learn(*there, str(tmp_path)).returncode == 2
    assert learn(*there, "--problems", "19").returncode == 2
    empty = learn(*there, str(tmp_path), "--out", str(tmp_path.parent / "out"))
    assert empty.returncode == 1
    assert empty.stderr.count("\n") == 1


def test_weights_and_protections_are_printed(root: Path) -> None:
    """Catches weights that are not those of the checks, and protections that are not told."""
    weights = learn("--root", str(root), "grade", "--print-weights", "--problems", "3", "--json")
    titles = [tuple(row) for row in json.loads(weights.stdout)["3"]]
    assert titles == gradebook.weights(root, (3,))[3]
    told = learn("--root", str(root), "grade", "--print-protections").stdout
    assert [line.split()[1].rstrip(":") for line in told.splitlines()][:2] == ["process", "time"]
