"""The public ops of dense layers and optimisers, on arrays of the host or of the GPU.

An array on the host is copied to the GPU and, where it is written, back; one on the GPU, by __cuda_array_interface__
or DLPack, is used where it lies. Work is ordered by `stream`, by default CUDA's own default stream, on which what
another library is still computing must be too; a call with an output on the host waits for it.
"""

from typing import Any

import numpy as np

from . import driver
from .arguments import (
    activation_code,
    apart,
    input_,
    output,
    output_like,
    shape_of,
)
from .arrays import View, finish, nothing, on_device, room
from .driver import stream_of
from .op_kernels import blocks_of, kernels, product_kernel
from .product import BIAS, DENSE, SLOPE, STORE, tile_for
from .sums import GROUP, THREADS

# ---- dense


def _multiply(
    a: View, a_row: int, a_k: int, b: View, b_column: int, b_k: int, c: View, k: int, epilogue: int, code: int,
    aux: View | None, stream: Any,
) -> None:  # fmt: skip
    """c = epilogue(a @ b), of contiguous matrices."""
    (m, n), dtype = c.shape, c.dtype.name
    if m and n:
        tile = tile_for(dtype, DENSE, m, n)
        blocks = -(-m // tile.rows) * -(-n // tile.columns)
        driver.launch(
            product_kernel(dtype, tile, DENSE), blocks, tile.threads, stream, a.flat(stream), a_row, a_k,
            b.flat(stream), b_column, b_k, c.flat(stream, read=False), n, m, n, k, epilogue, code,
            nothing(dtype) if aux is None else aux.flat(stream), n, nothing("int64"),
        )  # fmt: skip


def dense_forward(x: Any, w: Any, b: Any, activation: int, out: Any, stream: Any = None) -> None:
    """out = activation(x @ w + b).

    x (B, I), w (I, O), b (O,) -> out (B, O), float32 or float64, overwritten. activation: IDENTITY, RELU, TANH or
    LOGISTIC. Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, 2)
    batch, outputs = out.shape
    inputs = shape_of("x", x, 2)[1]
    x = input_("x", x, out.dtype, (batch, inputs))
    w = input_("w", w, out.dtype, (inputs, outputs))
    b = input_("b", b, out.dtype, (outputs,))
    apart("out", out, x=x, w=w, b=b)
    code, stream = activation_code(activation), stream_of(stream)
    _multiply(x, inputs, 1, w, 1, outputs, out, inputs, BIAS, code, b, stream)
    finish(stream, out)


def sparse_dense_forward(
    pixels: Any, factor: float, offset: float, w: Any, b: Any, activation: int, out: Any, stream: Any = None
) -> None:  # fmt: skip
    """out = activation((factor · pixels + offset) @ w + b) for bytes of which most are zero.

    pixels (B, I) uint8, w (I, O), b (O,) -> out (B, O), float32 or float64, overwritten. Zeros are multiplied like all
    else here, so that an infinite weight counts: a GPU gains nothing by leaving them out. activation: IDENTITY, RELU,
    TANH or LOGISTIC. Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, 2)
    batch, outputs = out.shape
    inputs = shape_of("pixels", pixels, 2)[1]
    kind = getattr(pixels, "dtype", None) if on_device(pixels) else np.asarray(pixels).dtype
    if kind is not None and kind != np.uint8:
        raise TypeError(f"pixels must be uint8, got {kind}: dense_forward takes other numbers")
    pixels = input_("pixels", pixels, np.uint8, (batch, inputs))
    w = input_("w", w, out.dtype, (inputs, outputs))
    b = input_("b", b, out.dtype, (outputs,))
    apart("out", out, pixels=pixels, w=w, b=b)
    code, stream, T = activation_code(activation), stream_of(stream), out.dtype.type
    factor, offset = T(_finite("factor", factor)), T(_finite("offset", offset))
    x = View("x", None, pixels.shape, out.dtype, True)
    x.lies(room(max(1, pixels.size), out.dtype, stream))
    if pixels.size:
        driver.launch(
            kernels(out.dtype.name).scaled, blocks_of(pixels.size), THREADS, stream, pixels.flat(stream), factor,
            offset, x.flat(stream), pixels.size,
        )  # fmt: skip
    _multiply(x, inputs, 1, w, 1, outputs, out, inputs, BIAS, code, b, stream)
    finish(stream, out)


