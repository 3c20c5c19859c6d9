"""Problem 02: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(2)

QUERY = "self.query = nn.Linear(n_embd, n_embd)"
KEY = "self.key = nn.Linear(n_embd, n_embd)"
VALUE = "self.value = nn.Linear(n_embd, n_embd)"
QKV = "q, k, v = self.query(x), self.key(x), self.value(x)"
SCORES = "scores = q @ k.transpose(-2, -1)"
SOFTMAX = "weights = torch.softmax(scores, dim=-1)"
RETURN = "return weights @ v"

# ── the layers
bank.wrong_edit("bias-missing", "bias=False", (KEY, KEY.replace("n_embd)", "n_embd, bias=False)")))
bank.wrong_edit("shared-layers", "key is query", (KEY, "self.key = self.query"))
bank.wrong_edit(
    "shared-layers",
    "key's weight is query's",
    (KEY, KEY + "\n        self.key.weight = self.query.weight"),
)
bank.wrong_edit("layer-shape", "width 3C", (QUERY, "self.query = nn.Linear(n_embd, 3 * n_embd)"))
bank.wrong_edit(
    "extra-projection",
    "an output projection",
    (VALUE, VALUE + "\n        self.out = nn.Linear(n_embd, n_embd)"),
    (RETURN, "return self.out(weights @ v)"),
)
bank.wrong_edit(
    "layer-norm-added",
    "a layer norm first",
    (VALUE, VALUE + "\n        self.norm = nn.LayerNorm(n_embd)"),
    (QKV, "x = self.norm(x)\n        " + QKV),
)
bank.wrong_edit(
    "missing-attribute",
    "other names",
    (QUERY, QUERY.replace("query", "W_q")),
    (QKV, QKV.replace("query", "W_q")),
)
bank.wrong_edit(
    "wrong-signature",
    "another argument name",
    ("self, n_embd: int", "self, d_model: int, n_embd=6"),
)
bank.wrong_edit("super-init-missing", "no super().__init__()", ("        super().__init__()\n", ""))

# ── what goes where
bank.wrong_edit(
    "query-key-swapped",
    "query and key swapped",
    (QKV, "q, k, v = self.key(x), self.query(x), self.value(x)"),
)
bank.wrong_edit("query-key-swapped", "k @ qᵀ", (SCORES, "scores = k @ q.transpose(-2, -1)"))
bank.wrong_edit(
    "keys-from-query", "query's layer twice", (QKV, QKV.replace("self.key", "self.query"))
)
bank.wrong_edit(
    "values-from-key", "key's layer for the values", (QKV, QKV.replace("self.value", "self.key"))
)
bank.wrong_edit("values-not-projected", "x for the values", (RETURN, "return weights @ x"))
bank.wrong_edit(
    "queries-not-projected", "x for the queries", (QKV, QKV.replace("self.query(x)", "x"))
)
bank.wrong_edit("not-projected", "x for all three", (QKV, "q, k, v = x, x, x"))
bank.wrong_edit(
    "keys-from-value",
    "key and value swapped",
    (QKV, "q, v, k = self.query(x), self.key(x), self.value(x)"),
    also="values-from-key",
)
bank.wrong_edit(
    "bias-not-used",
    "x @ Wᵀ",
    (QKV, "q, k, v = (x @ layer.weight.T for layer in (self.query, self.key, self.value))"),
)

# ── the scores
bank.wrong_edit("scaled", "scaled by √C", (SCORES, SCORES + " / x.size(-1) ** 0.5"))
bank.wrong_edit("scaled-by-width", "scaled by C", (SCORES, SCORES + " / x.size(-1)"))
bank.wrong_edit(
    "masked",
    "causal",
    (
        SCORES,
        SCORES + "\n        T = x.size(1)\n"
        "        later = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)\n"
        '        scores = scores.masked_fill(later, float("-inf"))',
    ),
)
bank.wrong_edit("keys-not-transposed", "q @ k", (SCORES, "scores = q @ k"))
bank.wrong_edit(
    "keys-wrong-transpose", "transpose(0, 1)", (SCORES, "scores = q @ k.transpose(0, 1)")
)
bank.wrong_edit("keys-wrong-transpose", ".T", (SCORES, "scores = q @ k.permute(2, 1, 0)"))
bank.wrong_edit(
    "keys-reshaped", "view for transpose", (SCORES, "scores = q @ k.view(k.size(0), k.size(2), -1)")
)
bank.wrong_edit(
    "elementwise-product",
    "number by number",
    (SCORES, "scores = q * k"),
    (RETURN, "return weights * v"),
)
bank.wrong_edit(
    "own-key-only",
    "each with its own key",
    (SCORES, "scores = (q * k).sum(-1, keepdim=True)"),
    (RETURN, "return weights * v"),
)
bank.wrong_edit(
    "attends-over-features",
    "features for tokens",
    (SCORES, "scores = q.transpose(-2, -1) @ k"),
    (RETURN, "return v @ weights"),
)
bank.wrong_edit(
    "mixes-batch",
    "across the batch",
    (QKV, "shape, x = x.shape, x.reshape(1, -1, x.size(-1))\n        " + QKV),
    (RETURN, "return (weights @ v).view(shape)"),
)

# ── the softmax
bank.wrong_edit("softmax-over-queries", "over queries", (SOFTMAX, SOFTMAX.replace("-1", "1")))
bank.wrong_edit("softmax-over-batch", "over the batch", (SOFTMAX, SOFTMAX.replace("-1", "0")))
bank.wrong_edit("no-softmax", "none", (SOFTMAX, "weights = scores"))
bank.wrong_edit("softmax-twice", "twice", (SOFTMAX, SOFTMAX + ".softmax(-1)"))
bank.wrong_edit("not-a-softmax", "sigmoid", (SOFTMAX, "weights = torch.sigmoid(scores)"))
bank.wrong_edit(
    "no-exponential", "no exp", (SOFTMAX, "weights = scores / scores.sum(-1, keepdim=True)")
)
bank.wrong_edit(
    "softmax-overflows",
    "exp with no maximum subtracted",
    (SOFTMAX, "weights = scores.exp() / scores.exp().sum(-1, keepdim=True)"),
)
bank.wrong_edit(
    "softmax-over-queries",
    "by hand, summed over queries",
    (SOFTMAX, "weights = scores.exp() / scores.exp().sum(-2, keepdim=True)"),
)
bank.wrong_edit(
    "hard-maximum",
    "argmax",
    (SOFTMAX, "weights = nn.functional.one_hot(scores.argmax(-1), x.size(1)).to(x.dtype)"),
)

# ── the output
bank.wrong_edit(
    "weights-transposed", "weightsᵀ @ v", (RETURN, "return weights.transpose(1, 2) @ v")
)
bank.wrong_edit("weights-returned", "the weights alone", (RETURN, "return weights"))
bank.wrong_edit("returns-a-pair", "output and weights", (RETURN, "return weights @ v, weights"))
bank.wrong_edit("residual-added", "plus x", (RETURN, "return x + weights @ v"))
bank.wrong_edit("output-pooled", "the mean over tokens", (RETURN, "return (weights @ v).mean(1)"))
bank.wrong_edit("values-from-key", "keys averaged", (RETURN, "return weights @ k"))
bank.wrong_edit("no-return", "no return", (RETURN, "y = weights @ v"))
bank.wrong_edit(
    "dropout-added",
    "dropout",
    (RETURN, "return nn.functional.dropout(weights, 0.1, self.training) @ v"),
)
bank.wrong_edit(
    "wrong-dtype", "float32 scores", (SCORES, SCORES + ".float()"), (RETURN, RETURN + ".float()")
)
bank.wrong_edit("edits-input", "x changed", (RETURN, "x += 0.01\n        " + RETURN))
bank.wrong_edit(
    "no-gradient", "weights detached", (SOFTMAX, "weights = torch.softmax(scores, dim=-1).detach()")
)
bank.wrong_file(
    "scaled",
    "a beginner's: everything one knows of attention",
    """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.d_k = n_embd
            self.query = nn.Linear(n_embd, n_embd)
            self.key = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)

        def forward(self, x):
            Q = self.query(x)
            K = self.key(x)
            V = self.value(x)
            scores = torch.bmm(Q, K.transpose(1, 2)) / math.sqrt(self.d_k)
            return torch.bmm(F.softmax(scores, dim=2), V)
    """,
)

bank.right_file(
    "einsum",
    """
    import torch
    from torch import nn

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.query, self.key, self.value = (nn.Linear(n_embd, n_embd) for _ in range(3))

        def forward(self, x):
            scores = torch.einsum("bic,bjc->bij", self.query(x), self.key(x))
            return torch.einsum("bij,bjc->bic", scores.softmax(dim=2), self.value(x))
    """,
)
bank.right_file(
    "PyTorch's fused kernel",
    """
    import torch.nn.functional as F
    from torch import Tensor, nn

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd: int):
            super().__init__()
            for name in ("value", "key", "query"):
                self.add_module(name, nn.Linear(n_embd, n_embd, bias=True))

        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(
                self.query(x), self.key(x), self.value(x), scale=1.0
            )
    """,
)
bank.right_file(
    "one row of the batch after the other, softmax by hand, functional layers",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    def softmax(scores):
        e = torch.exp(scores - scores.max(dim=-1, keepdim=True).values)
        return e / e.sum(dim=-1, keepdim=True)

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd, bias=True):
            super(SimpleAttention, self).__init__()
            self.query = nn.Linear(in_features=n_embd, out_features=n_embd, bias=bias)
            self.key = nn.Linear(in_features=n_embd, out_features=n_embd, bias=bias)
            self.value = nn.Linear(in_features=n_embd, out_features=n_embd, bias=bias)

        def project(self, layer, x):
            return F.linear(x, layer.weight, layer.bias)

        def forward(self, x):
            rows = []
            for text in x.unbind(0):
                q = self.project(self.query, text)
                k = self.project(self.key, text)
                v = self.project(self.value, text)
                rows.append(torch.mm(softmax(torch.mm(q, k.t())), v))
            return torch.stack(rows)
    """,
)
bank.right_file(
    "one product for all three, bmm",
    """
    import torch
    from torch import nn

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.query = nn.Linear(n_embd, n_embd)
            self.key = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)
            self.softmax = nn.Softmax(dim=-1)

        def forward(self, x):
            layers = [self.query, self.key, self.value]
            W = torch.cat([layer.weight for layer in layers])
            b = torch.cat([layer.bias for layer in layers])
            q, k, v = (x @ W.T + b).chunk(3, dim=-1)
            return torch.bmm(self.softmax(torch.bmm(q, k.permute(0, 2, 1))), v)
    """,
)
bank.right_file(
    "the sum written out by broadcasting",
    """
    import torch
    from torch import nn

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.query = nn.Linear(n_embd, n_embd)
            self.key = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)

        def forward(self, x):
            q, k, v = self.query(x), self.key(x), self.value(x)
            scores = (q[:, :, None, :] * k[:, None, :, :]).sum(-1)
            weights = torch.log_softmax(scores, -1).exp()
            return (weights[..., None] * v[:, None]).sum(2)
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

PLAIN = """
    import torch
    import torch.nn as nn

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.query = nn.Linear(n_embd, n_embd)
            self.key = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)

        def forward(self, x):
            q = self.query(x)
            k = self.key(x)
            v = self.value(x)
            scores = q @ k.transpose(-2, -1)
            attn = torch.softmax(scores, dim=-1)
            return attn @ v
