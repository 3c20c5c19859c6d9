"""The `gpt2` command of an environment: inside a course, the course's own `gpt2` answers."""

from __future__ import annotations

import sys

import click

from learn_gpt2.course.handover import course_around, hand_over


def gpt2() -> None:
    """Run `gpt2`: the model that the learner writes, when the current folder is in a course."""
    try:
        hand_over(course_around(), "gpt2", sys.argv[1:])
    except (ValueError, OSError) as error:
        click.echo(f"gpt2: {error}", err=True)
        sys.exit(1)
    from gpt2.cli import main

    main()
