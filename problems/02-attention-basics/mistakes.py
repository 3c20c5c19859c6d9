"""The known mistakes of problem 02, by the step that they replace (see `textbook`)."""

import torch
import torch.nn.functional as F

from learn_gpt2.checking.catalog import Catalog, way
from learn_gpt2.checking.textbook import of, same

KNOWN = Catalog()


def causal(s):
    """Scores with everything later than the query at −inf."""
    return s.masked_fill(~torch.ones_like(s, dtype=torch.bool).tril(), -torch.inf)


def every_pair(s):
    """A softmax over all queries and keys at once."""
    return s.flatten(-2).softmax(-1).view_as(s)


rotated = KNOWN.section("rotated", hint=2)

# which layer, or x itself, each of the three comes from
for step, name, own, hint in (
    ("to_q", "queries", "query", 2),
    ("to_k", "keys", "key", 2),
    ("to_v", "values", "value", 5),
):
    for source in ("query", "key", "value"):
        if source != own:
            KNOWN.add(
                f"{name}-from-{source}",
                hint,
                f"The {name} come from the layer `{source}`. They come from `{own}`.",
                way(**{step: of(source)}),
                family="roles",
            )
    KNOWN.add(
        f"{name}-not-projected",
        hint,
        f"The {name} are x itself. They are what the layer `{own}` makes of x.",
        way(**{step: same}),
        family="roles",
    )

