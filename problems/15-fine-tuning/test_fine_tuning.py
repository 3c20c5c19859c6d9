"""Checks for problem 15: examples, batches, the masked loss, the schedule, groups, the step."""

import copy
import inspect
import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    check,
    compare,
    expect_error,
    fail,
    sizes_from,
    tensor,
)

KNOWN = known(__file__)
IGNORE = -100
V, C = sizes_from((13, 5), (17, 7), (19, 6))


# ── what is expected, with every step replaceable ───────────────────────────────────────────────


def example_of(
    prompt,
    answer,
    eos,
    max_length,
    *,
    cut=lambda p, a, m: (p[-(m - len(a)) :], a),
    join=lambda p, a, e: [*p, *a, e],
    first=lambda t: t[:-1],
    second=lambda t: t[1:],
    hide=lambda t, p, e: [IGNORE] * (p - 1) + t[p - 1 :],
    late=lambda i, t, m: (i, t),
    by_value=False,
    uncut=False,
):
    """(2, T) int64: inputs and targets of one example."""
    whole = len(prompt)
    prompt, answer = cut(prompt, answer, max_length)
    tokens = join(prompt, answer, eos)
    targets = hide(second(tokens), whole if uncut else len(prompt), eos)
    if by_value:
        targets = [IGNORE if t in prompt else t for t in second(tokens)]
    inputs, targets = late(first(tokens), targets, max_length)
    targets = targets[: len(inputs)] if uncut else targets
    return torch.tensor([inputs, targets])


def batch_of(
    examples,
    pad,
    *,
    input_pad=lambda pad: pad,
    target_pad=lambda pad: IGNORE,
    side="right",
    width=max,
    order=lambda e: e,
    change=lambda i, t, pad: (i, t),
):
    """(2, B, T) int64: inputs and targets of a batch."""
    examples = order(examples)
    T = width([len(i) for i, _ in examples])

    def filled(rows, value):
        cut = [row[:T] for row in rows]
        return torch.tensor(
            [
                row + [value] * (T - len(row))
                if side == "right"
                else [value] * (T - len(row)) + row
                for row in cut
            ]
        )

    inputs = filled([i for i, _ in examples], input_pad(pad))
    targets = filled([t for _, t in examples], target_pad(pad))
    return torch.stack(change(inputs, targets, pad))


def loss_of(
    logits,
    targets,
    *,
    shift=lambda z, t: (z, t),
    scores=lambda z: F.log_softmax(z, -1),
    pick=lambda t: t.clamp(min=0),
    keep=lambda t: t != IGNORE,
    reduce=lambda x, kept: x[kept].sum(),
):
    """The summed loss, by hand: a scalar."""
    z, t = shift(logits.float(), targets)
    one = -scores(z).gather(-1, pick(t)[..., None])[..., 0]  # (B, T)
    return reduce(one, keep(t))


def rate_of(
    step,
    peak,
    warmup_steps,
    max_steps,
    final_ratio,
    *,
    warm=lambda s, w: (s + 1) / w,
    share=lambda s, w, m: (s - w) / (m - w),
    clamp=lambda x: min(1.0, x),
    shape=lambda x: 0.5 * (1 + math.cos(math.pi * x)),
    low=lambda peak, ratio: ratio * peak,
    mix=lambda low, peak, f: low + (peak - low) * f,
    ended=lambda s, w, m: s >= m,
    after=lambda low: low,
):
    """The learning rate of one step."""
    floor = low(peak, final_ratio)
    if ended(step, warmup_steps, max_steps):
        return after(floor)
    if step < warmup_steps:
        return peak * warm(step, warmup_steps)
    return mix(floor, peak, shape(clamp(share(step, warmup_steps, max_steps))))


def length(gradients):
    """The norm of all of them together."""
    return torch.sqrt(sum((g.double() ** 2).sum() for g in gradients))


def clipped(gradients, limit):
    """Scaled as one vector to a norm of at most `limit`."""
    factor = min(1.0, float(limit / (length(gradients) + 1e-6)))
    return [g * factor for g in gradients]


def added(total, g):
    """Tensor by tensor."""
    return [a + b for a, b in zip(total, g, strict=True)]


