# ── 14 KV cache ── reference: solutions/14-kv-cache.py:1 ──────────────────────────────────────────
"""Problem 14: the KV cache. Keys and values of the tokens already seen, so that each new token
costs one token's work.

The generation loop owns the cache and passes it down: `model(ids, cache)`. Shapes: B batch_size, H
heads, D head_dim, P max_length, T new tokens, S tokens stored after the call, L layers.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gpt2.model import GPT2Config, GPT2Model


class LayerCache:
    """One layer's `keys` and `values` (B, H, P, D), of which the first `length` count."""

    def __init__(self, keys: Tensor, values: Tensor):
        # Step 1: the memory is given; what lies in it does not count yet
        self.keys = keys
        self.values = values
        self.length = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new keys and values (B, H, T, D); return all of them, (B, H, S, D), as views.

        ValueError for another shape and where there is no room; then nothing is stored.
        """
        # Step 2: all that can be wrong is found before anything is written
        B, H, P, D = self.keys.shape
        for name, new in (("keys", k), ("values", v)):
            if new.dim() != 4 or (*new.shape[:2], new.shape[3]) != (B, H, D):
                raise ValueError(
                    f"{name} of shape {tuple(new.shape)} do not fit a cache of "
                    f"(B, H, T, D) = ({B}, {H}, T, {D})"
                )
        if k.size(2) != v.size(2):
            raise ValueError(f"{k.size(2)} keys, but {v.size(2)} values")
        end = self.length + k.size(2)
        if end > P:
            raise ValueError(
                f"{self.length} tokens stored + {k.size(2)} new = {end} > "
                f"max_length = {P} of the KV cache"
            )
        # Step 3: into the memory that is there; detached, or the cache would keep every graph alive
        self.keys[:, :, self.length : end] = k.detach()
        self.values[:, :, self.length : end] = v.detach()
        self.length = end
        # Step 4: what counts, and not the rest of the memory
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """A LayerCache per layer, `layers`, with room for `max_length` tokens, allocated once."""

    def __init__(
        self,
        config: "GPT2Config",
        batch_size: int = 1,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        """max_length: tokens that there is room for (default and limit: config.n_positions)."""
        # Step 5: sizes that make no sense are refused here, not at some later token
        max_length = config.n_positions if max_length is None else max_length
        for name, size in (("batch_size", batch_size), ("max_length", max_length)):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise ValueError(f"{name} must be a positive int, got {size!r}")
        if max_length > config.n_positions:
            raise ValueError(
                f"max_length = {max_length} > n_positions = {config.n_positions}: "
                "there are no such positions"
            )
        # Step 6: one block, so that a fast kernel finds every layer at once; a layer gets its views
        shape = (config.n_layer, 2, batch_size, config.n_head, max_length, config.head_dim)
        self.max_length = max_length
        self.buffer = torch.zeros(shape, device=device, dtype=dtype)
        self.layers = [LayerCache(keys, values) for keys, values in self.buffer]

    @property
    def length(self) -> int:
        """Tokens that every layer holds: a forward pass that broke off halfway does not count."""
        # Step 7: the layers are asked, so that no second number can disagree with them
        return min(layer.length for layer in self.layers)

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values, in all layers."""
        # Step 8: 2 · L · B · max_length · C · itemsize, however few tokens are stored. GPT-2 small,
        # one sequence of 1024, float32: 2 · 12 · 1 · 1024 · 768 · 4 bytes = 75.5 MB
        return self.buffer.nbytes

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. ValueError outside 0 … self.length."""
        # Step 9: nothing is erased, since the next append writes over it
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot keep {length} tokens of {self.length} stored")
        for layer in self.layers:
            layer.length = length

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        # Step 10: keep nothing
        self.truncate(0)


def cached_logits(model: "GPT2Model", cache: KVCache) -> Callable[[Tensor], Tensor]:
    """A `next_logits` for `generate_tokens` that reads each token once: ids (B, T') → (B, V)."""

    @torch.no_grad()
    def next_logits(ids: Tensor) -> Tensor:
        # Step 11: positions start at 0 again when the window slides, so every key is another one
        if ids.size(1) > cache.max_length:
            ids = ids[:, -cache.max_length :]
            cache.reset()
        # Step 12: what is new, by the cache's own length, which the caller may have truncated; one
        # token at least, since the last position's logits come from reading it
        cache.truncate(min(cache.length, ids.size(1) - 1))
        return model(ids[:, cache.length :], cache, last_only=True)[:, -1]

    return next_logits
