"""Problem 04: multi-head attention.

Shapes: B batch, T tokens, C n_embd, H n_head, D head_dim = C // H.
"""

from torch import Tensor, nn

from gpt2.model import ScaledDotProductAttention


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on D columns of the projections: (B, T, C) → (B, T, C).

    Each head reads all C numbers of a token: its D query, key and value columns are projections of
    them.

    Attributes: `n_head`, `head_dim`, `c_attn` nn.Linear(C, 3C) for query, key, value in that order,
    `attention` ScaledDotProductAttention for vectors of width D (problem 03's argument n_embd is
    one head's width here), `c_proj` nn.Linear(C, C), `resid_dropout` nn.Dropout.
    Problem 12 loads the checkpoint's tensors under `c_attn` and `c_proj`; problem 05 inherits them
    all.
    """

    def __init__(
        self, n_embd: int, n_head: int, dropout: float = 0.1, attn_dropout: float | None = None
    ):
        """`dropout` is for the output, `attn_dropout` for the weights (None: the same as
        `dropout`).

        ValueError that names both numbers when n_embd % n_head != 0.
        """
        super().__init__()
        # TODO 1: raise the error if n_head does not divide n_embd; set n_head and head_dim
        # TODO 2: create c_attn, attention (one head wide), c_proj and resid_dropout
        raise NotImplementedError("TODO 1: MultiHeadAttention.__init__")

    def split_heads(self, x: Tensor) -> Tensor:
        """Head h takes columns h·D … (h+1)·D-1: (B, T, C) → (B, H, T, D)."""
        # TODO 3: (B, T, C) → (B, H, T, D)
        raise NotImplementedError("TODO 3: MultiHeadAttention.split_heads")

    def merge_heads(self, x: Tensor) -> Tensor:
        """The exact inverse of split_heads: (B, H, T, D) → (B, T, C)."""
        # TODO 4: (B, H, T, D) → (B, T, C)
        raise NotImplementedError("TODO 4: MultiHeadAttention.merge_heads")

    def forward(self, x: Tensor) -> Tensor:
        """Project, split, attend in all heads at once, merge, project: (B, T, C) → (B, T, C)."""
        # TODO 5: compute q, k and v, split them into heads and attend
        # TODO 6: merge the heads, project, drop out
        raise NotImplementedError("TODO 5: MultiHeadAttention.forward")
