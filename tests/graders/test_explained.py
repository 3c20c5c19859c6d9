"""`learn explain` on every answer of the banks: what it says must be true of that answer.

The truth is found without it: the solution with the answer's weights says whether the result is
right, and each clue is read back and tested on the two tensors (see `truth`).
"""

from pathlib import Path

import pytest
import torch

from learn_gpt2 import manifest
from learn_gpt2.checking import explain, loading
from tests.graders import bank as banks
from tests.graders import truth


def result_is_right(problem, path: Path) -> bool | None:
    """Whether the answer's forward gives what the solution's gives on the same weights, in the
    scene of `learn explain`; None when that can't be told (it stops, or has other parameters).
    """
    dtype = torch.get_default_dtype()
    try:
        piece = loading.load(problem, path)
        torch.set_default_dtype(dtype)
        reference = loading.load(problem, problem.solution_path(banks.ROOT), "REFERENCE")
        with loading.model_for(problem), torch.no_grad():
            torch.manual_seed(0)
            module, forward, *_ = explain._scene(problem, piece)
            changed = torch.get_default_dtype() != dtype
            torch.set_default_dtype(dtype)
            if changed:  # its weights are of another dtype: nothing to compare
                return None
            right, want, *_ = explain._scene(problem, reference)
            if {*module.state_dict()} != {*right.state_dict()}:
                return None
            right.load_state_dict(module.state_dict())
            expected, got = run_in_eval_mode(right, want), run_in_eval_mode(module, forward)
    except Exception:
        return None
    pair = isinstance(expected, tuple)
    if isinstance(got, (tuple, list)) != pair or (pair and len(got) != len(expected)):
        return False
    pairs = zip(got, expected, strict=True) if pair else [(got, expected)]
    return all(
        isinstance(a, torch.Tensor)
        and a.shape == b.shape
        and torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5, equal_nan=True)
        for a, b in pairs
    )


def run_in_eval_mode(module, forward) -> object:
    """What forward returns."""
    module.eval()
    torch.manual_seed(0)
    return forward()


def check_explained(problem, answer, path: Path) -> list[str]:
    """What `explain` says of an answer that is not so."""
    path.write_text(answer.source, encoding="utf-8")
    with truth.overheard() as wrong:
        found = explain.run(problem, path)
    faults = [f"a clue that does not hold: {text}" for text in wrong]
    if "refused" in found:
        return faults if found["refused"] else [*faults, "refused without a word"]
    right = result_is_right(problem, path)
    if right is False and not found["differs"]:
        faults.append("says that the result agrees; it does not")
    if right is True and found["differs"] and not found["error"]:
        faults.append(f"says that {found['differs']} differs; the result is right")
    if found["differs"] in found["agree"]:
        faults.append(f"says of {found['differs']} that it agrees and that it differs")
    if found["line"]:
        line = answer.source.splitlines()[found["line"] - 1].strip()
        if line != found["code"]:
            faults.append(f"quotes line {found['line']} as {found['code']!r}")
    return faults


@pytest.mark.parametrize("number", explain.COVERED)
def test_what_is_said_is_true(number: int, tmp_path: Path) -> None:
    """Catches a ratio, a step or an agreement that is not so, for any answer of the bank."""
    bank = banks.load(number)
    problem = manifest.get(number)
    faults = [
        f"{answer.title}: {fault}"
        for answer in (*bank.wrong, *bank.right)
        for fault in check_explained(problem, answer, tmp_path / "problem.py")
    ]
    assert not faults, "\n".join(faults)
