"""Checks of problem 09. The numbers are those of Radford et al. 2019, table 2, and its code."""

import contextlib
import copy
import inspect
import math
import re

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import check, expect_signature, fail

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


KNOWN = known(__file__)
# what Python says when an operator or a function meets a value that it can't work with
BY_PYTHON = (
    r"unsupported operand|not supported between|not all arguments converted|(division|modulo) by "
    r"zero|bad operand type|must be real number|can't multiply|object cannot be interpreted"
)


def field(config, name):
    """The attribute; a missing one is named."""
    if not hasattr(config, name):
        fail(KNOWN["missing-attribute"], f"GPT2Config has no attribute `{name}`.")
    return getattr(config, name)


def expect_fields(config, want, wrong):
    """Check every field of a configuration."""
    for name, value in want.items():
        got = field(config, name)
        if got == value and isinstance(got, bool) == isinstance(value, bool):
            continue
        if name == "vocab_size" and wrong in (KNOWN["wrong-default"], KNOWN["preset-numbers"]):
            fail(KNOWN["wrong-vocab-size"], f"vocab_size is {got!r}, expected {value!r}.")
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
            fail(KNOWN["error-without-field"], f"{call} says: {text!r}. It must name {name}.")
        spelt = [str(value), f"{value:g}" if isinstance(value, float) else str(value)]
        if not any(word in text for word in spelt):
            fail(KNOWN["error-without-value"], f"{call} says: {text!r}. It must name {value}.")
        return
    except AssertionError:
        fail(KNOWN["assert-not-valueerror"], f"{call} raises AssertionError.")
    except Exception as error:
        by_python = re.search(BY_PYTHON, str(error))
        said = f"{call} raises {type(error).__name__}: {error}"
        fail(KNOWN["used-before-checked"] if by_python else KNOWN["wrong-error-type"], said)
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
        wrong = KNOWN["heads-check-swapped"] if "n_head" in str(error) else KNOWN["valid-refused"]
        fail(wrong, f"GPT2Config() says: {error}")
    except TypeError as error:
        if "missing" in str(error) and "required" in str(error):
            fail(KNOWN["argument-without-default"], f"Python says: {error}")
        raise
    expect_fields(config, DEFAULTS, KNOWN["wrong-default"])


@check(todo=3, needs=test_defaults)
def test_arguments(piece):
    """The nine arguments, in the contract's order, end up in attributes of the same names"""
    piece.GPT2Config()
    if piece.GPT2Config.__init__ is object.__init__ and piece.GPT2Config.__new__ is object.__new__:
        fail(KNOWN["no-init"])
    want = ", ".join(f"{name}={value!r}" for name, value in DEFAULTS.items())
    expect_signature(piece.GPT2Config.__init__, f"({want})", "GPT2Config")
    named = dict(zip(DEFAULTS, OTHERS, strict=True))
    expect_accepted(piece, KNOWN["valid-refused"], **named)
    expect_fields(piece.GPT2Config(**named), named, KNOWN["argument-ignored"])
    expect_fields(piece.GPT2Config(*OTHERS), named, KNOWN["argument-ignored"])
    for name, value in named.items():
        if name not in ("n_embd", "n_head"):
            config = piece.GPT2Config(**{name: value})
            expect_fields(config, {**DEFAULTS, name: value}, KNOWN["argument-ignored"])


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
            fail(KNOWN["derived-argument"], f"GPT2Config({name}=50) is accepted.")


@check(todo=3, needs=test_arguments)
def test_instances_are_apart(piece):
    """Two configurations do not share their values"""
    first = piece.GPT2Config(*OTHERS)
    piece.GPT2Config()
    expect_fields(first, dict(zip(DEFAULTS, OTHERS, strict=True)), KNOWN["shared-attributes"])
    expect_fields(piece.GPT2Config(), DEFAULTS, KNOWN["shared-attributes"])


