"""The known mistakes of problem 05, by the step that they replace (see `textbook`)."""

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
    of_written_out_attention,
)
from learn_gpt2.checking.textbook import keep, lower, unmasked

KNOWN = Catalog()

mask = KNOWN.section("mask", hint=2)
mask(
    "mask-missing",
    "No mask is applied: every position sees every other, also those after it.",
    mask=unmasked,
)
mask(
    "blocks-itself",
    "A position does not see itself: the mask's diagonal is one too low. It must block what is later than i, and position i is not.",
    way(mask=lambda t, s, cached: lower(t, s, s - t - 1)),
    way(
        mask=lambda t, s, cached: lower(t, s, s - t - 1),
        masking=lambda s, m: s.masked_fill(~m, -1e9),
    ),
    way(
        mask=lambda t, s, cached: lower(t, s, s - t - 1),
        softmax=lambda s: s.softmax(-1).nan_to_num(0.0),
    ),
    way(
        says="With a past, a position does not see itself: the mask's diagonal is one too low. Row i is position S − T + i.",
        hint=5,
        family="past",
        mask=lambda t, s, cached: lower(t, s, s - t - 1 if s > t else 0),
    ),
)
mask(
    "sees-one-ahead",
    "Each position sees one token too far ahead: the mask's diagonal is one too high.",
    way(mask=lambda t, s, cached: lower(t, s, s - t + 1)),
    way(
        says=(
            "With a past, each position sees one token too far ahead: row i is position S − T + i."
        ),
        hint=5,
        family="past",
        mask=lambda t, s, cached: lower(t, s, s - t + 1 if s > t else 0),
    ),
)
mask(
    "mask-transposed",
    "Your mask is transposed: each position sees itself and what comes later. Rows are queries, columns keys, and the lower triangle is allowed.",
    way(mask=lambda t, s, cached: torch.ones(t, s, dtype=torch.bool).triu(s - t)),
    way(
        says=(
            "With a past, your mask is turned round: rows are the T new queries, columns the S keys."
        ),
        hint=5,
        family="past",
        mask=lambda t, s, cached: lower(s, t, s - t),
    ),
    way(
        says=(
            "With a past, your mask is turned round: rows are the T new queries, columns the S keys."
        ),
        hint=5,
        family="past",
        mask=lambda t, s, cached: lower(t, s) if s == t else lower(t, s, s - t).flip(0, 1),
    ),
)
mask(
    "mask-inverted",
    "Your mask is the wrong way round: what may be seen is hidden. True must mean may attend.",
    way(mask=lambda t, s, cached: ~lower(t, s, s - t)),
    way(
        mask=lambda t, s, cached: ~lower(t, s, s - t), masking=lambda s, m: s.masked_fill(~m, -1e9)
    ),
    way(
        mask=lambda t, s, cached: ~lower(t, s, s - t),
        softmax=lambda s: s.softmax(-1).nan_to_num(0.0),
    ),
)
mask(
    "sees-only-itself",
    "Each position sees itself alone. It must see all earlier ones, too.",
    mask=lambda t, s, cached: lower(t, s, s - t) & ~lower(t, s, s - t - 1),
)
mask(
    "mask-after-softmax",
    "You mask after the softmax, so the rows no longer sum to 1. Set the scores to −inf before it.",
    way(masking=lambda s, m: s, masked=lambda p, m: p.masked_fill(~m, 0.0)),
    way(
        says="You set weights to −inf after the softmax. Mask the scores, before it.",
        masking=lambda s, m: s,
        masked=lambda p, m: p.masked_fill(~m, -torch.inf),
    ),
    way(
        "renormalized",
        says="The mask comes after the softmax, and the rows are brought to the sum 1 again. Where blocked scores lie far above the allowed ones, the softmax leaves nothing to bring back: set the scores to −inf before it.",
        family="",
        masking=lambda s, m: s,
        masked=lambda p, m: (p * m) / (p * m).sum(-1, keepdim=True),
    ),
)
mask(
    "mask-zero",
    "Blocked scores are set to 0 (or a tiny number), and exp(0) = 1 is weight. Set them to −inf.",
    masking=lambda s, m: s.masked_fill(~m, 0.0),
)
mask(
    "mask-minus-one",
    "Blocked scores are set to −1, which still has weight. Set them to −inf.",
    masking=lambda s, m: s.masked_fill(~m, -1.0),
)
mask(
    "mask-plus-inf",
    "Blocked scores are set to +inf. It is −inf whose exponential is 0.",
    masking=lambda s, m: s.masked_fill(~m, torch.inf),
)
mask(
    "mask-added",
    "The mask's 0 and 1 are added to the scores, or subtracted. Blocked scores must become −inf.",
    way(masking=lambda s, m: s + m),
    way(masking=lambda s, m: s - (~m).float()),
    way(
        says="The mask's 0 and 1 are added the wrong way: blocked scores get 1 more, or 1 less. They must become −inf.",
        masking=lambda s, m: s + (~m).float(),
    ),
)

