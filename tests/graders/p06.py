"""Problem 06: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(6)

GELU = 'return F.gelu(x, approximate="tanh")'
FC = "self.c_fc = nn.Linear(n_embd, n_inner)"
ACT = "self.act = NewGELU()"
PROJ = "self.c_proj = nn.Linear(n_inner, n_embd)"
DROP = "self.drop = nn.Dropout(dropout)"
RETURN = "return self.drop(self.c_proj(self.act(self.c_fc(x))))"

# the formula written out, one piece per name
FORMULA = """
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NewGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        half = 0.5 * x
        cube = 0.044715 * torch.pow(x, 3.0)
        inner = math.sqrt(2.0 / math.pi) * (x + cube)
        return half * (1.0 + torch.tanh(inner))


class FeedForward(nn.Module):
    def __init__(self, n_embd: int, n_inner: int, dropout: float = 0.1):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, n_inner)
        self.act = NewGELU()
        self.c_proj = nn.Linear(n_inner, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c_fc(x)
        x = self.act(x)
        x = self.c_proj(x)
        x = self.drop(x)
        return x
"""


def formula(mistake: str, title: str, old: str, new: str) -> None:
    """A wrong answer: one edit of the formula written out."""
    bank.wrong_edit(mistake, title, (old, new), base=FORMULA)


# ── another activation
bank.wrong_edit("gelu-erf", "F.gelu's default", (GELU, "return F.gelu(x)"))
bank.wrong_edit("gelu-sigmoid", "x·σ(1.702x)", (GELU, "return x * (1.702 * x).sigmoid()"))
bank.wrong_edit("not-gelu", "ReLU", (GELU, "return F.relu(x)"))
bank.wrong_edit("silu", "SiLU", (GELU, "return F.silu(x)"))
bank.wrong_edit("no-activation", "nothing", (GELU, "return x"))

# ── the formula
formula("gelu-cubic-constant", "0.44715", "0.044715", "0.44715")
formula("gelu-cubic-constant", "0.0447", "0.044715", "0.0447")
formula("gelu-cubic-constant", "0.03, which no table holds", "0.044715", "0.03")
formula("gelu-cubic-missing", "no cubic term", "(x + cube)", "x")
formula("gelu-cubic-sign", "minus", "(x + cube)", "(x - cube)")
formula("gelu-power", "x²", "3.0", "2.0")
formula("gelu-inner-constant", "√2/π", "math.sqrt(2.0 / math.pi)", "math.sqrt(2.0) / math.pi")
formula("gelu-inner-constant", "√(π/2)", "2.0 / math.pi", "math.pi / 2.0")
formula("gelu-inner-constant", "2/π", "math.sqrt(2.0 / math.pi)", "(2.0 / math.pi)")
formula("gelu-inner-constant", "no √(2/π)", "math.sqrt(2.0 / math.pi) * ", "")
formula("gelu-inner-constant", "0.8", "math.sqrt(2.0 / math.pi)", "0.8")
formula("gelu-half-missing", "no 0.5", "0.5 * x", "x")
formula("gelu-outer-x-missing", "no x in front", "0.5 * x", "0.5")
formula("gelu-one-missing", "no 1 +", "(1.0 + torch.tanh(inner))", "torch.tanh(inner)")
formula("gelu-inner-x-missing", "no x inside", "(x + cube)", "cube")
formula("gelu-tanh-missing", "no tanh", "torch.tanh(inner)", "inner")
formula("gelu-erf-for-tanh", "sigmoid for tanh", "torch.tanh", "torch.sigmoid")
formula("gelu-erf-for-tanh", "erf for tanh", "torch.tanh", "torch.erf")
formula("gelu-brackets", "bracket", "* (x + cube)", "* x + cube")
formula("gelu-brackets", "the 1 inside", "(1.0 + torch.tanh(inner))", "torch.tanh(1.0 + inner)")
formula(
    "gelu-not-finite",
    "tanh by exponentials",
    "torch.tanh(inner)",
    "((inner.exp() - (-inner).exp()) / (inner.exp() + (-inner).exp()))",
)
formula("fixed-dtype", "float32 inside", "half = 0.5 * x", "x = x.float()\n        half = 0.5 * x")
formula(
    "edits-input", "in place", "half = 0.5 * x", "half = 0.5 * x.clone()\n        x.pow_(1).mul_(0)"
)
formula("wrong-gradient", "detached", "torch.tanh(inner))", "torch.tanh(inner).detach()).detach()")
formula("no-return", "no return", "return half *", "y = half *")

# ── the layers
bank.wrong_edit("n-inner-ignored", "4 * n_embd", (FC, "n_inner = 4 * n_embd\n        " + FC))
bank.wrong_edit(
    "widths-swapped",
    "up and down swapped",
    (FC, "self.c_fc = nn.Linear(n_inner, n_embd)"),
    (PROJ, "self.c_proj = nn.Linear(n_embd, n_inner)"),
)
bank.wrong_edit(
    "bias-missing", "bias=False", (FC, "self.c_fc = nn.Linear(n_embd, n_inner, bias=False)")
)
bank.wrong_edit("layer-shape", "no widening", (FC, "self.c_fc = nn.Linear(n_embd, n_embd)"))
bank.wrong_edit("wrong-attribute-type", "nn.GELU for act", (ACT, "self.act = nn.GELU()"))
bank.wrong_edit("wrong-attribute-type", "the class for an instance", (ACT, "self.act = NewGELU"))
bank.wrong_edit(
    "missing-attribute",
    "other names",
    (FC, FC.replace("c_fc", "fc1")),
    (RETURN, RETURN.replace("c_fc", "fc1")),
)
bank.wrong_edit("dropout-rate", "p always 0.1", (DROP, "self.drop = nn.Dropout()"))
bank.wrong_edit("wrong-default", "dropout=0.0", ("dropout: float = 0.1", "dropout: float = 0.0"))
bank.wrong_edit(
    "layer-norm-added",
    "a layer norm",
    (DROP, DROP + "\n        self.ln = nn.LayerNorm(n_embd)"),
    (RETURN, RETURN.replace("(x)", "(self.ln(x))")),
)

# ── their order
bank.wrong_edit(
    "no-activation", "act forgotten", (RETURN, "return self.drop(self.c_proj(self.c_fc(x)))")
)
bank.wrong_edit(
    "activation-after-projection",
    "act last",
    (RETURN, "return self.drop(self.act(self.c_proj(self.c_fc(x))))"),
)
bank.wrong_edit(
    "activation-twice",
    "act twice",
    (RETURN, "return self.drop(self.act(self.c_proj(self.act(self.c_fc(x)))))"),
)
bank.wrong_edit(
    "activation-on-input",
    "act first",
    (RETURN, "return self.drop(self.c_proj(self.c_fc(self.act(x))))"),
)
bank.wrong_edit("not-gelu", "relu in forward", (RETURN, RETURN.replace("self.act(", "F.relu(")))
bank.wrong_edit("gelu-erf", "F.gelu in forward", (RETURN, RETURN.replace("self.act(", "F.gelu(")))
bank.wrong_edit("residual-added", "plus x", (RETURN, RETURN.replace("return", "return x +")))
bank.wrong_edit(
    "projection-missing", "no c_proj", (RETURN, "return self.drop(self.act(self.c_fc(x)))")
)
bank.wrong_edit(
    "layers-in-wrong-order",
    "c_proj first",
    (RETURN, "return self.drop(self.c_fc(self.act(self.c_proj(x))))"),
)
bank.wrong_edit(
    "dropout-missing", "no dropout", (RETURN, "return self.c_proj(self.act(self.c_fc(x)))")
)
bank.wrong_edit(
    "dropout-between",
    "dropout before c_proj",
    (RETURN, "return self.c_proj(self.drop(self.act(self.c_fc(x))))"),
)
bank.wrong_edit(
    "dropout-misplaced",
    "dropout twice",
    (RETURN, "return self.drop(self.c_proj(self.drop(self.act(self.c_fc(x)))))"),
)
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout without training=",
    (RETURN, "return F.dropout(self.c_proj(self.act(self.c_fc(x))), self.drop.p)"),
)
bank.wrong_edit(
    "mixes-tokens",
    "the mean over tokens",
    (RETURN, RETURN.replace("(x)", "(x.mean(1, keepdim=True).expand_as(x))")),
)

bank.right_edit("the formula written out", base=FORMULA)
bank.right_file(
    "subclasses of PyTorch's own, a Sequential's manner",
    """
    import torch.nn as nn

    class NewGELU(nn.GELU):
        def __init__(self):
            super().__init__(approximate="tanh")

    class FeedForward(nn.Sequential):
        def __init__(self, n_embd, n_inner, dropout=0.1):
            super().__init__()
            self.c_fc = nn.Linear(n_embd, n_inner)
            self.act = NewGELU()
            self.c_proj = nn.Linear(n_inner, n_embd)
            self.drop = nn.Dropout(dropout)
    """,
)
bank.right_file(
    "x·σ(2u), which is the same as the tanh form; functional layers",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class NewGELU(nn.Module):
        def forward(self, x):
            u = 0.7978845608028654 * x * (1 + 0.044715 * x * x)
            return x * torch.sigmoid(2 * u)

    class FeedForward(nn.Module):
        def __init__(self, n_embd, n_inner, dropout=0.1):
            super().__init__()
            self.n_embd, self.n_inner, self.p = n_embd, n_inner, dropout
            self.c_proj = nn.Linear(n_inner, n_embd)
            self.c_fc = nn.Linear(n_embd, n_inner)
            self.act, self.drop = NewGELU(), nn.Dropout(p=dropout)

        def forward(self, x):
            h = self.act(torch.matmul(x, self.c_fc.weight.t()) + self.c_fc.bias)
            y = F.linear(h, self.c_proj.weight, self.c_proj.bias)
            return F.dropout(y, p=self.p, training=self.training)
    """,
)
bank.right_file(
    "in float32 and back, constants as tensors, steps in place on tensors of its own",
    """
    import math
    import torch
    from torch import Tensor, nn

    class NewGELU(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("k", torch.tensor(math.sqrt(2 / math.pi)), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            wide = x.float()
            y = wide.pow(3).mul_(0.044715).add_(wide)
            y = torch.tanh(self.k.float() * y).add(1)
            return (0.5 * wide * y).to(x.dtype)

    class FeedForward(nn.Module):
        def __init__(self, n_embd: int, n_inner: int, dropout: float = 0.1, bias: bool = True):
            super().__init__()
            self.c_fc = nn.Linear(n_embd, n_inner, bias=bias)
            self.c_proj = nn.Linear(n_inner, n_embd, bias=bias)
            self.act = NewGELU()
            self.drop = nn.Dropout(dropout)

        def forward(self, x: Tensor) -> Tensor:
            for step in (self.c_fc, self.act, self.c_proj, self.drop):
                x = step(x)
            return x
    """,
)
bank.right_file(
    "a function behind the module",
    """
    import math
    import torch
    from torch import nn

    def new_gelu(x):
        return x / 2 * (torch.tanh((2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x)) + 1)

    class NewGELU(nn.Module):
        def forward(self, input):
            return new_gelu(input)

    class FeedForward(nn.Module):
        def __init__(self, n_embd, n_inner, dropout=0.1):
            super().__init__()
            self.c_fc, self.c_proj = nn.Linear(n_embd, n_inner), nn.Linear(n_inner, n_embd)
            self.act = NewGELU()
            self.drop = nn.Dropout(dropout)

        def forward(self, hidden_states):
            return self.drop(self.c_proj(new_gelu(self.c_fc(hidden_states))))
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

PLAIN = """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class NewGELU(nn.Module):
        def forward(self, x):
            inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))
            return 0.5 * x * (1.0 + torch.tanh(inner))

    class FeedForward(nn.Module):
        def __init__(self, n_embd, n_inner, dropout=0.1):
            super().__init__()
            self.c_fc = nn.Linear(n_embd, n_inner)
            self.act = NewGELU()
            self.c_proj = nn.Linear(n_inner, n_embd)
            self.drop = nn.Dropout(dropout)

        def forward(self, x):
            x = self.c_fc(x)
            x = self.act(x)
            x = self.c_proj(x)
            return self.drop(x)
