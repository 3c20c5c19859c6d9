"""Checks of problem 07. The oracle is PyTorch's own layer_norm, on the learner's parameters."""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_copies,
    expect_finite_gradients,
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
from learn_gpt2.checking.textbook import layer_norm

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C, H = sizes_from((2, 3, 8, 5), (3, 4, 10, 7), (2, 5, 9, 6))

KNOWN = known(__file__)


def random(*shape, seed=0, scale=1.5, shift=0.7):
    """Numbers whose mean is not 0 and whose variance is not 1."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * scale + shift


def layer_of(piece, n_embd=C, seed=0, **options):
    """A LayerNorm with random weight and bias, none of them near 0 or 1."""
    layer = fill(piece.LayerNorm(n_embd, **options), seed)
    with torch.no_grad():
        layer.weight.copy_(layer.weight.sign() * (layer.weight.abs() + 0.3))
        layer.bias.copy_(layer.bias + 0.2)
    return layer.eval()


def examine(layer, x, eps=1e-5, **tolerance):
    """Compare with PyTorch's layer norm on the same weight and bias."""
    w, b = weights(layer)["weight"], weights(layer)["bias"]
    compare(
        lambda: layer(x),
        F.layer_norm(x, w.shape, w, b, eps),
        KNOWN.of("norm"),
        lambda **switches: layer_norm(x, w, b, eps, **switches),
        sizes={"n_embd": x.size(-1)},
        axes="B T C" if x.dim() == 3 else "",
        given=(x,),
        **tolerance,
    )


def small(eps, seed=0):
    """Tokens of variances below, around and above eps; those of the last are all equal: (B, T, C)."""
    sizes = torch.logspace(-3.5, 1, B * T).view(B, T, 1) * eps**0.5
    x = random(B, T, C, seed=seed, scale=1.0, shift=0.0) * sizes
    x[-1, -1] = 0.5
    return x


def used_epsilon(y, x, w, b):
    """The eps with which y was made of x: root² − variance, when it is one number; else None."""
    y, centered = ((y - b) / w).double()[:, :-1], (x - x.mean(-1, keepdim=True)).double()[:, :-1]
    square = ((centered * y).sum(-1) / (y * y).sum(-1)) ** 2  # y = centered / root
    variance = x[:, :-1].double().var(-1, correction=0)
    eps = (square - variance).flatten()[variance.argmin()]
    return float(eps) if torch.allclose(square, variance + eps, rtol=0.01, atol=0) else None


def examine_epsilon(run, x, w, b, eps, given):
    """Check what stands under the root: `run()` is the layer norm of x, made with eps = `given`."""
    got = tensor(run()).detach()
    used = used_epsilon(got, x, w, b) if got.shape == x.shape else None
    once = F.layer_norm(x, w.shape, None, None, eps)
    twice = F.layer_norm(once, w.shape, w, b, eps)
    if eps > 0.1 and got.shape == x.shape and torch.allclose(got, twice, atol=1e-5):
        fail(KNOWN["normalised-twice"])
    if used is not None and abs(used - eps) > 0.02 * eps:
        if not torch.isfinite(got).all():
            fail(KNOWN["eps-missing"], "A token of equal numbers gives NaN or infinity.")
        found = f"The numbers fit eps = {used:.3g}, expected {eps:g}."
        if abs(used - eps**2) < 0.05 * eps**2:
            fail(KNOWN["eps-squared"], found)
        fail(
            KNOWN["eps-ignored"] if given and abs(used - 1e-5) < 2e-6 else KNOWN["eps-wrong"], found
        )
    want = F.layer_norm(x, w.shape, w, b, eps)
    try:
        compare(
            run, want, KNOWN.of("norm"), lambda **switches: layer_norm(x, w, b, eps, **switches)
        )
    except CheckFailed as error:
        if error.mistakes:
            raise
        fail(KNOWN["eps-misplaced"], *str(error).splitlines()[-1:])


