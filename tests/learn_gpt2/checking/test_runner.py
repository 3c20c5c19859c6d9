"""The runner of checks: order, skips, limits, and a verdict whatever the file does."""

from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import runner
from learn_gpt2.checking.checks import CheckFailed, check

PIECE = """
from torch import nn
class SimpleAttention(nn.Module):
    def __init__(self, n_embd):
        {init}
    def forward(self, x):
        {forward}
"""


FORGED = """
import json, os, sys
result = dict(name="x", title="x", status="passed")
report = dict(problem=3, path="x", whose="yours", digest="x", results=[result])
for fd in range(1, 20):
    try:
        os.write(fd, ("\\n" + json.dumps(report) + "\\n").encode())
    except OSError:
        pass
os._exit(0)
"""


def examination(tmp_path: Path, *checks, init="super().__init__()", forward="return x"):
    path = tmp_path / "problem.py"
    path.write_text(PIECE.format(init=init, forward=forward), encoding="utf-8")
    return runner.Examination(manifest.get(2), path, "yours", [f.check for f in checks])


@check(todo=1)
def check_one(piece):
    """One"""
    piece.SimpleAttention(3)


@check(todo=2, needs=check_one)
def check_two(piece):
    """Two"""
    piece.SimpleAttention(3).forward(1)


@check(todo=2, needs=check_two)
def check_three(piece):
    """Three"""


@check(todo=2, seconds=0.3)
def check_quick(piece):
    """Quick"""
    piece.SimpleAttention(3).forward(1)


@check(todo=2)
def check_wordy(piece):
    """Wordy"""
    raise CheckFailed("\n".join(f"line {i}" for i in range(20)), ["an-id"], 3)


def statuses(report: runner.Report) -> list[str]:
    return [result.status for result in report.results]


def test_a_failed_check_skips_what_needs_it(tmp_path: Path) -> None:
    """Catches dependents that run anyway, or a skip that does not name the root cause."""
    report = examination(tmp_path, check_one, check_two, check_three, init="1 / 0").run_all()
    assert statuses(report) == ["failed", "skipped", "skipped"]
    assert "check_one" in report.results[2].message
    assert report.first_failure.name == "check_one"


def test_an_untouched_file_fails_everything(tmp_path: Path) -> None:
    """Catches a skeleton whose checks are skipped, not failed."""
    report = examination(
        tmp_path,
        check_one,
        check_two,
        check_three,
        init='raise NotImplementedError("TODO 1: x")',
        forward='raise NotImplementedError("TODO 2: y")',
    ).run_all()
    assert statuses(report)[:2] == ["failed", "failed"]
    assert report.results[0].todo == 1


def test_a_half_finished_file_is_told_the_next_todo(tmp_path: Path) -> None:
    """Catches a TypeError where the next TODO should be named."""
    report = examination(
        tmp_path,
        check_one,
        check_two,
        check_three,
        forward='raise NotImplementedError("TODO 2: y")',
    ).run_all()
    assert statuses(report) == ["passed", "failed", "skipped"]
    assert report.results[1].todo == 2
    assert "TODO 2 is still open" in report.results[1].message


@pytest.mark.parametrize(
    "forward",
    [
        "while True: pass",
        "__import__('time').sleep(60)",
        "\n        ".join(
            (
                "while True:",
                "    try:",
                "        while True: pass",
                "    except BaseException: pass",
            )
        ),
    ],
    ids=["loop", "sleep", "loop that catches everything, once"],
)
def test_a_check_that_runs_too_long_fails_by_name(tmp_path: Path, forward: str) -> None:
    """Catches an endless loop that stops the whole run."""
    if "BaseException" in forward:
        forward = forward.replace("pass\n        ", "pass", 0).replace(
            "except BaseException: pass", "except BaseException: break"
        )
    report = examination(tmp_path, check_quick, check_one, forward=forward).run_all()
    assert report.results[-1].status == "passed"
    if "BaseException" not in forward:
        assert report.results[0].mistakes == ["endless-loop"]
        assert "problem.py:" in report.results[0].message


def test_a_message_has_six_lines_at_most(tmp_path: Path) -> None:
    """Catches a wall of text."""
    result = examination(tmp_path, check_wordy).run_all().results[0]
    assert len(result.message.splitlines()) == 6
    assert (result.mistakes, result.hint) == (["an-id"], 3)


def test_a_learners_error_names_line_and_code(tmp_path: Path) -> None:
    """Catches a message without the place."""
    result = examination(tmp_path, check_two, forward="return x.nothing").run_all().results[0]
    assert "problem.py:7" in result.message
    assert "return x.nothing" in result.message


