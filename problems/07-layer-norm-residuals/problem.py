"""Problem 07: layer normalization and residuals. Shapes: B batch, T tokens, C n_embd."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Bring each token's C numbers to mean 0 and variance 1, then apply a learned scale and shift.

    From Ba, Kiros & Hinton 2016, "Layer Normalization".

    Attributes: `weight` (C,) of ones, `bias` (C,) of zeros, `eps`. Problem 12 loads the
    checkpoint's tensors under `weight` and `bias`.
    """

    def __init__(self, n_embd: int, eps: float = 1e-5):
        super().__init__()
        # TODO 1: create weight, bias and eps
        raise NotImplementedError("TODO 1: LayerNorm.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """weight · (x − mean) / √(variance + eps) + bias, over the last axis: (…, C) → (…, C)."""
        # TODO 2: normalize the last dimension, then scale and shift
        raise NotImplementedError("TODO 2: LayerNorm.forward")


class ResidualBlock(nn.Module):
    """Pre-norm residual: the sublayer reads a normalized copy, the stream itself is only added to.

    Attribute: `ln` LayerNorm.
    """

    def __init__(self, n_embd: int, layer_norm_epsilon: float = 1e-5):
        super().__init__()
        # TODO 3: create ln
        raise NotImplementedError("TODO 3: ResidualBlock.__init__")

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x + sublayer(ln(x)): (B, T, C) → (B, T, C)."""
        # TODO 4: add the sublayer's result for the normalized x to x
        raise NotImplementedError("TODO 4: ResidualBlock.forward")
