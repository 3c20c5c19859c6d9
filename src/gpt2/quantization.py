# ── 17 Quantization ── reference: solutions/17-quantization.py:1 ──────────────────────────────────
"""Problem 17: weights in 8 or 4 bits.

Shapes: N outputs, K inputs, G groups of K / G neighbors in each row; a weight is (N, K).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def absmax_scale(weight: Tensor, bits: int = 8, group_size: int | None = None) -> Tensor:
    """What a step of the integers is worth: (N, K) → (N, G) float32, G = K / group_size or 1.
    ValueError where group_size does not divide K.
    """
    # Step 1: a group is group_size neighbors of one row, which make up one sum of the product
    N, K = weight.shape
    group_size = K if group_size is None else group_size
    if group_size < 1 or K % group_size:
        raise ValueError(f"group_size = {group_size} does not divide the row of K = {K} weights")
    groups = weight.float().reshape(N, K // group_size, group_size)
    # Step 2: the largest weight becomes the largest integer; a group of zeros needs any scale but 0
    scale = groups.abs().amax(-1) / _largest(bits)  # (N, G)
    return torch.where(scale > 0, scale, torch.ones_like(scale))


def quantize(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """The integers nearest to weight / scale, at most ±(2^(bits−1) − 1): (N, K) → (N, K) int8."""
    # Step 3: rounded, since cutting off would be off by up to a whole step; both signs alike, so
    # that −128 stays unused and zero is zero
    largest = _largest(bits)
    steps = weight.float() / _per_weight(scale.float(), weight.size(1))
    return steps.round().clamp(-largest, largest).to(torch.int8)


def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """The weights that the integers stand for: (N, K) int8 and (N, G) → (N, K) float32."""
    # Step 4: off by at most half a scale
    return q.float() * _per_weight(scale.float(), q.size(1))


def pack_int4(q: Tensor) -> Tensor:
    """Two integers of −8 … 7 in a byte: (N, K) int8 → (N, K / 2) uint8.

    Even columns lie in the low four bits, odd ones in the high four, all with 8 added. ValueError
    for an odd K.
    """
    # Step 5: with 8 added they are 0 … 15, four bits without a sign
    if q.size(1) % 2:
        raise ValueError(f"K = {q.size(1)} is odd: two columns share a byte")
    nibbles = (q + 8).to(torch.uint8)
    return nibbles[:, 0::2] | nibbles[:, 1::2] << 4


def unpack_int4(packed: Tensor) -> Tensor:
    """The inverse of pack_int4: (N, K / 2) uint8 → (N, K) int8."""
    # Step 6: the two of a byte stand side by side again
    pairs = torch.stack((packed & 15, packed >> 4), -1)  # (N, K / 2, 2)
    return pairs.flatten(1).to(torch.int8) - 8


class QuantizedLinear(nn.Module):
    """A linear layer that holds its weight in 8 or 4 bits: (…, K) → (…, N).

    Buffers: `qweight` (N, K) int8, or (N, K / 2) uint8 at 4 bits; `scale` (N, G) float32. `bias` is
    the layer's own. ValueError for bits other than 4 and 8, and where group_size does not divide K.
    """

    qweight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, bits: int = 8, group_size: int | None = None):
        super().__init__()
        # Step 7: the float weight is read here and not kept
        if bits not in (4, 8):
            raise ValueError(f"bits must be 4 or 8, got {bits}")
        self.bits = bits
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight = linear.weight.detach()
        scale = absmax_scale(weight, bits, group_size)
        q = quantize(weight, scale, bits)
        self.register_buffer("qweight", pack_int4(q) if bits == 4 else q)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """The product with the weights that the integers stand for: (…, K) → (…, N)."""
        # Step 8: made for this product, and gone after it
        q = unpack_int4(self.qweight) if self.bits == 4 else self.qweight
        return F.linear(x, dequantize(q, self.scale).to(x.dtype), self.bias)

    @property
    def nbytes(self) -> int:
        """The bytes that the layer holds: qweight, scale and bias."""
        # Step 9: a number of them in each tensor, and so many bytes for one
        held = (self.qweight, self.scale, self.bias)
        return sum(t.numel() * t.element_size() for t in held if t is not None)


def quantize_model(model: nn.Module, bits: int = 8, group_size: int | None = None) -> list[str]:
    """Put a QuantizedLinear in place of every linear layer, the head included: their names.
    ValueError as for a layer; then nothing is replaced.
    """
    # Step 10: make all of them before the first is put in, so that an error leaves the model whole
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    made = {name: QuantizedLinear(layer, bits, group_size) for name, layer in layers}
    for name, layer in layers:
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, made[name].train(layer.training))
    return list(made)


def _largest(bits: int) -> int:
    """The largest integer of so many bits: 127 or 7."""
    return 2 ** (bits - 1) - 1


def _per_weight(scale: Tensor, K: int) -> Tensor:
    """The scale of each weight: (N, G) → (N, K)."""
    return scale.repeat_interleave(K // scale.size(1), 1)
