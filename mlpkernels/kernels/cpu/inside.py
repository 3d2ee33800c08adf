"""`predict_one` and `predict_rows`, inside the reader's own @njit functions and from Python."""

from typing import Any

import numpy as np
from numba import TypingError
from numba.extending import overload

from . import single
from .arguments import Array, output, require_array, require_real
from .inside_types import NetworkType, block_of
from .jit import OPTIONS
from .simd import pointer_to
from .value import ROW_DTYPES, CompiledNetwork

# ---- from Python


def predict_one(net: CompiledNetwork, x: Any, scratch: Array, out: Array) -> None:
    """The last layer's outputs for one sample, into out; nothing is allocated. For @njit functions, and for Python.

    net: what `Network.compiled()` gives. x (D,): raw inputs, which are scaled as the network's scaling says, of any
    real dtype and any stride; or C-contiguous of any other shape, an image's. A value that is not finite is computed
    with. scratch: `net.scratch()`, one a thread. out (K,), of the network's dtype: what `predict_logits` returns.

    Wrong types, inside compiled code float16 among them, which Numba does not compute with, are a numba.TypingError
    where an @njit function is compiled and a TypeError in Python, wrong lengths a ValueError.
    """
    _require_network(net)
    if output("out", out, 1).size != net.outputs:
        raise ValueError(f"out must have {net.outputs} outputs, got shape {out.shape}")
    _predict(net, np.reshape(np.asanyarray(x), (1, -1)), scratch, out.reshape(1, -1))


def predict_rows(net: CompiledNetwork, x: Any, scratch: Array, out: Array) -> None:
    """`predict_one` of each row of x (N, D), of any real dtype and any strides, into out (N, K)."""
    _require_network(net)
    if np.ndim(x) != 2:
        raise ValueError(f"x must have 2 dimensions, got shape {np.shape(x)}")
    _predict(net, np.asanyarray(x), scratch, output("out", out, 2))


def _require_network(net: Any) -> None:
    if not isinstance(net, CompiledNetwork):
        raise TypeError(f"net must be what Network.compiled() gives, got {type(net).__name__}")


def _predict(net: CompiledNetwork, x: np.ndarray, scratch: Array, out: Array) -> None:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("x must be a plain array, got a masked one: fill or leave out what is masked")
    if x.dtype.kind not in "buif":
        raise TypeError(f"x must hold real numbers, got {x.dtype}")
    if x.shape[1] != net.inputs:
        raise ValueError(f"x must have {net.inputs} inputs, got {x.shape[1]}")
    for name, array in (("scratch", output("scratch", scratch, 1)), ("out", out)):
        if array.dtype != net.dtype:
            raise TypeError(f"{name} must be {net.dtype}, as the network is, got {array.dtype}")
    if scratch.size < net.scratch_size:
        raise ValueError(f"scratch must have {net.scratch_size} elements, got {scratch.size}: see net.scratch()")
    if out.shape != (len(x), net.outputs):
        raise ValueError(f"out must have {net.outputs} outputs for each row of x, got shape {out.shape}")
    if x.dtype not in ROW_DTYPES:
        x = x.astype(np.uint8 if x.dtype.kind == "b" else np.float64)
    net.rows(np.require(x, None, ("C", "A", "W")), scratch, out, False)


# ---- in compiled code


def _require(net: Any, x: Any, scratch: Any, out: Any, dimensions: int) -> None:
    """Raise a typing error that names what does not fit; of x its shape is left to the caller."""
    if not isinstance(net, NetworkType):
        raise TypingError(f"net must be what Network.compiled() gives, got {net}")
    require_real("x", x)
    require_array("scratch", scratch, 1, True, net.dtype)
    require_array("out", out, dimensions, True, net.dtype)


def _vector(x):
    """x as a vector."""


@overload(_vector, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_vector(x):
    return (lambda x: x) if x.ndim == 1 else (lambda x: x.reshape(x.size))


@overload(predict_one, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_predict_one(net, x, scratch, out):
    _require(net, x, scratch, out, 1)
    if x.ndim == 0 or (x.ndim > 1 and x.layout != "C"):
        raise TypingError(f"x must be a vector, or C-contiguous of more dimensions, got {x}")
    predict = single.predict

    def predict_one(net, x, scratch, out):
        if x.size != net.inputs:
            raise ValueError("predict_one: x has not as many elements as the network has inputs")
        if out.size != net.outputs:
            raise ValueError("predict_one: out has not as many elements as the network has outputs")
        if scratch.size < net.scratch_size:
            raise ValueError("predict_one: scratch is too short, see CompiledNetwork.scratch")
        predict(block_of(net), _vector(x), pointer_to(scratch, 0), pointer_to(out, 0))

    return predict_one


@overload(predict_rows, jit_options=OPTIONS)  # type: ignore[arg-type]
def _compile_predict_rows(net, x, scratch, out):
    _require(net, x, scratch, out, 2)
    if x.ndim != 2:
        raise TypingError(f"x must have 2 dimensions, got {x}")
    predict = single.predict

    def predict_rows(net, x, scratch, out):
        if x.shape[1] != net.inputs:
            raise ValueError("predict_rows: x (N, D) has not as many columns as the network has inputs")
        if out.shape[0] != x.shape[0] or out.shape[1] != net.outputs:
            raise ValueError("predict_rows: out is not (N, K), a row for each of x, a column for each output")
        if scratch.size < net.scratch_size:
            raise ValueError("predict_rows: scratch is too short, see CompiledNetwork.scratch")
        for i in range(x.shape[0]):
            predict(block_of(net), x[i], pointer_to(scratch, 0), pointer_to(out, i * out.shape[1]))

    return predict_rows
