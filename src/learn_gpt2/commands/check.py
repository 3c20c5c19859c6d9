"""`learn check`: a problem's checks, a line each, and the message of the first failure."""

from __future__ import annotations

import json

import click

from learn_gpt2 import manifest
from learn_gpt2.checking import loading
from learn_gpt2.checking.runner import Report, run_isolated
from learn_gpt2.cli import Course
from learn_gpt2.course import backups, progress
from learn_gpt2.manifest import Problem

MARKS = {"passed": "✓", "failed": "✗", "skipped": "·"}
COLOURS = {"passed": "green", "failed": "red", "skipped": "bright_black"}


@click.command("check", short_help="Run a problem's checks on your file.")
@click.argument("problems", nargs=-1)
@click.option("--swap", "swap_it", is_flag=True, help="When they pass, put the piece in the model.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(course: Course, problems: tuple[str, ...], swap_it: bool, as_json: bool) -> None:
    """Run the checks of PROBLEMS (`05`, `1-7`, `all`; none: the one you are at) on your files.

    Exit code 0 when all of them pass, else 1.
    """
    try:
        chosen = manifest.select(problems)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if not chosen:
        row = progress.current(progress.standings(course.root))
        chosen = [manifest.get(row.number if row else len(manifest.PROBLEMS))]
    reports = []
    for problem in chosen:
        report = run_isolated(course.root, problem)
        progress.remember(course.root, report)
        reports.append(report)
        if not as_json:
            show(course, problem, report, brief=len(chosen) > 1)
            if report.passed and swap_it:
                _swap(course, problem)
            elif report.passed and len(chosen) == 1:
                offer(course, problem)
    if as_json:
        click.echo(json.dumps([r.to_json() for r in reports], ensure_ascii=False))
    if not all(r.passed for r in reports):
        click.get_current_context().exit(1)


def show(course: Course, problem: Problem, report: Report, brief: bool = False) -> None:
    """Print what came of a run."""
    path = loading.shown(problem.problem_path(course.root))
    passed, total = report.counts
    click.echo(f"{problem.number:02d} {problem.title}: {path} ({report.digest}, yours)")
    if backups.untouched(course.root, problem):
        click.echo("  · untouched: nothing is written yet")
        return
    for result in report.results if not brief else ():
        mark = f"  {MARKS[result.status]} {result.title}"
        click.echo(click.style(mark, fg=COLOURS[result.status]))
    first = report.first_failure
    if first:
        click.echo(f"\n{first.title}")
        click.echo(click.style(first.message, bold=True))
        if first.line:
            click.echo(f"({path}:{first.line})")
        click.echo(f"\n{passed} of {total} checks pass. Stuck? learn hint {problem.number:02d}")
    else:
        click.echo(click.style(f"{passed} of {total} checks pass.", fg="green"))


def offer(course: Course, problem: Problem) -> None:
    """Ask whether to swap a passed piece in, where somebody can answer."""
    row = next(r for r in progress.standings(course.root) if r.number == problem.number)
    if row.swapped == "yours" and not row.changed:
        return
    if click.get_text_stream("stdin").isatty() and click.get_text_stream("stdout").isatty():
        if click.confirm("Put it into the model?", default=True):
            _swap(course, problem)
    else:
        click.echo(f"Next: learn swap {problem.number:02d}    (runs your piece in the model)")


def _swap(course: Course, problem: Problem) -> None:
    from learn_gpt2.commands.swap import _swap as swap_in

    swap_in(course, [problem], reference=False, force=False, as_json=False)
