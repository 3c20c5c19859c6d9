"""Right answers in each other's company: twelve from the banks, one of each problem, as one model.

A mix goes through what a learner's finished model goes through: the checks of every problem (each
on the mix's own earlier pieces), the trial of `learn swap`, and the whole product: loading,
generation in every number format, training and its resumption, validation, bisection, `explain`,
attention, export to Hugging Face's layout and to GGUF, and back. All of it in this process, so that
a hundred mixes take minutes.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import math
import random
import sys
import tempfile
import traceback
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2 import manifest
from learn_gpt2.assembly import bisection, trial
from learn_gpt2.assembly.assemble import assemble
from learn_gpt2.assembly.sections import Source
from learn_gpt2.checking import earlier, explain, runner
from learn_gpt2.manifest import MODEL_PROBLEMS
from tests.graders import bank as banks
from tests.graders.bank import Answer

SIZES = {"vocab_size": 29, "n_positions": 23, "n_embd": 24, "n_layer": 3, "n_head": 4}


@dataclass(frozen=True)
class Mix:
    """One right answer of each problem, by its place in the bank; 0 is the solution."""

    places: tuple[int, ...]

    def answers(self) -> dict[int, Answer]:
        """Problem number → the answer."""
        return {p.number: choices(p.number)[self.places[p.number - 1]] for p in MODEL_PROBLEMS}

    def __str__(self) -> str:
        return "-".join(map(str, self.places))


@dataclass
class Outcome:
    """What a mix came to: the stages that failed, each with what it said."""

    mix: Mix
    failures: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        titles = [
            f"{number:02d} {answer.title}"
            for number, answer in self.mix.answers().items()
            if self.mix.places[number - 1]
        ]
        lines = [f"mix {self.mix}:", *(f"    {title}" for title in titles)]
        return "\n".join([*lines, *(f"  {stage}: {says}" for stage, says in self.failures.items())])


def choices(number: int) -> list[Answer]:
    """A problem's solution, then the right answers of its bank."""
    bank = banks.load(number)
    return [Answer("the solution", bank.solution), *bank.right]


def chosen(count: int, seed: int = 0) -> list[Mix]:
    """`count` different mixes. Each right answer occurs about equally often: every problem's
    answers are dealt like cards, in an order of their own, and dealt again when they are used up.
    """
    generator = random.Random(seed)
    decks: dict[int, list[int]] = {p.number: [] for p in MODEL_PROBLEMS}
    found: list[Mix] = []
    while len(found) < count:
        places = []
        for problem in MODEL_PROBLEMS:
            deck = decks[problem.number]
            if not deck:
                deck.extend(range(len(choices(problem.number))))
                generator.shuffle(deck)
            places.append(deck.pop())
        mix = Mix(tuple(places))
        if mix not in found:
            found.append(mix)
    return found


class Bench:
    """What mixes are tried with: a checkpoint by Hugging Face, a prepared text. Made once."""

    def __init__(self, folder: Path):
        from tests.training_helpers import make_data

        self.folder = folder
        self.data = make_data(folder)
        self.checkpoint = folder / "checkpoint"
        self.theirs = self._write_checkpoint()
        self.ids, self.logits, self.attentions, self.greedy = self._what_they_compute()
        self.reference: object = None
        self.turn = 0  # mixes tried so far: some things are looked at in every second or fourth
        self.behavior: dict | None = None

    def _write_checkpoint(self):
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(7)
        model = GPT2LMHeadModel(
            GPT2Config(
                **SIZES,
                initializer_range=0.3,
                bos_token_id=None,
                eos_token_id=None,
                attn_implementation="eager",
            )
        ).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:  # zeros and ones would hide mistakes
                    parameter.add_(torch.randn_like(parameter) * 0.1)
        model.save_pretrained(self.checkpoint)
        return model

    def _what_they_compute(self):
        import torch

        ids = torch.randint(SIZES["vocab_size"], (1, 9), generator=torch.Generator().manual_seed(3))
        text = ids
        with torch.no_grad():
            out = self.theirs(ids, output_attentions=True)
            for _ in range(6):
                text = torch.cat([text, self.theirs(text).logits[:, -1:].argmax(-1)], 1)
        return ids, out.logits, torch.cat(out.attentions), text

    def oracle(self):
        """The reference for `gpt2 validate`."""
        from gpt2.formats.opening import open_model
        from gpt2.validation.oracle import load_reference

        if self.reference is None:
            self.reference = load_reference(open_model(self.checkpoint), "transformers")
        return self.reference


@contextlib.contextmanager
def in_place(module: types.ModuleType) -> Iterator[None]:
    """While the block runs, this is `gpt2.model`."""
    import gpt2

    real = importlib.import_module("gpt2.model")
    sys.modules["gpt2.model"] = gpt2.model = module
    try:
        yield
    finally:
        sys.modules["gpt2.model"] = gpt2.model = real


