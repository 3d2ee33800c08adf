"""What a layer is: its sizes, its activation, its row of a plan and the initial values of its parameters."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from .checks import check_integer, check_number, check_pair
from .initial import INITS, check_init, initial_values
from .kernels import plan
from .kernels.plan import Row
from .tensors import COUNT, STATISTICS

__all__ = [
    "ACTIVATIONS", "INITS", "BatchNorm", "Conv2d", "Dense", "Dropout", "Layer", "MaxPool2d", "check_init",
    "check_stack", "from_json", "initial_values", "module_numbers", "rows", "tensor_shapes",
]  # fmt: skip

ACTIVATIONS = {None: plan.IDENTITY, "relu": plan.RELU, "tanh": plan.TANH, "logistic": plan.LOGISTIC}
_OF_IMAGES = {None, "relu"}
Shape = tuple[int, ...]  # of a sample: (C, H, W), or (D,) where it is flat
Pair = tuple[int, int]


class _Layer:
    """What layers share; each has a method row(shape) too, its row of a plan for samples of that shape."""

    kind: ClassVar[str]

    def __repr__(self) -> str:
        parts = []
        for field in fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, tuple) and value[0] == value[1]:
                value = value[0]
            if field.default is MISSING:
                parts.append(repr(value))
            elif value != self._default(field.name, field.default):
                parts.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def _default(self, name: str, default: Any) -> Any:
        return default

    @property
    def modules(self) -> int:
        """How many modules of the equal torch.nn.Sequential this is: the layer itself and its activation."""
        return 2 if self.code else 1

    @property
    def code(self) -> int:
        """The activation's code in a plan."""
        return ACTIVATIONS[getattr(self, "activation", None)]

    def to_json(self) -> dict[str, Any]:
        """This layer as a dictionary of plain values, for a model file."""
        return {"kind": self.kind, **{field.name: getattr(self, field.name) for field in fields(self)}}  # type: ignore[arg-type]

    def initial(self, row: Row, init: str, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Weights and biases to start from, shaped as in a plan, for the layer's row; init: the network's."""
        inputs, outputs = row.weights
        # A weight of a convolution is one tap of the kernel: as in torch, its fans count all taps.
        fan_out = outputs * math.prod(row.kernel)
        return initial_values(getattr(self, "init", None) or init, inputs, outputs, generator, fan_out)


@dataclass(frozen=True, repr=False)
class Dense(_Layer):
    """A fully connected layer, activation(x @ w + b): x (B, I), w (I, outputs), b (outputs,).

    Behind an image its inputs are the image's values in the order channel, row, column. activation is "relu", "tanh",
    "logistic" or None; init is one of `INITS`, or None for the network's. TypeError or ValueError, naming the argument,
    for anything else.
    """

    kind: ClassVar[str] = "dense"
    outputs: int
    activation: str | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        check_integer(self, "outputs", 1)
        _check_words(self)

    def row(self, shape: Shape) -> Row:
        """The plan's row."""
        return plan.dense(math.prod(shape), self.outputs, self.code)


@dataclass(frozen=True, repr=False)
class Conv2d(_Layer):
    """A convolution of images, activation(conv(x, w) + b), as torch.nn.Conv2d computes it: a cross-correlation.

    x (B, C, H, W) becomes (B, channels, H', W') with H' = (H + 2 · padding - kernel) // stride + 1; w (channels, C,
    kh, kw), b (channels,). kernel, stride and padding (rows of zeros on each side, fewer than the kernel has) are
    integers or pairs (height, width). Behind it, a maximum pool and a ReLU may change places: MaxPool2d after
    Conv2d(…, activation="relu") gives what a ReLU after the pool would. activation is "relu" or None; init and errors:
    as `Dense`.
    """

    kind: ClassVar[str] = "conv2d"
    channels: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair = 0
    activation: str | None = None
    init: str | None = None

    def __post_init__(self) -> None:
        check_integer(self, "channels", 1)
        kernel, _, padding = _check_window(self)
        if padding[0] >= kernel[0] or padding[1] >= kernel[1]:
            raise ValueError(f"Conv2d: padding={self.padding}: less than the kernel, {kernel}, was wanted")
        _check_words(self, _OF_IMAGES)

    def row(self, shape: Shape) -> Row:
        """The plan's row."""
        kernel, stride, padding = _window(self)
        size = _steps("kernel", shape, kernel, stride, padding)
        weights = shape[0] * math.prod(kernel), self.channels
        return Row(
            plan.CONV, _image(shape), (self.channels, *size), weights, self.code, True, kernel, stride, padding
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class MaxPool2d(_Layer):
    """The maximum of every window of an image, (B, C, H, W) to (B, C, H', W'), as torch.nn.MaxPool2d.

    kernel, stride (None: the kernel, windows side by side) and padding (at most half the kernel; it never is the
    maximum) are integers or pairs (height, width). H' = (H + 2 · padding - kernel) // stride + 1: what only a last,
    incomplete window would cover is left out. TypeError or ValueError names an argument that is anything else.
    """

    kind: ClassVar[str] = "maxpool2d"
    kernel: int | Pair
    stride: int | Pair | None = None
    padding: int | Pair = 0

    def __post_init__(self) -> None:
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel)
        kernel, _, padding = _check_window(self)
        if 2 * padding[0] > kernel[0] or 2 * padding[1] > kernel[1]:
            raise ValueError(f"MaxPool2d: padding={self.padding}: at most half the kernel, {kernel}, was wanted")

    def _default(self, name: str, default: Any) -> Any:
        same = name == "stride" and self.stride == self.kernel
        return _brief(self.stride) if same else default

    def row(self, shape: Shape) -> Row:
        """The plan's row."""
        kernel, stride, padding = _window(self)
        size = _steps("window", shape, kernel, stride, padding)
        return Row(
            plan.POOL, _image(shape), (shape[0], *size), image=True, kernel=kernel, stride=stride, padding=padding
        )  # fmt: skip


@dataclass(frozen=True, repr=False)
class Dropout(_Layer):
    """While training, sets each value to 0 with probability p and divides the others by 1 - p; else does nothing.

    The masks are a function of the seed, the step, the layer and the value's place: the same with any number of
    threads. 0 <= p < 1. TypeError or ValueError for another p.
    """

    kind: ClassVar[str] = "dropout"
    p: float

    def __post_init__(self) -> None:
        check_number(self, "p", "a probability from 0 to below 1", 0, 1)

    def row(self, shape: Shape) -> Row:
        """The plan's row."""
        return Row(plan.DROPOUT, _image(shape), _image(shape), image=len(shape) == 3, rates=(self.p, 0, 0))


@dataclass(frozen=True, repr=False)
class BatchNorm(_Layer):
    """Batch normalisation, activation(gamma · (x - mean) / sqrt(variance + epsilon) + beta), as torch.nn.BatchNorm1d.

    Behind an image mean, variance, gamma and beta are each channel's (BatchNorm2d), else each feature's. Training
    takes mean and variance from the mini-batch, which needs more than one value of each; predicting and evaluating
    take the running ones: running = (1 - momentum) · running + momentum · new, with the unbiased variance. gamma
    starts as 1, beta as 0. Dense(128), BatchNorm("relu") is torch's Linear, BatchNorm1d, ReLU. activation: as `Dense`,
    behind an image "relu" or None. TypeError or ValueError names an argument out of its range.
    """

    kind: ClassVar[str] = "batchnorm"
    activation: str | None = None
    momentum: float = 0.1
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        _check_words(self)
        check_number(self, "momentum", "a number from 0 to 1", 0, math.nextafter(1, 2))
        check_number(self, "epsilon", "a finite number above 0", 0, math.inf, open_low=True)

    def row(self, shape: Shape) -> Row:
        """The plan's row."""
        if len(shape) == 3:
            _check_words(self, _OF_IMAGES, " behind an image")
        rates = (0.0, self.momentum, self.epsilon)
        image = _image(shape)
        return Row(plan.BATCH_NORM, image, image, (1, shape[0]), self.code, len(shape) == 3, rates=rates)

    def initial(self, row: Row, init: str, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """gamma (1, C) and beta (C,): ones and zeros."""
        return np.ones(row.weights), np.zeros(row.weights[1])


Layer = Dense | Conv2d | MaxPool2d | Dropout | BatchNorm
_KINDS: dict[str, type[Layer]] = {layer.kind: layer for layer in (Dense, Conv2d, MaxPool2d, Dropout, BatchNorm)}


def from_json(layer: Mapping[str, Any]) -> Layer:
    """The layer that `to_json` described. ValueError, KeyError or TypeError where it describes none."""
    kind, options = layer["kind"], {name: value for name, value in layer.items() if name != "kind"}
    if kind not in _KINDS:
        raise ValueError(f"a layer of kind {kind!r}, which this version does not have")
    return _KINDS[kind](**options)


# ---- stacks of layers


def check_stack(stack: Sequence[Layer]) -> None:
    """Refuse, by ValueError or TypeError, what is no sequence of layers ending in logits."""
    if not stack:
        raise ValueError("layers: at least one layer was wanted")
    for layer in stack:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: {layer!r} is no layer; Dense(128, activation='relu') is one")
    last = stack[-1]
    if not isinstance(last, Dense):
        raise ValueError(f"layers: the last is {last!r}; a Dense was wanted, since its outputs are the logits")
    if last.activation is not None:
        raise ValueError(
            f"layers: the last has activation {last.activation!r}; None was wanted, since its outputs are the logits"
        )


def rows(stack: Sequence[Layer], shape: Shape) -> list[Row]:
    """The plan's rows of a stack for samples of `shape`.

    (C, H, W) is an image where a convolution or a pool reads it, with nothing but Dropout and BatchNorm before; for a
    Dense, and what stands before it, it is flat. ValueError names a layer that its input does not suit.
    """
    inputs = shape
    readers = [layer for layer in stack if not isinstance(layer, (Dropout, BatchNorm))]
    if len(shape) != 3 or isinstance(readers[0], Dense):
        shape = (math.prod(shape),)
    made: list[Row] = []
    for number, layer in enumerate(stack):
        if isinstance(layer, (Conv2d, MaxPool2d)) and len(shape) != 3:
            behind = any(isinstance(before, Dense) for before in stack[:number])
            wanted = (1, *inputs) if len(inputs) == 2 else "(C, H, W)"
            remedy = "put it before the first Dense" if behind else f"give the network inputs={wanted}"
            raise ValueError(
                f"layers[{number}], {layer!r}: an image (C, H, W) was wanted, and {shape[0]} flat values reach it: "
                f"{remedy}"
            )
        try:
            row = layer.row(shape)
        except ValueError as error:
            raise ValueError(f"layers[{number}], {layer!r}: {error}") from None
        made.append(row)
        shape = row.out_shape if row.image else row.out_shape[:1]
    return made


def module_numbers(stack: Sequence[Layer], made: Sequence[Row]) -> tuple[int, ...]:
    """Where each layer of a stack stands in the equal torch.nn.Sequential, given its rows.

    A module of its own is each activation, and Flatten where a Dense reads what a layer gave as an image.
    """
    numbers, module = [], 0
    for number, layer in enumerate(stack):
        if isinstance(layer, Dense) and number > 0 and made[number - 1].image:
            module += 1
        numbers.append(module)
        module += layer.modules
    return tuple(numbers)


def tensor_shapes(stack: Sequence[Layer], shape: Shape) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of the equal torch.nn.Sequential, by name, for samples of `shape`."""
    made = rows(stack, shape)
    shapes: dict[str, tuple[int, ...]] = {}
    for module, row in zip(module_numbers(stack, made), made, strict=True):
        inputs, outputs = row.weights
        weights = {
            plan.DENSE: (outputs, inputs), plan.CONV: (outputs, row.shape[0], *row.kernel), plan.BATCH_NORM: (outputs,),
        }  # fmt: skip
        if row.kind in weights:
            shapes |= {f"{module}.weight": weights[row.kind], f"{module}.bias": (outputs,)}
        if row.kind == plan.BATCH_NORM:
            shapes |= {f"{module}.{name}": () if name == COUNT else (outputs,) for name in STATISTICS}
    return shapes


# ---- checks


def _check_words(layer: Any, activations: Collection[str | None] = ACTIVATIONS, where: str = "") -> None:
    """Refuse an activation or, where the layer has one, an init that is none."""
    if layer.activation not in activations:
        wanted = ", ".join(repr(name) for name in ACTIVATIONS if name and name in activations)
        raise ValueError(f"{type(layer).__name__}: activation={layer.activation!r}: {wanted} or None was wanted{where}")
    if getattr(layer, "init", None) is not None:
        check_init(layer.init)


def _check_window(layer: Any) -> tuple[Pair, Pair, Pair]:
    for name, low in (("kernel", 1), ("stride", 1), ("padding", 0)):
        check_pair(layer, name, low)
    return _window(layer)


def _window(layer: Any) -> tuple[Pair, Pair, Pair]:
    """Kernel, stride and padding, once they are checked."""
    return layer.kernel, layer.stride, layer.padding


def _brief(pair: Any) -> Any:
    return pair[0] if pair[0] == pair[1] else pair


def _image(shape: Shape) -> tuple[int, int, int]:
    """A sample's shape as a row has it: a flat one's height and width are 1."""
    channels, height, width = shape if len(shape) == 3 else (shape[0], 1, 1)
    return channels, height, width


def _steps(word: str, shape: Shape, kernel: Pair, stride: Pair, padding: Pair) -> Pair:
    """(H', W') of a window that moves over an image; ValueError where it fits nowhere."""
    high, wide = (n + 2 * border for n, border in zip(shape[1:], padding, strict=True))
    if kernel[0] > high or kernel[1] > wide:
        raise ValueError(
            f"its {word}, {kernel[0]} x {kernel[1]}, is larger than what reaches it, {high} x {wide} with its padding, "
            f"and would leave nothing: take a smaller {word} or remove pools and strides before it"
        )
    return (high - kernel[0]) // stride[0] + 1, (wide - kernel[1]) // stride[1] + 1
