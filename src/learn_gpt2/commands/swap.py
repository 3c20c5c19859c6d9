"""`learn swap`: whose pieces run in the model."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from learn_gpt2 import manifest
from learn_gpt2.assembly import swap
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say
from learn_gpt2.course import progress

MARKS = {"swapped": "✓", "unchanged": "=", "refused": "✗", "not tried": "·"}
COLORS = {"swapped": "green", "refused": "red"}


@click.command("swap", short_help="Put your pieces into the GPT-2, or the reference's back.")
@click.argument("problems", nargs=-1)
@click.option("--reference", is_flag=True, help="Put the reference's pieces in.")
@click.option("--force", is_flag=True, help="Put your piece in even if its checks don't pass.")
@click.option("--undo", is_flag=True, help="Bring back the files from before the last swap.")
@click.option(
    "--check", is_flag=True, help="Check that the files are exactly what solutions/ give."
)
@click.option("--diff", is_flag=True, help="With --check: show the lines that differ.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    course: Course,
    problems: tuple[str, ...],
    reference: bool,
    force: bool,
    undo: bool,
    check: bool,
    diff: bool,
    as_json: bool,
) -> None:
    """Put pieces into src/gpt2/: `learn swap 05`, `learn swap 1-7`, `learn swap all`, `learn swap
    --reference 8-12`. Without PROBLEMS, it shows whose piece is where. 1 to 12 make up model.py;
    each of 13 to 18 is a file of its own.

    Your piece is put in only if its checks pass and the model then imports and runs. The previous
    files are kept; each --undo goes back one swap.
    """
    if undo + check > 1 or ((undo or check) and (problems or reference or force)):
        raise click.UsageError("--undo and --check stand alone")
    if diff and not check:
        raise click.UsageError("--diff goes with --check; for a problem: `learn solution --diff`")
    if (reference or force) and not problems:
        raise click.UsageError("which problems? For example 05, 1-7 or all")
    if reference and force:
        raise click.UsageError("--force is for your pieces, not for the reference's")
    try:
        chosen = manifest.select(problems)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if problems and not chosen:
        raise click.UsageError("which problems? For example 05, 1-7 or all")
    if check:
        _check(course, as_json, diff)
    elif undo:
        _undo(course, as_json)
    elif chosen:
        put_in(course, chosen, reference, force, as_json)
    else:
        _board(course, as_json)


def _check(course: Course, as_json: bool, show_diff: bool) -> None:
    diff = swap.check(course.root)
    mine, edited = swap.whose_differences(course.root) if diff else ([], [])
    if as_json:
        found = {"same": not diff, "yours": mine, "edited": edited, "diff": diff}
        click.echo(json.dumps(found, ensure_ascii=False))
    elif not diff:
        say("The seven files of src/gpt2/ are exactly what the solutions give.")
    else:
        for module in manifest.MODULES:
            here = [p.number for p in manifest.PROBLEMS if p.module == module]
            _tell_file(module, [n for n in mine if n in here], [n for n in edited if n in here])
        if not mine and not edited:
            say("src/gpt2/model.py differs from what the solutions give.")
        if show_diff or not mine:  # an edit of model.py itself
            click.echo(diff)
        else:
            say("`learn swap --check --diff` shows the lines.")
        say("`learn swap --reference all` makes all of it the reference's again.", err=True)
    if diff:
        click.get_current_context().exit(1)


def _tell_file(module: str, mine: list[int], edited: list[int]) -> None:
    """What is to be said of one of the seven files."""
    if mine and module == manifest.MODEL_FILE:
        say(f"src/gpt2/{module} holds pieces of yours: {_numbers(mine)}.")
    elif mine:
        say(f"src/gpt2/{module} is your {_numbers(mine)}.")
    if edited:
        say(f"src/gpt2/{module} differs from what the solutions give in {_numbers(edited)}.")


def _numbers(numbers: list[int]) -> str:
    return ", ".join(f"{n:02d}" for n in numbers)


def _undo(course: Course, as_json: bool) -> None:
    backup, left = swap.undo(course.root)
    if as_json:
        click.echo(json.dumps({"restored": backup.name, "left": left}))
    else:
        say(f"The model is as it was {_words(backup.stem)}; {left} more to undo.")


def _words(name: str) -> str:
    """0007-before-swap-reference-8-12 → before `learn swap --reference 8-12`."""
    what = name.partition(".")[0].partition("-before-")[2].removeprefix("swap-")
    flag = "--reference " if what.startswith("reference-") else ""
    return f"before `learn swap {flag}{what.removeprefix('reference-')}`"


def put_in(course: Course, chosen, reference: bool, force: bool, as_json: bool) -> None:
    """Swap pieces in and say what came of each; exit code 1 when one is refused."""
    owner = "reference" if reference else "yours"

    def tell(outcome: swap.Outcome) -> None:
        if not as_json:
            problem = manifest.get(outcome.number)
            line = f"{MARKS[outcome.state]} {problem.number:02d} {problem.title}: {outcome.state}"
            line += f" ({owner})" if outcome.state == "swapped" else ""
            line += f": {outcome.message}" if outcome.message else ""
            say(line, fg=COLORS.get(outcome.state))

    outcomes = swap.swap(
        course.root, chosen, owner, force=force, run_tests=progress.check, tell=tell, waiting=_waits
    )
    failed = any(outcome.state == "refused" for outcome in outcomes)
    if as_json:
        click.echo(json.dumps([asdict(outcome) for outcome in outcomes], ensure_ascii=False))
    elif failed:
        first = next(o for o in outcomes if o.state == "refused")
        later = any(outcome.state == "not tried" for outcome in outcomes)
        say(
            f"learn: problem {first.number:02d} was not swapped in"
            + (", and those after it were not tried" if later else "")
            + (". Use --force to put it in anyway." if first.forcible else "."),
            err=True,
        )
    if failed:
        click.get_current_context().exit(1)


def _waits() -> None:
    say("Another `learn swap` is changing the model; this one waits for it.", err=True)


def _board(course: Course, as_json: bool) -> None:
    rows = swap.board(course.root)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], ensure_ascii=False))
        return
    fails = {row.number for row in progress.standings(course.root) if row.fails_in_model}
    say("The pieces in src/gpt2/model.py:")
    for row in rows:
        if row.number == manifest.MODULE_PROBLEMS[0].number:
            say("The files around it, one piece each:")
        line = f"  {row.number:02d} {row.title:<26} {row.owner:<9} "
        line += f"{row.path}:{row.line}" if row.path else f"src/gpt2/{row.module}"
        line += f"  {row.digest}" if row.digest else ""
        notes = [row.changed] if row.changed else []
        if row.number in fails:
            notes.insert(0, progress.FORCED if row.forced else "fails its checks")
        line += f"  — {', '.join(notes)}" if notes else ""
        color = "green" if row.owner == "yours" else None
        say(line, fg="red" if row.number in fails else "yellow" if row.changed else color)
