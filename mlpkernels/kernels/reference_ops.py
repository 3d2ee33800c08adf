"""Every op in plain NumPy, for any floating dtype: the definition of correct.

B batch, I inputs, O outputs or output channels, K classes; C channels, H height, W width, H' and W' behind the op.
`activation` is IDENTITY or RELU, of flat layers TANH or LOGISTIC too; the compiled ops take these in the dense ones.
Pairs are (height, width). Every backward op by an input multiplies by the slope of the activation that made that
input, read off the input itself: ReLU's is x > 0, tanh's 1 - x², the logistic function's x · (1 - x).
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .plan import LOGISTIC, RELU, TANH

Array = np.ndarray
Pair = tuple[int, int]
Rows = tuple[Array, Array]  # weight · loss of each row float64, whether it is right int64


def _activate(out: Array, activation: int) -> None:
    if activation == RELU:
        np.maximum(out, 0, out=out)
    elif activation == TANH:
        np.tanh(out, out=out)
    elif activation == LOGISTIC:
        logistic(out, out)


def _slope(dx: Array, x: Array, activation: int) -> None:
    if activation == RELU:
        dx[...] = np.where(x > 0, dx, 0)
    elif activation == TANH:
        dx *= 1 - x * x
    elif activation == LOGISTIC:
        dx *= x * (1 - x)


def logistic(z: Array, out: Array) -> None:
    """out = 1 / (1 + exp(-z)) of each element. z of any shape -> out, overwritten; may be the same array."""
    small = np.exp(-np.abs(z))
    out[...] = np.where(z >= 0, 1, small) / (1 + small)


# ---- dense


def dense_forward(x: Array, w: Array, b: Array, activation: int, out: Array) -> None:
    """out = activation(x @ w + b).

    x (B, I), w (I, O), b (O,) -> out (B, O), overwritten.
    """
    out[...] = x @ w + b
    _activate(out, activation)


def dense_backward_params(x: Array, delta: Array, dw: Array, db: Array) -> None:
    """dw = x.T @ delta, db = delta summed over the batch.

    x (B, I), delta (B, O): the loss's gradient by x @ w + b -> dw (I, O), db (O,), overwritten.
    """
    dw[...] = x.T @ delta
    db[...] = delta.sum(axis=0)


def dense_backward_input(delta: Array, w: Array, x: Array, activation: int, dx: Array) -> None:
    """dx = (delta @ w.T) * slope, the slope of the activation that made x, read off x itself.

    delta (B, O), w (I, O), x (B, I) -> dx (B, I), overwritten: the gradient by the layer before's x @ w + b.
    """
    dx[...] = delta @ w.T
    _slope(dx, x, activation)


def sparse_dense_forward(
    pixels: Array, factor: float, offset: float, w: Array, b: Array, activation: int, out: Array
) -> None:  # fmt: skip
    """out = activation((factor · pixels + offset) @ w + b) for bytes of which most are zero.

    pixels (B, I) uint8, w (I, O), b (O,) -> out (B, O), overwritten. A pixel that is zero in every row skips its row of
    w; what the offset adds to all is added apart.
    """
    T = out.dtype.type
    lit = (pixels != 0).any(axis=0)
    out[...] = pixels[:, lit].astype(out.dtype) * T(factor) @ w[lit] + b
    if offset:
        out += T(offset) * w.sum(axis=0)
    _activate(out, activation)


# ---- convolution


def _pad(x: Array, padding: Pair, value: float = 0.0) -> Array:
    """Images x (B, C, H, W) within a border of `padding` rows above and below, columns left and right."""
    (high, wide) = padding
    return np.pad(x, ((0, 0), (0, 0), (high, high), (wide, wide)), constant_values=value)


def _taps(kernel: Pair, stride: Pair, size: Pair) -> Iterator[tuple[int, int, tuple[Any, ...]]]:
    """Each place i, j of a kernel with the part of a padded image that it meets while the kernel moves.

    size (H', W'): the kernel's steps down and across.
    """
    for i, j in np.ndindex(*kernel):
        down = slice(i, i + stride[0] * (size[0] - 1) + 1, stride[0])
        across = slice(j, j + stride[1] * (size[1] - 1) + 1, stride[1])
        yield i, j, (slice(None), slice(None), down, across)


def conv2d_forward(
    x: Array, w: Array, b: Array, activation: int, stride: Pair, padding: Pair, out: Array
) -> None:  # fmt: skip
    """out = activation(conv(x, w) + b), the cross-correlation that torch.nn.functional.conv2d computes.

    x (B, C, H, W), w (O, C, kh, kw), b (O,) -> out (B, O, H', W'), overwritten;
    H' = (H + 2 · padding - kh) // stride + 1, W' likewise.
    """
    padded = _pad(x, padding)
    out[...] = b[:, None, None]
    for i, j, part in _taps(w.shape[2:], stride, out.shape[2:]):
        out += np.einsum("bchw,oc->bohw", padded[part], w[:, :, i, j])
    _activate(out, activation)


def conv2d_backward_params(x: Array, delta: Array, stride: Pair, padding: Pair, dw: Array, db: Array) -> None:
    """The gradients by weights and biases.

    x (B, C, H, W), delta (B, O, H', W'): the loss's gradient by conv(x, w) + b -> dw (O, C, kh, kw), db (O,),
    overwritten.
    """
    padded = _pad(x, padding)
    for i, j, part in _taps(dw.shape[2:], stride, delta.shape[2:]):
        dw[:, :, i, j] = np.einsum("bohw,bchw->oc", delta, padded[part])
    db[...] = delta.sum(axis=(0, 2, 3))


def conv2d_backward_input(
    delta: Array, w: Array, x: Array, activation: int, stride: Pair, padding: Pair, dx: Array
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation.

    delta (B, O, H', W'), w (O, C, kh, kw), x (B, C, H, W) -> dx (B, C, H, W), overwritten.
    """
    padded = np.zeros_like(_pad(x, padding))
    for i, j, part in _taps(w.shape[2:], stride, delta.shape[2:]):
        padded[part] += np.einsum("bohw,oc->bchw", delta, w[:, :, i, j])
    dx[...] = padded[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]]
    _slope(dx, x, activation)


