"""`gpt2 bench`: the figures of `gpt2.benchmark` as Markdown."""

from __future__ import annotations

import click


@click.command(name="bench")
@click.argument("names", nargs=-1, metavar="[MEASUREMENT]...")
@click.option("--quick", is_flag=True, help="A smaller model: seconds, and rougher figures.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto", show_default=True
)
def command(names: tuple[str, ...], quick: bool, rounds: int, device: str) -> None:
    """Measure the speed of generation at GPT-2 small's size; print Markdown tables.

    Measurements: cache (with and without the KV cache). None named means all.
    """
    from gpt2.benchmark import report
    from gpt2.commands.generate import pick_device

    click.echo(report(names, quick=quick, device=pick_device(device).type, rounds=rounds))
