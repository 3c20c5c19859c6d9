"""Problem 03: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(3)

SCORES = "scores = q @ k.transpose(-2, -1) * self.scale"
MASK = 'scores = scores.masked_fill(~mask, float("-inf"))'
SOFTMAX = "weights = self.dropout(torch.softmax(scores, dim=-1))"
RETURN = "return weights @ v, weights"
SCALE = "self.scale = 1.0 / math.sqrt(n_embd)"

bank.wrong_edit("no-scale", "no scaling", (SCORES, "scores = q @ k.transpose(-2, -1)"))
bank.wrong_edit("scale-by-d", "divided by d_k, not its root", (SCALE, "self.scale = 1.0 / n_embd"))
bank.wrong_edit("scale-multiplied", "multiplied by √d_k", (SCALE, "self.scale = math.sqrt(n_embd)"))
bank.wrong_edit(
    "scale-by-length",
    "divided by √S",
    (SCORES, "scores = q @ k.transpose(-2, -1) / k.size(-2) ** 0.5"),
)
bank.wrong_edit(
    "scale-after-softmax",
    "scaled after the softmax",
    (SCORES, "scores = q @ k.transpose(-2, -1)"),
    (SOFTMAX, "weights = self.dropout(torch.softmax(scores, dim=-1) * self.scale)"),
)
bank.wrong_edit(
    "scale-by-d",
    "q and k both scaled by √d_k",
    (SCORES, "scores = (q * self.scale) @ (k * self.scale).transpose(-2, -1)"),
)
bank.wrong_edit(
    "softmax-over-queries", "softmax over queries", (SOFTMAX, SOFTMAX.replace("-1", "-2"))
)
bank.wrong_edit("softmax-over-heads", "softmax over axis 1", (SOFTMAX, SOFTMAX.replace("-1", "1")))
bank.wrong_edit("no-softmax", "no softmax", (SOFTMAX, "weights = self.dropout(scores)"))
bank.wrong_edit("sigmoid", "a sigmoid", (SOFTMAX, "weights = self.dropout(torch.sigmoid(scores))"))
bank.wrong_edit(
    "mask-ignored", "the mask's result is thrown away", (MASK, MASK.removeprefix("scores = "))
)
bank.wrong_edit("mask-inverted", "mask inverted", (MASK, MASK.replace("~mask", "mask")))
bank.wrong_edit("mask-zero", "masked scores are 0", (MASK, MASK.replace('float("-inf")', "0.0")))
bank.wrong_edit("mask-zero", "mask multiplied", (MASK, "scores = scores * mask"))
bank.wrong_edit("mask-zero", "1e-9 for -1e9", (MASK, MASK.replace('float("-inf")', "1e-9")))
bank.wrong_edit("mask-added", "mask added", (MASK, "scores = scores + mask"))
bank.wrong_edit("mask-finite", "masked with -1e4", (MASK, MASK.replace('float("-inf")', "-1e4")))
bank.wrong_edit(
    "mask-after-softmax",
    "masked after the softmax",
    (MASK, "pass"),
    (SOFTMAX, SOFTMAX + "\n        if mask is not None:\n            weights = weights * mask"),
)
bank.wrong_edit("values-are-keys", "averages the keys", (RETURN, "return weights @ k, weights"))
bank.wrong_edit("keys-not-transposed", "k not transposed", (SCORES, "scores = q @ k * self.scale"))
bank.wrong_edit(
    "keys-wrong-transpose",
    "k.transpose(1, 2)",
    (SCORES, "scores = q @ k.transpose(1, 2) * self.scale"),
)
bank.wrong_edit(
    "scores-transposed", "k @ qᵀ", (SCORES, "scores = k @ q.transpose(-2, -1) * self.scale")
)
bank.wrong_edit("outputs-swapped", "weights first", (RETURN, "return weights, weights @ v"))
bank.wrong_edit("weights-not-returned", "output alone", (RETURN, "return weights @ v"))
bank.wrong_edit("weights-are-scores", "scores returned", (RETURN, "return weights @ v, scores"))
bank.wrong_edit(
    "dropout-missing", "no dropout", (SOFTMAX, "weights = torch.softmax(scores, dim=-1)")
)
bank.wrong_edit(
    "dropout-on-scores",
    "dropout before the softmax",
    (SOFTMAX, "weights = torch.softmax(self.dropout(scores), dim=-1)"),
)
bank.wrong_edit(
    "dropout-on-output",
    "dropout on the output",
    (SOFTMAX, "weights = torch.softmax(scores, dim=-1)"),
    (RETURN, "return self.dropout(weights @ v), weights"),
)
bank.wrong_edit(
    "weights-before-dropout",
    "weights returned before dropout",
    (SOFTMAX, "weights = torch.softmax(scores, dim=-1)"),
    (RETURN, "return self.dropout(weights) @ v, weights"),
)
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout without training=",
    (SOFTMAX, "weights = nn.functional.dropout(torch.softmax(scores, dim=-1), self.dropout.p)"),
)
bank.wrong_edit("no-return", "no return", (RETURN, "output = weights @ v, weights"))
bank.wrong_edit(
    "edits-input",
    "q scaled in place",
    (SCORES, "q *= self.scale\n        scores = q @ k.transpose(-2, -1)"),
)

bank.wrong_edit("wrong-default", "dropout=0.0", ("dropout: float = 0.1", "dropout: float = 0.0"))
bank.wrong_edit(
    "wrong-device",
    "the root as a tensor on the CPU",
    (
        SCORES,
        "root = torch.full((1,), self.scale, dtype=q.dtype)\n        scores = q @ k.transpose(-2, -1) * root",
    ),
)
bank.wrong_edit("no-forward", "forward misspelt", ("def forward(", "def attend("))

bank.right_file(
    "einsum, mask by where, functional dropout",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.d_k, self.p = n_embd, dropout

        def forward(self, q, k, v, mask=None):
            scores = torch.einsum("...td,...sd->...ts", q, k) * self.d_k**-0.5
            if mask is not None:
                scores = torch.where(mask, scores, torch.full_like(scores, -torch.inf))
            weights = F.dropout(F.softmax(scores, dim=-1), self.p, self.training)
            return torch.einsum("...ts,...se->...te", weights, v), weights
    """,
)
bank.right_file(
    "q scaled first, softmax by hand with the maximum subtracted, finfo.min",
    """
    import torch
    from torch import nn

    def softmax(x):
        e = (x - x.amax(-1, keepdim=True)).exp()
        return e / e.sum(-1, keepdim=True)

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.drop = nn.Dropout(dropout)
            self.root = n_embd**0.5

        def forward(self, q, k, v, mask=None):
            scores = torch.matmul(q / self.root, k.mT)
            if mask is not None:
                scores = scores.masked_fill(mask.logical_not(), torch.finfo(scores.dtype).min)
            weights = self.drop(softmax(scores))
            return torch.matmul(weights, v), weights
    """,
)
bank.right_file(
    "the mask as an additive bias, baddbmm-free, no attributes but a dropout",
    """
    import torch
    from torch import nn

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.n_embd = n_embd
            self.attn_dropout = nn.Dropout(p=dropout)

        def forward(self, q, k, v, mask=None):
            bias = 0.0
            if mask is not None:
                bias = torch.zeros(mask.shape, dtype=q.dtype, device=q.device)
                bias = bias.masked_fill(mask == False, float("-inf"))
            scores = q @ k.transpose(-1, -2) / (self.n_embd ** 0.5) + bias
            weights = self.attn_dropout(nn.Softmax(dim=-1)(scores))
            return weights @ v, weights
    """,
)
bank.right_file(
    "PyTorch's fused kernel for the weights: attention over the identity",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.dropout = nn.Dropout(dropout)

        def forward(self, q, k, v, mask=None):
            eye = torch.eye(k.size(-2), dtype=v.dtype, device=v.device)
            eye = eye.expand(*k.shape[:-2], -1, -1)
            weights = self.dropout(F.scaled_dot_product_attention(q, k, eye, attn_mask=mask))
            return weights @ v, weights
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

PLAIN = """
    import math
    import torch
    import torch.nn as nn

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.d_k = n_embd
            self.attn_drop = nn.Dropout(dropout)

        def forward(self, q, k, v, mask=None):
            scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.d_k)
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            attn = torch.softmax(scores, dim=-1)
            attn = self.attn_drop(attn)
            out = torch.matmul(attn, v)
            return out, attn
"""
bank.wrong_edit(
    "module-remembers",
    "the mask of the first call is kept",
    (
        "if mask is not None:",
        "if mask is not None:\n            if getattr(self, 'kept', None) is None or self.kept.shape != mask.shape:\n                self.kept = mask\n            mask = self.kept",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "module-remembers",
    "a mask given once is used again when none is given",
    (
        "if mask is not None:",
        "if mask is None:\n            mask = getattr(self, 'mask', None)\n            if mask is not None and mask.shape[-1] != k.shape[-2]:\n                mask = None\n        self.mask = mask\n        if mask is not None:",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "edits-input",
    "the caller's mask is inverted in place",
    ("~mask", "mask.logical_not_()"),
    base=PLAIN,
)
bank.wrong_edit(
    "mask-transposed", "the mask transposed", ("~mask", "~mask.transpose(-2, -1)"), base=PLAIN
)
bank.wrong_edit(
    "mask-cut-square",
    "the mask cut to T columns",
    ("~mask", "~mask[..., : q.size(-2), : q.size(-2)]"),
    base=PLAIN,
)
bank.wrong_edit(
    "mask-times-infinity",
    "0 times infinity",
    (
        'scores = scores.masked_fill(~mask, float("-inf"))',
        "scores = scores + (1 - mask.float()) * float('-inf')",
    ),
    base=PLAIN,
)
bank.wrong_edit("mask-finite", "masked with -10", ('float("-inf")', "-10.0"), base=PLAIN)
bank.wrong_edit(
    "mask-as-index",
    "the mask as an index",
    ('scores = scores.masked_fill(~mask, float("-inf"))', 'scores[~mask] = float("-inf")'),
    base=PLAIN,
)
bank.wrong_edit("tensor-as-condition", "if mask:", ("if mask is not None:", "if mask:"), base=PLAIN)
bank.wrong_edit(
    "bool-arithmetic",
    "1 - mask",
    ('scores = scores.masked_fill(~mask, float("-inf"))', "scores = scores + (1 - mask) * -1e9"),
    base=PLAIN,
)
bank.wrong_edit(
    "mask-ignored",
    "the mask is used in eval mode alone",
    ("if mask is not None:", "if mask is not None and not self.training:"),
    base=PLAIN,
)
bank.wrong_edit(
    "masked-without-mask",
    "causal when no mask is given",
    (
        "if mask is not None:",
        "if mask is None and q.size(-2) == k.size(-2):\n            mask = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool, device=q.device).tril()\n        if mask is not None:",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "masked-without-mask", "the mask made causal as well", ("~mask", "~mask.tril()"), base=PLAIN
)
bank.wrong_edit(
    "scale-rounded", "int(√d_k)", ("math.sqrt(self.d_k)", "int(math.sqrt(self.d_k))"), base=PLAIN
)
bank.wrong_edit("scores-rounded", "// for /", (") / math", ") // math"), base=PLAIN)
bank.wrong_edit(
    "scale-by-length", "√T", ("math.sqrt(self.d_k)", "math.sqrt(q.size(-2))"), base=PLAIN
)
bank.wrong_edit(
    "scale-by-heads",
    "√ of axis 1",
    ("math.sqrt(self.d_k)", "math.sqrt(k.size(1) if k.dim() > 2 else k.size(-1))"),
    base=PLAIN,
)
bank.right_edit(
    "√ of the values' width, which is the queries': Hugging Face's own way",
    ("math.sqrt(self.d_k)", "math.sqrt(v.size(-1))"),
    base=PLAIN,
)
bank.wrong_edit("wrong-scale", "8 for every width", ("math.sqrt(self.d_k)", "8.0"), base=PLAIN)
bank.wrong_edit(
    "wrong-scale", "the fourth root", ("math.sqrt(self.d_k)", "self.d_k ** 0.25"), base=PLAIN
)
bank.wrong_edit(
    "output-scaled",
    "the values divided as well",
    ("torch.matmul(attn, v)", "torch.matmul(attn, v / math.sqrt(self.d_k))"),
    base=PLAIN,
)
bank.wrong_edit(
    "scores-from-values",
    "k and v have changed places",
    ("torch.matmul(q, k.", "torch.matmul(q, v."),
    ("torch.matmul(attn, v)", "torch.matmul(attn, k)"),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-twice",
    "dropout on the output as well",
    ("return out, attn", "return self.attn_drop(out), attn"),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-on-values",
    "dropout on the values",
    ("attn = self.attn_drop(attn)", "v = self.attn_drop(v)"),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-renormalised",
    "the rows sum to 1 again after dropout",
    (
        "attn = self.attn_drop(attn)",
        "attn = self.attn_drop(attn)\n        attn = attn / attn.sum(-1, keepdim=True).clamp_min(1e-9)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-repeats",
    "one dropout mask for good",
    (
        "attn = self.attn_drop(attn)",
        "if self.training:\n            if not hasattr(self, 'keep') or self.keep.shape != attn.shape:\n                self.keep = (torch.rand_like(attn) > self.attn_drop.p) / (1 - self.attn_drop.p)\n            attn = attn * self.keep",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "dropout-missing",
    "no dropout when there is a mask",
    ("attn = self.attn_drop(attn)", "if mask is None:\n            attn = self.attn_drop(attn)"),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in forward",
    ("attn = self.attn_drop(attn)", "torch.manual_seed(42)\n        attn = self.attn_drop(attn)"),
    base=PLAIN,
)
bank.wrong_edit(
    "wrong-signature",
    "the mask is called attn_mask",
    ("v, mask=None):", "v, attn_mask=None):\n        mask = attn_mask"),
    base=PLAIN,
)
bank.right_edit(
    "the logarithm of the mask is added",
    (
        'scores = scores.masked_fill(~mask, float("-inf"))',
        "scores = scores + mask.to(scores.dtype).log()",
    ),
    base=PLAIN,
)
bank.right_edit(
    "rows with no key give zeros; a list comes back",
    (
        "attn = torch.softmax(scores, dim=-1)",
        "attn = torch.nan_to_num(torch.softmax(scores, dim=-1))",
    ),
    ("return out, attn", "return [out, attn]"),
    base=PLAIN,
)
bank.right_edit(
    "torch.where",
    (
        'scores = scores.masked_fill(~mask, float("-inf"))',
        "scores = torch.where(mask, scores, float('-inf'))",
    ),
    base=PLAIN,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "mask-after-softmax",
    "masked after the softmax, and the rows brought to 1 again",
    (MASK, "pass"),
    (
        SOFTMAX,
        "weights = torch.softmax(scores, dim=-1)\n        if mask is not None:\n"
        "            weights = weights * mask\n"
        "            weights = weights / weights.sum(-1, keepdim=True)\n"
        "        weights = self.dropout(weights)",
    ),
)
bank.wrong_edit("mask-plus-inf", "+inf", (MASK, MASK.replace('float("-inf")', 'float("inf")')))
bank.wrong_edit(
    "mask-zero",
    "torch.tril on the scores",
    (MASK, "scores = torch.where(mask, scores, torch.zeros_like(scores))"),
)
bank.wrong_edit(
    "mask-added",
    "attn_mask as a float, added",
    (MASK, "scores = scores + mask.float()"),
)
bank.wrong_edit(
    "mask-finite",
    "the smallest number minus the scores' own",
    (MASK, "scores = scores.masked_fill(~mask, float(scores.min()) - 1.0)"),
)
bank.wrong_edit("product-order", "v first", (RETURN, "return v @ weights, weights"))
bank.wrong_edit(
    "scale-twice",
    "scaled, and again by the fused kernel",
    (
        RETURN,
        "return nn.functional.scaled_dot_product_attention(q * self.scale, k, v, mask), weights",
    ),
)
bank.wrong_edit(
    "softmax-over-queries",
    "einsum, and a softmax over axis -2",
    (SCORES, 'scores = torch.einsum("...td,...sd->...ts", q, k) * self.scale'),
    (SOFTMAX, SOFTMAX.replace("dim=-1", "dim=-2")),
)
bank.wrong_edit(
    "no-scale",
    "no scaling, and the values are keys",
    (SCORES, "scores = q @ k.transpose(-2, -1)"),
    (RETURN, "return weights @ k, weights"),
    also="values-are-keys",
)
bank.wrong_edit(
    "dropout-on-scores",
    "dropout before the softmax, and the mask after it",
    (SCORES, SCORES.replace("q @", "self.dropout(q @").replace(" * self", ") * self")),
    (SOFTMAX, "weights = torch.softmax(scores, dim=-1)"),
)
bank.wrong_edit(
    "scale-by-d",
    "divided by d_k twice over, as q / √d and k / √d",
    (SCORES, "q, k = q / q.size(-1) ** 0.5, k / k.size(-1) ** 0.5\n        scores = q @ k.mT"),
)
bank.wrong_edit(
    "number-for-a-tensor",
    "torch.sqrt of a number",
    (SCORES, "scores = q @ k.transpose(-2, -1) / torch.sqrt(q.size(-1))"),
)
