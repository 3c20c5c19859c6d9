"""A run made ready: how a step's sequences are shared out, the model, its copies or its parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from gpt2.data.shards import DataIndex
    from gpt2.formats.opening import Opened
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


def find_origin(config: TrainConfig, data: DataIndex, checkpoint: Path | None) -> Opened | None:
    """What the weights come from: a checkpoint, or `init_from`; None for random ones.

    ValueError when its vocabulary or its positions don't fit the data and the settings.
    """
    from gpt2.data.shards import check_same_tokens
    from gpt2.formats.opening import open_model

    if config.lora:
        checkpoint = None  # it holds A and B; what they adapt is where it was
    name = str(checkpoint) if checkpoint else config.init_from
    if not name:
        return None
    origin = open_model(name)
    if not checkpoint:
        check_same_tokens(data, origin)
    elif data.vocab_size > origin.rows and data.tokenizer in ("char", "bpe"):
        raise ValueError(
            f"{name} has {origin.rows} tokens, {data.folder} was prepared with {data.vocab_size}"
        )
    if config.context > origin.settings["n_positions"]:
        raise ValueError(
            f"context = {config.context} > n_positions = {origin.settings['n_positions']} of {name}"
        )
    return origin


def build_model(
    config: TrainConfig, data: DataIndex, origin: Opened | None, device: torch.device
) -> GPT2Model:
    """A model to train: with the weights of `find_origin`, or with random ones."""
    from gpt2.inference.loading import load_model
    from gpt2.model import GPT2Config, GPT2Model

    attn = config.dropout if config.attn_dropout is None else config.attn_dropout
    rates = {
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": attn,
    }
    if origin:
        loaded = load_model(origin)
        theirs = loaded.config
        ours = GPT2Config(
            vocab_size=theirs.vocab_size,
            n_positions=theirs.n_positions,
            n_embd=theirs.n_embd,
            n_layer=theirs.n_layer,
            n_head=theirs.n_head,
            layer_norm_epsilon=theirs.layer_norm_epsilon,
            **rates,
        )
        model = GPT2Model(ours)
        model.load_state_dict(loaded.state_dict())
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
    model = model.to(device).train()
    if config.lora:
        adapt(model, config)
    return model


def adapt(model: GPT2Model, config: TrainConfig) -> None:
    """Put LoRA's layers into a model, by the settings: A and B alone can be trained."""
    from gpt2.lora import add_lora

    add_lora(model, config.lora or 0, config.lora_alpha, config.lora_dropout, config.lora_layers)


def parallelize(core: GPT2Model, config: TrainConfig, world: World) -> Any:
    """A model for `train_step`: DDP and `own` copy it to every rank, FSDP2 shares it out, block by
    block; alone it is the model itself.
    """
    if world.size > 1 and config.parallel == "fsdp":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        if config.optimizer == "muon":
            raise ValueError("optimizer muon needs whole matrices, and fsdp shares them out")
        mesh = init_device_mesh(world.device.type, (world.size,))
        for block in core.h:
            fully_shard(block, mesh=mesh)
        # without this the last group stays whole after a validation, and is not read again
        fully_shard(core, mesh=mesh, reshard_after_forward=True)
        return SharedOut(core, _compiled(core, config))
    if world.size > 1 and config.parallel == "own":
        from gpt2.data_parallel import DataParallel
        from gpt2.training.messages import Comm

        return DataParallel(_compiled(core, config), Comm(world))
    if world.size > 1:
        from torch.nn.parallel import DistributedDataParallel

        return _compiled(DistributedDataParallel(core), config)
    return _compiled(core, config)


class SharedOut:
    """A model that FSDP2 has shared out, with `no_sync()` as DDP has it."""

    def __init__(self, core: Any, call: Callable[[Tensor], Tensor]):
        self.core, self.call = core, call

    def __call__(self, inputs: Tensor) -> Tensor:
        """ids (B, T) → logits (B, T, V)."""
        return self.call(inputs)

    @property
    def training(self) -> bool:
        """Whether the model is in training mode."""
        return self.core.training

    def parameters(self) -> Iterator[Tensor]:
        """This rank's parts of the model's parameters."""
        return self.core.parameters()

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """The same, with their names."""
        return self.core.named_parameters()

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients are added up where they are."""
        self.core.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            self.core.set_requires_gradient_sync(True)


def _compiled(model: nn.Module, config: TrainConfig) -> Any:
    import torch

    return torch.compile(model) if config.compile else model
