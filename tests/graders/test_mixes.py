"""Right answers in each other's company, a few of them; `make graders` tries a hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from learn_gpt2.manifest import MODEL_PROBLEMS
from tests.graders import mixes
from tests.graders.bank import Answer


def test_every_right_answer_has_its_turn() -> None:
    """Catches mixes that leave right answers out, repeat themselves or depend on chance."""
    chosen = mixes.chosen(100)
    assert len(set(chosen)) == 100
    assert chosen == mixes.chosen(100)
    for problem in MODEL_PROBLEMS:
        seen = {mix.places[problem.number - 1] for mix in chosen}
        assert seen == set(range(len(mixes.choices(problem.number))))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> mixes.Bench:
    pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    return mixes.Bench(tmp_path_factory.mktemp("bench"))


def test_solutions_pass_every_stage(bench: mixes.Bench) -> None:
    """Catches a stage that refuses what is right."""
    outcome = mixes.try_mix(mixes.Mix((0,) * 12), bench)
    assert not outcome.failures, str(outcome)


@pytest.mark.parametrize("mix", mixes.chosen(3, seed=1), ids=str)
def test_some_mixes(bench: mixes.Bench, mix: mixes.Mix) -> None:
    """Catches a check or a command that works on the reference's pieces alone."""
    outcome = mixes.try_mix(mix, bench)
    assert not outcome.failures, str(outcome)


@pytest.mark.parametrize(
    ("number", "old", "new", "stages"),
    [
        (10, "x = x[:, -1:]  # (B, 1, C)", "x = x[:, :1]", {"checks", "learn bisect"}),
        (6, 'approximate="tanh"', 'approximate="none"', {"learn bisect", "gpt2 validate"}),
        (11, "std=0.02)", "std=0.2)", {"checks", "learn bisect"}),
    ],
)
def test_a_wrong_piece_is_noticed(
    bench: mixes.Bench, monkeypatch: pytest.MonkeyPatch, number: int, old: str, new: str, stages
) -> None:
    """Catches stages that pass whatever the model does."""
    choices = mixes.choices

    def with_a_fault(n: int) -> list[Answer]:
        found = choices(n)
        if n != number:
            return found
        assert old in found[0].source
        return [Answer("a wrong one", found[0].source.replace(old, new)), *found[1:]]

    monkeypatch.setattr(mixes, "choices", with_a_fault)
    outcome = mixes.try_mix(mixes.Mix((0,) * 12), bench)
    assert stages <= outcome.failures.keys(), str(outcome)


def test_a_mix_that_does_not_import(bench: mixes.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a crash of the harness on what cannot be put together."""
    broken = [Answer("none", "raise RuntimeError('no')\n")]
    choices = mixes.choices
    monkeypatch.setattr(mixes, "choices", lambda n: broken if n == 3 else choices(n))
    outcome = mixes.try_mix(mixes.Mix((0,) * 12), bench)
    assert set(outcome.failures) == {"assemble"}


def test_a_clash_of_names_is_refused_in_words(bench: mixes.Bench, tmp_path: Path) -> None:
    """Catches a later piece that is blamed for the argument names of an earlier one."""
    plain = next(
        place
        for place, answer in enumerate(mixes.choices(7))
        if answer.title == "a subclass of PyTorch's own that adds nothing"
    )
    by_name = next(
        place
        for place, answer in enumerate(mixes.choices(10))
        if "LayerNorm(n_embd=" in answer.source
    )
    places = [0] * 12
    places[6], places[9] = plain, by_name
    outcome = mixes.try_mix(mixes.Mix(tuple(places)), bench)
    assert not outcome.failures, str(outcome)
