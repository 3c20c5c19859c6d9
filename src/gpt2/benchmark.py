"""How fast: named measurements, each of several contenders run in turn, as a Markdown table.

Contenders take turns round by round, so that whatever else the machine does hits all of them, and
the figure is each one's median. A new measurement is a function and a line in `MEASUREMENTS`.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.engine import FEW_ROWS, prepare
from gpt2.generate import generate
from gpt2.model import GPT2Config, GPT2Model


@dataclass(frozen=True)
class Contender:
    """One way to do the work: its name, and what does `amount` units of it once."""

    name: str
    run: Callable[[], object]
    amount: int


@dataclass(frozen=True)
class Result:
    """What a contender reached: its rate in each round, in units per second."""

    name: str
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Table:
    """One measurement: what was done, in which unit, and how fast; the last result is the base of
    the ratios.
    """

    title: str
    setting: str
    unit: str
    results: tuple[Result, ...]

    def ratio(self, result: Result) -> float:
        """A result's median over the last one's."""
        return result.median / self.results[-1].median

    def markdown(self) -> str:
        """The table, with its title and setting."""
        lines = [f"### {self.title}", "", self.setting, ""]
        lines += [f"| | {self.unit} (median) | slowest – fastest | ratio |", "|---|--:|--:|--:|"]
        lines += [
            f"| {result.name} | {result.median:.1f} | {min(result.rates):.1f} – "
            f"{max(result.rates):.1f} | {self.ratio(result):.2f} |"
            for result in self.results
        ]
        return "\n".join(lines)


def interleave(
    contenders: Sequence[Contender], rounds: int, warm_up: bool = True
) -> tuple[Result, ...]:
    """Run each contender once per round → their rates; a round before the first is not counted."""
    from tqdm import tqdm

    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    total = (rounds + warm_up) * len(contenders)
    with tqdm(total=total, leave=False, disable=not sys.stderr.isatty()) as bar:
        for number in range(-int(warm_up), rounds):
            for contender in contenders:
                bar.set_description(contender.name)
                started = time.perf_counter()
                contender.run()
                seconds = time.perf_counter() - started
                if number >= 0:
                    rates[contender.name].append(contender.amount / seconds)
                bar.update()
    return tuple(Result(name, tuple(found)) for name, found in rates.items())


def measure_cache(quick: bool = False, device: str = "cpu", rounds: int = 3) -> Table:
    """Greedy generation with and without the KV cache, tokens per second."""
    config = (
        GPT2Config(vocab_size=5003, n_embd=192, n_layer=4, n_head=6)
        if quick
        else GPT2Config.gpt2_small()
    )
    prompt, new = 32, 100
    torch.manual_seed(0)
    model = GPT2Model(config).to(device).eval()
    ids = torch.randint(config.vocab_size, (1, prompt), device=device)

    def contender(name: str, use_cache: bool) -> Contender:
        def run() -> None:
            generate(model, ids, new, temperature=0.0, use_cache=use_cache)[0, -1].item()

        return Contender(name, run, new)

    return Table(
        "Generation with and without the KV cache",
        f"{config.n_layer} layers of {config.n_embd}, {config.vocab_size} tokens in the "
        f"vocabulary, random weights, float32; batch 1, {prompt} tokens of prompt, {new} new ones, "
        f"greedy; {rounds} rounds in turn on {device}.",
        "tokens/s",
        interleave([contender("with cache", True), contender("without", False)], rounds),
    )


@dataclass(frozen=True)
class Drift:
    """How far a prepared model's predictions are from the plain model's: perplexities, and the mean
    Kullback–Leibler divergence KL(plain ‖ prepared) in nats per token.
    """

    plain_perplexity: float
    perplexity: float
    kl: float


@torch.no_grad()
def drift(model: torch.nn.Module, windows: Tensor, **options: Any) -> Drift:
    """Compare `prepare(model, **options)` with the plain model on texts (W, T).

    The prepared model reads each text in pieces of as many tokens as its few-row layers take, so
    that every token goes through the layers that decoding uses.
    """
    plain = [model(window[None])[0, :-1].log_softmax(-1) for window in windows]  # (T-1, V) each
    loss = plain_loss = kl = 0.0
    with prepare(model, **options) as prepared:
        for window, want in zip(windows, plain, strict=True):
            cache = KVCache(model.config, 1, len(window))
            pieces = [prepared(piece[None], cache) for piece in window[:-1].split(FEW_ROWS)]
            found = torch.cat(pieces, 1)[0].log_softmax(-1)
            plain_loss += F.nll_loss(want, window[1:]).item()
            loss += F.nll_loss(found, window[1:]).item()
            kl += F.kl_div(found, want, log_target=True, reduction="batchmean").item()
    W = len(windows)
    return Drift(math.exp(plain_loss / W), math.exp(loss / W), kl / W)


MEASUREMENTS: dict[str, Callable[..., Table]] = {"cache": measure_cache}


def machine() -> str:
    """The machine and the versions that the figures hold for, as a line."""
    processor = platform.processor() or platform.machine()
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def report(
    names: Sequence[str] = (), quick: bool = False, device: str = "cpu", rounds: int = 3
) -> str:
    """Run the named measurements (none: all) → Markdown. ValueError for an unknown name."""
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise ValueError(f"no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    tables = [
        MEASUREMENTS[name](quick=quick, device=device, rounds=rounds)
        for name in names or MEASUREMENTS
    ]
    return "\n\n".join([machine(), *(table.markdown() for table in tables)])
