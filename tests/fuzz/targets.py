"""What is fuzzed: per parser, how an input is made and what a right answer to it is.

`make` writes an input's files into an empty folder and returns the arguments; `check` hands both to
the parser. It returns when the answer is right, lets the parser's ValueError through, and raises
AssertionError for a wrong answer, which is found out by code that shares nothing with the parser's.
"""

from __future__ import annotations

import ast
import json
import math
import os
import pickle
import shutil
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt2.formats.checkpoints import save_pretrained
from gpt2.model import GPT2Config, GPT2Model
from tests.fuzz.mutate import CHARACTERS, NUMBERS, Mutator
from tests.small_gpt2 import byte_tokenizer, char_tokenizer, tiny

ALPHABET = "abcdeé日 .,\n\t"
SMALL = {"vocab_size": len(ALPHABET), "n_positions": 14, "n_embd": 8, "n_layer": 2, "n_head": 2}


class Bomb:
    """Unpickled, it runs code: it writes a file beside the input's folder."""

    def __reduce__(self):
        return (exec, ("open('../executed.txt', 'w').write('code from data ran')",))


class Target:
    """One parser."""

    name = ""
    shallow = r"^$"  # what the messages of the first check look like: no JSON, no such file
    names_file = True  # a message says which file it is about

    def __init__(self, scratch: Path):
        """Make valid inputs in the folder `scratch`, once."""

    def make(self, m: Mutator, folder: Path) -> Any:
        """Write the files of one input → its arguments."""
        raise NotImplementedError

    def check(self, given: Any, folder: Path) -> None:
        """Parse it. ValueError: refused. AssertionError: a wrong answer."""
        raise NotImplementedError


NO_JSON = r"cannot be read as JSON|holds a JSON|cannot be read: (Expecting|Invalid|'utf|Exceeds)"


def model_folder(folder: Path, **sizes: int) -> GPT2Model:
    """A tiny model with a character tokenizer in Hugging Face's layout."""
    from gpt2.formats.checkpoints import save_pretrained

    model = tiny(**(SMALL | sizes))
    save_pretrained(model, folder, char_tokenizer(ALPHABET))
    return model


def same(one: Any, other: Any) -> bool:
    """Equal, and of one type: True is not 1."""
    return type(one) is type(other) and one == other


class Config(Target):
    """config.json → GPT2Config's arguments."""

    name = "config.json"
    shallow = NO_JSON

    def __init__(self, scratch: Path):
        model_folder(scratch / "model")
        self.valid = json.loads((scratch / "model" / "config.json").read_text(encoding="utf-8"))

    def make(self, m: Mutator, folder: Path) -> None:
        (folder / "config.json").write_bytes(m.json(m.tree(self.valid)))

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.checkpoints import read_settings

        found = read_settings(folder / "config.json")
        raw = json.loads((folder / "config.json").read_bytes())
        for field in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head"):
            assert same(found[field], raw[field]), field
        for field in ("resid_pdrop", "embd_pdrop", "attn_pdrop"):
            assert found[field] == raw.get(field, 0.1), field
        assert found["layer_norm_epsilon"] == raw.get("layer_norm_epsilon", 1e-5)
        assert raw["model_type"] == "gpt2"
        if found["n_embd"] % found["n_head"] == 0:
            GPT2Config(**found)


# ------------------------------------------------------------------------------------ safetensors

ITEM = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
ITEM |= {"BOOL": "|b1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8"}


def split_safetensors(data: bytes) -> tuple[dict[str, Any], bytes]:
    """A file → its header and its data."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def join_safetensors(header: bytes, data: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def mutate_safetensors(m: Mutator, valid: bytes) -> bytes:
    """A safetensors file with a changed header, length, or bytes."""
    kind = m.rng.random()
    if kind < 0.15:
        return m.bytes(valid)
    header, data = split_safetensors(valid)
    if kind < 0.25:
        written = json.dumps(header).encode()
        length = m.rng.choice((2**63, 2**64 - 1, 10**18, len(valid), len(written) - 1, 0, 8))
        length += m.rng.randrange(2)
        return (length % 2**64).to_bytes(8, "little") + written + data
    if kind < 0.45:  # the dimensions changed so that their product stays
        entry = header[m.rng.choice([key for key in header if key != "__metadata__"])]
        product = math.prod(entry["shape"])
        entry["shape"] = m.rng.choice(
            ([1, product], [product], [product, 1, 1, 1], [-1, -product], [product * 1.0])
        )
    elif kind < 0.5:  # a tensor of 10^18 numbers, and offsets to match
        name = m.rng.choice(("x", "h.0.attn.bias", "transformer.wte.weight"))
        bits = 4
        count = m.rng.choice((10**18, 2**40, 2**61))
        end = max(v["data_offsets"][1] for k, v in header.items() if k != "__metadata__")
        header[name] = {
            "dtype": "F32",
            "shape": [count],
            "data_offsets": [end, end + count * bits],
        }
    else:
        header = m.tree(header)
    return join_safetensors(m.json(header), data)


class Safetensors(Target):
    """A safetensors file → its tensors."""

    name = "safetensors"
    shallow = r"its header (should take|claims|cannot be read)|is not a JSON object|pickle|it is a"

    def __init__(self, scratch: Path):
        from safetensors.torch import save

        tensors = {
            "transformer.wte.weight": torch.randn(3, 5),
            "h.0.attn.bias": torch.ones(1, 1, 2, 2, dtype=torch.bool),
            "half": torch.randn(2, 3, dtype=torch.float64).half(),
            "brain": torch.randn(4).bfloat16(),
            "scalar": torch.tensor(2.5, dtype=torch.float64),
            "none": torch.zeros(0, 7),
        }
        self.valid = save(tensors, metadata={"format": "pt"})

    def make(self, m: Mutator, folder: Path) -> None:
        data = mutate_safetensors(m, self.valid)
        if m.rng.random() < 0.01:
            data = pickle.dumps(Bomb())
        (folder / "model.safetensors").write_bytes(data)

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.checkpoints import Tensors

        path = folder / "model.safetensors"
        found = Tensors([path])
        header, data = split_safetensors(path.read_bytes())
        header.pop("__metadata__", None)
        assert set(found) == set(header)
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            kind = np.dtype(ITEM[entry["dtype"]])
            theirs = np.frombuffer(data[first:last], kind).reshape(entry["shape"])
            tensor = found[name]
            assert tuple(tensor.shape) == theirs.shape, name
            ours = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
            assert ours.numpy().tobytes() == theirs.tobytes(), name


class Folder(Target):
    """A checkpoint's folder of two shards and an index, or of one file → a model."""

    name = "sharded folder"
    shallow = NO_JSON

    def __init__(self, scratch: Path):
        from safetensors.torch import load_file, save_file

        self.base = scratch / "sharded"
        self.model = model_folder(self.base)
        tensors = load_file(self.base / "model.safetensors")
        names = sorted(tensors)
        halves = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
        for file, keys in halves.items():
            save_file({key: tensors[key] for key in keys}, self.base / file)
        self.index = {
            "metadata": {"total_size": sum(t.nbytes for t in tensors.values())},
            "weight_map": {key: file for file, keys in halves.items() for key in keys},
        }
        self.config = json.loads((self.base / "config.json").read_text(encoding="utf-8"))
        self.files = {path.name: path.read_bytes() for path in self.base.iterdir()}

    def make(self, m: Mutator, folder: Path) -> None:
        files = dict(self.files)
        kind = m.rng.random()
        whole = files.pop("model.safetensors")
        files["model.safetensors.index.json"] = json.dumps(self.index).encode()
        if kind < 0.55:
            index = m.tree(self.index)
            weight_map = index.get("weight_map") if isinstance(index, dict) else None
            if isinstance(weight_map, dict) and weight_map and m.rng.random() < 0.3:
                for key in list(weight_map)[:: m.rng.randrange(1, 9)]:
                    weight_map[key] = m.rng.choice(
                        ("../outside/model-1.safetensors", "/etc/hostname", "..", "model-3.bin")
                    )
            files["model.safetensors.index.json"] = m.json(index)
        elif kind < 0.7:
            files["config.json"] = m.json(m.tree(self.config))
        elif kind < 0.85:
            name = m.rng.choice(("model-1.safetensors", "model-2.safetensors"))
            files[name] = mutate_safetensors(m, files[name])
        elif kind < 0.95:
            del files["model.safetensors.index.json"]
            files["model.safetensors"] = mutate_safetensors(m, whole)
        else:
            del files[m.rng.choice(list(files))]
            files["pytorch_model.bin"] = pickle.dumps(Bomb())
        for name, data in files.items():
            (folder / name).write_bytes(data)

    def check(self, given: None, folder: Path) -> None:
        model = GPT2Model.from_pretrained(folder)
        for name, ours in self.model.state_dict().items():
            # from another file only numbers may differ, not shapes; these files hold one model
            assert model.state_dict()[name].shape == ours.shape, name
        ids = torch.arange(3)[None]
        assert model(ids).shape == (1, 3, SMALL["vocab_size"])


