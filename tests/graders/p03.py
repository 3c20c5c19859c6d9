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
    (SOFTMAX, "weights = F.dropout(torch.softmax(scores, dim=-1), self.dropout.p)"),
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
