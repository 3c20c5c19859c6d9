"""A learner in a copy of the course: their commands, and files with a mistake in them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from learn_gpt2 import manifest


def run(course: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """A Python module as a command, in a copy of the course."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=course,
        env={**os.environ, "PYTHONPATH": str(course / "src"), "OMP_NUM_THREADS": "1"},
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def learn(course: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess:
    """`learn …`."""
    return run(course, "learn_gpt2", *arguments, stdin=stdin)


def write(course: Path, number: int, *edits: tuple[str, str]) -> Path:
    """The solution, edited, as the learner's file."""
    problem = manifest.get(number)
    source = problem.solution_path(course).read_text(encoding="utf-8")
    for old, new in edits:
        assert old in source
        source = source.replace(old, new)
    path = problem.problem_path(course)
    path.write_text(source, encoding="utf-8")
    return path


def solve(course: Path, *numbers: int) -> None:
    """The solutions as the learner's files."""
    for number in numbers:
        problem = manifest.get(number)
        shutil.copy(problem.solution_path(course), problem.problem_path(course))


UNSCALED = (" * self.scale", "")  # in 03: a mistake that no import shows
