"""Checks of problem 01. The oracle is PyTorch's own embedding, on the learner's tables."""

import re

import torch
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_dropout,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_memory,
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
from learn_gpt2.checking.textbook import count, embeddings

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C, V, P = sizes_from((2, 5, 6, 11, 23), (3, 6, 8, 13, 29), (2, 4, 10, 17, 27))

KNOWN = known(__file__)
EXPLAIN = {
    "ln": KNOWN["layer-norm-added"],
    "norm": KNOWN["layer-norm-added"],
    "pos": KNOWN["positions-in-state-dict"],
}


def layer_of(piece, v=V, p=P, c=C, dropout=0.1, seed=0):
    return fill(expect_module(piece.Embeddings(v, p, c, dropout)).eval(), seed)


def ids_of(b=B, t=T, v=V, seed=0):
    return torch.randint(v, (b, t), generator=torch.Generator().manual_seed(seed))


def examine(layer, ids, start=0, call=None):
    """Compare with PyTorch's lookup of the same rows."""
    w = weights(layer)
    wte, wpe = w["wte.weight"], w["wpe.weight"]
    want = wte[ids] + wpe[start : start + ids.size(1)]
    call = call or (lambda: layer(ids, start) if start else layer(ids))

    def run():
        try:
            return call()
        except ValueError as error:
            fail(
                KNOWN["bound-too-strict"],
                f"start_pos = {start}, T = {ids.size(1)}, n_positions = {len(wpe)} raised: {error}",
            )

    try:
        compare(
            run,
            want,
            KNOWN.of("lookup"),
            lambda **switches: embeddings(wte, wpe, ids, start, **switches),
            axes="B T C",
            sizes={"C": wte.size(-1)},
            given=(ids,),
        )
    except CheckFailed as error:
        if not error.mistakes:
            read_back(tensor(run()), wte, wpe, ids, start)
        raise
    if any(not torch.equal(w[name], value) for name, value in weights(layer).items()):
        fail("A lookup must not change the tables.", id="edits-weights")
    if not torch.allclose(run(), want, rtol=1e-4, atol=1e-5):
        fail(KNOWN["module-remembers"])


def read_back(got, wte, wpe, ids, start):
    """Fail with what the output is made of, when it is made of rows of the tables."""
    got = got.detach()
    tokens, places = wte[ids], wpe[start : start + ids.size(1)].expand(*ids.shape, -1)
    if got.shape != tokens.shape:
        return
    for name, rest, table, expected in (
        ("positions", got - tokens, wpe, torch.arange(start, start + ids.size(1)).expand_as(ids)),
        ("tokens", got - places, wte, ids),
    ):
        rows = torch.cat((table, torch.zeros(1, table.size(-1))))
        distance, found = torch.cdist(rest.flatten(0, 1), rows).min(-1)
        if distance.max() < 1e-4:
            found = found.view_as(ids)
            b = int((found != expected).any(1).nonzero()[0])
            used = ["none" if int(i) == len(table) else str(int(i)) for i in found[b]]
            fail(
                f"Row {b} of the batch gets the vectors of {name} {' '.join(used)}, expected "
                f"{' '.join(str(int(i)) for i in expected[b])}.",
                id=f"wrong-{name}",
                hint=3,
            )
    parts = torch.stack((tokens.flatten(), places.flatten()), 1).double()
    a, b = torch.linalg.lstsq(parts, got.flatten().double()[:, None]).solution.flatten()
    if torch.allclose(parts @ torch.stack((a, b)), got.flatten().double(), atol=1e-4):
        fail(
            f"You add {a:.4g} times the token's vector and {b:.4g} times the position's. GPT-2 "
            "takes both as they are.",
            id="vectors-scaled",
            hint=4,
        )


