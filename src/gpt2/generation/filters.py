"""From logits to a token, in pure functions: nothing that they are given is changed.

Shapes: B rows, V vocab_size. Filters take float32 logits (B, V) and give logits (B, V), in which a
token that is left out has −inf.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GREEDY = 1e-8  # at or below this temperature the most likely token is taken
FEW_TOKENS = 512  # that a trained model mostly chooses among


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that occurred less likely: logits (B, V), seen (B, V) bool → (B, V).

    Positive logits are divided by the penalty, negative ones multiplied (Keskar et al. 2019,
    section 4.1, with the sign that Hugging Face respects); above 1 discourages.
    """
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """−inf for all but the k largest, and those that tie with the k-th: (B, V) → (B, V)."""
    kth = logits.topk(min(k, logits.size(-1))).values[..., -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """−inf for all but the fewest tokens whose probabilities reach p: (B, V) → (B, V).

    The token that crosses p stays, so one is always left (Holtzman et al. 2019, section 3.1).
    """
    if p >= 1:
        return logits
    total = logits.logsumexp(-1, keepdim=True)  # (B, 1)
    few = min(FEW_TOKENS, logits.size(-1))
    values, order = logits.topk(few)  # (B, few), the likeliest first
    chances = (values - total).exp()
    if (chances.sum(-1) < p).any():
        # as unsure as an untrained model: all tokens, which takes 100 times as long
        values, order = logits.sort(dim=-1, descending=True)
        chances = (values - total).exp()
    keep = chances.cumsum(-1) - chances < p  # those before it do not reach p
    keep[..., 0] = True
    kept = values.masked_fill(~keep, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, order, kept)


def filter_logits(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Tensor | None = None,
) -> Tensor:
    """Repetition penalty, temperature, top-k, top-p, in this order: logits (B, V) → (B, V)
    float32.

    A greedy temperature (≤ 1e-8) leaves out all but the penalty: nothing else moves the maximum.
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


def sample(
    logits: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """One token per row, drawn from softmax(logits), or the largest when greedy: (B, V) → (B,).

    The logits are already divided by the temperature. The numbers come from the generator, on its
    own device; None is torch's own.
    """
    if temperature <= GREEDY:
        return logits.argmax(-1)
    return draw(logits.softmax(-1), generator)


def draw(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """An index per row, with probability in proportion to its weight: (B, V) → (B,).

    By one number u a row: the first index at which the weights add up to more than u times their
    total. `torch.multinomial` draws a number per weight, ten times slower for V = 50,257.
    """
    device = torch.device("cpu") if generator is None else generator.device
    u = torch.rand(len(weights), 1, dtype=_widest(device), generator=generator, device=device)
    sums = weights.cumsum(-1, dtype=_widest(weights.device))  # (B, V)
    total = sums[:, -1:]
    # a product that rounds up to the total would lie past the end
    wanted = torch.minimum(u.to(sums) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, wanted, right=True)[:, 0]


def _widest(device: torch.device) -> torch.dtype:
    """float64, since float32 would round away the unlikely; Apple's GPU has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def tokens_seen(ids: Tensor, V: int) -> Tensor:
    """Which tokens occur in each row: (B, T) → (B, V) bool."""
    return torch.zeros(len(ids), V, dtype=torch.bool, device=ids.device).scatter_(1, ids, True)
