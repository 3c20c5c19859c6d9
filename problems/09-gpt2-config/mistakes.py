"""The known mistakes of problem 09."""

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

# what the number comes out as, c being the config's settings
n_inner = KNOWN.section("n-inner", hint=5)
n_inner(
    "n-inner-hard-coded",
    "n_inner is 3072, whatever the width. It is 4 · n_embd.",
    gives=lambda c: 3072,
)
n_inner(
    "n-inner-of-heads", "n_inner is 4 · n_head. It is 4 · n_embd.", gives=lambda c: 4 * c["n_head"]
)
n_inner("n-inner-is-width", "n_inner is n_embd. It is 4 times that.", gives=lambda c: c["n_embd"])
n_inner(
    "n-inner-factor",
    "n_inner is 2 · n_embd. It is 4 times n_embd.",
    gives=lambda c: 2 * c["n_embd"],
)
n_inner(
    "n-inner-of-positions",
    "n_inner is 4 · n_positions. It is 4 · n_embd.",
    gives=lambda c: 4 * c["n_positions"],
)
n_inner(
    "n-inner-of-layers",
    "n_inner is 4 · n_layer. It is 4 · n_embd.",
    gives=lambda c: 4 * c["n_layer"],
)
n_inner(
    "n-inner-of-vocabulary",
    "n_inner is 4 · vocab_size. It is 4 · n_embd.",
    gives=lambda c: 4 * c["vocab_size"],
)

# what the number comes out as, c being the config's settings
head_dim = KNOWN.section("head-dim", hint=5)
head_dim("head-dim-hard-coded", "head_dim is 64, whatever the width.", gives=lambda c: 64)
head_dim(
    "head-dim-of-layers",
    "head_dim divides by n_layer (12 as well in GPT-2 small). It divides by n_head.",
    gives=lambda c: c["n_embd"] // c["n_layer"],
)
head_dim(
    "head-dim-swapped", "head_dim is n_head / n_embd. It is the other way round.", gives=lambda c: 0
)
head_dim(
    "head-dim-is-n-head", "head_dim is n_head. It is n_embd / n_head.", gives=lambda c: c["n_head"]
)
head_dim(
    "head-dim-is-width", "head_dim is n_embd. It is n_embd / n_head.", gives=lambda c: c["n_embd"]
)
head_dim(
    "head-dim-of-inner",
    "head_dim is n_inner / n_head. It is n_embd / n_head.",
    gives=lambda c: 4 * c["n_embd"] // c["n_head"],
)
head_dim(
    "head-dim-product",
    "head_dim is n_embd · n_head. It is n_embd / n_head.",
    gives=lambda c: c["n_embd"] * c["n_head"],
)
head_dim(
    "head-dim-of-positions",
    "head_dim divides n_positions. It divides n_embd by n_head.",
    gives=lambda c: c["n_positions"] // c["n_head"],
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1("argument-ignored", "An argument is not kept: the attribute holds something else.")
hint_1(
    "argument-without-default", "Every argument has a default: GPT2Config() alone is GPT-2 small."
)
hint_1(
    "missing-attribute",
    "Every argument is an attribute of the same name: the model reads it there.",
)
hint_1(
    "no-init",
    "The class takes no arguments. @dataclass above it writes an __init__ from the fields; without it, you write __init__ yourself.",
)
hint_1(
    "shared-attributes",
    "Two configurations share their values: making the second changes the first. Keep values on the instance (self), not on the class.",
)
hint_1("wrong-default", "A default is not GPT-2 small's (Radford et al. 2019, table 2).")
hint_1(
    "wrong-vocab-size",
    "The vocabulary has 50,257 tokens: 256 bytes + 50,000 merges + 1 end-of-text token.",
)

hint_2 = KNOWN.section(hint=2)
hint_2(
    "assert-not-valueerror",
    "An assert raises AssertionError, and nothing at all under `python -O`. Use `if …: raise ValueError(…)`.",
)
hint_2(
    "error-without-field",
    "The message does not name the field: with nine of them, the reader needs to know which.",
)
hint_2("error-without-value", "The message does not say which value it got: put it in.")
hint_2(
    "float-accepted",
    "A float is accepted as a size. 12.0 is not an int: it can't be the size of a tensor.",
)
hint_2("size-not-checked", "A size must be a positive int, and is not checked.")
hint_2(
    "used-before-checked",
    "A value is used (compared, divided, multiplied) before it is known to be a number that fits. First ask for its type, then for its size, and compute last.",
)
hint_2(
    "wrong-error-type", "A value that can't be must raise ValueError, and raises something else."
)
hint_2("wrong-type-accepted", "Something that is not an int at all is accepted as a size.")
hint_2("zero-accepted", "A size of 0 is accepted. Positive means 1 or more.")

hint_3 = KNOWN.section(hint=3)
hint_3("epsilon-not-checked", "layer_norm_epsilon must be greater than 0, and is not checked.")
hint_3(
    "epsilon-zero-accepted",
    "An epsilon of 0 is accepted. It is there so that nothing is divided by 0.",
)
hint_3(
    "probability-not-checked", "A dropout is a probability: below 0 or above 1 it must be refused."
)
hint_3(
    "valid-refused",
    "A value that is allowed is refused.",
    way("size-too-strict", says="A size that is allowed is refused.", hint=2),
)

hint_4 = KNOWN.section(hint=4)
hint_4(
    "heads-check-swapped",
    "The check is the wrong way round: n_embd must be divisible by n_head, not n_head by n_embd.",
)
hint_4(
    "heads-check-too-strict",
    "The heads need only divide the width: one head, or heads of width 1, are fine.",
)
hint_4("heads-not-checked", "n_embd must be divisible by n_head: the heads share the width out.")

hint_5 = KNOWN.section(hint=5)
hint_5(
    "derived-argument",
    "A derived number can be passed in, and then may disagree with n_embd. Compute it: n_inner and head_dim are not arguments.",
)
hint_5(
    "derived-method",
    "It is a method, and must be read like an attribute: @property above it does that.",
)
hint_5(
    "float-division",
    "A size must be an int, and this is a float: `/` gives one, even when it divides evenly, and so does a factor like 4.0. `//` gives an int.",
)

hint_6 = KNOWN.section(hint=6)
hint_6(
    "derived-stale",
    "The numbers of this size do not fit together: n_inner or head_dim was computed before n_embd or n_head got its value. Hand the size's numbers to cls(…).",
)
hint_6("preset-heads-layers-swapped", "n_layer and n_head are swapped in this size.")
hint_6(
    "preset-not-classmethod",
    "It must be a class method, called without an instance: GPT2Config.gpt2_small(). Put @classmethod above it and take `cls` instead of `self`.",
)
hint_6("preset-not-config", "It must return a GPT2Config: cls(…), made with the size's numbers.")
hint_6("preset-numbers", "A size of this GPT-2 is not the published one.")
hint_6("preset-of-another-size", "These are the numbers of another of the four sizes.")
hint_6(
    "preset-shared",
    "Two calls return one and the same object: a change to one configuration changes every other. Make a new one in each call.",
)

hint_7 = KNOWN.section(hint=7)
hint_7("equality-ignores-a-field", "Two configurations that differ in one field must not be equal.")
hint_7(
    "no-equality",
    "Two configurations with the same values must be equal: without __eq__ Python asks whether they are the same object. @dataclass writes __eq__ for you.",
)
hint_7(
    "no-repr",
    "repr() does not show the sizes: print(config) should say what one looks at. @dataclass writes __repr__ for you.",
)
