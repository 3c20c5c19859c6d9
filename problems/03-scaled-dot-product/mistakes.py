"""The known mistakes of problem 03, by the step that they replace (see `textbook`)."""

import torch

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

attention = KNOWN.section("attention", hint=4)
attention(
    "product-order",
    "The last product is the wrong way round: v @ weights. The weights stand on the left, one row for each query, and the values on the right: weights @ v.",
    hint=5,
    average=lambda w, v: v @ w,
)
attention(
    "values-transposed",
    "The values are transposed before the last product. Only the keys are; the values go in as they are.",
    hint=5,
    average=lambda w, v: w @ v.transpose(-2, -1),
)
attention(
    "mask-after-softmax",
    "The mask comes after the softmax, and the rows are brought to the sum 1 again. Where hidden scores lie far above the allowed ones, the softmax leaves nothing to bring back: set the scores to −inf before it.",
    way(
        "renormalized",
        masking=lambda s, m: s,
        masked=lambda w, m: (w * m) / (w * m).sum(-1, keepdim=True),
    ),
    way(
        says=(
            "You mask after the softmax, so the rows no longer sum to 1. Set the scores to −inf before it."
        ),
        masking=lambda s, m: s,
        masked=lambda w, m: w.masked_fill(~m, 0.0),
    ),
)
attention(
    "mask-times-infinity",
    "The mask is multiplied by infinity, and 0 · ∞ is NaN. Choose instead of multiplying: masked_fill or torch.where.",
    masking=lambda s, m: s + (~m).float() * -torch.inf,
)
attention(
    "no-scale",
    "Your scores are not scaled: divide q kᵀ by √d_k, or the softmax saturates as d_k grows.",
    hint=2,
    divisor=lambda n: 1.0,
)
attention(
    "scale-by-d",
    "You divide the scores by d_k; divide by its square root: it is the standard deviation that grows as √d_k.",
    hint=2,
    divisor=lambda n: n.D,
)
attention(
    "scale-multiplied",
    "You multiply the scores by √d_k instead of dividing by it: that makes the softmax sharper.",
    hint=2,
    divisor=lambda n: n.D**-0.5,
)
attention(
    "scale-by-length",
    "You divide by the root of a sequence length; d_k is the width of one query, the last axis.",
    way(divisor=lambda n: n.S**0.5),
    way(divisor=lambda n: n.T**0.5),
    hint=2,
)
attention(
    "scale-by-heads",
    "You divide by the root of axis 1's size, the heads where there are four axes; d_k is the last axis.",
    hint=2,
    divisor=lambda n: n.shape[1] ** 0.5,
)
attention(
    "scale-rounded",
    "√d_k is rounded to a whole number. Divide by √d_k as it is.",
    way(divisor=lambda n: int(n.D**0.5)),
    way(divisor=lambda n: round(n.D**0.5)),
    hint=2,
)
attention(
    "scores-rounded",
    "`//` rounds every score down to a whole number. Divide with `/`.",
    hint=2,
    divide=lambda s, d: s // d,
)
attention(
    "output-scaled",
    "The values (or the output) are divided by √d_k, too. Only the scores are.",
    hint=2,
    weighed=lambda p, n: p / n.D**0.5,
)
attention(
    "scale-after-softmax",
    "You scale after the softmax, so the rows no longer sum to 1. Scale the scores before it.",
    hint=2,
    divisor=lambda n: 1.0,
    weighed=lambda p, n: p / n.D**0.5,
)
attention(
    "scale-twice",
    "The scores are scaled twice: once by √d_k is enough.",
    hint=2,
    divisor=lambda n: n.D * 1.0,
)
attention(
    "softmax-over-queries",
    "Your softmax runs over the queries: columns sum to 1. It must run over the keys, the last axis, so that each query's weights do.",
    hint=3,
    softmax=lambda s: s.softmax(-2),
)
attention(
    "softmax-over-heads",
    "Your softmax runs over axis 1, the heads. It must run over the keys, the last axis: dim=-1.",
    hint=3,
    softmax=lambda s: s.softmax(1 if s.dim() > 3 else 0),
)
attention(
    "softmax-over-batch",
    "Your softmax runs over axis 0, the batch. It must run over the keys, the last axis: dim=-1.",
    hint=3,
    softmax=lambda s: s.softmax(0),
)
attention(
    "no-softmax",
    "There is no softmax: the weights are raw scores, which may be negative and do not sum to 1.",
    hint=3,
    softmax=lambda s: s,
)
attention(
    "softmax-twice",
    "The softmax is applied twice, which flattens the weights. Once is enough.",
    hint=3,
    softmax=lambda s: s.softmax(-1).softmax(-1),
)
attention(
    "log-softmax",
    "These are the logarithms of the weights (log_softmax); use softmax.",
    hint=3,
    softmax=lambda s: s.log_softmax(-1),
)
attention(
    "sigmoid",
    "You use a sigmoid: each weight is in (0, 1), but a row does not sum to 1. Use softmax.",
    hint=3,
    softmax=lambda s: s.sigmoid(),
)
attention(
    "mask-ignored",
    "The mask has no effect: positions where it is False still get weight.",
    masking=lambda s, m: s,
)
attention(
    "mask-inverted",
    "The mask is the wrong way round: True means may attend, and you hide those.",
    masking=lambda s, m: s.masked_fill(m, -torch.inf),
)
attention(
    "mask-inf-after-softmax",
    "You set weights to −inf after the softmax. Mask the scores, before it.",
    masking=lambda s, m: s,
    masked=lambda w, m: w.masked_fill(~m, -torch.inf),
)
attention(
    "mask-zero",
    "Masked scores are set to 0 (or to a tiny number: 1e-9 is not −1e9), and exp(0) = 1 is weight. Set them to −inf, whose exponential is 0.",
    masking=lambda s, m: s.masked_fill(~m, 0.0),
)
attention(
    "mask-plus-inf",
    "Masked scores are set to +inf. It is −inf whose exponential is 0.",
    masking=lambda s, m: s.masked_fill(~m, torch.inf),
)
attention(
    "mask-added",
    "The bool mask is added to the scores as 0 and 1. Where it is False the score must become −inf.",
    masking=lambda s, m: s + m,
)
attention(
    "mask-transposed",
    "The mask is transposed. Its rows are queries and its columns keys, as those of the scores.",
    masking=lambda s, m: s.masked_fill(~m.transpose(-2, -1), -torch.inf),
)
attention(
    "masked-without-mask",
    "More is masked than the mask says: later keys, too. The caller decides (the causal mask comes with problem 05).",
    way(masking=lambda s, m: s.masked_fill(~m.tril(), -torch.inf)),
    way(
        "unmasked",
        says="Later keys are masked although no mask was given. The caller decides: with mask=None every query may attend to every key (the causal mask comes with problem 05).",
        family="unmasked",
        unmasked=lambda s: s.masked_fill(~s.new_ones(s.shape[-2:]).bool().tril(), -torch.inf),
    ),
)
attention(
    "mask-minus-one",
    "Masked scores are set to −1, which still has weight. Set them to −inf.",
    masking=lambda s, m: s.masked_fill(~m, -1.0),
)
attention(
    "values-are-keys",
    "You average the keys. The weights choose among the values: weights @ v.",
    hint=5,
    values=lambda q, k, v: k,
)
attention(
    "values-are-queries",
    "You average the queries. The weights choose among the values: weights @ v.",
    hint=5,
    values=lambda q, k, v: q,
)
attention(
    "scores-from-values",
    "Queries are scored against the values. They are scored against the keys: q @ kᵀ.",
    way(keys=lambda k, v: v),
    way(
        says="k and v have changed places: queries are scored against the keys, and the weights average the values.",
        keys=lambda k, v: v,
        values=lambda q, k, v: k,
    ),
    hint=1,
)
attention(
    "keys-not-transposed",
    "k is not transposed: a score is the dot product of a query with a key, so k's last two axes swap before the product.",
    hint=1,
    scores=lambda q, k: q @ k,
)
attention(
    "keys-wrong-transpose",
    "The wrong axes of k are swapped. The last two must be, whatever stands before them: transpose(-2, -1).",
    way(scores=lambda q, k: q @ k.transpose(0, 1)),
    way(scores=lambda q, k: q @ k.transpose(1, 2)),
    hint=1,
)
attention(
    "scores-transposed",
    "The scores are transposed: rows must be queries and columns keys, q @ kᵀ and not k @ qᵀ.",
    hint=1,
    scores=lambda q, k: k @ q.transpose(-2, -1),
)

