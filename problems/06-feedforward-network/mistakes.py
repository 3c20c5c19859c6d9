"""The known mistakes of problem 06, by the step that they replace (see `textbook`)."""

import math

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.families import of_one_dropout
from learn_gpt2.checking.textbook import CUBIC, INNER, gelu, linear, same

KNOWN = Catalog()
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
CUBICS = (0.44715, 0.0044715, 0.447, 0.0447, 0.04715, 0.047715, 0.044175, 0.45, 0.04, 0.044, 0.045)

# the whole activation, where it is another one
OTHERS = {
    "gelu-erf": (("This is the erf form of GELU. GPT-2 was trained with the tanh form", F.gelu),),
    "gelu-sigmoid": (
        ("This is the sigmoid form, x·σ(1.702 x)", lambda x: x * (1.702 * x).sigmoid()),
        ("This is the sigmoid. GPT-2's is GELU, in the tanh form", torch.sigmoid),
    ),
    "not-gelu": (
        ("This is ReLU. GPT-2's activation is GELU, in the tanh form", F.relu),
        ("This is a leaky ReLU. GPT-2's is GELU, in the tanh form", F.leaky_relu),
        ("This is ELU. GPT-2's is GELU, in the tanh form", F.elu),
        ("This is SELU. GPT-2's is GELU, in the tanh form", F.selu),
        ("This is ReLU². GPT-2's is GELU, in the tanh form", lambda x: x.relu() ** 2),
        ("This is softplus. GPT-2's is GELU, in the tanh form", F.softplus),
        ("This is tanh. GPT-2's is GELU, which has a tanh inside", torch.tanh),
    ),
    "silu": (
        ("This is SiLU (swish). GPT-2's is GELU, in the tanh form", F.silu),
        ("This is Mish. GPT-2's is GELU, in the tanh form", F.mish),
        ("This is hard-swish. GPT-2's is GELU, in the tanh form", F.hardswish),
    ),
}
for id, forms in OTHERS.items():
    KNOWN.add(
        id,
        2 if id.startswith("gelu") else 1,
        f"{forms[0][0]}. The docstring has the formula.",
        *(way(says=f"{says}. The docstring has the formula.", gelu=act) for says, act in forms),
        *(
            way(
                says=f"The network does not use NewGELU. {says}. The docstring has the formula.",
                hint=4,
                family="network",
                act=act,
            )
            for says, act in forms
        ),
        family="form",
    )
KNOWN.put(
    "gelu-erf",
    2,
    "This is the erf form of GELU, and without its √2. GPT-2 was trained with the tanh form.",
    way(gelu=lambda x: 0.5 * x * (1 + x.erf())),
    family="part",
)
KNOWN.add(
    "no-activation",
    1,
    "x comes out as it went in: there is no activation. The docstring has the formula.",
    way(gelu=same),
    way(
        says="There is no activation between the layers, so the two collapse into one matrix.",
        hint=4,
        family="network",
        act=same,
    ),
    family="form",
)

