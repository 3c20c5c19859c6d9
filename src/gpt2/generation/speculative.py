"""Speculative decoding: a small model drafts, the large one checks several tokens in one pass.

Decoding reads every weight once per token, however few the tokens; checking k drafted tokens reads
them once for all k. What comes out is distributed exactly as the large model's own text
(Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", algorithm 1).
Shapes: k drafted tokens, V vocab_size. One sequence at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.generation.generating import GREEDY, check_prompt, check_sampling, draw, filter_logits
from gpt2.inference.engine import Inference

if TYPE_CHECKING:
    from gpt2.model import GPT2Model


def probabilities(logits: Tensor, temperature: float, **options: Any) -> Tensor:
    """What a token is drawn from: logits (…, V) → (…, V); all on one token when greedy."""
    logits = filter_logits(logits, temperature=temperature, **options)
    if temperature <= GREEDY:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    return logits.softmax(-1)


def acceptance(target: Tensor, draft: Tensor, token: int) -> float:
    """How likely a token drawn from `draft` (V,) is kept, for `target` (V,): min(1, p / q)."""
    p, q = float(target[token]), float(draft[token])
    return 1.0 if p >= q else p / q


def remainder(target: Tensor, draft: Tensor) -> Tensor:
    """What a token is drawn from after a refusal: max(p − q, 0), normalised: (V,) → (V,)."""
    rest = (target - draft).clamp_min(0)
    total = rest.sum()
    # equal but for rounding: then refusals are rounding too, and p is as good
    return rest / total if total > 0 else target


def speculate(
    model: GPT2Model,
    draft: GPT2Model,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    drafted: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos_token_id: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[list[int]]:
    """The next tokens of one prompt (1, T), in the pieces in which they are found to hold.

    `draft` proposes up to `drafted` tokens at a time and must share the vocabulary. Greedy text is
    `generate`'s, up to ties that the rounding of a longer pass can break otherwise; a sample is
    another one of the same distribution. ValueError for more than one prompt, another vocabulary,
    and as in `generate.stream`, for either model.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    V = model.config.vocab_size
    check_sampling(V, **options, eos_token_id=eos_token_id)
    if draft.config.vocab_size != V:
        raise ValueError(f"the draft knows {draft.config.vocab_size} tokens, the model {V}")
    if isinstance(drafted, bool) or not isinstance(drafted, int) or drafted < 1:
        raise ValueError(f"drafted must be an int, at least 1, got {drafted!r}")
    check_prompt(draft, input_ids, max_new_tokens)
    ids = check_prompt(model, input_ids, max_new_tokens)
    if len(ids) != 1:
        raise ValueError(f"one prompt at a time, got {len(ids)}")
    return _rounds(model, draft, ids, max_new_tokens, drafted, options, eos_token_id, generator)


def _rounds(
    model: GPT2Model,
    draft: GPT2Model,
    ids: Tensor,
    n: int,
    drafted: int,
    options: dict[str, Any],
    eos_token_id: int | None,
    generator: torch.Generator | None,
) -> Iterator[list[int]]:
    """`speculate` after its checks."""
    text = ids[0].tolist()
    end = len(text) + n
    large, small = (
        _Reader(model, end, ids.device, options),
        _Reader(draft, end, ids.device, options),
    )

    def token(weights: Tensor) -> int:
        return int(draw(weights[None], generator))

    def uniform() -> float:
        device = generator.device if generator is not None else None
        return float(torch.rand((), generator=generator, device=device, dtype=torch.float64))

    while len(text) < end:
        guesses: list[int] = []
        chances: list[Tensor] = []
        for _ in range(min(drafted, end - len(text) - 1)):  # the model itself adds one more
            chances.append(small.read(text + guesses, 1)[0])
            guesses.append(token(chances[-1]))
        wanted = large.read(text + guesses, len(guesses) + 1)  # (k+1, V)
        new: list[int] = []
        for guess, p, q in zip(guesses, wanted, chances, strict=False):
            if uniform() >= acceptance(p, q, guess):
                new.append(token(remainder(p, q)))
                break
            new.append(guess)
        else:
            new.append(token(wanted[-1]))
        if eos_token_id in new:
            new = new[: new.index(eos_token_id) + 1]
        text += new
        for reader in (large, small):  # what was refused is forgotten
            reader.forget(len(text) - 1)
        yield new
        if new[-1] == eos_token_id:
            return


class _Reader:
    """A model and its cache, which is brought up to a text before it answers."""

    def __init__(
        self, model: GPT2Model, length: int, device: torch.device, options: dict[str, Any]
    ):
        weight = next(model.parameters())
        self.model, self.options, self.device = model, options, weight.device
        self.cache = KVCache(model.config, 1, length, weight.device, weight.dtype)
        self.inference = Inference(model)
        self.answers = device

    def read(self, text: list[int], last: int) -> Tensor:
        """What follows each of the last tokens of a text: → probabilities (last, V)."""
        new = torch.tensor([text[self.cache.length :]], device=self.device)
        with self.inference:
            if last == 1:
                logits = self.model(new, self.cache, last_only=True)[0]
            else:  # a long prompt has no use for logits at every position
                extra = new.size(1) - last
                if extra:
                    self.model(new[:, :extra], self.cache, last_only=True)
                logits = self.model(new[:, extra:], self.cache)[0]
        return probabilities(logits.to(self.answers), **self.options)

    def forget(self, length: int) -> None:
        """Keep at most the first `length` tokens."""
        self.cache.truncate(min(length, self.cache.length))
