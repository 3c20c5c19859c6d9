"""A model made ready for inference, for one forward pass at a time.

Whatever pieces the model is made of, nothing about it is changed for longer than the pass.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLICES = 16  # more than a machine of this kind has threads, so that they finish at about one time
WORTH_SLICING = 2**18  # numbers in a weight; below, the calls cost what the threads save


class Inference:
    """`with Inference(model): …` runs in eval mode, without gradients, and with linear layers that
    read their weights on all cores. Make it once, enter it for each pass.

    Between passes the model is as it was found, to whoever looks at it while tokens stream.
    """

    def __init__(self, model: nn.Module):
        self.modules = list(model.modules())
        self.linears = [module for module in self.modules if _can_slice(module)]
        self._entered: list[tuple[Any, ...]] = []

    def __enter__(self) -> None:
        training = [module for module in self.modules if module.training]
        # a forward of the module's own (someone else's patch) is left alone
        sliced = [module for module in self.linears if "forward" not in module.__dict__]
        no_grad = torch.no_grad()
        no_grad.__enter__()
        self._entered.append((training, sliced, no_grad))
        for module in training:
            module.training = False
        for module in sliced:
            module.__dict__["forward"] = functools.partial(sliced_linear, module)

    def __exit__(self, *error: object) -> None:
        training, sliced, no_grad = self._entered.pop()
        for module in sliced:
            module.__dict__.pop("forward", None)
        for module in training:
            module.training = True
        no_grad.__exit__(*error)


def _can_slice(module: nn.Module) -> bool:
    """Is it PyTorch's own linear layer, float32 on the CPU, and large?"""
    if type(module) is not nn.Linear or torch.get_num_threads() == 1:
        return False
    weight = module.weight
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and weight.is_contiguous()
        and weight.numel() >= WORTH_SLICING
    )


def sliced_linear(module: nn.Linear, x: Tensor) -> Tensor:
    """`module(x)`; for a single vector, as a batch of products with slices of the weight's rows.

    PyTorch's product of a matrix and a vector runs on one thread, and reading the weight is all it
    does; a batch of products runs on all. The slices are views: nothing is copied.
    """
    weight, bias = module.weight, module.bias
    N, K = weight.shape
    if x.numel() != K or x.dtype != weight.dtype:
        return F.linear(x, weight, bias)
    rows = N // SLICES  # per slice; what is left over is one more product
    even = rows * SLICES
    y = x.new_empty(N)
    vectors = x.reshape(1, 1, K).expand(SLICES, 1, K)
    matrices = weight[:even].view(SLICES, rows, K).transpose(1, 2)
    torch.bmm(vectors, matrices, out=y[:even].view(SLICES, 1, rows))
    if even < N:
        torch.mv(weight[even:], x.reshape(K), out=y[even:])
    if bias is not None:
        y += bias
    return y.view(*x.shape[:-1], N)
