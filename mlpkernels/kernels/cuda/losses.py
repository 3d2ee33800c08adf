"""Losses and softmax of rows: a group of threads has a row, so that its numbers are read side by side."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from ..plan import BINARY, LOGISTIC, SQUARED
from .driver import cuda
from .functions import exp, log, log1p, scalar
from .sums import GROUP, GROUPS, group_max, group_sum


@cache
def row_functions(dtype: str) -> SimpleNamespace:
    """cross_entropy(…), of_targets(…) and softmax(…) over rows start … stop - 1 of matrices in flat arrays."""
    T = np.dtype(dtype).type
    activate = scalar(dtype).activate

    @cuda.jit(device=True)
    def cross_entropy(
        wide, z, z_at, z_row, dz, dz_at, dz_row, start, stop, classes, labels, weights, order, ordered, first,
        divisor, losses, losses_at, corrects, corrects_at,
    ):  # fmt: skip
        """Row i's sample is order[first + i] of labels and weights, or where `ordered` is 0 first + i itself.

        losses[losses_at + i] = weight · loss, corrects[corrects_at + i] whether the first largest logit is the label's,
        and the gradient by the logits is weight · (softmax - onehot) / divisor; dz may be z.
        """
        lane = cuda.threadIdx.x % GROUP
        group = cuda.threadIdx.x // GROUP
        for base in range(start, stop, GROUPS):
            row = base + group
            live = row < stop
            at = z_at + row * z_row
            largest = T(0)
            place = -1
            if live:
                for j in range(lane, classes, GROUP):
                    v = z[at + j]
                    if place < 0 or v > largest or v != v:
                        largest = v
                        place = j
            top, best = group_max(wide, np.float64(largest), np.float64(place))
            shift = T(top)
            sample = first + row
            label = 0
            scale = T(0)
            loss = T(0)
            partial = T(0)
            if live:
                if ordered != 0:
                    sample = order[first + row]
                label = labels[sample]
                scale = weights[sample]
                loss = z[at + label] - shift
                for j in range(lane, classes, GROUP):
                    partial += T(exp(z[at + j] - shift))
            total = T(group_sum(wide, np.float64(partial)))
            if best < 0.0:
                total = T(np.nan)  # a NaN among the logits
            if live:
                if lane == 0:
                    losses[losses_at + row] = np.float64(scale * (T(log(total)) - loss))
                    corrects[corrects_at + row] = 1 if best == np.float64(label) else 0
                scale = scale / divisor
                for j in range(lane, classes, GROUP):
                    slope = T(exp(z[at + j] - shift)) * (scale / total)
                    if j == label:
                        slope -= scale
                    dz[dz_at + row * dz_row + j] = slope

    @cuda.jit(device=True)
    def of_element(kind, z, y):
        """(loss, slope) of one output and its target: see reference.binary_cross_entropy and those beside it."""
        if kind == BINARY:
            above = z if z > T(0) or z != z else T(0)
            return above - z * y + T(log1p(exp(-abs(z)))), activate(z, LOGISTIC) - y
        if kind == SQUARED:
            return (z - y) * (z - y) * T(0.5), z - y
        rate = T(exp(z))
        least = y * T(log(y)) - y if y > T(0) else T(0)
        return rate - z * y + least, rate - y

    @cuda.jit(device=True)
    def of_targets(
        wide, kind, z, z_at, z_row, dz, dz_at, dz_row, start, stop, width, targets, weights, order, ordered, first,
        divisor, losses, losses_at, corrects, corrects_at,
    ):  # fmt: skip
        """As cross_entropy, for a loss of targets (N, width): right is a row whose outputs are all on their target's
        side, of BINARY alone; dz may be z.
        """
        lane = cuda.threadIdx.x % GROUP
        group = cuda.threadIdx.x // GROUP
        for base in range(start, stop, GROUPS):
            row = base + group
            live = row < stop
            partial = T(0)
            wrong = 0.0
            weight = T(0)
            if live:
                sample = first + row
                if ordered != 0:
                    sample = order[first + row]
                weight = weights[sample]
                for j in range(lane, width, GROUP):
                    value, y = z[z_at + row * z_row + j], targets[sample * width + j]
                    loss, slope = of_element(kind, value, y)
                    partial += loss
                    if kind != BINARY or (value > T(0)) != (y > T(0.5)) or value != value:
                        wrong += 1.0
                    dz[dz_at + row * dz_row + j] = slope * (weight / divisor)
            total = T(group_sum(wide, np.float64(partial)))
            misses = group_sum(wide, wrong)
            if live and lane == 0:
                losses[losses_at + row] = np.float64(weight * total)
                corrects[corrects_at + row] = 1 if misses == 0.0 and kind == BINARY else 0

    @cuda.jit(device=True)
    def softmax(wide, z, out, start, stop, classes, logarithm):
        """out = softmax of each row of contiguous logits, or its logarithm; out may be z."""
        lane = cuda.threadIdx.x % GROUP
        group = cuda.threadIdx.x // GROUP
        for base in range(start, stop, GROUPS):
            row = base + group
            live = row < stop
            at = row * classes
            largest = T(0)
            place = -1
            if live:
                for j in range(lane, classes, GROUP):
                    v = z[at + j]
                    if place < 0 or v > largest or v != v:
                        largest = v
                        place = j
            top, best = group_max(wide, np.float64(largest), np.float64(place))
            shift = T(top)
            partial = T(0)
            if live:
                for j in range(lane, classes, GROUP):
                    partial += T(exp(z[at + j] - shift))
            total = T(group_sum(wide, np.float64(partial)))
            if best < 0.0:
                total = T(np.nan)
            if live:
                for j in range(lane, classes, GROUP):
                    if logarithm:
                        out[at + j] = z[at + j] - shift - T(log(total))
                    else:
                        out[at + j] = T(exp(z[at + j] - shift)) / total

    return SimpleNamespace(cross_entropy=cross_entropy, of_targets=of_targets, softmax=softmax)
