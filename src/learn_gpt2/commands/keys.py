"""Single keys from a terminal, without waiting: on Unix through termios, on Windows msvcrt."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def single_keys() -> Iterator[Callable[[], str]]:
    """While the block runs, keys come one by one and unseen; yields a function that returns the
    key that is waiting, or "" when there is none. The terminal is restored in any case.
    """
    if not sys.stdin.isatty():
        yield lambda: ""
    elif os.name == "nt":
        import msvcrt

        yield lambda: _windows_key(msvcrt)
    else:
        with _cbreak() as read:
            yield read


def _windows_key(console: Any) -> str:
    """The key that is waiting; an arrow or function key, which comes as two, is ignored."""
    if not console.kbhit():
        return ""
    key = console.getwch()
    if key in ("\x00", "\xe0"):
        console.getwch()  # an arrow's second half is a letter
        return ""
    return key


def _unix_key(data: bytes) -> str:
    """What was read → a key; arrow and function keys, which come as several, are ignored."""
    if not data:
        return "q"  # end of input: quit
    return "" if data.startswith(b"\x1b") else data.decode("utf-8", "ignore")[:1]


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
        data = os.read(descriptor, 1)
        while data.startswith(b"\x1b") and select.select([descriptor], [], [], 0)[0]:
            if not (more := os.read(descriptor, 1)):
                break
            data += more
            if len(data) > 2 and more[0] in range(0x40, 0x7F):  # the sequence's last byte
                break
        return _unix_key(data)

    tty.setcbreak(descriptor)
    try:
        yield read
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
