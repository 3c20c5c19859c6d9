"""Problem 07: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(7)

NORM = "return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)"
WEIGHT = "self.weight = nn.Parameter(torch.ones(n_embd))"
BIAS = "self.bias = nn.Parameter(torch.zeros(n_embd))"
EPS = "self.eps = eps"
LN = "self.ln = LayerNorm(n_embd, layer_norm_epsilon)"
SUM = "return x + sublayer(self.ln(x))"

# the same norm, one step a line, to be spoilt
BY_HAND = """
import torch
from torch import nn


class LayerNorm(nn.Module):
    def __init__(self, n_embd, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        y = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight * y + self.bias


class ResidualBlock(nn.Module):
    def __init__(self, n_embd, layer_norm_epsilon=1e-5):
        super().__init__()
        self.ln = LayerNorm(n_embd, layer_norm_epsilon)

    def forward(self, x, sublayer):
        return x + sublayer(self.ln(x))
"""
MEAN = "mean = x.mean(dim=-1, keepdim=True)"
VAR = "var = x.var(dim=-1, keepdim=True, unbiased=False)"
Y = "y = (x - mean) / torch.sqrt(var + self.eps)"
AFFINE = "return self.weight * y + self.bias"


def by_hand(mistake: str, title: str, *edits: tuple[str, str]) -> None:
    bank.wrong_edit(mistake, title, *edits, base=BY_HAND)


# parameters
bank.wrong_edit("wrong-start", "weight starts at 0", (WEIGHT, WEIGHT.replace("ones", "zeros")))
bank.wrong_edit("wrong-start", "bias starts at 1", (BIAS, BIAS.replace("zeros", "ones")))
bank.wrong_edit("wrong-start", "weight starts random", (WEIGHT, WEIGHT.replace("ones", "randn")))
bank.wrong_edit(
    "not-a-parameter",
    "weight is a plain tensor",
    (WEIGHT, "self.weight = torch.ones(n_embd)"),
)
bank.wrong_edit(
    "not-a-parameter",
    "bias is a buffer",
    (BIAS, 'self.register_buffer("bias", torch.zeros(n_embd))'),
)
bank.wrong_edit(
    "frozen-parameter",
    "the weight can't be trained",
    (WEIGHT, "self.weight = nn.Parameter(torch.ones(n_embd), requires_grad=False)"),
)
bank.wrong_edit(
    "parameter-shape", "one weight for all features", (WEIGHT, WEIGHT.replace("n_embd", "1"))
)
bank.wrong_edit("parameter-shape", "weight (1, C)", (WEIGHT, WEIGHT.replace("n_embd", "1, n_embd")))
bank.wrong_edit("hard-coded-size", "768 in the code", (WEIGHT, WEIGHT.replace("n_embd", "768")))
by_hand(
    "missing-attribute",
    "the paper's names gamma and beta",
    (WEIGHT, WEIGHT.replace("weight", "gamma")),
    (BIAS, BIAS.replace("bias", "beta")),
    (AFFINE, "return self.gamma * y + self.beta"),
)
by_hand(
    "missing-attribute",
    "eps under another name",
    (EPS, "self.epsilon = eps"),
    (Y, Y.replace("self.eps", "self.epsilon")),
)
bank.wrong_edit(
    "extra-state", "eps is a buffer", (EPS, 'self.register_buffer("eps", torch.tensor(eps))')
)
bank.wrong_edit(
    "running-statistics",
    "a running mean, never used",
    (EPS, EPS + '\n        self.register_buffer("running_mean", torch.zeros(n_embd))'),
)
bank.wrong_edit("eps-ignored", "eps attribute fixed", (EPS, "self.eps = 1e-5"))
bank.wrong_edit(
    "wrong-default",
    "Keras' default of eps",
    ("def __init__(self, n_embd: int, eps: float = 1e-5)", "def __init__(self, n_embd, eps=1e-3)"),
)
# the norm
by_hand("unbiased-variance", "x.var with its default", (VAR, VAR.replace(", unbiased=False", "")))
by_hand(
    "eps-outside-root", "eps added to the root", (Y, "y = (x - mean) / (var.sqrt() + self.eps)")
)
by_hand(
    "unbiased-variance",
    "x.std(-1) + eps, as in many tutorials",
    (VAR, "std = x.std(-1, keepdim=True)"),
    (Y, "y = (x - mean) / (std + self.eps)"),
)
by_hand("eps-missing", "no eps", (Y, "y = (x - mean) / torch.sqrt(var)"))
by_hand("eps-ignored", "eps fixed in the formula", (Y, Y.replace("self.eps", "1e-5")))
by_hand("eps-wrong", "1e-12 in the formula", (Y, Y.replace("self.eps", "1e-12")))
by_hand("eps-squared", "eps squared", (Y, Y.replace("self.eps", "self.eps ** 2")))
bank.wrong_edit(
    "eps-ignored",
    "eps not handed on to F.layer_norm",
    (NORM, NORM.replace(", self.eps", "")),
)
by_hand("divides-by-variance", "no root", (Y, "y = (x - mean) / (var + self.eps)"))
by_hand("multiplies-by-std", "times the root", (Y, Y.replace("/", "*")))
by_hand("std-missing", "only centered", (Y, "y = x - mean"))
by_hand("mean-not-subtracted", "not centered", (Y, Y.replace("(x - mean)", "x")))
by_hand(
    "rms-norm",
    "RMSNorm",
    (VAR, "var = x.pow(2).mean(-1, keepdim=True)"),
    (Y, Y.replace("(x - mean)", "x")),
)
by_hand("variance-not-centred", "E[x²]", (VAR, "var = x.pow(2).mean(-1, keepdim=True)"))
by_hand("variance-is-sum", "sum of squares", (VAR, "var = (x - mean).pow(2).sum(-1, keepdim=True)"))
by_hand(
    "normalised-over-tokens",
    "over the tokens",
    (MEAN, MEAN.replace("-1", "1")),
    (VAR, VAR.replace("-1", "1")),
)
by_hand(
    "normalised-over-batch",
    "over the batch",
    (MEAN, MEAN.replace("-1", "0")),
    (VAR, VAR.replace("-1", "0")),
)
by_hand(
    "normalised-over-everything",
    "over everything",
    (MEAN, "mean = x.mean()"),
    (VAR, "var = x.var(unbiased=False)"),
)
by_hand(
    "normalised-over-sequence",
    "over tokens and features",
    (MEAN, MEAN.replace("-1", "(-2, -1)")),
    (VAR, VAR.replace("-1", "(-2, -1)")),
)
by_hand(
    "axis-from-the-left",
    "dim=2",
    (MEAN, MEAN.replace("-1", "2")),
    (VAR, VAR.replace("-1", "2")),
)
by_hand("mean-over-everything", "mean over everything", (MEAN, "mean = x.mean()"))
by_hand(
    "keepdim-missing",
    "no keepdim",
    (MEAN, "mean = x.mean(-1)"),
    (VAR, "var = x.var(-1, unbiased=False)"),
)
by_hand("no-affine", "weight and bias unused", (AFFINE, "return y"))
by_hand("weight-ignored", "weight unused", (AFFINE, "return y + self.bias"))
by_hand("bias-ignored", "bias unused", (AFFINE, "return self.weight * y"))
by_hand("bias-subtracted", "bias subtracted", (AFFINE, AFFINE.replace("+", "-")))
by_hand("bias-before-weight", "bias first", (AFFINE, "return self.weight * (y + self.bias)"))
by_hand("weight-plus-one", "1 + weight", (AFFINE, "return (1 + self.weight) * y + self.bias"))
by_hand(
    "weight-before",
    "weight before the norm",
    (MEAN, "x = self.weight * x\n        " + MEAN),
    (AFFINE, "return y + self.bias"),
)
by_hand("statistics-detached", "variance detached", (VAR, VAR + ".detach()"))
by_hand(
    "statistics-detached",
    "statistics under no_grad",
    (MEAN, "with torch.no_grad():\n            " + MEAN),
    (VAR, "    " + VAR),
)
by_hand("edits-input", "x -= mean", (Y, "x -= mean\n        y = x / torch.sqrt(var + self.eps)"))
by_hand("dtype-changed", "float32 comes out", (MEAN, "x = x.float()\n        " + MEAN))
by_hand("no-return", "no return", (AFFINE, AFFINE.replace("return", "y =")))
by_hand(
    "train-differs",
    "dropout in the norm",
    (AFFINE, "return nn.functional.dropout(self.weight * y + self.bias, 0.1, self.training)"),
)
bank.wrong_file(
    "running-statistics",
    "nn.BatchNorm1d",
    """
    from torch import nn

    class LayerNorm(nn.BatchNorm1d):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__(n_embd, eps)

        def forward(self, x):
            return super().forward(x.transpose(-1, -2)).transpose(-1, -2)

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            return x + sublayer(self.ln(x))
    """,
)
bank.wrong_file(
    "group-norm",
    "nn.GroupNorm",
    """
    from torch import nn

    class LayerNorm(nn.GroupNorm):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__(1, n_embd, eps)

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            return x + sublayer(self.ln(x))
    """,
)
by_hand(
    "normalised-twice",
    "normalized twice",
    (MEAN, "x = nn.functional.layer_norm(x, x.shape[-1:], None, None, self.eps)\n        " + MEAN),
)
by_hand(
    "eps-misplaced",
    "the variance clamped at eps",
    (Y, "y = (x - mean) / torch.sqrt(var.clamp(min=self.eps))"),
)
by_hand(
    "variance-is-absolute",
    "mean distance",
    (VAR, "var = (x - mean).abs().mean(-1, keepdim=True)"),
)
by_hand("no-gradient", "x.data", (MEAN, "x = x.data\n        " + MEAN))
by_hand("axes-assumed", "three axes taken apart", (MEAN, "B, T, C = x.shape\n        " + MEAN))
# the residual
bank.wrong_edit("post-norm", "post-norm", (SUM, "return self.ln(x + sublayer(x))"))
bank.wrong_edit("norm-twice", "before and after", (SUM, "return self.ln(x + sublayer(self.ln(x)))"))
bank.wrong_edit("no-residual", "no sum", (SUM, "return sublayer(self.ln(x))"))
bank.wrong_edit("no-norm", "the sublayer reads x", (SUM, "return x + sublayer(x)"))
bank.wrong_edit(
    "residual-normalised",
    "ln(x) is added",
    (SUM, "x = self.ln(x)\n        return x + sublayer(x)"),
)
bank.wrong_edit("norm-on-branch-output", "x + ln(f(x))", (SUM, "return x + self.ln(sublayer(x))"))
bank.wrong_edit("residual-doubled", "x twice", (SUM, "return x + x + sublayer(self.ln(x))"))
bank.wrong_edit("edits-input", "x += …", (SUM, "x += sublayer(self.ln(x))\n        return x"))
bank.wrong_edit("edits-input", "x.add_(…)", (SUM, "return x.add_(sublayer(self.ln(x)))"))
bank.wrong_edit(
    "sublayer-twice",
    "called once for nothing",
    (SUM, "sublayer(self.ln(x))\n        " + SUM),
)
bank.wrong_edit("sublayer-twice", "f(f(…))", (SUM, "return x + sublayer(sublayer(self.ln(x)))"))
bank.wrong_edit("epsilon-not-passed", "epsilon not handed on", (LN, "self.ln = LayerNorm(n_embd)"))
bank.wrong_edit(
    "residual-detached", "x detached", (SUM, "return x.detach() + sublayer(self.ln(x))")
)
bank.wrong_edit("sublayer-not-called", "sublayer.forward", (SUM, SUM.replace("er(", "er.forward(")))
bank.wrong_edit("branch-subtracted", "minus", (SUM, SUM.replace("+", "-")))
bank.wrong_edit("no-sublayer", "the sublayer is forgotten", (SUM, "return x + self.ln(x)"))
bank.wrong_edit(
    "train-differs",
    "dropout on the branch",
    (SUM, "return x + F.dropout(sublayer(self.ln(x)), 0.1, self.training)"),
)
bank.wrong_edit(
    "missing-attribute",
    "the norm under another name",
    (LN, LN.replace("self.ln", "self.norm")),
    (SUM, SUM.replace("self.ln", "self.norm")),
)

bank.wrong_edit(
    "sublayer-kept",
    "the sublayer becomes an attribute",
    (SUM, "self.sublayer = sublayer\n        " + SUM),
)
bank.wrong_edit(
    "own-norm-unused",
    "a new norm at every call",
    (SUM, "ln = LayerNorm(x.size(-1)).to(x.device)\n        return x + sublayer(ln(x))"),
)

bank.right_file("by hand, var(unbiased=False)", BY_HAND)
bank.right_file(
    "a subclass of PyTorch's own that adds nothing",
    """
    from torch import nn

    class LayerNorm(nn.LayerNorm):
        pass

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            return x + sublayer(self.ln(x))
    """,
)
bank.right_file(
    "a subclass with its own __init__; torch.add; the norm made by keyword",
    """
    import torch
    from torch import nn

    class LayerNorm(nn.LayerNorm):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__([n_embd], eps=eps, elementwise_affine=True)

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd=n_embd, eps=layer_norm_epsilon)

        def forward(self, x, sublayer):
            residual = x
            x = sublayer(self.ln(x))
            return torch.add(residual, x)
    """,
)
bank.right_file(
    "einsum, mean of squares less squared mean, rsqrt, addcmul",
    """
    import torch
    from torch import nn

    class LayerNorm(nn.Module):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            self.n_embd, self.eps = n_embd, eps
            self.register_parameter("weight", nn.Parameter(torch.full((n_embd,), 1.0)))
            self.register_parameter("bias", nn.Parameter(torch.empty(n_embd)))
            nn.init.zeros_(self.bias)

        def forward(self, x):
            n = x.shape[-1]
            mean = torch.einsum("...c->...", x)[..., None] / n
            var = torch.einsum("...c,...c->...", x, x)[..., None] / n - mean.square()
            return torch.addcmul(self.bias, (x - mean) * torch.rsqrt(var + self.eps), self.weight)

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            out = sublayer(self.ln(x))
            out = out + x
            return out
    """,
)
bank.right_file(
    "in float32 and back, var_mean, own helper functions, a module inside",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    def standardize(x, eps):
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        return x.sub(mean).div((var + eps).pow(0.5))

    class LayerNorm(nn.Module):
        __constants__ = ["eps"]

        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            for name, fill in (("weight", torch.ones), ("bias", torch.zeros)):
                setattr(self, name, nn.Parameter(fill(n_embd)))
            self.eps = float(eps)

        def forward(self, x):
            y = standardize(x.float(), self.eps).to(x.dtype)
            return y * self.weight + self.bias

        def extra_repr(self):
            return f"{self.weight.numel()}, eps={self.eps}"

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, eps=layer_norm_epsilon)

        def forward(self, x, sublayer):
            return x.clone().add_(sublayer(self.ln(x)))
    """,
)

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

