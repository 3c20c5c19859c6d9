"""Files that are up to something in part two, where a check and a piece talk most."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from learn_gpt2 import manifest
from learn_gpt2.checking import runner
from learn_gpt2.grading import examiner, sandbox
from tests.graders import bank as banks
from tests.graders.through import uid

ROOT = banks.ROOT
FOLDER = ROOT / "tests" / "hostile" / "part_two"
FILES = sorted(
    path.stem
    for path in FOLDER.glob("p[0-9][0-9]_*.py")
    if manifest.get(int(path.stem[1:3])).test_path(ROOT).is_file()
)
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")

# what each problem's solution is made wrong by
WRONG = {
    13: """
def penalize_repetition(*a, **k): return None
def keep_top_k(*a, **k): return None
def keep_top_p(*a, **k): return None
def sample(*a, **k): return None
def next_token(*a, **k): return None
def generate_tokens(*a, **k): return None
""",
    14: """
class LayerCache(LayerCache):
    def append(self, k, v): return k, v
""",
    15: """
def train_step(*a, **k): return 0.0, 0.0
""",
    17: """
def quantize(weight, scale, bits=8): return torch.zeros(weight.shape, dtype=torch.int8)
def quantize_model(*a, **k): return []
""",
}


def source(number: int) -> str:
    """A wrong answer."""
    return manifest.get(number).solution_path(ROOT).read_text(encoding="utf-8") + WRONG[number]


def points(results: list) -> int:
    """Of the checks that passed."""
    return sum(r["points"] for r in results if r["status"] == "passed")


@pytest.fixture(scope="module")
def server() -> Iterator[examiner.Server]:
    """Judges and workers for the problems that the files are about."""
    numbers = sorted({int(name[1:3]) for name in FILES})
    made = examiner.prepare(ROOT, numbers, sandbox.Limits(seconds=20), sandbox.probe())
    yield made
    made.keeper.close()
    made.keeper_process.wait(20)


@pytest.fixture(scope="module")
def deserved(server: examiner.Server, tmp_path_factory: pytest.TempPathFactory) -> dict[int, int]:
    """Points of the wrong answers alone."""
    found = {}
    for number in server.checks:
        path: Path = tmp_path_factory.mktemp("wrong") / "problem.py"
        path.write_text(source(number), encoding="utf-8")
        report = runner.run_checks(ROOT, manifest.get(number), path)
        found[number] = points([vars(r) for r in report.results])
    return found


@pytest.mark.parametrize("name", FILES)
def test_it_gets_no_more_and_costs_nobody(name: str, server, deserved: dict[int, int]) -> None:
    """Catches points for a wrong answer, a judge that ends without a report, a box that is open,
    and an honest file that loses something to the one before it.
    """
    problem = manifest.get(int(name[1:3]))
    text = source(problem.number) + "\n\n" + (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    question = examiner.Question(problem, text.encode(), "", uid(server))
    data = examiner.answer(server, question)
    assert "error" not in data, data
    assert len(data["results"]) == len(server.checks[problem.number])
    assert points(data["results"]) <= deserved[problem.number]
    assert "BOX OPEN" not in str(data["results"])


def test_the_honest_beside_them(server: examiner.Server) -> None:
    """Catches marks that suffer from the files before."""
    for number, checks in server.checks.items():
        honest = manifest.get(number).solution_path(ROOT).read_bytes()
        question = examiner.Question(manifest.get(number), honest, "", uid(server))
        data = examiner.answer(server, question)
        assert points(data["results"]) == sum(c.points for c in checks), number
