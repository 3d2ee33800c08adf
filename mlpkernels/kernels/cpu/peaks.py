"""A convolution's gradients where a pool behind it keeps one pixel of each window: only those are visited.

Of a 2 x 2 window's pixels one in four has a gradient, of those that ReLU lets pass. Which it is differs from sample to
sample, so here vectors hold numbers of one sample: for the weights, sums over a channel's pixels of gradient times the
window of the image that the pixel saw; for the image, sums over the channels of gradient times weights. peak_layout.py
says where all this lies. A chunk's sums are made in one order, whatever the number of threads.
"""

import numpy as np

from ..plan import (
    ACTIVATION,
    CHANNELS,
    HEIGHT,
    INPUTS,
    KERNEL_H,
    KERNEL_W,
    OUT_HEIGHT,
    OUT_WIDTH,
    OUTPUTS,
    PADDING_H,
    PADDING_W,
    RELU,
    STRIDE_H,
    STRIDE_W,
    WEIGHT,
    WEIGHT_STRIDE,
)  # fmt: skip
from . import peak_layout as at
from .jit import ONE, ZERO, inner
from .lane_marks import all_lanes, mark_pixels, mark_windows
from .layout import (
    ARGMAX,
    DELTA_FIRST,
    DELTA_LINE,
    DELTA_PLANE,
    DELTA_STEP,
    FIELDS,
    FIRST,
    GROUP_SIZE,
    GROUPS,
    IMAGE,
    LINE,
    PEAK_ROOM,
    PEAKS,
    PLANE,
    SUMS,
    TURNED,
    taken,
)  # fmt: skip
from .peak_tiles import (
    ADD,
    MOST,
    MOST_COLUMNS,
    MOST_ROWS,
    evenly,
    from_runs,
    peak_tile,
    squeeze,
    to_runs,
    window_line,
)
from .simd import RELU_SLOPE, STORE, lanes, pointer_to
from .transposes import transpose_block

# Bytes of the samples' images that a channel's weights are summed over at once: they stay in the level-1 cache.
_NEAR = 40960

_evenly = inner(evenly)


@inner
def record_of(plan, layer, layout):
    """The layer's record."""
    return layout[layout[layer * FIELDS + PEAKS] :]


@inner
def _room_of(plan, layout, room):
    """Where the slot's room for lists and runs begins."""
    return room + layout[plan.shape[0] * FIELDS + PEAK_ROOM]


@inner
def _clear(images, start, size):
    part = images[start : start + size]
    for i in range(part.shape[0]):
        part[i] = 0


@inner
def _tiles(rows, columns, count, counts, values, offsets, list_step, source, pitch, target, target_row, target_step):
    """The one place where the tile is compiled: see peak_tile."""
    peak_tile(rows, columns, count, counts, values, offsets, list_step, source, pitch, target, target_row, target_step)


@inner
def turn_weights(plan, layer, params, images, layout, room):
    """The weights as the gradient of the image takes them; the zeros between them were made with the workspace."""
    row, record = plan[layer], record_of(plan, layer, layout)
    copies, columns = plan[layer + 1, KERNEL_W], record[at.TILE_COLUMNS] * lanes(images)
    lines, wide, high = record[at.TILES_DOWN] * record[at.TILE_ROWS], row[KERNEL_W], row[KERNEL_H]
    turned, line = room + layout[layer * FIELDS + TURNED], wide * row[WEIGHT_STRIDE]
    # An output after the other: what is written stays within a few KB, 12 µs to 8.5 for 10 x 20 kernels of 5 x 5.
    for output in range(row[OUTPUTS]):
        for copy in range(copies):
            element = copy * row[STRIDE_W] * row[CHANNELS]
            target = turned + element // columns * record[at.PLANE] + element % columns
            target += (record[at.MARGIN] + (output * copies + copy) * lines) * columns
            left = columns - element % columns  # of this column of tiles
            for x in range(wide):
                for channel in range(row[CHANNELS]):
                    source = row[WEIGHT] + (channel * high * wide + x) * row[WEIGHT_STRIDE] + output
                    for y in range(high):
                        images[target + y * columns] = params[source + y * line]
                    target, left = target + 1, left - 1
                    if left == 0:
                        target, left = target + record[at.PLANE] - columns, columns


# ---- from lanes to runs and lists


