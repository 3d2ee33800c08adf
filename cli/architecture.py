"""The layers that the settings of a run ask for, and a network's layers told in a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import tables
from .errors import OptionError
from .parsing import convolution
from .settings import Settings

if TYPE_CHECKING:
    from mlpkernels import Network
    from mlpkernels.datasets import Dataset
    from mlpkernels.kernels.plan import Row
    from mlpkernels.layers import Layer

_WIDTH = 100  # characters of a line
_ARROW = " → "


def layers(settings: Settings, dataset: Dataset) -> list[Layer]:
    """The layers of these settings for these data; OptionError where the data's images have no room for them."""
    from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d

    _check_convolutions(settings, dataset)
    stack: list[Layer] = []
    for channels, kernel in map(convolution, settings.conv):
        normed: list[Layer] = [Conv2d(channels, kernel), BatchNorm("relu")]
        stack += normed if settings.batch_norm else [Conv2d(channels, kernel, activation="relu")]
        stack += [MaxPool2d(settings.pool)] if settings.pool else []
    for width in settings.hidden:
        normed = [Dense(width), BatchNorm(settings.activation)]
        stack += normed if settings.batch_norm else [Dense(width, settings.activation)]
        stack += [Dropout(settings.dropout)] if settings.dropout else []
    return [*stack, Dense(len(dataset.classes))]


def _check_convolutions(settings: Settings, dataset: Dataset) -> None:
    """Refuse, by its option, the first layer that is too large for what reaches it."""
    if not settings.conv:
        return
    typed = ",".join(settings.conv)
    if len(dataset.shape) != 3:
        reason = f"convolutions need images, and {dataset.name} is a table of {dataset.shape[0]} columns"
        raise OptionError("--conv", typed, f"{reason}; --hidden alone was wanted")
    high, wide = dataset.shape[1:]
    left = "the images"
    for number, (_, kernel) in enumerate(map(convolution, settings.conv), start=1):
        which = f"convolution {number}"
        if kernel > min(high, wide):
            raise OptionError(
                "--conv", typed, f"the kernel of {which}, {kernel} x {kernel}, is larger than {left}, "
                f"{high} x {wide}; a smaller one{' or a smaller --pool' * (number > 1)} was wanted",
            )  # fmt: skip
        high, wide = high - kernel + 1, wide - kernel + 1
        if settings.pool > min(high, wide):
            raise OptionError(
                "--pool", settings.pool, f"its windows are larger than the images behind {which}, {high} x {wide}, and "
                "leave nothing; a smaller pool, 0 for none, or smaller kernels were wanted",
            )  # fmt: skip
        if settings.pool:
            high, wide = high // settings.pool, wide // settings.pool
        left = f"what {which}{' and its pool leave' if settings.pool else ' leaves'} of the images"


def describe(network: Network) -> str:
    """A network's layers from its input to its outputs: `1x28x28 → conv 10@5x5 → pool 2 → 1440 → 128 → 10`."""
    from mlpkernels.layers import Dense, rows

    made = rows(network.layers, network.shape)
    image = made[0].image
    steps = ["x".join(map(str, network.shape)) if image else str(network.inputs)]
    for layer, row in zip(network.layers, made, strict=True):
        if image and isinstance(layer, Dense):
            steps.append(str(row.weights[0]))  # flattened
        steps.append(_words(layer, row))
        image = row.image
    return _ARROW.join(steps)


def _words(layer: Layer, row: Row) -> str:
    from mlpkernels import Conv2d, Dense, Dropout, MaxPool2d

    high, wide = row.kernel
    curve = getattr(layer, "activation", None)
    activation = f" {curve}" if curve not in (None, "relu") else ""
    if isinstance(layer, Dense):
        return f"{layer.outputs}{activation}"
    if isinstance(layer, Conv2d):
        return f"conv {layer.channels}@{high}x{wide}"
    if isinstance(layer, MaxPool2d):
        return f"pool {high}" if high == wide else f"pool {high}x{wide}"
    return f"dropout {layer.p:g}" if isinstance(layer, Dropout) else f"batch norm{activation}"


def told(network: Network) -> str:
    """`describe` with the number of parameters and their type, in lines of at most 100 characters."""
    first, *steps = f"network {describe(network)}".split(_ARROW)
    lines = [first]
    for step in steps:
        if len(lines[-1]) + len(_ARROW) + len(step) > _WIDTH:
            lines.append(f" {_ARROW}{step}")
        else:
            lines[-1] += f"{_ARROW}{step}"
    size = f"{tables.count(network.parameter_count)} parameters, {network.dtype}"
    if len(lines[-1]) + len(size) + 2 > _WIDTH:
        return "\n".join([*lines, f"  {size}"])
    return "\n".join(lines) + f", {size}"
