"""Checks of problem 14. What is expected is `torch.cat` of the pieces, the same model without a
cache, and a count of the tokens that it is fed.
"""

import itertools
import re

import torch
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import check, compare, fail, place, sizes_from, tensor

KNOWN = known(__file__)
L, B, H, P, D = sizes_from((3, 2, 4, 9, 5), (5, 3, 6, 11, 4), (3, 4, 2, 10, 7))
V = 17


def config(**changes):
    """The course's configuration, all sizes different."""
    from gpt2.model import GPT2Config

    sizes = {"vocab_size": V, "n_positions": P, "n_embd": H * D, "n_layer": L, "n_head": H}
    return GPT2Config(**{**sizes, **changes})


def memory(b=B, h=H, p=P, d=D):
    """Keys and values of one layer, (B, H, P, D), filled with what does not count."""
    return torch.full((b, h, p, d), 7.0), torch.full((b, h, p, d), -7.0)


def pieces(*sizes, b=B, h=H, d=D, seed=0):
    """New keys, and new values, of these numbers of tokens: two lists of (b, h, t, d)."""
    g = torch.Generator().manual_seed(500 + seed)
    keys, values = ([torch.randn(b, h, t, d, generator=g) for t in sizes] for _ in range(2))
    return keys, values


def pair(got):
    """What append returns, when it is two tensors."""
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        what = "None" if got is None else f"a {type(got).__name__}"
        fail(f"append must return (keys, values), and returns {what}.", id="wrong-return", hint=3)
    return tensor(got[0], "the keys"), tensor(got[1], "the values")


def fill_up(cache, sizes, seed=0):
    """Store these numbers of tokens in every layer: → per layer (keys, values)."""
    stored = []
    for i, layer in enumerate(cache.layers):
        keys, values = pieces(*sizes, seed=seed + 10 * i)
        for k, v in zip(keys, values, strict=True):
            layer.append(k, v)
        stored.append((torch.cat(keys, 2), torch.cat(values, 2)))
    return stored


def number_of(cache, name):
    """`length` or `nbytes`, when it can be read like an attribute."""
    value = getattr(cache, name)
    if callable(value):
        fail(KNOWN[f"{name}-is-a-method"])
    return int(value)


def refused(run, when, missing, mentions=()):
    """Check that `run` raises ValueError, whose text names one of each group of numbers."""
    try:
        run()
    except ValueError as error:
        numbers = re.findall(r"-?\d+", str(error))
        for group in mentions:
            if not {str(n) for n in group} & set(numbers):
                says = f"The ValueError when {when} says {str(error)!r}"
                fail(
                    f"{says}, and does not name {' or '.join(map(str, group))}.",
                    id="unhelpful-error",
                    hint=2,
                )
        return
    except NotImplementedError:
        raise
    except Exception as error:
        fail(
            f"{type(error).__name__} is raised when {when}; make it a ValueError that says why.",
            f"{error}"[:150],
            id="wrong-error-type",
            hint=2,
        )
    fail(missing, f"Nothing is raised when {when}.")


def memory_of(layers):
    """The layers' keys and values, to be compared later (while they are held, nothing else lies in
    their place); empty where what is read twice lies in two places, since the piece runs in another
    process: then places say nothing.
    """
    held = [(layer.keys, layer.values) for layer in layers]
    again = [(layer.keys, layer.values) for layer in layers]
    return held if places(held) == places(again) else []


def places(pairs):
    """Where pairs of tensors lie."""
    return [(place(keys), place(values)) for keys, values in pairs]


def moved(layers, held):
    """Whether the layers' memory lies elsewhere than what was held of it."""
    now = [(layer.keys, layer.values) for layer in layers]
    return bool(held) and places(now) != places(held)


# ── one layer ───────────────────────────────────────────────────────────────────────────────────


