"""Checks of problem 06. The oracles are PyTorch's own GELU and linear layers."""

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
    expect_dropout,
    expect_mode_kept,
    expect_module,
    expect_one_device,
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
from learn_gpt2.checking.textbook import INNER, feed_forward, gelu

# Sizes that all differ, so that a swapped axis can't hide; N is n_inner.
B, T, C, N = sizes_from((2, 5, 6, 11), (3, 4, 7, 12), (2, 4, 8, 13))
KNOWN = known(__file__)
ACTIVATION = KNOWN.of("form", "part")


def oracle(x, w):
    """The same from PyTorch's operators."""
    h = F.gelu(F.linear(x, w["c_fc.weight"], w["c_fc.bias"]), approximate="tanh")
    return F.linear(h, w["c_proj.weight"], w["c_proj.bias"])


def activation_of(piece):
    return expect_module(piece.NewGELU())


def layer_of(piece, c=C, n=N, dropout=0.1, seed=0, scale=0.5):
    return fill(expect_module(piece.FeedForward(c, n, dropout)).eval(), seed, scale)


def x_of(*shape, seed=0, scale=1.5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    shape = shape or (B, T, C)
    return (torch.randn(shape, generator=generator) * scale).to(dtype)


def examine_activation(act, x, rtol=1e-5, atol=1e-6):
    """Compare with PyTorch's own tanh form; name the constants when they can be read off."""
    want = F.gelu(x, approximate="tanh")
    try:
        compare(
            lambda: act(x),
            want,
            ACTIVATION,
            lambda **switches: gelu(x, **switches),
            what="NewGELU's output",
            given=(x,),
            rtol=rtol,
            atol=atol,
        )
    except CheckFailed as error:
        if not error.mistakes:
            read_constants(act)
        raise


def read_constants(act):
    """Fail with the constants, when act has the form 0.5 x (1 + tanh(a x + b x³))."""
    x = torch.tensor([-1.5, -1.0, -0.5, 0.3, 0.6, 0.9, 1.2, 1.5], dtype=torch.float64)
    with torch.no_grad():
        bent = 2 * tensor(act(x)).double() / x - 1
    if bent.shape != x.shape or not (bent.abs() < 1).all():
        return
    parts = torch.stack((x, x**3), 1)
    fit = torch.linalg.lstsq(parts, bent.atanh()[:, None]).solution.flatten()
    if not torch.allclose(parts @ fit, bent.atanh(), atol=1e-5):
        return
    a, b = (float(n) for n in fit)
    if abs(a / INNER - 1) > 2e-6:
        constant = "the constant inside the tanh is √(2/π) = 0.79788…: the root covers both"
        fail(
            f"Inside the tanh x is multiplied by {a:.7g}; {constant}.",
            id="gelu-inner-constant",
            hint=1,
        )
    fail(
        f"The cubic term's constant comes out as {b / a:.6g}; it must be 0.044715.",
        id="gelu-cubic-constant",
        hint=1,
    )


def examine(layer, x):
    """Compare with PyTorch's operators on the same weights."""
    w = weights(layer)
    compare(
        lambda: layer(x),
        oracle(x, w),
        KNOWN.of("network"),
        lambda **switches: feed_forward(x, w, **switches),
        axes="B T C" if x.dim() == 3 else "",
        sizes={"C": x.size(-1)},
        given=(x,),
    )


@check(todo=1)
def test_gelu_by_hand(piece):
    """NewGELU: 1 gives 0.8412, -1 gives -0.1588, 2 gives 1.9546, 0 gives 0"""
    # at 1: 0.79788 · (1 + 0.044715) = 0.83356; tanh of that is 0.68238; 0.5 · 1.68238 = 0.84119
    act = activation_of(piece)
    x = torch.tensor([-3.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0])
    examine_activation(act, x)
    got = tensor(act(torch.tensor([1.0, -1.0, 2.0, 0.0])))
    compare(got, torch.tensor([0.841192, -0.158808, 1.954598, 0.0]), what="gelu(1, -1, 2, 0)")


@check(todo=1, needs=test_gelu_by_hand, points=3)
def test_gelu_everywhere(piece):
    """NewGELU equals PyTorch's tanh form, to seven digits in float64"""
    act = activation_of(piece)
    examine_activation(act, torch.linspace(-6, 6, 241))
    examine_activation(act, torch.linspace(-4, 4, 161, dtype=torch.float64), 5e-7, 5e-7)


@check(todo=1, needs=test_gelu_by_hand)
def test_gelu_any_shape(piece):
    """NewGELU takes any shape, and treats each number by itself"""
    act = activation_of(piece)
    for shape in ((1,), (7,), (2, 3), (2, 1, 4, 3, 5)):
        examine_activation(act, x_of(*shape, seed=len(shape)))
    got = tensor(act(torch.tensor(0.7)))
    compare(got, F.gelu(torch.tensor(0.7), approximate="tanh"), what="gelu of a single number")


@check(todo=1, needs=test_gelu_by_hand)
def test_gelu_large_numbers(piece):
    """NewGELU of ±10000 is 10000 and 0, in float32 and float16, never NaN"""
    act = activation_of(piece)
    for dtype in (torch.float32, torch.float16):
        x = torch.tensor([1e4, -1e4, 300.0, -300.0, 60.0, -60.0], dtype=dtype)
        got = tensor(act(x))
        if not torch.isfinite(got).all():
            fail(KNOWN["gelu-not-finite"], f"In {dtype}, {x.tolist()} gives {got.tolist()}.")
        compare(got.float(), x.float().relu(), ACTIVATION, gelu, what=f"gelu(±10000 …) in {dtype}")
    x = torch.tensor([1e4, -1e4, 50.0, -50.0], requires_grad=True)
    act(x).sum().backward()
    if x.grad is None or not torch.isfinite(x.grad).all():
        fail(KNOWN["gelu-not-finite"], "The gradient at ±10000 is not finite.")


@check(todo=1, needs=test_gelu_by_hand, follows=test_gelu_everywhere)
def test_gelu_dtypes(piece):
    """NewGELU gives float64, float32, bfloat16 and float16 back as they are"""
    act = activation_of(piece)
    for dtype, tolerance in (
        (torch.float64, 1e-6),
        (torch.float32, 1e-6),
        (torch.bfloat16, 2e-2),
        (torch.float16, 5e-3),
    ):
        x = x_of(50, seed=1, dtype=dtype)
        got = tensor(act(x))
        if got.dtype != dtype:
            fail(KNOWN["fixed-dtype"], f"{dtype} goes in, {got.dtype} comes out.")
        want = F.gelu(x.double(), approximate="tanh")
        compare(got.double(), want, what=f"gelu(x) in {dtype}", rtol=tolerance, atol=tolerance)


@check(todo=1, needs=test_gelu_by_hand)
def test_gelu_gradient(piece):
    """NewGELU's gradient is that of PyTorch's tanh form, and has no parameters"""
    act = activation_of(piece)
    expect_state(act, ())
    if list(act.parameters()):
        fail("NewGELU has parameters; its constants are fixed.", id="extra-parameters")
    mine = torch.linspace(-5, 5, 41, requires_grad=True)
    theirs = mine.detach().clone().requires_grad_()
    out = act(mine)
    if not out.requires_grad:
        fail("No gradient flows back through NewGELU: is something detached?", id="no-gradient")
    out.sum().backward()
    F.gelu(theirs, approximate="tanh").sum().backward()
    if not torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5):
        fail(KNOWN["wrong-gradient"], f"At x = 5 it is {mine.grad[-1]:.4g}, expected 1.")
    given = torch.linspace(-3, 3, 13)
    before = given.clone()
    act(given)
    if not torch.equal(given, before):
        fail(KNOWN["edits-input"])
    expect_one_device(act, lambda module, move: module(move(given)))


