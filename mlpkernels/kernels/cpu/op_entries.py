"""The compiled and cached entry points of the ops of convolutions, pools, batch norms and dropout: see steps.py."""

from typing import Any

from numba import types

from . import conv_arrays, layer_arrays, sparse
from .conv_arrays import FORWARD, PARAMS, Window


def entry_points(sources: str) -> dict[str, Any]:
    """The functions to compile. `sources`, the kernel files' digest, is in each one's closure: the cache's key."""

    def convolve(what, window, activation, x, w, b, y, dx):
        sources  # noqa: B018
        if what == FORWARD:
            conv_arrays.forward(window, activation, x, w, b, y)
        elif what == PARAMS:
            conv_arrays.backward_params(window, x, y, w, b)
        else:
            conv_arrays.backward_input(window, activation, y, w, x, dx)

    def pool_forward(window, x, out, places):
        sources  # noqa: B018
        layer_arrays.pool_forward(window, x, out, places)

    def pool_backward(planes, pixels, windows, delta, places, x, slope, dx):
        sources  # noqa: B018
        layer_arrays.pool_backward(planes, pixels, windows, delta, places, x, slope, dx)

    def norm_forward(trains, batch, channels, pixels, x, gamma, beta, mean, variance, epsilon, relu, out):
        sources  # noqa: B018
        if trains:
            layer_arrays.moments(batch, channels, pixels, x, mean, variance)
        layer_arrays.apply(batch, channels, pixels, x, gamma, beta, mean, variance, epsilon, relu, out)

    def norm_backward(batch, channels, pixels, delta, x, gamma, mean, variance, epsilon, slope, dx, dgamma, dbeta):
        sources  # noqa: B018
        layer_arrays.backward(
            batch, channels, pixels, delta, x, gamma, mean, variance, epsilon, slope, dx, dgamma, dbeta
        )  # fmt: skip

    def drop(x, p, seed, step, layer, out):
        sources  # noqa: B018
        layer_arrays.drop(x, p, seed, step, layer, out)

    def drop_back(delta, p, seed, step, layer, x, slope, dx):
        sources  # noqa: B018
        layer_arrays.drop_back(delta, p, seed, step, layer, x, slope, dx)

    def sparse_product(pixels, factor, offset, w, b, activation, out):
        sources  # noqa: B018
        sparse.product(pixels, factor, offset, w, b, activation, out)

    functions = (convolve, pool_forward, pool_backward, norm_forward, norm_backward, drop, drop_back, sparse_product)
    return {function.__name__: function for function in functions}


def signatures(T: Any) -> dict[str, Any]:
    """The one signature of each, given a floating type."""
    i, d, flag = types.int64, types.float64, types.boolean
    flat, double, places = (types.Array(dtype, 1, "C") for dtype in (T, d, types.int32))
    matrix = types.Array(T, 2, "C")
    window = types.NamedUniTuple(i, len(Window._fields), Window)
    return {
        "convolve": types.void(i, window, i, *[flat] * 5),
        "pool_forward": types.void(window, flat, flat, places),
        "pool_backward": types.void(i, i, i, flat, places, flat, flag, flat),
        "norm_forward": types.void(flag, i, i, i, flat, flat, flat, double, double, d, flag, flat),
        "norm_backward": types.void(i, i, i, flat, flat, flat, double, double, d, flag, flat, flat, flat),
        "drop": types.void(flat, d, i, i, i, flat),
        "drop_back": types.void(flat, d, i, i, i, flat, flag, flat),
        "sparse_product": types.void(types.Array(types.uint8, 2, "C"), T, T, matrix, flat, i, matrix),
    }
