"""Tiled products, dense and of windows: shared memory, register tiles, the activation or its slope in the store.

A block computes one tile of C (m, n) = A (m, k) · B (k, n). While it multiplies one stage, `depth` deep, from shared
memory, the next is on its way from global memory in registers; each stage then costs one barrier. Rows of the stages
are padded by 16 bytes, so that threads which store a column of A meet different banks, and fragments are read four
numbers at once. Small tiles are cut along k into slices, one for each group of threads, added up in a fixed order:
128 x 128 outputs over 784 inputs fill the GPU so, and the sum of an output depends on the shape alone. Products and
sums are in the dtype itself, never in TF32.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from .. import plan as p
from .driver import SIMULATED, cuda
from .functions import scalar
from .vectors import load4


class Tile(NamedTuple):
    """A block's tile: rows x columns of C, `depth` of k a stage; each thread's share; slices of the depth."""

    rows: int
    columns: int
    depth: int
    thread_rows: int
    thread_columns: int
    slices: int

    @property
    def threads(self) -> int:
        return (self.rows // self.thread_rows) * (self.columns // self.thread_columns) * self.slices

    @property
    def scratch(self) -> int:
        """Elements of shared memory: two stages, or the slices' sums."""
        stages = 2 * self.depth * (self.rows + _PAD + self.columns + _PAD)
        return max(stages, self.slices * self.rows * self.columns if self.slices > 1 else 0)


_PAD = 4
DENSE, CONV_FORWARD, CONV_PARAMS, CONV_INPUT = range(4)  # what a product multiplies
BIAS, STORE, SLOPE = range(3)  # what it does in the store

# LARGE: 64 multiply-adds a thread for 4 vector loads, for dense products that fill the GPU. MEDIUM: 16, for those of
# windows, whose addresses take registers too. SMALL: for a layer of a small network, 64 tiles of 128 x 128 outputs.
# ROWS: a few rows with all columns, for layers that a block takes one after the other. Threads are a multiple of rows,
# columns and depth, so that a thread's loads lie at equal steps.
_BOTH = ("float32", "float64")
if SIMULATED:
    LARGE = MEDIUM = {dtype: Tile(16, 16, 4, 4, 4, 1) for dtype in _BOTH}
    SMALL = ROWS = {dtype: Tile(4, 8, 8, 4, 4, 8) for dtype in _BOTH}
else:
    MEDIUM = {dtype: Tile(64, 64, 8, 4, 4, 1) for dtype in _BOTH}
    LARGE = {"float32": Tile(128, 128, 8, 8, 8, 1), "float64": MEDIUM["float64"]}
    SMALL = {dtype: Tile(16, 16, 32, 4, 4, 16) for dtype in _BOTH}
    ROWS = {dtype: Tile(4, 128, 16, 4, 4, 8) for dtype in _BOTH}


# ---- where a product's numbers lie


@cuda.jit(device=True)
def _dense_value(data, at, by_row, by_depth, row, depth, window):
    return data[np.uint64(at + row * by_row + depth * by_depth)]


@cuda.jit(device=True)
def _dense_place(at, by_row, row, column, window):
    return np.uint64(at + row * by_row + column)


@cuda.jit(device=True)
def _no_window(table, at):
    return (0,)


@cuda.jit(device=True)
def _window(table, at):
    """(C, H, W, O, H', W', kh, kw, stride, padding) of a plan's row."""
    return (
        table[at + p.CHANNELS], table[at + p.HEIGHT], table[at + p.WIDTH], table[at + p.OUT_CHANNELS],
        table[at + p.OUT_HEIGHT], table[at + p.OUT_WIDTH], table[at + p.KERNEL_H], table[at + p.KERNEL_W],
        table[at + p.STRIDE_H], table[at + p.STRIDE_W], table[at + p.PADDING_H], table[at + p.PADDING_W],
    )  # fmt: skip


