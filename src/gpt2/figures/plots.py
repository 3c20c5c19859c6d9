"""Figures in one style: a training run's curves, and what notebooks draw."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt2.common.files import written_aside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gpt2.text.tokenizers import Tokenizer

# told apart by color-blind readers, and on dark and light ground (Okabe & Ito)
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"

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
        axes.plot(*zip(*train, strict=True), color=TRAIN_COLOR, linewidth=1, label="train")
    if val:
        axes.plot(
            *zip(*val, strict=True), color=VAL_COLOR, marker="o", markersize=3, label="validation"
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
    metadata = {"Software": None} if path.suffix == ".png" else None
    try:
        with written_aside(path) as part:
            figure.savefig(part, dpi=110, metadata=metadata)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be written: {error}") from None
    return path


# ── figures in one style, for notebooks ─────────────────────────────────────────────────────────
#
# Every figure's title states what was found, its axes have names, and `show` asks for words for
# those who can't see it. Colors are told apart by color-blind readers, and the ground is opaque
# and light, so that a figure reads the same on a light page and on a dark one.

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#444444")
DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
GROUND, INK, GRID, NOTHING = "#f6f6f3", "#26262b", "#cfcfcb", "#dddddc"
AMOUNTS, SIGNED = "viridis", "RdBu_r"  # for what counts from 0 up, and for what has two signs
STYLE = {
    "font.family": "DejaVu Sans",  # it comes with matplotlib, so figures are alike everywhere
    "font.size": 9.0,
    "figure.facecolor": GROUND,
    "savefig.facecolor": GROUND,
    "axes.facecolor": GROUND,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.frameon": False,
    "hatch.color": "#b9b9b6",
    "hatch.linewidth": 0.6,
}
DPI = 110


@contextmanager
def _style() -> Iterator[None]:
    """This module's style while the block runs. ValueError when matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise ValueError('the picture needs matplotlib: pip install "learn-gpt2[plots]"') from None
    with matplotlib.rc_context(STYLE):
        yield


def figure(
    title: str,
    rows: int = 1,
    columns: int = 1,
    size: tuple[float, float] | None = None,
    **options: Any,
) -> tuple[Figure, Any]:
    """An empty figure in the style, and its axes (an array of them for several).

    title: a sentence that states the finding. size: inches. options: of `Figure.subplots`
    (`sharex`, `width_ratios`, …).
    """
    with _style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        size = size or (min(9.0, 1.2 + 5.4 * columns if columns > 1 else 6.6), 0.4 + 3.2 * rows)
        fig = Figure(figsize=size, layout="constrained")
        fig.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
        FigureCanvasAgg(fig)
        wrapped = textwrap.fill(title, max(20, int(size[0] * 11.5)))
        fig.suptitle(wrapped, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
        return fig, fig.subplots(rows, columns, **options)


def token_labels(texts: Iterable[str | bytes]) -> list[str]:
    """Tokens as they can be read on an axis: spaces, line feeds and tabs made visible."""
    readable = []
    for text in texts:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "backslashreplace")
        for plain, visible in ((" ", "␣"), ("\n", "⏎"), ("\t", "⇥"), ("$", r"\$")):
            text = text.replace(plain, visible)
        readable.append(text or "∅")
    return readable


def labels_of(tokenizer: Tokenizer, ids: Iterable[int]) -> list[str]:
    """Token ids → their labels for an axis."""
    return token_labels(tokenizer.token_bytes(int(i)) for i in ids)


def _array(values: Any) -> Any:
    """A tensor, an array or lists → a NumPy array of floats."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, dtype=float)


def _ticks(axis: Any, labels: Sequence[str] | None, count: int, room: int) -> None:
    """Put labels at the cells' centers, as many as there is room for."""
    step = max(1, -(-count // room))
    if labels is None:
        axis.set_major_locator(_whole_numbers())
        return
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} cells")
    axis.set_ticks(range(0, count, step), list(labels)[::step])


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True, nbins=8)


def _scale(arrays: Sequence[Any], signed: bool, limits: tuple[float, float] | None) -> tuple:
    """The color scale that all of these share: (low, high)."""
    import numpy as np

    if limits is not None:
        return limits
    finite = np.concatenate([a[np.isfinite(a)] for a in arrays])
    if not finite.size:
        raise ValueError("there is no finite number to draw")
    if signed:
        most = float(np.abs(finite).max()) or 1.0
        return -most, most
    low, high = min(0.0, float(finite.min())), float(finite.max())
    return low, high if high > low else low + 1.0


