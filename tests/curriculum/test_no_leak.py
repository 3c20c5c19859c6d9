"""No README, notebook or skeleton gives a solution's lines away."""

import ast
import json
import re
from pathlib import Path

import pytest

from learn_gpt2.manifest import PROBLEMS, Problem

ROOT = Path(__file__).resolve().parents[2]
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: p.folder)


def squeezed(line: str) -> str:
    """A line without spaces and comment."""
    return re.sub(r"\s+", "", line.split("  #")[0])


def solution_lines(problem: Problem) -> set[str]:
    """The lines of code in a solution's methods, squeezed, but for very short ones."""
    source = problem.solution_path(ROOT).read_text(encoding="utf-8")
    lines = source.splitlines()
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            for statement in body:
                found |= {squeezed(t) for t in lines[statement.lineno - 1 : statement.end_lineno]}
    given = {
        "super().__init__()",
        "withtorch.no_grad():",
        "return",
        "else:",
        "try:",
        ")",
        "]",
        "}",
        "),",
        "(",
    }
    return {line for line in found - given if len(line) >= 12 and not line.startswith("#")}


def leaks(text: str, secrets: set[str]) -> list[str]:
    """Lines (or spans of inline code) of a text that are a solution's."""
    candidates = [squeezed(line).strip("`") for line in text.splitlines()]
    candidates += [squeezed(span) for span in re.findall(r"`([^`\n]+)`", text)]
    return sorted({line for line in candidates if line in secrets})


@each_problem
def test_readmes_and_skeletons(problem: Problem) -> None:
    """Catches the answer in the text that asks for it."""
    secrets = solution_lines(problem)
    for path in (problem.readme_path(ROOT), ROOT / "problems" / "README.md", ROOT / "README.md"):
        assert leaks(path.read_text(encoding="utf-8"), secrets) == [], path
    skeleton = problem.problem_path(ROOT).read_text(encoding="utf-8")
    if "NotImplementedError" in skeleton:
        assert leaks(skeleton, secrets) == []


@each_problem
def test_notebooks(problem: Problem) -> None:
    """Catches the answer in the notebook's cells or outputs."""
    path = problem.readme_path(ROOT).with_name("notebook.ipynb")
    if not path.exists():
        pytest.skip(f"{path} is not there yet")
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert leaks(text, solution_lines(problem)) == []


def test_a_leak_is_seen() -> None:
    """Catches a test of leaks that sees none."""
    secrets = solution_lines(PROBLEMS[2])
    assert len(secrets) > 5
    assert leaks("so write\n    return weights @ v, weights  # (…)\n", secrets)
    assert leaks("write `return weights @ v, weights`.", secrets)
