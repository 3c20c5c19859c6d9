"""A command in a real (pseudo-)terminal: what it shows, which keys it takes, how it ends."""

import os
import select
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

pty = pytest.importorskip("pty", reason="pseudo-terminals are Unix's")

# A terminal's child leads a session, has that terminal for its own, and Ctrl-C ends it, whatever
# these tests were started by.
BECOME = (
    "import fcntl, os, signal, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
)


class Terminal:
    """`python -m module …` in a pseudo-terminal of so many columns."""

    def __init__(self, course: Path, module: str, *arguments: str, columns: int = 100):
        import fcntl
        import termios

        self.descriptor, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        environment = {
            **os.environ,
            "PYTHONPATH": str(course / "src"),
            "TERM": "xterm",
            "OMP_NUM_THREADS": "1",
        }
        for name in ("COLUMNS", "LINES"):
            environment.pop(name, None)
        # no fork by hand: this process has threads, which a fork does not take along
        self.process = subprocess.Popen(
            [sys.executable, "-c", BECOME, "-m", module, *arguments],
            cwd=course,
            env=environment,
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
        )
        os.close(child)
        self.shown = ""

    def read_until(self, text: str, seconds: float = 120.0) -> str:
        """What is printed up to and with `text`. Fails with what came when it does not come."""
        seen, end = b"", time.monotonic() + seconds
        while text.encode() not in seen:
            assert time.monotonic() < end, f"{text!r} did not come; this did:\n{seen.decode()}"
            if select.select([self.descriptor], [], [], 0.1)[0]:
                try:
                    seen += os.read(self.descriptor, 1 << 16)
                except OSError:  # the other side is closed
                    assert text.encode() in seen, seen.decode("utf-8", "replace")
        shown = seen.decode("utf-8", "replace")
        self.shown += shown
        return shown

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.descriptor, keys.encode())

    def end(self, seconds: float = 60.0) -> int:
        """Exit code; the process must end by itself. What it still prints is in `shown`."""
        deadline = time.monotonic() + seconds
        closed = False  # the child's end: reading then fails, and says that it could be read
        while time.monotonic() < deadline:
            ready = not closed and select.select([self.descriptor], [], [], 0.05)[0]
            if ready:
                try:
                    self.shown += os.read(self.descriptor, 1 << 16).decode("utf-8", "replace")
                except OSError:
                    closed = True
            if self.process.poll() is not None and not ready:
                break
            if closed:
                time.sleep(0.05)
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            raise AssertionError(f"the command did not end:\n{self.shown}")
        os.close(self.descriptor)
        return self.process.returncode
