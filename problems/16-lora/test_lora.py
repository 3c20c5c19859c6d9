"""Checks of problem 16. The oracle is a plain linear layer whose weight is W + (alpha / rank) B A."""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    attribute,
    check,
    compare,
    expect_copies,
    expect_error,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
    expect_own_start,
    expect_signature,
    fail,
    fill,
    sizes_from,
    tensor,
    weights,
)

KNOWN = known(__file__)
# inputs, outputs, rank and alpha all differ; alpha / rank is no whole number, nor is alpha / √rank
IN, OUT, RANK, ALPHA = sizes_from((10, 7, 3, 8), (9, 13, 4, 11), (11, 6, 5, 13))
PREFIX = "base_model.model.transformer."
WHY = "merging, adapter files and the engine rely on it"


# ── the computation, each step replaceable ──────────────────────────────────────────────────────


def by_rank(alpha, rank):
    """The scaling."""
    return alpha / rank


def layer_output(
    x,
    w,
    alpha,
    rank,
    *,
    scaling=by_rank,
    inner=lambda x, w: x @ w["lora_A.weight"].t(),
    between=lambda h: h,
    outer=lambda h, w: h @ w["lora_B.weight"].t(),
    join=lambda y, u, w: y + u,
):
    """What a layer gives, with any step replaced."""
    w = {**w, "scaling": scaling(alpha, rank)}
    y = F.linear(x, w["base.weight"], w.get("base.bias"))
    return join(y, w["scaling"] * outer(between(inner(x, w)), w), w)


def merged_weight(
    w,
    alpha,
    rank,
    *,
    scaling=by_rank,
    product=lambda a, b: b @ a,
    join=lambda weight, update: weight + update,
):
    """The base's weight after merging, with any step replaced."""
    update = scaling(alpha, rank) * product(w["lora_A.weight"], w["lora_B.weight"])
    return join(w["base.weight"], update)


def after_merging(x, w, alpha, rank, *, twice=False, none=False):
    """What a merged layer gives: the update once, or twice, or not at all."""
    y = F.linear(x, w["base.weight"], w.get("base.bias"))
    update = layer_output(x, w, alpha, rank) - y
    return y + update * (2 if twice else 0 if none else 1)


def oracle(w, alpha, rank):
    """A plain linear layer with the update in its weight."""
    out, inputs = w["base.weight"].shape
    layer = nn.Linear(inputs, out, bias="base.bias" in w)
    with torch.no_grad():
        layer.weight.copy_(
            torch.addmm(
                w["base.weight"], w["lora_B.weight"], w["lora_A.weight"], alpha=alpha / rank
            )
        )
        if layer.bias is not None:
            layer.bias.copy_(w["base.bias"])
    return layer.eval()


# ── what the checks compute with ────────────────────────────────────────────────────────────────


def made(piece, inputs=IN, out=OUT, rank=RANK, alpha=ALPHA, bias=True, dropout=0.0):
    """A layer as it starts."""
    base = fill(nn.Linear(inputs, out, bias=bias), seed=inputs)
    return expect_module(piece.LoRALinear(base, rank, alpha, dropout))


def filled(piece, *args, seed=0, **kwargs):
    """A layer with random numbers everywhere, in eval mode."""
    return fill(made(piece, *args, **kwargs), seed).eval()


def rows(*shape, seed=0):
    """An input."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + 70))


def examine(module, x, alpha, rank, families=("scaling", "forward"), what="the output"):
    """A layer's output against the plain layer with the update in its weight."""
    w = weights(module)
    with torch.no_grad():
        want = oracle(w, alpha, rank)(x)

    def run():
        with torch.no_grad():
            return tensor(module(x))

    compare(
        run,
        want,
        KNOWN.of(*families),
        lambda **switches: layer_output(x, w, alpha, rank, **switches),
        what=what,
        given=[x],
    )


# ── the layer ───────────────────────────────────────────────────────────────────────────────────


