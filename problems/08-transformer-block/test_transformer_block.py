"""Checks of problem 08. The oracle is made of PyTorch's own operators, on the learner's weights."""

from types import SimpleNamespace

import torch
from torch import nn

from learn_gpt2.checking import textbook
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

# Sizes that all differ, so that a swapped axis or argument can't hide. D is 5.
B, T, C, H, P, INNER = sizes_from(
    (2, 4, 15, 3, 11, 22), (3, 4, 14, 2, 9, 25), (2, 4, 21, 3, 12, 17)
)

STATE = (
    "ln_1.weight",
    "ln_1.bias",
    "attn.c_attn.weight",
    "attn.c_attn.bias",
    "attn.c_proj.weight",
    "attn.c_proj.bias",
    "ln_2.weight",
    "ln_2.bias",
    "mlp.c_fc.weight",
    "mlp.c_fc.bias",
    "mlp.c_proj.weight",
    "mlp.c_proj.bias",
)

KNOWN = known(__file__)
MISTAKES = KNOWN.of("block")


def block_by_hand(x, p, *, n_head=H, epsilon=1e-5, **switches):
    """The textbook's block on the weights p, with any step replaced: (B, T, C) → (B, T, C)."""
    return textbook.block(x, p, n_head, epsilon, **switches)


def random(*shape, seed=0, scale=1.0, dtype=torch.float32):
    """Random numbers whose mean is not 0."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) * scale + 0.3).to(dtype)


def make(piece, *args, **options):
    """TransformerBlock(C, H, P, …); a ValueError of the inner modules is a matter of arguments."""
    args = args or (() if "n_embd" in options else (C, H, P))
    try:
        return expect_module(piece.TransformerBlock(*args, **options))
    except (TypeError, ValueError) as error:
        if "NoneType" in str(error) and options.get("n_inner") is None:
            _explain_no_n_inner(piece, args, options, error)
        if "NoneType" in str(error) and options.get("attn_dropout") is None:
            _explain_none(piece, args, options, error)
        if isinstance(error, TypeError) and "tuple of ints" not in str(error):
            raise
        fail(KNOWN["arguments-swapped"], f"It says: {str(error).splitlines()[0]}")


def _explain_no_n_inner(piece, args, options, error):
    """Say that n_inner=None is not replaced, when a number in its place is all that is missing."""
    try:
        piece.TransformerBlock(*args, **{**options, "n_inner": INNER})
    except Exception:
        return
    fail(
        KNOWN["n-inner-default"],
        f"With n_inner=None Python says: {str(error).splitlines()[0][:120]}",
    )


def _explain_none(piece, args, options, error):
    """Say where attn_dropout=None goes wrong, when a number in its place does not."""
    try:
        block = piece.TransformerBlock(*args, **{"dropout": 0.3, **options, "attn_dropout": 0.6})
    except Exception:
        return
    rate = getattr(getattr(block, "attn", None), "resid_dropout", None)
    wrong = (
        KNOWN["dropouts-swapped"] if getattr(rate, "p", 0) == 0.6 else KNOWN["attn-dropout-none"]
    )
    fail(wrong, f"Without attn_dropout Python says: {error}")


def block_of(piece, *args, seed=0, **options):
    """A block in eval mode with random weights."""
    return fill(make(piece, *args, **options), seed).eval()


def call(block, *args, **options):
    """block(…), checked to be a tensor."""
    try:
        return tensor(block(*args, **options))
    except TypeError as error:
        if "FeedForward" in str(error) and ("positional" in str(error) or "cache" in str(error)):
            fail(KNOWN["cache-to-mlp"], f"Python says: {error}")
        raise


def examine(block, x, mistakes=MISTAKES, **options):
    """Compare with the block made by hand on the same weights."""
    p = weights(block)
    compare(
        lambda: call(block, x),
        block_by_hand(x, p, **options),
        mistakes,
        lambda **switches: block_by_hand(x, p, **options, **switches),
        axes="B T C",
        given=(x,),
    )


def silence(block, *names):
    """Make sublayers write 0: their last projection's weight and bias become 0."""
    with torch.no_grad():
        for name in names:
            projection = getattr(block, name).c_proj
            projection.weight.zero_()
            projection.bias.zero_()


