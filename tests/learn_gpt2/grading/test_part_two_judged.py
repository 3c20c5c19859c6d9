"""Part two through the judge: what a check hands to a piece, and what comes back of it."""

import copy
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn

import gpt2.sampling
from learn_gpt2 import manifest
from learn_gpt2.checking.checks import check
from learn_gpt2.grading import examiner, sandbox
from learn_gpt2.grading.judge import given_texts
from tests.graders import bank as banks

ROOT = banks.ROOT
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


@pytest.fixture(scope="module")
def server() -> Iterator[examiner.Server]:
    """Workers as `learn grade` has them, for the problems of part two."""
    means = sandbox.probe()
    made = examiner.Server(ROOT, sandbox.Limits(), means)
    model = (ROOT / "src" / "gpt2" / "model.py").read_text(encoding="utf-8")
    for problem in manifest.MODULE_PROBLEMS:
        made.given[problem.number, ""] = given_texts(ROOT, problem, model)
        made.views[problem.number] = asdict(sandbox.view(ROOT, problem.number))
    examiner.start_keeper(made)
    examiner.wait_for_keeper(made)
    yield made
    made.keeper.close()
    made.keeper_process.wait(20)


def judged(server: examiner.Server, number: int, function: Callable, source: str = "") -> dict:
    """What one check makes of a file: by default, of the reference with its imports."""
    problem = manifest.get(number)
    solution = problem.solution_path(ROOT).read_text(encoding="utf-8")
    server.checks[number] = [check(todo=1)(function).check]
    uid = sandbox.free_uid(0) if server.means.drops else 0
    text = solution + "\n\n" + source
    data = examiner.answer(server, examiner.Question(problem, text.encode(), "", uid))
    assert "error" not in data, data
    return data["results"][0]


def passes(server: examiner.Server, number: int, function: Callable, source: str = "") -> None:
    """The check passes, judged."""
    result = judged(server, number, function, source)
    assert result["status"] == "passed", result["message"]


def near(a: Tensor, b: Tensor) -> bool:
    """Equal up to rounding."""
    return a.shape == b.shape and torch.allclose(a, b, atol=1e-5)


# ── what is drawn, and when ─────────────────────────────────────────────────────────────────────


def test_a_generator_is_one_on_both_sides(server) -> None:
    """Catches draws that don't advance the check's generator, or begin again at each call: the same
    function without a judge draws the same tokens, and leaves its generator in the same state.
    """
    here = gpt2.sampling.sample

    def drawn(piece):
        """Draws"""
        logits = torch.randn(40, 11)
        mine, its = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
        before = []
        for _ in range(3):
            got, want = piece.sample(logits, its), here(logits, mine)
            assert got.dtype == torch.int64
            assert torch.equal(got, want)
            assert torch.equal(its.get_state(), mine.get_state())
            assert all(not torch.equal(got, other) for other in before)
            before.append(got)
        other = piece.sample(logits, torch.Generator().manual_seed(6))
        assert not torch.equal(other, before[0])

    passes(server, 13, drawn)


def test_tokens_are_made_one_at_a_time(server) -> None:
    """Catches an iterator that is emptied before its first value is asked for."""

    def lazy(piece):
        """Lazy"""
        seen = []

        def next_logits(ids):
            seen.append(ids.clone())
            return torch.nn.functional.one_hot(ids[:, -1] + 1, 9).float()

        steps = piece.generate_tokens(next_logits, torch.tensor([[1, 2], [3, 4]]), 3, temperature=0)
        assert not seen
        assert next(iter(steps)).tolist() == [3, 5]
        assert len(seen) == 1
        assert [t.tolist() for t in steps] == [[4, 6], [5, 7]]
        assert [s.size(1) for s in seen] == [2, 3, 4]

    passes(server, 13, lazy)


# ── memory ──────────────────────────────────────────────────────────────────────────────────────


def test_memory_is_shared_where_it_is_shared(server) -> None:
    """Catches a cache whose memory seems to move, or views that don't see what is written."""

    def shared(piece):
        """Shared"""
        keys, values = torch.zeros(1, 2, 6, 3), torch.zeros(1, 2, 6, 3)
        layer = piece.LayerCache(keys, values)
        place = layer.keys.data_ptr()
        assert place == keys.data_ptr()
        k, v = torch.randn(1, 2, 4, 3), torch.randn(1, 2, 4, 3)
        got, _ = layer.append(k, v)
        assert got.data_ptr() == place == layer.keys.data_ptr()
        assert torch.equal(keys[:, :, :4], k)
        keys[:, :, 0] = 7.0
        more, _ = layer.append(k[:, :, :1], v[:, :, :1])
        assert (more[:, :, 0] == 7).all()
        assert (got[:, :, 0] == 7).all()
        assert layer.length == 5

    passes(server, 14, shared)


# ── modules ─────────────────────────────────────────────────────────────────────────────────────


