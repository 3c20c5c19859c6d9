"""What students handed in: a folder or a zip each, read as bytes and never trusted.

Every file is read once, before any of their code runs, so that no student can change what another
is graded on. Links are refused, archives are never unpacked to disk, and sizes are bounded.
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from learn_gpt2.manifest import Problem

MAX_BYTES = 1_000_000  # of one piece; a real one has a few thousand
MAX_ENTRIES = 20_000  # of one archive
MAX_ZIP_BYTES = 200_000_000
WRAPPERS = 2  # folders around the work ("alice/gpt2-course/problems/…") that are looked through
IGNORED = ("__MACOSX", "__pycache__")


@dataclass
class Submission:
    """One student's work: the bytes of each piece, and what was refused and why."""

    student: str
    files: dict[int, bytes] = field(default_factory=dict)
    where: dict[int, str] = field(default_factory=dict)  # path inside the submission
    refused: dict[int, str] = field(default_factory=dict)  # why a piece was not taken
    notices: list[str] = field(default_factory=list)


class Refused(ValueError):
    """A file or a folder that is not read; the message says why."""


def candidates(problem: Problem) -> tuple[str, ...]:
    """Where a piece may stand inside a submission, in order of preference."""
    name = problem.folder
    return (f"problems/{name}/problem.py", f"{name}/problem.py", f"{name}.py")