@check(todo=3, points=2)
def test_layer(piece):
    """`base` is there and frozen, `lora_A`, `lora_B`, `scaling` and `merged` are there"""
    base = fill(nn.Linear(IN, OUT))
    before = weights(base)
    module = expect_module(piece.LoRALinear(base, RANK, ALPHA))
    inner = attribute(module, "base", nn.Linear, WHY)
    for name, value in before.items():
        if not torch.equal(getattr(inner, name), value):
            fail(KNOWN["base-changed"], f"base.{name}")
    for name, parameter in inner.named_parameters():
        if parameter.requires_grad:
            fail(KNOWN["base-trainable"], f"base.{name} requires a gradient.")
    for name, shape in (("lora_A", (RANK, IN)), ("lora_B", (OUT, RANK))):
        part = attribute(module, name, nn.Linear, WHY)
        if part.bias is not None:
            fail(KNOWN["lora-has-bias"], f"{name} has one.")
        if part.weight.shape != shape:
            seen = f"{name}.weight is {tuple(part.weight.shape)}, expected {shape}."
            fail(KNOWN["lora-shape"], seen)
        if not part.weight.requires_grad:
            fail(KNOWN["lora-frozen"], f"{name}.weight requires no gradient.")
    scaling = float(attribute(module, "scaling", (float, int, Tensor), WHY))
    for entry in KNOWN.of("scaling"):
        if not math.isclose(scaling, ALPHA / RANK) and math.isclose(
            scaling, entry.switches["scaling"](ALPHA, RANK)
        ):
            fail(entry, f"`scaling` is {scaling:.4g} with alpha = {ALPHA}, rank = {RANK}.")
    if not math.isclose(scaling, ALPHA / RANK, rel_tol=1e-5):
        fail(KNOWN["scaling-wrong"], f"It is {scaling:.4g} with alpha = {ALPHA}, rank = {RANK}.")
    if attribute(module, "merged", (bool, int, Tensor), WHY):
        fail(KNOWN["merged-not-set"], "A new layer says that it is merged.")
    expect_signature(piece.LoRALinear.__init__, "(base, rank, alpha, dropout=0.0)", "LoRALinear")


@check(todo=3, needs=test_layer, points=2)
def test_start(piece):
    """A starts at random, Kaiming uniform with a = √5, and B at zero"""
    module = made(piece, 64, OUT, 16)
    a, b = module.lora_A.weight.detach(), module.lora_B.weight.detach()
    if not a.any():
        fail(KNOWN["both-zero" if not b.any() else "start-exchanged"])
    if b.any():
        fail(KNOWN["both-random"])
    bound = 1 / math.sqrt(64)
    largest, spread = float(a.abs().max()), float(a.std())
    if largest > bound * 1.0001 or abs(spread / (bound / math.sqrt(3)) - 1) > 0.12:
        fail(
            KNOWN["start-of-a"],
            f"With 64 inputs and rank 16, A reaches {largest:.3f} and has the standard deviation "
            f"{spread:.4f}; expected at most {bound:.3f}, and about {bound / math.sqrt(3):.4f}.",
        )
    expect_own_start(lambda: nn.ModuleList([made(piece, 64, OUT, 16).lora_A]))


@check(todo=3, needs=test_layer)
def test_follows_the_base(piece):
    """A and B have the base's dtype, and lie on its device"""
    for kind in ({"dtype": torch.float64}, {"dtype": torch.bfloat16}, {"device": "meta"}):
        module = piece.LoRALinear(nn.Linear(IN, OUT, **kind), RANK, ALPHA)
        for name in ("lora_A", "lora_B"):
            got = getattr(module, name).weight
            want = module.base.weight
            if got.dtype != want.dtype or got.device.type != want.device.type:
                fail(
                    KNOWN["lora-dtype"],
                    f"{name}: {got.dtype} on {got.device.type}; the base: {want.dtype} on "
                    f"{want.device.type}.",
                )


@check(todo=4, needs=test_layer, points=2)
def test_forward(piece):
    """base(x) plus the scaled update, for inputs of any shape"""
    if filled(piece).merged:
        fail(KNOWN["merges-with-the-mode"], "After eval(), a new layer is merged.")
    for seed, shape in enumerate(((4, IN), (IN,), (2, 3, IN))):
        examine(filled(piece, seed=seed), rows(*shape, seed=seed), ALPHA, RANK)
    for alpha, rank in ((ALPHA, 1), (0.5, 2), (16, 8)):
        module = filled(piece, rank=rank, alpha=alpha)
        examine(module, rows(4, IN), alpha, rank, what=f"the output at alpha={alpha}, rank={rank}")


@check(todo=4, needs=test_forward)
def test_forward_square(piece):
    """As many inputs as outputs, a base without a bias, and an input that stays as it was"""
    module = filled(piece, IN, IN)
    examine(module, rows(4, IN), ALPHA, RANK)
    examine(filled(piece, IN, IN, rank=IN), rows(4, IN), ALPHA, IN)
    plain = filled(piece, bias=False)
    examine(plain, rows(2, 3, IN), ALPHA, RANK, ("scaling",))
    expect_no_edit(module, rows(4, IN))
    expect_mode_kept(module, lambda: module(rows(4, IN)))


