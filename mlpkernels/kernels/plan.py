"""The table that a network is to the kernels: its rows, and the tuples of arrays every backend takes.

A plan has one row a layer; a row says what the layer is and where its parameters and outputs lie in
flat arrays. Compiled code runs any plan, so a new architecture compiles nothing.

Weight rows are padded with zeros to `PAD` elements and batch rows to an odd multiple of it: vector loops
then have no edges, loads stay inside a cache line, and a power-of-two width does not map every row
of a batch onto the same few cache sets. No file, named view or op shows the padding.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

# Columns of a plan; offsets count elements. Weights are (INPUTS, OUTPUTS), a convolution's (C·kh·kw, channels), a batch
# norm's (1, channels); a layer without has 0 of each. TAKES and GIVES are a sample's elements before and behind it.
KIND, INPUTS, OUTPUTS, ACTIVATION, WEIGHT, WEIGHT_STRIDE, BIAS, OUT, OUT_STRIDE, TAKES, GIVES = range(11)
# IMAGE: what the layer gives is (OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH), from (CHANNELS, HEIGHT, WIDTH); a flat one's
# height and width are 1. BUFFER: where a batch norm's running statistics begin.
IMAGE, CHANNELS, HEIGHT, WIDTH, OUT_CHANNELS, OUT_HEIGHT, OUT_WIDTH, BUFFER = range(11, 19)
# LOSS: what the network is trained to; the last row's counts.
KERNEL_H, KERNEL_W, STRIDE_H, STRIDE_W, PADDING_H, PADDING_W, LOSS, COLUMNS = range(19, 27)

DENSE, CONV, POOL, DROPOUT, BATCH_NORM = range(5)  # KIND
IDENTITY, RELU, TANH, LOGISTIC = range(4)  # ACTIVATION; of images IDENTITY and RELU alone
SOFTMAX, BINARY, SQUARED, POISSON = range(4)  # LOSS

DROP, BN_MOMENTUM, BN_EPSILON, RATES = range(4)  # entries of a row of Model.rates

# Entries of OptimizerState.settings.
RULE, MOMENTUM, NESTEROV, WEIGHT_DECAY, BETA1, BETA2, EPSILON, CLIP_NORM, DECAY_BIAS, SEED = range(10)
EPSILON_HAT, WEIGHT_SUM, PENALTY, SETTINGS = range(10, 14)
SGD, ADAM, ADAMW = 0, 1, 2  # settings[RULE]

PAD = 16
_ALIGNMENT = 64  # bytes: one cache line, one AVX-512 register


class Row(NamedTuple):
    """What `build` makes a plan's row of: shapes are (C, H, W), a flat one's (C, 1, 1); weights (I, O), 0 without.

    rates: probability of dropout, batch norm's momentum and epsilon.
    """

    kind: int
    shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    weights: tuple[int, int] = (0, 0)
    activation: int = IDENTITY
    image: bool = False
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    rates: tuple[float, float, float] = (0.0, 0.0, 0.0)


class Model(NamedTuple):
    """A network: plan (L, COLUMNS) int64, params (P,) of its dtype, and what few layers need.

    buffers (S,) float64: for each batch norm, from its BUFFER on, running means, running variances (WEIGHT_STRIDE
    elements each; values that the network's dtype holds exactly) and, in PAD elements, the count of batches.
    rates (L, RATES) float64.
    """

    plan: np.ndarray
    params: np.ndarray
    buffers: np.ndarray = np.zeros(0)
    rates: np.ndarray = np.zeros((0, RATES))


class OptimizerState(NamedTuple):
    """An optimiser's settings (SETTINGS,) float64, its count of updates step (1,) int64, and its memory.

    first (P,): SGD's velocity or Adam's mean; second (P,): Adam's mean of squares. (0,) where unused.
    settings[SEED], with the step, is what dropout's masks come from. Flags, 0 or 1: EPSILON_HAT: Adam's epsilon is
    added before the bias corrections, the efficient order of the paper's section 2. WEIGHT_SUM: a mini-batch's
    gradient is divided by the sum of its weights, unless that is 0, in place of its rows. PENALTY: weight decay is that
    of a penalty decay · Σ w² / 2 on the sum of the mini-batch's losses, and counts in what is reported of them.
    """

    settings: np.ndarray
    step: np.ndarray
    first: np.ndarray
    second: np.ndarray


class Source(NamedTuple):
    """Where rows come from: bytes (N, D) uint8, scaled while gathered, or rows (N, D) used as they are.

    The unused one is (0, D). labels (N,) int32 class indices, weights (N,) of the model's dtype. skip_zeros: whether
    the compiled backend leaves bytes that are zero out of a dense first layer, for at most 65,536 columns; the result
    is the same, with an offset but for rounding. targets (N, K) of the model's dtype, (0, 0) unless the loss is of
    targets, not classes.
    """

    bytes: np.ndarray
    rows: np.ndarray
    factor: Any
    offset: Any
    labels: np.ndarray
    weights: np.ndarray
    skip_zeros: bool = False
    targets: np.ndarray = np.zeros((0, 0))


class Workspace(NamedTuple):
    """Room for one mini-batch of `losses.size` rows; what is in it means nothing between calls.

    x: the gathered batch. outputs and deltas: every flat layer's outputs and the loss's gradient by them.
    grad (P,), losses (B,) float64, corrects (B,) int64, norms: partial sums of the gradient's squares. scaled (256,):
    what each byte is to the network, before the offset.
    The rest is the compiled backend's, empty without layers that need it: see kernels/cpu/layout.py. It cuts the sums
    over a batch of images by the rows that there is room for, so a workspace for more has other roundings. shares: how
    it divides a step among threads, see kernels/cpu/shares.py: kept from call to call, and without effect on a number.
    """

    x: np.ndarray
    outputs: np.ndarray
    deltas: np.ndarray
    grad: np.ndarray
    losses: np.ndarray
    corrects: np.ndarray
    norms: np.ndarray
    scaled: np.ndarray
    images: np.ndarray
    layout: np.ndarray
    moments: np.ndarray
    shares: np.ndarray = np.zeros(0, np.int64)


def pad(n: int) -> int:
    """n rounded up to a multiple of PAD."""
    return -(-n // PAD) * PAD


def odd_stride(n: int) -> int:
    """n rounded up to an odd multiple of PAD: 128 rows of 128 floats would share 8 of 64 cache sets."""
    return (pad(n) // PAD | 1) * PAD


def build(layers: Sequence[Row | tuple[int, int, int]], loss: int = SOFTMAX) -> tuple[np.ndarray, int]:
    """The plan of rows, or of dense layers (inputs, outputs, activation), and the length of its flat parameters."""
    plan = np.zeros((len(layers), COLUMNS), np.int64)
    rows = [layer if isinstance(layer, Row) else dense(*layer) for layer in layers]
    parameters = out = buffer = 0
    for i, (row, made) in enumerate(zip(plan, rows, strict=True)):
        (inputs, outputs), stride = made.weights, pad(made.weights[1])
        gives = math.prod(made.out_shape)
        row[: IMAGE + 1] = (
            made.kind, inputs, outputs, made.activation, parameters, stride, parameters + inputs * stride, out,
            odd_stride(gives), math.prod(made.shape), gives, made.image,
        )  # fmt: skip
        if made.image and i + 1 < len(rows) and rows[i + 1].image:
            row[OUT_STRIDE] = 0  # it never lies flat
        row[CHANNELS:BUFFER] = *made.shape, *made.out_shape
        row[BUFFER] = buffer
        row[KERNEL_H:LOSS] = *made.kernel, *made.stride, *made.padding
        parameters += (inputs + (outputs > 0)) * stride
        out += row[OUT_STRIDE]
        buffer += 2 * stride + PAD if made.kind == BATCH_NORM else 0
    plan[-1:, LOSS] = loss
    return plan, parameters


def dense(inputs: int, outputs: int, activation: int) -> Row:
    """A dense layer's row."""
    return Row(DENSE, (inputs, 1, 1), (outputs, 1, 1), (inputs, outputs), activation)


def buffer_size(plan: np.ndarray) -> int:
    """The length of Model.buffers."""
    norms = plan[plan[:, KIND] == BATCH_NORM]
    return int((2 * norms[:, WEIGHT_STRIDE] + PAD).sum())


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
        x=zeros(odd_stride(int(plan[0, TAKES])) * batch, dtype),
        outputs=zeros(rows, dtype),
        deltas=zeros(rows, dtype),
        grad=zeros(parameters, dtype),
        losses=np.zeros(batch),
        corrects=np.zeros(batch, np.int64),
        norms=np.zeros(int(plan[:, INPUTS].sum()) + len(plan)),
        scaled=zeros(256, dtype),
        images=zeros(0, dtype),
        layout=np.zeros(0, np.int64),
        moments=np.zeros(0),
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


def tensor_view(plan: np.ndarray, layer: int, flat: np.ndarray) -> np.ndarray:
    """Layer's weights as its op takes them: (I, O), a convolution's (O, C, kh, kw), a batch norm's (C,).

    A view of a flat array in the parameters' layout, never a copy; C is the layer's CHANNELS.
    """
    row, weights = plan[layer], weight_view(plan, layer, flat)
    if row[KIND] == CONV:
        split = weights.reshape(row[CHANNELS], row[KERNEL_H], row[KERNEL_W], row[OUTPUTS])
        return split.transpose(3, 0, 1, 2)
    return weights[0] if row[KIND] == BATCH_NORM else weights


def buffer_views(plan: np.ndarray, layer: int, buffers: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A batch norm's running means (C,), running variances (C,) and count of batches (1,) as views of buffers."""
    row = plan[layer]
    mean, stride, channels = int(row[BUFFER]), int(row[WEIGHT_STRIDE]), int(row[OUTPUTS])
    variance, count = mean + stride, mean + 2 * stride
    return buffers[mean : mean + channels], buffers[variance : variance + channels], buffers[count : count + 1]
