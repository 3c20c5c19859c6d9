"""The known mistakes of problem 01, by the step that they replace (see `textbook`)."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.families import of_one_dropout
from learn_gpt2.checking.textbook import count, gelu

KNOWN = Catalog()


def sinusoids(positions, width):
    """The fixed position vectors of "Attention Is All You Need", section 3.5."""
    rates = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angles = positions[..., None] * rates
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(-2)[..., :width]


lookup = KNOWN.section("lookup", hint=4)
lookup(
    "positions-ignore-start",
    "The positions always count from 0. With start_pos tokens in the cache, the first new one stands at position start_pos.",
    hint=3,
    positions=lambda ids, start: count(ids),
)
lookup(
    "positions-from-one",
    "Your positions are one too high: the first token of all stands at position 0, and the first new one at start_pos.",
    hint=3,
    positions=lambda ids, start: count(ids, start + 1),
)
lookup(
    "positions-one-too-low",
    "Your positions are one too low: start_pos tokens hold positions 0 … start_pos-1, so the next one is start_pos itself.",
    hint=3,
    positions=lambda ids, start: count(ids, start - 1),
)
lookup(
    "positions-too-few",
    "torch.arange(a, b) ends at b, it does not count to b: T positions from start_pos on end at start_pos + T.",
    hint=3,
    positions=lambda ids, start: torch.arange(start, ids.size(1)),
)
lookup(
    "positions-shifted-by-length",
    "The positions begin at start_pos + T, where they should end. They begin at start_pos.",
    hint=3,
    positions=lambda ids, start: count(ids, start + ids.size(1)),
)
lookup(
    "positions-start-multiplied",
    "start_pos counts tokens, not blocks of T: the positions begin at start_pos itself.",
    hint=3,
    positions=lambda ids, start: count(ids, start * ids.size(1)),
)
lookup(
    "positions-start-doubled",
    "start_pos is added twice. The positions begin at start_pos.",
    hint=3,
    positions=lambda ids, start: count(ids, 2 * start),
)
lookup(
    "positions-start-subtracted",
    "start_pos is subtracted. The positions begin at start_pos and count up.",
    hint=3,
    positions=lambda ids, start: count(ids, -start).abs(),
)
lookup(
    "positions-reversed",
    "The positions count backwards. The first token gets start_pos, the last start_pos + T-1.",
    hint=3,
    positions=lambda ids, start: count(ids, start).flip(0),
)
lookup(
    "positions-all-the-same",
    "Every token gets the same position. Each needs its own, start_pos … start_pos+T-1.",
    way(positions=lambda ids, start: torch.full((ids.size(1),), start)),
    way(
        says=(
            "Every token gets the last token's position. Each needs its own, start_pos … start_pos+T-1."
        ),
        positions=lambda ids, start: torch.full((ids.size(1),), start + ids.size(1) - 1),
    ),
    way(
        says="Every token gets position 0. Each needs its own, start_pos … start_pos+T-1.",
        positions=lambda ids, start: torch.zeros(ids.size(1), dtype=torch.long),
    ),
    way(
        says="Every token gets position T. Each needs its own, start_pos … start_pos+T-1.",
        positions=lambda ids, start: torch.full((ids.size(1),), ids.size(1)),
    ),
    hint=3,
)
lookup(
    "positions-along-batch",
    "Your positions run along the batch: every token of a row gets the row's number. They must run along T, the second axis, the same in every row.",
    way(positions=lambda ids, start: torch.arange(start, start + ids.size(0))[:, None]),
    way(
        says=(
            "You make as many positions as the batch has rows. Their number is T, the second axis."
        ),
        positions=lambda ids, start: torch.arange(start, start + ids.size(0)),
    ),
    hint=3,
)
lookup(
    "positions-wrong-axis",
    "The position vectors have the shape (T, 1, C), so they line up with the batch. They must line up with T: (T, C) or (1, T, C).",
    hint=3,
    positions=lambda ids, start: count(ids, start)[:, None],
)
lookup(
    "positions-through-batch",
    "The positions count on from one row of the batch to the next. Each row is a text of its own and starts at start_pos.",
    hint=3,
    positions=lambda ids, start: torch.arange(start, start + ids.numel()).view(ids.shape),
)
lookup(
    "positions-mixed-with-batch",
    "The positions are repeated in the wrong order for the batch: B times each in a row. Every row must count start_pos, start_pos+1, … (broadcasting does it with no repeat).",
    way(
        positions=lambda ids, start: (
            count(ids, start).repeat_interleave(ids.size(0)).view(ids.shape)
        )
    ),
    way(
        says="The positions are reshaped to (T, B) and back, which mixes rows and columns. Every row must count start_pos, start_pos+1, … (broadcasting does it with no repeat).",
        positions=lambda ids, start: (
            count(ids, start).repeat(ids.size(0)).view(ids.size(1), -1).t()
        ),
    ),
    hint=3,
)
lookup(
    "positions-wrapped",
    "Positions past the table are wrapped round (%), so distant tokens share a position.",
    way(positions=lambda ids, start: count(ids, start) % ids.size(1)),
    way(
        "wrapped",
        says="Positions past the table are wrapped round (%), so distant tokens share a position. Refuse them with a ValueError.",
        family="",
    ),
    hint=2,
)
lookup(
    "positions-spaced",
    "Your positions go up in steps of 2. They count one by one.",
    hint=3,
    positions=lambda ids, start: start + 2 * count(ids),
)
lookup(
    "positions-are-ids",
    "You look the token ids up in wpe as well. What goes into wpe is where a token stands: start_pos … start_pos+T-1.",
    hint=3,
    positions=lambda ids, start: ids,
)
lookup(
    "positions-are-ranks",
    "A token's position is the rank of its id here (argsort), or counts only some tokens. It is where it stands in the text, whatever its id is.",
    way(positions=lambda ids, start: start + ids.argsort(-1)),
    way(
        says="The positions skip tokens with id 0, as models with padding do. GPT-2 has no padding: every token counts.",
        positions=lambda ids, start: start + ((ids != 0).cumsum(-1) - 1).clamp(min=0),
    ),
    hint=3,
)
lookup(
    "tables-swapped",
    "Ids are looked up in wpe and positions in wte. wte holds tokens, wpe positions.",
    way(tables=lambda wte, wpe: (wpe, wte)),
    way(
        "tables-swapped",
        says="The sizes of wte and wpe are swapped: wte holds tokens, wpe positions.",
        hint=1,
        family="",
    ),
)
lookup(
    "positions-from-wte",
    "The positions are looked up in wte, the table of tokens. They have a table of their own, wpe.",
    tables=lambda wte, wpe: (wte, wte),
)
lookup(
    "tokens-from-wpe",
    "The ids are looked up in wpe, the table of positions. They have a table of their own, wte.",
    tables=lambda wte, wpe: (wpe, wpe),
)
lookup(
    "position-missing",
    "wpe has no part in the result: the same word gets the same vector wherever it stands.",
    place=lambda wpe, pos: 0.0,
)
lookup(
    "token-missing",
    "wte has no part in the result: it says where each token stands, but not which one it is.",
    token=lambda wte, ids: torch.zeros(*ids.shape, wte.size(-1)),
)
lookup(
    "table-not-cut",
    "All n_positions rows of wpe are added, whatever the length of the text. Look up the T rows from start_pos on.",
    hint=3,
    place=lambda wpe, pos: wpe,
)
lookup(
    "sinusoidal-positions",
    "You add the fixed sines and cosines of the 2017 Transformer. GPT-2 learns its positions: they are rows of wpe.",
    way(place=lambda wpe, pos: sinusoids(pos, wpe.size(-1))),
    way(
        says="You add the fixed sines and cosines of the 2017 Transformer to learned positions. GPT-2 has only the learned ones, wpe.",
        place=lambda wpe, pos: F.embedding(pos, wpe) + sinusoids(pos, wpe.size(-1)),
    ),
)
lookup(
    "positions-not-embedded",
    "You add the position itself, a number, to the token's vector. Look its row up in wpe.",
    place=lambda wpe, pos: pos[..., None],
)
lookup(
    "position-added-twice",
    "The position's vector is added twice. Once is enough.",
    place=lambda wpe, pos: 2 * F.embedding(pos, wpe),
)
lookup(
    "multiplied",
    "You multiply the token's vector by the position's. GPT-2 adds them.",
    combine=lambda t, p: t * p,
)
lookup("subtracted", "You subtract the position's vector. Add it.", combine=lambda t, p: t - p)
lookup(
    "averaged",
    "You take the mean of the two vectors: half of what is wanted. GPT-2 adds them as they are.",
    combine=lambda t, p: (t + p) / 2,
)
lookup(
    "concatenated",
    "You put the two vectors side by side. Every layer that follows has width C, so add them.",
    combine=lambda t, p: torch.cat((t, p.expand_as(t)), -1),
)
lookup(
    "scaled-by-root-width",
    "The token's vector is multiplied by √C, as in the 2017 Transformer. GPT-2 does not do that.",
    way(token=lambda wte, ids: F.embedding(ids, wte) * wte.size(-1) ** 0.5),
    way(
        says="The token's vector is divided by √C. GPT-2 takes it as it is.",
        token=lambda wte, ids: F.embedding(ids, wte) / wte.size(-1) ** 0.5,
    ),
    way(
        says="The sum is multiplied by √C. GPT-2 takes it as it is.",
        embedded=lambda y, wte: y * wte.size(-1) ** 0.5,
    ),
    way(
        says="The sum is divided by √C. GPT-2 takes it as it is.",
        embedded=lambda y, wte: y / wte.size(-1) ** 0.5,
    ),
)
lookup(
    "scaled-by-root-two",
    "The sum is divided by √2. GPT-2 takes it as it is.",
    embedded=lambda y, wte: y / 2**0.5,
)
lookup(
    "layer-norm-added",
    "The sum is normalized. GPT-2's first layer norm stands inside the first block (problem 08); here the sum goes out as it is.",
    embedded=lambda y, wte: F.layer_norm(y, y.shape[-1:]),
)
lookup(
    "vectors-normalised",
    "The vectors are brought to length 1. They go out as they are, whatever their length.",
    embedded=lambda y, wte: F.normalize(y, dim=-1),
)
lookup(
    "activation-added",
    "A tanh is applied to the sum. Nothing is: the sum goes out as it is.",
    way(embedded=lambda y, wte: y.tanh()),
    way(
        says="A ReLU is applied to the sum. Nothing is: the sum goes out as it is.",
        embedded=lambda y, wte: y.relu(),
    ),
    way(
        says="A GELU is applied to the sum. Nothing is: the sum goes out as it is.",
        embedded=lambda y, wte: gelu(y),
    ),
)
lookup(
    "ids-transposed",
    "The ids are transposed: rows are texts (the batch), columns are tokens.",
    token=lambda wte, ids: F.embedding(ids.t(), wte),
)
lookup(
    "output-transposed",
    "The numbers are right, and batch and tokens are swapped. The shape is (B, T, C).",
    embedded=lambda y, wte: y.transpose(0, 1),
)
lookup(
    "ids-one-too-high",
    "The ids are off by one: row 0 of wte belongs to token 0.",
    way(token=lambda wte, ids: F.embedding(ids + 1, wte)),
    way(token=lambda wte, ids: F.embedding((ids - 1).clamp(min=0), wte)),
)

dropout = KNOWN.section("dropout", hint=5)
dropout(
    "dropout-missing",
    "There is no dropout: with dropout=1, in training, everything would be 0.",
    combine=lambda t, p: t + p,
)
dropout(
    "dropout-on-tokens-only",
    "Dropout acts on the token's vector alone. It acts on the sum of the two.",
    combine=lambda t, p: p.expand_as(t),
)
dropout(
    "dropout-on-positions-only",
    "Dropout acts on the position's vector alone. It acts on the sum of the two.",
    combine=lambda t, p: t,
)

check = KNOWN.section("", hint=2)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1(
    "embedding-option",
    "The tables are plain nn.Embedding with no option: each row is stored and learned as it is.",
)
hint_1(
    "padding-idx",
    "padding_idx sets a row to 0 and keeps it from learning. In GPT-2 every token is a token: leave it out.",
)
hint_1(
    "table-shape", "A table has a row for each thing that can be looked up, and rows of width C."
)
hint_1(
    "table-transposed",
    "The two sizes of a table are swapped: nn.Embedding(number of rows, width of a row).",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "bound-ignores-length",
    "Only start_pos is compared with n_positions. What has to fit is start_pos + T.",
)
hint_2(
    "bound-ignores-start", "Only T is compared with n_positions. What has to fit is start_pos + T."
)
hint_2(
    "bound-missing",
    "Too many positions meet no check of yours. Compare start_pos + T with n_positions and raise a ValueError that names both, before anything is looked up.",
)
hint_2(
    "bound-too-loose",
    "One position too many gets through. The last position is start_pos + T - 1, and the table's last row n_positions - 1: refuse start_pos + T > n_positions.",
)
hint_2(
    "bound-too-strict",
    "Positions 0 … n_positions-1 all have a row: start_pos + T may be as large as n_positions.",
)
hint_2(
    "input-truncated",
    "Tokens past the table are cut off in silence. Refuse them with a ValueError.",
)
hint_2(
    "positions-clamped",
    "Positions past the table are clamped to its last row: several tokens then share one. Refuse them with a ValueError.",
)

hint_3 = KNOWN.section(hint=3)
hint_3(
    "module-remembers",
    "A second call gives something else: forward keeps a count in the module. Positions come from start_pos alone; the generation loop keeps count.",
)

hint_5 = KNOWN.section(hint=5)
hint_5(
    "dropout-apart",
    "Dropout does not act on the sum: the token's and the position's vectors are dropped apart, or something is added afterwards. Add first, drop once.",
)
KNOWN.include(of_one_dropout(5))

KNOWN.add(
    "positions-in-state-dict",
    3,
    "Your positions are a persistent buffer, which a checkpoint does not hold. Make them in forward (or register the buffer with persistent=False).",
)
