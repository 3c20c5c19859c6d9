"""The known mistakes of problem 04, by the step that they replace (see `textbook`)."""

import itertools

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.families import (
    of_both_dropouts,
    of_one_split,
    of_the_layouts,
    of_the_order,
    of_the_product,
    of_the_projection,
    of_the_root,
    of_the_scale,
    of_the_shares,
    of_the_softmax,
    other_layout,
)
from learn_gpt2.checking.textbook import bottom_right, gelu, linear, merge, split

KNOWN = Catalog()


def laid_out(order, turned):
    """A splitting that reads the numbers as axes in this order, and brings them to (B, H, T, D)."""

    def splitting(x, h):
        x = x.transpose(1, 2) if turned else x
        b, c = x.size(0), max(x.shape[1:])  # C > T wherever this is used
        sizes = {"T": x[0].numel() // c, "H": h, "D": c // h}
        y = x.reshape(b, *(sizes[axis] for axis in order))
        return y.permute(0, *(1 + order.index(axis) for axis in "HTD"))

    return splitting


def cut(pieces, says=""):
    """Two ways of cutting c_attn's output (B, T, 3C) wrongly: the pieces raise what unpacking three
    of them raises, or what splitting one into heads does.
    """

    def strictly(a, h):
        d = a.size(-1) // 3 // h
        for t in pieces(a, h, d):
            yield t.view(*t.shape[:2], h, d).flatten(2)

    return (
        way(says=says, unpack=lambda a, h: pieces(a, h, a.size(-1) // 3 // h)),
        way(says=says, unpack=strictly),
    )


splits = KNOWN.section("split", hint=3)
splits(
    "split-by-view-alone",
    "split_heads views straight to (B, H, T, D): that gives the right shape and hands a head pieces of several tokens. View to (B, T, H, D), then swap T and H.",
    family="split in-forward",
    splitting=lambda x, h: x.reshape(x.size(0), h, x.size(1), -1),
)
splits(
    "split-not-transposed",
    "split_heads leaves T ahead of H. Attention works on the last two axes, so each head's (T, D) must stand there: swap axes 1 and 2.",
    family="split in-forward",
    splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1),
)
splits(
    "heads-interleaved",
    "split_heads gives head h every n_head-th column. It must get D columns in a row, h·D … (h+1)·D − 1, as in GPT-2's weights.",
    way(
        family="split in-forward",
        splitting=lambda x, h: x.reshape(*x.shape[:2], -1, h).permute(0, 3, 1, 2),
    ),
    way(
        says="merge_heads interleaves the heads' columns: D ahead of H. Each head's D columns must lie side by side, head after head.",
        hint=4,
        family="merge in-forward",
        merging=lambda y: y.permute(0, 2, 3, 1).reshape(y.size(0), y.size(2), -1),
    ),
    way(
        says=(
            "You take each third apart as (head_dim, n_head). Head h owns columns h·D … (h+1)·D − 1."
        ),
        hint=5,
        family="unpacking",
        unpack=lambda a, h: other_layout(
            a, h, lambda h, d: (3, d, h), lambda p, i: p[:, :, i].transpose(-2, -1)
        ),
    ),
)
splits(
    "split-last-axes-swapped",
    "split_heads gives (B, H, D, T). The last axes must be T, D: only T and H change places.",
    splitting=lambda x, h: split(x, h).transpose(-2, -1),
)
splits(
    "split-sizes-swapped",
    "split_heads makes head_dim heads of width n_head. View to (…, n_head, head_dim).",
    splitting=lambda x, h: x.reshape(*x.shape[:2], -1, h).transpose(1, 2),
)
splits(
    "split-axes-permuted",
    "split_heads swaps other axes than T and H. From (B, T, H, D), swap axes 1 and 2.",
    way(splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1).transpose(0, 2)),
    way(
        says="split_heads moves H to the front: (H, B, T, D). The batch stays first.",
        splitting=lambda x, h: split(x, h).transpose(0, 1),
    ),
    way(splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1).transpose(1, 3)),
)
splits(
    "heads-in-batch",
    "split_heads folds the heads into the batch axis: (B·H, T, D). Keep four axes.",
    splitting=lambda x, h: split(x, h).flatten(0, 1),
)
splits(
    "heads-reversed",
    "split_heads hands out the right columns in reverse order of heads.",
    way(splitting=lambda x, h: split(x, h).flip(1)),
    way(
        says="merge_heads puts the heads back in reverse order.",
        hint=4,
        family="merge",
        merging=lambda y: merge(y.flip(1)),
    ),
)
splits(
    "split-across-tokens",
    "split_heads reads the numbers in an order that mixes tokens up: a head gets pieces of several tokens. View to (B, T, H, D), so that each token stays whole, then swap T and H.",
    *(
        way(splitting=laid_out(order, turned))
        for turned in (False, True)
        for order in itertools.permutations("THD")
        if (order, turned) != (("T", "H", "D"), False)
    ),
    general=True,
)

