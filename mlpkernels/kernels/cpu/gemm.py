"""Matrix product over the micro-kernels: blocking, packing and the edges.

One function serves all three products of a dense layer; which one it is, the strides say.
"""

import numpy as np

from .jit import ONE, inlined, inner
from .simd import (
    DESCEND,
    REGISTERS,
    STORE,
    TALL_ROWS,
    TILE_ROWS,
    UNROLL,
    VECTOR_BYTES,
    VECTORS,
    advance,
    flat,
    lanes,
    load,
    load_few,
    load_vector_store,
    pointer_to,
    prefetch,
    stack,
    store,
    store_few,
    tile,
)  # fmt: skip
from .transposes import transpose_block, transpose_few

# A packed panel of b, DEPTH rows of VECTORS vectors: half of a 48 KB level-1 cache, or 12 KB of one of 32.
DEPTH = (24576 if REGISTERS == 32 else 12288) // (VECTORS * VECTOR_BYTES)
# With 16 registers a tile takes an element of a for two vectors of b, not four: reading a counts more. There, where a
# has LARGE elements or more, GROUP panels of DEEP rows, 128 KB of the level-2 cache with AVX2, are packed at once, and
# a goes by only once, in strips of a tile's rows. A transposed a more than TURNED deep, whose every k is a line and
# often a page of its own, is copied into room for a strip, the elements AHEAD, in the next line or the one after it,
# asked for. On Zen 3, on a busy host, a first layer's gradient takes 0.7 of the time over 1,024 rows, 0.9 over 128, in
# medians.
# Fewer than SHALLOW steps do not repay the copies (1.1 to 1.5 of the time). Fewer than FLAT rows do not repay packing,
# only slices of the depth, once a has LEAVES_CACHE elements (0.5 for 16 x 8192). Of fewer than three panels, one that
# is hardly filled weighs too much: in strips it does not get the tall tiles (1.25 for 24 columns).
FEW = REGISTERS == 16
LARGE, DEEP, GROUP, TURNED, STRIP, AHEAD = 16384, 256, 8, 128, 8, 16
SHALLOW, FLAT, LEAVES_CACHE = 32, 24, 65536
panel_room = stack(DEPTH * VECTORS * VECTOR_BYTES)
edge_room = stack(TILE_ROWS[0] * VECTORS * VECTOR_BYTES)
group_room = stack(GROUP * DEEP * VECTORS * VECTOR_BYTES, when_reached=True)
strip_room = stack(DEEP * STRIP * np.dtype(np.float64).itemsize, when_reached=True)


@inner
def _pack(b, b_k, b_j, k, n, panel, width):
    """panel[k, width] = b's block of k rows and n columns, the columns from n to width zero.

    Of a transposed matrix the panel gets rows up to the next full vector.
    """
    vector = lanes(b)
    if b_j == 1:
        whole = n // vector * vector
        for r in range(k):
            source, target = advance(b, r * b_k), advance(panel, r * width)
            if whole == VECTORS * vector:
                for v in range(VECTORS):
                    load_vector_store(advance(source, v * vector), advance(target, v * vector))
                continue
            for j in range(0, whole, vector):
                load_vector_store(advance(source, j), advance(target, j))
            if whole < n:
                load_few(advance(source, whole), advance(target, whole), n - whole)
    else:  # b_k == 1: a transposed matrix
        for j in range(0, n, vector):
            for r in range(0, k, vector):
                source, target = advance(b, j * b_j + r), advance(panel, r * width + j)
                if n - j >= vector and k - r >= vector:
                    transpose_block(source, b_j, target, width)
                else:
                    transpose_few(source, b_j, n - j, k - r, target, width)


@inner
def _turn_strip(a, a_k, rows, depth, strip):
    """strip[depth, STRIP] = a transposed a's first rows, STRIP of them or as many as there are."""
    vector = lanes(a)
    for i in range(0, min(rows, STRIP), vector):
        source, target = advance(a, i), advance(strip, i)
        if rows - i >= vector:
            for k in range(depth):
                load_vector_store(advance(source, k * a_k), advance(target, k * STRIP))
                prefetch(advance(source, k * a_k + AHEAD), ONE)
        else:
            for k in range(depth):
                load_few(advance(source, k * a_k), advance(target, k * STRIP), rows - i)


