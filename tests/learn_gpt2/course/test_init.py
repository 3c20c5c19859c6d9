"""`learn init` and `learn update` from an installed package; the wheel that carries the course."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from gpt2.common import files
from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.course import layout, update
from learn_gpt2.grading import sandbox
from tests.links import broken_links, text_of

ROOT = Path(__file__).resolve().parents[3]


def run(cwd: Path, *words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command, without this checkout on Python's path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=kept | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        encoding="utf-8",
        timeout=300,
    )


# ── a course made from this checkout ────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def source() -> layout.Source:
    return layout.running()


def test_a_course_is_complete_and_untouched(tmp_path: Path):
    """Catches a file forgotten, a problem already solved, and a model with somebody's pieces."""
    made = layout.make(tmp_path / "ein Kurs ü")
    for problem in manifest.PROBLEMS:
        skeleton = problem.skeleton_path(made).read_bytes()
        assert problem.problem_path(made).read_bytes() == skeleton
        assert b"NotImplementedError" in skeleton
        tested = (problem.test_path(made), problem.mistakes_path(made))
        for path in (problem.solution_path(made), *tested):
            assert path.is_file()
    assert swap.check(made) == ""
    assert manifest.find_root(made / "problems" / "01-embeddings") == made
    assert not [p for p in made.rglob("*") if p.suffix == ".pyc" or p.name == ".part"]
    assert not (tmp_path / ".ein Kurs ü-part").exists()


def test_links_lead_somewhere_in_a_made_course(tmp_path: Path):
    """Catches a text that points to a file which `learn init` leaves out."""
    made = layout.make(tmp_path / "course")
    documents = [*made.glob("*.md"), *made.glob("problems/**/*.md"), *made.glob("docs/*.md")]
    documents += made.glob("problems/*/*.ipynb")
    broken = {str(p.relative_to(made)): broken_links(p, text_of(p)) for p in documents}
    assert {name: links for name, links in broken.items() if links} == {}
    assert len(documents) > 15


@pytest.mark.parametrize("there", ["file", "folder", "hidden", "itself", "course", "inside"])
def test_a_folder_that_is_in_use_is_refused(tmp_path: Path, there: str):
    """Catches files of the learner's overwritten, and a course inside another one."""
    target = tmp_path / "course"
    if there == "itself":
        target.write_text("mine", encoding="utf-8")
    elif there in ("course", "inside"):
        layout.make(target)
        target = target / "problems" / "mine" if there == "inside" else target
    else:
        target.mkdir()
        name = ".git" if there == "hidden" else "notes.txt"
        (target / name).write_text("mine", encoding="utf-8")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    words = {"file": "notes.txt", "hidden": ".git", "folder": "notes.txt", "itself": "is a file"}
    words |= {"course": "a course already", "inside": "is inside the course"}
    with pytest.raises(ValueError, match=words[there]):
        layout.make(target)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
@pytest.mark.parametrize("at", [0, 40, "rename"])
def test_an_interrupted_init_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool, at: int | str
):
    """Catches half a course, which the next attempt would take for a folder in use."""
    target = tmp_path / "course"
    if there:
        target.mkdir()
    last = at + 1 if isinstance(at, int) else 3 if there else 1
    count = 0
    owner, name = (files, "replace") if at == "rename" else (Path, "write_bytes")
    method = getattr(owner, name)

    def stopped(*arguments):
        nonlocal count
        count += 1
        if count == last:
            raise KeyboardInterrupt
        return method(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stopped)
        with pytest.raises(KeyboardInterrupt):
            layout.make(target)
    assert [p for p in tmp_path.rglob("*") if p != target] == []
    assert layout.make(target) == target


def test_what_a_killed_init_left_is_no_hindrance(tmp_path: Path):
    """Catches a leftover that has to be removed by hand."""
    for name in ("new", "empty"):
        part = tmp_path / ".new-part" if name == "new" else tmp_path / "empty" / ".part"
        (part / "problems").mkdir(parents=True)
        assert swap.check(layout.make(tmp_path / name)) == ""
        assert not part.exists()


# ── a newer package ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made course of an older version: another check, reference and skeleton of problem 3."""
    older = tmp_path / "older" / "src"
    skip = shutil.ignore_patterns("__pycache__", "bundled")
    for name in ("src", "problems", "solutions", "docs"):
        shutil.copytree(ROOT / name, older.parent / name, ignore=skip)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, older.parent / name)
    problem = manifest.get(3)
    for path in (problem.skeleton_path(older.parent), problem.solution_path(older.parent)):
        path.write_text("# older\n" + path.read_text(encoding="utf-8"), encoding="utf-8")
    (older.parent / "docs" / "training.md").unlink()
    (older.parent / "problems" / "old.md").write_text("gone by now", encoding="utf-8")
    made = layout.make(tmp_path / "course", layout.source_of(older))
    monkeypatch.setattr(layout, "installed_beside", lambda root: layout.running())
    return made


