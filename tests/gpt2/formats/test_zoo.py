"""Other people's folders, against `transformers` on the same files: the same logits, the same text
and the same end of it; or a refusal that names the file, the field and the value.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import pytest
import torch
from zoo import EXTRA, NEW, PROMPT, Kind, P, backend, end, plain, prompt_ids, words, zoo

from gpt2.formats.checkpoints import LeftOut, save_pretrained
from gpt2.formats.gguf import save_gguf
from gpt2.formats.opening import Opened, load_tokenizer, open_model
from gpt2.generation.generating import generate
from gpt2.inference.loading import load_model
from gpt2.model import GPT2Model

KINDS = zoo()
LOADS = [kind for kind in KINDS if kind.refused is None]
REFUSED = [kind for kind in KINDS if kind.refused is not None]


def named(kinds: list[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", kinds, ids=lambda kind: kind.name)


def ours(opened: Opened, model: GPT2Model | None = None) -> list[int]:
    """Our greedy new tokens, to the end."""
    ids = torch.tensor([prompt_ids_of(opened)])
    model = load_model(opened) if model is None else model
    out = generate(
        model, ids, NEW, temperature=0, eos_token_id=opened.roles.eos, never=opened.unspoken()
    )
    return out[0, ids.size(1) :].tolist()


def prompt_ids_of(opened: Opened) -> list[int]:
    return opened.encode(PROMPT) if opened.has_tokenizer else prompt_ids()


def theirs(folder: Path, ids: list[int], **options: object):
    """Hugging Face's model from the folder, and its greedy new tokens."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out = model.generate(
        torch.tensor([ids]),
        max_new_tokens=NEW,
        do_sample=False,
        pad_token_id=0,
        attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
        **options,
    )
    return model, out[0, len(ids) :].tolist()


def test_there_are_enough() -> None:
    """Catches a zoo that shrinks."""
    assert len(LOADS) >= 40
    assert len({kind.name for kind in KINDS}) == len(KINDS)


@named(LOADS)
def test_same_numbers_and_same_text(kind: Kind, tmp_path: Path) -> None:
    """Catches a tensor that is read as another, an end token that is not found or invented, an id
    without a token in the text.
    """
    folder = kind.make().write(tmp_path / kind.name)
    opened = open_model(folder)
    assert opened.roles.eos == kind.ends
    assert opened.has_tokenizer == kind.tokenizer
    assert any(kind.note in note for note in opened.notes) if kind.note else not opened.notes
    ids = prompt_ids_of(opened)
    model = load_model(opened)
    with torch.no_grad():
        logits = model(torch.tensor([ids]))
    text = ours(opened, model)
    if kind.ends and kind.reached:
        assert text[-1] in kind.ends
        assert len(text) < NEW
    else:
        assert len(text) == NEW
    if not kind.theirs:  # the same weights without what the kind put around them
        plain = tmp_path / "plain"
        plain.mkdir()
        opened.write_plain(plain)
        folder = plain
    given = {} if kind.same_end and kind.theirs else {"eos_token_id": list(kind.ends)}
    their_model, their_text = theirs(folder, ids, **given)
    with torch.no_grad():
        torch.testing.assert_close(
            logits, their_model(torch.tensor([ids])).logits, atol=1e-4, rtol=0
        )
    assert text == their_text


@named([kind for kind in LOADS if not kind.theirs])
def test_what_they_cannot_read_is_the_model_it_was_made_of(kind: Kind, tmp_path: Path) -> None:
    """Catches weights that are mixed up on the way, where Hugging Face reads none of them."""

    folder = kind.make().write(tmp_path / kind.name)
    same = plain()
    same.config["eos_token_id"] = end()
    ids = prompt_ids()
    their_model, their_text = theirs(same.write(tmp_path / "same"), ids)
    opened = open_model(folder)
    with torch.no_grad():
        wanted = their_model(torch.tensor([ids])).logits
        torch.testing.assert_close(
            load_model(opened)(torch.tensor([ids])), wanted, atol=1e-4, rtol=0
        )
    assert ours(opened) == their_text