# ---- maximum pooling


def maxpool2d_forward(x: Array, kernel: Pair, stride: Pair, padding: Pair, out: Array, places: Array) -> None:
    """out = the maximum of every window, places = where in its image it is; padding never is one.

    x (B, C, H, W) -> out (B, C, H', W'), places (B, C, H', W') int32, flat indices into H · W, both overwritten. As in
    torch.nn.functional.max_pool2d the first of equal maxima counts, and a NaN, the last of several, before all.
    """
    padded = _pad(x, padding, -np.inf)
    height, width = x.shape[2:]
    down = np.arange(out.shape[2])[:, None] * stride[0] - padding[0]  # where each window begins
    across = np.arange(out.shape[3]) * stride[1] - padding[1]
    out[...] = -np.inf
    places[...] = np.maximum(down, 0) * width + np.maximum(across, 0)
    for i, j, part in _taps(kernel, stride, out.shape[2:]):
        value = padded[part]
        row, column = down + i, across + j
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        better = inside & ((value > out) | np.isnan(value))
        out[...] = np.where(better, value, out)
        places[...] = np.where(better, row * width + column, places)


def maxpool2d_backward(delta: Array, places: Array, x: Array, activation: int, dx: Array) -> None:
    """The gradient by what the layer before computed: every window's goes to its maximum.

    delta, places (B, C, H', W'), x (B, C, H, W) -> dx (B, C, H, W), overwritten; summed where windows share it.
    """
    planes = np.zeros((x.shape[0] * x.shape[1], x.shape[2] * x.shape[3]), dx.dtype)
    windows = (len(planes), delta.shape[2] * delta.shape[3])
    np.add.at(planes, (np.arange(len(planes))[:, None], places.reshape(windows)), delta.reshape(windows))
    dx[...] = planes.reshape(x.shape)
    _slope(dx, x, activation)


# ---- batch normalisation


