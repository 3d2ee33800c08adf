"""A convolution of arrays instead of a plan's: the executor's kernels, one chunk of samples after the other.

Each call makes a plan of two rows and its layout, and takes scratch for the images of one chunk, the weights and their
gradient, as it needs them.
"""

from typing import NamedTuple

import numpy as np

from ..plan import (
    ACTIVATION,
    BIAS,
    CHANNELS,
    COLUMNS,
    CONV,
    DROPOUT,
    HEIGHT,
    IMAGE,
    INPUTS,
    KERNEL_H,
    KERNEL_W,
    KIND,
    OUT_CHANNELS,
    OUT_HEIGHT,
    OUT_WIDTH,
    OUTPUTS,
    PADDING_H,
    PADDING_W,
    STRIDE_H,
    STRIDE_W,
    WEIGHT_STRIDE,
    WIDTH,
)  # fmt: skip
from . import conv
from . import layout as at
from .images import to_image, to_rows
from .jit import ZERO, inlined, inner
from .simd import lanes

FORWARD, PARAMS, INPUT = range(3)  # what an entry point does
_LINE = 64  # bytes of a cache line


class Window(NamedTuple):
    """A batch of images (channels, height, width) and the kernel that moves over them; a pool has as many outputs."""

    batch: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel_h: int
    kernel_w: int
    stride_h: int
    stride_w: int
    padding_h: int
    padding_w: int


def steps(size: int, kernel: int, stride: int, padding: int) -> int:
    """A kernel's steps along a side."""
    return (size + 2 * padding - kernel) // stride + 1


steps_of = inner(steps)


@inner
def after(window):
    """(H', W') of what the window gives."""
    high = steps_of(window.height, window.kernel_h, window.stride_h, window.padding_h)
    return high, steps_of(window.width, window.kernel_w, window.stride_w, window.padding_w)


# ---- the plan, the layout and scratch


@inner
def _plan(window, activation):
    """What made x, whose slope the gradient by x takes, and the convolution: both have the activation."""
    plan = np.zeros((2, COLUMNS), np.int64)
    for i in range(2):
        row = plan[i]
        row[ACTIVATION], row[IMAGE] = activation, 1
        row[CHANNELS], row[HEIGHT], row[WIDTH] = window.channels, window.height, window.width
        row[OUT_CHANNELS], row[OUT_HEIGHT], row[OUT_WIDTH] = window.channels, window.height, window.width
    plan[0, KIND] = DROPOUT
    row = plan[1]
    row[KIND], row[OUT_CHANNELS], row[OUTPUTS] = CONV, window.outputs, window.outputs
    row[OUT_HEIGHT], row[OUT_WIDTH] = after(window)
    row[INPUTS] = window.channels * window.kernel_h * window.kernel_w
    row[WEIGHT_STRIDE] = conv.padded(window.outputs)
    row[BIAS] = row[INPUTS] * row[WEIGHT_STRIDE]
    row[KERNEL_H], row[KERNEL_W] = window.kernel_h, window.kernel_w
    row[STRIDE_H], row[STRIDE_W] = window.stride_h, window.stride_w
    row[PADDING_H], row[PADDING_W] = window.padding_h, window.padding_w
    return plan


@inner
def _layout(plan):
    """The layout of a plan of two rows, with room for two tables of offsets, but no image placed yet."""
    row = plan[1]
    places = row[KERNEL_H] * row[KERNEL_W]
    layout = np.zeros(3 * at.FIELDS + row[INPUTS] + places * row[OUTPUTS], np.int64)
    layout[at.FIELDS + at.TABLE] = 3 * at.FIELDS
    layout[at.FIELDS + at.BACK_TABLE] = 3 * at.FIELDS + row[INPUTS]
    return layout


