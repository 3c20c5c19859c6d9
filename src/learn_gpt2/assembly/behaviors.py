"""What the files of part two do, in numbers that can be compared with the reference's.

Every function takes a file's module and a tiny GPT-2 with known weights, and yields what it looks
at by name. It compares what must come out the same whichever right way a piece goes: random draws
are counted, and no tensor is looked at that the contract leaves to the piece.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Seen = Iterator[tuple[str, Any]]
DRAWS = 4000
FREQUENCY = 0.06  # how far a frequency may be off: seven standard deviations of DRAWS draws


@dataclass(frozen=True)
class Frequencies:
    """How often each token was drawn; equal within FREQUENCY."""

    values: Tensor


def _random(*shape: int, seed: int = 0) -> Tensor:
    import torch

    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _ids(*shape: int, seed: int = 0) -> Tensor:
    import torch

    return torch.randint(61, shape, generator=torch.Generator().manual_seed(seed))


def sampling(piece: ModuleType, model) -> Seen:
    """Problem 13: what narrows the choice, the choice, and a text without chance."""
    import torch

    logits = _random(3, 61, seed=1) * 2
    seen = _random(3, 61, seed=2) > 0.5
    yield "the logits after the penalty", piece.penalize_repetition(logits, seen, 1.7)
    yield "the logits that top-k keeps", piece.keep_top_k(logits, 4)
    yield "the logits that top-p keeps", piece.keep_top_p(logits, 0.7)
    generator = torch.Generator().manual_seed(3)
    few = logits[:1, :5].expand(DRAWS, 5).contiguous()
    drawn = piece.sample(few, generator=generator)
    yield "the frequencies of the draws", Frequencies(torch.bincount(drawn, minlength=5) / DRAWS)
    options = {"temperature": 0.5, "top_k": 3, "generator": generator}
    drawn = piece.next_token(few, **options)
    yield "the frequencies of next_token", Frequencies(torch.bincount(drawn, minlength=5) / DRAWS)
    options = {"repetition_penalty": 1.4, "seen": seen, "temperature": 0.0}
    yield "the likeliest tokens after the penalty", piece.next_token(logits, **options)
    tokens = piece.generate_tokens(
        lambda ids: model(ids)[:, -1], _ids(2, 4, seed=4), 8, temperature=0.0, eos_token_id=7
    )
    yield "the greedy text", torch.stack(list(tokens))


def cache(piece: ModuleType, model) -> Seen:
    """Problem 14: what is read back, the logits of a growing text, cut back, and the memory."""
    import torch

    whole = piece.KVCache(model.config, batch_size=2)
    yield "the cache's bytes", torch.tensor(float(whole.nbytes))
    keys, values = _random(2, 4, 5, 6, seed=1), _random(2, 4, 5, 6, seed=2)
    layer = piece.LayerCache(torch.zeros(2, 4, 9, 6), torch.zeros(2, 4, 9, 6))
    layer.append(keys[:, :, :2], values[:, :, :2])
    got = layer.append(keys[:, :, 2:], values[:, :, 2:])
    yield "the keys that come back", got[0].clone()
    yield "the values that come back", got[1].clone()
    next_logits, text = piece.cached_logits(model, whole), _ids(2, 11, seed=3)
    yield "the first next logits", next_logits(text[:, :4])
    yield "the next logits of a longer text", next_logits(text[:, :7])
    whole.truncate(2)
    yield "the next logits after cutting back", next_logits(text)
    whole.reset()
    yield "the length after reset", torch.tensor(float(whole.length))
    few = piece.KVCache(model.config, batch_size=2, max_length=5)
    yield "the next logits of a text that is too long", piece.cached_logits(model, few)(text)


def training_step(piece: ModuleType, model) -> Seen:
    """Problem 15: examples, the loss, the schedule, and the weights after one step."""
    import torch

    pairs = (([5, 9, 7], [7, 3]), ([4], [8, 1, 6]), ([2, 2, 2, 2, 2, 2], [1, 9]))
    examples = [piece.build_example(prompt, answer, 7, 6) for prompt, answer in pairs]
    for (inputs, targets), (prompt, _) in zip(examples, pairs, strict=True):
        yield f"the inputs for a prompt of {len(prompt)}", torch.tensor(inputs)
        yield f"the targets for a prompt of {len(prompt)}", torch.tensor(targets)
    inputs, targets = piece.collate(examples, 3)
    yield "the collated inputs", inputs
    yield "the collated targets", targets
    total, count = piece.masked_loss(model(inputs), targets)
    yield "the summed loss", total
    yield "the number of targets", torch.as_tensor(count).float()
    steps = {"peak": 0.3, "warmup_steps": 4, "max_steps": 11}
    rates = [float(piece.learning_rate(step, **steps)) for step in range(14)]
    yield "the learning rates", torch.tensor(rates)
    model.train()  # without dropout nothing is left to chance, and the mode stays
    groups = piece.parameter_groups(model, 0.1)
    optimizer = torch.optim.SGD(groups, lr=0.05)
    parts = [piece.collate(part, 3) for part in (examples[:1], examples[1:])]
    loss, norm = piece.train_step(model, optimizer, parts, grad_clip=0.5)
    yield "the step's loss", torch.as_tensor(loss).float()
    yield "the step's norm", torch.as_tensor(norm).float()
    for name, parameter in model.named_parameters():
        yield f"{name} after a step", parameter.detach()


def lora(piece: ModuleType, model) -> Seen:
    """Problem 16: the adapted output, what is trained, and the merged model."""
    import torch

    from learn_gpt2.checking.checks import fill

    ids = _ids(2, 5, seed=1)
    piece.add_lora(model, rank=3, alpha=5)
    yield "the logits at first", model(ids)
    trained = sorted(n for n, p in model.named_parameters() if p.requires_grad)
    yield "the trained parameters", trained
    state = piece.adapter_state(model)
    yield "the adapter's names", sorted(state)
    fill_in = {name: _random(*t.shape, seed=len(name)) for name, t in sorted(state.items())}
    piece.load_adapter_state(model, fill_in)
    yield "the logits with an adapter", model(ids)
    layer = fill(torch.nn.Linear(6, 4))
    one = piece.LoRALinear(layer, 2, 3)
    with torch.no_grad():
        one.lora_B.weight.copy_(_random(4, 2, seed=4))
        one.lora_A.weight.copy_(_random(2, 6, seed=5))
    yield "the output of a layer", one(_random(3, 6, seed=6))
    piece.merge_lora(model)
    yield "the logits after merging", model(ids)


def quantization(piece: ModuleType, model) -> Seen:
    """Problem 17: scales, rounded weights, packed ones, and the model's logits."""
    weight = _random(5, 12, seed=1)
    for bits, group in ((8, None), (8, 4), (4, 6)):
        scale = piece.absmax_scale(weight, bits, group)
        what = f"at {bits} bits" + (f" in groups of {group}" if group else "")
        yield f"the scales {what}", scale
        q = piece.quantize(weight, scale, bits)
        yield f"the rounded weights {what}", q.float()
        yield f"the weights that come back {what}", piece.dequantize(q, scale)
    yield "the packed weights", piece.pack_int4(q).float()
    yield "the unpacked weights", piece.unpack_int4(piece.pack_int4(q)).float()
    ids = _ids(2, 5, seed=2)
    for bits in (8, 4):
        small = copy.deepcopy(model)
        yield f"the layers at {bits} bits", sorted(piece.quantize_model(small, bits=bits))
        yield f"the logits at {bits} bits", small(ids)


