"""Checks of problem 07. The oracle is PyTorch's own layer_norm, on the learner's parameters."""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_copies,
    expect_finite_gradients,
    expect_module,
    expect_no_memory,
    expect_one_device,
    expect_own_start,
    expect_signature,
    expect_state,
    fail,
    fill,
    mistake,
    sizes_from,
    tensor,
    weights,
)

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C, H = sizes_from((2, 3, 8, 5), (3, 4, 10, 7), (2, 5, 9, 6))

# ── layer norm: what can be wrong with it ───────────────────────────────────────────────────────

EPS_MISSING = mistake(
    "eps-missing",
    "There is no eps under the root: a token of C equal numbers has variance 0, and 0/0 is NaN.",
    4,
    root=lambda v, eps: v.sqrt(),
)
MISTAKES = [
    mistake(
        "unbiased-variance",
        "Your variance divides by C − 1 (PyTorch's default, an estimate from a sample). Layer norm "
        "divides by C, the biased variance: the C numbers are all there are.",
        3,
        correction=1,
    ),
    mistake(
        "eps-outside-root",
        "You add eps to the standard deviation. It belongs under the root: √(variance + eps).",
        4,
        root=lambda v, eps: v.sqrt() + eps,
    ),
    EPS_MISSING,
    mistake(
        "divides-by-variance",
        "You divide by the variance. Divide by its square root, the standard deviation.",
        3,
        root=lambda v, eps: v + eps,
    ),
    mistake(
        "multiplies-by-std",
        "You multiply by the standard deviation, which spreads the numbers further. Divide by it.",
        3,
        root=lambda v, eps: (v + eps).rsqrt(),
    ),
    mistake(
        "std-missing",
        "You subtract the mean and leave the spread as it is. Divide by √(variance + eps), too.",
        3,
        root=lambda v, eps: torch.ones_like(v),
    ),
    mistake(
        "weight-ignored",
        "The weight has no effect: after normalizing, each of the C numbers is multiplied by its own "
        "weight.",
        5,
        affine=lambda y, w, b: y + b,
    ),
    mistake(
        "bias-ignored",
        "The bias has no effect: it is added last, after the weight.",
        5,
        affine=lambda y, w, b: y * w,
    ),
    mistake(
        "no-affine",
        "Weight and bias have no effect: the normalized numbers are scaled by the one, then shifted "
        "by the other.",
        5,
        affine=lambda y, w, b: y,
    ),
    mistake(
        "bias-subtracted",
        "You subtract the bias. It is added.",
        5,
        affine=lambda y, w, b: y * w - b,
    ),
    mistake(
        "bias-before-weight",
        "You add the bias before you multiply by the weight. The weight comes first, the bias last.",
        5,
        affine=lambda y, w, b: (y + b) * w,
    ),
    mistake(
        "weight-and-bias-swapped",
        "Weight and bias are swapped: multiply by the weight, add the bias.",
        5,
        affine=lambda y, w, b: y * b + w,
    ),
    mistake(
        "weight-added",
        "You add the weight. It multiplies; the bias is what is added.",
        5,
        affine=lambda y, w, b: y + w + b,
    ),
    mistake(
        "weight-divides",
        "You divide by the weight. It multiplies.",
        5,
        affine=lambda y, w, b: y / w + b,
    ),
    mistake(
        "weight-plus-one",
        "You multiply by 1 + weight. Here the weight starts at 1 itself, so multiply by it alone: "
        "the checkpoint's weights are meant so.",
        5,
        affine=lambda y, w, b: y * (1 + w) + b,
    ),
    mistake(
        "affine-twice",
        "Weight and bias are applied twice. Once is enough.",
        5,
        affine=lambda y, w, b: (y * w + b) * w + b,
    ),
    mistake(
        "weight-twice",
        "The weight is applied twice. Once is enough.",
        5,
        affine=lambda y, w, b: y * w * w + b,
    ),
    mistake(
        "bias-twice",
        "The bias is added twice. Once is enough.",
        5,
        affine=lambda y, w, b: y * w + 2 * b,
    ),
    mistake(
        "weight-before",
        "The weight is applied before normalizing, which undoes part of it. Normalize first, then "
        "scale and shift.",
        5,
        before=lambda x, w, b: x * w,
        affine=lambda y, w, b: y + b,
    ),
    mistake(
        "weight-before",
        "Weight and bias are applied before normalizing, which undoes part of them. Normalize first, "
        "then scale and shift.",
        5,
        before=lambda x, w, b: x * w + b,
        affine=lambda y, w, b: y,
    ),
    mistake(
        "rms-norm",
        "The mean is neither subtracted nor taken out of the spread: that is RMSNorm, a later "
        "invention. Subtract the mean first.",
        2,
        shift=lambda m: 0.0,
        spread=lambda x, m, v: v + m**2,
    ),
    mistake(
        "mean-not-subtracted",
        "The mean is not subtracted: x − mean is what is divided by the standard deviation.",
        2,
        shift=lambda m: 0.0,
    ),
    mistake(
        "mean-added",
        "You add the mean. Subtract it, so that the numbers of each token lie around 0.",
        2,
        shift=lambda m: -m,
    ),
    mistake(
        "sign-flipped",
        "You subtract x from the mean. It is x − mean: all signs are wrong now.",
        2,
        affine=lambda y, w, b: -y * w + b,
    ),
    mistake(
        "root-squared",
        "You square where the root must be: (variance + eps) ** 2. Divide by √(variance + eps), which "
        "is (variance + eps) ** 0.5.",
        3,
        root=lambda v, eps: (v + eps) ** 2,
    ),
    mistake(
        "root-taken-twice",
        "The root is taken twice: √(std + eps), and std is a root already. Take the variance, or no "
        "second root.",
        3,
        root=lambda v, eps: (v.sqrt() + eps).sqrt(),
    ),
    mistake(
        "mean-not-squared",
        "Your variance is E[x²] − mean. It is E[x²] − mean²: the square of the mean is subtracted.",
        3,
        spread=lambda x, m, v: v + m**2 - m,
    ),
    mistake(
        "variance-not-centred",
        "Your variance is the mean of x². It is the mean of (x − mean)².",
        3,
        spread=lambda x, m, v: v + m**2,
    ),
    mistake(
        "variance-is-sum",
        "You add the squared distances up and don't divide by C. The variance is their mean.",
        3,
        spread=lambda x, m, v: v * x.size(-1),
    ),
    mistake(
        "variance-is-absolute",
        "You take the mean distance from the mean, without squares. The variance is the mean of the "
        "squared distances.",
        3,
        root=lambda v, eps: v + eps,
        spread=lambda x, m, v: (x - m).abs().mean(-1, keepdim=True),
    ),
    mistake(
        "variance-is-absolute",
        "You take the mean distance from the mean, without squares. The variance is the mean of the "
        "squared distances.",
        3,
        spread=lambda x, m, v: (x - m).abs().mean(-1, keepdim=True),
    ),
    mistake(
        "mean-is-sum",
        "You subtract the sum. The mean is the sum divided by C.",
        2,
        middle=lambda x, m: x.sum(-1, keepdim=True),
    ),
    mistake(
        "mean-is-median",
        "You subtract the median, or another number of the row. Subtract the mean.",
        2,
        middle=lambda x, m: x.median(-1, keepdim=True).values,
    ),
    mistake(
        "normalised-over-tokens",
        "Mean and variance run over the tokens (axis T): each token then depends on the others, later "
        "ones too. They run over the last axis, each token by itself.",
        2,
        axes=lambda x: (-2,),
    ),
    mistake(
        "axis-from-the-left",
        "The axis is counted from the left (dim=2), which is the last only when x has three axes. "
        "Count from the right: dim=-1.",
        2,
        axes=lambda x: (2,),
    ),
    mistake(
        "axis-from-the-left",
        "The axis is counted from the left (dim=1). Count from the right: dim=-1 is the last, always.",
        2,
        general=True,
        axes=lambda x: (1,),
    ),
    mistake(
        "normalised-over-batch",
        "Mean and variance run over the batch (axis 0): a sequence then depends on which others are "
        "in the batch. They run over the last axis.",
        2,
        axes=lambda x: (0,),
    ),
    mistake(
        "batch-norm",
        "Mean and variance run over batch and tokens: that is batch normalization. Layer norm takes "
        "them over the last axis, for each token by itself.",
        2,
        axes=lambda x: tuple(range(x.dim() - 1)),
    ),
    mistake(
        "normalised-over-sequence",
        "Mean and variance run over tokens and features together: a token then depends on the "
        "others, later ones too. They run over the last axis alone.",
        2,
        axes=lambda x: (-2, -1),
    ),
    mistake(
        "normalised-over-sequence",
        "Mean and variance run over all axes but the first. They run over the last axis alone.",
        2,
        general=True,
        axes=lambda x: tuple(range(1, x.dim())),
    ),
    mistake(
        "normalised-over-everything",
        "There is one mean and one variance for the whole tensor (.mean() without dim). Each token "
        "has its own: over the last axis.",
        2,
        axes=lambda x: tuple(range(x.dim())),
    ),
    mistake(
        "mean-over-everything",
        "There is one mean for the whole tensor. Each token has its own: over the last axis.",
        2,
        middle=lambda x, m: x.mean(),
    ),
    mistake(
        "mean-over-tokens",
        "The mean runs over the tokens. It runs over the last axis, as the variance does.",
        2,
        middle=lambda x, m: x.mean(-2, keepdim=True),
    ),
    mistake(
        "variance-over-everything",
        "There is one variance for the whole tensor. Each token has its own: over the last axis.",
        2,
        spread=lambda x, m, v: x.var(correction=0),
    ),
    mistake(
        "variance-over-tokens",
        "The variance runs over the tokens. It runs over the last axis, as the mean does.",
        2,
        spread=lambda x, m, v: x.var(-2, correction=0, keepdim=True),
    ),
    mistake(
        "mean-over-batch",
        "The mean runs over the batch. It runs over the last axis, as the variance does.",
        2,
        middle=lambda x, m: x.mean(0, keepdim=True),
    ),
    mistake(
        "variance-over-batch",
        "The variance runs over the batch. It runs over the last axis, as the mean does.",
        2,
        spread=lambda x, m, v: x.var(0, correction=0, keepdim=True),
    ),
    mistake(
        "variance-over-everything",
        "The variance is averaged over all tokens. Each token has its own: over the last axis.",
        2,
        spread=lambda x, m, v: v.mean(),
    ),
    mistake(
        "keepdim-missing",
        "Mean and variance have lost the last axis, so they line up with the wrong one of x. "
        "keepdim=True leaves it there, with size 1.",
        2,
        keepdim=False,
    ),
    mistake(
        "length-one",
        "You divide each token by its length. Divide by the standard deviation, after subtracting "
        "the mean: the spread becomes 1, not the length.",
        3,
        shift=lambda m: 0.0,
        root=lambda v, eps: (v * C).sqrt(),
        spread=lambda x, m, v: v + m**2,
    ),
    mistake(
        "group-norm",
        "nn.GroupNorm takes axis 1 for the features; here they are the last.",
        2,
        whole=lambda x, w, b, eps: F.group_norm(x, 1, w, b, eps),
    ),
    mistake(
        "batch-norm",
        "Batch normalization takes axis 1 for the features, and mean and variance over the batch. "
        "Layer norm takes them over the last axis, for each token by itself.",
        2,
        whole=lambda x, w, b, eps: F.batch_norm(x, None, None, w, b, True, 0.1, eps),
    ),
    mistake(
        "returns-input",
        "forward returns x as it came.",
        5,
        whole=lambda x, w, b, eps: x,
    ),
    mistake(
        "residual-in-norm",
        "LayerNorm adds x to its result. That sum is ResidualBlock's.",
        5,
        whole=lambda x, w, b, eps: x + F.layer_norm(x, w.shape, w, b, eps),
    ),
    mistake(
        "softmax",
        "That is a softmax. Subtract the mean and divide by the standard deviation.",
        2,
        whole=lambda x, w, b, eps: x.softmax(-1) * w + b,
    ),
    mistake(
        "min-max",
        "You scale each token to lie between 0 and 1. Subtract the mean and divide by the standard "
        "deviation.",
        2,
        whole=lambda x, w, b, eps: (
            (x - x.amin(-1, True)) / (x.amax(-1, True) - x.amin(-1, True)) * w + b
        ),
    ),
]
EPS_IGNORED = mistake(
    "eps-ignored",
    "The argument eps has no effect: the norm is what eps = 1e-5 gives, whatever was asked for.",
    4,
)
EPS_WRONG = mistake(
    "eps-wrong",
    "The eps under the root is another than was asked for (the default is 1e-5).",
    4,
)
EPS_DEFAULT = mistake(
    "eps-default", "The default of eps is 1e-5, as GPT-2's layer_norm_epsilon is.", 4
)
EPS_MISPLACED = mistake(
    "eps-misplaced",
    "The result is right where the variance is large, and wrong where it is near eps: eps is added "
    "to the variance, once, before the root is taken.",
    4,
)
NORM_TWICE = mistake("normalised-twice", "The numbers are normalized twice. Once is enough.", 5)
EPS_SQUARED = mistake(
    "eps-squared", "You add eps² under the root. It is eps itself: √(variance + eps).", 4
)
NOT_A_PARAMETER = mistake(
    "not-a-parameter",
    "weight and bias must be nn.Parameter: a plain tensor is neither trained nor saved nor moved to "
    "the GPU, and a buffer is not trained.",
    1,
)
FROZEN = mistake(
    "frozen-parameter",
    "weight and bias are learned: leave requires_grad at True.",
    1,
)
PARAMETER_SHAPE = mistake(
    "parameter-shape",
    "weight and bias hold one number for each of the C features: their shape is (n_embd,).",
    1,
)
HARD_CODED = mistake(
    "hard-coded-size",
    "The size of weight and bias is fixed in the code. It is the argument n_embd.",
    1,
)
START = mistake(
    "wrong-start",
    "weight starts as ones and bias as zeros, so that a new layer norm normalizes and does nothing "
    "else.",
    1,
)
RUNNING = mistake(
    "running-statistics",
    "There are running statistics, as in batch normalization. Layer norm keeps none: mean and "
    "variance are those of the token at hand, in training and in eval mode.",
    6,
)
TRAIN_DIFFERS = mistake(
    "train-differs",
    "In training mode the result is another than in eval mode. Layer norm has no dropout and no "
    "running statistics: it does the same in both.",
    6,
)
DETACHED = [
    mistake(
        "statistics-detached",
        "The gradient does not flow through mean and variance (detach, no_grad, .data). They depend "
        "on x, and so must the gradient.",
        6,
        detach="mean variance",
    ),
    mistake(
        "statistics-detached",
        "The gradient does not flow through the mean (detach, no_grad, .data). It depends on x.",
        6,
        detach="mean",
    ),
    mistake(
        "statistics-detached",
        "The gradient does not flow through the variance (detach, no_grad, .data). It depends on x.",
        6,
        detach="variance",
    ),
    mistake(
        "no-gradient",
        "No gradient reaches x: it is detached, or taken as .data. The layers below would not learn.",
        6,
        detach="input",
    ),
]
DTYPE = mistake(
    "dtype-changed",
    "The result has another dtype than x. If you compute in float32, go back to x.dtype at the end.",
    6,
)


