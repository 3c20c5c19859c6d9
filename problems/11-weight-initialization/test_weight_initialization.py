"""Checks of problem 11: statistics of the initial weights, with bounds from their standard errors.

A standard deviation estimated from N normal numbers is off by a share 1/√(2N) of itself, a mean by
σ/√N; five times that is never exceeded by chance (once in two million).
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import check, fail, fill, sizes_from

# Sizes whose roots and products all differ, so that a wrong number in the formula can be told.
L, C, H, V, P = sizes_from((7, 80, 4, 700, 150), (6, 88, 4, 640, 160), (7, 72, 6, 760, 140))
STD = 0.02
KNOWN = known(__file__)

# where a weight stands → its parameters' names end with
GROUPS = {
    "attn.c_attn": "attn.c_attn.weight",
    "mlp.c_fc": "mlp.c_fc.weight",
    "attn.c_proj": "attn.c_proj.weight",
    "mlp.c_proj": "mlp.c_proj.weight",
    "wte (and lm_head)": "wte.weight",
    "wpe": "wpe.weight",
}
LINEAR = ("attn.c_attn", "mlp.c_fc")
RESIDUAL = ("attn.c_proj", "mlp.c_proj")
EMBEDDINGS = ("wte (and lm_head)", "wpe")


def configure(**changes):
    """A GPT2Config with sizes that give statistics."""
    from gpt2.model import GPT2Config

    settings = {"vocab_size": V, "n_positions": P, "n_embd": C, "n_layer": L, "n_head": H}
    return GPT2Config(**{**settings, **changes})


def build(piece, **changes):
    """A freshly initialized model; errors that are typical of this problem get their message."""
    return _explained(lambda: piece.GPT2Model(configure(**changes)))


def apply_again(model):
    """Initialize a model's weights again, as __init__ does."""
    return _explained(lambda: model.apply(model._init_weights))


def _explained(run):
    try:
        return run()
    except (AttributeError, TypeError) as error:
        text = str(error)
        if "NoneType" in text or "no attribute 'bias'" in text:
            fail(KNOWN["bias-is-none"], f"Python says: {error}")
        if "no attribute 'config'" in text:
            fail(KNOWN["config-of-module"], f"Python says: {error}")
        raise
    except RuntimeError as error:
        if "leaf Variable" in str(error):
            fail(KNOWN["needs-no-grad"], f"PyTorch says: {error}")
        raise


def group(model, where):
    """The group's weights, one tensor per layer."""
    ending = GROUPS[where]
    # a tied weight has two names, and which is listed first is problem 10's choice
    every = model.named_parameters(remove_duplicate=False)
    return [p.detach() for name, p in every if name.endswith(ending)]


