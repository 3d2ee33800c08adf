"""Figures of a whole data set: rows by class, the mean of each class, the histogram of its values."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import chunk_rows
from .drawing import (
    BLUE,
    BODY,
    FAINT,
    GREEN,
    HEADER,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    SMALL,
    Page,
    counted,
    names_of,
    nice_step,
    percent,
    value_axis,
    widest,
)
from .figure_inputs import at_least_one, image_shape, labels_of, rows_of
from .metrics import checked_labels
from .table_figures import bins_of, table_columns, table_means
from .tiles import tiled_figure, tiles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SPELLED = 40  # up to so many classes have a bar of their own with its count
_BAR, _LINE = 420, 20  # pixels of the longest bar, and from one class to the next
_BINS = 64  # of pixels that are no bytes


def counts_figure(parts: Mapping[str, ArrayLike], classes: Sequence[int | str]) -> Figure:
    """Draw how many rows of each class there are, a bar a class and part.

    parts: name -> class indices (N,), the first one the training part; at most two. Up to 40 classes are written
    out with counts and shares. Raises ValueError or TypeError for labels that are no index, and no rows.
    """
    names = names_of(classes)
    if not 1 <= len(parts) <= 2:
        raise ValueError(f"parts: {len(parts)} of them, wanted one or two, such as training and test")
    counts = {part: np.bincount(checked_labels(part, y, len(names)), minlength=len(names)) for part, y in parts.items()}
    first = next(iter(counts.values()))
    subtitle = " and ".join(f"{int(count.sum()):,} {part}" for part, count in counts.items())
    subtitle += f" rows in {counted(len(names), 'class', 'classes')}  ·  {first.min():,}"
    subtitle += f" to {first.max():,}" * bool(first.min() < first.max()) + f" {next(iter(counts))} rows a class"
    pair = dict(zip(counts, (BLUE, ORANGE), strict=False))
    spelled = len(names) <= _SPELLED
    beside = widest(names, SMALL)
    pitch = _LINE + 16 * (len(counts) - 1) if spelled else max(1, 640 // len(names))
    tall, top = min(pitch * len(names), 2000), 24 * (len(counts) > 1)
    page = Page(beside + 12 + _BAR + 110, top + tall + (10 if spelled else 40), "Classes", subtitle, names)
    left = MARGIN + beside + 12
    panel = page.panel(left, HEADER + top, _BAR, tall)
    most = max(int(count.max()) for count in counts.values())
    panel.set(xlim=(0, max(most, 1)), ylim=(len(names) - 0.5, -0.5))
    if len(counts) > 1:
        page.key(left, HEADER + 4, pair)
    each = 0.8 / len(counts)
    for k, (part, count) in enumerate(counts.items()):
        if pitch * each < 3:  # bars, and for the second part a line over them: side by side they would blend
            edges = np.arange(len(names) + 1) - 0.5
            panel.stairs(count, edges, orientation="horizontal", fill=not k, color=pair[part], linewidth=k * 1.2)
            continue
        middles = np.arange(len(names)) + (k - (len(counts) - 1) / 2) * each
        panel.barh(middles, count, each, color=pair[part], linewidth=0)
        for middle, number in zip(middles, count, strict=True) if spelled else ():
            x, y = left + _BAR * number / max(most, 1) + 6, HEADER + top + (middle + 0.5) * pitch
            page.text(x, y, f"{number:,}", SMALL, va="center")
            x += page.measure(f"{number:,}", SMALL) + 6
            page.text(x, y, percent(number / max(int(count.sum()), 1)), SMALL, MUTED, va="center")
    panel.spines["bottom"].set_visible(not spelled)
    if spelled:
        panel.set_xticks([])
        page.ticks(panel.yaxis, range(len(names)), names, INK)
    else:
        _many_classes(page, panel, names, most)
    return page.figure


def _many_classes(page: Page, panel: Any, names: list[str], most: int) -> None:
    """Axes where there is no room to name each class and write its count."""
    step = nice_step(16 * len(names) / panel.bbox.height)
    page.ticks(panel.yaxis, range(0, len(names), step), names[::step], INK)
    ticks = range(0, most + 1, nice_step(most / 5))
    page.ticks(panel.xaxis, ticks, [f"{tick:,}" for tick in ticks])
    panel.grid(True, axis="x", color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    page.titles(panel, "rows")


def means_figure(
    x: ArrayLike,
    y: ArrayLike,
    shape: Sequence[int],
    classes: Sequence[int | str],
    *,
    full_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Draw the mean of each class: images as tiles, of a table a heat map of columns by classes.

    x (N, D) or (N, *shape) raw inputs, y (N,) class indices, shape (C, H, W) or (D,). At most 100 classes of
    images are shown. full_scale: the value shown as white; None takes the largest mean. Raises ValueError or
    TypeError for shapes that do not fit and labels that are no index.
    """
    rows = rows_of(x, shape)
    names = names_of(classes)
    labels = labels_of("y", y, len(names), len(rows))
    counts = np.bincount(labels, minlength=len(names))
    there = np.flatnonzero(counts)
    shown = there if len(shape) == 1 else there[:100]
    means = np.array([rows[labels == k].mean(axis=0, dtype=np.float64) for k in shown])
    subtitle = f"the mean of each class's rows, {len(rows):,} in {counted(len(names), 'class', 'classes')}"
    if len(shape) == 1:
        return table_means(rows, means, [names[k] for k in shown], feature_names, subtitle)
    subtitle += f"  ·  {len(shown)} of them" * (len(shown) < len(there))
    captions = [[(names[k], INK), (f"{counts[k]:,}", MUTED)] for k in shown]
    tiles = tiles_of(means, shape, full_scale, 128)
    return tiled_figure("Class means", subtitle, tiles, 5 if len(shown) <= 12 else 10, captions)


