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

from gpt2.common.files import END_OF_TEXT_ID, read_json, short, write_json
from gpt2.text.roles import END_OF_TEXT, ROLE_FILES, Roles, read_roles

if TYPE_CHECKING:
    import tiktoken
    import tokenizers

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

    vocab_size: int  # one more than the largest id
    roles: Roles = Roles()  # its own: a document ends with the first of `roles.eos`
    begins: bool = False  # does a prompt begin with `roles.bos`?
    adds_space: bool = False  # is a text that begins without a blank given one?
    special_tokens: dict[str, int]  # tokens that plain text never becomes

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a document, where there is one."""
        return self.roles.end

    @abstractmethod
    def _encode_plain(self, text: str) -> list[int]:
        """Text without special tokens → ids."""

    @abstractmethod
    def token_bytes(self, token_id: int) -> bytes:
        """One token → its bytes, which may be part of a character. ValueError for no such id."""

    def id_of(self, token: str) -> int | None:
        """A token as the files write it → its id; None where there is no such token."""
        return self.special_tokens.get(token)

    def has(self, token_id: int) -> bool:
        """Does the id stand for a token? In a table that was padded, some don't."""
        return 0 <= token_id < self.vocab_size

    @abstractmethod
    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write tokenizer.json and tokenizer_config.json, which `transformers` loads as well."""

    def encode(self, text: str, allowed_special: Iterable[str] = ()) -> list[int]:
        """Text → ids. Special tokens' names in the text are plain text, unless allowed by name.

        ValueError that names it for a character that the vocabulary lacks, and for a name in
        allowed_special that is not a special token.
        """
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"the text is not valid Unicode: lone surrogate {text[error.start]!r} "
                f"at character {error.start}"
            ) from None
        allowed = {allowed_special} if isinstance(allowed_special, str) else set(allowed_special)
        if unknown := sorted(allowed - self.special_tokens.keys()):
            known = ", ".join(self.special_tokens) or "none"
            raise ValueError(f"{unknown[0]!r} is not a special token; there are: {known}")
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
        """Ids → text; bytes that are not a whole character become U+FFFD."""
        return b"".join(self.token_bytes(int(i)) for i in ids).decode("utf-8", errors="replace")


class StreamDecoder:
    """Decodes text token by token: `push` each id and print what it returns, then call `finish`.

    All that was returned, joined, is `decode` of all ids.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """One more token → the characters that are now complete; often one word, sometimes ""."""
        return self._decoder.decode(self._tokenizer.token_bytes(int(token_id)))

    def finish(self) -> str:
        """The end → what was still held back, as U+FFFD; "" if the last character was complete."""
        return self._decoder.decode(b"", final=True)


# ------------------------------------------------------------------------------- GPT-2's own BPE


