"""`gpt2 eval`: how good a model is."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="eval")
@click.argument("model", required=False)
@click.option(
    "--data", type=click.Path(path_type=Path), help="Folder that `gpt2 prepare` has written."
)
@click.option("--split", default="val", show_default=True, help="Part of the data to score.")
@click.option(
    "--context", type=click.IntRange(min=1), help="Tokens per window. Default: the model's context."
)
@click.option(
    "--stride",
    type=click.IntRange(min=1),
    help="Tokens from the start of one window to that of the next. The default is a whole context; "
    "a smaller stride gives each scored token more context and takes longer.",
)
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Score only the N tokens after the first one of the split.",
)
@click.option(
    "--hellaswag", type=click.Path(path_type=Path), help="HellaSwag file (JSONL) to score."
)
@click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True)
@click.option(
    "--adapter",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A LoRA adapter in peft's format, for this model.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int4"]),
    help="Evaluate the model with 8-bit or 4-bit weights.",
)
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda", "mps"]), default="auto")
def command(
    model: str | None,
    data: Path | None,
    split: str,
    context: int | None,
    stride: int | None,
    max_tokens: int | None,
    hellaswag: Path | None,
    batch_size: int,
    adapter: Path | None,
    quantize: str | None,
    device: str,
) -> None:
    """Measure the loss, perplexity and bits per byte of MODEL (a folder, hub name, training run or
    GGUF file; default: the bundled one) on --data, and its accuracy on --hellaswag.
    """
    if not data and not hellaswag:
        raise click.UsageError("give --data, --hellaswag, or both")
    from gpt2.commands.models import open_named
    from gpt2.common.devices import pick_device
    from gpt2.data.shards import TokenSource, check_same_tokens, read_index
    from gpt2.inference.engine import quantize_whole
    from gpt2.inference.loading import load_model, put_adapter
    from gpt2.training.evaluation import evaluate_hellaswag, evaluate_loss, read_hellaswag

    # what can be wrong with the files is said before a model is loaded
    source = TokenSource(read_index(data), split) if data else None
    examples = read_hellaswag(hellaswag) if hellaswag else None
    opened = open_named(model)
    if source and data:
        check_same_tokens(source.index, opened)
        source.rows = opened.rows
    loaded = load_model(opened, device=pick_device(device))
    if adapter:
        put_adapter(loaded, adapter)
    if quantize:
        quantize_whole(loaded, quantize)
    P = loaded.config.n_positions
    if context and context > P:
        raise ValueError(f"--context {context} > n_positions = {P}")
    if source and data:
        length = context or P
        result = evaluate_loss(
            loaded,
            source,
            length=length,
            stride=stride,
            batch_size=batch_size,
            max_tokens=max_tokens,
        )
        bits = result.bits_per_byte
        per_byte = "no text among the tokens" if bits is None else f"{bits:.4f} bits per byte"
        click.echo(
            f"{split}: loss {result.nats:.4f} nats per token, perplexity {result.perplexity:.4f}, "
            f"{per_byte}"
        )
        click.echo(
            f"over {result.tokens:,} of {source.tokens:,} tokens ({result.bytes or 0:,} bytes of "
            f"text), context {length}, stride {stride or length}, {quantize or 'float32'}"
        )
    if examples:
        score = evaluate_hellaswag(loaded, opened, examples, batch_size)
        click.echo(
            f"HellaSwag: acc {score.acc:.4f}, acc_norm {score.acc_norm:.4f} "
            f"over {score.examples} examples"
        )
