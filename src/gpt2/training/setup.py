"""A run made ready: how a step's sequences are shared out, the model, its copies or its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from gpt2.data.shards import DataIndex
    from gpt2.model import GPT2Model
    from gpt2.training.ranks import World
    from gpt2.training.settings import TrainConfig


def batch_plan(config: TrainConfig, ranks: int) -> tuple[int, int]:
    """→ (sequences per forward pass and rank, forward passes per step).

    ValueError that names the numbers when the total does not divide.
    """
    T, W = config.context, ranks
    total = config.total_batch_tokens or config.batch_size * T * W
    if total % (T * W):
        raise ValueError(
            f"total_batch_tokens = {total} is not divisible by context × ranks = {T} × {W}"
        )
    per_rank = total // (T * W)
    micro = min(config.batch_size, per_rank)
    if per_rank % micro:
        raise ValueError(
            f"{per_rank} sequences per rank and step (total_batch_tokens = {total} / "
            f"({T} × {W})) are not divisible by batch_size = {micro}"
        )
    return micro, per_rank // micro


def build_model(
    config: TrainConfig, data: DataIndex, checkpoint: Path | None, device: torch.device
) -> GPT2Model:
    """A model to train: from a checkpoint, from `init_from`, or from random weights.

    ValueError when its vocabulary or its positions don't fit the data and the settings.
    """
    from gpt2.data.shards import check_same_tokens
    from gpt2.model import GPT2Config, GPT2Model

    attn = config.dropout if config.attn_dropout is None else config.attn_dropout
    rates = {
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": attn,
    }
    origin = str(checkpoint) if checkpoint else config.init_from
    if origin:
        loaded = GPT2Model.from_pretrained(origin)
        shape = {
            name: getattr(loaded.config, name)
            for name in ("vocab_size", "n_positions", "n_embd", "n_layer", "n_head")
        }
        eps = loaded.config.layer_norm_epsilon
        model = GPT2Model(GPT2Config(**shape, **rates, layer_norm_epsilon=eps))
        model.load_state_dict(loaded.state_dict())
        if shape["vocab_size"] != data.vocab_size:
            raise ValueError(
                f"{origin} has {shape['vocab_size']} tokens, {data.folder} was "
                f"prepared with {data.vocab_size}: prepare the text with the model's "
                "tokenizer (--tokenizer gpt2, or its folder)"
            )
        if not checkpoint:
            check_same_tokens(data, origin)
        if config.context > shape["n_positions"]:
            raise ValueError(
                f"context = {config.context} > n_positions = {shape['n_positions']} of {origin}"
            )
    else:
        model = GPT2Model(
            GPT2Config(
                vocab_size=data.vocab_size,
                n_positions=config.context,
                n_embd=config.n_embd,
                n_layer=config.n_layer,
                n_head=config.n_head,
                **rates,
            )
        )
    return model.to(device).train()


def parallelise(core: GPT2Model, config: TrainConfig, world: World) -> Callable[[Tensor], Tensor]:
    """DDP copies the model to every rank, FSDP2 shares it out, block by block."""
    if world.size > 1 and config.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if config.optimizer == "muon":
            raise ValueError("optimizer muon needs whole matrices, and fsdp shares them out")
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in core.h:
            fully_shard(block, mesh=mesh)
        # without this the last group stays whole after a validation, and is not read anew
        fully_shard(core, mesh=mesh, reshard_after_forward=True)
        return _compiled(core, config)
    if world.size > 1:
        from torch.nn.parallel import DistributedDataParallel

        return _compiled(DistributedDataParallel(core), config)
    return _compiled(core, config)


def _compiled(model: nn.Module, config: TrainConfig) -> Callable[[Tensor], Tensor]:
    import torch

    return torch.compile(model) if config.compile else model
