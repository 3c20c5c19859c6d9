"""Problem 01: token and position embeddings.

Shapes: B batch, T tokens, C n_embd, V vocab_size, P n_positions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Embeddings(nn.Module):
    """What a token is plus where it stands: (B, T) ids → (B, T, C).

    Attributes: `wte` nn.Embedding(V, C), `wpe` nn.Embedding(P, C), `drop` nn.Dropout.
    Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(self, vocab_size: int, n_positions: int, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # TODO 1: create wte, wpe and drop
        raise NotImplementedError("TODO 1: Embeddings.__init__")

    def forward(self, input_ids: Tensor, start_pos: int = 0) -> Tensor:
        """Embed tokens that stand at positions start_pos … start_pos+T-1: (B, T) → (B, T, C).

        start_pos is the number of tokens already in the KV cache. ValueError that names both
        numbers when start_pos + T > n_positions.
        """
        # TODO 2: for positions past the table, raise a ValueError that names both numbers
        # TODO 3: make the T positions, on the device that the ids are on
        # TODO 4: look both up, add them, drop out
        raise NotImplementedError("TODO 2: Embeddings.forward")
