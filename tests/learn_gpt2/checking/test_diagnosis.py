"""The clues: each must be said when it holds, and not when it doesn't."""

import pytest
import torch

from learn_gpt2.checking import checks, diagnosis
from learn_gpt2.checking.checks import CheckFailed, compare, mistake

G = torch.Generator().manual_seed(0)
WANT = torch.randn(2, 4, 4, 6, generator=G)
AXES = "B T S C"


def first_clue(got: torch.Tensor, want: torch.Tensor = WANT, **kwargs) -> str:
    return "; ".join(diagnosis.clues(got, want, AXES, **kwargs))


def with_change(index, value) -> torch.Tensor:
    got = WANT.clone()
    got[index] = value
    return got


@pytest.mark.parametrize(
    ("got", "says"),
    [
        (WANT * 8**0.5, "2.828 times too large, that is √8 = √head_dim"),
        (WANT / 8, "8 times too small, that is 8 = head_dim"),
        (WANT * -1, "wrong sign"),
        (WANT * -3, "3 times too large and of the wrong sign"),
        (WANT + 0.5, "off by the same +0.5"),
        (WANT + torch.arange(6.0) + 1, "same vector (along"),
        (WANT.transpose(1, 2), "T and S swapped"),
        (WANT.flip(3), "right slices along C, in another order"),
        (WANT[:, [1, 0, 2, 3]], "right slices along T, in another order"),
        (with_change((slice(None), slice(2, None)), 7.0), "right up to T = 1, wrong from T = 2 on"),
        (with_change((slice(None), slice(0, 1)), 7.0), "wrong up to T = 0, right from T = 1 on"),
        (with_change((1,), 7.0), "right up to B = 0, wrong from B = 1 on"),
        (with_change((0, 0, 0, 0), torch.nan), "1 of 192 of the numbers are NaN"),
        (WANT * 0, "all of them are 0"),
        (WANT * (torch.arange(192).view_as(WANT) % 3 > 0) * 1.25, "right up to dropout: 33%"),
        (WANT * (1 + 1e-3 * torch.sin(torch.arange(192.0)).view_as(WANT)), "nearly right"),
        (WANT[:, :3], "the shape is (2, 3, 4, 6), expected (B, T, S, C) = (2, 4, 4, 6)"),
        (WANT.permute(0, 3, 1, 2), "the axes are in another order"),
        (WANT.flatten(2), "only the shape is not"),
        (WANT.unsqueeze(1) + 1, "an axis of size 1 too many"),
    ],
)
def test_a_clue_is_found(got: torch.Tensor, says: str) -> None:
    """Catches a clue that is lost."""
    assert says in first_clue(got, sizes={"head_dim": 8})


def test_no_clue_is_made_up() -> None:
    """Catches a clue that is said of unrelated numbers."""
    other = torch.randn(WANT.shape, generator=G)
    assert first_clue(other, sizes={"head_dim": 8}) == ""


HALF = mistake("half", "You halve it.", 1, factor=0.5)
PLUS = mistake("plus", "You add one.", 2, term=1.0)
SAME = mistake("same", "Changes nothing here.", 3, factor=1.0)
BROKEN = mistake("broken", "It can't run.", 4, factor="x")


def variant(factor=1.0, term=0.0) -> torch.Tensor:
    return WANT * factor + term


def failure(got, *mistakes) -> CheckFailed:
    with pytest.raises(CheckFailed) as caught:
        compare(got, WANT, mistakes, variant, axes=AXES)
    return caught.value


def test_a_known_mistake_is_named() -> None:
    """Catches a diagnosis that names nothing, or the first in the table."""
    error = failure(WANT * 0.5, SAME, PLUS, HALF)
    assert error.mistakes == ("half",)
    assert "You halve it. (hint 1) [half]" in str(error)


def test_two_mistakes_at_once_are_named() -> None:
    """Catches a diagnosis that gives up on a second mistake."""
    assert failure(WANT * 0.5 + 1, PLUS, HALF).mistakes == ("plus", "half")


