"""Problem 13: from logits to a text, in pure functions: nothing that they are given is changed.

Shapes: B rows, T tokens of prompt, V vocab_size. Logits are (B, V) float32; a token that is left
out has −inf, so that its probability is exactly 0.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

GREEDY = 1e-8  # at or below this temperature, the largest logit is taken and nothing is drawn


def penalize_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make tokens that occurred less likely: logits (B, V), seen (B, V) bool → (B, V)."""
    # Step 1: dividing a negative logit would raise it, so negative ones are multiplied
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """−inf for all but the k largest, and those that tie with the k-th: (B, V) → (B, V)."""
    # Step 2: everything below the k-th largest of its row goes; with k ≥ V that is nothing
    kth = logits.topk(min(k, logits.size(-1))).values[..., -1:]  # (B, 1)
    return logits.masked_fill(logits < kth, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """−inf for all but the fewest tokens whose probabilities sum to at least p: (B, V) → (B, V)."""
    if p >= 1:
        return logits
    # Step 3: the likeliest first. Sorting 50,257 numbers takes 100 times as long as finding the
    # 512 largest, and those mostly reach p; all are sorted only where they do not
    total = logits.logsumexp(-1, keepdim=True)  # (B, 1), so that exp(logits − total) is the softmax
    values, order = logits.topk(min(512, logits.size(-1)))
    chances = (values - total).exp()  # (B, 512)
    if (chances.sum(-1) < p).any():
        values, order = logits.sort(dim=-1, descending=True)
        chances = (values - total).exp()  # (B, V)
    # Step 4: a token stays while those before it have not reached p, so the one that crosses p does
    # too (Holtzman et al. 2019, section 3.1)
    keep = chances.cumsum(-1) - chances < p
    keep[..., 0] = True
    # Step 5: back to where each token stands in the vocabulary
    kept = values.masked_fill(~keep, -math.inf)
    return torch.full_like(logits, -math.inf).scatter(-1, order, kept)


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a token per row from softmax(logits): (B, V) → (B,) int64."""
    # Step 6: one random number u per row, and the first token at which the probabilities add up to
    # more than u. `torch.multinomial` draws a number per token and takes ten times as long
    device = torch.device("cpu") if generator is None else generator.device
    u = torch.rand(len(logits), 1, dtype=_widest(device), generator=generator, device=device)
    sums = logits.softmax(-1).cumsum(-1, dtype=_widest(logits.device))  # (B, V)
    total = sums[:, -1:]  # 1 but for rounding; a product rounded up to it would lie past the end
    wanted = torch.minimum(u.to(sums) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(sums, wanted, right=True)[:, 0]


def _widest(device: torch.device) -> torch.dtype:
    """float64, since float32 would round away the unlikely; Apple's GPU has nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64


def next_token(
    logits: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose a token per row: logits (B, V) → (B,) int64."""
    # Step 7: the penalty is the only one of the four that can move the maximum
    logits = logits.float()
    if seen is not None and repetition_penalty != 1.0:
        logits = penalize_repetition(logits, seen, float(repetition_penalty))
    if temperature <= GREEDY:
        return logits.argmax(-1)
    # Step 8: top-p after the temperature, since a temperature changes what the probabilities are
    if temperature != 1.0:
        logits = logits / float(temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return sample(logits, generator)


def generate_tokens(
    next_logits: Callable[[Tensor], Tensor],
    ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Continue a prompt: ids (B, T) → one (B,) per step, up to max_new_tokens of them.

    next_logits: called once per token with everything so far, (B, T') → (B, V).
    """
    finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)  # by what is new
    for _ in range(max_new_tokens):
        logits = next_logits(ids)
        # Step 9: which tokens occurred, the prompt's among them; each once, however often
        seen = None
        if repetition_penalty != 1.0:
            seen = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, ids, True)
        tokens = next_token(
            logits,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            seen=seen,
            generator=generator,
        )
        # Step 10: a row that has ended waits for the others, each row by itself
        if eos_token_id is not None:
            tokens = tokens.masked_fill(finished, eos_token_id)
            finished = finished | (tokens == eos_token_id)
        # Step 11: hand the token out, then go on with a longer text (a new tensor: ids are given)
        yield tokens
        if eos_token_id is not None and finished.all():
            return
        ids = torch.cat([ids, tokens[:, None]], dim=1)
