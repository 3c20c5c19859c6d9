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
from learn_gpt2.checking.checks import EITHER
from learn_gpt2.checking.runner import Report
from tests.graders import manners, truth

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Answer:
    """One answer: its whole source, what it is, and (when wrong) the mistake that must be named.

    also: ids of further mistakes that are true of it (it has two, or one has two names). Whatever
    else is said of it is false.
    """

    title: str
    source: str
    mistake: str = ""
    also: frozenset[str] = frozenset()


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
        self,
        mistake: str,
        title: str,
        *edits: tuple[str, str],
        base: str | None = None,
        also: str = "",
    ) -> None:
        """A wrong answer: the solution (or `base`) with (old, new) replacements."""
        source = self._edited(edits, base)
        self.wrong.append(Answer(title, source, mistake, frozenset(also.split())))

    def wrong_file(self, mistake: str, title: str, source: str, also: str = "") -> None:
        """A wrong answer: a whole file."""
        source = textwrap.dedent(source).lstrip()
        self.wrong.append(Answer(title, source, mistake, frozenset(also.split())))

    def right_edit(self, title: str, *edits: tuple[str, str], base: str | None = None) -> None:
        """A right answer: the solution (or `base`) with (old, new) replacements."""
        self.right.append(Answer(title, self._edited(edits, base)))

    def right_file(self, title: str, source: str) -> None:
        """A right answer: a whole file."""
        self.right.append(Answer(title, textwrap.dedent(source).lstrip()))


@dataclass(frozen=True)
class Verdict:
    """What the checks made of an answer. wrong_clues: what was said of numbers and does not hold
    of them (see `truth`).
    """

    answer: Answer
    report: Report
    wrong_clues: tuple[str, ...] = ()

    @property
    def caught(self) -> bool:
        """Whether at least one check failed."""
        return self.report.first_failure is not None

    @property
    def named(self) -> bool:
        """Whether the first failure, the one that the learner sees, names the mistake."""
        first = self.report.first_failure
        return first is not None and self.answer.mistake in first.mistakes

    @property
    def false(self) -> list[str]:
        """What the whole output says of the answer that is not so: in any failing check, not only
        in the first.
        """
        true = {self.answer.mistake} | self.answer.also
        said = []
        for result in self.report.results:
            if result.status != "failed" or set(result.mistakes) <= true:
                continue
            # of two alternatives one may be wrong; that is what the sentence says
            if result.message.startswith(EITHER) and set(result.mistakes) & true:
                continue
            said.append(f"{result.name}: {result.message}")
        return [*said, *self.wrong_clues]

    def __str__(self) -> str:
        first = self.report.first_failure
        seen = f"{first.name}: {first.message}" if first else "every check passes"
        want = f" (must name {self.answer.mistake})" if self.answer.mistake else ""
        return f"{self.answer.title}{want}\n{textwrap.indent(seen, '    ')}"


def load(number: int) -> Bank:
    """The bank of one problem, with the answers in public manners behind its own."""
    bank = importlib.import_module(f"tests.graders.p{number:02d}").bank
    for title, source in manners.RIGHT.get(number, ()):
        if all(title != answer.title for answer in bank.right):
            bank.right.append(Answer(title, source))
    for mistake, title, source, also in manners.WRONG.get(number, ()):
        if all(title != answer.title for answer in bank.wrong):
            bank.wrong.append(Answer(title, source, mistake, frozenset(also.split())))
    return bank


def examine(bank: Bank, answers: list[Answer], folder: Path) -> list[Verdict]:
    """Run the problem's checks on each answer, written to `folder` as a learner's file."""
    verdicts = []
    for answer in answers:
        path = folder / "problem.py"
        path.write_text(answer.source, encoding="utf-8")
        with truth.overheard() as wrong_clues:
            report = runner.run_checks(ROOT, bank.problem, path)
        verdicts.append(Verdict(answer, report, tuple(wrong_clues)))
    return verdicts
