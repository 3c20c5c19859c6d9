"""Problem 05: causal attention with a KV cache.

Shapes: B batch, T new tokens, S = past + T keys, C n_embd, H n_head, D head_dim = C // H.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.model import MultiHeadAttention


class CausalMultiHeadAttention(MultiHeadAttention):
    """Attention in which position i sees only positions ≤ i: (B, T, C) → (B, T, C).

    Attributes: those of MultiHeadAttention, and `n_positions`. The mask is not a parameter and
    not in state_dict(): problem 12 loads the checkpoint's weights, and a mask is not a weight.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_positions: int,
        dropout: float = 0.1,
        attn_dropout: float | None = None,
    ):
        # TODO 1: let the parent create its modules; set n_positions
        raise NotImplementedError("TODO 1: CausalMultiHeadAttention.__init__")

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attend causally: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None. Its `append(keys, values)` stores the new ones
        (B, H, T, D) and returns all keys and all values up to now (B, H, S, D); the T queries are
        the last T of the S positions. ValueError that names both numbers when S > n_positions.
        """
        # TODO 2: compute q, k and v and split them into heads, as in problem 04
        # TODO 3: with a cache, append k and v to it and continue with everything that it returns
        # TODO 4: if S > n_positions, raise a ValueError that names both numbers
        # TODO 5: let each query attend to its own and earlier positions only (with a cache, S > T)
        # TODO 6: merge the heads, project, drop out
        raise NotImplementedError("TODO 2: CausalMultiHeadAttention.forward")
