"""Problem 08: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(8)

LN_1 = "self.ln_1 = LayerNorm(n_embd, layer_norm_epsilon)"
ATTN = "self.attn = CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)"
LN_2 = "self.ln_2 = LayerNorm(n_embd, layer_norm_epsilon)"
MLP = "self.mlp = FeedForward(n_embd, 4 * n_embd if n_inner is None else n_inner, dropout)"
FIRST = "x = x + self.attn(self.ln_1(x), cache)"
SECOND = "return x + self.mlp(self.ln_2(x))"
STAR = "        *,\n"
BOTH = (
    "        x = x + self.attn(self.ln_1(x), cache)\n"
    "        # Step 3: the feed-forward network reads what attention has just written\n"
    "        return x + self.mlp(self.ln_2(x))\n"
)


def forward(*lines: str) -> tuple[str, str]:
    """The edit that replaces forward's body."""
    return BOTH, "".join(f"        {line}\n" for line in lines)


# the stream
bank.wrong_edit(
    "post-norm",
    "post-norm, as in the first transformer",
    forward(
        "x = self.ln_1(x + self.attn(x, cache))",
        "return self.ln_2(x + self.mlp(x))",
    ),
)
bank.wrong_edit(
    "post-norm", "post-norm in the second half", (SECOND, "return self.ln_2(x + self.mlp(x))")
)
bank.wrong_edit(
    "no-residual", "no sum after attention", (FIRST, "x = self.attn(self.ln_1(x), cache)")
)
bank.wrong_edit("no-residual", "no sum after mlp", (SECOND, "return self.mlp(self.ln_2(x))"))
bank.wrong_edit(
    "no-residual",
    "no sum at all",
    forward("x = self.attn(self.ln_1(x), cache)", "return self.mlp(self.ln_2(x))"),
)
bank.wrong_edit("no-norm", "attention reads x", (FIRST, "x = x + self.attn(x, cache)"))
bank.wrong_edit("no-norm", "mlp reads x", (SECOND, "return x + self.mlp(x)"))
bank.wrong_edit(
    "parallel",
    "both read the same x",
    forward("return x + self.attn(self.ln_1(x), cache) + self.mlp(self.ln_2(x))"),
)
bank.wrong_edit(
    "parallel",
    "both read ln_1(x)",
    forward("y = self.ln_1(x)", "return x + self.attn(y, cache) + self.mlp(y)"),
)
bank.wrong_edit(
    "order-swapped",
    "mlp first",
    forward("x = x + self.mlp(self.ln_2(x))", "return x + self.attn(self.ln_1(x), cache)"),
)
bank.wrong_edit(
    "order-swapped",
    "mlp first, with ln_1",
    forward("x = x + self.mlp(self.ln_1(x))", "return x + self.attn(self.ln_2(x), cache)"),
)
bank.wrong_edit(
    "norms-swapped",
    "ln_2 first",
    forward("x = x + self.attn(self.ln_2(x), cache)", "return x + self.mlp(self.ln_1(x))"),
)
bank.wrong_edit("one-norm-for-both", "ln_1 twice", (SECOND, SECOND.replace("ln_2", "ln_1")))
bank.wrong_edit("one-norm-for-both", "ln_2 twice", (FIRST, FIRST.replace("ln_1", "ln_2")))
bank.wrong_edit("one-norm-for-both", "one module, two names", (LN_2, "self.ln_2 = self.ln_1"))
bank.wrong_edit(
    "one-norm-for-both",
    "one weight in two norms",
    (LN_2, LN_2 + "\n        self.ln_2.weight = self.ln_1.weight"),
)
bank.wrong_edit(
    "residual-normalised",
    "x = ln_1(x) in the first half",
    (FIRST, "x = self.ln_1(x)\n        x = x + self.attn(x, cache)"),
)
bank.wrong_edit(
    "residual-normalised",
    "x = ln(x) in both halves",
    forward(
        "x = self.ln_1(x)",
        "x = x + self.attn(x, cache)",
        "x = self.ln_2(x)",
        "return x + self.mlp(x)",
    ),
)
bank.wrong_edit(
    "attention-lost",
    "the second sum starts from the old x",
    forward("y = x + self.attn(self.ln_1(x), cache)", "return x + self.mlp(self.ln_2(y))"),
)
bank.wrong_edit(
    "mlp-reads-attention-alone",
    "mlp reads attention's result",
    forward("a = self.attn(self.ln_1(x), cache)", "return x + self.mlp(self.ln_2(a))"),
)
bank.wrong_edit(
    "residual-doubled",
    "x added again at the end",
    forward("y = x + self.attn(self.ln_1(x), cache)", "return x + y + self.mlp(self.ln_2(y))"),
)
bank.wrong_edit(
    "norm-twice",
    "the result normalized",
    (SECOND, "return self.ln_2(x + self.mlp(self.ln_2(x)))"),
)
bank.wrong_edit(
    "norm-at-the-end",
    "ln_1 on the result",
    (SECOND, "return self.ln_1(x + self.mlp(self.ln_2(x)))"),
)
bank.wrong_edit("sublayer-missing", "no mlp", (SECOND, "return x"))
bank.wrong_edit("sublayer-missing", "no attention", (FIRST, "pass"))
bank.wrong_edit(
    "no-norm",
    "attention is not added to x, and mlp reads x itself",
    forward("x = self.attn(self.ln_1(x), cache)", "return x + self.mlp(x)"),
    also="no-residual",
)
bank.wrong_edit("edits-input", "x += …", (FIRST, FIRST.replace("x = x +", "x +=")))
bank.wrong_edit(
    "residual-detached", "first sum detached", (FIRST, FIRST.replace("x = x", "x = x.detach()"))
)
bank.wrong_edit("no-return", "no return", (SECOND, SECOND.replace("return", "x =")))
bank.wrong_edit("not-a-tensor", "returns the cache, too", (SECOND, SECOND + ", cache"))
# the parts
bank.wrong_edit(
    "not-causal",
    "MultiHeadAttention",
    ("import CausalMultiHeadAttention,", "import MultiHeadAttention,"),
    (ATTN, "self.attn = MultiHeadAttention(n_embd, n_head, dropout, attn_dropout)"),
    (FIRST, "x = x + self.attn(self.ln_1(x))"),
)
bank.wrong_edit(
    "missing-attribute",
    "ln1, ln2",
    (LN_1, LN_1.replace("ln_1", "ln1")),
    (LN_2, LN_2.replace("ln_2", "ln2")),
    (FIRST, FIRST.replace("ln_1", "ln1")),
    (SECOND, SECOND.replace("ln_2", "ln2")),
)
bank.wrong_edit(
    "missing-attribute",
    "ffn",
    (MLP, MLP.replace("self.mlp", "self.ffn")),
    (SECOND, SECOND.replace("self.mlp", "self.ffn")),
)
bank.wrong_edit(
    "extra-state",
    "a third norm, never used",
    (LN_2, LN_2 + "\n        self.ln_3 = LayerNorm(n_embd)"),
)
bank.wrong_edit(
    "n-inner-ignored",
    "always 4 · n_embd",
    (MLP, "self.mlp = FeedForward(n_embd, 4 * n_embd, dropout)"),
)
bank.wrong_edit("n-inner-default", "2 · n_embd", (MLP, MLP.replace("4 *", "2 *")))
bank.wrong_edit("n-inner-default", "3072", (MLP, MLP.replace("4 * n_embd", "3072")))
bank.wrong_edit("hard-coded-size", "768", (LN_2, LN_2.replace("n_embd", "768")))
bank.wrong_edit("n-head-wrong", "one head", (ATTN, ATTN.replace("n_head", "1")))
bank.wrong_edit(
    "arguments-swapped",
    "n_positions before n_head",
    (ATTN, ATTN.replace("n_head, n_positions", "n_positions, n_head")),
)
bank.wrong_edit(
    "arguments-swapped",
    "n_positions forgotten",
    (ATTN, "self.attn = CausalMultiHeadAttention(n_embd, n_head, dropout, n_positions)"),
)
bank.wrong_edit("n-positions-wrong", "1024", (ATTN, ATTN.replace("n_positions", "1024")))
bank.wrong_edit("n-positions-wrong", "n_embd", (ATTN, ATTN.replace("n_positions", "n_embd")))
bank.wrong_edit("epsilon-not-passed", "ln_1's epsilon", (LN_1, "self.ln_1 = LayerNorm(n_embd)"))
bank.wrong_edit("epsilon-not-passed", "ln_2's epsilon", (LN_2, "self.ln_2 = LayerNorm(n_embd)"))
bank.wrong_edit(
    "dropout-not-passed", "mlp's dropout", (MLP, MLP.replace("n_inner, dropout", "n_inner"))
)
bank.wrong_edit(
    "dropout-not-passed",
    "attention's dropout",
    (ATTN, ATTN.replace("dropout, attn_dropout", "attn_dropout=attn_dropout")),
)
bank.wrong_edit(
    "attn-dropout-not-passed",
    "attn_dropout unused",
    (ATTN, ATTN.replace(", attn_dropout", "")),
)
bank.wrong_edit(
    "dropouts-swapped",
    "attn_dropout first",
    (ATTN, ATTN.replace("dropout, attn_dropout", "attn_dropout or 0.1, dropout")),
)
bank.wrong_edit(
    "attn-dropout-to-mlp",
    "attn_dropout to mlp",
    (
        MLP,
        MLP.replace(
            "n_inner, dropout", "n_inner, dropout if attn_dropout is None else attn_dropout"
        ),
    ),
)
bank.wrong_edit(
    "attn-dropout-falsy",
    "attn_dropout or dropout",
    (ATTN, ATTN.replace(", attn_dropout", ", attn_dropout or dropout")),
)
bank.wrong_edit(
    "attn-dropout-default",
    "None means 0",
    (ATTN, ATTN.replace(", attn_dropout", ", attn_dropout or 0.0")),
)
bank.wrong_edit(
    "dropout-twice",
    "another dropout on the branch",
    (MLP, MLP + "\n        self.drop = nn.Dropout(dropout)"),
    (SECOND, "return x + self.drop(self.mlp(self.ln_2(x)))"),
)
bank.wrong_edit(
    "dropout-on-stream",
    "dropout on the sum",
    (MLP, MLP + "\n        self.drop = nn.Dropout(dropout)"),
    (SECOND, "return self.drop(x + self.mlp(self.ln_2(x)))"),
)
bank.wrong_edit(
    "dropout-missing",
    "mlp's layers called one by one",
    (SECOND, "return x + self.mlp.c_proj(self.mlp.act(self.mlp.c_fc(self.ln_2(x))))"),
)
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout always",
    (SECOND, "return x + nn.functional.dropout(self.mlp(self.ln_2(x)), 0.1)"),
)
bank.wrong_edit(
    "dropout-twice",
    "another dropout on attention's result",
    (MLP, MLP + "\n        self.drop = nn.Dropout(dropout)"),
    (FIRST, "x = x + self.drop(self.attn(self.ln_1(x), cache))"),
)
bank.wrong_edit(
    "dropout-misplaced",
    "dropout on what mlp reads",
    (MLP, MLP + "\n        self.drop = nn.Dropout(dropout)"),
    (SECOND, "return x + self.mlp(self.drop(self.ln_2(x)))"),
)
bank.wrong_edit(
    "shared-weights",
    "mlp's two matrices tied",
    (MLP, MLP + "\n        self.mlp.c_proj.weight = nn.Parameter(self.mlp.c_fc.weight.T)"),
)
bank.wrong_edit(
    "axes-swapped",
    "attention over the batch",
    (FIRST, "x = x + self.attn(self.ln_1(x).transpose(0, 1), cache).transpose(0, 1)"),
)
bank.wrong_edit(
    "cache-not-passed",
    "no cache in training mode",
    (FIRST, FIRST.replace(", cache", ", None if self.training else cache")),
)
bank.wrong_edit("not-keyword-only", "no star", (STAR, ""))
bank.wrong_edit("wrong-default", "no dropout by default", ("float = 0.1", "float = 0.0"))
# the cache
bank.wrong_edit("cache-not-passed", "no cache", (FIRST, FIRST.replace(", cache", "")))
bank.wrong_edit("cache-to-mlp", "cache to mlp", (SECOND, SECOND.replace("(x))", "(x), cache)")))
bank.wrong_edit(
    "cache-twice",
    "attention called for nothing",
    (FIRST, "self.attn(self.ln_1(x), cache)\n        " + FIRST),
)
bank.wrong_edit(
    "wrong-argument-name",
    "the cache under another name",
    ("x: Tensor, cache=None", "x: Tensor, kv_cache=None"),
    (FIRST, FIRST.replace("cache", "kv_cache")),
)
bank.wrong_file(
    "no-residual",
    "a beginner's whole file: Sequential, no sums",
    """
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            n_inner = n_inner or 4 * n_embd
            self.ln_1 = LayerNorm(n_embd, layer_norm_epsilon)
            self.attn = CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)
            self.ln_2 = LayerNorm(n_embd, layer_norm_epsilon)
            self.mlp = FeedForward(n_embd, n_inner, dropout)

        def forward(self, x, cache=None):
            for layer in (self.ln_1, self.attn, self.ln_2, self.mlp):
                x = layer(x, cache) if layer is self.attn else layer(x)
            return x
    """,
)

