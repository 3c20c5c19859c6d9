"""A zoo of small model folders with random weights, of the kinds that people really have.

Every folder holds one of two models whose greedy text from `PROMPT` ends with an end token after a
few tokens: `END` in most, GPT-2's own `<|endoftext|>` in those with its arrangement. A kind says
what its folder has instead of the plain files, and what should come of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PROMPT = "To be"
NEW = 12  # tokens asked for; the text ends before
C, L, H, P = 16, 2, 4, 40
TEXTS = ["To be, or not to be, that is the question: naïve 日本"] * 3
GPT2_END = "<|endoftext|>"
EXTRA = ["</s>", "<s>", "[PAD]"]


@functools.cache
def words() -> tuple[dict[str, int], list[str]]:
    """A byte-level vocabulary in GPT-2's arrangement (bytes, then merges), and its merges."""
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS, vocab_size=300, min_frequency=2, show_progress=False)
    described = json.loads(trained.to_str())["model"]
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(b) for b in visible] + [chr(256 + i) for i in range(256 - len(visible))]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in described["merges"]]
    tokens = alphabet + [pair.replace(" ", "") for pair in pairs]
    return {token: i for i, token in enumerate(tokens)}, pairs


def plain_size() -> int:
    return len(words()[0])


def end() -> int:
    """The id of `</s>`; `<s>` and `[PAD]` follow. In GPT-2's arrangement, `<|endoftext|>`."""
    return plain_size()


def backend(specials: list[str]) -> Any:
    """A `tokenizers` tokenizer with these special tokens behind the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    vocabulary, pairs = words()
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(p.split(" ")) for p in pairs]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in specials])
    return made


def prompt_ids() -> list[int]:
    return backend([]).encode(PROMPT).ids


@functools.cache
def weights(rows: int, padded: int = 0) -> dict[str, Tensor]:
    """Random tensors of Hugging Face's GPT-2, whose greedy text emits `end()` after 3 to 9 tokens;
    the last `padded` rows of the table are nearly zero.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    for seed in range(1000):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=rows, n_positions=P, n_embd=C, n_layer=L, n_head=H, initializer_range=0.5
        )
        model = GPT2LMHeadModel(config).eval()
        table = model.transformer.wte.weight.data
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.add_(torch.randn_like(parameter) * 0.1)
        if padded:
            table[-padded:] *= 1e-3
        found = _greedy(model, NEW)
        # renaming a token is swapping its row: the fourth or so becomes the end token
        for token in found[3:9]:
            if token in (*prompt_ids(), *found[:3]) or token >= end():
                continue
            table[[token, end()]] = table[[end(), token]]
            now = _greedy(model, NEW)
            if end() in now[3:9] and end() not in now[:3] and max(now[:4]) < end():
                return {
                    name: tensor.clone()
                    for name, tensor in model.state_dict().items()
                    if name != "lm_head.weight"
                }
            break
    raise AssertionError("no seed gives such a text")


@torch.no_grad()
def _greedy(model: Any, n: int) -> list[int]:
    ids = torch.tensor([prompt_ids()])
    for _ in range(n):
        ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
    return ids[0, len(prompt_ids()) :].tolist()


