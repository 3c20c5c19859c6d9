"""From a name to a model, and from a model to its tensors, whoever wrote the model's pieces.

The contract fixes the names of a model's modules and parameters. It fixes neither the order in
which they are made, nor what `from_pretrained` reads by itself, nor how its mapping spells its
keys. What needs a tensor by its name asks here.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gpt2.formats.checkpoints import WEIGHTS, find_checkpoint, open_checkpoint, skip_init

if TYPE_CHECKING:
    from gpt2.model import GPT2Model

TABLE = "embeddings.wte.weight"  # the tied tensor's own name; lm_head.weight is its second
PARTS = ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")


def tensor_names(n_layer: int) -> dict[str, tuple[str, bool]]:
    """Every tensor of a Hugging Face GPT-2: {their name without `transformer.`: (the name in our
    model, whether one is the other's transpose)}.
    """
    names = {
        "wte.weight": (TABLE, False),
        "wpe.weight": ("embeddings.wpe.weight", False),
    }
    for i in range(n_layer):
        for part in PARTS:
            # their linear layers are Conv1D, which stores (in, out); ours store (out, in)
            names[f"h.{i}.{part}.weight"] = (f"h.{i}.{part}.weight", ".c_" in part)
            names[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", False)
    return names | {name: (name, False) for name in ("ln_f.weight", "ln_f.bias")}


def model_tensors(model: GPT2Model) -> Iterator[tuple[str, Tensor]]:
    """A model → (their name without `transformer.`, the tensor as they lay it out), one by one.

    ValueError that names a tensor that the model does not hold.
    """
    ours = dict(model.named_parameters(remove_duplicate=False))
    for theirs, (name, transpose) in tensor_names(model.config.n_layer).items():
        if name not in ours:
            raise ValueError(f"the model holds no parameter {name}, so it cannot be written")
        tensor = ours[name].detach()
        yield theirs, tensor.t() if transpose else tensor


def parameter_names(model: nn.Module) -> list[str]:
    """The name of each of `model.parameters()`, in their order.

    The table that embeddings and head share is called by the embeddings' name, whichever of the
    two was made first.
    """
    names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in names or name == TABLE:
            names[id(parameter)] = name
    return [names[id(parameter)] for parameter in model.parameters()]


def put_embeddings_first(model: nn.Module) -> None:
    """Let the embeddings stand before the model's other parts, in place.

    `named_parameters()` lists a shared tensor once, under the name that was made first. A model
    whose head came first would list the table as lm_head.weight alone, and whoever looks it up by
    the embeddings' name would not find it.
    """
    parts = model._modules
    if "embeddings" in parts:
        for name in [name for name in parts if name != "embeddings"]:
            parts[name] = parts.pop(name)


@contextmanager
def _embeddings_first(kind: type) -> Iterator[None]:
    """Inside, every new model of this class lists its embeddings first."""
    given = kind.__dict__.get("__init__")
    make = kind.__init__

    def init(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        put_embeddings_first(self)

    kind.__init__ = functools.wraps(make)(init)
    try:
        yield
    finally:
        if given is None:
            del kind.__init__
        else:
            kind.__init__ = given


def load_model(
    name: str | os.PathLike[str],
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    pieces: ModuleType | None = None,
) -> GPT2Model:
    """A folder, a hub name, a training run or a GGUF file → the model, with every weight loaded.

    A folder with one `model.safetensors` (a hub name's and a run's are such folders) is loaded by
    the model's own `from_pretrained`. What that need not understand is read here: GGUF files and
    weights in several files. pieces: a module that holds the model's classes; default: gpt2.model.
    ValueError that says what is wrong, and where.
    """
    pieces = pieces or importlib.import_module("gpt2.model")
    found = find_checkpoint(name)
    if not (found.is_dir() and (found / WEIGHTS).is_file()):
        settings, tensors = open_checkpoint(found)
        return filled_model(settings, tensors, found, dtype, pieces).to(device)
    own = pieces.GPT2Model.from_pretrained
    options = {"dtype": dtype} if "dtype" in inspect.signature(own).parameters else {}
    with _embeddings_first(pieces.GPT2Model):
        model = own(str(found), **options)
    return model.to(device=device, dtype=dtype)


def filled_model(
    settings: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    source: Path,
    dtype: torch.dtype = torch.float32,
    pieces: ModuleType | None = None,
) -> GPT2Model:
    """GPT2Config's arguments and a file's tensors → the model that holds them, in eval mode.

    ValueError that names every tensor that is missing or unexpected, and one of another shape.
    """
    pieces = pieces or importlib.import_module("gpt2.model")
    with skip_init():
        model = pieces.GPT2Model(pieces.GPT2Config(**settings)).to(dtype)
    names = tensor_names(model.config.n_layer)
    ours = dict(model.named_parameters(remove_duplicate=False))
    theirs = {key.removeprefix("transformer."): key for key in tensors}
    theirs = {
        name: key
        for name, key in theirs.items()
        if not name.endswith((".attn.bias", ".attn.masked_bias"))
    }
    head = theirs.pop("lm_head.weight", None)
    wrong = [f"missing {name}" for name in names if name not in theirs]
    wrong += [f"unexpected {key}" for name, key in theirs.items() if name not in names]
    wrong += [f"our model has no {name}" for name, _ in names.values() if name not in ours]
    if wrong:
        raise ValueError(f"{source} does not hold this GPT-2: {'; '.join(wrong)}")
    if head and not torch.equal(tensors[head].to(dtype), tensors[theirs["wte.weight"]].to(dtype)):
        raise ValueError(f"{source}: {head} differs from wte.weight; GPT-2's head is tied to it")
    with torch.no_grad():
        for name, (our_name, transpose) in names.items():
            tensor = tensors[theirs[name]]
            tensor = tensor.t() if transpose and tensor.dim() == 2 else tensor
            if tensor.shape != ours[our_name].shape:
                raise ValueError(
                    f"{source}: {theirs[name]} is {tuple(tensor.shape)} as {our_name}, the config "
                    f"asks for {tuple(ours[our_name].shape)}"
                )
            ours[our_name].copy_(tensor)
    return model.eval()
