"""What is missing, broken, locked or mistyped around a piece: a plain sentence, and what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.common.terminal import wrap
from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.course import progress
from tests.learner import UNSCALED, learn, run, solve, write
from tests.terminal import Terminal

PROBLEM = manifest.get(3)


def flat(done: subprocess.CompletedProcess) -> str:
    """All that was said, in one line; never a traceback."""
    text = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in text, text
    return text


@pytest.mark.parametrize("module", ["learn_gpt2", "pytest"])
def test_a_deleted_test_file_is_not_the_learners_fault(course: Path, module: str) -> None:
    """Catches "does your file crash?" where the checks are missing."""
    PROBLEM.test_path(course).unlink()
    where = ["check", "3"] if module == "learn_gpt2" else [f"problems/{PROBLEM.folder}"]
    said = flat(run(course, module, *where))
    assert "test_scaled_dot_product.py, which holds the checks of problem 03, is not there" in said
    assert "brings it back" in said
    assert "crash" not in said


def test_the_others_are_checked_when_one_test_file_is_missing(course: Path) -> None:
    """Catches `learn check all` that ends at the first gap."""
    PROBLEM.test_path(course).unlink()
    solve(course, 2, 4)
    done = learn(course, "check", "2-4")
    assert done.returncode == 1
    said = flat(done)
    assert "02 Attention basics" in said
    assert "04 Multi-head attention" in said
    assert said.count("checks pass") == 2


def test_checks_that_cannot_run_are_not_the_learners_fault(course: Path) -> None:
    """Catches an edit of the test file that reads as a crash of problem.py."""
    with open(PROBLEM.test_path(course), "a", encoding="utf-8") as file:
        file.write("\nraise RuntimeError('spoilt')\n")
    said = flat(learn(course, "check", "3"))
    assert "can't be run (RuntimeError: spoilt)" in said
    assert "learn doctor" in said


@pytest.mark.parametrize(
    "command", [("check", "3"), ("swap", "3"), ("status",), ("hint", "3"), ("explain", "3")]
)
def test_a_renamed_folder_is_recognized(course: Path, command: tuple[str, ...]) -> None:
    """Catches advice to reset a file that is there, under another folder's name."""
    folder = course / "problems" / PROBLEM.folder
    folder.rename(folder.with_name("03-attention"))
    said = flat(learn(course, *command))
    if command == ("status",):
        assert "its folder is not there" in said
    else:
        assert f"problems/{PROBLEM.folder}" in said
        assert "03-attention" in said


def test_pytest_in_a_renamed_folder_says_what_it_was_called(course: Path) -> None:
    """Catches an internal error for a folder that is none of the twelve's."""
    folder = course / "problems" / PROBLEM.folder
    folder.rename(folder.with_name("mine"))
    said = flat(run(course, "pytest", "problems/mine"))
    assert "Was it renamed? It was called 03-scaled-dot-product." in said


MODELS = {
    "missing": (None, "is not there"),
    "cut off": ("class GPT2Model(\n", "not valid Python"),
    "merge markers": ("<<<<<<< HEAD\n", "not valid Python"),
    "raises": ("x = 1\nraise RuntimeError('oh')\n", "RuntimeError: oh"),
    "lacks the classes": ("x = 1\n", "lacks what this command needs"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_broken_model_is_named(course: Path, kind: str) -> None:
    """Catches a traceback of `gpt2 generate`, and a piece that is blamed for the model."""
    text, says = MODELS[kind]
    model = swap.model_path(course)
    model.unlink() if text is None else model.write_text(text, encoding="utf-8")
    bundled = Path(__file__).parents[3] / "src" / "gpt2" / "bundled"
    done = run(course, "gpt2", "generate", "--model", str(bundled), "--max-new-tokens", "1")
    said = flat(done)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "model.py" in said
    assert says in said
    assert "learn swap --reference all" in said
    if kind != "lacks the classes":
        assert "src/gpt2/model.py" in flat(learn(course, "check", "3"))  # the file is untouched
        write(course, 3)
        said = flat(learn(course, "check", "3"))
        assert "src/gpt2/model.py" in said
        assert progress.entry(course, PROBLEM) == {}  # says nothing of the piece
    assert learn(course, "swap", "--reference", "all").returncode == 0
    assert learn(course, "swap", "--check").returncode == 0


@pytest.mark.parametrize("kind", MODELS)
def test_a_broken_file_of_part_two_is_named(course: Path, kind: str) -> None:
    """Catches a traceback of `gpt2 generate`, or a board that shows nothing because of one file."""
    text, says = MODELS[kind]
    path = manifest.get(13).module_path(course)
    path.unlink() if text is None else path.write_text(text, encoding="utf-8")
    bundled = Path(__file__).parents[3] / "src" / "gpt2" / "bundled"
    done = run(course, "gpt2", "generate", "--model", str(bundled), "--max-new-tokens", "1")
    said = flat(done)
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "sampling.py" in said
    assert says in said
    assert "learn swap --reference" in said
    board = flat(learn(course, "status"))
    assert "13 Text generation untouched in the model: unknown (sampling.py " in board
    assert "sampling.py" in flat(learn(course, "doctor"))
    assert learn(course, "swap", "--reference", "13").returncode == 0
    assert learn(course, "swap", "--check").returncode == 0


def test_two_swaps_at_once_both_arrive(course: Path) -> None:
    """Catches a swap that takes the other's piece out, or ends in a sentence nobody understands."""
    solve(course, 3, 6)
    environment = {**os.environ, "PYTHONPATH": str(course / "src")}
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "learn_gpt2", "swap", number],
            cwd=course,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        for number in ("3", "6")
    ]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    mine = [row.number for row in swap.board(course) if row.owner == "yours"]
    assert mine == [3, 6]


