"""A data set rewritten as another one, or a trained model, counts its classes, columns and scale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .labels import Label, listed, matched
from .part import Dataset, Part


def conform(
    dataset: Dataset,
    *,
    classes: Sequence[Label],
    shape: tuple[int, ...],
    full_scale: float | None = None,
    feature_names: Sequence[str] | None = None,
) -> Dataset:
    """The data set with class indices into `classes`, columns as `feature_names` and values to `full_scale`.

    shape: (C, H, W) or (D,) that the rows must fill. Columns are put in order by name where both sides have
    names; values are rescaled where both full scales are known and differ (they become float32): see
    `scale_factor`. Raises DataError for labels outside the classes, other widths, another image size, missing columns.
    """
    name = dataset.name
    order = column_order(dataset.feature_names, feature_names, name)
    if order is None:
        check_shape(dataset.shape, shape, name)
    parts = [part.x for part in (dataset.train, dataset.test) if part is not None]
    factor = scale_factor(parts, dataset.full_scale, full_scale, dataset.scale_guessed)

    def fitted(part: Part | None, title: str) -> Part | None:
        if part is None:
            return None
        x = part.x if order is None else part.x[:, order]
        x = x if factor is None else rescaled(x, factor)
        return Part(x, matched(part.y, dataset.classes, classes, f"{name} ({title})"))

    train = fitted(dataset.train, "training part" if dataset.test is not None else "all rows")
    assert train is not None
    return replace(
        dataset,
        train=train,
        test=fitted(dataset.test, "test part"),
        classes=tuple(classes),
        shape=tuple(shape),
        images=len(shape) == 3,
        full_scale=dataset.full_scale if full_scale is None else full_scale,
        scale_guessed=dataset.scale_guessed and full_scale is None,
        feature_names=None if feature_names is None else tuple(feature_names),
    )


def scale_factor(
    parts: Sequence[NDArray[Any]], found: float | None, wanted: float | None, guessed: bool
) -> float | None:  # fmt: skip
    """What values of the full scale `found` are multiplied by to be of `wanted`; None where they stay as they are.

    guessed: from the values, as of a CSV. Then those that keep within a scale below 255 that is wanted are on it, as
    the digits 0 to 16 are; floats may exceed it by half, as resized pictures do.
    """
    if found is None or wanted is None or found == wanted:
        return None
    if guessed and wanted < found == 255:
        room = 1.0 if all(part.dtype == np.uint8 for part in parts) else 1.5
        if all(part.max(initial=0) <= room * wanted for part in parts):
            return None
    return wanted / found


def rescaled(x: NDArray[Any], factor: float) -> NDArray[Any]:
    """x times factor; bytes become float32, floats keep their dtype."""
    dtype = np.float32 if x.dtype == np.uint8 else x.dtype
    return np.multiply(x, factor, dtype=dtype)


def column_order(given: Sequence[str] | None, wanted: Sequence[str] | None, name: str) -> NDArray[np.intp] | None:
    """Indices that put the columns `given` into the order `wanted`; None where they are so or unnamed.

    Raises DataError naming wanted columns that are missing.
    """
    if given is None or wanted is None or tuple(given) == tuple(wanted):
        return None
    place = {column: index for index, column in enumerate(given)}
    missing = [column for column in wanted if column not in place]
    if missing:
        raise DataError(f"{name}: no column {listed(missing, 6)}, which was trained on; it has {listed(given, 6)}")
    return np.array([place[column] for column in wanted], np.intp)


def check_shape(given: tuple[int, ...], wanted: tuple[int, ...], name: str) -> None:
    """Raise DataError unless rows of shape `given` fill the shape `wanted`; flat rows need only the width."""
    if tuple(given) == tuple(wanted):
        return
    if math.prod(given) != math.prod(wanted):
        raise DataError(f"{name}: {described(given)} where {described(wanted)} are wanted")
    if len(given) == 3 and len(wanted) == 3:
        raise DataError(f"{name}: {described(given)} where {described(wanted)} are wanted")


def described(shape: tuple[int, ...]) -> str:
    """A shape in words, such as "28 x 28 grey images" or "rows of 30 values"."""
    if len(shape) != 3:
        return f"rows of {math.prod(shape):,} values"
    channels, height, width = shape
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels}-channel")
    return f"{width} x {height} {colour} images"
