"""Losses and softmax of rows: a group of threads has a row, so that its numbers are read side by side."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from .driver import cuda
from .functions import exp, log
from .sums import GROUP, GROUPS, group_max, group_sum


@cache
def row_functions(dtype: str) -> SimpleNamespace:
    """cross_entropy(...) and softmax(...) over rows start … stop - 1 of matrices in flat arrays."""
    T = np.dtype(dtype).type

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

    return SimpleNamespace(cross_entropy=cross_entropy, softmax=softmax)
