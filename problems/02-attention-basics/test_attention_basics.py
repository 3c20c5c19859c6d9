"""Checks of problem 02. The oracle is PyTorch's own attention, with its scale set to 1."""

import torch
import torch.nn.functional as F
from torch import nn

from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_also_larger,
    expect_copies,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_edit,
    expect_no_memory,
    expect_one_device,
    expect_own_start,
    expect_signature,
    expect_state,
    fail,
    fill,
    mistake,
    sizes_from,
    tensor,
    weights,
)

# Sizes that all differ, so that a swapped axis can't hide.
B, T, C = sizes_from(
    (2, 5, 7), (3, 7, 11), (2, 6, 13)
)  # no root or ratio of two of them is another
ROLES = ("query", "key", "value")


def affine(x, w, name):
    """What the layer of that name makes of x."""
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def of(name):
    """What a role is given: the layer of that name, or x itself."""
    return lambda x, w: x if name == "x" else affine(x, w, name)


QUERY, KEY, VALUE = of("query"), of("key"), of("value")


def causal(s, diagonal=0):
    """Scores with everything later than the query (plus diagonal) at −inf."""
    return s.masked_fill(~torch.ones_like(s, dtype=torch.bool).tril(diagonal), -torch.inf)


def every_pair(s):
    """A softmax over all queries and keys at once."""
    return s.flatten(-2).softmax(-1).view_as(s)