@pytest.fixture
def unwritable(course: Path) -> Path:
    """A course in which nothing can be stored in .learn (a file stands in its place)."""
    shutil.rmtree(course / ".learn", ignore_errors=True)
    (course / ".learn").write_text("", encoding="utf-8")
    return course


def test_a_course_that_cannot_be_written_shows_the_results_first(unwritable: Path) -> None:
    """Catches an errno in place of the results."""
    write(unwritable, 3, UNSCALED)
    done = learn(unwritable, "check", "3")
    assert "[no-scale]" in done.stdout
    assert "This result could not be stored" in flat(done)
    tested = run(unwritable, "pytest", "-q", f"problems/{PROBLEM.folder}")
    assert "[no-scale]" in tested.stdout
    assert "could not be stored" in flat(tested)
    assert "03 hint" in flat(learn(unwritable, "hint", "3"))
    assert learn(unwritable, "status").returncode == 0
    solve(unwritable, 3)
    swapped = learn(unwritable, "swap", "3")
    assert swapped.returncode == 1
    assert "can't be written" in flat(swapped)


@pytest.mark.parametrize(
    "command", [("reset", "3"), ("solution", "3", "--peek")], ids=lambda c: c[0]
)
def test_a_question_takes_no_for_an_answer(course: Path, command: tuple[str, ...]) -> None:
    """Catches "n" that reads as an interruption, and a missing answer that reads as "n"."""
    path = write(course, 3, UNSCALED)
    before = path.read_bytes()
    no = learn(course, *command, stdin="n\n")
    assert no.returncode == 0
    assert "stopped" not in flat(no)
    none = learn(course, *command)
    assert none.returncode == 1
    assert "No answer came, so nothing was done." in flat(none)
    assert "--yes" in flat(none)
    unclear = learn(course, *command, stdin="maybe\nn\n")
    assert "Please answer y or n." in flat(unclear)
    assert path.read_bytes() == before


def test_swap_check_tells_a_learner_whose_pieces_are_in(course: Path) -> None:
    """Catches pages of the solutions for somebody who asked a yes-or-no question."""
    solve(course, 3)
    assert learn(course, "swap", "3").returncode == 0
    done = learn(course, "swap", "--check")
    assert done.returncode == 1
    assert "src/gpt2/model.py holds pieces of yours: 03." in done.stdout
    assert "@@" not in done.stdout
    assert "@@" in learn(course, "swap", "--check", "--diff").stdout
    assert learn(course, "swap", "--reference", "all").returncode == 0
    model = swap.model_path(course)
    model.write_text(model.read_text("utf-8").replace("self.drop(", "self.drop( "), "utf-8")
    assert "differs from what the solutions give in 01" in learn(course, "swap", "--check").stdout


@pytest.mark.parametrize(
    ("module", "arguments", "meant"),
    [
        ("learn_gpt2", ["chekc", "3"], "`learn check`"),
        ("learn_gpt2", ["Status"], "`learn status`"),
        ("learn_gpt2", ["03"], "`learn check 03`"),
        ("learn_gpt2", ["problems/05-causal-masking"], "`learn check 05`"),
        ("gpt2", ["genrate"], "`gpt2 generate`"),
    ],
)
def test_a_mistyped_command_is_answered_with_the_likely_one(
    course: Path, module: str, arguments: list[str], meant: str
) -> None:
    """Catches "no such command" and nothing else."""
    done = run(course, module, *arguments)
    assert done.returncode == 2
    assert f"Did you mean {meant}?" in flat(done)
    assert "Did you mean" not in flat(run(course, module, "xyzzy"))


def test_long_lines_end_between_words_in_a_terminal(course: Path) -> None:
    """Catches words cut in two at the edge, and lines broken for a program that reads them."""
    write(course, 3, UNSCALED)
    for module, *arguments in (
        ("learn_gpt2", "check", "3"),
        ("pytest", f"problems/{PROBLEM.folder}"),
    ):
        terminal = Terminal(course, module, *arguments, columns=60)
        assert terminal.end(120) == 1
        lines = terminal.shown.replace("\r", "").splitlines()
        at = next(i for i, line in enumerate(lines) if "Your scores are not scaled" in line)
        assert len(lines[at]) <= 70  # with colors
        assert "softmax saturates" in " ".join(lines[at : at + 3])
    whole = learn(course, "check", "3").stdout
    assert "or the softmax saturates as d_k grows. (hint 2) [no-scale]\n" in whole


@pytest.mark.parametrize(
    ("line", "width", "broken"),
    [
        ("short", 40, ["short"]),
        ("  one two three four five six", 20, ["  one two three four", "  five six"]),
        ("a/long/path/that/stays/whole and more", 20, ["a/long/path/that/stays/whole", "and more"]),
        ("", 40, [""]),
    ],
)  # fmt: skip
def test_a_line_is_broken_between_words(line: str, width: int, broken: list[str]) -> None:
    """Catches a lost indent, a path in two pieces, an empty line that goes missing."""
    assert wrap(line, width) == broken


def test_bare_pytest_runs_the_problems(course: Path) -> None:
    """Catches a learner's `pytest` that runs the maintainers' thousands of tests."""
    (course / "tests").mkdir()
    (course / "tests" / "test_ours.py").write_text("def test_x(): pass\n", encoding="utf-8")
    listed = run(course, "pytest", "--collect-only", "-q").stdout
    assert "problems/01-embeddings/test_embeddings.py::" in listed
    assert "problems/12-pretrained-loading/" in listed
    assert "test_ours" not in listed
