"""Whose fault is an exception that came out of a check: the examined file's, or the course's?

A check that crashes by itself must not read as a learner's failure.
"""

from __future__ import annotations

import re
import traceback
from pathlib import Path

from learn_gpt2.checking.loading import shown
from learn_gpt2.manifest import MODULES

ID = "course-fault"
PACKAGE = Path(__file__).resolve().parents[1]
BETWEEN = PACKAGE / "grading"  # an error that comes through here was raised in a worker
# library calls in which the examined code fails without a line of its own: a module called with
# arguments that it does not take, a gradient, a copy, a saved file
INTO_THE_PIECE = (
    "_call_impl",
    "backward",
    "deepcopy",
    "save",
    "load",
    "load_state_dict",
    "signature",
)
CALLED = re.compile(r"^(?:\w+\.)*\w+\(\) (?:got|missing|takes|has)|^\w+ expected .* argument")
LACKS = re.compile(r"^(?:'(\w+)' object|type object '(\w+)'|module '([\w.]+)') has no attribute")


def is_ours(error: BaseException, path: Path, names: set[str]) -> bool:
    """Whether the course's own code failed, and not the file at `path`, which defines `names`.

    When in doubt it is the file's: a check calls it, and may stumble over what it gives.
    """
    if not isinstance(error, Exception):
        return False
    text = str(error)
    lacks = LACKS.match(text)
    if isinstance(error, AttributeError) and lacks:
        owner = next(filter(None, lacks.groups()))
        return owner not in names and owner not in _known_kinds()
    if isinstance(error, TypeError) and CALLED.match(text):
        called = text.split("(", 1)[0].split(".")
        return not (set(called) & names) and called[-1] not in ("forward", "__init__", "<lambda>")
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if frame.filename == str(path) or file.name in MODULES:
            return False
        if is_check(file):
            return True
        if frame.name in INTO_THE_PIECE:
            return False
    return False


def _known_kinds() -> tuple[str, ...]:
    """What a piece may return or hold by mistake, where a check expects something else."""
    return ("NoneType", "tuple", "list", "dict", "Tensor", "Parameter", "int", "float", "function")


def is_check(file: Path) -> bool:
    """Is it a problem's test file or catalog of mistakes, or part of the runner?"""
    of_problem = file.name.startswith("test_") or file.name == "mistakes.py"
    return (of_problem and file.parent.parent.name == "problems") or (
        PACKAGE in file.resolve().parents and file.parent != BETWEEN
    )


def told(error: BaseException, name: str, where: Path | None = None) -> str:
    """The message for whoever meets it."""
    first = (str(error).strip().splitlines() or [""])[0][:200]
    frames = [f for f in traceback.extract_tb(error.__traceback__) if is_check(Path(f.filename))]
    place = f" at {shown(Path(frames[-1].filename))}:{frames[-1].lineno}" if frames else ""
    if not place and where is not None:
        place = f" in {shown(where)}"
    return (
        f"The course is at fault here, and not your code: {name} broke off"
        f"{place} with {type(error).__name__}: {first}\n"
        "It says nothing about your piece. `learn doctor` tells whether the course's files are "
        f"whole; if they are, please report this. [{ID}]"
    )
