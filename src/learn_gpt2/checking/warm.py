"""Checks without the wait for torch: `Warm` asks a process that has it imported already.

On Linux that process forks a child per run. Elsewhere forking is missing or not safe; there a
spare process, which has done its imports, takes one run, and the next one is started at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.checking import child
from learn_gpt2.checking.runner import (
    Report,
    Result,
    Spare,
    answer,
    answered,
    piece_path,
    run_isolated,
)
from learn_gpt2.manifest import Problem

SECONDS = 60.0
START_SECONDS = 60.0  # for the first import of torch on a slow disk
CAN_FORK = sys.platform == "linux"


class Warm:
    """Runs checks on the learner's file, quickly from the second time on."""

    def __init__(self, root: Path, fork: bool = CAN_FORK):
        self.root = root
        self._server: child.Child | None = None
        self._spare: Spare | None = None
        if fork:
            self._start()
        else:
            self._spare = Spare(root)

    def _start(self) -> None:
        command = child.python("-m", "learn_gpt2.checking.warm", str(self.root))
        self._server = child.Child(command, child.environment(self.root, OMP_NUM_THREADS="1"))

    def check(self, problem: Problem) -> Report:
        """Run a problem's checks. Falls back to a fresh process when the warm one has died."""
        if self._spare is not None:
            spare, self._spare = self._spare, Spare(self.root)
            return spare.run(problem)
        try:
            if self._server is None:
                raise child.NoAnswer("it was closed")
            self._server.tell(f"{problem.number}\n".encode())
            data = json.loads(self._server.line(time.monotonic() + SECONDS + START_SECONDS))
        except (child.NoAnswer, ValueError):
            self.close()
            self._start()
            return run_isolated(self.root, problem)
        return answered(data)

    def close(self) -> None:
        """End what is running."""
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        if self._server is not None:
            self._server.close()
            self._server = None


def _serve(root: Path) -> None:
    import torch

    from learn_gpt2.checking import checks, diagnosis  # noqa: F401 - what every run needs

    torch.set_num_threads(1)  # a child of a process with threads could hang
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    for line in sys.stdin:
        problem = manifest.get(line.strip())
        report = _in_child(root, problem)
        answers.write(json.dumps(report) + "\n")
        answers.flush()


def _in_child(root: Path, problem: Problem) -> dict:
    """Run the checks in a forked child; whatever it does, an answer comes within SECONDS."""
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        data = json.dumps(answer(root, problem)).encode()
        with os.fdopen(writable, "wb") as pipe:
            pipe.write(data)
        os._exit(0)
    os.close(writable)
    chunks, end = [], time.monotonic() + SECONDS
    while True:
        ready, _, _ = select.select([readable], [], [], max(0.0, end - time.monotonic()))
        chunk = os.read(readable, 1 << 16) if ready else b""
        chunks.append(chunk)
        if not chunk:
            break
    os.close(readable)
    with contextlib.suppress(OSError):
        os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    try:
        return json.loads(b"".join(chunks))
    except ValueError:
        path, whose = piece_path(root, problem, "yours")
        message = "The checks did not come to their end: does the file exit, crash or loop?"
        failed = Result("run", "the checks run to their end", "failed", message, ["crashed"])
        return Report(problem.number, str(path), whose, "-", [failed]).to_json()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