def _draw_cells(
    ax: Any,
    array: Any,
    scale: tuple[float, float],
    signed: bool,
    rows: Sequence[str] | None,
    columns: Sequence[str] | None,
    numbers: str,
) -> Any:
    """One heat map into `ax`; what is not finite stays gray and hatched."""
    import matplotlib
    import numpy as np

    if array.ndim != 2:
        raise ValueError(f"a heat map needs two dimensions, got shape {array.shape}")
    height, width = array.shape
    colors = matplotlib.colormaps[SIGNED if signed else AMOUNTS].with_extremes(bad=(0, 0, 0, 0))
    ax.patch.set(facecolor=NOTHING, hatch="////", edgecolor="#b9b9b6")
    shown = np.ma.masked_invalid(array)
    image = ax.imshow(shown, cmap=colors, vmin=scale[0], vmax=scale[1], interpolation="nearest")
    box = ax.get_window_extent()
    _ticks(ax.xaxis, columns, width, max(8, int(box.width / 12)))
    _ticks(ax.yaxis, rows, height, max(6, int(box.height / 12)))
    if columns is not None and max(map(len, columns)) > 2:
        ax.tick_params(axis="x", labelrotation=90)
    ax.tick_params(length=0)
    for side in ax.spines.values():
        side.set_visible(False)
    if numbers:
        for (i, j), value in np.ndenumerate(array):
            if np.isfinite(value):
                red, green, blue, _ = colors((value - scale[0]) / (scale[1] - scale[0]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                color = "white" if dark else "black"
                written = f"{value:{numbers}}".replace("-", "−")
                ax.text(j, i, written, ha="center", va="center", color=color, fontsize=8)
    return image


def heat_map(
    values: Any,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    numbers: str = "",
    scale_label: str = "",
    size: tuple[float, float] | None = None,
) -> Figure:
    """A table (rows, columns) as colors: from 0 up, or with `signed` in two directions from 0.

    rows, columns: labels, such as `labels_of(tokenizer, ids)`. limits: the scale's ends. numbers:
    a format such as ".2f" writes each value into its cell. What is not finite (−inf, NaN) is gray
    and hatched.
    """
    array = _array(values)
    if size is None:
        tall = 3.2 if array.shape[0] * 2 < array.shape[1] else 4.4
        size = (6.6, tall)
    with _style():
        fig, ax = figure(title, size=size)
        scale = _scale([array], signed, limits)
        image = _draw_cells(ax, array, scale, signed, rows, columns, numbers)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        fig.colorbar(image, ax=ax, label=scale_label, shrink=0.85).outline.set_visible(False)
    return fig


def heat_maps(
    maps: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    signed: bool = False,
    limits: tuple[float, float] | None = None,
    numbers: str = "",
    scale_label: str = "",
    per_row: int = 4,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Several tables side by side under one color scale: {name: values}.

    Labels stand at the left and the bottom; otherwise as `heat_map`.
    """
    arrays = {name: _array(values) for name, values in maps.items()}
    across = min(per_row, len(arrays))
    down = -(-len(arrays) // across)
    size = size or (9.0, 0.9 + (7.6 / across) * down)
    with _style():
        fig, grid = figure(title, down, across, size=size, squeeze=False)
        scale = _scale(list(arrays.values()), signed, limits)
        image = None
        for number, (name, array) in enumerate(arrays.items()):
            ax = grid[number // across, number % across]
            image = _draw_cells(ax, array, scale, signed, rows, columns, numbers)
            ax.set_title(name)
            last_row = number + across >= len(arrays)
            if last_row:
                ax.set_xlabel(xlabel)
            else:
                ax.tick_params(labelbottom=False)
            if number % across == 0:
                ax.set_ylabel(ylabel)
            else:
                ax.tick_params(labelleft=False)
        for ax in grid.flat[len(arrays) :]:
            ax.set_axis_off()
        bar = fig.colorbar(image, ax=grid, label=scale_label, shrink=0.8, aspect=30, pad=0.01)
        bar.outline.set_visible(False)
    return fig


def lines(
    series: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    x: Any = None,
    log: str = "",
    markers: bool = False,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Curves {name: y, or (x, y)}, each in its own color and dash. log: "x", "y" or "xy"."""
    with _style():
        fig, ax = figure(title, size=size)
        draw_lines(ax, series, x=x, markers=markers)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if "x" in log:
            ax.set_xscale("log")
        if "y" in log:
            ax.set_yscale("log")
    return fig


def draw_lines(ax: Any, series: Mapping[str, Any], x: Any = None, markers: bool = False) -> None:
    """The curves of `lines` into axes of a `figure`, with a legend when there are several."""
    with _style():
        for number, (name, values) in enumerate(series.items()):
            pair = isinstance(values, tuple) and len(values) == 2 and hasattr(values[0], "__len__")
            across, up = values if pair else (x, values)
            up = _array(up)
            across = range(len(up)) if across is None else _array(across)
            ax.plot(
                across,
                up,
                color=COLORS[number % len(COLORS)],
                linestyle=DASHES[number % len(DASHES)],
                linewidth=1.8,
                marker="os^Dv<>"[number % 7] if markers else None,
                markersize=4,
                label=name,
            )
        ax.grid(alpha=0.7, linewidth=0.6)
        if len(series) > 1:
            ax.legend()


def bars(
    values: Mapping[str, Any],
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    numbers: str = ".3g",
    horizontal: bool = False,
    log: bool = False,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Bars {name: value}, or groups of bars {series: {name: value}}.

    numbers: the format in which each value is written at its bar, "" for none. xlabel belongs to
    the horizontal axis, whichever way the bars lie.
    """
    grouped = values if isinstance(next(iter(values.values())), Mapping) else {"": values}
    names = list(next(iter(grouped.values())))
    with _style():
        fig, ax = figure(title, size=size)
        thick = 0.8 / len(grouped)
        for number, (series, group) in enumerate(grouped.items()):
            places = [i + (number - (len(grouped) - 1) / 2) * thick for i in range(len(names))]
            heights = [float(group[name]) for name in names]
            draw = ax.barh if horizontal else ax.bar
            drawn = draw(
                places, heights, thick * 0.92, color=COLORS[number], label=series or None, zorder=2
            )
            if numbers:
                written = [f"{h:{numbers}}".replace("-", "−") for h in heights]
                ax.bar_label(drawn, written, fontsize=8, padding=2)
        axis = ax.yaxis if horizontal else ax.xaxis
        axis.set_ticks(range(len(names)), names)
        if horizontal:
            ax.invert_yaxis()
        if log:
            (ax.set_xscale if horizontal else ax.set_yscale)("log")
        ax.grid(axis="x" if horizontal else "y", alpha=0.7, linewidth=0.6, zorder=0)
        ax.margins(**{"x" if horizontal else "y": 0.12})
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if len(grouped) > 1:
            ax.legend()
    return fig


def points(
    x: Any,
    y: Any,
    *,
    title: str,
    xlabel: str,
    ylabel: str,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    size: tuple[float, float] | None = None,
) -> Figure:
    """Points, each with its label (or a dot), in a color per group; labels keep their color's
    group readable by a legend.
    """
    x, y = _array(x), _array(y)
    groups = list(groups) if groups is not None else [""] * len(x)
    with _style():
        fig, ax = figure(title, size=size or (6.6, 4.6))
        for number, group in enumerate(dict.fromkeys(groups)):
            chosen = [i for i, other in enumerate(groups) if other == group]
            color = COLORS[number % len(COLORS)]
            ax.scatter(
                x[chosen],
                y[chosen],
                s=14,
                color=color,
                marker="os^Dv<>"[number % 7],
                label=group or None,
                zorder=2,
            )
            for i in chosen if labels is not None else ():
                ax.annotate(
                    labels[i],
                    (x[i], y[i]),
                    xytext=(3, 3),
                    textcoords="offset points",
                    color=color,
                    fontsize=9,
                )
        ax.grid(alpha=0.7, linewidth=0.6, zorder=0)
        ax.margins(0.08)
        ax.set(xlabel=xlabel, ylabel=ylabel)
        if len(set(groups)) > 1:
            ax.legend()
    return fig


# ── from a figure to a picture ──────────────────────────────────────────────────────────────────


def png(fig: Figure, dpi: int = DPI, colors: int = 224) -> bytes:
    """A figure → a small PNG: a palette of so many colors, no date and no version inside."""
    from PIL import Image

    with _style():
        fig.set_dpi(dpi)
        fig.canvas.draw()
        width, height = fig.canvas.get_width_height()
        pixels = bytes(fig.canvas.buffer_rgba())
    image = Image.frombytes("RGBA", (width, height), pixels).convert("RGB")
    # a picture with few colors keeps them all; the palette is picked without dithering, which
    # would speckle flat areas and grow the file
    image = image.quantize(colors, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return stream.getvalue()


def save(fig: Figure, path: str | Path, dpi: int = DPI) -> Path:
    """Write a figure as a PNG, as a whole."""
    with written_aside(path) as part:
        part.write_bytes(png(fig, dpi))
    return Path(path)


def show(fig: Figure, alt: str) -> None:
    """Display a figure in a notebook, with words for who can't see it.

    alt: what the picture shows, in a sentence or two with its main numbers. ValueError when it
    says too little.
    """
    alt = " ".join(alt.split())
    if len(alt) < 40:
        raise ValueError(f"alt = {alt!r} says too little: a sentence on what the picture shows")
    from IPython.display import display

    picture = base64.b64encode(png(fig)).decode("ascii")
    display(
        {"image/png": picture, "text/plain": alt}, raw=True, metadata={"image/png": {"alt": alt}}
    )
