"""Checks of problem 04. The oracle is PyTorch's own nn.MultiheadAttention."""

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    attribute,
    check,
    compare,
    expect_copies,
    expect_dropout,
    expect_error,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
    expect_no_memory,
    expect_one_device,
    expect_own_start,
    expect_signature,
    expect_state,
    fail,
    fill,
    operations,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.textbook import multi_head, unmasked

# Sizes that all differ, so that a swapped axis can't hide; H is not 3, the number of q, k and v, and
# no root of a size is a whole number, so that 2·√D is not √C.
B, T, H, D = sizes_from((2, 7, 5, 6), (3, 5, 4, 7), (2, 8, 3, 10))
C = H * D
NAMES = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")


KNOWN = known(__file__)
MISTAKES = KNOWN.of(
    *("order", "scale", "more-scales", "product", "in-forward", "heads", "unpacking"),
    *("out", "shared", "softmax", "split-one", "before"),
)
WORDS = ("query", "key", "value")


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def module_of(piece, n_embd=C, n_head=H, dropout=0.1, attn_dropout=None, seed=0):
    """A module in eval mode with random weights and biases."""
    made = piece.MultiHeadAttention(n_embd, n_head, dropout, attn_dropout)
    return fill(made, seed).eval()


def stream(b=B, t=T, c=C, seed=0, dtype=torch.float32):
    """Random x (b, t, c)."""
    g = torch.Generator().manual_seed(100 + seed)
    return torch.randn(b, t, c, generator=g).to(dtype)


def oracle(w, h):
    """PyTorch's own multi-head attention with these weights."""
    c = w["c_proj.bias"].numel()
    theirs = nn.MultiheadAttention(c, h, batch_first=True).to(w["c_proj.bias"].dtype)
    theirs.load_state_dict(
        {
            "in_proj_weight": w["c_attn.weight"],
            "in_proj_bias": w["c_attn.bias"],
            "out_proj.weight": w["c_proj.weight"],
            "out_proj.bias": w["c_proj.bias"],
        }
    )
    theirs.eval()
    return theirs, lambda x: theirs(x, x, x, need_weights=False)[0]


def examine(module, x, h, **tolerance):
    """Compare forward with PyTorch's on the same weights."""
    w = weights(module)
    with torch.no_grad():
        want = oracle(w, h)[1](x)
    return compare(
        lambda: module(x),
        want,
        MISTAKES,
        lambda **switches: multi_head(x, w, h, **{"mask": unmasked, **switches}),
        axes="B T C",
        sizes={"head_dim": x.size(-1) // h, "n_embd": x.size(-1), "n_head": h},
        given=(x,),
        **tolerance,
    )


PRODUCTS = ("matmul", "mm", "bmm", "baddbmm", "einsum", "linear", "softmax", "scaled_dot_product")


def method(module, name):
    """A method of the module, when it has it."""
    if not callable(getattr(module, name, None)):
        fail(
            f"{type(module).__name__} has no method `{name}`: problem 05 calls it.",
            id="missing-method",
        )
    return getattr(module, name)


def sized(run, first):
    """run(), with an error that only comes at the second of several sizes named."""
    try:
        return run()
    except RuntimeError as error:
        if first:
            raise
        fail(KNOWN["size-hard-coded"], f"PyTorch says: {str(error).splitlines()[0][:150]}")


def transplanted(module, **values):
    """Set parameters by name."""
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name.replace("__", ".")).copy_(value)
    return module


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


