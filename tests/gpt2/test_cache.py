"""The KV cache: it gives back what it was given, in place, and knows its size."""

from __future__ import annotations

import pytest
import torch
from small_gpt2 import tiny

from gpt2.cache import KVCache

H, D = 5, 4  # tiny's heads


def keys(B: int, T: int, heads: int = H, width: int = D) -> torch.Tensor:
    return torch.randn(B, heads, T, width)


def test_appended_pieces_come_back_in_order() -> None:
    """Catches pieces overwritten, swapped with the values, or mixed between layers."""
    cache = KVCache(tiny().config, 2, 9)
    pieces = [[(keys(2, T), keys(2, T)) for T in (3, 1, 2)] for _ in cache.layers]
    for layer, given in zip(cache.layers, pieces, strict=True):
        for k, v in given:
            found = layer.append(k, v)
    assert cache.length == 6
    for layer, given in zip(cache.layers, pieces, strict=True):
        assert torch.equal(layer.keys[:, :, :6], torch.cat([k for k, _ in given], 2))
        assert torch.equal(layer.values[:, :, :6], torch.cat([v for _, v in given], 2))
    assert torch.equal(found[1], layer.values[:, :, :6])


def test_nothing_is_copied_or_allocated_again() -> None:
    """Catches a cache that grows by concatenation."""
    cache = KVCache(tiny().config, 1)
    layer = cache.layers[2]
    k, v = layer.append(keys(1, 2), keys(1, 2))
    again, _ = layer.append(keys(1, 1), keys(1, 1))
    assert k.data_ptr() == again.data_ptr() == layer.keys.data_ptr()
    assert v.data_ptr() == layer.values.data_ptr()
    assert cache.buffer.is_contiguous()
    assert cache.buffer.numel() == 2 * 3 * 23 * 20


def test_more_than_there_is_room_for() -> None:
    """Catches tokens lost at the end of the memory; what was there stays."""
    cache = KVCache(tiny().config, 1, 4)
    cache.layers[0].append(keys(1, 3), keys(1, 3))
    with pytest.raises(ValueError, match=r"3 tokens stored \+ 2 new = 5 > max_length = 4"):
        cache.layers[0].append(keys(1, 2), keys(1, 2))
    assert cache.layers[0].length == 3
    with pytest.raises(ValueError, match="max_length = 24 > n_positions = 23"):
        KVCache(tiny().config, 1, 24)


@pytest.mark.parametrize("size", [0, -1, True, 2.0])
def test_sizes_that_are_none(size: object) -> None:
    """Catches memory of a negative or fractional size asked for."""
    with pytest.raises(ValueError, match="batch_size"):
        KVCache(tiny().config, size)
    with pytest.raises(ValueError, match="max_length"):
        KVCache(tiny().config, 1, size)


@pytest.mark.parametrize(
    ("k", "v"),
    [
        (keys(3, 2), keys(3, 2)),
        (keys(2, 2, heads=1), keys(2, 2, heads=1)),
        (keys(2, 2, width=3), keys(2, 2, width=3)),
        (keys(2, 2), keys(2, 1)),
        (keys(2, 2)[0], keys(2, 2)[0]),
        (torch.ones(4), torch.ones(4)),
    ],
)
def test_keys_of_another_shape(k: torch.Tensor, v: torch.Tensor) -> None:
    """Catches a shape that broadcasts into the memory in silence."""
    cache = KVCache(tiny().config, 2)
    with pytest.raises(ValueError, match=r"do not fit|keys, but"):
        cache.layers[0].append(k, v)
    assert cache.length == 0


def test_reset_and_truncate() -> None:
    """Catches a cache that remembers, or forgets too much."""
    model = tiny()
    cache = KVCache(model.config, 1)
    ids = torch.arange(9)[None]
    with torch.no_grad():
        model(ids, cache)
        cache.truncate(4)
        torch.testing.assert_close(model(ids[:, 4:6], cache), model(ids[:, :6])[:, 4:])
        assert cache.length == 6
        cache.reset()
        torch.testing.assert_close(model(ids[:, 5:], cache), model(ids[:, 5:]))
    with pytest.raises(ValueError, match="cannot keep 5 tokens of 4"):
        cache.truncate(5)