bank.right_edit(
    "n_inner or 4 · n_embd", (MLP, "self.mlp = FeedForward(n_embd, n_inner or 4 * n_embd, dropout)")
)
bank.right_file(
    "by ResidualBlock's way: a helper that takes the sublayer, keywords, a lambda",
    """
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    def residual(x, norm, sublayer):
        return sublayer(norm(x)) + x

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            if n_inner is None:
                n_inner = n_embd * 4
            self.mlp = FeedForward(n_embd=n_embd, n_inner=n_inner, dropout=dropout)
            self.attn = CausalMultiHeadAttention(
                n_embd=n_embd, n_head=n_head, n_positions=n_positions, dropout=dropout,
                attn_dropout=dropout if attn_dropout is None else attn_dropout,
            )
            self.ln_2 = LayerNorm(n_embd, eps=layer_norm_epsilon)
            self.ln_1 = LayerNorm(n_embd, eps=layer_norm_epsilon)

        def forward(self, x, cache=None):
            x = residual(x, self.ln_1, lambda y: self.attn(y, cache=cache))
            return residual(x, self.ln_2, self.mlp)
    """,
)
bank.right_file(
    "subclasses of the earlier pieces, functional norms, an untouched copy of the stream",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    class Attention(CausalMultiHeadAttention):
        pass

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            self.n_embd = n_embd
            self.ln_1, self.ln_2 = (LayerNorm(n_embd, layer_norm_epsilon) for _ in range(2))
            self.attn = Attention(n_embd, n_head, n_positions, dropout, attn_dropout)
            self.mlp = FeedForward(n_embd, n_inner if n_inner is not None else 4 * n_embd, dropout)

        def _norm(self, x, ln):
            return F.layer_norm(x, (self.n_embd,), ln.weight, ln.bias, ln.eps)

        def forward(self, x, cache=None):
            stream = x.clone()
            stream += self.attn(self._norm(x, self.ln_1), cache)
            return torch.add(stream, self.mlp(self._norm(stream, self.ln_2)))
    """,
)
bank.right_file(
    "PyTorch's norms, parts made in a loop, the cache passed only when there is one",
    """
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            for name in ("ln_1", "ln_2"):
                self.add_module(name, nn.LayerNorm(n_embd, eps=layer_norm_epsilon))
            self.add_module(
                "attn",
                CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout),
            )
            self.add_module("mlp", FeedForward(n_embd, n_inner or n_embd << 2, dropout))

        def forward(self, x, cache=None):
            y = self.ln_1(x)
            written = self.attn(y) if cache is None else self.attn(y, cache)
            x = x + written
            written = self.mlp(self.ln_2(x))
            x = x + written
            return x
    """,
)

# ── written by somebody who had not seen the checks ─────────────────────────────────────────────

PLAIN = """
    import torch
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            if n_inner is None:
                n_inner = 4 * n_embd
            self.ln_1 = LayerNorm(n_embd, eps=layer_norm_epsilon)
            self.attn = CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)
            self.ln_2 = LayerNorm(n_embd, eps=layer_norm_epsilon)
            self.mlp = FeedForward(n_embd, n_inner, dropout)

        def forward(self, x, cache=None):
            a = self.attn(self.ln_1(x), cache)
            x = x + a
            m = self.mlp(self.ln_2(x))
            return x + m