@check(todo=2)
def test_builds(piece):
    """FeedForward holds c_fc, act, c_proj and drop, in these sizes."""
    cls = piece.FeedForward
    expect_signature(cls.__init__, "(n_embd, n_inner, dropout=0.1)", "FeedForward.__init__")
    layer = expect_module(cls(n_embd=C, n_inner=N, dropout=0.3))
    fc, proj = (attribute(layer, name, nn.Linear) for name in ("c_fc", "c_proj"))
    shapes = [tuple(linear.weight.shape[::-1]) for linear in (fc, proj)]
    found = f"Made with C = {C}, n_inner = {N}: c_fc is {shapes[0]}, c_proj is {shapes[1]}."
    if shapes == [(N, C), (C, N)]:
        fail(KNOWN["widths-swapped"], found)
    if shapes == [(C, 4 * C), (4 * C, C)]:
        fail(KNOWN["n-inner-ignored"], found)
    if shapes != [(C, N), (N, C)]:
        fail(KNOWN["layer-shape"], found)
    for name, linear in (("c_fc", fc), ("c_proj", proj)):
        if linear.bias is None:
            fail(KNOWN["bias-missing"], f"{name}.bias is None.")
        if linear.weight.dtype != torch.float32:
            fail(
                f"{name} has dtype {linear.weight.dtype}, expected torch.float32.", id="fixed-dtype"
            )
    if fc.weight.data_ptr() == proj.weight.data_ptr():
        fail(KNOWN["shared-layers"])
    attribute(layer, "act", piece.NewGELU, "the contract says that act is a NewGELU")
    drop = attribute(layer, "drop", nn.Dropout, "other code looks for it and sets its p")
    default = cls(C, N).drop.p
    if drop.p != 0.3 or default != 0.1:
        asked, got = (0.3, drop.p) if drop.p != 0.3 else ("nothing", default)
        fail(KNOWN["dropout-rate"], f"dropout={asked} was asked for, and drop.p is {got}.")
    names = [f"{name}.{kind}" for name in ("c_fc", "c_proj") for kind in ("weight", "bias")]
    expect_own_start(lambda: cls(C, N))
    expect_state(
        layer,
        names,
        {
            "ln": KNOWN["layer-norm-added"],
            "norm": KNOWN["layer-norm-added"],
            "weight": KNOWN["extra-layer"],
            "bias": KNOWN["extra-layer"],
        },
    )


