"""Calls of every op and verb of the CUDA backend, at sizes that take every kernel: for what is recorded of them."""

import itertools

import numpy as np

from mlpkernels import BatchNorm, Conv2d, Dense, MaxPool2d, Network
from mlpkernels.kernels import cuda
from mlpkernels.kernels.cuda import executor
from mlpkernels.kernels.plan import RELU, SETTINGS, OptimizerState


def every_call():
    for dtype in ("float32", "float64"):
        for size in (20, 1100):
            dense(dtype, size)
        layers(dtype)
        rows(dtype)
        for mode, batch in (("phases", 8), ("one launch", 8), ("one launch", 8192)):
            training(dtype, mode, batch, [Dense(200, "relu"), Dense(3)], 7)
        training(dtype, "one launch", 8, [Conv2d(2, 2), BatchNorm(), MaxPool2d(2), Dense(3)], (1, 7, 7))


def dense(dtype, size):
    x, w, b, y = (np.ones(shape, dtype) for shape in ((size, size), (size, size), (size,), (size, size)))
    cuda.dense_forward(x, w, b, RELU, y)
    cuda.dense_backward_params(x, y, w, b)
    cuda.dense_backward_input(y, w, x, RELU, np.ones_like(x))


def layers(dtype):
    def ones(*shape):
        return np.ones(shape, dtype)

    moves = (1, 1), (1, 1)
    for images, channels in ((1, 2), (1200, 8)):
        x, w, b, y = ones(images, 3, 12, 12), ones(channels, 3, 3, 3), ones(channels), ones(images, channels, 12, 12)
        cuda.conv2d_forward(x, w, b, RELU, *moves, y)
        cuda.conv2d_backward_params(x, y, *moves, w, b)
        cuda.conv2d_backward_input(y, w, x, RELU, *moves, np.ones_like(x))
    out, places = ones(2, 3, 6, 6), np.zeros((2, 3, 6, 6), np.int32)
    x = ones(2, 3, 12, 12)
    cuda.maxpool2d_forward(x, (2, 2), (2, 2), (0, 0), out, places)
    cuda.maxpool2d_backward(out, places, x, RELU, np.ones_like(x))
    gamma, mean, variance = ones(3), np.zeros(3), np.ones(3)
    cuda.batchnorm_forward(x, gamma, gamma, 1e-5, RELU, mean, variance, np.ones_like(x))
    cuda.batchnorm_inference(x, gamma, gamma, mean, variance, 1e-5, RELU, np.ones_like(x))
    cuda.batchnorm_backward(x, x, gamma, mean, variance, 1e-5, RELU, np.ones_like(x), ones(3), ones(3))
    cuda.dropout(x, 0.5, 1, 2, 3, np.ones_like(x))
    cuda.dropout_backward(x, 0.5, 1, 2, 3, x, RELU, np.ones_like(x))


def rows(dtype):
    z, out, params = np.ones((4, 3), dtype), np.ones((4, 3), dtype), [np.ones(5, dtype) for _ in range(4)]
    cuda.softmax_cross_entropy(z, np.zeros(4, int), np.ones(4), 4.0, out)
    cuda.binary_cross_entropy(z, np.zeros((4, 3)), np.ones(4), 4.0, out)
    cuda.logistic(z, out)
    cuda.sparse_dense_forward(np.ones((4, 2), np.uint8), 0.5, 1.0, np.ones((2, 3)), np.ones(3), RELU, out)
    for op in (cuda.softmax, cuda.log_softmax):
        op(z, out)
    for momentum, nesterov in itertools.product((0.0, 0.9), (False, True)):
        cuda.sgd_step(*params[:3], 0.1, momentum, nesterov, 0.01)
    cuda.adam_step(*params, 0.1, 0.9, 0.99, 1e-6, 0.01, False, 3)


def training(dtype, mode, batch, layers, inputs):
    """Two steps of a network, whose kernels are those of every other one of its kinds of layers."""
    executor.mode = mode
    net, rows = Network(layers, inputs, dtype=dtype), 2 * batch
    source = net.source(np.ones((rows, *net.shape)), np.zeros(rows, int))
    state = OptimizerState(np.zeros(SETTINGS), np.zeros(1, np.int64), np.zeros(0, dtype), np.zeros(0, dtype))
    work = cuda.make_workspace(net.plan, batch, dtype)
    losses, corrects = np.zeros(2), np.zeros(2, np.int64)
    cuda.train_steps(net.model, state, source, np.arange(rows), batch, 0, 2, np.ones(2), work, losses, corrects)
