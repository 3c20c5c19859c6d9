"""Checks of problem 04. The oracle is PyTorch's own nn.MultiheadAttention."""

import inspect
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.checks import (
    attribute,
    check,
    compare,
    expect_copies,
    expect_dropout,
    expect_error,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
    expect_no_memory,
    expect_one_device,
    expect_own_start,
    expect_signature,
    expect_state,
    fail,
    fill,
    mistake,
    operations,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.families import of_the_product, of_the_scale

# Sizes that all differ, so that a swapped axis can't hide; H is not 3, the number of q, k and v, and
# no root of a size is a whole number, so that 2·√D is not √C.
B, T, H, D = sizes_from((2, 7, 5, 6), (3, 5, 4, 7), (2, 8, 3, 10))
C = H * D
NAMES = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")


# ── the computation, each step replaceable ──────────────────────────────────────────────────────


def split(x, h):
    """(B, T, C) → (B, H, T, D)."""
    return x.view(x.size(0), x.size(1), h, x.size(-1) // h).transpose(1, 2)


def merge(y):
    """(B, H, T, D) → (B, T, C)."""
    return y.transpose(1, 2).reshape(y.size(0), y.size(2), -1)


def multi_head(
    x,
    w,
    h,
    *,
    into=lambda x, w: F.linear(x, w["c_attn.weight"], w["c_attn.bias"]),
    unpack=lambda a, h: a.chunk(3, -1),
    order=(0, 1, 2),
    share=lambda q, k, v: (q, k, v),
    splitting=split,
    scores=lambda q, k: q @ k.transpose(-2, -1),
    divisor=lambda q, c, h: q.size(-1) ** 0.5,
    masking=lambda s: s,
    softmax=lambda s: s.softmax(-1),
    average=lambda p, v: p @ v,
    merging=merge,
    out=lambda y, w: F.linear(y, w["c_proj.weight"], w["c_proj.bias"]),
    last=lambda y, x: y,
):
    """Multi-head attention with any step replaced: (B, T, C) → (B, T, C)."""
    q, k, v = unpack(into(x, w), h)
    q, k, v = share(*((q, k, v)[i] for i in order))
    q, k, v = (splitting(t, h) for t in (q, k, v))
    s = masking(scores(q, k) / divisor(q, x.size(-1), h))
    return last(out(merging(average(softmax(s), v)), w), x)


def one_way(x, h, view, take):
    """Query, key and value from another layout of the 3C columns."""
    parts = x.view(*x.shape[:2], *view(h, x.size(-1) // 3 // h))
    return [take(parts, i).reshape(*x.shape[:2], -1) for i in range(3)]


# ── mistakes ────────────────────────────────────────────────────────────────────────────────────

NO_ERROR = mistake(
    "indivisible-accepted",
    "A width that the heads can't share out evenly must be refused with a ValueError.",
    1,
)
DIVISIBLE_REFUSED = mistake(
    "divisible-refused",
    "A width that n_head divides is refused: the test is whether n_embd % n_head is not 0.",
    1,
)
N_HEAD = mistake("wrong-n-head", "n_head is not the number of heads that was asked for.", 1)
HEAD_DIM = mistake(
    "wrong-head-dim", "head_dim is the width of one head, n_embd // n_head, a whole number.", 1
)
C_ATTN = mistake(
    "wrong-c-attn",
    "c_attn makes query, key and value in one go: nn.Linear from n_embd to 3 · n_embd.",
    2,
)
C_PROJ = mistake("wrong-c-proj", "c_proj maps the merged heads back: n_embd to n_embd.", 2)
NO_BIAS = mistake("bias-missing", "A bias is missing: GPT-2's c_attn and c_proj both have one.", 2)
RESID_P = mistake(
    "resid-dropout-rate",
    "resid_dropout's p must be the argument `dropout`.",
    7,
)

SPLIT = [
    mistake(
        "split-by-view-alone",
        "split_heads views straight to (B, H, T, D): that gives the right shape and hands a head "
        "pieces of several tokens. View to (B, T, H, D), then swap T and H.",
        3,
        splitting=lambda x, h: x.reshape(x.size(0), h, x.size(1), -1),
    ),
    mistake(
        "split-not-transposed",
        "split_heads leaves T ahead of H. Attention works on the last two axes, so each head's "
        "(T, D) must stand there: swap axes 1 and 2.",
        3,
        splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1),
    ),
    mistake(
        "heads-interleaved",
        "split_heads gives head h every n_head-th column. It must get D columns in a row, "
        "h·D … (h+1)·D − 1, as in GPT-2's weights.",
        3,
        splitting=lambda x, h: x.reshape(*x.shape[:2], -1, h).permute(0, 3, 1, 2),
    ),
    mistake(
        "split-last-axes-swapped",
        "split_heads gives (B, H, D, T). The last axes must be T, D: only T and H change places.",
        3,
        splitting=lambda x, h: split(x, h).transpose(-2, -1),
    ),
    mistake(
        "split-sizes-swapped",
        "split_heads makes head_dim heads of width n_head. View to (…, n_head, head_dim).",
        3,
        splitting=lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(1, 2),
    ),
    mistake(
        "split-axes-permuted",
        "split_heads swaps other axes than T and H. From (B, T, H, D), swap axes 1 and 2.",
        3,
        splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1).transpose(0, 2),
    ),
    mistake(
        "split-axes-permuted",
        "split_heads moves H to the front: (H, B, T, D). The batch stays first.",
        3,
        splitting=lambda x, h: split(x, h).transpose(0, 1),
    ),
    mistake(
        "split-axes-permuted",
        "split_heads swaps other axes than T and H. From (B, T, H, D), swap axes 1 and 2.",
        3,
        splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1).transpose(1, 3),
    ),
    mistake(
        "heads-in-batch",
        "split_heads folds the heads into the batch axis: (B·H, T, D). Keep four axes.",
        3,
        splitting=lambda x, h: split(x, h).flatten(0, 1),
    ),
    mistake(
        "heads-reversed",
        "split_heads hands out the right columns in reverse order of heads.",
        3,
        splitting=lambda x, h: split(x, h).flip(1),
    ),
]
SPLIT += [
    mistake(
        "split-across-tokens",
        "split_heads reads the numbers in an order that mixes tokens up: a head gets pieces of "
        "several tokens. View to (B, T, H, D), so that each token stays whole, then swap T and H.",
        3,
        general=True,
        splitting=lambda x, h, order=order, first=first: _laid_out(
            x.transpose(1, 2) if first else x, h, order
        ),
    )
    for first in (False, True)
    for order in itertools.permutations("THD")
    if (order, first) != (("T", "H", "D"), False)
]


def _laid_out(x, h, order):
    """x's numbers read as axes in this order, brought to (B, H, T, D)."""
    b, c = x.size(0), max(x.shape[1:])  # C > T wherever this is used
    t = x[0].numel() // c
    sizes = {"T": t, "H": h, "D": c // h}
    y = x.reshape(b, *(sizes[axis] for axis in order))
    return y.permute(0, *(1 + order.index(axis) for axis in "HTD"))


MERGE = [
    mistake(
        "merge-not-transposed",
        "merge_heads flattens (B, H, T, D) as it lies: rows of several heads and tokens get mixed "
        "up. Bring T back in front of H first, then flatten H and D.",
        4,
        merging=lambda y: y.reshape(y.size(0), y.size(2), -1),
    ),
    mistake(
        "heads-interleaved",
        "merge_heads interleaves the heads' columns: D ahead of H. Each head's D columns must lie "
        "side by side, head after head.",
        4,
        merging=lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), y.size(2), -1),
    ),
    mistake(
        "merge-not-flattened",
        "merge_heads stops at (B, T, H, D). The last two axes must become one of width C.",
        4,
        merging=lambda y: y.transpose(1, 2),
    ),
    mistake(
        "merge-axes-permuted",
        "merge_heads swaps the wrong axes. From (B, H, T, D), swap H and T (axes 1 and 2), then "
        "flatten the last two.",
        4,
        merging=lambda y: y.transpose(-2, -1).reshape(y.size(0), y.size(2), -1),
    ),
    mistake(
        "merge-axes-permuted",
        "merge_heads swaps the wrong axes. From (B, H, T, D), swap H and T (axes 1 and 2), then "
        "flatten the last two.",
        4,
        merging=lambda y: y.transpose(1, 3).reshape(y.size(0), y.size(2), -1),
    ),
    mistake(
        "merge-axes-permuted",
        "merge_heads swaps the wrong axes. From (B, H, T, D), swap H and T (axes 1 and 2), then "
        "flatten the last two.",
        4,
        merging=lambda y: y.permute(2, 0, 1, 3).reshape(y.size(0), y.size(2), -1),
    ),
    mistake(
        "merge-adds-heads",
        "merge_heads adds the heads up. They lie side by side in the stream: n_head · head_dim = C.",
        4,
        merging=lambda y: y.sum(1),
    ),
    mistake(
        "merge-averages-heads",
        "merge_heads gives each head's columns the mean of all heads. Every head keeps its own D "
        "columns, side by side.",
        4,
        merging=lambda y: merge(y.mean(1, keepdim=True).expand_as(y)),
    ),
    mistake(
        "merge-averages-heads",
        "merge_heads averages the heads. They lie side by side in the stream: n_head · head_dim = C.",
        4,
        merging=lambda y: y.mean(1),
    ),
    mistake(
        "heads-reversed",
        "merge_heads puts the heads back in reverse order.",
        4,
        merging=lambda y: merge(y.flip(1)),
    ),
]
MERGE += [
    mistake(
        "merge-axes-permuted",
        "merge_heads brings the axes into the wrong order before it flattens. From (B, H, T, D), "
        "swap H and T (axes 1 and 2), then flatten the last two.",
        4,
        general=True,
        merging=lambda y, order=order: y.permute(order).reshape(y.size(0), y.size(2), -1),
    )
    for order in itertools.permutations(range(4))
    if order != (0, 2, 1, 3)
]
WORDS = ("query", "key", "value")
ORDERS = [
    mistake(
        "qkv-order",
        f"You take c_attn's thirds as {', '.join(WORDS[order.index(i)] for i in range(3))} (or pass "
        "them on in another order). It is query, key, value.",
        5,
        order=order,
    )
    for order in ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
]


