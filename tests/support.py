"""What several tests of training share: backends, a small problem, and ways to stop within it."""

import dataclasses
import functools

import numpy as np
from numba import njit

from mlpkernels import Adam, Dense, Network, fit
from mlpkernels.datasets import Part
from mlpkernels.kernels.cpu import steps
from mlpkernels.kernels.cpu.jit import OPTIONS
from mlpkernels.scaling import Scaling

BACKENDS = ["cpu", "reference"]
ROWS, WIDTH, CLASSES = 90, 12, 3


def product(dtype):
    """gemm, of flat arrays with an offset each, to be called from Python."""
    address = steps.pointer("gemm", np.dtype(dtype).name).__wrapper_address__()
    return functools.partial(steps.get("product", dtype), address)


def from_python(function):
    """What compiled code alone may call, to be called from Python."""

    @njit(**OPTIONS)
    def call(*arguments):
        return function(*arguments)

    return call


def blobs(rows=ROWS, seed=0, noise=40):
    """uint8 rows around one centre a class, and their class indices."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).integers(60, 196, (CLASSES, WIDTH))
    y = np.arange(rows, dtype=np.int32) % CLASSES
    x = np.clip(centres[y] + random.normal(0, noise, (rows, WIDTH)), 0, 255).astype(np.uint8)
    return Part(x, y)


def network(dtype="float32", seed=0, **options):
    layers = [Dense(8, "relu"), Dense(CLASSES)]
    return Network(layers, WIDTH, dtype=dtype, seed=seed, scaling=Scaling("unit", 1 / 255, 0.0), **options)


def timeless(history):
    """Results without their times."""
    return [dataclasses.replace(row, seconds=0.0, samples_per_second=0.0) for row in history]


def train(net, part=None, **options):
    return list(fit(net, part if part is not None else blobs(), **{"threads": 1, "batch_size": 32, **options}))


class StopHere(Exception):
    """Raised within on_progress."""


def stopper(calls):
    """An on_progress that raises at its call number `calls`, from 1."""
    seen = []

    def on_progress(progress):
        seen.append(progress)
        if len(seen) == calls:
            raise StopHere

    return on_progress


def overfitting(**options):
    """Settings under which the validation loss turns up after some epochs."""
    return {
        "validation": blobs(30, 1, noise=120), "batch_size": 8, "optimizer": Adam(0.02), "epochs": 60,
        "backend": "reference", **options,
    }  # fmt: skip
