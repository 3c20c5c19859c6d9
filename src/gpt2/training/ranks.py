"""One process or many: who writes, where each computes, which random numbers it draws."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gpt2.common.devices import pick_device

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class World:
    """Which of how many processes this is, and where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Rank 0: the one that writes and prints."""
        return self.rank == 0


def rank_device(name: str, local_rank: int = 0) -> torch.device:
    """The device of a rank: `auto` → cuda, mps or cpu, whatever is there; of several CUDA devices
    the local rank's own. ValueError when the one asked for is not there.
    """
    import torch

    device = pick_device(name)
    return torch.device("cuda", local_rank) if device.type == "cuda" else device


@contextmanager
def open_world(device: str) -> Iterator[World]:
    """The processes that torchrun started, or this one alone."""
    import torch
    import torch.distributed as dist

    size = int(os.environ.get("WORLD_SIZE", "1"))
    picked = rank_device(device, int(os.environ.get("LOCAL_RANK", "0")))
    if picked.type == "cuda":
        torch.cuda.set_device(picked)
    if "RANK" not in os.environ or size == 1:
        yield World(0, 1, picked)
        return
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo")
    try:
        yield World(dist.get_rank(), size, picked)
        dist.barrier()  # nobody hangs up while another still talks
    finally:
        dist.destroy_process_group()


def seed_step(seed: int, step: int, rank: int) -> None:
    """Every random generator to a state that follows from these three alone."""
    import numpy as np
    import torch

    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    number = int.from_bytes(digest[:8], "little")
    torch.manual_seed(number >> 1)
    np.random.seed(number & 0xFFFFFFFF)
    random.seed(number)


def whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP may have shared out between the ranks → all of it, on every rank."""
    fetch = getattr(tensor, "full_tensor", None)
    return tensor if fetch is None else fetch()


def put_whole(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, which every rank has, into one that FSDP may have shared out by rows."""
    import torch

    with torch.no_grad():
        sharded: Any = target
        if hasattr(sharded, "device_mesh"):
            mesh = sharded.device_mesh
            rows = value.chunk(mesh.size(), dim=0)
            mine, rank = sharded.to_local(), mesh.get_local_rank()
            if rank < len(rows):  # fewer rows than ranks leave the last ones nothing
                mine.copy_(rows[rank])
        else:
            target.copy_(value)
