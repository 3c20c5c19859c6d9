"""What changes the weights: the learning rate's schedule, the optimizers, the number format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gpt2.training.settings import TrainConfig


def lr_at(step: int, config: TrainConfig) -> float:
    """The learning rate of step 0, 1, …: linear warm-up, then a cosine to min_lr_ratio of the
    peak.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    share = min(1.0, (step - config.warmup) / max(1, config.max_steps - config.warmup))
    low = config.lr * config.min_lr_ratio
    return low + (config.lr - low) * 0.5 * (1 + math.cos(math.pi * share))


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What to compute in where float32 is not needed: bfloat16 where the hardware has it."""
    import torch

    if precision == "float32":
        return None
    if precision == "bfloat16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type == "cpu":
        # elsewhere a CPU imitates bfloat16, and is slower with it than without
        names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        checks = [getattr(torch.cpu, name, None) for name in names]
        return torch.bfloat16 if any(check and check() for check in checks) else None
    return None


def make_optimizers(model: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest.

    Decay is on matrices only: biases and norms have no scale to keep small.
    """
    import torch

    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    inner = {name for name, p in named if p.dim() == 2 and name.startswith("h.")}
    by_muon = inner if config.optimizer == "muon" else set()
    matrices = [p for name, p in named if p.dim() >= 2 and name not in by_muon]
    vectors = [p for _, p in named if p.dim() < 2]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=config.lr,
            betas=(config.beta1, config.beta2),
            fused=next(model.parameters()).device.type in ("cpu", "cuda"),
        )
    ]
    if by_muon:
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"optimizer muon needs PyTorch 2.9 or newer, this is {torch.__version__}"
            )
        optimizers.append(
            torch.optim.Muon(
                [p for name, p in named if name in by_muon],
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                # its steps as long as AdamW's, so that one learning rate does for both
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers
