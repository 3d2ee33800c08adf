"""Pictures of single images: predictions under their images, and the t-SNE series of a layer's activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..drawing import BLUE, BODY, FAINT, HEADER, INK, MARGIN, MUTED, ORANGE, SMALL, Page
from ..tiles import tiled_figure, tiles_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..datasets import Part
    from ..network import Network

# Okabe and Ito's eight, black as grey, and two more that lie between them in lightness.
DIGITS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#B5A900", "#555555", "#8C3B1F", "#7A52C7",
)  # fmt: skip


def predictions_figure(title: str, part: Part, network: Network, words: str) -> Figure:
    """Draw images with true class and prediction under them: blue where it is right, orange where it is wrong."""
    proba = network.predict_proba(part.x, threads=1)
    guesses = proba.argmax(axis=1)
    captions = []
    for row, (truth, guess) in enumerate(zip(part.y.tolist(), guesses.tolist(), strict=True)):
        colour = BLUE if truth == guess else ORANGE
        sure = f"{100 * proba[row, guess]:.0f} %"
        captions.append([(f"true {network.classes[truth]}", INK), (f"→ {network.classes[guess]}\t{sure}", colour)])
    right = int((guesses == part.y).sum())
    subtitle = f"{words}  ·  {right} of {len(part)} right"
    tiles = tiles_of(part.x, network.shape, 255.0, 140)
    return tiled_figure(title, subtitle, tiles, round(len(part) ** 0.5), captions)


def map_figure(title: str, subtitle: str, points: NDArray[np.float64], y: NDArray[Any]) -> Figure:
    """Draw one map of points (N, 2), coloured by class index y (N,), each class's number where most of it lies."""
    page = Page(620, 600, title, subtitle)
    _map(page, page.panel(MARGIN, HEADER, 620, 600), points, y, 18.0, 13.0)
    return page.figure


def series_figure(
    title: str, subtitle: str, maps: Sequence[tuple[str, NDArray[np.float64]]], y: NDArray[Any], columns: int = 4
) -> Figure:  # fmt: skip
    """Draw maps side by side, each with a name and a line below it; points and colours as in `map_figure`.

    maps: (name, points (N, 2)); what follows a tab in a name is written after it in grey.
    """
    side, gap, head = 300, 24, 26
    columns = min(columns, len(maps))
    rows = -(-len(maps) // columns)
    page = Page(columns * (side + gap) - gap, rows * (side + head + gap) - gap, title, subtitle)
    for number, (name, points) in enumerate(maps):
        left = MARGIN + number % columns * (side + gap)
        top = HEADER + number // columns * (side + head + gap)
        words, _, more = name.partition("\t")
        page.text(left, top + 12, words, BODY, bold=True, va="baseline")
        page.text(left + page.measure(words, BODY, bold=True) + 10, top + 12, more, SMALL, MUTED, va="baseline")
        _map(page, page.panel(left, top + head, side, side), points, y, 6.0, 9.0)
    return page.figure


def _map(page: Page, panel: Axes, points: NDArray[np.float64], y: NDArray[Any], size: float, digit: float) -> None:
    from matplotlib.patheffects import withStroke

    for side in panel.spines.values():
        side.set(visible=True, color=FAINT, linewidth=1.0)
    panel.set_xticks([])
    panel.set_yticks([])
    panel.scatter(points[:, 0], points[:, 1], s=size, c=np.array(DIGITS)[y], alpha=0.8, linewidths=0)
    # One scale on both axes, the whole cloud in the middle: distances may be compared.
    centre, reach = (points.max(axis=0) + points.min(axis=0)) / 2, 0.54 * float(np.ptp(points, axis=0).max() or 1)
    panel.set_xlim(centre[0] - reach, centre[0] + reach)
    panel.set_ylim(centre[1] - reach, centre[1] + reach)
    for k in np.unique(y):
        place = np.median(points[y == k], axis=0)
        panel.text(
            float(place[0]), float(place[1]), str(k), ha="center", va="center", **page.font(digit, INK, bold=True),
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )  # fmt: skip
