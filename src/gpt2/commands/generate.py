"""`gpt2 generate`: a prompt in, text out, token by token."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import torch

    from gpt2.formats.opening import Opened
    from gpt2.model import GPT2Model

MAX_PROMPT_BYTES = 4 * 2**20  # far more than any context holds
SMALL = 20_000_000  # parameters; below it one thread is fastest


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    """click's ranges let NaN through, because it is neither below nor above anything."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number.")
    return value


def _stop_texts(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Wrong usage for a text at which nothing can end."""
    from gpt2.generation.texts import StopTexts

    try:
        return StopTexts(values).stops
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command(name="generate")
@click.option(
    "--model",
    "model_name",
    help="Hub name, folder, training run or GGUF file. Default: the bundled model.",
)
@click.option(
    "--adapter",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="A LoRA adapter in peft's format, for this model: its update is added to the weights.",
)
@click.option("--prompt", help="Text to continue. Default: standard input, if it is a pipe.")
@click.option(
    "--prompts",
    "prompts_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="File with one prompt per line; all are continued as one batch.",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=0),
    metavar="N",
    help="Largest number of tokens to write. Default: 100, or as many as the context has room for.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0),
    default=0.8,
    show_default=True,
    callback=_finite,
    help="Lower values favor likely tokens; 0 always takes the most likely one.",
)
@click.option(
    "--top-k", type=click.IntRange(min=1), help="Draw only from the k most likely tokens."
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    callback=_finite,
    help="Draw only from the fewest tokens whose probabilities sum to at least p.",
)
@click.option(
    "--repetition-penalty",
    type=click.FloatRange(1e-6, 1e6),
    default=1.0,
    show_default=True,
    callback=_finite,
    help="Values above 1 make tokens that have occurred less likely.",
)
@click.option(
    "--num-samples",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Number of texts for each prompt, computed as one batch. The k-th is the text that seed "
    "SEED + k - 1 gives alone.",
)
@click.option(
    "--stop",
    "stops",
    multiple=True,
    metavar="TEXT",
    callback=_stop_texts,
    help="End the text before TEXT, wherever it occurs in the new text; neither TEXT nor what "
    "follows is printed. May be given several times.",
)
@click.option(
    "--eos",
    "end_names",
    multiple=True,
    metavar="ID|TEXT",
    help="End the text at this token, given by its number or its text, instead of at the model's "
    "own end tokens. It is not printed. May be given several times.",
)
@click.option(
    "--draft",
    "draft_name",
    metavar="MODEL",
    help="Smaller model with the same vocabulary, whose guesses of several tokens the model checks "
    "in one pass. Greedy text stays the same; samples come from the same distribution.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    help="Seed of the random draws; the same seed gives the same text.",
)
@click.option(
    "--no-cache", is_flag=True, help="Process the whole text again for each token (slow)."
)
@click.option(
    "--sliding",
    is_flag=True,
    help="Continue beyond the context length, with only the last tokens in view (slow).",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Number format of the weights used for decoding.",
)
@click.option(
    "--quantize",
    type=click.Choice(["int8", "int4"]),
    help="Decode with 8-bit or 4-bit weights on the CPU: a quarter or an eighth of the bytes to "
    "read per token.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "mps"]),
    default="auto",
    show_default=True,
)
def command(
    model_name: str | None,
    adapter: Path | None,
    prompt: str | None,
    prompts_file: Path | None,
    max_new_tokens: int | None,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    num_samples: int,
    stops: tuple[str, ...],
    end_names: tuple[str, ...],
    draft_name: str | None,
    seed: int | None,
    no_cache: bool,
    sliding: bool,
    dtype: str,
    quantize: str | None,
    device: str,
) -> None:
    """Continue a text.

    The prompt and its continuation are written to standard output as they are generated, the speed
    to standard error. If the prompt comes from standard input, one line feed at its end is dropped.
    With an empty prompt, the text starts from the first of these that the vocabulary has: the token
    that begins a text, the end-of-text token, a line feed. Text in the prompt is never read as a
    special token.

    Several texts (--num-samples, --prompts) are computed as one batch and printed one after the
    other.
    """
    if prompt is not None and prompts_file is not None:
        raise click.UsageError("give --prompt or --prompts, not both")
    if draft_name is not None and (no_cache or sliding):
        raise click.UsageError("--draft needs the cache: not with --no-cache or --sliding")
    if quantize is not None and dtype != "float32":
        raise ValueError(f"--quantize {quantize} is made from float32 weights, not --dtype {dtype}")
    if prompts_file is not None:
        prompts = read_prompts(prompts_file)
    else:
        prompts = [read_prompt() if prompt is None else prompt]
    import time

    import torch

    from gpt2.commands.models import open_named
    from gpt2.common.devices import pick_device
    from gpt2.generation.writing import Row, Writer, check_same_words, end_tokens

    place = pick_device(device)
    opened = open_named(model_name)
    ends = end_tokens(opened, end_names)
    starts = [start_ids(opened, text) for text in prompts]
    draft = None
    if draft_name is not None:
        draft = open_named(draft_name)
        check_same_words(opened, draft)
    model = ready(opened, dtype, quantize, place, adapter)
    P = min(each.settings["n_positions"] for each in (opened, draft or opened))
    if max_new_tokens is None:  # without room even for one, generation says so
        longest = max(map(len, starts))
        max_new_tokens = 100 if sliding else min(100, max(1, P - longest))
    if seed is None:
        seed = torch.Generator().seed() % 2**32
    rows = [
        Row(text, torch.tensor(ids, device=place), _head(i, len(prompts), k, num_samples), seed + k)
        for i, (text, ids) in enumerate(zip(prompts, starts, strict=True))
        for k in range(num_samples)
    ]
    writer = Writer(
        model,
        opened.tokenizer,
        max_new_tokens,
        lambda text: click.echo(text, nl=False),
        draft=None if draft is None else ready(draft, dtype, quantize, place),
        stops=stops,
        ends=ends,
        never=opened.unspoken(),
        use_cache=not no_cache,
        sliding=sliding,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
    )
    started = time.perf_counter()
    writer.write(rows)
    seconds = time.perf_counter() - started
    click.echo(
        f"{writer.tokens} tokens in {seconds:.2f} s: {writer.tokens / seconds:.1f} tokens/s "
        f"({place.type}, {quantize or dtype}, {model.config.n_layer} layers of "
        f"{model.config.n_embd}, seed {seed})",
        err=True,
    )


def ready(
    opened: Opened,
    dtype: str,
    quantize: str | None,
    place: torch.device,
    adapter: Path | None = None,
) -> GPT2Model:
    """A model's weights, an adapter's update in them, read and prepared for decoding on a device,
    in the number format asked for: on the CPU beside the float32 weights, which read the prompt,
    elsewhere in place of them.
    """
    import torch

    from gpt2.inference.engine import prepare
    from gpt2.inference.loading import load_model, put_adapter

    wanted = getattr(torch, dtype)
    if adapter is None:
        model = load_model(opened, None if place.type == "cpu" else wanted, place)
    else:  # the sum is made in float32, and rounded afterwards
        model = load_model(opened)
        put_adapter(model, adapter)
        model = model.to(place, None if place.type == "cpu" else wanted)
    if place.type == "cpu" and sum(p.numel() for p in model.parameters()) < SMALL:
        # so little work that threads would wait for one another: on a busy machine, 30 times longer
        torch.set_num_threads(1)
    prepare(model, wanted, quantize)
    return model


def _head(prompt: int, prompts: int, sample: int, samples: int) -> str:
    """What is printed before a text, where there are several; numbers count from 0."""
    names = []
    if prompts > 1:
        names.append(f"prompt {prompt + 1} of {prompts}")
    if samples > 1:
        names.append(f"sample {sample + 1} of {samples}")
    return f"--- {', '.join(names)} ---" if names else ""


def read_prompts(path: Path) -> list[str]:
    """A file's lines, without the empty ones, as prompts. ValueError for a file without any."""
    from gpt2.data.sources import Document

    try:
        with Document(str(path), 0, path=path).open() as file:
            data = file.read(MAX_PROMPT_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > MAX_PROMPT_BYTES:
        raise ValueError(f"{path} holds more than {MAX_PROMPT_BYTES} bytes of prompts")
    prompts = [line for line in data.decode("utf-8").split("\n") if line]
    if not prompts:
        raise ValueError(f"{path} holds no prompt: each line is one")
    return prompts


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
    text = text.removeprefix("\ufeff")  # Windows puts a byte-order mark before what it pipes
    return text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text


def start_ids(opened: Opened, prompt: str) -> list[int]:
    """The prompt's ids, after the token that begins a text if the tokenizer puts one. For an empty
    prompt, that token, else the end-of-text token, else a line feed.
    """
    roles, tokenizer = opened.roles, opened.tokenizer
    first = [roles.bos] if tokenizer.begins and roles.bos is not None else []
    if prompt:
        return first + opened.encode(prompt)
    for start in (*first, tokenizer.roles.end, roles.end, roles.bos):
        if start is not None and start < opened.rows:
            return [start]
    return opened.encode("\n")
