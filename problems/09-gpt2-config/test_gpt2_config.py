"""Checks of problem 09. The numbers are those of Radford et al. 2019, table 2, and its code."""

import contextlib
import copy
import inspect
import math
import re

from learn_gpt2.checking.checks import check, expect_signature, fail, mistake

# As GPT-2 small has them. Written down here by hand, not taken from the piece.
DEFAULTS = {
    "vocab_size": 50257,
    "n_positions": 1024,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
    "resid_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "attn_pdrop": 0.1,
    "layer_norm_epsilon": 1e-5,
}
SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
# Another value for each, all different, n_embd divisible by n_head.
OTHERS = (101, 17, 30, 7, 5, 0.2, 0.3, 0.4, 1e-3)

MISSING_FIELD = mistake(
    "missing-attribute",
    "Every argument is an attribute of the same name: the model reads it there.",
    1,
)
WRONG_DEFAULT = mistake(
    "wrong-default", "A default is not GPT-2 small's (Radford et al. 2019, table 2).", 1
)
WRONG_VOCAB = mistake(
    "wrong-vocab-size",
    "The vocabulary has 50,257 tokens: 256 bytes + 50,000 merges + 1 end-of-text token.",
    1,
)
NOT_KEPT = mistake(
    "argument-ignored", "An argument is not kept: the attribute holds something else.", 1
)
SHARED = mistake(
    "shared-attributes",
    "Two configurations share their values: making the second changes the first. Keep values on the "
    "instance (self), not on the class.",
    1,
)
NO_EQUALITY = mistake(
    "no-equality",
    "Two configurations with the same values must be equal: without __eq__ Python asks whether they "
    "are the same object. @dataclass writes __eq__ for you.",
    7,
)
EQUALITY_IGNORES = mistake(
    "equality-ignores-a-field", "Two configurations that differ in one field must not be equal.", 7
)
NO_REPR = mistake(
    "no-repr",
    "repr() does not show the sizes: print(config) should say what one looks at. @dataclass writes "
    "__repr__ for you.",
    7,
)
EXTRA_ARGUMENT = mistake(
    "derived-argument",
    "A derived number can be passed in, and then may disagree with n_embd. Compute it: n_inner and "
    "head_dim are not arguments.",
    5,
)
NOT_A_NUMBER = mistake(
    "derived-method",
    "It is a method, and must be read like an attribute: @property above it does that.",
    5,
)
N_INNER = {
    "n-inner-hard-coded": (
        "n_inner is 3072, whatever the width. It is 4 · n_embd.",
        lambda c: 3072,
    ),
    "n-inner-of-heads": ("n_inner is 4 · n_head. It is 4 · n_embd.", lambda c: 4 * c["n_head"]),
    "n-inner-is-width": ("n_inner is n_embd. It is 4 times that.", lambda c: c["n_embd"]),
    "n-inner-factor": ("n_inner is 2 · n_embd. It is 4 times n_embd.", lambda c: 2 * c["n_embd"]),
    "n-inner-of-positions": (
        "n_inner is 4 · n_positions. It is 4 · n_embd.",
        lambda c: 4 * c["n_positions"],
    ),
    "n-inner-of-layers": ("n_inner is 4 · n_layer. It is 4 · n_embd.", lambda c: 4 * c["n_layer"]),
    "n-inner-of-vocabulary": (
        "n_inner is 4 · vocab_size. It is 4 · n_embd.",
        lambda c: 4 * c["vocab_size"],
    ),
}
HEAD_DIM = {
    "head-dim-hard-coded": ("head_dim is 64, whatever the width.", lambda c: 64),
    "head-dim-of-layers": (
        "head_dim divides by n_layer (12 as well in GPT-2 small). It divides by n_head.",
        lambda c: c["n_embd"] // c["n_layer"],
    ),
    "head-dim-swapped": (
        "head_dim is n_head / n_embd. It is the other way round.",
        lambda c: 0,
    ),
    "head-dim-is-n-head": ("head_dim is n_head. It is n_embd / n_head.", lambda c: c["n_head"]),
    "head-dim-is-width": ("head_dim is n_embd. It is n_embd / n_head.", lambda c: c["n_embd"]),
    "head-dim-of-inner": (
        "head_dim is n_inner / n_head. It is n_embd / n_head.",
        lambda c: 4 * c["n_embd"] // c["n_head"],
    ),
    "head-dim-product": (
        "head_dim is n_embd · n_head. It is n_embd / n_head.",
        lambda c: c["n_embd"] * c["n_head"],
    ),
    "head-dim-of-positions": (
        "head_dim divides n_positions. It divides n_embd by n_head.",
        lambda c: c["n_positions"] // c["n_head"],
    ),
}
FLOAT_DIVISION = mistake(
    "float-division",
    "A size must be an int, and this is a float: `/` gives one, even when it divides evenly, and so "
    "does a factor like 4.0. `//` gives an int.",
    5,
)
HEADS = mistake(
    "heads-not-checked", "n_embd must be divisible by n_head: the heads share the width out.", 4
)
HEADS_SWAPPED = mistake(
    "heads-check-swapped",
    "The check is the wrong way round: n_embd must be divisible by n_head, not n_head by n_embd.",
    4,
)
HEADS_TOO_STRICT = mistake(
    "heads-check-too-strict",
    "The heads need only divide the width: one head, or heads of width 1, are fine.",
    4,
)
SIZE = mistake("size-not-checked", "A size must be a positive int, and is not checked.", 2)
ZERO = mistake("zero-accepted", "A size of 0 is accepted. Positive means 1 or more.", 2)
FLOAT = mistake(
    "float-accepted",
    "A float is accepted as a size. 12.0 is not an int: it can't be the size of a tensor.",
    2,
)
NOT_A_SIZE = mistake(
    "wrong-type-accepted", "Something that is not an int at all is accepted as a size.", 2
)
RATE = mistake(
    "probability-not-checked",
    "A dropout is a probability: below 0 or above 1 it must be refused.",
    3,
)
EPSILON = mistake(
    "epsilon-not-checked", "layer_norm_epsilon must be greater than 0, and is not checked.", 3
)
EPSILON_ZERO = mistake(
    "epsilon-zero-accepted",
    "An epsilon of 0 is accepted. It is there so that nothing is divided by 0.",
    3,
)
TOO_STRICT = mistake("valid-refused", "A value that is allowed is refused.", 3)
SIZE_TOO_STRICT = mistake("valid-refused", "A size that is allowed is refused.", 2)
WRONG_TYPE = mistake(
    "wrong-error-type",
    "A value that can't be must raise ValueError, and raises something else.",
    2,
)
NO_FIELD = mistake(
    "error-without-field",
    "The message does not name the field: with nine of them, the reader needs to know which.",
    2,
)
NO_VALUE = mistake(
    "error-without-value", "The message does not say which value it got: put it in.", 2
)
ASSERT = mistake(
    "assert-not-valueerror",
    "An assert raises AssertionError, and nothing at all under `python -O`. Use `if …: raise "
    "ValueError(…)`.",
    2,
)
# what Python says when an operator or a function meets a value that it can't work with
BY_PYTHON = (
    r"unsupported operand|not supported between|not all arguments converted|(division|modulo) by "
    r"zero|bad operand type|must be real number|can't multiply|object cannot be interpreted"
)
USED_BEFORE_CHECKED = mistake(
    "used-before-checked",
    "A value is used (compared, divided, multiplied) before it is known to be a number that fits. First "
    "ask for its type, then for its size, and compute last.",
    2,
)
NO_INIT = mistake(
    "no-init",
    "The class takes no arguments. @dataclass above it writes an __init__ from the fields; without it, "
    "you write __init__ yourself.",
    1,
)
NO_DEFAULT = mistake(
    "argument-without-default",
    "Every argument has a default: GPT2Config() alone is GPT-2 small.",
    1,
)
STALE = mistake(
    "derived-stale",
    "The numbers of this size do not fit together: n_inner or head_dim was computed before n_embd or "
    "n_head got its value. Hand the size's numbers to cls(…).",
    6,
)
PRESET_SHARED = mistake(
    "preset-shared",
    "Two calls return one and the same object: whoever changes his configuration changes everybody's. "
    "Make a new one in each call.",
    6,
)
PRESET_NUMBERS = mistake("preset-numbers", "A size of this GPT-2 is not the published one.", 6)
PRESET_SWAPPED = mistake(
    "preset-heads-layers-swapped", "n_layer and n_head are swapped in this size.", 6
)
PRESET_OTHER = mistake(
    "preset-of-another-size", "These are the numbers of another of the four sizes.", 6
)
PRESET_METHOD = mistake(
    "preset-not-classmethod",
    "It must be a class method, called without an instance: GPT2Config.gpt2_small(). Put "
    "@classmethod above it and take `cls` instead of `self`.",
    6,
)
PRESET_RESULT = mistake(
    "preset-not-config", "It must return a GPT2Config: cls(…), made with the size's numbers.", 6
)


