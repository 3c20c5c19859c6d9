"""Problem 05: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(5)

# As a learner would write it: problem 04's forward, a mask made on the spot, 03's attention.
PLAIN = """
import torch
from gpt2.model import MultiHeadAttention


class CausalMultiHeadAttention(MultiHeadAttention):
    def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
        super().__init__(n_embd, n_head, dropout, attn_dropout)
        self.n_positions = n_positions

    def forward(self, x, cache=None):
        q, k, v = self.c_attn(x).chunk(3, dim=-1)
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        if cache is not None:
            k, v = cache.append(k, v)
        T, S = q.size(2), k.size(2)
        if S > self.n_positions:
            raise ValueError(f"{S} > n_positions = {self.n_positions}")
        mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        y, _ = self.attention(q, k, v, mask)
        y = self.c_proj(self.merge_heads(y))
        return self.resid_dropout(y)
"""
SUPER = "super().__init__(n_embd, n_head, dropout, attn_dropout)"
KEEP_P = "self.n_positions = n_positions"
QKV = "q, k, v = self.c_attn(x).chunk(3, dim=-1)"
APPEND = "k, v = cache.append(k, v)"
IF_CACHE = "if cache is not None:\n            k, v = cache.append(k, v)"
LIMIT = "if S > self.n_positions:"
RAISE = 'raise ValueError(f"{S} > n_positions = {self.n_positions}")'
MASK = "mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)"
ATTEND = "y, _ = self.attention(q, k, v, mask)"
PROJECT = "y = self.c_proj(self.merge_heads(y))"
RETURN = "return self.resid_dropout(y)"
BUFFER = 'self.register_buffer("tril", torch.ones(n_positions, n_positions).bool().tril())'


def wrong(mistake, title, *edits):
    bank.wrong_edit(mistake, title, *edits, base=PLAIN)


def own_attention(scores, after=""):
    """Attention written out in forward, for what 03's can't do."""
    return (
        "att = q @ k.transpose(-2, -1) / self.head_dim**0.5\n"
        f"        att = {scores}\n        att = att.softmax(-1)\n        {after}\n        y = att @ v"
    )


# the mask
wrong("mask-missing", "the mask is made and never applied", (ATTEND, ATTEND.replace(", mask", "")))
wrong("mask-missing", "super().forward", (QKV, "return super().forward(x)\n        " + QKV))
wrong("blocks-itself", "diagonal S − T − 1", (MASK, MASK.replace("S - T", "S - T - 1")))
wrong(
    "blocks-itself",
    "diagonal −1 with −1e9",
    (ATTEND, own_attention("att.masked_fill(~mask.tril(S - T - 1), -1e9)")),
)
wrong("sees-one-ahead", "diagonal S − T + 1", (MASK, MASK.replace("S - T", "S - T + 1")))
wrong("mask-transposed", "triu", (MASK, MASK.replace("tril", "triu")))
wrong("mask-transposed", "mask.T", (ATTEND, ATTEND.replace("mask", "mask.T if S == T else mask")))
wrong("mask-inverted", "~mask", (ATTEND, ATTEND.replace("mask", "~mask")))
wrong("sees-only-itself", "the diagonal alone", (MASK, MASK + ".triu(S - T)"))
wrong(
    "mask-after-softmax", "masked after softmax", (ATTEND, own_attention("att", "att = att * mask"))
)
wrong("mask-zero", "scores times mask", (ATTEND, own_attention("att * mask")))
wrong("mask-zero", "1e-9", (ATTEND, own_attention("att.masked_fill(~mask, 1e-9)")))
wrong("mask-added", "mask added", (ATTEND, own_attention("att + mask")))
wrong("mask-finite", "−1e4", (ATTEND, own_attention("att.masked_fill(~mask, -1e4)")))
wrong(
    "mask-missing",
    "masked_fill not assigned",
    (ATTEND, own_attention("att; att.masked_fill(~mask, -1e9)")),
)
# the mask with a past
wrong("mask-top-left", "diagonal 0", (MASK, MASK.replace("S - T", "0")))
wrong(
    "mask-top-left",
    "is_causal=True",
    (ATTEND, "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)"),
)
wrong(
    "mask-top-left",
    "a buffer cut to [:T, :S]",
    (KEEP_P, KEEP_P + "\n        " + BUFFER.replace(")", ")", 1)[:-1] + ", persistent=False)"),
    (MASK, "mask = self.tril[:T, :S]"),
)
wrong(
    "mask-ignores-past",
    "square mask of T",
    (MASK, MASK.replace("T, S", "T, T").replace("S - T", "")),
)
wrong(
    "mask-ignores-past",
    "square mask of S",
    (MASK, MASK.replace("T, S", "S, S").replace("S - T", "")),
)
wrong(
    "mask-only-without-cache",
    "no mask with a cache",
    (ATTEND, ATTEND.replace("mask", "mask if cache is None else None")),
)
wrong(
    "mask-only-when-square",
    "no mask with a past",
    (ATTEND, ATTEND.replace("mask", "mask if S == T else None")),
)
wrong(
    "past-masked",
    "the past hidden",
    (MASK, MASK + "\n        mask[:, : S - T] = False"),
)
wrong("mask-shifted-too-far", "diagonal T", (MASK, MASK.replace("S - T", "T if S > T else 0")))
wrong(
    "mask-not-cut",
    "the whole buffer",
    (KEEP_P, KEEP_P + "\n        " + BUFFER[:-1] + ", persistent=False)"),
    (MASK, "mask = self.tril"),
)
wrong(
    "size-hard-coded",
    "1024 written in",
    (
        MASK,
        "mask = torch.ones(1024, 1024, dtype=torch.bool, device=x.device).tril()[S - T : S, :S]",
    ),
)
# the mask's home
wrong("mask-in-state-dict", "a persistent buffer", (KEEP_P, KEEP_P + "\n        " + BUFFER))
wrong(
    "mask-is-a-parameter",
    "a parameter",
    (
        KEEP_P,
        KEEP_P
        + "\n        self.mask = torch.nn.Parameter(torch.ones(n_positions, n_positions).tril(), requires_grad=False)",
    ),
)
wrong("wrong-device", "made on the CPU", (MASK, MASK.replace(", device=x.device", "")))
wrong(
    "plain-attribute",
    "a plain attribute",
    (KEEP_P, KEEP_P + "\n        self.tril = torch.ones(n_positions, n_positions).bool().tril()"),
    (MASK, "mask = self.tril[S - T : S, :S]"),
)
# the cache
wrong("cache-never-appended", "the cache is ignored", (IF_CACHE, "pass"))
wrong("cache-result-ignored", "result thrown away", (APPEND, "cache.append(k, v)"))
wrong(
    "cached-values-ignored",
    "new values alone",
    (APPEND, "k, _ = cache.append(k, v)"),
)
wrong("cached-keys-ignored", "new keys alone", (APPEND, "_, v = cache.append(k, v)"))
wrong("cache-unpacked-swapped", "v, k = append", (APPEND, "v, k = cache.append(k, v)"))
wrong("cache-stores-swapped", "append(v, k)", (APPEND, "v, k = cache.append(v, k)"))
wrong("cache-stores-queries", "append(q, v)", (APPEND, "k, v = cache.append(q, v)"))
wrong("cache-stores-one-twice", "append(k, k)", (APPEND, "k, v = cache.append(k, k)"))
wrong(
    "cache-appended-twice",
    "two calls",
    (APPEND, "k, v = cache.append(k, v)[0], cache.append(k, v)[1]"),
)
wrong(
    "new-keys-twice",
    "new keys concatenated again",
    (
        APPEND,
        "k, v = (torch.cat((old, new), 2) for old, new in zip(cache.append(k, v), (k, v)))",
    ),
)
wrong(
    "cache-stores-unsplit",
    "stored before the split",
    (QKV, QKV + "\n        if cache is not None:\n            k, v = cache.append(k, v)"),
    ("        " + IF_CACHE + "\n        T, S", "        T, S"),
)
wrong(
    "cache-axes-swapped",
    "stored as (B, T, H, D)",
    (
        APPEND,
        "k, v = cache.append(k.transpose(1, 2), v.transpose(1, 2))\n"
        "            k, v = k.transpose(1, 2), v.transpose(1, 2)",
    ),
)
wrong(
    "cache-never-appended",
    "a cache of its own",
    (
        IF_CACHE,
        "if cache is not None:\n"
        '            if hasattr(self, "past"):\n'
        "                k = torch.cat((self.past[0], k), 2)\n"
        "                v = torch.cat((self.past[1], v), 2)\n"
        "            self.past = (k, v)",
    ),
)
wrong(
    "cache-never-appended",
    "the cache taken for a pair",
    (
        APPEND,
        "past_k, past_v = cache\n            k, v = torch.cat((past_k, k), 2), torch.cat((past_v, v), 2)",
    ),
)
# the limit
wrong("limit-missing", "no limit", (LIMIT, "if False:"))
wrong("limit-too-strict", "≥", (LIMIT, LIMIT.replace(">", ">=")))
wrong("limit-off-by-one", "> n + 1", (LIMIT, LIMIT.replace(":", " + 1:")))
wrong("limit-ignores-past", "T > n_positions", (LIMIT, LIMIT.replace("S", "T")))
wrong(
    "limit-too-strict",
    "S + T",
    (LIMIT, LIMIT.replace("if S", "if S + (0 if cache is None else T)")),
)
wrong("wrong-error-type", "IndexError", (RAISE, RAISE.replace("ValueError", "IndexError")))
# the rest
wrong(
    "dropout-not-passed-on",
    "super().__init__(n_embd, n_head)",
    (SUPER, "super().__init__(n_embd, n_head)"),
)
wrong(
    "attn-dropout-ignored",
    "attn_dropout not passed on",
    (SUPER, "super().__init__(n_embd, n_head, dropout)"),
)
wrong(
    "dropouts-swapped",
    "swapped",
    (
        SUPER,
        "super().__init__(n_embd, n_head, attn_dropout if attn_dropout is not None else dropout, dropout)",
    ),
)
wrong("resid-dropout-missing", "no output dropout", (RETURN, "return y"))
wrong("c-proj-missing", "no c_proj", (PROJECT, "y = self.merge_heads(y)"))
wrong("qkv-order", "k, q, v", (QKV, QKV.replace("q, k, v", "k, q, v")))
wrong(
    "scale-by-n-embd",
    "√n_embd",
    (
        ATTEND,
        "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, scale=x.size(-1) ** -0.5)",
    ),
)
wrong("merge-not-transposed", "y.reshape", (PROJECT, "y = self.c_proj(y.reshape(x.shape))"))
wrong(
    "attn-dropout-missing",
    "fused, no dropout",
    (ATTEND, "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask)"),
)
wrong(
    "dropout-in-eval",
    "fused, dropout always",
    (ATTEND, "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout_p=0.1)"),
)
wrong("not-a-tensor", "returns a pair", (RETURN, "return self.resid_dropout(y), cache"))
wrong("no-return", "no return", (RETURN, "y = self.resid_dropout(y)"))
bank.wrong_edit(
    "mask-top-left",
    "the fused kernel's is_causal for every shape",
    (
        "return self.attention(q, k, v, mask)[0]",
        "return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=T > 1)",
    ),
)
bank.wrong_file(
    "not-a-multi-head-attention",
    "an nn.Module of its own",
    """
    import torch
    from torch import nn
    from gpt2.model import ScaledDotProductAttention

    class CausalMultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__()
            self.n_head, self.head_dim = n_head, n_embd // n_head
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attention = ScaledDotProductAttention(self.head_dim, dropout)
            self.resid_dropout = nn.Dropout(dropout)

        def forward(self, x, cache=None):
            B, T, C = x.shape
            q, k, v = (
                t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).chunk(3, -1)
            )
            mask = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
            y, _ = self.attention(q, k, v, mask)
            return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)))
    """,
)
# what an author who has not seen the table came up with
wrong("mask-not-bool", "a float mask", (MASK, MASK + ".float()"))
wrong("row-without-keys", "the first row sees nothing", (MASK, MASK + "\n        mask[0] = False"))
wrong("past-lost", "a window of four", (MASK, MASK + ".triu(S - T - 3)"))
wrong("mask-shifted-too-far", "diagonal T − S", (MASK, MASK.replace("S - T", "T - S")))
wrong(
    "mask-transposed",
    "(S, T) for (T, S)",
    (MASK, MASK.replace("T, S", "S, T")),
)
wrong(
    "cache-order",
    "new keys in front",
    (
        APPEND,
        APPEND + "\n            k, v = (t.roll(x.size(1), 2) for t in (k, v))",
    ),
)
wrong(
    "past-masked",
    "the last T of all keys",
    (APPEND, APPEND + "\n            k, v = (t[:, :, -x.size(1) :] for t in (k, v))"),
)
wrong(
    "cache-stores-something-else",
    "the last token alone",
    (APPEND, "k, v = cache.append(k[:, :, -1:], v[:, :, -1:])"),
)
wrong("cache-never-appended", "the pair as one argument", (APPEND, "k, v = cache.append((k, v))"))
wrong("cache-never-appended", "another method", (APPEND, "k, v = cache.update(k, v)"))
wrong(
    "limit-too-strict", "≥ with a cache", (LIMIT, "if S > self.n_positions - (cache is not None):")
)
wrong(
    "limit-missing",
    "keys cut off instead",
    (
        LIMIT,
        "k, v = k[:, :, -self.n_positions :], v[:, :, -self.n_positions :]\n        S = k.size(2)\n        "
        + LIMIT,
    ),
)
wrong("size-hard-coded", "1024 as the limit", (LIMIT, "if S > 1024:"))
wrong(
    "parent-arguments-mixed-up",
    "n_positions as dropout",
    (SUPER, "super().__init__(n_embd, n_head, n_positions, dropout)"),
)
wrong("super-init-missing", "no super().__init__", (SUPER, "pass"))
wrong(
    "attn-dropout-zero-ignored",
    "attn_dropout or dropout",
    (SUPER, SUPER.replace("attn_dropout)", "attn_dropout or dropout)")),
)
wrong(
    "wrong-signature",
    "another name for cache",
    ("x, cache=None", "x, kv=None"),
    ("if cache is", "cache = kv\n        if cache is"),
)
wrong("wrong-default", "dropout=0.0", ("dropout=0.1", "dropout=0.0"))
wrong(
    "dropout-before-c-proj",
    "dropout before c_proj",
    (PROJECT, "y = self.resid_dropout(self.merge_heads(y))"),
    (RETURN, "return self.c_proj(y)"),
)
wrong("weights-for-output", "the weights taken", (ATTEND, "_, y = self.attention(q, k, v, mask)"))
wrong("no-gradient", "keys detached", (ATTEND, "y, _ = self.attention(q, k.detach(), v, mask)"))
wrong("residual-added", "x added", (RETURN, "return x + self.resid_dropout(y)"))
wrong("edits-input", "x edited", (QKV, "x.mul_(1.01)\n        " + QKV))

bank.right_edit("problem 04's pieces and a mask made on the spot", base=PLAIN)
bank.right_edit(
    "a non-persistent buffer",
    (KEEP_P, KEEP_P + "\n        " + BUFFER[:-1] + ", persistent=False)"),
    (MASK, "mask = self.tril[S - T : S, :S]"),
    base=PLAIN,
)
bank.right_edit(
    "comparing positions, one mask for every case",
    (
        MASK,
        "rows = torch.arange(S - T, S, device=x.device)[:, None]\n"
        "        mask = torch.arange(S, device=x.device) <= rows",
    ),
    base=PLAIN,
)
bank.right_edit("the mask with four axes", (MASK, MASK + "[None, None]"), base=PLAIN)
bank.right_file(
    "everything written out, an additive float mask, no helper of the parent's",
    """
    import math
    import torch
    import torch.nn.functional as F
    import gpt2.model

    class CausalMultiHeadAttention(gpt2.model.MultiHeadAttention):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__(n_embd=n_embd, n_head=n_head, dropout=dropout, attn_dropout=attn_dropout)
            self.limit = n_positions
            self.p = dropout if attn_dropout is None else attn_dropout

        def _mask(self, T, S, like):
            future = torch.full((T, S), float("-inf"), dtype=like.dtype, device=like.device)
            return torch.triu(future, diagonal=1 + S - T)

        def forward(self, x, cache=None):
            B, T, C = x.shape
            qkv = self.c_attn(x).view(B, T, 3, self.n_head, self.head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            if cache is not None:
                k, v = cache.append(k, v)
            S = k.shape[2]
            if not S <= self.limit:
                raise ValueError("too long: " + str(S) + " of " + str(self.limit))
            att = torch.einsum("bhtd,bhsd->bhts", q, k) / math.sqrt(self.head_dim)
            att = F.softmax(att + self._mask(T, S, att), dim=-1)
            att = F.dropout(att, self.p, self.training)
            y = torch.einsum("bhts,bhsd->bthd", att, v).flatten(2)
            return self.resid_dropout(F.linear(y, self.c_proj.weight, self.c_proj.bias))
    """,
)
bank.right_file(
    "the fused kernel, three cases",
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention as sdpa
    from gpt2 import model as parts

    def check_length(length, limit):
        if length > limit:
            raise ValueError(f"sequence of {length} tokens, but n_positions is {limit}")

    class CausalMultiHeadAttention(parts.MultiHeadAttention):
        def __init__(self, n_embd, n_head, n_positions, *args, **kwargs):
            self.n_positions = n_positions
            super().__init__(n_embd, n_head, *args, **kwargs)
            p = kwargs.get("attn_dropout", args[1] if len(args) > 1 else None)
            self.p = self.resid_dropout.p if p is None else p

        def forward(self, x, cache=None):
            q, k, v = [self.split_heads(t) for t in torch.split(self.c_attn(x), x.shape[-1], -1)]
            if cache:
                check_length(cache.length + x.shape[1], self.n_positions)
                k, v = cache.append(k=k, v=v)
            check_length(k.shape[-2], self.n_positions)
            T, S = q.shape[-2], k.shape[-2]
            p = self.p if self.training else 0.0
            if T == S:
                y = sdpa(q, k, v, is_causal=True, dropout_p=p)
            elif T == 1:
                y = sdpa(q, k, v, dropout_p=p)
            else:
                past = x.new_ones(T, S - T, dtype=torch.bool)
                new = x.new_ones(T, T, dtype=torch.bool).tril()
                y = sdpa(q, k, v, attn_mask=torch.cat((past, new), dim=1), dropout_p=p)
            return self.resid_dropout(self.c_proj(self.merge_heads(y)))
    """,
)
bank.right_file(
    "a row at a time, each over the keys it may see: no mask at all",
    """
    import torch
    from gpt2.model import MultiHeadAttention

    class CausalMultiHeadAttention(MultiHeadAttention):
        def __init__(
            self, n_embd: int, n_head: int, n_positions: int, dropout: float = 0.1, attn_dropout=None
        ) -> None:
            MultiHeadAttention.__init__(self, n_embd, n_head, dropout, attn_dropout)
            self.max_len = n_positions

        def forward(self, x, cache=None):
            q, k, v = map(self.split_heads, self.c_attn(x).tensor_split(3, dim=2))
            pair = (k, v) if cache is None else cache.append(k, v)
            keys, values = pair
            past = keys.shape[2] - q.shape[2]
            if keys.shape[2] > self.max_len:
                raise ValueError
            rows = []
            for i in range(q.shape[2]):
                seen = past + i + 1
                row, _ = self.attention(q[:, :, i : i + 1], keys[:, :, :seen], values[:, :, :seen])
                rows.append(row)
            y = self.merge_heads(torch.cat(rows, dim=2))
            return self.resid_dropout(self.c_proj(y))
    """,
)
bank.right_file(
    "hook-free split class, mask cached per size in a dict, checks first",
    """
    import torch
    from torch import nn
    import torch.nn.functional as F
    from gpt2.model import MultiHeadAttention as Parent
    def causal(q_len, k_len, device):
        i = torch.arange(q_len, device=device).unsqueeze(1) + (k_len - q_len)
        j = torch.arange(k_len, device=device).unsqueeze(0)
        return j.le(i)
    class CausalMultiHeadAttention(Parent):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__(n_embd, n_head, dropout=dropout, attn_dropout=attn_dropout)
            self.register_buffer("positions", torch.arange(n_positions), persistent=False)
            self.keep = nn.Dropout(dropout if attn_dropout is None else attn_dropout)
        def forward(self, x, cache=None, **ignored):
            b, t, c = x.shape
            q, k, v = self.c_attn(x).view(b, t, 3, self.n_head, self.head_dim).unbind(2)
            q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            if cache is not None:
                k, v = cache.append(k, v)
            s = k.size(2)
            if s > len(self.positions):
                raise ValueError(f"{s} tokens; n_positions = {len(self.positions)}")
            scores = (q * self.head_dim ** -0.5) @ k.mT
            scores = torch.where(causal(t, s, x.device), scores, torch.tensor(-torch.inf, dtype=scores.dtype))
            y = self.keep(scores.softmax(-1)) @ v
            y = y.transpose(1, 2).reshape(b, t, c)
            return F.dropout(self.c_proj(y), self.resid_dropout.p, self.training)
    """,
)
bank.right_file(
    "calls parent with a masked attention swapped in",
    """
    import torch
    from gpt2.model import MultiHeadAttention
    class CausalMultiHeadAttention(MultiHeadAttention):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__(n_embd, n_head, dropout, attn_dropout)
            self.n_positions = n_positions
            self.mask = None
        def forward(self, x, cache=None):
            qkv = self.c_attn(x)
            C = x.shape[-1]
            q, k, v = qkv[..., :C], qkv[..., C:2*C], qkv[..., 2*C:]
            q, k, v = [self.split_heads(z) for z in (q, k, v)]
            past = 0
            if cache is not None:
                new = k.shape[2]
                k, v = cache.append(k, v)
                past = k.shape[2] - new
            T = x.shape[1]
            if past + T > self.n_positions:
                raise ValueError(f"sequence length {past + T} exceeds n_positions {self.n_positions}")
            big = x.new_ones(past + T, past + T).tril().bool()
            y, w = self.attention(q, k, v, mask=big[past:].view(1, 1, T, -1))
            return self.resid_dropout(self.c_proj(self.merge_heads(y)))
    """,
)


