"""`learn grade`: a class's submissions, isolated, and reports."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course

if TYPE_CHECKING:
    from learn_gpt2.grading.roster import Roster

SOMEBODY_MUST_LOOK = 3  # exit code: graded, but something handed in was not understood


@click.command("grade", short_help="Grade a class (for instructors).")
@click.argument("submissions", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the reports.")
@click.option(
    "--problems",
    default="1-12",
    show_default=True,
    help="Problems to grade: 05, 1-7, 1,3,5, 13-18, all.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    help="Number of files graded at the same time (default: half the processors).",
)
@click.option("--own-pieces", is_flag=True, help="Build on each student's own earlier pieces.")
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    help="Seconds allowed for one student's answer to one problem.",
)
@click.option(
    "--load-seconds", default=10.0, show_default=True, help="Seconds allowed to import one file."
)
@click.option(
    "--memory", default=1024, show_default=True, help="MB allowed beyond what torch itself takes."
)
@click.option(
    "--roster",
    "roster_file",
    type=click.Path(path_type=Path),
    help="Class list (CSV). Missing students are found, and the marks contain its ids.",
)
@click.option("--dry-run", is_flag=True, help="List who submitted which files, and stop.")
@click.option(
    "--for",
    "platforms",
    multiple=True,
    type=click.Choice(["canvas", "moodle", "gradescope", "classroom50"]),
    help="Also write a file that this platform imports. May be given several times.",
)
@click.option(
    "--title", default="", help="With --for: the name of the assignment or of its column."
)
@click.option(
    "--classroom", default="", help="With --for classroom50: the short name of the class."
)
@click.option(
    "--why",
    nargs=2,
    metavar="STUDENT PROBLEM",
    help="Grade that one piece again, print the result of every check, and stop.",
)
@click.option("--print-weights", is_flag=True, help="Print the points of each check, and stop.")
@click.option(
    "--print-protections",
    is_flag=True,
    help="Print which protections this system offers, and stop.",
)
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
    roster_file: Path | None,
    dry_run: bool,
    platforms: tuple[str, ...],
    title: str,
    classroom: str,
    why: tuple[str, str] | None,
    print_weights: bool,
    print_protections: bool,
    as_json: bool,
) -> None:
    """Grade SUBMISSIONS, the folder or archive that you downloaded from a platform (Canvas, Moodle,
    Blackboard, Gradescope, GitHub, Brightspace, Sakai …), or a folder with one folder or archive
    per student. --dry-run shows what is found in it, and runs none of it.

    Each file is graded in a process of its own, confined as far as this system allows. A mark is
    the sum of the points of the checks that pass. After an interruption, the same command continues
    where it stopped. The exit code is 0 if all were graded, whatever their marks, and 3 if you must
    look at something, because part of a submission was not recognized.
    """
    from learn_gpt2.grading import connectors, gradebook, reports, roster, sandbox
    from learn_gpt2.grading.sandbox import Limits

    try:
        chosen = tuple(problem.number for problem in manifest.select([problems]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if min(seconds, load_seconds) <= 0 or memory < 64:
        raise click.UsageError("times must be above 0, and --memory at least 64 (MB)")
    limits = Limits(seconds=seconds, load_seconds=load_seconds, memory=memory)
    if print_weights:
        reported = {} if as_json else gradebook.reported(course.root, chosen)
        _print_weights(gradebook.weights(course.root, chosen), reported, as_json)
        return
    people = roster.read(roster_file) if roster_file else None
    if dry_run:
        if submissions is None:
            raise click.UsageError("say which SUBMISSIONS to look at")
        _dry_run(course.root, submissions, chosen, people, as_json)
        return
    means = sandbox.probe()
    if why is not None:
        if submissions is None:
            raise click.UsageError("say in which SUBMISSIONS the student's work is")
        options = gradebook.Options((_one(why[1]),), limits, 1, own_pieces, people)
        _why(course.root, submissions, out, options, means, why[0], as_json)
        return
    if print_protections or not as_json:
        _print_protections(means, limits)
    if print_protections:
        return
    if submissions is None or out is None:
        raise click.UsageError("say which SUBMISSIONS to grade, and where to: --out REPORT")
    jobs = jobs or max(1, (os.cpu_count() or 2) // 2)
    options = gradebook.Options(chosen, limits, jobs, own_pieces, people)
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
            f"stopped: the results of {stopped.done} of {stopped.total} files are kept in "
            f"{out / '.cache'}; the same command goes on from there",
            err=True,
        )
        sys.exit(130)
    wishes = connectors.Wishes(title, classroom)
    written = reports.write_all(out, report, platforms, people, wishes)
    if as_json:
        marks = {s["student"]: s["points"] for s in report["students"]}
        look = {s["student"]: s["attention"] for s in report["students"] if s["attention"]}
        click.echo(
            json.dumps({"points": marks, "attention": look, "out": str(out)}, ensure_ascii=False)
        )
    else:
        _summary(report, out, written)
    if any(student["attention"] for student in report["students"]):
        sys.exit(SOMEBODY_MUST_LOOK)


def _one(text: str) -> int:
    try:
        (problem,) = manifest.select([text])
    except ValueError as error:
        raise click.UsageError(f"--why takes a single problem: {error}") from None
    return problem.number


def _why(root, folder: Path, out: Path | None, options, means, name: str, as_json: bool) -> None:
    """Print what came of every check of one piece, run again as the report's was."""
    import tempfile

    from learn_gpt2.grading import gradebook
    from learn_gpt2.grading.escaping import lines, one_line

    with tempfile.TemporaryDirectory(prefix="learn-why-") as aside:
        work = gradebook.Class(root, folder, out or Path(aside), options, means)
        student = work.find(name)
        (number,) = options.problems
        problem = work.again(student, number)
    if as_json:
        click.echo(json.dumps({"student": student.student, **problem}))
        return
    file = one_line(problem["file"])
    place = f": {file} ({problem['digest']})" if file else ""
    click.echo(f"{one_line(student.student)}, {number:02d} {problem['title']}{place}")
    if problem["state"] != "graded":
        click.echo(lines(problem["results"][0]["message"]))
    for result in problem["results"] if problem["state"] == "graded" else ():
        mark = {"passed": "✓", "failed": "✗", "skipped": "·"}[result["status"]]
        click.echo(f"{mark} {one_line(result['title'])} ({result['earned']} of {result['points']})")
        if result["status"] != "passed":
            for line in lines(result["message"]).splitlines():
                click.echo(f"    {line}")
            if result["line"]:
                click.echo(f"    (line {result['line']})")
    for unusual in problem["unusual"]:
        click.echo(f"! uses things that no piece needs: {one_line(unusual)}")
    click.echo(f"{problem['points']} of {problem['max']} points ({problem['percent']:g} %)")


