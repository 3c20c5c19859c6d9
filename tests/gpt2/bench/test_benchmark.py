"""`gpt2.bench.measuring`: each measurement does the work it names; no test asks how fast it was."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_gpt2 import prompt, tiny

from gpt2.bench import generation
from gpt2.bench.generation import explain, model_in_folder, their_model, their_text
from gpt2.bench.measuring import as_json, plot
from gpt2.bench.registry import chosen, measurements, tables
from gpt2.bench.training import PlainGPT2, hugging_face_model
from gpt2.generation.generating import generate
from gpt2.inference.engine import prepare


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch):
    """A tiny subject with room for the long prompts, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(generation, "subject", lambda *_: tiny(n_positions=160))
    yield
    torch.set_num_threads(threads)


def test_the_opponent_has_the_same_weights_and_writes_the_same_text() -> None:
    """Catches a race against another model, or one that stops early."""
    model, ids = tiny(), prompt(2, 5)
    with prepare(model):
        ours = generate(model, ids, 12, temperature=0.0)
    assert torch.equal(their_text(their_model(model), ids, 12), ours)


@pytest.mark.parametrize("name", [n for n in measurements() if "training" not in n])
def test_each_measurement_gives_a_table(name: str) -> None:
    """Catches a measurement that no longer runs, and rounds or units that are lost."""
    if name == "memory" and sys.platform == "win32":
        pytest.skip("getrusage is Unix's")
    table = measurements()[name](quick=True, rounds=1)
    assert len(table.results) >= 2
    assert all(rate > 0 for result in table.results for rate in result.rates)
    data = json.loads(as_json([table]))
    assert data["tables"][0]["results"][0]["rates"] == list(table.results[0].rates)
    assert table.title in table.markdown()


@pytest.mark.parametrize("in_hardware", [torch.bfloat16, None])
def test_no_race_against_an_imitation(
    in_hardware: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a bfloat16 opponent on a processor without it, whose prompt takes minutes; and one
    that is left out elsewhere, or in silence.
    """
    monkeypatch.setattr(generation, "autocast_dtype", lambda *_: in_hardware)
    table = measurements()["batch8"](quick=True, rounds=1)
    names = [result.name for result in table.results]
    assert ("Hugging Face, bfloat16" in names) is (in_hardware is not None)
    assert ("left out" in table.setting) is (in_hardware is None)
    assert names[-1] == "Hugging Face, float32"


def test_explain_counts_the_bytes() -> None:
    """Catches megabytes that are not the linear layers' and the cache's."""
    text = explain(quick=True, rounds=1)
    rows = {line.split("|")[1].strip(): line.split("|")[2:] for line in text.splitlines()[5:11]}
    numbers = 3 * 12 * 20 * 20 + 97 * 20
    assert float(rows["a plain sum"][0]) == float(f"{numbers * 4 / 1e6:.4g}")
    assert set(rows) >= {"float32", "bfloat16", "float16", "int8"}
    assert float(rows["a plain sum"][2]) == 1.0


@pytest.mark.parametrize(("name", "sizes"), [("context", 3), ("batch", 7)])
def test_curves_are_drawn(name: str, sizes: int, tmp_path: Path) -> None:
    """Catches sizes and costs that no longer belong together, and a picture that is not written."""
    table = measurements()[name](quick=True, rounds=1)
    curve = table.curve
    assert list(curve.sizes) == sorted(curve.sizes)
    assert len(curve.sizes) == len(curve.ms) == len(curve.expected) == sizes
    assert curve.expected[0] == curve.ms[0]
    batch = curve.sizes[-1] if name == "batch" else 1
    assert curve.ms[-1] == pytest.approx(1e3 * batch / table.results[0].median)
    assert plot(table, tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_bytes_expected_of_a_longer_context() -> None:
    """Catches bytes that are not weights and cache: 3 layers of 20, 97 tokens, float32."""
    curve = measurements()["context"](quick=True, rounds=1).curve
    weights, per_token = 4 * (3 * 12 * 20 * 20 + 97 * 20), 4 * 2 * 3 * 20
    ratio = (weights + 128 * per_token) / (weights + per_token)
    assert curve.sizes == (1, 32, 128)
    assert curve.expected[-1] / curve.expected[0] == pytest.approx(ratio)


OPPONENT = """
import dataclasses, torch

@dataclasses.dataclass
class GPTConfig:
    block_size: int; vocab_size: int; n_layer: int; n_head: int; n_embd: int; dropout: float

class GPT(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.V = config.vocab_size

    def generate(self, ids, max_new_tokens, temperature=1.0, top_k=None):
        return torch.cat([ids, ids.new_full((len(ids), max_new_tokens), self.V - 1)], 1)
"""


def test_an_opponent_by_its_folder(tmp_path: Path) -> None:
    """Catches a folder that is taken and not run, or taken for another model's."""
    (tmp_path / "model.py").write_text(OPPONENT, encoding="utf-8")
    (table,) = tables(chosen(["decode"]), quick=True, rounds=1, opponent=tmp_path)
    assert any(result.name.startswith(tmp_path.name) for result in table.results)
    assert table.results[-1].name == "Hugging Face, float32"


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (None, "no model.py"),
        ("class GPTConfig: pass", "TypeError|AttributeError"),
        ("1/0", "ZeroDivisionError"),
        ("def GPTConfig(", "SyntaxError"),
        (OPPONENT.replace("def generate", "def write"), "generate"),
    ],
)
def test_an_opponent_that_is_none(code: str | None, named: str, tmp_path: Path) -> None:
    """Catches a traceback where the folder and the reason are to be named."""
    if code is not None:
        (tmp_path / "model.py").write_text(code, encoding="utf-8")
    with pytest.raises(ValueError, match=named):
        model_in_folder(tmp_path, tiny().config, "cpu")


def test_the_plain_model_is_a_gpt2() -> None:
    """Catches a training opponent that does other work than a GPT-2: the same weights in Hugging
    Face's give the same logits and gradients.
    """
    config = replace(tiny().config, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    plain, theirs = PlainGPT2(config), hugging_face_model(config)
    names = {"wte": "transformer.wte", "wpe": "transformer.wpe", "ln_f": "transformer.ln_f"}
    inside = {"ln_1": "ln_1", "ln_2": "ln_2", "qkv": "attn.c_attn", "out": "attn.c_proj"}
    inside |= {"mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}
    for i in range(config.n_layer):
        names |= {f"blocks.{i}.{a}": f"transformer.h.{i}.{b}" for a, b in inside.items()}
    with torch.no_grad():
        for mine, other in names.items():
            for kind, value in plain.get_submodule(mine).named_parameters():
                target = theirs.get_parameter(f"{other}.{kind}")
                value.normal_(std=0.3)
                conv1d = ".h." in other and value.dim() == 2  # (in, out) where Linear has (out, in)
                target.copy_(value.t() if conv1d else value)
    ids = prompt(2, 7, V=config.vocab_size)
    ours, expected = plain(ids), theirs(ids).logits
    torch.testing.assert_close(ours, expected, atol=2e-4, rtol=1e-4)
    for logits in (ours, expected):
        logits.square().mean().backward()
    grad = theirs.get_parameter("transformer.h.1.attn.c_attn.weight").grad.t()
    torch.testing.assert_close(plain.blocks[1].qkv.weight.grad, grad, atol=1e-4, rtol=1e-3)