SHARED = mistake(
    "shared-layers",
    "query, key and value are not three layers of their own: two are the same one. Each needs its "
    "own weights, or a token could not look for one thing and offer another.",
    1,
)
EXTRA = mistake(
    "extra-projection",
    "There is one layer too many. This attention has query, key and value alone; the output "
    "projection comes with problem 04.",
    5,
)
LAYER_NORM = mistake(
    "layer-norm-added",
    "There is a layer norm. It comes with problem 07; here x goes in and the average comes out.",
    5,
    after=lambda y, x: F.layer_norm(y, y.shape[-1:]),
)
SQUARE = mistake(
    "layer-shape", "query, key and value each take C numbers and give C: nn.Linear(C, C).", 1
)
NO_BIAS = mistake(
    "bias-missing", "The layers have no bias. GPT-2's have one: nn.Linear makes it by itself.", 1
)
DROPOUT = mistake(
    "dropout-added",
    "In training the output is random: there is dropout. This problem has none, it comes with 03.",
    5,
)
RETURNS_PAIR = mistake(
    "returns-a-pair",
    "forward returns more than the output. Here it returns one tensor (B, T, C); the weights go out "
    "as well from problem 03 on.",
    5,
)
NOT_OF_VALUES = mistake(
    "output-not-of-values",
    "What comes out is not an average of the values: something else than value(x) is averaged, or "
    "something is done to it afterwards.",
    5,
)
WEIGHTS_SUM = mistake("weights-sum", "A token's weights do not sum to 1.", 4)
WEIGHTS_NEGATIVE = mistake("no-softmax", "Some weights are negative: a softmax makes none.", 4)
SOME_MASKED = mistake(
    "masked",
    "Some tokens get no weight at all. Here every token looks at every token; the mask is problem 05.",
    3,
)
SCALED = mistake("scaled", "The scores are scaled. Here they are q @ kᵀ as it is.", 3)
WRONG_SCORES = mistake(
    "wrong-scores", "The weights sum to 1, but they do not come from the scores q @ kᵀ.", 3
)
MISTAKES = [
    mistake(
        "scaled",
        "The scores are divided by √C. That is right, and is problem 03; here they stay as they are.",
        3,
        score=lambda q, k: q @ k.mT / q.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-by-width",
        "The scores are divided by C. Here they stay as they are (problem 03 divides by √C).",
        3,
        score=lambda q, k: q @ k.mT / q.size(-1),
    ),
    mistake(
        "scaled-by-length",
        "The scores are divided by √T. Here they stay as they are.",
        3,
        score=lambda q, k: q @ k.mT / q.size(-2) ** 0.5,
    ),
    mistake(
        "scaled-by-length",
        "The scores are divided by T. Here they stay as they are.",
        3,
        score=lambda q, k: q @ k.mT / q.size(-2),
    ),
    mistake(
        "scale-multiplied",
        "The scores are multiplied by √C. Here they stay as they are.",
        3,
        score=lambda q, k: q @ k.mT * q.size(-1) ** 0.5,
    ),
    mistake(
        "scaled-after-softmax",
        "The weights are divided by √C after the softmax, so they no longer sum to 1.",
        4,
        softmax=lambda s, c: s.softmax(-1) / c**0.5,
    ),
    mistake(
        "scores-negated",
        "The scores have the wrong sign: the worst fit gets the largest weight.",
        3,
        score=lambda q, k: -(q @ k.mT),
    ),
    mistake(
        "masked",
        "Later tokens are masked. Here every token looks at every token; the mask is problem 05.",
        3,
        mask=causal,
    ),
    mistake(
        "masked",
        "Earlier tokens are masked. Here every token looks at every token; the mask is problem 05.",
        3,
        mask=lambda s: causal(s.mT).mT,
    ),
    mistake(
        "self-excluded",
        "A token's score with itself is masked. Here every token looks at every token, itself "
        "included.",
        3,
        mask=lambda s: s.masked_fill(torch.eye(s.size(-1), dtype=torch.bool), -torch.inf),
    ),
    mistake(
        "softmax-over-queries",
        "Your softmax runs over the queries, so the columns sum to 1. It must run over the keys, the "
        "last axis, so that each query's weights do.",
        4,
        softmax=lambda s, c: s.softmax(-2),
    ),
    mistake(
        "softmax-over-batch",
        "Your softmax runs over the batch (axis 0). It must run over the keys, the last axis.",
        4,
        softmax=lambda s, c: s.softmax(0),
    ),
    mistake(
        "softmax-over-everything",
        "Your softmax runs over all queries and keys at once. Each query's weights must sum to 1.",
        4,
        softmax=lambda s, c: every_pair(s),
    ),
    mistake(
        "no-softmax",
        "There is no softmax: raw scores may be negative and do not sum to 1.",
        4,
        softmax=lambda s, c: s,
    ),
    mistake(
        "no-softmax",
        "There is no softmax: dividing the scores by T does not make weights that sum to 1.",
        4,
        softmax=lambda s, c: s / s.size(-1),
    ),
    mistake(
        "no-softmax",
        "There is no softmax: dividing the scores by √C does not make weights that sum to 1.",
        4,
        softmax=lambda s, c: s / c**0.5,
    ),
    mistake(
        "softmax-twice",
        "The softmax is applied twice, which flattens the weights. Once is enough.",
        4,
        softmax=lambda s, c: s.softmax(-1).softmax(-1),
    ),
    mistake(
        "log-softmax",
        "These are the logarithms of the weights (log_softmax); use softmax.",
        4,
        softmax=lambda s, c: s.log_softmax(-1),
    ),
    mistake(
        "not-a-softmax",
        "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use softmax.",
        4,
        softmax=lambda s, c: s.sigmoid(),
    ),
    mistake(
        "not-a-softmax",
        "You use a ReLU in place of the softmax: the weights do not sum to 1.",
        4,
        softmax=lambda s, c: s.relu(),
    ),
    mistake(
        "not-a-softmax",
        "You use a tanh in place of the softmax: weights may be negative and do not sum to 1.",
        4,
        softmax=lambda s, c: s.tanh(),
    ),
    mistake(
        "softmax-not-normalised",
        "You take exponentials and do not divide by their sum: the weights do not sum to 1.",
        4,
        softmax=lambda s, c: s.exp(),
    ),
    mistake(
        "no-exponential",
        "You divide the scores by their sum. A softmax divides their exponentials: a score may be "
        "negative, a weight may not.",
        4,
        softmax=lambda s, c: s / s.sum(-1, keepdim=True),
    ),
    mistake(
        "hard-maximum",
        "Each query takes the value of its best key alone. A softmax mixes all values, and only so "
        "can it be learned.",
        4,
        softmax=lambda s, c: F.one_hot(s.argmax(-1), s.size(-1)).to(s.dtype),
    ),
    mistake(
        "uniform-weights",
        "Every token gets the same weight: the scores have no effect.",
        4,
        softmax=lambda s, c: torch.full_like(s, 1 / s.size(-1)),
    ),
    mistake(
        "query-key-swapped",
        "Query and key are swapped: rows of the scores must be queries, q @ kᵀ and not k @ qᵀ.",
        3,
        score=lambda q, k: k @ q.mT,
    ),
    mistake(
        "keys-not-transposed",
        "k is not transposed: a score is the dot product of a query with a key, so the last two axes "
        "of k swap before the product.",
        3,
        score=lambda q, k: q @ k,
    ),
    mistake(
        "keys-wrong-transpose",
        "The wrong axes of k are swapped. The last two must be: transpose(-2, -1).",
        3,
        score=lambda q, k: q @ k.transpose(0, 1),
    ),
    mistake(
        "keys-wrong-transpose",
        "The wrong axes of k are swapped: `.T` turns all three round. Only the last two must be: "
        "transpose(-2, -1).",
        3,
        score=lambda q, k: q @ k.permute(2, 1, 0),
    ),
    mistake(
        "keys-reshaped",
        "k is reshaped where it must be transposed: the shape is the same, the numbers end up "
        "elsewhere.",
        3,
        score=lambda q, k: q @ k.reshape(k.size(0), k.size(2), k.size(1)),
    ),
    mistake(
        "elementwise-product",
        "You multiply q and k number by number. A score is a dot product: one number for each pair "
        "of a query and a key, (B, T, T).",
        3,
        score=lambda q, k: q * k,
        mix=lambda w, v: w * v,
    ),
    mistake(
        "elementwise-product",
        "You multiply q and k number by number. A score is a dot product: one number for each pair "
        "of a query and a key, (B, T, T).",
        3,
        score=lambda q, k: q * k,
    ),
    mistake(
        "own-key-only",
        "Each query meets its own token's key alone. It has to meet every key: (B, T, T) scores.",
        3,
        score=lambda q, k: (q * k).sum(-1, keepdim=True),
        mix=lambda w, v: w * v,
    ),
    mistake(
        "attends-over-features",
        "You attend among the C features and not among the T tokens: kᵀ q has shape (C, C).",
        3,
        score=lambda q, k: q.mT @ k,
        mix=lambda w, v: v @ w.mT,
    ),
    mistake(
        "attends-over-features",
        "You attend among the C features and not among the T tokens: kᵀ q has shape (C, C).",
        3,
        score=lambda q, k: q.mT @ k,
        mix=lambda w, v: v @ w,
    ),
    mistake(
        "cosine-scores",
        "q and k are brought to length 1 first. A score is the plain dot product.",
        3,
        score=lambda q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT,
    ),
    mistake(
        "distance-scores",
        "The scores are distances. A score is the dot product of a query and a key.",
        3,
        score=lambda q, k: -torch.cdist(q, k),
    ),
    mistake(
        "mixes-batch",
        "Tokens of different rows of the batch look at each other. Each row is a text of its own.",
        3,
        batch=lambda x: x.flatten(0, 1)[None],
    ),
    mistake(
        "mixes-batch",
        "Every row of the batch attends to the first row's keys. Each row is a text of its own.",
        3,
        score=lambda q, k: q @ k[:1].mT,
    ),
    mistake(
        "mixes-batch",
        "Every row of the batch gets the first row's values. Each row is a text of its own.",
        5,
        mix=lambda w, v: w @ v[:1],
    ),
    mistake(
        "mixes-batch",
        "Every row of the batch attends to the first row. Each row is a text of its own.",
        3,
        score=lambda q, k: q @ k[:1].mT,
        mix=lambda w, v: w @ v[:1],
    ),
    mistake(
        "attends-over-batch",
        "Batch and tokens are mixed up: each token looks at the tokens at its place in the other "
        "texts. x is (B, T, C), and tokens of the same text look at each other.",
        3,
        batch=lambda x: x.transpose(0, 1),
    ),
    mistake(
        "weights-transposed",
        "The weights are transposed before they meet the values: weights @ v, rows are queries.",
        5,
        mix=lambda w, v: w.mT @ v,
    ),
    mistake(
        "product-order",
        "The last product is the wrong way round: v @ weights. The weights stand on the left, one "
        "row for each query, and the values on the right: weights @ v.",
        5,
        mix=lambda w, v: v @ w,
    ),
    mistake(
        "values-transposed",
        "The values are transposed before the last product. Only the keys are; the values go in as "
        "they are, (B, T, C).",
        5,
        mix=lambda w, v: w @ v.mT,
    ),
    mistake(
        "summed-over-queries",
        "The weighted values are summed over the queries. The sum runs over the keys: output i is "
        "the sum of weight (i, j) times value j over all j.",
        5,
        mix=lambda w, v: w.sum(-2).unsqueeze(-1) * v,
    ),
    mistake(
        "values-not-mixed",
        "The weights do not reach the values: every token keeps its own value.",
        5,
        mix=lambda w, v: v,
    ),
    mistake(
        "values-averaged",
        "All values are averaged with equal weight. The weights come from the softmax.",
        5,
        mix=lambda w, v: v.mean(-2, keepdim=True).expand_as(v),
    ),
    mistake(
        "weights-returned",
        "You return the weights. They say how much; what is wanted is the average of the values.",
        5,
        mix=lambda w, v: w,
    ),
    mistake(
        "scores-returned",
        "You return the scores. They become weights, and those average the values.",
        5,
        softmax=lambda s, c: s,
        mix=lambda w, v: w,
    ),
    mistake(
        "residual-added",
        "x is added to the output. That residual comes with problem 07; here the average goes out.",
        5,
        after=lambda y, x: y + x,
    ),
    mistake(
        "output-scaled",
        "The output is divided by √C. The average goes out as it is.",
        5,
        after=lambda y, x: y / y.size(-1) ** 0.5,
    ),
    mistake(
        "output-scaled",
        "The output is divided by T. The weights sum to 1, so it is an average already.",
        5,
        after=lambda y, x: y / y.size(1),
    ),
    mistake(
        "output-pooled",
        "The output is averaged over the tokens. Each token gets its own: (B, T, C).",
        5,
        after=lambda y, x: y.mean(1),
    ),
    mistake(
        "output-pooled",
        "The output is summed over the tokens. Each token gets its own: (B, T, C).",
        5,
        after=lambda y, x: y.sum(1),
    ),
    mistake(
        "last-token-only",
        "Only the last token's output comes back. Each token gets its own: (B, T, C).",
        5,
        after=lambda y, x: y[:, -1],
    ),
    mistake(
        "output-transposed",
        "The output has tokens and features swapped. The shape is (B, T, C).",
        5,
        after=lambda y, x: y.mT,
    ),
    mistake(
        "activation-added",
        "The output goes through a ReLU. The average goes out as it is.",
        5,
        after=lambda y, x: y.relu(),
    ),
    mistake(
        "activation-added",
        "The output goes through a tanh. The average goes out as it is.",
        5,
        after=lambda y, x: y.tanh(),
    ),
    LAYER_NORM,
]
NAMES = {"q": "queries", "k": "keys", "v": "values"}
# which layer, or x itself, each of the three comes from
FROM = [
    mistake(
        f"{NAMES[letter]}-not-projected" if source == "x" else f"{NAMES[letter]}-from-{source}",
        f"The {NAMES[letter]} are x itself. They are what the layer `{own}` makes of x."
        if source == "x"
        else f"The {NAMES[letter]} come from the layer `{source}`. They come from `{own}`.",
        5 if letter == "v" else 2,
        **{letter: of(source)},
    )
    for letter, own in zip("qkv", ROLES, strict=True)
    for source in (*ROLES, "x")
    if source != own
]
MISTAKES[:0] = FROM
MISTAKES += [
    mistake(
        "bias-not-used",
        "The layers' biases are left out: call the layer, query(x), instead of multiplying by its "
        "weight.",
        2,
        q=lambda x, w: x @ w["query.weight"].mT,
        k=lambda x, w: x @ w["key.weight"].mT,
        v=lambda x, w: x @ w["value.weight"].mT,
    ),
    mistake(
        "weight-not-transposed",
        "The layers' weights are used untransposed. nn.Linear stores (out, in): call the layer.",
        2,
        q=lambda x, w: x @ w["query.weight"] + w["query.bias"],
        k=lambda x, w: x @ w["key.weight"] + w["key.bias"],
        v=lambda x, w: x @ w["value.weight"] + w["value.bias"],
    ),
]
# Not in pairs: two of these in a row say "queries from key and keys from query".
ROTATED = [
    mistake(
        "query-key-swapped",
        "Query and key are swapped: queries come from the layer `query`, keys from `key`, and rows "
        "of the scores are queries.",
        2,
        q=of("key"),
        k=of("query"),
    ),
    mistake(
        "not-projected",
        "query, key and value are made and not used: x attends to itself as it is. Pass x through "
        "each of them.",
        2,
        q=of("x"),
        k=of("x"),
        v=of("x"),
    ),
]
MISTAKES[:0] = ROTATED