@check(todo=1)
def test_builds(piece):
    """The module holds wte, wpe and drop, under these names and in these sizes."""
    cls = piece.Embeddings
    expect_signature(
        cls.__init__, "(vocab_size, n_positions, n_embd, dropout=0.1)", "Embeddings.__init__"
    )
    layer = expect_module(cls(vocab_size=V, n_positions=P, n_embd=C, dropout=0.3))
    tables = {name: attribute(layer, name, nn.Embedding) for name in ("wte", "wpe")}
    shapes = {name: tuple(table.weight.shape) for name, table in tables.items()}
    want = {"wte": (V, C), "wpe": (P, C)}
    found = f"Made with V = {V}, P = {P}, C = {C}: wte is {shapes['wte']}, wpe is {shapes['wpe']}."
    if (shapes["wte"], shapes["wpe"]) == (want["wpe"], want["wte"]):
        fail(KNOWN["tables-swapped:tables-swapped"], found)
    for name, shape in shapes.items():
        if shape == want[name][::-1]:
            fail(KNOWN["table-transposed"], found)
        if shape != want[name]:
            fail(KNOWN["table-shape"], f"{found} {name} must be {want[name]}.")
    for name, table in tables.items():
        if table.padding_idx is not None:
            fail(KNOWN["padding-idx"], f"{name}.padding_idx is {table.padding_idx}.")
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(table, option):
                fail(
                    KNOWN["embedding-option"],
                    f"{name} was made with {option}={getattr(table, option)}.",
                )
        if table.weight.dtype != torch.float32:
            fail(
                f"{name} has dtype {table.weight.dtype}, expected torch.float32.", id="fixed-dtype"
            )
        if not table.weight.requires_grad:
            fail(
                f"{name} is frozen (requires_grad=False): GPT-2 learns both tables.",
                id="frozen-table",
                hint=1,
            )
    drop = attribute(layer, "drop", nn.Dropout, "other code looks for it and sets its p")
    default = cls(V, P, C).drop.p
    if drop.p != 0.3 or default != 0.1:
        asked, got = (0.3, drop.p) if drop.p != 0.3 else ("nothing", default)
        fail(KNOWN["dropout-rate"], f"dropout={asked} was asked for, and drop.p is {got}.")
    expect_state(layer, ("wte.weight", "wpe.weight"), EXPLAIN)
    expect_own_start(lambda: cls(V, P, C))


@check(todo=4, needs=test_builds)
def test_worked_example(piece):
    """By hand: tokens 2 0 2 and 0 0 1 with C = 2, the tables of the README"""
    # tokens 0, 1, 2 are (1, 0), (0, 1), (2, 2); positions 0, 1, 2 are (.1, .2), (.3, .4), (.5, .6)
    layer = layer_of(piece, v=3, p=8, c=2)
    with torch.no_grad():
        layer.wte.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [2, 2]]))
        layer.wpe.weight.copy_(torch.arange(1, 17).view(8, 2) / 10)
    ids = torch.tensor([[2, 0, 2], [0, 0, 1]])
    expect_also_larger(lambda: examine(layer, ids), lambda: examine(layer_of(piece), ids_of()))
    want = [[[2.1, 2.2], [1.3, 0.4], [2.5, 2.6]], [[1.1, 0.2], [1.3, 0.4], [0.5, 1.6]]]
    compare(layer(ids), torch.tensor(want), axes="B T C")


@check(todo=4, needs=test_worked_example, points=2)
def test_token_plus_position(piece):
    """Each token's row of wte plus its position's row of wpe, in every row of the batch"""
    layer = layer_of(piece)
    expect_signature(type(layer).forward, "(input_ids, start_pos=0)", "Embeddings.forward")
    examine(layer, ids_of())
    for b, t in ((1, 5), (3, 2), (4, 4), (5, 3)):
        examine(layer, ids_of(b, t, seed=b))


@check(todo=4, needs=test_token_plus_position, points=2)
def test_start_pos(piece):
    """With start_pos tokens in the cache, positions go on where those end"""
    layer = layer_of(piece, seed=1)
    for start, t in ((3, 4), (5, 2), (7, 5)):
        examine(layer, ids_of(3, t, seed=start), start)
    ids = ids_of(3, 2)
    examine(layer, ids, 9, lambda: layer(input_ids=ids, start_pos=9))


@check(todo=4, needs=test_start_pos)
def test_in_pieces(piece):
    """A text fed in pieces, or token by token, gets what it gets in one go"""
    layer = layer_of(piece, seed=2)
    pieces = [(start, cut) for cut in (3, 1, 5) for start in (0, 2, 7)]
    calls = [lambda m, s=s, t=t: tensor(m(ids_of(1, t, seed=s), s)) for s, t in pieces]
    expect_no_memory(layer, calls, hint=3)
    for cut in (1, 3):
        for start in range(0, 7, cut):
            examine(layer, ids_of(1, cut, seed=start), start)


