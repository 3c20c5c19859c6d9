"""`learn doctor`: is everything there that the course needs?"""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import doctor

MARKS = {doctor.GOOD: "✓", doctor.NOTE: "·", doctor.BAD: "✗"}
COLORS = {doctor.GOOD: "green", doctor.NOTE: "yellow", doctor.BAD: "red"}


@click.command("doctor", short_help="Check that everything the course needs is installed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, as_json: bool) -> None:
    """Check Python, torch, packages, files, disk and terminal. For each problem, a line says what
    to do. The exit code is 1 if something is wrong.
    """
    found = doctor.examine(course.root)
    if as_json:
        click.echo(json.dumps([asdict(f) for f in found], ensure_ascii=False))
    else:
        for f in found:
            text = f"{MARKS[f.state]} {f.found}" + (f"\n    {f.to_do}" if f.to_do else "")
            say(text, fg=COLORS[f.state])
    if any(f.state == doctor.BAD for f in found):
        click.get_current_context().exit(1)
