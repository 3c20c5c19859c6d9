"""What a file does besides defining its piece: told to the learner beforehand, refused in grading.

`Watch` is put on in a process that runs one file and ends. It notes what the file itself reaches
for (a copy of the process, a signal, a connection, files elsewhere), and what it has changed for
the whole program (a function of torch, the default device). `fact()` says the first of it that
grading does not take, as a `Fact`: what was found, without a guess at why. What libraries do when
they are imported is theirs, and not the file's. A program that the file starts is told to the
instructor, and costs nothing.

It is a courtesy to whoever reads the report, and no wall: walls are in `grading/sandbox.py`.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

# Modules that checks rely on; a piece has no reason to change any of them.
WATCHED = (
    "builtins",
    "math",
    "random",
    "operator",
    "inspect",
    "re",
    "copy",
    "json",
    "torch",
    "torch._C._nn",
    "torch.autograd",
    "torch.overrides",
    "torch.nn",
    "torch.nn.functional",
    "torch.nn.init",
    "torch.nn.modules.module",
    "torch.nn.parameter",
    "torch.testing",
    "torch.utils._pytree",
    "pytest",
    "_pytest.outcomes",
    "learn_gpt2.checking.checks",
    "learn_gpt2.checking.conduct",
    "learn_gpt2.checking.diagnosis",
    "learn_gpt2.checking.limits",
    "learn_gpt2.checking.loading",
    "learn_gpt2.checking.runner",
)
# Names of builtins that a file may have for itself: `rich` and notebooks put others there.
TALKING = frozenset(
    ["print", "input", "help", "breakpoint", "exit", "quit", "copyright", "credits", "license"]
)
# Functions that a verdict is made with. Another function under one of these names can't be there
# for the piece's sake; another one under any other name of torch may well be.
JUDGING = frozenset(
    [
        "allclose",
        "isclose",
        "equal",
        "eq",
        "ne",
        "all",
        "any",
        "isfinite",
        "isnan",
        "isinf",
        "assert_close",
        "max",
        "min",
        "sub",
        "abs",
        "item",
        "tolist",
        "__eq__",
        "__ne__",
        "__bool__",
        "__sub__",
        "shape",
        "dtype",
        "device",
        "is_tensor",
    ]
)
# Modules of Python that do for the file what it asks them for; all others act by themselves.
PASSING = frozenset(
    [
        "os",
        "posixpath",
        "ntpath",
        "pathlib",
        "_pathlib",
        "io",
        "_pyio",
        "shutil",
        "tempfile",
        "subprocess",
        "socket",
        "ssl",
        "http",
        "urllib",
        "ftplib",
        "smtplib",
        "socketserver",
        "asyncio",
        "concurrent",
        "multiprocessing",
        "pty",
        "contextlib",
        "functools",
        "runpy",
        "importlib",
        "codecs",
        "gzip",
        "zipfile",
        "tarfile",
    ]
)
REACHING = {
    "os.fork": "starts a copy of its process",
    "os.forkpty": "starts a copy of its process",
    "os.kill": "sends a signal to a process",
    "os.killpg": "sends a signal to a process",
    "socket.connect": "opens a connection, and there is no network in grading",
    "socket.sendto": "sends to the network, and there is no network in grading",
    "socket.sendmsg": "sends to the network, and there is no network in grading",
}
STARTING = frozenset(("subprocess.Popen", "os.system", "os.posix_spawn", "os.spawn", "os.exec"))
CHANGING = frozenset(
    ("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.link")
)
# every mistake's id that a `Fact` may have
KINDS = frozenset(
    [
        "changes-torch",
        "default-device",
        "default-dtype-set",
        "leaves-a-thread",
        "reaches-out",
        "tampering",
        "traces",
    ]
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


@dataclass(frozen=True)
class Fact:
    """What a file does that grading does not take. kind: the mistake's id."""

    kind: str
    text: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.kind!r} is not among KINDS, so a report would leave it out")

    @property
    def message(self) -> str:
        """For the learner and the report."""
        return f"The file {self.text} [{self.kind}]"


