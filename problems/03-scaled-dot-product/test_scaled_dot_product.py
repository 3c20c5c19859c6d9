"""Checks of problem 03. The oracle is PyTorch's own scaled_dot_product_attention."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.checks import (
    CheckFailed,
    check,
    compare,
    expect_also_larger,
    expect_dropout,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
    expect_no_memory,
    expect_one_device,
    expect_signature,
    expect_state,
    fail,
    mistake,
    sizes_from,
    tensor,
)

# Sizes that all differ, so that a swapped axis can't hide; no root of one is another, rounded.
B, H, T, S, D = sizes_from((2, 3, 5, 7, 10), (3, 2, 4, 7, 11), (2, 4, 3, 7, 14))
E = D  # the contract gives values the queries' width: √d_k may be read off any of the three

NO_SCALE = mistake(
    "no-scale",
    "Your scores are not scaled: divide q kᵀ by √d_k, or the softmax saturates as d_k grows.",
    2,
    divisor=lambda q, k, v: 1.0,
)
LATE_MASK = mistake(
    "mask-after-softmax",
    "The mask comes after the softmax, and the rows are brought to the sum 1 again. Where hidden "
    "scores lie far above the allowed ones, the softmax leaves nothing to bring back: set the scores "
    "to −inf before it.",
    4,
    masking=lambda s, m: s,
    after_mask=lambda w, m: (w * m) / (w * m).sum(-1, keepdim=True),
)
MISTAKES = [
    mistake(
        "product-order",
        "The last product is the wrong way round: v @ weights. The weights stand on the left, one "
        "row for each query, and the values on the right: weights @ v.",
        5,
        product=lambda w, v: v @ w,
    ),
    mistake(
        "values-transposed",
        "The values are transposed before the last product. Only the keys are; the values go in as "
        "they are.",
        5,
        product=lambda w, v: w @ v.transpose(-2, -1),
    ),
    LATE_MASK,
    mistake(  # first: 0 · ∞ makes everything NaN, as other mistakes under a mask do
        "mask-times-infinity",
        "The mask is multiplied by infinity, and 0 · ∞ is NaN. Choose instead of multiplying: "
        "masked_fill or torch.where.",
        4,
        masking=lambda s, m: s + (~m).float() * -torch.inf,
    ),
    NO_SCALE,
    mistake(
        "scale-by-d",
        "You divide the scores by d_k; divide by its square root: it is the standard deviation that "
        "grows as √d_k.",
        2,
        divisor=lambda q, k, v: q.size(-1),
    ),
    mistake(
        "scale-multiplied",
        "You multiply the scores by √d_k instead of dividing by it: that makes the softmax sharper.",
        2,
        divisor=lambda q, k, v: q.size(-1) ** -0.5,
    ),
    mistake(
        "scale-by-length",
        "You divide by the root of a sequence length; d_k is the width of one query, the last axis.",
        2,
        divisor=lambda q, k, v: k.size(-2) ** 0.5,
    ),
    mistake(
        "scale-by-length",
        "You divide by the root of a sequence length; d_k is the width of one query, the last axis.",
        2,
        divisor=lambda q, k, v: q.size(-2) ** 0.5,
    ),
    mistake(
        "scale-by-heads",
        "You divide by the root of axis 1's size, the heads where there are four axes; d_k is the "
        "last axis.",
        2,
        divisor=lambda q, k, v: q.size(1) ** 0.5,
    ),
    mistake(
        "scale-rounded",
        "√d_k is rounded to a whole number. Divide by √d_k as it is.",
        2,
        divisor=lambda q, k, v: int(q.size(-1) ** 0.5),
    ),
    mistake(
        "scale-rounded",
        "√d_k is rounded to a whole number. Divide by √d_k as it is.",
        2,
        divisor=lambda q, k, v: round(q.size(-1) ** 0.5),
    ),
    mistake(
        "scores-rounded",
        "`//` rounds every score down to a whole number. Divide with `/`.",
        2,
        divide=lambda s, d: s // d,
    ),
    mistake(
        "output-scaled",
        "The values (or the output) are divided by √d_k, too. Only the scores are.",
        2,
        after=lambda w, q: w / q.size(-1) ** 0.5,
    ),
    mistake(
        "scale-after-softmax",
        "You scale after the softmax, so the rows no longer sum to 1. Scale the scores before it.",
        2,
        divisor=lambda q, k, v: 1.0,
        after=lambda w, q: w / q.size(-1) ** 0.5,
    ),
    mistake(
        "scale-twice",
        "The scores are scaled twice: once by √d_k is enough.",
        2,
        divisor=lambda q, k, v: q.size(-1) * 1.0,
    ),
    mistake(
        "softmax-over-queries",
        "Your softmax runs over the queries: columns sum to 1. It must run over the keys, the last "
        "axis, so that each query's weights do.",
        3,
        softmax=lambda s: s.softmax(-2),
    ),
    mistake(
        "softmax-over-heads",
        "Your softmax runs over axis 1, the heads. It must run over the keys, the last axis: dim=-1.",
        3,
        softmax=lambda s: s.softmax(1 if s.dim() > 3 else 0),
    ),
    mistake(
        "softmax-over-batch",
        "Your softmax runs over axis 0, the batch. It must run over the keys, the last axis: dim=-1.",
        3,
        softmax=lambda s: s.softmax(0),
    ),
    mistake(
        "no-softmax",
        "There is no softmax: the weights are raw scores, which may be negative and do not sum to 1.",
        3,
        softmax=lambda s: s,
    ),
    mistake(
        "softmax-twice",
        "The softmax is applied twice, which flattens the weights. Once is enough.",
        3,
        softmax=lambda s: s.softmax(-1).softmax(-1),
    ),
    mistake(
        "log-softmax",
        "These are the logarithms of the weights (log_softmax); use softmax.",
        3,
        softmax=lambda s: s.log_softmax(-1),
    ),
    mistake(
        "sigmoid",
        "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use softmax.",
        3,
        softmax=lambda s: s.sigmoid(),
    ),
    mistake(
        "mask-ignored",
        "The mask has no effect: positions where it is False still get weight.",
        4,
        masking=lambda s, m: s,
    ),
    mistake(
        "mask-inverted",
        "The mask is the wrong way round: True means may attend, and you hide those.",
        4,
        masking=lambda s, m: s.masked_fill(m, -torch.inf),
    ),
    mistake(
        "mask-after-softmax",
        "You mask after the softmax, so the rows no longer sum to 1. Set the scores to −inf before it.",
        4,
        masking=lambda s, m: s,
        after_mask=lambda w, m: w.masked_fill(~m, 0.0),
    ),
    mistake(
        "mask-inf-after-softmax",
        "You set weights to −inf after the softmax. Mask the scores, before it.",
        4,
        masking=lambda s, m: s,
        after_mask=lambda w, m: w.masked_fill(~m, -torch.inf),
    ),
    mistake(
        "mask-zero",
        "Masked scores are set to 0 (or to a tiny number: 1e-9 is not −1e9), and exp(0) = 1 is weight. Set them to −inf, whose exponential is 0.",
        4,
        masking=lambda s, m: s.masked_fill(~m, 0.0),
    ),
    mistake(
        "mask-plus-inf",
        "Masked scores are set to +inf. It is −inf whose exponential is 0.",
        4,
        masking=lambda s, m: s.masked_fill(~m, torch.inf),
    ),
    mistake(
        "mask-added",
        "The bool mask is added to the scores as 0 and 1. Where it is False the score must become −inf.",
        4,
        masking=lambda s, m: s + m,
    ),
    mistake(
        "mask-transposed",
        "The mask is transposed. Its rows are queries and its columns keys, as those of the scores.",
        4,
        masking=lambda s, m: s.masked_fill(~m.transpose(-2, -1), -torch.inf),
    ),
    mistake(
        "masked-without-mask",
        "More is masked than the mask says: later keys, too. Whoever calls decides (the causal mask "
        "comes with problem 05).",
        4,
        masking=lambda s, m: s.masked_fill(~m.tril(), -torch.inf),
    ),
    mistake(
        "mask-minus-one",
        "Masked scores are set to −1, which still has weight. Set them to −inf.",
        4,
        masking=lambda s, m: s.masked_fill(~m, -1.0),
    ),
    mistake(
        "values-are-keys",
        "You average the keys. The weights choose among the values: weights @ v.",
        5,
        values=lambda q, k, v: k,
    ),
    mistake(
        "values-are-queries",
        "You average the queries. The weights choose among the values: weights @ v.",
        5,
        values=lambda q, k, v: q,
    ),
    mistake(
        "scores-from-values",
        "Queries are scored against the values. They are scored against the keys: q @ kᵀ.",
        1,
        keys=lambda k, v: v,
    ),
    mistake(
        "scores-from-values",
        "k and v have changed places: queries are scored against the keys, and the weights average "
        "the values.",
        1,
        keys=lambda k, v: v,
        values=lambda q, k, v: k,
    ),
    mistake(
        "keys-not-transposed",
        "k is not transposed: a score is the dot product of a query with a key, so k's last two axes "
        "swap before the product.",
        1,
        scores=lambda q, k: q @ k,
    ),
    mistake(
        "keys-wrong-transpose",
        "The wrong axes of k are swapped. The last two must be, whatever stands before them: "
        "transpose(-2, -1).",
        1,
        scores=lambda q, k: q @ k.transpose(0, 1),
    ),
    mistake(
        "keys-wrong-transpose",
        "The wrong axes of k are swapped. The last two must be, whatever stands before them: "
        "transpose(-2, -1).",
        1,
        scores=lambda q, k: q @ k.transpose(1, 2),
    ),
    mistake(
        "scores-transposed",
        "The scores are transposed: rows must be queries and columns keys, q @ kᵀ and not k @ qᵀ.",
        1,
        scores=lambda q, k: k @ q.transpose(-2, -1),
    ),
]
# What only a mask, or its absence, brings out.
UNMASKED = mistake(
    "masked-without-mask",
    "Later keys are masked although no mask was given. Whoever calls decides: with mask=None every "
    "query may attend to every key (the causal mask comes with problem 05).",
    4,
    unmasked=lambda s: s.masked_fill(~s.new_ones(s.shape[-2:]).bool().tril(), -torch.inf),
)
MASK_CUT = mistake(
    "mask-cut-square",
    "The mask is cut to T columns, or to S rows. It has a row for each query and a column for each "
    "key: use it as it is, it broadcasts.",
    4,
    masking=lambda s, m: s.masked_fill(~m[..., : s.size(-2), : s.size(-2)], -torch.inf),
)
MISTAKES[:0] = [MASK_CUT]  # ahead of a transposed mask, which a square one tells before
MISTAKES += [UNMASKED]
# What can be wrong with the weights when the output is right.
RETURNED = [
    mistake(
        "weights-are-scores",
        "What you return as weights are the scores before the softmax.",
        6,
        returned=lambda w, s: s,
    ),
    mistake(
        "weights-transposed",
        "The weights you return are transposed: rows must be queries and columns keys.",
        6,
        returned=lambda w, s: w.transpose(-2, -1),
    ),
    mistake(
        "weights-averaged",
        "The weights you return are averaged over the heads; return each head's own.",
        6,
        returned=lambda w, s: w.mean(1),
    ),
]
SWAPPED = mistake(
    "outputs-swapped", "You return (weights, output); the order is (output, weights).", 6
)
NOT_A_PAIR = mistake(
    "weights-not-returned",
    "forward must return two tensors: the output and the weights it used.",
    6,
)
DROPOUT_MISSING = mistake(
    "dropout-missing",
    "There is no dropout on the weights: they are the same in training and in eval mode.",
    7,
)
DROPOUT_IN_EVAL = mistake(
    "dropout-in-eval",
    "Dropout is active in eval mode. nn.Dropout follows train() and eval() by itself; "
    "F.dropout needs training=self.training.",
    7,
)
DROPOUT_ON_SCORES = mistake(
    "dropout-on-scores",
    "Dropout acts before the softmax: a dropped score of 0 still has weight. Drop the weights.",
    7,
)
DROPOUT_ON_OUTPUT = mistake(
    "dropout-on-output",
    "Dropout acts on the output; it belongs on the weights, before weights @ v.",
    7,
)
DROPOUT_ON_VALUES = mistake(
    "dropout-on-values",
    "Dropout acts on the values. It belongs on the weights: dropping one hides a whole key.",
    7,
)
DROPOUT_TWICE = mistake(
    "dropout-twice",
    "Dropout acts on the weights and again on the output. It acts on the weights alone.",
    7,
)
DROPOUT_RENORMALIZED = mistake(
    "dropout-renormalised",
    "After dropout each row of weights is brought back to the sum 1 (or the dropout is made with "
    "−inf before the softmax). nn.Dropout on the weights scales the rest by 1/(1-p) itself.",
    7,
)
WEIGHTS_BEFORE_DROPOUT = mistake(
    "weights-before-dropout",
    "The weights that you return are not the ones you used: return them after dropout.",
    7,
)
HALF_PRECISION = mistake(
    "mask-finite",
    "Masked scores get a number that float16 does not have (it ends at 65504). Use −inf, or "
    "torch.finfo(scores.dtype).min.",
    4,
)
SOFTMAX_OVERFLOWS = mistake(
    "softmax-overflows",
    "Large scores give NaN or infinity, as exp() does when it overflows. torch.softmax subtracts the "
    "largest score of each row first.",
    3,
)
MASK_FINITE = mistake(
    "mask-finite",
    "Masked scores get a number that is not low enough: when scores are large, masked positions "
    "still get weight. Use −inf.",
    4,
)


def attention(
    q,
    k,
    v,
    mask=None,
    *,
    keys=lambda k, v: k,
    scores=lambda q, k: q @ k.transpose(-2, -1),
    divisor=lambda q, k, v: q.size(-1) ** 0.5,
    divide=lambda s, d: s / d,
    unmasked=lambda s: s,
    masking=lambda s, m: s.masked_fill(~m, -torch.inf),
    softmax=lambda s: s.softmax(-1),
    after=lambda w, q: w,
    after_mask=lambda w, m: w,
    values=lambda q, k, v: v,
    product=lambda w, v: w @ v,
    returned=lambda w, s: w,
):
    """Attention with any step replaced: (output, weights)."""
    s = divide(scores(q, keys(k, v)), divisor(q, k, v))
    s = unmasked(s) if mask is None else masking(s, mask)
    w = after(softmax(s), q)
    if mask is not None:
        w = after_mask(w, mask)
    return product(w, values(q, k, v)), returned(w, s)


def qkv(*batch, t=T, s=S, d=D, e=E, seed=0, dtype=torch.float32, scale=1.5):
    """Queries (…, T, D), keys (…, S, D) and values (…, S, E)."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((*batch, t, d), (*batch, s, d), (*batch, s, e))
    return [(torch.randn(shape, generator=g) * scale).to(dtype) for shape in shapes]


