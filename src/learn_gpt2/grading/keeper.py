"""The server that workers are forked from, and for each question a keeper that confines them.

Run by its path, with torch and the standard library: nothing in its memory answers a problem. Three
kinds of process: this server, which runs nothing of a student's; for each question a keeper, which
doesn't either, and which in a process namespace is the first process; and below it a worker, which
is confined, holds the student's module and talks to the judge by two pipes. One worker answers for
all checks of a question, as long as nothing goes wrong; else the next check has a new one.

The server takes questions by a socket: a line of JSON and with it the keeper's own socket. The
keeper is told to start a worker, with the two pipes, that another check begins, and to end it; then
it says how it ended.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":  # what is installed for the course is none of a student's business
    sys.path[:] = [p for p in sys.path if p.startswith(sys.base_prefix) or "-packages" in p]
    sys.meta_path[:] = [f for f in sys.meta_path if "editable" not in f"{f!r}{type(f)!r}".lower()]


def beside(name: str):
    """A module of ours, run by its path."""
    full = f"judged_{name}"
    if full not in sys.modules:
        path = Path(__file__).resolve().parent / f"{name}.py"
        spec = importlib.util.spec_from_file_location(full, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[full] = module
        spec.loader.exec_module(module)
    return sys.modules[full]


sandbox = beside("sandbox")
MAX_JOB = 1 << 20


def serve(control: int) -> None:
    """Fork a keeper for every question, until the other end closes."""
    worker = beside("worker")
    worker.warm()
    with socket.socket(fileno=control) as line:
        line.sendall(b"r")
        while True:
            data, handles, _, _ = socket.recv_fds(line, MAX_JOB, 1)
            if not data or not handles:
                return
            job = json.loads(data)
            child = os.fork()
            if child == 0:
                try:
                    line.close()
                    _start_keeper(worker, job, handles[0])
                finally:
                    os._exit(1)
            os.close(handles[0])
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def _start_keeper(worker, job: dict, handle: int) -> None:
    """Become the keeper, or in namespaces the parent of the keeper. Does not return."""
    means, limits = sandbox.Means(**job["means"]), sandbox.Limits(**job["limits"])
    seen = sandbox.View(**{name: tuple(paths) for name, paths in job["view"].items()})
    scratch, spaces = Path(job["scratch"]), means.namespaces
    sandbox.end_with_parent()
    if spaces:
        sandbox.unshare(spaces)  # before `guard`, after which /proc/self is root's
        child = os.fork()
        if child:
            os.close(handle)
            os.waitpid(child, 0)
            os._exit(0)
        sandbox.end_with_parent()
        sandbox.build_root(seen, scratch, limits)
        scratch = sandbox.SCRATCH
        os.chdir("/")
    sandbox.guard()
    cage = sandbox.Cage(means, limits, seen, scratch, job["uid"])
    with socket.socket(fileno=handle) as line:
        line.sendall(b"r")
        keeper = Keeper(worker, cage, line)
        keeper.run()
    sandbox.end_all(bool(spaces))
    if not spaces:
        sandbox.clear(scratch)
    os._exit(0)


class Keeper:
    """Starts the workers of one question, watches them, and cleans up after them."""

    def __init__(self, worker, cage, line: socket.socket):
        self.worker, self.cage, self.line = worker, cage, line
        self.asked = False  # whether the judge has asked for the worker's end

    def run(self) -> None:
        """Start a worker whenever two pipes come, until the judge ends."""
        while True:
            data, pipes, _, _ = socket.recv_fds(self.line, 4096, 2)
            if not data:
                return
            if len(pipes) != 2:
                self.line.sendall(b"{}")
                continue
            seconds = json.loads(data)["seconds"]
            how, code = self._work(pipes, seconds)
            self.line.sendall(json.dumps({"how": how, "code": code}).encode())

    def _work(self, pipes: list[int], seconds: float) -> tuple[str, int]:
        """One worker from its start until the judge asks for its end: (how it ended, its code)."""
        self._fresh_scratch()
        self.asked = False
        output, output_in = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                _only_these(*pipes, output_in)
                self._confine()
                self.worker.work(4, 5)
            except BaseException:
                os._exit(1)
            finally:
                os._exit(0)
        for pipe in (*pipes, output_in):
            os.close(pipe)
        try:
            how, code = self._watch(child, output, seconds)
        finally:
            os.close(output)
            sandbox.end_all(bool(self.cage.means.namespaces), [child])
        while not self.asked:  # the judge notices that its pipes are closed, and asks
            self._listen()
        return how, code

    def _listen(self) -> float:
        """What the judge wants: seconds for another check, or (0) the end."""
        words = self.line.recv(4096).split(b"\n")
        self.asked = words == [b""] or b"stop" in words
        return 0.0 if self.asked else json.loads(words[-2])["seconds"]

    def _watch(self, child: int, output: int, seconds: float) -> tuple[str, int]:
        limits, printed = self.cage.limits, 0
        now = time.monotonic()
        end, look = now + seconds, now + 0.3
        os.set_blocking(output, False)
        waiting = [self.line.fileno(), output]
        handle = os.pidfd_open(child) if hasattr(os, "pidfd_open") else -1
        try:
            if handle >= 0:
                waiting.append(handle)
            while True:
                ready = select.select(waiting, [], [], 0.1 if handle >= 0 else 0.02)[0]
                if output in ready:
                    with contextlib.suppress(BlockingIOError):
                        chunk = os.read(output, 1 << 16)
                        printed += len(chunk)
                        if not chunk:
                            waiting.remove(output)
                if printed > limits.output:
                    return "output", 0
                process, status = os.waitpid(child, os.WNOHANG)
                if process:
                    return "ended", os.waitstatus_to_exitcode(status)
                now = time.monotonic()
                if self.line.fileno() in ready:
                    seconds = self._listen()
                    if self.asked:
                        return self._end(child)
                    end, printed = now + seconds, 0
                if now > end:
                    return "time", 0
                if now > look:
                    look = now + (0.1 if sandbox.LINUX else 0.5)
                    family = sandbox.family(os.getpid())
                    if len(family) > limits.processes:
                        return "processes", 0
                    if sum(family.values()) > limits.memory * sandbox.MEGABYTE:
                        return "memory", 0
                    if not self.cage.means.namespaces and self._fills_disk(family):
                        return "disk", 0
        finally:
            if handle >= 0:
                os.close(handle)

    def _fills_disk(self, family: dict[int, int]) -> bool:
        """Whether more lies in the scratch folder than a file system of its own would hold."""
        limits = self.cage.limits
        size, names = sandbox.held(self.cage.scratch, limits.names)
        size += sandbox.held_open(family)
        return names > limits.names or size > 4 * limits.file_size * sandbox.MEGABYTE

    def _end(self, child: int) -> tuple[str, int]:
        """A worker whose pipes are closed ends by itself; if it has not a moment later, it must."""
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            process, status = os.waitpid(child, os.WNOHANG)
            if process:
                return "ended", os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        return "stopped", 0

    def _fresh_scratch(self) -> None:
        """An empty folder to write to."""
        scratch = self.cage.scratch
        if self.cage.means.namespaces:
            sandbox.drop_scratch(scratch)
            sandbox.fresh_scratch(scratch, self.cage.limits)
        else:
            sandbox.clear(scratch)
        work = scratch / "work"
        work.mkdir()
        if self.cage.uid:
            os.chown(work, self.cage.uid, self.cage.uid)

    def _confine(self) -> None:
        work = str(self.cage.scratch / "work")
        os.chdir(work)
        os.environ.update(HOME=work, TMPDIR=work, TMP=work, TEMP=work, USER="student")
        os.environ.update({name: f"{work}/.cache/{name.lower()}" for name in sandbox.CACHES})
        tempfile.tempdir = work
        inside = bool(self.cage.means.namespaces)
        self.worker.CONDUCT = {"own": (str(self.cage.scratch),), "tmp": inside}
        sandbox.confine(self.cage)


def _only_these(readable: int, writable: int, output: int) -> None:
    """Nothing stays open but: 0 nowhere, 1 and 2 the output, 4 and 5 the judge's pipes."""
    kept = [os.dup2(pipe, 253 + i) for i, pipe in enumerate((readable, writable, output))]
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.closerange(3, 253)
    os.dup2(kept[2], 1)
    os.dup2(kept[2], 2)
    os.dup2(kept[0], 4, inheritable=False)
    os.dup2(kept[1], 5, inheritable=False)
    os.closerange(6, 65_536)
    # the ones so far were made for another file, and think that they can seek
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="replace", closefd=False)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever asks
    sandbox.end_with_parent()
    control = int(sys.argv[1])
    sys.argv[1:] = []  # a file that reads its arguments finds none, as with `python problem.py`
    serve(control)
