"""`learn init`: a fresh course to work in."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("init", short_help="Make a new copy of the course to work in.")
@click.argument("folder", default="learn-gpt2", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Make a copy of the course in FOLDER (default: learn-gpt2), with the eighteen problems as
    skeletons and a GPT-2 that your pieces go into. FOLDER must be new or empty.
    """
    from learn_gpt2.course import layout

    made = layout.make(folder)
    click.echo(f"Made {made}, with the eighteen problems and a GPT-2 to put your pieces into.")
    if made != Path.cwd():
        shown = os.path.relpath(made) if made.is_relative_to(Path.cwd()) else str(made)
        click.echo(f'Next: cd "{shown}"' if " " in shown else f"Next: cd {shown}")
    click.echo("Then: read problems/README.md; `learn` shows where you are")
