"""Generation in small free functions: prefill, choose, decode one step, repeat.

Any model will do that has GPT2Model's call `model(ids, cache, last_only)` and its `config`. The
caller owns nothing but the ids: the KV cache lives as long as one `stream`. Shapes: B batch, T
prompt, n new tokens, V vocab_size, P n_positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from gpt2.cache import KVCache, cached_logits
from gpt2.generation.arguments import Rules, Sampling, SamplingKeywords, check_prompt
from gpt2.generation.filters import filter_logits, tokens_seen
from gpt2.inference.cache_rows import CacheRows, rows_work
from gpt2.inference.engine import Inference
from gpt2.sampling import generate_tokens, next_token, sample

if TYPE_CHECKING:
    from gpt2.generation.arguments import TokenIds
    from gpt2.model import GPT2Model

__all__ = [
    "decode_step",
    "filter_logits",
    "generate",
    "generate_batch",
    "prefill",
    "stream",
    "stream_batch",
]


# ------------------------------------------------------------------------------ one forward pass


@torch.no_grad()
def prefill(model: GPT2Model, ids: Tensor, cache: KVCache | CacheRows | None = None) -> Tensor:
    """Read a prompt, in one pass: ids (B, T) → logits of what follows (B, V)."""
    return model(ids, cache, last_only=True)[:, -1]


@torch.no_grad()
def decode_step(model: GPT2Model, tokens: Tensor, cache: KVCache | CacheRows) -> Tensor:
    """Read one more token per row: tokens (B,) → logits of what follows (B, V)."""
    return model(tokens[:, None], cache, last_only=True)[:, -1]


# --------------------------------------------------------------------------------- one prompt shape


def stream(
    model: GPT2Model,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    eos_token_id: TokenIds = None,
    never: TokenIds = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    sliding: bool = False,
    **sampling: Unpack[SamplingKeywords],
) -> Iterator[Tensor]:
    """The next tokens as they come: prompt (B, T) → up to n tensors (B,), one per step.

    sampling: temperature, top_k, top_p, repetition_penalty, as `Sampling` explains them. A row that
    met an end token goes on with it; when all rows have met one, the stream ends. never: ids
    that are never chosen, such as rows of the table that stand for no token. sliding: past P
    tokens, each step reads the last P again, at positions 0 … P−1, which costs a whole prefill per
    token. The model runs in eval mode and is as it was found whenever the caller looks: between
    tokens, after an error, after `close()`. ValueError for bad arguments here and now, before
    anything is computed.
    """
    rules = Rules.check(model.config.vocab_size, sampling, eos_token_id, never)
    ids = check_prompt(model, input_ids, max_new_tokens, sliding)
    return _steps(model, ids, max_new_tokens, rules, use_cache, generator)


def generate(
    model: GPT2Model,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    eos_token_id: TokenIds = None,
    never: TokenIds = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    sliding: bool = False,
    **sampling: Unpack[SamplingKeywords],
) -> Tensor:
    """Prompt (B, T) → prompt and continuation (B, T + n), shorter when every row met an end token.

    temperature ≤ 1e-8 takes the most likely token. Arguments and errors as in `stream`.
    """
    steps = stream(
        model,
        input_ids,
        max_new_tokens,
        eos_token_id=eos_token_id,
        never=never,
        use_cache=use_cache,
        generator=generator,
        sliding=sliding,
        **sampling,
    )
    new = [tokens[:, None] for tokens in steps]
    return torch.cat([input_ids.to(next(model.parameters()).device, torch.int64), *new], dim=1)


def _steps(
    model: GPT2Model,
    ids: Tensor,
    n: int,
    rules: Rules,
    use_cache: bool,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """`stream` after its checks: `generate_tokens`, with logits from one pass each."""
    if n == 0:
        return
    T, P = ids.size(1), model.config.n_positions

    def uncached(text: Tensor) -> Tensor:
        return prefill(model, text[:, -P:])

    read: Callable[[Tensor], Tensor] = uncached
    if use_cache:
        weight = next(model.parameters())
        cache = KVCache(model.config, len(ids), min(P, T + n), weight.device, weight.dtype)
        read = cached_logits(model, cache)
    inference = Inference(model)
    ends = torch.tensor(rules.ends, dtype=torch.int64, device=ids.device)
    several = len(ends) > 1  # `generate_tokens` knows one; with several, a row goes on with its own
    finished = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)

    def next_logits(text: Tensor) -> Tensor:
        with inference:
            logits = read(text)
        _check_logits(logits)
        logits = rules.allowed(logits)
        if several and text.size(1) > T:
            only_its_end = torch.full_like(logits, -math.inf).scatter_(1, text[:, -1:], 0.0)
            logits = torch.where(finished[:, None], only_its_end, logits)
        return logits

    for tokens in generate_tokens(
        next_logits,
        ids,
        n,
        **rules.sampling.keywords(),
        eos_token_id=rules.ends[0] if len(rules.ends) == 1 else None,
        generator=generator,
    ):
        yield tokens
        if several:
            finished |= torch.isin(tokens, ends)
            if bool(finished.all()):
                return


# ---------------------------------------------------------------------------- prompts side by side


def stream_batch(
    model: GPT2Model,
    prompts: Sequence[Tensor],
    max_new_tokens: int,
    *,
    eos_token_id: TokenIds = None,
    never: TokenIds = None,
    use_cache: bool = True,
    generators: Sequence[torch.Generator] | None = None,
    sliding: bool = False,
    ended: Callable[[int], bool] | None = None,
    **sampling: Unpack[SamplingKeywords],
) -> Iterator[tuple[int, int]]:
    """Prompts (T₀,), (T₁,), … → each new token as it comes, with the number of its prompt.

    A forward pass has one position for all its rows, so rows are in step by position: a row joins
    when the others have come to its prompt's end, and leaves after its n tokens or an end token.
    The closer the lengths, the more rows share a pass; a prompt that all of them have is read once.
    generators: one per prompt, which draws what it would draw for that prompt alone; None draws
    from torch's own. ended: asked with a prompt's number after each of its tokens; where it says
    True, that row leaves. Arguments and errors else as in `stream`.
    """
    rows, rules = _check_batch(
        model, prompts, max_new_tokens, eos_token_id, never, generators, sliding, sampling
    )
    if not rows or max_new_tokens == 0:
        return iter(())
    batch = _Batch(model, rows, max_new_tokens, use_cache)
    return batch.steps(rules, generators, ended or (lambda number: False))


def generate_batch(
    model: GPT2Model,
    prompts: Sequence[Tensor],
    max_new_tokens: int,
    *,
    eos_token_id: TokenIds = None,
    never: TokenIds = None,
    use_cache: bool = True,
    generators: Sequence[torch.Generator] | None = None,
    sliding: bool = False,
    **sampling: Unpack[SamplingKeywords],
) -> list[Tensor]:
    """Prompts (T₀,), (T₁,), … → each with its continuation, as `generate` gives it alone.

    Arguments and errors as in `stream_batch`.
    """
    rows, _ = _check_batch(
        model, prompts, max_new_tokens, eos_token_id, never, generators, sliding, sampling
    )
    new: list[list[int]] = [[] for _ in rows]
    for number, token in stream_batch(
        model,
        prompts,
        max_new_tokens,
        eos_token_id=eos_token_id,
        never=never,
        use_cache=use_cache,
        generators=generators,
        sliding=sliding,
        **sampling,
    ):
        new[number].append(token)
    return [torch.cat([row, row.new_tensor(ids)]) for row, ids in zip(rows, new, strict=True)]


def _check_batch(
    model: GPT2Model,
    prompts: Sequence[Tensor],
    n: int,
    eos_token_id: TokenIds,
    never: TokenIds,
    generators: Sequence[torch.Generator] | None,
    sliding: bool,
    sampling: SamplingKeywords,
) -> tuple[list[Tensor], Rules]:
    """→ the prompts as int64 on the model's device, and the rules. ValueError that says which
    prompt is wrong.
    """
    rules = Rules.check(model.config.vocab_size, sampling, eos_token_id, never)
    if generators is not None and len(generators) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but {len(generators)} generators")
    rows = []
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Tensor) or prompt.dim() != 1:
            what = tuple(prompt.shape) if isinstance(prompt, Tensor) else type(prompt).__name__
            raise ValueError(f"prompt {i} must be an integer tensor (T,), got {what}")
        try:
            rows.append(check_prompt(model, prompt[None], n, sliding)[0])
        except ValueError as error:
            raise ValueError(f"prompt {i}: {error}") from None
    return rows, rules


class _Batch:
    """Rows in the order of their prompts' lengths, in one buffer: those in work lie side by side.

    So their part of the ids and of the KV cache is a view, and no row is ever copied to join.
    """

    def __init__(self, model: GPT2Model, prompts: list[Tensor], n: int, use_cache: bool):
        self.order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        prompts = [prompts[i] for i in self.order]
        self.model, self.inference = model, Inference(model)
        self.P, self.V = model.config.n_positions, model.config.vocab_size
        self.lengths = [len(prompt) for prompt in prompts]
        N, longest = len(prompts), self.lengths[-1] + n
        device = prompts[0].device
        self.ids = torch.zeros(N, longest, dtype=torch.int64, device=device)
        for row, prompt in zip(self.ids, prompts, strict=True):
            row[: len(prompt)] = prompt
        self.ends = [length + n for length in self.lengths]
        self.cache: KVCache | None = None
        self.apart: list[KVCache] | None = None
        if use_cache:
            weight = next(model.parameters())
            size = min(self.P, longest)
            self.cache = KVCache(model.config, N, size, weight.device, weight.dtype)
            if not rows_work(self.cache):  # then each row has a cache, and a pass, of its own
                self.cache, self.apart = (
                    None,
                    [KVCache(model.config, 1, size, weight.device, weight.dtype) for _ in range(N)],
                )
        self._view: tuple[tuple[int, int], CacheRows] | None = None
        self.filters_at_once: bool | None = None  # not known before the first draw

    def steps(
        self,
        rules: Rules,
        generators: Sequence[torch.Generator] | None,
        ended: Callable[[int], bool],
    ) -> Iterator[tuple[int, int]]:
        """Position by position, from the shortest prompt's end to the last row's."""
        draws = None if generators is None else [generators[i] for i in self.order]
        first = last = 0  # rows first … last−1 are in work
        position = self.lengths[0]
        while True:
            while first < last and self.ends[first] <= position:
                first += 1
            if first == last:
                if last == len(self.lengths):
                    return
                position = self.lengths[last]
            joining = last
            while joining < len(self.lengths) and self.lengths[joining] == position:
                joining += 1
            with self.inference:
                logits = [] if first == last else [self._read(first, last, position)]
                if joining > last:
                    logits.append(self._start(last, joining, position))
            last = joining
            tokens = self._choose(torch.cat(logits), first, last, position, rules, draws)
            for i, token in enumerate(tokens.tolist(), first):
                if position >= self.ends[i]:
                    continue  # it waits for the rows before it, which are not done
                self.ids[i, position] = token
                yield self.order[i], token
                if token in rules.ends or ended(self.order[i]):
                    self.ends[i] = position + 1
            position += 1

    def _choose(
        self,
        logits: Tensor,
        first: int,
        last: int,
        position: int,
        rules: Rules,
        draws: list[torch.Generator] | None,
    ) -> Tensor:
        """Logits of rows first … last−1 → their next tokens (rows,)."""
        _check_logits(logits)
        logits = rules.allowed(logits)
        sampling = rules.sampling
        seen = None
        if sampling.looks_back:
            seen = tokens_seen(self.ids[first:last, :position], self.V)
        if draws is None or sampling.greedy:
            return next_token(logits, **sampling.keywords(), seen=seen)
        return self._draw(logits, seen, sampling, draws[first:last])

    def _draw(
        self,
        logits: Tensor,
        seen: Tensor | None,
        sampling: Sampling,
        draws: list[torch.Generator],
    ) -> Tensor:
        """A token per row, each from a generator of its own: logits (rows, V) → (rows,).

        To filter all rows at once is faster than a `next_token` per row. Whether it gives the same
        is tried at a batch's first step.
        """
        if self.filters_at_once:
            return self._draw_at_once(logits, seen, sampling, draws)
        before = [draw.get_state() for draw in draws] if self.filters_at_once is None else []
        tokens = torch.cat(
            [
                next_token(
                    logits[i : i + 1],
                    **sampling.keywords(),
                    seen=None if seen is None else seen[i : i + 1],
                    generator=draw,
                )
                for i, draw in enumerate(draws)
            ]
        )
        if self.filters_at_once is None:
            after = [draw.get_state() for draw in draws]
            for draw, state in zip(draws, before, strict=True):
                draw.set_state(state)
            same = torch.equal(self._draw_at_once(logits, seen, sampling, draws), tokens)
            states = zip(draws, after, strict=True)
            self.filters_at_once = same and all(torch.equal(d.get_state(), s) for d, s in states)
            for draw, state in zip(draws, after, strict=True):
                draw.set_state(state)
        return tokens

    def _draw_at_once(
        self,
        logits: Tensor,
        seen: Tensor | None,
        sampling: Sampling,
        draws: list[torch.Generator],
    ) -> Tensor:
        left = filter_logits(logits, **sampling.keywords(), seen=seen)
        return torch.cat([sample(row[None], d) for row, d in zip(left, draws, strict=True)])

    def _start(self, first: int, last: int, position: int) -> Tensor:
        """Read prompts of one length: → logits of what follows (rows, V). One that all these rows
        have is read once, and its keys and values are copied.
        """
        prompts = self.ids[first:last, :position]
        same = last - first > 1 and torch.equal(prompts, prompts[:1].expand_as(prompts))
        if not same or self.apart is not None:
            return self._read_all(first, last, position)
        logits = self._read_all(first, first + 1, position)
        if self.cache is not None:
            T = min(position, self.P)
            for layer in self.cache.layers:
                for stored in (layer.keys, layer.values):
                    stored[first + 1 : last, :, :T] = stored[first : first + 1, :, :T]
        return logits.expand(last - first, -1)

    def _read_all(self, first: int, last: int, position: int) -> Tensor:
        """Read rows from their start, or the last P tokens: → logits of what follows (rows, V)."""
        ids = self.ids[first:last, max(0, position - self.P) : position]
        if self.apart is None:
            return prefill(self.model, ids, self._rows(first, last))
        for cache in self.apart[first:last]:
            cache.reset()
        rows = zip(ids, self.apart[first:last], strict=True)
        return torch.cat([prefill(self.model, row[None], cache) for row, cache in rows])

    def _read(self, first: int, last: int, position: int) -> Tensor:
        """Read the newest token of rows in work: → logits of what follows (rows, V)."""
        cached = self.cache is not None or self.apart is not None
        if not cached or position > self.P:
            return self._read_all(first, last, position)
        tokens = self.ids[first:last, position - 1]
        if self.apart is None:
            cache = self._rows(first, last, position - 1)
            assert cache is not None
            return decode_step(self.model, tokens, cache)
        rows = zip(tokens, self.apart[first:last], strict=True)
        return torch.cat([decode_step(self.model, token[None], cache) for token, cache in rows])

    def _rows(self, first: int, last: int, length: int = 0) -> CacheRows | None:
        """The cache of rows first … last−1, which hold `length` tokens: the same object as long as
        the rows are the same ones, since a CUDA graph belongs to it. None without a cache.
        """
        if self.cache is None:
            return None
        if self._view is None or self._view[0] != (first, last):
            self._view = (first, last), CacheRows(self.cache, first, last)
        view = self._view[1]
        view.hold(length)
        return view


def _check_logits(logits: Tensor) -> None:
    """ValueError for a model that computes NaN or infinity: no choice would be an honest one."""
    if not bool(logits.amax(-1).isfinite().all()):  # NaN wins every maximum
        raise ValueError(
            "the model's logits are not finite: its weights are damaged, or too large for their "
            f"dtype, {logits.dtype}"
        )
