"""The hints of a problem, read from its README, where alone they stand."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2.checking.loading import not_there
from learn_gpt2.manifest import Problem


@dataclass(frozen=True)
class Hint:
    """One hint: its number, title, and levels of (name, text), from a nudge to nearly the code."""

    number: int
    title: str
    levels: tuple[tuple[str, str], ...]


def read_hints(root: Path, problem: Problem) -> dict[int, Hint]:
    """All hints of a problem by number. ValueError when the README holds none."""
    path = problem.readme_path(root)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(not_there(path)) from None
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None
    section = re.search(r"^## Hints$(.*?)(?=^## |\Z)", text, re.M | re.S)
    parts = re.split(r"^### Hint (\d+) · (.+)$", section[1] if section else "", flags=re.M)[1:]
    hints = {}
    for number, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        levels = re.findall(r"<summary>(.+?)</summary>(.*?)</details>", body, re.S)
        hints[int(number)] = Hint(
            int(number), title.strip(), tuple((name, words.strip()) for name, words in levels)
        )
    if not hints:
        raise ValueError(f"{path} has no hints")
    return hints
