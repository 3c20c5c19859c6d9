"""The warm processes behind `learn watch`: both ways, and whatever the file does."""

import shutil
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking.warm import CAN_FORK, Warm

PROBLEM = manifest.get(3)


@pytest.fixture(params=[True, False], ids=["fork", "spare"])
def warm(request: pytest.FixtureRequest, course: Path):
    if request.param and not CAN_FORK:
        pytest.skip("forks on Linux only")
    warm = Warm(course, fork=request.param)
    yield warm
    warm.close()


def test_each_run_sees_the_file_as_it_is(warm: Warm, course: Path) -> None:
    """Catches a run that remembers the file before."""
    path = PROBLEM.problem_path(course)
    assert not warm.check(PROBLEM).passed
    shutil.copy(PROBLEM.solution_path(course), path)
    assert warm.check(PROBLEM).passed
    path.write_text("def", encoding="utf-8")
    assert warm.check(PROBLEM).first_failure.mistakes == ["syntax-error"]


@pytest.mark.parametrize("text", ["import os; os._exit(0)", "import sys; sys.exit(3)", "1 / 0"])
def test_a_file_that_ends_the_run_does_not_end_the_watching(warm, course, text: str) -> None:
    """Catches a warm process that dies with the learner's code."""
    path = PROBLEM.problem_path(course)
    path.write_text(text, encoding="utf-8")
    assert warm.check(PROBLEM).first_failure is not None
    shutil.copy(PROBLEM.solution_path(course), path)
    assert warm.check(PROBLEM).passed


def test_a_run_cannot_change_the_next_one(warm: Warm, course: Path) -> None:
    """Catches a monkeypatched torch that lives on."""
    path = PROBLEM.problem_path(course)
    solution = PROBLEM.solution_path(course).read_text(encoding="utf-8")
    path.write_text(solution + "\ntorch.softmax = None\n", encoding="utf-8")
    assert not warm.check(PROBLEM).passed
    path.write_text(solution, encoding="utf-8")
    assert warm.check(PROBLEM).passed
