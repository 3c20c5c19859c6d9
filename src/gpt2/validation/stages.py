"""Twelve checkpoints from the first norm to the generated text, each compared with an oracle.

A model is looked at through forward hooks on the modules that the contract names and through its
own arguments, so any pieces that keep the contract can be validated. Shapes: B batch, T tokens, C
n_embd, H n_head, D head_dim, S keys, L n_layer, V vocab_size.

Tolerances. A sum of numbers in floating point is off by about u √N of its size after N roundings
that are independent, each at most u = eps/2. N is counted along the path to the tensor (`Rounding`)
and 4 eps √N of the oracle's largest number is allowed: both sides round, which makes 8 u √N about
ten standard deviations of their difference.

In half precision it is the deviation from float32 that is bounded. Every weight and every
operation's result is rounded, by at most u of its size, while sums and norms accumulate in float32.
To first order a tensor is then off by Σ J (x ε): how an operation's result x sways the tensor (J)
times the rounding ε of it. `noise` takes that sum as it is: the same model in float32, where each
weight and each result is off by random ε of up to 2u, which leaves as much again for the roundings
inside of operations that no hook sees. Each draw of the noise has a largest deviation; one and a
half times their mean is allowed (a mean, because the largest of them is a matter of luck). Their
spread was below a fifth of their mean, so a right model, whose largest deviation is about half of
theirs, has ten standard deviations up to there; the bundled one came to 0.38 of the mean. A norm or
a softmax that accumulates in half precision is right in float32, so it gains nothing there.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gpt2 import sampling
from gpt2.cache import KVCache
from gpt2.generation import generating
from gpt2.inference.engine import Inference
from gpt2.validation.oracle import MOST_TOKENS, NEW_TOKENS, Reference, Scene

if TYPE_CHECKING:
    from gpt2.model import GPT2Model

TEMPERATURE = 0.7  # of checkpoint 11
DRAWS = 4  # of the roundings in half precision
MARGIN = 1.5  # times the mean of their largest deviations
PASSED, FAILED, SKIPPED, UNSEEN = "passed", "failed", "skipped", "not seen"


@dataclass(frozen=True)
class Result:
    """One checkpoint: what was looked at, how far it was from the oracle, and how far it may be.

    state: passed, failed, skipped (message says after which), or "not seen": the model computes
    this without the module that would show it, which is not a failure. part: for a failure, the
    name from the contract that is to blame, as far as that can be told, else "".
    """

    number: int
    name: str
    tensor: str
    state: str
    oracle: str
    difference: float | None = None
    tolerance: float | None = None
    message: str = ""
    causes: tuple[str, ...] = ()
    part: str = ""


# --------------------------------------------------------------------------------------- tolerances


class Rounding:
    """How far a tensor may be from the oracle's, relative to the oracle's largest number.

    measured: for half precision, what `noise` found, by stage.
    """

    def __init__(self, config: Any, dtype: torch.dtype, measured: dict[str, float] | None = None):
        C, D, L = config.n_embd, config.head_dim, config.n_layer
        S = min(config.n_positions, MOST_TOKENS + NEW_TOKENS)
        self.eps = torch.finfo(dtype).eps
        self.half = dtype in (torch.float16, torch.bfloat16)
        self.measured = measured or {}
        # numbers summed on the way to a tensor; a norm sums C twice, for mean and variance
        terms = {"ln_1": 2 * C, "c_attn": 3 * C, "weights": 3 * C + D + S}
        terms["attn"] = terms["weights"] + S + C
        terms["mlp"] = terms["attn"] + 2 * C + C + 4 * C
        terms["block"] = terms["mlp"] + 2
        terms["logits"] = L * terms["block"] + 2 * C + C
        # Where nothing could be measured: operations on the way, each of which rounds its weights
        # and its result
        steps = {"ln_1": 2, "c_attn": 3, "weights": 5, "attn": 7, "mlp": 12, "block": 13}
        steps["logits"] = 1 + 12 * L + 2
        self.counts = {key: 2 * n for key, n in steps.items()} if self.half else terms

    def relative(self, stage: str) -> float:
        """4 eps √N, or MARGIN times what the noise did."""
        if stage in self.measured:
            return MARGIN * self.measured[stage]
        return 4 * self.eps * math.sqrt(self.counts[stage])


def noise(model: GPT2Model, reference: Reference, dtype: torch.dtype) -> dict[str, float]:
    """What roundings of up to 2u, u = eps/2 of dtype, do to each stage: {stage: a draw's largest
    deviation, in the mean of the draws, relative to the tensor's largest number}. {} where the
    model doesn't run in float32.

    Compared with the model itself, so that what is wrong with it widens no tolerance.
    """
    clean = copy.deepcopy(model).float()
    rough = copy.deepcopy(clean)
    generator = torch.Generator(device=next(clean.parameters()).device).manual_seed(0)
    hooks = _roughen(rough, torch.finfo(dtype).eps, generator)
    ways = ("whole", "scores")
    found = {stage: [0.0] * DRAWS for stage in STAGES}
    try:
        for scene in reference.scenes:
            want = Watched(clean, scene, ways)
            for draw in range(DRAWS):
                with torch.no_grad():
                    for ours, exact in zip(rough.parameters(), clean.parameters(), strict=True):
                        ours.copy_(exact).mul_(_factors(exact, torch.finfo(dtype).eps, generator))
                got = Watched(rough, scene, ways)
                if want.errors or got.errors:
                    return {}
                for stage in list(found):
                    if stage not in want.seen or stage not in got.seen:
                        del found[stage]  # the model does this without that module
                        continue
                    a, b = got.seen[stage], want.seen[stage]
                    far = float((a - b).abs().max()) / _size(b)
                    found[stage][draw] = max(found[stage][draw], far)
    except Exception:  # a learner's piece that can't be copied, or measured so
        return {}
    finally:
        for hook in hooks:
            hook.remove()
    return {stage: sum(draws) / DRAWS for stage, draws in found.items()}


def _factors(like: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    """1 + ε for every number of a tensor, ε uniform within ±eps."""
    return (
        torch.rand(like.shape, generator=generator, device=like.device)
        .mul_(2)
        .sub_(1)
        .mul_(eps)
        .add_(1)
    )


def _roughen(model: GPT2Model, eps: float, generator: torch.Generator) -> list[Any]:
    """Hooks that let every result of the contract's modules be off by up to eps of its size."""

    def off(x: Tensor, by: Tensor | None = None) -> Tensor:
        """x, off by up to eps of x, or of `by`."""
        return x + (_factors(x, eps, generator) - 1) * (x if by is None else by)

    def plain(module: Any, inputs: Any, output: Any) -> Any:
        return tuple(map(off, output)) if isinstance(output, tuple) else off(output)

    def queries(module: Any, inputs: Any, output: Tensor) -> Tensor:
        """Elementwise, and each head's query as a whole: as if its scores were rounded."""
        q, k, v = off(output).chunk(3, -1)
        heads = q.unflatten(-1, (model.config.n_head, -1))
        whole = _factors(heads[..., :1], eps, generator)
        return torch.cat([(heads * whole).flatten(-2), k, v], -1)

    def activation(module: Any, inputs: Any, output: Tensor) -> Tensor:
        """Inside, 1 + tanh cancels: what is lost there is as large as x."""
        return off(output, inputs[0].abs() + output.abs())

    hooks = []

    def add(module: nn.Module, hook: Callable) -> None:
        hooks.append(module.register_forward_hook(hook))

    for module in (model.embeddings, model.ln_f, model.lm_head):
        add(module, plain)
    for block in model.h:
        stream: list[Tensor] = []

        def entering(module: Any, inputs: Any, stream: list[Tensor] = stream) -> None:
            stream[:] = inputs[:1]

        def first_sum(module: Any, inputs: Any, output: Tensor, stream: Any = stream) -> Tensor:
            """The stream is rounded when this is added to it."""
            return off(output, output.abs() + stream[0].abs())

        hooks.append(block.register_forward_pre_hook(entering))
        for module in (block.ln_1, block.attn.attention, block.attn.c_proj, block.ln_2):
            add(module, plain)
        for module in (block.mlp.c_fc, block.mlp.c_proj, block.mlp, block):
            add(module, plain)
        add(block.attn.c_attn, queries)
        add(block.attn, first_sum)
        add(block.mlp.act, activation)
    return hooks


@dataclass(frozen=True)
class Gap:
    """The largest difference between two tensors, and what is allowed."""

    difference: float
    tolerance: float
    detail: str = ""

    @property
    def fits(self) -> bool:
        return self.difference <= self.tolerance  # a NaN does not

    @property
    def ratio(self) -> float:
        return self.difference / self.tolerance if self.fits else math.inf


def gap(got: Any, want: Tensor, allowed: float, what: str = "") -> Gap:
    """Compare; allowed: absolute. A tensor of another shape is infinitely far."""
    if not isinstance(got, Tensor):
        return Gap(math.inf, allowed, f"{what} is a {type(got).__name__}, not a tensor")
    if got.shape != want.shape:
        return Gap(math.inf, allowed, f"{what} has shape {tuple(got.shape)}, not {_dims(want)}")
    far = (got.detach().double().cpu() - want.double()).abs()
    if not bool(far.isfinite().all()):
        return Gap(math.inf, allowed, f"{what} holds NaN or infinity")
    return Gap(float(far.max()) if far.numel() else 0.0, allowed)


def _dims(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _size(tensor: Tensor) -> float:
    """The largest magnitude, which tolerances are relative to."""
    return float(tensor.abs().max())


# ---------------------------------------------------------------------------- looking at a model


class Watched:
    """One scene as the model computes it: each tensor by the oracle's name for it.

    errors: what a pass stopped with, if it did; tensors that it came to before are there.
    """

    def __init__(self, model: GPT2Model, scene: Scene, ways: Iterable[str]):
        self.model, self.scene = model, scene
        self.device = next(model.parameters()).device
        self.ids = scene.ids.to(self.device)
        self.seen: dict[str, Any] = {}
        self.errors: dict[str, str] = {}
        for way in ways:
            self.attempt(way, getattr(self, f"_{way}"))

    def attempt(self, way: str, run: Callable[[], None]) -> None:
        try:
            with Inference(self.model):
                run()
        except Exception as error:  # whatever a learner's piece may raise
            text = " ".join(str(error).split())[:200]
            self.errors[way] = f"{type(error).__name__}: {text}"

    def _keep(self, name: str, i: int = 0) -> Callable:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            value = output[i] if isinstance(output, (tuple, list)) else output
            self.seen.setdefault(name, value.clone() if isinstance(value, Tensor) else value)

        return hook

    def _hooked(self, hooks: dict[str, tuple[nn.Module, int]], run: Callable[[], Any]) -> Any:
        handles = [
            module.register_forward_hook(self._keep(name, i)) for name, (module, i) in hooks.items()
        ]
        try:
            return run()
        finally:
            for handle in handles:
                handle.remove()

    def _whole(self) -> None:
        """The path that generation takes: no hook on `attention`, or a fused kernel would be
        avoided.
        """
        first = self.model.h[0]
        hooks = {
            "embeddings": (self.model.embeddings, 0),
            "ln_1": (first.ln_1, 0),
            "c_attn": (first.attn.c_attn, 0),
            "attn": (first.attn, 0),
            "ln_2": (first.ln_2, 0),
            "mlp": (first.mlp, 0),
            "block": (first, 0),
        } | {f"block {i}": (block, 0) for i, block in enumerate(self.model.h)}
        self.seen["logits"] = self._hooked(hooks, lambda: self.model(self.ids))

    def _scores(self) -> None:
        """The first layer's weights, where its `attention` is called once, for all heads."""
        attention, calls = self.model.h[0].attn.attention, []
        counter = attention.register_forward_hook(lambda *call: calls.append(1))
        try:
            self._hooked({"weights": (attention, 1)}, lambda: self.model(self.ids))
        finally:
            counter.remove()
        if len(calls) > 1:  # head by head, or in parts: none of them is the whole
            self.seen.pop("weights", None)

    def _pieces(self) -> None:
        """Two pieces through the KV cache, as a prompt that arrives in parts."""
        weight = next(self.model.parameters())
        cache = KVCache(
            self.model.config, len(self.ids), None, device=self.device, dtype=weight.dtype
        )
        cut = (self.ids.size(1) + 1) // 2
        try:
            for piece in (self.ids[:, :cut], self.ids[:, cut:]):
                if piece.size(1):
                    self.seen["pieces"] = self.model(piece, cache)
        finally:
            self.seen["lengths"] = [layer.length for layer in cache.layers]
            first, T = cache.layers[0], self.ids.size(1)
            self.seen["keys"], self.seen["values"] = first.keys[:, :, :T], first.values[:, :, :T]

    def _selected(self) -> None:
        self.seen["selected"] = self.model(self.ids, last_only=True)


def _alone(call: Callable[[], Any], want: Tensor, allowed: float) -> bool:
    """Does this part by itself, given the oracle's input, give the oracle's output?"""
    try:
        with torch.no_grad():
            return gap(call(), want, allowed).fits
    except Exception:
        return False


# ------------------------------------------------------------------------------- the twelve


@dataclass(frozen=True)
class Blame:
    """Why a checkpoint failed: the contract's name for the part, and what was found out."""

    part: str
    causes: tuple[str, ...]


@dataclass(frozen=True)
class Checkpoint:
    """One of the twelve: look(run) compares, blame(run) tells why it failed."""

    number: int
    name: str
    tensor: str
    needs: tuple[int, ...]
    look: Callable[[Validation, Watched], Gap | None]
    blame: Callable[[Validation, Watched], Blame]
    ways: tuple[str, ...] = ("whole",)


class Validation:
    """A model beside a reference. `results()` gives the twelve one by one."""

    def __init__(self, model: GPT2Model, reference: Reference):
        self.model, self.reference = model, reference
        self.dtype = next(model.parameters()).dtype
        half = self.dtype in (torch.float16, torch.bfloat16)
        measured = noise(model, reference, self.dtype) if half else None
        self.rounding = Rounding(model.config, self.dtype, measured)
        self.watched: list[Watched] = []

    def results(self) -> Iterator[Result]:
        """Run the checkpoints in order; one whose needs have failed or were skipped is skipped."""
        out: dict[int, str] = {}
        ways = ("whole", "scores", "pieces", "selected")
        self.watched = [Watched(self.model, scene, ways) for scene in self.reference.scenes]
        for checkpoint in CHECKPOINTS:
            missing = [n for n in checkpoint.needs if out[n] in (FAILED, SKIPPED)]
            if missing:
                result = self._result(checkpoint, SKIPPED, message=f"needs checkpoint {missing[0]}")
            else:
                result = self._check(checkpoint)
            out[checkpoint.number] = result.state
            yield result

    def _result(self, checkpoint: Checkpoint, state: str, **found: Any) -> Result:
        return Result(
            checkpoint.number,
            checkpoint.name,
            checkpoint.tensor,
            state,
            self.reference.oracle,
            **found,
        )

    def _check(self, checkpoint: Checkpoint) -> Result:
        worst: Gap | None = None
        for watched in self.watched:
            errors = [watched.errors[way] for way in checkpoint.ways if way in watched.errors]
            found = checkpoint.look(self, watched)
            if found is None and errors:
                found = Gap(math.inf, math.inf, f"the model stops with {errors[0]}")
            if found is None:
                return self._result(
                    checkpoint, UNSEEN, message="the model does this without that module"
                )
            if math.isinf(found.difference) or not found.fits:
                blame = self._blame(checkpoint, watched)
                detail = f"{found.detail}, " if found.detail else ""
                return self._result(
                    checkpoint,
                    FAILED,
                    difference=found.difference,
                    tolerance=found.tolerance,
                    message=f"{detail}on {watched.scene.text!r}",
                    causes=blame.causes,
                    part=blame.part,
                )
            if worst is None or found.ratio > worst.ratio:
                worst = found
        assert worst is not None
        return self._result(
            checkpoint, PASSED, difference=worst.difference, tolerance=worst.tolerance
        )

    def _blame(self, checkpoint: Checkpoint, watched: Watched) -> Blame:
        wrong = self.wrong_weights(_READS.get(checkpoint.number, ()))
        if wrong:
            return Blame("GPT2Model.from_pretrained", tuple(wrong[:3]))
        return checkpoint.blame(self, watched)

    def allowed(self, stage: str, want: Tensor) -> float:
        """The tolerance of a stage, absolute for this tensor of the oracle's."""
        return self.rounding.relative(stage) * _size(want)

    def wrong_weights(self, prefixes: tuple[str, ...]) -> list[str]:
        """Parameters that are not the checkpoint's, in words."""
        wrong = []
        # both names of the shared table: which comes first is the model's own choice
        for name, ours in self.model.named_parameters(remove_duplicate=False):
            if not name.startswith(prefixes):
                continue
            try:
                want = self.reference.weights(name).to(ours.dtype)
            except (KeyError, ValueError):
                continue  # a name of the learner's own
            ours = ours.detach().cpu()
            if ours.shape == want.shape and torch.equal(ours, want):
                continue
            if ours.dim() == 2 and ours.shape == want.t().shape and torch.equal(ours, want.t()):
                wrong.append(f"{name} is transposed: the file stores (in, out), Linear (out, in)")
            else:
                wrong.append(f"{name} is not what the checkpoint holds")
        return wrong


STAGES = ("ln_1", "c_attn", "weights", "attn", "mlp", "block", "logits")

# which parameters a checkpoint is the first to depend on
_READS: dict[int, tuple[str, ...]] = {
    1: ("embeddings.", "h.0.ln_1."),
    2: ("h.0.attn.c_attn.",),
    5: ("h.0.attn.c_proj.",),
    6: ("h.0.ln_2.", "h.0.mlp."),
    8: ("h.", "ln_f.", "lm_head.", "embeddings."),
}


def _at(stage: str, key: str | None = None) -> Callable[[Validation, Watched], Gap | None]:
    """Compare the tensor that a hook saw with the oracle's of the same name."""
    key = key or stage

    def look(run: Validation, w: Watched) -> Gap | None:
        if key not in w.seen:
            return None
        want = w.scene.tensors[key]
        return gap(w.seen[key], want, run.allowed(stage, want), f"{key}'s output")

    return look


def _typed(run: Validation, w: Watched, name: str) -> Tensor:
    """A tensor of the oracle's where the model is."""
    return w.scene.tensors[name].to(w.device, run.dtype)


def _blame_norm(run: Validation, w: Watched) -> Blame:
    x, want = _typed(run, w, "embeddings"), w.scene.tensors["ln_1"]
    if _alone(lambda: run.model.h[0].ln_1(x), want, run.allowed("ln_1", want)):
        return Blame(
            "Embeddings",
            (
                "ln_1 alone is right: what reaches it, wte[ids] + wpe[positions], is not",
                "the positions do not start at 0, or one table is used for both",
            ),
        )
    return Blame(
        "LayerNorm",
        (
            "the variance with C − 1 instead of C in the denominator",
            "eps outside the square root, or an eps that differs from the config's",
            "the wrong dimension is normalized, or weight or bias is left out",
        ),
    )


def _blame_qkv(run: Validation, w: Watched) -> Blame:
    x, want = _typed(run, w, "ln_1"), w.scene.tensors["c_attn"]
    if _alone(lambda: run.model.h[0].attn.c_attn(x), want, run.allowed("c_attn", want)):
        return Blame(
            "TransformerBlock",
            ("c_attn alone is right, but attention does not get ln_1(x)", "post-norm for pre-norm"),
        )
    return Blame("MultiHeadAttention", ("c_attn is not a Linear(C, 3C) with bias",))


def _look_cache(run: Validation, w: Watched) -> Gap | None:
    if "lengths" not in w.seen:
        return None
    T = w.ids.size(1)
    wrong = [(i, n) for i, n in enumerate(w.seen["lengths"]) if n != T]
    error = w.errors.get("pieces")
    if error or wrong:
        detail = f"the model stops with {error}" if error else ""
        if wrong and not error:
            detail = f"layer {wrong[0][0]} holds {wrong[0][1]} tokens after {T}"
        return Gap(math.inf, run.allowed("c_attn", w.scene.tensors["keys"]), detail)
    found = []
    for name in ("keys", "values"):
        want = w.scene.tensors[name]
        found.append(gap(w.seen[name], want, run.allowed("c_attn", want), name))
    return max(found, key=lambda each: each.ratio)


def _blame_cache(run: Validation, w: Watched) -> Blame:
    T = w.ids.size(1)
    cut = (T + 1) // 2
    keys, values = w.scene.tensors["keys"], w.scene.tensors["values"]
    allowed = run.allowed("c_attn", keys)
    if any(n != T for n in w.seen["lengths"]):
        return Blame(
            "GPT2Model.forward",
            (
                "layer i has to append to cache.layers[i], once per call",
                "the cache is not passed on by the block or the attention",
            ),
        )
    if gap(w.seen["keys"], values, run.allowed("c_attn", values)).fits:
        return Blame("CausalMultiHeadAttention", ("keys and values are swapped in the cache",))
    if cut < T and gap(w.seen["keys"][:, :, :cut], keys[:, :, :cut], allowed).fits:
        want = w.scene.tensors["embeddings"][:, cut:]
        alone = _alone(
            lambda: run.model.embeddings(w.ids[:, cut:], cut), want, run.allowed("ln_1", want)
        )
        cause = f"the first {cut} keys are right, those of the second piece are not: positions have"
        cause += " to go on at cache.length"
        return Blame("GPT2Model.forward" if alone else "Embeddings", (cause,))
    return Blame(
        "CausalMultiHeadAttention",
        ("c_attn's order is query, key, value", "heads are split before they are stored"),
    )


def _look_scores(run: Validation, w: Watched) -> Gap | None:
    if "weights" not in w.seen:
        return None
    want = w.scene.tensors["weights"]
    # a softmax moves by at most 2 w max|δs| when its scores move by δs
    scores = _oracle_scores(w.scene)
    if "weights" in run.rounding.measured:
        return gap(w.seen["weights"], want, run.allowed("weights", want), "the weights")
    allowed = 2 * run.rounding.relative("weights") * max(1.0, _size(scores)) * _size(want)
    return gap(w.seen["weights"], want, allowed, "the weights")


def _oracle_scores(scene: Scene) -> Tensor:
    """q kᵀ / √D of the oracle's first block, unmasked: (B, H, T, T)."""
    q = _heads(scene, 0)
    return q @ scene.tensors["keys"].transpose(-2, -1) / math.sqrt(q.size(-1))


def _heads(scene: Scene, part: int) -> Tensor:
    """Query (0), key (1) or value (2) of the oracle's first block: (B, H, T, D)."""
    x = scene.tensors["c_attn"].chunk(3, -1)[part]
    B, H, T, D = scene.tensors["keys"].shape
    return x.view(B, T, H, D).transpose(1, 2)


def _blame_scores(run: Validation, w: Watched) -> Blame:
    attn, want = run.model.h[0].attn, w.scene.tensors["weights"]
    q, k, v = (_heads(w.scene, part).to(w.device, run.dtype) for part in range(3))
    T = q.size(-2)
    mask = torch.ones(T, T, dtype=torch.bool, device=w.device).tril()
    allowed = 2 * run.rounding.relative("weights") * max(1.0, _size(_oracle_scores(w.scene)))
    seen = w.seen.get("weights")
    if _alone(lambda: attn.attention(q, k, v, mask)[1], want, allowed):
        if isinstance(seen, Tensor) and seen.shape == want.shape and _size(seen.triu(1).cpu()) > 0:
            return Blame(
                "CausalMultiHeadAttention",
                ("weights above the diagonal are not 0: a token sees what comes after it",),
            )
        x, split = w.scene.tensors["c_attn"].chunk(3, -1)[0].to(w.device, run.dtype), q.cpu()
        if not _alone(lambda: attn.split_heads(x), split, 0.0):
            return Blame("MultiHeadAttention", ("split_heads mixes up tokens or heads",))
        return Blame(
            "CausalMultiHeadAttention",
            ("attention alone is right: its queries, keys or mask are not what they should be",),
        )
    return Blame(
        "ScaledDotProductAttention",
        (
            "the scores are not divided by √D",
            "the mask is inverted, or applied after the softmax",
            "the softmax over queries instead of keys",
        ),
    )


def _blame_attention(run: Validation, w: Watched) -> Blame:
    attn, want = run.model.h[0].attn, w.scene.tensors["attn"]
    x = _typed(run, w, "ln_1")
    if _alone(lambda: attn(x), want, run.allowed("attn", want)):
        return Blame("TransformerBlock", ("attn alone is right, but it gets a different input",))
    heads = _heads(w.scene, 0)
    merged = w.scene.tensors["c_attn"].chunk(3, -1)[0]
    if not _alone(lambda: attn.merge_heads(heads.to(w.device, run.dtype)), _as(merged, run), 0.0):
        return Blame("MultiHeadAttention", ("merge_heads is not the inverse of split_heads",))
    return Blame(
        "CausalMultiHeadAttention",
        (
            "c_proj is left out, or applied before the heads are merged",
            "the values come from the wrong third of c_attn",
            "a fused path masks or scales differently from the plain one",
        ),
    )


def _as(tensor: Tensor, run: Validation) -> Tensor:
    """Rounded as the model's numbers are."""
    return tensor.to(run.dtype)


def _blame_mlp(run: Validation, w: Watched) -> Blame:
    mlp, want = run.model.h[0].mlp, w.scene.tensors["mlp"]
    x = _typed(run, w, "ln_2")
    if _alone(lambda: mlp(x), want, run.allowed("mlp", want)):
        return Blame(
            "TransformerBlock",
            (
                "mlp alone is right, but it does not get ln_2(x + attention's output)",
                "the first residual left out, or ln_1 where ln_2 belongs",
            ),
        )
    points = torch.linspace(-4, 4, 41, device=w.device).to(run.dtype)
    curve = torch.nn.functional.gelu(points.float(), approximate="tanh").cpu()
    # near the two forms are, they differ by 5e-4; half precision cannot tell them apart
    if not _alone(lambda: mlp.act(points), curve, max(1e-5, 4 * run.rounding.eps)):
        return Blame("NewGELU", ("the activation is not the tanh form of GELU (the erf form?)",))
    return Blame("FeedForward", ("c_fc, act, c_proj are not applied in this order",))


def _blame_block(run: Validation, w: Watched) -> Blame:
    return Blame(
        "TransformerBlock",
        (
            "attention and feed-forward are right, their sum is not: the second residual left out,",
            "or added to ln_2(x) instead of x",
        ),
    )


def _blame_logits(run: Validation, w: Watched) -> Blame:
    blocks = w.scene.tensors.get("blocks")
    if blocks is not None:
        for i, want in enumerate(blocks):
            got = w.seen.get(f"block {i}")
            if not gap(got, want, run.allowed("logits", want)).fits:
                return Blame(
                    "GPT2Model.forward",
                    (
                        f"block {i} is the first whose output differs",
                        "the blocks are in another order, or one module is used several times",
                    ),
                )
    return Blame(
        "GPT2Model.forward",
        (
            "ln_f is left out, or applied before the last block",
            "lm_head is not tied to wte, or has a bias",
        ),
    )


def _look_selected(run: Validation, w: Watched) -> Gap | None:
    want = w.scene.tensors["logits"][:, -1:]
    if "selected" not in w.seen:
        return None
    return gap(w.seen["selected"], want, run.allowed("logits", want), "the logits with last_only")


def _blame_selected(run: Validation, w: Watched) -> Blame:
    return Blame(
        "GPT2Model.forward",
        ("last_only has to give the last position's logits, (B, 1, V)",),
    )


def _shortfall(run: Validation, logits: Tensor, tokens: Tensor) -> Gap:
    """By how much the chosen tokens (B,) fall short of the oracle's best: logits (B, V).

    Two logits that are each off by the tolerance may change places, so twice that is allowed.
    """
    chosen = logits.gather(-1, tokens.cpu()[:, None])[:, 0]
    short = logits.amax(-1) - chosen
    return Gap(float(short.max()), 2 * run.allowed("logits", logits))


def _look_argmax(run: Validation, w: Watched) -> Gap:
    want = w.scene.tensors["logits"][:, -1]
    tokens = sampling.next_token(w.seen["selected"][:, -1], temperature=0.0)
    found = _shortfall(run, want, tokens)
    text = f"chose {tokens.tolist()}, the oracle {want.argmax(-1).tolist()}"
    return Gap(found.difference, found.tolerance, "" if found.fits else text)


def _look_probabilities(run: Validation, w: Watched) -> Gap:
    logits = generating.filter_logits(w.seen["selected"][:, -1], temperature=TEMPERATURE)
    theirs = w.scene.tensors["logits"][:, -1].double()
    want = (theirs / TEMPERATURE).softmax(-1)
    moved = run.allowed("logits", theirs) / TEMPERATURE
    allowed = min(1.0, 2 * moved * _size(want))
    return gap(logits.softmax(-1), want, allowed, "the probabilities")


def _look_text(run: Validation, w: Watched) -> Gap:
    """Greedy text with the cache, without it, and after a prompt that was read in pieces."""
    worst = Gap(0.0, 2 * run.allowed("logits", w.scene.tensors["logits"]))
    for way, write in WAYS.items():
        n = w.scene.tensors["tokens"].size(1)
        if not n:
            continue
        try:
            tokens = write(run.model, w.ids, n)
        except Exception as error:  # a learner's piece
            text = " ".join(str(error).split())[:200]
            return Gap(math.inf, worst.tolerance, f"{way}: {type(error).__name__}: {text}")
        found = _follow(run, w.scene, tokens.cpu())
        if not found.fits:
            return Gap(found.difference, found.tolerance, f"{way}: {found.detail}")
        worst = max(worst, found, key=lambda each: each.difference)
    return worst


def _follow(run: Validation, scene: Scene, tokens: Tensor) -> Gap:
    """Compare texts token by token, each row up to where a near tie lets it go its own way."""
    worst = Gap(0.0, 2 * run.allowed("logits", scene.tensors["logits"]))
    for row, (got, want) in enumerate(zip(tokens, scene.tensors["tokens"], strict=True)):
        for i in range(len(want)):
            if i >= len(got):
                return Gap(math.inf, worst.tolerance, f"{len(got)} new tokens, not {len(want)}")
            if got[i] == want[i]:
                continue
            logits = scene.tensors["token_logits"][row, i][None]
            found = _shortfall(run, logits, got[i : i + 1])
            if not found.fits:
                text = f"token {i + 1} of row {row + 1} is {int(got[i])}, the oracle's {want[i]}"
                return Gap(found.difference, found.tolerance, text)
            worst = max(worst, found, key=lambda each: each.difference)
            break
    return worst


def _write(use_cache: bool) -> Callable[[GPT2Model, Tensor, int], Tensor]:
    def write(model: GPT2Model, ids: Tensor, n: int) -> Tensor:
        found = generating.generate(model, ids, n, temperature=0.0, use_cache=use_cache)
        return found[:, ids.size(1) :]

    return write


def _in_pieces(model: GPT2Model, ids: Tensor, n: int) -> Tensor:
    """The prompt through the cache in two pieces, then token by token: (B, T) → (B, n)."""
    weight = next(model.parameters())
    cache = KVCache(model.config, len(ids), None, weight.device, weight.dtype)
    cut = (ids.size(1) + 1) // 2
    tokens = []
    with Inference(model):
        for piece in (ids[:, :cut], ids[:, cut:]):
            if piece.size(1):
                logits = generating.prefill(model, piece, cache)
        for i in range(n):
            tokens.append(sampling.next_token(logits, temperature=0.0))
            if i + 1 < n:
                logits = generating.decode_step(model, tokens[-1], cache)
    return torch.stack(tokens, 1)


WAYS: dict[str, Callable[[GPT2Model, Tensor, int], Tensor]] = {
    "without the cache": _write(False),
    "with the cache": _write(True),
    "with the prompt in pieces": _in_pieces,
}


def _blame_text(run: Validation, w: Watched) -> Blame:
    n = w.scene.tensors["tokens"].size(1)

    def right(way: str) -> bool:
        try:
            return _follow(run, w.scene, WAYS[way](run.model, w.ids, n).cpu()).fits
        except Exception:
            return False

    if not right("without the cache"):
        return Blame("generate_tokens", ("the loop does not feed the chosen token back",))
    if not right("with the cache"):
        return Blame(
            "CausalMultiHeadAttention",
            (
                "right without the cache, wrong with it: a single new token has to see every key",
                "the new token's position is cache.length",
            ),
        )
    return Blame(
        "CausalMultiHeadAttention",
        (
            "right token by token, wrong for a piece of several tokens: "
            "query i of T is at position S − T + i",
        ),
    )


def _blame_choice(run: Validation, w: Watched) -> Blame:
    return Blame("next_token", ("next_token must take the largest logit at temperature 0",))


def _blame_temperature(run: Validation, w: Watched) -> Blame:
    return Blame("gpt2.generation", ("logits are divided by the temperature before the softmax",))


CHECKPOINTS: tuple[Checkpoint, ...] = (
    Checkpoint(1, "layer normalization", "h.0.ln_1's output", (), _at("ln_1"), _blame_norm),
    Checkpoint(2, "QKV projection", "h.0.attn.c_attn's output", (1,), _at("c_attn"), _blame_qkv),
    Checkpoint(
        3,
        "KV cache state",
        "cache.layers[0] after two pieces",
        (2,),
        _look_cache,
        _blame_cache,
        ("pieces",),
    ),
    Checkpoint(
        4,
        "attention scores",
        "h.0.attn.attention's weights",
        (2,),
        _look_scores,
        _blame_scores,
        ("scores",),
    ),
    Checkpoint(5, "attention output", "h.0.attn's output", (4,), _at("attn"), _blame_attention),
    Checkpoint(6, "feed-forward output", "h.0.mlp's output", (5,), _at("mlp"), _blame_mlp),
    Checkpoint(7, "first block output", "h.0's output", (6,), _at("block"), _blame_block),
    Checkpoint(8, "full logits", "logits, all positions", (7,), _at("logits"), _blame_logits),
    Checkpoint(
        9,
        "selected logits",
        "logits with last_only",
        (8,),
        _look_selected,
        _blame_selected,
        ("selected",),
    ),
    Checkpoint(
        10,
        "argmax sampling",
        "token chosen at temperature 0",
        (9,),
        _look_argmax,
        _blame_choice,
    ),
    Checkpoint(
        11,
        "softmax probabilities",
        f"probabilities at temperature {TEMPERATURE}",
        (9,),
        _look_probabilities,
        _blame_temperature,
    ),
    Checkpoint(
        12, "end-to-end generation", "greedy text, three ways", (3, 10), _look_text, _blame_text
    ),
)


def validate(model: GPT2Model, reference: Reference) -> Iterator[Result]:
    """A model and what it should compute → the twelve checkpoints' results, as they come.

    The model may be of any dtype, on any device; it is as it was found between results.
    """
    return Validation(model, reference).results()
