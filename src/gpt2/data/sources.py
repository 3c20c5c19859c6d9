"""Where text comes from: files and folders, data sets of the hub, and texts that need no download.

Every document is passed on as plain UTF-8: byte-order marks are removed, lines end in a line feed,
and UTF-16 is decoded. Which files of a folder are read is decided here, once, and can be listed: a
file that should be text is read or named in an error; what is not meant as text (hidden files,
installed packages, binary data) is left out, and the list says so.
"""

from __future__ import annotations

import codecs
import hashlib
import importlib
import io
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

DEFAULT_SOURCE = "python-docs"
NAMED_SOURCES = (DEFAULT_SOURCE, "shakespeare", "fineweb-edu")
TEXT_SUFFIXES = (".txt", ".md", ".rst", ".py", ".text")
SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
FINEWEB_EDU = "HuggingFaceFW/fineweb-edu"

BYTE_ORDER_MARK = "\ufeff"
# The longest mark first: UTF-32's little-endian one begins with UTF-16's
ENCODINGS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CHUNK_BYTES = 1 << 16  # of a file, read at a time
BINARY_BYTES = 8000  # text has no NUL in its first bytes; Git looks at as many
# Folders of programs and packages, which come with texts that nobody wrote for a model to read
FOREIGN_FOLDERS = {
    "__MACOSX": "what macOS adds to ZIP archives",
    "__pycache__": "compiled Python",
    "node_modules": "packages of Node",
    "site-packages": "installed Python packages",
    "$RECYCLE.BIN": "deleted files",
    "System Volume Information": "a folder of Windows",
}
ENVIRONMENT_MARKS = ("pyvenv.cfg", "conda-meta")  # in the folder of a Python environment
PREPARED_MARKS = ("index.json", "progress.json")  # in a prepared folder, with `tokenizer.json`
LISTED = 40  # files that are named on the screen; a list on disk has them all


# --------------------------------------------------------------------------------- plain UTF-8


class PlainText(io.RawIOBase):
    """A file's bytes, read as plain UTF-8: no byte-order mark, line feeds for line ends.

    Marks inside the text go as well: they are left over where files were joined. UTF-16 and UTF-32
    are decoded where the file begins with their mark. ValueError that names the file, the byte and
    its position for what is not text in that encoding.
    """

    def __init__(self, file: BinaryIO, name: str):
        self._file, self._name = file, name
        start = file.read(len(codecs.BOM_UTF32_LE))
        found = next(((mark, code) for mark, code in ENCODINGS if start.startswith(mark)), None)
        mark, self.encoding = found or (b"", "utf-8")
        self._left = start[len(mark) :]  # read already
        self._position = len(mark)  # of the next byte to decode
        self._decoder = codecs.getincrementaldecoder(self.encoding)()
        # the same as Python's text files do: \r\n and \r become \n, also across two chunks
        self._lines = io.IncrementalNewlineDecoder(None, translate=True)
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            self._ready = self._next_chunk()
        count = min(len(buffer), len(self._ready))
        buffer[:count] = self._ready[:count]
        self._ready = self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()

    def _next_chunk(self) -> bytes:
        raw = self._left + self._file.read(CHUNK_BYTES)
        self._left = b""
        self._ended = not raw
        waiting = len(self._decoder.getstate()[0])  # bytes of a character that is not yet whole
        try:
            text = self._decoder.decode(raw, final=self._ended)
        except UnicodeDecodeError as error:
            raise NotText(
                f"{self._name} is not {self.encoding.upper()}: byte "
                f"0x{error.object[error.start]:02x} at position "
                f"{self._position - waiting + error.start} ({error.reason})"
            ) from None
        self._position += len(raw)
        text = self._lines.decode(text, final=self._ended)
        return text.replace(BYTE_ORDER_MARK, "").encode("utf-8", errors="replace")


class NotText(ValueError):
    """A file that holds something else than text in its encoding."""


def plain(text: str) -> bytes:
    """A text in memory → the same bytes as if it were read from a file."""
    lines = io.IncrementalNewlineDecoder(None, translate=True).decode(text, final=True)
    return lines.replace(BYTE_ORDER_MARK, "").encode("utf-8", errors="replace")


# ------------------------------------------------------------------------------------- documents


