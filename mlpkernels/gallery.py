"""Galleries: samples, mistakes, weights and filters as images side by side; of tables, table_figures draws them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .drawing import (
    BODY,
    HEADER,
    INK,
    MARGIN,
    MUTED,
    ORANGE,
    SMALL,
    Page,
    check_names,
    counted,
    message_figure,
    names_of,
    widest,
)
from .figure_inputs import at_least_one, finite, image_shape, labels_of, rows_of
from .table_figures import table_mistakes, table_samples, table_weights
from .tiles import GAP, Lines, mosaic, signed_tiles, tiled_figure, tiles_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CHANNELS = 16  # of filters of many channels: at most so many of them, and of the filters, side by side


def samples_figure(
    x: ArrayLike,
    y: ArrayLike,
    shape: Sequence[int],
    classes: Sequence[int | str],
    *,
    per_class: int = 10,
    full_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
) -> Figure:
    """Draw the first rows of each class: images as tiles, rows of a table as a heat map.

    x (N, D) or (N, *shape) raw inputs, y (N,) class indices, shape (C, H, W) or (D,). More than 12 classes of
    images get one tile each, at most 100 of them. full_scale: the value shown as white; None takes the
    largest one shown. Raises ValueError or TypeError for shapes that do not fit and labels that are no index.
    """
    rows = rows_of(x, shape)
    names = names_of(classes)
    labels = labels_of("y", y, len(names), len(rows))
    counts = np.bincount(labels, minlength=len(names))
    subtitle = f"{counted(len(rows), 'row')} in {counted(len(names), 'class', 'classes')}"
    at_least_one("per_class", per_class)
    if len(shape) == 1:
        return table_samples(rows, labels, names, feature_names, per_class, subtitle)
    if len(names) > 12:
        shown = np.flatnonzero(counts)[:100]
        first = [int(np.argmax(labels == k)) for k in shown]
        subtitle += "  ·  the first row of each" + f" of {len(shown)} classes" * (len(shown) < len(names))
        captions = [[(names[k], INK)] for k in shown]
        tiles = tiles_of(rows[first], shape, full_scale, 80)
        return tiled_figure("Samples", subtitle, tiles, 10, captions)
    chosen = [np.flatnonzero(labels == k)[:per_class] for k in range(len(names))]
    tiles = tiles_of(rows[np.concatenate(chosen)], shape, full_scale, 64)
    columns = max(len(indices) for indices in chosen)
    places = [k * columns + i for k, indices in enumerate(chosen) for i in range(len(indices))]
    height, width = tiles.shape[1:3]
    pitch = max(height, 34) + GAP  # name and count beside a row need two lines
    canvas, _ = mosaic(tiles, (len(names), columns), places, (pitch - GAP, width))
    room = widest([*names, "10,000"], BODY) + 20
    page = Page(room + canvas.shape[1], canvas.shape[0], "Samples", subtitle, names)
    page.picture(MARGIN + room, HEADER, canvas)
    for k, name in enumerate(page.fit_each(names, room - 20, BODY)):
        middle = HEADER + k * pitch + max(height, 26) / 2
        page.text(MARGIN, middle - 2, name, BODY, va="baseline")
        page.text(MARGIN, middle + 15, f"{counts[k]:,}", SMALL, MUTED, va="baseline")
    return page.figure


def mistakes_figure(
    x: ArrayLike,
    shape: Sequence[int],
    y: ArrayLike,
    predicted: ArrayLike,
    proba: ArrayLike,
    classes: Sequence[int | str],
    count: int = 25,
    *,
    full_scale: float | None = None,
) -> Figure:
    """Draw the worst mistakes: the rows where the network was surest of a wrong class, the worst first.

    x (N, D) or (N, *shape) raw inputs, y (N,) and predicted (N,) class indices, proba (N, K) probabilities.
    Images become tiles; of a table's rows, counted from 1, the probabilities of both classes are drawn. No
    mistake at all gives a figure that says so. Raises ValueError or TypeError for shapes that do not fit.
    """
    rows = rows_of(x, shape)
    table = np.asarray(proba)
    if table.ndim != 2 or table.shape != (len(rows), len(classes)):
        raise ValueError(f"proba: shape {table.shape}, wanted {(len(rows), len(classes))}: rows, classes")
    at_least_one("count", count)
    names = names_of(classes)
    truth = labels_of("y", y, len(names), len(rows))
    guess = labels_of("predicted", predicted, len(names), len(rows))
    wrong = np.flatnonzero(truth != guess)
    sureness = table[wrong, guess[wrong]]
    if not np.isfinite(sureness).all():
        raise ValueError("proba: NaN or infinite values, wanted probabilities")
    if not len(wrong):
        return message_figure("Worst mistakes", f"There are none: {counted(len(rows), 'row')}, all right.")
    worst = wrong[np.argsort(-sureness, kind="stable")[:count]]
    subtitle = f"{len(worst)} of " * (len(worst) < len(wrong)) + counted(len(wrong), "mistake")
    subtitle += f" in {counted(len(rows), 'row')}, the surest first"
    if len(shape) == 1:
        return table_mistakes(worst, truth, guess, table, names, subtitle)
    captions: list[Lines] = []
    for row in worst:
        sure = f"{100 * table[row, guess[row]]:.0f} %"
        captions.append([(names[truth[row]], INK), (f"→ {names[guess[row]]}\t{sure}", ORANGE)])
    tiles = tiles_of(rows[worst], shape, full_scale, 140)
    subtitle += "  ·  true class → predicted class"
    return tiled_figure("Worst mistakes", subtitle, tiles, math.ceil(len(worst) ** 0.5), captions)


def weights_figure(
    weights: ArrayLike,
    shape: Sequence[int],
    *,
    labels: Sequence[int | str] | None = None,
    feature_names: Sequence[str] | None = None,
    count: int = 64,
) -> Figure:
    """Draw the first layer's weights: of images one tile a unit, of a table a heat map of columns by units.

    weights (D, units), shape (C, H, W) or (D,). The `count` units with the largest weights (Euclidean norm)
    are shown, largest first, all on one colour scale: orange below 0, blue above; three channels are drawn as
    colours around grey. labels name the units, for a layer whose outputs are the classes, and keep their
    order. Raises ValueError for shapes that do not fit and weights that are not finite.
    """
    matrix = np.asarray(weights, dtype=np.float64)
    if matrix.ndim != 2 or matrix.size == 0 or matrix.shape[0] != math.prod(shape):
        raise ValueError(f"weights: shape {matrix.shape}, wanted ({math.prod(shape)}, units) for inputs {tuple(shape)}")
    matrix = finite("weights", matrix)
    at_least_one("count", count)
    units = matrix.shape[1]
    order = _strongest(matrix.T, count)
    names: list[str] = []
    if labels is not None:
        names = check_names("labels", labels, units, "units")
        order = np.arange(units)[:count]
    shown = matrix[:, order]
    limit = _limit(shown)
    subtitle = _shown(len(order), units, "output" if names else "unit")
    if not names and units > 1:
        subtitle += ", strongest first"
    if len(shape) == 1:
        return table_weights(shown, limit, subtitle, [names[k] for k in order] if names else None, feature_names)
    images = shown.T.reshape(len(order), *image_shape(shape))
    captions = [[(names[k], INK)] for k in order] if names else None
    columns = math.ceil(len(order) ** 0.5)
    return _signed_figure("Weights", subtitle, images, columns, captions, limit, 96)


def filters_figure(weights: ArrayLike, *, count: int = 64, title: str = "Filters") -> Figure:
    """Draw the filters of a convolution: one tile a filter, or of many channels one row a filter.

    weights (O, C, kh, kw). The `count` filters with the largest weights (Euclidean norm) are shown, largest
    first, all on one colour scale: orange below 0, blue above. Three channels are drawn as colours around grey;
    of other numbers above one each channel has a column, and at most 16 channels of 16 filters are shown.
    Raises ValueError for shapes that do not fit and weights that are not finite.
    """
    kernels = np.asarray(weights, dtype=np.float64)
    if kernels.ndim != 4 or kernels.size == 0:
        raise ValueError(f"weights: shape {kernels.shape}, wanted (filters, channels, height, width)")
    kernels = finite("weights", kernels)
    at_least_one("count", count)
    filters, channels, height, width = kernels.shape
    apart = channels not in (1, 3)
    order = _strongest(kernels.reshape(filters, -1), min(count, _CHANNELS) if apart else count)
    shown = kernels[order, : _CHANNELS if apart else None]
    subtitle = _shown(len(order), filters, "filter") + f" of {height} x {width}"
    if filters > 1:
        subtitle += ", strongest first"
    if not apart:
        return _signed_figure(title, subtitle, shown, math.ceil(len(order) ** 0.5), None, _limit(shown), 96)
    subtitle += "  ·  a row is a filter, a column a channel"
    subtitle += f", the first {_CHANNELS} of {channels}" * (channels > _CHANNELS)
    columns = shown.shape[1]
    each = shown.reshape(-1, 1, height, width)
    return _signed_figure(title, subtitle, each, columns, None, _limit(shown), 48)


def _strongest(units: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Indices of the `count` units (n, weights) with the largest norms, the largest first."""
    return np.argsort(-np.linalg.norm(units, axis=1), kind="stable")[:count]


def _limit(shown: NDArray[np.float64]) -> float:
    """The weight that gets the fullest colour: one of a thousand may be beyond it."""
    return float(np.quantile(np.abs(shown), 0.998)) or float(np.abs(shown).max()) or 1.0


def _shown(some: int, all_of_them: int, what: str) -> str:
    return "first layer, " + f"{some} of " * (some < all_of_them) + counted(all_of_them, what)


def _signed_figure(
    title: str,
    subtitle: str,
    images: NDArray[np.float64],
    columns: int,
    captions: list[Lines] | None,
    limit: float,
    size: int,
) -> Figure:
    """Tiles of weights (n, C, H, W); a key of the colours, but for three channels, which mix them."""
    mixed = images.shape[1] == 3
    subtitle += "  ·  grey is 0" * mixed
    tiles = signed_tiles(images, limit, size)
    return tiled_figure(title, subtitle, tiles, columns, captions, None if mixed else limit)
