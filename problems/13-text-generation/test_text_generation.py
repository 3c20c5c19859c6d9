"""Checks of problem 13. What is expected is counted out token by token, in plain Python; what is
drawn is counted, and compared with a bound that a right answer exceeds once in a million runs.
"""

import contextlib
import itertools
import math

import torch

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    EITHER,
    CheckFailed,
    check,
    compare,
    expect_no_seed,
    fail,
    sizes_from,
    tensor,
)

KNOWN = known(__file__)
B, V, SHIFT = sizes_from((3, 11, 0), (4, 13, 2), (5, 12, 4))
INF = math.inf
DRAWS = 20_000
ROWS = 3000  # where a plain loop over rows and tokens is a right answer too
ONCE_IN = 1e6  # runs in which a right answer fails once, all its comparisons together
COMPARISONS = 40


# ── the computation, each step of which can be replaced ─────────────────────────────────────────


def penalized(
    logits, seen, penalty, *, first=None, where=None, positive=None, negative=None, rest=None
):
    """logits (B, V) → those after the repetition penalty."""
    x = logits if first is None else first(logits)
    seen = seen if where is None else where(seen)
    up = x / penalty if positive is None else positive(x, penalty)
    down = x * penalty if negative is None else negative(x, penalty)
    return torch.where(seen, torch.where(x < 0, down, up), x if rest is None else rest(x))


def top_k_of(logits, k, *, limit=None, below=None, out=-INF, last=None):
    """logits (B, V) → those that top-k leaves."""
    at = logits.topk(min(k, logits.size(-1))).values[:, -1:] if limit is None else limit(logits, k)
    gone = logits < at if below is None else below(logits, at)
    left = torch.where(gone, torch.tensor(float(out)), logits)
    return left if last is None else last(left)


def top_p_of(
    logits, p, *, descending=True, sort=None, chance=None, keep=None, back=None, out=-INF, last=None
):
    """logits (B, V) → those that top-p leaves."""
    if sort is None:
        values, order = logits.sort(dim=-1, descending=descending)
    else:
        values, order = sort(logits, descending)
    chances = values.softmax(-1) if chance is None else chance(values)
    kept = chances.cumsum(-1) - chances < p if keep is None else keep(chances, p)
    out = torch.tensor(float(out))
    if back is None:
        left = torch.full_like(logits, float(out)).scatter(
            -1, order, torch.where(kept, values, out)
        )
    else:
        left = back(logits, values, order, kept, out)
    return left if last is None else last(left)


ORDER = ("penalty", "temperature", "top-k", "top-p")


def chances(
    logits,
    temperature=1.0,
    top_k=None,
    top_p=None,
    repetition_penalty=1.0,
    seen=None,
    *,
    order=ORDER,
    unseen=None,
    temper=None,
    last=None,
    chance=None,
):
    """logits (B, V) → how likely each token is drawn, (B, V)."""
    x = logits
    if seen is None and unseen is not None:
        seen = unseen(x).bool()
    for step in order:
        if step == "penalty" and seen is not None:
            x = penalized(x, seen, repetition_penalty)
        elif step == "temperature":
            x = x / temperature if temper is None else temper(x, temperature)
        elif step == "top-k" and top_k is not None:
            x = top_k_of(x, top_k)
        elif step == "top-p" and top_p is not None:
            x = top_p_of(x, top_p)
    x = x if last is None else last(x)
    return x.softmax(-1) if chance is None else chance(x)


def written(
    next_logits,
    ids,
    n,
    *,
    repetition_penalty=1.0,
    eos=None,
    feed=None,
    grow=None,
    count=None,
    seen=None,
    fill=None,
    stop=None,
    start=None,
    now=False,
):
    """The likeliest continuation of ids (B, T), step by step: (steps, B)."""
    T, text, rows = ids.size(1), ids, []
    ended = torch.zeros(len(ids), dtype=torch.bool) if start is None else start(ids, eos)
    for _ in range(n if count is None else count(n)):
        logits = next_logits(text if feed is None else feed(text, T))
        size = logits.size(-1)
        counted = torch.zeros(len(ids), size, dtype=torch.bool).scatter(1, text, True)
        times = (counted if seen is None else seen(text, T, size)).to(logits.dtype)
        factor = repetition_penalty**times
        new = torch.where(logits < 0, logits * factor, logits / factor).argmax(-1)
        if eos is not None:
            was = ended
            new = new.masked_fill(was, eos) if fill is None else fill(new, was, eos, text[:, -1])
            ended = new == eos if now else was | (new == eos)
        rows.append(new)
        if eos is not None and (bool(ended.all()) if stop is None else stop(ended)):
            break
        text = torch.cat([text, new[:, None]], 1) if grow is None else grow(text, new)
        text = text.clamp_min(0)
    return torch.stack(rows) if rows else torch.zeros(0, len(ids), dtype=torch.int64)


# ── what the checks are made of ─────────────────────────────────────────────────────────────────


def scores(b=B, v=V, seed=0, spread=2.0):
    """Random logits (b, v) of both signs."""
    return spread * torch.randn(b, v, generator=torch.Generator().manual_seed(300 + seed))


