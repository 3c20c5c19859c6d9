"""GGUF: what is written is what is read, by us, by its own package, by transformers and llama.cpp;
the rest is refused before anything is allocated.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_gpt2 import byte_tokenizer, char_tokenizer, hugging_face, prompt, tiny, use_bpe

from gpt2 import cli
from gpt2.formats import gguf as ours
from gpt2.formats.checkpoints import open_checkpoint, save_pretrained
from gpt2.formats.gguf import FILE_TYPES, MAX_STRINGS, TYPES, open_gguf, read_header, save_gguf
from gpt2.formats.opening import load_tokenizer, open_model
from gpt2.model import GPT2Model
from gpt2.text.roles import Roles
from gpt2.text.tokenizers import END_OF_TEXT, GPT2Tokenizer, JSONTokenizer

package = pytest.importorskip("gguf", reason="the gguf package is not installed")

TEXTS = ["To be, or not", "  \n\t x", "naïve 日本 🤖", "it's 12,345!", "", END_OF_TEXT, "\0\x7f"]
WIDE = {"n_embd": 64, "n_head": 4, "n_layer": 2}  # rows of whole blocks of 32


def same(a: GPT2Model, b: GPT2Model) -> None:
    for (name, x), (_, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(x, y), name


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A good file to spoil."""
    return save_gguf(tiny(), tmp_path / "model.gguf")


# ------------------------------------------------------------------------------------ round trips


def test_f32_keeps_every_bit(file: Path) -> None:
    """Catches a tensor that is lost, transposed twice or rounded, and a size mixed up."""
    again = GPT2Model.from_pretrained(file)
    same(tiny(), again)
    assert again.config == tiny().config
    assert again.lm_head.weight is again.embeddings.wte.weight
    assert not again.training
    assert not [path.name for path in file.parent.glob(".*")]


def test_the_packages_own_reader_finds_what_hugging_face_has(tmp_path: Path) -> None:
    """Catches names or an orientation that only we read: the oracle is llama.cpp's table of names
    and Hugging Face's tensors.
    """
    theirs = hugging_face()
    theirs.save_pretrained(tmp_path / "hf")
    path = save_gguf(GPT2Model.from_pretrained(tmp_path / "hf"), tmp_path / "m.gguf")
    found = {tensor.name: tensor.data for tensor in package.GGUFReader(path).tensors}
    names = package.get_tensor_name_map(package.MODEL_ARCH.GPT2, 3)
    state = theirs.state_dict()
    del state["lm_head.weight"]
    assert len(found) == len(state)
    for key, tensor in state.items():
        stem, kind = key.rsplit(".", 1)
        conv = stem.endswith(("c_attn", "c_proj", "c_fc")) and kind == "weight"
        wanted = tensor.t() if conv else tensor
        assert np.array_equal(found[f"{names.get_name(stem)}.{kind}"], wanted.numpy()), key


def test_the_header_is_read_as_the_package_reads_it(tmp_path: Path) -> None:
    """Catches an offset, a size or a value that is off; every kind of metadata value occurs."""
    path = save_gguf(tiny(vocab_size=297), tmp_path / "m.gguf", byte_tokenizer(), "q8_0")
    header, theirs = read_header(path), package.GGUFReader(path)
    for tensor in theirs.tensors:
        info = header.tensors[tensor.name]
        assert info.type == tensor.tensor_type.name
        assert info.shape == tuple(int(n) for n in tensor.shape[::-1])
        assert (info.offset, info.nbytes) == (tensor.data_offset, tensor.n_bytes)
    assert len(header.tensors) == len(theirs.tensors)
    for key, value in header.metadata.items():
        assert theirs.fields[key].contents() == value, key
    assert header.metadata["gpt2.feed_forward_length"] == 80
    assert header.metadata["general.file_type"] == package.LlamaFileType.MOSTLY_Q8_0


def test_our_table_of_types_is_the_packages() -> None:
    """Catches a block's size that is off, and a file type of another meaning."""
    for number, (name, block, nbytes) in TYPES.items():
        kind = package.GGMLQuantizationType(number)
        assert (kind.name, package.GGML_QUANT_SIZES[kind]) == (name, (block, nbytes))
    known = {kind.value: kind.name for kind in package.LlamaFileType}
    assert [known[number] for number in FILE_TYPES.values()] == [
        "ALL_F32",
        "MOSTLY_F16",
        "MOSTLY_Q4_0",
        "MOSTLY_Q8_0",
    ]


