"""How good a trained network is on a part of the data: figures for people, for metrics.json, for plots."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import runs, tables
from .progress import compiling_notice

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from matplotlib.figure import Figure

    from mlpkernels import Network
    from mlpkernels.datasets import Dataset, Part

MOST_CLASSES = 30  # a larger confusion matrix is no help on a terminal
# Rows for a first call: more than the kernels of a few rows take, which are 3 s of compiling that many rows can do
# without, and fewer than by which `pace` learns: it would take the compiling for slowness.
SOME = 40


@dataclasses.dataclass(frozen=True)
class Measured:
    """Figures on N rows: proba (N, K), predicted (N,) class indices, confusion (K, K), a row a true class."""

    classes: tuple[int | str, ...]
    loss: float
    accuracy: float
    proba: np.ndarray
    predicted: np.ndarray
    confusion: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.predicted)

    @property
    def right(self) -> int:
        """Rows predicted right."""
        return int(self.confusion.trace())

    def by_class(self) -> list[dict[str, Any]]:
        """A dictionary a class: class, precision, recall, f1, rows."""
        from mlpkernels.metrics import class_report

        report = class_report(self.confusion)
        return [
            {
                "class": name, "precision": float(report.precision[k]), "recall": float(report.recall[k]),
                "f1": float(report.f1[k]), "rows": int(report.support[k]),
            }
            for k, name in enumerate(self.classes)
        ]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Everything but single rows, as plain values."""
        return {
            "rows": self.rows, "loss": self.loss, "accuracy": self.accuracy, "by_class": self.by_class(),
            "confusion": self.confusion.tolist(),
        }  # fmt: skip

    def class_table(self) -> str:
        """Precision, recall and F1 by class as text."""
        shares = ("precision", "recall", "f1")
        rows = [
            [row["class"], *(tables.percent(row[name]) for name in shares), tables.count(row["rows"])]
            for row in self.by_class()
        ]
        return tables.table(rows, ["class", "precision", "recall", "F1", "rows"])

    def confusion_table(self) -> str:
        """The confusion matrix as text, a row a true class; a dot where nothing was confused."""
        rows = [
            [name, *(str(count) if count else "·" for count in counts)]
            for name, counts in zip(self.classes, self.confusion.tolist(), strict=True)
        ]
        return tables.table(rows, ["true \\ predicted", *map(str, self.classes)])


def measure(network: Network, part: Part, backend: str, threads: int | None) -> Measured:
    """Run `network` over a part whose class indices are the network's."""
    import numpy as np

    from mlpkernels.arrays import class_indices
    from mlpkernels.metrics import confusion_matrix

    labels = np.array(network.classes)[part.y]
    with compiling_notice():
        network.predict_proba(part.x[:SOME], threads=threads, backend=backend)
    loss, accuracy = network.evaluate(part.x, labels, threads=threads, backend=backend)
    proba = network.predict_proba(part.x, threads=threads, backend=backend)
    # not the greatest probability, which logits that hardly differ may share
    predicted = class_indices(
        network.predict(part.x, threads=threads, backend=backend), network.classes, len(part.x), "predicted"
    )
    matrix = confusion_matrix(part.y, predicted, len(network.classes))
    return Measured(network.classes, loss, accuracy, proba, predicted, matrix)


def draw(
    folder: Path, network: Network, dataset: Dataset, part: Part, measured: Measured, history: Sequence[Any],
    option: str | None = None,
) -> list[Path]:  # fmt: skip
    """Write the five figures into `folder`, which is made where it is missing; the files' paths.

    option: what named the folder, if anything did; see `runs.save_picture`.
    """
    from mlpkernels import gallery, plots

    folder.mkdir(exist_ok=True)
    figures = {
        "history": lambda: plots.history_figure(history),
        "confusion": lambda: plots.confusion_figure(measured.confusion, network.classes),
        "mistakes": lambda: gallery.mistakes_figure(
            part.x, dataset.shape, part.y, measured.predicted, measured.proba, network.classes,
            full_scale=dataset.full_scale,
        ),
        "weights": lambda: first_layer(network, dataset),
        "samples": lambda: gallery.samples_figure(
            dataset.train.x, dataset.train.y, dataset.shape, network.classes,
            full_scale=dataset.full_scale, feature_names=dataset.feature_names,
        ),
    }  # fmt: skip
    written = []
    for name, figure in figures.items():
        written.append(folder / f"{name}.png")
        runs.save_picture(figure(), written[-1], option)
    return written


def first_layer(network: Network, dataset: Dataset) -> Figure:
    """The weights of the first layer that has any, batch normalisation aside: a convolution's filters, or units."""
    from mlpkernels import gallery

    weights = next(values for values in network.parameters().values() if values.ndim > 1)
    if weights.ndim == 4:
        return gallery.filters_figure(weights)
    outputs = network.classes if len(network.layers) == 1 else None  # what the first layer's units are
    if len(weights) != math.prod(dataset.shape):  # a layer before it has made the images smaller
        return gallery.weights_figure(weights, (len(weights),))
    return gallery.weights_figure(weights, dataset.shape, labels=outputs, feature_names=dataset.feature_names)


def to_text(value: Any) -> str:
    """Plain values as JSON for files and pipes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def versions() -> dict[str, str]:
    """Versions of this package and of what its figures depend on."""
    import platform

    import numba
    import numpy

    from mlpkernels import __version__

    return {
        "mlpkernels": __version__, "python": platform.python_version(), "numpy": numpy.__version__,
        "numba": numba.__version__, "system": platform.platform(), "processor": platform.machine(),
    }  # fmt: skip
