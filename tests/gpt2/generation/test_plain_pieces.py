"""Generation on sampling.py and cache.py as somebody else would write them: by the contract's names
only, in the plainest way. The greedy texts are those of the reference, by every path.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLING = """
import torch

def penalize_repetition(logits, seen, penalty):
    out = logits.clone()
    for b in range(len(out)):
        for v in range(out.size(1)):
            if seen[b, v]:
                out[b, v] = out[b, v] * penalty if out[b, v] < 0 else out[b, v] / penalty
    return out

def keep_top_k(logits, k):
    k = min(k, logits.shape[-1])
    limit = torch.sort(logits, descending=True)[0][:, k - 1:k]
    return torch.where(logits >= limit, logits, torch.tensor(float("-inf")))

def keep_top_p(logits, p):
    if p >= 1:
        return logits
    out = torch.full_like(logits, float("-inf"))
    for b, row in enumerate(torch.softmax(logits, -1)):
        total = 0.0
        for v in row.argsort(descending=True).tolist():
            out[b, v] = logits[b, v]
            total += float(row[v])
            if total >= p:
                break
    return out

def sample(logits, generator=None):
    return torch.multinomial(torch.softmax(logits, -1), 1, generator=generator)[:, 0]

def next_token(logits, *, temperature=1.0, top_k=None, top_p=None, repetition_penalty=1.0,
               seen=None, generator=None):
    print("drawn", end=" ")
    if seen is not None:
        logits = penalize_repetition(logits, seen, repetition_penalty)
    if temperature <= 1e-8:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    return sample(logits, generator)

def generate_tokens(next_logits, ids, max_new_tokens, *, temperature=1.0, top_k=None, top_p=None,
                    repetition_penalty=1.0, eos_token_id=None, generator=None):
    done = [False] * len(ids)
    for _ in range(max_new_tokens):
        logits = next_logits(ids)
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        for b, row in enumerate(ids.tolist()):
            seen[b, row] = True
        new = next_token(logits, temperature=temperature, top_k=top_k, top_p=top_p,
                         repetition_penalty=repetition_penalty, seen=seen, generator=generator)
        for b in range(len(new)):
            if done[b]:
                new[b] = eos_token_id
            done[b] = done[b] or int(new[b]) == eos_token_id
        ids = torch.cat([ids, new.unsqueeze(1)], 1)
        yield new
        if all(done):
            break
"""
CACHE = """
import torch

class LayerCache:
    def __init__(self, keys, values):
        self.keys, self.values, self.length = keys, values, 0

    def append(self, k, v):
        print("stored", end=" ")
        T = k.shape[2]
        B, H, _, D = self.keys.shape
        for new in (k, v):
            if tuple(new.shape) != (B, H, T, D):
                raise ValueError(f"shape {tuple(new.shape)}")
        if self.length + T > self.keys.shape[2]:
            raise ValueError(f"{self.length} + {T} > {self.keys.shape[2]}")
        self.keys.narrow(2, self.length, T).copy_(k.detach())
        self.values.narrow(2, self.length, T).copy_(v.detach())
        self.length += T
        return self.keys.narrow(2, 0, self.length), self.values.narrow(2, 0, self.length)

class KVCache:
    def __init__(self, config, batch_size=1, max_length=None, device=None, dtype=None):
        if max_length is None:
            max_length = config.n_positions
        if batch_size < 1 or max_length < 1 or max_length > config.n_positions:
            raise ValueError(f"batch_size {batch_size}, {max_length} of {config.n_positions}")
        self.max_length = max_length
        self.layers = []
        for _ in range(config.n_layer):
            size = batch_size, config.n_head, max_length, config.head_dim
            make = lambda: torch.empty(size, device=device, dtype=dtype)
            self.layers.append(LAYER)

    @property
    def length(self):
        return min(layer.length for layer in self.layers)

    @property
    def nbytes(self):
        return sum(t.numel() * t.element_size() for l in self.layers for t in (l.keys, l.values))

    def truncate(self, length):
        if length < 0 or length > self.length:
            raise ValueError(f"{length} of {self.length}")
        for layer in self.layers:
            layer.length = length

    def reset(self):
        self.truncate(0)