@dataclass
class Parts:
    """What a folder is made of; a kind changes it before it is written."""

    config: dict[str, Any]
    generation: Any = None  # an object, a text as it is, or no file
    tokenizer_config: Any = None
    special_tokens_map: Any = None
    added_tokens: Any = None
    tokenizer: Any = None  # tokenizer.json's, from `backend`
    two_files: dict[str, int] | None = None  # vocab.json beside merges.txt
    tensors: dict[str, Tensor] = field(default_factory=dict)
    shards: int = 1
    weight_file: str = "model.safetensors"

    def write(self, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for name, content in (
            ("config.json", self.config),
            ("generation_config.json", self.generation),
            ("tokenizer_config.json", self.tokenizer_config),
            ("special_tokens_map.json", self.special_tokens_map),
            ("added_tokens.json", self.added_tokens),
        ):
            if content is not None:
                text = content if isinstance(content, str) else json.dumps(content)
                (folder / name).write_text(text, encoding="utf-8")
        if self.tokenizer is not None:
            self.tokenizer.save(str(folder / "tokenizer.json"))
        if self.two_files is not None:
            text = json.dumps(self.two_files, ensure_ascii=False)
            (folder / "vocab.json").write_text(text, encoding="utf-8")
            merges = "\n".join(["#version: 0.2", *words()[1]]) + "\n"
            (folder / "merges.txt").write_text(merges, encoding="utf-8")
        tensors = {name: tensor.contiguous().clone() for name, tensor in self.tensors.items()}
        if self.weight_file.endswith(".bin"):
            torch.save(tensors, folder / self.weight_file)
        elif self.shards == 1:
            save_file(tensors, folder / self.weight_file, metadata={"format": "pt"})
        else:
            index = {}
            for i in range(self.shards):
                name = f"model-{i + 1:05d}-of-{self.shards:05d}.safetensors"
                part = dict(list(tensors.items())[i :: self.shards])
                save_file(part, folder / name, metadata={"format": "pt"})
                index |= dict.fromkeys(part, name)
            (folder / "model.safetensors.index.json").write_text(
                json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8"
            )
        return folder


def plain(rows: int | None = None, padded: int = 0) -> Parts:
    """The folder that every kind changes: no file names an end token."""
    rows = plain_size() + len(EXTRA) if rows is None else rows
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": rows,
        "n_positions": P,
        "n_embd": C,
        "n_layer": L,
        "n_head": H,
        "n_inner": None,
        "activation_function": "gelu_new",
        "bos_token_id": None,
        "eos_token_id": None,
    }
    return Parts(
        config,
        tokenizer=backend(EXTRA),
        tokenizer_config={"tokenizer_class": "PreTrainedTokenizerFast"},
        tensors=dict(weights(rows, padded)),
    )


@dataclass(frozen=True)
class Kind:
    """ends: the ids that end its texts. refused: what the refusal says, as a pattern; None: it
    loads. theirs: does `transformers` read the same model from the folder? same_end: do its texts
    end there by the folder's own word? note: what is said of it. reached: does the text that the
    weights give come to its end?
    """

    name: str
    make: Callable[[], Parts]
    ends: tuple[int, ...] = ()
    refused: str | None = None
    theirs: bool = True
    same_end: bool = True
    tokenizer: bool = True
    note: str | None = None
    reached: bool = True


def _with(**changes: Any) -> Callable[[], Parts]:
    """A maker of the plain folder with parts replaced; `config` and `tensors` are added to."""

    def make() -> Parts:
        parts = plain()
        for name, value in changes.items():
            value = value() if callable(value) else value
            if name in ("config", "tensors"):
                value = getattr(parts, name) | value
            setattr(parts, name, value)
        return parts

    return make


def _tensors(change: Callable[[dict[str, Tensor]], dict[str, Tensor]], **more: Any) -> Callable:
    said = {key: more.pop(key) for key in list(more) if key in ("tie_word_embeddings",)}

    def make() -> Parts:
        parts = _with(config={"eos_token_id": end()} | said, **more)()
        parts.tensors = change(parts.tensors)
        return parts

    return make


def _gpt2s_arrangement(rows_more: int = 0, **changes: Any) -> Callable[[], Parts]:
    """vocab.json and merges.txt alone, `<|endoftext|>` last, as GPT-2's are."""

    def make() -> Parts:
        parts = plain(plain_size() + 1 + rows_more, rows_more)
        parts.tokenizer = parts.tokenizer_config = None
        parts.two_files = words()[0] | {GPT2_END: end()}
        parts.config |= {"eos_token_id": end(), "bos_token_id": end()}
        for name, value in changes.items():
            value = value() if callable(value) else value
            setattr(parts, name, value)
        return parts

    return make


