"""Heat maps of a sweep: accuracy over two options, or over one option and the epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .drawing import BODY, FAINT, HEADER, INK, MARGIN, MUTED, SMALL, Page, colours, nice_step, percent, widest
from .sweep_results import Group, Value, ordered
from .sweep_scale import Scale, name_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WRITTEN = 16  # rows and columns at most for spreads in the cells
_MOST = 25  # values of an option in a map of cells; more are points
_KEY = 142  # pixels right of a map for what its colours mean
_NAMES = 130  # pixels at most for a value's name


def heat_figure(
    found: Sequence[Group],
    pair: tuple[str, str],
    rest: Sequence[str],
    measure: str,
    name: str,
    counted: Callable[[bool], str],
    logarithmic: Collection[str],
) -> Figure:
    """Final accuracy over two options, of each cell the best of the `rest`; points where values are many.

    counted(spread): the subtitle's words about the networks, with or without their spread.
    """
    up, across = pair
    rows, columns = (ordered({group.settings[option] for group in found}) for option in pair)
    words = f"  ·  the best of {' and '.join(rest)}" if rest else ""
    title = f"Final {name} by {up} and {across}"
    if max(len(rows), len(columns)) > _MOST:
        return _points(found, pair, measure, title, counted(False), logarithmic)
    cells: dict[tuple[Value, Value], Group] = {}
    for group in found:
        key = group.settings[up], group.settings[across]
        if group.finals and (key not in cells or group.mean(measure) > cells[key].mean(measure)):
            cells[key] = group
    shown = np.full((len(rows), len(columns)), np.nan)
    spread = np.full_like(shown, np.nan)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            if (row, column) in cells:
                shown[i, j] = cells[row, column].mean(measure)
                spread[i, j] = cells[row, column].deviation(measure)
    subtitle = counted(max(len(rows), len(columns)) <= _WRITTEN) + words
    return _map(title, subtitle, shown, spread, [name_of(row) for row in rows], [name_of(c) for c in columns], pair)


def heat_of_epochs(found: Sequence[Group], option: str, measure: str, name: str, subtitle: str) -> Figure:
    """Accuracy over an option and the epochs, the mean over the networks that did not diverge."""
    values = ordered({group.settings[option] for group in found})
    curves = {}
    for group in found:
        rows = [network.epochs for network in group.networks if network.diverged_at is None and network.epochs]
        count = min(map(len, rows), default=0)
        curves[group.settings[option]] = np.array([[row[measure] for row in r[:count]] for r in rows], float)
    longest = max(curve.shape[1] if curve.size else 0 for curve in curves.values())
    shown = np.full((len(values), longest), np.nan)
    for i, value in enumerate(values):
        if curves[value].size:
            shown[i, : curves[value].shape[1]] = curves[value].mean(axis=0)
    epochs = [str(epoch + 1) for epoch in range(longest)]
    title = f"{name.capitalize()} by {option} and epoch"
    return _map(
        title, subtitle, shown, np.full_like(shown, np.nan), [name_of(v) for v in values], epochs, (option, "epoch")
    )


def _range(values: NDArray[Any]) -> tuple[float, float]:
    """The accuracies of the lightest and the darkest colour: few far below all others do not fade the rest."""
    seen = values[np.isfinite(values)]
    high, middle, low = float(seen.max()), float(np.median(seen)), float(seen.min())
    low = max(low, high - max(4 * (high - middle), 0.05))
    return (low, high) if high > low else (high - 0.01, high)


def _map(
    title: str,
    subtitle: str,
    shown: NDArray[Any],
    spread: NDArray[Any],
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str],
) -> Figure:
    """Cells (rows, columns) of accuracies, written out where there is room; without a value they are left grey."""
    with_spread = bool(np.isfinite(spread).any())
    cell = next(size for most, size in ((6, 76), (10, 62), (_WRITTEN, 52), (1000, 26)) if len(columns) <= most)
    tall = 42 if with_spread else 34
    if len(rows) > _WRITTEN:
        tall = 26
    beside = math.ceil(widest(rows, SMALL, _NAMES, columns))
    long_names = widest(columns, SMALL, _NAMES, rows)
    upright = long_names > cell - 6
    width, height = cell * len(columns), tall * len(rows)
    left, below = MARGIN + 30 + beside, (long_names if upright else 14) + 30
    page = Page(left - MARGIN + width + _KEY, height + below, title, subtitle, [*rows, *columns, *axes])
    panel = page.panel(left, HEADER, width, height)
    low, high = _range(shown)
    share = np.clip((shown - low) / (high - low), 0, 1)
    image = np.where(np.isfinite(shown)[..., None], colours("blue")(0.08 + 0.92 * share)[..., :3], 0.93)
    panel.imshow(image, interpolation="nearest", aspect="auto")
    panel.hlines(np.arange(1, len(rows)) - 0.5, -0.5, len(columns) - 0.5, color="white", linewidth=1.2)
    panel.vlines(np.arange(1, len(columns)) - 0.5, -0.5, len(rows) - 0.5, color="white", linewidth=1.2)
    panel.set(xlim=(-0.5, len(columns) - 0.5), ylim=(len(rows) - 0.5, -0.5))
    page.frame(panel)
    if cell >= 46:
        _numbers(page, panel, shown, spread if tall >= 42 else None, image)
    step = nice_step(14 * len(columns) / width)
    page.ticks(panel.xaxis, range(0, len(columns), step), columns[::step], INK, room=_NAMES, upright=upright)
    page.ticks(panel.yaxis, range(len(rows)), rows, INK, room=_NAMES)
    page.titles(panel, axes[1], axes[0])
    _key(page, left + width + 20, low, high, bool((shown < low).any()), bool(np.isnan(shown).any()))
    return page.figure


def _numbers(page: Page, panel: Any, shown: NDArray[Any], spread: NDArray[Any] | None, image: NDArray[Any]) -> None:
    """Write each accuracy in percent into its cell, and its spread below; the highest is bold."""
    light = image @ np.array([0.299, 0.587, 0.114])
    best = np.nanargmax(shown)
    for (i, j), value in np.ndenumerate(shown):
        ink = "white" if light[i, j] < 0.55 else INK
        if not math.isfinite(value):
            panel.text(j, i, "-", ha="center", va="center", **page.font(SMALL, MUTED))
            continue
        second = spread is not None and math.isfinite(spread[i, j])
        bold = i * shown.shape[1] + j == best
        panel.text(
            j, i - (0.18 if second else 0), f"{100 * value:.1f}", ha="center", va="center",
            **page.font(BODY, ink, bold=bool(bold)),
        )  # fmt: skip
        if second and spread is not None:
            text = f"± {100 * spread[i, j]:.1f}"
            panel.text(j, i + 0.2, text, ha="center", va="center", **page.font(SMALL - 1, ink))


def _key(page: Page, left: float, low: float, high: float, below: bool, missing: bool) -> None:
    """The colours as a strip with its ends named."""
    ramp = colours("blue")(np.linspace(1, 0.08, 90))[:, None, :3]
    page.picture(left, HEADER, np.repeat(ramp, 12, axis=1))
    page.text(left + 18, HEADER, percent(high), SMALL, MUTED, va="top")
    page.text(left + 18, HEADER + 90, percent(low) + (" and less" if below else ""), SMALL, MUTED, va="bottom")
    if missing:
        page.text(left, HEADER + 106, "-  none finished", SMALL, MUTED, va="top")


def _points(
    found: Sequence[Group],
    pair: tuple[str, str],
    measure: str,
    title: str,
    subtitle: str,
    logarithmic: Collection[str],
) -> Figure:
    """A point a setting, coloured by its accuracy."""
    ended = [group for group in found if group.finals]
    means = np.array([group.mean(measure) for group in ended])
    low, high = _range(means)
    rows, columns = (ordered({group.settings[option] for group in found}) for option in pair)
    beside = math.ceil(widest(map(name_of, rows), SMALL, _NAMES, map(name_of, columns)))
    left, size = MARGIN + 30 + beside, 420
    page = Page(
        left - MARGIN + size + _KEY, size + 40, title, subtitle, [*map(name_of, rows), *map(name_of, columns), *pair]
    )
    panel = page.panel(left, HEADER, size, size)
    x, y = Scale(columns, pair[1] in logarithmic), Scale(rows, pair[0] in logarithmic)
    places = np.array([(x.place(group.settings[pair[1]]), y.place(group.settings[pair[0]])) for group in ended])
    order = np.argsort(means)  # the best on top
    tones = colours("blue")(0.08 + 0.92 * np.clip((means - low) / (high - low), 0, 1))
    panel.scatter(places[order, 0], places[order, 1], s=44, c=tones[order], edgecolors=MUTED, linewidths=0.6, zorder=3)
    panel.set(xlim=(0, 1), ylim=(0, 1))
    panel.grid(True, color=FAINT, linewidth=0.8)
    x.name(page, panel.xaxis, size)
    y.name(page, panel.yaxis, size)
    page.titles(panel, pair[1], pair[0])
    _key(page, left + size + 20, low, high, bool((means < low).any()), False)
    return page.figure