def _first_three(pieces):
    """Exactly three: unpacking raises what it raises for the learner."""
    q, k, v = pieces
    return q, k, v


def _strictly_split(x, h):
    """Split heads of the right width, or raise what view raises for the learner."""
    x.view(*x.shape[:2], h, D)
    return x


_OTHER_AXIS = (
    "You cut c_attn's output along axis {}. Query, key and value lie side by side in the last "
    "axis: dim=-1."
)
_SIZES = (
    "Tensor.split takes the size of a piece, chunk takes their number: cut c_attn's output into "
    "pieces of n_embd columns."
)
CUTS = [
    ("chunk-wrong-axis", _OTHER_AXIS.format("1, the tokens"), lambda a, h: a.chunk(3, 1)),
    ("chunk-wrong-axis", _OTHER_AXIS.format("0, the batch"), lambda a, h: a.chunk(3, 0)),
    ("split-takes-sizes", _SIZES, lambda a, h: a.split(3, -1)),
    ("split-takes-sizes", _SIZES, lambda a, h: a.split(h, -1)),
    ("split-takes-sizes", _SIZES, lambda a, h: a.split(D, -1)),
    (
        "chunk-wrong-number",
        "c_attn's output is cut into n_head pieces; it holds three: query, key and value.",
        lambda a, h: a.chunk(h, -1),
    ),
]
UNPACKING = [
    mistake(
        "qkv-per-head",
        "You read c_attn's columns head by head, each with its own q, k and v. First come all "
        "queries (C columns), then all keys, then all values.",
        5,
        unpack=lambda a, h: one_way(a, h, lambda h, d: (h, 3, d), lambda p, i: p[:, :, :, i]),
    ),
    mistake(
        "qkv-interleaved",
        "You take every third column for the queries. c_attn's first C columns are the queries, the "
        "next C the keys, the last C the values.",
        5,
        unpack=lambda a, h: one_way(a, h, lambda h, d: (h * d, 3), lambda p, i: p[..., i]),
    ),
    mistake(
        "qkv-interleaved",
        "You take c_attn's columns apart as (head_dim, 3, …). The first C columns are the queries, "
        "the next C the keys, the last C the values, each head by head.",
        5,
        unpack=lambda a, h: one_way(
            a, h, lambda h, d: (d, 3, h), lambda p, i: p[:, :, :, i].transpose(-2, -1)
        ),
    ),
    mistake(
        "heads-interleaved",
        "You take each third apart as (head_dim, n_head). Head h owns columns h·D … (h+1)·D − 1.",
        5,
        unpack=lambda a, h: one_way(
            a, h, lambda h, d: (3, d, h), lambda p, i: p[:, :, i].transpose(-2, -1)
        ),
    ),
    *(
        mistake(id, says, 5, unpack=unpack)
        for id, says, cut in CUTS
        for unpack in (
            lambda a, h, cut=cut: _first_three(cut(a, h)),
            lambda a, h, cut=cut: _first_three(_strictly_split(t, h) for t in cut(a, h)),
        )
    ),
]
SHARED = [
    mistake(
        "values-are-keys",
        "You average the keys. The weights choose among the values.",
        5,
        share=lambda q, k, v: (q, k, k),
    ),
    mistake(
        "values-are-queries",
        "You average the queries. The weights choose among the values.",
        5,
        share=lambda q, k, v: (q, k, q),
    ),
    mistake(
        "keys-are-queries",
        "Queries are compared with queries. Compare each query with every key.",
        5,
        share=lambda q, k, v: (q, q, v),
    ),
    mistake(
        "queries-are-keys",
        "Keys are compared with keys. Compare each query with every key.",
        5,
        share=lambda q, k, v: (k, k, v),
    ),
    mistake(
        "one-projection-for-all",
        "Query, key and value are all the same third of c_attn. Each has its own.",
        5,
        share=lambda q, k, v: (q, q, q),
    ),
    mistake(
        "one-projection-for-all",
        "Query, key and value are all the same third of c_attn. Each has its own.",
        5,
        share=lambda q, k, v: (v, v, v),
    ),
]
HEADS = [
    mistake(
        "attends-across-heads",
        "T and H are not swapped before the attention, so a token's heads attend to one another "
        "and tokens never meet. Split the heads: (B, T, C) → (B, H, T, D).",
        5,
        splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1),
        merging=lambda y: y.flatten(2),
    ),
    mistake(
        "heads-not-split",
        "There is one head of width n_embd: split q, k and v into n_head heads before the "
        "attention.",
        5,
        splitting=lambda x, h: x[:, None],
    ),
    mistake(
        "heads-not-split",
        "There is one head of width n_embd: split q, k and v into n_head heads before the "
        "attention.",
        5,
        splitting=lambda x, h: x[:, None],
        divisor=lambda q, c, h: (c // h) ** 0.5,
    ),
    mistake(
        "one-head-for-all",
        "Every head works on the first head's columns. Head h owns columns h·D … (h+1)·D − 1.",
        5,
        splitting=lambda x, h: split(x, h)[:, :1].expand(-1, h, -1, -1),
    ),
]
HEADS += [
    mistake(
        "heads-averaged",
        "The heads' outputs are averaged or added. Each keeps its own D columns of the output.",
        5,
        merging=lambda y, how=how: merge(how(y).expand_as(y)),
    )
    for how in (lambda y: y.mean(1, keepdim=True), lambda y: y.sum(1, keepdim=True))
]
SCALE = [
    mistake(
        "scale-by-n-embd",
        "The scores are divided by √n_embd. A query is one head wide: give "
        "ScaledDotProductAttention head_dim, and it divides by √head_dim.",
        2,
        divisor=lambda q, c, h: c**0.5,
    ),
    mistake(
        "no-scale",
        "The scores are not scaled: divide them by √head_dim (ScaledDotProductAttention does).",
        5,
        divisor=lambda q, c, h: 1.0,
    ),
    mistake(
        "scale-by-d",
        "The scores are divided by head_dim; it must be its square root, once.",
        5,
        divisor=lambda q, c, h: q.size(-1) * 1.0,
    ),
    mistake(
        "scale-by-n-head",
        "The scores are divided by √n_head. The width of one query counts: √head_dim.",
        2,
        divisor=lambda q, c, h: h**0.5,
    ),
    mistake(
        "scale-multiplied",
        "The scores are multiplied by √head_dim instead of divided by it.",
        5,
        divisor=lambda q, c, h: q.size(-1) ** -0.5,
    ),
    mistake(
        "scale-by-length",
        "The scores are divided by the root of the sequence length. It must be √head_dim.",
        5,
        divisor=lambda q, c, h: q.size(-2) ** 0.5,
    ),
    mistake(
        "scale-by-c-attn",
        "The scores are divided by √(3 · n_embd). It must be √head_dim.",
        2,
        divisor=lambda q, c, h: (3 * c) ** 0.5,
    ),
    mistake(
        "scale-by-n-embd",
        "The scores are divided by √head_dim and √n_embd. Once by √head_dim is right.",
        2,
        divisor=lambda q, c, h: (c * q.size(-1)) ** 0.5,
    ),
]
SOFTMAX = [
    mistake(
        "softmax-over-queries",
        "Your softmax runs over the queries; it must run over the keys, the last axis.",
        5,
        softmax=lambda s: s.softmax(-2),
    ),
    mistake(
        "softmax-over-heads",
        "Your softmax runs over the heads; it must run over the keys, the last axis.",
        5,
        softmax=lambda s: s.softmax(1),
    ),
    mistake(
        "softmax-over-batch",
        "Your softmax runs over the batch; it must run over the keys, the last axis.",
        5,
        softmax=lambda s: s.softmax(0),
    ),
    mistake(
        "no-softmax",
        "There is no softmax: the weights are raw scores.",
        5,
        softmax=lambda s: s,
    ),
    mistake(
        "softmax-twice",
        "The softmax is applied twice. Once is enough.",
        5,
        softmax=lambda s: s.softmax(-1).softmax(-1),
    ),
    mistake(
        "weights-for-output",
        "You go on with the attention weights. ScaledDotProductAttention returns the output first, "
        "then the weights.",
        5,
        average=lambda p, v: p,
    ),
    mistake(
        "scores-transposed",
        "The scores are transposed: rows must be queries and columns keys.",
        5,
        scores=lambda q, k: k @ q.transpose(-2, -1),
    ),
    mistake(
        "causal-too-early",
        "Your attention is causal. That comes in problem 05; here every token sees every other.",
        5,
        masking=lambda s: s.masked_fill(
            torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), -torch.inf
        ),
    ),
]
OUT = [
    mistake(
        "c-proj-missing",
        "c_proj is never applied. It mixes what the heads found: without it they can't speak to "
        "one another.",
        6,
        out=lambda y, w: y,
    ),
    mistake(
        "c-proj-twice",
        "c_proj is applied twice.",
        6,
        out=lambda y, w: F.linear(
            F.linear(y, w["c_proj.weight"], w["c_proj.bias"]), w["c_proj.weight"], w["c_proj.bias"]
        ),
    ),
    mistake(
        "c-proj-transposed",
        "c_proj's weight is used untransposed: nn.Linear computes x Wᵀ + b. Call the module.",
        6,
        out=lambda y, w: y @ w["c_proj.weight"] + w["c_proj.bias"],
    ),
    mistake(
        "bias-missing",
        "c_proj's bias is not added.",
        6,
        out=lambda y, w: F.linear(y, w["c_proj.weight"]),
    ),
    mistake(
        "bias-missing",
        "c_attn's bias is not added.",
        5,
        into=lambda x, w: F.linear(x, w["c_attn.weight"]),
    ),
    mistake(
        "residual-added",
        "You add the input to the output. The residual is problem 07's; return what c_proj gives.",
        6,
        last=lambda y, x: y + x,
    ),
    mistake(
        "activation-added",
        "There is an activation after c_proj. Attention ends with a plain linear map.",
        6,
        out=lambda y, w: F.gelu(F.linear(y, w["c_proj.weight"], w["c_proj.bias"])),
    ),
    mistake(
        "activation-added",
        "There is an activation after c_proj. Attention ends with a plain linear map.",
        6,
        out=lambda y, w: F.linear(y, w["c_proj.weight"], w["c_proj.bias"]).relu(),
    ),
]
SPLIT_ONE = [
    mistake(
        "split-by-view-alone",
        f"The {word} is viewed straight to (B, H, T, D), which mixes tokens and heads up. Use "
        "split_heads for all three.",
        5,
        share=lambda q, k, v, i=i: tuple(
            _mixed_up(t) if i == j else t for j, t in enumerate((q, k, v))
        ),
    )
    for i, word in enumerate(WORDS)
]
BEFORE = [
    mistake(
        "cosine-scores",
        "Queries and keys are brought to length 1. A score is their plain product, over √head_dim.",
        5,
        scores=lambda q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT,
    ),
    mistake(
        "layer-norm-added",
        "x is normalized first. The layer norm stands outside, in the block (problem 08).",
        5,
        into=lambda x, w: F.linear(
            F.layer_norm(x, x.shape[-1:]), w["c_attn.weight"], w["c_attn.bias"]
        ),
    ),
    *(
        mistake(
            "activation-added",
            "There is an activation before c_proj. Attention has none but the softmax.",
            6,
            out=lambda y, w, bend=bend: F.linear(bend(y), w["c_proj.weight"], w["c_proj.bias"]),
        )
        for bend in (torch.relu, torch.tanh, lambda y: F.gelu(y, approximate="tanh"))
    ),
]


