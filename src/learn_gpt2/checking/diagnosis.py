"""What a wrong tensor tells about the mistake behind it.

`named` looks for the known mistakes that give exactly what the learner got; `clues` says what holds
of the difference when no known mistake fits. `explain_exception` reads PyTorch's error messages.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from learn_gpt2.checking.surroundings import operands


@dataclass(frozen=True, eq=False)  # compared by identity, so that one can be a key
class Mistake:
    """A misconception that has a name.

    `says` is the sentence a good teacher would say, `hint` the number of the README's hint it
    points to, `switches` what it changes in the problem's `variant` function (empty: found by a
    check). general: it says less than others that may fit as well, and gives way to them.
    """

    id: str
    says: str
    hint: int
    switches: Mapping[str, object] = field(default_factory=dict)
    general: bool = False


def mistake(id: str, says: str, hint: int, *, general: bool = False, **switches: object) -> Mistake:
    """A Mistake, its switches as keywords."""
    return Mistake(id, says, hint, switches, general)


Variant = Callable[..., Tensor]
# a check may search twice (in a small example and in a larger one), and has 5 s in all
PAIR_SECONDS = 1.2
TIE_SECONDS = 0.2  # to look whether another pair gives the same


def close(a: Tensor, b: Tensor, rtol: float, atol: float) -> bool:
    """Equal shapes and close values; NaN and infinities count as equal to themselves."""
    if a.shape != b.shape:
        return False
    a, b = a.detach().double(), b.detach().double()
    return torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)


@dataclass(frozen=True)
class Finding:
    """What `named` found: the mistakes that explain a result, all of them together, or (either)
    each of them alone, so that the numbers can't say which it is. only_here: none of them fits
    what passed before, so the mistake is made in this case alone.
    """

    mistakes: tuple[Mistake, ...]
    either: bool = False
    only_here: bool = False


@dataclass(frozen=True, eq=False)
class Passed:
    """A comparison that passed, kept to tell later which mistakes it rules out."""

    want: Tensor
    mistakes: tuple[Mistake, ...]
    variant: Variant
    rtol: float
    atol: float

    def rules_out(self, mistakes: Sequence[Mistake]) -> bool:
        """Whether these mistakes, all of them, would have shown in it."""
        if not all(m in self.mistakes for m in mistakes):
            return False
        if not self._gives({}):  # it depends on something that has changed since
            return False
        return not self._gives({k: v for m in mistakes for k, v in m.switches.items()})

    def _gives(self, switches: Mapping[str, object]) -> bool:
        made = _attempt(lambda: self.variant(**switches))
        return isinstance(made, Tensor) and close(made, self.want, 10 * self.rtol, 10 * self.atol)


def _attempt(run: Callable[[], object]) -> Tensor | str | None:
    """What a run gives: a tensor, or its error as text, or None when it gives nothing of use."""
    try:
        with torch.no_grad():
            got = run()
        return got if isinstance(got, Tensor) else None
    except Exception as error:  # a mistaken formula may well not run
        return f"{type(error).__name__}: {error}"


def _operands(run: Callable[[], object], error: str) -> list[Tensor] | None:
    """What the operation was given at which the run stops with this error; None when it doesn't."""
    given: list[Tensor] = []

    def recorded() -> object:
        with operands() as last:
            try:
                return run()
            finally:
                given[:] = last

    return given if _attempt(recorded) == error else None


def _same_operands(a: list[Tensor] | None, b: list[Tensor] | None) -> bool:
    """Whether both are the same tensors, as far as is known."""
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(close(x, y, 1e-3, 1e-4) for x, y in zip(a, b, strict=True))


def _distance(a: Tensor, b: Tensor) -> float:
    """The largest difference between two tensors of one shape, where both are finite."""
    a, b = a.detach().double(), b.detach().double()
    both = torch.isfinite(a) & torch.isfinite(b)
    return float((a - b)[both].abs().max()) if both.any() else 0.0


