"""Generation in small free functions: check, prefill, filter, sample, decode one step, repeat.

Any model will do that has GPT2Model's call `model(ids, cache, last_only)` and its `config`. The
caller owns nothing but the ids: the KV cache lives as long as one `stream`. Shapes: B batch, T
prompt, n new tokens, V vocab_size, P n_positions.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator, Sequence
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.inference.engine import Inference

if TYPE_CHECKING:
    from gpt2.model import GPT2Model

GREEDY = 1e-8  # at or below this temperature the most likely token is taken
FEW_TOKENS = 512  # that a trained model mostly chooses among


# ------------------------------------------------------------------------------------ arguments


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
    _check_int("max_new_tokens", max_new_tokens, 0)
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


def check_sampling(
    V: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
) -> None:
    """ValueError that names the first of these that makes no sense, and what it is."""
    _check_number("temperature", temperature)
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0, got {temperature}")
    if top_k is not None:
        _check_int("top_k", top_k, 1)
    if top_p is not None:
        _check_number("top_p", top_p)
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {top_p}")
    _check_number("repetition_penalty", repetition_penalty)
    if not 1e-6 <= repetition_penalty <= 1e6:  # beyond, float32 logits overflow
        raise ValueError(
            f"repetition_penalty must be greater than 0 (1e-6 … 1e6), got {repetition_penalty}"
        )
    if eos_token_id is not None:
        _check_int("eos_token_id", eos_token_id, 0)
        if eos_token_id >= V:
            raise ValueError(f"eos_token_id {eos_token_id} is outside the vocabulary, 0 … {V - 1}")


def _check_int(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise ValueError(f"{name} must be an int, at least {least}, got {reprlib.repr(value)}")


def _check_number(name: str, value: Any) -> None:
    try:
        finite = isinstance(value, Real) and math.isfinite(value)
    except OverflowError:  # an int too large for any float
        finite = False
    if isinstance(value, bool) or not finite:
        raise ValueError(f"{name} must be a finite number, got {reprlib.repr(value)}")


# ----------------------------------------------------------------------------- from logits to token


def penalise_repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
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
    total = logits.logsumexp(-1, keepdim=True)  # (B, 1)
    few = min(FEW_TOKENS, logits.size(-1))
    values, order = logits.topk(few)  # (B, few), the likeliest first
    chances = (values - total).exp()
    if (
        chances.sum(-1) < p
    ).any():  # as unsure as an untrained model: all of them, 100 times slower
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
        logits = penalise_repetition(logits, seen, float(repetition_penalty))
    if temperature <= GREEDY:
        return logits
    if temperature != 1.0:
        logits = logits / float(temperature)
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None and top_p < 1.0:
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


# ------------------------------------------------------------------------------ one forward pass


@torch.no_grad()
def prefill(model: GPT2Model, ids: Tensor, cache: KVCache | None = None) -> Tensor:
    """Read a prompt, in one pass: ids (B, T) → logits of what follows (B, V)."""
    return model(ids, cache, last_only=True)[:, -1]


@torch.no_grad()
def decode_step(model: GPT2Model, tokens: Tensor, cache: KVCache) -> Tensor:
    """Read one more token per row: tokens (B,) → logits of what follows (B, V)."""
    return model(tokens[:, None], cache, last_only=True)[:, -1]


# ----------------------------------------------------------------------------------- all of them


def stream(
    model: GPT2Model,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    sliding: bool = False,
) -> Iterator[Tensor]:
    """The next tokens as they come: prompt (B, T) → up to n tensors (B,), one per step.

    A row that met the end token goes on with end tokens; when all rows have met it, the stream
    ends. sliding: past P tokens, each step reads the last P anew, at positions 0 … P−1, which
    costs a whole prefill per token. The model runs in eval mode and is as it was found whenever the
    caller looks: between tokens, after an error, after `close()`. ValueError for bad arguments
    here and now, before anything is computed.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    options["repetition_penalty"] = repetition_penalty
    check_sampling(model.config.vocab_size, **options, eos_token_id=eos_token_id)
    ids = check_prompt(model, input_ids, max_new_tokens, sliding)
    return _steps(model, ids, max_new_tokens, options, eos_token_id, use_cache, generator)


def generate(
    model: GPT2Model,
    input_ids: Tensor,
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    use_cache: bool = True,
    generator: torch.Generator | None = None,
    sliding: bool = False,
) -> Tensor:
    """Prompt (B, T) → prompt and continuation (B, T + n), shorter when every row met the end token.

    temperature ≤ 1e-8 takes the most likely token. Arguments and errors as in `stream`.
    """
    steps = stream(
        model,
        input_ids,
        max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        eos_token_id=eos_token_id,
        use_cache=use_cache,
        generator=generator,
        sliding=sliding,
    )
    new = [tokens[:, None] for tokens in steps]
    return torch.cat([input_ids.to(next(model.parameters()).device, torch.int64), *new], dim=1)


