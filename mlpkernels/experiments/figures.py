"""Figures of experiments with seeds: lines with their spread, final values, a heat map, seconds an epoch.

Matplotlib is imported by the first call; each function returns a figure of its own, as in `plots`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..drawing import (
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
    colours,
    counted,
    round_ticks,
    value_axis,
    widest,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's, for what has no order; what has one is drawn in steps from dark to light.
KINDS = (BLUE, ORANGE, "#009E73", "#CC79A7")
_ORDERED = ("#E69F00", ORANGE, "#C2185B", "#8E44AD", "#3F51B5", "#0284C7", "#00897B", "#444444")
_LOSS, _ACCURACY = "Loss (mean cross-entropy)", "Accuracy"
_GROUND = (0.0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.96, 0.97, 0.975, 0.98, 0.985, 0.99, 0.995, 0.999)  # ticks where stretched


@dataclass(frozen=True)
class Series:
    """One line: values (networks, epochs), NaN where there are none; its name stands at its end unless empty."""

    name: str
    colour: Any
    values: NDArray[np.float64]
    style: str = "-"


def mean_and_deviation(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample standard deviation over the networks (networks, epochs) that have a value; NaN of none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of columns without any value
        return np.nanmean(values, axis=0), np.nanstd(values, axis=0, ddof=1)


def steps(count: int) -> list[Any]:
    """Colours for `count` ordered things, from orange over purple and blue to grey."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("steps", _ORDERED)
    return [tuple(colour) for colour in scale(np.linspace(0, 1, count))[:, :3]]


def stretched(accuracy: Any) -> Any:
    """Accuracy on an axis where 90 %, 99 % and 99.9 % are equally far apart."""
    return -np.log10(np.clip(1 - np.asarray(accuracy, float), 1e-4, 1))


def stretched_axis(panel: Axes, page: Page, low: float, high: float, room: float = 26.0) -> None:
    """Set limits, ticks and grid of a vertical axis of stretched accuracies from low to high."""
    bottom, top = stretched(max(low, 0.0)), stretched(high)
    margin = max(0.06 * (top - bottom), 0.02)
    panel.set_ylim(max(bottom - margin, 0.0), top + margin)
    bottom, top = panel.get_ylim()
    scale = panel.bbox.height / (top - bottom)
    fine = sorted({*_GROUND, *(round(0.005 * k, 3) for k in range(160, 200)), 0.3, 0.4, 0.6, 0.7, 0.85})
    ticks: list[float] = []
    for tick in sorted(fine, key=lambda tick: (tick not in _GROUND, tick)):
        place = stretched(tick)
        near = min((abs(place - stretched(other)) * scale for other in ticks), default=math.inf)
        if bottom <= place <= top and near >= room:
            ticks.append(tick)
    ticks.sort()
    page.ticks(panel.yaxis, stretched(ticks), [f"{100 * tick:.4g} %" for tick in ticks])
    panel.grid(True, axis="y", color=FAINT, linewidth=0.8)


def _epoch_axis(page: Page, panel: Axes, epochs: int, unit: str) -> None:
    side = 0.5 if epochs == 1 else 0.02 * (epochs - 1)
    panel.set_xlim(1 - side, epochs + side)
    ticks = round_ticks(1, epochs, 6)
    page.ticks(panel.xaxis, ticks, map(str, ticks))
    page.titles(panel, unit)


