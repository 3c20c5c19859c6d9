"""The known mistakes of problem 13. Each way replaces a step of the computation in the test file:
`penalized`, `top_k_of`, `top_p_of`, `chances` and `written`.
"""

import math

import torch

from learn_gpt2.checking.catalog import Catalog, way

KNOWN = Catalog()

# ── the penalty ─────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "negative-logits-divided",
    1,
    "Negative logits are divided by the penalty as well. That brings them closer to 0, so the token becomes likelier and not less likely.",
    way(negative=lambda x, p: x / p),
    family="penalty",
)
KNOWN.add(
    "penalty-reversed",
    1,
    "The penalty works the wrong way round: a penalty above 1 makes tokens that occurred likelier.",
    way(positive=lambda x, p: x * p, negative=lambda x, p: x / p),
    family="penalty",
)
KNOWN.add(
    "positive-logits-multiplied",
    1,
    "Positive logits are multiplied by the penalty as well. That raises them, so the token becomes likelier and not less likely.",
    way(positive=lambda x, p: x * p),
    family="penalty",
)
KNOWN.add(
    "penalty-subtracted",
    1,
    "The penalty is subtracted. It is a factor: positive logits are divided by it, and negative ones multiplied.",
    way(positive=lambda x, p: x - p, negative=lambda x, p: x - p),
    way(positive=lambda x, p: x - math.log(p), negative=lambda x, p: x - math.log(p)),
    way(positive=lambda x, p: x - (p - 1), negative=lambda x, p: x - (p - 1)),
    family="penalty",
)
KNOWN.add(
    "negative-logits-unchanged",
    1,
    "Negative logits stay as they are. A token that occurred becomes less likely whatever its logit's sign.",
    way(negative=lambda x, p: x),
    family="penalty",
)
KNOWN.add(
    "penalizes-the-unseen",
    1,
    "The tokens that did not occur are penalized, and those that did are left alone.",
    way(where=lambda seen: ~seen),
    family="penalty",
)
KNOWN.add(
    "penalizes-all",
    1,
    "All tokens are penalized, whether they occurred or not: `seen` says which of them did.",
    way(where=torch.ones_like),
    family="penalty",
)
KNOWN.add(
    "rows-share-seen",
    1,
    "What one row has seen is penalized in other rows too. Each row has a text, and a row of `seen`, of its own.",
    way(where=lambda seen: seen.any(0, keepdim=True).expand_as(seen)),
    way(where=lambda seen: seen[:1].expand_as(seen)),
    family="penalty",
)
KNOWN.add(
    "penalizes-log-probabilities",
    1,
    "The penalty is applied after a (log-)softmax, where every number has another sign and size. It belongs on the logits themselves.",
    way(first=lambda x: x.log_softmax(-1)),
    way(first=lambda x: x.softmax(-1)),
    family="penalty",
)
KNOWN.add(
    "penalty-ignored",
    1,
    "The logits come back as they went in: the penalty has no effect.",
    way(positive=lambda x, p: x, negative=lambda x, p: x),
    family="penalty",
)
KNOWN.add(
    "unseen-lost",
    1,
    "The tokens that did not occur lose their logits. They stay as they are.",
    way(rest=lambda x: torch.zeros_like(x)),
    way(rest=lambda x: torch.full_like(x, -math.inf)),
    family="penalty",
)

# ── top-k ───────────────────────────────────────────────────────────────────────────────────────


def _flat_limit(x, k):
    return x.flatten().topk(min(k, x.numel())).values[-1].expand(len(x), 1)


