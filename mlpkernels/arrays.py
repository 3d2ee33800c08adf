"""The door for arrays: rows, labels and weights are checked and converted here, once, and never modified."""

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import checks
from .affinity import cpu_count
from .errors import DataError
from .scaling import Scaling

_GROUP, _FEW_ROWS, _LOOKED_AT, _MOSTLY = 4, 32, 64, 0.6  # see mostly_zero
_CHUNK = 2**20  # values checked, scaled, predicted or evaluated at a time: bounds memory and Ctrl-C's wait


def chunk_rows(width: int) -> int:
    """How many rows of `width` values go through at a time."""
    rows = _CHUNK // max(width, 1)
    return max(64, rows - rows % 1024 if rows > 1024 else rows)


def as_rows(x: Any, shape: tuple[int, ...], name: str = "x") -> np.ndarray:
    """x as (N, D) rows, C-contiguous, of dtype uint8, float32 or float64; D is the product of `shape`.

    x is (N, D), (N, *shape), or (N, H, W) for shape (1, H, W), of any real dtype. DataError names another
    shape and masked arrays, TypeError another dtype. Copies only what needs it.
    """
    width = math.prod(shape)
    refuse_masked(x, name)
    if not isinstance(x, np.ndarray):
        try:
            x = np.asarray(x)
        except ValueError:
            raise DataError(f"{name}: its rows differ in length; an array (N, {width}) was wanted") from None
    if x.dtype.kind not in "buif":
        raise TypeError(f"{name}: an array of numbers was wanted, not of dtype {x.dtype}")
    shapes = {(width,), shape} | ({shape[1:]} if shape[0] == 1 and len(shape) == 3 else set())
    if x.shape[1:] not in shapes or x.ndim == 0:
        wanted = " or ".join(str(("N", *s)).replace("'", "") for s in sorted(shapes, key=len))
        hint = f"; one sample alone is {name}[None]" if x.shape in shapes else ""
        raise DataError(f"{name}: an array of shape {wanted} was wanted, not {x.shape}{hint}")
    if x.dtype.kind == "b":
        dtype: np.dtype = np.dtype(np.uint8)
    elif x.dtype.kind == "f":
        dtype = np.dtype(np.float32 if x.dtype.itemsize <= 4 else np.float64)
    elif x.dtype == np.uint8:
        dtype = x.dtype
    else:
        dtype = np.dtype(np.float32 if x.dtype.itemsize <= 2 else np.float64)
    return np.ascontiguousarray(x.reshape(len(x), width), dtype)


def scale_rows(x: np.ndarray, scaling: Scaling | None, dtype: np.dtype, name: str = "x", first: int = 0) -> np.ndarray:
    """Rows (N, D) scaled, of `dtype` and all finite: x itself where there is nothing to do.

    Reads every value once, in chunks. DataError names the row (from 1, plus `first`) and the column (from
    1) of the first value that is NaN, infinite or too large for dtype.
    """
    as_it_is = x.dtype == dtype and (scaling is None or scaling.kind == "none")
    out = x if as_it_is else np.empty(x.shape, dtype)
    step = chunk_rows(x.shape[1])
    for start in range(0, len(x), step):
        rows = slice(start, start + step)
        with np.errstate(over="ignore", invalid="ignore"):  # found below, and named
            if scaling is not None and not as_it_is:
                try:
                    out[rows] = scaling.apply(x[rows], dtype)
                    continue  # it has checked them
                except DataError:  # it knows neither the name nor the rows before these
                    out[rows] = x[rows] * scaling.factor + scaling.offset
            elif not as_it_is:
                out[rows] = x[rows]
        finite = np.isfinite(out[rows])
        if not finite.all():
            row, column = divmod(int(np.argmin(finite)), x.shape[1])
            place = f"{name}: row {first + start + row + 1}, column {column + 1}"
            _refuse(x[start + row, column], dtype, place)
    return out


def _refuse(value: Any, dtype: np.dtype, place: str) -> None:
    if math.isfinite(value):
        raise DataError(f"{place} is {value:g}, too large for {dtype} once scaled; use dtype='float64' or rescale")
    raise DataError(f"{place} is {value:g}: every value must be finite; fill or drop such rows first")


