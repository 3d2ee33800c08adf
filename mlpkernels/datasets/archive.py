"""NumPy archives (.npz) as data sets; objects are never unpickled, sizes are checked before they are read."""

from __future__ import annotations

import math
import warnings
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import labels
from .bounded import check_expansion
from .part import Dataset, Part, stored_rows

_WANTED = "x_train and y_train (x_test and y_test if there are any), or X and y"


def load_archive(path: Path, *, min_classes: int = 2) -> Dataset:
    """The data set of an .npz file with the arrays x_train, y_train, x_test, y_test or X, y (case ignored).

    x (N, D) is a table; (N, H, W), (N, H, W, C) and (N, C, H, W) are images, flattened in C, H, W order.
    uint8 images have full scale 255; uint8 rows (N, D) are images too where D is a square of 64 or more.
    Raises DataError for missing arrays, objects, damaged files, other shapes, NaN, and, unless min_classes is 1
    (data that is only evaluated), for labels that are nearly all different.
    """
    with Archive(path) as archive:
        prefix, suffix = ("x_train", "y_train"), ("x_test", "y_test")
        keys = prefix if archive.has("x_train") or archive.has("y_train") else ("x", "y")
        archive.require(*keys)
        if archive.has("x_test") or archive.has("y_test"):
            archive.require(*suffix)
        train_rows, train_labels = archive.read(keys[0]), archive.read(keys[1])
        test_rows = archive.read("x_test") if archive.has("x_test") else None
        test_labels = archive.read("y_test") if archive.has("y_test") else None
    x, shape, full_scale = rows_and_shape(train_rows, f"{path}: {keys[0]}")
    classes, y = labels.from_array(train_labels, f"{path}: {keys[1]}")
    _check_counts(path, keys, x, y)
    if min_classes > 1:  # a few rows to evaluate may well show each of many classes once
        labels.check_count(classes, len(y), f"{path}: {keys[1]}")
    test = None
    if test_rows is not None and test_labels is not None:
        test_x, test_shape, test_scale = rows_and_shape(test_rows, f"{path}: x_test")
        if test_shape != shape:
            raise DataError(f"{path}: x_test has rows of shape {test_shape}, {keys[0]} of {shape}")
        full_scale = _common_scale(path, full_scale, test_scale, x.dtype == test_x.dtype)
        test_classes, test_y = labels.from_array(test_labels, f"{path}: y_test")
        _check_counts(path, suffix, test_x, test_y)
        test_y = labels.matched(test_y, test_classes, classes, f"{path}: y_test")
        test = _part(test_x, test_y, f"{path}: x_test")
    notes: tuple[str, ...] = ()
    if (note := labels.padding_note(classes)) is not None:
        notes = (f"{path.name}, {keys[1]}: {note}",)
    if train_rows.ndim == 2 and len(shape) == 3:
        notes += (
            f"{path.name}: rows of {x.shape[1]} bytes are read as {shape[1]} x {shape[2]} images; "
            "save them as floats to have a table",
        )
    return Dataset(
        name=path.stem,
        train=_part(x, y, f"{path}: {keys[0]}"),
        test=test,
        classes=classes,
        shape=shape,
        full_scale=full_scale,
        scale_guessed=True,
        images=len(shape) == 3,
        source=str(path),
        notes=notes,
    )


def _part(x: NDArray[Any], y: NDArray[Any], name: str) -> Part:
    """A part of an archive's arrays, whose errors name the file and the array of rows: a part knows neither."""
    try:
        return Part(x, y)
    except DataError as error:
        raise DataError(f"{name}: {str(error).removeprefix('x: ')}") from None


def rows_and_shape(x: NDArray[Any], name: str) -> tuple[NDArray[Any], tuple[int, ...], float | None]:
    """(rows (N, D), shape, full scale) of an array of table rows or images, as `load_archive` describes.

    Raises DataError for other dimensions, dtypes and channel counts.
    """
    if x.dtype.kind not in "fiub":
        raise DataError(f"{name} holds {x.dtype}, wanted numbers")
    if x.ndim not in (2, 3, 4) or 0 in x.shape[1:]:
        raise DataError(
            f"{name} has the shape {x.shape}, wanted rows (N, D) or images (N, H, W), (N, H, W, C) or (N, C, H, W)"
        )
    if x.ndim == 2:
        rows = stored_rows(x, name)
        side = math.isqrt(x.shape[1])
        if rows.dtype == np.uint8 and x.dtype.kind == "u" and side >= 8 and side * side == x.shape[1]:
            return rows, (1, side, side), 255.0
        return rows, (x.shape[1],), None
    if x.ndim == 3:
        x = x[:, np.newaxis]
    elif x.shape[1] not in (1, 3):  # both ends could be channels: then the first, PyTorch's order
        if x.shape[3] not in (1, 3):
            raise DataError(f"{name} has the shape {x.shape}, wanted 1 or 3 channels, second or last")
        x = np.moveaxis(x, 3, 1)
    shape = tuple(int(size) for size in x.shape[1:])
    pixels, full_scale = _pixels(x)
    return stored_rows(pixels.reshape(len(x), math.prod(shape)), name), shape, full_scale


