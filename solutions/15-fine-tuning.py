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
    # Step 1: without a prompt nothing predicts the first answer token, and the answer is never cut
    if not prompt or not answer:
        raise ValueError(
            f"prompt and answer need at least one token each, got {len(prompt)} and {len(answer)}"
        )
    room = max_length - len(answer)
    if room < 1:
        raise ValueError(
            f"an answer of {len(answer)} tokens leaves no room for a prompt in "
            f"max_length = {max_length}"
        )
    prompt = prompt[-room:]
    # Step 2: one sequence; the inputs lack its last token, the targets its first
    tokens = [*prompt, *answer, eos]
    # Step 3: by position and not by value: the end token is trained, wherever else it occurs
    hidden = len(prompt) - 1
    return tokens[:-1], [IGNORE] * hidden + tokens[1 + hidden :]


def collate(examples: list[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Examples → inputs and targets (B, T), int64; padded right, with pad_id and with IGNORE."""
    # Step 4: on the right, causal attention keeps padding out of everything that counts
    T = max(len(inputs) for inputs, _ in examples)
    inputs = torch.full((len(examples), T), pad_id, dtype=torch.int64)
    targets = torch.full((len(examples), T), IGNORE, dtype=torch.int64)
    for b, (ids, wanted) in enumerate(examples):
        inputs[b, : len(ids)] = torch.tensor(ids)
        targets[b, : len(wanted)] = torch.tensor(wanted)
    return inputs, targets


def masked_loss(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Float32 sum of the cross-entropy of the targets that are not IGNORE, and their number."""
    # Step 5: a sum and a count add up over batches, and means do not. Few logits fit bfloat16
    flat = logits.float().flatten(0, 1)  # (B·T, V)
    total = F.cross_entropy(flat, targets.flatten(), ignore_index=IGNORE, reduction="sum")
    return total, (targets != IGNORE).sum()


def learning_rate(
    step: int, *, peak: float, warmup_steps: int, max_steps: int, final_ratio: float = 0.1
) -> float:
    """Step 0, 1, … → linear warm-up, half a cosine, and final_ratio · peak from max_steps on."""
    # Step 6: the first step already moves, and the last one of the warm-up is at the peak
    low = final_ratio * peak
    if step >= max_steps:
        return low
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    share = (step - warmup_steps) / (max_steps - warmup_steps)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * share))


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict]:
    """Groups for an optimizer: matrices decay, biases and norms don't; frozen ones are left out."""
    # Step 7: parameters() gives a tied tensor once. A norm's weight of 1 has no reason to shrink
    trained = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]


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
    # Step 8: known before the first backward pass, because each part is divided by it
    if total is None:
        total = sum(int((targets != IGNORE).sum()) for _, targets in batches)
    if total <= 0:
        raise ValueError(f"no target counts in {len(batches)} batches: all of them are IGNORE")
    # Step 9: what was left in .grad, by whomever, is not of this step
    optimizer.zero_grad(set_to_none=True)
    parts = []
    # Step 10: backward adds to .grad, so parts of any sizes sum to the gradient of the whole
    for i, (inputs, targets) in enumerate(batches):
        last = i == len(batches) - 1
        # ranks need only compare the finished sum
        alone = nullcontext() if last or not hasattr(model, "no_sync") else model.no_sync()
        with alone:
            kind = inputs.device.type
            with torch.autocast(kind, autocast_dtype, enabled=autocast_dtype is not None):
                logits = model(inputs)  # (B, T, V)
            part = masked_loss(logits, targets)[0] / total
            part.backward()
        parts.append(part.detach())
    # Step 11: gradients that are still on their way between ranks
    if hasattr(model, "finish"):
        model.finish()
    # Step 12: the whole gradient has one length, so it is cut once, when it is whole
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), grad_clip)
    optimizer.step()
    return torch.stack(parts).sum(), norm