def _draw_lines(page: Page, panel: Axes, series: Sequence[Series], percents: bool, stretch: bool) -> None:
    """Draw each line with the band of one standard deviation, and its name and last mean at its end."""
    ends = []
    for one in series:
        mean, deviation = mean_and_deviation(one.values)
        epochs = np.arange(1, len(mean) + 1)
        low, high = mean - deviation, mean + deviation
        shown = (stretched(values) if stretch else values for values in (mean, low, high))
        mean_line, low_line, high_line = shown
        style: dict[str, Any] = {"color": one.colour, "linewidth": 1.8 if one.style == "-" else 1.2, "clip_on": True}
        marked = "o" if len(mean) <= 30 and one.style == "-" else ""
        panel.plot(epochs, mean_line, one.style, marker=marked, markersize=3.5, label=one.name, **style)
        if np.isfinite(deviation).any():
            panel.fill_between(epochs, low_line, high_line, color=one.colour, alpha=0.1, linewidth=0, zorder=1.8)
        seen = np.flatnonzero(np.isfinite(mean))
        if one.name and len(seen):
            last = float(mean[seen[-1]])
            place = float(mean_line[seen[-1]])
            text = f"{100 * last:.2f} %" if percents else f"{last:.3g}"
            ends.append((page.height - panel.transData.transform((0, place))[1], f"{one.name}  {text}", one.colour))
    bottom, top = page.height - panel.bbox.y0, page.height - panel.bbox.y1
    wanted = [min(max(end[0], top), bottom) for end in ends]
    for y, (_, text, colour) in zip(apart(wanted, 17.0), ends, strict=True):
        page.text(panel.bbox.x1 + 10, y, text, BODY, colour, va="center")


def _reach(values: Sequence[NDArray[np.float64]], most: float) -> tuple[float, float]:
    """(lowest, highest) of the means and bands of some lines, from 0 to `most`."""
    bands = []
    for mean, deviation in map(mean_and_deviation, values):
        side = np.nan_to_num(deviation)
        bands += [mean - side, mean + side]
    ends = np.concatenate(bands)
    ends = ends[np.isfinite(ends)].clip(0.0, most)
    return (float(ends.min()), float(ends.max())) if len(ends) else (0.0, 1.0)


def _subtitle(networks: int, *texts: str) -> str:
    band = f"mean of {networks} seeds, band ± one standard deviation" if networks > 1 else "one seed"
    return "  ·  ".join([band, *texts])


def by_epoch_figure(title: str, accuracy: Mapping[int, NDArray[np.float64]], noun: str) -> Figure:
    """Draw accuracy by epoch, a line a setting: accuracy maps the setting to (seeds, epochs)."""
    series = [
        Series(f"{noun} {setting}", colour, values)
        for (setting, values), colour in zip(accuracy.items(), steps(len(accuracy)), strict=True)
    ]
    first = next(iter(accuracy.values()))
    page = Page(860, 470, title, _subtitle(len(first), "the axis is stretched towards 100 %"))
    panel = page.panel(MARGIN + 52, HEADER, 640, 420)
    means = np.concatenate([mean_and_deviation(values)[0] for values in accuracy.values()])
    means = means[np.isfinite(means)]
    low, high = (float(means.min()), float(means.max())) if len(means) else (0.0, 1.0)
    stretched_axis(panel, page, low, high)
    _epoch_axis(page, panel, first.shape[1], "epoch")
    _draw_lines(page, panel, series, percents=True, stretch=True)
    return page.figure