def _mixed_up(t):
    """What split_heads must be given to return t.reshape(B, H, T, D)."""
    return merge(t.reshape(t.size(0), H, t.size(1), -1)) if t.size(-1) % H == 0 else t


MISTAKES = [
    *ORDERS,
    *SCALE,
    *of_the_scale(5),
    *of_the_product(5),
    *SPLIT[:3],
    *MERGE[:2],
    *HEADS,
    *UNPACKING,
    *OUT,
    *SHARED,
    *SOFTMAX,
    *SPLIT_ONE,
    *BEFORE,
]

LOOP = mistake(
    "heads-in-a-loop",
    "The heads are computed one after the other: more of them take more operations. A matrix product "
    "treats all axes before the last two as a batch, so one call does for all heads.",
    5,
)
SIZE_FIXED = mistake(
    "size-hard-coded",
    "A size is written into the code: it works for one shape and not for another. Take sizes from "
    "x.shape, n_head and head_dim.",
    3,
)
MISPLACED = mistake(
    "dropout-misplaced",
    "Dropout is not the last step, and the only one, between the heads and the output: in training "
    "each number must be 0 or 1/(1-p) times the plain one.",
    7,
)
TWICE = mistake("dropout-twice", "The output goes through dropout twice. Once is enough.", 7)
WHOLE_TOKENS = mistake(
    "dropout-whole-tokens",
    "Dropout hits whole tokens or columns at once. nn.Dropout drops single numbers.",
    7,
)
ON_SCORES = mistake(
    "attn-dropout-on-scores",
    "attn_dropout acts before the softmax (on scores, queries or keys), where a dropped 0 still has "
    "weight. It belongs on the weights.",
    7,
)
RESID_MISSING = mistake(
    "resid-dropout-missing", "There is no dropout on the output: resid_dropout comes last.", 7
)
BEFORE_PROJ = mistake(
    "dropout-before-c-proj",
    "Dropout stands before c_proj; it is the last step, after c_proj.",
    7,
)
SWAPPED = mistake(
    "dropouts-swapped",
    "The two dropouts are swapped: `dropout` is for the output, `attn_dropout` for the weights.",
    7,
)
ATTN_FOR_BOTH = mistake(
    "attn-dropout-on-output",
    "attn_dropout acts on the output. It is for the attention weights alone.",
    7,
)
ATTN_IGNORED = mistake(
    "attn-dropout-ignored",
    "attn_dropout has no effect: the attention weights are dropped with p = dropout. None means "
    "the same as dropout; any number is its own.",
    7,
)
ATTN_MISSING = mistake(
    "attn-dropout-missing",
    "There is no dropout on the attention weights: give ScaledDotProductAttention its p.",
    7,
)
INNER_WIDTH = mistake(
    "inner-attention-width",
    "`attention` is made for another width than one head's, n_embd // n_head. Your forward does not "
    "call it, and problem 05 inherits it and may.",
    2,
)
INNER_DROPOUT = mistake(
    "inner-attention-dropout",
    "`attention` is made with another dropout than attn_dropout (or, where that is None, dropout). "
    "Your forward does not call it, and problem 05 inherits it and may.",
    2,
)
ATTN_ZERO = mistake(
    "attn-dropout-zero-ignored",
    "attn_dropout=0.0 is taken for “not given” (0.0 is false in `attn_dropout or dropout`): ask "
    "whether it is None.",
    7,
)
ATTN_NONE = mistake(
    "attn-dropout-none-ignored",
    "With attn_dropout=None the weights must be dropped with p = dropout; here they are not.",
    7,
)
ATTN_RATE = mistake(
    "attn-dropout-rate",
    "The attention weights are dropped with another p than asked for.",
    7,
)
ATTN_ON_OUTPUT = mistake(
    "attn-dropout-on-values",
    "attn_dropout acts on single numbers of the heads' output. It belongs on the weights, where "
    "dropping one hides a whole token from a head.",
    7,
)
IN_EVAL = mistake(
    "dropout-in-eval",
    "Dropout is active in eval mode. Modules follow train() and eval() by themselves; functions "
    "need training=self.training (or p = 0 in eval mode).",
    7,
)


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def module_of(piece, n_embd=C, n_head=H, dropout=0.1, attn_dropout=None, seed=0):
    """A module in eval mode with random weights and biases."""
    made = piece.MultiHeadAttention(n_embd, n_head, dropout, attn_dropout)
    return fill(made, seed).eval()


