"""The operations of convolutions, pools and batch norms within a phase: see phases.py."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import plan as p
from . import elements, sums
from . import layout as y
from .driver import cuda
from .functions import sqrt
from .pieces import parts
from .product import BIAS, CONV_FORWARD, CONV_INPUT, CONV_PARAMS, LARGE, MEDIUM, SLOPE, STORE, Tile, product
from .sums import GROUP, THREADS


@cache
def _rows(dtype: str) -> Any:
    """Device function: an operation of a pool or batch norm on rows start … stop - 1 of the batch."""
    element = elements.row_functions(dtype)
    pool, pool_back, norm, norm_back = element.pool, element.pool_back, element.norm, element.norm_back

    @cuda.jit(device=True)
    def image_rows(code, at, below, start, stop, rows, x_at, mem, places, doubles, table):
        x_sample, o_at, sample = table[at + y.IN_SAMPLE], table[at + y.OUT_AT], table[at + y.SAMPLE]
        d_at, dx_at, places_at = table[at + y.DELTA_AT], table[at + y.DELTA_BELOW], table[at + y.PLACES_AT]
        weight, stride, bias = table[at + p.WEIGHT], table[at + p.WEIGHT_STRIDE], table[at + p.BIAS]
        moments, pixels = table[at + y.MOMENTS_AT], table[at + p.HEIGHT] * table[at + p.WIDTH]
        channels = table[at + p.CHANNELS]
        if code == y.POOL_UP:
            pool(mem, x_at, x_sample, mem, o_at, sample, places, places_at, start, stop, table, at)
        elif code == y.POOL_DOWN:
            pool_back(
                mem, d_at, sample, places, places_at, mem, x_at, x_sample, below, mem, dx_at, x_sample, start, stop,
                table, at,
            )  # fmt: skip
        elif code == y.NORM_UP:
            norm(
                mem, x_at, x_sample, mem, weight, bias, doubles, moments + y.MEAN * stride, moments + y.SCALE * stride,
                table[at + p.ACTIVATION], mem, o_at, sample, channels, pixels, start, stop,
            )  # fmt: skip
        elif code == y.NORM_DOWN:
            norm_back(
                mem, d_at, sample, mem, x_at, x_sample, mem, weight, doubles, moments + y.MEAN * stride,
                moments + y.SCALE * stride, moments + y.DELTA_SUM * stride, moments + y.PRODUCT_SUM * stride, below,
                mem, dx_at, x_sample, channels, pixels, rows * pixels, start, stop,
            )  # fmt: skip

    return image_rows


@cache
def _statistics(dtype: str) -> Any:
    """Device function: a batch norm's running statistics move towards a batch's: see reference._track."""
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def statistics(at, layer, rows, doubles, table, layer_rates):
        stride, running, moments = table[at + p.WEIGHT_STRIDE], table[at + p.BUFFER], table[at + y.MOMENTS_AT]
        count = rows * table[at + p.HEIGHT] * table[at + p.WIDTH]
        momentum = layer_rates[layer * y.LAYER_RATES + y.NORM_MOMENTUM]
        unbiased = np.float64(count) / np.float64(max(count - 1, 1))
        for c in range(cuda.threadIdx.x, table[at + p.OUTPUTS], THREADS):
            mean = (1.0 - momentum) * doubles[running + c] + momentum * doubles[moments + c]
            fresh = doubles[moments + y.VARIANCE * stride + c] * unbiased
            variance = (1.0 - momentum) * doubles[running + stride + c] + momentum * fresh
            doubles[running + c] = np.float64(T(mean))
            doubles[running + stride + c] = np.float64(T(variance))
        if cuda.threadIdx.x == 0:
            doubles[running + 2 * stride] += 1.0

    return statistics


@cache
def _moments(dtype: str) -> Any:
    """Device function: what a batch norm needs of a channel's whole batch, before it and, after it, of the deltas."""
    channel = sums.channel_sums(dtype)
    total, spread, products = channel.total, channel.spread, channel.products

    @cuda.jit(device=True)
    def moments(code, item, at, layer, x_at, rows, wide, mem, doubles, table, layer_rates):
        pixels, stride = table[at + p.HEIGHT] * table[at + p.WIDTH], table[at + p.WEIGHT_STRIDE]
        x_from, x_sample, slot = x_at + item * pixels, table[at + y.IN_SAMPLE], table[at + y.MOMENTS_AT] + item
        if code == y.MOMENTS_UP:
            count = max(rows * pixels, 1)
            mean = total(wide, mem, x_from, x_sample, pixels, rows) / count
            variance = spread(wide, mem, x_from, x_sample, pixels, rows, mean) / count
            if cuda.threadIdx.x == 0:
                doubles[slot] = mean
                doubles[slot + y.VARIANCE * stride] = variance
                epsilon = layer_rates[layer * y.LAYER_RATES + y.EPSILON]
                doubles[slot + y.SCALE * stride] = 1.0 / sqrt(variance + epsilon)
        else:
            d_from, sample = table[at + y.DELTA_AT] + item * pixels, table[at + y.SAMPLE]
            mean, scale = doubles[slot], doubles[slot + y.SCALE * stride]
            summed = total(wide, mem, d_from, sample, pixels, rows)
            product_sum = products(wide, mem, d_from, sample, mem, x_from, x_sample, pixels, rows, mean, scale)
            if cuda.threadIdx.x == 0:
                doubles[slot + y.DELTA_SUM * stride] = summed
                doubles[slot + y.PRODUCT_SUM * stride] = product_sum

    return moments


