"""How raw inputs become what a network is trained on: scaled = x * factor + offset."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .errors import DataError

KINDS = ("unit", "symmetric", "standard", "none")
_VALUES_A_BLOCK = 1 << 18  # float64 copies of this many values at a time: the table itself is never copied


def default_kind(images: bool) -> str:
    """The kind of scaling where none is asked for: unit for images, standard for tables."""
    return "unit" if images else "standard"


@dataclass(frozen=True, eq=False)
class Scaling:
    """scaled = x * factor + offset.

    kind: unit ([0, 1]), symmetric ([-1, 1]), standard (mean 0, deviation 1) or none, which goes with factor 1 and
    offset 0. factor, offset: floats, or float64 arrays (D,), one entry a column; the arrays are copied and
    read-only. Raises ValueError for another kind, other shapes, and values that are not finite.
    """

    kind: str
    factor: float | NDArray[np.float64]
    offset: float | NDArray[np.float64]

    def __post_init__(self) -> None:
        _check_kind(self.kind)
        factor, offset = _kept(self.factor, "factor"), _kept(self.offset, "offset")
        if np.shape(factor) != np.shape(offset):
            raise ValueError(f"factor has the shape {np.shape(factor)}, offset {np.shape(offset)}: wanted the same")
        if self.kind == "none" and not (np.all(factor == 1) and np.all(offset == 0)):
            raise ValueError("kind 'none' scales nothing: factor 1 and offset 0 were wanted, or another kind")
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "offset", offset)

    @classmethod
    def fit(cls, kind: str, x: NDArray[Any], full_scale: float | None = None, images: bool = False) -> Scaling:
        """The scaling of this kind for rows x (N, D), the training part.

        unit and symmetric map 0 ... full_scale; without a full scale they map the least and greatest value
        of x, of each column for tables and of all values for images. standard takes mean and deviation
        likewise. What is constant becomes 0. Raises ValueError for an unknown kind or a full scale that is
        not positive, DataError for x without rows or with NaN or infinity.
        """
        _check_kind(kind)
        if full_scale is not None and not (full_scale > 0 and math.isfinite(full_scale)):
            raise ValueError(f"full_scale {full_scale}: wanted a positive number, such as 255")
        x = np.asarray(x)
        if x.ndim != 2 or x.dtype.kind not in "fiub":
            raise DataError(f"x is {x.dtype} of shape {x.shape}, wanted rows of numbers (N, D)")
        if kind == "none":
            return cls(kind, 1.0, 0.0)
        if kind in ("unit", "symmetric") and full_scale is not None:
            factor, offset = np.float64(0.0), np.float64(full_scale)  # least and greatest value
        else:
            if x.size == 0:
                raise DataError(f"x has the shape {x.shape}: no values to find the scale of")
            factor, offset = _extremes(x, images)
            if not (np.isfinite(factor).all() and np.isfinite(offset).all()):
                raise DataError("x: NaN or infinity among the values; fill or drop missing values first")
        if kind == "standard":
            return cls(kind, *_standard(x, factor, offset, images))
        return cls(kind, *_range(kind, factor, offset))

    @property
    def is_scalar(self) -> bool:
        """Whether one factor and offset hold for all columns."""
        return isinstance(self.factor, float)

    @property
    def width(self) -> int | None:
        """Columns that x must have; None where any count will do."""
        return None if isinstance(self.factor, float) else len(self.factor)

    def apply(self, x: NDArray[Any], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Scaled rows (N, D) of x (N, D), a new C-contiguous array of float32 or float64.

        Computed in float64 and rounded once (bytes under one factor: in dtype, as kernels gather them).
        Raises ValueError for another width or dtype, DataError for values not finite in that dtype.
        """
        x, target = np.asarray(x), np.dtype(dtype)
        if target not in (np.dtype(np.float32), np.dtype(np.float64)):
            raise ValueError(f"dtype {target}: wanted float32 or float64")
        if x.ndim != 2 or x.dtype.kind not in "fiub":
            raise ValueError(f"x is {x.dtype} of shape {x.shape}, wanted rows of numbers (N, D)")
        if self.width is not None and x.shape[1] != self.width:
            raise ValueError(f"x has {x.shape[1]:,} columns, this scaling was fitted to {self.width:,}")
        if x.dtype == np.uint8 and self.is_scalar:
            factor, offset = np.asarray(self.factor, target), np.asarray(self.offset, target)
            return np.take(np.arange(256).astype(target) * factor + offset, x)
        out = np.empty(x.shape, target)
        with np.errstate(over="ignore", invalid="ignore"):
            for rows in _blocks(x):
                out[rows] = x[rows].astype(np.float64) * self.factor + self.offset
        for rows in _blocks(x):
            finite = np.isfinite(out[rows])
            if not finite.all():
                row, column = np.argwhere(~finite)[0]
                raise DataError(
                    f"x: row {rows.start + row + 1}, column {column + 1} is {x[rows][row, column]}: after "
                    f"scaling ({self.kind}) it is not a finite {target}"
                )
        return out

    def to_json(self) -> dict[str, Any]:
        """What json.dumps takes; `from_json` gives the same scaling back, bit for bit."""
        if isinstance(self.factor, float) or isinstance(self.offset, float):
            return {"kind": self.kind, "factor": self.factor, "offset": self.offset}
        return {"kind": self.kind, "factor": self.factor.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Scaling:
        """The scaling that `to_json` described. Raises ValueError for anything else."""
        wanted = {"kind", "factor", "offset"}
        if not isinstance(description, dict) or set(description) != wanted:
            raise ValueError(f"a scaling is described by {', '.join(sorted(wanted))}, not by {description!r:.80}")
        return cls(description["kind"], description["factor"], description["offset"])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Scaling):
            return NotImplemented
        return (
            self.kind == other.kind
            and np.array_equal(self.factor, other.factor)
            and np.array_equal(self.offset, other.offset)
        )

    __hash__ = None  # type: ignore[assignment]  # as for arrays, which it may hold

    def __repr__(self) -> str:
        if isinstance(self.factor, float):
            return f"Scaling({self.kind}: x * {self.factor:.6g} + {self.offset:.6g})"
        return f"Scaling({self.kind}: {len(self.factor)} columns, each its own factor and offset)"


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"unknown scaling {kind!r}: wanted {', '.join(KINDS)}")


