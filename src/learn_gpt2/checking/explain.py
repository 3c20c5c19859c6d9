"""Where a learner's forward pass leaves the textbook's: `learn explain`.

Both run on the same weights and input. Every tensor that the learner's code makes is recorded, with
the line that made it, and matched by value with the textbook's steps: names of variables, order
and helper functions play no part.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from learn_gpt2 import manifest
from learn_gpt2.checking import child, loading
from learn_gpt2.checking.limits import TimeLimit, time_limit
from learn_gpt2.manifest import Problem

if TYPE_CHECKING:
    from torch import Tensor

SECONDS = 10.0
PROCESS_SECONDS = 120.0  # with the imports and the textbook's own run
MOST_RECORDS = 5000
# clues that a wrong pair of tensors would hardly give
TELLING = ("times too", "wrong sign", "swapped", "another order", "off by the same", "nearly")
COVERED = (1, 2, 3, 4, 5, 6, 7, 8, 10)
MOST_PRINTED = 4000  # characters
RETURNED = "what forward returns"


@dataclass(frozen=True)
class Explanation:
    """How far the two agree.

    agree: steps that the learner's run holds, in order. differs: the first step that it doesn't,
    "" when the result agrees. clue: what is true of the difference. line, code: where the tensor
    that the clue is about is made, or else the next one of the step's shape. error: what the run
    stopped with, if it did. printed: what the file printed.
    """

    problem: int
    agree: list[str]
    differs: str = ""
    clue: str = ""
    line: int | None = None
    code: str = ""
    error: str = ""
    printed: str = ""


def explain(root: Path, problem: Problem, source: Path | None = None) -> Explanation:
    """Compare the learner's file with the textbook, in a process of its own.

    ValueError for a problem without a forward pass, a file that can't be loaded, or a run that
    does not come to its end.
    """
    if problem.number not in COVERED:
        raise ValueError(
            f"problem {problem.number:02d} has no forward pass of its own to compare; "
            f"`learn check {problem.number:02d}` and `learn hint {problem.number:02d}` tell more"
        )
    path = source or problem.problem_path(root)
    words = (str(problem.number), str(path))
    command = child.python("-m", "learn_gpt2.checking.explain", *words)
    try:
        data = child.ask(command, PROCESS_SECONDS, child.environment(root))
    except child.NoAnswer as nothing:
        happened = f"ended the process (code {nothing.code}) before a result"
        if nothing.late:
            happened = f"was still running after {PROCESS_SECONDS:.0f} s: a loop without an end?"
        raise ValueError(f"{loading.shown(path)} {happened}") from None
    if "refused" in data:
        raise ValueError(data["refused"])
    return Explanation(**data)


# ── the textbook ────────────────────────────────────────────────────────────────────────────────

Steps = list[tuple[str, "Tensor"]]
Run = Callable[[Callable[[str, "Tensor"], None]], object]  # given `note`, which hears the steps


def _scene(problem: Problem, piece) -> tuple:
    """(module, a function that runs the learner's code, a function that runs the textbook's and
    notes its steps, the sizes that a ratio may be made of). Sizes, their roots and their ratios all
    differ.
    """
    import torch

    from learn_gpt2.checking import checks, textbook
    from learn_gpt2.checking.checks import fill

    def rand(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    number = problem.number
    x, ids = rand(2, 4, 15), torch.tensor([[3, 1, 16, 0], [9, 9, 2, 7]])
    sizes = {"head_dim": 5, "n_head": 3, "n_embd": 15}
    if number == 3:
        module = piece.ScaledDotProductAttention(6, 0.0)
        q, k, v = rand(2, 3, 4, 6), rand(2, 3, 5, 6, seed=1), rand(2, 3, 5, 6, seed=2)
        mask = torch.ones(4, 5, dtype=torch.bool).tril(1)

        def attention(note):
            return textbook.attention(q, k, v, mask, note=note)

        return module, lambda: module(q, k, v, mask), attention, {"d_k": 6}

    arguments = (x,)
    if number == 1:
        module, arguments, sizes = piece.Embeddings(17, 11, 6, 0.0), (ids, 2), {"n_embd": 6}

        def run(w, note):
            return textbook.embeddings(w["wte.weight"], w["wpe.weight"], ids, 2, note=note)

    elif number == 2:
        module, sizes = piece.SimpleAttention(15), {"n_embd": 15}

        def run(w, note):
            return textbook.simple_attention(x, w, note=note)

    elif number == 4:
        module = piece.MultiHeadAttention(15, 3, 0.0)

        def run(w, note):
            return textbook.multi_head(x, w, 3, mask=textbook.unmasked, note=note)

    elif number == 5:
        module = piece.CausalMultiHeadAttention(15, 3, 9, 0.0)

        def run(w, note):
            return textbook.multi_head(x, w, 3, note=note)

    elif number == 6:
        module, sizes = piece.FeedForward(15, 22, 0.0), {}

        def run(w, note):
            return textbook.feed_forward(x, w, note=note)

    elif number == 7:
        module, sizes = piece.ResidualBlock(15), {}
        mixing = torch.tanh(rand(15, 15, seed=3))
        arguments = (x, lambda t: t @ mixing)

        def run(w, note):
            return textbook.residual_block(x, w, arguments[1], note=note)

    elif number == 8:
        module = piece.TransformerBlock(15, 3, 9, 0.0)

        def run(w, note):
            return textbook.block(x, w, 3, note=note)

    else:
        from gpt2.model import GPT2Config

        config = GPT2Config(17, 9, 15, 2, 3, 0.0, 0.0, 0.0)
        module, arguments = piece.GPT2Model(config), (ids,)

        def run(w, note):
            return textbook.model(w, config, [ids], note=note)

    fill(module)

    def steps(note):
        own = {**checks.weights(module), **{n: t.clone() for n, t in module.named_buffers()}}
        return run(own, note)

    return module, lambda: module(*arguments), steps, sizes


# ── matching ────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Record:
    """A tensor that the learner's run made, and the line of the file that asked for it."""

    value: Tensor
    line: int | None