def allowed(weights: torch.Tensor, kind: str) -> torch.Tensor:
    """The error that a format may make, from its blocks of 32: see `save_gguf`."""
    if kind == "F32":
        return torch.zeros_like(weights)
    if kind == "F16":  # half a unit in the last place, or of the smallest number
        return weights.abs() * 2**-11 + 2**-25
    largest = weights.view(-1, 32).abs().amax(-1, keepdim=True)
    steps = {"Q8_0": 127, "Q4_0": 8}[kind]
    step = largest / steps * (0.5 if kind == "Q8_0" else 1)
    rounded_scale = largest * 2**-11 + steps * 2**-25
    # and the arithmetic in float32 itself
    return ((step + rounded_scale) * (1 + 2**-20)).expand(-1, 32).reshape(weights.shape)


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_rounded_weights_are_within_the_formats_error(tmp_path: Path, kind: str) -> None:
    """Catches blocks taken across rows, a scale that is lost, and nibbles swapped; the positions
    and all vectors keep every bit.
    """
    model = tiny(**WIDE)
    with torch.no_grad():
        rows = model.h[0].attn.c_attn.weight
        rows[0] = 0
        rows[1] *= 1e-7  # scales below the smallest normal float16
        rows[2] *= 1e3
        rows[3, :32] = torch.linspace(-1, 1, 32)  # as far down as up: 4 bits have no +8
    again = GPT2Model.from_pretrained(save_gguf(model, tmp_path / "m.gguf", type=kind))
    worst = 0.0
    for (name, a), (_, b) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        exact = a.dim() == 1 or "wpe" in name
        bound = allowed(a.detach(), "F32" if exact else kind.upper())
        assert bool(((a - b).abs() <= bound).all()), name
        worst = max(worst, float((a - b).detach().abs().max()))
    assert (worst == 0) == (kind == "f32")


def test_rows_that_are_no_whole_blocks_are_f16(tmp_path: Path) -> None:
    """Catches a quantized file that cannot be written, or not read, for a width of 20."""
    path = save_gguf(tiny(), tmp_path / "m.gguf", type="q8_0")
    header = read_header(path)
    types = {name: info.type for name, info in header.tensors.items()}
    assert types["blk.0.attn_qkv.weight"] == "F16"
    assert types["position_embd.weight"] == types["blk.0.ffn_up.bias"] == "F32"
    assert torch.equal(
        GPT2Model.from_pretrained(path).h[1].mlp.c_fc.weight,
        tiny().h[1].mlp.c_fc.weight.half().float(),
    )


@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0", "q4_0"])
def test_transformers_loads_the_same_model(tmp_path: Path, kind: str) -> None:
    """Catches a file that other readers understand otherwise than we do."""
    pytest.importorskip("accelerate", reason="transformers' GGUF loader needs accelerate")
    from transformers import AutoModelForCausalLM

    tokenizer = byte_tokenizer()
    model = tiny(**WIDE, vocab_size=tokenizer.vocab_size)
    path = save_gguf(model, tmp_path / "m.gguf", tokenizer, kind)
    # transformers takes 1024 positions for granted, whatever the file says
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="m.gguf", dtype=torch.float32, n_positions=23
    ).eval()
    ids = prompt(V=tokenizer.vocab_size)
    with torch.no_grad():
        got = GPT2Model.from_pretrained(path)(ids)
        torch.testing.assert_close(theirs(ids).logits, got, atol=1e-4, rtol=1e-4)


def test_llama_cpp_writes_the_same_text(tmp_path: Path) -> None:
    """Catches a file that llama.cpp refuses or reads as another model: greedy text must be ours
    for as long as our first choice leads clearly.
    """
    llama_cpp = pytest.importorskip(
        "llama_cpp", reason="llama-cpp-python is not installed (pip builds it from source)"
    )
    from gpt2.formats.bundled import bundled
    from gpt2.generation.generating import generate

    tokenizer = load_tokenizer(bundled())
    model = GPT2Model.from_pretrained(bundled())
    path = save_gguf(model, tmp_path / "m.gguf", tokenizer)
    theirs = llama_cpp.Llama(str(path), n_ctx=256, n_threads=1, logits_all=True, verbose=False)
    text = "ROMEO: what\nlight,  is it?"
    ids = tokenizer.encode(text)
    assert theirs.tokenize(text.encode(), add_bos=False) == ids
    theirs.eval(ids)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0]
    # it keeps keys and values in float16: 2⁻¹¹ of numbers that are about as large as the logits,
    # added up over 6 layers
    got = torch.tensor(np.array(theirs.scores[: len(ids)]))
    torch.testing.assert_close(got, logits, atol=12 * 2**-11 * float(logits.abs().max()), rtol=0)
    new = generate(model, torch.tensor([ids]), 30, temperature=0.0)[0, len(ids) :].tolist()
    theirs.reset()
    said = theirs.create_completion(text, max_tokens=30, temperature=0.0)["choices"][0]["text"]
    assert said == tokenizer.decode(new)