def attend(
    x,
    w,
    *,
    q=QUERY,
    k=KEY,
    v=VALUE,
    score=lambda q, k: q @ k.mT,
    mask=lambda s: s,
    softmax=lambda s, c: s.softmax(-1),
    mix=lambda w, v: w @ v,
    after=lambda y, x: y,
    batch=lambda x: x,
):
    """Attention with any step replaced. batch: what is taken for texts."""
    shape = x.shape
    x = batch(x)
    s = mask(score(q(x, w), k(x, w)))
    y = after(mix(softmax(s, x.size(-1)), v(x, w)), x)
    if x.shape == shape or y.shape != x.shape:
        return y
    return y.view(shape) if len(x) == 1 else y.transpose(0, 1)


def layer_of(piece, c=C, seed=0, scale=0.5):
    return fill(expect_module(piece.SimpleAttention(c)).eval(), seed, scale)


def x_of(b=B, t=T, c=C, seed=0, scale=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(b, t, c, generator=generator) * scale).to(dtype)


def call(layer, x):
    """layer(x), checked to be one tensor."""
    got = layer(x)
    if isinstance(got, (tuple, list)):
        fail(RETURNS_PAIR, f"It returned a {type(got).__name__} of {len(got)}.")
    return got


def oracle(x, w):
    """PyTorch's own attention."""
    return F.scaled_dot_product_attention(*(affine(x, w, name) for name in ROLES), scale=1.0)