def candidates(where, config):
    """(mistake, the standard deviation that it gives), the likelier first."""
    n, width = config.n_layer, config.n_embd
    root = math.sqrt(2 * n)
    inputs, outputs = {
        "attn.c_attn": (width, 3 * width),
        "mlp.c_fc": (width, 4 * width),
        "attn.c_proj": (width, width),
        "mlp.c_proj": (4 * width, width),
        "wte (and lm_head)": (width, config.vocab_size),
        "wpe": (width, config.n_positions),
    }[where]
    default = 1.0 if where in EMBEDDINGS else 1 / math.sqrt(3 * inputs)
    skipped = KNOWN["embeddings-skipped"] if where in EMBEDDINGS else KNOWN["linear-skipped"]
    found = []
    if where in RESIDUAL:
        found += [
            (KNOWN["residual-not-scaled"], STD),
            (KNOWN["residual-root-n"], STD / math.sqrt(n)),
            (KNOWN["residual-no-root"], STD / (2 * n)),
            (KNOWN["residual-no-root"], STD / n),
            (KNOWN["residual-multiplied"], STD * root),
            (KNOWN["residual-multiplied"], STD * math.sqrt(n)),
            (KNOWN["variance-as-std"], STD**2 / (2 * n)),
            (KNOWN["variance-as-std"], STD**2 / root),
            (KNOWN["variance-as-std"], STD**2),
            (KNOWN["variance-as-std"], math.sqrt(STD) / root),
            (KNOWN["residual-wrong-std"], 1 / root),
            (KNOWN["residual-scaled-again"], STD / root**3),
            (KNOWN["residual-scaled-again"], STD / root**4),
            (KNOWN["residual-scaled-again"], STD / root**5),
        ]
        numbers = (2, 3 * n, 4 * n, 2 * (n + 1), 2 * (n - 1), 24, 12, 2 * width, width)
        numbers += (2 * config.n_head, config.n_head, 2 * config.n_head * n, n**2 * 2)
        found += [(KNOWN["residual-wrong-number"], STD / math.sqrt(number)) for number in numbers]
        found += [(KNOWN["residual-wrong-number"], STD / math.sqrt(2 * width / config.n_head))]
    else:
        found += [
            (KNOWN["scaled-everywhere"], STD / root),
            (KNOWN["scaled-everywhere"], STD / math.sqrt(n)),
            (KNOWN["scaled-everywhere"], STD / (2 * n)),
            (KNOWN["scaled-everywhere"], STD * root),
            (KNOWN["wpe-0.01"] if where == "wpe" else KNOWN["wrong-std"], 0.01),
            (KNOWN["variance-as-std"], STD**2),
            (KNOWN["variance-as-std"], math.sqrt(STD)),
        ]
    found += [
        (skipped, default),
        (KNOWN["std-one"], 1.0),
        (KNOWN["std-by-width"], math.sqrt(2 / (inputs + outputs))),
        (KNOWN["std-by-width"], math.sqrt(2 / inputs)),
        (KNOWN["std-by-width"], math.sqrt(2 / outputs)),
        (KNOWN["std-by-width"], 1 / math.sqrt(inputs)),
        (KNOWN["std-by-width"], 1 / math.sqrt(outputs)),
        (KNOWN["std-by-width"], 1 / math.sqrt(3 * inputs)),
        (KNOWN["std-by-width"], 1 / math.sqrt(width)),
        (KNOWN["std-by-width"], STD / math.sqrt(width)),
        (KNOWN["std-by-width"], 1 / math.sqrt(width) / root),
    ]
    # a uniform distribution between −a and a has standard deviation a/√3
    bounds = (STD, STD / root) if where in RESIDUAL else (STD,)
    return found + [(KNOWN["uniform"], bound / math.sqrt(3)) for bound in bounds]


def is_skipped(model, where):
    """Whether _init_weights leaves a group of weights as it finds it."""
    before = [t.clone() for t in group(fill(model), where)]
    apply_again(model)
    return all(torch.equal(a, b) for a, b in zip(before, group(model, where), strict=True))


def expect_std(where, model, want, formula=""):
    """Check the weights' mean and standard deviation; a wrong one is named where it can be."""
    tensors, config = [t.clone() for t in group(model, where)], model.config
    pooled = torch.cat([t.flatten() for t in tensors]).double()
    n = pooled.numel()
    if not torch.isfinite(pooled).all():
        fail(f"Some weights of {where} are not finite.")
    std, mean = float(pooled.std()), float(pooled.mean())
    off = 5 * std / math.sqrt(n)
    if abs(std - 1) < 0.05 and abs(mean - STD) < abs(mean) and not is_skipped(model, where):
        fail(KNOWN["std-as-mean"], f"{where}: mean {mean:.4g}, standard deviation {std:.4g}.")
    numbers = f"{where}: standard deviation {std:.4g}, expected {want:.4g}{formula}."
    if std == 0:
        fail(KNOWN["zero-weights"], f"{where}: all of them are {mean:.4g}.")
    if repeats(tensors[0]):
        fail(KNOWN["repeated-rows"], f"Look at {where}.")
    if abs(mean) > off:
        fail(KNOWN["wrong-mean"], f"{where}: mean {mean:.4g}, standard deviation {std:.4g}.")
    if abs(std / want - 1) <= 5 / math.sqrt(2 * n):
        return
    # a mixture of layers with several standard deviations is not what any formula gives
    spread = [float(t.double().std()) for t in tensors]
    if max(spread) > 1.2 * min(spread):
        listed = ", ".join(f"{s:.4g}" for s in spread[:4])
        fail(
            KNOWN["layers-differ"],
            f"{where}, layer by layer: {listed}, …; expected {want:.4g}{formula} in each.",
        )
    shape = shape_mistake(pooled)
    near = [(abs(std / value - 1), m) for m, value in candidates(where, config) if value != want]
    best, m = min(near, key=lambda pair: pair[0])
    if shape is KNOWN["truncated-normal"] and abs(std / want - 1) < 0.15:
        fail(KNOWN["truncated-normal"], numbers)
    if best < 0.02:
        fail(m, numbers)
    if shape is not None:
        fail(shape, numbers)
    if where not in RESIDUAL:
        fail(KNOWN["wrong-std"], numbers)
    fail(KNOWN["residual-wrong-std"], numbers)


