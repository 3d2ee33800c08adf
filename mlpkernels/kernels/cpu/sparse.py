"""The first layer over bytes most of which are zero: forward a few samples at a time, the gradient a few inputs.

Which bytes are zero is found as a batch is read: 64 of them are one comparison, and cost less than reading lists of the
others would. A tile of the forward product takes what is lit in any of 4 samples, so that a row of weights is fetched
once for them; a tile of the gradient takes the samples that are lit in any of 4 neighbouring inputs.
"""

import numpy as np

from ..plan import ACTIVATION, BIAS, OUT, OUT_STRIDE, RELU, WEIGHT, WEIGHT_STRIDE
from .curves import activate
from .gather import later
from .jit import inlined, inner, jit
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
    GROUP,
    TALL,
    THIN,
    WIDEST_COLUMN,
    WIDEST_ROW,
    lit_bits,
    lit_columns,
    lit_groups,
    lit_rows,
    row_totals,
    turn_groups,
)

WIDEST = 65536  # inputs at most that are looked through for zeros
_words_room = stack(64 * 8)
_places_room = stack(TALL * 8)
_ahead_room = stack(TALL * 8)
_groups_room = stack(16 * 8)
_masks_room = stack(64 * 2)
_begins_room = stack(WIDEST_ROW * VECTOR_BYTES)


@jit
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
def _narrow_bits(bytes_, count):
    """lit_bits of fewer than 64 bytes, behind which there may be no others."""
    lit = np.int64(0)
    for i in range(count):
        if load(bytes_, i) != 0:
            lit |= np.int64(1) << i
    return lit


@inlined
def forward(
    source, offset, order, at, rows, start, stop, scaled, w, w_at, w_row, width, c, c_at, c_row, epilogue, bias, bias_at
):  # fmt: skip
    """c[start:stop, width] = epilogue(x @ w), x the scaled bytes of the source's rows order[at + start : at + stop].

    They are a slot's of a batch of `rows`; what comes behind is asked for on the way. Flat arrays, offsets and strides
    in elements; width is a multiple of a vector's.
    """
    inputs, vector = source.shape[1], lanes(w)
    bytes_, begins = pointer_to(flat(source), 0), _begins_room(w)
    places, ahead = _places_room(order), _ahead_room(order)
    left, j = width // vector, 0
    while left > 0:
        vectors = _vectors(left, WIDEST_ROW)
        tallest, less = (TALL, 2) if vectors <= WIDEST_COLUMN else (THIN, 1)
        row_totals(vectors, pointer_to(w, w_at + j), w_row, inputs, offset, begins)  # what a shift of all inputs adds
        row = start
        while row < stop:
            tall = tallest if stop - row >= tallest else less if stop - row >= less else 1
            lit = _enter(bytes_, order, at + row, tall, inputs, places)
            for i in range(tall):
                store(ahead, i, later(order, at, rows, start, stop, row + i) * inputs)
            lit_rows(
                tall, vectors, lit, inputs, bytes_, places, ahead, pointer_to(scaled, 0),
                pointer_to(w, w_at + j), w_row, pointer_to(c, c_at + row * c_row + j), c_row, begins, epilogue,
                pointer_to(bias, bias_at + j),
            )  # fmt: skip
            row += tall
        left -= vectors
        j += vectors * vector


@inlined
def _enter(bytes_, order, at, rows, inputs, places):
    """places[i], where row at + i begins; returns the bits of what is lit in any row's first 64 inputs."""
    lit = np.int64(0)
    for i in range(rows):
        place = order[at + i] * inputs
        store(places, i, place)
        row = advance(bytes_, place)
        lit |= lit_bits(row) if inputs >= 64 else _narrow_bits(row, inputs)
    return lit


@inner
def _narrow_words(bytes_, count, inputs, block, places, words):
    """_lit_words of places, where rows do not end with a whole group or have fewer than 64 inputs."""
    for g in range(16):
        lit = np.int64(0)
        for i in range(count):
            for p in range(block + g * GROUP, min(block + (g + 1) * GROUP, inputs)):
                if load(bytes_, load(places, i) + p) != 0:
                    lit |= np.int64(1) << i
        store(words, g, lit)