def test_other_peoples_types(tmp_path: Path) -> None:
    """Catches types that llama-quantize writes and we don't (BF16, Q6_K) wired to other numbers."""
    model = tiny(n_embd=256, n_head=4, n_layer=1)
    raw = np.random.default_rng(0).integers(0, 256, (97, 210), np.uint8)
    raw[:, 208:] = np.float16(0.01).reshape(1).view(np.uint8)  # each block's scale
    table = package.dequantize(raw, package.GGMLQuantizationType.Q6_K)

    def change(tensors: dict[str, tuple[np.ndarray, object]]) -> None:
        tensors["token_embd.weight"] = (raw, package.GGMLQuantizationType.Q6_K)
        wide = model.h[0].mlp.c_fc.weight.detach().numpy()
        kind = package.GGMLQuantizationType.BF16
        tensors["blk.0.ffn_up.weight"] = (package.quantize(wide, kind), kind)

    loaded = GPT2Model.from_pretrained(rewrite(model, tmp_path / "m.gguf", change))
    assert np.array_equal(loaded.embeddings.wte.weight.detach().numpy(), table)
    assert torch.equal(
        loaded.h[0].mlp.c_fc.weight, model.h[0].mlp.c_fc.weight.to(torch.bfloat16).float()
    )


def rewrite(model: GPT2Model, path: Path, change, meta=lambda writer: None) -> Path:
    """Write a file with the package alone, after changing its tensors {name: (array, type)}."""
    source = package.GGUFReader(save_gguf(model, path))
    tensors = {t.name: (np.array(t.data), t.tensor_type) for t in source.tensors}
    change(tensors)
    writer = package.GGUFWriter(path.with_suffix(".new"), "gpt2")
    config = model.config
    writer.add_block_count(config.n_layer)
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    meta(writer)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(path.with_suffix(".new"), path)
    return path


Q8 = package.GGMLQuantizationType.Q8_0


@pytest.mark.parametrize("types", ["same", "finer head", "finer table"])
def test_a_stored_head(tmp_path: Path, types: str) -> None:
    """Catches a file whose head is stored too, or rounded less than the table, refused or
    misread.
    """
    model = tiny(**WIDE)

    def change(tensors: dict) -> None:
        table, kind = tensors["token_embd.weight"]
        tensors["output.weight"] = (table.copy(), kind)
        if types != "same":
            coarse = "token_embd.weight" if types == "finer head" else "output.weight"
            tensors[coarse] = (package.quantize(table, Q8), Q8)

    same(GPT2Model.from_pretrained(rewrite(model, tmp_path / "m.gguf", change)), model)


@pytest.mark.parametrize("rounded", [False, True])
def test_another_head_is_refused(tmp_path: Path, rounded: bool) -> None:
    """Catches an untied head that is dropped without a word."""

    def change(tensors: dict) -> None:
        table, kind = tensors["token_embd.weight"]
        other = np.flip(table, 0).copy()
        tensors["output.weight"] = (package.quantize(other, Q8), Q8) if rounded else (other, kind)

    path = rewrite(tiny(**WIDE), tmp_path / "m.gguf", change)
    with pytest.raises(ValueError, match="tied"):
        GPT2Model.from_pretrained(path)


# -------------------------------------------------------------------------------- the tokenizer


def test_byte_level_bpe_goes_out_and_in(tmp_path: Path) -> None:
    """Catches lost merges, special tokens read as text, and words cut by another rule."""
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size)
    again = load_tokenizer(save_gguf(model, tmp_path / "m.gguf", tokenizer))
    for text in TEXTS:
        assert again.encode(text) == tokenizer.encode(text), text
        assert again.decode(again.encode(text)) == text
    assert again.eos_token_id == tokenizer.eos_token_id
    assert again.special_tokens == tokenizer.special_tokens
    assert [again.token_bytes(i) for i in range(again.vocab_size)] == [
        tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)
    ]


