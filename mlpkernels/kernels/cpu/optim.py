"""Optimiser steps over a slice of the flat parameters.

Loops run over slices from 0: over `range(a, b)` of a whole array they would not vectorise (31-57 µs against 6-10 for
50,000 parameters). No contraction is left to the compiler, so a thread's slice may start anywhere and give the same
bits.
"""

from math import sqrt

import numpy as np
from numba import njit

from ..plan import (
    ADAMW,
    BETA1,
    BETA2,
    EPSILON,
    EPSILON_HAT,
    MOMENTUM,
    NESTEROV,
    RULE,
    SGD,
)  # fmt: skip
from .arithmetic import multiply_add
from .jit import OPTIONS, inner

_LEAST_SINGLE, _LEAST_DOUBLE = (float(np.finfo(kind).smallest_normal) for kind in (np.float32, np.float64))


@inner
def _descend(params, grad, rate, decay):
    for i in range(params.shape[0]):
        params[i] -= rate * (grad[i] + decay * params[i])


@inner
def _descend_plain(params, grad, rate):
    for i in range(params.shape[0]):
        params[i] -= rate * grad[i]


@inner
def _descend_momentum(params, grad, velocity, rate, momentum, decay):
    for i in range(params.shape[0]):
        v = momentum * velocity[i] + (grad[i] + decay * params[i])
        velocity[i] = v
        params[i] -= rate * v


@inner
def _descend_nesterov(params, grad, velocity, rate, momentum, decay):
    for i in range(params.shape[0]):
        g = grad[i] + decay * params[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        params[i] -= rate * (g + momentum * v)


@inner
def sgd_update(params, grad, velocity, learning_rate, momentum, nesterov, weight_decay):
    """See reference.sgd_step; weight decay and momentum of 0 cost nothing."""
    T = params.dtype.type
    rate, decay = T(learning_rate), T(weight_decay)
    if momentum == 0:
        if weight_decay == 0:
            _descend_plain(params, grad, rate)
        else:
            _descend(params, grad, rate, decay)
    elif nesterov:
        _descend_nesterov(params, grad, velocity, rate, T(momentum), decay)
    else:
        _descend_momentum(params, grad, velocity, rate, T(momentum), decay)


@inner
def _adam(params, grad, m, v, keep, decay, beta1, rest1, beta2, rest2, rate, scale, epsilon):
    """Means that are subnormal become 0, that of the squares where the other is 0: it divides the other.

    That of a weight whose gradient has become 0, as of an input that is seldom lit, decays until it is subnormal and
    then stays: four of the least numbers times 0.9 are rounded to four. Division and square root are slow where a lane
    is subnormal: from the second epoch of MNIST on, at batch 128, updates took 35 µs for 20. Fused, the formula leaves
    the processor time for the comparisons while it divides.
    """
    T = params.dtype.type
    zero, least = T(0), T(_LEAST_SINGLE if params.itemsize == 4 else _LEAST_DOUBLE)
    for i in range(params.shape[0]):
        w = keep * params[i]
        g = multiply_add(decay, w, grad[i])
        mean = multiply_add(beta1, m[i], rest1 * g)
        square = multiply_add(beta2, v[i], rest2 * (g * g))
        mean = zero if abs(mean) < least else mean
        square = zero if (mean == zero) & (square < least) else square
        m[i] = mean
        v[i] = square
        params[i] = multiply_add(-rate, mean / multiply_add(T(sqrt(square)), scale, epsilon), w)


@inner
def rests(settings, step):
    """What a step's means lack of 1 in weights, (1 - β₁ᵗ, 1 - β₂ᵗ); by a rule without means (1, 1).

    Two powers, 50 ns: once a step, not for each block of parameters.
    """
    if settings[RULE] == SGD:
        return 1.0, 1.0
    return 1 - settings[BETA1] ** step, 1 - settings[BETA2] ** step


@inner
def adam_update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, step):
    """See reference.adam_step; means that are subnormal become 0, as `_adam` says."""
    rest = 1 - beta1**step, 1 - beta2**step
    _adam_update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, rest)


@inner
def _adam_update(params, grad, m, v, learning_rate, beta1, beta2, epsilon, weight_decay, decoupled, rest):
    T = params.dtype.type
    keep, decay = T(1), T(weight_decay)
    if decoupled:
        keep, decay = T(1 - learning_rate * weight_decay), T(0)
    rate = T(learning_rate / rest[0])
    scale = T(1 / sqrt(rest[1]))
    _adam(
        params,
        grad,
        m,
        v,
        keep,
        decay,
        T(beta1),
        T(1 - beta1),
        T(beta2),
        T(1 - beta2),
        rate,
        scale,
        T(epsilon),
    )


@inner
def update(optimizer, params, grad, start, learning_rate, decay, rest):
    """One optimiser step over the parameters from start on, as many as grad has; `rest` is the step's from `rests`."""
    settings = optimizer.settings
    stop = start + grad.shape[0]
    if settings[RULE] == SGD:
        velocity = optimizer.first
        if settings[MOMENTUM] != 0:
            velocity = velocity[start:stop]
        sgd_update(
            params[start:stop], grad, velocity, learning_rate, settings[MOMENTUM], settings[NESTEROV] != 0, decay
        )
    else:
        epsilon = settings[EPSILON]
        if settings[EPSILON_HAT] != 0:
            epsilon /= sqrt(rest[1])
        _adam_update(
            params[start:stop], grad, optimizer.first[start:stop], optimizer.second[start:stop], learning_rate,
            settings[BETA1], settings[BETA2], epsilon, decay, settings[RULE] == ADAMW, rest,
        )  # fmt: skip


@inner
def scale(grad, factor):
    """grad *= factor"""
    for i in range(grad.shape[0]):
        grad[i] *= factor


@njit(fastmath={"reassoc"}, **OPTIONS)
def sum_of_squares(grad):
    """Σ grad² in float64, in the order that the vectors of this processor give, the same in every call.

    The one sum whose order is left to the compiler: 5,632 numbers took 0.86 µs in four chains, so 0.17.
    """
    total = 0.0
    for i in range(grad.shape[0]):
        value = np.float64(grad[i])  # float() would keep float32
        total += value * value
    return total
