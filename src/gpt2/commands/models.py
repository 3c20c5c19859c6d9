"""How every command takes a model: by a name, and with a word about what was left out."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gpt2.formats.opening import Opened

NAMES = 'A hub name, folder, training run or GGUF file, or "bundled".'


def open_named(name: str | os.PathLike[str] | None) -> Opened:
    """A command's model, None for the bundled one; what was left out or passed over goes to
    standard error.
    """
    from gpt2.formats.opening import open_model

    found = open_model(name)
    for note in found.notes:
        click.echo(f"note: {note}", err=True)
    return found
