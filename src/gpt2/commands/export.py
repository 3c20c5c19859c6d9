"""`gpt2 export`: a model in another format."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="export")
@click.argument("model", required=False)
@click.option(
    "--gguf",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a GGUF file, for llama.cpp and other programs that read its files.",
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["f32", "f16", "q8_0", "q4_0"]),
    help="Type of the matrices in the GGUF file. Default: f32, which keeps every bit.",
)
@click.option(
    "--out",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a folder in Hugging Face's layout.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Number format of the weights in the folder. Default: float32.",
)
@click.option(
    "--adapter",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A LoRA adapter in peft's format, for this model: what is written has its update in it.",
)
@click.option("--no-tokenizer", is_flag=True, help="Write the model without its vocabulary.")
def command(
    model: str | None,
    file: Path | None,
    kind: str | None,
    folder: Path | None,
    dtype: str | None,
    adapter: Path | None,
    no_tokenizer: bool,
) -> None:
    """Write MODEL (a folder, hub name, training run or GGUF file; default: the bundled one) as a
    GGUF file, as a folder in Hugging Face's layout, or both.
    """
    if file is None and folder is None:
        raise click.UsageError("give --gguf FILE or --out DIR")
    if kind is not None and file is None:
        raise click.UsageError("--type applies to a GGUF file: give --gguf FILE, too")
    if dtype is not None and folder is None:
        raise click.UsageError("--dtype applies to a folder: give --out DIR, too")
    import torch

    from gpt2.commands.models import open_named
    from gpt2.formats.checkpoints import save_pretrained
    from gpt2.formats.gguf import save_gguf
    from gpt2.inference.loading import load_model, put_adapter

    opened = open_named(model)
    try:
        tokenizer = None if no_tokenizer else opened.tokenizer
    except ValueError as error:
        raise ValueError(f"{error}. Use --no-tokenizer to export without one") from None
    loaded, roles = load_model(opened), opened.roles
    if adapter is not None:
        put_adapter(loaded, adapter)
    if file is not None:
        kind = kind or "f32"
        save_gguf(loaded, file, tokenizer, kind, roles)
        click.echo(f"Wrote {file} ({kind}, {file.stat().st_size:,} bytes)")
    if folder is not None:
        save_pretrained(loaded, folder, tokenizer, getattr(torch, dtype or "float32"), roles)
        click.echo(f"Wrote {folder} ({dtype or 'float32'}, Hugging Face's layout)")
