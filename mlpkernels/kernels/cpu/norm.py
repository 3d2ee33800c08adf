"""Batch normalisation and dropout behind flat layers; what they share with the same behind images.

Statistics are float64: the sums of a batch's many rows, each in one fixed order.
"""

from math import sqrt

import numpy as np

from ..plan import (
    ACTIVATION,
    BIAS,
    BN_EPSILON,
    BN_MOMENTUM,
    BUFFER,
    DROP,
    GIVES,
    OUT,
    OUT_STRIDE,
    OUTPUTS,
    RELU,
    WEIGHT,
    WEIGHT_STRIDE,
)  # fmt: skip
from .jit import inlined, inner

# What a layer is asked to do.
TRAIN, INFER, BACKWARD, MOMENTS, BACK_MOMENTS, ENTER = range(6)


# ---- dropout


@inner
def splitmix(z):
    """SplitMix64's output function (Steele, Lea & Flood 2014), uint64."""
    z = np.uint64(z) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@inner
def step_key(seed, step):
    """What a step's masks come from, as int64 bits; a layer's key is splitmix(step_key ^ layer)."""
    return np.int64(splitmix(splitmix(np.uint64(seed)) ^ np.uint64(step)))


@inner
def layer_key(key, layer):
    """(low, high) halves of a layer's key, uint32."""
    made = splitmix(np.uint64(key) ^ np.uint64(layer))
    return np.uint32(made & np.uint64(0xFFFFFFFF)), np.uint32(made >> np.uint64(32))


@inner
def _mix(h):
    """MurmurHash3's 32-bit finaliser."""
    h = np.uint32(h ^ (h >> np.uint32(16)))
    h = np.uint32(h * np.uint32(0x85EBCA6B))
    h = np.uint32(h ^ (h >> np.uint32(13)))
    h = np.uint32(h * np.uint32(0xC2B2AE35))
    return np.uint32(h ^ (h >> np.uint32(16)))


@inner
def keeps(element, low, high, threshold):
    """Whether dropout keeps an element: 32 bits made of its number and the layer's key are not below the threshold."""
    return _mix(np.uint32(_mix(np.uint32(np.uint32(element) ^ low)) + high)) >= threshold


@inner
def threshold_of(p):
    """p as a share of 2**32."""
    return np.uint32(p * 4294967296.0)


@inner
def _drop(x, out, first, low, high, threshold, scale):
    zero = out.dtype.type(0)
    for j in range(x.shape[0]):
        value = x[j] * scale
        out[j] = value if keeps(np.uint32(first + j), low, high, threshold) else zero


@inner
def _drop_back(delta, x, dx, first, low, high, threshold, scale, slope):
    zero = dx.dtype.type(0)
    for j in range(delta.shape[0]):
        value = delta[j] * scale
        passes = keeps(np.uint32(first + j), low, high, threshold) and (x[j] > zero or not slope)
        dx[j] = value if passes else zero


@inner
def copy(source, target):
    for j in range(source.shape[0]):
        target[j] = source[j]


@inner
def dropout_rows(x, x_stride, out, out_stride, rows, width, first_row, p, key, layer):
    """Rows of x, flat arrays that begin at the first row, through the mask of row first_row and those behind it."""
    low, high = layer_key(key, layer)
    scale = out.dtype.type(1 / (1 - p))
    for i in range(rows):
        _drop(
            x[i * x_stride : i * x_stride + width], out[i * out_stride : i * out_stride + width],
            (first_row + i) * width, low, high, threshold_of(p), scale,
        )  # fmt: skip


@inner
def dropout_rows_back(delta, x, x_stride, dx, stride, rows, width, first_row, p, key, layer, slope):
    """The gradient by x from delta, the gradient by dropout's output, through the slope of what made x."""
    low, high = layer_key(key, layer)
    scale = dx.dtype.type(1 / (1 - p))
    for i in range(rows):
        _drop_back(
            delta[i * stride : i * stride + width], x[i * x_stride : i * x_stride + width],
            dx[i * x_stride : i * x_stride + width], (first_row + i) * width, low, high, threshold_of(p), scale, slope,
        )  # fmt: skip


# ---- batch normalisation: per column


@inner
def _add_to(x, total):
    for j in range(x.shape[0]):
        total[j] += np.float64(x[j])


@inner
def _add_squares(x, mean, total):
    for j in range(x.shape[0]):
        apart = np.float64(x[j]) - mean[j]
        total[j] += apart * apart


@inner
def _divide(total, n):
    for j in range(total.shape[0]):
        total[j] /= n


@inner
def column_moments(x, stride, rows, mean, variance):
    """Mean and (biased) variance of each column: x flat, rows `stride` apart; as many columns as mean has."""
    width = mean.shape[0]
    mean[:] = 0
    variance[:] = 0
    for i in range(rows):
        _add_to(x[i * stride : i * stride + width], mean)
    _divide(mean, max(1, rows))
    for i in range(rows):
        _add_squares(x[i * stride : i * stride + width], mean, variance)
    _divide(variance, max(1, rows))


@inner
def _add_products(delta, x, mean, variance, epsilon, total):
    for j in range(x.shape[0]):
        total[j] += np.float64(delta[j]) * ((np.float64(x[j]) - mean[j]) / sqrt(variance[j] + epsilon))


@inner
def column_products(delta, x, stride, delta_stride, rows, mean, variance, epsilon, sums, products):
    """Σ delta and Σ delta · x̂ of each column: what the gradients by beta and gamma are."""
    width = mean.shape[0]
    sums[:] = 0
    products[:] = 0
    for i in range(rows):
        row = delta[i * delta_stride : i * delta_stride + width]
        _add_to(row, sums)
        _add_products(row, x[i * stride : i * stride + width], mean, variance, epsilon, products)