def field(config, name):
    """The attribute; a missing one is named."""
    if not hasattr(config, name):
        fail(MISSING_FIELD, f"GPT2Config has no attribute `{name}`.")
    return getattr(config, name)


def expect_fields(config, want, wrong):
    """Check every field of a configuration."""
    for name, value in want.items():
        got = field(config, name)
        if got == value and isinstance(got, bool) == isinstance(value, bool):
            continue
        if name == "vocab_size" and wrong in (WRONG_DEFAULT, PRESET_NUMBERS):
            fail(WRONG_VOCAB, f"vocab_size is {got!r}, expected {value!r}.")
        fail(wrong, f"{name} is {got!r}, expected {value!r}.")


def expect_refused(piece, name, value, wrong, **others):
    """Check that GPT2Config(name=value) is a ValueError that names the field and the value."""
    call = ", ".join(f"{k}={v!r}" for k, v in {**others, name: value}.items())
    call = f"GPT2Config({call})"
    try:
        piece.GPT2Config(**{**others, name: value})
    except NotImplementedError:
        raise
    except ValueError as error:
        text = str(error)
        if name not in text:
            fail(NO_FIELD, f"{call} says: {text!r}. It must name {name}.")
        spelt = [str(value), f"{value:g}" if isinstance(value, float) else str(value)]
        if not any(word in text for word in spelt):
            fail(NO_VALUE, f"{call} says: {text!r}. It must name {value}.")
        return
    except AssertionError:
        fail(ASSERT, f"{call} raises AssertionError.")
    except Exception as error:
        by_python = re.search(BY_PYTHON, str(error))
        said = f"{call} raises {type(error).__name__}: {error}"
        fail(USED_BEFORE_CHECKED if by_python else WRONG_TYPE, said)
    fail(wrong, f"{call} is accepted.")


