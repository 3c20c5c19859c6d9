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
    3,
    "Keys and values are exchanged: `append(k, v)` returns keys first, then values, each from its own memory.",
    way(give=lambda new, other, fresh: torch.cat(other, 2)),
    way(give=lambda new, other, fresh: torch.cat([*new[:-1], other[-1]], 2)),
    way(give=lambda new, other, fresh: torch.cat([*other[:-1], new[-1]], 2)),
    family="append",
)
KNOWN.add(
    "whole-buffer-returned",
    4,
    "The whole memory is returned, and with it the places that nothing was stored in. The attention would see them as keys of zeros. Return the first `length` places.",
    way(give=lambda new, other, fresh: _filled(new, fresh)),
    family="append",
)
KNOWN.add(
    "only-the-new-returned",
    4,
    "Only the new keys and values are returned. The attention needs those of the past as well: all that is stored.",
    way(give=lambda new, other, fresh: new[-1]),
    family="append",
)
KNOWN.add(
    "only-the-old-returned",
    4,
    "What was stored before is returned, without the new tokens. A token attends to itself as well.",
    way(
        give=lambda new, other, fresh: torch.cat(new[:-1], 2) if len(new) > 1 else new[0][:, :, :0]
    ),
    family="append",
)
KNOWN.add(
    "newest-in-front",
    3,
    "New tokens are stored in front of the old ones. They come behind them.",
    way(give=lambda new, other, fresh: torch.cat(new[::-1], 2)),
    family="append",
)
KNOWN.add(
    "overwrites-the-beginning",
    3,
    "Each piece is written to the beginning of the memory, over what was there. It goes behind the `length` tokens that are stored.",
    way(give=lambda new, other, fresh: _overwritten(new, fresh)),
    family="append",
)
KNOWN.add(
    "values-from-keys",
    3,
    "One memory gets what belongs in the other as well: keys and values are the same.",
    way(give=lambda new, other, fresh: torch.cat(other, 2)),
)
KNOWN.add(
    "length-not-advanced",
    3,
    "`length` stays as it was after append. It counts the tokens stored, so it grows by the number of new ones.",
)
KNOWN.add(
    "length-of-the-last-piece",
    3,
    "`length` is the number of the newest tokens. It counts all that are stored: add, and don't replace.",
)
KNOWN.add(
    "starts-full",
    1,
    "A new layer's `length` is not 0. The memory is there, and nothing in it counts yet.",
)
KNOWN.add(
    "grown-by-cat",
    3,
    "The memory is made again for each append (`torch.cat`, or a new tensor). That copies everything that is stored, for each token: allocate once, then write into it.",
)
KNOWN.add(
    "copies-returned",
    4,
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
    "room-not-named",
    2,
    "The error for too many tokens does not name the room that there is.",
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
    3,
    "The cache keeps the graph of what is stored: every step's activations stay in memory for a backward pass that never comes. Store k.detach() and v.detach().",
)
KNOWN.add(
    "edits-keys",
    3,
    "The keys or values that were handed over are changed. They belong to whoever calls.",
)

