"""Backends: modules with the same ops and verbs. `load` is the only dispatch."""

import importlib
from types import ModuleType

BACKENDS = ("cpu", "reference")


def load(backend: str) -> ModuleType:
    """The backend module "cpu" (compiled) or "reference" (plain NumPy). ValueError for another name."""
    if backend not in BACKENDS:
        raise ValueError(f"backend {backend!r}: one of {', '.join(BACKENDS)} was wanted")
    return importlib.import_module(f"mlpkernels.kernels.{backend}")
