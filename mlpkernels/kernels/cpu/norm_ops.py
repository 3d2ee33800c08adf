"""The public ops of batch norms and dropout, called from Python or inlined inside @njit code: see ops.py.

batchnorm_backward takes scratch of 16 bytes a channel, inside @njit, too; nothing else allocates. An output may be the
array it is made of, element by element, where its docstring says so. One thread runs each op.
"""

from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

from ..plan import IDENTITY, RELU
from . import layer_arrays, steps
from .arguments import (
    Array,
    activation_code,
    apart,
    input_,
    integer,
    output,
    output_like,
    require,
    require_array,
    require_integers,
    require_numbers,
    same_or_apart,
    shaped,
)
from .jit import inner
from .simd import flat

# ---- batch normalisation


def _values(name: str, array: Array) -> tuple[int, int, int]:
    """(batch, channels, pixels) of an output (B, C) or (B, C, H, W)."""
    shape = output(name, array, None).shape
    if len(shape) not in (2, 4):
        raise ValueError(f"{name} must be (B, C) or (B, C, H, W), got shape {shape}")
    return shape[0], shape[1], (shape[2] * shape[3] if len(shape) == 4 else 1)


def _epsilon(epsilon: float) -> float:
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}")
    return float(epsilon)


def batchnorm_forward(
    x: Any, gamma: Any, beta: Any, epsilon: float, activation: int, mean: Array, variance: Array, out: Array
) -> None:  # fmt: skip
    """out = activation(gamma · x̂ + beta), x̂ = (x - mean) / sqrt(variance + epsilon) by this batch's own statistics.

    x (B, C) or (B, C, H, W), gamma, beta (C,) -> mean, variance (C,) float64: over all of a channel's values, the
    variance divided by their number, 0 where there are none; out as x, float32 or float64; all overwritten, out may be
    x itself. Ioffe & Szegedy 2015. Raises TypeError or ValueError naming the argument.
    """
    batch, channels, pixels = _values("out", out)
    for name, array in (("mean", mean), ("variance", variance)):
        output(name, array, 1, (np.float64,))
        shaped(name, array, (channels,), "the channels of out")
    x = input_("x", x, out.dtype, out.shape)
    gamma, beta = (input_(name, a, out.dtype, (channels,)) for name, a in (("gamma", gamma), ("beta", beta)))
    same_or_apart("out", out, x=x)
    apart("out", out, gamma=gamma, beta=beta, mean=mean, variance=variance)
    apart("mean", mean, x=x, gamma=gamma, beta=beta, variance=variance)
    apart("variance", variance, x=x, gamma=gamma, beta=beta)
    steps.get("norm_forward", out.dtype)(
        True, batch, channels, pixels, x.reshape(-1), gamma, beta, mean, variance, _epsilon(epsilon),
        activation_code(activation) == RELU, out.reshape(-1),
    )  # fmt: skip


def batchnorm_inference(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, activation: int, out: Array
) -> None:  # fmt: skip
    """out = activation(gamma · (x - mean) / sqrt(variance + epsilon) + beta).

    x (B, C) or (B, C, H, W), gamma, beta, mean, variance (C,) -> out as x, float32 or float64, overwritten; may be x
    itself. Raises TypeError or ValueError naming the argument.
    """
    batch, channels, pixels = _values("out", out)
    x = input_("x", x, out.dtype, out.shape)
    gamma, beta = (input_(name, a, out.dtype, (channels,)) for name, a in (("gamma", gamma), ("beta", beta)))
    mean, variance = (input_(name, a, float, (channels,)) for name, a in (("mean", mean), ("variance", variance)))
    same_or_apart("out", out, x=x)
    apart("out", out, gamma=gamma, beta=beta, mean=mean, variance=variance)
    steps.get("norm_forward", out.dtype)(
        False, batch, channels, pixels, x.reshape(-1), gamma, beta, mean, variance, _epsilon(epsilon),
        activation_code(activation) == RELU, out.reshape(-1),
    )  # fmt: skip


def batchnorm_backward(
    delta: Any, x: Any, gamma: Any, mean: Any, variance: Any, epsilon: float, activation: int, dx: Array,
    dgamma: Array, dbeta: Array,
) -> None:  # fmt: skip
    """The gradients through batchnorm_forward, whose mean and variance depend on x.

    delta (B, C) or (B, C, H, W): the loss's gradient by gamma · x̂ + beta; x as delta; gamma, mean, variance (C,)
    -> dx as x: by what the layer before computed, before its activation, which made x; dgamma, dbeta (C,); float32 or
    float64, all overwritten; dx may be delta itself. Raises TypeError or ValueError naming the argument.
    """
    batch, channels, pixels = _values("dx", dx)
    for name, array in (("dgamma", dgamma), ("dbeta", dbeta)):
        output_like(name, array, (channels,), dx.dtype, f"dx {dx.shape}")
    delta, x = input_("delta", delta, dx.dtype, dx.shape), input_("x", x, dx.dtype, dx.shape)
    gamma = input_("gamma", gamma, dx.dtype, (channels,))
    mean, variance = (input_(name, a, float, (channels,)) for name, a in (("mean", mean), ("variance", variance)))
    inputs = {"x": x, "gamma": gamma, "mean": mean, "variance": variance}
    same_or_apart("dx", dx, delta=delta)
    apart("dx", dx, **inputs, dgamma=dgamma, dbeta=dbeta)
    apart("dgamma", dgamma, **inputs, delta=delta, dbeta=dbeta)
    apart("dbeta", dbeta, **inputs, delta=delta)
    steps.get("norm_backward", dx.dtype)(
        batch, channels, pixels, delta.reshape(-1), x.reshape(-1), gamma, mean, variance, _epsilon(epsilon),
        activation_code(activation) == RELU, dx.reshape(-1), dgamma, dbeta,
    )  # fmt: skip


