"""What generation is asked for, checked before anything is computed: the prompt, how tokens are
chosen, and which ones end a text.
"""

from __future__ import annotations

import contextlib
import math
import reprlib
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from gpt2.generation.filters import GREEDY, filter_logits

if TYPE_CHECKING:
    from gpt2.model import GPT2Model

    TokenIds = int | Iterable[int] | None


class SamplingKeywords(TypedDict, total=False):
    """`Sampling`'s fields, as the keyword arguments that every generating function takes."""

    temperature: float
    top_k: int | None
    top_p: float | None
    repetition_penalty: float


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from the logits.

    temperature: 0 takes the most likely token, 1 draws as the model says, more is bolder.
    top_k, top_p: draw only from the k likeliest tokens; from the fewest whose probabilities reach
    p. repetition_penalty: above 1, tokens that occurred become less likely. ValueError that names
    the first that makes no sense, and its value.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature)
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {self.temperature}")
        if self.top_k is not None:
            check_int("top_k", self.top_k, 1)
        if self.top_p is not None:
            check_number("top_p", self.top_p)
            if not 0 < self.top_p <= 1:
                raise ValueError(f"top_p must be in (0, 1], got {self.top_p}")
        check_number("repetition_penalty", self.repetition_penalty)
        if not 1e-6 <= self.repetition_penalty <= 1e6:  # beyond, float32 logits overflow
            raise ValueError(
                "repetition_penalty must be greater than 0 (1e-6 … 1e6), got "
                f"{self.repetition_penalty}"
            )

    @property
    def greedy(self) -> bool:
        """Is the most likely token taken each time?"""
        return self.temperature <= GREEDY

    @property
    def looks_back(self) -> bool:
        """Does the choice depend on which tokens occurred?"""
        return self.repetition_penalty != 1.0

    def keywords(self) -> SamplingKeywords:
        """The fields as `next_token` and `generate_tokens` take them."""
        return {
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
            "repetition_penalty": self.repetition_penalty,
        }

    def probabilities(self, logits: Tensor) -> Tensor:
        """What a token is drawn from: logits (B, V) → (B, V); all on one token when greedy."""
        logits = filter_logits(logits, **self.keywords())
        if self.greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        return logits.softmax(-1)


def check_prompt(
    model: GPT2Model, input_ids: Tensor, max_new_tokens: int, sliding: bool = False
) -> Tensor:
    """The prompt (B, T) → the same as int64 on the model's device.

    ValueError for anything but a non-empty 2-D integer tensor of ids below V, and, unless sliding,
    for T + n > P.
    """
    V, P = model.config.vocab_size, model.config.n_positions
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"input_ids must be an integer tensor (B, T), got a {type(input_ids).__name__}"
        )
    fractional = input_ids.is_floating_point() or input_ids.is_complex()
    if fractional or input_ids.dtype == torch.bool or input_ids.dim() != 2 or not input_ids.numel():
        raise ValueError(
            "input_ids must be a non-empty 2-D integer tensor (B, T), "
            f"got shape {tuple(input_ids.shape)} of {input_ids.dtype}"
        )
    check_int("max_new_tokens", max_new_tokens, 0)
    low, high = (int(value) for value in input_ids.aminmax())
    if low < 0 or high >= V:
        wrong = low if low < 0 else high
        raise ValueError(f"token id {wrong} is outside the vocabulary, 0 … {V - 1}")
    T = input_ids.size(1)
    if T + max_new_tokens > P and not sliding:
        raise ValueError(
            f"{T} prompt tokens + {max_new_tokens} new = {T + max_new_tokens} > n_positions = {P}; "
            "ask for fewer, or let the window slide over the last tokens (sliding)"
        )
    return input_ids.to(next(model.parameters()).device, torch.int64)


@dataclass(frozen=True)
class Rules:
    """How a text goes on: how tokens are chosen, which ones end it, which are never chosen."""

    sampling: Sampling
    ends: tuple[int, ...] = ()
    never: tuple[int, ...] = ()

    @classmethod
    def check(
        cls, V: int, sampling: SamplingKeywords, eos_token_id: TokenIds, never: TokenIds
    ) -> Rules:
        """ValueError as in `Sampling`, and for ids outside the vocabulary."""
        chosen = Sampling(**sampling)
        ends = _check_ids("eos_token_id", V, eos_token_id)
        left_out = _check_ids("never", V, never)
        if len(left_out) >= V:
            raise ValueError(f"never names all {V} tokens: none of them may be drawn")
        return cls(chosen, ends, left_out)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Logits (B, V) → what a token is drawn from, (B, V)."""
        return self.sampling.probabilities(self.allowed(logits))

    def allowed(self, logits: Tensor) -> Tensor:
        """Logits (B, V) → the same, −inf for the tokens that are never chosen."""
        if not self.never:
            return logits
        ids = torch.tensor(self.never, device=logits.device)
        return logits.index_fill(-1, ids, -math.inf)


def _check_ids(name: str, V: int, ids: TokenIds) -> tuple[int, ...]:
    """One id, several or none → the ids, each once. ValueError for one outside the vocabulary."""
    if ids is None:
        return ()
    found: tuple[Any, ...] = (ids,)
    if isinstance(ids, Iterable) and not isinstance(ids, (str, bytes)):
        # an array of no dimension says that it can be iterated, and cannot
        with contextlib.suppress(TypeError):
            found = tuple(ids)
    for token in found:
        check_int(name, token, 0)
        if token >= V:
            raise ValueError(f"{name} {token} is outside the vocabulary, 0 … {V - 1}")
    return tuple(dict.fromkeys(map(int, found)))


def check_int(name: str, value: Any, least: int) -> None:
    """ValueError for what is not an integer, or is below `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int, at least {least}, got {reprlib.repr(value)}")


def check_number(name: str, value: Any) -> None:
    """ValueError for what is not a finite number."""
    try:
        finite = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int too large for any float
        finite = False
    if isinstance(value, bool) or not finite:
        raise ValueError(f"{name} must be a finite number, got {reprlib.repr(value)}")
