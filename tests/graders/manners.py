"""Answers in the manner of what people publish: nanoGPT, minGPT, Hugging Face's library, textbooks,
courses' solutions, and the mistakes that go with them. Each is written for the contract's names.

A bank takes its problem's entries from here when it is loaded.
"""

from __future__ import annotations

import textwrap

# problem number → (title, source)
RIGHT: dict[int, list[tuple[str, str]]] = {number: [] for number in range(1, 19)}
# problem number → (the mistake that must be named, title, source, what else is true of it)
WRONG: dict[int, list[tuple[str, str, str, str]]] = {number: [] for number in range(1, 19)}


def right(number: int, title: str, source: str) -> None:
    """Write down a right answer."""
    RIGHT[number].append((title, textwrap.dedent(source).lstrip()))


def wrong(number: int, mistake: str, title: str, source: str, also: str = "") -> None:
    """Write down a wrong answer and what it must be told. also: other mistakes that it has."""
    WRONG[number].append((mistake, title, textwrap.dedent(source).lstrip(), also))


# ── 12 ──────────────────────────────────────────────────────────────────────────────────────────

MAPPING = """
    import torch
    import gpt2.model
    from gpt2.model import GPT2Config
    {imports}

    class GPT2Model(gpt2.model.GPT2Model):
        @staticmethod
        def _build_weight_mapping(n_layer):
            pairs = dict()
            for name in ("wte.weight", "wpe.weight"):
                pairs["{prefix}" + name] = ("embeddings." + name, False)
            for kind in ("weight", "bias"):
                pairs["{prefix}ln_f." + kind] = ("ln_f." + kind, False)
                for i in range(n_layer):
                    for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
                        name = f"h.{{i}}.{{part}}.{{kind}}"
                        pairs["{prefix}" + name] = (name, kind == "weight")
                    for part in ("ln_1", "ln_2"):
                        name = f"h.{{i}}.{{part}}.{{kind}}"
                        pairs["{prefix}" + name] = (name, False)
            return pairs

        @classmethod
        def from_pretrained(cls, model_name="gpt2", **options):
"""
CONFIG_OF_THEIRS = """
            c = theirs.config
            config = GPT2Config(
                vocab_size=c.vocab_size, n_positions=c.n_positions, n_embd=c.n_embd,
                n_layer=c.n_layer, n_head=c.n_head, resid_pdrop=c.resid_pdrop,
                embd_pdrop=c.embd_pdrop, attn_pdrop=c.attn_pdrop,
                layer_norm_epsilon=c.layer_norm_epsilon,
            )
            model = cls(config)
"""
LISTS_READ = """
            theirs, info = GPT2LMHeadModel.from_pretrained(
                model_name, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
            masks = (".attn.bias", ".attn.masked_bias")
            wrong = [f"missing {key}" for key in info["missing_keys"]]
            wrong += [f"unexpected {key}" for key in info["unexpected_keys"] if not key.endswith(masks)]
            wrong += [f"misshapen {entry}" for entry in info["mismatched_keys"]]
            if wrong:
                raise ValueError("; ".join(sorted(wrong)))
"""
COPIED = """
            sd, sd_hf = model.state_dict(), theirs.state_dict()
            for key, (name, transpose) in cls._build_weight_mapping(config.n_layer).items():
                tensor = sd_hf[key] if key in sd_hf else sd_hf["transformer." + key]
                with torch.no_grad():
                    if transpose:
                        assert tensor.shape[::-1] == sd[name].shape
                        sd[name].copy_(tensor.t())
                    else:
                        assert tensor.shape == sd[name].shape
                        sd[name].copy_(tensor)
            model.eval()
            return model
"""
THROUGH = "from transformers import GPT2LMHeadModel"


def pretrained(*parts: str, imports: str = THROUGH, prefix: str = "") -> str:
    """A piece for problem 12: the mapping, then from_pretrained's body in parts."""
    return MAPPING.format(imports=imports, prefix=prefix) + "".join(parts)


right(
    12,
    "nanoGPT's way, with what transformers reports",
    pretrained(LISTS_READ, CONFIG_OF_THEIRS, COPIED),
)
right(
    12,
    "transformers, keys with the prefix, imported where it is used",
    pretrained(
        "            from transformers import GPT2LMHeadModel\n" + LISTS_READ,
        CONFIG_OF_THEIRS,
        COPIED,
        imports="",
        prefix="transformer.",
    ),
)
right(
    12,
    "transformers' Auto classes and load_state_dict, the config by to_dict()",
    pretrained(
        LISTS_READ.replace("GPT2LMHeadModel", "transformers.AutoModelForCausalLM"),
        """
            known = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "resid_pdrop",
                     "embd_pdrop", "attn_pdrop", "layer_norm_epsilon")
            config = GPT2Config(**{k: v for k, v in theirs.config.to_dict().items() if k in known})
            model = cls(config)
            sd_hf = theirs.float().state_dict()
            ours = {}
            for key, (name, transpose) in cls._build_weight_mapping(config.n_layer).items():
                tensor = sd_hf["transformer." + key]
                ours[name] = tensor.t() if transpose else tensor
            ours["lm_head.weight"] = ours["embeddings.wte.weight"]
            model.load_state_dict(ours)
            return model.eval()
""",
        imports="import transformers",
    ),
)
right(
    12,
    "transformers' own error for a wrong shape, named from the file's header",
    pretrained(
        """
            import os
            from safetensors import safe_open
            theirs = GPT2LMHeadModel(TheirConfig.from_pretrained(model_name))
            want = {k: tuple(v.shape) for k, v in theirs.transformer.state_dict().items()
                    if not k.endswith((".attn.bias", ".attn.masked_bias"))}
            with safe_open(os.path.join(model_name, "model.safetensors"), "pt") as file:
                got = {k.removeprefix("transformer."): tuple(file.get_slice(k).get_shape())
                       for k in file.keys()}
            got.pop("lm_head.weight", None)
            got = {k: v for k, v in got.items() if not k.endswith((".attn.bias", ".attn.masked_bias"))}
            for name in sorted(want.keys() | got.keys()):
                if want.get(name) != got.get(name):
                    raise ValueError(f"{name}: {want.get(name)} wanted, {got.get(name)} there")
            theirs = GPT2LMHeadModel.from_pretrained(model_name, use_safetensors=True)
""",
        CONFIG_OF_THEIRS,
        COPIED,
        imports="from transformers import GPT2Config as TheirConfig, GPT2LMHeadModel",
    ),
)
right(
    12,
    "safetensors' load_file and json, keys with the prefix, a ValueError's subclass",
    pretrained(
        """
            import json, pathlib
            from safetensors.torch import load_file
            folder = pathlib.Path(model_name)
            told = json.loads((folder / "config.json").read_text())
            known = ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head", "resid_pdrop",
                     "embd_pdrop", "attn_pdrop", "layer_norm_epsilon")
            config = GPT2Config(**{k: v for k, v in told.items() if k in known})
            model = cls(config)
            sd = {}
            for key, tensor in load_file(folder / "model.safetensors").items():
                key = key if key.startswith("transformer.") else "transformer." + key
                if not key.endswith(("lm_head.weight", ".attn.bias", ".attn.masked_bias")):
                    sd[key] = tensor
            mapping = cls._build_weight_mapping(config.n_layer)
            if sd.keys() != mapping.keys():
                raise WrongCheckpoint(sorted(sd.keys() ^ mapping.keys()))
            for key, (name, turn) in mapping.items():
                parameter, tensor = model.get_parameter(name), sd[key]
                tensor = tensor.transpose(0, -1) if turn else tensor
                if parameter.shape != tensor.shape:
                    raise WrongCheckpoint(f"{key} {list(tensor.shape)} {list(parameter.shape)}")
                parameter.data.copy_(tensor)
            return model.eval()

    class WrongCheckpoint(ValueError):
        pass
""",
        imports="",
        prefix="transformer.",
    ),
)

