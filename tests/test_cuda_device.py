"""The device functions of the CUDA backend within a kernel of one's own, and what the simulator makes of mistakes."""

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


# ---- the simulator, whose repairs every test of this backend leans on


@pytest.mark.skipif(cuda_here.ON_A_GPU, reason="of the simulator")
def test_what_is_not_written_is_not_a_number():
    @cuda.jit
    def kernel(there, out):
        shared = cuda.shared.array(4, np.float32)
        local = cuda.local.array(4, np.int64)
        out[0], out[1], out[2] = shared[1], local[1], there[1]

    out = np.zeros(3)
    kernel[1, 1](cuda.device_array(4, np.float32), out)
    assert np.isnan(out[[0, 2]]).all() and out[1] == np.iinfo(np.int64).min


@pytest.mark.skipif(cuda_here.ON_A_GPU, reason="of the simulator")
@pytest.mark.parametrize("index", [-1, 4])
def test_what_lies_outside_an_array_is_an_error(index):
    @cuda.jit
    def read(a, out):
        out[0] = a[index]

    @cuda.jit
    def write(a, out):
        a[index] = 1

    for kernel in (read, write):
        with pytest.raises(IndexError):
            kernel[1, 1](np.zeros(4), np.zeros(1))


@pytest.mark.skipif(cuda_here.ON_A_GPU, reason="of the simulator")
def test_a_missing_barrier_shows():
    """Each thread reads what the one before or behind it wrote: one direction of the turns finds it unwritten."""

    @cuda.jit
    def kernel(step, out):
        shared = cuda.shared.array(4, np.float32)
        cuda.syncthreads()
        shared[cuda.threadIdx.x] = 1
        out[cuda.threadIdx.x] = shared[(cuda.threadIdx.x + step) % 4]

    for step in (1, 3):
        out = np.zeros(4)
        kernel[1, 4](step, out)
        assert np.isnan(out).any()
