"""Backends: modules with the same ops and verbs. `load` is the only dispatch."""

import importlib
from types import ModuleType

from ..errors import UnavailableError

BACKENDS = ("cpu", "reference")
OPTIONAL = ("cuda",)  # needs a package, and a GPU


def load(backend: str) -> ModuleType:
    """The backend module "cpu" (compiled), "reference" (plain NumPy) or "cuda" (on an NVIDIA GPU).

    ValueError for another name; UnavailableError where what "cuda" needs is not installed.
    """
    if backend not in BACKENDS + OPTIONAL:
        raise ValueError(f"backend {backend!r}: one of {', '.join(BACKENDS + OPTIONAL)} was wanted")
    return importlib.import_module(f"mlpkernels.kernels.{backend}")


# Floating-point operations of a step from which `choose` takes a GPU that is there: about those at which a step of the
# CPU takes as long as a few launches. Set by reckoning: no GPU has measured it yet.
GPU_FLOPS = 2e7


def choose(flops: float) -> tuple[str, str]:
    """("cuda" or "cpu", why) for steps, or calls, of so many floating-point operations."""
    size = f"{flops / 1e6:.3g} million operations at a time"
    if flops < GPU_FLOPS:
        return "cpu", f"{size}, and a GPU is thought to pay from {GPU_FLOPS / 1e6:g}"
    try:
        cuda = load("cuda")
    except UnavailableError as error:
        return "cpu", str(error)
    reason = cuda.driver.lack()
    return ("cpu", reason) if reason else ("cuda", f"{size}, and there is a GPU")
