"""What the judge and the worker say to each other: plain data, and tensors as raw numbers.

A message is a frame: the length of a JSON text, the length of the raw bytes behind it, then both.
Values are None, bools, ints, floats, strings, and lists, tuples, dicts and tensors of them; what
else there is stays where it is, and a number stands for it. Nothing is ever unpickled. Each side
may ask the other while it is being asked: a student's `forward` calls the cache, which lives with
the judge.

The worker runs this file by its path, so it imports torch and the standard library alone.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import select
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

MAX_HEADER = 8 << 20  # bytes of JSON in one message
MAX_BYTES = 192 << 20  # bytes of numbers in one message
MAX_ELEMENTS = 64 << 20  # of one tensor, however few numbers it is made of
MAX_TEXT = 20_000  # characters of one string
MAX_ITEMS = 20_000  # of one list or dict
MAX_DEPTH = 24
MAX_STORE = 4 << 20  # bytes of memory that both sides keep alike; more is sent as it is
MAX_STORES = 2000
MAX_STORED = 256 << 20  # bytes of all of it
HEAD = struct.Struct(">II")

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.int16,
        torch.int8,
        torch.uint8,
        torch.bool,
        torch.complex64,
        torch.complex128,
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
NO_OVERRIDES = torch._C.DisableTorchFunction  # a mode of torch must not see our own bookkeeping


class WireError(BaseException):
    """The other side has gone, or said something that is not a message. No Exception: a check that
    expects the piece to raise one must not take this for it.
    """


class Gone(WireError):
    """The other side has ended."""


class Late(WireError):
    """The other side did not answer in time."""


@dataclass
class Parts:
    """A message while it is written: raw bytes and tensors, which the JSON names by number."""

    blobs: list[bytes] = field(default_factory=list)
    tensors: list[dict] = field(default_factory=list)
    sources: list[Tensor] = field(default_factory=list)  # whose numbers they are
    numbers: dict[int, int] = field(default_factory=dict)  # id of a tensor → its number


# ── tensors ─────────────────────────────────────────────────────────────────────────────────────


def _extent(shape: list[int], strides: list[int]) -> int:
    """Numbers from the first to the last that a shape with these strides reaches."""
    if 0 in shape:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))


def raw(t: Tensor) -> bytes:
    """A contiguous tensor's numbers."""
    return t.reshape(-1).view(torch.uint8).numpy().tobytes() if t.numel() else b""


def write_tensor(t: Tensor, parts: Parts) -> dict:
    """What names a tensor in the JSON; its numbers go with the message. Strides are kept, since a
    student's `view` depends on them.
    """
    with NO_OVERRIDES(), torch.no_grad():
        plain = t.detach()
        if type(plain) is not Tensor:
            plain = plain.as_subclass(Tensor)
        if plain.dtype not in NAMES or plain.layout != torch.strided or plain.device.type != "cpu":
            if plain.device.type == "meta" and plain.dtype in NAMES:
                return {"dtype": NAMES[plain.dtype], "shape": list(plain.shape), "meta": True}
            raise ValueError(f"a tensor of {plain.dtype}, {plain.layout}, on {plain.device}")
        plain = plain.resolve_conj().resolve_neg()
        shape, strides = list(plain.shape), list(plain.stride())
        if plain.is_contiguous():
            data = raw(plain)
            strides = None
        else:
            n = _extent(shape, strides)
            data = raw(plain.as_strided((n,), (1,), plain.storage_offset()).contiguous())
    parts.blobs.append(data)
    about = {"dtype": NAMES[plain.dtype], "shape": shape, "blob": len(parts.blobs) - 1}
    if strides is not None:
        about["strides"] = strides
    return about


def _ints(value: object, most: int) -> list[int]:
    if not isinstance(value, list) or len(value) > most:
        raise WireError("a shape that is none")
    if not all(type(n) is int and 0 <= n < 1 << 40 for n in value):
        raise WireError("a size that is none")
    return value