def class_indices(y: Any, classes: tuple[int | str, ...], rows: int, name: str = "y") -> np.ndarray:
    """Labels y (N,) as indices (N,) int32 into `classes`.

    y holds what `classes` holds, integers (whole floats count) or strings. DataError names another count than
    `rows` and the first label that is no class (rows from 1); TypeError another dtype.
    """
    labels = as_text(_vector(y, rows, name))
    of_text = isinstance(classes[0], str)
    if labels.dtype.kind not in ("U" if of_text else "buif"):
        wanted = "strings" if of_text else "integers"
        raise TypeError(f"{name}: {wanted} were wanted, as the classes are, not dtype {labels.dtype}")
    table = np.array(classes)
    order = np.argsort(table)
    large = labels.dtype.kind == "u" and labels.dtype.itemsize == 8  # beside int64 NumPy compares it as float64
    sought = labels.astype(np.int64) if large else labels
    place = np.minimum(np.searchsorted(table, sought, sorter=order), len(table) - 1)
    indices = order[place].astype(np.int32)
    strange = table[indices] != sought  # NaN and 0.5 equal no class
    if large:
        strange |= labels > np.uint64(2**63 - 1)
    if strange.any():
        row = int(np.argmax(strange))
        shown = ", ".join(str(c) for c in classes[:10]) + (", …" if len(classes) > 10 else "")
        raise DataError(f"{name}: row {row + 1} is {labels[row]}, which is none of the model's classes {shown}")
    return indices


def as_text(labels: np.ndarray) -> np.ndarray:
    """Labels (N,) that are all str, be they objects or NumPy's StringDType, as str_; others as they are."""
    if labels.dtype.kind in "OT" and all(isinstance(label, str) for label in labels):
        return np.array(labels.tolist(), np.str_)
    return labels


def check_indices(y: Any, classes: tuple[int | str, ...], rows: int, name: str = "y") -> np.ndarray:
    """Class indices y (N,) copied as int32, 0 … len(classes) - 1; DataError or TypeError names what else came.

    A copy, since kernels index by them: what is written to y later is not checked.
    """
    indices = _vector(y, rows, name)
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{name}: class indices, integers, were wanted, not dtype {indices.dtype}")
    strange = (indices < 0) | (indices >= len(classes))
    if strange.any():
        row = int(np.argmax(strange))
        raise DataError(f"{name}: row {row + 1} is {indices[row]}; the model has the classes 0 to {len(classes) - 1}")
    return np.array(indices, np.int32)


def combined_weights(
    indices: np.ndarray,
    classes: tuple[int | str, ...],
    sample_weight: Any,
    class_weight: str | Mapping[Any, float] | None,
    dtype: np.dtype,
) -> np.ndarray:
    """Class times sample weights (N,) of `dtype`, scaled to mean 1.

    class_weight is None, "balanced" (N / (K · N_k)) or {class: weight}, 1 for a class it lacks.
    sample_weight is None or (N,). ValueError, TypeError or DataError names a weight that is negative or not
    finite, a class that is none, and weights that are all 0.
    """
    by_class = class_weights(class_weight, indices, classes)[indices]
    by_row = np.ones(1) if sample_weight is None else _sample_weights(sample_weight, len(indices))
    return _of_mean_one(by_class, by_row, "the weights of all training rows are 0").astype(dtype)


