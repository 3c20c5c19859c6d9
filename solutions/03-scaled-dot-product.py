"""Problem 03: scaled dot-product attention.

Shapes: T queries, S keys, D n_embd (the width of one query vector, d_k), E the width of one value.
"""

import math

import torch
from torch import Tensor, nn


class ScaledDotProductAttention(nn.Module):
    """softmax(q kᵀ / √D) v, and the weights used ("Attention Is All You Need", section 3.2.1).

    n_embd is the width of one query vector: in problem 04 that is one head's width, not the
    model's.
    """

    def __init__(self, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # Step 1: a dot product's standard deviation grows as √D; dividing by √D undoes that
        self.scale = 1.0 / math.sqrt(n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend: q (…, T, D), k (…, S, D), v (…, S, E) → output (…, T, E), weights (…, T, S).

        mask: bool, broadcasts to (…, T, S), True = may attend. The weights are the ones used, after
        dropout.
        """
        # Step 2: one score per pair of query and key, scaled before the mask and the softmax
        scores = q @ k.transpose(-2, -1) * self.scale  # (…, T, S)
        # Step 3: exp(−inf) is exactly 0, and the remaining weights still sum to 1
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        # Step 4: the softmax runs over keys; dropout comes after it, on the weights
        weights = self.dropout(torch.softmax(scores, dim=-1))  # (…, T, S)
        # Step 5: the weights are returned as well, so that a caller can look at them
        return weights @ v, weights  # (…, T, E), (…, T, S)