@torch.enable_grad()  # mistakes are tried where gradients are off
def stepped(
    model,
    batches,
    rate,
    limit,
    total=None,
    left=None,
    *,
    parts=lambda b: b,
    counts=lambda t: t,
    scale=lambda s, n, total, k, size: s / total,
    start=lambda left: [g * 0 for g in left],
    gather=added,
    clip=clipped,
    when="end",
    each=False,
    apply=lambda p, g, rate: [a - rate * b for a, b in zip(p, g, strict=True)],
    finish=1.0,
    finished="before",
):
    """The weights after one step of plain gradient descent, in one vector."""
    model = copy.deepcopy(model)
    weights = list(model.parameters())
    size = sum(t.numel() for _, t in batches)
    kept = sum(int((counts(t) != IGNORE).sum()) for _, t in batches)
    total = kept if total is None else total
    chosen = parts(batches)
    sum_of = start(left or [torch.zeros_like(w) for w in weights])

    def move(gradients):
        with torch.no_grad():
            for w, new in zip(weights, apply(weights, gradients, rate), strict=True):
                w.copy_(new)

    for i, (inputs, targets) in enumerate(chosen):
        targets = counts(targets)
        n = int((targets != IGNORE).sum())
        s = loss_of(model(inputs), targets)
        g = torch.autograd.grad(scale(s, n, total, len(chosen), size), weights)
        if when == "early" and i == len(chosen) - 1:
            sum_of = clip(sum_of, limit)
        sum_of = gather(sum_of, g)
        if finished == "each":
            sum_of = [x * finish for x in sum_of]
        if when == "each":
            sum_of = clip(sum_of, limit)
        if each:
            move(clip(sum_of, limit))
    if finished == "before":
        sum_of = [x * finish for x in sum_of]
    if not each:
        done = clip(sum_of, limit) if when == "end" else sum_of
        move([x * finish for x in done] if finished == "after" else done)
    return torch.cat([w.detach().flatten() for w in weights])


# ── what is handed over ─────────────────────────────────────────────────────────────────────────


def toy(seed=0, scale=0.7):
    """Token by token: table, norm, head; random weights: (B, T) → (B, T, V)."""
    model = nn.Sequential(nn.Embedding(V, C), nn.LayerNorm(C), nn.Linear(C, V))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * scale)
    return model.train()


def parts_of(seed=0, sizes=((2, 4), (1, 7), (3, 3)), hidden=(6, 1, 4)):
    """A batch in unequal parts, with so many targets of each hidden."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for (b, t), n in zip(sizes, hidden, strict=True):
        inputs, targets = torch.randint(V, (2, b, t), generator=generator)
        targets.view(-1)[torch.randperm(b * t, generator=generator)[:n]] = IGNORE
        found.append((inputs, targets))
    return found


def vector(model):
    """All weights in one vector."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Ranked:
    """A model as several ranks share it: it has no_sync(), finish(), or both, and writes down what
    is done with it. finish() triples the gradients, as other ranks' may.
    """

    def __init__(self, module, with_no_sync=True, with_finish=True):
        self.module, self.inside = module, 0
        self.forwards, self.backwards, self.finishes, self.dtypes = [], [], [], []
        if with_no_sync:
            self.no_sync = self._no_sync
        if with_finish:
            self.finish = self._finish

    def __call__(self, inputs):
        self.forwards.append(self.inside)
        logits = self.module(inputs)
        self.dtypes.append(logits.dtype)
        if logits.requires_grad:
            logits.register_hook(lambda g: self.backwards.append(self.inside))
        return logits

    @contextmanager
    def _no_sync(self):
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def _finish(self):
        self.finishes.append(len(self.backwards))
        for p in self.module.parameters():
            if p.grad is not None:
                p.grad.mul_(3.0)

    def parameters(self):
        return self.module.parameters()

    def named_parameters(self):
        return self.module.named_parameters()

    def train(self, mode=True):
        self.module.train(mode)
        return self

    def eval(self):
        return self.train(False)

    @property
    def training(self):
        return self.module.training

    def zero_grad(self, set_to_none=True):
        self.module.zero_grad(set_to_none)


def run_step(piece, model, batches, rate=0.1, **options):
    """One step of plain gradient descent: loss, norm."""
    optimizer = torch.optim.SGD(list(model.parameters()), lr=rate)
    try:
        result = piece.train_step(model, optimizer, batches, **options)
    except AttributeError as error:
        if "no_sync" in str(error) or "'finish'" in str(error):
            fail(KNOWN["no-sync-required"], f"Python says: {error}")
        raise
    return pair(result, "train_step", "loss and gradient norm")


def pair(value, name, what):
    """A result of two parts."""
    if value is None:
        fail(f"{name} gives None: does it end without `return`?", id="no-return")
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        kind = type(value).__name__
        extra = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
        fail(f"{name} must give two things, {what}; it gives a {kind}{extra}.", id="not-a-pair")
    return value


def number(value, what):
    """A number, as a float."""
    if isinstance(value, bool) or not isinstance(value, (int, float, Tensor)):
        fail(f"{what} must be a number, and is a {type(value).__name__}.", id="not-a-number")
    if isinstance(value, Tensor) and value.numel() != 1:
        fail(f"{what} must be one number, and has shape {tuple(value.shape)}.", id="not-a-number")
    return float(value.detach() if isinstance(value, Tensor) else value)


def near(a, b, tolerance=1e-4):
    """Equal up to rounding."""
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def one_of(got, want, candidates, otherwise, what):
    """Fail unless got is want: with the candidate's id that it equals, or otherwise."""
    if near(got, want):
        return
    told = f"{what} is {got:.6g}, expected {want:.6g}."
    for name, value in candidates:
        if near(got, value) and not near(value, want):
            fail(KNOWN[name], told)
    fail(KNOWN[otherwise], told)


