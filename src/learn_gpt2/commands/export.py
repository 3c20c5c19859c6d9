"""`learn export`: the course in the form that another platform runs (for instructors)."""

from __future__ import annotations

from pathlib import Path

import click

from learn_gpt2 import manifest
from learn_gpt2.cli import Course


@click.group("export", short_help="Pack the course for another platform (for instructors).")
def command() -> None:
    """Pack the course's grader for a platform that runs it automatically."""


@command.command("gradescope", short_help="Write the archive of a Gradescope autograder.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("gradescope-autograder.zip"),
    show_default=True,
    help="The zip file to write.",
)
@click.option(
    "--problems",
    default="1-12",
    show_default=True,
    help="Problems to grade: 05, 1-7, 1,3,5, 13-18, all.",
)
@click.option("--own-pieces", is_flag=True, help="Build on each student's own earlier pieces.")
@click.option(
    "--seconds",
    default=60.0,
    show_default=True,
    help="Seconds allowed for one student's answer to one problem.",
)
@click.option(
    "--memory", default=1024, show_default=True, help="MB allowed beyond what torch itself takes."
)
@click.option(
    "--torch-index",
    default="",
    help="Package index to install torch from. PyTorch's index for the CPU has much smaller "
    "builds.",
)
@click.option(
    "--also",
    multiple=True,
    default=("matplotlib",),
    show_default=True,
    help="A package that students may import. May be given several times.",
)
@click.pass_obj
def gradescope(
    course: Course,
    out: Path,
    problems: str,
    own_pieces: bool,
    seconds: float,
    memory: int,
    torch_index: str,
    also: tuple[str, ...],
) -> None:
    """Write the archive that is uploaded under Configure Autograder: setup.sh, run_autograder, and
    this course as it is now, with the versions of its packages. There it examines each submission
    as `learn grade` does here.
    """
    from gpt2.common.files import write_atomically
    from learn_gpt2.grading import autograder
    from learn_gpt2.grading.sandbox import Limits

    try:
        chosen = tuple(problem.number for problem in manifest.select([problems]))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    if seconds <= 0 or memory < 64:
        raise click.UsageError("--seconds must be above 0, and --memory at least 64 (MB)")
    limits = Limits(seconds=seconds, memory=memory)
    data = autograder.archive(course.root, chosen, limits, own_pieces, torch_index, also)
    write_atomically(out.absolute(), data)
    click.echo(f"{out}: {len(data) / 1e6:.1f} MB. Upload it under Configure Autograder.")
