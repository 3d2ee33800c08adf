"""The public op of a dense layer over bytes most of which are zero; see ops.py for how ops check and compile."""

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload

from ..plan import IDENTITY, LOGISTIC
from . import steps
from .arguments import (
    ACTIVATIONS,
    Array,
    activation_code,
    apart,
    input_,
    output,
    require,
    require_array,
    require_integers,
    require_numbers,
    shape_of,
)
from .sparse import WIDEST
from .sparse import product as _product


def sparse_dense_forward(
    pixels: Any, factor: float, offset: float, w: Any, b: Any, activation: int, out: Array
) -> None:  # fmt: skip
    """out = activation((factor · pixels + offset) @ w + b) for bytes of which most are zero.

    pixels (B, I) uint8, I up to 65,536, w (I, O), b (O,) -> out (B, O), float32 or float64, overwritten. A zero pixel
    skips its row of w, so that an infinite weight there may not count; what an offset adds to all pixels is added
    first. Without an offset the bits are those of dense_forward. Fastest where O is a multiple of 16: others are copied
    into such. activation is IDENTITY, RELU, TANH or LOGISTIC. Raises TypeError or ValueError naming the argument. Runs
    on one thread.
    """
    batch, outputs = output("out", out, 2).shape
    inputs = shape_of("pixels", pixels, 2)[1]
    given = np.asarray(pixels)
    if given.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, got {given.dtype}: dense_forward takes other numbers")
    if inputs > WIDEST:
        raise ValueError(f"pixels must have at most {WIDEST} columns, got {inputs}: dense_forward takes more")
    pixels = input_("pixels", given, np.uint8, (batch, inputs))
    w = input_("w", w, out.dtype, (inputs, outputs))
    b = input_("b", b, out.dtype, (outputs,))
    apart("out", out, pixels=pixels, w=w, b=b)
    T = out.dtype.type
    code = activation_code(activation, ACTIVATIONS)
    factor, offset = T(_finite("factor", factor)), T(_finite("offset", offset))
    steps.get("sparse_product", out.dtype)(pixels, factor, offset, w, b, code, out)


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


@overload(sparse_dense_forward)
def _compile_sparse_dense_forward(pixels, factor, offset, w, b, activation, out):
    require_array("pixels", pixels, 2, False, types.uint8)
    require("out", {"w": 2, "b": 1, "out": 2}, w=w, b=b, out=out)
    require_numbers(factor=factor, offset=offset)
    require_integers(activation=activation)

    def sparse_dense_forward(pixels, factor, offset, w, b, activation, out):
        if pixels.shape[1] != w.shape[0]:
            raise ValueError("sparse_dense_forward: pixels (B, I) and w (I, O) disagree on I")
        if w.shape[1] != b.shape[0] or w.shape[1] != out.shape[1]:
            raise ValueError("sparse_dense_forward: w (I, O), b (O,) and out (B, O) disagree on O")
        if pixels.shape[0] != out.shape[0]:
            raise ValueError("sparse_dense_forward: pixels (B, I) and out (B, O) disagree on B")
        if pixels.shape[1] > WIDEST:
            raise ValueError("sparse_dense_forward: pixels must have at most 65,536 columns")
        if activation < IDENTITY or activation > LOGISTIC:
            raise ValueError("sparse_dense_forward: activation must be IDENTITY, RELU, TANH or LOGISTIC")
        if not np.isfinite(factor) or not np.isfinite(offset):
            raise ValueError("sparse_dense_forward: factor and offset must be finite")
        T = out.dtype.type
        _product(pixels, T(factor), T(offset), w, b, np.int64(activation), out)

    return sparse_dense_forward
