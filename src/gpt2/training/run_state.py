"""What a run consists of between two steps: weights, moments, counters; it saves and restores
itself.

Tensors of a checkpoint have names "slot/parameter": `exp_avg/h.0.ln_1.weight`, and, where weights
are averaged, `weight/…` for the weights themselves (the average is the checkpoint's model).
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gpt2.formats.parameters import TABLE, parameter_names
from gpt2.training.ranks import World, put_whole, whole

if TYPE_CHECKING:
    from torch import nn

    from gpt2.data.shards import BatchLoader

WEIGHT = "weight"  # the slot of a parameter's own value


class RunState:
    """The moment after `step` steps: the model, the average of its weights (with ema_decay), the
    optimizers, the loader's position, and what has been counted.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        loader: BatchLoader,
        ema_decay: float = 0.0,
    ):
        self.model, self.optimizers, self.loader = model, optimizers, loader
        self.ema_decay = ema_decay
        self.ema = [p.detach().clone() for p in model.parameters()] if ema_decay else None
        self.step = 0
        self.seconds = 0.0  # of training, over all its processes so far
        self.best: float | None = None  # the lowest validation loss
        self.since_best = 0  # validations after it
        self.loss_sum, self.loss_count = 0.0, 0  # since the log's last line

    # ------------------------------------------------------------------------------- as it trains

    def count(self, loss: float) -> None:
        """One more step is done."""
        self.step += 1
        self.loss_sum += loss
        self.loss_count += 1

    def take_mean_loss(self) -> float:
        """→ the mean loss since this was last asked."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def validated(self, nats: float | None) -> bool:
        """A validation loss (None: there is nothing to validate on) → is it the best so far?"""
        better = nats is None or self.best is None or nats < self.best
        if better:
            self.best, self.since_best = nats, 0
        else:
            self.since_best += 1
        return better

    def average(self) -> None:
        """Let the averaged weights follow the model's, after a step."""
        if self.ema is None:
            return
        # young averages forget faster, or they would hold the initial weights for long
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.ema, self._values(), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    @property
    def weights(self) -> list[Tensor]:
        """What is evaluated, shown and exported: the averaged weights where there are any."""
        return self._values() if self.ema is None else self.ema

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model holds the averaged weights; after, bit for bit its own."""
        if self.ema is None:
            yield
            return
        parameters = self._values()
        own = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            torch._foreach_copy_(parameters, self.ema)  # pyright: ignore[reportPrivateImportUsage]
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(parameters, own)  # pyright: ignore[reportPrivateImportUsage]

    # ----------------------------------------------------------------------------------- on disk

    def describe(self) -> dict[str, Any]:
        """Everything that is not a tensor, for JSON."""
        return {
            "step": self.step,
            "loader": self.loader.state(),
            "optimizer_steps": {
                name: float(state["step"]) for name, _, state in self._slots() if "step" in state
            },
            "seconds": round(self.seconds, 3),
            "best": self.best,
            "since_best": self.since_best,
            "loss_sum": self.loss_sum,
            "loss_count": self.loss_count,
        }

    def tensors(self, world: World) -> tuple[dict[str, Tensor], list[Tensor]]:
        """→ a checkpoint's tensors by name, and the model's weights in the order of its parameters.

        Whole and on the CPU for rank 0, nothing for the others; all ranks must call it.
        """
        named = {
            f"{slot}/{name}": value
            for name, _, state in self._slots()
            for slot, value in state.items()
            if slot != "step"
        }
        if self.ema is not None:
            named |= {f"{WEIGHT}/{name}": p for name, p in self._parameters()}
        found = gather(list(named.values()), world)
        return dict(zip(named, found, strict=False)), gather(self.weights, world)

    def restore(self, described: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `describe` and `tensors` gave; the model has the checkpoint's weights.

        LookupError, TypeError, RuntimeError or ValueError for what cannot have come from them.
        """
        slots: dict[str, dict[str, Tensor]] = {name: {} for name, _ in self._parameters()}
        for key, value in tensors.items():
            slot, _, name = key.partition("/")
            slots[_own_name(name)][slot] = value
        if self.ema is not None:
            for average, (name, p) in zip(self.ema, self._parameters(), strict=True):
                average.copy_(p.detach())
                put_whole(p, slots[name].pop(WEIGHT))
        counts = {_own_name(name): n for name, n in described["optimizer_steps"].items()}
        for name, optimizer, p in self._optimized():
            state = optimizer.state[p]
            if name in counts and not slots[name]:
                raise LookupError(f"{name} has taken steps and has no moments")
            for slot, value in slots[name].items():
                state[slot] = torch.zeros_like(p)
                put_whole(state[slot], value)
            if name in counts:
                state["step"] = torch.tensor(_number(name, counts[name]), dtype=torch.float32)
        self.loader.load_state(described["loader"])
        for name in ("step", "seconds", "since_best", "loss_sum", "loss_count"):
            _number(name, described[name])
        self.step = int(described["step"])
        self.seconds = float(described["seconds"])
        best = described["best"]
        self.best = None if best is None else _number("best", best)
        self.since_best = int(described["since_best"])
        self.loss_sum = float(described["loss_sum"])
        self.loss_count = int(described["loss_count"])

    def _values(self) -> list[Tensor]:
        return list(self.model.parameters())

    def _parameters(self) -> list[tuple[str, Tensor]]:
        parameters = list(self.model.parameters())
        return list(zip(parameter_names(self.model), parameters, strict=True))

    def _optimized(self) -> Iterator[tuple[str, torch.optim.Optimizer, Tensor]]:
        """Each parameter's name, its optimizer, itself."""
        names = {id(p): name for name, p in self._parameters()}
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for p in group["params"]:
                    yield names[id(p)], optimizer, p

    def _slots(self) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """Each parameter that an optimizer remembers something about, and what."""
        for name, optimizer, p in self._optimized():
            if optimizer.state.get(p):
                yield name, p, optimizer.state[p]


def _own_name(name: str) -> str:
    """The name of a parameter in a checkpoint that may have the shared table under the head's."""
    return TABLE if name == "lm_head.weight" else name


def gather(tensors: Sequence[Tensor], world: World) -> list[Tensor]:
    """Whole tensors on the CPU of rank 0; elsewhere empty. All ranks must call it."""
    found = []
    for tensor in tensors:
        full = whole(tensor.detach())
        if world.main:
            found.append(full.cpu().clone())
    return found


def _number(name: str, value: object) -> float:
    """A number out of a checkpoint's state. TypeError that shows a little of what is none."""
    if not isinstance(value, (int, float)):
        raise TypeError(f"{name} is {reprlib.repr(value)}")
    return float(value)
