"""Mistakes that recur in several problems: `KNOWN.include(of_the_scale(5, "forward"))`.

Each function takes the hint and the family of the problem's entries and gives what `include` calls.
An id that the catalog has already gets further ways.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.textbook import linear, merge, split

Included = Callable[[Catalog], None]


def _of(family: str, hint: int, *entries: tuple) -> Included:
    """Entries (id, says, *ways), added one after the other."""

    def include(catalog: Catalog) -> None:
        for id, says, *ways in entries:
            catalog.put(id, hint, says, *ways, family=family)

    return include


def of_the_product(hint: int, family: str) -> Included:
    """The last product, weights @ values, done in another way."""
    return _of(
        family,
        hint,
        (
            "product-order",
            "The last product is the wrong way round: v @ weights. The weights stand on the left, "
            "one row for each query, and the values on the right: weights @ v.",
            way(average=lambda p, v: v @ p),
        ),
        (
            "values-transposed",
            "The values are transposed before the last product. Only the keys are; the values go "
            "in as they are.",
            way(average=lambda p, v: p @ v.transpose(-2, -1)),
        ),
        (
            "weights-transposed",
            "The weights are transposed before they meet the values. Their rows are queries: "
            "weights @ v.",
            way(average=lambda p, v: p.transpose(-2, -1) @ v),
        ),
        (
            "summed-over-queries",
            "The weighted values are summed over the queries. The sum runs over the keys: output i "
            "is the sum of weight (i, j) times value j over all j.",
            way(average=lambda p, v: p.sum(-2).unsqueeze(-1) * v),
        ),
        (
            "values-not-mixed",
            "The weights do not reach the values: every token keeps its own value.",
            way(average=lambda p, v: v),
        ),
        (
            "output-scaled",
            "The heads' outputs are divided by √head_dim. The weights average the values already.",
            way(average=lambda p, v: p @ v / v.size(-1) ** 0.5),
        ),
    )


# what the scores are divided by in place of √head_dim
_NUMBERS = (
    ("8, which is √64 and right for heads of width 64 alone", lambda n: 8.0),
    ("2·√head_dim", lambda n: 2 * n.D**0.5),
    ("√head_dim / 2", lambda n: n.D**0.5 / 2),
    ("√(2·head_dim)", lambda n: (2 * n.D) ** 0.5),
    ("2", lambda n: 2.0),
    ("the fourth root of head_dim", lambda n: n.D**0.25),
    ("head_dim²", lambda n: float(n.D**2)),
    ("n_embd", lambda n: float(n.C)),
    ("n_head", lambda n: float(n.H)),
    ("the length of the sequence", lambda n: float(n.T)),
    ("√head_dim, rounded to a whole number", lambda n: float(int(n.D**0.5))),
    ("√768, GPT-2's width", lambda n: 768**0.5),
)


def of_the_scale(hint: int, family: str) -> Included:
    """Scores that are divided by another number than √head_dim, or at another place."""
    says = "The scores are divided by {}. It must be √head_dim."
    return _of(
        family,
        hint,
        (
            "scale-after-softmax",
            "The weights are divided by √head_dim after the softmax, and no longer sum to 1. "
            "Divide the scores, before it.",
            way(divisor=lambda n: 1.0, average=lambda p, v: p / v.size(-1) ** 0.5 @ v),
        ),
        (
            "wrong-scale",
            "The scores are divided by another number. It must be √head_dim.",
            *(way(says=says.format(name), divisor=divisor) for name, divisor in _NUMBERS),
        ),
    )


def of_the_order(hint: int, family: str, says: str) -> Included:
    """c_attn's thirds taken in another order. says: with a place {} for the order."""
    words = ("query", "key", "value")
    orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    taken = [", ".join(words[order.index(i)] for i in range(3)) for order in orders]
    ways = [
        way(says=says.format(name), order=order) for name, order in zip(taken, orders, strict=True)
    ]
    return _of(family, hint, ("qkv-order", says.format("another order"), *ways))


