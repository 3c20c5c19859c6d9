"""One way from a name to a model: where it is, which kind it is, its settings, tensors, tokenizer
and the roles of its tokens. Every command uses this, so that all accept the same names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import HUB_NAMES, download_file, in_a_run, read_json, write_json
from gpt2.text.roles import MODEL_FILES, FoundRoles, Roles, read_roles
from gpt2.text.tokenizers import BPE_FILES, TOKENIZER, GPT2Tokenizer
from gpt2.text.tokenizers import FILES as TOKENIZER_FILES
from gpt2.text.tokenizers import read_tokenizer as read_folder

if TYPE_CHECKING:
    from torch import Tensor

    from gpt2.text.tokenizers import Tokenizer


class Opened:
    """A model that was found and inspected; its weights are read on access.

    name: as it was given. place: the folder or GGUF file on this machine. kind: "folder", "run",
    "hub", "bundled" or "GGUF file". settings: GPT2Config's arguments. tensors: the language
    model's, by Hugging Face's names.
    """

    def __init__(
        self,
        name: str,
        place: Path,
        kind: str,
        settings: dict[str, Any],
        tensors: Mapping[str, Tensor],
        left_out: tuple[str, ...] = (),
    ):
        self.name, self.place, self.kind = name, place, kind
        self.settings, self.tensors, self._left_out = settings, tensors, left_out

    @property
    def rows(self) -> int:
        """Rows of the table: ids that the model can read and emit."""
        return self.settings["vocab_size"]

    @cached_property
    def _tokenizer(self) -> Tokenizer | ValueError:
        try:
            if self.place.is_file():
                from gpt2.formats.gguf import read_tokenizer

                return read_tokenizer(self.place)
            return _folder_tokenizer(self.place, _repository(self.name, self.kind), self.rows)
        except ValueError as error:
            return error

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's. ValueError that says what is missing or wrong."""
        if isinstance(self._tokenizer, ValueError):
            raise self._tokenizer
        return self._tokenizer

    @property
    def has_tokenizer(self) -> bool:
        return not isinstance(self._tokenizer, ValueError)

    @cached_property
    def _roles(self) -> FoundRoles:
        if self.place.is_file():
            from gpt2.formats.gguf import read_roles as read_gguf_roles

            return read_gguf_roles(self.place)
        id_of = self.tokenizer.id_of if self.has_tokenizer else None
        return read_roles(self.place, id_of, self.rows)

    @property
    def roles(self) -> Roles:
        """Which tokens end, begin and fill a text of this model."""
        return self._roles.model

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out or passed over, a line each."""
        return (*self._left_out, *self._roles.notes, *self._sizes_that_differ())

    def _sizes_that_differ(self) -> Iterator[str]:
        if not self.has_tokenizer:
            return
        tokens, unspoken = self.tokenizer.vocab_size, len(self.unspoken())
        if unspoken:
            yield (
                f"{self.name}: {unspoken} of the table's {self.rows} rows stand for no token: they "
                "are never emitted"
            )
        if tokens > self.rows:
            yield (
                f"{self.name}: the tokenizer's ids end at {tokens - 1}, the model's table at "
                f"{self.rows - 1}: a text that needs a token beyond is refused"
            )

    @property
    def plain(self) -> bool:
        """Whether it is a folder that any reader of Hugging Face's layout can read as it is."""
        from gpt2.formats.checkpoints import SIZE_FIELDS
        from gpt2.formats.layout import Renamed

        if self.place.is_file() or isinstance(self.tensors, Renamed):
            return False
        return read_json(self.place / "config.json").keys() >= SIZE_FIELDS.keys()

    def unspoken(self) -> list[int]:
        """Ids below `rows` that have no token and end no text, so they must never be generated. A
        padded embedding has such rows.
        """
        if not self.has_tokenizer:
            return []
        has, ends = self.tokenizer.has, self.roles.eos
        return [i for i in range(self.rows) if not has(i) and i not in ends]

    def encode(self, text: str, allowed_special: tuple[str, ...] = ()) -> list[int]:
        """Text → ids. ValueError for a text that needs a token which the model has no row for."""
        ids = self.tokenizer.encode(text, allowed_special)
        if wrong := next((i for i in ids if i >= self.rows), None):
            raise ValueError(
                f"the text needs token {wrong} ({self.tokenizer.decode([wrong])!r}), and "
                f"{self.name} has rows for {self.rows} tokens"
            )
        return ids

    def write_plain(self, folder: Path) -> None:
        """Write config.json and model.safetensors of the language model alone into a folder."""
        from gpt2.formats.checkpoints import BUFFERS, WEIGHTS, config_of, save_tensors

        tensors = {
            f"transformer.{key.removeprefix('transformer.')}": self.tensors[key].contiguous()
            for key in self.tensors
            if key != "lm_head.weight" and not key.endswith(BUFFERS)
        }
        write_json(folder / "config.json", config_of(self.settings))
        save_tensors(tensors, folder / WEIGHTS, {"format": "pt"})


