"""The KV cache: it gives back what it was given, in place, and knows its size."""

from __future__ import annotations

import pytest
import torch
from small_gpt2 import tiny

from gpt2.cache import KVCache, cached_logits
from gpt2.model import GPT2Config

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


class Counted(torch.nn.Module):
    """A model that counts the tokens which it reads."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model, self.read = model, []

    def forward(self, ids: torch.Tensor, cache=None, last_only: bool = False) -> torch.Tensor:
        self.read.append(ids.size(1))
        return self.model(ids, cache, last_only)


def uncached(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(ids)[:, -1]


def test_each_token_is_read_once() -> None:
    """Catches a prompt that is read again: T + n − 1 tokens in all, and the logits of the whole."""
    model, ids = tiny(), torch.arange(18).view(2, 9)
    counted = Counted(model)
    reads = cached_logits(counted, KVCache(model.config, 2))
    for T in range(4, 10):
        torch.testing.assert_close(reads(ids[:, :T]), uncached(model, ids[:, :T]))
    assert counted.read == [4, 1, 1, 1, 1, 1]


def test_the_cache_says_what_is_to_be_read() -> None:
    """Catches a count of the function's own: the caller truncates, resets, or asks again."""
    model, ids, other = tiny(), torch.arange(9)[None], torch.arange(20, 29)[None]
    counted = Counted(model)
    cache = KVCache(model.config, 1)
    reads = cached_logits(counted, cache)
    reads(ids[:, :7])
    cache.truncate(3)
    mixed = torch.cat([ids[:, :3], other[:, 3:8]], 1)
    torch.testing.assert_close(reads(mixed), uncached(model, mixed))
    torch.testing.assert_close(reads(mixed), uncached(model, mixed))  # the same text once more
    cache.reset()
    torch.testing.assert_close(reads(other), uncached(model, other))
    assert counted.read == [7, 5, 1, 9]


def test_a_pass_that_broke_off_is_made_good() -> None:
    """Catches layers out of step after an interruption: the token is read again, by all of them."""
    model, ids = tiny(), torch.arange(9)[None]
    cache = KVCache(model.config, 1)
    reads = cached_logits(model, cache)
    reads(ids[:, :5])
    broken = model.h[1].register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        reads(ids[:, :7])
    broken.remove()
    assert [layer.length for layer in cache.layers] == [7, 5, 5]
    torch.testing.assert_close(reads(ids), uncached(model, ids))
    assert [layer.length for layer in cache.layers] == [9, 9, 9]


def test_a_text_longer_than_the_cache() -> None:
    """Catches stale positions once the window moves, and one that moves too early."""
    model, ids = tiny(), torch.arange(12)[None]
    counted = Counted(model)
    reads = cached_logits(counted, KVCache(model.config, 1, 8))
    for T in range(7, 13):
        torch.testing.assert_close(reads(ids[:, :T]), uncached(model, ids[:, max(0, T - 8) : T]))
    assert counted.read == [7, 1, 8, 8, 8, 8]


def test_it_agrees_with_hugging_faces_cache() -> None:
    """Catches a misunderstanding that our model and our cache share: theirs is DynamicCache."""
    from transformers import DynamicCache

    layer = KVCache(tiny().config, 2).layers[0]
    theirs = DynamicCache()
    for T in (3, 1, 2):
        k, v = keys(2, T), keys(2, T)
        for found, want in zip(layer.append(k, v), theirs.update(k, v, 0), strict=True):
            assert torch.equal(found, want)


def test_what_is_allocated() -> None:
    """Catches bytes of what is stored, of one layer, or of another dtype."""
    for dtype, size in ((torch.float32, 4), (torch.bfloat16, 2), (torch.float64, 8)):
        cache = KVCache(tiny().config, 3, 7, dtype=dtype)
        assert cache.nbytes == 2 * 3 * 3 * 7 * 20 * size
    assert KVCache(GPT2Config(), device="meta").nbytes == 75_497_472
