"""Problem 02: attention at its barest. Shapes: B batch, T tokens, C n_embd."""

import torch
from torch import Tensor, nn


class SimpleAttention(nn.Module):
    """One head without scaling or mask: every token attends to all: (B, T, C) → (B, T, C).

    Attributes: `query`, `key`, `value`, each nn.Linear(C, C). The tests set weights under these
    names.
    """

    def __init__(self, n_embd: int):
        super().__init__()
        # Step 1: three projections of the same token: what it looks for, what it offers, and
        # what it passes on
        self.query = nn.Linear(n_embd, n_embd)
        self.key = nn.Linear(n_embd, n_embd)
        self.value = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q Kᵀ) V, the softmax over keys: (B, T, C) → (B, T, C)."""
        # Step 2: every token gets a query, a key and a value
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, C) each
        # Step 3: row i, column j says how well key j fits query i
        scores = q @ k.transpose(-2, -1)  # (B, T, T)
        # Step 4: the softmax runs over keys (the last axis), so that each query's weights sum to 1
        weights = torch.softmax(scores, dim=-1)  # (B, T, T)
        # Step 5: the result is an average of the values, weighted by how well the keys fit
        return weights @ v  # (B, T, C)
