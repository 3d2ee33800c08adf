"""What training has reached: results, progress, and all that an exact resume needs."""

from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from .kernels.plan import OptimizerState


@dataclass(frozen=True)
class EpochResult:
    """One epoch's figures; None where there was no such data. Losses are means, accuracies nan without classes.

    epoch counts from 1. train_* are means over the epoch's mini-batches while the weights change, or over the
    training part after the epoch with eval_train; the training loss is weighted, the others are not.
    learning_rate is the last step's; seconds is training alone, without compiling and evaluating. best: the
    validation loss is the lowest so far.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    test_loss: float | None
    test_accuracy: float | None
    learning_rate: float
    seconds: float
    samples_per_second: float
    best: bool


HISTORY_COLUMNS = tuple(each.name for each in fields(EpochResult) if each.name != "best")  # of history.csv


@dataclass(frozen=True)
class Progress:
    """Where training stands within an epoch: epoch from 1, `step` of `steps` done, `samples` rows seen.

    loss and accuracy are means over the epoch's rows so far, learning_rate the last step's, seconds the time
    spent training in this epoch.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    samples: int
    loss: float
    accuracy: float
    learning_rate: float
    seconds: float


class Mark(NamedTuple):
    """What changes once an epoch: replaced as a whole, so that an interrupt finds the old or the new."""

    epoch: int  # epochs finished
    updates: int  # the optimiser's step at the epoch's start
    generator: dict[str, Any]  # state of the shuffling PCG64 at the epoch's start
    clock: np.ndarray  # (1,) float64: seconds of training in the epoch under way
    history: tuple[EpochResult, ...] = ()
    best_loss: float | None = None  # the lowest validation loss
    best_epoch: int = 0
    best_params: np.ndarray | None = None  # (P,), kept for early stopping
    best_buffers: np.ndarray | None = None  # (S,), with them


@dataclass
class TrainingState:
    """All that training needs, beside the network, to go on exactly, bit for bit, from the step it reached.

    Make an empty one, pass it to `fit`, and it is filled and kept up to date; save it with
    `save_checkpoint`.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    optimizer: OptimizerState | None = None
    losses: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (steps,) Σ weight · loss of each step
    corrects: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # (steps,)
    mark: Mark | None = None
    last_params: np.ndarray | None = None  # (P,): the last weights, while the network holds the best ones
    last_buffers: np.ndarray | None = None  # (S,), with them

    @property
    def started(self) -> bool:
        """Whether `fit` has filled this state."""
        return self.mark is not None

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return self.mark.epoch if self.mark is not None else 0

    @property
    def step(self) -> int:
        """Steps done in the epoch under way."""
        if self.mark is None or self.optimizer is None:
            return 0
        return int(self.optimizer.step[0]) - self.mark.updates

    @property
    def steps(self) -> int:
        """Steps in an epoch."""
        return len(self.losses)

    @property
    def history(self) -> list[EpochResult]:
        """The results of the finished epochs."""
        return list(self.mark.history) if self.mark is not None else []

    @property
    def epochs_since_best(self) -> int:
        """Epochs since the lowest validation loss."""
        return self.mark.epoch - self.mark.best_epoch if self.mark is not None else 0

    @property
    def best_epoch(self) -> int | None:
        """The epoch, from 1, of the lowest validation loss; None without validation."""
        return self.mark.best_epoch or None if self.mark is not None else None