wrong(
    12,
    "missing-ignored",
    "nanoGPT's way as it is: transformers only prints what is missing",
    pretrained(
        "            theirs = GPT2LMHeadModel.from_pretrained(model_name)\n",
        CONFIG_OF_THEIRS,
        COPIED,
    ),
    "unexpected-ignored unhelpful-error wrong-error-type",
)
wrong(
    12,
    "unexpected-ignored",
    "transformers' missing keys are looked at, its unexpected ones are not",
    pretrained(
        LISTS_READ.replace(
            'wrong += [f"unexpected {key}" for key in info["unexpected_keys"] '
            "if not key.endswith(masks)]",
            "pass",
        ),
        CONFIG_OF_THEIRS,
        COPIED,
    ),
)
wrong(
    12,
    "unhelpful-error",
    "transformers' own error for a wrong shape, which names nothing",
    pretrained(LISTS_READ.replace("ignore_mismatched_sizes=True, ", ""), CONFIG_OF_THEIRS, COPIED),
)
wrong(
    12,
    "misshapen-accepted",
    "transformers told to let wrong shapes be",
    pretrained(
        LISTS_READ.replace(
            'wrong += [f"misshapen {entry}" for entry in info["mismatched_keys"]]', "pass"
        ),
        CONFIG_OF_THEIRS,
        COPIED,
    ),
)
wrong(
    12,
    "wrong-error-type",
    "a KeyError that names the tensor",
    pretrained(LISTS_READ.replace("raise ValueError", "raise KeyError"), CONFIG_OF_THEIRS, COPIED),
)

# ── 01 ──────────────────────────────────────────────────────────────────────────────────────────

EMBEDDINGS = """
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Embeddings(nn.Module):
        def __init__(self, vocab_size, n_positions, n_embd, dropout=0.1):
            super().__init__()
            self.n_positions = n_positions
            self.wte = nn.Embedding(vocab_size, n_embd)
            self.wpe = nn.Embedding(n_positions, n_embd)
            self.drop = nn.Dropout(dropout)

        def forward(self, input_ids, start_pos=0):
            b, t = input_ids.size()
            if start_pos + t > self.n_positions:
                raise ValueError(
                    f"Cannot forward {{t}} tokens from {{start_pos}} on: {{start_pos + t}} > {{self.n_positions}}"
                )
{body}
"""


