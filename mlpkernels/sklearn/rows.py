"""The rows that an estimator is fitted to, dense or sparse, as mini-batch steps take them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..arrays import chunk_rows, for_kernels
from ..kernels.plan import Source
from . import flat as flats
from .flat import Flat, dense

# Rows of at most _NARROW bytes, in arrays of more than _CACHED, are gathered by NumPy, _GATHERED values at a time: it
# has many of them under way at once, where a step waits for each. Batches of 70 rows of 8 doubles out of 200,000: 31 µs
# a step in place of 37.
_NARROW, _CACHED, _GATHERED = 128, 2**20, 2**19


@dataclass
class Rows:
    """Rows x (N, D), dense or sparse, their labels (N,) int32 or targets (N, K), and weights (N,)."""

    flat: Flat
    x: Any
    labels: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    weighted: bool
    _whole: Source | None = None  # all of them, kept from epoch to epoch

    def __len__(self) -> int:
        return len(self.weights)

    def chunks(self, order: np.ndarray, batch: int) -> Iterator[tuple[Source, np.ndarray, int, int]]:
        """(source, order in it, first step, last step + 1) of the steps that take `batch` rows each in this order.

        Sparse rows are made dense for some steps at a time; of dense rows all are one chunk, unless they are narrow.
        """
        steps = -(-len(order) // batch)
        width = self.x.shape[1]
        if isinstance(self.x, np.ndarray):
            narrow = self.x.itemsize * width <= _NARROW and self.x.nbytes > _CACHED
            few = _GATHERED // (width * batch) if narrow else steps
        else:
            few = chunk_rows(width) // batch
        if few >= steps and isinstance(self.x, np.ndarray):
            if self._whole is None:
                self._whole = self.flat.source(self.x, self.labels, self.targets, self.weights)
            yield self._whole, order, 0, steps
            return
        few = max(1, few)
        for first in range(0, steps, few):
            last = min(first + few, steps)
            rows = order[first * batch : last * batch]
            yield self.part(rows), np.arange(len(rows)), first, last

    def part(self, rows: np.ndarray) -> Source:
        """Some of the rows, dense."""
        x = self.x.take(rows, 0, mode="clip") if isinstance(self.x, np.ndarray) else self.x[rows]  # 1.1 ms, not 3
        count = slice(len(rows))  # what is the same for all rows
        return self.flat.source(
            dense(x, self.flat.dtype),
            self.labels[count] if self.targets.size else self.labels[rows],
            self.targets.take(rows, 0, mode="clip") if self.targets.size else self.targets,
            self.weights[rows] if self.weighted else self.weights[count],
        )


def make_rows(flat: Flat, x: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> Rows:
    """Rows x (N, D) with scikit-learn's y (N, K), booleans of a classifier or numbers, and weights (N,) or None.

    ValueError where y has another width than the network gives, or a Poisson target is below 0.
    """
    if y.shape[1] != flat.units[-1]:
        raise ValueError(
            f"y has {y.shape[1]} outputs, the fitted coefs_ give {flat.units[-1]}: fit without warm_start to begin anew"
        )
    if flat.output == "exp" and (y < 0).any():
        raise ValueError(f"loss='poisson' requires y >= 0; the smallest value of y is {y.min():g}")
    count = len(y)
    labels, targets = np.zeros(count, np.int32), np.empty((0, 0), flat.dtype)
    if flat.output == "softmax":
        labels = np.ascontiguousarray(y.argmax(axis=1), np.int32)
    else:
        targets = for_kernels(np.ascontiguousarray(y, flat.dtype))
    weights = np.ones(count, flat.dtype)
    if sample_weight is not None:
        weights = for_kernels(np.ascontiguousarray(sample_weight, flat.dtype))
    if isinstance(x, np.ndarray) or x.shape[0] * x.shape[1] <= flats.SMALL:
        x = dense(x, flat.dtype)
    elif x.format != "csr":
        x = x.tocsr()  # rows are taken from it
    return Rows(flat, x, labels, targets, weights, sample_weight is not None)
