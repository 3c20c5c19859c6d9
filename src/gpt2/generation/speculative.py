"""Speculative decoding: a small model drafts, the large one checks several tokens in one pass.

Decoding reads every weight once per token, however few the tokens; checking k drafted tokens reads
them once for all k. What comes out is distributed exactly as the large model's own text
(Leviathan et al. 2023, "Fast Inference from Transformers via Speculative Decoding", algorithm 1).
Shapes: k drafted tokens, V vocab_size. One sequence at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.generation.arguments import Rules, SamplingKeywords, check_int, check_prompt
from gpt2.inference.engine import Inference
from gpt2.sampling import sample

if TYPE_CHECKING:
    from gpt2.generation.arguments import TokenIds
    from gpt2.model import GPT2Model


def acceptance(target: Tensor, draft: Tensor, token: int) -> float:
    """How likely a token drawn from `draft` (V,) is kept, for `target` (V,): min(1, p / q)."""
    p, q = float(target[token]), float(draft[token])
    return 1.0 if p >= q else p / q


def remainder(target: Tensor, draft: Tensor) -> Tensor:
    """What a token is drawn from after a refusal: max(p − q, 0), normalized: (V,) → (V,)."""
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
    eos_token_id: TokenIds = None,
    never: TokenIds = None,
    generator: torch.Generator | None = None,
    **sampling: Unpack[SamplingKeywords],
) -> Iterator[list[int]]:
    """The next tokens of one prompt (1, T), in the pieces in which they are found to hold.

    `draft` proposes up to `drafted` tokens at a time and must share the vocabulary. Greedy text is
    `generate`'s, up to ties that the rounding of a longer pass can break otherwise; a sample is
    another one of the same distribution. sampling, never: as in `stream`, but for the repetition
    penalty, which would need a distribution of its own for every drafted token. ValueError for more
    than one prompt, another vocabulary, and as in `stream`, for either model.
    """
    V = model.config.vocab_size
    rules = Rules.check(V, sampling, eos_token_id, never)
    if rules.sampling.looks_back:
        penalty = rules.sampling.repetition_penalty
        raise ValueError(
            f"repetition_penalty = {penalty} does not go with a draft model; only 1 does"
        )
    if draft.config.vocab_size != V:
        raise ValueError(f"the draft knows {draft.config.vocab_size} tokens, the model {V}")
    check_int("drafted", drafted, 1)
    check_prompt(draft, input_ids, max_new_tokens)
    ids = check_prompt(model, input_ids, max_new_tokens)
    if len(ids) != 1:
        raise ValueError(f"one prompt at a time, got {len(ids)}")
    return _rounds(model, draft, ids, max_new_tokens, drafted, rules, generator)


def _rounds(
    model: GPT2Model,
    draft: GPT2Model,
    ids: Tensor,
    n: int,
    drafted: int,
    rules: Rules,
    generator: torch.Generator | None,
) -> Iterator[list[int]]:
    """`speculate` after its checks."""
    text = ids[0].tolist()
    end = len(text) + n
    large, small = (_Reader(each, end, ids.device, rules) for each in (model, draft))

    def token(weights: Tensor) -> int:
        return int(sample(weights[None].log(), generator))  # whose softmax the weights are

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
        met = [i for i, found in enumerate(new) if found in rules.ends]
        if met:
            new = new[: met[0] + 1]
        text += new
        for reader in (large, small):  # what was refused is forgotten
            reader.forget(len(text) - 1)
        yield new
        if met:
            return


class _Reader:
    """A model and its cache, which is brought up to a text before it answers."""

    def __init__(self, model: GPT2Model, length: int, device: torch.device, rules: Rules):
        weight = next(model.parameters())
        self.model, self.rules, self.device = model, rules, weight.device
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
        return self.rules.probabilities(logits.to(self.answers))

    def forget(self, length: int) -> None:
        """Keep at most the first `length` tokens."""
        self.cache.truncate(min(length, self.cache.length))
