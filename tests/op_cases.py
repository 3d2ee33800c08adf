"""Every public op with small arguments, and the forms that an array may come in."""

import numpy as np

from mlpkernels.kernels.cpu import (
    RELU,
    adam_step,
    batchnorm_backward,
    batchnorm_forward,
    batchnorm_inference,
    binary_cross_entropy,
    conv2d_backward_input,
    conv2d_backward_params,
    conv2d_forward,
    dense_backward_input,
    dense_backward_params,
    dense_forward,
    dropout,
    dropout_backward,
    log_softmax,
    logistic,
    maxpool2d_backward,
    maxpool2d_forward,
    poisson_loss,
    sgd_step,
    softmax,
    softmax_cross_entropy,
    sparse_dense_forward,
    squared_error,
)

B, I, O = 7, 5, 3  # noqa: E741
X, W, Y, POOLED = (2, 3, 5, 4), (4, 3, 2, 3), (2, 4, 3, 4), (2, 3, 3, 2)  # images, weights, and what comes of them
STEPS = {"stride": (2, 1), "padding": (1, 1)}

# Every op with its arguments in order: an input's or output's shape, or a setting.
OPS = {
    dense_forward: {"x": (B, I), "w": (I, O), "b": (O,), "activation": RELU, "out": (B, O)},
    sparse_dense_forward: {"pixels": (B, I), "factor": 0.5, "offset": -1.0, "w": (I, O), "b": (O,), "activation": RELU,
                           "out": (B, O)},
    dense_backward_params: {"x": (B, I), "delta": (B, O), "dw": (I, O), "db": (O,)},
    dense_backward_input: {"delta": (B, O), "w": (I, O), "x": (B, I), "activation": RELU, "dx": (B, I)},
    conv2d_forward: {"x": X, "w": W, "b": (4,), "activation": RELU, **STEPS, "out": Y},
    conv2d_backward_params: {"x": X, "delta": Y, **STEPS, "dw": W, "db": (4,)},
    conv2d_backward_input: {"delta": Y, "w": W, "x": X, "activation": RELU, **STEPS, "dx": X},
    maxpool2d_forward: {"x": X, "kernel": (2, 3), "stride": (2, 2), "padding": (1, 1), "out": POOLED, "places": POOLED},
    maxpool2d_backward: {"delta": POOLED, "places": POOLED, "x": X, "activation": RELU, "dx": X},
    batchnorm_forward: {"x": X, "gamma": (3,), "beta": (3,), "epsilon": 0.25, "activation": RELU, "mean": (3,),
                        "variance": (3,), "out": X},
    batchnorm_inference: {"x": (B, 3), "gamma": (3,), "beta": (3,), "mean": (3,), "variance": (3,), "epsilon": 0.25,
                          "activation": RELU, "out": (B, 3)},
    batchnorm_backward: {"delta": X, "x": X, "gamma": (3,), "mean": (3,), "variance": (3,), "epsilon": 0.25,
                         "activation": RELU, "dx": X, "dgamma": (3,), "dbeta": (3,)},
    dropout: {"x": X, "p": 0.5, "seed": 1, "step": 2, "layer": 3, "out": X},
    dropout_backward: {"delta": X, "p": 0.5, "seed": 1, "step": 2, "layer": 3, "x": X, "activation": RELU, "dx": X},
    softmax_cross_entropy: {"logits": (B, O), "labels": (B,), "weights": (B,), "divisor": 7.0, "dlogits": (B, O)},
    binary_cross_entropy: {"logits": (B, O), "targets": (B, O), "weights": (B,), "divisor": 7.0, "dlogits": (B, O)},
    squared_error: {"outputs": (B, O), "targets": (B, O), "weights": (B,), "divisor": 7.0, "doutputs": (B, O)},
    poisson_loss: {"outputs": (B, O), "targets": (B, O), "weights": (B,), "divisor": 7.0, "doutputs": (B, O)},
    logistic: {"z": X, "out": X},
    softmax: {"logits": (B, O), "out": (B, O)},
    log_softmax: {"logits": (B, O), "out": (B, O)},
    sgd_step: {"params": (I,), "grad": (I,), "velocity": (I,), "learning_rate": 0.1, "momentum": 0.9, "nesterov": True,
               "weight_decay": 0.01},
    adam_step: {"params": (I,), "grad": (I,), "m": (I,), "v": (I,), "learning_rate": 0.1, "beta1": 0.9, "beta2": 0.99,
                "epsilon": 1e-6, "weight_decay": 0.01, "decoupled": False, "step": 3},
}  # fmt: skip
_WRITTEN = {"out", "dw", "db", "dx", "dgamma", "dbeta", "dlogits", "doutputs", "params", "velocity", "m", "v"}
_READ = {"x", "w", "b", "delta", "logits", "outputs", "targets", "z", "weights", "grad", "gamma", "beta"}
_EITHER = {"mean", "variance", "places"}  # written by the forward op, read by the others


