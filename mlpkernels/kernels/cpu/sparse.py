"""The first layer over bytes most of which are zero: forward a few samples at a time, the gradient a few inputs.

Which bytes are zero is found as a batch is read: 64 of them are one comparison, and cost less than reading lists of the
others would. With 32 registers a tile of the forward product takes what is lit in any of 4 samples, so that a row of
weights is fetched once for them; a tile of the gradient takes the samples that are lit in any of 4 neighbouring inputs.
Where a layer is wide, or there are 16 registers, fewer of them fill the registers: see `sparse_tiles`.
"""

import numpy as np

from ..plan import ACTIVATION, BIAS, INPUTS, OUT, OUT_STRIDE, RELU, WEIGHT, WEIGHT_STRIDE
from .curves import activate
from .gather import later
from .halves import half, half_sums
from .jit import ZERO, inlined, inner
from .simd import (
    ADD_BIAS,
    ADD_BIAS_RELU,
    DESCEND,
    STORE,
    VECTOR_BYTES,
    advance,
    flat,
    lanes,
    load,
    pointer_to,
    stack,
    store,
)
from .sparse_tiles import (
    FEWER,
    GROUP,
    MOST_VECTORS,
    SWEEP,
    TALL,
    TALL_VECTORS,
    THIN,
    lit_columns,
    lit_groups,
    lit_rows,
    row_totals,
)

WIDEST = 65536  # inputs at most that are looked through for zeros
_numbers_room = stack(64 * 8)  # a number for each of the rows that go together, or the bits of whole groups of inputs
_begins_room = stack(MOST_VECTORS * VECTOR_BYTES)


@inner
def scaled_bytes(factor, scaled):
    """scaled[v] = v · factor: what each byte is to the network, before the offset."""
    T = scaled.dtype.type
    for v in range(256):
        scaled[v] = T(v) * factor


@inner
def _vectors(left, most):
    """The next tile's vectors, of those left: as even a cut as tiles of at most so many give."""
    tiles = (left + most - 1) // most
    return (left + tiles - 1) // tiles


@inner
def _narrow_bits(bytes_, places, inputs, tall, tiles, lit):
    """lit[t]: which of fewer than 64 inputs are lit in any row of tile t; behind them there may be no others."""
    for tile in range(tiles):
        bits = np.int64(0)
        for row in range(tile * tall, (tile + 1) * tall):
            for i in range(inputs):
                if load(bytes_, load(places, row) + i) != 0:
                    bits |= np.int64(1) << i
        store(lit, tile, bits)


@inlined
def forward(
    source, offset, order, at, rows, start, stop, first, last, scaled, w, w_at, w_row, width, c, c_at, c_row, epilogue,
    bias, bias_at,
):  # fmt: skip
    """c[start:stop, width] = epilogue(x @ w), x the scaled bytes of the source's rows order[at + start : at + stop].

    Of their inputs first … last - 1, whose weights are w's rows from w_at on. They are a slot's of a batch of `rows`;
    what comes behind is asked for on the way. Flat arrays, offsets and strides in elements; width is a multiple of a
    vector's. epilogue: STORE, ADD_BIAS or ADD_BIAS_RELU.
    """
    pitch, inputs, vector = source.shape[1], last - first, lanes(w)
    bytes_, begins, zeros = pointer_to(flat(source), first), _begins_room(w), _begins_room(w)
    places, ahead, lit = _numbers_room(order), _numbers_room(order), _numbers_room(order)
    ending = ADD_BIAS if epilogue == STORE else epilogue  # zeros are added
    left, j = width // vector, 0
    while left > 0:
        vectors = _vectors(left, MOST_VECTORS)
        tallest = TALL if vectors <= TALL_VECTORS else THIN
        row_totals(vectors, pointer_to(w, w_at + j), w_row, inputs, offset, begins)  # what a shift of all inputs adds
        row_totals(vectors, begins, 0, ZERO, offset, zeros)  # of no rows
        added = zeros if epilogue == STORE else pointer_to(bias, bias_at + j)
        row = start
        while row < stop:
            tall = tallest if stop - row >= tallest else 2 if stop - row >= 2 else 1
            tiles = min(SWEEP, stop - row) // tall
            for i in range(tiles * tall):
                store(places, i, order[at + row + i] * pitch)
                store(ahead, i, later(order, at, rows, start, stop, row + i, SWEEP) * pitch)
            if inputs < 64:
                _narrow_bits(bytes_, places, inputs, tall, tiles, lit)
            lit_rows(
                tall, vectors, tiles, inputs, bytes_, places, ahead, lit, pointer_to(scaled, 0),
                pointer_to(w, w_at + j), w_row, pointer_to(c, c_at + row * c_row + j), c_row, begins, ending, added,
            )  # fmt: skip
            row += tiles * tall
        left -= vectors
        j += vectors * vector


