"""Token shards on disk, and the loader that cuts batches from them.

A prepared folder holds `index.json`, the tokenizer's files, and per split one or more `.npy` files
of token ids, which are memory-mapped: a batch reads the pages it needs and nothing else. Shapes:
B sequences, T tokens each.

Which tokens a batch holds is a function of (seed, number of sequences drawn so far) alone. That
one number is the loader's whole position, and it means the same on any number of ranks.
"""

from __future__ import annotations

import functools
import json
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpt2.common.files import short

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.formats.opening import Opened
    from gpt2.text.tokenizers import Tokenizer

INDEX_NAME = "index.json"
FORMAT = "gpt2-token-shards"
SPLITS = ("train", "val")


@dataclass(frozen=True)
class Shard:
    """One file of token ids: its name in the folder, and how many tokens it holds."""

    file: str
    tokens: int


@dataclass(frozen=True)
class Split:
    """Train or validation: its shards in order, and the bytes of text that they encode."""

    shards: tuple[Shard, ...]
    tokens: int
    bytes: int


@dataclass(frozen=True)
class DataIndex:
    """What `index.json` says about a prepared folder."""

    folder: Path
    dtype: str
    vocab_size: int
    tokenizer: str
    source: dict
    splits: dict[str, Split]

    def split(self, name: str) -> Split:
        """The split of that name. ValueError that lists those there are."""
        if name not in self.splits:
            raise ValueError(f"{self.folder} has no split {name!r}; it has {list(self.splits)}")
        return self.splits[name]


def token_dtype(vocab_size: int) -> str:
    """uint16 where every id fits, else uint32."""
    return "uint16" if vocab_size <= 1 << 16 else "uint32"


def read_index(folder: str | Path) -> DataIndex:
    """A prepared folder's index, checked. ValueError that says what is missing or wrong."""
    folder = Path(folder)
    path = folder / INDEX_NAME
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(
            f"{folder} is not a folder of prepared data: there is no {INDEX_NAME} in it "
            f"(`gpt2 prepare SOURCE --out {folder}` makes one)"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise ValueError(f"{path} is not an index of token shards: its format is not {FORMAT!r}")
    try:
        splits = {}
        for name, split in raw["splits"].items():
            shards = tuple(
                Shard(str(shard["file"]), _count(shard["tokens"])) for shard in split["shards"]
            )
            tokens = sum(shard.tokens for shard in shards)
            if tokens != _count(split["tokens"]):
                raise ValueError(f"{name} lists {tokens} tokens and claims {split['tokens']}")
            splits[name] = Split(shards, tokens, _count(split["bytes"]))
        dtype, vocab_size = raw["dtype"], _count(raw["vocab_size"])
        tokenizer, source = str(raw["tokenizer"]), dict(raw["source"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__} {error}") from None
    if dtype != token_dtype(vocab_size):
        raise ValueError(
            f"{path}: dtype {short(dtype)!r} does not go with vocab_size = {vocab_size}"
        )
    for split in splits.values():
        for shard in split.shards:
            if Path(shard.file).name != shard.file or shard.file == "..":
                raise ValueError(f"{path} names a shard outside its folder: {shard.file!r}")
    return DataIndex(folder, dtype, vocab_size, tokenizer, source, splits)


def check_same_tokens(index: DataIndex, model: Opened) -> None:
    """ValueError when the model's tokens differ from those that the data was prepared with.

    The model's table may have more rows than there are tokens, and its tokenizer a token more or
    less: those of both are compared. A model without a tokenizer is believed if the sizes agree.
    """
    from gpt2.formats.opening import load_tokenizer

    if not model.has_tokenizer:
        if index.vocab_size != model.rows:
            raise ValueError(
                f"{model.name} has {model.rows} tokens and no tokenizer, {index.folder} was "
                f"prepared with {index.vocab_size}: prepare the text with the model's tokenizer "
                "(--tokenizer takes its folder)"
            )
        return
    ours, theirs = load_tokenizer(index.folder), model.tokenizer
    for i in range(min(ours.vocab_size, theirs.vocab_size, index.vocab_size)):
        here, there = (_bytes_of(tokenizer, i) for tokenizer in (theirs, ours))
        if here != there:
            raise ValueError(
                f"{index.folder} was prepared with another tokenizer than {model.name} has: token "
                f"{i} is {there!r} there and {here!r} here; {model.name} has {model.rows} tokens, "
                f"{index.folder} {index.vocab_size} (gpt2 prepare --tokenizer takes the model's "
                "folder)"
            )


def _bytes_of(tokenizer: Tokenizer, i: int) -> bytes | None:
    """A token's bytes; None where the numbering has a gap."""
    try:
        return tokenizer.token_bytes(i)
    except ValueError:
        return None


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{short(value)!r} is not a count")
    return value


def open_shard(index: DataIndex, shard: Shard) -> np.ndarray:
    """A shard as a memory map: → (tokens,) of the index's dtype.

    ValueError that names the file when it is missing, truncated, or not the one that the index
    describes.
    """
    path = index.folder / shard.file
    try:
        with path.open("rb") as file:
            if file.read(6) != b"\x93NUMPY":  # np.load would also try ZIP archives
                raise ValueError("it is not a .npy file")
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {INDEX_NAME} lists it") from None
    except Exception as error:  # NumPy parses the header as Python, with that parser's errors
        reason = short(str(error) or type(error).__name__)
        raise ValueError(f"{path} is truncated or no token shard: {reason}") from None
    if tokens.dtype != np.dtype(index.dtype) or tokens.shape != (shard.tokens,):
        raise ValueError(
            f"{path} holds {tokens.dtype} {tokens.shape}, {INDEX_NAME} says "
            f"{index.dtype} ({shard.tokens},): it is truncated or comes from elsewhere"
        )
    return tokens


def _mix(values: np.ndarray) -> np.ndarray:
    """uint64 → uint64, each bit of the result depending on every bit of the value.

    The finalizer of SplitMix64 (Steele, Lea & Flood 2014), a bijection.
    """
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))