def written(op):
    """The names of the arrays that an op writes."""
    made = _EITHER if op in (batchnorm_forward, maxpool2d_forward) else set()
    return [name for name in OPS[op] if name in _WRITTEN | made]


def read(op, integers=False):
    """The names of those that it reads; of integers on demand."""
    given = _READ | (_EITHER - {"places"}) | ({"labels", "places", "pixels"} if integers else set())
    return [name for name in OPS[op] if name in given and name not in written(op)]


INPUTS = [(op, name) for op in OPS for name in read(op)]
OUTPUTS = [(op, name) for op in OPS for name in written(op)]


def arguments(op, dtype):
    """Small whole numbers, so that any number type holds them."""
    random, made = np.random.default_rng(0), {}
    for name, value in OPS[op].items():
        made[name] = value
        if name in ("labels", "places"):
            made[name] = random.integers(0, O, value).astype(np.int32)
        elif name == "pixels":
            made[name] = (random.integers(0, 256, value) * (random.random(value) < 0.4)).astype(np.uint8)
        elif name == "targets":
            made[name] = random.integers(0, 2, value).astype(dtype)
        elif name in written(op) + read(op):
            kind = np.float64 if name in ("mean", "variance") else dtype
            made[name] = random.integers(0 if name in ("v", "weights", "variance") else -3, 4, value).astype(kind)
    return made


def outcome(op, given):
    """What the op returned and what it wrote; what it reads it leaves as it is."""
    names = [name for name in read(op, integers=True) if not any(given[name] is given[w] for w in written(op))]
    before = {name: np.array(given[name]) for name in names}
    returned = op(**given)
    for name in names:
        assert np.array_equal(np.array(given[name]), before[name]), name
    return returned, {name: given[name].tobytes() for name in written(op)}


# ---- forms of an array


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def unaligned(array):
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    raw[...] = array
    return raw


def strided(array):
    wide = np.full([2 * n for n in array.shape], 77, array.dtype)
    part = wide[tuple(slice(0, None, 2) for _ in array.shape)]
    part[...] = array
    return part


FORMS = {
    "read-only": read_only,
    "Fortran-ordered": np.asfortranarray,
    "a list": lambda array: array.tolist(),
    "strided": strided,
    "backwards": lambda array: array[::-1].copy()[::-1],
    "unaligned": unaligned,
    "big-endian": lambda array: array.astype(array.dtype.newbyteorder(">")),
    "float16": lambda array: array.astype(np.float16),
    "float32": lambda array: array.astype(np.float32),
    "float64": lambda array: array.astype(np.float64),
    "long double": lambda array: array.astype(np.longdouble),
    "int8": lambda array: array.astype(np.int8),
    "int64": lambda array: array.astype(np.int64),
    "a subclass": lambda array: array.view(type("Mine", (np.ndarray,), {})),
}