@inner
def _lit_words(bytes_, count, inputs, block, places, masks, words):
    """words[g]: which of count rows, those at places, are lit in group g of a block of inputs."""
    behind = max(0, block + 64 - inputs)  # of a row's last 64 inputs, those that the block before has
    if inputs < 64 or behind % GROUP != 0:
        _narrow_words(bytes_, count, inputs, block, places, words)
        return
    for i in range(count):
        lit_groups(advance(bytes_, load(places, i) + block - behind), behind // GROUP, masks, i)
    turn_groups(masks, count, words)


@inlined
def gradient(
    source, offset, order, at, rows, scaled, delta, delta_at, delta_row, first, last, c, c_at, c_row, width, epilogue,
    rate_at, rates,
):  # fmt: skip
    """c[last - first, width] = x.T @ delta, the first weights' gradient of inputs first … last - 1 over the batch.

    With DESCEND, for at most 64 rows, c loses rates[rate_at] times it.
    """
    inputs, vector = source.shape[1], lanes(delta)
    bytes_ = pointer_to(flat(source), 0)
    places, words, masks = _words_room(order), _groups_room(order), _masks_room(order)
    begins, wide = _begins_room(delta), WIDEST_ROW * vector
    for left in range(0, width, wide):
        right = min(left + wide, width)
        row_totals(  # what a shift of all inputs adds
            (right - left) // vector, pointer_to(delta, delta_at + left), delta_row, rows, offset, begins
        )
        for start in range(0, max(rows, 1), 64):
            count = min(64, rows - start)
            # Where nothing is lit, c loses nothing, and what it holds of a sum is the sum.
            always = start == 0 and (epilogue == STORE or offset != 0)
            for i in range(count):
                store(places, i, order[at + start + i] * inputs)
            for block in range(first // 64 * 64, last, 64):
                _lit_words(bytes_, count, inputs, block, places, masks, words)
                p, end = max(first, block), min(last, block + 64)
                while p < end:
                    # As many whole groups as there are, single inputs before and behind them.
                    columns = GROUP if p % GROUP == 0 and end - p >= GROUP else 1
                    groups = (end - p) // GROUP if columns == GROUP else 1
                    j = left
                    while j < right:
                        vectors = _vectors((right - j) // vector, WIDEST_COLUMN)
                        lit_columns(
                            groups, columns, vectors, advance(words, (p - block) // GROUP), always, bytes_, places, p,
                            pointer_to(scaled, 0), pointer_to(delta, delta_at + start * delta_row + j), delta_row,
                            pointer_to(c, c_at + (p - first) * c_row + j), c_row, start > 0, advance(begins, j - left),
                            epilogue, pointer_to(rates, rate_at),
                        )  # fmt: skip
                        j += vectors * vector
                    p += groups * columns


# What the first layer is asked to do.
FORWARD, GRADIENT, DESCENT = range(3)


@inlined
def first_layer(what, source, order, at, rows, start, stop, model, work, grad_at):
    """The first layer of a plan from the bytes themselves.

    FORWARD: its outputs for rows start … stop - 1 of the batch. GRADIENT: the gradient of inputs start … stop - 1 over
    the batch's `rows`, to work.grad from grad_at on. DESCENT, for at most 64 rows: the parameters from grad_at on lose
    the rate in work.grad[grad_at] times it.
    """
    plan, params = model.plan, model.params
    width, stride, out = plan[0, WEIGHT_STRIDE], plan[0, OUT_STRIDE], plan[0, OUT] * work.losses.shape[0]
    if what == FORWARD:
        epilogue = ADD_BIAS_RELU if plan[0, ACTIVATION] == RELU else ADD_BIAS
        forward(
            source.bytes, source.offset, order, at, rows, start, stop, work.scaled, params, plan[0, WEIGHT], width,
            width, work.outputs, out, stride, epilogue, params, plan[0, BIAS],
        )  # fmt: skip
    else:
        epilogue, target = (STORE, work.grad) if what == GRADIENT else (DESCEND, params)
        gradient(
            source.bytes, source.offset, order, at, rows, work.scaled, work.deltas, out, stride, start, stop, target,
            grad_at, width, width, epilogue, grad_at, work.grad,
        )  # fmt: skip


@jit
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
        pixels, offset, order, zero, rows, zero, rows, scaled, weights, zero, width, width, given, zero, width,
        epilogue, bias, zero,
    )  # fmt: skip
    if width != outputs:
        for i in range(rows):
            for j in range(outputs):
                out[i, j] = given[i * width + j]
    if activation > RELU:
        activate(flat(out), activation)