def examine(layer, x, **tolerance):
    """Compare with PyTorch's own attention."""
    w = weights(layer)
    try:
        compare(
            lambda: call(layer, x),
            oracle(x, w),
            MISTAKES,
            lambda **switches: attend(x, w, **switches),
            axes="B T C",
            sizes={"C": x.size(-1), "T": x.size(1)},
            given=(x,),
            **tolerance,
        )
    except CheckFailed as error:
        if not error.mistakes:
            read_back(layer)
        raise


def read_back(layer):
    """Fail with what the weights are, read off the output of a text that is shorter than wide.

    With T < C the rows of v are independent, so that output = weights @ v has one solution.
    """
    layer = fill(type(layer)(8).eval().double(), 9, scale=0.2)
    x, w = x_of(1, 3, 8, seed=9, dtype=torch.float64), weights(layer)
    with torch.no_grad():
        y = layer(x)[0]
    q, k, v = (affine(x, w, name)[0] for name in ROLES)
    if y.shape != v.shape:
        return
    used = torch.linalg.lstsq(v.mT, y.mT).solution.mT  # (T, T)
    if not torch.allclose(used @ v, y, atol=1e-6):
        fail(NOT_OF_VALUES)
    row = f"Weights of the first of three tokens: {', '.join(f'{n:.3f}' for n in used[0])}"
    sums = used.sum(-1)
    if not torch.allclose(sums, torch.ones_like(sums), atol=1e-5):
        fail(WEIGHTS_SUM, f"{row}; their sum is {sums[0]:.3f}")
    if (used.abs() < 1e-9).any():
        fail(SOME_MASKED, row)
    if (used < 0).any():
        fail(WEIGHTS_NEGATIVE, row)
    mine, right = used.log(), q @ k.mT
    mine, right = (s - s.mean(-1, keepdim=True) for s in (mine, right))
    ratio = float((mine * right).sum() / right.square().sum())
    if torch.allclose(mine, right, atol=1e-6):
        return
    if torch.allclose(mine, right * ratio, atol=1e-6):
        fail(SCALED, f"The scores are {ratio:.4g} times as large as they should be.", row)
    fail(WRONG_SCORES, row)


