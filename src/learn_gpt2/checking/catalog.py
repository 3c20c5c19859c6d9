"""A problem's known mistakes, one entry each: `problems/NN-name/mistakes.py`.

An entry has an id, the number of the README's hint that helps, the sentence that a good teacher
would say, and the ways in which people make the mistake. A way names the steps of the problem's
computation that it replaces (see `textbook`), so that a check can compute what the mistake gives
and compare it with what the learner got. An entry without ways is found by a check itself.

    KNOWN = Catalog()
    KNOWN.add(
        "mask-missing",
        2,
        "No mask is applied: every position sees every other, also those after it.",
        way(mask=lambda t, s, cached: None),
        family="mask",
    )

Where many entries have the same family and hint, a section says so once, and a single way needs no
`way(…)`:

    mask = KNOWN.section("mask", hint=2)
    mask("mask-missing", "No mask is applied: …", mask=lambda t, s, cached: None)

The problem's test reads them with `KNOWN = known(__file__)`: `fail(KNOWN["mask-missing"])`, or
`compare(got, want, KNOWN.of("mask", "forward"), variant)`.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from learn_gpt2.checking.diagnosis import Mistake

FILE = "mistakes.py"


@dataclass(frozen=True)
class Way:
    """One way of making a mistake. switches: the steps that it replaces. name: how a check asks for
    this way. The rest is what differs from the entry's own (family "": it belongs to none).
    """

    switches: dict[str, object]
    name: str = ""
    says: str = ""
    hint: int | None = None
    family: str | None = None
    general: bool | None = None


PLAIN = Way({})


def way(
    name: str = "",
    says: str = "",
    *,
    hint: int | None = None,
    family: str | None = None,
    general: bool | None = None,
    **switches: object,
) -> Way:
    """A Way, its switches as keywords."""
    return Way(switches, name, says, hint, family, general)


@dataclass(frozen=True)
class Entry:
    """A misconception: what it is called, what to say, which hint helps, and how it is made.

    family: the names of those it belongs to, separated by spaces.
    """

    id: str
    hint: int
    says: str
    ways: tuple[Way, ...] = ()
    family: str = ""
    general: bool = False
    _made: dict[int, Mistake] = field(default_factory=dict, compare=False, repr=False)

    def families(self, found: Way) -> set[str]:
        """The families of one of its ways."""
        return set((self.family if found.family is None else found.family).split())

    def mistakes(self, family: str | None = None) -> Iterator[Mistake]:
        """A Mistake for each way (of this family), the same ones each time; one without switches
        where there are no ways.
        """
        for found in self.ways or (PLAIN,):
            if family is None or family in self.families(found):
                yield self.made(found)

    def made(self, found: Way) -> Mistake:
        """The Mistake of one way. It is compared by identity, so it is made once."""
        if id(found) not in self._made:
            hint = self.hint if found.hint is None else found.hint
            general = self.general if found.general is None else found.general
            says = found.says or self.says
            self._made[id(found)] = Mistake(self.id, says, hint, found.switches, general)
        return self._made[id(found)]


class Catalog:
    """Entries by id, in the order in which they are added: what is common comes first."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._plain: dict[str, Mistake] = {}

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

        ValueError for an id that is not lower-case words joined by hyphens, for one that is there
        already, and for two ways of one name.
        """
        if not re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", id):
            raise ValueError(f"{id!r} is not lower-case words joined by hyphens")
        if id in self._entries:
            raise ValueError(f"there are two entries {id!r}: make them ways of one")
        names = [found.name for found in ways if found.name]
        if len(names) != len(set(names)):
            raise ValueError(f"{id!r} has two ways of one name, among {', '.join(names)}")
        self._entries[id] = Entry(id, hint, says, ways, family, general)

    def put(
        self,
        id: str,
        hint: int,
        says: str,
        *ways: Way,
        family: str = "",
        general: bool = False,
    ) -> None:
        """Add an entry, or its ways to the one that is there, where they keep their own sentence,
        hint and family: so that what problems share can be included in any catalog.
        """
        if id not in self:
            self.add(id, hint, says, *ways, family=family, general=general)
            return
        there = self._entries[id]
        own = [
            replace(
                found,
                says=found.says or says,
                hint=hint if found.hint is None else found.hint,
                family=family if found.family is None else found.family,
            )
            for found in ways
        ]
        self._entries[id] = replace(there, ways=(*there.ways, *own))

    def section(self, family: str = "", *, hint: int) -> Callable[..., None]:
        """A function that adds entries of one family and hint: `(id, says, *ways, hint=, family=,
        general=, **switches)`. The switches are those of an entry with a single way.
        """
        usual_family, usual_hint = family, hint

        def add(
            id: str,
            says: str,
            *ways: Way,
            hint: int = usual_hint,
            family: str = usual_family,
            general: bool = False,
            **switches: object,
        ) -> None:
            ways = (Way(switches), *ways) if switches else ways
            self.add(id, hint, says, *ways, family=family, general=general)

        return add

    def include(self, others: Callable[[Catalog], None]) -> None:
        """Add what a function adds: a family of mistakes that several problems share."""
        others(self)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __contains__(self, id: object) -> bool:
        return id in self._entries

    def __getitem__(self, name: str) -> Mistake:
        """What `fail` takes: an entry's mistake, or with `"id:name"` that of one of its ways.

        KeyError that lists what there is.
        """
        id, _, wanted = name.partition(":")
        if id not in self._entries:
            raise KeyError(f"no mistake {id!r}; there are {', '.join(self._entries)}")
        entry = self._entries[id]
        if not wanted:
            if id not in self._plain:
                self._plain[id] = Mistake(entry.id, entry.says, entry.hint)
            return self._plain[id]
        for found in entry.ways:
            if found.name == wanted:
                return entry.made(found)
        names = ", ".join(w.name for w in entry.ways if w.name) or "none with a name"
        raise KeyError(f"{id!r} has no way {wanted!r}; its ways: {names}")

    def of(self, *families: str, without: tuple[str, ...] = ()) -> list[Mistake]:
        """All ways of all entries of these families, family by family, except the ids `without`.

        KeyError for a family that no entry belongs to, and for an id that is not there.
        """
        for id in without:
            if id not in self:
                raise KeyError(f"no mistake {id!r}; there are {', '.join(self._entries)}")
        found: list[Mistake] = []
        for family in families:
            made = [m for entry in self for m in entry.mistakes(family)]
            if not made:
                there = {f for e in self for w in e.ways or (PLAIN,) for f in e.families(w)}
                raise KeyError(f"no entry is of the family {family!r}; there are {sorted(there)}")
            found += [m for m in made if m.id not in without and m not in found]
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
