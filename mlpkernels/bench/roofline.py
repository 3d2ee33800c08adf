"""The roofline figure: every kernel between what the processor can compute and what the memory can deliver."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..drawing import BLUE, BODY, FAINT, GREEN, HEADER, INK, MARGIN, MUTED, ORANGE, SMALL, Page, message_figure
from .kernels import OURS
from .results import Entry, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANEL, _TALL, _BETWEEN, _LEFT = 520, 460, 84, 48  # pixels
_ROW, _SHARE = 17, 66
_KINDS = {"dense": ("dense products", BLUE), "first layer": ("a first layer on images", GREEN)}
_OTHER = {"convolution": ("convolutions", ORANGE), "update": ("updates", MUTED)}
_RING = 4.2  # pixels of a point's radius
_TOP = HEADER + 26
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass
class Point:
    """A kernel in one panel: its number in the key and where it stands, in pixels of the page."""

    number: int
    colour: str
    x: float
    y: float
    texts: tuple[float, float] = (0.0, 0.0)


def roofline_figure(results: Results) -> Figure:
    """Draw GFLOP/s over operations a byte, a panel a number of threads, with the measured limits as roofs.

    Points are numbered; the key below names them and says which share of the roof above it each reaches. NumPy's
    products, where they were measured, are rings. Without kernels a small figure says so.
    """
    entries = [entry for entry in results.section("kernels") if entry.flops and entry.bytes]
    names = list(dict.fromkeys(entry.name for entry in entries if entry.system == OURS))
    if not names:
        return message_figure("Roofline", "No kernels were measured.")
    counts = results.counts
    rows = math.ceil(len(names) / 2)
    width = max(len(counts) * (_LEFT + _PANEL + _BETWEEN - _LEFT) - _BETWEEN + _LEFT, 2 * 520)
    page = Page(width, _TALL + 142 + _ROW * (rows + 1), "Roofline: what the kernels reach", _subtitle(results))
    page.sheet.set_zorder(2)  # what is placed in pixels lies above the panels
    limits = _limits(results, entries)
    for index, count in enumerate(counts):
        left = MARGIN + _LEFT + index * (_PANEL + _BETWEEN)
        panel = page.panel(left, _TOP, _PANEL, _TALL)
        page.text(left - _LEFT, HEADER + 8, _threads(count), BODY, bold=True, va="baseline")
        _axes(page, panel, limits)
        label, roofs = _roofs(page, panel, results, count, limits)
        _points(page, panel, [entry for entry in entries if entry.threads == count], names, label, roofs)
    _key(page, results, entries, names, _TOP + _TALL + 74)
    return page.figure


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"


def _subtitle(results: Results) -> str:
    machine = results.machine
    words = [str(machine.get("cpu", "")), f"{machine.get('cores')} cores", "float32", results.date]
    words += ["quick: a look, not a measurement"] * bool(results.settings.get("quick"))
    return "  ·  ".join(words)


def _colour(entry: Entry) -> str:
    return next(colour for kind, (_, colour) in {**_KINDS, **_OTHER}.items() if entry.group.startswith(kind))


def _limits(results: Results, entries: Sequence[Entry]) -> tuple[float, float, float, float]:
    """Operations a byte from … to, and operations a second from … to, the same in every panel, the ridges within."""
    across = [entry.flops / entry.bytes for entry in entries]
    up = [entry.flops / entry.middle for entry in entries]
    tops = [ceiling["flops"] for ceiling in results.ceilings.values()]
    ridges = [ceiling["flops"] / ceiling["bytes"] for ceiling in results.ceilings.values()]
    left, right = min(*across, *(ridge / 20 for ridge in ridges)) / 2, max(*across, *ridges) * 2.5
    return left, right, min(*up, *(top / 10 for top in tops)) / 2, max(*up, *tops) * 1.8


def _axes(page: Page, panel: Axes, limits: tuple[float, float, float, float]) -> None:
    from matplotlib.ticker import NullLocator

    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlim(limits[:2])
    panel.set_ylim(limits[2] / 1e9, limits[3] / 1e9)
    for axis, low, high in ((panel.xaxis, *limits[:2]), (panel.yaxis, limits[2] / 1e9, limits[3] / 1e9)):
        axis.set_minor_locator(NullLocator())
        ticks = [
            step * 10.0**power
            for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            for step in ((1, 2, 5) if high / low < 300 else (1,))
        ]
        ticks = [tick for tick in ticks if low <= tick <= high]
        page.ticks(axis, ticks, [f"{tick:g}" for tick in ticks])
    panel.grid(True, color=FAINT, linewidth=0.8)
    page.titles(panel, "floating-point operations for each byte that has to be read or written", "GFLOP/s")


def _roofs(
    page: Page, panel: Axes, results: Results, count: int, limits: tuple[float, float, float, float]
) -> tuple[Box, tuple[Box, Box]]:
    """The slope of the memory and the flat roof of the processor, named along them; where the roof's name is, and from
    where to where both go.
    """
    peak, bandwidth = results.ceilings[str(count)]["flops"], results.ceilings[str(count)]["bytes"]
    ridge = peak / bandwidth
    start = max(limits[0], limits[2] / bandwidth)
    corner = min(max(ridge, limits[0]), limits[1])
    style: dict[str, Any] = {"color": INK, "linewidth": 1.6, "solid_capstyle": "butt", "zorder": 2}
    panel.plot([start, corner], [bandwidth * start / 1e9, min(bandwidth * corner, peak) / 1e9], **style)
    panel.plot([corner, limits[1]], [peak / 1e9] * 2, **style)
    x, y = _place(page, panel, corner, peak / 1e9)
    text = f"multiply-adds {peak / 1e9:,.0f} GFLOP/s"
    page.text(x - 8, y, text, SMALL, INK, ha="right", va="center")
    label = (x - page.measure(text, SMALL) - 16, y - 12, x, y + 12)
    (x0, y0), (x1, y1) = (_place(page, panel, at, bandwidth * at / 1e9) for at in (start, corner))
    angle = math.degrees(math.atan2(y0 - y1, x1 - x0))
    share = 0.68  # of the way up, past the updates
    x, y = x0 + share * (x1 - x0), y0 + share * (y1 - y0)
    page.text(
        x - 5, y - 5, f"memory {bandwidth / 1e9:,.0f} GB/s", SMALL, INK, ha="center", va="bottom", rotation=angle,
        rotation_mode="anchor",
    )  # fmt: skip
    return label, ((x0, y0, x1, y1), (x1, y1, panel.bbox.x1, y1))


def _place(page: Page, panel: Axes, x: float, y: float) -> tuple[float, float]:
    """A point of a panel in pixels of the page."""
    across, up = panel.transData.transform((x, y))
    return float(across), page.height - float(up)


def _points(
    page: Page, panel: Axes, entries: Sequence[Entry], names: Sequence[str], label: Box, roofs: Sequence[Box]
) -> None:  # fmt: skip
    """A dot an entry with its number beside it, rings for NumPy's products."""
    for entry in entries:
        if entry.system != OURS:
            panel.plot(
                entry.flops / entry.bytes, entry.flops / entry.middle / 1e9, "o", markersize=5, fillstyle="none",
                markeredgecolor=MUTED, markeredgewidth=0.9, zorder=3,
            )  # fmt: skip
    points = []
    for entry in entries:
        if entry.system == OURS:
            x, y = _place(page, panel, entry.flops / entry.bytes, entry.flops / entry.middle / 1e9)
            points.append(Point(names.index(entry.name) + 1, _colour(entry), x, y))
    box = panel.bbox.x0, page.height - panel.bbox.y1, panel.bbox.x1, page.height - panel.bbox.y0
    _number(points, box, label, roofs)
    for point in points:
        page.sheet.plot([point.x, point.texts[0]], [point.y, point.texts[1]], color=point.colour, linewidth=0.6)
        page.sheet.plot(
            point.x, point.y, "o", color=point.colour, markersize=2 * _RING * 72 / 120, markeredgecolor="white",
            markeredgewidth=0.6,
        )  # fmt: skip
    for point in points:
        halo = {"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": point.colour, "linewidth": 0.8}
        page.text(*point.texts, str(point.number), 6.5, point.colour, ha="center", va="center", bbox=halo)
    page.sheet.set(xlim=(0, page.width), ylim=(page.height, 0))