# ── mistakes as public code has them, in other styles, and two at once
by_hand("root-squared", "(var + eps) ** 2", (Y, "y = (x - mean) / (var + self.eps) ** 2"))
by_hand(
    "root-taken-twice",
    "sqrt(std + eps)",
    (VAR, "var = x.std(dim=-1, keepdim=True, unbiased=False)"),
)
by_hand(
    "mean-not-squared",
    "E[x²] − mean",
    (VAR, "var = (x**2).mean(dim=-1, keepdim=True) - mean"),
)
by_hand(
    "unbiased-variance",
    "the root of the variance alone, eps added to it, and unbiased",
    (VAR, "var = x.var(dim=-1, keepdim=True)"),
    (Y, "y = (x - mean) / (torch.sqrt(var) + self.eps)"),
)
by_hand(
    "eps-outside-root",
    "x.std for the variance, no root",
    (VAR, "var = x.std(dim=-1, keepdim=True, unbiased=False)"),
    (Y, "y = (x - mean) / (var + self.eps)"),
)
by_hand("mean-added", "x + mean", (Y, Y.replace("x - mean", "x + mean")))
by_hand("sign-flipped", "mean − x", (Y, Y.replace("x - mean", "mean - x")))
by_hand(
    "parameter-shape",
    "one number for all, as in an often copied tutorial",
    ("torch.ones(n_embd)", "torch.ones(1)"),
    ("torch.zeros(n_embd)", "torch.zeros(1)"),
)
by_hand(
    "no-residual",
    "the sum with the norm's own output thrown away",
    ("return x + sublayer(self.ln(x))", "x = self.ln(x)\n        return sublayer(x)"),
)
by_hand(
    "residual-normalised",
    "x overwritten by its norm",
    ("return x + sublayer(self.ln(x))", "x = self.ln(x)\n        return x + sublayer(x)"),
)
by_hand(
    "sum-scaled",
    "the mean of the two",
    ("return x + sublayer(self.ln(x))", "return (x + sublayer(self.ln(x))) / 2"),
)
by_hand(
    "concatenated",
    "side by side",
    ("return x + sublayer(self.ln(x))", "return torch.cat((x, sublayer(self.ln(x))), -1)"),
)
by_hand(
    "branch-multiplied",
    "times for plus",
    ("return x + sublayer(self.ln(x))", "return x * sublayer(self.ln(x))"),
)