def layer_of(piece, d=D, dropout=0.1):
    return piece.ScaledDotProductAttention(d, dropout).eval()


def call(layer, q, k, v, mask=None):
    """layer(q, k, v, mask), checked to be a pair of tensors of the right shapes."""
    got = layer(q, k, v, mask) if mask is not None else layer(q, k, v)
    if got is not None and (not isinstance(got, (tuple, list)) or len(got) != 2):
        fail(NOT_A_PAIR, f"It returned a {type(got).__name__}.")
    output, weights = (
        tensor(t, f"the {w}")
        for t, w in zip(got or (None, None), ("output", "weights"), strict=True)
    )
    want = (*q.shape[:-1], k.size(-2))
    if tuple(output.shape) == want and tuple(weights.shape) == (*q.shape[:-1], v.size(-1)):
        fail(SWAPPED)
    return output, weights


def examine(layer, q, k, v, mask=None, **tolerance):
    """Compare both results with PyTorch's."""
    identity = torch.eye(k.size(-2), dtype=v.dtype).expand(*k.shape[:-2], -1, -1)
    want = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    want_weights = F.scaled_dot_product_attention(q, k, identity, attn_mask=mask)
    sizes = {"d_k": q.size(-1)}
    try:
        compare(
            lambda: call(layer, q, k, v, mask)[0],
            want,
            MISTAKES,
            lambda **switches: attention(q, k, v, mask, **switches)[0],
            sizes=sizes,
            given=(q, k, v) if mask is None else (q, k, v, mask),
            **tolerance,
        )
    except CheckFailed as error:
        if not error.mistakes and mask is None:
            read_scale(call(layer, q, k, v)[1].detach(), q, k)
        raise
    compare(
        lambda: call(layer, q, k, v, mask)[1],
        want_weights,
        RETURNED,
        lambda **switches: attention(q, k, v, mask, **switches)[1],
        what="the weights",
        sizes=sizes,
        **tolerance,
    )


