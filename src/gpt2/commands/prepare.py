"""`gpt2 prepare`: text to memory-mapped token shards."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(name="prepare")
@click.argument("source", default="python-docs")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="Folder to write the shards to."
)
@click.option(
    "--tokenizer",
    default="bpe",
    show_default=True,
    help="char or bpe (both are made from the source), gpt2, or any model that --model accepts.",
)
@click.option(
    "--vocab-size",
    type=click.IntRange(min=257),
    default=1024,
    show_default=True,
    help="Number of tokens in a bpe tokenizer that is made from the source.",
)
@click.option(
    "--val-fraction",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the text that is kept for validation: its end, or, for streams, every n-th "
    "document.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Number of processes, each with up to 85 MB. Default: one per core, at most 4; 1 for a "
    "source below 8 MiB.",
)
@click.option(
    "--shard-tokens",
    type=click.IntRange(min=1),
    default=100_000_000,
    show_default=True,
    help="Largest number of tokens in one shard.",
)
@click.option(
    "--limit", type=click.IntRange(min=1), help="Number of documents to take from a stream."
)
def command(
    source: str,
    out: Path,
    tokenizer: str,
    vocab_size: int,
    val_fraction: float,
    workers: int | None,
    shard_tokens: int,
    limit: int | None,
) -> None:
    """Turn SOURCE into token shards that `gpt2 train --data` reads.

    SOURCE is python-docs (the default; it ships with Python), shakespeare, fineweb-edu,
    hf:REPO[:CONFIG], or text files and folders, with commas between them. If it is interrupted, the
    same command continues where it stopped.

    A file is read as UTF-8, or as UTF-16 if it begins with a byte-order mark; marks and carriage
    returns do not become tokens. In a folder, files that end in .txt, .text, .md, .rst or .py are
    read. Hidden files and folders (.git, .venv, .ipynb_checkpoints, ._NAME), links to folders,
    installed packages, binary files, empty files and copies are left out. The command lists the
    files that it reads and those that it leaves out.
    """
    from gpt2.data.preparing import prepare

    index = prepare(
        source,
        out,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        val_fraction=val_fraction,
        workers=workers,
        shard_tokens=shard_tokens,
        limit=limit,
        progress=True,
        say=click.echo,
    )
    for name, split in index.splits.items():
        click.echo(
            f"{name}: {split.tokens:,} tokens of {split.bytes:,} bytes in "
            f"{len(split.shards)} shard(s)"
        )
    click.echo(f"{out}: {index.vocab_size} tokens in the vocabulary, {index.dtype}")
