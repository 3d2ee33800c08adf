"""A part of a data set (rows and their class indices), and a data set made of parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arrays import refuse_masked
from ..errors import DataError

_STORED = (np.dtype(np.uint8), np.dtype(np.float32), np.dtype(np.float64))
_ROWS_A_LOOK = 1 << 22  # values looked at together, so that checks need little memory


@dataclass(frozen=True, eq=False)
class Part:
    """Rows and their classes.

    x (N, D) uint8, float32 or float64; y (N,) int32 class indices from 0. Both are C-contiguous, aligned,
    writable and in the machine's byte order; what is not is copied, the arrays given are never modified.
    Other integers and booleans become float64, half precision becomes float32. Raises DataError for other
    dtypes and shapes, masked arrays, rows and labels of different counts, NaN and infinity.
    """

    x: NDArray[Any]
    y: NDArray[np.int32]

    def __post_init__(self) -> None:
        x, y = stored_rows(self.x, "x"), _stored_labels(self.y)
        if x.ndim != 2:
            raise DataError(f"x has the shape {x.shape}, wanted (N, D): one row a sample, images flattened")
        if len(x) != len(y):
            raise DataError(f"{len(x):,} rows and {len(y):,} labels: wanted one label a row")
        check_finite(x, "x")
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Part({len(self):,} rows x {self.x.shape[1]:,} {self.x.dtype})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set ready to train on.

    name: for people and run folders. train, test: parts; test is None where the data brings none. classes: what
    the class indices of y stand for, K integers (ascending) or K strings (sorted). shape: (C, H, W) of images,
    else (D,). full_scale: the value of a fully lit pixel (images 255, digits 16), None where unknown;
    scale_guessed: from the values, as the file does not tell it. images: whether the rows are pictures.
    feature_names: D column names of a table, else None. source: where it came from, for people. notes: lines
    the user should see. Raises DataError where these contradict each other.
    """

    name: str
    train: Part
    test: Part | None
    classes: tuple[int | str, ...]
    shape: tuple[int, ...]
    full_scale: float | None = None
    images: bool = False
    feature_names: tuple[str, ...] | None = None
    source: str = ""
    notes: tuple[str, ...] = ()
    scale_guessed: bool = False

    def __post_init__(self) -> None:
        width = math.prod(self.shape)
        if len(self.shape) not in (1, 3):
            raise DataError(f"{self.name}: shape {self.shape}, wanted (C, H, W) for images or (D,) for a table")
        if width == 0:
            raise DataError(f"{self.name}: shape {self.shape} has no values: at least one column is needed")
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f"{self.name}: the classes {self.classes} are not all different")
        if self.feature_names is not None and len(self.feature_names) != width:
            raise DataError(f"{self.name}: {len(self.feature_names)} column names for {width} columns")
        for title, part in (("training", self.train), ("test", self.test)):
            if part is not None:
                self._check_part(title, part, width)

    def _check_part(self, title: str, part: Part, width: int) -> None:
        if len(part) == 0:
            raise DataError(f"{self.name}: the {title} part is empty")
        if part.x.shape[1] != width:
            raise DataError(
                f"{self.name}: the {title} part has {part.x.shape[1]:,} columns, the shape {self.shape} wants {width:,}"
            )
        low, high = int(part.y.min()), int(part.y.max())
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            raise DataError(
                f"{self.name}: the {title} part has the class index {wrong}, wanted 0 to {len(self.classes) - 1}"
            )

    def __repr__(self) -> str:
        test = "no test part" if self.test is None else f"{len(self.test):,} to test"
        return (
            f"Dataset({self.name}: {len(self.train):,} rows to train, {test}, shape {self.shape} "
            f"{self.train.x.dtype}, {len(self.classes)} classes)"
        )


def stored_rows(values: ArrayLike, name: str) -> NDArray[Any]:
    """values as an array that is kept: uint8, float32 or float64, C-contiguous, writable, native byte order.

    Copies only where one of these does not hold. Raises DataError for anything but real numbers, and for masked arrays.
    """
    refuse_masked(values, name)
    array = np.asarray(values)
    kind = array.dtype.kind
    if kind not in "fiub":
        raise DataError(f"{name}: the values are {array.dtype}, wanted numbers (uint8, float32 or float64)")
    dtype = array.dtype.newbyteorder("=")
    if dtype not in _STORED:
        dtype = np.dtype(np.float32 if dtype == np.float16 else np.float64)
    return np.require(array, dtype=dtype, requirements=["C", "A", "W"])


def check_finite(x: NDArray[Any], name: str) -> None:
    """Raise DataError naming row and column (from 1) of the first NaN or infinity of x (N, D)."""
    if x.dtype.kind != "f" or x.size == 0:
        return
    step = max(1, _ROWS_A_LOOK // max(1, x.shape[1]))
    for start in range(0, len(x), step):
        finite = np.isfinite(x[start : start + step])
        if not finite.all():
            row, column = np.argwhere(~finite)[0]
            value = x[start + row, column]
            raise DataError(
                f"{name}: row {start + row + 1}, column {column + 1} is {value}: every value must be finite; "
                "fill or drop missing values first"
            )


def _stored_labels(values: ArrayLike) -> NDArray[np.int32]:
    refuse_masked(values, "y")
    y = np.asarray(values)
    if y.dtype.kind not in "iu" and y.size:
        raise DataError(f"y: the labels are {y.dtype}, wanted integer class indices")
    if y.ndim != 1:
        raise DataError(f"y has the shape {y.shape}, wanted (N,): one class index a row")
    if y.size and (int(y.min()) < 0 or int(y.max()) > np.iinfo(np.int32).max):
        raise DataError(f"y: class indices from {y.min()} to {y.max()}, wanted 0 and above")
    return np.require(y, dtype=np.int32, requirements=["C", "A", "W"])