# ── all layers ──────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "layers-share-memory",
    6,
    "Layers share their memory: what one stores, the others find in theirs. `[x] * n` is n times the same x; make each layer's memory by itself.",
)
KNOWN.add(
    "keys-share-with-values",
    6,
    "A layer's keys and values are one and the same memory. Each needs its own.",
)
KNOWN.add(
    "caches-share",
    6,
    "Two caches share their layers: what one stores, the other counts. Make them in __init__, on self, and not on the class.",
)
KNOWN.add("wrong-layer-count", 6, "There must be one LayerCache per layer of the model.")
KNOWN.add(
    "wrong-memory-shape",
    6,
    "Each layer's keys and values are to be (B, H, P, D) = (batch_size, n_head, max_length, head_dim).",
)
KNOWN.add(
    "ignores-max-length",
    6,
    "max_length has no effect: the memory is as large as without it.",
)
KNOWN.add(
    "ignores-batch-size", 6, "batch_size has no effect: there is room for one sequence alone."
)
KNOWN.add("ignores-dtype", 6, "The memory has another dtype than the one that was asked for.")
KNOWN.add("ignores-device", 6, "The memory lies on another device than the one that was asked for.")
KNOWN.add(
    "wrong-max-length",
    5,
    "`max_length` is to be how many tokens there is room for; by default n_positions.",
)
KNOWN.add("size-not-checked", 5, "A size below 1 is accepted.")
KNOWN.add(
    "zero-taken-for-default",
    5,
    "max_length=0 is taken for None: `max_length or …` treats 0 as if nothing was given. Ask whether it `is None`.",
)
KNOWN.add(
    "too-long-accepted",
    5,
    "More than n_positions tokens are accepted. The model has no embedding for such positions.",
)
KNOWN.add(
    "length-is-a-method",
    7,
    "`length` must be read like an attribute, without brackets: @property above it does that.",
)
KNOWN.add(
    "nbytes-is-a-method",
    8,
    "`nbytes` must be read like an attribute, without brackets: @property above it does that.",
)
KNOWN.add(
    "length-of-one-layer",
    7,
    "`length` is that of one layer. A pass that broke off halfway has left others shorter: what counts is what every layer holds.",
)
KNOWN.add(
    "longest-layer-counts",
    7,
    "`length` is that of the layer that holds most. What counts is what every layer holds: the least.",
)
KNOWN.add(
    "length-added-up",
    7,
    "`length` adds the layers up. Each of them holds the same tokens: it is the least of their lengths.",
)
KNOWN.add(
    "own-length",
    7,
    "`length` stays as it was when the layers store something: it is a number of the cache's own. The model calls the layers' append, so ask the layers.",
)
KNOWN.add("nbytes-without-values", 8, "`nbytes` counts keys or values alone: both are stored.")
KNOWN.add(
    "nbytes-counts-numbers", 8, "`nbytes` counts numbers. Each has several bytes: 4 in float32."
)
KNOWN.add("nbytes-of-one-layer", 8, "`nbytes` counts one layer. All of them are allocated.")
KNOWN.add(
    "nbytes-of-what-is-stored",
    8,
    "`nbytes` depends on how much is stored. The memory is allocated, whether in use or not.",
)
KNOWN.add(
    "nbytes-assumes-float32",
    8,
    "`nbytes` takes every number for 4 bytes. Ask the tensor: float16 has 2, float64 has 8.",
)
KNOWN.add(
    "nbytes-forgets-a-factor",
    8,
    "`nbytes` leaves out one of 2 · L · B · max_length · C · itemsize.",
)
KNOWN.add(
    "truncates-one-object",
    9,
    "truncate leaves layers as long as they were: the next append goes behind tokens that should be forgotten. Shorten every layer.",
)
KNOWN.add(
    "truncate-lengthens",
    9,
    "truncate takes a length that is more than what is stored, or below 0. It can only forget: a ValueError names the numbers.",
)
KNOWN.add(
    "truncate-moves-memory",
    9,
    "truncate or reset allocates memory again. Nothing needs to be erased: what lies behind `length` does not count, and is written over.",
)
KNOWN.add(
    "truncate-loses",
    9,
    "What truncate should keep is gone or changed. The first `length` tokens stay as they are.",
)
KNOWN.add("truncate-drops-that-many", 9, "truncate(n) drops n tokens. It keeps n of them.")
KNOWN.add("reset-keeps", 10, "After reset something still counts as stored.")

# ── what reads each token once ──────────────────────────────────────────────────────────────────

KNOWN.add(
    "prompt-fed-again",
    12,
    "The model is fed the whole text again, on top of what the cache holds: every token is stored twice. Feed it what comes after the first `cache.length` tokens.",
)
KNOWN.add(
    "starts-over-each-time",
    12,
    "The cache is emptied before each call and the whole text read again. It is right, and as slow as without a cache: keep what is stored.",
)
KNOWN.add(
    "cache-not-passed",
    12,
    "The model is called without the cache, so it reads the whole text each time and stores nothing.",
)
KNOWN.add(
    "only-the-last-fed",
    12,
    "Only the newest token is fed, although the cache lacks others before it: the prompt at first, several tokens after a truncation.",
)
KNOWN.add(
    "one-token-skipped",
    12,
    "The tokens that are fed don't follow what the cache holds: one too many or too few is left out.",
)
KNOWN.add(
    "counts-by-itself",
    12,
    "What has been read is counted in a variable of its own. The caller may truncate or reset the cache between calls, so ask cache.length each time.",
)
KNOWN.add(
    "wrong-logits-shape",
    12,
    "The logits must be (B, V): those of the last position, without an axis for positions.",
)
KNOWN.add(
    "wrong-position",
    12,
    "The logits of another position are returned. What follows the text is what the last position says.",
)
KNOWN.add(
    "too-long-refused",
    11,
    "A text longer than max_length is an error. It is to start over with its last max_length tokens.",
)
KNOWN.add(
    "window-not-reset",
    11,
    "When the text gets longer than max_length, the cache is not emptied. The window has moved, so every token stands at another position, and all keys must be computed again.",
)
KNOWN.add(
    "keeps-the-beginning",
    11,
    "Of a text that is too long, the beginning is kept. It is the last max_length tokens that matter for what follows.",
)
KNOWN.add(
    "window-too-short",
    11,
    "Of a text that is too long, the last max_length tokens are to be read; yours reads fewer.",
)
KNOWN.add(
    "starts-over-too-early",
    11,
    "The text starts over although it fits: exactly max_length tokens have room.",
)
KNOWN.add("edits-ids", 12, "The ids that were given are changed.")
