"""Micro-kernels that skip zeros, as LLVM IR: what is not zero anywhere in a few rows or columns is found by its bit.

A sum takes its terms in increasing order, each a fused multiply-add, and leaves out some that are zero times a number:
it has the bits of the dense product, which adds nothing there. (Infinite weights would make NaN of those zeros.)
"""

from collections.abc import Callable
from functools import reduce
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch
from .simd import DESCEND, REGISTERS, VECTOR_BYTES

# A tile's sums fit the registers. Where there are 32, several samples or inputs share what is read of the weights or
# deltas, though some multiply by zero. Where there are 16, one alone over eight vectors takes half of the time of four
# over two: as many sums, all of them wanted, and what is lit is looked for once, not for each two vectors.
MOST_VECTORS = 8  # of a tile
TALL_VECTORS = 4 if REGISTERS == 32 else 2  # of one that takes more samples or inputs
TALL, THIN = (4, 2) if REGISTERS == 32 else (2, 1)  # samples of a forward tile of up to TALL_VECTORS, of a wider one
# Neighbouring inputs of a gradient's: where one is lit the others mostly are. With 32 registers a layer of 128 takes
# 0.91 of the time by pairs of inputs and all its vectors at once.
GROUP, FEWER = (4, 2) if REGISTERS == 32 else (2, 1)
SWEEP = 64  # samples at most that go through a block of inputs before the next
SWEPT = 16  # words of 64 inputs in a block, times a tile's vectors: 1,024 vectors of weights, about half of them lit

_I8, _I64 = ir.IntType(8), simd._I64


def _over_bits(builder: Any, word: Any, start: list[Any], body: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """values = body(i, values) for each bit i of a word, from the lowest."""
    flag = ir.IntType(1)
    lowest = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, [_I64, flag]), "llvm.cttz.i64")
    count = cgutils.get_or_insert_function(builder.module, ir.FunctionType(_I64, [_I64]), "llvm.ctpop.i64")

    def one(values: list[Any]) -> list[Any]:
        left, *rest = values
        rest = body(builder.call(lowest, [left, ir.Constant(flag, 1)]), rest)
        return [builder.and_(left, builder.sub(left, constant(1))), *rest]

    return loop(builder, builder.call(count, [word]), [word, *start], one)[1:]


def _value(builder: Any, vector: Any, scaled: Any, byte_at: Any) -> Any:
    """A byte as the network sees it, in every lane."""
    index = builder.zext(builder.load(byte_at), _I64)
    return simd._splat(builder, builder.load(builder.gep(scaled, [index])), vector)


def _next_bits(builder: Any, sources: list[Any], first: Any, end: Any, inputs: Any) -> Any:
    """Which of inputs first … first + 63 are lit in any row, of 64 inputs or more; 0 where first is not below end."""
    some, none = builder.append_basic_block("some"), builder.append_basic_block("none")
    here = builder.block
    builder.cbranch(builder.icmp_signed("<", first, end), some, none)
    builder.position_at_end(some)
    last = builder.sub(inputs, constant(64))  # where the last 64 begin: some of them may have been looked at before
    at = builder.select(builder.icmp_signed("<", first, last), first, last)
    lit = _nonzero(builder, [builder.gep(source, [at]) for source in sources], _I8, 64)
    lit = builder.lshr(lit, builder.sub(first, at))
    builder.branch(none)
    builder.position_at_end(none)
    bits = builder.phi(_I64)
    bits.add_incoming(constant(0), here)
    bits.add_incoming(lit, some)
    return bits


