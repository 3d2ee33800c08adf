"""The image layers of a plan, a chunk of samples at a time; how rows become images and images rows."""

import numpy as np

from ..plan import (
    ACTIVATION,
    BATCH_NORM,
    BIAS,
    BN_EPSILON,
    BUFFER,
    CHANNELS,
    CONV,
    DROP,
    DROPOUT,
    GIVES,
    HEIGHT,
    KIND,
    OUT,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_STRIDE,
    OUT_WIDTH,
    POOL,
    RELU,
    WEIGHT,
    WEIGHT_STRIDE,
    WIDTH,
)  # fmt: skip
from . import conv, peaks, pool, winograd
from .jit import ZERO, inlined, inner
from .layout import (
    BY_CHUNK,
    CHUNK,
    DELTA_FIRST,
    DELTA_LINE,
    DELTA_PLANE,
    DELTA_STEP,
    DELTAS,
    DELTAS_SIZE,
    FIELDS,
    FIRST,
    FUSED,
    LINE,
    PEAKS,
    PLANE,
    ROOM_SIZE,
    ROOMS,
    UNIT,
    WINOGRAD,
    taken,
)  # fmt: skip
from .norm import BACK_MOMENTS, BACKWARD, ENTER, INFER, MOMENTS, TRAIN, keeps, layer_key, threshold_of
from .simd import lanes, pointer_to, transpose_block

MEANS, SQUARES = 100, 101  # sums of a channel, beside BACK_MOMENTS

# ---- between rows and images


@inner
def _run_to_image(rows, at, stride, count, images, target, step, n):
    """n pixels, contiguous in each of count rows, to vectors `step` apart; lanes without a row become zero."""
    vector = lanes(images)
    if count == vector and n >= vector:
        for first in range(0, n, vector):
            j = min(first, n - vector)  # the last block overlaps the one before
            transpose_block(pointer_to(rows, at + j), stride, pointer_to(images, target + j * step), step)
        return
    for j in range(n):
        for i in range(vector):
            images[target + j * step + i] = rows[at + i * stride + j] if i < count else 0


@inner
def _run_to_rows(images, source, step, n, rows, at, stride, count):
    """The reverse: vectors `step` apart to n contiguous pixels of each of count rows."""
    vector = lanes(images)
    if count == vector and n >= vector:
        for first in range(0, n, vector):
            j = min(first, n - vector)
            transpose_block(pointer_to(images, source + j * step), step, pointer_to(rows, at + j), stride)
        return
    for i in range(count):
        for j in range(n):
            rows[at + i * stride + j] = images[source + j * step + i]


@inner
def to_image(rows, at, stride, count, images, first, plane, line, step, channels, height, width):
    """count rows of C, H, W pixels to an image of a chunk."""
    for channel in range(channels):
        if line == width * step:
            source = at + channel * height * width
            _run_to_image(rows, source, stride, count, images, first + channel * plane, step, height * width)
            continue
        for y in range(height):
            source, target = at + (channel * height + y) * width, first + channel * plane + y * line
            _run_to_image(rows, source, stride, count, images, target, step, width)


@inner
def to_rows(images, first, plane, line, channels, height, width, rows, at, stride, count):
    """An image of a chunk to count rows of C, H, W pixels."""
    step = lanes(images)
    for channel in range(channels):
        if line == width * step:
            target = at + channel * height * width
            _run_to_rows(images, first + channel * plane, step, height * width, rows, target, stride, count)
            continue
        for y in range(height):
            source, target = first + channel * plane + y * line, at + (channel * height + y) * width
            _run_to_rows(images, source, step, width, rows, target, stride, count)


# ---- dropout and batch norm of a chunk


@inner
def _line_places(layout, me, before, chunk, deltas, channel, y):
    """Where line y of a channel begins: in the image that a layer takes, in its own, and in the gradients by the latter
    and by the former.
    """
    source = chunk + layout[before + FIRST] + channel * layout[before + PLANE] + y * layout[before + LINE]
    out = chunk + layout[me + FIRST] + channel * layout[me + PLANE] + y * layout[me + LINE]
    delta = deltas + layout[me + DELTA_FIRST] + channel * layout[me + DELTA_PLANE] + y * layout[me + DELTA_LINE]
    below = deltas + layout[before + DELTA_FIRST] + channel * layout[before + DELTA_PLANE]
    return source, out, delta, below + y * layout[before + DELTA_LINE]


