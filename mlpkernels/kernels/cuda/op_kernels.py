"""The kernels of the public ops, made for a dtype when it is first needed."""

from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from . import elements, losses, sums
from .driver import SIMULATED, cuda
from .functions import scalar, sqrt
from .product import Tile, product
from .sums import GROUP, GROUPS, THREADS, WIDE


@cache
def product_kernel(dtype: str, tile: Tile, kind: int) -> Any:
    """C = A · B of any size, a block a tile: see product.product for the arguments."""
    T, SIZE, BM, BN = np.dtype(dtype).type, tile.scratch, tile.rows, tile.columns
    multiply = product(dtype, tile, kind)

    def product_tiles(
        a, a_row, a_k, b, b_column, b_k, c, c_row, m, n, k, epilogue, code, aux, aux_row, table
    ):  # fmt: skip
        if SIMULATED:  # noqa: SIM108 (the branch that is not taken is not compiled)
            shared = cuda.shared.array(SIZE, T)
        else:
            shared = cuda.shared.array(SIZE, T, alignment=16)
        across = (n + BN - 1) // BN
        row0 = cuda.blockIdx.x // across * BM
        column0 = cuda.blockIdx.x % across * BN
        multiply(
            shared, a, 0, a_row, a_k, b, 0, b_column, b_k, c, 0, c_row, m, n, k, row0, column0, epilogue, code, aux, 0,
            aux_row, table, 0,
        )  # fmt: skip

    what = ("dense", "conv_forward", "conv_params", "conv_input")[kind]
    product_tiles.__name__ = f"product_{what}_{BM}x{BN}"
    return cuda.jit(product_tiles)


_BLOCKS = 1024  # of an element-wise kernel at most: several for each multiprocessor


