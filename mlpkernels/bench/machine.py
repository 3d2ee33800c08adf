"""What this machine is, what it can do at best on one core and on all, and how busy others keep it meanwhile."""

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from ..affinity import cpu_count
from ..kernels.cpu import cache, machine, simd, steps, threads

_PEAK_SECONDS, _PEAK_TRIES, _COPY_MEGABYTES = 0.005, 4, 96
_PEAK_CALL = 20_000  # multiply-adds deep: half a millisecond


def facts() -> dict[str, Any]:
    """What has to be equal where two measurements are compared, and tells one machine from another."""
    return {
        "cpu": machine.cpu_name(),
        "llvm cpu": str(machine.llvm.get_host_cpu_name()),
        "vector extensions": machine.features(),
        "cores": cpu_count(),
        "threading layer": threads.layer(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def thread_counts() -> list[int]:
    """One and all, as far as Numba was given threads."""
    return sorted({1, min(cpu_count(), threads.available())})


def versions(packages: tuple[str, ...]) -> dict[str, str]:
    """Python's and packages' versions, of those that are installed; and the digest of our kernels' source."""
    import importlib.metadata

    found = {"python": platform.python_version()}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found | {"kernels": cache.digest()}


# ---- ceilings


class Ceilings:
    """Operations and bytes a second of one core and of all, measured again in every round; the best counts.

    Multiply-adds that never leave level-1 cache; arrays beyond the caches, copied or added to, each read and write
    counted.

    Of several threads it is what all did together between the start of the first and the end of the last.
    """

    def __init__(self, counts: list[int]) -> None:
        self.counts = counts
        self.flops, self.bytes = dict.fromkeys(counts, 0.0), dict.fromkeys(counts, 0.0)
        self._operands = [[np.ones(1024, np.float32) for _ in range(3)] for _ in range(max(counts))]
        self._source = np.ones(_COPY_MEGABYTES << 17)
        self._target = np.ones_like(self._source)
        self._entry = steps.get("fma_peak", "float32")
        self._work = 2.0 * simd.TILE_ROWS[0] * simd.VECTORS * (simd.VECTOR_BYTES // 4) * _PEAK_CALL

    def measure(self) -> None:
        """One round: some milliseconds for each number of threads."""
        calls = max(1, round(_PEAK_SECONDS / self._seconds_a_call()))
        for count in self.counts:
            took = min(_together(count, lambda slot: self._multiply(slot, calls)) for _ in range(_PEAK_TRIES))
            self.flops[count] = max(self.flops[count], count * calls * self._work / took)
            parts = np.linspace(0, len(self._source), count + 1).astype(int)
            for work, passes in ((self._copy, 2.0), (self._add, 3.0)):
                took = _together(count, partial(work, parts))
                self.bytes[count] = max(self.bytes[count], passes * self._source.nbytes / took)
        most = max(self.counts)  # all cores can do what one can, also while others keep them busy
        self.flops[most], self.bytes[most] = max(self.flops.values()), max(self.bytes.values())

    def _seconds_a_call(self) -> float:
        began = time.perf_counter()
        self._multiply(0, 2)
        return (time.perf_counter() - began) / 2

    def _multiply(self, slot: int, calls: int) -> None:
        for _ in range(calls):
            self._entry(*self._operands[slot], _PEAK_CALL)

    def _copy(self, parts: np.ndarray, slot: int) -> None:
        mine = slice(parts[slot], parts[slot + 1])
        np.copyto(self._target[mine], self._source[mine])

    def _add(self, parts: np.ndarray, slot: int) -> None:
        """What an optimiser does: a third more than copying, which reads what it will overwrite before it does."""
        mine = slice(parts[slot], parts[slot + 1])
        np.add(self._target[mine], self._source[mine], out=self._target[mine])

    def to_json(self) -> dict[str, dict[str, float]]:
        """{threads: {"flops": a second, "bytes": a second}}"""
        return {str(count): {"flops": self.flops[count], "bytes": self.bytes[count]} for count in self.counts}


def _together(count: int, work: Callable[[int], None]) -> float:
    """Seconds from the first thread's start to the last one's end; the work leaves the GIL."""
    if count == 1:
        began = time.perf_counter()
        work(0)
        return time.perf_counter() - began
    barrier = threading.Barrier(count)

    def run(slot: int) -> tuple[float, float]:
        barrier.wait()
        began = time.perf_counter()
        work(slot)
        return began, time.perf_counter()

    with ThreadPoolExecutor(count) as pool:
        spans = list(pool.map(run, range(count)))
    return max(end for _, end in spans) - min(began for began, _ in spans)


# ---- how busy


class Load:
    """How much of our cores other programs took from `__init__` to `stop`, in cores; load averages beside it."""

    def __init__(self) -> None:
        self.before = averages()
        self._began = _busy_seconds(), _own_seconds(), time.perf_counter()

    def stop(self) -> dict[str, Any]:
        """{"before", "after": load averages or empty; "others": cores that others used on average, or None}"""
        busy, own, now = _busy_seconds(), _own_seconds(), time.perf_counter()
        others = None
        if busy is not None and self._began[0] is not None and now > self._began[2]:
            others = max(0.0, busy - self._began[0] - (own - self._began[1])) / (now - self._began[2])
        return {"before": self.before, "after": averages(), "others": others}


def averages() -> list[float]:
    """The load averages over 1, 5 and 15 minutes; empty where the system has none."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else []


def others_now(seconds: float = 0.3) -> float | None:
    """Cores that other programs use at the moment, of those this process may use; None where unknown."""
    load = Load()
    time.sleep(seconds)
    others: float | None = load.stop()["others"]
    return others


def _own_seconds() -> float:
    mine = os.times()
    return mine.user + mine.system


def _busy_seconds() -> float | None:
    """Seconds that this process's cores have worked for anyone, or were taken by a hypervisor; None where unknown."""
    try:
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        ticks = os.sysconf("SC_CLK_TCK")
        with open("/proc/stat") as file:
            rows = [line.split() for line in file if line.startswith("cpu")]
        # user, nice, system, idle, waiting, interrupts, soft interrupts, stolen: all but the two idle ones
        return sum(sum(map(int, (*row[1:4], *row[6:9]))) for row in rows if row[0] in ours) / ticks
    except (OSError, AttributeError, ValueError):
        return None
