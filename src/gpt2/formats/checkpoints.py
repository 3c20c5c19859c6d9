"""Checkpoints in Hugging Face's layout: files → settings and tensors, and a model → files.

A checkpoint is a folder with `config.json` and `model.safetensors`, or with
`model.safetensors.index.json` and the shards it lists. Nothing here imports `transformers`, and
nothing that a file says is believed before it has been compared with the file's size.
"""

from __future__ import annotations

import json
import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gpt2.common.files import (
    END_OF_TEXT_ID,
    HUB_NAMES,
    WEIGHTS,
    download_file,
    folder_written_aside,
    in_a_run,
    read_json,
    short,
    write_json,
    written_aside,
)
from gpt2.formats.bundled import bundled
from gpt2.formats.layout import HEAD, Renamed, language_model
from gpt2.text.roles import Roles

if TYPE_CHECKING:
    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import Tokenizer

INDEX = "model.safetensors.index.json"

# GPT-2 XL's header takes 60 kB; the limit keeps a hostile file from filling the memory with JSON.
MAX_HEADER_BYTES = 8 * 2**20

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HOW_TO_CONVERT = (
    "a pickle can run code when it is opened, so it is never loaded. On a machine where you trust "
    "it: `AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(NEW_FOLDER)` with "
    "transformers writes config.json and model.safetensors"
)


# ------------------------------------------------------------------------------ reading a folder


