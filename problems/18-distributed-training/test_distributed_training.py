"""Checks for problem 18. The ranks are threads; the oracle is one process on the whole batch."""

import threading

import torch
from torch import nn

from learn_gpt2.checking.catalog import known
from learn_gpt2.checking.checks import check, expect_error, fail, sizes_from, tensor

KNOWN = known(__file__)
N_IN, N_MID, N_OUT = sizes_from(
    (5, 7, 3), (4, 6, 2), (6, 9, 4)
)  # widths of the model: in, middle, out
BIG = 25 * 2**20
PATIENCE = 10  # seconds; ranks that all wait are found at once, so this is for one that sleeps


# ── ranks ───────────────────────────────────────────────────────────────────────────────────────


class Stuck(Exception):
    """A rank would wait forever."""


class Room:
    """Where ranks meet: their i-th collectives belong together."""

    def __init__(self, size):
        self.size = size
        self.lock = threading.Condition()
        self.calls = {}  # number of the collective → {rank: (kind, numbers)}
        self.made = [0] * size
        self.waits = {}  # rank → the number of the collective that it waits for
        self.done = set()
        self.hang = self.mixed = ""

    def enter(self, rank, kind, numbers):
        """A rank begins a collective; its number."""
        with self.lock:
            number = self.made[rank]
            self.made[rank] += 1
            self.calls.setdefault(number, {})[rank] = (kind, numbers)
            self.lock.notify_all()
        return number

    def meet(self, rank, number):
        """Wait until every rank has begun it; what each brought, by rank."""
        with self.lock:
            self.waits[rank] = number
            while len(self.calls[number]) < self.size and not self.hang:
                idle = self.done | {
                    r for r, n in self.waits.items() if len(self.calls[n]) < self.size
                }
                if len(idle) == self.size or not self.lock.wait(PATIENCE):
                    self._stop(rank, number)
            del self.waits[rank]
            if self.hang:
                raise Stuck(self.hang)
            brought = [self.calls[number][r] for r in range(self.size)]
            if len({(kind, n.numel()) for kind, n in brought}) > 1:
                self.mixed = self.mixed or "; ".join(
                    f"rank {r}: {kind} of {n.numel()} numbers"
                    for r, (kind, n) in enumerate(brought)
                )
                raise Stuck(self.mixed)
            return [n for _, n in brought]

    def _stop(self, rank, number):
        kind, numbers = self.calls[number][rank]
        lacking = [str(r) for r in range(self.size) if r not in self.calls[number]]
        self.hang = (
            f"Rank {rank} waits in its collective number {number + 1}, {kind} of {numbers.numel()} "
            f"numbers, for rank {', '.join(lacking)}."
        )
        self.lock.notify_all()

    def leave(self, rank):
        """A rank has ended."""
        with self.lock:
            self.done.add(rank)
            self.lock.notify_all()


class Comm:
    """What a rank is given. `sent` lists the sizes of its sums, in order."""

    def __init__(self, room, rank):
        self.room, self.rank, self.size = room, rank, room.size
        self.sent = []
        self.broadcasts = 0

    def broadcast(self, tensor, source=0):
        """The source's numbers, in every rank's tensor."""
        self.broadcasts += 1
        number = self.room.enter(self.rank, "broadcast", tensor.detach().clone())
        tensor.detach().copy_(self.room.meet(self.rank, number)[source])

    def all_reduce(self, tensor):
        """Start a sum. Until it is waited for, the tensor's numbers mean nothing."""
        self.sent.append(tensor.numel())
        number = self.room.enter(self.rank, "all_reduce", tensor.detach().clone())
        tensor.detach().fill_(float("nan"))
        return Handle(self.room, self.rank, number, tensor)


class Handle:
    """A sum that is under way."""

    def __init__(self, room, rank, number, tensor):
        self.room, self.rank, self.number, self.tensor = room, rank, number, tensor
        self.arrived = False

    def wait(self):
        """Then the sum stands in the tensor."""
        if not self.arrived:
            parts = self.room.meet(self.rank, self.number)
            total = torch.stack([part.flatten() for part in parts]).sum(0)
            self.tensor.detach().copy_(total.view_as(self.tensor))
            self.arrived = True


