"""The arithmetic of docs/training.md is computed; its constants are what PyTorch really keeps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from small_gpt2 import tiny

from gpt2.cli import cli
from gpt2.inference.fused import fuse
from gpt2.model import GPT2Config, GPT2Model
from gpt2.training.plan import ACTIVATIONS, parameter_count, plan

ROOT = Path(__file__).resolve().parents[3]
SIZES = {"124M": GPT2Config.gpt2_small(), "1.5B": GPT2Config.gpt2_xl()}


def test_parameters_are_counted_as_they_are() -> None:
    """Catches a term left out of the count."""
    model = tiny()
    assert parameter_count(model.config) == sum(p.numel() for p in model.parameters())
    assert [parameter_count(c) for c in SIZES.values()] == [124_439_808, 1_557_611_200]


def test_the_documents_table_is_what_plan_computes() -> None:
    """Catches a table that was changed by hand, or a formula changed without it."""
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    row = r"^\| (124M|1\.5B) \| (\d+) \| (\w+) \| (\d+) \| (\d+)" + 3 * r" \| ([\d.]+)" + r" \|$"
    rows = re.findall(row, text, re.MULTILINE)
    assert len(rows) == 8
    for size, gpus, parallel, batch, accumulation, *memory in rows:
        found = plan(SIZES[size], 2**19, int(gpus), int(batch), parallel)
        assert found.accumulation == int(accumulation)
        parts = (found.state_bytes, found.activation_bytes, found.total_bytes)
        assert [f"{part / 1e9:.1f}" for part in parts] == memory
    small, large = (plan(config, 2**19, 8, 1) for config in SIZES.values())
    assert f"{small.flops_per_token / 1e9:.2f} · 10⁹ for 124M" in text
    assert f"{large.flops_per_token / 1e9:.1f} · 10⁹ for 1.5B" in text
    for found in (small, large):
        assert f"{found.days(1e10, 8, 3e14) * 24:.1f} hours for" in text


def test_activations_are_as_many_bytes_as_said() -> None:
    """Catches an estimate that is off: what autograd keeps is counted, storage by storage."""
    C, T = 128, 256

    def kept(layers: int) -> int:
        torch.manual_seed(0)
        model = GPT2Model(GPT2Config(50, T, C, layers, 4, 0.1, 0.1, 0.0)).train()
        assert fuse(model) == layers  # as `gpt2 train` runs it
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        storages: dict[int, torch.UntypedStorage] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage  # held, so that no address comes again
            return tensor

        ids = torch.randint(50, (2, T))
        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            torch.autocast("cpu", torch.bfloat16),
        ):
            F.cross_entropy(model(ids).float().flatten(0, 1), ids.flatten())
        return sum(storage.nbytes() for storage in storages.values())

    weights = 2 * 12 * C * C  # autocast's copies, which plan counts by themselves
    per_layer = (kept(3) - kept(1)) / 2 - weights
    assert per_layer / (2 * T * C) == pytest.approx(ACTIVATIONS, rel=0.03)


def test_the_command_says_what_plan_computes() -> None:
    """Catches a figure under another's name."""
    line = ["plan", "1.5B", "--gpus", "8", "--batch-size", "16", "--parallel", "fsdp"]
    output = CliRunner().invoke(cli, [*line, "--rate", "3e14"], catch_exceptions=False).output
    found = plan(SIZES["1.5B"], 2**19, 8, 16, "fsdp")
    for words in (
        "1,557,611,200 parameters",
        f"× {found.accumulation} passes × 16",
        f"{found.state_bytes / 1e9:.1f} GB weights",
        f"{found.activation_bytes / 1e9:.1f} GB activations",
        "19,073 steps",
        f"{24 * found.days(1e10, 8, 3e14):.1f} hours",
    ):
        assert words in output


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """Catches an accumulation rounded down."""
    with pytest.raises(ValueError, match="8 GPUs × 5"):
        plan(GPT2Config(), 2**19, 8, 5)