def open_checkpoint(
    model_name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    """A hub name or a local folder → GPT2Config's arguments, and the language model's tensors by
    the files' own names, each read from the file when it is asked for.

    model_name: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`, any `owner/name` on
    the Hugging Face hub, a folder, a training run's folder, a GGUF file or `bundled`. revision,
    cache_dir and token matter to the hub alone. What is left out (another head, a wrapper's prefix)
    is said as a warning. ValueError that says what is wrong and where, for anything that is not a
    whole GPT-2.
    """
    place = find_checkpoint(model_name, revision=revision, cache_dir=cache_dir, token=token)
    settings, tensors, notes = open_place(place)
    for note in notes:
        warnings.warn(note, LeftOut, stacklevel=2)
    _calls.append(place)
    return settings, tensors


class LeftOut(UserWarning):
    """What a checkpoint holds beside the language model that was loaded."""


_calls: list[Path] = []  # what `open_checkpoint` was asked for inside `watch_calls`


@contextmanager
def watch_calls() -> Iterator[list[Path]]:
    """Inside, the list grows by every place that `open_checkpoint` opens."""
    before = _calls[:]
    _calls.clear()
    try:
        yield _calls
    finally:
        _calls[:] = before


def open_place(
    place: Path,
) -> tuple[dict[str, Any], Mapping[str, Tensor], tuple[str, ...]]:
    """A folder or a GGUF file on this machine → as `open_checkpoint`, and what was left out, a
    line each.
    """
    if place.is_file():
        from gpt2.formats.gguf import open_gguf

        return *open_gguf(place), ()
    settings = read_settings(place / "config.json")
    held = Tensors(_weight_files(place))
    shapes = {key: info.shape for key, info in held.infos.items()}
    tensors, notes = language_model(held, shapes, settings["n_embd"], place)
    names = tensors.names if isinstance(tensors, Renamed) else {key: key for key in held}
    _check_sizes(settings, {name: shapes[key] for name, key in names.items()}, place)
    untied = read_json(place / "config.json").get("tie_word_embeddings") is False
    if untied and not (HEAD in names and len(set(names.values())) == len(held)):
        raise ValueError(
            f"{place / 'config.json'}: tie_word_embeddings is false, and the files hold one table; "
            "this GPT-2 needs a head that is the embeddings' table"
        )
    return settings, tensors, notes


def find_checkpoint(
    model_name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    token: str | bool | None = None,
) -> Path:
    """A hub name or a local path → the folder or GGUF file on this machine, downloaded when need
    be; of a training run, the checkpoint in it.
    """
    path = find_local(model_name)
    if path is None:
        return _download(hub_repository(model_name), revision, cache_dir, token)
    return in_a_run(path) if path.is_dir() else path


BUNDLED = "bundled"  # the name of the model that comes with this package


def hub_repository(name: str | os.PathLike[str]) -> str:
    """A hub name → its repository there."""
    return HUB_NAMES.get(os.fspath(name), os.fspath(name))


def find_local(model_name: str | os.PathLike[str]) -> Path | None:
    """A model's or a tokenizer's name → the folder or GGUF file on this machine; None for a name on
    the hub. ValueError that says what was looked for, for anything else.
    """
    name = os.fspath(model_name)
    if not isinstance(name, str) or not name or "\0" in name:
        raise ValueError(f"a model's name is a folder or a name on the hub, got {model_name!r}")
    if name == BUNDLED:
        return bundled()
    path = Path(os.path.expanduser(name))
    if os.path.isdir(path):  # pathlib's would raise for a name that is too long
        return path
    if os.path.isfile(path):
        with path.open("rb") as file:
            start = file.read(8)
        if start.startswith(b"GGUF"):
            return path
        raise ValueError(_why_no_file(path, start))
    if name.lower().endswith(".gguf"):
        raise ValueError(f"no file {name!r}")
    looks_local = path.is_absolute() or name.startswith((".", "~")) or "\\" in name
    if looks_local or not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        raise ValueError(f"no folder {name!r}; a model is a folder with config.json and {WEIGHTS}")
    if "/" not in name and name not in HUB_NAMES:
        raise ValueError(
            f"no model {name!r}: it is neither a folder nor one of {', '.join(HUB_NAMES)}; "
            "any other model on the Hugging Face hub is owner/name"
        )
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """config.json → GPT2Config's arguments.

    ValueError that names the field and its value where the file describes something that this
    GPT-2 does not compute.
    """
    config = read_json(path)

    def require(field: str, default: Any, wanted: tuple[Any, ...]) -> None:
        value = config.get(field, default)
        # `1 == True` in Python, and a config that says 1 for a flag is not one to guess about
        if not any(
            value is want or (value == want and type(value) is type(want)) for want in wanted
        ):
            choices = " or ".join(json.dumps(want) for want in wanted)
            raise ValueError(f"{path}: {field} is {short(value)}; this GPT-2 needs {choices}")

    kind = config.get("model_type")
    if kind != "gpt2":
        family = FAMILIES.get(kind) if isinstance(kind, str) else None
        raise ValueError(
            f"{path}: model_type is {'null' if kind is None else short(kind)}; this GPT-2 needs "
            '"gpt2"' + (f" ({family})" if family else "")
        )
    sizes = {}
    for field, names in SIZE_FIELDS.items():
        said = [(name, config[name]) for name in names if config.get(name) is not None]
        name, value = said[0] if said else (field, config.get(field))
        others = [(key, other) for key, other in said[1:] if other != value and key != "n_ctx"]
        if others:
            key, other = others[0]
            raise ValueError(
                f"{path}: {name} is {short(value)}, and {key}, which means the same, is "
                f"{short(other)}"
            )
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise ValueError(f"{path}: {field} must be a positive int, got {short(value)}")
        sizes[field] = value
    if sizes["n_embd"] % sizes["n_head"]:
        raise ValueError(
            f"{path}: n_embd = {sizes['n_embd']} is not divisible by n_head = {sizes['n_head']}"
        )
    rates = {}
    for field, default in (
        ("resid_pdrop", 0.1),
        ("embd_pdrop", 0.1),
        ("attn_pdrop", 0.1),
        ("layer_norm_epsilon", 1e-5),
    ):
        value = config.get(field, default)
        number = not isinstance(value, bool) and isinstance(value, (int, float))
        low_enough = number and value <= 1  # an epsilon above 1 would drown what it steadies
        if not low_enough or value < 0 or (field == "layer_norm_epsilon" and value == 0):
            raise ValueError(f"{path}: {field} must be a number in [0, 1], got {short(value)}")
        rates[field] = float(value)
    require("activation_function", "gelu_new", TANH_GELUS)
    require("n_inner", None, (None, 4 * sizes["n_embd"]))
    require("scale_attn_weights", True, (True,))
    require("scale_attn_by_inverse_layer_idx", False, (False,))
    require("add_cross_attention", False, (False,))
    require("is_encoder_decoder", False, (False,))
    require("tie_word_embeddings", True, (True, False))  # a head of its own is found by its numbers
    require("quantization_config", None, (None,))
    return sizes | rates


# GPT-2's sizes, and the other names that Hugging Face reads them by; n_ctx is the oldest of them
SIZE_FIELDS = {
    "vocab_size": ("vocab_size",),
    "n_positions": ("n_positions", "max_position_embeddings", "n_ctx"),
    "n_embd": ("n_embd", "hidden_size"),
    "n_layer": ("n_layer", "num_hidden_layers"),
    "n_head": ("n_head", "num_attention_heads"),
}
# The names of one function: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))
TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
# Models that are easily mistaken for a GPT-2, and why they are not
FAMILIES = {
    "gpt_neo": "GPT-Neo attends to a window in every other layer",
    "gptj": "GPT-J turns its queries and keys by their positions",
    "gpt_neox": "GPT-NeoX turns its queries and keys by their positions",
    "gpt_bigcode": "SantaCoder and StarCoder share keys and values among heads",
    "openai-gpt": "GPT-1 normalizes after each sublayer",
    "opt": "OPT has another activation",
    "bloom": "BLOOM has no table of positions",
    "imagegpt": "ImageGPT has another norm",
    "llama": "Llama has other norms, positions and activations",
    "jais": "Jais has no table of positions and another activation",
}


def _check_sizes(
    settings: dict[str, Any], held_shapes: Mapping[str, tuple[int, ...]], folder: Path
) -> None:
    """Refuse a config that asks for a larger model than the files hold, before one is built.

    The caller still has to check each tensor's name and shape.
    """
    shapes = {key.removeprefix("transformer."): shape for key, shape in held_shapes.items()}
    C = settings["n_embd"]
    for name, field in (("wte.weight", "vocab_size"), ("wpe.weight", "n_positions")):
        wanted = (settings[field], C)
        if name not in shapes:
            raise ValueError(f"{folder} does not hold a GPT-2: missing {name}")
        if shapes[name] != wanted:
            raise ValueError(
                f"{folder}: {name} is {shapes[name]}, but config.json's {field} and n_embd ask "
                f"for {wanted}"
            )
    wide = shapes.get("h.0.attn.c_attn.weight")
    if wide == (3 * C, C):
        raise ValueError(
            f"{folder}: h.0.attn.c_attn.weight is {wide}, as nn.Linear (and nanoGPT) has it; "
            f"Hugging Face's GPT-2 stores {(C, 3 * C)}: transpose c_attn, c_proj and c_fc"
        )
    blocks = 1 + max(
        (int(m[1]) for name in shapes if (m := re.match(r"h\.(\d{1,9})\.", name))), default=-1
    )
    if settings["n_layer"] > blocks:
        raise ValueError(
            f"{folder}: config.json says n_layer = {settings['n_layer']}, but the files hold "
            f"{blocks} blocks: missing h.{blocks}.ln_1.weight and what follows"
        )
    asked = shapes["wte.weight"][0] * C + settings["n_layer"] * 12 * C * C
    held = sum(math.prod(shape) for shape in shapes.values())
    # A factor of four, because a file that only lacks a tensor or two gets a better message later
    if asked > 4 * held:
        raise ValueError(
            f"{folder}: config.json describes a model of {asked} numbers, the files hold {held}"
        )


# ------------------------------------------------------------------------- reading safetensors


class TensorInfo(NamedTuple):
    """What a file says about one tensor."""

    dtype: str
    shape: tuple[int, ...]
    path: Path


class Tensors(Mapping[str, Tensor]):
    """Tensors of one or several safetensors files, by name; each is mapped when asked for.

    A file is opened again for every tensor: a mapping that stays open counts all pages ever read
    as this process's memory, so that loading a model would cost it twice.
    """

    def __init__(self, files: Iterable[Path]):
        self.infos: dict[str, TensorInfo] = {}
        for path in files:
            for key, info in read_header(path).items():
                if key in self.infos:
                    raise ValueError(f"{path} and {self.infos[key].path} both hold {key}")
                self.infos[key] = info

    def __getitem__(self, key: str) -> Tensor:
        from safetensors import SafetensorError, safe_open

        path = self.infos[key].path
        try:
            with safe_open(path, framework="pt") as file:
                return file.get_tensor(key)
        except (SafetensorError, RuntimeError, MemoryError) as error:  # the last two: no memory
            raise ValueError(f"{path}: {key} cannot be read: {error}") from None

    def __contains__(self, key: object) -> bool:
        return key in self.infos  # Mapping's own would read the tensor to see

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


# safetensors' names. Weights are floats; the rest occurs in old mask buffers.
DTYPES = ("F64", "F32", "F16", "BF16")
BUFFER_DTYPES = ("BOOL", "U8", "I8", "I16", "I32", "I64")
BUFFERS = (".attn.bias", ".attn.masked_bias")


def read_header(path: Path) -> dict[str, TensorInfo]:
    """A safetensors file → what its header says, once every word of it fits the file.

    Layout: 8 bytes, the header's length n (little-endian); n bytes of JSON, {name: {dtype, shape,
    data_offsets}}; the data without gaps. https://github.com/huggingface/safetensors#format
    The library refuses what does not fit together; here is added what it takes or can't explain:
    other formats, headers of up to 100 MB, names that occur twice, and numbers that are not floats.
    """
    from safetensors import SafetensorError, safe_open

    def refuse(reason: str) -> ValueError:
        return ValueError(f"{path} is not a whole safetensors file: {reason}")

    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{path.parent} has no {path.name}") from None
    with file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) == 8 and length <= min(size - 8, MAX_HEADER_BYTES):
            text = file.read(length)
        # only now: the length of a header may begin as a pickle or a web page does
        elif reason := _foreign(start):
            raise refuse(reason)
        elif len(start) < 8 or length > size - 8:
            raise refuse(f"its header should take {length} bytes, the file has {size}")
        else:
            raise refuse(f"its header claims {length} bytes; at most {MAX_HEADER_BYTES} are read")
    infos = {}
    try:
        with safe_open(path, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (it is not a mapping)
                entry = opened.get_slice(name)
                infos[name] = TensorInfo(entry.get_dtype(), tuple(entry.get_shape()), path)
        json.loads(text, object_pairs_hook=_no_repeats)
    except (MemoryError, RecursionError, RuntimeError) as error:
        raise ValueError(f"{path}: its header cannot be read: {error}") from None
    except (SafetensorError, ValueError) as error:
        words = str(error).removeprefix("Error while deserializing header: ")
        if "not fully covered" in words:
            raise refuse(
                f"the file holds {size - 8 - length} bytes of data, which is not what its header "
                "describes; a download or a copy that was cut off looks like this"
            ) from None
        raise refuse(f"its header cannot be read or does not fit: {short(words)}") from None
    for name, info in infos.items():
        known = (*DTYPES, *BUFFER_DTYPES) if name.endswith(BUFFERS) else DTYPES
        if info.dtype not in known:
            raise refuse(f"{short(name)} has dtype {short(info.dtype)}, not {', '.join(DTYPES)}")
    return infos


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """json's hook for objects: one whose names repeat has no single meaning."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _foreign(start: bytes) -> str | None:
    """The first bytes of a file → what it is instead of safetensors, if that can be told."""
    if start.startswith(b"PK\x03\x04") or re.match(rb"\x80[\x02-\x05]", start):
        return f"it is a PyTorch pickle; {HOW_TO_CONVERT}"
    for magic, what in (
        (b"GGUF", "it is a GGUF file; name it itself, not its folder, and with its own ending"),
        (b"version ", "it is a Git LFS pointer; the weights themselves were never fetched"),
        (b"\x89HDF", "it is an HDF5 (Keras) file"),
        (b"<", "it is a web page or XML"),
    ):
        if start.startswith(magic):
            return what
    return None


def _weight_files(folder: Path) -> list[Path]:
    """The folder's safetensors files; for shards, the index has been compared with them."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if not (folder / INDEX).is_file():
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in PICKLES)
        if pickles:
            raise ValueError(f"{folder} has no {WEIGHTS}, only {pickles[0]}: {HOW_TO_CONVERT}")
        raise ValueError(f"{folder} has no {WEIGHTS} (nor {INDEX})")
    files, listed = _read_index(folder / INDEX)
    held = Tensors(files).infos
    for key, name in listed.items():
        if key not in held or held[key].path.name != name:
            raise ValueError(f"{folder / INDEX} looks for {short(key)} in {name}; it is not there")
    if extra := [key for key in held if key not in listed]:
        raise ValueError(f"{folder / INDEX} does not list {short(extra[0])}, which a shard holds")
    return files


