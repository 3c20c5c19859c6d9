"""Generation: the same text by every path, Hugging Face's sampling rules, nothing left behind."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_gpt2 import prompt, tiny
from torch import nn

from gpt2.cache import KVCache
from gpt2.generation.filters import tokens_seen
from gpt2.generation.generating import decode_step, filter_logits, generate, prefill, stream
from gpt2.inference.engine import WORTH_SLICING, Inference, Slices
from gpt2.sampling import keep_top_k, keep_top_p, next_token, penalize_repetition, sample


def by_hand(model: nn.Module, ids: torch.Tensor, n: int) -> torch.Tensor:
    """Greedy text by whole forward passes over the last P tokens: the oracle."""
    with torch.no_grad():
        for _ in range(n):
            logits = model(ids[:, -model.config.n_positions :])[:, -1]
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids


# ------------------------------------------------------------------------------------- same text


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("B", [1, 3])
def test_greedy_is_the_argmax_of_each_step(B: int, use_cache: bool) -> None:
    """Catches a position, a cache row or a step that is off by one."""
    model, ids = tiny(), prompt(B, 5)
    found = generate(model, ids, 18, temperature=0.0, use_cache=use_cache)
    assert torch.equal(found, by_hand(model, ids, 18))
    assert len(set(found[0].tolist())) > 5  # a text that varies, or it would prove little


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("T", [5, 23, 40])
def test_sliding_reads_the_last_tokens_that_fit(T: int, use_cache: bool) -> None:
    """Catches stale positions past the context's end, and a cache that differs from none there."""
    model, ids = tiny(), prompt(2, T)
    found = generate(model, ids, 30, temperature=0.0, use_cache=use_cache, sliding=True)
    assert torch.equal(found, by_hand(model, ids, 30))


@pytest.mark.parametrize("piece", [1, 2, 3, 7, 11])
def test_a_prompt_in_pieces(piece: int) -> None:
    """Catches a causal mask that forgets what is in the cache."""
    model, ids = tiny(), prompt(2, 11)
    cache = KVCache(model.config, 2)
    for start in range(0, 11, piece):
        logits = prefill(model, ids[:, start : start + piece], cache)
    torch.testing.assert_close(logits, prefill(model, ids))
    tokens = logits.argmax(-1)
    longer = torch.cat([ids, tokens[:, None]], 1)
    torch.testing.assert_close(decode_step(model, tokens, cache), prefill(model, longer))


def test_the_stream_is_what_generate_returns() -> None:
    """Catches two loops that drift apart."""
    model, ids = tiny(), prompt(3)
    steps = list(stream(model, ids, 9, temperature=0.0))
    assert all(step.shape == (3,) and step.dtype == torch.int64 for step in steps)
    assert torch.equal(torch.stack(steps, 1), generate(model, ids, 9, temperature=0.0)[:, 7:])


@pytest.mark.parametrize("use_cache", [True, False])
def test_same_seed_same_text(use_cache: bool) -> None:
    """Catches sampling from the global generator, or at another rate with the cache."""
    model, ids = tiny(), prompt()

    def draw(seed: int, use_cache: bool = use_cache) -> list[int]:
        torch.rand(seed)  # moves the global generator, which must not matter
        generator = torch.Generator().manual_seed(seed)
        return generate(model, ids, 12, generator=generator, use_cache=use_cache).tolist()

    assert draw(3) == draw(3) == draw(3, not use_cache)
    assert draw(3) != draw(4)


