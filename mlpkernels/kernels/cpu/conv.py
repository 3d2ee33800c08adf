"""Convolution of a chunk of samples, forward and backward, over the tiles; straight into a pool where one follows."""

from ..plan import (
    ACTIVATION,
    BIAS,
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
    WIDTH,
    pad,
)  # fmt: skip
from .conv_tiles import COLUMNS, gradient_tile, window_tile
from .jit import ONE, ZERO, inner
from .layout import (
    BACK_TABLE,
    DELTA,
    DELTA_FIRST,
    DELTA_LINE,
    DELTA_PLANE,
    DELTA_STEP,
    FIELDS,
    FIRST,
    FUSED,
    GROUP_SIZE,
    GROUPS,
    IMAGE,
    LINE,
    LINES,
    PLANE,
    SUMS,
    TABLE,
    TURNED,
    taken,
)  # fmt: skip
from .pool import pool_lines
from .simd import ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, STORE, lanes, pointer_to

WIDEST = COLUMNS[0]

padded = inner(pad)

# Bytes of gradient that a block of lines may have: with the image beside it, it shall stay in the level-1 cache.
_NEAR = 24576


@inner
def windows(
    rows, width, w, w_k, w_turn, x, step, table, table_turn, turns, k, c, c_row, c_step, epilogue, aux, aux_row,
    aux_step,
):  # fmt: skip
    """The one place where the tile is compiled: see window_tile."""
    window_tile(
        rows, width, w, w_k, w_turn, x, step, table, table_turn, turns, k, c, c_row, c_step, epilogue, aux, aux_row,
        aux_step,
    )  # fmt: skip


@inner
def columns_of(left):
    """Pixels of the next tile, of those left in a line."""
    return WIDEST if left >= WIDEST else 2 if left >= 2 else 1


@inner
def _places(left):
    """Places in the kernel of the next gradient's tile: a single one is taken along by the tile before it."""
    return WIDEST + 1 if left == WIDEST + 1 else columns_of(left)


@inner
def channels_of(left):
    """Channels of the next tile: all that are left divided evenly into tiles of at most 6, so that none is thin."""
    tiles = (left + 5) // 6
    return (left + tiles - 1) // tiles


@inner
def forward(plan, layer, params, images, layout, chunk, room):
    """The layer's image of one chunk, which begins at `chunk`; where it goes straight into the pool behind it, that
    pool's, from a few lines at a time, which only the slot's room holds.
    """
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    fused, vector = layout[me + FUSED] != 0, lanes(images)
    epilogue = ADD_BIAS_RELU if row[ACTIVATION] == RELU else ADD_BIAS
    plane, line, high, height = layout[me + PLANE], layout[me + LINE], ONE, row[OUT_HEIGHT]
    if fused:
        high, height = plan[layer + 1, KERNEL_H], plan[layer + 1, OUT_HEIGHT]
        line = row[OUT_WIDTH] * vector
        plane = high * line
    for y in range(height):
        channel = ZERO
        while channel < row[OUTPUTS]:
            count = channels_of(row[OUTPUTS] - channel)
            target = chunk + layout[me + FIRST] + channel * plane + y * line
            if fused:
                target = room + layout[plan.shape[0] * FIELDS + LINES]
            for i in range(high):
                _line(
                    row, params, images, layout, chunk + layout[before + IMAGE], layout[before + LINE],
                    layout[me + TABLE], y * high + i, channel, count, target + i * line, plane, epilogue,
                )  # fmt: skip
            if fused:
                for i in range(count):
                    pool_lines(
                        plan[layer + 1], images, layout, me + FIELDS, chunk, channel + i, y, target + i * plane, line,
                        y * high,
                    )  # fmt: skip
            channel += count


@inner
def _line(row, params, images, layout, image, image_line, table, y, channel, count, target, plane, epilogue):
    """Line y of a few channels to `target`, a channel's `plane` apart."""
    vector = lanes(images)
    step, stride = row[STRIDE_W] * vector, row[WEIGHT_STRIDE]
    source = image + y * row[STRIDE_H] * image_line
    w, bias = pointer_to(params, row[WEIGHT] + channel), pointer_to(params, row[BIAS] + channel)
    x = 0
    while x < row[OUT_WIDTH]:
        width = columns_of(row[OUT_WIDTH] - x)
        windows(
            count, width, w, stride, ZERO, pointer_to(images, source + x * step), step, pointer_to(layout, table), ZERO,
            ONE, row[INPUTS], pointer_to(images, target + x * vector), plane, vector, epilogue, bias, ZERO, ZERO,
        )  # fmt: skip
        x += width


@inner
def turn_weights(plan, layer, params, images, layout, room):
    """The weights as the gradient of the input takes them, (kh, kw, channels out, channels in), to the slot's room.

    Of kw, places come in the order of `turned_offsets`.
    """
    row, at = plan[layer], room + layout[layer * FIELDS + TURNED]
    wide, apart = row[KERNEL_W], row[STRIDE_W]
    places = row[KERNEL_H] * wide
    channels, outputs = row[CHANNELS], row[OUTPUTS]
    stride = padded(channels)
    for place in range(places):
        x = place % wide
        turned = place - x + _before(wide, apart, x % apart) + x // apart
        for output in range(outputs):
            target = at + (turned * outputs + output) * stride
            for channel in range(channels):
                images[target + channel] = params[
                    row[WEIGHT] + (channel * places + place) * row[WEIGHT_STRIDE] + output
                ]


