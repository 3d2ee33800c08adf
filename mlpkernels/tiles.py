"""Images as tiles of one size, set side by side into a picture, with captions under them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .drawing import HEADER, KEY, MARGIN, SMALL, Page, colours, resize, signed_key, to_rgb
from .figure_inputs import image_shape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GAP = 8  # pixels between tiles
_LINE = 16  # pixels a line of a caption takes
Lines = list[tuple[str, str]]  # a caption: text and colour of each line; what stands behind a tab goes to the right


def tiles_of(rows: NDArray[Any], shape: Sequence[int], full_scale: float | None, size: int) -> NDArray[np.float64]:
    """Raw inputs (n, D) -> tiles (n, height, width, 3), about `size` pixels at the longer side."""
    images = rows.reshape(len(rows), *image_shape(shape))
    high = float(images.max()) if full_scale is None else full_scale
    return resize(to_rgb(images, min(float(images.min()), 0.0), high), size)


def signed_tiles(images: NDArray[np.float64], limit: float, size: int) -> NDArray[np.float64]:
    """Values (n, C, H, W) -> tiles: three channels as colours around grey, others side by side in signed colours."""
    tiles = to_rgb(images, -limit, limit)
    if images.shape[1] != 3:
        tiles = colours("signed")(tiles[..., 0])[..., :3]
    return resize(tiles, size)


def mosaic(
    tiles: NDArray[np.float64], grid: tuple[int, int], places: Sequence[int], cell: tuple[int, int]
) -> tuple[NDArray[np.float64], list[tuple[int, int]]]:
    """Set tiles into a white image, each thinly framed, at the top left of its cell.

    grid (rows, columns) of cells of (height, width) pixels, with a gap between them; places count the cells
    row by row. Returns the image and each tile's top left corner in it, (x, y).
    """
    rows, columns = grid
    height, width = tiles.shape[1:3]
    canvas = np.ones((rows * (cell[0] + GAP) - GAP + 2, columns * (cell[1] + GAP) - GAP + 2, 3))
    corners = []
    for tile, place in zip(tiles, places, strict=True):
        left, top = 1 + place % columns * (cell[1] + GAP), 1 + place // columns * (cell[0] + GAP)
        canvas[top - 1 : top + height + 1, left - 1 : left + width + 1] = 0.82
        canvas[top : top + height, left : left + width] = tile
        corners.append((left, top))
    return canvas, corners


def tiled_figure(
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
    canvas, corners = mosaic(tiles, (-(-len(tiles) // columns), columns), range(len(tiles)), cell)
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