def nucleus(row, p):
    """The tokens of one row's nucleus, and by how much the nearest sum of the likeliest misses p."""
    odds = row.double().softmax(-1).tolist()
    total, found, gap = 0.0, [], 1.0
    for token in sorted(range(len(odds)), key=lambda t: -odds[t]):
        if total < p:
            found.append(token)
        total += odds[token]
        gap = min(gap, abs(total - p))
    return found, gap


def telling(p, b=B, v=V, spread=2.0):
    """Logits (b, v) whose nucleus for p does not hang on rounding, and is neither one token nor all."""
    for seed in itertools.count():
        logits = scores(b, v, seed, spread)
        found = [nucleus(row, p) for row in logits]
        sizes = {len(tokens) for tokens, _ in found}
        if (
            min(gap for _, gap in found) > 0.01
            and len(sizes) > 1
            and min(sizes) >= 2
            and max(sizes) < v
        ):
            return logits


def only(logits, tokens):
    """logits (B, V) with −inf for all but these tokens of each row."""
    left = torch.full_like(logits, -INF)
    for b, kept in enumerate(tokens):
        for token in kept:
            left[b, token] = logits[b, token]
    return left


def kept_by(filtered):
    """The tokens that each row keeps."""
    return [set((row > -INF).nonzero()[:, 0].tolist()) for row in filtered]


def unedited(piece, name, *given):
    """What a function of the piece gives; its tensors must come out as they went in."""
    before = [t.clone() if isinstance(t, torch.Tensor) else t for t in given]
    got = getattr(piece, name)(*given)
    for t, then in zip(given, before, strict=True):
        if isinstance(t, torch.Tensor) and not torch.equal(t, then):
            which = "`seen`" if t.dtype == torch.bool else "the logits"
            fail(
                f"{name} changes {which} that it is given, in place: the caller still needs "
                "them. Make a new tensor, or change a clone.",
                id="edits-input",
            )
    return got


def expect_tokens(drawn, rows, what):
    """Check that `drawn` is int64 of shape (rows,)."""
    drawn = tensor(drawn, what)
    if tuple(drawn.shape) != (rows,):
        fail(
            KNOWN["wrong-tokens-shape"], f"{what}: shape {tuple(drawn.shape)}, expected ({rows},)."
        )
    if drawn.dtype != torch.int64:
        fail(KNOWN["wrong-tokens-dtype"], f"{what}: {drawn.dtype}.")
    return drawn


def bound(v, draws=DRAWS):
    """How far a share of so many draws may be from its probability. By Hoeffding's inequality, one of
    v tokens is further off with probability 2 v exp(−2 · draws · bound²) at most.
    """
    return math.sqrt(math.log(2 * v * COMPARISONS * ONCE_IN) / (2 * draws))


def expect_shares(drawn, want, mistakes, variant, what, given=""):
    """Check that tokens (N,) come up as often as `want` (V,) says; else name the mistake that fits."""
    v = len(want)
    drawn = expect_tokens(drawn, len(drawn), what)
    if bool(((drawn < 0) | (drawn >= v)).any()):
        fail(
            f"{what}: token {int(drawn.min())} … {int(drawn.max())}, but there are {v} tokens.",
            id="no-such-token",
        )
    share, limit = torch.bincount(drawn, minlength=v).double() / len(drawn), bound(v, len(drawn))
    off = (share - want).abs()
    impossible = (want == 0) & (share > 0)
    if off.max() <= limit and not impossible.any():
        return
    fits = {}
    for m in mistakes:
        with contextlib.suppress(Exception):
            made = variant(**m.switches).double()
            distance = float((share - made).abs().max())
            if (
                distance <= limit
                and (made - want).abs().max() > limit / 2
                and not (share[made == 0] > 0).any()
            ):
                fits.setdefault(m.says, (distance, m))
    worst = int(torch.where(impossible, 2.0, off).argmax())
    numbers = f"{what}{given}: token {worst} comes up in {share[worst]:.1%} of {len(drawn):,} draws, expected {want[worst]:.1%}."
    if len(fits) == 1:
        fail(next(iter(fits.values()))[1], numbers)
    if fits:
        # of several, the closest: what lies nearly as close can't be told from it
        closest = sorted(fits.values(), key=lambda pair: pair[0])
        near = [m for distance, m in closest if distance <= closest[0][0] + limit / 4][:3]
        if len(near) == 1:
            fail(near[0], numbers)
        lines = [f"- {m.says} (hint {m.hint}) [{m.id}]" for m in near]
        ids = [m.id for m in near]
        raise CheckFailed("\n".join([EITHER, *lines, numbers]), ids, near[0].hint)
    if impossible.any():
        fail(KNOWN["draws-what-is-left-out"], numbers)
    fail(f"Tokens are not drawn as often as they should be. {numbers}", id="wrong-shares")


class NextLogits:
    """A stand-in for a model: logits (B, V) that depend on every token of the text and its place. It
    writes down what it is given.
    """

    def __init__(self, v=V, seed=0, shift=0.0):
        self.table = scores(41, v, 50 + seed) + shift
        self.given = []

    def __call__(self, ids):
        self.given.append(ids.clone())
        places = torch.arange(1, ids.size(1) + 1)
        return self.table[(ids * (7 * places + places**2)).sum(1) % 41].clone()


class Script:
    """Logits that make row b's new token number t the likeliest by far: script[b][t]."""

    def __init__(self, script, T, v=V):
        self.script, self.T, self.v = script, T, v
        self.calls = 0

    def __call__(self, ids):
        self.calls += 1
        t = min(ids.size(1) - self.T, len(self.script[0]) - 1)
        logits = torch.zeros(len(self.script), self.v)
        for b, row in enumerate(self.script):
            logits[b, row[t]] = 9.0
        return logits


