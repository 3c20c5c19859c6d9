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
        # Step 1: the config stays with the model, for code that saves, caches or generates
        self.config = config
        self.embeddings = Embeddings(
            config.vocab_size, config.n_positions, config.n_embd, config.embd_pdrop
        )
        # Step 2: a ModuleList, because the parameters of a plain list's modules would be
        # invisible to PyTorch
        self.h = nn.ModuleList(
            TransformerBlock(
                config.n_embd,
                config.n_head,
                config.n_positions,
                config.resid_pdrop,
                n_inner=config.n_inner,
                attn_dropout=config.attn_pdrop,
                layer_norm_epsilon=config.layer_norm_epsilon,
            )
            for _ in range(config.n_layer)
        )
        # Step 3: pre-norm leaves the stream itself unnormalized, so one last norm comes
        # before the head
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        # Step 4: one tensor with two names: reading and predicting tokens share one table
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.embeddings.wte.weight
        # Step 5: this comes last, when every module exists
        self.apply(self._init_weights)

    def _init_weights(self, module: nn.Module) -> None:
        """Set one module's initial weights; called for every module. Problem 11 writes it."""

    def forward(self, input_ids: Tensor, cache=None, last_only: bool = False) -> Tensor:
        """Predict: ids (B, T) → logits (B, T, V), or (B, 1, V) with last_only.

        cache: a KVCache, or None. Positions start at cache.length and layer i appends to
        cache.layers[i]. ValueError that says what it got for input that is not a 2-D integer
        tensor, or is empty.
        """
        # Step 6: a mistake that is named here is easier to find than one three layers further down
        if not isinstance(input_ids, Tensor):
            raise ValueError(
                f"input_ids must be a 2-D integer tensor (B, T), got a {type(input_ids).__name__}"
            )
        whole_numbers = not (
            input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool
        )
        if input_ids.dim() != 2 or not whole_numbers or input_ids.numel() == 0:
            raise ValueError(
                "input_ids must be a non-empty 2-D integer tensor (B, T), "
                f"got shape {tuple(input_ids.shape)} of {input_ids.dtype}"
            )
        # Step 7: cache.length is read before the layers append, which changes it
        x = self.embeddings(input_ids, 0 if cache is None else cache.length)  # (B, T, C)
        # Step 8: each layer has its own cache, because it has its own keys and values
        for i, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layers[i])  # (B, T, C)
        # Step 9: generation needs only one position, and the head is GPT-2's largest matrix
        if last_only:
            x = x[:, -1:]  # (B, 1, C)
        # Step 10: each logit is the dot product of the stream with a token's embedding
        return self.lm_head(self.ln_f(x))  # (B, T, V)
