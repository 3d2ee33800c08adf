"""The data that benchmarks train on: MNIST where it is found, else made-up bytes of its shape; and made-up others."""

from dataclasses import dataclass

import numpy as np

from mlpkernels import datasets
from mlpkernels.errors import MlpkError

ROWS, WIDTH, CLASSES = 60_000, 784, 10  # of MNIST
MNIST, NO_ZEROS, TABLE = "mnist", "no zeros", "table"


@dataclass(frozen=True)
class Kind:
    """A data set's rows, the shape of a sample, and its classes."""

    rows: int
    shape: tuple[int, ...]
    classes: int


KINDS = {
    MNIST: Kind(ROWS, (1, 28, 28), CLASSES),
    NO_ZEROS: Kind(ROWS, (1, 28, 28), CLASSES),
    TABLE: Kind(200_000, (8,), 2),
}


@dataclass(frozen=True)
class Images:
    """x (N, D) uint8, to be divided by 255, or float32 as it is; y (N,) int32 class indices; where they came from."""

    x: np.ndarray
    y: np.ndarray
    source: str

    def floats(self) -> np.ndarray:
        """x (N, D) float32 as networks take it."""
        return self.x.astype(np.float32) / np.float32(255) if self.x.dtype == np.uint8 else self.x


def load(rows: int = ROWS, kind: str = MNIST) -> Images:
    """The first `rows` rows of a kind of data: MNIST's from MLPK_DATA_DIR or the cache folder, or made-up ones.

    Nothing is downloaded.
    """
    if kind == TABLE:
        return _table(rows)
    if kind == NO_ZEROS:
        return _no_zeros(rows)
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


def _no_zeros(rows: int) -> Images:
    """Random bytes of MNIST's shape and random labels: no pixel that could be left out."""
    random = np.random.default_rng(0)
    x = random.integers(1, 256, (rows, WIDTH), dtype=np.uint8)
    y = random.integers(0, CLASSES, rows).astype(np.int32)
    return Images(x, y, f"{rows:,} images of MNIST's shape, random bytes from 1 to 255")


def _table(rows: int) -> Images:
    """Eight standard normal columns; the class says whether a point is far from the middle, with noise."""
    random = np.random.default_rng(0)
    kind = KINDS[TABLE]
    x = random.standard_normal((rows, *kind.shape), np.float32)
    far = np.square(x).sum(axis=1) + random.standard_normal(rows, np.float32) > kind.shape[0]
    return Images(x, far.astype(np.int32), f"{rows:,} rows of {kind.shape[0]} standard normal columns")