def blocks_of(size: int) -> int:
    """The blocks of a kernel whose threads take elements in turns."""
    return min(_BLOCKS, -(-size // THREADS))


@cache
def kernels(dtype: str) -> SimpleNamespace:
    """All other kernels of a dtype, by name."""
    T = np.dtype(dtype).type
    functions, rows = scalar(dtype), elements.row_functions(dtype)
    activate, slope, sgd, adam = functions.activate, functions.slope, functions.sgd, functions.adam
    drop_rows, drop_back_rows, pool_rows = rows.drop, rows.drop_back, rows.pool
    add_columns, channel = sums.column_sums(dtype), sums.channel_sums(dtype)
    total, spread, products = channel.total, channel.spread, channel.products
    loss_rows = losses.row_functions(dtype)
    entropy_rows, target_rows, softmax_of_rows = loss_rows.cross_entropy, loss_rows.of_targets, loss_rows.softmax
    block_sum = sums.block_sum

    @cuda.jit
    def column_sums(data, rows, columns, out):
        wide = cuda.shared.array(WIDE, np.float64)
        add_columns(wide, data, 0, columns, rows, columns, cuda.blockIdx.x * GROUP, out, 0)

    @cuda.jit
    def channel_sums(data, rows, channels, pixels, out):
        wide = cuda.shared.array(WIDE, np.float64)
        at = cuda.blockIdx.x * pixels
        value = total(wide, data, at, channels * pixels, pixels, rows)
        if cuda.threadIdx.x == 0:
            out[cuda.blockIdx.x] = value

    @cuda.jit
    def cross_entropy(z, rows, classes, labels, weights, divisor, dz, row_losses, corrects):
        wide = cuda.shared.array(WIDE, np.float64)
        start = cuda.blockIdx.x * GROUPS
        stop = min(start + GROUPS, rows)
        entropy_rows(
            wide, z, 0, classes, dz, 0, classes, start, stop, classes, labels, weights, labels, 0, 0, divisor,
            row_losses, 0, corrects, 0,
        )  # fmt: skip

    @cuda.jit
    def target_loss(kind, z, rows, width, targets, weights, divisor, dz, row_losses, corrects, order):
        wide = cuda.shared.array(WIDE, np.float64)
        start = cuda.blockIdx.x * GROUPS
        target_rows(
            wide, kind, z, 0, width, dz, 0, width, start, min(start + GROUPS, rows), width, targets, weights, order, 0,
            0, divisor, row_losses, 0, corrects, 0,
        )  # fmt: skip

    @cuda.jit
    def activated(z, code, out, size):
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):
            out[i] = activate(z[i], code)

    @cuda.jit
    def scaled(pixels, factor, offset, out, size):
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):
            out[i] = T(pixels[i]) * factor + offset

    @cuda.jit
    def totals(row_losses, corrects, rows, loss, correct):
        """One block adds up all rows, in an order that their number alone decides."""
        wide = cuda.shared.array(WIDE, np.float64)
        mine = 0.0
        right = 0.0
        for i in range(cuda.threadIdx.x, rows, THREADS):
            mine += row_losses[i]
            right += corrects[i]
        loss_sum = block_sum(wide, mine)
        correct_sum = block_sum(wide, right)
        if cuda.threadIdx.x == 0:
            loss[0] = loss_sum
            correct[0] = np.int64(correct_sum)

    @cuda.jit
    def softmax(z, rows, classes, logarithm, out):
        wide = cuda.shared.array(WIDE, np.float64)
        start = cuda.blockIdx.x * GROUPS
        softmax_of_rows(wide, z, out, start, min(start + GROUPS, rows), classes, logarithm)

    @cuda.jit
    def pool(x, takes, out, gives, places, images, table):
        start = cuda.blockIdx.x
        if start < images:
            pool_rows(x, 0, takes, out, 0, gives, places, 0, start, start + 1, table, 0)

    @cuda.jit
    def pool_back(delta, places, windows, x, code, dx, pixels):
        """A block gives a plane's windows back, a window a thread; of those that share a maximum the first adds up all.

        So every sum is in the windows' order, whatever their number.
        """
        values, spots = cuda.shared.array(THREADS, T), cuda.shared.array(THREADS, np.int32)
        t = cuda.threadIdx.x
        at = cuda.blockIdx.x * pixels
        for i in range(t, pixels, THREADS):
            dx[at + i] = T(0)
        for base in range(0, windows, THREADS):
            count = min(THREADS, windows - base)
            cuda.syncthreads()
            if t < count:
                window = cuda.blockIdx.x * windows + base + t
                values[t] = delta[window]
                spots[t] = places[window]
            cuda.syncthreads()
            if t < count:
                first = True
                for j in range(t):
                    first = first and spots[j] != spots[t]
                if first:
                    total = dx[at + spots[t]]
                    for j in range(t, count):
                        if spots[j] == spots[t]:
                            total += values[j]
                    dx[at + spots[t]] = total
        cuda.syncthreads()
        for i in range(t, pixels, THREADS):
            dx[at + i] = slope(dx[at + i], x[at + i], code)

    @cuda.jit
    def norm(trains, x, gamma, beta, mean, variance, epsilon, code, out, rows, channels, pixels):
        """A block has a channel; in training its statistics are taken here."""
        wide = cuda.shared.array(WIDE, np.float64)
        c = cuda.blockIdx.x
        at = c * pixels
        sample = channels * pixels
        if trains != 0:
            count = max(rows * pixels, 1)
            centre = total(wide, x, at, sample, pixels, rows) / count
            far = spread(wide, x, at, sample, pixels, rows, centre) / count
            if cuda.threadIdx.x == 0:
                mean[c] = centre
                variance[c] = far
        else:
            centre = mean[c]
            far = variance[c]
        scale = 1.0 / sqrt(far + epsilon)
        for e in range(cuda.threadIdx.x, rows * pixels, THREADS):
            i = at + e // pixels * sample + e % pixels
            normal = T((np.float64(x[i]) - centre) * scale)
            out[i] = activate(gamma[c] * normal + beta[c], code)

    @cuda.jit
    def norm_back(delta, x, gamma, mean, variance, epsilon, code, dx, dgamma, dbeta, rows, channels, pixels):
        wide = cuda.shared.array(WIDE, np.float64)
        c = cuda.blockIdx.x
        at = c * pixels
        sample = channels * pixels
        count = max(rows * pixels, 1)
        centre = mean[c]
        scale = 1.0 / sqrt(variance[c] + epsilon)
        summed = total(wide, delta, at, sample, pixels, rows)
        product = products(wide, delta, at, sample, x, at, sample, pixels, rows, centre, scale)
        if cuda.threadIdx.x == 0:
            dbeta[c] = T(summed)
            dgamma[c] = T(product)
        for e in range(cuda.threadIdx.x, rows * pixels, THREADS):
            i = at + e // pixels * sample + e % pixels
            normal = (np.float64(x[i]) - centre) * scale
            centred = np.float64(delta[i]) - (summed + normal * product) / count
            dx[i] = slope(T(centred * np.float64(gamma[c]) * scale), x[i], code)

    @cuda.jit
    def drop(x, keep, low, high, limit, out, size):
        start = cuda.blockIdx.x * 4 * THREADS
        drop_rows(x, 0, 1, keep, low, high, limit, out, 0, 1, 1, start, min(start + 4 * THREADS, size))

    @cuda.jit
    def drop_back(delta, keep, low, high, limit, x, code, dx, size):
        start = cuda.blockIdx.x * 4 * THREADS
        drop_back_rows(
            delta, 0, 1, keep, low, high, limit, x, 0, 1, code, dx, 0, 1, 1, start, min(start + 4 * THREADS, size)
        )

    @cuda.jit
    def sgd_step(params, grad, velocity, rate, momentum, nesterov, decay, size):
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):
            sgd(params, i, velocity, i, grad[i], rate, momentum, nesterov, decay)

    @cuda.jit
    def adam_step(
        params, grad, m, v, keep, decay, beta1, rest1, beta2, rest2, rate, scale, epsilon, size
    ):  # fmt: skip
        for i in range(cuda.grid(1), size, cuda.gridsize(1)):
            adam(params, i, m, i, v, i, grad[i], keep, decay, beta1, rest1, beta2, rest2, rate, scale, epsilon)

    made = (
        column_sums, channel_sums, cross_entropy, target_loss, activated, scaled, totals, softmax, pool, pool_back,
        norm, norm_back, drop, drop_back, sgd_step, adam_step,
    )  # fmt: skip
    return SimpleNamespace(**{kernel.__name__: kernel for kernel in made})
