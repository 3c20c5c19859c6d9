"""The bundled model is what its card says, and Hugging Face's library reads it as we do."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from small_gpt2 import ROOT

from gpt2.data.preparing import prepare
from gpt2.data.shards import TokenSource
from gpt2.data.sources import SHAKESPEARE_SHA256, shakespeare_places
from gpt2.formats.opening import load_tokenizer
from gpt2.generation.generating import generate
from gpt2.model import GPT2Model
from gpt2.training.evaluation import evaluate_loss

BUNDLED = ROOT / "src" / "gpt2" / "bundled"
PROMPT = "ROMEO:\nBut soft, what"


def card() -> str:
    """The model card."""
    return (BUNDLED / "README.md").read_text(encoding="utf-8")


def test_the_folder_stays_below_ten_megabytes() -> None:
    """Catches weights that every clone would have to carry along."""
    files = {path.name: path.stat().st_size for path in BUNDLED.iterdir()}
    assert sum(files.values()) < 10_000_000
    needed = {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"}
    assert needed | {"README.md"} <= files.keys()


def test_transformers_reads_the_same_ids_logits_and_text() -> None:
    """Catches a folder that only this project understands: greedy, 100 tokens, token for token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, theirs = load_tokenizer(BUNDLED), AutoTokenizer.from_pretrained(BUNDLED)
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    assert theirs(PROMPT)["input_ids"] == ids[0].tolist()
    ours = GPT2Model.from_pretrained(BUNDLED)
    model = AutoModelForCausalLM.from_pretrained(BUNDLED, dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), model(ids).logits, rtol=1e-4, atol=1e-4)
    one = generate(ours, ids, 100, temperature=0.0)
    two = model.generate(ids, max_new_tokens=100, do_sample=False)
    assert one.tolist() == two.tolist()
    assert tokenizer.decode(one[0].tolist()) == theirs.decode(two[0])


def test_it_is_worth_exploring() -> None:
    """Catches a replacement too small for patterns: layers and heads, positions it has learnt."""
    config = GPT2Model.from_pretrained(BUNDLED).config
    assert config.n_layer >= 4
    assert config.n_head >= 4
    assert config.n_positions == 256


def test_the_card_s_validation_loss_is_what_the_weights_give(tmp_path: Path) -> None:
    """Catches a figure that belongs to other weights, on the part of the text at hand."""
    if not any(path.is_file() for path in shakespeare_places()):
        pytest.skip(f"Tiny Shakespeare is in none of {[str(p) for p in shakespeare_places()]}")
    index = prepare("shakespeare", tmp_path, tokenizer=str(BUNDLED))
    assert index.source["sha256"] == SHAKESPEARE_SHA256
    assert SHAKESPEARE_SHA256 in card()
    model = GPT2Model.from_pretrained(BUNDLED)
    found = evaluate_loss(model, TokenSource(index, "val"))
    stated = float(re.search(r"validation loss\*?\*? ([\d.]+)", card())[1])
    assert found.nats == pytest.approx(stated, abs=6e-5)
    bits = float(re.search(r"([\d.]+) bits per byte", card())[1])
    assert bits == pytest.approx(stated / math.log(2), abs=1e-3)


def test_the_training_log_ends_where_the_card_says() -> None:
    """Catches a log of another run."""
    lines = (BUNDLED / "training-log.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    steps = re.search(r"\*\*Steps\*\*: ([\d,]+)", card())[1]
    assert max(row["step"] for row in rows) == int(steps.replace(",", ""))