def try_mix(mix: Mix, bench: Bench, stages: tuple[str, ...] = ()) -> Outcome:
    """Put a mix together and take it through every stage (or through those named)."""
    outcome = Outcome(mix)
    bench.turn += 1
    answers = mix.answers()
    module = types.ModuleType("gpt2.model")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name, in_place(module):
        path = Path(name) / "model.py"
        try:
            text = assemble(
                Source(number, "file", f"bank/{number:02d}.py", answer.source)
                for number, answer in answers.items()
            )
            path.write_text(text, encoding="utf-8")
            module.__file__ = str(path)
            exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
        except Exception as error:  # whatever assembling or importing may raise
            outcome.failures["assemble"] = _says(error)
            return outcome
        tried = _Tried(module, text, answers, bench, Path(name))
        blamed = _names_clash(tried)
        if blamed:
            outcome.failures |= _refused_in_words(tried, blamed)
            return outcome
        for stage in stages or STAGES:
            said = io.StringIO()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    STAGES[stage](tried)
            except Exception as error:  # whatever the product or a piece may raise
                outcome.failures[stage] = _says(error)
    return outcome


def _says(error: Exception) -> str:
    """An error, and the last places that it passed through."""
    if isinstance(error, Differs):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    where = " < ".join(f"{Path(f.filename).name}:{f.lineno} {f.name}" for f in reversed(frames))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]} ({where})"


class Differs(Exception):
    """A stage ended, with another result than the right one."""


@dataclass
class _Tried:
    """A mix on its way through the stages."""

    module: types.ModuleType
    text: str
    answers: dict[int, Answer]
    bench: Bench
    folder: Path

    def load(self, name: Path | None = None, **options):
        from gpt2.formats.opening import open_model
        from gpt2.inference.loading import load_model

        return load_model(open_model(name or self.bench.checkpoint), **options)


def _expect_logits(model, bench: Bench, what: str, tolerance: float = 2e-4) -> None:
    import torch

    with torch.no_grad():
        got = model.eval()(bench.ids).float()
    far = float((got - bench.logits).abs().max())
    if not far <= tolerance * float(bench.logits.abs().max()):
        raise Differs(f"{what}: logits are off by {far:.3g}")


def _names_clash(tried: _Tried) -> list[int]:
    """Problems whose piece calls 07's LayerNorm by the contract's name where that has another: a
    subclass of PyTorch's own that adds nothing. No model can be made of the two.
    """
    takes = inspect.signature(tried.module.LayerNorm.__init__).parameters
    if "n_embd" in takes or any(p.kind == p.VAR_KEYWORD for p in takes.values()):
        return []
    return [n for n in (8, 10) if "LayerNorm(n_embd=" in tried.answers[n].source]


def _refused_in_words(tried: _Tried, blamed: list[int]) -> dict[str, str]:
    """{} when the checks refuse these pieces by naming the earlier piece; else what they said."""
    wrong = {}
    for number in blamed:
        path = tried.folder / f"piece_{number:02d}.py"
        path.write_text(tried.answers[number].source, encoding="utf-8")
        first = runner.run_checks(banks.ROOT, manifest.get(number), path).first_failure
        if first is None or first.mistakes != [earlier.ID]:
            wrong[f"{number:02d} on 07's names"] = first.message if first else "accepted"
    return wrong


def _trial(tried: _Tried) -> None:
    import torch

    from gpt2.cache import KVCache

    trial.check_contract(tried.module, {p.number: list(p.provides) for p in MODEL_PROBLEMS})
    trial.run(tried.module, torch, KVCache)


def _checks(tried: _Tried) -> None:
    """Of the problems that build on others; the rest see no company, and the banks try them."""
    failed = []
    for problem in MODEL_PROBLEMS:
        number, answer = problem.number, tried.answers[problem.number]
        if not problem.builds_on:
            continue
        path = tried.folder / f"piece_{number:02d}.py"
        path.write_text(answer.source, encoding="utf-8")
        report = runner.run_checks(banks.ROOT, manifest.get(number), path)
        if report.first_failure:
            first = report.first_failure
            passed, total = report.counts
            failed.append(f"{number:02d} {first.name} ({passed} of {total}): {first.message}")
    if failed:
        raise Differs("\n    ".join(failed))


def _explain(tried: _Tried) -> None:
    wrong = []
    for number in explain.COVERED:
        path = tried.folder / f"piece_{number:02d}.py"
        path.write_text(tried.answers[number].source, encoding="utf-8")
        found = explain.run(manifest.get(number), path)
        if found.get("refused") or found.get("error") or found.get("differs"):
            wrong.append(f"{number:02d} {found}")
    if wrong:
        raise Differs("\n    ".join(wrong))


def _loads(tried: _Tried) -> None:
    _expect_logits(tried.load(), tried.bench, "the loaded model")