@inner
def _place_input(layout, plan, vector, begin):
    """x's image, within the border that the convolution wants, and the table of its windows; where it ends."""
    row = plan[1]
    first, plane, line = at.within_border(row[HEIGHT], row[WIDTH], row[PADDING_H], row[PADDING_W], vector)
    layout[at.IMAGE], layout[at.FIRST], layout[at.PLANE], layout[at.LINE] = begin, begin + first, plane, line
    table = layout[layout[at.FIELDS + at.TABLE] :]
    at.window_offsets(table, row[CHANNELS], row[KERNEL_H], row[KERNEL_W], plane, line, vector)
    return begin + row[CHANNELS] * plane


@inner
def _place_output(layout, plan, vector, begin):
    """The convolution's image; where it ends."""
    row, me = plan[1], at.FIELDS
    first, plane, line = at.within_border(row[OUT_HEIGHT], row[OUT_WIDTH], 0, 0, vector)
    layout[me + at.IMAGE], layout[me + at.FIRST] = begin, begin + first
    layout[me + at.PLANE], layout[me + at.LINE] = plane, line
    return begin + row[OUTPUTS] * plane


@inner
def _place_delta(layout, plan, vector, begin):
    """The gradient by the convolution's image, as that of x reads it, and that reading's table; where it ends."""
    row, me = plan[1], at.FIELDS
    first, plane, line = at.within_reach(
        row[HEIGHT], row[WIDTH], row[KERNEL_H], row[KERNEL_W], row[PADDING_H], row[PADDING_W], vector
    )
    layout[me + at.DELTA], layout[me + at.DELTA_FIRST], layout[me + at.DELTA_PLANE] = begin, begin + first, plane
    layout[me + at.DELTA_LINE], layout[me + at.DELTA_STEP] = row[STRIDE_H] * line, row[STRIDE_W] * vector
    table = layout[layout[me + at.BACK_TABLE] :]
    at.turned_offsets(table, row[OUTPUTS], row[KERNEL_H], row[KERNEL_W], row[STRIDE_W], plane, line, vector)
    return begin + row[OUTPUTS] * plane


@inner
def _place_input_delta(layout, plan, vector, begin):
    """The gradient by x's image; where it ends."""
    row = plan[1]
    first, plane, line = at.within_border(row[HEIGHT], row[WIDTH], 0, 0, vector)
    layout[at.DELTA], layout[at.DELTA_FIRST], layout[at.DELTA_PLANE] = begin, begin + first, plane
    layout[at.DELTA_LINE], layout[at.DELTA_STEP] = line, vector
    return begin + row[CHANNELS] * plane