def test_the_prompt_is_included_and_untouched() -> None:
    """Catches a prompt changed in place, or left out of the result."""
    ids = prompt()
    before = ids.clone()
    found = generate(tiny(), ids, 4)
    assert torch.equal(found[:, :7], before)
    assert torch.equal(ids, before)
    assert found.shape == (2, 11)
    assert torch.equal(generate(tiny(), ids, 0), before)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_any_integer_type(dtype: torch.dtype) -> None:
    """Catches an embedding's own error for ids that are not int64."""
    found = generate(tiny(), prompt().to(dtype), 4, temperature=0.0)
    assert torch.equal(found, generate(tiny(), prompt(), 4, temperature=0.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Catches a cache or a sampler that insists on float32."""
    assert generate(tiny().to(dtype), prompt(), 6, top_p=0.9).shape == (2, 13)


# -------------------------------------------------------------------------------------- end token


def test_finished_rows_stay_finished() -> None:
    """Catches a row that speaks again after its end, and one cut short because another ended."""
    model, ids = tiny(), prompt(4)
    free = generate(model, ids, 16, temperature=0.0)
    new = free[:, 7:].tolist()
    eos = next(t for t in new[0] if sum(t in row for row in new) < 4)  # not all rows meet it
    found = generate(model, ids, 16, temperature=0.0, eos_token_id=eos)
    for row, expected in zip(found[:, 7:].tolist(), new, strict=True):
        stop = expected.index(eos) + 1 if eos in expected else len(expected)
        assert row[:stop] == expected[:stop]
        assert set(row[stop:]) <= {eos}
    assert found.shape == free.shape


def test_all_finished_is_the_end() -> None:
    """Catches forward passes for rows that are all done."""
    model, ids = tiny(), prompt(1)
    eos = int(generate(model, ids, 1, temperature=0.0)[0, -1])
    assert generate(model, ids, 16, temperature=0.0, eos_token_id=eos).shape == (1, 8)
    assert len(list(stream(model, ids, 16, temperature=0.0, eos_token_id=eos))) == 1


# ---------------------------------------------------------------------------------- rules of choice


def logits_and_ids() -> tuple[torch.Tensor, torch.Tensor]:
    """Logits with ties, an extreme and both signs, and the ids that came before."""
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(5, 31, generator=g) * 3
    logits[0, :9] = 2.0
    logits[1, 4] = 60.0
    return logits, torch.randint(31, (5, 12), generator=g)


@pytest.mark.parametrize("temperature", [1.0, 0.3, 2.5])
@pytest.mark.parametrize("top_k", [None, 1, 3, 31, 500])
@pytest.mark.parametrize("top_p", [None, 1e-6, 0.3, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("penalty", [1.0, 1.3, 0.7])
def test_filters_agree_with_hugging_face(
    temperature: float, top_k: int | None, top_p: float | None, penalty: float
) -> None:
    """Catches another order of the filters, another side of p, another sign of the penalty."""
    from transformers.generation import logits_process as theirs

    logits, ids = logits_and_ids()
    chain: list[Callable] = [theirs.TemperatureLogitsWarper(temperature)]
    if penalty != 1.0:
        chain.insert(0, theirs.RepetitionPenaltyLogitsProcessor(penalty))
    if top_k is not None:
        chain.append(theirs.TopKLogitsWarper(top_k))
    if top_p not in (None, 1.0):  # where their `generate` leaves it out too
        chain.append(theirs.TopPLogitsWarper(top_p))
    expected = logits.clone()
    for process in chain:
        expected = process(ids, expected)
    seen = torch.zeros(5, 31, dtype=torch.bool).scatter_(1, ids, True)
    found = filter_logits(
        logits,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=penalty,
        seen=seen,
    )
    torch.testing.assert_close(found, expected)
    assert (found > -math.inf).any(-1).all()


def test_top_p_keeps_the_token_that_crosses() -> None:
    """Catches p read as an upper limit; probabilities 0.5, 0.3, 0.2 by hand."""
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    kept = {p: (keep_top_p(logits, p) > -math.inf)[0].tolist() for p in (0.4, 0.6, 0.9)}
    assert kept[0.4] == [False, True, False]
    assert kept[0.6] == [False, True, True]
    assert kept[0.9] == [True, True, True]


@pytest.mark.parametrize("spread", [0.01, 1.0, 4.0, 30.0])
def test_top_p_in_a_large_vocabulary(spread: float) -> None:
    """Catches a nucleus larger than the shortcut's being cut, and rows that disturb one another."""
    g = torch.Generator().manual_seed(3)
    logits = torch.randn(3, 5003, generator=g) * torch.tensor([[spread], [9.0], [0.5]])
    for p in (0.5, 0.95):
        for row, kept in zip(logits, keep_top_p(logits, p), strict=True):
            chances = row.double().softmax(-1)
            inside = kept > -math.inf
            mass, least = chances[inside].sum(), chances[inside].min()
            assert mass >= p - 1e-5  # they reach p …
            assert mass - least < p + 1e-5  # … none can be spared …
            assert chances[~inside].max() <= least  # … and none left out is likelier
            assert torch.equal(kept[inside], row[inside])


def test_top_k_keeps_k() -> None:
    """Catches k − 1 or k + 1."""
    logits, _ = logits_and_ids()
    assert (keep_top_k(logits[2:], 4) > -math.inf).sum(-1).tolist() == [4, 4, 4]


def test_a_penalty_counts_prompt_and_new_tokens() -> None:
    """Catches a penalty on the prompt alone, or forgotten after a step: at 1e6 nothing repeats."""
    model = tiny()
    with torch.no_grad():  # all logits positive, so that the penalty always lowers
        model.ln_f.weight.mul_(0.02)
    found = generate(model, prompt(2, 3), 15, temperature=0.0, repetition_penalty=1e6).tolist()
    plain = generate(model, prompt(2, 3), 15, temperature=0.0).tolist()
    assert all(len(set(row)) == 18 for row in found)
    assert any(len(set(row)) < 18 for row in plain)
    logits = torch.tensor([[2.0, -2.0, 2.0]])
    seen = torch.tensor([[True, True, False]])
    assert penalize_repetition(logits, seen, 4.0).tolist() == [[0.5, -8.0, 2.0]]


def test_sampling_follows_the_probabilities() -> None:
    """Catches a draw that ignores the logits: 20,000 draws, within five standard deviations."""
    p = torch.tensor([0.6, 0.25, 0.1, 0.05])
    generator = torch.Generator().manual_seed(0)
    drawn = sample(p.log().expand(20_000, 4), generator)
    share = torch.bincount(drawn, minlength=4) / 20_000
    assert ((share - p).abs() < 5 * (p * (1 - p) / 20_000).sqrt()).all()


@pytest.mark.parametrize(("u", "expected"), [(0.0, 1), (0.2499, 1), (0.2501, 3), (0.9999, 3)])
def test_a_draw_is_where_the_sum_passes_u(
    u: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a token that is left out being drawn, first, last or between."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, u, dtype=torch.float64))
    assert sample(torch.tensor([[0.0, 0.5, 0.0, 1.5, 0.0]]).log()).tolist() == [expected]


def test_a_draw_stays_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an index past the end where u times the total rounds up to the total."""
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.ones(size, dtype=torch.float64))
    for V in (2, 3, 50_257):
        weights = torch.full((2, V), 0.1)
        weights[1, -1] = 0.0
        assert sample(weights.log()).tolist() == [V - 1, V - 2]


def test_rows_draw_apart() -> None:
    """Catches one number for all rows, and a draw that is not what the seed says."""
    logits = torch.ones(64, 1000)
    first, again = (sample(logits, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first, again)
    assert len(set(first.tolist())) > 32


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-8, 1e-9])
def test_greedy_temperatures(temperature: float) -> None:
    """Catches a division by zero, and a draw where the largest is meant."""
    logits, _ = logits_and_ids()
    found = next_token(logits, temperature=temperature, top_k=2)
    assert torch.equal(found, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("top_p", [None, 0.7])
@pytest.mark.parametrize("penalty", [1.0, 1.3])
def test_a_draw_is_from_what_the_filters_leave(
    temperature: float, top_k: int | None, top_p: float | None, penalty: float
) -> None:
    """Catches a distribution, as speculation uses it, that is not the one `next_token` draws from:
    with one seed, both choose the same.
    """
    logits, ids = logits_and_ids()
    seen = tokens_seen(ids, 31)
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seen": seen}
    options["repetition_penalty"] = penalty
    left = filter_logits(logits, **options)
    for seed in range(20):
        first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
        expected = left.argmax(-1) if temperature == 0 else sample(left, first)
        assert torch.equal(next_token(logits, **options, generator=second), expected)


@pytest.mark.parametrize("temperature", [2e-8, 1e-5, 1e20, np.float32(0.5), 10**20])
def test_extreme_temperatures(temperature: float) -> None:
    """Catches an overflow, and numbers that are not Python's own being refused."""
    assert generate(tiny(), prompt(), 3, temperature=temperature, top_p=0.9).shape == (2, 10)


# --------------------------------------------------------------------------------------- bad input

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": -0.1}, "temperature.*-0.1"),
        ({"temperature": NAN}, "temperature.*nan"),
        ({"temperature": INF}, "temperature.*inf"),
        ({"temperature": "1"}, "temperature.*'1'"),
        ({"temperature": None}, "temperature"),
        ({"temperature": 10**400}, "temperature"),
        ({"top_k": 0}, "top_k.*0"),
        ({"top_k": -3}, "top_k.*-3"),
        ({"top_k": 2.5}, r"top_k.*2\.5"),
        ({"top_k": True}, "top_k.*True"),
        ({"top_p": 0.0}, r"top_p.*0\.0"),
        ({"top_p": 1.1}, r"top_p.*1\.1"),
        ({"top_p": NAN}, "top_p.*nan"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty.*0\.0"),
        ({"repetition_penalty": -1}, "repetition_penalty.*-1"),
        ({"repetition_penalty": NAN}, "repetition_penalty.*nan"),
        ({"eos_token_id": 97}, "eos_token_id.*97"),
        ({"eos_token_id": -1}, "eos_token_id.*-1"),
        ({"eos_token_id": 1.0}, r"eos_token_id.*1\.0"),
        ({"max_new_tokens": -1}, "max_new_tokens.*-1"),
        ({"max_new_tokens": 2.0}, r"max_new_tokens.*2\.0"),
        ({"max_new_tokens": True}, "max_new_tokens.*True"),
        ({"max_new_tokens": 17}, "7 prompt tokens.*17 new.*24 > n_positions = 23"),
        ({"input_ids": prompt(1, 23)}, "n_positions = 23"),
        ({"input_ids": prompt(1, 24)}, "n_positions = 23"),
        ({"input_ids": torch.tensor([[1, 97]])}, "token id 97.*0 … 96"),
        ({"input_ids": torch.tensor([[1, -1]])}, "token id -1"),
        ({"input_ids": torch.zeros(0, 3, dtype=torch.long)}, r"\(0, 3\)"),
        ({"input_ids": torch.zeros(3, 0, dtype=torch.long)}, r"\(3, 0\)"),
        ({"input_ids": torch.tensor([1, 2])}, r"\(2,\)"),
        ({"input_ids": torch.ones(1, 2)}, "float32"),
        ({"input_ids": torch.ones(1, 2, dtype=torch.bool)}, "bool"),
        ({"input_ids": torch.ones(1, 2, dtype=torch.complex64)}, "complex64"),
        ({"input_ids": [[1, 2]]}, "list"),
        ({"input_ids": None}, "NoneType"),
    ],
)
@pytest.mark.parametrize("function", [generate, stream])
def test_bad_input_is_refused_before_anything_runs(function, options: dict, named: str) -> None:
    """Catches an error that comes late (from `stream`, not before the first token) or not at
    all.
    """
    model = tiny()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    arguments = {"input_ids": prompt(1), "max_new_tokens": 3} | options
    with pytest.raises(ValueError, match=named):
        function(model, arguments.pop("input_ids"), arguments.pop("max_new_tokens"), **arguments)


@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights(value: float, temperature: float) -> None:
    """Catches a token chosen from NaN, or PyTorch's own error about probabilities."""
    model = tiny()
    with torch.no_grad():
        model.ln_f.bias[0] = value
    with pytest.raises(ValueError, match="not finite"):
        generate(model, prompt(), 3, temperature=temperature)


# ---------------------------------------------------------------------------------- nothing is left


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_left_as_found(training: bool) -> None:
    """Catches a model that no longer trains, also one whose parts were set differently."""
    model = tiny().train(training)
    model.h[1].eval()
    before = modes(model)
    generate(model, prompt(), 3)
    assert modes(model) == before


def test_dropout_is_off_while_generating() -> None:
    """Catches text made in training mode."""
    model = tiny().train()
    expected = generate(tiny(), prompt(), 9, temperature=0.0)
    assert torch.equal(generate(model, prompt(), 9, temperature=0.0), expected)


def test_a_stream_left_early_leaves_nothing() -> None:
    """Catches eval mode, switched-off gradients or swapped layers seen between tokens."""
    model = tiny(n_embd=260, n_head=4).train()  # 3·260·260: large enough to be sliced
    before = modes(model)
    steps = stream(model, prompt(), 9)
    next(steps)
    next(steps)
    assert modes(model) == before
    assert torch.is_grad_enabled()
    assert not any("forward" in module.__dict__ for module in model.modules())
    steps.close()
    assert modes(model) == before


def test_two_streams_of_one_model() -> None:
    """Catches state shared between streams."""
    model = tiny().train()
    a, b = stream(model, prompt(), 5, temperature=0.0), stream(model, prompt(seed=9), 5)
    turns = [(next(a), next(b)) for _ in range(5)]
    expected = generate(model, prompt(), 5, temperature=0.0)[:, 7:]
    assert torch.equal(torch.stack([first for first, _ in turns], 1), expected)
    assert model.training


def test_an_error_in_the_model_leaves_nothing() -> None:
    """Catches a model left in eval mode by its own mistake."""
    model = tiny().train()
    model.h[2].register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(model, prompt(), 3)
    assert all(modes(model))
    assert torch.is_grad_enabled()


def test_ids_can_train_a_model_afterwards() -> None:
    """Catches inference-mode tensors, which autograd refuses."""
    model = tiny().train()
    ids = generate(model, prompt(), 3)
    model(ids).sum().backward()
    assert model.ln_f.bias.grad is not None


# --------------------------------------------------------------------------------- sliced layers


@pytest.mark.parametrize("out_features", [1024, 1031, 4099])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1,), (), (3, 2), (2, 1), (1, 5)])
def test_slices_are_the_linear_layer(out_features: int, bias: bool, shape: tuple[int, ...]) -> None:
    """Catches rows lost where the slices don't come out even, and a bias added twice."""
    layer = nn.Linear(260, out_features, bias=bias)
    x = torch.randn(*shape, 260)
    with torch.no_grad():
        torch.testing.assert_close(
            Slices(layer)(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5
        )


def test_slices_follow_their_weight() -> None:
    """Catches views of weights that are no longer the layer's, and a row of another width."""
    layer = nn.Linear(260, 1031)
    slices, x = Slices(layer), torch.randn(1, 260)
    with torch.no_grad():
        layer.weight.mul_(2)
        torch.testing.assert_close(slices(x), F.linear(x, layer.weight, layer.bias))
        layer.weight.data = torch.randn(1031, 260)
        layer.bias.data = torch.randn(1031)
        torch.testing.assert_close(slices(x), F.linear(x, layer.weight, layer.bias))
        layer.weight.data = torch.randn(1031, 260)
        for rows in (x, torch.randn(3, 260)):  # as decoding calls them
            expected = F.linear(rows, layer.weight, layer.bias)
            torch.testing.assert_close(slices.rows(rows), expected, rtol=1e-5, atol=1e-4)
        with pytest.raises(RuntimeError):
            slices(torch.randn(2, 130))
    slices(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.expand(1031, 260))


def test_which_layers_are_sliced() -> None:
    """Catches a learner's own layer replaced, and a patch that someone else had put there."""

    class Own(nn.Linear):
        pass

    big = nn.Linear(600, 600)
    assert big.weight.numel() >= WORTH_SLICING
    patched = nn.Linear(600, 600)
    patched.forward = lambda x: x + 1
    model = nn.ModuleList(
        [big, Own(600, 600), nn.Linear(6, 6), nn.Linear(600, 600).half(), patched]
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Inference(model):
            assert ["forward" in module.__dict__ for module in model] == [True, *[False] * 3, True]
            assert torch.equal(patched(torch.ones(2)), torch.full((2,), 2.0))
    finally:
        torch.set_num_threads(threads)
    assert ["forward" in module.__dict__ for module in model] == [*[False] * 4, True]


def test_a_sliced_model_says_the_same() -> None:
    """Catches fast layers that change the text, or hide the layer from a hook."""
    model, ids = tiny(n_embd=300, vocab_size=1999), prompt(1)
    calls = []
    model.h[0].attn.c_attn.register_forward_hook(lambda *_: calls.append(1))
    found = generate(model, ids, 16, temperature=0.0)
    assert len(calls) == 16
    assert torch.equal(found, by_hand(model, ids, 16))
