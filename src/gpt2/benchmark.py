"""How fast: named measurements, each of several contenders run in turn, as a Markdown table.

Contenders take turns round by round, so that whatever else the machine does hits all of them, and
the figure is each one's median. A new measurement is a function and a line in `MEASUREMENTS`.
"""

from __future__ import annotations

import copy
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.cache import KVCache
from gpt2.checkpoints import save_pretrained
from gpt2.engine import FEW_ROWS, Inference, prepare
from gpt2.generate import decode_step, generate, prefill
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


def measure_cache(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Greedy generation with and without the KV cache, tokens per second."""
    prompt, new = 32, 100
    own = subject(quick, device, model)
    ids = torch.randint(own.config.vocab_size, (1, prompt), device=device)

    def contender(name: str, use_cache: bool) -> Contender:
        def run() -> None:
            generate(own, ids, new, temperature=0.0, use_cache=use_cache)[0, -1].item()

        return Contender(name, run, new)

    return Table(
        "Generation with and without the KV cache",
        f"{_described(own)}, float32; batch 1, {prompt} tokens of prompt, {new} new ones, greedy; "
        f"{rounds} rounds in turn on {device}.",
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
    plain = [
        model(window[None])[0, :-1].double().log_softmax(-1) for window in windows
    ]  # (T-1, V) each
    loss = plain_loss = kl = 0.0
    with prepare(model, **options) as prepared:
        for window, want in zip(windows, plain, strict=True):
            cache = KVCache(model.config, 1, len(window))
            pieces = [prepared(piece[None], cache) for piece in window[:-1].split(FEW_ROWS)]
            found = torch.cat(pieces, 1)[0].double().log_softmax(-1)
            plain_loss += F.nll_loss(want, window[1:]).item()
            loss += F.nll_loss(found, window[1:]).item()
            kl += F.kl_div(found, want, log_target=True, reduction="batchmean").item()
    W = len(windows)
    return Drift(math.exp(plain_loss / W), math.exp(loss / W), kl / W)


# -------------------------------------------------------------------- next to Hugging Face


def subject(quick: bool, device: str, model: str | None) -> GPT2Model:
    """What is measured: a checkpoint, or GPT-2 small's size (quick: a tenth) with random weights,
    made of the pieces that are assembled right now.
    """
    if model is not None:
        return GPT2Model.from_pretrained(model).to(device)
    torch.manual_seed(0)
    config = (
        GPT2Config(vocab_size=50257, n_embd=192, n_layer=4, n_head=3)
        if quick
        else GPT2Config.gpt2_small()
    )
    return GPT2Model(config).to(device).eval()


def their_model(model: GPT2Model) -> torch.nn.Module:
    """`transformers`' model with the same weights. ValueError when it is not installed."""
    try:
        from transformers import GPT2LMHeadModel
    except ImportError:
        raise ValueError("the opponent is transformers: pip install transformers") from None
    with tempfile.TemporaryDirectory() as folder:
        save_pretrained(model, Path(folder) / "model")
        theirs = GPT2LMHeadModel.from_pretrained(Path(folder) / "model")
    return theirs.to(next(model.parameters()).device).eval()


def their_text(theirs: torch.nn.Module, ids: Tensor, new: int) -> Tensor:
    """Greedy text by their `generate`, exactly `new` tokens of it."""
    return theirs.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=new,
        min_new_tokens=new,
        do_sample=False,
        pad_token_id=0,
    )


def ways(device: str) -> dict[str, dict[str, Any]]:
    """How a model can be prepared here: name → `prepare`'s options, the most exact first."""
    found: dict[str, dict[str, Any]] = {"float32": {}, "bfloat16": {"dtype": torch.bfloat16}}
    if device == "cpu":
        found |= {"float16": {"dtype": torch.float16}, "int8": {"quantize": "int8"}}
    return found


def _described(model: GPT2Model) -> str:
    config = model.config
    return (
        f"{config.n_layer} layers of {config.n_embd}, {config.vocab_size} tokens in the vocabulary"
    )


