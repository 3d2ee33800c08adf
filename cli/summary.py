"""What a finished training comes to: a table for people and metrics.json for programs."""

from __future__ import annotations

import dataclasses
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import report, tables
from .data import Data
from .settings import Settings

if TYPE_CHECKING:
    from mlpkernels import EpochResult

LABEL_WIDTH = len("test accuracy")  # of the table's first column


@dataclasses.dataclass(frozen=True)
class Summary:
    """A finished run; `measured`: its model on the test part, best_epoch: of the lowest validation loss."""

    path: Path
    settings: Settings
    data: Data
    measured: report.Measured
    history: Sequence[EpochResult]
    best_epoch: int | None

    @property
    def seconds(self) -> float:
        """Seconds of training alone."""
        return math.fsum(result.seconds for result in self.history)

    @property
    def samples_per_second(self) -> float:
        return len(self.data.train) * len(self.history) / self.seconds if self.seconds > 0 else 0.0

    @property
    def kept(self) -> EpochResult:
        """The epoch whose weights the model has."""
        best = self.best_epoch if self.settings.early_stopping else None
        return self.history[(best or len(self.history)) - 1]

    @property
    def stopped_early(self) -> bool:
        return len(self.history) < self.settings.epochs

    def metrics(self) -> dict[str, Any]:
        """The content of metrics.json."""
        dataset, validation = self.data.dataset, self.data.validation
        return {
            "data": {
                "name": dataset.name,
                "source": dataset.source,
                "shape": dataset.shape,
                "classes": dataset.classes,
                "training_rows": len(self.data.train),
                "validation_rows": 0 if validation is None else len(validation),
                "test_rows": len(self.data.test),
            },
            "epochs": len(self.history),
            "stopped_early": self.stopped_early,
            "model_epoch": self.kept.epoch,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
            "samples_per_second": self.samples_per_second,
            "test": self.measured.to_json(),
            "versions": report.versions(),
        }

    def text(self) -> str:
        """The table that closes a training."""
        measured, unit = self.measured, self.data.unit
        right = f"{measured.right:,} of {measured.rows:,} {unit}"
        rows = [
            ["test accuracy", f"{tables.percent(measured.accuracy)}   {right}"],
            ["test loss", tables.decimal(measured.loss)],
            self._epoch(),
            [
                "training",
                f"{tables.seconds(self.seconds)}   {tables.count(self.samples_per_second)} {unit}/s",
            ],
            ["run folder", str(self.path)],
        ]
        text = tables.table(rows, align="<<", indent=2)
        return text if self.settings.quiet else f"\n{click.style('result', bold=True)}\n{text}"

    def _epoch(self) -> list[str]:
        """The line of the model's epoch; only validation data tell which was the best."""
        count = f"{len(self.history)} of {self.settings.epochs}"
        if self.best_epoch is None:
            return ["epochs", count]
        best = self.history[self.best_epoch - 1]
        figures = f"{tables.decimal(best.val_loss)}, accuracy {tables.percent(best.val_accuracy)}"
        line = f"{best.epoch}   validation loss {figures}"
        if self.settings.early_stopping:
            stopped = f"; stopped after {count} epochs" if self.stopped_early else ""
            return ["best epoch", f"{line}: kept{stopped}"]
        return ["best epoch", f"{line}; the model is of epoch {count}"]

    def what_next(self) -> str:
        """The commands that go on from here."""
        run = shlex.quote(str(self.path))
        rows = [
            [f"mlpk eval {run}", "accuracy by class, confusion matrix"],
            [f"mlpk predict {run} FILE…", "classes of your own files"],
            [f"mlpk plot {run}", "draw the figures" + (" again" if self.settings.plots else "")],
        ]
        return f"\n{click.style('next', bold=True)}\n{tables.table(rows, align='<<', indent=2)}"