def read_all(folder: Path, problems: list[Problem], out: Path | None = None) -> list[Submission]:
    """Every student's work in a folder, sorted by name.

    ValueError when there is none, when two have one name, or when the report would lie among them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; it must hold one folder or zip per student")
    if out is not None and out.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"--out {out} lies inside {folder}: it would be graded as a student")
    found: dict[str, Submission] = {}
    for entry in sorted(folder.iterdir(), key=lambda path: path.name):
        is_zip = entry.suffix.lower() == ".zip"
        if entry.name.startswith(".") or entry.name in IGNORED:
            continue
        if not is_zip and not entry.is_symlink() and not entry.is_dir():
            continue
        student = entry.stem if is_zip else entry.name
        if student in found:
            raise ValueError(f"{student} is in {folder} twice, as a folder and as a zip: keep one")
        found[student] = read_one(entry, student, problems)
    if not found:
        raise ValueError(f"{folder} holds no folder and no .zip: one per student is expected")
    return list(found.values())


def read_one(path: Path, student: str, problems: list[Problem]) -> Submission:
    """One student's folder or zip. What can't be taken is in `refused`, with the reason."""
    submission = Submission(student)
    try:
        if path.is_symlink():
            raise Refused(f"{path.name} is a symbolic link; links are not followed")
        tree: _Folder | _Zip
        tree = _Folder(path) if path.is_dir() else _Zip(path)
        _take(tree, submission, problems)
    except (Refused, OSError, zipfile.BadZipFile) as error:
        reason = str(error) or type(error).__name__
        if isinstance(error, OSError) and error.strerror:
            reason = f"{path.name} can't be read: {error.strerror}"
        submission.notices.append(reason)
        submission.refused |= {p.number: reason for p in problems}
    return submission


def _take(tree: _Folder | _Zip, submission: Submission, problems: list[Problem]) -> None:
    prefix = _prefix(tree, problems)
    submission.notices += tree.notices
    for problem in problems:
        present = [n for name in candidates(problem) if tree.kind(n := prefix + name) != "nothing"]
        if not present:
            continue
        submission.where[problem.number] = present[0]
        if len(present) > 1:
            submission.notices.append(
                f"problem {problem.number:02d} is there more than once; {present[0]} is graded, "
                f"not {', '.join(present[1:])}"
            )
        try:
            submission.files[problem.number] = tree.read(present[0])
        except (Refused, OSError) as error:
            reason = str(error)
            if isinstance(error, OSError):
                reason = f"{present[0]} can't be read: {error.strerror or error}"
            submission.refused[problem.number] = reason
            submission.notices.append(reason)


def _prefix(tree: _Folder | _Zip, problems: list[Problem]) -> str:
    """The wrapping folder that the work is in, as a prefix; "" when it is at the top."""
    prefix = ""
    names = [name for problem in problems for name in candidates(problem)]
    for _ in range(WRAPPERS + 1):
        if any(tree.kind(prefix + name) != "nothing" for name in names):
            return prefix
        inner = [name for name in tree.folders(prefix) if name not in IGNORED]
        if len(inner) != 1:
            break
        prefix += inner[0] + "/"
    return ""


class _Folder:
    """A submission on disk, read without following a single link."""

    def __init__(self, root: Path):
        self.root = root
        self.notices: list[str] = []

    def _link(self, name: str) -> str | None:
        """The first part of a path that is a symbolic link, else None."""
        path = self.root
        for part in PurePosixPath(name).parts:
            path = path / part
            if path.is_symlink():
                return path.relative_to(self.root).as_posix()
        return None

    def kind(self, name: str) -> str:
        """link, file, other or nothing."""
        if self._link(name):
            return "link"
        try:
            mode = os.lstat(self.root / name).st_mode
        except (OSError, ValueError):
            return "nothing"
        return "file" if stat.S_ISREG(mode) else "other"

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders in a folder, links and hidden ones left out."""
        with os.scandir(self.root / prefix) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    yield entry.name

    def read(self, name: str) -> bytes:
        """A regular file's bytes. Refused when it, or a folder on the way, is a link."""
        link = self._link(name)
        if link:
            target = os.readlink(self.root / link)
            raise Refused(f"{link} is a symbolic link to {target}; links are not followed")
        if self.kind(name) != "file":
            raise Refused(f"{name} is not a regular file")
        # whoever swaps a file for a link or a pipe just now gains nothing
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(self.root / name, flags | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        return _bounded(data, name)


class _Zip:
    """A submission in an archive: entries are read in memory, and none is unpacked."""

    def __init__(self, path: Path):
        if path.stat().st_size > MAX_ZIP_BYTES:
            raise Refused(f"{path.name} has {path.stat().st_size:,} bytes; pieces are small")
        self.notices: list[str] = []
        self._archive = zipfile.ZipFile(io.BytesIO(path.read_bytes()))
        entries = self._archive.infolist()
        if len(entries) > MAX_ENTRIES:
            raise Refused(f"{path.name} has {len(entries):,} entries; a submission has a few")
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            name = entry.filename.replace("\\", "/")
            parts = name.split("/")
            if name.startswith("/") or ".." in parts or ":" in parts[0]:
                self.notices.append(f"{path.name}: entry {name!r} points outside; it is left out")
            elif not entry.is_dir():
                self._entries[name] = entry

    def kind(self, name: str) -> str:
        """link, file or nothing."""
        entry = self._entries.get(name)
        if entry is None:
            folder = self._linked_folder(name)
            return "link" if folder else "nothing"
        return "link" if _is_link(entry) else "file"

    def _linked_folder(self, name: str) -> str | None:
        parts = name.split("/")
        for i in range(1, len(parts)):
            entry = self._entries.get("/".join(parts[:i]))
            if entry is not None and _is_link(entry):
                return entry.filename
        return None

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders in a folder, hidden ones left out."""
        inner = {n[len(prefix) :].split("/")[0] for n in self._entries if n.startswith(prefix)}
        for name in sorted(inner):
            is_folder = any(n.startswith(f"{prefix}{name}/") for n in self._entries)
            if is_folder and not name.startswith("."):
                yield name

    def read(self, name: str) -> bytes:
        """An entry's bytes, at most MAX_BYTES of them, whatever the archive claims."""
        if self.kind(name) == "link":
            raise Refused(f"{name} is a symbolic link in the zip; links are not followed")
        try:
            with self._archive.open(self._entries[name]) as file:
                return _bounded(file.read(MAX_BYTES + 1), name)
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile, EOFError) as error:
            raise Refused(f"{name} can't be read from the zip: {error}") from None
        except Exception as error:  # zlib.error and its kin of other compressions
            if isinstance(error, Refused):
                raise
            raise Refused(f"{name} can't be unpacked: {error}") from None


def _is_link(entry: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(entry.external_attr >> 16)


def _bounded(data: bytes, name: str) -> bytes:
    if len(data) > MAX_BYTES:
        raise Refused(f"{name} has more than {MAX_BYTES:,} bytes; a piece has a few thousand")
    return data
