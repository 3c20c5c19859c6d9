"""The headers in the seven files of `src/gpt2/`, which say whose piece stands where.

model.py has one for each of its sections; each of the others begins with one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2.manifest import MODEL_FILE, MODEL_PROBLEMS, MODULES, PROBLEMS, Problem

# forced: the piece went in although its checks did not pass
HEADER = re.compile(
    r" *# ── (?P<number>\d\d) (?P<title>.+?) ── (?P<owner>reference|yours|file)"
    r"(?: (?P<digest>[0-9a-f]{7}))?(?P<forced>, forced)?: (?P<path>.+?):(?P<line>\d+)(?: ─+)?"
)


@dataclass(frozen=True)
class Placed:
    """Whose piece of a problem stands in a file of `src/gpt2/`, and whether it was forced in."""

    number: int
    owner: str
    digest: str
    forced: bool

    @property
    def words(self) -> str:
        """`reference`, `yours`, or `yours (fails, forced into the model)`."""
        return f"{self.owner} ({FORCED_IN})" if self.forced else self.owner


FORCED_IN = "fails, forced into the model"


def placed(text: str) -> dict[int, Placed]:
    """Whose piece stands in each section of a model.py; {} when it has no headers."""
    found: dict[int, Placed] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        match = HEADER.fullmatch(line)
        if match and 1 <= (number := int(match["number"])) <= len(MODEL_PROBLEMS):
            found.setdefault(number, _placed(match))
    return found


def _placed(match: re.Match) -> Placed:
    return Placed(
        int(match["number"]), match["owner"], match["digest"] or "", bool(match["forced"])
    )


def placed_in(path: Path, problems: Iterable[Problem] = PROBLEMS) -> dict[int, Placed]:
    """Whose piece of these problems stands in the file at `path`, which is one of the seven; {}
    when it has no headers. OSError or ValueError when it can't be read.
    """
    if path.name == MODEL_FILE:
        found = placed(path.read_text(encoding="utf-8"))
    else:
        with open(path, encoding="utf-8") as file:
            match = HEADER.fullmatch(file.readline().rstrip("\n"))
        found = {int(match["number"]): _placed(match)} if match else {}
    numbers = {problem.number for problem in problems if problem.module == path.name}
    return {number: stands for number, stands in found.items() if number in numbers}


def placed_everywhere(folder: Path, problems: Iterable[Problem] = PROBLEMS) -> dict[int, Placed]:
    """Whose piece of these problems stands in the files in a folder `src/gpt2/`. A file that can't
    be read has none.
    """
    problems = tuple(problems)
    found: dict[int, Placed] = {}
    for module in MODULES:
        if any(problem.module == module for problem in problems):
            try:
                found |= placed_in(folder / module, problems)
            except (OSError, ValueError):
                continue
    return found