def expect_parameter(layer, name, value, size):
    """Check that the attribute is an nn.Parameter (size,) that starts at `value`."""
    found = attribute(layer, name, Tensor)
    if not isinstance(found, nn.Parameter):
        kind = "buffer" if name in dict(layer.named_buffers()) else "plain tensor"
        fail(KNOWN["not-a-parameter"], f"{name} is a {kind}.")
    if tuple(found.shape) != (size,):
        at = f"{name} has the shape {tuple(found.shape)}, expected ({size},) for n_embd = {size}."
        other = tuple(attribute(type(layer)(size + 3), name, Tensor).shape)
        fixed = other == tuple(found.shape) and found.dim() == 1 and found.numel() > 1
        fail(KNOWN["hard-coded-size"] if fixed else KNOWN["parameter-shape"], at)
    if not found.requires_grad:
        fail(KNOWN["frozen-parameter"], f"{name}.requires_grad is False.")
    if not (found == value).all():
        first = float(found.detach().flatten()[0])
        fail(KNOWN["wrong-start"], f"{name} starts with {first:.4g}, expected {value:g}.")


# ── layer norm: the checks ──────────────────────────────────────────────────────────────────────


@check(todo=1)
def test_weight_and_bias(piece):
    """LayerNorm's weight and bias are parameters (C,), ones and zeros"""
    for size in (C, 5):
        layer = expect_module(piece.LayerNorm(size))
        expect_parameter(layer, "weight", 1.0, size)
        expect_parameter(layer, "bias", 0.0, size)
    expect_state(
        layer,
        ("weight", "bias"),
        {"running": KNOWN["running-statistics"], "num_batches": KNOWN["running-statistics"]},
    )
    if layer.weight is layer.bias or layer.weight.data_ptr() == layer.bias.data_ptr():
        fail("weight and bias are one and the same tensor; they are two.", id="shared-parameters")
    expect_own_start(lambda: piece.LayerNorm(C))


@check(todo=1, needs=test_weight_and_bias)
def test_eps(piece):
    """eps is an attribute: 1e-5 unless another is asked for"""
    why = "a reader of the model finds the epsilon there"
    kinds = (float, int, Tensor)
    # PyTorch's own __init__, inherited, calls the size by another name: that is fine
    if piece.LayerNorm.__init__ is not nn.LayerNorm.__init__:
        expect_signature(piece.LayerNorm.__init__, "(n_embd, eps=1e-5)", "LayerNorm")
    layer = piece.LayerNorm(C)
    if abs(float(attribute(layer, "eps", kinds, why)) - 1e-5) > 1e-9:
        fail(KNOWN["eps-default"], f"LayerNorm({C}).eps is {float(layer.eps):g}.")
    for layer in (piece.LayerNorm(C, eps=0.25), piece.LayerNorm(C, 0.25)):
        if abs(float(layer.eps) - 0.25) > 1e-6:
            fail(KNOWN["eps-ignored"], f"LayerNorm({C}, eps=0.25).eps is {float(layer.eps):g}.")


@check(todo=2, needs=test_weight_and_bias)
def test_worked_example(piece):
    """By hand: (1, 3, 3, 9) has mean 4, standard deviation 3, and becomes (−1, −⅓, −⅓, 1⅔)"""
    # distances −3, −1, −1, 5; their squares 9 + 1 + 1 + 25 = 36; variance 36/4 = 9
    # ten times as large or shifted by 1, layer norm sees no difference; mirrored, it is mirrored
    layer = piece.LayerNorm(4).eval()
    token = torch.tensor([1.0, 3.0, 3.0, 9.0])
    x = torch.stack((token, 10 * token, token + 1, -token, token - 2, 3 * token)).view(2, 3, 4)
    want = torch.tensor([-3.0, -1.0, -1.0, 5.0]) / 3
    want = torch.stack((want, want, want, -want, want, want)).view(2, 3, 4)
    w, b = torch.ones(4), torch.zeros(4)
    expect_also_larger(
        lambda: compare(
            lambda: layer(x),
            want,
            KNOWN.of("norm"),
            lambda **switches: layer_norm(x, w, b, 1e-5, **switches),
            axes="B T C",
            given=(x,),
        ),
        lambda: examine(layer_of(piece), random(B, T, C)),
    )