@check(todo=2)
def test_builds(piece):
    """The module has the contract's arguments, attributes and state_dict names"""
    try:
        module = piece.MultiHeadAttention(n_embd=C, n_head=H, dropout=0.3)
    except ValueError as error:
        fail(
            KNOWN["divisible-refused"],
            f"With n_embd = {C} and n_head = {H} it raises ValueError: {error}",
        )
    expect_module(module)
    expect_signature(
        piece.MultiHeadAttention.__init__,
        "(n_embd, n_head, dropout=0.1, attn_dropout=None)",
        "MultiHeadAttention",
    )
    used_later = "problem 05 inherits and uses it"
    if attribute(module, "n_head", int, used_later) != H:
        fail(KNOWN["wrong-n-head"], f"It is {module.n_head}, with n_head={H}.")
    if (
        attribute(module, "head_dim", (int, float), used_later) != D
        or type(module.head_dim) is float
    ):
        fail(KNOWN["wrong-head-dim"], f"It is {module.head_dim}, with n_embd={C} and n_head={H}.")
    for name, rows, wrong in (
        ("c_attn", 3 * C, KNOWN["wrong-c-attn"]),
        ("c_proj", C, KNOWN["wrong-c-proj"]),
    ):
        linear = attribute(module, name, nn.Linear)
        if tuple(linear.weight.shape) != (rows, C):
            found = f"nn.Linear({linear.in_features}, {linear.out_features})"
            fail(wrong, f"It is {found}, with n_embd={C}.")
        if linear.bias is None:
            fail(KNOWN["bias-missing"], f"{name} was made with bias=False.")
    inner = attribute(module, "attention", nn.Module, used_later)
    if not any(c.__name__ == "ScaledDotProductAttention" for c in type(inner).__mro__):
        fail(
            "MultiHeadAttention.attention must be a ScaledDotProductAttention, and is "
            f"{type(inner).__name__}: problem 05 inherits it.",
            id="wrong-attribute-type",
        )
    drop = attribute(module, "resid_dropout", nn.Dropout, used_later)
    if drop.p != 0.3:
        fail(KNOWN["resid-dropout-rate"], f"It is {drop.p}, with dropout=0.3.")
    if piece.MultiHeadAttention(C, H, 0.3, 0.7).resid_dropout.p != 0.3:
        fail(
            KNOWN["dropouts-swapped"],
            "With dropout=0.3 and attn_dropout=0.7, resid_dropout.p is not 0.3.",
        )
    expect_state(module, NAMES)
    expect_own_start(lambda: piece.MultiHeadAttention(C, H))


@check(todo=2, needs=test_builds)
def test_refuses_indivisible_width(piece):
    """A width that the heads can't share out evenly is a ValueError that names both numbers"""
    for n_embd, n_head in ((46, 9), (9, 46), (25, 10)):
        expect_error(
            lambda n_embd=n_embd, n_head=n_head: piece.MultiHeadAttention(n_embd, n_head),
            (n_embd, n_head),
            when=f"n_embd = {n_embd} and n_head = {n_head}",
            missing=KNOWN["indivisible-accepted"],
        )
    for n_embd, n_head in ((12, 1), (12, 12), (15, 5), (6, 2)):
        try:
            module = piece.MultiHeadAttention(n_embd, n_head)
        except ValueError as error:
            fail(
                KNOWN["divisible-refused"],
                f"With n_embd = {n_embd} and n_head = {n_head} it raises ValueError: {error}",
            )
        if module.head_dim != n_embd // n_head:
            fail(
                KNOWN["wrong-head-dim"],
                f"It is {module.head_dim}, with n_embd={n_embd} and n_head={n_head}.",
            )


@check(todo=3, needs=test_builds)
def test_split_heads(piece):
    """split_heads hands each head its own D columns of every token"""
    for b, t, h, d in ((B, T, H, D), (1, 3, 5, 2), (3, 1, 2, 4)):
        cut = method(module_of(piece, h * d, h), "split_heads")
        whole = stream(b, t, 3 * h * d)
        for x in (stream(b, t, h * d), whole.chunk(3, -1)[1]):  # a third has gaps in memory
            want = torch.stack(x.split(d, -1), 1)
            compare(
                lambda x=x, cut=cut, first=b == B: sized(lambda: cut(x), first),
                want,
                KNOWN.of("split"),
                lambda splitting, x=x, h=h: splitting(x, h),
                what="what split_heads returns",
                axes="B H T D",
                given=(x,),
            )


@check(todo=4, needs=test_builds)
def test_merge_heads(piece):
    """merge_heads puts the heads' columns side by side again, token by token"""
    for b, t, h, d in ((B, T, H, D), (1, 3, 5, 2), (3, 1, 2, 4)):
        join = method(module_of(piece, h * d, h), "merge_heads")
        x = stream(b, t, h * d)
        lying = x.view(b, t, h, d).transpose(1, 2)  # as split_heads leaves it
        for y in (lying.contiguous(), lying):
            compare(
                lambda y=y, join=join, first=b == B: sized(lambda: join(y), first),
                torch.cat(y.unbind(1), -1),
                KNOWN.of("merge"),
                lambda merging, y=y: merging(y),
                what="what merge_heads returns",
                axes="B T C",
                given=(y,),
            )


@check(todo=6, needs=(test_builds, test_split_heads, test_merge_heads), points=3)
def test_output(piece):
    """The output equals PyTorch's nn.MultiheadAttention on the same weights"""
    examine(module_of(piece), stream(), H)