def test_transformers_reads_the_tokenizer(tmp_path: Path) -> None:
    """Catches a vocabulary that means other ids to others."""
    from transformers import AutoTokenizer

    tokenizer = byte_tokenizer()
    save_gguf(tiny(vocab_size=tokenizer.vocab_size), tmp_path / "m.gguf", tokenizer)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="m.gguf")
    for text in TEXTS[:5]:
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text), text


def test_characters_of_one_byte_go_out_as_bpe_without_merges(tmp_path: Path) -> None:
    """Catches the bundled model's kind of vocabulary refused, or with other ids than its own."""
    tokenizer = char_tokenizer("\n !abcde~", end_of_text=True)
    path = save_gguf(tiny(vocab_size=10), tmp_path / "m.gguf", tokenizer)
    again = load_tokenizer(path)
    text = "a bad\n\n  cab!~"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.decode(again.encode(text)) == text
    assert again.eos_token_id == 9
    with pytest.raises(ValueError, match="no token for 'x'"):
        again.encode("abx")
    assert package.GGUFReader(path).fields["tokenizer.ggml.merges"].data == []


def test_characters_of_more_bytes_are_refused(tmp_path: Path) -> None:
    """Catches a vocabulary that goes out as something else than it is; what to do is said."""
    tokenizer = char_tokenizer("abcé")
    with pytest.raises(ValueError, match=r"'é'.*--tokenizer bpe.*--no-tokenizer.*--out"):
        save_gguf(tiny(vocab_size=4), tmp_path / "m.gguf", tokenizer)
    assert not list(tmp_path.iterdir())


def test_gpt2s_own_vocabulary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches tiktoken's vocabulary written out of order, or without its 50,000 merges."""
    use_bpe(monkeypatch)
    model = tiny(vocab_size=50257, n_embd=4, n_head=2, n_layer=1)
    path = save_gguf(model, tmp_path / "m.gguf", GPT2Tokenizer.load())
    again = load_tokenizer(path)
    assert again.encode("Hello. The dog's 3 naïve 日本") == GPT2Tokenizer.load().encode(
        "Hello. The dog's 3 naïve 日本"
    )
    assert again.eos_token_id == 50256


def words_of(tokens: list[str], **ids: int):
    """→ a writer's metadata with this vocabulary and these ids."""

    def meta(writer) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("gpt-2")
        writer.add_token_list(tokens)
        writer.add_token_merges(["a b"])
        for key, i in ids.items():
            writer.add_uint32(f"tokenizer.ggml.{key}", i)

    return meta


@pytest.mark.parametrize(
    ("rows", "ids", "roles"),
    [
        (6, {"eos_token_id": 4, "bos_token_id": 3, "padding_token_id": 5}, Roles((4,), 3, 5)),
        (6, {"eos_token_id": 4, "eot_token_id": 5, "eom_token_id": 4}, Roles((4, 5), 3)),
        (6, {"eos_token_id": 99}, Roles((3,), 3)),
        (6, {}, Roles((3,), 3)),
        (9, {"eos_token_id": 4}, Roles((4,), 3)),
        (5, {"eos_token_id": 4, "padding_token_id": 5}, Roles((4,), 3)),
    ],
)
def test_roles_and_lists_of_another_length(
    tmp_path: Path, rows: int, ids: dict[str, int], roles: Roles
) -> None:
    """Catches an end token that only `<|endoftext|>` can be, and a list of tokens that is shorter
    or longer than the table refused, or believed where the table ends.
    """
    tokens = ["a", "b", "ab", END_OF_TEXT, "</s>", "[PAD]"]
    model = tiny(vocab_size=rows)
    path = rewrite(model, tmp_path / "m.gguf", lambda t: None, words_of(tokens, **ids))
    opened = open_model(path)
    assert opened.roles == roles
    assert opened.unspoken() == list(range(6, rows))
    assert opened.encode("ab") == [2]
    assert (99 in ids.values()) == any("99 is not a row" in note for note in opened.notes)
    again = open_model(save_gguf(model, tmp_path / "n.gguf", opened.tokenizer, roles=roles))
    assert again.roles == roles
    assert again.tokenizer.vocab_size == min(rows, 6)
    same(GPT2Model.from_pretrained(path), model)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda d: d.update(normalizer={"type": "NFC"}), "changes the text"),
        (lambda d: d["pre_tokenizer"].update(add_prefix_space=True), "cuts text into words"),
        (lambda d: d["pre_tokenizer"].update(use_regex=False), "cuts text into words"),
        (lambda d: d.update(pre_tokenizer=None), "BPE after None"),
        (lambda d: d["model"].update(ignore_merges=True), "options"),
    ],
)
def test_a_tokenizer_that_means_something_else(tmp_path: Path, change, named: str) -> None:
    """Catches a tokenizer.json whose rules the file has no words for."""
    import json

    from tokenizers import Tokenizer as Backend

    described = byte_tokenizer().describe()
    change(described)
    other = JSONTokenizer(Backend.from_str(json.dumps(described)))
    with pytest.raises(ValueError, match=named):
        save_gguf(tiny(vocab_size=297), tmp_path / "m.gguf", other)


