"""What a GPT-2 should compute, by somebody else's code: Hugging Face's model with the same weights,
or tensors that it computed before and that lie beside the weights.

A `Scene` is a prompt and every tensor that `gpt2.validation.stages` compares there. Shapes: B
batch, T tokens, C n_embd, H n_head, D head_dim, L n_layer, V vocab_size, n new tokens.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpt2.formats.checkpoints import BUFFERS, WEIGHTS, Tensors, save_tensors
from gpt2.formats.opening import Opened, open_model

STORED = "validation.safetensors"
MADE_BY = "`gpt2 validate MODEL --store` (with transformers installed) makes it"

PROMPT = "Hello."
LONGER = "What light is there, to see the king and not his crown?"
GPT2_VOCABULARY = 50257
# PROMPT and LONGER in GPT-2's own vocabulary, so that weights without a tokenizer can be validated
GPT2_IDS = {
    PROMPT: [15496, 13],
    LONGER: [2061, 1657, 318, 612, 11, 284, 766, 262, 5822, 290, 407, 465, 12389, 30],
}
MOST_TOKENS = 24  # of the longer text: with so many, a row's tensors stay below 5 kB per token
NEW_TOKENS = 16

ORACLES = ("auto", "transformers", "stored")


@dataclass(frozen=True)
class Scene:
    """A prompt (B, T), and what the oracle computed for it.

    tensors: embeddings, ln_1, c_attn, keys, values, weights, attn, ln_2, mlp and block, all of the
    first block; logits (B, T, V); tokens (B, n), chosen greedily, and token_logits (B, n, V) from
    which they were chosen. Hugging Face's also has blocks (L, B, T, C).
    """

    text: str
    ids: Tensor
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Reference:
    """Scenes, whose they are, and the checkpoint's own weights under our names."""

    oracle: str
    scenes: tuple[Scene, ...]
    weights: Callable[[str], Tensor] = field(repr=False)


def load_reference(
    name: str | os.PathLike[str] | Opened,
    oracle: str = "auto",
    device: torch.device | str = "cpu",
) -> Reference:
    """A model's name, or the model opened → what it should compute, in float32.

    oracle: "transformers", "stored", or "auto", which takes the first that there is. ValueError
    that says what is missing.
    """
    if oracle not in ORACLES:
        raise ValueError(f"oracle must be {', '.join(ORACLES[:-1])} or stored, got {oracle!r}")
    opened = name if isinstance(name, Opened) else open_model(name)
    installed = importlib.util.find_spec("transformers") is not None
    if oracle == "stored" or (oracle == "auto" and not installed):
        return read_stored(opened.place)
    if not installed:
        raise ValueError("the oracle is Hugging Face's GPT-2: `pip install transformers`")
    return ask_transformers(opened, device)


