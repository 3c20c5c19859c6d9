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
        # TODO 1: create ln_1, attn, ln_2 and mlp, each with the dropout and epsilon meant for it
        raise NotImplementedError("TODO 1: TransformerBlock.__init__")

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attention, then feed-forward, each applied to a norm and added: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None; it goes to the attention.
        """
        # TODO 2: add the attention of the normalized x to x; the cache goes to the attention
        # TODO 3: add the feed-forward of the normalized x to x
        raise NotImplementedError("TODO 2: TransformerBlock.forward")
