"""Images as a CSV of pixels: `label,pixel0,pixel1,…`, and the same without labels; rows drawn by a seed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..files import write_atomic
from .part import Dataset, Part

_ROWS_A_BLOCK = 1000


def drawn(dataset: Dataset, rows: int, seed: int, some_left: bool = True) -> tuple[Part, Part]:
    """(rows drawn by `seed` from all of the data set's, training part first; the others), in the order drawn.

    Raises ValueError for a negative seed, DataError where there are fewer rows, or, with some_left, none would be left.
    """
    everything = [dataset.train] if dataset.test is None else [dataset.train, dataset.test]
    total = sum(map(len, everything))
    most = total - some_left
    if not 0 < rows <= most:
        raise DataError(f"{dataset.name}: {rows:,} rows of its {total:,}; --rows from 1 to {most:,} were wanted")
    x, y = np.concatenate([part.x for part in everything]), np.concatenate([part.y for part in everything])
    order = np.random.Generator(np.random.PCG64(seed)).permutation(total)
    return Part(x[order[:rows]], y[order[:rows]]), Part(x[order[rows:]], y[order[rows:]])


def write_pixels(
    path: str | os.PathLike[str], x: NDArray[np.uint8], labels: NDArray[np.int64] | None = None
) -> None:  # fmt: skip
    """Write rows x (N, D) of bytes as CSV, with a first column `label` where labels (N,) are given.

    Whole or not at all. Raises DataError for rows that are no bytes, OSError where the file cannot be written.
    """
    if x.dtype != np.uint8:
        raise DataError(f"{os.fspath(path)}: rows of {x.dtype}; a CSV of pixels holds whole numbers from 0 to 255")
    write_atomic(path, b"".join(_lines(x, labels)))


def _lines(x: NDArray[np.uint8], labels: NDArray[np.int64] | None) -> Iterator[bytes]:
    names = ["label"] if labels is not None else []
    yield ",".join([*names, *(f"pixel{k}" for k in range(x.shape[1]))]).encode() + b"\n"
    texts = [b"%d" % value for value in range(256)]
    for first in range(0, len(x), _ROWS_A_BLOCK):
        rows = [b",".join(map(texts.__getitem__, row)) for row in x[first : first + _ROWS_A_BLOCK].tolist()]
        if labels is not None:
            block = labels[first : first + _ROWS_A_BLOCK].tolist()
            rows = [b"%d,%s" % (label, row) for label, row in zip(block, rows, strict=True)]
        yield b"\n".join(rows) + b"\n"


def write_both(
    dataset: Dataset, rows: int, seed: int, path: Path, rest: Path | None
) -> tuple[int, int]:  # fmt: skip
    """Write `rows` labelled rows drawn by `seed` to `path` and, where named, the others without labels to `rest`.

    Returns how many rows went to each. Raises DataError, also where a label is no integer, and OSError; then neither
    file is there unless it was before.
    """
    classes = np.array(dataset.classes)
    if classes.dtype.kind != "i":
        raise DataError(f"{dataset.name}: its classes are words; this CSV holds whole numbers as labels")
    chosen, others = drawn(dataset, rows, seed, rest is not None)
    new = not path.exists()
    write_pixels(path, chosen.x, classes[chosen.y])
    if rest is None:
        return len(chosen), 0
    try:
        write_pixels(rest, others.x)
    except BaseException:
        if new:
            with suppress(OSError):
                path.unlink()
        raise
    return len(chosen), len(others)
