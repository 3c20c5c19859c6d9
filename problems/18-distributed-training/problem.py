"""Problem 18: data-parallel training. Every rank holds the model and sees its part of a batch.

`comm` is given: `comm.rank`, `comm.size`; `comm.broadcast(tensor, source=0)` writes the source's
numbers into every rank's tensor; `comm.all_reduce(tensor)` starts a sum over ranks and returns a
handle, and after its `wait()` the sum stands in the tensor. Both end only when all ranks call them.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BUCKET_BYTES = 25 * 2**20


def shard(batch: Tensor, rank: int, size: int) -> Tensor:
    """A rank's examples: (B, …) → (B / size, …). ValueError when size does not divide B."""
    # TODO 1: refuse what does not divide, and return this rank's part
    raise NotImplementedError("TODO 1: shard")


def broadcast_parameters(module: nn.Module, comm) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    # TODO 2: every parameter and every buffer
    raise NotImplementedError("TODO 2: broadcast_parameters")


def average_gradients(parameters: Iterable[Tensor], comm, bucket_bytes: int = BUCKET_BYTES) -> None:
    """Replace every gradient by its mean over ranks, in flat buckets of about bucket_bytes.

    A parameter that comes twice is averaged once, one without a gradient counts as zeros and has
    the mean afterwards, a frozen one is left alone. Every rank sends the same, in the same order.
    """
    # TODO 3: group the parameters to train into buckets, each tensor once
    # TODO 4: send each bucket as one flat tensor, and put the means back
    raise NotImplementedError("TODO 3: average_gradients")


class DataParallel:
    """A module whose gradients are averaged over ranks while the backward pass goes on.

    It is called like the module. After the last backward pass of a step, `finish()` ends the
    averaging; passes inside `no_sync()` only add to the gradients.
    """

    def __init__(self, module: nn.Module, comm, bucket_bytes: int = BUCKET_BYTES):
        # TODO 5: start all ranks from the same weights
        # TODO 6: make the buckets, those of the last layers first
        # TODO 7: have each parameter report its gradient, and send full buckets in their order
        raise NotImplementedError("TODO 5: DataParallel.__init__")

    def __call__(self, *args, **kwargs):
        """What the module gives."""
        # TODO 8: call the module
        raise NotImplementedError("TODO 8: DataParallel.__call__")

    def __getattr__(self, name: str):
        """What is not here is the module's: parameters(), named_parameters(), train(), training."""
        # TODO 9: ask the module; before __init__ has set one, an AttributeError
        raise NotImplementedError("TODO 9: DataParallel.__getattr__")

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients are added up on this rank alone."""
        # TODO 10: switch the averaging off, and put it back whatever happens inside
        raise NotImplementedError("TODO 10: DataParallel.no_sync")

    def finish(self) -> None:
        """Send what never filled, and wait until every gradient is the mean."""
        # TODO 11: send the remaining buckets, wait for all, put the means back, be ready for more
        raise NotImplementedError("TODO 11: DataParallel.finish")
