"""A convolution forward with fewer multiplications: four pixels of a line at a time, by Winograd and by Toom and Cook.

A kernel of five numbers gives four pixels by eight products instead of twenty, one of three by six instead of twelve:
the input, eight or six pixels, and the kernel are taken as polynomials at as many points, multiplied there and taken
back, which costs some additions. Along a line only: the sums over the channels and the kernel's lines are made
between, so that the way there is shared by all outputs and the way back by all of a sum. All three transforms are
small products themselves, and the tile that sums windows makes them, too. winograd_layout.py says where things lie.

The bits are not those of one chain a sum, but the same for any number of threads: they depend on a pixel's place in
its line and on the input's 4 + kernel - 1 pixels from the tile's first on. An infinity or NaN among these reaches all
four pixels, whether the kernel has them within its reach or not. Pixels that see the same, as on a plain ground, would
differ in their last bits by their places: neighbours are made equal, so that of a pool's equal pixels the first counts
as ever, and what sees zeros alone is what the bias gives, where ReLU's slope may change.
"""

import numpy as np

from ..plan import (
    ACTIVATION,
    BIAS,
    CHANNELS,
    KERNEL_H,
    KERNEL_W,
    OUT_HEIGHT,
    OUT_WIDTH,
    OUTPUTS,
    RELU,
    WEIGHT,
    WEIGHT_STRIDE,
)  # fmt: skip
from . import winograd_layout as at
from .conv import channels_of, columns_of, windows
from .jit import ONE, ZERO, inlined, inner
from .lane_marks import mark_pixels, mark_windows, marked, repeat_unmarked
from .layout import FIELDS, FIRST, FUSED, IMAGE, LINE, LINES, PLANE, WINOGRAD, taken
from .pool import pool_lines
from .simd import ADD_BIAS, ADD_BIAS_RELU, STORE, advance, lanes, pointer_to

# As numbers with a type, or the tile would be compiled once more for each: see jit.py.
PIXELS, _STORE = np.int64(at.PIXELS), np.int64(STORE)


@inner
def _product(rows, columns, w, w_k, x, step, table, k, c, c_row, c_step, epilogue, aux):
    """c[rows, columns] = epilogue(Σ w · x) for any number of rows and columns: see window_tile."""
    column = ZERO
    while column < columns:
        width, row = columns_of(columns - column), ZERO
        while row < rows:
            high = channels_of(rows - row)
            windows(
                high, width, advance(w, row), w_k, ZERO, advance(x, column * step), step, table, ZERO, ONE, k,
                advance(c, row * c_row + column * c_step), c_row, c_step, epilogue, aux, ZERO, ZERO,
            )  # fmt: skip
            row += high
        column += width


@inner
def turn_weights(plan, layer, params, images, layout, room):
    """The weights at each point, the transforms' numbers and the biases, to the slot's room."""
    row, record = plan[layer], layout[layer * FIELDS + WINOGRAD]
    points, vector, T = layout[record + at.POINTS], lanes(images), images.dtype.type
    for i in range(points * (points + row[KERNEL_W] + PIXELS)):
        number, divisor = layout[layout[record + at.NUMBERS] + i], layout[layout[record + at.DIVISORS] + i]
        images[room + layout[record + at.OF_INPUT] + i] = T(number) / T(divisor)
    for output in range(row[OUTPUTS]):
        bias = params[row[BIAS] + output]
        images[room + layout[record + at.GROUND] + output] = T(0) if row[ACTIVATION] == RELU and bias <= 0 else bias
        for j in range(PIXELS):
            images[room + layout[record + at.BIASES] + output * PIXELS + j] = bias
    stride = row[WEIGHT_STRIDE]
    for place in range(row[CHANNELS] * row[KERNEL_H]):
        target = pointer_to(images, room + layout[record + at.WEIGHTS] + place * stride)
        _product(
            points, stride // vector, pointer_to(images, room + layout[record + at.OF_WEIGHTS]), points,
            pointer_to(params, row[WEIGHT] + place * row[KERNEL_W] * stride), vector,
            pointer_to(layout, layout[record + at.KERNEL_TABLE]), row[KERNEL_W], target,
            layout[record + at.WEIGHTS_PLANE], vector, _STORE, target,
        )  # fmt: skip


@inlined
def _turn_input(row, record, images, layout, room, source, plane, line, count):
    """`count` lines of the input, of which the first pixels of the first channel are at source, at each point."""
    points, tiles, vector = layout[record + at.POINTS], layout[record + at.TILES], lanes(images)
    of_input = pointer_to(images, room + layout[record + at.OF_INPUT])
    table = pointer_to(layout, layout[record + at.PIXEL_TABLE])
    lines = layout[record + at.BAND] + row[KERNEL_H] - 1
    for channel in range(row[CHANNELS]):
        for tile in range(tiles):
            left = min(tile * PIXELS, row[OUT_WIDTH] - PIXELS)
            target = pointer_to(images, room + layout[record + at.INPUT] + (channel * lines * tiles + tile) * vector)
            _product(
                points, count, of_input, points, pointer_to(images, source + channel * plane + left * vector), line,
                table, points, target, layout[record + at.INPUT_PLANE], tiles * vector, _STORE, target,
            )  # fmt: skip