def layer_cache():
    """A cache for one layer of B sequences of up to P tokens."""
    from gpt2.cache import KVCache

    config = SimpleNamespace(n_layer=1, n_head=H, head_dim=C // H, n_positions=P)
    return KVCache(config, batch_size=B).layers[0]


# ── the parts ───────────────────────────────────────────────────────────────────────────────────


@check(todo=1)
def test_parts(piece):
    """The block holds ln_1, attn, ln_2 and mlp, under these names"""
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm, MultiHeadAttention

    block = make(piece)
    norm = (LayerNorm, nn.LayerNorm)
    attribute(block, "ln_1", norm)
    if type(getattr(block, "attn", None)) is MultiHeadAttention:
        fail(KNOWN["not-causal:not-causal"])
    attribute(block, "attn", CausalMultiHeadAttention)
    attribute(block, "ln_2", norm)
    attribute(block, "mlp", FeedForward)
    if block.ln_1 is block.ln_2 or block.ln_1.weight is block.ln_2.weight:
        fail(KNOWN["one-norm-for-both:shared"])
    expect_state(block, STATE)
    if len({t.data_ptr() for t in block.state_dict().values()}) < len(STATE):
        fail(KNOWN["shared-weights"])
    expect_own_start(lambda: make(piece))


@check(todo=1, needs=test_parts)
def test_arguments(piece):
    """The arguments have the contract's names, order and defaults; the last three are keywords"""
    expect_signature(
        piece.TransformerBlock.__init__,
        "(n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None, attn_dropout=None, "
        "layer_norm_epsilon=1e-5)",
        "TransformerBlock",
    )
    make(piece, n_embd=C, n_head=H, n_positions=P)


@check(todo=1, needs=test_arguments)
def test_sizes(piece):
    """Each part has the size it should: n_embd, n_head, n_inner (4 · n_embd unless given)"""
    for width, heads, inner in ((C, H, INNER), (6, 2, 7), (C, H, None), (6, 2, None)):
        block = make(piece, width, heads, P, **({"n_inner": inner} if inner else {}))
        shapes = {
            "ln_1.weight": (width,),
            "ln_2.weight": (width,),
            "attn.c_attn.weight": (3 * width, width),
        }
        hidden = (inner or 4 * width, width)
        found = {name: tuple(t.shape) for name, t in block.state_dict().items()}
        if found["mlp.c_fc.weight"] != hidden:
            at = f"mlp.c_fc.weight has the shape {found['mlp.c_fc.weight']}, expected {hidden}."
            if found["mlp.c_fc.weight"] == hidden[::-1]:
                fail(KNOWN["arguments-swapped"], at)
            fail(KNOWN["n-inner-ignored"] if inner else KNOWN["n-inner-default"], at)
        for name, shape in shapes.items():
            if found[name] != shape:
                fail(
                    KNOWN["hard-coded-size"],
                    f"{name} has the shape {found[name]}, expected {shape}.",
                )
        if block.attn.n_head != heads:
            fail(KNOWN["n-head-wrong"], f"attn.n_head is {block.attn.n_head}, expected {heads}.")


@check(todo=1, needs=test_arguments)
def test_epsilon(piece):
    """layer_norm_epsilon reaches both norms"""
    for options, want in (({}, 1e-5), ({"layer_norm_epsilon": 0.25}, 0.25)):
        block = make(piece, **options)
        for name in ("ln_1", "ln_2"):
            eps = float(getattr(block, name).eps)
            if abs(eps - want) > 1e-3 * want:
                fail(
                    KNOWN["epsilon-not-passed:epsilon"],
                    f"{name}.eps is {eps:g}, expected {want:g}.",
                )


@check(todo=1, needs=test_arguments)
def test_dropout_arguments(piece):
    """dropout reaches both sublayers, and is 0.1 unless given"""
    for options, want in (({}, 0.1), ({"dropout": 0.3, "attn_dropout": 0.6}, 0.3)):
        block = make(piece, **options)
        rates = {"attn.resid_dropout": block.attn.resid_dropout.p, "mlp.drop": block.mlp.drop.p}
        for name, p in rates.items():
            if abs(p - want) > 1e-6:
                wrong = KNOWN["dropout-not-passed"]
                if p == options.get("attn_dropout"):
                    wrong = (
                        KNOWN["attn-dropout-to-mlp"]
                        if name == "mlp.drop"
                        else KNOWN["dropouts-swapped"]
                    )
                fail(wrong, f"{name}.p is {p:g}, expected {want:g}.")


# ── what it computes ────────────────────────────────────────────────────────────────────────────


@check(todo=3, needs=test_sizes)
def test_runs(piece):
    """A block takes (B, T, C) and gives (B, T, C), up to n_positions tokens"""
    block = block_of(piece)
    try:
        for length in (T, P):
            call(block, random(B, length, C))
    except ValueError as error:
        if "unpack" not in str(error):
            fail(
                KNOWN["n-positions-wrong"], f"{length} tokens with n_positions = {P} give: {error}"
            )
        raise


@check(todo=3, needs=test_runs, points=4)
def test_values(piece):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)), on the result"""
    examine(block_of(piece, dropout=0.0), random(B, T, C))


test_remembers_nothing = Recurring(block_of, random, None, call, todo=3, needs=test_values).memory(
    "What a call gives does not depend on the calls before it",
    *((B, T, C), (B, T, C), (1, P, C)),
    name="test_remembers_nothing",
)


@check(todo=3, needs=test_remembers_nothing)
def test_other_shapes(piece):
    """Other sizes: one token, one sequence, other widths, heads and hidden layers"""
    for args, options, shape in (
        ((C, H, P), {}, (1, 1, C)),
        ((C, H, P), {"n_inner": INNER}, (B, P, C)),
        ((8, 1, 5), {"n_inner": 3}, (3, 5, 8)),
        ((6, 6, 4), {"attn_dropout": 0.2}, (1, 3, 6)),
    ):
        block = block_of(piece, *args, seed=shape[1], **options)
        examine(block, random(*shape, seed=shape[1]), n_head=args[1])


@check(todo=3, needs=test_values)
def test_n_positions(piece):
    """n_positions tokens are fine, one more is a ValueError"""
    block = block_of(piece)
    examine(block, random(B, P, C))
    expect_error(
        lambda: block(random(B, P + 1, C)),
        (),
        when=f"{P + 1} tokens are fed with n_positions = {P}",
        missing=KNOWN["n-positions-wrong"],
    )


@check(todo=3, needs=(test_values, test_epsilon))
def test_epsilon_in_use(piece):
    """With a large epsilon and a small stream, both norms show that they use it"""
    block = block_of(piece, layer_norm_epsilon=0.2)
    examine(block, random(B, T, C, seed=2, scale=0.3), epsilon=0.2)


@check(todo=3, needs=test_remembers_nothing)
def test_causality(piece):
    """Changing token t changes nothing before t, and something from t on"""
    block, x = block_of(piece), random(B, P, C, seed=3)
    before = call(block, x)
    for t in range(1, P):
        changed = x.clone()
        changed[:, t] += 1.0
        after = call(block, changed)
        if not torch.allclose(after[:, :t], before[:, :t], atol=1e-5):
            fail(
                KNOWN["not-causal:not-causal"], f"Changing token {t} changes the output before it."
            )
        if torch.allclose(after[:, t], before[:, t], atol=1e-5):
            fail(f"Changing token {t} does not change the output at {t}.", id="token-ignored")


# ── cache ───────────────────────────────────────────────────────────────────────────────────────


@check(todo=3, needs=test_values, points=2, follows=test_remembers_nothing)
def test_cache(piece):
    """Fed in pieces with a cache, a sequence gives what it gives at once"""
    block, x = block_of(piece), random(B, T, C, seed=4)
    want = block_by_hand(x, weights(block))
    for sizes in ((T,), (3, 1), (1, 3), (1, 1, 1, 1)):
        cache, fed = layer_cache(), 0
        for size in sizes:
            part = x[:, fed : fed + size]
            got = call(block, part, cache) if fed else call(block, part, cache=cache)
            fed += size
            if cache.length < fed:
                never = cache.length == 0 and not _stores(block, x)
                wrong = (
                    KNOWN["cache-tokens-lost"]
                    if cache.length
                    else KNOWN["cache-not-passed:cache-sometimes"]
                )
                said = (
                    f"Fed in pieces of {sizes}, after {fed} tokens the cache holds {cache.length}."
                )
                fail(KNOWN["cache-not-passed"] if never else wrong, said)
            if cache.length > fed:
                fail(KNOWN["cache-twice"], f"After {fed} tokens the cache holds {cache.length}.")
            compare(
                got,
                want[:, fed - size : fed],
                MISTAKES,
                lambda part=part, **switches: block_by_hand(part, weights(block), **switches),
                what=f"the output of tokens {fed - size} … {fed - 1}, fed in pieces of {sizes},",
                axes="B T C",
            )
    cache, block = layer_cache(), block_of(piece, dropout=0.0).train()
    call(block, x, cache)
    if cache.length != T:
        fail(
            KNOWN["cache-not-passed:cache-sometimes"],
            f"In training mode, after {T} tokens it holds {cache.length}.",
        )
    block = block_of(piece, dropout=0.0)
    expect_mode_kept(block, lambda: call(block, x))
    expect_mode_kept(block, lambda: call(block, x, layer_cache()))


def _stores(block, x):
    """Whether any of several ways to call the block stores something in a cache."""
    empty, filled = layer_cache(), layer_cache()
    numbers = torch.zeros(B, H, 1, C // H)
    filled.append(numbers, numbers)
    call(block, x[:, :1], empty)
    call(block, x, filled)
    stored = empty.length > 0 or filled.length > 1
    empty = layer_cache()
    call(block.train(), x, empty)
    block.eval()
    return stored or empty.length > 0


# ── training ────────────────────────────────────────────────────────────────────────────────────


@check(todo=3, needs=test_values, follows=test_remembers_nothing)
def test_copies_dtypes_devices(piece):
    """Copies and saved files agree; bfloat16 stays bfloat16; nothing is tied to the CPU"""
    block, x = block_of(piece), random(B, T, C, seed=9)
    expect_copies(block, lambda module: module(x))
    expect_one_device(block, lambda module, move: module(move(x)))
    try:
        got = call(block.to(torch.bfloat16), x.bfloat16())
    except RuntimeError as error:
        fail(f"With bfloat16 weights and x: {error}. Is x converted?", id="dtype-changed")
    if got.dtype != torch.bfloat16:
        fail(f"x is bfloat16, the result {got.dtype}: is something converted?", id="dtype-changed")


@check(todo=3, needs=(test_values, test_dropout_arguments))
def test_full_dropout(piece):
    """With dropout = 1, in training, nothing is written and the stream goes through unchanged"""
    x = random(B, T, C, seed=5)
    got = call(block_of(piece, dropout=1.0).train(), x)
    if (got == 0).all():
        fail(KNOWN["dropout-on-stream"], "With p = 1 everything is 0.")
    if not torch.allclose(got, x, atol=1e-6):
        fail(KNOWN["dropout-missing"])


@check(todo=3, needs=test_full_dropout)
def test_attn_dropout(piece):
    """attn_dropout is for the attention's weights: as given, 0.0 too, and dropout when None"""
    for dropout, given, want in ((0.3, 0.6, 0.6), (0.0, 0.5, 0.5), (0.3, None, 0.3), (0.5, 0.0, 0)):
        options = (
            {"dropout": dropout} if given is None else {"dropout": dropout, "attn_dropout": given}
        )
        p = _weight_dropout(piece, **options)
        if abs(p - want) > 1e-3:
            wrong = KNOWN["attn-dropout-not-passed"]
            if given is None:
                wrong = KNOWN["attn-dropout-default"]
            elif given == 0.0 and abs(p - dropout) < 1e-3:
                wrong = KNOWN["attn-dropout-falsy"]
            elif dropout > 0 and abs((1 - p) - (1 - want) * (1 - dropout)) < 1e-3:
                wrong = KNOWN["dropout-twice"]
            said = ", ".join(f"{name}={value}" for name, value in options.items())
            fail(wrong, f"With {said} the weights' dropout is {p:.2g}, expected {want:g}.")