@check(todo=4, points=3)
def test_append(piece):
    """Pieces of 3, 1 and 2 tokens come back as torch.cat gives them, keys first"""
    layer = piece.LayerCache(*memory())
    if int(layer.length) != 0:
        fail(KNOWN["starts-full"], f"length is {layer.length}.")
    keys, values = pieces(3, 1, 2)
    copies = [t.clone() for t in (*keys, *values)]
    total = 0
    for i, (k, v) in enumerate(zip(keys, values, strict=True), 1):
        got = pair(layer.append(k, v))
        total += k.size(2)
        for which, found in zip(("keys", "values"), got, strict=True):
            if found.dim() != 4 or found.shape[:2] != k.shape[:2] or found.size(3) != D:
                fail(
                    f"append returns {which} of shape {tuple(found.shape)}, expected "
                    f"({B}, {H}, {total}, {D}).",
                    id="wrong-shape",
                    hint=3,
                )
        if int(layer.length) != total:
            if int(layer.length) == total - k.size(2):
                fail(
                    KNOWN["length-not-advanced"],
                    f"After {total} tokens in {i} pieces, length is {layer.length}.",
                )
            if int(layer.length) == k.size(2):
                fail(
                    KNOWN["length-of-the-last-piece"],
                    f"After {total} tokens in {i} pieces, length is {layer.length}.",
                )
            fail(
                f"After {total} tokens in {i} pieces, length is {layer.length}.",
                id="wrong-length",
                hint=1,
            )
        fresh = memory()
        for which, new, other, found, empty in (
            ("keys", keys[:i], values[:i], got[0], fresh[0]),
            ("values", values[:i], keys[:i], got[1], fresh[1]),
        ):

            def variant(give=None, new=new, other=other, empty=empty):
                return torch.cat(new, 2) if give is None else give(new, other, empty)

            compare(
                found,
                torch.cat(new, 2),
                KNOWN.of("append"),
                variant,
                what=f"the {which} after {i} {'piece' if i == 1 else 'pieces'}",
                axes="B H S D",
            )
    for t, before in zip((*keys, *values), copies, strict=True):
        if not torch.equal(t, before):
            fail(KNOWN["edits-keys"])


@check(todo=4, needs=test_append, points=2)
def test_memory_stays(piece):
    """The memory that is given is the one that is used: nothing is allocated or copied again"""
    keys, values = memory()
    layer = piece.LayerCache(keys, values)
    start = memory_of([layer])
    new = pieces(2, 3, 1, seed=1)
    for i, (k, v) in enumerate(zip(*new, strict=True), 1):
        got = pair(layer.append(k, v))
        shapes = tuple(layer.keys.shape), tuple(layer.values.shape)
        elsewhere = moved([layer], start)
        if elsewhere or shapes != ((B, H, P, D), (B, H, P, D)):
            fail(
                KNOWN["grown-by-cat"],
                f"After piece {i}, `keys` and `values` are of shape {shapes[0]}, and lie "
                f"{'elsewhere' if elsewhere else 'where they did'}.",
            )
        # a module's tensors and those that a call returns come from another process by two ways
        apart = isinstance(layer, nn.Module) and hasattr(piece, "torch_left")
        if start and not apart and places([got]) != places(start):
            fail(KNOWN["copies-returned"])
    stored = torch.cat(new[0], 2), torch.cat(new[1], 2)
    for given, wanted, fresh in zip((keys, values), stored, memory(), strict=True):
        if not torch.equal(given[:, :, :6], wanted):
            fail(
                KNOWN["memory-copied"],
                "The tensors that LayerCache was made of don't hold what was stored.",
            )
        if not torch.equal(given[:, :, 6:], fresh[:, :, 6:]):
            fail(
                "Places behind the tokens that are stored have been written to.",
                id="writes-too-far",
                hint=1,
            )


def state_of(layer):
    """What must not change when an append fails."""
    return int(layer.length), layer.keys.clone(), layer.values.clone()


def expect_unchanged(layer, before, when):
    """Check that an append that failed has left no trace."""
    length, keys, values = state_of(layer)
    if length != before[0]:
        fail(KNOWN["half-written"], f"When {when}, length goes from {before[0]} to {length}.")
    for name, now, then in (("keys", keys, before[1]), ("values", values, before[2])):
        if now.shape != then.shape or not torch.equal(now, then):
            fail(KNOWN["half-written"], f"When {when}, the memory of the {name} changes.")


@check(todo=4, needs=test_append, points=2)
def test_room(piece):
    """Exactly as many tokens as there is room for fit; more are a ValueError, and nothing is stored"""
    layer = piece.LayerCache(*memory())
    (first, last), (v_first, v_last) = pieces(P - 2, 2, seed=2)
    layer.append(first, v_first)
    for more in (3, 4, P + 1):
        k, v = (t[0] for t in pieces(more, seed=3))
        before = state_of(layer)
        when = f"{P - 2} tokens are stored, {more} come, and there is room for {P}"
        refused(lambda k=k, v=v: layer.append(k, v), when, KNOWN["overflow-unnoticed"], [(P, 2)])
        expect_unchanged(layer, before, when)
    try:
        got = pair(layer.append(last, v_last))
    except ValueError as error:
        fail(KNOWN["refuses-the-last-place"], f"{P - 2} tokens + 2 new = {P}: {error}")
    if not torch.equal(got[0], torch.cat([first, last], 2)):
        fail(
            KNOWN["half-written"],
            "After an append that failed, the next one returns other keys than were stored.",
        )
    k, v = (t[0] for t in pieces(1, seed=3))
    refused(
        lambda: layer.append(k, v),
        f"all {P} places are taken",
        KNOWN["overflow-unnoticed"],
        [(P, 0)],
    )


