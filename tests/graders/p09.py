"""Problem 09: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(9)

SIZES = 'for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):'
SIZE = "if not isinstance(value, int) or isinstance(value, bool) or value < 1:"
SIZE_ERROR = 'raise ValueError(f"{name} must be a positive int, got {value!r}")'
RATES = 'for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):'
RATE = "if not isinstance(value, (int, float)) or not 0 <= value <= 1:"
RATE_ERROR = 'raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")'
EPSILON = (
    "if not isinstance(self.layer_norm_epsilon, (int, float)) or not self.layer_norm_epsilon > 0:"
)
EPSILON_ERROR = 'f"layer_norm_epsilon must be greater than 0, got {self.layer_norm_epsilon!r}"'
HEADS = "if self.n_embd % self.n_head != 0:"
HEADS_ERROR = (
    'raise ValueError(f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}")'
)
N_INNER = "return 4 * self.n_embd"
HEAD_DIM = "return self.n_embd // self.n_head"
MEDIUM = "return cls(n_embd=1024, n_layer=24, n_head=16)"
LARGE = "return cls(n_embd=1280, n_layer=36, n_head=20)"
XL = "return cls(n_embd=1600, n_layer=48, n_head=25)"

# a plain class, to be spoilt
PLAIN = """
class GPT2Config:
    def __init__(self, vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12,
                 resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, layer_norm_epsilon=1e-5):
        for name, value in dict(vocab_size=vocab_size, n_positions=n_positions, n_embd=n_embd,
                                n_layer=n_layer, n_head=n_head).items():
            if type(value) is not int or value <= 0:
                raise ValueError(f"{name}={value} is not a positive integer")
        for name, value in dict(resid_pdrop=resid_pdrop, embd_pdrop=embd_pdrop,
                                attn_pdrop=attn_pdrop).items():
            if not (value >= 0 and value <= 1):
                raise ValueError(f"{name}={value} is outside [0, 1]")
        if layer_norm_epsilon <= 0:
            raise ValueError(f"layer_norm_epsilon={layer_norm_epsilon} must be positive")
        if n_embd % n_head:
            raise ValueError(f"n_embd={n_embd} cannot be split among n_head={n_head} heads")
        self.vocab_size = vocab_size
        self.n_positions = n_positions
        self.n_embd = n_embd
        self.n_layer = n_layer
        self.n_head = n_head
        self.resid_pdrop = resid_pdrop
        self.embd_pdrop = embd_pdrop
        self.attn_pdrop = attn_pdrop
        self.layer_norm_epsilon = layer_norm_epsilon
        self.n_inner = n_embd * 4
        self.head_dim = n_embd // n_head

    def __eq__(self, other):
        return isinstance(other, GPT2Config) and self.__dict__ == other.__dict__

    def __repr__(self):
        return "GPT2Config(" + ", ".join(f"{k}={v}" for k, v in vars(self).items()) + ")"

    @classmethod
    def gpt2_small(cls):
        return cls()

    @classmethod
    def gpt2_medium(cls):
        return cls(n_embd=1024, n_layer=24, n_head=16)

    @classmethod
    def gpt2_large(cls):
        return cls(n_embd=1280, n_layer=36, n_head=20)

    @classmethod
    def gpt2_xl(cls):
        return cls(n_embd=1600, n_layer=48, n_head=25)
"""
EQ = """    def __eq__(self, other):
        return isinstance(other, GPT2Config) and self.__dict__ == other.__dict__
"""
REPR = """    def __repr__(self):
        return "GPT2Config(" + ", ".join(f"{k}={v}" for k, v in vars(self).items()) + ")"
