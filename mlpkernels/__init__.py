"""Small neural networks on compiled kernels. The public names, each imported when first used."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "BatchNorm",
    "Conv2d",
    "Dense",
    "Dropout",
    "EpochResult",
    "MaxPool2d",
    "Network",
    "Scaling",
    "TrainingState",
    "__version__",
    "fit",
    "load_checkpoint",
    "save_checkpoint",
]

_HOME = {
    "BatchNorm": "layers",
    "Conv2d": "layers",
    "Dense": "layers",
    "Dropout": "layers",
    "MaxPool2d": "layers",
    "Network": "network",
    "SGD": "optimizers",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "Scaling": "scaling",
    "EpochResult": "training",
    "TrainingState": "training",
    "fit": "training",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, save_checkpoint
    from .layers import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d
    from .network import Network
    from .optimizers import SGD, Adam, AdamW
    from .scaling import Scaling
    from .training import EpochResult, TrainingState, fit


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
