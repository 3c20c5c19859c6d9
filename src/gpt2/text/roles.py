"""Which tokens have a role in a text: those that end it, the one that begins it, and the one that
pads a row. Read from the files that name them, in Hugging Face's order.

A model and a tokenizer may name different tokens. A model's text ends where
`generation_config.json` says so, else `config.json`, else the tokenizer. A document ends with the
tokenizer's own token, else with the model's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpt2.common.files import read_json, short

END_OF_TEXT = "<|endoftext|>"
KINDS = ("eos", "bos", "pad")
MODEL_FILES = ("generation_config.json", "config.json")
TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
ROLE_FILES = (*MODEL_FILES, *TOKENIZER_FILES)
MAX_ENDS = 4096  # nobody writes a longer list of end tokens


@dataclass(frozen=True)
class Roles:
    """Ids of the tokens that have a role; each is an id that the model can generate.

    eos: those that end a text, the usual one first; if there are none, no token ends it.
    """

    eos: tuple[int, ...] = ()
    bos: int | None = None
    pad: int | None = None

    @property
    def end(self) -> int | None:
        """The usual end token."""
        return self.eos[0] if self.eos else None

    def only(self, there: Callable[[int], bool]) -> Roles:
        """The same without the ids that are not there."""
        bos, pad = (i if i is not None and there(i) else None for i in (self.bos, self.pad))
        return Roles(tuple(i for i in self.eos if there(i)), bos, pad)

    def within(self, rows: int) -> Roles:
        """The same without ids that a table of so many rows does not have."""
        return self.only(lambda i: i < rows)


@dataclass
class Named:
    """What the files of a folder say about one kind of role, by file.

    ids: {file: ids}, where a file names any that count; () means that there is none, for good.
    """

    ids: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def first(self, files: tuple[str, ...]) -> tuple[int, ...]:
        return next((self.ids[name] for name in files if name in self.ids), ())


@dataclass(frozen=True)
class FoundRoles:
    """The roles of a folder: the model's, the tokenizer's own, and what was ignored.

    notes: one line for every name or number that cannot be a token here.
    """

    model: Roles
    tokenizer: Roles
    notes: tuple[str, ...] = ()


def read_roles(
    folder: Path, id_of: Callable[[str], int | None] | None = None, rows: int | None = None
) -> FoundRoles:
    """A folder's files → the roles that they name.

    id_of: a token's text → its id; None without a tokenizer. rows: of the model's table; None
    without a model. An id at or beyond it, a negative one and a name that the vocabulary lacks
    cannot be emitted: the next file is asked, and a note says so. ValueError that names the file,
    the field and the value for one that is malformed.
    """
    notes: list[str] = []
    found = {kind: Named() for kind in KINDS}
    for name in MODEL_FILES:
        if not (folder / name).is_file():
            continue
        content = read_json(folder / name)
        for kind in KINDS:
            key = f"{kind}_token_id"
            ids = _ids(folder / name, key, content.get(key))
            kept = tuple(i for i in ids if i >= 0 and (rows is None or i < rows))
            if dropped := [str(i) for i in ids if i not in kept]:
                table = "that a tokenizer has" if rows is None else f"of the model's {rows}"
                notes.append(
                    f"{folder / name}: {key} {', '.join(dropped[:4])} is not a row {table}, "
                    "so it is ignored"
                )
            # `generate` of transformers takes a null here as "nowhere", and asks no other file
            nowhere = kind == "eos" and name == MODEL_FILES[0] and key in content and not ids
            if kept or nowhere:
                found[kind].ids[name] = kept
    words = TOKENIZER_FILES
    if (folder / words[0]).is_file() and "added_tokens_decoder" not in read_json(folder / words[0]):
        words = words[::-1]  # as Hugging Face does with files of before 2023
    for name in TOKENIZER_FILES:
        if id_of is None or not (folder / name).is_file():
            continue
        content = read_json(folder / name)
        for kind in KINDS:
            key = f"{kind}_token"
            token = _token(folder / name, key, content.get(key))
            if token is None:
                continue
            i = id_of(token)
            if i is None or (rows is not None and i >= rows):
                why = (
                    "the vocabulary lacks it" if i is None else f"its id {i} is not a row of {rows}"
                )
                notes.append(f"{folder / name}: {key} is {short(token)!r}, but {why}")
            else:
                found[kind].ids[name] = (i,)
    last = id_of(END_OF_TEXT) if id_of is not None else None
    if last is not None and (rows is None or last < rows):  # GPT-2's own tokenizer names no other
        for kind in ("eos", "bos"):
            found[kind].ids[END_OF_TEXT] = (last,)

    def pick(files: tuple[str, ...]) -> Roles:
        eos, bos, pad = (found[kind].first((*files, END_OF_TEXT)) for kind in KINDS)
        return Roles(eos, bos[0] if bos else None, pad[0] if pad else None)

    return FoundRoles(
        pick((*MODEL_FILES, *words)),
        pick((*words, *MODEL_FILES)),
        tuple(notes),
    )


def _ids(path: Path, key: str, value: Any) -> tuple[int, ...]:
    """null, an id or a list of ids → ids, each once, in the file's order."""
    many = value if isinstance(value, list) else [] if value is None else [value]
    whole = all(isinstance(i, int) and not isinstance(i, bool) and abs(i) < 2**63 for i in many)
    if not whole or len(many) > MAX_ENDS or (isinstance(value, list) and key != "eos_token_id"):
        wanted = "an id, a list of ids or null" if key == "eos_token_id" else "an id or null"
        raise ValueError(f"{path}: {key} must be {wanted}, got {short(value)}")
    return tuple(dict.fromkeys(many))


def _token(path: Path, key: str, value: Any) -> str | None:
    """null, a token's text or an object that holds it as `content` → the text."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is None and not isinstance(value, dict):
        return None
    if not isinstance(text, str) or not text:
        raise ValueError(
            f"{path}: {key} must be a token's text, or an object with its text as content, got "
            f"{short(value)}"
        )
    return text
