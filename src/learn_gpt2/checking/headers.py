"""The headers of model.py's sections, which say whose piece stands where."""

from __future__ import annotations

import re
from dataclasses import dataclass

from learn_gpt2.manifest import PROBLEMS

# forced: the piece went in although its checks did not pass
HEADER = re.compile(
    r" *# ── (?P<number>\d\d) (?P<title>.+?) ── (?P<owner>reference|yours|file)"
    r"(?: (?P<digest>[0-9a-f]{7}))?(?P<forced>, forced)?: (?P<path>.+?):(?P<line>\d+)(?: ─+)?"
)


@dataclass(frozen=True)
class Placed:
    """Whose piece of a problem stands in a model.py, and whether it was forced in."""

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
        if match and 1 <= (number := int(match["number"])) <= len(PROBLEMS):
            found.setdefault(
                number,
                Placed(number, match["owner"], match["digest"] or "", bool(match["forced"])),
            )
    return found