def final_figure(
    title: str,
    accuracy: Mapping[int, NDArray[np.float64]],
    claimed: Mapping[int, float],
    other: Mapping[int, tuple[float, float]],
) -> Figure:
    """Draw the last epoch's accuracy by setting: every seed, mean ± deviation, the document, another program."""
    count, epochs = next(iter(accuracy.values())).shape
    page = Page(780, 470, title, f"after epoch {epochs}, {counted(count, 'seed')}  ·  stretched towards 100 %")
    panel = page.panel(MARGIN + 52, HEADER + 30, 720, 390)
    final = {setting: values[:, -1] for setting, values in accuracy.items()}
    values = np.concatenate([*final.values(), list(claimed.values()), [mean for mean, _ in other.values()]])
    values = values[np.isfinite(values)]
    stretched_axis(panel, page, float(values.min()), float(values.max()))
    for place, (setting, seeds) in enumerate(final.items()):
        mean, deviation = (float(value[0]) for value in mean_and_deviation(seeds[:, None]))
        if math.isfinite(deviation):
            ends = stretched([mean - deviation, mean + deviation])
            panel.plot([place, place], ends, color=BLUE, linewidth=2.2, solid_capstyle="round")
        panel.plot([place + 0.1] * len(seeds), stretched(seeds), "o", color=BLUE, alpha=0.35, markersize=4, mew=0)
        panel.plot([place], [stretched(mean)], "o", color=BLUE, markersize=8)
        panel.plot([place - 0.17], [stretched(claimed[setting])], "D", color=ORANGE, markersize=6)
        low, high = (other[setting][0] + side * other[setting][1] for side in (-1, 1))
        panel.plot([place + 0.28] * 2, stretched([low, min(high, 0.9999)]), color=MUTED, linewidth=1.2)
        panel.plot([place + 0.28], [stretched(other[setting][0])], "s", color=MUTED, markersize=4.5)
    panel.set_xlim(-0.5, len(final) - 0.5)
    page.ticks(panel.xaxis, range(len(final)), map(str, final), INK)
    page.titles(panel, "batch size")
    key = [
        ("D", ORANGE, "the document, one run"), ("o", BLUE, "ours: mean ± deviation, and every seed"),
        ("s", MUTED, "another program (JAX), four seeds"),
    ]  # fmt: skip
    _key(page, MARGIN + 4, HEADER + 6, key)
    return page.figure


def _key(page: Page, left: float, top: float, entries: Sequence[tuple[str, Any, str]]) -> None:
    """Explain markers in a line above a panel."""
    for marker, colour, text in entries:
        page.sheet.plot([left], [top], marker, color=colour, markersize=6, clip_on=False)
        page.text(left + 11, top, text, SMALL, INK, va="center")
        left += 11 + page.measure(text, SMALL) + 18
    page.sheet.set(xlim=(0, page.width), ylim=(page.height, 0))


def heat_figure(title: str, accuracy: Mapping[int, NDArray[np.float64]], noun: str) -> Figure:
    """Draw mean accuracy as a heat map: a row a setting, a column an epoch, its value in every cell."""
    table = np.stack([mean_and_deviation(values)[0] for values in accuracy.values()])
    rows, epochs = table.shape
    cell = (56, 38)
    networks = len(next(iter(accuracy.values())))
    words = "mean test accuracy in percent" + (f" of {networks} seeds" if networks > 1 else ", one seed")
    page = Page(56 + max(epochs, 8) * cell[0], rows * cell[1] + 40, title, f"{words}  ·  darker is better")
    panel = page.panel(MARGIN + 56, HEADER, epochs * cell[0], rows * cell[1])
    seen = stretched(table)
    low, high = float(np.nanmin(seen)), float(np.nanmax(seen))
    shade = np.nan_to_num((seen - low) / max(high - low, 1e-9))
    image = colours("blue")(0.04 + 0.96 * shade)[..., :3]
    panel.imshow(image, interpolation="nearest", aspect="auto")
    panel.hlines(np.arange(1, rows) - 0.5, -0.5, epochs - 0.5, color="white", linewidth=1.2)
    panel.vlines(np.arange(1, epochs) - 0.5, -0.5, rows - 0.5, color="white", linewidth=1.2)
    panel.set(xlim=(-0.5, epochs - 0.5), ylim=(rows - 0.5, -0.5))
    page.frame(panel)
    dark = image @ np.array([0.299, 0.587, 0.114]) < 0.55
    for (row, column), value in np.ndenumerate(table):
        text = f"{100 * value:.1f}" if math.isfinite(value) else ""
        ink = "white" if dark[row, column] else INK
        panel.text(column, row, text, ha="center", va="center", **page.font(BODY, ink))
    page.ticks(panel.xaxis, range(epochs), (str(epoch + 1) for epoch in range(epochs)), INK)
    page.ticks(panel.yaxis, range(rows), map(str, accuracy), INK)
    page.titles(panel, "epoch", noun)
    return page.figure