@check(todo=4, needs=(test_start, test_forward))
def test_starts_as_the_base(piece):
    """A new layer gives exactly what its base gives"""
    module, x = made(piece).eval(), rows(4, IN)
    with torch.no_grad():
        compare(module(x), module.base(x), what="the output of a new layer")


@check(todo=4, needs=test_forward, points=2)
def test_gradients(piece):
    """Gradients reach A, B and the input, and nothing else"""
    module, x = filled(piece).train(), rows(4, IN).requires_grad_()
    other = rows(4, IN).requires_grad_()
    w = {name: value.requires_grad_() for name, value in weights(module).items()}
    tensor(module(x)).pow(2).mean().backward()
    layer_output(other, w, ALPHA, RANK).pow(2).mean().backward()
    if x.grad is None or not x.grad.any():
        fail(KNOWN["base-without-gradient"], "The gradient of the input is missing.")
    update, fixed = rows(4, IN).requires_grad_(), weights(module)
    y = layer_output(update, fixed, ALPHA, RANK)
    u = y - F.linear(update, fixed["base.weight"], fixed["base.bias"])
    (u * (2 / y.numel() * y.detach())).sum().backward()
    if torch.allclose(x.grad, update.grad, atol=1e-6):
        fail(KNOWN["base-without-gradient"], "The gradient of the input is the update's alone.")
    compare(x.grad, other.grad, what="the gradient of the input")
    for name, parameter in module.named_parameters():
        if name.startswith("base."):
            if parameter.grad is not None:
                fail(KNOWN["base-trainable"], f"{name} gets a gradient.")
        elif parameter.grad is None:
            fail(f"No gradient reaches {name}.", id="no-gradient")
        else:
            compare(parameter.grad, w[name].grad, what=f"{name}'s gradient")


@check(todo=4, needs=test_forward, points=2)
def test_dropout(piece):
    """Dropout acts on the update's input, in training only"""
    p, inputs, count = 0.4, 200, 60
    module = made(piece, inputs, OUT, 1, 1.0, dropout=p)
    x = torch.ones(count, inputs)
    with torch.no_grad():
        module.base.weight.zero_()
        module.base.bias.copy_(torch.arange(OUT) + 1.0)
        module.lora_A.weight.fill_(1.0)
        module.lora_B.weight.zero_()
        quiet = tensor(module.train()(x))
        if not torch.allclose(quiet, module.base.bias.expand_as(quiet)):
            fail(KNOWN["dropout-on-base"], "With B = 0, in training, the output is not the base's.")
        module.base.weight.fill_(1.0)
        quiet, want = tensor(module.train()(x)), inputs + module.base.bias.expand(count, OUT)
        if not torch.allclose(quiet, want, rtol=1e-4):
            fail(KNOWN["dropout-on-base"], "With B = 0, in training, the output is not the base's.")
        module.base.weight.zero_()
        module.base.bias.zero_()
        module.lora_B.weight.fill_(1.0)
        if not torch.allclose(tensor(module.eval()(x)), torch.full((count, OUT), float(inputs))):
            fail(KNOWN["dropout-in-eval"])
        torch.manual_seed(0)
        got = tensor(module.train()(x))
    if torch.allclose(got, torch.full_like(got, float(inputs))):
        fail(KNOWN["dropout-missing"], f"With dropout={p}, in training, nothing is dropped.")
    if not torch.allclose(got, got[:, :1].expand_as(got), rtol=1e-4):
        fail(KNOWN["dropout-on-the-update"], "The numbers of one row are dropped one by one.")
    sums = got[:, 0] / inputs  # each the mean of `inputs` numbers that are 0 or 1 / (1 − p)
    if ((sums.abs() < 1e-4) | ((sums - 1 / (1 - p)).abs() < 1e-4)).all():
        fail(KNOWN["dropout-after-a"], "A row's update is dropped as a whole, or not at all.")
    if (sums == sums[0]).all():
        fail("All rows of one call lose the same inputs.", id="dropout-repeats")
    # its variance tells the rate: p / (1 − p) / inputs
    rate = float(sums.var()) * inputs
    rate = rate / (1 + rate)
    if abs(float(sums.mean()) - 1) > 0.03 or abs(rate - p) > 0.2:
        fail(KNOWN["dropout-rate"], f"With dropout={p} it looks like {rate:.2f}.")


# ── merging ─────────────────────────────────────────────────────────────────────────────────────


def now(module):
    """The base's weight at the moment."""
    return module.base.weight.detach().clone()