"""
bank.wrong_edit(
    "mixes-batch",
    "every row attends to the first row's keys",
    ("scores = q @ k.transpose(-2, -1)", "scores = q @ k[0].T"),
    base=PLAIN,
)
bank.wrong_edit(
    "mixes-batch",
    "every row gets the first row's values",
    ("return attn @ v", "return attn @ v[0]"),
    base=PLAIN,
)
bank.wrong_edit(
    "module-remembers",
    "keys of the first call are kept",
    (
        "scores = q @ k.transpose(-2, -1)",
        "if getattr(self, 'kept', None) is None or self.kept.shape != k.shape:\n            self.kept = k.detach()\n        k = self.kept\n        scores = q @ k.transpose(-2, -1)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "scaled",
    "scaled in training alone",
    (
        "scores = q @ k.transpose(-2, -1)",
        "scores = q @ k.transpose(-2, -1)\n        if self.training:\n            scores = scores / x.size(-1) ** 0.5",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "mode-changed",
    "forward switches to eval mode",
    (
        "attn = torch.softmax(scores, dim=-1)",
        "self.eval()\n        attn = torch.softmax(scores, dim=-1)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in __init__",
    ("super().__init__()", "super().__init__()\n        torch.manual_seed(0)"),
    base=PLAIN,
)
bank.wrong_edit(
    "softmax-over-batch",
    "nn.Softmax without an axis",
    ("attn = torch.softmax(scores, dim=-1)", "attn = nn.Softmax()(scores)"),
    base=PLAIN,
)
bank.right_edit(
    "the largest score subtracted first",
    (
        "attn = torch.softmax(scores, dim=-1)",
        "attn = torch.softmax(scores - scores.amax(-1, keepdim=True), dim=-1)",
    ),
    base=PLAIN,
)
bank.right_edit(
    "scores with keys along axis 1",
    ("scores = q @ k.transpose(-2, -1)", "scores = k @ q.transpose(1, 2)"),
    ("attn = torch.softmax(scores, dim=-1)", "attn = torch.softmax(scores, dim=1).transpose(1, 2)"),
    base=PLAIN,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit("product-order", "v @ weights", (RETURN, "return v @ weights"))
bank.wrong_edit(
    "weights-transposed",
    "einsum with the weights' axes exchanged",
    (RETURN, 'return torch.einsum("bji,bjc->bic", weights, v)'),
)
bank.wrong_edit(
    "query-key-swapped",
    "einsum with keys as rows",
    (SCORES, 'scores = torch.einsum("btc,bsc->bst", q, k)'),
)
bank.wrong_edit(
    "scaled",
    "F.scaled_dot_product_attention as it is",
    (RETURN, "return nn.functional.scaled_dot_product_attention(q, k, v)"),
)
bank.wrong_edit(
    "masked",
    "the fused kernel with is_causal",
    (
        RETURN,
        "return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=1.0)",
    ),
)
bank.wrong_edit(
    "output-scaled",
    "mean for sum, by broadcasting",
    (RETURN, "return (weights.unsqueeze(-1) * v.unsqueeze(1)).mean(2)"),
)
bank.wrong_edit(
    "summed-over-queries",
    "the sum runs over the queries, by broadcasting",
    (RETURN, "return (weights.unsqueeze(-1) * v.unsqueeze(1)).sum(1)"),
)
bank.wrong_edit(
    "values-transposed",
    "weights @ vᵀ",
    (RETURN, "return weights @ v.transpose(1, 2)"),
)
bank.wrong_edit(
    "missing-attribute",
    "nn.MultiheadAttention inside",
    ("self.query = nn.Linear(n_embd, n_embd)", "self.attn = nn.MultiheadAttention(n_embd, 1)"),
    (QKV, "return self.attn(x, x, x)[0]\n        q = k = v = x"),
)
bank.wrong_edit(
    "scaled",
    "scaled, and x added",
    (SCORES, SCORES + " / x.size(-1) ** 0.5"),
    (RETURN, "return x + weights @ v"),
    also="residual-added",
)
bank.wrong_edit(
    "scaled",
    "half the scores",
    (SCORES, SCORES + " / 2"),
)
bank.wrong_edit(
    "softmax-over-queries",
    "a loop over queries' columns",
    (
        SOFTMAX,
        "weights = torch.stack([scores[:, :, j].softmax(-1) for j in range(x.size(1))], -1)",
    ),
)
