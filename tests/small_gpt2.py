"""Small models, and the real vocabulary where it can be found, for the tests of `gpt2`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from gpt2.model import GPT2Config, GPT2Model

ROOT = Path(__file__).resolve().parents[1]
# Sizes that all differ, so that a mixed-up one fails
SIZES = {"vocab_size": 97, "n_positions": 23, "n_embd": 20, "n_layer": 3, "n_head": 5}


def tiny(seed: int = 0, **sizes: int) -> GPT2Model:
    """A model whose weights are large enough that greedy text varies; in eval mode."""
    torch.manual_seed(seed)
    model = GPT2Model(GPT2Config(**(SIZES | sizes)))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.4)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def hugging_face(seed: int = 0, **sizes: int):
    """The same, made by Hugging Face: an oracle that shares no code with ours."""
    from transformers import GPT2Config as TheirConfig
    from transformers import GPT2LMHeadModel

    torch.manual_seed(seed)
    config = TheirConfig(
        **(SIZES | sizes), initializer_range=0.4, bos_token_id=None, eos_token_id=None
    )
    model = GPT2LMHeadModel(config)
    with (
        torch.no_grad()
    ):  # its biases start at zero and its norms at one, which would hide mistakes
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def prompt(B: int = 2, T: int = 7, seed: int = 1, V: int = SIZES["vocab_size"]) -> torch.Tensor:
    """Random ids (B, T)."""
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(seed))


def use_bpe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiktoken find GPT-2's vocabulary, or skip and say where it was looked for."""
    beside = ROOT.parent / "shared" / "data" / "tiktoken"
    folder = Path(os.environ.get("TIKTOKEN_CACHE_DIR") or beside)
    if not (folder / "6d1cbeee0f20b3d9449abfede4726ed8212e3aee").is_file():
        pytest.skip(f"GPT-2's vocabulary is not in {folder} (TIKTOKEN_CACHE_DIR names another)")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(folder))


def char_tokenizer(characters: str, end_of_text: bool = False):
    """A character-level tokenizer in the form that the bundled model's has."""
    from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    from gpt2.text.tokenizers import END_OF_TEXT, JSONTokenizer

    backend = Backend(models.WordLevel({char: i for i, char in enumerate(characters)}))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    if end_of_text:
        backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return JSONTokenizer(backend)


def byte_tokenizer(extra: int = 40):
    """A byte-level BPE with a few merges, trained on the spot, as a `tokenizer.json` describes
    it.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers, trainers

    from gpt2.text.tokenizers import END_OF_TEXT, JSONTokenizer

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=256 + extra,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(
        ["To be, or not to be, that is the question: 日本 naïve"] * 3, trainer
    )
    return JSONTokenizer(backend)
