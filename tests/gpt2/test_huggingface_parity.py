"""The whole path beside Hugging Face's GPT-2 with the same weights, from files to text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_gpt2 import hugging_face, prompt, use_bpe

from gpt2.cache import KVCache
from gpt2.generation.generating import decode_step, generate, prefill
from gpt2.model import GPT2Config, GPT2Model

PARAGRAPH = """\
It is a truth universally acknowledged, that a single man in possession of a good fortune, must be
in want of a wife. However little known the feelings or views of such a man may be on his first
entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families,
that he is considered the rightful property of some one or other of their daughters."""


def in_pieces(model: GPT2Model, ids: torch.Tensor, n: int, piece: int) -> torch.Tensor:
    """Greedy text whose prompt was read a piece at a time."""
    cache = KVCache(model.config, len(ids))
    for start in range(0, ids.size(1), piece):
        logits = prefill(model, ids[:, start : start + piece], cache)
    for i in range(n):
        tokens = logits.argmax(-1)
        ids = torch.cat([ids, tokens[:, None]], 1)
        if i + 1 < n:
            logits = decode_step(model, tokens, cache)
    return ids


def compare(theirs, folder: Path, ids: torch.Tensor, n: int, atol: float) -> None:
    """Logits of all ids, and greedy text after the first 24 by every path of ours, against Hugging
    Face's.
    """
    theirs.save_pretrained(folder)
    ours = GPT2Model.from_pretrained(folder)
    with torch.no_grad():
        torch.testing.assert_close(ours(ids), theirs(ids).logits, rtol=0, atol=atol)
    ids = ids[:, :24]
    expected = theirs.generate(
        ids, max_new_tokens=n, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert (
        len(set(expected[0, ids.size(1) :].tolist())) > n // 4
    )  # a loop of one word proves little
    assert torch.equal(generate(ours, ids, n, temperature=0.0), expected)
    assert torch.equal(generate(ours, ids, n, temperature=0.0, use_cache=False), expected)
    for piece in (1, 3, 7):
        assert torch.equal(in_pieces(ours, ids, n, piece), expected), f"pieces of {piece}"


@pytest.mark.parametrize("B", [1, 3])
def test_a_tiny_model(tmp_path: Path, B: int) -> None:
    """Catches any difference in arithmetic, order or loading, on every machine in a second."""
    compare(hugging_face(), tmp_path, prompt(B, 8), 15, 1e-5)


@pytest.mark.slow
def test_the_shape_of_gpt2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches what only shows at 124M parameters: errors that add up over 12 layers of 768, and a
    real vocabulary's size. About a minute.
    """
    use_bpe(monkeypatch)
    from gpt2.text.tokenizers import GPT2Tokenizer

    theirs = hugging_face(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12)
    with torch.no_grad():  # back from 0.4 to a fan-in at which the residual stream stays in hand
        for parameter in theirs.parameters():
            if parameter.dim() == 2:
                parameter.mul_(0.2)
    ids = torch.tensor([GPT2Tokenizer.load().encode(PARAGRAPH)])
    assert ids.size(1) > 60
    compare(theirs, tmp_path, ids, 100, 1e-4)


@pytest.mark.parametrize(
    ("size", "parameters"),
    [
        ("small", 124_439_808),
        ("medium", 354_823_168),
        ("large", 774_030_080),
        ("xl", 1_557_611_200),
    ],
)
def test_parameter_counts(size: str, parameters: int) -> None:
    """Catches a bias too many, an untied head, a wrong width; nothing is allocated."""
    with torch.device("meta"):
        model = GPT2Model(getattr(GPT2Config, f"gpt2_{size}")())
    assert sum(p.numel() for p in model.parameters()) == parameters