def named(
    got: Tensor | BaseException,
    want: Tensor,
    mistakes: Iterable[Mistake],
    variant: Variant | None,
    rtol: float,
    atol: float,
    again: Callable[[], object] | None = None,
    passed: Sequence[Passed] = (),
) -> Finding | None:
    """The known mistake that gives exactly `got`, or the pair of mistakes; None when none does.

    A mistake that gives what is wanted as well explains nothing and is left out. When several give
    the same, those that what `passed` before rules out are left out, and the finding holds the
    others as alternatives. again: the run that raised `got`, to see at which operation it stops.
    """
    if variant is None:
        return None
    single = [m for m in mistakes if m.switches]
    if isinstance(got, BaseException):
        return _decided(_same_error(got, single, variant, again), passed)
    scale = float(got.detach().double().nan_to_num(0.0, 0.0, 0.0).abs().max()) if got.numel() else 0
    from_want = _distance(got, want) if got.shape == want.shape else float("inf")

    def error_of(switches: Mapping[str, object]) -> float | None:
        """How far the mistake's result is from `got`; None when it does not explain it."""
        made = _attempt(lambda: variant(**switches))
        if not isinstance(made, Tensor) or not close(got, made, rtol, atol):
            return None
        if close(made, want, rtol, atol):
            return None
        error = _distance(got, made)
        # what is nearly right lies close to every mistake that hardly matters here
        return None if error > max(0.1 * from_want, 1e-6 * scale) else error

    def best(fitting: list[tuple[float, tuple[Mistake, ...]]]) -> list[tuple[Mistake, ...]]:
        """Those that fit as well as the best does."""
        limit = max(10 * min(error for error, _ in fitting), 2e-6 * scale) if fitting else 0
        return [found for error, found in fitting if error <= limit]

    fitting = [(e, (m,)) for m in single if (e := error_of(m.switches)) is not None]
    if fitting:
        return _decided(best(fitting), passed)
    # by the later of the two: a catalog begins with what is common
    pairs = ((single[i], single[j]) for j in range(len(single)) for i in range(j))
    apart = ((a, b) for a, b in pairs if not set(a.switches) & set(b.switches))
    # a busy machine should not change a message, as long as the check's own limit allows for it
    start, wall, first = time.thread_time(), time.monotonic(), 0.0
    for a, b in itertools.islice(apart, 5000):
        # a check is stopped after a few seconds, and a message without a name is better than that
        spent = max(time.thread_time() - start, (time.monotonic() - wall) / 1.6)
        if spent > (min(PAIR_SECONDS, first + TIE_SECONDS) if fitting else PAIR_SECONDS):
            break
        if (error := error_of({**a.switches, **b.switches})) is not None:
            first = first if fitting else spent
            fitting.append((error, (a, b)))
    return _decided(best(fitting), passed)


def _decided(found: Sequence[tuple[Mistake, ...]], passed: Sequence[Passed] = ()) -> Finding | None:
    """One finding of several explanations that fit equally well."""
    if not found:
        return None
    free = [f for f in found if not any(p.rules_out(f) for p in passed)]
    special = [f for f in free or found if not any(m.general for m in f)]
    by_sentence = {tuple(m.says for m in f): f for f in reversed(special or free or found)}
    left = list(reversed(by_sentence.values()))
    if len(left) == 1:
        return Finding(left[0], only_here=not free)
    if all(len(f) == 1 for f in left):
        return Finding(tuple(m for (m,) in left), either=True, only_here=not free)
    # other pairs that give the same: then nobody knows which two it is
    same = len({frozenset(m.id for m in f) for f in left}) == 1
    return Finding(left[0], only_here=not free) if same else None


def _same_error(
    got: BaseException,
    mistakes: list[Mistake],
    variant: Variant,
    again: Callable[[], object] | None,
) -> list[tuple[Mistake, ...]]:
    """The mistakes that stop with the same error, at an operation that is given the same: the same
    error comes from many places.

    Pairs are not tried: many end in the same error, so it would be a guess.
    """
    text = f"{type(got).__name__}: {got}"
    found = [m for m in mistakes if _attempt(lambda m=m: variant(**m.switches)) == text]
    mine = _operands(again, text) if found and again is not None else None
    return [
        (m,)
        for m in found
        if _same_operands(mine, _operands(lambda m=m: variant(**m.switches), text))
    ]


# ── clues ───────────────────────────────────────────────────────────────────────────────────────


