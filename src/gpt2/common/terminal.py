"""Text for a terminal: broken between words, at its edge."""

from __future__ import annotations

import shutil
import sys
import textwrap
from typing import TextIO


def wrap(line: str, width: int) -> list[str]:
    """One line → lines of at most `width` columns, broken between words; what follows is indented
    as the line is. A word that is longer than a line (a path, say) stays whole.
    """
    if len(line) <= width or width < 20:
        return [line]
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.wrap(
        line.strip(),
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def fitted(text: str, stream: TextIO | None = None) -> str:
    """A message, its lines broken where the terminal that shows it ends. Unchanged for a file or
    a pipe, where a program reads it.
    """
    stream = stream or sys.stdout
    try:
        shown = stream.isatty()
    except (AttributeError, ValueError):  # a closed or unusual stream
        shown = False
    if not shown:
        return text.replace("\xa0", " ")
    width = shutil.get_terminal_size().columns
    lines = (part for line in text.split("\n") for part in wrap(line, width))
    return "\n".join(lines).replace("\xa0", " ")  # which has kept words together
