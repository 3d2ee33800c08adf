"""Every figure: learning curves, confusion matrix, worst mistakes, first-layer weights, and those of data sets.

Each function returns a `matplotlib.figure.Figure` that belongs to nobody else: pyplot and its global state
stay untouched, and Matplotlib is imported by the first call.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .data_figures import counts_figure, histogram_figure, means_figure
from .drawing import (
    BLUE,
    BODY,
    FAINT,
    HEADER,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    SMALL,
    Page,
    apart,
    check_names,
    colours,
    counted,
    message_figure,
    nice_step,
    percent,
    round_ticks,
    value_axis,
    widest,
)
from .errors import DataError
from .files import write_atomic
from .gallery import filters_figure, mistakes_figure, samples_figure, weights_figure
from .metrics import check_confusion, class_report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "confusion_figure",
    "counts_figure",
    "drawn_here",
    "filters_figure",
    "histogram_figure",
    "history_figure",
    "means_figure",
    "mistakes_figure",
    "read_history",
    "samples_figure",
    "save_figure",
    "weights_figure",
]

_PARTS = {"train": ("training", MUTED), "val": ("validation", ORANGE), "test": ("test", BLUE)}
_SOFTWARE = "mlpkernels"  # the program that a PNG names
_NUMBERED = 25  # up to so many classes, every cell of a confusion matrix shows its count
_LARGE, _LARGEST = 820, 2000  # pixels of a confusion matrix: of more classes, and where a class gets no pixel
_PRECISION, _RECALL = "precision, %", "recall, %"


# Learning curves


def read_history(path: str | os.PathLike[str]) -> list[dict[str, float | None]]:
    """Read a run's history.csv: one dict an epoch, None where a cell is empty.

    Raises DataError that names file, row and column where the file is damaged, OSError where it cannot be
    opened.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file ({error}); train again to write a new one") from error
    if not lines or "epoch" not in lines[0]:
        found = f"starts with {','.join(lines[0])[:60]!r}" if lines else "is empty"
        raise DataError(f"{path}: {found}, wanted a header line epoch,train_loss,…; is this a run's history.csv?")
    header = lines[0]
    history: list[dict[str, float | None]] = []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) != len(header):
            raise DataError(
                f"{path}: line {number} has {len(cells)} cells, wanted {len(header)}; remove it if the run was cut off"
            )
        row: dict[str, float | None] = {}
        for column, cell in zip(header, cells, strict=True):
            try:
                row[column] = float(cell) if cell else None
            except ValueError:
                raise DataError(f"{path}: line {number}, column {column}: {cell!r} is no number") from None
        epoch = row["epoch"]
        if epoch is None or not epoch.is_integer() or epoch < 1:
            raise DataError(f"{path}: line {number}, column epoch: {epoch}, wanted the epoch's number, 1 or more")
        history.append(row)
    return history


def history_figure(history: Sequence[Mapping[str, float | None] | Any]) -> Figure:
    """Draw loss and accuracy by epoch.

    history: one mapping or EpochResult an epoch with `epoch`, `train_loss`, `train_accuracy`, `val_loss` and
    so on, as `fit` yields and `read_history` reads them. What is missing, None or not finite is left out.
    Losses that span more than a factor of 50 get a logarithmic axis. Numbers beside the lines are the last
    epoch's; where the validation loss was lowest before it, a dotted line stands there. Raises ValueError
    where a row has no epoch.
    """
    names = [f"{part}_{quantity}" for part in _PARTS for quantity in ("loss", "accuracy")]
    columns = {name: np.array([_cell(row, name) for row in history], float) for name in ("epoch", *names)}
    epochs = columns["epoch"]
    if not len(epochs):
        return message_figure("Training", "No epoch is finished yet.")
    if not np.isfinite(epochs).all():
        raise ValueError(f"history: row {int(np.argmin(np.isfinite(epochs))) + 1} has no epoch number")
    best = columns["val_loss"]
    subtitle, marked = counted(len(epochs), "epoch"), None
    if np.isfinite(best).any():
        lowest = int(np.nanargmin(np.where(np.isfinite(best), best, np.nan)))
        subtitle += f"  ·  lowest validation loss {_loss_text(best[lowest])} in epoch {epochs[lowest]:.0f}"
        if epochs[lowest] != epochs[-1]:
            marked = epochs[lowest]
            subtitle += f", dotted; on the right epoch {epochs[-1]:.0f}"
    page = Page(1100, 320, "Training", subtitle)
    classes = any(np.isfinite(columns[f"{part}_accuracy"]).any() for part in _PARTS)
    titles = {"loss": "Loss (mean cross-entropy)" if classes else "Loss (mean)", "accuracy": "Accuracy"}
    for left, (quantity, title) in zip((MARGIN, MARGIN + 566), titles.items(), strict=True):
        panel = page.panel(left + 48, HEADER + 26, 340, 250)
        page.text(left, HEADER + 8, title, BODY, bold=True, va="baseline")
        series = {part: columns[f"{part}_{quantity}"] for part in _PARTS}
        _curves(page, panel, epochs, series, percents=quantity == "accuracy")
        if marked is not None and panel.axison:
            panel.axvline(marked, color=MUTED, linewidth=1.0, linestyle=":", zorder=0.5)
    return page.figure


