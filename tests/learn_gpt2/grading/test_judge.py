"""Judge and worker: what a check sees through a worker, and what a judge refuses to believe."""

import json
import os
import struct
from pathlib import Path

import pytest
import torch

from learn_gpt2 import manifest
from learn_gpt2.grading import drawing, wire
from learn_gpt2.grading.judge import cut_model, given_texts
from learn_gpt2.grading.wire import Line, Message, Parts, WireError
from tests.graders import bank as banks

ROOT = banks.ROOT
MODEL = ROOT / "src" / "gpt2" / "model.py"
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")


# ── what a worker knows ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", range(1, 13))
def test_a_worker_is_given_no_answer(number: int) -> None:
    """Catches a text that defines what the problem, or a later one, asks for."""
    problem = manifest.get(number)
    given = given_texts(ROOT, problem, MODEL.read_text(encoding="utf-8"))
    assert all(name.split(".")[0] == "gpt2" for name in given)
    assert not any(part in name for name in given for part in ("engine", "training", "oracle"))
    for later in manifest.PROBLEMS[number - 1 : 12]:
        for provided in later.provides:
            name = provided.partition(".")[0]
            if "." not in provided:
                assert f"class {name}" not in given["gpt2.model"]["text"], later.folder


def test_methods_of_later_problems_are_blank() -> None:
    """Catches problem 11's answer in the model that problem 11 builds on."""
    text = MODEL.read_text(encoding="utf-8")
    assert "normal_" in text
    assert "normal_" not in cut_model(text, manifest.get(11))
    assert "c_fc" not in cut_model(text, manifest.get(12)).partition("class GPT2Model")[2]


# ── the wire ────────────────────────────────────────────────────────────────────────────────────


class Plain(wire.Codec):
    """Values alone."""


def over(value: object) -> object:
    """A value, written and read."""
    parts = Parts()
    data = json.loads(json.dumps(Plain().write(value, parts), allow_nan=False))
    message = Message("", {}, json.loads(json.dumps(parts.tensors)), parts.blobs)
    return Plain().read(data, message)


def test_plain_values_come_over() -> None:
    """Catches a type, a NaN or an order that gets lost."""
    value = {"a": [1, 2.5, None, True, ("x", -(10**40))], 3: float("inf"), "d": torch.bfloat16}
    assert over(value) == value
    assert over(float("nan")) != over(float("nan"))
    assert type(over(True)) is bool
    assert type(over((1,))) is tuple


def test_tensors_come_over_with_their_strides() -> None:
    """Catches numbers, dtypes or strides that change on the way: `view` depends on them."""
    whole = torch.arange(24.0).view(2, 3, 4)
    for t in (whole, whole.transpose(0, 2), whole[..., 1::2], whole[0, 0, :1].expand(5, 7)):
        for dtype in (torch.float32, torch.bfloat16, torch.int64, torch.bool):
            there = t.to(dtype)
            back = over(there)
            assert torch.equal(back, there)
            assert back.dtype == dtype
            assert not back._is_view()  # a view made without gradients can't be written into
            if there.numel():
                assert back.stride() == there.stride()
    assert over(torch.zeros(0, 3)).shape == (0, 3)
    assert over(torch.tensor(2.0)).shape == ()


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "float32", "shape": [2], "blob": 0},  # more than there are numbers
        {"dtype": "float32", "shape": [1], "blob": 1},
        {"dtype": "float32", "shape": [1], "blob": -1},
        {"dtype": "float32", "shape": [-1], "blob": 0},
        {"dtype": "float32", "shape": [True], "blob": 0},
        {"dtype": "float32", "shape": [1 << 30, 1 << 30], "strides": [0, 0], "blob": 0},
        {"dtype": "float32", "shape": [2], "strides": [1 << 20], "blob": 0},
        {"dtype": "float32", "shape": [1], "strides": [1, 1], "blob": 0},
        {"dtype": "object", "shape": [1], "blob": 0},
        {"dtype": ["float32"], "shape": [1], "blob": 0},
        {"shape": [1], "blob": 0},
        {"dtype": "float32", "blob": 0},
        None,
        [],
    ],
)
def test_no_tensor_is_made_of_what_is_none(about: object) -> None:
    """Catches a tensor that reaches beyond its numbers, or an error of another kind."""
    with pytest.raises((WireError, TypeError)):
        wire.read_tensor(about, [b"1234"])


