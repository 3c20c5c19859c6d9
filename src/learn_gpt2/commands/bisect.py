"""`learn bisect`: which of your pieces makes the model differ from the reference's."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from learn_gpt2 import manifest
from learn_gpt2.assembly.bisection import bisect
from learn_gpt2.checking.explain import COVERED
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say


@click.command("bisect", short_help="Find which of your pieces makes the model wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, as_json: bool) -> None:
    """Find the smallest set of your pieces in src/gpt2/ that makes the logits, the cache or the
    initial weights differ from the reference's, and for 13 to 18 also what each file computes. The
    exit code is 1 if there is one.
    """
    finding = bisect(course.root)
    if as_json:
        click.echo(json.dumps(asdict(finding)))
    elif finding.culprits:
        names = " and ".join(f"{n:02d} {manifest.get(n).title}" for n in finding.culprits)
        together = " together" if len(finding.culprits) > 1 else ""
        say(f"{names}{together}: with the reference for all others, {finding.difference}.")
        first = f"{finding.culprits[0]:02d}"
        explained = f", learn explain {first}" if finding.culprits[0] in COVERED else ""
        say(f"Next: learn check {first}{explained}")
    else:
        mine = ", ".join(f"{n:02d}" for n in finding.pieces)
        say(f"The model with your {mine} does what the reference's does.")
    if finding.culprits:
        click.get_current_context().exit(1)