def test_a_mistake_that_changes_nothing_is_never_named() -> None:
    """Catches a name that fits everything."""
    assert failure(WANT + 3, SAME).mistakes == ()


def test_the_same_error_names_the_mistake() -> None:
    """Catches a mistake that can't be computed, and so is never named."""

    def run():
        return variant(factor="x")

    assert failure(run, HALF, BROKEN).mistakes == ("broken",)


def test_an_edited_input_is_named() -> None:
    """Catches an in-place edit that the numbers alone would not show."""
    x = WANT.clone()
    with pytest.raises(CheckFailed) as caught:
        compare(lambda: x.add_(1), WANT, given=(x,))
    assert caught.value.mistakes == ("edits-input",)


def test_randomness_in_eval_mode_is_named() -> None:
    """Catches dropout that is active in eval mode, called something else."""
    with pytest.raises(CheckFailed) as caught:
        compare(lambda: torch.nn.functional.dropout(WANT, 0.1), WANT)
    assert caught.value.mistakes == ("dropout-in-eval",)


def test_nothing_returned_is_named() -> None:
    """Catches a missing return that ends in an AttributeError."""
    with pytest.raises(CheckFailed) as caught:
        compare(lambda: None, WANT)
    assert caught.value.mistakes == ("no-return",)


@pytest.mark.parametrize(
    ("run", "name"),
    [
        (lambda: torch.ones(2, 3).t().view(6), "view-after-transpose"),
        (lambda: torch.ones(2, 3) @ torch.ones(2, 3), "shape-mismatch"),
        (lambda: torch.ones(2, 3) + torch.ones(2, 4), "shape-mismatch"),
        (lambda: torch.ones(2, 3).view(7), "shape-mismatch"),
        (lambda: torch.ones(2) + None, "no-return"),
        (lambda: torch.ones(2, 2) @ torch.ones(2, 2).double(), "wrong-dtype"),
        (lambda: torch.nn.Embedding(3, 2)(torch.ones(2)), "float-index"),
        (lambda: torch.ones(2, device="meta") + torch.ones(2), "wrong-device"),
    ],
)
def test_pytorchs_errors_are_explained(run, name: str) -> None:
    """Catches an error message of this PyTorch that no pattern knows any more."""
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any error PyTorch raises
        run()
    found = diagnosis.explain_exception(caught.value)
    assert found is not None, str(caught.value)
    assert found[0] == name


class Half(torch.nn.Module):
    """For expect_dropout: an element-wise layer with dropout p, put where `order` says."""

    def __init__(self, p: float, order: str):
        super().__init__()
        self.p, self.order = p, order

    def forward(self) -> torch.Tensor:
        x, drop = WANT, torch.nn.functional.dropout
        on = self.training or self.order == "eval"
        if self.order == "unscaled":
            return x * (torch.rand_like(x) > self.p) if on else x
        if self.order == "before":
            return drop(x, self.p, on) + 1
        return x if self.order == "none" else drop(x, self.p, on)


@pytest.mark.parametrize(
    ("order", "p", "name"),
    [
        ("none", 0.3, "dropout-missing"),
        ("eval", 0.3, "dropout-in-eval"),
        ("unscaled", 0.3, "dropout-not-scaled"),
        ("before", 0.3, "dropout-misplaced"),
        ("last", 0.6, "dropout-rate"),
    ],
)
def test_dropout_mistakes_are_told_apart(order: str, p: float, name: str) -> None:
    """Catches a dropout check that sees no difference between two mistakes."""
    layer = Half(p, order)
    with pytest.raises(CheckFailed) as caught:
        checks.expect_dropout(layer, layer, 0.3)
    assert caught.value.mistakes == (name,)


def test_right_dropout_passes() -> None:
    """Catches a dropout check that nothing passes."""
    layer = Half(0.3, "last")
    checks.expect_dropout(layer, layer, 0.3)


# ── several mistakes that fit, or hardly fit ────────────────────────────────────────────────────

