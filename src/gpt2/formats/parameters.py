"""A model's tensors by name, however the model's parts were written.

The contract fixes the names of a model's modules and parameters. It fixes neither the order in
which they are made nor how the mapping of `from_pretrained` spells its keys. Code that needs a
tensor by its name uses this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

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
