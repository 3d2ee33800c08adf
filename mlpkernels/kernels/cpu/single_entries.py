"""The compiled and cached entry points behind a network's block of numbers: see steps.py.

`predict_row`, `single_layers` and `gradient` are what blocks point to; the others, one a type of rows, are Python's.
"""

from typing import Any

from numba import types

from . import gradient as _gradient
from . import single


def entry_points(sources: str) -> dict[str, Any]:
    """The functions to compile. `sources`, the kernel files' digest, is in each one's closure: the cache's key."""

    def predict_row(net, x, scratch, out):
        sources  # noqa: B018
        single.row(net, x, scratch, out)

    def single_layers(net, number, source, target):
        sources  # noqa: B018
        single.layers(net, number, source, target)

    def rows_of_uint8(block, x, scratch, out, checks):
        sources  # noqa: B018
        return single.predict_rows(block, x, scratch, out, checks)

    def rows_of_float32(block, x, scratch, out, checks):
        sources  # noqa: B018
        return single.predict_rows(block, x, scratch, out, checks)

    def rows_of_float64(block, x, scratch, out, checks):
        sources  # noqa: B018
        return single.predict_rows(block, x, scratch, out, checks)

    def gradient(net, work, rows, grad):
        sources  # noqa: B018
        return _gradient.gradient(net, work, rows, grad)

    functions = (gradient, predict_row, single_layers, rows_of_uint8, rows_of_float32, rows_of_float64)
    return {function.__name__: function for function in functions}


def signatures(T: Any) -> dict[str, Any]:
    """The one signature of each, given a floating type."""
    i, block, pointer = types.int64, types.CPointer(types.int64), types.CPointer(T)
    flat, matrix = types.Array(T, 1, "C"), types.Array(T, 2, "C")
    rows = {
        f"rows_of_{kind}": i(types.Array(i, 1, "C"), types.Array(kind, 2, "C"), flat, matrix, types.boolean)
        for kind in (types.uint8, types.float32, types.float64)
    }
    return {
        "gradient": types.float64(block, block, i, pointer),
        "predict_row": types.void(block, pointer, pointer, pointer),
        "single_layers": types.void(block, i, pointer, pointer),
        **rows,
    }
