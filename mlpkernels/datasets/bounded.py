"""Plain and gzip-compressed files opened so that damaged, empty and bomb-like ones are refused by name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ..errors import DataError

FREE = 256 << 20  # bytes: below this, how far a file expands does not matter
MOST = 100  # real data seldom shrinks below a hundredth; a bomb reaches deflate's limit of 1032


def is_gzip(path: Path) -> bool:
    """Whether the file starts like gzip; the name does not matter."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def check_expansion(path: Path | str, compressed: int, expanded: int) -> None:
    """Raise DataError where `expanded` bytes out of `compressed` ones look like a decompression bomb."""
    if expanded > FREE and expanded > MOST * compressed:
        raise DataError(
            f"{path}: {compressed:,} bytes would expand to {expanded:,} or more: refused as a decompression "
            f"bomb (limit {MOST} times above {FREE >> 20} MiB); unpack it yourself if you trust it"
        )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, decompressed on the way where it is gzip (whatever its name).

    Raises DataError, also from within the block, for an empty file, a damaged, truncated or bomb-like gzip
    stream and for bytes behind its end; OSError where the file cannot be read.
    """
    if not path.is_file():
        if path.exists():
            raise DataError(f"{path}: not a file; give the path of a data file")
        raise DataError(f"{path}: no such file")
    size = path.stat().st_size
    if size == 0:
        raise DataError(f"{path}: the file is empty")
    if not is_gzip(path):
        with open(path, "rb") as plain:
            yield plain
        return
    try:
        with (
            gzip.open(path, "rb") as packed,
            io.BufferedReader(_Bounded(packed, path, size), 1 << 20) as buffered,
        ):
            yield buffered
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what = "truncated" if isinstance(error, EOFError) else f"damaged ({error})"
        raise DataError(f"{path}: the gzip file is {what}; fetch or write it again") from None


class _Bounded(io.RawIOBase):
    """A gzip stream that counts what it has expanded to and refuses to go on past the limit."""

    def __init__(self, packed: gzip.GzipFile, path: Path, size: int) -> None:
        self._packed, self._path, self._size = packed, path, size
        self._expanded = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        count = self._packed.readinto(buffer)
        self._expanded += count
        check_expansion(self._path, self._size, self._expanded)
        return count
