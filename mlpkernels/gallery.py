"""Figures that show rows and weights themselves: galleries of images, and table_figures for tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import as_rows
from .drawing import (
    BODY,
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
    counted,
    families_for,
    message_figure,
    names_of,
    resize,
    signed_key,
    text_width,
    to_rgb,
)
from .metrics import checked_labels
from .table_figures import table_mistakes, table_samples, table_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GAP = 8  # pixels between tiles
_LINE = 16  # pixels a line of a caption takes
Lines = list[tuple[str, str]]  # a caption: text and colour of each line


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
    rows = _table(x, shape)
    names = names_of(classes)
    labels = _labels("y", y, len(names), len(rows))
    counts = np.bincount(labels, minlength=len(names))
    subtitle = f"{counted(len(rows), 'row')} in {counted(len(names), 'class', 'classes')}"
    _at_least_one("per_class", per_class)
    if len(shape) == 1:
        return table_samples(rows, labels, names, feature_names, per_class, subtitle)
    if len(names) > 12:
        shown = np.flatnonzero(counts)[:100]
        first = [int(np.argmax(labels == k)) for k in shown]
        subtitle += "  ·  the first row of each" + f" of {len(shown)} classes" * (len(shown) < len(names))
        captions = [[(names[k], INK)] for k in shown]
        tiles = _tiles(rows[first], shape, full_scale, 80)
        return _gallery("Samples", subtitle, tiles, 10, captions)
    chosen = [np.flatnonzero(labels == k)[:per_class] for k in range(len(names))]
    tiles = _tiles(rows[np.concatenate(chosen)], shape, full_scale, 64)
    columns = max(len(indices) for indices in chosen)
    places = [k * columns + i for k, indices in enumerate(chosen) for i in range(len(indices))]
    height, width = tiles.shape[1:3]
    pitch = max(height, 34) + _GAP  # name and count beside a row need two lines
    canvas, _ = _mosaic(tiles, (len(names), columns), places, (pitch - _GAP, width))
    fonts = families_for("".join(names))
    room = min(max(text_width(name, BODY, fonts) for name in [*names, "10,000"]), NAME_ROOM) + 20
    page = Page(room + canvas.shape[1], canvas.shape[0], "Samples", subtitle, names)
    page.picture(MARGIN + room, HEADER, canvas)
    for k, name in enumerate(names):
        middle = HEADER + k * pitch + max(height, 26) / 2
        page.text(MARGIN, middle - 2, page.fit(name, room - 20, BODY), BODY, va="baseline")
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
    rows = _table(x, shape)
    table = np.asarray(proba)
    if table.ndim != 2 or table.shape != (len(rows), len(classes)):
        raise ValueError(f"proba: shape {table.shape}, wanted {(len(rows), len(classes))}: rows, classes")
    _at_least_one("count", count)
    names = names_of(classes)
    truth = _labels("y", y, len(names), len(rows))
    guess = _labels("predicted", predicted, len(names), len(rows))
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
    tiles = _tiles(rows[worst], shape, full_scale, 140)
    subtitle += "  ·  true class → predicted class"
    return _gallery("Worst mistakes", subtitle, tiles, math.ceil(len(worst) ** 0.5), captions)


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
    if not np.isfinite(matrix).all():
        raise ValueError("weights: NaN or infinite values, wanted finite weights")
    _at_least_one("count", count)
    units = matrix.shape[1]
    order = np.argsort(-np.linalg.norm(matrix, axis=0), kind="stable")[:count]
    names: list[str] = []
    if labels is not None:
        names = check_names("labels", labels, units, "units")
        order = np.arange(units)[:count]
    shown = matrix[:, order]
    limit = float(np.quantile(np.abs(shown), 0.998)) or float(np.abs(shown).max()) or 1.0
    subtitle = "first layer, " + f"{len(order)} of " * (len(order) < units)
    subtitle += counted(units, "output" if names else "unit")
    if not names and units > 1:
        subtitle += ", strongest first"
    if len(shape) == 1:
        return table_weights(shown, limit, subtitle, [names[k] for k in order] if names else None, feature_names)
    images = shown.T.reshape(len(order), *_image_shape(shape))
    captions = [[(names[k], INK)] for k in order] if names else None
    columns = math.ceil(len(order) ** 0.5)
    tiles = to_rgb(images, -limit, limit)
    if shape[0] == 3:
        return _gallery("Weights", subtitle + "  ·  grey is 0", resize(tiles, 96), columns, captions)
    tiles = colours("signed")(tiles[..., 0])[..., :3]
    return _gallery("Weights", subtitle, resize(tiles, 96), columns, captions, limit)


# Checks


def _image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape: {tuple(shape)}, wanted (channels, height, width) or (columns,)")
    channels, height, width = shape
    return channels, height, width


def _table(x: ArrayLike, shape: Sequence[int]) -> NDArray[Any]:
    """Return the inputs as (N, D), at least one row."""
    if len(shape) != 1:
        _image_shape(shape)
    rows = as_rows(x, tuple(shape))
    if len(rows) == 0:
        raise ValueError("x: no rows, wanted at least one")
    return rows


def _labels(name: str, values: ArrayLike, classes_count: int, rows: int) -> NDArray[np.int64]:
    labels = checked_labels(name, values, classes_count)
    if len(labels) != rows:
        raise ValueError(f"{name}: {len(labels)} labels for {rows} rows of x; wanted one a row")
    return labels


def _at_least_one(name: str, number: int) -> None:
    if number < 1:
        raise ValueError(f"{name}: {number}, wanted at least 1 to show")


# Tiles


def _tiles(rows: NDArray[Any], shape: Sequence[int], full_scale: float | None, size: int) -> NDArray[np.float64]:
    """Raw inputs (n, D) -> tiles (n, height, width, 3), about `size` pixels at the longer side."""
    images = rows.reshape(len(rows), *_image_shape(shape))
    high = float(images.max()) if full_scale is None else full_scale
    return resize(to_rgb(images, min(float(images.min()), 0.0), high), size)


def _mosaic(
    tiles: NDArray[np.float64], grid: tuple[int, int], places: Sequence[int], cell: tuple[int, int]
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Set tiles into a white image, each thinly framed, at the top left of its cell.

    grid (rows, columns) of cells of (height, width) pixels, with a gap between them; places count the cells
    row by row. Returns the image and each tile's top left corner in it, (x, y).
    """
    rows, columns = grid
    height, width = tiles.shape[1:3]
    canvas = np.ones((rows * (cell[0] + _GAP) - _GAP + 2, columns * (cell[1] + _GAP) - _GAP + 2, 3))
    corners = []
    for tile, place in zip(tiles, places, strict=True):
        left, top = 1 + place % columns * (cell[1] + _GAP), 1 + place // columns * (cell[0] + _GAP)
        canvas[top - 1 : top + height + 1, left - 1 : left + width + 1] = 0.82
        canvas[top : top + height, left : left + width] = tile
        corners.append((left, top))
    return canvas, corners