def _require_values(written: str, **arrays: Any) -> None:
    """Raise a typing error unless arrays are (B, C) or (B, C, H, W), all the same; gamma, beta and their like (C,)."""
    first = next(iter(arrays.values()))
    dimensions = getattr(first, "ndim", 0)
    if dimensions not in (2, 4):
        raise numba.TypingError(f"{next(iter(arrays))} must be (B, C) or (B, C, H, W), got {first}")
    channels = ("gamma", "beta", "dgamma", "dbeta")
    require(written, {name: 1 if name in channels else dimensions for name in arrays}, **arrays)


@inner
def _sizes(x):
    """(batch, channels, pixels)"""
    batch, channels = x.shape[0], x.shape[1]
    return batch, channels, x.size // max(1, batch * channels)


def _checked(op: str) -> Any:
    """A jitted function that raises an error naming op, unless sizes and settings agree."""
    sizes = f"{op}: gamma, mean, variance and their like must be (C,), as many as x (B, C, …) has channels"
    code = f"{op}: activation must be IDENTITY or RELU"
    positive = f"{op}: epsilon must be above 0"

    @inner
    def checked(channels, a, b, c, d, activation, epsilon):
        if a != channels or b != channels or c != channels or d != channels:
            raise ValueError(sizes)
        if activation != IDENTITY and activation != RELU:
            raise ValueError(code)
        if not epsilon > 0:
            raise ValueError(positive)

    return checked


_check_forward, _check_inference = _checked("batchnorm_forward"), _checked("batchnorm_inference")
_check_backward = _checked("batchnorm_backward")


@overload(batchnorm_forward)
def _compile_batchnorm_forward(x, gamma, beta, epsilon, activation, mean, variance, out):
    _require_values("out", x=x, gamma=gamma, beta=beta, out=out)
    require_array("mean", mean, 1, True, types.float64)
    require_array("variance", variance, 1, True, types.float64)
    require_numbers(epsilon=epsilon)
    require_integers(activation=activation)
    moments, apply = layer_arrays.moments, layer_arrays.apply

    def batchnorm_forward(x, gamma, beta, epsilon, activation, mean, variance, out):
        if x.shape != out.shape:
            raise ValueError("batchnorm_forward: x and out disagree on their shape")
        batch, channels, pixels = _sizes(x)
        _check_forward(
            channels, gamma.size, beta.size, mean.size, variance.size, np.int64(activation), np.float64(epsilon)
        )
        moments(batch, channels, pixels, flat(x), mean, variance)
        apply(
            batch, channels, pixels, flat(x), flat(gamma), flat(beta), mean, variance, np.float64(epsilon),
            activation == RELU, flat(out),
        )  # fmt: skip

    return batchnorm_forward


@overload(batchnorm_inference)
def _compile_batchnorm_inference(x, gamma, beta, mean, variance, epsilon, activation, out):
    _require_values("out", x=x, gamma=gamma, beta=beta, out=out)
    require_array("mean", mean, 1, False, types.float64)
    require_array("variance", variance, 1, False, types.float64)
    require_numbers(epsilon=epsilon)
    require_integers(activation=activation)
    apply = layer_arrays.apply

    def batchnorm_inference(x, gamma, beta, mean, variance, epsilon, activation, out):
        if x.shape != out.shape:
            raise ValueError("batchnorm_inference: x and out disagree on their shape")
        batch, channels, pixels = _sizes(x)
        _check_inference(
            channels, gamma.size, beta.size, mean.size, variance.size, np.int64(activation), np.float64(epsilon)
        )
        apply(
            batch, channels, pixels, flat(x), flat(gamma), flat(beta), flat(mean), flat(variance), np.float64(epsilon),
            activation == RELU, flat(out),
        )  # fmt: skip

    return batchnorm_inference