def read_scale(weights, q, k):
    """Fail with the number that the scores are divided by, when the weights are a softmax of some
    multiple of q kᵀ.
    """
    if weights.dim() < 2 or weights.shape != (*q.shape[:-1], k.size(-2)) or not (weights > 0).all():
        return
    logs, scores = weights.double().log(), (q @ k.transpose(-2, -1)).double()
    logs, scores = (t - t.mean(-1, keepdim=True) for t in (logs, scores))
    factor = float((logs * scores).sum() / scores.square().sum())
    if factor and torch.allclose(logs, factor * scores, rtol=1e-3, atol=1e-3):
        fail(
            f"The scores come out as q kᵀ / {1 / factor:.4g}. They must be q kᵀ / √d_k, here "
            f"{q.size(-1) ** 0.5:.4g} (d_k = {q.size(-1)}). (hint 2) [wrong-scale]",
            hint=2,
        )


@check(todo=1)
def test_builds(piece):
    """The module can be made, and has no parameters."""
    cls = piece.ScaledDotProductAttention
    expect_signature(cls.__init__, "(n_embd, dropout=0.1)", f"{cls.__name__}.__init__")
    expect_state(expect_module(cls(D)), ())
    expect_state(cls(n_embd=D, dropout=0.3), ())


@check(todo=5, needs=test_builds)
def test_worked_example(piece):
    """Two keys, scores by hand: q = (2, 0, 0, 0) gives weights 0.731 and 0.269"""
    # q·k₁ = 2 and q·k₂ = 0; divided by √4: 1 and 0; e / (e + 1) = 0.7311
    # The second query has scores 2 and 4, hence the weights the other way round; the third 0 and 0.
    q = torch.tensor([[2.0, 0, 0, 0], [2.0, 4.0, 0, 0], [0, 0, 1.0, 0]])
    k = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    v = torch.tensor([[10.0, 0, 0, 0], [0, 10.0, 0, 0]])
    layer = layer_of(piece, d=4)
    expect_also_larger(
        lambda: compare(
            lambda: call(layer, q, k, v)[0],
            torch.tensor(
                [[7.310586, 2.689414, 0, 0], [2.689414, 7.310586, 0, 0], [5.0, 5.0, 0, 0]]
            ),
            MISTAKES,
            lambda **switches: attention(q, k, v, **switches)[0],
        ),
        lambda: examine(layer_of(piece), *qkv(B, H)),
    )