@inner
def _zeros(size, like):
    """Scratch that starts on a cache line, of like's dtype."""
    raw = np.zeros(size + _LINE // like.itemsize, like.dtype)
    start = (_LINE - np.int64(raw.ctypes.data) % _LINE) % _LINE // like.itemsize
    return raw[start : start + size]


@inner
def _packed(plan, w):
    """Weights (O, C, kh, kw) as the plan has them: (C · kh · kw, O) in padded rows, room for biases behind them."""
    row = plan[1]
    inputs, stride = row[INPUTS], row[WEIGHT_STRIDE]
    params = _zeros((inputs + 1) * stride, w)
    for output in range(row[OUTPUTS]):
        for k in range(inputs):
            params[k * stride + output] = w[output * inputs + k]
    return params


# ---- samples in and out


@inner
def _enter(plan, x, images, layout, first, count):
    """count of x's samples to the image."""
    row = plan[1]
    size = row[CHANNELS] * row[HEIGHT] * row[WIDTH]
    to_image(
        x, first * size, size, count, images, layout[at.FIRST], layout[at.PLANE], layout[at.LINE], lanes(x),
        row[CHANNELS], row[HEIGHT], row[WIDTH],
    )  # fmt: skip


@inner
def _enter_delta(plan, delta, images, layout, first, count):
    """count samples' gradient to the convolution's."""
    row, me = plan[1], at.FIELDS
    size = row[OUTPUTS] * row[OUT_HEIGHT] * row[OUT_WIDTH]
    to_image(
        delta, first * size, size, count, images, layout[me + at.DELTA_FIRST], layout[me + at.DELTA_PLANE],
        layout[me + at.DELTA_LINE], layout[me + at.DELTA_STEP], row[OUTPUTS], row[OUT_HEIGHT], row[OUT_WIDTH],
    )  # fmt: skip


# ---- the three; inlined, since each call between tiles and entry point has them optimised once more: 1 s of compiling


@inlined
def forward(window, activation, x, w, b, out):
    """out = activation(conv(x, w) + b), arrays flat."""
    vector, plan = lanes(x), _plan(window, activation)
    layout, row, me = _layout(plan), plan[1], at.FIELDS
    images = _zeros(_place_output(layout, plan, vector, _place_input(layout, plan, vector, 0)), x)
    params, bias = _packed(plan, w), row[BIAS]
    for output in range(window.outputs):
        params[bias + output] = b[output]
    size = row[OUTPUTS] * row[OUT_HEIGHT] * row[OUT_WIDTH]
    for first in range(0, window.batch, vector):
        count = min(vector, window.batch - first)
        _enter(plan, x, images, layout, first, count)
        conv.forward(plan, 1, params, images, layout, 0, ZERO)
        to_rows(
            images, layout[me + at.FIRST], layout[me + at.PLANE], layout[me + at.LINE], row[OUTPUTS], row[OUT_HEIGHT],
            row[OUT_WIDTH], out, first * size, size, count,
        )  # fmt: skip


@inlined
def backward_params(window, x, delta, dw, db):
    """The gradients by weights and biases, arrays flat: a chunk's sums are added to those before it."""
    vector, plan = lanes(x), _plan(window, np.int64(0))
    layout, row = _layout(plan), plan[1]
    inputs, stride = row[INPUTS], row[WEIGHT_STRIDE]
    sums = _place_delta(layout, plan, vector, _place_input(layout, plan, vector, 0))
    layout[2 * at.FIELDS + at.GROUPS] = sums
    images = _zeros(sums + (inputs + 1) * stride, x)
    for first in range(0, window.batch, vector):
        count = min(vector, window.batch - first)
        _enter(plan, x, images, layout, first, count)
        _enter_delta(plan, delta, images, layout, first, count)
        conv.backward_params(plan, 1, images, layout, 0, 0, 0, first > 0)
    for output in range(window.outputs):
        for k in range(inputs):
            dw[output * inputs + k] = images[sums + k * stride + output]
        db[output] = images[sums + inputs * stride + output]


@inlined
def backward_input(window, activation, delta, w, x, dx):
    """The gradient by what made x, before its activation, arrays flat."""
    vector, plan = lanes(x), _plan(window, activation)
    layout, row = _layout(plan), plan[1]
    turned = _place_delta(layout, plan, vector, _place_input(layout, plan, vector, 0))
    turned = _place_input_delta(layout, plan, vector, turned)
    layout[at.FIELDS + at.TURNED] = turned
    places = row[KERNEL_H] * row[KERNEL_W]
    images = _zeros(turned + places * row[OUTPUTS] * conv.padded(row[CHANNELS]), x)
    conv.turn_weights(plan, 1, _packed(plan, w), images, layout, 0)
    size = row[CHANNELS] * row[HEIGHT] * row[WIDTH]
    for first in range(0, window.batch, vector):
        count = min(vector, window.batch - first)
        _enter(plan, x, images, layout, first, count)
        _enter_delta(plan, delta, images, layout, first, count)
        conv.backward_input(plan, 1, images, layout, 0, 0, 0)
        to_rows(
            images, layout[at.DELTA_FIRST], layout[at.DELTA_PLANE], layout[at.DELTA_LINE], row[CHANNELS], row[HEIGHT],
            row[WIDTH], dx, first * size, size, count,
        )  # fmt: skip