def test_a_newer_package_keeps_the_learners_work(made: Path):
    """Catches an update that loses a piece, a note or a change, or that leaves old files."""
    problem = manifest.get(1)
    problem.problem_path(made).write_bytes(problem.solution_path(made).read_bytes() + b"# mine\n")
    mine = problem.problem_path(made).read_bytes()
    swap.install(made, swap.assemble_files(made, {1: "yours"}), "swap-01")
    (made / "problems" / "GLOSSARY.md").write_text("my own words", encoding="utf-8")
    (made / "problems" / "notes.md").write_text("notes", encoding="utf-8")
    readme = made / "problems" / "README.md"  # saved by an editor with its own line ends
    readme.write_bytes(readme.read_bytes().replace(b"\n", b"\r\n"))
    done = update.update(made)
    assert problem.problem_path(made).read_bytes() == mine
    assert (done.kept, done.swapped, done.note) == ((1,), (1,), "")
    assert "01 Embeddings ── yours" in swap.read_model(made)
    assert done.backups == ("problems/GLOSSARY.md",)
    kept = done.saved_in / "problems" / "GLOSSARY.md"
    assert kept.read_text(encoding="utf-8") == "my own words"
    assert (made / "problems" / "notes.md").is_file()
    assert not (made / "problems" / "old.md").exists()
    assert (made / "docs" / "training.md").is_file()
    skeleton = manifest.get(3).skeleton_path(made).read_text(encoding="utf-8")
    assert not skeleton.startswith("# older")
    assert manifest.get(3).problem_path(made).read_text(encoding="utf-8") == skeleton
    again = update.update(made)
    assert again.before == again.after == done.after != done.before


