"""`pytest` on a problem's folder, as a learner runs it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from learn_gpt2 import manifest

PROBLEM = manifest.get(3)


def run_pytest(
    course: Path, *arguments: str, cwd: Path | None = None
) -> subprocess.CompletedProcess:
    """pytest in a copy of the course, as from a terminal."""
    environment = {**os.environ, "PYTHONPATH": str(course / "src"), "COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=cwd or course,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def write(course: Path, *edits: tuple[str, str]) -> Path:
    """The solution, edited, as the learner's file."""
    source = PROBLEM.solution_path(course).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    path = PROBLEM.problem_path(course)
    path.write_text(source, encoding="utf-8")
    return path


def test_the_first_line_says_what_is_graded(course: Path) -> None:
    """Catches a reference graded in place of the learner's file, without a word."""
    mine = run_pytest(course, "problems/03-scaled-dot-product")
    assert mine.stdout.startswith("03 grades problems/03-scaled-dot-product/problem.py (")
    assert ", yours)" in mine.stdout.splitlines()[0]
    reference = run_pytest(course, "problems/03-scaled-dot-product", "--solutions", "-q")
    assert reference.stdout.startswith("03 grades solutions/03-scaled-dot-product.py (")
    assert ", REFERENCE)" in reference.stdout.splitlines()[0]
    assert reference.returncode == 0


def test_it_says_what_the_piece_builds_on(course: Path) -> None:
    """Catches earlier pieces that are used without a word."""
    first = run_pytest(course, "problems/05-causal-masking", "-q").stdout.splitlines()[:2]
    assert first[0].startswith("05 grades ")
    assert first[1].strip() == "builds on 03 reference, 04 reference"


def test_from_inside_the_folder(course: Path) -> None:
    """Catches a run that depends on the current directory."""
    write(course)
    done = run_pytest(course, cwd=course / "problems" / PROBLEM.folder)
    assert done.returncode == 0, done.stdout
    assert "passed" in done.stdout


def test_untouched_skeletons_fail_and_none_by_error(course: Path) -> None:
    """Catches a skeleton that passes something, or breaks the collection."""
    done = run_pytest(course, "problems", "-q")
    last = done.stdout.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "failed" in last
    for word in ("passed", "error", "skipped"):
        assert word not in last


def test_a_wrong_answer_gets_a_message_and_no_traceback(course: Path) -> None:
    """Catches a traceback where a sentence should be, and a sentence that hides the traceback."""
    write(course, (" * self.scale", ""))
    short = run_pytest(course, "problems/03-scaled-dot-product").stdout
    assert "[no-scale]" in short
    assert "Traceback" not in short
    assert "def test_worked_example" not in short
    long = run_pytest(course, "problems/03-scaled-dot-product", "--tb=long").stdout
    assert "def test_worked_example" in long


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("import math", "import math\nfrom", "Python can't read this line"),
        ("import math", "import maths", "'maths', which is not installed"),
        (
            "class ScaledDotProductAttention",
            "class Attention",
            "no class ScaledDotProductAttention",
        ),
        (
            "return weights @ v, weights",
            'raise NotImplementedError("TODO 2: ScaledDotProductAttention.forward")',
            "TODO 2 is still open",
        ),
    ],
)
def test_a_file_that_can_not_be_graded_says_why(
    course: Path, old: str, new: str, says: str
) -> None:
    """Catches an error at collection, or a message without the line."""
    write(course, (old, new))
    done = run_pytest(course, "problems/03-scaled-dot-product")
    assert says in done.stdout
    assert "problem.py" in done.stdout
    assert done.returncode == 1
    assert "error" not in done.stdout.strip().splitlines()[-1]


def test_an_endless_loop_fails_by_name_and_the_rest_goes_on(course: Path) -> None:
    """Catches a loop that stops the run. One check loops, and only for its own kind of input."""
    loop = "while mask is not None and mask.dim() == 2: pass\n        scores = q @"
    write(course, ("scores = q @", loop))
    test = PROBLEM.test_path(course)
    text = test.read_text(encoding="utf-8")
    marked = "@check(todo=5, needs=test_output_and_weights, points=2)\ndef test_mask("
    assert marked in text
    test.write_text(
        text.replace(marked, marked.replace("points=2", "points=2, seconds=1")), encoding="utf-8"
    )
    done = run_pytest(
        course, "problems/03-scaled-dot-product", "-k", "mask or dropout or builds or output"
    )
    assert "[endless-loop]" in done.stdout
    assert "test_mask" in done.stdout
    assert "passed" in done.stdout


def test_another_file_can_be_named(course: Path, tmp_path: Path) -> None:
    """Catches --piece that grades problem.py all the same."""
    other = tmp_path / "elsewhere.py"
    other.write_text(PROBLEM.solution_path(course).read_text(encoding="utf-8"), encoding="utf-8")
    done = run_pytest(course, "problems/03-scaled-dot-product", "--piece", str(other), "-q")
    assert done.returncode == 0
    assert done.stdout.startswith(f"03 grades {other}")
    (tmp_path / "setup.py").touch()  # pytest takes its folder for the root
    done = run_pytest(course, "problems/03-scaled-dot-product", "--piece", str(other), "-q")
    assert done.stdout.startswith(f"03 grades {other}")
    assert done.returncode == 0
    missing = run_pytest(course, "problems/03-scaled-dot-product", "--piece", "nowhere.py")
    assert missing.returncode == 4
    assert "no such file" in missing.stdout + missing.stderr


def test_all_solutions_pass_in_one_run(course: Path) -> None:
    """Catches problems that disturb one another."""
    done = run_pytest(course, "problems", "--solutions", "-q")
    assert done.returncode == 0, done.stdout[-3000:]