"""
bank.wrong_edit(
    "gelu-brackets",
    "x + tanh for x · (1 + tanh)",
    ("return 0.5 * x * (1.0 + torch.tanh(inner))", "return 0.5 * (x + torch.tanh(inner))"),
    base=PLAIN,
)
bank.wrong_edit(
    "mixes-tokens",
    "the mean over tokens is taken off",
    ("x = self.c_fc(x)", "x = self.c_fc(x - x.mean(1, keepdim=True))"),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in __init__",
    ("        self.c_fc = nn", "        torch.manual_seed(3)\n        self.c_fc = nn"),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in forward",
    ("return self.drop(x)", "torch.manual_seed(0)\n        return self.drop(x)"),
    base=PLAIN,
)
bank.wrong_edit(
    "gelu-erf",
    "the erf form in training alone",
    (
        "inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3))\n        return 0.5 * x * (1.0 + torch.tanh(inner))",
        "return F.gelu(x, approximate='none' if self.training else 'tanh')",
    ),
    base=PLAIN,
)
bank.wrong_edit("gelu-inner-constant", "pi = 3.14", ("math.pi", "3.14"), base=PLAIN)
bank.wrong_edit(
    "no-gradient",
    "detached between the layers",
    ("x = self.c_proj(x)", "x = self.c_proj(x.detach())"),
    base=PLAIN,
)
bank.wrong_edit(
    "mode-changed",
    "forward switches to eval mode",
    ("return self.drop(x)", "self.eval()\n        return self.drop(x)"),
    base=PLAIN,
)
bank.right_edit(
    "token by token",
    (
        "x = self.c_fc(x)\n        x = self.act(x)\n        x = self.c_proj(x)\n        return self.drop(x)",
        "rows = [self.c_proj(self.act(self.c_fc(t))) for t in x.split(1, dim=-2)]\n        return self.drop(torch.cat(rows, dim=-2))",
    ),
    base=PLAIN,
)
bank.right_edit(
    "a Sequential made in forward",
    (
        "x = self.c_fc(x)\n        x = self.act(x)\n        x = self.c_proj(x)\n        return self.drop(x)",
        "return nn.Sequential(self.c_fc, self.act, self.c_proj, self.drop)(x)",
    ),
    base=PLAIN,
)

# ── mistakes as public code has them, in other styles, and two at once
BY_HAND = """
import math

