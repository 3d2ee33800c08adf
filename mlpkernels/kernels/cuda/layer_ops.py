"""The public ops of convolutions, pools, batch norms and dropout, on arrays of the host or of the GPU: see ops.py."""

from functools import cache
from typing import Any

import numpy as np

from .. import plan as p
from . import driver
from .arguments import (
    Pair,
    activation_code,
    apart,
    input_,
    integer,
    output,
    output_like,
    pair,
    places_within,
    same_or_apart,
    shape_of,
    shaped,
)
from .arrays import View, finish, nothing, to_device
from .driver import stream_of
from .functions import dropout_key, dropout_limit
from .op_kernels import kernels, product_kernel
from .product import BIAS, CONV_FORWARD, CONV_INPUT, CONV_PARAMS, SLOPE, STORE, tile_for
from .sums import THREADS

# ---- convolution


class _Window:
    """The shapes of a convolution or pool, checked, and the table that its kernel reads."""

    def __init__(
        self, x: tuple[int, ...], outputs: int, kernel: Pair, stride: Pair, padding: Pair, after: Pair
    ) -> None:  # fmt: skip
        self.batch, self.channels = x[:2]
        row = np.zeros(p.COLUMNS, np.int64)
        row[p.CHANNELS : p.BUFFER] = *x[1:], outputs, *after
        row[p.KERNEL_H : p.PADDING_W + 1] = *kernel, *stride, *padding
        self.row, self.outputs, self.taps = row, outputs, kernel[0] * kernel[1]
        self.taken, self.given = x[2] * x[3], after[0] * after[1]


@cache
def _table(row: bytes) -> Any:
    """A plan's row on the GPU."""
    return to_device(np.frombuffer(row, np.int64).copy())