def read_tensor(about: dict, blobs: list[bytes]) -> Tensor:
    """The tensor that a description names. WireError for anything that doesn't add up."""
    if not isinstance(about, dict):
        raise WireError("a tensor that is none")
    dtype, shape = DTYPES.get(about.get("dtype")), _ints(about.get("shape"), 32)
    elements = 1
    for n in shape:
        elements *= n
    if dtype is None:
        raise WireError("a dtype that is none")
    if about.get("meta") is True:
        if elements > 1 << 40:
            raise WireError("a tensor too large")
        return torch.empty(shape, dtype=dtype, device="meta")
    if elements > MAX_ELEMENTS:
        raise WireError("a tensor too large")
    strides = about.get("strides")
    number = about.get("blob")
    if type(number) is not int or not 0 <= number < len(blobs):
        raise WireError("a tensor without numbers")
    data = blobs[number]
    extent = elements if strides is None else _extent(shape, _ints(strides, len(shape)))
    if strides is not None and len(strides) != len(shape):
        raise WireError("strides for another shape")
    if len(data) != extent * dtype.itemsize:
        raise WireError("a tensor with too many or too few numbers")
    with NO_OVERRIDES(), torch.no_grad():
        if not elements:
            return torch.empty(shape, dtype=dtype)
        if dtype == torch.bool:  # a byte that is neither 0 nor 1 is not a bool
            flat = torch.frombuffer(bytearray(data), dtype=torch.uint8) != 0
        else:
            flat = torch.frombuffer(bytearray(data), dtype=dtype)
        # no view of `flat`: whoever is given it may write into it, with gradients or without
        t, home = torch.empty(0, dtype=flat.dtype), flat.untyped_storage()
        return t.set_(home, 0, shape) if strides is None else t.set_(home, 0, shape, strides)


# ── values ──────────────────────────────────────────────────────────────────────────────────────