merges = KNOWN.section("merge", hint=4)
merges(
    "merge-not-transposed",
    "merge_heads flattens (B, H, T, D) as it lies: rows of several heads and tokens get mixed up. Bring T back in front of H first, then flatten H and D.",
    family="merge in-forward",
    merging=lambda y: y.reshape(y.size(0), y.size(2), -1),
)
merges(
    "merge-not-flattened",
    "merge_heads stops at (B, T, H, D). The last two axes must become one of width C.",
    merging=lambda y: y.transpose(1, 2),
)
merges(
    "merge-axes-permuted",
    "merge_heads swaps the wrong axes. From (B, H, T, D), swap H and T (axes 1 and 2), then flatten the last two.",
    way(merging=lambda y: y.transpose(-2, -1).reshape(y.size(0), y.size(2), -1)),
    way(merging=lambda y: y.transpose(1, 3).reshape(y.size(0), y.size(2), -1)),
    way(merging=lambda y: y.permute(2, 0, 1, 3).reshape(y.size(0), y.size(2), -1)),
    *(
        way(
            says="merge_heads brings the axes into the wrong order before it flattens. From (B, H, T, D), swap H and T (axes 1 and 2), then flatten the last two.",
            general=True,
            merging=lambda y, axes=axes: y.permute(axes).reshape(y.size(0), y.size(2), -1),
        )
        for axes in itertools.permutations(range(4))
        if axes != (0, 2, 1, 3)
    ),
)
merges(
    "merge-adds-heads",
    "merge_heads adds the heads up. They lie side by side in the stream: n_head · head_dim = C.",
    merging=lambda y: y.sum(1),
)
merges(
    "merge-averages-heads",
    "merge_heads gives each head's columns the mean of all heads. Every head keeps its own D columns, side by side.",
    way(merging=lambda y: merge(y.mean(1, keepdim=True).expand_as(y))),
    way(
        says=(
            "merge_heads averages the heads. They lie side by side in the stream: n_head · head_dim = C."
        ),
        merging=lambda y: y.mean(1),
    ),
)

KNOWN.include(
    of_the_order(
        5,
        "order",
        "You take c_attn's thirds as {} (or pass them on in another order). It is query, key, value.",
    )
)

unpacking = KNOWN.section("unpacking", hint=5)
KNOWN.include(of_the_layouts(5, "unpacking"))
KNOWN.put(
    "qkv-interleaved",
    5,
    "You take c_attn's columns apart as (head_dim, 3, …). The first C columns are the queries, the next C the keys, the last C the values, each head by head.",
    way(
        unpack=lambda a, h: other_layout(
            a, h, lambda h, d: (d, 3, h), lambda p, i: p[:, :, :, i].transpose(-2, -1)
        ),
    ),
    family="unpacking",
)
_OTHER_AXIS = "You cut c_attn's output along axis {}. Query, key and value lie side by side in the last axis: dim=-1."
unpacking(
    "chunk-wrong-axis",
    _OTHER_AXIS.format("1, the tokens"),
    *cut(lambda a, h, d: a.chunk(3, 1)),
    *cut(lambda a, h, d: a.chunk(3, 0), says=_OTHER_AXIS.format("0, the batch")),
)
unpacking(
    "split-takes-sizes",
    "Tensor.split takes the size of a piece, chunk takes their number: cut c_attn's output into pieces of n_embd columns.",
    *cut(lambda a, h, d: a.split(3, -1)),
    *cut(lambda a, h, d: a.split(h, -1)),
    *cut(lambda a, h, d: a.split(d, -1)),
)
unpacking(
    "chunk-wrong-number",
    "c_attn's output is cut into n_head pieces; it holds three: query, key and value.",
    *cut(lambda a, h, d: a.chunk(h, -1)),
)