KNOWN.add(
    "kth-dropped",
    2,
    "The k-th largest is left out too, so that k − 1 tokens remain. Only what lies below it goes.",
    way(below=lambda x, limit: x <= limit),
    family="top-k",
)
KNOWN.add(
    "one-too-many",
    2,
    "One token too many is kept: k + 1 of them. (Counting starts at 0, so the k-th largest stands at index k − 1.)",
    way(limit=lambda x, k: x.sort(descending=True).values[:, min(k, x.size(1) - 1)][:, None]),
    family="top-k",
)
KNOWN.add(
    "keeps-the-smallest",
    2,
    "The k smallest logits are kept, and the largest are left out.",
    way(
        limit=lambda x, k: x.sort().values[:, min(k, x.size(1)) - 1][:, None],
        below=lambda x, limit: x > limit,
    ),
    way(limit=lambda x, k: x.sort().values[:, min(k, x.size(1)) - 1][:, None]),
    family="top-k",
)
KNOWN.add(
    "keeps-all-but-k",
    2,
    "The k largest are left out, and all the others are kept: it is the other way round.",
    way(below=lambda x, limit: x >= limit),
    family="top-k",
)
KNOWN.add(
    "rows-share-a-limit",
    2,
    "All rows are cut at one common limit. Each row has its own k largest.",
    way(limit=_flat_limit),
    way(limit=lambda x, k: x[:1].topk(k).values[:, -1:].expand(len(x), 1)),
    way(limit=lambda x, k: x.topk(k).values.min().expand(len(x), 1)),
    family="top-k",
)
KNOWN.add(
    "limit-along-the-batch",
    2,
    "The k largest are looked for along the batch, and not along the vocabulary (the last axis).",
    way(limit=lambda x, k: x.topk(min(k, len(x)), dim=0).values[-1:]),
    family="top-k",
)
KNOWN.add(
    "zero-instead-of-minus-infinity",
    2,
    "What is left out gets the logit 0. That is still a probability, e⁰ over the sum; only −inf gives exactly 0.",
    way(out=0.0),
    family="fill",
)
KNOWN.add(
    "large-number-instead-of-minus-infinity",
    2,
    "What is left out gets a large negative number. Write −inf, which is less than every logit whatever their size.",
    way(out=-1e9),
    way(out=-1e10),
    way(out=-1e8),
    way(out=-1e4),
    way(out=-100.0),
    way(out=-1e5),
    way(out=-65504.0),
    way(out=torch.finfo(torch.float32).min),
    family="fill",
)
KNOWN.add(
    "probabilities-returned",
    2,
    "Probabilities are returned. Filters take logits and give logits: the softmax comes once, in `sample`.",
    way(last=lambda x: x.softmax(-1)),
    way(
        last=lambda x: x.log_softmax(-1),
        says="Log-probabilities are returned: another number for each token than its logit. What is kept keeps its logit.",
    ),
    family="fill",
)
KNOWN.add(
    "not-the-vocabulary",
    2,
    "Only the k values are returned. The result has a place for every token of the vocabulary, in the vocabulary's order: index i is token i.",
)
KNOWN.add(
    "ties-dropped",
    2,
    "Tokens that tie with the k-th are left out. They are as likely as it is, so they stay; which of them `topk` lists is chance.",
)
KNOWN.add(
    "k-beyond-the-vocabulary",
    2,
    "With k larger than the vocabulary there is nothing to leave out; PyTorch's topk refuses such a k.",
)