@inner
def _fill_edge(room, width, c, c_row, c_j, rows, n):
    """The edge tile's starting sums: n columns of c, zeros up to width."""
    vector = lanes(room)
    for i in range(rows):
        if c_j == 1:
            for j in range(0, n, vector):
                load_few(advance(c, i * c_row + j), advance(room, i * width + j), n - j)
        else:
            for j in range(n):
                store(room, i * width + j, load(c, i * c_row + j * c_j))
            for j in range(n, width):
                store(room, i * width + j, 0.0)


@inner
def _store_edge(room, width, c, c_row, c_j, rows, n, epilogue, aux, aux_row):
    """n columns of the edge tile into c, through the epilogue; where c lies transposed there is none."""
    vector = lanes(room)
    if c_j == 1:
        for i in range(rows):
            for j in range(0, n, vector):
                store_few(
                    advance(room, i * width + j), advance(c, i * c_row + j), n - j, epilogue,
                    advance(aux, i * aux_row + j),
                )  # fmt: skip
    else:
        for j in range(n):
            for i in range(rows):
                store(c, i * c_row + j * c_j, load(room, i * width + j))


@inner
def _goes_by_groups(m, n, k, across):
    return FEW and m * k >= (LARGE if m >= FLAT else LEAVES_CACHE) and k >= SHALLOW and n >= 3 * across


