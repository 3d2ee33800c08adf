"""The public ops of convolutions and pools, called from Python or inlined inside @njit code: see ops.py.

Pairs are (height, width). A convolution's op takes scratch at each call, inside @njit, too: a chunk's images and
gradients (16 samples in float32 with AVX-512) and the weights. One thread runs each op.
"""

from typing import Any

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
    output,
    output_like,
    pair,
    require,
    require_array,
    require_integers,
    require_pairs,
    shape_of,
    shaped,
)
from .conv_arrays import FORWARD, INPUT, PARAMS, Window, backward_input, backward_params, forward
from .conv_arrays import steps as _steps
from .conv_arrays import steps_of as _steps_of
from .jit import inner
from .simd import flat

Pair = tuple[int, int]
_DIMENSIONS = {"x": 4, "w": 4, "b": 1, "out": 4, "delta": 4, "dw": 4, "db": 1, "dx": 4}


# ---- convolution


def _window(x: tuple[int, ...], w: tuple[int, ...], stride: Any, padding: Any) -> tuple[Window, tuple[int, ...]]:
    """The window of images and weights of these shapes, and the shape (B, O, H', W') of what it gives."""
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    kernel, size = w[2:], x[2:]
    if min(kernel) < 1:
        raise ValueError(f"w must have a kernel of at least 1 x 1, got shape {w}")
    if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
        raise ValueError(f"padding must be less than the kernel {kernel}, got {padding}")
    window = Window(x[0], x[1], size[0], size[1], w[0], kernel[0], kernel[1], *stride, *padding)
    high, wide = (_steps(*side) for side in zip(size, kernel, stride, padding, strict=True))
    if high < 1 or wide < 1:
        raise ValueError(f"w must have a kernel no larger than the images {size} with padding {padding}, got {kernel}")
    return window, (x[0], w[0], high, wide)


def _run(what: int, window: Window, activation: int, x: Array, w: Array, b: Array, y: Array, dx: Array) -> None:
    entry = steps.get("convolve", x.dtype)
    entry(what, window, activation, *(array.reshape(-1) for array in (x, w, b, y, dx)))


def conv2d_forward(x: Any, w: Any, b: Any, activation: int, stride: Pair, padding: Pair, out: Array) -> None:
    """out = activation(conv(x, w) + b), the cross-correlation that torch.nn.functional.conv2d computes.

    x (B, C, H, W), w (O, C, kh, kw), b (O,) -> out (B, O, H', W'), float32 or float64, overwritten;
    H' = (H + 2 · padding - kh) // stride + 1, W' likewise; padding is less than the kernel. activation is IDENTITY or
    RELU. Raises TypeError or ValueError naming the argument. Runs on one thread.
    """
    output("out", out, 4)
    x_shape, w_shape = shape_of("x", x, 4), shape_of("w", w, 4)
    window, after = _window(x_shape, w_shape, stride, padding)
    x = input_("x", x, out.dtype, x_shape)
    w = input_("w", w, out.dtype, (window.outputs, window.channels, *w_shape[2:]))
    b = input_("b", b, out.dtype, (window.outputs,))
    shaped("out", out, after, "the windows of x")
    apart("out", out, x=x, w=w, b=b)
    _run(FORWARD, window, activation_code(activation), x, w, b, out, x)


def conv2d_backward_params(x: Any, delta: Any, stride: Pair, padding: Pair, dw: Array, db: Array) -> None:
    """The gradients by weights and biases.

    x (B, C, H, W), delta (B, O, H', W'): the loss's gradient by conv(x, w) + b -> dw (O, C, kh, kw), db (O,), float32
    or float64, overwritten. Raises TypeError or ValueError naming the argument. Runs on one thread.
    """
    output("dw", dw, 4)
    x_shape = shape_of("x", x, 4)
    window, after = _window(x_shape, dw.shape, stride, padding)
    output_like("db", db, (window.outputs,), dw.dtype, f"dw {dw.shape}")
    shaped("dw", dw, (window.outputs, window.channels, *dw.shape[2:]), "with the channels of x")
    x = input_("x", x, dw.dtype, x_shape)
    delta = input_("delta", delta, dw.dtype, after)
    apart("dw", dw, x=x, delta=delta, db=db)
    apart("db", db, x=x, delta=delta)
    _run(PARAMS, window, IDENTITY, x, dw, db, delta, x)