past = KNOWN.section("past", hint=5)
past(
    "mask-top-left",
    "With a past, your mask starts at the top left corner: the first new token sees the oldest key alone. The T queries are the last T of S positions: row i is position S − T + i. (is_causal=True means the top left, too.)",
    mask=lambda t, s, cached: lower(t, s),
)
past(
    "mask-only-without-cache",
    "With a cache there is no mask: the new tokens of one piece see those after them. A piece of several tokens needs it.",
    mask=lambda t, s, cached: None if cached else lower(t, s),
)
past(
    "mask-only-when-square",
    "The mask is left out when there is a past: the new tokens of one piece see those after them.",
    mask=lambda t, s, cached: None if t != s else lower(t, s),
)
past(
    "mask-ignores-past",
    "With a past, the mask does not fit the scores: there are T new queries (rows) and S = past + T keys (columns), and your mask is square, (S, S).",
    way(mask=lambda t, s, cached: lower(s, s)),
    way(
        "error",
        says="With a past, the mask does not fit the scores: there are T new queries (rows) and S = past + T keys (columns), and your mask is square.",
        family="",
    ),
)
past(
    "mask-shifted-too-far",
    "With a past, the diagonal of the mask is shifted the wrong way. It is S − T, the length of the past: row i is position S − T + i.",
    way(mask=lambda t, s, cached: lower(t, s, t - s)),
    way(
        says="With a past, the diagonal of the mask is shifted by S or T. It is S − T, the length of the past: row i is position S − T + i.",
        mask=lambda t, s, cached: lower(t, s, t if s > t else 0),
    ),
)
past(
    "past-masked",
    "With a cache the past is hidden: new tokens see new tokens alone. All S − T old keys are allowed for every new query.",
    mask=lambda t, s, cached: torch.cat((torch.zeros(t, s - t, dtype=torch.bool), lower(t, t)), 1),
)
past(
    "new-tokens-masked",
    "With a cache the new tokens see the past alone. Each sees itself and the new ones before it as well.",
    mask=lambda t, s, cached: lower(t, s) if s == t else (torch.arange(s) < s - t).expand(t, s),
)

result = KNOWN.section("result", hint=4)
result(
    "cache-result-ignored",
    "What append returns is not used: new tokens attend to new tokens alone. It returns all keys and all values, of the past as well.",
    append=lambda stored, k, v: (None, (k, v)),
)
result(
    "cache-unpacked-swapped",
    "What append returns is taken in the wrong order: it is keys, then values.",
    append=lambda stored, k, v: (keep(stored, k, v)[0], keep(stored, k, v)[0][::-1]),
)
result(
    "cache-order",
    "The new keys and values are put in front of the old ones. append returns them in the order of the sequence: use them as they are.",
    append=lambda stored, k, v: (
        keep(stored, k, v)[0],
        (k, v) if stored is None else (torch.cat((k, stored[0]), 2), torch.cat((v, stored[1]), 2)),
    ),
)
result(
    "new-keys-twice",
    "The new keys and values count twice: append returns the old and the new ones already.",
    append=lambda stored, k, v: (
        keep(stored, k, v)[0],
        tuple(torch.cat(pair, 2) for pair in zip(keep(stored, k, v)[0], (k, v), strict=True)),
    ),
)