@cache
def image_functions(dtype: str, tile: Tile | None) -> SimpleNamespace:
    """rows(…) on rows of the batch and, given a tile, count(…) and item(…) of operations that are cut into items."""
    if tile is None:
        return SimpleNamespace(rows=_rows(dtype))
    T = np.dtype(dtype).type
    # the gradient's tiles are those of dense ones: an update behind them takes the same elements
    windows = MEDIUM[dtype] if tile == LARGE[dtype] else tile
    BM, BN, PM, PN = windows.rows, windows.columns, tile.rows, tile.columns
    forward, backward = product(dtype, windows, CONV_FORWARD), product(dtype, windows, CONV_INPUT)
    gradient = product(dtype, windows, CONV_PARAMS)
    moments, statistics, total = _moments(dtype), _statistics(dtype), sums.channel_sums(dtype).total

    @cuda.jit(device=True)
    def count(code, at, rows, table):
        if code == y.CONV_UP:
            return parts(rows * table[at + p.OUT_HEIGHT] * table[at + p.OUT_WIDTH], BM) * parts(
                table[at + p.OUTPUTS], BN
            )
        if code == y.CONV_DOWN:
            return parts(rows * table[at + p.HEIGHT] * table[at + p.WIDTH], BM) * parts(table[at + p.CHANNELS], BN)
        if code == y.CONV_PARAMS or code == y.NORM_PARAMS:
            return parts(table[at + p.INPUTS], PM) * parts(table[at + p.OUTPUTS], PN)
        if code == y.NORM_BIASES:
            return parts(table[at + p.OUTPUTS], GROUP)
        if code == y.CHANNEL_BIASES or code == y.MOMENTS_UP or code == y.MOMENTS_DOWN:
            return table[at + p.OUTPUTS]
        return 1

    @cuda.jit(device=True)
    def convolve(code, item, at, below, x_at, rows, shared, mem, table, grad):
        sample, x_sample, stride = table[at + y.SAMPLE], table[at + y.IN_SAMPLE], table[at + p.WEIGHT_STRIDE]
        inputs, outputs, weight = table[at + p.INPUTS], table[at + p.OUTPUTS], table[at + p.WEIGHT]
        given, taken = table[at + p.OUT_HEIGHT] * table[at + p.OUT_WIDTH], table[at + p.HEIGHT] * table[at + p.WIDTH]
        across = parts(outputs, BN)
        if code == y.CONV_UP:
            forward(
                shared, mem, x_at, x_sample, 0, mem, weight, 1, stride, mem, table[at + y.OUT_AT], sample, rows * given,
                outputs, inputs, item // across * BM, item % across * BN, BIAS, table[at + p.ACTIVATION], mem,
                table[at + p.BIAS], 0, table, at,
            )  # fmt: skip
        elif code == y.CONV_DOWN:
            across = parts(table[at + p.CHANNELS], BN)
            depth = outputs * table[at + p.KERNEL_H] * table[at + p.KERNEL_W]
            backward(
                shared, mem, table[at + y.DELTA_AT], sample, 0, mem, weight, 1, stride, mem, table[at + y.DELTA_BELOW],
                x_sample, rows * taken, table[at + p.CHANNELS], depth, item // across * BM, item % across * BN, SLOPE,
                below, mem, x_at, x_sample, table, at,
            )  # fmt: skip
        else:
            across = parts(outputs, PN)
            for row in range(item // across * PM, item // across * PM + PM, BM):
                for column in range(item % across * PN, item % across * PN + PN, BN):
                    gradient(
                        shared, mem, x_at, x_sample, 0, mem, table[at + y.DELTA_AT], 0, sample, mem, grad + weight,
                        stride, inputs, outputs, rows * given, row, column, STORE, 0, mem, 0, 0, table, at,
                    )  # fmt: skip

    @cuda.jit(device=True)
    def item(
        code, item, at, layer, below, x_at, rows, shared, wide, mem, doubles, table, layer_rates, grad
    ):  # fmt: skip
        outputs, stride, slot = table[at + p.OUTPUTS], table[at + p.WEIGHT_STRIDE], table[at + y.MOMENTS_AT]
        if code == y.CONV_UP or code == y.CONV_DOWN or code == y.CONV_PARAMS:
            convolve(code, item, at, below, x_at, rows, shared, mem, table, grad)
        elif code == y.CHANNEL_BIASES:
            given = table[at + p.OUT_HEIGHT] * table[at + p.OUT_WIDTH]
            summed = total(wide, mem, table[at + y.DELTA_AT] + item * given, table[at + y.SAMPLE], given, rows)
            if cuda.threadIdx.x == 0:
                mem[grad + table[at + p.BIAS] + item] = T(summed)
        elif code == y.NORM_PARAMS:
            for c in range(item * PN + cuda.threadIdx.x, min((item + 1) * PN, outputs), THREADS):
                mem[grad + table[at + p.WEIGHT] + c] = T(doubles[slot + y.PRODUCT_SUM * stride + c])
        elif code == y.NORM_BIASES:
            for c in range(item * GROUP + cuda.threadIdx.x, min((item + 1) * GROUP, outputs), THREADS):
                mem[grad + table[at + p.BIAS] + c] = T(doubles[slot + y.DELTA_SUM * stride + c])
        elif code == y.MOMENTS_UP or code == y.MOMENTS_DOWN:
            moments(code, item, at, layer, x_at, rows, wide, mem, doubles, table, layer_rates)
        elif code == y.STATISTICS:
            statistics(at, layer, rows, doubles, table, layer_rates)

    return SimpleNamespace(count=count, item=item)
