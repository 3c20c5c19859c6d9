"""What `gpt2.data_parallel` calls `comm`: messages between the processes that torchrun started."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Work

    from gpt2.training.ranks import World


class Comm:
    """A thin layer on `torch.distributed`, whose process group is there already."""

    def __init__(self, world: World):
        self.rank, self.size = world.rank, world.size

    def broadcast(self, tensor: Tensor, source: int = 0) -> None:
        """Write the source's numbers into every rank's tensor; returns when they are there."""
        import torch.distributed as dist

        dist.broadcast(tensor.detach(), source)

    def all_reduce(self, tensor: Tensor) -> Work:
        """Start to sum over ranks, in place → a handle; the sum is there after its `wait()`."""
        import torch.distributed as dist

        return dist.all_reduce(tensor.detach(), async_op=True)