@check(todo=5, needs=test_forward, points=2)
def test_merge(piece):
    """merge() adds (alpha / rank) B A to the base's weight, once"""
    for inputs, out in ((IN, IN), (IN, OUT)):
        module = filled(piece, inputs, out)
        w = weights(module)
        want = oracle(w, ALPHA, RANK).weight.detach()
        try:
            module.merge()
        except (RuntimeError, TypeError, ValueError) as error:
            if "leaf" not in str(error):
                raise
            fail(KNOWN["merge-keeps-graph"], f"PyTorch says: {str(error)[:150]}")
        weight = module.base.weight
        if weight.requires_grad and not weight.is_leaf:
            fail(KNOWN["merge-keeps-graph"])
        if weight.requires_grad:
            fail(KNOWN["merge-unfreezes"])
        compare(
            now(module),
            want,
            KNOWN.of("merge"),
            lambda w=w, **switches: merged_weight(w, ALPHA, RANK, **switches),
            what="the base's weight after merge()",
            axes="out in",
        )
        if not module.merged:
            fail(KNOWN["merged-not-set"], "`merged` is False after merge().")
        for name in ("lora_A.weight", "lora_B.weight"):
            if not torch.equal(module.state_dict()[name], w[name]):
                fail(KNOWN["merge-resets"], f"merge() changes {name}.")
        if not torch.equal(module.base.bias.detach(), w["base.bias"]):
            fail(KNOWN["base-changed"], "merge() changes base.bias.")
        module.merge()
        if not torch.allclose(now(module), want, atol=1e-5):
            fail(KNOWN["merged-twice"])


@check(todo=5, needs=test_merge, points=2)
def test_forward_merged(piece):
    """A merged layer gives what it gave before, and the update counts once"""
    for inputs, out in ((IN, OUT), (IN, IN)):
        module, x = filled(piece, inputs, out, seed=1), rows(3, inputs)
        w = weights(module)
        want = oracle(w, ALPHA, RANK)(x).detach()
        module.merge()
        with torch.no_grad():
            got = tensor(module(x))
        compare(
            got,
            want,
            KNOWN.of("after"),
            lambda w=w, x=x, **switches: after_merging(x, w, ALPHA, RANK, **switches),
            what="the output after merge()",
        )


@check(todo=6, needs=test_merge, points=2)
def test_unmerge(piece):
    """unmerge() takes the update out again, and nothing when it is not there"""
    module, x = filled(piece, seed=2), rows(3, IN)
    w = weights(module)
    first = w["base.weight"]
    module.unmerge()
    if not torch.equal(now(module), first):
        fail(KNOWN["unmerged-twice"], "unmerge() before any merge() changes the base's weight.")
    module.merge()
    merged = now(module)
    module.unmerge()
    if torch.equal(now(module), merged):
        fail(KNOWN["unmerge-does-nothing"])
    compare_back(module, first)
    if module.merged:
        fail(KNOWN["merged-not-set"], "`merged` is True after unmerge().")
    for name in ("lora_A.weight", "lora_B.weight"):
        if not torch.equal(module.state_dict()[name], w[name]):
            fail(KNOWN["merge-resets"], f"unmerge() changes {name}.")
    module.unmerge()
    if not torch.allclose(now(module), first, atol=1e-5):
        fail(KNOWN["unmerged-twice"], "A second unmerge() changes the base's weight.")
    if module.base.weight.requires_grad:
        fail(KNOWN["merge-unfreezes"], "It requires a gradient after unmerge().")
    module.merge()
    if not torch.allclose(now(module), merged, atol=1e-5):
        fail(KNOWN["unmerge-wrong"], "A merge() after unmerge() gives another weight.")
    module.unmerge()
    with torch.no_grad():
        compare(module(x), oracle(w, ALPHA, RANK)(x), what="the output after all of this")


def compare_back(module, first):
    """The base's weight is what it was."""
    off = float((now(module) - first).abs().max())
    if off > 1e-4:
        fail(KNOWN["unmerge-wrong"], f"A weight is off by {off:.3g}.")


@check(todo=6, needs=test_unmerge)
def test_modes_do_not_merge(piece):
    """train() and eval() leave the base's weight alone"""
    module = filled(piece, seed=3)
    first = now(module)
    for training in (True, False, True, False):
        module.train(training)
        if module.merged or not torch.equal(now(module), first):
            fail(KNOWN["merges-with-the-mode"], f"After {'train' if training else 'eval'}().")
    expect_copies(module, lambda m: m(rows(2, IN)))


# ── the model ───────────────────────────────────────────────────────────────────────────────────

C, V, P, LAYERS = 12, 17, 9, 2
ENDS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")