@overload(batchnorm_backward)
def _compile_batchnorm_backward(delta, x, gamma, mean, variance, epsilon, activation, dx, dgamma, dbeta):
    _require_values("dx dgamma dbeta", delta=delta, x=x, gamma=gamma, dx=dx, dgamma=dgamma, dbeta=dbeta)
    require_array("mean", mean, 1, False, types.float64)
    require_array("variance", variance, 1, False, types.float64)
    require_numbers(epsilon=epsilon)
    require_integers(activation=activation)
    backward = layer_arrays.backward

    def batchnorm_backward(delta, x, gamma, mean, variance, epsilon, activation, dx, dgamma, dbeta):
        if x.shape != delta.shape or x.shape != dx.shape:
            raise ValueError("batchnorm_backward: delta, x and dx disagree on their shape")
        batch, channels, pixels = _sizes(x)
        code, above = np.int64(activation), np.float64(epsilon)
        _check_backward(channels, gamma.size, mean.size, variance.size, dgamma.size, code, above)
        _check_backward(channels, dbeta.size, channels, channels, channels, code, above)
        backward(
            batch, channels, pixels, flat(delta), flat(x), flat(gamma), flat(mean), flat(variance), above,
            activation == RELU, flat(dx), dgamma, dbeta,
        )  # fmt: skip

    return batchnorm_backward


# ---- dropout


def _rate(p: float) -> float:
    if not 0 <= p < 1:
        raise ValueError(f"p must be at least 0 and below 1, got {p}")
    return float(p)


def dropout(x: Any, p: float, seed: int, step: int, layer: int, out: Array) -> None:
    """out = x / (1 - p) where an element is kept, with probability 1 - p, else 0.

    x (B, …) -> out as x, float32 or float64, overwritten; may be x itself. The mask depends on seed (below 2^53), step,
    layer and the element's index only. Srivastava et al. 2014. Raises TypeError or ValueError naming the argument.
    """
    output("out", out, None)
    x = input_("x", x, out.dtype, out.shape)
    same_or_apart("out", out, x=x)
    steps.get("drop", out.dtype)(
        x.reshape(-1), _rate(p), integer("seed", seed), integer("step", step), integer("layer", layer), out.reshape(-1)
    )


def dropout_backward(
    delta: Any, p: float, seed: int, step: int, layer: int, x: Any, activation: int, dx: Array
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation, which made x.

    delta: the loss's gradient by what dropout gave; x: what it took -> dx, float32 or float64, overwritten; may be
    delta itself. All of one shape. Raises TypeError or ValueError naming the argument.
    """
    output("dx", dx, None)
    delta, x = input_("delta", delta, dx.dtype, dx.shape), input_("x", x, dx.dtype, dx.shape)
    same_or_apart("dx", dx, delta=delta)
    apart("dx", dx, x=x)
    steps.get("drop_back", dx.dtype)(
        delta.reshape(-1), _rate(p), integer("seed", seed), integer("step", step), integer("layer", layer),
        x.reshape(-1), activation_code(activation) == RELU, dx.reshape(-1),
    )  # fmt: skip


def _checked_dropout(op: str) -> Any:
    """A jitted function that raises an error naming op, unless the settings are in range."""
    rate, key = f"{op}: p must be at least 0 and below 1", f"{op}: seed must be 0 … 2^53 - 1, step and layer at least 0"

    @inner
    def checked(p, seed, step, layer):
        if not (p >= 0 and p < 1):
            raise ValueError(rate)
        if seed < 0 or seed > 9007199254740991 or step < 0 or layer < 0:
            raise ValueError(key)

    return checked


_check_dropout, _check_dropout_backward = _checked_dropout("dropout"), _checked_dropout("dropout_backward")


def _require_any(written: str, **arrays: Any) -> None:
    """Raise a typing error unless arrays have one number of dimensions, at least one."""
    dimensions = max(1, getattr(next(iter(arrays.values())), "ndim", 1))
    require(written, dict.fromkeys(arrays, dimensions), **arrays)


@overload(dropout)
def _compile_dropout(x, p, seed, step, layer, out):
    _require_any("out", x=x, out=out)
    require_numbers(p=p)
    require_integers(seed=seed, step=step, layer=layer)
    drop = layer_arrays.drop

    def dropout(x, p, seed, step, layer, out):
        if x.shape != out.shape:
            raise ValueError("dropout: x and out disagree on their shape")
        rate, key, now, row = np.float64(p), np.int64(seed), np.int64(step), np.int64(layer)
        _check_dropout(rate, key, now, row)
        drop(flat(x), rate, key, now, row, flat(out))

    return dropout


@overload(dropout_backward)
def _compile_dropout_backward(delta, p, seed, step, layer, x, activation, dx):
    _require_any("dx", delta=delta, x=x, dx=dx)
    require_numbers(p=p)
    require_integers(seed=seed, step=step, layer=layer, activation=activation)
    drop_back = layer_arrays.drop_back

    def dropout_backward(delta, p, seed, step, layer, x, activation, dx):
        if x.shape != delta.shape or x.shape != dx.shape:
            raise ValueError("dropout_backward: delta, x and dx disagree on their shape")
        if activation != IDENTITY and activation != RELU:
            raise ValueError("dropout_backward: activation must be IDENTITY or RELU")
        rate, key, now, row = np.float64(p), np.int64(seed), np.int64(step), np.int64(layer)
        _check_dropout_backward(rate, key, now, row)
        drop_back(flat(delta), rate, key, now, row, flat(x), activation == RELU, flat(dx))

    return dropout_backward
