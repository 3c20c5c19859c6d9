"""Problem 13: wrong and right answers."""

from tests.graders.bank import Bank

bank = Bank(13)

# a plain solution, in the manner of textbooks, to be spoilt
PLAIN = """
import math

import torch
import torch.nn.functional as F


def penalize_repetition(logits, seen, penalty):
    positive = logits > 0
    out = logits.clone()
    down = torch.where(positive, logits / penalty, logits * penalty)
    out[seen] = down[seen]
    return out


def keep_top_k(logits, k):
    k = min(k, logits.size(-1))
    values, indices = torch.topk(logits, k)
    threshold = values[:, [-1]]
    out = logits.clone()
    out[out < threshold] = -float("inf")
    return out


def keep_top_p(logits, p):
    if p >= 1.0:
        return logits
    sorted_logits, sorted_indices = torch.sort(logits, descending=True)
    probs = F.softmax(sorted_logits, dim=-1)
    cumulative = torch.cumsum(probs, dim=-1)
    remove = cumulative >= p
    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
    mask = torch.zeros_like(remove).scatter(1, sorted_indices, remove)
    return logits.masked_fill(mask, -float("inf"))


def sample(logits, generator=None):
    probs = F.softmax(logits, dim=-1)
    return torch.multinomial(probs, num_samples=1, generator=generator).squeeze(1)


def next_token(logits, *, temperature=1.0, top_k=None, top_p=None, repetition_penalty=1.0,
               seen=None, generator=None):
    if seen is not None:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if temperature <= 1e-8:
        return torch.argmax(logits, dim=-1)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return sample(logits, generator)


def generate_tokens(next_logits, ids, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None,
                    repetition_penalty=1.0, eos_token_id=None, generator=None):
    B = ids.shape[0]
    done = torch.zeros(B, dtype=torch.bool)
    for step in range(max_new_tokens):
        logits = next_logits(ids)
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        seen.scatter_(1, ids, True)
        tokens = next_token(logits, temperature=temperature, top_k=top_k, top_p=top_p,
                            repetition_penalty=repetition_penalty, seen=seen, generator=generator)
        if eos_token_id is not None:
            tokens = torch.where(done, torch.full_like(tokens, eos_token_id), tokens)
            done = done | (tokens == eos_token_id)
        yield tokens
        if eos_token_id is not None and done.all():
            break
        ids = torch.cat((ids, tokens.unsqueeze(1)), dim=1)
"""
PENALIZE = """    positive = logits > 0
    out = logits.clone()
    down = torch.where(positive, logits / penalty, logits * penalty)
    out[seen] = down[seen]
    return out
"""
DOWN = "torch.where(positive, logits / penalty, logits * penalty)"
SEEN_ONLY = "out[seen] = down[seen]"
TOP_K = """    k = min(k, logits.size(-1))
    values, indices = torch.topk(logits, k)
    threshold = values[:, [-1]]
    out = logits.clone()
    out[out < threshold] = -float("inf")
    return out
"""
SHIFT = """    remove[:, 1:] = remove[:, :-1].clone()
    remove[:, 0] = False
"""
SCATTER = """    mask = torch.zeros_like(remove).scatter(1, sorted_indices, remove)
    return logits.masked_fill(mask, -float("inf"))
"""
NUCLEUS = (
    """    probs = F.softmax(sorted_logits, dim=-1)
    cumulative = torch.cumsum(probs, dim=-1)
    remove = cumulative >= p
"""
    + SHIFT
    + SCATTER
)
SORT = "torch.sort(logits, descending=True)"
DRAW = """    probs = F.softmax(logits, dim=-1)
    return torch.multinomial(probs, num_samples=1, generator=generator).squeeze(1)
"""
PENALTY = """    if seen is not None:
        logits = penalize_repetition(logits, seen, repetition_penalty)
"""
GREEDY = """    if temperature <= 1e-8:
        return torch.argmax(logits, dim=-1)
"""
TEMPER = "    logits = logits / temperature\n"
FILTER_K = """    if top_k is not None:
        logits = keep_top_k(logits, top_k)
"""
FILTER_P = """    if top_p is not None:
        logits = keep_top_p(logits, top_p)
"""
STEPS = PENALTY + GREEDY + TEMPER + FILTER_K + FILTER_P
SEEN = "        seen.scatter_(1, ids, True)\n"
MADE = "        seen = torch.zeros(logits.shape, dtype=torch.bool)\n" + SEEN
END = """            tokens = torch.where(done, torch.full_like(tokens, eos_token_id), tokens)
            done = done | (tokens == eos_token_id)
"""
STOP = "        if eos_token_id is not None and done.all():\n            break\n"
GROW = "        ids = torch.cat((ids, tokens.unsqueeze(1)), dim=1)\n"
CALL = "        logits = next_logits(ids)\n"
CHOOSE = "generator=generator)\n        if eos"
LOOP = "    for step in range(max_new_tokens):\n"


