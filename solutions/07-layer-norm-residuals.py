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
        # Step 1: these are parameters: a plain tensor would be neither trained, saved nor moved
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """weight · (x − mean) / √(variance + eps) + bias, over the last axis: (…, C) → (…, C)."""
        # Step 2: PyTorch's kernel divides by C (the biased variance), adds eps under the
        # root, sums in float32
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class ResidualBlock(nn.Module):
    """Pre-norm residual: the sublayer reads a normalized copy, the stream itself is only added to.

    Attribute: `ln` LayerNorm.
    """

    def __init__(self, n_embd: int, layer_norm_epsilon: float = 1e-5):
        super().__init__()
        # Step 3: the norm belongs to the branch, not to the stream
        self.ln = LayerNorm(n_embd, layer_norm_epsilon)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x + sublayer(ln(x)): (B, T, C) → (B, T, C)."""
        # Step 4: x passes through unchanged, so gradients reach the first layer undiminished
        return x + sublayer(self.ln(x))