def _recorder(path: Path, records: list[Record]):
    from torch import Tensor
    from torch.overrides import TorchFunctionMode

    class Recorder(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            values = result if isinstance(result, (tuple, list)) else [result]
            for value in values:
                wanted = isinstance(value, Tensor) and value.is_floating_point() and value.numel()
                if wanted and len(records) < MOST_RECORDS:
                    records.append(Record(value.detach().float().clone(), _line(path)))
            return result

    return Recorder()


def _line(path: Path) -> int | None:
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename == str(path):
            return frame.f_lineno
        frame = frame.f_back
    return None


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal; a tensor of another shape is, when it holds the same numbers."""
    import torch

    if a.shape == b.shape:
        return torch.allclose(a.float(), b.float(), rtol=1e-4, atol=1e-5)
    return _same_numbers(a, b)


def _same_numbers(a: Tensor, b: Tensor) -> bool:
    """The same numbers, in whatever order."""
    import torch

    if a.numel() != b.numel():
        return False
    a, b = (t.flatten().float().sort().values for t in (a, b))
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def compare_runs(
    steps: list[tuple[str, Tensor]],
    records: list[Record],
    output: object,
    sizes: dict[str, float] | None = None,
) -> tuple[list[str], dict]:
    """(names of the steps that were found in the learner's run, what is known of the first that
    comes after the last of them; {} when the output is the last step's result).

    output: what forward returned; for problem 03 a pair, of which the second is the step before.
    """
    from learn_gpt2.checking.diagnosis import clues

    found: dict[int, int] = {}
    for i, (_, want) in enumerate(steps):
        # a step that only rearranges an earlier one's numbers must be there in its own shape
        rearranged = any(_same_numbers(want, earlier) for _, earlier in steps[:i])
        for j, record in enumerate(records):
            if _same(record.value, want) and not (rearranged and record.value.shape != want.shape):
                found[i] = j
                break
    agree = [name for i, (name, _) in enumerate(steps) if i in found]
    last = max(found, default=-1)
    wrong_return = _wrong_return(output, steps)
    if not wrong_return:
        return agree, {}
    if last == len(steps) - 1:
        return agree, {"differs": RETURNED, "clue": wrong_return}

    def telling(record: Record, want: Tensor) -> str:
        told = clues(record.value, want, sizes=sizes)
        return next((text for text in told if any(word in text for word in TELLING)), "")

    # the learner may not have the next step as such (a fused kernel, another order of operations):
    # a later one whose difference can be told says more than "not there". What agrees with a step
    # is no attempt at another one.
    matched = {id(records[j]) for j in found.values()}
    after = [
        r
        for r in records[found[last] + 1 if found else 0 :]
        if id(r) not in matched and not any(_same(r.value, steps[i][1]) for i in found)
    ]
    fallback: dict = {}
    for i, (name, want) in enumerate(steps[last + 1 :]):
        near = [r for r in after if r.value.shape == want.shape]
        for record in near:
            if told := telling(record, want):
                return agree, {"differs": name, "clue": told, "line": record.line}
        if i == 0 and found:
            before = records[found[last]]
            if before.value.shape == want.shape and "times too" in (t := telling(before, want)):
                clue = f"your run goes on with {steps[last][0]}, and those are {t}"
                return agree, {"differs": name, "clue": clue, "line": before.line}
        if near and not fallback:
            clue = "no tensor of your run holds these numbers"
            fallback = {"differs": name, "clue": clue, "line": near[0].line}
    skipped = steps[last + 1][0]
    if not fallback or _stage(skipped) != _stage(fallback["differs"]):
        return agree, {"differs": skipped, "clue": "your run has no such tensor"}
    return agree, fallback


def _wrong_return(output: object, steps: list[tuple[str, Tensor]]) -> str:
    """What is wrong with what forward returned; "" when nothing is."""
    from torch import Tensor

    from learn_gpt2.checking.diagnosis import clues

    wanted = [steps[-1][1]]
    if steps[0][0] == "the scores q kᵀ":  # problem 03 returns the weights as well
        wanted.append(steps[-2][1])
        if not isinstance(output, (tuple, list)) or len(output) != 2:
            return f"it is a {type(output).__name__}, expected two tensors (output, weights)"
        values = list(output)
    else:
        values = [output]
    for value, want in zip(values, wanted, strict=True):
        if not isinstance(value, Tensor):
            return f"it is a {type(value).__name__}, expected a tensor"
        value = value.float()
        if value.shape != want.shape or not _same(value, want):
            told = clues(value, want)
            return told[0] if told else f"it is not {steps[-1][0]}"
    return ""


def _stage(step: str) -> str:
    """`block 1: ln_1` of "block 1: ln_1: the variance"."""
    return step.rpartition(": ")[0]


def run(problem: Problem, path: Path) -> dict:
    """The comparison, in this process."""
    import torch

    printed = io.StringIO()
    dtype = torch.get_default_dtype()
    try:
        with redirect_stdout(printed):
            data = _run(problem, path)
    finally:
        torch.set_default_dtype(dtype)  # a file may change it for the whole program
    text = printed.getvalue()
    if len(text) > MOST_PRINTED:
        text = f"{text[:MOST_PRINTED]} … ({len(text)} characters in all)"
    return {**data, "printed": text}


def _run(problem: Problem, path: Path) -> dict:
    import torch

    try:
        piece = loading.load(problem, path)
    except loading.PieceError as error:
        return {"refused": str(error)}
    records: list[Record] = []
    steps: list[tuple[str, Tensor]] = []
    sizes: dict[str, float] = {}
    stopped, error, output = "", "", None
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    with loading.model_for(problem), torch.no_grad():
        try:
            with time_limit(SECONDS):
                module, forward, textbook, sizes = _scene(problem, piece)
                module.eval()
                # before forward, which may change its input or the weights
                steps, stopped = _computable(textbook)
                with _recorder(path, records):
                    output = forward()
        except TimeLimit:
            error = f"it was still running after {SECONDS:.0f} s"
        except Exception as caught:  # anything a learner's file may raise
            line, code = loading.line_in(caught, path)
            error = f"{type(caught).__name__}: {str(caught).splitlines()[0] if str(caught) else ''}"
            error += f" (line {line}: {code})" if line else ""
        if error and not records:
            return {"refused": f"{loading.shown(path)} does not run: {error}"}
    agree, rest = compare_runs(steps, records, output, sizes) if steps else ([], {})
    if stopped and rest.get("differs") in (None, RETURNED):
        rest = {"differs": "the step after that" if steps else "the first step", "clue": stopped}
    line = rest.get("line")
    code = piece.source.splitlines()[line - 1].strip() if line else ""
    return asdict(Explanation(problem.number, agree, code=code, error=error, **rest))


def _computable(textbook: Run) -> tuple[Steps, str]:
    """The textbook's steps, as far as they can be computed with the learner's weights, and what
    stops them ("" when nothing does).
    """
    steps: Steps = []
    try:
        textbook(lambda name, value: steps.append((name, value)))
    except KeyError as missing:
        return steps, f"it needs {missing}, and your module has no parameter of that name"
    except Exception as error:  # shapes that do not fit, above all
        first = (str(error).splitlines() or [""])[0]
        return steps, f"it can't be computed with your module's parameters ({first})"
    return steps, ""


def _main(number: str, path: str) -> None:
    send = child.answering()
    send(run(manifest.get(number), Path(path)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
