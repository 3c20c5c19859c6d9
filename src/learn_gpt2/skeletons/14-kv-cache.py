"""Problem 14: the KV cache. Keys and values of the tokens already seen, so that each new token
costs one token's work.

Whoever generates owns the cache and passes it down: `model(ids, cache)`. Shapes: B batch_size, H
heads, D head_dim, P max_length, T new tokens, S tokens stored after the call, L layers.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class LayerCache:
    """One layer's keys and values: two tensors (B, H, P, D), of which the first `length` positions
    count. Attributes: `keys`, `values`, `length`.
    """

    def __init__(self, keys: Tensor, values: Tensor):
        # TODO 1: keep the memory that is given; nothing in it counts yet
        raise NotImplementedError("TODO 1: LayerCache.__init__")

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store T new keys and values (B, H, T, D); return all of them, (B, H, S, D), as views."""
        # TODO 2: refuse another shape, and more tokens than there is room for, with a ValueError
        # TODO 3: store the new ones behind those that are there; keep no graph alive
        # TODO 4: return all that counts
        raise NotImplementedError("TODO 2: LayerCache.append")


class KVCache:
    """A `LayerCache` per layer. Attributes: `layers`, `max_length`."""

    def __init__(
        self,
        config,
        batch_size: int = 1,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        """config: a GPT2Config (n_layer, n_head, head_dim, n_positions)."""
        # TODO 5: refuse sizes below 1 and max_length > n_positions (which is the default)
        # TODO 6: allocate the memory, once, and give each layer its part
        raise NotImplementedError("TODO 5: KVCache.__init__")

    @property
    def length(self) -> int:
        """Tokens that every layer holds."""
        # TODO 7: ask the layers; they can differ where a forward pass broke off
        raise NotImplementedError("TODO 7: KVCache.length")

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        # TODO 8: of all layers, however little of it counts
        raise NotImplementedError("TODO 8: KVCache.nbytes")

    def truncate(self, length: int) -> None:
        """Forget all but the first `length` tokens. ValueError outside 0 … self.length."""
        # TODO 9: in every layer
        raise NotImplementedError("TODO 9: KVCache.truncate")

    def reset(self) -> None:
        """Forget everything; the memory stays allocated."""
        # TODO 10: keep nothing
        raise NotImplementedError("TODO 10: KVCache.reset")


def cached_logits(model, cache: KVCache) -> Callable[[Tensor], Tensor]:
    """A `next_logits` for `generate_tokens`, which reads each token once: ids (B, T') → (B, V)."""
    # TODO 11: a text longer than max_length starts over with its last max_length tokens
    # TODO 12: feed the model the tokens that the cache does not hold; return the last logits
    raise NotImplementedError("TODO 11: cached_logits")
