"""Every wrong and right answer of the banks, through the judge and directly: the same verdicts.

    python -m tests.graders.through             all problems
    python -m tests.graders.through 05 13       some

Each answer runs twice: as a learner's own tests run it, in this process, and as `learn grade` does,
through a judge and a confined worker. Compared are each check's status, ids and points; and the
messages, which are told apart where only they differ.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.checking import runner
from learn_gpt2.grading import examiner, sandbox
from learn_gpt2.manifest import Problem
from tests.graders import bank as banks
from tests.graders.bank import Answer

ROOT = banks.ROOT
TIMED_OUT = frozenset(("endless-loop", "out-of-time", "slow-import"))


@dataclass
class Compared:
    """What came of one answer in both ways. Results are (name, status, ids, points, message)."""

    problem: int
    title: str
    direct: list[tuple]
    judged: list[tuple]
    seconds: tuple[float, float]

    @property
    def differences(self) -> list[str]:
        """Checks whose status, ids or points differ."""
        pairs = zip(self.direct, self.judged, strict=True)
        return [f"{a[0]}: {a[1:]} directly, {b[1:]} judged" for a, b in pairs if a[:4] != b[:4]]

    @property
    def messages(self) -> list[str]:
        """Checks that say the same with other words."""
        pairs = zip(self.direct, self.judged, strict=True)
        return [f"{a[0]}: {a[4]}\n    {b[4]}" for a, b in pairs if a[:4] == b[:4] and a[4] != b[4]]


@dataclass
class Both:
    """Runs answers in both ways."""

    server: examiner.Server
    folder: Path
    found: list[Compared] = field(default_factory=list)

    def compare(self, problem: Problem, answer: Answer) -> Compared:
        """One answer in both ways; again where a time limit struck in one, on a busy machine."""
        compared = self._once(problem, answer)
        if compared.differences and TIMED_OUT & {i for r in compared.judged for i in r[2]}:
            compared = self._once(problem, answer)
        self.found.append(compared)
        return compared

    def _once(self, problem: Problem, answer: Answer) -> Compared:
        path = self.folder / "problems" / problem.folder / "problem.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(answer.source, encoding="utf-8")
        begun = time.monotonic()
        name = f"checks_{problem.number:02d}"
        judges = sys.modules[name]
        direct = runner.run_checks(ROOT, problem, path)  # loads the checks again
        sys.modules[name] = judges
        between = time.monotonic()
        question = examiner.Question(problem, answer.source.encode(), "", uid(self.server))
        data = examiner.answer(self.server, question)
        ended = time.monotonic()
        if "error" in data:
            raise RuntimeError(f"{answer.title}: {data['error']}")
        clean = examiner.clean
        one = [
            (r.name, r.status, r.mistakes, r.points, clean(r.message, self.folder))
            for r in direct.results
        ]
        two = [
            (r["name"], r["status"], r["mistakes"], r["points"], r["message"])
            for r in data["results"]
        ]
        spent = between - begun, ended - between
        return Compared(problem.number, answer.title, one, two, spent)


def uid(server: examiner.Server) -> int:
    """The user id that a student's code runs under."""
    return sandbox.free_uid(0) if server.means.drops else 0


@contextmanager
def both_ways(numbers: list[int]) -> Iterator[Both]:
    """A judge for these problems with the public numbers, and the checks in this process."""
    server = examiner.prepare(ROOT, numbers, sandbox.Limits(), sandbox.probe())
    try:
        with tempfile.TemporaryDirectory(prefix="through-") as folder:
            yield Both(server, Path(folder).resolve())
    finally:
        server.keeper.close()
        server.keeper_process.wait(20)


def answers(number: int) -> list[Answer]:
    """The reference, and everything in a problem's bank."""
    source = manifest.get(number).solution_path(ROOT).read_text(encoding="utf-8")
    bank = banks.load(number)
    return [Answer("the reference", source), *bank.right, *bank.wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=["all"])
    parser.add_argument("--every", type=int, default=1, help="take one answer of this many")
    parser.add_argument("--messages", action="store_true", help="show messages that differ")
    options = parser.parse_args()
    differ = count = 0
    for problem in manifest.select(options.problems):
        with both_ways([problem.number]) as both:
            for answer in answers(problem.number)[:: options.every]:
                compared = both.compare(problem, answer)
                for text in compared.differences:
                    print(f"{problem.number:02d} {answer.title}\n    {text}", flush=True)
                for text in compared.messages if options.messages else ():
                    print(f"{problem.number:02d} {answer.title}\n    {text}", flush=True)
        found = both.found
        wrong = sum(bool(c.differences) for c in found)
        words = sum(bool(c.messages) for c in found)
        one, two = (sum(c.seconds[i] for c in found) for i in (0, 1))
        differ, count = differ + wrong, count + len(found)
        print(
            f"{problem.number:02d}  {len(found)} answers, {wrong} with another verdict, {words} "
            f"with other words; {one:.1f} s directly, {two:.1f} s through the judge",
            flush=True,
        )
    print(f"{count} answers, {differ} with another verdict")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
