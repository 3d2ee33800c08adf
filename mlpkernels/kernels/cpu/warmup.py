"""Compile everything ahead, so that no first step waits."""

import time
from collections.abc import Callable

from . import steps


def warmup(on_step: Callable[[str, float], None] | None = None) -> float:
    """Compile, or load from the cache, every entry point for float32 and float64; returns the seconds it took.

    on_step(name, seconds) is called after each.
    """
    began = time.perf_counter()
    for dtype in ("float32", "float64"):
        for name in steps.names():
            start = time.perf_counter()
            steps.get(name, dtype)
            if on_step is not None:
                on_step(f"{name} {dtype}", time.perf_counter() - start)
    return time.perf_counter() - began
