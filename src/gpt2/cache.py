"""The KV cache: keys and values of the tokens already seen, so that each new token costs one
token's work.

Whoever generates owns the cache and passes it down: `model(ids, cache)`. Shapes: B batch_size, H
heads, D head_dim, T new tokens, S tokens stored after the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gpt2.model import GPT2Config


class LayerCache:
    """One layer's keys and values: two buffers (B, H, max_length, D), of which the first
    `length` positions count.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys = keys
        self.values = values
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new keys and values (B, H, T, D) behind those already there; return all of them
        (B, H, S, D).

        What is returned are views of the buffers: no copy is made. ValueError for another shape
        than the cache was made for, and for more tokens than max_length; then nothing is stored.
        """
        B, H, max_length, D = self.keys.shape
        for name, new in (("keys", k), ("values", v)):
            if new.dim() != 4 or (*new.shape[:2], new.shape[3]) != (B, H, D):
                raise ValueError(
                    f"{name} of shape {tuple(new.shape)} do not fit a cache of "
                    f"(B, H, T, D) = ({B}, {H}, T, {D})"
                )
        if k.size(2) != v.size(2):
            raise ValueError(f"{k.size(2)} keys, but {v.size(2)} values")
        end = self.length + k.size(2)
        if end > max_length:
            raise ValueError(
                f"{self.length} tokens stored + {k.size(2)} new = {end} > "
                f"max_length = {max_length} of the KV cache"
            )
        self.keys[:, :, self.length : end] = k.detach()
        self.values[:, :, self.length : end] = v.detach()
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """A `LayerCache` per layer, cut from one contiguous block that is allocated once.

    Memory: 2 · n_layer · batch_size · max_length · n_embd numbers (GPT-2 small, one sequence of
    1024, float32: 2 · 12 · 1 · 1024 · 768 · 4 bytes = 75.5 MB).
    """

    def __init__(
        self,
        config: GPT2Config,
        batch_size: int = 1,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        """max_length: tokens there is room for (default and limit: config.n_positions).

        ValueError that names both numbers when max_length > n_positions, or when a size is below 1.
        """
        max_length = config.n_positions if max_length is None else max_length
        for name, size in (("batch_size", batch_size), ("max_length", max_length)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive int, got {size!r}")
        if max_length > config.n_positions:
            raise ValueError(
                f"max_length = {max_length} > n_positions = {config.n_positions}: no such positions"
            )
        shape = (config.n_layer, 2, batch_size, config.n_head, max_length, config.head_dim)
        self.max_length = max_length
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = [
            LayerCache(self.buffer[i, 0], self.buffer[i, 1]) for i in range(config.n_layer)
        ]

    @property
    def length(self) -> int:
        """Tokens stored, by every layer: a forward pass that broke off halfway does not count."""
        return min(layer.length for layer in self.layers)

    def rows(self, first: int, last: int, length: int) -> KVCache:
        """Rows first … last−1 as a cache of their own in the same memory, `length` tokens full.

        ValueError for rows that are not there, or a length beyond max_length.
        """
        if not 0 <= first < last <= self.buffer.size(2):
            raise ValueError(f"no rows {first} … {last - 1}: there are {self.buffer.size(2)}")
        if not 0 <= length <= self.max_length:
            raise ValueError(f"length = {length} is outside 0 … max_length = {self.max_length}")
        view = object.__new__(KVCache)
        view.max_length = self.max_length
        view.buffer = self.buffer[:, :, first:last]
        view.layers = [LayerCache(keys, values) for keys, values in view.buffer]
        for layer in view.layers:
            layer.length = length
        return view

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. ValueError when fewer are stored."""
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens of {self.length} stored")
        for layer in self.layers:
            layer.length = length

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        self.truncate(0)
