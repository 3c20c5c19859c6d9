"""A learner's files: written as a whole, never without a backup that `learn undo` brings back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gpt2.common.files import write_atomically
from learn_gpt2.checking import loading
from learn_gpt2.manifest import PROBLEMS, Problem


def folder(root: Path) -> Path:
    """Where what `learn` remembers about this course is kept; git ignores it."""
    return root / ".learn"


def source_digest(path: Path) -> str | None:
    """Short hash of a piece's source, as reports show it; None when it can't be read."""
    try:
        return loading.digest(loading.read_source(path))
    except loading.PieceError:
        return None


def untouched(root: Path, problem: Problem) -> bool:
    """Whether the learner's file is the skeleton."""
    mine = source_digest(problem.problem_path(root))
    return mine is not None and mine == source_digest(problem.skeleton_path(root))


def why_lost(root: Path, problem: Problem) -> str:
    """Why a learner's file can't be read, in a few words; "" when it can."""
    try:
        loading.read_source(problem.problem_path(root))
    except loading.PieceError as error:
        if error.kind != "file-missing":
            return "problem.py can't be read"
        there = problem.problem_path(root).parent.is_dir()
        return "problem.py is not there" if there else "its folder is not there"
    return ""


# ── backups ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Backup:
    """A learner's file before something overwrote it."""

    path: Path
    problem: Problem
    why: str


def _backup_folder(root: Path) -> Path:
    return folder(root) / "backups" / "problems"


def backups(root: Path) -> list[Backup]:
    """All of them, oldest first."""
    by_number = {p.number: p for p in PROBLEMS}
    found = []
    for path in _backup_folder(root).glob("*.py"):
        match = re.fullmatch(r"(\d+)-problem-(\d\d)-before-(.+)", path.stem)
        if match and int(match[2]) in by_number:
            found.append((int(match[1]), Backup(path, by_number[int(match[2])], match[3])))
    return [backup for _, backup in sorted(found, key=lambda pair: pair[0])]


def overwrite(root: Path, problem: Problem, data: bytes, why: str) -> Path | None:
    """Put new content into a learner's file; what was there is kept, and its path returned.

    None when nothing was there or nothing changes. why: one word for the backup's name.
    """
    path = problem.problem_path(root)
    before = path.read_bytes() if path.exists() else None
    kept = None
    if before == data:
        return None
    if before is not None:
        numbers = [int(b.path.name.split("-")[0]) for b in backups(root)]
        name = f"{max(numbers, default=0) + 1:04d}-problem-{problem.number:02d}-before-{why}.py"
        kept = _backup_folder(root) / name
        write_atomically(kept, before)
    write_atomically(path, data)
    return kept


def undo(root: Path) -> Backup:
    """Bring the last overwritten file back. What it replaces is kept beside the backups.

    ValueError when there is nothing to bring back.
    """
    every = backups(root)
    if not every:
        raise ValueError("nothing to undo: no file of yours has been overwritten")
    last = every[-1]
    path = last.problem.problem_path(root)
    if path.exists():
        write_atomically(
            last.path.with_name(f"undone-{int(time.time())}-{last.path.name}"), path.read_bytes()
        )
    write_atomically(path, last.path.read_bytes())
    last.path.unlink()
    return last


# ── what is remembered ──────────────────────────────────────────────────────────────────────────


def read_memory(root: Path) -> dict:
    """`.learn/progress.json`; empty when it is lost or damaged: it can be derived again."""
    try:
        memory = json.loads((folder(root) / "progress.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(memory, dict):
        return {}
    return {key: entry for key, entry in memory.items() if isinstance(entry, dict)}


@contextmanager
def memory_lock(root: Path, seconds: float = 10.0) -> Iterator[None]:
    """One at a time changes what is remembered. OSError (TimeoutError) after so many seconds."""
    from filelock import FileLock

    folder(root).mkdir(parents=True, exist_ok=True)
    with FileLock(folder(root) / "progress.lock", timeout=seconds):
        yield


def write_memory(root: Path, memory: dict) -> None:
    """Write it as a whole."""
    text = json.dumps(memory, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    write_atomically(folder(root) / "progress.json", text.encode())
