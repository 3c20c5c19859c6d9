"""Problem 08: the transformer block. Shapes: B batch, T tokens, C n_embd."""

from torch import Tensor, nn

from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm


class TransformerBlock(nn.Module):
    """Tokens talk (attention), then each thinks for itself (feed-forward): (B, T, C) → (B, T, C).

    Attributes: `ln_1` LayerNorm, `attn` CausalMultiHeadAttention, `ln_2` LayerNorm, `mlp`
    FeedForward. Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_positions: int,
        dropout: float = 0.1,
        *,
        n_inner: int | None = None,
        attn_dropout: float | None = None,
        layer_norm_epsilon: float = 1e-5,
    ):
        """n_inner=None means 4 · n_embd; attn_dropout=None means the same as dropout."""
        super().__init__()
        # Step 1: there are two norms, because the second sublayer reads a different stream and
        # learns its own scale
        self.ln_1 = LayerNorm(n_embd, layer_norm_epsilon)
        self.attn = CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)
        self.ln_2 = LayerNorm(n_embd, layer_norm_epsilon)
        self.mlp = FeedForward(n_embd, 4 * n_embd if n_inner is None else n_inner, dropout)

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attention, then feed-forward, each applied to a norm and added: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None; it goes to the attention.
        """
        # Step 2: what continues is the sum, not the attention's output alone
        x = x + self.attn(self.ln_1(x), cache)
        # Step 3: the feed-forward network reads what attention has just written
        return x + self.mlp(self.ln_2(x))
