"""`learn solution`: the reference beside the learner's file."""

from __future__ import annotations

import difflib

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import ask, say
from learn_gpt2.course import progress


@click.command("solution", short_help="Show the reference, once yours has passed.")
@click.argument("problem")
@click.option("--diff", is_flag=True, help="Show a diff from your file to the reference.")
@click.option(
    "--peek", is_flag=True, help="Show it before yours has passed; the board records that."
)
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def command(course: Course, problem: str, diff: bool, peek: bool, yes: bool) -> None:
    """Show the reference for PROBLEM once yours has passed its checks. With --peek you can see it
    earlier, after a confirmation; the board then records that.
    """
    try:
        chosen = manifest.get(problem)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    row = progress.standings(course.root)[chosen.number - 1]
    if row.state != progress.PASSED:
        if not peek:
            raise ValueError(
                f"problem {chosen.number:02d} has not passed yet ({row.words}). Try "
                f"`learn hint {chosen.number:02d}`; --peek shows the solution anyway."
            )
        instead = "`learn solution --peek --yes` shows it without asking."
        if not yes and not ask("Look at the solution before yours passes?", instead=instead):
            say(f"The solution was not shown. `learn hint {chosen.number:02d}` gives away less.")
            return
        progress.update(course.root, chosen, peeked=True)
    reference = chosen.solution_path(course.root).read_text(encoding="utf-8")
    mine = chosen.problem_path(course.root).read_text(encoding="utf-8", errors="replace")
    if not diff:
        click.echo(reference, nl=False)
        return
    for line in difflib.unified_diff(
        mine.splitlines(), reference.splitlines(), "yours", "the reference", lineterm=""
    ):
        color = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1])
        click.echo(click.style(line, fg=color))
