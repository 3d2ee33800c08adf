"""What a convolution in Winograd's form needs, where it lies, and when that form is faster: see winograd.py."""

from fractions import Fraction

import numpy as np

from .. import plan as p
from .lane_marks import plane_of_marks
from .simd import VECTOR_BYTES

# A record of numbers; tables follow it.
#
# A line is cut into TILES tiles of PIXELS pixels, the last of which may overlap the one before, each from POINTS pixels
# of the input. BAND lines of the output are made from one band of transformed input, BLOCK of them at once.
POINTS, TILES, BAND, BLOCK = range(4)
# Regions of the slot's room: the transformed input, weights and output, a plane a point, and how long a plane is; the
# three transforms' numbers; every bias once for each pixel of a tile, and what it gives alone; which windows have a
# pixel that is not zero, differ from the next, and from those below, in three planes each.
INPUT, INPUT_PLANE, WEIGHTS, WEIGHTS_PLANE, OUTPUT, OUTPUT_PLANE = range(4, 10)
OF_INPUT, OF_WEIGHTS, OF_OUTPUT, BIASES, GROUND, MARKS, MARKS_PLANE = range(10, 17)
# Tables: numerators and denominators of the transforms' numbers, each transform turned over; the offsets of a tile's
# pixels, of a kernel's numbers in a line, of a tile's window in the transformed input and of its points in the output.
NUMBERS, DIVISORS, PIXEL_TABLE, KERNEL_TABLE, WINDOW_TABLE, POINT_TABLE = range(17, 23)
SIZE = 23

PIXELS = 4  # of a tile
_KERNELS = range(2, 6)  # widths of kernels; a wider one would need points beyond these, and lose more digits
# Where the polynomials are taken, besides at infinity; a kernel of three takes the first five. In this order F(4, 3)
# loses half of what it does with -1/2 or 2 before -2 (float32, 50 channels: 3.6e-7 of the output's root mean square;
# F(4, 5) 6.6e-7; each sum as one chain 1.3e-7).
_PLACES = tuple(Fraction(n) for n in ("0", "1", "-1", "1/2", "-2", "2", "-1/2"))

_NEAR = 262144  # bytes of a band of transformed input: beside what else is under way it stays in the level-2 cache
# What a number of the transforms takes, by a multiply-add of the products: tiles are thin, and there are zeros.
_COST = 2