def shell(seed=0):
    """The modules of a GPT-2 under their names, without anything that runs them."""
    model = nn.Module()
    model.embeddings = nn.Module()
    model.embeddings.wte, model.embeddings.wpe = nn.Embedding(V, C), nn.Embedding(P, C)
    model.h = nn.ModuleList()
    for _ in range(LAYERS):
        block = nn.Module()
        block.ln_1, block.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        block.attn, block.mlp = nn.Module(), nn.Module()
        block.attn.c_attn, block.attn.c_proj = nn.Linear(C, 3 * C), nn.Linear(C, C)
        block.mlp.c_fc, block.mlp.c_proj = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        model.h.append(block)
    model.ln_f = nn.LayerNorm(C)
    model.lm_head = nn.Linear(C, V, bias=False)
    model.lm_head.weight = model.embeddings.wte.weight
    return fill(model, seed)


def names_for(*targets):
    """The layers that these targets mean."""
    ends = [end for end in ENDS if end.rpartition(".")[2] in targets]
    return [f"h.{i}.{end}" for i in range(LAYERS) for end in ends]


def adapted(piece, seed=0, rank=RANK, targets=("c_attn", "c_fc")):
    """A model with random numbers in all updates."""
    model = shell(seed)
    piece.add_lora(model, rank, ALPHA, 0.0, targets)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            fill_one(parameter, seed + len(name) + sum(map(ord, name)))
    return model


def fill_one(parameter, seed):
    """Random numbers into a parameter."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)


def found(piece, model):
    """The names of all LoRALinear."""
    return [name for name, m in model.named_modules() if isinstance(m, piece.LoRALinear)]


def trainable(model):
    """The names of the parameters that can be trained."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@check(todo=8, needs=test_layer, points=2)
def test_add(piece):
    """Every layer that a target names is replaced, and no other"""
    for targets in (("c_attn",), ("c_proj",), ("c_attn", "c_fc"), ("c_fc", "c_proj", "c_attn")):
        model = shell(1)
        plain = copy.deepcopy(model)
        names = piece.add_lora(model, RANK, ALPHA, 0.0, targets)
        want, got = names_for(*targets), found(piece, model)
        if not set(got) & dict(plain.named_modules()).keys():
            seen = f" It has new modules: {', '.join(got[:3])}." if got else ""
            fail(KNOWN["nothing-replaced"], f"targets={targets}.{seen}")
        if set(got) - set(want):
            extra = sorted(set(got) - set(want))
            fail(KNOWN["too-many-replaced"], f"targets={targets}: {', '.join(extra[:4])}")
        if set(want) - set(got):
            lost = sorted(set(want) - set(got))
            fail(KNOWN["layers-missed"], f"targets={targets}: {', '.join(lost[:4])}")
        listed = isinstance(names, (list, tuple)) and all(isinstance(n, str) for n in names)
        if not listed or sorted(names) != sorted(want):
            fail(KNOWN["names-wrong"], f"It returns {str(names)[:150]}.")
        parts = dict(model.named_modules())
        if len({id(parts[name]) for name in want}) < len(want):
            fail(KNOWN["layers-share-an-update"])
        for name in want:
            module, was = parts[name], plain.get_submodule(name)
            same = torch.equal(module.base.weight, was.weight)
            if not same or not torch.equal(module.base.bias, was.bias):
                fail(KNOWN["base-changed"], f"That of {name}.")
        rest = {n: v for n, v in plain.state_dict().items() if n.rpartition(".")[0] not in want}
        state = model.state_dict()
        for name, value in rest.items():
            if name not in state or not torch.equal(state[name], value):
                fail(KNOWN["too-many-replaced"], f"{name} is no longer what it was.")
        places = [parts[name].lora_A.weight.data_ptr() for name in want]
        if len(set(places)) < len(places):
            fail(KNOWN["layers-share-an-update"], "A is the same tensor in two layers.")


def expect_default(piece):
    """add_lora(model) alone adapts c_attn with rank 8 and alpha 16."""
    model = shell(2)
    piece.add_lora(model)
    if sorted(found(piece, model)) != sorted(names_for("c_attn")):
        fail("add_lora(model) alone must adapt c_attn: targets=('c_attn',).", id="wrong-default")
    layer = model.h[0].attn.c_attn
    if layer.lora_A.weight.shape[0] != 8 or float(layer.scaling) != 2.0:
        fail("add_lora(model) alone must take rank=8 and alpha=16.", id="wrong-default")