@check(todo=3, needs=test_arguments, follows=test_instances_are_apart)
def test_equality(piece):
    """Equal by value: the same numbers are equal, one other number is not"""
    first = piece.GPT2Config(*OTHERS)
    if first != piece.GPT2Config(*OTHERS):
        fail(KNOWN["no-equality"])
    if copy.deepcopy(first) != first:
        fail(KNOWN["no-equality"], "A deep copy is not equal to the original.")
    named = dict(zip(DEFAULTS, OTHERS, strict=True))
    for name, value in {**DEFAULTS, "n_embd": 60, "n_head": 3}.items():
        if first == piece.GPT2Config(**{**named, name: value}):
            fail(
                KNOWN["equality-ignores-a-field"],
                f"{name}={named[name]} and {name}={value} count as equal.",
            )
    for other in (None, "gpt2", 5, named):
        with contextlib.suppress(AttributeError, TypeError, KeyError):
            if (first == other) is True:
                fail(
                    KNOWN["equality-ignores-a-field"], f"A configuration is equal to {other!r:.40}."
                )


@check(todo=3, needs=test_arguments)
def test_repr(piece):
    """repr() shows the sizes"""
    text = repr(piece.GPT2Config(*OTHERS))
    for name, value in zip(SIZES, OTHERS, strict=False):
        if str(value) not in text:
            fail(KNOWN["no-repr"], f"It gives {text[:150]!r}, without {name} = {value}.")


# ── what is refused ─────────────────────────────────────────────────────────────────────────────


@check(todo=3, needs=test_arguments, points=2)
def test_sizes_are_checked(piece):
    """A size that is not a positive int is a ValueError that names the field and the value"""
    for name in SIZES:
        expect_refused(piece, name, -12, KNOWN["size-not-checked"])
        expect_refused(piece, name, 0, KNOWN["zero-accepted"])
        expect_refused(piece, name, 1.5, KNOWN["float-accepted"])
        expect_refused(piece, name, 12.0, KNOWN["float-accepted"])
        expect_refused(piece, name, "12", KNOWN["wrong-type-accepted"])
        expect_refused(piece, name, None, KNOWN["wrong-type-accepted"])
    expect_accepted(
        piece, KNOWN["valid-refused:size-too-strict"], n_embd=1, n_head=1, n_layer=1, n_positions=1
    )
    expect_accepted(piece, KNOWN["valid-refused:size-too-strict"], vocab_size=1)
    expect_accepted(
        piece,
        KNOWN["valid-refused:size-too-strict"],
        vocab_size=10**7,
        n_positions=10**6,
        n_layer=1000,
    )


@check(todo=3, needs=test_arguments, points=2)
def test_probabilities_are_checked(piece):
    """A probability outside [0, 1] is a ValueError; 0 and 1 are inside"""
    for name in RATES:
        for value in (-0.1, 1.5, 25, math.inf, -math.inf):
            expect_refused(piece, name, value, KNOWN["probability-not-checked"])
        for value in (0.0, 1.0, 0, 1, 0.5):
            expect_accepted(piece, KNOWN["valid-refused"], **{name: value})


@check(todo=3, needs=test_arguments)
def test_epsilon_is_checked(piece):
    """An epsilon ≤ 0 is a ValueError"""
    expect_refused(piece, "layer_norm_epsilon", -0.001, KNOWN["epsilon-not-checked"])
    expect_refused(piece, "layer_norm_epsilon", 0.0, KNOWN["epsilon-zero-accepted"])
    for value in (1e-12, 1e-3, 2.0, 1):
        expect_accepted(piece, KNOWN["valid-refused"], layer_norm_epsilon=value)


@check(todo=3, needs=test_arguments, points=2)
def test_heads_divide_the_width(piece):
    """n_embd not divisible by n_head is a ValueError that names both numbers"""
    for width, heads in ((10, 3), (768, 7), (12, 24)):
        expect_refused(piece, "n_embd", width, KNOWN["heads-not-checked"], n_head=heads)
        try:
            piece.GPT2Config(n_embd=width, n_head=heads)
        except ValueError as error:
            if str(heads) not in str(error):
                fail(
                    KNOWN["error-without-value"],
                    f"n_embd={width}, n_head={heads} says: {error}. Name both numbers.",
                )
    for width, heads in ((12, 3), (5, 1), (6, 6), (30, 5)):
        wrong = (
            KNOWN["heads-check-too-strict"] if heads in (1, width) else KNOWN["heads-check-swapped"]
        )
        expect_accepted(piece, wrong, n_embd=width, n_head=heads)


# ── what is derived ─────────────────────────────────────────────────────────────────────────────