def text(b=B, t=4, seed=0):
    """Random ids (b, t)."""
    return torch.randint(V, (b, t), generator=torch.Generator().manual_seed(400 + seed))


def steps_of(piece, next_logits, ids, n, **options):
    """The iterator that generate_tokens gives."""
    steps = piece.generate_tokens(next_logits, ids, n, **options)
    if steps is None or isinstance(steps, (list, tuple, torch.Tensor)):
        fail(
            KNOWN["not-an-iterator"],
            f"It gives {'None' if steps is None else 'a ' + type(steps).__name__}.",
        )
    return steps


def collected(piece, next_logits, ids, n, **options):
    """All tokens of a continuation, (steps, B); no more than n + 3 steps are asked for."""
    rows = []
    for new in itertools.islice(steps_of(piece, next_logits, ids, n, **options), n + 3):
        new = tensor(new, "what is yielded")
        if new.dim() == 2 and new.size(1) > 1:
            fail(
                KNOWN["yields-the-text"],
                f"A step yields {tuple(new.shape)}, expected ({len(ids)},).",
            )
        rows.append(expect_tokens(new, len(ids), "what is yielded").clone())
    return torch.stack(rows) if rows else torch.zeros(0, len(ids), dtype=torch.int64)


# ── the penalty ─────────────────────────────────────────────────────────────────────────────────


@check(todo=1, points=2)
def test_penalty(piece):
    """The penalty divides positive logits and multiplies negative ones, where they were seen"""
    logits = scores(seed=1)
    seen = torch.rand(B, V, generator=torch.Generator().manual_seed(1)) < 0.5
    seen[0, :2] = torch.tensor([True, False])
    for penalty in (1.7, 0.6):
        want = logits.clone()
        for b, v in itertools.product(range(B), range(V)):
            if seen[b, v]:
                x = float(logits[b, v])
                want[b, v] = x * penalty if x < 0 else x / penalty
        compare(
            lambda penalty=penalty: unedited(piece, "penalize_repetition", logits, seen, penalty),
            want,
            KNOWN.of("penalty"),
            lambda penalty=penalty, **switches: penalized(logits, seen, penalty, **switches),
            what="the logits after the penalty",
            axes="B V",
        )


@check(todo=1, needs=test_penalty)
def test_penalty_worked_example(piece):
    """By hand: 2, −1 and 3 with a penalty of 2, the first two seen, become 1, −2 and 3"""
    logits = torch.tensor([[2.0, -1.0, 3.0], [2.0, -1.0, 3.0]])
    seen = torch.tensor([[True, True, False], [False, False, False]])
    compare(
        lambda: unedited(piece, "penalize_repetition", logits, seen, 2.0),
        torch.tensor([[1.0, -2.0, 3.0], [2.0, -1.0, 3.0]]),
        KNOWN.of("penalty"),
        lambda **switches: penalized(logits, seen, 2.0, **switches),
        what="the logits after the penalty",
        axes="B V",
    )
    left_out = torch.tensor([[-INF, 1.0, -2.0]])
    for penalty in (1.5, 0.5, 1.0):
        found = piece.penalize_repetition(left_out, torch.tensor([[True, False, True]]), penalty)
        if torch.isnan(tensor(found)).any():
            fail(
                "A logit of −inf becomes NaN by the penalty; it stays −inf.",
                id="nan-from-infinity",
                hint=1,
            )


# ── top-k ───────────────────────────────────────────────────────────────────────────────────────


@check(todo=2, points=2)
def test_top_k(piece):
    """The k largest logits of each row stay as they are, and all others become −inf"""
    logits = scores(seed=2)
    logits[0] += 3.0  # a limit that all rows share would show
    for k in (3, 1, 5):
        want = only(
            logits,
            [sorted(range(V), key=lambda v, row=row: -row[v])[:k] for row in logits.tolist()],
        )
        expect_a_place_for_each(piece.keep_top_k(logits.clone(), k), logits, k)
        compare(
            lambda k=k: unedited(piece, "keep_top_k", logits, k),
            want,
            KNOWN.of("top-k", "fill"),
            lambda k=k, **switches: top_k_of(logits, k, **switches),
            what="what top-k leaves",
            axes="B V",
        )


def expect_a_place_for_each(got, logits, k):
    """Check that what a filter gives is not just the k values."""
    if isinstance(got, (tuple, list)) and len(got) == 2:
        fail(KNOWN["not-the-vocabulary"], "It returns values and indices, as `topk` gives them.")
    if isinstance(got, torch.Tensor) and tuple(got.shape) == (len(logits), k) != tuple(
        logits.shape
    ):
        fail(
            KNOWN["not-the-vocabulary"],
            f"The shape is {tuple(got.shape)}, expected {tuple(logits.shape)}.",
        )