def cached_logits(model, cache):
    def next_logits(ids):
        if ids.shape[1] > cache.max_length:
            cache.reset()
            ids = ids[:, -cache.max_length:]
        return model(ids[:, cache.length:], cache=cache, last_only=True)[:, -1, :]
    return next_logits
"""
# a layer that keeps its own memory, so that rows of it can't be had as a view
APART = CACHE.replace(
    "self.keys, self.values, self.length = keys, values, 0",
    "self.keys, self.values, self.length = keys.clone(), values.clone(), 0",
)

WRITE = """
import contextlib, io, json, sys, types
sys.path[:0] = [HELPERS]
for name, source in SOURCES.items():
    module = types.ModuleType(name)
    exec(source, module.__dict__)
    sys.modules[name] = module
import torch
from small_gpt2 import prompt, tiny
from gpt2.generation.generating import generate, generate_batch
from gpt2.generation.speculative import speculate
from gpt2.inference.engine import prepare
from gpt2.bench.generation import measure_cache

model, found, said = tiny(), {}, io.StringIO()
with contextlib.redirect_stdout(said):
    ids = prompt(3, 5)
    for name, options in {
        "alone": {}, "uncached": {"use_cache": False}, "sliding": {"sliding": True},
        "penalty": {"repetition_penalty": 1.3}, "one end": {"eos_token_id": 40},
        "ends": {"eos_token_id": [3, 40, 71]}, "never": {"never": [1, 2, 40]},
    }.items():
        n = 30 if name == "sliding" else 12
        found[name] = generate(model, ids, n, temperature=0.0, **options).tolist()
    prompts = [*prompt(2, 4), *prompt(2, 6), prompt(1, 9)[0], prompt(1, 4)[0]]
    for name, options in {
        "batch": {}, "batch uncached": {"use_cache": False}, "batch sliding": {"sliding": True},
        "batch penalty": {"repetition_penalty": 1.3}, "batch ends": {"eos_token_id": [3, 40]},
    }.items():
        n = 25 if name == "batch sliding" else 9
        rows = generate_batch(model, prompts, n, temperature=0.0, **options)
        found[name] = [row.tolist() for row in rows]
    guessed = speculate(model, tiny(), prompt(1, 5), 12, temperature=0.0)
    found["speculation"] = [list(piece) for piece in guessed]
    with prepare(model):
        found["prepared"] = generate(model, ids, 12, temperature=0.0).tolist()
        rows = generate_batch(model, prompts, 9, temperature=0.0)
        found["prepared batch"] = [row.tolist() for row in rows]
    draws = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    drawn = generate_batch(model, prompts, 9, top_k=9, top_p=0.8, generators=draws)
    alone = [
        generate(model, p[None], 9, top_k=9, top_p=0.8, generator=torch.Generator().manual_seed(i))
        for i, p in enumerate(prompts)
    ]
    found["drawn as alone"] = [a[0].tolist() == b.tolist() for a, b in zip(alone, drawn)]
    torch.manual_seed(0)
    list(speculate(model, tiny(), prompt(1, 5), 12, top_p=0.9))
found["ran"] = sorted(set(said.getvalue().split()))
print(json.dumps(found))
"""


def written(sources: dict[str, str]) -> dict:
    """What all paths write in a process in which these modules stand for gpt2's own."""
    helpers = str(Path(__file__).resolve().parents[2])
    code = f"HELPERS, SOURCES = {helpers!r}, {sources!r}\n{WRITE}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reference() -> dict:
    return written({})


@pytest.mark.parametrize(
    ("cache", "sampling"),
    [
        (CACHE.replace("LAYER", "LayerCache(make(), make())"), SAMPLING),
        (APART.replace("LAYER", "LayerCache(make(), make())"), ""),
    ],
    ids=["lists of tensors, loops", "memory of its own"],
)
def test_plain_pieces_write_what_the_reference_writes(
    cache: str, sampling: str, reference: dict
) -> None:
    """Catches a path that needs more of a piece than the contract says, or that passes it by."""
    sources = {"gpt2.cache": cache} | ({"gpt2.sampling": sampling} if sampling else {})
    found = written(sources)
    assert found.pop("ran") == (["drawn", "stored"] if sampling else ["stored"])
    assert reference["ran"] == []
    assert found == {name: text for name, text in reference.items() if name != "ran"}
    assert all(found["drawn as alone"])