PLAIN = """
    import torch
    from torch import nn

    class LayerNorm(nn.Module):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            self.eps = eps
            self.weight = nn.Parameter(torch.ones(n_embd))
            self.bias = nn.Parameter(torch.zeros(n_embd))

        def forward(self, x):
            mu = x.mean(dim=-1, keepdim=True)
            centered = x - mu
            var = centered.pow(2).mean(dim=-1, keepdim=True)
            normed = centered / torch.sqrt(var + self.eps)
            return self.weight * normed + self.bias

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            branch = sublayer(self.ln(x))
            return x + branch
"""
MEAN = "mu = x.mean(dim=-1, keepdim=True)"
bank.wrong_edit(
    "module-remembers",
    "in eval mode, the mean of the first call",
    (
        MEAN,
        "if self.training or not hasattr(self, 'mu'):\n"
        "            self.mu = x.mean(dim=-1, keepdim=True)\n"
        "        mu = self.mu",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "shared-between-modules",
    "one weight for all norms of a width",
    ("class LayerNorm", "ONES = {}\n\nclass LayerNorm"),
    (
        "nn.Parameter(torch.ones(n_embd))",
        "ONES.setdefault(n_embd, nn.Parameter(torch.ones(n_embd)))",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "float-as-size",
    "LayerNorm(eps, n_embd)",
    ("LayerNorm(n_embd, layer_norm_epsilon)", "LayerNorm(layer_norm_epsilon, n_embd)"),
    base=PLAIN,
)
bank.wrong_edit(
    "default-dtype-set",
    "double precision for the whole program",
    ("self.eps = eps", "torch.set_default_dtype(torch.float64)\n        self.eps = eps"),
    base=PLAIN,
)
bank.wrong_edit(
    "no-return",
    "the block's sum is not returned",
    ("return x + branch", "x + branch"),
    base=PLAIN,
)
bank.right_file(
    "var_mean in float32, cast back; reset_parameters",
    """
    import torch
    from torch import nn

    class LayerNorm(nn.Module):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            self.eps = float(eps)
            self.weight = nn.Parameter(torch.empty(n_embd))
            self.bias = nn.Parameter(torch.empty(n_embd))
            self.reset_parameters()

        def reset_parameters(self):
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

        def forward(self, x):
            h = x.float()
            var, mean = torch.var_mean(h, dim=-1, keepdim=True, correction=0)
            h = (h - mean) * torch.rsqrt(var + self.eps)
            return torch.addcmul(self.bias.float(), h, self.weight.float()).to(x.dtype)

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, layer_norm_epsilon)

        def forward(self, x, sublayer):
            out = x.clone()
            out += sublayer(self.ln(x))
            return out
    """,
)
bank.right_file(
    "native_layer_norm; parameters registered by name",
    """
    import torch
    from torch import nn

    class LayerNorm(nn.Module):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            self.normalized_shape = (n_embd,)
            self.register_parameter("weight", nn.Parameter(torch.full((n_embd,), 1.0)))
            self.register_parameter("bias", nn.Parameter(torch.full((n_embd,), 0.0)))
            self.eps = eps

        def forward(self, x):
            shape = self.normalized_shape
            return torch.native_layer_norm(x, shape, self.weight, self.bias, self.eps)[0]

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.add_module("ln", LayerNorm(n_embd, layer_norm_epsilon))

        def forward(self, x, sublayer):
            return sum((x, sublayer(self.ln(x))))
    """,
)