class GPT2Tokenizer(Tokenizer):
    """GPT-2's byte-level BPE, run by tiktoken: any text ↔ ids below 50,257."""

    def __init__(self, encoding: tiktoken.Encoding):
        self._encoding = encoding
        self.vocab_size = encoding.n_vocab
        self.special_tokens = {name: encoding.encode_single_token(name) for name in (END_OF_TEXT,)}
        end = self.special_tokens[END_OF_TEXT]
        self.roles = Roles((end,), end)

    def _encode_plain(self, text: str) -> list[int]:
        return self._encoding.encode_ordinary(text)

    def token_bytes(self, token_id: int) -> bytes:
        if not 0 <= token_id < self.vocab_size:
            raise ValueError(f"no token {token_id}: the vocabulary has {self.vocab_size}")
        return self._encoding.decode_single_token_bytes(token_id)

    def id_of(self, token: str) -> int | None:
        if token in self.special_tokens:
            return self.special_tokens[token]
        try:
            return self._encoding.encode_single_token(_visible_to_bytes(token))
        except (KeyError, ValueError):  # no such token, or no such spelling
            return None

    def as_json(self) -> JSONTokenizer:
        """The same as a tokenizer.json."""
        same = _byte_level_bpe(self._encoding)
        same.roles, same.begins = self.roles, self.begins
        return same

    def save(self, folder: str | os.PathLike[str]) -> None:
        self.as_json().save(folder)

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
    import tiktoken.registry

    from gpt2.common.network import Unreachable, check_reachable

    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    folder = folder or os.path.join(tempfile.gettempdir(), "data-gym-cache")
    merges, vocabulary = (hashlib.sha1(url.encode()).hexdigest() for url in TIKTOKEN_URLS)
    here = all(os.path.exists(os.path.join(folder, name)) for name in (merges, vocabulary))
    try:
        if not here and "gpt2" not in tiktoken.registry.ENCODINGS:
            check_reachable(TIKTOKEN_URLS[0])  # tiktoken would wait without a limit
        return tiktoken.get_encoding("gpt2")
    except Exception as error:  # whatever the network, the disk or a proxy came up with
        why = str(error) if isinstance(error, Unreachable) else type(error).__name__
        raise ValueError(
            "GPT-2's vocabulary is neither here nor to be had from the network "
            f"({why}). Put vocab.bpe and encoder.json, or merges.txt and "
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
            raise ValueError(f"{' '.join(wrong)!r} is not a pair")
        # single bytes first, in the order of the visible alphabet; then one token per merge
        ranks = {bytes([byte]): rank for rank, byte in enumerate(BYTE_OF.values())}
        for left, right in pairs:
            halves = [_visible_to_bytes(half) for half in (left, right)]
            if not ranks.keys() >= set(halves) or b"".join(halves) in ranks:
                raise ValueError(f"'{left} {right}' does not make a new token of two earlier ones")
            ranks[b"".join(halves)] = len(ranks)
        listed = {_visible_to_bytes(t): i for t, i in ids.items() if t != END_OF_TEXT}
    except ValueError as error:
        raise ValueError(f"{merges} and {vocabulary} are not a GPT-2 vocabulary: {error}") from None
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
    bytes in GPT-2's visible spelling; one that is spelled otherwise is its own text).
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
        pre_tokenizer = backend.pre_tokenizer
        self.adds_space = bool(getattr(pre_tokenizer, "add_prefix_space", False))
        added = backend.get_added_tokens_decoder()
        self.special_tokens = {t.content: i for i, t in added.items() if t.special}
        end = self.special_tokens.get(END_OF_TEXT)
        self.roles = Roles() if end is None else Roles((end,), end)
        self._bytes: dict[int, bytes] = {}
        for token, token_id in backend.get_vocab(with_added_tokens=True).items():
            plain = token_id in added or decoder["type"] == "Fuse"
            if plain or any(char not in BYTE_OF for char in token):
                self._bytes[token_id] = token.encode()
            else:
                self._bytes[token_id] = _visible_to_bytes(token)
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
        meant = {text.encode(), (" " + text).encode()} if self.adds_space else {text.encode()}
        if b"".join(map(self.token_bytes, ids)) not in meant:
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

    def id_of(self, token: str) -> int | None:
        return self._backend.token_to_id(token)

    def has(self, token_id: int) -> bool:
        return token_id in self._bytes

    def surrounds(self, text: str) -> list[int]:
        """A text's ids with what tokenizer.json's post-processor puts around them; [-1] where the
        vocabulary lacks the text.
        """
        try:
            ids = self._backend.encode(text, add_special_tokens=True).ids
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # Exception itself for an unknown token, and Rust's panics
            ids = []
        return ids or [-1]

    def token(self, token_id: int) -> str:
        """One token as the files write it. ValueError for no such id."""
        self.token_bytes(token_id)
        return self._backend.id_to_token(token_id) or ""

    def describe(self) -> dict[str, Any]:
        """tokenizer.json's content."""
        return json.loads(self._backend.to_str())

    def save(self, folder: str | os.PathLike[str]) -> None:
        folder = Path(folder)
        # how this object encodes is not a part of the file: `transformers` decides for itself
        described = self.describe()
        config: dict[str, Any] = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
        }
        for key, i in (
            ("bos_token", self.roles.bos),
            ("eos_token", self.roles.end),
            ("pad_token", self.roles.pad),
        ):
            if i is not None and self.has(i):
                config[key] = self.token(i)
        if self.begins and self.roles.bos is not None and self.has(self.roles.bos):
            described["post_processor"] = _before_a_text(self.token(self.roles.bos), self.roles.bos)
        for name, content in (("tokenizer.json", described), ("tokenizer_config.json", config)):
            write_json(folder / name, content, ascii_only=False)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        added: dict[int, tokenizers.AddedToken] | None = None,
        adds_space: bool | None = None,
        named: Sequence[str] = (),
    ) -> JSONTokenizer:
        """A tokenizer.json → the tokenizer. ValueError that names the file when it is none.

        added, named: tokens to add where the file lacks them. adds_space: what stands for the
        file's add_prefix_space.
        """
        from tokenizers import Tokenizer as Backend

        path = Path(path)
        # its errors are clearer than the library's
        _refuse_what_grows(read_json(path, MAX_TOKENIZER_BYTES), path)
        try:
            backend = Backend.from_file(str(path))
            _add_to(backend, added or {}, list(named))
            if adds_space is not None and hasattr(backend.pre_tokenizer, "add_prefix_space"):
                backend.pre_tokenizer.add_prefix_space = adds_space
            return cls(backend, str(path))
        except (ValueError, MemoryError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises Exception itself, and Rust's panics
            raise ValueError(f"{path} is not a tokenizer: {short(str(error))}") from None


def _before_a_text(token: str, token_id: int) -> dict[str, Any]:
    """tokenizer.json's post-processor that puts a token before a text."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            special,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [token_id], "tokens": [token]}},
    }


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


# ------------------------------------------------------------------------------------- in a folder

TOKENIZER = "tokenizer.json"
ADDED_TOKENS = "added_tokens.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
# all that a folder may hold of a tokenizer
FILES = (TOKENIZER, *BPE_FILES[0], *BPE_FILES[1], ADDED_TOKENS, *ROLE_FILES)
# whose classes build GPT-2's rule for words themselves, with what tokenizer_config.json says
GPT2_CLASSES = (None, "GPT2Tokenizer", "GPT2TokenizerFast")
PADDED_SIZES = (END_OF_TEXT_ID + 1, 50304)  # GPT-2's vocabulary, and its usual padding
MAX_ADDED = 2**16


def read_tokenizer(folder: Path, rows: int | None = None) -> Tokenizer:
    """A folder → its tokenizer, with the roles that the folder's files give its tokens.

    Its files: tokenizer.json, or vocab.bpe and encoder.json, or merges.txt and vocab.json; what
    added_tokens.json and tokenizer_config.json add to them. None of them and a config.json with
    GPT-2's 50,257 tokens, or 50,304: GPT-2's own. rows: of the model's table, where there is one;
    no token beyond it has a role. ValueError that names the file, for anything else.
    """
    config = _optional(folder / TOKENIZER_CONFIG)
    if (folder / TOKENIZER).is_file():
        tokenizer: Tokenizer = JSONTokenizer.load(
            folder / TOKENIZER,
            _added(folder, config),
            _prefix_space(folder, config),
            _named(folder, config),
        )
    else:
        tokenizer = _from_two_files(folder, config)
    tokenizer.roles = read_roles(folder, tokenizer.id_of, rows).tokenizer.only(tokenizer.has)
    # where tokenizer.json says what surrounds a text, Hugging Face asks nothing else
    if isinstance(tokenizer, JSONTokenizer) and (folder / TOKENIZER).is_file():
        tokenizer.begins = tokenizer.surrounds("a")[0] == tokenizer.roles.bos
    else:
        tokenizer.begins = config.get("add_bos_token") is True
    return tokenizer


def _from_two_files(folder: Path, config: dict[str, Any]) -> Tokenizer:
    """Merges and a vocabulary, or nothing where GPT-2's own is meant → the tokenizer."""
    for pair in BPE_FILES:
        merges, vocabulary = folder / pair[0], folder / pair[1]
        if not (merges.is_file() and vocabulary.is_file()):
            continue
        added, named = _added(folder, config), _named(folder, config)
        space = bool(_prefix_space(folder, config))
        try:
            found = GPT2Tokenizer.from_files(merges, vocabulary)
        except ValueError as error:
            # another order of ids than GPT-2's, such as special tokens before the bytes
            return _bpe_from_files(merges, vocabulary, added, named, space, error)
        wanted = [*named, *(token.content for token in added.values())]
        if all(found.id_of(token) is not None for token in wanted) and not space:
            return found
        return _bpe_from_files(merges, vocabulary, added, named, space, None)
    if _vocab_size(folder) in PADDED_SIZES:
        return GPT2Tokenizer.load()
    others = [
        name
        for name in ("vocab.txt", "spiece.model", "sentencepiece.bpe.model")
        if (folder / name).is_file()
    ]
    other = f"; {others[0]} is of a kind of tokenizer that is not read" if others else ""
    looked: Sequence[str] = [TOKENIZER, *(" with ".join(pair) for pair in BPE_FILES)]
    raise ValueError(f"{folder} has no tokenizer: looked for {', '.join(looked)}{other}")


def _optional(path: Path) -> dict[str, Any]:
    """A JSON file's object; {} without that file."""
    return read_json(path) if path.is_file() else {}


def _vocab_size(folder: Path) -> Any:
    """config.json's vocab_size; None without that file."""
    return _optional(folder / "config.json").get("vocab_size")


def _prefix_space(folder: Path, config: dict[str, Any]) -> bool | None:
    """Does a text get a blank before it? None: as tokenizer.json says."""
    said = config.get("add_prefix_space")
    if said is not None and not isinstance(said, bool):
        raise ValueError(
            f"{folder / TOKENIZER_CONFIG}: add_prefix_space must be true or false, got "
            f"{short(said)}"
        )
    kind = config.get("tokenizer_class")
    gpt2 = _optional(folder / "config.json").get("model_type") == "gpt2"
    alone = not (folder / TOKENIZER).is_file()
    if alone or kind in GPT2_CLASSES[1:] or (kind is None and gpt2):
        return bool(said)
    return None


def _added(folder: Path, config: dict[str, Any]) -> dict[int, tokenizers.AddedToken]:
    """Tokens that the folder's files add to the vocabulary, by the ids that they give them."""
    from tokenizers import AddedToken

    found: dict[int, tokenizers.AddedToken] = {}

    def add(path: Path, i: Any, content: Any, options: dict[str, Any]) -> None:
        whole = isinstance(i, int) and not isinstance(i, bool) and 0 <= i < MAX_IDS
        if not whole or not isinstance(content, str) or not content:
            raise ValueError(f"{path} adds {short(content)} as token {short(i)}; neither can be")
        flags = {
            key: options[key]
            for key in ("lstrip", "rstrip", "single_word", "normalized", "special")
            if isinstance(options.get(key), bool)
        }
        found[i] = AddedToken(content, **({"normalized": False} | flags))

    if (folder / ADDED_TOKENS).is_file():
        for content, i in _optional(folder / ADDED_TOKENS).items():
            add(folder / ADDED_TOKENS, i, content, {})
    listed = config.get("added_tokens_decoder")
    if listed is not None:
        path = folder / TOKENIZER_CONFIG
        if not isinstance(listed, dict):
            raise ValueError(f"{path}: added_tokens_decoder is {short(listed)}, not an object")
        for key, entry in listed.items():
            entry = entry if isinstance(entry, dict) else {"content": entry}
            i = int(key) if re.fullmatch(r"\d{1,9}", key) else key
            add(path, i, entry.get("content"), entry)
    if len(found) > MAX_ADDED:
        raise ValueError(f"{folder} adds {len(found)} tokens; at most {MAX_ADDED} are read")
    return dict(sorted(found.items()))


def _named(folder: Path, config: dict[str, Any]) -> list[str]:
    """Special tokens that the folder's files give a role, in the order in which Hugging Face adds
    those that the vocabulary lacks.
    """
    files = [config, _optional(folder / "special_tokens_map.json")]
    if "added_tokens_decoder" not in config:
        files.reverse()
    found = []
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        said = next((file[key] for file in files if file.get(key) is not None), None)
        text = said.get("content") if isinstance(said, dict) else said
        if text is None and key != "pad_token" and config.get("tokenizer_class") in GPT2_CLASSES:
            text = END_OF_TEXT
        if isinstance(text, str) and text and text not in found:
            found.append(text)
    return found


def _add_to(
    backend: tokenizers.Tokenizer, added: dict[int, tokenizers.AddedToken], named: list[str]
) -> None:
    """Add the tokens that are not there: first by their ids, then those that only have a role."""
    from tokenizers import AddedToken

    there = backend.get_added_tokens_decoder()
    for i, token in added.items():
        if i in there and there[i].content == token.content:
            continue
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    missing = [text for text in named if backend.token_to_id(text) is None]
    if missing and missing != [END_OF_TEXT]:  # GPT-2's end alone is nothing that a file asked for
        backend.add_special_tokens(
            [AddedToken(text, special=True, normalized=False) for text in missing]
        )


def _bpe_from_files(
    merges: Path,
    vocabulary: Path,
    added: dict[int, tokenizers.AddedToken],
    named: list[str],
    space: bool,
    error: ValueError | None,
) -> JSONTokenizer:
    """Merges and a vocabulary of any order of ids → a byte-level BPE. error: what to raise if
    these make none.
    """
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    ids = read_json(vocabulary, MAX_TOKENIZER_BYTES)
    numbers = list(ids.values())
    if any(isinstance(i, bool) or not isinstance(i, int) for i in numbers) or not ids:
        raise error or ValueError(f"{vocabulary} is not a vocabulary")
    _refuse_what_grows({"model": {"vocab": ids}}, vocabulary)
    if len(set(numbers)) != len(numbers):
        raise ValueError(f"{vocabulary} gives one id to two tokens")
    try:
        lines = merges.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as failure:
        raise error or ValueError(f"{merges} cannot be read: {failure}") from None
    pairs: list[tuple[str, str]] = []
    for line in map(str.strip, lines):
        if not line or line.startswith("#version"):
            continue
        left, _, right = line.partition(" ")
        if not {left, right, left + right} <= ids.keys():
            raise error or ValueError(f"{merges} and {vocabulary} are not of one model")
        pairs.append((left, right))
    try:
        backend = Backend(models.BPE(vocab=ids, merges=pairs))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=space)
        backend.decoder = decoders.ByteLevel()
        if END_OF_TEXT in ids:
            backend.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
        _add_to(backend, added, named)
        return JSONTokenizer(backend, str(vocabulary))
    except (ValueError, MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as failure:  # the library raises Exception itself, and Rust's panics
        raise ValueError(f"{vocabulary} is not a vocabulary: {short(str(failure))}") from None
