"""The door of the figures: rows, shapes, labels and names, checked with named errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import as_rows
from .metrics import checked_labels


def image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return shape as (channels, height, width); ValueError where it is another."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape: {tuple(shape)}, wanted (channels, height, width) or (columns,)")
    channels, height, width = shape
    return channels, height, width


def rows_of(x: ArrayLike, shape: Sequence[int]) -> NDArray[Any]:
    """Return the inputs as (N, D), at least one row."""
    if len(shape) != 1:
        image_shape(shape)
    rows = as_rows(x, tuple(shape))
    if len(rows) == 0:
        raise ValueError("x: no rows, wanted at least one")
    return rows


def labels_of(name: str, values: ArrayLike, classes_count: int, rows: int) -> NDArray[np.int64]:
    """Return class indices as (rows,), each below classes_count."""
    labels = checked_labels(name, values, classes_count)
    if len(labels) != rows:
        raise ValueError(f"{name}: {len(labels)} labels for {rows} rows of x; wanted one a row")
    return labels


def at_least_one(name: str, number: int) -> None:
    """Refuse, by ValueError, to show nothing."""
    if number < 1:
        raise ValueError(f"{name}: {number}, wanted at least 1 to show")


def finite(name: str, values: ArrayLike) -> NDArray[np.float64]:
    """Return values as float64; ValueError where one is NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinite values, wanted finite {name}")
    return array