@check(todo=5, needs=test_builds, points=2, follows=test_worked_example)
def test_output_and_weights(piece):
    """Output and weights equal PyTorch's, with T queries and S ≠ T keys"""
    cls = piece.ScaledDotProductAttention
    expect_signature(cls.forward, "(q, k, v, mask=None)", f"{cls.__name__}.forward")
    examine(layer_of(piece), *qkv(B, H))


@check(todo=5, needs=test_output_and_weights)
def test_any_leading_axes(piece):
    """Any number of leading axes: (T, D), (B, T, D), (B, H, T, D), more"""
    for batch in ((), (B,), (B, H, 2)):
        examine(layer_of(piece), *qkv(*batch, seed=1))


@check(todo=5, needs=test_output_and_weights)
def test_other_widths(piece):
    """The scale follows d_k: widths 1, 6 and 64, also with as many queries as keys"""
    for d in (1, 6, 64):
        examine(layer_of(piece, d=d), *qkv(B, t=S, d=d, e=d, seed=d, scale=0.8))


def _expect_low(layer, q, k, v, mask):
    """Fail with the number that stands in for −inf, when it can be read off the weights."""
    try:
        weights = call(layer, q, k, v, mask.clone())[1].detach().double()
    except Exception:
        return
    scores = (q @ k.transpose(-2, -1)).double() / q.size(-1) ** 0.5
    if weights.shape != scores.shape or not (weights > 0).all():
        return
    # weights are e^score / sum, so the log of the ratio of two of a row is their difference
    low = (weights.log() + (scores[..., :1] - weights[..., :1].log())).masked_select(~mask)
    if low.max() < -1.5 and low.max() - low.min() < 0.05:
        fail(MASK_FINITE, f"Masked scores are {low.mean():.4g}.")