@dataclass(frozen=True)
class Document:
    """A text with a beginning and an end: bytes in memory, or a file.

    `size` counts bytes of plain UTF-8, which is what `open` gives.
    """

    name: str
    size: int
    data: bytes | None = None
    path: Path | None = None

    def open(self) -> io.BufferedReader:
        """Plain UTF-8, to be read from the start."""
        if self.path is None:
            return io.BufferedReader(io.BytesIO(self.data or b""))  # type: ignore[arg-type]
        return io.BufferedReader(PlainText(self.path.open("rb"), self.name))


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not read, and why not."""

    name: str
    reason: str


@dataclass(frozen=True)
class Source:
    """Documents to read. `total` is None for a stream whose length nobody knows.

    files: what is read, where the documents are files; left_out: what in the same folders is not.
    """

    name: str
    documents: Callable[[], Iterator[Document]]
    total: int | None
    notes: dict = field(default_factory=dict)
    files: tuple[Document, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    def listing(self, most: int | None = LISTED) -> list[str]:
        """What is read and what is not, as lines of text with a limited number of files of each
        kind.
        """
        if not self.files:
            return []
        lines = [
            f"{_shown(self.name)}: reading {_count(len(self.files), 'file')}, {self.total:,} bytes"
        ]
        for title, rows in (
            ("", [f"{_shown(doc.name)}: {doc.size:,} bytes" for doc in self.files]),
            ("Left out:", [f"{_shown(item.name)}: {item.reason}" for item in self.left_out]),
        ):
            shown = rows[:most]
            lines += [title] if title and rows else []
            lines += [f"  {row}" for row in shown]
            if len(rows) > len(shown):
                lines.append(f"  … and {len(rows) - len(shown):,} more")
        return lines


def _shown(name: str) -> str:
    """A file's name on one line of a screen, whatever its bytes are; long ones keep their end."""
    name = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return name if len(name) <= 200 else "…" + name[-199:]


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def open_source(name: str, *, limit: int | None = None, without: Path | None = None) -> Source:
    """`python-docs`, `shakespeare`, `fineweb-edu`, `hf:REPO`, or files and folders (comma between)
    → what to read.

    limit: documents to take from a stream. without: a folder that is not read although it may lie
    in one that is. ValueError that says what was looked for when there is nothing, and that names
    each file that is meant as text and is not.
    """
    if name == "python-docs":
        return _in_memory(name, _python_docs(), {"python": sys.version.split()[0]})
    if name == "shakespeare":
        return _in_memory(name, [("tiny-shakespeare", _shakespeare())], {"url": SHAKESPEARE_URL})
    if name == "fineweb-edu":
        return _hub_dataset(FINEWEB_EDU, "sample-10BT", limit)
    if name.startswith("hf:"):
        repo, _, config = name[3:].partition(":")
        return _hub_dataset(repo, config or None, limit)
    return _files(name, _paths(name), without)


def _in_memory(name: str, texts: list[tuple[str, bytes]], notes: dict) -> Source:
    documents = [Document(title, len(data), data=data) for title, data in texts]
    return Source(name, lambda: iter(documents), sum(doc.size for doc in documents), notes)


def _python_docs() -> list[tuple[str, bytes]]:
    """The language reference that `help()` shows, one document per topic."""
    topics = importlib.import_module("pydoc_data.topics").topics
    return [(topic, plain(text.strip()) + b"\n") for topic, text in sorted(topics.items())]


def shakespeare_places() -> list[Path]:
    """Where Tiny Shakespeare is looked for before it is downloaded."""
    named = os.environ.get("GPT2_DATA")
    places = [*([Path(named)] if named else []), Path.cwd() / "data"]
    return [place / "tinyshakespeare" / "input.txt" for place in places]


def _shakespeare() -> bytes:
    """Tiny Shakespeare's 1,115,394 bytes, from beside the project or by download."""
    import urllib.request

    from gpt2.common.network import check_reachable

    def is_it(data: bytes) -> bool:
        return hashlib.sha256(data).hexdigest() == SHAKESPEARE_SHA256

    for path in shakespeare_places():
        if path.is_file() and is_it(data := path.read_bytes()):
            return data
    try:
        check_reachable(SHAKESPEARE_URL)
        with urllib.request.urlopen(SHAKESPEARE_URL, timeout=30) as answer:
            data = answer.read(2 << 20)
    except OSError as error:
        looked = ", ".join(map(str, shakespeare_places()))
        raise ValueError(
            f"Tiny Shakespeare is not on this machine and cannot be fetched from {SHAKESPEARE_URL} "
            f"({error}). Looked in: {looked}; GPT2_DATA names another folder"
        ) from None
    if not is_it(data):
        raise ValueError(
            f"{SHAKESPEARE_URL} gave {len(data)} bytes of sha256 "
            f"{hashlib.sha256(data).hexdigest()}, not Tiny Shakespeare's {SHAKESPEARE_SHA256}"
        )
    return data


