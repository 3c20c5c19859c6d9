"""Problem 01: token and position embeddings.

Shapes: B batch, T tokens, C n_embd, V vocab_size, P n_positions.
"""

import torch
from torch import Tensor, nn


class Embeddings(nn.Module):
    """What a token is plus where it stands: (B, T) ids → (B, T, C).

    Attributes: `wte` nn.Embedding(V, C), `wpe` nn.Embedding(P, C), `drop` nn.Dropout.
    Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(self, vocab_size: int, n_positions: int, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # Step 1: both tables have rows of width C, so that a token's row and a position's
        # row can be added
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(n_positions, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, start_pos: int = 0) -> Tensor:
        """Embed tokens that stand at positions start_pos … start_pos+T-1: (B, T) → (B, T, C).

        start_pos is the number of tokens already in the KV cache. ValueError that names both
        numbers when start_pos + T > n_positions.
        """
        # Step 2: a position past the table has no row; a clear message is better than PyTorch's
        # bare index error
        end = start_pos + input_ids.size(1)
        if end > self.wpe.num_embeddings:
            raise ValueError(
                f"start_pos + T = {end} positions > n_positions = {self.wpe.num_embeddings}"
            )
        # Step 3: positions are made on the ids' device; a model on a GPU can't use a tensor
        # on the CPU
        positions = torch.arange(start_pos, end, device=input_ids.device)  # (T,)
        # Step 4: (B, T, C) + (T, C): every text of the batch gets the same positions
        return self.drop(self.wte(input_ids) + self.wpe(positions))  # (B, T, C)