shared = KNOWN.section("shared", hint=5)
KNOWN.include(of_the_shares(5, "shared"))
shared(
    "keys-are-queries",
    "Queries are compared with queries. Compare each query with every key.",
    share=lambda q, k, v: (q, q, v),
)
KNOWN.put(
    "one-projection-for-all",
    5,
    "Query, key and value are all the same third of c_attn. Each has its own.",
    way(share=lambda q, k, v: (v, v, v)),
    family="shared",
)

heads = KNOWN.section("heads", hint=5)
heads(
    "attends-across-heads",
    "T and H are not swapped before the attention, so a token's heads attend to one another and tokens never meet. Split the heads: (B, T, C) → (B, H, T, D).",
    splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1),
    merging=lambda y: y.flatten(2),
)
heads(
    "heads-not-split",
    "There is one head of width n_embd: split q, k and v into n_head heads before the attention.",
    way(splitting=lambda x, h: x[:, None]),
    way(splitting=lambda x, h: x[:, None], divisor=lambda n: (n.C // n.H) ** 0.5),
)
heads(
    "heads-averaged",
    "The heads' outputs are averaged or added. Each keeps its own D columns of the output.",
    way(merging=lambda y: merge(y.mean(1, keepdim=True).expand_as(y))),
    way(merging=lambda y: merge(y.sum(1, keepdim=True).expand_as(y))),
)

scale = KNOWN.section("scale", hint=5)
scale(
    "scale-by-n-embd",
    "The scores are divided by √n_embd. A query is one head wide: give ScaledDotProductAttention head_dim, and it divides by √head_dim.",
    way(divisor=lambda n: n.C**0.5),
    way(
        says="The scores are divided by √head_dim and √n_embd. Once by √head_dim is right.",
        divisor=lambda n: (n.C * n.D) ** 0.5,
    ),
    hint=2,
)
scale(
    "no-scale",
    "The scores are not scaled: divide them by √head_dim (ScaledDotProductAttention does).",
    divisor=lambda n: 1.0,
)
KNOWN.include(of_the_root(5, "scale"))
scale(
    "scale-by-n-head",
    "The scores are divided by √n_head. The width of one query counts: √head_dim.",
    hint=2,
    divisor=lambda n: n.H**0.5,
)
scale(
    "scale-by-c-attn",
    "The scores are divided by √(3 · n_embd). It must be √head_dim.",
    hint=2,
    divisor=lambda n: (3 * n.C) ** 0.5,
)

softmax = KNOWN.section("softmax", hint=5)
KNOWN.include(of_the_softmax(5, "softmax"))
softmax(
    "scores-transposed",
    "The scores are transposed: rows must be queries and columns keys.",
    scores=lambda q, k: k @ q.transpose(-2, -1),
)
softmax(
    "causal-too-early",
    "Your attention is causal. That comes in problem 05; here every token sees every other.",
    mask=bottom_right,
)

out = KNOWN.section("out", hint=6)
out(
    "c-proj-missing",
    "c_proj is never applied. It mixes what the heads found: without it they can't speak to one another.",
    out=lambda y, w: y,
)
KNOWN.include(of_the_projection(6, "out"))
out(
    "residual-added",
    "You add the input to the output. The residual is problem 07's; return what c_proj gives.",
    last=lambda y, x: y + x,
)
out(
    "activation-added",
    "There is an activation after c_proj. Attention ends with a plain linear map.",
    way(out=lambda y, w: F.gelu(linear(y, w, "c_proj"))),
    way(out=lambda y, w: linear(y, w, "c_proj").relu()),
    *(
        way(
            says="There is an activation before c_proj. Attention has none but the softmax.",
            family="before",
            out=lambda y, w, bend=bend: linear(bend(y), w, "c_proj"),
        )
        for bend in (torch.relu, torch.tanh, gelu)
    ),
)

KNOWN.include(of_one_split(5, "split-one"))

before = KNOWN.section("before", hint=5)
before(
    "cosine-scores",
    "Queries and keys are brought to length 1. A score is their plain product, over √head_dim.",
    scores=lambda q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT,
)
before(
    "layer-norm-added",
    "x is normalized first. The layer norm stands outside, in the block (problem 08).",
    into=lambda x, w: linear(F.layer_norm(x, x.shape[-1:]), w, "c_attn"),
)
KNOWN.include(of_the_scale(5, "more-scales"))
KNOWN.include(of_the_product(5, "product"))

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "divisible-refused",
    "A width that n_head divides is refused: the test is whether n_embd % n_head is not 0.",
)
hint_1(
    "indivisible-accepted",
    "A width that the heads can't share out evenly must be refused with a ValueError.",
)
hint_1("wrong-head-dim", "head_dim is the width of one head, n_embd // n_head, a whole number.")
hint_1("wrong-n-head", "n_head is not the number of heads that was asked for.")

hint_2 = KNOWN.section(hint=2)
hint_2(
    "bias-missing",
    "A bias is missing: GPT-2's c_attn and c_proj both have one.",
    way(
        says="c_proj's bias is not added.",
        hint=6,
        family="out",
        out=lambda y, w: F.linear(y, w["c_proj.weight"]),
    ),
    way(
        says="c_attn's bias is not added.",
        hint=5,
        family="out",
        into=lambda x, w: F.linear(x, w["c_attn.weight"]),
    ),
)
hint_2(
    "inner-attention-dropout",
    "`attention` is made with another dropout than attn_dropout (or, where that is None, dropout). Your forward does not call it, and problem 05 inherits it and may.",
)
hint_2(
    "inner-attention-width",
    "`attention` is made for another width than one head's, n_embd // n_head. Your forward does not call it, and problem 05 inherits it and may.",
)
hint_2(
    "wrong-c-attn",
    "c_attn makes query, key and value in one go: nn.Linear from n_embd to 3 · n_embd.",
)
hint_2("wrong-c-proj", "c_proj maps the merged heads back: n_embd to n_embd.")

hint_3 = KNOWN.section(hint=3)
hint_3(
    "size-hard-coded",
    "A size is written into the code: it works for one shape and not for another. Take sizes from x.shape, n_head and head_dim.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "heads-in-a-loop",
    "The heads are computed one after the other: more of them take more operations. A matrix product treats all axes before the last two as a batch, so one call does for all heads.",
)

hint_7 = KNOWN.section(hint=7)
hint_7(
    "attn-dropout-ignored",
    "attn_dropout has no effect: the attention weights are dropped with p = dropout. None means the same as dropout; any number is its own.",
)
hint_7(
    "attn-dropout-missing",
    "There is no dropout on the attention weights: give ScaledDotProductAttention its p.",
)
hint_7(
    "attn-dropout-none-ignored",
    "With attn_dropout=None the weights must be dropped with p = dropout; here they are not.",
)
hint_7(
    "attn-dropout-on-scores",
    "attn_dropout acts before the softmax (on scores, queries or keys), where a dropped 0 still has weight. It belongs on the weights.",
)
hint_7(
    "attn-dropout-on-values",
    "attn_dropout acts on single numbers of the heads' output. It belongs on the weights, where dropping one hides a whole token from a head.",
)
hint_7("attn-dropout-rate", "The attention weights are dropped with another p than asked for.")
hint_7(
    "attn-dropout-zero-ignored",
    "attn_dropout=0.0 is taken for “not given” (0.0 is false in `attn_dropout or dropout`): ask whether it is None.",
)
hint_7("dropout-before-c-proj", "Dropout stands before c_proj; it is the last step, after c_proj.")
KNOWN.include(of_both_dropouts(7))
hint_7(
    "dropout-whole-tokens",
    "Dropout hits whole tokens or columns at once. nn.Dropout drops single numbers.",
)
hint_7(
    "dropouts-swapped",
    "The two dropouts are swapped: `dropout` is for the output, `attn_dropout` for the weights.",
)
hint_7("resid-dropout-rate", "resid_dropout's p must be the argument `dropout`.")