@check(todo=3, needs=(test_gelu_by_hand, test_builds))
def test_worked_example(piece):
    """By hand: x = (1, -1) widens to (1, -1, 2), bends to (0.841, -0.159, 1.955), narrows to 2"""
    layer = layer_of(piece, 2, 3)
    with torch.no_grad():
        layer.c_fc.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [1, -1]]))
        layer.c_proj.weight.copy_(torch.tensor([[1.0, 1, 0], [0, 0, 1]]))
        layer.c_fc.bias.zero_()
        layer.c_proj.bias.copy_(torch.tensor([0.5, 1.0]))
    # the second token: (0, 2) widens to (0, 2, -2) and bends to (0, 1.954598, -0.045402)
    x = torch.tensor([[[1.0, -1.0], [0.0, 2.0]]])
    expect_also_larger(lambda: examine(layer, x), lambda: examine(layer_of(piece), x_of()))
    want = torch.tensor([[[1.182384, 2.954598], [2.454598, 0.954598]]])
    compare(layer(x), want, rtol=1e-4, axes="B T C")


@check(todo=3, needs=test_worked_example, points=3)
def test_network(piece):
    """c_proj(act(c_fc(x))), as PyTorch's operators compute it, for wide and narrow n_inner"""
    examine(layer_of(piece), x_of())
    for b, t, c, n in ((1, 3, 5, 20), (3, 1, 4, 2), (2, 5, 1, 7), (2, 3, 16, 64)):
        examine(layer_of(piece, c, n, seed=n), x_of(b, t, c, seed=c))


@check(todo=3, needs=test_network)
def test_each_token_by_itself(piece):
    """Changing one token changes that token's output and no other"""
    layer = layer_of(piece, seed=1)
    x = x_of(2, 5, C)
    y = tensor(layer(x))
    changed = x.clone()
    changed[1, 2] += 1.0
    moved = (tensor(layer(changed)) - y).abs().amax(-1) > 1e-6
    if moved.sum() != 1 or not moved[1, 2]:
        fail(
            "Tokens are mixed: a change in one token reaches others. Each goes through by itself.",
            id="mixes-tokens",
            hint=4,
        )


@check(todo=3, needs=test_network, points=2)
def test_dropout(piece):
    """Dropout is the last step, in training only, with the rate that was asked for"""
    x = x_of(3, 8, C, seed=2)
    layer = layer_of(piece, dropout=1.0, seed=2)
    expect_mode_kept(layer, lambda: layer(x))
    layer.train()
    w = weights(layer)
    got, again = layer(x), layer(x)
    if not torch.equal(got, again):
        fail(KNOWN["dropout-rate"], "With dropout=1, in training, not everything is 0.")
    compare(
        got,
        torch.zeros(3, 8, C),
        KNOWN.of("dropout"),
        lambda **switches: feed_forward(x, w, **switches),
        what="the output with dropout=1 in training",
    )
    p = 0.4
    layer = layer_of(piece, dropout=p, seed=2)
    expect_dropout(
        lambda: layer(x),
        layer,
        p,
        missing=KNOWN["dropout-missing"],
        in_eval=KNOWN["dropout-in-eval"],
        misplaced=KNOWN["dropout-misplaced"],
    )
    layer.train()
    torch.manual_seed(0)
    with torch.no_grad():
        gone = layer(x) == 0
    for axis in range(3):
        if (gone == gone.select(axis, 0).unsqueeze(axis)).all():
            fail(KNOWN["dropout-whole-rows"])


@check(todo=3, needs=test_network)
def test_no_dropout(piece):
    """dropout=0 changes nothing in training"""
    examine(layer_of(piece, dropout=0.0, seed=3).train(), x_of(seed=3))


again = Recurring(layer_of, x_of, oracle, todo=3, needs=test_network)
test_gradients = again.gradients(
    "Gradients reach x and both layers, and equal those of PyTorch's operators",
    seed=4,
    follows=test_gelu_gradient,
)
test_dtypes = again.dtypes(
    "float64 and bfloat16 stay what they are",
    seed=5,
    fixed=KNOWN["fixed-dtype"],
    follows=(test_gelu_dtypes, test_gelu_everywhere),
)
test_device_and_copies = again.copies(
    "Works on x's device, leaves x as it was; a copy and a loaded state_dict give the same",
    *(3, 5, C),
    seed=6,
    untouched="x",
    device=True,
    name="test_device_and_copies",
)