def stream(b=B, t=T, c=C, seed=0, dtype=torch.float32):
    """Random x (b, t, c)."""
    g = torch.Generator().manual_seed(100 + seed)
    return torch.randn(b, t, c, generator=g).to(dtype)


def oracle(w, h):
    """PyTorch's own multi-head attention with these weights."""
    c = w["c_proj.bias"].numel()
    theirs = nn.MultiheadAttention(c, h, batch_first=True).to(w["c_proj.bias"].dtype)
    theirs.load_state_dict(
        {
            "in_proj_weight": w["c_attn.weight"],
            "in_proj_bias": w["c_attn.bias"],
            "out_proj.weight": w["c_proj.weight"],
            "out_proj.bias": w["c_proj.bias"],
        }
    )
    theirs.eval()
    return theirs, lambda x: theirs(x, x, x, need_weights=False)[0]


def examine(module, x, h, **tolerance):
    """Compare forward with PyTorch's on the same weights."""
    w = weights(module)
    with torch.no_grad():
        want = oracle(w, h)[1](x)
    return compare(
        lambda: module(x),
        want,
        MISTAKES,
        lambda **switches: multi_head(x, w, h, **switches),
        axes="B T C",
        sizes={"head_dim": x.size(-1) // h, "n_embd": x.size(-1), "n_head": h},
        given=(x,),
        **tolerance,
    )


PRODUCTS = ("matmul", "mm", "bmm", "baddbmm", "einsum", "linear", "softmax", "scaled_dot_product")


def method(module, name):
    """A method of the module, when it has it."""
    if not callable(getattr(module, name, None)):
        fail(
            f"{type(module).__name__} has no method `{name}`: problem 05 calls it. [missing-method]"
        )
    return getattr(module, name)


def sized(run, first):
    """run(), with an error that only comes at the second of several sizes named."""
    try:
        return run()
    except RuntimeError as error:
        if first:
            raise
        fail(SIZE_FIXED, f"PyTorch says: {str(error).splitlines()[0][:150]}")


def transplanted(module, **values):
    """Set parameters by name."""
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name.replace("__", ".")).copy_(value)
    return module


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


