"""The CUDA backend: the reference's ops and verbs on an NVIDIA GPU, in kernels compiled by Numba's CUDA target."""

from ..plan import IDENTITY, LOGISTIC, RELU, TANH
from . import driver as driver
from .layer_ops import (
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
from .loss_ops import (
    binary_cross_entropy,
    log_softmax,
    logistic,
    poisson_loss,
    softmax,
    softmax_cross_entropy,
    squared_error,
)
from .ops import (
    adam_step,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    sgd_step,
    sparse_dense_forward,
)
from .verbs import evaluate, loss_and_gradient, predict, train_steps
from .workspace import make_workspace

__all__ = [
    "IDENTITY", "LOGISTIC", "RELU", "TANH", "adam_step", "batchnorm_backward", "batchnorm_forward",
    "batchnorm_inference", "binary_cross_entropy", "conv2d_backward_input", "conv2d_backward_params",
    "conv2d_forward", "dense_backward_input", "dense_backward_params", "dense_forward", "dropout",
    "dropout_backward", "evaluate", "log_softmax", "logistic", "loss_and_gradient", "make_workspace",
    "maxpool2d_backward", "maxpool2d_forward", "poisson_loss", "predict", "sgd_step", "softmax",
    "softmax_cross_entropy", "sparse_dense_forward", "squared_error", "train_steps",
]  # fmt: skip