def expect_derived(piece, name, right, family):
    """Check a derived number on several configurations."""
    seen = []
    for width, heads, layers in ((768, 12, 12), (30, 5, 7), (64, 4, 3), (1600, 25, 48)):
        values = {**DEFAULTS, "n_embd": width, "n_head": heads, "n_layer": layers}
        seen.append((values, field(piece.GPT2Config(**values), name), right(width, heads)))
    for values, got, want in seen:
        width, heads = values["n_embd"], values["n_head"]
        if callable(got):
            fail(KNOWN["derived-method"], f"config.{name} is a method.")
        at = f"With n_embd = {width} and n_head = {heads}, {name} is {got!r}, expected {want}."
        if got == want and type(got) is float:
            fail(KNOWN["float-division"], at)
        if got != want and all(isinstance(g, (int, float)) for _, g, _ in seen):
            for m in KNOWN.of(family):  # in all of them: two sizes may be equal in one
                if all(int(g) == m.switches["gives"](v) for v, g, _ in seen):
                    fail(m, at)
            times = {g / v["n_embd"] for v, g, _ in seen}
            if name == "n_inner" and len(times) == 1:
                says = f"n_inner is {times.pop():g} · n_embd. It is 4 times n_embd."
                fail(says, at, id="n-inner-factor", hint=5)
        if got is None:
            fail(f"{name} is None: does it end without `return`?", id="no-return")
        if got != want:
            fail(f"{at}", id=f"{name.replace('_', '-')}-wrong")


@check(todo=4, needs=test_arguments, follows=test_derived_are_no_arguments)
def test_n_inner(piece):
    """n_inner is 4 · n_embd"""
    expect_derived(piece, "n_inner", lambda width, heads: 4 * width, "n-inner")


@check(todo=5, needs=test_arguments)
def test_head_dim(piece):
    """head_dim is n_embd // n_head, an int"""
    expect_derived(piece, "head_dim", lambda width, heads: width // heads, "head-dim")


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
        fail(
            KNOWN["missing-attribute"],
            f"GPT2Config has no {name}; it has {', '.join(others) or 'none'}.",
        )
    if not callable(method) or (
        inspect.isfunction(method) and inspect.signature(method).parameters
    ):
        fail(KNOWN["preset-not-classmethod"], f"GPT2Config.{name} is a {type(method).__name__}.")
    try:
        config = method()
    except ValueError as error:
        # 1024 is not divisible by 24: then n_layer stands where n_head should
        swapped = "n_head" in str(error) and re.search(rf"\b{layers}\b", str(error))
        fail(
            KNOWN["preset-heads-layers-swapped"] if swapped else KNOWN["preset-numbers"],
            f"{name}(): {error}",
        )
    if not isinstance(config, piece.GPT2Config):
        if config is None:
            fail(f"{name}() returns None: does it end without `return`?", id="no-return")
        fail(KNOWN["preset-not-config"], f"{name}() returns a {type(config).__name__}.")
    if not inspect.ismethod(method):
        fail(KNOWN["preset-not-classmethod"], f"GPT2Config.{name} is a static method.")
    got = (config.n_embd, config.n_layer, config.n_head)
    numbers = f"{name}(): n_embd, n_layer, n_head are {got}, expected {(width, layers, heads)}."
    if got == (width, heads, layers) and heads != layers:
        fail(KNOWN["preset-heads-layers-swapped"], numbers)
    if got in {p[:3] for p in PUBLISHED.values()} - {(width, layers, heads)}:
        fail(KNOWN["preset-of-another-size"], numbers)
    if got != (width, layers, heads):
        fail(KNOWN["preset-numbers"], numbers)
    expect_fields(
        config,
        {**DEFAULTS, "n_embd": width, "n_layer": layers, "n_head": heads},
        KNOWN["preset-numbers"],
    )
    twin = piece.GPT2Config(n_embd=width, n_layer=layers, n_head=heads)
    with contextlib.suppress(NotImplementedError):
        for derived in ("n_inner", "head_dim"):
            mine, fresh = getattr(config, derived, None), getattr(twin, derived, None)
            if mine != fresh:
                fail(
                    KNOWN["derived-stale"],
                    f"{name}(): {derived} is {mine}, with cls(…) it is {fresh}.",
                )
    if is_shared(config, method()):
        fail(KNOWN["preset-shared"])
    if count_parameters(config) != parameters:
        fail(
            KNOWN["preset-numbers"],
            f"{count_parameters(config):,} parameters, expected {parameters:,}.",
        )


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
