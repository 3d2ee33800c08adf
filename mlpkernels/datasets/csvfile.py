"""CSV files as people have them: header, delimiter, byte-order mark, quotes, gzip; read fast, faults named.

Rows are parsed by NumPy's C reader, whole blocks at a time (42,000 x 785 values in about a second). Where it
stumbles, a slow reader goes over the file from the start, and either names the first fault by row and column
or, where only the fast reader was too strict, returns the same values.
"""

from __future__ import annotations

import csv
import difflib
import io
import itertools
import math
import warnings
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .bounded import opened
from .labels import listed

_LONGEST_LINE = 1 << 26  # characters; a line without an end is no table
_VALUES_A_BLOCK = 5_000_000  # 40 MB as float64: above 32 MB glibc gives memory back when it is freed
_TEXTS = frozenset("+-.0123456789eE")  # what a number is made of: float() alone takes 1_000 and infinity

NUMBER, LABEL, SKIP = "number", "label", "skip"


@dataclass(frozen=True)
class Header:
    """The first row of a CSV file: column names, what separates them, and lines it takes up."""

    path: Path
    names: tuple[str, ...]
    delimiter: str

    def place(self, column: str) -> int:
        """Index of a column; raises DataError with the nearest name where there is none, or two."""
        count = self.names.count(column)
        if count == 1:
            return self.names.index(column)
        if count:
            raise DataError(f"{self.path}: {count} columns are called '{column}': rename all but one")
        near = difflib.get_close_matches(column, self.names, 1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise DataError(f"{self.path}: no column '{column}'{hint}; the columns are {listed(self.names)}")

    def check_distinct(self) -> None:
        """Raise DataError where two columns have one name: nothing could later be asked for by it."""
        first: dict[str, int] = {}
        for index, name in enumerate(self.names):
            if first.setdefault(name, index) != index:
                raise DataError(
                    f"{self.path}: columns {first[name] + 1} and {index + 1} are both called '{name}': rename "
                    "or leave out one of them"
                )


@dataclass(frozen=True)
class Columns:
    """What was read: numbers (N, count of NUMBER columns) and, by row, an index into the label texts."""

    values: NDArray[Any]
    codes: NDArray[np.int64]
    texts: tuple[str, ...]


class TextError(DataError):
    """Text stands in a column of numbers, of the index `column`."""

    def __init__(self, text: str, column: int = 0) -> None:
        super().__init__(text)
        self.column = column


class _NoLabelError(ValueError):
    """Raised within the fast reader, so that the slow one names the place."""


@contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    try:
        with opened(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline=None) as text:
            yield text
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save it as CSV in UTF-8") from None


def _lines(path: Path, text: TextIO) -> Iterator[str]:
    for number in itertools.count(1):
        line = text.readline(_LONGEST_LINE)
        if not line:
            return
        if len(line) == _LONGEST_LINE:
            raise DataError(f"{path}: line {number} is longer than {_LONGEST_LINE:,} characters: not a table")
        yield line


def read_header(path: Path) -> Header:
    """The first row of a CSV file. Raises DataError for an empty file, numbers in it, unnamed columns."""
    with _text(path) as text:
        header, _ = _header(path, _lines(path, text))
    return header


def _header(path: Path, lines: Iterator[str]) -> tuple[Header, int]:
    """The header and the count of lines it and the blank lines before it take up."""
    used = 0
    first = ""
    while not first.strip():
        try:
            first = next(lines)
        except StopIteration:
            raise DataError(f"{path}: the file is empty") from None
        used += 1
    if "\0" in first:
        raise DataError(f"{path}: not a text file; wanted CSV with a header")
    # the sign that occurs most in the header; a comma where none does
    delimiter = max(",;\t", key=first.count)

    def counted() -> Iterator[str]:
        nonlocal used
        for line in lines:
            used += 1
            yield line

    try:
        names = next(csv.reader(itertools.chain([first], counted()), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(f"{path}: the header cannot be read: {error}") from None
    names = [name.strip() for name in names]
    if all(_number(name) is not None for name in names):
        raise DataError(f"{path}: no header: the first row is {listed(names, 5)}; put the names of the columns there")
    for index, name in enumerate(names):
        if not name:
            raise DataError(
                f"{path}: column {index + 1} has no name in the header; name it, or write the file without "
                "an index column"
            )
    return Header(path, tuple(names), delimiter), used


def read_columns(header: Header, roles: list[str], as_bytes: bool) -> Columns:
    """Read a table: roles says for each column whether it is a NUMBER, the LABEL (at most one) or SKIPped.

    as_bytes: try whole numbers 0 to 255 first, giving uint8; where that fails, and otherwise, float64.
    Raises DataError for ragged rows, missing labels, missing or non-finite numbers, text where a number
    belongs (row and column named), and a table without rows.
    """
    for dtype in (np.uint8, np.float64) if as_bytes else (np.float64,):
        try:
            return _read_fast(header, roles, np.dtype(dtype))
        except (ValueError, DeprecationWarning):
            continue
    return _read_slow(header, roles)


def _read_fast(header: Header, roles: list[str], dtype: np.dtype[Any]) -> Columns:
    """Raises ValueError or DeprecationWarning for anything out of the ordinary."""
    texts: dict[str, int] = {}

    def coded(label: str) -> int:
        label = label.strip()
        if not label:
            raise _NoLabelError
        return texts.setdefault(label, len(texts))

    record, converters = _record(roles, dtype, coded)
    number_fields = [name for name in record.names or () if name.startswith(NUMBER)]
    blocks: list[NDArray[Any]] = []
    codes: list[NDArray[np.int64]] = []
    with _text(header.path) as text:
        lines = _lines(header.path, text)
        _header(header.path, lines)
        while block := list(itertools.islice(lines, max(1, _VALUES_A_BLOCK // len(roles)))):
            block = [line for line in block if not line.isspace()]
            if not block:
                continue
            rows = _parsed(block, record, converters, header.delimiter)
            # contiguous copies: a view would keep the whole block, labels and all, alive
            blocks.append(np.concatenate([rows[name] for name in number_fields], axis=1))
            codes.append(rows[LABEL].copy() if LABEL in roles else np.zeros(len(rows), np.int64))
            if dtype.kind == "f" and not np.isfinite(blocks[-1]).all():
                raise ValueError
    if not blocks:
        raise DataError(f"{header.path}: a header, but no rows below it")
    return Columns(_joined(blocks), np.concatenate(codes), tuple(texts))


def _record(
    roles: list[str], dtype: np.dtype[Any], coded: Callable[[str], int]
) -> tuple[np.dtype[Any], dict[int, Callable[[str], int]]]:
    """One field a run of number columns, one for each other column, and the converters of those."""
    fields: list[Any] = []
    converters: dict[int, Callable[[str], int]] = {}
    column = 0
    for role, run in itertools.groupby(roles):
        count = len(list(run))
        if role == NUMBER:
            fields.append((f"{NUMBER}{column}", dtype, (count,)))
        for index in range(column, column + count) if role != NUMBER else ():
            converters[index] = coded if role == LABEL else _skipped
            fields.append((LABEL if role == LABEL else f"{SKIP}{index}", np.int64))
        column += count
    return np.dtype(fields), converters


def _skipped(_: str) -> int:
    return 0


def _parsed(
    block: list[str], record: np.dtype[Any], converters: dict[int, Callable[[str], int]], delimiter: str
) -> NDArray[Any]:
    with warnings.catch_warnings():
        # older NumPy reads "5.7" as the integer 5 and only warns
        warnings.simplefilter("error", DeprecationWarning)
        return np.loadtxt(  # type: ignore[call-overload]  # the stubs lack quotechar with converters
            block, record, comments=None, delimiter=delimiter, converters=converters, quotechar='"', ndmin=1
        )


def _joined(blocks: list[NDArray[Any]]) -> NDArray[Any]:
    """The blocks below one another, each freed once it is copied: the peak stays near one table."""
    joined = np.empty((sum(map(len, blocks)), blocks[0].shape[1]), blocks[0].dtype)
    end = len(joined)
    while blocks:
        block = blocks.pop()
        joined[end - len(block) : end] = block
        end -= len(block)
    return joined


def _read_slow(header: Header, roles: list[str]) -> Columns:
    """The definition of what is read, in plain Python; raises DataError at the first fault."""
    path = header.path
    values, codes = array("d"), array("q")
    texts: dict[str, int] = {}
    with _text(path) as text:
        lines = _lines(path, text)
        _, used = _header(path, lines)
        reader = csv.reader(lines, delimiter=header.delimiter)
        row = 0
        while True:
            line = used + reader.line_num + 1
            try:
                fields = next(reader, None)
            except csv.Error as error:
                raise DataError(f"{path}: line {line}: {error}") from None
            if fields is None:
                break
            if not any(field.strip() for field in fields) and len(fields) < 2:
                continue
            row += 1
            place = f"{path}: row {row} (line {line})"
            if len(fields) != len(roles):
                raise DataError(f"{place} has {len(fields):,} fields, the header has {len(roles):,}")
            for column, (field, role) in enumerate(zip(fields, roles, strict=True)):
                if role == NUMBER:
                    number = _number(field)
                    if number is None or not math.isfinite(number):
                        raise _number_fault(place, column, header.names[column], field)
                    values.append(number)
                elif role == LABEL and not field.strip():
                    raise DataError(f"{place}, column {column + 1} ('{header.names[column]}'): no label")
                elif role == LABEL:
                    codes.append(texts.setdefault(field.strip(), len(texts)))
    if not row:
        raise DataError(f"{path}: a header, but no rows below it")
    table = np.frombuffer(values, np.float64).reshape(row, -1).copy()
    found = np.frombuffer(codes, np.int64).copy() if LABEL in roles else np.zeros(row, np.int64)
    return Columns(table, found, tuple(texts))


def _number(field: str) -> float | None:
    """The number a field spells, nan and inf included; None where it spells none."""
    field = field.strip()
    if not _TEXTS.issuperset(field) and field.lower().lstrip("+-") not in ("nan", "inf", "infinity"):
        return None
    try:
        return float(field)
    except ValueError:
        return None


def _number_fault(place: str, column: int, name: str, field: str) -> DataError:
    where = f"{place}, column {column + 1} ('{name}')"
    if not field.strip():
        return DataError(f"{where}: no value; fill missing values or leave such rows out")
    if _number(field) is not None:
        return DataError(f"{where}: {field.strip()} is not a finite number; fill missing values or leave such rows out")
    shown = field.strip() if len(field) <= 40 else field.strip()[:40] + "..."
    return TextError(f"{where}: '{shown}' is not a number", column)