@check(todo=5, needs=test_output_and_weights, points=2)
def test_mask(piece):
    """Masked positions get no weight, the others' weights sum to 1"""
    q, k, v = qkv(B, H, seed=2)
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    _expect_low(layer_of(piece), q, k, v, mask)
    # square first: a mask that is transposed or cut fails on other sizes with the same error
    square = torch.rand(S, S, generator=torch.Generator().manual_seed(2)) < 0.6
    square.fill_diagonal_(True)
    square[0] = True  # a row with nothing to hide tells −inf from 0 · ∞
    examine(layer_of(piece), *qkv(B, H, t=S, seed=2), square)
    examine(layer_of(piece), q, k, v, mask)
    _, weights = call(layer_of(piece), q, k, v, mask)
    compare(weights.sum(-1), torch.ones(B, H, T), what="the sum of each row of weights")


@check(todo=5, needs=test_mask)
def test_keeps_nothing(piece):
    """A call does not depend on the calls before it, with other masks, sizes or none"""
    g = torch.Generator().manual_seed(11)
    masks = [torch.rand(t, t, generator=g) < 0.6 for t in (S, S, 3, S)]
    masks = [mask.fill_diagonal_(True) for mask in masks]
    calls = [
        lambda layer, mask=mask, seed=seed, t=t: call(
            layer, *qkv(B, t=t, s=t, seed=seed), None if mask is None else mask.clone()
        )[0]
        for seed, (mask, t) in enumerate(
            ((masks[0], S), (masks[1], S), (None, S), (masks[2], 3), (None, 3), (masks[3], S))
        )
    ]
    expect_no_memory(layer_of(piece), calls)


