"""What `learn check` and `learn grade` make of the same files.

Run from the course's root for all lines and all banks, which takes an hour:
python -m tests.learn_gpt2.grading.agreement [PROBLEM …] [--banks]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.checking import child, runner
from learn_gpt2.checking.runner import Report
from learn_gpt2.grading import gradebook
from tests import class_of_40
from tests.graders import bank as banks
from tests.learn_gpt2.grading import harmless

ROOT = class_of_40.ROOT


@dataclass(frozen=True)
class Verdict:
    """points, and the mistakes of every check that did not pass."""

    points: int
    passed: bool
    mistakes: frozenset[str]
    first: str


def by_check(number: int, sources: list[str], folder: Path) -> list[Verdict]:
    """What `learn check` says: each file in a process of its own, as the command has it."""
    import torch

    problem = manifest.get(number)
    path = folder / "problems" / problem.folder / "problem.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    before = dict(os.environ)
    os.environ.update(child.surroundings(ROOT))
    verdicts = []
    try:
        for source in sources:
            path.write_text(source, encoding="utf-8")
            verdicts.append(_verdict(_in_child(number, path, folder)))
    finally:
        os.environ.clear()
        os.environ.update(before)
    return verdicts


def _in_child(number: int, path: Path, folder: Path) -> Report:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(folder)
            if dynamo := sys.modules.get("torch._dynamo"):  # read the setting before it was made
                dynamo.config.disable = os.environ["TORCH_COMPILE_DISABLE"] == "1"
            nowhere = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(nowhere, stream)
            report = runner.run_watched(ROOT, manifest.get(number), path)
            with os.fdopen(writable, "wb") as pipe:
                pipe.write(json.dumps(report.to_json()).encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        ended = runner.Result("run", "the checks end", "failed", "ended", ["crashed"])
        return Report(number, str(path), "yours", "-", [ended])
    return Report.from_json(json.loads(data))


def _verdict(report: Report) -> Verdict:
    refused = any(r.points == 0 and r.status == "failed" for r in report.results)
    points = sum(r.points for r in report.results if r.status == "passed")
    first = report.first_failure
    return Verdict(
        points=0 if refused else points,
        passed=report.passed,
        mistakes=frozenset(m for r in report.results for m in r.mistakes),
        first=f"{first.name}: {first.message}" if first else "",
    )


def by_grade(number: int, sources: list[str], folder: Path) -> list[Verdict]:
    """What `learn grade` gives a class in which each file is a student's."""
    for i, source in enumerate(sources):
        class_of_40.put(folder / "in" / f"s{i:04d}", number, source, 1)
    options = gradebook.Options((number,), jobs=1)
    course = class_of_40.copy_course(folder / "course")
    report = gradebook.Class(course, folder / "in", folder / "out", options).grade()
    verdicts = []
    for student in report["students"]:
        (problem,) = student["problems"]
        lost = [r for r in problem["results"] if r["status"] == "failed"]
        verdicts.append(
            Verdict(
                points=problem["points"],
                passed=problem["points"] == problem["max"],
                mistakes=frozenset(m for r in problem["results"] for m in r["mistakes"]),
                first=f"{lost[0]['name']}: {lost[0]['message']}" if lost else "",
            )
        )
    return verdicts


def differences(number: int, named: dict[str, str], folder: Path) -> list[str]:
    """Where the two differ in points or in acceptance. named: a name for each source."""
    sources = list(named.values())
    checked, graded = (
        by_check(number, sources, folder / "check"),
        by_grade(number, sources, folder),
    )
    return [
        f"{number:02d} {name}\n  check: {one.points} {one.first}\n  grade: {two.points} {two.first}"
        for name, one, two in zip(named, checked, graded, strict=True)
        if (one.points, one.passed) != (two.points, two.passed)
    ]


def of_bank(number: int) -> dict[str, str]:
    """Every answer of a problem's bank."""
    bank = banks.load(number)
    return {
        f"{kind} {i}: {answer.title}": answer.source
        for kind, answers in (("right", bank.right), ("wrong", bank.wrong))
        for i, answer in enumerate(answers)
    }


def with_lines(number: int, lines: list[harmless.Line]) -> dict[str, str]:
    """The solution with each of the lines."""
    right = class_of_40.solution(number)
    return {f"{i}: {line.name}": line.put_into(right) for i, line in enumerate(lines)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=["01"])
    parser.add_argument("--banks", action="store_true", help="the banks instead of the lines")
    options = parser.parse_args()
    found = []
    for problem in manifest.select(options.problems):
        lines = [line for line in harmless.LINES if line.possible]
        number = problem.number
        named = of_bank(number) if options.banks else with_lines(number, lines)
        with tempfile.TemporaryDirectory() as folder:
            different = differences(number, named, Path(folder))
        print(f"{number:02d}: {len(named)} files, {len(different)} differ", flush=True)
        found += different
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