def expect_accepted(piece, wrong, **values):
    """Check that GPT2Config(**values) can be made."""
    call = ", ".join(f"{k}={v!r}" for k, v in values.items())
    try:
        piece.GPT2Config(**values)
    except ValueError as error:
        fail(wrong, f"GPT2Config({call}) says: {error}")


# ── values ──────────────────────────────────────────────────────────────────────────────────────


@check(todo=3)
def test_defaults(piece):
    """GPT2Config() is GPT-2 small: nine fields with its numbers"""
    try:
        config = piece.GPT2Config()
    except ValueError as error:
        wrong = HEADS_SWAPPED if "n_head" in str(error) else TOO_STRICT
        fail(wrong, f"GPT2Config() says: {error}")
    except TypeError as error:
        if "missing" in str(error) and "required" in str(error):
            fail(NO_DEFAULT, f"Python says: {error}")
        raise
    expect_fields(config, DEFAULTS, WRONG_DEFAULT)


@check(todo=3, needs=test_defaults)
def test_arguments(piece):
    """The nine arguments, in the contract's order, end up in attributes of the same names"""
    piece.GPT2Config()
    if piece.GPT2Config.__init__ is object.__init__ and piece.GPT2Config.__new__ is object.__new__:
        fail(NO_INIT)
    want = ", ".join(f"{name}={value!r}" for name, value in DEFAULTS.items())
    expect_signature(piece.GPT2Config.__init__, f"({want})", "GPT2Config")
    named = dict(zip(DEFAULTS, OTHERS, strict=True))
    expect_accepted(piece, TOO_STRICT, **named)
    expect_fields(piece.GPT2Config(**named), named, NOT_KEPT)
    expect_fields(piece.GPT2Config(*OTHERS), named, NOT_KEPT)
    for name, value in named.items():
        if name not in ("n_embd", "n_head"):
            config = piece.GPT2Config(**{name: value})
            expect_fields(config, {**DEFAULTS, name: value}, NOT_KEPT)


