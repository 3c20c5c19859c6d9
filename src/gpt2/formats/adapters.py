"""LoRA adapters in peft's format: a folder with adapter_config.json and adapter_model.safetensors.

A folder from elsewhere is untrusted. What of peft's options can be computed exactly with one rank
and one scaling for all layers is read; everything else is a ValueError that names the file, the
field and its value, and so is a tensor that is missing, not expected, misshapen or not finite.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import folder_written_aside, read_json, short, write_json

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model.transformer."
ENDS = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
MAX_RANK = 4096
MAX_PATTERN = 200  # characters of a regular expression
LARGEST = 1e6  # for alpha: far beyond what anybody trains with
# options of peft that change what an adapter computes: the value that leaves it plain LoRA
PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "use_dora": (False, None),
    "lora_bias": (False, None),
    "trainable_token_indices": (None, [], {}),
    "target_parameters": (None, []),
    "layer_replication": (None, []),
    "alora_invocation_tokens": (None, []),
    "use_qalora": (False, None),
    "use_bdlora": (False, None),
    "kasa_config": (None, {}),
    "velora_config": (None, {}),
    "monteclora_config": (None, {}),
    "arrow_config": (None, {}),
}
# the ways of starting that leave the base's weights as they are
STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
# what says how an adapter was made, or for which layout, and changes nothing about what it computes
SILENT = frozenset(
    (
        *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path"),
        *("revision", "inference_mode", "r", "target_modules", "exclude_modules", "lora_alpha"),
        *("lora_dropout", "fan_in_fan_out", "use_rslora", "init_lora_weights", "loftq_config"),
        *("layers_to_transform", "layers_pattern", "megatron_config", "megatron_core"),
        *("eva_config", "corda_config", "lora_ga_config", "qalora_group_size"),
        *("ensure_weight_tying", "runtime_config"),
    )
)


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder holds. targets: last parts of the adapted layers' names. state: A and
    B of every layer so called, by peft's names; those that the adapter leaves alone are zeros.
    """

    rank: int
    alpha: float
    dropout: float
    targets: tuple[str, ...]
    state: dict[str, Tensor]


