"""Micro-kernels for gradients that only the largest pixels of a pool's windows have: see peaks.py.

Between tiles, what lies sample by lane is turned into runs of numbers of one sample, by a table of offsets, and back.
Such a list holds values that are not zero and, beside them, integer offsets of the values' own width.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch
from .lane_marks import integers_of
from .simd import REGISTERS, RELU_SLOPE, VECTOR_BYTES
from .transposes import transposed

ADD = 100  # beside simd's STORE and RELU_SLOPE: to what is there
MOST_ROWS, MOST_COLUMNS = 6, 6
MOST = 25 if REGISTERS == 32 else 12  # vectors of a tile: its sums, and one broadcast
_CHAINS = 8  # sums that are to be under way: each addition waits four cycles for the one before


def evenly(n: int, most: int) -> int:
    """The size of parts, the last perhaps smaller, where n is cut into as few as can be of at most `most`."""
    parts = -(-n // most)
    return -(-n // parts)


def _lane_numbers(kind: ir.VectorType) -> Any:
    return ir.Constant(kind, list(range(kind.count)))


# ---- between lanes and runs


@intrinsic
def to_runs(typingctx, source, table, target, target_row):
    """target[i, j] = lane i of the vector at source + table[j], i and j below the number of lanes."""
    dtype = source.dtype
    pointer, size = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, table, target, target_row = args
        vector = simd._vector(dtype)
        places = [builder.load(builder.gep(table, [constant(j)])) for j in range(vector.count)]
        rows = transposed(builder, [simd._load(builder, vector, source, place) for place in places])
        for i, row in enumerate(rows):
            simd._store(builder, row, target, builder.mul(target_row, constant(i)))
        return context.get_dummy_value()

    return types.void(pointer, types.CPointer(types.int64), pointer, size), codegen


@intrinsic
def from_runs(typingctx, source, source_row, target, table, spare, how, aux, aux_table):
    """The reverse: the vector of source[:, j] goes to target + table[j], or where that is negative to spare.

    how: STORE, ADD to what is there, or RELU_SLOPE, which keeps what is above zero in aux + aux_table[j].
    """
    dtype = source.dtype
    pointer, size, places = types.CPointer(dtype), types.intp, types.CPointer(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_row, target, table, spare, how, aux, aux_table = args
        vector = simd._vector(dtype)

        def place(base: Any, offsets: Any, j: int) -> Any:
            offset = builder.load(builder.gep(offsets, [constant(j)]))
            within = builder.icmp_signed(">=", builder.load(builder.gep(table, [constant(j)])), constant(0))
            return builder.select(within, builder.gep(base, [offset]), spare)

        rows = [builder.mul(source_row, constant(i)) for i in range(vector.count)]
        turned = transposed(builder, [simd._load(builder, vector, source, row) for row in rows])
        plain, added, slope, end = (builder.append_basic_block(n) for n in ("plain", "added", "slope", "stored"))
        stores = builder.switch(how, plain)
        stores.add_case(constant(ADD), added)
        stores.add_case(constant(RELU_SLOPE), slope)
        for block in (plain, added, slope):
            builder.position_at_end(block)
            for j, value in enumerate(turned):
                at = place(target, table, j)
                if block is added:
                    value = builder.fadd(simd._load(builder, vector, at), value)
                elif block is slope:
                    output = simd._load(builder, vector, place(aux, aux_table, j))
                    value = simd._where_positive(builder, output, value)
                simd._store(builder, value, at)
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(pointer, size, pointer, places, pointer, size, pointer, places), codegen


# ---- lists


@intrinsic
def window_line(
    typingctx, count, delta, delta_step, places, out, slope, lit, lit_step, wide, values, offsets, base, base_step,
    y_step, x_step, lane_step, total,
):  # fmt: skip
    """What a line of count pool windows passes back: vectors of values, and of offsets of the pixels they go to.

    What comes is delta, where out > 0 or without slope, else 0, and its sum is added to the vector at total; values are
    what comes in the lanes that lit has, an integer a window. places are those in the window, y · wide + x; the offset
    of lane l's in window i is base + i·base_step + y·y_step + x·x_step + l·lane_step.
    """
    dtype = delta.dtype
    pointer, size = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, delta, delta_step, places, out, slope, lit, lit_step, wide, values, offsets, *steps, total = args
        vector, integers = simd._vector(dtype), integers_of(dtype)

        def splat(number: Any) -> Any:
            narrow = number if dtype.bitwidth == 64 else builder.trunc(number, integers.element)
            return simd._splat(builder, narrow, integers)

        base, base_step, y_step, x_step, lane_step = (splat(number) for number in steps)
        per_line = simd._splat(builder, builder.sitofp(wide, vector.element), vector)
        inverse = builder.fdiv(ir.Constant(vector, [1.0] * vector.count), per_line)
        half = ir.Constant(vector, [0.5] * vector.count)
        # y·y_step + (place - y·wide)·x_step, since a place is y·wide + x
        y_step = builder.sub(y_step, builder.mul(splat(wide), x_step))
        start = builder.add(base, builder.mul(_lane_numbers(integers), lane_step))
        lanes = constant(vector.count)

        def window(values_: list[Any]) -> list[Any]:
            delta_at, lit_at, places_at, out_at, values_at, offsets_at, begin, sum_ = values_
            value, place = simd._load(builder, vector, delta_at), simd._load(builder, vector, places_at)
            masked = simd._where_positive(builder, simd._load(builder, vector, out_at), value)
            came = builder.select(slope, masked, value)
            bits = builder.trunc(builder.load(lit_at), ir.IntType(vector.count))
            seen = builder.bitcast(bits, ir.VectorType(ir.IntType(1), vector.count))
            value = builder.select(seen, came, ir.Constant(vector, None))
            y = builder.fptosi(builder.fmul(builder.fadd(place, half), inverse), integers)
            x = builder.mul(builder.fptosi(place, integers), x_step)
            offset = builder.add(builder.add(begin, x), builder.mul(y, y_step))
            simd._store(builder, value, values_at)
            simd._store(builder, builder.bitcast(offset, vector), offsets_at)
            moved = [builder.gep(at, [lanes]) for at in (places_at, out_at, values_at, offsets_at)]
            return [
                builder.gep(delta_at, [delta_step]), builder.gep(lit_at, [lit_step]), *moved,
                builder.add(begin, base_step), builder.fadd(sum_, came),
            ]  # fmt: skip

        held = simd._load(builder, vector, total)
        lit = builder.bitcast(lit, integers.element.as_pointer())
        first = [delta, lit, places, out, values, offsets, start, held]
        simd._store(builder, loop(builder, count, first, window)[-1], total)
        return context.get_dummy_value()

    kinds = [size, pointer, size, pointer, pointer, types.boolean, pointer, *[size] * 2, *[pointer] * 2, *[size] * 5]
    kinds.append(pointer)
    return types.void(*kinds), codegen


@intrinsic
def squeeze(typingctx, values, offsets, to_values, to_offsets):
    """Copy a vector of values and their offsets without those whose value is 0; how many are left.

    What lies behind them within a vector is overwritten, too.
    """
    dtype = values.dtype

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        values, offsets, to_values, to_offsets = args
        vector, integers = simd._vector(dtype), integers_of(dtype)
        value = simd._load(builder, vector, values)
        mask = builder.fcmp_unordered("!=", value, ir.Constant(vector, None))
        bits = builder.zext(builder.bitcast(mask, ir.IntType(vector.count)), simd._I64)
        compressed = _compress(builder, integers, mask, bits)
        for source, target in ((values, to_values), (offsets, to_offsets)):
            simd._store(builder, compressed(simd._load(builder, integers, source)), target)
        return builder.ctpop(bits)

    return types.intp(*[types.CPointer(dtype)] * 4), codegen


def _compress(builder: Any, kind: ir.VectorType, mask: Any, bits: Any) -> Callable[[Any], Any]:
    """A function that emits a vector of integers with the elements of those lanes first that mask has.

    bits: the mask as an integer. AVX-512 has an instruction for it. Elsewhere LLVM writes one element after the other
    to the stack and reads them as a vector; with AVX2 and NEON a table knows for each mask in which order a shuffle
    takes the parts.
    """
    arm = REGISTERS == 32 and VECTOR_BYTES == 16
    if not arm and VECTOR_BYTES != 32:
        # Of integers: of floats, LLVM 22 knows it for AVX-512 alone.
        name = f"llvm.experimental.vector.compress.{simd._suffix(kind)}"
        compress = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind, mask.type, kind]), name)
        return lambda value: builder.call(compress, [value, mask, ir.Constant(kind, None)])
    count, part = (16, ir.IntType(8)) if arm else (8, simd._I32)
    order = builder.load(builder.gep(_orders(builder, kind.count, count), [constant(0), bits]))
    whole = ir.VectorType(part, count)
    shuffle = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(whole, [whole, whole]),
        "llvm.aarch64.neon.tbl1.v16i8" if arm else "llvm.x86.avx2.permd",
    )  # fmt: skip
    order = order if arm else builder.zext(order, whole)
    return lambda value: builder.bitcast(builder.call(shuffle, [builder.bitcast(value, whole), order]), kind)


def _orders(builder: Any, lanes: int, count: int) -> Any:
    """A table by masks of `lanes` bits: the numbers of a vector's `count` parts, those of the mask's lanes first."""
    name = f"orders.{lanes}.{count}"
    if name in builder.module.globals:
        return builder.module.globals[name]
    kind, each = ir.VectorType(ir.IntType(8), count), count // lanes
    rows = []
    for mask in range(1 << lanes):
        taken = [lane for lane in range(lanes) if mask >> lane & 1]
        taken += [0] * (lanes - len(taken))
        rows.append(ir.Constant(kind, [lane * each + i for lane in taken for i in range(each)]))
    return cgutils.global_constant(builder, name, ir.Constant(ir.ArrayType(kind, len(rows)), rows))


# ---- the sums


@intrinsic
def peak_tile(
    typingctx, rows, columns, lists, counts, values, offsets, list_step, source, pitch, target, target_row, target_step
):
    """For each of a few lists, target[rows, columns] += Σ over its entries of value · source[rows, columns].

    A source tile begins an entry's offset behind `source`, its rows are pitch apart, its columns are vectors. List i
    has counts[i] entries, a whole number, at i·list_step; its target is target + i·target_step, rows target_row apart.
    Strides in elements. rows up to MOST_ROWS, columns up to MOST_COLUMNS, both together up to MOST.
    """
    dtype = values.dtype
    pointer, size = types.CPointer(dtype), types.intp
    sizes = [(r, c) for r in range(1, MOST_ROWS + 1) for c in range(1, MOST_COLUMNS + 1) if r * c <= MOST]

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        switch(builder, args[0], args[1], sizes, lambda r, c: _emit_tile(builder, dtype, r, c, args[2:]))
        return context.get_dummy_value()

    kinds = [*[size] * 3, *[pointer] * 3, size, pointer, size, pointer, size, size]
    return types.void(*kinds), codegen


def _emit_tile(builder: Any, dtype: Any, rows: int, columns: int, args: Any) -> None:
    lists, counts, values, offsets, list_step, source, pitch, target, target_row, target_step = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    integer = ir.IntType(dtype.bitwidth)
    offsets = builder.bitcast(offsets, integer.as_pointer())
    cells = rows * columns
    source_rows = [builder.mul(pitch, constant(r)) for r in range(rows)]
    target_rows = [builder.mul(target_row, constant(r)) for r in range(rows)]
    turn = max(1, _CHAINS // cells)  # entries of a turn of the loop, each with sums of its own

    def entry(value_at: Any, offset_at: Any, number: int, sums: list[Any]) -> list[Any]:
        value = simd._splat(builder, builder.load(builder.gep(value_at, [constant(number)])), vector)
        offset = builder.load(builder.gep(offset_at, [constant(number)]))
        at = builder.gep(source, [builder.sext(offset, simd._I64) if integer.width < 64 else offset])
        made = []
        for r in range(rows):
            row = builder.gep(at, [source_rows[r]])
            for c in range(columns):
                part = simd._load(builder, vector, row, constant(c * vector.count))
                made.append(multiply_add(value, part, sums[r * columns + c]))
        return made

    def entries(step: int) -> Any:
        def body(held: list[Any]) -> list[Any]:
            value_at, offset_at, *sums = held
            made = [
                sum_ for u in range(step) for sum_ in entry(value_at, offset_at, u, sums[u * cells : (u + 1) * cells])
            ]
            moved = [builder.gep(at, [constant(step)]) for at in (value_at, offset_at)]
            return [*moved, *made, *sums[step * cells :]]

        return body

    def one_list(held: list[Any]) -> list[Any]:
        count_at, value_at, offset_at, target_at = held
        count = builder.fptosi(builder.load(count_at), simd._I64)
        state = [value_at, offset_at, *[ir.Constant(vector, None)] * (turn * cells)]
        state = loop(builder, builder.sdiv(count, constant(turn)), state, entries(turn))
        if turn > 1:
            state = loop(builder, builder.srem(count, constant(turn)), state, entries(1))
        sums = state[2:]
        for first in range(cells, turn * cells, cells):
            sums[:cells] = [builder.fadd(a, b) for a, b in zip(sums, sums[first:], strict=False)][:cells]
        for r in range(rows):
            row = builder.gep(target_at, [target_rows[r]])
            for c in range(columns):
                at = constant(c * vector.count)
                simd._store(builder, builder.fadd(simd._load(builder, vector, row, at), sums[r * columns + c]), row, at)
        return [
            builder.gep(count_at, [constant(1)]), builder.gep(value_at, [list_step]),
            builder.gep(offset_at, [list_step]), builder.gep(target_at, [target_step]),
        ]  # fmt: skip

    loop(builder, lists, [counts, values, offsets, target], one_list)