# ── top-p ───────────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "crossing-token-dropped",
    4,
    "The token with which the sum crosses p is left out. It stays: without it the sum is below p.",
    way(keep=lambda chances, p: chances.cumsum(-1) <= p),
    way(
        keep=lambda chances, p: (
            (chances.cumsum(-1) <= p) | (chances.cumsum(-1) == chances.cumsum(-1)[:, :1])
        )
    ),
    family="top-p",
)
KNOWN.add(
    "one-token-too-many-in-p",
    4,
    "One token more than necessary is kept. A token goes when those before it, without itself, have reached p.",
    way(keep=lambda chances, p: (chances.cumsum(-1) - chances).roll(1, -1) * _later(chances) < p),
    family="top-p",
)
KNOWN.add(
    "tail-kept",
    4,
    "The unlikely tokens are kept, and the likely ones left out: the mask is inverted.",
    way(keep=lambda chances, p: ~(chances.cumsum(-1) - chances < p)),
    way(keep=lambda chances, p: chances.cumsum(-1) >= p),
    family="top-p",
)
KNOWN.add(
    "not-scattered-back",
    5,
    "The decision is made in the order of the sorted tokens, and used in that of the vocabulary: place i of a sorted row is not token i.",
    way(back=lambda x, values, order, keep, out: torch.where(keep, x, out)),
    way(back=lambda x, values, order, keep, out: torch.where(keep, values, out)),
    way(back=lambda x, values, order, keep, out: torch.where(keep.gather(-1, order), x, out)),
    family="top-p",
)
KNOWN.add(
    "rows-share-a-nucleus",
    5,
    "What one row leaves out is left out in the others, too. Each row has its own nucleus.",
    way(
        back=lambda x, values, order, keep, out: torch.where(
            _back(order, keep).all(0, keepdim=True), x, out
        )
    ),
    way(back=lambda x, values, order, keep, out: torch.where(_back(order, keep)[:1], x, out)),
    way(
        back=lambda x, values, order, keep, out: torch.where(
            _back(order, keep).any(0, keepdim=True), x, out
        )
    ),
    family="top-p",
)
KNOWN.add(
    "least-likely-first",
    3,
    "The tokens are taken in ascending order, the least likely first.",
    way(descending=False),
    family="top-p",
)
KNOWN.add(
    "not-sorted",
    3,
    "The probabilities are summed in the vocabulary's order. The likeliest come first: sort before you sum.",
    way(sort=lambda x, descending: (x, torch.arange(x.size(-1)).expand_as(x))),
    family="top-p",
)
KNOWN.add(
    "logits-summed",
    3,
    "The logits are summed. It is their probabilities that sum to p, so the softmax comes first.",
    way(chance=lambda values: values),
    way(
        chance=lambda values: values.exp(),
        says="The exponentials are summed without being divided by their total: they are not probabilities yet.",
    ),
    family="top-p",
)
KNOWN.add(
    "softmax-twice",
    3,
    "The softmax is applied twice. The second one flattens the probabilities until nearly all tokens are alike.",
    way(chance=lambda values: values.softmax(-1).softmax(-1)),
    family="top-p",
)
KNOWN.add(
    "summed-along-the-batch",
    3,
    "Sums or probabilities are taken along the batch, and not along the vocabulary (the last axis).",
    way(keep=lambda chances, p: chances.cumsum(0) - chances < p),
    way(keep=lambda chances, p: ~_shifted(chances.cumsum(0) >= p)),
    way(keep=lambda chances, p: ~_shifted(chances.cumsum(0) > p)),
    way(chance=lambda values: values.softmax(0)),
    family="top-p",
)
KNOWN.add(
    "p-is-a-threshold",
    4,
    "Each token's own probability is compared with p. It is the sum of the likeliest that reaches p.",
    way(keep=lambda chances, p: chances >= p),
    way(keep=lambda chances, p: chances >= 1 - p),
    way(keep=lambda chances, p: chances >= p * chances.amax(-1, keepdim=True)),
    way(keep=lambda chances, p: chances >= (1 - p) * chances.amax(-1, keepdim=True)),
    family="top-p",
)
KNOWN.add(
    "p-reversed",
    4,
    "The nucleus is that of 1 − p, and not of p.",
    way(keep=lambda chances, p: chances.cumsum(-1) - chances < 1 - p),
    family="top-p",
)
KNOWN.add(
    "nothing-left",
    4,
    "No token is left for a small p. One always stays, the likeliest: a row of −inf gives NaN in the softmax.",
)
KNOWN.add(
    "p-of-one-drops",
    4,
    "With p = 1 tokens are left out. The sum may be 0.9999999 or 1.0000001 by rounding: p ≥ 1 keeps all, so return the logits as they are.",
)
KNOWN.add(
    "nucleus-cut-short",
    3,
    "The nucleus is cut short: where the model is unsure, more tokens are needed than you looked at.",
)


def _later(chances):
    """0 for the first token of each row, 1 for the others."""
    later = torch.ones_like(chances)
    later[:, 0] = 0
    return later


def _shifted(gone):
    """A mask of sorted tokens moved one place on, so that the first always stays."""
    later = gone.roll(1, -1)
    later[:, 0] = False
    return later


def _back(order, keep):
    """A mask in sorted order → in the vocabulary's."""
    return torch.zeros_like(keep).scatter(-1, order, keep)


