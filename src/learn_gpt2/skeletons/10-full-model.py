"""Problem 10: the full GPT-2. Shapes: B batch, T new tokens, C n_embd, V vocab_size."""

import torch
from torch import Tensor, nn

from gpt2.model import Embeddings, GPT2Config, LayerNorm, TransformerBlock


class GPT2Model(nn.Module):
    """GPT-2: token ids → logits of the next token at every position: (B, T) → (B, T, V).

    Attributes: `config`, `embeddings` Embeddings, `h` nn.ModuleList of TransformerBlock, `ln_f`
    LayerNorm, `lm_head` nn.Linear(C, V, bias=False) whose weight is `embeddings.wte.weight` itself.
    Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        # TODO 1: store the config; create embeddings
        # TODO 2: create h, one block per layer; every setting of the config must reach its block
        # TODO 3: create ln_f
        # TODO 4: create lm_head and tie its weight to the token embedding's
        # TODO 5: initialize every module
        raise NotImplementedError("TODO 1: GPT2Model.__init__")

    def _init_weights(self, module: nn.Module) -> None:
        """Set one module's initial weights; called for every module. Problem 11 writes it."""

    def forward(self, input_ids: Tensor, cache=None, last_only: bool = False) -> Tensor:
        """Predict: ids (B, T) → logits (B, T, V), or (B, 1, V) with last_only.

        cache: a KVCache, or None. Positions start at cache.length and layer i appends to
        cache.layers[i]. ValueError that says what it got for input that is not a 2-D integer
        tensor, or is empty.
        """
        # TODO 6: raise the error for input that is not a 2-D integer tensor, or is empty
        # TODO 7: embed, starting at the position after those in the cache
        # TODO 8: pass through the blocks, each with its own layer of the cache
        # TODO 9: with last_only, keep only the last position
        # TODO 10: normalize and project to logits
        raise NotImplementedError("TODO 6: GPT2Model.forward")