@check(todo=2, needs=test_top_k, points=2)
def test_top_k_edges(piece):
    """Ties with the k-th stay, k ≥ V keeps everything, and what is left out already stays out"""
    logits = torch.full((2, V), -1.0)
    logits[0, [1, 4, 6]] = torch.tensor([5.0, 2.0, 2.0])
    logits[1, [0, 3, 5, 7]] = torch.tensor([1.0, 1.0, 1.0, 4.0])
    found = kept_by(tensor(piece.keep_top_k(logits, 2)))
    want = [{1, 4, 6}, {0, 3, 5, 7}]
    if found != want:
        details = f"Logits {logits[0].tolist()}, k = 2: kept {sorted(found[0])}, expected {sorted(want[0])}."
        if any(len(a) < len(b) for a, b in zip(found, want, strict=True)):
            fail(KNOWN["ties-dropped"], details)
        fail("Top-k keeps other tokens where some are equal.", details, id="wrong-ties", hint=2)
    logits = scores(2, V, seed=3)
    for k in (V, V + 1, 50 * V):
        try:
            found = tensor(piece.keep_top_k(logits, k))
        except (RuntimeError, IndexError, ValueError) as error:
            fail(
                KNOWN["k-beyond-the-vocabulary"],
                f"k = {k}, V = {V}: {type(error).__name__}: {str(error)[:120]}",
            )
        if not torch.equal(found, logits):
            fail(
                f"With k = {k} ≥ V = {V} all logits stay as they are; yours change.",
                id="k-of-all-drops",
                hint=2,
            )
    logits[0, 2:] = -INF
    found = tensor(piece.keep_top_k(logits, 4))
    if torch.isnan(found).any() or kept_by(found)[0] != {0, 1}:
        fail(
            "A row in which only two tokens are left keeps those two for k = 4, and nothing becomes NaN.",
            id="left-out-comes-back",
            hint=2,
        )


# ── top-p ───────────────────────────────────────────────────────────────────────────────────────


def examine_top_p(piece, logits, p):
    """Compare with the nucleus that is counted out."""
    want = only(logits, [nucleus(row, p)[0] for row in logits])
    compare(
        lambda: unedited(piece, "keep_top_p", logits, p),
        want,
        KNOWN.of("top-p", "fill"),
        lambda **switches: top_p_of(logits, p, **switches),
        what="what top-p leaves",
        axes="B V",
    )


@check(todo=5, points=3)
def test_top_p(piece):
    """The fewest tokens whose probabilities sum to p or more stay, each in its own place"""
    for p in (0.7, 0.85, 0.5):
        examine_top_p(piece, telling(p), p)


@check(todo=5, needs=test_top_p)
def test_top_p_worked_example(piece):
    """By hand: of probabilities 0.2, 0.5 and 0.3, p = 0.6 keeps 0.5 and 0.3"""
    logits = torch.tensor([[0.2, 0.5, 0.3], [0.3, 0.2, 0.5]]).log()
    for p in (0.6, 0.4, 0.9):
        examine_top_p(piece, logits, p)


@check(todo=5, needs=test_top_p, points=2)
def test_top_p_edges(piece):
    """One token always stays, p ≥ 1 keeps all, and equal tokens are counted one by one"""
    logits = scores(2, V, seed=5)
    for p in (1e-9, 1e-3, 0.0):
        found = kept_by(tensor(piece.keep_top_p(logits, p)))
        if any(not tokens for tokens in found):
            fail(KNOWN["nothing-left"], f"p = {p:g}.")
        if found != [{int(row.argmax())} for row in logits]:
            fail(
                f"With p = {p:g} the likeliest token alone stays; yours keeps {sorted(found[0])} of row 0.",
                id="more-than-one-left",
                hint=4,
            )
    sure = scores(2, V, seed=6)
    sure[:, 1] += 60.0
    found = kept_by(tensor(piece.keep_top_p(sure, 0.9)))
    if found != [{1}, {1}]:
        fail(
            f"A token of probability 1 is enough for p = 0.9; yours keeps {sorted(found[0])}.",
            id="more-than-one-left",
            hint=4,
        )
    for p in (1.0, 1.5):
        # thousands of tokens, the last of which are too unlikely to change a float32 sum
        many = scores(2, 700, seed=7, spread=9.0)
        found = tensor(piece.keep_top_p(many, p))
        if not torch.equal(found, many):
            dropped = int((found == -INF).sum())
            fail(
                KNOWN["p-of-one-drops"],
                f"p = {p:g}: {dropped} of {many.numel()} tokens are left out.",
            )
    alike = torch.zeros(2, 10)
    found = kept_by(tensor(piece.keep_top_p(alike, 0.35)))
    if any(len(tokens) != 4 for tokens in found):
        fail(
            f"Of ten equally likely tokens, p = 0.35 keeps four; yours keeps {len(found[0])}.",
            id="wrong-ties",
            hint=4,
        )
    logits[0, 2:] = -INF
    found = tensor(piece.keep_top_p(logits, 0.999))
    if torch.isnan(found).any() or not kept_by(found)[0] <= {0, 1}:
        fail(
            "What is left out already (−inf) stays out, and nothing becomes NaN.",
            id="left-out-comes-back",
            hint=4,
        )