@check(todo=8, needs=test_add, points=2)
def test_add_freezes(piece):
    """A and B can be trained, and nothing else"""
    model = shell(3)
    names = names_for("c_attn", "c_proj")
    piece.add_lora(model, RANK, ALPHA, 0.0, ("c_attn", "c_proj"))
    want = {f"{name}.{part}.weight" for name in names for part in ("lora_A", "lora_B")}
    got = trainable(model)
    if want - got:
        fail(KNOWN["nothing-trainable"], f"{min(want - got)} requires no gradient.")
    extra = sorted(got - want)
    if any(".base." in name for name in extra):
        fail(KNOWN["base-trainable"], f"{extra[0]} requires a gradient.")
    if extra:
        fail(KNOWN["rest-trainable"], f"{extra[0]} requires a gradient.")


@check(
    todo=8,
    needs=(test_add, test_forward),
    points=2,
    follows=(test_start, test_forward_square, test_dropout),
)
def test_add_passes_on(piece):
    """rank, alpha, dropout, dtype and the mode reach the new layers"""
    for training in (False, True):
        model = shell(4).train(training)
        piece.add_lora(model, RANK, ALPHA, 0.5, ("c_proj",))
        for name in names_for("c_proj"):
            module = model.get_submodule(name)
            rank = module.lora_A.weight.shape[0]
            if rank != RANK or not math.isclose(float(module.scaling), ALPHA / RANK, rel_tol=1e-5):
                seen = f"rank {rank} and scaling {float(module.scaling):.4g}"
                fail(
                    KNOWN["arguments-not-passed-on"],
                    f"rank={RANK}, alpha={ALPHA}: {name} has {seen}.",
                )
            if any(part.training != training for part in module.modules()):
                word = "train" if training else "eval"
                fail(KNOWN["mode-not-taken"], f"The model is in {word} mode, {name} is not.")
            fill_one(module.lora_B.weight, 5)
            x = rows(8, module.lora_A.weight.shape[1])
            with torch.no_grad():
                twice = torch.equal(tensor(module(x)), tensor(module(x)))
            if twice and training:
                fail(KNOWN["arguments-not-passed-on"], "dropout=0.5 has no effect in training.")
    model = shell(5).double()
    piece.add_lora(model, RANK, ALPHA)
    if model.h[1].attn.c_attn.lora_A.weight.dtype != torch.float64:
        fail(KNOWN["lora-dtype"], "In a float64 model A is not float64.")
    expect_default(piece)


def expect_untouched(piece, model, before, when):
    """After an error the model is what it was."""
    if found(piece, model):
        fail(KNOWN["changed-before-error"], f"Layers are replaced, {when}.")
    if trainable(model) != before:
        fail(KNOWN["changed-before-error"], f"Parameters are frozen, {when}.")


@check(todo=7, needs=test_add)
def test_add_refuses_unknown(piece):
    """A target that no linear layer is called is a ValueError, before anything changes"""
    for targets in (("c_atn",), ("c_attn", "q_proj"), ("q_proj", "c_attn"), ("wte",), ("ln_1",)):
        model = shell(6)
        before = trainable(model)
        expect_error(
            lambda model=model, targets=targets: piece.add_lora(model, RANK, ALPHA, 0.0, targets),
            (),
            when=f"targets={targets}",
            missing=KNOWN["target-not-checked"],
        )
        expect_untouched(piece, model, before, f"targets={targets}")
    for target in ("attn", "proj", "c_", "mlp", "h.0.attn.c_att", "fc"):
        model = shell(6)
        expect_error(
            lambda model=model, target=target: piece.add_lora(model, RANK, ALPHA, 0.0, (target,)),
            (),
            when=f"targets=({target!r},)",
            missing=KNOWN["target-in-part"],
        )


@check(todo=7, needs=test_add)
def test_add_refuses_the_head(piece):
    """lm_head is a ValueError, before anything changes: its weight is the embeddings' table"""
    for targets in (("lm_head",), ("c_attn", "lm_head"), ("lm_head", "c_fc")):
        model = shell(7)
        before = trainable(model)
        expect_error(
            lambda model=model, targets=targets: piece.add_lora(model, RANK, ALPHA, 0.0, targets),
            (),
            when=f"targets={targets}",
            missing=KNOWN["head-adapted"],
        )
        expect_untouched(piece, model, before, f"targets={targets}")


def without_updates(model, names):
    """The plain weights that a model with these updates stands for: name → weight."""
    got = {}
    for name in names:
        w = weights(model.get_submodule(name))
        got[name] = oracle(w, ALPHA, RANK).weight.detach().clone()
    return got


