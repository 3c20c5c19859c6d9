"""`learn explain`: the first step at which your forward pass differs."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict

import click

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.cli import Course
from learn_gpt2.course import progress


@click.command("explain", short_help="Show the first step at which your forward pass differs.")
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
    if found.printed.strip():
        click.echo("Your code prints:")
        click.echo(textwrap.indent(found.printed.rstrip(), "  │ ", lambda line: True))
    for line in folded(found.agree, found.differs):
        click.echo(click.style(f"  ✓ {line}", fg="green"))
    if found.error:
        click.echo(click.style(f"  ✗ your run stops: {found.error}", fg="red"))
    if not found.differs:
        click.echo("Your result agrees with the textbook's.")
        row = next(r for r in progress.standings(course.root) if r.number == chosen.number)
        if row.state != progress.PASSED:
            click.echo(
                f"If a check fails, it concerns another case: learn check {chosen.number:02d}"
            )
        return
    click.echo(click.style(f"  ✗ {found.differs}: {found.clue}", fg="red"))
    if found.line:
        path = loading.shown(chosen.problem_path(course.root))
        click.echo(f"    (look at {path}:{found.line}: {found.code})")


def folded(steps: list[str], differs: str) -> list[str]:
    """The steps a line each; those of a stage that is over become one line: "block 0: 22 steps"."""
    at = differs.split(": ")[:-1]
    lines: list[list] = []  # [text, how many steps]
    for step in steps:
        *stage, _ = step.split(": ")
        depth = 0
        while depth < min(len(stage), len(at)) and stage[depth] == at[depth]:
            depth += 1
        over = depth < len(stage)
        text = ": ".join(stage[: depth + 1]) if over else step
        if over and lines and lines[-1][0] == text:
            lines[-1][1] += 1
        else:
            lines.append([text, 1])
    return [text if count == 1 else f"{text}: {count} steps" for text, count in lines]
