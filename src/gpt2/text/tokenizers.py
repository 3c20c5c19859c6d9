"""Text ↔ token ids: GPT-2's byte-pair encoding, and whatever a `tokenizer.json` describes.

Every tokenizer here knows the bytes of each of its tokens, and decoding is joining them. So a
token may end in the middle of a character, and `StreamDecoder` holds it back until it is whole.
"""

from __future__ import annotations

import codecs
import hashlib
import itertools
import json
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import END_OF_TEXT_ID, HUB_NAMES, download_file, in_a_run, read_json, short

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

END_OF_TEXT = "<|endoftext|>"
MAX_IDS = 2**22  # 16 times the largest vocabularies
MAX_TOKENIZER_BYTES = 64 * 2**20  # GPT-2's tokenizer.json takes 3.5 MB

# (merges, vocabulary) under OpenAI's names and under Hugging Face's
BPE_FILES = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))
# Where tiktoken 0.7 to 0.14 fetches them; the SHA-1 of the address is the file's name in its cache
TIKTOKEN_URLS = tuple(
    f"https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/{name}"
    for name in BPE_FILES[0]
)
# GPT-2's rule for cutting text into words, in tiktoken's possessive spelling
GPT2_PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"


class Tokenizer(ABC):
    """What generation, training and the commands need of a tokenizer."""

    vocab_size: int
    eos_token_id: int | None  # the end-of-text token, where there is one
    special_tokens: dict[str, int]  # tokens that plain text never becomes

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]:
        """Text without special tokens → ids."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """One token → its bytes, which may be part of a character. ValueError for no such id."""

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers` loads as well."""

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Text → ids. Special tokens' names in the text are plain text, unless allowed by name.

        ValueError that names it for a character that the vocabulary lacks, and for a name in
        allowed_special that is no special token.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text is no valid Unicode: lone surrogate {text[error.start]!r} "
                f"at character {error.start}"
            ) from None
        allowed = {allowed_special} if isinstance(allowed_special, str) else set(allowed_special)
        if unknown := sorted(allowed - self.special_tokens.keys()):
            known = ", ".join(self.special_tokens) or "none"
            raise ValueError(f"{unknown[0]!r} is no special token; there are: {known}")
        if not allowed:
            return self._encode_plain(text) if text else []
        longest_first = sorted(allowed, key=len, reverse=True)
        pieces = re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
        ids: list[int] = []
        for i, piece in enumerate(pieces):  # every other piece is a special token
            if i % 2:
                ids.append(self.special_tokens[piece])
            elif piece:
                ids += self._encode_plain(piece)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids → text; bytes that are no whole character become U+FFFD."""
        return b"".join(self.token_bytes(int(i)) for i in ids).decode("utf-8", errors="replace")


class StreamDecoder:
    """Text as its tokens come: `push` each id and print what it returns, then `finish`.

    All that was returned, joined, is `decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """One more token → the characters that are now whole; often one word, sometimes ""."""
        return self._decoder.decode(self._tokenizer.token_bytes(int(token_id)))

    def finish(self) -> str:
        """The end → what was still held back, as U+FFFD: "" when the last character was whole."""
        return self._decoder.decode(b"", final=True)


# ------------------------------------------------------------------------------- GPT-2's own BPE


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte-level BPE, run by tiktoken: any text ↔ ids below 50,257."""

    def __init__(self, encoding: tiktoken.Encoding):
        self._encoding = encoding
        self.vocab_size = encoding.n_vocab
        self.special_tokens = {name: encoding.encode_single_token(name) for name in (END_OF_TEXT,)}
        self.eos_token_id = self.special_tokens[END_OF_TEXT]

    def _encode_plain(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"no token {token_id}: the vocabulary has {self.vocab_size}")
        return self._encoding.decode_single_token_bytes(token_id)

    def save(self, folder: str | os.PathLike[str]) -> None:
        _byte_level_bpe(self._encoding).save(folder)

    @classmethod
    def load(cls) -> GPT2Tokenizer:
        """From tiktoken's cache, or by download. ValueError that says which file to put where."""
        return cls(_cached_encoding())

    @classmethod
    def from_files(cls, merges: Path, vocabulary: Path) -> GPT2Tokenizer:
        """From vocab.bpe and encoder.json, which Hugging Face calls merges.txt and vocab.json."""
        return cls(_encoding_from_files(merges, vocabulary))


@lru_cache(maxsize=1)
def _cached_encoding() -> tiktoken.Encoding:
    """tiktoken's "gpt2", read once per process."""
    import tiktoken

    try:
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # whatever the network, the disk or a proxy came up with
        folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
        folder = folder or os.path.join(tempfile.gettempdir(), "data-gym-cache")
        merges, vocabulary = (hashlib.sha1(url.encode()).hexdigest() for url in TIKTOKEN_URLS)
        raise ValueError(
            "GPT-2's vocabulary is neither here nor to be had from the network "
            f"({type(error).__name__}). Put vocab.bpe and encoder.json, or merges.txt and "
            "vocab.json, or tokenizer.json into the model's folder; or put "
            f"{TIKTOKEN_URLS[0]} as {merges} and {TIKTOKEN_URLS[1]} as {vocabulary} into {folder} "
            "(TIKTOKEN_CACHE_DIR names another folder)"
        ) from None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's way to write bytes as visible characters: {character: byte}, all 256.

    Printable Latin-1 stands for itself; the other bytes take the characters from U+0100 on.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(b): b for b in visible} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTE_OF = _byte_alphabet()


def _visible_to_bytes(token: str) -> bytes:
    """A token in GPT-2's visible spelling → its bytes. ValueError for a character outside it."""
    try:
        return bytes(BYTE_OF[char] for char in token)
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} in token {token!r} stands for no byte") from None


def _encoding_from_files(merges: Path, vocabulary: Path) -> tiktoken.Encoding:
    """Both files → tiktoken's encoding; tiktoken wants ids in the order of the merges, as GPT-2's
    are.
    """
    import tiktoken

    ids = read_json(vocabulary, MAX_TOKENIZER_BYTES)
    if merges.stat().st_size > MAX_TOKENIZER_BYTES:
        raise ValueError(f"{merges} is larger than any vocabulary: {merges.stat().st_size} bytes")
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        if wrong := next((pair for pair in pairs if len(pair) != 2), None):
            raise ValueError(f"{' '.join(wrong)!r} is no pair")
        # single bytes first, in the order of the visible alphabet; then one token per merge
        ranks = {bytes([byte]): rank for rank, byte in enumerate(BYTE_OF.values())}
        for left, right in pairs:
            halves = [_visible_to_bytes(half) for half in (left, right)]
            if not ranks.keys() >= set(halves) or b"".join(halves) in ranks:
                raise ValueError(f"'{left} {right}' does not make a new token of two earlier ones")
            ranks[b"".join(halves)] = len(ranks)
        listed = {_visible_to_bytes(t): i for t, i in ids.items() if t != END_OF_TEXT}
    except ValueError as error:
        raise ValueError(f"{merges} and {vocabulary} are no GPT-2 vocabulary: {error}") from None
    if listed != ranks or ids.get(END_OF_TEXT, len(ranks)) != len(ranks):
        raise ValueError(
            f"{merges} has {len(ranks)} tokens (256 bytes and its merges), "
            f"and {vocabulary} numbers {len(ids)} otherwise; are they of one model?"
        )
    return tiktoken.Encoding(
        "gpt2",
        pat_str=GPT2_PATTERN,
        mergeable_ranks=ranks,
        special_tokens={END_OF_TEXT: len(ranks)},
    )


def _byte_level_bpe(encoding: tiktoken.Encoding) -> JSONTokenizer:
    """tiktoken's encoding → the same as a tokenizer.json: its merges follow from its ranks."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    char_of = {byte: char for char, byte in BYTE_OF.items()}
    ranks: dict[bytes, int] = encoding._mergeable_ranks

    def visible(token: bytes) -> str:
        return "".join(char_of[byte] for byte in token)

    vocabulary = {visible(token): rank for token, rank in ranks.items()}
    merges = [
        tuple(map(visible, _halves(token, rank, ranks)))
        for token, rank in sorted(ranks.items(), key=lambda item: item[1])
        if len(token) > 1
    ]
    backend = Backend(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    return JSONTokenizer(backend)


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that were merged into this one: what BPE makes of it with earlier merges."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, rank) for a, b in itertools.pairwise(parts)]
        i = min(range(len(joined)), key=joined.__getitem__)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


# ---------------------------------------------------------------------------------- tokenizer.json


class JSONTokenizer(Tokenizer):
    """A tokenizer.json of the `tokenizers` library: characters, or byte-level BPE.

    Its decoder must be Fuse (tokens are text and are joined as they are) or ByteLevel (tokens are
    bytes in GPT-2's visible spelling).
    """

    def __init__(self, backend: tokenizers.Tokenizer, source: str = "the tokenizer"):
        """source: what errors call it. ValueError for a tokenizer that does not fit the above."""
        self._source = source
        self._backend = backend
        backend.encode_special_tokens = True  # names of special tokens in the text are text
        if getattr(backend.model, "dropout", None):
            backend.model.dropout = None  # it is for training: encoding would be random
        backend.no_truncation()
        backend.no_padding()
        decoder = json.loads(backend.to_str()).get("decoder") or {}
        if decoder.get("type") not in ("Fuse", "ByteLevel"):
            raise ValueError(
                f"{source} has decoder {decoder.get('type')}; Fuse (tokens are plain text) "
                "and ByteLevel (byte-level BPE) are supported"
            )
        added = backend.get_added_tokens_decoder()
        self.special_tokens = {t.content: i for i, t in added.items() if t.special}
        self.eos_token_id = self.special_tokens.get(END_OF_TEXT)
        self._bytes: dict[int, bytes] = {}
        for token, token_id in backend.get_vocab(with_added_tokens=True).items():
            plain = token_id in added or decoder["type"] == "Fuse"
            try:
                self._bytes[token_id] = token.encode() if plain else _visible_to_bytes(token)
            except ValueError as error:
                raise ValueError(f"{source}: {error}") from None
        if not self._bytes:
            raise ValueError(f"{source} has no tokens")
        self.vocab_size = max(self._bytes) + 1

    def _encode_plain(self, text: str) -> list[int]:
        try:
            ids = self._backend.encode(text, add_special_tokens=False).ids
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # Exception itself for an unknown token, and Rust's panics
            raise ValueError(self._why_not(text) or f"{self._source}: {error}") from None
        # some models drop what they don't know, others put a token for "unknown": neither is text
        if b"".join(map(self.token_bytes, ids)) != text.encode():
            raise ValueError(
                self._why_not(text) or f"{self._source} changes the text {text[:40]!r}"
            )
        return ids

    def _why_not(self, text: str) -> str | None:
        """The first character that the vocabulary lacks, as a message; None when it has all."""
        for position, char in enumerate(text):
            try:
                ids = self._backend.encode(char, add_special_tokens=False).ids
                known = b"".join(map(self.token_bytes, ids)) == char.encode()
            except (MemoryError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:
                known = False
            if not known:
                name = f"{char!r} (U+{ord(char):04X})"
                return f"{self._source} has no token for {name} at character {position} of the text"
        return None

    def token_bytes(self, token_id: int) -> bytes:
        try:
            return self._bytes[token_id]
        except KeyError:
            message = f"no token {token_id}: the vocabulary has {self.vocab_size}"
            raise ValueError(message) from None

    def describe(self) -> dict[str, Any]:
        """tokenizer.json's content."""
        return json.loads(self._backend.to_str())

    def save(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        # how this object encodes is no part of the file: `transformers` decides for itself
        described = self.describe()
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        if self.eos_token_id is not None:
            config |= {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
        for name, content in (("tokenizer.json", described), ("tokenizer_config.json", config)):
            aside = folder / f".{name}.{os.getpid()}"
            text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
            aside.write_text(text, encoding="utf-8", newline="\n")
            os.replace(aside, folder / name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> JSONTokenizer:
        """A tokenizer.json → the tokenizer. ValueError that names the file when it is none."""
        from tokenizers import Tokenizer as Backend

        path = Path(path)
        # its errors are clearer than the library's
        _refuse_what_grows(read_json(path, MAX_TOKENIZER_BYTES), path)
        try:
            backend = Backend.from_file(str(path))
            return cls(backend, str(path))
        except (ValueError, MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises Exception itself, and Rust's panics
            raise ValueError(f"{path} is no tokenizer: {short(str(error))}") from None


def _refuse_what_grows(described: dict[str, Any], path: Path) -> None:
    """ValueError for a tokenizer.json that rewrites text before it encodes it, or that numbers
    tokens far beyond their count.

    A text has to come back as it was; forty rules that double it would fill any memory, and so
    does the library's table of all ids up to the largest.
    """
    model, added = described.get("model"), described.get("added_tokens")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    ids = list(vocab.values()) if isinstance(vocab, dict) else []
    ids += [
        token.get("id")
        for token in (added if isinstance(added, list) else ())
        if isinstance(token, dict)
    ]
    if wrong := [i for i in ids if isinstance(i, (int, float)) and not 0 <= i < MAX_IDS]:
        raise ValueError(f"{path} has a token {short(wrong[0])}; ids are 0 … {MAX_IDS - 1}")
    if described.get("normalizer") is not None:
        raise ValueError(f"{path} has a normalizer, which changes the text; none is supported")
    waiting, steps = [described.get("pre_tokenizer")], []
    while waiting:
        step = waiting.pop()
        if isinstance(step, dict):
            inner = step.get("pretokenizers")
            waiting += inner if isinstance(inner, list) else []
            steps.append(step.get("type"))
    if len(steps) > 8 or sum(kind in ("ByteLevel", "Metaspace") for kind in steps) > 1:
        raise ValueError(
            f"{path} has a pre_tokenizer of {len(steps)} steps, {steps.count('ByteLevel')} of them "
            "ByteLevel; at most 8 are supported, one of them ByteLevel or Metaspace"
        )


# ------------------------------------------------------------------------------------- which one


def load_tokenizer(name: str | os.PathLike[str], **options: Any) -> Tokenizer:
    """A model's folder or hub name → its tokenizer.

    In a folder: tokenizer.json, or vocab.bpe and encoder.json, or merges.txt and vocab.json; none
    of them and a config.json with GPT-2's 50,257 tokens: GPT-2's own. In a training run: the
    checkpoint's. A GGUF file: its own. options (revision, cache_dir, token) are for the hub.
    """
    folder = Path(os.path.expanduser(name))
    if folder.is_file():
        from gpt2.formats.gguf import read_tokenizer

        return read_tokenizer(folder)
    if folder.is_dir():
        # of what else a run's folder holds, a tokenizer of its own comes first
        folder = folder if (folder / "tokenizer.json").is_file() else in_a_run(folder)
    else:
        if str(name) in HUB_NAMES or str(name) in HUB_NAMES.values():
            return GPT2Tokenizer.load()  # all five have the one vocabulary
        path = download_file(os.fspath(name), "tokenizer.json", **options)
        if path is None:
            raise ValueError(f"{name} on the hub has no tokenizer.json")
        return JSONTokenizer.load(path)
    if (folder / "tokenizer.json").is_file():
        return JSONTokenizer.load(folder / "tokenizer.json")
    for pair in BPE_FILES:
        if all((folder / file).is_file() for file in pair):
            return GPT2Tokenizer.from_files(folder / pair[0], folder / pair[1])
    if _vocab_size(folder) == END_OF_TEXT_ID + 1:
        return GPT2Tokenizer.load()
    wanted: Sequence[str] = ["tokenizer.json", *(" with ".join(pair) for pair in BPE_FILES)]
    raise ValueError(f"{folder} has no tokenizer: looked for {', '.join(wanted)}")


def _vocab_size(folder: Path) -> Any:
    """config.json's vocab_size; None without that file."""
    path = folder / "config.json"
    return read_json(path).get("vocab_size") if path.is_file() else None
