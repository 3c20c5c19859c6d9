"""Through the judge as directly: the same verdict, ids and points, for samples of all banks."""

import os

import pytest

from learn_gpt2 import manifest
from learn_gpt2.manifest import Problem
from tests.graders import bank as banks
from tests.graders import through

WITH_CHECKS = [p for p in manifest.PROBLEMS if p.test_path(banks.ROOT).is_file()]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


def compared(problem: Problem, every: int) -> list[through.Compared]:
    """One answer of `every`, the reference first."""
    with through.both_ways([problem.number]) as both:
        for answer in through.answers(problem.number)[::every]:
            both.compare(problem, answer)
    return both.found


@pytest.mark.parametrize("problem", WITH_CHECKS, ids=lambda p: p.folder)
def test_the_same_verdict_through_the_judge(problem: Problem) -> None:
    """Catches a check that sees another thing through the judge than in the file itself."""
    whole = os.environ.get("LEARN_AGREEMENT") == "all"
    answers = len(through.answers(problem.number))
    found = compared(problem, 1 if whole else max(1, answers // 4))
    assert all(status == "passed" for _, status, *_ in found[0].judged)  # the reference
    differences = [f"{c.title}\n  {text}" for c in found for text in c.differences]
    assert not differences, "\n".join(differences)
