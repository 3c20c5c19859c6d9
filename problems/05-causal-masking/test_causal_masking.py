"""Checks of problem 05. The oracle is PyTorch's own nn.MultiheadAttention with a mask."""

import itertools
import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import (
    CheckFailed,
    attribute,
    check,
    compare,
    expect_dropout,
    expect_error,
    expect_finite_gradients,
    expect_mode_kept,
    expect_module,
    expect_no_memory,
    expect_one_device,
    expect_signature,
    expect_state,
    fail,
    fill,
    sizes_from,
    tensor,
    weights,
)
from learn_gpt2.checking.recurring import Recurring
from learn_gpt2.checking.textbook import keep, merge, multi_head, split

# Sizes that all differ, so that a swapped axis can't hide, and no root of a size is a whole number,
# so that 2·√D is not √C; P is n_positions.
B, T, H, D, P = sizes_from((2, 7, 5, 6, 11), (3, 7, 4, 9, 13), (2, 7, 3, 10, 12))
C = H * D
NAMES = ("c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias")


KNOWN = known(__file__)
# Without a cache T = S, so what differs only with a past can't be behind it.
MISTAKES = KNOWN.of("mask", "forward")
# test_cache_result_is_used tells a result that is ignored from a mask that hides the past.
CACHED = [
    *KNOWN.of("result", "past", without=("cache-result-ignored",)),
    *(m for m in KNOWN.of("mask") if "mask" in m.switches),  # which positions may be seen
    *KNOWN.of("forward"),
]
WORDS = ("query", "key", "value")


# ── helpers ─────────────────────────────────────────────────────────────────────────────────────


class Spy:
    """One layer's cache that does what the contract says, and writes down what it is given."""

    def __init__(self, change_keys=None, change_values=None):
        self.calls = []
        self.stored = None
        self.change = (change_keys, change_values)

    @property
    def length(self):
        return 0 if self.stored is None else self.stored[0].size(2)

    def append(self, k, v):
        self.calls.append(tuple(t.clone() if isinstance(t, Tensor) else t for t in (k, v)))
        self.stored, pair = keep(self.stored, k.detach(), v.detach())
        return tuple(f(t) if f else t for f, t in zip(self.change, pair, strict=True))


def module_of(piece, n_embd=C, n_head=H, n_positions=P, dropout=0.1, attn_dropout=None, seed=0):
    """A module in eval mode with random weights and biases."""
    made = piece.CausalMultiHeadAttention(n_embd, n_head, n_positions, dropout, attn_dropout)
    return fill(made, seed).eval()


def stream(b=B, t=T, c=C, seed=0, dtype=torch.float32):
    """Random x (b, t, c)."""
    g = torch.Generator().manual_seed(200 + seed)
    return torch.randn(b, t, c, generator=g).to(dtype)


def oracle(w, h, x):
    """PyTorch's own multi-head attention with these weights and a mask: x → output."""
    theirs = nn.MultiheadAttention(x.size(-1), h, batch_first=True).to(x.dtype).eval()
    names = ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    theirs.load_state_dict({new: w[old] for new, old in zip(names, NAMES, strict=True)})
    future = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)  # True = may not attend
    return theirs(x, x, x, attn_mask=future, need_weights=False)[0]


def named_errors(run, t, s):
    """run(), with what a wrong mask for (t, s) or a wrong limit raises named."""
    try:
        return run()
    except TypeError as error:
        if "operator.invert" in str(error):
            fail(KNOWN["mask-not-bool"], f"PyTorch says: {str(error).splitlines()[0][:150]}")
        raise
    except ValueError as error:
        if "unpack" in str(error):
            raise
        fail(
            KNOWN["limit-too-strict"],
            f"With T = {t} new and S = {s} tokens in all: ValueError: {error}",
        )
    except (RuntimeError, IndexError) as error:
        if isinstance(error, NotImplementedError):
            raise
        if "boolean mask" in str(error):
            fail(KNOWN["mask-not-bool"], f"PyTorch says: {str(error).splitlines()[0][:150]}")
        sizes = {int(n) for n in re.findall(r"\d+", str(error))}
        shapes = re.search(r"must match|expanded size|broadcast|shape of the mask", str(error))
        if shapes and P in sizes and sizes & {t, s}:
            fail(KNOWN["mask-not-cut"], f"PyTorch says: {str(error).splitlines()[0][:150]}")
        if shapes and t != s and {t, s} <= sizes:
            fail(
                KNOWN["mask-ignores-past:error"],
                f"PyTorch says: {str(error).splitlines()[0][:150]}",
            )
        raise


