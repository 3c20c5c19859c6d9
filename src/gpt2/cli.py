"""The `gpt2` command: a list of subcommands, each imported on first use.

A new one is a file in `gpt2/commands/` and a line in `COMMANDS`. Its module imports torch and the
like inside functions, so that `gpt2 --help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
import types
from collections.abc import Sequence
from pathlib import Path

import click

from gpt2.common.terminal import fitted

COMMANDS = {
    "generate": "gpt2.commands.generate:command",
    "bench": "gpt2.commands.bench:command",
    "prepare": "gpt2.commands.prepare:command",
    "train": "gpt2.commands.train:command",
    "plan": "gpt2.commands.plan:command",
    "plot": "gpt2.commands.plot:command",
    "eval": "gpt2.commands.eval:command",
    "attention": "gpt2.commands.attention:command",
    "validate": "gpt2.commands.validate:command",
    "export": "gpt2.commands.export:command",
}


class LazyGroup(click.Group):
    """A click group whose commands are `module:attribute`, imported on first use; a mistyped one
    is answered with those that it may have been.
    """

    def __init__(self, *args, lazy: dict[str, str] | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        self.lazy = lazy or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.lazy:
            return None
        module, attribute = self.lazy[name].split(":")
        return getattr(importlib.import_module(module), attribute)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            import difflib

            near = difflib.get_close_matches(args[0].lower(), self.lazy, n=3, cutoff=0.6)
            if not near:
                raise
            words = " or ".join(f"`{ctx.info_name} {name}`" for name in near)
            raise click.UsageError(
                f"There is no command {args[0]!r}. Did you mean {words}?", ctx
            ) from None


@click.group(cls=LazyGroup, lazy=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Generate text with a GPT-2, train one, and more. Each command has its own --help."""


def main(args: Sequence[str] | None = None) -> None:
    """Run a command line and exit: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    Failures are one line on standard error. With GPT2_TRACEBACK=1 in the environment they are
    Python's traceback.
    """
    for output in (sys.stdout, sys.stderr):
        if hasattr(output, "reconfigure"):  # text is UTF-8, whatever the terminal's code page
            output.reconfigure(encoding="utf-8", errors="replace")
    code = run(cli, "gpt2", args)
    if "RANK" in os.environ:
        # Under torchrun, threads that FSDP leaves behind may abort a process that ends in the
        # usual way when all its work is done ("terminate called without an active exception").
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def run(command: click.Command, name: str, args: Sequence[str] | None = None) -> int:
    """Run a click command; errors become one line on standard error → the exit code."""
    try:
        code = command.main(args, prog_name=name, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:  # click's word for Ctrl-C
        return _fail(name, "interrupted", 130)
    except click.ClickException as error:
        error.message = fitted(_one_line(error.message), sys.stderr)
        error.show()
        return error.exit_code
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:
        if os.environ.get("GPT2_TRACEBACK") or not (message := _explain(error)):
            raise
        return _fail(name, message, 1)


def _fail(name: str, message: str, code: int) -> int:
    click.echo(fitted(f"{name}: {_one_line(message)}", sys.stderr), err=True)
    return code


def _one_line(message: str) -> str:
    """A message of bearable length; a terminal's control characters, which a file or an argument
    may have put into it, are spelled out.
    """
    plain = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in message)
    return plain if len(plain) <= 1500 else plain[:1499] + "…"


def _reader_left() -> int:
    """The reader of our output has gone (`gpt2 generate | head`), so end silently."""
    # Python flushes once more at exit and would complain then
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _explain(error: Exception) -> str | None:
    """An expected error → its one line; None for what can only be a mistake in this program."""
    text = " ".join(str(error).split())
    if broken := _broken_piece(error):
        return broken
    if isinstance(error, (ValueError, OSError)):
        return text or type(error).__name__
    if isinstance(error, NotImplementedError):
        return f"not finished: {text}"
    out_of_memory = ("out of memory", "can't allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(words in text.lower() for words in out_of_memory):
        return f"not enough memory: {text[:200]}"
    return None


# the files that are put together from pieces, so that any of them may be broken or gone
PIECES = (
    "model",
    "sampling",
    "cache",
    "training_step",
    "lora",
    "quantization",
    "data_parallel",
)


def _broken_piece(error: BaseException) -> str:
    """What to say when one of the files that are put together from pieces is missing, can't be
    imported or lacks a name; "" for another error.
    """
    here = Path(__file__).parent
    paths = {f"gpt2.{name}": here / f"{name}.py" for name in PIECES}
    mend = "`learn swap --reference all` writes it again"
    if isinstance(error, ImportError) and error.name in paths:
        path = paths[error.name]
        if not path.is_file():
            return f"{path} is not there; {mend}"
        return f"{path} lacks what this command needs ({error.msg.split(' (')[0]}); {mend}"
    asked = error.obj if isinstance(error, AttributeError) else None
    if isinstance(asked, types.ModuleType) and asked.__name__ in paths:
        return f"{paths[asked.__name__]} lacks what this command needs ({error}); {mend}"
    files = {str(path) for path in paths.values()}
    if isinstance(error, SyntaxError) and error.filename in files:
        return f"{error.filename}:{error.lineno} is not valid Python ({error.msg}); {mend}"
    frames = traceback.extract_tb(error.__traceback__)
    # while the file is imported, and not when a command runs what it holds
    found = [f for f in frames if f.filename in files and f.name == "<module>"]
    if found:
        what = f"{type(error).__name__}: {error}"
        return f"{found[-1].filename}:{found[-1].lineno} can't be imported ({what}); {mend}"
    return ""