def norm(
    x,
    w,
    b,
    eps,
    *,
    axes=lambda x: (-1,),
    keepdim=True,
    correction=0,
    before=lambda x, w, b: x,
    middle=lambda x, m: m,
    shift=lambda m: m,
    spread=lambda x, m, v: v,
    root=lambda v, eps: (v + eps).sqrt(),
    affine=lambda y, w, b: y * w + b,
    whole=None,
    detach="",
):
    """Layer norm with any step replaced."""
    if whole is not None:
        return whole(x, w, b, eps)
    x = x * 0 + x.detach() if "input" in detach else x
    x = before(x, w, b)
    m = middle(x, x.mean(axes(x), keepdim=keepdim))
    v = spread(x, m, x.var(axes(x), correction=correction, keepdim=keepdim))
    m = m.detach() if "mean" in detach else m
    v = v.detach() if "variance" in detach else v
    return affine((x - shift(m)) / root(v, eps), w, b)


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
        MISTAKES,
        lambda **switches: norm(x, w, b, eps, **switches),
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
        fail(NORM_TWICE)
    if used is not None and abs(used - eps) > 0.02 * eps:
        if not torch.isfinite(got).all():
            fail(EPS_MISSING, "A token of equal numbers gives NaN or infinity.")
        found = f"The numbers fit eps = {used:.3g}, expected {eps:g}."
        if abs(used - eps**2) < 0.05 * eps**2:
            fail(EPS_SQUARED, found)
        fail(EPS_IGNORED if given and abs(used - 1e-5) < 2e-6 else EPS_WRONG, found)
    want = F.layer_norm(x, w.shape, w, b, eps)
    try:
        compare(run, want, MISTAKES, lambda **switches: norm(x, w, b, eps, **switches))
    except CheckFailed as error:
        if error.mistakes:
            raise
        fail(EPS_MISPLACED, *str(error).splitlines()[-1:])