def conv2d_backward_input(
    delta: Any, w: Any, x: Any, activation: int, stride: Pair, padding: Pair, dx: Array
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation: that is read off x itself.

    delta (B, O, H', W'), w (O, C, kh, kw), x (B, C, H, W) -> dx (B, C, H, W), float32 or float64, overwritten.
    Raises TypeError or ValueError naming the argument. Runs on one thread.
    """
    output("dx", dx, 4)
    w_shape = shape_of("w", w, 4)
    window, after = _window(dx.shape, w_shape, stride, padding)
    delta = input_("delta", delta, dx.dtype, after)
    w = input_("w", w, dx.dtype, (window.outputs, window.channels, *w_shape[2:]))
    x = input_("x", x, dx.dtype, dx.shape)
    apart("dx", dx, delta=delta, w=w, x=x)
    _run(INPUT, window, activation_code(activation), x, w, dx[:0], delta, dx)


def _checked_window(op: str, weights: str, given: str) -> Any:
    """A jitted function: the window of x's, weights' and given's shapes, once they agree, else an error naming op."""
    batch = f"{op}: x (B, C, H, W) and {given} (B, O, H', W') disagree on B"
    channels = f"{op}: x (B, C, H, W) and {weights} (O, C, kh, kw) disagree on C"
    outputs = f"{op}: {weights} (O, C, kh, kw) and {given} (B, O, H', W') disagree on O"
    code = f"{op}: activation must be IDENTITY or RELU"
    step = f"{op}: stride must be at least 1"
    border = f"{op}: padding must be at least 0 and less than the kernel"
    room = f"{op}: the kernel is larger than the padded images"
    size = f"{op}: {given} (B, O, H', W') must have H' = (H + 2 · padding - kh) // stride + 1 and W' likewise"

    @inner
    def checked(x, w, y, activation, stride, padding):
        if x[0] != y[0]:
            raise ValueError(batch)
        if x[1] != w[1]:
            raise ValueError(channels)
        if w[0] != y[1]:
            raise ValueError(outputs)
        if activation != IDENTITY and activation != RELU:
            raise ValueError(code)
        if stride[0] < 1 or stride[1] < 1:
            raise ValueError(step)
        if padding[0] < 0 or padding[1] < 0 or padding[0] >= w[2] or padding[1] >= w[3]:
            raise ValueError(border)
        if w[2] > x[2] + 2 * padding[0] or w[3] > x[3] + 2 * padding[1]:
            raise ValueError(room)
        high = _steps_of(x[2], w[2], stride[0], padding[0])
        if y[2] != high or y[3] != _steps_of(x[3], w[3], stride[1], padding[1]):
            raise ValueError(size)
        return Window(x[0], x[1], x[2], x[3], w[0], w[2], w[3], stride[0], stride[1], padding[0], padding[1])

    return checked


@inner
def _pair(value):
    """A pair without constants in its type, each of which would be a specialisation."""
    return np.int64(value[0]), np.int64(value[1])


_forward_window = _checked_window("conv2d_forward", "w", "out")
_params_window = _checked_window("conv2d_backward_params", "dw", "delta")
_input_window = _checked_window("conv2d_backward_input", "w", "delta")


@overload(conv2d_forward)
def _compile_conv2d_forward(x, w, b, activation, stride, padding, out):
    require("out", _DIMENSIONS, x=x, w=w, b=b, out=out)
    require_pairs(stride=stride, padding=padding)
    require_integers(activation=activation)

    def conv2d_forward(x, w, b, activation, stride, padding, out):
        code = np.int64(activation)
        window = _forward_window(x.shape, w.shape, out.shape, code, _pair(stride), _pair(padding))
        if b.shape[0] != w.shape[0]:
            raise ValueError("conv2d_forward: w (O, C, kh, kw) and b (O,) disagree on O")
        forward(window, code, flat(x), flat(w), flat(b), flat(out))

    return conv2d_forward


@overload(conv2d_backward_params)
def _compile_conv2d_backward_params(x, delta, stride, padding, dw, db):
    require("dw db", _DIMENSIONS, x=x, delta=delta, dw=dw, db=db)
    require_pairs(stride=stride, padding=padding)

    def conv2d_backward_params(x, delta, stride, padding, dw, db):
        none = np.int64(IDENTITY)
        window = _params_window(x.shape, dw.shape, delta.shape, none, _pair(stride), _pair(padding))
        if db.shape[0] != dw.shape[0]:
            raise ValueError("conv2d_backward_params: dw (O, C, kh, kw) and db (O,) disagree on O")
        backward_params(window, flat(x), flat(delta), flat(dw), flat(db))

    return conv2d_backward_params


@overload(conv2d_backward_input)
def _compile_conv2d_backward_input(delta, w, x, activation, stride, padding, dx):
    require("dx", _DIMENSIONS, delta=delta, w=w, x=x, dx=dx)
    require_pairs(stride=stride, padding=padding)
    require_integers(activation=activation)

    def conv2d_backward_input(delta, w, x, activation, stride, padding, dx):
        code = np.int64(activation)
        window = _input_window(x.shape, w.shape, delta.shape, code, _pair(stride), _pair(padding))
        if x.shape != dx.shape:
            raise ValueError("conv2d_backward_input: x (B, C, H, W) and dx (B, C, H, W) disagree")
        backward_input(window, code, flat(delta), flat(w), flat(x), flat(dx))

    return conv2d_backward_input


# ---- maximum pooling


def maxpool2d_forward(x: Any, kernel: Pair, stride: Pair, padding: Pair, out: Array, places: Array) -> None:
    """out = the maximum of every window, places = where in its image it is; padding never is one.

    x (B, C, H, W) -> out (B, C, H', W') float32 or float64, places (B, C, H', W') int32: flat indices into H · W; both
    overwritten. H' = (H + 2 · padding - kh) // stride + 1, W' likewise; padding is at most half the kernel. As in
    torch.nn.functional.max_pool2d the first of equal maxima counts, and a NaN, the last of several, before all.
    Raises TypeError or ValueError naming the argument.
    """
    output("out", out, 4)
    output("places", places, 4, (np.int32,))
    shape = shape_of("x", x, 4)
    kernel, stride, padding = pair("kernel", kernel, 1), pair("stride", stride, 1), pair("padding", padding, 0)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(f"padding must be at most half the kernel {kernel}, got {padding}")
    if min(shape[2:]) < 1 or shape[2] * shape[3] > 2**31:
        raise ValueError(f"x must have images of 1 to 2^31 pixels, got shape {shape}")
    high, wide = (_steps(*side) for side in zip(shape[2:], kernel, stride, padding, strict=True))
    if high < 1 or wide < 1:
        raise ValueError(f"kernel must be no larger than the images {shape[2:]} with padding {padding}, got {kernel}")
    x = input_("x", x, out.dtype, shape)
    shaped("out", out, (*shape[:2], high, wide), "the windows of x")
    shaped("places", places, out.shape, "that of out")
    apart("out", out, x=x, places=places)
    apart("places", places, x=x)
    batch, channels, height, width = shape
    window = Window(batch, channels, height, width, channels, *kernel, *stride, *padding)
    steps.get("pool_forward", out.dtype)(window, x.reshape(-1), out.reshape(-1), places.reshape(-1))


def maxpool2d_backward(delta: Any, places: Any, x: Any, activation: int, dx: Array) -> None:
    """The gradient by what the layer before computed, before its activation: every window's goes to its maximum.

    delta, places (B, C, H', W'), x (B, C, H, W), which activation made -> dx (B, C, H, W), float32 or float64,
    overwritten; summed where windows share a maximum. Raises TypeError or ValueError naming the argument.
    """
    batch, channels, height, width = output("dx", dx, 4).shape
    code, after = activation_code(activation), shape_of("delta", delta, 4)
    delta = input_("delta", delta, dx.dtype, (batch, channels, *after[2:]))
    x = input_("x", x, dx.dtype, dx.shape)
    places = _places(places, delta.shape, height * width)
    apart("dx", dx, delta=delta, x=x, places=places)
    steps.get("pool_backward", dx.dtype)(
        batch * channels, height * width, after[2] * after[3], delta.reshape(-1), places.reshape(-1), x.reshape(-1),
        code == RELU, dx.reshape(-1),
    )  # fmt: skip


def _places(places: Any, shape: tuple[int, ...], pixels: int) -> Array:
    """Places to read, all of them within an image: compiled code would write elsewhere."""
    places = np.asarray(places)
    if places.dtype.kind not in "iu":
        raise TypeError(f"places must be integers, got {places.dtype}")
    if places.shape != shape:
        raise ValueError(f"places must have shape {shape}, that of delta, got {places.shape}")
    if places.size and (places.min() < 0 or places.max() >= pixels):
        raise ValueError(f"places must be 0 … {pixels - 1}, got {places.min()} … {places.max()}")
    return np.require(places, np.int32, ("C", "A", "W"))


@inner
def _check_pool(x, out, kernel, stride, padding):
    """The window of a pool of shapes x and out, once they agree."""
    if kernel[0] < 1 or kernel[1] < 1 or stride[0] < 1 or stride[1] < 1:
        raise ValueError("maxpool2d_forward: kernel and stride must be at least 1")
    if padding[0] < 0 or padding[1] < 0 or 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError("maxpool2d_forward: padding must be at least 0 and at most half the kernel")
    if x[2] < 1 or x[3] < 1 or x[2] * x[3] > 2147483648:
        raise ValueError("maxpool2d_forward: x (B, C, H, W) must have images of 1 to 2^31 pixels")
    if kernel[0] > x[2] + 2 * padding[0] or kernel[1] > x[3] + 2 * padding[1]:
        raise ValueError("maxpool2d_forward: the kernel is larger than the padded images")
    high = _steps_of(x[2], kernel[0], stride[0], padding[0])
    wide = _steps_of(x[3], kernel[1], stride[1], padding[1])
    if out[0] != x[0] or out[1] != x[1] or out[2] != high or out[3] != wide:
        raise ValueError("maxpool2d_forward: out must be (B, C, H', W'), H' = (H + 2 · padding - kh) // stride + 1")
    return Window(x[0], x[1], x[2], x[3], x[1], kernel[0], kernel[1], stride[0], stride[1], padding[0], padding[1])


@overload(maxpool2d_forward)
def _compile_maxpool2d_forward(x, kernel, stride, padding, out, places):
    require("out", {"x": 4, "out": 4}, x=x, out=out)
    require_array("places", places, 4, True, types.int32)
    require_pairs(kernel=kernel, stride=stride, padding=padding)
    pool_forward = layer_arrays.pool_forward

    def maxpool2d_forward(x, kernel, stride, padding, out, places):
        if places.shape != out.shape:
            raise ValueError("maxpool2d_forward: places and out (B, C, H', W') disagree")
        window = _check_pool(x.shape, out.shape, _pair(kernel), _pair(stride), _pair(padding))
        pool_forward(window, flat(x), flat(out), flat(places))

    return maxpool2d_forward


@overload(maxpool2d_backward)
def _compile_maxpool2d_backward(delta, places, x, activation, dx):
    require("dx", {"delta": 4, "x": 4, "dx": 4}, delta=delta, x=x, dx=dx)
    require_array("places", places, 4, False, types.int32)
    require_integers(activation=activation)
    pool_backward, places_within = layer_arrays.pool_backward, layer_arrays.places_within

    def maxpool2d_backward(delta, places, x, activation, dx):
        if x.shape != dx.shape:
            raise ValueError("maxpool2d_backward: x (B, C, H, W) and dx (B, C, H, W) disagree")
        if places.shape != delta.shape or delta.shape[0] != dx.shape[0] or delta.shape[1] != dx.shape[1]:
            raise ValueError("maxpool2d_backward: delta (B, C, H', W'), places and dx (B, C, H, W) disagree")
        if activation != IDENTITY and activation != RELU:
            raise ValueError("maxpool2d_backward: activation must be IDENTITY or RELU")
        pixels = dx.shape[2] * dx.shape[3]
        if not places_within(flat(places), pixels):
            raise ValueError("maxpool2d_backward: places must be 0 … H · W - 1")
        pool_backward(
            dx.shape[0] * dx.shape[1], pixels, delta.shape[2] * delta.shape[3], flat(delta), flat(places), flat(x),
            activation == RELU, flat(dx),
        )  # fmt: skip

    return maxpool2d_backward