def seconds_figure(title: str, seconds: Mapping[int, NDArray[np.float64]], claimed: Mapping[int, float]) -> Figure:
    """Draw mean seconds an epoch by setting beside the document's, on a logarithmic axis.

    seconds: (networks,) by setting; one without networks has no mark.
    """
    from matplotlib.ticker import NullLocator

    page = Page(760, 410, title, "training alone, each network on one core beside the others  ·  logarithmic axis")
    panel = page.panel(MARGIN + 52, HEADER + 30, 700, 330)
    ours = {setting: float(values.mean()) if len(values) else math.nan for setting, values in seconds.items()}
    places = np.arange(len(ours))
    values = [value for value in (*ours.values(), *claimed.values()) if math.isfinite(value)]
    panel.set_yscale("log")
    panel.yaxis.set_minor_locator(NullLocator())
    bottom, top = min(values) / 1.5, max(values) * 1.5
    ticks = [k * 10.0**p for p in range(-4, 4) for k in (1, 2, 5) if bottom <= k * 10.0**p <= top]
    page.ticks(panel.yaxis, ticks, (f"{tick:g} s" for tick in ticks))
    panel.set_ylim(bottom, top)
    panel.grid(True, axis="y", color=FAINT, linewidth=0.8)
    for told, colour, marker in ((claimed, ORANGE, "D-"), (ours, BLUE, "o-")):
        line = [told[setting] for setting in ours]
        panel.plot(places, line, marker, color=colour, markersize=6, linewidth=1.4)
        for place, value in zip(places, line, strict=True):
            if math.isnan(value):
                continue
            text = f"{value:.1f}" if value >= 1 else f"{value:.2g}"
            offset: dict[str, Any] = {"xytext": (0, 9), "textcoords": "offset points"}
            panel.annotate(text, (place, value), ha="center", va="center", **offset, **page.font(SMALL, colour))
    panel.set_xlim(-0.5, len(ours) - 0.5)
    page.ticks(panel.xaxis, places, map(str, ours), INK)
    page.titles(panel, "batch size")
    key = [("D", ORANGE, "the document's laptop (PyTorch, DataLoader)"), ("o", BLUE, "here")]
    _key(page, MARGIN + 4, HEADER + 6, key)
    return page.figure


def curves_figure(title: str, values: Mapping[str, Mapping[str, NDArray[np.float64]]], unit: str = "epoch") -> Figure:
    """Draw loss and accuracy of both sets side by side: network -> column of a history -> (seeds, epochs).

    One network: its training and test lines. Several: a colour each, test as lines, training dotted.
    """
    single = len(values) == 1
    first = next(iter(next(iter(values.values())).values()))
    texts = () if single else ("lines: test, dotted: training",)
    room = widest((f"{name}  88.88 %" for name in (["training"] if single else values)), BODY, 400.0) + 16
    wide = 48 + 400 + room  # a panel with its ticks and the names at its lines' ends
    page = Page(2 * wide + 32, 340, title, _subtitle(len(first), *texts))
    for left, (quantity, heading) in zip((0, wide + 32), (("loss", _LOSS), ("accuracy", _ACCURACY)), strict=True):
        panel = page.panel(MARGIN + left + 48, HEADER + 26, 400, 270)
        page.text(MARGIN + left, HEADER + 8, heading, BODY, bold=True, va="baseline")
        series: list[Series] = []
        for (name, columns), colour in zip(values.items(), KINDS, strict=False):
            test, train = columns[f"test_{quantity}"], columns[f"train_{quantity}"]
            if single:
                series += [Series("training", MUTED, train), Series("test", BLUE, test)]
            else:
                series += [Series("", colour, train, ":"), Series(name, colour, test)]
        low, high = _reach([one.values for one in series], most=1.0 if quantity == "accuracy" else math.inf)
        value_axis(page, panel, low, high, "accuracy" if quantity == "accuracy" else "value")
        _epoch_axis(page, panel, first.shape[1], unit)
        _draw_lines(page, panel, series, percents=quantity == "accuracy", stretch=False)
    return page.figure


