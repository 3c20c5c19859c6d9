"""`gpt2 bench`: the figures of `gpt2.bench.measuring` as Markdown, and as JSON."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="bench")
@click.argument("names", nargs=-1, metavar="[MEASUREMENT]...")
@click.option(
    "--quick", is_flag=True, help="Measure a smaller model, which is faster and less precise."
)
@click.option(
    "--explain", is_flag=True, help="Show the bytes read per token, and what limits decoding."
)
@click.option(
    "--model", "model_name", help="Hub name, folder, run or GGUF file. Default: GPT-2 small's size."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write the numbers to this file.",
)
@click.option(
    "--plot",
    "plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for plots of the curves.",
)
@click.option(
    "--opponent",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with a model.py like nanoGPT's (GPT, GPTConfig) to measure in the same rounds; "
    "its code is executed.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of times that each program is measured.",
)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
def command(
    names: tuple[str, ...],
    quick: bool,
    explain: bool,
    model_name: str | None,
    json_path: Path | None,
    plots: Path | None,
    opponent: Path | None,
    rounds: int,
    device: str,
) -> None:
    """Measure speed and memory beside Hugging Face's, and print Markdown tables.

    The measurements are cache, decode, batch8, prefill, context, batch, sampling, drift,
    speculation, start, memory, training, training-10m, training-124m. Without names, all are run;
    --explain alone measures nothing else.
    """
    from gpt2.bench import generation, measuring, registry
    from gpt2.common.devices import pick_device
    from gpt2.common.files import write_atomically

    options = {"quick": quick, "device": pick_device(device).type, "rounds": rounds}
    options["model"] = model_name
    wanted = {} if explain and not names else registry.chosen(names)
    for folder in (plots, json_path and json_path.parent):
        if folder is None:
            continue
        try:  # now, not when all is measured
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"no folder {folder} for the figures: {error.strerror}") from None
    click.echo(measuring.machine())
    found = []
    try:
        for table in registry.tables(wanted, **options, opponent=opponent):
            found.append(table)
            click.echo(f"\n{table.markdown()}")
            if plots is not None and table.curve is not None:
                name = table.title.lower().replace(" ", "-") + ".png"
                click.echo(f"written: {measuring.plot(table, plots / name)}", err=True)
            if json_path is not None:
                write_atomically(json_path, f"{measuring.as_json(found)}\n".encode())
        if explain:
            click.echo("\n" + generation.explain(**options))
    except KeyboardInterrupt:
        if missing := list(wanted)[len(found) :]:
            click.echo(f"\nNot measured: {' '.join(missing)}", err=True)
        raise