def _number(points: list[Point], box: Box, label: Box, roofs: Sequence[Box]) -> None:
    """Find every number a place near its point, away from all points, other numbers, the label and the roofs."""
    left, top, right, bottom = box
    taken: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda each: (each.x, each.y)):
        best, price = (point.x, point.y), math.inf
        for x, y in _around(point):
            if not (left + 9 <= x <= right - 9 and top + 9 <= y <= bottom - 9):
                continue
            near = [math.hypot(x - other.x, y - other.y) for other in points]
            close = sum(max(0.0, 13.5 - distance) for distance in near)
            close += sum(max(0.0, 19.5 - math.hypot(x - a, y - b)) for a, b in taken)
            close += sum(max(0.0, 10.0 - _apart(x, y, roof)) for roof in roofs)
            over = label[0] - 9 < x < label[2] + 9 and label[1] - 9 < y < label[3] + 9
            cost = 1000 * over + 10 * close + math.hypot(x - point.x, y - point.y)
            if cost < price:
                best, price = (x, y), cost
        point.texts = best
        taken.append(best)


def _apart(x: float, y: float, line: Box) -> float:
    """How far a point is from the line between two."""
    x0, y0, x1, y1 = line
    along, down = x1 - x0, y1 - y0
    share = min(max(((x - x0) * along + (y - y0) * down) / max(along**2 + down**2, 1e-9), 0.0), 1.0)
    return math.hypot(x - x0 - share * along, y - y0 - share * down)