# ── build_example ───────────────────────────────────────────────────────────────────────────────


def built(piece, prompt, answer, eos, max_length):
    """(2, T): what build_example makes of lists of its own."""
    given = list(prompt), list(answer)
    result = piece.build_example(*given, eos, max_length)
    inputs, targets = pair(result, "build_example", "inputs and targets")
    if given != (list(prompt), list(answer)):
        fail(KNOWN["lists-edited"])
    for rows in (inputs, targets):
        if not isinstance(rows, (list, tuple)):
            fail(KNOWN["not-lists"], f"There is a {type(rows).__name__}.")
    if len(inputs) != len(targets):
        fail(KNOWN["lengths-differ"], f"{len(inputs)} inputs and {len(targets)} targets.")
    return torch.tensor([list(inputs), list(targets)])


def compare_example(piece, prompt, answer, eos, max_length):
    """Against the example by hand."""
    compare(
        lambda: built(piece, prompt, answer, eos, max_length),
        example_of(prompt, answer, eos, max_length),
        KNOWN.of("example"),
        lambda **switches: example_of(prompt, answer, eos, max_length, **switches),
        what=f"build_example({prompt}, {answer}, {eos}, {max_length}), inputs over targets,",
        axes="row T",
    )


@check(todo=3)
def test_example(piece):
    """Prompt and answer become inputs and targets: shifted by one, the prompt hidden"""
    compare_example(piece, [5, 6, 7, 8], [1, 2, 3], 9, 20)
    compare_example(piece, [4, 8, 6], [2, 7, 3, 5, 1], 11, 16)


@check(todo=1)
def test_example_refused(piece):
    """An empty prompt or answer, and no room for a prompt token, are ValueErrors"""

    def refused(prompt, answer, max_length, when, name):
        expect_error(
            lambda: piece.build_example(prompt, answer, 9, max_length),
            (),
            when=when,
            missing=KNOWN[name],
        )

    refused([], [1, 2], 8, "the prompt is empty", "empty-accepted")
    refused([1, 2], [], 8, "the answer is empty", "empty-accepted")
    refused([1, 2], [3, 4, 5], 3, "3 answer tokens fill max_length = 3", "no-room-accepted")
    refused([1, 2], [3, 4, 5, 6], 3, "4 answer tokens exceed max_length = 3", "no-room-accepted")
    refused([1], [3, 4], 1, "2 answer tokens exceed max_length = 1", "no-room-accepted")
    for prompt, answer, most in (([1, 2], [3, 4, 5], 4), ([1], [2], 2)):
        try:
            piece.build_example(prompt, answer, 9, most)
        except ValueError as error:
            fail(
                KNOWN["room-refused"],
                f"With {len(answer)} answer tokens and max_length = {most} it says: {error}",
            )


@check(todo=3, needs=(test_example, test_example_refused))
def test_example_edges(piece):
    """One token of each; tokens that recur; the end token inside prompt and answer"""
    compare_example(piece, [3], [7], 9, 20)
    compare_example(piece, [3], [7], 9, 2)
    compare_example(piece, [3, 5, 4], [5, 3, 6, 5], 9, 20)
    compare_example(piece, [9, 4, 9], [2, 9, 6], 9, 20)
    compare_example(piece, [0, 0], [0, 0, 0], 0, 20)
    if getattr(piece, "IGNORE", IGNORE) != IGNORE:
        fail(f"IGNORE must be {IGNORE}, and is {piece.IGNORE!r}.", id="wrong-ignore")


@check(todo=3, needs=(test_example, test_example_refused))
def test_example_too_long(piece):
    """A long prompt loses its beginning, and the answer is whole"""
    prompt, answer = [1, 2, 3, 4, 5, 6, 7, 8], [10, 11, 12]
    for max_length in (11, 10, 7, 4):
        compare_example(piece, prompt, answer, 9, max_length)


# ── collate ─────────────────────────────────────────────────────────────────────────────────────

EXAMPLES = [
    ([5, 6, 1, 2], [IGNORE, 1, 2, 9]),
    ([7, 3], [3, 9]),
    ([4, 8, 5, 9, 2, 6], [IGNORE, IGNORE, 9, 2, 6, 9]),
]


def collated(piece, examples, pad):
    """(2, B, T): what collate makes of examples of its own."""
    given = copy.deepcopy(examples)
    result = pair(piece.collate(given, pad), "collate", "inputs and targets")
    if given != examples:
        fail(KNOWN["lists-edited"])
    for part in result:
        if tensor(part, "a part of the batch").dtype != torch.int64:
            fail(KNOWN["not-int64"], f"There is a tensor of {part.dtype}.")
    inputs, targets = result
    if inputs.shape != targets.shape:
        fail(
            "Inputs and targets of a batch have different shapes: "
            f"{tuple(inputs.shape)} and {tuple(targets.shape)}.",
            id="wrong-shape",
        )
    return torch.stack([inputs, targets])


