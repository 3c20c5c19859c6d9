"""`gpt2 train`: from a preset, a TOML file or flags to a trained model."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import click

from gpt2.training.settings import (
    CHOICES,
    TrainConfig,
    load_preset,
    preset_names,
    read_settings_file,
)

WINDOWS = os.name == "nt"


def switch_escapes_on() -> None:
    """An older Windows console writes a line over only once it has been told to; any command that
    the system runs does that.
    """
    if WINDOWS and sys.stdout.isatty():
        os.system("")


def _flags(function: Any) -> Any:
    """One option per setting."""
    for spec in reversed(dataclasses.fields(TrainConfig)):
        flag = "--" + spec.name.replace("_", "-")
        kind = str(spec.type)
        help_text = spec.metadata["help"]
        if spec.default is not None and spec.default != "" and not kind.startswith("bool"):
            help_text += f" [default: {spec.default}]"
        if kind.startswith("bool"):
            option = click.option(f"{flag}/--no-{flag[2:]}", default=None, help=help_text)
        elif spec.name in CHOICES:
            option = click.option(flag, type=click.Choice(CHOICES[spec.name]), help=help_text)
        else:
            of = int if kind.startswith("int") else float if kind.startswith("float") else str
            option = click.option(flag, type=of, help=help_text)
        function = option(function)
    return function


@click.command(name="train")
@click.option("--preset", type=click.Choice(preset_names()), help="Settings to start from.")
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="TOML file with settings, named like the flags but with _ instead of -.",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the run. Default: runs/…")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Continue the run in this folder from its last checkpoint.",
)
@_flags
def command(
    preset: str | None,
    config_file: Path | None,
    out: Path | None,
    resume: Path | None,
    **flags: Any,
) -> None:
    """Train a GPT-2. Flags override --config, which overrides --preset.

    \b
      gpt2 train --preset tiny                          five minutes on a laptop
      gpt2 train --preset shakespeare-char --out runs/s
      gpt2 train --resume runs/s
      gpt2 train --init-from gpt2 --tokenizer gpt2 --source my.txt --context 256 --lr 1e-4
      torchrun --nproc-per-node=8 -m gpt2 train --preset gpt2-124m-fineweb
    """
    from gpt2.training.trainer import Stopped, resumed_config, train

    given = {name: value for name, value in flags.items() if value is not None}
    if resume is not None:
        if preset or config_file or out:
            raise click.UsageError(
                "--resume takes the run's own settings: no --preset, --config, --out"
            )
        config, run = resumed_config(resume, given), resume
    else:
        settings = load_preset(preset) if preset else {}
        if config_file:
            settings |= read_settings_file(config_file)
        config = TrainConfig(**{**settings, **given})
        run = out or Path("runs") / (preset or (config_file.stem if config_file else "default"))
    switch_escapes_on()
    try:
        result = train(config, run, resume=resume is not None)
    except Stopped as stopped:
        click.echo(f"gpt2 train: {stopped}", err=True)
        raise click.exceptions.Exit(130) from None
    if os.environ.get("RANK", "0") == "0":
        best = "" if result["best"] is None else f", best validation loss {result['best']:.4f}"
        click.echo(f"{result['step']} steps in {result['seconds'] / 60:.1f} minutes{best}")
        click.echo(f"try it:  gpt2 generate --model {run / 'best'}")