@dataclass(frozen=True)
class Race:
    """A system's whole trainings by a recipe: seconds of each epoch and test accuracy after it, (seeds, epochs)."""

    recipe: str
    system: str
    seconds: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def race_figure(title: str, races: Sequence[Race], targets: Mapping[str, float]) -> Figure:
    """Draw mean accuracy against median seconds of training: a colour a recipe, its target dotted, a marker a system.

    The lines of the first race's system are drawn full, the others' dashed. `targets` has an accuracy a recipe.
    """
    first = races[0].system
    names = [_race_name(race, first) for race in races]
    seeds = {race.system: len(race.accuracy) for race in races}
    count = seeds.pop(first)
    fewer = ", ".join(f"{system} of {n}" for system, n in seeds.items() if n != count)
    words = f"mean accuracy of {count} seeds" if count > 1 else "one seed"
    words += f" ({fewer})" if fewer else ""
    page = Page(
        760 + widest(names, BODY, 400.0), 470, title,
        f"{words}, median seconds  ·  a mark an epoch, dotted: the goals  ·  logarithmic time, stretched accuracy",
    )  # fmt: skip
    panel = page.panel(MARGIN + 52, HEADER, 690, 420)
    means = [race.accuracy.mean(axis=0) for race in races]
    shown = np.concatenate([*means, list(targets.values())])
    stretched_axis(panel, page, float(shown.min()), float(shown.max()))
    _time_axis(page, panel, [race.seconds for race in races])
    hues = dict(zip(targets, KINDS, strict=False))
    markers = dict(zip(dict.fromkeys(race.system for race in races), "osD^", strict=False))
    for recipe, target in targets.items():
        panel.axhline(float(stretched(target)), color=hues[recipe], linestyle=":", linewidth=1.2)
    for race, mean in zip(races, means, strict=True):
        times = np.cumsum(np.median(race.seconds, axis=0))
        panel.plot(
            times, stretched(mean), "-" if race.system == first else "--", marker=markers[race.system], markersize=4.5,
            color=hues[race.recipe], linewidth=1.8 if race.system == first else 1.2,
        )  # fmt: skip
    places = [HEADER + 14 + 20 * row for row in range(len(names))]
    for place, name, race in zip(places, names, races, strict=True):
        left = panel.bbox.x1 + 18
        page.sheet.plot([left], [place], markers[race.system], color=hues[race.recipe], markersize=6, clip_on=False)
        page.text(left + 12, place, name, BODY, hues[race.recipe], va="center")
    page.sheet.set(xlim=(0, page.width), ylim=(page.height, 0))
    return page.figure


def _race_name(race: Race, first: str) -> str:
    """Who, how well and how soon."""
    accuracy, seconds = float(race.accuracy[:, -1].mean()), float(np.median(race.seconds.sum(axis=1)))
    which = race.recipe if race.system == first else f"{race.recipe}, {race.system}"
    return f"{which}: {100 * accuracy:.2f} % in {seconds:.2g} s"


def _time_axis(page: Page, panel: Axes, seconds: Sequence[NDArray[np.float64]]) -> None:
    """A logarithmic axis of seconds from the shortest first epoch to the longest training."""
    from matplotlib.ticker import NullLocator

    low = min(float(values.min()) for values in seconds) / 1.3
    high = max(float(values.sum(axis=1).max()) for values in seconds) * 1.3
    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    factors = (1, 2, 5) if high < 1000 * low else (1,)
    ticks = [k * 10.0**p for p in range(-6, 6) for k in factors if low <= k * 10.0**p <= high]
    page.ticks(panel.xaxis, ticks, (f"{tick:g} s" for tick in ticks))
    panel.set_xlim(low, high)
    page.titles(panel, "training")
