"""The device functions of the CUDA backend within a kernel of one's own."""

import cuda_here
import numpy as np
import pytest
from problems import DTYPES

from mlpkernels.kernels import reference
from mlpkernels.kernels.cuda import device
from mlpkernels.kernels.cuda.driver import cuda
from mlpkernels.kernels.plan import IDENTITY, LOGISTIC, RELU, TANH

pytestmark = cuda_here.quiet


@pytest.fixture(params=DTYPES)
def dtype(request):
    return request.param


def predictor(dtype):
    """A kernel of a user's: a thread a row, two layers and a softmax."""
    functions = device.functions(dtype)
    dense_row, softmax_row = functions.dense_row, functions.softmax_row

    @cuda.jit
    def kernel(x, w1, b1, w2, b2, hidden, out):
        row = cuda.grid(1)
        if row < x.shape[0]:
            dense_row(x[row], w1, b1, RELU, hidden[row])
            dense_row(hidden[row], w2, b2, IDENTITY, out[row])
            softmax_row(out[row], out[row])

    return kernel


def test_a_network_for_every_thread(dtype):
    random = np.random.default_rng(0)
    shapes = ((5, 4), (4, 6), (6,), (6, 3), (3,), (5, 6), (5, 3))
    x, w1, b1, w2, b2, hidden, out = (random.normal(size=shape).astype(dtype) for shape in shapes)
    predictor(dtype)[2, 4](x, w1, b1, w2, b2, hidden, out)
    wanted = np.maximum(x.astype(float) @ w1 + b1, 0) @ w2 + b2
    reference.softmax(wanted, wanted)
    np.testing.assert_allclose(out, wanted, rtol=1e-5)


def test_the_gradient_by_a_thread_s_inputs(dtype):
    functions = device.functions(dtype)
    dense_row_input = functions.dense_row_input

    @cuda.jit
    def kernel(delta, w, x, code, dx):
        row = cuda.grid(1)
        if row < x.shape[0]:
            dense_row_input(delta[row], w, x[row], code, dx[row])

    random = np.random.default_rng(0)
    delta, w, x = (random.uniform(-0.9, 0.9, shape).astype(dtype) for shape in ((5, 3), (4, 3), (5, 4)))
    for code in (IDENTITY, RELU, TANH, LOGISTIC):
        dx, wanted = np.empty_like(x), np.empty(x.shape)
        kernel[2, 4](delta, w, x, code, dx)
        reference.dense_backward_input(*(a.astype(float) for a in (delta, w, x)), code, wanted)
        np.testing.assert_allclose(dx, wanted, rtol=1e-5, atol=1e-7)


def test_a_probability_that_is_not_a_number_stays_one(dtype):
    softmax_row = device.functions(dtype).softmax_row

    @cuda.jit
    def kernel(z, out):
        softmax_row(z, out)

    out = np.zeros(3, dtype)
    kernel[1, 1](np.array([1, np.nan, 2], dtype), out)
    assert np.isnan(out).all()