def embeddings(body: str) -> str:
    """A piece for problem 01 with this after the bound's check."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12)
    return EMBEDDINGS.format(body=lines)


right(
    1,
    "nanoGPT's way",
    embeddings("""
        device = input_ids.device
        pos = torch.arange(start_pos, start_pos + t, dtype=torch.long, device=device)
        tok_emb = self.wte(input_ids)
        pos_emb = self.wpe(pos)
        return self.drop(tok_emb + pos_emb)
    """),
)
right(
    1,
    "minGPT's and Hugging Face's way: positions with a batch axis",
    embeddings("""
        position_ids = torch.arange(start_pos, t + start_pos, dtype=torch.long, device=input_ids.device)
        position_ids = position_ids.unsqueeze(0).view(-1, t)
        inputs_embeds = self.wte(input_ids)
        hidden_states = inputs_embeds + self.wpe(position_ids).to(inputs_embeds.device)
        return self.drop(hidden_states)
    """),
)
right(
    1,
    "inside a device context",
    embeddings("""
        with torch.device(input_ids.device):
            positions = torch.arange(t) + start_pos
        return self.drop(self.wte(input_ids) + self.wpe(positions))
    """),
)
right(
    1,
    "fairseq's way: positions by a cumulative sum of ones",
    embeddings("""
        ones = torch.ones_like(input_ids)
        positions = torch.cumsum(ones, dim=1) - 1 + start_pos
        return self.drop(self.wte(input_ids) + self.wpe(positions))
    """),
)
right(
    1,
    "rows of the tables by F.embedding and narrow",
    embeddings("""
        x = F.embedding(input_ids, self.wte.weight)
        return self.drop(x + self.wpe.weight.narrow(0, start_pos, t).unsqueeze(0))
    """),
)
right(
    1,
    "tables indexed like arrays, positions expanded to the batch",
    embeddings("""
        pos = torch.arange(t, device=self.wpe.weight.device)[None, :].expand(b, t) + start_pos
        return self.drop(self.wte.weight[input_ids] + self.wpe.weight[pos])
    """),
)

# ── 02 ──────────────────────────────────────────────────────────────────────────────────────────

SIMPLE = """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class SimpleAttention(nn.Module):
        def __init__(self, n_embd):
            super().__init__()
            self.key = nn.Linear(n_embd, n_embd)
            self.query = nn.Linear(n_embd, n_embd)
            self.value = nn.Linear(n_embd, n_embd)

        def forward(self, x):
{body}
"""


def simple(body: str) -> str:
    """A piece for problem 02 with this forward."""
    return SIMPLE.format(body=textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12))


right(
    2,
    "a lecture's head",
    simple("""
        B, T, C = x.shape
        k = self.key(x)
        q = self.query(x)
        wei = q @ k.transpose(-2, -1)
        wei = F.softmax(wei, dim=-1)
        v = self.value(x)
        return wei @ v
    """),
)
right(
    2,
    "a textbook's names: keys, queries, context vectors",
    simple("""
        keys, queries, values = self.key(x), self.query(x), self.value(x)
        attn_scores = queries @ keys.transpose(1, 2)
        attn_weights = torch.softmax(attn_scores, dim=attn_scores.dim() - 1)
        context_vec = attn_weights @ values
        return context_vec
    """),
)
right(
    2,
    "d2l's way: bmm both times",
    simple("""
        scores = torch.bmm(self.query(x), self.key(x).permute(0, 2, 1))
        self.attention_weights = nn.functional.softmax(scores, dim=2)
        return torch.bmm(self.attention_weights, self.value(x))
    """),
)
right(
    2,
    "PyTorch's multi-head function with one head and a query that undoes its scale",
    simple("""
        q, k, v = self.query(x) * math.sqrt(x.size(-1)), self.key(x), self.value(x)
        return F.scaled_dot_product_attention(q, k, v)
    """),
)
right(
    2,
    "exponentials shifted by logsumexp",
    simple("""
        scores = torch.matmul(self.query(x), self.key(x).mT)
        weights = torch.exp(scores - torch.logsumexp(scores, dim=-1, keepdim=True))
        return torch.matmul(weights, self.value(x))
    """),
)
right(
    2,
    "einsum with an ellipsis, a softmax of the functional kind in the input's dtype",
    simple("""
        scores = torch.einsum("...id,...jd->...ij", self.query(x), self.key(x))
        weights = F.softmax(scores, -1, dtype=x.dtype)
        return torch.einsum("...ij,...jd->...id", weights, self.value(x))
    """),
)

# ── 03 ──────────────────────────────────────────────────────────────────────────────────────────

SDPA = """
    import math
    import torch
    import torch.nn.functional as F
    from torch import nn

    def softmax(x, dim):
        e = torch.exp(x - x.max(dim=dim, keepdim=True).values)
        return e / e.sum(dim=dim, keepdim=True)

    class ScaledDotProductAttention(nn.Module):
        def __init__(self, n_embd, dropout=0.1):
            super().__init__()
            self.n_embd = n_embd
            self.attn_dropout = nn.Dropout(dropout)

        def forward(self, q, k, v, mask=None):
            att = {scores}
            if mask is not None:
                att = {masked}
            att = self.attn_dropout({softmax})
            return att @ v, att
"""


def sdpa(
    masked: str = "att.masked_fill(mask == 0, float('-inf'))",
    scores: str = "(q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))",
    softmax: str = "F.softmax(att, dim=-1)",
) -> str:
    """A piece for problem 03, made of these expressions."""
    return SDPA.format(masked=masked, scores=scores, softmax=softmax)


LOWEST = "torch.finfo(att.dtype).min"
right(3, "nanoGPT's way", sdpa())
right(3, "masked with the dtype's lowest number", sdpa(f"att.masked_fill(~mask, {LOWEST})"))
right(3, "the dtype's lowest number, added", sdpa(f"att + (~mask).to(att.dtype) * {LOWEST}"))
right(
    3,
    "Hugging Face's way: tensors of no axes for root and mask value",
    sdpa(
        f"torch.where(mask, att, torch.full([], {LOWEST}, dtype=att.dtype, device=att.device))",
        "torch.matmul(q, k.transpose(-1, -2)) / torch.full([], v.size(-1) ** 0.5, "
        "dtype=q.dtype, device=q.device)",
        "F.softmax(att, dim=-1).type(v.dtype)",
    ),
)
right(
    3,
    "a course's way: einsum, a softmax by hand, an in-place mask",
    sdpa(
        "att.masked_fill_(~mask, -torch.inf)",
        'torch.einsum("...nd,...md->...nm", q, k) / k.shape[-1] ** 0.5',
        "softmax(att, -1)",
    ),
)
right(
    3,
    "the softmax in float32",
    sdpa(
        "torch.where(mask, att, float('-inf'))",
        "q.div(float(self.n_embd) ** 0.5).matmul(k.mT)",
        "F.softmax(att, dim=-1, dtype=torch.float32).to(q.dtype)",
    ),
)
right(
    3,
    "half the root on either side",
    sdpa(
        "att.masked_fill(mask.eq(False), -float('inf'))",
        "(q * self.n_embd**-0.25) @ (k * self.n_embd**-0.25).mT",
    ),
)
for number in ("-1e4", "-1e5", "-65000", "-1e6"):
    wrong(3, "mask-finite", f"masked with {number}", sdpa(f"att.masked_fill(~mask, {number})"))
wrong(3, "mask-finite", "-1e9, which float16 has not", sdpa("att.masked_fill(mask == 0, -1e9)"))
wrong(
    3,
    "mask-finite",
    "float32's lowest number, whatever the dtype",
    sdpa("att.masked_fill(~mask, torch.finfo(torch.float32).min)"),
)

# ── 04 ──────────────────────────────────────────────────────────────────────────────────────────

MULTI_HEAD = """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from gpt2.model import ScaledDotProductAttention

    class MultiHeadAttention(nn.Module):
        def __init__(self, n_embd, n_head, dropout=0.1, attn_dropout=None):
            super().__init__()
            if n_embd % n_head:
                raise ValueError(f"n_embd ({{n_embd}}) must be divisible by n_head ({{n_head}})")
            p = dropout if attn_dropout is None else attn_dropout
            self.c_attn = nn.Linear(n_embd, 3 * n_embd)
            self.c_proj = nn.Linear(n_embd, n_embd)
            self.attention = ScaledDotProductAttention({width}, {p})
            self.resid_dropout = nn.Dropout(dropout)
            self.n_head, self.n_embd, self.head_dim = n_head, n_embd, n_embd // n_head
            self.dropout = p

        def split_heads(self, x):
            {split}

        def merge_heads(self, x):
            {merge}

        def forward(self, x):
            B, T, C = x.size()
{body}
"""
SPLIT = "return x.view(*x.shape[:2], self.n_head, self.head_dim).transpose(1, 2)"
MERGE = "return x.transpose(1, 2).contiguous().view(x.size(0), x.size(2), -1)"


def multi_head(
    body: str,
    split: str = SPLIT,
    merge: str = MERGE,
    width: str = "n_embd // n_head",
    p: str = "p",
) -> str:
    """A piece for problem 04 with this forward and these helpers."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12)
    return MULTI_HEAD.format(body=lines, split=split, merge=merge, width=width, p=p)


