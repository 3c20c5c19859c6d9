"""Problem 06: the feed-forward network and its activation. Shapes: B batch, T tokens, C n_embd."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NewGELU(nn.Module):
    """GELU in the tanh form that GPT-2 was trained with, not the erf form.

    Both are from Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".
    """

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))): any shape and dtype → the same."""
        # TODO 1: compute the formula in the docstring
        raise NotImplementedError("TODO 1: NewGELU.forward")


class FeedForward(nn.Module):
    """Widen each token, apply the activation, narrow it again: (B, T, C) → (B, T, C).

    Attributes: `c_fc` nn.Linear(C, n_inner), `act` NewGELU, `c_proj` nn.Linear(n_inner, C), `drop`
    nn.Dropout. Problem 12 loads the checkpoint's tensors under `c_fc` and `c_proj`.
    """

    def __init__(self, n_embd: int, n_inner: int, dropout: float = 0.1):
        super().__init__()
        # TODO 2: create c_fc, act, c_proj and drop
        raise NotImplementedError("TODO 2: FeedForward.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """drop(c_proj(act(c_fc(x)))): (B, T, C) → (B, T, C)."""
        # TODO 3: apply the four in order
        raise NotImplementedError("TODO 3: FeedForward.forward")
