"""What a run shows on the screen: lines, and on a terminal one line that is written again and
again.
"""

from __future__ import annotations

import shutil
import sys
import time

ERASE = "\r\x1b[K"


class Console:
    """Rank 0's standard output; the other ranks say nothing."""

    def __init__(self, main: bool):
        self.main = main

    def say(self, text: str) -> None:
        """A text that stays."""
        if self.main:
            print((ERASE if sys.stdout.isatty() else "") + text, flush=True)

    def progress(self, line: str) -> None:
        """How far it is: on a terminal the next such line takes its place."""
        if not self.main:
            return
        if sys.stdout.isatty():
            # a line that wraps could not be written over
            line = line[: shutil.get_terminal_size().columns - 1]
            print(f"{ERASE}{line}", end="", flush=True)
        else:
            print(line, flush=True)

    def leave(self) -> None:
        """What comes next starts on a line of its own."""
        if self.main and sys.stdout.isatty():
            print()


class Pace:
    """Steps per second since it was last asked, without the time for other things."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        """Count from this step and this moment on."""
        self.step, self.moment = step, time.monotonic()

    def ask(self, step: int) -> float:
        """→ steps per second up to this step; the next count starts here."""
        before, began = self.step, self.moment
        self.restart(step)
        return (step - before) / max(self.moment - began, 1e-9)
