"""A network from another program's operations: what is no layer of ours goes into the scaling or into neighbours."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import ModelFileError
from ..layers import BatchNorm, Conv2d, Dense, Layer, MaxPool2d
from ..network import Network
from ..scaling import Scaling
from .operations import Activation, Affine, Convolution, Normalisation, Operation, Pool, Product, refuse


class Reading(NamedTuple):
    """What a file does not tell; None stands for the usual.

    scaling: of raw inputs to what the file's network takes; where it has as many values as the images have channels,
    one a channel. classes: labels in the order of the outputs. loss: what
    the outputs mean, a name of `losses.LOSSES`. dtype: of the parameters.
    """

    scaling: Scaling | None = None
    classes: Sequence[int | str] | None = None
    loss: str | None = None
    dtype: Any = "float32"


@np.errstate(all="ignore")  # what then is not finite is named
def assemble(path: str, operations: Sequence[Operation], shape: tuple[int, ...], reading: Reading) -> Network:
    """The network that does the operations to samples of `shape`. ModelFileError names what no layer can do."""
    given = _spread(path, reading.scaling, shape)
    scaled, body = _leading(_activations_first(_as_read(operations, shape)))
    body = _folded(path, body)
    layers, values = _layers(path, body)
    loss = reading.loss or _usual_loss(path, body)
    try:
        scaling = _scaling(given, scaled, shape)
        network = Network(layers, shape, loss=loss, classes=reading.classes, dtype=reading.dtype, scaling=scaling)
        network.load_state_dict(dict(zip(network.state_dict(), values, strict=True)))
    except (ValueError, TypeError) as error:
        raise ModelFileError(f"{path}: as a network of this library: {error}") from None
    return network


def _usual_loss(path: str, body: Sequence[Operation]) -> str:
    last = body[-1]
    assert isinstance(last, Product)
    if last.weights.shape[1] == 1:
        raise refuse(
            path, last.where, "one output, and nothing tells whether it is a yes or no or a number: give the loss, "
            "binary, squared-error or poisson",
        )  # fmt: skip
    return "cross-entropy"


# ---- scaling


def _spread(path: str, given: Scaling | None, shape: tuple[int, ...]) -> Scaling | None:
    """The given scaling with a value for each input, where it has one for each channel."""
    if given is None or given.width in (None, math.prod(shape)):
        return given
    if len(shape) != 3 or given.width != shape[0]:
        kind = f"channel or pixel of {' x '.join(map(str, shape))}" if len(shape) == 3 else f"column of {shape[0]}"
        raise ModelFileError(f"{path}: a scaling of {given.width} values; one for all, or one a {kind} was wanted")
    pixels = math.prod(shape[1:])
    return Scaling(given.kind, np.repeat(given.factor, pixels), np.repeat(given.offset, pixels))


def _leading(operations: Sequence[Operation]) -> tuple[Affine | None, list[Operation]]:
    """(what the file does to its inputs before the first layer, the rest)

    An activation needs a layer before it: the last Affine then stays with the rest, where it becomes a Normalisation.
    """
    count = next((k for k, operation in enumerate(operations) if not isinstance(operation, Affine)), len(operations))
    if 0 < count < len(operations) and isinstance(operations[count], Activation):
        count -= 1
    whole: Affine | None = None
    for operation in operations[:count]:
        assert isinstance(operation, Affine)
        whole = operation if whole is None else _then(whole, operation)
    return whole, list(operations[count:])


def _then(first: Affine, second: Affine) -> Affine:
    """One after the other, of one sample's shape."""
    return Affine(second.where, first.factor * second.factor, first.offset * second.factor + second.offset)


def _scaling(given: Scaling | None, own: Affine | None, shape: tuple[int, ...]) -> Scaling | None:
    """The given scaling, then the file's own, of which nothing tells what range of raw inputs it is for."""
    if own is None:
        return given
    size = math.prod(shape)
    factor, offset = (np.broadcast_to(part.reshape(-1), size) for part in (own.factor, own.offset))
    if given is not None:
        factor, offset = given.factor * factor, given.offset * factor + offset
    if (factor == factor[0]).all() and (offset == offset[0]).all():
        return Scaling("standard", float(factor[0]), float(offset[0]))
    return Scaling("standard", factor, offset)


# ---- operations into their neighbours


def _as_read(operations: Sequence[Operation], shape: tuple[int, ...]) -> Sequence[Operation]:
    """The operations to images laid flat where no convolution or pool reads them, as `layers.rows` has it: a batch norm
    of channels becomes one of their pixels."""
    if any(isinstance(operation, (Convolution, Pool)) for operation in operations):
        return operations
    made: list[Operation] = []
    flat = len(shape) == 1
    for operation in operations:
        flat = flat or isinstance(operation, Product)
        made.append(operation if flat else _laid_flat(operation, math.prod(shape)))
    return made


