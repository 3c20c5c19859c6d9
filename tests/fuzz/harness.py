"""One input at a time, in a process with a ceiling on its memory, watched for what it touches.

A case is a function of (seed, target, number): each can be repeated by itself.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.fuzz.mutate import Mutator
from tests.fuzz.targets import Target

HEADROOM = 512 * 2**20  # bytes a case may take beyond what importing and a valid input took
CPU_SECONDS = 20  # per case; nearly all take milliseconds
LONGEST_MESSAGE = 2000
CANARY = "nothing may change this\n"
NAMED = "named"  # the one folder that an input may write to


class TooSlow(BaseException):
    """A case took more processor time than it may."""


class Watch:
    """An audit hook: files written outside the named folder, read beside it, code from data,
    programs, the network.
    """

    WRITES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink")
    WRITES += ("os.truncate", "os.chmod", "os.chown", "shutil.rmtree", "shutil.move")
    CODE = ("pickle.find_class", "os.system", "os.exec", "os.posix_spawn", "os.fork")
    CODE += ("subprocess.Popen",)
    HARMLESS = "subprocess.Popen('fc-list'"  # Matplotlib asks for the system's fonts, once
    NETWORK = ("socket.connect", "socket.getaddrinfo")

    def __init__(self, scratch: Path):
        self.scratch = scratch
        self.box: Path | None = None
        self.seen: list[str] = []
        tempfile.gettempdir()  # the first time, it tries the folder by writing to it
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.box is None:
            return
        if event in self.NETWORK:
            raise OSError("the fuzzer has no network")
        if event in self.CODE:
            seen = f"{event}{str(arguments)[:200]}"
            self.seen += [] if seen.startswith(self.HARMLESS) else [seen]
        elif event == "open":
            path, mode, flags = arguments
            writes = (isinstance(mode, str) and set(mode) & set("wax+")) or (
                isinstance(flags, int)
                and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            )
            if isinstance(path, (str, bytes)):
                self._look(event, path, bool(writes))
        elif event in self.WRITES:
            for path in arguments[:2]:
                if isinstance(path, (str, bytes)):
                    self._look(event, path, True)

    def _look(self, event: str, path: str | bytes, writes: bool) -> None:
        box = self.box
        where = os.path.abspath(os.fsdecode(path))
        if where == os.devnull or Path(where).is_relative_to(box / NAMED):
            return
        if Path(where).is_relative_to(self.scratch / "home"):
            return  # what libraries keep for themselves
        if writes or Path(where).is_relative_to(box):
            self.seen.append(f"{event} {'writes' if writes else 'reads'} {where[:200]}")


def limit_memory(headroom: int = HEADROOM) -> None:
    """From here on, address space beyond so much more cannot be had."""
    try:
        import resource

        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except (ImportError, OSError):
        return  # Windows, macOS: no ceiling
    taken = int(re.search(r"VmSize:\s+(\d+) kB", status)[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (taken + headroom, resource.RLIM_INFINITY))


@contextlib.contextmanager
def limit_time(seconds: float = CPU_SECONDS) -> Iterator[None]:
    """Inside, TooSlow after so much processor time."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def generator(seed: int, target: str, number: int) -> random.Random:
    return random.Random(f"{seed}/{target}/{number}")


def make_box(scratch: Path) -> Path:
    """A folder for one input, with something beside it that may be neither read nor changed."""
    box = scratch / "box"
    shutil.rmtree(box, ignore_errors=True)
    (box / NAMED).mkdir(parents=True)
    (box / "canary.txt").write_text(CANARY, encoding="utf-8")
    (box / "outside").mkdir()
    return box


def outside(box: Path) -> list[str]:
    """What has changed beside the named folder, by whatever hand."""
    found = {path.name for path in box.iterdir()} ^ {NAMED, "canary.txt", "outside"}
    found |= {path.name for path in (box / "outside").iterdir()}
    if (box / "canary.txt").read_text(encoding="utf-8") != CANARY:
        found.add("canary.txt")
    return sorted(found)