def transforms(kernel: int) -> tuple[list[list[Fraction]], list[list[Fraction]], list[list[Fraction]]]:
    """(of the input (n, n), of the weights (n, kernel), of the output (PIXELS, n)) for n = PIXELS + kernel - 1 points.

    Output[i] = Σⱼ kernel[j] · input[i + j] is of_output @ ((of_weights @ kernel) * (of_input @ input)): Toom and Cook's
    product of two polynomials, transposed (Lavin and Gray, 2016, Fast algorithms for convolutional neural networks).
    """
    n = PIXELS + kernel - 1
    places = _PLACES[: n - 1]

    def powers(count: int) -> list[list[Fraction]]:
        return [[place**j for j in range(count)] for place in places] + [
            [Fraction(j == count - 1) for j in range(count)]
        ]

    of_input = np.array(_inverse(powers(n)), dtype=object).T.tolist()
    of_output = np.array(powers(PIXELS), dtype=object).T.tolist()
    return of_input, powers(kernel), of_output


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """The inverse of a square matrix, exactly (Gauss and Jordan)."""
    n = len(matrix)
    rows = [[*row, *(Fraction(i == j) for j in range(n))] for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(k for k in range(i, n) if rows[k][i] != 0)
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = [value / rows[i][i] for value in rows[i]]
        for k in range(n):
            if k != i:
                factor = rows[k][i]
                rows[k] = [a - factor * b for a, b in zip(rows[k], rows[i], strict=True)]
    return [row[n:] for row in rows]


def possible(conv: np.ndarray) -> bool:
    """Whether a convolution has this form: lines of a tile or more, a kernel of two to five columns, no stride."""
    whole = int(conv[p.OUT_WIDTH]) >= PIXELS and conv[p.STRIDE_H] == 1 and conv[p.STRIDE_W] == 1
    return bool(whole and int(conv[p.KERNEL_W]) in _KERNELS)


def pays(conv: np.ndarray) -> bool:
    """Whether a convolution's forward pass takes clearly fewer operations in this form, transforms included."""
    if not possible(conv):
        return False
    height, high, kernel = int(conv[p.OUT_HEIGHT]), int(conv[p.KERNEL_H]), int(conv[p.KERNEL_W])
    channels, outputs = int(conv[p.CHANNELS]), int(conv[p.OUTPUTS])
    points, tiles = PIXELS + kernel - 1, -(-int(conv[p.OUT_WIDTH]) // PIXELS)
    products = height * channels * high * outputs
    moved = points * tiles * (points * (height + high - 1) * channels + PIXELS * height * outputs)
    return 10 * (points * tiles * products + _COST * moved) < 9 * kernel * int(conv[p.OUT_WIDTH]) * products


def _up(n: int, unit: int) -> int:
    return -(-n // unit) * unit


class Winograd:
    """The record of one convolution and its tables, to be put at `start`: `numbers`.

    At a time it makes `block` lines of the output. It takes a slot's room from `at` on up to `room`.
    """

    def __init__(self, conv: np.ndarray, block: int, lanes: int, start: int, at: int) -> None:
        kernel, high, outputs = int(conv[p.KERNEL_W]), int(conv[p.KERNEL_H]), int(conv[p.OUTPUTS])
        channels, stride = int(conv[p.CHANNELS]), int(conv[p.WEIGHT_STRIDE])
        points, tiles = PIXELS + kernel - 1, -(-int(conv[p.OUT_WIDTH]) // PIXELS)
        fits = _NEAR // (points * channels * tiles * VECTOR_BYTES) - (high - 1)
        band = min(_up(int(conv[p.OUT_HEIGHT]), block), max(1, fits // block) * block)
        lines, run = band + high - 1, block * tiles
        # An odd number of vectors, or planes would share a few cache sets.
        planes = [count * lanes for count in (channels * lines * tiles | 1, outputs * run | 1)]
        weights = channels * high * stride
        width = int(conv[p.OUT_WIDTH]) + kernel - 1
        marks = plane_of_marks(int(conv[p.OUT_HEIGHT]) + high - 1, width, lanes)
        numbers = points * (points + kernel + PIXELS)
        sizes = {
            INPUT: points * planes[0], WEIGHTS: points * weights, OUTPUT: points * planes[1], OF_INPUT: numbers,
            BIASES: outputs * PIXELS, GROUND: outputs, MARKS: 9 * marks,
        }  # fmt: skip
        self.record, self.room = np.zeros(SIZE, np.int64), at
        for region, size in sizes.items():
            self.record[region] = self.room
            self.room += _up(size, lanes)
        self.record[MARKS_PLANE] = marks
        self.record[OF_WEIGHTS] = self.record[OF_INPUT] + points * points
        self.record[OF_OUTPUT] = self.record[OF_WEIGHTS] + points * kernel
        self.record[: BLOCK + 1] = points, tiles, band, block
        self.record[[INPUT_PLANE, WEIGHTS_PLANE, OUTPUT_PLANE]] = planes[0], weights, planes[1]
        self.tables: list[list[int]] = []
        self.end = start + SIZE
        turned = [value for matrix in transforms(kernel) for column in zip(*matrix, strict=True) for value in column]
        self._table(NUMBERS, [value.numerator for value in turned])
        self._table(DIVISORS, [value.denominator for value in turned])
        self._table(PIXEL_TABLE, [j * lanes for j in range(points)])
        self._table(KERNEL_TABLE, [x * stride for x in range(kernel)])
        self._table(WINDOW_TABLE, [(c * lines + y) * tiles * lanes for c in range(channels) for y in range(high)])
        self._table(POINT_TABLE, [point * planes[1] for point in range(points)])

    def _table(self, name: int, values: list[int]) -> None:
        self.record[name] = self.end
        self.tables.append(values)
        self.end += len(values)

    def numbers(self) -> np.ndarray:
        """The record and its tables."""
        return np.concatenate([self.record, *(np.array(table, np.int64) for table in self.tables)])
