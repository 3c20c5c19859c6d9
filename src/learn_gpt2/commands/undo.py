"""`learn undo`: the last overwritten file comes back."""

from __future__ import annotations

import click

from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import backups


@click.command("undo", short_help="Bring back your last file that was overwritten.")
@click.pass_obj
def command(course: Course) -> None:
    """Bring back the last problem.py that `learn reset` or another command overwrote. Run it again
    for the one before. `learn swap --undo` does the same for src/gpt2/.
    """
    backup = backups.undo(course.root)
    left = len(backups.backups(course.root))
    say(
        f"problems/{backup.problem.folder}/problem.py is as it was before {backup.why}; "
        f"{left} more to undo."
    )