# ── answers of somebody who has not seen the table ──────────────────────────────────────────────

# ── mistakes as public code has them, in other styles, and two at once
wrong(
    "scale-after-softmax",
    "scaled after the softmax",
    (
        ATTEND,
        """att = (q @ k.transpose(-2, -1)).masked_fill(~mask, float("-inf")).softmax(-1)
        y = att / self.head_dim**0.5 @ v""",
    ),
)
wrong(
    "wrong-scale",
    "divided by 2·√head_dim",
    (ATTEND, own_attention("(att / 2).masked_fill(~mask, float('-inf'))")),
)
wrong(
    "wrong-scale",
    "divided by 8, GPT-2's √64",
    (ATTEND, own_attention("(att * self.head_dim**0.5 / 8).masked_fill(~mask, float('-inf'))")),
)
wrong(
    "mask-after-softmax",
    "masked after the softmax, and renormalized",
    (ATTEND, own_attention("att", "att = att * mask / (att * mask).sum(-1, keepdim=True)")),
)
wrong(
    "mask-after-softmax",
    "torch.tril of the weights, and renormalized",
    (
        ATTEND,
        own_attention(
            "att", "att = torch.tril(att, S - T)\n        att = att / att.sum(dim=-1, keepdim=True)"
        ),
    ),
)
wrong(
    "product-order",
    "v @ weights",
    (ATTEND, own_attention("att.masked_fill(~mask, float('-inf'))").replace("att @ v", "v @ att")),
)
wrong(
    "mask-finite",
    "masked with the smallest float16, −65504",
    (ATTEND, own_attention("att.masked_fill(~mask, -65504.0)")),
)
wrong("mask-zero", "torch.tril of the scores", (ATTEND, own_attention("torch.tril(att, S - T)")))
wrong(
    "mask-inverted",
    "triu(1) taken for what is allowed",
    (MASK, "mask = torch.ones(T, S, dtype=torch.bool, device=x.device).triu(S - T + 1)"),
)
wrong(
    "softmax-over-queries",
    "softmax over axis -2",
    (
        ATTEND,
        own_attention("att.masked_fill(~mask, float('-inf'))").replace(
            "softmax(-1)", "softmax(-2)"
        ),
    ),
)
wrong(
    "qkv-order",
    "k, q, v, and √n_embd",
    (QKV, "k, q, v = self.c_attn(x).chunk(3, dim=-1)"),
    (
        ATTEND,
        own_attention(
            "(att * self.head_dim**0.5 / x.size(-1)**0.5).masked_fill(~mask, float('-inf'))"
        ),
    ),
)
bank.wrong[-1] = bank.wrong[-1].__class__(
    bank.wrong[-1].title, bank.wrong[-1].source, "qkv-order", frozenset(("scale-by-n-embd",))
)
wrong(
    "plain-attribute",
    "masked with a mask kept as self.mask",
    (KEEP_P, KEEP_P + "\n        self.mask = torch.ones(n_positions, n_positions).tril().bool()"),
    (MASK, "mask = self.mask[S - T : S, :S]"),
)

