"""Sums of a batch's rows: the order of their terms, at every width, and what lies beside them."""

import numpy as np
import pytest
from problems import DTYPES
from support import from_python

from mlpkernels.kernels.cpu import sums

column_sums, take_columns = from_python(sums.column_sums), from_python(sums.take_columns)


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_are_summed_in_the_order_of_their_rows(dtype):
    """Bit by bit, from 0, at any number of columns; what lies between the rows is not added."""
    random = np.random.default_rng(0)
    for columns in (*range(1, 36), 64, 100, 127, 128, 129, 300):
        for rows in (0, 1, 2, 9, 70):
            at, stride = 3, columns + random.integers(0, 20)
            deltas = np.full(at + rows * stride, np.nan, dtype)
            block = deltas[at:].reshape(rows, stride)[:, :columns]
            block[...] = random.normal(size=(rows, columns))
            out = np.full(columns + 2, 7, dtype)
            column_sums(deltas, at, stride, rows, out[1:-1])
            wanted = np.zeros(columns, dtype)
            for row in block:
                wanted += row
            assert out[1:-1].tobytes() == wanted.tobytes(), (columns, rows)
            assert out[0] == out[-1] == 7


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_no_number_stays_in_its_column(dtype):
    for columns in (5, 16, 40):
        deltas = np.ones((4, columns), dtype)
        deltas[1, 2], deltas[2, 3], deltas[:, 4] = np.nan, np.inf, -0.0
        out = np.empty(columns, dtype)
        column_sums(deltas.ravel(), 0, columns, 4, out)
        wanted = np.full(columns, 4, dtype)
        wanted[2:5] = np.nan, np.inf, 0
        assert np.array_equal(out, wanted, equal_nan=True) and not np.signbit(out[4])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_descent_takes_the_rate_times_the_sums(dtype):
    """With the bits of a sum, a product and a difference, each rounded."""
    random = np.random.default_rng(0)
    for columns in (1, 7, 16, 40, 128, 131):
        deltas, start = random.normal(size=(9, columns)).astype(dtype), random.normal(size=columns + 2).astype(dtype)
        summed, out = np.empty(columns, dtype), start.copy()
        column_sums(deltas.ravel(), 0, columns, 9, summed)
        take_columns(deltas.ravel(), 0, columns, 9, out[1:-1], True, 0.3)
        assert out[1:-1].tobytes() == (start[1:-1] - np.dtype(dtype).type(0.3) * summed).tobytes()
        assert out[0] == start[0] and out[-1] == start[-1]
