"""Which `gpt2` and which `learn` answer: inside a course, the course's own."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from learn_gpt2.manifest import course_around

HANDED_OVER = "GPT2_HANDED_OVER"


def gpt2() -> None:
    """The `gpt2` command: the model that the learner writes, when it is called inside a course."""
    try:
        hand_over(course_around(), "gpt2", sys.argv[1:])
    except (ValueError, OSError) as error:
        click.echo(f"gpt2: {error}", err=True)
        sys.exit(1)
    from gpt2.cli import main

    main()


def hand_over(root: Path | None, module: str, arguments: Sequence[str]) -> None:
    """Go on with `python -m module` from a course's own `src/`, if another one is running.

    Otherwise an installed package's command, or a second checkout's, would run the model that came
    with it, where the learner's pieces are not. ValueError when that can't be done.
    """
    if root is None:
        return
    source = root / "src"
    package = module.partition(".")[0]
    own = source / package
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return
    running = Path(found.origin).resolve().parent
    if not (own / "__main__.py").is_file() or own.resolve() == running:
        return
    if os.environ.get(HANDED_OVER) == str(source):
        raise ValueError(f"{own} can't be run: Python imports {running} instead")
    paths = [str(source), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), HANDED_OVER: str(source)}
    # -P: nothing in the current folder may pass for a module
    command = [sys.executable, "-P", "-m", module, *arguments]
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(sys.executable, command, environment)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that does the work
    raise SystemExit(subprocess.run(command, env=environment).returncode)
