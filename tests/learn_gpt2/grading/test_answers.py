"""Answers of the process that ran a student's file are checked before they are used."""

import json
import os
from pathlib import Path

import pytest

from learn_gpt2.grading import answers, gradebook
from learn_gpt2.grading.answers import Asked, BadAnswer
from tests import class_of_40
from tests.class_of_40 import put, solution

ASKED = [Asked("test_a", "It adds", 3), Asked("test_b", "It masks", 4)]


def result(**changes: object) -> dict:
    """A result as it should be, but for the changes."""
    good = {"name": "test_a", "title": "theirs", "status": "failed", "message": "off [off-by-one]"}
    good |= {"mistakes": ["off-by-one"], "hint": 2, "todo": None, "points": 99, "line": 7}
    return good | changes


def test_a_good_answer_keeps_what_is_the_files_and_gets_the_rest_from_us() -> None:
    """Catches points or a title that are taken from the answer."""
    kept = answers.result(result(), ASKED[0])
    assert (kept["points"], kept["title"]) == (3, "It adds")
    assert (kept["message"], kept["mistakes"], kept["hint"], kept["line"]) == (
        "off [off-by-one]",
        ["off-by-one"],
        2,
        7,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "test_unknown"},
        {"name": None},
        {"status": "great"},
        {"status": ["passed"]},
        {"mistakes": [{}]},
        {"mistakes": ["a b"]},
        {"mistakes": ["$\\frac{$"]},
        {"mistakes": ["\ud800"]},
        {"mistakes": ["x" * 100]},
        {"mistakes": ["off-by-one"] * 50},
        {"mistakes": "off-by-one"},
        {"message": None},
        {"message": {"a": 1}},
        {"hint": float("nan")},
        {"hint": True},
        {"line": -1},
        {"line": 10**30},
        {"todo": "3"},
    ],
    ids=str,
)
def test_what_has_not_the_form_is_refused(changes: dict) -> None:
    """Catches an answer that ends the report later: an unhashable id, a name that nobody asked for,
    a number that JSON can't hold.
    """
    with pytest.raises(BadAnswer):
        answers.result(result(**changes), ASKED[0])


@pytest.mark.parametrize("data", [None, [], "x", 3, {}, {"results": None}, {"results": [result()]}])
def test_a_whole_answer_must_be_about_all_that_was_asked(data: object) -> None:
    """Catches an answer with a check left out, or one that is not an answer."""
    with pytest.raises(BadAnswer):
        answers.answer(data, ASKED)


def test_messages_are_bounded_and_clean() -> None:
    """Catches 900 kB of spaces, control characters and lone surrogates in a report."""
    text = answers.message(" " * 900_000 + "\x1b[2J")
    assert len(text) <= answers.MOST_MESSAGE
    assert answers.message("a\x1b\ud800b\nc") == "a??b\nc"
    assert len(answers.message("\n".join("x" * 50)).splitlines()) == answers.MOST_LINES


def test_unusual_names_and_prints_are_of_their_kind() -> None:
    """Catches fingerprints that are not digests, and a list that is as long as somebody likes."""
    data = {"results": [result(), result(name="test_b")], "unusual": ["a"] * 100 + [3]}
    data["prints"] = {"exact": "ab", "layout": "cd", "names": "", "size": 12}
    found = answers.answer(data, ASKED)
    assert found["prints"]["size"] == 12
    assert len(found["unusual"]) == 20
    data["prints"]["names"] = "not a digest"
    assert "prints" not in answers.answer(data, ASKED)


# ── in a class ──────────────────────────────────────────────────────────────────────────────────

FORGE = """
import json, json.encoder
_dumps = json.dumps
def _forged(data, *a, **k):
    if isinstance(data, dict) and "result" in data:
        data = {"result": CHANGED}
    return _dumps(data, *a, **k)
json.dumps = _forged
json.encoder.JSONEncoder.encode = lambda self, o: json.encoder.c_make_encoder and "{}"
"""


def real_class(folder: Path, **pieces: str) -> gradebook.Class:
    """A class in which each keyword is a student with that file for problem 03."""
    for name, text in pieces.items():
        put(folder / "in" / name, 3, text)
    course = class_of_40.copy_course(folder / "course")
    options = gradebook.Options((3,), jobs=1)
    return gradebook.Class(course, folder / "in", folder / "out", options)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes minutes without fork")
def test_a_poisoned_answer_costs_its_author_alone(tmp_path: Path) -> None:
    """Catches a file whose process says nonsense and ends the class's report; and a cache that
    keeps nonsense forever.
    """
    forged = FORGE.replace("CHANGED", repr(result(name="test_unknown", mistakes=[{}])))
    report = real_class(tmp_path, ann=solution(3), eve=forged + solution(3)).grade()
    ann, eve = report["students"]
    assert ann["points"] == ann["max"]
    assert eve["points"] == 0
    assert len(eve["problems"][0]["results"]) == len(ann["problems"][0]["results"])
    # somebody writes into the cache
    caches = [p for p in (tmp_path / "out" / ".cache").glob("*.json") if "checks-" not in p.name]
    assert caches
    for path, text in zip(
        caches, ['{"results": [{"name": "x"}]}', "[" * 100_000, "{}"] * 9, strict=False
    ):
        path.write_text(text, encoding="utf-8")
    options = gradebook.Options((3,), jobs=1)
    work = gradebook.Class(tmp_path / "course", tmp_path / "in", tmp_path / "out", options)
    again = work.grade()
    assert [s["points"] for s in again["students"]] == [s["points"] for s in report["students"]]
    for path in caches:
        assert "results" in json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="takes minutes without fork")
def test_a_mark_is_explained_by_running_it_again(tmp_path: Path) -> None:
    """Catches a --why that tells something else than the report, or finds the wrong student."""
    wrong = solution(3).replace("softmax(scores", "softmax(2 * scores")
    work = real_class(tmp_path, ann=solution(3), Bob_Example=wrong)
    problem = work.again(work.find("bob"), 3)
    assert 0 < problem["points"] < problem["max"]
    assert any(r["status"] == "failed" and r["message"] for r in problem["results"])
    kept = [path.name for path in (tmp_path / "out" / ".cache").glob("*.json")]
    assert [name for name in kept if not name.startswith("checks-")] == []  # nor read nor written
    with pytest.raises(ValueError, match="no student is called 'carol'"):
        work.find("carol")
    with pytest.raises(ValueError, match="'a' fits 2 students: ann, Bob_Example"):
        work.find("a")
    assert work.find("n").student == "ann"  # the only one with this letter
