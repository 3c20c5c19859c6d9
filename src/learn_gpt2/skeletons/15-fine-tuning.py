"""Problem 15: the training step. Shapes: B examples, T tokens each, V vocab_size."""

import math
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE = -100  # a target that is not trained; what PyTorch's cross-entropy skips, too


def build_example(
    prompt: list[int], answer: list[int], eos: int, max_length: int
) -> tuple[list[int], list[int]]:
    """An example to train on: prompt and answer → inputs and targets, one length ≤ max_length.

    Target i is the token after input i. Those inside the prompt are IGNORE; the answer's, the first
    one included, and `eos` are trained. A prompt that is too long loses its beginning. ValueError
    for an empty prompt or answer, and when not even one token of the prompt would remain.
    """
    # TODO 1: refuse what can't be trained; shorten a prompt that is too long
    # TODO 2: make one sequence of all, and of it the inputs
    # TODO 3: make the targets, those inside the prompt hidden
    raise NotImplementedError("TODO 1: build_example")


def collate(examples: list[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Examples → inputs and targets (B, T), int64; padded right, with pad_id and with IGNORE."""
    # TODO 4: as wide as the longest example
    raise NotImplementedError("TODO 4: collate")


def masked_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 sum of the cross-entropy of the targets that are not IGNORE, and their number."""
    # TODO 5: sum and count
    raise NotImplementedError("TODO 5: masked_loss")


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, max_steps: int, final_ratio: float = 0.1
) -> float:
    """Step 0, 1, … → linear warm-up, half a cosine, and final_ratio · peak from max_steps on."""
    # TODO 6: three parts: behind the end, warming up, and between
    raise NotImplementedError("TODO 6: learning_rate")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Groups for an optimizer: matrices decay, biases and norms don't; frozen ones are left out."""
    # TODO 7: each tensor once, with its weight_decay
    raise NotImplementedError("TODO 7: parameter_groups")


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: list[tuple[Tensor, Tensor]],
    *,
    grad_clip: float = 1.0,
    autocast_dtype: torch.dtype | None = None,
    total: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimizer step over a batch in parts, each (inputs, targets) → mean loss, gradient norm.

    The mean is over all counted targets of all parts; `total` replaces their number where the
    caller knows better (several ranks: that of all ranks / ranks). The norm is the one before
    clipping. A model with `no_sync()` runs all parts but the last inside it, and a model's
    `finish()` is called before clipping. ValueError when no target counts: nothing has changed.
    """
    # TODO 8: what to divide by; refuse a step without a counted target
    # TODO 9: start from no gradients
    # TODO 10: forward and backward for each part, all but the last inside no_sync()
    # TODO 11: end what is under way between ranks
    # TODO 12: clip, take the step, return loss and norm
    raise NotImplementedError("TODO 8: train_step")
