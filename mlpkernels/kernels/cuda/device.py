"""Device functions of a dense network's layers for one thread, for users' own @cuda.jit kernels.

A thread computes a row by itself, from arrays wherever they lie: thousands of threads, each with its own inputs, are
what keeps a GPU busy with a small network. For a batch that lies in one array the ops of this backend are faster.

    from mlpkernels.kernels.cuda import device
    from mlpkernels.kernels.cuda.driver import cuda

    network = device.functions("float32")
    dense_row, softmax_row = network.dense_row, network.softmax_row

    @cuda.jit
    def kernel(x, w, b, out):
        row = cuda.grid(1)
        if row < x.shape[0]:
            dense_row(x[row], w, b, 1, out[row])
            softmax_row(out[row], out[row])
"""

from functools import cache
from types import SimpleNamespace

import numpy as np

from .driver import cuda
from .functions import exp, scalar


@cache
def functions(dtype: str) -> SimpleNamespace:
    """The functions of "float32" or "float64", made once.

    activate(z, code): the activation of z, code one of plan's IDENTITY, RELU, TANH, LOGISTIC. slope(gradient, output,
    code): gradient times the slope of the activation that made an output. dense_row(x, w, b, code, out): out (O,) =
    activation(x @ w + b) of x (I,), w (I, O), b (O,), overwritten; not where x lies. dense_row_input(delta, w, x, code,
    dx): dx (I,) = (delta @ w.T) times the slope of the activation that made x. softmax_row(z, out): out (K,) =
    softmax of z, may be z itself. Nothing is checked.
    """
    T = np.dtype(dtype).type
    activate, slope = scalar(dtype).activate, scalar(dtype).slope

    @cuda.jit(device=True)
    def dense_row(x, w, b, code, out):
        for j in range(out.shape[0]):
            total = b[j]
            for i in range(x.shape[0]):
                total += x[i] * w[i, j]
            out[j] = activate(total, code)

    @cuda.jit(device=True)
    def dense_row_input(delta, w, x, code, dx):
        for i in range(dx.shape[0]):
            total = T(0)
            for j in range(delta.shape[0]):
                total += delta[j] * w[i, j]
            dx[i] = slope(total, x[i], code)

    @cuda.jit(device=True)
    def softmax_row(z, out):
        largest = z[0]
        for j in range(1, z.shape[0]):
            if z[j] > largest or z[j] != z[j]:
                largest = z[j]
        total = T(0)
        for j in range(z.shape[0]):
            out[j] = T(exp(z[j] - largest))
            total += out[j]
        for j in range(z.shape[0]):
            out[j] = out[j] / total

    return SimpleNamespace(
        activate=activate, slope=slope, dense_row=dense_row, dense_row_input=dense_row_input, softmax_row=softmax_row
    )
