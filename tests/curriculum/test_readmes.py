"""The READMEs of the problems: one form, figures from the manifest, hints in three levels."""

import re
from pathlib import Path

import pytest

from learn_gpt2.manifest import PROBLEMS, Problem

ROOT = Path(__file__).resolve().parents[2]
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.folder)
SECTIONS = [
    "Afterwards you can",
    "Why",
    "A worked example",
    "Shapes",
    "Your task",
    "What is checked",
    "Hints",
    "Common mistakes",
    "How to test",
    "Further reading",
    "Next",
]


def text_of(problem: Problem) -> str:
    return problem.readme_path(ROOT).read_text(encoding="utf-8")


@each_problem
def test_sections_and_length(problem: Problem) -> None:
    """Catches a README without one of its parts, or one that nobody reads to the end."""
    text = text_of(problem)
    headings = re.findall(r"^## (.+)$", text, re.M)
    assert [h for h in headings if h in SECTIONS] == SECTIONS
    hints = text.split("\n## Hints")[1].split("\n## ")[0]  # folded away, three levels for each
    assert text.count("\n") - hints.count("\n") < 180
    assert text.startswith(f"# {problem.number:02d} · ")


@each_problem
def test_minutes_and_difficulty(problem: Problem) -> None:
    """Catches a figure that is not the path's."""
    line = next(line for line in text_of(problem).splitlines()[1:] if line.strip())
    assert problem.difficulty in line
    assert problem.minutes in line


@each_problem
def test_hints_are_numbered_and_have_three_levels(problem: Problem) -> None:
    """Catches a hint that a message can't point at, or that gives everything at once."""
    text = text_of(problem)
    hints = text.split("\n## Hints")[1].split("\n## ")[0]
    parts = re.split(r"^### Hint (\d+) · .+$", hints, flags=re.M)[1:]
    numbers = [int(n) for n in parts[::2]]
    assert numbers == list(range(1, len(numbers) + 1))
    for number, body in zip(numbers, parts[1::2], strict=True):
        levels = re.findall(r"<summary>(.+?)</summary>", body)
        assert levels == ["A nudge", "The idea", "Nearly the code"], f"hint {number}"
        assert body.count("<details>") == body.count("</details>") == 3


@each_problem
def test_a_picture_with_words_for_who_cannot_see_it(problem: Problem) -> None:
    """Catches a missing picture, or one without alternative text."""
    shapes = text_of(problem).split("\n## Shapes")[1].split("\n## ")[0]
    pictures = re.findall(r"!\[(.*?)\]\((.+?)\)", shapes)
    assert pictures
    for words, path in pictures:
        assert len(words) > 20
        assert (problem.readme_path(ROOT).parent / path).is_file()


def glossary_anchors() -> set[str]:
    text = (ROOT / "problems" / "GLOSSARY.md").read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", t.lower()).replace(" ", "-") for t in titles}


@each_problem
def test_glossary_links_lead_somewhere(problem: Problem) -> None:
    """Catches a link to a term that the glossary does not explain."""
    links = set(re.findall(r"GLOSSARY\.md#([\w\-]+)", text_of(problem)))
    assert links
    assert links - glossary_anchors() == set()
