"""Repairs of Numba's CUDA simulator, which runs a block's threads in the interpreter: used where there is no GPU.

As it comes, two threads that ask for a shared array at the same time may get one each, a device function that waits at
a barrier may lose its `cuda` module to another thread, and a barrier takes 16 ms, since threads are polled. Here a
block's threads take turns, each up to its next barrier, first to last and then last to first: what reads too early
finds the wrong number in one of the two directions. A barrier of 16 threads takes 0.2 ms. Memory that nothing has
written yet holds NaN or the most negative integer, and an index below 0 is an error, as one beyond the end is.
"""

import importlib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

_MOST_SECONDS = 600  # a turn that takes longer will never end


class _Worker(threading.Thread):
    """Runs a thread of a block, then of another; the names are those the simulator looks for in the current thread."""

    def __init__(self, number: int) -> None:
        super().__init__(daemon=True)
        self.thread_id = number
        self._mine, self._given_back = threading.Semaphore(0), threading.Semaphore(0)
        self.start()

    def begin(self, function: Any, arguments: tuple[Any, ...], block: Any, index: Any) -> None:
        """Be a thread of a block from the next turn on."""
        self._function, self._arguments, self.blockIdx, self.threadIdx = function, arguments, block, index
        self.error: BaseException | None = None
        self.finished, self._abandoned = False, False

    def run(self) -> None:
        while True:
            self._mine.acquire()
            try:
                self._function(*self._arguments)
            except BaseException as error:
                self.error = error
            self.finished = True
            self._given_back.release()

    def syncthreads(self) -> None:
        self._given_back.release()
        self._mine.acquire()
        if self._abandoned:
            raise RuntimeError("another thread of the block failed")

    def take_turn(self) -> None:
        """Run up to the next barrier or the end."""
        self._mine.release()
        # In parts, since a process that was stopped for longer finds its time over when it goes on.
        if not any(self._given_back.acquire(timeout=_MOST_SECONDS / 20) for _ in range(20)):
            raise RuntimeError(f"a thread of the block did not come to a barrier within {_MOST_SECONDS} s")

    def abandon(self) -> None:
        """End where it is waiting."""
        self._abandoned = True
        self.take_turn()


_workers: list[_Worker] = []  # by their place in a block; a kernel is launched when the one before is done


def _run(manager: Any, grid_point: Any, *arguments: Any) -> None:
    """BlockManager.run: one block."""
    from numba.cuda.simulator.kernelapi import Dim3

    block, points = Dim3(*grid_point), list(np.ndindex(*manager._block_dim))
    while len(_workers) < len(points):
        _workers.append(_Worker(len(_workers)))
    live = _workers[: len(points)]
    for worker, point in zip(live, points, strict=True):
        worker.begin(manager._f, arguments, block, Dim3(*point))
    started = 0
    while live:
        for number, worker in enumerate(live):
            worker.take_turn()
            started = max(started, number + 1)
            if worker.error is not None:
                for other in _workers[: len(points)] if started == len(points) else live[:started]:
                    if not other.finished:
                        other.abandon()
                raise worker.error
        live = [worker for worker in reversed(live) if not worker.finished]


_users: Counter[int] = Counter()  # of a module's globals whose `cuda` is the one within a kernel
_originals: dict[int, dict[str, Any]] = {}


@contextmanager
def _swapped(function: Any, inside: Any) -> Iterator[None]:
    """swapped_cuda_module: the first to enter a module swaps, the last to leave swaps back."""
    from numba import cuda

    names, key = function.__globals__, id(function.__globals__)
    if not _users[key]:
        _originals[key] = {name: value for name, value in names.items() if value is cuda}
        names.update(dict.fromkeys(_originals[key], inside))
    _users[key] += 1
    try:
        yield
    finally:
        _users[key] -= 1
        if not _users[key]:
            names.update(_originals.pop(key))


# ---- memory


def _unwritten(shape: Any, dtype: Any) -> np.ndarray:
    """An array whose numbers nobody can take for a result."""
    dtype = np.dtype(dtype)
    return np.full(shape, np.nan if dtype.kind == "f" else np.iinfo(dtype).min, dtype)


def _device_array(shape: Any, dtype: Any = np.float64, strides: Any = None, order: str = "C", stream: Any = 0) -> Any:
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    return FakeCUDAArray(_unwritten(shape, dtype), stream=stream)


def _shared_array(shared: Any, shape: int, dtype: Any) -> np.ndarray:
    """A block's array, known by the instruction that asks for it."""
    caller = sys._getframe(1)
    place = caller.f_code, caller.f_lasti
    if place not in shared._allocations:
        shared._allocations[place] = _unwritten(shape, dtype)
    found: np.ndarray = shared._allocations[place]
    return found


def _refuse_negative(index: Any) -> None:
    for i in index if type(index) is tuple else (index,):
        if type(i) is not slice and i < 0:
            raise IndexError(f"index {i} lies before the array")


def _get(array: Any, index: Any) -> Any:
    """A number of an array of the GPU, or a part of it."""
    _refuse_negative(index)
    found = array._item._ary[index]
    return type(array)(type(array._item)(found)) if isinstance(found, np.ndarray) else found


def _set(array: Any, index: Any, value: Any) -> None:
    _refuse_negative(index)
    array._item._ary[index] = value


def repair() -> None:
    """Put the repairs in place."""
    arrays: Any = importlib.import_module("numba.cuda.simulator.cudadrv.devicearray")
    arrays.FakeWithinKernelCUDAArray.__getitem__, arrays.FakeWithinKernelCUDAArray.__setitem__ = _get, _set
    importlib.import_module("numba.cuda").device_array = _device_array  # type: ignore[attr-defined]
    inside: Any = importlib.import_module("numba.cuda.simulator.kernelapi")
    inside.FakeCUDAShared.array = _shared_array
    inside.FakeCUDALocal.array = lambda _, shape, dtype: _unwritten(shape, dtype)
    kernel: Any = importlib.import_module("numba.cuda.simulator.kernel")
    kernel.BlockManager.run = _run
    kernel.swapped_cuda_module = _swapped
