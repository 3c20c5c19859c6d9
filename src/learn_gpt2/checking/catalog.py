"""A problem's known mistakes, one entry each: `problems/NN-name/mistakes.py`.

An entry has an id, the number of the README's hint that helps, the sentence that a good teacher
would say, and the ways in which people make the mistake. A way names the steps of the problem's
computation that it replaces, so that a check can compute what the mistake gives and compare it with
what the learner got. An entry without ways is found by a check itself.

    KNOWN = Catalog()
    KNOWN.add(
        "mask-missing",
        2,
        "No mask is applied: every position sees every other, also those after it.",
        way(mask=lambda t, s, cached: None),
        family="mask",
    )

The problem's test reads them with `KNOWN = known(__file__)`: `fail(KNOWN["mask-missing"])`, or
`compare(got, want, KNOWN.of("mask", "forward"), variant)`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2.checking.diagnosis import Mistake

FILE = "mistakes.py"


@dataclass(frozen=True)
class Way:
    """One way of making a mistake. switches: the steps that it replaces. name: how a check asks
    for this way. says: a sentence that fits it better than the entry's own.
    """

    switches: dict[str, object]
    name: str = ""
    says: str = ""


def way(name: str = "", says: str = "", **switches: object) -> Way:
    """A Way, its switches as keywords."""
    return Way(switches, name, says)


@dataclass(frozen=True)
class Entry:
    """A misconception: what it is called, what to say, which hint helps, and how it is made."""

    id: str
    hint: int
    says: str
    ways: tuple[Way, ...]
    family: str
    general: bool

    def mistakes(self) -> Iterator[Mistake]:
        """A Mistake for each way, or one without switches."""
        for found in self.ways or (Way({}),):
            yield self.made(found)

    def made(self, found: Way) -> Mistake:
        """The Mistake of one way."""
        return Mistake(self.id, found.says or self.says, self.hint, found.switches, self.general)


class Catalog:
    """Entries by id, in the order in which they are added: what is common comes first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._made: dict[str, Mistake] = {}

    def add(
        self,
        id: str,
        hint: int,
        says: str,
        *ways: Way,
        family: str = "",
        general: bool = False,
    ) -> None:
        """Add an entry. general: it says less than others that may fit as well, and gives way.

        ValueError for an id that is not lower-case words joined by hyphens, and for one that is
        there already.
        """
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id):
            raise ValueError(f"{id!r} is not lower-case words joined by hyphens")
        if id in self._entries:
            raise ValueError(f"there are two entries {id!r}: make them ways of one")
        self._entries[id] = Entry(id, hint, says, ways, family, general)

    def include(self, others: Callable[[Catalog], None]) -> None:
        """Add what a function adds: a family of mistakes that several problems share."""
        others(self)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __getitem__(self, name: str) -> Mistake:
        """What `fail` takes: an entry's mistake, or with `"id:name"` that of one of its ways.

        KeyError that lists what there is.
        """
        if name not in self._made:
            id, _, wanted = name.partition(":")
            if id not in self._entries:
                raise KeyError(f"no mistake {id!r}; there are {', '.join(self._entries)}")
            entry = self._entries[id]
            found = [w for w in entry.ways if w.name == wanted] if wanted else [Way({})]
            if not found:
                names = ", ".join(w.name for w in entry.ways if w.name) or "none with a name"
                raise KeyError(f"{id!r} has no way {wanted!r}; its ways: {names}")
            self._made[name] = entry.made(found[0])
        return self._made[name]

    def of(self, *families: str, without: tuple[str, ...] = ()) -> list[Mistake]:
        """All ways of all entries of these families, family by family, except the ids `without`.

        KeyError for a family that no entry belongs to.
        """
        found: list[Mistake] = []
        for family in families:
            entries = [entry for entry in self if entry.family == family]
            if not entries:
                there = sorted({entry.family for entry in self})
                raise KeyError(f"no entry is of the family {family!r}; there are {there}")
            for entry in entries:
                if entry.id not in without:
                    found += entry.mistakes()
        return found


def known(test_file: str | Path) -> Catalog:
    """The catalog that lies beside a problem's test file, read again for each call.

    ValueError when the file holds no catalog called KNOWN.
    """
    path = Path(test_file).resolve().with_name(FILE)
    name = f"mistakes_{path.parent.name[:2]}"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    found = getattr(module, "KNOWN", None)
    if not isinstance(found, Catalog):
        raise ValueError(f"{path} does not define KNOWN, a Catalog")
    return found