def test_a_newer_package_brings_part_two(made: Path):
    """Catches a course of twelve that comes out broken, or that loses what the learner wrote into
    a file which was given then.
    """
    record = layout.read_record(made)
    for problem in manifest.MODULE_PROBLEMS:
        for path in (problem.problem_path(made).parent, problem.solution_path(made)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        problem.skeleton_path(made).unlink()
        problem.module_path(made).unlink()
    given = b"# given\n"
    (made / "src/gpt2/cache.py").write_bytes(given + b"# my note\n")
    old = {name: digits for name, digits in record["files"].items() if (made / name).is_file()}
    old["src/gpt2/cache.py"] = layout.fingerprint(given)
    (made / layout.RECORD).write_bytes(layout.encoded({"version": "0.1", "files": old}))
    own = made / "problems" / manifest.get(13).folder / "problem.py"
    own.parent.mkdir()
    own.write_bytes(b"# my own thirteenth\n")
    swap.install(made, swap.assemble_files(made, {1: "reference"}, ["model.py"]), "test")
    done = update.update(made)
    assert swap.check(made) == ""
    assert {row.owner for row in swap.board(made)} == {"reference"}
    for problem in manifest.MODULE_PROBLEMS[1:]:
        skeleton = problem.skeleton_path(made).read_bytes()
        assert problem.problem_path(made).read_bytes() == skeleton
    assert own.read_bytes() == b"# my own thirteenth\n"
    assert done.backups == ("src/gpt2/cache.py",)
    assert (done.saved_in / "src/gpt2/cache.py").read_bytes().endswith(b"# my note\n")


def test_a_failed_update_leaves_everything_as_it_was(made: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a folder that is half new when the disk is full or a file is locked."""
    present = {p: p.read_bytes() for p in made.rglob("*") if p.is_file()}
    problem = manifest.get(3)
    write = update.write_atomically

    def locked(path: Path, data: bytes) -> None:
        if path == problem.solution_path(made) and not data.startswith(b"# older"):
            raise PermissionError(13, "Permission denied")
        write(path, data)

    monkeypatch.setattr(update, "write_atomically", locked)
    with pytest.raises(ValueError, match="open in another program"):
        update.update(made)
    after = {p: p.read_bytes() for p in made.rglob("*") if p.is_file() and ".learn" not in p.parts}
    assert after == present


def test_without_a_package_it_says_so(made: Path, monkeypatch: pytest.MonkeyPatch):
    """Catches a `git pull` in a repository that is the learner's own."""
    monkeypatch.setattr(layout, "installed_beside", lambda root: None)
    with pytest.raises(ValueError, match="install the course"):
        update.update(made)


def test_answers_of_an_installed_package_are_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Catches a student's file that reads the solutions in site-packages."""
    site = tmp_path / "site-packages"
    answers = site / "learn_gpt2" / layout.CARRIED / "solutions"
    answers.mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [str(ROOT / "src"), str(site)])
    hidden = sandbox.view(ROOT, 3).hidden
    assert str(site / "learn_gpt2") in hidden


# ── the wheel ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, installed in an environment of its own → its Python.

    Torch and the like come from the environment of the tests: nothing is downloaded.
    """
    for name in ("pip", "setuptools"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed here, so no wheel can be built")
    version = importlib.metadata.version("setuptools")
    if int(version.split(".")[0]) < 77:
        pytest.skip(f"setuptools {version} is here; the build needs 77")
    work = tmp_path_factory.mktemp("wheel")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", ".ipynb_checkpoints")
    for name in ("src", "problems", "solutions", "docs"):
        shutil.copytree(ROOT / name, work / "repository" / name, ignore=skip)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "conftest.py"):
        shutil.copy(ROOT / name, work / "repository" / name)
    shutil.copy(ROOT / "constraints.txt", work / "repository")
    for problem in manifest.PROBLEMS:  # an instructor's own answers don't travel
        problem.problem_path(work / "repository").write_text("MINE = 1\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", work, "./repository"]
    built = run(work, *pip, *build)
    assert built.returncode == 0, built.stdout + built.stderr
    run(work, sys.executable, "-m", "venv", "--without-pip", work / "venv")
    python = work / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wheel = next(work.glob("*.whl"))
    install = ["install", "--no-deps", "--no-index", "--ignore-installed", wheel]
    done = run(work, *pip, "--python", python, *install)
    assert done.returncode == 0, done.stdout + done.stderr
    where = run(work, python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    pth = Path(where.stdout.strip()) / "of-the-tests.pth"
    pth.write_text("\n".join(sorted(paths)) + "\n", encoding="utf-8")
    return python


def test_a_learner_without_a_clone(site: Path, tmp_path: Path):
    """Catches a wheel in which something of the course is missing: the first problem, as a learner
    does it, with nothing but what pip has installed.
    """
    scripts = site.parent
    learn, gpt2 = (shutil.which(name, path=str(scripts)) for name in ("learn", "gpt2"))
    assert learn
    assert gpt2
    elsewhere = run(tmp_path, learn, "status")
    assert elsewhere.returncode == 1
    assert "learn init" in elsewhere.stderr
    assert run(tmp_path, learn, "init", "my course").returncode == 0
    made = tmp_path / "my course"
    problem = manifest.get(1)
    assert problem.problem_path(made).read_bytes() == problem.skeleton_path(ROOT).read_bytes()

    pytest_ = [site, "-m", "pytest", "problems/01-embeddings", "-q"]
    red = run(made, *pytest_)
    assert red.returncode == 1
    assert "TODO 1 is still open" in red.stdout
    mine = problem.solution_path(made).read_text(encoding="utf-8") + "\nprint('my piece runs')\n"
    problem.problem_path(made).write_text(mine, encoding="utf-8")
    green = run(made, *pytest_)
    assert green.returncode == 0, green.stdout
    swapped = run(made, learn, "check", "1", "--swap")
    assert swapped.returncode == 0, swapped.stdout + swapped.stderr
    board = run(made, learn, "status").stdout
    assert re.search("✓ 01 Embeddings +passed +in the model: yours", board), board

    # the model of the course runs, not the one that was installed
    model = swap.model_path(made)
    model.write_text(model.read_text(encoding="utf-8") + "\nprint('ours')\n", encoding="utf-8")
    words = ["generate", "--prompt", "To be", "--max-new-tokens", "3", "--device", "cpu"]
    for command in ([gpt2], [site, "-m", "gpt2"]):
        written = run(made / "problems", *command, *words)
        assert written.returncode == 0, written.stderr
        assert "ours" in written.stdout
    written = run(tmp_path, gpt2, *words)
    assert written.returncode == 0, written.stderr
    assert "ours" not in written.stdout
    assert "Nothing new" in run(made, learn, "update").stdout
    packages = Path(re.sub(r"\n", "", run(tmp_path, site, "-c", WHERE).stdout))
    assert not list((packages / "learn_gpt2" / layout.CARRIED).glob("problems/*/problem.py"))
    extra = packages / "learn_gpt2" / layout.CARRIED / "problems" / "NEWER.md"
    extra.write_text("a newer version", encoding="utf-8")
    done = run(made, learn, "update")
    assert "In the model again: 01" in done.stdout, done.stdout + done.stderr
    assert (made / "problems" / "NEWER.md").is_file()
    assert problem.problem_path(made).read_text(encoding="utf-8") == mine


WHERE = "import learn_gpt2, pathlib; print(pathlib.Path(learn_gpt2.__file__).parents[1])"