@check(todo=5, needs=test_mask)
def test_mask_broadcasts(piece):
    """The mask broadcasts: (T, S), (B, 1, 1, S) and (B, H, T, S) all work"""
    q, k, v = qkv(B, H, seed=3)
    g = torch.Generator().manual_seed(3)
    for shape in ((T, S), (B, 1, 1, S), (B, 1, T, S), (B, H, T, S)):
        mask = torch.rand(shape, generator=g) < 0.6
        mask[..., 0] = True
        examine(layer_of(piece), q, k, v, mask)


@check(todo=5, needs=test_mask)
def test_mask_against_large_scores(piece):
    """A mask holds when scores are in the millions"""
    q, k, v = qkv(B, seed=4, scale=3000.0)
    mask = torch.ones(T, S, dtype=torch.bool).tril()
    _, weights = call(layer_of(piece), q, k, v, mask)
    late = attention(q, k, v, mask, **LATE_MASK.switches)[1]
    _, plain = call(layer_of(piece), q, k, v)
    if not torch.isfinite(weights).all() and torch.isfinite(plain).all():
        lost = ~torch.isfinite(weights).all(-1)
        if torch.equal(lost, ~torch.isfinite(late).all(-1)):
            fail(LATE_MASK, "With large scores whole rows of weights are NaN.")
        fail("With large scores and a mask, the weights hold NaN or infinite numbers. [not-finite]")
    if not torch.isfinite(weights).all():
        fail(SOFTMAX_OVERFLOWS, "With large scores the weights hold NaN.")
    if weights.masked_select(~mask).any():
        fail(MASK_FINITE)