@check(todo=6, needs=test_output, follows=test_refuses_indivisible_width)
def test_other_sizes(piece):
    """Other widths, head counts, lengths and batches, with nothing hard-coded"""
    for b, t, h, d in ((1, 7, 2, 3), (3, 2, 5, 4), (4, 1, 3, 2), (1, 1, 1, 8), (2, 9, 6, 1)):
        x = stream(b, t, h * d, seed=t)
        sized(lambda: examine(module_of(piece, h * d, h, seed=t), x, h), False)  # noqa: B023


@check(todo=6, needs=test_output)
def test_keeps_nothing(piece):
    """A call does not depend on the calls before it, of other batches and lengths"""
    sizes = ((2, 3), (2, 5), (1, 5), (4, 3), (1, 1), (2, 5))
    texts = [stream(b, t, seed=seed) for seed, (b, t) in enumerate(sizes)]
    calls = [lambda m, x=x: tensor(m(x)) for x in texts]
    expect_no_memory(module_of(piece), calls)


@check(todo=6, needs=test_output)
def test_all_heads_at_once(piece):
    """The number of operations does not grow with the number of heads"""

    def products(h):
        module = module_of(piece, 24, h)
        with operations() as seen, torch.no_grad():
            module(stream(c=24))
        # matrix products, softmaxes and fused attentions, by whatever function they are made
        return sum(name.startswith(PRODUCTS) for name, _ in seen)

    few, many = products(2), products(12)
    if many > few:
        fail(
            KNOWN["heads-in-a-loop"],
            f"{few} matrix products and softmaxes with 2 heads, {many} with 12.",
        )


@check(todo=6, needs=test_output, follows=test_refuses_indivisible_width)
def test_worked_example(piece):
    """Two heads look two ways: by hand, e⁴/(e⁴+1) · 2 = 1.964 for one and 1 for the other"""
    # c_attn copies x to q, k and v; c_proj changes nothing; a head is one column wide.
    # Token 0 = (2, 0), token 1 = (0, 2). Head 0 of token 0: scores 2·2 and 2·0, so weights 0.982
    # and 0.018. Head 1 of token 0 asks with 0: weights ½ and ½.
    module = transplanted(
        module_of(piece, 2, 2),
        c_attn__weight=torch.eye(2).repeat(3, 1),
        c_attn__bias=torch.zeros(6),
        c_proj__weight=torch.eye(2),
        c_proj__bias=torch.zeros(2),
    )
    x = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])
    compare(lambda: module(x), torch.tensor([[[1.9640276, 1.0], [1.0, 1.9640276]]]))


@check(todo=6, needs=test_output, follows=test_other_sizes)
def test_heads_are_independent(piece):
    """What one head does depends on its own columns of q, k and v alone"""
    module = transplanted(
        module_of(piece), c_proj__weight=torch.eye(C), c_proj__bias=torch.zeros(C)
    )
    x = stream(seed=3)
    before = module(x).detach()
    with torch.no_grad():
        for third in range(3):  # head 1's queries, keys and values
            module.c_attn.weight[third * C + D : third * C + 2 * D] *= -1.7
    changed = (module(x).detach() - before).abs().amax((0, 1)).view(H, D).amax(-1) > 1e-6
    if changed.tolist() != [h == 1 for h in range(H)]:
        fail(
            "Head 1's weights were changed, and the columns of head(s) "
            f"{changed.nonzero().flatten().tolist()} moved.",
            id="heads-mixed",
        )