def _shifted() -> Parts:
    """The special tokens first, as `ByteLevelBPETokenizer` trains them; the ids are all others."""
    parts = plain()
    n = len(EXTRA)
    order = [*range(plain_size(), plain_size() + n), *range(plain_size())]
    table = parts.tensors["transformer.wte.weight"]
    parts.tensors["transformer.wte.weight"] = table[torch.tensor(order)]
    parts.two_files = {token: i for i, token in enumerate(EXTRA)}
    parts.two_files |= {token: i + n for token, i in words()[0].items()}
    parts.tokenizer = None
    parts.tokenizer_config = {"eos_token": "</s>", "bos_token": "<s>"}
    return parts


def _bare(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def _masks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = torch.ones(1, 1, P, P, dtype=torch.uint8).tril()
    extra = {f"transformer.h.{i}.attn.bias": mask for i in range(L)}
    extra |= {f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(L)}
    return tensors | extra


def _head_for_table(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.replace("transformer.wte.weight", "lm_head.weight"): tensor
        for name, tensor in tensors.items()
    }


def _head(tensors: dict[str, Tensor]) -> Tensor:
    return tensors["transformer.wte.weight"]


LIST = {"content": "</s>", "lstrip": False, "rstrip": False, "normalized": True}


def zoo() -> list[Kind]:
    """All kinds."""
    e = end()
    value = torch.ones(1, C)
    pad_token = {"content": "[PAD2]", "special": True, "normalized": False}
    kinds = [
        # -------------------------------------------------------------------- where the end stands
        Kind("end-in-config", _with(config={"eos_token_id": e}), (e,)),
        Kind("end-in-config-list", _with(config={"eos_token_id": [e + 1, e]}), (e + 1, e)),
        Kind("end-in-generation", _with(generation={"eos_token_id": e}), (e,)),
        Kind("end-in-generation-list", _with(generation={"eos_token_id": [e + 2, e]}), (e + 2, e)),
        Kind(
            "generation-before-config",
            _with(generation={"eos_token_id": e}, config={"eos_token_id": e + 1}),
            (e,),
        ),
        Kind(
            "generation-null-is-nowhere",
            _with(generation={"eos_token_id": None}, config={"eos_token_id": e}),
        ),
        Kind("generation-empty-list", _with(generation={"eos_token_id": []})),
        Kind(
            "generation-silent",
            _with(generation={"do_sample": True}, config={"eos_token_id": e}),
            (e,),
            same_end=False,
        ),
        Kind(
            "end-in-tokenizer-config",
            _with(
                tokenizer_config={
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "eos_token": "</s>",
                    "bos_token": "<s>",
                    "pad_token": "[PAD]",
                }
            ),
            (e,),
            same_end=False,
        ),
        Kind(
            "end-in-tokenizer-config-as-object",
            _with(
                tokenizer_config={
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "eos_token": LIST | {"__type": "AddedToken", "single_word": False},
                }
            ),
            (e,),
            same_end=False,
        ),
        Kind(
            "end-in-special-tokens-map",
            _with(special_tokens_map={"eos_token": "</s>"}),
            (e,),
            same_end=False,
        ),
        Kind(
            "end-in-special-tokens-map-as-object",
            _with(special_tokens_map={"eos_token": LIST | {"single_word": False}}),
            (e,),
            same_end=False,
        ),
        Kind(
            "end-beyond-the-table",
            _with(config={"eos_token_id": 50256, "bos_token_id": 50256}),
            note="50256 is not a row",
        ),
        Kind(
            "end-beyond-the-table-and-in-tokenizer",
            _with(
                config={"eos_token_id": 50256},
                tokenizer_config={
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "eos_token": "</s>",
                },
            ),
            (e,),
            same_end=False,
            note="50256 is not a row",
        ),
        Kind("no-end", _with()),
        Kind("end-negative", _with(config={"eos_token_id": -1}), note="-1 is not a row"),
        # ------------------------------------------------------------------------ tokenizer's files
        Kind("gpt2s-two-files", _gpt2s_arrangement(), (e,)),
        Kind(
            "gpt2s-two-files-without-a-word",
            _gpt2s_arrangement(config=lambda: plain(plain_size() + 1).config),
            (e,),
            same_end=False,
        ),
        Kind("two-files-specials-first", _shifted, (0,), same_end=False),
        Kind(
            "both-forms",
            _with(two_files=lambda: words()[0], config={"eos_token_id": e}),
            (e,),
        ),
        Kind(
            "two-files-and-added-tokens",
            _with(
                tokenizer=None,
                two_files=lambda: words()[0],
                added_tokens={token: e + i for i, token in enumerate(EXTRA)},
                special_tokens_map={"eos_token": "</s>", "pad_token": "[PAD]"},
                tokenizer_config={"tokenizer_class": "GPT2Tokenizer"},
            ),
            (e,),
            same_end=False,
        ),
        Kind(
            "added-tokens-decoder",
            _with(
                tokenizer=lambda: backend([]),
                config={"eos_token_id": e},
                tokenizer_config={
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "added_tokens_decoder": {
                        str(e + i): {"content": token, "special": True, "normalized": False}
                        for i, token in enumerate(EXTRA)
                    },
                    "eos_token": "</s>",
                },
            ),
            (e,),
        ),
        Kind(
            "end-named-and-in-no-vocabulary",
            _gpt2s_arrangement(
                rows_more=1,
                config=lambda: plain(plain_size() + 2, 1).config,
                special_tokens_map={"eos_token": "<end>", "pad_token": "[PAD]"},
            ),
            (e + 1,),
            same_end=False,
            note="the tokenizer's ids end at",
            reached=False,
        ),
        Kind(
            "a-token-more-than-rows",
            _with(
                tokenizer=lambda: backend([*EXTRA, "[PAD2]"]),
                config={"eos_token_id": e},
            ),
            (e,),
            note="the tokenizer's ids end at",
        ),
        Kind(
            "a-token-more-by-added-tokens-decoder",
            _with(
                config={"eos_token_id": e},
                tokenizer_config={
                    "tokenizer_class": "PreTrainedTokenizerFast",
                    "added_tokens_decoder": {str(e + len(EXTRA)): pad_token},
                    "pad_token": "[PAD2]",
                },
            ),
            (e,),
            note="the tokenizer's ids end at",
        ),
        Kind(
            "no-tokenizer",
            _with(tokenizer=None, tokenizer_config=None, config={"eos_token_id": e}),
            (e,),
            tokenizer=False,
        ),
        # -------------------------------------------------------------------------------- the table
        Kind(
            "padded",
            lambda: _padded({"eos_token_id": e}),
            (e,),
            note="stand for no token",
        ),
        Kind(
            "padded-gpt2s-two-files",
            _gpt2s_arrangement(rows_more=23),
            (e,),
            note="stand for no token",
        ),
        Kind("head-for-table", _tensors(_head_for_table), (e,)),
        Kind("head-for-table-bare", _tensors(lambda t: _bare(_head_for_table(t))), (e,)),
        Kind("head-and-table", _tensors(lambda t: t | {"lm_head.weight": _head(t)}), (e,)),
        Kind(
            "head-and-table-said-untied",
            _tensors(lambda t: t | {"lm_head.weight": _head(t)}, tie_word_embeddings=False),
            (e,),
        ),
        Kind(
            "untied",
            _tensors(lambda t: t | {"lm_head.weight": _head(t) * 2}),
            refused="lm_head.weight differs from transformer.wte.weight",
        ),
        Kind(
            "untied-and-no-head",
            _with(config={"tie_word_embeddings": False}),
            refused="tie_word_embeddings is false",
        ),
        # -------------------------------------------------------------------------------- the names
        Kind("bare-names", _tensors(_bare), (e,)),
        Kind(
            "mixed-names",
            _tensors(
                lambda t: {
                    (n.removeprefix("transformer.") if "ln_f" in n else n): v for n, v in t.items()
                }
            ),
            (e,),
        ),
        Kind("masks", _tensors(_masks), (e,)),
        Kind("masks-bare", _tensors(lambda t: _bare(_masks(t))), (e,)),
        *(
            Kind(
                f"wrapped-{prefix.strip('.').replace('.', '-')}",
                _tensors(lambda t, p=prefix: {f"{p}{n}": v for n, v in t.items()}),
                (e,),
                theirs=False,
                note="was removed",
            )
            for prefix in ("module.", "_orig_mod.", "model.", "pretrained_model.", "gpt.net.")
        ),
        Kind(
            "wrapped-with-a-head",
            _tensors(
                lambda t: (
                    {f"module.{n}": v for n, v in t.items()} | {"module.lm_head.weight": _head(t)}
                )
            ),
            (e,),
            theirs=False,
            note="was removed",
        ),
        Kind(
            "one-name-twice",
            _tensors(lambda t: t | {"ln_f.bias": torch.ones(C)}),
            refused="ln_f.bias and transformer.ln_f.bias are both there",
        ),
        Kind(
            "two-models",
            _tensors(lambda t: t | {f"draft.{n}": v for n, v in t.items()}),
            refused="more than one GPT-2",
        ),
        Kind(
            "as-nanogpt-stores",
            _tensors(
                lambda t: {n: (v.t() if ".c_" in n and v.dim() == 2 else v) for n, v in t.items()}
            ),
            refused="transpose c_attn",
        ),
        # ---------------------------------------------------------------------------- further heads
        Kind(
            "classifier",
            _tensors(lambda t: t | {"score.weight": torch.ones(3, C)}),
            (e,),
            note="score.weight",
        ),
        Kind(
            "token-classifier",
            _tensors(
                lambda t: (
                    t | {"classifier.weight": torch.ones(3, C), "classifier.bias": torch.ones(3)}
                )
            ),
            (e,),
            note="classifier.weight",
        ),
        Kind(
            "double-heads",
            _tensors(
                lambda t: (
                    t
                    | {
                        "multiple_choice_head.summary.weight": value,
                        "multiple_choice_head.summary.bias": torch.ones(1),
                        "lm_head.weight": _head(t),
                    }
                )
            ),
            (e,),
            note="multiple_choice_head.summary.weight",
        ),
        Kind(
            "value-head",
            _tensors(
                lambda t: t | {"v_head.summary.weight": value, "v_head.summary.bias": torch.ones(1)}
            ),
            (e,),
            note="v_head.summary.weight",
        ),
        Kind(
            "value-head-of-two-layers",
            _tensors(
                lambda t: (
                    t
                    | {
                        "v_head.0.weight": torch.ones(2 * C, C),
                        "v_head.0.bias": torch.ones(2 * C),
                        "v_head.2.weight": torch.ones(1, 2 * C),
                        "v_head.2.bias": torch.ones(1),
                    }
                )
            ),
            (e,),
            note="v_head.0.weight",
        ),
        Kind(
            "questions",
            _tensors(
                lambda t: (
                    _bare(t)
                    | {"qa_outputs.weight": torch.ones(2, C), "qa_outputs.bias": torch.ones(2)}
                )
            ),
            (e,),
            note="qa_outputs.weight",
        ),
        Kind(
            "adapters-inside",
            _tensors(lambda t: t | {"transformer.h.0.attn.c_attn.lora_A.weight": torch.ones(2, C)}),
            refused="lora_A",
        ),
        # ------------------------------------------------------------------------------- the config
        Kind(
            "n-ctx",
            lambda: _renamed({"n_positions": "n_ctx"}),
            (e,),
            theirs=False,
        ),
        Kind(
            "other-names-of-sizes",
            lambda: _renamed(
                {
                    "n_embd": "hidden_size",
                    "n_layer": "num_hidden_layers",
                    "n_head": "num_attention_heads",
                    "n_positions": "max_position_embeddings",
                }
            ),
            (e,),
        ),
        Kind("n-ctx-beside", _with(config={"n_ctx": 1024, "eos_token_id": e}), (e,)),
        Kind("n-inner-4c", _with(config={"n_inner": 4 * C, "eos_token_id": e}), (e,)),
        *(
            Kind(name, _with(config={"activation_function": name, "eos_token_id": e}), (e,))
            for name in ("gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh", "gelu_accurate")
        ),
        Kind("upcast", _with(config={"reorder_and_upcast_attn": True, "eos_token_id": e}), (e,)),
        Kind("torch-dtype", _with(config={"torch_dtype": "float16", "eos_token_id": e}), (e,)),
        Kind(
            "other-architecture-named",
            _with(config={"architectures": ["GPT2ForSequenceClassification"], "eos_token_id": e}),
            (e,),
        ),
        *(
            Kind(
                f"refused-{field}-{value}",
                _with(config={field: value}),
                refused=field,
            )
            for field, value in (
                ("activation_function", "gelu"),
                ("activation_function", "relu"),
                ("activation_function", "quick_gelu"),
                ("n_inner", 3 * C),
                ("scale_attn_weights", False),
                ("scale_attn_by_inverse_layer_idx", True),
                ("add_cross_attention", True),
                ("model_type", "gpt_neo"),
                ("model_type", "gptj"),
                ("model_type", None),
                ("quantization_config", {"bits": 4}),
                ("n_head", 3),
                ("eos_token_id", "</s>"),
                ("eos_token_id", [1.5]),
                ("bos_token_id", True),
            )
        ),
        # -------------------------------------------------------------------------------- the files
        Kind("float16", _tensors(lambda t: {n: v.half() for n, v in t.items()}), (e,)),
        Kind("bfloat16", _tensors(lambda t: {n: v.bfloat16() for n, v in t.items()}), (e,)),
        Kind("shards", _with(config={"eos_token_id": e}, shards=3), (e,)),
        Kind(
            "shards-and-a-classifier",
            _tensors(lambda t: t | {"score.weight": torch.ones(3, C)}, shards=3),
            (e,),
            note="score.weight",
        ),
        Kind("pickle-alone", _with(weight_file="pytorch_model.bin"), refused="pickle"),
        Kind(
            "generation-damaged",
            _with(generation='{"eos_token_id": 2', config={"eos_token_id": e}),
            refused="generation_config.json cannot be read",
        ),
        Kind(
            "generation-of-words",
            _with(generation={"eos_token_id": "</s>"}, config={"eos_token_id": e}),
            refused=r"generation_config.json: eos_token_id must be",
        ),
        Kind(
            "tokenizer-config-of-numbers",
            _with(tokenizer_config={"eos_token": 5}),
            refused=r"tokenizer_config.json: eos_token must be",
        ),
        Kind(
            "special-tokens-map-of-lists",
            _with(special_tokens_map={"eos_token": ["</s>"]}),
            refused=r"special_tokens_map.json: eos_token must be",
        ),
    ]
    return kinds


def _padded(config: dict[str, Any]) -> Parts:
    parts = plain(plain_size() + len(EXTRA) + 45, 45)
    parts.config |= config
    return parts


def _renamed(names: dict[str, str]) -> Parts:
    parts = plain()
    parts.config = {names.get(key, key): value for key, value in parts.config.items()}
    parts.config["eos_token_id"] = end()
    return parts