def _dry_run(
    root: Path, folder: Path, chosen: tuple[int, ...], people: Roster | None, as_json: bool
) -> None:
    """Who handed in what, and from where; nothing of theirs is run."""
    from learn_gpt2.grading import gradebook, submissions

    problems = [manifest.get(number) for number in chosen]
    skeletons = {p.number: p.skeleton_path(root).read_bytes() for p in problems}
    found = submissions.read_all(folder, problems, roster=people, skeletons=skeletons)
    if as_json:
        rows = [
            {"student": s.student, **gradebook.whose(s), "pieces": s.where, "notices": s.notices}
            | {"refused": s.refused, "attention": s.attention}
            for s in found
        ]
        click.echo(json.dumps({"students": rows}, ensure_ascii=False))
    else:
        for s in found:
            ids = ", ".join(dict.fromkeys(word for word in (s.id, s.login, s.email) if word))
            name = s.student if not ids or f"({ids})" in s.student else f"{s.student} ({ids})"
            place = f", from {s.source}" if s.source and s.source != s.student else ""
            count = f"{len(s.files)} of {len(problems)} pieces"
            click.echo(f"{name}{place}: {count}" if s.source else f"{name}: nothing")
            for number, place in sorted(s.where.items()):
                mark = (
                    "refused"
                    if number in s.refused
                    else "skeleton"
                    if _same(s.files.get(number), skeletons[number])
                    else ""
                )
                click.echo(f"  {number:02d}  {place}" + (f"  ({mark})" if mark else ""))
            for notice in s.notices:
                click.echo(f"  {'!' if notice in s.attention else '·'} {notice}")
        handed_in = sum(bool(s.source) for s in found)
        look = sum(bool(s.attention) for s in found)
        click.echo(
            f"{handed_in} students handed in, {len(found) - handed_in} of the roster did not"
        )
        if look:
            click.echo(f"{look} to look at, marked with !")
    if any(s.attention for s in found):
        sys.exit(SOMEBODY_MUST_LOOK)


