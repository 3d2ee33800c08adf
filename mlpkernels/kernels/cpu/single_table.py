"""The table of what is done for one sample: made in Python from a plan, run by single.py.

A sample alone needs no chunk of lanes. Its images lie channel-last, the channels padded to whole vectors, within the
border of zeros that the convolution behind wants; the network's input and a flat layer's row are as they are. Each step
reads what the one before wrote, in two places of the scratch that take turns; dropout is none.
"""

from typing import NamedTuple

import numpy as np

from .. import plan as p
from .layout import window_offsets
from .single_tiles import AHEAD

# Columns of a step. WHAT is one of below; LAYER the plan's row; SOURCE and TARGET are in the scratch; CLEAR elements
# of the target are made zero first; TABLE is where a convolution's offsets begin.
WHAT, LAYER, SOURCE, TARGET, CLEAR, TABLE = range(6)
# Of the image that is read, then of the one that is written: its first pixel, and the elements from channel to channel,
# from line to line and from pixel to pixel.
FIRST, CHANNEL, LINE, PIXEL = range(4)
READ, WRITTEN, COLUMNS = 6, 10, 14

DENSE, FLAT_NORM, MOVE, CONV, POOL, IMAGE_NORM = range(6)  # WHAT; MOVE copies an image to another order or border

_IMAGE_KINDS = {p.CONV: CONV, p.POOL: POOL, p.BATCH_NORM: IMAGE_NORM}
_FLAT_KINDS = {p.DENSE: DENSE, p.BATCH_NORM: FLAT_NORM}


class Program(NamedTuple):
    """steps (S, COLUMNS) int64, table (T,) int64 of windows' offsets, and the elements of scratch that they take.

    The scratch begins with the network's inputs, scaled, and ends with room, from `lit` on, for int32 numbers of some
    of a dense layer's inputs.
    """

    steps: np.ndarray
    table: np.ndarray
    lit: int
    scratch: int


class _Image(NamedTuple):
    """How an image lies, as FIRST … PIXEL say, and the elements it takes."""

    first: int
    channel: int
    line: int
    pixel: int
    size: int


def build(plan: np.ndarray) -> Program:
    """The steps of a plan."""
    layers = [layer for layer in range(len(plan)) if plan[layer, p.KIND] != p.DROPOUT]
    images = [layer for layer in layers if plan[layer, p.IMAGE]]  # they are the first
    steps: list[np.ndarray] = []
    tables: list[np.ndarray] = [np.zeros(0, np.int64)]
    sizes: list[int] = []
    if images:
        _image_steps(plan, images, steps, tables, sizes)
    for layer in layers[len(images) :]:
        step = np.zeros(COLUMNS, np.int64)
        step[[WHAT, LAYER]] = _FLAT_KINDS[int(plan[layer, p.KIND])], layer
        steps.append(step)
        sizes.append(p.pad(int(plan[layer, p.GIVES])))
    places = [p.pad(int(plan[0, p.TAKES])), 0]
    places[1] = places[0] + max(sizes)
    for number, step in enumerate(steps):
        step[TARGET] = places[number % 2]
        step[SOURCE] = places[(number + 1) % 2] if number else 0
    lit = places[1] + max(sizes)
    return Program(np.stack(steps), np.concatenate(tables), lit, lit + p.pad(int(plan[:, p.INPUTS].max()) + AHEAD))


def _image_steps(
    plan: np.ndarray, images: list[int], steps: list[np.ndarray], tables: list[np.ndarray], sizes: list[int]
) -> None:
    """Append the steps of the image layers, the last of which makes a row."""

    def append(what: int, layer: int, read: _Image, written: _Image, cleared: bool) -> None:
        step = np.zeros(COLUMNS, np.int64)
        step[[WHAT, LAYER, CLEAR]] = what, layer, written.size if cleared else 0
        step[READ : READ + 4], step[WRITTEN : WRITTEN + 4] = read[:4], written[:4]
        steps.append(step)
        sizes.append(p.pad(written.size))

    _, height, width = _shape(plan[images[0]], p.CHANNELS)
    here = _Image(0, height * width, width, 1, 0)
    wanted = _taken(plan, images[0])
    if plan[images[0], p.KIND] != p.CONV or _border(plan[images[0]]) != (0, 0):
        append(MOVE, images[0], here, wanted, True)
        here = wanted
    for number, layer in enumerate(images):
        last = number + 1 == len(images)
        there = _given(plan, layer) if last else _taken(plan, images[number + 1])
        append(_IMAGE_KINDS[int(plan[layer, p.KIND])], layer, here, there, there.first > 0)
        if plan[layer, p.KIND] == p.CONV:
            steps[-1][TABLE] = sum(map(len, tables))
            tables.append(_windows(plan[layer], here))
            high, wide = _border(plan[layer])
            steps[-1][READ + FIRST] -= high * here.line + wide * here.pixel
        here = there
    channels, height, width = _shape(plan[images[-1]], p.OUT_CHANNELS)
    row = _Image(0, height * width, width, 1, channels * height * width)
    append(MOVE, images[-1], here, row, False)


def _shape(row: np.ndarray, column: int) -> tuple[int, int, int]:
    channels, height, width = (int(n) for n in row[column : column + 3])
    return channels, height, width


def _border(row: np.ndarray) -> tuple[int, int]:
    """The zeros (above, left) that a layer wants around what it takes; a pool leaves out what is not there."""
    return (int(row[p.PADDING_H]), int(row[p.PADDING_W])) if row[p.KIND] == p.CONV else (0, 0)


def _placed(channels: int, height: int, width: int, high: int, wide: int) -> _Image:
    pixel = p.pad(channels)
    line = (width + 2 * wide) * pixel
    return _Image(high * line + wide * pixel, 1, line, pixel, (height + 2 * high) * line)


def _taken(plan: np.ndarray, layer: int) -> _Image:
    """How the image that a layer takes lies."""
    return _placed(*_shape(plan[layer], p.CHANNELS), *_border(plan[layer]))


def _given(plan: np.ndarray, layer: int) -> _Image:
    """How the image that a layer gives lies where no image layer follows."""
    return _placed(*_shape(plan[layer], p.OUT_CHANNELS), 0, 0)


def _windows(row: np.ndarray, image: _Image) -> np.ndarray:
    """The offsets of a convolution's window in an image, in the order of its weights."""
    channels, high, wide = int(row[p.CHANNELS]), int(row[p.KERNEL_H]), int(row[p.KERNEL_W])
    table = np.zeros(channels * high * wide, np.int64)
    window_offsets(table, channels, high, wide, image.channel, image.line, image.pixel)
    return table