@check(todo=1)
def test_builds(piece):
    """The module holds three layers of its own, query, key and value, each nn.Linear(C, C)."""
    cls = piece.SimpleAttention
    expect_signature(cls.__init__, "(n_embd)", "SimpleAttention.__init__")
    layer = expect_module(cls(n_embd=C))
    layers = [
        attribute(layer, name, nn.Linear, "the tests and the notebook set weights under it")
        for name in ROLES
    ]
    for name, linear in zip(ROLES, layers, strict=True):
        if tuple(linear.weight.shape) != (C, C):
            out, into = linear.weight.shape
            fail(SQUARE, f"With C = {C}, {name} takes {into} numbers and gives {out}.")
        if linear.bias is None:
            fail(NO_BIAS, f"{name}.bias is None.")
        if linear.weight.dtype != torch.float32:
            fail(f"{name} has dtype {linear.weight.dtype}, expected torch.float32. [fixed-dtype]")
    if len({id(linear.weight) for linear in layers}) < 3:
        fail(SHARED)
    names = [f"{name}.{kind}" for name in ROLES for kind in ("weight", "bias")]
    explain = {"ln": LAYER_NORM, "norm": LAYER_NORM, "weight": EXTRA, "bias": EXTRA}
    expect_state(layer, names, explain)
    expect_own_start(lambda: cls(C))