@cache
def _tap_value(dtype: str) -> Any:
    T = np.dtype(dtype).type

    @cuda.jit(device=True)
    def tap_value(x, at, sample, pixel, tap, window):
        """The number of images that kernel place `tap` (c, i, j) meets at output pixel (b, y, x); 0 in the border."""
        _, height, width, _, high, wide, kh, kw, down, across, above, left = window
        image = pixel // (high * wide)
        rest = pixel % (high * wide)
        place = tap % (kh * kw)
        y = rest // wide * down + place // kw - above
        z = rest % wide * across + place % kw - left
        if y < 0 or y >= height or z < 0 or z >= width:
            return T(0)
        return x[at + image * sample + (tap // (kh * kw) * height + y) * width + z]

    return tap_value


@cache
def _values(dtype: str, kind: int) -> tuple[Any, Any, Any]:
    """(A's, B's, C's) device functions: value of A at (row, k), of B at (column, k), place of C at (row, column)."""
    T = np.dtype(dtype).type
    tap_value = _tap_value(dtype)

    @cuda.jit(device=True)
    def forward_value(x, at, sample, unused, pixel, tap, window):
        return tap_value(x, at, sample, pixel, tap, window)

    @cuda.jit(device=True)
    def params_value(x, at, sample, unused, tap, pixel, window):
        return tap_value(x, at, sample, pixel, tap, window)

    @cuda.jit(device=True)
    def delta_value(delta, at, unused, sample, channel, pixel, window):
        pixels = window[4] * window[5]
        return delta[at + pixel // pixels * sample + channel * pixels + pixel % pixels]

    @cuda.jit(device=True)
    def input_value(delta, at, sample, unused, pixel, tap, window):
        """The delta that reaches an input pixel through kernel place (o, i, j); 0 where none does."""
        _, height, width, _, high, wide, kh, kw, down, across, above, left = window
        rest = pixel % (height * width)
        place = tap % (kh * kw)
        y = rest // width + above - place // kw
        z = rest % width + left - place % kw
        if y < 0 or z < 0 or y % down != 0 or z % across != 0 or y // down >= high or z // across >= wide:
            return T(0)
        image = pixel // (height * width)
        return delta[at + image * sample + (tap // (kh * kw) * high + y // down) * wide + z // across]

    @cuda.jit(device=True)
    def turned_value(w, at, by_output, by_tap, channel, tap, window):
        """The weight at kernel place (o, i, j) of an input channel."""
        taps = window[6] * window[7]
        return w[at + tap // taps * by_output + (channel * taps + tap % taps) * by_tap]

    @cuda.jit(device=True)
    def given_place(at, sample, pixel, channel, window):
        pixels = window[4] * window[5]
        return at + pixel // pixels * sample + channel * pixels + pixel % pixels

    @cuda.jit(device=True)
    def taken_place(at, sample, pixel, channel, window):
        pixels = window[1] * window[2]
        return at + pixel // pixels * sample + channel * pixels + pixel % pixels

    return {
        DENSE: (_dense_value, _dense_value, _dense_place),
        CONV_FORWARD: (forward_value, _dense_value, given_place),
        CONV_PARAMS: (params_value, delta_value, None),
        CONV_INPUT: (input_value, turned_value, taken_place),
    }[kind]


@cuda.jit(device=True)
def _params_place(at, by_row, row, column, window):
    """by_row 0: a convolution op's dw (O, C·kh·kw); else a plan's weights (C·kh·kw, stride)."""
    if by_row == 0:
        return at + column * (window[0] * window[6] * window[7]) + row
    return at + row * by_row + column


# ---- the product


@cache
def product(dtype: str, tile: Tile, kind: int) -> Any:
    """The device function that computes one tile of a product, for blocks of tile.threads threads.

    multiply(shared, a, a_at, a_row, a_k, b, b_at, b_column, b_k, c, c_at, c_row, m, n, k, row0, column0, epilogue,
    code, aux, aux_at, aux_row, table, table_at): A's element (i, k) is a[a_at + i · a_row + k · a_k], B's (k, j)
    b[b_at + j · b_column + k · b_k]; for convolutions their strides are those of samples and weights. BIAS adds
    aux[aux_at + j] and activates by `code`; SLOPE multiplies by the slope read off aux, laid out as C from aux_at on
    with rows aux_row apart.
    """
    T = np.dtype(dtype).type
    functions, (a_value, b_value, place) = scalar(dtype), _values(dtype, kind)
    activate, slope = functions.activate, functions.slope
    place = place or _params_place
    window_of = _no_window if kind == DENSE else _window
    BM, BN, BK, TM, TN, SLICES = tile
    THREADS, ACROSS = tile.threads, BN // TN
    PER, TT, LA, LB = THREADS // SLICES, TM * TN, BM + _PAD, BN + _PAD
    A_LOADS, B_LOADS = -(-BM * BK // THREADS), -(-BN * BK // THREADS)
    A_WHOLE, B_WHOLE = BM * BK % THREADS == 0, BN * BK % THREADS == 0
    STAGE, ROW_STEP, COLUMN_STEP, SUMS = BK * (LA + LB), BM // (TM // 4), BN // (TN // 4), BM * BN
    ALONG_K, ALONG_A, ALONG_B = THREADS // BK, THREADS // BM, THREADS // BN
    # Neighbouring threads load what lies side by side: along k where a stride of 1 says so, of windows as they lie.
    DECIDED, DEEP = kind != DENSE, kind == CONV_PARAMS

    @cuda.jit(device=True)
    def finish(value, row, column, c, c_at, c_row, epilogue, code, aux, aux_at, aux_row, window):
        if epilogue == BIAS:
            value = activate(value + aux[np.uint64(aux_at + column)], code)
        elif epilogue == SLOPE:
            value = slope(value, aux[place(aux_at, aux_row, row, column, window)], code)
        c[place(c_at, c_row, row, column, window)] = value

    @cuda.jit(device=True)
    def multiply(
        shared, a, a_at, a_row, a_k, b, b_at, b_column, b_k, c, c_at, c_row, m, n, k, row0, column0, epilogue, code,
        aux, aux_at, aux_row, table, table_at,
    ):  # fmt: skip
        acc, ra, rb = cuda.local.array(TT, T), cuda.local.array(TM, T), cuda.local.array(TN, T)
        next_a, next_b = cuda.local.array(A_LOADS, T), cuda.local.array(B_LOADS, T)
        window = window_of(table, table_at)
        t = cuda.threadIdx.x
        ty = t % PER // ACROSS * 4
        tx = t % PER % ACROSS * 4
        part = t // PER
        # What a thread loads of a stage: its first element's row and depth, and the steps to the others.
        a_y, a_z, a_down, a_deeper = t % BM, t // BM, 0, ALONG_A
        if DEEP or (not DECIDED and a_k == 1):
            a_y, a_z, a_down, a_deeper = t // BK, t % BK, ALONG_K, 0
        b_y, b_z, b_down, b_deeper = t % BN, t // BN, 0, ALONG_B
        if DEEP or (not DECIDED and b_k == 1):
            b_y, b_z, b_down, b_deeper = t // BK, t % BK, ALONG_K, 0
        for i in range(TT):
            acc[i] = T(0)
        stages = (k + BK - 1) // BK
        for stage in range(stages + 1):
            at = (stage & 1) * STAGE
            depth = stage * BK
            if stage < stages:
                for q in range(A_LOADS):
                    y, z = a_y + q * a_down, a_z + q * a_deeper
                    next_a[q] = T(0)
                    if row0 + y < m and depth + z < k and (A_WHOLE or (y < BM and z < BK)):
                        next_a[q] = a_value(a, a_at, a_row, a_k, row0 + y, depth + z, window)
                for q in range(B_LOADS):
                    y, z = b_y + q * b_down, b_z + q * b_deeper
                    next_b[q] = T(0)
                    if column0 + y < n and depth + z < k and (B_WHOLE or (y < BN and z < BK)):
                        next_b[q] = b_value(b, b_at, b_column, b_k, column0 + y, depth + z, window)
            if stage > 0:
                a_from = STAGE - at + part * LA + ty
                b_from = STAGE - at + BK * LA + part * LB + tx
                for q in range(BK // SLICES):
                    for i in range(TM // 4):
                        ra[4 * i], ra[4 * i + 1], ra[4 * i + 2], ra[4 * i + 3] = load4(
                            shared, a_from + q * SLICES * LA + i * ROW_STEP
                        )
                    for j in range(TN // 4):
                        rb[4 * j], rb[4 * j + 1], rb[4 * j + 2], rb[4 * j + 3] = load4(
                            shared, b_from + q * SLICES * LB + j * COLUMN_STEP
                        )
                    for i in range(TM):
                        for j in range(TN):
                            acc[i * TN + j] += ra[i] * rb[j]
            if stage < stages:
                for q in range(A_LOADS):
                    y, z = a_y + q * a_down, a_z + q * a_deeper
                    if A_WHOLE or (y < BM and z < BK):
                        shared[np.uint64(at + z * LA + y)] = next_a[q]
                for q in range(B_LOADS):
                    y, z = b_y + q * b_down, b_z + q * b_deeper
                    if B_WHOLE or (y < BN and z < BK):
                        shared[np.uint64(at + BK * LA + z * LB + y)] = next_b[q]
            cuda.syncthreads()
        if SLICES > 1:
            for i in range(TM):
                for j in range(TN):
                    shared[np.uint64(part * SUMS + (ty + i) * BN + tx + j)] = acc[i * TN + j]
            cuda.syncthreads()
            for e in range(t, SUMS, THREADS):
                row, column = row0 + e // BN, column0 + e % BN
                if row < m and column < n:
                    total = T(0)
                    for s in range(SLICES):
                        total += shared[np.uint64(s * SUMS + e)]
                    finish(total, row, column, c, c_at, c_row, epilogue, code, aux, aux_at, aux_row, window)
            cuda.syncthreads()
        else:
            # The accumulators leave their registers in an unrolled loop, which has to be short; what is to be done to
            # them is done where they lie then, by the thread that put them there.
            for i in range(TM):
                row = row0 + i // 4 * ROW_STEP + ty + i % 4
                for j in range(TN):
                    column = column0 + j // 4 * COLUMN_STEP + tx + j % 4
                    if row < m and column < n:
                        c[place(c_at, c_row, row, column, window)] = acc[i * TN + j]
            if epilogue != STORE:
                for e in range(TT):
                    row = row0 + e // TN // 4 * ROW_STEP + ty + e // TN % 4
                    column = column0 + e % TN // 4 * COLUMN_STEP + tx + e % 4
                    if row < m and column < n:
                        value = c[place(c_at, c_row, row, column, window)]
                        finish(value, row, column, c, c_at, c_row, epilogue, code, aux, aux_at, aux_row, window)

    return multiply


def tile_for(dtype: str, kind: int, m: int, n: int) -> Tile:
    """The tile for an op's product: a large one where such make at least 64 blocks. To be measured on a GPU."""
    large = (LARGE if kind == DENSE else MEDIUM)[dtype]
    enough = 4 if SIMULATED else 64
    return large if -(-m // large.rows) * -(-n // large.columns) >= enough else SMALL[dtype]