def read_adapter(folder: str | os.PathLike[str], settings: Mapping[str, Any]) -> Adapter:
    """An adapter's folder → what it holds, for a model of these settings (GPT2Config's arguments).

    ValueError that names the file and what is wrong with it, or does not fit the model.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; an adapter is one, with {CONFIG} in it")
    path = folder / CONFIG
    config = read_json(path)
    _check_plain(config, path)
    rank = config.get("r")
    if not _is_int(rank) or not 1 <= rank <= MAX_RANK:
        raise ValueError(f"{path}: r must be an int of 1 … {MAX_RANK}, got {short(rank)}")
    alpha = _number(config, "lora_alpha", path, -LARGEST, LARGEST, 8)
    dropout = _number(config, "lora_dropout", path, 0, 1, 0.0)
    if _flag(config, "use_rslora", path):
        alpha *= math.sqrt(rank)  # its scaling is alpha / √r
    names = adapted(config, settings, path)
    tensors = _tensors(folder)
    wanted = _shapes(names, settings, rank)
    _check_tensors(tensors, wanted, folder)
    targets = tuple(dict.fromkeys(name.rpartition(".")[2] for name in names))
    state = _complete(tensors, targets, settings, rank)
    return Adapter(rank, alpha, dropout, targets, state)


def write_adapter(
    folder: str | os.PathLike[str],
    state: Mapping[str, Tensor],
    alpha: float,
    dropout: float = 0.0,
    base: str | None = None,
) -> Path:
    """A and B by peft's names → a folder that peft loads, written as a whole.

    base: the name of the model that it belongs to. ValueError for a state without A, or with A of
    several ranks.
    """
    from gpt2.formats.checkpoints import save_tensors

    ranks = {len(tensor) for name, tensor in state.items() if name.endswith("lora_A.weight")}
    if len(ranks) != 1:
        raise ValueError(f"an adapter has A of one rank, got {sorted(ranks) or 'no A'}")
    paths = [name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in state]
    rank = ranks.pop()
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": dropout,
        "target_modules": sorted({path.rpartition(".")[2] for path in paths}),
        "bias": "none",
        "fan_in_fan_out": True,  # Hugging Face's GPT-2 stores (in, out)
        "use_rslora": False,
        "init_lora_weights": True,
        "modules_to_save": None,
        "inference_mode": True,
    }
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; an adapter is a folder")
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    with folder_written_aside(folder) as part:
        write_json(part / CONFIG, config)
        save_tensors(plain, part / WEIGHTS, {"format": "pt"})
    return folder


# ── the configuration ───────────────────────────────────────────────────────────────────────────


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(
    config: Mapping[str, Any], name: str, path: Path, low: float, high: float, default: float
) -> float:
    value = config.get(name, default)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(
            f"{path}: {name} must be a number of {low:g} … {high:g}, got {short(value)}"
        )
    return value


def _flag(config: Mapping[str, Any], name: str, path: Path) -> bool:
    value = config.get(name, False)
    if value not in (True, False, None):
        raise ValueError(f"{path}: {name} must be true or false, got {short(value)}")
    return bool(value)


def _check_plain(config: Mapping[str, Any], path: Path) -> None:
    """ValueError for what is not LoRA, or LoRA with more to it."""
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{path}: peft_type must be LORA, got {short(kind)}")
    for name, plain in PLAIN.items():
        value = config.get(name, plain[0])
        if not any(type(value) is type(p) and value == p for p in plain):
            raise ValueError(
                f"{path}: {name} = {short(value)} is not supported: this adapter is more than A, B "
                "and one scaling"
            )
    start = config.get("init_lora_weights", True)
    if not any(type(start) is type(s) and start == s for s in STARTS):
        raise ValueError(
            f"{path}: init_lora_weights = {short(start)} is not supported: that way of starting "
            "changes the base's weights too"
        )
    for name, value in config.items():
        if name not in SILENT and name not in PLAIN and value not in (None, False, [], {}, ""):
            raise ValueError(
                f"{path}: {short(name)} = {short(value)} is an option that is not known here"
            )


def adapted(config: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> list[str]:
    """The names of the linear layers that a configuration adapts, by peft's rules: a list holds
    ends of names, a text is a regular expression for the whole name or `all-linear`.
    """
    targets = config.get("target_modules")
    layers = [f"transformer.h.{i}.{end}" for i in range(settings["n_layer"]) for end in ENDS]
    if isinstance(targets, str) and targets != "all-linear":
        names = _matching(targets, [*layers, "lm_head"], path)
    elif targets == "all-linear":
        names = layers  # peft leaves the head out
    elif isinstance(targets, list) and targets and all(isinstance(t, str) for t in targets):
        known = [*layers, "lm_head", "transformer.wte", "transformer.wpe"]
        for target in targets:
            if not any(_ends(name, target) for name in known):
                raise ValueError(
                    f"{path}: target_modules names {short(target)}, which a GPT-2 does not have; "
                    "it has c_attn, c_proj and c_fc"
                )
        names = [name for name in known if any(_ends(name, target) for target in targets)]
    else:
        raise ValueError(f"{path}: target_modules must be names or a text, got {short(targets)}")
    names = _left(names, config, path)
    for name in names:
        if name not in layers:
            raise ValueError(
                f"{path}: target_modules adapts {name.removeprefix('transformer.')}: the head and "
                "the embeddings share a table, which is not supported"
            )
    if not names:
        raise ValueError(f"{path}: target_modules = {short(targets)} fits no layer of a GPT-2")
    return [name.removeprefix("transformer.") for name in names]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _matching(pattern: str, names: list[str], path: Path) -> list[str]:
    """The names that a regular expression fits as a whole."""
    # one that goes back over what it read can take for ever, and the file is a stranger's
    if len(pattern) > MAX_PATTERN or re.search(r"[+*}]\)?[+*{]|\\[1-9]|\(\?[^:]", pattern):
        raise ValueError(f"{path}: target_modules = {short(pattern)} is too involved an expression")
    repeated = len(re.findall(r"[+*{]", pattern))
    if repeated > 4 or re.search(r"\)[+*{]", pattern):
        raise ValueError(f"{path}: target_modules = {short(pattern)} is too involved an expression")
    try:
        fits = re.compile(pattern).fullmatch
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{path}: target_modules = {short(pattern)} is not a regular expression: {error}"
        ) from None
    return [name for name in names if fits(name)]


def _left(names: list[str], config: Mapping[str, Any], path: Path) -> list[str]:
    """Without the layers that other options leave out."""
    out = config.get("exclude_modules")
    if isinstance(out, list) and all(isinstance(t, str) for t in out):
        names = [name for name in names if not any(_ends(name, t) for t in out)]
    elif isinstance(out, str):
        gone = _matching(out, names, path)
        names = [name for name in names if name not in gone]
    elif out is not None:
        raise ValueError(f"{path}: exclude_modules must be names or a text, got {short(out)}")
    layers, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    if pattern not in (None, [], "", "h", ["h"]):
        raise ValueError(f"{path}: layers_pattern = {short(pattern)}: a GPT-2's layers are in h")
    if layers is None or layers == []:
        return names
    layers = [layers] if _is_int(layers) else layers
    if not isinstance(layers, list) or not all(map(_is_int, layers)):
        raise ValueError(f"{path}: layers_to_transform must be numbers, got {short(layers)}")
    wanted = {f"transformer.h.{i}." for i in layers[:100_000]}
    return [name for name in names if name.startswith(tuple(wanted))]


# ── the tensors ─────────────────────────────────────────────────────────────────────────────────


def _shapes(names: list[str], settings: Mapping[str, Any], rank: int) -> dict[str, tuple[int, int]]:
    """The tensors that adapt these layers: peft's name → shape."""
    C = settings["n_embd"]
    sizes = dict(zip(ENDS, ((C, 3 * C), (C, C), (C, 4 * C), (4 * C, C)), strict=True))
    found = {}
    for name in names:
        inputs, outputs = sizes[name.split(".", 2)[2]]
        found[f"{PREFIX}{name}.lora_A.weight"] = (rank, inputs)
        found[f"{PREFIX}{name}.lora_B.weight"] = (outputs, rank)
    return found


