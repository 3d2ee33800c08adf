"""Device functions that the kernels share, and that users' own @cuda.jit code may call: see the README.

`scalar(dtype)` has those that need to know the dtype; a dtype's are made once.
"""

import math
from functools import cache
from types import SimpleNamespace

import numpy as np

from ..plan import LOGISTIC, RELU, TANH
from .driver import SIMULATED, cuda

# Python's own functions raise where floating-point arithmetic gives an infinity.
exp, log, log1p, tanh, sqrt = (
    (np.exp, np.log, np.log1p, np.tanh, np.sqrt)
    if SIMULATED
    else (math.exp, math.log, math.log1p, math.tanh, math.sqrt)
)


@cuda.jit(device=True)
def finite(value):
    """Whether a number is neither infinite nor NaN."""
    return value - value == 0


# ---- dropout's masks


@cuda.jit(device=True)
def _mixed(h):
    """MurmurHash3's finaliser of a uint32; products in 64 bits, where they cannot overflow."""
    h = np.uint32(h ^ np.uint32(h >> np.uint32(16)))
    h = np.uint32(np.uint64(h) * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF))
    h = np.uint32(h ^ np.uint32(h >> np.uint32(13)))
    h = np.uint32(np.uint64(h) * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF))
    return np.uint32(h ^ np.uint32(h >> np.uint32(16)))


@cuda.jit(device=True)
def dropout_keeps(element, low, high, limit):
    """Whether dropout keeps an element, given its index in the batch, a key's two halves and p · 2^32, all uint32."""
    h = _mixed(np.uint32(np.uint32(element) ^ low))
    return _mixed(np.uint32((np.uint64(h) + np.uint64(high)) & np.uint64(0xFFFFFFFF))) >= limit


def dropout_key(seed: int, step: int, layer: int) -> tuple[np.uint32, np.uint32]:
    """The two halves of the key of a mask: what `reference.dropout` makes of its three integers."""
    key = _splitmix(_splitmix(_splitmix(int(seed)) ^ int(step)) ^ int(layer))
    return np.uint32(key % 2**32), np.uint32(key >> 32)


def dropout_limit(p: float) -> np.uint32:
    """What the bits of an element are compared with."""
    return np.uint32(int(p * 2**32))


def _splitmix(z: int) -> int:
    """One output of SplitMix64 (Steele, Lea & Flood 2014)."""
    z = (z + 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


# ---- functions of one dtype


@cache
def scalar(dtype: str) -> SimpleNamespace:
    """activate(z, code), slope(gradient, output, code), sgd(...), adam(...) of "float32" or "float64"."""
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def activate(z, code):
        """The activation of z: of ReLU NaN stays and no zero is negative."""
        if code == RELU:
            if z > T(0) or z != z:
                return z
            return T(0)
        if code == TANH:
            return T(tanh(z))
        if code == LOGISTIC:
            if z >= T(0):
                return T(1) / (T(1) + T(exp(-z)))
            e = T(exp(z))
            return e / (T(1) + e)
        return z

    @cuda.jit(device=True)
    def slope(gradient, output, code):
        """gradient times the slope of the activation that made an output, read off the output itself."""
        if code == RELU:
            if output > T(0):
                return gradient
            return T(0)
        if code == TANH:
            return gradient * (T(1) - output * output)
        if code == LOGISTIC:
            return gradient * (output * (T(1) - output))
        return gradient

    @cuda.jit(device=True)
    def sgd(params, i, first, j, g, rate, momentum, nesterov, decay):
        """The step of params[i] with its velocity first[j]: see reference.sgd_step."""
        w = params[i]
        if decay != T(0):
            g = g + decay * w
        if momentum != T(0):
            v = momentum * first[j] + g
            first[j] = v
            g = g + momentum * v if nesterov else v
        params[i] = w - rate * g

    @cuda.jit(device=True)
    def adam(params, i, first, j, second, k, g, keep, decay, beta1, rest1, beta2, rest2, rate, scale, epsilon):
        """The step of params[i] with means first[j], second[k]: see reference.adam_step.

        keep is what decoupled decay leaves of a weight.
        """
        w = keep * params[i]
        if decay != T(0):
            g = g + decay * w
        m = beta1 * first[j] + rest1 * g
        v = beta2 * second[k] + rest2 * (g * g)
        first[j] = m
        second[k] = v
        params[i] = w - rate * m / (T(sqrt(v)) * scale + epsilon)

    return SimpleNamespace(activate=activate, slope=slope, sgd=sgd, adam=adam)
