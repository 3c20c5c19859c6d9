"""float16 and bfloat16: where numbers are converted, and that sums are kept in float32.

u is a type's unit roundoff, half its eps: rounding a number to it is off by at most u of its size.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from small_gpt2 import ROOT, prompt, tiny
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.formats.checkpoints import save_pretrained
from gpt2.generation.generating import filter_logits, prefill
from gpt2.inference.fused import FusedAttention
from gpt2.model import GPT2Model, LayerNorm, ScaledDotProductAttention
from gpt2.validation import oracle
from gpt2.validation.stages import validate

BUNDLED = ROOT / "src" / "gpt2" / "bundled"
HALVES = [torch.float16, torch.bfloat16]
halves = pytest.mark.parametrize("dtype", HALVES, ids=["float16", "bfloat16"])


def unit(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def sum_in_half(x: Tensor) -> Tensor:
    """The last axis added up one by one, each partial sum rounded: what must not happen."""
    total = torch.zeros_like(x[..., :1])
    for i in range(x.size(-1)):
        total = total + x[..., i : i + 1]
    return total


def norm_in_half(x: Tensor, norm: LayerNorm) -> Tensor:
    mean = sum_in_half(x) / x.size(-1)
    variance = sum_in_half((x - mean) ** 2) / x.size(-1)
    return (x - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def softmax_in_half(scores: Tensor) -> Tensor:
    exponentials = (scores - scores.amax(-1, keepdim=True)).exp()
    return exponentials / sum_in_half(exponentials)


# --------------------------------------------------------------------------------- float32 inside


def norm_is_exact(compute: Callable[[Tensor, LayerNorm], Tensor], dtype: torch.dtype) -> bool:
    """Is a norm right up to the rounding of its result, on rows far from zero (their mean is 30
    standard deviations)?
    """
    torch.manual_seed(0)
    norm = LayerNorm(768).to(dtype)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
        x = (torch.randn(40, 768) + 30).to(dtype)
        got = compute(x, norm).double()
        wide = x.double()
        y = (wide - wide.mean(-1, keepdim=True)) / (
            wide.var(-1, keepdim=True, correction=0) + norm.eps
        ).sqrt()
        want = y * norm.weight.double() + norm.bias.double()
    # the result rounded once; and float32's own: a sum of C terms about 30 in size, √C of them
    # rounded by 2⁻²⁴, seen through the weight
    allowed = unit(dtype) * want.abs() + 8 * 30 * math.sqrt(768) * 2**-24 * norm.weight.abs()
    return bool(((got - want).abs() <= allowed).all())


@halves
def test_a_norm_adds_up_in_float32(dtype: torch.dtype) -> None:
    """Catches a norm whose mean or variance is accumulated in half precision; that the bound sees
    one is shown too.
    """
    assert norm_is_exact(lambda x, norm: norm(x), dtype)
    assert not norm_is_exact(norm_in_half, dtype)


def softmax_is_exact(compute: Callable[[Tensor], Tensor], dtype: torch.dtype) -> bool:
    """Is a softmax over 3,000 keys right up to the rounding of its result?"""
    torch.manual_seed(0)
    scores = torch.randn(5, 3000).to(dtype)
    want = scores.double().softmax(-1)
    # or, for a weight below the type's normal numbers, half of the smallest step
    smallest = torch.finfo(dtype).smallest_normal * unit(dtype)
    allowed = (unit(dtype) + 2**-20) * want + smallest
    return bool(((compute(scores).double() - want).abs() <= allowed).all())


@halves
def test_a_softmax_adds_up_in_float32(dtype: torch.dtype) -> None:
    """Catches a softmax whose sum is rounded on the way."""
    assert softmax_is_exact(lambda scores: torch.softmax(scores, -1), dtype)
    assert not softmax_is_exact(softmax_in_half, dtype)


def attention_is_exact(
    compute: Callable[..., Tensor], dtype: torch.dtype, T: int, S: int, masked: bool
) -> bool:
    """Is attention right up to two roundings, of the weights and of the result? Values are all
    positive, so that nothing cancels.
    """
    torch.manual_seed(1)
    q, k = torch.randn(1, 2, T, 64).to(dtype), torch.randn(1, 2, S, 64).to(dtype)
    v = torch.rand(1, 2, S, 64).to(dtype)
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T) if masked else None
    scores = q.double() @ k.double().transpose(-2, -1) / 8
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf)
    want = scores.softmax(-1) @ v.double()
    return bool(((compute(q, k, v, mask).double() - want).abs() <= 2 * unit(dtype) * want).all())


@halves
@pytest.mark.parametrize(
    ("T", "S", "masked"), [(1, 2500, False), (3, 2500, True), (400, 400, True)]
)
def test_fused_attention_adds_up_in_float32(
    dtype: torch.dtype, T: int, S: int, masked: bool
) -> None:
    """Catches a fused kernel that rounds scores, exponentials' sum or the weighted sum of values on
    the way: a step with the cache, a piece of a prompt, a whole prompt.
    """
    fused = FusedAttention(ScaledDotProductAttention(64, 0.0).eval())
    assert attention_is_exact(lambda *inputs: fused(*inputs)[0], dtype, T, S, masked)


@halves
def test_attention_that_adds_up_in_half_is_seen(dtype: torch.dtype) -> None:
    """Catches a bound that could not fail."""

    def compute(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        return softmax_in_half(q @ k.transpose(-2, -1) / 8) @ v

    assert not attention_is_exact(compute, dtype, 1, 2500, False)


def test_validation_sees_a_norm_in_half_precision() -> None:
    """Catches tolerances of half precision that a fault of half precision alone fits into: in
    float32 this norm is right. (float16 adds the bundled model's 192 numbers up well enough.)
    """
    model = GPT2Model.from_pretrained(BUNDLED, dtype=torch.bfloat16)
    reference = oracle.read_stored(BUNDLED)
    for module in model.modules():
        if isinstance(module, LayerNorm):
            module.__dict__["forward"] = Half(module)
    failed = [result for result in validate(model, reference) if result.state == "failed"]
    # by more than the mean of a few draws may be off: seen, and not by luck
    assert any(result.difference > 1.1 * result.tolerance for result in failed)


class Half:
    """A norm's forward that goes with its module when that is copied."""

    def __init__(self, norm: LayerNorm):
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        return norm_in_half(x, self.norm)


# --------------------------------------------------------------------------------- the conversions


@halves
def test_where_numbers_are_converted(tmp_path, dtype: torch.dtype) -> None:
    """Catches a conversion left out or doubled: the weights when they are loaded, the embeddings on
    their way into the blocks, and what attention reads, cache included; logits are sampled in
    float32.
    """
    folder = save_pretrained(tiny(), tmp_path / "m")
    model = GPT2Model.from_pretrained(folder, dtype=dtype)
    for (name, half), (_, full) in zip(
        model.named_parameters(), tiny().named_parameters(), strict=True
    ):
        assert torch.equal(half, full.to(dtype)), name
    seen: dict[str, Tensor] = {}
    model.h[0].register_forward_pre_hook(lambda m, inputs: seen.update(blocks=inputs[0]))
    model.h[0].attn.register_forward_pre_hook(lambda m, inputs: seen.update(attention=inputs[0]))
    cache = KVCache(model.config, 2, dtype=dtype)
    logits = prefill(model, prompt(), cache)
    embedded = (
        model.embeddings.wte.weight[prompt()].float() + model.embeddings.wpe.weight[:7].float()
    ).to(dtype)
    assert torch.equal(seen["blocks"], embedded)  # added in float32, rounded once
    assert seen["attention"].dtype == cache.layers[0].keys.dtype == logits.dtype == dtype
    assert filter_logits(logits, temperature=0.7).dtype == torch.float32