def _laid_flat(operation: Operation, size: int) -> Operation:
    """An operation to images of that many values as one to the values."""
    if isinstance(operation, Affine):
        return replace(operation, factor=operation.factor.reshape(-1), offset=operation.offset.reshape(-1))
    if isinstance(operation, Normalisation):
        given = (operation.gamma, operation.beta, operation.mean, operation.variance)
        gamma, beta, mean, variance = (np.repeat(values, size // len(values)) for values in given)
        return replace(operation, gamma=gamma, beta=beta, mean=mean, variance=variance)
    return operation


def _activations_first(body: Sequence[Operation]) -> list[Operation]:
    """A ReLU behind a maximum pool before it: they may change places, and a pool of ours has no activation."""
    made: list[Operation] = []
    for operation in body:
        place = len(made)
        if isinstance(operation, Activation) and operation.name == "relu":
            while place and isinstance(made[place - 1], Pool):
                place -= 1
        made.insert(place, operation)
    return made


def _folded(path: str, body: Sequence[Operation]) -> list[Operation]:
    """The operations with every Affine in the layer before or behind it, or as a Normalisation; the last a Product."""
    made: list[Operation] = []
    for operation in body:
        before = made[-1] if made else None
        if isinstance(before, Affine):
            made[-1:] = _forward(path, before, operation)
        elif isinstance(operation, Affine) and isinstance(before, (Product, Convolution)):
            back = _backward(before, operation)
            made[-1:] = [before, operation] if back is None else [back]
        else:
            made.append(operation)
    if len(made) > 1 and isinstance(made[-1], Normalisation) and isinstance(made[-2], Product):
        factor, offset = _factors(made[-1])
        made[-2:] = [_backward(made[-2], Affine(made[-1].where, factor, offset))]  # type: ignore[list-item]
    if not made or not isinstance(made[-1], Product):
        where = made[-1].where if made else "its end"
        raise refuse(path, where, "a network that ends with a dense layer (Gemm, MatMul or Linear) was wanted")
    return made


def _factors(norm: Normalisation) -> tuple[np.ndarray, np.ndarray]:
    """A batch norm as (factor, offset), each (C,)."""
    factor = norm.gamma / np.sqrt(norm.variance + norm.epsilon)
    return factor, norm.beta - norm.mean * factor


def _backward(before: Product | Convolution, affine: Affine) -> Product | Convolution | None:
    """The layer with what is done to its outputs; None where that differs within a channel."""
    factor, offset = _of_channels(affine.factor), _of_channels(affine.offset)
    if factor is None or offset is None:
        return None
    if isinstance(before, Convolution):
        return replace(
            before, weights=before.weights * factor[:, None, None, None], bias=before.bias * factor + offset
        )  # fmt: skip
    return replace(before, weights=before.weights * factor, bias=before.bias * factor + offset)


def _of_channels(values: np.ndarray) -> np.ndarray | None:
    """The (C,) of values (C, H, W) that do not differ within a channel, or of flat ones; else None."""
    first = values.reshape(len(values), -1)
    same = (first == first[:, :1]) | np.isnan(first)  # what is not finite is refused later, by name
    return first[:, 0] if same.all() else None


def _forward(path: str, affine: Affine, behind: Operation) -> list[Operation]:
    """An Affine that no layer before took, in the dense layer behind it, or as a batch norm."""
    if isinstance(behind, Affine):
        return [_then(affine, behind)]
    if isinstance(behind, Product):
        weights = affine.factor.reshape(-1, 1) * behind.weights
        return [replace(behind, weights=weights, bias=affine.offset.reshape(-1) @ behind.weights + behind.bias)]
    factor, offset = _of_channels(affine.factor), _of_channels(affine.offset)
    if factor is None or offset is None:
        raise refuse(path, affine.where, "it differs from pixel to pixel, which no layer behind a layer here does")
    ones = np.ones_like(factor)
    return [Normalisation(affine.where, factor, offset, 0 * ones, ones - 1e-5, 1e-5), behind]


# ---- layers


def _layers(path: str, body: Sequence[Operation]) -> tuple[list[Layer], list[np.ndarray]]:
    """(layers, their tensors in the order of a state_dict)"""
    layers: list[Layer] = []
    values: list[np.ndarray] = []
    for operation in body:
        if isinstance(operation, Activation):
            _activate(path, layers, operation)
            continue
        try:
            layers.append(_layer(operation))
        except (ValueError, TypeError) as error:
            raise refuse(path, operation.where, str(error)) from None
        if isinstance(operation, Product):
            values += [operation.weights.T, operation.bias]
        elif isinstance(operation, Convolution):
            values += [operation.weights, operation.bias]
        elif isinstance(operation, Normalisation):
            values += [operation.gamma, operation.beta, operation.mean, operation.variance, np.zeros((), np.int64)]
    return layers, values


def _layer(operation: Operation) -> Layer:
    if isinstance(operation, Product):
        return Dense(operation.weights.shape[1])
    if isinstance(operation, Convolution):
        channels, _, *kernel = operation.weights.shape
        return Conv2d(channels, (kernel[0], kernel[1]), operation.stride, operation.padding)
    if isinstance(operation, Pool):
        return MaxPool2d(operation.kernel, operation.stride, operation.padding)
    assert isinstance(operation, Normalisation)
    return BatchNorm(epsilon=operation.epsilon)


def _activate(path: str, layers: list[Layer], operation: Activation) -> None:
    """Give the last layer its activation."""
    last = layers[-1] if layers else None
    if not isinstance(last, (Dense, Conv2d, BatchNorm)):
        raise refuse(
            path, operation.where, f"{operation.name} behind a layer was wanted, not behind {last or 'inputs'}"
        )
    if last.activation is not None:
        raise refuse(path, operation.where, f"{operation.name} behind {last.activation}: one activation was wanted")
    try:
        layers[-1] = replace(last, activation=operation.name)
    except ValueError as error:
        raise refuse(path, operation.where, str(error)) from None