@named([kind for kind in LOADS if kind.tokenizer])
def test_same_tokens(kind: Kind, tmp_path: Path) -> None:
    """Catches a vocabulary whose ids are shifted, and added tokens that are lost."""
    from transformers import AutoTokenizer

    folder = kind.make().write(tmp_path / kind.name)
    tokenizer, them = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in (PROMPT, "that is naïve: 日本", "\n\n x  y"):
        ids = tokenizer.encode(text)
        assert ids == them.encode(text, add_special_tokens=False)
        assert tokenizer.decode(ids) == text


def whole(folder: Path) -> tuple:
    """All that a command may ask of a folder."""
    opened = open_model(folder)
    return opened.roles, load_model(opened), opened.tokenizer


@named(REFUSED)
def test_the_refusal_says_why(kind: Kind, tmp_path: Path) -> None:
    """Catches a folder that loads as something else, and a refusal that does not say why."""
    folder = kind.make().write(tmp_path / kind.name)
    with pytest.raises(ValueError, match=kind.refused) as caught:
        whole(folder)
    assert kind.name in str(caught.value)  # which folder it is in


@named([kind for kind in LOADS if (kind.note and "head" in kind.note) or kind.name == "classifier"])
def test_loading_by_hand_says_what_is_left_out(kind: Kind, tmp_path: Path) -> None:
    """Catches a notebook's `from_pretrained` that leaves a head out in silence."""
    folder = kind.make().write(tmp_path / kind.name)
    with pytest.warns(LeftOut, match="left out"):
        GPT2Model.from_pretrained(folder)


# ------------------------------------------------------------------------------- out, and in again


ROUND = [kind for kind in LOADS if kind.tokenizer]


@named(ROUND)
def test_out_and_in_again(kind: Kind, tmp_path: Path) -> None:
    """Catches a role, a row or a token lost on the way folder → GGUF → folder; what is exported
    ends its texts in Hugging Face's code too.
    """
    first = open_model(kind.make().write(tmp_path / kind.name))
    text, ids = ours(first), prompt_ids_of(first)
    file = save_gguf(load_model(first), tmp_path / "m.gguf", first.tokenizer, roles=first.roles)
    second = open_model(file)
    assert second.kind == "GGUF file"
    assert second.roles == first.roles
    assert len(metadata(file)["tokenizer.ggml.tokens"]) == first.rows
    assert ours(second) == text
    folder = save_pretrained(
        load_model(second), tmp_path / "again", second.tokenizer, roles=second.roles
    )
    third = open_model(folder)
    assert third.roles == first.roles
    assert ours(third) == text
    assert theirs(folder, ids)[1] == text
    from transformers import AutoTokenizer

    them = AutoTokenizer.from_pretrained(folder)
    assert them.encode(PROMPT, add_special_tokens=False) == ids
    if first.tokenizer.roles.eos:
        assert them.eos_token_id == first.tokenizer.roles.end


def metadata(file: Path) -> dict:
    from gpt2.formats.gguf import read_header

    return read_header(file).metadata


@pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed"
)
@named([kind for kind in ROUND if kind.ends and kind.reached])
def test_llama_cpp_ends_where_we_do(kind: Kind, tmp_path: Path) -> None:
    """Catches a GGUF file that llama.cpp refuses, or whose texts run on there."""
    import llama_cpp

    opened = open_model(kind.make().write(tmp_path / kind.name))
    file = save_gguf(load_model(opened), tmp_path / "m.gguf", opened.tokenizer, roles=opened.roles)
    llama = llama_cpp.Llama(
        str(file), n_ctx=P, n_threads=1, verbose=False, type_k=0, type_v=0, logits_all=False
    )
    ids = prompt_ids_of(opened)
    assert llama.tokenize(PROMPT.encode(), add_bos=False) == ids
    wanted = ours(opened)
    text = []
    for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        text.append(token)
        if llama_cpp.llama_token_is_eog(llama_cpp.llama_model_get_vocab(llama.model), token):
            break
        assert len(text) < NEW, "it runs on"
    assert text == wanted


# -------------------------------------------------------------------------------- ways to name one


def test_a_text_that_needs_a_token_the_model_lacks(tmp_path: Path) -> None:
    """Catches an index error inside the embeddings, where the tokenizer knows more than they."""
    kind = next(kind for kind in KINDS if kind.name == "a-token-more-than-rows")
    opened = open_model(kind.make().write(tmp_path / "m"))
    with pytest.raises(ValueError, match=r"needs token \d+ \('\[PAD2\]'\)"):
        opened.encode("To be[PAD2]", ("[PAD2]",))