@check(todo=4, needs=test_append, points=2)
def test_shapes(piece):
    """Keys and values of another shape are a ValueError, and nothing is stored"""
    good = pieces(2, seed=4)[0][0]
    wrong = {
        "batch": pieces(2, b=1)[0][0],
        "heads": pieces(2, h=1)[0][0],
        "width": pieces(2, d=1)[0][0],
        "wider": pieces(2, d=D + 1)[0][0],
        "larger batch": pieces(2, b=B + 1)[0][0],
        "three axes": good[0],
    }
    layer = piece.LayerCache(*memory())
    layer.append(good, good)
    for bad in wrong.values():
        for k, v in ((bad, bad), (bad, good), (good, bad)):
            before = state_of(layer)
            only_values = k is good
            when = f"keys are {tuple(k.shape)}, values {tuple(v.shape)} and the memory is {(B, H, P, D)}"
            refused(
                lambda k=k, v=v: layer.append(k, v),
                when,
                KNOWN["values-not-checked" if only_values else "broadcasts"],
            )
            expect_unchanged(layer, before, when)
    one, two = pieces(1, 2, seed=5)[0]
    for k, v in ((one, two), (two, one)):
        before = state_of(layer)
        when = f"there are {k.size(2)} keys and {v.size(2)} values"
        refused(lambda k=k, v=v: layer.append(k, v), when, KNOWN["broadcasts"])
        expect_unchanged(layer, before, when)


@check(todo=4, needs=test_append)
def test_keeps_no_graph(piece):
    """Nothing that is stored or returned keeps the graph of the keys and values"""
    layer = piece.LayerCache(*memory())
    weight = torch.ones(1, requires_grad=True)
    for i, (k, v) in enumerate(zip(*pieces(2, 1, 1, seed=6), strict=True)):
        k, v = (k * weight, v) if i == 1 else (k * weight, v * weight)
        try:
            got = pair(layer.append(k, v))
        except RuntimeError as error:
            fail(KNOWN["keeps-a-graph"], f"With keys that have a graph: {str(error)[:120]}")
        if any(t.requires_grad for t in (*got, layer.keys, layer.values)):
            fail(
                KNOWN["keeps-a-graph"],
                f"After piece {i + 1}, what is {'stored' if layer.keys.requires_grad or layer.values.requires_grad else 'returned'} has requires_grad.",
            )


# ── all layers ──────────────────────────────────────────────────────────────────────────────────


def expect_memory(cache, b, p, dtype=torch.float32):
    """Check number, shapes, dtype and device of the layers' memory."""
    layers = list(cache.layers)
    if len(layers) != L:
        fail(KNOWN["wrong-layer-count"], f"The model has {L} layers, the cache {len(layers)}.")
    if int(cache.max_length) != p:
        fail(KNOWN["wrong-max-length"], f"max_length is {cache.max_length}, expected {p}.")
    for i, layer in enumerate(layers):
        for name in ("keys", "values"):
            t = getattr(layer, name)
            if not isinstance(t, torch.Tensor):
                fail(
                    KNOWN["wrong-memory-shape"],
                    f"layers[{i}].{name} is a {type(t).__name__} before anything is stored: allocate once, at the start.",
                )
            if tuple(t.shape) != (b, H, p, D):
                details = f"layers[{i}].{name} is {tuple(t.shape)}, expected {(b, H, p, D)}."
                if tuple(t.shape) == (b, H, P, D):
                    fail(KNOWN["ignores-max-length"], details)
                if tuple(t.shape) == (1, H, p, D):
                    fail(KNOWN["ignores-batch-size"], details)
                fail(KNOWN["wrong-memory-shape"], details)
            if t.dtype != dtype:
                fail(KNOWN["ignores-dtype"], f"layers[{i}].{name} is {t.dtype}, expected {dtype}.")