class Codec:
    """Plain values to JSON and back. What a side does with its own objects, it adds itself."""

    def write(self, value: object, parts: Parts, depth: int = 0) -> object:
        """A value as JSON; its tensors go to `parts`."""
        kind = type(value)
        if value is None or kind is bool or (kind is int and abs(value) < 1 << 256):
            return value
        if kind is float:
            return ["f", value.hex()]
        if kind is str:
            return value[:MAX_TEXT]
        if depth > MAX_DEPTH:
            return self.write_object(value, parts)
        if isinstance(value, Tensor) and self.is_value(value):
            return ["x", self.number(value, parts)]
        if kind in (list, tuple, torch.Size):
            if len(value) > MAX_ITEMS:
                raise ValueError(f"{len(value)} items are too many")
            tag = "l" if kind is list else "t"
            return [tag, [self.write(v, parts, depth + 1) for v in value]]
        if kind is dict or kind.__name__ == "OrderedDict":
            if len(value) > MAX_ITEMS:
                raise ValueError(f"{len(value)} items are too many")
            pairs = [
                [self.write(k, parts, depth + 1), self.write(v, parts, depth + 1)]
                for k, v in value.items()
            ]
            return ["d", pairs]
        if kind is torch.dtype and value in NAMES:
            return ["dtype", NAMES[value]]
        if kind is torch.device:
            return ["device", str(value)]
        return self.write_object(value, parts)

    def read(self, data: object, message: Message, depth: int = 0) -> object:
        """The value again. WireError for what no side writes."""
        if data is None or type(data) in (bool, int):
            return data
        if type(data) is str:
            return clean(data)
        if not isinstance(data, list) or not data or depth > MAX_DEPTH + 2:
            raise WireError("a value that is none")
        tag, rest = data[0], data[1:]
        if tag == "f" and len(rest) == 1 and isinstance(rest[0], str):
            try:
                return float.fromhex(rest[0])
            except (ValueError, OverflowError):
                raise WireError("a float that is none") from None
        if tag == "x" and len(rest) == 1:
            return message.tensor(rest[0])
        if tag in ("l", "t") and len(rest) == 1 and isinstance(rest[0], list):
            if len(rest[0]) > MAX_ITEMS:
                raise WireError("too many items")
            items = [self.read(v, message, depth + 1) for v in rest[0]]
            return items if tag == "l" else tuple(items)
        if tag == "d" and len(rest) == 1 and isinstance(rest[0], list):
            found = {}
            if len(rest[0]) > MAX_ITEMS:
                raise WireError("too many items")
            for pair in rest[0]:
                if not isinstance(pair, list) or len(pair) != 2:
                    raise WireError("a dict that is none")
                key = self.read(pair[0], message, depth + 1)
                try:
                    found[key] = self.read(pair[1], message, depth + 1)
                except TypeError:
                    raise WireError("a key that is none") from None
            return found
        if tag == "dtype" and len(rest) == 1 and rest[0] in DTYPES:
            return DTYPES[rest[0]]
        if tag == "device" and len(rest) == 1 and rest[0] in ("cpu", "meta"):
            return torch.device(rest[0])
        return self.read_object(tag, rest, message)

    def number(self, t: Tensor, parts: Parts) -> int:
        """A tensor's number in the message; the same tensor has one number."""
        if id(t) not in parts.numbers:
            about = self.place(t) or write_tensor(t, parts)
            about["grad"] = 0 if not t.requires_grad else 1 if t.is_leaf else 2
            elsewhere = getattr(t, "lies_elsewhere", None)
            if isinstance(elsewhere, bool):
                about["away"] = elsewhere
            parts.tensors.append(about)
            parts.sources.append(t)
            parts.numbers[id(t)] = len(parts.tensors) - 1
        return parts.numbers[id(t)]

    def is_value(self, t: Tensor) -> bool:
        """Whether a tensor travels by its numbers."""
        return True

    def place(self, t: Tensor) -> dict | None:
        """Where a tensor lies in memory that both sides keep alike; None when it does not."""
        return None

    def write_object(self, value: object, parts: Parts) -> object:
        raise NotImplementedError

    def read_object(self, tag: str, rest: list, message: Message) -> object:
        raise WireError(f"a value of no kind that there is: {str(tag)[:40]!r}")


# ── memory that both sides keep alike ───────────────────────────────────────────────────────────


@dataclass
class Store:
    """A storage that one side has made, and a copy of it on the other; and its numbers as both
    sides last knew them.
    """

    storage: torch.UntypedStorage
    known: bytes = b""
    bools: bool = False  # a tensor of bools lies in it: bytes are 0 or 1

    @property
    def data(self) -> bytes:
        """Its numbers now."""
        return _whole(self.storage).numpy().tobytes()

    def fill(self, data: bytes) -> None:
        """Take over what the other side has; as many bytes as there are."""
        fresh = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        _whole(self.storage).copy_((fresh != 0) if self.bools else fresh)

    @property
    def needed(self) -> bool:
        """Whether a tensor lies in it."""
        return torch._C._storage_Use_Count(self.storage._cdata) > 1


def _whole(storage: torch.UntypedStorage) -> Tensor:
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (storage.nbytes(),), (1,))


def lying_in(about: dict, stores: dict[int, Store]) -> Tensor:
    """The tensor of a description that names a store. WireError for anything that doesn't fit."""
    store = stores.get(about["store"]) if type(about["store"]) is int else None
    dtype, offset = DTYPES.get(about.get("dtype")), about.get("offset")
    shape, strides = _ints(about.get("shape"), 32), _ints(about.get("strides"), 32)
    if store is None or dtype is None or dtype.is_complex:
        raise WireError("a tensor that lies nowhere")
    if type(offset) is not int or offset < 0 or len(shape) != len(strides):
        raise WireError("a tensor that lies nowhere")
    elements = 1
    for n in shape:
        elements *= n
    reach = (offset + _extent(shape, strides)) * dtype.itemsize
    if elements > MAX_ELEMENTS or reach > store.storage.nbytes():
        raise WireError("a tensor that reaches beyond its numbers")
    with NO_OVERRIDES(), torch.no_grad():
        if dtype == torch.bool and not store.bools:
            store.bools = True
            store.fill(store.data)
        return torch.empty(0, dtype=dtype).set_(store.storage, offset, shape, strides)