class Twins:
    """Two ranks of which one is seen; the other has the same numbers, so that a mean changes
    nothing and a sum is twice as much.
    """

    rank, size = 0, 2

    def broadcast(self, tensor: Tensor, source: int = 0) -> None:
        """It is there already."""

    def all_reduce(self, tensor: Tensor) -> Twins:
        """The sum of two equal tensors."""
        tensor.mul_(2)
        return self

    def wait(self) -> None:
        """It is done already."""


def data_parallel(piece: ModuleType, model) -> Seen:
    """Problem 18: who gets what, and gradients that two equal ranks agree on."""
    import torch

    batch = _ids(6, 5, seed=1)
    both = torch.cat([piece.shard(batch, rank, 2) for rank in range(2)])
    yield "the examples of both ranks", both.sort(0).values  # who gets which is the piece's choice
    model(batch).logsumexp(-1).sum().backward()
    piece.average_gradients(model.parameters(), Twins(), bucket_bytes=4000)
    yield "averaged gradients", _gradients(model)
    model.zero_grad(set_to_none=True)
    parallel = piece.DataParallel(model, Twins(), bucket_bytes=4000)
    with parallel.no_sync():
        parallel(batch[:2]).logsumexp(-1).sum().backward()
    parallel(batch[2:]).logsumexp(-1).sum().backward()
    parallel.finish()
    yield "the gradients of two batches", _gradients(model)


def _gradients(model) -> Tensor:
    import torch

    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


OF: dict[str, Callable[[ModuleType, Any], Seen]] = {
    "sampling.py": sampling,
    "cache.py": cache,
    "training_step.py": training_step,
    "lora.py": lora,
    "quantization.py": quantization,
    "data_parallel.py": data_parallel,
}
NO_GRAPH = ("sampling.py", "cache.py", "lora.py", "quantization.py")  # looked at without gradients
# how the names of single things end: "… differs", and not "… differ"
SINGULAR = (
    *("text", "loss", "norm", "after a step", "number of targets"),
    *("output of a layer", "length after reset"),
)
