"""A CSV file as a data set: one column of labels, the others numbers or pixels."""

from __future__ import annotations

import math
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import csvfile, labels
from .part import Dataset, Part

# names in use: pixel0 (Kaggle), pixel1 (Fashion-MNIST), pixel_0_0 (scikit-learn), 1x1 (older MNIST files)
_PIXEL = re.compile(r"(pixel|px)[ _-]?\d+([_x]\d+)?|\d+x\d+", re.ASCII | re.IGNORECASE)


def load_table(path: Path, label_column: str | None = None, *, min_classes: int = 2) -> Dataset:
    """The data set of a CSV file with a header; the labels are the first column or `label_column`.

    Labels are integers where all of them are; one with leading zeros ("007") makes them text, each as it was
    written, and where they are not all of one length a note tells so: see `labels.from_texts`.
    Columns named like pixels (pixel0, pixel1, ...) of whole numbers 0 to 255 stay uint8 with full scale 255,
    and are images where their count is a square. Other columns are float64. Raises DataError as
    `csvfile.read_columns` does, for two columns of one name, for labels that are fractions, and, unless
    min_classes is 1 (data that is only evaluated), for labels that are nearly all different.
    """
    header = csvfile.read_header(path)
    label = 0 if label_column is None else header.place(label_column)
    header.check_distinct()
    features = tuple(name for index, name in enumerate(header.names) if index != label)
    if not features:
        raise DataError(f"{path}: one column, '{header.names[0]}': wanted a label and one or more values")
    roles = [csvfile.LABEL if index == label else csvfile.NUMBER for index in range(len(header.names))]
    pixels = is_pixels(features)
    try:
        columns = csvfile.read_columns(header, roles, as_bytes=pixels)
    except csvfile.TextError as error:
        if label_column is not None:
            raise
        chosen = shlex.quote(header.names[error.column])
        raise DataError(
            f"{error}; labels are taken from the first column, '{header.names[0]}'; where they are in this one, give "
            f"--label-column {chosen}"
        ) from None
    classes, y = _classes(path, header, label, columns)
    if min_classes > 1:  # a few rows to evaluate may well show each of many classes once
        labels.check_count(classes, len(y), f"{path}, column '{header.names[label]}'")
    values, full_scale = pixel_values(columns.values) if pixels else (columns.values, None)
    note = labels.padding_note(classes)
    side = math.isqrt(len(features))
    images = pixels and side > 1 and side * side == len(features)
    return Dataset(
        name=path.name.removesuffix(".gz").rsplit(".", 1)[0],
        train=Part(values, y),
        test=None,
        classes=classes,
        shape=(1, side, side) if images else (len(features),),
        full_scale=full_scale,
        scale_guessed=True,
        images=images,
        feature_names=None if pixels else features,
        source=f"{path}, labels in column '{header.names[label]}'",
        notes=() if note is None else (f"{path.name}, column '{header.names[label]}': {note}",),
    )


def is_pixels(names: tuple[str, ...]) -> bool:
    """Whether every column is named like a pixel."""
    return all(_PIXEL.fullmatch(name) for name in names)


def pixel_values(values: NDArray[Any]) -> tuple[NDArray[Any], float | None]:
    """Pixels and their full scale: whole numbers 0 to 255 become uint8, fractions 0 to 1 have full scale 1.

    Fractions up to 255 have full scale 255, anything else (negative, above 255) has none that is known.
    """
    if values.dtype == np.uint8:
        return values, 255.0
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 255:
        return values, None
    # row by row: comparing at once would take as much memory again as the table
    if all((row == np.floor(row)).all() for row in values):
        return values.astype(np.uint8), 255.0
    return values, 1.0 if high <= 1 else 255.0


def _classes(
    path: Path, header: csvfile.Header, label: int, columns: csvfile.Columns
) -> tuple[tuple[labels.Label, ...], NDArray[np.int32]]:
    try:
        classes, table = labels.from_texts(columns.texts)
    except labels.LabelError as error:
        row = int(np.argmax(columns.codes == error.index)) + 1
        raise DataError(
            f"{path}: row {row}, column {label + 1} ('{header.names[label]}'): {error}; another column "
            f"is chosen with --label-column (columns: {labels.listed(header.names, 6)})"
        ) from None
    return classes, table[columns.codes]