def on_ranks(size, run, hang="hang", mixed="messages-mixed-up"):
    """run(rank, comm) in a thread for each rank → (what each gives, their comms)."""
    room = Room(size)
    comms = [Comm(room, r) for r in range(size)]
    found, errors = [None] * size, []

    def one(rank):
        try:
            found[rank] = run(rank, comms[rank])
        except BaseException as error:
            errors.append(error)
        finally:
            room.leave(rank)

    threads = [threading.Thread(target=one, args=(r,), daemon=True) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    own = [e for e in errors if not isinstance(e, Stuck) and "Stuck" not in type(e).__name__]
    stuck = room.hang or room.mixed
    own = [e for e in own if not (stuck and stuck[:40] in str(e))]
    if own:
        raise own[0]
    if room.mixed:
        fail(KNOWN[mixed], room.mixed + ".")
    if room.hang:
        fail(KNOWN[hang], room.hang)
    if len({(tuple(c.sent), c.broadcasts) for c in comms}) > 1:
        lists = "; ".join(f"rank {c.rank}: {c.sent}" for c in comms)
        fail(KNOWN[mixed], f"Numbers in each sum: {lists}.")
    return found, comms


# ── models and oracles ──────────────────────────────────────────────────────────────────────────


def filled(module, seed):
    """Parameters and buffers drawn by a seed of their own."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for t in [*module.parameters(), *module.buffers()]:
            t.copy_(torch.randn(t.shape, generator=g) * 0.5)
    return module


class Net(nn.Module):
    """Three layers, of which the last is not always used, and a buffer."""

    def __init__(self, extra=False):
        super().__init__()
        self.first = nn.Linear(N_IN, N_MID)
        self.second = nn.Linear(N_MID, N_OUT)
        if extra:
            self.extra = nn.Linear(N_IN, N_OUT)
        self.register_buffer("shift", torch.zeros(N_OUT))

    def forward(self, x, use=False, turned=False):
        if use and turned:
            side = self.extra(x)
            return self.second(self.first(x).tanh()) + side + self.shift
        y = self.second(self.first(x).tanh()) + self.shift
        return y + self.extra(x) if use else y


def batch(n, seed=1):
    return torch.randn(n, N_IN, generator=torch.Generator().manual_seed(seed))


def part_of(x, rank, size):
    """A rank's part, by the check's own division."""
    share = len(x) // size
    return x[rank * share : (rank + 1) * share]


def same(a, b):
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def judge(name, got, mean, own, size, where=""):
    """Compare a gradient with the mean over ranks, and name what it is instead."""
    details = f"The gradient of {name} on rank {where}."
    if got is None:
        fail(KNOWN["gradient-stays-none"], details)
    got = tensor(got, f"the gradient of {name}")
    if got.shape != mean.shape:
        fail(
            f"The gradient of {name} has the shape {tuple(got.shape)}, expected "
            f"{tuple(mean.shape)}.",
            id="wrong-shape",
            hint=4,
        )
    if same(got, mean):
        return
    if not torch.isfinite(got).all():
        fail(KNOWN["not-waited-for"], details)
    if same(got, mean * size):
        fail(KNOWN["sum-for-mean"], details)
    if same(got, mean / size):
        fail(KNOWN["divided-twice"], details)
    if own is not None and same(got, own):
        fail(KNOWN["not-averaged"], details)
    fail(KNOWN["wrong-gradient"], details)


# ── shard ───────────────────────────────────────────────────────────────────────────────────────


@check(todo=1, points=2)
def test_shard(piece):
    """Every example goes to exactly one rank"""
    for count, size in ((6, 3), (6, 2), (4, 1), (8, 4)):
        x = torch.arange(count * 2).view(count, 2)
        parts = [tensor(piece.shard(x, r, size), "what shard returns") for r in range(size)]
        if size > 1 and all(torch.equal(p, parts[0]) for p in parts):
            fail(KNOWN["same-shard"], f"{count} examples, {size} ranks.")
        shapes = {tuple(p.shape) for p in parts}
        if shapes != {(count // size, 2)}:
            fail(KNOWN["shard-size-wrong"], f"{count} examples, {size} ranks: {sorted(shapes)}.")
        seen = sorted(row[0] // 2 for p in parts for row in p.tolist())
        if seen != list(range(count)):
            fail(KNOWN["shards-overlap"], f"{count} examples, {size} ranks: they get {seen}.")


@check(todo=1, needs=test_shard)
def test_shard_refuses(piece):
    """A batch that does not divide is a ValueError"""
    for count, size in ((7, 3), (5, 2), (2, 4)):
        expect_error(
            lambda c=count, s=size: piece.shard(torch.zeros(c, 3), 0, s),
            (),
            when=f"there are {count} examples for {size} ranks",
            missing=KNOWN["remainder-accepted"],
        )


# ── broadcast ───────────────────────────────────────────────────────────────────────────────────


def expect_rank_0(states, start, missing):
    """Check that all ranks hold what rank 0 began with. start: each rank's own beginning."""
    for rank, state in enumerate(states):
        wrong = [n for n, value in state.items() if not same(value, start[0][n])]
        if not wrong:
            continue
        details = f"Rank {rank}: {', '.join(wrong)}."
        if wrong == ["shift"]:
            fail(KNOWN["buffers-not-broadcast"], details)
        if wrong == ["first.bias"]:
            fail(KNOWN["frozen-not-broadcast"], details)
        if all(same(s[n], states[0][n]) for s in states for n in wrong):
            fail(KNOWN["broadcast-wrong-source"], details)
        fail(KNOWN[missing], details)


@check(todo=2, points=2)
def test_broadcast(piece):
    """All ranks get the parameters and buffers of rank 0"""
    start = [
        {n: t.clone() for n, t in filled(Net(), 10 + r).state_dict().items()} for r in range(3)
    ]

    def run(rank, comm):
        net = filled(Net(), 10 + rank)
        net.first.bias.requires_grad_(False)
        piece.broadcast_parameters(net, comm)
        return {n: t.detach().clone() for n, t in net.state_dict().items()}

    states, comms = on_ranks(3, run)
    named = "broadcast-from-itself" if comms[0].broadcasts else "nothing-broadcast"
    expect_rank_0(states, start, named)


# ── average_gradients ───────────────────────────────────────────────────────────────────────────


def parameters_of(rank, shapes, without=(), frozen=()):
    """Parameters that are alike on all ranks, with gradients that are not."""
    made = []
    for i, shape in enumerate(shapes):
        g = torch.Generator().manual_seed(50 + i)
        p = nn.Parameter(torch.randn(shape, generator=g), requires_grad=i not in frozen)
        if i not in without and i not in frozen:
            p.grad = gradient_of(rank, i, shape)
        made.append(p)
    return made


def gradient_of(rank, i, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1000 * rank + i))


