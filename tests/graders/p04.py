"""Problem 04: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(4)

REFUSE = "if n_embd % n_head != 0:"
MESSAGE = 'raise ValueError(f"n_embd = {n_embd} is not divisible by n_head = {n_head}")'
HEAD_DIM = "self.head_dim = n_embd // n_head"
C_ATTN = "self.c_attn = nn.Linear(n_embd, 3 * n_embd)"
ATTN_DROP = "self.head_dim, dropout if attn_dropout is None else attn_dropout"
C_PROJ = "self.c_proj = nn.Linear(n_embd, n_embd)"
RESID = "self.resid_dropout = nn.Dropout(dropout)"
SPLIT = "return x.view(B, T, self.n_head, self.head_dim).transpose(1, 2)"
MERGE = "return x.transpose(1, 2).reshape(B, T, H * D)"
QKV = "q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))"
ATTEND = "y, _ = self.attention(q, k, v)"
OUT = "return self.resid_dropout(self.c_proj(self.merge_heads(y)))"

for order in ("q, v, k", "k, q, v", "k, v, q", "v, q, k", "v, k, q"):
    bank.wrong_edit("qkv-order", f"thirds as {order}", (QKV, QKV.replace("q, k, v", order)))
bank.wrong_edit("qkv-order", "attention(k, q, v)", (ATTEND, "y, _ = self.attention(k, q, v)"))
bank.wrong_edit("values-are-keys", "attention(q, k, k)", (ATTEND, "y, _ = self.attention(q, k, k)"))
bank.wrong_edit(
    "one-projection-for-all", "attention(q, q, q)", (ATTEND, "y, _ = self.attention(q, q, q)")
)
bank.wrong_edit(
    "split-by-view-alone",
    "viewed straight to (B, H, T, D)",
    (SPLIT, "return x.reshape(B, self.n_head, T, self.head_dim)"),
)
bank.wrong_edit(
    "split-not-transposed",
    "no transpose in split_heads",
    (SPLIT, "return x.view(B, T, self.n_head, self.head_dim)"),
)
bank.wrong_edit(
    "heads-interleaved",
    "split_heads interleaves",
    (SPLIT, "return x.view(B, T, self.head_dim, self.n_head).permute(0, 3, 1, 2)"),
)
bank.wrong_edit(
    "split-sizes-swapped",
    "head_dim heads of n_head numbers",
    (SPLIT, "return x.view(B, T, self.head_dim, self.n_head).transpose(1, 2)"),
)
bank.wrong_edit(
    "split-last-axes-swapped",
    "(B, H, D, T)",
    (SPLIT, "return x.view(B, T, self.n_head, self.head_dim).permute(0, 2, 3, 1)"),
)
bank.wrong_edit("split-axes-permuted", "transpose(1, 3)", (SPLIT, SPLIT.replace("1, 2", "1, 3")))
bank.wrong_edit(
    "merge-not-transposed", "no transpose in merge_heads", (MERGE, "return x.reshape(B, T, H * D)")
)
bank.wrong_edit(
    "view-after-transpose", "view after transpose", (MERGE, MERGE.replace("reshape", "view"))
)
bank.wrong_edit(
    "heads-interleaved",
    "merge_heads interleaves",
    (MERGE, "return x.permute(0, 2, 3, 1).reshape(B, T, H * D)"),
)
bank.wrong_edit("merge-averages-heads", "mean over heads", (MERGE, "return x.mean(1)"))
bank.wrong_edit("merge-not-flattened", "not flattened", (MERGE, "return x.transpose(1, 2)"))
bank.wrong_edit(
    "attends-across-heads",
    "heads split without transpose inside forward",
    (QKV, "q, k, v = self.c_attn(x).view(*x.shape[:2], 3, self.n_head, -1).unbind(2)"),
    (OUT, OUT.replace("self.merge_heads(y)", "y.flatten(2)")),
)
bank.wrong_edit(
    "qkv-per-head",
    "c_attn read head by head",
    (
        QKV,
        "q, k, v = self.c_attn(x).view(*x.shape[:2], self.n_head, 3, -1).permute(3, 0, 2, 1, 4)",
    ),
)
bank.wrong_edit(
    "qkv-interleaved",
    "every third column",
    (
        QKV,
        "q, k, v = map(self.split_heads, self.c_attn(x).view(*x.shape, 3).unbind(-1))",
    ),
)
bank.wrong_edit("chunk-wrong-axis", "chunk over tokens", (QKV, QKV.replace("dim=-1", "dim=1")))
bank.wrong_edit("chunk-wrong-axis", "chunk over the batch", (QKV, QKV.replace(", dim=-1", "")))
bank.wrong_edit("split-takes-sizes", "split(3)", (QKV, QKV.replace(".chunk", ".split")))
bank.wrong_edit(
    "heads-not-split",
    "one wide head",
    (QKV, "q, k, v = self.c_attn(x).chunk(3, dim=-1)"),
    (OUT, OUT.replace("self.merge_heads(y)", "y")),
)
bank.wrong_edit(
    "scale-by-n-embd",
    "attention told n_embd",
    (ATTN_DROP, ATTN_DROP.replace("self.head_dim", "n_embd")),
)
bank.wrong_edit(
    "scale-by-n-head",
    "attention told n_head",
    (ATTN_DROP, ATTN_DROP.replace("self.head_dim", "n_head")),
)
bank.wrong_edit(
    "scale-by-d",
    "scaled before the attention as well",
    (ATTEND, "y, _ = self.attention(q / self.head_dim**0.5, k, v)"),
)
bank.wrong_edit(
    "c-proj-missing", "no c_proj", (OUT, "return self.resid_dropout(self.merge_heads(y))")
)
bank.wrong_edit(
    "c-proj-transposed",
    "y @ weight",
    (
        OUT,
        "return self.resid_dropout(self.merge_heads(y) @ self.c_proj.weight + self.c_proj.bias)",
    ),
)
bank.wrong_edit("residual-added", "x added", (OUT, OUT.replace("return", "return x +")))
bank.wrong_edit(
    "resid-dropout-missing", "no output dropout", (OUT, "return self.c_proj(self.merge_heads(y))")
)
bank.wrong_edit(
    "dropout-before-c-proj",
    "dropout before c_proj",
    (OUT, "return self.c_proj(self.resid_dropout(self.merge_heads(y)))"),
)
bank.wrong_edit(
    "attn-dropout-ignored", "attn_dropout ignored", (ATTN_DROP, "self.head_dim, dropout")
)
bank.wrong_edit(
    "attn-dropout-zero-ignored",
    "attn_dropout or dropout",
    (ATTN_DROP, "self.head_dim, attn_dropout or dropout"),
)
bank.wrong_edit(
    "attn-dropout-none-ignored",
    "None taken for 0",
    (ATTN_DROP, "self.head_dim, attn_dropout or 0.0"),
)
bank.wrong_edit("attn-dropout-missing", "no p given", (ATTN_DROP, "self.head_dim, 0.0"))
bank.wrong_edit("attn-dropout-rate", "SDPA's own default", (ATTN_DROP, "self.head_dim"))
bank.wrong_edit(
    "dropouts-swapped",
    "dropouts swapped",
    (ATTN_DROP, "self.head_dim, dropout"),
    (RESID, "self.resid_dropout = nn.Dropout(dropout if attn_dropout is None else attn_dropout)"),
)
bank.wrong_edit(
    "resid-dropout-rate", "p = 0.1 always", (RESID, "self.resid_dropout = nn.Dropout(0.1)")
)
bank.wrong_edit("indivisible-accepted", "nothing refused", (REFUSE, "if False:"))
bank.wrong_edit("indivisible-accepted", "n_head % n_embd", (REFUSE, "if n_head % n_embd == 0:"))
bank.wrong_edit(
    "unhelpful-error", "an error without numbers", (MESSAGE, 'raise ValueError("not divisible")')
)
bank.wrong_edit(
    "wrong-error-type",
    "assert",
    (REFUSE, "assert n_embd % n_head == 0, (n_embd, n_head)\n        if False:"),
)
bank.wrong_edit("wrong-head-dim", "a float", (HEAD_DIM, "self.head_dim = n_embd / n_head"))
bank.wrong_edit(
    "bias-missing", "bias=False", (C_ATTN, C_ATTN.replace("3 * n_embd", "3 * n_embd, bias=False"))
)
bank.wrong_edit(
    "bias-missing", "c_proj bias=False", (C_PROJ, C_PROJ.replace("d)", "d, bias=False)"))
)
bank.wrong_edit("wrong-c-attn", "one third", (C_ATTN, "self.c_attn = nn.Linear(n_embd, n_embd)"))
bank.wrong_edit(
    "missing-attribute", "c_attn under another name", (C_ATTN, C_ATTN.replace("c_attn", "qkv"))
)
bank.wrong_edit(
    "missing-attribute",
    "no n_head",
    ("self.n_head = n_head", "self.heads = n_head"),
    (SPLIT, SPLIT.replace("n_head", "heads")),
)
bank.wrong_edit(
    "tuple-not-unpacked", "the pair taken for the output", (ATTEND, "y = self.attention(q, k, v)")
)
bank.wrong_edit("no-return", "no return", (OUT, OUT.replace("return", "y =")))
bank.wrong_edit(
    "dropout-in-eval",
    "F.dropout without training=",
    (OUT, "return nn.functional.dropout(self.c_proj(self.merge_heads(y)), self.resid_dropout.p)"),
)
bank.wrong_edit("no-gradient", "keys detached", (ATTEND, "y, _ = self.attention(q, k.detach(), v)"))
bank.wrong_edit(
    "causal-too-early",
    "causal",
    (ATTEND, "y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)"),
)
bank.wrong_edit(
    "softmax-over-queries",
    "own attention, softmax over queries",
    (ATTEND, "y = (q @ k.mT / self.head_dim**0.5).softmax(-2) @ v"),
)
bank.wrong_file(
    "attn-dropout-on-values",
    "own attention, dropout on its output",
    """
    from torch import nn
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head:
                raise ValueError(f"{n_embd} % {n_head} != 0")
            self.n_head, self.head_dim = n_head, n_embd // n_head
            self.c_attn = nn.Linear(n_embd, n_embd * 3)
            self.attention = ScaledDotProductAttention(self.head_dim, 0.0)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attn_dropout = nn.Dropout(dropout if attn_dropout is None else attn_dropout)
            self.resid_dropout = nn.Dropout(dropout)

        def split_heads(self, x):
            b, t, c = x.size()
            return x.view(b, t, self.n_head, c // self.n_head).permute(0, 2, 1, 3)

        def merge_heads(self, x):
            b, h, t, d = x.size()
            return x.permute(0, 2, 1, 3).contiguous().view(b, t, h * d)

        def forward(self, x):
            q, k, v = self.c_attn(x).split(x.size(-1), dim=2)
            q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
            y, weights = self.attention(q, k, v)
            y = self.attn_dropout(y)
            return self.resid_dropout(self.c_proj(self.merge_heads(y)))
    """,
)
bank.wrong_file(
    "missing-attribute",
    "three projections",
    """
    from torch import nn
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head:
                raise ValueError(f"{n_embd} % {n_head} != 0")
            self.n_head, self.head_dim = n_head, n_embd // n_head
            self.query = nn.Linear(n_embd, n_embd)
            self.key = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)
            self.attention = ScaledDotProductAttention(self.head_dim, dropout)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.resid_dropout = nn.Dropout(dropout)

        def split_heads(self, x):
            return x.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

        def merge_heads(self, x):
            return x.transpose(1, 2).flatten(2)

        def forward(self, x):
            q, k, v = (self.split_heads(f(x)) for f in (self.query, self.key, self.value))
            return self.resid_dropout(self.c_proj(self.merge_heads(self.attention(q, k, v)[0])))
    """,
)

# what an author who has not seen the table came up with
bank.wrong_edit(
    "c-proj-twice",
    "c_proj twice",
    (OUT, "return self.resid_dropout(self.c_proj(self.c_proj(self.merge_heads(y))))"),
)
bank.wrong_edit(
    "dropout-twice",
    "dropout twice",
    (OUT, "return self.resid_dropout(self.resid_dropout(self.c_proj(self.merge_heads(y))))"),
)
bank.wrong_edit(
    "dropout-misplaced", "dropout on x as well", (QKV, "x = self.resid_dropout(x)\n        " + QKV)
)
bank.wrong_edit(
    "dropout-whole-tokens",
    "dropout1d",
    (
        OUT,
        "y = self.c_proj(self.merge_heads(y))\n        return nn.functional.dropout1d(y, "
        "self.resid_dropout.p, self.training)",
    ),
)
bank.wrong_edit(
    "attn-dropout-rate",
    "half the p",
    (ATTN_DROP, "self.head_dim, (dropout if attn_dropout is None else attn_dropout) / 2"),
)
bank.wrong_edit(
    "heads-averaged",
    "every head gets the mean",
    (ATTEND, ATTEND + "\n        y = y.mean(1, keepdim=True).expand_as(y)"),
)
bank.wrong_edit(
    "one-head-for-all",
    "head 0 alone attends",
    (ATTEND, "y = self.attention(q[:, :1], k[:, :1], v[:, :1])[0].expand_as(q)"),
)
bank.wrong_edit(
    "size-hard-coded",
    "five heads written in",
    (SPLIT, "return x.view(B, T, 5, x.size(-1) // 5).transpose(1, 2)"),
)
bank.wrong_edit(
    "shape-mismatch",
    "four heads written in",
    (SPLIT, "return x.view(B, T, 4, x.size(-1) // 4).transpose(1, 2)"),
)
bank.wrong_edit(
    "merge-axes-permuted",
    "batch and tokens swapped",
    (MERGE, "return x.permute(2, 0, 1, 3).reshape(B, T, H * D)"),
)
bank.wrong_edit(
    "split-across-tokens",
    "transposed before it is cut",
    (SPLIT, "return x.transpose(1, 2).reshape(B, self.n_head, T, self.head_dim)"),
)
bank.wrong_edit(
    "weights-for-output", "the weights taken", (ATTEND, "_, y = self.attention(q, k, v)")
)
bank.wrong_edit("wrong-default", "dropout=0.0", ("dropout: float = 0.1", "dropout: float = 0.0"))
bank.wrong_edit(
    "wrong-signature", "n_head first", ("n_embd: int, n_head: int", "n_head: int, n_embd: int")
)
bank.wrong_edit("edits-input", "x edited", (QKV, "x += 0.1\n        " + QKV))
bank.wrong_edit(
    "divisible-refused", "one head refused", (REFUSE, "if n_head < 2 or n_embd % n_head:")
)

bank.wrong_file(
    "heads-in-a-loop",
    "a loop over heads, weights cut out of c_attn by hand",
    """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            head_dim, rest = divmod(n_embd, n_head)
            if rest:
                raise ValueError("can't share %d columns among %d heads" % (n_embd, n_head))
            self.n_head, self.head_dim = n_head, head_dim
            p = attn_dropout if attn_dropout is not None else dropout
            self.attention = ScaledDotProductAttention(head_dim, dropout=p)
            self.c_attn, self.c_proj = nn.Linear(n_embd, 3 * n_embd), nn.Linear(n_embd, n_embd)
            self.resid_dropout = nn.Dropout(p=dropout)

        def split_heads(self, x):
            d = self.head_dim
            return torch.stack([x[..., h * d : (h + 1) * d] for h in range(self.n_head)], dim=1)

        def merge_heads(self, x):
            return torch.cat([x[:, h] for h in range(x.shape[1])], dim=-1)

        def forward(self, x):
            wq, wk, wv = self.c_attn.weight.chunk(3)
            bq, bk, bv = self.c_attn.bias.chunk(3)
            d, outs = self.head_dim, []
            for h in range(self.n_head):
                rows = slice(h * d, (h + 1) * d)
                q = F.linear(x, wq[rows], bq[rows])
                k = F.linear(x, wk[rows], bk[rows])
                v = F.linear(x, wv[rows], bv[rows])
                outs.append(self.attention(q, k, v)[0])
            return self.resid_dropout(self.c_proj(torch.cat(outs, -1)))
    """,
)
bank.right_file(
    "PyTorch's fused kernel, permute, functional dropout, a static merge",
    """
    import torch.nn.functional as F
    from torch import nn
    import gpt2.model

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            self._check(n_embd, n_head)
            self.n_embd = n_embd
            self.n_head = n_head
            self.head_dim = n_embd // n_head
            self.c_attn = nn.Linear(n_embd, 3 * n_embd, bias=True)
            self.c_proj = nn.Linear(n_embd, n_embd, bias=True)
            self.p = dropout
            self.attn_p = dropout if attn_dropout is None else attn_dropout
            self.attention = gpt2.model.ScaledDotProductAttention(self.head_dim, self.attn_p)
            self.resid_dropout = nn.Dropout(dropout)

        @staticmethod
        def _check(n_embd, n_head):
            if n_embd != n_head * (n_embd // n_head):
                raise ValueError(f"n_embd={n_embd} must be a multiple of n_head={n_head}")

        def split_heads(self, x):
            return x.unflatten(-1, (self.n_head, self.head_dim)).permute(0, 2, 1, 3)

        @staticmethod
        def merge_heads(x):
            return x.swapaxes(1, 2).flatten(start_dim=2)

        def forward(self, x):
            B, T, C = x.shape
            qkv = self.c_attn(x).view(B, T, 3, self.n_head, self.head_dim).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(
                qkv[0], qkv[1], qkv[2], dropout_p=self.attn_p if self.training else 0.0
            )
            y = y.transpose(1, 2).contiguous().view(B, T, C)
            return F.dropout(self.c_proj(y), self.p, self.training)
    """,
)
bank.right_file(
    "einsum throughout, the attention written out",
    """
    import math
    import torch
    from torch import Tensor, nn
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(
            self, n_embd: int, n_head: int, dropout: float = 0.1, attn_dropout: float | None = None
        ):
            if n_embd % n_head != 0:
                raise ValueError(f"n_embd {n_embd} not divisible by n_head {n_head}")
            super().__init__()
            if attn_dropout is None:
                attn_dropout = dropout
            self.n_head = n_head
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attention = ScaledDotProductAttention(n_embd // n_head, attn_dropout)
            self.weights_dropout = nn.Dropout(attn_dropout)
            self.resid_dropout = nn.Dropout(dropout)

        @property
        def head_dim(self):
            return self.c_proj.in_features // self.n_head

        def split_heads(self, x: Tensor) -> Tensor:
            b, t, _ = x.shape
            return torch.einsum("bthd->bhtd", x.reshape(b, t, self.n_head, -1))

        def merge_heads(self, x: Tensor) -> Tensor:
            return torch.einsum("bhtd->bthd", x).reshape(x.shape[0], x.shape[2], -1)

        def forward(self, x: Tensor) -> Tensor:
            C = x.shape[-1]
            qkv = self.c_attn(x)
            q = self.split_heads(qkv[..., :C])
            k = self.split_heads(qkv[..., C : 2 * C])
            v = self.split_heads(qkv[..., 2 * C :])
            att = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(self.head_dim)
            att = self.weights_dropout(att.softmax(-1))
            return self.resid_dropout(self.c_proj(self.merge_heads(att @ v)))
    """,
)
bank.right_file(
    "subclass of nn.Linear for the projection, heads folded into the batch",
    """
    import torch
    from torch import nn
    from gpt2 import model as parts

    class Projection(nn.Linear):
        pass

    class Base(nn.Module):
        def split_heads(self, x):
            return torch.stack(torch.split(x, self.head_dim, dim=2), dim=1)

        def merge_heads(self, x):
            B, H, T, D = x.shape
            out = x.new_empty(B, T, H * D)
            for h in range(H):
                out[..., h * D : (h + 1) * D] = x[:, h]
            return out

    class MultiHeadAttention(Base):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None, **unused):
            super().__init__()
            if n_embd / n_head != n_embd // n_head:
                raise ValueError(str({"n_embd": n_embd, "n_head": n_head}))
            self.n_head = int(n_head)
            self.head_dim = int(n_embd / n_head)
            self.c_attn = Projection(n_embd, n_embd * 3)
            self.c_proj = Projection(n_embd, n_embd)
            if attn_dropout is None:
                self.attention = parts.ScaledDotProductAttention(self.head_dim, dropout)
            else:
                self.attention = parts.ScaledDotProductAttention(self.head_dim, attn_dropout)
            self.resid_dropout = nn.Dropout(dropout)

        def forward(self, x):
            B, T, C = x.size()
            q, k, v = torch.tensor_split(self.c_attn(x), 3, dim=-1)
            flat = [self.split_heads(t).reshape(B * self.n_head, T, -1) for t in (q, k, v)]
            y = self.attention(*flat)[0].view(B, self.n_head, T, -1)
            y = self.c_proj(self.merge_heads(y))
            y = self.resid_dropout(y)
            return y
    """,
)
bank.right_file(
    "own SDPA in the file, vmap over heads",
    """
    import torch
    from torch import nn
    import gpt2.model as gm
    class ScaledDotProductAttention(gm.ScaledDotProductAttention):
        pass
    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head > 0:
                msg = "n_embd=%s n_head=%s" % (n_embd, n_head)
                raise ValueError(msg)
            self.n_head = n_head
            self.head_dim = n_embd // n_head
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attention = ScaledDotProductAttention(self.head_dim, {None: dropout}.get(attn_dropout, attn_dropout))
            self.resid_dropout = nn.Dropout(dropout)
        def split_heads(self, x):
            return torch.cat([h.unsqueeze(1) for h in x.split(self.head_dim, dim=-1)], 1)
        def merge_heads(self, x):
            return torch.movedim(x, 1, 2).flatten(-2)
        def forward(self, x):
            w = self.c_attn.weight.view(3, -1, x.size(-1)); bias = self.c_attn.bias.view(3, -1)
            q, k, v = (self.split_heads(x @ w[i].T + bias[i]) for i in range(3))
            y = self.attention(q=q, k=k, v=v, mask=None)
            return self.resid_dropout(self.c_proj(self.merge_heads(y[0])))
    """,
)
bank.right_file(
    "heads folded with a full mask, bmm",
    """
    import torch, math
    from torch import nn
    from gpt2.model import ScaledDotProductAttention
    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd: int, n_head: int, dropout: float = 1e-1, attn_dropout=None):
            super(MultiHeadAttention, self).__init__()
            self.n_head = n_head
            self.head_dim = self.width(n_embd, n_head)
            for name, out in dict(c_attn=3 * n_embd, c_proj=n_embd).items():
                setattr(self, name, nn.Linear(n_embd, out))
            self.resid_dropout = nn.Dropout(dropout)
            self.attention = ScaledDotProductAttention(n_embd=self.head_dim, dropout=dropout if attn_dropout is None else attn_dropout)
        def width(self, c, h):
            try:
                assert c % h == 0
            except AssertionError:
                raise ValueError(f"cannot split {c} columns into {h} heads") from None
            return c // h
        def split_heads(self, x):
            b, t, c = x.shape
            return x.reshape(b, t, self.n_head, c // self.n_head).transpose(-3, -2)
        def merge_heads(self, x):
            x = x.transpose(-3, -2).contiguous()
            return x.view(*x.shape[:-2], -1)
        def forward(self, x):
            B, T, C = x.shape
            q, k, v = [t.reshape(B * self.n_head, T, -1) for t in map(self.split_heads, torch.chunk(self.c_attn(x), 3, 2))]
            mask = torch.ones((T, T), dtype=torch.bool, device=x.device)
            out, _ = self.attention(q, k, v, mask)
            return self.resid_dropout(self.c_proj(self.merge_heads(out.reshape(B, self.n_head, T, -1))))
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

PLAIN = """
    import torch
    import torch.nn as nn
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head != 0:
                raise ValueError(f"n_embd={n_embd} must be divisible by n_head={n_head}")
            if attn_dropout is None:
                attn_dropout = dropout
            self.n_embd = n_embd
            self.n_head = n_head
            self.head_dim = n_embd // n_head
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.attention = ScaledDotProductAttention(self.head_dim, attn_dropout)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.resid_dropout = nn.Dropout(dropout)

        def split_heads(self, x):
            B, T, C = x.shape
            return x.view(B, T, self.n_head, self.head_dim).transpose(1, 2)

        def merge_heads(self, x):
            B, H, T, D = x.shape
            return x.transpose(1, 2).contiguous().view(B, T, H * D)

        def forward(self, x):
            q, k, v = self.c_attn(x).split(self.n_embd, dim=-1)
            q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
            out, _ = self.attention(q, k, v)
            out = self.merge_heads(out)
            return self.resid_dropout(self.c_proj(out))
"""
bank.wrong_edit(
    "heads-in-a-loop",
    "one call of the attention per head",
    (
        "out, _ = self.attention(q, k, v)",
        "out = torch.cat([self.attention(q[:, h : h + 1], k[:, h : h + 1], v[:, h : h + 1])[0] for h in range(self.n_head)], dim=1)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "module-remembers",
    "the batch size of the first call is kept",
    (
        "return x.view(B, T, self.n_head",
        "if not hasattr(self, 'bs'):\n            self.bs = B\n        return x.reshape(self.bs, -1, self.n_head",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "shared-memory",
    "c_proj lies in c_attn's memory",
    (
        "self.c_proj = nn.Linear(n_embd, n_embd)",
        "self.c_proj = nn.Linear(n_embd, n_embd)\n        self.c_proj.weight.data = self.c_attn.weight.data[:n_embd]",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "shared-between-modules",
    "one c_proj for all modules of a width",
    ("class MultiHeadAttention", "PROJ = {}\n\nclass MultiHeadAttention"),
    (
        "self.c_proj = nn.Linear(n_embd, n_embd)",
        "self.c_proj = PROJ.setdefault(n_embd, nn.Linear(n_embd, n_embd))",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "divisible-refused",
    "n_head % n_embd",
    ("n_embd % n_head != 0", "n_head % n_embd != 0"),
    base=PLAIN,
)
bank.wrong_edit(
    "split-by-view-alone",
    "v alone is not split",
    (
        "q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)",
        "q, k, v = self.split_heads(q), self.split_heads(k), v.reshape(q.size(0), self.n_head, q.size(1), self.head_dim)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "cosine-scores",
    "q and k brought to length 1",
    (
        "out, _ = self.attention(q, k, v)",
        "q, k = nn.functional.normalize(q, dim=-1), nn.functional.normalize(k, dim=-1)\n        out, _ = self.attention(q, k, v)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "activation-added",
    "a ReLU before c_proj",
    ("out = self.merge_heads(out)", "out = torch.relu(self.merge_heads(out))"),
    base=PLAIN,
)
bank.wrong_edit(
    "layer-norm-added",
    "x normalized first",
    (
        "q, k, v = self.c_attn(x).split(self.n_embd, dim=-1)",
        "x = nn.functional.layer_norm(x, x.shape[-1:])\n        q, k, v = self.c_attn(x).split(self.n_embd, dim=-1)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "causal-too-early",
    "causal in training alone",
    (
        "out, _ = self.attention(q, k, v)",
        "m = torch.ones(x.size(1), x.size(1), dtype=torch.bool, device=x.device).tril() if self.training else None\n        out, _ = self.attention(q, k, v, m)",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "seed-set",
    "the seed is set in __init__",
    ("super().__init__()", "super().__init__()\n        torch.manual_seed(0)"),
    base=PLAIN,
)
bank.right_edit(
    "c_attn's weight as (3, H, D, C) in one einsum",
    (
        "q, k, v = self.c_attn(x).split(self.n_embd, dim=-1)\n        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)",
        "W = self.c_attn.weight.view(3, self.n_head, self.head_dim, self.n_embd)\n        b = self.c_attn.bias.view(3, 1, self.n_head, 1, self.head_dim)\n        q, k, v = torch.einsum('btc,nhdc->nbhtd', x, W) + b",
    ),
    base=PLAIN,
)
bank.right_edit(
    "heads in the batch axis, three axes",
    (
        "q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)",
        "fold = lambda t: self.split_heads(t).flatten(0, 1)\n        q, k, v = fold(q), fold(k), fold(v)",
    ),
    (
        "out = self.merge_heads(out)",
        "out = self.merge_heads(out.unflatten(0, (x.size(0), self.n_head)))",
    ),
    base=PLAIN,
)

# ── mistakes as public code has them, in other styles, and two at once
bank.wrong_edit(
    "missing-attribute",
    "c_attn called qkv, beside a right c_proj",
    (C_ATTN, C_ATTN.replace("c_attn", "_qkv")),
    (QKV, QKV.replace("c_attn", "_qkv")),
)
bank.wrong_edit(
    "merge-averages-heads",
    "the mean over heads, repeated for each",
    (MERGE, "return x.mean(1).repeat(1, 1, H)"),
)
bank.wrong_edit(
    "heads-averaged",
    "the mean over heads, repeated for each, in forward",
    (OUT, OUT.replace("self.merge_heads(y)", "y.mean(1).repeat(1, 1, self.n_head)")),
)
OWN = """
        q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))
        att = {scores}
        y = {product}
"""


def own(scores, product):
    """The attention written out in forward."""
    return (QKV, OWN.format(scores=scores, product=product).strip()), (ATTEND, "")


PLAIN_SCORES = "q @ k.transpose(-2, -1)"
bank.wrong_edit(
    "scale-after-softmax",
    "scaled after the softmax",
    *own(f"({PLAIN_SCORES}).softmax(-1) / self.head_dim**0.5", "att @ v"),
)
bank.wrong_edit(
    "wrong-scale",
    "divided by 8, GPT-2's √64",
    *own(f"({PLAIN_SCORES} / 8).softmax(-1)", "att @ v"),
)
bank.wrong_edit(
    "wrong-scale",
    "divided by 2·√head_dim",
    *own(f"({PLAIN_SCORES} / (2 * self.head_dim**0.5)).softmax(-1)", "att @ v"),
)
bank.wrong_edit(
    "product-order",
    "v @ weights",
    *own(f"({PLAIN_SCORES} / self.head_dim**0.5).softmax(-1)", "v @ att"),
)
bank.wrong_edit(
    "weights-transposed",
    "einsum with the weights' axes exchanged",
    *own(
        f"({PLAIN_SCORES} / self.head_dim**0.5).softmax(-1)",
        'torch.einsum("bhst,bhsd->bhtd", att, v)',
    ),
    ("from torch import Tensor, nn\n", "import torch\nfrom torch import Tensor, nn\n"),
)
bank.wrong_edit(
    "softmax-over-heads",
    "softmax over axis 1",
    *own(f"({PLAIN_SCORES} / self.head_dim**0.5).softmax(1)", "att @ v"),
)
bank.wrong_edit(
    "scale-by-d",
    "divided by head_dim, and the thirds as q, v, k",
    *own(f"({PLAIN_SCORES} / self.head_dim).softmax(-1)", "att @ v"),
    (C_PROJ, C_PROJ + "  # as it was"),
)
bank.wrong_edit(
    "split-by-view-alone",
    "split by a view, and merged by a view that puts all back",
    (SPLIT, "return x.reshape(B, self.n_head, T, self.head_dim)"),
    (MERGE, "return x.reshape(B, T, H * D)"),
    also="merge-not-transposed",
)
bank.wrong_file(
    "missing-attribute",
    "nn.MultiheadAttention inside",
    """
    from torch import nn


    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head:
                raise ValueError(f"{n_embd} % {n_head} is not 0")
            self.n_head, self.head_dim = n_head, n_embd // n_head
            self.mha = nn.MultiheadAttention(n_embd, n_head, dropout, batch_first=True)

        def split_heads(self, x):
            return x.unflatten(-1, (self.n_head, self.head_dim)).transpose(1, 2)

        def merge_heads(self, x):
            return x.transpose(1, 2).flatten(2)

        def forward(self, x):
            return self.mha(x, x, x)[0]
    """,
)
bank.wrong_edit(
    "qkv-order",
    "torch.split in the order of keys, queries, values",
    (QKV, "k, q, v = (self.split_heads(t) for t in self.c_attn(x).split(x.size(-1), -1))"),
)
