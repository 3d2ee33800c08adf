"""Sums of a block and of a group of threads in shared memory, always in the same order."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .driver import SIMULATED, cuda

THREADS = 16 if SIMULATED else 256  # of every block that does not compute a large tile
GROUP = 4 if SIMULATED else 32  # threads that share a row, or columns of a group
GROUPS = THREADS // GROUP
WIDE = 2 * THREADS  # float64 numbers of shared memory that the functions here take


@cuda.jit(device=True)
def block_sum(wide, value):
    """The sum of one float64 a thread, the same in every thread: a tree over the block."""
    t = cuda.threadIdx.x
    cuda.syncthreads()
    wide[t] = value
    cuda.syncthreads()
    half = THREADS // 2
    while half > 0:
        if t < half:
            wide[t] += wide[t + half]
        cuda.syncthreads()
        half //= 2
    return wide[0]


@cuda.jit(device=True)
def group_sum(wide, value):
    """The sum of one float64 a thread of each group, the same in all of its threads."""
    t = cuda.threadIdx.x
    cuda.syncthreads()
    wide[t] = value
    cuda.syncthreads()
    first = t - t % GROUP
    total = 0.0
    for i in range(GROUP):
        total += wide[first + i]
    return total


@cuda.jit(device=True)
def group_max(wide, value, place):
    """(largest value, its lowest place) of a group; a place below 0 has no value, a NaN gives place -1."""
    t = cuda.threadIdx.x
    cuda.syncthreads()
    wide[t] = value
    wide[THREADS + t] = place
    cuda.syncthreads()
    first = t - t % GROUP
    largest = 0.0
    best = -1.0
    broken = False
    for i in range(GROUP):
        v = wide[first + i]
        at = wide[THREADS + first + i]
        if at >= 0.0:
            broken = broken or v != v
            if best < 0.0 or v > largest or (v == largest and at < best):
                largest = v
                best = at
    if broken:
        best = -1.0
    return largest, best


@cache
def column_sums(dtype: str) -> Any:
    """The device function that adds up GROUP columns of a matrix: (wide, data, at, stride, rows, columns, first, out,
    out_at).
    """
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def column_sums(wide, data, at, stride, rows, columns, first, out, out_at):
        t = cuda.threadIdx.x
        column = first + t % GROUP
        total = T(0)
        if column < columns:
            for row in range(t // GROUP, rows, GROUPS):
                total += data[at + row * stride + column]
        cuda.syncthreads()
        wide[t] = total
        cuda.syncthreads()
        if t < GROUP and column < columns:
            total = T(0)
            for i in range(GROUPS):
                total += T(wide[i * GROUP + t])
            out[out_at + column] = total

    return column_sums


@cache
def channel_sums(dtype: str) -> SimpleNamespace:
    """What a block adds up of one channel of images (B, C, pixels) that lie `sample` elements apart, in float64.

    total(wide, x, at, sample, pixels, rows): Σ x, of the data at the channel's first pixel; spread(…, mean): Σ (x -
    mean)²; products(wide, delta, delta_at, delta_sample, x, at, sample, pixels, rows, mean, scale): Σ delta · (x -
    mean) · scale.
    """
    del dtype  # one for each dtype: compiled for what comes

    @cuda.jit(device=True)
    def total(wide, x, at, sample, pixels, rows):
        mine = 0.0
        for e in range(cuda.threadIdx.x, rows * pixels, THREADS):
            mine += np.float64(x[at + e // pixels * sample + e % pixels])
        return block_sum(wide, mine)

    @cuda.jit(device=True)
    def spread(wide, x, at, sample, pixels, rows, mean):
        mine = 0.0
        for e in range(cuda.threadIdx.x, rows * pixels, THREADS):
            far = np.float64(x[at + e // pixels * sample + e % pixels]) - mean
            mine += far * far
        return block_sum(wide, mine)

    @cuda.jit(device=True)
    def products(wide, delta, delta_at, delta_sample, x, at, sample, pixels, rows, mean, scale):
        mine = 0.0
        for e in range(cuda.threadIdx.x, rows * pixels, THREADS):
            row = e // pixels
            pixel = e % pixels
            normal = (np.float64(x[at + row * sample + pixel]) - mean) * scale
            mine += np.float64(delta[delta_at + row * delta_sample + pixel]) * normal
        return block_sum(wide, mine)

    return SimpleNamespace(total=total, spread=spread, products=products)
