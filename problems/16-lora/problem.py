"""Problem 16: LoRA, an update of low rank beside frozen weights.

Shapes: (…, in) the rows that a linear layer reads, (…, out) those it writes, r the rank.
"""

import math

import torch
from torch import Tensor, nn

# What peft puts in front of our names: its own two wrappers, then Hugging Face's name of the model.
PREFIX = "base_model.model.transformer."


class LoRALinear(nn.Module):
    """A frozen linear layer and a trained update of rank r beside it: (…, in) → (…, out).

    Attributes: `base` the layer as it was, frozen; `lora_A` nn.Linear(in, r) and `lora_B`
    nn.Linear(r, out), both without bias; `scaling` = alpha / r; `merged`, False at first.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float = 0.0):
        super().__init__()
        # TODO 1: keep the base, and freeze it
        # TODO 2: create lora_A (Kaiming uniform, a = √5) and lora_B (zeros), in the base's dtype
        #         and on its device
        # TODO 3: set scaling and merged, and create the dropout
        raise NotImplementedError("TODO 1: LoRALinear.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """base(x) + scaling · lora_B(lora_A(dropout(x))): (…, in) → (…, out)."""
        # TODO 4: the base's output, and the update's unless it is merged
        raise NotImplementedError("TODO 4: LoRALinear.forward")

    def merge(self) -> None:
        """Add the update to the base's weight; nothing happens when it is there already."""
        # TODO 5: add what the update does to the weight, (out, in), in place and without a graph
        raise NotImplementedError("TODO 5: LoRALinear.merge")

    def unmerge(self) -> None:
        """Take the update out of the base's weight again; nothing happens when it is not there."""
        # TODO 6: the way back
        raise NotImplementedError("TODO 6: LoRALinear.unmerge")


def add_lora(
    model: nn.Module,
    rank: int = 8,
    alpha: float = 16,
    dropout: float = 0.0,
    targets: tuple[str, ...] = ("c_attn",),
) -> list[str]:
    """Put a LoRALinear in place of each linear layer whose name ends in a target: their names.

    A target is the last part of a name. ValueError, before anything changes, for a target that no
    linear layer is called, and for `lm_head`, whose weight is the embeddings' table as well.
    """
    # TODO 7: find the layers by name; refuse what can't be replaced, before anything changes
    # TODO 8: freeze everything but A and B, and put the new layers in, in the mode of the old ones
    raise NotImplementedError("TODO 7: add_lora")


def merge_lora(model: nn.Module) -> nn.Module:
    """Put plain linear layers with the update in them in place of all LoRALinear; the model."""
    # TODO 9: merge each, and put its base in its place
    raise NotImplementedError("TODO 9: merge_lora")


def adapter_state(model: nn.Module) -> dict[str, Tensor]:
    """All A (r, in) and B (out, r), named by peft: `PREFIX` + `h.0.attn.c_attn.lora_A.weight`."""
    # TODO 10: the tensors of all LoRALinear, by name, and nothing of the base
    raise NotImplementedError("TODO 10: adapter_state")


def load_adapter_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy an adapter's tensors into the model's A and B. ValueError that names what is missing,
    unexpected or of another shape, and for a model that is merged; then nothing is loaded.
    """
    # TODO 11: look at everything first, then copy
    raise NotImplementedError("TODO 11: load_adapter_state")
