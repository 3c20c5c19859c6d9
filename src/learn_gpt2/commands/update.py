"""`learn update`: pull a newer version of the course; your work stays."""

from __future__ import annotations

import click

from learn_gpt2.cli import Course


@click.command("update", short_help="Pull a newer version of the course; your work stays.")
@click.pass_obj
def command(course: Course) -> None:
    """Pull the newest version with git. Your problem.py files come through unchanged, and your
    pieces run in the new model.
    """
    from learn_gpt2.update import update

    done = update(course.root)
    if done.before == done.after:
        click.echo(f"Nothing new: you have the newest version ({done.after}).")
    else:
        click.echo(f"Updated from {done.before} to {done.after}.")
    if done.kept:
        click.echo("Kept as they were: problems " + ", ".join(f"{n:02d}" for n in done.kept))
    if done.swapped:
        click.echo("In the model again: " + ", ".join(f"{n:02d}" for n in done.swapped))
    if done.note:
        click.echo(click.style(done.note, fg="yellow"))
    click.echo("Next: make setup, if the packages changed; then learn check all")
