"""Figures of tables: rows, weights and means as heat maps of the columns, histograms, mistakes by probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .drawing import (
    BLUE,
    FAINT,
    HEADER,
    INK,
    KEY,
    MARGIN,
    MUTED,
    NAME_ROOM,
    ORANGE,
    SMALL,
    Page,
    check_names,
    colours,
    nice_step,
    round_ticks,
    signed_key,
    widest,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 40  # up to so many columns of a table are named
_CELL = (168, 64)  # pixels of one column's histogram: width, height
_BARS = 24  # of a histogram


def table_samples(
    rows: NDArray[Any],
    labels: NDArray[np.int64],
    names: list[str],
    feature_names: Sequence[str] | None,
    per_class: int,
    subtitle: str,
) -> Figure:
    """Heat map of the first rows of each class, every column in its standard deviations from its mean."""
    each = max(1, min(per_class, 120 // len(names)))
    chosen = [np.flatnonzero(labels == k)[:each] for k in range(len(names))]
    values = _standardised(rows, rows[np.concatenate(chosen)])
    subtitle += _DEVIATIONS
    groups = [(names[k], len(indices)) for k, indices in enumerate(chosen) if len(indices)]
    return _heat_map("Samples", subtitle, values.T, 3.0, feature_names, groups, "rows of each class")


_DEVIATIONS = "  ·  standard deviations from a column's mean"


def _standardised(rows: NDArray[Any], values: NDArray[Any]) -> NDArray[np.float64]:
    """Values (n, D) in standard deviations of the rows (N, D) from their means; 0 in a constant column."""
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    standardised: NDArray[np.float64] = (values - mean) / np.where(deviation > 0, deviation, 1)
    return standardised


def table_means(
    rows: NDArray[Any],
    means: NDArray[np.float64],
    names: list[str],
    feature_names: Sequence[str] | None,
    subtitle: str,
) -> Figure:
    """Heat map of the classes' means (K, D), every column in its standard deviations from its mean."""
    values = _standardised(rows, means).T
    limit = max(float(np.abs(values).max()), 0.1)  # paler where the classes hardly differ
    groups = [(name, 1) for name in names]
    return _heat_map("Class means", subtitle + _DEVIATIONS, values, limit, feature_names, groups, "class")