def clues(
    got: Tensor,
    want: Tensor,
    axes: str = "",
    sizes: Mapping[str, float] | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> list[str]:
    """What is true of the difference between two tensors of any shapes, most telling first.

    axes: names of want's axes, such as "B T C". sizes: named numbers a ratio may be made of.
    """
    names = (
        axes.split()
        if len(axes.split()) == want.dim()
        else [f"axis {i}" for i in range(want.dim())]
    )
    got, want = got.detach().double(), want.detach().double()
    if got.shape != want.shape:
        return _shape_clues(got, want, names, rtol, atol)
    found: list[str] = []
    bad = ~torch.isfinite(got) & torch.isfinite(want)
    if bad.any():
        kind = "NaN" if torch.isnan(got).any() else "infinite"
        where = "all" if bad.all() else f"{int(bad.sum())} of {bad.numel()}"
        return [f"{where} of the numbers are {kind}, first at {_at(bad, names)}"]
    if (got == 0).all():
        return ["all of them are 0"]
    for look in (_ratio, _offset, _transposed, _permuted, _where, _dropped, _nearly):
        text = look(got, want, names, sizes or {}, rtol, atol)
        if text:
            found.append(text)
    return found


def worst(got: Tensor, want: Tensor, axes: str = "") -> str:
    """The largest difference: where it is and both values."""
    names = axes.split() if len(axes.split()) == want.dim() else []
    difference = (got.detach().double() - want.detach().double()).abs()
    difference = torch.where(torch.isnan(difference), torch.inf, difference)
    index, rest = (), int(difference.argmax())
    for size in reversed(difference.shape):  # torch.unravel_index imports sympy, for a second
        index, rest = (rest % size, *index), rest // size
    if names:
        place = ", ".join(f"{n}={i}" for n, i in zip(names, index, strict=True))
    else:
        place = ", ".join(map(str, index))
    at = f" at [{place}]" if index else ""
    yours, expected = got[index].item(), want[index].item()
    return f"largest difference{at}: yours {yours:.6g}, expected {expected:.6g}"


def _at(mask: Tensor, names: Sequence[str]) -> str:
    index = mask.nonzero()[0].tolist()
    return "[" + ", ".join(f"{n}={i}" for n, i in zip(names, index, strict=True)) + "]"


def _shape_clues(
    got: Tensor, want: Tensor, names: list[str], rtol: float, atol: float
) -> list[str]:
    text = f"the shape is {tuple(got.shape)}, expected ({', '.join(names)}) = {tuple(want.shape)}"
    if sorted(got.shape) == sorted(want.shape) and got.dim() == want.dim():
        for order in itertools.permutations(range(got.dim())):
            if close(got.permute(order), want, rtol, atol):
                return [text, "the numbers are right; the axes are in another order"]
        text += ": the same sizes in another order"
    elif got.numel() == want.numel() and close(got.reshape(want.shape), want, rtol, atol):
        return [text, "the numbers are right; only the shape is not"]
    elif got.dim() == want.dim() + 1 and 1 in got.shape:
        text += ": an axis of size 1 too many"
    elif got.dim() == want.dim() - 1:
        text += ": an axis is missing"
    return [text]


def _ratio(got, want, names, sizes, rtol, atol) -> str:
    large = want.abs() > max(1e-3 * float(want.abs().max()), 10 * atol)
    if not large.any():
        return ""
    ratios = got[large] / want[large]
    r = float(ratios.median())
    if (
        abs(r - 1) < 1e-3
        or abs(r) < 1e-9
        or not torch.allclose(got, want * r, rtol=10 * rtol, atol=10 * atol)
    ):
        return ""
    if abs(r + 1) < 1e-3:
        return "every number has the wrong sign"
    size, word = (abs(r), "large") if abs(r) > 1 else (1 / abs(r), "small")
    sign = " and of the wrong sign" if r < 0 else ""
    return f"exactly {size:.4g} times too {word}{sign}{_named_number(size, sizes)}"


def _named_number(r: float, sizes: Mapping[str, float]) -> str:
    """`, that is √8 = √head_dim` when r is a simple function of a named size; all of them, when
    several fit.
    """
    found = []
    for name, n in sizes.items():
        for text, value in (
            (f"{n:g} = {name}", n),
            (f"√{n:g} = √{name}", n**0.5),
            (f"{n:g}² = {name}²", n**2),
            (f"1 / (1 - {n:g}), the scale of dropout", 1 / (1 - n) if 0 < n < 1 else 0),
        ):
            if value and value != 1 and abs(r / value - 1) < 1e-3:
                found.append(text)
    for text, value in (("√2", 2**0.5), ("2", 2.0), ("√(2/π)", (2 / torch.pi) ** -0.5)):
        if not found and abs(r / value - 1) < 1e-3:
            found.append(text)
    return f", that is {' or '.join(found)}" if found else ""


def _offset(got, want, names, sizes, rtol, atol) -> str:
    difference = got - want
    if torch.allclose(difference, difference.flatten()[0].expand_as(difference), atol=10 * atol):
        d = float(difference.flatten()[0])
        return f"off by the same {d:+.4g} everywhere" if abs(d) > 10 * atol else ""
    if want.dim() > 1 and want.shape[:-1].numel() > 1:
        first = difference.reshape(-1, want.shape[-1])[0]
        if torch.allclose(difference, first.expand_as(difference), atol=10 * atol):
            return (
                f"off by the same vector (along {names[-1]}) in every place: "
                "a bias, or another constant vector, may be missing or added once too often"
            )
    return ""


def _transposed(got, want, names, sizes, rtol, atol) -> str:
    for i, j in itertools.combinations(range(want.dim()), 2):
        if want.shape[i] == want.shape[j] and close(got.transpose(i, j), want, rtol, atol):
            return f"the numbers are right, with {names[i]} and {names[j]} swapped (a transpose)"
    return ""


def _permuted(got, want, names, sizes, rtol, atol) -> str:
    for axis in range(want.dim()):
        n = want.shape[axis]
        if not 2 <= n <= 64:
            continue
        mine, theirs = got.movedim(axis, 0).reshape(n, -1), want.movedim(axis, 0).reshape(n, -1)
        if mine.shape[1] < 2:
            continue
        nearest = torch.cdist(mine, theirs).argmin(1)
        if len(set(nearest.tolist())) == n and close(mine, theirs[nearest], rtol, atol):
            k = next(i for i in range(n) if int(nearest[i]) != i)
            return (
                f"the right slices along {names[axis]}, in another order "
                f"(yours at {k} is expected at {int(nearest[k])})"
            )
    return ""


def _where(got, want, names, sizes, rtol, atol) -> str:
    """Along which axis some slices are right and others not."""
    wrong = ~torch.isclose(got, want, rtol=rtol, atol=atol)
    for axis in sorted(range(want.dim()), key=lambda a: a != 1):
        n = want.shape[axis]
        slices = wrong.movedim(axis, 0).reshape(n, -1).any(1)
        if n < 2 or slices.all() or not slices.any():
            continue
        bad = slices.nonzero().flatten().tolist()
        name = names[axis]
        if bad == list(range(bad[0], n)) and bad[0] > 0:
            return f"right up to {name} = {bad[0] - 1}, wrong from {name} = {bad[0]} on"
        if bad == list(range(len(bad))):
            return f"wrong up to {name} = {bad[-1]}, right from {name} = {bad[-1] + 1} on"
        return (
            f"wrong only at {name} = {', '.join(map(str, bad[:6]))}{' …' if len(bad) > 6 else ''}"
        )
    share = float(wrong.double().mean())
    return f"right in {1 - share:.0%} of the places" if share < 0.7 else ""


def _dropped(got, want, names, sizes, rtol, atol) -> str:
    zero = (got == 0) & (want.abs() > 10 * atol)
    if not zero.any() or zero.all():
        return ""
    rest = ~zero & (want.abs() > 10 * atol)
    if not rest.any():
        return ""
    r = float((got[rest] / want[rest]).median())
    if r > 1.01 and torch.allclose(got[rest], want[rest] * r, rtol=10 * rtol, atol=10 * atol):
        return (
            f"right up to dropout: {float(zero.double().mean()):.0%} of the numbers are 0, "
            f"the others {r:.3g} times the right ones"
        )
    return ""


def _nearly(got, want, names, sizes, rtol, atol) -> str:
    scale = float(want.abs().max()) or 1.0
    error = float((got - want).abs().max()) / scale
    if error < 0.02:
        return (
            f"nearly right (off by at most {error:.1e} of the largest number): a constant, an "
            "epsilon or a precision may be slightly different"
        )
    return ""


# ── exceptions ──────────────────────────────────────────────────────────────────────────────────

_EXPLAINED: tuple[tuple[str, str, str], ...] = (
    # id, pattern of "Type: message", what a good teacher would say
    (
        "super-init-missing",
        r"before Module\.__init__\(\) call|object has no attribute '_(modules|parameters|buffers)'",
        "Call super().__init__() first in __init__: nn.Module sets up its own tables there.",
    ),
    (
        "view-after-transpose",
        r"view size is not compatible with input tensor's size and stride",
        "A transposed tensor lies in memory in another order, so `view` can't flatten it. "
        "Use `reshape`, or `.contiguous()` before `view`.",
    ),
    (
        "shape-mismatch",
        r"shape '.*' is invalid for input of size",
        "The sizes given to view or reshape do not multiply to the number of elements there are.",
    ),
    (
        "shape-mismatch",
        r"mat1 and mat2 shapes cannot be multiplied|size of tensor a .* must match|"
        r"Expected size for first two dimensions of batch2|expected .* dimension",
        "Two shapes do not fit together here. Write down the shape of each side: which axis should "
        "be transposed, split or merged?",
    ),
    (
        "wrong-device",
        r"Expected all tensors to be on the same device|Cannot copy out of meta tensor|"
        r"is on cpu.*(meta|cuda|mps)|(meta|cuda|mps).* is on cpu|Unhandled FakeTensor Device|"
        r"is not on the expected device",
        "A tensor was made on another device than the input's. Pass device=… from the input when "
        "you make one.",
    ),
    (
        "wrong-dtype",
        r"expected (m1 and m2|scalar type|mat1 and mat2)|must have the same dtype|"
        r"expected .* to have (the )?same dtype|Expected .* dtype",
        "Two tensors have different dtypes. Did you make or convert one with a fixed dtype?",
    ),
    (
        "float-index",
        r"Expected tensor for argument #1 'indices' to have one of the following scalar types",
        "nn.Embedding looks up whole numbers; it was given floats.",
    ),
    (
        "no-return",
        r"'NoneType' object|NoneType.*(object|and)|and 'NoneType'",
        "Something is None here. Does a function end without `return`?",
    ),
    (
        "in-place-on-graph",
        r"modified by an inplace operation|a leaf Variable that requires grad",
        "An in-place operation (ending in _, or +=) changed a tensor that the gradient still "
        "needs. Make a new tensor instead.",
    ),
    (
        "tuple-not-unpacked",
        r"'tuple' object has no attribute|must be Tensor, not tuple|"
        r"unsupported operand type.*'tuple'",
        "A function that returns several values was used as if it returned one: unpack them, as in "
        "`output, weights = …`.",
    ),
    (
        "number-for-a-tensor",
        r"argument 'input' .*must be Tensor, not (int|float)",
        "This function of torch takes a tensor and was given a number. For a plain number use "
        "Python's own: math.sqrt(x), x ** 0.5, math.exp(x).",
    ),
    (
        "wrong-argument-name",
        r"TypeError: .*got an unexpected keyword argument",
        "An argument has another name than the one it is called with. The names in the skeleton "
        "are fixed.",
    ),
    (
        "wrong-arguments",
        r"TypeError: .*(missing \d+ required|takes .*positional arguments? but)",
        "A function was called with too few or too many arguments. Compare with its signature.",
    ),
    (
        "axes-assumed",
        r"ValueError: (not enough|too many) values to unpack",
        "A line takes a shape (or a tuple) apart into another number of parts than it has. Take "
        "axes from the right, x.size(-1), where the number of axes may vary.",
    ),
    (
        "mask-as-index",
        r"IndexError: The shape of the mask .* does not match",
        "A bool tensor in [ ] must have the shape of what it picks from: it does not broadcast. "
        "masked_fill and torch.where do.",
    ),
    (
        "tensor-as-condition",
        r"Boolean value of Tensor with more than one value is ambiguous",
        "`if tensor:` (or `and`, `or`, `not`) has no answer for many numbers. Whether an argument "
        "was given is asked with `is not None`.",
    ),
    (
        "bool-arithmetic",
        r"Subtraction, the `-` operator, with a bool tensor|Negation, the `-` operator, on a bool",
        "A bool tensor knows no minus. The opposite of `mask` is `~mask`.",
    ),
    (
        "numpy-in-forward",
        r"np\.ndarray|numpy\.(ndarray|float|int)|Can't call numpy\(\)",
        "NumPy knows neither gradients nor GPUs: compute with torch's own functions.",
    ),
    (
        "float-as-size",
        r"argument 'size'.*(must be tuple of ints|found element of type float)",
        "A size is not a whole number here. Do the arguments stand in the order in which they are "
        "taken? (And `/` gives a float, `//` an int.)",
    ),
    ("endless-recursion", r"^RecursionError", "The function calls itself without end."),
)


def explain_exception(error: BaseException) -> tuple[str, str] | None:
    """(id, what a good teacher would say) for an error whose cause is known, else None."""
    text = f"{type(error).__name__}: {error}"
    for name, pattern, says in _EXPLAINED:
        if re.search(pattern, text):
            return name, says
    return None