@check(todo=5, needs=test_builds)
def test_worked_example(piece):
    """Three words by hand: the first one's scores 0, 1, 2 give weights 0.090, 0.245, 0.665"""
    layer = layer_of(piece, 2)
    with torch.no_grad():
        layer.query.weight.copy_(torch.tensor([[1.0, 0], [0, 2]]))  # (a, b) → (a, 2b)
        layer.key.weight.copy_(torch.tensor([[0.0, 1], [1, 0]]))  # (a, b) → (b, a)
        layer.value.weight.copy_(torch.tensor([[10.0, 0], [0, 100]]))  # (a, b) → (10a, 100b)
        for name in ROLES:
            getattr(layer, name).bias.zero_()
    x = torch.tensor([[[1.0, 0], [0, 1], [1, 2]]])
    expect_also_larger(
        lambda: examine(layer, torch.cat((x, x_of(3, 3, 2)))),
        lambda: examine(layer_of(piece), x_of()),
    )
    want = torch.tensor([[[7.5527, 157.5210], [9.3662, 100.0], [9.9410, 175.7100]]])
    compare(call(layer, x), want, rtol=1e-4, axes="B T C")


@check(todo=5, needs=test_worked_example, points=3)
def test_attention(piece):
    """Every token gets its average of all tokens' values, as PyTorch's attention computes it"""
    examine(layer_of(piece), x_of())
    texts = [x_of(b, t, seed=i) for i, (b, t) in enumerate(((1, 3), (2, 3), (1, 5), (2, 3)))]
    calls = [lambda m, x=x: tensor(call(m, x)) for x in texts]
    expect_no_memory(layer_of(piece), [*calls, *calls[1:]])
    for b, t, c in ((1, 5, 3), (3, 2, 4), (4, 4, 4), (2, 7, 3)):
        examine(layer_of(piece, c, seed=b), x_of(b, t, c, seed=t))


@check(todo=5, needs=test_attention)
def test_one_token(piece):
    """A single token attends to itself alone: its output is its value"""
    layer = layer_of(piece, seed=1)
    for b in (1, 3):
        examine(layer, x_of(b, 1, seed=b))


