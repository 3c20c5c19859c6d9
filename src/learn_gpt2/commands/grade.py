"""`learn grade`: a class's submissions, isolated, and reports."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course


@click.command("grade", short_help="Grade a class (for instructors).")
@click.argument("submissions", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the reports.")
@click.option("--problems", default="all", show_default=True, help="Which: 05, 1-7, 1,3,5.")
@click.option("--jobs", type=click.IntRange(1, 256), help="At once (default: half the processors).")
@click.option("--own-pieces", is_flag=True, help="Build on each student's own earlier pieces.")
@click.option("--seconds", default=60.0, show_default=True, help="Time for one problem of one.")
@click.option("--load-seconds", default=10.0, show_default=True, help="Time for importing one.")
@click.option("--memory", default=1024, show_default=True, help="MB beyond what torch takes.")
@click.option("--print-weights", is_flag=True, help="Print the points of each check, and stop.")
@click.option("--print-protections", is_flag=True, help="Print what this system offers, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print a summary as JSON.")
@click.pass_obj
def command(
    course: Course,
    submissions: Path | None,
    out: Path | None,
    problems: str,
    jobs: int | None,
    own_pieces: bool,
    seconds: float,
    load_seconds: float,
    memory: int,
    print_weights: bool,
    print_protections: bool,
    as_json: bool,
) -> None:
    """Grade SUBMISSIONS: a folder with one folder or zip per student, in the course's layout
    (problems/NN-name/problem.py) or flat (NN-name/problem.py, NN-name.py).

    Each file is graded in a process of its own, confined as far as this system can. A mark is the
    sum of the points of the checks that pass. Once interrupted, the same command goes on where it
    stopped. Exit code 0 when all were graded, whatever their marks.
    """
    from learn_gpt2.grading import gradebook, reports, sandbox
    from learn_gpt2.grading.sandbox import Limits

    try:
        chosen = tuple(problem.number for problem in manifest.select([problems]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if min(seconds, load_seconds) <= 0 or memory < 64:
        raise click.UsageError("times must be above 0, and --memory at least 64 (MB)")
    limits = Limits(seconds=seconds, load_seconds=load_seconds, memory=memory)
    if print_weights:
        _print_weights(gradebook.weights(course.root, chosen), as_json)
        return
    means = sandbox.probe()
    if print_protections or not as_json:
        _print_protections(means, limits)
    if print_protections:
        return
    if submissions is None or out is None:
        raise click.UsageError("say which SUBMISSIONS to grade, and where to: --out REPORT")
    jobs = jobs or max(1, (os.cpu_count() or 2) // 2)
    options = gradebook.Options(chosen, limits, jobs, own_pieces)
    work = gradebook.Class(course.root, submissions, out, options, means)
    count = len(work.students)
    if not as_json:
        click.echo(f"{count} students, problems {_span(chosen)}, {jobs} at once")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a CI that cancels is a Ctrl-C
    try:
        with _Progress(quiet=as_json) as progress:
            report = work.grade(progress)
    except gradebook.Interrupted as stopped:
        click.echo(
            f"stopped: {stopped.done} of {stopped.total} files are graded and kept in "
            f"{out / '.cache'}; the same command goes on from there",
            err=True,
        )
        sys.exit(130)
    written = reports.write_all(out, report)
    if as_json:
        marks = {s["student"]: s["points"] for s in report["students"]}
        click.echo(json.dumps({"points": marks, "out": str(out)}, ensure_ascii=False))
    else:
        _summary(report, out, written)


class _Progress:
    """A bar on a terminal, nothing elsewhere."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self._bar = None

    def __enter__(self) -> _Progress:
        return self

    def __call__(self, done: int, total: int) -> None:
        if self.quiet or not sys.stderr.isatty():
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="file", desc="grading", leave=False)
        self._bar.update(done - self._bar.n)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _span(numbers: tuple[int, ...]) -> str:
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 1 and numbers == tuple(range(first, last + 1)):
        return f"{first:02d}–{last:02d}"
    return ", ".join(f"{n:02d}" for n in numbers)


def _print_protections(means, limits) -> None:
    from learn_gpt2.grading.sandbox import protections

    for protection in protections(means, limits):
        mark = "✓" if protection.given else "✗"
        click.echo(f"{mark} {protection.name}: {protection.how}")


def _print_weights(weights: dict[int, list[tuple[str, int]]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(weights, ensure_ascii=False))
        return
    for number, checks in weights.items():
        most = sum(points for _, points in checks)
        click.echo(f"{number:02d} {manifest.get(number).title}: {most} points")
        for title, points in checks:
            click.echo(f"  {points}  {title}")
    total = sum(points for checks in weights.values() for _, points in checks)
    click.echo(f"{total} points in all")


def _summary(report: dict, out: Path, written: list[str]) -> None:
    from statistics import median

    from learn_gpt2.grading.reports import cell, finding

    for student in report["students"]:
        name = cell(student["student"])
        line = f"{name:<30} {student['points']:>4} of {student['max']} ({student['percent']:g} %)"
        click.echo(line + (f"  {cell(student['notices'][0])}" if student["notices"] else ""))
    middle = median(student["percent"] for student in report["students"])
    click.echo(f"median {middle:.3g} %. {finding(report)}")
    if report["copies"]:
        click.echo(f"{len(report['copies'])} groups of the same work: see statistics.md")
    strange = sum(bool(p["unusual"]) for s in report["students"] for p in s["problems"])
    if strange:
        click.echo(f'{strange} files use what a piece has no need for: see "To look at" there')
    for note in (name for name in written if name.startswith("no ")):
        click.echo(note)
    click.echo(f"Reports: {out / 'grades.csv'}, report.json, junit.xml, feedback/, statistics.md")
