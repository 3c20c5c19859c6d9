"""GPT-2 as a textbook computes it: every step has a name and can be replaced by keyword.

The checks use it to compute what a mistake gives (`attention(q, k, v, divisor=lambda n: n.D)`
divides the scores by D in place of √D), and `learn explain` to list the steps (`note`). What is not
replaced is GPT-2 as released by OpenAI; the names of weights are those of the contract.

    B batch   T new tokens   S keys: past + T   C width   H heads   D width of a head   V vocabulary

Each function takes any of the steps below, also those of the pieces that it is made of.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

INNER = math.sqrt(2 / math.pi)  # the two constants of GELU's tanh form
CUBIC = 0.044715

Step = Callable[..., Any]
Stored = "tuple[Tensor, Tensor] | None"


class Sizes(NamedTuple):
    """The sizes that an attention may be scaled by. shape: that of the queries."""

    T: int
    S: int
    D: int
    H: int
    C: int
    shape: torch.Size


# ── what steps are made of ──────────────────────────────────────────────────────────────────────


def count(ids: Tensor, start: int = 0) -> Tensor:
    """The positions of the new tokens: (B, T) → (T,)."""
    return torch.arange(start, start + ids.size(1))


def split(x: Tensor, h: int) -> Tensor:
    """Into heads: (B, T, C) → (B, H, T, D)."""
    return x.view(x.size(0), x.size(1), h, x.size(-1) // h).transpose(1, 2)


def merge(y: Tensor) -> Tensor:
    """The heads side by side again: (B, H, T, D) → (B, T, C)."""
    return y.transpose(1, 2).flatten(2)


def lower(t: int, s: int, diagonal: int = 0) -> Tensor:
    """True where query i of t may see key j ≤ i + diagonal of s: (T, S)."""
    return torch.ones(t, s, dtype=torch.bool).tril(diagonal)


def bottom_right(t: int, s: int, cached: bool = False) -> Tensor:
    """GPT-2's mask, in which the t queries are the last of s positions: (T, S)."""
    return lower(t, s, s - t)


def unmasked(t: int, s: int, cached: bool = False) -> None:
    """No mask."""


def keep(stored: Stored, k: Tensor, v: Tensor) -> tuple[Stored, tuple[Tensor, Tensor]]:
    """A right cache: (what is stored now, the keys and values to attend to)."""
    if stored is not None:
        k, v = torch.cat((stored[0], k), 2), torch.cat((stored[1], v), 2)
    return (k, v), (k, v)


