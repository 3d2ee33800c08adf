"""Functions that compiled code alone calls: no machine code is made of them by themselves, their callers have it."""

import numpy as np
import pytest
from numba import njit, prange

from mlpkernels.kernels.cpu.jit import OPTIONS, inner


@inner
def _doubled(x):
    if x < 0:
        raise ValueError("x must be at least 0")
    return 2 * x


@inner
def _sum_of_doubled(x):
    room = np.empty(x.shape[0], x.dtype)  # memory of Numba's own, taken and given back
    for i in range(x.shape[0]):
        room[i] = _doubled(x[i])
    return room.sum()


@njit(**OPTIONS)
def _called(x):
    return _sum_of_doubled(x)


@njit(parallel=True, **OPTIONS)
def _called_in_parallel(x, out):
    for i in prange(x.shape[0]):
        out[i] = _doubled(x[i])


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_caller_has_what_it_calls(dtype):
    x = np.arange(5, dtype=dtype)
    assert _called(x) == 20 and _called(x[:0]) == 0
    out = np.empty_like(x)
    _called_in_parallel(x, out)
    assert np.array_equal(out, 2 * x)


def test_what_they_raise_comes_out():
    with pytest.raises(ValueError, match=r"^x must be at least 0$"):
        _called(np.array([1.0, -1.0]))


def test_no_machine_code_is_made_of_them():
    _called(np.arange(3.0))
    for function, translated in ((_called, True), (_sum_of_doubled, False), (_doubled, False)):
        library = function.overloads[function.signatures[0]].library
        assert (library._final_module in library.codegen._engine._ee._modules) is translated
