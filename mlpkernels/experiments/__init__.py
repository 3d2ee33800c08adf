"""What this project's first users did by hand, run again by one call each: `run("mlp-64", mnist, Options())`.

And a row of our own, "speedrun": the least training time to an accuracy.
"""

import importlib
import importlib.util
from typing import TYPE_CHECKING

from .catalogue import ROWS, Options, Row, find

if TYPE_CHECKING:
    from ..datasets import Dataset
    from .report import Report
    from .side_by_side import Watch

__all__ = ["ROWS", "Options", "Row", "find", "run"]


def run(name: str, dataset: "Dataset", options: Options, watch: "Watch | None" = None) -> "Report":
    """Run the row `name` on `dataset` (MNIST, with a test part) and report what it claimed beside what came out.

    watch is told of every network's epochs, in the calling thread; what it raises ends the run. ValueError names
    an unknown row or options that do not fit; UnavailableError a package that the row needs; DataError data of
    another shape.
    """
    row = find(name)
    check(row, dataset, options)
    module = importlib.import_module(f".{row.module}", __name__)
    report: Report = module.run(row, dataset, options, watch)
    return report


def check_packages(row: Row) -> None:
    """UnavailableError where a package that the row needs is not installed."""
    from ..errors import UnavailableError

    if row.needs and importlib.util.find_spec(row.needs[0]) is None:
        raise UnavailableError(f"{row.name} needs {row.needs[1]}, which is not installed: pip install {row.needs[1]}")


def check(row: Row, dataset: "Dataset", options: Options) -> None:
    """Refuse, before anything is trained, what would end the row: a package, data, columns that are not there."""
    from ..errors import DataError

    check_packages(row)
    if dataset.shape != (1, 28, 28) or dataset.test is None or len(dataset.classes) != 10:
        raise DataError(f"{dataset.name}: the experiments take 28 x 28 grey images of 10 classes and a test part")
    if row.name == "numpy-gd":
        from .numpy_gd import check_columns

        check_columns(options)