TOKENS = ["a", "b", "ab", END_OF_TEXT]


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"model": "llama"}, "llama"),
        ({"model": None}, "model"),
        ({"pre": "qwen2"}, "qwen2"),
        ({"tokens": None}, "tokens"),
        ({"tokens": [1, 2, 3, 4]}, "tokens"),
        ({"tokens": ["a", "a", "b", "c"]}, "twice"),
        ({"tokens": ["日", "b", "ab", "c"], "merges": ["b b"]}, "tokenizer"),
        ({"merges": None}, "merges"),
        ({"merges": ["a b c"]}, "not a pair"),
        ({"merges": ["ab"]}, "not a pair"),
        ({"merges": ["a c"]}, "tokenizer"),
        ({"token_type": [1, 1]}, "token_type"),
        ({"token_type": "abcd"}, "token_type"),
    ],
)
def test_a_vocabulary_that_makes_no_sense(tmp_path: Path, entries: dict, named: str) -> None:
    """Catches a tokenizer read from what is none, and the tokenizers library's own errors."""
    entries = {"model": "gpt2", "pre": "gpt-2", "tokens": TOKENS, "merges": ["a b"]} | entries
    path = tmp_path / "m.gguf"
    meta = [("general.architecture", "gpt2")]
    meta += [(f"tokenizer.ggml.{k}", v) for k, v in entries.items() if v is not None]
    path.write_bytes(build(meta))
    with pytest.raises(ValueError, match=named):
        load_tokenizer(path)


# ----------------------------------------------------------------------------------- hostile input


def text(value: str | bytes) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(value)) + value


def pack(value: object) -> bytes:
    """A metadata value with its type before it."""
    if isinstance(value, bytes):
        return value  # packed already
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    assert isinstance(value, list)
    parts = [pack(item) for item in value]
    kind = parts[0][:4] if parts else struct.pack("<I", 8)
    return (
        struct.pack("<I", 9)
        + kind
        + struct.pack("<Q", len(parts))
        + b"".join(part[4:] for part in parts)
    )


def build(
    meta: list[tuple[str | bytes, object]] = (),
    lines: list[bytes] = (),
    data: bytes = b"",
    version: int = 3,
    counts: tuple[int, int] | None = None,
    align: int = 32,
) -> bytes:
    """A file of these parts, true or not."""
    n_tensors, n_entries = (len(lines), len(meta)) if counts is None else counts
    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_entries)
    head += b"".join(text(key) + pack(value) for key, value in meta) + b"".join(lines)
    return head + bytes(-len(head) % align) + data


def line(
    name: str | bytes = "token_embd.weight",
    sizes: tuple[int, ...] = (2, 4),
    kind: int = 0,
    offset: int = 0,
    n_dims: int | None = None,
) -> bytes:
    n_dims = len(sizes) if n_dims is None else n_dims
    packed = struct.pack(f"<{len(sizes)}Q", *sizes)
    return text(name) + struct.pack("<I", n_dims) + packed + struct.pack("<IQ", kind, offset)