"""
ATTENTION = "a = self.attn(self.ln_1(x), cache)"
for mistake, title, *edits in (
    (
        "dropouts-swapped",
        "dropout and attn_dropout swapped",
        ("n_positions, dropout, attn_dropout)", "n_positions, attn_dropout, dropout)"),
    ),
    (
        "attn-dropout-none",
        "attn_dropout, None or not, to the feed-forward network",
        ("n_inner, dropout)", "n_inner, attn_dropout)"),
    ),
    (
        "arguments-swapped",
        "FeedForward(n_inner, n_embd)",
        ("FeedForward(n_embd, n_inner, dropout)", "FeedForward(n_inner, n_embd, dropout)"),
    ),
    (
        "activation-added",
        "GELU on the branch",
        ("return x + m", "return x + nn.functional.gelu(m)"),
    ),
    (
        "cache-not-passed",
        "the cache only for single tokens",
        (ATTENTION, ATTENTION.replace("cache)", "cache if x.size(1) == 1 else None)")),
    ),
    (
        "cache-not-passed",
        "an empty cache is passed over",
        (ATTENTION, ATTENTION.replace("cache)", "cache if cache and cache.length else None)")),
    ),
    (
        "cache-tokens-lost",
        "with a cache only the last token goes on",
        (ATTENTION, "x = x if cache is None else x[:, -1:]\n        " + ATTENTION),
    ),
    (
        "cache-tokens-lost",
        "the cache starts again with each longer piece",
        (
            ATTENTION,
            "if cache is not None and x.size(1) > 1:\n"
            "            cache.length = 0\n        " + ATTENTION,
        ),
    ),
    (
        "mode-changed",
        "eval mode with a cache",
        (ATTENTION, "if cache is not None:\n            self.eval()\n        " + ATTENTION),
    ),
    (
        "seed-set",
        "a seed in __init__",
        ("super().__init__()", "super().__init__()\n        torch.manual_seed(0)"),
    ),
    (
        "shared-between-modules",
        "one feed-forward network for all blocks",
        (
            "class TransformerBlock(nn.Module):",
            "MLPS = {}\n\nclass TransformerBlock(nn.Module):",
        ),
        (
            "FeedForward(n_embd, n_inner, dropout)",
            "MLPS.setdefault(n_embd, FeedForward(n_embd, n_inner, dropout))",
        ),
    ),
    (
        "module-remembers",
        "part of the last result is added",
        (
            "return x + m",
            "out = x + m\n"
            "        old, self.old = getattr(self, 'old', None), out.detach()\n"
            "        return out if old is None or old.shape != out.shape else out + 0.01 * old",
        ),
    ),
    (
        "dropout-on-stream",
        "dropout on the sum",
        ("return x + m", "return self.mlp.drop(x + m)"),
    ),
):
    bank.wrong_edit(mistake, title, *edits, base=PLAIN)
bank.right_file(
    "a loop over norms and sublayers",
    """
    from functools import partial
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            norm = partial(LayerNorm, n_embd, layer_norm_epsilon)
            self.ln_1, self.ln_2 = norm(), norm()
            attn_dropout = dropout if attn_dropout is None else attn_dropout
            self.attn = CausalMultiHeadAttention(
                n_embd, n_head, n_positions, dropout, attn_dropout=attn_dropout
            )
            self.mlp = FeedForward(n_embd, {None: n_embd * 4}.get(n_inner, n_inner), dropout)

        def forward(self, x, cache=None):
            for norm, branch in ((self.ln_1, partial(self.attn, cache=cache)), (self.ln_2, self.mlp)):
                x = x + branch(norm(x))
            return x
    """,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "n-inner-default",
    "n_inner is handed on as it is, None or not",
    (MLP, "self.mlp = FeedForward(n_embd, n_inner, dropout)"),
)
bank.wrong_edit(
    "bad-copy",
    "a lambda that holds self",
    (MLP, MLP + "\n        self.run = lambda x: self.mlp(self.ln_2(x))"),
    (SECOND, "return x + self.run(x)"),
)
bank.wrong_edit(
    "no-norm",
    "the norm's result is not assigned",
    forward("self.ln_1(x)", "x = x + self.attn(x, cache)", "return x + self.mlp(self.ln_2(x))"),
)
bank.wrong_edit(
    "activation-added",
    "GELU after attention",
    ("from torch import Tensor, nn\n", "import torch\nfrom torch import Tensor, nn\n"),
    (
        FIRST,
        'x = x + nn.functional.gelu(self.attn(self.ln_1(x), cache), approximate="tanh")',
    ),
)
bank.wrong_edit(
    "sum-scaled",
    "the mean of stream and branch",
    (SECOND, "return (x + self.mlp(self.ln_2(x))) / 2"),
)
bank.wrong_edit(
    "residual-doubled",
    "h kept, and added to a stream that holds it",
    forward(
        "h = x + self.attn(self.ln_1(x), cache)",
        "return x + h + self.mlp(self.ln_2(h))",
    ),
)
bank.wrong_edit(
    "norms-swapped",
    "norms swapped, and no second sum",
    forward("x = x + self.attn(self.ln_2(x), cache)", "return self.mlp(self.ln_1(x))"),
    also="no-residual",
)
bank.wrong_edit(
    "epsilon-not-passed",
    "1e-5 written into both",
    (LN_1, "self.ln_1 = LayerNorm(n_embd, 1e-5)"),
    (LN_2, "self.ln_2 = LayerNorm(n_embd, 1e-5)"),
)
bank.wrong_edit(
    "n-inner-default",
    "n_inner or n_embd",
    (MLP, "self.mlp = FeedForward(n_embd, n_inner or n_embd, dropout)"),
)
bank.wrong_edit(
    "branch-subtracted",
    "minus",
    (FIRST, "x = x - self.attn(self.ln_1(x), cache)"),
)
