"""What a token is drawn from, composed of the pieces of `gpt2.sampling`, for those who want the
distribution and not a draw of it: speculation, validation, notebooks.

Shapes: B rows, V vocab_size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpt2.sampling import keep_top_k, keep_top_p, penalize_repetition

GREEDY = 1e-8  # at or below this temperature, `next_token` takes the most likely token


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Tensor | None = None,
) -> Tensor:
    """What `next_token` draws from: logits (B, V) → (B, V) float32, −inf for what is left out.

    Repetition penalty, temperature, top-k, top-p, in this order. A greedy temperature (≤ 1e-8)
    leaves out all but the penalty: nothing else moves the maximum.
    """
    logits = logits.float()
    if repetition_penalty != 1.0 and seen is not None:
        logits = penalize_repetition(logits, seen, float(repetition_penalty))
    if temperature <= GREEDY:
        return logits
    if temperature != 1.0:
        logits = logits / float(temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return logits


def tokens_seen(ids: Tensor, V: int) -> Tensor:
    """Which tokens occur in each row: (B, T) → (B, V) bool."""
    return torch.zeros(len(ids), V, dtype=torch.bool, device=ids.device).scatter_(1, ids, True)