attention = KNOWN.section("attention", hint=3)
attention(
    "scaled",
    "The scores are scaled. Here they are q @ kᵀ as it is.",
    way(
        says=(
            "The scores are divided by √C. That is right, and is problem 03; here they stay as they are."
        ),
        scores=lambda q, k: q @ k.mT / q.size(-1) ** 0.5,
    ),
)
attention(
    "scaled-by-width",
    "The scores are divided by C. Here they stay as they are (problem 03 divides by √C).",
    scores=lambda q, k: q @ k.mT / q.size(-1),
)
attention(
    "scaled-by-length",
    "The scores are divided by √T. Here they stay as they are.",
    way(scores=lambda q, k: q @ k.mT / q.size(-2) ** 0.5),
    way(
        says="The scores are divided by T. Here they stay as they are.",
        scores=lambda q, k: q @ k.mT / q.size(-2),
    ),
)
attention(
    "scale-multiplied",
    "The scores are multiplied by √C. Here they stay as they are.",
    scores=lambda q, k: q @ k.mT * q.size(-1) ** 0.5,
)
attention(
    "scaled-after-softmax",
    "The weights are divided by √C after the softmax, so they no longer sum to 1.",
    hint=4,
    weighed=lambda p, n: p / n.C**0.5,
)
attention(
    "scores-negated",
    "The scores have the wrong sign: the worst fit gets the largest weight.",
    scores=lambda q, k: -(q @ k.mT),
)
attention(
    "self-excluded",
    "A token's score with itself is masked. Here every token looks at every token, itself included.",
    unmasked=lambda s: s.masked_fill(torch.eye(s.size(-1), dtype=torch.bool), -torch.inf),
)
attention(
    "softmax-over-queries",
    "Your softmax runs over the queries, so the columns sum to 1. It must run over the keys, the last axis, so that each query's weights do.",
    hint=4,
    softmax=lambda s: s.softmax(-2),
)
attention(
    "softmax-over-batch",
    "Your softmax runs over the batch (axis 0). It must run over the keys, the last axis.",
    hint=4,
    softmax=lambda s: s.softmax(0),
)
attention(
    "softmax-over-everything",
    "Your softmax runs over all queries and keys at once. Each query's weights must sum to 1.",
    hint=4,
    softmax=every_pair,
)
attention(
    "softmax-twice",
    "The softmax is applied twice, which flattens the weights. Once is enough.",
    hint=4,
    softmax=lambda s: s.softmax(-1).softmax(-1),
)
attention(
    "log-softmax",
    "These are the logarithms of the weights (log_softmax); use softmax.",
    hint=4,
    softmax=lambda s: s.log_softmax(-1),
)
attention(
    "not-a-softmax",
    "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use softmax.",
    way(softmax=lambda s: s.sigmoid()),
    way(
        says="You use a ReLU in place of the softmax: the weights do not sum to 1.",
        softmax=lambda s: s.relu(),
    ),
    way(
        says=(
            "You use a tanh in place of the softmax: weights may be negative and do not sum to 1."
        ),
        softmax=lambda s: s.tanh(),
    ),
    hint=4,
)
attention(
    "softmax-not-normalised",
    "You take exponentials and do not divide by their sum: the weights do not sum to 1.",
    hint=4,
    softmax=lambda s: s.exp(),
)
attention(
    "no-exponential",
    "You divide the scores by their sum. A softmax divides their exponentials: a score may be negative, a weight may not.",
    hint=4,
    softmax=lambda s: s / s.sum(-1, keepdim=True),
)
attention(
    "hard-maximum",
    "Each query takes the value of its best key alone. A softmax mixes all values, and only so can it be learned.",
    hint=4,
    softmax=lambda s: F.one_hot(s.argmax(-1), s.size(-1)).to(s.dtype),
)
attention(
    "uniform-weights",
    "Every token gets the same weight: the scores have no effect.",
    hint=4,
    softmax=lambda s: torch.full_like(s, 1 / s.size(-1)),
)
attention(
    "query-key-swapped",
    "Query and key are swapped: rows of the scores must be queries, q @ kᵀ and not k @ qᵀ.",
    way(scores=lambda q, k: k @ q.mT),
    way(
        says="Query and key are swapped: queries come from the layer `query`, keys from `key`, and rows of the scores are queries.",
        hint=2,
        family="rotated",
        to_q=of("key"),
        to_k=of("query"),
    ),
)
attention(
    "keys-not-transposed",
    "k is not transposed: a score is the dot product of a query with a key, so the last two axes of k swap before the product.",
    scores=lambda q, k: q @ k,
)
attention(
    "keys-wrong-transpose",
    "The wrong axes of k are swapped. The last two must be: transpose(-2, -1).",
    way(scores=lambda q, k: q @ k.transpose(0, 1)),
    way(
        says="The wrong axes of k are swapped: `.T` turns all three round. Only the last two must be: transpose(-2, -1).",
        scores=lambda q, k: q @ k.permute(2, 1, 0),
    ),
)
attention(
    "keys-reshaped",
    "k is reshaped where it must be transposed: the shape is the same, the numbers end up elsewhere.",
    scores=lambda q, k: q @ k.reshape(k.size(0), k.size(2), k.size(1)),
)
attention(
    "elementwise-product",
    "You multiply q and k number by number. A score is a dot product: one number for each pair of a query and a key, (B, T, T).",
    way(scores=lambda q, k: q * k, average=lambda w, v: w * v),
    way(scores=lambda q, k: q * k),
)
attention(
    "own-key-only",
    "Each query meets its own token's key alone. It has to meet every key: (B, T, T) scores.",
    scores=lambda q, k: (q * k).sum(-1, keepdim=True),
    average=lambda w, v: w * v,
)
attention(
    "attends-over-features",
    "You attend among the C features and not among the T tokens: kᵀ q has shape (C, C).",
    way(scores=lambda q, k: q.mT @ k, average=lambda w, v: v @ w.mT),
    way(scores=lambda q, k: q.mT @ k, average=lambda w, v: v @ w),
)
attention(
    "cosine-scores",
    "q and k are brought to length 1 first. A score is the plain dot product.",
    scores=lambda q, k: F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT,
)
attention(
    "distance-scores",
    "The scores are distances. A score is the dot product of a query and a key.",
    scores=lambda q, k: -torch.cdist(q, k),
)
attention(
    "mixes-batch",
    "Tokens of different rows of the batch look at each other. Each row is a text of its own.",
    way(batch=lambda x: x.flatten(0, 1)[None]),
    way(
        says=(
            "Every row of the batch attends to the first row's keys. Each row is a text of its own."
        ),
        scores=lambda q, k: q @ k[:1].mT,
    ),
    way(
        says=("Every row of the batch gets the first row's values. Each row is a text of its own."),
        hint=5,
        average=lambda w, v: w @ v[:1],
    ),
    way(
        says="Every row of the batch attends to the first row. Each row is a text of its own.",
        scores=lambda q, k: q @ k[:1].mT,
        average=lambda w, v: w @ v[:1],
    ),
)
attention(
    "attends-over-batch",
    "Batch and tokens are mixed up: each token looks at the tokens at its place in the other texts. x is (B, T, C), and tokens of the same text look at each other.",
    batch=lambda x: x.transpose(0, 1),
)
attention(
    "weights-transposed",
    "The weights are transposed before they meet the values: weights @ v, rows are queries.",
    hint=5,
    average=lambda w, v: w.mT @ v,
)
attention(
    "product-order",
    "The last product is the wrong way round: v @ weights. The weights stand on the left, one row for each query, and the values on the right: weights @ v.",
    hint=5,
    average=lambda w, v: v @ w,
)
attention(
    "values-transposed",
    "The values are transposed before the last product. Only the keys are; the values go in as they are, (B, T, C).",
    hint=5,
    average=lambda w, v: w @ v.mT,
)
attention(
    "summed-over-queries",
    "The weighted values are summed over the queries. The sum runs over the keys: output i is the sum of weight (i, j) times value j over all j.",
    hint=5,
    average=lambda w, v: w.sum(-2).unsqueeze(-1) * v,
)
attention(
    "values-not-mixed",
    "The weights do not reach the values: every token keeps its own value.",
    hint=5,
    average=lambda w, v: v,
)
attention(
    "values-averaged",
    "All values are averaged with equal weight. The weights come from the softmax.",
    hint=5,
    average=lambda w, v: v.mean(-2, keepdim=True).expand_as(v),
)
attention(
    "weights-returned",
    "You return the weights. They say how much; what is wanted is the average of the values.",
    hint=5,
    average=lambda w, v: w,
)
attention(
    "scores-returned",
    "You return the scores. They become weights, and those average the values.",
    hint=5,
    softmax=lambda s: s,
    average=lambda w, v: w,
)
attention(
    "residual-added",
    "x is added to the output. That residual comes with problem 07; here the average goes out.",
    hint=5,
    averaged=lambda y, x: y + x,
)
attention(
    "output-scaled",
    "The output is divided by √C. The average goes out as it is.",
    way(averaged=lambda y, x: y / y.size(-1) ** 0.5),
    way(
        says="The output is divided by T. The weights sum to 1, so it is an average already.",
        averaged=lambda y, x: y / y.size(1),
    ),
    hint=5,
)
attention(
    "output-pooled",
    "The output is averaged over the tokens. Each token gets its own: (B, T, C).",
    way(averaged=lambda y, x: y.mean(1)),
    way(
        says="The output is summed over the tokens. Each token gets its own: (B, T, C).",
        averaged=lambda y, x: y.sum(1),
    ),
    hint=5,
)
attention(
    "last-token-only",
    "Only the last token's output comes back. Each token gets its own: (B, T, C).",
    hint=5,
    averaged=lambda y, x: y[:, -1],
)
attention(
    "output-transposed",
    "The output has tokens and features swapped. The shape is (B, T, C).",
    hint=5,
    averaged=lambda y, x: y.mT,
)
attention(
    "activation-added",
    "The output goes through a ReLU. The average goes out as it is.",
    way(averaged=lambda y, x: y.relu()),
    way(
        says="The output goes through a tanh. The average goes out as it is.",
        averaged=lambda y, x: y.tanh(),
    ),
    hint=5,
)
attention(
    "layer-norm-added",
    "There is a layer norm. It comes with problem 07; here x goes in and the average comes out.",
    hint=5,
    averaged=lambda y, x: F.layer_norm(y, y.shape[-1:]),
)

