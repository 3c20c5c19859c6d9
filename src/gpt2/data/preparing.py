"""Text to token shards: any amount of it, in parallel, in bounded memory, resumable.

The text is cut into pieces of about 128 kB at places where no tokenizer joins what is before with
what is after; workers encode pieces, and they are written in order. `progress.json` says how many
pieces are safely on disk, and an interrupted run continues after them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from gpt2.common.files import replace, short, write_atomically, write_json
from gpt2.common.folder_lock import LOCK_NAME, only_one
from gpt2.data.shards import FORMAT, INDEX_NAME, SPLITS, DataIndex, read_index, token_dtype
from gpt2.data.sources import DEFAULT_SOURCE, Source, disk_bytes, open_source

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from gpt2.text.tokenizers import Tokenizer

PIECE_BYTES = 1 << 17  # encoding takes many times a piece's memory
SHARD_TOKENS = 100_000_000
BPE_TRAINING_BYTES = 64 << 20  # merges settle long before; more would only take memory
DEFAULT_WORKERS = 4  # up to 85 MB each: any amount of text within 500 MB
PARALLEL_FROM_BYTES = 8 << 20  # below, starting workers takes longer than the work
PROGRESS_NAME = "progress.json"
FILES_NAME = "files.jsonl"  # in the prepared folder: what was read, and what was left out
# One line feed between visible characters: neither GPT-2's rule for words nor a character
# tokenizer joins the text before and after it
SAFE_CUT = re.compile(rb"[!-~]\n(?=[!-~])")


# ----------------------------------------------------------------------------------------- pieces


@dataclass
class Piece:
    """Up to 128 kB of one split: (bytes, does the document end here?) and where it is from."""

    split: str
    segments: list[tuple[bytes, bool]]
    origin: str

    @property
    def size(self) -> int:
        return sum(len(data) for data, _ in self.segments)


def cut_pieces(
    source: Source, val_fraction: float, piece_bytes: int = PIECE_BYTES, digest: Any = None
) -> Iterator[Piece]:
    """A source → its pieces, the same ones every time.

    Of a source of known size the last val_fraction of the bytes is for validation; of a stream
    every (1 / val_fraction)-th document. digest (a hashlib object) is fed every byte.
    """
    boundary = None if source.total is None else int(source.total * (1 - val_fraction))
    every = round(1 / val_fraction) if val_fraction else 0
    pending: dict[str, Piece] = {}
    position = 0
    for number, document in enumerate(source.documents()):
        with document.open() as file:
            if boundary is None:
                parts = [("val" if every and number % every == every - 1 else "train", None)]
            elif position >= boundary and val_fraction:
                parts = [("val", None)]
            elif position + document.size <= boundary or not val_fraction:
                parts = [("train", None)]
            else:
                parts = [("train", boundary - position), ("val", None)]
            count = 0
            for split, limit in parts:
                for data, end in _read_cuts(file, limit, piece_bytes, digest):
                    count += len(data)
                    piece = pending.setdefault(split, Piece(split, [], document.name))
                    piece.segments.append((data, end))
                    if piece.size >= piece_bytes // 2:
                        yield pending.pop(split)
        if count != document.size:
            raise ValueError(
                f"{document.name} had {document.size} bytes of text and has {count} now: "
                "it changed while it was read"
            )
        position += document.size
    yield from pending.values()


def _read_cuts(
    file: io.BufferedReader, limit: int | None, piece_bytes: int, digest: Any
) -> Iterator[tuple[bytes, bool]]:
    """The text's next `limit` bytes (rounded up to a whole character; None: all) in safe cuts."""
    held = b""
    left = limit
    while True:
        want = piece_bytes - len(held)
        want = want if left is None else min(want, left)
        fresh = file.read(max(want, 0))
        if left is not None:
            left -= len(fresh)
            # finish the character that the boundary is in
            while left == 0 and (ahead := file.peek(1)) and ahead[0] & 0xC0 == 0x80:
                fresh += file.read(1)
        if digest is not None:
            digest.update(fresh)
        held += fresh
        if left == 0:
            if held:
                yield held, not file.peek(1)
            return
        if len(fresh) < want:
            yield held, True
            return
        cuts = [match.end() for match in SAFE_CUT.finditer(held, len(held) // 2)]
        cut = cuts[-1] if cuts else _last_character_end(held)
        yield held[:cut], False
        held = held[cut:]


def _last_character_end(data: bytes) -> int:
    """How many bytes to take so that no UTF-8 character is cut."""
    for back in range(1, min(4, len(data)) + 1):
        if data[-back] & 0xC0 != 0x80:  # the last character's first byte
            return len(data) - back or len(data)
    return len(data)


# --------------------------------------------------------------------------------------- encoding

_worker: dict[str, Any] = {}


def _start_worker(folder: str) -> None:
    from gpt2.formats.opening import load_tokenizer

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    _worker["tokenizer"] = load_tokenizer(folder)


def _encode_in_worker(piece: Piece) -> np.ndarray:
    return encode_piece(_worker["tokenizer"], piece)


def encode_piece(tokenizer: Tokenizer, piece: Piece) -> np.ndarray:
    """A piece → its ids, with the end-of-text token (if there is one) after each document.

    ValueError that names the document for bytes that are not UTF-8.
    """
    ids: list[np.ndarray] = []
    dtype = token_dtype(tokenizer.vocab_size)
    for data, end in piece.segments:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{piece.origin} (or a document after it) is not UTF-8: {error}"
            ) from None
        ids.append(np.array(tokenizer.encode(text), dtype=dtype))
        if end and tokenizer.eos_token_id is not None:
            ids.append(np.array([tokenizer.eos_token_id], dtype=dtype))
    return np.concatenate(ids) if ids else np.zeros(0, dtype)


def make_tokenizer(kind: str, vocab_size: int, source: Source, val_fraction: float) -> Tokenizer:
    """`char`, `bpe` (both from the source; BPE from its training part alone), `gpt2`, or what
    `load_tokenizer` takes: a model's name, or a folder with a tokenizer.

    ValueError that lists the kinds for anything else.
    """
    from gpt2.text.tokenizer_training import train_bpe, train_char
    from gpt2.text.tokenizers import GPT2Tokenizer

    if kind == "gpt2":
        return GPT2Tokenizer.load()
    if kind not in ("char", "bpe"):
        return _model_tokenizer(kind)
    if kind == "char" and source.total is None:
        raise ValueError("a stream has to be read twice for a char tokenizer: use bpe or gpt2")

    def texts() -> Iterator[str]:
        taken = 0
        for piece in cut_pieces(source, val_fraction):
            if kind == "bpe" and piece.split != "train":
                continue
            for data, _ in piece.segments:
                if kind == "char":
                    yield data.decode("utf-8")
                else:
                    yield from _in_lines(data.decode("utf-8", errors="replace"))
            taken += piece.size
            if kind == "bpe" and taken >= BPE_TRAINING_BYTES:
                return

    try:
        return train_char(texts()) if kind == "char" else train_bpe(texts(), vocab_size)
    except UnicodeDecodeError as error:
        raise ValueError(f"{source.name} is not UTF-8: {error}") from None


def _model_tokenizer(name: str) -> Tokenizer:
    """A model's name, or a folder with a tokenizer → the tokenizer.

    ValueError for one that encodes the beginning of a text differently from its middle, because
    the text is encoded in pieces.
    """
    from gpt2.formats.opening import load_tokenizer

    try:
        found = load_tokenizer(name)
    except ValueError as error:
        raise ValueError(
            f"tokenizer {name!r} is not char, bpe or gpt2, and no model either: {error}"
        ) from None
    if found.adds_space:
        raise ValueError(
            f"the tokenizer of {name} puts a blank before each text (add_prefix_space), so a text "
            "cannot be encoded in pieces"
        )
    return found


def _in_lines(text: str, characters: int = 8192) -> Iterator[str]:
    """A text in parts of whole lines; BPE's trainer takes many times a part's memory."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + characters) + 1 or start + characters
        yield text[start:end]
        start = end


# ---------------------------------------------------------------------------------------- writing


class ShardWriter:
    """One split's shards, written one after the other; a shard gets its name when it is full."""

    def __init__(self, folder: Path, split: str, dtype: str, shard_tokens: int, state: dict):
        """state: what `state()` gave; whatever was written after it is cut off."""
        self.folder, self.split, self.dtype = folder, split, np.dtype(dtype)
        self.shard_tokens = shard_tokens
        self.done: list[dict] = [dict(shard) for shard in state.get("done", [])]
        self.tokens: int = state.get("tokens", 0)  # in the shard under construction
        self.bytes: int = state.get("bytes", 0)
        self._file: BinaryIO | None = None
        for path in folder.glob(f"{split}-*.npy"):
            if path.name not in {shard["file"] for shard in self.done}:
                if self.tokens and path.name == self._name():  # finished, and then interrupted
                    replace(path, self._part())
                else:
                    path.unlink()
        if not self.tokens:
            self._part().unlink(missing_ok=True)

    def _name(self) -> str:
        return f"{self.split}-{len(self.done):05d}.npy"

    def _part(self) -> Path:
        return self.folder / f"{self._name()}.part"

    def _header(self, tokens: int) -> bytes:
        import io

        header = io.BytesIO()
        # NumPy leaves room for the count to grow, so every count takes the same length
        np.lib.format.write_array_header_1_0(
            header, {"descr": self.dtype.str, "fortran_order": False, "shape": (tokens,)}
        )
        return header.getvalue()

    def _open(self) -> BinaryIO:
        if self._file is None:
            path = self._part()
            if not self.tokens:
                path.write_bytes(self._header(0))
            length = len(self._header(0)) + self.tokens * self.dtype.itemsize
            if path.stat().st_size < length:
                raise ValueError(
                    f"{path} holds {path.stat().st_size} bytes, {PROGRESS_NAME} says {length}: "
                    "delete the folder and start again"
                )
            self._file = path.open("r+b")
            self._file.truncate(length)
            self._file.seek(length)
        return self._file

    def write(self, ids: np.ndarray, text_bytes: int) -> None:
        """Append ids that encode that many bytes."""
        if ids.size:
            self._open().write(ids.astype(self.dtype.newbyteorder("<"), copy=False).tobytes())
        self.tokens += ids.size
        self.bytes += text_bytes
        if self.tokens >= self.shard_tokens:
            self.finish()

    def sync(self) -> None:
        """What was written is on the disk."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self) -> None:
        """The shard under construction gets its count and its name."""
        if not self.tokens:
            return
        file = self._open()
        file.seek(0)
        file.write(self._header(self.tokens))
        self.sync()
        file.close()
        self._file = None
        replace(self._part(), self.folder / self._name())
        self.done.append({"file": self._name(), "tokens": self.tokens})
        self.tokens = 0

    def close(self) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def state(self) -> dict:
        return {"done": self.done, "tokens": self.tokens, "bytes": self.bytes}


def prepare(
    source: str = DEFAULT_SOURCE,
    out: str | Path = "data",
    *,
    tokenizer: str = "bpe",
    vocab_size: int = 1024,
    val_fraction: float = 0.1,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    piece_bytes: int = PIECE_BYTES,
    limit: int | None = None,
    progress: bool = False,
    say: Callable[[str], object] | None = None,
) -> DataIndex:
    """Text → a folder of token shards with its tokenizer and index.

    If it was prepared with the same settings, nothing is done; if it was interrupted, it continues.
    vocab_size is for `bpe`, limit (documents) for streams. say: called with lines on what is read
    and what is left out; the folder's `files.jsonl` lists all of it. ValueError for settings that
    fit no data, for files that should be text and are not, and for a folder with other contents.
    """
    say = say or (lambda line: None)
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be in [0, 1), got {val_fraction}")
    if piece_bytes < 16 or shard_tokens < 1:
        raise ValueError(f"piece_bytes = {piece_bytes} and shard_tokens = {shard_tokens} are sizes")
    out = Path(out)
    settings = {
        "source": source,
        "tokenizer": tokenizer,
        "vocab_size": vocab_size if tokenizer == "bpe" else None,
        "val_fraction": val_fraction,
        "shard_tokens": shard_tokens,
        "piece_bytes": piece_bytes,
        "limit": limit,
    }
    if (out / INDEX_NAME).exists():
        index = read_index(out)
        if index.source.get("settings") != settings:
            raise ValueError(
                f"{out} already holds {index.source.get('name')} prepared with "
                f"{index.source.get('settings')}; give another --out, or delete the folder"
            )
        for line in _what_changed(index, source, out):
            say(line)
        return index
    opened = open_source(source, limit=limit, without=out)
    for line in opened.listing():
        say(line)
    try:
        with only_one(out):
            state = _read_progress(out, settings, opened)
            if state["pieces"] == 0 and not (out / "tokenizer.json").is_file():
                ours = (PROGRESS_NAME, LOCK_NAME, FILES_NAME)
                if others := sorted(path.name for path in out.iterdir() if path.name not in ours):
                    raise ValueError(f"{out} is not an empty folder: it holds {others[0]}")
                write_json(
                    out / PROGRESS_NAME,
                    {"settings": settings, "bytes": opened.total, "pieces": 0, "splits": {}},
                    ascii_only=False,
                )
                _write_file_list(out / FILES_NAME, opened)
                make_tokenizer(tokenizer, vocab_size, opened, val_fraction).save(out)
            return _encode_all(opened, out, settings, state, workers, piece_bytes, progress)
    except OSError as error:
        raise ValueError(f"{out} cannot be written: {error}") from None


def _what_changed(index: DataIndex, source: str, out: Path) -> list[str]:
    """A folder that is prepared already → what to say about its source, which may have changed."""
    before = index.source.get("disk_bytes")
    try:
        now = disk_bytes(source, without=out)
    except (OSError, ValueError):
        return []  # it has gone; the prepared data has not
    if before is None or now is None or now == before:
        return []
    return [
        f"note: the files of {short(index.source.get('name'))} take {now:,} bytes now and took "
        f"{before:,} when {out} was prepared. That stays as it is; delete the folder to prepare "
        "it again"
    ]


def _write_file_list(path: Path, source: Source) -> None:
    """A line of JSON for each file that is read, and for each that is left out."""
    if not source.files:
        return
    rows: list[dict] = [{"file": doc.name, "bytes": doc.size} for doc in source.files]
    rows += [asdict(item) for item in source.left_out]
    text = "".join(json.dumps(row) + "\n" for row in rows)  # ASCII: names may be invalid Unicode
    write_atomically(path, text.encode("ascii"))


def _read_progress(out: Path, settings: dict, source: Source) -> dict:
    path = out / PROGRESS_NAME
    if not path.exists():
        return {"pieces": 0, "splits": {}}
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["settings"] != settings:
            raise ValueError(
                f"{out} holds a preparation with {state['settings']}, interrupted after "
                f"{state['pieces']} pieces; repeat those settings, or delete the folder"
            )
        if state["bytes"] != source.total:
            raise ValueError(
                f"{source.name} had {state['bytes']} bytes when {out} was begun and has "
                f"{source.total}: delete {out} and start again"
            )
        return {"pieces": int(state["pieces"]), "splits": dict(state["splits"])}
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error}): delete {out} and start again") from None


def _encode_all(
    source: Source,
    out: Path,
    settings: dict,
    state: dict,
    workers: int | None,
    piece_bytes: int,
    progress: bool,
) -> DataIndex:
    """Encode every piece that is not yet on disk, in order; write the index at the end."""
    import time

    from tqdm import tqdm

    from gpt2.formats.opening import load_tokenizer

    tokenizer = load_tokenizer(out)
    digest = hashlib.sha256()
    writers = {
        split: ShardWriter(
            out,
            split,
            token_dtype(tokenizer.vocab_size),
            settings["shard_tokens"],
            state["splits"].get(split, {}),
        )
        for split in SPLITS
    }
    written = 0
    if workers is None:
        workers = min(os.cpu_count() or 1, DEFAULT_WORKERS)
        workers = 1 if source.total is not None and source.total < PARALLEL_FROM_BYTES else workers

    def save_progress() -> None:
        for writer in writers.values():
            writer.sync()
        splits = {split: writer.state() for split, writer in writers.items()}
        write_json(
            out / PROGRESS_NAME,
            {"settings": settings, "bytes": source.total, "pieces": written, "splits": splits},
            ascii_only=False,
        )

    with ExitStack() as stack:
        for writer in writers.values():
            stack.callback(writer.close)
        pool: Executor | None = None
        if workers > 1:
            from concurrent.futures import ProcessPoolExecutor
            from multiprocessing import get_context

            pool = ProcessPoolExecutor(
                workers, get_context("spawn"), initializer=_start_worker, initargs=(str(out),)
            )
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        bar = stack.enter_context(
            tqdm(
                total=source.total,
                unit="B",
                unit_scale=True,
                desc="prepare",
                disable=None if progress else True,
            )
        )
        queue: deque = deque()
        saved = time.monotonic()

        def take() -> None:
            nonlocal written, saved
            piece, ids = queue.popleft()
            ids = ids.result() if pool else encode_piece(tokenizer, piece)
            writers[piece.split].write(ids, piece.size)
            written += 1
            bar.update(piece.size)
            if time.monotonic() - saved > 2:
                save_progress()
                saved = time.monotonic()

        try:
            for number, piece in enumerate(
                cut_pieces(source, settings["val_fraction"], piece_bytes, digest)
            ):
                if number < state["pieces"]:
                    written += 1
                    bar.update(piece.size)
                    continue
                queue.append((piece, pool.submit(_encode_in_worker, piece) if pool else None))
                if len(queue) >= 2 * workers:
                    take()
            while queue:
                take()
        finally:
            save_progress()
    for writer in writers.values():
        writer.finish()
    if not writers["train"].done:
        raise ValueError(f"{source.name} leaves no text to train on")
    write_json(
        out / INDEX_NAME,
        {
            "format": FORMAT,
            "version": 1,
            "dtype": token_dtype(tokenizer.vocab_size),
            "vocab_size": tokenizer.vocab_size,
            "eos_token_id": tokenizer.eos_token_id,
            "tokenizer": settings["tokenizer"],
            "source": {
                "name": source.name,
                "bytes": sum(writer.bytes for writer in writers.values()),
                "sha256": digest.hexdigest(),
                **source.notes,
                "settings": settings,
            },
            "splits": {
                split: {
                    "tokens": sum(shard["tokens"] for shard in writer.done),
                    "bytes": writer.bytes,
                    "shards": writer.done,
                }
                for split, writer in writers.items()
                if writer.done
            },
        },
        ascii_only=False,
    )
    (out / PROGRESS_NAME).unlink(missing_ok=True)
    return read_index(out)


def remove_prepared(out: Path) -> None:
    """Delete a prepared or half-prepared folder, and no other."""
    if (out / INDEX_NAME).exists() or (out / PROGRESS_NAME).exists():
        shutil.rmtree(out)