def try_case(target: Target, seed: int, number: int, scratch: Path, watch: Watch) -> dict[str, Any]:
    """One case → {verdict: accepted, refused or failed, deep, place, message}."""
    box = make_box(scratch)
    given = target.make(Mutator(generator(seed, target.name, number)), box / NAMED)
    result: dict[str, Any] = {"verdict": "accepted", "deep": True, "place": "", "message": ""}
    random.seed(number)
    watch.seen, watch.box = [], box
    try:
        with limit_time(), contextlib.redirect_stdout(io.StringIO()):
            target.check(given, box / NAMED)
    except ValueError as error:
        message = str(error)
        result |= {"verdict": "refused", "place": place(error), "message": message[:300]}
        result["deep"] = not re.search(target.shallow, message)
        if complaint := unclear(message, target, box / NAMED):
            result |= {"verdict": "failed", "message": f"{complaint}: {message[:300]}"}
            result["trace"] = "".join(traceback.format_exception(error))[-3000:]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # panics of Rust libraries are not Exceptions
        what = type(error).__name__
        result |= {"verdict": "failed", "message": f"{what}: {str(error)[:300]}"}
        result["place"] = place(error)
        result["trace"] = "".join(traceback.format_exception(error))[-3000:]
    finally:
        watch.box = None
    # a target that starts processes does so itself
    started = "subprocess.Popen" if getattr(target, "most", None) else "\0"
    touched = [seen for seen in watch.seen if not seen.startswith(started)] + outside(box)
    if touched:
        result |= {"verdict": "failed", "message": "; ".join(touched)[:500]}
    return result


def unclear(message: str, target: Target, named: Path) -> str:
    """What is wrong with an error's message; "" for nothing."""
    if not message.strip():
        return "no message"
    if len(message) > LONGEST_MESSAGE:
        return f"a message of {len(message)} characters"
    if target.names_file:
        names = {named.name, *(path.name for path in named.rglob("*"))}
        if not any(name in message for name in names):
            return "the message names no file"
    return ""


def place(error: BaseException) -> str:
    """Where it was raised: the innermost line in `gpt2`."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if f"{os.sep}gpt2{os.sep}" in frame.filename:
            found = f"{Path(frame.filename).name}:{frame.lineno}"
    return found


def work(scratch: Path) -> None:
    """A worker: tasks as JSON lines on standard input, a JSON line per case on standard output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = io.StringIO()
    (scratch / "home").mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch / "home"),
        "HOME": str(scratch / "home"),
        "MPLCONFIGDIR": str(scratch / "home"),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "home"),
        "TIKTOKEN_CACHE_DIR": str(scratch / "home"),
    }
    import torch

    from tests.fuzz import all_targets

    torch.set_num_threads(1)
    watch = Watch(scratch)
    ready: dict[str, Target] = {}
    for line in sys.stdin:
        task = json.loads(line)
        name = task["target"]
        if name not in ready:
            kept = scratch / f"valid-{len(ready)}"
            kept.mkdir(parents=True, exist_ok=True)
            limit_memory(4 * HEADROOM)
            with contextlib.redirect_stdout(io.StringIO()):
                try:
                    ready[name] = all_targets()[name](kept)
                except Exception:
                    answers.write(json.dumps({"broken": traceback.format_exc()}) + "\n")
                    answers.flush()
                    return
                for number in range(20):  # libraries are loaded before memory is counted
                    with contextlib.suppress(BaseException):
                        box = make_box(scratch)
                        m = Mutator(generator(-1, name, number))
                        given = ready[name].make(m, box / NAMED)
                        if not getattr(ready[name], "most", None):
                            ready[name].check(given, box / NAMED)
            if not getattr(ready[name], "most", None):
                limit_memory()
        for number in range(task["first"], task["last"]):
            result = try_case(ready[name], task["seed"], number, scratch, watch)
            answers.write(json.dumps(result | {"target": name, "number": number}) + "\n")
            answers.flush()
        answers.write(json.dumps({"done": True}) + "\n")
        answers.flush()
