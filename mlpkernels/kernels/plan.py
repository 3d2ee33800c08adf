"""The table that a network is to the kernels: its rows, and the tuples of arrays every backend takes.

A plan has one row a layer; a row says what the layer is and where its parameters and outputs lie in
flat arrays. Compiled code runs any plan, so a new architecture compiles nothing.

Weight rows are padded with zeros to `PAD` elements and batch rows to an odd multiple of it: vector loops
then have no edges, loads stay inside a cache line, and a power-of-two width does not map every row
of a batch onto the same few cache sets. No file, named view or op shows the padding.
"""

from typing import Any, NamedTuple

import numpy as np

# Columns of a plan. KIND is the layer's kind; offsets count elements.
KIND, INPUTS, OUTPUTS, ACTIVATION, WEIGHT, WEIGHT_STRIDE, BIAS, OUT, OUT_STRIDE, COLUMNS = range(10)

DENSE = 0  # KIND
IDENTITY, RELU = 0, 1  # ACTIVATION

# Entries of OptimizerState.settings.
RULE, MOMENTUM, NESTEROV, WEIGHT_DECAY, BETA1, BETA2, EPSILON, CLIP_NORM, DECAY_BIAS, SETTINGS = range(10)
SGD, ADAM, ADAMW = 0, 1, 2  # settings[RULE]

PAD = 16
_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


class Model(NamedTuple):
    """A network: plan (L, COLUMNS) int64 and params (P,) of its dtype."""

    plan: np.ndarray
    params: np.ndarray


class OptimizerState(NamedTuple):
    """An optimiser's settings (SETTINGS,) float64, its count of updates step (1,) int64, and its memory.

    first (P,): SGD's velocity or Adam's mean; second (P,): Adam's mean of squares. (0,) where unused.
    """

    settings: np.ndarray
    step: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Source(NamedTuple):
    """Where rows come from: bytes (N, D) uint8, scaled while gathered, or rows (N, D) used as they are.

    The unused one is (0, D). labels (N,) int32 class indices, weights (N,) of the model's dtype.
    """

    bytes: np.ndarray
    rows: np.ndarray
    factor: Any
    offset: Any
    labels: np.ndarray
    weights: np.ndarray


class Workspace(NamedTuple):
    """Room for one mini-batch of `losses.size` rows; what is in it means nothing between calls.

    x: the gathered batch. outputs and deltas: every layer's outputs and the loss's gradient by them.
    grad (P,), losses (B,) float64, corrects (B,) int64, norms: partial sums of the gradient's squares.
    """

    x: np.ndarray
    outputs: np.ndarray
    deltas: np.ndarray
    grad: np.ndarray
    losses: np.ndarray
    corrects: np.ndarray
    norms: np.ndarray


def pad(n: int) -> int:
    """n rounded up to a multiple of PAD."""
    return -(-n // PAD) * PAD


def odd_stride(n: int) -> int:
    """n rounded up to an odd multiple of PAD: 128 rows of 128 floats would share 8 of 64 cache sets."""
    return (pad(n) // PAD | 1) * PAD


def build(layers: list[tuple[int, int, int]]) -> tuple[np.ndarray, int]:
    """The plan of dense layers [(inputs, outputs, activation), …] and the length of its flat parameters."""
    plan = np.zeros((len(layers), COLUMNS), np.int64)
    parameters = out = 0
    for row, (inputs, outputs, activation) in zip(plan, layers, strict=True):
        stride = pad(outputs)
        row[:] = (
            DENSE,
            inputs,
            outputs,
            activation,
            parameters,
            stride,
            parameters + inputs * stride,
            out,
            odd_stride(outputs),
        )
        parameters += inputs * stride + stride
        out += row[OUT_STRIDE]
    return plan, parameters


def zeros(size: int, dtype: Any) -> np.ndarray:
    """size zeros that start on a cache line, which np.zeros does not promise."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size * dtype.itemsize].view(dtype)


def make_workspace(plan: np.ndarray, batch: int, dtype: Any) -> Workspace:
    """Room for mini-batches of up to `batch` rows through `plan`."""
    rows = int(plan[:, OUT_STRIDE].sum()) * batch
    parameters = int(plan[-1, BIAS] + plan[-1, WEIGHT_STRIDE])
    return Workspace(
        x=zeros(odd_stride(int(plan[0, INPUTS])) * batch, dtype),
        outputs=zeros(rows, dtype),
        deltas=zeros(rows, dtype),
        grad=zeros(parameters, dtype),
        losses=np.zeros(batch),
        corrects=np.zeros(batch, np.int64),
        norms=np.zeros(int(plan[:, INPUTS].sum()) + len(plan)),
    )


def weight_view(plan: np.ndarray, layer: int, flat: np.ndarray) -> np.ndarray:
    """Layer's weights (I, O) as a view of a flat array in the parameters' layout."""
    row = plan[layer]
    block = flat[row[WEIGHT] : row[WEIGHT] + row[INPUTS] * row[WEIGHT_STRIDE]]
    return block.reshape(row[INPUTS], row[WEIGHT_STRIDE])[:, : row[OUTPUTS]]


def bias_view(plan: np.ndarray, layer: int, flat: np.ndarray) -> np.ndarray:
    """Layer's biases (O,) as a view of a flat array in the parameters' layout."""
    row = plan[layer]
    return flat[row[BIAS] : row[BIAS] + row[OUTPUTS]]