def _tensors(folder: Path) -> Mapping[str, Tensor]:
    """What the folder's file of weights holds."""
    from gpt2.formats.checkpoints import Tensors

    if (folder / WEIGHTS).is_file() or not (folder / PICKLE).is_file():
        return Tensors([folder / WEIGHTS])
    import warnings

    import torch

    path = folder / PICKLE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles that another program wrote
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises almost anything
        reason = short(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise ValueError(f"{path} cannot be read as a file of tensors alone: {reason}") from None
    named = isinstance(found, dict) and all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in found.items()
    )
    if not named:
        raise ValueError(f"{path} holds a {type(found).__name__}, not tensors by name")
    return found


def _check_tensors(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, tuple[int, int]], folder: Path
) -> None:
    """ValueError for names, shapes and numbers that are not those of the adapter."""
    import torch

    for what, names in (
        ("lacks", wanted.keys() - set(tensors)),
        ("holds what has no place in the model:", set(tensors) - wanted.keys()),
    ):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{folder} {what} {short(min(names))}{more}")
    for name, shape in wanted.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape:
            raise ValueError(
                f"{folder}: {name} has the shape {tuple(tensor.shape)}, expected {shape}"
            )
        if not tensor.is_floating_point() or tensor.layout is not torch.strided:
            raise ValueError(f"{folder}: {name} is {tensor.dtype}, not a plain tensor of floats")
        if not tensor.float().isfinite().all():
            raise ValueError(f"{folder}: {name} holds NaN or infinite numbers")


def _complete(
    tensors: Mapping[str, Tensor],
    targets: tuple[str, ...],
    settings: Mapping[str, Any],
    rank: int,
) -> dict[str, Tensor]:
    """A and B in float32 of every layer with a target's name; zeros where the adapter has none,
    which add nothing.
    """
    import torch

    names = [
        f"h.{i}.{end}"
        for i in range(settings["n_layer"])
        for end in ENDS
        if end.rpartition(".")[2] in targets
    ]
    return {
        name: tensors[name].detach().float() if name in tensors else torch.zeros(shape)
        for name, shape in _shapes(names, settings, rank).items()
    }
