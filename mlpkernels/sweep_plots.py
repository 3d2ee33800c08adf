"""Figures of a sweep: accuracy by epoch, final accuracy by option, a heat map a pair of options, the best settings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .drawing import (
    BLUE,
    BODY,
    FAINT,
    HEADER,
    INK,
    MARGIN,
    MUTED,
    SMALL,
    Page,
    apart,
    counted,
    message_figure,
    percent,
    round_ticks,
    value_axis,
)
from .sweep_heat import heat_figure, heat_of_epochs
from .sweep_results import Group, Results, Value, groups, ranked
from .sweep_scale import Scale, brief, name_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PARTS = {"val": "validation", "test": "test", "train": "training"}
_NAMED = 12  # up to so many values of an option are named beside their lines
_SUMMED = 25  # up to so many values of an option have a mean each
_LISTED = 15  # settings in the table of the best
_CUT = 0.3  # accuracies so far below the best are cut off, where most are far above them
_WIDE, _TALL = 380, 250  # pixels of a panel
_BESIDE, _BETWEEN = 130, 60  # pixels right of a panel for names, and between panels


@dataclass(frozen=True)
class Picture:
    """What all figures of a sweep show: its settings with their networks, and by what they compare."""

    results: Results
    found: list[Group]
    measure: str
    logarithmic: Collection[str]

    @property
    def name(self) -> str:
        """The measure in words."""
        return f"{_PARTS[self.measure.partition('_')[0]]} accuracy"

    @property
    def finals(self) -> NDArray[np.float64]:
        """The mean final accuracy of every setting; NaN where none of its networks finished."""
        return np.array([group.mean(self.measure) for group in self.found])

    @property
    def floor(self) -> float:
        """The lowest accuracy shown: where few settings lie far below all others, they are cut off."""
        finals = self.finals[np.isfinite(self.finals)]
        best, middle, worst = finals.max(), float(np.median(finals)), finals.min()
        return float(max(worst, best - max(_CUT, 2 * (best - middle))))

    def counted(self, spread: bool = True) -> str:
        """How many networks there are, what befell them, and whether means are shown with their spread."""
        networks = self.results.networks
        words = [counted(len(networks), "network")]
        if self.results.repeats:
            mean = "mean ± standard deviation" if spread else "mean"
            words.append(f"{mean} over {' and '.join(self.results.repeats)}, {self._repeats()}")
        diverged = sum(network.diverged_at is not None for network in networks)
        under_way = sum(not network.done for network in networks)
        words += [f"{diverged} diverged"] * bool(diverged) + [f"{under_way} not finished"] * bool(under_way)
        return "  ·  ".join(words)

    def _repeats(self) -> str:
        sizes = [len(group.finals) for group in self.found]
        return f"n = {sizes[0]}" if len(set(sizes)) == 1 else f"n = {min(sizes)} to {max(sizes)}"


def figures(
    results: Results,
    logarithmic: Collection[str] = (),
    best: Callable[[Mapping[str, str]], bool] = lambda settings: False,
) -> Iterator[tuple[str, Figure]]:
    """(name, figure) of all figures of a sweep, one drawn after the other.

    logarithmic: options whose values stand on a logarithmic axis; best(settings): whether a network keeps its
    best weights, as `groups` takes it. Seeds are no options but repeats: their mean and spread are shown.
    """
    picture = Picture(results, groups(results, best), results.measure, logarithmic)
    if not any(group.finals for group in picture.found):
        yield "epochs", message_figure("Sweep", "No network is finished yet, or all of them diverged.")
        return
    yield "epochs", epochs_figure(picture)
    chosen = [name for name in results.chosen if len(results.values(name)) > 1]
    if chosen:
        yield "final", final_figure(picture, chosen)
    if len(chosen) == 1:
        yield (
            f"heat-{chosen[0]}-epoch",
            heat_of_epochs(picture.found, chosen[0], picture.measure, picture.name, picture.counted(spread=False)),
        )
    for one, other in itertools.combinations(chosen, 2):
        rest = [name for name in chosen if name not in (one, other)]
        yield (
            f"heat-{one}-{other}",
            heat_figure(
                picture.found, (one, other), rest, picture.measure, picture.name, picture.counted, picture.logarithmic
            ),
        )
    yield "best", best_figure(picture)


def _panels(page: Page, count: int, across: int) -> list[Axes]:
    made = []
    for k in range(count):
        row, column = divmod(k, across)
        left = MARGIN + 48 + column * (_WIDE + _BESIDE + _BETWEEN)
        made.append(page.panel(left, HEADER + 26 + row * (_TALL + 96), _WIDE, _TALL))
    return made


def _page(picture: Picture, title: str, count: int, spread: bool, extra: str = "") -> tuple[Page, list[Axes]]:
    across = 1 if count == 1 else 2
    width = 48 + across * (_WIDE + _BESIDE) + (across - 1) * _BETWEEN
    height = 26 + -(-count // across) * (_TALL + 96) - 40
    names = [str(value) for option in picture.results.options for value in picture.results.values(option)]
    page = Page(width, height, title, picture.counted(spread) + extra, [*names, *picture.results.options])
    return page, _panels(page, count, across)


def _tones(count: int) -> list[tuple[float, ...]]:
    """Colours from dark to light for values in order, told apart with every colour vision."""
    from matplotlib import colormaps

    return [tuple(colormaps["viridis"](place)) for place in np.linspace(0.0, 0.86, count)]


# ---- by epoch


def epochs_figure(picture: Picture) -> Figure:
    """Accuracy by epoch: a line a setting, coloured in one panel an option by its values."""
    options = [name for name in picture.results.chosen if len(picture.results.values(name)) > 1]
    title = f"{picture.name.capitalize()} by epoch"
    below = int((picture.finals < picture.floor).sum())
    extra = f"  ·  {counted(below, 'setting')} below {percent(picture.floor)}, where the axis is cut" if below else ""
    curves = [_curve(group, picture.measure) for group in picture.found]
    banded = len(options) <= 1 and len(curves) <= _NAMED
    page, panels = _page(picture, title, max(len(options), 1), banded, extra)
    for panel, option in itertools.zip_longest(panels, options):
        values = picture.results.values(option) if option else [""]
        tones = dict(zip(values, _tones(len(values)) if option else [BLUE], strict=True))
        if len(options) > 1:
            page.text(panel.bbox.x0 - 48, page.height - panel.bbox.y1 - 14, f"by {option}", BODY, bold=True)
        ends = []
        for group, (epochs, mean, deviation) in zip(picture.found, curves, strict=True):
            if not len(epochs):
                continue
            tone = tones[group.settings[option] if option else ""]
            _line(panel, epochs, mean, deviation if banded else None, tone, len(picture.found))
            ends.append((group.settings[option] if option else "", float(mean[-1]), tone))
        _frame(page, panel, curves, banded, picture.floor)
        _name_lines(page, panel, option, ends, tones if len(options) > 1 else None)
    return page.figure


def _curve(group: Group, measure: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """(epochs, mean, standard deviation) over the networks that did not diverge, as far as all of them went."""
    rows = [network.epochs for network in group.networks if network.diverged_at is None and network.epochs]
    count = min(map(len, rows), default=0)
    values = np.array([[row[measure] for row in epochs[:count]] for epochs in rows], float)
    if not count:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    spread = values.std(axis=0, ddof=1) if len(values) > 1 else np.zeros(count)
    return np.arange(1, count + 1), values.mean(axis=0), spread


def _line(panel: Axes, epochs: Any, mean: Any, deviation: Any, tone: Any, lines: int) -> None:
    many = lines > 24
    style: dict[str, Any] = {"color": tone, "linewidth": 0.9 if many else 1.6, "alpha": 0.6 if many else 1.0}
    panel.plot(epochs, mean, "o-" if len(epochs) <= 30 and not many else "-", markersize=3, **style)
    if deviation is not None and deviation.any():
        panel.fill_between(epochs, mean - deviation, mean + deviation, color=tone, alpha=0.15, linewidth=0)


def _frame(page: Page, panel: Axes, curves: Sequence[tuple[Any, Any, Any]], banded: bool, floor: float) -> None:
    last = max(int(epochs[-1]) for epochs, _, _ in curves if len(epochs))
    sides = [(mean, deviation if banded else 0.0) for _, mean, deviation in curves if len(mean)]
    highest = max(float((mean + side).max()) for mean, side in sides)
    lowest = min(float((mean - side).min()) for mean, side in sides)
    # Ends may lie below the final accuracies, which are of the best epochs, or by a rounding error.
    floor = min([floor, *(float((mean - side)[-1]) for mean, side in sides if mean[-1] >= floor - 1e-9)])
    # the steep first epochs would press together what comes after them
    value_axis(page, panel, max(lowest, floor - 0.6 * max(highest - floor, 0.02)), highest, "accuracy")
    side = 0.5 if last == 1 else 0.02 * (last - 1)
    panel.set_xlim(1 - side, last + side)
    ticks = round_ticks(1, last, 6)
    page.ticks(panel.xaxis, ticks, map(str, ticks))
    page.titles(panel, "epoch")


def _name_lines(
    page: Page, panel: Axes, option: str | None, ends: Sequence[tuple[Value, float, Any]], tones: Any
) -> None:
    """Name the lines at their ends, or with `tones`, where a value has many lines, the values' colours."""
    right = panel.bbox.x1 + 10
    top, bottom = page.height - panel.bbox.y1, page.height - panel.bbox.y0
    if tones is None and len(ends) <= _NAMED:
        places = [page.height - panel.transData.transform((0, end))[1] for _, end, _ in ends]
        places = [min(max(place, top), bottom) for place in places]
        places = apart(places, 16.0)
        for rank, k in enumerate(np.argsort(places)):  # lines close together at the top must not reach the title
            places[k] = max(places[k], top + 16.0 * rank)
        if option:
            page.text(right, min(places) - 18, page.fit(option, _BESIDE + 20, SMALL), SMALL, MUTED, va="center")
        for y, (value, end, tone) in zip(places, ends, strict=True):
            text = f"{name_of(value)}  {percent(end)}" if value != "" else percent(end)
            page.text(right, y, page.fit(text, _BESIDE + 20, SMALL), SMALL, tone, va="center")
        return
    values = list(dict.fromkeys((value, tone) for value, _, tone in ends)) if tones is None else list(tones.items())
    step = max(1, math.ceil(len(values) / _NAMED))
    for k, (value, tone) in enumerate(values[::step]):
        page.text(right, top + 8 + 16 * k, page.fit(f"— {name_of(value)}", _BESIDE, SMALL), SMALL, tone, va="center")