def compare_batch(piece, examples, pad):
    """Against the batch by hand."""
    compare(
        lambda: collated(piece, examples, pad),
        batch_of(examples, pad),
        KNOWN.of("batch"),
        lambda **switches: batch_of(examples, pad, **switches),
        what=f"the batch, padded with {pad}, inputs over targets,",
        axes="row B T",
    )


@check(todo=4)
def test_batch(piece):
    """Examples of different lengths are padded on the right"""
    compare_batch(piece, EXAMPLES, 11)


@check(todo=4, needs=test_batch)
def test_batch_edges(piece):
    """Padding that is the end token, or 0; one example; equal lengths"""
    for pad in (9, 0, 3):
        compare_batch(piece, EXAMPLES, pad)
    compare_batch(piece, EXAMPLES[:1], 9)
    compare_batch(piece, [EXAMPLES[1], ([9, 9], [9, 9])], 9)
    compare_batch(piece, EXAMPLES[::-1], 11)


# ── masked_loss ─────────────────────────────────────────────────────────────────────────────────


def logits_for(b, t, seed=0, scale=2.0):
    """Random logits (b, t, V) and targets, a third of them hidden; token 0 among the others."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(b, t, V, generator=generator) * scale
    targets = torch.randint(1, V, (b, t), generator=generator)
    targets[torch.rand(b, t, generator=generator) < 0.33] = IGNORE
    targets[0, 0], targets[0, 1], targets[-1, -1] = 0, IGNORE, 3
    return logits, targets


def loss_and_count(piece, logits, targets):
    """Sum and count of the piece."""
    result = piece.masked_loss(logits, targets)
    return pair(result, "masked_loss", "sum and count")


@check(todo=5)
def test_loss(piece):
    """The summed cross-entropy of the targets that count"""
    logits, targets = logits_for(3, 5)

    def run():
        got = tensor(loss_and_count(piece, logits, targets)[0], "the sum")
        if got.numel() == 1:
            return got.reshape(())
        return got

    try:
        compare(
            run,
            F.cross_entropy(
                logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
            ),
            KNOWN.of("loss"),
            lambda **switches: loss_of(logits, targets, **switches),
            what="the sum",
            given=(logits, targets),
        )
    except (IndexError, RuntimeError) as error:
        if str(IGNORE) in str(error) or "out of bounds" in str(error) or "index" in str(error):
            fail(KNOWN["ignored-counted"], f"PyTorch says: {str(error).splitlines()[0]}")
        raise


@check(todo=5, needs=test_loss)
def test_count(piece):
    """How many targets count"""
    for seed, (b, t) in ((1, (2, 4)), (2, (4, 3))):
        logits, targets = logits_for(b, t, seed)
        want = int((targets != IGNORE).sum())
        got = number(loss_and_count(piece, logits, targets)[1], "the count")
        if got != want:
            told = f"It is {got:g}, expected {want} of {b * t}."
            fail(KNOWN["count-of-all" if got == b * t else "count-wrong"], told)


@check(todo=5, needs=(test_loss, test_count))
def test_loss_of_nothing(piece):
    """Without a target that counts, 0 and 0"""
    logits = logits_for(2, 3)[0].requires_grad_()
    targets = torch.full((2, 3), IGNORE)
    try:
        total, count = loss_and_count(piece, logits, targets)
    except NotImplementedError:
        raise
    except Exception as error:
        fail(KNOWN["error-without-targets"], f"{type(error).__name__}: {error}")
    got = number(total, "the sum")
    if math.isnan(got):
        fail(KNOWN["nan-without-targets"])
    if got != 0 or number(count, "the count") != 0:
        fail(
            "Where no target counts, sum and count must be 0 and 0; they are "
            f"{got:g} and {number(count, 'the count'):g}.",
            id="nothing-counted",
        )


@check(todo=5, needs=test_loss)
def test_loss_precision(piece):
    """Half-precision logits are summed in float32, and large ones don't overflow"""
    logits, targets = logits_for(8, 40, seed=3)
    half = logits.bfloat16()
    got = tensor(loss_and_count(piece, half, targets)[0], "the sum")
    want = loss_of(half.float(), targets)
    if got.dtype != torch.float32 or not near(float(got), float(want)):
        fail(
            KNOWN["loss-in-half"],
            f"The sum is {float(got):.6g} ({got.dtype}), expected {float(want):.6g}.",
        )
    large = logits * 100
    got, want = float(loss_and_count(piece, large, targets)[0]), float(loss_of(large, targets))
    if not math.isfinite(got):
        fail(KNOWN["loss-overflows"], f"With logits of some hundreds it is {got}.")
    if not near(got, want):
        fail(f"With logits of some hundreds the sum is {got:.6g}, expected {want:.6g}.")


