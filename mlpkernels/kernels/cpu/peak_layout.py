"""Where the gradients that only a pool's largest pixels have are summed, and when that is faster: see peaks.py."""

from typing import NamedTuple

import numpy as np

from .. import plan as p
from .lane_marks import plane_of_marks
from .peak_tiles import MOST_COLUMNS, MOST_ROWS, evenly
from .simd import VECTOR_BYTES

# A record of numbers; tables of offsets follow it.
#
# The pool's windows are taken BAND lines at a time. What they see of the image that the convolution takes lies by
# samples: lines of PITCH elements, SIZE a sample, the first SHARED elements of each from the chunk's image by the table
# TAKEN, whose lines are SOURCE_STEP apart. A window of the kernel is ROWS runs of VECTORS vectors, one in each of as
# many lines; one pixel of the output further it begins X_STEP, one line further Y_STEP elements later. WEIGHTS: the
# table of a window's elements in a group's sums.
BAND, PITCH, SIZE, SHARED, SOURCE_STEP, ROWS, VECTORS, Y_STEP, X_STEP, TAKEN, WEIGHTS = range(11)
# The gradient by that image, as far as the pool's window and the kernel see it: likewise INTO_LINES, INTO_PITCH,
# INTO_SIZE; its first INTO_SHARED elements go to the chunk's by the tables GIVEN and, for the slope, GIVEN_OUT.
INTO_LINES, INTO_PITCH, INTO_SIZE, INTO_SHARED, GIVEN, GIVEN_OUT = range(11, 17)
# What a pool's window passes to it is TILES_DOWN · TILE_ROWS lines of TILES_ACROSS · TILE_COLUMNS vectors. The weights
# lie beside one another for each column of tiles, PLANE elements; an output channel's, once for each column of the
# pool's window, are as many lines. MARGIN lines of zeros come first.
TILES_DOWN, TILE_ROWS, TILES_ACROSS, TILE_COLUMNS, PLANE, MARGIN = range(17, 23)
# Lists have room for WINDOWS entries of a channel in a band and CHANNELS of a window, both whole vectors.
WINDOWS, CHANNELS = 23, 24
# Regions of the slot's room: the image, values and offsets of a band's windows, the latter for the gradient by the
# weights and by the input, runs of both on their way into a list, lists by channel and by window with the numbers of
# their entries, the weights' and biases' sums, the gradient by the image, a vector for what nobody wants, the number of
# entries of a call, and which windows of the network's input have a pixel that is not zero.
PATCHES, VALUES, OFFSETS, BACK_OFFSETS, RUNS, RUN_OFFSETS = range(25, 31)
BY_CHANNEL, BY_CHANNEL_OFFSETS, STARTS, BY_WINDOW, BY_WINDOW_OFFSETS, COUNTS = range(31, 37)
WEIGHT_SUMS, BIAS_SUMS, INTO, SPARE, COUNT, LIT = range(37, 43)
SEEN, SEEN_SIZE = 43, 44  # lines of the network's input that windows see, and elements of one of LIT's three planes
NUMBERS = 45

# Vectors of a tile of the gradient by the image: they suffice for two multiply-adds a cycle, and a column of tiles'
# weights stay in the level-1 cache.
_SUMS = 12
# Bytes of a band's image: beside what else is under way they stay in the level-2 cache.
_BAND_BYTES = 98304

_CONV = (
    "CHANNELS", "HEIGHT", "WIDTH", "OUTPUTS", "OUT_HEIGHT", "OUT_WIDTH", "KERNEL_H", "KERNEL_W", "STRIDE_H", "STRIDE_W",
    "PADDING_H", "PADDING_W", "WEIGHT_STRIDE",
)  # fmt: skip
_POOL = ("KERNEL_H", "KERNEL_W", "STRIDE_H", "STRIDE_W", "OUT_HEIGHT", "OUT_WIDTH")


