"""Checks of problem 06. The oracles are PyTorch's own GELU and linear layers."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_copies,
    expect_dropout,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
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

# Sizes that all differ, so that a swapped axis can't hide; N is n_inner.
B, T, C, N = sizes_from((2, 5, 6, 11), (3, 4, 7, 12), (2, 4, 8, 13))
INNER = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu(
    x,
    *,
    whole=None,
    half=0.5,
    outer=lambda x: x,
    one=1.0,
    bend=torch.tanh,
    inner=INNER,
    linear=lambda x: x,
    cubic=CUBIC,
    power=3,
):
    """The tanh form of GELU with any part replaced."""
    if whole is not None:
        return whole(x)
    return half * outer(x) * (one + bend(inner * (linear(x) + cubic * x**power)))


# the whole activation, where it is another one
OTHERS = (
    ("erf", "This is the erf form of GELU. GPT-2 was trained with the tanh form", F.gelu),
    ("sigmoid", "This is the sigmoid form, x·σ(1.702 x)", lambda x: x * (1.702 * x).sigmoid()),
    ("relu", "This is ReLU. GPT-2's activation is GELU, in the tanh form", F.relu),
    ("relu", "This is a leaky ReLU. GPT-2's is GELU, in the tanh form", F.leaky_relu),
    ("relu", "This is ELU. GPT-2's is GELU, in the tanh form", F.elu),
    ("relu", "This is SELU. GPT-2's is GELU, in the tanh form", F.selu),
    ("relu", "This is ReLU². GPT-2's is GELU, in the tanh form", lambda x: x.relu() ** 2),
    ("silu", "This is SiLU (swish). GPT-2's is GELU, in the tanh form", F.silu),
    ("silu", "This is Mish. GPT-2's is GELU, in the tanh form", F.mish),
    ("silu", "This is hard-swish. GPT-2's is GELU, in the tanh form", F.hardswish),
    ("softplus", "This is softplus. GPT-2's is GELU, in the tanh form", F.softplus),
    ("tanh", "This is tanh. GPT-2's is GELU, which has a tanh inside", torch.tanh),
    ("sigmoid", "This is the sigmoid. GPT-2's is GELU, in the tanh form", torch.sigmoid),
    ("none", "x comes out as it went in: there is no activation", lambda x: x),
)
FORMS = [
    mistake(
        {
            "erf": "gelu-erf",
            "sigmoid": "gelu-sigmoid",
            "silu": "silu",
            "none": "no-activation",
        }.get(name, "not-gelu"),
        f"{says}. The docstring has the formula.",
        2 if name in ("erf", "sigmoid") else 1,
        whole=function,
    )
    for name, says, function in OTHERS
]
CONSTANT = "the constant inside the tanh is √(2/π) = 0.79788…: the root covers both"
INNERS = (
    (math.sqrt(2) / math.pi, "√2/π"),
    (math.sqrt(math.pi / 2), "√(π/2)"),
    (2 / math.pi, "2/π"),
    (math.sqrt(2 * math.pi), "√(2π)"),
    (1 / math.sqrt(2 * math.pi), "1/√(2π)"),
    (math.sqrt(1 / math.pi), "√(1/π)"),
    (2 / math.sqrt(math.pi), "2/√π"),
    (math.sqrt(2), "√2"),
    (1 / math.sqrt(2), "1/√2"),
    (math.pi / 2, "π/2"),
    (math.sqrt(math.pi), "√π"),
    (math.sqrt(math.pi) / 2, "√π/2"),
    (math.sqrt(2) * math.pi, "√2·π"),
    (1.0, "1: it is missing"),
)
WRONG_INNER = "gelu-inner-constant"
WRONG_CUBIC = "gelu-cubic-constant"
CUBICS = (0.44715, 0.0044715, 0.447, 0.0447, 0.04715, 0.047715, 0.044175, 0.45, 0.04, 0.044, 0.045)
PARTS = [
    *(
        mistake(WRONG_INNER, f"Inside the tanh you multiply by {name}; {CONSTANT}.", 1, inner=value)
        for value, name in INNERS
    ),
    *(
        mistake(
            WRONG_CUBIC,
            f"The cubic term's constant is {value}; it must be 0.044715.",
            1,
            cubic=value,
        )
        for value in CUBICS
    ),
    mistake(
        "gelu-cubic-missing",
        "The cubic term, 0.044715 x³, is missing inside the tanh.",
        1,
        cubic=0.0,
    ),
    mistake("gelu-cubic-sign", "The cubic term is subtracted. It is added.", 1, cubic=-CUBIC),
    mistake(
        "gelu-cubic-constant",
        "x³ has no factor. It is 0.044715 x³.",
        1,
        cubic=1.0,
    ),
    mistake(
        "gelu-cubic-constant",
        "0.044715 is cubed together with x. The power belongs to x alone.",
        1,
        cubic=CUBIC**3,
    ),
    mistake("gelu-power", "You take x², which loses the sign. The formula has x³.", 1, power=2),
    mistake(
        "gelu-power",
        "You take 3 to the power x (3 ** x). The formula has x³, which is x ** 3.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * 3**x))),
    ),
    mistake("gelu-power", "You take x⁴. The formula has x³.", 1, power=4),
    mistake("gelu-power", "You take x with no power. The formula has x³.", 1, power=1),
    mistake("gelu-power", "You take x⁵. The formula has x³.", 1, power=5),
    mistake("gelu-half-missing", "The factor 0.5 in front is missing.", 1, half=1.0),
    mistake("gelu-half-missing", "The factor in front is 2. It is 0.5.", 1, half=2.0),
    mistake("gelu-half-missing", "The factor 0.5 is there twice.", 1, half=0.25),
    mistake(
        "gelu-outer-x-missing",
        "The x in front, 0.5 x (1 + …), is missing: what is left is only the gate.",
        1,
        outer=torch.ones_like,
    ),
    mistake(
        "gelu-outer-x-missing", "x in front is squared. It is 0.5 x (1 + …).", 1, outer=torch.square
    ),
    mistake(
        "gelu-one-missing",
        "The 1 + before the tanh is missing: 0.5 x (1 + tanh(…)).",
        1,
        one=0.0,
    ),
    mistake(
        "gelu-tanh-sign",
        "The tanh is subtracted, 1 - tanh(…). It is added.",
        1,
        bend=lambda u: -torch.tanh(u),
    ),
    mistake(
        "gelu-inner-x-missing",
        "Inside the tanh, the plain x beside the cubic term is missing.",
        1,
        linear=torch.zeros_like,
    ),
    mistake(
        "gelu-inner-x-missing",
        "Inside the tanh stands 1 + 0.044715 x³; it must be x + 0.044715 x³.",
        1,
        linear=torch.ones_like,
    ),
    mistake("gelu-tanh-missing", "There is no tanh around the bracket.", 1, bend=lambda u: u),
    mistake("gelu-erf-for-tanh", "There is an erf where the tanh must be.", 1, bend=torch.erf),
    mistake(
        "gelu-erf-for-tanh", "There is a sigmoid where the tanh must be.", 1, bend=torch.sigmoid
    ),
    mistake("gelu-erf-for-tanh", "There is a sine where the tanh must be.", 1, bend=torch.sin),
    mistake("gelu-erf-for-tanh", "There is a tan where the tanh must be.", 1, bend=torch.tan),
    mistake("gelu-erf-for-tanh", "There is a sinh where the tanh must be.", 1, bend=torch.sinh),
    mistake(
        "gelu-erf-for-tanh", "There is an arctangent where the tanh must be.", 1, bend=torch.atan
    ),
    mistake(
        "gelu-brackets",
        "√(2/π) multiplies x alone. It stands before the whole bracket (x + 0.044715 x³).",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x + CUBIC * x**3)),
    ),
    mistake(
        "gelu-brackets",
        "√(2/π) multiplies the cubic term alone. It stands before the whole bracket.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(x + INNER * CUBIC * x**3)),
    ),
    mistake(
        "gelu-brackets",
        "√(2/π) multiplies the tanh. It belongs inside it.",
        1,
        whole=lambda x: 0.5 * x * (1 + INNER * torch.tanh(x + CUBIC * x**3)),
    ),
    mistake(
        "gelu-brackets",
        "The tanh closes too early: the cubic term belongs inside it.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x) + CUBIC * x**3),
    ),
    mistake(
        "gelu-brackets",
        "0.5 x multiplies only the 1, not the tanh: 0.5 x (1 + tanh(…)).",
        1,
        whole=lambda x: 0.5 * x + torch.tanh(INNER * (x + CUBIC * x**3)),
    ),
    mistake(
        "gelu-brackets",
        "x is added to the tanh: it is 0.5 x · (1 + tanh(…)), a product.",
        1,
        whole=lambda x: 0.5 * (x + torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
    mistake(
        "gelu-brackets",
        "The sum inside the tanh is cubed as a whole. Only x is.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * x) ** 3)),
    ),
    mistake(
        "gelu-brackets",
        "The 1 stands inside the tanh. It is 1 + tanh(…).",
        1,
        whole=lambda x: 0.5 * x * torch.tanh(1 + INNER * (x + CUBIC * x**3)),
    ),
    mistake(
        "gelu-brackets",
        "0.5 multiplies only the 1: it is 0.5 x (1 + tanh(…)).",
        1,
        whole=lambda x: x * (0.5 + torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
    mistake(
        "gelu-brackets",
        "x multiplies only the tanh: it is 0.5 x (1 + tanh(…)).",
        1,
        whole=lambda x: 0.5 * (1 + x * torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
    mistake(
        "gelu-erf",
        "This is the erf form of GELU, and without its √2. GPT-2 was trained with the tanh form.",
        2,
        whole=lambda x: 0.5 * x * (1 + x.erf()),
    ),
    mistake(
        "gelu-sign-lost",
        "x loses its sign (abs): GELU of a negative number is small and negative.",
        1,
        whole=lambda x: gelu(x.abs()),
    ),
    mistake(
        "gelu-sign-lost",
        "x³ loses its sign (abs), so negative numbers come out wrong.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * x.abs() ** 3))),
    ),
    mistake(
        "gelu-product",
        "x and the cubic term are multiplied inside the tanh. They are added.",
        1,
        whole=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x * CUBIC * x**3)),
    ),
    mistake("gelu-twice", "The activation is applied twice.", 1, whole=lambda x: gelu(gelu(x))),
    mistake("gelu-negated", "The sign is wrong everywhere.", 1, whole=lambda x: -gelu(x)),
    mistake(
        "gelu-negated",
        "This is GELU of -x. Nothing in the formula changes x's sign.",
        1,
        whole=lambda x: gelu(-x),
    ),
    mistake(
        "gelu-clamped",
        "Negative inputs are cut off to 0. GELU dips below it: at -1 it is -0.159.",
        1,
        whole=lambda x: gelu(x).relu(),
    ),
]
ACTIVATION = FORMS + PARTS
NOT_FINITE = mistake(
    "gelu-not-finite",
    "Large numbers give NaN or infinity: an exponential overflows. torch.tanh does not.",
    1,
)
IN_PLACE = mistake(
    "edits-input",
    "NewGELU changes its input in place: whoever called it still needs it. Make a new tensor.",
    1,
)
WRONG_GRADIENT = mistake(
    "wrong-gradient",
    "NewGELU's numbers are right and its gradient is not: is a part of it detached, or turned into "
    "numbers and back?",
    1,
)
FIXED_DTYPE = mistake(
    "fixed-dtype",
    "The output has another dtype than the input: is a dtype written into forward?",
    1,
)

# ── the network

SWAPPED = mistake(
    "widths-swapped",
    "c_fc and c_proj are swapped: c_fc widens, nn.Linear(C, n_inner), and c_proj narrows.",
    3,
)
IGNORED = mistake(
    "n-inner-ignored",
    "The inner width is 4·C whatever n_inner says. Use n_inner.",
    3,
)
WIDTHS = mistake(
    "layer-shape", "c_fc must be nn.Linear(C, n_inner) and c_proj nn.Linear(n_inner, C).", 3
)
NO_BIAS = mistake(
    "bias-missing", "A layer has no bias. GPT-2's have one: nn.Linear makes it by itself.", 3
)
SHARED = mistake("shared-layers", "c_proj uses c_fc's weight. Each has weights of its own.", 3)
DROPOUT_RATE = mistake(
    "dropout-rate", "Dropout does not use the `dropout` that the module was made with.", 5
)
LAYER_NORM = mistake(
    "layer-norm-added",
    "There is a layer norm. In GPT-2 it stands outside, in the block (problem 08).",
    4,
    before=lambda x: F.layer_norm(x, x.shape[-1:]),
)
EXTRA = mistake(
    "extra-layer", "There is one layer too many: c_fc and c_proj are all that has weights.", 3
)
RESIDUAL = mistake(
    "residual-added",
    "x is added to the output. The residual stands outside, in the block (problem 08).",
    4,
    after=lambda y, x: y + x,
)
IN_BETWEEN = "Dropout stands between the two layers. In GPT-2 it comes last, after c_proj."
DROPOUT_MISSING = mistake(
    "dropout-missing",
    "There is no dropout: with dropout=1, in training, everything would be 0.",
    5,
    after=lambda y, x: y,
)
DROPOUTS = [
    DROPOUT_MISSING,
    mistake("dropout-between", IN_BETWEEN, 5, middle=torch.zeros_like),
    mistake(
        "dropout-between",
        "Dropout stands before the activation. In GPT-2 it comes last, after c_proj.",
        5,
        first=torch.zeros_like,
    ),
    mistake(
        "dropout-on-input",
        "Dropout acts on the input. In GPT-2 it comes last, after c_proj.",
        5,
        before=torch.zeros_like,
    ),
    mistake(
        "residual-added",
        "x is added to the output. The residual stands outside, in the block (problem 08).",
        4,
        after=lambda y, x: x,
    ),
]
DROPOUT_IN_EVAL = mistake(
    "dropout-in-eval",
    "Dropout is active in eval mode. nn.Dropout follows train() and eval() by itself; "
    "F.dropout needs training=self.training.",
    5,
)
DROPOUT_MISPLACED = mistake(
    "dropout-misplaced",
    "Dropout is not the last step, or not the only one: it acts once, after c_proj.",
    5,
)
DROPOUT_IN_ROWS = mistake(
    "dropout-whole-rows",
    "Dropout takes whole vectors, or the same places in every row. Each number is dropped by itself.",
    5,
)
NETWORK = [
    mistake(
        "no-activation",
        "There is no activation between the layers, so the two collapse into one matrix.",
        4,
        act=lambda h: h,
    ),
    mistake(
        "activation-after-projection",
        "The activation comes after c_proj. It stands between the two layers.",
        4,
        act=lambda h: h,
        last=gelu,
    ),
    mistake(
        "activation-twice",
        "The activation is applied after c_proj as well. It stands between the two layers, once.",
        4,
        last=gelu,
    ),
    mistake(
        "activation-twice",
        "The activation is applied twice between the layers. Once is enough.",
        4,
        act=lambda h: gelu(gelu(h)),
    ),
    mistake(
        "activation-on-input",
        "The activation is applied to the input. It stands between the two layers.",
        4,
        act=lambda h: h,
        before=gelu,
    ),
    mistake(
        "activation-on-input",
        "The activation is applied to the input as well. It stands between the two layers, once.",
        4,
        before=gelu,
    ),
    *(
        mistake(m.id, f"The network does not use NewGELU. {m.says}", 4, act=m.switches["whole"])
        for m in FORMS
        if m.id != "no-activation"
    ),
    mistake(
        "gated",
        "c_fc's output is multiplied by its own activation. It is activated, nothing more.",
        4,
        act=lambda h: h * gelu(h),
    ),
    mistake(
        "softmax-added",
        "There is a softmax between the layers. There is only the activation.",
        4,
        act=lambda h: gelu(h).softmax(-1),
    ),
    RESIDUAL,
    mistake(
        "residual-added",
        "x is added before c_fc's output is projected, or twice. This network adds no residual.",
        4,
        after=lambda y, x: y + 2 * x,
    ),
    LAYER_NORM,
    mistake(
        "layer-norm-added",
        "The output is normalized. In GPT-2 the layer norm stands outside, in the block.",
        4,
        after=lambda y, x: F.layer_norm(y, y.shape[-1:]),
    ),
    mistake(
        "projection-missing",
        "c_proj has no part in the result: what comes out is still n_inner wide.",
        4,
        down=lambda h, w: h,
    ),
    mistake(
        "layers-in-wrong-order",
        "c_proj is applied before c_fc. First widen (c_fc), then narrow (c_proj).",
        4,
        up=lambda x, w: F.linear(x, w["c_proj.weight"], w["c_proj.bias"]),
        down=lambda h, w: F.linear(h, w["c_fc.weight"], w["c_fc.bias"]),
    ),
    mistake(
        "bias-not-used",
        "c_fc's bias is left out: call the layer instead of multiplying by its weight.",
        4,
        up=lambda x, w: F.linear(x, w["c_fc.weight"]),
    ),
    mistake(
        "bias-not-used",
        "c_proj's bias is left out: call the layer instead of multiplying by its weight.",
        4,
        down=lambda h, w: F.linear(h, w["c_proj.weight"]),
    ),
    mistake(
        "weight-tied",
        "The way down uses c_fc's weight, transposed. c_proj has a weight of its own.",
        4,
        down=lambda h, w: F.linear(h, w["c_fc.weight"].mT, w["c_proj.bias"]),
    ),
    mistake(
        "weight-tied",
        "The way down uses c_fc's weight, transposed. c_proj has a weight and a bias of its own.",
        4,
        down=lambda h, w: F.linear(h, w["c_fc.weight"].mT),
    ),
    mistake(
        "output-scaled",
        "The output is halved. c_proj's result goes out as it is.",
        4,
        after=lambda y, x: y / 2,
    ),
    mistake(
        "output-scaled",
        "The output is divided by √C. c_proj's result goes out as it is.",
        4,
        after=lambda y, x: y / x.size(-1) ** 0.5,
    ),
    mistake(
        "mixes-tokens",
        "Tokens are mixed (averaged over T). Each token goes through by itself.",
        4,
        before=lambda x: x.mean(-2, keepdim=True).expand_as(x),
    ),
    mistake(
        "mixes-tokens",
        "The mean over T is taken off. Each token goes through by itself.",
        4,
        before=lambda x: x - x.mean(-2, keepdim=True),
    ),
    mistake(
        "mixes-tokens",
        "The output is averaged over T. Each token goes through by itself.",
        4,
        after=lambda y, x: y.mean(-2, keepdim=True).expand_as(y),
    ),
]


def network(
    x,
    w,
    *,
    before=lambda x: x,
    up=lambda x, w: F.linear(x, w["c_fc.weight"], w["c_fc.bias"]),
    first=lambda h: h,
    act=gelu,
    middle=lambda h: h,
    down=lambda h, w: F.linear(h, w["c_proj.weight"], w["c_proj.bias"]),
    last=lambda y: y,
    after=lambda y, x: y,
):
    """The feed-forward network with any step replaced."""
    h = middle(act(first(up(before(x), w))))
    return after(last(down(h, w)), x)


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
        fail(mistake(WRONG_INNER, f"Inside the tanh x is multiplied by {a:.7g}; {CONSTANT}.", 1))
    fail(
        mistake(
            WRONG_CUBIC,
            f"The cubic term's constant comes out as {b / a:.6g}; it must be 0.044715.",
            1,
        )
    )


def examine(layer, x):
    """Compare with PyTorch's operators on the same weights."""
    w = weights(layer)
    compare(
        lambda: layer(x),
        oracle(x, w),
        NETWORK,
        lambda **switches: network(x, w, **switches),
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
            fail(NOT_FINITE, f"In {dtype}, {x.tolist()} gives {got.tolist()}.")
        compare(got.float(), x.float().relu(), ACTIVATION, gelu, what=f"gelu(±10000 …) in {dtype}")
    x = torch.tensor([1e4, -1e4, 50.0, -50.0], requires_grad=True)
    act(x).sum().backward()
    if x.grad is None or not torch.isfinite(x.grad).all():
        fail(NOT_FINITE, "The gradient at ±10000 is not finite.")


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
            fail(FIXED_DTYPE, f"{dtype} goes in, {got.dtype} comes out.")
        want = F.gelu(x.double(), approximate="tanh")
        compare(got.double(), want, what=f"gelu(x) in {dtype}", rtol=tolerance, atol=tolerance)


@check(todo=1, needs=test_gelu_by_hand)
def test_gelu_gradient(piece):
    """NewGELU's gradient is that of PyTorch's tanh form, and has no parameters"""
    act = activation_of(piece)
    expect_state(act, ())
    if list(act.parameters()):
        fail("NewGELU has parameters; its constants are fixed. [extra-parameters]")
    mine = torch.linspace(-5, 5, 41, requires_grad=True)
    theirs = mine.detach().clone().requires_grad_()
    out = act(mine)
    if not out.requires_grad:
        fail("No gradient flows back through NewGELU: is something detached? [no-gradient]")
    out.sum().backward()
    F.gelu(theirs, approximate="tanh").sum().backward()
    if not torch.allclose(mine.grad, theirs.grad, rtol=1e-4, atol=1e-5):
        fail(WRONG_GRADIENT, f"At x = 5 it is {mine.grad[-1]:.4g}, expected 1.")
    given = torch.linspace(-3, 3, 13)
    before = given.clone()
    act(given)
    if not torch.equal(given, before):
        fail(IN_PLACE)
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
        fail(SWAPPED, found)
    if shapes == [(C, 4 * C), (4 * C, C)]:
        fail(IGNORED, found)
    if shapes != [(C, N), (N, C)]:
        fail(WIDTHS, found)
    for name, linear in (("c_fc", fc), ("c_proj", proj)):
        if linear.bias is None:
            fail(NO_BIAS, f"{name}.bias is None.")
        if linear.weight.dtype != torch.float32:
            fail(f"{name} has dtype {linear.weight.dtype}, expected torch.float32. [fixed-dtype]")
    if fc.weight.data_ptr() == proj.weight.data_ptr():
        fail(SHARED)
    attribute(layer, "act", piece.NewGELU, "the contract says that act is a NewGELU")
    drop = attribute(layer, "drop", nn.Dropout, "other code looks for it and sets its p")
    default = cls(C, N).drop.p
    if drop.p != 0.3 or default != 0.1:
        asked, got = (0.3, drop.p) if drop.p != 0.3 else ("nothing", default)
        fail(DROPOUT_RATE, f"dropout={asked} was asked for, and drop.p is {got}.")
    names = [f"{name}.{kind}" for name in ("c_fc", "c_proj") for kind in ("weight", "bias")]
    expect_own_start(lambda: cls(C, N))
    expect_state(
        layer, names, {"ln": LAYER_NORM, "norm": LAYER_NORM, "weight": EXTRA, "bias": EXTRA}
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
            "Tokens are mixed: a change in one token reaches others. Each goes through by itself. "
            "(hint 4) [mixes-tokens]",
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
        fail(DROPOUT_RATE, "With dropout=1, in training, not everything is 0.")
    compare(
        got,
        torch.zeros(3, 8, C),
        DROPOUTS,
        lambda **switches: network(x, w, **switches),
        what="the output with dropout=1 in training",
    )
    p = 0.4
    layer = layer_of(piece, dropout=p, seed=2)
    expect_dropout(
        lambda: layer(x),
        layer,
        p,
        missing=DROPOUT_MISSING,
        in_eval=DROPOUT_IN_EVAL,
        misplaced=DROPOUT_MISPLACED,
    )
    layer.train()
    torch.manual_seed(0)
    with torch.no_grad():
        gone = layer(x) == 0
    for axis in range(3):
        if (gone == gone.select(axis, 0).unsqueeze(axis)).all():
            fail(DROPOUT_IN_ROWS)


@check(todo=3, needs=test_network)
def test_no_dropout(piece):
    """dropout=0 changes nothing in training"""
    examine(layer_of(piece, dropout=0.0, seed=3).train(), x_of(seed=3))


@check(todo=3, needs=test_network, follows=test_gelu_gradient)
def test_gradients(piece):
    """Gradients reach x and both layers, and equal those of PyTorch's operators"""
    layer = layer_of(piece, seed=4)
    mine, theirs = x_of(seed=4).requires_grad_(), x_of(seed=4).requires_grad_()
    expect_finite_gradients(layer, layer(mine).pow(2).sum())
    if mine.grad is None:
        fail("No gradient reaches x: is it detached? [no-gradient]")
    w = {name: value.requires_grad_() for name, value in weights(layer).items()}
    oracle(theirs, w).pow(2).sum().backward()
    compare(mine.grad, theirs.grad, what="the gradient of x", rtol=1e-3, atol=1e-4)
    for name, parameter in layer.named_parameters():
        grad = w[name].grad
        compare(parameter.grad, grad, what=f"the gradient of {name}", rtol=1e-3, atol=1e-4)


@check(todo=3, needs=test_network, follows=(test_gelu_dtypes, test_gelu_everywhere))
def test_dtypes(piece):
    """float64 and bfloat16 stay what they are"""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 6e-2)):
        layer, x = layer_of(piece, seed=5).to(dtype), x_of(seed=5, dtype=dtype)
        got = tensor(layer(x))
        if got.dtype != dtype:
            fail(FIXED_DTYPE, f"{dtype} goes in, {got.dtype} comes out.")
        want = oracle(x.double(), weights(layer.double()))
        compare(got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance)


@check(todo=3, needs=test_network)
def test_device_and_copies(piece):
    """Works on x's device, leaves x as it was; a copy and a loaded state_dict give the same"""
    layer = layer_of(piece, seed=6)
    x = x_of(3, 5, C, seed=6)
    expect_no_edit(layer, x, "x")
    expect_copies(layer, lambda module: module(x))
    expect_one_device(layer, lambda module, move: module(move(x)))
