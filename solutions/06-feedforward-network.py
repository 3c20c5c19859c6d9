"""Problem 06: the feed-forward network and its activation. Shapes: B batch, T tokens, C n_embd."""

import torch.nn.functional as F
from torch import Tensor, nn


class NewGELU(nn.Module):
    """GELU in the tanh form that GPT-2 was trained with, not the erf form.

    Both are from Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".
    """

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))): any shape and dtype → the same."""
        # Step 1: written out, it takes eight passes over memory; PyTorch's kernel takes one
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Widen each token, apply the activation, narrow it again: (B, T, C) → (B, T, C).

    Attributes: `c_fc` nn.Linear(C, n_inner), `act` NewGELU, `c_proj` nn.Linear(n_inner, C), `drop`
    nn.Dropout. Problem 12 loads the checkpoint's tensors under `c_fc` and `c_proj`.
    """

    def __init__(self, n_embd: int, n_inner: int, dropout: float = 0.1):
        super().__init__()
        # Step 2: up to n_inner features, each with its own activation, and back to the
        # stream's width
        self.c_fc = nn.Linear(n_embd, n_inner)
        self.act = NewGELU()
        self.c_proj = nn.Linear(n_inner, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """drop(c_proj(act(c_fc(x)))): (B, T, C) → (B, T, C)."""
        # Step 3: without the activation the two layers would collapse into one matrix
        return self.drop(self.c_proj(self.act(self.c_fc(x))))
