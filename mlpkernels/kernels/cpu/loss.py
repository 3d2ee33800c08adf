"""Softmax cross-entropy over a block of rows, and the losses of float targets.

Rows lie in flat arrays at a stride. The cross-entropy goes class by class through as many rows at once as a vector has
lanes (loss_tiles.py): 8 ns a row of 10 classes, where row by row took 28.
"""

from math import exp as libm_exp
from math import log, log1p

import numpy as np

from ..plan import BINARY, SQUARED
from .elementary import exp, exp_of
from .jit import inlined, inner
from .loss_tiles import STATE, exponentials, finish, gradients, lanes_to_rows, largest, rows_to_lanes, samples
from .simd import VECTOR_BYTES, advance, lanes, pointer_to, stack, store

WIDE = 128  # classes that a group of rows is kept transposed for: 8 KB. Of 100, 35 ns a row instead of 50 with 64.
_room = stack(WIDE * VECTOR_BYTES)
_state = stack(STATE * VECTOR_BYTES)


@inner
def _shift_row(z, out):
    """out = z - max(z); a NaN stays."""
    largest = z[0]
    for j in range(1, z.shape[0]):
        if z[j] > largest:
            largest = z[j]
    for j in range(z.shape[0]):
        out[j] = z[j] - largest


@inner
def _scale_row(z, factor):
    for j in range(z.shape[0]):
        z[j] *= factor


@inner
def _total(z):
    """The sum of z, in order."""
    total = z.dtype.type(0)
    for j in range(z.shape[0]):
        total += z[j]
    return total


@inner
def _take(source, stride, last, columns, room):
    """room[j, i] = source[i, j] of a group of rows; those behind the `last` are like it."""
    vector = lanes(source)
    for j in range(0, columns, vector):
        rows_to_lanes(advance(source, j), stride, last, columns - j, advance(room, j * vector))


@inner
def _give(room, target, stride, last, columns):
    """target[i, j] = room[j, i]: the way back."""
    vector = lanes(room)
    for j in range(0, columns, vector):
        lanes_to_rows(advance(room, j * vector), advance(target, j), stride, last, columns - j)


@inner
def row_losses(logits, deltas, at, stride, rows, classes, labels, weights, order, first, divisor, losses, corrects):
    """Losses, corrects and the gradient of rows first … first + rows - 1 of a batch.

    logits and deltas are flat, row i of the block at at + i·stride, the first `classes` of a row in use; the gradient
    is written to deltas with zeros up to stride. Row i's sample is order[first + i] of labels and weights; its loss
    goes to losses[first + i]. As many rows at once as a vector has lanes, those that are missing like the last; classes
    beyond what a room holds go through it three times.
    """
    vector, room, state = lanes(logits), _room(logits), _state(logits)
    z, dz, weight = pointer_to(logits, at), pointer_to(deltas, at), pointer_to(weights, 0)
    label, sample = pointer_to(labels, 0), pointer_to(order, first)
    loss, correct = pointer_to(losses, first), pointer_to(corrects, first)
    for start in range(0, rows, vector):
        last = min(vector, rows - start) - 1
        row, drow = advance(z, start * stride), advance(dz, start * stride)
        samples(row, stride, last, label, weight, advance(sample, start), state)
        for j in range(0, classes, WIDE):
            _take(advance(row, j), stride, last, min(WIDE, stride - j), room)
            largest(room, j, min(WIDE, classes - j), state)
        for j in range(0, classes, WIDE):
            if classes > WIDE:
                _take(advance(row, j), stride, last, min(WIDE, stride - j), room)
            exponentials(room, j, min(WIDE, classes - j), state)
            if classes > WIDE:
                _give(room, advance(drow, j), stride, last, min(WIDE, classes - j))
        finish(divisor, last, advance(loss, start), advance(correct, start), state)
        for j in range(0, stride, WIDE):
            columns, count = min(WIDE, stride - j), max(0, min(WIDE, classes - j))
            if classes > WIDE:
                _take(advance(drow, j), stride, last, columns, room)
            gradients(room, j, count, state)
            for i in range(count * vector, columns * vector):
                store(room, i, 0.0)
            _give(room, advance(drow, j), stride, last, columns)