def wrong(mistake, title, *edits, also=""):
    bank.wrong_edit(mistake, title, *edits, base=PLAIN, also=also)


def right(title, *edits):
    bank.right_edit(title, *edits, base=PLAIN)


# ── the penalty
wrong("negative-logits-divided", "all divided", (DOWN, "logits / penalty"))
wrong("positive-logits-multiplied", "all multiplied", (DOWN, "logits * penalty"))
wrong(
    "penalty-reversed",
    "upside down",
    (DOWN, "torch.where(positive, logits * penalty, logits / penalty)"),
)
wrong("penalty-subtracted", "subtracted", (DOWN, "logits - penalty"))
wrong("penalty-subtracted", "its logarithm subtracted", (DOWN, "logits - math.log(penalty)"))
wrong(
    "negative-logits-unchanged",
    "only positive ones",
    (DOWN, "torch.where(positive, logits / penalty, logits)"),
)
wrong("penalizes-the-unseen", "the mask inverted", (SEEN_ONLY, "out[~seen] = down[~seen]"))
wrong("penalizes-all", "the mask forgotten", (SEEN_ONLY, "out = down"))
wrong(
    "rows-share-seen",
    "any row",
    (SEEN_ONLY, "any_row = seen.any(0)\n    out[:, any_row] = down[:, any_row]"),
)
wrong("rows-share-seen", "the first row's", (SEEN_ONLY, "out[:, seen[0]] = down[:, seen[0]]"))
wrong(
    "penalizes-log-probabilities",
    "after log-softmax",
    ("positive = logits > 0", "logits = F.log_softmax(logits, dim=-1)\n    positive = logits > 0"),
)
wrong(
    "edits-input", "penalty in place", ("out = logits.clone()\n    down", "out = logits\n    down")
)
wrong(
    "unseen-lost",
    "the others at 0",
    ("out = logits.clone()\n    down", "out = torch.zeros_like(logits)\n    down"),
)
wrong("no-return", "no return", (SEEN_ONLY + "\n    return out", SEEN_ONLY))
# ── top-k
wrong("kth-dropped", "≤ the k-th", ("out[out < threshold]", "out[out <= threshold]"))
wrong(
    "one-too-many",
    "k + 1",
    ("torch.topk(logits, k)", "torch.topk(logits, min(k + 1, logits.size(-1)))"),
)
wrong(
    "keeps-the-smallest",
    "the smallest",
    ("torch.topk(logits, k)", "torch.topk(logits, k, largest=False)"),
    ("out[out < threshold]", "out[out > threshold]"),
)
wrong("keeps-all-but-k", "inverted", ("out[out < threshold]", "out[out >= threshold]"))
wrong(
    "rows-share-a-limit",
    "the batch's smallest",
    ("threshold = values[:, [-1]]", "threshold = values.min()"),
)
wrong(
    "rows-share-a-limit",
    "the first row's",
    ("threshold = values[:, [-1]]", "threshold = values[0, -1]"),
)
wrong(
    "zero-instead-of-minus-infinity",
    "0",
    ('out[out < threshold] = -float("inf")', "out[out < threshold] = 0"),
)
wrong(
    "large-number-instead-of-minus-infinity",
    "−1e10",
    ('out[out < threshold] = -float("inf")', "out[out < threshold] = -1e10"),
)
wrong(
    "large-number-instead-of-minus-infinity",
    "the least float",
    ('out[out < threshold] = -float("inf")', "out[out < threshold] = torch.finfo(out.dtype).min"),
)
wrong(
    "probabilities-returned",
    "top-k gives probabilities",
    (TOP_K, TOP_K.replace("return out", "return F.softmax(out, dim=-1)")),
)
wrong("not-the-vocabulary", "the k values", (TOP_K, TOP_K.replace("return out", "return values")))
wrong(
    "not-the-vocabulary",
    "values and indices",
    (TOP_K, TOP_K.replace("return out", "return values, indices")),
)
wrong(
    "ties-dropped",
    "exactly k by scatter",
    (
        TOP_K,
        """    k = min(k, logits.size(-1))
    values, indices = torch.topk(logits, k)
    return torch.full_like(logits, -float("inf")).scatter(1, indices, values)
""",
    ),
)
wrong("k-beyond-the-vocabulary", "k not bounded", ("    k = min(k, logits.size(-1))\n", ""))
wrong("edits-input", "top-k in place", (TOP_K, TOP_K.replace("logits.clone()", "logits")))
# ── top-p
wrong("crossing-token-dropped", "no shift", (SHIFT, ""))
wrong("crossing-token-dropped", "no shift, one stays", (SHIFT, "    remove[:, 0] = False\n"))
wrong(
    "one-token-too-many-in-p",
    "shifted twice",
    (SHIFT, "    remove[:, 2:] = remove[:, :-2].clone()\n    remove[:, :2] = False\n"),
)
wrong("tail-kept", "inverted", ("masked_fill(mask", "masked_fill(~mask"))
wrong(
    "not-scattered-back",
    "the sorted mask on the logits",
    (SCATTER, '    return logits.masked_fill(remove, -float("inf"))\n'),
)
wrong(
    "not-scattered-back",
    "sorted logits returned",
    (SCATTER, '    return sorted_logits.masked_fill(remove, -float("inf"))\n'),
)
wrong(
    "not-scattered-back",
    "gather for scatter",
    (".scatter(1, sorted_indices, remove)", " | remove.gather(1, sorted_indices)"),
)
wrong(
    "rows-share-a-nucleus",
    "one list of tokens for all rows",
    (
        SCATTER,
        '    out = logits.clone()\n    out[:, sorted_indices[remove]] = -float("inf")\n    return out\n',
    ),
    also="nothing-left",
)
wrong(
    "rows-share-a-nucleus",
    "the first row's",
    (
        SCATTER,
        '    out = logits.clone()\n    out[:, sorted_indices[0][remove[0]]] = -float("inf")\n    return out\n',
    ),
)
wrong("least-likely-first", "ascending", (SORT, "torch.sort(logits)"))
wrong("not-sorted", "not sorted", (SORT, "logits, torch.arange(logits.size(1)).expand_as(logits)"))
wrong("logits-summed", "no softmax", ("F.softmax(sorted_logits, dim=-1)", "sorted_logits"))
wrong("logits-summed", "exponentials", ("F.softmax(sorted_logits, dim=-1)", "sorted_logits.exp()"))
wrong(
    "softmax-twice",
    "twice",
    ("F.softmax(sorted_logits, dim=-1)", "F.softmax(F.softmax(sorted_logits, dim=-1), dim=-1)"),
)
wrong(
    "summed-along-the-batch",
    "cumsum over rows",
    ("torch.cumsum(probs, dim=-1)", "torch.cumsum(probs, dim=0)"),
)
wrong(
    "summed-along-the-batch",
    "softmax over rows",
    ("F.softmax(sorted_logits, dim=-1)", "F.softmax(sorted_logits, dim=0)"),
)
wrong(
    "p-is-a-threshold",
    "each against p",
    (
        NUCLEUS,
        """    probs = F.softmax(logits, dim=-1)
    return logits.masked_fill(probs < p, -float("inf"))
""",
    ),
)
wrong("p-reversed", "1 − p", ("remove = cumulative >= p", "remove = cumulative >= 1 - p"))
wrong(
    "zero-instead-of-minus-infinity",
    "top-p leaves 0",
    (
        SCATTER,
        "    mask = torch.zeros_like(remove).scatter(1, sorted_indices, remove)\n    return logits.masked_fill(mask, 0.0)\n",
    ),
)
wrong(
    "probabilities-returned",
    "top-p gives probabilities",
    (SCATTER, SCATTER.rstrip() + ".softmax(-1)\n"),
)
wrong("edits-input", "top-p in place", (SCATTER, SCATTER.replace("masked_fill", "masked_fill_")))
wrong("p-of-one-drops", "p = 1 is not special", ("    if p >= 1.0:\n        return logits\n", ""))
wrong(
    "nothing-left",
    "the first may go",
    (
        NUCLEUS,
        """    probs = F.softmax(sorted_logits, dim=-1)
    remove = torch.cumsum(probs, dim=-1) - probs >= min(p, probs.min().item() and p)
"""
        + SCATTER.replace(
            "remove)\n    return", "remove)\n    mask = mask | torch.tensor(p < 0.01)\n    return"
        ),
    ),
)
wrong(
    "nucleus-cut-short",
    "the likeliest hundred",
    (SORT, "logits.topk(min(100, logits.size(-1)))"),
    (
        SCATTER,
        """    kept = sorted_logits.masked_fill(remove, -float("inf"))
    return torch.full_like(logits, -float("inf")).scatter(1, sorted_indices, kept)
""",
    ),
)
# ── the draw
wrong(
    "softmax-twice-in-draw",
    "twice",
    (
        DRAW,
        DRAW.replace("F.softmax(logits, dim=-1)", "F.softmax(F.softmax(logits, dim=-1), dim=-1)"),
    ),
)
wrong("argmax-instead-of-draw", "argmax", (DRAW, "    return logits.argmax(-1)\n"))
wrong(
    "drawn-without-softmax",
    "the logits are the weights",
    (DRAW, DRAW.replace("F.softmax(logits, dim=-1)", "logits.clamp(min=0)")),
)
wrong(
    "drawn-without-softmax",
    "uniform",
    (DRAW, DRAW.replace("F.softmax(logits, dim=-1)", "torch.isfinite(logits).float()")),
)
wrong(
    "draws-the-unlikely",
    "a sign",
    (DRAW, DRAW.replace("F.softmax(logits, dim=-1)", "F.softmax(-logits.clamp(min=-50), dim=-1)")),
    also="drawn-without-softmax draws-what-is-left-out",
)
wrong(
    "one-draw-for-all-rows",
    "the first row's draw",
    (
        DRAW,
        DRAW.replace("multinomial(probs", "multinomial(probs[:1]").rstrip()
        + ".expand(len(logits)).contiguous()\n",
    ),
    also="argmax-instead-of-draw",
)
wrong(
    "one-draw-for-all-rows",
    "one number u",
    (
        DRAW,
        """    u = torch.rand(1, generator=generator)
    sums = F.softmax(logits, dim=-1).cumsum(-1)
    return (sums < u).sum(-1).clamp(max=logits.size(-1) - 1)
""",
    ),
    also="argmax-instead-of-draw",
)
wrong(
    "one-draw-for-all-rows",
    "the same Gumbel noise",
    (
        DRAW,
        """    noise = -torch.log(-torch.log(torch.rand(logits.size(-1), generator=generator)))
    return (logits + noise).argmax(-1)
""",
    ),
    also="argmax-instead-of-draw",
)
wrong("generator-ignored", "not handed on", (", generator=generator).squeeze", ").squeeze"))
wrong(
    "always-the-same-draw",
    "a seed inside",
    (DRAW, "    torch.manual_seed(0)\n" + DRAW),
    also="generator-ignored seed-set",
)
wrong(
    "always-the-same-draw",
    "a new generator each time",
    (
        DRAW,
        "    if generator is None:\n        generator = torch.Generator().manual_seed(42)\n" + DRAW,
    ),
)
wrong("wrong-tokens-shape", "(B, 1)", (".squeeze(1)\n\n\ndef next", "\n\n\ndef next"))
wrong(
    "wrong-tokens-dtype", "int32", (".squeeze(1)\n\n\ndef next", ".squeeze(1).int()\n\n\ndef next")
)
wrong(
    "draw-off-by-one",
    "the next token",
    (
        DRAW,
        """    u = torch.rand(len(logits), 1, generator=generator)
    sums = F.softmax(logits, dim=-1).cumsum(-1)
    return ((sums < u).sum(-1) + 1) % logits.size(-1)
""",
    ),
    also="draws-what-is-left-out",
)
wrong(
    "wrong-noise",
    "uniform noise",
    (DRAW, "    return (logits + torch.rand(logits.shape, generator=generator)).argmax(-1)\n"),
)
wrong(
    "wrong-noise",
    "normal noise",
    (DRAW, "    return (logits + torch.randn(logits.shape, generator=generator)).argmax(-1)\n"),
)
wrong("rows-mixed", "rows in another order", (DRAW, DRAW.rstrip() + ".flip(0)\n"))
wrong(
    "draw-along-the-batch",
    "softmax over the rows",
    (DRAW, DRAW.replace("F.softmax(logits, dim=-1)", "F.softmax(logits, dim=0)")),
    also="drawn-without-softmax",
)
# ── one token
wrong(
    "top-p-before-temperature",
    "top-p first",
    (STEPS, PENALTY + GREEDY + FILTER_K + FILTER_P + TEMPER),
)
wrong(
    "top-p-before-top-k",
    "top-p before top-k",
    (STEPS, PENALTY + GREEDY + TEMPER + FILTER_P + FILTER_K),
)
wrong(
    "penalty-after-filters",
    "penalty last",
    (STEPS, GREEDY + TEMPER + FILTER_K + FILTER_P + PENALTY),
    also="greedy-without-penalty",
)
wrong("temperature-multiplied", "times", (TEMPER, TEMPER.replace("/", "*")))
wrong(
    "temperature-on-probabilities",
    "after the softmax",
    (TEMPER, "    logits = F.softmax(logits, dim=-1) / temperature\n"),
)
wrong("temperature-ignored", "no temperature", (TEMPER, ""))
wrong("top-k-ignored", "no top-k", (FILTER_K, ""))
wrong("top-p-ignored", "no top-p", (FILTER_P, ""))
wrong("penalty-not-applied", "no penalty", (PENALTY, ""), also="greedy-without-penalty")
wrong(
    "softmax-before-sample",
    "probabilities to sample",
    ("return sample(logits, generator)", "return sample(F.softmax(logits, dim=-1), generator)"),
)
wrong(
    "greedy-without-penalty",
    "greedy first",
    (STEPS, GREEDY + PENALTY + TEMPER + FILTER_K + FILTER_P),
)
wrong("greedy-divides-by-zero", "no special case", (GREEDY, ""))
wrong(
    "penalty-needs-seen",
    "None is not expected",
    (
        PENALTY,
        "    if repetition_penalty != 1.0:\n        logits = penalize_repetition(logits, seen, repetition_penalty)\n",
    ),
)
wrong(
    "generator-ignored",
    "next_token forgets it",
    ("return sample(logits, generator)", "return sample(logits)"),
)
# ── the loop
wrong("fed-only-the-last", "the newest alone", (CALL, CALL.replace("(ids)", "(ids[:, -1:])")))
wrong(
    "text-not-extended",
    "the prompt again",
    (GROW, GROW.replace("ids =", "longer =")),
    also="only-the-prompt-seen",
)
wrong(
    "token-put-in-front", "in front", ("(ids, tokens.unsqueeze(1))", "(tokens.unsqueeze(1), ids)")
)
wrong("oldest-token-forgotten", "a window", ("(ids, tokens", "(ids[:, 1:], tokens"))
wrong("one-token-too-few", "n − 1", (LOOP, LOOP.replace("max_new_tokens", "max_new_tokens - 1")))
wrong("one-token-more", "n + 1", (LOOP, LOOP.replace("max_new_tokens", "max_new_tokens + 1")))
wrong(
    "counts-the-prompt",
    "the length of all",
    (LOOP, LOOP.replace("max_new_tokens", "max_new_tokens - ids.shape[1]")),
)
wrong(
    "yields-the-text",
    "everything",
    ("yield tokens", "yield torch.cat((ids, tokens.unsqueeze(1)), dim=1)"),
)
wrong("wrong-tokens-shape", "a column", ("yield tokens", "yield tokens.unsqueeze(1)"))
wrong(
    "not-an-iterator",
    "a list",
    (LOOP, "    out = []\n" + LOOP),
    ("yield tokens", "out.append(tokens)"),
    (GROW, GROW + "    return out\n"),
)
wrong(
    "not-streamed",
    "an iterator over a list",
    (LOOP, "    out = []\n" + LOOP),
    ("yield tokens", "out.append(tokens)"),
    (GROW, GROW + "    return iter(out)\n"),
)
wrong("called-too-often", "once too often", (GROW, GROW + "    next_logits(ids)\n"))
wrong(
    "settings-not-passed-on",
    "no temperature",
    (
        "temperature=temperature, top_k=top_k, top_p=top_p,\n                            rep",
        "top_k=top_k, top_p=top_p, temperature=0.0 if temperature <= 1e-8 else 1.0,\n                            rep",
    ),
)
wrong(
    "settings-not-passed-on",
    "no top-p",
    (
        "top_k=top_k, top_p=top_p,\n                            rep",
        "top_k=top_k,\n                            rep",
    ),
)
wrong("generator-ignored", "the loop forgets it", ("seen=seen, generator=generator", "seen=seen"))
wrong(
    "prompt-not-seen",
    "without the prompt",
    (LOOP, "    T = ids.shape[1]\n" + LOOP),
    (SEEN, SEEN.replace("ids", "ids[:, T:]")),
)
wrong(
    "only-the-prompt-seen",
    "the prompt alone",
    (LOOP, "    prompt = ids\n" + LOOP),
    (SEEN, SEEN.replace("ids", "prompt")),
)
wrong("only-the-last-seen", "the newest", (SEEN, SEEN.replace("ids", "ids[:, -1:]")))
wrong(
    "rows-share-their-past",
    "one set for all rows",
    (SEEN, "        seen[:, ids.flatten()] = True\n"),
)
wrong(
    "penalty-per-occurrence",
    "for each token of the text",
    (
        MADE,
        """        for column in ids.T:
            seen = torch.zeros(logits.shape, dtype=torch.bool)
            seen.scatter_(1, column[:, None], True)
            logits = penalize_repetition(logits, seen, repetition_penalty)
""",
    ),
    ("seen=seen, ", ""),
)
wrong("nothing-seen", "seen is not handed on", ("seen=seen, ", ""))
wrong("one-end-stops-all", "any", ("done.all()", "done.any()"))
wrong("end-ignored", "no end", (END, "            pass\n"))
wrong(
    "ended-rows-go-on", "no filling", (END, "            done = done | (tokens == eos_token_id)\n")
)
wrong("never-stops", "no stop", (STOP, ""))
wrong(
    "end-in-prompt-counts",
    "an end in the prompt",
    (
        "done = torch.zeros(B, dtype=torch.bool)",
        "done = (ids == eos_token_id).any(1) if eos_token_id is not None else torch.zeros(B, dtype=torch.bool)",
    ),
)
wrong(
    "end-in-prompt-counts",
    "looked for in the whole text",
    (
        END,
        """            tokens = torch.where((ids == eos_token_id).any(1), torch.full_like(tokens, eos_token_id), tokens)
            done = (ids == eos_token_id).any(1) | (tokens == eos_token_id)
""",
    ),
)
wrong(
    "end-token-swallowed",
    "stops before it is yielded",
    ("        yield tokens\n" + STOP, STOP + "        yield tokens\n"),
)
wrong(
    "end-token-swallowed",
    "a list of flags, looked at before the yield",
    (
        "        yield tokens\n" + STOP,
        "        if eos_token_id is not None and all(done.tolist()):\n            return\n        yield tokens\n",
    ),
)
wrong(
    "all-must-end-at-once",
    "this step's alone",
    (END, "            done = tokens == eos_token_id\n"),
)
wrong(
    "ended-rows-filled-with-zero",
    "zeros",
    (
        "torch.full_like(tokens, eos_token_id), tokens)\n            done",
        "torch.zeros_like(tokens), tokens)\n            done",
    ),
)
wrong(
    "end-token-zero-ignored",
    "if eos_token_id",
    ("        if eos_token_id is not None:\n", "        if eos_token_id:\n"),
    ("if eos_token_id is not None and", "if eos_token_id and"),
)
wrong(
    "edits-ids",
    "a window that rolls in place",
    (GROW, "        ids[:, :-1] = ids[:, 1:].clone()\n        ids[:, -1] = tokens\n"),
    also="oldest-token-forgotten",
)

