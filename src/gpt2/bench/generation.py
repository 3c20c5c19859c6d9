"""How fast generation is, next to Hugging Face's: decoding, batches, prompts, memory, start; and
what narrower weights cost.
"""

from __future__ import annotations

import copy
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.bench.measuring import Contender, Curve, Result, Table, interleave
from gpt2.cache import KVCache
from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import open_model
from gpt2.generation.generating import decode_step, generate, prefill
from gpt2.generation.speculative import speculate
from gpt2.inference.engine import FEW_ROWS, Inference, prepare
from gpt2.inference.loading import load_model
from gpt2.model import GPT2Config, GPT2Model
from gpt2.sampling import next_token
from gpt2.training.optimization import autocast_dtype


def measure_cache(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Greedy generation with and without the KV cache, tokens per second."""
    prompt, new = 32, 40 if quick else 100
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


def measure_drift(
    quick: bool = False, device: str = "cpu", rounds: int = 1, model: str | None = None
) -> Table:
    """What narrower weights cost: perplexity on text that the bundled model was not trained on.

    It needs weights that were trained: the model is the bundled one where none is named.
    """
    from gpt2.formats.bundled import bundled
    from gpt2.formats.opening import load_tokenizer

    folder = bundled() if model is None else model
    own = load_model(open_model(folder), device=device)
    text = (bundled() / "held-out.txt").read_text(encoding="utf-8")
    ids = torch.tensor(load_tokenizer(folder).encode(text), device=device)
    T = min(256, own.config.n_positions)
    count = min(len(ids) // T, 4 if quick else 100)
    windows = ids[: count * T].view(count, T)
    results = []
    for name, options in reversed(ways(device).items()):
        if options:
            found = drift(own, windows, **options)
            label = f"{name} (KL {found.kl:.1e} nats)"
            results.append(Result(label, (found.perplexity,)))
    results.append(Result("float32", (found.plain_perplexity,)))
    setting = (
        f"{_described(own)}; {count} windows of {T} tokens of held-out Shakespeare. KL: the mean "
        "divergence of the predictions from float32's, KL(float32 ‖ narrower). No speed here."
    )
    return Table("What narrower weights cost", setting, "perplexity", tuple(results), digits=4)


# -------------------------------------------------------------------- next to Hugging Face


def subject(quick: bool, device: str, model: str | None) -> GPT2Model:
    """What is measured: a checkpoint, or GPT-2 small's size (quick: a tenth) with random weights,
    made of the pieces that are assembled right now.
    """
    if model is not None:
        return load_model(open_model(model), device=device)
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
        found["int4"] = {"quantize": "int4"}
    return found


def model_in_folder(folder: Path, config: GPT2Config, device: str) -> nn.Module:
    """A model of these sizes from a folder's `model.py`, with nanoGPT's interface: GPTConfig with
    its field names, GPT(config), and generate(ids, max_new_tokens, temperature, top_k).

    The file is executed. ValueError when it is not there, fails, or has another interface.
    """
    import importlib.util

    path = folder / "model.py"
    if not path.is_file():
        raise ValueError(f"{folder} has no model.py")
    spec = importlib.util.spec_from_file_location("opponent_model", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up there
    sizes = {"block_size": config.n_positions, "vocab_size": config.vocab_size, "dropout": 0.0}
    sizes |= {name: getattr(config, name) for name in ("n_layer", "n_head", "n_embd")}
    try:
        spec.loader.exec_module(module)
        model = module.GPT(module.GPTConfig(**sizes))
        model.generate  # noqa: B018
    except Exception as error:
        raise ValueError(
            f"{path} is not a model like nanoGPT's ({type(error).__name__}: {error})"
        ) from error
    return model.to(device).eval()


def _described(model: GPT2Model) -> str:
    config = model.config
    return (
        f"{config.n_layer} layers of {config.n_embd}, {config.vocab_size} tokens in the vocabulary"
    )


def _generation(
    title: str,
    B: int,
    prompt: int,
    new: int,
    quick: bool,
    device: str,
    rounds: int,
    model: str | None,
    opponent: Path | None,
) -> Table:
    """Greedy generation in every way, next to Hugging Face's and the opponent's."""
    plain = subject(quick, device, model)
    ids = torch.randint(plain.config.vocab_size, (B, prompt), device=device)

    def ours(name: str, options: dict[str, Any]) -> Contender:
        own = copy.deepcopy(plain)
        prepare(own, device=device, **options)
        return Contender(
            f"gpt2, {name}", lambda: generate(own, ids, new, temperature=0.0).tolist(), B * new
        )

    def hugging_face(dtype: torch.dtype) -> Contender:
        theirs = their_model(plain).to(dtype)
        name = f"Hugging Face, {str(dtype).removeprefix('torch.')}"
        return Contender(name, lambda: their_text(theirs, ids, new).tolist(), B * new)

    contenders = [ours(name, options) for name, options in ways(device).items()]
    if opponent is not None:
        other = model_in_folder(opponent, plain.config, device)
        name = f"{opponent.resolve().name}, float32, with its own weights"
        contenders.append(
            Contender(name, lambda: other.generate(ids, new, top_k=1).tolist(), B * new)
        )
    setting = (
        f"{_described(plain)}; batch {B}, {prompt} tokens of prompt, {new} new ones each, greedy; "
        f"{rounds} rounds in turn on {device}."
    )
    if device != "cpu" or autocast_dtype("auto", torch.device("cpu")):
        contenders.append(hugging_face(torch.bfloat16))
    else:  # prompts take 80 times as long as in float32
        setting += " Hugging Face in bfloat16 is left out, because this processor only emulates it."
    contenders.append(hugging_face(torch.float32))
    return Table(
        title,
        setting,
        "tokens/s",
        interleave(contenders, rounds),
    )


def measure_decode(
    quick: bool = False,
    device: str = "cpu",
    rounds: int = 3,
    model: str | None = None,
    opponent: Path | None = None,
) -> Table:
    """One sequence, short prompt: what reading the weights costs."""
    new = 30 if quick else 100
    return _generation("Decoding one sequence", 1, 32, new, quick, device, rounds, model, opponent)


def measure_batch8(
    quick: bool = False,
    device: str = "cpu",
    rounds: int = 3,
    model: str | None = None,
    opponent: Path | None = None,
) -> Table:
    """Eight sequences with long prompts."""
    prompt, new = (64, 8) if quick else (512, 64)
    return _generation("Eight sequences", 8, prompt, new, quick, device, rounds, model, opponent)


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
    for layer in cache.layers:
        layer.keys.normal_()
        layer.values.normal_()
    tokens = torch.zeros(B, dtype=torch.int64, device=device)
    inference = Inference(model)

    def run() -> None:
        for _ in range(steps):
            for layer in cache.layers:
                layer.length = S - 1
            with inference:
                logits = decode_step(model, tokens, cache)
        logits[0, 0].item()

    return Contender(f"{name} ({cache.nbytes / 1e6:.1f} MB of cache)", run, B * steps)


def measure_context(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """A step's cost against the tokens it sees."""
    own = subject(quick, device, model)
    P, steps = own.config.n_positions, 4 if quick else 30
    sizes = [S for S in (1024, 512, 256, 128, 32, 1) if S <= P]
    with prepare(own, device=device):
        contenders = [_steps(f"{S} tokens seen", own, 1, S, steps, device) for S in sizes]
        results = interleave(contenders, rounds)
    setting = f"{_described(own)}; float32, batch 1; {rounds} rounds in turn on {device}."
    curve = _curve(own, "tokens seen", sizes, results, [(1, S) for S in sizes])
    return Table("Decoding against context", setting, "tokens/s", results, curve=curve)


def _curve(
    model: GPT2Model,
    xlabel: str,
    sizes: list[int],
    results: Sequence[Result],
    shapes: list[tuple[int, int]],
) -> Curve:
    """Costs against sizes that fall, with the bytes that steps of shapes (B, S) read."""
    weights = sum(m.weight.nbytes for m in model.modules() if isinstance(m, nn.Linear))
    dtype = model.lm_head.weight.dtype
    read = [weights + KVCache(model.config, B, S, "meta", dtype).nbytes for B, S in shapes]
    ms = [1e3 * B / result.median for (B, _), result in zip(shapes, results, strict=True)]
    expected = [ms[-1] * size / read[-1] for size in read]
    return Curve(xlabel, tuple(sizes[::-1]), tuple(ms[::-1]), tuple(expected[::-1]))


def measure_batch(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """A step's cost against the number of sequences."""
    own = subject(quick, device, model)
    steps, S = (2, 64) if quick else (10, 128)
    S = min(S, own.config.n_positions)
    sizes = [64, 32, 16, 8, 4, 2, 1]
    with prepare(own, device=device):
        contenders = [_steps(f"batch {B}", own, B, S, steps, device) for B in sizes]
        results = interleave(contenders, rounds)
    setting = f"{_described(own)}; float32, {S} tokens seen; {rounds} rounds in turn on {device}."
    curve = _curve(own, "sequences", sizes, results, [(B, S) for B in sizes])
    return Table("Decoding against batch", setting, "tokens/s", results, curve=curve)


def measure_sampling(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Choosing a token, beside the step that leads to it."""
    own = subject(quick, device, model)
    V, times = own.config.vocab_size, 20
    generator = torch.Generator(device).manual_seed(0)
    spread = 3.0  # in which a trained GPT-2's logits differ; equal ones would all be candidates
    logits = spread * torch.randn(1, V, device=device, generator=generator)

    def contender(name: str, temperature: float, **options: Any) -> Contender:
        def run() -> None:
            for _ in range(times):
                token = next_token(logits, temperature=temperature, generator=generator, **options)
            token.item()

        return Contender(name, run, times)

    with prepare(own, device=device):
        step = _steps("a step", own, 1, min(64, own.config.n_positions), 5, device)
        results = interleave(
            [
                contender("greedy", 0.0),
                contender("temperature", 0.8),
                contender("top-k 40", 0.8, top_k=40),
                contender("top-p 0.9", 0.8, top_p=0.9),
                Contender("the step itself, float32", step.run, 5),
            ],
            rounds,
        )
    shares = ", ".join(
        f"{result.name} {results[-1].median / result.median:.1%}" for result in results[:-1]
    )
    setting = (
        f"{_described(own)}; one row of logits, normal with deviation {spread:g}; {rounds} rounds "
        f"in turn on {device}. Of the time of a step: {shares}."
    )
    return Table("Choosing a token", setting, "per second", results)


def measure_speculation(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Speculative decoding: what checking several tokens in one pass gains at best, and what it
    costs when a draft is always wrong. A real draft lies in between, depending on how often it is
    right.
    """
    own = subject(quick, device, model)
    drafted, new = 4, 20 if quick else 60
    P = own.config.n_positions
    ids = torch.randint(own.config.vocab_size, (1, min(32, P // 4)), device=device)
    new = min(new, P - ids.size(1))
    generator = torch.Generator(device).manual_seed(0)

    def run(draft: GPT2Model) -> None:
        pieces = speculate(
            own, draft, ids, new, drafted=drafted, temperature=0.0, generator=generator
        )
        sum(len(piece) for piece in pieces)

    with prepare(own, device=device):
        text = generate(own, ids, new, temperature=0.0)[0].tolist()
        right, wrong = (Told(own.config, text, off) for off in (0, 1))
        results = interleave(
            [
                Contender("every guess right", lambda: run(right), new),
                Contender("every guess wrong", lambda: run(wrong), new),
                Contender(
                    "one by one",
                    lambda: generate(own, ids, new, temperature=0.0)[0, -1].item(),
                    new,
                ),
            ],
            rounds,
        )
    setting = (
        f"{_described(own)}; float32, greedy, {drafted} guesses a pass from a draft that costs "
        f"nothing and is told what to say; {new} new tokens; {rounds} rounds in turn on {device}. "
        f"Right guesses give {drafted + 1} tokens a pass, wrong ones 1."
    )
    return Table("Speculative decoding, its two limits", setting, "tokens/s", results)


class Told(nn.Module):
    """A draft that says a text, every token moved by `off`, in no time."""

    def __init__(self, config: GPT2Config, text: list[int], off: int):
        super().__init__()
        self.config, self.text, self.off = config, text, off
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, ids: Tensor, cache: KVCache, last_only: bool = False) -> Tensor:
        T = ids.size(1)
        start = cache.length
        for layer in cache.layers:
            layer.length = start + T
        wanted = [*self.text, 0][start + 1 : start + T + 1]
        logits = torch.zeros(1, T, self.config.vocab_size, device=ids.device)
        for at, token in enumerate(wanted):
            logits[0, at, (token + self.off) % self.config.vocab_size] = 1.0
        return logits[:, -1:] if last_only else logits


LOAD_OURS = """
import sys, torch
from gpt2.model import GPT2Model
from gpt2.generation.generating import generate
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
        [sys.executable, "-c", code, str(folder), str(new)],
        capture_output=True,
        encoding="utf-8",
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
            Contender("gpt2", lambda: _process(OURS, folder, 1), 60),
            Contender("Hugging Face", lambda: _process(THEIRS, folder, 1), 60),
        ]
        rounds = 1 if quick else rounds
        results = interleave(contenders, rounds, warm_up=not quick)
    setting = f"{_described(own)}; 3 tokens of prompt, 1 new; {rounds} rounds in turn on the CPU."
    return Table("Process start to first token", setting, "starts per minute", results)


def measure_memory(
    quick: bool = False, device: str = "cpu", rounds: int = 3, model: str | None = None
) -> Table:
    """Peak memory of loading and float32 decoding, in a process of its own."""
    if sys.platform == "win32":
        raise ValueError("peak memory is measured with Unix's getrusage; Windows has none")
    own = subject(quick, "cpu", model)
    new = 20 if quick else 100
    weights = sum(p.numel() * p.element_size() for p in own.parameters())
    cache = KVCache(own.config, 1, 3 + new).nbytes
    imports = "import sys, torch, gpt2.model, gpt2.generation.generating, safetensors.torch"
    with tempfile.TemporaryDirectory() as temporary:
        folder = save_pretrained(own, Path(temporary) / "model")
        programs = {
            "gpt2": OURS,
            "gpt2, loading alone": LOAD_OURS,
            "gpt2, imports alone": imports,
        }
        if not quick:  # importing transformers takes seconds
            programs |= {
                "Hugging Face": THEIRS,
                "Hugging Face, loading alone": LOAD_THEIRS,
                "Hugging Face, imports alone": "import sys, torch; "
                "from transformers import GPT2LMHeadModel",
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
        cache = KVCache(own.config, 1, S, "meta", next(own.parameters()).dtype).nbytes
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