attention(
    "bias-not-used",
    "The layers' biases are left out: call the layer, query(x), instead of multiplying by its weight.",
    hint=2,
    to_q=lambda x, w: x @ w["query.weight"].mT,
    to_k=lambda x, w: x @ w["key.weight"].mT,
    to_v=lambda x, w: x @ w["value.weight"].mT,
)
attention(
    "weight-not-transposed",
    "The layers' weights are used untransposed. nn.Linear stores (out, in): call the layer.",
    hint=2,
    to_q=lambda x, w: x @ w["query.weight"] + w["query.bias"],
    to_k=lambda x, w: x @ w["key.weight"] + w["key.bias"],
    to_v=lambda x, w: x @ w["value.weight"] + w["value.bias"],
)
rotated(
    "not-projected",
    "query, key and value are made and not used: x attends to itself as it is. Pass x through each of them.",
    to_q=same,
    to_k=same,
    to_v=same,
)

# ── found by a check, not by its numbers ──

hint_1 = KNOWN.section(hint=1)
hint_1("bias-missing", "The layers have no bias. GPT-2's have one: nn.Linear makes it by itself.")
hint_1("layer-shape", "query, key and value each take C numbers and give C: nn.Linear(C, C).")
hint_1(
    "shared-layers",
    "query, key and value are not three layers of their own: two are the same one. Each needs its own weights, or a token could not look for one thing and offer another.",
)

hint_3 = KNOWN.section(hint=3)
hint_3(
    "masked",
    "Some tokens get no weight at all. Here every token looks at every token; the mask is problem 05.",
    way(
        says=(
            "Later tokens are masked. Here every token looks at every token; the mask is problem 05."
        ),
        family="attention",
        unmasked=causal,
    ),
    way(
        says=(
            "Earlier tokens are masked. Here every token looks at every token; the mask is problem 05."
        ),
        family="attention",
        unmasked=lambda s: causal(s.mT).mT,
    ),
)
hint_3("wrong-scores", "The weights sum to 1, but they do not come from the scores q @ kᵀ.")

hint_4 = KNOWN.section(hint=4)
hint_4(
    "no-softmax",
    "Some weights are negative: a softmax makes none.",
    way(
        says="There is no softmax: raw scores may be negative and do not sum to 1.",
        family="attention",
        softmax=lambda s: s,
    ),
    way(
        says=("There is no softmax: dividing the scores by T does not make weights that sum to 1."),
        family="attention",
        softmax=lambda s: s / s.size(-1),
    ),
    way(
        says=(
            "There is no softmax: dividing the scores by √C does not make weights that sum to 1."
        ),
        family="attention",
        softmax=lambda s: s,
        weighed=lambda p, n: p / n.C**0.5,
    ),
)
hint_4("weights-sum", "A token's weights do not sum to 1.")

hint_5 = KNOWN.section(hint=5)
hint_5(
    "dropout-added",
    "In training the output is random: there is dropout. This problem has none, it comes with 03.",
)
hint_5(
    "extra-projection",
    "There is one layer too many. This attention has query, key and value alone; the output projection comes with problem 04.",
)
hint_5(
    "output-not-of-values",
    "What comes out is not an average of the values: something else than value(x) is averaged, or something is done to it afterwards.",
)
hint_5(
    "returns-a-pair",
    "forward returns more than the output. Here it returns one tensor (B, T, C); the weights go out as well from problem 03 on.",
)
