"""What a problem's test file is written with: `@check`, `compare` and a few `expect_…`.

A check is a function `test_…(piece)`. It returns when the piece is right, and raises `CheckFailed`,
whose message is for the learner, when it is not. pytest runs checks, and so does `learn`.
"""

from __future__ import annotations

import copy
import functools
import inspect
import io
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch._C import _len_torch_function_stack
from torch.overrides import _pop_mode

from learn_gpt2.checking import diagnosis
from learn_gpt2.checking.diagnosis import Mistake, Variant, mistake
from learn_gpt2.checking.output import hush
from learn_gpt2.checking.surroundings import Away, operations, tensors_that_stay

__all__ = [
    "EITHER",
    "CheckFailed",
    "Mistake",
    "attribute",
    "check",
    "compare",
    "expect_also_larger",
    "expect_copies",
    "expect_dropout",
    "expect_error",
    "expect_finite_gradients",
    "expect_mode_kept",
    "expect_module",
    "expect_no_edit",
    "expect_no_memory",
    "expect_no_seed",
    "expect_one_device",
    "expect_own_start",
    "expect_signature",
    "expect_state",
    "fail",
    "fill",
    "mistake",
    "operations",
    "place",
    "record_calls",
    "sizes_from",
    "tensor",
    "weights",
]


class CheckFailed(AssertionError):
    """A piece is wrong. `mistakes` are the ids of the misconceptions that were recognized."""

    def __init__(self, message: str, mistakes: Iterable[str] = (), hint: int | None = None):
        super().__init__(message)
        self.mistakes = tuple(mistakes)
        self.hint = hint


@dataclass(frozen=True)
class Check:
    """One check of a problem: what the decorator knows about it."""

    name: str
    title: str
    function: Callable
    todo: int
    needs: tuple[str, ...]
    points: int
    seconds: float
    line: int
    follows: tuple[str, ...] = ()
    reported: bool = False  # in a grading it goes by what the worker reports of its inside


# what only the process sees in which a piece runs
INSIDE = frozenset(
    (
        *("expect_one_device", "expect_no_edit", "operations", "operands", "record_calls"),
        "place",
    )
)


def check(
    *,
    todo: int,
    needs: Callable | Iterable[Callable] = (),
    follows: Callable | Iterable[Callable] = (),
    points: int = 1,
    seconds: float = 5.0,
    line: int | None = None,
    reported: bool | None = None,
) -> Callable[[Callable], Callable]:
    """Mark a test function as a check.

    todo: the last TODO that has to be done for it to pass. needs: earlier checks without which it
    says nothing (it is skipped when one of them fails). follows: earlier checks whose failure
    may be the reason for a failure of this one, which then is not diagnosed again; it runs all the
    same, and may pass. The docstring's first line is its title. line, reported: of a check that is
    made elsewhere (see `recurring`); else they are read off the function.
    """

    def mark(function: Callable) -> Callable:
        wanted = (needs,) if callable(needs) else tuple(needs)
        before = (follows,) if callable(follows) else tuple(follows)
        function.check = Check(
            name=function.__name__,
            title=(function.__doc__ or function.__name__).strip().splitlines()[0].rstrip("."),
            function=_leaving_torch_alone(function),
            todo=todo,
            needs=tuple(other.__name__ for other in wanted),
            points=points,
            seconds=seconds,
            line=function.__code__.co_firstlineno if line is None else line,
            follows=tuple(other.__name__ for other in before),
            reported=_sees_inside(function.__code__, function.__globals__, set())
            if reported is None
            else reported,
        )
        return function

    return mark


def _sees_inside(code: types.CodeType, names: Mapping[str, object], seen: set) -> bool:
    """Whether a check, or a function of its file that it calls, asks what only the process sees in
    which a piece runs.
    """
    if code in seen:
        return False
    seen.add(code)
    if not INSIDE.isdisjoint(code.co_names):
        return True
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    for name in code.co_names:
        value = names.get(name)
        if isinstance(value, types.FunctionType) and value.__globals__ is names:
            inner.append(value.__code__)
    return any(_sees_inside(c, names, seen) for c in inner)


