"""GGUF files of llama.cpp's `gpt2` architecture: settings, tensors and tokenizer, in and out.

A file is: the magic `GGUF`; the version, and how many tensors and metadata entries there are; the
entries; one line per tensor (name, sizes, type, offset); the data.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
The `gguf` package writes files and turns quantized blocks into numbers. The header is read here,
because that package's reader believes what a file says about its own lengths.

Matrices are stored as in nn.Linear, (out, in), as llama.cpp's converter does; `open_gguf` returns
them as in Hugging Face's files, Conv1D's (in, out).
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from gpt2.common.files import short, written_aside
from gpt2.text.roles import END_OF_TEXT, FoundRoles, Roles

if TYPE_CHECKING:
    import gguf
    from torch import Tensor

    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import JSONTokenizer, Tokenizer

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ARCHITECTURE = "gpt2"

# GPT-2's header takes 2 MB, nearly all of it the vocabulary. The limits keep a hostile file from
# filling the memory with strings.
MAX_HEADER_BYTES = 32 * 2**20
MAX_STRINGS = 2**20
MAX_ENTRIES = 2**16
MAX_NAME_BYTES = 2**16 - 1
MAX_ALIGNMENT = 2**16

# Types of tensors: number in the file → name, numbers per block, bytes per block. `llama-quantize`
# mixes them: a file called Q4_0 often has its table in Q6_K.
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
}
PLAIN = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}  # type → PyTorch's name for it

# What `save_gguf` writes: its name → LlamaFileType, for `general.file_type`
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7}

# Their names for the tensors outside the blocks and inside each, and Hugging Face's
OUTSIDE = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f", "output": "lm_head"}
INSIDE = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}

# Scalars of the metadata: number in the file → struct's code. 8 is a string, 9 an array.
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "B",
    10: "Q",
    11: "q",
    12: "d",
}
UINT32, BOOL, STRING, ARRAY = 4, 7, 8, 9
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # types of tokens

# Converters before 2024 left the rule by which text is cut into words out, or called it "default"
PRE_TOKENIZERS = (None, "default", "gpt-2")
CHUNK = 2**18  # numbers converted at a time


# ---------------------------------------------------------------------------------- the header


class TensorInfo(NamedTuple):
    """Where a tensor is in the file. shape: in PyTorch's order, the slowest dimension first."""

    type: str
    shape: tuple[int, ...]
    offset: int  # from the file's start
    nbytes: int


class Header(NamedTuple):
    """What a file says about itself, compared with its size."""

    metadata: dict[str, Any]
    tensors: dict[str, TensorInfo]


class _Reader:
    """The bytes of a header, in order. `take` never reads past the file's end or the limit."""

    def __init__(self, file: BinaryIO, path: Path):
        self.file, self.path = file, path
        self.size = os.fstat(file.fileno()).st_size
        self.at = 0
        self.strings = 0

    def refuse(self, reason: str) -> ValueError:
        return ValueError(f"{self.path} is not a whole GGUF file: {reason}")

    def room(self, wanted: int, what: str) -> None:
        """ValueError unless `wanted` more bytes are there and may be read."""
        if wanted > self.size - self.at:
            raise self.refuse(
                f"{what} should take {wanted:.6g} bytes at byte {self.at}, the file has {self.size}"
            )
        if wanted > MAX_HEADER_BYTES - self.at:
            raise self.refuse(f"its header takes more than the {MAX_HEADER_BYTES} bytes to be read")

    def take(self, count: int, what: str) -> bytes:
        self.room(count, what)
        found = self.file.read(count)
        if len(found) != count:
            raise self.refuse(f"it ends within {what}")
        self.at += count
        return found

    def number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def text(self, what: str, limit: int = MAX_HEADER_BYTES) -> str:
        length = self.number("Q", f"the length of {what}")
        if length > limit:
            raise self.refuse(f"{what} should take {length:.6g} bytes; at most {limit} are read")
        found = self.take(length, what)
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{what} is not UTF-8: {short(found)}") from None

    def name(self, what: str) -> str:
        found = self.text(what, MAX_NAME_BYTES)
        if not found or not found.isprintable():
            raise self.refuse(f"{what} is {short(found)!r}")
        return found

    def value(self, kind: int, what: str) -> Any:
        """One metadata value: int, float, bool, str or a list of one kind of them."""
        if kind == STRING:
            return self.text(what)
        if kind == ARRAY:
            return self._array(what)
        if kind not in SCALARS:
            raise self.refuse(f"{what} is of the unknown type {kind}")
        found = self.number(SCALARS[kind], what)
        if kind == BOOL:
            if found > 1:
                raise self.refuse(f"{what} is a truth value of {found}")
            return bool(found)
        return found

    def _array(self, what: str) -> list[Any]:
        kind = self.number("I", f"the type of {what}")
        count = self.number("Q", f"the length of {what}")
        if kind == STRING:
            self.strings += count
            if self.strings > MAX_STRINGS:
                raise self.refuse(f"{what} makes it {self.strings:.6g} strings; {MAX_STRINGS} fit")
            self.room(8 * count, what)
            return [self.text(what) for _ in range(count)]
        if kind not in SCALARS:
            raise self.refuse(f"{what} is an array of type {kind}")
        code = SCALARS[kind]
        size = struct.calcsize(f"<{code}")
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise self.refuse(f"{what} makes it {self.strings:.6g} values; {MAX_STRINGS} fit")
        return list(struct.unpack(f"<{count}{code}", self.take(size * count, what)))


