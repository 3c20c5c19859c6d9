"""Catalogs of known mistakes: entries by id, their ways, families and sections."""

from pathlib import Path

import pytest

from learn_gpt2.checking.catalog import Catalog, known, way


def catalog() -> Catalog:
    """Three entries in two families, one of which is found by a check."""
    made = Catalog()
    made.add("no-mask", 2, "There is no mask.", way(mask=None), family="mask")
    made.add(
        "off-by-one",
        2,
        "The mask is off by one.",
        way(mask=1),
        way("past", says="With a past it is off by one.", hint=5, family="past", mask=2),
        way("unlisted", family="", mask=3),
        family="mask",
    )
    made.add("too-long", 6, "Too many tokens.")
    return made


def test_a_mistake_is_found_by_its_id() -> None:
    """Catches an id that gives another entry, or a hint that is lost."""
    found = catalog()["too-long"]
    assert (found.id, found.says, found.hint) == ("too-long", "Too many tokens.", 6)
    assert not found.switches


def test_a_way_says_only_what_differs() -> None:
    """Catches a way whose own sentence, hint or switches are lost, or taken for the entry's."""
    made = catalog()
    own = made["off-by-one:past"]
    assert (own.says, own.hint, own.switches) == ("With a past it is off by one.", 5, {"mask": 2})
    plain = made["off-by-one"]
    assert (plain.says, plain.hint) == ("The mask is off by one.", 2)


def test_families_keep_the_order_of_the_call() -> None:
    """Catches a family that has the ways of another one, or ways that are listed in no family."""
    made = catalog()
    assert [m.switches["mask"] for m in made.of("past", "mask")] == [2, None, 1]
    assert [m.id for m in made.of("mask", without=("no-mask",))] == ["off-by-one"]


def test_the_same_mistake_each_time() -> None:
    """Catches mistakes made again in each call: a comparison that rules some out knows them by
    identity.
    """
    made = catalog()
    assert all(a is b for a, b in zip(made.of("mask"), made.of("mask"), strict=True))
    assert made["off-by-one:past"] is made.of("past")[0]


def test_an_entry_in_two_families_counts_once() -> None:
    """Catches a way that is tried twice when two of its families are asked for."""
    made = Catalog()
    made.add("both", 1, "Both.", way(a=1), family="one two")
    assert len(made.of("one", "two")) == len(made.of("two")) == 1


@pytest.mark.parametrize(
    ("ask", "named"),
    [
        (lambda c: c["no-msak"], "no-mask"),
        (lambda c: c["off-by-one:pasd"], "past"),
        (lambda c: c.of("maks"), "mask"),
        (lambda c: c.of("mask", without=("no-msak",)), "no-mask"),
    ],
)
def test_a_misspelled_name_is_told_with_what_there_is(ask, named: str) -> None:
    """Catches a name that is passed over in silence: a check would then name nothing."""
    with pytest.raises(KeyError, match=named):
        ask(catalog())


def test_an_id_stands_once() -> None:
    """Catches a second entry of an id, which would hide the first."""
    made = catalog()
    with pytest.raises(ValueError, match="two entries 'no-mask'"):
        made.add("no-mask", 3, "Again.")
    with pytest.raises(ValueError, match="lower-case"):
        made.add("No mask", 3, "Spelled in another way.")
    with pytest.raises(ValueError, match="two ways of one name"):
        made.add("new", 3, "New.", way("a", x=1), way("a", x=2))


def test_a_section_says_family_and_hint_once() -> None:
    """Catches a section's family or hint that reaches no entry, or overrides an entry's own."""
    made = Catalog()
    scale = made.section("scale", hint=5)
    scale("no-scale", "Not scaled.", divisor=1)
    scale("twice", "Scaled twice.", way(divisor=2), way(divisor=3), hint=7, general=True)
    scale("elsewhere", "Elsewhere.", family="other", divisor=4)
    assert [(m.id, m.hint, m.general) for m in made.of("scale")] == [
        ("no-scale", 5, False),
        ("twice", 7, True),
        ("twice", 7, True),
    ]
    assert [m.switches for m in made.of("other")] == [{"divisor": 4}]


def test_what_is_shared_gets_further_ways() -> None:
    """Catches a shared family that replaces a problem's own sentence, or loses its own."""
    made = catalog()
    made.include(lambda c: c.put("no-mask", 9, "No mask at all.", way(mask=5), family="shared"))
    made.include(lambda c: c.put("new", 9, "New.", way(mask=6), family="shared"))
    assert made["no-mask"].hint == 2
    assert [(m.says, m.hint) for m in made.of("shared")] == [("No mask at all.", 9), ("New.", 9)]


def test_a_file_without_a_catalog(tmp_path: Path) -> None:
    """Catches an error that does not say which file lacks what."""
    (tmp_path / "mistakes.py").write_text("KNOWN = []\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mistakes\.py does not define KNOWN"):
        known(tmp_path / "test_it.py")
