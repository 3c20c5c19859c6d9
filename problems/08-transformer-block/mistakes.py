"""The known mistakes of problem 08, by the step that they replace (see `textbook`)."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.textbook import gelu, pre, unmasked

KNOWN = Catalog()

# what is wrong, what to do, and how a half computes it: x the stream, n its norm, f its sublayer
HALVES = {
    "post-norm": (
        (
            "that is post-norm, ln(x + f(x)), which normalizes the stream itself",
            "Add f(ln(x)) to x: the stream goes through unnormalized",
            lambda x, n, f: n(x + f(x)),
        ),
    ),
    "no-residual": (
        (
            "x is not added",
            "The sublayer's result is added to the stream, it does not replace it",
            lambda x, n, f: f(n(x)),
        ),
    ),
    "no-norm": (
        ("the sublayer reads x itself", "It reads the normalized copy", lambda x, n, f: x + f(x)),
    ),
    "residual-normalised": (
        (
            "the normalized x is added to",
            "The sublayer reads the norm's result; what it is added to is x itself",
            lambda x, n, f: n(x) + f(n(x)),
        ),
        (
            "norm and stream are swapped: the sublayer reads x, and the normalized x is added to",
            "It is the other way round",
            lambda x, n, f: n(x) + f(x),
        ),
    ),
    "norm-twice": (
        (
            "the sum is normalized, after the branch was",
            "Nothing normalizes the stream: leave the sum as it is",
            lambda x, n, f: n(x + f(n(x))),
        ),
    ),
    "norm-on-branch-output": (
        (
            "the norm is on what the sublayer returns",
            "It belongs on what the sublayer reads",
            lambda x, n, f: x + n(f(x)),
        ),
        (
            "the norm is on what the sublayer reads and on what it returns",
            "Only the first is right",
            lambda x, n, f: x + n(f(n(x))),
        ),
    ),
    "residual-doubled": (("x is added twice", "Once is enough", lambda x, n, f: 2 * x + f(n(x))),),
    "branch-doubled": (
        ("the sublayer's result is added twice", "Once is enough", lambda x, n, f: x + 2 * f(n(x))),
    ),
    "sublayer-missing": (
        (
            "nothing is added",
            "Call the sublayer on the normalized x and add what it returns",
            lambda x, n, f: x,
        ),
        (
            "the norm's result is added, without the sublayer",
            "Call the sublayer on it, and add what that returns",
            lambda x, n, f: x + n(x),
        ),
    ),
    "sublayer-alone": (
        (
            "there is neither norm nor sum, the sublayer's result goes on alone",
            "Add f(ln(x)) to x",
            lambda x, n, f: f(x),
        ),
    ),
    "sublayer-twice": (
        ("it is done twice", "Once is enough", lambda x, n, f: x + f(n(x)) + f(n(x + f(n(x))))),
        (
            "the sublayer is applied to its own result",
            "Once is enough",
            lambda x, n, f: x + f(f(n(x))),
        ),
    ),
    "normalised-twice": (
        ("the norm is applied twice", "Once is enough", lambda x, n, f: x + f(n(n(x)))),
    ),
    "branch-subtracted": (
        ("the sublayer's result is subtracted", "Add it", lambda x, n, f: x - f(n(x))),
        ("x is subtracted", "Add the two", lambda x, n, f: f(n(x)) - x),
    ),
    "branch-multiplied": (
        ("x is multiplied by the sublayer's result", "Add the two", lambda x, n, f: x * f(n(x))),
    ),
    "sum-scaled": (
        ("the sum is halved", "GPT-2 adds, and that is all", lambda x, n, f: (x + f(n(x))) / 2),
        (
            "the sum is divided by √2",
            "GPT-2 adds, and that is all",
            lambda x, n, f: (x + f(n(x))) / 2**0.5,
        ),
        (
            "half of the sublayer's result is added",
            "GPT-2 adds all of it",
            lambda x, n, f: x + f(n(x)) / 2,
        ),
    ),
    "axes-swapped": (
        (
            "the sublayer gets batch and tokens swapped",
            "Hand the norm's result on as it is, (B, T, C)",
            lambda x, n, f: x + f(n(x).transpose(0, 1)).transpose(0, 1),
        ),
    ),
    "activation-added": (
        (
            "there is an activation (ReLU) on what the sublayer returns",
            "GPT-2 adds the result as it is",
            lambda x, n, f: x + torch.relu(f(n(x))),
        ),
        (
            "there is an activation (GELU) on what the sublayer returns",
            "GPT-2 adds the result as it is",
            lambda x, n, f: x + F.gelu(f(n(x))),
        ),
        (
            "there is an activation (tanh) on what the sublayer returns",
            "GPT-2 adds the result as it is",
            lambda x, n, f: x + torch.tanh(f(n(x))),
        ),
        (
            "there is an activation (GELU, tanh form) on what the sublayer returns",
            "GPT-2 adds the result as it is",
            lambda x, n, f: x + gelu(f(n(x))),
        ),
        (
            "there is an activation (ReLU) around the sum",
            "GPT-2 adds, and that is all",
            lambda x, n, f: torch.relu(x + f(n(x))),
        ),
        (
            "there is an activation (GELU) around the sum",
            "GPT-2 adds, and that is all",
            lambda x, n, f: gelu(x + f(n(x))),
        ),
        (
            "there is an activation (GELU, erf) around the sum",
            "GPT-2 adds, and that is all",
            lambda x, n, f: F.gelu(x + f(n(x))),
        ),
    ),
}
for id, rows in HALVES.items():
    KNOWN.add(
        id,
        3,
        f"In a half {rows[0][0]}. {rows[0][1]}.",
        *(
            made
            for what, todo, step in rows
            for made in (
                way(says=f"In both halves {what}. {todo}.", first=step, second=step),
                way(says=f"In the attention half {what}. {todo}.", first=step),
                way(says=f"In the feed-forward half {what}. {todo}.", hint=4, second=step),
            )
        ),
        family="block",
    )

block = KNOWN.section("block", hint=4)
block(
    "parallel",
    "Attention and feed-forward both read the x that came in. The feed-forward network reads the stream after attention has written to it.",
    way(block=lambda x, n1, n2, attn, mlp: x + attn(n1(x)) + mlp(n2(x))),
    way(
        says="Attention and feed-forward both read ln_1 of the x that came in. The feed-forward network reads ln_2 of the stream after attention has written to it.",
        block=lambda x, n1, n2, attn, mlp: x + attn(n1(x)) + mlp(n1(x)),
    ),
)
block(
    "order-swapped",
    "The feed-forward network comes first. Attention does: tokens talk, then each thinks.",
    way(block=lambda x, n1, n2, attn, mlp: pre(pre(x, n2, mlp), n1, attn)),
    way(
        says="The feed-forward network comes first, with ln_1. Attention does: tokens talk, then each thinks.",
        block=lambda x, n1, n2, attn, mlp: pre(pre(x, n1, mlp), n2, attn),
    ),
    hint=3,
)
block(
    "norms-swapped",
    "The norms are swapped: ln_1 belongs to the attention, ln_2 to the feed-forward network. The checkpoint's weights are meant so.",
    hint=3,
    norms=(2, 1),
)
block(
    "one-norm-for-both",
    "ln_1 is used in both halves, and ln_2 in none. The feed-forward network reads ln_2.",
    way(norms=(1, 1)),
    way(
        says="ln_2 is used in both halves, and ln_1 in none. The attention reads ln_1.",
        hint=3,
        norms=(2, 2),
    ),
    way(
        "shared",
        says=(
            "ln_1 and ln_2 are one and the same module. They are two: each learns its own weight and bias."
        ),
        hint=1,
        family="",
    ),
)
KNOWN.put(
    "norm-on-branch-output",
    3,
    "ln_2 is on what attention returns. Each norm stands before a sublayer, none behind it.",
    way(block=lambda x, n1, n2, attn, mlp: pre(x + n2(attn(n1(x))), n2, mlp)),
    way(
        says="ln_2 is on what attention returns, and the feed-forward network reads the stream itself. Each norm stands before a sublayer, none behind it.",
        block=lambda x, n1, n2, attn, mlp: pre(x + n2(attn(n1(x))), lambda y: y, mlp),
    ),
    family="block",
)
block(
    "attention-lost",
    "What attention wrote is lost: the feed-forward network's result is added to the x that came in. Add it to the stream after attention.",
    block=lambda x, n1, n2, attn, mlp: x + mlp(n2(pre(x, n1, attn))),
)
block(
    "mlp-reads-attention-alone",
    "The feed-forward network reads what attention wrote, without the stream. It reads the sum.",
    way(block=lambda x, n1, n2, attn, mlp: pre(x, n1, attn) + mlp(n2(attn(n1(x))))),
    way(
        says="The feed-forward network reads what attention wrote, without the stream, and its result is added to the x that came in. Add attention's result to x first, then go on from the sum.",
        block=lambda x, n1, n2, attn, mlp: x + mlp(n2(attn(n1(x)))),
    ),
)
KNOWN.put(
    "residual-doubled",
    4,
    "The x that came in is added a second time at the end. The stream already holds it.",
    way(block=lambda x, n1, n2, attn, mlp: x + pre(pre(x, n1, attn), n2, mlp)),
    family="block",
)
block(
    "norm-at-the-end",
    "The block's result is normalized. Nothing normalizes the stream; one norm follows after the last block, and it is the model's (problem 10).",
    hint=3,
    block=lambda x, n1, n2, attn, mlp: n1(pre(pre(x, n1, attn), n2, mlp)),
)
block(
    "not-causal",
    "Attention is not causal: tokens see later ones. attn must be a CausalMultiHeadAttention.",
    way(mask=unmasked),
    way(
        "not-causal",
        says="attn must be a CausalMultiHeadAttention: a plain MultiHeadAttention looks ahead.",
        family="",
    ),
    hint=2,
)
block(
    "epsilon-not-passed",
    "ln_1 does not get layer_norm_epsilon: it has PyTorch's default, 1e-5.",
    way(epsilons=lambda e1, e2: (1e-5, e2)),
    way(
        says="ln_2 does not get layer_norm_epsilon: it has PyTorch's default, 1e-5.",
        epsilons=lambda e1, e2: (e1, 1e-5),
    ),
    way(
        says="The norms do not get layer_norm_epsilon: they have the default, 1e-5.",
        epsilons=lambda e1, e2: (1e-5, 1e-5),
    ),
    way(
        "epsilon",
        says=("A norm has another epsilon than layer_norm_epsilon: hand the argument on to both."),
        family="",
    ),
    hint=2,
)

gradient = KNOWN.section("gradient", hint=6)
gradient(
    "residual-detached",
    "No gradient flows along the stream: x is detached where it is added.",
    way(first=lambda x, n, f: x.detach() + f(n(x)), second=lambda x, n, f: x.detach() + f(n(x))),
    way(
        says=(
            "The gradient stops at the first sum: x is detached where attention's result is added."
        ),
        first=lambda x, n, f: x.detach() + f(n(x)),
    ),
    way(
        says=(
            "The gradient stops at the second sum: x is detached where the feed-forward result is added."
        ),
        second=lambda x, n, f: x.detach() + f(n(x)),
    ),
)
gradient(
    "branch-detached",
    "No gradient flows back through the attention: its input or its result is detached.",
    way(first=lambda x, n, f: x + f(n(x)).detach()),
    way(
        says=(
            "No gradient flows back through the feed-forward network: its input or result is detached."
        ),
        second=lambda x, n, f: x + f(n(x)).detach(),
    ),
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "shared-weights",
    "Two parameters of the block are one and the same memory. Each of the twelve is its own.",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "arguments-swapped",
    "An inner module is made with its arguments in another order than it takes them: CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout), FeedForward(n_embd, n_inner, dropout), LayerNorm(n_embd, eps).",
)
hint_2(
    "attn-dropout-default",
    "Without attn_dropout the attention's weights have the same dropout as the rest (None is passed on as it is, or replaced by dropout).",
)
hint_2(
    "attn-dropout-falsy",
    "attn_dropout=0.0 is taken for 'not given': `or` and `if attn_dropout` treat 0.0 like None. Ask `is None`, or hand the argument on as it is.",
)
hint_2(
    "attn-dropout-none",
    "attn_dropout is None unless it is given, and None arrives where a number is needed. Only the attention's attn_dropout takes None; replace it by dropout everywhere else.",
)
hint_2(
    "attn-dropout-not-passed",
    "The attention's weights have another dropout than attn_dropout: hand the argument on to the attention.",
)
hint_2("attn-dropout-to-mlp", "The feed-forward network gets attn_dropout. It gets dropout.")
hint_2(
    "dropout-misplaced",
    "Dropout acts somewhere else than at the end of a sublayer: on its input, for example. It is inside attn and mlp already; the block adds none.",
)
hint_2(
    "dropout-missing",
    "With dropout = 1, in training, a sublayer still writes to the stream. Call attn and mlp as a whole: they have the dropout inside.",
)
hint_2(
    "dropout-not-passed",
    "A sublayer has another dropout than asked for: hand `dropout` on to attention and feed-forward.",
)
hint_2(
    "dropout-on-stream",
    "Dropout acts on the stream: with p = 1 it must let x through unchanged. Dropout stands at the end of each sublayer, inside attn and mlp, and the block adds none.",
)
hint_2(
    "dropout-twice",
    "Dropout acts twice on what a sublayer writes. It is inside attn and mlp already; the block adds none.",
)
hint_2(
    "dropouts-swapped",
    "dropout and attn_dropout are swapped: attn_dropout is for the attention's weights alone, dropout for what both sublayers write.",
)
hint_2("hard-coded-size", "A size is fixed in the code. Use the arguments n_embd and n_inner.")
hint_2("n-head-wrong", "The attention has another number of heads than n_head.")
hint_2(
    "n-inner-default",
    "n_inner is None unless it is given: without it the hidden layer is 4 · n_embd wide.",
)
hint_2(
    "n-inner-ignored", "The argument n_inner has no effect. It is the width of the hidden layer."
)
hint_2(
    "n-positions-wrong", "The attention's limit is not n_positions: hand that argument on as it is."
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "cache-not-passed",
    "The cache is not handed on: after a call with T tokens it holds none. It goes to the attention.",
    way(
        "cache-sometimes",
        says="The cache is handed on in some calls only: a call with T tokens must store T, in eval and in training mode, whether the cache is empty or not.",
    ),
)
hint_5(
    "cache-to-mlp",
    "The feed-forward network is given the cache. It looks at one token at a time and needs no past: the cache goes to the attention alone.",
)
hint_5(
    "cache-tokens-lost",
    "Tokens are missing in the cache: a call with T tokens stores T and keeps those of earlier calls. Hand all of x on, and leave the cache's length to the cache.",
)
hint_5(
    "cache-twice",
    "The cache holds more tokens than were fed: the attention is called more than once.",
)