@check(todo=2)
def test_builds(piece):
    """The module has the contract's arguments, attributes and state_dict names"""
    try:
        module = piece.MultiHeadAttention(n_embd=C, n_head=H, dropout=0.3)
    except ValueError as error:
        fail(DIVISIBLE_REFUSED, f"With n_embd = {C} and n_head = {H} it raises ValueError: {error}")
    expect_module(module)
    expect_signature(
        piece.MultiHeadAttention.__init__,
        "(n_embd, n_head, dropout=0.1, attn_dropout=None)",
        "MultiHeadAttention",
    )
    used_later = "problem 05 inherits and uses it"
    if attribute(module, "n_head", int, used_later) != H:
        fail(N_HEAD, f"It is {module.n_head}, with n_head={H}.")
    if (
        attribute(module, "head_dim", (int, float), used_later) != D
        or type(module.head_dim) is float
    ):
        fail(HEAD_DIM, f"It is {module.head_dim}, with n_embd={C} and n_head={H}.")
    for name, rows, wrong in (("c_attn", 3 * C, C_ATTN), ("c_proj", C, C_PROJ)):
        linear = attribute(module, name, nn.Linear)
        if tuple(linear.weight.shape) != (rows, C):
            found = f"nn.Linear({linear.in_features}, {linear.out_features})"
            fail(wrong, f"It is {found}, with n_embd={C}.")
        if linear.bias is None:
            fail(NO_BIAS, f"{name} was made with bias=False.")
    inner = attribute(module, "attention", nn.Module, used_later)
    if not any(c.__name__ == "ScaledDotProductAttention" for c in type(inner).__mro__):
        fail(
            "MultiHeadAttention.attention must be a ScaledDotProductAttention, and is "
            f"{type(inner).__name__}: problem 05 inherits it. [wrong-attribute-type]"
        )
    drop = attribute(module, "resid_dropout", nn.Dropout, used_later)
    if drop.p != 0.3:
        fail(RESID_P, f"It is {drop.p}, with dropout=0.3.")
    if piece.MultiHeadAttention(C, H, 0.3, 0.7).resid_dropout.p != 0.3:
        fail(SWAPPED, "With dropout=0.3 and attn_dropout=0.7, resid_dropout.p is not 0.3.")
    expect_state(module, NAMES)
    expect_own_start(lambda: piece.MultiHeadAttention(C, H))


