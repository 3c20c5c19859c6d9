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
    # TODO 1: see the row as groups, or refuse
    # TODO 2: the largest absolute value of each over the largest integer; 1 for a group of zeros
    raise NotImplementedError("TODO 1: absmax_scale")


def quantize(weight: Tensor, scale: Tensor, bits: int = 8) -> Tensor:
    """The integers nearest to weight / scale, at most ±(2^(bits−1) − 1): (N, K) → (N, K) int8."""
    # TODO 3: divide each weight by the scale of its group, round, clamp, store as int8
    raise NotImplementedError("TODO 3: quantize")


def dequantize(q: Tensor, scale: Tensor) -> Tensor:
    """The weights that the integers stand for: (N, K) int8 and (N, G) → (N, K) float32."""
    # TODO 4: multiply each integer by the scale of its group
    raise NotImplementedError("TODO 4: dequantize")


def pack_int4(q: Tensor) -> Tensor:
    """Two integers of −8 … 7 in a byte: (N, K) int8 → (N, K / 2) uint8.

    Even columns lie in the low four bits, odd ones in the high four, all with 8 added. ValueError
    for an odd K.
    """
    # TODO 5: add 8, and put two neighbors into one byte
    raise NotImplementedError("TODO 5: pack_int4")


def unpack_int4(packed: Tensor) -> Tensor:
    """The inverse of pack_int4: (N, K / 2) uint8 → (N, K) int8."""
    # TODO 6: take both halves of each byte, subtract 8, and put them back side by side
    raise NotImplementedError("TODO 6: unpack_int4")


class QuantizedLinear(nn.Module):
    """A linear layer that holds its weight in 8 or 4 bits: (…, K) → (…, N).

    Buffers: `qweight` (N, K) int8, or (N, K / 2) uint8 at 4 bits; `scale` (N, G) float32. `bias` is
    the layer's own. ValueError for bits other than 4 and 8, and where group_size does not divide K.
    """

    qweight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear, bits: int = 8, group_size: int | None = None):
        super().__init__()
        # TODO 7: quantize the weight and register both buffers; keep the bias, and no float weight
        raise NotImplementedError("TODO 7: QuantizedLinear.__init__")

    def forward(self, x: Tensor) -> Tensor:
        """The product with the weights that the integers stand for: (…, K) → (…, N)."""
        # TODO 8: make the weights for this product alone
        raise NotImplementedError("TODO 8: QuantizedLinear.forward")

    @property
    def nbytes(self) -> int:
        """The bytes that the layer holds: qweight, scale and bias."""
        # TODO 9: count the bytes of the three
        raise NotImplementedError("TODO 9: QuantizedLinear.nbytes")


def quantize_model(model: nn.Module, bits: int = 8, group_size: int | None = None) -> list[str]:
    """Put a QuantizedLinear in place of every linear layer, the head included: their names.
    ValueError as for a layer; then nothing is replaced.
    """
    # TODO 10: find the linear layers by name, and replace them when all have been made
    raise NotImplementedError("TODO 10: quantize_model")
