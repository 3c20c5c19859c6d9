"""A GPT-2 to read and to run: `gpt2.model` is the model, the wings around it load, write, train."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gpt2.common import moved

if TYPE_CHECKING:
    from gpt2.cache import KVCache
    from gpt2.formats.opening import load_tokenizer
    from gpt2.generation.generating import generate, generate_batch, stream
    from gpt2.inference.engine import prepare
    from gpt2.model import GPT2Config, GPT2Model

# Where each name comes from. Importing one imports torch, so it happens on first use.
_HOME = {
    "GPT2Config": "gpt2.model",
    "GPT2Model": "gpt2.model",
    "KVCache": "gpt2.cache",
    "generate": "gpt2.generation.generating",
    "generate_batch": "gpt2.generation.generating",
    "load_tokenizer": "gpt2.formats.opening",
    "prepare": "gpt2.inference.engine",
    "stream": "gpt2.generation.generating",
}

__all__ = [
    "GPT2Config",
    "GPT2Model",
    "KVCache",
    "generate",
    "generate_batch",
    "load_tokenizer",
    "prepare",
    "stream",
]


def __getattr__(name: str) -> object:
    if f"{__name__}.{name}" in moved.MOVED:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


moved.install()