ARCH = ("general.architecture", "gpt2")
SIZES = [
    ("gpt2.context_length", 3),
    ("gpt2.embedding_length", 2),
    ("gpt2.block_count", 1),
    ("gpt2.attention.head_count", 1),
    ("gpt2.attention.layer_norm_epsilon", 1e-5),
]
HUGE = struct.pack("<IIQ", 9, 8, 10**18)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GG",
        b"GGUF",
        b"PK\x03\x04" + bytes(60),
        b"GGUF" + bytes(60),
        build(version=1),
        build(version=4),
        b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        build(counts=(10**18, 0)),
        build(counts=(0, 10**18)),
        build(counts=(5, 0)),
        build(counts=(0, 5)),
        build([("k", HUGE)]),
        build([("k", struct.pack("<IIQ", 9, 4, 10**18))]),
        build([("k", struct.pack("<IIQ", 9, 8, MAX_STRINGS))]),
        build([("k", struct.pack("<IIQ", 9, 9, 1) + struct.pack("<IQ", 4, 0))]),
        build([("k", struct.pack("<IIQ", 9, 77, 1))]),
        build([("k", struct.pack("<IQ", 8, 10**18))]),
        build([("k", struct.pack("<I", 13) + bytes(8))]),
        build([("k", struct.pack("<IB", 7, 2))]),
        build([("k", struct.pack("<IQ", 8, 2) + b"\xff\xfe")]),
        build([("k", 1), ("k", 1)]),
        build([("", 1)]),
        build([("a\0b", 1)]),
        build([(b"\xff", 1)]),
        build([("k" * 70_000, 1)]),
        build([("general.alignment", 3)]),
        build([("general.alignment", 0)]),
        build([("general.alignment", 2**31)]),
        build([("general.alignment", "32")]),
        build(lines=[line(n_dims=10**9)]),
        build(lines=[line(sizes=(), n_dims=0)]),
        build(lines=[line(sizes=(1, 1, 1, 1, 1))]),
        build(lines=[line(sizes=(10**18,))]),
        build(lines=[line(sizes=(2**62,) * 4)]),
        build(lines=[line(sizes=(0, 4))]),
        build(lines=[line(kind=99)], data=bytes(32)),
        build(lines=[line(sizes=(31, 1), kind=8)], data=bytes(64)),
        build(lines=[line(name="")], data=bytes(32)),
        build(lines=[line(name="a\0")], data=bytes(32)),
        build(lines=[line(offset=2**63)], data=bytes(32)),
        build(lines=[line(offset=1)], data=bytes(64)),
        build(lines=[line(offset=32)], data=bytes(64)),
        build(lines=[line(), line("b")], data=bytes(32)),
        build(lines=[line(), line(offset=32)], data=bytes(64)),
        build(lines=[line()], data=bytes(31)),
        build(lines=[line()], data=bytes(32 + 33)),
    ],
)
def test_a_lying_header(tmp_path: Path, content: bytes) -> None:
    """Catches a header believed: 10¹⁸ numbers allocated or counted to, offsets outside the file,
    tensors that overlap, names with control characters.
    """
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"GGUF"):
        GPT2Model.from_pretrained(path)
    with pytest.raises(ValueError, match="is not a whole GGUF file"):
        read_header(path)


def small(meta: list, lines: list[bytes] | None = None) -> bytes:
    """A well-formed file whose one tensor is token_embd (4, 2), or with these lines."""
    lines = [line()] if lines is None else lines
    return build([ARCH, *meta], lines, bytes(32 * len(lines)))


def changed(key: str, value: object) -> list[tuple[str, object]]:
    kept = [(k, v) for k, v in SIZES if k != f"gpt2.{key}"]
    return kept if value is None else [*kept, (f"gpt2.{key}", value)]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (build([("general.architecture", "llama")]), "llama"),
        (build([("general.architecture", 7)]), "general.architecture is 7"),
        (build(), "general.architecture is None"),
        (build([ARCH]), "missing token_embd.weight"),
        (build([ARCH, ("split.count", 4)]), "merge"),
        (small(changed("block_count", None)), "block_count"),
        (small(changed("block_count", 0)), "block_count"),
        (small(changed("block_count", float("nan"))), "block_count"),
        (small(changed("block_count", True)), "block_count"),
        (small(changed("block_count", 2**31 - 1)), "block_count"),
        (small(changed("context_length", 2**32 - 1)), "context_length"),
        (small(changed("embedding_length", "2")), "embedding_length"),
        (small(changed("attention.head_count", [1])), "head_count"),
        (small(changed("attention.layer_norm_epsilon", float("nan"))), "epsilon"),
        (small(changed("attention.layer_norm_epsilon", 0.0)), "epsilon"),
        (small(changed("attention.layer_norm_epsilon", 1)), "epsilon"),
        (small([*SIZES, ("gpt2.feed_forward_length", 9)]), "feed_forward_length is 9"),
        (small([*SIZES, ("gpt2.attention.head_count_kv", 2)]), "head_count_kv"),
        (small(SIZES), "missing position_embd.weight"),
        (small(changed("embedding_length", 3)), r"token_embd.weight is \(4, 2\)"),
        (small(SIZES, [line(), line("blk.0.ssm_a", offset=32)]), "unexpected blk.0.ssm_a"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, content: bytes, named: str) -> None:
    """Catches a model that loads and computes something else than the file says, or is built to a
    claim of 2³¹ blocks before the file is looked at.
    """
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=named):
        open_gguf(path)