@inner
def _dropout(what, layer, chunk, deltas, first_row, plan, p, key, images, layout):
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    vector = lanes(images)
    low, high = layer_key(key, layer)
    threshold, scale, zero = threshold_of(p), images.dtype.type(1 / (1 - p)), images.dtype.type(0)
    slope = layer > 0 and plan[layer - 1, ACTIVATION] == RELU
    for channel in range(row[CHANNELS]):
        for y in range(row[HEIGHT]):
            element = first_row * row[GIVES] + (channel * row[HEIGHT] + y) * row[WIDTH]
            source, out, delta, below = _line_places(layout, me, before, chunk, deltas, channel, y)
            for x in range(row[WIDTH]):
                for i in range(vector):
                    value = images[source + x * vector + i]
                    number = np.uint32(element + x + i * row[GIVES])
                    if what == INFER:
                        images[out + x * vector + i] = value
                    elif what == TRAIN:
                        kept = keeps(number, low, high, threshold)
                        images[out + x * vector + i] = value * scale if kept else zero
                    else:
                        kept = keeps(number, low, high, threshold) and (value > zero or not slope)
                        came = images[delta + x * layout[me + DELTA_STEP] + i] * scale
                        images[below + x * layout[before + DELTA_STEP] + i] = came if kept else zero


@inner
def _normalise(what, layer, chunk, deltas, count, rows, model, moments, images, layout):
    """A batch norm's image of a chunk, or the gradient by the image it takes.

    Lanes without a row become zero: made from none, a number there could overflow, and times zero be NaN in a gradient.
    """
    plan = model.plan
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    vector, T = lanes(images), images.dtype.type
    stride, at, epsilon = row[WEIGHT_STRIDE], 2 * row[BUFFER], model.rates[layer, BN_EPSILON]
    relu, slope = row[ACTIVATION] == RELU, layer > 0 and plan[layer - 1, ACTIVATION] == RELU
    n = rows * row[HEIGHT] * row[WIDTH]
    for channel in range(row[CHANNELS]):
        mean, variance = moments[at + channel], moments[at + stride + channel]
        if what == INFER:
            mean, variance = model.buffers[row[BUFFER] + channel], model.buffers[row[BUFFER] + stride + channel]
        inverse = 1 / np.sqrt(variance + epsilon)
        gamma = np.float64(model.params[row[WEIGHT] + channel])
        beta = np.float64(model.params[row[BIAS] + channel])
        total, product = moments[at + 2 * stride + channel] / n, moments[at + 3 * stride + channel] / n
        for y in range(row[HEIGHT]):
            source, out, delta, below = _line_places(layout, me, before, chunk, deltas, channel, y)
            for x in range(row[WIDTH]):
                for i in range(vector):
                    here = images[source + x * vector + i]
                    apart = (np.float64(here) - mean) * inverse
                    if what != BACKWARD:
                        value = apart * gamma + beta
                        dark = i >= count or (relu and value <= 0)
                        images[out + x * vector + i] = T(0) if dark else T(value)
                    else:
                        came = np.float64(images[delta + x * layout[me + DELTA_STEP] + i])
                        value = gamma * inverse * (came - total - apart * product)
                        passes = i < count and (here > 0 or not slope)
                        images[below + x * layout[before + DELTA_STEP] + i] = T(value) if passes else T(0)


@inner
def _line_sums(images, at, delta, delta_step, width, count, mean, what):
    """Σ over a line's first count lanes of x or of (x - mean)², or Σ delta and Σ delta · (x - mean).

    Four sums side by side: a single chain would wait four cycles for each addition.
    """
    vector = lanes(images)
    a = b = c = d = other = 0.0
    for x in range(width):
        start = at + x * vector
        if what == BACK_MOMENTS:
            for i in range(count):
                came = np.float64(images[delta + x * delta_step + i])
                a += came
                other += came * (np.float64(images[start + i]) - mean)
            continue
        whole = count // 4 * 4
        for i in range(start, start + whole, 4):
            p, q = np.float64(images[i]) - mean, np.float64(images[i + 1]) - mean
            r, s = np.float64(images[i + 2]) - mean, np.float64(images[i + 3]) - mean
            a += p if what == MEANS else p * p
            b += q if what == MEANS else q * q
            c += r if what == MEANS else r * r
            d += s if what == MEANS else s * s
        for i in range(start + whole, start + count):
            p = np.float64(images[i]) - mean
            a += p if what == MEANS else p * p
    return (a + b) + (c + d), other