@check(todo=5, needs=test_top_p)
def test_top_p_in_a_large_vocabulary(piece):
    """With thousands of tokens, a sure row and an unsure one, each nucleus has its own size"""
    p = 0.9
    logits = scores(3, 3001, seed=8, spread=1.0) * torch.tensor([[0.3], [6.0], [2.0]])
    found = tensor(piece.keep_top_p(logits, p))
    for b, row in enumerate(logits):
        odds = row.double().softmax(-1)
        inside = found[b] > -INF
        mass, least = float(odds[inside].sum()), float(odds[inside].min()) if inside.any() else 0.0
        details = f"Row {b} of {len(row)} tokens: {int(inside.sum())} kept, which sum to {mass:.4f}; p = {p}."
        if mass < p - 1e-4:
            fail(KNOWN["nucleus-cut-short"], details)
        if mass - least > p + 1e-4:
            fail(
                f"More tokens are kept than are needed to reach p. {details}",
                id="more-than-needed",
                hint=4,
            )
        if not torch.equal(found[b][inside], row[inside]):
            fail(
                f"The logits of tokens that stay are changed. {details}",
                id="kept-logits-changed",
                hint=5,
            )


# ── the draw ────────────────────────────────────────────────────────────────────────────────────

ODDS = torch.tensor([0.42, 0.05, 0.23, 0.02, 0.17, 0.11]).roll(SHIFT)


@check(todo=6, points=3)
def test_sample(piece):
    """Tokens come up as often as softmax(logits) says, in 20,000 draws"""
    logits = (ODDS.log() + 1.5).expand(DRAWS, -1).contiguous()
    before = logits.clone()
    drawn = expect_tokens(piece.sample(logits), DRAWS, "what sample draws")
    if drawn.max() == drawn.min():
        others = {int(tensor(piece.sample(logits[:2]))[0]) for _ in range(40)}
        name = "argmax-instead-of-draw" if len(others) == 1 else "one-draw-for-all-rows"
        fail(KNOWN[name], f"{DRAWS:,} equal rows all get token {int(drawn[0])}.")
    one = logits[:1]
    mistakes = KNOWN.of("draw")
    expect_shares(
        drawn,
        ODDS.double(),
        mistakes,
        lambda **switches: chances(one, **switches)[0],
        "sample",
    )
    if not torch.equal(logits, before):
        fail(
            "sample changed the logits that it was given. Make a new tensor.",
            id="edits-input",
            hint=6,
        )


@check(todo=6, needs=test_sample, points=2)
def test_sample_rows(piece):
    """Each row is drawn by itself: from its own logits, with its own random number"""
    sure = torch.full((V, V), -20.0)
    order = (torch.arange(V) * 3 + 1) % V if V % 3 else (torch.arange(V) * 5 + 1) % V
    sure[torch.arange(V), order] = 20.0
    drawn = expect_tokens(piece.sample(sure), V, "what sample draws")
    if not torch.equal(drawn, order):
        fail(
            KNOWN["rows-mixed"],
            f"Rows that are sure of tokens {order.tolist()} get {drawn.tolist()}.",
        )
    # 64 equal rows of 1,000 tokens: that fewer than 32 differ has a probability below 1e-50
    alike = expect_tokens(piece.sample(torch.zeros(64, 1000)), 64, "what sample draws")
    if len(set(alike.tolist())) < 32:
        fail(
            KNOWN["one-draw-for-all-rows"],
            f"64 rows of 1,000 equally likely tokens get {len(set(alike.tolist()))} different ones.",
        )
    # rows of other chances with one random number for both: their draws would go together
    two = torch.tensor([[0.5, 0.5], [0.5, 0.5]]).log()
    pairs = [tuple(piece.sample(two).tolist()) for _ in range(80)]
    if len(set(pairs)) == 1:
        fail(KNOWN["always-the-same-draw"], f"80 calls in a row give {list(pairs[0])}.")
    if len(set(pairs)) < 3:
        fail(
            KNOWN["one-draw-for-all-rows"],
            "Two rows that should be independent always get the same token.",
        )
    few = torch.full((500, 9), -INF)
    few[:, [2, 7]] = torch.tensor([1.0, 0.5])
    found = set(expect_tokens(piece.sample(few), 500, "what sample draws").tolist())
    if not found <= {2, 7}:
        fail(
            KNOWN["draws-what-is-left-out"],
            f"Only tokens 2 and 7 are left; {sorted(found)} are drawn.",
        )
    single = expect_tokens(piece.sample(sure[:1]), 1, "what sample draws from one row")
    if int(single) != int(order[0]):
        fail(
            KNOWN["rows-mixed"], "A single row gets another token than the one that it is sure of."
        )


@check(todo=6, needs=test_sample, points=2)
def test_generator(piece):
    """The generator decides: one seed gives the same tokens, and another seed others"""
    logits = torch.zeros(32, 500)

    def draw(seed, outside):
        torch.manual_seed(outside)
        return tensor(piece.sample(logits, torch.Generator().manual_seed(seed)))

    first, again, other = draw(5, 1), draw(5, 2), draw(6, 1)
    if not torch.equal(first, again):
        fail(KNOWN["generator-ignored"], "Two generators with the seed 5 give other tokens.")
    if torch.equal(first, other):
        fail(
            KNOWN["always-the-same-draw"],
            "Generators with the seeds 5 and 6 give the same 32 tokens.",
        )
    generator = torch.Generator().manual_seed(5)
    found = [tensor(piece.sample(logits, generator)) for _ in range(2)]
    if torch.equal(*found):
        fail(KNOWN["always-the-same-draw"], "Two draws in a row from one generator are the same.")
    keyword = tensor(piece.sample(logits, generator=torch.Generator().manual_seed(5)))
    if not torch.equal(first, keyword):
        fail(KNOWN["generator-ignored"], "Given as `generator=`, the seed 5 gives other tokens.")
    torch.manual_seed(0)
    plain = [tensor(piece.sample(logits)) for _ in range(2)]
    if torch.equal(*plain):
        fail(
            KNOWN["always-the-same-draw"], "Two draws in a row, without a generator, are the same."
        )
    expect_no_seed(lambda: piece.sample(logits), "sample")