def _generates(tried: _Tried) -> None:
    import torch

    from gpt2.generation.generating import generate
    from gpt2.inference.engine import prepare

    bench, length = tried.bench, tried.bench.greedy.size(1) - tried.bench.ids.size(1)
    model = tried.load()
    for use_cache in (True, False):
        got = generate(model, bench.ids, length, temperature=0.0, use_cache=use_cache)
        if not torch.equal(got, bench.greedy):
            raise Differs(f"greedy text (use_cache={use_cache}) is {got.tolist()}")
    for options in (
        {},
        {"dtype": torch.float16},
        {"dtype": torch.bfloat16},
        {"quantize": "int8"},
    ):
        with prepare(model, **options):
            got = generate(model, bench.ids, length, temperature=0.0)
        if got.shape != bench.greedy.shape or (not options and not torch.equal(got, bench.greedy)):
            raise Differs(f"greedy text, prepared with {options}, is {got.tolist()}")
    for dtype in (torch.float16, torch.bfloat16):
        half = tried.load(dtype=dtype)
        kinds = {p.dtype for p in half.parameters()}
        if kinds != {dtype}:
            raise Differs(f"loaded as {dtype}, the parameters are {kinds}")
        _expect_logits(half, bench, f"in {dtype}", 0.1)
        got = generate(half, bench.ids, length, temperature=0.0)
        if got.shape != bench.greedy.shape:
            raise Differs(f"in {dtype} the text is {got.tolist()}")
    _expect_logits(model, bench, "after generating")


def _validates(tried: _Tried) -> None:
    import torch

    from gpt2.validation.stages import validate
    from learn_gpt2.course.validating import problem_of

    # the noise of half precision takes longest to measure
    for dtype in (torch.float32, torch.bfloat16)[: 2 if tried.bench.turn % 4 == 0 else 1]:
        results = list(validate(tried.load(dtype=dtype), tried.bench.oracle()))
        failed = [r for r in results if r.state in ("failed", "skipped")]
        if failed or len(results) != 12:
            r = failed[0]
            raise Differs(
                f"{dtype}: checkpoint {r.number} {r.name}: {r.message}; causes {r.causes}, "
                f"blamed on problem {problem_of(r)}"
            )


def _attention(tried: _Tried) -> None:
    import torch

    from gpt2.figures.attention import attention_weights

    got = attention_weights(tried.load(), tried.bench.ids)
    want = tried.bench.attentions
    if got.shape != want.shape or not torch.allclose(got, want, rtol=1e-3, atol=1e-4):
        raise Differs(f"the attention weights of shape {tuple(got.shape)} are others")


def _exports(tried: _Tried) -> None:
    import torch

    from gpt2.formats.checkpoints import Tensors, save_pretrained
    from gpt2.formats.gguf import save_gguf

    model = tried.load()
    folder = save_pretrained(model, tried.folder / "export")
    ours = Tensors([folder / "model.safetensors"])
    theirs = {k: v for k, v in tried.bench.theirs.state_dict().items() if k != "lm_head.weight"}
    if set(ours) != set(theirs):
        raise Differs(f"the export holds other names: {sorted(set(ours) ^ set(theirs))[:4]}")
    other = [key for key in theirs if not torch.equal(ours[key], theirs[key])]
    if other:
        raise Differs(f"the export holds other numbers in {other[:3]}")
    _expect_logits(tried.load(folder), tried.bench, "the export, loaded again")
    file = save_gguf(model, tried.folder / "export.gguf")
    _expect_logits(tried.load(file), tried.bench, "the GGUF file, loaded again")


def _trains(tried: _Tried) -> None:
    import torch

    from gpt2.training.trainer import train
    from tests.training_helpers import settings

    few = {"max_steps": 3, "checkpoint_interval": 2, "eval_tokens": 60, "log_interval": 1}
    run = tried.folder / "run"
    for changes in ({"optimizer": "muon", "ema_decay": 0.9} if tried.bench.turn % 2 else {},):
        events: list[dict] = []
        for resume, steps in ((False, 3), (True, 5)):
            config = settings(tried.bench.data, **few | changes | {"max_steps": steps})
            figures = train(config, run, resume=resume, on_event=events.append)
            if figures.get("step") != steps:
                raise Differs(f"after {steps} steps (resumed: {resume}) the figures are {figures}")
    for folder in (run, run / "best"):
        with torch.no_grad():
            logits = tried.load(folder)(torch.arange(5)[None])
        if not torch.isfinite(logits).all():
            raise Differs(f"{folder.name}: logits of the trained model are not finite")
    seen = [e["loss"] for e in events if "loss" in e]
    if not seen or not all(map(math.isfinite, seen)):
        raise Differs(f"losses of the run: {seen}")


def _bisects(tried: _Tried) -> None:
    from learn_gpt2.assembly import swap

    if tried.bench.behavior is None:
        tried.bench.behavior = bisection.behavior(swap.assemble_model(banks.ROOT, {}))
    told = bisection.difference(bisection.behavior(tried.text), tried.bench.behavior)
    if told:
        raise Differs(told)


STAGES: dict[str, Callable[[_Tried], None]] = {
    "checks": _checks,
    "learn swap all": _trial,
    "learn explain": _explain,
    "learn bisect": _bisects,
    "gpt2 loads": _loads,
    "gpt2 generate": _generates,
    "gpt2 validate": _validates,
    "gpt2 attention": _attention,
    "gpt2 export": _exports,
    "gpt2 train": _trains,
}


def try_all(mixes: list[Mix], stages: tuple[str, ...] = ()) -> list[Outcome]:
    """Every mix's outcome, in this process."""
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder))
        return [try_mix(mix, bench, stages) for mix in mixes]
