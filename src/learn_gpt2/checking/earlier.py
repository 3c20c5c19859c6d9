"""What an error says of an earlier problem's piece, where the piece under examination is right.

A class may inherit an `__init__` whose arguments have other names than the contract's, as a plain
subclass of `nn.LayerNorm` does, and pass its own problem. A later piece that calls it by the
contract's names meets a TypeError, and must not be blamed for it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from pathlib import Path

from learn_gpt2.manifest import PROBLEMS, Problem

ID = "earlier-piece-names"
SKELETONS = Path(__file__).parents[1] / "skeletons"


def other_name(error: BaseException, examined: Problem | None = None) -> str | None:
    """The sentence for a TypeError that an earlier piece's own argument names cause, or None.

    examined: the problem whose piece is examined; only one before it can be to blame.
    """
    pattern = r"(\w+)(\.__init__)?\(\) got an unexpected keyword argument '(\w+)'"
    found = re.search(pattern, str(error)) if isinstance(error, TypeError) else None
    if found is None:
        return None
    name, init, keyword = found.groups()
    problem = next((p for p in PROBLEMS if name in p.names), None)
    if problem is None or (examined is not None and problem.number >= examined.number):
        return None
    made = getattr(importlib.import_module(problem.import_name), name, None)
    if not callable(made) or isinstance(made, type) != bool(init):
        return None
    takes = [n for n in inspect.signature(made.__init__ if init else made).parameters]
    takes = [n for n in takes if n != "self"]
    wanted = _contract(problem.folder, name)
    if keyword not in wanted or keyword in takes:
        return None
    give = "an __init__ with " if init else ""
    return (
        f"This piece is not to blame: it calls {name} with {keyword}=, the contract's name, and "
        f"the {name} of problem {problem.number:02d} that stands in src/gpt2/{problem.module} "
        f"takes ({', '.join(takes)}).\n"
        f"Give problem {problem.number:02d}'s {name} {give}the skeleton's arguments, "
        f"({', '.join(wanted)}), or leave the name out here. [{ID}]"
    )


@functools.cache
def _contract(folder: str, name: str) -> tuple[str, ...]:
    """The names of the arguments that the skeleton's class or function takes, in order."""
    tree = ast.parse((SKELETONS / f"{folder}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if getattr(node, "name", None) != name:
            continue
        for part in (node, *getattr(node, "body", ())):
            if isinstance(part, ast.FunctionDef) and part.name in (name, "__init__"):
                given = [*part.args.args, *part.args.kwonlyargs]
                return tuple(a.arg for a in given if a.arg != "self")
    return ()
