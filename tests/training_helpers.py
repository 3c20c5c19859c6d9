"""A small prepared text and small settings for the tests of training."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gpt2.data.preparing import prepare
from gpt2.training.settings import TrainConfig

SMALL = {
    "tokenizer": "char",
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 12,
    "context": 10,
    "batch_size": 2,
    "total_batch_tokens": 80,
    "dropout": 0.1,
    "max_steps": 12,
    "precision": "float32",
    "device": "cpu",
    "eval_interval": 0,
    "eval_tokens": 100,
    "sample_interval": 0,
    "checkpoint_interval": 4,
    "log_interval": 1,
    "threads": 1,
}


def make_data(folder: Path, characters: int = 3000) -> Path:
    """A prepared folder of made-up words, character by character."""
    chosen = random.Random(1)
    words = ["the", "cat", "sat", "on", "a", "mat,", "and", "then", "it", "ran."]
    text = ""
    while len(text) < characters:
        text += chosen.choice(words) + chosen.choice("   \n")
    source = folder / "text.txt"
    source.write_text(text, encoding="utf-8", newline="\n")
    return prepare(str(source), folder / "data", tokenizer="char").folder


def settings(data: Path, **changes) -> TrainConfig:
    """Small settings on that data."""
    return TrainConfig(**(SMALL | {"data": str(data)} | changes))


def command(data: Path, *more: str) -> list[str]:
    """The command line with the same settings."""
    flags = []
    for name, value in (SMALL | {"data": str(data)}).items():
        flags += [f"--{name.replace('_', '-')}", str(value)]
    return [*flags, *more]


def launcher(ranks: int) -> list[str]:
    """`torchrun` with so many processes on this machine; what they run comes behind it."""
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        pytest.skip("this PyTorch has no gloo")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*start, f"--nproc-per-node={ranks}"]


def torchrun(ranks: int, *arguments: str, timeout: float = 240) -> subprocess.CompletedProcess:
    """`torchrun -m gpt2 train` with so many processes on this machine."""
    line = [*launcher(ranks), "-m", "gpt2", "train", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=timeout)
