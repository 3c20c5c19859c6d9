"""`gpt2 generate`: a prompt in, text out, token by token."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import Tokenizer

MAX_PROMPT_BYTES = 4 * 2**20  # far more than any context holds
SMALL = 20_000_000  # parameters; below it one thread is fastest


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """click's ranges let NaN through, because it is neither below nor above anything."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


@click.command(name="generate")
@click.option(
    "--model",
    "model_name",
    help="Hub name, folder, training run or GGUF file. Default: the bundled model.",
)
@click.option("--prompt", help="How the text begins. Default: standard input, when it is a pipe.")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Default: 100, or fewer when the context has no room for them.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.8,
    show_default=True,
    callback=_finite,
    help="0 takes the most likely token each time.",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw from the k most likely tokens.")
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_finite,
    help="Draw from the fewest tokens whose probabilities reach p.",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(1e-6, 1e6),
    default=1.0,
    show_default=True,
    callback=_finite,
    help="Above 1: tokens that occurred become less likely.",
)
@click.option("--num-samples", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Same seed, same text.")
@click.option("--no-cache", is_flag=True, help="Read everything anew for each token (slow).")
@click.option(
    "--sliding", is_flag=True, help="Go on past the context's end, seeing its last tokens (slow)."
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
)
@click.option(
    "--quantize",
    type=click.Choice(["int8"]),
    help="On the CPU: continue with int8 weights, a quarter of the bytes to read per token.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
)
def command(
    model_name: str | None,
    prompt: str | None,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    num_samples: int,
    seed: int | None,
    no_cache: bool,
    sliding: bool,
    dtype: str,
    quantize: str | None,
    device: str,
) -> None:
    """Continue a text.

    The prompt and its continuation go to standard output as they come; the speed goes to standard
    error. Of standard input, one line feed at the end is dropped. An empty prompt starts from the
    end-of-text token, or from a line feed where the vocabulary has no such token. Text in the
    prompt is never read as a special token.
    """
    if prompt is None:
        prompt = read_prompt()
    import time

    import torch

    from gpt2.common.devices import pick_device
    from gpt2.formats.bundled import bundled

    name = bundled() if model_name is None else model_name
    place = pick_device(device)
    model, tokenizer = load(name, getattr(torch, dtype), place)
    if place.type == "cpu" and sum(p.numel() for p in model.parameters()) < SMALL:
        # so little work that threads would wait for one another: on a busy machine, 30 times longer
        torch.set_num_threads(1)
    if place.type == "cpu" or quantize is not None:
        from gpt2.inference.engine import prepare

        prepare(model, quantize=quantize)
    ids = torch.tensor([start_ids(tokenizer, prompt)], device=place)
    if max_new_tokens is None:  # without room even for one, generation says so
        max_new_tokens = (
            100 if sliding else min(100, max(1, model.config.n_positions - ids.size(1)))
        )
    generator = torch.Generator(device=place)
    seed = generator.seed() % 2**32 if seed is None else seed
    generator.manual_seed(seed)

    new_tokens = 0
    started = time.perf_counter()
    for number in range(1, num_samples + 1):
        if num_samples > 1:
            click.echo(f"--- sample {number} of {num_samples} ---")
        new_tokens += write_sample(
            model,
            tokenizer,
            prompt,
            ids,
            max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            use_cache=not no_cache,
            sliding=sliding,
            generator=generator,
        )
    seconds = time.perf_counter() - started
    click.echo(
        f"{new_tokens} tokens in {seconds:.2f} s: {new_tokens / seconds:.1f} tokens/s "
        f"({place.type}, {dtype}, {model.config.n_layer} layers of {model.config.n_embd}, "
        f"seed {seed})",
        err=True,
    )


def write_sample(
    model: GPT2Model,
    tokenizer: Tokenizer,
    prompt: str,
    ids: torch.Tensor,
    max_new_tokens: int,
    **options,
) -> int:
    """Write the prompt and its continuation to standard output, as it comes → new tokens."""
    from gpt2.generation.generating import stream
    from gpt2.text.tokenizers import StreamDecoder

    # made before anything is written: it checks the arguments
    tokens = stream(model, ids, max_new_tokens, eos_token_id=tokenizer.eos_token_id, **options)
    text = StreamDecoder(tokenizer)
    click.echo(prompt, nl=False)
    count = 0
    for (token,) in tokens:
        count += 1
        if int(token) != tokenizer.eos_token_id:
            click.echo(text.push(int(token)), nl=False)
    click.echo(text.finish())
    return count


def read_prompt() -> str:
    """Standard input as UTF-8, without one line feed at its end; "" from a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        return ""
    data = sys.stdin.buffer.read(MAX_PROMPT_BYTES + 1)
    if len(data) > MAX_PROMPT_BYTES:
        raise ValueError(f"standard input holds more than {MAX_PROMPT_BYTES} bytes of prompt")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"standard input is not valid UTF-8: byte 0x{data[error.start]:02x} "
            f"at position {error.start} ({error.reason})"
        ) from None
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def load(name: str | Path, dtype: torch.dtype, device: torch.device) -> tuple[GPT2Model, Tokenizer]:
    """A model and its tokenizer. ValueError when they don't belong together."""
    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import load_tokenizer

    model = GPT2Model.from_pretrained(name, dtype=dtype).to(device)
    tokenizer = load_tokenizer(name)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ValueError(
            f"{name}: the tokenizer has {tokenizer.vocab_size} tokens, the model "
            f"{model.config.vocab_size}; they don't belong together"
        )
    return model, tokenizer


def start_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's ids; of an empty one the end-of-text token, or a line feed's without that."""
    if prompt:
        return tokenizer.encode(prompt)
    if tokenizer.eos_token_id is not None:
        return [tokenizer.eos_token_id]
    return tokenizer.encode("\n")