@check(todo=4, needs=test_start_pos)
def test_up_to_the_last_position(piece):
    """start_pos + T = n_positions still works: the table has a row for it"""
    layer = layer_of(piece, p=9)
    for start, t in ((0, 9), (8, 1), (5, 4)):
        examine(layer, ids_of(B, t), start)


@check(todo=4, needs=test_up_to_the_last_position, points=2)
def test_too_many_positions(piece):
    """start_pos + T > n_positions is a ValueError that names both numbers"""
    p = 31
    layer = layer_of(piece, p=p)
    cases = {"by-one": (0, 32), "length": (0, 45), "start": (37, 6), "sum": (19, 23)}
    cases |= {"start-by-one": (29, 3), "last": (31, 1)}
    errors = {}
    for name, (start, t) in cases.items():
        try:
            errors[name] = None
            got = layer(ids_of(B, t), start)
        except NotImplementedError:
            raise
        except Exception as error:
            errors[name] = error
            continue
        _diagnose_accepted(layer, got, start, t, p)
    refused = {name for name, error in errors.items() if isinstance(error, ValueError)}
    if not refused:
        error = errors["length"]
        own = error is not None and _raised_by(piece, error)
        if own:
            fail(
                f"Too many positions raise {type(error).__name__}; make it a ValueError.",
                id="wrong-error-type",
                hint=2,
            )
        says = f"{type(error).__name__}: {error}".splitlines()[0] if error else "nothing"
        fail(KNOWN["bound-missing"], f"start_pos = 0, T = 45, n_positions = {p} raises {says}")
    if {"length", "by-one"} <= refused and not {"sum", "start-by-one"} & refused:
        fail(
            KNOWN["bound-ignores-start"],
            f"start_pos = 19, T = 23, n_positions = {p} is let through.",
        )
    if "length" not in refused:
        fail(
            KNOWN["bound-ignores-length"],
            f"start_pos = 0, T = 45, n_positions = {p} is let through.",
        )
    for name, (start, t) in cases.items():
        if name not in refused:
            fail(
                KNOWN["bound-too-loose"],
                f"start_pos = {start}, T = {t}, n_positions = {p} is let through.",
            )
    for start, t in cases.values():
        _expect_numbers(layer, start, t, p)


def _expect_numbers(layer, start, t, p):
    """The error's text names n_positions and start_pos + T (or its two terms)."""
    try:
        layer(ids_of(B, t), start)
    except ValueError as error:
        numbers = set(re.findall(r"\d+", str(error).replace(",", "").replace("_", "")))
        if str(p) in numbers and (str(start + t) in numbers or {str(start), str(t)} <= numbers):
            return
        fail(
            f"The ValueError must name both numbers, start_pos + T and n_positions. With {start} + "
            f"{t} and {p} it says: {str(error)[:120]!r}.",
            id="unhelpful-error",
            hint=2,
        )


def _diagnose_accepted(layer, got, start, t, p):
    """Name what was made of positions that do not exist."""
    w = weights(layer)
    wte, wpe = w["wte.weight"], w["wpe.weight"]
    ids = ids_of(B, t)
    got = tensor(got)
    if got.dim() == 3 and got.size(1) < t:
        fail(
            KNOWN["input-truncated"],
            f"start_pos = {start}, T = {t}, n_positions = {p} gives {tuple(got.shape)}",
        )
    for m, pos in (
        (KNOWN["positions-clamped"], count(ids, start).clamp(max=p - 1)),
        (KNOWN["positions-wrapped:wrapped"], count(ids, start) % p),
        (KNOWN["positions-clamped"], torch.arange(p - t, p).clamp(min=0)),
    ):
        if got.shape == (B, t, C) and torch.allclose(got, wte[ids] + wpe[pos], atol=1e-5):
            fail(m, f"start_pos = {start}, T = {t}, n_positions = {p} is let through.")


