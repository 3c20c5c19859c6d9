"""Problem 04: multi-head attention.

Shapes: B batch, T tokens, C n_embd, H n_head, D head_dim = C // H.
"""

from torch import Tensor, nn

from gpt2.model import ScaledDotProductAttention


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each in its own D dimensions of the stream: (B, T, C) → (B, T, C).

    Attributes: `n_head`, `head_dim`, `c_attn` nn.Linear(C, 3C) for query, key, value in that order,
    `attention` ScaledDotProductAttention for vectors of width D (what problem 03 calls n_embd is
    here one head's width), `c_proj` nn.Linear(C, C), `resid_dropout` nn.Dropout.
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
        # TODO 1: refuse a width that the heads can't share out evenly; set n_head and head_dim
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
