"""Curves of a training run, as a picture and as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# told apart by colour-blind readers, and on dark and light ground (Okabe & Ito)
TRAIN_COLOUR, VAL_COLOUR = "#0072B2", "#D55E00"

Points = list[tuple[float, float]]


def curve(rows: Sequence[dict[str, Any]], name: str) -> Points:
    """The (step, value) pairs of a run's log that have this figure, finite ones only."""
    return [
        (row["step"], row[name])
        for row in rows
        if isinstance(row.get(name), (int, float)) and math.isfinite(row[name])
    ]


def text_plot(curves: dict[str, Points], width: int = 72, height: int = 16) -> str:
    """Curves → lines of text: a letter per curve (its name's first), axes with their ends.

    ValueError when there is nothing to draw.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ValueError("there are no figures to draw yet")
    steps, values = [x for x, _ in points], [y for _, y in points]
    left, right, low, high = min(steps), max(steps), min(values), max(values)
    grid = [[" "] * width for _ in range(height)]
    for name, curve in curves.items():
        for x, y in curve:
            column = round((x - left) / (right - left or 1) * (width - 1))
            row = round((high - y) / (high - low or 1) * (height - 1))
            grid[row][column] = name[0]
    lines = []
    for number, row in enumerate(grid):
        value = high - (high - low) * number / (height - 1)
        label = f"{value:9.4g}" if number % 5 == 0 or number == height - 1 else " " * 9
        lines.append(f"{label} │{''.join(row).rstrip()}")
    lines.append(" " * 10 + "└" + "─" * width)
    ends = f"{left:g}"
    lines.append(" " * 11 + ends + f"step {right:g}".rjust(width - len(ends)))
    lines += [
        f"{'':11}{name[0]} = {name} (last {curve[-1][1]:.4f})"
        for name, curve in curves.items()
        if curve
    ]
    return "\n".join(lines)


def plot_run(rows: Sequence[dict[str, Any]], path: str | Path, title: str = "") -> Path:
    """A run's log → a PNG (or SVG, by the name) of its losses and its learning rate.

    ValueError when matplotlib is not installed or there is nothing to draw.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError('the picture needs matplotlib: pip install "learn-gpt2[plots]"') from None
    train, val = curve(rows, "loss"), curve(rows, "val_loss")
    if not train and not val:
        raise ValueError("there are no figures to draw yet")
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes, rate_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    if train:
        axes.plot(*zip(*train, strict=True), color=TRAIN_COLOUR, linewidth=1, label="train")
    if val:
        axes.plot(
            *zip(*val, strict=True), color=VAL_COLOUR, marker="o", markersize=3, label="validation"
        )
        step, best = min(val, key=lambda point: point[1])
        axes.annotate(
            f"{best:.4f}", (step, best), xytext=(0, 10), textcoords="offset points", ha="center"
        )
        title = title or f"Validation loss falls to {best:.4f} nats per token at step {step:g}"
    axes.set_title(title or f"Training loss falls to {train[-1][1]:.4f} nats per token")
    axes.set_ylabel("loss, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    if rate := curve(rows, "lr"):
        rate_axes.plot(*zip(*rate, strict=True), color="#555555", linewidth=1)
    rate_axes.set_ylabel("learning rate")
    rate_axes.set_xlabel("step")
    rate_axes.grid(alpha=0.3)
    path = Path(path)
    try:
        figure.savefig(
            path, dpi=110, metadata={"Software": None} if path.suffix == ".png" else None
        )
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from None
    return path
