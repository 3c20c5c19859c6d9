"""Text that others wrote, made safe for where it is shown.

Names, messages and ids come from students' folders and files. Each function here makes a text mean
nothing but itself in one place: a terminal, Markdown, HTML, a spreadsheet, XML, JSON.
"""

from __future__ import annotations

import html as standard_html
import json
import math
import re

MOST_NAME_BYTES = 150  # of a file's name without its ending
JOINERS = "\u200c\u200d"  # invisible, and needed to write Persian, Hindi and other languages
_SEPARATORS = ";,|\t"  # where a spreadsheet may begin a new cell, quoted or not
_FORMULA = re.compile(rf"(^|[{_SEPARATORS}])(\s*[\"']?\s*)([=+\-@\uff1d\uff0b\uff0d\uff20])")
# what means something anywhere in Markdown; what would become a link; what begins a list
_MARKDOWN = re.compile(r"(?i)([\\`*_{}\[\]<>#|~$&!@]|:(?=//)|(?<=mailto):|(?<=www)\.)")
_BULLET, _NUMBER = re.compile(r"^(\s*)([-+=])"), re.compile(r"^(\s*\d+)([.)])")


def _shown(character: str) -> bool:
    return character.isprintable() or character in JOINERS


def one_line(text: str) -> str:
    """A text in one line without control characters, turned-around text and lone surrogates."""
    return "".join(c if _shown(c) else "?" for c in text)


def lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(one_line(line) for line in text.splitlines())


def markdown(text: str) -> str:
    """A text that Markdown shows as it is, in one line: no heading, table, link or formula."""
    text = _MARKDOWN.sub(r"\\\1", one_line(text).strip())
    text = _BULLET.sub(r"\1\\\2", text)
    return _NUMBER.sub(r"\1\\\2", text)


def quoted(message: str) -> list[str]:
    """A message as a Markdown block of lines that nothing in it can end."""
    message = lines(message)
    longest = max((len(run) for run in re.findall(r"`+", message)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}text", *message.splitlines(), fence]


def html(text: str) -> str:
    """A text for HTML, between tags and in attributes, with its line breaks."""
    return standard_html.escape(lines(text), quote=True)


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula, whichever separator it splits cells at."""
    return _FORMULA.sub(r"\1'\2\3", one_line(text))


def xml(text: str) -> str:
    """A text without the characters that XML can't hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def json_text(data: object, indent: int | None = None) -> str:
    """Data as JSON that every reader takes: no NaN or infinity, no lone surrogates."""
    return json.dumps(_plain(data), ensure_ascii=False, indent=indent, allow_nan=False)


def _plain(data: object) -> object:
    if isinstance(data, str):
        return data.encode("utf-8", "replace").decode("utf-8")
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {_plain(key) if isinstance(key, str) else key: _plain(v) for key, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(value) for value in data]
    return data


def file_names(students: list[str]) -> dict[str, str]:
    """A file name for each student that every system takes, all different."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for student in students:
        name = re.sub(r"[^\w .()+@,-]", "_", student).strip(" .") or "student"
        while len(name.encode()) > MOST_NAME_BYTES:  # systems take 255, with an ending
            name = name[:-1].rstrip(" .")
        if re.fullmatch(r"(?i)con|prn|aux|nul|com\d|lpt\d", name):
            name += "_"
        number, unique = 1, name
        while unique.lower() in taken:
            number += 1
            unique = f"{name}-{number}"
        taken.add(unique.lower())
        names[student] = unique
    return names