# ── one token ───────────────────────────────────────────────────────────────────────────────────

LOGITS = torch.tensor([[2.6, 2.2, 1.5, 1.1, 0.4, -0.3, -0.8, -2.0]]).roll(SHIFT, 1)
SEEN = torch.tensor([[True, False, False, True, False, True, False, False]]).roll(SHIFT, 1)
SETTINGS = (
    {"temperature": 0.5, "top_p": 0.75},
    {"temperature": 2.0, "top_p": 0.55},
    {"temperature": 1.0, "top_k": 4, "top_p": 0.7},
    {"temperature": 0.6, "top_k": 3},
    {"temperature": 1.6},
    {"temperature": 1.3, "top_k": 4, "repetition_penalty": 2.5, "seen": SEEN},
    {"temperature": 0.8, "top_p": 0.8, "repetition_penalty": 3.0, "seen": SEEN},
    {"top_k": 5, "top_p": 0.6, "repetition_penalty": 0.5, "seen": SEEN},
    {"repetition_penalty": 2.5},
)


def described(options):
    """` with temperature=0.5, top_p=0.75`"""
    shown = ", ".join(f"{name}={value}" for name, value in options.items() if name != "seen")
    return f" with {shown}" if shown else ""


@check(todo=8, needs=(test_penalty, test_top_k, test_top_p, test_sample), points=3, seconds=20)
def test_next_token(piece):
    """Penalty, temperature, top-k, top-p, draw: tokens come up as often as this order says"""
    logits = LOGITS.expand(ROWS, -1).contiguous()
    before = logits.clone()
    for options in SETTINGS:
        given = dict(options)
        if "seen" in given:
            given["seen"] = SEEN.expand(ROWS, -1).contiguous()
        drawn = expect_tokens(piece.next_token(logits, **given), ROWS, "what next_token chooses")
        expect_shares(
            drawn,
            chances(LOGITS, **options)[0].double(),
            KNOWN.of("order", "draw"),
            lambda options=options, **switches: chances(LOGITS, **options, **switches)[0],
            "next_token",
            described(options),
        )
        if not torch.equal(logits, before):
            fail(
                "next_token changed the logits that it was given. Make a new tensor.",
                described(options).strip(),
                id="edits-input",
                hint=7,
            )
        if "seen" in given and not torch.equal(given["seen"][0], SEEN[0]):
            fail(
                "next_token changed `seen`, which belongs to the caller.",
                id="edits-input",
                hint=7,
            )


@check(todo=8, needs=test_next_token, follows=test_generator)
def test_next_token_generator(piece):
    """next_token hands its generator on, and works without anything but logits"""
    logits = torch.zeros(32, 500)
    torch.manual_seed(1)
    first = tensor(piece.next_token(logits, generator=torch.Generator().manual_seed(5)))
    torch.manual_seed(2)
    again = tensor(piece.next_token(logits, generator=torch.Generator().manual_seed(5)))
    if not torch.equal(first, again):
        fail(
            KNOWN["generator-ignored"],
            "next_token with two generators of the seed 5 chooses other tokens.",
        )
    expect_tokens(piece.next_token(logits), 32, "what next_token chooses")
    try:
        piece.next_token(logits, repetition_penalty=1.5)
    except (TypeError, AttributeError, RuntimeError) as error:
        fail(
            KNOWN["penalty-needs-seen"],
            f"repetition_penalty=1.5 without seen: {type(error).__name__}: {str(error)[:120]}",
        )


@check(todo=7, needs=(test_penalty, test_top_k), points=2)
def test_greedy(piece):
    """At a temperature of 1e-8 or less, the largest logit after the penalty is taken"""
    logits = scores(B, V, seed=9)
    for temperature in (0.0, 1e-8, 1e-9, 0):
        for extra in ({}, {"top_k": 2}, {"top_p": 0.3, "top_k": 3}):
            try:
                found = tensor(piece.next_token(logits, temperature=temperature, **extra))
            except (ZeroDivisionError, RuntimeError) as error:
                fail(
                    KNOWN["greedy-divides-by-zero"],
                    f"temperature={temperature}: {type(error).__name__}: {str(error)[:120]}",
                )
            found = expect_tokens(found, B, "what next_token chooses")
            if not torch.equal(found, logits.argmax(-1)):
                fail(
                    KNOWN["greedy-still-draws"],
                    f"temperature={temperature}{described(extra)}: tokens {found.tolist()}, the largest are {logits.argmax(-1).tolist()}.",
                )
    # two that are nearly alike: a draw would take the second in half of the rows
    close = torch.zeros(64, V)
    close[:, 1] = 1e-9
    close[:, 3] = 2e-9
    found = tensor(piece.next_token(close, temperature=1e-8))
    if not torch.equal(found, torch.full((64,), 3)):
        fail(
            KNOWN["greedy-still-draws"],
            "Of the logits 0, 1e-9 and 2e-9 another than the largest is taken at temperature 1e-8.",
        )
    logits = torch.zeros(2, V)
    logits[:, 1], logits[:, 4] = 3.0, 2.0
    seen = torch.zeros(2, V, dtype=torch.bool)
    seen[1, 1] = True
    found = tensor(piece.next_token(logits, temperature=0.0, repetition_penalty=2.0, seen=seen))
    if found.tolist() == [1, 1]:
        fail(
            KNOWN["greedy-without-penalty"],
            "Logits 3 (seen) and 2 (not seen) with a penalty of 2: the second is the larger one afterwards.",
        )
    if found.tolist() != [1, 4]:
        fail(
            f"Greedy with a penalty: tokens {found.tolist()}, expected [1, 4].",
            id="wrong-greedy",
            hint=7,
        )


