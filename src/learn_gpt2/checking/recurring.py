"""Checks that recur from problem to problem, made in one call each.

    again = Recurring(layer_of, x_of, oracle, todo=5, needs=test_attention)
    test_gradients = again.gradients("Gradients reach x and every weight")
    test_copies = again.copies("A copy, and a saved module, give the same")

A check is called after the method that makes it (`test_gradients`), unless it is given a name.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from learn_gpt2.checking.checks import (
    check,
    compare,
    expect_copies,
    expect_finite_gradients,
    expect_no_edit,
    expect_no_memory,
    expect_one_device,
    fail,
    tensor,
    weights,
)
from learn_gpt2.checking.diagnosis import Mistake

Check = Callable[[Any], None]
TIGHT = {torch.float64: 1e-6, torch.bfloat16: 6e-2}  # dtype → how far off its result may be


class Recurring:
    """What the recurring checks of one class need to know.

    make(piece, seed=…, …): a module in eval mode with random weights. inputs(*sizes, seed=…): its
    input. oracle(x, w): what it should give for the weights w. call: how it is called.
    """

    def __init__(
        self,
        make: Callable[..., nn.Module],
        inputs: Callable[..., Tensor],
        oracle: Callable[[Tensor, Mapping[str, Tensor]], Tensor] | None = None,
        call: Callable[[nn.Module, Tensor], Tensor] = lambda module, x: tensor(module(x)),
        **usual: Any,
    ):
        self.make, self.inputs, self.oracle, self.call = make, inputs, oracle, call
        self.usual = usual

    def _check(
        self, name: str, title: str, run: Check, options: dict[str, Any], inside: bool = False
    ) -> Check:
        """run as a check of this name and title; inside: it goes by what only the process sees in
        which the piece runs. Its place in the file is the line of the caller.
        """
        run.__name__ = run.__qualname__ = name
        run.__doc__ = title
        line = sys._getframe(2).f_lineno
        return check(**{**self.usual, **options}, line=line, reported=inside)(run)

    def gradients(
        self,
        title: str,
        *,
        seed: int = 0,
        optional: Iterable[str] = (),
        name: str = "test_gradients",
        **options: Any,
    ) -> Check:
        """The gradients of x and of every parameter are finite, and the oracle's. optional: names
        of parameters that rightly get none.
        """
        left_out = tuple(optional)

        def run(piece: Any) -> None:
            layer = self.make(piece, seed=seed)
            mine, theirs = (self.inputs(seed=seed).requires_grad_() for _ in range(2))
            loss = self.call(layer, mine).pow(2).sum()
            expect_finite_gradients(layer, loss, optional=left_out)
            if mine.grad is None:
                fail("No gradient reaches x: is it detached?", id="no-gradient")
            w = {name: value.requires_grad_() for name, value in weights(layer).items()}
            self.oracle(theirs, w).pow(2).sum().backward()
            compare(mine.grad, theirs.grad, what="the gradient of x", rtol=1e-3, atol=1e-4)
            for name, parameter in layer.named_parameters():
                if name not in left_out:
                    what, grad = f"the gradient of {name}", w[name].grad
                    compare(parameter.grad, grad, what=what, rtol=1e-3, atol=1e-4)

        return self._check(name, title, run, options)

    def dtypes(
        self,
        title: str,
        tolerances: Mapping[torch.dtype, float] = TIGHT,
        *,
        fixed: Mistake | None = None,
        seed: int = 0,
        name: str = "test_dtypes",
        scale: float = 0.5,
        **options: Any,
    ) -> Check:
        """Each dtype stays what it is, and gives what it gives in float64, up to its tolerance.
        fixed: the mistake when it does not. scale: of the weights.
        """

        def run(piece: Any) -> None:
            for dtype, tolerance in tolerances.items():
                layer = self.make(piece, seed=seed, scale=scale).to(dtype)
                x = self.inputs(seed=seed, dtype=dtype)
                got = self.call(layer, x)
                if got.dtype != dtype and fixed is not None:
                    fail(fixed, f"{dtype} goes in, {got.dtype} comes out.")
                if got.dtype != dtype:
                    fail(
                        f"With {dtype} input the output comes out as {got.dtype}: is a dtype "
                        "written into forward?",
                        id="fixed-dtype",
                    )
                want = self.oracle(x.double(), weights(layer.double()))
                what = f"the output in {dtype}"
                compare(got.double(), want, what=what, rtol=tolerance, atol=tolerance)

        return self._check(name, title, run, options)

    def device(
        self,
        title: str,
        *,
        hint: int | None = None,
        untouched: str = "",
        name: str = "test_device",
        **options: Any,
    ) -> Check:
        """What forward makes, it makes where x is. untouched: what x is called, when it must also
        stay as it was.
        """

        def run(piece: Any) -> None:
            if untouched:
                expect_no_edit(lambda x: self.call(self.make(piece), x), self.inputs(), untouched)
            module = self.make(piece)
            expect_one_device(module, lambda m, move: self.call(m, move(self.inputs())), hint)

        return self._check(name, title, run, options, inside=True)

    def copies(
        self,
        title: str,
        *sizes: int,
        seed: int = 0,
        untouched: str = "",
        device: bool = False,
        name: str = "test_copies",
        **options: Any,
    ) -> Check:
        """A deep copy and a saved module give the same. untouched: what x is called, when it must
        also stay as it was. device: whether forward must also make things where x is.
        """

        def run(piece: Any) -> None:
            layer, x = self.make(piece, seed=seed), self.inputs(*sizes, seed=seed)
            if untouched:
                expect_no_edit(layer, x, untouched)
            expect_copies(layer, lambda module: self.call(module, x))
            if device:
                expect_one_device(layer, lambda module, move: self.call(module, move(x)))

        return self._check(name, title, run, options, inside=device or bool(untouched))

    def memory(
        self,
        title: str,
        *sizes: tuple[int, ...],
        hint: int | None = None,
        name: str = "test_keeps_nothing",
        **options: Any,
    ) -> Check:
        """A call does not depend on the calls before it, whose inputs had these sizes. The same
        sizes again are other numbers, but the last ones are the first input once more.
        """

        def run(piece: Any) -> None:
            inputs = [self.inputs(*size, seed=seed) for seed, size in enumerate(sizes)]
            calls = [lambda m, x=x: self.call(m, x) for x in (*inputs, inputs[0])]
            expect_no_memory(self.make(piece), calls, hint)

        return self._check(name, title, run, options)