def repeats(weight):
    """Whether rows or columns are alike: means of n independent numbers are smaller by √n."""
    return any(
        float(weight.mean(axis).std()) > 3 * float(weight.std()) / math.sqrt(weight.size(axis))
        for axis in (0, 1)
    )


def shape_mistake(values):
    """What is wrong with the shape of a distribution, whatever its scale; None for a normal one."""
    z = (values - values.mean()) / values.std()
    kurtosis = float(z.pow(4).mean())  # 3 for a normal distribution, 1.8 for a uniform one
    if abs(kurtosis - 1.8) < 0.1:
        return KNOWN["uniform"]
    if kurtosis < 2.98 and float(z.abs().max()) < 3.2:
        return KNOWN["truncated-normal"]
    return KNOWN["not-normal"] if abs(kurtosis - 3) > 6 * math.sqrt(24 / z.numel()) else None


@check(todo=3)
def test_model_builds(piece):
    """The model can be built, and its weights are finite parameters"""
    model = build(piece)
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name in ("embeddings.wte.weight", "embeddings.wpe.weight", "lm_head.weight", "ln_f.weight"):
        if name not in names:
            fail(KNOWN["not-a-parameter"], f"{name} is not among the model's parameters any more.")
    if not all(module.training for module in model.modules()):
        fail(KNOWN["mode-changed"])
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or not parameter.is_leaf:
            fail(KNOWN["not-a-parameter"], f"{name} can't be trained.")
        if not torch.isfinite(parameter).all():
            fail(f"{name} holds numbers that are not finite.")
    if sum(p.numel() for p in model.parameters()) != 12 * L * C * C + (13 * L + V + P + 2) * C:
        if model.lm_head.weight is not model.embeddings.wte.weight:
            fail(KNOWN["untied-head"])
        fail(KNOWN["not-a-parameter"], "The number of parameters has changed.")


@check(todo=3, needs=test_model_builds)
def test_still_tied(piece):
    """lm_head.weight still is embeddings.wte.weight"""
    model = build(piece)
    if model.lm_head.weight is not model.embeddings.wte.weight:
        fail(KNOWN["untied-head"])


@check(todo=3, needs=test_model_builds, points=2)
def test_linear_layers(piece):
    """Linear layers inside the blocks: N(0, 0.02²)"""
    model = build(piece)
    for where in LINEAR:
        expect_std(where, model, STD)


@check(todo=3, needs=test_still_tied, points=2, follows=test_linear_layers)
def test_embeddings(piece):
    """Token and position embeddings: N(0, 0.02²)"""
    model = build(piece)
    for where in EMBEDDINGS:
        expect_std(where, model, STD)


@check(todo=3, needs=test_model_builds, follows=test_linear_layers)
def test_biases(piece):
    """Every bias of a linear layer is 0"""
    model = build(piece)
    for name, module in model.named_modules():
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.Linear) and bias is not None and bias.any():
            fail(
                KNOWN["biases-not-zero"],
                f"{name}.bias holds {float(bias.detach().abs().max()):.4g}.",
            )


@check(todo=3, needs=test_model_builds)
def test_layer_norms(piece):
    """LayerNorm: weight 1, bias 0, also when other numbers were there before"""
    from gpt2.model import LayerNorm

    model = build(piece)
    _expect_norms(model)
    fill(model)
    apply_again(model)
    before = fill(build(piece)).state_dict()
    # a model may hold PyTorch's own norms, which start right by themselves: whoever looks for
    # problem 07's class passes them by
    norms = [(n, m) for n, m in model.named_modules() if isinstance(m, LayerNorm)]
    for name, norm in norms:
        if torch.equal(norm.weight, before[f"{name}.weight"]):
            fail(
                KNOWN["norm-skipped"],
                f"{name}.weight was set to random numbers before, and still is.",
            )
        if torch.equal(norm.bias, before[f"{name}.bias"]):
            fail(KNOWN["norm-bias"], f"{name}.bias was set to random numbers before, and still is.")
    _expect_norms(model, LayerNorm)


def _expect_norms(model, kind=nn.Module):
    for name, module in model.named_modules():
        if name.endswith(("ln_1", "ln_2", "ln_f")) and isinstance(module, kind):
            for m, what, want in (
                (KNOWN["norm-weight"], "weight", 1.0),
                (KNOWN["norm-bias"], "bias", 0.0),
            ):
                value = getattr(module, what).detach()
                wrong = value[value != want]
                if wrong.numel():
                    fail(m, f"{name}.{what} holds {float(wrong[0]):.4g}.")