def _finite(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number, got {value!r}") from None
    if not np.isfinite(number):
        raise ValueError(f"{name} must be finite, got {value!r}")
    return number


def dense_backward_params(x: Any, delta: Any, dw: Any, db: Any, stream: Any = None) -> None:
    """dw = x.T @ delta, db = delta summed over the batch.

    x (B, I), delta (B, O): the loss's gradient by x @ w + b -> dw (I, O), db (O,), float32 or float64, overwritten.
    Raises TypeError or ValueError naming the argument.
    """
    dw = output("dw", dw, 2)
    inputs, outputs = dw.shape
    db = output_like("db", db, (outputs,), dw.dtype, f"dw {dw.shape}")
    batch = shape_of("x", x, 2)[0]
    x = input_("x", x, dw.dtype, (batch, inputs))
    delta = input_("delta", delta, dw.dtype, (batch, outputs))
    apart("dw", dw, x=x, delta=delta, db=db)
    apart("db", db, x=x, delta=delta)
    stream = stream_of(stream)
    _multiply(x, 1, inputs, delta, 1, outputs, dw, batch, STORE, 0, None, stream)
    if outputs:
        driver.launch(
            kernels(dw.dtype.name).column_sums, -(-outputs // GROUP), THREADS, stream, delta.flat(stream), batch,
            outputs, db.flat(stream, read=False),
        )  # fmt: skip
    finish(stream, dw, db)


def dense_backward_input(delta: Any, w: Any, x: Any, activation: int, dx: Any, stream: Any = None) -> None:
    """dx = (delta @ w.T) * slope, the slope of the activation that made x, read off x itself.

    delta (B, O), w (I, O), x (B, I) -> dx (B, I), float32 or float64, overwritten: the gradient by the layer before's
    x @ w + b. Raises TypeError or ValueError naming the argument.
    """
    dx = output("dx", dx, 2)
    batch, inputs = dx.shape
    outputs = shape_of("delta", delta, 2)[1]
    delta = input_("delta", delta, dx.dtype, (batch, outputs))
    w = input_("w", w, dx.dtype, (inputs, outputs))
    x = input_("x", x, dx.dtype, (batch, inputs))
    apart("dx", dx, delta=delta, w=w, x=x)
    code, stream = activation_code(activation), stream_of(stream)
    _multiply(delta, outputs, 1, w, outputs, 1, dx, outputs, SLOPE, code, x, stream)
    finish(stream, dx)


# ---- optimisers


def _memory(name: str, array: Any, params: View) -> View:
    view = output(name, array, 1)
    if view.shape != params.shape or view.dtype != params.dtype:
        raise ValueError(f"{name} must be {params.shape} {params.dtype} like params, got {view.shape} {view.dtype}")
    return view


def sgd_step(
    params: Any, grad: Any, velocity: Any, learning_rate: float, momentum: float, nesterov: bool, weight_decay: float,
    stream: Any = None,
) -> None:  # fmt: skip
    """One step of stochastic gradient descent, as torch.optim.SGD: see reference.sgd_step for the formula.

    params, grad (P,), velocity (P,), or (0,) without momentum; params and velocity change in place.
    Raises TypeError or ValueError naming the argument.
    """
    params = output("params", params, 1)
    grad = input_("grad", grad, params.dtype, params.shape)
    written = [params]
    if momentum:
        velocity = _memory("velocity", velocity, params)
        apart("velocity", velocity, params=params, grad=grad)
        written.append(velocity)
    apart("params", params, grad=grad)
    stream, T = stream_of(stream), params.dtype.type
    if params.size:
        driver.launch(
            kernels(params.dtype.name).sgd_step, blocks_of(params.size), THREADS, stream, params.flat(stream),
            grad.flat(stream), written[-1].flat(stream), T(learning_rate), T(momentum), bool(nesterov),
            T(weight_decay), params.size,
        )  # fmt: skip
    finish(stream, *written)


def adam_step(
    params: Any, grad: Any, m: Any, v: Any, learning_rate: float, beta1: float, beta2: float, epsilon: float,
    weight_decay: float, decoupled: bool, step: int, stream: Any = None,
) -> None:  # fmt: skip
    """One step of Adam or, decoupled, AdamW, as torch.optim: see reference.adam_step for the formula.

    params, grad, m, v (P,); step counts from 1. params, m and v change in place.
    Raises TypeError or ValueError naming the argument.
    """
    params = output("params", params, 1)
    grad = input_("grad", grad, params.dtype, params.shape)
    m, v = _memory("m", m, params), _memory("v", v, params)
    apart("params", params, grad=grad, m=m, v=v)
    apart("m", m, grad=grad, v=v)
    apart("v", v, grad=grad)
    if step < 1:
        raise ValueError(f"step counts from 1, got {step}")
    stream, T = stream_of(stream), params.dtype.type
    keep, decay = (1 - learning_rate * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    settings = (
        keep, decay, beta1, 1 - beta1, beta2, 1 - beta2, learning_rate / (1 - beta1**step),
        1 / np.sqrt(1 - beta2**step), epsilon,
    )  # fmt: skip
    if params.size:
        driver.launch(
            kernels(params.dtype.name).adam_step, blocks_of(params.size), THREADS, stream, params.flat(stream),
            grad.flat(stream), m.flat(stream), v.flat(stream), *map(T, settings), params.size,
        )  # fmt: skip
    finish(stream, params, m, v)