@check(todo=3, needs=test_arguments)
def test_derived_are_no_arguments(piece):
    """n_inner and head_dim can't be passed in: they follow from n_embd and n_head"""
    piece.GPT2Config()
    for name in ("n_inner", "head_dim"):
        try:
            config = piece.GPT2Config(**{name: 50})
        except (TypeError, ValueError):
            continue
        if field(config, name) == 50:
            fail(EXTRA_ARGUMENT, f"GPT2Config({name}=50) is accepted.")


@check(todo=3, needs=test_arguments)
def test_instances_are_apart(piece):
    """Two configurations do not share their values"""
    first = piece.GPT2Config(*OTHERS)
    piece.GPT2Config()
    expect_fields(first, dict(zip(DEFAULTS, OTHERS, strict=True)), SHARED)
    expect_fields(piece.GPT2Config(), DEFAULTS, SHARED)


@check(todo=3, needs=test_arguments, follows=test_instances_are_apart)
def test_equality(piece):
    """Equal by value: the same numbers are equal, one other number is not"""
    first = piece.GPT2Config(*OTHERS)
    if first != piece.GPT2Config(*OTHERS):
        fail(NO_EQUALITY)
    if copy.deepcopy(first) != first:
        fail(NO_EQUALITY, "A deep copy is not equal to the original.")
    named = dict(zip(DEFAULTS, OTHERS, strict=True))
    for name, value in {**DEFAULTS, "n_embd": 60, "n_head": 3}.items():
        if first == piece.GPT2Config(**{**named, name: value}):
            fail(EQUALITY_IGNORES, f"{name}={named[name]} and {name}={value} count as equal.")
    for other in (None, "gpt2", 5, named):
        with contextlib.suppress(AttributeError, TypeError, KeyError):
            if (first == other) is True:
                fail(EQUALITY_IGNORES, f"A configuration is equal to {other!r:.40}.")


@check(todo=3, needs=test_arguments)
def test_repr(piece):
    """repr() shows the sizes"""
    text = repr(piece.GPT2Config(*OTHERS))
    for name, value in zip(SIZES, OTHERS, strict=False):
        if str(value) not in text:
            fail(NO_REPR, f"It gives {text[:150]!r}, without {name} = {value}.")


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@check(todo=3, needs=test_arguments, points=2)
def test_sizes_are_checked(piece):
    """A size that is not a positive int is a ValueError that names the field and the value"""
    for name in SIZES:
        expect_refused(piece, name, -12, SIZE)
        expect_refused(piece, name, 0, ZERO)
        expect_refused(piece, name, 1.5, FLOAT)
        expect_refused(piece, name, 12.0, FLOAT)
        expect_refused(piece, name, "12", NOT_A_SIZE)
        expect_refused(piece, name, None, NOT_A_SIZE)
    expect_accepted(piece, SIZE_TOO_STRICT, n_embd=1, n_head=1, n_layer=1, n_positions=1)
    expect_accepted(piece, SIZE_TOO_STRICT, vocab_size=1)
    expect_accepted(piece, SIZE_TOO_STRICT, vocab_size=10**7, n_positions=10**6, n_layer=1000)


@check(todo=3, needs=test_arguments, points=2)
def test_probabilities_are_checked(piece):
    """A probability outside [0, 1] is a ValueError; 0 and 1 are inside"""
    for name in RATES:
        for value in (-0.1, 1.5, 25, math.inf, -math.inf):
            expect_refused(piece, name, value, RATE)
        for value in (0.0, 1.0, 0, 1, 0.5):
            expect_accepted(piece, TOO_STRICT, **{name: value})


