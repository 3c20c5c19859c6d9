"""Checks of problem 10. The oracle is GPT-2 written out in plain PyTorch operators below."""

import itertools
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
    expect_error,
    expect_finite_gradients,
    expect_mode_kept,
    expect_no_edit,
    expect_no_seed,
    expect_own_start,
    expect_state,
    fail,
    fill,
    mistake,
    operations,
    record_calls,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.earlier import other_name
from learn_gpt2.checking.surroundings import without_memory

# Sizes that all differ, so that a swapped one can't hide. 12 is divisible by 2, 3 and 4.
B, T, V, P, C, L, H = sizes_from(
    (4, 5, 23, 14, 12, 3, 2), (3, 5, 26, 16, 12, 4, 2), (6, 5, 29, 15, 12, 3, 2)
)
PRODUCTS = ("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "linear", "tensordot")
EPS = 0.05  # large enough to show where it does not arrive

# ── mistakes in __init__ ────────────────────────────────────────────────────────────────────────

PLAIN_LIST = mistake(
    "plain-list",
    "`h` is a plain Python list. PyTorch finds no parameters in it: they would be neither trained, "
    "saved nor moved. Wrap it in nn.ModuleList.",
    1,
)
LAYER_COUNT = mistake(
    "wrong-layer-count", "`h` must hold exactly config.n_layer blocks: index 0 to n_layer − 1.", 1
)
SHARED = mistake(
    "shared-blocks",
    "All entries of `h` are one and the same block, so there is one set of weights for all layers. "
    "Make a new TransformerBlock for each layer ([block] * n repeats the object).",
    1,
)
SHARED_WEIGHTS = mistake(
    "shared-weights",
    "Two modules share a weight. Only the head and the token embedding do in GPT-2; everything else "
    "is made again.",
    1,
)
ARGUMENTS = mistake(
    "arguments-swapped",
    "A setting of the config arrives at the wrong place. Compare your call with the order of the "
    "piece's arguments, or pass them by name.",
    1,
)
HEAD_BIAS = mistake(
    "head-bias",
    "lm_head has a bias; GPT-2's head has none (bias=False): a checkpoint holds no such tensor.",
    3,
)
HEAD_SIZES = mistake(
    "head-sizes-swapped",
    "lm_head must be nn.Linear(n_embd, vocab_size): from the stream's width to one number per token.",
    3,
)
UNTIED = mistake(
    "untied-head",
    "The head is not tied: lm_head.weight and embeddings.wte.weight are two tensors. Make one the "
    "other (assign the parameter itself).",
    3,
)
COPIED = mistake(
    "copied-head",
    "lm_head.weight is a copy of embeddings.wte.weight: equal now, and different after the first "
    "training step. Assign the parameter itself, without clone, copy_ or a new nn.Parameter.",
    3,
)
SHARED_DATA = mistake(
    "shared-data-only",
    "lm_head.weight shares its memory with embeddings.wte.weight and is still another parameter: its "
    "gradients are kept apart and it is counted twice. Assign the parameter itself.",
    3,
)
EPS_NOT_PASSED = mistake(
    "eps-not-passed",
    "config.layer_norm_epsilon does not reach every norm: the blocks' two and ln_f.",
    2,
)
WRONG_N_HEAD = mistake(
    "n-head-not-passed", "Each block must have config.n_head heads; another number arrives.", 1
)
EMBD_PDROP = mistake(
    "embd-pdrop-not-passed",
    "config.embd_pdrop is the dropout of the embeddings; another probability arrives there.",
    1,
)
RESID_PDROP = mistake(
    "resid-pdrop-not-passed",
    "config.resid_pdrop is the dropout of what each sublayer adds to the stream (the block's "
    "`dropout`); another probability arrives there.",
    1,
)
ATTN_PDROP = mistake(
    "attn-pdrop-not-passed",
    "config.attn_pdrop is the dropout of the attention weights (the block's `attn_dropout`); it does "
    "not arrive there.",
    1,
)
PDROPS_SWAPPED = mistake(
    "pdrops-swapped",
    "The config's dropout probabilities are mixed up: embd_pdrop is for the embeddings, resid_pdrop "
    "the block's `dropout`, attn_pdrop its `attn_dropout`.",
    1,
)
INIT_NOT_APPLIED = mistake(
    "init-not-applied",
    "_init_weights is never called: __init__ must end with self.apply(self._init_weights), or problem "
    "11 has nothing to hook into.",
    4,
)
INIT_TOO_EARLY = mistake(
    "init-too-early",
    "_init_weights is not called for every module: apply reaches only what is there when it is "
    "called. It must be the last line of __init__.",
    4,
)
TIED_TOO_LATE = mistake(
    "tied-too-late",
    "The embedding table that _init_weights has set is thrown away: after self.apply, the head's "
    "weight is put in its place. Tie the two before self.apply(self._init_weights), which comes last.",
    5,
)
INIT_ORDER = mistake(
    "init-order",
    "_init_weights is called for a module before its children. Problem 11 relies on the order of "
    "self.apply(…): children first.",
    4,
)
CONFIG_CHANGED = mistake(
    "config-not-kept",
    "model.config must be the config it was built from: whoever saves, caches or generates reads "
    "the sizes there.",
    1,
)

# ── mistakes in forward ─────────────────────────────────────────────────────────────────────────

MISTAKES = [
    mistake(
        "no-final-norm",
        "ln_f has no effect on the logits. Pre-norm blocks leave the stream unnormalized, so one last "
        "norm comes before the head, and the head reads its result.",
        2,
        final=lambda x, ln: x,
    ),
    mistake(
        "final-norm-before-blocks",
        "ln_f comes before the blocks. It belongs after the last one, just before the head.",
        2,
        pre=lambda x, ln: ln(x),
        final=lambda x, ln: x,
    ),
    mistake(
        "final-norm-before-blocks",
        "ln_f is applied to the embeddings, too. It belongs after the last block alone.",
        2,
        pre=lambda x, ln: ln(x),
    ),
    mistake(
        "final-norm-in-loop",
        "ln_f is applied after every block. Only the head reads a normalized stream; the blocks have "
        "norms of their own.",
        2,
        after_block=lambda x, ln: ln(x),
        final=lambda x, ln: x,
    ),
    mistake(
        "final-norm-in-loop",
        "ln_f is applied after every block and once more at the end. Once, after the last, is enough.",
        2,
        after_block=lambda x, ln: ln(x),
    ),
    mistake("final-norm-twice", "ln_f is applied twice.", 2, final=lambda x, ln: ln(ln(x))),
    mistake(
        "final-norm-residual",
        "ln_f's result is added to the stream. It replaces it: the head reads ln_f(x) alone.",
        2,
        final=lambda x, ln: x + ln(x),
    ),
    mistake(
        "final-norm-without-affine",
        "The last norm leaves out ln_f's weight and bias: call self.ln_f.",
        2,
        final=lambda x, ln: F.layer_norm(x, x.shape[-1:], eps=EPS),
    ),
    mistake(
        "final-norm-after-head",
        "ln_f comes after the head. It normalizes the stream of width n_embd, before the head.",
        2,
        final=lambda x, ln: x,
        out=lambda z, ln, n: ln(z),
    ),
    mistake(
        "no-head",
        "What comes out is the stream, of width n_embd. The last step is lm_head, which gives a number "
        "per token of the vocabulary.",
        7,
        head=lambda x, w: x,
    ),
    mistake(
        "head-not-transposed",
        "The head's matrix lies the wrong way round: a logit is the dot product of the stream with a "
        "row of wte, x @ wteᵀ, which is what lm_head computes.",
        7,
        head=lambda x, w: x @ w["embeddings.wte.weight"],
    ),
    mistake(
        "head-is-wpe",
        "The logits are computed with the position embeddings; the head is tied to wte, the tokens'.",
        7,
        head=lambda x, w: x @ w["embeddings.wpe.weight"].T,
    ),
    mistake(
        "softmax-on-logits",
        "The model returns probabilities. It must return the logits: cross-entropy and sampling apply "
        "the softmax themselves.",
        7,
        out=lambda z, ln, n: z.softmax(-1),
    ),
    mistake(
        "softmax-on-logits",
        "The model returns log-probabilities (log_softmax). It must return the logits themselves.",
        7,
        out=lambda z, ln, n: z.log_softmax(-1),
    ),
    mistake(
        "softmax-on-logits",
        "The model returns a softmax over positions; it must return logits, with no softmax at all.",
        7,
        out=lambda z, ln, n: z.softmax(1),
    ),
    mistake(
        "logits-scaled",
        "The logits are divided by √n_embd. GPT-2's head does not scale them.",
        7,
        out=lambda z, ln, n: z * n**-0.5,
    ),
    mistake(
        "logits-scaled",
        "The logits are multiplied by √n_embd. GPT-2's head does not scale them.",
        7,
        out=lambda z, ln, n: z * n**0.5,
    ),
    mistake(
        "logits-argmax",
        "The model returns the most likely token. It must return the logits, one number per token of the "
        "vocabulary.",
        7,
        out=lambda z, ln, n: z.argmax(-1),
    ),
    mistake(
        "embeddings-scaled",
        "The embeddings are multiplied by √n_embd, as in the first Transformer. GPT-2 does not do that.",
        6,
        embed=lambda x, n: x * n**0.5,
    ),
    mistake(
        "no-positions",
        "Only the tokens are embedded, without their positions. Call self.embeddings.",
        6,
        embed=lambda x, n: None,
    ),
    mistake(
        "positions-all-the-same",
        "Every token gets the position of the first one. Each has its own: give self.embeddings all "
        "ids in one call.",
        6,
        placed=lambda p: p[:1].expand_as(p),
    ),
    mistake(
        "blocks-skipped",
        "The stream does not pass through the blocks at all.",
        6,
        order=lambda n: [],
    ),
    mistake(
        "blocks-skipped",
        "The last block is left out: the stream must pass through all n_layer of them.",
        6,
        order=lambda n: range(n - 1),
    ),
    mistake(
        "blocks-skipped",
        "The first block is left out: the stream must pass through all n_layer of them.",
        6,
        order=lambda n: range(1, n),
    ),
    mistake(
        "blocks-skipped",
        "Only the first block is used: the stream must pass through all n_layer of them.",
        6,
        order=lambda n: [0],
    ),
    mistake(
        "blocks-skipped",
        "Only the last block has an effect: each must read what the one before it gave.",
        6,
        order=lambda n: [n - 1],
    ),
    mistake(
        "block-repeated",
        "The first block is used for every layer. Layer i is self.h[i].",
        6,
        order=lambda n: [0] * n,
    ),
    mistake(
        "block-repeated",
        "The last block is used for every layer. Layer i is self.h[i].",
        6,
        order=lambda n: [n - 1] * n,
    ),
    mistake(
        "blocks-reversed",
        "The blocks are passed in reverse order. The stream goes from h[0] to the last.",
        6,
        order=lambda n: reversed(range(n)),
    ),
    mistake(
        "blocks-twice",
        "The stream passes through every block twice.",
        6,
        order=lambda n: [i for i in range(n) for _ in range(2)],
    ),
    mistake(
        "blocks-twice",
        "The stream passes through the first block twice.",
        6,
        order=lambda n: [0, *range(n)],
    ),
    mistake(
        "blocks-twice",
        "The stream passes through the last block twice.",
        6,
        order=lambda n: [*range(n), n - 1],
    ),
    mistake(
        "blocks-twice",
        "The stream passes through all the blocks twice.",
        6,
        order=lambda n: [*range(n), *range(n)],
    ),
    mistake(
        "residual-doubled",
        "You add a block's input to its output. The block has done that inside: x = block(x).",
        6,
        step=lambda f, x, e: x + f(x),
    ),
    mistake(
        "embeddings-added-again",
        "The embeddings are added to the stream after each block. They are in it since the start.",
        6,
        step=lambda f, x, e: f(x) + e,
    ),
    mistake(
        "embeddings-added-again",
        "The embeddings are added to the stream once more after the blocks.",
        6,
        final=lambda x, ln: None,
    ),
    mistake(
        "activation-at-the-end",
        "An activation function acts on the logits. They may be any number: leave them as they are.",
        7,
        out=lambda z, ln, n: z.relu(),
    ),
    mistake(
        "activation-at-the-end",
        "An activation function stands between ln_f and the head. GPT-2 has none there.",
        7,
        final=lambda x, ln: F.gelu(ln(x)),
    ),
    mistake(
        "activation-at-the-end",
        "An activation function stands between ln_f and the head. GPT-2 has none there.",
        7,
        final=lambda x, ln: F.gelu(ln(x), approximate="tanh"),
    ),
    mistake(
        "activation-at-the-end",
        "An activation function stands between ln_f and the head. GPT-2 has none there.",
        7,
        final=lambda x, ln: ln(x).relu(),
    ),
    mistake(
        "activation-at-the-end",
        "An activation function stands between ln_f and the head. GPT-2 has none there.",
        7,
        final=lambda x, ln: ln(x).tanh(),
    ),
    mistake(
        "last-only-always",
        "Without last_only=True the logits of every position are wanted, not the last one's alone.",
        7,
        last=lambda x, only: x[:, -1:],
    ),
    mistake(
        "last-only-inverted",
        "last_only is the wrong way round: False gives all positions, True the last alone.",
        7,
        general=True,  # a call with the other value would tell; the others say what is seen
        last=lambda x, only: x if only else x[:, -1:],
    ),
    mistake(
        "logits-shifted",
        "The logits of one position are missing: there is one row of V numbers for each of the T tokens. "
        "Shifting is the loss's business.",
        7,
        out=lambda z, ln, n: z[:, :-1],
    ),
    mistake(
        "logits-shifted",
        "The logits of one position are missing: there is one row of V numbers for each of the T tokens. "
        "Shifting is the loss's business.",
        7,
        out=lambda z, ln, n: z[:, 1:],
    ),
    mistake(
        "eps-not-passed",
        "The blocks' norms do not use config.layer_norm_epsilon.",
        2,
        eps_block=lambda eps: 1e-5,
    ),
    mistake(
        "eps-not-passed",
        "ln_f does not use config.layer_norm_epsilon.",
        2,
        eps_final=lambda eps: 1e-5,
    ),
    mistake("n-head-not-passed", WRONG_N_HEAD.says, 1, heads=lambda config: config.n_layer),
    mistake("n-head-not-passed", WRONG_N_HEAD.says, 1, heads=lambda config: 1),
]
LAST_ONLY = [
    mistake(
        "last-only-ignored",
        "last_only=True has no effect: it must give (B, 1, V), the last position's logits alone.",
        7,
        last=lambda x, only: x,
    ),
    mistake(
        "last-only-shape",
        "last_only=True gives (B, V). The axis of positions stays, with size 1: x[:, -1:] keeps it, "
        "x[:, -1] does not.",
        7,
        last=lambda x, only: x[:, -1],
    ),
    mistake(
        "last-only-first",
        "last_only=True gives the first position's logits; the last one's are wanted.",
        7,
        last=lambda x, only: x[:, :1],
    ),
    mistake(
        "last-only-wrong-axis",
        "last_only=True cuts the batch, axis 0. Positions are axis 1.",
        7,
        last=lambda x, only: x[-1:],
    ),
    mistake(
        "last-only-wrong-axis",
        "last_only=True cuts the vocabulary or the width, the last axis. Positions are axis 1.",
        7,
        out=lambda z, ln, n: z[..., -1:],
        last=lambda x, only: x,
    ),
    mistake(
        "last-only-off-by-one",
        "last_only=True leaves out the last position, or gives the one before it.",
        7,
        last=lambda x, only: x[:, -2:-1],
    ),
    mistake(
        "last-only-off-by-one",
        "last_only=True drops the last position instead of keeping it alone: x[:, -1:], not x[:, :-1].",
        7,
        last=lambda x, only: x[:, :-1],
    ),
    mistake(
        "last-only-mean",
        "last_only=True gives the mean over positions; the last position alone is wanted.",
        7,
        last=lambda x, only: x.mean(1, keepdim=True),
    ),
    mistake(
        "last-only-too-early",
        "With last_only the blocks see the last token alone. It needs what came before it: cut after the "
        "blocks, before the head.",
        7,
        ids_seen=lambda ids, past: ids[:, -1:],
        start=lambda past, t: 0,
    ),
    mistake(
        "last-only-too-early",
        "With last_only the blocks see the last token alone. It needs what came before it: cut after the "
        "blocks, before the head.",
        7,
        pre=lambda x, ln: x[:, -1:],
    ),
    *MISTAKES,
]
CACHE = [
    mistake(
        "positions-restart",
        "Positions restart at 0 in each call: tokens that follow a cache of n tokens stand at position n, "
        "n + 1, …",
        6,
        start=lambda past, t: 0,
    ),
    mistake(
        "positions-restart",
        "Positions start at cache.length only for a single new token. A piece of any size may follow.",
        6,
        general=True,
        start=lambda past, t: past if t == 1 else 0,
    ),
    mistake(
        "positions-after-append",
        "Positions are T too high: cache.length is read after the new tokens were added to it, or T is "
        "added once too often.",
        6,
        start=lambda past, t: past + t,
    ),
    mistake(
        "positions-off-by-one",
        "Positions are one too low: with n tokens in the cache (0 … n−1), the next stands at n.",
        6,
        start=lambda past, t: max(past - 1, 0),
    ),
    mistake(
        "positions-off-by-one",
        "Positions are one too high: with n tokens in the cache (0 … n−1), the next stands at n.",
        6,
        start=lambda past, t: past + 1,
    ),
    mistake(
        "positions-off-by-one",
        "Positions are one too high: with n tokens in the cache (0 … n−1), the next stands at n.",
        6,
        start=lambda past, t: past + 1 if past else 0,
    ),
    mistake(
        "positions-from-layers",
        "Positions start at the number of layers; they start at cache.length, the number of tokens.",
        6,
        start=lambda past, t: L,
    ),
    mistake(
        "positions-from-end",
        "Positions are counted from the end of the cache's room. They start at cache.length.",
        6,
        start=lambda past, t: P - t,
    ),
    mistake(
        "cache-layer-0",
        "All blocks share cache.layers[0]. Layer i's keys and values go to cache.layers[i].",
        6,
        slot=lambda i, n: 0,
    ),
    mistake(
        "cache-layers-wrong",
        "All blocks share the last layer of the cache. Layer i's keys and values go to cache.layers[i].",
        6,
        slot=lambda i, n: n - 1,
    ),
    mistake(
        "cache-reset",
        "The cache is emptied at the start of each call; what is in it is the past that the new tokens "
        "need.",
        6,
        reset=True,
    ),
    mistake(
        "cache-not-passed",
        "The cache does not reach the blocks: each must be given its own layer of it.",
        6,
        general=True,  # test_cache_is_filled looks into the cache
        cached=False,
    ),
    mistake(
        "cache-slices-input",
        "With a cache, only the last token of the input is used. The input holds the new tokens alone, one "
        "or many, and all of them count.",
        6,
        ids_seen=lambda ids, past: ids[:, -1:],
    ),
    mistake(
        "cache-slices-input",
        "With a cache, only the last token of the input is used. The input holds the new tokens alone, one "
        "or many, and all of them count.",
        6,
        ids_seen=lambda ids, past: ids[:, -1:] if past else ids,
    ),
    mistake(
        "cache-slices-input",
        "You cut off the first cache.length tokens of the input. It holds the new tokens alone.",
        6,
        ids_seen=lambda ids, past: ids[:, past:],
    ),
    *MISTAKES,
]
CACHE_PERMUTED = mistake(
    "cache-layers-wrong",
    "A block stores its keys and values in another layer of the cache: layer i's go to "
    "cache.layers[i].",
    6,
)
CACHE_WHOLE = mistake(
    "cache-layers-whole",
    "Each block is given the whole cache. It takes one layer of it: cache.layers[i].",
    6,
)
NEEDS_CACHE = mistake(
    "cache-required",
    "Without a cache (None) there is nothing to read from it: start at position 0 and give the blocks "
    "None.",
    6,
)
STATEFUL = mistake(
    "model-keeps-state",
    "The same input gives other logits after another call: the model remembers something between calls. "
    "Whatever is remembered belongs into the cache that the caller passes.",
    6,
)
LAST_ONLY_LATE = mistake(
    "last-only-after-head",
    "With last_only you project every position and throw all but one away. Cut the stream before the "
    "head: that is what last_only is for (V is GPT-2's largest dimension).",
    7,
)
NOT_VALIDATED = mistake(
    "input-not-checked",
    "The input is not checked: anything but a non-empty 2-D integer tensor is a ValueError.",
    5,
)
TOO_STRICT = mistake(
    "input-refused",
    "A right input, a (B, T) tensor of int64 ids, is refused. Look at the condition before your raise.",
    5,
)
POSITIONS_REFUSED = mistake(
    "positions-refused",
    "A right input is refused, though it fits. Either n_positions does not reach the embeddings and "
    "every block, or positions start too high (at 0 without a cache, else at cache.length).",
    6,
)
ARGUMENT_ORDER = mistake(
    "forward-arguments",
    "forward's arguments are (input_ids, cache=None, last_only=False), in this order.",
    7,
)
HEAD_DETACHED = mistake(
    "head-detached",
    "The gradient of the token embeddings lacks a part: the table is used twice, to read tokens and to "
    "predict them, and must learn from both (is something detached?).",
    3,
)
EXTRA_DROPOUT = mistake(
    "extra-dropout",
    "There is dropout where GPT-2 has none. The embeddings and the blocks bring their own; the model "
    "adds nothing.",
    7,
)
POSITIONS_WRONG = mistake(
    "positions-wrong",
    "With a cache, the new tokens get other positions than cache.length, cache.length + 1, …",
    6,
)
CACHE_LAST_ONLY = mistake(
    "cache-not-passed",
    "With last_only=True the cache is not filled with all tokens. Every block sees every token; only the "
    "head is spared.",
    7,
)
TRAIN_DIFFERS = mistake(
    "train-differs",
    "Without dropout, training mode gives something else than eval mode. forward does the same in both: "
    "only dropout, inside the pieces, asks which it is.",
    7,
)
STARTS_IN_EVAL = mistake(
    "mode-changed",
    "A new model is in eval mode. Leave the mode alone in __init__: whoever trains expects dropout.",
    4,
)
ARGMAX = mistake(
    "argmax-returned",
    "The model returns integers, such as the likeliest token's id (argmax). It must return the "
    "logits: whoever trains or samples needs all V of them.",
    7,
)
NOT_A_TENSOR = mistake(
    "not-a-tensor", "forward must return the logits alone, one tensor (B, T, V).", 7
)


# ── the oracle ──────────────────────────────────────────────────────────────────────────────────


def gpt2(
    w,
    config,
    pieces,
    last_only=False,
    *,
    placed=lambda p: p,
    embed=lambda x, n: x,
    pre=lambda x, ln: x,
    order=range,
    step=lambda f, x, e: f(x),
    after_block=lambda x, ln: x,
    last=lambda x, only: x[:, -1:] if only else x,
    final=lambda x, ln: ln(x),
    head=lambda x, w: x @ w["embeddings.wte.weight"].T,
    out=lambda z, ln, n: z,
    eps_block=lambda eps: eps,
    eps_final=lambda eps: eps,
    heads=lambda config: config.n_head,
    start=lambda past, t: past,
    ids_seen=lambda ids, past: ids,
    slot=lambda i, n: i,
    cached=None,
    reset=False,
    drop=(),
    stored=None,
):
    """GPT-2 fed with pieces of ids, one after the other: the last one's logits.

    Every step can be replaced. drop: which of "embd", "attn", "resid", "stream" are dropped
    entirely. stored: a dict that receives each layer's keys and values.
    """
    n, size = config.n_layer, w["ln_f.weight"].shape
    cached = (len(pieces) > 1 or stored is not None) if cached is None else cached
    store = {i: None for i in range(n)} if stored is None else stored
    store.update({i: None for i in range(n)})
    for ids in pieces:
        if reset:
            store.update({i: None for i in range(n)})
        past = min(0 if kv is None else kv[0].size(-2) for kv in store.values())
        ids = ids_seen(ids, past)
        first = start(past, ids.size(1))
        x = w["embeddings.wte.weight"][ids]
        positions = w["embeddings.wpe.weight"][first : first + ids.size(1)]
        both = embed(x + placed(positions), x.size(-1))
        x = x if both is None else both
        x = x * 0 if "embd" in drop else x

        def ln_f(t):
            return F.layer_norm(
                t, size, w["ln_f.weight"], w["ln_f.bias"], eps_final(config.layer_norm_epsilon)
            )

        x = first_x = pre(x, ln_f)
        for k, i in enumerate(order(n)):

            def run(t, i=i, k=k):
                return _block(
                    t,
                    {k.removeprefix(f"h.{i}."): p for k, p in w.items() if k.startswith(f"h.{i}.")},
                    heads(config),
                    eps_block(config.layer_norm_epsilon),
                    store if cached else {},
                    slot(k, n),
                    drop,
                )

            x = after_block(step(run, x, first_x), ln_f)
            x = x * 0 if "stream" in drop else x
        x = last(x, last_only)
        y = final(x, ln_f)
        y = ln_f(x + first_x) if y is None else y
        y = y * 0 if "final" in drop else y
        logits = out(head(y, w), ln_f, size[0])
    return logits


def _block(x, w, n_head, eps, store, slot, drop):
    size = x.shape[-1:]
    y = F.layer_norm(x, size, w["ln_1.weight"], w["ln_1.bias"], eps)
    qkv = F.linear(y, w["attn.c_attn.weight"], w["attn.c_attn.bias"]).chunk(3, -1)
    q, k, v = (t.unflatten(-1, (n_head, -1)).transpose(1, 2) for t in qkv)
    if slot in store:
        if store[slot] is not None:
            k, v = (torch.cat([old, new], 2) for old, new in zip(store[slot], (k, v), strict=True))
        store[slot] = (k, v)
    t, s = q.size(-2), k.size(-2)
    scores = q @ k.mT / q.size(-1) ** 0.5
    later = torch.ones(t, s, dtype=torch.bool).triu(s - t + 1)
    attention = scores.masked_fill(later, -torch.inf).softmax(-1)
    attention = attention * 0 if "attn" in drop else attention
    y = (attention @ v).transpose(1, 2).flatten(2)
    y = F.linear(y, w["attn.c_proj.weight"], w["attn.c_proj.bias"])
    x = x if "resid" in drop else x + y
    y = F.layer_norm(x, size, w["ln_2.weight"], w["ln_2.bias"], eps)
    y = F.gelu(F.linear(y, w["mlp.c_fc.weight"], w["mlp.c_fc.bias"]), approximate="tanh")
    y = F.linear(y, w["mlp.c_proj.weight"], w["mlp.c_proj.bias"])
    return x if "resid" in drop else x + y


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


def configure(**changes):
    """A small GPT2Config, the learner's or the reference's."""
    from gpt2.model import GPT2Config

    settings = {
        "vocab_size": V,
        "n_positions": P,
        "n_embd": C,
        "n_layer": L,
        "n_head": H,
        "layer_norm_epsilon": EPS,
    }
    return GPT2Config(**{**settings, **changes})


def build(piece, config):
    """GPT2Model(config); a piece that was called wrongly is told so."""
    try:
        return piece.GPT2Model(config)
    except ValueError as error:
        fail(ARGUMENTS, f"A right config is refused while the model is built: {error}")
    except TypeError as error:
        names = ("Block", "Embeddings", "LayerNorm", "__init__")
        if other_name(error) is None and any(name in str(error) for name in names):
            fail(ARGUMENTS, f"Python says: {error}")
        raise


def model_of(piece, seed=0, **changes):
    """A model in eval mode with random weights, all of them different from 0 and 1."""
    config = configure(**changes)
    return fill(build(piece, config), seed=seed).eval(), config


def ids_of(b=B, t=T, seed=0, v=V):
    return torch.randint(v, (b, t), generator=torch.Generator().manual_seed(seed))


def logits_of(model, *arguments, **keywords):
    """What the model returns, checked to be one tensor; a refused right input gets its message."""
    try:
        got = model(*arguments, **keywords)
    except ValueError as error:
        if "positions" in str(error) or "max_length" in str(error):
            fail(POSITIONS_REFUSED, f"It says: {error}")
        fail(TOO_STRICT, f"It says: {error}")
    except AttributeError as error:
        if "'NoneType' object has no attribute 'le" in str(error) or "'layers'" in str(error):
            fail(NEEDS_CACHE, f"Python says: {error}")
        raise
    if isinstance(got, (tuple, list, dict)):
        fail(NOT_A_TENSOR, f"It returns a {type(got).__name__} of {len(got)}.")
    if isinstance(got, torch.Tensor) and not got.is_floating_point():
        fail(ARGMAX, f"It returns {got.dtype} of the shape {tuple(got.shape)}.")
    return tensor(got, "what forward returns")


def examine(model, config, ids, mistakes=MISTAKES, only=False, what="the output", **given):
    """Compare one call's logits with the oracle's; given: what is passed by keyword."""
    w = weights(model)
    compare(
        lambda: logits_of(model, ids, **given),
        gpt2(w, config, [ids], only),
        mistakes,
        lambda **switches: gpt2(w, config, [ids], only, **switches),
        what=what,
        axes="B T V",
        sizes={"n_embd": config.n_embd, "n_layer": config.n_layer},
        given=(ids,),
        atol=2e-5,
    )


def state_names(n_layer):
    """state_dict's names by the contract."""
    names = ["embeddings.wte.weight", "embeddings.wpe.weight", "lm_head.weight"]
    parts = ["ln_f"]
    for i in range(n_layer):
        layers = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
        parts += [f"h.{i}.{layer}" for layer in layers]
    return names + [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]


# ── __init__ ────────────────────────────────────────────────────────────────────────────────────


@check(todo=5)
def test_attributes(piece):
    """The model has config, embeddings, h, ln_f and lm_head, under these names"""
    from gpt2.model import Embeddings, LayerNorm, TransformerBlock

    if not issubclass(piece.GPT2Model, nn.Module):
        raise CheckFailed(
            "GPT2Model must be an nn.Module: class GPT2Model(nn.Module). [not-a-module]",
            ["not-a-module"],
        )
    config = configure()
    model = build(piece, config)
    if not all(module.training for module in model.modules()):
        fail(STARTS_IN_EVAL)
    if isinstance(getattr(model, "h", None), (list, tuple)):
        fail(PLAIN_LIST)
    attribute(
        model, "config", object, "generation, the cache and problem 11 read the model's sizes there"
    )
    if model.config != config:
        fail(CONFIG_CHANGED, f"It is {model.config!r}"[:200])
    attribute(model, "embeddings", Embeddings)
    blocks = attribute(model, "h", nn.ModuleList)
    attribute(model, "ln_f", (LayerNorm, nn.LayerNorm))
    head = attribute(model, "lm_head", nn.Linear)
    for i, block in enumerate(blocks):
        if not isinstance(block, TransformerBlock):
            raise CheckFailed(
                f"h[{i}] is a {type(block).__name__}, and must be a TransformerBlock (problem 08). "
                "[wrong-attribute-type]",
                ["wrong-attribute-type"],
            )
    if len(blocks) != L:
        fail(LAYER_COUNT, f"With n_layer={L} it holds {len(blocks)}.")
    if len({id(block) for block in blocks}) < L:
        fail(SHARED)
    if head.bias is not None:
        fail(HEAD_BIAS)
    if (head.in_features, head.out_features) != (C, V):
        fail(
            HEAD_SIZES,
            f"With n_embd={C} and vocab_size={V} it is nn.Linear({head.in_features}, "
            f"{head.out_features}).",
        )


@check(todo=5, needs=test_attributes, points=2)
def test_tied(piece):
    """lm_head.weight is embeddings.wte.weight: one tensor with two names"""
    model = build(piece, configure())
    head, table = model.lm_head.weight, model.embeddings.wte.weight
    if head is not table:
        if head.data_ptr() == table.data_ptr():
            fail(SHARED_DATA)
        fail(COPIED if head.shape == table.shape and torch.equal(head, table) else UNTIED)
    names = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for same in names.values():
        if len(same) > 1 and "lm_head.weight" not in same:
            fail(SHARED_WEIGHTS, f"{' and '.join(same[:2])} are one tensor.")


@check(todo=5, needs=test_attributes)
def test_shapes(piece):
    """Every size of the config arrives at its place"""
    for config in (configure(), configure(vocab_size=31, n_positions=9, n_embd=20, n_layer=2)):
        model = build(piece, config)
        embeddings, width = model.embeddings, config.n_embd
        for name, rows in (("wte", config.vocab_size), ("wpe", config.n_positions)):
            got = tuple(getattr(embeddings, name).weight.shape)
            if got != (rows, width):
                fail(
                    ARGUMENTS,
                    f"embeddings.{name} is {got}, expected {(rows, width)} for {_sizes(config)}.",
                )
        got = tuple(model.ln_f.weight.shape)
        if got != (width,):
            fail(ARGUMENTS, f"ln_f.weight is {got}, expected {(width,)} for {_sizes(config)}.")
        for i, block in enumerate(model.h):
            for name, layer, want in (
                ("attn.c_attn", block.attn.c_attn, (3 * width, width)),
                ("mlp.c_fc", block.mlp.c_fc, (4 * width, width)),
            ):
                if tuple(layer.weight.shape) != want:
                    fail(
                        ARGUMENTS,
                        f"h[{i}].{name}.weight is {tuple(layer.weight.shape)}, expected {want} for "
                        f"{_sizes(config)}.",
                    )
            if block.attn.n_head != config.n_head:
                fail(
                    WRONG_N_HEAD,
                    f"h[{i}] has {block.attn.n_head} heads; for {_sizes(config)}.",
                )


def _sizes(config):
    names = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    return ", ".join(f"{name}={getattr(config, name)}" for name in names)


@check(todo=5, needs=test_shapes)
def test_settings(piece):
    """The epsilon and the three dropout probabilities arrive at their places"""
    embd, resid, attn = 0.11, 0.22, 0.33
    model = build(piece, configure(embd_pdrop=embd, resid_pdrop=resid, attn_pdrop=attn))
    found = [("embeddings.drop", model.embeddings.drop.p, embd, EMBD_PDROP)]
    for i, block in enumerate(model.h):
        found += [
            (f"h[{i}].attn.resid_dropout", block.attn.resid_dropout.p, resid, RESID_PDROP),
            (f"h[{i}].mlp.drop", block.mlp.drop.p, resid, RESID_PDROP),
        ]
    for name, got, want, m in found:
        if got != want:
            others = {embd, resid, attn} - {want}
            fail(
                PDROPS_SWAPPED if got in others else m,
                f"{name} has p={got}, expected {want} for embd_pdrop={embd}, resid_pdrop={resid}, "
                f"attn_pdrop={attn}.",
            )
    norms = [("ln_f", model.ln_f)]
    for i, block in enumerate(model.h):
        norms += [(f"h[{i}].ln_1", block.ln_1), (f"h[{i}].ln_2", block.ln_2)]
    for name, norm in norms:
        eps = getattr(norm, "eps", EPS)
        if eps != EPS:
            fail(EPS_NOT_PASSED, f"{name} has eps={eps}, expected layer_norm_epsilon={EPS}.")


@check(todo=5, needs=test_tied)
def test_models_are_apart(piece):
    """Two models start with different numbers, and share none"""
    expect_own_start(lambda: build(piece, configure()))


@check(todo=5, needs=test_tied)
def test_state_dict(piece):
    """state_dict() holds the checkpoint's tensors, under the contract's names"""
    for n_layer in (L, 1):
        expect_state(build(piece, configure(n_layer=n_layer)), state_names(n_layer))


@check(todo=5, needs=test_attributes, follows=test_tied)
def test_init_is_applied(piece):
    """__init__ ends with self.apply(self._init_weights): every module, children first"""
    try:
        model, calls = record_calls(piece.GPT2Model, "_init_weights", configure())
    except TypeError as error:
        raise CheckFailed(
            f"_init_weights must be called with one module: self.apply(self._init_weights). {error} "
            "[init-not-applied]",
            ["init-not-applied"],
        ) from None
    if not all(configured for _, configured in calls):
        fail(CONFIG_CHANGED, "It is not there yet when _init_weights is called.")
    seen = [module for module, _ in calls]
    if all(module is model for module in seen):
        fail(INIT_NOT_APPLIED)
    order = {id(module): n for n, module in enumerate(seen)}
    for name, module in model.named_modules():
        if id(module) not in order:
            fail(INIT_TOO_EARLY, f"It was not called for {name or 'the model itself'}.")
        for child_name, child in module.named_children():
            if order.get(id(child), -1) > order[id(module)]:
                fail(INIT_ORDER, f"{name or 'the model itself'} came before its {child_name}.")
    if not (model.embeddings.wte.weight == 1).all():
        fail(TIED_TOO_LATE)


@check(todo=5, needs=(test_tied, test_shapes))
def test_parameter_counts(piece):
    """The four sizes have 124,439,808 · 354,823,168 · 774,030,080 · 1,557,611,200 parameters"""
    sizes = (
        (124_439_808, 768, 12, 12),
        (354_823_168, 1024, 24, 16),
        (774_030_080, 1280, 36, 20),
        (1_557_611_200, 1600, 48, 25),
    )
    from gpt2.formats.checkpoints import skip_init
    from gpt2.model import GPT2Config

    for want, width, n_layer, n_head in sizes:
        # shapes without memory; drawing random numbers there would make PyTorch import its compiler
        with without_memory(skip_init):
            model = build(piece, GPT2Config(n_embd=width, n_layer=n_layer, n_head=n_head))
        got = sum(p.numel() for p in model.parameters())
        if got != want:
            tied = got - want == 50257 * width
            fail(
                f"With n_embd={width}, n_layer={n_layer} there are {got:,} parameters, expected "
                f"{want:,}: {abs(got - want):,} too {'many' if got > want else 'few'}"
                + (", the untied head." if tied else ".")
            )


# ── forward ─────────────────────────────────────────────────────────────────────────────────────


@check(todo=10, needs=(test_tied, test_shapes))
def test_worked_example(piece):
    """Three tokens by hand: blocks that add nothing, width 2, a vocabulary of four"""
    config = configure(
        vocab_size=4, n_positions=3, n_embd=2, n_layer=1, n_head=1, layer_norm_epsilon=1e-5
    )
    model = build(piece, config).eval()
    with torch.no_grad():
        for parameter in model.h.parameters():
            parameter.zero_()
        table = torch.tensor([[1.0, 0], [0, 1], [1, 1], [-1, 0]])
        model.embeddings.wte.weight.copy_(table)
        model.embeddings.wpe.weight.copy_(torch.tensor([[0.0, 0], [2, 0], [5, 0]]))
        model.ln_f.weight.copy_(torch.tensor([2.0, 2.0]))
        model.ln_f.bias.copy_(torch.tensor([0.0, 1.0]))
    # token 1 at position 0: (0, 1) + (0, 0); its norm is (−1, 1), times 2 plus (0, 1): (−2, 3)
    # token 0 at position 1: (1, 0) + (2, 0) = (3, 0); its norm is (1, −1), so: (2, −1)
    # token 2 at position 2: (1, 1) + (5, 0) = (6, 1); its norm is (1, −1), so: (2, −1) again
    # a logit is the dot product with a row of the table: (1, 0), (0, 1), (1, 1), (−1, 0)
    want = torch.tensor([[[-2.0, 3, 1, 2], [2.0, -1, 1, -2], [2.0, -1, 1, -2]]])
    ids, w = torch.tensor([[1, 0, 2]]), weights(model)
    expect_also_larger(
        lambda: compare(
            lambda: logits_of(model, ids),
            want,
            MISTAKES,
            lambda **switches: gpt2(w, config, [ids], **switches),
            what="the output",
            axes="B T V",
            atol=1e-3,
        ),
        lambda: examine(*model_of(piece), ids_of()),
    )


@check(
    todo=10, needs=(test_tied, test_shapes), points=3, follows=(test_settings, test_worked_example)
)
def test_logits(piece):
    """The logits equal GPT-2's, written out in plain PyTorch with the same weights"""
    model, config = model_of(piece)
    examine(model, config, ids_of())


@check(todo=10, needs=test_logits)
def test_other_sizes(piece):
    """Other shapes: one token, one sequence, as many tokens as positions, other configs"""
    model, config = model_of(piece)
    for b, t in ((1, 1), (B, 1), (1, T), (2, P)):
        examine(model, config, ids_of(b, t, seed=t))
    model, config = model_of(
        piece, vocab_size=9, n_positions=25, n_embd=20, n_layer=1, n_head=4, layer_norm_epsilon=0.2
    )
    examine(model, config, ids_of(3, 25, v=9))
    model, config = model_of(piece, n_layer=5, n_head=3, layer_norm_epsilon=1e-5)
    examine(model, config, ids_of(3, 6))


@check(todo=10, needs=test_logits)
def test_too_many_positions(piece):
    """ValueError when there are more tokens than n_positions"""
    model, _ = model_of(piece)
    ids = ids_of(2, P + 1)
    expect_error(lambda: model(ids), [P], when=f"{P + 1} tokens meet n_positions={P}")


@check(todo=10, needs=test_logits, points=2)
def test_last_only(piece):
    """last_only=True gives the last position's logits alone, (B, 1, V)"""
    model, config = model_of(piece)
    what = "the output with last_only=True"
    for b, t in ((B, T), (2, 1)):
        examine(model, config, ids_of(b, t), LAST_ONLY, True, what, last_only=True)
    ids = ids_of()
    examine(model, config, ids, last_only=False)
    try:
        same = torch.equal(model(ids, None, True), model(input_ids=ids, cache=None, last_only=True))
    except (AttributeError, TypeError, RuntimeError) as error:
        fail(ARGUMENT_ORDER, f"Python says: {error}")
    if not same:
        fail(ARGUMENT_ORDER)


@check(todo=10, needs=test_last_only)
def test_last_only_saves_work(piece):
    """With last_only, only the last position is projected to the vocabulary"""
    model, _ = model_of(piece)
    with operations() as seen:
        model(ids_of(), last_only=True)
    # products alone: an embedding table may be read by one-hot rows, as wide as the vocabulary
    projected = [
        math.prod(shape[:-1])
        for name, shape in seen
        if name.startswith(PRODUCTS) and len(shape) > 1 and shape[-1] == V
    ]
    if B * T in projected:
        fail(LAST_ONLY_LATE, f"For {B} sequences, {B * T} rows of logits were computed.")


@check(todo=10, needs=test_logits, points=2)
def test_input_is_checked(piece):
    """ValueError for input that is not a 2-D integer tensor, or is empty; it says what it got"""
    model, _ = model_of(piece)
    cases = (
        ("input_ids is 1-D, of shape (7,)", ids_of(1, 7)[0], ("1", "7", "one")),
        ("input_ids is 3-D, of shape (6, 3, 9)", ids_of(6, 27).view(6, 3, 9), ("3", "6", "three")),
        ("input_ids is a single number", torch.tensor(3), ("0", "()", "[]", "scalar")),
        ("input_ids holds floats", ids_of().float(), ("float", "Float")),
        ("input_ids holds bools", ids_of() > 9, ()),  # PyTorch's own error will do
        ("input_ids is empty, of shape (4, 0)", ids_of()[:, :0], ("0", "empty", "Empty")),
        ("input_ids is empty, of shape (0, 5)", ids_of()[:0], ("0", "empty", "Empty")),
        ("input_ids is a list", ids_of().tolist(), ("list",)),
    )
    for when, bad, says_one_of in cases:
        try:
            model(bad)
        except ValueError as error:
            if says_one_of and not any(word in str(error) for word in says_one_of):
                raise CheckFailed(
                    f"The ValueError when {when} must say what it got (its shape, dtype or type). It "
                    f"says: {str(error)!r}. [unhelpful-error]",
                    ["unhelpful-error"],
                ) from None
        except NotImplementedError:
            raise
        except Exception as error:
            if not says_one_of:
                continue
            fail(NOT_VALIDATED, f"When {when}, {type(error).__name__} is raised: {error}"[:200])
        else:
            fail(NOT_VALIDATED, f"Nothing is raised when {when}.")


@check(todo=10, needs=test_logits, points=2)
def test_cache_is_filled(piece):
    """Layer i appends its keys and values to cache.layers[i]"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    ids, w, t = ids_of(t=4), weights(model), 4
    cache = KVCache(config, batch_size=B)
    got = _with_cache(model, ids, cache)
    lengths = [layer.length for layer in cache.layers]
    if lengths != [t] * L:
        found = f"After {t} tokens, the {L} layers hold {', '.join(map(str, lengths))} tokens."
        by_id = {m.id: m for m in CACHE}
        if not any(lengths):
            fail(by_id["cache-not-passed"], found)
        if lengths == [L * t] + [0] * (L - 1):
            fail(by_id["cache-layer-0"], found)
        fail(CACHE_PERMUTED, found)
    stored = {}
    gpt2(w, config, [ids], stored=stored)
    for i, layer in enumerate(cache.layers):
        mine = layer.keys[:, :, :t]
        fits = [j for j in range(L) if torch.allclose(mine, stored[j][0], rtol=1e-3, atol=1e-4)]
        if fits and i not in fits:
            fail(CACHE_PERMUTED, f"cache.layers[{i}] holds the keys of layer {fits[0]}.")
    compare(
        got,
        gpt2(w, config, [ids]),
        CACHE,
        lambda **switches: gpt2(w, config, [ids], stored={}, **switches),
        what="the output with an empty cache",
        axes="B T V",
        atol=5e-5,
    )


def _with_cache(model, ids, cache, **keywords):
    """The model's logits with a cache; the error of a cache passed whole gets its message."""
    try:
        return logits_of(model, ids, cache=cache, **keywords)
    except (AttributeError, TypeError) as error:
        text = str(error)
        if "append" in text and ("KVCache" in text or "list" in text):
            fail(CACHE_WHOLE, f"Python says: {type(error).__name__}: {text}")
        raise


@check(todo=10, needs=test_cache_is_filled)
def test_stateless(piece):
    """The model itself remembers nothing: the same input gives the same logits"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    ids = ids_of(t=4)
    want = logits_of(model, ids)
    cache = KVCache(config, batch_size=B)
    _with_cache(model, ids_of(seed=1), cache)
    if not torch.allclose(logits_of(model, ids), want, atol=1e-5):
        fail(STATEFUL)
    other = KVCache(config, batch_size=B)
    if not torch.allclose(_with_cache(model, ids, other), want, atol=1e-4):
        fail(STATEFUL)


@check(todo=10, needs=test_cache_is_filled, points=2, follows=test_stateless)
def test_cache_continues(piece):
    """With a cache, a second piece continues where the first ended, positions included"""
    from gpt2.cache import KVCache

    model, config = model_of(piece)
    w = weights(model)
    for cut, end in ((4, 7), (3, 4), (1, 4), (2, 8)):
        ids = ids_of(t=end, seed=end)
        pieces = [ids[:, :cut], ids[:, cut:]]

        def run(pieces=pieces):
            cache = KVCache(config, batch_size=B)
            _with_cache(model, pieces[0], cache)
            return _with_cache(model, pieces[1], cache)

        try:
            compare(
                run,
                gpt2(w, config, [ids])[:, cut:],
                CACHE,
                lambda pieces=pieces, **switches: gpt2(w, config, pieces, **switches),
                what=f"the output for {end - cut} new tokens after {cut} in the cache",
                axes="B T V",
                atol=5e-5,
            )
        except CheckFailed as failed:
            if not failed.mistakes:
                _name_positions(w, config, pieces, run())
            raise


def _name_positions(w, config, pieces, got):
    """Fail when some other positions of the second piece explain what the model gives."""
    cut = pieces[0].size(1)
    for first in range(P - pieces[1].size(1) + 1):
        if torch.allclose(
            gpt2(w, config, pieces, start=lambda past, t, first=first: first if past else 0),
            got,
            rtol=1e-4,
            atol=5e-5,
        ):
            fail(
                POSITIONS_WRONG,
                f"The token after {cut} in the cache gets position {first}, expected {cut}.",
            )


@check(todo=10, needs=(test_cache_continues, test_last_only))
def test_cache_every_cut(piece):
    """A sequence cut into pieces in every way gives what it gives at once"""
    from gpt2.cache import KVCache

    model, config = model_of(piece, n_layer=2)
    ids = ids_of(2, T, seed=5)
    w = weights(model)
    want = gpt2(w, config, [ids])
    cache = KVCache(config, batch_size=2)
    with torch.no_grad():
        for size in (T - 1, 1):
            _with_cache(model, ids[:, :size], cache, last_only=True)
        lengths = [layer.length for layer in cache.layers]
        if lengths != [T] * 2:
            fail(CACHE_LAST_ONLY, f"After {T} tokens in two calls its layers hold {lengths}.")
        for cuts in itertools.product((False, True), repeat=T - 1):
            cache.reset()
            ends = [i + 1 for i, cut in enumerate(cuts) if cut] + [T]
            begins = [0, *ends[:-1]]
            pairs = list(zip(begins, ends, strict=True))
            got = [_with_cache(model, ids[:, a:b], cache) for a, b in pairs]
            sizes = "+".join(str(b - a) for a, b in pairs)
            compare(
                torch.cat(got, 1),
                want,
                what=f"the output for {T} tokens fed as {sizes}",
                axes="B T V",
                atol=5e-5,
            )
            cache.reset()
            for a, b in pairs:
                got = _with_cache(model, ids[:, a:b], cache, last_only=True)
                compare(
                    got,
                    want[:, b - 1 : b],
                    LAST_ONLY,
                    lambda a=a, b=b, **switches: gpt2(
                        w,
                        config,
                        [p for p in (ids[:, :a], ids[:, a:b]) if p.numel()],
                        True,
                        **switches,
                    ),
                    what=f"the output with last_only and a cache, fed as {sizes},",
                    axes="B T V",
                    atol=5e-5,
                )


@check(
    todo=10,
    needs=(test_cache_continues, test_last_only),
    follows=test_cache_every_cut,
)
def test_same_in_training(piece):
    """Without dropout, training mode gives the same; forward switches no mode and sets no seed"""
    from gpt2.cache import KVCache

    model, config = model_of(piece, embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
    ids = ids_of()

    def two_pieces(**keywords):
        cache = KVCache(config, batch_size=B)
        _with_cache(model, ids[:, :2], cache, **keywords)
        got = _with_cache(model, ids[:, 2:], cache, **keywords)
        if cache.length != T:
            fail(TRAIN_DIFFERS, f"After {T} tokens in two calls the cache holds {cache.length}.")
        return got

    for name, run in (
        ("A plain call", lambda: logits_of(model, ids)),
        ("With last_only=True, it", lambda: logits_of(model, ids, last_only=True)),
        ("With a cache, it", two_pieces),
        ("With a cache and last_only=True, it", lambda: two_pieces(last_only=True)),
    ):
        expect_mode_kept(model, run)
        expect_no_seed(run)
        want, got = run(), (model.train(), run())[1]
        random = not torch.equal(run(), got)
        model.eval()
        if not random and (got.shape != want.shape or not torch.allclose(got, want, atol=1e-4)):
            shapes = f"{tuple(want.shape)} in eval, {tuple(got.shape)} in training mode"
            fail(TRAIN_DIFFERS, f"{name} gives other numbers (or another shape): {shapes}.")


@check(todo=10, needs=test_logits, follows=test_settings)
def test_dropout_probabilities(piece):
    """With one of the three dropout probabilities at 1, its branch vanishes in training"""
    names = ("embd", "resid", "attn")
    for name in names:
        settings = {f"{other}_pdrop": float(other == name) for other in names}
        model, config = model_of(piece, **settings)
        w, ids = weights(model), ids_of()
        model.train()
        first, second = logits_of(model, ids), logits_of(model, ids)
        if not torch.equal(first, second):
            with torch.no_grad():
                for block in model.h:
                    block.attn.c_proj.weight.zero_()  # what attention finds goes no further
            from_attention = torch.equal(logits_of(model, ids), logits_of(model, ids))
            fail(
                ATTN_PDROP if from_attention else EXTRA_DROPOUT,
                f"With {name}_pdrop=1 and the others 0, the logits in training are random.",
            )
        swapped = [
            mistake(PDROPS_SWAPPED.id, PDROPS_SWAPPED.says, 1, drop=drop)
            for drop in (("embd",), ("resid",), ("attn",), ("embd", "attn"), ("embd", "resid"))
        ]
        missing = {"embd": EMBD_PDROP, "resid": RESID_PDROP, "attn": ATTN_PDROP}[name]
        extra = [
            mistake(EXTRA_DROPOUT.id, EXTRA_DROPOUT.says, 7, drop=(name, "stream")),
            mistake(EXTRA_DROPOUT.id, EXTRA_DROPOUT.says, 7, drop=(name, "final")),
            mistake(EXTRA_DROPOUT.id, EXTRA_DROPOUT.says, 7, out=lambda z, ln, n: z * 0),
        ]
        compare(
            first,
            gpt2(w, config, [ids], drop=(name,)),
            [mistake(missing.id, missing.says, missing.hint, drop=()), *swapped, *extra],
            lambda drop=(name,), w=w, config=config, ids=ids, **switches: gpt2(
                w, config, [ids], drop=drop, **switches
            ),
            what=f"in training, with {name}_pdrop=1 and the others 0, the output",
            axes="B T V",
        )


@check(todo=10, needs=test_dropout_probabilities, follows=test_settings)
def test_no_other_dropout(piece):
    """Without dropout, training and eval mode agree; the embeddings are dropped once"""
    off = {"resid_pdrop": 0.0, "attn_pdrop": 0.0}
    model, _ = model_of(piece, embd_pdrop=0.0, **off)
    ids = ids_of(t=9)
    want = logits_of(model, ids)
    if not torch.equal(logits_of(model.train(), ids), want):
        fail(EXTRA_DROPOUT, "With all three probabilities 0, training and eval mode differ.")
    p, width = 0.4, 96
    config = configure(
        vocab_size=width, n_positions=16, n_embd=width, n_layer=1, embd_pdrop=p, **off
    )
    model = build(piece, config).train()
    with torch.no_grad():
        for parameter in model.h.parameters():
            parameter.zero_()  # the block adds nothing
        model.ln_f.weight.fill_(1.0)
        model.ln_f.bias.zero_()
        fill(model.embeddings)
        table = torch.linalg.qr(model.embeddings.wte.weight)[0]  # so that logits @ table is ln_f(x)
        model.embeddings.wte.weight.copy_(table)
        rows = (logits_of(model, ids_of(8, 16, v=width)) @ table).flatten(0, 1)
    # in each row, dropped numbers are equal to each other, and no others are
    values = rows.mul(1e3).round().mode(-1, keepdim=True).values
    share = float((rows.mul(1e3).round() - values).abs().le(1).double().mean())
    if abs(share - p) > 0.06:
        fail(
            EXTRA_DROPOUT,
            f"With embd_pdrop={p}, {share:.0%} of the stream is 0 in training, expected {p:.0%}"
            + (": the embeddings are dropped twice." if share > p else "."),
        )


@check(todo=10, needs=test_logits)
def test_gradients(piece):
    """Gradients reach every parameter; wte gets both its shares, from reading and predicting"""
    model, config = model_of(piece)
    ids = torch.arange(V)[None, : P - 1]
    expect_finite_gradients(model, logits_of(model, torch.arange(P)[None]).pow(2).sum())
    model.zero_grad()
    F.cross_entropy(logits_of(model, ids).flatten(0, 1), ids_of(1, P - 1)[0]).backward()
    mine = model.embeddings.wte.weight.grad
    w = {name: p.requires_grad_() for name, p in weights(model).items()}
    logits = gpt2(w, config, [ids])
    F.cross_entropy(logits.flatten(0, 1), ids_of(1, P - 1)[0]).backward()
    if not torch.allclose(mine, w["embeddings.wte.weight"].grad, rtol=1e-3, atol=1e-5):
        fail(HEAD_DETACHED)


@check(todo=10, needs=test_logits, follows=(test_cache_is_filled, test_stateless))
def test_copies_and_dtypes(piece):
    """A deep copy and a save/load round trip keep logits and tie; bfloat16 and GPU work"""
    import copy

    model, config = model_of(piece)
    ids = ids_of()
    expect_copies(model, lambda m: m(ids))
    twin = copy.deepcopy(model)
    if twin.lm_head.weight is not twin.embeddings.wte.weight:
        fail(UNTIED, "After copy.deepcopy the two are no longer one tensor.")
    if not torch.isfinite(logits_of(twin.to(torch.bfloat16), ids)).all():
        fail("In bfloat16 the logits are not finite.")
    if torch.cuda.is_available():
        got = logits_of(copy.deepcopy(model).cuda(), ids.cuda()).cpu()
        compare(got, gpt2(weights(model), config, [ids]), what="on the GPU, the output", rtol=1e-2)


@check(todo=10, needs=test_logits)
def test_inputs_untouched(piece):
    """The ids are left as they were"""
    model, _ = model_of(piece)
    expect_no_edit(lambda ids: model(ids), ids_of(), "input_ids")
