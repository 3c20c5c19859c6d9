"""Mistakes that recur in several problems: one family for each step of the attention.

A problem's own computation has the step as an argument: `divisor(q, c, h)` is what the scores are
divided by, `average(p, v)` what the weights make of the values.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from learn_gpt2.checking.diagnosis import Mistake, mistake


def of_the_product(hint: int) -> list[Mistake]:
    """The last product, weights @ values, done in another way."""
    return [
        mistake(
            "product-order",
            "The last product is the wrong way round: v @ weights. The weights stand on the left, "
            "one row for each query, and the values on the right: weights @ v.",
            hint,
            average=lambda p, v: v @ p,
        ),
        mistake(
            "values-transposed",
            "The values are transposed before the last product. Only the keys are; the values go "
            "in as they are.",
            hint,
            average=lambda p, v: p @ v.transpose(-2, -1),
        ),
        mistake(
            "weights-transposed",
            "The weights are transposed before they meet the values. Their rows are queries: "
            "weights @ v.",
            hint,
            average=lambda p, v: p.transpose(-2, -1) @ v,
        ),
        mistake(
            "summed-over-queries",
            "The weighted values are summed over the queries. The sum runs over the keys: output i "
            "is the sum of weight (i, j) times value j over all j.",
            hint,
            average=lambda p, v: p.sum(-2).unsqueeze(-1) * v,
        ),
        mistake(
            "values-not-mixed",
            "The weights do not reach the values: every token keeps its own value.",
            hint,
            average=lambda p, v: v,
        ),
        mistake(
            "output-scaled",
            "The heads' outputs are divided by √head_dim. The weights average the values already.",
            hint,
            average=lambda p, v: p @ v / v.size(-1) ** 0.5,
        ),
    ]


def of_the_scale(hint: int) -> list[Mistake]:
    """Scores that are divided by another number than √head_dim, or at another place."""
    numbers = [
        ("8, which is √64 and right for heads of width 64 alone", lambda q, c, h: 8.0),
        ("2·√head_dim", lambda q, c, h: 2 * q.size(-1) ** 0.5),
        ("√head_dim / 2", lambda q, c, h: q.size(-1) ** 0.5 / 2),
        ("√(2·head_dim)", lambda q, c, h: (2 * q.size(-1)) ** 0.5),
        ("2", lambda q, c, h: 2.0),
        ("the fourth root of head_dim", lambda q, c, h: q.size(-1) ** 0.25),
        ("head_dim²", lambda q, c, h: float(q.size(-1) ** 2)),
        ("n_embd", lambda q, c, h: float(c)),
        ("n_head", lambda q, c, h: float(h)),
        ("the length of the sequence", lambda q, c, h: float(q.size(-2))),
        ("√head_dim, rounded to a whole number", lambda q, c, h: float(int(q.size(-1) ** 0.5))),
        ("√768, GPT-2's width", lambda q, c, h: 768**0.5),
    ]
    return [
        mistake(
            "scale-after-softmax",
            "The weights are divided by √head_dim after the softmax, and no longer sum to 1. "
            "Divide the scores, before it.",
            hint,
            divisor=lambda q, c, h: 1.0,
            average=lambda p, v: p / v.size(-1) ** 0.5 @ v,
        ),
        *(
            mistake(
                "wrong-scale",
                f"The scores are divided by {name}. It must be √head_dim.",
                hint,
                divisor=divisor,
            )
            for name, divisor in numbers
        ),
    ]


def _other_layout(a: Tensor, h: int, sizes: Callable, take: Callable) -> list[Tensor]:
    """Query, key and value (B, T, C) from another layout of the 3C columns."""
    parts = a.view(*a.shape[:2], *sizes(h, a.size(-1) // 3 // h))
    return [take(parts, i).reshape(*a.shape[:2], -1) for i in range(3)]


def of_written_out_attention(hint: int) -> list[Mistake]:
    """What goes wrong when multi-head attention is written out again: `unpack(a, h)` makes query,
    key and value (B, T, C) of c_attn's output, `splitting(x, h)` and `merging(y)` are the heads'.
    """
    return [
        mistake(
            "qkv-per-head",
            "You read c_attn's columns head by head, each with its own q, k and v. First come all "
            "queries (C columns), then all keys, then all values.",
            hint,
            unpack=lambda a, h: _other_layout(
                a, h, lambda h, d: (h, 3, d), lambda p, i: p[:, :, :, i]
            ),
        ),
        mistake(
            "qkv-interleaved",
            "You take every third column for the queries. c_attn's first C columns are the "
            "queries, the next C the keys, the last C the values.",
            hint,
            unpack=lambda a, h: _other_layout(
                a, h, lambda h, d: (h * d, 3), lambda p, i: p[..., i]
            ),
        ),
        mistake(
            "heads-averaged",
            "The heads' outputs are averaged. Each keeps its own D columns of the output.",
            hint,
            merging=lambda y: _side_by_side(y.mean(1, keepdim=True).expand_as(y)),
        ),
        mistake(
            "heads-averaged",
            "The heads' outputs are added up. Each keeps its own D columns of the output.",
            hint,
            merging=lambda y: _side_by_side(y.sum(1, keepdim=True).expand_as(y)),
        ),
        mistake(
            "heads-interleaved",
            "The heads' columns are interleaved when they are merged. Each head's D columns lie "
            "side by side, head after head.",
            hint,
            merging=lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), y.size(2), -1),
        ),
        mistake(
            "one-head-for-all",
            "Every head works on the first head's columns. Head h owns columns h·D … (h+1)·D − 1.",
            hint,
            splitting=lambda x, h: x[..., : x.size(-1) // h].unsqueeze(1).expand(-1, h, -1, -1),
        ),
        mistake(
            "one-projection-for-all",
            "Query, key and value are all the same third of c_attn. Each has its own.",
            hint,
            share=lambda q, k, v: (q, q, q),
        ),
        mistake(
            "queries-are-keys",
            "Keys are compared with keys. Compare each query with every key.",
            hint,
            share=lambda q, k, v: (k, k, v),
        ),
        mistake(
            "softmax-over-batch",
            "Your softmax runs over the batch; it must run over the keys, the last axis.",
            hint,
            softmax=lambda s: s.softmax(0),
        ),
        mistake(
            "sigmoid",
            "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use a "
            "softmax.",
            hint,
            softmax=lambda s: s.sigmoid(),
        ),
        mistake(
            "layer-norm-added",
            "x is normalized first. The layer norm stands outside, in the block (problem 08).",
            hint,
            before=lambda x: functional.layer_norm(x, x.shape[-1:]),
        ),
        mistake(
            "scale-by-n-head",
            "The scores are divided by √n_head. The width of one query counts: √head_dim.",
            hint,
            divisor=lambda q, c, h: h**0.5,
        ),
        mistake(
            "scale-by-length",
            "The scores are divided by the root of the sequence length. It must be √head_dim.",
            hint,
            divisor=lambda q, c, h: q.size(-2) ** 0.5,
        ),
    ]


def _side_by_side(y: Tensor) -> Tensor:
    """(B, H, T, D) → (B, T, C)."""
    return y.transpose(1, 2).reshape(y.size(0), y.size(2), -1)