def _hub_dataset(repo: str, config: str | None, limit: int | None) -> Source:
    """A data set on the Hugging Face hub, read as a stream of its `text` column."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise ValueError(
            f"{repo} is read with Hugging Face's library: pip install datasets"
        ) from None

    def documents() -> Iterator[Document]:
        from gpt2.common.network import check_reachable, hub_address

        try:
            check_reachable(hub_address())
            rows = load_dataset(repo, name=config, split="train", streaming=True)
            for i, row in enumerate(rows):
                if limit is not None and i >= limit:
                    return
                if not isinstance(row.get("text"), str):
                    raise ValueError(f"{repo}: row {i} has no `text`; it has {sorted(row)}")
                data = plain(row["text"])
                if data:
                    yield Document(f"{repo}[{i}]", len(data), data=data)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"{repo} cannot be read from the hub: {error}") from None

    return Source(f"hf:{repo}" + (f":{config}" if config else ""), documents, None)


# --------------------------------------------------------------------------- files and folders


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no system allows
        return False


def disk_bytes(name: str, *, without: Path | None = None) -> int | None:
    """What a source's files take on the disk, without reading them; None for other sources.

    A cheap way to see that a source has changed. ValueError where there is nothing.
    """
    if name in NAMED_SOURCES or name.startswith("hf:"):
        return None
    found, _, _ = _find(_paths(name), without)
    return sum(path.stat().st_size for path, _ in found)


def _paths(name: str) -> list[Path]:
    """The files and folders that a source's name stands for; a name may hold a comma itself."""
    whole = Path(os.path.expanduser(name))
    parts = [name] if "," in name and _exists(whole) else name.split(",")
    return [Path(os.path.expanduser(part)) for part in parts if part]


def _find(
    paths: list[Path], without: Path | None
) -> tuple[list[tuple[Path, bool]], list[LeftOut], Counter[str]]:
    """→ files that are text by their names, each with whether it was named by itself; what is left
    out; and how many other files there are, by ending.
    """
    found: list[tuple[Path, bool]] = []
    left_out: list[LeftOut] = []
    other_kinds: Counter[str] = Counter()
    for path in paths:
        if not _exists(path):
            raise ValueError(
                f"no source {_shown(str(path))!r}: neither a file nor a folder, and the named "
                "sources are python-docs, shakespeare, fineweb-edu, hf:REPO[:CONFIG]"
            )
        if path.is_dir():
            below, others = _look_through(path, without, other_kinds)
            found += [(file, False) for file in below]
            left_out += others
        elif path.is_file():
            found.append((path, True))
        else:
            raise ValueError(f"{_shown(str(path))} is neither a file nor a folder: save it as one")
    return found, left_out, other_kinds


def _files(name: str, paths: list[Path], without: Path | None) -> Source:
    """Text files, and those in folders, in the order of their names; a file's copy is left out, or
    it could stand in both splits.
    """
    found, left_out, other_kinds = _find(paths, without)
    documents, copies = _read_through(found, left_out)
    for suffix, count in other_kinds.most_common():
        verb = "ends" if count == 1 else "end"
        ending = f"that {verb} in {_shown(suffix)}" if suffix else "without an ending"
        left_out.append(
            LeftOut(f"{_count(count, 'file')} {ending}", "name such a file itself to read it")
        )
    if not documents:
        why = "; ".join(f"{_shown(item.name)} ({item.reason})" for item in left_out[:3])
        raise ValueError(
            f"{_shown(name)}: there is no text in it. In folders, files that end in "
            f"{', '.join(TEXT_SUFFIXES)} are read" + (f". Left out: {why}" if why else "")
        )
    notes = {"files": len(documents)} | ({"copies_left_out": copies} if copies else {})
    notes["disk_bytes"] = sum(path.stat().st_size for path, _ in found)
    return Source(
        ", ".join(path.name or str(path) for path in paths),
        lambda: iter(documents),
        sum(document.size for document in documents),
        notes,
        tuple(documents),
        tuple(left_out),
    )