FLASH = """
    q, k, v = self.c_attn(x).split(self.n_embd, dim=2)
    k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
    q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
    v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout if self.training else 0)
    y = y.transpose(1, 2).contiguous().view(B, T, C)
    return self.resid_dropout(self.c_proj(y))
"""
right(4, "nanoGPT's way, with the fused kernel", multi_head(FLASH))
right(
    4,
    "Hugging Face's way: split by a new shape, permute, the weights by hand",
    multi_head(
        """
        query, key, value = self.c_attn(x).split(self.n_embd, dim=2)
        query, key, value = map(self.split_heads, (query, key, value))
        attn_weights = torch.matmul(query, key.transpose(-1, -2))
        attn_weights = attn_weights / torch.full(
            [], value.size(-1) ** 0.5, dtype=attn_weights.dtype, device=attn_weights.device
        )
        attn_weights = nn.functional.softmax(attn_weights, dim=-1).type(value.dtype)
        attn_weights = nn.functional.dropout(attn_weights, self.dropout, self.training)
        attn_output = self.merge_heads(torch.matmul(attn_weights, value))
        return self.resid_dropout(self.c_proj(attn_output))
        """,
        "return x.view(x.size()[:-1] + (self.n_head, self.head_dim)).permute(0, 2, 1, 3)",
        "x = x.permute(0, 2, 1, 3).contiguous(); "
        "return x.view(x.size()[:-2] + (self.n_head * self.head_dim,))",
    ),
)
right(
    4,
    "d2l's way: heads folded into the batch",
    multi_head(
        """
        q, k, v = (
            t.reshape(B, T, self.n_head, -1).permute(0, 2, 1, 3).reshape(B * self.n_head, T, -1)
            for t in self.c_attn(x).tensor_split(3, dim=-1)
        )
        output, _ = self.attention(q, k, v)
        output = output.reshape(B, self.n_head, T, -1).permute(0, 2, 1, 3).reshape(B, T, -1)
        return self.resid_dropout(self.c_proj(output))
        """
    ),
)
right(
    4,
    "unflatten and flatten, one permute for the three",
    multi_head(
        """
        q, k, v = self.c_attn(x).unflatten(-1, (3, self.n_head, self.head_dim)).permute(2, 0, 3, 1, 4)
        y = self.attention(q, k, v)[0]
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))
        """,
        "return x.unflatten(-1, (self.n_head, self.head_dim)).swapaxes(1, 2)",
        "return x.swapaxes(1, 2).flatten(2)",
    ),
)
right(
    4,
    "a textbook's way: a softmax of scaled scores, context vectors",
    multi_head(
        """
        queries, keys, values = (self.split_heads(t) for t in torch.chunk(self.c_attn(x), 3, -1))
        attn_scores = queries @ keys.transpose(2, 3)
        attn_weights = torch.softmax(attn_scores / keys.shape[-1] ** 0.5, dim=-1)
        attn_weights = torch.dropout(attn_weights, self.dropout, self.training)
        context_vec = (attn_weights @ values).transpose(1, 2)
        context_vec = context_vec.contiguous().view(B, T, self.n_embd)
        return self.resid_dropout(self.c_proj(context_vec))
        """
    ),
)
right(
    4,
    "the weight cut in three, a functional product for each",
    multi_head(
        """
        weights, biases = self.c_attn.weight.chunk(3), self.c_attn.bias.chunk(3)
        q, k, v = (self.split_heads(F.linear(x, w, b)) for w, b in zip(weights, biases))
        y, _ = self.attention(q, k, v)
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))
        """
    ),
)
for width in ("n_embd", "n_head"):
    wrong(
        4,
        "inner-attention-width",
        f"an attention of width {width}, which nobody calls",
        multi_head(FLASH, width=width),
    )
for p in ("dropout", "0.0"):
    wrong(
        4,
        "inner-attention-dropout",
        f"an attention with dropout {p}, which nobody calls",
        multi_head(FLASH, p=p),
    )

# ── 05 ──────────────────────────────────────────────────────────────────────────────────────────

