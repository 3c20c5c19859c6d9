"""`gpt2 plot`: a run's curves."""

from __future__ import annotations

import shutil
from pathlib import Path

import click


@click.command(name="plot")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="PNG file to write. Default: RUN/curves.png"
)
@click.option("--text-only", is_flag=True, help="Draw in the terminal only, and write no file.")
def command(run: Path, out: Path | None, text_only: bool) -> None:
    """Draw the losses of RUN (its folder, or a log.jsonl) in the terminal and as a PNG."""
    from gpt2.figures.plots import curve, plot_run, text_plot
    from gpt2.training.run_log import LOG_NAME, read_log

    log = run / LOG_NAME if run.is_dir() else run
    rows = read_log(log)
    if not rows:
        raise ValueError(f"{log} holds no steps of a run yet")
    columns = shutil.get_terminal_size((84, 24)).columns
    curves = {"train loss": curve(rows, "loss"), "validation loss": curve(rows, "val_loss")}
    click.echo(text_plot(curves, width=max(16, min(72, columns - 12))))
    if not text_only:
        click.echo(f"written: {plot_run(rows, out or log.with_name('curves.png'))}")
