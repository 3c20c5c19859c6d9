"""`gpt2 plan`: what a training run takes, before it is started."""

from __future__ import annotations

import click

SIZES = {"124M": "gpt2_small", "355M": "gpt2_medium", "774M": "gpt2_large", "1.5B": "gpt2_xl"}


@click.command(name="plan")
@click.argument("size", type=click.Choice(list(SIZES)), default="124M")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Sequences per forward pass and GPU.",
)
@click.option(
    "--total-batch-tokens",
    type=click.IntRange(min=1),
    default=2**19,
    show_default=True,
    help="Tokens per step over all GPUs.",
)
@click.option("--parallel", type=click.Choice(["ddp", "fsdp"]), default="ddp", show_default=True)
@click.option(
    "--tokens",
    type=click.FloatRange(min=1),
    default=1e10,
    show_default=True,
    help="Number of tokens to train on.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=1),
    help="Floating-point operations per second that your GPU really reaches; shows the hours.",
)
def command(
    size: str,
    gpus: int,
    batch_size: int,
    total_batch_tokens: int,
    parallel: str,
    tokens: float,
    rate: float | None,
) -> None:
    """Calculate what training a GPT-2 of SIZE (default: 124M) takes with a context of 1024.

    \b
      gpt2 plan 124M --gpus 8 --batch-size 32
      gpt2 plan 1.5B --gpus 8 --batch-size 16 --parallel fsdp --rate 3e14

    The memory is calculated, not measured: the framework's own memory comes on top.
    """
    from gpt2.model import GPT2Config
    from gpt2.training.plan import plan

    config = getattr(GPT2Config, SIZES[size])()
    found = plan(config, total_batch_tokens, gpus, batch_size, parallel)
    click.echo(f"{found.parameters:,} parameters on {gpus} GPU(s), {parallel}")
    click.echo(
        f"a step: {total_batch_tokens:,} tokens = {gpus} GPU(s) × {found.accumulation} passes × "
        f"{batch_size} sequences × {config.n_positions}"
    )
    click.echo(
        f"memory per GPU: {found.state_bytes / 1e9:.1f} GB weights and optimizer + "
        f"{found.activation_bytes / 1e9:.1f} GB activations = {found.total_bytes / 1e9:.1f} GB"
    )
    click.echo(
        f"operations: {found.flops_per_token / 1e9:.2f} · 10⁹ per token; "
        f"{tokens:.3g} tokens are {tokens / total_batch_tokens:,.0f} steps"
    )
    if rate:
        hours = 24 * found.days(tokens, gpus, rate)
        click.echo(f"time at {rate:.3g} operations per second and GPU: {hours:.1f} hours")
