"""`learn update`: a newer version of the course; your work stays."""

from __future__ import annotations

import click

from learn_gpt2.cli import Course
from learn_gpt2.commands.console import say


@click.command("update", short_help="Get a newer version of the course; your work stays.")
@click.pass_obj
def command(course: Course) -> None:
    """Get the newest version of the course: with git, or from the installed package in a course
    that `learn init` made. Your problem.py files stay unchanged, and your pieces run in the new
    model.
    """
    from learn_gpt2.course.layout import was_made
    from learn_gpt2.course.update import update

    done = update(course.root)
    made = was_made(course.root)
    if done.before == done.after:
        say(f"Nothing new: you have the newest version ({done.after}).")
        if made:
            say(_how_to_renew())
            return
    else:
        say(f"Updated from {done.before} to {done.after}.")
    if done.kept:
        say("Kept as they were: problems " + ", ".join(f"{n:02d}" for n in done.kept))
    if done.swapped:
        say("In the model again: " + ", ".join(f"{n:02d}" for n in done.swapped))
    for name in done.backups:
        say(f"You had changed {name}: {done.saved_in.relative_to(course.root) / name}")
    if done.note:
        say(done.note, fg="yellow")
    setup = "" if made else "make setup, if the packages changed; then "
    say(f"Next: {setup}learn check all")


def _how_to_renew() -> str:
    """How to install a newer package, from where this one came."""
    import importlib.metadata
    import json

    address = "ADDRESS"
    try:
        text = importlib.metadata.distribution("learn-gpt2").read_text("direct_url.json")
        found = json.loads(text or "{}")
        kind = found.get("vcs_info", {}).get("vcs")
        address = (f"{kind}+" if kind else "") + found["url"]
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        pass
    return (
        "It is the installed version. To get a newer one, run: "
        f"pip install --force-reinstall --no-deps {address}, then learn update"
    )