@check(todo=5, needs=test_mask)
def test_mask_hides_the_largest(piece):
    """A hidden score may be far above the allowed ones, and leaves their weights as they are"""
    # each query's allowed scores lie near 0 and its hidden ones near 300, whose exponential is not
    # a float32: whoever masks after the softmax has nothing left of the row
    q, k, v = qkv(B, t=S, seed=12, scale=0.3)
    mask = torch.eye(S, dtype=torch.bool).roll(1, 0) | torch.eye(S, dtype=torch.bool)
    q, k = (F.pad(t, (0, S)) for t in (q, k))  # further axes, one for each query
    k[..., D:] = torch.eye(S) * 300 * (D + S) ** 0.5
    q[..., D:] = (~mask).float()
    v = F.pad(v, (0, S))
    _, weights = call(layer_of(piece, d=D + S), q, k, v, mask)
    identity = torch.eye(S).expand(B, -1, -1)
    want = F.scaled_dot_product_attention(q, k, identity, attn_mask=mask)
    if not torch.allclose(weights, want, rtol=1e-3, atol=1e-4):
        row = weights.detach().sum(-1).flatten()[0]
        fail(LATE_MASK, f"A row of weights whose hidden scores are 300 larger sums to {row:.3g}.")


@check(todo=5, needs=test_output_and_weights)
def test_large_scores_stay_finite(piece):
    """Scores of 1e4 overflow exp() unless the softmax subtracts the maximum"""
    q, k, v = qkv(B, seed=5, scale=100.0)
    output, _ = call(layer_of(piece), q, k, v)
    if not torch.isfinite(output).all():
        fail(SOFTMAX_OVERFLOWS)


@check(todo=5, needs=test_output_and_weights, points=2)
def test_dropout(piece):
    """Dropout acts on the weights, in training only, and the weights used are returned"""
    p = 0.4
    layer = layer_of(piece, dropout=p)
    q, k, v = qkv(B, H, t=12, s=13, seed=6, scale=0.7)
    plain_output, plain = call(layer, q, k, v)
    expect_mode_kept(layer, lambda: layer(q, k, v))
    layer.train()
    torch.manual_seed(1)
    output, weights = call(layer, q, k, v)
    layer.eval()
    if torch.allclose(weights, plain) and not torch.allclose(output, plain_output):
        kept = output.abs() > 1e-6
        on_output = torch.allclose(output[kept], plain_output[kept] / (1 - p), rtol=1e-3)
        if on_output and not kept.all():
            fail(DROPOUT_ON_OUTPUT)
        # with one key its only weight takes or leaves the whole value
        layer.train()
        q1, k1, v1 = qkv(B, H, t=12, s=1, seed=6)
        ratio = call(layer, q1, k1, v1)[0] / v1
        fail(
            WEIGHTS_BEFORE_DROPOUT
            if torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3, atol=1e-5)
            else DROPOUT_ON_VALUES
        )
    sums_to_one = torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-4)
    if sums_to_one and not torch.allclose(weights, plain, atol=1e-5):
        fail(DROPOUT_ON_SCORES if (weights > 0).all() else DROPOUT_RENORMALIZED)
    expect_dropout(
        lambda: call(layer, q, k, v)[1],
        layer,
        p,
        what="the weights",
        missing=DROPOUT_MISSING,
        in_eval=DROPOUT_IN_EVAL,
    )
    made = weights @ v
    if not torch.allclose(output, made, rtol=1e-3, atol=1e-4):
        kept = output.abs() > 1e-6
        again = torch.allclose(output[kept], made[kept] / (1 - p), rtol=1e-3, atol=1e-4)
        fail(DROPOUT_TWICE if again and not kept.all() else WEIGHTS_BEFORE_DROPOUT)


