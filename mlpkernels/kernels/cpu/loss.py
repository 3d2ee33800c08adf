"""Softmax cross-entropy over a block of rows, with an exp that vectorises.

Rows lie in flat arrays at a stride, so that one loop runs over a whole block: np.exp in compiled code is a
call of the C library for each element (5 ns), the polynomial below takes 0.5 ns.
"""

from math import exp as libm_exp
from math import log
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import jit
from .simd import FUSED


@intrinsic
def multiply_add(typingctx, x, y, z):
    """x · y + z, fused where the processor can: spelled out, so that a loop's body and its rest agree."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args) if FUSED else builder.fadd(builder.fmul(args[0], args[1]), args[2])

    return x(x, x, x), codegen


@intrinsic
def _times_power(typingctx, x, shifted):
    """x · 2ⁿ, where shifted = 1.5 · 2^(mantissa bits) + n: its lowest bits are n, added to x's exponent."""
    bits, mantissa = (32, 23) if x == types.float32 else (64, 52)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(bits)
        exponent = builder.shl(builder.bitcast(args[1], integer), ir.Constant(integer, mantissa))
        return builder.bitcast(builder.add(builder.bitcast(args[0], integer), exponent), args[0].type)

    return x(x, x), codegen


@jit
def exp(z):
    """z = exp(z) in place for z <= 0, a NaN stays; below -87 (float64: -708) the result is 0.

    Cody-Waite reduction z = n·ln 2 + r with a polynomial in r: Cephes' for float32 (relative error 8e-8), Taylor's to
    degree 13 for float64 (2e-16).
    """
    T = z.dtype.type
    single = z.itemsize == 4
    lowest = T(-87.0) if single else T(-708.0)
    shift = T(12582912.0) if single else T(6755399441055744.0)
    high = T(0.693359375) if single else T(0.6931471803691238)
    low = T(-2.12194440e-4) if single else T(1.9082149292705877e-10)
    for i in range(z.shape[0]):
        x = z[i]
        bounded = x if x > lowest else lowest
        shifted = multiply_add(bounded, T(1.4426950408889634), shift)
        n = shifted - shift
        r = multiply_add(-n, high, bounded)
        r = multiply_add(-n, low, r)
        if single:
            p = multiply_add(T(1.9875691500e-4), r, T(1.3981999507e-3))
            p = multiply_add(p, r, T(8.3334519073e-3))
            p = multiply_add(p, r, T(4.1665795894e-2))
            p = multiply_add(p, r, T(1.6666665459e-1))
            p = multiply_add(p, r, T(5.0000001201e-1))
        else:
            p = multiply_add(T(1 / 6227020800), r, T(1 / 479001600))
            p = multiply_add(p, r, T(1 / 39916800))
            p = multiply_add(p, r, T(1 / 3628800))
            p = multiply_add(p, r, T(1 / 362880))
            p = multiply_add(p, r, T(1 / 40320))
            p = multiply_add(p, r, T(1 / 5040))
            p = multiply_add(p, r, T(1 / 720))
            p = multiply_add(p, r, T(1 / 120))
            p = multiply_add(p, r, T(1 / 24))
            p = multiply_add(p, r, T(1 / 6))
            p = multiply_add(p, r, T(1 / 2))
        p = multiply_add(p, r * r, r) + T(1)
        result = _times_power(p, shifted) if x > lowest else T(0)
        z[i] = result if x == x else x


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


@jit
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