def averaged(piece, size, shapes, bucket=BIG, without=None, frozen=(), twice=(), **names):
    """average_gradients on `size` ranks, compared with the mean; the ranks' comms."""
    without = without or {}

    def run(rank, comm):
        ps = parameters_of(rank, shapes, without.get(rank, ()), frozen)
        before = [p.detach().clone() for p in ps]
        piece.average_gradients([*ps, *(ps[i] for i in twice)], comm, bucket)
        moved = [i for i, (p, b) in enumerate(zip(ps, before, strict=True)) if not same(p, b)]
        return [None if p.grad is None else p.grad.clone() for p in ps], moved

    found, comms = on_ranks(size, run, **names)
    for rank, (grads, moved) in enumerate(found):
        if moved:
            fail(KNOWN["parameters-averaged"], f"Rank {rank}, parameter {moved[0]}.")
        for i, shape in enumerate(shapes):
            if i in frozen:
                if grads[i] is not None:
                    fail(KNOWN["frozen-sent"], f"Parameter {i} has a gradient on rank {rank}.")
                continue
            parts = [
                torch.zeros(shape) if i in without.get(r, ()) else gradient_of(r, i, shape)
                for r in range(size)
            ]
            own = None if i in without.get(rank, ()) else parts[rank]
            judge(f"parameter {i}", grads[i], sum(parts) / size, own, size, rank)
    return comms


SHAPES = [(3, 4), (4,), (2, 5), (6,)]


@check(todo=4, points=3)
def test_average(piece):
    """Every gradient becomes the mean over ranks"""
    for size in (2, 3):
        averaged(piece, size, SHAPES)
    averaged(piece, 2, SHAPES, bucket=40)