# ── the loop ────────────────────────────────────────────────────────────────────────────────────


@check(todo=11, needs=test_greedy, points=3)
def test_loop(piece):
    """The likeliest text: each new token is read before the next one is chosen"""
    ids, n = text(), 6
    before = ids.clone()
    spy = NextLogits()
    got = collected(piece, spy, ids, n, temperature=0.0)
    calls = [tuple(given.shape) for given in spy.given]
    if not torch.equal(ids, before):
        fail(KNOWN["edits-ids"])
    T = ids.size(1)
    if len(got) == max(0, n - T) and n != T:
        fail(
            KNOWN["counts-the-prompt"],
            f"A prompt of {T} tokens, max_new_tokens={n}: {len(got)} are yielded.",
        )
    compare(
        got,
        written(NextLogits(), ids, n),
        KNOWN.of("loop"),
        lambda **switches: written(NextLogits(), ids, n, **switches),
        what="the text that is written",
        axes="step B",
    )
    if len(calls) > n:
        fail(KNOWN["called-too-often"], f"{n} tokens took {len(calls)} calls, of shapes {calls}.")
    if calls != [(B, T + i) for i in range(n)]:
        fail(
            f"next_logits is to be called with {T}, {T + 1}, … {T + n - 1} tokens; it was with {[c[-1] for c in calls]}.",
            id="wrong-calls",
            hint=8,
        )


@check(todo=11, needs=test_loop)
def test_streams(piece):
    """Each token is handed out when it is chosen, and no model runs for those that nobody asks for"""
    spy = NextLogits()
    steps = steps_of(piece, spy, text(), 5, temperature=0.0)
    if len(spy.given) > 1:
        fail(
            KNOWN["not-streamed"],
            f"Before the first token is asked for, next_logits is called {len(spy.given)} times.",
        )
    next(steps)
    if len(spy.given) != 1:
        fail(
            KNOWN["not-streamed"],
            f"When the first token arrives, next_logits has been called {len(spy.given)} times.",
        )
    next(steps)
    if len(spy.given) != 2:
        fail(
            KNOWN["not-streamed"],
            f"When the second token arrives, next_logits has been called {len(spy.given)} times.",
        )
    spy = NextLogits()
    if len(collected(piece, spy, text(), 0, temperature=0.0)) or spy.given:
        fail(
            "With max_new_tokens=0 nothing is yielded, and next_logits is not called.",
            id="tokens-for-zero",
            hint=8,
        )
    if len(collected(piece, NextLogits(), text(1, 1), 3, temperature=0.0)) != 3:
        fail(
            "A single row with a prompt of one token gets 3 tokens for max_new_tokens=3.",
            id="wrong-count",
            hint=8,
        )