def autocast_now() -> str | None:
    """The dtype that is computed in here instead of float32; None for no other."""
    return NAMES.get(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else None


def autocast(name: object) -> contextlib.AbstractContextManager:
    """Compute in what the other side computes in."""
    if name not in ("bfloat16", "float16"):
        return contextlib.nullcontext()
    return torch.autocast("cpu", DTYPES[name])


def left_by(kind: type | None, error: object) -> list[str]:
    """What ends a block of the other side's: nothing, or an error's name and text."""
    return [] if kind is None else [kind.__name__, str(error)]


def leave(target: object, words: list[str]) -> bool:
    """Leave a block for the other side; whether that swallows the error."""
    if not words:
        return bool(type(target).__exit__(target, None, None, None))
    kind = getattr(builtins, words[0], None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        kind = RuntimeError
    error = kind.__new__(kind)
    error.args = tuple(words[1:2])
    try:
        return bool(type(target).__exit__(target, type(error), error, None))
    except BaseException as raised:
        if raised is error:
            return False
        raise


def clean(text: str) -> str:
    """A string with no half of a surrogate pair, cut."""
    return text[:MAX_TEXT].encode("utf-8", "replace").decode("utf-8")


@dataclass
class Message:
    """One message as it was read."""

    kind: str
    body: dict
    about: list[dict]
    blobs: list[bytes]
    tensors: dict[int, Tensor] = field(default_factory=dict)
    stores: dict[int, Store] = field(default_factory=dict)

    def tensor(self, number: object) -> Tensor:
        """Its number-th tensor, each time the same object."""
        if type(number) is not int or not 0 <= number < len(self.about):
            raise WireError("a tensor that the message does not hold")
        if number not in self.tensors:
            about = self.about[number]
            self.tensors[number] = (
                lying_in(about, self.stores) if "store" in about else read_tensor(about, self.blobs)
            )
            if isinstance(self.about[number].get("away"), bool):
                self.tensors[number].lies_elsewhere = self.about[number]["away"]
        return self.tensors[number]

    def grad(self, number: int) -> int:
        """0: no gradient is wanted; 1: of a leaf; 2: of a tensor that something was made of."""
        value = self.about[number].get("grad", 0)
        return value if value in (0, 1, 2) else 0


# ── frames ──────────────────────────────────────────────────────────────────────────────────────


class Line:
    """Two pipes: frames go out by one and come in by the other."""

    def __init__(self, readable: int, writable: int):
        self.readable, self.writable = readable, writable
        self.closed = False  # the numbers may be another pipe's by now
        self.end = float("inf")  # no answer is waited for any longer (time.monotonic)
        os.set_blocking(readable, False)

    def send(self, kind: str, body: dict, parts: Parts | None = None) -> None:
        """One frame. WireError when nobody reads."""
        parts = parts or Parts()
        head = {"kind": kind, "body": body}
        if parts.tensors:
            head["tensors"] = parts.tensors
        if parts.blobs:
            head["sizes"] = [len(b) for b in parts.blobs]
        text = json.dumps(head, separators=(",", ":"), allow_nan=False).encode("utf-8", "replace")
        size = sum(map(len, parts.blobs))
        if len(text) > MAX_HEADER or size > MAX_BYTES:
            raise ValueError("a message too large")
        data = memoryview(b"".join((HEAD.pack(len(text), size), text, *parts.blobs)))
        try:
            while data:
                if self.closed:
                    raise Gone("it is over")
                data = data[os.write(self.writable, data) :]
        except OSError as error:
            raise Gone(f"nobody reads: {error.strerror}") from None

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            if self.closed:
                raise Gone("it is over")
            try:
                chunk = os.read(self.readable, min(count - len(data), 1 << 20))
            except BlockingIOError:
                left = self.end - time.monotonic()
                if left <= 0:
                    raise Late("no answer in time") from None
                select.select([self.readable], [], [], min(left, 3600.0))
                continue
            except OSError as error:
                raise Gone(f"nothing can be read: {error.strerror}") from None
            if not chunk:
                raise Gone("the other side has ended")
            data += chunk
        return bytes(data)

    def receive(self) -> Message:
        """The next frame. WireError for anything else."""
        header, size = HEAD.unpack(self._read(HEAD.size))
        if header > MAX_HEADER or size > MAX_BYTES:
            raise WireError("a message too large")
        try:
            head = json.loads(self._read(header), parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise WireError("no message") from None
        if not isinstance(head, dict):
            raise WireError("no message")
        kind, body = head.get("kind"), head.get("body")
        about, sizes = head.get("tensors", []), head.get("sizes", [])
        if not isinstance(kind, str) or not isinstance(body, dict) or not isinstance(about, list):
            raise WireError("no message")
        if sum(_ints(sizes, 200_000)) != size or not all(isinstance(a, dict) for a in about):
            raise WireError("a message whose parts don't add up")
        data, blobs, at = self._read(size), [], 0
        for n in sizes:
            blobs.append(data[at : at + n])
            at += n
        return Message(kind, body, about, blobs)

    def close(self) -> None:
        """Both pipes."""
        self.closed = True
        for pipe in (self.readable, self.writable):
            with contextlib.suppress(OSError):
                os.close(pipe)


def _numbered(value: object, blobs: list[bytes]) -> list[tuple[int, bytes]]:
    """[[number, number of bytes], …] as (number, bytes)."""
    if not isinstance(value, list) or len(value) > 4 * MAX_STORES:
        raise WireError("no numbers")
    for pair in value:
        two = isinstance(pair, list) and len(pair) == 2 and all(type(n) is int for n in pair)
        if not two or not 0 <= pair[1] < len(blobs):
            raise WireError("no numbers")
    return [(number, blobs[blob]) for number, blob in value]


def _no_constant(name: str) -> None:
    raise ValueError(name)


# ── one side ────────────────────────────────────────────────────────────────────────────────────


class Failure(Exception):
    """An error of the other side's, as plain data."""

    def __init__(self, data: dict):
        super().__init__(data.get("text", ""))
        self.data = data


class Graph(torch.autograd.Function):
    """What was computed on the other side, for a gradient that flows back through it."""

    @staticmethod
    def forward(ctx, back, outputs, *inputs):
        ctx.set_materialize_grads(False)
        ctx.back = back
        return tuple(outputs)

    @staticmethod
    def backward(ctx, *gradients):
        return None, None, *ctx.back(gradients, ctx.next_functions)


@dataclass
class Kept:
    """The ends of one computation that the other side may ask the gradients of."""

    inputs: list[Tensor]  # those that were given, then parameters
    outputs: list[Tensor]
    given: int = 0  # how many were given


class Peer(Codec):
    """One of the two sides: asks, and answers while it waits."""

    def __init__(self, line: Line):
        self.line = line
        self.kept: dict[int, Kept] = {}
        self.forget: list[int] = []  # computations of the other side that nothing refers to now
        self.waiting = 0  # questions without an answer
        self._last = 0
        self._random: Tensor | None = None
        self.random = True  # whether both sides draw the same random numbers
        # whether memory, parameters and gradients are kept alike, and not only sent when asked for
        self.shares = False
        self.stores: dict[int, Store] = {}
        self.store_at: dict[int, int] = {}  # address → number
        self.generators: dict[int, tuple[torch.Generator, bytes]] = {}
        self.sign = 0  # the two sides number what they make in two ways

    def ask(self, kind: str, body: dict, parts: Parts | None = None) -> Message:
        """Send a question; the message that answers it. What it raises is what `fails` gives."""
        parts = parts or Parts()
        if self.forget:
            body["forget"], self.forget = self.forget, []
        self._random_out(body, parts)
        self._stores_out(body, parts)
        self.waiting += 1
        self.line.send(kind, body, parts)
        while True:
            message = self._receive()
            if message.kind not in ("answer", "error"):
                self._serve(message)
                continue
            self.waiting -= 1  # after any other exception nobody knows what comes next
            if message.kind == "answer":
                return message
            self.failed(message)
            raise self.error(message)

    def serve(self) -> None:
        """Answer until the other side ends."""
        while True:
            self._serve(self._receive())

    def _receive(self) -> Message:
        message = self.line.receive()
        message.stores = self.stores
        self._random_in(message)
        self._stores_in(message)
        return message

    def _serve(self, message: Message) -> None:
        for number in message.body.pop("forget", []):
            self.kept.pop(number, None) if type(number) is int else None
        kind, parts = "answer", Parts()
        try:
            body = self.answer(message, parts)
        except WireError:
            raise
        except BaseException as error:
            kind, parts = "error", Parts()
            body = self.describe_error(error, parts)
        self._random_out(body, parts)
        try:
            self._stores_out(body, parts)
            self.line.send(kind, body, parts)
        except ValueError as error:
            self.line.send("error", self.describe_error(error, Parts()))

    def place(self, t: Tensor) -> dict | None:
        if not self.shares or t.requires_grad or t.device.type != "cpu" or type(t) is not Tensor:
            return None
        with NO_OVERRIDES(), torch.no_grad():
            plain = t.layout == torch.strided and not (t.is_conj() or t.is_neg())
            if not plain or t.dtype not in NAMES or t.is_complex():
                return None
            storage = t.untyped_storage()
            if not 0 < storage.nbytes() <= MAX_STORE:
                return None
            number = self.store_at.get(storage.data_ptr())
            store = self.stores.get(number)
            if store is None or store.storage.data_ptr() != storage.data_ptr():
                if len(self.stores) >= MAX_STORES:
                    return None
                number = self._store(storage)
            about = {"dtype": NAMES[t.dtype], "shape": list(t.shape), "store": number}
            return about | {"strides": list(t.stride()), "offset": t.storage_offset()}

    def _store(self, storage: torch.UntypedStorage, number: int | None = None) -> int:
        if number is None:
            self._last += 1
            number = 2 * self._last + self.sign
        self.stores[number] = Store(storage)
        self.store_at[storage.data_ptr()] = number
        return number

    def _unstore(self, number: object) -> None:
        if type(number) is int and (store := self.stores.pop(number, None)) is not None:
            self.store_at.pop(store.storage.data_ptr(), None)

    def _stores_out(self, body: dict, parts: Parts) -> None:
        """Tell what has changed in what both sides keep alike."""
        if not self.shares:
            return
        self.changes_out(body, parts)
        changed, dropped = [], []
        for number, store in list(self.stores.items()):
            if (data := store.data) != store.known:
                store.known = data
                parts.blobs.append(data)
                changed.append([number, len(parts.blobs) - 1])
            # whoever made it says when it is gone: until then it stays where it is on both sides
            if number % 2 == self.sign and not store.needed:
                dropped.append(number)
                self._unstore(number)
        drawn = []
        for number, (generator, known) in self.generators.items():
            if (state := raw(generator.get_state())) != known:
                self.generators[number] = generator, state
                parts.blobs.append(state)
                drawn.append([number, len(parts.blobs) - 1])
        body |= {k: v for k, v in (("stores", changed), ("drop", dropped), ("drawn", drawn)) if v}

    def _stores_in(self, message: Message) -> None:
        if not self.shares:
            return
        body, blobs = message.body, message.blobs
        for number, data in _numbered(body.pop("stores", []), blobs):
            store = self.stores.get(number)
            with NO_OVERRIDES(), torch.no_grad():
                if store is None or store.storage.nbytes() != len(data):
                    self._unstore(number)
                    size = len(data) + sum(s.storage.nbytes() for s in self.stores.values())
                    many = len(self.stores) > 2 * MAX_STORES or size > MAX_STORED
                    if not 0 < len(data) <= MAX_STORE or many:
                        raise WireError("memory that is none")
                    fresh = torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()
                    self._store(fresh, number)
                else:
                    store.fill(data)
            self.stores[number].known = data
        for number in _ints(body.pop("drop", []), MAX_STORES * 2):
            self._unstore(number)
        for number, state in _numbered(body.pop("drawn", []), blobs):
            if number not in self.generators:
                raise WireError("no such generator")
            generator = self.generators[number][0]
            try:
                generator.set_state(torch.frombuffer(bytearray(state or b"0"), dtype=torch.uint8))
            except (RuntimeError, TypeError):
                raise WireError("no random numbers") from None
            self.generators[number] = generator, state
        self.changes_in(message)

    def changes_out(self, body: dict, parts: Parts) -> None:
        """What a side has to tell besides."""

    def changes_in(self, message: Message) -> None:
        """And to take over."""

    def _random_out(self, body: dict, parts: Parts) -> None:
        if not self.random:
            return
        with NO_OVERRIDES():
            state = torch.default_generator.get_state()
            if self._random is None or not torch.equal(state, self._random):
                self._random = state
                parts.blobs.append(raw(state))
                body["random"] = len(parts.blobs) - 1

    def _random_in(self, message: Message) -> None:
        number = message.body.pop("random", None)
        if number is None or not self.random:
            return
        if type(number) is not int or not 0 <= number < len(message.blobs):
            raise WireError("no random numbers")
        with NO_OVERRIDES():
            state = torch.frombuffer(bytearray(message.blobs[number] or b"\0"), dtype=torch.uint8)
            try:
                torch.default_generator.set_state(state)
            except (RuntimeError, TypeError):
                raise WireError("no random numbers") from None
            self._random = state

    # what a side fills in

    def answer(self, message: Message, parts: Parts) -> dict:
        raise NotImplementedError

    def describe_error(self, error: BaseException, parts: Parts) -> dict:
        raise NotImplementedError

    def error(self, message: Message) -> BaseException:
        return Failure(message.body)

    def failed(self, message: Message) -> None:
        """For what comes along with an error."""

    # calls, with gradients

    def given(self, message: Message) -> list[tuple[Tensor, Tensor]]:
        """The message's tensors that gradients are wanted of: (what to differentiate by, the
        tensor itself). One that was made of others is so here, too.
        """
        found = []
        for number in range(len(message.about)):
            grad = message.grad(number)
            if grad:
                leaf = message.tensor(number)
                with NO_OVERRIDES():
                    away = getattr(leaf, "lies_elsewhere", None)
                    leaf.requires_grad_()
                    if grad == 2:
                        with torch.enable_grad():
                            message.tensors[number] = leaf.clone(
                                memory_format=torch.preserve_format
                            )
                        if away is not None:
                            message.tensors[number].lies_elsewhere = away
                found.append((leaf, message.tensors[number]))
        return found

    def keep(
        self, inputs: list[Tensor], parts: Parts, body: dict, parameters: Iterable[Tensor] = ()
    ) -> None:
        """Remember what was computed, when something in the answer has a gradient."""
        outputs = [i for i, t in enumerate(parts.sources) if t.requires_grad]
        if outputs and torch.is_grad_enabled():
            self._last += 1
            ends = [parts.sources[i] for i in outputs]
            self.kept[self._last] = Kept([*inputs, *parameters], ends, len(inputs))
            body["kept"], body["outputs"] = self._last, outputs

    def back(self, message: Message, parts: Parts) -> dict:
        """Answer a question for gradients."""
        number = message.body.get("kept")
        kept = self.kept.get(number) if type(number) is int else None
        wanted = self.read(message.body.get("gradients"), message)
        if kept is None or not isinstance(wanted, list) or len(wanted) != len(kept.outputs):
            raise WireError("gradients of nothing")
        pairs = [(o, g) for o, g in zip(kept.outputs, wanted, strict=True) if g is not None]
        ends, gradients = [o for o, _ in pairs], [g for _, g in pairs]
        found: list[Tensor | None] = [None] * len(kept.inputs)
        with torch.enable_grad():
            if message.body.get("adds") is True:  # to .grad, where hooks wait for it
                for t in kept.inputs[: kept.given]:
                    t.grad = None
                torch.autograd.backward(ends, gradients, retain_graph=True)
                found[: kept.given] = [t.grad for t in kept.inputs[: kept.given]]
            elif live := [i for i, t in enumerate(kept.inputs) if t.requires_grad]:
                inputs = [kept.inputs[i] for i in live]
                its = torch.autograd.grad(
                    ends, inputs, gradients, retain_graph=True, allow_unused=True
                )
                for i, g in zip(live, its, strict=True):
                    found[i] = g
        return {"gradients": self.write([None if g is None else g.detach() for g in found], parts)}

    def link(self, message: Message, inputs: list[Tensor], adds: bool = False) -> None:
        """Make the answer's tensors those of a computation of these inputs, where gradients can
        flow. adds: a whole backward pass lets the other side add to its .grad.
        """
        number, outputs = message.body.get("kept"), message.body.get("outputs")
        if number is None or not outputs or not torch.is_grad_enabled():
            return
        outputs = list(dict.fromkeys(_ints(outputs, 10_000)))
        wanted = [t.requires_grad for t in inputs]

        def back(gradients: tuple, edges: tuple) -> list[Tensor | None]:
            parts = Parts()
            detached = [None if g is None else g.detach() for g in gradients]
            body = {"kept": number, "gradients": self.write(detached, parts)}
            if adds:
                body["adds"] = torch._C._will_engine_execute_node(edges[-1][0])
            answer = self.ask("back", body, parts)
            found = self.read(answer.body.get("gradients"), answer)
            if not isinstance(found, list) or len(found) != len(inputs):
                raise WireError("gradients of something else")
            for g, t in zip(found, inputs, strict=True):
                fits = isinstance(g, Tensor) and g.shape == t.shape and g.dtype == t.dtype
                if g is not None and not fits:
                    raise WireError("a gradient of another shape")
            found = [g if want else None for g, want in zip(found, wanted, strict=True)]
            return [*found, None] if adds else found

        held = _Held(self, number)
        back.held = held  # goes with the graph
        with NO_OVERRIDES():
            away = [getattr(message.tensor(i), "lies_elsewhere", None) for i in outputs]
            # one more, whose way back is asked for by whole backward passes alone
            more = [torch.zeros((), requires_grad=True)] if adds else []
            made = Graph.apply(back, [message.tensor(i) for i in outputs], *inputs, *more)
            for i, t, elsewhere in zip(outputs, made, away, strict=True):
                if elsewhere is not None:
                    t.lies_elsewhere = elsewhere
                message.tensors[i] = t


class _Held:
    """Tells the other side, some time after it is gone, that a computation can be forgotten."""

    def __init__(self, peer: Peer, number: int):
        self.peer, self.number = peer, number

    def __del__(self):
        self.peer.forget.append(self.number)
