"""What is decided by what a worker reports of its inside is little, and is told."""

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import runner
from learn_gpt2.checking.checks import check, operations, place
from learn_gpt2.grading import gradebook
from learn_gpt2.manifest import Problem
from tests.graders import bank as banks

ROOT = banks.ROOT
WITH_CHECKS = [p for p in manifest.PROBLEMS if p.test_path(ROOT).is_file()]


@pytest.mark.parametrize("problem", WITH_CHECKS, ids=lambda p: p.folder)
def test_a_tenth_of_the_points_at_most(problem: Problem) -> None:
    """Catches a problem in which a file gets more than a tenth by what it says of itself."""
    checks = runner.load_checks(ROOT, problem)
    reported = sum(c.points for c in checks if c.reported)
    assert 10 * reported <= sum(c.points for c in checks), [c.name for c in checks if c.reported]


def test_they_are_listed() -> None:
    """Catches a check of that kind that `learn grade --print-weights` does not mark."""
    found = gradebook.reported(ROOT, (4, 5))
    for number, titles in found.items():
        checks = runner.load_checks(ROOT, manifest.get(number))
        assert titles == [c.title for c in checks if c.reported] != []


def asks_where(t):
    """A helper of a test file's."""
    return [place(x) for x in t]


def test_what_a_check_asks_through_others_counts() -> None:
    """Catches a check that asks through a function of its file, or in a lambda."""

    def direct(piece):
        with operations():
            piece()

    def inner(piece):
        return (lambda: place(piece))()

    def through(piece):
        return asks_where(piece)

    def none(piece):
        return piece

    found = [check(todo=1)(f).check.reported for f in (direct, inner, through, none)]
    assert found == [True, True, True, False]
