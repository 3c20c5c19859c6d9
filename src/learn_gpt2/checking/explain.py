"""Where a learner's forward pass leaves the textbook's: `learn explain`.

Both run on the same weights and input. Every tensor that the learner's code makes is recorded, with
the line that made it, and matched by value with the textbook's steps: names of variables, order
and helper functions play no part.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
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

Steps = Iterator[tuple[str, "Tensor"]]


def _attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Steps:
    scores = q @ k.transpose(-2, -1)
    yield "the scores q kᵀ", scores
    scores = scores / q.size(-1) ** 0.5
    yield "the scaled scores", scores
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
        yield "the masked scores", scores
    weights = scores.softmax(-1)
    yield "the weights", weights
    yield "the weighted values", weights @ v


def _heads(x: Tensor, n_head: int) -> Tensor:
    return x.view(x.size(0), x.size(1), n_head, -1).transpose(1, 2)


def _multi_head(w: dict, x: Tensor, n_head: int, causal: bool, prefix: str = "") -> Steps:
    import torch

    qkv = x @ w[prefix + "c_attn.weight"].T + w[prefix + "c_attn.bias"]
    yield "c_attn's output", qkv
    q, k, v = (_heads(part, n_head) for part in qkv.chunk(3, -1))
    for name, part in (("q", q), ("k", k), ("v", v)):
        yield f"{name} by heads", part
    T = x.size(1)
    mask = torch.ones(T, T, dtype=torch.bool).tril() if causal else None
    for name, value in _attention(q, k, v, mask):
        yield name, value
    merged = value.transpose(1, 2).reshape(x.shape)
    yield "the merged heads", merged
    yield "c_proj's output", merged @ w[prefix + "c_proj.weight"].T + w[prefix + "c_proj.bias"]


def _norm(w: dict, x: Tensor, prefix: str = "") -> Steps:
    centered = x - x.mean(-1, keepdim=True)
    yield "x minus its mean", centered
    variance = (centered**2).mean(-1, keepdim=True)
    yield "the variance", variance
    normalized = centered / (variance + 1e-5).sqrt()
    yield "the normalized x", normalized
    yield "the normalized x, scaled", normalized * w[prefix + "weight"]
    yield (
        "the normalized x, scaled and shifted",
        normalized * w[prefix + "weight"] + w[prefix + "bias"],
    )


def _feed_forward(w: dict, x: Tensor, prefix: str = "") -> Steps:
    import torch

    wide = x @ w[prefix + "c_fc.weight"].T + w[prefix + "c_fc.bias"]
    yield "c_fc's output", wide
    inner = (2 / torch.pi) ** 0.5 * (wide + 0.044715 * wide**3)
    yield "the tanh's argument", inner
    bent = 0.5 * wide * (1 + torch.tanh(inner))
    yield "the activation", bent
    yield "c_proj's output", bent @ w[prefix + "c_proj.weight"].T + w[prefix + "c_proj.bias"]


def _block(w: dict, x: Tensor, n_head: int, prefix: str = "", where: str = "") -> Steps:
    for name, normed in _norm(w, x, prefix + "ln_1."):
        yield f"{where}ln_1: {name}", normed
    for name, value in _multi_head(w, normed, n_head, True, prefix + "attn."):
        yield f"{where}attention: {name}", value
    x = x + value
    yield f"{where}x after attention", x
    for name, normed in _norm(w, x, prefix + "ln_2."):
        yield f"{where}ln_2: {name}", normed
    for name, value in _feed_forward(w, normed, prefix + "mlp."):
        yield f"{where}feed-forward: {name}", value
    yield f"{where}x after the feed-forward network", x + value


def _scene(problem: Problem, piece) -> tuple:
    """(module, a function that runs the learner's code, a function that gives the steps, the sizes
    that a ratio may be made of). Sizes, their roots and their ratios all differ.
    """
    import torch

    from learn_gpt2.checking import checks
    from learn_gpt2.checking.checks import fill

    def rand(*shape: int, seed: int = 0) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def weights(module: torch.nn.Module) -> dict[str, Tensor]:
        return {**checks.weights(module), **{n: t.clone() for n, t in module.named_buffers()}}

    number = problem.number
    x = rand(2, 4, 15)
    attention = {"head_dim": 5, "n_head": 3, "n_embd": 15}
    if number == 1:
        module = fill(piece.Embeddings(17, 11, 6, 0.0))
        ids = torch.tensor([[3, 1, 16, 0], [9, 9, 2, 7]])

        def steps(w):
            yield "the token embeddings", w["wte.weight"][ids]
            yield "the position embeddings", w["wpe.weight"][2:6]
            yield "their sum", w["wte.weight"][ids] + w["wpe.weight"][2:6]

        return module, lambda: module(ids, 2), lambda: steps(weights(module)), {"n_embd": 6}
    if number == 2:
        module = fill(piece.SimpleAttention(15))

        def steps(w):
            q, k, v = (x @ w[f"{n}.weight"].T + w[f"{n}.bias"] for n in ("query", "key", "value"))
            yield "the queries", q
            yield "the keys", k
            yield "the values", v
            yield "the scores q kᵀ", q @ k.mT
            yield "the weights", (q @ k.mT).softmax(-1)
            yield "the weighted values", (q @ k.mT).softmax(-1) @ v

        return module, lambda: module(x), lambda: steps(weights(module)), {"n_embd": 15}
    if number == 3:
        module = piece.ScaledDotProductAttention(6, 0.0)
        q, k, v = rand(2, 3, 4, 6), rand(2, 3, 5, 6, seed=1), rand(2, 3, 5, 6, seed=2)
        mask = torch.ones(4, 5, dtype=torch.bool).tril(1)
        sizes = {"d_k": 6}
        return module, lambda: module(q, k, v, mask), lambda: _attention(q, k, v, mask), sizes
    if number == 4:
        module = fill(piece.MultiHeadAttention(15, 3, 0.0))

        def steps():
            return _multi_head(weights(module), x, 3, False)

        return module, lambda: module(x), steps, attention
    if number == 5:
        module = fill(piece.CausalMultiHeadAttention(15, 3, 9, 0.0))

        def steps():
            return _multi_head(weights(module), x, 3, True)

        return module, lambda: module(x), steps, attention
    if number == 6:
        module = fill(piece.FeedForward(15, 22, 0.0))
        return module, lambda: module(x), lambda: _feed_forward(weights(module), x), {}
    if number == 7:
        module = fill(piece.ResidualBlock(15))
        scene = torch.tanh(rand(15, 15, seed=3))

        def steps(w):
            for name, value in _norm(w, x, "ln."):
                yield name, value
            yield "the sublayer's output", value @ scene
            yield "x plus the sublayer's output", x + value @ scene

        return module, lambda: module(x, lambda t: t @ scene), lambda: steps(weights(module)), {}
    if number == 8:
        module = fill(piece.TransformerBlock(15, 3, 9, 0.0))
        return module, lambda: module(x), lambda: _block(weights(module), x, 3), attention
    from gpt2.model import GPT2Config

    module = fill(piece.GPT2Model(GPT2Config(17, 9, 15, 2, 3, 0.0, 0.0, 0.0)))
    ids = torch.tensor([[3, 1, 16, 0], [9, 9, 2, 7]])

    def steps(w):
        x = w["embeddings.wte.weight"][ids] + w["embeddings.wpe.weight"][:4]
        yield "the embeddings", x
        for i in range(2):
            for name, value in _block(w, x, 3, f"h.{i}.", f"block {i}: "):
                yield name, value
            x = value
        for name, value in _norm(w, x, "ln_f."):
            yield f"ln_f: {name}", value
        yield "the logits", value @ w["embeddings.wte.weight"].T

    return module, lambda: module(ids), lambda: steps(weights(module)), attention


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
                steps, stopped = _computable(textbook())
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


def _computable(textbook: Steps) -> tuple[list[tuple[str, Tensor]], str]:
    """The textbook's steps, as far as they can be computed with the learner's weights, and what
    stops them ("" when nothing does).
    """
    steps = []
    try:
        for step in textbook:
            steps.append(step)
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
