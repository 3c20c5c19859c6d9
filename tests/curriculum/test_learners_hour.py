"""A learner's hour with the real commands: three mistakes refused, one answer of one's own runs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from learn_gpt2 import manifest

PROBLEM = manifest.get(3)
OWN = '''
import torch
from torch import nn

ROOT = 0.5  # a constant that the piece needs


def scores_of(q, k):
    """A helper that the piece needs."""
    return torch.einsum("...td,...sd->...ts", q, k) / q.shape[-1] ** ROOT


class ScaledDotProductAttention(nn.Module):
    def __init__(self, n_embd, dropout=0.1):
        super().__init__()
        self.leave_out = nn.Dropout(dropout)

    def forward(self, q, k, v, mask=None):
        s = scores_of(q, k)
        if mask is not None:
            s = torch.where(mask, s, -torch.inf)
        w = self.leave_out(s.softmax(dim=-1))  # mine
        return torch.einsum("...ts,...se->...te", w, v), w


if __name__ == "__main__":
    print("trying it out")
'''
MISTAKES = [
    ("s = scores_of(q, k)", "s = scores_of(q, k, mask)", "TypeError"),
    ("** ROOT", "** 1", "[scale-by-d]"),
    ("torch.where(mask, s, -torch.inf)", "torch.where(mask, -torch.inf, s)", "[mask-inverted]"),
]


def run(course: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A Python module as a command, in a copy of the course."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=course,
        env={**os.environ, "PYTHONPATH": str(course / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def generate(course: Path, root: Path) -> str:
    """Greedy text from the bundled weights, by the model that is assembled in `course`."""
    bundled = root / "src" / "gpt2" / "bundled"
    arguments = ["--prompt", "ROMEO:", "--max-new-tokens", "40", "--temperature", "0"]
    done = run(course, "gpt2", "generate", "--model", str(bundled), *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_learners_hour(course: Path, root: Path) -> None:
    """Catches a step between the skeleton and one's own piece in the GPT-2 that is broken."""
    path = PROBLEM.problem_path(course)
    model = course / "src" / "gpt2" / "model.py"
    reference, text = model.read_bytes(), generate(course, root)

    for old, new, says in MISTAKES:
        assert old in OWN
        path.write_text(OWN.replace(old, new), encoding="utf-8")
        tested = run(course, "pytest", f"problems/{PROBLEM.folder}")
        assert tested.returncode == 1
        assert says in tested.stdout
        refused = run(course, "learn_gpt2", "swap", "03")
        assert refused.returncode == 1
        assert says in refused.stdout
        assert model.read_bytes() == reference

    path.write_text(OWN, encoding="utf-8")
    tested = run(course, "pytest", f"problems/{PROBLEM.folder}")
    assert tested.returncode == 0, tested.stdout
    swapped = run(course, "learn_gpt2", "swap", "03")
    assert swapped.returncode == 0, swapped.stdout + swapped.stderr
    assembled = model.read_text(encoding="utf-8")
    for line in ("ROOT = 0.5  # a constant that the piece needs", "def scores_of(q, k):", "# mine"):
        assert line in assembled
    assert "trying it out" not in assembled
    assert generate(course, root) == text  # the same text, written by one's own attention
    assert run(course, "learn_gpt2", "swap", "--check").returncode == 1

    undone = run(course, "learn_gpt2", "swap", "--undo")
    assert undone.returncode == 0, undone.stderr
    assert model.read_bytes() == reference
    assert path.read_text(encoding="utf-8") == OWN


def test_a_forced_mistake_really_runs(course: Path, root: Path) -> None:
    """Catches a swap after which the reference's attention runs all the same."""
    path = PROBLEM.problem_path(course)
    path.write_text(OWN.replace("** ROOT", "** 2"), encoding="utf-8")
    text = generate(course, root)
    forced = run(course, "learn_gpt2", "swap", "03", "--force")
    assert forced.returncode == 0, forced.stderr
    assert "FORCED" in forced.stdout
    assert generate(course, root) != text


@pytest.mark.parametrize("arguments", [["swap", "03"], ["check", "03"], ["status"]])
def test_a_copied_checkout_works_on_its_own_files(course: Path, arguments: list[str]) -> None:
    """Catches a command that reads or writes the checkout it was installed from."""
    PROBLEM.problem_path(course).write_text("1 +", encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "learn_gpt2", *arguments],
        cwd=course,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    said = done.stdout + done.stderr
    assert "Python can't read this line" in said or "problem.py:1" in said or "in progress" in said