def of_one_split(hint: int, family: str) -> Included:
    """Query, key or value alone viewed straight to (B, H, T, D)."""
    says = (
        "The {} is viewed straight to (B, H, T, D), which mixes tokens and heads up. Use "
        "split_heads for all three."
    )

    def mixed_up(*which: bool) -> Callable:
        return lambda *qkv: tuple(
            merge(t).reshape(t.shape) if wrong else t for t, wrong in zip(qkv, which, strict=True)
        )

    return _of(
        family,
        hint,
        (
            "split-by-view-alone",
            says.format("query"),
            way(says=says.format("query"), by_heads=mixed_up(True, False, False)),
            way(says=says.format("key"), by_heads=mixed_up(False, True, False)),
            way(says=says.format("value"), by_heads=mixed_up(False, False, True)),
        ),
    )


def other_layout(a: Tensor, h: int, sizes: Callable, take: Callable) -> list[Tensor]:
    """Query, key and value (B, T, C) from another layout of the 3C columns: `sizes(h, d)` are the
    axes that the columns are read as, `take(parts, i)` picks the i-th of the three.
    """
    parts = a.view(*a.shape[:2], *sizes(h, a.size(-1) // 3 // h))
    return [take(parts, i).reshape(*a.shape[:2], -1) for i in range(3)]


def of_the_layouts(hint: int, family: str) -> Included:
    """c_attn's columns read in another layout."""
    return _of(
        family,
        hint,
        (
            "qkv-per-head",
            "You read c_attn's columns head by head, each with its own q, k and v. First come all "
            "queries (C columns), then all keys, then all values.",
            way(
                unpack=lambda a, h: other_layout(
                    a, h, lambda h, d: (h, 3, d), lambda p, i: p[:, :, :, i]
                )
            ),
        ),
        (
            "qkv-interleaved",
            "You take every third column for the queries. c_attn's first C columns are the "
            "queries, the next C the keys, the last C the values.",
            way(
                unpack=lambda a, h: other_layout(
                    a, h, lambda h, d: (h * d, 3), lambda p, i: p[..., i]
                )
            ),
        ),
        (
            "one-head-for-all",
            "Every head works on the first head's columns. Head h owns columns h·D … (h+1)·D − 1.",
            way(splitting=lambda x, h: split(x, h)[:, :1].expand(-1, h, -1, -1)),
        ),
    )


def of_the_shares(hint: int, family: str) -> Included:
    """One of the three taken for another."""
    return _of(
        family,
        hint,
        (
            "values-are-keys",
            "You average the keys. The weights choose among the values.",
            way(share=lambda q, k, v: (q, k, k)),
        ),
        (
            "values-are-queries",
            "You average the queries. The weights choose among the values.",
            way(share=lambda q, k, v: (q, k, q)),
        ),
        (
            "one-projection-for-all",
            "Query, key and value are all the same third of c_attn. Each has its own.",
            way(share=lambda q, k, v: (q, q, q)),
        ),
        (
            "queries-are-keys",
            "Keys are compared with keys. Compare each query with every key.",
            way(share=lambda q, k, v: (k, k, v)),
        ),
    )


def of_the_root(hint: int, family: str) -> Included:
    """√head_dim without its root, at the wrong side, or of something else."""
    return _of(
        family,
        hint,
        (
            "scale-by-d",
            "The scores are divided by head_dim; it must be its square root, once.",
            way(divisor=lambda n: n.D * 1.0),
        ),
        (
            "scale-multiplied",
            "The scores are multiplied by √head_dim instead of divided by it.",
            way(divisor=lambda n: n.D**-0.5),
        ),
        (
            "scale-by-length",
            "The scores are divided by the root of the sequence length. It must be √head_dim.",
            way(divisor=lambda n: n.T**0.5),
        ),
    )


def of_the_softmax(hint: int, family: str) -> Included:
    """Weights that are made in another way, or used in place of the output."""
    says = "Your softmax runs over the {}; it must run over the keys, the last axis."
    return _of(
        family,
        hint,
        (
            "softmax-over-queries",
            says.format("queries"),
            way(softmax=lambda s: s.softmax(-2)),
        ),
        ("softmax-over-heads", says.format("heads"), way(softmax=lambda s: s.softmax(1))),
        ("softmax-over-batch", says.format("batch"), way(softmax=lambda s: s.softmax(0))),
        (
            "no-softmax",
            "There is no softmax: the weights are raw scores.",
            way(masking=lambda s, m: s.masked_fill(~m, 0.0), softmax=lambda s: s),
        ),
        (
            "softmax-twice",
            "The softmax is applied twice. Once is enough.",
            way(softmax=lambda s: s.softmax(-1).softmax(-1)),
        ),
        (
            "weights-for-output",
            "You go on with the attention weights. ScaledDotProductAttention returns the output "
            "first, then the weights.",
            way(average=lambda p, v: p),
        ),
    )


def of_the_projection(hint: int, family: str) -> Included:
    """c_proj applied in another way."""
    return _of(
        family,
        hint,
        (
            "c-proj-twice",
            "c_proj is applied twice.",
            way(out=lambda y, w: linear(linear(y, w, "c_proj"), w, "c_proj")),
        ),
        (
            "c-proj-transposed",
            "c_proj's weight is used untransposed: nn.Linear computes x Wᵀ + b. Call the module.",
            way(out=lambda y, w: y @ w["c_proj.weight"] + w["c_proj.bias"]),
        ),
    )


def of_both_dropouts(hint: int) -> Included:
    """What checks find out about the two dropouts of multi-head attention."""
    return _of(
        "",
        hint,
        ("dropout-twice", "The output goes through dropout twice. Once is enough."),
        (
            "dropout-misplaced",
            "Dropout is not the last step, and the only one, between the heads and the output: in "
            "training each number must be 0 or 1/(1-p) times the plain one.",
        ),
        (
            "resid-dropout-missing",
            "There is no dropout on the output: resid_dropout comes last.",
        ),
        (
            "attn-dropout-on-output",
            "attn_dropout acts on the output. It is for the attention weights alone.",
        ),
        (
            "dropout-in-eval",
            "Dropout is active in eval mode. Modules follow train() and eval() by themselves; "
            "functions need training=self.training (or p = 0 in eval mode).",
        ),
    )


def of_one_dropout(hint: int) -> Included:
    """What checks find out about a module's one dropout, which is its last step."""
    return _of(
        "",
        hint,
        (
            "dropout-in-eval",
            "Dropout is active in eval mode. nn.Dropout follows train() and eval() by itself; "
            "F.dropout needs training=self.training.",
        ),
        (
            "dropout-rate",
            "Dropout does not use the `dropout` that the module was made with.",
        ),
        (
            "dropout-whole-rows",
            "Dropout takes whole vectors, or the same places in every row. Each number is dropped "
            "by itself.",
        ),
    )


def of_written_out_attention(hint: int, family: str) -> Included:
    """What goes wrong when multi-head attention is written out again."""
    return _of(
        family,
        hint,
        (
            "heads-averaged",
            "The heads' outputs are averaged. Each keeps its own D columns of the output.",
            way(merging=lambda y: merge(y.mean(1, keepdim=True).expand_as(y))),
            way(
                says="The heads' outputs are added up. Each keeps its own D columns of the output.",
                merging=lambda y: merge(y.sum(1, keepdim=True).expand_as(y)),
            ),
        ),
        (
            "heads-interleaved",
            "The heads' columns are interleaved when they are merged. Each head's D columns lie "
            "side by side, head after head.",
            way(merging=lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), y.size(2), -1)),
        ),
        (
            "sigmoid",
            "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use a "
            "softmax.",
            way(softmax=lambda s: s.sigmoid()),
        ),
        (
            "layer-norm-added",
            "x is normalized first. The layer norm stands outside, in the block (problem 08).",
            way(attn_input=lambda x: functional.layer_norm(x, x.shape[-1:])),
        ),
        (
            "scale-by-n-head",
            "The scores are divided by √n_head. The width of one query counts: √head_dim.",
            way(divisor=lambda n: n.H**0.5),
        ),
    )