@inner
def _channel_sums(what, layer, channel, rows, mean, plan, images, layout):
    """`_line_sums` over all of a channel's lines of all chunks, in order."""
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    end, vector = plan.shape[0] * FIELDS, lanes(images)
    total = other = 0.0
    for first in range(0, rows, vector):
        index, count = first // vector, min(vector, rows - first)
        chunk = index * layout[end + CHUNK]
        deltas = layout[end + DELTAS] + index * layout[end + DELTAS_SIZE]
        for y in range(row[HEIGHT]):
            at = chunk + layout[before + FIRST] + channel * layout[before + PLANE] + y * layout[before + LINE]
            delta = deltas + layout[me + DELTA_FIRST] + channel * layout[me + DELTA_PLANE] + y * layout[me + DELTA_LINE]
            line = _line_sums(images, at, delta, layout[me + DELTA_STEP], row[WIDTH], count, mean, what)
            total, other = total + line[0], other + line[1]
    return total, other


@inner
def _moments(what, layer, slot, slots, rows, model, work):
    """A slot's share of a batch norm's channels: their mean and variance, or the sums its gradient needs."""
    plan = model.plan
    row = plan[layer]
    at, stride, moments = 2 * row[BUFFER], row[WEIGHT_STRIDE], work.moments
    epsilon, n = model.rates[layer, BN_EPSILON], max(1, rows * row[HEIGHT] * row[WIDTH])
    each = (row[CHANNELS] + slots - 1) // slots
    for channel in range(slot * each, min((slot + 1) * each, row[CHANNELS])):
        if what == MOMENTS:
            mean = _channel_sums(np.int64(MEANS), layer, channel, rows, 0.0, plan, work.images, work.layout)[0] / n
            squares = _channel_sums(np.int64(SQUARES), layer, channel, rows, mean, plan, work.images, work.layout)[0]
            moments[at + channel], moments[at + stride + channel] = mean, squares / n
        else:
            mean, variance = moments[at + channel], moments[at + stride + channel]
            sums = _channel_sums(np.int64(BACK_MOMENTS), layer, channel, rows, mean, plan, work.images, work.layout)
            moments[at + 2 * stride + channel] = sums[0]
            moments[at + 3 * stride + channel] = sums[1] / np.sqrt(variance + epsilon)


# ---- the layers of a chunk


@inlined
def _forward(what, layer, chunk, room, start, count, rows, model, key, work):
    plan, images, layout = model.plan, work.images, work.layout
    kind = plan[layer, KIND]
    if kind == CONV:
        # In training alone: predictions of a batch have the bits of one sample's, whose kernels sum in one chain.
        if what == TRAIN and layout[layer * FIELDS + WINOGRAD]:
            winograd.forward(plan, layer, images, layout, chunk, room)
        else:
            conv.forward(plan, layer, model.params, images, layout, chunk, room)
    elif kind == POOL:
        if layer == 0 or not layout[(layer - 1) * FIELDS + FUSED]:
            pool.forward(plan, layer, images, layout, chunk)
    elif kind == DROPOUT:
        _dropout(what, layer, chunk, ZERO, start, plan, model.rates[layer, DROP], key, images, layout)
    elif kind == BATCH_NORM:
        _normalise(what, layer, chunk, ZERO, count, rows, model, work.moments, images, layout)


@inlined
def _backward(layer, chunk, deltas, room, start, count, rows, model, key, work):
    """The gradient by what the layer below gives."""
    plan, images, layout = model.plan, work.images, work.layout
    kind = plan[layer, KIND]
    if kind == CONV:
        if layout[layer * FIELDS + PEAKS]:
            peaks.backward_input(plan, layer, images, layout, chunk, deltas, room)
        else:
            conv.backward_input(plan, layer, images, layout, chunk, deltas, room)
    elif kind == POOL:
        if not layout[(layer - 1) * FIELDS + PEAKS]:
            pool.backward(plan, layer, images, layout, chunk, deltas)
    elif kind == DROPOUT:
        _dropout(np.int64(BACKWARD), layer, chunk, deltas, start, plan, model.rates[layer, DROP], key, images, layout)
    elif kind == BATCH_NORM:
        _normalise(np.int64(BACKWARD), layer, chunk, deltas, count, rows, model, work.moments, images, layout)


