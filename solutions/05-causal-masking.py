"""Problem 05: causal attention with a KV cache.

Shapes: B batch, T new tokens, S = past + T keys, C n_embd, H n_head, D head_dim = C // H.
"""

import torch
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
        # Step 1: all modules are inherited; the limit is stored for the check in forward
        super().__init__(n_embd, n_head, dropout, attn_dropout)
        self.n_positions = n_positions

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attend causally: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None. Its `append(keys, values)` stores the new ones
        (B, H, T, D) and returns all keys and all values up to now (B, H, S, D); the T queries are
        the last T of the S positions. ValueError that names both numbers when S > n_positions.
        """
        # Step 2: as in problem 04
        q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))  # (B, H, T, D) each
        # Step 3: keys and values of the past never change, so they are stored, not computed again
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D) each
        # Step 4: beyond n_positions there are no position embeddings
        if k.size(-2) > self.n_positions:
            raise ValueError(
                f"{k.size(-2)} positions are more than n_positions = {self.n_positions}"
            )
        # Step 5: the T queries are the newest of the S positions; all older keys are in their past
        y = self._attend(q, k, v)  # (B, H, T, D)
        # Step 6: as in problem 04
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))  # (B, T, C)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last T of S positions: (B, H, T, D) and S keys → (B, H, T, D)."""
        T, S = q.size(-2), k.size(-2)
        # query i is at position S − T + i, hence the diagonal; a single newest token sees
        # everything
        mask = None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        return self.attention(q, k, v, mask)[0]