@check(todo=3, needs=test_arguments)
def test_epsilon_is_checked(piece):
    """An epsilon ≤ 0 is a ValueError"""
    expect_refused(piece, "layer_norm_epsilon", -0.001, EPSILON)
    expect_refused(piece, "layer_norm_epsilon", 0.0, EPSILON_ZERO)
    for value in (1e-12, 1e-3, 2.0, 1):
        expect_accepted(piece, TOO_STRICT, layer_norm_epsilon=value)


@check(todo=3, needs=test_arguments, points=2)
def test_heads_divide_the_width(piece):
    """n_embd not divisible by n_head is a ValueError that names both numbers"""
    for width, heads in ((10, 3), (768, 7), (12, 24)):
        expect_refused(piece, "n_embd", width, HEADS, n_head=heads)
        try:
            piece.GPT2Config(n_embd=width, n_head=heads)
        except ValueError as error:
            if str(heads) not in str(error):
                fail(NO_VALUE, f"n_embd={width}, n_head={heads} says: {error}. Name both numbers.")
    for width, heads in ((12, 3), (5, 1), (6, 6), (30, 5)):
        wrong = HEADS_TOO_STRICT if heads in (1, width) else HEADS_SWAPPED
        expect_accepted(piece, wrong, n_embd=width, n_head=heads)


# ── what is derived ─────────────────────────────────────────────────────────────────────────────


def expect_derived(piece, name, right, known):
    """Check a derived number on several configurations."""
    seen = []
    for width, heads, layers in ((768, 12, 12), (30, 5, 7), (64, 4, 3), (1600, 25, 48)):
        values = {**DEFAULTS, "n_embd": width, "n_head": heads, "n_layer": layers}
        seen.append((values, field(piece.GPT2Config(**values), name), right(width, heads)))
    for values, got, want in seen:
        width, heads = values["n_embd"], values["n_head"]
        if callable(got):
            fail(NOT_A_NUMBER, f"config.{name} is a method.")
        at = f"With n_embd = {width} and n_head = {heads}, {name} is {got!r}, expected {want}."
        if got == want and type(got) is float:
            fail(FLOAT_DIVISION, at)
        if got != want and all(isinstance(g, (int, float)) for _, g, _ in seen):
            for id, (says, wrong) in known.items():  # in all of them: two sizes may be equal in one
                if all(int(g) == wrong(v) for v, g, _ in seen):
                    fail(mistake(id, says, 5), at)
            times = {g / v["n_embd"] for v, g, _ in seen}
            if name == "n_inner" and len(times) == 1:
                says = f"n_inner is {times.pop():g} · n_embd. It is 4 times n_embd."
                fail(mistake("n-inner-factor", says, 5), at)
        if got is None:
            fail(f"{name} is None: does it end without `return`? [no-return]")
        if got != want:
            fail(f"{at} [{name.replace('_', '-')}-wrong]")


@check(todo=4, needs=test_arguments, follows=test_derived_are_no_arguments)
def test_n_inner(piece):
    """n_inner is 4 · n_embd"""
    expect_derived(piece, "n_inner", lambda width, heads: 4 * width, N_INNER)


