"""Ctrl-C and SIGTERM while a run trains: noted, and obeyed when the step is done."""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any


class Stopped(Exception):
    """Ctrl-C or SIGTERM, after the checkpoint was written."""


class Interruption:
    """`with Interruption() as asked: …` notes the first signal in `asked.signal` (0: none); a
    second one ends at once. After it, the handlers are those from before.
    """

    KINDS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        self._before: list[tuple[int, Any]] = []

    def __enter__(self) -> Interruption:
        try:
            self._before = [(kind, signal.signal(kind, self._note)) for kind in self.KINDS]
        except ValueError:  # not in the main thread (a notebook's worker): no handlers there
            self._before = []
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._before:
            signal.signal(*self._before.pop())

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
