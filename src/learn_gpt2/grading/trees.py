"""What was submitted as one tree: folders on disk and archives alike, links never followed.

Everything here is lazy: a folder is listed and an archive opened when its children are asked for.
Whatever can't be read stays in the tree with a note that says why; nothing raises for more than
the one file that it is about.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from learn_gpt2.checking.child import Child, NoAnswer

MAX_BYTES = 1_000_000  # of one piece; a real one has a few thousand
MAX_ARCHIVE_BYTES = 4_000_000_000  # of an archive on disk: a whole class may be in it
MAX_LISTED = 200_000  # entries of one folder
MAX_WALKED = 20_000  # files of one student that are looked at
MAX_DEPTH = 24
MAX_NESTED = 4  # archives inside archives
MAX_READERS = 4  # processes at a time, one per archive on disk
MAX_ANSWER = 256 << 20  # bytes of one answer of such a process
MAX_OPENED = 8  # archives inside one archive before its process starts afresh
ANSWER_SECONDS = 60.0  # for one question to the process that reads an archive

ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".gz", ".zipx")
# known by name, and never opened; each with what to do
UNOPENED = {
    ".7z": "7z archive",
    ".rar": "RAR archive",
    ".bz2": "bzip2 archive",
    ".tbz": "bzip2 archive",
    ".tbz2": "bzip2 archive",
    ".xz": "XZ archive",
    ".txz": "XZ archive",
    ".zst": "Zstandard archive",
    ".lzh": "LZH archive",
    ".ace": "ACE archive",
    ".dmg": "disk image",
    ".iso": "disk image",
}
# left by systems, editors and tools; not a student's work
JUNK_FOLDERS = frozenset(
    (
        "$recycle.bin",
        ".fleet",
        ".fseventsd",
        ".git",
        ".github",
        ".hg",
        ".idea",
        ".ipynb_checkpoints",
        ".learn",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".settings",
        ".spotlight-v100",
        ".spyproject",
        ".svn",
        ".trash",
        ".trashes",
        ".venv",
        ".vs",
        ".vscode",
        "__macosx",
        "__pycache__",
        "node_modules",
        "site-packages",
        "venv",
    )
)
JUNK_FILES = frozenset(
    (
        ".directory",
        ".ds_store",
        ".git",
        ".gitattributes",
        ".gitignore",
        ".gitkeep",
        ".keep",
        ".localized",
        ".project",
        "desktop.ini",
        "ehthumbs.db",
        "thumbs.db",
    )
)


class Refused(ValueError):
    """A file or a folder that is not read; the message says why."""


def is_junk(name: str, folder: bool) -> bool:
    """Whether a name is one that no student chose."""
    low = name.casefold()
    return low in JUNK_FOLDERS if folder else low in JUNK_FILES or name.startswith("._")


def shown(name: str) -> str:
    """A name as text that can be printed, stored and compared: NFC, bytes that are not UTF-8 read
    as Windows-1252, control characters and changes of direction written out.
    """
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raw = name.encode("utf-8", "surrogateescape" if _escaped(name) else "replace")
        try:
            name = raw.decode("cp1252")
        except UnicodeDecodeError:
            name = raw.decode("latin-1")
    name = unicodedata.normalize("NFC", name)
    return "".join(c if _plain(c) else f"\\x{ord(c):02x}" for c in name)


def _escaped(name: str) -> bool:
    return all(not 0xD800 <= ord(c) <= 0xDFFF or 0xDC80 <= ord(c) <= 0xDCFF for c in name)


def _plain(char: str) -> bool:
    if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"):
        return False
    if char in "\u00ad\u200b\u2060\ufeff":  # nothing is seen of them
        return False
    return not (0x202A <= ord(char) <= 0x202E or 0x2066 <= ord(char) <= 0x2069)


@dataclass(eq=False)
class Node:
    """A file, a folder, an archive or something else. path: from what was given, parts joined by
    "/". kind: folder, file, archive, link, other or bad. note: why it is not read; "" when it is.
    """

    name: str
    path: str
    kind: str
    size: int = 0
    note: str = ""
    lists: Callable[[], tuple[list[Node], str]] | None = None
    reads: Callable[[int], bytes] | None = None
    _children: list[Node] | None = None
    _data: bytes | None = None

    @property
    def children(self) -> list[Node]:
        """What a folder or an archive holds, by name; [] and a note when it can't be listed."""
        if self._children is None:
            self._children = []
            if self.lists is not None:
                try:
                    self._children, note = self.lists()
                    self.note = self.note or note
                except Refused as error:
                    self.note = str(error)
                except (TypeError, ValueError, KeyError) as error:  # an answer of no known form
                    self.note = f"can't be read ({type(error).__name__})"
        return self._children

    @property
    def holds(self) -> bool:
        """Whether it is something that others are in."""
        return self.kind in ("folder", "archive")

    @property
    def listed(self) -> list[Node]:
        """Its children without files that systems and tools leave."""
        return [c for c in self.children if not is_junk(c.name, c.kind == "folder")]

    @property
    def stem(self) -> str:
        """The name without the ending of an archive."""
        return stem(self.name) if self.kind == "archive" else self.name

    def read(self, most: int = MAX_BYTES) -> bytes:
        """A regular file's bytes. Refused when it is something else, or has more than `most`."""
        if self._data is None or self.note:
            if self.note or self.reads is None:
                raise Refused(f"{self.path} {self.note or 'is not a regular file'}")
            data = self.reads(most + 1)
            if len(data) > most:
                raise Refused(
                    f"{self.path} has more than {most:,} bytes; a piece has a few thousand"
                )
            self._data = data
        return self._data

    def forget(self) -> None:
        """Let go of the bytes that were read, here and below."""
        self._data = None
        for child in self._children or ():
            child.forget()

    def walk(self) -> Iterator[Node]:
        """Every file below, archives opened; what is not read comes too, junk does not."""
        budget = [MAX_WALKED]
        yield from self._walk(0, 1 if self.kind == "archive" else 0, budget)

    def _walk(self, depth: int, nested: int, budget: list[int]) -> Iterator[Node]:
        for child in self.listed:
            budget[0] -= 1
            if budget[0] == 0:
                self.note = f"holds more than {MAX_WALKED:,} files; the rest is not looked at"
            if budget[0] <= 0:
                return
            inside = nested + (child.kind == "archive")
            if not child.holds:
                yield child
            elif depth >= MAX_DEPTH or inside > MAX_NESTED:
                child.note = "is nested too deep and is not examined"
                yield child
            elif child.kind == "folder" and _is_code(child.name) and not child.listed:
                child.note = child.note or "is a folder and not a file"
                yield child
            elif child.kind == "folder" and any(c.name == "pyvenv.cfg" for c in child.children):
                continue  # a virtual environment, however it is called
            else:
                yield from child._walk(depth + 1, inside, budget)
                if child.note:
                    yield child