@check(todo=3, needs=test_average, points=2)
def test_missing_gradients(piece):
    """A parameter without a gradient counts as zeros, on one rank and on all"""
    skip = {"hang": "missing-gradient-skipped", "mixed": "missing-gradient-skipped"}
    averaged(piece, 2, SHAPES, without={1: (1,)}, **skip)
    averaged(piece, 3, SHAPES, bucket=1, without={0: (0, 2), 2: (3,)}, **skip)
    averaged(piece, 2, SHAPES, without={0: (2,), 1: (2,)}, **skip)


@check(todo=3, needs=test_average)
def test_tied_and_frozen(piece):
    """A parameter that comes twice is sent once; a frozen one is left alone"""
    comms = averaged(piece, 2, SHAPES, twice=(0,))
    total = 12 + 4 + 10 + 6
    if sum(comms[0].sent) == total + 12:
        fail(KNOWN["tied-twice"], f"{sum(comms[0].sent)} numbers are sent, expected {total}.")
    comms = averaged(piece, 2, SHAPES, frozen=(1,))
    if sum(comms[0].sent) == total:
        fail(KNOWN["frozen-sent"], f"{total} numbers are sent, expected {total - 4}.")


def expect_buckets(sent, bucket, small):
    """Check the messages of 12 parameters of 8 numbers (32 bytes)."""
    if len(sent) == 12:
        fail(KNOWN["one-message-each"], f"With bucket_bytes={bucket}: {len(sent)} sums.")
    if len(sent) != small:
        fail(
            KNOWN["bucket-bytes-ignored"],
            f"12 parameters of 32 bytes, bucket_bytes={bucket}: {len(sent)} sums, expected {small}.",
        )


@check(todo=3, needs=test_average, points=2)
def test_buckets(piece):
    """Gradients travel in flat buckets of about bucket_bytes"""
    # 130 bytes: 4 parameters and 2 bytes, so that `>` and `>=` close a bucket at the same place
    for bucket, count in ((BIG, 1), (130, 3)):
        comms = averaged(piece, 2, [(8,)] * 12, bucket=bucket)
        expect_buckets(comms[0].sent, bucket, count)
    comms = averaged(piece, 2, [(8,)] * 12, bucket=1)
    if len(comms[0].sent) != 12:
        fail(
            KNOWN["bucket-bytes-ignored"],
            f"12 parameters, bucket_bytes=1: {len(comms[0].sent)} sums, expected 12.",
        )


# ── DataParallel ────────────────────────────────────────────────────────────────────────────────


def whole(x, seed=10, use=None, size=1, extra=False):
    """One process on all ranks' parts: the mean of their losses' gradients, by name."""
    net = filled(Net(extra), seed)
    for rank in range(size):
        used = bool(use and use(rank))
        (net(part_of(x, rank, size), use=used).pow(2).mean() / size).backward()
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in net.named_parameters()}


def own_of(x, rank, size, use=None, extra=False):
    """What a rank's gradient is before it is averaged."""
    net = filled(Net(extra), 10)
    net(part_of(x, rank, size), use=bool(use and use(rank))).pow(2).mean().backward()
    return {n: p.grad for n, p in net.named_parameters()}


def grads_of(net):
    return {n: None if p.grad is None else p.grad.clone() for n, p in net.named_parameters()}


@check(todo=7, needs=(test_broadcast, test_average), points=2)
def test_starts_alike(piece):
    """It gives all ranks the weights and buffers of rank 0 when it is made"""
    start = [
        {n: t.clone() for n, t in filled(Net(), 10 + r).state_dict().items()} for r in range(2)
    ]

    def run(rank, comm):
        net = filled(Net(), 10 + rank)
        piece.DataParallel(net, comm)
        return {n: t.detach().clone() for n, t in net.state_dict().items()}

    states, _ = on_ranks(2, run)
    expect_rank_0(states, start, "wrapper-without-broadcast")


