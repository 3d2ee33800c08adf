"""The compiled backend: the reference's ops and verbs on kernels compiled by Numba, parallel on the CPU."""

from ..plan import IDENTITY, RELU
from .layout import make_workspace
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

__all__ = [
    "IDENTITY", "RELU", "adam_step", "dense_backward_input", "dense_backward_params", "dense_forward", "evaluate",
    "log_softmax", "loss_and_gradient", "make_workspace", "predict", "sgd_step", "softmax", "softmax_cross_entropy",
    "train_steps",
]  # fmt: skip
