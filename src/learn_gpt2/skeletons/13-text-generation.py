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
    # TODO 1: where seen, divide positive logits by the penalty and multiply negative ones
    raise NotImplementedError("TODO 1: penalize_repetition")


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """−inf for all but the k largest, and those that tie with the k-th: (B, V) → (B, V)."""
    # TODO 2: leave out what is below the k-th largest of its row; with k ≥ V, nothing
    raise NotImplementedError("TODO 2: keep_top_k")


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """−inf for all but the fewest tokens whose probabilities sum to at least p: (B, V) → (B, V)."""
    # TODO 3: put each row's tokens in order, the likeliest first, with their probabilities
    # TODO 4: decide which of them stay: the one that crosses p too, and at least one
    # TODO 5: bring the result back into the vocabulary's order
    raise NotImplementedError("TODO 3: keep_top_p")


def sample(logits: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw a token per row from softmax(logits): (B, V) → (B,) int64."""
    # TODO 6: draw once per row, each row by itself, with the generator's random numbers
    raise NotImplementedError("TODO 6: sample")


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
    # TODO 7: penalize (where `seen` is given); at a temperature ≤ 1e-8, take the largest
    # TODO 8: apply the temperature, then top-k, then top-p; then draw
    raise NotImplementedError("TODO 7: next_token")


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
    # TODO 9: know which tokens occurred in each row, those of the prompt included
    # TODO 10: let a row that met the end token among its new ones yield it from then on
    # TODO 11: yield the tokens, stop when all rows have ended, go on with a longer text
    raise NotImplementedError("TODO 9: generate_tokens")
