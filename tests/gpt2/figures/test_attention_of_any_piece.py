"""Attention weights of layers that do not call their `attention`, or call it in their own way."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.figures.attention import attention_weights
from gpt2.model import CausalMultiHeadAttention
from tests.small_gpt2 import tiny


def heads(attn: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    return tuple(map(attn.split_heads, attn.c_attn(x).chunk(3, dim=-1)))


def fused(self: nn.Module, x: Tensor, cache=None) -> Tensor:
    """PyTorch's kernel, which never holds the weights."""
    y = F.scaled_dot_product_attention(*heads(self, x), is_causal=True)
    return self.c_proj(self.merge_heads(y))


def by_hand(self: nn.Module, x: Tensor, cache=None) -> Tensor:
    """The softmax written out, as nanoGPT has it."""
    q, k, v = heads(self, x)
    scores = q @ k.mT / math.sqrt(k.size(-1))
    later = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
    y = scores.masked_fill(later, -math.inf).softmax(-1) @ v
    return self.c_proj(self.merge_heads(y))


def head_by_head(self: nn.Module, x: Tensor, cache=None) -> Tensor:
    """`attention` once for each head."""
    mask = torch.ones(x.size(1), x.size(1), dtype=torch.bool).tril()
    parts = zip(*(t.unbind(1) for t in heads(self, x)), strict=True)
    y = torch.stack([self.attention(*part, mask)[0] for part in parts], 1)
    return self.c_proj(self.merge_heads(y))


@pytest.mark.parametrize("forward", [fused, by_hand, head_by_head])
def test_weights_are_those_of_the_plain_model(forward, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a page that needs `attention` to be called, and one that shows other weights."""
    model, ids = tiny(), torch.arange(8)
    want = attention_weights(model, ids)
    monkeypatch.setattr(CausalMultiHeadAttention, "forward", forward)
    assert torch.allclose(attention_weights(model, ids), want, rtol=1e-4, atol=1e-6)
    assert all("forward" not in block.attn.__dict__ for block in model.h)
    assert all(not block.attn.attention._forward_hooks for block in model.h)


def test_weights_that_cannot_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches weights shown for an attention that computes something else."""

    def sharper(self: nn.Module, x: Tensor, cache=None) -> Tensor:
        y = F.scaled_dot_product_attention(*heads(self, x), is_causal=True, scale=3.0)
        return self.c_proj(self.merge_heads(y))

    model = tiny()
    monkeypatch.setattr(CausalMultiHeadAttention, "forward", sharper)
    with pytest.raises(ValueError, match=r"layer 0 .* cannot be told"):
        attention_weights(model, torch.arange(8))


def test_a_block_that_calls_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches layers that are watched only where the module is called."""
    from gpt2.model import TransformerBlock

    def forward(self: nn.Module, x: Tensor, cache=None) -> Tensor:
        x = x + self.attn.forward(x=self.ln_1(x), cache=cache)
        return x + self.mlp.forward(self.ln_2(x))

    model, ids = tiny(), torch.arange(8)
    want = attention_weights(model, ids)
    monkeypatch.setattr(TransformerBlock, "forward", forward)
    monkeypatch.setattr(CausalMultiHeadAttention, "forward", by_hand)
    assert torch.allclose(attention_weights(model, ids), want, rtol=1e-4, atol=1e-6)