def _around(point: Point) -> Iterator[tuple[float, float]]:
    for radius, angle in itertools.product((15, 22, 30, 40, 52, 66, 82), np.linspace(0, 2 * np.pi, 24, endpoint=False)):
        yield point.x + radius * math.cos(angle), point.y + radius * math.sin(angle)


def _key(page: Page, results: Results, entries: Sequence[Entry], names: Sequence[str], top: float) -> None:
    """What the numbers are, in two columns, with each one's share of the roof above it."""
    shown = dict({**_KINDS, **_OTHER}.values())
    if any(entry.system != OURS for entry in entries):
        width = sum(page.measure(f"● {name}", SMALL) + 18 for name in shown)
        page.text(MARGIN + width, top, "○ NumPy", SMALL, MUTED, va="center")
    page.key(MARGIN, top, shown)
    rows, column = math.ceil(len(names) / 2), (page.width - 2 * MARGIN) / 2
    shares = _SHARE * len(results.counts)
    for side in range(2):
        right = MARGIN + (side + 1) * column - 24 * (1 - side)
        for place, count in enumerate(reversed(results.counts)):
            text = _threads(count)
            page.text(right - _SHARE * place, top + 24, text, SMALL, MUTED, ha="right", va="center")
        for row, name in enumerate(names[side * rows : (side + 1) * rows]):
            y = top + 24 + _ROW * (row + 1)
            mine = {entry.threads: entry for entry in entries if entry.name == name and entry.system == OURS}
            left, colour = MARGIN + side * column, _colour(next(iter(mine.values())))
            page.text(left + 16, y, str(side * rows + row + 1), SMALL, colour, ha="right", va="center")
            text = page.fit(name, right - shares - left - 32, SMALL)
            page.text(left + 24, y, text, SMALL, INK, va="center")
            for place, count in enumerate(reversed(results.counts)):
                if count in mine:
                    share = f"{100 * _of_roof(results, mine[count]):.0f} %"
                    page.text(right - _SHARE * place, y, share, SMALL, INK, ha="right", va="center")
    note = "percent: of the roof above the point; more than 100 where data stay in a cache, or products are left out"
    page.text(MARGIN, top + 34 + _ROW * (rows + 1), note, SMALL, MUTED, va="center")


def _of_roof(results: Results, entry: Entry) -> float:
    """Operations a second as a share of the roof above the point."""
    ceiling = results.ceilings[str(entry.threads)]
    return entry.flops / entry.middle / min(ceiling["flops"], ceiling["bytes"] * entry.flops / entry.bytes)