wrong(
    "qkv-per-head",
    "read head by head, as in many GPT-NeoX ports",
    (
        QKV,
        "B, N, C = x.shape\n        t = self.c_attn(x).view(B, N, self.n_head, 3, -1)\n        q, k, v = (t[:, :, :, i].flatten(2) for i in range(3))",
    ),
)
wrong(
    "heads-averaged",
    "the mean of the heads, for each of them",
    (PROJECT, "y = self.c_proj(y.mean(1).repeat(1, 1, self.n_head))"),
)
wrong(
    "layer-norm-added",
    "a norm inside",
    (QKV, "x = torch.nn.functional.layer_norm(x, x.shape[-1:])\n        " + QKV),
)
wrong(
    "scale-by-n-head",
    "√k.size(1)",
    (
        ATTEND,
        own_attention(
            "(att * self.head_dim**0.5 / k.size(1)**0.5).masked_fill(~mask, float('-inf'))"
        ),
    ),
)
wrong(
    "mask-inverted",
    "True taken for hidden, by the fused kernel",
    (ATTEND, "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, ~mask)"),
)
wrong(
    "mask-added",
    "a float mask of 0 and 1, by the fused kernel",
    (ATTEND, "y = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask.float())"),
)
wrong(
    "sigmoid",
    "a sigmoid for the softmax",
    (
        ATTEND,
        own_attention("att.masked_fill(~mask, float('-inf'))").replace("softmax(-1)", "sigmoid()"),
    ),
)


