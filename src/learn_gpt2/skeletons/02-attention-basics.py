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
        # TODO 1: create query, key and value
        raise NotImplementedError("TODO 1: SimpleAttention.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q Kᵀ) V, the softmax over keys: (B, T, C) → (B, T, C)."""
        # TODO 2: compute the queries, the keys and the values of all tokens
        # TODO 3: score every query against every key
        # TODO 4: turn each query's scores into weights that sum to 1
        # TODO 5: return the weighted average of the values
        raise NotImplementedError("TODO 2: SimpleAttention.forward")
