"""`learn validate`: a wrong piece in the assembled model is traced to its problem."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from small_gpt2 import byte_tokenizer, tiny

from gpt2.formats.checkpoints import save_pretrained
from gpt2.validation.stages import CHECKPOINTS, Result
from learn_gpt2.assembly import swap
from learn_gpt2.cli import Course
from learn_gpt2.commands.validate import command
from learn_gpt2.course.validating import problem_of, run
from learn_gpt2.manifest import get


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny checkpoint."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=40)
    return save_pretrained(model, tmp_path / "weights", tokenizer)


def take(course: Path, number: int, old: str, new: str) -> None:
    """Let the learner's file be the solution with one change, and put it into the model."""
    problem = get(number)
    text = problem.solution_path(course).read_text(encoding="utf-8")
    assert old in text
    problem.problem_path(course).write_text(text.replace(old, new), encoding="utf-8")
    swap.install(course, swap.assemble_files(course, {number: "yours"}), "test")


@pytest.mark.parametrize(
    ("number", "old", "new", "checkpoint"),
    [
        (6, 'approximate="tanh"', 'approximate="none"', 6),
        (8, "return x + self.mlp", "return self.mlp", 7),
        (12, 'part}.weight", ".c_" in part', 'part}.weight", ".c_fc" in part', None),
    ],
)
def test_a_wrong_piece_is_traced_to_its_problem(
    course: Path, folder: Path, number: int, old: str, new: str, checkpoint: int | None
) -> None:
    """Catches a learner sent to another problem, and weights that load wrong without a word."""
    take(course, number, old, new)
    found = run(course, str(folder))
    assert found.mine == (number,)
    if checkpoint is None:  # a weight that does not fit in shape stops the loading itself
        assert "h.0.attn.c_attn.weight" in found.error
        return
    failed = [result.number for result in found.results if result.state == "failed"]
    assert failed[0] == checkpoint
    assert found.problem == number


def test_the_command_names_the_problem(course: Path, folder: Path) -> None:
    """Catches an exit code 0 for a wrong model, and a line that doesn't say whose piece it is."""
    take(course, 6, 'approximate="tanh"', 'approximate="none"')
    done = CliRunner().invoke(command, [str(folder)], obj=Course(course))
    assert done.exit_code == 1
    assert "of which yours: 06" in done.output
    assert "problem 06 Feed-forward network (yours in the model)" in done.output
    assert "learn check 06" in done.output
    done = CliRunner().invoke(command, [str(folder), "--json"], obj=Course(course))
    data = json.loads(done.output)
    assert data["problem"] == 6
    assert len(data["checkpoints"]) == 12


def test_the_references_pass(course: Path, folder: Path) -> None:
    """Catches a right model called wrong."""
    found = run(course, str(folder))
    assert [result.state for result in found.results] == ["passed"] * 12
    assert (found.mine, found.error, found.problem) == ((), "", None)


def test_a_piece_that_loops_or_exits(course: Path, folder: Path) -> None:
    """Catches a command that never ends, and one that takes silence for success."""
    take(course, 12, "        # Step 8", "        while True:\n            pass\n        # Step 8")
    assert "still running after 8 s" in run(course, str(folder), seconds=8).error
    take(course, 12, "        # Step 8", "        raise SystemExit(0)\n        # Step 8")
    found = run(course, str(folder))
    assert found.error
    assert not found.results


def test_every_part_is_some_problems_or_given() -> None:
    """Catches a part whose name is in no problem, so that a learner would be sent nowhere."""
    import inspect
    import re

    import gpt2.validation.stages

    parts = set(re.findall(r'Blame\(\s*"([\w.]+)"', inspect.getsource(gpt2.validation.stages)))
    assert len(parts) >= 9
    assert len(CHECKPOINTS) == 12

    def blamed(part: str) -> Result:
        return Result(1, "", "", "failed", "", part=part)

    assert {part for part in parts if problem_of(blamed(part)) is None} == {"gpt2.generation"}
