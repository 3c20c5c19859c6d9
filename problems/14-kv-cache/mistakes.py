"""The known mistakes of problem 14. A way says what `append` gives back: of the pieces `new` of one
kind (keys or values) and `other` of the other, all up to now, in a memory that was `fresh` before.
"""

import torch

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()


def _filled(pieces, fresh):
    """All pieces, and what was in the memory behind them."""
    stored = torch.cat(pieces, 2)
    return torch.cat([stored, fresh[:, :, stored.size(2) :]], 2)


def _overwritten(pieces, fresh):
    """Each piece written at the beginning of the memory; as many places as there are tokens."""
    memory = fresh.clone()
    for piece in pieces:
        memory[:, :, : piece.size(2)] = piece
    return memory[:, :, : sum(piece.size(2) for piece in pieces)]


# ── one layer ───────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "keys-and-values-swapped",
    1,
    "Keys and values are exchanged: `append(k, v)` returns keys first, then values, each from its own memory.",
    way(give=lambda new, other, fresh: torch.cat(other, 2)),
    way(give=lambda new, other, fresh: torch.cat([*new[:-1], other[-1]], 2)),
    way(give=lambda new, other, fresh: torch.cat([*other[:-1], new[-1]], 2)),
    family="append",
)
KNOWN.add(
    "whole-buffer-returned",
    3,
    "The whole memory is returned, and with it the places that nothing was stored in. The attention would see them as keys of zeros. Return the first `length` places.",
    way(give=lambda new, other, fresh: _filled(new, fresh)),
    family="append",
)
KNOWN.add(
    "only-the-new-returned",
    3,
    "Only the new keys and values are returned. The attention needs those of the past as well: all that is stored.",
    way(give=lambda new, other, fresh: new[-1]),
    family="append",
)
KNOWN.add(
    "only-the-old-returned",
    3,
    "What was stored before is returned, without the new tokens. A token attends to itself as well.",
    way(
        give=lambda new, other, fresh: torch.cat(new[:-1], 2) if len(new) > 1 else new[0][:, :, :0]
    ),
    family="append",
)
KNOWN.add(
    "newest-in-front",
    1,
    "New tokens are stored in front of the old ones. They come behind them.",
    way(give=lambda new, other, fresh: torch.cat(new[::-1], 2)),
    family="append",
)
KNOWN.add(
    "overwrites-the-beginning",
    1,
    "Each piece is written to the beginning of the memory, over what was there. It goes behind the `length` tokens that are stored.",
    way(give=lambda new, other, fresh: _overwritten(new, fresh)),
    family="append",
)
KNOWN.add(
    "length-not-advanced",
    1,
    "`length` stays as it was after append. It counts the tokens stored, so it grows by the number of new ones.",
)
KNOWN.add(
    "length-of-the-last-piece",
    1,
    "`length` is the number of the newest tokens. It counts all that are stored: add, and don't replace.",
)
KNOWN.add(
    "starts-full",
    1,
    "A new layer's `length` is not 0. The memory is there, and nothing in it counts yet.",
)
KNOWN.add(
    "grown-by-cat",
    1,
    "New memory is allocated for each append (`torch.cat`, or a new tensor). That copies everything that is stored, for each token: allocate once, then write into it.",
)
KNOWN.add(
    "copies-returned",
    3,
    "What is returned is a copy of the memory. A slice is a view, and costs nothing.",
)
KNOWN.add(
    "memory-copied",
    1,
    "The layer stores into a copy of the memory that it was given. Keep the tensors themselves: KVCache gives each layer its part of a whole.",
)
KNOWN.add(
    "overflow-unnoticed",
    2,
    "More tokens than there is room for are taken without an error, and some of them are lost.",
)
KNOWN.add(
    "half-written",
    2,
    "An append that fails has stored something. Check everything before anything is written, so that the cache is as it was.",
)
KNOWN.add(
    "refuses-the-last-place",
    2,
    "The last place can't be used: as many tokens as there is room for are fine, and only more are an error.",
)
KNOWN.add(
    "broadcasts",
    2,
    "Keys or values of another shape are stored without an error: PyTorch repeats an axis of size 1 to make it fit. Compare the shapes.",
)
KNOWN.add(
    "values-not-checked",
    2,
    "The shape of the values is not checked, only that of the keys.",
)
KNOWN.add(
    "keeps-a-graph",
    1,
    "The cache keeps the graph of what is stored: every step's activations stay in memory for a backward pass that never comes. Store k.detach() and v.detach().",
)
KNOWN.add(
    "edits-keys",
    1,
    "The keys or values that were handed over are changed. They belong to the caller.",
)