@check(
    todo=11,
    needs=(test_loop, test_next_token, test_next_token_generator, test_generator),
    points=2,
    seconds=20,
)
def test_settings_are_passed_on(piece):
    """temperature, top_k, top_p and generator reach next_token"""
    rows = 1500
    ids = torch.zeros(rows, 2, dtype=torch.int64)

    class Same:
        def __call__(self, given):
            return LOGITS.expand(rows, -1).contiguous()

    for options, without in (
        ({"temperature": 0.3}, {}),
        ({"top_k": 2}, {}),
        ({"top_p": 0.5}, {}),
        ({"temperature": 2.0, "top_k": 5, "top_p": 0.6}, {}),
    ):
        drawn = collected(piece, Same(), ids, 1, **options)[0]
        want = chances(LOGITS, **options)[0].double()
        share = torch.bincount(drawn, minlength=len(want)).double() / rows
        if (share - want).abs().max() > bound(len(want), rows) or (share[want == 0] > 0).any():
            plain = chances(LOGITS, **without)[0].double()
            same = (share - plain).abs().max() <= bound(len(want), rows)
            called = f"Called{described(options)}."
            if same:
                fail(KNOWN["settings-not-passed-on"], called)
            fail("generate_tokens does not draw as next_token does.", called, id="wrong-shares")
    spread, seeds = NextLogits(), text(8, 3)
    spread.table = spread.table * 0.1
    first, again = (
        collected(piece, spread, seeds, 6, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    if not torch.equal(first, again):
        fail(
            KNOWN["generator-ignored"],
            "generate_tokens with two generators of one seed writes two texts.",
        )
    other = collected(piece, spread, seeds, 6, generator=torch.Generator().manual_seed(4))
    if torch.equal(first, other):
        fail(
            KNOWN["always-the-same-draw"],
            "Generators with the seeds 3 and 4 write the same 48 tokens.",
        )
    if any(len(set(row.tolist())) == 1 for row in first.T) and all(
        torch.equal(row, first[0]) for row in first
    ):
        fail(KNOWN["always-the-same-draw"], "Every step draws the same tokens.")


@check(todo=11, needs=test_loop, points=2)
def test_seen(piece):
    """The penalty counts what each row has read and written, each token once"""
    ids = text(B, 5, seed=2)
    ids[:, 1] = ids[:, 0]  # a token that occurs twice
    ids[0, 3] = ids[0, 0]
    n = 7
    for seed, shift in ((1, 4.0), (2, -4.0), (3, 0.0), (4, 2.0), (5, 3.0)):
        for penalty in (1.4, 3.0, 0.7):
            got = collected(
                piece,
                NextLogits(seed=seed, shift=shift),
                ids,
                n,
                temperature=0.0,
                repetition_penalty=penalty,
            )
            compare(
                got,
                written(NextLogits(seed=seed, shift=shift), ids, n, repetition_penalty=penalty),
                KNOWN.of("seen"),
                lambda seed=seed, shift=shift, penalty=penalty, **switches: written(
                    NextLogits(seed=seed, shift=shift),
                    ids,
                    n,
                    repetition_penalty=penalty,
                    **switches,
                ),
                what=f"the text with a penalty of {penalty}",
                axes="step B",
            )


# token E ends a text; row 1's prompt holds one
E = 3
SCRIPT = [[5, E, 7, 6, 2, 1], [2, 4, 4, E, 7, 9], [E, 1, 6, E, 5, 8]]
PROMPT = torch.tensor([[1, 2, 4], [E, 6, 1], [7, 7, 2]])


@check(todo=11, needs=test_loop, points=3)
def test_end(piece):
    """A row that meets the end token yields it from then on; all rows' ends end the text"""
    n = 6
    script = Script(SCRIPT, 3)
    got = collected(piece, script, PROMPT, n, temperature=0.0, eos_token_id=E)
    want = written(Script(SCRIPT, 3), PROMPT, n, eos=E)
    if torch.equal(got, want[:-1]):
        fail(KNOWN["end-token-swallowed"], f"Yielded: {got.tolist()}, expected {want.tolist()}.")
    compare(
        got,
        want,
        KNOWN.of("end"),
        lambda **switches: written(Script(SCRIPT, 3), PROMPT, n, eos=E, **switches),
        what="the text with an end token",
        axes="step B",
    )
    if script.calls > len(want):
        fail(
            KNOWN["called-too-often"],
            f"All rows have ended after {len(want)} tokens, and next_logits was called {script.calls} times.",
        )
    for row, prompt in zip(SCRIPT, PROMPT, strict=True):  # each row by itself
        got = collected(piece, Script([row], 3), prompt[None], n, temperature=0.0, eos_token_id=E)
        found, wanted = got[:, 0].tolist(), row[: row.index(E) + 1]
        if found != wanted:
            details = f"A single row writes {found}, expected {wanted}."
            if found == wanted[:-1]:
                fail(KNOWN["end-token-swallowed"], details)
            fail(details, id="wrong-end", hint=9)


@check(todo=11, needs=test_end)
def test_end_token_zero(piece):
    """The end token may have the id 0, and without one nothing ends the text"""
    script = [[0 if token == E else token for token in row] for row in SCRIPT]
    got = collected(piece, Script(script, 3), PROMPT, 6, temperature=0.0, eos_token_id=0)
    if len(got) == 6:
        fail(KNOWN["end-token-zero-ignored"], f"Yielded: {got.tolist()}.")
    want = written(Script(script, 3), PROMPT, 6, eos=0)
    if not torch.equal(got, want):
        fail(
            f"With the end token 0 the text is {got.tolist()}, expected {want.tolist()}.",
            id="wrong-end",
            hint=9,
        )
    got = collected(piece, Script(script, 3), PROMPT, 6, temperature=0.0)
    if got.tolist() != [list(step) for step in zip(*script, strict=True)]:
        fail(
            f"Without an end token all 6 tokens of each row are yielded, as they are chosen; yours: {got.tolist()}.",
            id="ends-without-end",
            hint=9,
        )


@check(todo=11, needs=(test_loop, test_end, test_next_token), follows=test_seen)
def test_nothing_is_changed(piece):
    """Prompt, logits and what was yielded stay as they are"""
    ids = text(seed=4)
    before = ids.clone()

    class Kept:
        """Gives the same tensor again and again, as a compiled model does."""

        def __init__(self):
            self.logits = scores(B, V, seed=11)

        def __call__(self, given):
            return self.logits

    kept = Kept()
    plain = kept.logits.clone()
    options = {
        "top_k": 4,
        "top_p": 0.9,
        "repetition_penalty": 1.5,
        "temperature": 0.7,
        "eos_token_id": 1,
    }
    steps = collected(piece, kept, ids, 4, **options)
    if not torch.equal(kept.logits, plain):
        fail(
            "The logits that next_logits gives are changed in place; a model may give the same memory again.",
            id="edits-logits",
            hint=7,
        )
    if not torch.equal(ids, before):
        fail(KNOWN["edits-ids"])
    if len(steps) and bool(((steps < 0) | (steps >= V)).any()):
        fail(f"There are {V} tokens, and {steps.tolist()} are yielded.", id="no-such-token")
