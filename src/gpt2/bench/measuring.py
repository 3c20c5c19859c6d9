"""How fast: named measurements, each of several contenders run in turn, as a Markdown table.

Contenders take turns round by round, so that whatever else the machine does hits all of them, and
the figure is each one's median. A new measurement is a function and a line in `measurements`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Contender:
    """One way to do the work: its name, and what does `amount` units of it once."""

    name: str
    run: Callable[[], object]
    amount: int


@dataclass(frozen=True)
class Result:
    """What a contender reached: its rate in each round, in units per second."""

    name: str
    rates: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rates)


@dataclass(frozen=True)
class Curve:
    """What a step costs against a size, in ms, and what the bytes it reads let expect: the
    first size's cost, times this many bytes over its bytes.
    """

    xlabel: str
    sizes: tuple[int, ...]
    ms: tuple[float, ...]
    expected: tuple[float, ...]


@dataclass(frozen=True)
class Table:
    """One measurement: what was done, in which unit, and how fast; the last result is the base of
    the ratios.
    """

    title: str
    setting: str
    unit: str
    results: tuple[Result, ...]
    digits: int = 1
    curve: Curve | None = None

    def ratio(self, result: Result) -> float:
        """A result's median over the last one's."""
        return result.median / self.results[-1].median

    def markdown(self) -> str:
        """The table, with its title and setting."""
        d = self.digits
        lines = [f"### {self.title}", "", self.setting, ""]
        lines += [f"| | {self.unit} (median) | slowest – fastest | ratio |", "|---|--:|--:|--:|"]
        lines += [
            f"| {result.name} | {result.median:.{d}f} | {min(result.rates):.{d}f} – "
            f"{max(result.rates):.{d}f} | {self.ratio(result):.{max(d, 2)}f} |"
            for result in self.results
        ]
        return "\n".join(lines)


def interleave(
    contenders: Sequence[Contender], rounds: int, warm_up: bool = True
) -> tuple[Result, ...]:
    """Run each contender once per round → their rates; a round before the first is not counted."""
    from tqdm import tqdm

    rates: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    total = (rounds + warm_up) * len(contenders)
    with tqdm(total=total, leave=False, disable=not sys.stderr.isatty()) as bar:
        for number in range(-int(warm_up), rounds):
            for contender in contenders:
                bar.set_description(contender.name)
                started = time.perf_counter()
                contender.run()
                seconds = time.perf_counter() - started
                if number >= 0:
                    rates[contender.name].append(contender.amount / seconds)
                bar.update()
    return tuple(Result(name, tuple(found)) for name, found in rates.items())


def plot(table: Table, path: Path) -> Path:
    """Draw a table's curve as a PNG. ValueError for a table that has none."""
    from gpt2.figures.plots import lines, save

    if table.curve is None:
        raise ValueError(f"{table.title!r} is not a measurement against a size")
    c = table.curve
    title = (
        f"{table.title}: {c.sizes[-1]} cost {c.ms[-1] / c.ms[0]:.2f} times what {c.sizes[0]} costs"
        f"; the bytes, {c.expected[-1] / c.expected[0]:.2f} times"
    )
    series = {"measured": (c.sizes, c.ms), "if bytes were all": (c.sizes, c.expected)}
    labels = {"xlabel": c.xlabel, "ylabel": "ms per step", "title": title}
    return save(lines(series, log="x", markers=True, size=(7.5, 4), **labels), path)


def machine() -> str:
    """The machine, its load and the versions that the figures hold for, as a line."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{load}; "
        f"{platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def as_json(found: Sequence[Table]) -> str:
    """The machine and the tables, every round's figure → JSON."""
    rows = [asdict(table) for table in found]
    return json.dumps({"machine": machine(), "tables": rows}, indent=2)
