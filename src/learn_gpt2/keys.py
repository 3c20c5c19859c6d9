"""Single keys from a terminal, without waiting: on Unix through termios, on Windows msvcrt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def single_keys() -> Iterator[Callable[[], str]]:
    """While the block runs, keys come one by one and unseen; yields a function that returns the
    key that is waiting, or "" when there is none. The terminal is restored in any case.
    """
    if not sys.stdin.isatty():
        yield lambda: ""
    elif os.name == "nt":
        import msvcrt

        yield lambda: msvcrt.getwch() if msvcrt.kbhit() else ""
    else:
        with _cbreak() as read:
            yield read


@contextmanager
def _cbreak() -> Iterator[Callable[[], str]]:
    import select
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> str:
        if not select.select([descriptor], [], [], 0)[0]:
            return ""
        return os.read(descriptor, 1).decode("utf-8", "ignore") or "q"  # end of input: quit

    tty.setcbreak(descriptor)
    try:
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