@inlined
def _mark_windows(row, record, images, layout, room, source, plane, line):
    """Where windows have a pixel that is not zero, differ from the next in their line, and from those a line below; and
    whether that holds for some of them only.
    """
    vector, at_room = lanes(images), room + layout[record + at.MARKS]
    height, width = row[OUT_HEIGHT] + row[KERNEL_H] - 1, line // vector
    plane_size = layout[record + at.MARKS_PLANE]
    size = 3 * plane_size
    mark_pixels(
        height * width, pointer_to(images, source), row[CHANNELS], plane, line, size, pointer_to(images, at_room)
    )
    for i in range(3):
        mark_windows(images, at_room + i * size, plane_size, height, width, row[KERNEL_H], row[KERNEL_W])
    lit = at_room + 2 * plane_size
    beside, below = lit + size, lit + 2 * size
    high, wide = row[OUT_HEIGHT], row[OUT_WIDTH]
    all_differ = marked(images, lit, high, wide, width) and marked(images, beside, high, wide - 1, width)
    return lit, beside, below, not (all_differ and marked(images, below, high - 1, wide, width))


@inlined
def _multiply(row, record, images, layout, room, line, count):
    """The products of `count` lines of the output, from line `line` of the band on, at each point."""
    tiles, vector, stride = layout[record + at.TILES], lanes(images), row[WEIGHT_STRIDE]
    run = layout[record + at.BLOCK] * tiles
    for point in range(layout[record + at.POINTS]):
        source = room + layout[record + at.INPUT] + point * layout[record + at.INPUT_PLANE] + line * tiles * vector
        target = pointer_to(images, room + layout[record + at.OUTPUT] + point * layout[record + at.OUTPUT_PLANE])
        weights = pointer_to(images, room + layout[record + at.WEIGHTS] + point * layout[record + at.WEIGHTS_PLANE])
        _product(
            row[OUTPUTS], count * tiles, weights, stride, pointer_to(images, source), vector,
            pointer_to(layout, layout[record + at.WINDOW_TABLE]), row[CHANNELS] * row[KERNEL_H], target, run * vector,
            vector, _STORE, target,
        )  # fmt: skip


@inlined
def _turn_back(row, record, images, layout, room, channel, count, target, line):
    """`count` lines of a channel from the products to `target`, `line` apart."""
    tiles, vector, width = layout[record + at.TILES], lanes(images), row[OUT_WIDTH]
    epilogue = ADD_BIAS_RELU if row[ACTIVATION] == RELU else ADD_BIAS
    of_output = pointer_to(images, room + layout[record + at.OF_OUTPUT])
    table = pointer_to(layout, layout[record + at.POINT_TABLE])
    biases = pointer_to(images, room + layout[record + at.BIASES] + channel * PIXELS)
    source = room + layout[record + at.OUTPUT] + channel * layout[record + at.BLOCK] * tiles * vector
    for tile in range(tiles):
        left = min(tile * PIXELS, width - PIXELS)
        _product(
            PIXELS, count, of_output, PIXELS, pointer_to(images, source + tile * vector), tiles * vector, table,
            layout[record + at.POINTS], pointer_to(images, target + left * vector), vector, line, epilogue, biases,
        )  # fmt: skip


@inlined
def _equalise(row, record, images, layout, room, marks, channel, first, y, count, target, line):
    """Of `count` lines at `target`, from line y on, make what sees zeros alone what the bias gives, and what sees the
    same as the pixel before or above it equal to that. Above line `first` there is none.
    """
    lit, beside, below, _ = marks
    width = row[OUT_WIDTH] + row[KERNEL_W] - 1
    for i in range(y, y + count):
        here = target + (i - y) * line
        above, over = (here - line, below + (i - 1) * width) if i > first else (here, below)
        repeat_unmarked(
            row[OUT_WIDTH], pointer_to(images, here), pointer_to(images, lit + i * width),
            pointer_to(images, room + layout[record + at.GROUND] + channel), pointer_to(images, beside + i * width),
            pointer_to(images, above), pointer_to(images, over),
        )  # fmt: skip


@inner
def forward(plan, layer, images, layout, chunk, room):
    """The layer's image of one chunk, which begins at `chunk`, or where the pool behind it takes it, that pool's."""
    row, record, me, before = plan[layer], layout[layer * FIELDS + WINOGRAD], layer * FIELDS, taken(plan, layer)
    vector, fused = lanes(images), layout[me + FUSED] != 0
    band, block, height, high = layout[record + at.BAND], layout[record + at.BLOCK], row[OUT_HEIGHT], ONE
    apart = layout[me + LINE]
    if fused:
        high, apart = plan[layer + 1, KERNEL_H], row[OUT_WIDTH] * vector
        height = plan[layer + 1, OUT_HEIGHT] * high
    plane, line, image = layout[before + PLANE], layout[before + LINE], chunk + layout[before + IMAGE]
    marks = _mark_windows(row, record, images, layout, room, image, plane, line)
    for top in range(0, height, block):
        count = min(block, height - top)
        if top % band == 0:
            last = min(top + band, height) + row[KERNEL_H] - 1
            _turn_input(row, record, images, layout, room, image + top * line, plane, line, last - top)
        _multiply(row, record, images, layout, room, top % band, count)
        for channel in range(row[OUTPUTS]):
            target = chunk + layout[me + FIRST] + channel * layout[me + PLANE] + top * apart
            if fused:
                target = room + layout[plan.shape[0] * FIELDS + LINES]
            _turn_back(row, record, images, layout, room, channel, count, target, apart)
            if marks[3]:
                first = top if fused else ZERO
                _equalise(row, record, images, layout, room, marks, channel, first, top, count, target, apart)
            if fused:
                for y in range(0, count, high):
                    pool_lines(
                        plan[layer + 1], images, layout, me + FIELDS, chunk, channel, (top + y) // high,
                        target + y * apart, apart, top + y,
                    )  # fmt: skip
