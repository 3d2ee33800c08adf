"""A network as the steps of one prediction: batch norms folded, dropout gone, the scaling safe in its own dtype."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..kernels import plan as p
from ..network import Network
from ..scaling import Scaling

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Step:
    """What a layer does to one sample; kind and activation are a plan's codes, shapes (C, H, W), flat ones (C, 1, 1).

    DENSE: weights (I, O), bias (O,). CONV: weights (O, C, kh, kw), bias (O,). BATCH_NORM: activation((x - mean) ·
    weights + bias), each (C,). POOL: none. All are of the network's dtype, mean is None of other kinds.
    """

    kind: int
    shape: Shape
    out_shape: Shape
    activation: int = p.IDENTITY
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    image: bool = False
    weights: np.ndarray | None = None
    bias: np.ndarray | None = None
    mean: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Centred:
    """A scaling as (x - centre) · factor + rest, each a scalar () or (D,) of the network's dtype.

    x · factor + offset in float32 would lose what a large mean and a large offset have in common: 1e6 ± 1 would keep
    four digits of z. Subtracting the nearest float32 first is exact where it matters, and rest is what is left.
    """

    centre: np.ndarray
    factor: np.ndarray
    rest: np.ndarray

    @property
    def shifts(self) -> bool:
        """Whether there is more to it than a factor."""
        return bool(np.any(self.centre) or np.any(self.rest))


def centred(scaling: Scaling | None, dtype: np.dtype) -> Centred | None:
    """A scaling for code that computes in dtype; None where there is nothing to scale.

    ValueError where a factor is beyond dtype.
    """
    if scaling is None:
        return None
    factor, offset = np.asarray(scaling.factor, np.float64), np.asarray(scaling.offset, np.float64)
    if np.all(factor == 1) and np.all(offset == 0):
        return None
    with np.errstate(all="ignore"):
        centre = np.where(factor != 0, -offset / factor, 0.0).astype(dtype)
        centre = np.where(np.isfinite(centre), centre, 0).astype(dtype)
        rest = (offset + centre.astype(np.float64) * factor).astype(dtype)
        made = Centred(centre, factor.astype(dtype), rest)
    if not (np.isfinite(made.factor).all() and np.isfinite(rest).all()):
        raise ValueError(f"scaling: its factors are beyond {dtype}; a network of dtype='float64' was wanted")
    return made


def check_trained(network: Network) -> None:
    """Refuse, by ValueError, a network that predicts nothing but what its initial values do."""
    if network.untrained:
        raise ValueError(
            "the network is untrained, its parameters are the initial values: fit it first, or load parameters with "
            "load_state_dict, its own state_dict() where initial values are what is wanted"
        )


def steps(network: Network) -> list[Step]:
    """The steps of a network's layers, in order. ValueError where a weight is not finite.

    A batch norm directly behind a dense layer or convolution without activation goes into its weights, computed in
    float64 and rounded once; any other stays a step of its own.
    """
    for name, tensor in network.state_dict().items():
        if not np.isfinite(tensor).all():
            raise ValueError(f"{name} holds a value that is not finite: a network that diverged is not exported")
    made: list[Step] = []
    for number, row in enumerate(network.plan):
        if row[p.KIND] == p.DROPOUT:
            continue
        step = _step(network, number)
        folded = _folded(made[-1], step, network, number) if made and step.kind == p.BATCH_NORM else None
        if folded is None:
            made.append(step)
        else:
            made[-1] = folded
    return made


def _step(network: Network, number: int) -> Step:
    row = [int(value) for value in network.plan[number]]
    arrays: dict[str, Any] = {}
    if row[p.KIND] == p.BATCH_NORM:
        mean, gain, shift = (array.astype(network.dtype) for array in _normalising(network, number))
        arrays = {"weights": gain, "bias": shift, "mean": mean}
    elif row[p.KIND] != p.POOL:
        weights = p.tensor_view(network.plan, number, network.params)
        arrays = {"weights": weights.copy(), "bias": p.bias_view(network.plan, number, network.params).copy()}
    return Step(
        row[p.KIND],
        (row[p.CHANNELS], row[p.HEIGHT], row[p.WIDTH]),
        (row[p.OUT_CHANNELS], row[p.OUT_HEIGHT], row[p.OUT_WIDTH]),
        row[p.ACTIVATION],
        (row[p.KERNEL_H], row[p.KERNEL_W]),
        (row[p.STRIDE_H], row[p.STRIDE_W]),
        (row[p.PADDING_H], row[p.PADDING_W]),
        bool(row[p.IMAGE]),
        **arrays,
    )


def _normalising(network: Network, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean, gamma / sqrt(variance + epsilon), beta) of a batch norm, float64 (C,)."""
    mean, variance, _ = p.buffer_views(network.plan, number, network.buffers)
    gamma = p.tensor_view(network.plan, number, network.params).astype(np.float64)
    beta = p.bias_view(network.plan, number, network.params).astype(np.float64)
    return mean, gamma / np.sqrt(variance + network.model.rates[number, p.BN_EPSILON]), beta


def _folded(before: Step, norm: Step, network: Network, number: int) -> Step | None:
    """The step before with a batch norm in its weights; None where that cannot be."""
    if before.kind not in (p.DENSE, p.CONV) or before.activation != p.IDENTITY:
        return None
    assert before.weights is not None and before.bias is not None
    mean, gain, beta = _normalising(network, number)
    column = gain if before.kind == p.DENSE else gain[:, None, None, None]
    with np.errstate(over="ignore"):
        weights = (before.weights * column).astype(network.dtype)
        bias = ((before.bias - mean) * gain + beta).astype(network.dtype)
    if not (np.isfinite(weights).all() and np.isfinite(bias).all()):
        return None
    return replace(before, weights=weights, bias=bias, activation=norm.activation, image=norm.image)