@inlined
def image_layers(what, first, last, start, stop, slot, slots, rows, model, key, x_stride, work):
    """The image layers first … last of rows start … stop - 1, whole chunks; for moments, a slot's channels of `first`.

    TRAIN and INFER go up: from work.x, and the last image goes to work.outputs, too. BACKWARD goes down: each layer's
    parameters' gradient, and the gradient by what is below `first`. What comes down from work.deltas is made an image
    by ENTER, where every chunk keeps its gradients, else on the way.
    """
    plan, images, layout = model.plan, work.images, work.layout
    if what in (MOMENTS, BACK_MOMENTS):
        _moments(what, first, slot, slots, rows, model, work)
        return
    end, vector, batch = plan.shape[0] * FIELDS, lanes(images), work.losses.shape[0]
    room = layout[end + ROOMS] + slot * layout[end + ROOM_SIZE]
    if what == BACKWARD:
        for layer in range(max(first, 1), last + 1):
            if plan[layer, KIND] == CONV:
                if layout[layer * FIELDS + PEAKS]:
                    peaks.turn_weights(plan, layer, model.params, images, layout, room)
                else:
                    conv.turn_weights(plan, layer, model.params, images, layout, room)
    if what == TRAIN:
        for layer in range(first, last + 1):
            if plan[layer, KIND] == CONV and layout[layer * FIELDS + WINOGRAD]:
                winograd.turn_weights(plan, layer, model.params, images, layout, room)
    edge = last >= 0 and plan[last, OUT_STRIDE] > 0  # the last image layer
    enters = edge and (what == ENTER or (what == BACKWARD and not layout[end + BY_CHUNK]))
    stride, top = plan[last, OUT_STRIDE], last * FIELDS
    channels, height, width = plan[last, OUT_CHANNELS], plan[last, OUT_HEIGHT], plan[last, OUT_WIDTH]
    for at in range(start, stop, vector):
        count, index = min(vector, stop - at), at // vector
        # Nobody comes back to an image after inference: a slot's chunks follow one another in one place, in the cache.
        chunk = (slot if what == INFER else index) * layout[end + CHUNK]
        flat = plan[last, OUT] * batch + at * stride
        deltas = layout[end + DELTAS] + (index if layout[end + BY_CHUNK] else slot) * layout[end + DELTAS_SIZE]
        if enters:
            to_image(
                work.deltas, flat, stride, count, images, deltas + layout[top + DELTA_FIRST],
                layout[top + DELTA_PLANE], layout[top + DELTA_LINE], layout[top + DELTA_STEP], channels, height, width,
            )  # fmt: skip
        if what == BACKWARD:
            group, adds = at // layout[end + UNIT], at % layout[end + UNIT] > 0
            for layer in range(last, first - 1, -1):
                if plan[layer, KIND] == CONV:
                    if layout[layer * FIELDS + PEAKS]:
                        peaks.backward_params(plan, layer, images, layout, chunk, deltas, room, group, adds)
                    else:
                        conv.backward_params(plan, layer, images, layout, chunk, deltas, group, adds)
                if layer > 0:
                    _backward(layer, chunk, deltas, room, at, count, rows, model, key, work)
        elif what != ENTER:
            if first == 0:
                to_image(
                    work.x, at * x_stride, x_stride, count, images, chunk + layout[end + FIRST], layout[end + PLANE],
                    layout[end + LINE], vector, plan[0, CHANNELS], plan[0, HEIGHT], plan[0, WIDTH],
                )  # fmt: skip
            for layer in range(first, last + 1):
                _forward(what, layer, chunk, room, at, count, rows, model, key, work)
            if edge:
                to_rows(
                    images, chunk + layout[top + FIRST], layout[top + PLANE], layout[top + LINE], channels, height,
                    width, work.outputs, flat, stride, count,
                )  # fmt: skip
