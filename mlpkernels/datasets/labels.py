"""Labels as people write them (integers or text) turned into sorted classes and class indices."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Label = int | str

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_PADDED = re.compile(r"[+-]?0[0-9]+", re.ASCII)
_EXACT = 2**53  # above it a float no longer tells neighbouring integers apart


class LabelError(ValueError):
    """A label that is none; `index` says which of those given. Callers make it a DataError with a place."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


def from_texts(texts: Sequence[str]) -> tuple[tuple[Label, ...], NDArray[np.int32]]:
    """Classes of the texts, and for each text its class index, (len(texts),) int32.

    All texts numbers: the classes are integers, ascending ("3" and "3.0" are the same). Otherwise they are the
    texts themselves, sorted. An integer with leading zeros is an identifier, such as a postal code, which is
    printed as it was written and differs from the one without them: one such label ("007") makes all of them text,
    integers among them sorted by their value ("7", "007", "10"); `padding_note` tells the user. Raises LabelError
    for an empty text, "nan", or fractions among numbers.
    """
    for index, text in enumerate(texts):
        if not text or text.lower() == "nan":
            raise LabelError("no label", index)
    values: Sequence[Label] = texts
    if all(_NUMBER.fullmatch(text) for text in texts):
        values = _as_integers(texts)
    return _indexed(values)


def padding_note(classes: Sequence[Label]) -> str | None:
    """What to tell the user of labels that have leading zeros and are not all of one length; None of others.

    "01" to "12" are plainly identifiers. "1", "2" and "007" may well be integers written in two ways.
    """
    if not all(isinstance(label, str) and _INTEGER.fullmatch(label) for label in classes):
        return None
    padded = [str(label) for label in classes if _PADDED.fullmatch(str(label))]
    if not padded or len({len(str(label)) for label in classes}) == 1:
        return None
    return (
        f"the labels are text and not integers, since leading zeros tell labels apart: {listed(padded, 4)}; "
        "write all of them without, or all with the same number of digits"
    )


def from_array(y: NDArray[Any], name: str) -> tuple[tuple[Label, ...], NDArray[np.int32]]:
    """Classes and class indices (N,) int32 of an array of labels, (N,) or (N, 1).

    Integers, booleans (0 and 1) and whole floats give integer classes, strings give strings. Raises DataError
    for other dtypes and shapes, for NaN and fractions.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        hint = "; for one-hot rows save y.argmax(axis=1)" if y.ndim == 2 else ""
        raise DataError(f"{name} has the shape {y.shape}, wanted (N,): one label a row{hint}")
    if y.dtype.kind in "US":
        return _text_classes(y, name)
    if y.dtype.kind == "b":
        y = y.astype(np.uint8)
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (y == np.floor(y)) & (abs(y) < _EXACT)
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"{name}: row {row + 1} is {y[row]}: labels must be integers or text")
        y = y.astype(np.int64)
    if y.dtype.kind not in "iu":
        raise DataError(f"{name}: the labels are {y.dtype}, wanted integers or text")
    unique, codes = np.unique(y, return_inverse=True)
    return tuple(int(value) for value in unique), codes.reshape(-1).astype(np.int32)


def matched(y: NDArray[np.int32], classes: Sequence[Label], wanted: Sequence[Label], name: str) -> NDArray[np.int32]:
    """Class indices y (N,) into `classes` as indices into `wanted`.

    A number and the text that spells it ("3" and 3) match. Raises DataError naming the labels that occur in
    y and are not among `wanted`.
    """
    if tuple(classes) == tuple(wanted):
        return y
    place = {str(label): index for index, label in enumerate(wanted)}
    table = np.array([place.get(str(label), -1) for label in classes], np.int32)
    present = np.unique(y)
    unknown = [classes[index] for index in present if table[index] < 0]
    if unknown:
        numbers = {int(text) for text in place if _INTEGER.fullmatch(text)}
        alike = any(_INTEGER.fullmatch(str(label)) and int(label) in numbers for label in unknown)
        raise DataError(
            f"{name}: {'label' if len(unknown) == 1 else 'labels'} {listed(unknown)} outside the classes "
            f"{listed(wanted)}" + "; leading zeros tell labels apart" * alike
        )
    return table[y]


def listed(values: Iterable[Any], most: int = 12) -> str:
    """A few values, comma separated, with an ellipsis where some were left out."""
    texts = [str(value) for value in values]
    if len(texts) > most:
        return ", ".join([*texts[: most - 1], "...", texts[-1]]) + f" ({len(texts)} in all)"
    return ", ".join(texts)


def check_count(classes: Sequence[Label], rows: int, name: str) -> None:
    """Raise DataError where nearly every row is a class of its own: those are identifiers or numbers."""
    if len(classes) > 16 and 2 * len(classes) > rows:
        raise DataError(
            f"{name}: {len(classes):,} different labels in {rows:,} rows ({listed(classes, 4)}): these "
            "do not look like classes"
        )


def _as_integers(texts: Sequence[str]) -> list[Label]:
    integers: list[Label] = []
    for index, text in enumerate(texts):
        if _INTEGER.fullmatch(text):
            integers.append(int(text))
            continue
        value = float(text)
        if abs(value) >= _EXACT:
            return list(texts)  # identifiers too long for integers: they stay text
        if value != int(value):
            raise LabelError(f"{text} is no class: labels must be integers or text", index)
        integers.append(int(value))
    # after the loop: fractions are refused wherever they stand
    return list(texts) if any(_PADDED.fullmatch(text) for text in texts) else integers


def _indexed(values: Sequence[Label]) -> tuple[tuple[Label, ...], NDArray[np.int32]]:
    classes = tuple(sorted(set(values)))
    if all(_INTEGER.fullmatch(str(value)) for value in classes):  # identifiers, too, by their value
        classes = tuple(sorted(classes, key=lambda value: (int(value), len(str(value)))))
    place = {label: index for index, label in enumerate(classes)}
    return classes, np.array([place[value] for value in values], np.int32)


def _text_classes(y: NDArray[Any], name: str) -> tuple[tuple[Label, ...], NDArray[np.int32]]:
    unique, codes = np.unique(y, return_inverse=True)
    try:
        texts = [value.decode("utf-8") if isinstance(value, bytes) else str(value) for value in unique]
        classes, table = from_texts([text.strip() for text in texts])
    except LabelError as error:
        row = int(np.argmax(codes.reshape(-1) == error.index))
        raise DataError(f"{name}: row {row + 1}: {error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{name}: the labels are bytes that are not UTF-8 text; save them as str") from None
    return classes, table[codes.reshape(-1)]
