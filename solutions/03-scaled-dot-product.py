"""Problem 03: scaled dot-product attention.

Shapes: T queries, S keys, D n_embd (the width of one query vector, d_k).
"""

import math

import torch
from torch import Tensor, nn


class ScaledDotProductAttention(nn.Module):
    """softmax(q kᵀ / √D) v, and the weights it used ("Attention Is All You Need", section
    3.2.1).
    """

    def __init__(self, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # Step 1: √d_k undoes the growth of a dot product's spread with its number of terms
        self.scale = 1.0 / math.sqrt(n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend: q (…, T, D), k (…, S, D), v (…, S, D) → output (…, T, D), weights (…, T, S).

        mask: bool, broadcasts to (…, T, S), True = may attend. The weights are the ones used, after
        dropout.
        """
        # Step 2: one score per pair of query and key, scaled before anything else sees it
        scores = q @ k.transpose(-2, -1) * self.scale  # (…, T, S)
        # Step 3: exp(−inf) is exactly 0, and the weights that are left still sum to 1
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        # Step 4: over keys; dropout comes after, on the weights
        weights = self.dropout(torch.softmax(scores, dim=-1))  # (…, T, S)
        # Step 5: the weights go out as well, for whoever wants to look at them
        return weights @ v, weights  # (…, T, D), (…, T, S)