# ── right ones
right("a plain one")
right(
    "HF's ascending way",
    (
        NUCLEUS,
        """    ascending, where = torch.sort(logits, descending=False)
    below = ascending.softmax(dim=-1).cumsum(dim=-1)
    gone = below <= (1 - p)
    gone[..., -1:] = 0
    mask = gone.scatter(1, where, gone)
    return logits.masked_fill(mask, -float("inf"))
""",
    ),
)
right(
    "> with a shift, and scatter_ in place on a clone",
    ("cumulative >= p", "cumulative > p"),
    (
        SCATTER,
        """    out = logits.clone()
    for b in range(len(out)):
        out[b, sorted_indices[b, remove[b]]] = -torch.inf
    return out
""",
    ),
)
right(
    "probabilities minus themselves",
    (
        NUCLEUS,
        """    probs = sorted_logits.softmax(-1)
    gone = probs.cumsum(-1) - probs >= p
    gone[..., 0] = False
    inverse = sorted_indices.argsort(-1)
    return logits.masked_fill(gone.gather(-1, inverse), -math.inf)
""",
    ),
)
right(
    "a limit instead of a mask",
    (
        NUCLEUS,
        """    probs = sorted_logits.softmax(-1)
    inside = ((probs.cumsum(-1) - probs) < p).sum(-1, keepdim=True).clamp(min=1)
    order = sorted_indices.argsort(-1)
    return torch.where(order < inside, logits, torch.full_like(logits, -math.inf))
""",
    ),
)
right(
    "loops over rows and tokens",
    (
        NUCLEUS,
        """    out = torch.full_like(logits, float("-inf"))
    for b in range(logits.shape[0]):
        probs = torch.softmax(logits[b], dim=0)
        total = 0.0
        for i in torch.argsort(probs, descending=True):
            out[b, i] = logits[b, i]
            total = total + probs[i].item()
            if total >= p:
                break
    return out
""",
    ),
    (
        TOP_K,
        """    rows = []
    for row in logits:
        limit = sorted(row.tolist(), reverse=True)[min(k, len(row)) - 1]
        rows.append(torch.where(row >= limit, row, -torch.inf))
    return torch.stack(rows)
""",
    ),
    (DOWN, "torch.where(positive, logits / penalty, logits * penalty)"),
)
right(
    "Gumbel-max",
    (
        DRAW,
        """    noise = torch.rand(logits.shape, generator=generator).clamp_min(1e-20)
    return torch.argmax(logits - torch.log(-torch.log(noise)), dim=-1)
""",
    ),
)
right(
    "exponential race",
    (
        DRAW,
        """    q = torch.empty_like(logits).exponential_(1, generator=generator)
    return torch.argmax(F.softmax(logits, dim=-1) / q, dim=-1).to(dtype=torch.int64)
""",
    ),
)
right(
    "inverse CDF",
    (
        DRAW,
        """    u = torch.rand(logits.shape[0], 1, generator=generator)
    sums = F.softmax(logits.double(), dim=-1).cumsum(-1)
    return (sums <= u * sums[:, -1:]).sum(-1).clamp(max=logits.size(-1) - 1)
""",
    ),
)
right(
    "a multinomial per row",
    (
        DRAW,
        """    rows = [torch.multinomial(row.softmax(0), 1, generator=generator) for row in logits]
    return torch.cat(rows)
""",
    ),
)
right(
    "weights without a sum of 1",
    (
        DRAW,
        """    weights = (logits - logits.max(dim=-1, keepdim=True).values).exp()
    return torch.multinomial(weights, 1, replacement=True, generator=generator).view(-1)
""",
    ),
)
right(
    "Categorical where there is no generator",
    (
        DRAW,
        """    if generator is None:
        return torch.distributions.Categorical(logits=logits).sample()
"""
        + DRAW,
    ),
)
right(
    "temperature before penalty, top-k before temperature",
    (
        STEPS,
        """    if temperature <= 1e-8:
        if seen is not None:
            logits = penalize_repetition(logits, seen, repetition_penalty)
        return logits.max(dim=-1)[1]
    logits = logits / max(temperature, 1e-8)
    if seen is not None and repetition_penalty != 1:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if top_k:
        logits = keep_top_k(logits, top_k)
    if top_p and top_p < 1:
        logits = keep_top_p(logits, top_p)
""",
    ),
)
right("top-k before temperature", (STEPS, PENALTY + GREEDY + FILTER_K + TEMPER + FILTER_P))
right(
    "greedy as top-k of 1",
    (
        GREEDY,
        "    if temperature <= 1e-8:\n        return torch.topk(logits, 1, dim=-1).indices[:, 0]\n",
    ),
)
right(
    "one buffer for the text",
    (
        LOOP,
        """    T = ids.shape[1]
    text = torch.zeros(B, T + max_new_tokens, dtype=torch.long)
    text[:, :T] = ids
"""
        + LOOP,
    ),
    (CALL, "        ids = text[:, : T + step]\n" + CALL),
    (GROW, "        text[:, T + step] = tokens\n"),
)
right(
    "seen kept from step to step",
    (LOOP, "    seen = None\n" + LOOP),
    (
        MADE,
        """        if seen is None:
            seen = torch.zeros_like(logits, dtype=torch.bool)
            for b in range(B):
                seen[b, ids[b]] = True
        else:
            seen[torch.arange(B), ids[:, -1]] = True
""",
    ),
)
right(
    "lists of Python, and a while",
    (
        LOOP,
        """    ended = set()
    step = 0
    while step < max_new_tokens and len(ended) < B:
        step += 1
""",
    ),
    (
        END,
        """            tokens = tokens.clone()
            for b in range(B):
                if b in ended:
                    tokens[b] = eos_token_id
                elif tokens[b] == eos_token_id:
                    ended.add(b)
""",
    ),
    (STOP, ""),
)
right(
    "one_hot for seen, topk's scatter of ties",
    (SEEN, "        seen = F.one_hot(ids, logits.shape[-1]).sum(1) > 0\n"),
    (
        TOP_K,
        """    kth = torch.kthvalue(logits, max(1, logits.shape[-1] - k + 1), dim=-1, keepdim=True)[0]
    return logits.masked_fill(logits < kth, float("-inf"))
""",
    ),
)
right(
    "penalty by gather and scatter of what occurred",
    (SEEN_ONLY, "out = torch.where(seen, down, logits)"),
)
right(
    "penalty as a factor",
    (
        SEEN_ONLY + "\n    return out",
        "factor = torch.where(logits < 0, penalty, 1 / penalty)\n    return torch.where(seen, logits * factor, logits)",
    ),
)
right(
    "a class that iterates",
    (LOOP, LOOP),
    (
        "def generate_tokens(next_logits",
        "def generate_tokens(*args, **options):\n    return Steps(_steps(*args, **options))\n\n\nclass Steps:\n    def __init__(self, steps):\n        self.steps = steps\n\n    def __iter__(self):\n        return self\n\n    def __next__(self):\n        return next(self.steps)\n\n\ndef _steps(next_logits",
    ),
)
right(
    "loops over every number",
    (
        PENALIZE,
        """    out = logits.clone()
    for b in range(len(out)):
        for v in range(out.size(1)):
            if seen[b, v]:
                out[b, v] = out[b, v] * penalty if out[b, v] < 0 else out[b, v] / penalty
    return out
""",
    ),
    (
        NUCLEUS,
        """    out = torch.full_like(logits, float("-inf"))
    for b, row in enumerate(torch.softmax(logits, -1)):
        total = 0.0
        for v in row.argsort(descending=True).tolist():
            out[b, v] = logits[b, v]
            total += float(row[v])
            if total >= p:
                break
    return out
""",
    ),
    (
        DRAW,
        """    chosen = []
    for row in logits.softmax(-1):
        u, total = torch.rand((), generator=generator).item(), 0.0
        for v, chance in enumerate(row.tolist()):
            total += chance
            if chance > 0:
                last = v
            if total > u:
                break
        chosen.append(last)
    return torch.tensor(chosen)
""",
    ),
    (
        SEEN,
        """        for b in range(B):
            for token in ids[b].tolist():
                seen[b, token] = True
""",
    ),
    (
        END,
        """            for b in range(B):
                if done[b]:
                    tokens[b] = eos_token_id
                if tokens[b] == eos_token_id:
                    done[b] = True
""",
    ),
)
bank.right_edit("the solution")
