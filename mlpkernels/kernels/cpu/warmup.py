"""Compile everything ahead, so that no first step waits."""

import time
from collections.abc import Callable

from .. import beside
from . import steps


def warmup(on_step: Callable[[str, float], None] | None = None) -> float:
    """Compile, or load from the cache, every entry point for float32 and float64; returns the seconds it took.

    Several processes compile side by side, the costliest first. on_step(name, seconds) is called after each.
    """
    began = time.perf_counter()
    with beside.waiting():
        steps.prepare(((name, dtype) for dtype in ("float32", "float64") for name in steps.names()), on_step)
    return time.perf_counter() - began