@check(todo=6, needs=test_append, points=2)
def test_kv_cache(piece):
    """One LayerCache per layer, of the right size, dtype and device"""
    counts = [len(list(piece.KVCache(config()).layers)) for _ in range(2)]
    if counts[1] > counts[0]:
        fail(
            KNOWN["caches-share"],
            f"The first cache has {counts[0]} layers, the second {counts[1]}.",
        )
    expect_memory(piece.KVCache(config()), 1, P)
    expect_memory(piece.KVCache(config(), B), B, P)
    expect_memory(piece.KVCache(config(), B, 4), B, 4)
    expect_memory(piece.KVCache(config(), batch_size=1, max_length=P), 1, P)
    expect_memory(piece.KVCache(config(), B, None, None, torch.float64), B, P, torch.float64)
    expect_memory(
        piece.KVCache(config(), B, 3, device="cpu", dtype=torch.bfloat16), B, 3, torch.bfloat16
    )
    elsewhere = piece.KVCache(config(), 1, 3, device="meta").layers[-1]
    for name in ("keys", "values"):
        device = getattr(elsewhere, name).device.type
        if device != "meta":
            fail(KNOWN["ignores-device"], f'With device="meta" the {name} lie on {device!r}.')


@check(todo=7, needs=test_kv_cache, points=2)
def test_layers_apart(piece):
    """What one layer stores stays in that layer, keys and values apart"""
    cache = piece.KVCache(config(), B)
    try:
        stored = fill_up(cache, (2, 1))
    except (ValueError, RuntimeError) as error:
        if any(int(layer.length) > 3 for layer in cache.layers):
            fail(
                KNOWN["layers-share-memory"], f"Each layer stores 3 tokens, in {P} places: {error}"
            )
        raise
    for i, (layer, wanted) in enumerate(zip(cache.layers, stored, strict=True)):
        for name, want, other in (("keys", wanted[0], wanted[1]), ("values", wanted[1], wanted[0])):
            now = getattr(layer, name)[:, :, :3]
            if torch.equal(now, want):
                continue
            if torch.equal(now, other):
                fail(
                    KNOWN["keys-share-with-values"],
                    f"layers[{i}].{name} holds the {'values' if name == 'keys' else 'keys'} after both were stored.",
                )
            for j, others in enumerate(stored):
                if j != i and any(torch.equal(now, t) for t in others):
                    fail(
                        KNOWN["layers-share-memory"],
                        f"layers[{i}].{name} holds what was stored in layers[{j}].",
                    )
            if int(layer.length) != 3:
                fail(
                    KNOWN["layers-share-memory"],
                    f"Each layer has stored 3 tokens; layers[{i}] counts {layer.length}.",
                )
            fail(
                f"layers[{i}].{name} does not hold what was stored there.",
                id="wrong-memory",
                hint=4,
            )
    one, other = piece.KVCache(config(), B), piece.KVCache(config(), B)
    fill_up(one, (2,))
    if number_of(other, "length") or any(int(layer.length) for layer in other.layers):
        fail(KNOWN["caches-share"])


@check(todo=5, needs=test_kv_cache)
def test_sizes(piece):
    """Sizes below 1, and more than n_positions, are a ValueError that names the numbers"""
    for size in (0, -1, -5):
        refused(
            lambda size=size: piece.KVCache(config(), size),
            f"batch_size is {size}",
            KNOWN["size-not-checked"],
            [(size,)],
        )
        refused(
            lambda size=size: piece.KVCache(config(), 1, size),
            f"max_length is {size}",
            KNOWN["zero-taken-for-default" if size == 0 else "size-not-checked"],
            [(size,)],
        )
    for more in (P + 1, 3 * P):
        refused(
            lambda more=more: piece.KVCache(config(), 1, more),
            f"max_length = {more} and n_positions = {P}",
            KNOWN["too-long-accepted"],
            [(more,), (P,)],
        )


@check(todo=7, needs=test_layers_apart, points=2)
def test_length(piece):
    """length is what every layer holds: also after a pass that broke off between two layers"""
    cache = piece.KVCache(config(), B)
    if number_of(cache, "length") != 0:
        fail(f"A new cache has the length {cache.length}, expected 0.", id="wrong-length", hint=5)
    fill_up(cache, (3,))
    found = number_of(cache, "length")
    if found == 0:
        fail(KNOWN["own-length"], "Every layer has stored 3 tokens, and length is 0.")
    if found == 3 * L:
        fail(
            KNOWN["length-added-up"],
            f"Every one of {L} layers has stored 3 tokens, and length is {found}.",
        )
    if found != 3:
        fail(f"Every layer has stored 3 tokens, and length is {found}.", id="wrong-length", hint=5)
    found = []
    for ahead in (0, L - 1):  # the layer that holds more than the others
        cache = piece.KVCache(config(), B)
        fill_up(cache, (3,))
        list(cache.layers)[ahead].append(*(t[0] for t in pieces(2, seed=8)))
        found.append(number_of(cache, "length"))
    details = f"One of {L} layers holds 5 tokens, the others 3. If that is the first, length is {found[0]}; if the last, {found[1]}."
    if found == [5, 5]:
        fail(KNOWN["longest-layer-counts"], details)
    if 5 in found:
        fail(KNOWN["length-of-one-layer"], details)
    if found != [3, 3]:
        fail(f"length is to be what every layer holds, 3. {details}", id="wrong-length", hint=5)


