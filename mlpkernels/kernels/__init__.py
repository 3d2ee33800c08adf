"""Backends: modules with the same ops and verbs. `load` is the only dispatch."""

import importlib
from types import ModuleType

BACKENDS = ("cpu", "reference")
OPTIONAL = ("cuda",)  # needs a package, and a GPU


def load(backend: str) -> ModuleType:
    """The backend module "cpu" (compiled), "reference" (plain NumPy) or "cuda" (on an NVIDIA GPU).

    ValueError for another name; UnavailableError where what "cuda" needs is not installed.
    """
    if backend not in BACKENDS + OPTIONAL:
        raise ValueError(f"backend {backend!r}: one of {', '.join(BACKENDS + OPTIONAL)} was wanted")
    return importlib.import_module(f"mlpkernels.kernels.{backend}")
