"""Tokenizers: text survives the round trip, special tokens are asked for, files are checked."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from small_gpt2 import byte_tokenizer, char_tokenizer, tiny, use_bpe

from gpt2.formats.checkpoints import save_pretrained
from gpt2.formats.opening import load_tokenizer
from gpt2.text import tokenizers as ours
from gpt2.text.tokenizers import (
    END_OF_TEXT,
    GPT2Tokenizer,
    JSONTokenizer,
    StreamDecoder,
    Tokenizer,
)

TEXTS = [
    "",
    "Hello.",
    "  two  spaces\n\n\ttabs\r\n and a trailing one ",
    "naïve café, Ærøskøbing, Zażółć gęślą jaźń",
    "日本語のテキスト、한국어, العربية, हिन्दी",
    "🤖👩‍👩‍👧‍👦 e\u0301 \u200d \x00\x07\x1b[31m \ufffd \U0010ffff",
    "it's we'll I'd 3.14159 x=y+1;",
    f"before {END_OF_TEXT} after",
]


@pytest.fixture
def bpe(monkeypatch: pytest.MonkeyPatch) -> GPT2Tokenizer:
    """GPT-2's own."""
    use_bpe(monkeypatch)
    return GPT2Tokenizer.load()


@pytest.fixture(params=["bpe", "bytes"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    """Each tokenizer that takes any text."""
    return byte_tokenizer() if request.param == "bytes" else request.getfixturevalue("bpe")


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    """Catches a tokenizer that loses, normalizes or strips anything."""
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


@pytest.mark.parametrize("text", TEXTS)
def test_streaming_says_the_same(tokenizer: Tokenizer, text: str) -> None:
    """Catches half a character printed, and text held back for good."""
    stream = StreamDecoder(tokenizer)
    pieces = [stream.push(i) for i in tokenizer.encode(text)]
    assert "".join(pieces) + stream.finish() == text
    if "\ufffd" not in text:
        assert "\ufffd" not in "".join(pieces)


def test_a_character_is_held_back_until_whole() -> None:
    """Catches U+FFFD for the first byte of a character of four; a stub stands for the tokens."""

    class Bytes(Tokenizer):
        vocab_size, eos_token_id, special_tokens = 256, None, {}
        _encode_plain = save = None

        def token_bytes(self, token_id: int) -> bytes:
            return bytes([token_id])

    stream = StreamDecoder(Bytes())
    assert [stream.push(b) for b in "a🤖".encode()] == ["a", "", "", "", "🤖"]
    assert stream.finish() == ""
    assert [stream.push(b) for b in "🤖".encode()[:3] + b"b"] == ["", "", "", "\ufffdb"]
    assert [stream.push(b) for b in "é".encode()[:1]] + [stream.finish()] == ["", "\ufffd"]


def test_known_ids(bpe: GPT2Tokenizer) -> None:
    """Catches another vocabulary under GPT-2's name: ids that are published."""
    assert bpe.encode("Hello.") == [15496, 13]
    assert bpe.decode([464, 3290]) == "The dog"
    assert (bpe.vocab_size, bpe.eos_token_id) == (50257, 50256)


def test_special_tokens_must_be_allowed(tokenizer: Tokenizer) -> None:
    """Catches a prompt whose text ends the text."""
    text = f"a{END_OF_TEXT}b"
    end = tokenizer.eos_token_id
    assert end not in tokenizer.encode(text)
    (a,), (b,) = tokenizer.encode("a"), tokenizer.encode("b")
    assert tokenizer.encode(text, allowed_special=[END_OF_TEXT]) == [a, end, b]
    assert tokenizer.encode(END_OF_TEXT * 2, END_OF_TEXT) == [end, end]
    with pytest.raises(ValueError, match="'<pad>' is not a special token"):
        tokenizer.encode(text, ["<pad>"])


def test_the_longest_special_token_wins() -> None:
    """Catches a special token cut in two by another that it begins with."""
    tokenizer = byte_tokenizer()
    longer = END_OF_TEXT + "!"
    tokenizer.special_tokens[longer] = 7
    for allowed in ([END_OF_TEXT, longer], [longer, END_OF_TEXT]):
        assert tokenizer.encode(longer, allowed) == [7]


@pytest.mark.parametrize("token_id", [-1, 10**6])
def test_an_id_outside_the_vocabulary(tokenizer: Tokenizer, token_id: int) -> None:
    """Catches an id that becomes some other token's text, or tiktoken's panic."""
    with pytest.raises(ValueError, match=f"no token {token_id}"):
        tokenizer.decode([token_id])


def test_lone_surrogates(tokenizer: Tokenizer) -> None:
    """Catches bytes of a command line that are not UTF-8 and turn into other text in silence."""
    with pytest.raises(ValueError, match=r"surrogate.*character 1"):
        tokenizer.encode("a\udcff")


def test_characters() -> None:
    """Catches a vocabulary of characters that splits, joins, drops or adds any."""
    tokenizer = char_tokenizer("\n abc日é")
    assert tokenizer.encode("a b\nc日é") == [2, 1, 3, 0, 4, 5, 6]
    assert tokenizer.decode([2, 1, 1, 0]) == "a  \n"
    assert (tokenizer.vocab_size, tokenizer.eos_token_id) == (7, None)


def test_an_unknown_character_is_named() -> None:
    """Catches a prompt that loses what the vocabulary lacks."""
    with pytest.raises(ValueError, match=r"'ß' \(U\+00DF\) at character 2"):
        char_tokenizer("abc").encode("abßc")


@pytest.mark.parametrize("kind", ["char", "bytes", "bpe"])
def test_what_is_saved_is_what_transformers_loads(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Catches a folder that only we can read, or that means other ids to Hugging Face."""
    from transformers import AutoTokenizer

    made = {
        "char": lambda: char_tokenizer("\n Helo.wrd,!'", end_of_text=True),
        "bytes": byte_tokenizer,
        "bpe": lambda: request.getfixturevalue("bpe"),
    }[kind]()
    model = tiny(vocab_size=made.vocab_size)
    folder = save_pretrained(model, tmp_path / "m", made)
    again, theirs = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    for text in [" Hello, world!\n", *(TEXTS if kind != "char" else ())]:
        ids = made.encode(text)
        assert again.encode(text) == ids
        if END_OF_TEXT not in text:  # they take its name in a text for the token itself
            assert theirs.encode(text) == ids
            assert theirs.decode(ids) == text
    assert again.vocab_size == made.vocab_size == len(theirs)
    assert again.eos_token_id == made.eos_token_id == theirs.eos_token_id


def test_our_decoding_is_the_librarys() -> None:
    """Catches our own reading of a tokenizer.json where it differs from the library's."""
    tokenizer = byte_tokenizer()
    ids = [i for i in range(tokenizer.vocab_size) if i != tokenizer.eos_token_id]
    assert tokenizer.decode(ids) == tokenizer._backend.decode(ids)


# ------------------------------------------------------------------------------------- from files


@pytest.mark.parametrize("names", [("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")])
def test_gpt2s_own_files_in_the_folder(
    bpe: GPT2Tokenizer, tmp_path: Path, names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches files laid down as the error says that then aren't used, or give other ids."""
    import os

    cache = Path(os.environ["TIKTOKEN_CACHE_DIR"])
    for name, key in zip(names, ("6d1cbeee0f20", "6c7ea1a7e38e"), strict=True):
        (tmp_path / name).write_bytes(next(cache.glob(f"{key}*")).read_bytes())
    monkeypatch.setattr(GPT2Tokenizer, "load", None)
    found = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert found.encode(text) == bpe.encode(text)
    assert found.eos_token_id == 50256


def test_files_that_do_not_belong_together(bpe: GPT2Tokenizer, tmp_path: Path) -> None:
    """Catches ids silently taken from one file and merges from another."""
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\nab c\n", encoding="utf-8")
    (tmp_path / "vocab.json").write_text('{"a": 0, "b": 1}')
    with pytest.raises(ValueError, match="of one model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("merges", ["a b c\n", "日 b\n", "a\n", b"\xff\xff"])
def test_merges_that_are_none(tmp_path: Path, merges: str | bytes) -> None:
    """Catches a traceback from a damaged file."""
    (tmp_path / "merges.txt").write_bytes(merges if isinstance(merges, bytes) else merges.encode())
    (tmp_path / "vocab.json").write_text("{}")
    with pytest.raises(ValueError, match="not a GPT-2 vocabulary"):
        load_tokenizer(tmp_path)


def test_no_network_and_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a bare network error where the files to fetch, and where to put them, should
    stand.
    """

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("no network in this test")

    import tiktoken.registry

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "gpt2", None)
    monkeypatch.delitem(tiktoken.registry.ENCODINGS, "gpt2")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    ours._cached_encoding.cache_clear()
    try:
        with pytest.raises(ValueError, match="vocabulary") as caught:
            load_tokenizer("gpt2")
    finally:
        ours._cached_encoding.cache_clear()
    for said in (
        "merges.txt",
        "vocab.bpe",
        "tokenizer.json",
        "6d1cbeee0f20b3d9449abfede4726ed8212e3aee",
        "6c7ea1a7e38e3a7f062df639a5b80947f075ffe6",
        str(tmp_path / "cache"),
        "TIKTOKEN_CACHE_DIR",
    ):
        assert said in str(caught.value)


def test_the_names_in_that_error_are_tiktokens() -> None:
    """Catches a cache whose file names tiktoken has changed; the addresses are in its source."""
    import inspect

    import tiktoken_ext.openai_public

    source = inspect.getsource(tiktoken_ext.openai_public.gpt2)
    assert all(url in source for url in ours.TIKTOKEN_URLS)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    """Catches GPT-2's vocabulary put under a model that never saw it."""
    folder = save_pretrained(tiny(), tmp_path / "m")
    with pytest.raises(ValueError, match=r"no tokenizer: looked for tokenizer\.json"):
        load_tokenizer(folder)


def test_a_folder_of_gpt2s_size_without_a_tokenizer(bpe: GPT2Tokenizer, tmp_path: Path) -> None:
    """Catches a refusal where only one vocabulary can be meant."""
    (tmp_path / "config.json").write_text('{"vocab_size": 50257}')
    assert load_tokenizer(tmp_path).encode("Hello.") == [15496, 13]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["x y"]}}',
        b'{"version": "1.0", "model": {"type": "None"}}',
    ],
)
def test_a_tokenizer_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    """Catches the library's bare Exception on its way to the user."""
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_joins_otherwise(tmp_path: Path) -> None:
    """Catches a decoder that we would imitate wrongly: refused by name."""
    from tokenizers import decoders

    tokenizer = char_tokenizer("abc")
    tokenizer._backend.decoder = decoders.Metaspace()
    tokenizer.save(tmp_path)
    with pytest.raises(ValueError, match="decoder Metaspace"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_changes_text(tmp_path: Path) -> None:
    """Catches a normalizer that puts other words in the user's mouth."""
    from tokenizers import normalizers

    tokenizer = char_tokenizer("abc")
    tokenizer._backend.normalizer = normalizers.Lowercase()
    tokenizer.save(tmp_path)
    with pytest.raises(ValueError, match="no token for 'B'"):
        tokenizer.encode("aBc")
    with pytest.raises(ValueError, match="has a normalizer, which changes the text"):
        load_tokenizer(tmp_path)


def test_saved_files_hold_no_settings_of_ours(tmp_path: Path) -> None:
    """Catches truncation, padding or our handling of special tokens written into the file."""
    byte_tokenizer().save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert content["truncation"] is None
    assert content["padding"] is None
    assert isinstance(JSONTokenizer.load(tmp_path / "tokenizer.json"), JSONTokenizer)