@inner
def _narrow_words(bytes_, count, inputs, block, group, places, words):
    """_lit_words of places, where rows do not end with a whole group or have fewer than 64 inputs."""
    for g in range(64 // group):
        lit = np.int64(0)
        for i in range(count):
            for p in range(block + g * group, min(block + (g + 1) * group, inputs)):
                if load(bytes_, load(places, i) + p) != 0:
                    lit |= np.int64(1) << i
        store(words, g, lit)


@inner
def _lit_words(bytes_, count, inputs, block, group, places, marks, words):
    """words[g]: which of count rows, those at places, are lit in group g of a block of inputs."""
    behind = max(0, block + 64 - inputs)  # of a row's last 64 inputs, those that the block before has
    if inputs < 64 or behind % group != 0:
        _narrow_words(bytes_, count, inputs, block, group, places, words)
    else:
        lit_groups(bytes_, places, count, block - behind, behind // group, group, marks, words)


@inlined
def gradient(
    source, offset, order, at, rows, scaled, delta, delta_at, delta_row, first, last, c, c_at, c_row, width, epilogue,
    rate_at, rates, claims, claimed, claimed_at,
):  # fmt: skip
    """c[last - first, width] = x.T @ delta, the first weights' gradient of inputs first … last - 1 over the batch.

    With DESCEND, for at most 64 rows, c loses rates[rate_at] times it. claims: whether the weights that it is for, as c
    from claimed_at on, are taken from other cores on the way.
    """
    inputs, vector = source.shape[1], lanes(delta)
    bytes_ = pointer_to(flat(source), 0)
    places, words, marks = _numbers_room(order), _numbers_room(order), _numbers_room(order)
    begins = _begins_room(delta)
    left, j = width // vector, 0
    while left > 0:
        vectors = _vectors(left, MOST_VECTORS)
        group = GROUP if vectors <= TALL_VECTORS else FEWER
        row_totals(vectors, pointer_to(delta, delta_at + j), delta_row, rows, offset, begins)  # what a shift adds
        for start in range(0, max(rows, 1), 64):
            count = min(64, rows - start)
            # Where nothing is lit, c loses nothing, and what it holds of a sum is the sum.
            always = start == 0 and (epilogue == STORE or offset != 0)
            for i in range(count):
                store(places, i, order[at + start + i] * inputs)
            for block in range(first // 64 * 64, last, 64):
                _lit_words(bytes_, count, inputs, block, group, places, marks, words)
                p, end = max(first, block), min(last, block + 64)
                while p < end:
                    # As many whole groups as there are, single inputs before and behind them.
                    columns = group if p % group == 0 and end - p >= group else 1
                    groups = (end - p) // group if columns == group else 1
                    lit_columns(
                        groups, columns, vectors, advance(words, (p - block) // group), always, bytes_, places, p,
                        pointer_to(scaled, 0), pointer_to(delta, delta_at + start * delta_row + j), delta_row,
                        pointer_to(c, c_at + (p - first) * c_row + j), c_row, start > 0, begins, epilogue,
                        pointer_to(rates, rate_at), claims and start == 0,
                        pointer_to(claimed, claimed_at + (p - first) * c_row + j),
                    )  # fmt: skip
                    p += groups * columns
        left -= vectors
        j += vectors * vector


# What the first layer is asked to do.
FORWARD, HALF, GRADIENT, DESCENT = range(4)


@inlined
def first_layer(what, source, order, at, rows, start, stop, model, work, grad_at, claims):
    """The first layer of a plan from the bytes themselves.

    FORWARD: its outputs for rows start … stop - 1 of the batch. HALF: those rows' sums over the half grad_at of the
    inputs, 0 or 1, where halves.py keeps them. GRADIENT: the gradient of inputs start … stop - 1 over
    the batch's `rows`, to work.grad from grad_at on. DESCENT, for at most 64 rows: the parameters from grad_at on lose
    the rate in work.grad[grad_at] times it. claims: see `gradient`.
    """
    plan, params = model.plan, model.params
    width, stride, out = plan[0, WEIGHT_STRIDE], plan[0, OUT_STRIDE], plan[0, OUT] * work.losses.shape[0]
    if what <= HALF:
        first, last, sums = 0, plan[0, INPUTS], work.outputs
        epilogue = ADD_BIAS_RELU if plan[0, ACTIVATION] == RELU else ADD_BIAS
        if what == HALF:
            first, last = half(last, grad_at)
            sums, out, stride, epilogue = work.grad, half_sums(plan, grad_at), width, STORE
        forward(
            source.bytes, source.offset, order, at, rows, start, stop, first, last, work.scaled, params,
            plan[0, WEIGHT] + first * width, width, width, sums, out, stride, epilogue, params, plan[0, BIAS],
        )  # fmt: skip
    else:
        epilogue, target = (STORE, work.grad) if what == GRADIENT else (DESCEND, params)
        gradient(
            source.bytes, source.offset, order, at, rows, work.scaled, work.deltas, out, stride, start, stop, target,
            grad_at, width, width, epilogue, grad_at, work.grad, claims, params, plan[0, WEIGHT] + start * width,
        )  # fmt: skip


@inner
def product(pixels, factor, offset, w, b, activation, out):
    """The op sparse_dense_forward of arrays that agree.

    Takes room for 256 numbers and the rows' places, and where O is no multiple of a vector's elements for copies of w
    and out that are.
    """
    (inputs, outputs), rows, vector = w.shape, pixels.shape[0], lanes(out)
    width = (outputs + vector - 1) // vector * vector
    epilogue = np.int64(ADD_BIAS_RELU if activation == RELU else ADD_BIAS)
    order, scaled, zero = np.arange(rows), np.empty(256, out.dtype), np.int64(0)
    scaled_bytes(factor, scaled)
    weights, bias, given = flat(w), flat(b), flat(out)
    if width != outputs:
        padded = np.zeros((inputs + 1, width), out.dtype)
        for i in range(inputs):
            for j in range(outputs):
                padded[i, j] = w[i, j]
        for j in range(outputs):
            padded[inputs, j] = b[j]
        weights, bias = flat(padded[:inputs]), flat(padded[inputs])
        given = flat(np.empty((rows, width), out.dtype))
    forward(
        pixels, offset, order, zero, rows, zero, rows, zero, inputs, scaled, weights, zero, width, width, given, zero,
        width, epilogue, bias, zero,
    )  # fmt: skip
    if width != outputs:
        for i in range(rows):
            for j in range(outputs):
                out[i, j] = given[i * width + j]
    if activation > RELU:
        activate(flat(out), activation)