@inner
def _before(wide, stride, remainder):
    """How many of a kernel's places leave less than `remainder` when divided by stride."""
    return wide // stride * remainder + min(wide % stride, remainder)


@inner
def backward_input(plan, layer, images, layout, chunk, deltas, room):
    """The gradient by what the layer below gives, from this layer's, with that layer's slope.

    For each pixel it is a convolution of the gradient with the kernel turned round. Only the part of the kernel
    that meets the gradient is summed over: a third of a 5 x 5 kernel's work on 12 x 12 pixels is saved, and of a
    kernel that moves by two pixels, where the gradients are two apart, three quarters.
    """
    row, me = plan[layer], layer * FIELDS
    line, high, stride = layout[me + DELTA_LINE] // row[STRIDE_H], row[KERNEL_H], row[STRIDE_H]
    bottom = (row[OUT_HEIGHT] - 1) * stride
    for y in range(row[HEIGHT]):
        at = y + row[PADDING_H]  # in the image with its border, where the kernel's first place has been at - place
        first = at - bottom if at > bottom else at % stride
        last = at if at < high else high - 1 - (high - 1 - at) % stride
        turns = (last - first) // stride + 1
        source = deltas + layout[me + DELTA] + (high - 1 + y) * line
        channel = ZERO
        while channel < row[CHANNELS]:
            count = channels_of(row[CHANNELS] - channel)
            _input_line(plan, layer, images, layout, chunk, deltas, room, y, channel, count, first, turns, source)
            channel += count


@inner
def _input_line(plan, layer, images, layout, chunk, deltas, room, y, channel, count, first, turns, source):
    """Line y of a few channels, from `turns` lines of the kernel of which `first` is the first."""
    row, me, below = plan[layer], layer * FIELDS, (layer - 1) * FIELDS
    vector, wide, outputs, apart = lanes(images), row[KERNEL_W], row[OUTPUTS], row[STRIDE_W]
    stride, right = padded(row[CHANNELS]), (row[OUT_WIDTH] - 1) * apart
    epilogue = RELU_SLOPE if plan[layer - 1, ACTIVATION] == RELU else STORE
    target = (
        deltas + layout[below + DELTA_FIRST] + channel * layout[below + DELTA_PLANE] + y * layout[below + DELTA_LINE]
    )
    output = chunk + layout[below + FIRST] + channel * layout[below + PLANE] + y * layout[below + LINE]
    turned, table = room + layout[me + TURNED], layout[me + BACK_TABLE]
    turn = row[STRIDE_H] * wide * outputs
    for begin in range(apart):  # pixels of one remainder meet the same places
        remainder = (begin + row[PADDING_W]) % apart
        before = _before(wide, apart, remainder)
        there = _before(wide, apart, remainder + 1) - before
        x = begin
        while x < row[WIDTH]:
            width = columns_of((row[WIDTH] - x + apart - 1) // apart)
            at = x + row[PADDING_W]
            left = max(0, at - right) // apart
            places = max(0, min(there, at // apart + width) - left)
            start = (first * wide + before + left) * outputs
            windows(
                count, width, pointer_to(images, turned + start * stride + channel), stride,
                turn * stride, pointer_to(images, source + (wide - 1 + x) * vector), apart * vector,
                pointer_to(layout, table + start), turn, turns, places * outputs,
                pointer_to(images, target + x * layout[below + DELTA_STEP]), layout[below + DELTA_PLANE],
                apart * layout[below + DELTA_STEP], epilogue, pointer_to(images, output + x * vector),
                layout[below + PLANE], apart * vector,
            )  # fmt: skip
            x += width * apart


@inner
def backward_params(plan, layer, images, layout, chunk, deltas, group, accumulate):
    """A chunk's share of the weights' and biases' gradient, set or added to its group's sums."""
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    end = plan.shape[0] * FIELDS
    vector = lanes(images)
    sums = layout[end + GROUPS] + group * layout[end + GROUP_SIZE] + layout[me + SUMS]
    plane, line, step = layout[me + DELTA_PLANE], layout[me + DELTA_LINE], layout[me + DELTA_STEP]
    height, width, outputs, stride = row[OUT_HEIGHT], row[OUT_WIDTH], row[OUTPUTS], row[WEIGHT_STRIDE]
    lines = max(1, _NEAR // (4 * width * vector * images.itemsize))
    image, image_line = chunk + layout[before + IMAGE], row[STRIDE_H] * layout[before + LINE]
    for y in range(0, height, lines):
        high = min(lines, height - y)
        adds = accumulate or y > 0
        output = 0
        while output < outputs:
            count = 4 if outputs - output >= 4 else 2 if outputs - output >= 2 else 1
            delta = deltas + layout[me + DELTA_FIRST] + output * plane + y * line
            k = -1  # the bias, then the kernel's places
            while k < row[INPUTS]:
                places = 0 if k < 0 else _places(row[INPUTS] - k)
                target = row[INPUTS] if k < 0 else k
                gradient_tile(
                    count, places, pointer_to(images, delta), plane, line, step,
                    pointer_to(images, image + y * image_line), pointer_to(layout, layout[me + TABLE] + max(k, 0)),
                    image_line, row[STRIDE_W] * vector, high, width,
                    pointer_to(images, sums + target * stride + output), stride, adds,
                )  # fmt: skip
                k += max(places, 1)
            output += count