# ---- by option


def final_figure(picture: Picture, options: Sequence[str]) -> Figure:
    """Final accuracy against each option: a dot a network, the mean and spread, or the best of the other options."""
    several = len(options) > 1
    below = int((picture.finals < picture.floor).sum())
    extra = f"  ·  {counted(below, 'setting')} below {percent(picture.floor)}, where the axis is cut" if below else ""
    spread = any(len(picture.results.values(option)) <= _SUMMED for option in options)
    page, panels = _page(picture, f"Final {picture.name}", len(options), spread, extra)
    for panel, option in zip(panels, options, strict=True):
        scale = Scale(picture.results.values(option), option in picture.logarithmic)
        panel.set_xlim(0, 1)
        _dots(panel, picture, option, scale)
        _summary(page, panel, picture, option, scale, several)
        finals = [final for group in picture.found for final in group.column(picture.measure)]
        low = max(min(finals), picture.floor - 0.3 * (max(finals) - picture.floor))
        value_axis(page, panel, low, max(finals), "accuracy")
        scale.name(page, panel.xaxis, _WIDE)
        page.titles(panel, option)
    return page.figure


def _dots(panel: Axes, picture: Picture, option: str, scale: Scale) -> None:
    """Every finished network as a faint dot."""
    points = [
        (scale.place(group.settings[option]), final)
        for group in picture.found
        for final in group.column(picture.measure)
    ]
    faint = 0.7 if len(points) < 200 else 0.3
    colour = BLUE if len(scale.values) > _SUMMED else MUTED
    panel.plot(*np.array(points).T, "o", color=colour, markersize=4, alpha=faint, markeredgewidth=0, zorder=3)