@check(todo=5, needs=test_loss)
def test_loss_gradient(piece):
    """The sum carries the gradient, which is 0 where nothing counts"""
    logits, targets = logits_for(3, 5, seed=4)
    mine, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    total = loss_and_count(piece, mine, targets)[0]
    if not isinstance(total, Tensor) or not total.requires_grad:
        fail(KNOWN["loss-without-graph"])
    total.backward()
    loss_of(other, targets).backward()
    compare(mine.grad, other.grad, what="the gradient of the logits", axes="B T V")


# ── learning_rate ───────────────────────────────────────────────────────────────────────────────


def rates(piece, steps, **options):
    """The piece's rates, one tensor."""
    found = []
    for step in steps:
        try:
            found.append(number(piece.learning_rate(step, **options), "the learning rate"))
        except ZeroDivisionError:
            fail(KNOWN["divides-by-zero"], f"At step {step} with {options}.")
    return torch.tensor(found, dtype=torch.float64)


def compare_rates(piece, peak, warmup_steps, max_steps, final_ratio, extra=6):
    """Against the schedule by hand, some steps beyond its end."""
    steps = range(max_steps + extra)
    numbers = (peak, warmup_steps, max_steps, final_ratio)

    def schedule(**switches):
        return torch.tensor([rate_of(s, *numbers, **switches) for s in steps], dtype=torch.float64)

    compare(
        lambda: rates(
            piece,
            steps,
            peak=peak,
            warmup_steps=warmup_steps,
            max_steps=max_steps,
            final_ratio=final_ratio,
        ),
        schedule(),
        KNOWN.of("rate"),
        schedule,
        what=f"the rate (peak {peak}, warm-up {warmup_steps}, max_steps {max_steps}, "
        f"final_ratio {final_ratio})",
        axes="step",
        rtol=1e-6,
        atol=1e-9,
    )


@check(todo=6)
def test_rate(piece):
    """Warm-up, half a cosine, and the final rate from max_steps on"""
    compare_rates(piece, 2.0, 4, 20, 0.25)
    compare_rates(piece, 0.5, 3, 11, 0.0)


@check(todo=6, needs=test_rate)
def test_rate_edges(piece):
    """No warm-up; a warm-up as long as the run, or longer; the default of a tenth"""
    compare_rates(piece, 3.0, 0, 8, 0.2)
    compare_rates(piece, 3.0, 1, 8, 1.0)
    compare_rates(piece, 3.0, 8, 8, 0.2)
    compare_rates(piece, 3.0, 5, 1, 0.2, extra=0)
    got = rates(piece, (5, 7, 30), peak=3.0, warmup_steps=10, max_steps=5, final_ratio=0.2)
    if not torch.allclose(got, torch.full_like(got, 0.6)):
        fail(
            KNOWN["warm-up-beyond-end"],
            f"With warm-up 10, max_steps 5 and peak 3, steps 5, 7 and 30 have {got.tolist()}, "
            "expected 0.6.",
        )
    got = rates(piece, (9, 40), peak=4.0, warmup_steps=2, max_steps=9)
    if not torch.allclose(got, torch.full_like(got, 0.4)):
        fail("final_ratio must default to 0.1.", id="wrong-default")


# ── parameter_groups ────────────────────────────────────────────────────────────────────────────


def many():
    """Parameters of one, two and three dimensions, one of them tied, one frozen."""
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(V, C),
            "norm": nn.LayerNorm(C),
            "mix": nn.Conv1d(C, C, 2),
            "inner": nn.Linear(C, C + 1),
            "old": nn.Linear(C, C + 2),
            "head": nn.Linear(C, V, bias=False),
        }
    )
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    model["head"].weight = model["table"].weight
    model["old"].weight.requires_grad_(False)
    model["old"].bias.requires_grad_(False)
    return model


def decays(piece, model, weight_decay):
    """Name → the weight decays under which the parameter is listed."""
    groups = piece.parameter_groups(model, weight_decay)
    if inspect.isgenerator(groups):
        groups = list(groups)
    if not isinstance(groups, (list, tuple)) or not all(isinstance(g, dict) for g in groups):
        fail(
            "parameter_groups must give a list of dicts, as optimizers take them; it gives a "
            f"{type(groups).__name__}.",
            id="not-groups",
        )
    names = dict(model.named_parameters())
    found = {name: [] for name in names}
    for group in groups:
        if "params" not in group:
            fail(f"A group has no `params`: it has {', '.join(map(str, group))}.", id="not-groups")
        listed = group["params"]
        listed = [listed] if isinstance(listed, Tensor) else list(listed)
        if listed and "weight_decay" not in group:
            fail(KNOWN["decay-key-missing"], f"The group has {', '.join(map(str, group))}.")
        for p in listed:
            if isinstance(p, (tuple, list)):
                fail(
                    "A group lists pairs of name and parameter; optimizers take parameters.",
                    id="not-groups",
                )
            name = next((n for n, own in names.items() if own is p), None)
            if name is None:  # another process's twin of it
                same = [n for n, own in names.items() if own.shape == p.shape]
                name = next((n for n in same if torch.equal(names[n], p)), None)
            if name is None:
                fail(
                    f"A group lists a tensor {tuple(p.shape)} that is not a parameter of the "
                    "model.",
                    id="not-groups",
                )
            found[name].append(float(group["weight_decay"]))
    return found