class TokenSource:
    """One split of a prepared folder as a row of tokens, whatever the number of its shards."""

    def __init__(self, index: DataIndex, split: str):
        self.index = index
        self.name = split
        self.rows = index.vocab_size  # of the model's embedding, if it is read for a model
        self.shards = index.split(split).shards
        self._maps = [open_shard(index, shard) for shard in self.shards]
        self._ends = np.cumsum([shard.tokens for shard in self.shards], dtype=np.int64)
        self.tokens = int(self._ends[-1]) if len(self._ends) else 0

    def read(self, start: int, length: int) -> np.ndarray:
        """Tokens start … start+length-1, across shards where need be: → (length,) int64.

        ValueError that names the shard when an id is not below vocab_size or the model's rows, and
        when the split ends before.
        """
        if start < 0 or start + length > self.tokens:
            raise ValueError(
                f"{self.name} holds {self.tokens} tokens; {start} … {start + length - 1} "
                "are not all among them"
            )
        pieces = []
        shard = int(np.searchsorted(self._ends, start, side="right"))
        while length:
            first = start - (int(self._ends[shard]) - self.shards[shard].tokens)
            piece = self._maps[shard][first : first + length].astype(np.int64)
            if piece.size and int(piece.max()) >= min(self.index.vocab_size, self.rows):
                what = "vocabulary" if self.index.vocab_size <= self.rows else "model's table"
                raise ValueError(
                    f"{self.index.folder / self.shards[shard].file} holds the id "
                    f"{int(piece.max())}, and the {what} ends at "
                    f"{min(self.index.vocab_size, self.rows) - 1}"
                )
            pieces.append(piece)
            start, length, shard = start + len(piece), length - len(piece), shard + 1
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def text_bytes(self, ids: np.ndarray) -> int:
        """The number of bytes of text that these ids encode; an end token between texts counts as
        0.
        """
        return int(self._bytes_of_ids[ids].sum())

    @functools.cached_property
    def _bytes_of_ids(self) -> np.ndarray:
        """(vocab_size,) int64: the bytes of each token, by the tokenizer in the folder."""
        from gpt2.formats.opening import load_tokenizer

        tokenizer = load_tokenizer(self.index.folder)
        lengths = np.zeros(self.index.vocab_size, dtype=np.int64)
        not_text = {*tokenizer.special_tokens.values(), tokenizer.eos_token_id}
        for token in range(min(tokenizer.vocab_size, len(lengths))):
            if token not in not_text:
                try:
                    lengths[token] = len(tokenizer.token_bytes(token))
                except ValueError:
                    continue  # a gap in the numbering
        return lengths