def _raised_by(piece, error):
    """Whether the learner's own file raised it, on purpose."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    if trace.tb_frame.f_code.co_filename != str(piece.path):
        return False
    line = piece.path.read_text(encoding="utf-8").splitlines()[trace.tb_lineno - 1]
    return re.search(r"\b(raise|assert)\b", line) is not None


@check(todo=4, needs=test_token_plus_position, points=2, follows=test_start_pos)
def test_dropout(piece):
    """Dropout acts on the sum, in training only, with the rate that was asked for"""
    ids = ids_of(3, 16)
    layer = layer_of(piece, dropout=1.0)
    expect_mode_kept(layer, lambda: (layer(ids), layer(ids, 3)))
    layer.train()
    w = weights(layer)
    wte, wpe = w["wte.weight"], w["wpe.weight"]
    got, again = layer(ids), layer(ids)
    if not torch.equal(got, again):
        fail(KNOWN["dropout-rate"], "With dropout=1, in training, not everything is 0.")
    compare(
        got,
        torch.zeros(3, 16, C),
        KNOWN.of("dropout"),
        lambda **switches: embeddings(wte, wpe, ids, **switches),
        what="the output with dropout=1 in training",
    )
    if tensor(layer(ids, 3)).any():
        fail(KNOWN["dropout-missing"], "With start_pos = 3 not everything is 0.")
    p = 0.4
    layer = layer_of(piece, dropout=p)
    expect_dropout(
        lambda: layer(ids),
        layer,
        p,
        missing=KNOWN["dropout-missing"],
        in_eval=KNOWN["dropout-in-eval"],
        misplaced=KNOWN["dropout-apart"],
    )
    layer.train()
    torch.manual_seed(0)
    with torch.no_grad():
        gone = layer(ids) == 0
    for axis in range(3):
        if (gone == gone.select(axis, 0).unsqueeze(axis)).all():
            fail(KNOWN["dropout-whole-rows"])


@check(todo=4, needs=test_start_pos, follows=(test_in_pieces, test_dropout))
def test_no_dropout(piece):
    """dropout=0 changes nothing in training"""
    layer = layer_of(piece, dropout=0.0).train()
    ids = ids_of(3, 5)
    for start in (0, 2):
        expect_mode_kept(layer, lambda start=start: layer(ids, start))
        examine(layer.train(), ids, start)


@check(todo=4, needs=test_start_pos)
def test_gradients(piece):
    """Both tables learn: each row that was used gets its gradient, the others none"""
    layer = layer_of(piece)
    ids = torch.tensor([[3, 0, 3, 5], [5, 1, 3, 0]])
    out = layer(ids, 2)
    expect_finite_gradients(layer, out.pow(2).sum())
    w = weights(layer)
    wte, wpe = w["wte.weight"].requires_grad_(), w["wpe.weight"].requires_grad_()
    embeddings(wte, wpe, ids, 2).pow(2).sum().backward()
    compare(layer.wte.weight.grad, wte.grad, what="the gradient of wte.weight", axes="V C")
    compare(layer.wpe.weight.grad, wpe.grad, what="the gradient of wpe.weight", axes="P C")
    after = weights(layer)
    if any(not torch.equal(after[name], w[name]) for name in after):
        fail("A lookup must not change the tables.", id="edits-weights")


@check(todo=4, needs=test_start_pos)
def test_dtypes(piece):
    """In float64 and bfloat16 the output has the tables' dtype"""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 2e-2)):
        layer = layer_of(piece).to(dtype)
        ids = ids_of()
        got = tensor(layer(ids, 1))
        if got.dtype != dtype:
            fail(
                f"With tables in {dtype} the output comes out as {got.dtype}: is a dtype written "
                "into forward?",
                id="fixed-dtype",
            )
        w = weights(layer.double())
        want = w["wte.weight"][ids] + w["wpe.weight"][1 : 1 + T]
        compare(got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance)


again = Recurring(
    layer_of, ids_of, call=lambda module, ids: module(ids, 4), todo=4, needs=test_start_pos
)
test_device = again.device("Works on whatever device the ids are on", hint=3)
test_copies = again.copies(
    "A deep copy, and a second module that loads its state_dict, give the same", *(3, 7)
)


@check(todo=4, needs=test_start_pos, follows=(test_up_to_the_last_position, test_in_pieces))
def test_other_sizes(piece):
    """No size is written into the code: other widths, vocabularies and lengths work"""
    for v, p, c in ((5, 3, 1), (7, 40, 17), (300, 12, 32)):
        layer = layer_of(piece, v, p, c, seed=v)
        examine(layer, ids_of(2, 3, v, seed=c))
        if p > 4:
            examine(layer, ids_of(2, 3, v, seed=c), 4)
