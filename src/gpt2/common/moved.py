"""Modules that have moved still answer under the names that other people's files import."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {"gpt2.checkpoints": "gpt2.formats.checkpoints"}  # old name → new name


class MovedModules:
    """Finds an old name and fills it with what the module of the new name holds.

    A finder and a loader by its methods: `importlib.abc` would cost every `--help` milliseconds.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a name in MOVED; None for every other name."""
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> None:
        """None: an ordinary new module."""

    def exec_module(self, module: ModuleType) -> None:
        """Give the module the same functions and classes, not copies of them."""
        found = importlib.import_module(MOVED[module.__name__])
        names = (name for name in vars(found) if not name.startswith("__"))
        module.__dict__.update({name: vars(found)[name] for name in names})


def install() -> None:
    """Look for moved modules after all others. A second call changes nothing."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
