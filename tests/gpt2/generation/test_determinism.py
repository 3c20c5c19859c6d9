"""The same seed gives the same text and the same run: what docs/determinism.md promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_gpt2 import tiny
from training_helpers import make_data, settings

from gpt2.generation.generating import generate
from gpt2.inference.engine import prepare
from gpt2.training.trainer import train


def written(*options: str, threads: int) -> str:
    """What `gpt2 generate` writes with the bundled model, in a process of so many threads."""
    command = [sys.executable, "-m", "gpt2", "generate", "--prompt", "KING:", "--device", "cpu"]
    done = subprocess.run(
        [*command, "--max-new-tokens", "80", *options],
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        timeout=120,
        check=True,
    )
    return done.stdout.decode("utf-8")


@pytest.mark.parametrize(
    "options", [("--seed", "11"), ("--temperature", "0"), ("--seed", "11", "--quantize", "int8")]
)
def test_the_thread_count_changes_no_text(options: tuple[str, ...]) -> None:
    """Catches text of the bundled model that depends on how many threads OpenMP was given, and a
    seed that is not heeded.
    """
    texts = {written(*options, threads=threads) for threads in (1, 2, 4)}
    assert len(texts) == 1
    assert len(texts.pop()) > 40


def test_another_seed_gives_another_text() -> None:
    """Catches a seed that does nothing, which would pass the test above."""
    assert written("--seed", "1", threads=1) != written("--seed", "2", threads=1)


@pytest.mark.parametrize("prepared", [False, True])
def test_a_seed_is_all_that_text_depends_on(prepared: bool) -> None:
    """Catches draws from torch's global generator, and state that one text leaves for the next."""
    model = tiny(n_positions=40)
    ids = torch.tensor([[3, 1, 4]])
    if prepared:
        prepare(model)
    found = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        torch.rand(noise)
        generator = torch.Generator().manual_seed(5)
        found.append(generate(model, ids, 30, temperature=0.9, generator=generator))
    assert torch.equal(*found)


def test_a_training_run_repeats_bit_for_bit(tmp_path: Path) -> None:
    """Catches randomness in training that the seed does not decide; on one number of threads."""
    data = make_data(tmp_path)
    weights = []
    for name in ("one", "two"):
        torch.manual_seed(len(name) + ord(name[0]))
        train(settings(data), tmp_path / name)
        last = max((tmp_path / name / "checkpoints").iterdir())
        weights.append((last / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
