"""The graders, graded: every wrong answer caught and named, every right one accepted."""

from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import loading, runner
from learn_gpt2.manifest import PROBLEMS, Problem
from tests.graders import bank as banks

ROOT = banks.ROOT
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.folder)


@each_problem
def test_every_wrong_answer_is_caught_and_named(problem: Problem, tmp_path: Path) -> None:
    """Catches a check that lets a known mistake pass, a first failure that names another one, a
    message of more than six lines, or one that points at a hint the README does not have.
    """
    readme = problem.readme_path(ROOT).read_text(encoding="utf-8")
    bank = banks.load(problem.number)
    verdicts = banks.examine(bank, bank.wrong, tmp_path)
    missed = [v for v in verdicts if not v.named]
    assert not missed, "\n\n".join(map(str, missed))
    for verdict in verdicts:
        first = verdict.report.first_failure
        assert len(first.message.splitlines()) <= runner.MESSAGE_LINES
        assert first.hint is None or f"### Hint {first.hint} " in readme, str(verdict)


@each_problem
def test_nothing_false_is_said_of_a_wrong_answer(problem: Problem, tmp_path: Path) -> None:
    """Catches a check that names a mistake which the answer does not have, and a clue about the
    numbers that does not hold of them: in any failing check, not in the first alone.
    """
    bank = banks.load(problem.number)
    false = [
        f"{verdict.answer.title} ({verdict.answer.mistake}): {text}"
        for verdict in banks.examine(bank, bank.wrong, tmp_path)
        for text in verdict.false
    ]
    assert not false, "\n\n".join(false)


@each_problem
def test_every_right_answer_is_accepted(problem: Problem, tmp_path: Path) -> None:
    """Catches a check that asks for more than the contract does."""
    bank = banks.load(problem.number)
    refused = [v for v in banks.examine(bank, bank.right, tmp_path) if v.caught]
    assert not refused, "\n\n".join(map(str, refused))


@each_problem
def test_banks_are_large_enough(problem: Problem) -> None:
    """Catches a bank that shrinks, or holds the same answer twice."""
    bank = banks.load(problem.number)
    assert len({answer.source for answer in bank.wrong}) == len(bank.wrong) >= 12
    assert len({answer.source for answer in bank.right}) == len(bank.right) >= 3


def test_180_wrong_answers_in_all() -> None:
    """Catches banks that shrink together."""
    assert sum(len(banks.load(p.number).wrong) for p in PROBLEMS) >= 180


# ── the ladder ──────────────────────────────────────────────────────────────────────────────────


def ladder(problem: Problem) -> list[tuple[int, str]]:
    """(last TODO that is done, source) for the skeleton with the first 0, 1, 2 … functions done."""
    import ast

    solution = problem.solution_path(ROOT).read_text(encoding="utf-8")
    skeleton = problem.problem_path(ROOT).read_text(encoding="utf-8")
    done = _functions(ast.parse(solution), solution)
    open_ = _functions(ast.parse(skeleton), skeleton)
    todos = sorted(
        (min(loading.open_todos(ast.parse(_dedent(text)))), name)
        for name, text in open_.items()
        if loading.open_todos(ast.parse(_dedent(text)))
    )
    rungs = []
    for i, (todo, _) in enumerate(todos):
        # from the solution back, so that the helpers that it keeps to itself are there
        source = solution
        for _, name in todos[i:]:
            source = source.replace(done[name], open_[name])
        rungs.append((todo - 1, source))
    rungs.append((max(c.todo for c in runner.load_checks(ROOT, problem)), solution))
    return rungs


def _dedent(text: str) -> str:
    import textwrap

    return textwrap.dedent(text)


def _functions(tree, source: str) -> dict[str, str]:
    """Qualified name → source lines of each function and method."""
    import ast

    lines = source.splitlines(keepends=True)
    found = {}
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        for f in inside:
            if isinstance(f, ast.FunctionDef):
                first = min([f.lineno, *(d.lineno for d in f.decorator_list)]) - 1
                found[prefix + f.name] = "".join(lines[first : f.end_lineno])
    return found


@each_problem
def test_the_ladder(problem: Problem, tmp_path: Path) -> None:
    """With TODOs 1…n done, exactly the checks up to n pass, and the next TODO is named."""
    for done, source in ladder(problem):
        path = tmp_path / "problem.py"
        path.write_text(source, encoding="utf-8")
        report = runner.run_checks(ROOT, problem, path)
        todo = {c.name: c.todo for c in runner.load_checks(ROOT, problem)}
        passed = {r.name for r in report.results if r.status == "passed"}
        expected = {name for name, number in todo.items() if number <= done}
        assert passed == expected, f"with TODOs 1…{done} done"
        if report.first_failure:
            assert report.first_failure.todo == done + 1


@each_problem
def test_an_untouched_skeleton_fails_every_check(problem: Problem) -> None:
    """Catches a check that passes on a file in which nothing is done."""
    report = runner.run_checks(ROOT, problem, problem.problem_path(ROOT))
    if problem.problem_path(ROOT).read_text(encoding="utf-8").count("NotImplementedError") == 0:
        pytest.skip("problem.py is filled in here")
    assert {r.status for r in report.results} == {"failed"}


@each_problem
def test_the_reference_passes(problem: Problem) -> None:
    """Catches a check that the solution fails."""
    report = runner.run_checks(ROOT, problem, "reference")
    assert report.passed, report.first_failure


def test_the_guard_is_told_apart_from_mistakes(tmp_path: Path) -> None:
    """Catches a borrowed answer that is graded instead of being refused."""
    path = tmp_path / "problem.py"
    path.write_text("from gpt2.model import Embeddings\n", encoding="utf-8")
    report = runner.run_checks(ROOT, manifest.get(1), path)
    assert all(r.mistakes == ["borrowed-answer"] for r in report.results)