@check(todo=2, needs=test_weight_and_bias, points=2, follows=(test_worked_example, test_eps))
def test_values(piece):
    """Each token is normalized by itself, then scaled by weight and shifted by bias"""
    examine(layer_of(piece), random(B, T, C))


test_remembers_nothing = Recurring(layer_of, random, todo=2, needs=test_values).memory(
    "What a call gives does not depend on the calls before it",
    *((B, T, C), (B, T, C), (1, H, C)),
    hint=6,
    name="test_remembers_nothing",
)


@check(todo=2, needs=test_remembers_nothing)
def test_any_leading_axes(piece):
    """The last axis is normalized, however many stand before it"""
    layer = layer_of(piece, seed=1)
    for shape in ((C,), (T, C), (B, H, T, C), (1, 1, C), (B, 1, C), (1, T, C)):
        examine(layer, random(*shape, seed=len(shape)))
    examine(layer, random(B, C, T, seed=3).transpose(1, 2))


@check(todo=2, needs=test_values, points=2, follows=test_eps)
def test_epsilon(piece):
    """eps stands under the root, and is the one asked for: seen on tokens of tiny variance"""
    for options, eps in (({"eps": 0.2}, 0.2), ({}, 1e-5), ({"eps": 1e-3}, 1e-3)):
        layer = layer_of(piece, **options)
        x = small(eps)
        w, b = weights(layer)["weight"], weights(layer)["bias"]
        examine_epsilon(lambda layer=layer, x=x: layer(x), x, w, b, eps, bool(options))


@check(todo=2, needs=test_epsilon)
def test_other_widths(piece):
    """Other widths: 1, 3 and 65"""
    for size in (1, 3, 65):
        layer = layer_of(piece, size)
        examine(layer, random(B, T, size, seed=size), rtol=1e-3, atol=1e-3)


@check(todo=2, needs=test_epsilon)
def test_equal_numbers(piece):
    """A token of C equal numbers has variance 0: the result is the bias, and gradients are finite"""
    layer = layer_of(piece)
    x = torch.full((B, T, C), 3.0, requires_grad=True)
    got = tensor(layer(x))
    if not torch.isfinite(got).all():
        fail(KNOWN["eps-missing"], "The result is NaN or infinite.")
    compare(got, weights(layer)["bias"].expand(B, T, C))
    got.sum().backward()
    if x.grad is not None and not torch.isfinite(x.grad).all():
        fail(
            "The gradient is NaN when the variance is 0: the slope of √v at 0 is infinite. With eps "
            "under the root it is finite.",
            id="bad-gradient",
        )


@check(todo=2, needs=test_values, follows=test_remembers_nothing)
def test_same_in_training(piece):
    """It does the same in training and in eval mode, and the same again"""
    layer, x = layer_of(piece), random(B, T, C, seed=4)
    before = tensor(layer(x)).detach().clone()
    layer.train()
    for seed in range(3):
        if not torch.allclose(tensor(layer(x)), before, atol=1e-5):
            fail(KNOWN["train-differs"])
        layer(random(B, T, C, seed=seed, shift=9.0))
    layer.eval()
    if not torch.allclose(tensor(layer(x)), before, atol=1e-5):
        fail(
            KNOWN["running-statistics"],
            "After other inputs in training mode, the same input gives other numbers.",
        )