returned = KNOWN.section("returned", hint=6)
returned(
    "weights-are-scores",
    "What you return as weights are the scores before the softmax.",
    returned=lambda w, s: s,
)
returned(
    "weights-transposed",
    "The weights you return are transposed: rows must be queries and columns keys.",
    returned=lambda w, s: w.transpose(-2, -1),
)
returned(
    "weights-averaged",
    "The weights you return are averaged over the heads; return each head's own.",
    returned=lambda w, s: w.mean(1),
)

# ── found by a check, not by its numbers ──

hint_3 = KNOWN.section(hint=3)
hint_3(
    "softmax-overflows",
    "Large scores give NaN or infinity, as exp() does when it overflows. torch.softmax subtracts the largest score of each row first.",
)

hint_4 = KNOWN.section(hint=4)
hint_4(
    "mask-cut-square",
    "The mask is cut to T columns, or to S rows. It has a row for each query and a column for each key: use it as it is, it broadcasts.",
    family="mask-cut",
    masking=lambda s, m: s.masked_fill(~m[..., : s.size(-2), : s.size(-2)], -torch.inf),
)
hint_4(
    "mask-finite",
    "Masked scores get a number that float16 does not have (it ends at 65504). Use −inf, or torch.finfo(scores.dtype).min.",
    way(
        "too-high",
        says="Masked scores get a number that is not low enough: when scores are large, masked positions still get weight. Use −inf.",
    ),
)

hint_6 = KNOWN.section(hint=6)
hint_6("outputs-swapped", "You return (weights, output); the order is (output, weights).")
hint_6(
    "weights-not-returned", "forward must return two tensors: the output and the weights it used."
)

hint_7 = KNOWN.section(hint=7)
hint_7(
    "dropout-in-eval",
    "Dropout is active in eval mode. nn.Dropout follows train() and eval() by itself; F.dropout needs training=self.training.",
)
hint_7(
    "dropout-missing",
    "There is no dropout on the weights: they are the same in training and in eval mode.",
)
hint_7(
    "dropout-on-output",
    "Dropout acts on the output; it belongs on the weights, before weights @ v.",
)
hint_7(
    "dropout-on-scores",
    "Dropout acts before the softmax: a dropped score of 0 still has weight. Drop the weights.",
)
hint_7(
    "dropout-on-values",
    "Dropout acts on the values. It belongs on the weights: dropping one hides a whole key.",
)
hint_7(
    "dropout-renormalised",
    "After dropout each row of weights is brought back to the sum 1 (or the dropout is made with −inf before the softmax). nn.Dropout on the weights scales the rest by 1/(1-p) itself.",
)
hint_7(
    "dropout-twice",
    "Dropout acts on the weights and again on the output. It acts on the weights alone.",
)
hint_7(
    "weights-before-dropout",
    "The weights that you return are not the ones you used: return them after dropout.",
)