def table_columns(
    rows: NDArray[Any], feature_names: Sequence[str] | None, count: int, subtitle: str
) -> Figure:  # fmt: skip
    """A small histogram of each of the first `count` columns, with its smallest and its largest value."""
    shown = _column_names(feature_names, rows.shape[1])[:count]
    subtitle += f", the first {len(shown)} shown" * (len(shown) < rows.shape[1])
    across = min(len(shown), 6 if len(shown) > 9 else 3)
    width, height = _CELL
    pitch = width + 26, height + 62
    page = Page(across * pitch[0] - 26, -(-len(shown) // across) * pitch[1] - 22, "Columns", subtitle, shown)
    for k, name in enumerate(page.fit_each(shown, width, SMALL)):
        left, top = MARGIN + k % across * pitch[0], HEADER + k // across * pitch[1]
        column = np.asarray(rows[:, k], np.float64)
        page.text(left, top + 8, name, SMALL, INK, va="baseline")
        page.picture(left, top + 16, _bars(_histogram(column), width, height))
        low, high = float(column.min()), float(column.max())
        if low == high:
            page.text(left, top + height + 30, f"always {low:.4g}", SMALL, MUTED, va="baseline")
            continue
        page.text(left, top + height + 30, f"{low:.4g}", SMALL, MUTED, va="baseline")
        page.text(left + width, top + height + 30, f"{high:.4g}", SMALL, MUTED, va="baseline", ha="right")
    return page.figure


def _histogram(column: NDArray[np.float64]) -> NDArray[np.int64]:
    """Counts of equally wide bins from the smallest to the largest value; a bin a number of few whole ones."""
    low, high = float(column.min()), float(column.max())
    if low == high:
        return np.array([len(column)])
    if high - low < _BARS and bool((column == np.floor(column)).all()):
        return np.bincount((column - low).astype(np.int64))
    return np.bincount(bins_of(column, low, high, _BARS), minlength=_BARS)


def bins_of(values: NDArray[np.float64], low: float, high: float, bins: int) -> NDArray[np.int64]:
    """For each value from low to high, which is more, the index of its bin among equally wide ones."""
    # halved, so that no difference of two large numbers overflows
    share = (values / 2 - low / 2) / (high / 2 - low / 2)
    return np.minimum(share * bins, bins - 1).astype(np.int64)


def _bars(counts: NDArray[np.int64], width: int, height: int) -> NDArray[np.float64]:
    """Bars as an image (height, width, 3) on a light ground; a bar of few rows is still a pixel high."""
    heights = np.ceil(counts / counts.max() * (height - 6)).astype(np.int64)
    edges = np.linspace(0, width, len(counts) + 1).round().astype(np.int64)
    image = np.full((height, width, 3), 0.955)
    for left, right, tall in zip(edges, edges[1:], heights, strict=False):
        gap = int(right - left > 4 and right < width)
        image[height - tall :, left : right - gap] = colours("blue")(2 / 3)[:3]
    return image


def _column_names(feature_names: Sequence[str] | None, features: int) -> list[str]:
    """The columns' names, or their numbers from 1."""
    if feature_names is None:
        return [str(k + 1) for k in range(features)]
    return check_names("feature_names", feature_names, features, "columns")


def table_weights(
    shown: NDArray[np.float64],
    limit: float,
    subtitle: str,
    labels: list[str] | None,
    feature_names: Sequence[str] | None,
) -> Figure:
    groups = [(name, 1) for name in labels or []]
    return _heat_map("Weights", subtitle, shown, limit, feature_names, groups, "output" if labels else "unit")


def _heat_map(
    title: str,
    subtitle: str,
    values: NDArray[np.float64],
    limit: float,
    feature_names: Sequence[str] | None,
    groups: list[tuple[str, int]],
    below: str,
) -> Figure:
    """Heat map (columns of the table, n) in signed colours; groups (name, size) part the n."""
    features, count = values.shape
    names = _column_names(feature_names, features)
    across = [name for name, _ in groups]
    tall = max(18, 90 // features) if features <= _NAMED else max(1, 640 // features)
    beside = widest(names, SMALL, others=across)
    widths = [widest([name], SMALL, math.inf, names + across) for name in across]
    # a column that is a class of its own is as wide as its name, if that is not long
    most = max(26, *(math.ceil(room) + 14 for room in widths)) if len(groups) == count else 26
    wide = max(min(760 // count, most, 90), 1)
    width, height = wide * count, tall * features
    upright = any(room > size * wide - 4 for room, (_, size) in zip(widths, groups, strict=True))
    # room for the names of the groups and for the axis' label
    under = min(max(widths), NAME_ROOM) + 36 if upright else 44 if groups else 22
    left = MARGIN + 24 + math.ceil(beside)
    page = Page(left - MARGIN + max(width, KEY), height + under + 50, title, subtitle, names + across)
    panel = page.panel(left, HEADER, width, height)
    colour_map, finest = colours("signed"), height >= features and width >= count
    how = "nearest" if finest else "antialiased"
    panel.imshow(values, cmap=colour_map, vmin=-limit, vmax=limit, aspect="auto", interpolation=how)
    page.frame(panel)
    ticks = list(range(features))
    if features > _NAMED:
        ticks = [number - 1 for number in round_ticks(1, features, 12)]
    page.ticks(panel.yaxis, ticks, [names[k] for k in ticks], INK)
    page.titles(panel, below, "column")
    _group_ticks(page, panel, groups, upright)
    signed_key(page, left, HEADER + height + under + 14, f"{limit:.2g}")
    return page.figure


def _group_ticks(page: Page, panel: Axes, groups: list[tuple[str, int]], upright: bool) -> None:
    """Name each group under its middle, and draw lines between groups of several."""
    starts = np.cumsum([0, *(size for _, size in groups)])
    step = nice_step(14 * len(groups) / panel.bbox.width)
    middles = ((starts[:-1] + starts[1:] - 1) / 2)[::step]
    page.ticks(panel.xaxis, middles, [name for name, _ in groups[::step]], INK, upright=upright)
    if groups and starts[-1] > len(groups):
        bottom, top = panel.get_ylim()
        panel.vlines(starts[1:-1] - 0.5, bottom, top, color=MUTED, linewidth=0.8)
        panel.set(xlim=(-0.5, starts[-1] - 0.5), ylim=(bottom, top))


def table_mistakes(
    worst: NDArray[np.intp],
    truth: NDArray[np.int64],
    guess: NDArray[np.int64],
    proba: NDArray[Any],
    names: list[str],
    subtitle: str,
) -> Figure:
    """One line a mistake: from the probability of the true class to that of the predicted one."""
    count = len(worst)
    lines = [f"row {row + 1}:  {names[truth[row]]} → {names[guess[row]]}" for row in worst]
    beside = widest(lines, SMALL, 2 * NAME_ROOM)
    page = Page(beside + 12 + 420, 24 * count + 70, "Worst mistakes", subtitle, lines)
    panel = page.panel(MARGIN + beside + 12, HEADER + 22, 400, 24 * count)
    middle = np.arange(count)
    true, said = proba[worst, truth[worst]], proba[worst, guess[worst]]
    panel.hlines(middle, true, said, color=FAINT, linewidth=3)
    for numbers, colour, name in ((true, BLUE, "true class"), (said, ORANGE, "predicted class")):
        panel.plot(numbers, middle, "o", color=colour, markersize=6, label=name, clip_on=False)
    panel.set(xlim=(0, 1), ylim=(count - 0.5, -0.5))
    ticks = np.array([0, 0.25, 0.5, 0.75, 1])
    page.ticks(panel.xaxis, ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    page.ticks(panel.yaxis, middle, lines, INK, room=beside + 1)
    panel.grid(True, axis="x", color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    page.titles(panel, "probability")
    page.key(MARGIN + beside + 12, HEADER + 4, {"true class": BLUE, "predicted class": ORANGE})
    return page.figure