@check(todo=5, needs=test_mask, follows=test_dropout)
def test_dropout_extremes(piece):
    """dropout=0 changes nothing in training; dropout=1 leaves no weight"""
    q, k, v = qkv(B, H, seed=7)
    layer = layer_of(piece, dropout=0.0)
    for mask in (None, torch.ones(T, S, dtype=torch.bool).tril(1)):
        expect_mode_kept(layer, lambda mask=mask: layer(q, k, v, mask))
        examine(layer.train(), q, k, v, mask)
    layer = layer_of(piece, dropout=1.0).train()
    compare(
        lambda: call(layer, q, k, v)[0],
        torch.zeros(B, H, T, E),
        [],
        what="the output with dropout=1, in training,",
    )
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    if call(layer, q, k, v, mask)[1].any():
        fail(DROPOUT_MISSING, "That is so with a mask; without one there is dropout.")


@check(todo=5, needs=test_output_and_weights, follows=test_mask)
def test_gradients(piece):
    """Gradients reach queries, keys and values, and equal PyTorch's"""
    layer = layer_of(piece)
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    mine, theirs = ([t.requires_grad_() for t in qkv(B, H, seed=8)] for _ in range(2))
    output = call(layer, *mine, mask)[0]
    expect_finite_gradients(layer, output.pow(2).sum())
    F.scaled_dot_product_attention(*theirs, attn_mask=mask).pow(2).sum().backward()
    for name, a, b in zip(("q", "k", "v"), mine, theirs, strict=True):
        if a.grad is None:
            fail(f"No gradient reaches {name}: is something detached? [no-gradient]")
        compare(a.grad, b.grad, what=f"the gradient of {name}")


@check(todo=5, needs=test_mask)
def test_dtypes(piece):
    """float64, bfloat16 and float16 stay what they are, and a mask works in half precision"""
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 3e-2), (torch.float16, 5e-3)):
        q, k, v = qkv(B, H, seed=9, dtype=dtype)
        output, weights = call(layer_of(piece).to(dtype), q, k, v)
        for what, got in (("output", output), ("weights", weights)):
            if got.dtype != dtype:
                fail(
                    f"With {dtype} input the {what} come out as {got.dtype}: is a dtype written into "
                    "forward? [fixed-dtype]"
                )
        want = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
        compare(
            output.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance * 2
        )
        try:
            masked, _ = call(layer_of(piece).to(dtype), q, k, v, mask)
        except RuntimeError as error:
            if "without overflow" in str(error):
                fail(HALF_PRECISION, f"PyTorch says: {error}")
            raise
        want = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)), attn_mask=mask)
        compare(
            masked.double(),
            want,
            what=f"the output in {dtype}, with a mask",
            rtol=tolerance,
            atol=tolerance * 2,
        )


@check(todo=5, needs=test_mask)
def test_device(piece):
    """Works on whatever device the inputs are on"""
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    expect_one_device(
        layer_of(piece), lambda module, move: module(*map(move, (*qkv(B, H), mask)))[0]
    )


@check(todo=5, needs=test_output_and_weights, follows=test_mask)
def test_inputs_untouched(piece):
    """q, k, v and the mask are left as they were"""
    layer = layer_of(piece)
    q, k, v = qkv(B, H, seed=10)
    mask = torch.ones(T, S, dtype=torch.bool).tril(1)
    expect_no_edit(lambda x: layer(x, k, v, mask), q, "q")
    expect_no_edit(lambda x: layer(q, x, v, mask), k, "k")
    expect_no_edit(lambda x: layer(q, k, x, mask), v, "v")
    expect_no_edit(lambda x: layer(q, k, v, x), mask, "the mask")