def explained(compared, run, x):
    """What compare returns; when it can't name a mistake, who sees whom may tell more."""
    try:
        return compared()
    except CheckFailed as failed:
        if failed.mistakes:
            raise
        with torch.no_grad():
            base = run(x)
            if base.shape != x.shape:
                raise
            lost = torch.isnan(base).all(-1).any(0).nonzero().flatten().tolist()
            if lost:
                fail(KNOWN["row-without-keys"], f"Output {lost[0]} is NaN.")
            for j in range(x.size(1)):
                other = x.clone()
                other[:, j] += 1.0
                moved = (run(other) - base).abs().amax((0, 2)) > 1e-5
                for i in range(x.size(1)):
                    if moved[i] and j > i:
                        fail(KNOWN["sees-the-future"], f"Output {i} changes when token {j} does.")
                    if not moved[i] and j <= i:
                        fail(
                            KNOWN["blocks-itself"] if i == j else KNOWN["past-lost"],
                            f"Output {i} stays the same when token {j} changes.",
                        )
        raise


def examine(module, x, h, **tolerance):
    """Compare forward without a cache with PyTorch's on the same weights."""
    w = weights(module)
    with torch.no_grad():
        want = oracle(w, h, x)

    def run(x):
        return named_errors(lambda: module(x), x.size(1), x.size(1))

    return explained(
        lambda: compare(
            lambda: run(x),
            want,
            MISTAKES,
            lambda **switches: multi_head(x, w, h, **switches),
            axes="B T C",
            sizes={"head_dim": x.size(-1) // h, "n_embd": x.size(-1), "n_head": h},
            given=(x,),
            **tolerance,
        ),
        run,
        x,
    )


def fed(module, x, cuts, cache):
    """The outputs for x, fed in pieces of these sizes."""
    outputs, past = [], 0
    for piece in x.split(list(cuts), 1):
        t = piece.size(1)
        outputs.append(tensor(named_errors(lambda p=piece: module(p, cache=cache), t, past + t)))
        past += t
    return torch.cat(outputs, 1)


def examine_fed(module, x, h, cuts, make_cache=Spy, what=None, want=None):
    """Compare the outputs for x in pieces with those for the whole of x."""
    w = weights(module)
    with torch.no_grad():
        want = oracle(w, h, x) if want is None else want
        return explained(
            lambda: compare(
                lambda: fed(module, x, cuts, make_cache()),
                want,
                CACHED,
                lambda **switches: multi_head(x, w, h, cuts, **switches),
                axes="B T C",
                what=what
                or f"with a cache and pieces of {', '.join(map(str, cuts))} tokens the output",
            ),
            lambda x: fed(module, x, cuts, make_cache()),
            x,
        )


def heads_of(module, x):
    """q, k and v (B, H, T, D), computed by hand."""
    w = weights(module)
    return [split(t, H) for t in F.linear(x, w["c_attn.weight"], w["c_attn.bias"]).chunk(3, -1)]


def examine_call(call, q, k, v, past):
    """Check what append was given."""
    for name, got, want in (("keys", call[0], k), ("values", call[1], v)):
        tensor(got, f"what append is given as {name}")
        b, h, t, d = want.shape
        if got.dim() == 3:
            fail(KNOWN["cache-stores-unsplit"], f"The {name} have shape {tuple(got.shape)}.")
        if past and got.dim() == 4 and got.size(2) == past + t:
            fail(
                KNOWN["cache-stores-seen-again"],
                f"The {name} have shape {tuple(got.shape)} with {t} new token(s).",
            )
        if got.shape != want.shape:
            fail(
                KNOWN["cache-axes-swapped"]
                if sorted(got.shape) == sorted(want.shape)
                else KNOWN["cache-stores-something-else"],
                f"The {name} have shape {tuple(got.shape)}, not (B, H, T, D) = {(b, h, t, d)}.",
            )

    def same(a, b):
        return torch.allclose(a, b, rtol=1e-4, atol=1e-5)

    if same(call[0], k) and same(call[1], v):
        return
    if same(call[0], v) and same(call[1], k):
        fail(KNOWN["cache-stores-swapped"])
    if same(call[0], q) or same(call[1], q):
        fail(KNOWN["cache-stores-queries"])
    if same(call[0], call[1]):
        fail(KNOWN["cache-stores-one-twice"])
    fail(KNOWN["cache-stores-something-else"])


def outcome(run):
    """What running raises: None, or the error."""
    try:
        with torch.no_grad():
            run()
    except NotImplementedError:
        raise
    except Exception as error:
        return error
    return None


def raised_by(piece, error):
    """Whether the learner's own file raised it, on purpose (a failed assert, too)."""
    trace = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    here = trace.tb_frame.f_code.co_filename == str(piece.path)
    line = piece.path.read_text(encoding="utf-8").splitlines()[trace.tb_lineno - 1] if here else ""
    return here and re.search(r"\b(raise|assert)\b", line) is not None


def transplanted(module, **values):
    """Set parameters by name."""
    with torch.no_grad():
        for name, value in values.items():
            module.get_parameter(name.replace("__", ".")).copy_(value)
    return module


# ── checks ──────────────────────────────────────────────────────────────────────────────────────


@check(todo=1)
def test_builds(piece):
    """It is a MultiHeadAttention with the contract's arguments, and no mask in state_dict()"""
    from gpt2.model import ScaledDotProductAttention

    try:
        made = piece.CausalMultiHeadAttention(n_embd=C, n_head=H, n_positions=P, dropout=0.3)
    except ValueError as error:
        fail(KNOWN["parent-arguments-mixed-up"], f"ValueError: {error}")
    expect_module(made)
    expect_signature(
        piece.CausalMultiHeadAttention.__init__,
        "(n_embd, n_head, n_positions, dropout=0.1, attn_dropout=None)",
        "CausalMultiHeadAttention",
    )
    expect_signature(
        piece.CausalMultiHeadAttention.forward,
        "(x, cache=None)",
        "CausalMultiHeadAttention.forward",
    )
    if not any(c.__name__ == "MultiHeadAttention" for c in type(made).__mro__):
        fail(KNOWN["not-a-multi-head-attention"])
    if "_parameters" not in vars(made):
        fail(KNOWN["super-init-missing"])
    why = "it is inherited from problem 04"
    for name, kind, want in (("n_head", int, H), ("head_dim", int, D)):
        if attribute(made, name, kind, why) != want:
            fail(
                f"{name} is {getattr(made, name)}, expected {want}.",
                id=f"wrong-{name.replace(chr(95), chr(45))}",
                hint=1,
            )
    for name, kind in (
        ("c_attn", nn.Linear),
        ("c_proj", nn.Linear),
        ("attention", (ScaledDotProductAttention, nn.Module)),
        ("resid_dropout", nn.Dropout),
    ):
        attribute(made, name, kind, why)
    for linear in ("c_attn", "c_proj"):
        if getattr(made, linear).bias is None:
            fail(KNOWN["bias-missing:attribute"], f"{linear} was made with bias=False.")
    known = dict(made.named_parameters())
    for name, value in (*made.state_dict().items(), *known.items()):
        square = value.dim() > 1 and value.size(-1) == value.size(-2) != C
        if name not in NAMES and (square or P in value.shape):
            fail(
                KNOWN["mask-is-a-parameter"] if name in known else KNOWN["mask-in-state-dict"],
                f"It is called {name!r}.",
            )
    expect_state(made, NAMES)
    if made.resid_dropout.p != 0.3:
        fail(
            KNOWN["dropout-not-passed-on"],
            f"resid_dropout.p is {made.resid_dropout.p}, with dropout=0.3.",
        )
    if piece.CausalMultiHeadAttention(C, H, P, 0.3, 0.7).resid_dropout.p != 0.3:
        fail(KNOWN["dropouts-swapped"])
    expect_error(
        lambda: piece.CausalMultiHeadAttention(46, 9, P), (46, 9), when="n_embd = 46 and n_head = 9"
    )


@check(todo=6, needs=test_builds, points=3)
def test_output(piece):
    """Without a cache the output equals PyTorch's with a causal mask"""
    examine(module_of(piece), stream(), H)


@check(todo=6, needs=test_output)
def test_worked_example(piece):
    """Running averages, by hand: x = 6, 0, 3 gives 6, 3, 3"""
    # c_attn makes q = k = 0, so every allowed token gets the same weight, and v = x.
    module = transplanted(
        module_of(piece, 1, 1, 5),
        c_attn__weight=torch.tensor([[0.0], [0.0], [1.0]]),
        c_attn__bias=torch.zeros(3),
        c_proj__weight=torch.eye(1),
        c_proj__bias=torch.zeros(1),
    )
    x = torch.tensor([[[6.0], [0.0], [3.0]]])
    want = torch.tensor([[[6.0], [3.0], [3.0]]])
    compare(lambda: named_errors(lambda: module(x), 3, 3), want, axes="B T C")


@check(todo=6, needs=test_output, points=2)
def test_causality(piece):
    """The Jacobian is zero above the diagonal, and nowhere else: no look-ahead, no blind spot"""
    module = module_of(piece)
    x = stream(1, seed=1).requires_grad_()
    direction = stream(1, seed=2)[0, 0]
    output = tensor(module(x))
    if not output.requires_grad:
        fail("No gradient flows from the output to the input.", id="no-gradient")
    rows = [
        torch.autograd.grad(output[0, i] @ direction, x, retain_graph=True)[0][0].abs().amax(-1)
        for i in range(T)
    ]
    effect = torch.stack(rows)  # (T outputs, T inputs)
    moved = effect > 1e-6 * effect.max()  # what is smaller is rounding
    for i, j in itertools.product(range(T), range(T)):
        if j <= i and not moved[i, j]:
            with torch.no_grad():
                other = x.clone()
                other[:, j] += 1.0
                depends = not torch.allclose(module(other)[:, i], output[:, i], atol=1e-5)
            if depends:
                fail(
                    f"Output {i} depends on input {j}, and no gradient flows back from it: "
                    "something is detached (detach, .data, no_grad).",
                    id="no-gradient",
                )
        if moved[i, j] != (j <= i):
            says = "depends on" if moved[i, j] else "does not depend on"
            which = (
                KNOWN["sees-the-future"]
                if j > i
                else KNOWN["blocks-itself"]
                if i == j
                else KNOWN["past-lost"]
            )
            fail(which, f"Output {i} {says} input {j}.")


@check(todo=6, needs=test_output)
def test_other_sizes(piece):
    """One token, exactly n_positions tokens, other widths, and more than GPT-2's 1024"""
    for b, t, h, d, p in ((1, 1, 2, 3, 1), (3, 6, 5, 2, 6), (4, 1, 3, 2, 8), (1, 3, 1, 4, 11)):
        module = module_of(piece, h * d, h, p, seed=t)
        x = stream(b, t, h * d, seed=t)
        error = outcome(lambda module=module, x=x: module(x))
        if t == p and isinstance(error, ValueError):
            fail(
                KNOWN["limit-too-strict"],
                f"With T = n_positions = {p} it raises ValueError: {error}",
            )
        examine(module, x, h)
    long = module_of(piece, 2, 1, 1030)
    error = outcome(lambda: long(stream(1, 1030, 2)))
    if error:
        first = f"{type(error).__name__}: {error}".splitlines()[0][:150]
        fail(KNOWN["size-hard-coded"], f"With T = n_positions = 1030: {first}")


@check(todo=6, needs=test_output, follows=test_other_sizes)
def test_mask_against_large_scores(piece):
    """The mask holds when scores are in the tens of thousands, and nothing becomes NaN"""
    module = transplanted(
        module_of(piece, 2, 1, 5),
        c_attn__weight=torch.tensor([[-1.0, 0], [0, 0], [1.0, 0], [0, 0], [0, 1.0], [0, 0]]),
        c_attn__bias=torch.zeros(6),
        c_proj__weight=torch.eye(2),
        c_proj__bias=torch.zeros(2),
    )
    # Token i has key 300·(i + 1), the opposite as query, and value i: every allowed score is below
    # −63,000, so a blocked score that is higher would win.
    x = torch.stack((torch.arange(1.0, 6) * 300, torch.arange(5.0)), -1)[None]
    got = tensor(module(x)).detach()
    if not torch.isfinite(got).all():
        fail("With large scores the output holds NaN or infinite numbers.", id="not-finite")
    if (got[0, :, 0] > torch.arange(5.0) + 1e-3).any():
        fail(KNOWN["mask-finite"])
    # and with queries of the keys' sign: every blocked score lies far above the allowed ones
    with torch.no_grad():
        module.c_attn.weight[0, 0] = 1.0
    got = tensor(module(x)).detach()
    if not torch.isfinite(got).all():
        late = multi_head(
            x, weights(module), 1, **KNOWN["mask-after-softmax:renormalized"].switches
        )
        if torch.equal(torch.isfinite(got), torch.isfinite(late)):
            fail(KNOWN["mask-after-softmax:renormalized"], "With large scores whole rows are NaN.")
        fail("With large scores the output holds NaN or infinite numbers.", id="not-finite")
    compare(
        got[0, :, 0],
        torch.arange(5.0),
        what="with large scores the output, which is each token's own value,",
        axes="T",
    )


@check(todo=6, needs=test_output, follows=test_other_sizes)
def test_too_long(piece):
    """More than n_positions tokens are a ValueError, exactly n_positions are not"""
    module = module_of(piece)
    at, over, further = (outcome(lambda n=n: module(stream(1, n))) for n in (P, P + 1, P + 2))
    if at is not None:
        fail(KNOWN["limit-too-strict"], f"With T = n_positions = {P}: {type(at).__name__}: {at}")
    if over is None:
        late = isinstance(further, ValueError)
        fail(
            KNOWN["limit-off-by-one"] if late else KNOWN["limit-missing"],
            f"T = {P + 1}, n_positions = {P}.",
        )
    if not isinstance(over, ValueError) and not raised_by(piece, over):
        first = f"{type(over).__name__}: {over}".splitlines()[0][:150]
        late = isinstance(further, ValueError)
        which = KNOWN["limit-off-by-one"] if late else KNOWN["limit-missing"]
        fail(which, f"T = {P + 1}, n_positions = {P}: PyTorch says {first}")
    expect_error(
        lambda: module(stream(1, P + 1)),
        (),
        when=f"T = {P + 1} and n_positions = {P}",
        missing=KNOWN["limit-missing"],
    )


@check(todo=6, needs=test_output, points=2)
def test_cache_is_given_the_new(piece):
    """append is called once per forward, with the new keys and values (B, H, T, D) alone"""
    module, x, past = module_of(piece), stream(seed=3), 3
    cache = Spy()
    for start, end in ((0, past), (past, past + 1)):
        piece_of_x = x[:, start:end]
        before = len(cache.calls)
        error = outcome(lambda p=piece_of_x: module(p, cache=cache))
        calls = cache.calls[before:]
        if calls:
            q, k, v = heads_of(module, piece_of_x)
            examine_call(calls[0], q, k, v, start)
        if len(calls) > 1:
            fail(KNOWN["cache-appended-twice"], f"{len(calls)} calls in one forward.")
        for kept, given in zip(cache.stored or (), zip(*cache.calls, strict=True), strict=False):
            if not torch.equal(kept, torch.cat(given, 2)):
                fail(KNOWN["cache-edited"])
        if error is not None and calls and start == 0:
            raise error
        if not calls:
            details = [f"It raises {type(error).__name__}: {error}"[:200]] if error else []
            fail(KNOWN["cache-never-appended"], *details)


@check(todo=6, needs=test_cache_is_given_the_new)
def test_cache_result_is_used(piece):
    """The keys and the values that append returns are those attended to"""
    module, x = module_of(piece), stream(t=3, seed=4)
    examine_fed(module, x, H, [3], what="with an empty cache the output")
    w = weights(module)
    q, k, v = heads_of(module, x)

    def change(t):
        return t.flip(0) * 0.7 + 0.4

    unused = []
    for name, change_k, change_v in (("keys", change, None), ("values", None, change)):
        with torch.no_grad():
            got = tensor(module(x, cache=Spy(change_k, change_v)))
            plain = tensor(module(x))
        if torch.allclose(got, plain, atol=1e-5):
            unused.append(name)
            continue
        y = F.scaled_dot_product_attention(
            q, change_k(k) if change_k else k, change_v(v) if change_v else v, is_causal=True
        )
        want = F.linear(merge(y), w["c_proj.weight"], w["c_proj.bias"])
        compare(got, want, what=f"the output for a cache that returns other {name}", axes="B T C")
    if unused == ["keys", "values"]:
        fail(KNOWN["cache-result-ignored"])
    if unused:
        fail(KNOWN["cached-keys-ignored"] if unused == ["keys"] else KNOWN["cached-values-ignored"])


@check(todo=6, needs=test_cache_result_is_used)
def test_keeps_nothing(piece):
    """A call does not depend on the calls before it, of other lengths and with other pasts"""
    streams = {t: stream(t=t, seed=t) for t in (5, 3, 7, 4, 6)}
    whole = [lambda m, t=t: tensor(m(streams[t])) for t in (5, 3, 6)]
    pieces = [
        lambda m, cuts=cuts: fed(m, streams[sum(cuts)], cuts, Spy())
        for cuts in ((4, 3), (1, 3), (3, 4))
    ]
    calls = [*whole[:2], *pieces, whole[2]]
    expect_no_memory(module_of(piece), calls, explain=KNOWN["state-kept-in-module"])


@check(todo=6, needs=test_cache_result_is_used, points=2, follows=test_keeps_nothing)
def test_cache_token_by_token(piece):
    """The whole prompt at once, or one token at a time: the same as without a cache"""
    module, x = module_of(piece), stream(seed=5)
    examine_fed(module, x, H, [T])
    examine_fed(module, x, H, [1] * T)


@check(
    todo=6,
    needs=test_cache_result_is_used,
    points=2,
    follows=(test_cache_token_by_token, test_keeps_nothing),
)
def test_cache_past_and_piece(piece):
    """A piece of several tokens after a past: the T queries are the last T of S positions"""
    module, x = module_of(piece), stream(seed=6)
    for cuts in ((4, 3), (2, 5), (5, 2), (1, 6)):
        examine_fed(module, x, H, cuts)


@check(todo=6, needs=(test_cache_token_by_token, test_cache_past_and_piece), points=2)
def test_cache_every_cut(piece):
    """All 32 ways of cutting six tokens into pieces give the same"""
    module, x = module_of(piece, seed=1), stream(3, 6, seed=7)
    with torch.no_grad():
        want = oracle(weights(module), H, x)
    for walls in itertools.product((False, True), repeat=5):
        ends = [i + 1 for i, wall in enumerate(walls) if wall] + [6]
        cuts = [b - a for a, b in zip([0, *ends], ends, strict=False)]
        examine_fed(module, x, H, cuts, want=want)


@check(todo=6, needs=(test_too_long, test_cache_token_by_token), follows=test_cache_past_and_piece)
def test_cache_too_long(piece):
    """With a cache it is S = past + T that must not exceed n_positions"""
    module = module_of(piece)

    def after(past, new):
        cache = Spy()
        for start in range(0, past, 3):
            module(stream(1, min(3, past - start)), cache)
        return outcome(lambda: module(stream(1, new), cache))

    for past, new in ((P - 1, 1), (P - 2, 2), (3, P - 3)):
        error = after(past, new)
        if error is not None:
            fail(
                KNOWN["limit-too-strict"],
                f"past {past} + {new} new = n_positions = {P}: {type(error).__name__}: {error}",
            )
    for past, new in ((P, 1), (P - 1, 2), (3, P - 1)):
        error = after(past, new)
        if error is None:
            later = after(past, new + 1)
            fail(
                KNOWN["limit-off-by-one"]
                if later is not None and new + 1 <= P
                else KNOWN["limit-ignores-past"],
                f"past {past} + {new} new tokens are accepted, with n_positions = {P}.",
            )

        if not isinstance(error, ValueError) and not raised_by(piece, error):
            first = f"{type(error).__name__}: {error}".splitlines()[0][:150]
            fail(
                KNOWN["limit-ignores-past"], f"past {past} + {new} new tokens: PyTorch says {first}"
            )

        def again(error=error):
            raise error

        expect_error(again, (), when=f"past {past} + {new} new tokens > n_positions = {P}")


@check(todo=6, needs=test_cache_every_cut)
def test_kv_cache(piece):
    """It works with the course's own gpt2.cache.KVCache, layer by layer"""
    from types import SimpleNamespace

    from gpt2.cache import KVCache

    config = SimpleNamespace(n_layer=2, n_head=H, head_dim=D, n_positions=P, n_embd=C)
    cache = KVCache(config, batch_size=B)
    layers = [module_of(piece, seed=seed) for seed in (1, 2)]
    x = stream(seed=8)
    for module, layer in zip(layers, cache.layers, strict=True):
        examine_fed(module, x, H, (3, 1, 2, 1), lambda layer=layer: layer)
        layer.length = 0  # compare may run it again
        examine_fed(module, x, H, (1, 4, 2), lambda layer=layer: layer)
    if cache.length != T:
        fail(f"The cache holds {cache.length} tokens after {T}.", id="cache-length")


@check(todo=6, needs=test_cache_token_by_token, follows=test_keeps_nothing)
def test_keeps_no_state(piece):
    """Two caches in turn, and calls without one, don't disturb each other"""
    module = module_of(piece)
    one, two = stream(seed=9), stream(seed=10)
    with torch.no_grad():
        wants = [module(one), module(two)]
        caches, outputs = (Spy(), Spy()), ([], [])
        for t in range(T):
            for x, cache, out in zip((one, two), caches, outputs, strict=True):
                out.append(tensor(module(x[:, t : t + 1], cache)))
                module(x)
        again = module(one)
    for want, out in zip(
        (*wants, wants[0]), (*(torch.cat(o, 1) for o in outputs), again), strict=True
    ):
        if not torch.allclose(out, want, rtol=1e-3, atol=1e-4):
            fail(KNOWN["state-kept-in-module"])


@check(
    todo=6,
    needs=test_output,
    points=2,
    follows=(test_mask_against_large_scores, test_cache_token_by_token, test_cache_past_and_piece),
)
def test_dropout(piece):
    """`dropout` acts last, on the output; `attn_dropout` acts on the weights; none in eval mode"""
    x = stream(4, seed=11)
    module = module_of(piece, dropout=0.0, attn_dropout=0.0)
    expect_mode_kept(module, lambda: module(x))
    if torch.equal(module.train()(x), module(x)):
        examine(module, x, H)
    bias = weights(module_of(piece))["c_proj.bias"]

    def kind(dropout, attn_dropout):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        plain = module(x)
        if not torch.equal(module(x), plain):
            fail(KNOWN["dropout-in-eval"])
        got = tensor(module.train()(x)).detach()
        if not got.any():
            return "zero"
        if torch.allclose(got, bias.expand_as(got), atol=1e-5):
            return "bias"
        return "plain" if torch.allclose(got, plain, atol=1e-5) else "other"

    output, inner = kind(1.0, 0.0), kind(0.0, 1.0)
    if (output, inner) == ("bias", "zero"):
        fail(KNOWN["dropouts-swapped"])
    if inner == "zero":
        fail(
            KNOWN["attn-dropout-on-output"],
            "With dropout=0 and attn_dropout=1, in training, all is 0.",
        )
    if output == "plain":
        fail(
            KNOWN["resid-dropout-missing"],
            "With dropout=1 nothing changes in training; all must be 0.",
        )
    if output == "bias":
        fail(
            KNOWN["dropout-before-c-proj"],
            "With dropout=1, in training, c_proj's bias is left; all must be 0.",
        )
    if output != "zero":
        fail(KNOWN["dropout-misplaced"], "With dropout=1, in training, the output must be all 0.")
    p = 0.4
    module = module_of(piece, dropout=p, attn_dropout=0.0)
    plain = module(x).detach()
    got = module.train()(x).detach()
    kept = got.abs() > 1e-6
    whole = torch.allclose(got[kept], plain[kept] / (1 - p), rtol=1e-3, atol=1e-5)
    if inner == "plain":
        fail(
            KNOWN["attn-dropout-missing"] if whole else KNOWN["attn-dropout-ignored"],
            "attn_dropout=1 changes nothing in training.",
        )
    if inner == "other":
        module = module_of(piece, dropout=0.0, attn_dropout=1.0).train()
        if torch.equal(module(x), module(x)):
            fail(KNOWN["attn-dropout-on-scores"])
        fail(
            KNOWN["attn-dropout-rate"],
            "With dropout=0 and attn_dropout=1, in training, some weights are left.",
        )
    if not whole and torch.allclose(got[kept], plain[kept] / (1 - p) ** 2, rtol=1e-3, atol=1e-5):
        fail(KNOWN["dropout-twice"])
    if not whole and kind(0.0, 0.0) == "plain" and kind(1e-9, 0.0) == "plain":
        fail(
            KNOWN["attn-dropout-zero-ignored"],
            f"With dropout={p} and attn_dropout=0, some weights are dropped.",
        )
    expect_dropout(
        lambda: module(x),
        module,
        p,
        missing=KNOWN["resid-dropout-missing"],
        in_eval=KNOWN["dropout-in-eval"],
        misplaced=KNOWN["dropout-misplaced"],
    )
    # With one token a head's only weight is 1, so dropout on it kills or scales the whole head.
    for dropout, attn_dropout, rate in ((0.0, p, p), (p, None, p), (0.2, 0.6, 0.6)):
        module = module_of(piece, dropout=dropout, attn_dropout=attn_dropout)
        transplanted(module, c_proj__weight=torch.eye(C), c_proj__bias=torch.zeros(C))
        one = stream(400, 1, seed=12)
        ratio = (module.train()(one).detach() / module.eval()(one).detach()).view(400, H, D)
        if dropout == 0 and not torch.allclose(ratio, ratio[..., :1].expand_as(ratio), rtol=1e-3):
            fail(KNOWN["attn-dropout-on-values"])
        killed = float((ratio == 0).all(-1).double().mean())
        if abs(killed - rate) > 0.08:
            fail(
                KNOWN["attn-dropout-rate"],
                f"With dropout={dropout} and attn_dropout={attn_dropout}, {killed:.0%} of the "
                f"weights are dropped, expected {rate:.0%}.",
            )


@check(todo=6, needs=(test_dropout, test_cache_past_and_piece))
def test_no_dropout(piece):
    """dropout=0 changes nothing in training, with a cache or without"""
    module, x = module_of(piece, dropout=0.0, attn_dropout=0.0, seed=2), stream(seed=16)
    expect_mode_kept(module, lambda: (module(x), fed(module, x, (4, 3), Spy())))
    examine(module.train(), x, H)
    examine_fed(module.train(), x, H, (4, 3), what="in training, with dropout=0, the output")


@check(todo=6, needs=test_output, follows=(test_causality, test_dropout))
def test_gradients(piece):
    """Gradients reach every weight, and the input, through queries, keys and values"""
    module = fill(piece.CausalMultiHeadAttention(C, H, P, 0.0), scale=0.2)
    w = {n: t.requires_grad_() for n, t in weights(module).items()}
    mine, other = stream(seed=13).requires_grad_(), stream(seed=13).requires_grad_()
    expect_finite_gradients(module, tensor(module(mine)).pow(2).mean())
    multi_head(other, w, H).pow(2).mean().backward()
    for name, third in zip(WORDS, module.c_attn.weight.grad.split(C), strict=True):
        if not third.any():
            fail(f"No gradient reaches c_attn's part for the {name}.", id="no-gradient")
    for name, parameter in module.named_parameters():
        compare(parameter.grad, w[name].grad, what=f"{name}'s gradient")
    compare(mine.grad, other.grad, what="the gradient of the input")


@check(todo=6, needs=(test_output, test_cache_token_by_token), follows=test_cache_past_and_piece)
def test_dtype_and_device(piece):
    """Every float dtype stays what it is, and nothing is made on a fixed device"""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)):
        module = fill(piece.CausalMultiHeadAttention(C, H, P), scale=0.3).eval().to(dtype)
        x = stream(seed=14, dtype=dtype)
        want = oracle({n: t.double() for n, t in weights(module).items()}, H, x.double())
        try:
            with torch.no_grad():
                outputs = tensor(module(x)), fed(module, x, (3, 4), Spy())
        except RuntimeError as error:
            if "without overflow" in str(error):
                fail(KNOWN["mask-finite:half-precision"], f"PyTorch says: {error}")
            raise
        with torch.no_grad():
            for got in outputs:
                if got.dtype != dtype:
                    fail(f"With {dtype} input the output is {got.dtype}.", id="fixed-dtype")
                compare(
                    got.double(),
                    want,
                    what=f"the output in {dtype}",
                    rtol=tolerance,
                    atol=2 * tolerance,
                )
    module = module_of(piece)
    expect_one_device(module, lambda m, to: m(to(stream())), hint=3)
    expect_one_device(module, lambda m, to: fed(m, to(stream()), (3, 4), Spy()), hint=3)


test_leaves_no_trace = Recurring(module_of, stream, todo=6, needs=test_output).copies(
    "The input stays as it was, and a copy or a saved module gives the same",
    seed=15,
    untouched="the input",
    name="test_leaves_no_trace",
)
