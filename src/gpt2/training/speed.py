"""What makes training on a CPU faster without changing what is computed: dropout's random numbers
drawn four at a time, and memory that is kept between steps.
"""

from __future__ import annotations

import ctypes
import functools
import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 2**16  # of a 16-bit random number: the steps in which a probability is kept


def quick_dropout(x: Tensor, p: float) -> Tensor:
    """Dropout in training: each number 0 with probability p, else times 1 / (1 − p): any shape.

    PyTorch draws one random number after the other, on one thread, which is a fifth of a small
    model's step. Here one number of 64 bits decides for four; so p is rounded to 1/65,536, and the
    factor follows the rounded one, so that the mean stays.
    """
    dropped = round(p * LEVELS)
    if dropped >= LEVELS:
        return x * 0.0
    count = x.numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    keep = words.view(torch.int16)[:count].view(x.shape) >= dropped - LEVELS // 2
    return x * keep.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))


def _forward(module: nn.Dropout, x: Tensor) -> Tensor:
    if x.device.type != "cpu" or not module.training or not 0 < module.p <= 1:
        return F.dropout(x, module.p, module.training, module.inplace)
    return quick_dropout(x, module.p)


def speed_up_dropout(model: nn.Module) -> int:
    """Give every plain `nn.Dropout` of a model the quick way, where it runs on a CPU → how many.

    Whoever's pieces are in the model: their modules and code stay as they are.
    """
    found: list[Any] = [
        module
        for module in model.modules()
        if type(module) is nn.Dropout and "forward" not in module.__dict__
    ]
    for module in found:
        module.forward = functools.partial(_forward, module)
    return len(found)


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, for this process → whether it could be asked to.

    Otherwise tensors of some megabytes go back to the system at the end of each step, and the next
    one takes a page fault per 4 kB to have them again. (mallopt(3); only Linux with glibc.)
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3
    settings = {trim_threshold: 2**31 - 1, top_pad: 2**26, mmap_threshold: 2**25}
    return all([mallopt(name, value) == 1 for name, value in settings.items()])
