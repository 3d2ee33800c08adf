"""Convolution's micro-kernels as LLVM IR. A vector holds one pixel of as many samples as it has lanes.

So every lane works for any kernel size, stride, padding and number of channels, nothing is shuffled, and a window's
place is an offset, read from a table. Both tiles keep their sums in registers over the whole inner loop.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch
from .simd import ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, VECTORS

ROWS = (6, 5, 4, 3, 2, 1)  # channels of a tile
COLUMNS = (4, 2, 1) if VECTORS == 4 else (2, 1)  # pixels of a tile
GRADIENT_ROWS = (4, 2, 1)  # channels of a gradient's tile
# Its places in the kernel; 0: the bias. One place alone would keep few sums going: 5 x 5 places end in a tile of 5.
GRADIENT_COLUMNS = (5, 4, 2, 1, 0) if VECTORS == 4 else (3, 2, 1, 0)


@intrinsic
def window_tile(
    typingctx,
    rows,
    columns,
    w,
    w_k,
    w_turn,
    x,
    step,
    table,
    table_turn,
    turns,
    k,
    c,
    c_row,
    c_step,
    epilogue,
    aux,
    aux_row,
    aux_step,
):
    """c[rows, columns] = epilogue(Σ over turns and k of w[rows] · x[columns]), rows one of ROWS, columns of COLUMNS.

    Sum number i of a turn takes the numbers w[i·w_k : i·w_k + rows] and the vectors at x + table[i] + column·step; the
    next turn begins w_turn further in w and table_turn further in the table. Row r, column j of c is the vector at
    c + r·c_row + j·c_step. epilogue: STORE; ADD_BIAS and ADD_BIAS_RELU add the number aux[r]; RELU_SLOPE keeps what is
    above zero in aux + r·aux_row + j·aux_step. Strides in elements.
    """
    dtype = w.dtype
    pointer, size, places = types.CPointer(dtype), types.intp, types.CPointer(types.int64)
    signature = types.void(
        size, size, pointer, size, size, pointer, size, places, size, size, size, pointer, size, size, size, pointer,
        size, size,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sizes = [(r, c) for r in ROWS for c in COLUMNS]
        switch(builder, args[0], args[1], sizes, lambda r, c: _emit_window(builder, dtype, r, c, args[2:]))
        return context.get_dummy_value()

    return signature, codegen


def _emit_window(builder: Any, dtype: Any, rows: int, columns: int, args: Any) -> None:
    w, w_k, w_turn, x, step, table, table_turn, turns, k, c, c_row, c_step, epilogue, aux, aux_row, aux_step = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    zero = ir.Constant(vector, None)
    steps = [builder.mul(step, constant(j)) for j in range(columns)]

    def one(values: list[Any]) -> list[Any]:
        w_at, place, *sums = values
        source = builder.gep(x, [builder.load(place)])
        pixels = [simd._load(builder, vector, source, at) for at in steps]
        for r in range(rows):
            weight = simd._splat(builder, builder.load(builder.gep(w_at, [constant(r)])), vector)
            for j in range(columns):
                sums[r * columns + j] = multiply_add(weight, pixels[j], sums[r * columns + j])
        return [builder.gep(w_at, [w_k]), builder.gep(place, [constant(1)]), *sums]

    def turn(values: list[Any]) -> list[Any]:
        w_at, place, *sums = values
        after = loop(builder, k, [w_at, place, *sums], one)
        return [builder.gep(w_at, [w_turn]), builder.gep(place, [table_turn]), *after[2:]]

    sums = loop(builder, turns, [w, table, *[zero] * (rows * columns)], turn)[2:]
    cells = [(r, j) for r in range(rows) for j in range(columns)]
    at = [builder.add(builder.mul(c_row, constant(r)), builder.mul(c_step, constant(j))) for r, j in cells]
    names = ("plain", "biased", "slope", "stored")
    plain, biased, slope, end = (builder.append_basic_block(name) for name in names)
    stores = builder.switch(epilogue, plain)
    for code, block in ((ADD_BIAS, biased), (ADD_BIAS_RELU, biased), (RELU_SLOPE, slope)):
        stores.add_case(constant(code), block)

    builder.position_at_end(plain)
    for place, value in zip(at, sums, strict=True):
        simd._store(builder, value, c, place)
    builder.branch(end)

    builder.position_at_end(biased)
    floor = simd._floor(builder, vector, epilogue)
    biases = [simd._splat(builder, builder.load(builder.gep(aux, [constant(r)])), vector) for r in range(rows)]
    for (r, _), place, value in zip(cells, at, sums, strict=True):
        simd._store(builder, simd._at_least(builder, builder.fadd(value, biases[r]), floor), c, place)
    builder.branch(end)

    builder.position_at_end(slope)
    for (r, j), place, value in zip(cells, at, sums, strict=True):
        there = builder.add(builder.mul(aux_row, constant(r)), builder.mul(aux_step, constant(j)))
        output = simd._load(builder, vector, aux, there)
        simd._store(builder, simd._where_positive(builder, output, value), c, place)
    builder.branch(end)
    builder.position_at_end(end)


@intrinsic
def gradient_tile(
    typingctx, rows, columns, delta, delta_row, delta_y, delta_x, x, table, x_y, x_x, height, width, c, c_k, accumulate
):
    """c[columns, rows] = (c or 0) + Σ over pixels and lanes of delta[row] · x[column]: a weight gradient.

    rows (of GRADIENT_ROWS) are channels, at delta + row·delta_row; columns (of GRADIENT_COLUMNS) places in the kernel,
    at x + table[column]; with 0 columns x is one everywhere. A pixel further is delta_x and x_x elements further, a
    line delta_y and x_y. c is numbers, column j's rows contiguous at c + j·c_k.
    """
    dtype = delta.dtype
    pointer, size, places = types.CPointer(dtype), types.intp, types.CPointer(types.int64)
    signature = types.void(
        size, size, pointer, size, size, size, pointer, places, size, size, size, size, pointer, size, types.boolean,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sizes = [(r, c) for r in GRADIENT_ROWS for c in GRADIENT_COLUMNS]
        switch(builder, args[0], args[1], sizes, lambda r, c: _emit_gradient(builder, dtype, r, c, args[2:]))
        return context.get_dummy_value()

    return signature, codegen


def _emit_gradient(builder: Any, dtype: Any, rows: int, columns: int, args: Any) -> None:
    delta, delta_row, delta_y, delta_x, x, table, x_y, x_x, height, width, c, c_k, accumulate = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    deltas = [builder.mul(delta_row, constant(r)) for r in range(rows)]
    places = [builder.load(builder.gep(table, [constant(j)])) for j in range(columns)]

    def pixel(values: list[Any]) -> list[Any]:
        delta_at, x_at, *sums = values
        inputs = [simd._load(builder, vector, x_at, at) for at in places]
        for r, at in enumerate(deltas):  # a slope at a time: 12 sums, 3 inputs and it are 16 registers
            slope = simd._load(builder, vector, delta_at, at)
            if columns == 0:
                sums[r] = builder.fadd(slope, sums[r])
            for j, value in enumerate(inputs):
                sums[j * rows + r] = multiply_add(slope, value, sums[j * rows + r])
        return [builder.gep(delta_at, [delta_x]), builder.gep(x_at, [x_x]), *sums]

    def line(values: list[Any]) -> list[Any]:
        delta_at, x_at, *sums = values
        after = loop(builder, width, [delta_at, x_at, *sums], pixel)
        return [builder.gep(delta_at, [delta_y]), builder.gep(x_at, [x_y]), *after[2:]]

    zero = ir.Constant(vector, None)
    sums = loop(builder, height, [delta, x, *[zero] * (rows * max(columns, 1))], line)[2:]
    pieces = _pieces(builder, _lane_sums(builder, sums), rows, len(sums))
    yes, no = builder.append_basic_block("add"), builder.append_basic_block("set")
    end = builder.append_basic_block("summed")
    builder.cbranch(accumulate, yes, no)
    for block, adds in ((yes, True), (no, False)):
        builder.position_at_end(block)
        for i, piece in pieces:
            at = builder.gep(c, [builder.add(builder.mul(c_k, constant(i // rows)), constant(i % rows))])
            if adds:
                piece = builder.fadd(simd._load(builder, piece.type, at), piece)
            simd._store(builder, piece, at)
        builder.branch(end)
    builder.position_at_end(end)


def _pieces(builder: Any, totals: list[Any], rows: int, count: int) -> list[tuple[int, Any]]:
    """(index of its first sum, a short vector of sums) for `count` sums, each vector within a column's `rows`."""
    lanes = totals[0].type.count
    size = min(rows, lanes)  # both are powers of two
    pieces = []
    for first in range(0, count, size):
        picked = [_lane_of(i % lanes, lanes) for i in range(first, first + size)]
        total = totals[first // lanes]
        mask = ir.Constant(ir.VectorType(simd._I32, size), picked)
        pieces.append((first, builder.shuffle_vector(total, total, mask)))
    return pieces


def _lane_sums(builder: Any, vectors: list[Any]) -> list[Any]:
    """The sum of each vector's lanes: of vector i in lane _lane_of(i % lanes) of the result i // lanes.

    Two vectors are folded into one that holds the halves' sums of both, until a vector holds a sum a lane: 3 operations
    a vector, where summing each by itself takes 8.
    """
    lanes = vectors[0].type.count
    totals: list[Any] = []
    for first in range(0, len(vectors), lanes):
        group = vectors[first : first + lanes]
        full = group + [ir.Constant(group[0].type, None)] * (lanes - len(group))
        span = lanes  # lanes that still belong to one vector's sum
        while span > 1:
            half = span // 2
            low = [q for base in range(0, lanes, span) for q in range(base, base + half)]
            high = [q + half for q in low]
            count = len(full) // 2
            pairs = zip(full[:count], full[count:], strict=True)
            full = [builder.fadd(_pick(builder, a, b, low), _pick(builder, a, b, high)) for a, b in pairs]
            span = half
        totals.append(full[0])
    return totals


def _pick(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """The given lanes of a, then those of b."""
    count = a.type.count
    mask = ir.Constant(ir.VectorType(simd._I32, count), [*lanes, *(q + count for q in lanes)])
    return builder.shuffle_vector(a, b, mask)


def _lane_of(index: int, lanes: int) -> int:
    """The lane in which `_lane_sums` leaves the sum of vector `index`."""
    lane, weight = 0, 1
    bit = lanes // 2
    while bit:
        lane += weight * bool(index & bit)
        weight, bit = weight * 2, bit // 2
    return lane
