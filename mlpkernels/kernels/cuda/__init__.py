"""The CUDA backend: the reference's ops and verbs on an NVIDIA GPU, in kernels compiled by Numba's CUDA target."""

from ..plan import IDENTITY, RELU
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
from .ops import (
    adam_step,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    log_softmax,
    sgd_step,
    softmax,
    softmax_cross_entropy,
)
from .verbs import evaluate, loss_and_gradient, predict, train_steps
from .workspace import make_workspace

__all__ = [
    "IDENTITY", "RELU", "adam_step", "batchnorm_backward", "batchnorm_forward", "batchnorm_inference",
    "conv2d_backward_input", "conv2d_backward_params", "conv2d_forward", "dense_backward_input",
    "dense_backward_params", "dense_forward", "dropout", "dropout_backward", "evaluate", "log_softmax",
    "loss_and_gradient", "make_workspace", "maxpool2d_backward", "maxpool2d_forward", "predict", "sgd_step", "softmax",
    "softmax_cross_entropy", "train_steps",
]  # fmt: skip