@check(todo=8, needs=test_kv_cache)
def test_nbytes(piece):
    """nbytes is 2 · L · B · max_length · C · itemsize, stored or not"""
    for b, p, dtype in (
        (1, P, torch.float32),
        (B, 4, torch.float32),
        (3, 5, torch.float64),
        (2, 6, torch.bfloat16),
    ):
        cache = piece.KVCache(config(), b, p, None, dtype)
        numbers = 2 * L * b * p * H * D
        item = torch.empty(0, dtype=dtype).element_size()
        want, found = numbers * item, number_of(cache, "nbytes")
        if found == want:
            continue
        details = f"{L} layers, batch {b}, max_length {p}, {H * D} wide, {dtype}: {found:,}, expected {want:,}."
        if found == 0:
            fail(KNOWN["nbytes-of-what-is-stored"], details)
        if found == 4 * numbers:
            fail(KNOWN["nbytes-assumes-float32"], details)
        if found == numbers:
            fail(KNOWN["nbytes-counts-numbers"], details)
        if found * 2 == want:
            fail(KNOWN["nbytes-without-values"], details)
        if found * L == want:
            fail(KNOWN["nbytes-of-one-layer"], details)
        if found and want % found == 0:
            fail(KNOWN["nbytes-forgets-a-factor"], details)
        fail(f"nbytes is wrong. {details}", id="wrong-nbytes", hint=5)
    before = number_of(cache, "nbytes")
    for layer in cache.layers:
        layer.append(*(t[0].to(torch.bfloat16) for t in pieces(2, b=2)))
    if number_of(cache, "nbytes") != before:
        fail(
            KNOWN["nbytes-of-what-is-stored"],
            f"{before:,} before, {cache.nbytes:,} after two tokens.",
        )


@check(todo=9, needs=test_length, points=2)
def test_truncate(piece):
    """truncate keeps the first tokens in every layer, and the next ones go behind them"""
    cache = piece.KVCache(config(), B)
    stored = fill_up(cache, (4, 2))
    for keep in (5, 5, 2):
        was = number_of(cache, "length")
        cache.truncate(keep)
        lengths = [int(layer.length) for layer in cache.layers]
        details = f"After truncate({keep}) of {was} tokens the layers' lengths are {lengths}."
        if lengths == [was - keep] * L and was - keep != keep:
            fail(KNOWN["truncate-drops-that-many"], details)
        if lengths != [keep] * L:
            fail(KNOWN["truncates-one-object"], details)
        if number_of(cache, "length") != keep:
            fail(f"After truncate({keep}) length is {cache.length}.", id="wrong-length", hint=6)
        if {tuple(layer.keys.shape) for layer in cache.layers} != {(B, H, P, D)}:
            fail(KNOWN["truncate-moves-memory"])
    new = pieces(3, seed=9)
    for i, (layer, (keys, values)) in enumerate(zip(cache.layers, stored, strict=True)):
        got = pair(layer.append(new[0][0], new[1][0]))
        for found, old, more in zip(got, (keys, values), (new[0][0], new[1][0]), strict=True):
            want = torch.cat([old[:, :, :2], more], 2)
            if found.shape != want.shape or not torch.equal(found, want):
                fail(
                    KNOWN["truncate-loses"],
                    f"layers[{i}]: 2 tokens were kept and 3 appended; these 5 don't come back.",
                )
    cache.truncate(0)
    if number_of(cache, "length") != 0:
        fail(KNOWN["truncates-one-object"], "truncate(0) leaves something.")