@check(todo=3, needs=test_linear_layers, points=3)
def test_residual_projections(piece):
    """attn.c_proj and mlp.c_proj: N(0, (0.02/√(2·n_layer))²)"""
    for n_layer in (L, 3):
        model = build(piece, n_layer=n_layer)
        want = STD / math.sqrt(2 * n_layer)
        formula = f" = 0.02/√(2·{n_layer})"
        stds = [float(torch.cat([t.flatten() for t in group(model, w)]).std()) for w in RESIDUAL]
        scaled = [abs(std / want - 1) < 0.05 for std in stds]
        plain = [abs(std / STD - 1) < 0.05 for std in stds]
        if any(scaled) and any(plain):
            which = RESIDUAL[plain.index(True)]
            fail(
                KNOWN["residual-one-of-two"],
                f"{which}: standard deviation 0.02, expected {want:.4g}{formula}.",
            )
        for where in RESIDUAL:
            expect_std(where, model, want, formula)


@check(todo=3, needs=(test_residual_projections, test_embeddings))
def test_normal_distribution(piece):
    """The weights are normally distributed, not uniform and not cut off"""
    model = build(piece)
    for where in GROUPS:
        z = [t.flatten() / t.std() for t in group(model, where)]
        shape = shape_mistake(torch.cat(z).double())
        if shape is not None:
            fail(shape, f"Look at {where}.")


@check(
    todo=3,
    needs=test_linear_layers,
    points=2,
    follows=(test_normal_distribution, test_residual_projections, test_embeddings),
)
def test_layers_differ(piece):
    """Every weight is drawn by itself: no two layers, rows or models are equal"""
    model = build(piece)
    start = {}  # the first numbers of each weight, scaled: a seed set again shows here
    for where in GROUPS:
        for i, t in enumerate(group(model, where)):
            start[f"{where}[{i}]" if len(group(model, where)) > 1 else where] = t.flatten()[
                : C * C
            ] / t.std().clamp(min=1e-9)
            if repeats(t):
                fail(KNOWN["repeated-rows"], f"Look at {where}.")
            rows = t.std(1) / t.std()
            if not 0.5 < float(rows.min()) <= float(rows.max()) < 1.5:
                fail(
                    KNOWN["rows-differ"],
                    f"Row {int((rows - 1).abs().argmax())} of {where} stands out.",
                )
    names, values = list(start), torch.stack(list(start.values()))
    together = (values @ values.T / values.size(1)).fill_diagonal_(0)
    i, j = divmod(int(together.abs().argmax()), len(names))
    if float(together.abs().max()) > 0.3:
        fail(KNOWN["reseeded"], f"{names[i]} and {names[j]} start with the same numbers.")
    twin = build(piece)
    if torch.equal(twin.embeddings.wpe.weight, model.embeddings.wpe.weight):
        fail(KNOWN["reseeded"], "Two models built one after the other are equal.")
    torch.manual_seed(3)
    first = build(piece).embeddings.wpe.weight.detach().clone()
    torch.manual_seed(4)
    if torch.equal(build(piece).embeddings.wpe.weight, first):
        fail(
            KNOWN["reseeded"],
            "The weights do not depend on torch.manual_seed before the model is built.",
        )


@check(todo=3, needs=(test_residual_projections, test_embeddings, test_biases, test_layer_norms))
def test_apply_starts_over(piece):
    """Applied to a model with other weights, it starts over: nothing of them is left"""
    model = fill(build(piece), scale=3.0)
    apply_again(model)
    want = STD / math.sqrt(2 * L)
    for where in GROUPS:
        std = float(torch.cat([t.flatten() for t in group(model, where)]).std())
        expected = want if where in RESIDUAL else STD
        if abs(std / expected - 1) > 0.05:
            fail(
                f"Applied to a model whose weights were larger, _init_weights leaves {where} at "
                f"standard deviation {std:.4g}, expected {expected:.4g}. Draw new numbers; don't "
                "scale what is there.",
                id="not-from-scratch",
            )
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.bias is not None and module.bias.any():
            fail(
                KNOWN["biases-not-zero"],
                f"Look at {name}.bias after self.apply(self._init_weights).",
            )


@check(todo=3, needs=(test_residual_projections, test_embeddings))
def test_untrained_loss(piece):
    """The untrained model's loss is close to ln V"""
    model = build(piece).eval()
    ids = torch.randint(V, (4, 60), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(ids)[:, :-1].flatten(0, 1)
    loss = float(F.cross_entropy(logits, ids[:, 1:].flatten()))
    if abs(loss - math.log(V)) > 0.1:
        fail(KNOWN["loss-too-high"], f"It is {loss:.3f}; ln {V} = {math.log(V):.3f}.")
