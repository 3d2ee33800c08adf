"""How fast this machine trains: kernels and epochs beside its measured limits, and beside others that are installed.

run(Options()) measures, results.compare sets two measurements side by side, roofline_figure draws one.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .results import Results, compare, differences, read
    from .roofline import roofline_figure
    from .running import Options, Watch, get_ready, run

_HOME = {
    "Options": "running",
    "Results": "results",
    "Watch": "running",
    "compare": "results",
    "differences": "results",
    "get_ready": "running",
    "read": "results",
    "roofline_figure": "roofline",
    "run": "running",
}
__all__ = ["Options", "Results", "Watch", "compare", "differences", "get_ready", "read", "roofline_figure", "run"]


def __getattr__(name: str) -> Any:
    # forced.py has to be reached before NumPy is loaded
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
