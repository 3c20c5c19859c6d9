"""`learn check`: a problem's checks, a line each, and the message of the first failure."""

from __future__ import annotations

import json

import click

from learn_gpt2 import manifest
from learn_gpt2.checking import faults, loading
from learn_gpt2.checking.runner import CourseBroken, Report, builds_on, run_isolated
from learn_gpt2.cli import Course
from learn_gpt2.commands.console import ask, say
from learn_gpt2.course import backups, progress
from learn_gpt2.manifest import Problem

NOT_THE_FILES = {faults.ID, "broken-model"}  # to be told even of a file with nothing in it
EARLIER = {"stands-on-forced", "earlier-piece"}  # the failure is not this problem's
MARKS = {"passed": "✓", "failed": "✗", "skipped": "·"}
COLORS = {"passed": "green", "failed": "red", "skipped": "bright_black"}


@click.command("check", short_help="Run a problem's checks on your file.")
@click.argument("problems", nargs=-1)
@click.option("--swap", "swap_it", is_flag=True, help="If they pass, put the piece into the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, problems: tuple[str, ...], swap_it: bool, as_json: bool) -> None:
    """Run the checks of PROBLEMS (`05`, `1-7`, `all`; default: the one you are at) on your files.

    The exit code is 0 if all of them pass, and 1 otherwise.
    """
    try:
        chosen = manifest.select(problems)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not chosen:
        row = progress.current(progress.standings(course.root))
        chosen = [manifest.get(row.number if row else len(manifest.PROBLEMS))]
    reports, broken, notes = [], [], set()
    for problem in chosen:
        try:
            report = run_isolated(course.root, problem)
        except CourseBroken as error:
            if len(chosen) == 1:
                raise
            broken.append(problem)
            say(f"{problem.number:02d} {problem.title}: {error}", err=as_json, fg="red")
            continue
        notes.add(progress.remember(course.root, report))
        reports.append(report)
        if not as_json:
            show(course, problem, report, brief=len(chosen) > 1)
            if report.passed and swap_it:
                _swap(course, problem)
            elif report.passed and len(chosen) == 1:
                offer(course, problem)
    if as_json:
        click.echo(json.dumps([r.to_json() for r in reports], ensure_ascii=False))
    for note in sorted(notes - {""}):
        say(note, err=True, fg="yellow")
    if broken or not all(r.passed for r in reports):
        click.get_current_context().exit(1)


def show(course: Course, problem: Problem, report: Report, brief: bool = False) -> None:
    """Print what came of a run."""
    path = loading.shown(problem.problem_path(course.root))
    number = f"{problem.number:02d}"
    version = f"version {report.digest}, " if report.digest != "-" else ""
    say(f"{number} {problem.title}: {path} ({version}yours)")
    first = report.first_failure
    course_fault = first and NOT_THE_FILES & set(first.mistakes)
    if backups.untouched(course.root, problem) and not course_fault:
        say("  · untouched: nothing is written yet")
        return
    if problem.builds_on:
        say(f"   {builds_on(problem)}")
    for result in report.results if not brief and not report.unloadable else ():
        say(f"  {MARKS[result.status]} {result.title}", fg=COLORS[result.status])
    if first is None:
        say(f"{report.words[:1].upper()}{report.words[1:]}.", fg="green")
        row = progress.standings(course.root)[problem.number - 1]
        if row.fails_in_model:
            say(f"The model still runs the piece that fails: learn swap {number}")
        return
    say()
    if not report.unloadable:
        say(first.title)
    say(first.message, bold=True)
    if first.line:
        say(f"({path}:{first.line})")
    if first.printed:
        say("What your code printed during this check:")
        for line in first.printed.splitlines():
            click.echo(f"    {line}")
    say()
    elsewhere = report.unloadable or EARLIER & set(first.mistakes)
    stuck = "" if elsewhere else f" Stuck? learn hint {number}"
    say(f"{report.words[:1].upper()}{report.words[1:]}.{stuck}")


def offer(course: Course, problem: Problem) -> None:
    """Ask whether to swap a passed piece in, where somebody can answer."""
    row = progress.standings(course.root)[problem.number - 1]
    if row.swapped == "yours" and not row.changed and not row.fails_in_model:
        return
    if click.get_text_stream("stdin").isatty() and click.get_text_stream("stdout").isatty():
        instead = f"`learn swap {problem.number:02d}` puts it in."
        if ask("Put it into the model?", default=True, instead=instead):
            _swap(course, problem)
    else:
        say(f"Next: learn swap {problem.number:02d}    (runs your piece in the model)")


def _swap(course: Course, problem: Problem) -> None:
    from learn_gpt2.commands.swap import put_in

    put_in(course, [problem], reference=False, force=False, as_json=False)