def _weight_dropout(piece, **options):
    """The dropout of the attention's weights, measured.

    A single token has one weight, 1, which dropout makes 0 or 1/(1-p). With values of 1 and an
    identity as projection that is what attention writes, but for the dropout at its end.
    """
    block = make(piece, **options).train()
    silence(block, "mlp")
    with torch.no_grad():
        block.attn.c_attn.weight.zero_()
        block.attn.c_attn.bias.fill_(1.0)
        block.attn.c_proj.weight.copy_(torch.eye(C))
        block.attn.c_proj.bias.zero_()
        x = torch.zeros(200, 1, C)
        largest = float(call(block, x).max())
    return 1 - 1 / (largest * (1 - options["dropout"])) if largest > 0 else 1.0


@check(todo=3, needs=(test_values, test_attn_dropout), points=2, follows=test_remembers_nothing)
def test_dropout(piece):
    """Dropout acts in training, once, on what each sublayer writes"""
    p = 0.4
    x = random(40, T, C, seed=6, dtype=torch.float64)
    for quiet, name in (("mlp", "attn"), ("attn", "mlp")):
        block = block_of(piece, dropout=p, attn_dropout=0.0).double()
        silence(block, quiet)

        expect_dropout(
            lambda block=block: call(block, x) - x,
            block,
            p,
            what=f"what {name} writes to the stream",
            missing=KNOWN["dropout-missing"],
            misplaced=KNOWN["dropout-misplaced"],
            variants={
                KNOWN["dropout-twice"]: lambda runs: bool((runs == 0).double().mean() > 1.3 * p)
            },
        )


@check(todo=3, needs=test_values, points=2)
def test_gradients(piece):
    """Gradients reach every parameter, and x along the stream and through both sublayers"""
    block, x, up = block_of(piece), random(B, T, C, seed=7), random(B, T, C, seed=8)
    expect_finite_gradients(block, (call(block, x) * up).sum())
    p = weights(block)

    def gradient(run):
        with torch.enable_grad():
            given = x.clone().requires_grad_()
            (found,) = torch.autograd.grad((run(given) * up).sum(), given, allow_unused=True)
        return torch.zeros_like(x) if found is None else found

    compare(
        gradient(block),
        gradient(lambda given: block_by_hand(given, p)),
        KNOWN.of("gradient"),
        lambda **switches: gradient(lambda given: block_by_hand(given, p, **switches)),
        what="the gradient of x",
        axes="B T C",
    )