CAUSAL = """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from gpt2.model import MultiHeadAttention

    class CausalMultiHeadAttention(MultiHeadAttention):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None):
            super().__init__(n_embd, n_head, dropout, attn_dropout)
            self.n_positions, self.n_embd = n_positions, n_embd
            self.p = dropout if attn_dropout is None else attn_dropout
            self.attn_dropout = nn.Dropout(self.p)
            {keep}

        def forward(self, x, cache=None):
            B, T, C = x.size()
            q, k, v = self.c_attn(x).split(C, dim=2)
            k = k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            q = q.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            v = v.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)
            if cache is not None:
                k, v = cache.append(k, v)
            S = k.size(2)
            if S > self.n_positions:
                raise ValueError(f"{{S}} positions, block size is only {{self.n_positions}}")
{body}
            y = y.transpose(1, 2).contiguous().view(B, T, C)
            return self.resid_dropout(self.c_proj(y))
"""
TRIL = "torch.tril(torch.ones(n_positions, n_positions))"


def causal(body: str, keep: str = "pass") -> str:
    """A piece for problem 05 with this between q, k, v and y; keep: a line for __init__."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12)
    return CAUSAL.format(body=lines, keep=keep)


def masked_by(masked: str) -> str:
    """The attention written out, with this as the masked scores."""
    return f"""
    att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
    att = {masked}
    att = F.softmax(att, dim=-1)
    att = self.attn_dropout(att)
    y = att @ v
    """


right(
    5,
    "nanoGPT's old way: a tril buffer with four axes, not saved",
    causal(
        masked_by("att.masked_fill(self.bias[:, :, S - T : S, :S] == 0, float('-inf'))"),
        f'self.register_buffer("bias", {TRIL}.view(1, 1, n_positions, n_positions), persistent=False)',
    ),
)
right(
    5,
    "Hugging Face's way: torch.where with the dtype's lowest number",
    causal(
        masked_by(
            "torch.where(self.bias[:, :, S - T : S, :S], att.to(att.dtype), torch.full("
            "[], torch.finfo(att.dtype).min, dtype=att.dtype, device=att.device))"
        ),
        f'self.register_buffer("bias", {TRIL}.bool()[None, None], persistent=False)',
    ),
)
right(
    5,
    "a textbook's way: a triu mask cut to size, filled in place",
    causal(
        masked_by("att.masked_fill_(self.mask.bool()[S - T : S, :S], -torch.inf)"),
        'self.register_buffer("mask", torch.triu(torch.ones(n_positions, n_positions), diagonal=1), False)',
    ),
)
right(
    5,
    "nanoGPT's new way: the fused kernel, causal by itself when there is no past",
    causal("""
        mask = None
        if S != T:
            mask = torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T)
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=self.p if self.training else 0, is_causal=S == T
        )
    """),
)
right(
    5,
    "the fused kernel with PyTorch's lower-right bias",
    "import torch.nn.attention.bias\n"
    + textwrap.dedent(
        causal("""
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.nn.attention.bias.causal_lower_right(T, S)._materialize(x.device),
            dropout_p=self.p if self.training else 0.0,
        )
    """)
    ),
)
right(
    5,
    "gpt-fast's way: rows of one mask, chosen by positions",
    causal(
        """
        input_pos = torch.arange(S - T, S, device=x.device)
        mask = self.causal_mask.index_select(0, input_pos)[None, None, :, :S]
        y = self.attention(q, k, v, mask)[0]
        """,
        f'self.register_buffer("causal_mask", {TRIL}.bool(), persistent=False)',
    ),
)
right(
    5,
    "LLaMA's way: an additive mask of −∞ above the diagonal, beside zeros for the past",
    causal("""
        scores = torch.matmul(q, k.transpose(2, 3)) / math.sqrt(self.head_dim)
        if T > 1:
            mask = torch.full((T, T), float("-inf"), device=x.device)
            mask = torch.triu(mask, diagonal=1)
            mask = torch.hstack([torch.zeros((T, S - T), device=x.device), mask]).type_as(x)
            scores = scores + mask
        scores = F.softmax(scores.float(), dim=-1).type_as(q)
        y = torch.matmul(self.attn_dropout(scores), v)
    """),
)
right(
    5,
    "x-transformers' way: triu of ones, minus the dtype's largest number",
    causal(
        masked_by(
            "att.masked_fill(torch.ones((T, S), device=x.device, dtype=torch.bool).triu(S - T + 1), "
            "-torch.finfo(att.dtype).max)"
        )
    ),
)
right(
    5,
    "positions compared, inside a device context",
    causal("""
        with torch.device(x.device):
            rows, columns = torch.arange(S - T, S), torch.arange(S)
            mask = columns <= rows.unsqueeze(1)
        y, _ = self.attention(q, k, v, mask)
    """),
)
wrong(
    5,
    "mask-finite",
    "-1e9, which float16 has not",
    causal(
        masked_by(
            "att.masked_fill(~torch.ones(T, S, dtype=torch.bool, device=x.device).tril(S - T), -1e9)"
        )
    ),
)

# ── 06 ──────────────────────────────────────────────────────────────────────────────────────────

FORWARD = """
    import math
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

{above}
    class NewGELU(nn.Module):
        def forward(self, {x}):
            return {gelu}

    class FeedForward(nn.Module):
        def __init__(self, n_embd, n_inner, dropout=0.1):
            super().__init__()
            self.c_fc = nn.Linear(n_embd, n_inner)
            self.c_proj = nn.Linear(n_inner, n_embd)
            self.act = NewGELU()
            self.drop = nn.Dropout(dropout)

        def forward(self, hidden_states):
            hidden_states = self.c_fc(hidden_states)
            hidden_states = self.act(hidden_states)
            hidden_states = self.c_proj(hidden_states)
            hidden_states = self.drop(hidden_states)
            return hidden_states