def _summary(page: Page, panel: Axes, picture: Picture, option: str, scale: Scale, several: bool) -> None:
    """The best setting of each value, with its spread: with a single option that is the value itself."""
    points = []
    for value in scale.values:
        own = [g for g in picture.found if g.settings[option] == value and g.finals]
        if own:
            group = max(own, key=lambda group: group.mean(picture.measure))
            spread = group.deviation(picture.measure)
            points.append((scale.place(value), group.mean(picture.measure), 0.0 if math.isnan(spread) else spread))
    x, mean, spread = np.array(points).T
    y = page.height - panel.transAxes.transform((0, 1))[1]
    if len(x) > _SUMMED:  # drawn at random: there is hardly a value twice
        page.text(panel.bbox.x1 + 10, y + 8, f"highest {percent(mean.max())}", SMALL, MUTED, va="center")
        page.text(panel.bbox.x1 + 10, y + 24, "• a network", SMALL, BLUE, va="center")
        return
    joined = "o-" if all(isinstance(value, int | float) for value in scale.values) else "o"
    panel.errorbar(
        x, mean, yerr=spread if spread.any() else None, fmt=joined, color=BLUE, linewidth=1.6,
        markersize=5, capsize=3, elinewidth=1.2,
    )  # fmt: skip
    top = int(np.argmax(mean))
    words = "best of the others" if several else "mean" if picture.results.repeats else "accuracy"
    page.text(panel.bbox.x1 + 10, y + 8, f"— {words}", SMALL, BLUE, va="center")
    page.text(panel.bbox.x1 + 10, y + 24, f"highest {percent(mean[top])}", SMALL, BLUE, va="center")
    page.text(panel.bbox.x1 + 10, y + 40, "• a network", SMALL, MUTED, va="center")