def linear(x: Tensor, w: Any, name: str) -> Tensor:
    """What the linear layer of that name makes of x."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def of(name: str) -> Step:
    """A step that gives a role what the layer of that name makes of x."""
    return lambda x, w: linear(x, w, name)


def pre(x: Tensor, norm: Step, f: Step) -> Tensor:
    """A half of a block: x plus what the sublayer makes of the normalized x."""
    return x + f(norm(x))


def same(x: Any, *_: Any) -> Any:
    """The step that changes nothing."""
    return x


# ── the steps ───────────────────────────────────────────────────────────────────────────────────


@dataclass
class Steps:
    """Every step of a GPT-2. None: the step is a function below, made of other steps."""

    # embeddings
    positions: Step = count  # ids, start
    tables: Step = lambda wte, wpe: (wte, wpe)
    token: Step = lambda wte, ids: F.embedding(ids, wte)
    place: Step = lambda wpe, positions: F.embedding(positions, wpe)
    combine: Step = lambda t, p: t + p  # the tokens' vectors, the positions'
    embedded: Step = same  # the sum, wte
    drop_embd: Step = same

    # one head of attention with layers of its own (problem 02)
    batch: Step = same  # what is taken for texts
    to_q: Step = of("query")  # x, weights
    to_k: Step = of("key")
    to_v: Step = of("value")
    averaged: Step = same  # the output, x

    # scaled dot-product attention
    keys: Step = lambda k, v: k
    scores: Step = lambda q, k: q @ k.transpose(-2, -1)
    divisor: Step | None = lambda n: n.D**0.5  # None: the scores are not scaled
    divide: Step = lambda s, d: s / d
    unmasked: Step = same  # the scores, where there is no mask
    masking: Step = lambda s, m: s.masked_fill(~m, -torch.inf)
    softmax: Step = lambda s: s.softmax(-1)
    weighed: Step = same  # the weights, sizes
    masked: Step = same  # the weights, the mask
    drop_attn: Step = same
    values: Step = lambda q, k, v: v
    average: Step = lambda p, v: p @ v
    returned: Step = lambda p, s: p  # the weights that are returned: of weights, scores

    # several heads, with a mask and a cache
    attn_input: Step = same
    into: Step = lambda x, w: linear(x, w, "c_attn")
    unpack: Step = lambda a, h: a.chunk(3, -1)
    order: Sequence[int] = (0, 1, 2)  # which third is query, key and value
    share: Step = lambda q, k, v: (q, k, v)
    splitting: Step = split
    by_heads: Step = lambda q, k, v: (q, k, v)
    append: Step = keep
    mask: Step = bottom_right  # T, S, whether there is a cache
    merging: Step = merge
    out: Step = lambda y, w: linear(y, w, "c_proj")
    drop_resid: Step = same  # what a sublayer adds to the stream
    last: Step = same  # what attention gives, x

    # GELU in the form with tanh, and the feed-forward network
    gelu: Step | None = None
    half: float = 0.5
    outer: Step = same
    one: float = 1.0
    bend: Step = torch.tanh
    inner: float = INNER
    straight: Step = same
    cubic: float = CUBIC
    power: int = 3
    mlp_input: Step = same
    up: Step = lambda x, w: linear(x, w, "c_fc")
    widened: Step = same
    act: Step | None = None
    activated: Step = same
    down: Step = lambda h, w: linear(h, w, "c_proj")
    narrowed: Step = same
    mlp_output: Step = same  # what the network gives, x

    # layer norm and residual
    norm: Step | None = None  # x, weight, bias, eps
    axes: Step = lambda x: (-1,)
    keepdim: bool = True
    correction: int = 0
    norm_input: Step = same  # x, weight, bias
    middle: Step = lambda x, m: m  # x, its mean
    shift: Step = same  # what is subtracted, of the mean
    spread: Step = lambda x, m, v: v  # x, its mean, its variance
    root: Step = lambda v, eps: (v + eps).sqrt()
    affine: Step = lambda y, w, b: y * w + b
    detach: str = ""  # which of "input", "mean", "variance" carry no gradient
    residual: Step = pre  # x, norm, sublayer

    # block
    norms: Sequence[int] = (1, 2)  # the norm of each half
    epsilons: Step = lambda e1, e2: (e1, e2)
    first: Step = pre  # x, norm, sublayer
    second: Step = pre
    block: Step | None = None  # x, ln_1, ln_2, attention, feed-forward

    # model
    start: Step = lambda past, t, config: past  # the position of the first new token
    ids_seen: Step = lambda ids, past: ids
    heads: Step = lambda config: config.n_head
    eps_block: Step = same
    eps_final: Step = same
    pre_blocks: Step = lambda x, ln: x  # x, ln_f
    blocks: Step = range  # which blocks, of n_layer
    step: Step = lambda f, x, e: f(x)  # a block, the stream, the embeddings
    after_block: Step = lambda x, ln: x
    cut: Step = lambda x, only: x[:, -1:] if only else x
    final: Step = lambda x, ln, e: ln(x)
    head: Step = lambda x, w: x @ w["embeddings.wte.weight"].T
    logits: Step = same  # the logits, ln_f, n_embd
    slot: Step = lambda i, n: i  # the cache's layer for block i of n
    cached: bool | None = None
    reset: bool = False  # whether the cache is emptied before each piece

    # not a step: hears the name and the value of each result
    note: Step = lambda name, value: None

    def __post_init__(self) -> None:
        self.changed: frozenset[str] = frozenset()

    def under(self, title: str) -> Steps:
        """The same steps, whose results are noted under this title."""
        if "note" not in self.changed:
            return self
        return self.but(note=lambda name, value: self.note(f"{title}{name}", value))

    def but(self, **switches: Any) -> Steps:
        """The same steps with some replaced. TypeError for a name that is not a step's."""
        if not switches:
            return self
        if not NAMES.issuperset(switches):
            raise TypeError(f"no step is called {' or '.join(sorted(set(switches) - NAMES))}")
        made = copy.copy(self)
        vars(made).update(switches, changed=self.changed.union(switches))
        return made


