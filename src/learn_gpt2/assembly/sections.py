"""The form of `src/gpt2/model.py`: sources, section headers, and a written file read back.

Each section's header says whose piece it is and from which file and line, so that model.py itself
tells what it is made of.
"""

from __future__ import annotations

import codecs
import io
import re
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from learn_gpt2.checking.headers import HEADER
from learn_gpt2.checking.loading import digest
from learn_gpt2.manifest import MODEL_PROBLEMS, PROBLEMS, Problem

WIDTH = 100
MODEL = "GPT2Model"

DOCSTRING = '''"""GPT-2, bottom-up: from token ids to the logits of the next token.

Axes, in every shape comment: B batch, T new tokens in this call, S keys attended to (the T new ones
and those in the cache), C n_embd, H n_head, D head_dim = C // H, V vocab_size, P n_positions.

Assembled by `learn swap` from twelve files; each section's header names its own. Edit those, in
solutions/ or problems/, not this file: the next swap writes it again. "Step 3" in a
section is the answer to "TODO 3" in its problem.
"""
'''
HELPERS = "helpers"  # title of a section with what problems 11 and 12 need outside the class


@dataclass(frozen=True)
class Source:
    """The text of one piece and where it comes from.

    owner: "reference", "yours" or "file" (any other file). path: as messages and headers show it.
    digest: first digits of the file's SHA-256. lines: where its sections ("above", "main", "below")
    start in its file, for a source that was read back out of model.py. forced: it went into the
    model although its checks did not pass.
    """

    number: int
    owner: str
    path: str
    text: str
    digest: str = ""
    lines: Mapping[str, int] = field(default_factory=dict)
    forced: bool = False

    @property
    def line(self) -> int:
        """Where the piece starts in its file; 0 when model.py was not asked."""
        return self.lines.get("main", 0)

    @property
    def problem(self) -> Problem:
        """Whose piece it is."""
        return PROBLEMS[self.number - 1]


def read_source(number: int, owner: str, path: Path, shown: str) -> Source:
    """A file → Source, with "\\n" line ends and no byte-order mark.

    ValueError that names the file, and the line where there is one, when it is not Python text.
    """
    data = path.read_bytes()
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError(f"{shown}:1: the file is UTF-16; save it as UTF-8")
    if len(data) > 1_000_000:
        raise ValueError(f"{shown} has {len(data):,} bytes; a piece has a few thousand")
    encoding = "utf-8"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise _not_utf8(shown, data, error) from None
    except (SyntaxError, LookupError) as error:
        try:
            data.decode("utf-8")
        except UnicodeDecodeError as not_utf8:
            raise _not_utf8(shown, data, not_utf8) from None
        raise ValueError(f"{shown}:1: {error}; save it as UTF-8") from None
    fingerprint = digest(text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return Source(number, owner, shown, text.removeprefix("\ufeff"), fingerprint)


def _not_utf8(shown: str, data: bytes, error: UnicodeDecodeError) -> ValueError:
    line = data.count(b"\n", 0, error.start) + 1
    return ValueError(
        f"{shown}:{line}: byte 0x{data[error.start]:02x} is not {error.encoding}; "
        "save the file as UTF-8"
    )


def section_header(source: Source, line: int, indent: str = "", place: str = "main") -> str:
    """`# ── 05 Causal masking ── reference: solutions/05-causal-masking.py:12 ─────`, at most 100
    columns.
    """
    title = source.problem.title if place == "main" else HELPERS
    left = f"{indent}# ── {source.number:02d} {title} ── {source.owner}"
    if source.owner != "reference":
        left += f" {source.digest}" + (", forced" if source.forced else "")
    line = source.lines.get(place, line)
    path = "".join(c if c.isprintable() else "?" for c in source.path)
    room = WIDTH - len(left) - len(f": :{line}")
    if len(path) > room:
        path = "…" + path[len(path) - room + 1 :]
    left += f": {path}:{line} "
    return (left + "─" * (WIDTH - len(left))).rstrip()


@dataclass(frozen=True)
class Section:
    """A header found in a model.py, and the text below it."""

    number: int
    title: str
    owner: str
    path: str
    line: int
    digest: str
    forced: bool
    indented: bool
    text: str


def sections_of(text: str) -> list[Section]:
    """The sections of a model.py, in the order in which they stand; [] when it has none."""
    found: list[Section] = []
    lines = text.replace("\r\n", "\n").split("\n")
    marks = [(i, match) for i, line in enumerate(lines) if (match := HEADER.fullmatch(line))]
    ends = [i for i, _ in marks[1:]] + [len(lines)]
    for (i, match), end in zip(marks, ends, strict=False):
        if 1 <= int(match["number"]) <= len(MODEL_PROBLEMS):
            found.append(
                Section(
                    number=int(match["number"]),
                    title=match["title"],
                    owner=match["owner"],
                    path=match["path"],
                    line=int(match["line"]),
                    digest=match["digest"] or "",
                    forced=bool(match["forced"]),
                    indented=match[0].startswith(" "),
                    text="\n".join(lines[i + 1 : end]).strip("\n"),
                )
            )
    return found


def split(text: str) -> dict[int, Source]:
    """The sources that an assembled model.py holds: `assemble(split(text)) == text`.

    With this a learner's piece stays in the model when its file has changed or gone.
    ValueError that names the problems whose sections are missing.
    """
    text = text.replace("\r\n", "\n")
    found = sections_of(text)
    missing = [
        f"{p.number:02d}" for p in MODEL_PROBLEMS if all(s.number != p.number for s in found)
    ]
    if missing:
        raise ValueError(
            f"model.py has no section for problem {', '.join(missing)}: `learn swap` did not write "
            "it like this. `learn swap --reference all` writes it again and keeps a backup"
        )
    head = text[: re.search(HEADER.pattern, text).start()]
    imports = re.sub(r'\A""".*?"""', "", head, flags=re.S).strip("\n")
    sources: dict[int, Source] = {}
    for problem in MODEL_PROBLEMS:
        own = [s for s in found if s.number == problem.number]
        main = next((s for s in own if s.title == problem.title), own[0])
        at = own.index(main)
        places = ["above"] * at + ["main"] + ["below"] * (len(own) - at - 1)
        parts: list[str] = [imports]
        if any(s.indented for s in own):
            parts.insert(0, "import gpt2.model")
            if imports.startswith("from __future__"):
                parts.reverse()
        for s in own:
            if s.indented:
                parts.append(f"class {MODEL}(gpt2.model.{MODEL}):\n\n{s.text}")
            else:
                parts.append(s.text)
        sources[problem.number] = Source(
            number=problem.number,
            owner=main.owner,
            path=main.path,
            text="\n\n\n".join(parts) + "\n",
            digest=main.digest,
            forced=main.forced,
            lines={place: s.line for s, place in zip(own, places, strict=True)},
        )
    return sources