part = KNOWN.section("part", hint=1)
part(
    "gelu-inner-constant",
    f"The constant inside the tanh is another; {CONSTANT}.",
    *(
        way(says=f"Inside the tanh you multiply by {name}; {CONSTANT}.", inner=value)
        for value, name in INNERS
    ),
)
part("gelu-cubic-missing", "The cubic term, 0.044715 x³, is missing inside the tanh.", cubic=0.0)
part("gelu-cubic-sign", "The cubic term is subtracted. It is added.", cubic=-CUBIC)
part(
    "gelu-cubic-constant",
    "The cubic term's constant must be 0.044715.",
    *(
        way(says=f"The cubic term's constant is {value}; it must be 0.044715.", cubic=value)
        for value in CUBICS
    ),
    way(says="x³ has no factor. It is 0.044715 x³.", cubic=1.0),
    way(says="0.044715 is cubed together with x. The power belongs to x alone.", cubic=CUBIC**3),
)
part(
    "gelu-power",
    "You take x², which loses the sign. The formula has x³.",
    way(power=2),
    way(
        says="You take 3 to the power x (3 ** x). The formula has x³, which is x ** 3.",
        gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * 3**x))),
    ),
    way(says="You take x⁴. The formula has x³.", power=4),
    way(says="You take x with no power. The formula has x³.", power=1),
    way(says="You take x⁵. The formula has x³.", power=5),
)
part(
    "gelu-half-missing",
    "The factor 0.5 in front is missing.",
    way(half=1.0),
    way(says="The factor in front is 2. It is 0.5.", half=2.0),
    way(says="The factor 0.5 is there twice.", half=0.25),
)
part(
    "gelu-outer-x-missing",
    "The x in front, 0.5 x (1 + …), is missing: what is left is only the gate.",
    way(outer=torch.ones_like),
    way(says="x in front is squared. It is 0.5 x (1 + …).", outer=torch.square),
)
part("gelu-one-missing", "The 1 + before the tanh is missing: 0.5 x (1 + tanh(…)).", one=0.0)
part(
    "gelu-tanh-sign",
    "The tanh is subtracted, 1 - tanh(…). It is added.",
    bend=lambda u: -torch.tanh(u),
)
part(
    "gelu-inner-x-missing",
    "Inside the tanh, the plain x beside the cubic term is missing.",
    way(straight=torch.zeros_like),
    way(
        says="Inside the tanh stands 1 + 0.044715 x³; it must be x + 0.044715 x³.",
        straight=torch.ones_like,
    ),
)
part("gelu-tanh-missing", "There is no tanh around the bracket.", bend=lambda u: u)
part(
    "gelu-erf-for-tanh",
    "There is an erf where the tanh must be.",
    way(bend=torch.erf),
    way(says="There is a sigmoid where the tanh must be.", bend=torch.sigmoid),
    way(says="There is a sine where the tanh must be.", bend=torch.sin),
    way(says="There is a tan where the tanh must be.", bend=torch.tan),
    way(says="There is a sinh where the tanh must be.", bend=torch.sinh),
    way(says="There is an arctangent where the tanh must be.", bend=torch.atan),
)
part(
    "gelu-brackets",
    "√(2/π) multiplies x alone. It stands before the whole bracket (x + 0.044715 x³).",
    way(gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x + CUBIC * x**3))),
    way(
        says="√(2/π) multiplies the cubic term alone. It stands before the whole bracket.",
        gelu=lambda x: 0.5 * x * (1 + torch.tanh(x + INNER * CUBIC * x**3)),
    ),
    way(
        says="√(2/π) multiplies the tanh. It belongs inside it.",
        gelu=lambda x: 0.5 * x * (1 + INNER * torch.tanh(x + CUBIC * x**3)),
    ),
    way(
        says="The tanh closes too early: the cubic term belongs inside it.",
        gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x) + CUBIC * x**3),
    ),
    way(
        says="0.5 x multiplies only the 1, not the tanh: 0.5 x (1 + tanh(…)).",
        gelu=lambda x: 0.5 * x + torch.tanh(INNER * (x + CUBIC * x**3)),
    ),
    way(
        says="x is added to the tanh: it is 0.5 x · (1 + tanh(…)), a product.",
        gelu=lambda x: 0.5 * (x + torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
    way(
        says="The sum inside the tanh is cubed as a whole. Only x is.",
        gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * x) ** 3)),
    ),
    way(
        says="The 1 stands inside the tanh. It is 1 + tanh(…).",
        gelu=lambda x: 0.5 * x * torch.tanh(1 + INNER * (x + CUBIC * x**3)),
    ),
    way(
        says="0.5 multiplies only the 1: it is 0.5 x (1 + tanh(…)).",
        gelu=lambda x: x * (0.5 + torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
    way(
        says="x multiplies only the tanh: it is 0.5 x (1 + tanh(…)).",
        gelu=lambda x: 0.5 * (1 + x * torch.tanh(INNER * (x + CUBIC * x**3))),
    ),
)
part(
    "gelu-sign-lost",
    "x loses its sign (abs): GELU of a negative number is small and negative.",
    way(gelu=lambda x: gelu(x.abs())),
    way(
        says="x³ loses its sign (abs), so negative numbers come out wrong.",
        gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * (x + CUBIC * x.abs() ** 3))),
    ),
)
part(
    "gelu-product",
    "x and the cubic term are multiplied inside the tanh. They are added.",
    gelu=lambda x: 0.5 * x * (1 + torch.tanh(INNER * x * CUBIC * x**3)),
)
part("gelu-twice", "The activation is applied twice.", gelu=lambda x: gelu(gelu(x)))
part(
    "gelu-negated",
    "The sign is wrong everywhere.",
    way(gelu=lambda x: -gelu(x)),
    way(
        says="This is GELU of -x. Nothing in the formula changes x's sign.", gelu=lambda x: gelu(-x)
    ),
)
part(
    "gelu-clamped",
    "Negative inputs are cut off to 0. GELU dips below it: at -1 it is -0.159.",
    gelu=lambda x: gelu(x).relu(),
)

dropout = KNOWN.section("dropout", hint=5)
dropout(
    "dropout-missing",
    "There is no dropout: with dropout=1, in training, everything would be 0.",
    mlp_output=lambda y, x: y,
)
dropout(
    "dropout-between",
    "Dropout stands between the two layers. In GPT-2 it comes last, after c_proj.",
    way(activated=torch.zeros_like),
    way(
        says="Dropout stands before the activation. In GPT-2 it comes last, after c_proj.",
        widened=torch.zeros_like,
    ),
)
dropout(
    "dropout-on-input",
    "Dropout acts on the input. In GPT-2 it comes last, after c_proj.",
    mlp_input=torch.zeros_like,
)
dropout(
    "residual-added",
    "x is added to the output. The residual stands outside, in the block (problem 08).",
    way(mlp_output=lambda y, x: x),
    way(family="network", mlp_output=lambda y, x: y + x),
    way(
        says=(
            "x is added before c_fc's output is projected, or twice. This network adds no residual."
        ),
        family="network",
        mlp_output=lambda y, x: y + 2 * x,
    ),
    hint=4,
)

