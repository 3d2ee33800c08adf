"""What this machine is and what it can do at best, measured: multiply-adds a second and bytes a second."""

import platform
import time
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from ...affinity import cpu_count
from . import simd, steps, threads

_FEATURES = ("sse4.2", "avx", "avx2", "fma", "avx512f", "avx512vl", "neon", "sve")


def cpu_name() -> str:
    """The processor's marketing name where the system tells it, else LLVM's name for it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        return platform.processor() or llvm.get_host_cpu_name()
    return platform.processor() or llvm.get_host_cpu_name()


def features() -> list[str]:
    """The vector extensions of this processor that matter here."""
    found = llvm.get_host_cpu_features()
    return [name for name in _FEATURES if found.get(name)]


def fma_peak(dtype: Any = "float32", seconds: float = 0.2) -> float:
    """FLOP/s of one core at full vector width: the micro-kernel on operands that never leave level-1 cache."""
    entry, k = steps.get("fma_peak", dtype), 20_000
    a, b, c = (np.ones(1024, dtype) for _ in range(3))
    lanes = simd.VECTOR_BYTES // np.dtype(dtype).itemsize
    work = 2.0 * simd.TILE_ROWS[0] * simd.VECTORS * lanes * k
    return work / _best(lambda: entry(a, b, c, k), seconds)


def bandwidth(seconds: float = 0.3, megabytes: int = 96) -> float:
    """Bytes a second that one core copies between arrays larger than the caches, reads and writes counted."""
    source = np.ones(megabytes << 17)
    target = np.empty_like(source)
    return 2.0 * source.nbytes / _best(lambda: np.copyto(target, source), seconds)


def _best(call: Callable[[], Any], seconds: float) -> float:
    """The shortest of the runs that fit into that time, at least three."""
    call()
    times: list[float] = []
    until = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < until:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def measure() -> dict[str, Any]:
    """Name, features, vector width, cores, threading layer, FMA peak (GFLOP/s a core) and bandwidth (GB/s)."""
    return {
        "cpu": cpu_name(),
        "llvm_cpu": llvm.get_host_cpu_name(),
        "features": features(),
        "vector_bytes": simd.VECTOR_BYTES,
        "vector_registers": simd.REGISTERS,
        "cores": cpu_count(),
        "threads": threads.available(),
        "threading_layer": threads.layer(),
        "fma_gflops_float32": fma_peak("float32") / 1e9,
        "fma_gflops_float64": fma_peak("float64") / 1e9,
        "bandwidth_gbs": bandwidth() / 1e9,
    }