# ---- the best settings


def best_figure(picture: Picture) -> Figure:
    """A table of the best settings: values, accuracy with its spread, number of networks, loss."""
    best = ranked(picture.found, picture.measure)
    rows = [_cells(picture, group) for group in best[:_LISTED]]
    chosen = list(picture.results.chosen)
    header = ["", *chosen, picture.name, "n", "loss", "s/epoch", ""]
    lines = [header, *([str(k + 1), *row] for k, row in enumerate(rows))]
    if not any(row[-1] for row in rows):
        lines = [line[:-1] for line in lines]
    title = "Best settings"
    more = f"  ·  the first {_LISTED} of {len(best)} settings" if len(best) > _LISTED else ""
    texts = [cell for line in lines for cell in line]
    measure = Page(10, 10, "", "", texts)
    columns = [list(column) for column in zip(*lines, strict=True)]
    widths = [max(measure.measure(cell, BODY, k == 0) for k, cell in enumerate(column)) for column in columns]
    gap = 26
    page = Page(sum(widths) + gap * len(widths), 26 * len(lines) + 4, title, picture.counted() + more, texts)
    right = float(MARGIN)
    for column, (cells, width) in enumerate(zip(columns, widths, strict=True)):
        right += width + (gap if column else 0)
        for row, cell in enumerate(cells):
            colour = MUTED if row == 0 or column == 0 else BLUE if header[column] == picture.name else INK
            page.text(right, HEADER + 10 + 26 * row, cell, BODY, colour, ha="right", va="center", bold=row == 0)
    for row in range(len(lines)):
        y = HEADER + 23 + 26 * row
        page.sheet.plot([MARGIN, right], [y, y], color=MUTED if row == 0 else FAINT, linewidth=0.8)
    return page.figure


def _cells(picture: Picture, group: Group) -> list[str]:
    deviation = group.deviation(picture.measure)
    spread = "" if math.isnan(deviation) else f" ± {100 * deviation:.2f}"
    loss = group.mean(picture.measure.replace("accuracy", "loss"))
    return [
        *map(name_of, group.settings.values()), f"{100 * group.mean(picture.measure):.2f}{spread} %",
        str(len(group.finals)), f"{loss:.4f}", brief(group.mean("seconds")),
        f"{group.diverged} diverged" if group.diverged else "",
    ]  # fmt: skip