def expect_parameter(layer, name, value, size):
    """Check that the attribute is an nn.Parameter (size,) that starts at `value`."""
    found = attribute(layer, name, Tensor)
    if not isinstance(found, nn.Parameter):
        kind = "buffer" if name in dict(layer.named_buffers()) else "plain tensor"
        fail(NOT_A_PARAMETER, f"{name} is a {kind}.")
    if tuple(found.shape) != (size,):
        at = f"{name} has the shape {tuple(found.shape)}, expected ({size},) for n_embd = {size}."
        other = tuple(attribute(type(layer)(size + 3), name, Tensor).shape)
        fixed = other == tuple(found.shape) and found.dim() == 1 and found.numel() > 1
        fail(HARD_CODED if fixed else PARAMETER_SHAPE, at)
    if not found.requires_grad:
        fail(FROZEN, f"{name}.requires_grad is False.")
    if not (found == value).all():
        first = float(found.detach().flatten()[0])
        fail(START, f"{name} starts with {first:.4g}, expected {value:g}.")


# ── layer norm: the checks ──────────────────────────────────────────────────────────────────────


@check(todo=1)
def test_weight_and_bias(piece):
    """LayerNorm's weight and bias are parameters (C,), ones and zeros"""
    for size in (C, 5):
        layer = expect_module(piece.LayerNorm(size))
        expect_parameter(layer, "weight", 1.0, size)
        expect_parameter(layer, "bias", 0.0, size)
    expect_state(layer, ("weight", "bias"), {"running": RUNNING, "num_batches": RUNNING})
    if layer.weight is layer.bias or layer.weight.data_ptr() == layer.bias.data_ptr():
        fail("weight and bias are one and the same tensor; they are two. [shared-parameters]")
    expect_own_start(lambda: piece.LayerNorm(C))


