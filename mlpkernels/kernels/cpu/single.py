"""One sample through a network: no batch, no workspace, each weight read once; the bits are those of a batch's row.

A network is one block of int64 numbers here, addresses among them: what compiled code, C and Python hand about. What is
done for a sample is a table of steps, see single_table.py. Dense layers are run in `row`, others behind an address, so
that a network compiles none that it does not have.
"""

from math import sqrt

import numpy as np
from numba import carray, types
from numba.extending import overload

from .. import plan as p
from .addresses import as_places, at, call_at
from .curves import activate
from .jit import OPTIONS, inlined, inner
from .norm import normalise
from .simd import ADD_BIAS, ADD_BIAS_RELU, advance, lanes, load, pointer_to, store
from .single_table import (
    CHANNEL,
    CLEAR,
    COLUMNS,
    CONV,
    DENSE,
    FIRST,
    FLAT_NORM,
    LAYER,
    LINE,
    MOVE,
    PIXEL,
    POOL,
    READ,
    SOURCE,
    TABLE,
    TARGET,
    WHAT,
    WRITTEN,
)  # fmt: skip
from .single_tiles import AHEAD, ROW_VECTORS, lit_row_tile, pixels_tile, row_tile

# The block's numbers. C sees the first: MARK, that it is one, and the bytes of a number of the network's; INPUTS,
# OUTPUTS and SCRATCH, elements; from C_FUNCTIONS on, capi.py's three for float32 and three for float64, 0 until it is
# asked for them: those of the other type than the network's are there to say so.
MARK, INPUTS, OUTPUTS, SCRATCH, C_FUNCTIONS = range(5)
# ROW, LAYERS: functions of this file. SCALES: NONE, ONE or EACH column has a factor and an offset, float64.
ROW, LAYERS, SCALES, FACTOR, OFFSET, PLAN, STEP_COUNT, STEPS, WINDOWS, PARAMS, BUFFERS, RATES = range(10, 22)
LIT, FIELDS = 22, 23  # LIT: where in the scratch the numbers of what is not zero go
NONE, ONE, EACH = range(3)
LEAST_INPUTS = 64  # of a layer that looks for zeros
MARKED = 0x6D6C706B << 8  # "mlpk"


@inlined
def row(net, x, scratch, out):
    """The network's outputs (K,) for scaled inputs x (D,), which may be where the scratch begins."""
    steps = at(load(net, STEPS), np.int64)
    plan = at(load(net, PLAN), np.int64)
    params = at(load(net, PARAMS), out)
    source = x
    for number in range(load(net, STEP_COUNT)):
        step = advance(steps, number * COLUMNS)
        target = advance(scratch, load(step, TARGET))
        if number > 0:
            source = advance(scratch, load(step, SOURCE))
        if load(step, WHAT) == DENSE:
            layer = advance(plan, load(step, LAYER) * p.COLUMNS)
            _dense(layer, params, source, advance(scratch, load(net, LIT)), target)
            if load(layer, p.ACTIVATION) > p.RELU:
                call_at(load(net, LAYERS), None, (net, number, source, target))
        else:
            call_at(load(net, LAYERS), None, (net, number, source, target))
        source = target
    for j in range(load(net, OUTPUTS)):
        store(out, j, load(source, j))


@inner
def _count_lit(x, count):
    """How many of x are not zero."""
    lit = 0
    for j in range(count):
        lit += 1 if load(x, j) != 0 else 0
    return lit


@inner
def _find_lit(x, count, lit):
    """The numbers of those of x that are not zero, and AHEAD zeros behind them."""
    found = 0
    for j in range(count):
        store(lit, found, j)
        found += 1 if load(x, j) != 0 else 0
    for j in range(found, found + AHEAD):
        store(lit, j, 0)


@inner
def _dense(layer, params, x, room, out):
    """A dense layer. A zero input skips its row of weights where at least half are zeros, as in many images."""
    vector = lanes(out)
    inputs, stride = load(layer, p.INPUTS), load(layer, p.WEIGHT_STRIDE)
    w, bias = advance(params, load(layer, p.WEIGHT)), advance(params, load(layer, p.BIAS))
    epilogue = ADD_BIAS_RELU if load(layer, p.ACTIVATION) == p.RELU else ADD_BIAS
    places = as_places(room)
    count = _count_lit(x, inputs) if inputs >= LEAST_INPUTS else inputs
    skips = inputs >= LEAST_INPUTS and 2 * count <= inputs
    if skips:
        _find_lit(x, inputs, places)
    left = (load(layer, p.OUTPUTS) + vector - 1) // vector
    while left > 0:
        tiles = (left + ROW_VECTORS - 1) // ROW_VECTORS  # of even size: a thin one would wait for each addition
        vectors = (left + tiles - 1) // tiles
        if skips:
            lit_row_tile(vectors, x, places, w, stride, count, bias, epilogue, out)
        else:
            row_tile(vectors, x, w, stride, inputs, bias, epilogue, out)
        w, bias, out = advance(w, vectors * vector), advance(bias, vectors * vector), advance(out, vectors * vector)
        left -= vectors


