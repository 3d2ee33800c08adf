"""What phases are made of: how work is cut, the rows of a batch brought in, the optimiser's step of a parameter."""

from functools import cache
from typing import Any

import numpy as np

from .. import plan as p
from . import layout as y
from .driver import cuda
from .functions import scalar
from .sums import THREADS


@cuda.jit(device=True)
def parts(n, size):
    return (n + size - 1) // size


@cuda.jit(device=True)
def rows_of(head, step):
    """The rows of a step's batch: the last one's are fewer."""
    return max(0, min(head[y.BATCH], head[y.STOP] - head[y.START] - step * head[y.BATCH]))


@cache
def gather(dtype: str) -> Any:
    """Device function: rows start … stop - 1 of a step's batch into the inputs, bytes scaled on the way."""
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def gather(mem, data, values, order, factor, offset, head, step, start, stop):
        width, sample = head[y.WIDTH], head[y.X_SAMPLE]
        to = head[y.X_AT] + (step & 1) * head[y.X_FLIP]
        at = head[y.START] + step * head[y.BATCH]
        for e in range(start * width + cuda.threadIdx.x, stop * width, THREADS):
            row = e // width
            column = e - row * width
            source = at + row
            if head[y.ORDERED] != 0:
                source = order[at + row]
            if head[y.FROM_BYTES] != 0:
                mem[to + row * sample + column] = T(data[source * width + column]) * factor + offset
            else:
                mem[to + row * sample + column] = values[source * width + column]

    return gather


@cache
def update_range(dtype: str) -> Any:
    """Device function: the optimiser's step for one parameter, given its gradient times `scale`."""
    T = np.dtype(dtype).type
    sgd, adam = scalar(dtype).sgd, scalar(dtype).adam

    @cuda.jit(device=True)
    def update_one(mem, i, head, settings, rates, at, is_bias, scale):
        g = mem[head[y.GRAD_AT] + i] * scale
        first, second = head[y.FIRST_AT] + i, head[y.SECOND_AT] + i
        decays = not is_bias or settings[p.DECAY_BIAS] != 0.0
        decay = rates[at + y.DECAY] if decays else 0.0
        if settings[p.RULE] == p.SGD:
            rate = T(rates[at + y.LEARNING_RATE])
            sgd(mem, i, mem, first, g, rate, T(settings[p.MOMENTUM]), settings[p.NESTEROV] != 0.0, T(decay))
        else:
            keep = 1.0
            if settings[p.RULE] == p.ADAMW:
                keep = rates[at + y.KEEP] if decays else 1.0
                decay = 0.0
            beta1, beta2 = settings[p.BETA1], settings[p.BETA2]
            adam(
                mem, i, mem, first, mem, second, g, T(keep), T(decay), T(beta1), T(1.0 - beta1), T(beta2),
                T(1.0 - beta2), T(rates[at + y.ADAM_RATE]), T(rates[at + y.ADAM_SCALE]), T(rates[at + y.ADAM_EPSILON]),
            )  # fmt: skip

    return update_one