@check(todo=1, needs=test_weight_and_bias)
def test_eps(piece):
    """eps is an attribute: 1e-5 unless another is asked for"""
    why = "whoever looks at the model finds the epsilon there"
    kinds = (float, int, Tensor)
    # PyTorch's own __init__, inherited, calls the size by another name: that is fine
    if piece.LayerNorm.__init__ is not nn.LayerNorm.__init__:
        expect_signature(piece.LayerNorm.__init__, "(n_embd, eps=1e-5)", "LayerNorm")
    layer = piece.LayerNorm(C)
    if abs(float(attribute(layer, "eps", kinds, why)) - 1e-5) > 1e-9:
        fail(EPS_DEFAULT, f"LayerNorm({C}).eps is {float(layer.eps):g}.")
    for layer in (piece.LayerNorm(C, eps=0.25), piece.LayerNorm(C, 0.25)):
        if abs(float(layer.eps) - 0.25) > 1e-6:
            fail(EPS_IGNORED, f"LayerNorm({C}, eps=0.25).eps is {float(layer.eps):g}.")


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
            MISTAKES,
            lambda **switches: norm(x, w, b, 1e-5, **switches),
            axes="B T C",
            given=(x,),
        ),
        lambda: examine(layer_of(piece), random(B, T, C)),
    )