@check(todo=6, needs=test_output, points=2)
def test_dropout_places(piece):
    """`dropout` acts last, on the output; `attn_dropout` acts on the weights"""
    x = stream(seed=4)
    module = module_of(piece, dropout=0.0, attn_dropout=0.0)
    expect_mode_kept(module, lambda: module(x))
    if torch.equal(module.train()(x), module(x)):
        examine(module, x, H)
    bias = weights(module_of(piece))["c_proj.bias"]

    def outcome(dropout, attn_dropout):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        plain = module(x)
        got = tensor(module.train()(x)).detach()
        if not got.any():
            return "zero"
        if torch.allclose(got, bias.expand_as(got), atol=1e-5):
            return "bias"
        return "plain" if torch.allclose(got, plain, atol=1e-5) else "other"

    output, inner = outcome(1.0, 0.0), outcome(0.0, 1.0)
    if (output, inner) == ("bias", "zero"):
        fail(KNOWN["dropouts-swapped"])
    if inner == "zero":
        fail(
            KNOWN["attn-dropout-on-output"],
            "With dropout=0 and attn_dropout=1, in training, all is 0.",
        )
    if output == "plain":
        fail(
            KNOWN["resid-dropout-missing"],
            "With dropout=1 nothing changes in training; all must be 0.",
        )
    if output == "bias":
        fail(
            KNOWN["dropout-before-c-proj"],
            "With dropout=1, in training, c_proj's bias is left; all must be 0.",
        )
    if output != "zero":
        fail(KNOWN["dropout-misplaced"], "With dropout=1, in training, the output must be all 0.")
    if inner == "plain":
        # p between 0 and 1: kept numbers are 2 × the plain ones only if the weights are whole
        module = module_of(piece, dropout=0.5, attn_dropout=0.0)
        plain = module(x)
        got = module.train()(x)
        kept = got != 0
        whole = torch.allclose(got[kept], 2 * plain[kept], rtol=1e-3, atol=1e-5)
        fail(
            KNOWN["attn-dropout-missing"] if whole else KNOWN["attn-dropout-ignored"],
            "attn_dropout=1 changes nothing in training.",
        )
    if inner == "other" and outcome(0.0, 0.0) == "other":
        fail(
            KNOWN["attn-dropout-rate"],
            "With dropout=0 and attn_dropout=0 training still drops something.",
        )
    if inner == "other":
        module = module_of(piece, dropout=0.0, attn_dropout=1.0).train()
        fail(
            KNOWN["attn-dropout-on-scores"]
            if torch.equal(module(x), module(x))
            else KNOWN["attn-dropout-rate"]
        )
    if inner != "bias":
        fail(
            "With attn_dropout=1, in training, only c_proj's bias must be left.",
            id="attn-dropout-misplaced",
            hint=7,
        )


@check(todo=6, needs=test_dropout_places)
def test_dropout_of_output(piece):
    """In training each output is 0 with p = dropout, or 1/(1-p) times the plain one"""
    p = 0.4
    module = module_of(piece, dropout=p, attn_dropout=0.0)
    x = stream(4, 7, seed=5)
    plain = module(x).detach()
    torch.manual_seed(1)
    got = module.train()(x).detach()
    kept = got.abs() > 1e-6
    if not torch.allclose(got[kept], plain[kept] / (1 - p), rtol=1e-3, atol=1e-5):
        if torch.allclose(got[kept], plain[kept] / (1 - p) ** 2, rtol=1e-3, atol=1e-5):
            fail(KNOWN["dropout-twice"])
        # is it the weights that vary although they were asked not to?
        quiet = module_of(piece, dropout=1e-9, attn_dropout=0.0).train()
        again = module_of(piece, dropout=p, attn_dropout=1e-9).train()(x)
        kept = again.abs() > 1e-6
        if torch.allclose(quiet(x), plain, atol=1e-4) and torch.allclose(
            again[kept], plain[kept] / (1 - p), rtol=1e-3, atol=1e-5
        ):
            fail(KNOWN["attn-dropout-zero-ignored"])
    elif any((kept.all(axis) | ~kept.any(axis)).all() for axis in (1, 2)):
        fail(KNOWN["dropout-whole-tokens"])
    expect_dropout(
        lambda: module(x),
        module,
        p,
        missing=KNOWN["resid-dropout-missing"],
        in_eval=KNOWN["dropout-in-eval"],
        misplaced=KNOWN["dropout-misplaced"],
    )


@check(todo=6, needs=test_dropout_of_output)
def test_dropout_of_weights(piece):
    """attn_dropout sets the rate of the weights; None means the same as dropout"""
    # With one token a head's only weight is 1, so dropout on it kills or scales the whole head.
    b = 400

    def heads(dropout, attn_dropout):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        transplanted(module, c_proj__weight=torch.eye(C), c_proj__bias=torch.zeros(C))
        x = stream(b, 1, seed=6)
        plain = module(x).detach()
        if not torch.equal(plain, module(x)):
            fail(KNOWN["dropout-in-eval"])
        torch.manual_seed(2)
        ratio = (module.train()(x).detach() / plain).view(b, H, D)
        return ratio, (ratio == 0).all(-1).double().mean()

    p = 0.4
    ratio, killed = heads(0.0, p)
    per_head = ratio.amax(-1)
    if not torch.allclose(ratio, per_head[..., None].expand_as(ratio), rtol=1e-3):
        fail(KNOWN["attn-dropout-on-values"])
    if abs(killed - p) > 0.07 or not torch.allclose(
        per_head[per_head > 0], torch.tensor(1 / (1 - p)), rtol=1e-3
    ):
        fail(
            KNOWN["attn-dropout-rate"],
            f"With attn_dropout={p}, {killed:.0%} of the weights are dropped.",
        )
    if heads(0.5, 0.0)[1] > 0.15:  # 2⁻⁶ of the heads lose all six numbers by chance
        fail(KNOWN["attn-dropout-zero-ignored"])
    killed = heads(p, None)[1]
    if killed < 0.05:
        fail(KNOWN["attn-dropout-none-ignored"])
    if abs(killed - p) > 0.08:
        fail(
            KNOWN["attn-dropout-rate"],
            f"With dropout={p} and attn_dropout=None, {killed:.0%} are dropped.",
        )