@dataclass
class Watch:
    """Notes what one file does. own: folders that it may write to. answers: files that it must not
    read. tmp: /tmp is its own, though not what else lies in it. offline: connections fail, as they
    do in grading.
    """

    path: Path
    own: tuple[str, ...]
    answers: tuple[str, ...] = ()
    tmp: bool = False
    offline: bool = False
    seal: Seal | None = None
    reached: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)  # programs: told, and not refused

    def listen(self) -> None:
        """From now on, note what this process reaches for. Python tells us; it can't be undone."""
        own = (*map(os.path.realpath, self.own), os.devnull)
        inside = tuple(folder + os.sep for folder in own)

        def elsewhere(path: object) -> str:
            """The path when it lies outside what is the file's own, else ""."""
            if not isinstance(path, (str, bytes)):
                return ""
            name = os.path.realpath(os.fsdecode(path))
            if self.tmp and os.path.dirname(name) == "/tmp":
                return ""
            return "" if name in own or name.startswith((*inside, "/dev/")) else name

        def hook(event: str, arguments: tuple) -> None:
            if event == "open":
                path, _, flags = arguments
                if isinstance(flags, int) and flags & _WRITING:
                    if (name := elsewhere(path)) and (line := self._line()):
                        self.reached.append(f"opens {name} for writing (line {line})")
                elif self.answers and isinstance(path, (str, bytes)):
                    name = os.path.abspath(os.fsdecode(path))
                    if name.startswith(self.answers):
                        shown = "/".join(Path(name).parts[-2:])
                        self.reached.append(f"reads {shown}")
            elif event in REACHING:
                if event == "os.kill" and arguments[0] == os.getpid():
                    return
                if line := self._line():
                    self.reached.append(f"{REACHING[event]} (line {line})")
                if self.offline and event.startswith("socket."):
                    raise OSError(errno.ENETUNREACH, "a piece is checked without the network")
            elif event in CHANGING:
                if (name := elsewhere(arguments[0])) and (line := self._line()):
                    self.reached.append(f"changes {name} (line {line})")
            elif event in STARTING and (line := self._line()):
                self.started.append(f"starts a program (line {line})")

        sys.addaudithook(hook)

    def _line(self) -> int:
        """The line of the file that does this itself, or through what only passes it on; else 0."""
        frame, own = sys._getframe(2), str(self.path)
        while frame is not None:
            name = frame.f_code.co_filename
            if name == own:
                return frame.f_lineno
            module = (frame.f_globals.get("__name__") or "").partition(".")[0]
            if not name.startswith("<") and module not in PASSING:
                return 0
            frame = frame.f_back
        return 0

    def fact(self) -> Fact | None:
        """The first thing that grading does not take; None when there is none."""
        if self.seal is not None and (broken := self.seal.broken()):
            return broken
        if self.reached:
            return Fact(
                "reaches-out",
                f"{self.reached[0]}. A piece computes with torch; what it needs for that stands in "
                "the file itself.",
            )
        return None


def watch_learner(path: Path, root: Path, checks: str) -> Watch:
    """For a learner's own run of the checks, in a process that ends with it: tell what grading will
    not take. checks: the name of the module that holds the problem's checks.
    """
    own = (os.getcwd(), str(path.parent), str(root), tempfile.gettempdir(), os.path.expanduser("~"))
    watch = Watch(path, own, (str(root / "solutions") + os.sep,), offline=True)
    watch.seal = Seal([checks], lazily=True)
    watch.listen()
    _crashes_to_stderr()
    return watch


