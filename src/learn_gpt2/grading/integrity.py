"""Whether a student's code has changed what it is judged by: torch, the checks, Python itself.

`Seal` remembers functions and classes before the file is loaded and compares them afterwards; it
also asks torch questions whose answers are known. What it finds is a `tampering`, not a grade.
"""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Iterable
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
    "learn_gpt2.checking.diagnosis",
    "learn_gpt2.grading.integrity",
    "learn_gpt2.checking.limits",
    "learn_gpt2.checking.loading",
    "learn_gpt2.checking.runner",
)


def _code(function: types.FunctionType) -> tuple:
    """What a function does: swapping its code or its defaults changes it without replacing it."""
    keywords = function.__kwdefaults__ or {}
    return function.__code__, function.__defaults__, tuple(sorted(keywords.items()))


class Seal:
    """Taken before the file is loaded; `broken()` afterwards names the first thing changed."""

    def __init__(self, modules: Iterable[str] = ()):
        import torch

        self._torch = torch
        self._threads = threading.active_count()
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
            self._named.append((f"{name}.{key}", names, key, value))
            if isinstance(inner, types.FunctionType):
                self._codes.append((f"{name}.{key}", inner, _code(inner)))
                check = getattr(inner, "check", None)
                for field, its in getattr(check, "__dict__", {}).items():
                    self._named.append((f"{name}.{key}", vars(check), field, its))

    def broken(self) -> str:
        """What was changed, in words; "" when nothing was."""
        missing = object()
        for name, names, key, value in self._named:
            now = names.get(key, missing)
            if now is not value:
                return f"it replaces {name}"
        for name, function, code in self._codes:
            if _code(function) != code:
                return f"it rewrites {name}"
        if sys.gettrace() is not None or sys.getprofile() is not None:
            return "it traces the interpreter"
        if threading.active_count() > self._threads:
            return "it leaves a thread running"
        for kind in _below(self._torch.Tensor) - self._tensors:
            home = sys.modules.get(kind.__module__)
            if not kind.__module__.startswith("torch.") or vars(home).get(kind.__name__) != kind:
                return f"it makes {kind.__name__}, a kind of tensor that can answer for itself"
        return self._answers()

    def _answers(self) -> str:
        torch = self._torch
        from torch.overrides import _get_current_function_mode_stack
        from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

        if _get_current_function_mode_stack() or _get_current_dispatch_mode_stack():
            return "it puts itself between torch and its callers"
        one, two = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.5])
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
            ("torch.softmax", torch.softmax(torch.zeros(2), 0).tolist(), [0.5, 0.5]),
            ("Tensor.double", two.double().tolist(), [1.0, 2.5]),
        )
        for name, got, want in known:
            if got != want:
                return f"{name} no longer gives what it must"
        return ""


_REACHING = {
    "os.fork": "it starts a process",
    "os.forkpty": "it starts a process",
    "os.system": "it starts a process",
    "os.exec": "it starts a program",
    "os.posix_spawn": "it starts a process",
    "os.spawn": "it starts a process",
    "subprocess.Popen": "it starts a process",
    "os.kill": "it sends a signal",
    "os.killpg": "it sends a signal",
    "socket.connect": "it opens a connection",
    "socket.bind": "it waits for connections",
    "socket.sendto": "it sends to the network",
}
_CHANGING = frozenset(
    ("os.remove", "os.rename", "os.rmdir", "os.truncate", "os.chmod", "os.chown", "os.link")
)


def listen(root: Path, scratch: Path) -> list[str]:
    """From now on, note in the returned list what the code in this process reaches for outside
    `scratch`. Python tells us; it is a courtesy to whoever reads the report, and no wall.
    """
    from learn_gpt2.grading.sandbox import answers_elsewhere

    reached: list[str] = []
    # not the tests: Python itself reads a line of them to go with a warning
    answers = (str(root / "solutions"), str(root / "src" / "gpt2" / "model.py"))
    answers += tuple(map(str, answers_elsewhere(root / "src")))
    own = (str(scratch), os.devnull)
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def absolute(path: object) -> str:
        return os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes)) else own[0]

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            name = absolute(path)
            if name.startswith(own):
                return
            if isinstance(flags, int) and flags & writing:
                reached.append(f"it opens {name} for writing")
            elif name.startswith(answers):
                reached.append(f"it reads {name.removeprefix(str(root) + os.sep)}")
        elif event in _REACHING:
            reached.append(_REACHING[event])
        elif event in _CHANGING and not absolute(arguments[0]).startswith(own):
            reached.append(f"it changes {absolute(arguments[0])}")

    sys.addaudithook(hook)
    return reached


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


# What a piece never needs. Naming it costs nothing: it tells the instructor which files to read.
_MODULES = (
    "atexit builtins ctypes faulthandler gc importlib inspect mmap multiprocessing os pathlib "
    "pickle pkgutil pty pytest _pytest resource shutil signal site socket subprocess sys tempfile "
    "threading traceback unittest urllib http requests linecache marshal learn_gpt2 torch.library "
    "torch.overrides torch.utils.cpp_extension"
)
_NAMES = (
    "__import__ eval exec compile globals locals open __builtins__ __loader__ __subclasses__ "
    "__globals__ __code__ __closure__ __kwdefaults__ f_back f_locals f_globals tb_frame _getframe "
    "__torch_function__ __torch_dispatch__ TorchFunctionMode TorchDispatchMode __mro__"
)
_UNUSUAL_MODULES, _UNUSUAL_NAMES = frozenset(_MODULES.split()), frozenset(_NAMES.split())


def unusual(source: bytes, files: bool = False) -> list[str]:
    """Names in a file that a piece has no need for, for an instructor to look at.

    files: the piece reads files (problem 12 does), so that doing so is nothing to tell.
    """
    import ast

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {f"import {a.name}" for a in node.names if _is_unusual(a.name)}
        elif isinstance(node, ast.ImportFrom) and _is_unusual(node.module or ""):
            found.add(f"import {node.module}")
        elif isinstance(node, ast.Name) and node.id in _UNUSUAL_NAMES:
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            if node.attr in _UNUSUAL_NAMES and "_" in node.attr:  # model.eval() is as usual
                found.add(node.attr)
            root = ast.unparse(node).split(".")[0]
            if isinstance(node.ctx, ast.Store) and root in ("torch", "F", "nn", "math", "pytest"):
                found.add(f"{ast.unparse(node)} = …")
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in _UNUSUAL_NAMES:
            found.add(node.name)
    if files:
        found -= {"open", "import os", "import pathlib", "import tempfile"}
    return sorted(found)


def _is_unusual(module: str) -> bool:
    return module in _UNUSUAL_MODULES or module.split(".")[0] in _UNUSUAL_MODULES
