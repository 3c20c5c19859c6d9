"""Checks of problem 01. The oracle is PyTorch's own embedding, on the learner's tables."""

import re

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
    expect_dropout,
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

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C, V, P = sizes_from((2, 5, 6, 11, 23), (3, 6, 8, 13, 29), (2, 4, 10, 17, 27))

NORM_ADDED = mistake(
    "layer-norm-added",
    "The sum is normalized. GPT-2's first layer norm stands inside the first block (problem 08); "
    "here the sum goes out as it is.",
    4,
    after=lambda y, wte: F.layer_norm(y, y.shape[-1:]),
)
POSITIONS_TOO_FEW = mistake(
    "positions-too-few",
    "torch.arange(a, b) ends at b, it does not count to b: T positions from start_pos on end at "
    "start_pos + T.",
    3,
    positions=lambda ids, start: torch.arange(start, ids.size(1)),
)


def sinusoids(positions, width):
    """The fixed position vectors of "Attention Is All You Need", section 3.5."""
    rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = positions[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)[..., :width]


def steps(ids, start=0):
    """The right positions."""
    return torch.arange(start, start + ids.size(1))


MISTAKES = [
    mistake(
        "positions-ignore-start",
        "The positions always count from 0. With start_pos tokens in the cache, the first new one "
        "stands at position start_pos.",
        3,
        positions=lambda ids, start: steps(ids),
    ),
    mistake(
        "positions-from-one",
        "Your positions are one too high: the first token of all stands at position 0, and the "
        "first new one at start_pos.",
        3,
        positions=lambda ids, start: steps(ids, start + 1),
    ),
    mistake(
        "positions-one-too-low",
        "Your positions are one too low: start_pos tokens hold positions 0 … start_pos-1, so the "
        "next one is start_pos itself.",
        3,
        positions=lambda ids, start: steps(ids, start - 1),
    ),
    POSITIONS_TOO_FEW,
    mistake(
        "positions-shifted-by-length",
        "The positions begin at start_pos + T, where they should end. They begin at start_pos.",
        3,
        positions=lambda ids, start: steps(ids, start + ids.size(1)),
    ),
    mistake(
        "positions-start-multiplied",
        "start_pos counts tokens, not blocks of T: the positions begin at start_pos itself.",
        3,
        positions=lambda ids, start: steps(ids, start * ids.size(1)),
    ),
    mistake(
        "positions-start-doubled",
        "start_pos is added twice. The positions begin at start_pos.",
        3,
        positions=lambda ids, start: steps(ids, 2 * start),
    ),
    mistake(
        "positions-start-subtracted",
        "start_pos is subtracted. The positions begin at start_pos and count up.",
        3,
        positions=lambda ids, start: steps(ids, -start).abs(),
    ),
    mistake(
        "positions-reversed",
        "The positions count backwards. The first token gets start_pos, the last start_pos + T-1.",
        3,
        positions=lambda ids, start: steps(ids, start).flip(0),
    ),
    mistake(
        "positions-all-the-same",
        "Every token gets the same position. Each needs its own, start_pos … start_pos+T-1.",
        3,
        positions=lambda ids, start: torch.full((ids.size(1),), start),
    ),
    mistake(
        "positions-all-the-same",
        "Every token gets the last token's position. Each needs its own, start_pos … start_pos+T-1.",
        3,
        positions=lambda ids, start: torch.full((ids.size(1),), start + ids.size(1) - 1),
    ),
    mistake(
        "positions-all-the-same",
        "Every token gets position 0. Each needs its own, start_pos … start_pos+T-1.",
        3,
        positions=lambda ids, start: torch.zeros(ids.size(1), dtype=torch.long),
    ),
    mistake(
        "positions-all-the-same",
        "Every token gets position T. Each needs its own, start_pos … start_pos+T-1.",
        3,
        positions=lambda ids, start: torch.full((ids.size(1),), ids.size(1)),
    ),
    mistake(
        "positions-along-batch",
        "Your positions run along the batch: every token of a row gets the row's number. They must "
        "run along T, the second axis, the same in every row.",
        3,
        positions=lambda ids, start: torch.arange(start, start + ids.size(0))[:, None],
    ),
    mistake(
        "positions-along-batch",
        "You make as many positions as the batch has rows. Their number is T, the second axis.",
        3,
        positions=lambda ids, start: torch.arange(start, start + ids.size(0)),
    ),
    mistake(
        "positions-wrong-axis",
        "The position vectors have the shape (T, 1, C), so they line up with the batch. They must "
        "line up with T: (T, C) or (1, T, C).",
        3,
        positions=lambda ids, start: steps(ids, start)[:, None],
    ),
    mistake(
        "positions-through-batch",
        "The positions count on from one row of the batch to the next. Each row is a text of its "
        "own and starts at start_pos.",
        3,
        positions=lambda ids, start: torch.arange(start, start + ids.numel()).view(ids.shape),
    ),
    mistake(
        "positions-mixed-with-batch",
        "The positions are repeated in the wrong order for the batch: B times each in a row. Every "
        "row must count start_pos, start_pos+1, … (broadcasting does it with no repeat).",
        3,
        positions=lambda ids, start: (
            steps(ids, start).repeat_interleave(ids.size(0)).view(ids.shape)
        ),
    ),
    mistake(
        "positions-mixed-with-batch",
        "The positions are reshaped to (T, B) and back, which mixes rows and columns. Every row "
        "must count start_pos, start_pos+1, … (broadcasting does it with no repeat).",
        3,
        positions=lambda ids, start: (
            steps(ids, start).repeat(ids.size(0)).view(ids.size(1), -1).t()
        ),
    ),
    mistake(
        "positions-wrapped",
        "Positions past the table are wrapped round (%), so distant tokens share a position.",
        2,
        positions=lambda ids, start: steps(ids, start) % ids.size(1),
    ),
    mistake(
        "positions-spaced",
        "Your positions go up in steps of 2. They count one by one.",
        3,
        positions=lambda ids, start: start + 2 * steps(ids),
    ),
    mistake(
        "positions-are-ids",
        "You look the token ids up in wpe as well. What goes into wpe is where a token stands: "
        "start_pos … start_pos+T-1.",
        3,
        positions=lambda ids, start: ids,
    ),
    mistake(
        "positions-are-ranks",
        "A token's position is the rank of its id here (argsort), or counts only some tokens. It is "
        "where it stands in the text, whatever its id is.",
        3,
        positions=lambda ids, start: start + ids.argsort(-1),
    ),
    mistake(
        "positions-are-ranks",
        "The positions skip tokens with id 0, as models with padding do. GPT-2 has no padding: "
        "every token counts.",
        3,
        positions=lambda ids, start: start + ((ids != 0).cumsum(-1) - 1).clamp(min=0),
    ),
    mistake(
        "tables-swapped",
        "Ids are looked up in wpe and positions in wte. wte holds tokens, wpe positions.",
        4,
        tables=lambda wte, wpe: (wpe, wte),
    ),
    mistake(
        "positions-from-wte",
        "The positions are looked up in wte, the table of tokens. They have a table of their own, "
        "wpe.",
        4,
        tables=lambda wte, wpe: (wte, wte),
    ),
    mistake(
        "tokens-from-wpe",
        "The ids are looked up in wpe, the table of positions. They have a table of their own, wte.",
        4,
        tables=lambda wte, wpe: (wpe, wpe),
    ),
    mistake(
        "position-missing",
        "wpe has no part in the result: the same word gets the same vector wherever it stands.",
        4,
        place=lambda wpe, pos: 0.0,
    ),
    mistake(
        "token-missing",
        "wte has no part in the result: it says where each token stands, but not which one it is.",
        4,
        token=lambda wte, ids: torch.zeros(*ids.shape, wte.size(-1)),
    ),
    mistake(
        "table-not-cut",
        "All n_positions rows of wpe are added, whatever the length of the text. Look up the T rows "
        "from start_pos on.",
        3,
        place=lambda wpe, pos: wpe,
    ),
    mistake(
        "sinusoidal-positions",
        "You add the fixed sines and cosines of the 2017 Transformer. GPT-2 learns its positions: "
        "they are rows of wpe.",
        4,
        place=lambda wpe, pos: sinusoids(pos, wpe.size(-1)),
    ),
    mistake(
        "sinusoidal-positions",
        "You add the fixed sines and cosines of the 2017 Transformer to learned positions. GPT-2 "
        "has only the learned ones, wpe.",
        4,
        place=lambda wpe, pos: F.embedding(pos, wpe) + sinusoids(pos, wpe.size(-1)),
    ),
    mistake(
        "positions-not-embedded",
        "You add the position itself, a number, to the token's vector. Look its row up in wpe.",
        4,
        place=lambda wpe, pos: pos[..., None],
    ),
    mistake(
        "position-added-twice",
        "The position's vector is added twice. Once is enough.",
        4,
        place=lambda wpe, pos: 2 * F.embedding(pos, wpe),
    ),
    mistake(
        "multiplied",
        "You multiply the token's vector by the position's. GPT-2 adds them.",
        4,
        combine=lambda t, p: t * p,
    ),
    mistake(
        "subtracted", "You subtract the position's vector. Add it.", 4, combine=lambda t, p: t - p
    ),
    mistake(
        "averaged",
        "You take the mean of the two vectors: half of what is wanted. GPT-2 adds them as they are.",
        4,
        combine=lambda t, p: (t + p) / 2,
    ),
    mistake(
        "concatenated",
        "You put the two vectors side by side. Every layer that follows has width C, so add them.",
        4,
        combine=lambda t, p: torch.cat((t, p.expand_as(t)), -1),
    ),
    mistake(
        "scaled-by-root-width",
        "The token's vector is multiplied by √C, as in the 2017 Transformer. GPT-2 does not do that.",
        4,
        token=lambda wte, ids: F.embedding(ids, wte) * wte.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-by-root-width",
        "The token's vector is divided by √C. GPT-2 takes it as it is.",
        4,
        token=lambda wte, ids: F.embedding(ids, wte) / wte.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-by-root-width",
        "The sum is multiplied by √C. GPT-2 takes it as it is.",
        4,
        after=lambda y, wte: y * wte.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-by-root-width",
        "The sum is divided by √C. GPT-2 takes it as it is.",
        4,
        after=lambda y, wte: y / wte.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-by-root-two",
        "The sum is divided by √2. GPT-2 takes it as it is.",
        4,
        after=lambda y, wte: y / 2**0.5,
    ),
    NORM_ADDED,
    mistake(
        "vectors-normalised",
        "The vectors are brought to length 1. They go out as they are, whatever their length.",
        4,
        after=lambda y, wte: F.normalize(y, dim=-1),
    ),
    mistake(
        "activation-added",
        "A tanh is applied to the sum. Nothing is: the sum goes out as it is.",
        4,
        after=lambda y, wte: y.tanh(),
    ),
    mistake(
        "activation-added",
        "A ReLU is applied to the sum. Nothing is: the sum goes out as it is.",
        4,
        after=lambda y, wte: y.relu(),
    ),
    mistake(
        "activation-added",
        "A GELU is applied to the sum. Nothing is: the sum goes out as it is.",
        4,
        after=lambda y, wte: F.gelu(y, approximate="tanh"),
    ),
    mistake(
        "ids-transposed",
        "The ids are transposed: rows are texts (the batch), columns are tokens.",
        4,
        token=lambda wte, ids: F.embedding(ids.t(), wte),
    ),
    mistake(
        "output-transposed",
        "The numbers are right, and batch and tokens are swapped. The shape is (B, T, C).",
        4,
        after=lambda y, wte: y.transpose(0, 1),
    ),
    mistake(
        "ids-one-too-high",
        "The ids are off by one: row 0 of wte belongs to token 0.",
        4,
        token=lambda wte, ids: F.embedding(ids + 1, wte),
    ),
    mistake(
        "ids-one-too-high",
        "The ids are off by one: row 0 of wte belongs to token 0.",
        4,
        token=lambda wte, ids: F.embedding((ids - 1).clamp(min=0), wte),
    ),
]
DROPOUT = [
    mistake(
        "dropout-missing",
        "There is no dropout: with dropout=1, in training, everything would be 0.",
        5,
        dropped=lambda t, p: t + p,
    ),
    mistake(
        "dropout-on-tokens-only",
        "Dropout acts on the token's vector alone. It acts on the sum of the two.",
        5,
        dropped=lambda t, p: p.expand_as(t),
    ),
    mistake(
        "dropout-on-positions-only",
        "Dropout acts on the position's vector alone. It acts on the sum of the two.",
        5,
        dropped=lambda t, p: t,
    ),
]
DROPOUT_APART = mistake(
    "dropout-apart",
    "Dropout does not act on the sum: the token's and the position's vectors are dropped apart, or "
    "something is added afterwards. Add first, drop once.",
    5,
)
DROPOUT_MISSING = DROPOUT[0]
DROPOUT_IN_EVAL = mistake(
    "dropout-in-eval",
    "Dropout is active in eval mode. nn.Dropout follows train() and eval() by itself; "
    "F.dropout needs training=self.training.",
    5,
)
DROPOUT_IN_ROWS = mistake(
    "dropout-whole-rows",
    "Dropout takes whole vectors, or the same places in every row. Each number is dropped by itself.",
    5,
)
DROPOUT_RATE = mistake(
    "dropout-rate", "Dropout does not use the `dropout` that the module was made with.", 5
)
TABLE_SHAPE = mistake(
    "table-shape", "A table has a row for each thing that can be looked up, and rows of width C.", 1
)
TABLES_SWAPPED = mistake(
    "tables-swapped", "The sizes of wte and wpe are swapped: wte holds tokens, wpe positions.", 1
)
TABLE_TRANSPOSED = mistake(
    "table-transposed",
    "The two sizes of a table are swapped: nn.Embedding(number of rows, width of a row).",
    1,
)
PADDING = mistake(
    "padding-idx",
    "padding_idx sets a row to 0 and keeps it from learning. In GPT-2 every token is a token: leave "
    "it out.",
    1,
)
OPTIONS = mistake(
    "embedding-option",
    "The tables are plain nn.Embedding with no option: each row is stored and learned as it is.",
    1,
)
BOUND_STRICT = mistake(
    "bound-too-strict",
    "Positions 0 … n_positions-1 all have a row: start_pos + T may be as large as n_positions.",
    2,
)
BOUND_LOOSE = mistake(
    "bound-too-loose",
    "One position too many gets through. The last position is start_pos + T - 1, and the table's "
    "last row n_positions - 1: refuse start_pos + T > n_positions.",
    2,
)
BOUND_IGNORES_START = mistake(
    "bound-ignores-start",
    "Only T is compared with n_positions. What has to fit is start_pos + T.",
    2,
)
BOUND_IGNORES_LENGTH = mistake(
    "bound-ignores-length",
    "Only start_pos is compared with n_positions. What has to fit is start_pos + T.",
    2,
)
BOUND_MISSING = mistake(
    "bound-missing",
    "Too many positions meet no check of yours. Compare start_pos + T with n_positions and raise a "
    "ValueError that names both, before anything is looked up.",
    2,
)
CLAMPED = mistake(
    "positions-clamped",
    "Positions past the table are clamped to its last row: several tokens then share one. Refuse "
    "them with a ValueError.",
    2,
)
WRAPPED = mistake(
    "positions-wrapped",
    "Positions past the table are wrapped round (%), so distant tokens share a position. Refuse "
    "them with a ValueError.",
    2,
)
TRUNCATED = mistake(
    "input-truncated",
    "Tokens past the table are cut off in silence. Refuse them with a ValueError.",
    2,
)
REMEMBERS = mistake(
    "module-remembers",
    "A second call gives something else: forward keeps a count in the module. Positions come from "
    "start_pos alone; whoever generates keeps count.",
    3,
)
EXPLAIN = {
    "ln": NORM_ADDED,
    "norm": NORM_ADDED,
    "pos": mistake(
        "positions-in-state-dict",
        "Your positions are a persistent buffer, which a checkpoint does not hold. Make them in "
        "forward (or register the buffer with persistent=False).",
        3,
    ),
}


