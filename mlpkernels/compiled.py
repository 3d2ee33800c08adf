"""Networks inside the reader's own compiled code, and the short way for a few rows from Python.

Importing this module imports Numba; `Network` does so when it is asked to.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels.cpu import steps
from .kernels.cpu.inside import predict_one, predict_rows
from .kernels.cpu.inside_gradient import loss_and_gradient
from .kernels.cpu.inside_types import network_type, workspace_type
from .kernels.cpu.value import ROW_DTYPES, CompiledNetwork, GradientWorkspace

if TYPE_CHECKING:
    from .network import Network

__all__ = [
    "CompiledNetwork", "FewRows", "GradientWorkspace", "compile_network", "loss_and_gradient", "network_type",
    "predict_one", "predict_rows", "workspace_type",
]  # fmt: skip

# Rows, bytes of parameters that are read for them and operations above which a batch is faster, for all that a call of
# one costs (90 µs): 17 rows of 784-128-128-10, 1 of networks that no level-2 cache holds.
_ROWS, _BYTES, _OPERATIONS = 32, 2**23, 10**7


def compile_network(network: "Network") -> CompiledNetwork:
    """The value of a network, with its scaling as it is now."""
    scaling = network.scaling
    factor, offset = (None, None) if scaling is None or scaling.kind == "none" else (scaling.factor, scaling.offset)
    scale = float(network.loss_weights(np.ones(1, network.dtype))[0])
    return CompiledNetwork(network.model, factor, offset, scale)


class FewRows:
    """Predicts a few rows that need no conversion, without workspace and threads: 5 µs a row, a batch costs 90.

    Any number of threads may call one at once.
    """

    def __init__(self, network: "Network") -> None:
        self.value, self.scaling = network.compiled(), network.scaling
        self._shapes = {(network.inputs,), network.shape}
        self._limit = max(1, min(_ROWS, _BYTES // network.params.nbytes, _OPERATIONS // network.flops))
        self._inputs, self._outputs, self._dtype = network.inputs, self.value.outputs, network.dtype
        self._scratches: list[np.ndarray] = []
        self._softmax: Any = None

    def __call__(self, x: Any) -> np.ndarray | None:
        """The logits (N, K) of raw x (N, D); None where x is to be converted or refused, or has many rows."""
        if type(x) is not np.ndarray or x.shape[1:] not in self._shapes or not x.flags.carray:
            return None
        rows = len(x)
        if rows > self._limit or x.dtype not in ROW_DTYPES:
            return None
        try:
            scratch = self._scratches.pop()  # atomic, so threads need no lock
        except IndexError:
            scratch = self.value.scratch()
        out = np.empty((rows, self._outputs), self._dtype)
        done = self.value.rows(x.reshape(rows, self._inputs) if x.ndim > 2 else x, scratch, out, True)
        self._scratches.append(scratch)
        return out if done == rows else None

    def softmax(self, logits: np.ndarray, logarithm: bool) -> np.ndarray:
        """Unchecked: logits (N, K) of the network's dtype made each row's softmax in place, or its logarithm."""
        if self._softmax is None:
            self._softmax = steps.get("softmax_rows", self._dtype)
        self._softmax(logits, logits, logarithm)
        return logits