def prompts(opened: Opened) -> list[tuple[str, Tensor]]:
    """`Hello.` (1, T), and a longer text forwards and backwards as a batch (2, T): texts and ids.

    In the model's vocabulary; without one of its own, or where that lacks a character, ids spread
    over the vocabulary stand in.
    """
    found, settings = [], opened.settings
    for text in (PROMPT, LONGER):
        ids = _encode(opened, text)
        if ids is None:
            text = f"{len(text)} ids spread over the vocabulary"
            ids = [(7 + 31 * i) % settings["vocab_size"] for i in range(len(text))]
        ids = ids[: min(MOST_TOKENS, max(1, settings["n_positions"] // 2))]
        found.append((text, [ids]))
    text, (ids,) = found[1]
    found[1] = (f"{text} (forwards and backwards)", [ids, ids[::-1]])
    return [(text, torch.tensor(rows)) for text, rows in found]


def _encode(opened: Opened, text: str) -> list[int] | None:
    if opened.rows == GPT2_VOCABULARY:
        return GPT2_IDS[text]
    try:
        return opened.encode(text)
    except ValueError:
        return None


# -------------------------------------------------------------------------- Hugging Face's GPT-2


def ask_transformers(opened: Opened, device: torch.device | str = "cpu") -> Reference:
    """Run Hugging Face's GPT-2 on the model's weights, in float32, by its plainest attention."""
    import transformers

    folder, settings, tensors = opened.place, opened.settings, opened.tensors
    talk = transformers.utils.logging
    bar, level = talk.is_progress_bar_enabled(), talk.get_verbosity()
    talk.disable_progress_bar()
    talk.set_verbosity_error()
    try:
        # of GGUF their reader wants packages of its own, and names that it doesn't know leave
        # weights random there
        if not opened.plain:
            theirs = _their_model(transformers, settings, tensors)
        else:
            theirs = transformers.GPT2LMHeadModel.from_pretrained(
                folder, dtype=torch.float32, attn_implementation="eager", local_files_only=True
            )
    except Exception as error:  # it checks more of config.json than is read here, in its own way
        reason = " ".join(str(error).split())
        raise ValueError(f"transformers cannot load {folder}: {reason[:300]}") from None
    finally:
        talk.set_verbosity(level)
        if bar:
            talk.enable_progress_bar()
    theirs = theirs.to(device).eval()
    scenes = [
        Scene(text, ids, _watch(theirs, ids.to(device), settings)) for text, ids in prompts(opened)
    ]
    return Reference(f"transformers {transformers.__version__}", tuple(scenes), _weights(tensors))


def _their_model(transformers: Any, settings: dict[str, Any], tensors: Any) -> Any:
    """Their model with these weights."""
    config = transformers.GPT2Config(
        **settings, bos_token_id=None, eos_token_id=None, attn_implementation="eager"
    )
    model = transformers.GPT2LMHeadModel(config)
    weights = {
        f"transformer.{key.removeprefix('transformer.')}": tensors[key]
        for key in tensors
        if key != "lm_head.weight" and not key.endswith(BUFFERS)
    }
    weights["lm_head.weight"] = weights["transformer.wte.weight"]
    model.load_state_dict(weights)
    return model


@torch.no_grad()
def _watch(theirs: Any, ids: Tensor, settings: dict[str, Any]) -> dict[str, Tensor]:
    """Their forward pass, with a hook on every module that we have too → Scene.tensors."""
    first = theirs.transformer.h[0]
    seen: dict[str, Tensor] = {}

    def keep(name: str, i: int = 0) -> Callable:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            seen[name] = output[i] if isinstance(output, tuple) else output

        return hook

    handles = [
        theirs.transformer.drop.register_forward_hook(keep("embeddings")),
        first.ln_1.register_forward_hook(keep("ln_1")),
        first.attn.c_attn.register_forward_hook(keep("c_attn")),
        first.attn.register_forward_hook(keep("attn")),
        first.attn.register_forward_hook(keep("weights", 1)),
        first.ln_2.register_forward_hook(keep("ln_2")),
        first.mlp.register_forward_hook(keep("mlp")),
        *(
            block.register_forward_hook(keep(f"block {i}"))
            for i, block in enumerate(theirs.transformer.h)
        ),
    ]
    try:
        output = theirs(ids, use_cache=True)
    finally:
        for handle in handles:
            handle.remove()
    seen["keys"], seen["values"] = _first_layer(output.past_key_values)
    seen["logits"] = output.logits
    seen["blocks"] = torch.stack([seen.pop(f"block {i}") for i in range(settings["n_layer"])])
    seen["block"] = seen["blocks"][0]
    tokens, token_logits = [], []
    T = ids.size(1)
    for _ in range(min(NEW_TOKENS, settings["n_positions"] - T)):
        logits = theirs(ids, use_cache=False).logits[:, -1]
        token_logits.append(logits)
        tokens.append(logits.argmax(-1))
        ids = torch.cat([ids, tokens[-1][:, None]], 1)
    seen["tokens"] = ids[:, T:]
    seen["token_logits"] = torch.stack(token_logits, 1) if tokens else ids.new_zeros(len(ids), 0, 1)
    return {name: tensor.detach().cpu() for name, tensor in seen.items()}


def _first_layer(cache: Any) -> tuple[Tensor, Tensor]:
    """Keys and values (B, H, T, D) of the first layer, by whatever the version calls them."""
    if hasattr(cache, "layers"):
        return cache.layers[0].keys, cache.layers[0].values
    return cache[0][0], cache[0][1]


def _weights(tensors: Any) -> Callable[[str], Tensor]:
    """A checkpoint's tensors → a function from our parameter's name to the tensor it should be."""
    keys = {key.removeprefix("transformer."): key for key in tensors}

    def weight(name: str) -> Tensor:
        theirs = name.removeprefix("embeddings.").replace("lm_head.weight", "wte.weight")
        tensor = tensors[keys[theirs]]
        return tensor.t() if ".c_" in theirs and tensor.dim() == 2 else tensor

    return weight


# ----------------------------------------------------------------------------------------- stored


def store(folder: str | os.PathLike[str], reference: Reference) -> Path:
    """Write a reference beside the weights it was computed with → the file."""
    folder = Path(folder)
    if folder.is_file():
        raise ValueError(f"{folder} is a file: tensors are stored in a model's folder")
    tensors = {}
    for i, scene in enumerate(reference.scenes):
        tensors[f"{i}.ids"] = scene.ids.contiguous()
        for name, tensor in scene.tensors.items():
            if name != "blocks":  # they say where a difference begins; that isn't worth their size
                tensors[f"{i}.{name}"] = tensor.clone().contiguous()
    metadata = {
        "oracle": reference.oracle,
        "texts": json.dumps([scene.text for scene in reference.scenes]),
        "weights": _digest(folder / WEIGHTS),
    }
    save_tensors(tensors, folder / STORED, metadata)
    return folder / STORED


def read_stored(folder: Path) -> Reference:
    """The reference stored in a model's folder.

    ValueError when there is none, or when it was computed with other weights.
    """
    from safetensors import SafetensorError, safe_open

    if folder.is_file():
        raise ValueError(f"{folder} is a file, which holds no reference: install transformers")
    path = folder / STORED
    if not path.is_file():
        raise ValueError(f"{folder} has no {STORED}: {MADE_BY}; or install transformers")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            texts = json.loads(metadata["texts"])
            held: list[dict[str, Tensor]] = [{} for _ in texts]
            for key in file.keys():  # noqa: SIM118 (it is not a dict)
                number, _, name = key.partition(".")
                held[int(number)][name] = file.get_tensor(key)
        scenes = tuple(
            Scene(text, tensors.pop("ids"), tensors)
            for text, tensors in zip(texts, held, strict=True)
        )
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; {MADE_BY}") from None
    if metadata.get("weights") != _digest(folder / WEIGHTS):
        raise ValueError(f"{path} was computed with other weights than {WEIGHTS}: {MADE_BY}")
    return Reference(
        f"stored, computed by {metadata.get('oracle')}",
        scenes,
        _weights(Tensors([folder / WEIGHTS])),
    )


def _digest(path: Path) -> str:
    """A file's SHA-256."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}, which stored tensors belong to") from (
            None
        )
