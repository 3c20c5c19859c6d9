"""Checks of problem 02. The oracle is PyTorch's own attention, with its scale set to 1."""

import torch
import torch.nn.functional as F
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_mode_kept,
    expect_module,
    expect_no_memory,
    expect_own_start,
    expect_signature,
    expect_state,
    fail,
    fill,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.recurring import Recurring
from learn_gpt2.checking.textbook import linear as affine
from learn_gpt2.checking.textbook import simple_attention

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C = sizes_from(
    (2, 5, 7), (3, 7, 11), (2, 6, 13)
)  # no root or ratio of two of them is another
ROLES = ("query", "key", "value")
KNOWN = known(__file__)
# What comes first is not tried in pairs: two roles in a row say "queries from key and keys from
# query".
MISTAKES = KNOWN.of("rotated", "roles", "attention")


def layer_of(piece, c=C, seed=0, scale=0.5):
    return fill(expect_module(piece.SimpleAttention(c)).eval(), seed, scale)


def x_of(b=B, t=T, c=C, seed=0, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(b, t, c, generator=generator) * scale).to(dtype)


def call(layer, x):
    """layer(x), checked to be one tensor."""
    got = layer(x)
    if isinstance(got, (tuple, list)):
        fail(KNOWN["returns-a-pair"], f"It returned a {type(got).__name__} of {len(got)}.")
    return got


def oracle(x, w):
    """PyTorch's own attention."""
    return F.scaled_dot_product_attention(*(affine(x, w, name) for name in ROLES), scale=1.0)


def examine(layer, x, **tolerance):
    """Compare with PyTorch's own attention."""
    w = weights(layer)
    try:
        compare(
            lambda: call(layer, x),
            oracle(x, w),
            MISTAKES,
            lambda **switches: simple_attention(x, w, **switches),
            axes="B T C",
            sizes={"C": x.size(-1), "T": x.size(1)},
            given=(x,),
            **tolerance,
        )
    except CheckFailed as error:
        if not error.mistakes:
            read_back(layer)
        raise


def read_back(layer):
    """Fail with what the weights are, read off the output of a text that is shorter than wide.

    With T < C the rows of v are independent, so that output = weights @ v has one solution.
    """
    layer = fill(type(layer)(8).eval().double(), 9, scale=0.2)
    x, w = x_of(1, 3, 8, seed=9, dtype=torch.float64), weights(layer)
    with torch.no_grad():
        y = layer(x)[0]
    q, k, v = (affine(x, w, name)[0] for name in ROLES)
    if y.shape != v.shape:
        return
    used = torch.linalg.lstsq(v.mT, y.mT).solution.mT  # (T, T)
    if not torch.allclose(used @ v, y, atol=1e-6):
        fail(KNOWN["output-not-of-values"])
    row = f"Weights of the first of three tokens: {', '.join(f'{n:.3f}' for n in used[0])}"
    sums = used.sum(-1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        fail(KNOWN["weights-sum"], f"{row}; their sum is {sums[0]:.3f}")
    if (used.abs() < 1e-9).any():
        fail(KNOWN["masked"], row)
    if (used < 0).any():
        fail(KNOWN["no-softmax"], row)
    mine, right = used.log(), q @ k.mT
    mine, right = (s - s.mean(-1, keepdim=True) for s in (mine, right))
    ratio = float((mine * right).sum() / right.square().sum())
    if torch.allclose(mine, right, atol=1e-6):
        return
    if torch.allclose(mine, right * ratio, atol=1e-6):
        fail(KNOWN["scaled"], f"The scores are {ratio:.4g} times as large as they should be.", row)
    fail(KNOWN["wrong-scores"], row)


@check(todo=1)
def test_builds(piece):
    """The module holds three layers of its own, query, key and value, each nn.Linear(C, C)."""
    cls = piece.SimpleAttention
    expect_signature(cls.__init__, "(n_embd)", "SimpleAttention.__init__")
    layer = expect_module(cls(n_embd=C))
    layers = [
        attribute(layer, name, nn.Linear, "the tests and the notebook set weights under it")
        for name in ROLES
    ]
    for name, linear in zip(ROLES, layers, strict=True):
        if tuple(linear.weight.shape) != (C, C):
            out, into = linear.weight.shape
            fail(
                KNOWN["layer-shape"], f"With C = {C}, {name} takes {into} numbers and gives {out}."
            )
        if linear.bias is None:
            fail(KNOWN["bias-missing"], f"{name}.bias is None.")
        if linear.weight.dtype != torch.float32:
            fail(
                f"{name} has dtype {linear.weight.dtype}, expected torch.float32.", id="fixed-dtype"
            )
    if len({id(linear.weight) for linear in layers}) < 3:
        fail(KNOWN["shared-layers"])
    names = [f"{name}.{kind}" for name in ROLES for kind in ("weight", "bias")]
    explain = {
        "ln": KNOWN["layer-norm-added"],
        "norm": KNOWN["layer-norm-added"],
        "weight": KNOWN["extra-projection"],
        "bias": KNOWN["extra-projection"],
    }
    expect_state(layer, names, explain)
    expect_own_start(lambda: cls(C))


@check(todo=5, needs=test_builds)
def test_worked_example(piece):
    """Three words by hand: the first one's scores 0, 1, 2 give weights 0.090, 0.245, 0.665"""
    layer = layer_of(piece, 2)
    with torch.no_grad():
        layer.query.weight.copy_(torch.tensor([[1.0, 0], [0, 2]]))  # (a, b) → (a, 2b)
        layer.key.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]))  # (a, b) → (b, a)
        layer.value.weight.copy_(torch.tensor([[10.0, 0], [0, 100]]))  # (a, b) → (10a, 100b)
        for name in ROLES:
            getattr(layer, name).bias.zero_()
    x = torch.tensor([[[1.0, 0], [0, 1], [1, 2]]])
    expect_also_larger(
        lambda: examine(layer, torch.cat((x, x_of(3, 3, 2)))),
        lambda: examine(layer_of(piece), x_of()),
    )
    want = torch.tensor([[[7.5527, 157.5210], [9.3662, 100.0], [9.9410, 175.7100]]])
    compare(call(layer, x), want, rtol=1e-4, axes="B T C")