@check(todo=9, needs=test_truncate)
def test_truncate_refuses(piece):
    """A length below 0 or above what is stored is a ValueError, and changes nothing"""
    cache = piece.KVCache(config(), B)
    fill_up(cache, (4,))
    for length in (5, P, -1, P + 1):
        refused(
            lambda length=length: cache.truncate(length),
            f"4 tokens are stored and {length} are to be kept",
            KNOWN["truncate-lengthens"],
            [(length,)],
        )
        lengths = [int(layer.length) for layer in cache.layers]
        if lengths != [4] * L:
            fail(
                KNOWN["truncate-lengthens"],
                f"After truncate({length}) failed, the lengths are {lengths}.",
            )
    uneven = piece.KVCache(config(), B)
    fill_up(uneven, (3,))
    uneven.layers[0].append(*(t[0] for t in pieces(2, seed=8)))
    uneven.truncate(3)
    lengths = [int(layer.length) for layer in uneven.layers]
    if lengths != [3] * L:
        fail(
            KNOWN["truncates-one-object"],
            f"Layers of 5, 3, 3 … tokens are {lengths} long after truncate(3).",
        )


@check(todo=10, needs=test_length)
def test_reset(piece):
    """reset forgets everything, and the memory serves again"""
    cache = piece.KVCache(config(), B, P)
    fill_up(cache, (P,))
    cache.reset()
    lengths = [int(layer.length) for layer in cache.layers]
    if number_of(cache, "length") != 0 or lengths != [0] * L:
        fail(KNOWN["reset-keeps"], f"length is {cache.length}, the layers' lengths {lengths}.")
    for layer in cache.layers:
        k, v = (t[0] for t in pieces(2, seed=11))
        got = pair(layer.append(k, v))
        if not torch.equal(got[0], k) or not torch.equal(got[1], v):
            fail(KNOWN["reset-keeps"], "What is appended after reset does not come back alone.")
    uneven = piece.KVCache(config(), B)
    for i, layer in enumerate(uneven.layers):
        layer.append(*(t[0] for t in pieces(1 + i, seed=8)))
    uneven.reset()
    lengths = [int(layer.length) for layer in uneven.layers]
    if lengths != [0] * L:
        fail(KNOWN["reset-keeps"], f"Layers of 1, 2, … tokens are {lengths} long after reset.")


@check(todo=10, needs=(test_truncate, test_reset))
def test_memory_is_kept(piece):
    """truncate and reset leave the memory where it is"""
    cache = piece.KVCache(config(), B)
    fill_up(cache, (4, 2))
    start = memory_of(cache.layers)
    cache.truncate(3)
    if moved(cache.layers, start):
        fail(KNOWN["truncate-moves-memory"])
    cache.reset()
    if moved(cache.layers, start):
        fail(KNOWN["truncate-moves-memory"])


# ── reading each token once ─────────────────────────────────────────────────────────────────────


class Reader(nn.Module):
    """A small model with positions and attention, which writes down what it is fed: for each call
    (tokens that the cache held, or None without one; the ids).
    """

    def __init__(self, seed=0):
        super().__init__()
        g = torch.Generator().manual_seed(600 + seed)
        C = H * D
        self.config = config()
        self.tokens = nn.Parameter(torch.randn(V, C, generator=g))
        self.places = nn.Parameter(torch.randn(P, C, generator=g))
        self.mix = nn.Parameter(torch.randn(L, 3, C, C, generator=g) * C**-0.5)
        self.fed = []

    def forward(self, input_ids, cache=None, last_only=False):
        past = None if cache is None else int(cache.length)
        self.fed.append((past, input_ids.clone()))
        (b, t), first = input_ids.shape, past or 0
        if first + t > P:
            raise ValueError(f"{first} + {t} positions are more than n_positions = {P}")
        x = self.tokens[input_ids] + self.places[first : first + t]
        for i in range(L):
            q, k, v = ((x @ m).view(b, t, H, D).transpose(1, 2) for m in self.mix[i])
            if cache is not None:
                k, v = cache.layers[i].append(k, v)
            s = k.size(2)
            future = torch.ones(t, s, dtype=torch.bool).triu(s - t + 1)
            scores = (q @ k.transpose(2, 3) * D**-0.5).masked_fill(future, -torch.inf)
            x = x + (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, H * D)
        logits = x @ self.tokens.T
        return logits[:, -1:] if last_only else logits


def text(t, b=B, seed=0):
    """Random ids (b, t)."""
    return torch.randint(V, (b, t), generator=torch.Generator().manual_seed(700 + seed))


@torch.no_grad()
def uncached(ids, seed=0):
    """What follows the last P tokens of a text, without a cache: (B, V)."""
    return Reader(seed)(ids[:, -P:])[:, -1]