OTHER_HALF = mistake("other-half", "You take the mean of it and nothing.", 1, factor=0.50000001)
NEARLY = mistake("nearly", "A constant is a little off.", 1, factor=1.0 + 3e-4)


def test_two_mistakes_that_fit_equally_well_are_both_said() -> None:
    """Catches the first of two mistakes with the same numbers, said as if it were known."""
    error = failure(WANT * 0.5, HALF, OTHER_HALF)
    assert str(error).startswith(checks.EITHER)
    assert error.mistakes == ("half", "other-half")


def test_what_passed_before_decides_between_two_mistakes() -> None:
    """Catches an alternative that an earlier comparison has ruled out."""

    def elsewhere(factor=1.0, term=0.0):
        return WANT if factor == 0.5 else WANT * factor

    checks._forget_other_pieces(object())
    compare(WANT, WANT, (HALF, OTHER_HALF), elsewhere)  # half changes nothing here
    assert failure(WANT * 0.5, HALF, OTHER_HALF).mistakes == ("half",)
    checks._forget_other_pieces(object())


def test_a_mistake_that_was_right_elsewhere_is_said_to_be_one_of_this_case() -> None:
    """Catches "there is no scale" said of code that scales in eval mode."""
    checks._forget_other_pieces(object())
    compare(WANT, WANT, (HALF,), variant)
    assert checks.ONLY_HERE in str(failure(WANT * 0.5, HALF))
    checks._forget_other_pieces(object())


def test_what_is_nearly_right_is_given_no_name() -> None:
    """Catches a mistake that hardly matters here, named for numbers that are right but for a
    rounding.
    """
    rounded = WANT * (1 + 2e-4)
    with pytest.raises(CheckFailed) as caught:
        compare(rounded, WANT, (NEARLY,), variant, rtol=1e-4, atol=1e-6)
    assert caught.value.mistakes == ()


def test_the_same_error_at_another_operation_is_another_mistake() -> None:
    """Catches `v @ weights` called a key that is not transposed: PyTorch's error is the same."""
    a, b, c = torch.ones(2, 3), torch.zeros(2, 3), torch.ones(2, 3) * 7

    def product(first=a, second=b):
        return first @ (second if second is not b else b.T)

    wrong = mistake("first", "The first product.", 1, second=c)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        compare(lambda: a @ (b + 5), torch.ones(2, 2), (wrong,), product)
    with pytest.raises(CheckFailed) as caught:
        compare(lambda: a @ c, torch.ones(2, 2), (wrong,), product)
    assert caught.value.mistakes == ("first",)


def test_a_ratio_that_two_sizes_explain_names_both() -> None:
    """Catches a size named for a number that another size gives as well."""
    said = first_clue(WANT * 2, sizes={"n_head": 4, "T": 2})
    assert "√4 = √n_head or 2 = T" in said


def test_a_fixed_name_is_never_given_up() -> None:
    """Catches advice to rename `wte` to `wpe`: both names are fixed."""

    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.wte = torch.nn.Embedding(3, 2)

    with pytest.raises(CheckFailed) as caught:
        checks.attribute(Half(), "wpe", torch.nn.Embedding)
    assert "rename" not in str(caught.value)


class Stale(torch.nn.Module):
    """Computes through a lambda that holds self, so that copies use the original's layer."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
        self.run = lambda x: self.layer(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.run(x)


class Kept(torch.nn.Module):
    """Keeps a tensor as a plain attribute."""

    def __init__(self):
        super().__init__()
        self.table = torch.arange(3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.table


@pytest.mark.parametrize(("module", "name"), [(Stale, "bad-copy"), (Kept, "plain-attribute")])
def test_a_device_mistake_has_its_own_name(module, name: str) -> None:
    """Catches "forward makes a tensor on a fixed device" where forward makes none."""
    x = torch.ones(2, 3)
    with pytest.raises(CheckFailed) as caught:
        checks.expect_one_device(module(), lambda m, move: m(move(x)))
    assert caught.value.mistakes == (name,)
