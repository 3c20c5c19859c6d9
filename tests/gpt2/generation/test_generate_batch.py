"""Prompts of different lengths in one batch: row by row the text that each gives alone."""

from __future__ import annotations

import pytest
import torch
from small_gpt2 import prompt, tiny

from gpt2.generation.generating import generate, generate_batch


def rows(lengths: list[int], V: int = 97, seed: int = 4) -> list[torch.Tensor]:
    return [prompt(1, T, seed + i, V)[0] for i, T in enumerate(lengths)]


def alone(model, prompts: list[torch.Tensor], n: int, **options) -> list[list[int]]:
    """The oracle: each prompt by itself."""
    return [generate(model, row[None], n, **options)[0].tolist() for row in prompts]


def plain_attention(model) -> None:
    """Attention as a learner may write it: no fused kernel, a mask made again each time."""
    for block in model.h:
        attn = block.attn

        def attend(q, k, v, attn=attn):
            T, S = q.size(-2), k.size(-2)
            mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
            return attn.attention(q, k, v, mask)[0]

        attn._attend = attend


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("learners", [False, True])
@pytest.mark.parametrize(
    "lengths", [[5], [3, 3, 3], [7, 1, 4, 1, 12], [1, 15], [2, 2, 9, 9, 3], [16, 15, 14, 13]]
)
def test_each_row_is_what_it_is_alone(lengths: list[int], learners: bool, use_cache: bool) -> None:
    """Catches a row that sees another's tokens, positions or padding, or comes back in another's
    place.
    """
    model = tiny()
    if learners:
        plain_attention(model)
    prompts = rows(lengths)
    found = generate_batch(model, prompts, 7, temperature=0.0, use_cache=use_cache)
    assert [row.tolist() for row in found] == alone(model, prompts, 7, temperature=0.0)


@pytest.mark.parametrize("use_cache", [True, False])
def test_sixty_four_tokens_lengths_one_to_two_hundred(use_cache: bool) -> None:
    """Catches what only shows in long rows: cache rows that drift, a window too short."""
    model = tiny(n_positions=270, n_layer=2)
    lengths = [1, 200, 17, 64, 65, 128, 3, 199, 90, 1, 150, 41]
    prompts = rows(lengths)
    found = generate_batch(model, prompts, 64, temperature=0.0, use_cache=use_cache)
    assert [row.tolist() for row in found] == alone(model, prompts, 64, temperature=0.0)
    assert [len(row) for row in found] == [T + 64 for T in lengths]
    assert len(set(found[1].tolist()[200:])) > 10  # a text that varies, or it would prove little


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_end_by_themselves(use_cache: bool) -> None:
    """Catches a row cut short by another's end, or going on after its own."""
    model, prompts = tiny(), rows([7, 1, 4, 1, 12])
    texts = alone(model, prompts, 9, temperature=0.0)
    new = [text[len(p) :] for text, p in zip(texts, prompts, strict=True)]
    drawn = [t for row in new for t in row]
    eos = next(t for t in drawn if 0 < sum(t in row for row in new) < 5)
    options = {"temperature": 0.0, "eos_token_id": eos, "use_cache": use_cache}
    found = generate_batch(model, prompts, 9, **options)
    expected = alone(model, prompts, 9, **options)
    assert [row.tolist() for row in found] == expected
    assert len({len(row) - len(p) for row, p in zip(expected, prompts, strict=True)}) > 1


@pytest.mark.parametrize("use_cache", [True, False])
def test_past_the_contexts_end(use_cache: bool) -> None:
    """Catches rows whose window slides at another's pace, and prompts longer than the context."""
    model, prompts = tiny(), rows([3, 20, 23, 31, 23, 11])
    options = {"temperature": 0.0, "sliding": True, "use_cache": use_cache}
    found = generate_batch(model, prompts, 15, **options)
    assert [row.tolist() for row in found] == alone(model, prompts, 15, **options)


def test_each_row_draws_its_own() -> None:
    """Catches one generator for all rows, whose draws depend on who else is in the batch."""
    model, prompts = tiny(), rows([4, 9, 4])

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]

    options = {"temperature": 1.3, "top_k": 40, "repetition_penalty": 1.2}
    found = generate_batch(model, prompts, 9, generators=generators(), **options)
    expected = [
        generate(model, row[None], 9, generator=g, **options)[0].tolist()
        for row, g in zip(prompts, generators(), strict=True)
    ]
    assert [row.tolist() for row in found] == expected


def test_rows_share_a_pass() -> None:
    """Catches rows that are read one by one although they are at the same position."""
    model, sizes = tiny(), []
    model.register_forward_pre_hook(lambda _, args: sizes.append(tuple(args[0].shape)))
    generate_batch(model, rows([4, 6, 4]), 3, temperature=0.0)
    # two prompts of 4; two rows at 5; two at 6 and the prompt of 6; then that row alone
    assert sizes == [(2, 4), (2, 1), (2, 1), (1, 6), (1, 1), (1, 1)]


def test_nothing_to_do() -> None:
    """Catches an error where an empty answer is right."""
    assert generate_batch(tiny(), [], 5) == []
    (row,) = generate_batch(tiny(), rows([3]), 0)
    assert row.tolist() == rows([3])[0].tolist()


@pytest.mark.parametrize(
    ("prompts", "options", "named"),
    [
        ([torch.ones(1, 2, dtype=torch.long)], {}, r"prompt 0 .*\(1, 2\)"),
        ([[1, 2]], {}, "prompt 0 .*list"),
        ([torch.tensor([1]), torch.tensor([97])], {}, "prompt 1: token id 97"),
        ([torch.tensor([1]), torch.tensor([], dtype=torch.long)], {}, "prompt 1: .*non-empty"),
        ([torch.ones(2)], {}, "prompt 0: .*float32"),
        ([torch.zeros(20, dtype=torch.long)], {}, "prompt 0: .*n_positions = 23"),
        ([torch.tensor([1])], {"temperature": -1}, "temperature"),
        ([torch.tensor([1])], {"generators": []}, "1 prompts, but 0 generators"),
    ],
)
def test_bad_input(prompts: list, options: dict, named: str) -> None:
    """Catches an error that doesn't say which prompt, or comes after the work began."""
    model = tiny()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(ValueError, match=named):
        generate_batch(model, prompts, 5, **options)