def _of_mean_one(first: np.ndarray, second: np.ndarray, none: str) -> np.ndarray:
    """The product (N,) of weights, scaled to mean 1; DataError where all are 0, in the words of `none`."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        weights = first * second
        factor = len(weights) / weights.sum()
        if not (math.isfinite(factor) and factor > 0):  # too large or too small to be summed as they are
            greatest = first.max(initial=0.0), second.max(initial=0.0)
            weights = (first / greatest[0]) * (second / greatest[1])
            factor = len(weights) / weights.sum()
    if not (math.isfinite(factor) and factor > 0):
        raise DataError(f"{none}; at least one must be above")
    return weights * factor


def class_weights(
    class_weight: str | Mapping[Any, float] | None, indices: np.ndarray, classes: tuple[int | str, ...]
) -> np.ndarray:
    """A weight for each class (K,) float64; see `combined_weights`."""
    weights = np.ones(len(classes))
    if class_weight is None:
        return weights
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight={class_weight!r}: None, 'balanced' or a dictionary was wanted")
        counts = np.bincount(indices, minlength=len(classes))
        return len(indices) / (len(classes) * np.maximum(counts, 1))
    if not isinstance(class_weight, Mapping):
        raise TypeError(f"class_weight={class_weight!r}: None, 'balanced' or a dictionary was wanted")
    place = {label: k for k, label in enumerate(classes)}
    for label, weight in class_weight.items():
        if label not in place:
            raise ValueError(f"class_weight: {label!r} is none of the model's classes")
        text = f"class_weight: {weight!r} for class {label!r}: a finite number from 0 was wanted"
        weights[place[label]] = checks.number(weight, text, 0.0)
    return weights


def mean_one(sample_weight: Any, rows: int, dtype: np.dtype) -> np.ndarray:
    """Sample weights (N,) of `dtype`, scaled to mean 1; ones for None."""
    if sample_weight is None:
        return np.ones(rows, dtype)
    weights = _sample_weights(sample_weight, rows)
    if not rows:
        return weights.astype(dtype)
    return _of_mean_one(weights, np.ones(1), "sample_weight: all weights are 0").astype(dtype)


def _sample_weights(sample_weight: Any, rows: int) -> np.ndarray:
    weights = _vector(sample_weight, rows, "sample_weight")
    if weights.dtype.kind not in "buif":
        raise TypeError(f"sample_weight: numbers were wanted, not dtype {weights.dtype}")
    weights = weights.astype(np.float64)
    strange = ~(np.isfinite(weights) & (weights >= 0))
    if strange.any():
        row = int(np.argmax(strange))
        raise DataError(f"sample_weight: row {row + 1} is {weights[row]:g}; finite numbers from 0 were wanted")
    return weights


def _vector(values: Any, rows: int, name: str) -> np.ndarray:
    """values as an array (rows,); DataError names another shape and masked arrays."""
    refuse_masked(values, name)
    try:
        array = np.asarray(values)
    except ValueError:
        raise DataError(f"{name}: one value a row was wanted") from None
    if array.shape != (rows,):
        raise DataError(f"{name}: an array of shape ({rows},) was wanted, one value a row, not {array.shape}")
    return array


def refuse_masked(values: Any, name: str) -> None:
    """Raise DataError for a masked array, naming it."""
    if isinstance(values, np.ma.MaskedArray):  # as a plain array it would lose its mask, and nobody would know
        raise DataError(
            f"{name}: a masked array: fill or leave out its masked values, and pass a plain array "
            "(numpy.ma.filled(values, number) makes one)"
        )


def check_classes(classes: Sequence[Any] | None, outputs: int) -> tuple[int | str, ...]:
    """`classes` as plain integers or strings, one an output; for None 0, 1, …. ValueError, TypeError."""
    if classes is None:
        return tuple(range(outputs))
    plain: list[int | str] = []
    for label in classes:
        if isinstance(label, str):
            plain.append(str(label))
        elif isinstance(label, np.bool_):
            plain.append(int(label))
        else:
            try:
                plain.append(operator.index(label))
            except TypeError:
                raise TypeError(f"classes: {label!r} is neither an integer nor a string") from None
    if len({type(label) for label in plain}) > 1:
        raise TypeError("classes: all integers or all strings were wanted, not both")
    if len(plain) != outputs:
        raise ValueError(f"classes: {outputs} were wanted, one an output of the last layer, not {len(plain)}")
    if len(set(plain)) != len(plain):
        raise ValueError("classes: each may occur once")
    if not isinstance(plain[0], str) and not all(-(2**63) <= int(label) < 2**63 for label in plain):
        raise ValueError("classes: integers of 64 bits were wanted")
    return tuple(plain)


def check_shape(inputs: Any) -> tuple[int, ...]:
    """A number of inputs, or a sample's shape, as a tuple of integers from 1. TypeError, ValueError."""
    try:
        shape = tuple(operator.index(n) for n in (inputs if isinstance(inputs, (tuple, list)) else (inputs,)))
    except TypeError:
        raise TypeError(f"inputs={inputs!r}: a number of inputs or a shape (C, H, W) was wanted") from None
    if not shape or min(shape) < 1:
        raise ValueError(f"inputs={inputs!r}: integers from 1 were wanted")
    return shape


def check_dtype(dtype: Any) -> np.dtype:
    """float32 or float64 as a NumPy dtype; ValueError for another."""
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if found not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise ValueError(f"dtype={dtype!r}: 'float32' or 'float64' was wanted")
    return found


class _Writable:
    """An array's memory, offered as writable."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array  # keeps the memory alive
        interface = array.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def for_kernels(array: np.ndarray) -> np.ndarray:
    """The same memory as a writable array: a read-only one is another type to compiled code.

    Kernels only read their sources, so images mapped read-only from a file need no copy.
    """
    if array.flags.writeable or array.size == 0:
        return array
    return np.asarray(_Writable(array))


def thread_count(threads: int | None) -> int:
    """`threads`, or for None the number of cores this process may use. TypeError, ValueError below 1."""
    if threads is None:
        return cpu_count()
    return checks.integer(threads, f"threads={threads!r}: an integer from 1 was wanted", 1)


def mostly_zero(images: np.ndarray) -> bool:
    """Whether leaving zeros out of a product with bytes (N, D) pays: few groups of 4 neighbours have one that is not.

    Of 64 rows spread over the data. Of MNIST's groups 28 % are lit, and an epoch takes 0.4 to 0.6 of the time; up to
    60 % no network of 64 units or more was slower, with AVX-512, where such groups are taken. Fewer rows than 32 are
    not worth looking at.
    """
    count, width = images.shape
    if count < _FEW_ROWS or width < _GROUP:
        return False
    some = np.ascontiguousarray(images[:: max(1, count // _LOOKED_AT)][:_LOOKED_AT, : width // _GROUP * _GROUP])
    return bool(np.count_nonzero(some.view(np.uint32)) < _MOSTLY * some.size / _GROUP)  # a group is one number