def open_model(name: str | os.PathLike[str] | None = None, **options: Any) -> Opened:
    """A name → the model that it stands for.

    name: a folder in Hugging Face's layout, a name on the hub (`gpt2`, `owner/name`), a training
    run's folder or one of its checkpoints, a GGUF file, `bundled`; None is `bundled` too. options
    (revision, cache_dir, token) are for the hub. ValueError that names the file, the field and the
    value, for anything that is not a whole GPT-2.
    """
    from gpt2.formats.checkpoints import BUNDLED, find_checkpoint, find_local, open_place

    name = BUNDLED if name is None else os.fspath(name)
    local = find_local(name)
    place = find_checkpoint(name, **options)
    if local is None:
        kind = "hub"
        _fetch_words(name, place, **options)
    elif place.is_file():
        kind = "GGUF file"
    else:
        kind = BUNDLED if name == BUNDLED else "folder" if place == local else "run"
    settings, tensors, left_out = open_place(place)
    return Opened(name, place, kind, settings, tensors, left_out)


def load_tokenizer(name: str | os.PathLike[str], **options: Any) -> Tokenizer:
    """A model's name, as `open_model` takes it, or a folder with a tokenizer alone → the tokenizer.

    Its `roles` are its own: what `tokenizer_config.json` and `special_tokens_map.json` say, else
    the model's files. Nothing of the weights is read or downloaded.
    """
    from gpt2.formats.checkpoints import find_local

    local = find_local(name)
    if local is None:
        repository = _repository(os.fspath(name), "hub")
        if repository in HUB_NAMES.values():
            return GPT2Tokenizer.load()  # all five have the one vocabulary
        return _folder_tokenizer(_fetch_words(name, None, **options), repository, None)
    if local.is_file():
        from gpt2.formats.gguf import read_tokenizer

        return read_tokenizer(local)
    # of what else a run's folder holds, a tokenizer of its own comes first
    folder = local if (local / TOKENIZER).is_file() else in_a_run(local)
    return _folder_tokenizer(folder, None, None)


def _folder_tokenizer(folder: Path, repository: str | None, rows: int | None) -> Tokenizer:
    """A folder's tokenizer; for the five that share GPT-2's, that one, which tiktoken runs."""
    if repository in HUB_NAMES.values():
        return GPT2Tokenizer.load()
    if rows is None and (folder / "config.json").is_file():
        said = read_json(folder / "config.json").get("vocab_size")
        rows = said if isinstance(said, int) and said > 0 else None
    return read_folder(folder, rows)


def _repository(name: str, kind: str) -> str | None:
    """The hub's repository that a name stands for; None for a name of another kind."""
    return HUB_NAMES.get(name, name) if kind == "hub" else None


def _fetch_words(name: str | os.PathLike[str], place: Path | None, **options: Any) -> Path:
    """Bring a repository's tokenizer and generation settings into the hub's cache → the folder.

    place: the folder of its weights, if they are there. ValueError when there is neither.
    """
    repository = HUB_NAMES.get(os.fspath(name), os.fspath(name))
    wanted = (*MODEL_FILES, TOKENIZER, *TOKENIZER_FILES)
    if repository in HUB_NAMES.values():
        wanted = MODEL_FILES[:1]  # its tokenizer is known
    found: dict[str, Path] = {}
    for filename in dict.fromkeys(wanted):
        # the same vocabulary twice is not worth its download
        if filename in (n for pair in BPE_FILES for n in pair) and TOKENIZER in found:
            continue
        try:
            path = download_file(repository, filename, **options)
        except ValueError:
            if place is None and not found:
                raise
            break  # without a network, what is here already is what there is
        if path is not None:
            found[filename] = path
    folder = next((path.parent for path in found.values()), place)
    if folder is None:
        raise ValueError(f"{name} on the hub has no tokenizer: looked for {', '.join(wanted)}")
    return folder