def _after(size: Any, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    high, wide = (
        (n + 2 * border - k) // step + 1 for n, k, step, border in zip(size, kernel, stride, padding, strict=True)
    )
    return high, wide


def _conv_window(
    weights: str, w: tuple[int, ...], x: tuple[int, ...], delta: str, y: tuple[int, ...], stride: Any, padding: Any
) -> _Window:
    """The window of a convolution whose weights and deltas have these names. ValueError names what does not fit."""
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    kernel, size = (w[2], w[3]), x[2:]
    if min(kernel) < 1:
        raise ValueError(f"{weights} must have a kernel of at least 1 x 1, got shape {w}")
    if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
        raise ValueError(f"padding must be less than the kernel {kernel}, got {padding}")
    if any(k > n + 2 * border for n, k, border in zip(size, kernel, padding, strict=True)):
        raise ValueError(
            f"{weights} must have a kernel no larger than the images {size} with padding {padding}, got {kernel}"
        )
    after = _after(size, kernel, stride, padding)
    wanted = (x[0], w[0], *after)
    if y != wanted:
        raise ValueError(f"{delta} must have shape {wanted}, the windows of x, got {y}")
    return _Window(x, w[0], kernel, stride, padding, after)


def _convolve(kind: int, a: View, a_sample: int, b: View, b_column: int, b_k: int, c: View, c_row: int, m: int, n: int,
              k: int, epilogue: int, code: int, aux: View | None, window: _Window, stream: Any) -> None:  # fmt: skip
    dtype = c.dtype.name
    if m and n:
        tile = tile_for(dtype, kind, m, n)
        blocks = -(-m // tile.rows) * -(-n // tile.columns)
        driver.launch(
            product_kernel(dtype, tile, kind), blocks, tile.threads, stream, a.flat(stream), a_sample, 0,
            b.flat(stream), b_column, b_k, c.flat(stream, read=False), c_row, m, n, k, epilogue, code,
            nothing(dtype) if aux is None else aux.flat(stream), c_row, _table(window.row.tobytes()),
        )  # fmt: skip


def conv2d_forward(
    x: Any, w: Any, b: Any, activation: int, stride: Pair, padding: Pair, out: Any, stream: Any = None
) -> None:  # fmt: skip
    """out = activation(conv(x, w) + b), the cross-correlation that torch.nn.functional.conv2d computes.

    x (B, C, H, W), w (O, C, kh, kw), b (O,) -> out (B, O, H', W'), float32 or float64, overwritten; H' = (H + 2 ·
    padding - kh) // stride + 1, W' likewise. Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, 4)
    shape, kernel = shape_of("x", x, 4), shape_of("w", w, 4)
    outputs = kernel[0]
    w = input_("w", w, out.dtype, (outputs, shape[1], *kernel[2:]))
    window = _conv_window("w", kernel, shape, "out", out.shape, stride, padding)
    x, b = input_("x", x, out.dtype, shape), input_("b", b, out.dtype, (outputs,))
    apart("out", out, x=x, w=w, b=b)
    code, stream = activation_code(activation), stream_of(stream)
    depth = window.channels * window.taps
    _convolve(
        CONV_FORWARD, x, window.channels * window.taken, w, depth, 1, out, outputs * window.given,
        window.batch * window.given, outputs, depth, BIAS, code, b, window, stream,
    )  # fmt: skip
    finish(stream, out)


def conv2d_backward_params(
    x: Any, delta: Any, stride: Pair, padding: Pair, dw: Any, db: Any, stream: Any = None
) -> None:  # fmt: skip
    """The gradients by weights and biases.

    x (B, C, H, W), delta (B, O, H', W'): the loss's gradient by conv(x, w) + b -> dw (O, C, kh, kw), db (O,), float32
    or float64, overwritten. Raises TypeError or ValueError naming the argument.
    """
    dw = output("dw", dw, 4)
    outputs = dw.shape[0]
    db = output_like("db", db, (outputs,), dw.dtype, f"dw {dw.shape}")
    shape, after = shape_of("x", x, 4), shape_of("delta", delta, 4)
    shaped("dw", dw, (outputs, shape[1], *dw.shape[2:]), "with the channels of x")
    window = _conv_window("dw", dw.shape, shape, "delta", after, stride, padding)
    x, delta = input_("x", x, dw.dtype, shape), input_("delta", delta, dw.dtype, after)
    apart("dw", dw, x=x, delta=delta, db=db)
    apart("db", db, x=x, delta=delta)
    stream = stream_of(stream)
    _convolve(
        CONV_PARAMS, x, window.channels * window.taken, delta, 0, outputs * window.given, dw, 0,
        window.channels * window.taps, outputs, window.batch * window.given, STORE, 0, None, window, stream,
    )  # fmt: skip
    if outputs:
        driver.launch(
            kernels(dw.dtype.name).channel_sums, outputs, THREADS, stream, delta.flat(stream), window.batch, outputs,
            window.given, db.flat(stream, read=False),
        )  # fmt: skip
    finish(stream, dw, db)


def conv2d_backward_input(
    delta: Any, w: Any, x: Any, activation: int, stride: Pair, padding: Pair, dx: Any, stream: Any = None
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation, which made x.

    delta (B, O, H', W'), w (O, C, kh, kw), x (B, C, H, W) -> dx (B, C, H, W), float32 or float64, overwritten.
    Raises TypeError or ValueError naming the argument.
    """
    dx = output("dx", dx, 4)
    kernel, after = shape_of("w", w, 4), shape_of("delta", delta, 4)
    outputs = kernel[0]
    w = input_("w", w, dx.dtype, (outputs, dx.shape[1], *kernel[2:]))
    x = input_("x", x, dx.dtype, dx.shape)
    window = _conv_window("w", kernel, dx.shape, "delta", after, stride, padding)
    delta = input_("delta", delta, dx.dtype, after)
    apart("dx", dx, delta=delta, w=w, x=x)
    code, stream = activation_code(activation), stream_of(stream)
    _convolve(
        CONV_INPUT, delta, outputs * window.given, w, window.channels * window.taps, 1, dx,
        window.channels * window.taken, window.batch * window.taken, window.channels, outputs * window.taps, SLOPE,
        code, x, window, stream,
    )  # fmt: skip
    finish(stream, dx)


# ---- maximum pooling


def maxpool2d_forward(
    x: Any, kernel: Pair, stride: Pair, padding: Pair, out: Any, places: Any, stream: Any = None
) -> None:  # fmt: skip
    """out = the maximum of every window, places = where in its image it is; padding never is one.

    x (B, C, H, W) -> out (B, C, H', W') float32 or float64, places (B, C, H', W') int32: flat indices into H · W; both
    overwritten. H' = (H + 2 · padding - kh) // stride + 1, W' likewise; padding is at most half the kernel. As in
    torch.nn.functional.max_pool2d the first of equal maxima counts, and a NaN, the last of several, before all.
    Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, 4)
    places = output("places", places, 4, (np.int32,))
    shape = shape_of("x", x, 4)
    kernel, step, padding = pair("kernel", kernel, 1), pair("stride", stride, 1), pair("padding", padding, 0)
    if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
        raise ValueError(f"padding must be at most half the kernel {kernel}, got {padding}")
    if min(shape[2:]) < 1 or shape[2] * shape[3] > 2**31:
        raise ValueError(f"x must have images of 1 to 2^31 pixels, got shape {shape}")
    after = _after(shape[2:], kernel, step, padding)
    if min(after) < 1:
        raise ValueError(f"kernel must be no larger than the images {shape[2:]} with padding {padding}, got {kernel}")
    x = input_("x", x, out.dtype, shape)
    shaped("out", out, (*shape[:2], *after), "the windows of x")
    shaped("places", places, out.shape, "that of out")
    apart("out", out, x=x, places=places)
    apart("places", places, x=x)
    stream, window = stream_of(stream), _Window(shape, shape[1], kernel, step, padding, after)
    if out.size:
        driver.launch(
            kernels(out.dtype.name).pool, shape[0], THREADS, stream, x.flat(stream), shape[1] * window.taken,
            out.flat(stream, read=False), shape[1] * window.given, places.flat(stream, read=False), shape[0],
            _table(window.row.tobytes()),
        )  # fmt: skip
    finish(stream, out, places)


def maxpool2d_backward(delta: Any, places: Any, x: Any, activation: int, dx: Any, stream: Any = None) -> None:
    """The gradient by what the layer before computed, before its activation: every window's goes to its maximum.

    delta, places (B, C, H', W'), x (B, C, H, W), which activation made -> dx (B, C, H, W), float32 or float64,
    overwritten; summed where windows share a maximum. Raises TypeError or ValueError naming the argument.
    """
    dx = output("dx", dx, 4)
    batch, channels, height, width = dx.shape
    code, after = activation_code(activation), shape_of("delta", delta, 4)
    delta = input_("delta", delta, dx.dtype, (batch, channels, *after[2:]))
    x = input_("x", x, dx.dtype, dx.shape)
    places = places_within(places, delta.shape, height * width)
    apart("dx", dx, delta=delta, x=x, places=places)
    stream = stream_of(stream)
    if dx.size:
        driver.launch(
            kernels(dx.dtype.name).pool_back, batch * channels, THREADS, stream, delta.flat(stream),
            places.flat(stream), after[2] * after[3], x.flat(stream), code, dx.flat(stream, read=False), height * width,
        )  # fmt: skip
    finish(stream, dx)


# ---- batch normalisation


def _values(name: str, array: Any) -> tuple[View, int, int, int]:
    """(view, batch, channels, pixels) of an output (B, C) or (B, C, H, W)."""
    view = output(name, array, None)
    if len(view.shape) not in (2, 4):
        raise ValueError(f"{name} must be (B, C) or (B, C, H, W), got shape {view.shape}")
    return view, view.shape[0], view.shape[1], int(np.prod(view.shape[2:], dtype=int))


def _epsilon(epsilon: float) -> float:
    if not epsilon > 0:
        raise ValueError(f"epsilon must be above 0, got {epsilon}")
    return float(epsilon)


def batchnorm_forward(
    x: Any, gamma: Any, beta: Any, epsilon: float, activation: int, mean: Any, variance: Any, out: Any,
    stream: Any = None,
) -> None:  # fmt: skip
    """out = activation(gamma · x̂ + beta), x̂ = (x - mean) / sqrt(variance + epsilon) by this batch's own statistics.

    x (B, C) or (B, C, H, W), gamma, beta (C,) -> mean, variance (C,) float64: over all of a channel's values, the
    variance divided by their number, 0 where there are none; out as x, float32 or float64; all overwritten, out may be
    x itself. Ioffe & Szegedy 2015. Raises TypeError or ValueError naming the argument.
    """
    out, batch, channels, pixels = _values("out", out)
    mean, variance = (output(name, a, 1, (np.float64,)) for name, a in (("mean", mean), ("variance", variance)))
    for view in (mean, variance):
        shaped(view.name, view, (channels,), "the channels of out")
    x = input_("x", x, out.dtype, out.shape)
    gamma, beta = (input_(name, a, out.dtype, (channels,)) for name, a in (("gamma", gamma), ("beta", beta)))
    same_or_apart("out", out, x=x)
    apart("out", out, gamma=gamma, beta=beta, mean=mean, variance=variance)
    apart("mean", mean, x=x, gamma=gamma, beta=beta, variance=variance)
    apart("variance", variance, x=x, gamma=gamma, beta=beta)
    above, code, stream = _epsilon(epsilon), activation_code(activation), stream_of(stream)
    if channels:
        driver.launch(
            kernels(out.dtype.name).norm, channels, THREADS, stream, 1, x.flat(stream), gamma.flat(stream),
            beta.flat(stream), mean.flat(stream, read=False), variance.flat(stream, read=False), above, code,
            out.flat(stream, read=False), batch, channels, pixels,
        )  # fmt: skip
    finish(stream, mean, variance, out)


def batchnorm_inference(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, activation: int, out: Any,
    stream: Any = None,
) -> None:  # fmt: skip
    """out = activation(gamma · (x - mean) / sqrt(variance + epsilon) + beta).

    x (B, C) or (B, C, H, W), gamma, beta, mean, variance (C,) -> out as x, float32 or float64, overwritten; may be x
    itself. Raises TypeError or ValueError naming the argument.
    """
    out, batch, channels, pixels = _values("out", out)
    x = input_("x", x, out.dtype, out.shape)
    gamma, beta = (input_(name, a, out.dtype, (channels,)) for name, a in (("gamma", gamma), ("beta", beta)))
    mean, variance = (input_(name, a, float, (channels,)) for name, a in (("mean", mean), ("variance", variance)))
    same_or_apart("out", out, x=x)
    apart("out", out, gamma=gamma, beta=beta, mean=mean, variance=variance)
    above, code, stream = _epsilon(epsilon), activation_code(activation), stream_of(stream)
    if out.size:
        driver.launch(
            kernels(out.dtype.name).norm, channels, THREADS, stream, 0, x.flat(stream), gamma.flat(stream),
            beta.flat(stream), mean.flat(stream), variance.flat(stream), above, code, out.flat(stream, read=False),
            batch, channels, pixels,
        )  # fmt: skip
    finish(stream, out)


def batchnorm_backward(
    delta: Any, x: Any, gamma: Any, mean: Any, variance: Any, epsilon: float, activation: int, dx: Any, dgamma: Any,
    dbeta: Any, stream: Any = None,
) -> None:  # fmt: skip
    """The gradients through batchnorm_forward, whose mean and variance depend on x.

    delta (B, C) or (B, C, H, W): the loss's gradient by gamma · x̂ + beta; x as delta; gamma, mean, variance (C,)
    -> dx as x: by what the layer before computed, before its activation, which made x; dgamma, dbeta (C,); float32 or
    float64, all overwritten; dx may be delta itself. Raises TypeError or ValueError naming the argument.
    """
    dx, batch, channels, pixels = _values("dx", dx)
    dgamma, dbeta = (
        output_like(name, a, (channels,), dx.dtype, f"dx {dx.shape}")
        for name, a in (("dgamma", dgamma), ("dbeta", dbeta))
    )
    delta, x = input_("delta", delta, dx.dtype, dx.shape), input_("x", x, dx.dtype, dx.shape)
    gamma = input_("gamma", gamma, dx.dtype, (channels,))
    mean, variance = (input_(name, a, float, (channels,)) for name, a in (("mean", mean), ("variance", variance)))
    inputs = {"x": x, "gamma": gamma, "mean": mean, "variance": variance}
    same_or_apart("dx", dx, delta=delta)
    apart("dx", dx, **inputs, dgamma=dgamma, dbeta=dbeta)
    apart("dgamma", dgamma, **inputs, delta=delta, dbeta=dbeta)
    apart("dbeta", dbeta, **inputs, delta=delta)
    above, code, stream = _epsilon(epsilon), activation_code(activation), stream_of(stream)
    if channels:
        driver.launch(
            kernels(dx.dtype.name).norm_back, channels, THREADS, stream, delta.flat(stream), x.flat(stream),
            gamma.flat(stream), mean.flat(stream), variance.flat(stream), above, code, dx.flat(stream, read=False),
            dgamma.flat(stream, read=False), dbeta.flat(stream, read=False), batch, channels, pixels,
        )  # fmt: skip
    finish(stream, dx, dgamma, dbeta)


# ---- dropout


def _mask(p: float, seed: int, step: int, layer: int, T: Any) -> tuple[Any, ...]:
    """(what is kept is multiplied by, the key's halves, the limit) of a mask; errors name a setting."""
    if not 0 <= p < 1:
        raise ValueError(f"p must be at least 0 and below 1, got {p}")
    key = dropout_key(integer("seed", seed), integer("step", step), integer("layer", layer))
    return (T(1 / (1 - float(p))), *key, dropout_limit(float(p)))


def dropout(x: Any, p: float, seed: int, step: int, layer: int, out: Any, stream: Any = None) -> None:
    """out = x / (1 - p) where an element is kept, with probability 1 - p, else 0.

    x (B, …) -> out as x, float32 or float64, overwritten; may be x itself. The mask depends on seed (below 2^53), step,
    layer and the element's index only. Srivastava et al. 2014. Raises TypeError or ValueError naming the argument.
    """
    out = output("out", out, None)
    x = input_("x", x, out.dtype, out.shape)
    same_or_apart("out", out, x=x)
    mask, stream = _mask(p, seed, step, layer, out.dtype.type), stream_of(stream)
    if out.size:
        driver.launch(
            kernels(out.dtype.name).drop, -(-out.size // (4 * THREADS)), THREADS, stream, x.flat(stream), *mask,
            out.flat(stream, read=False), out.size,
        )  # fmt: skip
    finish(stream, out)


def dropout_backward(
    delta: Any, p: float, seed: int, step: int, layer: int, x: Any, activation: int, dx: Any, stream: Any = None
) -> None:  # fmt: skip
    """The gradient by what the layer before computed, before its activation, which made x.

    delta: the loss's gradient by what dropout gave; x: what it took -> dx, float32 or float64, overwritten; may be
    delta itself. All of one shape. Raises TypeError or ValueError naming the argument.
    """
    dx = output("dx", dx, None)
    delta, x = input_("delta", delta, dx.dtype, dx.shape), input_("x", x, dx.dtype, dx.shape)
    same_or_apart("dx", dx, delta=delta)
    apart("dx", dx, x=x)
    mask, code, stream = _mask(p, seed, step, layer, dx.dtype.type), activation_code(activation), stream_of(stream)
    if dx.size:
        driver.launch(
            kernels(dx.dtype.name).drop_back, -(-dx.size // (4 * THREADS)), THREADS, stream, delta.flat(stream), *mask,
            x.flat(stream), code, dx.flat(stream, read=False), dx.size,
        )  # fmt: skip
    finish(stream, dx)