def _read_index(path: Path) -> tuple[list[Path], dict[str, str]]:
    """model.safetensors.index.json → the shards, and {tensor: shard's name}."""
    listed = read_json(path).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise ValueError(f"{path} has no weight_map")
    for name in listed.values():
        # a plain name only: an index must not send the reader to files elsewhere
        if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise ValueError(f"{path}: {short(name)} is not the name of a safetensors file")
    return [path.parent / name for name in sorted(set(listed.values()))], listed


def _why_no_file(path: Path, start: bytes) -> str:
    """A file that is not a model, and its first bytes → the message."""
    if path.suffix.lower() in PICKLES:
        return f"{path} is a pickle: {HOW_TO_CONVERT}"
    if path.suffix.lower() == ".gguf":
        return f"{path} is not a GGUF file: it begins with {start[:4]!r}"
    if foreign := _foreign(start):
        return f"{path} is not a folder: {foreign}"
    return f"{path} is a file; give the folder that holds config.json and {WEIGHTS}"


# ------------------------------------------------------------------------------------- the hub


def _download(
    repo: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, token: Any
) -> Path:
    """Fetch a checkpoint's config and weights into the hub's cache → their folder there."""
    options = {"revision": revision, "cache_dir": cache_dir, "token": token}
    config = download_file(repo, "config.json", **options)
    if config is None:
        raise ValueError(f"{repo} on the hub has no config.json")
    if download_file(repo, WEIGHTS, **options) is None:
        index = download_file(repo, INDEX, **options)
        if index is None:
            raise ValueError(
                f"{repo} on the hub has neither {WEIGHTS} nor {INDEX}; its pickles, if any, are "
                f"not loaded: {HOW_TO_CONVERT}"
            )
        for shard in _read_index(index)[0]:
            if download_file(repo, shard.name, **options) is None:
                raise ValueError(f"{repo} on the hub lacks {shard.name}, which its index lists")
    return config.parent