@check(todo=5, needs=test_attention)
def test_other_sizes(piece):
    """No size is written into the code: widths 1 and 64, texts longer than wide"""
    for b, t, c in ((2, 3, 1), (1, 9, 2), (2, 3, 64), (1, 70, 5)):
        examine(layer_of(piece, c, seed=c, scale=0.3), x_of(b, t, c, seed=t, scale=0.7))


@check(todo=5, needs=test_attention)
def test_order_does_not_matter(piece):
    """No mask and no positions: shuffling the tokens shuffles the outputs and nothing else"""
    layer = layer_of(piece, seed=2)
    x = x_of(2, 6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    compare(call(layer, x[:, order]), call(layer, x)[:, order], what="the output in another order")


@check(todo=5, needs=test_attention)
def test_large_scores_stay_finite(piece):
    """Scores of 1e4 overflow exp() unless the softmax subtracts the maximum"""
    layer = layer_of(piece, seed=3, scale=5.0)
    x = x_of(seed=4, scale=40.0)
    if not torch.isfinite(tensor(call(layer, x))).all():
        fail(
            "Large scores give NaN: exp() overflows. torch.softmax subtracts the largest score "
            "first. (hint 4) [softmax-overflows]",
            hint=4,
        )
    examine(layer, x, rtol=1e-3, atol=1e-2)


@check(todo=5, needs=test_attention)
def test_no_dropout(piece):
    """Training and eval mode give the same"""
    layer = layer_of(piece, seed=4)
    x = x_of(3, 16)
    want = call(layer, x)
    expect_mode_kept(layer, lambda: layer(x))
    layer.train()
    if torch.equal(call(layer, x), call(layer, x)):
        examine(layer, x)
    for _ in range(5):
        if not torch.allclose(call(layer, x), want, rtol=1e-4, atol=1e-5):
            fail(DROPOUT)


@check(todo=5, needs=test_attention)
def test_gradients(piece):
    """Gradients reach x and the three layers, and equal those of PyTorch's attention"""
    layer = layer_of(piece, seed=5)
    mine, theirs = x_of(seed=5).requires_grad_(), x_of(seed=5).requires_grad_()
    # a key's bias adds the same to all scores of a query, so the softmax undoes it
    expect_finite_gradients(layer, call(layer, mine).pow(2).sum(), optional=("key.bias",))
    if mine.grad is None:
        fail("No gradient reaches x: is it detached? [no-gradient]")
    w = {name: value.requires_grad_() for name, value in weights(layer).items()}
    oracle(theirs, w).pow(2).sum().backward()
    compare(mine.grad, theirs.grad, what="the gradient of x", rtol=1e-3, atol=1e-4)
    for name, parameter in layer.named_parameters():
        if name != "key.bias":
            grad = w[name].grad
            compare(parameter.grad, grad, what=f"the gradient of {name}", rtol=1e-3, atol=1e-4)


@check(todo=5, needs=test_attention)
def test_dtypes(piece):
    """float64 and bfloat16 stay what they are"""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 6e-2)):
        layer, x = layer_of(piece, seed=6, scale=0.3).to(dtype), x_of(seed=6, dtype=dtype)
        got = call(layer, x)
        if got.dtype != dtype:
            fail(
                f"With {dtype} input the output comes out as {got.dtype}: is a dtype written into "
                "forward? [fixed-dtype]"
            )
        want = oracle(x.double(), weights(layer.double()))
        compare(got.double(), want, what=f"the output in {dtype}", rtol=tolerance, atol=tolerance)


@check(todo=5, needs=test_attention)
def test_device(piece):
    """Works on whatever device x is on, and leaves x as it was"""
    expect_no_edit(layer_of(piece, seed=7), x_of(3, 5, seed=7), "x")
    expect_one_device(layer_of(piece), lambda module, move: module(move(x_of())))


@check(todo=5, needs=test_attention)
def test_copies(piece):
    """A copy, and a module that loads the state_dict, give the same"""
    layer = layer_of(piece, seed=7)
    x = x_of(3, 5, seed=7)
    expect_copies(layer, lambda module: call(module, x))
