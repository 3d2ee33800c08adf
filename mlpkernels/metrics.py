"""How good predictions are: accuracy, log loss, confusion matrix, and each class's precision and recall."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import as_text


class ClassReport(NamedTuple):
    """One entry a class, arrays (K,); what is undefined (nothing predicted, nothing there) is 0."""

    precision: NDArray[np.float64]  # of the rows predicted as the class, the share that is right
    recall: NDArray[np.float64]  # of the class's rows, the share that is found
    f1: NDArray[np.float64]  # harmonic mean of the two
    support: NDArray[np.int64]  # rows that truly belong to the class


def accuracy(y: ArrayLike, predicted: ArrayLike) -> float:
    """Share of rows, 0 to 1, whose prediction equals the truth.

    y (N,), predicted (N,): class indices or class names, the same kind in both. Raises ValueError for
    other shapes and for no rows, TypeError where numbers meet names, or bytes meet text (they would never be
    equal).
    """
    truth, guess = as_text(_rows("y", y)), as_text(_rows("predicted", predicted))
    _same_length(truth, guess)
    kinds = {array.dtype.kind if array.dtype.kind in "US" else "number" for array in (truth, guess)}
    if len(kinds) > 1:
        raise TypeError(
            f"y holds {truth.dtype} and predicted holds {guess.dtype}: compare class names with class names, "
            "or class indices with class indices"
        )
    return float(np.mean(truth == guess))


def log_loss(y: ArrayLike, proba: ArrayLike) -> float:
    """Mean over the rows of -log(probability given to the true class), in nats.

    y (N,) class indices, proba (N, K) probabilities, each row summing to 1. A probability below the machine
    epsilon of proba's dtype counts as that, as in scikit-learn's log_loss, so the result is finite; the loss
    that Network.evaluate gives is reckoned from the logits and knows no such bound. Raises ValueError for other
    shapes, no rows, labels outside 0 ... K-1 and rows that are no probabilities, TypeError for labels that
    are no integers.
    """
    table = np.asarray(proba)
    if table.dtype.kind not in "fiub":
        raise TypeError(f"proba: dtype {table.dtype}, wanted floating-point probabilities")
    if table.ndim != 2:
        raise ValueError(f"proba: shape {table.shape}, wanted (N, K): one row a sample, one column a class")
    labels = checked_labels("y", y, table.shape[1])
    _same_length(labels, table, "proba")
    epsilon = float(np.finfo(table.dtype).eps) if table.dtype.kind == "f" else float(np.finfo(float).eps)
    with np.errstate(invalid="ignore"):  # inf - inf: refused below
        totals = table.sum(axis=1, dtype=np.float64)
    # "not (good)" instead of "bad": a NaN compares false with everything
    wrong = ~((table >= 0).all(axis=1) & (abs(totals - 1) <= epsilon**0.5))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"proba: row {row + 1} is {_short(table[row])}, summing to {totals[row]:.6g}; wanted "
            "probabilities from 0 to 1 that sum to 1 (apply softmax to logits first)"
        )
    chosen = table[np.arange(len(labels)), labels].astype(np.float64)
    # not -mean: a perfect score is 0.0, and -0.0 would print its sign
    return 0.0 - float(np.mean(np.log(np.maximum(chosen, epsilon))))


def confusion_matrix(y: ArrayLike, predicted: ArrayLike, classes_count: int) -> NDArray[np.int64]:
    """Count the rows of each true class (row) by predicted class (column): int64 (K, K), K = classes_count.

    y (N,), predicted (N,): class indices. Raises ValueError for other shapes, no rows, indices outside
    0 ... K-1 and a classes_count below 1, TypeError for labels that are no integers.
    """
    if classes_count < 1:
        raise ValueError(f"classes_count: {classes_count}, wanted at least 1")
    truth = checked_labels("y", y, classes_count)
    guess = checked_labels("predicted", predicted, classes_count)
    _same_length(truth, guess)
    cells = np.bincount(truth * classes_count + guess, minlength=classes_count**2)
    return cells.astype(np.int64, copy=False).reshape(classes_count, classes_count)


def class_report(confusion: ArrayLike) -> ClassReport:
    """Give each class's precision, recall, F1 and support from a confusion matrix (K, K), rows = true class.

    Raises ValueError for a matrix that is not square, is empty or has a negative count, TypeError for
    counts that are no integers.
    """
    counts = check_confusion(confusion)
    right = np.diagonal(counts).astype(np.float64)
    support, guessed = counts.sum(axis=1), counts.sum(axis=0)
    precision = _ratio(right, guessed)
    recall = _ratio(right, support)
    return ClassReport(precision, recall, _ratio(2 * right, support + guessed), support)


def checked_labels(name: str, values: ArrayLike, classes_count: int) -> NDArray[np.int64]:
    """Return class indices (N,) as int64, or raise a ValueError or TypeError that names the argument."""
    array = _rows(name, values)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name}: dtype {array.dtype}, wanted integer class indices 0 ... {classes_count - 1}")
    outside = (array < 0) | (array >= classes_count)
    if outside.any():
        row = int(np.argmax(outside))
        raise ValueError(
            f"{name}: {array[row]} in row {row + 1} is no class index; wanted 0 ... {classes_count - 1} "
            f"for {classes_count} classes"
        )
    return array.astype(np.int64, copy=False)


def check_confusion(confusion: ArrayLike) -> NDArray[np.int64]:
    """Return a confusion matrix as int64 (K, K), or raise a ValueError or TypeError by name."""
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or counts.size == 0:
        raise ValueError(f"confusion: shape {counts.shape}, wanted (K, K) with K at least 1")
    if counts.dtype.kind not in "iu":
        raise TypeError(f"confusion: dtype {counts.dtype}, wanted integer counts of rows")
    if counts.min() < 0:
        raise ValueError(f"confusion: holds {counts.min()}, wanted counts of rows, 0 or more")
    return counts.astype(np.int64, copy=False)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def _rows(name: str, values: ArrayLike) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name}: shape {array.shape}, wanted (N,): one label a row")
    if len(array) == 0:
        raise ValueError(f"{name}: no rows, wanted at least one")
    return array


def _same_length(truth: NDArray[Any], other: NDArray[Any], name: str = "predicted") -> None:
    if len(truth) != len(other):
        raise ValueError(f"y has {len(truth)} rows and {name} has {len(other)}: wanted as many")


def _short(row: NDArray[Any]) -> str:
    """The first few numbers of a row, for a message."""
    return "[" + ", ".join(f"{value:.4g}" for value in row[:4]) + (", ...]" if len(row) > 4 else "]")