def histogram_figure(
    x: ArrayLike,
    shape: Sequence[int],
    *,
    full_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
    count: int = 48,
) -> Figure:
    """Draw how often each value occurs: of images one histogram of all pixels, of a table one a column.

    x (N, D) or (N, *shape) raw inputs, shape (C, H, W) or (D,). Three channels have a line each. full_scale: the
    value that is white. Of a table the first `count` columns are shown. Raises ValueError or TypeError for
    shapes that do not fit.
    """
    rows = rows_of(x, shape)
    at_least_one("count", count)
    if len(shape) == 1:
        subtitle = f"{counted(rows.shape[1], 'column')} of {counted(len(rows), 'row')}"
        return table_columns(rows, feature_names, count, subtitle)
    channels, height, width = image_shape(shape)
    lines = channels if channels == 3 else 1
    found = _pixels(rows, lines, full_scale)
    subtitle = f"{counted(len(rows), 'image')} of {width} x {height}"
    subtitle += f"  ·  mean {found.mean:.4g}, deviation {found.deviation:.4g}"
    if full_scale is not None and full_scale != 1:
        subtitle += f" (of full scale {found.mean / full_scale:.4f} and {found.deviation / full_scale:.4f})"
    if found.zeros >= 0.0005:
        subtitle += f"  ·  {percent(found.zeros)} are 0"
    page = Page(776, 330, "Pixels", subtitle)
    panel = page.panel(MARGIN + 56, HEADER + 24, 720, 260)
    edges, shares = found.edges, found.counts / found.counts.sum(axis=1, keepdims=True)
    seen = shares[shares > 0]
    value_axis(page, panel, float(seen.min()), float(seen.max()), "share")
    bottom = panel.get_ylim()[0]
    if lines == 1:
        panel.stairs(shares[0], edges, baseline=bottom, fill=True, color=BLUE, linewidth=0)
    else:
        hues = {"red": ORANGE, "green": GREEN, "blue": BLUE}
        for share, colour in zip(shares, hues.values(), strict=True):
            panel.stairs(share, edges, baseline=None, color=colour, linewidth=1.4)
        page.key(MARGIN + 56, HEADER + 4, hues)
    page.text(MARGIN, HEADER + 4, "share", BODY, MUTED, va="center")
    panel.set_axisbelow(True)
    panel.set_xlim(edges[0], edges[-1])
    _value_ticks(page, panel)
    return page.figure


def _value_ticks(page: Page, panel: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = panel.get_xlim()
    ticks = [tick for tick in MaxNLocator(9, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    page.ticks(panel.xaxis, ticks, [f"{tick:.4g}" for tick in ticks])
    page.titles(panel, "value of a pixel")


class _Pixels(NamedTuple):
    """How often values occur: counts (lines, bins) between edges (bins + 1,), and figures of all of them."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]
    mean: float
    deviation: float
    zeros: float  # the share of values that are 0


def _pixels(rows: NDArray[Any], lines: int, full_scale: float | None) -> _Pixels:
    """Count the values of rows (N, D), whose D falls into `lines` equal channels.

    Bytes have a bin each, in three channels a bin of four, for calmer lines; other values 64 bins of one width.
    """
    low, high = min(float(rows.min()), 0.0), max(float(rows.max()), full_scale or 0.0)
    high = high if high > low else low + 1
    if rows.dtype == np.uint8:
        bins = int(high) + 1
        edges = np.arange(bins + 1) - 0.5
    else:
        bins, edges = _BINS, np.linspace(low, high, _BINS + 1)
    counts = np.zeros((lines, bins), np.int64)
    total = squares = 0.0
    zeros = 0
    middle = float(rows[0].mean(dtype=np.float64))  # squares of what is left lose no digits
    for part in _chunks(rows):
        for line, values in enumerate(np.split(part, lines, axis=1)):
            flat = values.reshape(-1)
            places = flat if flat.dtype == np.uint8 else bins_of(flat, low, high, bins)
            counts[line] += np.bincount(places, minlength=bins)
        moved = part - middle
        with np.errstate(over="ignore"):  # of values whose deviation is more than any number
            total, squares = total + float(moved.sum()), squares + float(np.square(moved).sum())
        zeros += part.size - int(np.count_nonzero(part))
    if lines == 3 and bins == 256:
        counts, edges = counts.reshape(lines, -1, 4).sum(axis=2), edges[::4]
    mean = total / rows.size
    deviation = math.sqrt(max(squares / rows.size - mean * mean, 0.0))
    return _Pixels(counts, edges.astype(np.float64), middle + mean, deviation, zeros / rows.size)


def _chunks(rows: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The rows a few at a time: bins and squares of all of them at once would take many times their memory."""
    step = chunk_rows(rows.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        yield part if part.dtype == np.uint8 else part.astype(np.float64)
