"""`gpt2.benchmark`: each measurement does the work it names; how fast it was is no test."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from small_gpt2 import prompt, tiny

from gpt2 import benchmark
from gpt2.benchmark import MEASUREMENTS, as_json, explain, report, their_model, their_text
from gpt2.engine import prepare
from gpt2.generate import generate


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    """A tiny subject with room for the long prompts, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(benchmark, "subject", lambda *_: tiny(n_positions=160))
    yield
    torch.set_num_threads(threads)


def test_the_opponent_has_the_same_weights_and_writes_the_same_text() -> None:
    """Catches a race against another model, or one that stops early."""
    model, ids = tiny(), prompt(2, 5)
    with prepare(model):
        ours = generate(model, ids, 12, temperature=0.0)
    assert torch.equal(their_text(their_model(model), ids, 12), ours)


@pytest.mark.parametrize("name", [n for n in MEASUREMENTS if "training" not in n])
def test_each_measurement_gives_a_table(name: str) -> None:
    """Catches a measurement that no longer runs, and rounds or units that are lost."""
    if name == "memory" and sys.platform == "win32":
        pytest.skip("getrusage is Unix's")
    table = MEASUREMENTS[name](quick=True, rounds=1)
    assert len(table.results) >= 2
    assert all(rate > 0 for result in table.results for rate in result.rates)
    data = json.loads(as_json([table]))
    assert data["tables"][0]["results"][0]["rates"] == list(table.results[0].rates)
    assert table.title in report([table])


def test_explain_counts_the_bytes() -> None:
    """Catches megabytes that are not the linear layers' and the cache's."""
    text = explain(quick=True, rounds=1)
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in text.splitlines()[5:11]}
    numbers = 3 * 12 * 20 * 20 + 97 * 20
    assert float(rows["a plain sum"][0]) == float(f"{numbers * 4 / 1e6:.4g}")
    assert set(rows) >= {"float32", "bfloat16", "float16", "int8"}
    assert float(rows["a plain sum"][2]) == 1.0