def generate_batch(
    model: GPT2Model,
    prompts: Sequence[Tensor],
    max_new_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    eos_token_id: int | None = None,
    use_cache: bool = True,
    generators: Sequence[torch.Generator] | None = None,
    sliding: bool = False,
) -> list[Tensor]:
    """Prompts (T₀,), (T₁,), … → each with its continuation, as `generate` gives it alone.

    A forward pass has one position for all its rows, so rows are in step by position: a row joins
    when the others have come to its prompt's end, and leaves after its n tokens or its end token.
    The closer the lengths, the more rows share a pass. generators: one per prompt, which draws what
    it would draw for that prompt alone; None draws from torch's own. Arguments and errors else as
    in `stream`.
    """
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
    options["repetition_penalty"] = repetition_penalty
    check_sampling(model.config.vocab_size, **options, eos_token_id=eos_token_id)
    if generators is not None and len(generators) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but {len(generators)} generators")
    rows = []
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Tensor) or prompt.dim() != 1:
            what = tuple(prompt.shape) if isinstance(prompt, Tensor) else type(prompt).__name__
            raise ValueError(f"prompt {i} must be an integer tensor (T,), got {what}")
        try:
            rows.append(check_prompt(model, prompt[None], max_new_tokens, sliding)[0])
        except ValueError as error:
            raise ValueError(f"prompt {i}: {error}") from None
    if not rows or max_new_tokens == 0:
        return rows
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    draws = None if generators is None else [generators[i] for i in order]
    text = _Rows(model, [rows[i] for i in order], max_new_tokens, use_cache)
    found = text.write(options, eos_token_id, draws)
    return [found[order.index(i)] for i in range(len(rows))]


class _Rows:
    """Rows in the order of their prompts' lengths, in one buffer: those in work lie side by side.

    So their part of the ids and of the KV cache is a view, and no row is ever copied to join.
    """

    def __init__(self, model: GPT2Model, prompts: list[Tensor], n: int, use_cache: bool):
        self.model, self.n = model, n
        self.config, self.P = model.config, model.config.n_positions
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

    def write(
        self,
        options: dict[str, Any],
        eos_token_id: int | None,
        generators: list[torch.Generator] | None,
    ) -> list[Tensor]:
        """Position by position, from the shortest prompt's end to the last row's."""
        inference = Inference(self.model)
        penalty = options["repetition_penalty"] != 1.0
        first = last = 0  # rows first … last−1 are in work
        position = self.lengths[0]
        while True:
            while first < last and self.ends[first] <= position:
                first += 1
            if first == last:
                if last == len(self.lengths):
                    return [row[:end] for row, end in zip(self.ids, self.ends, strict=True)]
                position = self.lengths[last]
            with inference:
                logits = [] if first == last else [self._read(first, last, position)]
                joining = last
                while joining < len(self.lengths) and self.lengths[joining] == position:
                    joining += 1
                if joining > last:
                    logits.append(self._join(last, joining, position))
            last = joining
            found = torch.cat(logits)
            _check_logits(found)
            ids = self.ids[first:last]
            seen = _seen(ids[:, :position], self.config.vocab_size) if penalty else None
            filtered = filter_logits(found, **options, seen=seen)
            if generators is None:
                tokens = sample(filtered, options["temperature"])
            else:
                drawn = zip(filtered, generators[first:last], strict=True)
                tokens = torch.cat(
                    [sample(row[None], options["temperature"], g) for row, g in drawn]
                )
            for i, token in enumerate(tokens.tolist(), first):
                if position < self.ends[i]:
                    self.ids[i, position] = token
                    if token == eos_token_id:
                        self.ends[i] = position + 1
            position += 1

    def _join(self, first: int, last: int, position: int) -> Tensor:
        """Read prompts of one length: → logits of what follows (rows, V)."""
        ids = self.ids[first:last, max(0, position - self.P) : position]
        cache = None if self.cache is None else self.cache.rows(first, last, 0)
        return prefill(self.model, ids, cache)

    def _read(self, first: int, last: int, position: int) -> Tensor:
        """Read the newest token of rows in work: → logits of what follows (rows, V)."""
        if self.cache is None or position > self.P:
            return self._join(first, last, position)
        cache = self.cache.rows(first, last, position - 1)
        return decode_step(self.model, self.ids[first:last, position - 1], cache)


def _steps(
    model: GPT2Model,
    ids: Tensor,
    n: int,
    options: dict[str, Any],
    eos_token_id: int | None,
    use_cache: bool,
    generator: torch.Generator | None,
) -> Iterator[Tensor]:
    """`stream` after its checks; `ids` becomes the window of the last P tokens as it goes."""
    if n == 0:
        return
    B, T = ids.shape
    config, P = model.config, model.config.n_positions
    seen = _seen(ids, config.vocab_size) if options["repetition_penalty"] != 1.0 else None
    finished = torch.zeros(B, dtype=torch.bool, device=ids.device)
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
        tokens = sample(
            filter_logits(logits, **options, seen=seen), options["temperature"], generator
        )
        if eos_token_id is not None:
            tokens = torch.where(finished, eos_token_id, tokens)
            finished |= tokens == eos_token_id
        yield tokens
        if i + 1 == n or (eos_token_id is not None and bool(finished.all())):
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


def _seen(ids: Tensor, V: int) -> Tensor:
    """Which tokens occur in each row: (B, T) → (B, V) bool."""
    return torch.zeros(len(ids), V, dtype=torch.bool, device=ids.device).scatter_(1, ids, True)


def _check_logits(logits: Tensor) -> None:
    """ValueError for a model that computes NaN or infinity: no choice would be an honest one."""
    if not bool(logits.amax(-1).isfinite().all()):  # NaN wins every maximum
        raise ValueError(
            "the model's logits are not finite: its weights are damaged, or too large for their "
            f"dtype, {logits.dtype}"
        )
