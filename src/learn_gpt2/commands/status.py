"""`learn status`: the eighteen problems as a board."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import progress
from learn_gpt2.manifest import MODULE_PROBLEMS

MARKS = {
    progress.PASSED: "✓",
    progress.IN_PROGRESS: "◐",
    progress.UNTOUCHED: "·",
    progress.FORCED: "✗",
}
PART_TWO = "  Part two: the engine around it"
COLORS = {progress.PASSED: "green", progress.IN_PROGRESS: "yellow", progress.FORCED: "red"}


@click.command("status", short_help="Show the eighteen problems, and what to do next.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, as_json: bool) -> None:
    """Show a board of the problems: your progress in each, whose piece runs in the model, and what
    to do next.
    """
    rows = progress.standings(course.root)
    if as_json:
        own, whole = progress.share(course.root)
        data = {
            "problems": [asdict(r) for r in rows],
            "next": progress.next_step(rows),
            "lines": {"yours": own, "all": whole},
        }
        click.echo(json.dumps(data, ensure_ascii=False))
        return
    for row in rows:
        if row.number == MODULE_PROBLEMS[0].number:
            say(PART_TWO)
        say(line(row), fg=COLORS.get(row.state))
    done = sum(row.state == progress.PASSED for row in rows)
    mine = sum(row.swapped == "yours" for row in rows)
    wrong = [f"{row.number:02d}" for row in rows if row.fails_in_model]
    fails = f" ({', '.join(wrong)} fail{'s' if len(wrong) == 1 else ''})" if wrong else ""
    say(f"{done} of {len(rows)} passed, {mine} of yours run in src/gpt2/{fails}.")
    if all(progress.mine(row) for row in rows):
        own, whole = progress.share(course.root)
        say(
            f"You have finished the course: {own:,} of the {whole:,} lines in the seven files of "
            f"src/gpt2/ ({100 * own / whole:.0f} %) are your code. problems/README.md ends with "
            "commands to run it from end to end, and with where to go from here."
        )
    say(f"Next: {progress.next_step(rows)}")


def line(row: progress.Standing) -> str:
    """One problem's line of the board."""
    text = f"{MARKS[row.state]} {row.number:02d} {row.title:<24} {row.words:<42}"
    text += f" in the model: {row.in_model}"
    return text + (" · solution seen" if row.peeked else "")