def test_exit_in_forward_is_a_failure(tmp_path: Path) -> None:
    """Catches a file that ends the run by leaving it."""
    result = examination(tmp_path, check_two, forward="raise SystemExit(0)").run_all().results[0]
    assert result.status == "failed"
    assert "ends the program" in result.message


def test_the_same_file_gets_the_same_verdict(tmp_path: Path) -> None:
    """Catches checks that depend on what ran before them."""

    @check(todo=1)
    def check_random(piece):
        """Random"""
        import torch

        raise CheckFailed(str(torch.rand(3).tolist()))

    first = examination(tmp_path, check_random).run_all().results[0].message
    assert examination(tmp_path, check_random).run_all().results[0].message == first


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("import os; os._exit(0)", "code 0"),
        ("print('14 passed'); import os; os._exit(0)", "code 0"),
        ("import sys; sys.stdout.write('x' * 10_000_000)", "no class"),
        ("while True: pass", "still running"),
        (FORGED, "code 0"),
    ],
    ids=["exits", "prints a verdict", "prints megabytes", "loops", "forges a report"],
)
def test_an_isolated_run_always_comes_back(course, monkeypatch, text: str, word: str) -> None:
    """Catches a run that hangs, or believes what the file prints."""
    import re

    problem = manifest.get(3)
    problem.problem_path(course).write_text(text, encoding="utf-8")
    monkeypatch.setenv("LEARN_GPT2_LOAD_SECONDS", "2")
    report = runner.run_isolated(course, problem)
    assert not report.passed
    assert re.search(word, report.first_failure.message)


def test_an_isolated_run_passes_the_reference(course) -> None:
    """Catches an isolated run that never passes, or runs another file."""
    report = runner.run_isolated(course, manifest.get(3), "reference")
    assert report.passed
    assert Path(report.path) == manifest.get(3).solution_path(course)


def failing(message: str, **options):
    """A check that fails with this message."""

    @check(todo=1, **options)
    def fails(piece):
        """Fails"""
        ids = [m for m in ("first-mistake", "second-mistake", "module-remembers") if m in message]
        raise CheckFailed(message, ids)

    return fails


@pytest.mark.parametrize(
    ("first", "second", "follows", "status"),
    [
        ("a first-mistake", "a first-mistake again", False, "skipped"),
        ("a first-mistake", "the output is wrong", False, "skipped"),
        ("a first-mistake", "a second-mistake", False, "failed"),
        ("a first-mistake", "a second-mistake", True, "skipped"),
        ("it module-remembers", "a second-mistake", False, "skipped"),
    ],
)
def test_one_mistake_is_told_once(tmp_path: Path, first, second, follows, status) -> None:
    """Catches a consequence of a mistake that is diagnosed again, under another name."""
    one = failing(first)
    one.check = one.check.__class__(**{**vars(one.check), "name": "one"})
    two = failing(second)
    after = ("one",) if follows else ()
    two.check = two.check.__class__(**{**vars(two.check), "name": "two", "follows": after})
    report = examination(tmp_path, one, two).run_all()
    assert [r.status for r in report.results] == ["failed", status]
    if status == "skipped":
        assert "first mend one" in report.results[1].message


def test_what_needs_a_consequence_is_skipped_for_the_same_reason(tmp_path: Path) -> None:
    """Catches a chain of skips that loses its first cause."""
    one, two = failing("a first-mistake"), failing("a first-mistake again")
    one.check = one.check.__class__(**{**vars(one.check), "name": "one"})
    two.check = two.check.__class__(**{**vars(two.check), "name": "two"})
    three = failing("never run")
    three.check = three.check.__class__(**{**vars(three.check), "name": "three", "needs": ("two",)})
    report = examination(tmp_path, one, two, three).run_all()
    assert [r.status for r in report.results] == ["failed", "skipped", "skipped"]
    assert "needs one" in report.results[2].message


def test_a_count_says_nothing_that_may_be_untrue() -> None:
    """Catches "14 of 14 checks fail" for a file that could not be loaded: none of them ran."""
    assert runner.verdict(14, 14, 0) == "none of the 14 checks passes"
    assert runner.verdict(14, 3, 2) == "3 of 14 checks fail, and 2 more wait for them"
    assert runner.verdict(1, 1, 0) == "1 of 1 checks fails"


def test_a_file_may_ask_for_the_number_of_its_output(tmp_path: Path) -> None:
    """Catches a stand-in for standard error without a `fileno`, which faulthandler asks for."""
    import sys

    from learn_gpt2.checking.output import Heard, redirect_stderr

    with redirect_stderr(Heard()):
        assert isinstance(sys.stderr.fileno(), int)
        assert not sys.stderr.isatty()