@check(todo=2, needs=test_builds)
def test_refuses_indivisible_width(piece):
    """A width that the heads can't share out evenly is a ValueError that names both numbers"""
    for n_embd, n_head in ((46, 9), (9, 46), (25, 10)):
        expect_error(
            lambda n_embd=n_embd, n_head=n_head: piece.MultiHeadAttention(n_embd, n_head),
            (n_embd, n_head),
            when=f"n_embd = {n_embd} and n_head = {n_head}",
            missing=NO_ERROR,
        )
    for n_embd, n_head in ((12, 1), (12, 12), (15, 5), (6, 2)):
        try:
            module = piece.MultiHeadAttention(n_embd, n_head)
        except ValueError as error:
            fail(
                DIVISIBLE_REFUSED,
                f"With n_embd = {n_embd} and n_head = {n_head} it raises ValueError: {error}",
            )
        if module.head_dim != n_embd // n_head:
            fail(HEAD_DIM, f"It is {module.head_dim}, with n_embd={n_embd} and n_head={n_head}.")


@check(todo=3, needs=test_builds)
def test_split_heads(piece):
    """split_heads hands each head its own D columns of every token"""
    for b, t, h, d in ((B, T, H, D), (1, 3, 5, 2), (3, 1, 2, 4)):
        cut = method(module_of(piece, h * d, h), "split_heads")
        whole = stream(b, t, 3 * h * d)
        for x in (stream(b, t, h * d), whole.chunk(3, -1)[1]):  # a third has gaps in memory
            want = torch.stack(x.split(d, -1), 1)
            compare(
                lambda x=x, cut=cut, first=b == B: sized(lambda: cut(x), first),
                want,
                SPLIT,
                lambda splitting, x=x, h=h: splitting(x, h),
                what="what split_heads returns",
                axes="B H T D",
                given=(x,),
            )


@check(todo=4, needs=test_builds)
def test_merge_heads(piece):
    """merge_heads puts the heads' columns side by side again, token by token"""
    for b, t, h, d in ((B, T, H, D), (1, 3, 5, 2), (3, 1, 2, 4)):
        join = method(module_of(piece, h * d, h), "merge_heads")
        x = stream(b, t, h * d)
        lying = x.view(b, t, h, d).transpose(1, 2)  # as split_heads leaves it
        for y in (lying.contiguous(), lying):
            compare(
                lambda y=y, join=join, first=b == B: sized(lambda: join(y), first),
                torch.cat(y.unbind(1), -1),
                MERGE,
                lambda merging, y=y: merging(y),
                what="what merge_heads returns",
                axes="B T C",
                given=(y,),
            )


@check(todo=6, needs=(test_builds, test_split_heads, test_merge_heads), points=3)
def test_output(piece):
    """The output equals PyTorch's nn.MultiheadAttention on the same weights"""
    examine(module_of(piece), stream(), H)


@check(todo=6, needs=test_output, follows=test_refuses_indivisible_width)
def test_other_sizes(piece):
    """Other widths, head counts, lengths and batches, with nothing hard-coded"""
    for b, t, h, d in ((1, 7, 2, 3), (3, 2, 5, 4), (4, 1, 3, 2), (1, 1, 1, 8), (2, 9, 6, 1)):
        x = stream(b, t, h * d, seed=t)
        sized(lambda: examine(module_of(piece, h * d, h, seed=t), x, h), False)  # noqa: B023


@check(todo=6, needs=test_output)
def test_keeps_nothing(piece):
    """A call does not depend on the calls before it, of other batches and lengths"""
    sizes = ((2, 3), (2, 5), (1, 5), (4, 3), (1, 1), (2, 5))
    texts = [stream(b, t, seed=seed) for seed, (b, t) in enumerate(sizes)]
    calls = [lambda m, x=x: tensor(m(x)) for x in texts]
    expect_no_memory(module_of(piece), calls)


@check(todo=6, needs=test_output)
def test_all_heads_at_once(piece):
    """The number of operations does not grow with the number of heads"""

    def products(h):
        module = module_of(piece, 24, h)
        with operations() as seen, torch.no_grad():
            module(stream(c=24))
        # matrix products, softmaxes and fused attentions, by whatever function they are made
        return sum(name.startswith(PRODUCTS) for name, _ in seen)

    few, many = products(2), products(12)
    if many > few:
        fail(LOOP, f"{few} matrix products and softmaxes with 2 heads, {many} with 12.")