"""


def feed_forward(gelu: str, above: str = "", x: str = "x") -> str:
    """A piece for problem 06 with this activation."""
    above = textwrap.indent(textwrap.dedent(above), "    ")
    return FORWARD.format(gelu=gelu, above=above, x=x)


right(
    6,
    "minGPT's and Hugging Face's way",
    feed_forward(
        "0.5 * input * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * "
        "(input + 0.044715 * torch.pow(input, 3.0))))",
        x="input",
    ),
)
right(
    6,
    "nanoGPT's old way: a scripted function",
    feed_forward(
        "fused_gelu(x)",
        """
        @torch.jit.script
        def fused_gelu(x):
            return 0.5 * x * (1.0 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))
        """,
    ),
)
right(
    6,
    "a textbook's way: the root of a tensor without axes",
    feed_forward(
        "0.5 * x * (1 + torch.tanh(torch.sqrt(torch.tensor(2.0 / torch.pi)) * "
        "(x + 0.044715 * torch.pow(x, 3))))"
    ),
)
right(
    6,
    "Hugging Face's fast form, the cube taken apart",
    feed_forward("0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))"),
)
right(6, "llm.c's way: PyTorch's module inside", feed_forward("nn.GELU(approximate='tanh')(x)"))
right(
    6,
    "OpenAI's cdf, a constant of the module's file",
    feed_forward(
        "x * (0.5 * (1 + torch.tanh(ROOT * (x + 0.044715 * x**3))))", "ROOT = (2 / math.pi) ** 0.5"
    ),
)

# ── 07 ──────────────────────────────────────────────────────────────────────────────────────────

NORM = """
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class LayerNorm(nn.Module):
        def __init__(self, n_embd, eps=1e-5):
            super().__init__()
            self.weight = nn.Parameter({ones})
            self.bias = nn.Parameter({zeros})
            self.eps = eps
            {more}

        def forward(self, x):
{body}

    class ResidualBlock(nn.Module):
        def __init__(self, n_embd, layer_norm_epsilon=1e-5):
            super().__init__()
            self.ln = LayerNorm(n_embd, eps=layer_norm_epsilon)

        def forward(self, x, sublayer):
            return sublayer(self.ln(x)) + x
"""


def norm(
    body: str,
    ones: str = "torch.ones(n_embd)",
    zeros: str = "torch.zeros(n_embd)",
    more: str = "pass",
) -> str:
    """A piece for problem 07 with this norm."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12)
    return NORM.format(body=lines, ones=ones, zeros=zeros, more=more)


right(
    7,
    "nanoGPT's way",
    norm("return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)"),
)
right(
    7,
    "a textbook's way: mean, biased variance, scale and shift",
    norm("""
        mean = x.mean(dim=-1, keepdim=True)
        var = x.var(dim=-1, keepdim=True, unbiased=False)
        norm_x = (x - mean) / torch.sqrt(var + self.eps)
        return self.weight * norm_x + self.bias
    """),
)
right(
    7,
    "BERT's way: the mean of squares, reset_parameters",
    norm(
        """
        u = x.mean(-1, keepdim=True)
        s = (x - u).pow(2).mean(-1, keepdim=True)
        x = (x - u) / torch.sqrt(s + self.eps)
        return self.weight * x + self.bias
        """,
        "torch.Tensor(n_embd)",
        "torch.Tensor(n_embd)",
        "nn.init.ones_(self.weight); nn.init.zeros_(self.bias)",
    ),
)
right(
    7,
    "x-transformers' way: the shape from the weight's end",
    norm("return F.layer_norm(x, x.shape[-1:], weight=self.weight, bias=self.bias, eps=self.eps)"),
)
right(
    7,
    "in float32, rsqrt, cast back",
    norm("""
        dtype = x.dtype
        x = x.float() if dtype in (torch.float16, torch.bfloat16) else x
        var, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        x = (x - mean) * torch.rsqrt(var + self.eps)
        return x.to(dtype) * self.weight + self.bias
    """),
)
right(
    7,
    "the variance from the centered vector's own norm",
    norm("""
        centered = x - x.sum(-1, keepdim=True) / x.size(-1)
        variance = centered.square().sum(-1, keepdim=True) / x.size(-1)
        return torch.addcmul(self.bias, centered / (variance + self.eps).sqrt(), self.weight)
    """),
)

# ── 08 ──────────────────────────────────────────────────────────────────────────────────────────

BLOCK = """
    from torch import nn
    from gpt2.model import CausalMultiHeadAttention, FeedForward, LayerNorm

    class TransformerBlock(nn.Module):
        def __init__(self, n_embd, n_head, n_positions, dropout=0.1, *, n_inner=None,
                     attn_dropout=None, layer_norm_epsilon=1e-5):
            super().__init__()
            inner_dim = n_inner if n_inner is not None else 4 * n_embd
            self.ln_1 = {norm}(n_embd, eps=layer_norm_epsilon)
            self.attn = CausalMultiHeadAttention(
                n_embd, n_head, n_positions, dropout, attn_dropout=attn_dropout
            )
            self.ln_2 = {norm}(n_embd, eps=layer_norm_epsilon)
            self.mlp = FeedForward(n_embd, inner_dim, dropout)

        def forward(self, x, cache=None):
{body}
"""


def block(body: str, norm: str = "LayerNorm") -> str:
    """A piece for problem 08 with this forward."""
    lines = textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12)
    return BLOCK.format(body=lines, norm=norm)


right(
    8,
    "nanoGPT's way",
    block("""
        x = x + self.attn(self.ln_1(x), cache)
        x = x + self.mlp(self.ln_2(x))
        return x
    """),
)
right(
    8,
    "Hugging Face's way: residuals by name",
    block("""
        residual = x
        hidden_states = self.ln_1(x)
        attn_output = self.attn(hidden_states, cache=cache)
        hidden_states = attn_output + residual
        residual = hidden_states
        hidden_states = self.ln_2(hidden_states)
        feed_forward_hidden_states = self.mlp(hidden_states)
        return residual + feed_forward_hidden_states
    """),
)
right(
    8,
    "a textbook's way: a shortcut, PyTorch's norms",
    block(
        """
        shortcut = x
        x = self.ln_1(x)
        x = self.attn(x, cache)
        x = x + shortcut
        shortcut = x
        x = self.mlp(self.ln_2(x))
        x = x + shortcut
        return x
        """,
        "nn.LayerNorm",
    ),
)
right(
    8,
    "x-transformers' way: pairs of norm and layer in a loop",
    block("""
        layers = ((self.ln_1, lambda t: self.attn(t, cache)), (self.ln_2, self.mlp))
        for norm, layer in layers:
            x = layer(norm(x)) + x
        return x
    """),
)
right(
    8,
    "in one expression",
    block("""
        middle = x.add(self.attn(x=self.ln_1(x), cache=cache))
        return middle.add(self.mlp(self.ln_2(middle)))
    """),
)
right(
    8,
    "the sublayers' forward called by itself",
    block("""
        y = x + self.attn.forward(self.ln_1.forward(x), cache)
        return y + self.mlp.forward(self.ln_2.forward(y))
    """),
)

