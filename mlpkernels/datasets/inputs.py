"""Files to predict from, read as the model's training data was: pictures, CSV with or without labels, NPZ."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import csvfile
from .archive import Archive, rows_and_shape
from .conform import check_shape, described, rescaled, scale_factor
from .images import is_image, read_images
from .labels import listed
from .part import check_finite
from .table import is_pixels, pixel_values


def read_inputs(
    paths: Sequence[str | os.PathLike[str]],
    shape: tuple[int, ...],
    full_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
    *,
    invert: bool = False,
    label_column: str | None = None,
    usual_label: str | None = None,
) -> tuple[NDArray[Any], list[str]]:
    """(rows (N, D) on the training data's scale, a name for each row) of the files, in their order.

    shape: the model's (C, H, W) or (D,); full_scale and feature_names: the training data's. Pictures must
    have the model's size, become grey or RGB as shape says, and have names of files; rows of CSV and NPZ are
    called file:1, file:2, ... A CSV may have a column of labels, which is left out: label_column, or
    usual_label in files that have it, or the one column that is not named like a pixel where all others are.
    invert: full_scale - x, for dark on light. uint8 where everything is, else floats. Raises DataError for
    unreadable files, other sizes or columns, one column too many that could be any.
    """
    if invert and full_scale is None:
        raise DataError("--invert needs a known full scale, such as pictures have; this model has none")
    if not paths:
        raise DataError("no files to predict from: give pictures, .csv or .npz files")
    blocks: list[NDArray[Any]] = []
    names: list[str] = []
    pictures: list[Path] = []

    def flush() -> None:  # pictures next to one another are read together
        if pictures:
            blocks.append(_read_pictures(pictures, shape, full_scale))
            names.extend(str(path) for path in pictures)
            pictures.clear()

    for path in map(Path, paths):
        if is_image(path):
            pictures.append(path)
            continue
        flush()
        lower = path.name.lower()
        if lower.endswith((".csv", ".csv.gz", ".tsv")):
            rows = _read_csv(path, shape, full_scale, feature_names, label_column, usual_label)
        elif lower.endswith(".npz"):
            rows = _read_npz(path, shape, full_scale)
        else:
            raise DataError(f"{path}: cannot be read; wanted a picture (.png, .jpg, ...), .csv or .npz")
        blocks.append(rows)
        names.extend(f"{path}:{row}" for row in range(1, len(rows) + 1))
    flush()
    x = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if invert and full_scale is not None:
        if x.dtype == np.uint8 and full_scale != 255:
            x = x.astype(np.float32)  # bytes above their full scale would wrap around
        x = 255 - x if x.dtype == np.uint8 else full_scale - x
    return x, names


def _read_pictures(files: Sequence[Path], shape: tuple[int, ...], full_scale: float | None) -> NDArray[Any]:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"{files[0]}: a picture, the model takes {described(shape)}; give a .csv or .npz")
    if full_scale is None:
        raise DataError(f"{files[0]}: the full scale of the model's images is not known; give a .npz, "
                        "or import the model with --full-scale")  # fmt: skip
    x, _ = read_images(files, shape)
    return _on_scale(x, 255.0, full_scale, guessed=False)


def _read_csv(
    path: Path,
    shape: tuple[int, ...],
    full_scale: float | None,
    feature_names: Sequence[str] | None,
    label_column: str | None,
    usual_label: str | None,
) -> NDArray[Any]:
    header = csvfile.read_header(path)
    width = math.prod(shape)
    count = len(header.names)
    order = list(range(count))
    if label_column is None and usual_label in header.names:
        label_column = usual_label
    if label_column is not None:
        order.remove(header.place(label_column))
    if feature_names is not None:
        missing = [name for name in feature_names if name not in header.names]
        if missing:
            there = listed(header.names, 6)
            raise DataError(f"{path}: no column {listed(missing, 6)}, which the model takes; it has {there}")
        order = [header.place(name) for name in feature_names]
    elif len(order) == width + 1 and label_column is None:
        label = label_among_pixels(header.names)
        if label is None:
            raise DataError(
                f"{path}: one column more than the {width:,} that the model takes, and any may hold the labels: name "
                f"it with --label-column (columns: {listed(header.names, 6)})"
            )
        order.remove(header.place(label))
    if len(order) != width:
        raise DataError(f"{path}: {count:,} columns, wanted are {described(shape)} (one of labels may be there too)")
    wanted = set(order)
    roles = [csvfile.NUMBER if index in wanted else csvfile.SKIP for index in range(count)]
    names = tuple(header.names[index] for index in order)
    pixels = feature_names is None and is_pixels(names)
    values = csvfile.read_columns(header, roles, as_bytes=pixels).values
    if order != sorted(order):
        values = values[:, np.argsort(np.argsort(order))]
    if pixels:
        values = _on_scale(*pixel_values(values), full_scale)
    return np.ascontiguousarray(values)


def label_among_pixels(names: Sequence[str]) -> str | None:
    """The one column that is not named like a pixel; None where there are more of them, or none."""
    others = [name for name in names if not is_pixels((name,))]
    return others[0] if len(others) == 1 and len(names) > 1 else None


def _read_npz(path: Path, shape: tuple[int, ...], full_scale: float | None) -> NDArray[Any]:
    with Archive(path) as archive:
        key = next((key for key in ("x", "x_test") if archive.has(key)), "x")
        archive.require(key, wanted="an array x of the rows to predict from, or x_test")
        x = archive.read(key)
    name = f"{path}: {key}"
    if x.ndim == len(shape) and x.shape == tuple(shape):
        x = x[np.newaxis]  # one sample without the axis of rows
    rows, found_shape, found = rows_and_shape(x, name)
    check_shape((x.shape[1],) if x.ndim == 2 else found_shape, shape, name)
    check_finite(rows, name)
    return _on_scale(rows, found, full_scale)


def _on_scale(x: NDArray[Any], found: float | None, wanted: float | None, guessed: bool = True) -> NDArray[Any]:
    factor = scale_factor([x], found, wanted, guessed)
    return x if factor is None else rescaled(x, factor)