def _channels(values: Array, x: Array) -> Array:
    """values (C,) beside x (B, C) or (B, C, H, W), in float64 at least."""
    return _wide(values).reshape(-1, *(1,) * (x.ndim - 2))


def _wide(x: Array) -> Array:
    return x.astype(np.promote_types(x.dtype, np.float64))


def _all_but_channels(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def batchnorm_forward(
    x: Array, gamma: Array, beta: Array, epsilon: float, activation: int, mean: Array, variance: Array, out: Array
) -> None:  # fmt: skip
    """out = activation(gamma · x̂ + beta), x̂ = (x - mean) / sqrt(variance + epsilon) by this batch's own statistics.

    x (B, C) or (B, C, H, W), gamma, beta (C,) -> mean, variance (C,) float64: over all of a channel's values, the
    variance divided by their number; out as x. All overwritten. Ioffe & Szegedy 2015.
    """
    wide, axes = _wide(x), _all_but_channels(x)
    mean[...] = wide.mean(axis=axes)
    variance[...] = ((wide - _channels(mean, x)) ** 2).mean(axis=axes)
    batchnorm_inference(x, gamma, beta, mean, variance, epsilon, activation, out)


def batchnorm_inference(
    x: Array, gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float, activation: int, out: Array
) -> None:  # fmt: skip
    """out = activation(gamma · (x - mean) / sqrt(variance + epsilon) + beta).

    x (B, C) or (B, C, H, W), gamma, beta, mean, variance (C,) -> out as x, overwritten.
    """
    out[...] = _normal(x, mean, variance, epsilon) * _channels(gamma, x) + _channels(beta, x)
    _activate(out, activation)


def _normal(x: Array, mean: Array, variance: Array, epsilon: float) -> Array:
    """x̂, in float64."""
    return (_wide(x) - _channels(mean, x)) / np.sqrt(_channels(variance, x) + epsilon)


def batchnorm_backward(
    delta: Array, x: Array, gamma: Array, mean: Array, variance: Array, epsilon: float, activation: int, dx: Array,
    dgamma: Array, dbeta: Array,
) -> None:  # fmt: skip
    """The gradients through batchnorm_forward, whose mean and variance depend on x.

    delta (B, C) or (B, C, H, W): the loss's gradient by gamma · x̂ + beta; x as delta; gamma, mean, variance (C,)
    -> dx as x: by what the layer before computed, before its activation; dgamma, dbeta (C,). All overwritten.
    """
    axes, wide, normal = _all_but_channels(x), _wide(delta), _normal(x, mean, variance, epsilon)
    sums, products = wide.sum(axis=axes), (wide * normal).sum(axis=axes)
    count = x.size // max(x.shape[1], 1)
    centred = wide - (_channels(sums, x) + normal * _channels(products, x)) / max(count, 1)
    dx[...] = centred * _channels(gamma, x) / np.sqrt(_channels(variance, x) + epsilon)
    dgamma[...], dbeta[...] = products, sums
    _slope(dx, x, activation)


# ---- dropout


def _splitmix(z: int) -> int:
    """One output of SplitMix64 (Steele, Lea & Flood 2014), in 64 bits."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def _fmix(h: Array) -> Array:
    """MurmurHash3's finaliser of uint32 values."""
    h = (h ^ h >> 16) * np.uint32(0x85EBCA6B)
    h = (h ^ h >> 13) * np.uint32(0xC2B2AE35)
    return h ^ h >> 16


def _kept(shape: tuple[int, ...], p: float, seed: int, step: int, layer: int) -> Array:
    """Which elements dropout keeps: a function of the seed, the step, the layer and the element's index alone."""
    key = _splitmix(_splitmix(_splitmix(int(seed)) ^ int(step)) ^ int(layer))
    element = np.arange(math.prod(shape)).astype(np.uint32)  # of 2^32 and more the lower bits
    bits = _fmix(_fmix(element ^ np.uint32(key % 2**32)) + np.uint32(key >> 32))
    return (bits >= np.uint32(int(p * 2**32))).reshape(shape)


def dropout(x: Array, p: float, seed: int, step: int, layer: int, out: Array) -> None:
    """out = x / (1 - p) where an element is kept, with probability 1 - p, else 0.

    x (B, …) -> out as x, overwritten. The mask depends on seed (below 2^53), step, layer and the element's index only.
    Srivastava et al. 2014.
    """
    out[...] = np.where(_kept(x.shape, p, seed, step, layer), x * x.dtype.type(1 / (1 - p)), 0)


def dropout_backward(
    delta: Array, p: float, seed: int, step: int, layer: int, x: Array, activation: int, dx: Array
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation.

    delta: the loss's gradient by what dropout gave; x: what it took -> dx, overwritten. All of one shape.
    """
    dropout(delta, p, seed, step, layer, dx)
    _slope(dx, x, activation)


# ---- loss


def softmax_cross_entropy(
    logits: Array, labels: Array, weights: Array, divisor: float, dlogits: Array
) -> tuple[float, int]:
    """Loss, gradient and correct count of softmax cross-entropy in one pass.

    logits (B, K), labels (B,) int32, weights (B,) -> dlogits (B, K) = weight · (softmax - onehot) / divisor,
    overwritten; returns (Σ weight · loss as float64, rows whose first largest logit is the label's).
    """
    return _sums(row_losses(logits, labels, weights, divisor, dlogits))


def row_losses(logits: Array, labels: Array, weights: Array, divisor: float, dlogits: Array) -> Rows:
    """softmax_cross_entropy with (weight · loss of each row float64, whether it is right int64) for its sums."""
    rows = np.arange(len(logits))
    if len(logits) == 0:
        return np.zeros(0), np.zeros(0, np.int64)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        shifted = logits - logits.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        total = exps.sum(axis=1, keepdims=True)
        losses = weights * (np.log(total[:, 0]) - shifted[rows, labels])
        probability = exps / total
        probability[rows, labels] -= 1
        dlogits[...] = probability * (weights / logits.dtype.type(divisor))[:, None]
    correct = (logits.argmax(axis=1) == labels) & ~np.isnan(logits).any(axis=1)
    return losses.astype(np.float64), correct.astype(np.int64)


def binary_cross_entropy(
    logits: Array, targets: Array, weights: Array, divisor: float, dlogits: Array
) -> tuple[float, int]:
    """Loss, gradient and correct count of K outputs that each say yes or no: the logistic function's cross-entropy.

    logits (B, K), targets (B, K) from 0 to 1, weights (B,) -> dlogits (B, K) = weight · (logistic(z) - target) /
    divisor, overwritten; returns (Σ weight · loss, the loss summed over a row's outputs, float64; rows whose outputs
    are all on their target's side: z > 0 where the target is above 1/2).
    """
    return _sums(binary_row_losses(logits, targets, weights, divisor, dlogits))


def binary_row_losses(logits: Array, targets: Array, weights: Array, divisor: float, dlogits: Array) -> Rows:
    """binary_cross_entropy with (weight · loss of each row float64, whether it is right int64) for its sums."""
    with np.errstate(invalid="ignore", over="ignore"):
        losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
        right = ((logits > 0) == (targets > 0.5)).all(axis=1) & ~np.isnan(logits).any(axis=1)
        probability = np.empty_like(logits)
        logistic(logits, probability)
        return _weighted(losses, probability - targets, weights, divisor, dlogits), right.astype(np.int64)


def squared_error(outputs: Array, targets: Array, weights: Array, divisor: float, doutputs: Array) -> float:
    """Half the squared error, summed over a row's outputs, and its gradient.

    outputs, targets (B, K), weights (B,) -> doutputs (B, K) = weight · (output - target) / divisor, overwritten;
    returns Σ weight · loss as float64.
    """
    return _sums(squared_row_losses(outputs, targets, weights, divisor, doutputs))[0]


def squared_row_losses(outputs: Array, targets: Array, weights: Array, divisor: float, doutputs: Array) -> Rows:
    """squared_error with (weight · loss of each row float64, zeros int64) for its sum."""
    with np.errstate(invalid="ignore", over="ignore"):
        error = outputs - targets
        losses = error * error / 2
        return _weighted(losses, error, weights, divisor, doutputs), np.zeros(len(outputs), np.int64)


def poisson_loss(outputs: Array, targets: Array, weights: Array, divisor: float, doutputs: Array) -> float:
    """Half the Poisson deviance of exp(output), summed over a row's outputs, and its gradient.

    outputs (B, K), the logarithms of what is predicted, targets (B, K) from 0, weights (B,) -> doutputs (B, K) =
    weight · (exp(output) - target) / divisor, overwritten; returns Σ weight · loss, the loss being exp(z) - y · z +
    y · log(y) - y, as float64.
    """
    return _sums(poisson_row_losses(outputs, targets, weights, divisor, doutputs))[0]


def poisson_row_losses(outputs: Array, targets: Array, weights: Array, divisor: float, doutputs: Array) -> Rows:
    """poisson_loss with (weight · loss of each row float64, zeros int64) for its sum."""
    with np.errstate(invalid="ignore", over="ignore"):
        rates = np.exp(outputs)
        least = targets * np.log(np.where(targets > 0, targets, 1)) - targets  # what a perfect prediction would cost
        losses = rates - targets * outputs + least
        return _weighted(losses, rates - targets, weights, divisor, doutputs), np.zeros(len(outputs), np.int64)


def _weighted(losses: Array, gradient: Array, weights: Array, divisor: float, out: Array) -> Array:
    """Each row's weight · Σ losses, and out = weight · gradient / divisor."""
    out[...] = gradient * (weights / out.dtype.type(divisor))[:, None]
    return (weights * losses.sum(axis=1)).astype(np.float64)


def _sums(rows: Rows) -> tuple[float, int]:
    return float(rows[0].sum()), int(rows[1].sum())


def softmax(logits: Array, out: Array) -> None:
    """out = softmax of each row. logits (B, K) -> out (B, K), overwritten; may be the same array."""
    if logits.size:
        exps = np.exp(logits - logits.max(axis=1, keepdims=True))
        out[...] = exps / exps.sum(axis=1, keepdims=True)


def log_softmax(logits: Array, out: Array) -> None:
    """out = logarithm of the softmax of each row. logits (B, K) -> out (B, K), overwritten."""
    if logits.size:
        shifted = logits - logits.max(axis=1, keepdims=True)
        out[...] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


# ---- optimisers


def sgd_step(
    params: Array, grad: Array, velocity: Array, learning_rate: float, momentum: float, nesterov: bool,
    weight_decay: float,
) -> None:  # fmt: skip
    """One step of stochastic gradient descent, as torch.optim.SGD.

    params, grad (P,), velocity (P,) or (0,) without momentum. g = grad + weight_decay · params;
    v = momentum · v + g; params -= learning_rate · v, with Nesterov learning_rate · (g + momentum · v).
    Sutskever et al. 2013. params and velocity change in place.
    """
    T = params.dtype.type
    g = grad + T(weight_decay) * params if weight_decay else grad
    if momentum:
        velocity[...] = T(momentum) * velocity + g
        g = g + T(momentum) * velocity if nesterov else velocity
    params -= T(learning_rate) * g


def adam_step(
    params: Array, grad: Array, m: Array, v: Array, learning_rate: float, beta1: float, beta2: float,
    epsilon: float, weight_decay: float, decoupled: bool, step: int,
) -> None:  # fmt: skip
    """One step of Adam (Kingma & Ba 2015) or, decoupled, AdamW (Loshchilov & Hutter 2019), as torch.optim.

    params, grad, m, v (P,); step counts from 1. params, m and v change in place.
    """
    T = params.dtype.type
    if decoupled:
        params *= T(1 - learning_rate * weight_decay)
        g = grad
    else:
        g = grad + T(weight_decay) * params if weight_decay else grad
    m[...] = T(beta1) * m + T(1 - beta1) * g
    v[...] = T(beta2) * v + T(1 - beta2) * (g * g)
    rate = T(learning_rate / (1 - beta1**step))
    params -= rate * m / (np.sqrt(v) * T(1 / np.sqrt(1 - beta2**step)) + T(epsilon))