def expect_fed(model, ids, held, size, number, since=""):
    """Check what the model was fed for a text of which the cache held the first tokens."""
    details = f"Call {number}{since}: a text of {ids.size(1)} tokens, of which {held} are stored"
    if not model.fed:
        fail(f"The model is not called. {details}.", id="model-not-called", hint=7)
    past = model.fed[0][0]
    given = torch.cat([part for _, part in model.fed], 1)
    t = given.size(1)
    shown = f"{details}; the model is fed {t}, and the cache then held {past}."
    if any(at is None for at, _ in model.fed):
        fail(KNOWN["cache-not-passed"], f"{details}; the model is fed {t} without a cache.")
    if past == held and torch.equal(given, ids[:, held:]):
        return
    if torch.equal(given, ids) and past == held and held:
        fail(KNOWN["prompt-fed-again"], shown)
    if torch.equal(given, ids) and past == 0 and ids.size(1) == P and number > 2:
        fail(KNOWN["starts-over-too-early"], shown)
    if torch.equal(given, ids) and past == 0:
        fail(KNOWN["starts-over-each-time"], shown)
    if past == held and t and torch.equal(given, ids[:, held + 1 :]) and t > 1:
        fail(KNOWN["one-token-skipped"], shown)
    if since:
        fail(KNOWN["counts-by-itself"], shown)
    if t == 1 and torch.equal(given, ids[:, -1:]):
        fail(KNOWN["only-the-last-fed"], shown)
    if past == held:
        fail(KNOWN["one-token-skipped"], shown)
    fail(
        f"Other tokens are fed than those that the cache lacks. {shown}",
        id="wrong-tokens-fed",
        hint=7,
    )


def read(next_logits, model, ids, held, number, since=""):
    """One call: what it feeds, and that its logits are those without a cache."""
    model.fed.clear()
    before = ids.clone()
    error = None
    try:
        got = next_logits(ids)
    except NotImplementedError:
        raise
    except Exception as raised:
        error = raised
    expect_fed(model, ids, held, V, number, since)
    if error is not None:
        raise error
    got = tensor(got, "the logits")
    want = uncached(ids)
    if tuple(got.shape) != (len(ids), V):
        fail(
            KNOWN["wrong-logits-shape"],
            f"Their shape is {tuple(got.shape)}, expected {(len(ids), V)}.",
        )
    if not torch.allclose(got, want, rtol=1e-3, atol=1e-3):
        with torch.no_grad():
            all_of_them = Reader()(ids)
        if any(
            torch.allclose(got, all_of_them[:, i], rtol=1e-3, atol=1e-3)
            for i in range(ids.size(1) - 1)
        ):
            fail(KNOWN["wrong-position"])
        off = float((got - want).abs().max())
        fail(
            f"The logits differ by up to {off:.3g} from those without a cache, for a text of {ids.size(1)} tokens in call {number}{since}.",
            id="wrong-logits",
            hint=7,
        )
    if not torch.equal(ids, before):
        fail(KNOWN["edits-ids"])


@check(todo=12, needs=(test_append, test_length), points=3)
def test_cached_logits(piece):
    """The prompt is read once, then one token per step: T + n − 1 in all, with the same logits"""
    model, cache = Reader(), piece.KVCache(config(), B)
    next_logits = piece.cached_logits(model, cache)
    if not callable(next_logits):
        fail(
            f"cached_logits must return a function, and returns a {type(next_logits).__name__}.",
            id="not-a-function",
            hint=7,
        )
    ids, T, fed = text(P), 4, 0
    for number, t in enumerate(range(T, P + 1), 1):
        read(next_logits, model, ids[:, :t], 0 if t == T else t - 1, number)
        fed += sum(part.size(1) for _, part in model.fed)
    if fed != P:
        fail(f"{P} tokens of text cost {fed} tokens fed.", id="wrong-tokens-fed", hint=7)


@check(todo=12, needs=test_cached_logits, points=2)
def test_every_cut(piece):
    """All 32 ways in which a text of six tokens can arrive give the logits of the whole"""
    ids = text(6, seed=1)
    ways = itertools.product((False, True), repeat=5)
    # three tokens after three come first: a piece of several tells the most
    for walls in sorted(ways, key=lambda walls: walls != (False, False, True, False, False)):
        model, cache = Reader(), piece.KVCache(config(), B)
        next_logits = piece.cached_logits(model, cache)
        ends = [i + 1 for i, wall in enumerate(walls) if wall] + [6]
        for number, (held, end) in enumerate(zip([0, *ends], ends, strict=False), 1):
            read(next_logits, model, ids[:, :end], held, number)