def test_a_bool_is_0_or_1() -> None:
    """Catches bytes that are taken for bools as they are."""
    got = wire.read_tensor({"dtype": "bool", "shape": [3], "blob": 0}, [b"\x00\x01\xff"])
    assert got.tolist() == [False, True, True]
    assert got.sum() == 2


@pytest.mark.parametrize(
    "data",
    [
        ["x", 0],
        ["x", "0"],
        ["f", "2"] * 2,
        ["f", "one"],
        ["l", 3],
        ["d", [[1]]],
        ["d", [[["l", []], 1]]],
        ["dtype", "float128"],
        ["device", "cuda:0"],
        ["exec", "print(1)"],
        {"a": 1},
        1.5,
        [],
    ],
)
def test_no_value_is_made_of_what_is_none(data: object) -> None:
    """Catches a form that is taken for a value."""
    with pytest.raises((WireError, NotImplementedError)):
        Plain().read(data, Message("", {}, [], []))


def frame(head: bytes, body: bytes = b"", size: int | None = None) -> bytes:
    """A message as bytes."""
    return struct.pack(">II", len(head), len(body) if size is None else size) + head + body


@pytest.mark.parametrize(
    "data",
    [
        frame(b"null"),
        frame(b"[]"),
        frame(b'{"kind": "answer"}'),
        frame(b'{"kind": "answer", "body": NaN}'),
        frame(b'{"kind": "answer", "body": {}, "sizes": [9]}', b"1"),
        frame(b'{"kind": "answer", "body": {}, "tensors": [3]}'),
        frame(b"[" * 100_000),
        frame(b"\xff\xfe"),
        frame(b"{}", b"", 1 << 31),
        struct.pack(">II", 1 << 31, 0),
        b"abc",
        b"",
    ],
)
def test_no_message_is_made_of_what_is_none(data: bytes) -> None:
    """Catches bytes that end the judge with another error, or are waited for without end."""
    readable, writable = os.pipe()
    os.write(writable, data[:60_000])
    os.close(writable)
    line = Line(readable, os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(WireError):
        line.receive()
    line.close()


def test_a_wire_error_is_no_exception_that_a_check_expects() -> None:
    """Catches a worker that ends, where a check wants the piece to raise, and gets the point."""
    assert not issubclass(WireError, Exception)


# ── the secret ──────────────────────────────────────────────────────────────────────────────────


def test_the_secret_stays_and_is_private(tmp_path: Path) -> None:
    """Catches marks that change when the same folder is graded again."""
    out = tmp_path / "report"
    first = drawing.secret_of(out)
    assert len(first) == 64
    assert drawing.secret_of(out) == first
    assert drawing.secret_of(tmp_path / "other") != first
    assert (out / drawing.NAME).stat().st_mode & 0o077 == 0


def test_numbers_are_those_of_the_secret() -> None:
    """Catches seeds that a file could know, and numbers that change from run to run."""
    seen = {}
    try:
        for secret in ("", "one", "two", "one "):
            drawing.draw_from(secret)
            draws = [torch.randn(3, generator=torch.Generator().manual_seed(0)) for _ in range(2)]
            assert torch.equal(*draws)
            seen[secret] = tuple(draws[0].tolist())
    finally:
        drawing.draw_from("")
    assert len(set(seen.values())) == 4
    plain = torch.randn(3, generator=torch.Generator().manual_seed(0))
    assert tuple(plain.tolist()) == seen[""]


def test_every_problem_has_sizes_to_draw_from() -> None:
    """Catches a problem whose sizes are known to whoever reads its tests."""
    for problem in manifest.PROBLEMS[:12]:
        text = problem.test_path(ROOT).read_text(encoding="utf-8")
        assert problem.number == 9 or "sizes_from(" in text, problem.folder
