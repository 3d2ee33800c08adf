"""Golden vectors: inputs drawn from a seed, this library's own answers to them, and how far rounding may move those."""

from typing import NamedTuple

import numpy as np

from ..network import Network

_ROWS, _VALUES = 8, 4096  # of inputs, unless that is too few for two rows


class Golden(NamedTuple):
    """Raw inputs x (N, D), logits (N, K) and answers: probabilities, of a regression its predictions (N, …).

    All are of the network's dtype. Another program's value v of a golden g may have |v - g| <= tolerance · (1 + |g|).
    """

    x: np.ndarray
    logits: np.ndarray
    answers: np.ndarray
    tolerance: float


def golden(network: Network, seed: int = 0) -> Golden:
    """Golden vectors of a network, by the reference backend, which needs no compiler.

    The tolerance is 16 times what float32 and float64 differ by on these inputs, for float64 in its own units, and 64
    roundings of the greatest logit: enough for another order of summation, far too little for a wrong weight. Rows
    whose answers overflow, as exponentials of a Poisson regression may, are left out: ValueError where all do.
    """
    x, answers = _answered(network, samples(network, max(2, min(_ROWS, _VALUES // network.inputs)), seed))
    both = (as_dtype(network, dtype) for dtype in (np.float32, np.float64))
    single, double = (other.predict_logits(x, backend="reference") for other in both)
    logits = network.predict_logits(x, backend="reference")
    unit = np.finfo(network.dtype).eps
    spread = float(np.abs(single - double).max()) * unit / np.finfo(np.float32).eps
    if network.dtype == np.float64:  # whose scaling is rounded in float64 too, by one rounding of the raw inputs
        moved = network.predict_logits(np.nextafter(x, np.inf), backend="reference")
        spread += float(np.abs(moved - logits).max())
    tolerance = float(16 * spread + 64 * unit * max(1.0, float(np.abs(logits).max())))
    return Golden(x, logits, answers, tolerance)


def _answered(network: Network, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the rows of x whose answers are safely finite, those answers)"""
    answer = network.predict_proba if network.classes else network.predict
    with np.errstate(over="ignore"):
        answers = answer(x, backend="reference").reshape(len(x), -1)
    kept = (np.abs(answers) < np.finfo(network.dtype).max / 2).all(axis=1)  # another exp may round across the limit
    if not kept.any():
        raise ValueError(
            f"no prediction for {len(x)} usual inputs is a finite {network.dtype}: there is nothing that its copy "
            "could be checked by; train it further"
        )
    return x[kept], answers[kept]


def samples(network: Network, count: int, seed: int = 0) -> np.ndarray:
    """Raw inputs (N, D) of the network's dtype that, once scaled, are as its scaling makes them: [0, 1], or z."""
    random = np.random.default_rng(seed)
    scaling = network.scaling
    low = {"unit": 0.0, "symmetric": -1.0}.get(scaling.kind if scaling is not None else "none")
    size = (count, network.inputs)
    scaled = random.normal(size=size) if low is None else random.uniform(low, 1, size)
    if scaling is None:
        return scaled.astype(network.dtype)
    factor, offset = np.broadcast_to(scaling.factor, size), np.broadcast_to(scaling.offset, size)
    raw = np.divide(scaled - offset, factor, out=np.zeros(size), where=factor != 0)
    return raw.astype(network.dtype)


def as_dtype(network: Network, dtype: type[np.floating]) -> Network:
    """The network with parameters of dtype; what is beyond its range becomes its greatest value."""
    limit = np.finfo(dtype).max
    tensors = {
        name: np.clip(tensor, -limit, limit).astype(dtype) if tensor.dtype.kind == "f" else tensor
        for name, tensor in network.state_dict().items()
    }
    return Network.restore(tensors, {**network.describe(), "dtype": np.dtype(dtype).name}, "golden")
