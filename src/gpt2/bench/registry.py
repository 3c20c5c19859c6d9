"""What `gpt2 bench` can measure, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from gpt2.bench import generation, training
from gpt2.bench.measuring import Table


def measurements() -> dict[str, Callable[..., Table]]:
    """What can be measured: name → function of (quick, device, rounds, model)."""
    return {
        "cache": generation.measure_cache,
        "decode": generation.measure_decode,
        "batch8": generation.measure_batch8,
        "prefill": generation.measure_prefill,
        "context": generation.measure_context,
        "batch": generation.measure_batch,
        "sampling": generation.measure_sampling,
        "drift": generation.measure_drift,
        "speculation": generation.measure_speculation,
        "start": generation.measure_start,
        "memory": generation.measure_memory,
        "training": training.measure_training,
        "training-10m": training.measure_training_10m,
        "training-124m": training.measure_training_124m,
    }


def tables(
    wanted: Mapping[str, Callable[..., Table]],
    quick: bool = False,
    device: str = "cpu",
    rounds: int = 3,
    model: str | None = None,
    opponent: Path | None = None,
) -> Iterator[Table]:
    """Run these measurements → their tables, each as soon as it is there."""
    options = {"quick": quick, "device": device, "rounds": rounds, "model": model}
    for name, measure in wanted.items():
        compared = {"opponent": opponent} if name in ("decode", "batch8") else {}
        yield measure(**options, **compared)


def chosen(names: Sequence[str] = ()) -> dict[str, Callable[..., Table]]:
    """The named measurements (none: all). ValueError for an unknown name."""
    known = measurements()
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"no measurement {unknown[0]!r}; there are {', '.join(known)}")
    return {name: known[name] for name in names or known}