def embed(
    wte,
    wpe,
    ids,
    start=0,
    *,
    positions=steps,
    tables=lambda wte, wpe: (wte, wpe),
    token=lambda wte, ids: F.embedding(ids, wte),
    place=lambda wpe, pos: F.embedding(pos, wpe),
    combine=lambda t, p: t + p,
    after=lambda y, wte: y,
    dropped=None,
):
    """The embeddings with any step replaced."""
    wte, wpe = tables(wte, wpe)
    t, p = token(wte, ids), place(wpe, positions(ids, start))
    if dropped is not None:
        return dropped(t, p)
    return after(combine(t, p), wte)


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
                BOUND_STRICT,
                f"start_pos = {start}, T = {ids.size(1)}, n_positions = {len(wpe)} raised: {error}",
            )

    try:
        compare(
            run,
            want,
            MISTAKES,
            lambda **switches: embed(wte, wpe, ids, start, **switches),
            axes="B T C",
            sizes={"C": wte.size(-1)},
            given=(ids,),
        )
    except CheckFailed as error:
        if not error.mistakes:
            read_back(tensor(run()), wte, wpe, ids, start)
        raise
    if any(not torch.equal(w[name], value) for name, value in weights(layer).items()):
        fail("A lookup must not change the tables. [edits-weights]")
    if not torch.allclose(run(), want, rtol=1e-4, atol=1e-5):
        fail(REMEMBERS)


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
                f"{' '.join(str(int(i)) for i in expected[b])}. (hint 3) [wrong-{name}]",
                hint=3,
            )
    parts = torch.stack((tokens.flatten(), places.flatten()), 1).double()
    a, b = torch.linalg.lstsq(parts, got.flatten().double()[:, None]).solution.flatten()
    if torch.allclose(parts @ torch.stack((a, b)), got.flatten().double(), atol=1e-4):
        fail(
            f"You add {a:.4g} times the token's vector and {b:.4g} times the position's. GPT-2 "
            "takes both as they are. (hint 4) [vectors-scaled]",
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
        fail(TABLES_SWAPPED, found)
    for name, shape in shapes.items():
        if shape == want[name][::-1]:
            fail(TABLE_TRANSPOSED, found)
        if shape != want[name]:
            fail(TABLE_SHAPE, f"{found} {name} must be {want[name]}.")
    for name, table in tables.items():
        if table.padding_idx is not None:
            fail(PADDING, f"{name}.padding_idx is {table.padding_idx}.")
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(table, option):
                fail(OPTIONS, f"{name} was made with {option}={getattr(table, option)}.")
        if table.weight.dtype != torch.float32:
            fail(f"{name} has dtype {table.weight.dtype}, expected torch.float32. [fixed-dtype]")
        if not table.weight.requires_grad:
            fail(
                f"{name} is frozen (requires_grad=False): GPT-2 learns both tables. (hint 1) [frozen-table]"
            )
    drop = attribute(layer, "drop", nn.Dropout, "other code looks for it and sets its p")
    default = cls(V, P, C).drop.p
    if drop.p != 0.3 or default != 0.1:
        asked, got = (0.3, drop.p) if drop.p != 0.3 else ("nothing", default)
        fail(DROPOUT_RATE, f"dropout={asked} was asked for, and drop.p is {got}.")
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
                f"Too many positions raise {type(error).__name__}; make it a ValueError. "
                "(hint 2) [wrong-error-type]",
                hint=2,
            )
        says = f"{type(error).__name__}: {error}".splitlines()[0] if error else "nothing"
        fail(BOUND_MISSING, f"start_pos = 0, T = 45, n_positions = {p} raises {says}")
    if {"length", "by-one"} <= refused and not {"sum", "start-by-one"} & refused:
        fail(BOUND_IGNORES_START, f"start_pos = 19, T = 23, n_positions = {p} is let through.")
    if "length" not in refused:
        fail(BOUND_IGNORES_LENGTH, f"start_pos = 0, T = 45, n_positions = {p} is let through.")
    for name, (start, t) in cases.items():
        if name not in refused:
            fail(BOUND_LOOSE, f"start_pos = {start}, T = {t}, n_positions = {p} is let through.")
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
            f"{t} and {p} it says: {str(error)[:120]!r}. (hint 2) "
            "[unhelpful-error]",
            hint=2,
        )


