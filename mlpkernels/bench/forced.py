"""Settings in the environment that keep a library from choosing its own kernels; imports nothing that reads them."""

import os
import sys

_NAMES = (
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "ATEN_CPU_CAPABILITY",
)


def settings() -> list[str]:
    """Those that are set, NAME=value each."""
    return [f"{name}={os.environ[name]}" for name in _NAMES if name in os.environ]


def set_aside() -> list[str]:
    """Remove them from this process's environment; returns what there was. Nothing once NumPy is loaded: too late."""
    if "numpy" in sys.modules:
        return []
    found = settings()
    for name in _NAMES:
        os.environ.pop(name, None)
    return found