@check(todo=2, needs=test_weight_and_bias, points=2, follows=(test_worked_example, test_eps))
def test_values(piece):
    """Each token is normalized by itself, then scaled by weight and shifted by bias"""
    examine(layer_of(piece), random(B, T, C))


@check(todo=2, needs=test_values)
def test_remembers_nothing(piece):
    """What a call gives does not depend on the calls before it"""
    inputs = [random(*shape, seed=i) for i, shape in enumerate(((B, T, C), (B, T, C), (1, H, C)))]
    calls = [lambda module, x=x: tensor(module(x)) for x in (*inputs, inputs[0])]
    expect_no_memory(layer_of(piece), calls, 6)


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
        fail(EPS_MISSING, "The result is NaN or infinite.")
    compare(got, weights(layer)["bias"].expand(B, T, C))
    got.sum().backward()
    if x.grad is not None and not torch.isfinite(x.grad).all():
        fail(
            "The gradient is NaN when the variance is 0: the slope of √v at 0 is infinite. With eps "
            "under the root it is finite. [bad-gradient]"
        )


@check(todo=2, needs=test_values, follows=test_remembers_nothing)
def test_same_in_training(piece):
    """It does the same in training and in eval mode, and the same again"""
    layer, x = layer_of(piece), random(B, T, C, seed=4)
    before = tensor(layer(x)).detach().clone()
    layer.train()
    for seed in range(3):
        if not torch.allclose(tensor(layer(x)), before, atol=1e-5):
            fail(TRAIN_DIFFERS)
        layer(random(B, T, C, seed=seed, shift=9.0))
    layer.eval()
    if not torch.allclose(tensor(layer(x)), before, atol=1e-5):
        fail(RUNNING, "After other inputs in training mode, the same input gives other numbers.")


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
        DETACHED,
        lambda **switches: gradient(lambda given: norm(given, w, b, 1e-5, **switches)),
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
        fail(DTYPE, f"x is bfloat16, the result {got.dtype}.")
    compare(got.float(), F.layer_norm(x, w.shape, w, b, 1e-5), rtol=0.1, atol=0.1)


