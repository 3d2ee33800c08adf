"""Stratified, repeatable splits of a part into two, and data sets given the test part they lack."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .conform import conform
from .part import Dataset, Part


def split(part: Part, fraction: float, seed: int) -> tuple[Part, Part]:
    """(rest, held_out): about `fraction` of each class's rows are held out, drawn by `seed`.

    Both parts are non-empty and keep the order of the rows. A class of two rows or more is present in both;
    a class of one row stays in the rest. The same arguments give the same split. Raises ValueError for a
    fraction outside (0, 1) or a negative seed, DataError where no class has two rows.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction {fraction}: wanted a share between 0 and 1, such as 0.2")
    if seed < 0:
        raise ValueError(f"seed {seed}: wanted 0 or above")
    counts = np.bincount(part.y) if len(part) else np.zeros(0, np.int64)
    if not (counts >= 2).any():
        raise DataError(
            f"cannot split {len(part)} rows of {int((counts > 0).sum())} classes: a class of two rows or more is needed"
        )
    wanted = _quotas(counts, fraction)
    generator = np.random.default_rng(seed)
    held = np.zeros(len(part), np.bool_)
    by_class = np.split(np.argsort(part.y, kind="stable"), np.cumsum(counts)[:-1])
    for rows, count in zip(by_class, wanted, strict=True):
        held[generator.permutation(rows)[:count]] = True
    return Part(part.x[~held], part.y[~held]), Part(part.x[held], part.y[held])


def with_test(
    dataset: Dataset, test_split: float = 0.2, split_seed: int = 0, test_data: Dataset | None = None
) -> Dataset:
    """The data set with a test part: test_data's if given, else its own, else split off the training part.

    Of test_data its test part is taken, or its training part where it has none; its classes, columns and
    full scale are matched to the data set's. Raises DataError where they cannot be, ValueError for a
    test_split outside (0, 1).
    """
    if test_data is not None:
        fitted = conform(
            test_data,
            classes=dataset.classes,
            shape=dataset.shape,
            full_scale=dataset.full_scale,
            feature_names=dataset.feature_names,
        )
        test = fitted.train if fitted.test is None else fitted.test
        return replace(dataset, test=test, source=f"{dataset.source}; test: {test_data.source}")
    if dataset.test is not None:
        return dataset
    rest, test = split(dataset.train, test_split, split_seed)
    return replace(dataset, train=rest, test=test)


def _quotas(counts: NDArray[np.int64], fraction: float) -> NDArray[np.int64]:
    """How many rows of each class to hold out: largest remainders, then at least one on either side."""
    exact = counts * fraction
    quotas = np.floor(exact).astype(np.int64)
    missing = round(float(exact.sum())) - int(quotas.sum())
    largest = np.argsort(-(exact - quotas), kind="stable")
    quotas[largest[: max(0, missing)]] += 1
    return np.where(counts >= 2, np.clip(quotas, 1, np.maximum(counts - 1, 1)), 0)