# ---------------------------------------------------------------------------- without random values


class _NoRandomValues(TorchFunctionMode):
    """Torch's random in-place functions write nothing, or a constant where a loop waits for it."""

    # torch.nn.init's functions that are not random ones
    PLAIN = frozenset({"zeros_", "ones_", "constant_", "eye_", "dirac_"})

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if getattr(func, "__module__", None) == "torch.nn.init" and name not in self.PLAIN:
            return args[0] if args else kwargs["tensor"]
        # `trunc_normal_` draws until every value lies in bounds, so these two do get a value: the
        # mean, or the lower end
        if func is Tensor.normal_:
            return args[0].fill_(kwargs.get("mean", args[1] if len(args) > 1 else 0.0))
        if func is Tensor.uniform_:
            return args[0].fill_(kwargs.get("from", args[1] if len(args) > 1 else 0.0))
        return func(*args, **kwargs)


@contextmanager
def skip_init() -> Iterator[None]:
    """Inside, torch's random initialization costs nothing and draws nothing.

    For a model whose weights are about to be loaded. Zeros, ones and other constants are set as
    ever.
    """
    with _NoRandomValues():
        yield


# --------------------------------------------------------------------------------------- writing


def save_pretrained(
    model: GPT2Model,
    folder: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype | None = None,
    roles: Roles | None = None,
) -> Path:
    """A model → a folder in Hugging Face's layout, which `transformers` loads to the same logits
    and whose texts it ends where we do.

    roles: of the model's tokens; None: the tokenizer's, or without one those of GPT-2's vocabulary
    where the size is its.

    Writes config.json, generation_config.json, model.safetensors (weights in `dtype`; None: as
    they are) and the tokenizer's files. All of it is written aside first; then the folder appears
    at once, or, where there is one already, its files are replaced one by one, each at once. The
    folder's other files stay.
    """
    if dtype not in (None, torch.float32, torch.float16, torch.bfloat16):
        raise ValueError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    folder = Path(os.path.abspath(folder))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; a checkpoint is a folder")
    from gpt2.formats.parameters import model_tensors

    weights = {
        f"transformer.{name}": tensor.to("cpu", dtype).contiguous()
        for name, tensor in model_tensors(model)
    }
    stored = next(iter(weights.values())).dtype
    with folder_written_aside(folder) as part:
        ids = _special_ids(model, tokenizer, roles)
        kind = str(stored).removeprefix("torch.")
        content = config_of(settings_of(model.config), dtype=kind, **ids)
        write_json(part / "config.json", content)
        write_json(part / "generation_config.json", ids)
        save_tensors(weights, part / WEIGHTS, {"format": "pt"})
        if tokenizer is not None:
            tokenizer.save(part)
    return folder