# ── 09 ──────────────────────────────────────────────────────────────────────────────────────────

FIELDS = """vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12, resid_pdrop=0.1,
                     embd_pdrop=0.1, attn_pdrop=0.1, layer_norm_epsilon=1e-5"""
SIZES_MADE = """
        @classmethod
        def gpt2_small(cls):
            return cls()

        @classmethod
        def gpt2_medium(cls):
            return cls(n_layer=24, n_head=16, n_embd=1024)

        @classmethod
        def gpt2_large(cls):
            return cls(n_layer=36, n_head=20, n_embd=1280)

        @classmethod
        def gpt2_xl(cls):
            return cls(n_layer=48, n_head=25, n_embd=1600)
"""
DERIVED = """
        @property
        def n_inner(self):
            return 4 * self.n_embd

        @property
        def head_dim(self):
            return self.n_embd // self.n_head
"""
CHECKED = """
            for field in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
                value = getattr(self, field)
                if type(value) is not int or value <= 0:
                    raise ValueError(f"{field} should be a positive integer, but is {value}")
            for field in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
                value = getattr(self, field)
                if value < 0 or value > 1:
                    raise ValueError(f"{field} should be a probability, but is {value}")
            if self.layer_norm_epsilon <= 0:
                raise ValueError(f"layer_norm_epsilon should be positive: {self.layer_norm_epsilon}")
            if self.n_embd % self.n_head != 0:
                raise ValueError(f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}")
"""
DATACLASS = """
    from dataclasses import dataclass

    @dataclass{options}
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

        def __post_init__(self):
"""
for title, options in (
    ("nanoGPT's way: a dataclass", ""),
    ("a dataclass with slots", "(slots=True)"),
    ("a frozen dataclass that can be a key", "(frozen=True, eq=True)"),
    ("a dataclass by keyword or position, ordered", "(order=True)"),
):
    right(9, title, DATACLASS.replace("{options}", options) + CHECKED + DERIVED + SIZES_MADE)
right(
    9,
    "Hugging Face's way: an __init__ that keeps each argument, compared by to_dict()",
    "    class GPT2Config:\n        def __init__(self, "
    + FIELDS
    + "):\n"
    + "".join(
        f"            self.{name} = {name}\n"
        for name in [
            "vocab_size",
            "n_positions",
            "n_embd",
            "n_layer",
            "n_head",
            "resid_pdrop",
            "embd_pdrop",
            "attn_pdrop",
            "layer_norm_epsilon",
        ]
    )
    + CHECKED
    + """
            self.n_inner = 4 * n_embd
            self.head_dim = n_embd // n_head

        def to_dict(self):
            return dict(self.__dict__)

        def __eq__(self, other):
            return isinstance(other, GPT2Config) and self.to_dict() == other.to_dict()

        def __repr__(self):
            return f"{self.__class__.__name__} {self.to_dict()}"
"""
    + SIZES_MADE,
)
right(
    9,
    "minGPT's way: a namespace filled from a table of model types",
    "    from types import SimpleNamespace\n\n    class GPT2Config(SimpleNamespace):\n"
    "        def __init__(self, "
    + FIELDS
    + "):\n"
    + "            given = {k: v for k, v in locals().items() if k not in ('self', '__class__')}\n"
    "            super().__init__(**given)\n" + CHECKED + DERIVED + SIZES_MADE,
)

# ── 10 ──────────────────────────────────────────────────────────────────────────────────────────

MODEL = """
    import torch
    import torch.nn as nn
    import torch.nn.functional as F
    from gpt2.model import Embeddings, GPT2Config, LayerNorm, TransformerBlock

    class GPT2Model(nn.Module):
        def __init__(self, config):
            super().__init__()
            self.config = config
{make}
            self.apply(self._init_weights)

        def _init_weights(self, module):
            pass

        def forward(self, input_ids, cache=None, last_only=False):
            if not isinstance(input_ids, torch.Tensor) or input_ids.dim() != 2:
                raise ValueError(f"expected (B, T), got {{getattr(input_ids, 'shape', type(input_ids))}}")
            if input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool:
                raise ValueError(f"expected token ids, got {{input_ids.dtype}}")
            if input_ids.numel() == 0:
                raise ValueError(f"no tokens in {{tuple(input_ids.shape)}}: empty")
{body}
"""
PARTS_MADE = """
self.embeddings = Embeddings(
    config.vocab_size, config.n_positions, config.n_embd, config.embd_pdrop
)
self.h = nn.ModuleList([
    TransformerBlock(
        config.n_embd, config.n_head, config.n_positions, config.resid_pdrop,
        n_inner=config.n_inner, attn_dropout=config.attn_pdrop,
        layer_norm_epsilon=config.layer_norm_epsilon,
    )
    for _ in range(config.n_layer)
])
self.ln_f = LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
self.embeddings.wte.weight = self.lm_head.weight
"""
HEAD_FIRST = PARTS_MADE.splitlines()
HEAD_FIRST = "\n".join([HEAD_FIRST[-2], *HEAD_FIRST[:-2], HEAD_FIRST[-1]])
PASSED = """
x = self.embeddings(input_ids, 0 if cache is None else cache.length)
for i, block in enumerate(self.h):
    x = block(x, None if cache is None else cache.layers[i])
"""