import torch
from torch import nn


class NewGELU(nn.Module):
    def forward(self, x):
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class FeedForward(nn.Module):
    def __init__(self, n_embd, n_inner, dropout=0.1):
        super().__init__()
        self.c_fc = nn.Linear(n_embd, n_inner)
        self.act = NewGELU()
        self.c_proj = nn.Linear(n_inner, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        x = self.c_fc(x)
        x = self.act(x)
        x = self.c_proj(x)
        return self.drop(x)
"""


def by_hand(mistake, title, *edits, also=""):
    bank.wrong_edit(mistake, title, *edits, base=BY_HAND, also=also)


CUBE = "0.044715 * torch.pow(x, 3.0)"
by_hand(
    "number-for-a-tensor",
    "torch.sqrt of a number",
    ("math.sqrt(2.0 / math.pi)", "torch.sqrt(2.0 / math.pi)"),
)
by_hand("gelu-power", "x cubed written as 3 ** x", (CUBE, "0.044715 * 3.0**x"))
by_hand("gelu-power", "x⁴", (CUBE, "0.044715 * torch.pow(x, 4.0)"))
by_hand("gelu-cubic-constant", "0.04715, a digit lost", ("0.044715", "0.04715"))
by_hand("gelu-inner-constant", "√(1/π)", ("math.sqrt(2.0 / math.pi)", "math.sqrt(1.0 / math.pi)"))
by_hand(
    "gelu-half-missing",
    "0.5 missing, and the constant 0.44715",
    ("0.5 * x", "x"),
    ("0.044715", "0.44715"),
    also="gelu-cubic-constant",
)
by_hand(
    "gelu-brackets",
    "1 + tanh(…) without its brackets",
    ("(1.0 + torch.tanh(", "1.0 + (torch.tanh("),
)
by_hand(
    "dropout-between",
    "dropout before c_proj",
    ("x = self.act(x)", "x = self.drop(self.act(x))"),
    ("return self.drop(x)", "return x"),
)
by_hand(
    "edits-input",
    "the activation in place on x",
    ("x = self.c_fc(x)", "x *= 1.5\n        x = self.c_fc(x / 1.5)"),
)
by_hand(
    "no-activation",
    "act called and its result dropped",
    ("x = self.act(x)", "self.act(x)"),
)
by_hand(
    "residual-added",
    "a residual inside",
    ("return self.drop(x)", "return self.drop(x) + y"),
    ("x = self.c_fc(x)", "y = x\n        x = self.c_fc(x)"),
)
by_hand(
    "gelu-erf",
    "the erf by hand",
    (
        "0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))",
        "0.5 * x * (1.0 + torch.erf(x / math.sqrt(2.0)))",
    ),
)
