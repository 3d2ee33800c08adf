"""Pools, batch norms and dropout of arrays instead of a plan's: plain loops, whose inner ones the compiler vectorises.

Arrays are flat. A batch norm's values are (batch, channels, pixels), those of a flat layer with one pixel each.
"""

from math import sqrt

import numpy as np

from .conv_arrays import after
from .jit import inner
from .norm import (
    column_moments,
    column_products,
    dropout_rows,
    dropout_rows_back,
    normalise,
    normalise_back,
    step_key,
)

# ---- maximum pooling


@inner
def pool_forward(window, x, out, places):
    """The maximum of every window and where in its image it is: the first of equal ones, the last NaN of several."""
    high, wide = after(window)
    for plane in range(window.batch * window.channels):
        image, target = plane * window.height * window.width, plane * high * wide
        for y in range(high):
            top = y * window.stride_h - window.padding_h
            first, last = max(top, 0), min(top + window.kernel_h, window.height)
            for x_out in range(wide):
                left = x_out * window.stride_w - window.padding_w
                begin, end = max(left, 0), min(left + window.kernel_w, window.width)
                place = first * window.width + begin
                best = x[image + place]
                for i in range(first, last):
                    for j in range(begin, end):
                        value = x[image + i * window.width + j]
                        if value > best or value != value:
                            best, place = value, i * window.width + j
                out[target + y * wide + x_out] = best
                places[target + y * wide + x_out] = place


@inner
def pool_backward(planes, pixels, windows, delta, places, x, slope, dx):
    """Every window's gradient to its maximum, through the slope of what made x; places are within a plane's pixels."""
    zero = dx.dtype.type(0)
    for plane in range(planes):
        image = plane * pixels
        for i in range(image, image + pixels):
            dx[i] = zero
        for i in range(plane * windows, (plane + 1) * windows):
            dx[image + places[i]] += delta[i]
        if slope:
            for i in range(image, image + pixels):
                came = dx[i]
                dx[i] = came if x[i] > zero else zero


@inner
def places_within(places, pixels):
    """Whether every place is one of a plane's pixels."""
    within = True
    for i in range(places.shape[0]):
        within = within and 0 <= places[i] < pixels
    return within


# ---- batch normalisation


@inner
def _deviations(x, mean):
    """(Σ (x - mean), Σ (x - mean)²). Four sums side by side: a single chain would wait for each addition."""
    a = b = c = d = p = q = r = s = 0.0
    whole = x.shape[0] // 4 * 4
    for j in range(0, whole, 4):
        w0, w1 = np.float64(x[j]) - mean, np.float64(x[j + 1]) - mean
        w2, w3 = np.float64(x[j + 2]) - mean, np.float64(x[j + 3]) - mean
        a, b, c, d = a + w0, b + w1, c + w2, d + w3
        p, q, r, s = p + w0 * w0, q + w1 * w1, r + w2 * w2, s + w3 * w3
    for j in range(whole, x.shape[0]):
        w0 = np.float64(x[j]) - mean
        a += w0
        p += w0 * w0
    return (a + b) + (c + d), (p + q) + (r + s)


@inner
def moments(batch, channels, pixels, x, mean, variance):
    """Each channel's mean and variance, divided by the number of its values; 0 where there are none."""
    if pixels == 1:
        column_moments(x, channels, batch, mean, variance)
        return
    n = max(1, batch * pixels)
    for channel in range(channels):
        total, squares = 0.0, 0.0
        for sample in range(batch):
            at = (sample * channels + channel) * pixels
            total += _deviations(x[at : at + pixels], 0.0)[0]
        mean[channel] = total / n
        for sample in range(batch):
            at = (sample * channels + channel) * pixels
            squares += _deviations(x[at : at + pixels], mean[channel])[1]
        variance[channel] = squares / n


@inner
def _normalise_plane(x, out, mean, deviation, gamma, beta, relu):
    """As norm.normalise, all of one channel."""
    T = out.dtype.type
    for j in range(x.shape[0]):
        value = (np.float64(x[j]) - mean) / deviation * gamma + beta
        out[j] = T(0) if relu and value <= 0 else T(value)