def _gallery(
    title: str,
    subtitle: str,
    tiles: NDArray[np.float64],
    columns: int,
    captions: Sequence[Lines] | None,
    limit: float | None = None,
) -> Figure:
    """Draw tiles in rows with captions under them; a limit adds a key of the signed colours."""
    height, width = tiles.shape[1:3]
    cell = (height, width)
    if captions:  # narrow images still have room for a name
        cell = (height + _LINE * len(captions[0]) + 12, max(width, 40 + 44 * len(captions[0])))
    columns = min(columns, len(tiles))
    canvas, corners = _mosaic(tiles, (-(-len(tiles) // columns), columns), range(len(tiles)), cell)
    tall, wide = canvas.shape[:2]
    texts = [text for lines in captions or [] for text, _ in lines]
    page = Page(max(wide, KEY if limit else 0), tall + (46 if limit else 0), title, subtitle, texts)
    page.picture(MARGIN, HEADER, canvas)
    for (left, top), lines in zip(corners, captions or [[]] * len(corners), strict=True):
        for number, (line, colour) in enumerate(lines):
            x, y = MARGIN + left, HEADER + top + height + 16 + number * _LINE
            text, _, right = line.partition("\t")
            room = cell[1] + 2 - (page.measure(right, SMALL) + 5 if right else 0)
            page.text(x, y, page.fit(text, room, SMALL), SMALL, colour, va="baseline")
            if right:
                page.text(x + cell[1], y, right, SMALL, colour, va="baseline", ha="right")
    if limit:
        signed_key(page, MARGIN + 1, HEADER + tall + 16, f"{limit:.2g}")
    return page.figure
