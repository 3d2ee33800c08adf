"""How many slots a call is cut into, and what keeps a parallel launch safe on every threading layer.

omp and tbb take launches from several Python threads at once; workqueue aborts the process, so a lock is held.
GNU's omp kills a child forked after its first launch, and workqueue's state may be anything if another thread was
launching just then: a child forked after a launch gets one slot, the serial loop.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numba
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock
from numba.np.ufunc import parallel as numba_parallel

# Below this work several threads cost more than they save, in floating-point operations for cores of 50-200 GFLOP/s: of
# a call, whose parallel region takes 2 µs (omp) or 150 µs (workqueue), and of a phase, behind which they meet: 0.2 µs.
_MEETING = 2e5
_WORTH = {"omp": 2e6, "tbb": 3e6, "workqueue": 1e8, "none": float("inf")}

_lock = threading.RLock()
_forked_after_launch = False


def _before_fork() -> None:
    """Take the compiler's locks: held by another thread at a fork they would never be free in the child."""
    for lock in _COMPILER_LOCKS:
        lock.acquire()


def _release() -> None:
    for lock in reversed(_COMPILER_LOCKS):
        lock.release()


def _after_fork() -> None:
    global _forked_after_launch, _lock
    _release()
    _lock = threading.RLock()
    _forked_after_launch = bool(numba_parallel._is_initialized)


# Private names: where a release has others, forking beside a thread that compiles is as safe as Numba makes it.
_OWNERS: tuple[Any, ...] = (global_compiler_lock, getattr(ffi.lib, "_lock", None))
_COMPILER_LOCKS = [owner._lock for owner in _OWNERS if hasattr(owner, "_lock")]
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_release, after_in_child=_after_fork)


def layer() -> str:
    """The name of Numba's threading layer, started if it was not; "none" where the one asked for is not there."""
    if numba_parallel._is_initialized:
        return str(numba_parallel._threading_layer)
    with _lock:
        try:
            numba_parallel._launch_threads()
        except ValueError:  # NUMBA_THREADING_LAYER=tbb without TBB
            return "none"
    return str(numba.threading_layer())


def available() -> int:
    """The threads that Numba was configured for: the processor's cores, or NUMBA_NUM_THREADS."""
    return int(getattr(numba.config, "NUMBA_NUM_THREADS"))  # noqa: B009


def current() -> int:
    """The threads that numba.set_num_threads left to this thread of Python; 1 where a launch would not be safe.

    Numba takes a lock to answer, which a child forked while another thread held it would never get.
    """
    return 1 if _forked_after_launch or layer() == "none" else int(numba.get_num_threads())


def slots(threads: int, work: float, phases: int = 1) -> int:
    """The number of slots for a call of so many phases, of `work` floating-point operations each; 1: one thread."""
    if threads <= 1 or _forked_after_launch or available() == 1:
        return 1
    return threads if work >= _MEETING and work * phases >= _WORTH[layer()] else 1


@contextlib.contextmanager
def launch(threads: int) -> Iterator[int]:
    """Around a parallel call, no other at once on workqueue: gives the threads, those asked for that are available."""
    before, members = numba.get_num_threads(), min(threads, available())
    held = _lock if layer() == "workqueue" else contextlib.nullcontext()
    with held:
        numba.set_num_threads(members)
        try:
            yield members
        finally:
            numba.set_num_threads(before)