def test_the_hand_made_parts_make_a_good_file(tmp_path: Path) -> None:
    """Catches hostile files that are refused only because their maker is broken."""
    settings = {"vocab_size": 4, "n_positions": 3, "n_embd": 2, "n_layer": 1}
    lines, data = [], b""
    for name, (_, shape) in ours._shapes(settings).items():
        if name != "output.weight":
            lines.append(line(name, shape[::-1], offset=len(data)))
            data += bytes(4 * int(np.prod(shape)))
            data += bytes(-len(data) % 32)
    path = tmp_path / "m.gguf"
    path.write_bytes(build([ARCH, *SIZES], lines, data))
    assert open_gguf(path)[0]["layer_norm_epsilon"] == 1e-5
    assert GPT2Model.from_pretrained(path)(torch.tensor([[1, 2]])).shape == (1, 2, 4)


def test_a_file_cut_short_anywhere(tmp_path: Path) -> None:
    """Catches a read past the end that is noticed only by chance; and bytes behind the end."""
    tokenizer = char_tokenizer("abc")
    whole = save_gguf(tiny(vocab_size=3), tmp_path / "m.gguf", tokenizer).read_bytes()
    path = tmp_path / "cut.gguf"
    header = len(whole) - 4 * sum(p.numel() for p in tiny(vocab_size=3).parameters())
    for keep in [*range(0, header + 64, 7), *range(header, len(whole) - 32, 4001)]:
        path.write_bytes(whole[:keep])
        with pytest.raises(ValueError, match="GGUF"):
            GPT2Model.from_pretrained(path)
    path.write_bytes(whole + bytes(64))
    with pytest.raises(ValueError, match="end at byte"):
        GPT2Model.from_pretrained(path)


def test_random_damage_gives_a_model_or_a_clear_error(file: Path) -> None:
    """Catches any other exception than ValueError for a header with bytes changed."""
    whole, random = bytearray(file.read_bytes()), np.random.default_rng(1)
    end = min(info.offset for info in read_header(file).tensors.values())
    loaded = named = 0
    for _ in range(300):
        spoilt = bytearray(whole)
        for at in random.integers(0, end, int(random.integers(1, 4))):
            spoilt[at] = random.integers(256)
        file.write_bytes(spoilt)
        try:
            settings, tensors = open_gguf(file)
            loaded += 1
            assert settings["n_layer"] * 12 + 4 == len(tensors)
        except ValueError as error:
            named += str(file) in str(error)
    assert loaded + named == 300
    assert loaded < 200


def test_only_a_piece_at_a_time_is_dequantised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a reader that turns a whole tensor into numbers beside the model's own."""
    monkeypatch.setattr(ours, "CHUNK", 640)
    model = tiny(**WIDE)
    path = save_gguf(model, tmp_path / "m.gguf", type="q8_0")
    sizes, real = [], ours._dequantize

    def watched(blocks: np.ndarray, kind: str) -> np.ndarray:
        out = real(blocks, kind)
        sizes.append(out.size)
        return out

    monkeypatch.setattr(ours, "_dequantize", watched)
    in_pieces = GPT2Model.from_pretrained(path)
    assert len(sizes) > 100
    assert max(sizes) <= 640
    monkeypatch.undo()
    same(in_pieces, GPT2Model.from_pretrained(path))


