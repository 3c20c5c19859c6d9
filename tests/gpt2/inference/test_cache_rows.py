"""Rows of a KV cache in the same memory, and the caches of other people's making."""

from __future__ import annotations

import pytest
import torch
from small_gpt2 import tiny

from gpt2.cache import KVCache, LayerCache
from gpt2.inference.cache_rows import CacheRows, block_of, rows_work


def test_a_cache_of_some_rows() -> None:
    """Catches a copy where a view is meant, and rows that are not there."""
    config = tiny().config
    cache = KVCache(config, 4)
    k, v = torch.randn(2, 2, 5, 3, 4)  # (B, H, T, D) with H = 5 heads of 4
    view = CacheRows(cache, 1, 3)
    assert view.length == 0
    keys, values = view.layers[2].append(k, v)
    assert torch.equal(keys, k)
    assert torch.equal(values, v)
    assert torch.equal(cache.layers[2].keys[1:3, :, :3], k)
    assert not cache.layers[2].keys[[0, 3]].any()
    assert CacheRows(cache, 1, 3, 3).length == 3
    for wrong in ((2, 2, 0), (0, 5, 0), (-1, 2, 0), (0, 1, 24)):
        with pytest.raises(ValueError, match=r"rows|length"):
            CacheRows(cache, *wrong)
    with pytest.raises(ValueError, match="cannot keep 4 tokens of 3"):
        CacheRows(cache, 1, 3, 3).truncate(4)


def test_the_block_is_the_layers_memory() -> None:
    """Catches a fast step that reads and writes where the cache's layers do not look."""
    cache = KVCache(tiny().config, 2)
    assert block_of(cache) is cache.buffer
    assert block_of(CacheRows(cache, 1, 2)).shape == (3, 2, 1, 5, 23, 4)
    cache.layers[-1] = LayerCache(torch.zeros(2, 5, 23, 4), torch.zeros(2, 5, 23, 4))
    assert block_of(cache) is None
    assert block_of(object()) is None


class Copies(LayerCache):
    """A layer that keeps a copy of the memory that it is given."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor):
        super().__init__(keys.clone(), values.clone())


class Grows(LayerCache):
    """A layer that makes new memory for each append."""

    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        n = self.length
        self.keys = torch.cat([self.keys[:, :, :n], k], 2)
        self.values = torch.cat([self.values[:, :, :n], v], 2)
        self.length = self.keys.size(2)
        return self.keys, self.values


class Refuses(LayerCache):
    """A layer that ends the program when it does not know the shape."""

    def append(self, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert k.size(1) == 5, "only five heads"
        return super().append(k, v)


@pytest.mark.parametrize(
    ("layer", "works"), [(LayerCache, True), (Copies, False), (Grows, False), (Refuses, False)]
)
def test_rows_are_tried_before_they_are_used(layer: type[LayerCache], works: bool) -> None:
    """Catches rows whose keys never reach the cache, in a piece that is made in another way."""
    cache = KVCache(tiny().config, 2)
    cache.layers = [layer(old.keys, old.values) for old in cache.layers]
    assert rows_work(cache) is works