@check(todo=2, needs=test_values, points=2)
def test_gradients(piece):
    """Gradients reach weight, bias and x, through mean and variance too"""
    layer, x, up = layer_of(piece), random(B, T, C, seed=5), random(B, T, C, seed=6)
    expect_finite_gradients(layer, (tensor(layer(x)) * up).sum())
    w, b = weights(layer)["weight"], weights(layer)["bias"]

    def gradient(run):
        with torch.enable_grad():
            given = x.clone().requires_grad_()
            (found,) = torch.autograd.grad((run(given) * up).sum(), given, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    compare(
        gradient(layer),
        gradient(lambda given: F.layer_norm(given, w.shape, w, b, 1e-5)),
        KNOWN.of("gradient"),
        lambda **switches: gradient(lambda given: layer_norm(given, w, b, 1e-5, **switches)),
        what="the gradient of x",
        axes="B T C",
    )


@check(todo=2, needs=test_values)
def test_dtype_and_device(piece):
    """bfloat16 in, bfloat16 out; nothing is tied to the CPU; copies and saved files agree"""
    layer, x = layer_of(piece), random(B, T, C, seed=7)
    expect_copies(layer, lambda module: module(x))
    expect_one_device(layer, lambda module, move: module(move(x)))
    w, b = weights(layer)["weight"], weights(layer)["bias"]
    got = tensor(layer.to(torch.bfloat16)(x.bfloat16()))
    if got.dtype != torch.bfloat16:
        fail(KNOWN["dtype-changed"], f"x is bfloat16, the result {got.dtype}.")
    compare(got.float(), F.layer_norm(x, w.shape, w, b, 1e-5), rtol=0.1, atol=0.1)


# ── residual block ──────────────────────────────────────────────────────────────────────────────


def sublayer_of(width=C, seed=11):
    """A sublayer that mixes the features and is not linear: (…, C) → (…, C)."""
    matrix, shift = random(width, width, seed=seed, scale=0.6, shift=0.0), random(width, seed=seed)
    return lambda x: torch.tanh(x @ matrix + shift) + 0.1 * x.roll(1, -1)


def block_of(piece, n_embd=C, **options):
    block = fill(piece.ResidualBlock(n_embd, **options))
    with torch.no_grad():
        block.ln.weight.add_(0.7)
    return block.eval()


# ── residual block: the checks ──────────────────────────────────────────────────────────────────


@check(todo=3, follows=(test_weight_and_bias, test_eps, test_epsilon))
def test_residual_block_builds(piece):
    """ResidualBlock holds one LayerNorm, `ln`, and nothing else"""
    block = expect_module(piece.ResidualBlock(C))
    expect_signature(
        piece.ResidualBlock.__init__, "(n_embd, layer_norm_epsilon=1e-5)", "ResidualBlock"
    )
    attribute(block, "ln", (piece.LayerNorm, nn.LayerNorm), "others look for the norm there")
    expect_state(block, ("ln.weight", "ln.bias"))
    if tuple(block.ln.weight.shape) != (C,):
        fail(
            KNOWN["hard-coded-size"],
            f"ln.weight has the shape {tuple(block.ln.weight.shape)}, expected ({C},).",
        )
    for given, want in (({}, 1e-5), ({"layer_norm_epsilon": 0.25}, 0.25)):
        eps = float(piece.ResidualBlock(C, **given).ln.eps)
        if abs(eps - want) > 1e-3 * want:
            fail(KNOWN["epsilon-not-passed"], f"ln.eps is {eps:g}, expected {want:g}.")


@check(
    todo=4, needs=(test_residual_block_builds, test_values), points=3, follows=test_any_leading_axes
)
def test_residual(piece):
    """x + sublayer(ln(x)): the sublayer reads a normalized copy, x itself is added to"""
    block, f = block_of(piece), sublayer_of()
    if list(inspect.signature(block.forward).parameters)[:1] == ["sublayer"]:
        fail(KNOWN["wrong-argument-order"])
    w, b = weights(block)["ln.weight"], weights(block)["ln.bias"]

    def ln(x):
        return F.layer_norm(x, (C,), w, b, 1e-5)

    def other(residual):
        return residual(x, ln, f)

    for shape in ((B, T, C), (1, 1, C), (T, C)):
        x = random(*shape, seed=sum(shape))
        try:
            compare(
                lambda x=x: block(x, f),
                x + f(ln(x)),
                KNOWN.of("residual"),
                other,
                axes="B T C",
                given=(x,),
            )
        except AttributeError as error:
            if "'forward'" in str(error):
                fail(KNOWN["sublayer-not-called"])
            raise


@check(todo=4, needs=test_residual)
def test_sublayer_is_called_once(piece):
    """The sublayer, a function or a module, is called exactly once"""
    block, x = block_of(piece), random(B, T, C, seed=12)
    seen = []

    class Spy(nn.Linear):
        def forward(self, x):
            seen.append(x)
            return torch.zeros_like(x)

    spy = Spy(2, 2)
    compare(lambda: block(x, sublayer=spy), x, axes="B T C", given=(x,))
    if len(seen) != 1:
        fail(
            KNOWN["sublayer-twice:called-often"] if seen else KNOWN["no-sublayer:not-called"],
            f"It was called {len(seen)} times.",
        )
    if len(block.state_dict()) > 2:
        fail(KNOWN["sublayer-kept"])


@check(todo=4, needs=(test_residual, test_epsilon))
def test_epsilon_reaches_the_norm(piece):
    """layer_norm_epsilon is the one that the sublayer's input was normalized with"""
    for options, eps in (({}, 1e-5), ({"layer_norm_epsilon": 0.2}, 0.2)):
        block = block_of(piece, **options)
        w, b = weights(block)["ln.weight"], weights(block)["ln.bias"]
        x = small(eps, seed=1)
        seen = []
        block(x, lambda y, seen=seen: seen.append(y) or torch.zeros_like(y))
        examine_epsilon(lambda seen=seen: seen[0], x, w, b, eps, bool(options))


@check(todo=4, needs=test_residual, points=2, follows=test_gradients)
def test_stream_carries_the_gradient(piece):
    """With a sublayer that gives 0 the gradient passes unchanged; otherwise both ways carry it"""
    block, f, up = block_of(piece), sublayer_of(), random(B, T, C, seed=13)
    x = random(B, T, C, seed=14).requires_grad_()
    w, b = weights(block)["ln.weight"], weights(block)["ln.bias"]
    expect_finite_gradients(block, (tensor(block(x, f)) * up).sum())

    def gradient(run):
        (found,) = torch.autograd.grad((run(x) * up).sum(), x, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    branch = gradient(lambda x: f(F.layer_norm(x, (C,), w, b, 1e-5)))
    got = gradient(lambda x: block(x, f))
    if torch.allclose(got, branch, atol=1e-5):
        fail(KNOWN["residual-detached"])
    if torch.allclose(got, up, atol=1e-6):
        fail(
            "No gradient flows back through the sublayer: its input or its output is detached.",
            id="no-gradient",
        )
    compare(got, up + branch, what="the gradient of x", axes="B T C")


@check(todo=4, needs=test_residual, follows=(test_same_in_training, test_dtype_and_device))
def test_residual_block_in_training(piece):
    """Training changes nothing, bfloat16 stays bfloat16, nothing is tied to the CPU"""
    block, f, x = block_of(piece), sublayer_of(), random(B, T, C, seed=15)
    before = tensor(block(x, f))
    block.train()
    if not all(torch.allclose(tensor(block(x, f)), before, atol=1e-5) for _ in range(4)):
        fail(KNOWN["train-differs:block-train-differs"])
    block.eval()
    expect_copies(block, lambda module: module(x, f))
    expect_one_device(block, lambda module, move: module(move(x), torch.tanh))
    got = tensor(block.to(torch.bfloat16)(x.bfloat16(), torch.tanh))
    if got.dtype != torch.bfloat16:
        fail(KNOWN["dtype-changed"], f"x is bfloat16, the result {got.dtype}.")
