"""Checks of problem 03. The oracle is PyTorch's own scaled_dot_product_attention."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import known
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
    sizes_from,
    tensor,
)
from learn_gpt2.checking.textbook import attention

# Sizes that all differ, so that a swapped axis can't hide; no root of one is another, rounded.
B, H, T, S, D = sizes_from((2, 3, 5, 7, 10), (3, 2, 4, 7, 11), (2, 4, 3, 7, 14))
E = D  # the contract gives values the queries' width: √d_k may be read off any of the three


# What only a mask, or its absence, brings out.

KNOWN = known(__file__)
# A mask that is cut comes ahead of one that is transposed, which a square one tells before.
MISTAKES = KNOWN.of("mask-cut", "attention", "unmasked")


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
        fail(KNOWN["weights-not-returned"], f"It returned a {type(got).__name__}.")
    output, weights = (
        tensor(t, f"the {w}")
        for t, w in zip(got or (None, None), ("output", "weights"), strict=True)
    )
    want = (*q.shape[:-1], k.size(-2))
    if tuple(output.shape) == want and tuple(weights.shape) == (*q.shape[:-1], v.size(-1)):
        fail(KNOWN["outputs-swapped"])
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
        KNOWN.of("returned"),
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
            f"{q.size(-1) ** 0.5:.4g} (d_k = {q.size(-1)}).",
            id="wrong-scale",
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
        fail(KNOWN["mask-finite:too-high"], f"Masked scores are {low.mean():.4g}.")


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
    late = attention(q, k, v, mask, **KNOWN["mask-after-softmax:renormalized"].switches)[1]
    _, plain = call(layer_of(piece), q, k, v)
    if not torch.isfinite(weights).all() and torch.isfinite(plain).all():
        lost = ~torch.isfinite(weights).all(-1)
        if torch.equal(lost, ~torch.isfinite(late).all(-1)):
            fail(
                KNOWN["mask-after-softmax:renormalized"],
                "With large scores whole rows of weights are NaN.",
            )
        fail(
            "With large scores and a mask, the weights hold NaN or infinite numbers.",
            id="not-finite",
        )
    if not torch.isfinite(weights).all():
        fail(KNOWN["softmax-overflows"], "With large scores the weights hold NaN.")
    if weights.masked_select(~mask).any():
        fail(KNOWN["mask-finite:too-high"])


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
        fail(
            KNOWN["mask-after-softmax:renormalized"],
            f"A row of weights whose hidden scores are 300 larger sums to {row:.3g}.",
        )


@check(todo=5, needs=test_output_and_weights)
def test_large_scores_stay_finite(piece):
    """Scores of 1e4 overflow exp() unless the softmax subtracts the maximum"""
    q, k, v = qkv(B, seed=5, scale=100.0)
    output, _ = call(layer_of(piece), q, k, v)
    if not torch.isfinite(output).all():
        fail(KNOWN["softmax-overflows"])


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
            fail(KNOWN["dropout-on-output"])
        # with one key its only weight takes or leaves the whole value
        layer.train()
        q1, k1, v1 = qkv(B, H, t=12, s=1, seed=6)
        ratio = call(layer, q1, k1, v1)[0] / v1
        fail(
            KNOWN["weights-before-dropout"]
            if torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3, atol=1e-5)
            else KNOWN["dropout-on-values"]
        )
    sums_to_one = torch.allclose(weights.sum(-1), torch.ones(()), atol=1e-4)
    if sums_to_one and not torch.allclose(weights, plain, atol=1e-5):
        fail(KNOWN["dropout-on-scores"] if (weights > 0).all() else KNOWN["dropout-renormalised"])
    expect_dropout(
        lambda: call(layer, q, k, v)[1],
        layer,
        p,
        what="the weights",
        missing=KNOWN["dropout-missing"],
        in_eval=KNOWN["dropout-in-eval"],
    )
    made = weights @ v
    if not torch.allclose(output, made, rtol=1e-3, atol=1e-4):
        kept = output.abs() > 1e-6
        again = torch.allclose(output[kept], made[kept] / (1 - p), rtol=1e-3, atol=1e-4)
        fail(
            KNOWN["dropout-twice"] if again and not kept.all() else KNOWN["weights-before-dropout"]
        )


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
        fail(KNOWN["dropout-missing"], "That is so with a mask; without one there is dropout.")


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
            fail(f"No gradient reaches {name}: is something detached?", id="no-gradient")
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
                    "forward?",
                    id="fixed-dtype",
                )
        want = F.scaled_dot_product_attention(*(t.double() for t in (q, k, v)))
        compare(
            output.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance * 2
        )
        try:
            masked, _ = call(layer_of(piece).to(dtype), q, k, v, mask)
        except RuntimeError as error:
            if "without overflow" in str(error):
                fail(KNOWN["mask-finite"], f"PyTorch says: {error}")
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