@check(todo=5, needs=test_arguments)
def test_head_dim(piece):
    """head_dim is n_embd // n_head, an int"""
    expect_derived(piece, "head_dim", lambda width, heads: width // heads, HEAD_DIM)


# ── the four sizes ──────────────────────────────────────────────────────────────────────────────

# name → (n_embd, n_layer, n_head, parameters with tied weights)
PUBLISHED = {
    "gpt2_small": (768, 12, 12, 124_439_808),
    "gpt2_medium": (1024, 24, 16, 354_823_168),
    "gpt2_large": (1280, 36, 20, 774_030_080),
    "gpt2_xl": (1600, 48, 25, 1_557_611_200),
}


def count_parameters(config):
    """Parameters of the model that a configuration describes, the head tied to the embedding."""
    c, inner = config.n_embd, 4 * config.n_embd
    attention = (c + 1) * 3 * c + (c + 1) * c
    feed_forward = (c + 1) * inner + (inner + 1) * c
    block = 2 * c + attention + 2 * c + feed_forward
    return (config.vocab_size + config.n_positions) * c + config.n_layer * block + 2 * c


def is_shared(first, second):
    """Whether a change of one configuration changes the other; a frozen one may be shared."""
    if first is not second:
        return False
    before = first.n_layer
    with contextlib.suppress(Exception):
        second.n_layer = before + 1
    changed = first.n_layer != before
    if changed:
        second.n_layer = before
    return changed


def examine_preset(piece, name):
    """Check one of the four class methods."""
    width, layers, heads, parameters = PUBLISHED[name]
    method = getattr(piece.GPT2Config, name, None)
    if method is None:
        others = [n for n in vars(piece.GPT2Config) if n.startswith("gpt2")]
        fail(MISSING_FIELD, f"GPT2Config has no {name}; it has {', '.join(others) or 'none'}.")
    if not callable(method) or (
        inspect.isfunction(method) and inspect.signature(method).parameters
    ):
        fail(PRESET_METHOD, f"GPT2Config.{name} is a {type(method).__name__}.")
    try:
        config = method()
    except ValueError as error:
        # 1024 is not divisible by 24: then n_layer stands where n_head should
        swapped = "n_head" in str(error) and re.search(rf"\b{layers}\b", str(error))
        fail(PRESET_SWAPPED if swapped else PRESET_NUMBERS, f"{name}(): {error}")
    if not isinstance(config, piece.GPT2Config):
        if config is None:
            fail(f"{name}() returns None: does it end without `return`? [no-return]")
        fail(PRESET_RESULT, f"{name}() returns a {type(config).__name__}.")
    if not inspect.ismethod(method):
        fail(PRESET_METHOD, f"GPT2Config.{name} is a static method.")
    got = (config.n_embd, config.n_layer, config.n_head)
    numbers = f"{name}(): n_embd, n_layer, n_head are {got}, expected {(width, layers, heads)}."
    if got == (width, heads, layers) and heads != layers:
        fail(PRESET_SWAPPED, numbers)
    if got in {p[:3] for p in PUBLISHED.values()} - {(width, layers, heads)}:
        fail(PRESET_OTHER, numbers)
    if got != (width, layers, heads):
        fail(PRESET_NUMBERS, numbers)
    expect_fields(
        config, {**DEFAULTS, "n_embd": width, "n_layer": layers, "n_head": heads}, PRESET_NUMBERS
    )
    twin = piece.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)
    with contextlib.suppress(NotImplementedError):
        for derived in ("n_inner", "head_dim"):
            mine, fresh = getattr(config, derived, None), getattr(twin, derived, None)
            if mine != fresh:
                fail(STALE, f"{name}(): {derived} is {mine}, with cls(…) it is {fresh}.")
    if is_shared(config, method()):
        fail(PRESET_SHARED)
    if count_parameters(config) != parameters:
        fail(PRESET_NUMBERS, f"{count_parameters(config):,} parameters, expected {parameters:,}.")


@check(todo=6, needs=test_arguments, follows=(test_n_inner, test_head_dim))
def test_gpt2_small(piece):
    """gpt2_small: 768 wide, 12 layers, 12 heads: 124,439,808 parameters"""
    examine_preset(piece, "gpt2_small")


@check(todo=7, needs=test_arguments, follows=(test_n_inner, test_head_dim, test_gpt2_small))
def test_gpt2_medium(piece):
    """gpt2_medium: 1024 wide, 24 layers, 16 heads: 354,823,168 parameters"""
    examine_preset(piece, "gpt2_medium")


@check(todo=8, needs=test_arguments, follows=(test_n_inner, test_head_dim, test_gpt2_small))
def test_gpt2_large(piece):
    """gpt2_large: 1280 wide, 36 layers, 20 heads: 774,030,080 parameters"""
    examine_preset(piece, "gpt2_large")


@check(todo=9, needs=test_arguments, follows=(test_n_inner, test_head_dim, test_gpt2_small))
def test_gpt2_xl(piece):
    """gpt2_xl: 1600 wide, 48 layers, 25 heads: 1,557,611,200 parameters"""
    examine_preset(piece, "gpt2_xl")