# ── the draw ────────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "softmax-twice-in-draw",
    6,
    "The softmax is applied twice before the draw. The second one flattens the probabilities until nearly all tokens are alike.",
    way(chance=lambda x: x.softmax(-1).softmax(-1)),
    family="draw",
)
KNOWN.add(
    "argmax-instead-of-draw",
    6,
    "The likeliest token is taken each time. `sample` draws: a token of probability 0.2 comes up in a fifth of the draws.",
    way(chance=lambda x: torch.zeros_like(x).scatter(-1, x.argmax(-1, keepdim=True), 1.0)),
    family="draw",
)
KNOWN.add(
    "drawn-without-softmax",
    6,
    "Tokens are drawn in proportion to something else than softmax(logits).",
    way(
        chance=lambda x: x.clamp_min(0) / x.clamp_min(0).sum(-1, keepdim=True),
        says="Tokens are drawn in proportion to their logits. Their probabilities are softmax(logits).",
    ),
    way(
        chance=lambda x: x.abs() / x.abs().sum(-1, keepdim=True),
        says="Tokens are drawn in proportion to the size of their logits. Their probabilities are softmax(logits).",
    ),
    way(
        chance=lambda x: torch.where(x.isfinite(), 1.0, 0.0) / x.isfinite().sum(-1, keepdim=True),
        says="All tokens that are left are equally likely. Their probabilities are softmax(logits).",
    ),
    way(
        chance=lambda x: (2 * x).softmax(-1),
        says="Tokens are drawn from the square of softmax(logits): the probabilities enter twice.",
    ),
    way(
        chance=lambda x: x.sigmoid() / x.sigmoid().sum(-1, keepdim=True),
        says="Tokens are drawn in proportion to the sigmoid of their logits. Their probabilities are softmax(logits).",
    ),
    family="draw",
)
KNOWN.add(
    "draws-the-unlikely",
    6,
    "The unlikely tokens are drawn more often than the likely ones: a sign is wrong.",
    way(chance=lambda x: (-x).softmax(-1)),
    family="draw",
)
KNOWN.add(
    "wrong-noise",
    6,
    "The noise that is added to the logits is not Gumbel noise, −log(−log u), so the largest sum is not a draw from the softmax.",
    way(
        chance=lambda x: _with_noise(
            x, torch.rand(4001, x.size(-1), generator=torch.Generator().manual_seed(0))
        )
    ),
    way(
        chance=lambda x: _with_noise(
            x, torch.randn(4001, x.size(-1), generator=torch.Generator().manual_seed(0))
        )
    ),
    way(
        chance=lambda x: _with_noise(
            x, torch.rand(4001, x.size(-1), generator=torch.Generator().manual_seed(0)).log()
        )
    ),
    way(
        chance=lambda x: _with_noise(
            x, -torch.rand(4001, x.size(-1), generator=torch.Generator().manual_seed(0)).log()
        )
    ),
    family="draw",
)
KNOWN.add(
    "draw-off-by-one",
    6,
    "The token next to the one that was drawn is returned: the index is off by one.",
    way(chance=lambda x: x.softmax(-1).roll(1, -1)),
    way(chance=lambda x: x.softmax(-1).roll(-1, -1)),
    family="draw",
)
KNOWN.add(
    "draw-along-the-batch",
    6,
    "The softmax is taken along the batch, and not along the vocabulary (the last axis).",
    way(chance=lambda x: torch.full_like(x, 1 / x.size(-1))),
    family="draw",
)
KNOWN.add(
    "one-draw-for-all-rows",
    6,
    "All rows get the same draw. Each row is drawn by itself, with a random number of its own.",
)
KNOWN.add(
    "rows-mixed",
    6,
    "A row's token is drawn from another row's logits.",
)
KNOWN.add(
    "generator-ignored",
    6,
    "The generator is not used: the same seed gives other tokens each time. Hand it to what draws (`generator=`).",
)
KNOWN.add(
    "always-the-same-draw",
    6,
    "Every call draws the same: a seed is set inside, or a new generator is made for each call. The caller chooses.",
)
KNOWN.add("wrong-tokens-shape", 6, "The tokens must be of shape (B,): one per row.")
KNOWN.add("wrong-tokens-dtype", 6, "Token ids are int64.")
KNOWN.add(
    "draws-what-is-left-out",
    6,
    "A token with the logit −inf is drawn. Its probability is exactly 0.",
)


def _with_noise(x, noise):
    """How often each token has the largest sum of logit and noise: (B, V) → (B, V)."""
    winners = (x[:, None] + noise).argmax(-1)  # (B, samples)
    return torch.stack([torch.bincount(row, minlength=x.size(-1)) for row in winners]) / len(noise)


# ── the order of the steps ──────────────────────────────────────────────────────────────────────