@check(todo=9, needs=(test_add, test_merge), points=2, follows=test_add_passes_on)
def test_merge_lora(piece):
    """merge_lora leaves plain linear layers, with the update in them once"""
    plain = shell(8)
    names = names_for("c_attn", "c_fc")
    for merged in ((), names[:1], names):
        model = adapted(piece, 8)
        want = without_updates(model, names)
        bases = {name: model.get_submodule(name).base.weight.detach().clone() for name in names}
        for name in merged:
            model.get_submodule(name).merge()
        piece.merge_lora(model)
        if found(piece, model):
            fail(KNOWN["merge-leaves-layers"], f"{found(piece, model)[0]} is one.")
        state = model.state_dict()
        if state.keys() != plain.state_dict().keys():
            odd = sorted(state.keys() ^ plain.state_dict().keys())
            fail(KNOWN["merge-leaves-layers"], f"state_dict() differs from before in {odd[0]}.")
        for name in names:
            got, update = state[f"{name}.weight"], want[name] - bases[name]
            when = f"{name}, which was {'' if name in merged else 'not '}merged before."
            if torch.allclose(got, bases[name], atol=1e-5):
                lost = "merge-lora-unmerges" if name in merged else "merge-loses-update"
                fail(KNOWN[lost], when)
            if torch.allclose(got, want[name] + update, atol=1e-4):
                fail(KNOWN["merge-lora-twice"], when)
            compare(got, want[name], what=f"the weight of {name} after merge_lora")
            if not torch.equal(state[f"{name}.bias"], plain.state_dict()[f"{name}.bias"]):
                fail(KNOWN["base-changed"], f"The bias of {name} is another.")


# ── the adapter ─────────────────────────────────────────────────────────────────────────────────


def keys_for(names):
    """The names in an adapter."""
    parts = ("lora_A", "lora_B")
    return {f"{PREFIX}{name}.{part}.weight": (name, part) for name in names for part in parts}


@check(todo=10, needs=test_add, points=2)
def test_adapter_state(piece):
    """A and B of every layer under peft's names, and nothing else"""
    model = adapted(piece, 9)
    keys = keys_for(names_for("c_attn", "c_fc"))
    state = piece.adapter_state(model)
    if not isinstance(state, dict):
        fail(
            f"adapter_state must return a dict, and it is a {type(state).__name__}.",
            id="wrong-type",
        )
    got = set(state)
    if any(".base." in name or name.endswith((".bias", "wte.weight")) for name in got):
        fail(KNOWN["adapter-holds-base"], f"It holds {min(got - set(keys))!r}.")
    if got - set(keys):
        odd = min(got - set(keys))
        fail(KNOWN["adapter-names"], f"{odd!r}; expected such as {min(keys)!r}.")
    if set(keys) - got:
        fail(KNOWN["adapter-incomplete"], f"{min(set(keys) - got)!r} is missing.")
    for key, (name, part) in keys.items():
        module = model.get_submodule(name)
        want, value = getattr(module, part).weight.detach(), tensor(state[key], key).detach()
        if value.shape != want.shape:
            fail(KNOWN["adapter-transposed"], f"{key} is {tuple(value.shape)}.")
        for factor in (float(module.scaling), float(module.scaling) ** 0.5):
            if torch.allclose(value, want * factor, rtol=1e-4):
                fail(KNOWN["adapter-scaled"], f"{key} is {factor:.3g} times the parameter.")
        compare(value, want, what=key)


@check(todo=11, needs=test_adapter_state, points=2)
def test_load(piece):
    """A and B become what the adapter holds"""
    model, other = adapted(piece, 10), adapted(piece, 11)
    state = {key: value.detach().clone() for key, value in piece.adapter_state(other).items()}
    given = {key: value.clone() for key, value in state.items()}
    before, can = weights(model), trainable(model)
    piece.load_adapter_state(model, state)
    if state.keys() != given.keys() or any(not torch.equal(state[k], given[k]) for k in given):
        fail(KNOWN["state-edited"])
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if not changed:
        fail(KNOWN["load-does-nothing"])
    for key, (name, part) in keys_for(names_for("c_attn", "c_fc")).items():
        if not torch.allclose(after[f"{name}.{part}.weight"], given[key]):
            fail(KNOWN["load-wrong"], f"{name}.{part}.weight is something else than {key}.")
    if any(".lora_" not in name for name in changed):
        fail(KNOWN["load-wrong"], "Something else than A and B was changed.")
    if trainable(model) != can:
        fail(KNOWN["load-freezes"], f"{min(trainable(model) ^ can)} was not so before.")
    x = rows(3, C)
    with torch.no_grad():
        for name in names_for("c_attn", "c_fc"):
            layer, theirs = model.get_submodule(name), other.get_submodule(name)
            w = {**weights(theirs), "base.weight": layer.base.weight.detach()}
            w["base.bias"] = layer.base.bias.detach()
            compare(layer(x), oracle(w, ALPHA, RANK)(x), what=f"the output of {name}, loaded")


