"""Predict one sample on arrays that end, or start, where memory may not be touched. A script: a fault kills it."""

import numpy as np
import stacks
from guarded_memory import Guard
from numba import njit

from mlpkernels import Dense, Network
from mlpkernels.compiled import CompiledNetwork, loss_and_gradient, predict_one

WIDTHS = [(1, 1), (9, 17, 3), (33, 16, 16, 4), (70, 130, 97, 10), (784, 128, 5)]


@njit
def one(net, x, scratch, out):
    predict_one(net, x, scratch, out)


@njit
def gradient(net, x, y, work, grad):
    return loss_and_gradient(net, x, y, work, grad)


def networks(dtype):
    for widths in WIDTHS:
        yield Network([*(Dense(n, "tanh") for n in widths[1:-1]), Dense(widths[-1])], widths[0], dtype=dtype)
    for name in stacks.STACKS:
        yield stacks.network(name, dtype)


def main():
    for dtype in ("float32", "float64"):
        for net in networks(dtype):
            random = np.random.default_rng(0)
            x, y = random.normal(size=(3, net.inputs)).astype(dtype), random.integers(0, net.outputs, 3)
            x[1:] *= random.random((2, net.inputs)) < 0.3  # with zeros that are skipped
            wanted = net.predict_logits(x)
            for at_end in (True, False):
                guard = Guard(at_end)
                value = CompiledNetwork(guard.tuple(net.model))
                scratch, out, rows = guard(value.scratch() + np.nan), guard(np.zeros(net.outputs, dtype)), guard(x)
                for i in range(3):
                    one(value, rows[i], scratch, out)
                    assert np.array_equal(out, wanted[i]), (net, at_end)
                loss = gradient(value, rows, guard(y), value.workspace(3), guard(value.gradient()))
                assert np.isfinite(loss)


if __name__ == "__main__":
    main()
