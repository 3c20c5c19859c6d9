"""What changes the weights: the learning rate's schedule, the optimizers, the number format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gpt2.training.settings import TrainConfig


def scheduled_rate(step: int, config: TrainConfig) -> float:
    """The learning rate of step 0, 1, … of a run with these settings."""
    from gpt2.training_step import learning_rate

    return learning_rate(
        step,
        peak=config.lr,
        warmup_steps=config.warmup,
        max_steps=config.max_steps,
        final_ratio=config.min_lr_ratio,
    )


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

    from gpt2.training_step import parameter_groups

    inner = {
        id(p): p
        for name, p in model.named_parameters()
        if p.requires_grad and p.dim() == 2 and name.startswith("h.")
    }
    by_muon = inner if config.optimizer == "muon" else {}
    groups: list[dict[str, Any]] = [
        group | {"params": [p for p in group["params"] if id(p) not in by_muon]}
        for group in parameter_groups(model, config.weight_decay)
    ]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            groups,
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
                list(by_muon.values()),
                lr=config.lr,
                weight_decay=config.weight_decay,
                momentum=config.momentum,
                # its steps as long as AdamW's, so that one learning rate does for both
                adjust_lr_fn="match_rms_adamw",
            )
        )
    return optimizers


class Together:
    """Several optimizers, each with its own parameters, which take their steps as one."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]):
        self.optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all of them."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all of them."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none)

    def step(self) -> None:
        """Let each of them take its step."""
        for optimizer in self.optimizers:
            optimizer.step()
