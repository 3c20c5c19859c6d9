"""`learn hint`: the next hint for the check that fails now."""

from __future__ import annotations

import json

import click

from learn_gpt2 import manifest
from learn_gpt2.checking.explain import COVERED
from learn_gpt2.checking.hints import read_hints
from learn_gpt2.cli import Course
from learn_gpt2.commands.check import EARLIER
from learn_gpt2.commands.console import say
from learn_gpt2.course import backups, progress


@click.command("hint", short_help="Show a hint for the check that fails; ask again for more.")
@click.argument("problem", required=False)
@click.option(
    "--number", "number", type=int, help="Show the hint with this number, as named in a message."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, problem: str | None, number: int | None, as_json: bool) -> None:
    """Show the hint that belongs to the first failing check of PROBLEM (default: the one you are
    at): first a nudge, the idea if you ask again, and then nearly the code.
    """
    root = course.root
    if problem is None:
        row = progress.current(progress.standings(root))
        if row is None:
            click.echo("All eighteen have passed; no hints are needed.")
            return
        chosen = manifest.get(row.number)
    else:
        try:
            chosen = manifest.get(problem)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    hints = read_hints(root, chosen)
    seen = progress.entry(root, chosen)
    fresh = seen.get("digest") == backups.source_digest(chosen.problem_path(root))
    if number is None and not fresh and not backups.untouched(root, chosen):
        report = progress.check(root, chosen)
        seen = progress.entry(root, chosen)
        if report.passed:
            click.echo(f"Problem {chosen.number:02d} passes all its checks; it needs no hint.")
            return
    if number is None and EARLIER & set(seen.get("mistakes") or ()):
        say(
            f"The failure in problem {chosen.number:02d} comes from an earlier piece in the model: "
            f"learn check {chosen.number:02d} says which."
        )
        return
    number = number or seen.get("hint") or _first_open(root, chosen, hints)
    if number not in hints:
        raise click.UsageError(f"problem {chosen.number:02d} has hints 1 to {max(hints)}")
    hint = hints[number]
    given = dict(seen.get("hints", {}))
    level = min(int(given.get(str(number), 0)), len(hint.levels) - 1)
    name, text = hint.levels[level]
    progress.update(root, chosen, hints=given | {str(number): level + 1})
    if as_json:
        data = {"problem": chosen.number, "hint": number, "level": level + 1, "text": text}
        click.echo(json.dumps(data, ensure_ascii=False))
        return
    say(f"{chosen.number:02d} hint {number}: {hint.title} ({name.lower()})\n\n{text}\n")
    if level + 1 < len(hint.levels):
        say("Ask again for more.")
    elif chosen.number in COVERED:
        say(
            f"That was the last level. `learn explain {chosen.number:02d}` compares your run "
            "with the reference's."
        )
    else:
        say("That was the last level.")


def _first_open(root, problem, hints) -> int:
    """The hint for a file in which no check has named one: that of its first open TODO."""
    import ast

    from learn_gpt2.checking import loading

    try:
        source = loading.read_source(problem.problem_path(root))
        todos = loading.open_todos(ast.parse(source))
    except (loading.PieceError, SyntaxError):
        todos = {}
    return min(max(min(todos, default=1), 1), max(hints))
