"""Whether what a message says of two tensors holds of them.

`diagnosis.clues` reads its sentences off the numbers in one way; here each sentence is read back
and tested in another, with NumPy.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from learn_gpt2.checking import diagnosis

_NUMBER = r"([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)"


@contextmanager
def overheard() -> Iterator[list[str]]:
    """While the block runs, every clue is tested; yields the list of those that do not hold."""
    wrong: list[str] = []
    real = diagnosis.clues

    def clues(got, want, axes="", sizes=None, rtol=1e-4, atol=1e-5):
        said = real(got, want, axes, sizes, rtol, atol)
        a, b = got.detach().double().numpy(), want.detach().double().numpy()
        names = axes.split() if len(axes.split()) == b.ndim else []
        names = names or [f"axis {i}" for i in range(b.ndim)]
        given = {**(sizes or {}), "rtol": rtol, "atol": atol}
        wrong.extend(text for text in said if not holds(text, a, b, names, given))
        return said

    diagnosis.clues = clues
    try:
        yield wrong
    finally:
        diagnosis.clues = real


def holds(text: str, got: np.ndarray, want: np.ndarray, names: list[str], sizes: dict) -> bool:
    """Whether a clue is true of what was got and what was wanted. A sentence that this function
    does not know is not taken for true. sizes: the named numbers, and what counts as right
    ("rtol", "atol").
    """
    for pattern, test in _TESTS:
        if found := re.search(pattern, text):
            return bool(test(found, got, want, names, sizes))
    return False


def _near(a: np.ndarray, b: np.ndarray, tolerance: float = 2e-3) -> np.ndarray:
    scale = max(1.0, float(np.abs(np.nan_to_num(b, posinf=0, neginf=0)).max(initial=0)))
    return np.isclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape and bool(_near(a, b).all())


def _shape(found, got, want, names, sizes) -> bool:
    seen = tuple(int(n) for n in re.findall(r"\d+", found[1]))
    asked = tuple(int(n) for n in re.findall(r"\d+", found[2]))
    return seen == got.shape and asked == want.shape != got.shape


def _other_order(found, got, want, names, sizes) -> bool:
    from itertools import permutations

    return any(_equal(got.transpose(order), want) for order in permutations(range(got.ndim)))


def _not_finite(found, got, want, names, sizes) -> bool:
    bad = ~np.isfinite(got) & np.isfinite(want)
    count = bad.sum() == bad.size if found[1] == "all" else int(found[1].split()[0]) == bad.sum()
    index = tuple(int(n) for n in re.findall(r"=(\d+)", found[3]))
    first = tuple(int(n) for n in np.argwhere(bad)[0])
    kind = np.isnan(got).any() if found[2] == "NaN" else np.isinf(got).any()
    return bool(count and kind and index == first)


def _ratio(found, got, want, names, sizes) -> bool:
    r = float(found[1]) if found[2] == "large" else 1 / float(found[1])
    if "of the wrong sign" in found.string:
        r = -r
    if not _equal(got, want * r):
        return False
    for root, number, square, name in re.findall(r"(√?)([0-9.]+)(²?) = √?(\w+)", found.string):
        value = float(number) ** (0.5 if root else 2 if square else 1)
        if sizes.get(name) != float(number) or abs(value / float(found[1]) - 1) > 2e-3:
            return False
    return True


def _constant(found, got, want, names, sizes) -> bool:
    return _equal(got - want, np.full_like(want, float(found[1])))


def _same_vector(found, got, want, names, sizes) -> bool:
    difference = (got - want).reshape(-1, want.shape[-1])
    return bool(_near(difference, difference[:1]).all())


def _swapped(found, got, want, names, sizes) -> bool:
    return _equal(got.swapaxes(names.index(found[1]), names.index(found[2])), want)


def _slices(found, got, want, names, sizes) -> bool:
    axis = names.index(found[1])
    mine = got.take(int(found[2]), axis)
    return _equal(mine, want.take(int(found[3]), axis)) and not _equal(
        mine, want.take(int(found[2]), axis)
    )


def _right_slices(got, want, names, name, sizes) -> np.ndarray:
    axis = names.index(name)
    tolerance = {"rtol": sizes["rtol"], "atol": sizes["atol"]}
    ok = np.moveaxis(np.isclose(got, want, **tolerance), axis, 0)
    return ok.reshape(len(ok), -1).all(1)


def _right_up_to(found, got, want, names, sizes) -> bool:
    right, n = _right_slices(got, want, names, found[1], sizes), int(found[2])
    return bool(right[: n + 1].all() and int(found[3]) == n + 1 and not right[n + 1])


def _wrong_up_to(found, got, want, names, sizes) -> bool:
    right, n = _right_slices(got, want, names, found[1], sizes), int(found[2])
    return bool(right[n + 1 :].all() and int(found[3]) == n + 1 and not right[n])


def _wrong_only(found, got, want, names, sizes) -> bool:
    right = _right_slices(got, want, names, found[1], sizes)
    shown = [int(n) for n in re.findall(r"\d+", found[2])]
    wrong = np.flatnonzero(~right).tolist()
    return set(shown) <= set(wrong) if "…" in found.string else set(shown) >= set(wrong)


def _share(found, got, want, names, sizes) -> bool:
    right = np.isclose(got, want, rtol=sizes["rtol"], atol=sizes["atol"]).mean()
    return abs(right - float(found[1]) / 100) < 0.01


def _dropped(found, got, want, names, sizes) -> bool:
    rest = got != 0
    return _equal(got[rest], want[rest] * float(found[2])) and (
        abs((~rest).mean() - float(found[1]) / 100) < 0.02
    )


def _nearly(found, got, want, names, sizes) -> bool:
    return np.abs(got - want).max() <= 1.1 * float(found[1]) * np.abs(want).max()


_TESTS = (
    (r"the shape is \(([^)]*)\), expected .*= \(([^)]*)\)$", _shape),
    (r"the shape is \(([^)]*)\), expected .*= \(([^)]*)\): the same sizes", _shape),
    (r"the shape is \(([^)]*)\), expected .*= \(([^)]*)\): an axis", _shape),
    (r"axes are in another order", _other_order),
    (r"only the shape is not", lambda f, a, b, n, s: _equal(a.reshape(b.shape), b)),
    (r"^(all|\d+ of \d+) of the numbers are (NaN|infinite), first at (\[.*\])", _not_finite),
    (r"all of them are 0", lambda f, a, b, n, s: not a.any() and b.any()),
    (r"every number has the wrong sign", lambda f, a, b, n, s: _equal(a, -b)),
    (rf"exactly {_NUMBER} times too (large|small)", _ratio),
    (rf"off by the same {_NUMBER} everywhere", _constant),
    (r"off by the same vector", _same_vector),
    (r"with (.+) and (.+) swapped \(a transpose\)", _swapped),
    (r"slices along (.+), in another order \(yours at (\d+) is expected at (\d+)\)", _slices),
    (r"right up to dropout: (\d+)% .* others ([0-9.]+) times", _dropped),
    (r"right up to (.+) = (\d+), wrong from .+ = (\d+) on", _right_up_to),
    (r"wrong up to (.+) = (\d+), right from .+ = (\d+) on", _wrong_up_to),
    (r"wrong only at (.+) = ([\d, …]+)", _wrong_only),
    (r"right in (\d+)% of the places", _share),
    (rf"off by at most {_NUMBER} of the largest number", _nearly),
)
