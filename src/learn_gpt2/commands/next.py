"""`learn next`: the file to work on."""

from __future__ import annotations

import json

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import progress


@click.command("next", short_help="Name the file to work on, or open it.")
@click.option("--open", "open_it", is_flag=True, help="Open the file in an editor.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, open_it: bool, as_json: bool) -> None:
    """Name the problem to work on now, with its README and its file. --open opens the file in
    $VISUAL, $EDITOR, or the system's default editor.
    """
    row = progress.current(progress.standings(course.root))
    if row is None:
        click.echo(
            "null" if as_json else "All eighteen have passed. `gpt2 generate` runs your GPT-2."
        )
        return
    problem = manifest.get(row.number)
    readme, path = problem.readme_path(course.root), problem.problem_path(course.root)
    if as_json:
        data = {"problem": row.number, "readme": str(readme), "file": str(path)}
        click.echo(json.dumps(data, ensure_ascii=False))
    else:
        say(f"{row.number:02d} {row.title} ({problem.difficulty}, {problem.minutes} min)")
        say(f"read  problems/{row.folder}/README.md")
        say(f"edit  problems/{row.folder}/problem.py")
        say(f"then  learn check {row.number:02d}")
        if row.state == progress.FORCED:
            say("Your piece fails its checks; it runs in the model because of --force.")
    if open_it:
        click.edit(filename=str(path))
