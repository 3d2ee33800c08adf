"""Softmax cross-entropy over a block of rows, and the losses of float targets.

Rows lie in flat arrays at a stride, so that one loop of exp runs over a whole block.
"""

from math import exp as libm_exp
from math import log, log1p

import numpy as np

from ..plan import BINARY, SQUARED
from .elementary import exp, exp_of
from .jit import inlined, jit


@jit
def shift_row(z, out):
    """out = z - max(z); returns where the first largest is, -1 where z holds a NaN."""
    best, largest = 0, z[0]
    for j in range(1, z.shape[0]):
        if z[j] > largest:
            best, largest = j, z[j]
    for j in range(z.shape[0]):
        out[j] = z[j] - largest
    for j in range(z.shape[0]):
        if z[j] != z[j]:
            best = -1
    return best


@jit
def _scale_row(z, factor):
    for j in range(z.shape[0]):
        z[j] *= factor


@jit
def _total(z):
    """The sum of z, in order."""
    total = z.dtype.type(0)
    for j in range(z.shape[0]):
        total += z[j]
    return total


@jit
def row_losses(logits, deltas, at, stride, rows, classes, labels, weights, order, first, divisor, losses, corrects):
    """Losses, corrects and the gradient of rows first … first + rows - 1 of a batch.

    logits and deltas are flat, row i of the block at at + i·stride, the first `classes` of a row in use; the gradient
    is written to deltas with zeros up to stride. Row i's sample is order[first + i] of labels and weights (order of
    length 0: first + i itself); its loss goes to losses[first + i]. Three passes, of which the middle one, exp, runs
    over the block in one loop.
    """
    T = logits.dtype.type
    for i in range(rows):
        row = at + i * stride
        sample = order[first + i] if order.shape[0] > 0 else first + i
        label = labels[sample]
        best = shift_row(logits[row : row + classes], deltas[row : row + classes])
        corrects[first + i] = best == label
        losses[first + i] = deltas[row + label]
    exp(deltas[at : at + rows * stride])
    for i in range(rows):
        row = at + i * stride
        sample = order[first + i] if order.shape[0] > 0 else first + i
        weight = weights[sample]
        total = _total(deltas[row : row + classes])
        losses[first + i] = weight * (T(log(total)) - T(losses[first + i]))
        scale = weight / divisor
        _scale_row(deltas[row : row + classes], scale / total)
        deltas[row + labels[sample]] -= scale
        for j in range(classes, stride):
            deltas[row + j] = T(0)


@inlined
def _binary(z, target, like):
    """(loss, logistic(z) - target) of one output."""
    T = like.dtype.type
    small = exp_of(-abs(z), like)
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


@jit
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


@jit
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


@jit
def cross_entropy(logits, labels, weights, divisor, dlogits):
    """(Σ weight · loss, correct count) of contiguous logits (B, K), their gradient in dlogits (B, K)."""
    rows, classes = logits.shape
    block = 64  # of fixed size: what is allocated does not grow with the batch
    losses, corrects, order = np.empty(block), np.empty(block, np.int64), np.empty(0, np.int64)
    z, dz = logits.reshape(logits.size), dlogits.reshape(dlogits.size)
    loss, correct = 0.0, 0
    for first in range(0, rows, block):
        count = min(block, rows - first)
        row_losses(
            z, dz, first * classes, classes, count, classes, labels[first : first + count],
            weights[first : first + count], order, 0, divisor, losses, corrects,
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
        shift_row(logits[i], out[i])
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