@check(todo=9, needs=test_starts_alike, points=2)
def test_like_the_module(piece):
    """It is called like the module, and answers for its parameters and its mode"""

    def run(rank, comm):
        net = filled(Net(extra=True), 10 + rank)
        model = piece.DataParallel(net, comm)
        x = batch(4)
        with torch.no_grad():
            outputs = [model(x).clone(), model(x, True).clone(), model(x, use=True).clone()]
            wanted = [net(x).clone(), net(x, True).clone(), net(x, use=True).clone()]
        named = [n for n, _ in model.named_parameters()]
        count = len(list(model.parameters()))
        modes = [bool(model.training)]
        for change in (model.eval, model.train):
            change()
            modes.append((bool(model.training), net.training))
        model.train(False)
        modes.append((bool(model.training), net.training))
        return outputs, wanted, named, count, modes, [n for n, _ in net.named_parameters()]

    found, _ = on_ranks(2, run)
    for outputs, wanted, named, count, modes, names in found:
        for got, want in zip(outputs, wanted, strict=True):
            if not same(tensor(got, "the output"), want):
                fail(KNOWN["call-not-the-module"])
        if sorted(named) != sorted(names) or count != len(names):
            fail(KNOWN["parameters-not-the-module"], f"named_parameters() gives {named}.")
        if modes != [True, (False, False), (True, True), (False, False)]:
            fail(
                KNOWN["mode-not-the-module"],
                f"At first, after eval(), train(), train(False): {modes}.",
            )


@check(todo=10, needs=test_like_the_module)
def test_no_sync_is_quiet(piece):
    """Inside no_sync() nothing is sent, and the gradients are this rank's own"""

    def run(rank, comm):
        net = filled(Net(), 10 + rank)
        model = piece.DataParallel(net, comm, 1)
        with model.no_sync():
            model(part_of(batch(4), rank, 2)).pow(2).mean().backward()
        return grads_of(net), len(comm.sent)

    found, _ = on_ranks(2, run)
    for rank, (grads, sent) in enumerate(found):
        if sent:
            fail(KNOWN["no-sync-ignored"], f"{sent} sums were started inside.")
        for name, own in own_of(batch(4), rank, 2).items():
            if grads[name] is None or not same(grads[name], own):
                fail(KNOWN["wrong-gradient"], f"The gradient of {name} inside no_sync().")


def stepped(piece, size, bucket, steps=1, use=None, turned=None, extra=False, **names):
    """Backward passes and finish() on each rank, compared with one process; the comms.

    sent: how many sums had started when the last backward pass ended.
    """
    xs = [batch(2 * size, seed=20 + s) for s in range(steps)]

    def run(rank, comm):
        net = filled(Net(extra), 10 + rank)
        before = None
        model = piece.DataParallel(net, comm, bucket)
        grads, sent = [], []
        for x in xs:
            for p in net.parameters():
                p.grad = None
            before = [p.detach().clone() for p in net.parameters()]
            at = len(comm.sent)
            used = bool(use and use(rank))
            try:
                y = model(part_of(x, rank, size), use=used, turned=bool(turned and turned(rank)))
                y.pow(2).mean().backward()
            except (RuntimeError, ValueError) as error:
                if not grads:
                    raise
                fail(KNOWN["second-step-wrong"], f"{type(error).__name__}: {error}")
            sent.append(len(comm.sent) - at)
            model.finish()
            moved = any(not same(p, b) for p, b in zip(net.parameters(), before, strict=True))
            grads.append((grads_of(net), moved))
        return grads, sent

    found, comms = on_ranks(size, run, **names)
    for s, x in enumerate(xs):
        want = whole(x, use=use, size=size, extra=extra)
        for rank in range(size):
            grads, moved = found[rank][0][s]
            if moved:
                fail(KNOWN["parameters-averaged"], f"Rank {rank}, after finish().")
            own = own_of(x, rank, size, use, extra)
            for name, mean in want.items():
                if s and (grads[name] is None or not same(grads[name], mean)):
                    fail(KNOWN["second-step-wrong"], f"The gradient of {name} on rank {rank}.")
                judge(name, grads[name], mean, own[name], size, rank)
    return comms, [f[1] for f in found]


@check(todo=11, needs=test_starts_alike, points=3)
def test_gradients(piece):
    """After finish() the gradients are those of one process on the whole batch"""
    for size in (2, 3):
        for bucket in (BIG, 1, 4 * (N_MID * N_OUT + N_OUT)):
            stepped(piece, size, bucket)


