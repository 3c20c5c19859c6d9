"""The catalogs of known mistakes against the checks that use them and the READMEs' hints."""

import ast
import re

import pytest

from learn_gpt2.checking import catalog, textbook
from learn_gpt2.course import layout
from learn_gpt2.grading import gradebook
from learn_gpt2.manifest import PROBLEMS, Problem
from tests.graders import bank as banks

ROOT = banks.ROOT
WITH_CATALOG = [p for p in PROBLEMS if p.mistakes_path(ROOT).is_file()]
each_problem = pytest.mark.parametrize("problem", WITH_CATALOG, ids=lambda p: p.folder)


def test_the_twelve_have_catalogs() -> None:
    """Catches a catalog that is lost, so that this file looks at nothing."""
    assert {p.number for p in WITH_CATALOG} >= set(range(1, 13))


@each_problem
def test_a_catalog_belongs_to_the_course(problem: Problem) -> None:
    """Catches a catalog that `learn init`, `learn update` or the wheel leave out, and marks taken
    from the cache after a catalog has changed.
    """
    path = problem.mistakes_path(ROOT)
    assert path in layout.outside(ROOT)
    assert path.relative_to(ROOT).as_posix() in gradebook.course_files(ROOT)


@each_problem
def test_what_the_checks_ask_for_is_there(problem: Problem) -> None:
    """Catches `KNOWN["…"]` with a name that no entry has: only the learner who makes that mistake
    would meet it.
    """
    known = catalog.known(problem.test_path(ROOT))
    source = problem.test_path(ROOT).read_text(encoding="utf-8")
    asked = [
        node.slice.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript)
        and getattr(node.value, "id", "") == "KNOWN"
        and isinstance(node.slice, ast.Constant)
    ]
    assert asked
    for name in asked:
        assert known[name].id == name.partition(":")[0]


@pytest.mark.parametrize("problem", PROBLEMS[:12], ids=lambda p: p.folder)
def test_every_entry_is_used(problem: Problem) -> None:
    """Catches an entry that no check asks for, and that belongs to no family that is asked for."""
    source = problem.test_path(ROOT).read_text(encoding="utf-8")
    words = set(re.findall(r"[a-z0-9][a-z0-9.-]*", source))
    for entry in catalog.known(problem.test_path(ROOT)):
        families = {f for found in entry.ways or (catalog.PLAIN,) for f in entry.families(found)}
        made_up = entry.id.partition("-")[2]  # as in KNOWN[f"{name}-pdrop-not-passed:nowhere"]
        assert entry.id in words or families & words or f"}}-{made_up}" in source, entry.id


@each_problem
def test_entries_point_to_hints_and_steps_that_exist(problem: Problem) -> None:
    """Catches a hint that the README does not have, and (in the twelve) a step that the textbook
    does not have, whose mistake would never be named.
    """
    readme = problem.readme_path(ROOT)
    if not readme.is_file():
        pytest.skip("no README yet")
    text = readme.read_text(encoding="utf-8")
    for entry in catalog.known(problem.test_path(ROOT)):
        for mistake in entry.mistakes():
            assert f"### Hint {mistake.hint} · " in text, entry.id
            if problem.number <= 12 and problem.number != 9:  # 09 computes no tensors
                assert textbook.NAMES.issuperset(mistake.switches), entry.id


@each_problem
def test_ids_stand_beside_their_sentences(problem: Problem) -> None:
    """Catches `fail("… [some-id]")`: nothing reads an id out of a sentence, so it would be lost."""
    tree = ast.parse(problem.test_path(ROOT).read_text(encoding="utf-8"))
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "fail" and call.args:
            given = [k.arg for k in call.keywords]
            said = "".join(
                n.value
                for n in ast.walk(call.args[0])
                if isinstance(n, ast.Constant) and isinstance(n.value, str)
            )
            assert "id" in given or not re.search(r"\[[a-z0-9]+(-[a-z0-9]+)+\]$", said), said


@each_problem
def test_no_mistake_is_looked_up_by_its_place(problem: Problem) -> None:
    """Catches `KNOWN.of("mask")[3]`, which another entry would change."""
    tree = ast.parse(problem.test_path(ROOT).read_text(encoding="utf-8"))
    lists = {
        node.targets[0].id
        for node in tree.body
        if isinstance(node, ast.Assign) and "KNOWN.of" in ast.unparse(node.value)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            value = ast.unparse(node.value)
            assert not value.startswith("KNOWN.of(")
            assert value not in lists
