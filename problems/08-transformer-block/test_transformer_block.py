"""Checks of problem 08. The oracle is made of PyTorch's own operators, on the learner's weights."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

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

# ── what can be wrong with the two halves ───────────────────────────────────────────────────────
# id, what it is, what to do, and how a half computes it: x the stream, n its norm, f its sublayer

HALVES = [
    (
        "post-norm",
        "that is post-norm, ln(x + f(x)), which normalizes the stream itself",
        "Add f(ln(x)) to x: the stream goes through unnormalized",
        lambda x, n, f: n(x + f(x)),
    ),
    (
        "no-residual",
        "x is not added",
        "The sublayer's result is added to the stream, it does not replace it",
        lambda x, n, f: f(n(x)),
    ),
    (
        "no-norm",
        "the sublayer reads x itself",
        "It reads the normalized copy",
        lambda x, n, f: x + f(x),
    ),
    (
        "residual-normalised",
        "the normalized x is added to",
        "The sublayer reads the norm's result; what it is added to is x itself",
        lambda x, n, f: n(x) + f(n(x)),
    ),
    (
        "norm-twice",
        "the sum is normalized, after the branch was",
        "Nothing normalizes the stream: leave the sum as it is",
        lambda x, n, f: n(x + f(n(x))),
    ),
    (
        "norm-on-branch-output",
        "the norm is on what the sublayer returns",
        "It belongs on what the sublayer reads",
        lambda x, n, f: x + n(f(x)),
    ),
    (
        "residual-doubled",
        "x is added twice",
        "Once is enough",
        lambda x, n, f: 2 * x + f(n(x)),
    ),
    (
        "branch-doubled",
        "the sublayer's result is added twice",
        "Once is enough",
        lambda x, n, f: x + 2 * f(n(x)),
    ),
    (
        "sublayer-missing",
        "nothing is added",
        "Call the sublayer on the normalized x and add what it returns",
        lambda x, n, f: x,
    ),
    (
        "sublayer-missing",
        "the norm's result is added, without the sublayer",
        "Call the sublayer on it, and add what that returns",
        lambda x, n, f: x + n(x),
    ),
    (
        "sublayer-alone",
        "there is neither norm nor sum, the sublayer's result goes on alone",
        "Add f(ln(x)) to x",
        lambda x, n, f: f(x),
    ),
    (
        "sublayer-twice",
        "it is done twice",
        "Once is enough",
        lambda x, n, f: x + f(n(x)) + f(n(x + f(n(x)))),
    ),
    (
        "sublayer-twice",
        "the sublayer is applied to its own result",
        "Once is enough",
        lambda x, n, f: x + f(f(n(x))),
    ),
    (
        "normalised-twice",
        "the norm is applied twice",
        "Once is enough",
        lambda x, n, f: x + f(n(n(x))),
    ),
    (
        "branch-subtracted",
        "the sublayer's result is subtracted",
        "Add it",
        lambda x, n, f: x - f(n(x)),
    ),
    (
        "branch-subtracted",
        "x is subtracted",
        "Add the two",
        lambda x, n, f: f(n(x)) - x,
    ),
    (
        "branch-multiplied",
        "x is multiplied by the sublayer's result",
        "Add the two",
        lambda x, n, f: x * f(n(x)),
    ),
    (
        "sum-scaled",
        "the sum is halved",
        "GPT-2 adds, and that is all",
        lambda x, n, f: (x + f(n(x))) / 2,
    ),
    (
        "sum-scaled",
        "the sum is divided by √2",
        "GPT-2 adds, and that is all",
        lambda x, n, f: (x + f(n(x))) / 2**0.5,
    ),
    (
        "sum-scaled",
        "half of the sublayer's result is added",
        "GPT-2 adds all of it",
        lambda x, n, f: x + f(n(x)) / 2,
    ),
    (
        "norm-on-branch-output",
        "the norm is on what the sublayer reads and on what it returns",
        "Only the first is right",
        lambda x, n, f: x + n(f(n(x))),
    ),
    (
        "axes-swapped",
        "the sublayer gets batch and tokens swapped",
        "Hand the norm's result on as it is, (B, T, C)",
        lambda x, n, f: x + f(n(x).transpose(0, 1)).transpose(0, 1),
    ),
    *(
        (
            "activation-added",
            f"there is an activation ({name}) on what the sublayer returns",
            "GPT-2 adds the result as it is",
            lambda x, n, f, act=act: x + act(f(n(x))),
        )
        for name, act in (("ReLU", torch.relu), ("GELU", F.gelu), ("tanh", torch.tanh))
    ),
    (
        "activation-added",
        "there is an activation (GELU, tanh form) on what the sublayer returns",
        "GPT-2 adds the result as it is",
        lambda x, n, f: x + F.gelu(f(n(x)), approximate="tanh"),
    ),
    (
        "activation-added",
        "there is an activation (ReLU) around the sum",
        "GPT-2 adds, and that is all",
        lambda x, n, f: torch.relu(x + f(n(x))),
    ),
    (
        "activation-added",
        "there is an activation (GELU) around the sum",
        "GPT-2 adds, and that is all",
        lambda x, n, f: F.gelu(x + f(n(x)), approximate="tanh"),
    ),
    (
        "activation-added",
        "there is an activation (GELU, erf) around the sum",
        "GPT-2 adds, and that is all",
        lambda x, n, f: F.gelu(x + f(n(x))),
    ),
    (
        "residual-normalised",
        "norm and stream are swapped: the sublayer reads x, and the normalized x is added to",
        "It is the other way round",
        lambda x, n, f: n(x) + f(x),
    ),
]


def halves():
    """Every mistake of HALVES in the attention half, in the feed-forward half, and in both."""
    for id, what, todo, step in HALVES:
        yield mistake(id, f"In both halves {what}. {todo}.", 3, first=step, second=step)
        yield mistake(id, f"In the attention half {what}. {todo}.", 3, first=step)
        yield mistake(id, f"In the feed-forward half {what}. {todo}.", 4, second=step)


MISTAKES = [
    *halves(),
    mistake(
        "parallel",
        "Attention and feed-forward both read the x that came in. The feed-forward network reads "
        "the stream after attention has written to it.",
        4,
        whole=lambda x, n1, n2, attn, mlp: x + attn(n1(x)) + mlp(n2(x)),
    ),
    mistake(
        "parallel",
        "Attention and feed-forward both read ln_1 of the x that came in. The feed-forward network "
        "reads ln_2 of the stream after attention has written to it.",
        4,
        whole=lambda x, n1, n2, attn, mlp: x + attn(n1(x)) + mlp(n1(x)),
    ),
    mistake(
        "order-swapped",
        "The feed-forward network comes first. Attention does: tokens talk, then each thinks.",
        3,
        whole=lambda x, n1, n2, attn, mlp: pre(pre(x, n2, mlp), n1, attn),
    ),
    mistake(
        "order-swapped",
        "The feed-forward network comes first, with ln_1. Attention does: tokens talk, then each "
        "thinks.",
        3,
        whole=lambda x, n1, n2, attn, mlp: pre(pre(x, n1, mlp), n2, attn),
    ),
    mistake(
        "norms-swapped",
        "The norms are swapped: ln_1 belongs to the attention, ln_2 to the feed-forward network. The "
        "checkpoint's weights are meant so.",
        3,
        norms=(2, 1),
    ),
    mistake(
        "one-norm-for-both",
        "ln_1 is used in both halves, and ln_2 in none. The feed-forward network reads ln_2.",
        4,
        norms=(1, 1),
    ),
    mistake(
        "one-norm-for-both",
        "ln_2 is used in both halves, and ln_1 in none. The attention reads ln_1.",
        3,
        norms=(2, 2),
    ),
    mistake(
        "norm-on-branch-output",
        "ln_2 is on what attention returns. Each norm stands before a sublayer, none behind it.",
        3,
        whole=lambda x, n1, n2, attn, mlp: pre(x + n2(attn(n1(x))), n2, mlp),
    ),
    mistake(
        "norm-on-branch-output",
        "ln_2 is on what attention returns, and the feed-forward network reads the stream itself. Each "
        "norm stands before a sublayer, none behind it.",
        3,
        whole=lambda x, n1, n2, attn, mlp: pre(x + n2(attn(n1(x))), lambda y: y, mlp),
    ),
    mistake(
        "attention-lost",
        "What attention wrote is lost: the feed-forward network's result is added to the x that came "
        "in. Add it to the stream after attention.",
        4,
        whole=lambda x, n1, n2, attn, mlp: x + mlp(n2(pre(x, n1, attn))),
    ),
    mistake(
        "mlp-reads-attention-alone",
        "The feed-forward network reads what attention wrote, without the stream. It reads the sum.",
        4,
        whole=lambda x, n1, n2, attn, mlp: pre(x, n1, attn) + mlp(n2(attn(n1(x)))),
    ),
    mistake(
        "mlp-reads-attention-alone",
        "The feed-forward network reads what attention wrote, without the stream, and its result is "
        "added to the x that came in. Add attention's result to x first, then go on from the sum.",
        4,
        whole=lambda x, n1, n2, attn, mlp: x + mlp(n2(attn(n1(x)))),
    ),
    mistake(
        "residual-doubled",
        "The x that came in is added a second time at the end. The stream already holds it.",
        4,
        whole=lambda x, n1, n2, attn, mlp: x + pre(pre(x, n1, attn), n2, mlp),
    ),
    mistake(
        "norm-at-the-end",
        "The block's result is normalized. Nothing normalizes the stream; one norm follows after the "
        "last block, and it is the model's (problem 10).",
        3,
        whole=lambda x, n1, n2, attn, mlp: n1(pre(pre(x, n1, attn), n2, mlp)),
    ),
    mistake(
        "not-causal",
        "Attention is not causal: tokens see later ones. attn must be a CausalMultiHeadAttention.",
        2,
        causal=False,
    ),
    mistake(
        "epsilon-not-passed",
        "ln_1 does not get layer_norm_epsilon: it has PyTorch's default, 1e-5.",
        2,
        eps=lambda e1, e2: (1e-5, e2),
    ),
    mistake(
        "epsilon-not-passed",
        "ln_2 does not get layer_norm_epsilon: it has PyTorch's default, 1e-5.",
        2,
        eps=lambda e1, e2: (e1, 1e-5),
    ),
    mistake(
        "epsilon-not-passed",
        "The norms do not get layer_norm_epsilon: they have the default, 1e-5.",
        2,
        eps=lambda e1, e2: (1e-5, 1e-5),
    ),
]
ARGUMENTS = mistake(
    "arguments-swapped",
    "An inner module is made with its arguments in another order than it takes them: "
    "CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout), "
    "FeedForward(n_embd, n_inner, dropout), LayerNorm(n_embd, eps).",
    2,
)
N_HEAD = mistake("n-head-wrong", "The attention has another number of heads than n_head.", 2)
N_POSITIONS = mistake(
    "n-positions-wrong",
    "The attention's limit is not n_positions: hand that argument on as it is.",
    2,
)
NOT_CAUSAL = mistake(
    "not-causal",
    "attn must be a CausalMultiHeadAttention: a plain MultiHeadAttention looks ahead.",
    2,
)
SHARED = mistake(
    "one-norm-for-both",
    "ln_1 and ln_2 are one and the same module. They are two: each learns its own weight and bias.",
    1,
)
HARD_CODED = mistake(
    "hard-coded-size", "A size is fixed in the code. Use the arguments n_embd and n_inner.", 2
)
N_INNER_IGNORED = mistake(
    "n-inner-ignored", "The argument n_inner has no effect. It is the width of the hidden layer.", 2
)
N_INNER_DEFAULT = mistake(
    "n-inner-default",
    "n_inner is None unless it is given: without it the hidden layer is 4 · n_embd wide.",
    2,
)
EPSILON = mistake(
    "epsilon-not-passed",
    "A norm has another epsilon than layer_norm_epsilon: hand the argument on to both.",
    2,
)
DROPOUT_NOT_PASSED = mistake(
    "dropout-not-passed",
    "A sublayer has another dropout than asked for: hand `dropout` on to attention and feed-forward.",
    2,
)
NONE_AS_DROPOUT = mistake(
    "attn-dropout-none",
    "attn_dropout is None unless it is given, and None arrives where a number is needed. Only the "
    "attention's attn_dropout takes None; replace it by dropout everywhere else.",
    2,
)
DROPOUTS_SWAPPED = mistake(
    "dropouts-swapped",
    "dropout and attn_dropout are swapped: attn_dropout is for the attention's weights alone, dropout "
    "for what both sublayers write.",
    2,
)
ATTN_DROPOUT_TO_MLP = mistake(
    "attn-dropout-to-mlp",
    "The feed-forward network gets attn_dropout. It gets dropout.",
    2,
)
ATTN_DROPOUT = mistake(
    "attn-dropout-not-passed",
    "The attention's weights have another dropout than attn_dropout: hand the argument on to the "
    "attention.",
    2,
)
ATTN_DROPOUT_DEFAULT = mistake(
    "attn-dropout-default",
    "Without attn_dropout the attention's weights have the same dropout as the rest (None is passed "
    "on as it is, or replaced by dropout).",
    2,
)
ATTN_DROPOUT_FALSY = mistake(
    "attn-dropout-falsy",
    "attn_dropout=0.0 is taken for 'not given': `or` and `if attn_dropout` treat 0.0 like None. Ask "
    "`is None`, or hand the argument on as it is.",
    2,
)
DROPOUT_ON_STREAM = mistake(
    "dropout-on-stream",
    "Dropout acts on the stream: with p = 1 it must let x through unchanged. Dropout stands at the "
    "end of each sublayer, inside attn and mlp, and the block adds none.",
    2,
)
DROPOUT_MISSING = mistake(
    "dropout-missing",
    "With dropout = 1, in training, a sublayer still writes to the stream. Call attn and mlp as a "
    "whole: they have the dropout inside.",
    2,
)
DROPOUT_TWICE = mistake(
    "dropout-twice",
    "Dropout acts twice on what a sublayer writes. It is inside attn and mlp already; the block adds "
    "none.",
    2,
)
DROPOUT_MISPLACED = mistake(
    "dropout-misplaced",
    "Dropout acts somewhere else than at the end of a sublayer: on its input, for example. It is "
    "inside attn and mlp already; the block adds none.",
    2,
)
SHARED_WEIGHTS = mistake(
    "shared-weights",
    "Two parameters of the block are one and the same memory. Each of the twelve is its own.",
    1,
)
CACHE_TO_MLP = mistake(
    "cache-to-mlp",
    "The feed-forward network is given the cache. It looks at one token at a time and needs no past: "
    "the cache goes to the attention alone.",
    5,
)
CACHE_NOT_PASSED = mistake(
    "cache-not-passed",
    "The cache is not handed on: after a call with T tokens it holds none. It goes to the attention.",
    5,
)
CACHE_SOMETIMES = mistake(
    "cache-not-passed",
    "The cache is handed on in some calls only: a call with T tokens must store T, in eval and in "
    "training mode, whether the cache is empty or not.",
    5,
)
CACHE_PARTLY = mistake(
    "cache-tokens-lost",
    "Tokens are missing in the cache: a call with T tokens stores T and keeps those of earlier calls. "
    "Hand all of x on, and leave the cache's length to the cache.",
    5,
)
CACHE_TWICE = mistake(
    "cache-twice",
    "The cache holds more tokens than were fed: the attention is called more than once.",
    5,
)
DETACHED = [
    mistake(
        "residual-detached",
        "No gradient flows along the stream: x is detached where it is added.",
        6,
        first=lambda x, n, f: x.detach() + f(n(x)),
        second=lambda x, n, f: x.detach() + f(n(x)),
    ),
    mistake(
        "residual-detached",
        "The gradient stops at the first sum: x is detached where attention's result is added.",
        6,
        first=lambda x, n, f: x.detach() + f(n(x)),
    ),
    mistake(
        "residual-detached",
        "The gradient stops at the second sum: x is detached where the feed-forward result is added.",
        6,
        second=lambda x, n, f: x.detach() + f(n(x)),
    ),
    mistake(
        "branch-detached",
        "No gradient flows back through the attention: its input or its result is detached.",
        6,
        first=lambda x, n, f: x + f(n(x)).detach(),
    ),
    mistake(
        "branch-detached",
        "No gradient flows back through the feed-forward network: its input or result is detached.",
        6,
        second=lambda x, n, f: x + f(n(x)).detach(),
    ),
]


def pre(x, norm, sublayer):
    """The right half: pre-norm, and a sum."""
    return x + sublayer(norm(x))


def block_by_hand(
    x,
    p,
    *,
    n_head=H,
    epsilon=1e-5,
    norms=(1, 2),
    first=pre,
    second=pre,
    whole=None,
    causal=True,
    eps=lambda e1, e2: (e1, e2),
):
    """The block on the weights p, with any step replaced: (B, T, C) → (B, T, C)."""
    width, epsilons = x.size(-1), eps(epsilon, epsilon)

    def norm(i):
        w, b = p[f"ln_{i}.weight"], p[f"ln_{i}.bias"]
        return lambda x: F.layer_norm(x, (width,), w, b, epsilons[i - 1])

    def linear(x, name):
        return F.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def attn(x):
        q, k, v = (
            part.unflatten(-1, (n_head, -1)).transpose(-3, -2)
            for part in linear(x, "attn.c_attn").chunk(3, -1)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return linear(y.transpose(-3, -2).flatten(-2), "attn.c_proj")

    def mlp(x):
        return linear(F.gelu(linear(x, "mlp.c_fc"), approximate="tanh"), "mlp.c_proj")

    n1, n2 = norm(norms[0]), norm(norms[1])
    if whole is not None:
        return whole(x, n1, n2, attn, mlp)
    return second(first(x, n1, attn), n2, mlp)


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
        fail(ARGUMENTS, f"It says: {str(error).splitlines()[0]}")


def _explain_no_n_inner(piece, args, options, error):
    """Say that n_inner=None is not replaced, when a number in its place is all that is missing."""
    try:
        piece.TransformerBlock(*args, **{**options, "n_inner": INNER})
    except Exception:
        return
    fail(N_INNER_DEFAULT, f"With n_inner=None Python says: {str(error).splitlines()[0][:120]}")


def _explain_none(piece, args, options, error):
    """Say where attn_dropout=None goes wrong, when a number in its place does not."""
    try:
        block = piece.TransformerBlock(*args, **{"dropout": 0.3, **options, "attn_dropout": 0.6})
    except Exception:
        return
    rate = getattr(getattr(block, "attn", None), "resid_dropout", None)
    wrong = DROPOUTS_SWAPPED if getattr(rate, "p", 0) == 0.6 else NONE_AS_DROPOUT
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
            fail(CACHE_TO_MLP, f"Python says: {error}")
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
        fail(NOT_CAUSAL)
    attribute(block, "attn", CausalMultiHeadAttention)
    attribute(block, "ln_2", norm)
    attribute(block, "mlp", FeedForward)
    if block.ln_1 is block.ln_2 or block.ln_1.weight is block.ln_2.weight:
        fail(SHARED)
    expect_state(block, STATE)
    if len({t.data_ptr() for t in block.state_dict().values()}) < len(STATE):
        fail(SHARED_WEIGHTS)
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
                fail(ARGUMENTS, at)
            fail(N_INNER_IGNORED if inner else N_INNER_DEFAULT, at)
        for name, shape in shapes.items():
            if found[name] != shape:
                fail(HARD_CODED, f"{name} has the shape {found[name]}, expected {shape}.")
        if block.attn.n_head != heads:
            fail(N_HEAD, f"attn.n_head is {block.attn.n_head}, expected {heads}.")


@check(todo=1, needs=test_arguments)
def test_epsilon(piece):
    """layer_norm_epsilon reaches both norms"""
    for options, want in (({}, 1e-5), ({"layer_norm_epsilon": 0.25}, 0.25)):
        block = make(piece, **options)
        for name in ("ln_1", "ln_2"):
            eps = float(getattr(block, name).eps)
            if abs(eps - want) > 1e-3 * want:
                fail(EPSILON, f"{name}.eps is {eps:g}, expected {want:g}.")


@check(todo=1, needs=test_arguments)
def test_dropout_arguments(piece):
    """dropout reaches both sublayers, and is 0.1 unless given"""
    for options, want in (({}, 0.1), ({"dropout": 0.3, "attn_dropout": 0.6}, 0.3)):
        block = make(piece, **options)
        rates = {"attn.resid_dropout": block.attn.resid_dropout.p, "mlp.drop": block.mlp.drop.p}
        for name, p in rates.items():
            if abs(p - want) > 1e-6:
                wrong = DROPOUT_NOT_PASSED
                if p == options.get("attn_dropout"):
                    wrong = ATTN_DROPOUT_TO_MLP if name == "mlp.drop" else DROPOUTS_SWAPPED
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
            fail(N_POSITIONS, f"{length} tokens with n_positions = {P} give: {error}")
        raise


@check(todo=3, needs=test_runs, points=4)
def test_values(piece):
    """x + attn(ln_1(x)), then x + mlp(ln_2(x)), on the result"""
    examine(block_of(piece, dropout=0.0), random(B, T, C))


@check(todo=3, needs=test_values)
def test_remembers_nothing(piece):
    """What a call gives does not depend on the calls before it"""
    inputs = [random(*shape, seed=i) for i, shape in enumerate(((B, T, C), (B, T, C), (1, P, C)))]
    calls = [lambda module, x=x: call(module, x) for x in (*inputs, inputs[0])]
    expect_no_memory(block_of(piece), calls)


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
        missing=N_POSITIONS,
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
            fail(NOT_CAUSAL, f"Changing token {t} changes the output before it.")
        if torch.allclose(after[:, t], before[:, t], atol=1e-5):
            fail(f"Changing token {t} does not change the output at {t}. [token-ignored]")


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
                wrong = CACHE_PARTLY if cache.length else CACHE_SOMETIMES
                said = (
                    f"Fed in pieces of {sizes}, after {fed} tokens the cache holds {cache.length}."
                )
                fail(CACHE_NOT_PASSED if never else wrong, said)
            if cache.length > fed:
                fail(CACHE_TWICE, f"After {fed} tokens the cache holds {cache.length}.")
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
        fail(CACHE_SOMETIMES, f"In training mode, after {T} tokens it holds {cache.length}.")
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
        fail(f"With bfloat16 weights and x: {error}. Is x converted? [dtype-changed]")
    if got.dtype != torch.bfloat16:
        fail(f"x is bfloat16, the result {got.dtype}: is something converted? [dtype-changed]")


@check(todo=3, needs=(test_values, test_dropout_arguments))
def test_full_dropout(piece):
    """With dropout = 1, in training, nothing is written and the stream goes through unchanged"""
    x = random(B, T, C, seed=5)
    got = call(block_of(piece, dropout=1.0).train(), x)
    if (got == 0).all():
        fail(DROPOUT_ON_STREAM, "With p = 1 everything is 0.")
    if not torch.allclose(got, x, atol=1e-6):
        fail(DROPOUT_MISSING)


@check(todo=3, needs=test_full_dropout)
def test_attn_dropout(piece):
    """attn_dropout is for the attention's weights: as given, 0.0 too, and dropout when None"""
    for dropout, given, want in ((0.3, 0.6, 0.6), (0.0, 0.5, 0.5), (0.3, None, 0.3), (0.5, 0.0, 0)):
        options = (
            {"dropout": dropout} if given is None else {"dropout": dropout, "attn_dropout": given}
        )
        p = _weight_dropout(piece, **options)
        if abs(p - want) > 1e-3:
            wrong = ATTN_DROPOUT
            if given is None:
                wrong = ATTN_DROPOUT_DEFAULT
            elif given == 0.0 and abs(p - dropout) < 1e-3:
                wrong = ATTN_DROPOUT_FALSY
            elif dropout > 0 and abs((1 - p) - (1 - want) * (1 - dropout)) < 1e-3:
                wrong = DROPOUT_TWICE
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
            missing=DROPOUT_MISSING,
            misplaced=DROPOUT_MISPLACED,
            variants={DROPOUT_TWICE: lambda runs: bool((runs == 0).double().mean() > 1.3 * p)},
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
        DETACHED,
        lambda **switches: gradient(lambda given: block_by_hand(given, p, **switches)),
        what="the gradient of x",
        axes="B T C",
    )
