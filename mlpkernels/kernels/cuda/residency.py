"""Data sets that stay on the GPU between calls, for as long as the host array they came from lives unchanged.

An array is known by its object, its address and its shape; a checksum of the whole tells whether it was changed in
place. It is taken while the GPU works on what lies there: where it differs the caller uploads afresh and starts again,
since nothing has been brought back yet.
"""

import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np

from .arrays import nothing, to_device

_BLOCK = 1 << 22  # bytes of a checksum that a thread takes at a time: zlib lets other threads run meanwhile
_THREADS = 8


class _Held:
    """A host array's copy on the GPU."""

    def __init__(self, array: np.ndarray, stream: Any) -> None:
        self.place, self.sum = _place(array), checksum(array)
        flat = np.ascontiguousarray(array).reshape(-1)
        self.device = to_device(flat, stream) if flat.size else nothing(flat.dtype.name)


_held: dict[int, _Held] = {}  # by the id of an array that is alive: a finaliser takes it out


def _place(array: np.ndarray) -> tuple[Any, ...]:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="mlpkernels-checksum")


def checksum(array: np.ndarray) -> tuple[int, ...]:
    """CRC-32s of an array's bytes, a block each."""
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if flat.size <= _BLOCK:
        return (zlib.crc32(flat),)
    return tuple(_pool().map(zlib.crc32, (flat[i : i + _BLOCK] for i in range(0, flat.size, _BLOCK))))


class Resident:
    """Host arrays as flat device arrays, for one call of a verb."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self._used: list[tuple[np.ndarray, _Held, bool]] = []
        self._looked: bool | None = None

    def take(self, array: np.ndarray) -> Any:
        """The device copy of an array: that of an earlier call, or a new one."""
        held = _held.get(id(array))
        fresh = held is None or held.place != _place(array)
        if fresh:
            held = _held[id(array)] = _Held(array, self.stream)
            weakref.finalize(array, _held.pop, id(array), None)
        assert held is not None
        self._used.append((array, held, fresh))
        return held.device

    def changed(self) -> bool:
        """Whether an array was changed in place since its copy was made; then the copies are given up.

        Looked for once, which takes a millisecond or more: best while the GPU works.
        """
        if self._looked is None:
            stale = [array for array, held, fresh in self._used if not fresh and checksum(array) != held.sum]
            for array in stale:
                _held.pop(id(array), None)
            self._looked = bool(stale)
        return self._looked


def release() -> None:
    """Give up every copy: for a test, or where memory is short."""
    _held.clear()