def _diagnose_accepted(layer, got, start, t, p):
    """Name what was made of positions that do not exist."""
    w = weights(layer)
    wte, wpe = w["wte.weight"], w["wpe.weight"]
    ids = ids_of(B, t)
    got = tensor(got)
    if got.dim() == 3 and got.size(1) < t:
        fail(TRUNCATED, f"start_pos = {start}, T = {t}, n_positions = {p} gives {tuple(got.shape)}")
    for m, pos in (
        (CLAMPED, steps(ids, start).clamp(max=p - 1)),
        (WRAPPED, steps(ids, start) % p),
        (CLAMPED, torch.arange(p - t, p).clamp(min=0)),
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
        fail(DROPOUT_RATE, "With dropout=1, in training, not everything is 0.")
    compare(
        got,
        torch.zeros(3, 16, C),
        DROPOUT,
        lambda **switches: embed(wte, wpe, ids, **switches),
        what="the output with dropout=1 in training",
    )
    if tensor(layer(ids, 3)).any():
        fail(DROPOUT_MISSING, "With start_pos = 3 not everything is 0.")
    p = 0.4
    layer = layer_of(piece, dropout=p)
    expect_dropout(
        lambda: layer(ids),
        layer,
        p,
        missing=DROPOUT_MISSING,
        in_eval=DROPOUT_IN_EVAL,
        misplaced=DROPOUT_APART,
    )
    layer.train()
    torch.manual_seed(0)
    with torch.no_grad():
        gone = layer(ids) == 0
    for axis in range(3):
        if (gone == gone.select(axis, 0).unsqueeze(axis)).all():
            fail(DROPOUT_IN_ROWS)


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
    embed(wte, wpe, ids, 2).pow(2).sum().backward()
    compare(layer.wte.weight.grad, wte.grad, what="the gradient of wte.weight", axes="V C")
    compare(layer.wpe.weight.grad, wpe.grad, what="the gradient of wpe.weight", axes="P C")
    after = weights(layer)
    if any(not torch.equal(after[name], w[name]) for name in after):
        fail("A lookup must not change the tables. [edits-weights]")


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
                "into forward? [fixed-dtype]"
            )
        w = weights(layer.double())
        want = w["wte.weight"][ids] + w["wpe.weight"][1 : 1 + T]
        compare(got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance)


@check(todo=4, needs=test_start_pos)
def test_device(piece):
    """Works on whatever device the ids are on"""
    layer = layer_of(piece)
    expect_one_device(layer, lambda module, move: module(move(ids_of()), 2), hint=3)


@check(todo=4, needs=test_start_pos)
def test_copies(piece):
    """A deep copy, and a second module that loads its state_dict, give the same"""
    layer = layer_of(piece)
    ids = ids_of(3, 7)
    expect_copies(layer, lambda module: module(ids, 4))


@check(todo=4, needs=test_start_pos, follows=(test_up_to_the_last_position, test_in_pieces))
def test_other_sizes(piece):
    """No size is written into the code: other widths, vocabularies and lengths work"""
    for v, p, c in ((5, 3, 1), (7, 40, 17), (300, 12, 32)):
        layer = layer_of(piece, v, p, c, seed=v)
        examine(layer, ids_of(2, 3, v, seed=c))
        if p > 4:
            examine(layer, ids_of(2, 3, v, seed=c), 4)
