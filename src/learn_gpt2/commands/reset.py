"""`learn reset`: back to the untouched skeleton, with a backup."""

from __future__ import annotations

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import ask, say
from learn_gpt2.course import backups


@click.command("reset", short_help="Start a problem again from its skeleton.")
@click.argument("problems", nargs=-1, required=True)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def command(course: Course, problems: tuple[str, ...], yes: bool) -> None:
    """Put the original skeleton back into problem.py of PROBLEMS (`05`, `1-7`, `all`). Your file is
    kept; `learn undo` brings it back.
    """
    try:
        chosen = manifest.select(problems)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    touched = [p for p in chosen if not backups.untouched(course.root, p)]
    if not touched:
        say("Nothing to reset: " + _names(chosen) + " untouched already.")
        return
    if not yes:
        question = f"Put the skeleton back into {_names(touched)}?"
        if not ask(question, instead="`learn reset --yes` does it without asking."):
            say("Nothing was reset: your files are as they were.")
            return
    for problem in touched:
        skeleton = problem.skeleton_path(course.root).read_bytes()
        kept = backups.overwrite(course.root, problem, skeleton, "reset")
        where = f"; what was there: {kept.relative_to(course.root)}" if kept else ""
        say(f"{problem.number:02d} is the skeleton again{where}")
    say("`learn undo` brings the last one back.")


def _names(problems) -> str:
    return ", ".join(f"{p.number:02d}" for p in problems)
