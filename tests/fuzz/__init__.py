"""The fuzzer: valid files and arguments, changed at random, for everything that reads input.

`make fuzz`, or `python -m tests.fuzz --help`.
"""

from __future__ import annotations


def all_targets() -> dict[str, type]:
    """Every target's class by its name, in the order in which they run."""
    from tests.fuzz import commands, targets

    found = {}
    for module in (targets, commands):
        for value in vars(module).values():
            if isinstance(value, type) and value.__module__ == module.__name__:
                name = getattr(value, "name", "")
                if name:
                    found[name] = value
    return found