def _pixels(x: NDArray[Any]) -> tuple[NDArray[Any], float | None]:
    """Image values, as bytes where they are integers from 0 to 255, and their full scale."""
    if x.dtype.kind == "b":
        return x.astype(np.uint8), 1.0
    if x.dtype == np.uint8:
        return x, 255.0
    if x.size == 0:
        return x, None
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 255):
        return x, None
    if x.dtype.kind in "iu":
        return x.astype(np.uint8), 255.0
    return x, 1.0 if high <= 1 else 255.0


class Archive:
    """An open .npz file whose arrays are found by name without regard to case."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.is_file():
            raise DataError(f"{path}: no such file")
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        self._names: dict[str, list[str]] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except PermissionError:
            raise
        except Exception as error:  # the zip reader fails in a dozen ways on damaged bytes
            raise DataError(f"{path}: not a .npz file, or damaged ({_brief(error)})") from None
        for entry in self._zip.namelist():
            if entry.endswith(".npy"):
                self._names.setdefault(entry.removesuffix(".npy").lower(), []).append(entry)

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def has(self, key: str) -> bool:
        """Whether there is an array of this (lower-case) name."""
        return key in self._names

    def require(self, *keys: str, wanted: str = _WANTED) -> None:
        """Raise DataError naming the first of the keys that is missing, what was wanted and what there is instead."""
        for key in keys:
            if key not in self._names:
                there = labels.listed(names[0].removesuffix(".npy") for names in self._names.values())
                raise DataError(f"{self.path}: no array {key}; wanted {wanted}; there is: {there or 'none'}")
            if len(self._names[key]) > 1:
                raise DataError(f"{self.path}: {labels.listed(self._names[key])}: which is meant? Keep one")

    def read(self, key: str) -> NDArray[Any]:
        """The array; raises DataError for objects, damage, and sizes that do not fit the file."""
        entry = self._names[key][0]
        name = f"{self.path}: {entry.removesuffix('.npy')}"
        info = self._zip.getinfo(entry)
        check_expansion(name, self.path.stat().st_size, info.file_size)
        try:
            with self._zip.open(info) as file:
                shape, dtype = _npy_header(file, name)
                expected = math.prod(shape) * dtype.itemsize
                if expected != info.file_size - file.tell():
                    raise DataError(
                        f"{name}: its header says {shape} {dtype} = {expected:,} bytes, there are "
                        f"{info.file_size - file.tell():,}"
                    )
            with self._zip.open(info) as file:
                values: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
                file.read(1)  # reaching the end is what makes zipfile compare the checksum
        except (DataError, MemoryError):
            raise
        except Exception as error:  # as above, and as many ways more within NumPy's header parser
            raise DataError(f"{name}: damaged ({_brief(error)})") from None
        return values


def _npy_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0)):
        raise DataError(f"{name}: .npy version {version[0]}.{version[1]}, wanted 1.0 or 2.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a header that needs guessing is damaged, or decades old
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError(
            f"{name} holds pickled Python objects, which could run code when read: refused; save numbers or "
            "strings instead (for example numpy.asarray(values, dtype=float))"
        )
    if any(size < 0 for size in shape):
        raise DataError(f"{name}: its header says the shape {shape}")
    return shape, dtype


def _common_scale(path: Path, train: float | None, test: float | None, alike: bool) -> float | None:
    """Of two parts of one dtype the brighter one knows the scale; of two dtypes both must say the same."""
    if train is None or test is None:
        return None
    if train != test and not alike:
        raise DataError(f"{path}: x_train has values up to {train:g}, x_test up to {test:g}: scale both")
    return max(train, test)


def _check_counts(path: Path, keys: tuple[str, str], x: NDArray[Any], y: NDArray[np.int32]) -> None:
    if len(x) != len(y):
        raise DataError(f"{path}: {len(x):,} rows in {keys[0]}, but {len(y):,} labels in {keys[1]}")
    if len(x) == 0:
        raise DataError(f"{path}: {keys[0]} is empty")


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 100 else text[:100] + "..."