@inner
def _slice_depth(k):
    """How many rows of packed panels, DEEP at most: slices of one length, in whole turns of a tile's steps."""
    slices = max((k + DEEP - 1) // DEEP, ONE)
    return max((k + slices * UNROLL - 1) // (slices * UNROLL) * UNROLL, UNROLL)


@inlined
def _multiply_panel(
    a, a_row, a_k, panel, stride, depth, c, c_row, c_j, m, columns, padded, goes_on, epilogue, aux, aux_row, corner
):
    """c[m, columns] = epilogue(c, where the sum goes on, or 0 + a[m, depth] @ the panel, its rows a stride apart)."""
    vector = lanes(a)
    vectors = (columns + vector - 1) // vector
    width = vectors * vector
    edge = (columns < width and not padded) or c_j != 1
    i = 0
    while i < m:
        left = m - i
        rows = 6 if left >= 6 and left != 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        if vectors == 1 and left >= TALL_ROWS[1]:
            rows = TALL_ROWS[0] if left >= TALL_ROWS[0] else TALL_ROWS[1]
        c_i, aux_i = advance(c, i * c_row), advance(aux, i * aux_row)
        c_tile, c_stride, code = c_i, c_row, epilogue
        if edge:  # through a full tile on the stack
            if goes_on:
                _fill_edge(corner, width, c_i, c_row, c_j, rows, columns)
            c_tile, c_stride, code = corner, width, STORE
        tile(
            rows, vectors, advance(a, i * a_row), a_row, a_k, panel, stride, c_tile, c_stride, depth, goes_on, code,
            aux_i, aux_row,
        )  # fmt: skip
        if edge:
            _store_edge(corner, width, c_i, c_row, c_j, rows, columns, epilogue, aux_i, aux_row)
        i += rows


@inlined
def gemm(a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, padded, epilogue, aux, aux_row):
    """c[m, n] = epilogue(a[m, k] @ b[k, n]), pointers with strides in elements.

    b_j == 1 (rows of b contiguous) or b_k == 1 (b is a transposed matrix). padded: rows of b (b_j == 1), c and aux
    may be read and written up to the next full vector. m, n, k may be 0: an empty sum is 0.
    epilogue and aux: see simd.tile; DESCEND is for padded products. aux may be c itself where k is at most DEPTH and
    DEEP: a longer sum waits in c for its end.
    """
    c_j, deepest = 1, DEPTH
    if n < lanes(a) and m >= 4 * n and k >= 32 and a_row == 1 and b_j == 1 and epilogue == STORE and not padded:
        # A narrow product of a transposed a (a weight gradient of few outputs) would leave lanes empty: its transpose
        # fills them, 200 GFLOP/s instead of 90 for 64 x 1024 x 10.
        a, b = b, a
        a_k, b_k = b_k, a_k
        m, n, c_row, c_j, deepest = n, m, 1, c_row, k
    if epilogue == DESCEND:
        deepest = k  # c holds what the sums are taken from, and has no room for parts of them
    vector = lanes(a)
    across = VECTORS * vector  # columns of a panel
    room, corner = panel_room(a), edge_room(a)
    strip, group = room, across
    by_groups = c_j == 1 and epilogue != DESCEND and _goes_by_groups(m, n, k, across)
    by_strips = by_groups and m >= FLAT
    if by_groups:
        room, strip, group = group_room(a), strip_room(a), GROUP * across
        if not by_strips and b_j == 1 and (padded or n % vector == 0):
            group = n  # nothing is packed
    for left_of in range(0, n, group):
        several = min(n - left_of, group)
        partial = several % vector != 0 and not padded
        span = (several + vector - 1) // vector * vector
        # Rows a power of two apart share few cache sets; a packed copy pays from about four row blocks on.
        packs = b_j != 1 or partial or (m >= FLAT and b_k > span and b_k * (VECTOR_BYTES // vector) % 256 == 0)
        packs = by_strips or (packs and epilogue != DESCEND)
        most = _slice_depth(k) if by_groups else DEPTH if packs else max(deepest, ONE)
        for first in range(0, max(k, ONE), most):  # one turn for k == 0, too
            depth = min(most, k - first)
            code = epilogue if first + depth >= k else STORE
            panels, stride = advance(b, first * b_k + left_of * b_j), b_k
            if packs:
                for j in range(0, several, across):
                    columns = min(several - j, across)
                    width = (columns + vector - 1) // vector * vector
                    _pack(advance(panels, j * b_j), b_k, b_j, depth, columns, advance(room, j * most), width)
            above = 0
            while above < m:
                height = m - above
                a_rows, row, step = advance(a, above * a_row + first * a_k), a_row, a_k
                if by_strips:
                    height = 6 if height >= 6 and height != 8 else min(height, 4)
                    if a_row == 1 and depth > TURNED:
                        _turn_strip(a_rows, a_k, m - above, depth, strip)
                        a_rows, step = strip, ONE * STRIP
                for j in range(0, several, across):
                    columns = min(several - j, across)
                    panel = advance(panels, j * b_j)
                    if packs:
                        panel, stride = advance(room, j * most), (columns + vector - 1) // vector * vector
                    aux_j = aux if epilogue == DESCEND else advance(aux, left_of + j + above * aux_row)
                    _multiply_panel(
                        a_rows, row, step, panel, stride, depth, advance(c, above * c_row + (left_of + j) * c_j),
                        c_row, c_j, height, columns, padded, first > 0, code, aux_j, aux_row, corner,
                    )  # fmt: skip
                above += height


@inner
def gemm_once(a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, padded, epilogue, aux, aux_row):
    """gemm for compiled code that calls it in several places: a function, not a copy in each of them."""
    gemm(a, a_row, a_k, b, b_k, b_j, c, c_row, m, n, k, padded, epilogue, aux, aux_row)


@inner
def multiply(a, a_row, a_k, b, b_k, b_j, c, k, epilogue, aux, aux_row):
    """gemm into all of c (M, N), from compiled code. The conversions keep each constant argument from making a
    specialisation of gemm of its own: seconds of compiling in the caller's function.
    """
    m, n = c.shape
    gemm_once(
        pointer_to(flat(a), 0), np.int64(a_row), np.int64(a_k), pointer_to(flat(b), 0), np.int64(b_k), np.int64(b_j),
        pointer_to(flat(c), 0), n, m, n, k, np.bool_(False), np.int64(epilogue), pointer_to(flat(aux), 0),
        np.int64(aux_row),
    )  # fmt: skip
