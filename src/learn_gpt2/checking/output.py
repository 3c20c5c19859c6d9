"""What a learner's code prints while a check runs, and where its breakpoint() leads.

A check runs the code again to find out what went wrong with it: from the first wrong number on
(`hush`), nothing is shown, and no debugger stops.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, TextIOWrapper
from typing import Any


class DebuggerWanted(Exception):
    """breakpoint() was reached where no terminal is."""


@contextmanager
def no_debugger() -> Iterator[None]:
    """breakpoint() and pdb.set_trace() raise DebuggerWanted while the block runs."""

    def refuse(*_: object, **__: object) -> None:
        raise DebuggerWanted("a debugger needs a terminal")

    with _debugger(refuse):
        yield


@contextmanager
def quietly() -> Iterator[None]:
    """What is printed while the block runs is not shown, and breakpoint() does nothing: the code
    runs once more than the learner asked for.
    """
    nowhere = Heard()
    with _debugger(lambda *_, **__: None), redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def _debugger(stand_in: Callable[..., None]) -> Iterator[None]:
    """Put a function in the place of breakpoint() and pdb.set_trace()."""
    import pdb

    before = sys.breakpointhook, pdb.set_trace
    sys.breakpointhook = pdb.set_trace = stand_in
    try:
        yield
    finally:
        sys.breakpointhook, pdb.set_trace = before


class _Beginning(BytesIO):
    """Keeps the first bytes that are written, while a loop prints forever."""

    MOST = 200_000

    def __init__(self) -> None:
        super().__init__()
        self.kept = bytearray()

    def write(self, data: Any) -> int:
        """Keep it, while there is room."""
        if len(self.kept) < self.MOST:
            self.kept += bytes(data)[: self.MOST - len(self.kept)]
        return len(bytes(data))

    def fileno(self) -> int:
        """That of standard error: `faulthandler.enable()` and others ask for one."""
        return 2


class Heard(TextIOWrapper):
    """A stream that keeps the beginning of what is printed to it; `text`, also once it is closed.
    A file may set its encoding, or write bytes to it, as to any standard output.
    """

    def __init__(self) -> None:
        self._beginning = _Beginning()
        super().__init__(
            self._beginning, encoding="utf-8", errors="replace", newline="", write_through=True
        )

    @property
    def text(self) -> str:
        """What was printed."""
        return self._beginning.kept.decode("utf-8", "replace")


PRINTED_LINES = 24
PRINTED_WIDTH = 300
PRINTED_BLOCK = 12  # lines that are printed in the same way again and again


def cut_print(text: str) -> str:
    """What a learner's code printed, at a sane length: repeated blocks once, and no more than so
    many lines.
    """
    lines = [
        line if len(line) <= PRINTED_WIDTH else f"{line[:PRINTED_WIDTH]} …"
        for line in text.rstrip().splitlines()
    ]
    kept: list[str] = []
    at = 0
    while at < len(lines) and len(kept) <= PRINTED_LINES:
        size, times = _repeated(lines, at)
        kept += lines[at : at + size]
        if times > 1:
            what = "the line above" if size == 1 else f"the {size} lines above"
            kept.append(f"({what}: {times} times)")
        at += size * times
    left = len(lines) - at + max(0, len(kept) - PRINTED_LINES)
    if left:
        kept = [*kept[:PRINTED_LINES], f"… and {left} more lines; `pytest -s` shows all"]
    return "\n".join(kept)


def _repeated(lines: list[str], at: int) -> tuple[int, int]:
    """The block that starts at a line and how often it stands there in a row: (lines, times)."""
    for size in range(1, PRINTED_BLOCK + 1):
        block, times = lines[at : at + size], 1
        while len(block) == size and lines[at + size * times : at + size * (times + 1)] == block:
            times += 1
        if times > 1 and (size > 1 or times > 2):
            return size, times
    return 1, 1


_check: ExitStack | None = None


@contextmanager
def one_check() -> Iterator[None]:
    """Around each check: what `hush` silences can be heard again after it."""
    global _check
    before = _check
    with ExitStack() as _check:
        try:
            yield
        finally:
            _check = before


def hush() -> None:
    """For the rest of this check, show nothing and stop nowhere: what runs now serves the
    diagnosis. Outside a check it does nothing.
    """
    if _check is not None:
        _check.enter_context(quietly())