@check(todo=6, needs=test_output, follows=test_refuses_indivisible_width)
def test_worked_example(piece):
    """Two heads look two ways: by hand, e⁴/(e⁴+1) · 2 = 1.964 for one and 1 for the other"""
    # c_attn copies x to q, k and v; c_proj changes nothing; a head is one column wide.
    # Token 0 = (2, 0), token 1 = (0, 2). Head 0 of token 0: scores 2·2 and 2·0, so weights 0.982
    # and 0.018. Head 1 of token 0 asks with 0: weights ½ and ½.
    module = transplanted(
        module_of(piece, 2, 2),
        c_attn__weight=torch.eye(2).repeat(3, 1),
        c_attn__bias=torch.zeros(6),
        c_proj__weight=torch.eye(2),
        c_proj__bias=torch.zeros(2),
    )
    x = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
    compare(lambda: module(x), torch.tensor([[[1.9640276, 1.0], [1.0, 1.9640276]]]))


@check(todo=6, needs=test_output, follows=test_other_sizes)
def test_heads_are_independent(piece):
    """What one head does depends on its own columns of q, k and v alone"""
    module = transplanted(
        module_of(piece), c_proj__weight=torch.eye(C), c_proj__bias=torch.zeros(C)
    )
    x = stream(seed=3)
    before = module(x).detach()
    with torch.no_grad():
        for third in range(3):  # head 1's queries, keys and values
            module.c_attn.weight[third * C + D : third * C + 2 * D] *= -1.7
    changed = (module(x).detach() - before).abs().amax((0, 1)).view(H, D).amax(-1) > 1e-6
    if changed.tolist() != [h == 1 for h in range(H)]:
        fail(
            "Head 1's weights were changed, and the columns of head(s) "
            f"{changed.nonzero().flatten().tolist()} moved. [heads-mixed]"
        )


@check(todo=6, needs=test_output, points=2)
def test_dropout_places(piece):
    """`dropout` acts last, on the output; `attn_dropout` acts on the weights"""
    x = stream(seed=4)
    module = module_of(piece, dropout=0.0, attn_dropout=0.0)
    expect_mode_kept(module, lambda: module(x))
    if torch.equal(module.train()(x), module(x)):
        examine(module, x, H)
    bias = weights(module_of(piece))["c_proj.bias"]

    def outcome(dropout, attn_dropout):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        plain = module(x)
        got = tensor(module.train()(x)).detach()
        if not got.any():
            return "zero"
        if torch.allclose(got, bias.expand_as(got), atol=1e-5):
            return "bias"
        return "plain" if torch.allclose(got, plain, atol=1e-5) else "other"

    output, inner = outcome(1.0, 0.0), outcome(0.0, 1.0)
    if (output, inner) == ("bias", "zero"):
        fail(SWAPPED)
    if inner == "zero":
        fail(ATTN_FOR_BOTH, "With dropout=0 and attn_dropout=1, in training, all is 0.")
    if output == "plain":
        fail(RESID_MISSING, "With dropout=1 nothing changes in training; all must be 0.")
    if output == "bias":
        fail(BEFORE_PROJ, "With dropout=1, in training, c_proj's bias is left; all must be 0.")
    if output != "zero":
        fail(MISPLACED, "With dropout=1, in training, the output must be all 0.")
    if inner == "plain":
        # p between 0 and 1: kept numbers are 2 × the plain ones only if the weights are whole
        module = module_of(piece, dropout=0.5, attn_dropout=0.0)
        plain = module(x)
        got = module.train()(x)
        kept = got != 0
        whole = torch.allclose(got[kept], 2 * plain[kept], rtol=1e-3, atol=1e-5)
        fail(ATTN_MISSING if whole else ATTN_IGNORED, "attn_dropout=1 changes nothing in training.")
    if inner == "other" and outcome(0.0, 0.0) == "other":
        fail(ATTN_RATE, "With dropout=0 and attn_dropout=0 training still drops something.")
    if inner == "other":
        module = module_of(piece, dropout=0.0, attn_dropout=1.0).train()
        fail(ON_SCORES if torch.equal(module(x), module(x)) else ATTN_RATE)
    if inner != "bias":
        fail(
            "With attn_dropout=1, in training, only c_proj's bias must be left. "
            "[attn-dropout-misplaced]",
            hint=7,
        )


@check(todo=6, needs=test_dropout_places)
def test_dropout_of_output(piece):
    """In training each output is 0 with p = dropout, or 1/(1-p) times the plain one"""
    p = 0.4
    module = module_of(piece, dropout=p, attn_dropout=0.0)
    x = stream(4, 7, seed=5)
    plain = module(x).detach()
    torch.manual_seed(1)
    got = module.train()(x).detach()
    kept = got.abs() > 1e-6
    if not torch.allclose(got[kept], plain[kept] / (1 - p), rtol=1e-3, atol=1e-5):
        if torch.allclose(got[kept], plain[kept] / (1 - p) ** 2, rtol=1e-3, atol=1e-5):
            fail(TWICE)
        # is it the weights that vary although they were asked not to?
        quiet = module_of(piece, dropout=1e-9, attn_dropout=0.0).train()
        again = module_of(piece, dropout=p, attn_dropout=1e-9).train()(x)
        kept = again.abs() > 1e-6
        if torch.allclose(quiet(x), plain, atol=1e-4) and torch.allclose(
            again[kept], plain[kept] / (1 - p), rtol=1e-3, atol=1e-5
        ):
            fail(ATTN_ZERO)
    elif any((kept.all(axis) | ~kept.any(axis)).all() for axis in (1, 2)):
        fail(WHOLE_TOKENS)
    expect_dropout(
        lambda: module(x),
        module,
        p,
        missing=RESID_MISSING,
        in_eval=IN_EVAL,
        misplaced=MISPLACED,
    )


