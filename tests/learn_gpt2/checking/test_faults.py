"""A check of ours that crashes reads as the course's fault, and a learner's mistake does not."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import faults, runner
from learn_gpt2.checking.checks import check, checks_in

ROOT = Path(__file__).resolve().parents[3]
PROBLEM = manifest.get(2)


@check(todo=1)
def crashes(piece):
    """A check that crashes by itself"""
    import torch

    torch.cat([])


@check(todo=1)
def looks_up(piece):
    """A check that looks up what nobody made"""
    {}["embeddings.wte.weight"]


@check(todo=1)
def wants_an_attribute(piece):
    """A check that reads an attribute of the piece"""
    piece.SimpleAttention(6).no_such_layer  # noqa: B018


@check(todo=1)
def calls_with_too_much(piece):
    """A check that gives forward an argument"""
    import torch

    piece.SimpleAttention(6)(torch.randn(1, 2, 6), mask=None)


@check(todo=1)
def makes_with_too_much(piece):
    """A check that gives __init__ an argument"""
    piece.SimpleAttention(6, heads=2)


@check(todo=1)
def runs_the_piece(piece):
    """A check in which the piece itself fails"""
    piece.SimpleAttention(6)("a text")


@check(todo=1)
def copies(piece):
    """A check that copies what cannot be copied"""
    layer = piece.SimpleAttention(6)
    layer.kept = (n for n in range(3))
    copy.deepcopy(layer)


def result_of(name: str) -> runner.Result:
    """What one of the checks above makes of the solution of problem 02."""
    checks = [c for c in checks_in(globals()) if c.name == name]
    path = PROBLEM.solution_path(ROOT)
    return runner.Examination(PROBLEM, path, "REFERENCE", checks).run(name)


@pytest.mark.parametrize("name", ["crashes", "looks_up"])
def test_the_course_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a crash of ours that reads as a failure of the learner's code."""
    monkeypatch.setattr(faults, "is_check", lambda file: file.name == Path(__file__).name)
    result = result_of(name)
    assert result.mistakes == [faults.ID]
    assert "course is at fault" in result.message
    assert name in result.message
    assert "learn doctor" in result.message


@pytest.mark.parametrize(
    "name",
    [
        "wants_an_attribute",
        "calls_with_too_much",
        "makes_with_too_much",
        "runs_the_piece",
        "copies",
    ],
)
def test_the_piece_stays_to_blame(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a mistake of the learner's that is put down to the course."""
    monkeypatch.setattr(faults, "is_check", lambda file: file.name == Path(__file__).name)
    result = result_of(name)
    assert result.status == "failed"
    assert faults.ID not in result.mistakes, result.message


def test_a_test_file_that_cannot_be_loaded(tmp_path: Path) -> None:
    """Catches a damaged test file that reads as a crash of problem.py."""
    folder = tmp_path / "problems" / PROBLEM.folder
    folder.mkdir(parents=True)
    shutil.copy(PROBLEM.solution_path(ROOT), folder / "problem.py")
    (folder / PROBLEM.test_file).write_text("def test_(:\n", encoding="utf-8")
    report = runner.run_checks(tmp_path, PROBLEM)
    assert report.first_failure is not None
    assert report.first_failure.mistakes == [faults.ID]
    assert "course is at fault" in report.first_failure.message