def save_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, metadata: dict[str, str] | None = None
) -> None:
    """Tensors → a safetensors file, written as a whole."""
    from safetensors.torch import save_file

    with written_aside(path) as part:
        save_file(dict(tensors), part, metadata=metadata)


def _special_ids(
    model: GPT2Model, tokenizer: Tokenizer | None, roles: Roles | None
) -> dict[str, Any]:
    """bos_token_id, eos_token_id and, where there is one, pad_token_id."""
    V = model.config.vocab_size
    if roles is None and tokenizer is not None:
        roles = tokenizer.roles
    elif roles is None:
        roles = Roles((END_OF_TEXT_ID,), END_OF_TEXT_ID) if V == END_OF_TEXT_ID + 1 else Roles()
    roles = roles.within(V)
    ids = {
        "bos_token_id": roles.bos,
        "eos_token_id": list(roles.eos) if len(roles.eos) > 1 else roles.end,
    }
    return ids if roles.pad is None else ids | {"pad_token_id": roles.pad}


def config_of(settings: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """GPT2Config's arguments → config.json's content, and what else is given."""
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        **settings,
        "n_inner": None,
        "activation_function": "gelu_new",
        "tie_word_embeddings": True,
        **more,
    }


def settings_of(config: Any) -> dict[str, Any]:
    """A GPT2Config → its arguments."""
    fields = "vocab_size n_positions n_embd n_layer n_head resid_pdrop embd_pdrop attn_pdrop"
    return {field: getattr(config, field) for field in (*fields.split(), "layer_norm_epsilon")}