def pays(conv: np.ndarray, pool: np.ndarray, lanes: int) -> bool:
    """Whether to visit only the largest pixels of the pool behind a convolution; its windows do not overlap.

    Their share of the pixels has to make up for what a window of the kernel fills only partly, vectors of one sample,
    and for turning samples in lanes into runs and back.
    """
    if lanes * int(pool[p.OUT_HEIGHT] * pool[p.OUT_WIDTH]) >= 1 << 24:
        return False  # numbers of entries are kept as floats
    inputs = int(conv[p.INPUTS])
    pixels = int(pool[p.KERNEL_H] * pool[p.KERNEL_W])
    vectors, packed = _vectors(conv, lanes)
    return pixels * inputs >= (3 if packed else 2) * vectors * lanes


def _vectors(conv: np.ndarray, lanes: int) -> tuple[int, bool]:
    """Vectors of a window of the kernel, and whether its lines are packed into one run.

    Packed, an image's lines are copied once for each line of the kernel, and few of the vectors are aligned, which
    halves the speed; else each pixel's channels are padded to whole vectors.
    """
    inputs, places = int(conv[p.INPUTS]), int(conv[p.KERNEL_H] * conv[p.KERNEL_W])
    packed, padded = -(-inputs // lanes), places * -(-int(conv[p.CHANNELS]) // lanes)
    return min((padded, False), (packed, True), key=lambda way: way[0] * (2 if way[1] else 1))


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


class Places(NamedTuple):
    """How the image that a convolution takes lies in a chunk, and the gradient by it, 0 where none is wanted."""

    plane: int
    line: int
    delta_plane: int
    delta_step: int


class Peaks:
    """The record of one convolution with a pool behind it and its tables: `numbers`, to be put at `start`."""

    def __init__(self, conv: np.ndarray, pool: np.ndarray, source: Places, lanes: int, start: int) -> None:
        self.conv = {name: int(conv[getattr(p, name)]) for name in _CONV}
        self.pool = {name: int(pool[getattr(p, name)]) for name in _POOL}
        self.lanes, self.record = lanes, np.zeros(NUMBERS, np.int64)
        self.tables: list[np.ndarray] = []
        self.end, self.room = start + NUMBERS, 0
        self._image(source, _vectors(conv, lanes)[1])
        if source.delta_plane:
            self._input(source)
        self._regions(source.delta_plane > 0)

    def numbers(self) -> np.ndarray:
        """The record and its tables."""
        return np.concatenate([self.record, *self.tables])

    def _table(self, length: int, fill: int) -> tuple[int, np.ndarray]:
        """A table of as many offsets, all `fill`, and where it begins."""
        at, made = self.end, np.full(length, fill, np.int64)
        self.tables.append(made)
        self.end += length
        return at, made

    def _image(self, source: Places, packed: bool) -> None:
        conv, pool, lanes, record = self.conv, self.pool, self.lanes, self.record
        channels, high, wide = conv["CHANNELS"], conv["KERNEL_H"], conv["KERNEL_W"]
        below = high if packed else 1  # lines of the image in one of the runs
        pixel = below * channels if packed else _up(channels, lanes)
        run = wide * pixel  # of a window, in a line
        width = (conv["OUT_WIDTH"] - 1) * conv["STRIDE_W"] + wide
        vectors = -(-run // lanes)
        pitch = _up(max(width * pixel, (conv["OUT_WIDTH"] - 1) * conv["STRIDE_W"] * pixel + vectors * lanes), lanes)
        band, down = pool["OUT_HEIGHT"], pool["STRIDE_H"]  # lines of a pool that leaves a remainder end before it
        if packed:  # a band's lines are its own
            band = min(band, max(1, _BAND_BYTES // (down * pitch * VECTOR_BYTES)))
        lines = band * down if packed else (band * down - 1) * conv["STRIDE_H"] + high
        shared = _up(width * pixel, lanes)
        rows = 1 if packed else high
        step = conv["STRIDE_H"] if packed else 1
        taken, table = self._table(shared, 0)
        at_weights, weights = self._table(rows * vectors * lanes, -1)
        for x in range(width):
            for y in range(below):
                for channel in range(channels):
                    table[x * pixel + y * channels + channel] = channel * source.plane + y * source.line + x * lanes
        for x in range(wide):
            for y in range(high):
                for channel in range(channels):
                    row, within = (0, y) if packed else (y, 0)
                    element = row * vectors * lanes + x * pixel + within * channels + channel
                    weights[element] = ((channel * high + y) * wide + x) * conv["WEIGHT_STRIDE"]
        record[: WEIGHTS + 1] = (
            band, pitch, lines * pitch, shared, step * source.line, rows, vectors,
            pitch if packed else conv["STRIDE_H"] * pitch, conv["STRIDE_W"] * pixel, taken, at_weights,
        )  # fmt: skip

    def _input(self, source: Places) -> None:
        conv, pool, lanes, record = self.conv, self.pool, self.lanes, self.record
        channels = conv["CHANNELS"]
        high = (pool["KERNEL_H"] - 1) * conv["STRIDE_H"] + conv["KERNEL_H"]
        wide = (pool["KERNEL_W"] - 1) * conv["STRIDE_W"] + conv["KERNEL_W"]
        down, across = -(-high // MOST_ROWS), -(-wide * channels // lanes)
        rows = -(-high // down)
        columns = evenly(across, max(1, min(MOST_COLUMNS, _SUMS // rows)))
        across = -(-across // columns)
        step_y, step_x = (pool[f"STRIDE_{side}"] * conv[f"STRIDE_{side}"] for side in "HW")
        width = conv["WIDTH"] + 2 * conv["PADDING_W"]
        reach = (pool["OUT_WIDTH"] - 1) * step_x * channels + across * columns * lanes
        shared = _up(conv["WIDTH"] * channels, lanes)
        pitch = _up(max(width * channels, reach, conv["PADDING_W"] * channels + shared), lanes)
        lines = max((pool["OUT_HEIGHT"] - 1) * step_y + down * rows, conv["HEIGHT"] + 2 * conv["PADDING_H"])
        given, table = self._table(shared, -1)
        given_out, out_table = self._table(shared, -1)
        for x in range(conv["WIDTH"]):
            for channel in range(channels):
                table[x * channels + channel] = channel * source.delta_plane + x * source.delta_step
                out_table[x * channels + channel] = channel * source.plane + x * lanes
        margin = (pool["KERNEL_H"] - 1) * conv["STRIDE_H"]
        entries = conv["OUTPUTS"] * pool["KERNEL_W"]
        plane = (entries * down * rows + margin) * columns * lanes
        record[INTO_LINES : MARGIN + 1] = (
            lines, pitch, lines * pitch, shared, given, given_out, down, rows, across, columns, plane, margin,
        )  # fmt: skip

    def _regions(self, gives: bool) -> None:
        conv, pool, lanes, record = self.conv, self.pool, self.lanes, self.record
        outputs = conv["OUTPUTS"]
        windows, channels = _up(int(record[BAND]) * pool["OUT_WIDTH"], lanes), _up(outputs, lanes)
        record[WINDOWS], record[CHANNELS] = windows, channels
        planes = channels if gives else 1
        # As far down as windows see, within lines of the image.
        record[SEEN] = (pool["OUT_HEIGHT"] * pool["STRIDE_H"] - 1) * conv["STRIDE_H"] + conv["KERNEL_H"]
        record[SEEN_SIZE] = plane_of_marks(int(record[SEEN]), conv["WIDTH"] + 2 * conv["PADDING_W"], lanes)
        window_lists = lanes * pool["OUT_HEIGHT"] * pool["OUT_WIDTH"] if gives else 0
        sizes = {
            PATCHES: lanes * int(record[SIZE]) + lanes,
            VALUES: planes * windows * lanes,
            OFFSETS: windows * lanes,
            BACK_OFFSETS: planes * windows * lanes,
            RUNS: lanes * max(windows, channels),
            RUN_OFFSETS: lanes * max(windows, channels),
            BY_CHANNEL: outputs * lanes * windows,
            BY_CHANNEL_OFFSETS: outputs * lanes * windows,
            STARTS: outputs * (lanes + 1),
            BY_WINDOW: window_lists * channels,
            BY_WINDOW_OFFSETS: window_lists * channels,
            COUNTS: window_lists,
            WEIGHT_SUMS: channels * int(record[ROWS] * record[VECTORS]) * lanes,
            BIAS_SUMS: lanes,
            INTO: lanes * int(record[INTO_SIZE]),
            SPARE: lanes,
            COUNT: lanes,
            LIT: lanes if gives else 3 * int(record[SEEN_SIZE]),
        }
        for region, size in sizes.items():
            record[region] = self.room
            self.room += _up(size, lanes)