def _cell(row: Mapping[str, float | None] | Any, name: str) -> float:
    value = row.get(name) if isinstance(row, Mapping) else getattr(row, name, None)
    return np.nan if value is None or value == "" else float(value)


def _curves(page: Page, panel: Axes, epochs: NDArray[Any], series: dict[str, NDArray[Any]], percents: bool) -> None:
    """Draw one line a part, named at its end together with its last value."""
    values = np.concatenate(list(series.values()))
    values = values[np.isfinite(values)]
    if not len(values):
        panel.set_axis_off()
        panel.text(0, 0.5, "not recorded", transform=panel.transAxes, **page.font(BODY, MUTED))
        return
    value_axis(page, panel, float(values.min()), float(values.max()), "accuracy" if percents else "value")
    side = 0.5 if len(epochs) == 1 else 0.02 * (epochs.max() - epochs.min())
    panel.set_xlim(epochs.min() - side, epochs.max() + side)
    ticks = round_ticks(int(epochs.min()), int(epochs.max()), 6)
    page.ticks(panel.xaxis, ticks, map(str, ticks))
    page.titles(panel, "epoch")
    ends = []
    for part, numbers in series.items():
        seen = np.isfinite(numbers)
        if not seen.any():
            continue
        name, colour = _PARTS[part]
        style: dict[str, Any] = {
            "color": colour,
            "linewidth": 1.8,
            "markersize": 3.5,
            "label": name,
            "clip_on": False,
        }
        panel.plot(epochs[seen], numbers[seen], "o-" if seen.sum() <= 30 else "-", **style)
        last = float(numbers[seen][-1])
        text = f"{name} {percent(last) if percents else _loss_text(last)}"
        ends.append((page.height - panel.transData.transform((0, last))[1], text, colour))
    right = panel.bbox.x1 + 10
    for y, (_, text, colour) in zip(apart([end[0] for end in ends], 17.0), ends, strict=True):
        page.text(right, y, text, BODY, colour, va="center")


def _loss_text(loss: float) -> str:
    return f"{loss:.3f}" if 0.01 <= abs(loss) < 100 else f"{loss:.2g}"


# Confusion matrix