@intrinsic
def lit_rows(
    typingctx, tall, vectors, tiles, inputs, bytes_, places, ahead, lit, scaled, w, w_row, c, c_row, start, epilogue,
    bias,
):  # fmt: skip
    """c[tiles · tall, vectors] = epilogue(start + Σ over inputs p lit in any row of a tile of scaled[byte p] · w[p]).

    A tile is up to TALL_VECTORS vectors of TALL, 2 or 1 rows, or more, up to MOST_VECTORS, of THIN or 1. Row i's bytes,
    one an input, are at bytes_ + places[i]; scaled (256,) is what a byte is to the network; start[vectors] is where
    every sum begins. epilogue: ADD_BIAS or ADD_BIAS_RELU. lit has room for a number a tile: which of the first 64
    inputs are lit, which the caller tells where there are fewer.

    All tiles go through a block of inputs before the next, their sums wait in c: weights come from the level-2 cache
    once for all and not once a tile, and a layer of 128 takes 0.82 of the time. What is lit is found for all tiles at
    a block's beginning, and in it 64 inputs ahead.

    The bytes at bytes_ + ahead[i], of rows that come later, are asked for on the way, 64 of each row at a time: a core
    waits for few lines of memory at once. Where a batch's were asked for in one go, an epoch of batch 64 took a tenth
    longer.
    """
    dtype = w.dtype
    pointer, size, whole = types.CPointer(dtype), types.intp, types.CPointer(types.int64)
    kinds = types.void(
        size, size, size, size, types.CPointer(types.uint8), whole, whole, whole, pointer, pointer, size, pointer, size,
        pointer, size, pointer,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        tall, vectors, tiles, inputs, bytes_, places, ahead, lit, scaled, w, w_row, c, c_row, *others = args
        start, epilogue, bias = others
        vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
        words = builder.lshr(builder.add(inputs, constant(63)), constant(6))
        words = builder.select(builder.icmp_signed(">", words, constant(0)), words, constant(1))

        def emit(m: int, n: int) -> None:
            offsets = [constant(j * vector.count) for j in range(n)]
            # One tile alone has nobody to share weights with.
            alone = builder.icmp_signed("==", tiles, constant(1))
            most = builder.select(alone, words, constant(SWEPT // n))
            blocks = builder.udiv(builder.add(words, builder.sub(most, constant(1))), most)
            floor = simd._floor(builder, vector, epilogue)

            def rows_at(places: Any) -> list[Any]:
                return [builder.gep(bytes_, [builder.load(builder.gep(places, [constant(i)]))]) for i in range(m)]

            def block(values: list[Any]) -> list[Any]:
                (first,) = values
                left = builder.sub(words, builder.lshr(first, constant(6)))
                last = builder.icmp_signed("<=", left, most)
                count = builder.select(last, left, most)
                end = builder.add(first, builder.shl(count, constant(6)))
                begins = builder.icmp_signed("==", first, constant(0))

                def look(values: list[Any]) -> list[Any]:
                    place, target = values
                    builder.store(_next_bits(builder, rows_at(place), first, end, inputs), target)
                    return [builder.gep(place, [constant(m)]), builder.gep(target, [constant(1)])]

                with builder.if_then(builder.icmp_signed(">=", inputs, constant(64))):
                    loop(builder, tiles, [places, lit], look)

                def tile(values: list[Any]) -> list[Any]:
                    place, place_ahead, bits, top = values
                    sources, later = rows_at(place), rows_at(place_ahead)
                    rows = [builder.gep(top, [builder.mul(c_row, constant(i))]) for i in range(m)]

                    def word(values: list[Any]) -> list[Any]:
                        first, lit, *sums = values
                        behind = builder.add(first, constant(64))
                        for source in later:
                            simd.ask_for(builder, builder.gep(source, [first]))
                        following = _next_bits(builder, sources, behind, end, inputs)

                        def bit(i: Any, sums: list[Any]) -> list[Any]:
                            at = builder.add(first, i)
                            row = builder.gep(w, [builder.mul(at, w_row)])
                            values = [_value(builder, vector, scaled, builder.gep(source, [at])) for source in sources]
                            sums = list(sums)
                            for j, offset in enumerate(offsets):  # a vector of weights at a time: registers are scarce
                                weights = simd._load(builder, vector, row, offset)
                                for r, x in enumerate(values):
                                    sums[r * n + j] = multiply_add(x, weights, sums[r * n + j])
                            return sums

                        return [behind, following, *_over_bits(builder, lit, sums, bit)]

                    before = [builder.select(begins, start, row) for row in rows]
                    sums = [simd._load(builder, vector, row, offset) for row in before for offset in offsets]
                    sums = loop(builder, count, [first, builder.load(bits), *sums], word)[2:]
                    with builder.if_else(last) as (done, waits):
                        with waits:
                            for i, value in enumerate(sums):
                                simd._store(builder, value, rows[i // n], offsets[i % n])
                        with done:
                            for i, value in enumerate(sums):
                                value = builder.fadd(value, simd._load(builder, vector, bias, offsets[i % n]))
                                simd._store(
                                    builder, simd._at_least(builder, value, floor), rows[i // n], offsets[i % n]
                                )
                    return [
                        builder.gep(place, [constant(m)]),
                        builder.gep(place_ahead, [constant(m)]),
                        builder.gep(bits, [constant(1)]),
                        builder.gep(top, [builder.mul(c_row, constant(m))]),
                    ]

                loop(builder, tiles, [places, ahead, lit, c], tile)
                return [end]

            loop(builder, blocks, [constant(0)], block)

        widths = range(1, MOST_VECTORS + 1)
        sizes = [(m, n) for n in widths for m in sorted({TALL, 2, 1} if n <= TALL_VECTORS else {THIN, 1})]
        switch(builder, tall, vectors, sizes, emit)
        return context.get_dummy_value()

    return kinds, codegen


@intrinsic
def row_totals(typingctx, vectors, w, w_row, rows, factor, totals):
    """totals[vectors] = factor · Σ of w's rows, vectors up to MOST_VECTORS; nothing is read for a factor of 0."""
    dtype = w.dtype
    pointer, size = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, w, w_row, rows, factor, totals = args
        vector = simd._vector(dtype)
        zero = ir.Constant(vector, None)
        none = builder.fcmp_ordered("==", factor, ir.Constant(vector.element, 0.0))
        count = builder.select(none, constant(0), rows)

        def emit(_: int, n: int) -> None:
            offsets = [constant(j * vector.count) for j in range(n)]

            def one(values: list[Any]) -> list[Any]:
                row, *sums = values
                held = [simd._load(builder, vector, row, offset) for offset in offsets]
                return [builder.gep(row, [w_row]), *map(builder.fadd, sums, held)]

            sums = loop(builder, count, [w, *[zero] * n], one)[1:]
            scale = simd._splat(builder, factor, vector)
            for offset, value in zip(offsets, sums, strict=True):
                simd._store(builder, builder.fmul(value, scale), totals, offset)

        switch(builder, constant(1), vectors, [(1, n) for n in range(1, MOST_VECTORS + 1)], emit)
        return context.get_dummy_value()

    return types.void(size, pointer, size, size, dtype, pointer), codegen


@intrinsic
def lit_columns(
    typingctx, groups, columns, vectors, words, always, bytes_, places, column, scaled, delta, delta_row, c, c_row,
    adds, begins, epilogue, rate, claims, claimed,
):  # fmt: skip
    """c[groups · columns, vectors] = (c or begins) + Σ scaled[byte] · delta[i] over the bits i of a group's word.

    Of the first gradient. columns is GROUP or 1 for up to TALL_VECTORS vectors, FEWER or 1 for up to MOST_VECTORS.
    words[g] tells which rows are lit in group g, whose bytes are those at bytes_ + places[i] + column + g · columns;
    where none is and not `always`, c is left.
    adds: whether sums begin with what c holds, else with begins[vectors]. epilogue: STORE, or DESCEND, never with adds,
    which takes rate[0] times the sum from c. (By a call for each group a step of batch 8 took 1.05 times as long.)
    claims: whether to have the lines of a group at claimed, as far apart as c's, taken from other cores while its sum
    is made. These weights are written soon, and the others have read them: before first layers were divided, an epoch
    of batch 8 on two threads took 0.89 of the time, Adam's at 128 0.96.
    """
    dtype = delta.dtype
    pointer, size = types.CPointer(dtype), types.intp
    kinds = types.void(
        size, size, size, types.CPointer(types.int64), types.boolean, types.CPointer(types.uint8),
        types.CPointer(types.int64), size, pointer, pointer, size, pointer, size, types.boolean, pointer, size, pointer,
        types.boolean, pointer,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        groups, columns, vectors, words, always, bytes_, places, column, scaled, delta, delta_row, *others = args
        c, c_row, adds, begins, epilogue, rate, claims, claimed = others
        vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
        descends = builder.icmp_signed("==", epilogue, constant(DESCEND))
        step = simd._splat(builder, builder.load(rate), vector)
        start = builder.gep(bytes_, [column])

        def emit(m: int, n: int) -> None:
            offsets = [constant(j * vector.count) for j in range(n)]
            first_sums = [simd._load(builder, vector, begins, offset) for offset in offsets] * m

            def group(values: list[Any]) -> list[Any]:
                words, first, top, claim = values
                lit = builder.load(words)
                rows = [builder.gep(top, [builder.mul(c_row, constant(p))]) for p in range(m)]

                def bit(i: Any, sums: list[Any]) -> list[Any]:
                    source = builder.gep(first, [builder.load(builder.gep(places, [i]))])
                    row = builder.gep(delta, [builder.mul(i, delta_row)])
                    values = [_value(builder, vector, scaled, builder.gep(source, [constant(p)])) for p in range(m)]
                    sums = list(sums)
                    for j, offset in enumerate(offsets):
                        slopes = simd._load(builder, vector, row, offset)
                        for p, x in enumerate(values):
                            sums[p * n + j] = multiply_add(x, slopes, sums[p * n + j])
                    return sums

                with builder.if_then(builder.or_(always, builder.icmp_signed("!=", lit, constant(0)))):
                    with builder.if_then(claims):
                        for p in range(m):
                            row = builder.gep(claim, [builder.mul(c_row, constant(p))])
                            row = builder.bitcast(row, _I8.as_pointer())
                            for line in range(0, n * VECTOR_BYTES, 64):
                                simd.ask_for(builder, builder.gep(row, [constant(line)]), to_write=True)
                    before = builder.block
                    with builder.if_then(adds):  # c may be cold, and is not needed for a beginning
                        held = [simd._load(builder, vector, row, offset) for row in rows for offset in offsets]
                        add = builder.block
                    sums = []
                    for value, first_sum in zip(held, first_sums, strict=True):
                        sums.append(builder.phi(vector))
                        sums[-1].add_incoming(value, add)
                        sums[-1].add_incoming(first_sum, before)
                    sums = _over_bits(builder, lit, sums, bit)
                    with builder.if_else(descends) as (descent, plain):
                        with descent:
                            for i, value in enumerate(sums):
                                old = simd._load(builder, vector, rows[i // n], offsets[i % n])
                                less = builder.fsub(old, builder.fmul(step, value))
                                simd._store(builder, less, rows[i // n], offsets[i % n])
                        with plain:
                            for i, value in enumerate(sums):
                                simd._store(builder, value, rows[i // n], offsets[i % n])
                after = builder.mul(c_row, constant(m))
                return [
                    builder.gep(words, [constant(1)]),
                    builder.gep(first, [constant(m)]),
                    builder.gep(top, [after]),
                    builder.gep(claim, [after]),
                ]

            loop(builder, groups, [words, start, c, claimed], group)

        widths = range(1, MOST_VECTORS + 1)
        sizes = [(m, n) for n in widths for m in sorted({GROUP if n <= TALL_VECTORS else FEWER, 1})]
        switch(builder, columns, vectors, sizes, emit)
        return context.get_dummy_value()

    return kinds, codegen


def _nonzero(builder: Any, sources: list[Any], element: Any, count: int) -> Any:
    """Which of count integers are not zero at any of the sources, an integer of as many bits."""
    kind = ir.VectorType(element, count)
    loads = [builder.load(builder.bitcast(source, kind.as_pointer())) for source in sources]
    for load in loads:
        load.align = 1
    return builder.bitcast(
        builder.icmp_unsigned("!=", reduce(builder.or_, loads), ir.Constant(kind, None)), ir.IntType(count)
    )


@intrinsic
def lit_groups(typingctx, bytes_, places, count, first, without, group, marks, words):
    """words[g]: which of up to 64 rows' groups g of `group` bytes, GROUP or FEWER, are not all zero; all 64 / group.

    Row i's 64 bytes are at bytes_ + places[i] + first; the first `without` groups of them are left out. marks is room
    for 64 numbers.
    """
    whole = types.CPointer(types.int64)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bytes_, places, count, first, without, group, marks, words = args
        source = builder.gep(bytes_, [first])
        those = builder.lshr(constant(-1), builder.sub(constant(64), count))  # what is behind them was never written
        those = builder.select(builder.icmp_signed(">", count, constant(0)), those, constant(0))

        def emit(half: int, size: int) -> None:
            many, rows = 64 // size, 32 * half
            element, mark = ir.IntType(8 * size), ir.IntType(max(many, 32))  # a row's groups' bits
            shift = without if many == 64 else builder.trunc(without, mark)

            def row(values: list[Any]) -> list[Any]:
                place, target = values
                lit = _nonzero(builder, [builder.gep(source, [builder.load(place)])], element, many)
                lit = builder.zext(lit, mark) if many < 32 else lit
                builder.store(builder.lshr(lit, shift), target)
                return [builder.gep(place, [constant(1)]), builder.gep(target, [constant(1)])]

            loop(builder, count, [places, builder.bitcast(marks, mark.as_pointer())], row)
            kind = ir.VectorType(mark, rows)
            load = builder.load(builder.bitcast(marks, kind.as_pointer()))
            load.align = mark.width // 8
            for part in range(many // 8):  # eight groups' marks of all rows are a vector of bytes
                moved = builder.lshr(load, ir.Constant(kind, [8 * part] * rows))
                marked = builder.trunc(moved, ir.VectorType(_I8, rows))
                for g in range(8):
                    one = builder.and_(marked, ir.Constant(marked.type, [1 << g] * rows))
                    lit = builder.icmp_unsigned("!=", one, ir.Constant(marked.type, None))
                    lit = builder.bitcast(lit, ir.IntType(rows))
                    lit = lit if rows == 64 else builder.zext(lit, _I64)
                    builder.store(builder.and_(lit, those), builder.gep(words, [constant(8 * part + g)]))

        few = builder.icmp_signed("<=", count, constant(32))
        sizes = [(half, size) for half in (1, 2) for size in (GROUP, FEWER)]
        switch(builder, builder.select(few, constant(1), constant(2)), group, sizes, emit)
        return context.get_dummy_value()

    size = types.intp
    return types.void(types.CPointer(types.uint8), whole, size, size, size, size, whole, whole), codegen