def _same(data: bytes | None, skeleton: bytes) -> bool:
    return data is not None and data.replace(b"\r\n", b"\n").rstrip() == skeleton.rstrip()


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


def _print_weights(
    weights: dict[int, list[tuple[str, int]]], reported: dict[int, list[str]], as_json: bool
) -> None:
    if as_json:
        click.echo(json.dumps(weights, ensure_ascii=False))
        return
    for number, checks in weights.items():
        most = sum(points for _, points in checks)
        click.echo(f"{number:02d} {manifest.get(number).title}: {most} points")
        for title, points in checks:
            mark = "·" if title in reported.get(number, ()) else " "
            click.echo(f"  {points}{mark} {title}")
    total = sum(points for checks in weights.values() for _, points in checks)
    click.echo(f"{total} points in all")
    if any(reported.values()):
        click.echo("· relies in part on what the process that runs the file reports")


def _summary(report: dict, out: Path, written: list[str]) -> None:
    from statistics import median

    from learn_gpt2.grading.escaping import one_line
    from learn_gpt2.grading.reports import finding

    for student in report["students"]:
        name = one_line(student["student"])
        line = f"{name:<30} {student['points']:>4} of {student['max']} ({student['percent']:g} %)"
        click.echo(line + (f"  {one_line(student['notices'][0])}" if student["notices"] else ""))
        for notice in student["notices"][1:]:
            if notice in student["attention"]:
                click.echo(f"{'':<30} {one_line(notice)}")
    look = [s for s in report["students"] if s["attention"]]
    if look:
        names = ", ".join(one_line(student["student"]) for student in look[:12])
        more = f" and {len(look) - 12} more" if len(look) > 12 else ""
        click.echo(f"Somebody must look at {len(look)}: {names}{more}")
    middle = median(student["percent"] for student in report["students"])
    click.echo(f"median {middle:.3g} %. {finding(report)}")
    if report["copies"]:
        many = len(report["copies"])
        word = "group" if many == 1 else "groups"
        click.echo(f"{many} {word} of the same work: see statistics.md")
    strange = sum(bool(p["unusual"]) for s in report["students"] for p in s["problems"])
    if strange:
        click.echo(f'{strange} files use things that no piece needs: see "To look at" there')
    # notes are sentences; what was written are names of files
    for note in (name for name in written if ": " in name):
        click.echo(one_line(note))
    books = [name for name in written if name in ("canvas.csv", "moodle.csv")]
    books += [
        f"{name}/" for name in ("gradescope", "classroom50") if name in report_folders(written)
    ]
    more = "".join(f", {name}" for name in books)
    click.echo(
        f"Reports: {out / 'index.html'}, grades.csv, report.json, junit.xml, feedback/, "
        f"statistics.md{more}"
    )


def report_folders(written: list[str]) -> set[str]:
    """The folders that were written to."""
    return {name.partition("/")[0] for name in written if "/" in name}
