"""Which of a file's tensors are the GPT-2 in it, whatever prefixes or other tensors there are.

Files that other tools wrote hold a GPT-2 among other things: a classifier's head, a value head, the
prefix of a wrapper that trained it, the tied head in place of the table. What the language model
needs is passed on under Hugging Face's names; what is left out is reported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gpt2.common.files import short

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "transformer."
HEAD = "lm_head.weight"
TABLE = "wte.weight"
# The tensors outside a GPT-2's blocks, and the mask buffers that many files hold
CORE = re.compile(r"(?:wte|wpe|ln_f)\.(?:weight|bias)|h\.\d{1,9}\..+")
MAX_SHOWN = 4


class Renamed(Mapping[str, "Tensor"]):
    """Tensors under other names, each read when asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], names: dict[str, str]):
        """names: {name here: name there}."""
        self.tensors, self.names = tensors, names

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[self.names[key]]

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def language_model(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], C: int, place: Path
) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """All tensors of a checkpoint → those of the GPT-2 in it, and what was done, a line each.

    shapes: of the same names. C: n_embd. A checkpoint that holds nothing else comes back as it is.
    Names that are neither the model's nor a head's stay, so that the loader rejects them.
    ValueError that names the tensors if two models could be meant, or if the head is not tied to
    the embeddings.
    """
    notes: list[str] = []
    outer = _wrapper(shapes, place)
    names = {key.removeprefix(outer): key for key in shapes}
    if len(names) != len(shapes):
        twice = next(key for key in shapes if outer and f"{outer}{key}" in shapes)
        raise ValueError(f"{place}: {short(twice)} and {short(outer + twice)} are both there")
    if outer:
        notes.append(f"{place}: names begin with {short(outer)}, which was removed")
    for name in [name for name in names if f"{PREFIX}{name}" in names]:
        raise ValueError(f"{place}: {short(name)} and {PREFIX}{short(name)} are both there")
    heads = _heads(names, shapes, C)
    if heads:
        shown = ", ".join(short(key) for key in heads[:MAX_SHOWN])
        more = f" and {len(heads) - MAX_SHOWN} more" if len(heads) > MAX_SHOWN else ""
        notes.append(f"{place}: the language model is loaded, another head left out: {shown}{more}")
        names = {name: key for name, key in names.items() if name not in heads}
    table = next((name for name in (TABLE, PREFIX + TABLE) if name in names), None)
    if table is None and HEAD in names:
        # safetensors' own `save_model` keeps one of two names that share a tensor
        prefix = PREFIX if any(name.startswith(PREFIX) for name in names) else ""
        names = {(prefix + TABLE if name == HEAD else name): key for name, key in names.items()}
    elif table is not None and HEAD in names:
        _refuse_another_table(tensors, shapes, names[table], names[HEAD], place)
    if not notes and names.keys() == shapes.keys():
        return tensors, ()
    return Renamed(tensors, names), tuple(notes)


def _wrapper(shapes: Mapping[str, tuple[int, ...]], place: Path) -> str:
    """What a wrapper (DDP, `torch.compile`, a trainer's module) put before the model's names, such
    as `module.` or `_orig_mod.`; "" for none.
    """
    found = {key[: -len("wpe.weight")] for key in shapes if re.search(r"(^|\.)wpe\.weight$", key)}
    if len(found) > 1:
        raise ValueError(
            f"{place} holds more than one GPT-2: "
            f"{', '.join(short(prefix) + 'wpe.weight' for prefix in sorted(found))}"
        )
    outer = next(iter(found), "").removesuffix(PREFIX)
    return outer if outer and all(part for part in outer[:-1].split(".")) else ""


def _heads(names: Mapping[str, str], shapes: Mapping[str, tuple[int, ...]], C: int) -> list[str]:
    """Names of further heads: modules beside the model that read its C numbers per position."""
    groups: dict[str, list[str]] = {}
    for name in names:
        top = name.split(".")[0]
        if top not in ("transformer", "lm_head") and "." in name and not CORE.fullmatch(name):
            groups.setdefault(top, []).append(name)
    return [
        name
        for group in groups.values()
        if any(len(shapes[names[n]]) == 2 and C in shapes[names[n]] for n in group)
        for name in group
    ]


def _refuse_another_table(
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    table: str,
    head: str,
    place: Path,
) -> None:
    """ValueError for a head that is not the embeddings' table."""
    if shapes[table] != shapes[head]:
        what = f"of shapes {shapes[head]} and {shapes[table]}"
    else:
        ours, theirs = tensors[table], tensors[head]
        wide = torch.promote_types(ours.dtype, theirs.dtype)
        narrow = ours.dtype if ours.dtype.itemsize < theirs.dtype.itemsize else theirs.dtype
        if torch.equal(ours.to(wide), theirs.to(wide)) or torch.equal(
            ours.to(narrow), theirs.to(narrow)
        ):
            return
        what = f"by up to {float((ours.float() - theirs.float()).abs().max()):.3g}"
    raise ValueError(
        f"{place}: {head} differs from {table} ({what}); this GPT-2's head is tied to its "
        "embeddings, so a model with a head of its own (tie_word_embeddings: false) is not loaded"
    )