"""


def plain(mistake: str, title: str, *edits: tuple[str, str]) -> None:
    bank.wrong_edit(mistake, title, *edits, base=PLAIN)


# defaults and arguments
bank.wrong_edit(
    "wrong-vocab-size", "50,000 tokens", ("vocab_size: int = 50257", "vocab_size: int = 50000")
)
bank.wrong_edit(
    "wrong-vocab-size", "padded", ("vocab_size: int = 50257", "vocab_size: int = 50304")
)
bank.wrong_edit(
    "wrong-default", "2048 positions", ("n_positions: int = 1024", "n_positions: int = 2048")
)
bank.wrong_edit(
    "wrong-default",
    "epsilon",
    ("layer_norm_epsilon: float = 1e-5", "layer_norm_epsilon: float = 1e-6"),
)
bank.wrong_edit(
    "wrong-default", "no dropout", ("embd_pdrop: float = 0.1", "embd_pdrop: float = 0.0")
)
bank.wrong_edit(
    "wrong-signature",
    "layers before width",
    (
        "    n_embd: int = 768\n    n_layer: int = 12\n",
        "    n_layer: int = 12\n    n_embd: int = 768\n",
    ),
)
bank.wrong_edit(
    "missing-attribute",
    "dropout under another name",
    ("resid_pdrop: float", "dropout: float"),
    (RATES, RATES.replace("resid_pdrop", "dropout")),
)
plain(
    "argument-ignored", "n_layer from n_head", ("self.n_layer = n_layer", "self.n_layer = n_head")
)
plain(
    "argument-ignored",
    "one dropout for all",
    ("self.attn_pdrop = attn_pdrop", "self.attn_pdrop = resid_pdrop"),
)
plain(
    "shared-attributes",
    "values on the class",
    ("self.n_layer = n_layer", "GPT2Config.n_layer = n_layer"),
)
bank.wrong_edit(
    "derived-argument",
    "n_inner is a field",
    (
        "layer_norm_epsilon: float = 1e-5\n",
        "layer_norm_epsilon: float = 1e-5\n    n_inner: int = 3072\n",
    ),
    ("    @property\n    def n_inner(self)", "    def _unused(self)"),
)
# checks
bank.wrong_edit(
    "size-not-checked", "n_layer is forgotten", (SIZES, SIZES.replace('"n_layer", ', ""))
)
bank.wrong_edit(
    "size-not-checked", "vocab_size is forgotten", (SIZES, SIZES.replace('"vocab_size", ', ""))
)
bank.wrong_edit("size-not-checked", "only the type", (SIZE, "if not isinstance(value, int):"))
bank.wrong_edit("zero-accepted", "zero", (SIZE, SIZE.replace("< 1", "< 0")))
bank.wrong_edit(
    "float-accepted",
    "any number",
    (SIZE, "if isinstance(value, float) and not value.is_integer() or not value or value < 1:"),
)
bank.wrong_edit("float-accepted", "no type", (SIZE, "if value < 1:"))
bank.wrong_edit(
    "wrong-error-type",
    "int(value) hides nothing",
    (SIZE, "if value != int(value) or isinstance(value, float) or value < 1:"),
)
bank.wrong_edit(
    "wrong-error-type", "TypeError", (SIZE_ERROR, SIZE_ERROR.replace("ValueError", "TypeError"))
)
bank.wrong_edit(
    "assert-not-valueerror",
    "assert",
    (HEADS, "assert self.n_embd % self.n_head == 0, (self.n_embd, self.n_head)\n        if False:"),
)
bank.wrong_edit(
    "error-without-field",
    "no name",
    (SIZE_ERROR, 'raise ValueError(f"must be a positive int, got {value!r}")'),
)
bank.wrong_edit(
    "error-without-value",
    "no value",
    (SIZE_ERROR, 'raise ValueError(f"{name} must be a positive int")'),
)
bank.wrong_edit(
    "probability-not-checked",
    "attn_pdrop is forgotten",
    (RATES, RATES.replace(', "attn_pdrop"', "")),
)
bank.wrong_edit("probability-not-checked", "only below 0", (RATE, "if not value >= 0:"))
bank.wrong_edit("valid-refused", "1.0 is refused", (RATE, RATE.replace("<= 1", "< 1")))
bank.wrong_edit("valid-refused", "0.0 is refused", (RATE, RATE.replace("0 <=", "0 <")))
bank.wrong_edit(
    "error-without-value",
    "rate's value",
    (RATE_ERROR, 'raise ValueError(f"{name} must be in [0, 1]")'),
)
bank.wrong_edit("epsilon-zero-accepted", "epsilon 0", (EPSILON, "if self.layer_norm_epsilon < 0:"))
bank.wrong_edit("epsilon-not-checked", "epsilon", (EPSILON, "if False:"))
bank.wrong_edit(
    "error-without-field",
    "eps",
    (EPSILON_ERROR, 'f"eps must be > 0, got {self.layer_norm_epsilon}"'),
)
bank.wrong_edit("heads-not-checked", "heads", (HEADS, "if False:"))
bank.wrong_edit(
    "heads-check-swapped", "heads the wrong way", (HEADS, "if self.n_head % self.n_embd != 0:")
)
bank.wrong_edit(
    "error-without-value",
    "heads' message",
    (HEADS_ERROR, 'raise ValueError("n_embd must be divisible by n_head")'),
)
# derived numbers
bank.wrong_edit("n-inner-hard-coded", "3072", (N_INNER, "return 3072"))
bank.wrong_edit("n-inner-of-heads", "4 · n_head", (N_INNER, "return 4 * self.n_head"))
bank.wrong_edit("n-inner-factor", "2 · n_embd", (N_INNER, "return 2 * self.n_embd"))
bank.wrong_edit("float-division", "/", (HEAD_DIM, "return self.n_embd / self.n_head"))
bank.wrong_edit(
    "head-dim-swapped", "n_head // n_embd", (HEAD_DIM, "return self.n_head // self.n_embd")
)
bank.wrong_edit(
    "head-dim-of-layers", "by n_layer", (HEAD_DIM, "return self.n_embd // self.n_layer")
)
bank.wrong_edit("head-dim-hard-coded", "64", (HEAD_DIM, "return 64"))
bank.wrong_edit(
    "derived-method", "no @property", ("    @property\n    def head_dim", "    def head_dim")
)
# presets
bank.wrong_edit(
    "preset-heads-layers-swapped",
    "medium",
    (MEDIUM, "return cls(n_embd=1024, n_layer=16, n_head=24)"),
)
bank.wrong_edit(
    "preset-heads-layers-swapped",
    "large",
    (LARGE, "return cls(n_embd=1280, n_layer=20, n_head=36)"),
)
bank.wrong_edit("preset-of-another-size", "large is medium", (LARGE, MEDIUM))
bank.wrong_edit(
    "preset-numbers", "xl with 24 heads", (XL, "return cls(n_embd=1536, n_layer=48, n_head=24)")
)
bank.wrong_edit(
    "preset-numbers", "xl with 2048 positions", (XL, XL.replace("25)", "25, n_positions=2048)"))
)
bank.wrong_edit(
    "preset-not-classmethod",
    "instance methods",
    ("    @classmethod\n    def gpt2_small(cls)", "    def gpt2_small(self)"),
    ("return cls()", "return GPT2Config()"),
)
bank.wrong_edit(
    "preset-not-classmethod",
    "a static method",
    ("    @classmethod\n    def gpt2_xl(cls)", "    @staticmethod\n    def gpt2_xl()"),
    (XL, XL.replace("cls", "GPT2Config")),
)
bank.wrong_edit("preset-not-config", "a dict", (LARGE, LARGE.replace("cls(", "dict(")))
bank.wrong_edit("no-return", "no return", (XL, XL.replace("return ", "")))
# equality and repr
plain("no-equality", "identity", (EQ, ""))
plain(
    "equality-ignores-a-field",
    "by width alone",
    (EQ, EQ.replace("self.__dict__ == other.__dict__", "self.n_embd == other.n_embd")),
)
plain("no-repr", "object at 0x…", (REPR, ""))
plain("no-repr", "the name alone", (REPR, REPR.split("return")[0] + 'return "GPT2Config()"\n'))
bank.wrong_edit("no-equality", "@dataclass(eq=False)", ("@dataclass\n", "@dataclass(eq=False)\n"))
bank.wrong_edit("no-repr", "@dataclass(repr=False)", ("@dataclass\n", "@dataclass(repr=False)\n"))

bank.right_file("a plain class", PLAIN)
bank.right_file(
    "a frozen dataclass, the derived numbers as fields without init",
    """
    from dataclasses import dataclass, field, fields

    @dataclass(frozen=True)
    class GPT2Config:
        vocab_size: int = 50257
        n_positions: int = 1024
        n_embd: int = 768
        n_layer: int = 12
        n_head: int = 12
        resid_pdrop: float = 0.1
        embd_pdrop: float = 0.1
        attn_pdrop: float = 0.1
        layer_norm_epsilon: float = 1e-5
        n_inner: int = field(init=False)
        head_dim: int = field(init=False)

        def __post_init__(self):
            for f in fields(self)[:9]:
                value = getattr(self, f.name)
                if f.name.endswith("_pdrop"):
                    ok = 0.0 <= value <= 1.0
                elif f.name == "layer_norm_epsilon":
                    ok = value > 0
                else:
                    ok = type(value) is int and value >= 1
                if not ok:
                    raise ValueError("bad value for %s: %r" % (f.name, value))
            heads, rest = divmod(self.n_embd, self.n_head)
            if rest:
                raise ValueError("n_embd=%d is not a multiple of n_head=%d" % (self.n_embd, self.n_head))
            object.__setattr__(self, "n_inner", 4 * self.n_embd)
            object.__setattr__(self, "head_dim", heads)

        @classmethod
        def gpt2_small(cls):
            return cls(50257, 1024, 768, 12, 12)

        @classmethod
        def gpt2_medium(cls):
            return cls(50257, 1024, 1024, 24, 16)

        @classmethod
        def gpt2_large(cls):
            return cls(50257, 1024, 1280, 36, 20)

        @classmethod
        def gpt2_xl(cls):
            return cls(50257, 1024, 1600, 48, 25)
    """,
)
bank.right_file(
    "asserts converted, a table of presets, keywords collected, slots",
    """
    SIZES = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
    RATES = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
    TABLE = {"medium": (1024, 24, 16), "large": (1280, 36, 20), "xl": (1600, 48, 25)}

    class GPT2Config:
        __slots__ = (*SIZES, *RATES, "layer_norm_epsilon")

        def __init__(self, vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12,
                     resid_pdrop=0.1, embd_pdrop=0.1, attn_pdrop=0.1, layer_norm_epsilon=0.00001):
            given = locals()
            for name in self.__slots__:
                setattr(self, name, given[name])
            try:
                self._check()
            except AssertionError as error:
                raise ValueError(*error.args) from None

        def _check(self):
            for name in SIZES:
                value = getattr(self, name)
                whole = isinstance(value, int) and value is not True and value is not False
                assert whole and value > 0, f"{name}: {value}"
            for name in RATES:
                assert max(0, min(1, getattr(self, name))) == getattr(self, name), (
                    f"{name}: {getattr(self, name)}"
                )
            assert self.layer_norm_epsilon > 0.0, f"layer_norm_epsilon: {self.layer_norm_epsilon}"
            assert not self.n_embd % self.n_head, f"n_embd: {self.n_embd}, n_head: {self.n_head}"

        def _values(self):
            return tuple(getattr(self, name) for name in self.__slots__)

        def __eq__(self, other):
            if not isinstance(other, type(self)):
                return NotImplemented
            return self._values() == other._values()

        def __hash__(self):
            return hash(self._values())

        def __repr__(self):
            return f"<GPT2Config {dict(zip(self.__slots__, self._values()))}>"

        n_inner = property(lambda self: self.n_embd * 4)
        head_dim = property(lambda self: self.n_embd // self.n_head)

        @classmethod
        def _preset(cls, name):
            n_embd, n_layer, n_head = TABLE[name]
            return cls(n_embd=n_embd, n_layer=n_layer, n_head=n_head)

        @classmethod
        def gpt2_small(cls):
            return cls()

        @classmethod
        def gpt2_medium(cls):
            return cls._preset("medium")

        @classmethod
        def gpt2_large(cls):
            return cls._preset("large")

        @classmethod
        def gpt2_xl(cls):
            return cls._preset("xl")
    """,
)
bank.right_file(
    "a named tuple underneath",
    """
    from collections import namedtuple

    Base = namedtuple(
        "Base",
        "vocab_size n_positions n_embd n_layer n_head resid_pdrop embd_pdrop attn_pdrop "
        "layer_norm_epsilon",
        defaults=(50257, 1024, 768, 12, 12, 0.1, 0.1, 0.1, 1e-5),
    )

    class GPT2Config(Base):
        def __new__(cls, *args, **kwargs):
            self = super().__new__(cls, *args, **kwargs)
            for name, value in zip(self._fields, self):
                if name.startswith("n_") or name == "vocab_size":
                    if type(value) != int or value < 1:
                        raise ValueError(f"{name} = {value}: a positive int is needed")
                elif "pdrop" in name and not 0 <= value <= 1:
                    raise ValueError(f"{name} = {value}: not between 0 and 1")
                elif "epsilon" in name and value <= 0:
                    raise ValueError(f"{name} = {value}: not above 0")
            if self.n_embd % self.n_head > 0:
                raise ValueError(f"n_embd = {self.n_embd}, n_head = {self.n_head}: not divisible")
            return self

        @property
        def n_inner(self):
            return 4 * self.n_embd

        @property
        def head_dim(self):
            return self.n_embd // self.n_head

        gpt2_small = classmethod(lambda cls: cls())
        gpt2_medium = classmethod(lambda cls: cls(n_embd=1024, n_layer=24, n_head=16))
        gpt2_large = classmethod(lambda cls: cls(n_embd=1280, n_layer=36, n_head=20))
        gpt2_xl = classmethod(lambda cls: cls(n_embd=1600, n_layer=48, n_head=25))
    """,
)

# the contract says neither that True is not a size nor that NaN is not a probability
bank.right_edit("True is an int", (SIZE, SIZE.replace(" or isinstance(value, bool)", "")))
bank.right_edit("NaN compares as false", (RATE, "if value < 0 or value > 1:"))

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

bank.wrong_edit(
    "derived-stale",
    "n_inner kept in __post_init__, and n_embd changed afterwards",
    ("    @property\n    def n_inner(self)", "    def _n_inner(self)"),
    (HEADS, "self.n_inner = 4 * self.n_embd\n        " + HEADS),
    (
        MEDIUM,
        "c = cls()\n        c.n_embd, c.n_layer, c.n_head = 1024, 24, 16\n        return c",
    ),
)
bank.wrong_edit(
    "preset-shared",
    "one object for all calls",
    (MEDIUM, f"cls.made = getattr(cls, 'made', None) or {MEDIUM[7:]}\n        return cls.made"),
)
bank.wrong_edit(
    "used-before-checked",
    "compared before its type is asked",
    (SIZE, "if value < 1 or not isinstance(value, int):"),
)
bank.wrong_edit(
    "argument-without-default",
    "no default for the vocabulary",
    ("vocab_size: int = 50257", "vocab_size: int"),
)
bank.wrong_edit("no-init", "@dataclass forgotten", ("@dataclass\n", ""))

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "derived-method",
    "no @property on both",
    ("    @property\n    def n_inner", "    def n_inner"),
    ("    @property\n    def head_dim", "    def head_dim"),
)
bank.wrong_edit(
    "derived-method",
    "no @property on n_inner",
    ("    @property\n    def n_inner", "    def n_inner"),
)
bank.wrong_edit(
    "heads-not-checked",
    "the check's result is thrown away",
    (HEADS, "self.n_embd % self.n_head == 0\n        if False:"),
)
bank.wrong_edit(
    "preset-numbers",
    "medium's layers and heads of large",
    (MEDIUM, "return cls(n_embd=1024, n_layer=36, n_head=16)"),
)
bank.wrong_edit("preset-of-another-size", "xl calls large", (XL, "return cls.gpt2_large()"))
bank.wrong_edit("n-inner-factor", "3 · n_embd", (N_INNER, "return 3 * self.n_embd"))
bank.wrong_edit("float-division", "n_inner by a float", (N_INNER, "return 4.0 * self.n_embd"))
bank.wrong_edit(
    "probability-not-checked",
    "rates unchecked, epsilon too",
    (RATE, "if False:"),
    (EPSILON, "if False:"),
    also="epsilon-not-checked",
)
bank.wrong_edit(
    "valid-refused",
    "sizes must be even",
    (SIZE, SIZE.replace("value < 1", "value < 1 or value % 2 and value > 1")),
)
bank.wrong_edit(
    "wrong-vocab-size",
    "other vocabulary for xl",
    (XL, "return cls(vocab_size=50304, n_embd=1600, n_layer=48, n_head=25)"),
)