@check(todo=6, needs=test_dropout_of_output)
def test_dropout_of_weights(piece):
    """attn_dropout sets the rate of the weights; None means the same as dropout"""
    # With one token a head's only weight is 1, so dropout on it kills or scales the whole head.
    b = 400

    def heads(dropout, attn_dropout):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        transplanted(module, c_proj__weight=torch.eye(C), c_proj__bias=torch.zeros(C))
        x = stream(b, 1, seed=6)
        plain = module(x).detach()
        if not torch.equal(plain, module(x)):
            fail(IN_EVAL)
        torch.manual_seed(2)
        ratio = (module.train()(x).detach() / plain).view(b, H, D)
        return ratio, (ratio == 0).all(-1).double().mean()

    p = 0.4
    ratio, killed = heads(0.0, p)
    per_head = ratio.amax(-1)
    if not torch.allclose(ratio, per_head[..., None].expand_as(ratio), rtol=1e-3):
        fail(ATTN_ON_OUTPUT)
    if abs(killed - p) > 0.07 or not torch.allclose(
        per_head[per_head > 0], torch.tensor(1 / (1 - p)), rtol=1e-3
    ):
        fail(ATTN_RATE, f"With attn_dropout={p}, {killed:.0%} of the weights are dropped.")
    if heads(0.5, 0.0)[1] > 0.15:  # 2⁻⁶ of the heads lose all six numbers by chance
        fail(ATTN_ZERO)
    killed = heads(p, None)[1]
    if killed < 0.05:
        fail(ATTN_NONE)
    if abs(killed - p) > 0.08:
        fail(ATTN_RATE, f"With dropout={p} and attn_dropout=None, {killed:.0%} are dropped.")


@check(todo=6, needs=test_dropout_of_weights)
def test_no_dropout(piece):
    """dropout=0 changes nothing in training"""
    module = module_of(piece, dropout=0.0, attn_dropout=0.0, seed=1)
    expect_mode_kept(module, lambda: module(stream()))
    examine(module.train(), stream(), H)


@check(todo=6, needs=test_output, follows=test_dropout_places)
def test_gradients(piece):
    """Gradients reach every weight and the input, and equal PyTorch's"""
    module = fill(piece.MultiHeadAttention(C, H, 0.0), scale=0.2)
    theirs, run = oracle(weights(module), H)
    mine, other = stream(seed=7).requires_grad_(), stream(seed=7).requires_grad_()
    expect_finite_gradients(module, tensor(module(mine)).pow(2).mean())
    theirs.train()
    run(other).pow(2).mean().backward()
    grads = module.c_attn.weight.grad.split(C)
    for name, third in zip(WORDS, grads, strict=True):
        if not third.any():
            fail(f"No gradient reaches c_attn's part for the {name}. [no-gradient]")
    compare(module.c_attn.weight.grad, theirs.in_proj_weight.grad, what="c_attn.weight's gradient")
    compare(module.c_proj.weight.grad, theirs.out_proj.weight.grad, what="c_proj.weight's gradient")
    if mine.grad is None:
        fail("No gradient reaches the input: is something detached? [no-gradient]")
    compare(mine.grad, other.grad, what="the gradient of the input")


@check(todo=6, needs=test_output)
def test_dtype_and_device(piece):
    """bfloat16 and float64 stay what they are, and nothing is made on a fixed device"""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 4e-2)):
        module = fill(piece.MultiHeadAttention(C, H), scale=0.3).eval().to(dtype)
        x = stream(seed=8, dtype=dtype)
        got = tensor(module(x))
        if got.dtype != dtype:
            fail(f"With {dtype} input the output is {got.dtype}. [fixed-dtype]")
        want = oracle({n: t.double() for n, t in weights(module).items()}, H)[1](x.double())
        compare(
            got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=2 * tolerance
        )
    expect_one_device(module_of(piece), lambda module, to: module(to(stream())))


@check(todo=6, needs=(test_output, test_dropout_of_weights))
def test_inner_attention(piece):
    """`attention` is one head wide and has the weights' dropout, also where it is not called"""
    p = 0.6
    for given, what in (((0.2, p), f"attn_dropout={p}"), ((p, None), f"dropout={p} alone")):
        inner = piece.MultiHeadAttention(C, H, *given).eval().attention
        g = torch.Generator().manual_seed(21)
        q, k, v = (torch.randn(40, n, D, generator=g) for n in (5, 7, 7))
        want = F.scaled_dot_product_attention(q, k, v)
        with torch.no_grad():
            got = inner(q, k, v)[0]
            if not torch.allclose(got, want, rtol=1e-3, atol=1e-4):
                fail(INNER_WIDTH, f"n_embd = {C} and n_head = {H} give heads of width {D}.")
            torch.manual_seed(3)
            dropped = float((inner.train()(q, k, v)[1] == 0).double().mean())
        if abs(dropped - p) > 0.08:
            fail(INNER_DROPOUT, f"With {what}, {dropped:.0%} of its weights are dropped.")


@check(todo=6, needs=test_output)
def test_leaves_no_trace(piece):
    """The input stays as it was, and a copy or a saved module gives the same"""
    module = module_of(piece)
    x = stream(seed=9)
    expect_no_edit(module, x)
    expect_copies(module, lambda m: m(x))
    first = module(x)
    module(stream(3, 2, seed=10))
    compare(module(x), first.detach(), what="the second output for the same input")
    for name in ("split_heads", "merge_heads"):
        if len(inspect.signature(method(module, name)).parameters) < 1:
            fail(f"{name} must take x. [wrong-signature]")
    if not isinstance(first, Tensor):
        fail("forward must return a tensor. [not-a-tensor]")