# ---- inputs


def gather(net, x, target):
    """Raw inputs x (D,), of any real type, scaled to target."""


@overload(gather, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_gather(net, x, target):
    bytes_ = x.dtype in (types.uint8, types.boolean)  # under one scale they are scaled in the network's own type

    def gather(net, x, target):
        scales = load(net, SCALES)
        factor, offset = at(load(net, FACTOR), np.float64), at(load(net, OFFSET), np.float64)
        if scales == NONE:
            for j in range(x.shape[0]):
                store(target, j, x[j])
        elif scales == EACH:
            for j in range(x.shape[0]):
                store(target, j, np.float64(x[j]) * load(factor, j) + load(offset, j))
        elif bytes_:
            one = carray(target, 1)
            T = one.dtype.type
            a, b = T(load(factor, 0)), T(load(offset, 0))
            for j in range(x.shape[0]):
                store(target, j, T(x[j]) * a + b)
        else:
            a, b = load(factor, 0), load(offset, 0)
            for j in range(x.shape[0]):
                store(target, j, np.float64(x[j]) * a + b)

    return gather


@inner
def _all_finite(x, count):
    """Whether count numbers are."""
    strange = 0
    for j in range(count):
        value = load(x, j)
        strange += 0 if abs(value) < np.inf else 1
    return strange == 0


@inner
def predict(net, x, scratch, out):
    """`row` of raw inputs: x (D,) an array of any real type, scratch and out pointers."""
    gather(net, x, scratch)
    call_at(load(net, ROW), None, (net, scratch, scratch, out))


@inner
def predict_rows(block, x, scratch, out, checks):
    """Every row of x (N, D); with `checks` up to the first that is not finite once scaled. Returns how many."""
    net, room = pointer_to(block, 0), pointer_to(scratch, 0)
    for i in range(x.shape[0]):
        gather(net, x[i], room)
        if checks and not _all_finite(room, x.shape[1]):
            return i
        call_at(load(net, ROW), None, (net, room, room, pointer_to(out, i * out.shape[1])))
    return x.shape[0]


# ---- other layers


@inner
def layers(net, number, source, target):
    """Step `number` of a network, of a dense layer only tanh or the logistic function."""
    step = advance(at(load(net, STEPS), np.int64), number * COLUMNS)
    index = load(step, LAYER)
    layer = advance(at(load(net, PLAN), np.int64), index * p.COLUMNS)
    what, read, written = load(step, WHAT), advance(step, READ), advance(step, WRITTEN)
    for i in range(load(step, CLEAR)):
        store(target, i, 0.0)
    if what == DENSE:
        activate(carray(target, load(layer, p.OUTPUTS)), load(layer, p.ACTIVATION))
    elif what == MOVE:
        _move(layer, number == 0, read, written, source, target)
    elif what == CONV:
        table = advance(at(load(net, WINDOWS), np.int64), load(step, TABLE))
        _convolve(layer, at(load(net, PARAMS), target), table, read, written, source, target)
    elif what == POOL:
        _pool(layer, read, written, source, target)
    else:
        epsilon = load(at(load(net, RATES), np.float64), index * p.RATES + p.BN_EPSILON)
        params = at(load(net, PARAMS), target)
        gamma, beta = advance(params, load(layer, p.WEIGHT)), advance(params, load(layer, p.BIAS))
        mean = advance(at(load(net, BUFFERS), np.float64), load(layer, p.BUFFER))
        variance = advance(mean, load(layer, p.WEIGHT_STRIDE))
        if what == FLAT_NORM:
            width = load(layer, p.OUTPUTS)
            normalise(
                carray(source, width), carray(target, width), carray(mean, width), carray(variance, width), epsilon,
                carray(gamma, width), carray(beta, width), load(layer, p.ACTIVATION) == p.RELU,
            )  # fmt: skip
            activate(carray(target, width), load(layer, p.ACTIVATION))
        else:
            _normalise(layer, mean, variance, epsilon, gamma, beta, read, written, source, target)


@inner
def _move(layer, enters, read, written, source, target):
    """The image that a layer takes, or gives, copied to another order."""
    channels, height, width = load(layer, p.OUT_CHANNELS), load(layer, p.OUT_HEIGHT), load(layer, p.OUT_WIDTH)
    if enters:
        channels, height, width = load(layer, p.CHANNELS), load(layer, p.HEIGHT), load(layer, p.WIDTH)
    for channel in range(channels):
        for y in range(height):
            here = load(read, FIRST) + channel * load(read, CHANNEL) + y * load(read, LINE)
            there = load(written, FIRST) + channel * load(written, CHANNEL) + y * load(written, LINE)
            for x in range(width):
                store(target, there + x * load(written, PIXEL), load(source, here + x * load(read, PIXEL)))


@inner
def _convolve(layer, params, table, read, written, source, target):
    vector = lanes(target)
    w, bias = advance(params, load(layer, p.WEIGHT)), advance(params, load(layer, p.BIAS))
    stride, inputs, width = load(layer, p.WEIGHT_STRIDE), load(layer, p.INPUTS), load(layer, p.OUT_WIDTH)
    epilogue = ADD_BIAS_RELU if load(layer, p.ACTIVATION) == p.RELU else ADD_BIAS
    step, pixel = load(layer, p.STRIDE_W) * load(read, PIXEL), load(written, PIXEL)
    whole = (load(layer, p.OUTPUTS) + vector - 1) // vector
    for y in range(load(layer, p.OUT_HEIGHT)):
        line = advance(source, load(read, FIRST) + y * load(layer, p.STRIDE_H) * load(read, LINE))
        out = advance(target, load(written, FIRST) + y * load(written, LINE))
        for first in range(0, whole, 2):
            vectors, channel = min(2, whole - first), first * vector
            most, x = 8 // vectors, 0
            while x < width:
                left = width - x
                pixels = most if left >= most else 4 if left >= 4 else 2 if left >= 2 else 1
                pixels_tile(
                    pixels, vectors, advance(line, x * step), step, table, inputs, advance(w, channel), stride,
                    advance(bias, channel), epilogue, advance(out, x * pixel + channel), pixel,
                )  # fmt: skip
                x += pixels


@inner
def _raise_to(source, target, count):
    """Each element of target to that of source, where that is larger or no number."""
    for j in range(count):
        value, best = load(source, j), load(target, j)
        store(target, j, value if value > best or value != value else best)


@inner
def _pool(layer, read, written, source, target):
    channels, height, width = load(layer, p.CHANNELS), load(layer, p.HEIGHT), load(layer, p.WIDTH)
    for y in range(load(layer, p.OUT_HEIGHT)):
        top = y * load(layer, p.STRIDE_H) - load(layer, p.PADDING_H)
        first, last = max(top, 0), min(top + load(layer, p.KERNEL_H), height)
        for x in range(load(layer, p.OUT_WIDTH)):
            left = x * load(layer, p.STRIDE_W) - load(layer, p.PADDING_W)
            begin, end = max(left, 0), min(left + load(layer, p.KERNEL_W), width)
            out = advance(target, load(written, FIRST) + y * load(written, LINE) + x * load(written, PIXEL))
            for i in range(first, last):
                for j in range(begin, end):
                    window = advance(source, load(read, FIRST) + i * load(read, LINE) + j * load(read, PIXEL))
                    if i == first and j == begin:
                        for channel in range(channels):
                            store(out, channel, load(window, channel))
                    else:
                        _raise_to(window, out, channels)


@inner
def _normalise(layer, mean, variance, epsilon, gamma, beta, read, written, source, target):
    """An image's batch norm, as `images._normalise` computes it: one channel after the other."""
    relu, zero = load(layer, p.ACTIVATION) == p.RELU, 0.0
    for channel in range(load(layer, p.CHANNELS)):
        inverse = 1 / sqrt(load(variance, channel) + epsilon)
        middle, factor, offset = load(mean, channel), np.float64(load(gamma, channel)), np.float64(load(beta, channel))
        for y in range(load(layer, p.HEIGHT)):
            here = load(read, FIRST) + channel + y * load(read, LINE)
            there = load(written, FIRST) + channel + y * load(written, LINE)
            for x in range(load(layer, p.WIDTH)):
                value = (np.float64(load(source, here + x * load(read, PIXEL))) - middle) * inverse * factor + offset
                store(target, there + x * load(written, PIXEL), zero if relu and value <= 0 else value)
