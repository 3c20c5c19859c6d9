"""`learn validate`: the assembled model beside an oracle, and which problem to look at."""

from __future__ import annotations

import json

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import progress


@click.command("validate", short_help="Compare the assembled model with an oracle, step by step.")
@click.argument("model", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, model: str | None, as_json: bool) -> None:
    """Load MODEL's weights (a folder or hub name; default: the bundled model) into the
    src/gpt2/model.py that your pieces are swapped into, and compare it with an oracle at twelve
    stages. For a stage that differs, it names the problem to look at, and the exit code is 1.
    """
    from gpt2.commands.validate import describe
    from learn_gpt2.course.validating import problem_of, run

    found = run(course.root, model)
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        fails = {row.number for row in progress.standings(course.root) if row.fails_in_model}
        mine = ", ".join(
            f"{number:02d}" + (" (fails its own checks)" if number in fails else "")
            for number in found.mine
        )
        mine = mine or "none"
        say(f"src/gpt2/, of which yours: {mine}")
        for result in found.results:
            say(describe(result, True))
            if result.state != "failed":
                continue
            problem = problem_of(result)
            if problem is None:
                say(
                    "      This part is given and belongs to no problem: "
                    "see src/gpt2/generation/generating.py"
                )
                continue
            owner = "yours" if problem in found.mine else "the reference's"
            name = f"{problem:02d} {manifest.get(problem).title}"
            say(f"      problem {name} ({owner} in the model)")
        if found.error:
            say(f"The model cannot be validated: {found.error}", fg="red")
    if found.problem is not None:
        if not as_json:
            number = f"{found.problem:02d}"
            say(f"Next: learn check {number}, learn explain {number}")
        click.get_current_context().exit(1)
    if found.error or any(result.state == "failed" for result in found.results):
        click.get_current_context().exit(1)