def test_pieces_that_open_files_themselves(tmp_path: Path, monkeypatch) -> None:
    """Catches a model whose own loader reads safetensors directly and trips over a head that was
    left out for everybody else.
    """
    from safetensors.torch import load_file

    kind = next(kind for kind in KINDS if kind.name == "wrapped-module")
    opened = open_model(kind.make().write(tmp_path / "m"))
    wanted = ours(opened)
    reference = GPT2Model.from_pretrained.__func__
    seen = []

    def by_hand(cls, name):
        keys = load_file(Path(name) / "model.safetensors").keys()
        if not all(key.startswith("transformer.") for key in keys):
            raise ValueError("unexpected")
        seen.append(name)
        return reference(cls, name)

    monkeypatch.setattr(GPT2Model, "from_pretrained", classmethod(by_hand))
    assert ours(opened) == wanted
    assert len(seen) == 1
    assert not Path(seen[0]).exists()


@pytest.mark.parametrize("decoder", [False, True])
@pytest.mark.parametrize("form", ["json", "two files"])
def test_two_files_that_name_different_ends(tmp_path: Path, decoder: bool, form: str) -> None:
    """Catches the wrong one of two files believed."""
    from transformers import AutoTokenizer

    parts = plain()
    if form == "two files":
        parts.tokenizer, parts.two_files = None, words()[0]
        parts.added_tokens = {token: end() + i for i, token in enumerate(EXTRA)}
    parts.tokenizer_config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<s>"}
    parts.special_tokens_map = {"eos_token": "</s>"}
    if decoder:
        parts.tokenizer_config["added_tokens_decoder"] = {
            str(end() + i): {"content": token, "special": True} for i, token in enumerate(EXTRA)
        }
    folder = parts.write(tmp_path / "m")
    assert open_model(folder).roles.end == AutoTokenizer.from_pretrained(folder).eos_token_id


@pytest.mark.parametrize("form", ["json", "two files", "template"])
@pytest.mark.parametrize("kind", ["GPT2Tokenizer", "PreTrainedTokenizerFast", None])
@pytest.mark.parametrize("said", [{"add_prefix_space": True}, {"add_bos_token": True}, {}])
def test_what_stands_before_a_prompt(
    tmp_path: Path, form: str, kind: str | None, said: dict[str, bool]
) -> None:
    """Catches a blank or a token before the prompt that the model was trained to see, left out or
    put in; `transformers` on the same files says which.
    """
    from tokenizers import processors
    from transformers import AutoTokenizer

    from gpt2.commands.generate import start_ids

    parts = plain()
    if form == "two files":
        if kind == "PreTrainedTokenizerFast":
            pytest.skip("that class reads no such files")
        parts.tokenizer, parts.two_files = None, words()[0]
        parts.added_tokens = {token: end() + i for i, token in enumerate(EXTRA)}
    elif form == "template":
        parts.tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", end() + 1)]
        )
    parts.tokenizer_config = {"bos_token": "<s>", "eos_token": "</s>"} | said
    if kind is not None:
        parts.tokenizer_config["tokenizer_class"] = kind
    folder = parts.write(tmp_path / "m")
    opened = open_model(folder)
    them = AutoTokenizer.from_pretrained(folder)
    assert start_ids(opened, PROMPT) == them.encode(PROMPT)
    again = save_pretrained(
        load_model(opened), tmp_path / "again", opened.tokenizer, roles=opened.roles
    )
    assert start_ids(open_model(again), PROMPT) == them.encode(PROMPT)
    assert AutoTokenizer.from_pretrained(again).encode(PROMPT) == them.encode(PROMPT)


def test_no_warning_for_a_plain_folder(tmp_path: Path) -> None:
    """Catches noise."""
    folder = KINDS[0].make().write(tmp_path / "m")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GPT2Model.from_pretrained(folder)


def test_tokenizer_files_alone(tmp_path: Path) -> None:
    """Catches a tokenizer's folder without a model whose end token is not found."""
    backend(["</s>"]).save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_tokenizer(tmp_path).eos_token_id == end()
