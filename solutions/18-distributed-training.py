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
    # Step 1: blocks of one size, so that the mean of the ranks' means is the batch's
    if len(batch) % size:
        raise ValueError(f"a batch of {len(batch)} examples does not divide among {size} ranks")
    share = len(batch) // size
    return batch[rank * share : (rank + 1) * share]


def broadcast_parameters(module: nn.Module, comm) -> None:
    """Give every rank the parameters and buffers of rank 0."""
    # Step 2: buffers, too: not all of them are in state_dict(). detach() is the same memory
    for tensor in [*module.parameters(), *module.buffers()]:
        sent = tensor.detach().contiguous()
        comm.broadcast(sent)
        tensor.detach().copy_(sent)


def _distinct(parameters: Iterable[Tensor]) -> list[Tensor]:
    """Those to train, in their order; one that comes twice, as a tied one does, once."""
    return list({id(p): p for p in parameters if p.requires_grad}.values())


def _buckets(parameters: list[Tensor], bucket_bytes: int) -> list[list[Tensor]]:
    """Parameters in groups of about bucket_bytes, each of one dtype and device."""
    found: list[list[Tensor]] = []
    filled, kind = 0, None
    for p in parameters:
        if not found or filled >= bucket_bytes or kind != (p.dtype, p.device):
            found.append([])
            filled, kind = 0, (p.dtype, p.device)
        found[-1].append(p)
        filled += p.numel() * p.element_size()
    return found


def _send(bucket: list[Tensor], comm) -> tuple:
    """Start to average a bucket's gradients → the flat tensor in which they travel, its handle."""
    # one without a gradient travels as zeros: another rank may have one, and waits for the sum
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
    # divided first: sums of many half-precision gradients overflow
    flat = torch.cat([grad.detach().flatten() for grad in grads]) / comm.size
    return flat, comm.all_reduce(flat)


def _receive(bucket: list[Tensor], flat: Tensor, handle) -> None:
    """Wait for a bucket's mean, and put it into its gradients."""
    handle.wait()
    for p, mean in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
        if p.grad is None:
            p.grad = torch.empty_like(p)
        p.grad.copy_(mean.view_as(p))


def average_gradients(parameters: Iterable[Tensor], comm, bucket_bytes: int = BUCKET_BYTES) -> None:
    """Replace every gradient by its mean over ranks, in flat buckets of about bucket_bytes.

    A parameter that comes twice is averaged once, one without a gradient counts as zeros and has
    the mean afterwards, a frozen one is left alone. Every rank sends the same, in the same order.
    """
    # Step 3: what is sent follows from the parameters alone, never from which gradients there are
    buckets = _buckets(_distinct(parameters), bucket_bytes)
    # Step 4: all under way before the first is waited for
    sent = [_send(bucket, comm) for bucket in buckets]
    for bucket, (flat, handle) in zip(buckets, sent, strict=True):
        _receive(bucket, flat, handle)


class DataParallel:
    """A module whose gradients are averaged over ranks while the backward pass goes on.

    It is called like the module. After the last backward pass of a step, `finish()` ends the
    averaging; passes inside `no_sync()` only add to the gradients.
    """

    def __init__(self, module: nn.Module, comm, bucket_bytes: int = BUCKET_BYTES):
        # Step 5: replicas that start apart stay apart, however well the gradients agree
        broadcast_parameters(module, comm)
        self.module, self.comm = module, comm
        # Step 6: the backward pass meets the last layers first, so their buckets fill first
        self._buckets = _buckets(_distinct(module.parameters())[::-1], bucket_bytes)
        self._bucket_of = {id(p): i for i, b in enumerate(self._buckets) for p in b}
        self._sync = True
        self._start_over()
        # Step 7: the hook runs when a gradient of this pass is complete. A full bucket leaves at
        # once, but never before those in front of it: all ranks have to send in one order
        for bucket in self._buckets:
            for p in bucket:
                p.register_post_accumulate_grad_hook(self._ready)

    def _start_over(self) -> None:
        self._arrived: set[int] = set()
        self._missing = [len(bucket) for bucket in self._buckets]
        self._sent: list[tuple] = []

    def _ready(self, p: Tensor) -> None:
        """Note that a gradient is complete, and send the buckets that are full."""
        if not self._sync:
            return
        if id(p) in self._arrived:
            raise RuntimeError(
                "a second backward pass before finish(): use no_sync() for the first"
            )
        self._arrived.add(id(p))
        self._missing[self._bucket_of[id(p)]] -= 1
        while len(self._sent) < len(self._buckets) and not self._missing[len(self._sent)]:
            self._sent.append(_send(self._buckets[len(self._sent)], self.comm))

    def __call__(self, *args, **kwargs):
        """What the module gives."""
        # Step 8: the forward pass needs no other rank
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str):
        """What is not here is the module's: parameters(), named_parameters(), train(), training."""
        # Step 9: Python asks here for what it finds nowhere else; a bare object has no module
        if name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside, gradients are added up on this rank alone."""
        # Step 10: also after an exception, and as it was before where one lies in another
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    def finish(self) -> None:
        """Send what never filled, and wait until every gradient is the mean."""
        # Step 11: a parameter that this rank did not use may have a gradient on another
        for bucket in self._buckets[len(self._sent) :]:
            self._sent.append(_send(bucket, self.comm))
        for bucket, (flat, handle) in zip(self._buckets, self._sent, strict=True):
            _receive(bucket, flat, handle)
        self._start_over()