def test_weights_that_a_type_cannot_hold(tmp_path: Path) -> None:
    """Catches infinities written without a word, and an old file lost to a failed export."""
    path = save_gguf(tiny(), tmp_path / "m.gguf")
    before = path.read_bytes()
    for value in (1e6, float("nan")):
        model = tiny()
        with torch.no_grad():
            model.h[0].mlp.c_fc.weight[0, 0] = value
        with pytest.raises(ValueError, match=r"blk\.0\.ffn_up\.weight.*f32"):
            save_gguf(model, path, type="f16")
        assert path.read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_without_the_package(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches an ImportError where a word on what to install is due; F32 needs no package."""
    path = save_gguf(tiny(**WIDE), tmp_path / "q.gguf", type="q8_0")
    monkeypatch.setitem(sys.modules, "gguf", None)
    same(GPT2Model.from_pretrained(file), tiny())
    for call in (lambda: GPT2Model.from_pretrained(path), lambda: save_gguf(tiny(), file)):
        with pytest.raises(ValueError, match="pip install gguf"):
            call()


def test_a_wrong_type_or_place(tmp_path: Path) -> None:
    """Catches a KeyError, and a folder that is replaced by a file."""
    with pytest.raises(ValueError, match="q5_0"):
        save_gguf(tiny(), tmp_path / "m.gguf", type="q5_0")
    with pytest.raises(ValueError, match="folder"):
        save_gguf(tiny(), tmp_path)


def test_a_disk_that_is_full(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a half-written file under the model's name, rubbish beside it, and a message about a
    file that the user never named.
    """
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(package.GGUFWriter, "write_tensor_data", full)
    with pytest.raises(ValueError, match=r"model\.gguf cannot be written: No space left"):
        save_gguf(tiny(seed=3), file)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.gguf"]


# ------------------------------------------------------------------------------- a path like others


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]):
    """Run a command line in this process → exit code, standard output, standard error."""

    def run(*args: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tokenizer = byte_tokenizer()
    model = tiny(vocab_size=tokenizer.vocab_size, n_positions=40)
    return save_pretrained(model, tmp_path / "model", tokenizer)


def test_the_command_writes_what_the_others_read(run, folder: Path, tmp_path: Path) -> None:
    """Catches a GGUF path that a command doesn't take, or a text that changes on the way."""
    file, back = tmp_path / "m.gguf", tmp_path / "back"
    code, out, err = run("export", folder, "--gguf", file)
    assert (code, err) == (0, "")
    assert str(file) in out
    code, _, err = run("export", file, "--out", back)
    assert (code, err) == (0, "")
    arguments = ("--prompt", "To be", "--temperature", 0, "--max-new-tokens", 9)
    texts = [run("generate", "--model", m, *arguments)[1] for m in (folder, file, back)]
    assert texts[0]
    assert texts[0] == texts[1] == texts[2]
    same(GPT2Model.from_pretrained(back), GPT2Model.from_pretrained(folder))
    code, out, err = run("validate", file)
    assert (code, err) == (0, "")
    assert "All twelve agree" in out


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ([], 2, "--gguf FILE or --out DIR"),
        (["--out", "x", "--type", "f16"], 2, "--gguf"),
        (["--gguf", "x", "--dtype", "float16"], 2, "--out"),
        (["--gguf", "x", "--type", "q5_k"], 2, "q5_k"),
    ],
)
def test_wrong_usage(run, folder: Path, arguments: list[str], code: int, named: str) -> None:
    """Catches an option that is ignored, or a failure with a traceback."""
    found, _, err = run("export", folder, *arguments)
    assert found == code
    assert named in err


def test_a_model_without_a_tokenizer(run, tmp_path: Path) -> None:
    """Catches a file that cannot be written, or that claims a vocabulary that isn't there."""
    plain, file = save_pretrained(tiny(), tmp_path / "plain"), tmp_path / "m.gguf"
    code, _, err = run("export", plain, "--gguf", file)
    assert code == 1
    assert "--no-tokenizer" in err
    assert run("export", plain, "--gguf", file, "--no-tokenizer", "--type", "f16")[0] == 0
    assert open_checkpoint(file)[0]["vocab_size"] == 97
    with pytest.raises(ValueError, match="none"):
        load_tokenizer(file)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_file_follows_the_umask(tmp_path: Path) -> None:
    """Catches a file that only its owner can read."""
    old = os.umask(0o027)
    try:
        assert save_gguf(tiny(), tmp_path / "m.gguf").stat().st_mode & 0o777 == 0o640
    finally:
        os.umask(old)