def _look_through(
    folder: Path, without: Path | None, other_kinds: Counter[str]
) -> tuple[list[Path], list[LeftOut]]:
    """A folder → files that are text by their names, sorted; and what is left out.

    Other files are only counted, by ending. Links to folders are not followed: they can lead
    anywhere, and in circles. ValueError for a folder that cannot be read.
    """
    avoided = None if without is None else os.path.realpath(without)
    texts: list[Path] = []
    left_out: list[LeftOut] = []

    def refuse(error: OSError) -> None:
        name = _shown(str(error.filename))
        raise ValueError(f"{name} cannot be read: {error.strerror}") from None

    for here, folders, files in os.walk(folder, onerror=refuse):
        inside = []
        for name in sorted(folders):
            path = Path(here, name)
            if reason := _why_not_folder(path, avoided):
                left_out.append(LeftOut(f"{path}{os.sep}", reason))
            else:
                inside.append(name)
        folders[:] = inside
        for name in files:
            path = Path(here, name)
            if _hidden(path):
                left_out.append(LeftOut(str(path), "hidden"))
            elif name.startswith("~$"):
                left_out.append(LeftOut(str(path), "an office program's lock"))
            elif path.suffix.lower() not in TEXT_SUFFIXES:
                other_kinds[path.suffix.lower()] += 1
            elif path.is_file():
                texts.append(path)
            else:
                kind = "a link that leads nowhere" if path.is_symlink() else "not a regular file"
                left_out.append(LeftOut(str(path), kind))
    return sorted(texts), left_out


def _why_not_folder(path: Path, avoided: str | None) -> str | None:
    """Why a folder inside a source is not read; None when it is."""
    if _hidden(path):
        return "hidden"
    if path.is_symlink():
        return "a link to a folder; name it itself to read it"
    if path.name in FOREIGN_FOLDERS:
        return FOREIGN_FOLDERS[path.name]
    if any((path / mark).exists() for mark in ENVIRONMENT_MARKS):
        return "a Python environment"
    prepared = (path / "tokenizer.json").exists()
    if prepared and any((path / mark).exists() for mark in PREPARED_MARKS):
        return "prepared data"
    if avoided is not None and os.path.realpath(path) == avoided:
        return "the folder that is written"
    return None


def _hidden(path: Path) -> bool:
    """Does the name begin with a dot, or has the system marked it as hidden?"""
    if path.name.startswith("."):
        return True
    try:
        found = path.lstat()
    except OSError:
        return False
    windows = getattr(found, "st_file_attributes", 0) & stat.FILE_ATTRIBUTE_HIDDEN
    macos = getattr(found, "st_flags", 0) & getattr(stat, "UF_HIDDEN", 0x8000)
    return bool(windows or macos)


def _read_through(
    found: list[tuple[Path, bool]], left_out: list[LeftOut]
) -> tuple[list[Document], int]:
    """Files → documents with their sizes, and how many copies there were; what is not a document
    joins `left_out`.

    ValueError that names every file that is meant as text and is not.
    """
    documents: list[Document] = []
    first: dict[bytes, Path] = {}  # digest of the plain text → where it was met
    wrong: list[str] = []
    copies = 0
    for path, named in found:
        size, digest = 0, b""
        try:
            reason = _binary(path)
            if reason is None:
                size, digest = _measure(path)
        except NotText as error:
            wrong.append(str(error))
            continue
        except OSError as error:
            wrong.append(f"{_shown(str(path))} cannot be read: {error.strerror}")
            continue
        if reason is not None and named:
            wrong.append(f"{_shown(str(path))} is not text: {reason}")
        elif reason is not None:
            left_out.append(LeftOut(str(path), reason))
        elif size == 0:
            left_out.append(LeftOut(str(path), "empty"))
        elif digest in first:
            copies += 1
            left_out.append(LeftOut(str(path), f"the same text as {_shown(str(first[digest]))}"))
        else:
            first[digest] = path
            documents.append(Document(str(path), size, path=path))
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(
            f"{'; '.join(wrong[:3])}{more}. Text is read as UTF-8, or as UTF-16 with a byte-order "
            "mark; `iconv -f WINDOWS-1252 -t UTF-8 OLD > NEW` converts a file"
        )
    return documents, copies


def _binary(path: Path) -> str | None:
    """Why a file's first bytes are not text; None when they can be."""
    with path.open("rb") as file:
        start = file.read(BINARY_BYTES)
    if any(start.startswith(mark) for mark, _ in ENCODINGS) or b"\0" not in start:
        return None
    even, odd = start[::2].count(0), start[1::2].count(0)
    if max(even, odd) > len(start) // 5 and not min(even, odd):
        return "it has NUL bytes like UTF-16 without a byte-order mark"
    return "it has NUL bytes, as binary files do"


def _measure(path: Path) -> tuple[int, bytes]:
    """A file → the length of its plain text in bytes, and its digest."""
    size, digest = 0, hashlib.sha256()
    with Document(_shown(str(path)), 0, path=path).open() as text:
        while chunk := text.read(CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.digest()
