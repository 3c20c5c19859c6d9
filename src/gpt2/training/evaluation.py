"""How good a model is: loss over a text, and HellaSwag's four-way completions.

Shapes: B windows, T tokens each, V vocab_size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gpt2.common.files import short
from gpt2.inference.fused import fused_attention

if TYPE_CHECKING:
    from torch import nn

    from gpt2.data.shards import TokenSource
    from gpt2.model import GPT2Model
    from gpt2.text.tokenizers import Tokenizer

LABELS = {str(i): i for i in range(4)}  # a number, or the same as a string
HELLASWAG_GPT2_ACC_NORM = 0.2955  # GPT-2 124M over the 10,042 validation examples, batched scoring


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside: no dropout, no gradients. After: the model's mode as it was."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), fused_attention(model):
            yield
    finally:
        model.train(was_training)


@dataclass(frozen=True)
class Loss:
    """Mean loss in nats per scored token; how many there were, and the bytes of text that they
    stand for (None where nobody counted).
    """

    nats: float
    tokens: int
    bytes: int | None = None

    @property
    def perplexity(self) -> float:
        return math.exp(self.nats) if self.nats < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Comparable between tokenizers: nats → bits, per byte of the text that was scored instead
        of per token. None where there is no such text.
        """
        return self.nats * self.tokens / math.log(2) / self.bytes if self.bytes else None


@dataclass(frozen=True)
class Window:
    """Inputs start … start+length-1; the last `scored` of its targets count."""

    start: int
    length: int
    scored: int


def windows(tokens: int, length: int, stride: int) -> list[Window]:
    """Windows that score every token but the first exactly once.

    Each begins `stride` after the one before, so that a scored token (past the first window) has
    at least length − stride tokens of context before the window's first target.
    """
    if not 1 <= stride <= length:
        raise ValueError(f"stride must be in 1 … {length} (the window's length), got {stride}")
    if tokens < 2:
        raise ValueError(f"{tokens} tokens: a loss takes at least two")
    found, scored_to = [], 0
    for start in range(0, tokens - 1, stride):
        end = min(start + length, tokens - 1)
        found.append(Window(start, end - start, end - scored_to))
        scored_to = end
        if end == tokens - 1:
            break
    return found


def evaluate_loss(
    model: GPT2Model,
    source: TokenSource,
    *,
    length: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
    max_tokens: int | None = None,
    autocast: torch.dtype | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> Loss:
    """Mean loss of the split's tokens (at most max_tokens of them, from the second one on), and
    the bytes of exactly the tokens that were scored.

    length: the context (default: n_positions); stride: default is length, windows side by side.
    With several ranks each takes its share of the windows, all run the same number of forward
    passes, and all return the same result.
    """
    length = model.config.n_positions if length is None else length
    device = next(model.parameters()).device
    stride = length if stride is None else stride
    tokens = source.tokens if max_tokens is None else min(source.tokens, max_tokens + 1)
    all_windows = windows(tokens, length, stride)
    batches: list[list[Window]] = []
    for window in all_windows:  # a batch holds windows of one length
        if batches and len(batches[-1]) < batch_size and batches[-1][0].length == window.length:
            batches[-1].append(window)
        else:
            batches.append([window])
    rounds = -(-len(batches) // world_size)
    total = torch.zeros(3, dtype=torch.float64)  # loss, tokens, bytes
    context = torch.autocast(device.type, autocast) if autocast else nullcontext()
    with evaluating(model):
        for i in range(rounds):
            number = i * world_size + rank
            batch = batches[min(number, len(batches) - 1)]
            texts = [source.read(w.start, w.length + 1) for w in batch]
            rows = torch.stack([torch.from_numpy(ids) for ids in texts]).to(device)
            with context:
                logits = model(rows[:, :-1])  # (B, T, V)
            if number >= len(batches):
                continue  # only kept the other ranks company
            losses = F.cross_entropy(
                logits.float().flatten(0, 1), rows[:, 1:].flatten(), reduction="none"
            ).view(len(batch), -1)
            for row, window, ids in zip(losses, batch, texts, strict=True):
                total[0] += row[-window.scored :].double().sum().cpu()
                total[1] += window.scored
                total[2] += source.text_bytes(ids[-window.scored :])
    if world_size > 1:
        total = total.to(device)
        torch.distributed.all_reduce(total)
    return Loss(float(total[0] / total[1]), int(total[1]), int(total[2]))


# -------------------------------------------------------------------------------------- HellaSwag


@dataclass(frozen=True)
class Completion:
    """One HellaSwag example: a context, four endings, which of them is right."""

    context: str
    endings: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class HellaSwag:
    """Share of examples whose right ending has the lowest loss: summed, and per token."""

    acc: float
    acc_norm: float
    examples: int


def read_hellaswag(path: str | Path) -> list[Completion]:
    """The published JSONL: one object per line with `ctx`, `endings` (4) and `label`.

    ValueError that names the line for anything else.
    """
    path = Path(path)
    examples = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    raw = json.loads(line)
                    ctx, endings, label = raw["ctx"], raw["endings"], LABELS.get(str(raw["label"]))
                    if not isinstance(endings, list):
                        raise ValueError("endings is not a list")
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ValueError(f"{path}, line {number}: {error!r}") from None
                texts = (ctx, *endings)
                if len(endings) != 4 or not all(isinstance(t, str) and t for t in texts):
                    raise ValueError(f"{path}, line {number}: ctx and four endings are texts")
                if label is None:
                    raise ValueError(
                        f"{path}, line {number}: label {short(raw['label'])} is not 0 … 3"
                    )
                examples.append(Completion(ctx, tuple(endings), label))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
    if not examples:
        raise ValueError(f"{path} holds no examples")
    return examples


def evaluate_hellaswag(
    model: GPT2Model, tokenizer: Tokenizer, examples: list[Completion], batch_size: int = 8
) -> HellaSwag:
    """Score each ending by its tokens' loss behind the context: batch_size examples at a time.

    An ending is encoded with a space before it. A context too long for the model loses its
    beginning.
    """
    P = model.config.n_positions
    device = next(model.parameters()).device
    right = right_norm = 0
    with evaluating(model):
        for first in range(0, len(examples), batch_size):
            group = examples[first : first + batch_size]
            rows: list[list[int]] = []
            lengths: list[int] = []
            for example in group:
                context = tokenizer.encode(example.context)
                for ending in example.endings:
                    ids = tokenizer.encode(" " + ending)
                    row = (context + ids)[-(P + 1) :]
                    rows.append(row)
                    lengths.append(min(len(ids), len(row) - 1))
            sums = torch.tensor(_ending_losses(model, rows, lengths, device)).view(len(group), 4)
            per_token = sums / torch.tensor(lengths).view(len(group), 4)
            labels = torch.tensor([example.label for example in group])
            right += int((sums.argmin(1) == labels).sum())
            right_norm += int((per_token.argmin(1) == labels).sum())
    return HellaSwag(right / len(examples), right_norm / len(examples), len(examples))


def _ending_losses(
    model: nn.Module, rows: list[list[int]], lengths: list[int], device: torch.device
) -> list[float]:
    """The summed loss of each row's last `length` tokens; rows are padded on the right, where
    causal attention keeps the padding out of what counts.
    """
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens)
    ids = ids.to(device)
    logits: Tensor = model(ids[:, :-1]).float()  # (B, T, V)
    losses = F.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()  # (B, T)
    return [
        float(row[len(tokens) - 1 - length : len(tokens) - 1].double().sum())
        for row, tokens, length in zip(losses, rows, lengths, strict=True)
    ]
