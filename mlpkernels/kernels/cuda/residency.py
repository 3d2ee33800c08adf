"""Data sets that stay on the GPU between calls, for as long as the host array they came from lives unchanged.

An array is known by its object, its address and its shape; a checksum of the whole tells whether it was changed in
place. It is taken while the GPU works on what lies there: where it differs the caller uploads afresh and starts again,
since nothing has been brought back yet.
"""

import os
import weakref
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numba import njit, types

from ...affinity import cpu_count
from .arrays import kept, nothing

_BLOCK = 1 << 17  # words of a checksum that a thread takes at a time, 1 MB
_LANES = 4


class _Held:
    """A host array's copy on the GPU."""

    def __init__(self, array: np.ndarray, stream: Any) -> None:
        self.place, self.sum = _place(array), checksum(array)
        flat = np.ascontiguousarray(array).reshape(-1)
        self.device = kept(flat, stream) if flat.size else nothing(flat.dtype.name)


_held: dict[int, _Held] = {}  # by the id of an array that is alive: a finaliser takes it out


def _place(array: np.ndarray) -> tuple[Any, ...]:
    return array.__array_interface__["data"][0], array.shape, array.strides, array.dtype.str


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cpu_count(), thread_name_prefix="mlpkernels-checksum")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # its threads are the parent's


def _lanes(words):
    """The state of XXH64's four accumulators behind words (N,) uint64, N a multiple of 4, each mixed in once.

    https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, step 2. A round is a bijection of the accumulator
    and of the word: no change of a single word goes unseen. 47 MB take a core 6 ms, zlib's CRC-32 16 (Zen 3).
    """
    lanes = np.zeros(_LANES, np.uint64)
    first, second = np.uint64(0x9E3779B185EBCA87), np.uint64(0xC2B2AE3D27D4EB4F)
    up, down = np.uint64(31), np.uint64(33)
    a, b, c, d = lanes
    for i in range(0, len(words), _LANES):
        a, b = a + words[i] * second, b + words[i + 1] * second
        c, d = c + words[i + 2] * second, d + words[i + 3] * second
        a, b = ((a << up) | (a >> down)) * first, ((b << up) | (b >> down)) * first
        c, d = ((c << up) | (c >> down)) * first, ((d << up) | (d >> down)) * first
    lanes[0], lanes[1], lanes[2], lanes[3] = a, b, c, d
    return lanes


@cache
def _compiled() -> Any:
    words = types.Array(types.uint64, 1, "C")
    return njit(words(words.copy(readonly=True)), nogil=True)(_lanes)


def checksum(array: np.ndarray) -> tuple[bytes, ...]:
    """What tells an array's bytes from others, a block each."""
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    if flat.size <= 8 * _BLOCK:
        return (zlib.crc32(flat).to_bytes(4, "little"),)  # compiling the other takes 1 s
    if flat.ctypes.data % 8:
        flat = flat.copy()  # words lie on 8 bytes
    whole = flat.size // (8 * _LANES) * (8 * _LANES)
    words, rest = flat[:whole].view(np.uint64), flat[whole:].tobytes()
    blocks = [words[i : i + _BLOCK] for i in range(0, words.size, _BLOCK)]
    return (*(lanes.tobytes() for lanes in _pool().map(_compiled(), blocks)), rest)


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