NAMES = frozenset(f.name for f in fields(Steps))
PLAIN = Steps()
NORM = {"norm", "axes", "keepdim", "correction", "norm_input", "middle", "shift", "spread", "root"}
NORM |= {"affine", "detach", "note"}
GELU = {"gelu", "half", "outer", "one", "bend", "inner", "straight", "cubic", "power", "note"}


class Under:
    """The weights whose names begin with a prefix, under the rest of their names."""

    def __init__(self, weights: Any, prefix: str):
        self.weights, self.prefix = weights, prefix

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[self.prefix + name]


# ── the pieces ──────────────────────────────────────────────────────────────────────────────────


def embeddings(
    wte: Tensor, wpe: Tensor, ids: Tensor, start: int = 0, *, steps: Steps = PLAIN, **switches: Any
) -> Tensor:
    """Token and position embeddings: ids (B, T) → (B, T, C)."""
    s = steps.but(**switches)
    wte, wpe = s.tables(wte, wpe)
    t = s.token(wte, ids)
    s.note("the token embeddings", t)
    p = s.place(wpe, s.positions(ids, start))
    s.note("the position embeddings", p)
    x = s.embedded(s.combine(t, p), wte)
    s.note("their sum", x)
    return s.drop_embd(x)


def simple_attention(x: Tensor, w: Any, *, steps: Steps = PLAIN, **switches: Any) -> Tensor:
    """One head without scale and mask: (B, T, C) → (B, T, C)."""
    s = steps.but(**{"divisor": None, **switches})
    shape = x.shape
    x = s.batch(x)
    q, k, v = s.to_q(x, w), s.to_k(x, w), s.to_v(x, w)
    for name, value in (("queries", q), ("keys", k), ("values", v)):
        s.note(f"the {name}", value)
    y = s.averaged(attention(q, k, v, n_embd=x.size(-1), steps=s)[0], x)
    if x.shape == shape or y.shape != x.shape:
        return y
    return y.view(shape) if len(x) == 1 else y.transpose(0, 1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    n_embd: int | None = None,
    n_head: int | None = None,
    steps: Steps = PLAIN,
    **switches: Any,
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention: q (…, T, D), k and v (…, S, D) → output (…, T, D), weights
    (…, T, S). n_embd, n_head: of the whole, for steps that take them for a head's sizes.
    """
    s = steps.but(**switches)
    n = Sizes(q.size(-2), k.size(-2), q.size(-1), n_head or 1, n_embd or q.size(-1), q.shape)
    scores = s.scores(q, s.keys(k, v))
    s.note("the scores q kᵀ", scores)
    if s.divisor is not None:
        scores = s.divide(scores, s.divisor(n))
        s.note("the scaled scores", scores)
    if mask is None:
        scores = s.unmasked(scores)
    else:
        scores = s.masking(scores, mask)
        s.note("the masked scores", scores)
    weights = s.weighed(s.softmax(scores), n)
    if mask is not None:
        weights = s.masked(weights, mask)
    weights = s.drop_attn(weights)
    s.note("the weights", weights)
    output = s.average(weights, s.values(q, k, v))
    s.note("the weighted values", output)
    return output, s.returned(weights, scores)


def multi_head(
    x: Tensor,
    w: Any,
    n_head: int,
    cuts: Sequence[int] | None = None,
    *,
    steps: Steps = PLAIN,
    **switches: Any,
) -> Tensor:
    """Causal multi-head attention: (B, T, C) → (B, T, C).

    cuts: the sizes of the pieces in which x is fed to a cache; None: at once, and no cache.
    """
    s = steps.but(**switches)
    stored, outputs = None, []
    for piece in x.split(list(cuts) if cuts else x.size(1), 1):
        qkv = s.into(s.attn_input(piece), w)
        s.note("c_attn's output", qkv)
        a, b, c = s.unpack(qkv, n_head)
        q, k, v = s.share(*((a, b, c)[i] for i in s.order))
        q, k, v = s.by_heads(*(s.splitting(t, n_head) for t in (q, k, v)))
        for name, value in (("q", q), ("k", k), ("v", v)):
            s.note(f"{name} by heads", value)
        if cuts:
            stored, (k, v) = s.append(stored, k, v)
        m = s.mask(q.size(-2), k.size(-2), bool(cuts))
        y, _ = attention(q, k, v, m, n_embd=x.size(-1), n_head=n_head, steps=s)
        y = s.merging(y)
        s.note("the merged heads", y)
        y = s.out(y, w)
        s.note("c_proj's output", y)
        outputs.append(s.last(s.drop_resid(y), piece))
    return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0]


def layer_norm(
    x: Tensor, w: Tensor, b: Tensor, eps: float = 1e-5, *, steps: Steps = PLAIN, **switches: Any
) -> Tensor:
    """Layer norm over the last axis, with the biased variance: (…, C) → (…, C)."""
    s = steps.but(**switches)
    if s.norm is not None:
        return s.norm(x, w, b, eps)
    if NORM.isdisjoint(s.changed):  # the same, in a fraction of the time
        return F.layer_norm(x, w.shape, w, b, eps)
    x = x * 0 + x.detach() if "input" in s.detach else x
    x = s.norm_input(x, w, b)
    m = s.middle(x, x.mean(s.axes(x), keepdim=s.keepdim))
    v = s.spread(x, m, x.var(s.axes(x), correction=s.correction, keepdim=s.keepdim))
    m = m.detach() if "mean" in s.detach else m
    v = v.detach() if "variance" in s.detach else v
    centered = x - s.shift(m)
    s.note("x minus its mean", centered)
    s.note("the variance", v)
    y = centered / s.root(v, eps)
    s.note("the normalized x", y)
    if "note" in s.changed:
        s.note("the normalized x, scaled", y * w)
    y = s.affine(y, w, b)
    s.note("the normalized x, scaled and shifted", y)
    return y


def gelu(x: Tensor, *, steps: Steps = PLAIN, **switches: Any) -> Tensor:
    """GELU in the form with tanh, which GPT-2 was trained with (Hendrycks and Gimpel, "Gaussian
    Error Linear Units", section 2): any shape.
    """
    s = steps.but(**switches)
    if s.gelu is not None:
        return s.gelu(x)
    if GELU.isdisjoint(s.changed):
        return F.gelu(x, approximate="tanh")
    inner = s.inner * (s.straight(x) + s.cubic * x**s.power)
    s.note("the tanh's argument", inner)
    y = s.half * s.outer(x) * (s.one + s.bend(inner))
    s.note("the activation", y)
    return y


def feed_forward(x: Tensor, w: Any, *, steps: Steps = PLAIN, **switches: Any) -> Tensor:
    """The feed-forward network: (…, C) → (…, C)."""
    s = steps.but(**switches)
    h = s.up(s.mlp_input(x), w)
    s.note("c_fc's output", h)
    h = s.widened(h)
    h = s.activated(gelu(h, steps=s) if s.act is None else s.act(h))
    y = s.down(h, w)
    s.note("c_proj's output", y)
    return s.mlp_output(s.drop_resid(s.narrowed(y)), x)


def residual_block(
    x: Tensor, w: Any, f: Step, eps: float = 1e-5, *, steps: Steps = PLAIN, **switches: Any
) -> Tensor:
    """x + f(ln(x)): (B, T, C) → (B, T, C)."""
    s = steps.but(**switches)

    def sublayer(t: Tensor) -> Tensor:
        made = f(t)
        s.note("the sublayer's output", made)
        return made

    y = s.residual(x, lambda t: layer_norm(t, w["ln.weight"], w["ln.bias"], eps, steps=s), sublayer)
    s.note("x plus the sublayer's output", y)
    return y


def block(
    x: Tensor,
    w: Any,
    n_head: int,
    eps: float = 1e-5,
    cuts: Sequence[int] | None = None,
    *,
    steps: Steps = PLAIN,
    **switches: Any,
) -> Tensor:
    """A Transformer block: (B, T, C) → (B, T, C)."""
    s = steps.but(**switches)
    epsilons = s.epsilons(eps, eps)
    attn_steps, mlp_steps = s.under("attention: "), s.under("feed-forward: ")

    def norm(i: int) -> Step:
        weight, bias, own = w[f"ln_{i}.weight"], w[f"ln_{i}.bias"], s.under(f"ln_{i}: ")
        return lambda x: layer_norm(x, weight, bias, epsilons[i - 1], steps=own)

    def attn(x: Tensor) -> Tensor:
        return multi_head(x, Under(w, "attn."), n_head, cuts, steps=attn_steps)

    def mlp(x: Tensor) -> Tensor:
        return feed_forward(x, Under(w, "mlp."), steps=mlp_steps)

    n1, n2 = (norm(i) for i in s.norms)
    if s.block is not None:
        return s.block(x, n1, n2, attn, mlp)
    x = s.first(x, n1, attn)
    s.note("x after attention", x)
    x = s.second(x, n2, mlp)
    s.note("x after the feed-forward network", x)
    return x


def model(
    w: Any,
    config: Any,
    pieces: Sequence[Tensor],
    last_only: bool = False,
    *,
    stored: dict[int, Any] | None = None,
    steps: Steps = PLAIN,
    **switches: Any,
) -> Tensor:
    """GPT-2 fed with pieces of ids, one after the other: the last one's logits (B, T, V).

    stored: a dict that receives each layer's keys and values.
    """
    s = steps.but(**switches)
    n, wte = config.n_layer, w["embeddings.wte.weight"]
    cached = (len(pieces) > 1 or stored is not None) if s.cached is None else s.cached
    store: dict[int, Any] = {} if stored is None else stored
    store.update(dict.fromkeys(range(n)))
    silent = s.but(note=lambda name, value: None) if "note" in s.changed else s

    def ln_f(x: Tensor) -> Tensor:
        weight, bias = w["ln_f.weight"], w["ln_f.bias"]
        eps = s.eps_final(config.layer_norm_epsilon)
        return layer_norm(x, weight, bias, eps, steps=s.under("ln_f: "))

    def run(x: Tensor, number: int, i: int) -> Tensor:
        """Block i, which is passed as the one of this number."""
        at = s.slot(number, n)

        def append(_: Any, k: Tensor, v: Tensor) -> tuple[Any, tuple[Tensor, Tensor]]:
            store[at], both = keep(store[at], k, v)
            return None, both

        stores = cached and at in store  # a block that is passed too often may have no layer
        own = s.but(append=append) if stores else s
        cuts = (x.size(1),) if stores else None
        eps, layer = s.eps_block(config.layer_norm_epsilon), Under(w, f"h.{i}.")
        return block(x, layer, s.heads(config), eps, cuts, steps=own.under(f"block {i}: "))

    for ids in pieces:
        if s.reset:
            store.update(dict.fromkeys(range(n)))
        past = min(0 if kv is None else kv[0].size(-2) for kv in store.values())
        ids = s.ids_seen(ids, past)
        first = s.start(past, ids.size(1), config)
        x = embeddings(wte, w["embeddings.wpe.weight"], ids, first, steps=silent)
        s.note("the embeddings", x)
        x = e = s.pre_blocks(x, ln_f)
        for number, i in enumerate(s.blocks(n)):
            x = s.step(lambda t, number=number, i=i: run(t, number, i), x, e)
            x = s.after_block(x, ln_f)
        y = s.final(s.cut(x, last_only), ln_f, e)
        logits = s.logits(s.head(y, w), ln_f, x.size(-1))
        s.note("the logits", logits)
    return logits