def _generation(
    title: str, B: int, prompt: int, new: int, quick: bool, device: str, rounds: int, model: Any
) -> Table:
    """Greedy generation in every way, next to Hugging Face's in float32."""
    plain = subject(quick, device, model)
    theirs = their_model(plain)
    ids = torch.randint(plain.config.vocab_size, (B, prompt), device=device)

    def ours(name: str, options: dict[str, Any]) -> Contender:
        own = copy.deepcopy(plain)
        prepare(own, device=device, **options)
        return Contender(
            f"gpt2, {name}", lambda: generate(own, ids, new, temperature=0.0).tolist(), B * new
        )

    contenders = [ours(name, options) for name, options in ways(device).items()]
    opponent = Contender(
        "Hugging Face, float32", lambda: their_text(theirs, ids, new).tolist(), B * new
    )
    return Table(
        title,
        f"{_described(plain)}; batch {B}, {prompt} tokens of prompt, {new} new ones each, greedy; "
        f"{rounds} rounds in turn on {device}.",
        "tokens/s",
        interleave([*contenders, opponent], rounds),
    )


def measure_decode(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """One sequence, short prompt: what reading the weights costs."""
    new = 50 if quick else 100
    return _generation("Decoding one sequence", 1, 32, new, quick, device, rounds, model)


def measure_batch8(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Eight sequences with long prompts."""
    prompt, new = (128, 16) if quick else (512, 64)
    return _generation("Eight sequences", 8, prompt, new, quick, device, rounds, model)


def measure_prefill(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """A prompt of 512 tokens up to the logits of what follows."""
    plain = subject(quick, device, model)
    theirs = their_model(plain)
    T = min(512, plain.config.n_positions)
    ids = torch.randint(plain.config.vocab_size, (1, T), device=device)

    @torch.no_grad()
    def opponent() -> None:
        theirs(ids, use_cache=True, logits_to_keep=1).logits[0, -1, 0].item()

    with prepare(plain, device=device):
        contenders = [
            Contender("gpt2, float32", lambda: prefill_once(plain, ids), T),
            Contender("Hugging Face, float32", opponent, T),
        ]
        results = interleave(contenders, rounds)
    setting = f"{_described(plain)}; one prompt of {T} tokens; {rounds} rounds in turn on {device}."
    return Table("Reading a prompt", setting, "tokens/s", results)


def prefill_once(model: GPT2Model, ids: Tensor) -> float:
    """Read a prompt into a new cache → a logit, so that the work is done."""
    weight = next(model.parameters())
    cache = KVCache(model.config, len(ids), ids.size(1), weight.device, weight.dtype)
    with Inference(model):
        return prefill(model, ids, cache)[0, 0].item()


def _steps(name: str, model: GPT2Model, B: int, S: int, steps: int, device: str) -> Contender:
    """One-token steps of B sequences that see S tokens each, itself included."""
    weight = next(model.parameters())
    cache = KVCache(model.config, B, S, weight.device, weight.dtype)
    cache.buffer.normal_()
    tokens = torch.zeros(B, dtype=torch.int64, device=device)
    inference = Inference(model)

    def run() -> None:
        for _ in range(steps):
            for layer in cache.layers:
                layer.length = S - 1
            with inference:
                logits = decode_step(model, tokens, cache)
        logits[0, 0].item()

    return Contender(f"{name} ({cache.buffer.nbytes / 1e6:.1f} MB of cache)", run, B * steps)


def measure_context(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """A step's cost against the tokens it sees."""
    own = subject(quick, device, model)
    P, steps = own.config.n_positions, 4 if quick else 10
    sizes = [S for S in (1024, 512, 256, 128, 32, 1) if S <= P]
    with prepare(own, device=device):
        contenders = [_steps(f"{S} tokens seen", own, 1, S, steps, device) for S in sizes]
        results = interleave(contenders, rounds)
    setting = f"{_described(own)}; float32, batch 1; {rounds} rounds in turn on {device}."
    return Table("Decoding against context", setting, "tokens/s", results)


def measure_batch(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """A step's cost against the number of sequences."""
    own = subject(quick, device, model)
    steps, S = (2, 64) if quick else (5, 128)
    S = min(S, own.config.n_positions)
    with prepare(own, device=device):
        contenders = [_steps(f"batch {B}", own, B, S, steps, device) for B in (64, 16, 8, 4, 2, 1)]
        results = interleave(contenders, rounds)
    setting = f"{_described(own)}; float32, {S} tokens seen; {rounds} rounds in turn on {device}."
    return Table("Decoding against batch", setting, "tokens/s", results)


LOAD_OURS = """
import sys, torch
from gpt2.model import GPT2Model
from gpt2.generate import generate
model = GPT2Model.from_pretrained(sys.argv[1])
"""
OURS = f"""{LOAD_OURS}
generate(model, torch.tensor([[1, 2, 3]]), int(sys.argv[2]), temperature=0.0)
"""
LOAD_THEIRS = """
import sys, torch
from transformers import GPT2LMHeadModel
model = GPT2LMHeadModel.from_pretrained(sys.argv[1])
"""
THEIRS = f"""{LOAD_THEIRS}
ids = torch.tensor([[1, 2, 3]])
model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=int(sys.argv[2]),
               do_sample=False, pad_token_id=0)
"""
# Linux's getrusage counts what the parent held when it started the process; VmHWM does not
PEAK = """
import pathlib, re, resource
status = pathlib.Path("/proc/self/status")
if status.exists():
    print(1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]))
else:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""


def _process(code: str, folder: Path, new: int) -> str:
    """Run a program in a new process → what it prints. ValueError when it fails."""
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder), str(new)], capture_output=True, text=True
    )
    if done.returncode:
        raise ValueError(f"a measured process failed: {done.stderr.strip()[-300:]}")
    return done.stdout


def measure_start(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """From a process's start to the first token, the weights read from a safetensors folder."""
    own = subject(quick, "cpu", model)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(own, Path(temporary) / "model")
        contenders = [
            Contender("gpt2", lambda: _process(OURS, folder, 1), 1),
            Contender("Hugging Face", lambda: _process(THEIRS, folder, 1), 1),
        ]
        results = interleave(contenders, rounds)
    setting = f"{_described(own)}; 3 tokens of prompt, 1 new; {rounds} rounds in turn on the CPU."
    return Table("Process start to first token", setting, "starts/s", results)


def measure_memory(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Peak memory of loading and float32 decoding, in a process of its own."""
    if sys.platform == "win32":
        raise ValueError("the peak memory is asked of Unix's getrusage; not on Windows")
    own = subject(quick, "cpu", model)
    new = 20 if quick else 100
    weights = sum(p.numel() * p.element_size() for p in own.parameters())
    cache = KVCache(own.config, 1, 3 + new).buffer.nbytes
    imports = "import sys, torch, gpt2.model, gpt2.generate, safetensors.torch"
    their_imports = "import sys, torch; from transformers import GPT2LMHeadModel"
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(own, Path(temporary) / "model")
        programs = {
            "gpt2": OURS,
            "Hugging Face": THEIRS,
            "gpt2, loading alone": LOAD_OURS,
            "Hugging Face, loading alone": LOAD_THEIRS,
            "gpt2, imports alone": imports,
            "Hugging Face, imports alone": their_imports,
        }
        peaks = {name: int(_process(code + PEAK, folder, new)) for name, code in programs.items()}
    base = peaks["gpt2, imports alone"]
    ratio = (peaks["gpt2"] - base) / (weights + cache)
    loading = (peaks["gpt2, loading alone"] - base) / weights
    results = [Result(name, (peak / 1e6,)) for name, peak in peaks.items()]
    results.append(Result("weights + cache", ((weights + cache) / 1e6,)))
    setting = (
        f"{_described(own)}; loaded, then {new} tokens in float32 on the CPU; one run each. "
        f"Above its imports, gpt2 takes {ratio:.2f} of weights + cache, and {loading:.2f} of the "
        "weights to load them."
    )
    return Table("Peak memory", setting, "MB", tuple(results))


def measure_training(**options: Any) -> Table:
    """Training at the size of the small preset, next to Hugging Face."""
    from gpt2 import bench_training

    options.pop("model", None)
    return bench_training.measure_training(**options)


def measure_training_124m(**options: Any) -> Table:
    """Training at GPT-2 small's size, next to Hugging Face."""
    from gpt2 import bench_training

    options.pop("model", None)
    return bench_training.measure_training_124m(**options)


def explain(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> str:
    """What bounds decoding: bytes read per token, the rate a plain sum reads the same bytes at, and
    the part of it that each way reaches, all in the same rounds → Markdown.
    """
    plain = subject(quick, device, model)
    weights = [m.weight for m in plain.modules() if isinstance(m, torch.nn.Linear)]
    size = sum(w.nbytes for w in weights)
    contenders = [
        Contender("a plain sum", lambda: [w.sum() for w in weights][-1].item(), size),
    ]
    read: dict[str, int] = {"a plain sum": size}
    steps, S = 5, min(64, plain.config.n_positions)
    for name, options in ways(device).items():
        own = copy.deepcopy(plain)
        prepared = prepare(own, device=device, **options)
        contender = _steps(name, own, 1, S, steps, device)
        cache = KVCache(own.config, 1, S, "meta", next(own.parameters()).dtype).buffer.nbytes
        read[name] = prepared.bytes_per_token + cache
        contenders.append(Contender(name, contender.run, read[name] * steps))
    with torch.no_grad():
        results = interleave(contenders, rounds)
    top = results[0].median
    lines = [
        "### What bounds decoding",
        "",
        f"{_described(plain)}; batch 1, {S} tokens seen. One token reads every linear layer's "
        "weight once, and the cache; the embeddings are two rows.",
        "",
        "| | MB per token | GB/s (median) | of a plain sum | tokens/s if it read as fast |",
        "|---|--:|--:|--:|--:|",
    ]
    for result in results:
        amount = read[result.name]
        lines.append(
            f"| {result.name} | {amount / 1e6:.4g} | {result.median / 1e9:.1f} | "
            f"{result.median / top:.2f} | {top / amount:.0f} |"
        )
    lines += [
        "",
        "Near 1.00: bound by memory. Well below: by arithmetic on the numbers read (int8), or by "
        "the calls themselves (small models).",
    ]
    return "\n".join(lines)


MEASUREMENTS: dict[str, Callable[..., Table]] = {
    "cache": measure_cache,
    "decode": measure_decode,
    "batch8": measure_batch8,
    "prefill": measure_prefill,
    "context": measure_context,
    "batch": measure_batch,
    "start": measure_start,
    "memory": measure_memory,
    "training": measure_training,
    "training-124m": measure_training_124m,
}


def machine() -> str:
    """The machine, its load and the versions that the figures hold for, as a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}; "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def tables(
    names: Sequence[str] = (),
    quick: bool = False,
    device: str = "cpu",
    rounds: int = 3,
    model: str | None = None,
) -> list[Table]:
    """Run the named measurements (none: all). ValueError for an unknown name."""
    if unknown := [name for name in names if name not in MEASUREMENTS]:
        raise ValueError(f"no measurement {unknown[0]!r}; there are {', '.join(MEASUREMENTS)}")
    return [
        MEASUREMENTS[name](quick=quick, device=device, rounds=rounds, model=model)
        for name in names or MEASUREMENTS
    ]


def report(found: Sequence[Table]) -> str:
    """The machine and the tables → Markdown."""
    return "\n\n".join([machine(), *(table.markdown() for table in found)])


def as_json(found: Sequence[Table]) -> str:
    """The machine and the tables, every round's figure → JSON."""
    rows = [asdict(table) for table in found]
    return json.dumps({"machine": machine(), "tables": rows}, indent=2)
