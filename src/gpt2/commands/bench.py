"""`gpt2 bench`: the figures of `gpt2.benchmark` as Markdown, and as JSON."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="bench")
@click.argument("names", nargs=-1, metavar="[MEASUREMENT]...")
@click.option("--quick", is_flag=True, help="A smaller model: rougher figures, sooner.")
@click.option("--explain", is_flag=True, help="Bytes per token, and what bounds decoding.")
@click.option(
    "--model", "model_name", help="Hub name, folder, run or GGUF file. Default: GPT-2 small's size."
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures too.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
def command(
    names: tuple[str, ...],
    quick: bool,
    explain: bool,
    model_name: str | None,
    json_path: Path | None,
    rounds: int,
    device: str,
) -> None:
    """Measure speed and memory, next to Hugging Face's; print Markdown tables.

    Measurements: cache, decode, batch8, prefill, context, batch, start, memory, training,
    training-124m. None named means all; --explain alone measures nothing else.
    """
    from gpt2 import benchmark
    from gpt2.commands.generate import pick_device

    options = {"quick": quick, "device": pick_device(device).type, "rounds": rounds}
    options["model"] = model_name
    found = [] if explain and not names else benchmark.tables(names, **options)
    click.echo(benchmark.report(found))
    if explain:
        click.echo("\n" + benchmark.explain(**options))
    if json_path is not None:
        aside = json_path.with_name(f".{json_path.name}.new")
        aside.write_text(benchmark.as_json(found) + "\n", encoding="utf-8", newline="\n")
        aside.replace(json_path)