@inlined
def _binary(z, target, like):
    """(loss, logistic(z) - target) of one output."""
    T = like.dtype.type
    small = exp_of(-abs(z))
    above = T(1) / (T(1) + small)
    loss = max(z, T(0)) - z * target + T(log1p(small))
    return loss, (above if z >= 0 else small * above) - target


@inlined
def _poisson(z, target, like):
    """(loss, exp(z) - target) of one output, half the deviance."""
    T = like.dtype.type
    rate = T(libm_exp(z))
    least = target * T(log(target)) - target if target > 0 else T(0)
    return rate - target * z + least, rate - target


@inner
def target_losses(
    kind, outputs, deltas, at, stride, rows, width, targets, weights, order, first, divisor, losses, corrects
):  # fmt: skip
    """`row_losses` of the losses BINARY, SQUARED and POISSON, for rows of targets (N, K) in place of labels."""
    T = outputs.dtype.type
    for i in range(rows):
        row = at + i * stride
        sample = order[first + i] if order.shape[0] > 0 else first + i
        weight = weights[sample]
        scale = weight / divisor
        total, right = T(0), kind == BINARY
        for j in range(width):
            z, target = outputs[row + j], targets[sample, j]
            if kind == BINARY:
                loss, error = _binary(z, target, outputs)
                right = right and (z > 0) == (target > T(0.5)) and z == z
            elif kind == SQUARED:
                error = z - target
                loss = error * error / T(2)
            else:
                loss, error = _poisson(z, target, outputs)
            total += loss
            deltas[row + j] = error * scale
        for j in range(width, stride):
            deltas[row + j] = T(0)
        losses[first + i] = weight * total
        corrects[first + i] = right


@inner
def target_loss(kind, outputs, targets, weights, divisor, doutputs):
    """(Σ weight · loss, correct count) of contiguous outputs (B, K), their gradient in doutputs (B, K)."""
    rows, width = outputs.shape
    block = 64  # of fixed size: what is allocated does not grow with the batch
    losses, corrects, order = np.empty(block), np.empty(block, np.int64), np.empty(0, np.int64)
    z, dz = outputs.reshape(outputs.size), doutputs.reshape(doutputs.size)
    loss, correct = 0.0, 0
    for first in range(0, rows, block):
        count = min(block, rows - first)
        target_losses(
            kind, z, dz, first * width, width, count, width, targets[first : first + count],
            weights[first : first + count], order, 0, divisor, losses, corrects,
        )  # fmt: skip
        for i in range(count):
            loss += losses[i]
            correct += corrects[i]
    return loss, correct


@inner
def cross_entropy(logits, labels, weights, divisor, dlogits):
    """(Σ weight · loss, correct count) of contiguous logits (B, K), their gradient in dlogits (B, K)."""
    rows, classes = logits.shape
    block = 64  # of fixed size: what is allocated does not grow with the batch
    losses, corrects, order = np.empty(block), np.empty(block, np.int64), np.empty(block, np.int64)
    places = np.empty(block, np.int32)
    z, dz = logits.reshape(logits.size), dlogits.reshape(dlogits.size)
    loss, correct = 0.0, 0
    for first in range(0, rows, block):
        count = min(block, rows - first)
        for i in range(count):
            order[i], places[i] = i, labels[first + i]
        row_losses(
            z, dz, first * classes, classes, count, classes, places, weights[first : first + count], order, 0, divisor,
            losses, corrects,
        )  # fmt: skip
        for i in range(count):
            loss += losses[i]
            correct += corrects[i]
    return loss, correct


@inlined
def softmax_rows(logits, out, logarithm):
    """Each row's softmax, or its logarithm, of contiguous logits (B, K) -> out (B, K)."""
    T = logits.dtype.type
    for i in range(logits.shape[0] if logits.shape[1] > 0 else 0):
        _shift_row(logits[i], out[i])
        if not logarithm:
            exp(out[i])
            _scale_row(out[i], T(1) / _total(out[i]))
        else:
            total = 0.0
            for j in range(out.shape[1]):
                total += libm_exp(out[i, j])
            shift = T(log(total))
            for j in range(out.shape[1]):
                out[i, j] -= shift
