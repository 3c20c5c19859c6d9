"""`gpt2 attention`: where a model looks, as a page or a picture."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="attention")
@click.argument("model_name", metavar="MODEL")
@click.argument("text")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("attention.html"),
    show_default=True,
    help="A page (.html) to explore in a browser, or one picture (.png).",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
def command(model_name: str, text: str, out: Path, device: str) -> None:
    """Show the attention of every layer and head of MODEL on a TEXT.

    MODEL is a folder, a hub name, a training run, a GGUF file or "bundled". The page works offline:
    choose a layer and a head, and point at a token.
    """
    if out.suffix.lower() not in (".html", ".png"):
        raise click.UsageError(f"--out must end in .html or .png, got {out.name!r}")
    if not text:
        raise click.UsageError("the text is empty; attention needs at least one token")
    import torch

    from gpt2.commands.models import open_named
    from gpt2.common.devices import pick_device
    from gpt2.common.files import written_aside
    from gpt2.figures import plots
    from gpt2.figures.attention import attention_weights, page, picture, summary
    from gpt2.inference.loading import load_model

    opened = open_named(model_name)
    tokenizer, name = opened.tokenizer, Path(model_name).name
    ids = opened.encode(text)
    model = load_model(opened, device=pick_device(device))
    if len(ids) > model.config.n_positions:
        raise ValueError(
            f"the text has {len(ids)} tokens, more than n_positions = {model.config.n_positions}"
        )
    weights = attention_weights(model, torch.tensor(ids))
    if out.suffix.lower() == ".png":
        plots.save(picture(weights, name), out)
    else:
        tokens = [tokenizer.decode([token]) for token in ids]
        with written_aside(out) as part:
            part.write_text(page(weights, tokens, name), encoding="utf-8", newline="\n")
    click.echo(f"{len(ids)} tokens: {summary(weights)}")
    click.echo(f"written: {out}")
