"""Names in a file that a piece has no need for: they tell the instructor which files to read."""

from __future__ import annotations

# What a piece never needs. Naming it costs nothing.
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
