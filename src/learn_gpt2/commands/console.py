"""How commands speak and ask: lines that end between words, and questions with an answer."""

from __future__ import annotations

import sys

import click

from gpt2.common.terminal import fitted


def say(text: str = "", *, err: bool = False, **style: object) -> None:
    """Print a message, on a terminal broken between words; style: as for `click.style`."""
    shown = fitted(text, sys.stderr if err else sys.stdout)
    click.echo(click.style(shown, **style) if style else shown, err=err)


def ask(question: str, *, default: bool | None = None, instead: str = "") -> bool:
    """Ask for y or n. ValueError that says what to do instead when no answer comes."""
    choices = {None: "y/n", True: "Y/n", False: "y/N"}[default]
    while True:
        click.echo(f"{fitted(question)} [{choices}] ", nl=False)
        try:
            answer = input().strip().lower()
        except EOFError:
            click.echo()
            raise ValueError(f"No answer came, so nothing was done. {instead}".rstrip()) from None
        if answer in ("y", "yes"):
            return True
        if answer in ("n", "no"):
            return False
        if not answer and default is not None:
            return default
        click.echo("Please answer y or n.")
