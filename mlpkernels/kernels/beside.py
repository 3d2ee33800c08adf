"""Processes that compile beside this one, where a command waits for kernels: Numba compiles on one core at a time.

Only inside `waiting`, which the command line enters: nobody who embeds the library has processes started.
"""

import collections
import contextlib
import contextvars
import gc
import math
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping

_MOST = 8  # processes, of 250 MB each, one that compiles convolutions of 500
_WORTH = 1.5  # seconds of compiling that the others must take over: to begin takes each 0.6
_CODE = "import sys; sys.path[:] = {path!r}; from mlpkernels.kernels.cpu import helper; helper.serve()"
_POLL = 0.1  # seconds; on Windows a signal is answered only between two looks

OnDone = Callable[[str, float], None]

# What the command that waits has named, and whether something has had to be compiled since.
_expected: contextvars.ContextVar[tuple[tuple[str, ...], threading.Event] | None] = contextvars.ContextVar(
    "expected", default=None
)


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Inside it no garbage is collected: looking through all that the compiler holds took a sixth of its time.

    What is left over for later is 50 MB, of convolutions 150.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@contextlib.contextmanager
def waiting(*names: str) -> Iterator[threading.Event]:
    """Inside it, and in this thread, kernels that are missing are compiled by several processes.

    names: entry points that will be asked for soon after the first ones, to be compiled together with them.
    Yields an event that is set when kernels are not loaded but compiled, here or by a process that this one waits for.
    """
    compiling = threading.Event()
    token = _expected.set((names, compiling))
    try:
        yield compiling
    finally:
        _expected.reset(token)


def expected() -> tuple[str, ...] | None:
    """What the command that waits has named; None outside of `waiting`."""
    found = _expected.get()
    return None if found is None else found[0]


def compiling() -> None:
    """Kernels are about to be compiled: to be told to who waits."""
    found = _expected.get()
    if found is not None:
        found[1].set()


def helpers(costs: Collection[float], cores: int) -> int:
    """How many processes beside this one shorten what takes so many seconds each; 0 where it is not worth one."""
    total, longest = sum(costs), max(costs, default=0.0)
    if getattr(sys, "frozen", False) or not sys.executable or total - longest < _WORTH:
        return 0  # a frozen program would start itself
    return min(cores, math.ceil(total / longest), len(costs), _MOST) - 1


def share(costs: Mapping[str, float], count: int, here: Callable[[str], None], on_done: OnDone | None = None) -> None:
    """Compile each item once, the costliest first: here(item) does it in this process, `count` others the same.

    What a process was at when it ended is done here. on_done(item, seconds) is called in this thread. The others have
    ended when this returns or raises.
    """
    left, lost = collections.deque(sorted(costs, key=lambda item: -costs[item])), collections.deque[str]()
    done: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
    helping: list[_Helper] = []
    try:
        with contextlib.suppress(OSError):  # no room for another process
            for _ in range(count):
                helping.append(_Helper(left, lost, done))
        while True:
            at_work = [helper for helper in helping if helper.is_alive()]  # before the look at what they left
            try:
                item, began = (left or lost).popleft(), time.perf_counter()
            except IndexError:
                if not at_work:
                    break
                at_work[0].join(_POLL)
            else:
                with without_collecting():
                    here(item)
                done.put((item, time.perf_counter() - began))
            _tell(done, on_done)
        _tell(done, on_done)
    finally:
        for helper in helping:
            helper.stop()


def _tell(done: "queue.SimpleQueue[tuple[str, float]]", on_done: OnDone | None) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            item = done.get_nowait()
            if on_done is not None:
                on_done(*item)


class _Helper(threading.Thread):
    """A process that compiles, and the thread that gives it one item after the other and waits for it."""

    def __init__(
        self, left: collections.deque[str], lost: collections.deque[str], done: "queue.SimpleQueue[tuple[str, float]]"
    ) -> None:
        super().__init__(daemon=True)
        self._left, self._lost, self._done = left, lost, done
        # What it might say of its end is nobody's business: its item is compiled all the same.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE.format(path=sys.path)], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )  # fmt: skip
        self.start()

    def run(self) -> None:
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        while self._left:
            try:
                item = self._left.popleft()
            except IndexError:  # another took the last one
                break
            try:
                print(item, file=asked, flush=True)
                self._done.put((item, float(answers.readline())))
            except (OSError, ValueError):  # it ended, with or without a word
                self._lost.append(item)
                break

    def stop(self) -> None:
        """End the process at once."""
        self._process.kill()
        self.join()
        self._process.communicate()