@check(todo=7)
def test_groups(piece):
    """Tensors of two and more dimensions decay, the others don't; each once, the frozen not at all"""
    decay = 0.3
    model = many()
    found = decays(piece, model, decay)
    names = dict(model.named_parameters())
    for name, p in names.items():
        if not p.requires_grad and found[name]:
            fail(KNOWN["frozen-included"], f"It is {name}.")
    trained = {n: found[n] for n, p in names.items() if p.requires_grad}
    for name, values in trained.items():
        if len(values) > 1:
            fail(KNOWN["tied-twice"], f"{name} is listed {len(values)} times.")
        if not values:
            fail(KNOWN["parameters-missing"], f"It is {name}.")
    value = {n: v[0] for n, v in trained.items()}
    for name, v in value.items():
        if v not in (0.0, decay):
            fail(KNOWN["decay-other-value"], f"{name} decays by {v}, asked for was {decay}.")
    wide = {n: value[n] for n in ("table.weight", "mix.weight", "inner.weight")}
    thin = {n: value[n] for n in value if n not in wide}
    if all(wide.values()) and not any(thin.values()):
        return
    if not any(wide.values()) and all(thin.values()):
        fail(KNOWN["decay-exchanged"])
    if not any(value.values()):
        fail(KNOWN["nothing-decays"])
    if all(value.values()):
        fail(KNOWN["all-decay"])
    told = "Decaying: " + ", ".join(n for n, v in value.items() if v) + "."
    if not wide["mix.weight"] and wide["inner.weight"] and not any(thin.values()):
        fail(KNOWN["only-two-dimensions"], told)
    if not wide["table.weight"] and not any(thin.values()):
        fail(KNOWN["embeddings-left-undecayed"], told)
    if thin["norm.weight"]:
        fail(KNOWN["norms-decay"], told)
    if any(v for n, v in thin.items() if n.endswith("bias")):
        fail(KNOWN["biases-decay"], told)
    fail("Other tensors decay than those of two and more dimensions.", told, id="wrong-groups")


@check(todo=7, needs=test_groups)
def test_groups_of_an_optimizer(piece):
    """An optimizer takes the groups; weight_decay is what was asked for, 0 too"""
    for decay in (0.0, 0.05):
        model = many()
        found = decays(piece, model, decay)
        if {v for values in found.values() for v in values} - {0.0, decay}:
            fail(KNOWN["decay-other-value"], f"Asked for was {decay}.")
        torch.optim.AdamW(piece.parameter_groups(model, decay), lr=0.1)


# ── train_step ──────────────────────────────────────────────────────────────────────────────────

FREE = 1e9  # a limit that no gradient reaches


def examine_step(piece, batches, limit=FREE, total=None, left=False, seed=0, scale=0.7, what=""):
    """Compare the weights after one step; → loss, norm, and what they must be."""
    model, rate = toy(seed, scale), 0.1
    generator = torch.Generator().manual_seed(9)
    before = [torch.randn(p.shape, generator=generator) for p in model.parameters()]
    twin = copy.deepcopy(model)
    results = []

    def run():
        results.clear()
        with torch.no_grad():
            for p, other in zip(model.parameters(), twin.parameters(), strict=True):
                p.copy_(other)
        for p, g in zip(model.parameters(), before, strict=True):
            p.grad = g.clone() if left else None
        options = {} if total is None else {"total": total}
        results[:] = run_step(piece, model, batches, rate, grad_clip=limit, **options)
        return vector(model)

    compare(
        run,
        stepped(twin, batches, rate, limit, total),
        KNOWN.of("step"),
        lambda **switches: stepped(
            twin, batches, rate, limit, total, before if left else None, **switches
        ),
        what=f"the weights after one step{what}",
        rtol=1e-4,
        atol=1e-6,
    )
    sums = [(float(loss_of(twin(x), y)), int((y != IGNORE).sum())) for x, y in batches]
    return (*results, sums, twin)


@check(todo=12, needs=test_loss)
def test_step(piece):
    """One step over one batch, and over a batch in unequal parts"""
    plain = Ranked(toy(), with_no_sync=False, with_finish=False)
    run_step(piece, plain, parts_of())
    if set(plain.dtypes) != {torch.float32}:
        fail(KNOWN["autocast-always"], f"The logits are {plain.dtypes[0]}.")
    examine_step(piece, parts_of()[:1], what=" over one batch")
    examine_step(piece, parts_of(), what=" over three unequal parts")
    examine_step(piece, parts_of(2, ((1, 3), (2, 6)), (0, 11)), what=" over two parts", seed=1)