def _kept(value: Any, name: str) -> float | NDArray[np.float64]:
    try:
        array = np.array(value, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: wanted a number or a list of numbers") from None
    if array.ndim > 1:
        raise ValueError(f"{name} has the shape {array.shape}, wanted a number or (D,)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: NaN or infinity among its values")
    if array.ndim == 0:
        return float(array)
    array.flags.writeable = False
    return array


def _blocks(x: NDArray[Any]) -> list[slice]:
    step = max(1, _VALUES_A_BLOCK // max(1, x.shape[1]))
    return [slice(start, min(start + step, len(x))) for start in range(0, len(x), step)]


def _extremes(x: NDArray[Any], together: bool) -> tuple[Any, Any]:
    """Least and greatest value as float64, of all values together or of each column."""
    axis = None if together else 0
    return np.asarray(x.min(axis=axis), np.float64), np.asarray(x.max(axis=axis), np.float64)


def _range(kind: str, low: Any, high: Any) -> tuple[Any, Any]:
    """Factor and offset that map low ... high to [0, 1] or [-1, 1]; where they are equal, to 0."""
    with np.errstate(all="ignore"):  # a span beyond float64 is treated as none
        factor = 1.0 / (high - low)
        start = low * factor
        if kind == "symmetric":
            factor, start = 2.0 * factor, 2.0 * start + 1.0
    usable = np.isfinite(factor) & np.isfinite(start) & (high > low)
    return np.where(usable, factor, 0.0), np.where(usable, 0.0 - start, 0.0)


def _standard(x: NDArray[Any], low: Any, high: Any, together: bool) -> tuple[Any, Any]:
    """Factor and offset that give mean 0 and deviation 1; what is constant becomes 0."""
    if together and x.dtype == np.uint8:
        mean, deviation = _byte_moments(x)
        unit: Any = 1.0
    else:
        # in units of the greatest value, squares neither overflow nor vanish
        unit = np.maximum(np.abs(low), np.abs(high))
        unit = np.where(unit > 0, unit, 1.0)
        mean = _mean(x, lambda values: values, unit, together)
        deviation = np.sqrt(_mean(x, lambda values: np.square(values - mean), unit, together))
    with np.errstate(all="ignore"):
        factor, offset = 1.0 / (deviation * unit), -mean / deviation
    # of one value the deviation is 0, exactly: all of them are 1 or -1 units
    usable = np.isfinite(factor) & np.isfinite(offset)
    return np.where(usable, factor, 0.0), np.where(usable, offset, 0.0)


def _mean(x: NDArray[Any], of: Any, unit: Any, together: bool) -> Any:
    total: Any = 0.0
    for rows in _blocks(x):
        total = total + of(x[rows] / unit).sum(axis=None if together else 0)
    return total / (x.size if together else len(x))


def _byte_moments(x: NDArray[Any]) -> tuple[Any, Any]:
    """Mean and deviation of all bytes, exact up to the last rounding: from how often each value occurs."""
    counts = np.zeros(256, np.int64)
    for rows in _blocks(x):
        counts += np.bincount(x[rows].reshape(-1), minlength=256)
    values = np.arange(256.0)
    mean = counts @ values / x.size
    return mean, np.sqrt(counts @ np.square(values - mean) / x.size)
