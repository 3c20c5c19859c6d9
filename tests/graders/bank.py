"""How a bank is written and run.

A module `pNN.py` makes a `Bank`: wrong answers, each with the id of the misconception that must be
named, and right answers in other styles, which must be accepted.
"""

from __future__ import annotations

import importlib
import textwrap
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.checking import runner
from learn_gpt2.checking.runner import Report

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """One answer: its whole source, what it is, and (when wrong) the mistake that must be named."""

    title: str
    source: str
    mistake: str = ""


class Bank:
    """Writes down a problem's answers, as edits of the solution or as whole files."""

    def __init__(self, number: int):
        self.problem = manifest.get(number)
        self.solution = self.problem.solution_path(ROOT).read_text(encoding="utf-8")
        self.wrong: list[Answer] = []
        self.right: list[Answer] = []

    def _edited(self, edits: tuple[tuple[str, str], ...], base: str | None) -> str:
        source = self.solution if base is None else textwrap.dedent(base)
        for old, new in edits:
            if source.count(old) != 1:
                raise ValueError(
                    f"problem {self.problem.number:02d}: {old!r} must stand once in what it is "
                    f"replaced in, and stands {source.count(old)} times"
                )
            source = source.replace(old, new)
        return source

    def wrong_edit(
        self, mistake: str, title: str, *edits: tuple[str, str], base: str | None = None
    ) -> None:
        """A wrong answer: the solution (or `base`) with (old, new) replacements."""
        self.wrong.append(Answer(title, self._edited(edits, base), mistake))

    def wrong_file(self, mistake: str, title: str, source: str) -> None:
        """A wrong answer: a whole file."""
        self.wrong.append(Answer(title, textwrap.dedent(source).lstrip(), mistake))

    def right_edit(self, title: str, *edits: tuple[str, str], base: str | None = None) -> None:
        """A right answer: the solution (or `base`) with (old, new) replacements."""
        self.right.append(Answer(title, self._edited(edits, base)))

    def right_file(self, title: str, source: str) -> None:
        """A right answer: a whole file."""
        self.right.append(Answer(title, textwrap.dedent(source).lstrip()))


@dataclass(frozen=True)
class Verdict:
    """What the checks made of an answer."""

    answer: Answer
    report: Report

    @property
    def caught(self) -> bool:
        """Whether at least one check failed."""
        return self.report.first_failure is not None

    @property
    def named(self) -> bool:
        """Whether the first failure, the one that the learner sees, names the mistake."""
        first = self.report.first_failure
        return first is not None and self.answer.mistake in first.mistakes

    def __str__(self) -> str:
        first = self.report.first_failure
        seen = f"{first.name}: {first.message}" if first else "every check passes"
        want = f" (must name {self.answer.mistake})" if self.answer.mistake else ""
        return f"{self.answer.title}{want}\n{textwrap.indent(seen, '    ')}"


def load(number: int) -> Bank:
    """The bank of one problem."""
    return importlib.import_module(f"tests.graders.p{number:02d}").bank


def examine(bank: Bank, answers: list[Answer], folder: Path) -> list[Verdict]:
    """Run the problem's checks on each answer, written to `folder` as a learner's file."""
    verdicts = []
    for answer in answers:
        path = folder / "problem.py"
        path.write_text(answer.source, encoding="utf-8")
        verdicts.append(Verdict(answer, runner.run_checks(ROOT, bank.problem, path)))
    return verdicts