def _is_code(name: str) -> bool:
    return name.lower().endswith((".py", ".ipynb"))


def stem(name: str) -> str:
    """A name without the ending of an archive: carol.tar.gz → carol."""
    for ending in (".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst", *ARCHIVES, *UNOPENED):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def _kind(name: str) -> tuple[str, str]:
    """(kind, note) of a regular file by its name."""
    low = name.lower()
    for ending, what in UNOPENED.items():
        if low.endswith(ending):
            return "bad", f"is a {what}, which is not opened here: ask for a .zip, or unpack it"
    return ("archive" if low.endswith(ARCHIVES) else "file"), ""


# ── on disk ─────────────────────────────────────────────────────────────────────────────────────


def from_disk(path: Path, name: str | None = None, inside: str = "") -> Node:
    """The tree at a path. `inside` is the path of the folder around it, "" for the root."""
    name = shown(path.name) if name is None else name
    place = f"{inside}/{name}" if inside else name
    try:
        status = os.lstat(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        return Node(name, place, "bad", note=f"can't be read: {reason}")
    if stat.S_ISLNK(status.st_mode):
        note = f"is a symbolic link to {_target(path)}; links are not followed"
        return Node(name, place, "link", note=note)
    if stat.S_ISDIR(status.st_mode):
        return Node(name, place, "folder", lists=lambda: _scan(path, place))
    if not stat.S_ISREG(status.st_mode):
        return Node(name, place, "other", note="is not a regular file")
    kind, note = _kind(name)
    if kind == "file" and "." not in name and _starts_like_zip(path):
        kind = "archive"  # a platform dropped the ending
    node = Node(name, place, kind, status.st_size, note)
    node.reads = lambda most: _read_file(path, place, most)
    if kind == "archive":
        node.lists = lambda: _Reader(path, place).entries()
    return node


def _target(path: Path) -> str:
    with contextlib.suppress(OSError):
        return shown(os.readlink(path))[:200]
    return "somewhere"


def _scan(path: Path, place: str) -> tuple[list[Node], str]:
    try:
        with os.scandir(path) as entries:
            names = []
            for entry in entries:
                names.append(entry.name)
                if len(names) > MAX_LISTED:
                    raise Refused(f"holds more than {MAX_LISTED:,} entries")
    except OSError as error:
        raise Refused(f"can't be listed: {error.strerror or error}") from None
    unique = _unique([shown(name) for name in sorted(names)])
    pairs = zip(sorted(names), unique, strict=True)
    nodes = [from_disk(path / name, text, place) for name, text in pairs]
    return sorted(nodes, key=lambda node: node.name), ""


def _unique(names: list[str]) -> list[str]:
    """Names that look alike (composed and decomposed letters, say) get a number."""
    taken: set[str] = set()
    return [_free(name, taken) for name in names]


def _free(name: str, taken: set[str]) -> str:
    """A name, with a number when it is taken already; it is taken from now on."""
    number, new = 1, name
    while new in taken:
        number += 1
        first, dot, last = name.rpartition(".")
        new = f"{first} [{number}].{last}" if dot and first else f"{name} [{number}]"
    taken.add(new)
    return new


def _open_regular(path: Path) -> int:
    """A regular file's descriptor; swapping the file for a link or a pipe now gains nothing."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    handle = os.open(path, flags | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError("it is not a regular file any more")
    return handle


def _read_file(path: Path, place: str, most: int) -> bytes:
    try:
        with os.fdopen(_open_regular(path), "rb") as file:
            return file.read(most)
    except OSError as error:
        raise Refused(f"{place} can't be read: {error.strerror or error}") from None


def _starts_like_zip(path: Path) -> bool:
    with contextlib.suppress(OSError), os.fdopen(_open_regular(path), "rb") as file:
        return file.read(4) == b"PK\3\4"
    return False


# ── archives ────────────────────────────────────────────────────────────────────────────────────


def intake(*arguments: str) -> tuple[list[str], dict[str, str]]:
    """The command that reads what was handed in, in a process that imports nothing of ours and is
    told nothing of this one's environment; and that process's environment.
    """
    script = str(Path(__file__).with_name("intake_child.py"))
    told = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}
    told |= {k: os.environ[k] for k in ("SYSTEMROOT", "PATH") if k in os.environ}
    return [sys.executable, "-I", "-S", "-B", script, *arguments], told


class _Reader:
    """Asks the process that reads an archive; starts it again when an entry has ended it."""

    live: ClassVar[list[_Reader]] = []

    def __init__(self, path: Path, place: str):
        self.path, self.place = path, place
        self._child: Child | None = None
        self._opened: dict[tuple[int, ...], int] = {}
        with contextlib.suppress(OSError):
            if os.lstat(path).st_size > MAX_ARCHIVE_BYTES:
                raise Refused(f"has more than {MAX_ARCHIVE_BYTES // 10**9} GB")

    def _start(self) -> Child:
        _Reader.live = [reader for reader in _Reader.live if reader is not self]
        while len(_Reader.live) >= MAX_READERS:
            _Reader.live.pop(0).close()  # it starts again when it is asked again
        _Reader.live.append(self)
        name = self.path.name.encode("utf-8", "replace").decode()
        handle, place = -1, str(self.path)
        passed: tuple[int, ...] = ()
        if os.name == "posix":
            try:
                handle = _open_regular(self.path)
            except OSError as error:
                raise Refused(f"can't be read: {error.strerror or error}") from None
            place, passed = str(handle), (handle,)
        command, environment = intake(place, name)
        try:
            self._child = Child(command, environment, pass_fds=passed)
        finally:
            if handle >= 0:
                os.close(handle)
        self._opened = {(): 0}
        return self._child

    def _ask(self, question: dict) -> tuple[dict, bytes]:
        """(answer, bytes). Refused when the process says so, ends, or takes too long."""
        child = self._child or self._start()
        until = time.monotonic() + ANSWER_SECONDS
        try:
            child.tell(json.dumps(question).encode() + b"\n")
            answer = json.loads(child.line(until, MAX_ANSWER))
            data = child.exactly(min(int(answer.get("length", 0)), MAX_ANSWER), until)
        except (NoAnswer, ValueError) as error:
            self.close()
            late = isinstance(error, NoAnswer) and error.late
            what = "takes too long to unpack" if late else "ended the process that unpacks it"
            raise Refused(f"{what}: it is left out") from None
        if "refused" in answer:
            raise Refused(shown(str(answer["refused"])))
        return answer, data

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    def _handle(self, chain: tuple[int, ...]) -> int:
        """The number of the archive that one reaches by opening entries one inside the other."""
        if self._child is None:
            self._start()
        if chain not in self._opened:
            if len(self._opened) > MAX_OPENED:  # their bytes are in the process's memory
                self.close()
                self._start()
            outer = self._handle(chain[:-1])
            if not outer:
                self._list(())
            answer, _ = self._ask({"open": [outer, chain[-1]]})
            self._opened[chain] = answer["handle"]
        return self._opened[chain]

    def _list(self, chain: tuple[int, ...]) -> dict:
        number = self._handle(chain) if chain else 0
        return self._ask({"list": number})[0]

    def _read(self, chain: tuple[int, ...], index: int, place: str, most: int) -> bytes:
        try:
            if self._child is None:
                self._list(())
            return self._ask({"read": [self._handle(chain), index, most]})[1]
        except Refused as error:
            raise Refused(f"{place} {error}") from None

    def entries(self, chain: tuple[int, ...] = (), place: str = "") -> tuple[list[Node], str]:
        """The archive's entries as trees, and a note on what was left out or is damaged."""
        place = place or self.place
        listed = self._list(chain)
        notes = list(listed["notes"])
        root: list[Node] = []
        folders: dict[str, tuple[str, list[Node]]] = {"": (place, root)}
        taken: dict[str, set[str]] = {}
        for index, (raw, kind, size, note) in enumerate(listed["entries"]):
            path = raw.replace("\\", "/")
            parts = [part for part in path.split("/") if part not in ("", ".")]
            if path.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
                notes.append(f"has an entry {shown(raw)[:80]!r} that points outside: left out")
                continue
            if not parts or len(parts) > 3 * MAX_DEPTH:
                continue
            parts = [shown(part) for part in parts]
            above, inside = self._folder(folders, parts[:-1])
            if kind == "folder":
                self._folder(folders, parts)
                continue
            name = _free(parts[-1], taken.setdefault(above, set()))
            node = self._node(chain, index, name, above, kind, size, note)
            if node.kind == "file" and str(index) in listed["data"]:
                node._data = base64.b64decode(listed["data"][str(index)])
            inside.append(node)
        if len(notes) > 3:
            notes = [*notes[:3], f"and {len(notes) - 3} more such notes"]
        for _, inside in folders.values():
            inside.sort(key=lambda node: node.name)
        return root, "; ".join(notes)

    @staticmethod
    def _folder(
        folders: dict[str, tuple[str, list[Node]]], parts: list[str]
    ) -> tuple[str, list[Node]]:
        """(path, children) of a folder in the archive, which is made when it is not there."""
        for i in range(1, len(parts) + 1):
            key = "/".join(parts[:i])
            if key not in folders:
                above, beside = folders["/".join(parts[: i - 1])]
                inside: list[Node] = []
                path = f"{above}/{parts[i - 1]}"
                beside.append(Node(parts[i - 1], path, "folder", _children=inside))
                folders[key] = path, inside
        return folders["/".join(parts)]

    def _node(
        self,
        chain: tuple[int, ...],
        index: int,
        name: str,
        above: str,
        kind: str,
        size: int,
        note: str,
    ) -> Node:
        place = f"{above}/{name}"
        if kind == "link":
            note = "is a symbolic link in the archive; links are not followed"
        elif kind == "other":
            note = "is not a regular file"
        elif kind == "file":
            kind, note = _kind(name)
        node = Node(name, place, kind, size, note)
        if kind in ("file", "archive"):
            node.reads = lambda most: self._read(chain, index, place, most)
        if kind == "archive":
            node.lists = lambda: self.entries((*chain, index), place)
        return node


def close_all() -> None:
    """End all processes that read archives; one that is asked again starts again."""
    while _Reader.live:
        _Reader.live.pop().close()
