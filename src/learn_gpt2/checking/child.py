"""A process of its own for code that may loop, exit, crash or print without end: asked, waited for
so long and no longer, and ended with all that it started.

`run` waits for a process's end, `ask` for one answer that is marked with a number which the code in
the process was not told, so that nothing it prints is taken for the answer. A `Child` that stays is
asked line by line.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MOST_BYTES = 256 << 20  # of what comes from a process and was not read yet
CHUNK = 1 << 16
PATIENCE = 20.0  # seconds for the end of a process that was killed


def environment(root: Path, **more: str) -> dict[str, str]:
    """The environment of a process that runs this course's own `src/` on a learner's code."""
    return os.environ | surroundings(root) | more


def surroundings(root: Path) -> dict[str, str]:
    """What is set for a process that runs a learner's file, and for the one that grades it: then
    both come to the same. The processor gives everybody the same numbers; compiling takes longer
    than the checks, and changes nothing that they look at; plots open no window.
    """
    return {
        "PYTHONPATH": str(root / "src"),
        "PYTHONIOENCODING": "utf-8",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "Agg",
        "TORCH_COMPILE_DISABLE": "1",
    }


def python(*arguments: str) -> list[str]:
    """The command that runs this Python; nothing in the current folder may pass for a module."""
    return [sys.executable, "-P", *arguments]


class NoAnswer(Exception):
    """No answer came. late: the time was up; otherwise the process ended, with `code`."""

    def __init__(self, message: str, *, late: bool = False, code: int | None = None):
        super().__init__(message)
        self.late, self.code = late, code


class Child:
    """A process that is told bytes and says bytes, until `close` ends it and what it started.

    On POSIX it has a session of its own: Ctrl-C is for whoever asks. errors: a file for what it
    writes to standard error, which is thrown away otherwise.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        cwd: str | Path | None = None,
        pass_fds: tuple[int, ...] = (),
        errors: Any = subprocess.DEVNULL,
    ):
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(environment),
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=os.name == "posix",
        )
        self._unread = bytearray()
        # a thread reads, because Windows has no other way to wait for a pipe with a time limit
        self._chunks: queue.Queue[bytes] = queue.Queue(16)
        self._closed = threading.Event()
        self._pump = threading.Thread(target=self._bring, daemon=True)
        self._pump.start()

    def _bring(self) -> None:
        pipe = self._process.stdout
        data = b"?"
        while data and pipe is not None:
            try:
                data = os.read(pipe.fileno(), CHUNK)
            except (OSError, ValueError):
                data = b""
            while not self._closed.is_set():
                with contextlib.suppress(queue.Full):
                    self._chunks.put(data, timeout=0.1)
                    break

    @property
    def code(self) -> int | None:
        """The code that it ended with; None while it runs."""
        return self._process.poll()

    def wait(self, until: float) -> int | None:
        """The code that it ends with; None when it still runs at that moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.01, until - time.monotonic()))
        return self.code

    def tell(self, data: bytes, *, last: bool = False) -> None:
        """Write to its standard input; last: and close that. NoAnswer when nobody is there."""
        pipe = self._process.stdin
        try:
            if pipe is None or pipe.closed:
                raise BrokenPipeError
            if data:
                pipe.write(data)
            pipe.flush()
            if last:
                pipe.close()
        except OSError:
            raise NoAnswer("the process has ended", code=self.code) from None

    def line(self, until: float, most: int = MOST_BYTES) -> bytes:
        """The next line that it says, without its end. until: a moment of `time.monotonic`.

        NoAnswer when it ends before one, says more than `most` bytes, or the moment is past.
        """
        searched = 0
        while (at := self._unread.find(b"\n", searched)) < 0:
            searched = len(self._unread)
            if searched > most:
                raise NoAnswer(f"the process said more than {most} bytes without an answer")
            self._more(until)
        line = bytes(self._unread[:at])
        del self._unread[: at + 1]
        return line

    def exactly(self, count: int, until: float) -> bytes:
        """The next so many bytes that it says. NoAnswer as in `line`."""
        while len(self._unread) < count:
            self._more(until)
        data = bytes(self._unread[:count])
        del self._unread[:count]
        return data

    def marked(self, mark: str, until: float) -> Any:
        """The JSON of the next line that begins with the mark; other lines are passed over."""
        while True:
            line = self.line(until)
            if line.startswith(mark.encode()):
                try:
                    return json.loads(line[len(mark) :])
                except ValueError:
                    raise NoAnswer("the answer is not JSON", code=self.code) from None

    def rest(self, until: float, most: int = MOST_BYTES) -> bytes:
        """All that it says up to its end; what there is when the moment is past, or at `most`."""
        with contextlib.suppress(NoAnswer):
            while len(self._unread) <= most:
                self._more(until)
        data, self._unread = bytes(self._unread), bytearray()
        return data

    def _more(self, until: float) -> None:
        left = until - time.monotonic()
        try:
            if left <= 0:  # also for one that prints without end
                raise queue.Empty
            data = self._chunks.get(timeout=left)
        except queue.Empty:
            raise NoAnswer("no answer came in time", late=True) from None
        if not data:
            self._chunks.put(b"")  # the end stays the end
            code = self.wait(min(until, time.monotonic() + 1))
            raise NoAnswer("the process ended without an answer", code=code)
        self._unread += data

    def close(self) -> None:
        """End it and what it started, whatever they do."""
        end(self._process)
        self._closed.set()
        self._pump.join(PATIENCE / 10)
        pipes = [self._process.stdin, self._process.stdout]
        if self._pump.is_alive():  # it would read the next process's pipe under this number
            pipes.pop()
        for pipe in pipes:
            if pipe is not None:
                with contextlib.suppress(OSError, ValueError):
                    pipe.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def end(process: subprocess.Popen) -> None:
    """Kill a process and what it started, and wait for its end.

    Its descendants are found by psutil while it runs, also those that left its session; once it
    has ended, the system can only name those that stayed in it (and on Windows, none).
    """
    below = _descendants(process.pid) if process.poll() is None else []
    if os.name == "posix":
        # only where it leads its own session: otherwise the group would be the asker's
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    for kill in below:
        kill()
    with contextlib.suppress(OSError):
        process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(PATIENCE)


def _descendants(pid: int) -> list[Callable[[], None]]:
    """For each process below this one, what kills it and no other that gets its number."""
    try:
        import psutil
    except ImportError:  # a course that was updated, in an environment that was not
        return []

    def killing(each: psutil.Process) -> Callable[[], None]:
        def kill() -> None:
            with contextlib.suppress(psutil.Error):
                each.kill()

        return kill

    with contextlib.suppress(psutil.Error):
        return [killing(each) for each in psutil.Process(pid).children(recursive=True)]
    return []


@dataclass(frozen=True)
class Outcome:
    """What came of a process. code: None when its time was up; errors: the end of what it wrote to
    standard error.
    """

    output: str
    errors: str
    code: int | None

    @property
    def last_words(self) -> str:
        """The last line of its errors."""
        return last_line(self.errors)


def run(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    *,
    cwd: str | Path | None = None,
    told: bytes = b"",
) -> Outcome:
    """Run a command to its end, or for so many seconds; then nothing of it is left."""
    until = time.monotonic() + seconds
    with tempfile.TemporaryFile() as errors:
        with Child(command, environment, cwd=cwd, errors=errors) as child:
            # in a thread: a process that does not read must not hold up its asker
            telling = threading.Thread(target=_tell_all, args=(child, told), daemon=True)
            telling.start()
            output = child.rest(until)
            code = child.wait(until)
        telling.join(PATIENCE / 10)
        return Outcome(output.decode("utf-8", "replace"), _tail(errors), code)


def _tell_all(child: Child, data: bytes) -> None:
    with contextlib.suppress(NoAnswer):
        child.tell(data, last=True)


def last_line(text: str) -> str:
    """The last line of an error's text, which is where Python says what went wrong."""
    return (text.strip().splitlines() or ["no output"])[-1]


def _tail(file: Any) -> str:
    """The end of what was written to a file."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - CHUNK))
    return file.read().decode("utf-8", "replace")


def ask(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    *,
    cwd: str | Path | None = None,
) -> Any:
    """What a process answers that calls `answering`. NoAnswer, with its last words, when none
    comes.
    """
    mark, until = secrets.token_hex(16), time.monotonic() + seconds
    with (
        tempfile.TemporaryFile() as errors,
        Child(command, environment, cwd=cwd, errors=errors) as child,
    ):
        try:
            child.tell(f"{mark}\n".encode(), last=True)
            return child.marked(mark, until)
        except NoAnswer as nothing:
            raise NoAnswer(last_line(_tail(errors)), late=nothing.late, code=nothing.code) from None


def answering() -> Callable[[Any], None]:
    """In a process that is asked by `ask`, before foreign code runs: a function that sends the
    answer and ends the process. From here on, what is printed goes nowhere.
    """
    mark = sys.stdin.readline().strip()
    channel = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def send(answer: Any) -> None:
        with os.fdopen(channel, "w", encoding="utf-8") as file:
            file.write(f"\n{mark}{json.dumps(answer)}\n")
        os._exit(0)  # whatever threads or exit handlers foreign code has left behind

    return send