class Toy(nn.Module):
    """A module of the check's own, which no worker has."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(7, 5)
        self.c_attn = nn.Linear(5, 5)
        self.head = nn.Linear(5, 7)
        self.calls = 0

    def forward(self, ids):
        self.calls += 1
        return self.head(torch.tanh(self.c_attn(self.table(ids))))


def test_a_model_of_the_checks_is_changed_in_place(server) -> None:
    """Catches layers that are replaced in a worker alone, and gradients that get lost there."""

    def in_place(piece):
        """In place"""
        torch.manual_seed(1)
        model = Toy()
        plain = copy.deepcopy(model)
        names = piece.add_lora(model, rank=2, alpha=4)
        assert names == ["c_attn"]
        assert isinstance(model.c_attn, piece.LoRALinear)
        ids = torch.tensor([[1, 2, 3]])
        assert near(model(ids), plain(ids))
        assert not model.head.weight.requires_grad
        with torch.no_grad():
            model.c_attn.lora_B.weight.fill_(0.5)
        assert not near(model(ids), plain(ids))
        model(ids).sum().backward()
        assert model.c_attn.lora_A.weight.grad is not None
        assert model.head.weight.grad is None
        piece.merge_lora(model)
        assert type(model.c_attn) is nn.Linear
        assert model.calls == 3

    passes(server, 16, in_place)


def test_a_step_on_a_model_and_an_optimizer(server) -> None:
    """Catches a step that happens to a copy, gradients left over, and a mode that is switched."""

    def step(piece):
        """Step"""
        torch.manual_seed(1)
        model = Toy()
        twin = copy.deepcopy(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        ids = torch.tensor([[1, 2, 3]])
        loss, norm = piece.train_step(model, optimizer, [(ids, ids)], grad_clip=1e9)
        want = nn.functional.cross_entropy(twin(ids)[0], ids[0])
        want.backward()
        assert abs(float(loss) - float(want)) < 1e-5
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert near(p, q - 0.5 * q.grad)
            assert near(p.grad, q.grad)
        assert model.training
        assert float(norm) > 0

    passes(server, 15, step)


# ── ranks ───────────────────────────────────────────────────────────────────────────────────────


class Room:
    """Where the ranks of a group meet."""

    def __init__(self, size):
        self.barrier = threading.Barrier(size, timeout=20)
        self.slots = [None] * size


class Comm:
    """Sums over threads."""

    def __init__(self, room, rank):
        self.room, self.rank, self.size = room, rank, len(room.slots)
        self.sent = []

    def _exchange(self, value):
        self.room.slots[self.rank] = value
        self.room.barrier.wait()
        found = list(self.room.slots)
        self.room.barrier.wait()
        return found

    def broadcast(self, tensor, source=0):
        """The source's numbers."""
        tensor.copy_(self._exchange(tensor.clone())[source])

    def all_reduce(self, tensor):
        """A sum, when it is waited for."""
        self.sent.append(tensor.numel())
        return Sum(tensor, self._exchange(tensor.clone()))


class Sum:
    """Under way."""

    def __init__(self, tensor, parts):
        self.tensor, self.parts = tensor, parts

    def wait(self):
        """It stands in the tensor now."""
        self.tensor.copy_(torch.stack(self.parts).sum(0))


@contextmanager
def ranks(size: int, run: Callable) -> Iterator[list]:
    """run(rank, comm) in a thread for each rank; what they give."""
    room, found, errors = Room(size), [None] * size, []

    def one(rank):
        try:
            found[rank] = run(rank, Comm(room, rank))
        except BaseException as error:
            errors.append(error)
            room.barrier.abort()

    threads = [threading.Thread(target=one, args=(r,), daemon=True) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise errors[0]
    yield found


def test_ranks_in_threads(server) -> None:
    """Catches ranks that share a module, hooks that don't run in a backward pass, and means that
    don't come back.
    """

    def together(piece):
        """Together"""
        batch = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))

        def run(rank, comm):
            torch.manual_seed(rank)
            with threading.Lock():
                model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
            with torch.no_grad():
                for i, p in enumerate(model.parameters()):
                    p.fill_(0.1 * (i + 1) * (rank + 1))
            wrapped = piece.DataParallel(model, comm, bucket_bytes=16)
            with wrapped.no_sync():
                (wrapped(piece.shard(batch, rank, comm.size)) * 0).sum().backward()
            assert not comm.sent
            wrapped(piece.shard(batch, rank, comm.size)).pow(2).mean().backward()
            assert len(comm.sent) > 1
            wrapped.finish()
            assert len(list(wrapped.parameters())) == 4
            assert next(iter(wrapped.parameters())) is next(model.parameters())
            return model

        with ranks(3, run) as models:
            twin = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))
            with torch.no_grad():
                for i, p in enumerate(twin.parameters()):
                    p.fill_(0.1 * (i + 1))
            twin(batch).pow(2).mean().backward()
            for model in models:
                for p, q in zip(model.parameters(), twin.parameters(), strict=True):
                    assert near(p, q)
                    assert near(p.grad, q.grad)

    passes(server, 18, together)


def test_gradients_are_averaged_where_they_are(server) -> None:
    """Catches parameters without a module that are averaged in a worker alone."""

    def mean(piece):
        """Mean"""

        def run(rank, comm):
            ps = [nn.Parameter(torch.zeros(n)) for n in (3, 4)]
            ps[0].grad = torch.full((3,), float(rank))
            piece.average_gradients([*ps, ps[0]], comm)
            return ps

        with ranks(2, run) as found:
            for first, second in found:
                assert near(first.grad, torch.full((3,), 0.5))
                assert near(second.grad, torch.zeros(4))

    passes(server, 18, mean)