# ── residual block: what can be wrong with it ───────────────────────────────────────────────────

RESIDUAL = [
    mistake(
        "post-norm",
        "That is post-norm, ln(x + sublayer(x)): the stream itself is normalized. In GPT-2 only the "
        "branch is: x + sublayer(ln(x)).",
        7,
        block=lambda x, ln, f: ln(x + f(x)),
    ),
    mistake(
        "norm-twice",
        "The branch is normalized and the sum again: ln(x + sublayer(ln(x))). Leave the sum as it is, "
        "nothing normalizes the stream.",
        7,
        block=lambda x, ln, f: ln(x + f(ln(x))),
    ),
    mistake(
        "no-residual",
        "The input is not added: you return what the sublayer made. The block adds it to x.",
        8,
        block=lambda x, ln, f: f(ln(x)),
    ),
    mistake(
        "no-norm",
        "The sublayer reads x itself. It reads the normalized copy, ln(x).",
        7,
        block=lambda x, ln, f: x + f(x),
    ),
    mistake(
        "residual-normalised",
        "You add the normalized x: ln(x) + sublayer(ln(x)). Add x itself, as it came in.",
        8,
        block=lambda x, ln, f: ln(x) + f(ln(x)),
    ),
    mistake(
        "norm-on-branch-output",
        "You normalize what the sublayer returns. Normalize what it reads: x + sublayer(ln(x)).",
        7,
        block=lambda x, ln, f: x + ln(f(x)),
    ),
    mistake(
        "norm-on-branch-output",
        "You normalize what the sublayer reads and also what it returns. Only the first is right.",
        7,
        block=lambda x, ln, f: x + ln(f(ln(x))),
    ),
    mistake(
        "no-sublayer",
        "The sublayer is not called: you return x + ln(x).",
        7,
        block=lambda x, ln, f: x + ln(x),
    ),
    mistake(
        "no-sublayer",
        "The sublayer is not called: you return ln(x).",
        7,
        block=lambda x, ln, f: ln(x),
    ),
    mistake(
        "no-sublayer",
        "You return x as it came. Add what the sublayer makes of ln(x).",
        7,
        block=lambda x, ln, f: x,
    ),
    mistake(
        "sublayer-alone",
        "There is neither norm nor sum: you return sublayer(x). Return x + sublayer(ln(x)).",
        7,
        block=lambda x, ln, f: f(x),
    ),
    mistake(
        "residual-doubled",
        "x is added twice. Once is enough.",
        8,
        block=lambda x, ln, f: 2 * x + f(ln(x)),
    ),
    mistake(
        "branch-doubled",
        "What the sublayer makes is added twice. Once is enough.",
        8,
        block=lambda x, ln, f: x + 2 * f(ln(x)),
    ),
    mistake(
        "residual-normalised",
        "x and the normalized x are both added. Add x alone.",
        8,
        block=lambda x, ln, f: x + ln(x) + f(ln(x)),
    ),
    mistake(
        "sublayer-twice",
        "The sublayer is applied twice, the second time to its own result. Once is enough.",
        8,
        block=lambda x, ln, f: x + f(f(ln(x))),
    ),
    mistake(
        "sublayer-twice",
        "The sublayer is applied twice. Once is enough.",
        8,
        block=lambda x, ln, f: x + f(ln(x + f(ln(x)))),
    ),
    mistake(
        "sublayer-twice",
        "The sublayer is applied twice. Once is enough.",
        8,
        block=lambda x, ln, f: x + f(ln(x)) + f(ln(x + f(ln(x)))),
    ),
    mistake(
        "branch-subtracted",
        "What the sublayer makes is subtracted. Add it.",
        8,
        block=lambda x, ln, f: x - f(ln(x)),
    ),
    mistake(
        "branch-subtracted",
        "x is subtracted from what the sublayer makes. Add the two.",
        8,
        block=lambda x, ln, f: f(ln(x)) - x,
    ),
    mistake(
        "branch-multiplied",
        "x is multiplied by what the sublayer makes. Add the two.",
        8,
        block=lambda x, ln, f: x * f(ln(x)),
    ),
    mistake(
        "sum-scaled",
        "The sum is scaled. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
        8,
        block=lambda x, ln, f: (x + f(ln(x))) / 2,
    ),
    mistake(
        "sum-scaled",
        "The sum is scaled by 1/√2. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
        8,
        block=lambda x, ln, f: (x + f(ln(x))) / 2**0.5,
    ),
    mistake(
        "sum-scaled",
        "Half of what the sublayer makes is added. GPT-2 adds all of it: x + sublayer(ln(x)).",
        8,
        block=lambda x, ln, f: x + f(ln(x)) / 2,
    ),
    mistake(
        "residual-normalised",
        "The roles are swapped: you normalize what is added, and the sublayer reads x itself.",
        7,
        block=lambda x, ln, f: ln(x) + f(x),
    ),
    mistake(
        "branch-doubled",
        "The sublayer's result for x and its result for ln(x) are both added. Add the second alone.",
        8,
        block=lambda x, ln, f: x + f(x) + f(ln(x)),
    ),
    mistake(
        "own-norm-unused",
        "The sublayer's input is normalized, without the weight and bias of self.ln: use that one.",
        7,
        block=lambda x, ln, f: x + f(F.layer_norm(x, x.shape[-1:])),
    ),
    mistake(
        "activation-added",
        "There is an activation around the sum. GPT-2 adds, and that is all: x + sublayer(ln(x)).",
        8,
        block=lambda x, ln, f: torch.relu(x + f(ln(x))),
    ),
    mistake(
        "normalised-twice",
        "The norm is applied twice before the sublayer. Once is enough.",
        7,
        block=lambda x, ln, f: x + f(ln(ln(x))),
    ),
    mistake(
        "concatenated",
        "You concatenate x and what the sublayer makes. Add them: the width must stay C.",
        8,
        block=lambda x, ln, f: torch.cat((x, f(ln(x))), -1),
    ),
    mistake(
        "residual-of-branch",
        "You add the sublayer's input to its output and leave x out. Add x itself.",
        8,
        block=lambda x, ln, f: f(ln(x)) + f(x),
    ),
]
POST_NORM_GRADIENT = mistake(
    "residual-detached",
    "No gradient flows along the stream: x is detached where it is added. With a sublayer that gives "
    "0, the gradient must pass through the block unchanged.",
    8,
)
CALLED_OFTEN = mistake(
    "sublayer-twice",
    "The sublayer is called more than once. That costs twice the time, and a sublayer with dropout "
    "or a cache gives something else each time.",
    8,
)
NOT_CALLED = mistake("no-sublayer", "The sublayer is never called.", 7)
EPSILON_NOT_PASSED = mistake(
    "epsilon-not-passed",
    "The block's norm has another epsilon than layer_norm_epsilon: hand the argument on to LayerNorm.",
    4,
)
BLOCK_TRAIN_DIFFERS = mistake(
    "train-differs",
    "In training mode the result is another than in eval mode. There is no dropout here: the "
    "sublayers have their own.",
    7,
)
SUBLAYER_KEPT = mistake(
    "sublayer-kept",
    "The block keeps the sublayer as an attribute, so its weights are in the block's state_dict(). It "
    "is handed over at each call: use it and forget it.",
    8,
)
SWAPPED = mistake(
    "wrong-argument-order",
    "forward takes (x, sublayer), in this order: yours takes the sublayer first.",
    7,
)
FORWARD_CALLED = mistake(
    "sublayer-not-called",
    "A sublayer is any function. Call it: sublayer(…), not sublayer.forward(…), which also skips "
    "a module's hooks.",
    7,
)


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
            HARD_CODED, f"ln.weight has the shape {tuple(block.ln.weight.shape)}, expected ({C},)."
        )
    for given, want in (({}, 1e-5), ({"layer_norm_epsilon": 0.25}, 0.25)):
        eps = float(piece.ResidualBlock(C, **given).ln.eps)
        if abs(eps - want) > 1e-3 * want:
            fail(EPSILON_NOT_PASSED, f"ln.eps is {eps:g}, expected {want:g}.")