def model(body: str, make: str = PARTS_MADE) -> str:
    """A piece for problem 10 with these parts and this forward."""
    return MODEL.format(
        make=textwrap.indent(make.strip("\n"), " " * 12),
        body=textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12),
    )


CUT = PASSED + "x = self.ln_f(x)\nreturn self.lm_head(x[:, [-1], :] if last_only else x)\n"
right(
    10, "nanoGPT's way: the table takes the head's weight, the last position in a list", model(CUT)
)
right(10, "minGPT's kind, with the head made first", model(CUT, HEAD_FIRST))
right(
    10,
    "Hugging Face's way: slices of what is to be kept",
    model(
        PASSED
        + "hidden_states = self.ln_f(x)\n"
        + "kept = slice(-1, None) if last_only else slice(None)\n"
        + "return self.lm_head(hidden_states[:, kept, :])\n"
    ),
)
right(
    10,
    "PyTorch's norm at the end, the product with the table written out",
    model(
        PASSED
        + "if last_only:\n    x = x[:, -1:, :]\n"
        + "return self.ln_f(x) @ self.embeddings.wte.weight.transpose(0, 1)\n",
        PARTS_MADE.replace("= LayerNorm(", "= nn.LayerNorm("),
    ),
)
right(
    10,
    "layers of the cache zipped with the blocks",
    model(
        """
        past_length = cache.length if cache is not None else 0
        caches = cache.layers if cache is not None else [None] * self.config.n_layer
        hidden = self.embeddings(input_ids, start_pos=past_length)
        for layer, layer_past in zip(self.h, caches):
            hidden = layer(hidden, cache=layer_past)
        hidden = self.ln_f(hidden)
        if last_only:
            hidden = hidden[:, -1].unsqueeze(1)
        return F.linear(hidden, self.lm_head.weight)
        """
    ),
)
right(
    10,
    "blocks appended one by one, tied after the weights are set, as Hugging Face does",
    model(CUT)
    .replace(
        "self.embeddings.wte.weight = self.lm_head.weight\n            self.apply(self._init_weights)",
        "self.apply(self._init_weights)\n            self.lm_head.weight = self.embeddings.wte.weight",
    )
    .replace("    self.embeddings.wte.weight = self.lm_head.weight\n\n", "    \n"),
)

# ── 11 ──────────────────────────────────────────────────────────────────────────────────────────

INIT = """
    import math
    import torch
    from torch import nn
    import gpt2.model
    from gpt2.model import LayerNorm, TransformerBlock, CausalMultiHeadAttention, FeedForward

    class GPT2Model(gpt2.model.GPT2Model):
        def _init_weights(self, module):
{body}
"""


def init(body: str) -> str:
    """A piece for problem 11 with this method."""
    return INIT.format(body=textwrap.indent(textwrap.dedent(body).strip("\n"), " " * 12))


PLAIN = """
    if isinstance(module, nn.Linear):
        torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
        if module.bias is not None:
            torch.nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        torch.nn.init.normal_(module.weight, mean=0.0, std=0.02)
    elif isinstance(module, LayerNorm):
        torch.nn.init.zeros_(module.bias)
        torch.nn.init.ones_(module.weight)
"""
right(
    11,
    "nanoGPT's way: by the end of the name, when the model itself is reached",
    init(
        PLAIN
        + """
    if module is self:
        for pn, p in self.named_parameters():
            if pn.endswith("c_proj.weight"):
                torch.nn.init.normal_(p, mean=0.0, std=0.02 / math.sqrt(2 * self.config.n_layer))
"""
    ),
)
right(
    11,
    "Hugging Face's way: each module's own c_proj.weight",
    init(
        PLAIN
        + """
    for name, p in module.named_parameters():
        if name == "c_proj.weight":
            p.data.normal_(mean=0.0, std=(0.02 / math.sqrt(2 * self.config.n_layer)))
"""
    ),
)
right(
    11,
    "build-nanoGPT's way: a mark that makes the deviation smaller",
    init("""
    if isinstance(module, (CausalMultiHeadAttention, FeedForward)):
        module.c_proj.SCALE_INIT = 1
        self._init_weights(module.c_proj)
    std = 0.02
    if hasattr(module, "SCALE_INIT"):
        std *= (2 * self.config.n_layer) ** -0.5
    if isinstance(module, nn.Linear):
        torch.nn.init.normal_(module.weight, mean=0.0, std=std)
        if module.bias is not None:
            module.bias.data.zero_()
    elif isinstance(module, nn.Embedding):
        torch.nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, LayerNorm):
        module.weight.data.fill_(1.0)
        module.bias.data.zero_()
    """),
)
right(
    11,
    "Hugging Face's older way: .data, one branch for both kinds",
    init("""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        module.weight.data.normal_(mean=0.0, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            module.bias.data.zero_()
    elif isinstance(module, LayerNorm):
        module.bias.data.zero_()
        module.weight.data.fill_(1.0)
    if isinstance(module, TransformerBlock):
        scaled = 0.02 / (2 * self.config.n_layer) ** 0.5
        module.attn.c_proj.weight.data.normal_(0.0, scaled)
        module.mlp.c_proj.weight.data.normal_(0.0, scaled)
    """),
)
right(
    11,
    "drawn by torch.normal and copied, without gradient",
    init("""
    def draw(parameter, std):
        with torch.no_grad():
            parameter.copy_(torch.normal(0.0, std, size=parameter.shape))
    if isinstance(module, (nn.Linear, nn.Embedding)):
        draw(module.weight, 0.02)
        if getattr(module, "bias", None) is not None:
            nn.init.constant_(module.bias, 0)
    if isinstance(module, LayerNorm):
        nn.init.constant_(module.weight, 1)
        nn.init.constant_(module.bias, 0)
    if isinstance(module, (CausalMultiHeadAttention, FeedForward)):
        draw(module.c_proj.weight, 0.02 / math.sqrt(2 * self.config.n_layer))
    """),
)
