"""Data sets: bundled digits, published ones, and people's own files, checked and split.

load("digits") gives a Dataset of Parts; read_inputs reads what a trained model is to predict from.
"""

from typing import TYPE_CHECKING, Any

from .conform import conform
from .loading import NAMES, load
from .part import Dataset, Part
from .splits import split, with_test

if TYPE_CHECKING:
    from .inputs import read_inputs

__all__ = ["NAMES", "Dataset", "Part", "conform", "load", "read_inputs", "split", "with_test"]


def __getattr__(name: str) -> Any:
    # its readers (csv, zipfile, ...) would cost every training run 10 ms of start-up
    if name == "read_inputs":
        from .inputs import read_inputs

        return read_inputs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
