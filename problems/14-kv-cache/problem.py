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
        # TODO 1: keep the memory that is given; nothing in it counts yet
        raise NotImplementedError("TODO 1: LayerCache.__init__")

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new keys and values (B, H, T, D); return all of them, (B, H, S, D), as views.

        ValueError for another shape and where there is no room; then nothing is stored.
        """
        # TODO 2: refuse another shape, and more tokens than there is room for: ValueError
        # TODO 3: store the new ones behind those that are there; keep no graph alive
        # TODO 4: return all that counts, and nothing else
        raise NotImplementedError("TODO 2: LayerCache.append")


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
        # TODO 5: refuse sizes below 1 and max_length > n_positions, which is its default
        # TODO 6: allocate the memory, once, and give each layer its part of it
        raise NotImplementedError("TODO 5: KVCache.__init__")

    @property
    def length(self) -> int:
        """Tokens that every layer holds: a forward pass that broke off halfway does not count."""
        # TODO 7: ask the layers: they differ where a forward pass broke off
        raise NotImplementedError("TODO 7: KVCache.length")

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values, in all layers."""
        # TODO 8: count all layers, keys and values, whether in use or not
        raise NotImplementedError("TODO 8: KVCache.nbytes")

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. ValueError outside 0 … self.length."""
        # TODO 9: shorten every layer; a length that makes no sense changes nothing
        raise NotImplementedError("TODO 9: KVCache.truncate")

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        # TODO 10: forget everything
        raise NotImplementedError("TODO 10: KVCache.reset")


def cached_logits(model: "GPT2Model", cache: KVCache) -> Callable[[Tensor], Tensor]:
    """A `next_logits` for `generate_tokens` that reads each token once: ids (B, T') → (B, V)."""
    # TODO 11: start over with the last max_length tokens when the text is longer than that
    # TODO 12: feed the model what the cache does not hold yet; return the last position's logits
    raise NotImplementedError("TODO 11: cached_logits")
