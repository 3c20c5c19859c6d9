"""Dropout drawn four numbers at a time, and memory that is kept."""

from __future__ import annotations

import platform
import sys

import pytest
import torch
from small_gpt2 import prompt, tiny
from torch import nn

from gpt2.training.speed import keep_freed_memory, quick_dropout, speed_up_dropout


@pytest.mark.parametrize("p", [0.001, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1001, 203), (3, 5, 7), (2,)])
def test_a_share_p_is_dropped_and_the_rest_scaled(p: float, shape: tuple[int, ...]) -> None:
    """Catches another share, another factor, and numbers that depend on one another by fours."""
    torch.manual_seed(0)
    x = torch.full(shape, 3.0)
    y = quick_dropout(x, p)
    assert y.shape == x.shape
    kept = y != 0
    torch.testing.assert_close(y[kept], (x / (1 - p))[kept], rtol=1e-4, atol=0)
    n = x.numel()
    if n > 1000:
        share = 1 - kept.double().mean()
        assert abs(share - p) < 5 * (p * (1 - p) / n) ** 0.5
        flat = kept.flatten()[: n // 4 * 4].view(-1, 4).double()
        columns = flat.mean(0)  # each place of a word drops as often …
        assert ((columns - (1 - p)).abs() < 5 * (p * (1 - p) / (n / 4)) ** 0.5).all()
        both = (flat[:, 0] * flat[:, 3]).mean()  # … and by itself
        assert abs(both - (1 - p) ** 2) < 5 * (1 / (n / 4)) ** 0.5


def test_gradients_go_where_numbers_went() -> None:
    """Catches a second draw in the backward pass."""
    x = torch.randn(40, 50, requires_grad=True)
    y = quick_dropout(x, 0.3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, (y / x).detach(), rtol=1e-4, atol=1e-6)


def test_a_seed_repeats_it() -> None:
    """Catches random numbers from elsewhere: resumed runs would differ."""
    x = torch.ones(999)
    torch.manual_seed(3)
    first, second = quick_dropout(x, 0.5), quick_dropout(x, 0.5)
    torch.manual_seed(3)
    assert torch.equal(quick_dropout(x, 0.5), first)
    assert not torch.equal(first, second)


def test_edges() -> None:
    """Catches a division by zero at p = 1, and an empty tensor refused."""
    assert not quick_dropout(torch.ones(8), 1.0).any()
    assert quick_dropout(torch.ones(8), 1e-9).equal(torch.ones(8))
    assert quick_dropout(torch.ones(0, 4), 0.5).shape == (0, 4)


def test_in_a_model() -> None:
    """Catches dropout that stays on in eval mode, modules that are missed, other classes touched,
    and a state dict that changes.
    """
    model = tiny(n_layer=2)

    class Mine(nn.Dropout):
        pass

    model.h[0].mlp.drop = Mine(0.5).eval()
    keys, ids = list(model.state_dict()), prompt()
    with torch.no_grad():
        before = model(ids)
    plain = [module for module in model.modules() if type(module) is nn.Dropout]
    assert speed_up_dropout(model) == len(plain) > 0
    assert speed_up_dropout(model) == 0  # not twice
    assert "forward" not in model.h[0].mlp.drop.__dict__
    assert list(model.state_dict()) == keys
    with torch.no_grad():
        assert torch.equal(model(ids), before)
        model.train()
        assert not torch.equal(model(ids), before)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_can_be_kept() -> None:
    """Catches settings that the allocator refuses, where it is glibc's."""
    assert keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
