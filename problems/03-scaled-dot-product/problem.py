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
        # TODO 1: keep what forward needs: the scale and a dropout layer
        raise NotImplementedError("TODO 1: ScaledDotProductAttention.__init__")

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend: q (…, T, D), k (…, S, D), v (…, S, E) → output (…, T, E), weights (…, T, S).

        mask: bool, broadcasts to (…, T, S), True = may attend. The weights are the ones used, after
        dropout.
        """
        # TODO 2: compute the scaled scores
        # TODO 3: with a mask, make the scores that may not be attended to -inf
        # TODO 4: turn scores into weights, then drop out
        # TODO 5: return the output and the weights
        raise NotImplementedError("TODO 2: ScaledDotProductAttention.forward")