KNOWN.add(
    "top-p-before-temperature",
    7,
    "Top-p comes before the temperature. The temperature changes the probabilities, and so how many tokens reach p: it comes first.",
    way(order=("penalty", "top-k", "top-p", "temperature")),
    way(order=("penalty", "top-p", "temperature", "top-k")),
    way(order=("penalty", "top-p", "top-k", "temperature")),
    family="order",
)
KNOWN.add(
    "top-p-before-top-k",
    7,
    "Top-p comes before top-k. After top-k the probabilities of those that are left sum to 1 again, and fewer of them reach p.",
    way(order=("penalty", "temperature", "top-p", "top-k")),
    family="order",
)
KNOWN.add(
    "penalty-after-filters",
    7,
    "The penalty comes after a filter. It changes which tokens are the likeliest, so it comes before all that choose among them.",
    way(order=("temperature", "top-k", "top-p", "penalty")),
    way(order=("top-k", "temperature", "top-p", "penalty")),
    way(order=("temperature", "top-k", "penalty", "top-p")),
    family="order",
)
KNOWN.add(
    "temperature-multiplied",
    7,
    "The logits are multiplied by the temperature. They are divided by it: a low one makes the likely likelier.",
    way(temper=lambda x, t: x * t),
    family="order",
)
KNOWN.add(
    "temperature-on-probabilities",
    7,
    "The temperature divides probabilities. It divides logits, before the softmax.",
    way(temper=lambda x, t: x.softmax(-1) / t),
    way(temper=lambda x, t: x.log_softmax(-1).exp().div(t)),
    family="order",
)
KNOWN.add(
    "temperature-ignored",
    7,
    "The temperature has no effect.",
    way(order=("penalty", "top-k", "top-p")),
    family="order",
)
KNOWN.add(
    "top-k-ignored",
    7,
    "top_k has no effect.",
    way(order=("penalty", "temperature", "top-p")),
    family="order",
)
KNOWN.add(
    "top-p-ignored",
    7,
    "top_p has no effect.",
    way(order=("penalty", "temperature", "top-k")),
    family="order",
)
KNOWN.add(
    "penalty-not-applied",
    7,
    "repetition_penalty has no effect, although `seen` is given.",
    way(order=("temperature", "top-k", "top-p")),
    family="order",
)
KNOWN.add(
    "softmax-before-sample",
    7,
    "`sample` is given probabilities, and takes another softmax of them: everything becomes nearly equally likely. It wants logits.",
    way(last=lambda x: x.softmax(-1)),
    family="order",
)
KNOWN.add(
    "greedy-without-penalty",
    7,
    "At temperature 0 the penalty is passed over. It can move the maximum, so it comes before the argmax.",
    way(order=("temperature", "top-k", "top-p")),
    family="greedy",
)
KNOWN.add(
    "greedy-divides-by-zero",
    7,
    "At temperature 0 the logits are divided by 0. Then there is nothing to draw: take the largest.",
)
KNOWN.add(
    "greedy-still-draws",
    7,
    "At a temperature ≤ 1e-8 a token is drawn. The largest is to be taken.",
)
KNOWN.add(
    "penalty-needs-seen",
    7,
    "Without `seen` there is nothing to penalize: leave the penalty out when it is None.",
    way(unseen=torch.ones_like),
    family="order",
)

# ── the loop ────────────────────────────────────────────────────────────────────────────────────

