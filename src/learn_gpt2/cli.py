"""The `learn` command: a group whose subcommands are imported when they are asked for.

A new subcommand is a line in `COMMANDS` and a module in `learn_gpt2/commands/` with a click command
of that name; `@click.pass_obj` gives it the `Course`. It raises ValueError or OSError for what goes
wrong: one line on standard error, exit code 1.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

import click

from gpt2.cli import LazyGroup
from gpt2.common.terminal import fitted
from learn_gpt2 import manifest
from learn_gpt2.launch import hand_over

COMMANDS = {
    "status": "learn_gpt2.commands.status:command",
    "next": "learn_gpt2.commands.next:command",
    "check": "learn_gpt2.commands.check:command",
    "watch": "learn_gpt2.commands.watch:command",
    "hint": "learn_gpt2.commands.hint:command",
    "swap": "learn_gpt2.commands.swap:command",
    "explain": "learn_gpt2.commands.explain:command",
    "validate": "learn_gpt2.commands.validate:command",
    "bisect": "learn_gpt2.commands.bisect:command",
    "doctor": "learn_gpt2.commands.doctor:command",
    "init": "learn_gpt2.commands.init:command",
    "update": "learn_gpt2.commands.update:command",
    "solution": "learn_gpt2.commands.solution:command",
    "reset": "learn_gpt2.commands.reset:command",
    "undo": "learn_gpt2.commands.undo:command",
    "grade": "learn_gpt2.commands.grade:command",
    "export": "learn_gpt2.commands.export:command",
}
# The installed package does these itself: one makes a course, the other renews it.
OUTSIDE = ("init", "update")
DEFAULT = "status"  # what `learn` alone does


class Course:
    """What every subcommand is given: where the course is."""

    def __init__(self, root: Path | None = None):
        self._root = root

    @property
    def root(self) -> Path:
        """The course's folder. FileNotFoundError when the command was not run inside one."""
        if self._root is None:
            self._root = manifest.find_root()
        return self._root


class Commands(LazyGroup):
    """The subcommands; for the name of a problem, which is not one, a command is suggested."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As LazyGroup does, and with the likeliest command for the name of a problem."""
        if args[0] not in self.lazy:
            try:
                problem = manifest.get(args[0])
            except ValueError:
                pass
            else:
                raise click.UsageError(
                    f"There is no command {args[0]!r}. Did you mean "
                    f"`learn check {problem.number:02d}`?",
                    ctx,
                )
        return super().resolve_command(ctx, args)


@click.group(
    cls=Commands,
    lazy=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    help="The course's folder (default: found from the current one upward).",
)
@click.pass_context
def cli(ctx: click.Context, root: Path | None) -> None:
    """Build GPT-2 problem by problem: check your pieces and run them in the model."""
    arguments = ctx.obj if isinstance(ctx.obj, list) else None
    ctx.obj = Course(manifest.find_root(root) if root is not None else None)
    if arguments is not None and ctx.invoked_subcommand not in OUTSIDE:
        with contextlib.suppress(FileNotFoundError):  # a subcommand that needs a course says so
            hand_over(ctx.obj.root, "learn_gpt2", arguments)
    if ctx.invoked_subcommand is None:
        if DEFAULT in COMMANDS:
            ctx.invoke(cli.get_command(ctx, DEFAULT))
        else:
            click.echo(ctx.get_help())


def main(arguments: list[str] | None = None) -> None:
    """Run `learn` and exit: 0, 1 for a failure, 2 for a wrong call."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # an old console gets "?" for what it can't show
            stream.reconfigure(errors="replace")
    try:
        code = cli.main(arguments, prog_name="learn", obj=arguments, standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        error.message = fitted(error.message, sys.stderr)
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:
        click.echo(fitted(f"learn: {_words(error)}", sys.stderr), err=True)
        sys.exit(1)


def _words(error: Exception) -> str:
    """An error as a sentence: what the system refused, and where, in place of an errno."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    name = error.filename2 or error.filename
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM) and name is not None:
        return (
            f"{name} can't be written or read ({error.strerror}): is the course on a read-only "
            "disk, or does it belong to somebody else?"
        )
    if error.errno == errno.ENOSPC:
        return f"the disk is full ({name or 'while writing'}); nothing was changed"
    return f"{name}: {error.strerror}" if name is not None else error.strerror