@check(todo=5, needs=test_worked_example, points=3)
def test_attention(piece):
    """Every token gets its average of all tokens' values, as PyTorch's attention computes it"""
    examine(layer_of(piece), x_of())
    texts = [x_of(b, t, seed=i) for i, (b, t) in enumerate(((1, 3), (2, 3), (1, 5), (2, 3)))]
    calls = [lambda m, x=x: tensor(call(m, x)) for x in texts]
    expect_no_memory(layer_of(piece), [*calls, *calls[1:]])
    for b, t, c in ((1, 5, 3), (3, 2, 4), (4, 4, 4), (2, 7, 3)):
        examine(layer_of(piece, c, seed=b), x_of(b, t, c, seed=t))


@check(todo=5, needs=test_attention)
def test_one_token(piece):
    """A single token attends to itself alone: its output is its value"""
    layer = layer_of(piece, seed=1)
    for b in (1, 3):
        examine(layer, x_of(b, 1, seed=b))


@check(todo=5, needs=test_attention)
def test_other_sizes(piece):
    """No size is written into the code: widths 1 and 64, texts longer than wide"""
    for b, t, c in ((2, 3, 1), (1, 9, 2), (2, 3, 64), (1, 70, 5)):
        examine(layer_of(piece, c, seed=c, scale=0.3), x_of(b, t, c, seed=t, scale=0.7))


@check(todo=5, needs=test_attention)
def test_order_does_not_matter(piece):
    """No mask and no positions: shuffling the tokens shuffles the outputs and nothing else"""
    layer = layer_of(piece, seed=2)
    x = x_of(2, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    compare(call(layer, x[:, order]), call(layer, x)[:, order], what="the output in another order")


@check(todo=5, needs=test_attention)
def test_large_scores_stay_finite(piece):
    """Scores of 1e4 overflow exp() unless the softmax subtracts the maximum"""
    layer = layer_of(piece, seed=3, scale=5.0)
    x = x_of(seed=4, scale=40.0)
    if not torch.isfinite(tensor(call(layer, x))).all():
        fail(
            "Large scores give NaN: exp() overflows. torch.softmax subtracts the largest score "
            "first.",
            id="softmax-overflows",
            hint=4,
        )
    examine(layer, x, rtol=1e-3, atol=1e-2)


@check(todo=5, needs=test_attention)
def test_no_dropout(piece):
    """Training and eval mode give the same"""
    layer = layer_of(piece, seed=4)
    x = x_of(3, 16)
    want = call(layer, x)
    expect_mode_kept(layer, lambda: layer(x))
    layer.train()
    if torch.equal(call(layer, x), call(layer, x)):
        examine(layer, x)
    for _ in range(5):
        if not torch.allclose(call(layer, x), want, rtol=1e-4, atol=1e-5):
            fail(KNOWN["dropout-added"])


again = Recurring(layer_of, x_of, oracle, call, todo=5, needs=test_attention)
test_gradients = again.gradients(
    "Gradients reach x and the three layers, and equal those of PyTorch's attention",
    seed=5,
    # a key's bias adds the same to all scores of a query, so the softmax undoes it
    optional=("key.bias",),
)
test_dtypes = again.dtypes("float64 and bfloat16 stay what they are", seed=6, scale=0.3)
test_device = again.device(
    "Works on whatever device x is on, and leaves x as it was", untouched="x"
)
test_copies = again.copies(
    "A copy, and a module that loads the state_dict, give the same",
    *(3, 5),
    seed=7,
)