KNOWN.add(
    "fed-only-the-last",
    8,
    "next_logits is given the newest token alone. It wants everything so far, prompt included: what can be left out is its own matter (problem 14).",
    way(feed=lambda text, T: text[:, -1:]),
    family="loop",
)
KNOWN.add(
    "fed-without-prompt",
    8,
    "next_logits is given the new tokens without the prompt. It wants everything so far.",
    way(feed=lambda text, T: text[:, T:] if text.size(1) > T else text),
    family="loop",
)
KNOWN.add(
    "text-not-extended",
    8,
    "next_logits is given the prompt again and again. The new token belongs at its end before the next call.",
    way(feed=lambda text, T: text[:, :T]),
    family="loop",
)
KNOWN.add(
    "token-put-in-front",
    8,
    "New tokens are put in front of the text. They belong at its end.",
    way(grow=lambda text, new: torch.cat([new[:, None], text], 1)),
    family="loop",
)
KNOWN.add(
    "oldest-token-forgotten",
    8,
    "The text loses its first token with every new one. next_logits is given all of it.",
    way(grow=lambda text, new: torch.cat([text[:, 1:], new[:, None]], 1)),
    family="loop",
)
KNOWN.add(
    "one-token-too-few",
    8,
    "There is one token too few: max_new_tokens is how many are yielded.",
    way(count=lambda n: n - 1),
    family="loop",
)
KNOWN.add(
    "one-token-more",
    8,
    "There is one token too many: max_new_tokens is how many are yielded.",
    way(count=lambda n: n + 1),
    family="loop",
)
KNOWN.add(
    "counts-the-prompt",
    8,
    "max_new_tokens is taken for the length of prompt and new tokens together. It counts the new ones.",
)
KNOWN.add(
    "yields-the-text",
    8,
    "The whole text is yielded. Each step yields its new tokens alone, (B,).",
)
KNOWN.add(
    "not-streamed",
    8,
    "All tokens are computed before the first one is handed out. Write `yield` inside the loop, so that a reader sees each token as soon as it is chosen.",
)
KNOWN.add(
    "not-an-iterator",
    8,
    "generate_tokens must give an iterator: with `yield` inside the loop it does so by itself.",
)
KNOWN.add(
    "called-too-often",
    8,
    "next_logits is called more often than once per token. Each call is a forward pass of the model, the dearest thing here.",
)
KNOWN.add(
    "edits-ids",
    8,
    "The prompt that was given is changed. The caller still needs it: make a new, longer tensor.",
)
KNOWN.add(
    "settings-not-passed-on",
    8,
    "One of the settings has no effect here: hand all of them on to next_token.",
)
KNOWN.add(
    "prompt-not-seen",
    8,
    "The prompt's tokens are not penalized. `seen` counts them as well as the new ones.",
    way(seen=lambda text, T, V: _counts(text[:, T:], V) > 0),
    family="seen",
)
KNOWN.add(
    "only-the-prompt-seen",
    8,
    "Only the prompt's tokens are penalized. New tokens count from the moment when they are chosen.",
    way(seen=lambda text, T, V: _counts(text[:, :T], V) > 0),
    family="seen",
)
KNOWN.add(
    "only-the-last-seen",
    8,
    "Only the newest token is penalized. `seen` holds all tokens so far.",
    way(seen=lambda text, T, V: _counts(text[:, -1:], V) > 0),
    family="seen",
)
KNOWN.add(
    "rows-share-their-past",
    8,
    "A row is penalized for what another row has seen.",
    way(seen=lambda text, T, V: (_counts(text, V) > 0).any(0, keepdim=True).expand(len(text), V)),
    family="seen",
)
KNOWN.add(
    "penalty-per-occurrence",
    8,
    "A token that occurred twice is penalized twice. Once is enough, however often it occurred.",
    way(seen=lambda text, T, V: _counts(text, V)),
    family="seen",
)
KNOWN.add(
    "nothing-seen",
    8,
    "The repetition penalty has no effect on the text: next_token needs `seen`.",
    way(seen=lambda text, T, V: _counts(text, V) < 0),
    family="seen",
)
KNOWN.add(
    "one-end-stops-all",
    9,
    "The text ends as soon as one row has met the end token. The others go on until all have.",
    way(stop=lambda ended: bool(ended.any())),
    family="end",
)
KNOWN.add(
    "end-ignored",
    9,
    "The end token ends nothing: rows go on after it.",
    way(fill=lambda new, ended, eos, last: new, stop=lambda ended: False),
    family="end",
)
KNOWN.add(
    "ended-rows-go-on",
    9,
    "A row that has met the end token goes on with other tokens. It yields the end token from then on, until all rows have ended.",
    way(fill=lambda new, ended, eos, last: new),
    family="end",
)
KNOWN.add(
    "never-stops",
    9,
    "When all rows have ended, the loop goes on. It can stop: nothing but end tokens would follow.",
    way(stop=lambda ended: False),
    family="end",
)
KNOWN.add(
    "end-in-prompt-counts",
    9,
    "An end token in the prompt ends the row. GPT-2's texts often begin with one: only new tokens count.",
    way(start=lambda ids, eos: (ids == eos).any(1)),
    family="end",
)
KNOWN.add(
    "end-token-swallowed",
    9,
    "The end token itself is not yielded. It belongs to the text: a reader sees by it that the row has ended.",
)
KNOWN.add(
    "all-must-end-at-once",
    9,
    "The text ends only when all rows yield the end token in the same step by themselves. Remember which rows have ended.",
    way(fill=lambda new, ended, eos, last: new, now=True),
    family="end",
)
KNOWN.add(
    "ended-rows-filled-with-zero",
    9,
    "A row that has ended is filled with token 0, or another one, and not with the end token.",
    way(fill=lambda new, ended, eos, last: new.masked_fill(ended, 0)),
    way(fill=lambda new, ended, eos, last: new.masked_fill(ended, -1)),
    way(fill=lambda new, ended, eos, last: new.masked_fill(ended, -100)),
    family="end",
)
KNOWN.add(
    "end-token-zero-ignored",
    9,
    "An end token with the id 0 is passed over: `if eos_token_id:` is false for 0. Ask whether it `is not None`.",
)


def _counts(text, V):
    """How often each token occurs in each row: (B, T) → (B, V)."""
    counts = torch.zeros(len(text), V, dtype=torch.int64)
    return counts.scatter_add(1, text, torch.ones_like(text))
