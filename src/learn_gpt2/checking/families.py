"""Mistakes that recur in several problems: one family for each step of the attention.

A problem's own computation has the step as an argument: `divisor(q, c, h)` is what the scores are
divided by, `average(p, v)` what the weights make of the values.
"""

from __future__ import annotations

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