@inner
def _image_runs(record, images, layout, source, target, high):
    """What `high` lines of the pool see of the image that the convolution takes, sample by sample."""
    vector = lanes(images)
    for line in range(record[at.SIZE] // record[at.PITCH] * high // record[at.BAND]):
        for j in range(0, record[at.SHARED], vector):
            to_runs(
                pointer_to(images, source + line * record[at.SOURCE_STEP]),
                pointer_to(layout, record[at.TAKEN] + j),
                pointer_to(images, target + line * record[at.PITCH] + j), record[at.SIZE],
            )  # fmt: skip


@inner
def _lit_windows(plan, layer, images, layout, chunk, at_room):
    """Which samples have a pixel that is not zero where a pool's window sees it through the kernel: a third of MNIST's
    windows see none. (where an integer of lanes is for each window, steps to the next across and down)

    Behind the first layer hardly a window sees none: there one integer, all lanes, does for all.
    """
    row, pool, record, before = plan[layer], plan[layer + 1], record_of(plan, layer, layout), taken(plan, layer)
    vector, lit = lanes(images), at_room + record[at.LIT]
    if layer > 0:
        all_lanes(pointer_to(images, lit))
        return lit, 0, 0
    width, height = layout[before + LINE] // vector, record[at.SEEN]
    size = record[at.SEEN_SIZE]
    mark_pixels(
        height * width, pointer_to(images, chunk + layout[before + IMAGE]), row[CHANNELS], layout[before + PLANE],
        ZERO, size, pointer_to(images, lit),
    )  # fmt: skip
    wide = (pool[KERNEL_W] - 1) * row[STRIDE_W] + row[KERNEL_W]
    high = (pool[KERNEL_H] - 1) * row[STRIDE_H] + row[KERNEL_H]
    down = mark_windows(images, lit, size, height, width, high, wide)
    return down, pool[STRIDE_W] * row[STRIDE_W], pool[STRIDE_H] * row[STRIDE_H] * width


@inner
def _band_windows(
    plan, layer, images, layout, chunk, deltas, channel, top, lines, lit, values, offsets, base, steps, total
):  # fmt: skip
    """Values and offsets of a channel's windows in `lines` lines from `top` on.

    lit: as `_lit_windows` returns it; steps: of a window down and across, of a pixel down and across, and of a lane.
    """
    pool, behind = plan[layer + 1], (layer + 1) * FIELDS
    vector = lanes(images)
    slope = plan[layer, ACTIVATION] == RELU
    wide = pool[OUT_WIDTH]
    delta = deltas + layout[behind + DELTA_FIRST] + channel * layout[behind + DELTA_PLANE]
    out = chunk + layout[behind + FIRST] + channel * layout[behind + PLANE]
    places = chunk + layout[behind + ARGMAX] + channel * pool[OUT_HEIGHT] * wide * vector
    for i in range(lines):
        y, first = top + i, i * wide * vector
        window_line(
            wide, pointer_to(images, delta + y * layout[behind + DELTA_LINE]), layout[behind + DELTA_STEP],
            pointer_to(images, places + y * wide * vector), pointer_to(images, out + y * layout[behind + LINE]), slope,
            pointer_to(images, lit[0] + y * lit[2]), lit[1], pool[KERNEL_W], pointer_to(images, values + first),
            pointer_to(images, offsets + first), base + i * steps[0], steps[1], steps[2], steps[3], steps[4],
            pointer_to(images, total),
        )  # fmt: skip


@inner
def _runs(images, source, count, step, target, row):
    """count vectors, step apart, as a run of numbers for each lane."""
    vector = lanes(images)
    for j in range(0, count, vector):
        transpose_block(pointer_to(images, source + j * step), step, pointer_to(images, target + j), row)


@inner
def _squeezed(images, values, offsets, count, to_values, to_offsets):
    """How many of a run's values are not zero; they and their offsets go to the list."""
    vector, n = lanes(images), 0
    for j in range(0, count, vector):
        n += squeeze(
            pointer_to(images, values + j), pointer_to(images, offsets + j), pointer_to(images, to_values + n),
            pointer_to(images, to_offsets + n),
        )  # fmt: skip
    return n


@inner
def _channel_lists(plan, layer, images, layout, chunk, deltas, at_room, top, lit, sums, accumulate):
    """Of a band, each channel's list, sample behind sample, and its bias's gradient; and what `_window_lists` wants."""
    row, pool, record = plan[layer], plan[layer + 1], record_of(plan, layer, layout)
    vector, windows = lanes(images), record[at.WINDOWS]
    high = min(record[at.BAND], pool[OUT_HEIGHT] - top)
    count = high * pool[OUT_WIDTH]
    y_step, x_step = record[at.Y_STEP], record[at.X_STEP]
    steps = pool[STRIDE_H] * y_step, pool[STRIDE_W] * x_step, y_step, x_step, record[at.SIZE]
    lines, columns = record[at.TILES_DOWN] * record[at.TILE_ROWS], record[at.TILE_COLUMNS] * vector
    back_steps = ZERO, ZERO, -row[STRIDE_H] * columns, lines * columns, ZERO
    offsets, total = at_room + record[at.OFFSETS], at_room + record[at.BIAS_SUMS]
    runs, run_offsets = at_room + record[at.RUNS], at_room + record[at.RUN_OFFSETS]
    for channel in range(row[OUTPUTS]):
        values = at_room + record[at.VALUES]
        if layer > 0:
            values += channel * windows * vector
            base = (channel * pool[KERNEL_W] * lines + record[at.MARGIN]) * columns
            _band_windows(
                plan, layer, images, layout, chunk, deltas, channel, top, high, lit, values,
                at_room + record[at.BACK_OFFSETS] + channel * windows * vector, base, back_steps, total,
            )  # fmt: skip
        _clear(images, total, vector)
        _band_windows(
            plan, layer, images, layout, chunk, deltas, channel, top, high, lit, values, offsets, ZERO, steps, total
        )  # fmt: skip
        _clear(images, values + count * vector, (windows - count) * vector)
        bias = sums + row[INPUTS] * row[WEIGHT_STRIDE] + channel
        if not accumulate:
            images[bias] = 0
        for i in range(vector):
            images[bias] += images[total + i]
        _runs(images, values, windows, vector, runs, windows)
        _runs(images, offsets, windows, vector, run_offsets, windows)
        to_values = at_room + record[at.BY_CHANNEL] + channel * vector * windows
        to_offsets = at_room + record[at.BY_CHANNEL_OFFSETS] + channel * vector * windows
        starts, n = at_room + record[at.STARTS] + channel * (vector + 1), 0
        for i in range(vector):
            images[starts + i] = n
            n += _squeezed(
                images, runs + i * windows, run_offsets + i * windows, windows, to_values + n, to_offsets + n
            )  # fmt: skip
        images[starts + vector] = n


@inner
def _window_lists(plan, layer, images, layout, at_room, top):
    """Of a band, each window's list of the channels."""
    row, pool, record = plan[layer], plan[layer + 1], record_of(plan, layer, layout)
    vector, channels, step = lanes(images), record[at.CHANNELS], record[at.WINDOWS] * lanes(images)
    windows, begin = pool[OUT_HEIGHT] * pool[OUT_WIDTH], top * pool[OUT_WIDTH]
    values, offsets = at_room + record[at.VALUES], at_room + record[at.BACK_OFFSETS]
    runs, run_offsets = at_room + record[at.RUNS], at_room + record[at.RUN_OFFSETS]
    for channel in range(row[OUTPUTS], channels):
        _clear(images, values + channel * step, step)
    for window in range(min(record[at.BAND] * pool[OUT_WIDTH], windows - begin)):
        _runs(images, values + window * vector, channels, step, runs, channels)
        _runs(images, offsets + window * vector, channels, step, run_offsets, channels)
        for i in range(vector):
            entry = i * windows + begin + window
            images[at_room + record[at.COUNTS] + entry] = _squeezed(
                images, runs + i * channels, run_offsets + i * channels, channels,
                at_room + record[at.BY_WINDOW] + entry * channels,
                at_room + record[at.BY_WINDOW_OFFSETS] + entry * channels,
            )  # fmt: skip


# ---- the gradients


@inner
def _weight_sums(row, record, images, at_room):
    """A band's gradient by the weights, added to the chunk's, a few samples' images at a time."""
    vector, rows, columns = lanes(images), record[at.ROWS], record[at.VECTORS]
    windows, size = record[at.WINDOWS], rows * columns * vector
    high = _evenly(rows, np.int64(MOST_ROWS))
    wide = _evenly(columns, min(MOST_COLUMNS, MOST // high))
    samples = max(1, _NEAR // (record[at.SIZE] * images.itemsize))
    count, patches = at_room + record[at.COUNT], at_room + record[at.PATCHES]
    for first in range(0, vector, samples):
        last = min(first + samples, vector)
        for channel in range(row[OUTPUTS]):
            starts = at_room + record[at.STARTS] + channel * (vector + 1)
            begin = np.int64(images[starts + first])
            images[count] = images[starts + last] - images[starts + first]
            entries = channel * vector * windows + begin
            for y in range(0, rows, high):
                for x in range(0, columns, wide):
                    within = x * vector
                    _tiles(
                        min(high, rows - y), min(wide, columns - x), ONE, pointer_to(images, count),
                        pointer_to(images, at_room + record[at.BY_CHANNEL] + entries),
                        pointer_to(images, at_room + record[at.BY_CHANNEL_OFFSETS] + entries), ZERO,
                        pointer_to(images, patches + y * record[at.PITCH] + within), record[at.PITCH],
                        pointer_to(
                            images, at_room + record[at.WEIGHT_SUMS] + channel * size + y * columns * vector + within
                        ),
                        columns * vector, ZERO,
                    )  # fmt: skip


@inner
def backward_params(plan, layer, images, layout, chunk, deltas, room, group, accumulate):
    """A chunk's share of the weights' and biases' gradient, set or added to its group's sums."""
    row, record, me, before = plan[layer], record_of(plan, layer, layout), layer * FIELDS, taken(plan, layer)
    vector, end = lanes(images), plan.shape[0] * FIELDS
    at_room = _room_of(plan, layout, room)
    sums = layout[end + GROUPS] + group * layout[end + GROUP_SIZE] + layout[me + SUMS]
    size, spare = record[at.ROWS] * record[at.VECTORS] * vector, at_room + record[at.SPARE]
    _clear(images, at_room + record[at.WEIGHT_SUMS], record[at.CHANNELS] * size)
    lit = _lit_windows(plan, layer, images, layout, chunk, at_room)
    for top in range(0, plan[layer + 1, OUT_HEIGHT], record[at.BAND]):
        adds = accumulate or top > 0
        _channel_lists(plan, layer, images, layout, chunk, deltas, at_room, top, lit, sums, adds)
        if layer > 0:
            _window_lists(plan, layer, images, layout, at_room, top)
        line = top * plan[layer + 1, STRIDE_H] * row[STRIDE_H] * layout[before + LINE]
        high = min(record[at.BAND], plan[layer + 1, OUT_HEIGHT] - top)
        _image_runs(record, images, layout, chunk + layout[before + IMAGE] + line, at_room + record[at.PATCHES], high)
        _weight_sums(row, record, images, at_room)
    for output in range(0, row[OUTPUTS], vector):
        for j in range(0, size, vector):
            from_runs(
                pointer_to(images, at_room + record[at.WEIGHT_SUMS] + output * size + j), size,
                pointer_to(images, sums + output), pointer_to(layout, record[at.WEIGHTS] + j),
                pointer_to(images, spare), ADD if accumulate else STORE, pointer_to(images, spare),
                pointer_to(layout, record[at.WEIGHTS] + j),
            )  # fmt: skip


@inner
def backward_input(plan, layer, images, layout, chunk, deltas, room):
    """The gradient by what the layer below gives, with that layer's slope; after `backward_params`."""
    row, pool, record = plan[layer], plan[layer + 1], record_of(plan, layer, layout)
    me, below = layer * FIELDS, (layer - 1) * FIELDS
    vector, at_room = lanes(images), _room_of(plan, layout, room)
    channels, pitch = record[at.CHANNELS], record[at.INTO_PITCH]
    columns, lines = record[at.TILE_COLUMNS] * vector, record[at.TILE_ROWS]
    high, wide = pool[OUT_HEIGHT], pool[OUT_WIDTH]
    y_step = pool[STRIDE_H] * row[STRIDE_H] * pitch
    x_step = pool[STRIDE_W] * row[STRIDE_W] * row[CHANNELS]
    into, size = at_room + record[at.INTO], record[at.INTO_SIZE]
    _clear(images, into, vector * size)
    for across in range(record[at.TILES_ACROSS]):
        weights = room + layout[me + TURNED] + across * record[at.PLANE]
        for down in range(record[at.TILES_DOWN]):
            start = into + down * lines * pitch + across * columns
            for i in range(vector):
                for y in range(high):
                    entry = (i * high + y) * wide
                    _tiles(
                        lines, record[at.TILE_COLUMNS], wide, pointer_to(images, at_room + record[at.COUNTS] + entry),
                        pointer_to(images, at_room + record[at.BY_WINDOW] + entry * channels),
                        pointer_to(images, at_room + record[at.BY_WINDOW_OFFSETS] + entry * channels), channels,
                        pointer_to(images, weights + down * lines * columns), columns,
                        pointer_to(images, start + i * size + y * y_step), pitch, x_step,
                    )  # fmt: skip
    how = RELU_SLOPE if plan[layer - 1, ACTIVATION] == RELU else STORE
    spare = at_room + record[at.SPARE]
    for y in range(row[HEIGHT]):
        source = into + (y + row[PADDING_H]) * pitch + row[PADDING_W] * row[CHANNELS]
        target = deltas + layout[below + DELTA_FIRST] + y * layout[below + DELTA_LINE]
        out = chunk + layout[below + FIRST] + y * layout[below + LINE]
        for j in range(0, record[at.INTO_SHARED], vector):
            from_runs(
                pointer_to(images, source + j), size, pointer_to(images, target),
                pointer_to(layout, record[at.GIVEN] + j), pointer_to(images, spare), how, pointer_to(images, out),
                pointer_to(layout, record[at.GIVEN_OUT] + j),
            )  # fmt: skip
