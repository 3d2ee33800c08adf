"""What is done element by element to rows start … stop - 1 of a batch: pools, batch norms, dropout."""

from functools import cache
from types import SimpleNamespace

import numpy as np

from .. import plan as p
from .driver import cuda
from .functions import dropout_keeps, scalar
from .sums import THREADS


@cache
def row_functions(dtype: str) -> SimpleNamespace:
    """pool, pool_back, norm, norm_back, drop and drop_back, each for all threads of a block.

    Images lie in flat arrays, `sample` elements apart from `at` on. `table` has a plan's row from table_at on.
    """
    T = np.dtype(dtype).type
    activate, slope = scalar(dtype).activate, scalar(dtype).slope

    @cuda.jit(device=True)
    def pool(x, x_at, x_sample, out, at, sample, places, places_at, start, stop, table, table_at):
        """The maximum of each window and where in its image it is: see reference.maxpool2d_forward."""
        height, width = table[table_at + p.HEIGHT], table[table_at + p.WIDTH]
        high, wide = table[table_at + p.OUT_HEIGHT], table[table_at + p.OUT_WIDTH]
        kh, kw = table[table_at + p.KERNEL_H], table[table_at + p.KERNEL_W]
        channels = table[table_at + p.OUT_CHANNELS]
        gives = channels * high * wide
        for e in range(start * gives + cuda.threadIdx.x, stop * gives, THREADS):
            row = e // gives
            channel = e % gives // (high * wide)
            top = e % (high * wide) // wide * table[table_at + p.STRIDE_H] - table[table_at + p.PADDING_H]
            left = e % wide * table[table_at + p.STRIDE_W] - table[table_at + p.PADDING_W]
            plane = x_at + row * x_sample + channel * height * width
            largest = T(-np.inf)
            place = max(top, 0) * width + max(left, 0)
            for y in range(max(top, 0), min(top + kh, height)):
                for z in range(max(left, 0), min(left + kw, width)):
                    v = x[plane + y * width + z]
                    if v > largest or v != v:
                        largest = v
                        place = y * width + z
            out[at + row * sample + e % gives] = largest
            places[places_at + e] = place

    @cuda.jit(device=True)
    def pool_back(
        delta, delta_at, delta_sample, places, places_at, x, x_at, x_sample, code, dx, dx_at, dx_sample, start, stop,
        table, table_at,
    ):  # fmt: skip
        """Each input pixel adds up the windows whose maximum it is, in their order."""
        height, width = table[table_at + p.HEIGHT], table[table_at + p.WIDTH]
        high, wide = table[table_at + p.OUT_HEIGHT], table[table_at + p.OUT_WIDTH]
        down, across = table[table_at + p.STRIDE_H], table[table_at + p.STRIDE_W]
        kh, kw = table[table_at + p.KERNEL_H], table[table_at + p.KERNEL_W]
        takes = table[table_at + p.CHANNELS] * height * width
        gives = table[table_at + p.CHANNELS] * high * wide
        for e in range(start * takes + cuda.threadIdx.x, stop * takes, THREADS):
            row = e // takes
            inner = e % takes
            channel = inner // (height * width)
            pixel = inner % (height * width)
            y = pixel // width + table[table_at + p.PADDING_H]
            z = pixel % width + table[table_at + p.PADDING_W]
            total = T(0)
            for i in range(max(0, (y - kh + down) // down), min(high, y // down + 1)):
                for j in range(max(0, (z - kw + across) // across), min(wide, z // across + 1)):
                    window = (channel * high + i) * wide + j
                    if places[places_at + row * gives + window] == pixel:
                        total += delta[delta_at + row * delta_sample + window]
            dx[dx_at + row * dx_sample + inner] = slope(total, x[x_at + row * x_sample + inner], code)

    @cuda.jit(device=True)
    def norm(
        x, x_at, x_sample, params, gamma_at, beta_at, moments, mean_at, scale_at, code, out, at, sample, channels,
        pixels, start, stop,
    ):  # fmt: skip
        """out = activation(gamma · (x - mean) · scale + beta), mean and scale (C,) float64 in `moments`."""
        gives = channels * pixels
        for e in range(start * gives + cuda.threadIdx.x, stop * gives, THREADS):
            row = e // gives
            channel = e % gives // pixels
            far = np.float64(x[x_at + row * x_sample + e % gives]) - moments[mean_at + channel]
            normal = T(far * moments[scale_at + channel])
            value = params[gamma_at + channel] * normal + params[beta_at + channel]
            out[at + row * sample + e % gives] = activate(value, code)

    @cuda.jit(device=True)
    def norm_back(
        delta, delta_at, delta_sample, x, x_at, x_sample, params, gamma_at, moments, mean_at, scale_at, sums_at,
        products_at, code, dx, dx_at, dx_sample, channels, pixels, count, start, stop,
    ):  # fmt: skip
        """The gradient by a batch norm's input; sums_at: Σ delta, products_at: Σ delta · x̂, over `count` values."""
        gives = channels * pixels
        for e in range(start * gives + cuda.threadIdx.x, stop * gives, THREADS):
            row = e // gives
            channel = e % gives // pixels
            value = x[x_at + row * x_sample + e % gives]
            scale = moments[scale_at + channel]
            normal = (np.float64(value) - moments[mean_at + channel]) * scale
            means = (moments[sums_at + channel] + normal * moments[products_at + channel]) / count
            centred = np.float64(delta[delta_at + row * delta_sample + e % gives]) - means
            given = T(centred * np.float64(params[gamma_at + channel]) * scale)
            dx[dx_at + row * dx_sample + e % gives] = slope(given, value, code)

    @cuda.jit(device=True)
    def drop(x, x_at, x_sample, keep, low, high, limit, out, at, sample, takes, start, stop):
        """out = x · keep where an element is kept, else 0; the element is its index in the batch of rows."""
        for e in range(start * takes + cuda.threadIdx.x, stop * takes, THREADS):
            row = e // takes
            inner = e - row * takes
            value = T(0)
            if dropout_keeps(np.uint32(e & 0xFFFFFFFF), low, high, limit):
                value = x[x_at + row * x_sample + inner] * keep
            out[at + row * sample + inner] = value

    @cuda.jit(device=True)
    def drop_back(
        delta, delta_at, delta_sample, keep, low, high, limit, x, x_at, x_sample, code, dx, dx_at, dx_sample, takes,
        start, stop,
    ):  # fmt: skip
        """The gradient by what dropout took, with the slope of the activation that made it."""
        for e in range(start * takes + cuda.threadIdx.x, stop * takes, THREADS):
            row = e // takes
            inner = e - row * takes
            value = T(0)
            if dropout_keeps(np.uint32(e & 0xFFFFFFFF), low, high, limit):
                value = slope(
                    delta[delta_at + row * delta_sample + inner] * keep, x[x_at + row * x_sample + inner], code
                )
            dx[dx_at + row * dx_sample + inner] = value

    return SimpleNamespace(
        pool=pool, pool_back=pool_back, norm=norm, norm_back=norm_back, drop=drop, drop_back=drop_back
    )