network = KNOWN.section("network", hint=4)
network(
    "activation-after-projection",
    "The activation comes after c_proj. It stands between the two layers.",
    act=same,
    narrowed=gelu,
)
network(
    "activation-twice",
    "The activation is applied after c_proj as well. It stands between the two layers, once.",
    way(narrowed=gelu),
    way(
        says="The activation is applied twice between the layers. Once is enough.",
        act=lambda h: gelu(gelu(h)),
    ),
)
network(
    "activation-on-input",
    "The activation is applied to the input. It stands between the two layers.",
    way(act=same, mlp_input=gelu),
    way(
        says=(
            "The activation is applied to the input as well. It stands between the two layers, once."
        ),
        mlp_input=gelu,
    ),
)
network(
    "gated",
    "c_fc's output is multiplied by its own activation. It is activated, nothing more.",
    act=lambda h: h * gelu(h),
)
network(
    "softmax-added",
    "There is a softmax between the layers. There is only the activation.",
    act=lambda h: gelu(h).softmax(-1),
)
network(
    "layer-norm-added",
    "There is a layer norm. In GPT-2 it stands outside, in the block (problem 08).",
    way(mlp_input=lambda x: F.layer_norm(x, x.shape[-1:])),
    way(
        says="The output is normalized. In GPT-2 the layer norm stands outside, in the block.",
        mlp_output=lambda y, x: F.layer_norm(y, y.shape[-1:]),
    ),
)
network(
    "projection-missing",
    "c_proj has no part in the result: what comes out is still n_inner wide.",
    down=lambda h, w: h,
)
network(
    "layers-in-wrong-order",
    "c_proj is applied before c_fc. First widen (c_fc), then narrow (c_proj).",
    up=lambda x, w: linear(x, w, "c_proj"),
    down=lambda h, w: linear(h, w, "c_fc"),
)
network(
    "bias-not-used",
    "c_fc's bias is left out: call the layer instead of multiplying by its weight.",
    way(up=lambda x, w: F.linear(x, w["c_fc.weight"])),
    way(
        says="c_proj's bias is left out: call the layer instead of multiplying by its weight.",
        down=lambda h, w: F.linear(h, w["c_proj.weight"]),
    ),
)
network(
    "weight-tied",
    "The way down uses c_fc's weight, transposed. c_proj has a weight of its own.",
    way(down=lambda h, w: F.linear(h, w["c_fc.weight"].mT, w["c_proj.bias"])),
    way(
        says=(
            "The way down uses c_fc's weight, transposed. c_proj has a weight and a bias of its own."
        ),
        down=lambda h, w: F.linear(h, w["c_fc.weight"].mT),
    ),
)
network(
    "output-scaled",
    "The output is halved. c_proj's result goes out as it is.",
    way(mlp_output=lambda y, x: y / 2),
    way(
        says="The output is divided by √C. c_proj's result goes out as it is.",
        mlp_output=lambda y, x: y / x.size(-1) ** 0.5,
    ),
)
network(
    "mixes-tokens",
    "Tokens are mixed (averaged over T). Each token goes through by itself.",
    way(mlp_input=lambda x: x.mean(-2, keepdim=True).expand_as(x)),
    way(
        says="The mean over T is taken off. Each token goes through by itself.",
        mlp_input=lambda x: x - x.mean(-2, keepdim=True),
    ),
    way(
        says="The output is averaged over T. Each token goes through by itself.",
        mlp_output=lambda y, x: y.mean(-2, keepdim=True).expand_as(y),
    ),
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "edits-input",
    "NewGELU changes its input in place: the caller still needs it. Make a new tensor.",
)
hint_1(
    "fixed-dtype", "The output has another dtype than the input: is a dtype written into forward?"
)
hint_1(
    "gelu-not-finite",
    "Large numbers give NaN or infinity: an exponential overflows. torch.tanh does not.",
)
hint_1(
    "wrong-gradient",
    "NewGELU's numbers are right and its gradient is not: is a part of it detached, or turned into numbers and back?",
)

hint_3 = KNOWN.section(hint=3)
hint_3("bias-missing", "A layer has no bias. GPT-2's have one: nn.Linear makes it by itself.")
hint_3("extra-layer", "There is one layer too many: c_fc and c_proj are all that has weights.")
hint_3("layer-shape", "c_fc must be nn.Linear(C, n_inner) and c_proj nn.Linear(n_inner, C).")
hint_3("n-inner-ignored", "The inner width is 4·C whatever n_inner says. Use n_inner.")
hint_3("shared-layers", "c_proj uses c_fc's weight. Each has weights of its own.")
hint_3(
    "widths-swapped",
    "c_fc and c_proj are swapped: c_fc widens, nn.Linear(C, n_inner), and c_proj narrows.",
)

hint_5 = KNOWN.section(hint=5)
KNOWN.include(of_one_dropout(5))
hint_5(
    "dropout-misplaced",
    "Dropout is not the last step, or not the only one: it acts once, after c_proj.",
)