def _crashes_to_stderr() -> None:
    """Let faulthandler write to this process's own standard error where sys.stderr is a stand-in
    without a file descriptor: what the file prints is kept there while a check runs.
    """
    import faulthandler

    def beneath(function: Callable) -> Callable:
        @functools.wraps(function)
        def run(*args, **kwargs):
            try:
                return function(*args, **kwargs)
            except io.UnsupportedOperation:  # only fileno() of the stand-in raises it
                streams = (sys.stdout, sys.stderr)
                named = any(a in streams for a in args)
                args = tuple(2 if a in streams else a for a in args)
                return function(*args, **kwargs if named else {**kwargs, "file": 2})

        return run

    for name in ("enable", "register", "dump_traceback", "dump_traceback_later"):
        if hasattr(faulthandler, name):  # Windows has no `register`
            setattr(faulthandler, name, beneath(getattr(faulthandler, name)))


# ── what was changed ────────────────────────────────────────────────────────────────────────────


def _code(function: types.FunctionType) -> tuple:
    """What a function does: swapping its code or its defaults changes it without replacing it."""
    keywords = function.__kwdefaults__ or {}
    return function.__code__, function.__defaults__, tuple(sorted(keywords.items()))


class Seal:
    """Functions and classes as they are before a file is loaded; `broken()` compares afterwards.

    lazily: torch may still replace functions of its own when parts of it are imported for the first
    time; grading imports those parts before.
    """

    def __init__(self, modules: Iterable[str] = (), lazily: bool = False):
        import torch

        self._torch = torch
        self._lazily = lazily
        self._threads = set(threading.enumerate())
        self._tensors = _below(torch.Tensor)
        self._named: list[tuple[str, dict, str, object]] = []
        self._codes: list[tuple[str, types.FunctionType, tuple]] = []
        owners: list[tuple[str, object]] = []
        for name in (*WATCHED, *modules):
            module = sys.modules.get(name)
            if module is not None:
                self._named.append((f"sys.modules[{name!r}]", sys.modules, name, module))
                owners.append((name, module))
        classes = {
            value
            for name, module in owners
            if name.startswith(("torch.nn", "learn_gpt2", *modules))
            for value in vars(module).values()
            if isinstance(value, type) and value.__module__.startswith(("torch", "learn_gpt2"))
        }
        classes |= {torch.Tensor, torch.nn.Module, torch.Generator}
        owners += [(f"{c.__module__}.{c.__name__}", c) for c in classes]
        for name, owner in owners:
            self._remember(name, owner)

    def _remember(self, name: str, owner: object) -> None:
        names = vars(owner)  # a class's is a view of its names as they will be
        for key, value in list(names.items()):
            inner = getattr(value, "__func__", value)
            if not callable(inner) or key.startswith("_abc"):
                continue
            if (name == "builtins" and key in TALKING) or (name, key) == ("torch", "Storage"):
                continue  # torch replaces its Storage itself when the default dtype changes
            self._named.append((f"{name}.{key}", names, key, value))
            if isinstance(inner, types.FunctionType):
                self._codes.append((f"{name}.{key}", inner, _code(inner)))
                check = getattr(inner, "check", None)
                for field_, its in getattr(check, "__dict__", {}).items():
                    self._named.append((f"{name}.{key}", vars(check), field_, its))

    def broken(self) -> Fact | None:
        """What was changed; None when nothing was."""
        missing = object()
        for name, names, key, value in self._named:
            now = names.get(key, missing)
            if now is not value and not (self._lazily and self._is_torchs_own(now)):
                return _replaced(name, key)
        for name, function, code in self._codes:
            if _code(function) != code:
                return _tampering(f"rewrites {name}")
        if sys.gettrace() is not None or sys.getprofile() is not None:
            return Fact(
                "traces", "traces the interpreter (sys.settrace, sys.setprofile) to the end."
            )
        for thread in threading.enumerate():
            if thread not in self._threads and not _librarys(thread):
                return Fact(
                    "leaves-a-thread",
                    "leaves a thread running. End it before the file ends.",
                )
        for kind in _below(self._torch.Tensor) - self._tensors:
            home = sys.modules.get(kind.__module__)
            torchs = kind.__module__.startswith("torch.") and home is not None
            if torchs and vars(home).get(kind.__name__) == kind:
                continue
            if _answers_for_itself(kind, self._torch.Tensor):
                return _tampering(
                    f"makes {kind.__name__}, a kind of tensor that answers for itself"
                )
        return self._between() or self._answers()

    def _is_torchs_own(self, value: object) -> bool:
        code = getattr(value, "__code__", None)
        folder = os.path.dirname(self._torch.__file__ or "") + os.sep
        return code is not None and code.co_filename.startswith(folder)

    def _between(self) -> Fact | None:
        from torch.overrides import _get_current_function_mode_stack
        from torch.utils._device import DeviceContext
        from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

        for mode in _get_current_function_mode_stack():
            if type(mode) is not DeviceContext:
                return _tampering("puts itself between torch and its callers")
            if mode.device.type != "cpu":
                return Fact(
                    "default-device",
                    f"sets torch's default device for the whole program to {mode.device.type}, and "
                    "the checks run on the CPU. Make tensors where the inputs are instead: "
                    "device=x.device.",
                )
        dtype = str(self._torch.get_default_dtype()).removeprefix("torch.")
        if dtype != "float32":
            return Fact(
                "default-dtype-set",
                f"sets torch's default dtype for the whole program to {dtype}. Leave it alone: "
                "that is for the program that runs the model to choose.",
            )
        if _get_current_dispatch_mode_stack():
            return _tampering("puts itself between torch and its callers")
        return None

    def _answers(self) -> Fact | None:
        torch = self._torch
        options = {"dtype": torch.float32, "device": "cpu"}
        one, two = torch.tensor([1.0, 2.0], **options), torch.tensor([1.0, 2.5], **options)
        known = (
            ("torch.allclose", torch.allclose(one, two), False),
            ("torch.equal", torch.equal(one, two), False),
            ("torch.isclose", torch.isclose(one, two).tolist(), [True, False]),
            ("Tensor.eq", (one == two).tolist(), [True, False]),
            ("Tensor.sub", (two - one).abs().max().item(), 0.5),
            ("Tensor.all", bool((one == two).all()), False),
            ("Tensor.any", bool((one != two).any()), True),
            ("torch.isfinite", torch.isfinite(one / 0).tolist(), [False, False]),
            ("torch.matmul", torch.matmul(one, two).item(), 6.0),
            ("torch.softmax", torch.softmax(torch.zeros(2, **options), 0).tolist(), [0.5, 0.5]),
            ("Tensor.double", two.double().tolist(), [1.0, 2.5]),
        )
        for name, got, want in known:
            if got != want:
                return _tampering(f"makes {name} give something else than it must")
        return None