class BatchLoader:
    """Inputs and targets, shifted by one: (B, T) each.

    `order="random"`: windows of T+1 tokens anywhere in the split, each start equally likely.
    `order="sequential"`: the split's windows side by side in order, then from the start again.

    Every rank of `world_size` takes its own B of each round's world_size · B sequences.
    """

    def __init__(
        self,
        source: TokenSource,
        batch_size: int,
        length: int,
        *,
        order: str = "random",
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ):
        """ValueError that names both numbers when the split is shorter than one window."""
        if order not in ("random", "sequential"):
            raise ValueError(f"order must be random or sequential, got {order!r}")
        for name, size in (("batch_size", batch_size), ("length", length)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1, got {size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not below world_size = {world_size}")
        if source.tokens < length + 1:
            raise ValueError(
                f"{source.name} holds {source.tokens} tokens, fewer than one window of "
                f"{length} + 1: use a shorter context or more text"
            )
        self.source = source
        self.batch_size = batch_size
        self.length = length
        self.order = order
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drawn = 0

    def starts(self, numbers: np.ndarray) -> np.ndarray:
        """Where the sequences of these numbers begin in the split: (n,) → (n,) int64."""
        if self.order == "sequential":
            windows = (self.source.tokens - 1) // self.length
            return (numbers % windows) * self.length
        key = _mix(np.array([self.seed], dtype=np.int64).astype(np.uint64))
        spread = _mix(_mix(numbers.astype(np.uint64)) ^ key)
        return (spread % np.uint64(self.source.tokens - self.length)).astype(np.int64)

    def next(self) -> tuple[Tensor, Tensor]:
        """This rank's next batch: → inputs (B, T), targets (B, T), int64."""
        import torch

        first = self.drawn + self.rank * self.batch_size
        starts = self.starts(np.arange(first, first + self.batch_size, dtype=np.int64))
        rows = np.stack([self.source.read(int(start), self.length + 1) for start in starts])
        self.drawn += self.batch_size * self.world_size
        both = torch.from_numpy(rows)  # (B, T + 1)
        return both[:, :-1].contiguous(), both[:, 1:].contiguous()

    def state(self) -> dict:
        """The position: sequences drawn so far by all ranks together, and what they depend on."""
        return {
            "drawn": self.drawn,
            "order": self.order,
            "seed": self.seed,
            "length": self.length,
            "tokens": self.source.tokens,
        }

    def load_state(self, state: dict) -> None:
        """Continue from there. ValueError that names what differs when the sequence would be a
        different one.
        """
        ours = self.state()
        different = [
            f"{name} was {reprlib.repr(state.get(name))} and is {value!r}"
            for name, value in ours.items()
            if name != "drawn" and state.get(name) != value
        ]
        if different:
            raise ValueError(f"the loader cannot go on from there: {'; '.join(different)}")
        if _count(state["drawn"]) >= 1 << 62:
            raise ValueError(f"the loader cannot have drawn {state['drawn']} sequences")
        self.drawn = state["drawn"]