# ------------------------------------------------------------------------------------- tokenizers

TEXTS = ("", "abc", " é日.\n", "the text, naïve 🤖", "a" * 300, "<|endoftext|>", "\x00\x1b")


def check_tokenizer(tokenizer: Any, texts: tuple[str, ...] = TEXTS) -> int:
    """What encodes comes back the same, whole or as it streams → how many texts encoded."""
    from gpt2.text.tokenizers import StreamDecoder

    count = 0
    for text in texts:
        try:
            ids = tokenizer.encode(text)
        except ValueError:
            continue
        count += 1
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        back = tokenizer.decode(ids)
        assert back == text or (tokenizer.adds_space and back == " " + text)
        stream = StreamDecoder(tokenizer)
        assert "".join([stream.push(i) for i in ids] + [stream.finish()]) == back
        assert tokenizer.encode(text) == ids, "encoding is random"
    return count


NORMALIZERS: tuple[Any, ...] = (
    *({"type": kind} for kind in ("NFC", "NFKD", "Lowercase", "Nmt", "StripAccents", "ByteLevel")),
    {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"},
    {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "b" * 1000},
    {"type": "Prepend", "prepend": "▁" * 1000},
    {"type": "Strip", "strip_left": True, "strip_right": True},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Precompiled", "precompiled_charsmap": "/////wAAAAA="},
)
DOUBLES = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
WIDENS = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
PRETOKENIZERS: tuple[Any, ...] = (
    *({"type": kind} for kind in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")),
    {"type": "Digits", "individual_digits": True},
    {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
    {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    },
    {
        "type": "Split",
        "pattern": {"Regex": "(?=a|aa|aaa)(.*)*(.*)*b"},
        "behavior": "Isolated",
        "invert": False,
    },
    WIDENS,
    {"type": "Sequence", "pretokenizers": [WIDENS] * 60},
)
MODELS: tuple[Any, ...] = (
    {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0], ["b", -1.0]], "byte_fallback": False},
    {"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]], "byte_fallback": True},
    {"type": "Unigram", "unk_id": None, "vocab": [], "byte_fallback": False},
    {
        "type": "WordPiece",
        "vocab": {"a": 0},
        "unk_token": "a",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
    },
)


class TokenizerJSON(Target):
    """tokenizer.json → a tokenizer whose encoding is undone by its decoding."""

    name = "tokenizer.json"
    shallow = NO_JSON + r"|is not a tokenizer|has decoder"

    def __init__(self, scratch: Path):
        self.valid = []
        for tokenizer in (
            byte_tokenizer(12),
            char_tokenizer(ALPHABET),
            char_tokenizer(ALPHABET, end_of_text=True),
        ):
            tokenizer.save(scratch)
            text = (scratch / "tokenizer.json").read_text(encoding="utf-8")
            self.valid.append(json.loads(text))

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        tree = json.loads(json.dumps(rng.choice(self.valid)))
        kind = rng.random()
        if kind < 0.08:
            tree["normalizer"] = rng.choice(NORMALIZERS)
            if rng.random() < 0.3:
                tree["normalizer"] = {
                    "type": "Sequence",
                    "normalizers": [rng.choice((tree["normalizer"], DOUBLES))] * 40,
                }
        elif kind < 0.2:
            tree["pre_tokenizer"] = rng.choice(PRETOKENIZERS)
        elif kind < 0.25:
            tree["model"] = rng.choice(MODELS)
        elif kind < 0.35:
            tree["model"]["dropout"] = rng.choice((0.0, 0.5, 1.0, 7.0, -1.0, math.nan, True))
            if rng.random() < 0.3:
                tree["truncation"] = {
                    "max_length": rng.choice((0, 1, 2**40)),
                    "strategy": "LongestFirst",
                    "stride": rng.choice((0, 5, 2**40)),
                    "direction": "Right",
                }
        elif kind < 0.6:  # the vocabulary's numbers and spellings
            vocab = tree["model"]["vocab"]
            for _ in range(m.some()):
                token = rng.choice(list(vocab))
                if rng.random() < 0.6:
                    vocab[token] = rng.choice((m.near(vocab[token]), *NUMBERS[:26]))
                else:
                    vocab[m.text(token)] = vocab.pop(token)
        elif kind < 0.7 and tree["model"].get("merges"):
            tree["model"]["merges"] = m.tree(tree["model"]["merges"])
        elif kind < 0.8:
            tree["added_tokens"] = [
                {
                    "id": rng.choice((0, 1, len(ALPHABET), 268, 269, 10**6, 2**32 - 1, 2**32)),
                    "content": m.any_text(5),
                    **{
                        flag: rng.random() < 0.5
                        for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")
                    },
                }
                for _ in range(m.some(4))
            ]
        else:
            tree = m.tree(tree)
        (folder / "tokenizer.json").write_bytes(m.json(tree))

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.opening import load_tokenizer

        check_tokenizer(load_tokenizer(folder))


class BPEFiles(Target):
    """merges.txt and vocab.json, or vocab.bpe and encoder.json → a tokenizer."""

    name = "vocab/merges"
    shallow = NO_JSON + "|has no tokenizer"

    def __init__(self, scratch: Path):
        tokenizer = byte_tokenizer(12)
        tokenizer.save(scratch)
        model = json.loads((scratch / "tokenizer.json").read_text(encoding="utf-8"))["model"]
        self.merges = [tuple(pair) for pair in model["merges"]]

    def files(self, merges: list[tuple[str, str]]) -> tuple[dict[str, Any], str]:
        """Both files of one vocabulary."""
        from gpt2.text.tokenizers import BYTE_OF

        vocab = {char: i for i, char in enumerate(BYTE_OF)}
        for left, right in merges:
            vocab[left + right] = len(vocab)
        vocab["<|endoftext|>"] = len(vocab)
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
        return vocab, "\n".join(lines) + "\n"

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        merges = list(self.merges)
        for _ in range(m.some(4)):  # consistent changes: both files say the same
            i = rng.randrange(len(merges) + 1)
            left, right = rng.choice(self.merges)
            new = rng.choice(
                ((left, right), (right, left), (left + right, right), ("Ġ", "a"), ("日", "x"))
            )
            merges.insert(i, new) if rng.random() < 0.6 else merges.__delitem__(slice(i, i + 1))
        vocab, lines = self.files(merges)
        kind = rng.random()
        if kind < 0.3:
            vocab = m.tree(vocab)
        elif kind < 0.5:
            lines = m.text(lines)
        names = rng.choice((("merges.txt", "vocab.json"), ("vocab.bpe", "encoder.json")))
        data = lines.encode("utf-8", "surrogatepass")
        (folder / names[0]).write_bytes(m.bytes(data) if kind > 0.9 else data)
        (folder / names[1]).write_bytes(m.json(vocab))

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.opening import load_tokenizer

        tokenizer = load_tokenizer(folder)
        check_tokenizer(tokenizer)
        back = folder / "saved"
        back.mkdir()
        tokenizer.save(back)
        again = load_tokenizer(back)
        assert again.roles == tokenizer.roles
        for text in TEXTS:
            try:
                ids = tokenizer.encode(text)
            except ValueError:  # a vocabulary without all bytes
                continue
            assert again.encode(text) == ids


ROLE_WORDS = ("eos_token", "bos_token", "pad_token", "eos_token_id", "bos_token_id", "pad_token_id")


class RoleFiles(Target):
    """What five files of a folder say about its tokens' roles → a text that ends.

    generation_config.json, config.json, tokenizer_config.json, special_tokens_map.json and
    added_tokens.json, beside a tokenizer.json or merges.txt and vocab.json.
    """

    name = "role files"
    shallow = NO_JSON

    def __init__(self, scratch: Path):
        self.base = scratch / "roles"
        tokenizer = byte_tokenizer(12)
        V = tokenizer.vocab_size
        self.model = tiny(**(SMALL | {"vocab_size": V + 3}))
        save_pretrained(self.model, self.base, tokenizer)
        described = json.loads((self.base / "tokenizer.json").read_text(encoding="utf-8"))
        vocab = described["model"]["vocab"]
        merges = "\n".join(" ".join(pair) for pair in described["model"]["merges"]) + "\n"
        self.two = {
            "vocab.json": json.dumps(vocab).encode(),
            "merges.txt": merges.encode(),
        }
        token = {"content": "</s>", "special": True, "lstrip": False, "normalized": False}
        self.trees: dict[str, Any] = {
            "config.json": json.loads((self.base / "config.json").read_text(encoding="utf-8"))
            | {"eos_token_id": V - 1, "bos_token_id": 0, "pad_token_id": 3},
            "generation_config.json": {"eos_token_id": [V - 1, 5], "pad_token_id": 3},
            "tokenizer_config.json": {
                "tokenizer_class": "GPT2Tokenizer",
                "add_prefix_space": False,
                "add_bos_token": False,
                "added_tokens_decoder": {str(V): token, str(V + 1): {"content": "[PAD]"}},
                "eos_token": token,
                "bos_token": "<|endoftext|>",
                "pad_token": "[PAD]",
            },
            "special_tokens_map.json": {"eos_token": token, "pad_token": "[PAD]"},
            "added_tokens.json": {"</s>": V, "[PAD]": V + 1, "<x>": V + 2},
        }
        self.files = {path.name: path.read_bytes() for path in self.base.iterdir()}

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        files = dict(self.files)
        if rng.random() < 0.4:
            del files["tokenizer.json"]
            files |= self.two
        chosen = rng.choice(list(self.trees))
        for name, tree in self.trees.items():
            if name != chosen and rng.random() < 0.4 and name != "config.json":
                files.pop(name, None)
                continue
            files[name] = json.dumps(tree).encode()
        tree = json.loads(json.dumps(self.trees[chosen]))
        kind = rng.random()
        if kind < 0.5:  # a role that is nearly one
            for _ in range(m.some(3)):
                key = rng.choice(ROLE_WORDS) if chosen != "added_tokens.json" else m.any_text(4)
                other = (-1, 0, 266, 268, 269, 2**31, 10**9, [1, 1], [[1]], [], "5", "</s>", "é")
                tree[key] = m.value() if rng.random() < 0.4 else rng.choice(other)
            files[chosen] = m.json(tree)
        elif kind < 0.9:
            files[chosen] = m.json(m.tree(tree))
        else:
            files[chosen] = m.bytes(files[chosen])
        for name, data in files.items():
            (folder / name).write_bytes(data)

    names_file = False  # GPT2Config names the setting

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.gguf import vocabulary
        from gpt2.formats.opening import load_tokenizer, open_model
        from gpt2.generation.generating import generate
        from gpt2.inference.loading import load_model

        opened = open_model(folder)
        tokenizer, roles, V = opened.tokenizer, opened.roles, opened.rows
        assert all(0 <= i < V for i in (*roles.eos, roles.bos or 0, roles.pad or 0))
        assert all(isinstance(note, str) for note in opened.notes)
        assert load_tokenizer(folder).roles == tokenizer.roles
        never = opened.unspoken()
        ids = torch.tensor([[1, 2]])
        out = generate(
            load_model(opened), ids, 4, temperature=0, eos_token_id=roles.eos, never=never
        )
        assert not set(out[0, 2:].tolist()) & set(never)
        check_tokenizer(tokenizer)
        words = vocabulary(tokenizer, V, roles)
        assert len(words.tokens) == len(words.types) == V
        back = folder / "saved"
        save_pretrained(self.model, back, tokenizer, roles=roles)
        assert open_model(back).roles == roles


class Heads(Target):
    """Weights with prefixes, heads and other tensors around them → the language model in them."""

    name = "further heads"
    shallow = NO_JSON

    def __init__(self, scratch: Path):
        from safetensors.torch import load_file

        self.base = scratch / "heads"
        self.model = model_folder(self.base)
        self.tensors = load_file(self.base / "model.safetensors")
        self.files = {
            path.name: path.read_bytes()
            for path in self.base.iterdir()
            if path.name != "model.safetensors"
        }
        self.heads = {
            name: torch.ones(shape)
            for name, shape in {
                "score.weight": (2, SMALL["n_embd"]),
                "classifier.weight": (2, SMALL["n_embd"]),
                "classifier.bias": (2,),
                "v_head.summary.weight": (1, SMALL["n_embd"]),
                "multiple_choice_head.summary.weight": (1, SMALL["n_embd"]),
                "lm_head.bias": (SMALL["vocab_size"],),
                "x": (SMALL["n_embd"], 2),
                "norm.weight": (SMALL["n_embd"],),
            }.items()
        }

    def make(self, m: Mutator, folder: Path) -> None:
        from safetensors.torch import save

        rng = m.rng
        tensors = dict(self.tensors)
        table = tensors["transformer.wte.weight"]
        if rng.random() < 0.3:
            tensors["lm_head.weight"] = table.clone() * rng.choice((1, 1, 1, 2, math.nan))
        if rng.random() < 0.2:
            tensors.pop("transformer.wte.weight")
            tensors["lm_head.weight"] = table.clone()
        for _ in range(m.some(3)):
            name = rng.choice(list(self.heads))
            tensors[name] = self.heads[name].clone()
        kind = rng.random()
        prefix = rng.choice(
            ("", "module.", "a.b.", ".", "..", "transformer.", "h.0.", "é ", "lm_head.")
        )
        if kind < 0.3:
            tensors = {prefix + name: tensor for name, tensor in tensors.items()}
        elif kind < 0.5:
            tensors = {name.removeprefix("transformer."): t for name, t in tensors.items()}
        elif kind < 0.8:  # one name alone
            name = rng.choice(list(tensors))
            other = rng.choice((prefix + name, name.removeprefix("transformer."), "wpe.weight", ""))
            tensors[other] = tensors.pop(name)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        (folder / "model.safetensors").write_bytes(save(tensors))

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.opening import open_model
        from gpt2.inference.loading import load_model

        opened = open_model(folder)
        model = load_model(opened)
        for name, ours in self.model.state_dict().items():
            assert torch.equal(model.state_dict()[name], ours), name


class Prompts(Target):
    """Any text → ids, and back."""

    name = "prompts"
    names_file = False
    shallow = r"lone surrogate"

    def __init__(self, scratch: Path):
        from gpt2.text.tokenizers import GPT2Tokenizer

        self.tokenizers = [byte_tokenizer(40), char_tokenizer(ALPHABET, end_of_text=True)]
        if os.environ.get("FUZZ_TIKTOKEN"):
            os.environ["TIKTOKEN_CACHE_DIR"] = os.environ["FUZZ_TIKTOKEN"]
            self.tokenizers.append(GPT2Tokenizer.load())

    def make(self, m: Mutator, folder: Path) -> tuple[int, str]:
        which = m.rng.randrange(len(self.tokenizers))
        text = m.any_text(60)
        if which == 1 and m.rng.random() < 0.7:
            text = "".join(m.rng.choice(ALPHABET) for _ in range(40))
            text = m.text(text) if m.rng.random() < 0.3 else text
        elif m.rng.random() < 0.03:
            text = m.rng.choice(CHARACTERS) * m.rng.choice((50, 1000))
        return which, text

    def check(self, given: tuple[int, str], folder: Path) -> None:
        which, text = given
        tokenizer = self.tokenizers[which]
        valid = not any(0xD800 <= ord(char) < 0xE000 for char in text)
        if valid and which != 1:
            assert check_tokenizer(tokenizer, (text,)) == (1)
            allowed = tokenizer.encode(text, ["<|endoftext|>"])
            assert allowed.count(tokenizer.eos_token_id) == text.count("<|endoftext|>")
        elif valid and set(text) <= set(ALPHABET):
            assert tokenizer.encode(text) == [ALPHABET.index(char) for char in text]
        else:
            tokenizer.encode(text)
            raise AssertionError("a text that the vocabulary cannot hold was encoded")


# ------------------------------------------------------------------------------------------- data


class Shards(Target):
    """index.json and .npy files → tokens."""

    name = "token shards"
    shallow = NO_JSON + "|is not an index of token shards|it is not a .npy file"

    def __init__(self, scratch: Path):
        import io

        self.index = {
            "format": "gpt2-token-shards",
            "version": 1,
            "dtype": "uint16",
            "vocab_size": 50,
            "eos_token_id": 49,
            "tokenizer": "char",
            "source": {"name": "x", "bytes": 90, "settings": {"source": "x"}},
            "splits": {
                "train": {
                    "tokens": 70,
                    "bytes": 80,
                    "shards": [
                        {"file": "train-00000.npy", "tokens": 40},
                        {"file": "train-00001.npy", "tokens": 30},
                    ],
                },
                "val": {
                    "tokens": 12,
                    "bytes": 12,
                    "shards": [{"file": "val-00000.npy", "tokens": 12}],
                },
            },
        }
        self.shards = {}
        for name, count in (("train-00000", 40), ("train-00001", 30), ("val-00000", 12)):
            file = io.BytesIO()
            np.save(file, (np.arange(count) * 7 % 50).astype("<u2"))
            self.shards[f"{name}.npy"] = file.getvalue()

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        index, shards = self.index, dict(self.shards)
        kind = rng.random()
        if kind < 0.5:
            index = m.tree(index)
        elif kind < 0.6:
            index = json.loads(json.dumps(index))
            entry = rng.choice(index["splits"]["train"]["shards"])
            entry["file"] = rng.choice(
                ("../outside.npy", "/etc/hostname", "..", ".", "", "a\0", "link.npy", "x" * 300)
            )
        elif kind < 0.7:  # the count in the index and in the shard, both huge
            index = json.loads(json.dumps(index))
            count = rng.choice((10**18, 2**63, 41, 2**31))
            index["splits"]["val"]["shards"][0]["tokens"] = count
            index["splits"]["val"]["tokens"] = count
            shards["val-00000.npy"] = self.header(
                f"{{'descr': '<u2', 'fortran_order': False, 'shape': ({count},)}}", b"\0" * 24
            )
        elif kind < 0.95:
            name = rng.choice(list(shards))
            shards[name] = self.hostile_npy(m, shards[name])
        else:
            del shards[rng.choice(list(shards))]
        (folder / "index.json").write_bytes(m.json(index))
        for name, data in shards.items():
            (folder / name).write_bytes(data)

    @staticmethod
    def header(text: str, data: bytes) -> bytes:
        raw = text.encode("latin1", "replace") + b"\n"
        return b"\x93NUMPY\x01\x00" + (len(raw) % 65536).to_bytes(2, "little") + raw + data

    def hostile_npy(self, m: Mutator, valid: bytes) -> bytes:
        import io

        rng = m.rng
        kind = rng.randrange(8)
        if kind == 0:
            file = io.BytesIO()
            np.save(file, np.array([Bomb()], dtype=object), allow_pickle=True)
            return file.getvalue()
        if kind == 1:
            return pickle.dumps(Bomb())
        if kind <= 3:
            return m.bytes(valid)
        if kind == 4:
            return valid[: 8 + rng.randrange(3)] + rng.randbytes(4) + valid[12:]
        if kind == 5:
            deep = rng.choice(("(" * 3000 + ")" * 3000, "[" * 90 + "]" * 90, "-" * 5000 + "1"))
            return self.header(
                f"{{'descr': '<u2', 'fortran_order': False, 'shape': {deep}}}", valid[128:]
            )
        descr = rng.choice(("'<u2'", "'|O'", "'<u4'", "'>u2'", "'V2'", "[('a', '<u2')]", "'u2,O'"))
        shape = rng.choice(("(40,)", "(10**18,)", "(-1,)", "(2**64,)", f"({10**18},)", "(5, 8)"))
        order = rng.choice(("False", "True", "0", "None"))
        return self.header(
            f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}", valid[128:]
        )

    def check(self, given: None, folder: Path) -> None:
        from gpt2.data.shards import BatchLoader, TokenSource, read_index

        index = read_index(folder)
        raw = json.loads((folder / "index.json").read_bytes())
        assert index.vocab_size == raw["vocab_size"]
        assert list(index.splits) == list(raw["splits"])
        for name, split in index.splits.items():
            source = TokenSource(index, name)
            expected = []
            for shard in raw["splits"][name]["shards"]:
                data = (folder / shard["file"]).read_bytes()
                start = 10 + int.from_bytes(data[8:10], "little")
                shown = ast.literal_eval(data[10:start].decode("latin1").strip())
                tokens = data[start : start + shard["tokens"] * np.dtype(shown["descr"]).itemsize]
                expected += np.frombuffer(tokens, shown["descr"]).tolist()
            assert source.tokens == len(expected) == split.tokens
            assert source.read(0, source.tokens).tolist() == expected if expected else True
            assert not expected or max(expected) < index.vocab_size
            for order in ("random", "sequential"):
                inputs, targets = BatchLoader(source, 2, 5, order=order).next()
                assert inputs[:, 1:].tolist() == targets[:, :-1].tolist()


class HellaSwagFile(Target):
    """HellaSwag's JSONL → examples."""

    name = "HellaSwag"
    shallow = r"JSONDecodeError|cannot be read|RecursionError"

    def make(self, m: Mutator, folder: Path) -> None:
        lines = []
        for i in range(m.some(4)):
            line: Any = {
                "ind": i,
                "ctx": "A man sits",
                "endings": ["down.", "up.", "on a mat.", "still."],
                "label": m.rng.choice((i % 4, str(i % 4))),
            }
            if m.rng.random() < 0.6:
                line = m.tree(line)
            lines.append(m.json(line).replace(b"\n", b""))
        (folder / "hellaswag.jsonl").write_bytes(b"\n".join(lines))

    def check(self, given: None, folder: Path) -> None:
        from gpt2.training.evaluation import read_hellaswag

        found = read_hellaswag(folder / "hellaswag.jsonl")
        lines = (folder / "hellaswag.jsonl").read_text(encoding="utf-8").split("\n")
        raw = [json.loads(line) for line in lines if line.strip()]
        assert len(found) == len(raw)
        for example, row in zip(found, raw, strict=True):
            assert example.context == row["ctx"]
            assert list(example.endings) == row["endings"], row["endings"]
            assert str(example.label) == str(row["label"]), row["label"]


class SourceFiles(Target):
    """A folder of anybody's files → plain text, or a refusal that names the file."""

    name = "source files"
    shallow = r"there is no text in it"

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        for i in range(rng.randrange(1, 4)):
            text = m.text("A line\r\nand naïve 日本 🤖\rmore\n" * rng.randrange(4))
            encoding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"))
            data = text.encode(encoding, errors="replace")
            data = m.bytes(data) if data and rng.random() < 0.5 else data
            name = rng.choice(("a.txt", "b.md", "sub/c.txt", ".d.txt", "__MACOSX/e.txt", "f.bin"))
            path = folder / "texts" / (name if rng.random() < 0.7 else f"{i}{name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def check(self, given: None, folder: Path) -> None:
        from gpt2.data.sources import open_source

        source = open_source(str(folder / "texts"))
        seen = set()
        for document in source.documents():
            with document.open() as file:
                data = file.read()
            text = data.decode("utf-8")
            assert len(data) == document.size > 0
            assert not set(text) & {"\ufeff", "\r"}
            assert text not in seen
            seen.add(text)
            assert "/." not in document.name
            assert "/__MACOSX/" not in document.name
        assert source.total == sum(document.size for document in source.files)
        "\n".join(source.listing()).encode("utf-8")


class StopTextsOfAnyKind(Target):
    """Pieces of text and stop texts → what stands before the first stop text."""

    name = "stop texts"
    names_file = False

    def make(self, m: Mutator, folder: Path) -> dict[str, Any]:
        rng = m.rng
        text = m.any_text(20) + "".join(rng.choices("ab", k=rng.randrange(12)))
        stops = ["".join(rng.choices("ab", k=rng.randrange(1, 5))), m.any_text(3)]
        if rng.random() < 0.2:
            stops.append(m.value())
        return {"text": text, "stops": stops, "cuts": [rng.randrange(4) for _ in range(9)]}

    def check(self, given: dict[str, Any], folder: Path) -> None:
        from gpt2.generation.texts import StopTexts

        text, shown, at = given["text"], "", 0
        filtered = StopTexts(given["stops"])
        for size in (*given["cuts"], len(text)):
            shown += filtered.push(text[at : at + size])
            at += size
        shown += filtered.finish()
        assert text.startswith(shown)
        assert (shown == text) == (filtered.found is None)
        assert not any(stop in shown for stop in given["stops"])
        if filtered.found is not None:
            assert text[len(shown) :].startswith(filtered.found)


# --------------------------------------------------------------------------------------- training


class Settings(Target):
    """A TOML file → TrainConfig."""

    name = "training TOML"
    shallow = r"cannot be read"

    def __init__(self, scratch: Path):
        from gpt2.training.settings import TrainConfig

        self.valid = {
            spec.name: spec.default for spec in fields(TrainConfig) if spec.default is not None
        }

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        chosen = rng.sample(list(self.valid), 6)
        tree = m.tree({name: self.valid[name] for name in chosen})
        tree = tree if isinstance(tree, dict) else {"seed": tree}
        if rng.random() < 0.3:
            tree = {"training": tree}
        text = "\n".join(self.lines(tree))
        if rng.random() < 0.03:
            text = rng.choice(
                ("a = " + "[" * 5000 + "]" * 5000, "a." * 5000 + "b = 1", "x" * 2**20)
            )
        data = text.encode("utf-8", "surrogatepass")
        (folder / "run.toml").write_bytes(m.bytes(data) if rng.random() < 0.1 else data)

    def lines(self, tree: dict[str, Any], above: str = "") -> list[str]:
        """A tree as TOML, whatever its keys."""
        found = []
        tables = []
        for key, value in tree.items():
            name = key if key.isidentifier() and key.isascii() else json.dumps(key)
            if isinstance(value, dict) and not above:
                tables += [f"[{name}]", *self.lines(value, name)]
            else:
                found.append(f"{name} = {self.literal(value)}")
        return found + tables

    def literal(self, value: Any) -> str:
        if value is None:
            return '"none"'
        if isinstance(value, dict):
            return "{" + ", ".join(f'"{k}" = {self.literal(v)}' for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.literal, value)) + "]"
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return json.dumps(value, ensure_ascii=False)

    def check(self, given: None, folder: Path) -> None:
        from gpt2.training.settings import TrainConfig, read_settings_file

        path = folder / "run.toml"
        found = read_settings_file(path)
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        flat = {}
        for name, value in raw.items():
            flat |= value if isinstance(value, dict) else {name: value}
        assert repr(found) == repr(flat)  # NaN is not equal to itself
        try:
            config = TrainConfig(**found)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        for name, value in flat.items():
            assert getattr(config, name) == value
        assert config.warmup >= 0
        assert not config.data_folder.is_absolute() or config.data


class State(Target):
    """A training checkpoint → a run that goes on."""

    name = "training state"
    names_file = False  # what does not fit the run names the setting
    shallow = NO_JSON + r"|it describes no run|is not a training checkpoint"

    def __init__(self, scratch: Path):
        from gpt2.training.trainer import train
        from tests.training_helpers import make_data, settings

        (scratch / "text").mkdir()
        data = make_data(scratch / "text", 400)
        config = settings(
            data, max_steps=4, keep_last=1, checkpoint_interval=4, ema_decay=0.5, n_embd=6
        )
        train(config, scratch / "run")
        self.data = data
        step = scratch / "run" / "checkpoints" / "step-00000004"
        self.files = {path.name: path.read_bytes() for path in step.iterdir()}
        self.state = json.loads(self.files["training.json"])

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        step = folder / "run" / "checkpoints" / rng.choice(("step-00000004", "step-00000004"))
        step.mkdir(parents=True)
        shutil.copytree(self.data, folder / "data")
        files = dict(self.files)
        state = json.loads(files["training.json"])
        state["config"]["data"] = "data"
        kind = rng.random()
        if kind < 0.7:
            part = rng.choice((None, None, "config", "loader", "random", "optimizer_steps"))
            state = m.tree(state) if part is None else state | {part: m.tree(state[part])}
        elif kind < 0.8:
            state["config"] |= {
                "data": rng.choice(("../outside", "../../x", "new", "run", "data/../../y", None)),
                "source": rng.choice(("python-docs", "../canary.txt", "data", "hf:a/b", "run")),
            }
        else:
            name = rng.choice(("training.safetensors", "training.safetensors", "model.safetensors"))
            files[name] = mutate_safetensors(m, files[name])
        if rng.random() < 0.02:
            name = rng.choice(list(files))
            files[name] = pickle.dumps(Bomb())
        files["training.json"] = (
            m.json(state) if files["training.json"][:1] == b"{" else files["training.json"]
        )
        for name, data in files.items():
            (step / name).write_bytes(data)

    def check(self, given: None, folder: Path) -> None:
        from gpt2.training.trainer import Trainer, World, resumed_config

        inside = os.getcwd()
        os.chdir(folder)
        try:
            config = resumed_config("run", {"device": "cpu", "threads": 1, "precision": "float32"})
            trainer = Trainer(config, "run", World(0, 1, torch.device("cpu")), resume=True)
            trainer.config = config
            assert trainer.done >= 0
            if trainer.done < config.max_steps and config.max_steps - trainer.done < 3:
                trainer.train()
        finally:
            os.chdir(inside)


# ------------------------------------------------------------------------------------- generation


class Sampling(Target):
    """Logits and sampling parameters → a token that they allow."""

    name = "sampling"
    names_file = False

    def __init__(self, scratch: Path):
        self.model = tiny(**SMALL)

    def make(self, m: Mutator, folder: Path) -> dict[str, Any]:
        rng = m.rng
        given: dict[str, Any] = {
            "temperature": rng.choice((1.0, 0.7, 0, 2, 1e-8, 2e-8, 100.0)),
            "top_k": rng.choice((None, 1, 3, len(ALPHABET), 10**9)),
            "top_p": rng.choice((None, 0.5, 1.0, 1e-30, 0.999999)),
            "repetition_penalty": rng.choice((1.0, 1.3, 0.5, 1e-6, 1e6)),
            "eos_token_id": rng.choice((None, 0, 3)),
            "max_new_tokens": rng.choice((0, 1, 3, 5)),
            "ids": [rng.randrange(SMALL["vocab_size"]) for _ in range(rng.randrange(1, 9))],
            "scale": rng.choice((1.0, 1.0, 30.0, 1e4, 0.0)),
            "seed": rng.randrange(2**32),
            "use_cache": rng.random() < 0.5,
            "sliding": rng.random() < 0.3,
        }
        if rng.random() < 0.6:
            name = rng.choice(list(given)[:6])
            value = m.value()
            others = (np.float32(0.5), np.int64(2), np.float64("nan"), torch.tensor(2), 1 + 2j)
            given[name] = rng.choice((value, rng.choice(NUMBERS), rng.choice(others)))
            if name == "max_new_tokens" and not isinstance(given[name], str):
                given["sliding"] = False  # so many tokens would be what was asked for
        if rng.random() < 0.1:
            given["ids"] = rng.choice(
                ([], [-1], [len(ALPHABET)], [2**62], [0.5], [True], [0] * 14, [0] * 15, [[0]])
            )
        return given

    def check(self, given: dict[str, Any], folder: Path) -> None:
        from gpt2.generation.generating import filter_logits, generate
        from gpt2.sampling import next_token

        options = {
            name: given[name]
            for name in ("temperature", "top_k", "top_p", "repetition_penalty", "eos_token_id")
        }
        ids = torch.tensor([given["ids"]])
        generator = torch.Generator().manual_seed(given["seed"])
        out = generate(
            self.model,
            ids,
            given["max_new_tokens"],
            **options,
            use_cache=given["use_cache"],
            sliding=given["sliding"],
            generator=generator,
        )
        T, n = ids.size(1), int(given["max_new_tokens"])
        assert out[0, :T].tolist() == given["ids"]
        assert out.size(1) <= T + n
        ends = options["eos_token_id"]
        ends = ends if isinstance(ends, (list, tuple)) else [ends]
        assert out.size(1) == T + n or int(out[0, -1]) in ends
        assert bool(((out >= 0) & (out < SMALL["vocab_size"])).all())
        options.pop("eos_token_id")
        logits = torch.randn(2, SMALL["vocab_size"], generator=generator) * given["scale"]
        seen = torch.zeros_like(logits, dtype=torch.bool)
        seen[:, given["ids"]] = True
        filtered = filter_logits(logits, **options, seen=seen)
        for row, allowed in zip(filtered, allowed_tokens(logits, seen, **options), strict=True):
            kept = set(row.isfinite().nonzero()[:, 0].tolist())
            surely, perhaps = allowed
            assert surely <= kept <= perhaps, (surely, kept, perhaps)
        tokens = next_token(logits, **options, seen=seen, generator=generator)
        assert tokens.shape == (2,)
        assert bool(filtered.gather(1, tokens[:, None]).isfinite().all())


def allowed_tokens(
    logits: torch.Tensor,
    seen: torch.Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
) -> list[tuple[set[int], set[int]]]:
    """Per row, the tokens that must be kept, and those that may be: computed in float64, in plain
    Python, with a margin where rounding or a tie decides.
    """
    found = []
    for row, marks in zip(logits.double().tolist(), seen.tolist(), strict=True):
        if repetition_penalty != 1.0:
            row = [
                (x * float(repetition_penalty) if x < 0 else x / float(repetition_penalty))
                if mark
                else x
                for x, mark in zip(row, marks, strict=True)
            ]
        everything = set(range(len(row)))
        if temperature <= 1e-8:
            found.append((everything, everything))
            continue
        row = [x / float(temperature) for x in row]
        margin = 1e-5 * max(1.0, *(abs(x) for x in row if math.isfinite(x)))
        surely, perhaps = everything, everything
        if top_k is not None:
            kth = sorted(row, reverse=True)[min(int(top_k), len(row)) - 1]
            surely = {i for i in everything if row[i] > kth + margin}
            perhaps = {i for i in everything if row[i] >= kth - margin}
        if top_p is not None and top_p < 1:
            highest = max(row)
            weights = [math.exp(x - highest) if i in perhaps else 0.0 for i, x in enumerate(row)]
            total = sum(weights)
            above = {
                i: sum(weights[j] for j in everything if row[j] > row[i] + margin) / total
                for i in everything
            }
            at_least = {
                i: sum(weights[j] for j in everything if row[j] >= row[i] - margin) / total
                for i in everything
            }
            slack = 1e-4 + margin
            perhaps = perhaps & {i for i in everything if above[i] < float(top_p) + slack}
            surely = surely & {
                i for i in everything if at_least[i] - weights[i] / total < float(top_p) - slack
            }
            if len(surely) and top_k is not None and perhaps != everything:
                surely = set()  # what top-k leaves undecided shifts the sum; the bound above stays
        found.append((surely, perhaps))
    return found


# ------------------------------------------------------------------------------------------- GGUF


class GGUF(Target):
    """A GGUF file → its header, its tokenizer, a model."""

    name = "GGUF"
    shallow = r"does not begin with GGUF|it is of version|it is big-endian"

    def __init__(self, scratch: Path):
        from gpt2.formats.gguf import save_gguf

        self.model = tiny(**(SMALL | {"vocab_size": 268, "n_embd": 32}))
        self.plain = tiny(**(SMALL | {"vocab_size": 268}))
        tokenizer = byte_tokenizer(12)
        self.valid = []
        for i, (model, words, kind) in enumerate(
            (
                (self.plain, None, "f32"),
                (self.plain, tokenizer, "f16"),
                (self.model, None, "q8_0"),
                (self.model, tokenizer, "q4_0"),
            )
        ):
            if words is not None and words.vocab_size != 268:
                raise AssertionError(words.vocab_size)
            save_gguf(model, scratch / f"{i}.gguf", words, kind)
            self.valid.append((scratch / f"{i}.gguf").read_bytes())

    def make(self, m: Mutator, folder: Path) -> None:
        rng = m.rng
        data = bytearray(rng.choice(self.valid))
        start = data.find(b"token_embd.weight") + 4000  # most of what is read word for word
        header = min(start, len(data) // 3)
        for _ in range(m.some(3)):
            i = rng.randrange(header) if rng.random() < 0.8 else rng.randrange(8, 24)
            kind = rng.randrange(8)
            if kind <= 2:  # a number anywhere
                size = rng.choice((1, 4, 8))
                number = rng.choice((0, 1, 2**16, 2**31, 2**32 - 1, 10**18, 2**63, 2**64 - 1))
                data[i : i + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
            elif kind == 3:  # the value behind a name
                words = (
                    b"block_count",
                    b"embedding_length",
                    b"context_length",
                    b"head_count",
                    b"ggml.tokens",
                    b"ggml.merges",
                    b"token_type",
                    b"alignment",
                    b"epsilon",
                    b"feed_forward_length",
                    b"eos_token_id",
                    b"bos_token_id",
                    b"ggml.pre",
                )
                name = rng.choice(words)
                at = data.find(name) + len(name)
                at += rng.choice((0, 4, 8))
                number = rng.choice((0, 1, 3, 8, 9, 2**31 - 1, 2**32 - 1, rng.randrange(2**32)))
                data[at : at + 4] = number.to_bytes(4, "little")
            elif kind == 4 and i < len(data):  # an earlier change may have cut it
                data[i] ^= 1 << rng.randrange(8)
            elif kind == 5:  # a tensor's line
                name = rng.choice(
                    (b"token_embd.weight", b"blk.1.ffn_up.weight", b"output_norm.bias")
                )
                at = data.rfind(name) + len(name) + rng.choice((0, 4, 12, 20, 24))
                number = rng.choice((0, 1, 2, 2**31, 10**9, 32, 8, 14))
                data[at : at + 4] = number.to_bytes(4, "little")
            elif kind == 6:
                data = bytearray(m.bytes(bytes(data), 1))
            else:
                data[len(data) - rng.randrange(1, 40) :] = b""
        (folder / "model.gguf").write_bytes(data)

    names_file = False  # GPT2Config names the setting

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.gguf import read_roles, read_tokenizer

        path = folder / "model.gguf"
        model = GPT2Model.from_pretrained(path)
        V = model.config.vocab_size
        assert model(torch.arange(3)[None] % V).shape == (1, 3, V)
        roles = read_roles(path).model
        assert all(0 <= i < V for i in (*roles.eos, roles.bos or 0, roles.pad or 0))
        check_tokenizer(read_tokenizer(path))


# --------------------------------------------------------------------------------------- adapters


class AdapterFolder(Target):
    """A folder in peft's format → A, B and their scaling."""

    name = "adapter folder"
    shallow = NO_JSON

    def __init__(self, scratch: Path):
        from gpt2.formats.adapters import write_adapter
        from gpt2.lora import adapter_state, add_lora

        self.valid = []
        for number, targets in enumerate((("c_attn",), ("c_proj", "c_fc"))):
            model = tiny(**SMALL)
            add_lora(model, 2 + number, 5, 0.0, targets)
            state = {key: torch.randn_like(value) for key, value in adapter_state(model).items()}
            folder = write_adapter(scratch / f"adapter{number}", state, 5)
            torch.save(state, scratch / f"adapter{number}.bin")
            config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
            config |= {"rank_pattern": {}, "use_dora": False, "layers_to_transform": None}
            config |= {"exclude_modules": None, "lora_bias": False}
            data = (folder / "adapter_model.safetensors").read_bytes()
            self.valid.append((config, data, (scratch / f"adapter{number}.bin").read_bytes()))

    def make(self, m: Mutator, folder: Path) -> None:
        config, data, pickled = m.rng.choice(self.valid)
        config = dict(config)
        if m.rng.random() < 0.3:
            config["target_modules"] = m.rng.choice(
                (
                    *("all-linear", ".*c_attn", r".*\.h\.[01]\.attn\.c_attn", "(a+)+$", "(", ""),
                    *([], ["c_attn", 3], ["lm_head"], ["attn.c_attn"], ["h.0.attn.c_attn"], ["x"]),
                    *(["c_attn", "c_proj", "c_fc"], None, "x" * 1000, "(.*a){20}", [["c_attn"]]),
                )
            )
        if m.rng.random() < 0.2:
            config["layers_to_transform"] = m.rng.choice(([0], 1, [0, 1], [7], -1, "0", [True]))
        if m.rng.random() < 0.2:
            config["use_rslora"] = m.rng.choice((True, False, None, 1, "yes"))
        if m.rng.random() < 0.6:
            config = m.tree(config)
        (folder / "adapter_config.json").write_bytes(m.json(config))
        kind = m.rng.random()
        if kind < 0.15:
            pickled = pickle.dumps(Bomb()) if m.rng.random() < 0.3 else m.bytes(pickled)
            (folder / "adapter_model.bin").write_bytes(pickled)
        elif kind < 0.97:
            if m.rng.random() < 0.5:
                data = mutate_safetensors(m, data)
            (folder / "adapter_model.safetensors").write_bytes(data)

    names_file = False  # of a pickle or a tensor, the message may name the folder alone

    def check(self, given: None, folder: Path) -> None:
        from gpt2.formats.adapters import read_adapter
        from gpt2.inference.loading import put_adapter

        found = read_adapter(folder, SMALL)
        raw = json.loads((folder / "adapter_config.json").read_bytes())
        assert same(found.rank, raw["r"])
        alpha = raw.get("lora_alpha", 8) * (raw["r"] ** 0.5 if raw.get("use_rslora") else 1)
        assert math.isclose(found.alpha, alpha)
        file = folder / "adapter_model.safetensors"
        if file.is_file():
            from safetensors.torch import load_file

            theirs = load_file(file)
        else:
            theirs = torch.load(folder / "adapter_model.bin", weights_only=True)
        assert theirs.keys() <= found.state.keys()
        for key, value in found.state.items():
            want = theirs[key].float() if key in theirs else torch.zeros_like(value)
            assert torch.equal(value, want), key
        model = tiny(**SMALL)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        put_adapter(model, folder)
        for name, parameter in model.named_parameters():
            key = f"base_model.model.transformer.{name.removesuffix('.weight')}"
            want = before[name]
            if f"{key}.lora_A.weight" in theirs:
                a, b = (theirs[f"{key}.lora_{part}.weight"].double() for part in "AB")
                want = (want.double() + alpha / raw["r"] * (b @ a)).float()
            torch.testing.assert_close(parameter.detach(), want, rtol=1e-3, atol=1e-3)