forward = KNOWN.section("forward", hint=7)
KNOWN.include(
    of_the_order(
        7,
        "forward",
        "You take c_attn's thirds as {} (or pass them on in another order). It is query, key, value.",
    )
)
forward(
    "scale-by-n-embd",
    "The scores are divided by √n_embd. A query is one head wide: √head_dim.",
    divisor=lambda n: n.C**0.5,
)
forward("no-scale", "The scores are not scaled: divide them by √head_dim.", divisor=lambda n: 1.0)
KNOWN.include(of_the_root(7, "forward"))
forward(
    "split-by-view-alone",
    "q, k and v are viewed straight to (B, H, T, D), which mixes tokens and heads up. Use split_heads.",
    splitting=lambda x, h: x.reshape(x.size(0), h, x.size(1), -1),
)
KNOWN.include(of_one_split(7, "forward"))
forward(
    "merge-not-transposed",
    "The heads are flattened as they lie, which mixes tokens and heads up. Use merge_heads.",
    merging=lambda y: y.reshape(y.size(0), y.size(2), -1),
)
forward(
    "heads-interleaved",
    "Head h gets every n_head-th column; it owns h·D … (h+1)·D − 1. Use split_heads.",
    splitting=lambda x, h: x.reshape(*x.shape[:2], -1, h).permute(0, 3, 1, 2),
)
forward(
    "attends-across-heads",
    "T and H are not swapped before the attention, so a token's heads attend to one another.",
    splitting=lambda x, h: x.reshape(*x.shape[:2], h, -1),
    merging=lambda y: y.flatten(2),
)
forward(
    "heads-not-split",
    "There is one head of width n_embd: split q, k and v into heads.",
    way(splitting=lambda x, h: x[:, None]),
    way(splitting=lambda x, h: x[:, None], divisor=lambda n: (n.C // n.H) ** 0.5),
)
forward(
    "c-proj-missing", "c_proj is never applied. It mixes what the heads found.", out=lambda y, w: y
)
KNOWN.include(of_the_projection(7, "forward"))
forward(
    "bias-missing",
    "c_proj's bias is not added.",
    way(out=lambda y, w: F.linear(y, w["c_proj.weight"])),
    way(says="c_attn's bias is not added.", into=lambda x, w: F.linear(x, w["c_attn.weight"])),
    way(
        "attribute",
        says="A bias is missing: GPT-2's c_attn and c_proj both have one.",
        hint=1,
        family="",
    ),
)
forward(
    "residual-added",
    "You add the input to the output. The residual is problem 07's.",
    last=lambda y, x: y + x,
)
KNOWN.include(of_the_shares(7, "forward"))
forward(
    "keys-are-queries",
    "Queries are compared with queries. Compare each query with the keys.",
    share=lambda q, k, v: (q, q, v),
)
KNOWN.include(of_the_softmax(7, "forward"))
KNOWN.include(of_the_scale(7, "forward"))
KNOWN.include(of_the_product(7, "forward"))
KNOWN.include(of_the_layouts(7, "forward"))
KNOWN.include(of_written_out_attention(7, "forward"))

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "attn-dropout-ignored",
    "attn_dropout does not reach the attention weights: they are dropped with p = dropout. Pass it on to the parent.",
)
hint_1(
    "attn-dropout-rate",
    "The attention weights are dropped with another p than attn_dropout (None: dropout) asks for.",
)
hint_1(
    "attn-dropout-zero-ignored",
    "attn_dropout=0.0 is taken for “not given” (0.0 is false in `attn_dropout or dropout`): ask whether it is None.",
)
hint_1("dropout-not-passed-on", "`dropout` does not reach resid_dropout: pass it on to the parent.")
hint_1(
    "dropouts-swapped",
    "The two dropouts are swapped on the way to the parent: dropout, then attn_dropout.",
)
hint_1(
    "not-a-multi-head-attention",
    "CausalMultiHeadAttention must be a MultiHeadAttention: it inherits problem 04's modules and methods.",
)
hint_1(
    "parent-arguments-mixed-up",
    "The parent is given its arguments in the wrong places. It takes n_embd, n_head, dropout and attn_dropout; n_positions is not among them.",
)
hint_1(
    "super-init-missing",
    "The parent's __init__ is never called: it makes c_attn, c_proj and the rest. Start with super().__init__(…).",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "mask-finite",
    "Blocked scores get a number that is not low enough: with large scores the future still gets weight. Use −inf.",
    way(
        "half-precision",
        says="Blocked scores get a number that float16 does not have (it ends at 65504). Use −inf, or torch.finfo(scores.dtype).min.",
    ),
)
hint_2(
    "mask-not-bool",
    "The mask that the attention gets is not bool. Make it with dtype=torch.bool, True where a query may attend.",
)
hint_2(
    "past-lost",
    "An output does not depend on an earlier token: the mask (or the cache) hides what it may see.",
)
hint_2(
    "row-without-keys",
    "A query has no key left that it may see, and the softmax of nothing but −inf is NaN. Each position sees at least itself.",
)
hint_2(
    "sees-the-future",
    "An output depends on a later token: the mask lets something through that it must block, or something else mixes tokens (a mean or a norm over T).",
)

hint_3 = KNOWN.section(hint=3)
hint_3(
    "mask-in-state-dict",
    "The mask is in state_dict(): a persistent buffer. A mask is not a weight. Make it in forward, or register the buffer with persistent=False.",
)
hint_3(
    "mask-is-a-parameter",
    "The mask is a parameter: training would change it, and checkpoints have none. Make it in forward, or a buffer with persistent=False.",
)
hint_3(
    "mask-not-cut",
    "The mask has the size of n_positions and the scores have (T, S): cut the mask to the rows and columns in use.",
)
hint_3(
    "size-hard-coded",
    "A size is written into the code that n_positions should set (1024 is GPT-2's).",
)

hint_4 = KNOWN.section(hint=4)
hint_4(
    "cache-appended-twice",
    "append is called more than once in one forward, so tokens are stored twice.",
)
hint_4("cache-axes-swapped", "append is given its axes in another order. It takes (B, H, T, D).")
hint_4(
    "cache-edited",
    "What append returned is changed in place. It is the cache's own memory: the next call would find the changed keys and values. Make new tensors.",
)
hint_4(
    "cache-never-appended",
    "The cache is never told about the new keys and values: call its append once per forward.",
)
hint_4(
    "cache-stores-one-twice",
    "append is given the same tensor for keys and values. They are different thirds of c_attn.",
)
hint_4(
    "cache-stores-queries",
    "append is given the queries. A query is used once and never again; store keys and values.",
)
hint_4(
    "cache-stores-seen-again",
    "append is given keys that it has already stored. It takes the T new ones alone.",
)
hint_4(
    "cache-stores-something-else",
    "append is not given the keys and values as c_attn makes them, head by head.",
)
hint_4(
    "cache-stores-swapped",
    "append is given values, then keys. It takes the keys first: the cache outlives this call.",
)
hint_4(
    "cache-stores-unsplit",
    "append is given (B, T, C), before the heads are split. It takes (B, H, T, D).",
)
hint_4(
    "cached-keys-ignored",
    "The keys that append returns are not used: scores are made with the new keys alone.",
)
hint_4(
    "cached-values-ignored",
    "The values that append returns are not used: the new values alone are averaged.",
)
hint_4(
    "state-kept-in-module",
    "The module remembers something from one call to the next. The generation loop owns the cache: keep nothing in self.",
)

hint_6 = KNOWN.section(hint=6)
hint_6(
    "limit-ignores-past",
    "With a cache only the new tokens are counted. It is S = past + T that must not exceed n_positions.",
)
hint_6("limit-missing", "More than n_positions tokens are accepted. Refuse them with a ValueError.")
hint_6("limit-off-by-one", "n_positions + 1 tokens are accepted: the limit is off by one.")
hint_6(
    "limit-too-strict",
    "Exactly n_positions tokens are refused. They fit: refuse only more than that.",
)

hint_7 = KNOWN.section(hint=7)
hint_7("attn-dropout-missing", "There is no dropout on the attention weights in training.")
hint_7(
    "attn-dropout-on-scores",
    "Dropout acts before the softmax (on scores, queries or keys), where a dropped 0 still has weight. It belongs on the weights.",
)
hint_7(
    "attn-dropout-on-values",
    "attn_dropout acts on single numbers of values or of the heads' output. It belongs on the weights, where dropping one hides a whole token from a head.",
)
hint_7("dropout-before-c-proj", "Dropout stands before c_proj; it is the last step.")
KNOWN.include(of_both_dropouts(7))
