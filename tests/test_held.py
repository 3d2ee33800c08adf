"""Tuples behind a pointer: what is read back is what was put there, and nothing of another type is."""

import numpy as np
import pytest
from numba import njit
from problems import DTYPES

from mlpkernels.kernels.cpu.borrow import borrow
from mlpkernels.kernels.cpu.held import held, hold
from mlpkernels.kernels.cpu.simd import pointer_to
from mlpkernels.kernels.plan import OptimizerState


def state(dtype):
    random = np.random.default_rng(0)
    first, second = random.normal(size=(2, 5)).astype(dtype)
    return OptimizerState(random.normal(size=3), np.array([7]), first, second)


@njit
def _there_and_back(optimizer, params):
    kept = held("OptimizerState", hold("OptimizerState", borrow(optimizer), pointer_to(params, 0)))
    kept.first[1] = kept.second[2:].sum()
    return kept.settings.copy(), kept.step[0], kept.first.copy(), kept.second.copy()


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_held_is_read_back_and_is_the_same_memory(dtype):
    given = state(dtype)
    settings, step, first, second = _there_and_back(given, np.zeros(1, dtype))
    assert np.array_equal(settings, given.settings) and step == 7
    assert np.array_equal(first, given.first) and np.array_equal(second, given.second)
    assert given.first[1] == given.second[2:].sum()


@njit
def _as_a_call(optimizer, params):
    return held("Call", hold("Call", optimizer, pointer_to(params, 0))).x_stride


def test_a_tuple_of_other_types_is_refused():
    with pytest.raises(TypeError, match=r"Call to be held must have the types of signatures\.py, got OptimizerState"):
        _as_a_call(state("float32"), np.zeros(1, "float32"))
    with pytest.raises(TypeError, match="the OptimizerState to be held must have the types"):
        _there_and_back(state("float64"), np.zeros(1, "float32"))
