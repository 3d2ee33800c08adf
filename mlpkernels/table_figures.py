"""Figures of tables: rows and weights as heat maps of the columns, mistakes by their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .drawing import (
    BLUE,
    BODY,
    FAINT,
    HEADER,
    KEY,
    MARGIN,
    MUTED,
    NAME_ROOM,
    ORANGE,
    SMALL,
    Page,
    check_names,
    colours,
    families_for,
    nice_step,
    round_ticks,
    signed_key,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAMED = 40  # up to so many columns of a table are named


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
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    values = (rows[np.concatenate(chosen)] - mean) / np.where(deviation > 0, deviation, 1)
    subtitle += "  ·  standard deviations from a column's mean"
    groups = [(names[k], len(indices)) for k, indices in enumerate(chosen) if len(indices)]
    return _heat_map("Samples", subtitle, values.T, 3.0, feature_names, groups, "rows of each class")


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
    names = [str(k + 1) for k in range(features)]
    if feature_names is not None:
        names = check_names("feature_names", feature_names, features, "columns")
    across = [name for name, _ in groups]
    fonts = families_for("".join(names + across))
    tall = max(18, 90 // features) if features <= _NAMED else max(1, 640 // features)
    wide = max(min(760 // count, 26), 1)
    width, height = wide * count, tall * features
    beside = min(max(text_width(name, SMALL, fonts) for name in names), NAME_ROOM)
    widths = [text_width(name, SMALL, fonts) for name in across]
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
    panel.set_yticks(ticks, [page.fit(names[k], NAME_ROOM, SMALL) for k in ticks], **page.font(SMALL))
    panel.set_ylabel("column", labelpad=8, **page.font(BODY, MUTED))
    panel.set_xlabel(below, labelpad=6, **page.font(BODY, MUTED))
    _group_ticks(page, panel, groups, upright)
    signed_key(page, left, HEADER + height + under + 14, f"{limit:.2g}")
    return page.figure


def _group_ticks(page: Page, panel: Axes, groups: list[tuple[str, int]], upright: bool) -> None:
    """Name each group under its middle, and draw lines between groups of several."""
    starts = np.cumsum([0, *(size for _, size in groups)])
    step = nice_step(14 * len(groups) / panel.bbox.width)
    middles = ((starts[:-1] + starts[1:] - 1) / 2)[::step]
    labels = [page.fit(name, NAME_ROOM, SMALL) for name, _ in groups[::step]]
    panel.set_xticks(middles, labels, rotation=90 if upright else 0, **page.font(SMALL))
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
    fonts = families_for("".join(lines))
    beside = min(max(text_width(line, SMALL, fonts) for line in lines), 2 * NAME_ROOM)
    page = Page(beside + 12 + 420, 24 * count + 70, "Worst mistakes", subtitle, lines)
    panel = page.panel(MARGIN + beside + 12, HEADER + 22, 400, 24 * count)
    middle = np.arange(count)
    true, said = proba[worst, truth[worst]], proba[worst, guess[worst]]
    panel.hlines(middle, true, said, color=FAINT, linewidth=3)
    for numbers, colour, name in ((true, BLUE, "true class"), (said, ORANGE, "predicted class")):
        panel.plot(numbers, middle, "o", color=colour, markersize=6, label=name, clip_on=False)
    panel.set(xlim=(0, 1), ylim=(count - 0.5, -0.5))
    ticks = np.array([0, 0.25, 0.5, 0.75, 1])
    panel.set_xticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks], **page.font(SMALL, MUTED))
    panel.set_yticks(middle, [page.fit(line, beside + 1, SMALL) for line in lines], **page.font(SMALL))
    panel.grid(True, axis="x", color=FAINT, linewidth=0.8)
    panel.set_axisbelow(True)
    panel.set_xlabel("probability", labelpad=6, **page.font(BODY, MUTED))
    x = MARGIN + beside + 12
    for text, colour in (("● true class", BLUE), ("● predicted class", ORANGE)):
        page.text(x, HEADER + 4, text, SMALL, colour, va="center")
        x += page.measure(text, SMALL) + 18
    return page.figure
