"""Generation in small free functions: prefill, choose, decode one step, repeat.

Any model will do that has GPT2Model's call `model(ids, cache, last_only)` and its `config`. The
caller owns nothing but the ids: the KV cache lives as long as one `stream`. Shapes: B batch, T
prompt, n new tokens, V vocab_size, P n_positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Unpack

import torch
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.generation.arguments import Rules, SamplingKeywords, check_prompt
from gpt2.generation.filters import filter_logits, sample, tokens_seen
from gpt2.inference.engine import Inference

if TYPE_CHECKING:
    from gpt2.generation.arguments import TokenIds
    from gpt2.model import GPT2Model

__all__ = [
    "decode_step",
    "filter_logits",
    "generate",
    "generate_batch",
    "prefill",
    "sample",
    "stream",
    "stream_batch",
]


# ------------------------------------------------------------------------------ one forward pass


@torch.no_grad()
def prefill(model: GPT2Model, ids: Tensor, cache: KVCache | None = None) -> Tensor:
    """Read a prompt, in one pass: ids (B, T) → logits of what follows (B, V)."""
    return model(ids, cache, last_only=True)[:, -1]


@torch.no_grad()
def decode_step(model: GPT2Model, tokens: Tensor, cache: KVCache) -> Tensor:
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
    """`stream` after its checks; `ids` becomes the window of the last P tokens as it goes."""
    if n == 0:
        return
    B, T = ids.shape
    config, P = model.config, model.config.n_positions
    seen = tokens_seen(ids, config.vocab_size) if rules.sampling.looks_back else None
    finished = torch.zeros(B, dtype=torch.bool, device=ids.device)
    end_ids = torch.tensor(rules.ends, dtype=torch.int64, device=ids.device)
    before = ids[:, -1]
    cache = None
    if use_cache:
        weight = next(model.parameters())
        cache = KVCache(config, B, min(P, T + n), weight.device, weight.dtype)
    inference = Inference(model)
    ids = ids[:, -P:]
    with inference:
        logits = prefill(model, ids, cache)
    for i in range(n):
        _check_logits(logits)
        tokens = sample(rules.filter(logits, seen), rules.sampling.temperature, generator)
        if rules.ends:
            tokens = torch.where(finished, before, tokens)
            finished |= torch.isin(tokens, end_ids)
            before = tokens
        yield tokens
        if i + 1 == n or (rules.ends and bool(finished.all())):
            return
        if seen is not None:
            seen.scatter_(1, tokens[:, None], True)
        ids = torch.cat([ids, tokens[:, None]], dim=1)[:, -P:]
        with inference:
            if cache is not None and cache.length < P:
                logits = decode_step(model, tokens, cache)
            else:
                if cache is not None:
                    cache.reset()
                logits = prefill(model, ids, cache)


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
        self.cache = None
        if use_cache:
            weight = next(model.parameters())
            size = min(self.P, longest)
            self.cache = KVCache(model.config, N, size, weight.device, weight.dtype)
        self._view: tuple[tuple[int, int], KVCache] | None = None

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
        seen = None
        sampling = rules.sampling
        if sampling.looks_back:
            seen = tokens_seen(self.ids[first:last, :position], self.V)
        filtered = rules.filter(logits, seen)
        if draws is None or sampling.greedy:
            return sample(filtered, sampling.temperature)
        rows = zip(filtered, draws[first:last], strict=True)
        return torch.cat([sample(row[None], sampling.temperature, draw) for row, draw in rows])

    def _start(self, first: int, last: int, position: int) -> Tensor:
        """Read prompts of one length: → logits of what follows (rows, V). One that all these rows
        have is read once, and its keys and values are copied.
        """
        prompts = self.ids[first:last, :position]
        if last - first == 1 or not torch.equal(prompts, prompts[:1].expand_as(prompts)):
            return self._read_all(first, last, position)
        logits = self._read_all(first, first + 1, position)
        if self.cache is not None:
            one, all_rows = self._rows(first, first + 1), self._rows(first, last)
            T = min(position, self.P)
            all_rows.buffer[..., :T, :] = one.buffer[..., :T, :].clone()
        return logits.expand(last - first, -1)

    def _read_all(self, first: int, last: int, position: int) -> Tensor:
        """Read rows from their start, or the last P tokens: → logits of what follows (rows, V)."""
        ids = self.ids[first:last, max(0, position - self.P) : position]
        cache = None if self.cache is None else self._rows(first, last)
        return prefill(self.model, ids, cache)

    def _read(self, first: int, last: int, position: int) -> Tensor:
        """Read the newest token of rows in work: → logits of what follows (rows, V)."""
        if self.cache is None or position > self.P:
            return self._read_all(first, last, position)
        cache = self._rows(first, last, position - 1)
        return decode_step(self.model, self.ids[first:last, position - 1], cache)

    def _rows(self, first: int, last: int, length: int = 0) -> KVCache:
        """The cache of rows first … last−1, which hold `length` tokens: the same object as long as
        the rows are the same ones, since a CUDA graph belongs to it.
        """
        assert self.cache is not None
        if self._view is None or self._view[0] != (first, last):
            self._view = (first, last), self.cache.rows(first, last, length)
        view = self._view[1]
        for layer in view.layers:
            layer.length = length
        return view


def _check_logits(logits: Tensor) -> None:
    """ValueError for a model that computes NaN or infinity: no choice would be an honest one."""
    if not bool(logits.amax(-1).isfinite().all()):  # NaN wins every maximum
        raise ValueError(
            "the model's logits are not finite: its weights are damaged, or too large for their "
            f"dtype, {logits.dtype}"
        )