@check(todo=6, needs=test_dropout_of_weights)
def test_no_dropout(piece):
    """dropout=0 changes nothing in training"""
    module = module_of(piece, dropout=0.0, attn_dropout=0.0, seed=1)
    expect_mode_kept(module, lambda: module(stream()))
    examine(module.train(), stream(), H)


@check(todo=6, needs=test_output, follows=test_dropout_places)
def test_gradients(piece):
    """Gradients reach every weight and the input, and equal PyTorch's"""
    module = fill(piece.MultiHeadAttention(C, H, 0.0), scale=0.2)
    theirs, run = oracle(weights(module), H)
    mine, other = stream(seed=7).requires_grad_(), stream(seed=7).requires_grad_()
    expect_finite_gradients(module, tensor(module(mine)).pow(2).mean())
    theirs.train()
    run(other).pow(2).mean().backward()
    grads = module.c_attn.weight.grad.split(C)
    for name, third in zip(WORDS, grads, strict=True):
        if not third.any():
            fail(f"No gradient reaches c_attn's part for the {name}.", id="no-gradient")
    compare(module.c_attn.weight.grad, theirs.in_proj_weight.grad, what="c_attn.weight's gradient")
    compare(module.c_proj.weight.grad, theirs.out_proj.weight.grad, what="c_proj.weight's gradient")
    if mine.grad is None:
        fail("No gradient reaches the input: is something detached?", id="no-gradient")
    compare(mine.grad, other.grad, what="the gradient of the input")


@check(todo=6, needs=test_output)
def test_dtype_and_device(piece):
    """bfloat16 and float64 stay what they are, and so does x; nothing is tied to the CPU"""
    expect_no_edit(module_of(piece), stream(seed=9))
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 4e-2)):
        module = fill(piece.MultiHeadAttention(C, H), scale=0.3).eval().to(dtype)
        x = stream(seed=8, dtype=dtype)
        got = tensor(module(x))
        if got.dtype != dtype:
            fail(f"With {dtype} input the output is {got.dtype}.", id="fixed-dtype")
        want = oracle({n: t.double() for n, t in weights(module).items()}, H)[1](x.double())
        compare(
            got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=2 * tolerance
        )
    expect_one_device(module_of(piece), lambda module, to: module(to(stream())))


@check(todo=6, needs=(test_output, test_dropout_of_weights))
def test_inner_attention(piece):
    """`attention` is one head wide and has the weights' dropout, also where it is not called"""
    p = 0.6
    for given, what in (((0.2, p), f"attn_dropout={p}"), ((p, None), f"dropout={p} alone")):
        inner = piece.MultiHeadAttention(C, H, *given).eval().attention
        g = torch.Generator().manual_seed(21)
        q, k, v = (torch.randn(40, n, D, generator=g) for n in (5, 7, 7))
        want = F.scaled_dot_product_attention(q, k, v)
        with torch.no_grad():
            got = inner(q, k, v)[0]
            if not torch.allclose(got, want, rtol=1e-3, atol=1e-4):
                fail(
                    KNOWN["inner-attention-width"],
                    f"n_embd = {C} and n_head = {H} give heads of width {D}.",
                )
            torch.manual_seed(3)
            dropped = float((inner.train()(q, k, v)[1] == 0).double().mean())
        if abs(dropped - p) > 0.08:
            fail(
                KNOWN["inner-attention-dropout"],
                f"With {what}, {dropped:.0%} of its weights are dropped.",
            )


@check(todo=6, needs=test_output)
def test_leaves_no_trace(piece):
    """A copy or a saved module gives the same, and so does a second call"""
    module = module_of(piece)
    x = stream(seed=9)
    expect_copies(module, lambda m: m(x))
    first = module(x)
    module(stream(3, 2, seed=10))
    compare(module(x), first.detach(), what="the second output for the same input")
    for name in ("split_heads", "merge_heads"):
        if len(inspect.signature(method(module, name)).parameters) < 1:
            fail(f"{name} must take x.", id="wrong-signature")
    if not isinstance(first, Tensor):
        fail("forward must return a tensor.", id="not-a-tensor")
