"""A process that compiles entry points for another, into the cache: see `beside`."""

import os
import queue
import sys
import threading
import time

from .. import beside
from . import steps


def serve() -> None:
    """Compile what the lines of stdin name, `gemm float32`; answer each on stdout by the seconds that it took.

    Ends where nothing would be kept, and at once when stdin does, in the midst of a function: whoever asked is gone.
    """
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(asked,), daemon=True).start()
    while True:
        name, dtype = asked.get().split()
        began = time.perf_counter()
        with beside.without_collecting():
            entry = steps.get(name, dtype)
        if entry.stats.cache_path is None:
            return
        print(time.perf_counter() - began, flush=True)


def _read(asked: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        asked.put(line)
    os._exit(0)