def read_header(path: str | os.PathLike[str]) -> Header:
    """A GGUF file → its metadata and its tensors' places, checked against the file's size.

    ValueError that says what is wrong with the file. Of any architecture.
    """
    path = Path(path)
    try:
        status = path.stat()
        return _read_header(path, (status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=2)
def _read_header(path: Path, stamp: tuple[int, ...]) -> Header:
    """`read_header`; settings, tensors, tokenizer and roles are all taken from it, one by one."""
    with path.open("rb") as file:
        reader = _Reader(file, path)
        if reader.take(min(4, reader.size), "the magic") != MAGIC:
            raise reader.refuse("it does not begin with GGUF")
        version = reader.number("I", "the version")
        if version not in VERSIONS:
            if int.from_bytes(version.to_bytes(4, "little"), "big") in VERSIONS:
                raise reader.refuse("it is big-endian; only little-endian files are read")
            raise reader.refuse(f"it is of version {version}; 2 and 3 are read")
        n_tensors = reader.number("Q", "the number of tensors")
        n_entries = reader.number("Q", "the number of metadata entries")
        for count, what in ((n_tensors, "tensors"), (n_entries, "metadata entries")):
            if count > MAX_ENTRIES:
                raise reader.refuse(f"it claims {count:.6g} {what}; at most {MAX_ENTRIES} are read")
        metadata: dict[str, Any] = {}
        for i in range(n_entries):
            key = reader.name(f"metadata key {i}")
            if key in metadata:
                raise reader.refuse(f"{short(key)} occurs twice")
            kind = reader.number("I", f"the type of {short(key)}")
            if key == "general.alignment" and kind != UINT32:
                raise reader.refuse(f"general.alignment is of type {kind}, not uint32")
            metadata[key] = reader.value(kind, short(key))
        lines = [_tensor_line(reader, i) for i in range(n_tensors)]
        return Header(metadata, _place(reader, metadata.get("general.alignment", 32), lines))


def _tensor_line(reader: _Reader, i: int) -> tuple[str, TensorInfo]:
    """One line of the tensor table → name and place, the offset still from the data's start."""
    name = reader.name(f"the name of tensor {i}")
    label = short(name)
    n_dims = reader.number("I", f"{label}'s number of dimensions")
    if not 1 <= n_dims <= 4:
        raise reader.refuse(f"{label} has {n_dims} dimensions, not 1 to 4")
    # the fastest dimension first
    shape = tuple(reader.number("Q", f"{label}'s sizes") for _ in range(n_dims))[::-1]
    kind = reader.number("I", f"{label}'s type")
    offset = reader.number("Q", f"{label}'s offset")
    if kind not in TYPES:
        known = ", ".join(name for name, _, _ in TYPES.values())
        raise reader.refuse(f"{label} is of type {kind}; those read are {known}")
    type_name, block, block_bytes = TYPES[kind]
    if 0 in shape or shape[-1] % block:
        raise reader.refuse(
            f"{label} of shape {shape} is not made of {type_name} blocks of {block}"
        )
    nbytes = math.prod(shape) // block * block_bytes
    if max(nbytes, offset) > reader.size:
        raise reader.refuse(
            f"{label} of shape {shape} should take {nbytes:.6g} bytes from byte {offset:.6g} of "
            f"the data, the file has {reader.size}"
        )
    return name, TensorInfo(type_name, shape, offset, nbytes)


def _place(
    reader: _Reader, alignment: int, lines: list[tuple[str, TensorInfo]]
) -> dict[str, TensorInfo]:
    """The tensor table with offsets from the file's start.

    ValueError where tensors overlap, leave gaps, or end anywhere but at the file's end.
    """
    if alignment & (alignment - 1) or not 8 <= alignment <= MAX_ALIGNMENT:
        raise reader.refuse(
            f"general.alignment is {alignment}, not a power of two from 8 to {MAX_ALIGNMENT}"
        )
    start = -(-reader.at // alignment) * alignment
    placed: dict[str, TensorInfo] = {}
    for name, info in lines:
        if name in placed:
            raise reader.refuse(f"{short(name)} occurs twice")
        placed[name] = info._replace(offset=start + info.offset)
    end = start
    for name, info in sorted(placed.items(), key=lambda item: item[1].offset):
        if info.offset % alignment or not end <= info.offset < end + alignment:
            raise reader.refuse(
                f"{short(name)} begins at byte {info.offset}, where byte {end} is due: tensors "
                "overlap, leave a gap or are not aligned"
            )
        end = info.offset + info.nbytes
    if not end <= reader.size < end + alignment:
        raise reader.refuse(f"its tensors end at byte {end}, the file has {reader.size}")
    return placed


# ------------------------------------------------------------------------------- the model in it


class GGUFTensors(Mapping[str, "Tensor"]):
    """A file's tensors by Hugging Face's names and in their orientation, each read when asked for.

    F32, F16 and BF16 come as they are; the rest is float32.
    """

    def __init__(self, path: Path, infos: dict[str, TensorInfo]):
        self.path, self.infos = path, infos

    def __getitem__(self, key: str) -> Tensor:
        tensor = read_tensor(self.path, self.infos[key])
        return tensor.t() if ".c_" in key and tensor.dim() == 2 else tensor

    def __contains__(self, key: object) -> bool:
        return key in self.infos

    def __iter__(self) -> Iterator[str]:
        return iter(self.infos)

    def __len__(self) -> int:
        return len(self.infos)


def open_gguf(path: str | os.PathLike[str]) -> tuple[dict[str, Any], GGUFTensors]:
    """A GGUF file → GPT2Config's arguments, and the tensors by Hugging Face's names.

    Dropout rates are not part of such a file; they are GPT-2's. ValueError that says what is wrong,
    for anything that is not a whole GPT-2.
    """
    path = Path(path)
    header = read_header(path)
    settings = _settings(path, header)
    infos = _named(path, settings, header.tensors)
    return settings, GGUFTensors(path, _one_table(path, infos))


def _settings(path: Path, header: Header) -> dict[str, Any]:
    """The metadata → GPT2Config's arguments. ValueError that names the key and its value."""
    metadata = header.metadata
    architecture = metadata.get("general.architecture")
    if architecture != ARCHITECTURE:
        raise ValueError(
            f"{path}: general.architecture is {short(architecture)}; this GPT-2 needs "
            f"{ARCHITECTURE}"
        )
    if metadata.get("split.count", 1) not in (0, 1):
        raise ValueError(
            f"{path} is one of {short(metadata['split.count'])} parts; put them together first: "
            "`llama-gguf-split --merge FIRST.gguf WHOLE.gguf`"
        )

    def size(key: str) -> int:
        value = metadata.get(f"{ARCHITECTURE}.{key}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
            raise ValueError(
                f"{path}: {ARCHITECTURE}.{key} must be a positive int, got {short(value)}"
            )
        return value

    def require(key: str, wanted: Any) -> None:
        if (value := metadata.get(f"{ARCHITECTURE}.{key}", wanted)) != wanted:
            raise ValueError(
                f"{path}: {ARCHITECTURE}.{key} is {short(value)}; this GPT-2 needs {wanted}"
            )

    table = header.tensors.get("token_embd.weight")
    if table is None:
        raise ValueError(f"{path} does not hold a GPT-2: missing token_embd.weight")
    settings: dict[str, Any] = {
        "vocab_size": table.shape[0],
        "n_positions": size("context_length"),
        "n_embd": size("embedding_length"),
        "n_layer": size("block_count"),
        "n_head": size("attention.head_count"),
    }
    require("feed_forward_length", 4 * settings["n_embd"])
    require("attention.head_count_kv", settings["n_head"])
    require("attention.causal", True)
    eps = metadata.get(f"{ARCHITECTURE}.attention.layer_norm_epsilon")
    if not isinstance(eps, float) or not 0 < eps <= 1:
        raise ValueError(
            f"{path}: {ARCHITECTURE}.attention.layer_norm_epsilon must be a number in (0, 1], "
            f"got {short(eps)}"
        )
    # the file has it in float32, whose 1e-5 is 9.999999747e-06 in Python's numbers
    settings["layer_norm_epsilon"] = float(f"{eps:.7g}")
    return settings


def _shapes(settings: dict[str, Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{their name: (Hugging Face's name, shape)} of every tensor of a GPT-2, the head included."""
    V, P, C = (settings[key] for key in ("vocab_size", "n_positions", "n_embd"))
    sizes = {
        "token_embd": {"weight": (V, C)},
        "position_embd": {"weight": (P, C)},
        "output_norm": {"weight": (C,), "bias": (C,)},
        "output": {"weight": (V, C)},
    }
    wide = {"attn_qkv": (3 * C, C), "attn_output": (C, C), "ffn_up": (4 * C, C)}
    wide |= {"ffn_down": (C, 4 * C), "attn_norm": (C,), "ffn_norm": (C,)}
    found = {
        f"{name}.{kind}": (f"{OUTSIDE[name]}.{kind}", shape)
        for name, kinds in sizes.items()
        for kind, shape in kinds.items()
    }
    for i in range(settings["n_layer"]):
        for name, shape in wide.items():
            theirs = f"h.{i}.{INSIDE[name]}"
            found[f"blk.{i}.{name}.weight"] = (f"{theirs}.weight", shape)
            found[f"blk.{i}.{name}.bias"] = (f"{theirs}.bias", shape[:1])
    return found


def _named(
    path: Path, settings: dict[str, Any], tensors: dict[str, TensorInfo]
) -> dict[str, TensorInfo]:
    """The tensor table by Hugging Face's names. ValueError that names every tensor that is
    missing, unexpected or of another shape.
    """
    if settings["n_layer"] > len(tensors):
        raise ValueError(
            f"{path}: {ARCHITECTURE}.block_count = {settings['n_layer']}, but the file holds "
            f"{len(tensors)} tensors"
        )
    wanted = _shapes(settings)
    problems = [
        f"{name} is {tensors[name].shape}, the metadata asks for {shape}"
        for name, (_, shape) in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems += [f"unexpected {short(name)}" for name in tensors if name not in wanted]
    needed = [name for name in wanted if name != "output.weight"]
    problems += [f"missing {name}" for name in needed if name not in tensors]
    if problems:
        shown = problems[:6]
        more = f" and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
        raise ValueError(f"{path} does not hold this GPT-2: {'; '.join(shown)}{more}")
    return {theirs: tensors[name] for name, (theirs, _) in wanted.items() if name in tensors}


def _one_table(path: Path, infos: dict[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Embeddings and head that are the same table in two types → the finer of the two for both.

    `llama-quantize` rounds the head of a file that stores it less than the embeddings. Tables of
    one type stay as they are; the caller compares them.
    """
    wte, head = infos["wte.weight"], infos.get("lm_head.weight")
    if head is None or head.type == wte.type:
        return infos
    finer, coarser = sorted((wte, head), key=lambda info: info.nbytes, reverse=True)
    far = size = 0.0
    for a, b in zip(_pieces(path, finer), _pieces(path, coarser), strict=True):
        a, b = a.double(), b.double()
        far += float((a - b).square().sum())
        size += float(a.square().sum())
    # rounding to two bits loses less than half (in root mean square), another table is √2 away
    if not far <= size / 4:
        raise ValueError(f"{path}: output.weight is not token_embd.weight; GPT-2's head is tied")
    return {key: info for key, info in infos.items() if key != "lm_head.weight"} | {
        "wte.weight": finer
    }


# ---------------------------------------------------------------------------------- the numbers


def read_tensor(path: Path, info: TensorInfo) -> Tensor:
    """One tensor, as PyTorch lays it out."""
    import torch

    out = torch.empty(info.shape, dtype=getattr(torch, PLAIN.get(info.type, "float32")))
    if info.type in PLAIN and sys.byteorder == "little":
        raw = memoryview(out.view(-1).view(torch.uint8).numpy())
        with path.open("rb") as file:
            file.seek(info.offset)
            if file.readinto(raw) != info.nbytes:
                raise ValueError(f"{path} has become shorter while it was read")
        return out
    rows, at = out.view(-1, info.shape[-1]), 0
    for piece in _pieces(path, info):
        rows[at : at + len(piece)] = piece
        at += len(piece)
    return out


def _pieces(path: Path, info: TensorInfo) -> Iterator[Tensor]:
    """A tensor's rows in order, some at a time: (n, row), float32."""
    import numpy as np
    import torch

    width = info.shape[-1]
    rows = math.prod(info.shape) // width
    row_bytes = info.nbytes // rows
    step = max(1, CHUNK // width)
    with path.open("rb") as file:
        file.seek(info.offset)
        for first in range(0, rows, step):
            n = min(step, rows - first)
            raw = file.read(n * row_bytes)
            if len(raw) != n * row_bytes:
                raise ValueError(f"{path} has become shorter while it was read")
            blocks = np.frombuffer(raw, np.uint8).reshape(n, row_bytes)
            yield torch.from_numpy(_dequantize(blocks, info.type))


def _dequantize(blocks: Any, type_name: str) -> Any:
    """Rows of a type's blocks as bytes (n, row's bytes) → numbers (n, row), float32."""
    import numpy as np

    if type_name in ("F32", "F16"):
        return blocks.view(f"<f{4 if type_name == 'F32' else 2}").astype(np.float32)
    package = _package()
    with np.errstate(all="ignore"):  # a hostile scale may be infinite
        return package.dequantize(blocks, package.GGMLQuantizationType[type_name])


def _package() -> Any:
    """The `gguf` package. ValueError that says how to get it."""
    try:
        import gguf
    except ImportError:
        raise ValueError(
            "quantized GGUF files, and writing any, need the gguf package: `pip install gguf`"
        ) from None
    return gguf


# -------------------------------------------------------------------------------- the tokenizer


def filler(i: int) -> str:
    """What llama.cpp's converter, and `save_gguf`, call a row of the table without a token."""
    return f"[PAD{i}]"


ROLE_KEYS = {
    "eos": ("eos_token_id", "eot_token_id", "eom_token_id"),
    "bos": ("bos_token_id",),
    "pad": ("padding_token_id",),
}


def read_roles(path: str | os.PathLike[str]) -> FoundRoles:
    """A GGUF file → the roles that its metadata gives tokens, the ends of turns among the ends.

    Without any, `<|endoftext|>` ends and begins a text, where it is a token. An id that the table
    lacks is passed over with a note. ValueError that names the key and a value that is not an id.
    """
    path = Path(path)
    header = read_header(path)
    table = header.tensors.get("token_embd.weight")
    rows = None if table is None else table.shape[0]
    tokens = header.metadata.get("tokenizer.ggml.tokens")
    named = tokens if isinstance(tokens, list) else []
    last = named.index(END_OF_TEXT) if END_OF_TEXT in named else None
    found: dict[str, list[int]] = {}
    notes = []
    for kind, keys in ROLE_KEYS.items():
        ids = found.setdefault(kind, [])
        for key in keys:
            i = header.metadata.get(f"tokenizer.ggml.{key}")
            if i is None:
                continue
            if isinstance(i, bool) or not isinstance(i, int) or i < 0:
                raise ValueError(
                    f"{path}: tokenizer.ggml.{key} must be a token's id, got {short(i)}"
                )
            if rows is not None and i >= rows:
                notes.append(f"{path}: tokenizer.ggml.{key} {i} is not a row of the model's {rows}")
            elif i not in ids:
                ids.append(i)
        if not ids and kind != "pad" and last is not None and (rows is None or last < rows):
            ids.append(last)
    roles = Roles(
        tuple(found["eos"]), next(iter(found["bos"]), None), next(iter(found["pad"]), None)
    )
    return FoundRoles(roles, roles, tuple(notes))


def read_tokenizer(path: str | os.PathLike[str]) -> JSONTokenizer:
    """A GGUF file → its byte-level BPE. ValueError for another kind, or when there is none."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    from gpt2.text.tokenizers import JSONTokenizer

    metadata = read_header(path).metadata

    def get(key: str) -> Any:
        return metadata.get(f"tokenizer.ggml.{key}")

    if (kind := get("model")) != "gpt2":
        raise ValueError(
            f"{path}: tokenizer.ggml.model is {short(kind)}; gpt2 (byte-level BPE) is read"
        )
    if (pre := get("pre")) not in PRE_TOKENIZERS:
        raise ValueError(
            f"{path}: tokenizer.ggml.pre is {short(pre)}; text is cut into words by GPT-2's rule "
            "alone (gpt-2)"
        )
    tokens, merges, types = get("tokens"), get("merges"), get("token_type")
    for name, value in (("tokens", tokens), ("merges", merges)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError(f"{path}: tokenizer.ggml.{name} is not a list of strings")
    if len(set(tokens)) != len(tokens):
        raise ValueError(f"{path}: tokenizer.ggml.tokens holds a token twice")
    types = [NORMAL] * len(tokens) if types is None else types
    if not isinstance(types, list) or len(types) != len(tokens):
        raise ValueError(f"{path}: tokenizer.ggml.token_type has not one entry per token")
    pairs = []
    for merge in merges:
        left, _, right = merge.partition(" ")
        if not left or not right or " " in right:
            raise ValueError(f"{path}: {short(merge)!r} in tokenizer.ggml.merges is not a pair")
        pairs.append((left, right))
    # a row that was only named to fill the list is not a token
    real = [
        (i, token, type_)
        for i, (token, type_) in enumerate(zip(tokens, types, strict=True))
        if not (type_ == UNUSED and token == filler(i))
    ]
    vocabulary = {token: i for i, token, _ in real}
    try:
        backend = Backend(models.BPE(vocab=vocabulary, merges=pairs))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens(
            [
                AddedToken(token, special=True, normalized=False)
                for _, token, type_ in real
                if type_ == CONTROL or token == END_OF_TEXT
            ]
        )
        backend.add_tokens(
            [
                AddedToken(token, special=False, normalized=False)
                for _, token, type_ in real
                if type_ == USER_DEFINED and token != END_OF_TEXT
            ]
        )
        tokenizer = JSONTokenizer(backend, f"{path}'s tokenizer")
        tokenizer.roles = read_roles(path).tokenizer.only(tokenizer.has)
        tokenizer.begins = get("add_bos_token") is True
        return tokenizer
    except ValueError:
        raise
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{path}: its tokenizer cannot be read: {error}") from None


class Vocabulary(NamedTuple):
    """A tokenizer as a GGUF file has it."""

    tokens: list[str]  # in GPT-2's visible spelling, in the order of their ids
    types: list[int]
    merges: list[str]


def vocabulary(tokenizer: Tokenizer, vocab_size: int, roles: Roles) -> Vocabulary:
    """A tokenizer → llama.cpp's byte-level BPE that cuts every text into the same ids, with as many
    tokens as the model's table has rows.

    One token per character works as long as every character is one byte, that is ASCII: that is
    BPE without merges. ValueError, with what can be done, for any other tokenizer.
    """
    from gpt2.text.tokenizers import BYTE_OF, GPT2Tokenizer, JSONTokenizer

    if isinstance(tokenizer, GPT2Tokenizer):
        tokenizer = tokenizer.as_json()
    if not isinstance(tokenizer, JSONTokenizer):
        raise ValueError(f"no way is known to write a {tokenizer.__class__.__name__} as GGUF")
    described = tokenizer.describe()
    model = described["model"]

    def refuse(reason: str) -> ValueError:
        return ValueError(
            f"a GGUF vocabulary of the gpt2 kind is byte-level BPE with GPT-2's rule for words; "
            f"{reason}. Export without a tokenizer (--no-tokenizer), or to a folder (--out)"
        )

    if described.get("normalizer"):
        raise refuse(f"this tokenizer changes the text first ({described['normalizer']['type']})")
    added = {token["id"]: token for token in described["added_tokens"]}
    if any(token["lstrip"] or token["rstrip"] for token in added.values()):
        raise refuse("this one has added tokens that swallow blanks around them")
    byte_level = (described.get("decoder") or {}).get("type") == "ByteLevel"
    if byte_level:
        pre = described.get("pre_tokenizer") or {}
        if model["type"] != "BPE" or pre.get("type") != "ByteLevel":
            raise refuse(f"this one is {model['type']} after {pre.get('type')}")
        if pre.get("add_prefix_space") or not pre.get("use_regex", True):
            raise refuse("this one cuts text into words otherwise")
        odd = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")
        if any(model.get(key) for key in (*odd, "fuse_unk", "byte_fallback", "ignore_merges")):
            raise refuse("this one's BPE has options that it has not")
        spelled = dict(model["vocab"])
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    else:
        char_of = {byte: char for char, byte in BYTE_OF.items()}
        plain = {t: i for t, i in model["vocab"].items() if i not in added}
        if wrong := next((t for t in plain if len(t.encode("utf-8")) != 1), None):
            raise refuse(
                f"this one has the token {wrong!r}, which is more than one byte. Prepare the text "
                "with --tokenizer bpe to train such a vocabulary"
            )
        if model["type"] != "WordLevel" or model.get("unk_token") in plain:
            raise refuse(f"this one is a {model['type']} with a token for unknown characters")
        spelled = {char_of[token.encode()[0]]: i for token, i in plain.items()}
        merges = []
    names: dict[int, str] = {i: token for token, i in spelled.items()}
    names |= {i: token["content"] for i, token in added.items()}
    tokens = [names.get(i, filler(i)) for i in range(vocab_size)]
    # a token that the model lacks: no text that needs it can be read, and the merges end before it
    there = set(tokens)
    merges = [merge for merge in merges if merge.replace(" ", "") in there]
    joined = {merge.replace(" ", "") for merge in merges}
    parts = {*roles.eos, roles.bos, roles.pad}
    types = []
    for i, token in enumerate(tokens):
        special = CONTROL if i in added and added[i]["special"] else USER_DEFINED
        kind = special if i in added else NORMAL if i in names else UNUSED
        # what no text becomes and what has a role is not printed; a line feed that ends texts is
        if i in parts and kind != CONTROL and len(token) > 1 and token not in joined:
            kind = CONTROL
        types.append(kind)
    return Vocabulary(tokens, types, merges)


# -------------------------------------------------------------------------------------- writing


def stored_type(name: str, shape: tuple[int, ...], wanted: str) -> str:
    """Which type `save_gguf` stores a tensor in, by its name in the file.

    As llama.cpp's converter does: vectors and the positions stay F32, and a matrix whose rows are
    not whole blocks is F16 in a quantized file.
    """
    if len(shape) == 1 or name == "position_embd.weight":
        return "F32"
    if wanted.startswith("q") and shape[-1] % 32:
        return "F16"
    return wanted.upper()


def save_gguf(
    model: GPT2Model,
    path: str | os.PathLike[str],
    tokenizer: Tokenizer | None = None,
    type: str = "f32",
    roles: Roles | None = None,
) -> Path:
    """A model → a GGUF file for llama.cpp, `transformers` and us.

    roles: of the model's tokens; None: the tokenizer's. The format has room for three end tokens:
    of the text, of a turn and of a message.

    type: "f32" keeps every bit. "f16" rounds matrices to float16. "q8_0" has whole multiples of a
    step s = max|w| / 127 in each block of 32 and is off by at most s/2; "q4_0" has s = max|w| / 8
    and is off by at most s. (In both the step itself is a float16, which adds up to 2⁻¹¹ max|w|.)
    Dropout rates are not stored. Written aside and renamed. ValueError for weights that the type
    cannot hold, and for a tokenizer that the format cannot.
    """
    import numpy as np

    from gpt2.formats.parameters import model_tensors

    if type not in FILE_TYPES:
        raise ValueError(f"type must be one of {', '.join(FILE_TYPES)}, got {type!r}")
    package = _package()
    path = Path(os.path.abspath(path))
    if path.is_dir():
        raise ValueError(f"{path} is a folder; a GGUF file is one file")
    config = model.config
    settings = {key: getattr(config, key) for key in ("vocab_size", "n_positions", "n_embd")}
    shapes = _shapes(settings | {"n_layer": config.n_layer})
    tensors = dict(model_tensors(model))
    roles = (Roles() if tokenizer is None else tokenizer.roles) if roles is None else roles
    roles = roles.within(config.vocab_size)
    words = None if tokenizer is None else vocabulary(tokenizer, config.vocab_size, roles)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _named_errors(path),
        written_aside(path) as part,
        contextlib.closing(_writer(package, part)) as writer,
    ):
        _add_metadata(writer, model, words, type, roles, tokenizer is not None and tokenizer.begins)
        plan = []
        for name, (theirs, shape) in shapes.items():
            if name == "output.weight":
                continue  # a file without it ties the head to the embeddings
            kind = stored_type(name, shape, type)
            _, block, block_bytes = TYPES[package.GGMLQuantizationType[kind].value]
            nbytes = math.prod(shape) // block * block_bytes
            quantized = kind not in PLAIN
            row = (*shape[:-1], shape[-1] // block * block_bytes)
            writer.add_tensor_info(
                name,
                row if quantized else shape,
                np.dtype("uint8" if quantized else "f2" if kind == "F16" else "f4"),
                nbytes,
                package.GGMLQuantizationType[kind],
            )
            plan.append((name, theirs, kind))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for name, theirs, kind in plan:
            tensor = tensors[theirs]
            # GGUF stores a linear layer as (out, in), a Conv1D's matrix turned
            tensor = tensor.t() if ".c_" in theirs and tensor.dim() == 2 else tensor
            writer.write_tensor_data(_quantize(package, name, tensor, kind))
    return path


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """An OSError becomes a ValueError about `path`: its own words name the file written aside."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None


def _writer(package: Any, path: Path) -> gguf.GGUFWriter:
    """gguf's writer, which has no empty arrays: a vocabulary of characters has no merges."""

    class Writer(package.GGUFWriter):
        def _pack_val(self, val: Any, vtype: Any, *args: Any, **kwargs: Any) -> bytes:
            if vtype == package.GGUFValueType.ARRAY and len(val) == 0:
                return struct.pack("<IIQ", ARRAY, STRING, 0)
            return super()._pack_val(val, vtype, *args, **kwargs)

    return Writer(path, ARCHITECTURE)


def _add_metadata(
    writer: gguf.GGUFWriter,
    model: GPT2Model,
    words: Vocabulary | None,
    type: str,
    roles: Roles,
    begins: bool,
) -> None:
    """What llama.cpp's converter writes for a GPT-2."""
    package = _package()
    config = model.config
    writer.add_type(package.GGUFType.MODEL)
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(FILE_TYPES[type])
    writer.add_quantization_version(package.GGML_QUANT_VERSION)
    if words is None:
        writer.add_tokenizer_model("none")
        return
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words.tokens)
    writer.add_token_types(words.types)
    writer.add_key_value(
        "tokenizer.ggml.merges",
        words.merges,
        package.GGUFValueType.ARRAY,
        package.GGUFValueType.STRING,
    )
    ids = {"eos": roles.eos, "bos": (roles.bos,), "pad": (roles.pad,)}
    for kind, keys in ROLE_KEYS.items():
        for key, i in zip(keys, ids[kind], strict=False):
            if i is not None:
                writer.add_uint32(f"tokenizer.ggml.{key}", i)
    writer.add_add_bos_token(begins)


def _quantize(package: Any, name: str, tensor: Tensor, kind: str) -> Any:
    """A tensor → its bytes as the file has them, in pieces, so that no second copy is made."""
    import numpy as np

    tensor = tensor.to("cpu")
    width = tensor.shape[-1]
    rows = tensor.reshape(-1, width)
    _, block, block_bytes = TYPES[package.GGMLQuantizationType[kind].value]
    if kind in PLAIN:
        out = np.empty(rows.shape, "<f4" if kind == "F32" else "<f2")
    else:
        out = np.empty((len(rows), width // block * block_bytes), np.uint8)
    step = max(1, CHUNK // width)
    for first in range(0, len(rows), step):
        piece = rows[first : first + step].float().contiguous().numpy()
        if kind == "F32":
            out[first : first + step] = piece
            continue
        # past this a float16, be it the number or the block's scale, is infinite
        largest = {"F16": 1, "Q8_0": 127, "Q4_0": 8}[kind] * float(np.finfo(np.float16).max)
        if not bool((np.abs(piece) <= largest).all()):
            raise ValueError(f"{name} holds a number that {kind.lower()} cannot: export as f32")
        if kind == "F16":
            out[first : first + step] = piece
        else:
            quantized = package.quantize(piece, package.GGMLQuantizationType[kind])
            out[first : first + step] = quantized
    return out if tensor.dim() > 1 else out.reshape(-1)
