"""The known mistakes of problem 10, by the step that they replace (see `textbook`)."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.textbook import gelu, same

KNOWN = Catalog()


def dropping(*names):
    """Steps that drop all of these, and nothing of the others: "embd", "attn", "resid"."""
    return {
        f"drop_{name}": torch.zeros_like if name in names else same
        for name in ("embd", "attn", "resid")
    }


forward = KNOWN.section("forward", hint=7)
forward(
    "no-final-norm",
    "ln_f has no effect on the logits. Pre-norm blocks leave the stream unnormalized, so one last norm comes before the head, and the head reads its result.",
    hint=2,
    final=lambda x, ln, e: x,
)
forward(
    "final-norm-before-blocks",
    "ln_f comes before the blocks. It belongs after the last one, just before the head.",
    way(pre_blocks=lambda x, ln: ln(x), final=lambda x, ln, e: x),
    way(
        says="ln_f is applied to the embeddings, too. It belongs after the last block alone.",
        pre_blocks=lambda x, ln: ln(x),
    ),
    hint=2,
)
forward(
    "final-norm-in-loop",
    "ln_f is applied after every block. Only the head reads a normalized stream; the blocks have norms of their own.",
    way(after_block=lambda x, ln: ln(x), final=lambda x, ln, e: x),
    way(
        says=(
            "ln_f is applied after every block and once more at the end. Once, after the last, is enough."
        ),
        after_block=lambda x, ln: ln(x),
    ),
    hint=2,
)
forward("final-norm-twice", "ln_f is applied twice.", hint=2, final=lambda x, ln, e: ln(ln(x)))
forward(
    "final-norm-residual",
    "ln_f's result is added to the stream. It replaces it: the head reads ln_f(x) alone.",
    hint=2,
    final=lambda x, ln, e: x + ln(x),
)
forward(
    "final-norm-without-affine",
    "The last norm leaves out ln_f's weight and bias: call self.ln_f.",
    hint=2,
    head=lambda x, w: ((x - w["ln_f.bias"]) / w["ln_f.weight"]) @ w["embeddings.wte.weight"].T,
)
forward(
    "final-norm-after-head",
    "ln_f comes after the head. It normalizes the stream of width n_embd, before the head.",
    hint=2,
    final=lambda x, ln, e: x,
    logits=lambda z, ln, n: ln(z),
)
forward(
    "no-head",
    "What comes out is the stream, of width n_embd. The last step is lm_head, which gives a number per token of the vocabulary.",
    head=lambda x, w: x,
)
forward(
    "head-not-transposed",
    "The head's matrix lies the wrong way round: a logit is the dot product of the stream with a row of wte, x @ wteᵀ, which is what lm_head computes.",
    head=lambda x, w: x @ w["embeddings.wte.weight"],
)
forward(
    "head-is-wpe",
    "The logits are computed with the position embeddings; the head is tied to wte, the tokens'.",
    head=lambda x, w: x @ w["embeddings.wpe.weight"].T,
)
forward(
    "softmax-on-logits",
    "The model returns probabilities. It must return the logits: cross-entropy and sampling apply the softmax themselves.",
    way(logits=lambda z, ln, n: z.softmax(-1)),
    way(
        says=(
            "The model returns log-probabilities (log_softmax). It must return the logits themselves."
        ),
        logits=lambda z, ln, n: z.log_softmax(-1),
    ),
    way(
        says=(
            "The model returns a softmax over positions; it must return logits, with no softmax at all."
        ),
        logits=lambda z, ln, n: z.softmax(1),
    ),
)
forward(
    "logits-scaled",
    "The logits are divided by √n_embd. GPT-2's head does not scale them.",
    way(logits=lambda z, ln, n: z * n**-0.5),
    way(
        says="The logits are multiplied by √n_embd. GPT-2's head does not scale them.",
        logits=lambda z, ln, n: z * n**0.5,
    ),
)
forward(
    "logits-argmax",
    "The model returns the most likely token. It must return the logits, one number per token of the vocabulary.",
    logits=lambda z, ln, n: z.argmax(-1),
)
forward(
    "embeddings-scaled",
    "The embeddings are multiplied by √n_embd, as in the first Transformer. GPT-2 does not do that.",
    hint=6,
    embedded=lambda x, wte: x * x.size(-1) ** 0.5,
)
forward(
    "no-positions",
    "Only the tokens are embedded, without their positions. Call self.embeddings.",
    hint=6,
    combine=lambda t, p: t,
)
forward(
    "positions-all-the-same",
    "Every token gets the position of the first one. Each has its own: give self.embeddings all ids in one call.",
    hint=6,
    combine=lambda t, p: t + p[:1],
)
forward(
    "blocks-skipped",
    "The stream does not pass through the blocks at all.",
    way(blocks=lambda n: []),
    way(
        says="The last block is left out: the stream must pass through all n_layer of them.",
        blocks=lambda n: range(n - 1),
    ),
    way(
        says="The first block is left out: the stream must pass through all n_layer of them.",
        blocks=lambda n: range(1, n),
    ),
    way(
        says="Only the first block is used: the stream must pass through all n_layer of them.",
        blocks=lambda n: [0],
    ),
    way(
        says="Only the last block has an effect: each must read what the one before it gave.",
        blocks=lambda n: [n - 1],
    ),
    hint=6,
)
forward(
    "block-repeated",
    "The first block is used for every layer. Layer i is self.h[i].",
    way(blocks=lambda n: [0] * n),
    way(
        says="The last block is used for every layer. Layer i is self.h[i].",
        blocks=lambda n: [n - 1] * n,
    ),
    hint=6,
)
forward(
    "blocks-reversed",
    "The blocks are passed in reverse order. The stream goes from h[0] to the last.",
    hint=6,
    blocks=lambda n: reversed(range(n)),
)
forward(
    "blocks-twice",
    "The stream passes through every block twice.",
    way(blocks=lambda n: [i for i in range(n) for _ in range(2)]),
    way(says="The stream passes through the first block twice.", blocks=lambda n: [0, *range(n)]),
    way(
        says="The stream passes through the last block twice.", blocks=lambda n: [*range(n), n - 1]
    ),
    way(
        says="The stream passes through all the blocks twice.",
        blocks=lambda n: [*range(n), *range(n)],
    ),
    hint=6,
)
forward(
    "residual-doubled",
    "You add a block's input to its output. The block has done that inside: x = block(x).",
    hint=6,
    step=lambda f, x, e: x + f(x),
)
forward(
    "embeddings-added-again",
    "The embeddings are added to the stream after each block. They are in it since the start.",
    way(step=lambda f, x, e: f(x) + e),
    way(
        says="The embeddings are added to the stream once more after the blocks.",
        final=lambda x, ln, e: ln(x + e),
    ),
    hint=6,
)
forward(
    "activation-at-the-end",
    "An activation function acts on the logits. They may be any number: leave them as they are.",
    way(logits=lambda z, ln, n: z.relu()),
    way(
        says="An activation function stands between ln_f and the head. GPT-2 has none there.",
        final=lambda x, ln, e: F.gelu(ln(x)),
    ),
    way(
        says="An activation function stands between ln_f and the head. GPT-2 has none there.",
        final=lambda x, ln, e: gelu(ln(x)),
    ),
    way(
        says="An activation function stands between ln_f and the head. GPT-2 has none there.",
        final=lambda x, ln, e: ln(x).relu(),
    ),
    way(
        says="An activation function stands between ln_f and the head. GPT-2 has none there.",
        final=lambda x, ln, e: ln(x).tanh(),
    ),
)
forward(
    "last-only-always",
    "Without last_only=True the logits of every position are wanted, not the last one's alone.",
    cut=lambda x, only: x[:, -1:],
)
forward(
    "last-only-inverted",
    "last_only is the wrong way round: False gives all positions, True the last alone.",
    general=True,  # a call with the other value would tell; the others say what is seen
    cut=lambda x, only: x if only else x[:, -1:],
)
forward(
    "logits-shifted",
    "The logits of one position are missing: there is one row of V numbers for each of the T tokens. Shifting is the loss's business.",
    way(logits=lambda z, ln, n: z[:, :-1]),
    way(logits=lambda z, ln, n: z[:, 1:]),
)

last_only = KNOWN.section("last-only", hint=7)
last_only(
    "last-only-ignored",
    "last_only=True has no effect: it must give (B, 1, V), the last position's logits alone.",
    cut=lambda x, only: x,
)
last_only(
    "last-only-shape",
    "last_only=True gives (B, V). The axis of positions stays, with size 1: x[:, -1:] keeps it, x[:, -1] does not.",
    cut=lambda x, only: x[:, -1],
)
last_only(
    "last-only-first",
    "last_only=True gives the first position's logits; the last one's are wanted.",
    cut=lambda x, only: x[:, :1],
)
last_only(
    "last-only-wrong-axis",
    "last_only=True cuts the batch, axis 0. Positions are axis 1.",
    way(cut=lambda x, only: x[-1:]),
    way(
        says=(
            "last_only=True cuts the vocabulary or the width, the last axis. Positions are axis 1."
        ),
        logits=lambda z, ln, n: z[..., -1:],
        cut=lambda x, only: x,
    ),
)
last_only(
    "last-only-off-by-one",
    "last_only=True leaves out the last position, or gives the one before it.",
    way(cut=lambda x, only: x[:, -2:-1]),
    way(
        says=(
            "last_only=True drops the last position instead of keeping it alone: x[:, -1:], not x[:, :-1]."
        ),
        cut=lambda x, only: x[:, :-1],
    ),
)
last_only(
    "last-only-mean",
    "last_only=True gives the mean over positions; the last position alone is wanted.",
    cut=lambda x, only: x.mean(1, keepdim=True),
)
last_only(
    "last-only-too-early",
    "With last_only the blocks see the last token alone. It needs what came before it: cut after the blocks, before the head.",
    way(ids_seen=lambda ids, past: ids[:, -1:], start=lambda past, t, config: 0),
    way(pre_blocks=lambda x, ln: x[:, -1:]),
)

cache = KNOWN.section("cache", hint=6)
cache(
    "positions-restart",
    "Positions restart at 0 in each call: tokens that follow a cache of n tokens stand at position n, n + 1, …",
    way(start=lambda past, t, config: 0),
    way(
        says=(
            "Positions start at cache.length only for a single new token. A piece of any size may follow."
        ),
        general=True,
        start=lambda past, t, config: past if t == 1 else 0,
    ),
)
cache(
    "positions-after-append",
    "Positions are T too high: cache.length is read after the new tokens were added to it, or T is added once too often.",
    start=lambda past, t, config: past + t,
)
cache(
    "positions-off-by-one",
    "Positions are one too low: with n tokens in the cache (0 … n−1), the next stands at n.",
    way(start=lambda past, t, config: max(past - 1, 0)),
    way(
        says=(
            "Positions are one too high: with n tokens in the cache (0 … n−1), the next stands at n."
        ),
        start=lambda past, t, config: past + 1,
    ),
    way(
        says=(
            "Positions are one too high: with n tokens in the cache (0 … n−1), the next stands at n."
        ),
        start=lambda past, t, config: past + 1 if past else 0,
    ),
)
cache(
    "positions-from-layers",
    "Positions start at the number of layers; they start at cache.length, the number of tokens.",
    start=lambda past, t, config: config.n_layer,
)
cache(
    "positions-from-end",
    "Positions are counted from the end of the cache's room. They start at cache.length.",
    start=lambda past, t, config: config.n_positions - t,
)
cache(
    "cache-layer-0",
    "All blocks share cache.layers[0]. Layer i's keys and values go to cache.layers[i].",
    slot=lambda i, n: 0,
)
cache(
    "cache-layers-wrong",
    "All blocks share the last layer of the cache. Layer i's keys and values go to cache.layers[i].",
    way(slot=lambda i, n: n - 1),
    way(
        "cache-permuted",
        says="A block stores its keys and values in another layer of the cache: layer i's go to cache.layers[i].",
        family="",
    ),
)
cache(
    "cache-reset",
    "The cache is emptied at the start of each call; what is in it is the past that the new tokens need.",
    reset=True,
)
cache(
    "cache-not-passed",
    "The cache does not reach the blocks: each must be given its own layer of it.",
    way(general=True, cached=False),  # test_cache_is_filled looks into the cache
    way(
        "cache-last-only",
        says="With last_only=True the cache is not filled with all tokens. Every block sees every token; only the head is spared.",
        hint=7,
        family="",
    ),
)
cache(
    "cache-slices-input",
    "With a cache, only the last token of the input is used. The input holds the new tokens alone, one or many, and all of them count.",
    way(ids_seen=lambda ids, past: ids[:, -1:]),
    way(ids_seen=lambda ids, past: ids[:, -1:] if past else ids),
    way(
        says=(
            "You cut off the first cache.length tokens of the input. It holds the new tokens alone."
        ),
        ids_seen=lambda ids, past: ids[:, past:],
    ),
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "arguments-swapped",
    "A setting of the config arrives at the wrong place. Compare your call with the order of the piece's arguments, or pass them by name.",
)
hint_1(
    "attn-pdrop-not-passed",
    "config.attn_pdrop is the dropout of the attention weights (the block's `attn_dropout`); it does not arrive there.",
    way("nowhere", **dropping()),
)
hint_1(
    "config-not-kept",
    "model.config must be the config it was built from: saving, caching and generating read the sizes there.",
)
hint_1(
    "embd-pdrop-not-passed",
    "config.embd_pdrop is the dropout of the embeddings; another probability arrives there.",
    way("nowhere", **dropping()),
)
hint_1(
    "n-head-not-passed",
    "Each block must have config.n_head heads; another number arrives.",
    way(family="forward", heads=lambda config: config.n_layer),
    way(family="forward", heads=lambda config: 1),
)
hint_1(
    "pdrops-swapped",
    "The config's dropout probabilities are mixed up: embd_pdrop is for the embeddings, resid_pdrop the block's `dropout`, attn_pdrop its `attn_dropout`.",
    *(
        way(family="pdrops", **dropping(*names))
        for names in (("embd",), ("resid",), ("attn",), ("embd", "attn"), ("embd", "resid"))
    ),
)
hint_1(
    "plain-list",
    "`h` is a plain Python list. PyTorch finds no parameters in it: they would be neither trained, saved nor moved. Wrap it in nn.ModuleList.",
)
hint_1(
    "resid-pdrop-not-passed",
    "config.resid_pdrop is the dropout of what each sublayer adds to the stream (the block's `dropout`); another probability arrives there.",
    way("nowhere", **dropping()),
)
hint_1(
    "shared-blocks",
    "All entries of `h` are one and the same block, so there is one set of weights for all layers. Make a new TransformerBlock for each layer ([block] * n repeats the object).",
)
hint_1(
    "shared-weights",
    "Two modules share a weight. Only the head and the token embedding do in GPT-2; everything else has weights of its own.",
)
hint_1("wrong-layer-count", "`h` must hold exactly config.n_layer blocks: index 0 to n_layer − 1.")

hint_2 = KNOWN.section(hint=2)
hint_2(
    "eps-not-passed",
    "config.layer_norm_epsilon does not reach every norm: the blocks' two and ln_f.",
    way(
        says="The blocks' norms do not use config.layer_norm_epsilon.",
        family="forward",
        eps_block=lambda eps: 1e-5,
    ),
    way(
        says="ln_f does not use config.layer_norm_epsilon.",
        family="forward",
        eps_final=lambda eps: 1e-5,
    ),
)

hint_3 = KNOWN.section(hint=3)
hint_3(
    "copied-head",
    "lm_head.weight is a copy of embeddings.wte.weight: equal now, and different after the first training step. Assign the parameter itself, without clone, copy_ or a new nn.Parameter.",
)
hint_3(
    "head-bias",
    "lm_head has a bias; GPT-2's head has none (bias=False): a checkpoint holds no such tensor.",
)
hint_3(
    "head-detached",
    "The gradient of the token embeddings lacks a part: the table is used twice, to read tokens and to predict them, and must learn from both (is something detached?).",
)
hint_3(
    "head-sizes-swapped",
    "lm_head must be nn.Linear(n_embd, vocab_size): from the stream's width to one number per token.",
)
hint_3(
    "shared-data-only",
    "lm_head.weight shares its memory with embeddings.wte.weight and is still another parameter: its gradients are kept apart and it is counted twice. Assign the parameter itself.",
)
hint_3(
    "untied-head",
    "The head is not tied: lm_head.weight and embeddings.wte.weight are two tensors. Make one the other (assign the parameter itself).",
)

hint_4 = KNOWN.section(hint=4)
hint_4(
    "init-not-applied",
    "_init_weights is never called: __init__ must end with self.apply(self._init_weights), or problem 11 has nothing to hook into.",
)
hint_4(
    "init-order",
    "_init_weights is called for a module before its children. Problem 11 relies on the order of self.apply(…): children first.",
)
hint_4(
    "init-too-early",
    "_init_weights is not called for every module: apply reaches only what is there when it is called. It must be the last line of __init__.",
)
hint_4(
    "mode-changed",
    "A new model is in eval mode. Leave the mode alone in __init__: a training loop expects dropout.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "input-not-checked",
    "The input is not checked: anything but a non-empty 2-D integer tensor is a ValueError.",
)
hint_5(
    "input-refused",
    "A right input, a (B, T) tensor of int64 ids, is refused. Look at the condition before your raise.",
)
hint_5(
    "tied-too-late",
    "The embedding table that _init_weights has set is thrown away: after self.apply, the head's weight is put in its place. Tie the two before self.apply(self._init_weights), which comes last.",
)

hint_6 = KNOWN.section(hint=6)
hint_6(
    "cache-layers-whole",
    "Each block is given the whole cache. It takes one layer of it: cache.layers[i].",
)
hint_6(
    "cache-required",
    "Without a cache (None) there is nothing to read from it: start at position 0 and give the blocks None.",
)
hint_6(
    "model-keeps-state",
    "The same input gives other logits after another call: the model remembers something between calls. Whatever is remembered belongs into the cache that the caller passes.",
)
hint_6(
    "positions-refused",
    "A right input is refused, though it fits. Either n_positions does not reach the embeddings and every block, or positions start too high (at 0 without a cache, else at cache.length).",
)
hint_6(
    "positions-wrong",
    "With a cache, the new tokens get other positions than cache.length, cache.length + 1, …",
)

hint_7 = KNOWN.section(hint=7)
hint_7(
    "argmax-returned",
    "The model returns integers, such as the likeliest token's id (argmax). It must return the logits: training and sampling need all V of them.",
)
hint_7(
    "extra-dropout",
    "There is dropout where GPT-2 has none. The embeddings and the blocks bring their own; the model adds nothing.",
    way(family="extra", after_block=lambda x, ln: x * 0),
    way(family="extra", final=lambda x, ln, e: ln(x) * 0),
    way(family="extra", logits=lambda z, ln, n: z * 0),
)
hint_7(
    "forward-arguments",
    "forward's arguments are (input_ids, cache=None, last_only=False), in this order.",
)
hint_7(
    "last-only-after-head",
    "With last_only you project every position and throw all but one away. Cut the stream before the head: that is what last_only is for (V is GPT-2's largest dimension).",
)
hint_7("not-a-tensor", "forward must return the logits alone, one tensor (B, T, V).")
hint_7(
    "train-differs",
    "Without dropout, training mode gives something else than eval mode. forward does the same in both: only dropout, inside the pieces, asks which it is.",
)
