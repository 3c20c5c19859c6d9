"""Speculative decoding: the large model's text and distribution, whatever the draft says."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from small_gpt2 import prompt, tiny

from gpt2.generation.arguments import Sampling
from gpt2.generation.generating import filter_logits, generate, prefill
from gpt2.generation.speculative import acceptance, remainder, speculate


@pytest.fixture(autouse=True)
def one_thread():
    """Small work is fastest on one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def text(*args, **options) -> list[int]:
    return list(itertools.chain.from_iterable(speculate(*args, **options)))


@pytest.mark.parametrize("drafted", [1, 3, 7])
@pytest.mark.parametrize("draft", ["itself", "another", "narrower"])
def test_greedy_text_is_the_models_own(draft: str, drafted: int) -> None:
    """Catches a cache that keeps what was refused, and a draft that has a say."""
    model, ids = tiny(n_positions=120), prompt(1, 6)
    drafts = {"itself": model, "another": tiny(3, n_positions=120)}
    drafts["narrower"] = tiny(0, n_positions=130, n_embd=8, n_head=2, n_layer=1)
    want = generate(model, ids, 100, temperature=0.0)[0, 6:].tolist()
    found = list(speculate(model, drafts[draft], ids, 100, drafted=drafted, temperature=0.0))
    assert list(itertools.chain.from_iterable(found)) == want
    if draft == "itself":  # every guess holds, and the model adds one
        assert all(len(piece) == drafted + 1 for piece in found[:-1])


def test_the_rule_gives_exactly_the_targets_distribution() -> None:
    """Catches a wrong acceptance or remainder, by summing over every way to a token."""
    generator = torch.Generator().manual_seed(0)
    for V in (2, 3, 11):
        p, q = torch.rand(2, V, generator=generator, dtype=torch.float64).pow(3)
        q[0] = 0.0  # a token that is never drafted must come from the remainder
        p, q = p / p.sum(), q / q.sum()
        for draft in (q, p, torch.eye(V, dtype=torch.float64)[V - 1]):
            found = torch.zeros(V, dtype=torch.float64)
            for token in range(V):
                kept = acceptance(p, draft, token)
                found[token] += draft[token] * kept
                found += draft[token] * (1 - kept) * remainder(p, draft)
            torch.testing.assert_close(found, p, rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "top_k": 4}, {"top_p": 0.8}])
def test_samples_are_distributed_as_the_models_own(options: dict) -> None:
    """Catches dependence between draws, a wrong position, or options that only one model obeys:
    χ² of 3000 texts of three tokens against the exact distribution, by enumeration.
    """
    sizes = {"vocab_size": 5, "n_positions": 9, "n_embd": 8, "n_head": 2, "n_layer": 1}
    model, draft, ids = tiny(1, **sizes), tiny(2, **sizes), prompt(1, 2, V=5)
    exact = {}
    for tokens in itertools.product(range(5), repeat=3):
        chance, so_far = 1.0, ids
        for token in tokens:
            logits = filter_logits(prefill(model, so_far), **options)
            chance *= logits.softmax(-1)[0, token].item()
            so_far = torch.cat([so_far, torch.tensor([[token]])], 1)
        exact[tokens] = chance
    n = 3000
    generator = torch.Generator().manual_seed(0)
    found = Counter(
        tuple(text(model, draft, ids, 3, drafted=2, generator=generator, **options))
        for _ in range(n)
    )
    assert sum(exact[tokens] > 0 for tokens in found) == len(found)  # nothing impossible
    often = [t for t in exact if exact[t] * n >= 5]
    chi2 = sum((found[t] - n * exact[t]) ** 2 / (n * exact[t]) for t in often)
    rest, rest_found = n * sum(exact[t] for t in exact if t not in often), 0
    rest_found = n - sum(found[t] for t in often)
    if rest >= 5:
        chi2 += (rest_found - rest) ** 2 / rest
    degrees = len(often) - (rest < 5)
    assert degrees >= 5
    # a χ² variable exceeds its mean by four deviations in about one of 10,000 runs
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5


def test_the_end_token_ends_it() -> None:
    """Catches tokens behind the end, when it comes in the middle of a piece."""
    model, ids = tiny(n_positions=60), prompt(1, 6)
    want = generate(model, ids, 40, temperature=0.0)[0, 6:].tolist()
    end = want[10]
    found = text(model, model, ids, 40, temperature=0.0, eos_token_id=end)
    assert found == want[: want.index(end) + 1]


def test_up_to_the_last_position() -> None:
    """Catches a draft that runs past the context's end, and a count that is off by one."""
    model, ids = tiny(), prompt(1, 6)
    assert len(text(model, tiny(4), ids, 17, drafted=5)) == 17
    assert text(model, model, ids, 0) == []
    assert len(text(model, model, ids, 1)) == 1


def test_what_makes_no_sense() -> None:
    """Catches an unclear failure deep inside."""
    model, ids = tiny(), prompt(1, 6)
    with pytest.raises(ValueError, match="98 tokens, the model 97"):
        speculate(model, tiny(vocab_size=98), ids, 3)
    with pytest.raises(ValueError, match="one prompt"):
        speculate(model, model, prompt(2, 6), 3)
    with pytest.raises(ValueError, match="drafted"):
        speculate(model, model, ids, 3, drafted=0)
    with pytest.raises(ValueError, match="n_positions = 9"):
        speculate(model, tiny(n_positions=9), ids, 10)
    greedy = Sampling(temperature=0.0)
    assert greedy.probabilities(torch.tensor([1.0, 3.0, 2.0])).tolist() == [0.0, 1.0, 0.0]