def _leaving_torch_alone(function: Callable) -> Callable:
    """The check, which also fails when the piece changes a setting of torch for everybody, and
    puts it back: else the next check would fail for no reason of its own.
    """

    @functools.wraps(function)
    def guarded(piece: object) -> None:
        _forget_other_pieces(getattr(piece, "examined_as", None) or piece)
        dtype, modes = torch.get_default_dtype(), _len_torch_function_stack()
        try:
            function(piece)
        finally:
            entered = _len_torch_function_stack() > modes
            while _len_torch_function_stack() > modes:
                _pop_mode()
            gradients, left = torch.is_grad_enabled(), torch.get_default_dtype()
            torch.set_grad_enabled(True)
            torch.set_default_dtype(dtype)
            ask = getattr(piece, "torch_left", None)
            if ask is not None:  # the piece runs elsewhere, and so does its torch
                there, left, entered = ask()
                gradients = gradients and there
            if not gradients:
                fail(
                    "After your code has run, gradients are switched off for the whole program: "
                    "nothing could be trained any more. Is there a torch.set_grad_enabled(False)?",
                    id="grad-left-off",
                )
            if left != dtype:
                fail(
                    f"Your code sets torch's default dtype to {left} for the whole program. Leave "
                    "it alone: that is for the program that runs the model to choose.",
                    id="default-dtype-set",
                )
            if entered:
                fail(
                    "Your code changes what torch does, for the whole program, and does not change "
                    "it back. Write `with skip_init():` (or `with torch.device(…):`): that ends "
                    "where the block ends.",
                    id="mode-left-on",
                )

    return guarded


_examined: list[object] = [None]


def _forget_other_pieces(piece: object) -> None:
    if _examined[0] is not piece:
        _examined[0] = piece
        _passed.clear()


def checks_in(namespace: Mapping[str, object]) -> list[Check]:
    """The checks of a test module, in the order in which they stand in the file."""
    found = [
        value.check
        for value in namespace.values()
        if isinstance(getattr(value, "check", None), Check)
    ]
    return sorted(found, key=lambda c: c.line)


def fail(what: Mistake | str, *details: str, id: str = "", hint: int | None = None) -> None:
    """Raise CheckFailed: a known mistake's sentence or a plain one, then the details, one a line.

    id, hint: of a plain sentence; both are shown behind it, as a known mistake's own are.
    """
    if isinstance(what, Mistake):
        text, id, hint = what.says, what.id, what.hint
    else:
        text = what
    if hint is not None:
        text += f" (hint {hint})"
    if id:
        text += f" [{id}]"
    raise CheckFailed("\n".join((text, *details)), (id,) if id else (), hint)


_choose: list[Callable[[int], int] | None] = [None]