PLAIN = """
    import torch
    from gpt2.model import MultiHeadAttention

    class CausalMultiHeadAttention(MultiHeadAttention):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__(n_embd, n_head, dropout, attn_dropout)
            self.n_positions = n_positions
            self.register_buffer("causal", torch.tril(torch.ones(n_positions, n_positions, dtype=torch.bool)), persistent=False)

        def forward(self, x, cache=None):
            B, T, C = x.shape
            q, k, v = self.c_attn(x).chunk(3, dim=-1)
            q = self.split_heads(q)
            k = self.split_heads(k)
            v = self.split_heads(v)
            if cache is not None:
                k, v = cache.append(k, v)
            S = k.size(-2)
            if S > self.n_positions:
                raise ValueError(f"{S} positions but the limit is {self.n_positions}")
            mask = self.causal[S - T : S, :S]
            out, _ = self.attention(q, k, v, mask=mask)
            return self.resid_dropout(self.c_proj(self.merge_heads(out)))
"""
bank.wrong_edit(
    "state-kept-in-module",
    "masks kept by S alone",
    (
        "mask = self.causal[S - T : S, :S]",
        "if not hasattr(self, 'ms'):\n            self.ms = {}\n        if S not in self.ms:\n            self.ms[S] = self.causal[S - T : S, :S]\n        mask = self.ms[S]",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "state-kept-in-module",
    "the mask of the last call with this T",
    (
        "mask = self.causal[S - T : S, :S]",
        "if getattr(self, 'm', None) is None or self.m.size(0) != T:\n            self.m = self.causal[S - T : S, :S]\n        mask = self.m",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "cache-edited",
    "what append returned is scaled in place",
    ("S = k.size(-2)", "if cache is not None:\n            k.mul_(0.5)\n        S = k.size(-2)"),
    base=PLAIN,
)
bank.wrong_edit(
    "no-gradient",
    "keys and values detached",
    ("S = k.size(-2)", "k, v = k.detach(), v.detach()\n        S = k.size(-2)"),
    base=PLAIN,
)
bank.wrong_edit(
    "split-by-view-alone",
    "v alone is not split",
    ("v = self.split_heads(v)", "v = v.reshape(B, self.n_head, T, self.head_dim)"),
    base=PLAIN,
)
bank.wrong_edit(
    "limit-ignores-past",
    "T alone is compared, and a mask of fixed size",
    ("if S > self.n_positions:", "if T > self.n_positions:"),
    base=PLAIN,
)
bank.wrong_edit(
    "limit-missing",
    "no check but a mask of fixed size",
    (
        '        if S > self.n_positions:\n            raise ValueError(f"{S} positions but the limit is {self.n_positions}")\n',
        "",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "limit-off-by-one",
    "n_positions + 1, and a mask of fixed size",
    ("if S > self.n_positions:", "if S > self.n_positions + 1:"),
    base=PLAIN,
)
bank.wrong_edit(
    "limit-missing",
    "the last n_positions keys are kept in silence",
    (
        'raise ValueError(f"{S} positions but the limit is {self.n_positions}")',
        "k, v, S = k[:, :, -self.n_positions :], v[:, :, -self.n_positions :], self.n_positions",
    ),
    base=PLAIN,
)
bank.wrong_edit(
    "mode-changed",
    "forward switches to eval mode",
    ("S = k.size(-2)", "self.train(False)\n        S = k.size(-2)"),
    base=PLAIN,
)
bank.wrong_edit(
    "past-masked",
    "the cache is used in eval mode alone",
    ("if cache is not None:", "if cache is not None and not self.training:"),
    base=PLAIN,
)
bank.wrong_edit(
    "mask-not-bool",
    "a mask of ints",
    ("mask = self.causal[S - T : S, :S]", "mask = self.causal[S - T : S, :S].long()"),
    base=PLAIN,
)
bank.wrong_edit(
    "sees-the-future",
    "x normalized over T",
    (
        "q, k, v = self.c_attn(x)",
        "x = x / x.norm(dim=1, keepdim=True)\n        q, k, v = self.c_attn(x)",
    ),
    base=PLAIN,
)
bank.right_edit(
    "masks kept by T, S and the device's name",
    (
        "class Causal",
        "import functools\n\n@functools.lru_cache(maxsize=None)\ndef triangle(T, S, device):\n    return torch.ones(T, S, dtype=torch.bool, device=device).tril(S - T)\n\nclass Causal",
    ),
    ("mask = self.causal[S - T : S, :S]", "mask = triangle(T, S, str(x.device))"),
    base=PLAIN,
)
bank.right_edit(
    "the past and a triangle side by side",
    (
        "mask = self.causal[S - T : S, :S]",
        "past = torch.ones(T, S - T, dtype=torch.bool, device=x.device)\n        mask = torch.cat([past, torch.ones(T, T, dtype=torch.bool, device=x.device).tril()], dim=1)",
    ),
    base=PLAIN,
)
