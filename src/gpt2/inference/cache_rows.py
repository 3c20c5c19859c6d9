"""Some rows of a KV cache as a cache of their own, in the same memory; and the one block of memory
that fast kernels read, where a cache has it.

Both ask nothing of a cache but `layers` with `keys` and `values` (B, H, P, D), `length` and
`max_length`, and use what more there is only after a look at it. Shapes: L layers, B batch rows, H
heads, P max_length, D head_dim.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpt2.cache import KVCache


def block_of(cache: object) -> Tensor | None:
    """The memory of all layers as one tensor (L, 2, B, H, P, D), `cache.buffer`; None where the
    cache has none, or its layers lie elsewhere.
    """
    buffer, layers = getattr(cache, "buffer", None), getattr(cache, "layers", ())
    if not isinstance(buffer, Tensor) or buffer.dim() != 6 or not layers:
        return None
    # the first keys and the last values: what lies between was cut by the same loop. By numbers,
    # since each decoding step asks, and a view takes longer than all the rest of this
    keys, values = layers[0].keys, layers[-1].values
    end = (len(layers) - 1) * buffer.stride(0) + buffer.stride(1)
    same = (
        len(buffer) == len(layers)
        and keys.data_ptr() == buffer.data_ptr()
        and values.data_ptr() == buffer.data_ptr() + end * buffer.element_size()
        and keys.shape == values.shape == buffer.shape[2:]
    )
    return buffer if same else None


class CacheRows:
    """Rows first … last−1 of a cache, `length` tokens full, in the same memory."""

    def __init__(self, cache: KVCache, first: int, last: int, length: int = 0):
        """ValueError for rows that are not there, or a length beyond max_length."""
        rows = len(cache.layers[0].keys)
        if not 0 <= first < last <= rows:
            raise ValueError(f"no rows {first} … {last - 1}: there are {rows}")
        self.max_length = cache.max_length
        self.layers = [
            type(layer)(layer.keys[first:last], layer.values[first:last]) for layer in cache.layers
        ]
        block = block_of(cache)
        self.buffer = None if block is None else block[:, :, first:last]
        self.hold(length)

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        return min(layer.length for layer in self.layers)

    def hold(self, length: int) -> None:
        """Count the first `length` positions as stored, since the memory holds them."""
        if not 0 <= length <= self.max_length:
            raise ValueError(f"length = {length} is outside 0 … max_length = {self.max_length}")
        for layer in self.layers:
            layer.length = length

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. ValueError when fewer are stored."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens of {self.length} stored")
        self.hold(length)

    def reset(self) -> None:
        """Forget everything."""
        self.hold(0)


def rows_work(cache: KVCache) -> bool:
    """Does a part of this cache's rows store into the memory of the whole? It is tried on a small
    cache of the same kind: a layer that copies what it is given, for one, does not.
    """
    try:
        kind = type(cache.layers[0])
        whole = kind(torch.zeros(2, 1, 3, 1), torch.zeros(2, 1, 3, 1))
        rows, P = len(cache.layers[0].keys), cache.max_length
        if any(
            t.dim() != 4 or (t.size(0), t.size(2)) != (rows, P)
            for layer in cache.layers
            for t in (layer.keys, layer.values)
        ):
            return False
        part = kind(whole.keys[1:], whole.values[1:])
        part.length = 1
        keys, values = part.append(torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0))
        right = (
            part.length == 2
            and whole.keys.flatten().tolist() == [0, 0, 0, 0, 2, 0]
            and whole.values.flatten().tolist() == [0, 0, 0, 0, 3, 0]
            and keys.flatten().tolist() == [0, 2]
            and values.flatten().tolist() == [0, 3]
        )
    except Exception:  # whatever the piece does there, it has not what is needed
        return False
    return right
