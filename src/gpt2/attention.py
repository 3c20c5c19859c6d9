"""The attention weights of a model: which position looked at which, in every layer and head.

Shapes: L n_layer, H n_head, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gpt2.engine import Inference

if TYPE_CHECKING:
    from gpt2.model import GPT2Model


@contextmanager
def recorded(model: GPT2Model) -> Iterator[list[Tensor]]:
    """While the block runs, each layer's weights (B, H, T, S) go into the list, in the order of
    the forward passes.

    By a forward hook on each `block.attn.attention`: with one there, the attention computes its
    weights instead of calling the fused kernel, which never holds them.
    """
    found: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        found.append(output[1].detach())

    handles = [block.attn.attention.register_forward_hook(keep) for block in model.h]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def attention_weights(model: GPT2Model, ids: Tensor) -> Tensor:
    """One text's attention in every layer and head: ids (T,) or (1, T) → (L, H, T, T) on the CPU.

    [layer, head, i, j] is how much of position i's sum comes from position j. The model runs in
    eval mode and is left as it was. ValueError for more than one text.
    """
    ids = ids[None] if ids.dim() == 1 else ids
    if ids.dim() != 2 or ids.size(0) != 1:
        raise ValueError(f"one text at a time: ids of shape (T,) or (1, T), got {tuple(ids.shape)}")
    with recorded(model) as found, Inference(model):
        model(ids.to(next(model.parameters()).device))
    if len(found) != len(model.h):
        raise ValueError(
            f"{len(model.h)} layers, but {len(found)} gave attention weights: does each call its "
            "`attention` once?"
        )
    return torch.stack([weights[0].float().cpu() for weights in found])  # (L, H, T, T)
