"""The images that epochs are timed on: MNIST where it is found, else made-up ones, which say so."""

import os
from dataclasses import dataclass

import numpy as np

from .. import datasets
from ..errors import UnavailableError

ROWS, WIDTH, CLASSES = 60_000, 784, 10
MADE_UP = "made-up images"
_LIT = 0.19  # of MNIST's pixels are not zero


@dataclass(frozen=True)
class Images:
    """x (N, 784) uint8, y (N,) int32 class indices, "MNIST" or MADE_UP, and in words where they came from."""

    x: np.ndarray
    y: np.ndarray
    kind: str
    source: str

    def part(self, rows: int) -> "Images":
        """The first rows."""
        return Images(self.x[:rows], self.y[:rows], self.kind, self.source)

    @property
    def lit(self) -> float:
        """The share of pixels that are not zero."""
        return np.count_nonzero(self.x) / self.x.size


def load(data_dir: str | os.PathLike[str] | None = None, rows: int = ROWS) -> Images:
    """The first `rows` of MNIST's training images, if they are on this computer: nothing is downloaded.

    DataError where what is found is damaged, or where data_dir, if given, is no folder.
    """
    if data_dir is not None and not os.path.isdir(data_dir):
        raise UnavailableError(f"{os.fspath(data_dir)}: no such folder; one that holds MNIST's files was wanted")
    try:
        part = datasets.load("mnist", data_dir=data_dir, offline=True).train
    except UnavailableError:
        return made_up(rows)
    return Images(part.x[:rows], part.y[:rows], "MNIST", "MNIST's training images")


def made_up(rows: int) -> Images:
    """Noisy copies of ten blots in the middle of the image, as many pixels lit as MNIST has."""
    random = np.random.default_rng(0)
    side = np.arange(28) - 13.5
    near = np.hypot(side[:, None], side) + random.normal(0, 2.5, (CLASSES, 28, 28))
    blots = near.reshape(CLASSES, WIDTH)
    lit = blots <= np.quantile(blots, _LIT, axis=1, keepdims=True)
    patterns = random.integers(64, 256, (CLASSES, WIDTH)) * lit
    y = random.integers(0, CLASSES, rows).astype(np.int32)
    x = np.empty((rows, WIDTH), np.uint8)
    for start in range(0, rows, 4096):
        clean = patterns[y[start : start + 4096]]
        noisy = clean + random.integers(-60, 61, clean.shape)
        x[start : start + 4096] = np.where(clean > 0, np.clip(noisy, 1, 255), 0)
    return Images(x, y, MADE_UP, f"{MADE_UP} of MNIST's shape and share of zeros: no MNIST found, see --data-dir")
