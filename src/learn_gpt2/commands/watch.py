"""`learn watch`: the checks run again at every save."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import click

from learn_gpt2 import manifest
from learn_gpt2.checking.runner import CourseBroken
from learn_gpt2.checking.warm import Warm
from learn_gpt2.cli import Course
from learn_gpt2.commands.check import show
from learn_gpt2.commands.console import say
from learn_gpt2.commands.keys import single_keys
from learn_gpt2.course import backups, progress
from learn_gpt2.manifest import Problem

POLL_SECONDS = 0.3
KEYS = "h hint · p put in · n next · l list · a all · e explain · r reset · s solution · q quit"


@click.command("watch", short_help="Check again whenever you save.")
@click.argument("problem", required=False)
@click.option("--poll", is_flag=True, help="Look at the files every 0.3 s, for network drives.")
@click.pass_obj
def command(course: Course, problem: str | None, poll: bool) -> None:
    """Watch the problems' files and run a problem's checks each time its problem.py is saved.
    It starts with PROBLEM (default: the one you are at). Ctrl-C or q ends it.
    """
    if problem is None:
        row = progress.current(progress.standings(course.root))
        chosen = manifest.get(row.number if row else 1)
    else:
        try:
            chosen = manifest.get(problem)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    Watch(course, chosen, poll).run()


def _state(path: Path) -> tuple[int, ...]:
    """What of a file changes when it is saved; () while it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


class Watch:
    """The loop of `learn watch`: saves and keys in, verdicts out."""

    def __init__(self, course: Course, problem: Problem, poll: bool = False):
        self.course = course
        self.problem = problem
        self.poll = poll
        self.saved: queue.Queue[Path] = queue.Queue()
        self.stop = threading.Event()
        self.digests: dict[int, str | None] = {}
        self.may_reset = False  # r asks, y answers
        click.echo("Importing torch once …")
        self.warm = Warm(course.root)

    def run(self) -> None:
        """Until q, Ctrl-C or the end of the terminal."""
        watcher = threading.Thread(target=self._watch, daemon=True)
        watcher.start()
        try:
            with single_keys() as read_key:
                self.check(self.problem)
                while not self.stop.is_set():
                    self._saves()
                    key = read_key()
                    if key:
                        self.press(key.lower())
                    else:
                        time.sleep(0.02)
        finally:
            self.stop.set()
            self.warm.close()
            watcher.join(timeout=5)  # Python must not end around a thread in compiled code

    def _watch(self) -> None:
        if self.poll:
            self._look_again_and_again()
            return
        import watchfiles

        changes = watchfiles.watch(
            self.course.root / "problems",
            watch_filter=lambda change, path: Path(path).name == "problem.py",
            debounce=60,
            step=20,
            stop_event=self.stop,
            raise_interrupt=False,
        )
        for change in changes:
            for _, path in change:
                self.saved.put(Path(path))

    def _look_again_and_again(self) -> None:
        """For file systems that send no events. Two saves within a second are told apart, too."""
        paths = [p.problem_path(self.course.root) for p in manifest.PROBLEMS]
        seen = {path: _state(path) for path in paths}
        while not self.stop.wait(POLL_SECONDS):
            for path in paths:
                state = _state(path)
                if state != seen[path]:
                    seen[path] = state
                    self.saved.put(path)

    def _saves(self) -> None:
        numbers = set()
        while not self.saved.empty():
            numbers.add(manifest.get(self.saved.get().parent.name).number)
        for number in sorted(numbers):
            problem = manifest.get(number)
            path = problem.problem_path(self.course.root)
            # an editor may write twice, or move the file away for a moment
            if path.exists() and backups.source_digest(path) != self.digests.get(number):
                self.problem = problem
                self.check(problem)

    def check(self, problem: Problem) -> None:
        """Run the checks and print the verdict."""
        path = problem.problem_path(self.course.root)
        self.digests[problem.number] = backups.source_digest(path)
        started = time.monotonic()
        try:
            report = self.warm.check(problem)
        except CourseBroken as error:
            click.clear()
            say(str(error), fg="red")
            self.footer()
            return
        note = progress.remember(self.course.root, report)
        click.clear()
        show(self.course, problem, report)
        say(f"{time.monotonic() - started:.2f} s", dim=True)
        if report.passed:
            say(f"Next: learn swap {problem.number:02d} (press p), then n")
        if note:
            say(note, fg="yellow")
        self.footer()

    def footer(self) -> None:
        """The line of keys."""
        keys = " · ".join(key.replace(" ", "\xa0") for key in KEYS.split(" · "))
        say(f"watching · {keys}", dim=True)

    def press(self, key: str) -> None:
        """Do what a key asks for."""
        number = f"{self.problem.number:02d}"
        if key in ("q", "\x03", "\x04"):
            self.stop.set()
        elif self.may_reset:  # r has asked; every key but y is a no
            self.may_reset = False
            if key == "y":
                self._invoke("reset", number, "--yes")
            else:
                say("Nothing was reset: your file is as it was.")
                self.footer()
        elif key == "n":
            row = progress.current(progress.standings(self.course.root))
            if row is None:
                click.echo("All eighteen have passed.")
            else:
                self.problem = manifest.get(row.number)
                self.check(self.problem)
        elif key == "a":
            for row in progress.standings(self.course.root):
                if row.state != progress.UNTOUCHED:
                    self.check(manifest.get(row.number))
        elif key == "l":
            self._invoke("status")
        elif key == "h":
            self._invoke("hint", number)
        elif key == "e":
            self._invoke("explain", number)
        elif key == "p":
            self._invoke("swap", number)
        elif key == "s":
            self._invoke("solution", number)
        elif key == "r":
            click.echo(f"Put the skeleton back into problem {number}? (y/n)")
            self.may_reset = True

    def _invoke(self, *arguments: str) -> None:
        """Run another command of `learn` here; what goes wrong in it is a line."""
        from learn_gpt2.cli import cli

        name, rest = arguments[0], list(arguments[1:])
        found = cli.get_command(click.get_current_context(), name)
        if found is not None:
            try:
                found.main(rest, prog_name=f"learn {name}", obj=self.course, standalone_mode=False)
            except (ValueError, OSError, click.ClickException) as error:
                say(getattr(error, "message", str(error)))
            except (click.Abort, click.exceptions.Exit):
                pass  # it has said what there was to say
        self.footer()