@check(
    todo=4, needs=(test_residual_block_builds, test_values), points=3, follows=test_any_leading_axes
)
def test_residual(piece):
    """x + sublayer(ln(x)): the sublayer reads a normalized copy, x itself is added to"""
    block, f = block_of(piece), sublayer_of()
    if list(inspect.signature(block.forward).parameters)[:1] == ["sublayer"]:
        fail(SWAPPED)
    w, b = weights(block)["ln.weight"], weights(block)["ln.bias"]

    def ln(x):
        return F.layer_norm(x, (C,), w, b, 1e-5)

    def other(block):
        return block(x, ln, f)

    for shape in ((B, T, C), (1, 1, C), (T, C)):
        x = random(*shape, seed=sum(shape))
        try:
            compare(
                lambda x=x: block(x, f), x + f(ln(x)), RESIDUAL, other, axes="B T C", given=(x,)
            )
        except AttributeError as error:
            if "'forward'" in str(error):
                fail(FORWARD_CALLED)
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
        fail(CALLED_OFTEN if seen else NOT_CALLED, f"It was called {len(seen)} times.")
    if len(block.state_dict()) > 2:
        fail(SUBLAYER_KEPT)


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
        fail(POST_NORM_GRADIENT)
    if torch.allclose(got, up, atol=1e-6):
        fail(
            "No gradient flows back through the sublayer: its input or its output is detached. "
            "[no-gradient]"
        )
    compare(got, up + branch, what="the gradient of x", axes="B T C")


@check(todo=4, needs=test_residual, follows=(test_same_in_training, test_dtype_and_device))
def test_residual_block_in_training(piece):
    """Training changes nothing, bfloat16 stays bfloat16, nothing is tied to the CPU"""
    block, f, x = block_of(piece), sublayer_of(), random(B, T, C, seed=15)
    before = tensor(block(x, f))
    block.train()
    if not all(torch.allclose(tensor(block(x, f)), before, atol=1e-5) for _ in range(4)):
        fail(BLOCK_TRAIN_DIFFERS)
    block.eval()
    expect_copies(block, lambda module: module(x, f))
    expect_one_device(block, lambda module, move: module(move(x), torch.tanh))
    got = tensor(block.to(torch.bfloat16)(x.bfloat16(), torch.tanh))
    if got.dtype != torch.bfloat16:
        fail(DTYPE, f"x is bfloat16, the result {got.dtype}.")