# ── all layers ──────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "layers-share-memory",
    4,
    "Layers share their memory: what one stores, the others find in theirs. `[x] * n` is n times the same x; make each layer's memory by itself.",
)
KNOWN.add(
    "keys-share-with-values",
    4,
    "A layer's keys and values are one and the same memory. Each needs its own.",
)
KNOWN.add(
    "caches-share",
    4,
    "Two caches share their layers: what one stores, the other counts. Make them in __init__, on self, and not on the class.",
)
KNOWN.add("wrong-layer-count", 4, "There must be one LayerCache per layer of the model.")
KNOWN.add(
    "wrong-memory-shape",
    4,
    "Each layer's keys and values are to be (B, H, P, D) = (batch_size, n_head, max_length, head_dim).",
)
KNOWN.add(
    "ignores-max-length",
    4,
    "max_length has no effect: the memory is as large as without it.",
)
KNOWN.add(
    "ignores-batch-size", 4, "batch_size has no effect: there is room for one sequence alone."
)
KNOWN.add("ignores-dtype", 4, "The memory has another dtype than the one that was asked for.")
KNOWN.add("ignores-device", 4, "The memory lies on another device than the one that was asked for.")
KNOWN.add(
    "wrong-max-length",
    4,
    "`max_length` is to be how many tokens there is room for; by default n_positions.",
)
KNOWN.add("size-not-checked", 4, "A size below 1 is accepted.")
KNOWN.add(
    "zero-taken-for-default",
    4,
    "max_length=0 is taken for None: `max_length or …` treats 0 as if nothing was given. Ask whether it `is None`.",
)
KNOWN.add(
    "too-long-accepted",
    4,
    "More than n_positions tokens are accepted. The model has no embedding for such positions.",
)
KNOWN.add(
    "length-is-a-method",
    5,
    "`length` must be read like an attribute, without brackets: @property above it does that.",
)
KNOWN.add(
    "nbytes-is-a-method",
    5,
    "`nbytes` must be read like an attribute, without brackets: @property above it does that.",
)
KNOWN.add(
    "length-of-one-layer",
    5,
    "`length` is that of one layer. A pass that broke off halfway has left others shorter: what counts is what every layer holds.",
)
KNOWN.add(
    "longest-layer-counts",
    5,
    "`length` is that of the layer that holds most. What counts is what every layer holds: the least.",
)
KNOWN.add(
    "length-added-up",
    5,
    "`length` adds the layers up. Each of them holds the same tokens: it is the least of their lengths.",
)
KNOWN.add(
    "own-length",
    5,
    "`length` stays as it was when the layers store something: it is a number of the cache's own. The model calls the layers' append, so ask the layers.",
)
KNOWN.add("nbytes-without-values", 5, "`nbytes` counts keys or values alone: both are stored.")
KNOWN.add(
    "nbytes-counts-numbers", 5, "`nbytes` counts numbers. Each has several bytes: 4 in float32."
)
KNOWN.add("nbytes-of-one-layer", 5, "`nbytes` counts one layer. All of them are allocated.")
KNOWN.add(
    "nbytes-of-what-is-stored",
    5,
    "`nbytes` depends on how much is stored. The memory is allocated, whether in use or not.",
)
KNOWN.add(
    "nbytes-assumes-float32",
    5,
    "`nbytes` takes every number for 4 bytes. Ask the tensor: float16 has 2, float64 has 8.",
)
KNOWN.add(
    "nbytes-forgets-a-factor",
    5,
    "`nbytes` leaves out one of 2 · L · B · max_length · C · itemsize.",
)
KNOWN.add(
    "truncates-one-object",
    6,
    "truncate leaves layers as long as they were: the next append goes behind tokens that should be forgotten. Shorten every layer.",
)
KNOWN.add(
    "truncate-lengthens",
    6,
    "truncate takes a length that is more than what is stored, or below 0. It can only forget: a ValueError names the numbers.",
)
KNOWN.add(
    "truncate-moves-memory",
    6,
    "truncate or reset allocates memory again. Nothing needs to be erased: what lies behind `length` does not count, and is written over.",
)
KNOWN.add(
    "truncate-loses",
    6,
    "What truncate should keep is gone or changed. The first `length` tokens stay as they are.",
)
KNOWN.add("truncate-drops-that-many", 6, "truncate(n) drops n tokens. It keeps n of them.")
KNOWN.add("reset-keeps", 6, "After reset something still counts as stored.")

# ── what reads each token once ──────────────────────────────────────────────────────────────────

KNOWN.add(
    "prompt-fed-again",
    7,
    "The model is fed the whole text again, on top of what the cache holds: every token is stored twice. Feed it what comes after the first `cache.length` tokens.",
)
KNOWN.add(
    "starts-over-each-time",
    7,
    "The cache is emptied before each call and the whole text read again. It is right, and as slow as without a cache: keep what is stored.",
)
KNOWN.add(
    "cache-not-passed",
    7,
    "The model is called without the cache, so it reads the whole text each time and stores nothing.",
)
KNOWN.add(
    "only-the-last-fed",
    7,
    "Only the newest token is fed, although the cache lacks others before it: the prompt at first, several tokens after a truncation.",
)
KNOWN.add(
    "one-token-skipped",
    7,
    "The tokens that are fed don't follow what the cache holds: one too many or too few is left out.",
)
KNOWN.add(
    "counts-by-itself",
    7,
    "What has been read is counted in a variable of its own. The caller may truncate or reset the cache between calls, so ask cache.length each time.",
)
KNOWN.add(
    "wrong-logits-shape",
    7,
    "The logits must be (B, V): those of the last position, without an axis for positions.",
)
KNOWN.add(
    "wrong-position",
    7,
    "The logits of another position are returned. What follows the text is what the last position says.",
)
KNOWN.add(
    "too-long-refused",
    7,
    "A text longer than max_length is an error. It is to start over with its last max_length tokens.",
)
KNOWN.add(
    "window-not-reset",
    7,
    "When the text gets longer than max_length, the cache is not emptied. The window has moved, so every token stands at another position, and all keys must be computed again.",
)
KNOWN.add(
    "keeps-the-beginning",
    7,
    "Of a text that is too long, the beginning is kept. It is the last max_length tokens that matter for what follows.",
)
KNOWN.add(
    "window-too-short",
    7,
    "Of a text that is too long, the last max_length tokens are to be read; yours reads fewer.",
)
KNOWN.add(
    "starts-over-too-early",
    7,
    "The text starts over although it fits: exactly max_length tokens have room.",
)
KNOWN.add("edits-ids", 7, "The ids that were given are changed.")