def _replaced(name: str, key: str) -> Fact:
    honest = name.startswith("torch") and key not in JUDGING
    if not honest:
        return _tampering(f"replaces {name}")
    return Fact(
        "changes-torch",
        f"replaces {name} for the whole program, the checks included. Give what you write a name "
        "of its own.",
    )


def _tampering(text: str) -> Fact:
    return Fact("tampering", f"{text}, which it is judged by. A piece leaves that as it is.")


def _librarys(thread: threading.Thread) -> bool:
    """Whether a library keeps this thread for itself, as tqdm does to renew its bars."""
    kind = type(thread)
    home = sys.modules.get(kind.__module__)
    return kind.__module__.partition(".")[0] == "tqdm" and vars(home).get(kind.__name__) is kind


def _answers_for_itself(kind: type, tensor: type) -> bool:
    """Whether a subclass of Tensor has a function of its own where a tensor has one."""
    given = {"__new__", "__init__", "__repr__", "__str__", "__format__", "__init_subclass__"}
    given |= {"__doc__", "__module__", "__dict__", "__weakref__", "__qualname__", "__annotations__"}
    given |= {"__slots__", "__firstlineno__", "__static_attributes__", "__classcell__"}
    return any(hasattr(tensor, name) for name in vars(kind).keys() - given)


def _below(kind: type) -> set[type]:
    """All subclasses, at any depth."""
    found: set[type] = set()
    todo = [kind]
    while todo:
        for inner in type.__subclasses__(todo.pop()):
            if inner not in found:
                found.add(inner)
                todo.append(inner)
    return found