@check(todo=11, needs=test_load, points=2)
def test_load_refuses(piece):
    """What is missing, unexpected or of another shape is a ValueError, and nothing is loaded"""
    other = adapted(piece, 12)
    state = {key: value.detach().clone() for key, value in piece.adapter_state(other).items()}
    name = f"{PREFIX}h.1.mlp.c_fc"
    a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
    lacking = {k: v for k, v in state.items() if k != f"{name}.lora_B.weight"}
    stranger = {**state, f"{PREFIX}h.7.attn.c_attn.lora_A.weight": a.clone()}
    cases = [
        ("missing-accepted", "h.1.mlp.c_fc", lacking),
        ("missing-accepted", "", {}),
        ("unexpected-accepted", "h.7.attn.c_attn", stranger),
        ("unexpected-accepted", "", {**state, "nobody.weight": a.clone()}),
        ("unexpected-accepted", "", {k.removeprefix(PREFIX): v for k, v in state.items()}),
    ]
    for part, value in (
        ("lora_A", a[:, :1]),
        ("lora_A", a[:1]),
        ("lora_A", a.t()),
        ("lora_B", torch.cat((b, b))),
        ("lora_B", b.flatten()),
        ("lora_B", b[None]),
    ):
        changed = {**state, f"{name}.{part}.weight": value.clone()}
        cases.append(("misshapen-accepted", "h.1.mlp.c_fc", changed))
    for mistake, mention, given in cases:
        model = adapted(piece, 13)
        before = weights(model)
        word = mistake.split("-")[0]
        expect_error(
            lambda model=model, given=given: piece.load_adapter_state(model, given),
            [mention] if mention else [],
            when=f"a tensor is {word}",
            missing=KNOWN[mistake],
        )
        after = weights(model)
        if any(not torch.equal(before[n], after[n]) for n in before):
            fail(KNOWN["loaded-in-part"], f"A tensor was {word}.")


@check(todo=11, needs=(test_load, test_merge))
def test_load_refuses_merged(piece):
    """Loading while merged is a ValueError, and nothing is loaded"""
    other = adapted(piece, 14)
    state = {key: value.detach().clone() for key, value in piece.adapter_state(other).items()}
    for merged in (names_for("c_attn", "c_fc"), names_for("c_fc")[-1:]):
        model = adapted(piece, 15)
        for name in merged:
            model.get_submodule(name).merge()
        before = weights(model)
        expect_error(
            lambda model=model: piece.load_adapter_state(model, state),
            (),
            when="a layer is merged",
            missing=KNOWN["merged-accepted"],
        )
        after = weights(model)
        if any(not torch.equal(before[n], after[n]) for n in before):
            fail(KNOWN["loaded-in-part"], "The model was merged.")


@check(
    todo=11,
    needs=(test_add_freezes, test_merge_lora, test_load),
    points=2,
    follows=test_add_passes_on,
)
def test_whole_model(piece):
    """A whole GPT-2: the same logits at the start, other ones with an adapter, and after merging"""
    from gpt2.model import GPT2Config, GPT2Model

    ids = torch.randint(0, V, (2, 7), generator=torch.Generator().manual_seed(3))
    torch.manual_seed(4)
    model = fill(GPT2Model(GPT2Config(V, P, C, LAYERS, 3)), 5, scale=0.3).eval()
    plain = copy.deepcopy(model)
    targets = ("c_attn", "c_proj")
    with torch.no_grad():
        start = plain(ids)
    piece.add_lora(model, RANK, ALPHA, 0.2, targets)
    with torch.no_grad():
        compare(model(ids), start, what="the logits of a model with a new LoRA", rtol=1e-3)
    for name, parameter in model.named_parameters():
        if ".lora_B" in name:
            fill_one(parameter, sum(map(ord, name)))
    with torch.no_grad():
        for name in names_for(*targets):
            w = weights(model.get_submodule(name))
            plain.get_submodule(name).weight.copy_(oracle(w, ALPHA, RANK).weight)
        want = plain(ids)
        compare(model(ids), want, what="the logits with an adapter", rtol=1e-3)
        piece.merge_lora(model)
        compare(model(ids), want, what="the logits after merge_lora", rtol=1e-3)
