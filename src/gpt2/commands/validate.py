"""`gpt2 validate`: twelve checkpoints beside an oracle."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from gpt2.validation.stages import Result

MARKS = {"passed": "✓", "failed": "✗", "skipped": "·", "not seen": "·"}
COLORS = {"passed": "green", "failed": "red"}


@click.command(name="validate")
@click.argument("model", required=False)
@click.option(
    "--oracle",
    type=click.Choice(["auto", "transformers", "stored"]),
    default="auto",
    show_default=True,
    help="Compare with Hugging Face's GPT-2 or with stored tensors. auto uses Hugging Face's GPT-2 "
    "if transformers is installed.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of the model; it is always compared with the oracle's float32.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object per stage.")
@click.option(
    "--store", is_flag=True, help="Store the oracle's tensors beside the weights, and stop."
)
def command(
    model: str | None, oracle: str, dtype: str, device: str, as_json: bool, store: bool
) -> None:
    """Compare MODEL (a folder, hub name, training run or GGUF file; default: the bundled one)
    with an oracle at twelve stages, from the first norm to the generated text. The exit code is 1
    if one of them differs.
    """
    import torch

    from gpt2.commands.models import open_named
    from gpt2.common.devices import pick_device
    from gpt2.formats.checkpoints import BUNDLED
    from gpt2.inference.loading import load_model
    from gpt2.validation import oracle as oracles
    from gpt2.validation.stages import validate

    opened = open_named(model)
    name = BUNDLED if model is None else model
    if store:
        reference = oracles.load_reference(opened, "transformers")
        click.echo(f"Wrote {oracles.store(opened.place, reference)}")
        return
    place = pick_device(device)
    loaded = load_model(opened, getattr(torch, dtype), place)
    reference = oracles.load_reference(opened, oracle)
    if not as_json:
        click.echo(f"{name}, {dtype} on {place.type}; oracle: {reference.oracle}, float32")
    failed = 0
    for result in validate(loaded, reference):
        failed += result.state == "failed"
        click.echo(
            json.dumps(asdict(result), ensure_ascii=False) if as_json else describe(result, True)
        )
    if not as_json:
        click.echo("All twelve agree." if not failed else f"{failed} failed.")
    if failed:
        click.get_current_context().exit(1)


def describe(result: Result, color: bool = False) -> str:
    """One checkpoint as a line, and below a failed one what was found out."""
    figures = result.message
    if result.difference is not None and result.tolerance is not None:
        figures = f"{result.difference:.1e} of {result.tolerance:.1e} allowed"
    line = f"{MARKS[result.state]} {result.number:2d} {result.name:<22} {result.tensor:<34} "
    line += figures if result.state == "passed" else f"{result.state}: {figures}"
    if color:
        line = click.style(line, fg=COLORS.get(result.state))
    if result.state == "failed":
        more = [result.message, *(f"likely: {cause}" for cause in result.causes)]
        more += [f"look at: {result.part}"] if result.part else []
        line += "".join(f"\n      {text}" for text in more if text)
    return line