@inner
def normalise(x, out, mean, variance, epsilon, gamma, beta, relu):
    """out = gamma · x̂ + beta, or no less than zero, of a row; rounded once."""
    T = out.dtype.type
    for j in range(x.shape[0]):
        value = (np.float64(x[j]) - mean[j]) / sqrt(variance[j] + epsilon) * np.float64(gamma[j]) + np.float64(beta[j])
        out[j] = T(0) if relu and value <= 0 else T(value)


@inner
def normalise_back(delta, x, dx, mean, variance, epsilon, gamma, sums, products, n, slope):
    """The gradient by x of a row, through the slope of what made x."""
    T = dx.dtype.type
    for j in range(x.shape[0]):
        inverse = 1 / sqrt(variance[j] + epsilon)
        apart = (np.float64(x[j]) - mean[j]) * inverse
        value = np.float64(gamma[j]) * inverse * (np.float64(delta[j]) - (sums[j] + apart * products[j]) / n)
        dx[j] = T(0) if slope and not x[j] > 0 else T(value)


# ---- a flat layer of a plan


@inner
def _batch_norm(what, layer, start, stop, slot, slots, rows, model, work, source, source_at, source_stride):
    plan, params = model.plan, model.params
    row = plan[layer]
    batch = work.losses.shape[0]
    width, stride, out_stride = row[OUTPUTS], row[WEIGHT_STRIDE], row[OUT_STRIDE]
    epsilon = model.rates[layer, BN_EPSILON]
    at = 2 * row[BUFFER]
    moments = work.moments
    out_at = row[OUT] * batch
    mean, variance = moments[at : at + width], moments[at + stride : at + stride + width]
    sums = moments[at + 2 * stride : at + 2 * stride + width]
    products = moments[at + 3 * stride : at + 3 * stride + width]
    if what in (MOMENTS, BACK_MOMENTS):  # a slot takes some columns
        each = (width + slots - 1) // slots
        first, last = min(slot * each, width), min((slot + 1) * each, width)
        x = source[source_at + first :]
        if what == MOMENTS:
            column_moments(x, source_stride, rows, mean[first:last], variance[first:last])
        else:
            column_products(
                work.deltas[out_at + first :], x, source_stride, out_stride, rows, mean[first:last],
                variance[first:last], epsilon, sums[first:last], products[first:last],
            )  # fmt: skip
        return
    if what == INFER:
        mean = model.buffers[row[BUFFER] : row[BUFFER] + width]
        variance = model.buffers[row[BUFFER] + stride : row[BUFFER] + stride + width]
    gamma, beta = params[row[WEIGHT] : row[WEIGHT] + width], params[row[BIAS] : row[BIAS] + width]
    for i in range(start, stop):
        x = source[source_at + i * source_stride : source_at + i * source_stride + width]
        there = slice(out_at + i * out_stride, out_at + i * out_stride + width)
        if what == BACKWARD:
            below = work.deltas[source_at + i * source_stride : source_at + i * source_stride + width]
            normalise_back(
                work.deltas[there], x, below, mean, variance, epsilon, gamma, sums, products, rows,
                plan[layer - 1, ACTIVATION] == RELU,
            )  # fmt: skip
        else:
            normalise(x, work.outputs[there], mean, variance, epsilon, gamma, beta, row[ACTIVATION] == RELU)


@inlined
def flat_layers(what, layer, last, start, stop, slot, slots, rows, model, key, x_stride, work):
    """Rows start … stop - 1 of a flat batch norm or dropout; or, for moments, a slot's share of the columns."""
    plan = model.plan
    row = plan[layer]
    batch = work.losses.shape[0]
    source, source_at, source_stride = work.x, 0, x_stride
    if layer > 0:
        source_stride = plan[layer - 1, OUT_STRIDE]
        source, source_at = work.outputs, plan[layer - 1, OUT] * batch
    if row[OUTPUTS] > 0:
        _batch_norm(what, layer, start, stop, slot, slots, rows, model, work, source, source_at, source_stride)
        return
    width, stride, out_at = row[GIVES], row[OUT_STRIDE], row[OUT] * batch
    p = model.rates[layer, DROP]
    x_at, at = source_at + start * source_stride, out_at + start * stride
    if what == TRAIN:
        dropout_rows(source[x_at:], source_stride, work.outputs[at:], stride, stop - start, width, start, p, key, layer)
    elif what == INFER:
        for i in range(stop - start):
            x = source[x_at + i * source_stride : x_at + i * source_stride + width]
            copy(x, work.outputs[at + i * stride : at + i * stride + width])
    elif what == BACKWARD:
        dropout_rows_back(
            work.deltas[at:], source[x_at:], source_stride, work.deltas[x_at:], stride, stop - start, width, start, p,
            key, layer, plan[layer - 1, ACTIVATION] == RELU,
        )  # fmt: skip


@inner
def update_statistics(plan, layer, buffers, params, rates, moments, rows):
    """Move a batch norm's running mean and variance towards the batch's, rounded as the network's dtype holds them."""
    row = plan[layer]
    pixels = max(1, row[GIVES] // max(1, row[OUTPUTS]))
    n, T = rows * pixels, params.dtype.type
    momentum, stride, at, batch_at = rates[layer, BN_MOMENTUM], row[WEIGHT_STRIDE], row[BUFFER], 2 * row[BUFFER]
    unbiased = n / max(1, n - 1)
    for j in range(row[OUTPUTS]):
        mean, variance = moments[batch_at + j], moments[batch_at + stride + j] * unbiased
        buffers[at + j] = T((1 - momentum) * buffers[at + j] + momentum * mean)
        buffers[at + stride + j] = T((1 - momentum) * buffers[at + stride + j] + momentum * variance)
    buffers[at + 2 * stride] += 1