@check(todo=12, needs=(test_every_cut, test_truncate, test_reset), points=2)
def test_cache_is_asked(piece):
    """What the cache holds is asked each time: it may be truncated or reset between two calls"""
    model, cache = Reader(), piece.KVCache(config(), B)
    next_logits = piece.cached_logits(model, cache)
    ids, other = text(7, seed=2), text(7, seed=3)
    read(next_logits, model, ids[:, :6], 0, 1)
    cache.truncate(3)
    again = torch.cat([ids[:, :3], other[:, 3:6]], 1)
    read(next_logits, model, again, 3, 2, " (after truncate(3))")
    read(next_logits, model, torch.cat([again, other[:, 6:]], 1), 6, 3)
    cache.reset()
    read(next_logits, model, other[:, :5], 0, 4, " (after reset())")
    # somebody else has read the beginning: a prompt that several texts share
    model, cache = Reader(), piece.KVCache(config(), B)
    with torch.no_grad():
        model(ids[:, :4], cache)
    read(
        piece.cached_logits(model, cache),
        model,
        ids[:, :6],
        4,
        1,
        " (with a cache that somebody else has filled)",
    )


@check(todo=12, needs=test_cache_is_asked, points=2)
def test_longer_than_the_cache(piece):
    """A text longer than max_length starts over with its last max_length tokens"""
    M = P - 3

    def expect(next_logits, model, ids, number):
        model.fed.clear()
        before = ids.clone()
        error = got = None
        try:
            got = next_logits(ids)
        except NotImplementedError:
            raise
        except Exception as raised:
            error = raised
        given = torch.cat([part for _, part in model.fed], 1) if model.fed else ids[:, :0]
        past = model.fed[0][0] if model.fed else None
        details = f"max_length = {M}, a text of {ids.size(1)} tokens: {given.size(1)} fed, when the cache held {past}."
        if model.fed and past:
            fail(KNOWN["window-not-reset"], details)
        if error is not None:
            fail(KNOWN["too-long-refused"], f"{type(error).__name__}: {str(error)[:150]}", details)
        if torch.equal(given, ids[:, :M]):
            fail(KNOWN["keeps-the-beginning"], details)
        if given.size(1) < M:
            fail(KNOWN["window-too-short"], details)
        if not torch.equal(given, ids[:, -M:]):
            fail(f"Other tokens are fed than the last {M}. {details}", id="wrong-window", hint=7)
        with torch.no_grad():
            want = Reader()(ids[:, -M:])[:, -1]
        got = tensor(got, "the logits")
        if got.shape != want.shape or not torch.allclose(got, want, rtol=1e-3, atol=1e-3):
            fail(
                f"The logits are not those of the last {M} tokens. {details}",
                id="wrong-logits",
                hint=7,
            )
        if not torch.equal(ids, before):
            fail(KNOWN["edits-ids"])

    model, cache = Reader(), piece.KVCache(config(), B, M)
    next_logits = piece.cached_logits(model, cache)
    ids = text(M + 4, seed=4)
    read(next_logits, model, ids[:, : M - 1], 0, 1)
    model.fed.clear()
    next_logits(ids[:, :M])
    if [part.size(1) for _, part in model.fed] != [1]:
        fail(
            KNOWN["starts-over-too-early"],
            f"max_length = {M}, and a text of {M} tokens, of which {M - 1} are stored: {sum(part.size(1) for _, part in model.fed)} are fed.",
        )
    for number, t in enumerate(range(M + 1, M + 4), 3):
        expect(next_logits, model, ids[:, :t], number)
    model, cache = Reader(), piece.KVCache(config(), B, M)
    expect(piece.cached_logits(model, cache), model, ids, 1)  # too long from the start


@check(todo=12, needs=test_longer_than_the_cache, points=2)
def test_generates(piece):
    """generate_tokens and the course's GPT-2 write the same text with and without the cache"""
    from gpt2.model import GPT2Model
    from gpt2.sampling import generate_tokens

    model = GPT2Model(config()).eval()
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=g) * 0.3)

    def plain(ids):
        with torch.no_grad():
            return model(ids[:, -P:])[:, -1]

    for T, n in ((1, P - 1), (4, P - 4), (3, P)):
        ids = text(T, seed=T)
        want = torch.stack(list(generate_tokens(plain, ids, n, temperature=0.0)))
        cache = piece.KVCache(config(), B)
        with torch.no_grad():
            got = torch.stack(
                list(generate_tokens(piece.cached_logits(model, cache), ids, n, temperature=0.0))
            )
        if not torch.equal(got, want):
            at = int((got != want).any(1).nonzero()[0])
            fail(
                f"With the cache the text differs from new token {at + 1} of {n} on, after a prompt of {T}.",
                id="wrong-text",
                hint=7,
            )
