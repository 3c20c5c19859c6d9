"""`gpt2 validate` on the assembled model, in a process of its own, and whose problem a failure is.

The pieces may loop, exit or print, so the process has a time limit and only its last words count.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learn_gpt2.assembly import swap
from learn_gpt2.checking import child, headers
from learn_gpt2.manifest import MODEL_FILE, PROBLEMS

if TYPE_CHECKING:
    from gpt2.validation.stages import Result

SECONDS = 300.0
MARK = '{"number":'


@dataclass(frozen=True)
class Validated:
    """What came of it: results in order, the problem of the first failure, whose pieces are mine.

    error: why there are fewer than twelve results, or none.
    """

    results: tuple[Result, ...]
    mine: tuple[int, ...]
    error: str = ""

    @property
    def problem(self) -> int | None:
        """The problem that the first failing checkpoint belongs to."""
        failed = next((r for r in self.results if r.state == "failed"), None)
        return problem_of(failed) if failed else None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "mine": self.mine,
            "error": self.error,
            "problem": self.problem,
            "checkpoints": [asdict(r) | {"problem": problem_of(r)} for r in self.results],
        }


def problem_of(result: Result) -> int | None:
    """The problem that provides the part a failure is blamed on; None when no problem does."""
    for problem in PROBLEMS:
        if result.part in problem.provides:
            return problem.number
    return None


def run(root: Path, model: str | None = None, seconds: float = SECONDS) -> Validated:
    """Validate the model.py of this course. ValueError when it has not all twelve pieces.

    The checkpoints run with what else is swapped in: tokens are drawn by problem 13's file, and the
    cache is problem 14's.
    """
    swap.pieces_in(root, MODEL_FILE)
    placed = headers.placed_everywhere(root / "src" / "gpt2")
    mine = tuple(n for n, piece in sorted(placed.items()) if piece.owner != "reference")
    environment = child.environment(root)
    environment.pop("GPT2_TRACEBACK", None)
    command = [*child.python("-m"), "gpt2", "validate", "--json", "--device", "cpu"]
    if model is not None:
        # a path means the same from everywhere; a hub name is not a path
        command.append(os.path.abspath(model) if Path(model).expanduser().exists() else model)
    # in this folder, and not in another course, whose gpt2 would take over
    done = child.run(command, seconds, environment, cwd=root)
    results = _results(done.output)
    error = ""
    if done.code is None:
        error = f"it was still running after {seconds:.0f} s; is there a loop that never ends?"
    elif len(results) < 12:
        error = done.last_words.removeprefix("gpt2: ")
        if not done.errors.strip():
            error = f"Python ended with code {done.code}"
    return Validated(tuple(results), mine, error)


def _results(text: str) -> list[Result]:
    """The checkpoints' lines among whatever the pieces printed."""
    from gpt2.validation.stages import Result

    found = []
    for line in text.splitlines():
        if line.startswith(MARK):
            try:
                data = json.loads(line)
                data["causes"] = tuple(data["causes"])
                found.append(Result(**data))
            except (ValueError, TypeError, KeyError):
                continue
    return found