def confusion_figure(matrix: ArrayLike, classes: Sequence[int | str]) -> Figure:
    """Draw a confusion matrix (K, K), rows = true class: right in blue, mistakes in orange.

    A cell's colour is its share of the true class. Up to 25 classes, counts, recall and precision are
    written out. Raises ValueError or TypeError for a matrix that is no square of counts or does not have one
    row a class.
    """
    counts = check_confusion(matrix)
    count, rows, right = len(counts), int(counts.sum()), int(np.trace(counts))
    names = check_names("classes", classes, count, "rows of the matrix")
    numbered = count <= _NUMBERED
    sizes = ((2, 84), (6, 56), (15, 46), (_NUMBERED, 38))
    cell = next((pixels for most, pixels in sizes if count <= most), max(_LARGE // count, 1))
    size = min(cell * count, _LARGEST)
    # names keep to a limit, and stand on end under columns that are narrower
    longest = widest(names, SMALL)
    upright = longest > cell - 6
    below = longest if upright else 12.0
    beside = max(longest, widest([_PRECISION], SMALL, others=names) if numbered else 0)
    above = 22 if numbered else 0
    left = MARGIN + 34 + math.ceil(beside)

    subtitle = f"{right:,} of {rows:,} right ({percent(right / max(rows, 1))})  ·  {rows - right:,} wrong"
    page = Page(left - MARGIN + size + 80, above + size + below + 32, "Confusion matrix", subtitle, names)
    panel = page.panel(left, HEADER + above, size, size)
    image, worst = _confusion_colours(counts)
    panel.imshow(image, interpolation="nearest" if size >= count else "antialiased", aspect="auto")
    if size >= 10 * count:
        edges = np.arange(1, count) - 0.5
        colour, width = ("white", 1.2) if numbered else (FAINT, 0.5)
        panel.hlines(edges, -0.5, count - 0.5, color=colour, linewidth=width)
        panel.vlines(edges, -0.5, count - 0.5, color=colour, linewidth=width)
    panel.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
    page.frame(panel)

    page.titles(panel, "predicted class", "true class")
    ticks = np.arange(0, count, nice_step(14 * count / size))
    labels = [names[tick] for tick in ticks]
    page.ticks(panel.xaxis, ticks, labels, INK, upright=upright)
    page.ticks(panel.yaxis, ticks, labels, INK)
    if numbered:
        _confusion_numbers(page, panel, counts, image)
    else:
        _confusion_keys(page, left + size + 16, HEADER, worst)
    return page.figure


def _confusion_colours(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
    """Return the cells' colours (K, K, 3) and the share of a class at which a mistake is fully orange."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    mistaken = np.where(diagonal, 0, share)
    # full orange from a tenth of a class on; a single row is seen all the same
    worst = max(float(mistaken.max()), 0.1)
    orange = colours("orange")(np.where(mistaken > 0, 0.12 + 0.88 * mistaken / worst, 0))
    blue = colours("blue")(0.85 * share)
    return np.where(diagonal[..., None], blue, orange)[..., :3], worst


def _confusion_numbers(page: Page, panel: Axes, counts: NDArray[np.int64], image: NDArray[np.float64]) -> None:
    """Write each count into its cell, recall at the right of its row, precision above its column."""
    cell = panel.bbox.width / len(counts)
    luminance = image @ np.array([0.299, 0.587, 0.114])
    for row, column in np.argwhere(counts > 0):
        text = _short_count(int(counts[row, column]))
        size = min(BODY, BODY * (cell - 6) / page.measure(text, BODY))
        ink = "white" if luminance[row, column] < 0.55 else INK
        panel.text(column, row, text, ha="center", va="center", **page.font(size, ink, bold=bool(row == column)))
    report = class_report(counts)
    left, top, right = panel.bbox.x0, page.height - panel.bbox.y1, panel.bbox.x1
    page.text(left - 10, top - 8, _PRECISION, SMALL, MUTED, ha="right", va="baseline")
    page.text(right + 10, top - 8, _RECALL, SMALL, MUTED, va="baseline")
    for k, (predicted, support) in enumerate(zip(counts.sum(axis=0), report.support, strict=True)):
        middle = (k + 0.5) * cell
        precision = f"{100 * report.precision[k]:.0f}" if predicted else "n/a"
        recall = f"{100 * report.recall[k]:.0f}" if support else "n/a"
        page.text(left + middle, top - 8, precision, SMALL, MUTED, ha="center", va="baseline")
        page.text(right + 10, top + middle, recall, SMALL, MUTED, va="center")


def _short_count(count: int) -> str:
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 1e6 else f"{count / 1e6:.3g}M"


def _confusion_keys(page: Page, left: float, top: float, worst: float) -> None:
    """Draw what the colours mean where the cells are too small for numbers."""
    page.text(left, top, "share of the", SMALL, MUTED, va="top")
    page.text(left, top + 15, "true class", SMALL, MUTED, va="top")
    for y, name, colour, full in ((top + 58, "right", "blue", 1.0), (top + 220, "mistaken", "orange", worst)):
        low, high = (0.0, 0.85) if colour == "blue" else (0.12, 1.0)
        ramp = colours(colour)(np.linspace(high, low, 110))[:, None, :3]
        page.picture(left, y, np.repeat(ramp, 14, axis=1))
        page.text(left, y - 7, name, SMALL, INK, va="baseline")
        page.text(left + 20, y, f"{100 * full:.0f} %", SMALL, MUTED, va="top")
        page.text(left + 20, y + 110, "0 %", SMALL, MUTED, va="bottom")


# Files


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write the figure, as PNG or what else the name's ending says, whole or not at all.

    Raises OSError where the file cannot be written, ValueError for an ending that Matplotlib does not know.
    """
    buffer, form = io.BytesIO(), Path(path).suffix[1:] or "png"
    metadata = {"Software": _SOFTWARE} if form.lower() == "png" else None
    figure.savefig(buffer, format=form, dpi=figure.dpi, facecolor="white", metadata=metadata)
    write_atomic(path, buffer.getvalue())


def drawn_here(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a PNG that `save_figure` wrote. OSError where it cannot be read."""
    with open(path, "rb") as file:
        start = file.read(1024)
    return start.startswith(b"\x89PNG") and f"Software\0{_SOFTWARE}".encode() in start
