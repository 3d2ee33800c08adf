"""The images that benchmarks train on: MNIST where it is found, else bytes of the same shape, and it says so."""

from dataclasses import dataclass

import numpy as np

from mlpkernels import datasets
from mlpkernels.errors import MlpkError

ROWS, WIDTH, CLASSES = 60_000, 784, 10


@dataclass(frozen=True)
class Images:
    """x (N, 784) uint8, y (N,) int32 class indices, and where they came from."""

    x: np.ndarray
    y: np.ndarray
    source: str


def load(rows: int = ROWS) -> Images:
    """The first `rows` training images of MNIST from MLPK_DATA_DIR or the cache folder, else made-up ones.

    Nothing is downloaded.
    """
    try:
        part = datasets.load("mnist", offline=True).train
    except MlpkError:
        return _made_up(rows)
    return Images(part.x[:rows], part.y[:rows], f"MNIST, {min(rows, len(part)):,} training images")


def _made_up(rows: int) -> Images:
    """Noisy copies of ten patterns, four fifths of each zero like MNIST's: a network learns them quickly."""
    random = np.random.default_rng(0)
    patterns = random.integers(64, 256, (CLASSES, WIDTH)) * (random.random((CLASSES, WIDTH)) < 0.2)
    y = random.integers(0, CLASSES, rows).astype(np.int32)
    x = np.empty((rows, WIDTH), np.uint8)
    for start in range(0, rows, 4096):
        clean = patterns[y[start : start + 4096]]
        noisy = clean + random.integers(-60, 61, clean.shape, dtype=np.int64)
        x[start : start + 4096] = np.where(clean > 0, np.clip(noisy, 1, 255), 0)
    return Images(x, y, f"no MNIST found (MLPK_DATA_DIR): {rows:,} made-up images of its shape")
