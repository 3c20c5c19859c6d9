"""GPT-2, bottom-up: from token ids to the logits of the next token.

Axes, in every shape comment: B batch, T new tokens in this call, S keys attended to (the T new ones
and those in the cache), C n_embd, H n_head, D head_dim = C // H, V vocab_size, P n_positions.

Assembled by `learn swap` from twelve files; each section's header names its own. Edit those, in
solutions/ or problems/, not this file: the next swap writes it again. "Step 3" in a
section is the answer to "TODO 3" in its problem.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpt2.formats.checkpoints import open_checkpoint, skip_init

# ── 01 Embeddings ── reference: solutions/01-embeddings.py:10 ─────────────────────────────────────


class Embeddings(nn.Module):
    """What a token is plus where it stands: (B, T) ids → (B, T, C).

    Attributes: `wte` nn.Embedding(V, C), `wpe` nn.Embedding(P, C), `drop` nn.Dropout.
    Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(self, vocab_size: int, n_positions: int, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # Step 1: both tables have rows of width C, so that a token's row and a position's
        # row can be added
        self.wte = nn.Embedding(vocab_size, n_embd)
        self.wpe = nn.Embedding(n_positions, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, input_ids: Tensor, start_pos: int = 0) -> Tensor:
        """Embed tokens that stand at positions start_pos … start_pos+T-1: (B, T) → (B, T, C).

        start_pos is the number of tokens already in the KV cache. ValueError that names both
        numbers when start_pos + T > n_positions.
        """
        # Step 2: a position past the table has no row; a clear message is better than PyTorch's
        # bare index error
        end = start_pos + input_ids.size(1)
        if end > self.wpe.num_embeddings:
            raise ValueError(
                f"start_pos + T = {end} positions > n_positions = {self.wpe.num_embeddings}"
            )
        # Step 3: positions are made on the ids' device; a model on a GPU can't use a tensor
        # on the CPU
        positions = torch.arange(start_pos, end, device=input_ids.device)  # (T,)
        # Step 4: (B, T, C) + (T, C): every text of the batch gets the same positions
        return self.drop(self.wte(input_ids) + self.wpe(positions))  # (B, T, C)


# ── 02 Attention basics ── reference: solutions/02-attention-basics.py:7 ──────────────────────────


class SimpleAttention(nn.Module):
    """One head without scaling or mask: every token attends to all: (B, T, C) → (B, T, C).

    Attributes: `query`, `key`, `value`, each nn.Linear(C, C). The tests set weights under these
    names.
    """

    def __init__(self, n_embd: int):
        super().__init__()
        # Step 1: three projections of the same token: what it looks for, what it offers, and
        # what it passes on
        self.query = nn.Linear(n_embd, n_embd)
        self.key = nn.Linear(n_embd, n_embd)
        self.value = nn.Linear(n_embd, n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """softmax(Q Kᵀ) V, the softmax over keys: (B, T, C) → (B, T, C)."""
        # Step 2: every token gets a query, a key and a value
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, C) each
        # Step 3: row i, column j says how well key j fits query i
        scores = q @ k.transpose(-2, -1)  # (B, T, T)
        # Step 4: the softmax runs over keys (the last axis), so that each query's weights sum to 1
        weights = torch.softmax(scores, dim=-1)  # (B, T, T)
        # Step 5: the result is an average of the values, weighted by how well the keys fit
        return weights @ v  # (B, T, C)


# ── 03 Scaled dot product ── reference: solutions/03-scaled-dot-product.py:12 ─────────────────────


class ScaledDotProductAttention(nn.Module):
    """softmax(q kᵀ / √D) v, and the weights used ("Attention Is All You Need", section 3.2.1).

    n_embd is the width of one query vector: in problem 04 that is one head's width, not the
    model's.
    """

    def __init__(self, n_embd: int, dropout: float = 0.1):
        super().__init__()
        # Step 1: a dot product's standard deviation grows as √D; dividing by √D undoes that
        self.scale = 1.0 / math.sqrt(n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend: q (…, T, D), k (…, S, D), v (…, S, E) → output (…, T, E), weights (…, T, S).

        mask: bool, broadcasts to (…, T, S), True = may attend. The weights are the ones used, after
        dropout.
        """
        # Step 2: one score per pair of query and key, scaled before the mask and the softmax
        scores = q @ k.transpose(-2, -1) * self.scale  # (…, T, S)
        # Step 3: exp(−inf) is exactly 0, and the remaining weights still sum to 1
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        # Step 4: the softmax runs over keys; dropout comes after it, on the weights
        weights = self.dropout(torch.softmax(scores, dim=-1))  # (…, T, S)
        # Step 5: the weights are returned as well, so that a caller can look at them
        return weights @ v, weights  # (…, T, E), (…, T, S)


# ── 04 Multi-head attention ── reference: solutions/04-multi-head-attention.py:11 ─────────────────


class MultiHeadAttention(nn.Module):
    """H attentions side by side, each on D columns of the projections: (B, T, C) → (B, T, C).

    Each head reads all C numbers of a token: its D query, key and value columns are projections of
    them.

    Attributes: `n_head`, `head_dim`, `c_attn` nn.Linear(C, 3C) for query, key, value in that order,
    `attention` ScaledDotProductAttention for vectors of width D (problem 03's argument n_embd is
    one head's width here), `c_proj` nn.Linear(C, C), `resid_dropout` nn.Dropout.
    Problem 12 loads the checkpoint's tensors under `c_attn` and `c_proj`; problem 05 inherits them
    all.
    """

    def __init__(
        self, n_embd: int, n_head: int, dropout: float = 0.1, attn_dropout: float | None = None
    ):
        """`dropout` is for the output, `attn_dropout` for the weights (None: the same as
        `dropout`).

        ValueError that names both numbers when n_embd % n_head != 0.
        """
        super().__init__()
        # Step 1: the heads divide the width among them, so it must be divisible
        if n_embd % n_head != 0:
            raise ValueError(f"n_embd = {n_embd} is not divisible by n_head = {n_head}")
        self.n_head = n_head
        self.head_dim = n_embd // n_head
        # Step 2: one (C, 3C) product is one large matrix product where three layers would
        # be three small ones
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.attention = ScaledDotProductAttention(
            self.head_dim, dropout if attn_dropout is None else attn_dropout
        )
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.resid_dropout = nn.Dropout(dropout)

    def split_heads(self, x: Tensor) -> Tensor:
        """Head h takes columns h·D … (h+1)·D-1: (B, T, C) → (B, H, T, D)."""
        # Step 3: cut C first, then move H ahead of T; viewing x directly as (B, H, T, D)
        # would mix up tokens
        B, T, _ = x.shape
        return x.view(B, T, self.n_head, self.head_dim).transpose(1, 2)  # (B, H, T, D)

    def merge_heads(self, x: Tensor) -> Tensor:
        """The exact inverse of split_heads: (B, H, T, D) → (B, T, C)."""
        # Step 4: undo it in reverse order; reshape copies, because a transposed tensor has
        # no flat view
        B, H, T, D = x.shape
        return x.transpose(1, 2).reshape(B, T, H * D)  # (B, T, C)

    def forward(self, x: Tensor) -> Tensor:
        """Project, split, attend in all heads at once, merge, project: (B, T, C) → (B, T, C)."""
        # Step 5: H acts as one more batch dimension, so one call computes all heads
        q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))  # (B, H, T, D) each
        y, _ = self.attention(q, k, v)
        # Step 6: c_proj mixes the heads' results; nothing else combines them
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))  # (B, T, C)


# ── 05 Causal masking ── reference: solutions/05-causal-masking.py:12 ─────────────────────────────


class CausalMultiHeadAttention(MultiHeadAttention):
    """Attention in which position i sees only positions ≤ i: (B, T, C) → (B, T, C).

    Attributes: those of MultiHeadAttention, and `n_positions`. The mask is not a parameter and
    not in state_dict(): problem 12 loads the checkpoint's weights, and a mask is not a weight.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_positions: int,
        dropout: float = 0.1,
        attn_dropout: float | None = None,
    ):
        # Step 1: all modules are inherited; the limit is stored for the check in forward
        super().__init__(n_embd, n_head, dropout, attn_dropout)
        self.n_positions = n_positions

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attend causally: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None. Its `append(keys, values)` stores the new ones
        (B, H, T, D) and returns all keys and all values up to now (B, H, S, D); the T queries are
        the last T of the S positions. ValueError that names both numbers when S > n_positions.
        """
        # Step 2: as in problem 04
        q, k, v = map(self.split_heads, self.c_attn(x).chunk(3, dim=-1))  # (B, H, T, D) each
        # Step 3: keys and values of the past never change, so they are stored, not computed again
        if cache is not None:
            k, v = cache.append(k, v)  # (B, H, S, D) each
        # Step 4: beyond n_positions there are no position embeddings
        if k.size(-2) > self.n_positions:
            raise ValueError(
                f"{k.size(-2)} positions are more than n_positions = {self.n_positions}"
            )
        # Step 5: the T queries are the newest of the S positions; all older keys are in their past
        y = self._attend(q, k, v)  # (B, H, T, D)
        # Step 6: as in problem 04
        return self.resid_dropout(self.c_proj(self.merge_heads(y)))  # (B, T, C)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention of the last T of S positions: (B, H, T, D) and S keys → (B, H, T, D)."""
        T, S = q.size(-2), k.size(-2)
        # query i is at position S − T + i, hence the diagonal; a single newest token sees
        # everything
        mask = None if T == 1 else torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
        return self.attention(q, k, v, mask)[0]


# ── 06 Feed-forward network ── reference: solutions/06-feedforward-network.py:7 ───────────────────


class NewGELU(nn.Module):
    """GELU in the tanh form that GPT-2 was trained with, not the erf form.

    Both are from Hendrycks & Gimpel 2016, "Gaussian Error Linear Units".
    """

    def forward(self, x: Tensor) -> Tensor:
        """0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))): any shape and dtype → the same."""
        # Step 1: written out, it takes eight passes over memory; PyTorch's kernel takes one
        return F.gelu(x, approximate="tanh")


class FeedForward(nn.Module):
    """Widen each token, apply the activation, narrow it again: (B, T, C) → (B, T, C).

    Attributes: `c_fc` nn.Linear(C, n_inner), `act` NewGELU, `c_proj` nn.Linear(n_inner, C), `drop`
    nn.Dropout. Problem 12 loads the checkpoint's tensors under `c_fc` and `c_proj`.
    """

    def __init__(self, n_embd: int, n_inner: int, dropout: float = 0.1):
        super().__init__()
        # Step 2: up to n_inner features, each with its own activation, and back to the
        # stream's width
        self.c_fc = nn.Linear(n_embd, n_inner)
        self.act = NewGELU()
        self.c_proj = nn.Linear(n_inner, n_embd)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """drop(c_proj(act(c_fc(x)))): (B, T, C) → (B, T, C)."""
        # Step 3: without the activation the two layers would collapse into one matrix
        return self.drop(self.c_proj(self.act(self.c_fc(x))))


# ── 07 Layer norm and residuals ── reference: solutions/07-layer-norm-residuals.py:10 ─────────────


class LayerNorm(nn.Module):
    """Bring each token's C numbers to mean 0 and variance 1, then apply a learned scale and shift.

    From Ba, Kiros & Hinton 2016, "Layer Normalization".

    Attributes: `weight` (C,) of ones, `bias` (C,) of zeros, `eps`. Problem 12 loads the
    checkpoint's tensors under `weight` and `bias`.
    """

    def __init__(self, n_embd: int, eps: float = 1e-5):
        super().__init__()
        # Step 1: these are parameters: a plain tensor would be neither trained, saved nor moved
        self.weight = nn.Parameter(torch.ones(n_embd))
        self.bias = nn.Parameter(torch.zeros(n_embd))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """weight · (x − mean) / √(variance + eps) + bias, over the last axis: (…, C) → (…, C)."""
        # Step 2: PyTorch's kernel divides by C (the biased variance), adds eps under the
        # root, sums in float32
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class ResidualBlock(nn.Module):
    """Pre-norm residual: the sublayer reads a normalized copy, the stream itself is only added to.

    Attribute: `ln` LayerNorm.
    """

    def __init__(self, n_embd: int, layer_norm_epsilon: float = 1e-5):
        super().__init__()
        # Step 3: the norm belongs to the branch, not to the stream
        self.ln = LayerNorm(n_embd, layer_norm_epsilon)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """x + sublayer(ln(x)): (B, T, C) → (B, T, C)."""
        # Step 4: x passes through unchanged, so gradients reach the first layer undiminished
        return x + sublayer(self.ln(x))


# ── 08 Transformer block ── reference: solutions/08-transformer-block.py:8 ────────────────────────


class TransformerBlock(nn.Module):
    """Tokens talk (attention), then each thinks for itself (feed-forward): (B, T, C) → (B, T, C).

    Attributes: `ln_1` LayerNorm, `attn` CausalMultiHeadAttention, `ln_2` LayerNorm, `mlp`
    FeedForward. Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        n_positions: int,
        dropout: float = 0.1,
        *,
        n_inner: int | None = None,
        attn_dropout: float | None = None,
        layer_norm_epsilon: float = 1e-5,
    ):
        """n_inner=None means 4 · n_embd; attn_dropout=None means the same as dropout."""
        super().__init__()
        # Step 1: there are two norms, because the second sublayer reads a different stream and
        # learns its own scale
        self.ln_1 = LayerNorm(n_embd, layer_norm_epsilon)
        self.attn = CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)
        self.ln_2 = LayerNorm(n_embd, layer_norm_epsilon)
        self.mlp = FeedForward(n_embd, 4 * n_embd if n_inner is None else n_inner, dropout)

    def forward(self, x: Tensor, cache=None) -> Tensor:
        """Attention, then feed-forward, each applied to a norm and added: (B, T, C) → (B, T, C).

        cache: one layer of a KVCache, or None; it goes to the attention.
        """
        # Step 2: what continues is the sum, not the attention's output alone
        x = x + self.attn(self.ln_1(x), cache)
        # Step 3: the feed-forward network reads what attention has just written
        return x + self.mlp(self.ln_2(x))


# ── 09 GPT-2 config ── reference: solutions/09-gpt2-config.py:6 ───────────────────────────────────


@dataclass
class GPT2Config:
    """The settings of a GPT-2; the defaults are GPT-2 small's, with Hugging Face's names.

    Every argument is an attribute of the same name. ValueError that names the field and its value
    for: n_embd not divisible by n_head, a size that is not a positive int, a probability outside
    [0, 1], an epsilon ≤ 0.
    """

    vocab_size: int = 50257  # 50,000 merges + 256 bytes + 1 end-of-text token
    n_positions: int = 1024
    n_embd: int = 768
    n_layer: int = 12
    n_head: int = 12
    resid_pdrop: float = 0.1
    embd_pdrop: float = 0.1
    attn_pdrop: float = 0.1
    layer_norm_epsilon: float = 1e-5

    def __post_init__(self):
        # Step 1: bool is an int in Python, and True is not a size
        for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive int, got {value!r}")
        # Step 2: NaN compares as false with everything, so this form rejects it as well
        for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")
        if not isinstance(self.layer_norm_epsilon, (int, float)) or not self.layer_norm_epsilon > 0:
            raise ValueError(
                f"layer_norm_epsilon must be greater than 0, got {self.layer_norm_epsilon!r}"
            )
        # Step 3: the heads divide the width among them
        if self.n_embd % self.n_head != 0:
            raise ValueError(f"n_embd = {self.n_embd} is not divisible by n_head = {self.n_head}")

    @property
    def n_inner(self) -> int:
        """Width of the feed-forward network's hidden layer."""
        # Step 4: computed, so that it cannot disagree with n_embd
        return 4 * self.n_embd

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        # Step 5: exact, since step 3 has checked it
        return self.n_embd // self.n_head

    @classmethod
    def gpt2_small(cls) -> "GPT2Config":
        """124,439,808 parameters."""
        # Step 6: the defaults
        return cls()

    @classmethod
    def gpt2_medium(cls) -> "GPT2Config":
        """354,823,168 parameters."""
        # Step 7: the heads stay 64 wide in all four sizes; width and depth grow
        return cls(n_embd=1024, n_layer=24, n_head=16)

    @classmethod
    def gpt2_large(cls) -> "GPT2Config":
        """774,030,080 parameters."""
        # Step 8: 1280 / 20 = 64
        return cls(n_embd=1280, n_layer=36, n_head=20)

    @classmethod
    def gpt2_xl(cls) -> "GPT2Config":
        """1,557,611,200 parameters."""
        # Step 9: 1600 / 25 = 64
        return cls(n_embd=1600, n_layer=48, n_head=25)


# ── 10 Full model ── reference: solutions/10-full-model.py:9 ──────────────────────────────────────


class GPT2Model(nn.Module):
    """GPT-2: token ids → logits of the next token at every position: (B, T) → (B, T, V).

    Attributes: `config`, `embeddings` Embeddings, `h` nn.ModuleList of TransformerBlock, `ln_f`
    LayerNorm, `lm_head` nn.Linear(C, V, bias=False) whose weight is `embeddings.wte.weight` itself.
    Problem 12 loads the checkpoint's tensors under these names.
    """

    def __init__(self, config: GPT2Config):
        super().__init__()
        # Step 1: the config stays with the model, for code that saves, caches or generates
        self.config = config
        self.embeddings = Embeddings(
            config.vocab_size, config.n_positions, config.n_embd, config.embd_pdrop
        )
        # Step 2: a ModuleList, because the parameters of a plain list's modules would be
        # invisible to PyTorch
        self.h = nn.ModuleList(
            TransformerBlock(
                config.n_embd,
                config.n_head,
                config.n_positions,
                config.resid_pdrop,
                n_inner=config.n_inner,
                attn_dropout=config.attn_pdrop,
                layer_norm_epsilon=config.layer_norm_epsilon,
            )
            for _ in range(config.n_layer)
        )
        # Step 3: pre-norm leaves the stream itself unnormalized, so one last norm comes
        # before the head
        self.ln_f = LayerNorm(config.n_embd, config.layer_norm_epsilon)
        # Step 4: one tensor with two names: reading and predicting tokens share one table
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.embeddings.wte.weight
        # Step 5: this comes last, when every module exists
        self.apply(self._init_weights)

    def forward(self, input_ids: Tensor, cache=None, last_only: bool = False) -> Tensor:
        """Predict: ids (B, T) → logits (B, T, V), or (B, 1, V) with last_only.

        cache: a KVCache, or None. Positions start at cache.length and layer i appends to
        cache.layers[i]. ValueError that says what it got for input that is not a 2-D integer
        tensor, or is empty.
        """
        # Step 6: a mistake that is named here is easier to find than one three layers further down
        if not isinstance(input_ids, Tensor):
            raise ValueError(
                f"input_ids must be a 2-D integer tensor (B, T), got a {type(input_ids).__name__}"
            )
        whole_numbers = not (
            input_ids.is_floating_point() or input_ids.is_complex() or input_ids.dtype == torch.bool
        )
        if input_ids.dim() != 2 or not whole_numbers or input_ids.numel() == 0:
            raise ValueError(
                "input_ids must be a non-empty 2-D integer tensor (B, T), "
                f"got shape {tuple(input_ids.shape)} of {input_ids.dtype}"
            )
        # Step 7: cache.length is read before the layers append, which changes it
        x = self.embeddings(input_ids, 0 if cache is None else cache.length)  # (B, T, C)
        # Step 8: each layer has its own cache, because it has its own keys and values
        for i, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layers[i])  # (B, T, C)
        # Step 9: generation needs only one position, and the head is GPT-2's largest matrix
        if last_only:
            x = x[:, -1:]  # (B, 1, C)
        # Step 10: each logit is the dot product of the stream with a token's embedding
        return self.lm_head(self.ln_f(x))  # (B, T, V)

    # ── 11 Weight initialization ── reference: solutions/11-weight-initialization.py:14 ───────────

    def _init_weights(self, module: nn.Module) -> None:
        """Set one module's initial weights, in place; `apply` calls it for every module, children
        before parents.

        nn.Linear and nn.Embedding: weight N(0, 0.02²), bias 0. LayerNorm: weight 1, bias 0. The
        projections that write into the residual stream, attn.c_proj and mlp.c_proj: weight N(0,
        (0.02/√(2·n_layer))²).
        """
        # Step 1: so small that an untrained model finds all tokens about equally likely
        if isinstance(module, (nn.Linear, nn.Embedding)):
            nn.init.normal_(module.weight, std=0.02)
            if getattr(module, "bias", None) is not None:
                nn.init.zeros_(module.bias)
        # Step 2: a norm starts without any scaling or shift
        elif isinstance(module, LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        # Step 3: 2·n_layer branches add up in the stream, so each is divided by √(2·n_layer)
        # (GPT-2 paper, section 2.3). A block comes after its children, so this overrides step 1
        elif isinstance(module, TransformerBlock):
            for projection in (module.attn.c_proj, module.mlp.c_proj):
                nn.init.normal_(projection.weight, std=0.02 / math.sqrt(2 * self.config.n_layer))

    # ── 12 Pretrained loading ── reference: solutions/12-pretrained-loading.py:13 ─────────────────

    @staticmethod
    def _build_weight_mapping(n_layer: int) -> dict[str, tuple[str, bool]]:
        """Every tensor of a Hugging Face GPT-2 checkpoint: {their key: (our key, transpose?)}.

        Their keys are written without the `transformer.` prefix. Theirs stores c_attn, c_proj and
        c_fc as Conv1D (in, out), ours as Linear (out, in). The head is tied to wte and has no
        separate entry.
        """
        # Step 1: the tensors outside the blocks
        mapping = {
            "wte.weight": ("embeddings.wte.weight", False),
            "wpe.weight": ("embeddings.wpe.weight", False),
            "ln_f.weight": ("ln_f.weight", False),
            "ln_f.bias": ("ln_f.bias", False),
        }
        # Step 2: inside the blocks our names are theirs; only the four matrices are transposed
        for i in range(n_layer):
            for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj"):
                mapping[f"h.{i}.{part}.weight"] = (f"h.{i}.{part}.weight", ".c_" in part)
                mapping[f"h.{i}.{part}.bias"] = (f"h.{i}.{part}.bias", False)
        return mapping

    @classmethod
    def from_pretrained(
        cls, model_name: str = "gpt2", *, dtype: torch.dtype = torch.float32, **options
    ) -> "GPT2Model":
        """A hub name or a local folder → the model in eval mode, tied, with every weight loaded.

        model_name: `gpt2`, `gpt2-medium`, `gpt2-large`, `gpt2-xl`, `distilgpt2`, any repo id, or a
        folder with config.json and model.safetensors. dtype: the parameters' type, whatever
        type the file uses. options go to open_checkpoint (revision, cache_dir, token). ValueError
        that names every tensor that is missing, unexpected or has the wrong shape.
        """
        # Step 3: `settings` are GPT2Config's arguments, `tensors` a mapping from key to
        # tensor, which is read on access
        settings, tensors = open_checkpoint(model_name, **options)
        config = GPT2Config(**settings)
        # Step 4: there is no need for random values, which would be overwritten
        with skip_init():
            model = cls(config).to(dtype)
        # Step 5: names come with or without prefix; masks are not weights, and the head is wte
        # under another name
        theirs = {key.removeprefix("transformer."): key for key in tensors}
        theirs = {
            name: key
            for name, key in theirs.items()
            if not name.endswith((".attn.bias", ".attn.masked_bias"))
        }
        head = theirs.pop("lm_head.weight", None)
        mapping = cls._build_weight_mapping(config.n_layer)
        # Step 6: all differences are reported at once, before any weight is copied
        ours = dict(model.named_parameters(remove_duplicate=False))
        loaded = {id(ours[our_name]) for our_name, _ in mapping.values()}
        problems = [f"missing {name}" for name in mapping if name not in theirs]
        problems += [f"unexpected {key}" for name, key in theirs.items() if name not in mapping]
        problems += [f"nothing for our {name}" for name, p in ours.items() if id(p) not in loaded]
        if problems:
            raise ValueError(f"{model_name} does not hold this GPT-2: {'; '.join(problems)}")
        wte = theirs["wte.weight"]
        if head and not torch.equal(tensors[head].to(dtype), tensors[wte].to(dtype)):
            raise ValueError(f"{model_name}: {head} differs from {wte}; GPT-2's head is tied to it")
        # Step 7: copy_ would silently broadcast a wrong shape, so shapes are compared first
        with torch.no_grad():
            for name, (our_name, transpose) in mapping.items():
                tensor = tensors[theirs[name]]
                tensor = tensor.t() if transpose and tensor.dim() == 2 else tensor
                if tensor.shape != ours[our_name].shape:
                    raise ValueError(
                        f"{model_name}: {theirs[name]} is {tuple(tensor.shape)} as {our_name}, "
                        f"the config asks for {tuple(ours[our_name].shape)}"
                    )
                ours[our_name].copy_(tensor)
        # Step 8: loaded weights are for predicting; dropout would make the predictions random
        return model.eval()
