"""The attention inside a model by PyTorch's fused kernel, which never holds the (T, S) weights.

The model's own attention returns its weights, as a reader of GPT-2 wants to see them. Code that
only needs the output puts `FusedAttention` on top of it, as a `forward` of the module's own; it
comes off again, and the module's code and parameters stay as they are. It goes only onto an
attention that was compared with the kernel and gives the same.

Shapes: B batch, H heads, T queries, S keys, D width of a head.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOLERANCE = 1e-5


class FusedAttention:
    """Stands for the `forward` of a model's scaled dot-product attention.

    As many queries as keys means the causal mask, which the kernel then makes itself: whether the
    layer around it hands over that one is looked at before this is put on.
    """

    def __init__(self, attention: nn.Module):
        self.modules = list(attention.modules())
        dropouts = [m for m in self.modules if isinstance(m, nn.Dropout)]
        self.attention = attention
        self.dropout = dropouts[0] if dropouts else None

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """q (B, H, T, D), k and v (B, H, S, D) → output (B, H, T, D), and the weights (B, H, T, S)
        only where somebody listens in there, or changes what goes in, with a forward hook.
        """
        if any(m._forward_hooks or m._forward_pre_hooks for m in self.modules):
            return type(self.attention).forward(self.attention, q, k, v, mask)
        p = self.dropout.p if self.dropout is not None and self.attention.training else 0.0
        causal = mask is not None and q.size(-2) == k.size(-2)
        return F.scaled_dot_product_attention(q, k, v, None if causal else mask, p, causal), None


def fusible(model: nn.Module) -> list[FusedAttention]:
    """One for each attention in a GPT2Model that the kernel can stand for; [] when it can't.

    Compared are the first layer's attention alone, with numbers, and the mask that the layer around
    it hands over; further layers count where they are of the same classes.
    """
    layers = [getattr(block, "attn", None) for block in getattr(model, "h", ())]
    pairs = [(layer, getattr(layer, "attention", None)) for layer in layers]
    if not pairs or not all(isinstance(m, nn.Module) for pair in pairs for m in pair):
        return []
    layer, attention = pairs[0]
    if not _same(layer, attention):
        return []
    kinds = type(layer), type(attention)
    return [FusedAttention(a) for b, a in pairs if (type(b), type(a)) == kinds and _plain(a)]


def fuse(model: nn.Module) -> int:
    """Put the kernel on every attention that it can stand for, for good → how many."""
    found = [fused for fused in fusible(model) if "forward" not in fused.attention.__dict__]
    for fused in found:
        fused.attention.__dict__["forward"] = fused
    return len(found)


@contextmanager
def fused_attention(model: nn.Module) -> Iterator[None]:
    """The kernel, while the block runs, on every attention that it can stand for."""
    found = [fused for fused in fusible(model) if "forward" not in fused.attention.__dict__]
    for fused in found:
        fused.attention.__dict__["forward"] = fused
    try:
        yield
    finally:
        for fused in found:
            fused.attention.__dict__.pop("forward", None)


def _plain(attention: nn.Module) -> bool:
    """At most one dropout and no parameter: nothing else that the kernel would leave out."""
    dropouts = [m for m in attention.modules() if isinstance(m, nn.Dropout)]
    return len(dropouts) <= 1 and not list(attention.parameters())


def _same(layer: nn.Module, attention: nn.Module) -> bool:
    """Does the attention give what the kernel gives, and does the layer mask as it would?"""
    if not _plain(attention) or "forward" in attention.__dict__:
        return False
    weight = next(layer.parameters(), None)
    head_dim = getattr(layer, "head_dim", None)
    if weight is None or not isinstance(head_dim, int):
        return False
    modes = [(module, module.training) for module in layer.modules()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]), _unheard(layer):
        torch.manual_seed(0)
        try:
            layer.eval()
            return _gives_the_same(attention, head_dim) and _masks_causally(layer, attention)
        except Exception:  # a piece may be anything: then it keeps its own way
            return False
        finally:
            for module, training in modes:
                module.training = training


@contextmanager
def _unheard(layer: nn.Module) -> Iterator[None]:
    """No forward hook in the layer is called: a trial's numbers are not the model's, and who counts
    or changes calls waits for those. (The kernel gives way to hooks in an attention by itself.)
    """
    kinds = ("_forward_hooks", "_forward_pre_hooks")
    kept = [(m.__dict__, kind, m.__dict__[kind]) for m in layer.modules() for kind in kinds]
    for attributes, kind, _ in kept:
        attributes[kind] = OrderedDict()
    try:
        yield
    finally:
        for attributes, kind, hooks in kept:
            attributes[kind] = hooks


def _gives_the_same(attention: nn.Module, D: int) -> bool:
    q, k, v = torch.randn(3, 1, 2, 5, D)
    fused = FusedAttention(attention)
    for queries, mask in (
        (q, torch.ones(5, 5, dtype=torch.bool).tril()),
        (q[..., :2, :], torch.ones(2, 5, dtype=torch.bool).tril(3)),
        (q[..., :1, :], None),
    ):
        got, want = fused(queries, k, v, mask)[0], attention(queries, k, v, mask)[0]
        if got.shape != want.shape or not torch.allclose(got, want, TOLERANCE, TOLERANCE):
            return False
    if fused.dropout is None:  # then training must change nothing: a functional dropout would
        q, k, v = torch.randn(3, 4, 8, 16, D)
        plain = attention(q, k, v)[0]
        attention.train()
        same = torch.equal(attention(q, k, v)[0], plain)
        attention.eval()
        return same
    return True


def _masks_causally(layer: nn.Module, attention: nn.Module) -> bool:
    """Is the mask for T = S positions the causal one, and nothing but the output used?"""
    weight = next(layer.parameters())
    T = min(3, getattr(layer, "n_positions", 3))
    seen: list[Tensor | None] = []

    def look(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> tuple[Tensor, None]:
        seen.append(mask)
        return v, None

    attention.__dict__["forward"] = look
    try:
        width = layer.n_head * layer.head_dim
        layer(torch.zeros(1, T, width, dtype=weight.dtype, device=weight.device))
    finally:
        del attention.__dict__["forward"]
    if len(seen) != 1 or seen[0] is None:
        return len(seen) == T == 1
    causal = torch.ones(T, T, dtype=torch.bool).tril()
    return seen[0].dtype == torch.bool and torch.equal(seen[0].cpu().reshape(T, T), causal)