@check(todo=11, needs=test_gradients, points=2)
def test_during_backward(piece):
    """Buckets leave during the backward pass, the last layers first"""
    comms, sent = stepped(piece, 2, 1)
    if not any(sent[0]):
        fail(KNOWN["not-during-backward"])
    last, first = {N_MID * N_OUT, N_OUT}, {N_IN * N_MID, N_MID}
    sums = comms[0].sent
    if len(sums) == 4 and set(sums[:2]) == first and set(sums[2:]) == last:
        fail(KNOWN["first-layers-first"], f"Numbers in each sum: {sums}.")
    comms, _ = stepped(piece, 2, BIG)
    if len(comms[0].sent) != 1:
        fail(
            KNOWN["bucket-bytes-ignored"],
            f"With bucket_bytes={BIG} there are {len(comms[0].sent)} sums, expected 1.",
        )
    comms, _ = stepped(piece, 2, 1)
    if len(comms[0].sent) != 4:
        fail(
            KNOWN["bucket-bytes-ignored"],
            f"With bucket_bytes=1, 4 parameters make {len(comms[0].sent)} sums, expected 4.",
        )


@check(todo=11, needs=(test_gradients, test_like_the_module), points=2)
def test_one_order(piece):
    """Buckets leave in one order, though gradients are finished in another order on each rank"""
    stepped(
        piece,
        2,
        1,
        use=lambda rank: True,
        turned=lambda rank: rank == 1,
        extra=True,
        hang="sent-as-they-fill",
        mixed="sent-as-they-fill",
    )


@check(todo=11, needs=(test_gradients, test_one_order), points=2)
def test_unused(piece):
    """A parameter that one rank does not use, and one that none uses"""
    for bucket in (1, BIG):
        for use in (lambda rank: rank == 0, lambda rank: rank == 1, lambda rank: False):
            stepped(
                piece,
                2,
                bucket,
                use=use,
                extra=True,
                hang="never-filled-not-sent",
                mixed="missing-gradient-skipped",
            )


@check(todo=11, needs=test_gradients)
def test_second_step(piece):
    """A second and a third step are as right as the first"""
    for bucket in (1, BIG):
        stepped(piece, 2, bucket, steps=3, hang="second-step-wrong", mixed="second-step-wrong")


def accumulated(piece, error, ignored):
    """Two passes inside no_sync(), the third outside, compared with all three in one process."""
    xs = [batch(4, seed=30 + s) for s in range(3)]

    def run(rank, comm):
        net = filled(Net(), 10 + rank)
        model = piece.DataParallel(net, comm, 1)
        for x in xs[:2]:
            try:
                with model.no_sync():
                    model(part_of(x, rank, 2)).pow(2).mean().backward()
            except RuntimeError as raised:
                if not comm.sent:
                    raise
                fail(KNOWN["no-sync-ignored"], f"{type(raised).__name__}: {raised}")
        inside = len(comm.sent)
        if error:
            try:
                with model.no_sync():
                    raise KeyError("of the check's own")
            except KeyError:
                pass
        model(part_of(xs[2], rank, 2)).pow(2).mean().backward()
        outside = len(comm.sent) - inside
        model.finish()
        return grads_of(net), inside, outside

    found, _ = on_ranks(2, run)
    want = [whole(x, size=2) for x in xs]
    for rank, (grads, inside, outside) in enumerate(found):
        if inside:
            fail(KNOWN["no-sync-ignored"], f"{inside} sums were started inside.")
        if not outside:
            fail(KNOWN[ignored])
        for name in want[0]:
            mean = sum(w[name] for w in want)
            if grads[name] is not None and same(grads[name], want[2][name]):
                fail(KNOWN["accumulated-lost"], f"The gradient of {name} on rank {rank}.")
            own = sum(own_of(x, rank, 2)[name] for x in xs)
            judge(name, grads[name], mean, own, 2, rank)


@check(todo=11, needs=test_during_backward, points=2)
def test_no_sync(piece):
    """Inside no_sync() gradients only add up; the pass after it averages the whole"""
    accumulated(piece, error=False, ignored="no-sync-stays")


@check(todo=11, needs=test_no_sync)
def test_no_sync_ends_on_an_error(piece):
    """no_sync() ends on an exception, too"""
    accumulated(piece, error=True, ignored="no-sync-stays-after-error")
