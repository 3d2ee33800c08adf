"""What C calls: entry points that check no more than C can be asked for, and take no Python. See capi.py.

Each returns a status, or what SciPy's interface wants.
"""

from typing import Any

import numpy as np
from numba import carray, types

from . import single
from .addresses import at, call_at, is_null
from .jit import inner
from .simd import advance, load, store

OK, NOTHING, STRANGE, NEGATIVE = range(4)  # statuses; NOTHING: a null pointer, STRANGE: no network of that type
# Addresses in the block that SciPy hands back: a network, scratch, a number, the network's own c_predict_doubles.
NETWORK, ROOM, RESULT, FUNCTION, FIELDS = range(5)


@inner
def _status(net, rows, x, scratch, out):
    if is_null(net) or (rows > 0 and (is_null(x) or is_null(scratch) or is_null(out))):
        return np.int32(NOTHING)
    if load(net, single.MARK) != single.MARKED + carray(scratch, 1).itemsize:
        return np.int32(STRANGE)
    return np.int32(NEGATIVE if rows < 0 else OK)


@inner
def _predict_rows(net, rows, x, scratch, out):
    status = _status(net, rows, x, scratch, out)
    if status == OK:
        inputs, outputs = load(net, single.INPUTS), load(net, single.OUTPUTS)
        for i in range(rows):
            single.predict(net, carray(advance(x, i * inputs), inputs), scratch, advance(out, i * outputs))
    return status


@inner
def _predict_doubles(net, rows, x, scratch, out):
    status = _status(net, rows, x, scratch, out)
    if status == OK:
        inputs, outputs = load(net, single.INPUTS), load(net, single.OUTPUTS)
        for i in range(rows):
            # The outputs go where the inputs were: what they are copied from lies behind.
            single.predict(net, carray(advance(x, i * inputs), inputs), scratch, scratch)
            for j in range(outputs):
                store(out, i * outputs + j, load(scratch, j))
    return status


@inner
def _predict_for_scipy(call, count, x, result):
    """One sample, where x has as many numbers as the network has inputs; whether it has."""
    net = at(load(call, NETWORK), np.int64)
    if count != load(net, single.INPUTS):
        return False
    call_at(load(call, FUNCTION), np.int32(0), (net, 1, x, at(load(call, ROOM), x), result))
    return True


def entry_points(sources: str) -> dict[str, Any]:
    """The functions to compile. `sources`, the kernel files' digest, is in each one's closure: the cache's key."""

    def c_predict_one(net, x, scratch, out):
        sources  # noqa: B018
        return _predict_rows(net, 1, x, scratch, out)

    def c_predict_rows(net, rows, x, scratch, out):
        sources  # noqa: B018
        return _predict_rows(net, rows, x, scratch, out)

    def c_predict_doubles(net, rows, x, scratch, out):
        sources  # noqa: B018
        return _predict_doubles(net, rows, x, scratch, out)

    def c_integrand(count, x, call):
        """For scipy.integrate: double (int, double *, void *), of a network of one output."""
        sources  # noqa: B018
        result = at(load(call, RESULT), x)
        return load(result, 0) if _predict_for_scipy(call, count, x, result) else np.nan

    def c_filter(x, count, result, call):
        """For scipy.ndimage.generic_filter: int (double *, intptr_t, double *, void *); 0 makes SciPy raise."""
        sources  # noqa: B018
        return np.int32(1 if _predict_for_scipy(call, count, x, result) else 0)

    functions = (c_predict_one, c_predict_rows, c_predict_doubles, c_integrand, c_filter)
    return {function.__name__: function for function in functions}


def signatures(T: Any) -> dict[str, Any]:
    """The one signature of each, given a floating type; SciPy's are of float64 alone, whatever the network's type."""
    i, status, block, pointer = types.int64, types.int32, types.CPointer(types.int64), types.CPointer(T)
    doubles = types.CPointer(types.float64)
    return {
        "c_predict_one": status(block, pointer, pointer, pointer),
        "c_predict_rows": status(block, i, pointer, pointer, pointer),
        "c_predict_doubles": status(block, i, doubles, pointer, doubles),
        "c_integrand": types.float64(types.int32, doubles, block),
        "c_filter": types.int32(doubles, types.intp, doubles, block),
    }
