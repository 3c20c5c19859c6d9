"""`learn explain`: the first step at which your forward pass differs."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.cli import Course
from learn_gpt2.course import progress


@click.command("explain", short_help="The first step at which your forward pass differs.")
@click.argument("problem", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, problem: str | None, as_json: bool) -> None:
    """Run your forward pass of PROBLEM (default: the one you are at) beside the textbook's, on the
    same weights and input, and say up to which step they agree.
    """
    from learn_gpt2.checking.explain import explain

    if problem is None:
        row = progress.current(progress.standings(course.root))
        problem = str(row.number) if row else "10"
    try:
        chosen = manifest.get(problem)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found = explain(course.root, chosen)
    if as_json:
        click.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    for step in found.agree:
        click.echo(click.style(f"  ✓ {step}", fg="green"))
    if found.error:
        click.echo(click.style(f"  ✗ your run stops: {found.error}", fg="red"))
    if not found.differs:
        click.echo("Your result agrees with the textbook's.")
        click.echo(f"What is left are other cases: learn check {chosen.number:02d}")
        return
    click.echo(click.style(f"  ✗ {found.differs}: {found.clue}", fg="red"))
    if found.line:
        path = loading.shown(chosen.problem_path(course.root))
        click.echo(f"    ({path}:{found.line}: {found.code})")