@inner
def apply(batch, channels, pixels, x, gamma, beta, mean, variance, epsilon, relu, out):
    """out = activation(gamma · x̂ + beta)."""
    for sample in range(batch):
        at = sample * channels * pixels
        if pixels == 1:
            normalise(x[at : at + channels], out[at : at + channels], mean, variance, epsilon, gamma, beta, relu)
            continue
        for channel in range(channels):
            _normalise_plane(
                x[at : at + pixels], out[at : at + pixels], mean[channel], sqrt(variance[channel] + epsilon),
                np.float64(gamma[channel]), np.float64(beta[channel]), relu,
            )  # fmt: skip
            at += pixels


@inner
def _plane_products(delta, x, mean, deviation):
    """(Σ delta, Σ delta · x̂), four sums side by side."""
    a = b = c = d = p = q = r = s = 0.0
    whole = x.shape[0] // 4 * 4
    for j in range(0, whole, 4):
        w0, w1 = np.float64(delta[j]), np.float64(delta[j + 1])
        w2, w3 = np.float64(delta[j + 2]), np.float64(delta[j + 3])
        a, b, c, d = a + w0, b + w1, c + w2, d + w3
        p += w0 * (np.float64(x[j]) - mean)
        q += w1 * (np.float64(x[j + 1]) - mean)
        r += w2 * (np.float64(x[j + 2]) - mean)
        s += w3 * (np.float64(x[j + 3]) - mean)
    for j in range(whole, x.shape[0]):
        w0 = np.float64(delta[j])
        a += w0
        p += w0 * (np.float64(x[j]) - mean)
    return (a + b) + (c + d), ((p + q) + (r + s)) / deviation


@inner
def _back_plane(delta, x, dx, mean, deviation, gamma, total, product, slope):
    """As norm.normalise_back, all of one channel; total and product are divided by the number of its values."""
    T = dx.dtype.type
    for j in range(x.shape[0]):
        value = gamma / deviation * (np.float64(delta[j]) - total - (np.float64(x[j]) - mean) / deviation * product)
        dx[j] = T(0) if slope and not x[j] > 0 else T(value)


@inner
def backward(batch, channels, pixels, delta, x, gamma, mean, variance, epsilon, slope, dx, dgamma, dbeta):
    """The gradients through `moments` and `apply`; takes scratch of two numbers a channel."""
    T = dx.dtype.type
    n = max(1, batch * pixels)
    sums, products = np.zeros(channels), np.zeros(channels)
    if pixels == 1:
        column_products(delta, x, channels, channels, batch, mean, variance, epsilon, sums, products)
        for at in range(0, batch * channels, max(1, channels)):
            row = slice(at, at + channels)
            normalise_back(delta[row], x[row], dx[row], mean, variance, epsilon, gamma, sums, products, n, slope)
    else:
        for channel in range(channels):
            deviation = sqrt(variance[channel] + epsilon)
            for sample in range(batch):
                at = (sample * channels + channel) * pixels
                row = slice(at, at + pixels)
                total, product = _plane_products(delta[row], x[row], mean[channel], deviation)
                sums[channel] += total
                products[channel] += product
            for sample in range(batch):
                at = (sample * channels + channel) * pixels
                row = slice(at, at + pixels)
                _back_plane(
                    delta[row], x[row], dx[row], mean[channel], deviation, np.float64(gamma[channel]),
                    sums[channel] / n, products[channel] / n, slope,
                )  # fmt: skip
    for channel in range(channels):
        dgamma[channel], dbeta[channel] = T(products[channel]), T(sums[channel])


# ---- dropout


@inner
def drop(x, p, seed, step, layer, out):
    """Dropout of all of x, as one row."""
    size = x.shape[0]
    dropout_rows(x, 0, out, 0, 1, size, 0, p, step_key(seed, step), layer)


@inner
def drop_back(delta, p, seed, step, layer, x, slope, dx):
    """The gradient by x, through the slope of what made it."""
    size = x.shape[0]
    dropout_rows_back(delta, x, 0, dx, 0, 1, size, 0, p, step_key(seed, step), layer, slope)