@check(todo=12, needs=test_step)
def test_step_starts_from_nothing(piece):
    """Gradients that were there before don't matter"""
    examine_step(piece, parts_of(1), left=True, what=" with gradients left over from before")


@check(todo=12, needs=test_step)
def test_clipping(piece):
    """The whole gradient is clipped once, to a norm of grad_clip"""
    for limit in (0.05, 0.2):
        examine_step(piece, parts_of(3), limit, what=f" with grad_clip={limit}")
    model, batches, rate = toy(scale=3.0), parts_of(3), 0.1
    twin = copy.deepcopy(model)
    compare(
        lambda: (run_step(piece, model, batches, rate), vector(model))[1],
        stepped(twin, batches, rate, 1.0),
        KNOWN.of("step", without=("clip-ignored",)),
        lambda **switches: stepped(twin, batches, rate, 1.0, **switches),
        what="the weights after one step with grad_clip as it is by default (1.0)",
        atol=1e-6,
    )


@check(todo=12, needs=test_step)
def test_loss_returned(piece):
    """The loss is the mean over all counted targets of all parts"""
    for batches in (parts_of(4), parts_of(2, ((1, 3), (2, 6)), (0, 11))):
        loss, norm, sums, twin = examine_step(piece, batches)
        total = sum(n for _, n in sums)
        got, want = number(loss, "the loss"), sum(s for s, _ in sums) / total
        weights = list(twin.parameters())
        mean = sum(loss_of(twin(x), y) for x, y in batches) / total
        whole = float(length(torch.autograd.grad(mean, weights)))
        if near(got, whole) and near(number(norm, "the norm"), want):
            fail(KNOWN["results-exchanged"])
        last, n = sums[-1]
        one_of(
            got,
            want,
            (
                ("loss-of-last-part", last / n),
                ("loss-of-last-part", last / total),
                ("loss-of-last-part", last),
                ("loss-mean-of-means", sum(s / n for s, n in sums) / len(sums)),
                ("loss-mean-of-means", sum(s / n for s, n in sums)),
                ("loss-summed", sum(s for s, _ in sums)),
            ),
            "loss-not-the-mean",
            "The loss",
        )


@check(todo=12, needs=(test_step, test_clipping, test_loss_returned))
def test_norm_returned(piece):
    """The norm is that of the whole gradient, before clipping"""
    for limit in (FREE, 0.1):
        batches = parts_of(5)
        _, norm, sums, twin = examine_step(piece, batches, limit)
        mean = sum(loss_of(twin(x), y) for x, y in batches) / sum(n for _, n in sums)
        gradients = torch.autograd.grad(mean, list(twin.parameters()))
        whole = float(length(gradients))
        one_of(
            number(norm, "the norm"),
            whole,
            (
                ("norm-after-clipping", min(whole, limit)),
                ("norm-squared", whole**2),
                ("norm-of-norms-added", sum(float(g.norm()) for g in gradients)),
            ),
            "norm-wrong",
            f"With grad_clip={limit:g} the norm",
        )


@check(todo=12, needs=(test_step, test_loss_returned))
def test_total(piece):
    """`total`, where it is given, is what the sums are divided by"""
    batches = parts_of(6)
    own = sum(int((y != IGNORE).sum()) for _, y in batches)
    for total in (own * 2.5, float(own + 3)):
        model, rate = toy(), 0.1
        twin = copy.deepcopy(model)
        loss, _ = run_step(piece, model, batches, rate, grad_clip=FREE, total=total)
        told = f"{own} targets count, and total={total:g}."
        if torch.allclose(vector(model), stepped(twin, batches, rate, FREE), atol=1e-6):
            fail(KNOWN["total-ignored"], told)
        compare(
            vector(model),
            stepped(twin, batches, rate, FREE, total),
            KNOWN.of("step"),
            lambda total=total, twin=twin, **switches: stepped(
                twin, batches, 0.1, FREE, total, **switches
            ),
            what=f"the weights after one step with total={total:g}",
            atol=1e-6,
        )
        got = number(loss, "the loss")
        want = float(sum(loss_of(twin(x), y) for x, y in batches)) / total
        one_of(
            got,
            want,
            (("total-for-gradient-only", want * total / own),),
            "loss-not-the-mean",
            f"With total={total:g} the loss",
        )


@check(todo=12, needs=test_step)
def test_mode(piece):
    """The model's mode is left as it is"""
    for training in (True, False):
        model = toy().train(training)
        run_step(piece, model, parts_of())
        if any(m.training != training for m in model.modules()):
            fail(KNOWN["mode-switched"], f"It was training={training} before.")