def sizes_from(*choices: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes that a test file's checks use: the first, or in a grading one of these, so that a
    file can't be made for the public ones.
    """
    return choices[0] if _choose[0] is None else choices[_choose[0](len(choices))]


def choose_sizes(choose: Callable[[int], int] | None) -> None:
    """For test files that are loaded from now on: choose(count) says which sizes they get."""
    _choose[0] = choose


# ── values ──────────────────────────────────────────────────────────────────────────────────────


def compare(
    got: Tensor | Callable[[], Tensor],
    want: Tensor,
    mistakes: Iterable[Mistake] = (),
    variant: Variant | None = None,
    *,
    what: str = "the output",
    axes: str = "",
    sizes: Mapping[str, float] | None = None,
    given: Iterable[Tensor] = (),
    rtol: float = 1e-4,
    atol: float = 1e-5,
) -> Tensor:
    """Check that `got` is `want`, and name the mistake when it isn't; returns the tensor.

    got: a tensor, or a function that makes it (then errors are diagnosed, too). mistakes: those
    that can be behind it; `variant(**m.switches)` computes what mistake m gives. what: names the
    value in messages ("the weights"). axes: want's axes ("B T C"). sizes: what a constant ratio may
    be made of. given: the inputs; with a function for `got`, they must come out unchanged.
    """
    run = None if isinstance(got, Tensor) or not callable(got) else got
    mistakes = tuple(mistakes)
    if run is not None:
        given = list(given)
        before = [t.detach().clone() for t in given]
        try:
            got = run()
        except Exception as error:
            found = diagnosis.named(error, want, mistakes, variant, rtol, atol, run, _passed)
            if found:
                _fail_named(found, f"PyTorch says: {type(error).__name__}: {_first_line(error)}")
            raise
        for t, copied in zip(given, before, strict=True):
            if not torch.equal(t, copied):
                _fail_edited("its input")
    got = tensor(got, what)
    if want.is_floating_point() and want.numel():
        # sums of large numbers round in other ways when their order is another
        atol *= max(1.0, float(want.detach().nan_to_num(0.0, 0.0, 0.0).abs().max()))
    if not got.dtype.is_floating_point and want.dtype.is_floating_point:
        fail(f"{what} has dtype {got.dtype}, expected {want.dtype}.")
    if got.dtype != want.dtype and diagnosis.close(got, want, 2e-2, 2e-2):
        fail(
            f"{_capital(what)} has dtype {got.dtype}, expected {want.dtype}: is a dtype written "
            "into the code?",
            id="fixed-dtype",
        )
    if diagnosis.close(got, want, rtol, atol):
        if variant is not None and len(_passed) < MOST_PASSED:
            _passed.append(diagnosis.Passed(want, mistakes, variant, rtol, atol))
        return got
    hush()
    if run is not None and not _repeats(run, got):
        fail(
            f"{_capital(what)} is different each time, for the same input in eval mode: "
            "dropout is active outside training. F.dropout needs training=self.training; "
            "nn.Dropout follows train() and eval() by itself.",
            id="dropout-in-eval",
        )
    found = diagnosis.named(got, want, mistakes, variant, rtol, atol, passed=_passed)
    same_shape = got.shape == want.shape
    numbers = f"{what}: {diagnosis.worst(got, want, axes)}" if same_shape else ""
    shape = f"the shape of {what} is {tuple(got.shape)}, expected {tuple(want.shape)}"
    if found:
        _fail_named(found, numbers or shape)
    hints = diagnosis.clues(got, want, axes, sizes, rtol, atol)
    lines = [
        f"{what[:1].upper()}{what[1:]} is wrong: {hints[0]}." if hints else f"{what} is wrong."
    ]
    lines += [f"Also: {text}." for text in hints[1:3]]
    lines += [numbers] if numbers else []
    fail(*lines, id="" if same_shape else "wrong-shape")
    return got


def expect_also_larger(small: Callable[[], object], larger: Callable[[], object]) -> None:
    """Run the first; when it fails, let the second name the mistake, if it fails as well: in small
    and round numbers one mistake may look like another.
    """
    try:
        small()
    except CheckFailed as here:
        try:
            larger()
        except CheckFailed as there:
            if there.mistakes != here.mistakes:
                raise there from None
        except Exception:
            pass
        raise


def _repeats(run: Callable[[], Tensor], got: Tensor) -> bool:
    """Whether further runs agree (an error in one counts as agreement)."""
    try:
        others = [run() for _ in range(20)]
    except Exception:  # a cache may be full now: then nothing is known
        return True
    first = others[0]
    same_kind = isinstance(first, Tensor) and first.shape == got.shape
    return not same_kind or all(torch.equal(first.nan_to_num(), t.nan_to_num()) for t in others)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _fail_edited(what: str) -> None:
    fail(
        f"Your code changed {what} in place, and the caller still needs it. Make a new "
        "tensor (`x = x + …`, not `x += …`).",
        id="edits-input",
    )


EITHER = "Either of these gives exactly what yours does:"
ONLY_HERE = "In other cases your result was right, so look for what is special about this one."
# comparisons that the piece at hand has passed: they tell mistakes apart that look alike elsewhere
_passed: list[diagnosis.Passed] = []
MOST_PASSED = 100


def _fail_named(found: diagnosis.Finding, *details: str) -> None:
    if found.only_here:
        details = (ONLY_HERE, *details)
    if len(found.mistakes) == 1:
        fail(found.mistakes[0], *details)
    shown = found.mistakes[:3]
    head = EITHER if found.either else "Two things at once:"
    lines = [head] + [f"- {m.says} (hint {m.hint}) [{m.id}]" for m in shown]
    raise CheckFailed("\n".join((*lines, *details)), [m.id for m in shown], shown[0].hint)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


def tensor(value: object, what: str = "the output") -> Tensor:
    """The value, when it is a tensor; CheckFailed that says what it is otherwise."""
    if isinstance(value, Tensor):
        return value
    if value is None:
        fail(f"{what} is None: does the function end without `return`?", id="no-return")
    extra = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    fail(f"{what} must be a tensor, and is a {type(value).__name__}{extra}.", id="not-a-tensor")


def place(t: Tensor) -> int:
    """Where a tensor's first number lies in memory. Two tensors of one place see what is written
    into either; in a grading, that is so because the worker says so.
    """
    return tensor(t, "what should be a tensor").data_ptr()


# ── modules ─────────────────────────────────────────────────────────────────────────────────────

LOADED_LATER = "problem 12 loads the checkpoint's tensor under this name"
# names that the contract fixes: none of them may be given up for another
FIXED_NAMES = frozenset(
    (
        *("wte", "wpe", "drop", "query", "key", "value", "n_head", "head_dim", "n_positions"),
        *("c_attn", "attention", "c_proj", "resid_dropout", "c_fc", "act", "weight", "bias"),
        *("eps", "ln", "ln_1", "attn", "ln_2", "mlp", "config", "embeddings", "h", "ln_f"),
        "lm_head",
    )
)


def expect_module(value: object) -> nn.Module:
    """The value, when it is an nn.Module with a forward of its own; CheckFailed otherwise."""
    kind = type(value)
    if not isinstance(value, nn.Module):
        fail(
            f"{kind.__name__} must be an nn.Module: `class {kind.__name__}(nn.Module)`. Without it "
            "PyTorch finds no parameters to train, save or move.",
            id="not-a-module",
        )
    if kind.forward is nn.Module.forward:
        own = [n for n, v in vars(kind).items() if callable(v) and not n.startswith("__")]
        has = f"it has {', '.join(own)}" if own else "it has no method but __init__"
        fail(
            f"{kind.__name__} has no method `forward`; {has}. Calling a module runs its forward.",
            id="no-forward",
        )
    return value


def expect_signature(function: Callable, want: str, name: str) -> None:
    """Check names, order, defaults and kinds of a function's arguments.

    want: "(vocab_size, n_embd, dropout=0.1, *, bias=None)", without self. Further arguments that
    have a default are the learner's own choice, and so is a function that takes `*args`. Call it
    in a check that an untouched skeleton fails for another reason: a skeleton has the signatures.
    """
    wanted = inspect.signature(eval(f"lambda {want[1:-1]}: None")).parameters
    got = dict(list(inspect.signature(function).parameters.items())[1:])
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in got.values()):
        return
    seen = f"Yours takes ({', '.join(_argument(p) for p in got.values())})"
    plain = [n for n, p in got.items() if p.kind != p.KEYWORD_ONLY]
    order = [n for n, p in wanted.items() if p.kind != p.KEYWORD_ONLY]
    extra = [p for n, p in got.items() if n not in wanted and p.default is p.empty]
    if plain[: len(order)] != order or extra or not wanted.keys() <= got.keys():
        fail(
            f"{name} must take {want}, in this order and under these names: others call it so.",
            f"{seen}.",
            id="wrong-signature",
        )
    for n, p in wanted.items():
        if p.kind == p.KEYWORD_ONLY and got[n].kind != p.KEYWORD_ONLY:
            fail(
                f"{n} of {name} must be keyword-only: put it after a `*`.",
                f"{seen}.",
                id="not-keyword-only",
            )
        if p.default is not p.empty and (got[n].default is p.empty or got[n].default != p.default):
            fail(f"{n} of {name} must default to {p.default!r}.", f"{seen}.", id="wrong-default")


def _argument(p: inspect.Parameter) -> str:
    return p.name if p.default is p.empty else f"{p.name}={p.default!r}"


def expect_one_device(
    module: nn.Module,
    run: Callable[[nn.Module, Callable[[Tensor], Tensor]], object],
    hint: int | None = None,
) -> None:
    """Check that what forward makes, it makes where its input is.

    run(module, move): calls the module on inputs passed through `move`. It runs on the CPU, with
    the module and its inputs taken for tensors of another device, and on a GPU when there is one.
    Where the first way loses track of a tensor (a scripted function's result), it says nothing.
    """
    _expect_own_weights(module, lambda m: run(m, lambda t: t.clone()), hint)
    away = Away()
    twin = copy.deepcopy(module)
    for t in tensors_that_stay(twin):
        away.leave(t)
    for t in (*twin.parameters(), *twin.buffers()):
        away.move(t)
    try:
        with torch.no_grad(), away:
            got = run(twin, lambda t: away.move(t.clone()))
        if torch.cuda.is_available():
            run(copy.deepcopy(module).to("cuda"), lambda t: t.to("cuda"))
    except RuntimeError as error:
        if "same device" not in str(error):
            raise
        got = None
    if got is None or (isinstance(got, Tensor) and away.misses(got)):
        kept = _plain_tensors(module)
        if kept:
            fail(
                f"`{kept}` is a plain attribute that holds a tensor: it stays on the CPU when the "
                "module moves to a GPU. Make it in forward, or keep it with "
                "register_buffer(…, persistent=False).",
                id="plain-attribute",
                hint=hint,
            )
        fail(_ANOTHER_DEVICE, id="wrong-device", hint=hint)


def _plain_tensors(module: nn.Module) -> str:
    """The name of a tensor that an attribute of the module holds and that is neither parameter nor
    buffer; "" when there is none.
    """
    for prefix, part in module.named_modules():
        for name, value in vars(part).items():
            if not name.startswith("_") and isinstance(value, Tensor):
                return f"{prefix}.{name}" if prefix else name
    return ""


def _expect_own_weights(
    module: nn.Module, run: Callable[[nn.Module], object], hint: int | None = None
) -> None:
    """Check that a deep copy computes with its own weights: what is done to the original's does
    not change what the copy gives.
    """
    twin = copy.deepcopy(module)
    kept = [(p, p.detach().clone()) for p in module.parameters()]
    with torch.no_grad():
        before, again = run(twin), run(twin)
        if not isinstance(before, Tensor) or not torch.equal(before, again):
            return  # random, or a matter of other checks
        try:
            for parameter, _ in kept:
                parameter.add_(1.0)
            after = run(twin)
        finally:
            for parameter, value in kept:
                parameter.copy_(value)
    if not torch.equal(before, after):
        fail(_STALE_COPY, id="bad-copy", hint=hint)


def record_calls(cls: type, name: str, *args: object) -> tuple[nn.Module, list[tuple]]:
    """cls(*args) with a method `name` that only notes what it is given: the module, and for each
    call what it was given and whether the module had a `config` by then. The tables that it is
    given it fills with ones, so that one which is replaced afterwards can be told.
    """
    told = cls.__dict__.get("_told")
    if told is not None:  # the class is another process's
        judge, number = told
        return judge.do("record", ["k", number], name, args)
    seen = []

    def note(self: nn.Module, module: nn.Module) -> None:
        seen.append((module, hasattr(self, "config")))
        if isinstance(module, nn.Embedding):
            module.weight.data.fill_(1.0)

    return type("Recording", (cls,), {name: note})(*args), seen


_STALE_COPY = (
    "A deep copy of the module computes with the original's weights. Is a layer kept where a copy "
    "can't reach it, as in a lambda that holds `self`?"
)
_ANOTHER_DEVICE = (
    "forward makes a tensor on a fixed device: with a model and its input on a GPU, this one "
    "stays on the CPU. Pass device=… from the input when you make one."
)


def attribute(module: object, name: str, kind: type | tuple[type, ...], why: str = LOADED_LATER):
    """`module.name`, when it is there and of the right type; CheckFailed that names it
    otherwise.
    """
    kinds = kind if isinstance(kind, tuple) else (kind,)
    kind_names = " or ".join(dict.fromkeys(k.__name__ for k in kinds))
    owner = type(module).__name__
    if not hasattr(module, name):
        others = [n for n, m in vars(module).get("_modules", {}).items() if isinstance(m, kinds)]
        others += [
            n for n, v in vars(module).items() if isinstance(v, kinds) and not n.startswith("_")
        ]
        others = [n for n in others if n not in FIXED_NAMES and n not in vars(nn.Module())]
        seen = f" There is `{others[0]}`: rename it." if len(others) == 1 else ""
        fail(
            f"{owner} has no attribute `{name}` ({kind_names}).{seen}\nThe name is fixed: {why}.",
            id="missing-attribute",
        )
    value = getattr(module, name)
    if not isinstance(value, kinds):
        fail(
            f"{owner}.{name} must be {kind_names}, and is {type(value).__name__}: {why}.",
            id="wrong-attribute-type",
        )
    return value


def fill(module: nn.Module, seed: int = 0, scale: float = 0.5) -> nn.Module:
    """Give every parameter reproducible random values that depend on its name alone; returns
    module.

    Biases and norm weights too: a value of 0 or 1 would hide a mistake. Of the names of a shared
    parameter the alphabetically first counts, whichever was registered first.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    with torch.no_grad():
        for parameter in module.parameters():
            name = min(names[id(parameter)])
            key = seed * 1_000_003 + sum((i + 1) * ord(c) for i, c in enumerate(name))
            generator = torch.Generator().manual_seed(key)
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    _expect_apart(module)
    return module


def _expect_apart(module: nn.Module) -> None:
    """No two parameters of different names lie in the same memory (`a.data = b.data[:n]`)."""
    at: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        place = parameter.untyped_storage().data_ptr()
        if place and place in at:
            fail(
                f"{at[place]} and {name} share their memory: a change to one changes the other. "
                "Each needs numbers of its own.",
                id="shared-memory",
            )
        at[place] = name


def weights(module: nn.Module) -> dict[str, Tensor]:
    """Copies of the parameters, by name (a tied one under each of its names)."""
    return {
        name: parameter.detach().clone()
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def expect_state(
    module: nn.Module, names: Iterable[str], explain: Mapping[str, Mistake] | None = None
) -> None:
    """Check that state_dict() holds exactly these names.

    explain: for names (or parts of names) that are there by mistake, the mistake.
    """
    got, want = set(module.state_dict()), set(names)
    for name in sorted(got - want):
        for part, m in (explain or {}).items():
            if part in name:
                fail(m, f"state_dict() holds {name!r}")
        fail(
            f"state_dict() holds {name!r}, which a checkpoint does not. Parameters and persistent "
            "buffers end up there; use a plain attribute or persistent=False.",
            id="extra-state",
        )
    for name in sorted(want - got):
        fail(
            f"state_dict() lacks {name!r}: {LOADED_LATER}. Is it a parameter of a module that is "
            "an attribute of this one?",
            id="missing-state",
        )


def expect_error(
    run: Callable[[], object],
    mentions: Iterable[object],
    *,
    when: str,
    missing: Mistake | None = None,
) -> None:
    """Check that `run` raises ValueError and that its message holds every one of `mentions`.

    when: completes "… must raise ValueError when …". missing: the mistake when nothing is raised.
    """
    try:
        run()
    except ValueError as error:
        text = str(error)
        lost = [str(m) for m in mentions if str(m) not in text]
        if lost:
            raise CheckFailed(
                f"The ValueError when {when} must name {' and '.join(lost)}. It says: {text!r}. "
                "[unhelpful-error]",
                ["unhelpful-error"],
            ) from None
        return
    except NotImplementedError:
        raise
    except Exception as error:
        raise CheckFailed(
            f"{type(error).__name__} is raised when {when}; make it a ValueError that says why. "
            "[wrong-error-type]",
            ["wrong-error-type"],
        ) from error
    if missing is not None:
        fail(missing, f"Nothing is raised when {when}.")
    fail(f"ValueError must be raised when {when}; nothing is.", id="no-error")


def expect_no_edit(run: Callable[[Tensor], object], x: Tensor, what: str = "the input") -> None:
    """Check that running does not change the tensor it is given."""
    given = x.detach().clone()
    before = given.clone()
    with torch.no_grad():
        run(given)
    if not torch.equal(given, before):
        _fail_edited(what)


def expect_no_memory(
    module: nn.Module,
    calls: Iterable[Callable[[nn.Module], Tensor]],
    hint: int | None = None,
    explain: Mistake | None = None,
) -> None:
    """Check that what a call gives does not depend on the calls before it.

    calls: each runs the module on inputs of its own. Each is compared with a copy that is fresh; a
    call that fails alone is another check's matter. explain: the mistake, for another sentence.
    """
    module.eval()
    fresh = copy.deepcopy(module)
    for number, call in enumerate(calls, 1):
        with torch.no_grad():
            try:
                want = call(copy.deepcopy(fresh))
            except NotImplementedError:
                raise
            except Exception:
                continue
            try:
                got = call(module)
            except Exception as error:
                says = f"{type(error).__name__}: {_first_line(error)}"
            else:
                if got.shape == want.shape and torch.allclose(
                    got, want, rtol=1e-4, atol=1e-5, equal_nan=True
                ):
                    continue
                says = "other numbers than a module that was never called before"
        says = f"Call {number} in a row gives {says}."
        if explain is not None:
            fail(explain, says)
        fail(
            "What a call gives depends on the calls before it: forward keeps something (in self, "
            "or in a global). Compute what depends on the input in each call.",
            says,
            id="module-remembers",
            hint=hint,
        )


def expect_mode_kept(module: nn.Module, run: Callable[[], object]) -> None:
    """Check that running switches no part of the module to train or eval mode."""
    for training in (False, True):
        module.train(training)
        with torch.no_grad():
            run()
        if any(m.training != training for m in module.modules()):
            word = ("eval", "train")[not training]
            fail(
                f"forward switches the module to {word} mode. The caller chooses, with "
                "train() and eval().",
                id="mode-changed",
            )
    module.eval()


def expect_own_start(make: Callable[[], nn.Module]) -> None:
    """Check that two modules start with numbers of their own: no seed is set in __init__, and
    nothing is shared.
    """
    states, random = [], []
    for seed in (1, 2):
        torch.default_generator.manual_seed(seed)
        states.append(make().state_dict())
        random.append(torch.default_generator.get_state())
    one, two = states
    for name, value in one.items():
        if any(value.data_ptr() == other.data_ptr() for other in two.values() if value.numel()):
            fail(
                f"Two modules share {name}: what one learns changes the other. Make the parameters "
                "in __init__, so that each module has its own.",
                id="shared-between-modules",
            )
    same = all(torch.equal(one[name], two[name]) for name in one) and any(
        value.std() > 0 for value in one.values() if value.numel() > 1
    )
    if same or torch.equal(*random):
        fail(
            "A seed is set in __init__, for the whole program: every module made after it starts "
            "with the very same numbers. The training script sets the seed, once.",
            id="seed-set",
        )


def expect_no_seed(run: Callable[[], object], what: str = "forward") -> None:
    """Check that running sets no seed: what was drawn before must still tell afterwards."""
    states = []
    for seed in (1, 2):
        torch.default_generator.manual_seed(seed)
        run()
        states.append(torch.default_generator.get_state())
    if torch.equal(*states):
        fail(
            f"{what} sets the seed, so the whole program draws the same random numbers after each "
            "call. Take torch.manual_seed out of it.",
            id="seed-set",
        )


def expect_finite_gradients(
    module: nn.Module,
    loss: Tensor,
    optional: Iterable[str] = (),
    explain: Mapping[str, Mistake] | None = None,
) -> None:
    """Check that the gradient of `loss` reaches every parameter and is finite and not all zero.

    optional: names of parameters that rightly get none. explain: part of a name → the mistake.
    """
    module.zero_grad(set_to_none=True)
    if not loss.requires_grad:
        fail(
            "No gradient flows back from the output: is the computation inside torch.no_grad(), or "
            "is a tensor detached, or turned into numbers and back?",
            id="no-gradient",
        )
    loss.backward()
    for name, parameter in module.named_parameters():
        if name in set(optional):
            continue
        if parameter.grad is None or not parameter.grad.any():
            for part, m in (explain or {}).items():
                if part in name:
                    fail(m, f"No gradient reaches {name}.")
            fail(
                f"No gradient reaches {name}: it has no effect on the output, or the way back to "
                "it is cut (detach, .data, no_grad).",
                id="no-gradient",
            )
        if not torch.isfinite(parameter.grad).all():
            fail(f"The gradient of {name} is not finite.", id="bad-gradient")


def expect_copies(module: nn.Module, run: Callable[[nn.Module], Tensor]) -> None:
    """Check that a deep copy and a save/load round trip give what the module gives."""
    module.eval()
    _expect_own_weights(module, run)
    with torch.no_grad():
        want = run(module)
        twin = copy.deepcopy(module).eval()
        if not torch.equal(run(twin), want):
            fail("A deep copy of the module gives other numbers.", id="bad-copy")
        buffer = io.BytesIO()
        torch.save(module.state_dict(), buffer)
        buffer.seek(0)
        for parameter in twin.parameters():
            parameter.add_(1.0)
        twin.load_state_dict(torch.load(buffer))
        if not torch.equal(run(twin), want):
            fail(
                "After saving state_dict() and loading it into a second module, that gives other "
                "numbers: something that matters is not in state_dict().",
                id="bad-copy",
            )


def expect_dropout(
    run: Callable[[], Tensor],
    module: nn.Module,
    p: float,
    *,
    what: str = "the output",
    missing: Mistake | None = None,
    in_eval: Mistake | None = None,
    misplaced: Mistake | None = None,
    variants: Mapping[Mistake, Callable[[Tensor], Tensor]] | None = None,
) -> None:
    """Check that in training, and only then, `run()` is the plain result with dropout p as last
    step.

    Then every number is 0 or exactly 1/(1-p) times the plain one, and about a share p is 0. `run()`
    should return a few hundred numbers or more, so that the share can be told. variants: for
    mistakes about where dropout stands, a test of (train / plain, elementwise) that says whether it
    fits.
    """
    module.eval()
    with torch.no_grad():
        plain, again = tensor(run(), what), tensor(run(), what)
        if not torch.equal(plain, again):
            module.train()
            m = in_eval or mistake(
                "dropout-in-eval",
                f"Dropout changes {what} in eval mode; it belongs to training only.",
                1,
            )
            fail(m)
        expect_no_seed(run)
        expect_mode_kept(module, run)
        module.train()
        expect_no_seed(run)
        torch.manual_seed(0)
        runs = torch.stack([tensor(run(), what) for _ in range(8)])
    module.eval()
    if not torch.isfinite(runs).all():
        fail(f"In training mode {what} holds NaN or infinite numbers.")
    if torch.allclose(runs, plain.expand_as(runs), rtol=1e-4, atol=1e-6):
        fail(
            missing
            or mistake(
                "dropout-missing",
                f"{what} is the same in training and in eval mode: no dropout.",
                1,
            )
        )
    if (runs == runs[0]).all():
        fail(
            f"In training the same numbers of {what} are dropped each time: is the mask made only "
            "once? nn.Dropout draws a new one in each call.",
            id="dropout-repeats",
        )
    counted = plain.abs().expand_as(runs) > 1e-4
    ratio = runs[counted] / plain.expand_as(runs)[counted]
    kept = ratio.abs() > 1e-6
    share = 1 - float(kept.double().mean())
    scale = 1 / (1 - p)
    if torch.allclose(ratio[kept], torch.full_like(ratio[kept], scale), rtol=1e-3):
        tolerance = 5 * (p * (1 - p) / ratio.numel()) ** 0.5 + 0.01
        if abs(share - p) <= tolerance:
            return
        fail(
            f"Dropout zeroes {share:.0%} of {what}, expected {p:.0%}: is p what was asked for?",
            id="dropout-rate",
        )
    for m, fits in (variants or {}).items():
        if fits(runs):
            fail(m)
    if torch.allclose(ratio[kept], torch.ones_like(ratio[kept]), rtol=1e-3):
        fail(
            f"Dropout zeroes numbers of {what} but does not scale the others by "
            f"1/(1-p) = {scale:.3g}. nn.Dropout does both.",
            id="dropout-not-scaled",
        )
    if kept.any() and torch.allclose(ratio[kept], ratio[kept][0].expand_as(ratio[kept]), rtol=1e-3):
        r = float(ratio[kept][0])
        fail(
            f"In training the numbers of {what} that are kept are {r:.3g} times the plain ones, "
            f"expected 1/(1-p) = {scale:.3g}: dropout with another p, or twice.",
            id="dropout-rate",
        )
    fail(
        misplaced
        or mistake(
            "dropout-misplaced",
            f"Dropout is not the last step before {what}: in training each number must be 0 or "
            f"1/(1-p) = {scale:.3g} times the plain one, and some are neither.",
            1,
        )
    )
