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
        # Step 1: the heads divide the width among them, so it must be divisible
        if n_embd % n_head != 0:
            raise ValueError(f"n_embd = {n_embd} is not divisible by n_head = {n_head}")
        self.n_head = n_head
        self.head_dim = n_embd // n_head
        # Step 2: one (C, 3C) product is one large matrix product where three layers would
        # be three small ones
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.attention = ScaledDotProductAttention(
            self.head_dim, dropout if attn_dropout is None else attn_dropout
        )
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def split_heads(self, x: Tensor) -> Tensor:
        """Head h takes columns h·D … (h+1)·D-1: (B, T, C) → (B, H, T, D)."""
        # Step 3: cut C first, then move H ahead of T; viewing x directly as (B, H, T, D)
        # would mix up tokens
        B, T, _ = x.shape
        return x.view(B, T, self.n_head, self.head_dim).transpose(1, 2)  # (B, H, T, D)

    def merge_heads(self, x: Tensor) -> Tensor:
        """The exact inverse of split_heads: (B, H, T, D) → (B, T, C)."""
        # Step 4: undo it in reverse order; reshape copies, because a transposed tensor has
        # no flat view
        B, H, T, D = x.shape
        return x.transpose(1, 2).reshape(B, T, H * D)  # (B, T, C)

    def forward(self, x: Tensor) -> Tensor:
        """Project, split, attend in all heads at once, merge, project: (B, T, C) → (B, T, C)."""
        # Step 5: H acts as one more batch dimension, so one call computes all heads
        q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))  # (B, H, T, D) each
        y, _ = self.attention(q, k, v)
        # Step 6: c_proj mixes the heads' results; nothing else combines them
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))  # (B, T, C)