@check(todo=12, needs=test_step)
def test_nothing_to_train_on(piece):
    """A step without a counted target is a ValueError, and changes nothing"""
    model = toy()
    optimizer = torch.optim.AdamW(list(model.parameters()), lr=0.1)
    piece.train_step(model, optimizer, parts_of())  # so that there is something to remember
    before, state = vector(model), copy.deepcopy(optimizer.state_dict()["state"])
    hidden = [(x, torch.full_like(y, IGNORE)) for x, y in parts_of()]
    for batches in (hidden[:1], hidden):
        expect_error(
            lambda b=batches: piece.train_step(model, optimizer, b),
            (),
            when="no target of a step counts",
            missing=KNOWN["no-target-accepted"],
        )
        now = optimizer.state_dict()["state"]
        same = all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(now[i][k]))
            for i, slots in state.items()
            for k, v in slots.items()
        )
        if not same or not torch.equal(before, vector(model)):
            fail(KNOWN["no-target-changes"])
    some = [hidden[0], parts_of()[1]]
    examine_step(piece, some, what=" over two parts, of which one has no counted target")


@check(todo=12, needs=(test_step, test_clipping))
def test_several_ranks(piece):
    """no_sync() for all parts but the last, finish() once and before clipping"""
    batches, rate, limit = parts_of(7), 0.1, 0.3
    for count in (3, 1):
        ranked = Ranked(toy(scale=0.7))
        twin = copy.deepcopy(ranked.module)
        given = batches[:count]
        run_step(piece, ranked, given, rate, grad_clip=limit)
        want = [1] * (count - 1) + [0]
        inside = list(zip(ranked.forwards, ranked.backwards, strict=False))
        told = f"Of {count} parts, inside no_sync(): forward {ranked.forwards}, backward "
        told += f"{ranked.backwards}; expected {want} for both."
        if ranked.forwards != want or ranked.backwards != want:
            if not any(map(any, inside)):
                fail(KNOWN["no-sync-missing"], told)
            if all(map(all, inside)):
                fail(KNOWN["no-sync-for-all"], told)
            if any(f != b for f, b in inside):
                fail(KNOWN["no-sync-half"], told)
            fail(
                "Other parts than all but the last run inside no_sync().", told, id="no-sync-wrong"
            )
        if not ranked.finishes:
            fail(KNOWN["finish-missing"])
        if len(ranked.finishes) > 1:
            fail(KNOWN["finish-each-part"], f"It is called {len(ranked.finishes)} times.")
        if ranked.finishes != [count]:
            fail("finish() is called before the last backward pass.", id="finish-early")
        after = vector(ranked.module)
        if not torch.allclose(
            after, stepped(twin, given, rate, limit, finish=3.0), rtol=1e-4, atol=1e-6
        ):
            for ways in (
                {"finish": 3.0, "finished": "after"},
                {"finish": 1.0},
            ):
                if torch.allclose(after, stepped(twin, given, rate, limit, **ways), atol=1e-6):
                    fail(KNOWN["finish-late"])
            fail(
                "The gradient that finish() leaves is not the one that is clipped and used.",
                id="finish-ignored",
            )


@check(todo=12, needs=test_several_ranks)
def test_one_of_the_two(piece):
    """A model may have no_sync() without finish(), and finish() without no_sync()"""
    for with_no_sync, with_finish in ((True, False), (False, True)):
        ranked = Ranked(toy(), with_no_sync, with_finish)
        twin = copy.deepcopy(ranked.module)
        run_step(piece, ranked, parts_of(8), grad_clip=FREE)
        want = stepped(twin, parts_of(8), 0.1, FREE, finish=3.0 if with_finish else 1.0)
        if with_finish and not ranked.finishes:
            fail(KNOWN["finish-missing"])
        if with_no_sync and ranked.forwards != [1, 1, 0]:
            fail(KNOWN["no-sync-missing"])
        got = vector(ranked.module)
        late = stepped(twin, parts_of(8), 0.1, FREE)
        if with_finish and torch.allclose(got, late, rtol=1e-4, atol=1e-6):
            fail(KNOWN["finish-late"])
        compare(got, want, what="the weights after one step", atol=1e-6)


@check(todo=12, needs=(test_step, test_loss_returned))
def test_autocast(piece):
    """autocast_dtype is what the model computes in; weights and loss stay float32"""
    ranked = Ranked(toy(), with_no_sync=False, with_finish=False)
    twin = copy.deepcopy(ranked.module)
    loss, _ = run_step(piece, ranked, parts_of(), autocast_dtype=torch.bfloat16)
    if set(ranked.dtypes) != {torch.bfloat16}:
        fail(KNOWN["autocast-missing"], f"The logits are {ranked.dtypes[0]}.")
    if any(p.dtype != torch.float32 for p in ranked.module.parameters()):
        fail(KNOWN["weights-in-half"])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = [(twin(x).float(), y) for x, y in parts_of()]
    want = sum(float(loss_of(z, y)) for z, y in logits)
    want /= sum(int((y != IGNORE).sum()) for _, y in parts_of())
    got = number(loss, "the loss")
    if not near(got, want, 1e-3):
        fail(
            KNOWN["loss-in-half"],
            f"Under autocast the loss is {got:.6g}, expected {want:.6g}.",
        )
