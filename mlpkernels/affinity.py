"""How many cores there are to use. It loads nothing, so that a command line can ask before NumPy is there."""

import os


def cpu_count() -> int:
    """The processor's cores that this process may use, from 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
