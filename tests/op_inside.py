"""The ops of convolutions, pools, batch norms and dropout inside a reader's own @njit function."""

from numba import njit

from mlpkernels.kernels.cpu import (
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    conv2d_backward_input,
    conv2d_backward_params,
    conv2d_forward,
    dropout,
    dropout_backward,
    maxpool2d_backward,
    maxpool2d_forward,
)


@njit
def inside_conv_forward(x, w, b, activation, stride, padding, out):
    conv2d_forward(x, w, b, activation, stride, padding, out)


@njit
def inside_conv_backward_params(x, delta, stride, padding, dw, db):
    conv2d_backward_params(x, delta, stride, padding, dw, db)


@njit
def inside_conv_backward_input(delta, w, x, activation, stride, padding, dx):
    conv2d_backward_input(delta, w, x, activation, stride, padding, dx)


@njit
def inside_pool_forward(x, kernel, stride, padding, out, places):
    maxpool2d_forward(x, kernel, stride, padding, out, places)


@njit
def inside_pool_backward(delta, places, x, activation, dx):
    maxpool2d_backward(delta, places, x, activation, dx)


@njit
def inside_norm_forward(x, gamma, beta, epsilon, activation, mean, variance, out):
    batchnorm_forward(x, gamma, beta, epsilon, activation, mean, variance, out)


@njit
def inside_norm_inference(x, gamma, beta, mean, variance, epsilon, activation, out):
    batchnorm_inference(x, gamma, beta, mean, variance, epsilon, activation, out)


@njit
def inside_norm_backward(delta, x, gamma, mean, variance, epsilon, activation, dx, dgamma, dbeta):
    batchnorm_backward(delta, x, gamma, mean, variance, epsilon, activation, dx, dgamma, dbeta)


@njit
def inside_dropout(x, p, seed, step, layer, out):
    dropout(x, p, seed, step, layer, out)


@njit
def inside_dropout_backward(delta, p, seed, step, layer, x, activation, dx):
    dropout_backward(delta, p, seed, step, layer, x, activation, dx)


INSIDE = {
    conv2d_forward: inside_conv_forward,
    conv2d_backward_params: inside_conv_backward_params,
    conv2d_backward_input: inside_conv_backward_input,
    maxpool2d_forward: inside_pool_forward,
    maxpool2d_backward: inside_pool_backward,
    batchnorm_forward: inside_norm_forward,
    batchnorm_inference: inside_norm_inference,
    batchnorm_backward: inside_norm_backward,
    dropout: inside_dropout,
    dropout_backward: inside_dropout_backward,
}
