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
from .simd import DESCEND, REGISTERS

GROUP = 4  # neighbouring inputs that a gradient's tile takes together: where one is lit the others mostly are
# Vectors of a tile's row at most, forward and of the gradient: the sums and what they are made of fit the registers.
# 112 units in one tile of 7 vectors, three samples at once, take 0.73 of the time of tiles of 4, 2 and 1; 128 0.95.
WIDEST_ROW, WIDEST_COLUMN = (8, 4) if REGISTERS == 32 else (2, 2)
TALL, THIN = 4, 3  # samples of a forward tile of up to WIDEST_COLUMN vectors, and of a wider one

_I8, _I16, _I32, _I64 = ir.IntType(8), ir.IntType(16), simd._I32, simd._I64


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


def _next_bits(builder: Any, sources: list[Any], first: Any, inputs: Any) -> Any:
    """Which of inputs first … first + 63 are lit in any row, of 64 inputs or more; 0 where there are none."""
    some, none = builder.append_basic_block("some"), builder.append_basic_block("none")
    here = builder.block
    builder.cbranch(builder.icmp_signed("<", first, inputs), some, none)
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
    typingctx, rows, vectors, lit, inputs, bytes_, places, ahead, scaled, w, w_row, c, c_row, start, epilogue, bias
):  # fmt: skip
    """c[rows, vectors] = epilogue(start + Σ over the inputs p lit in any row of scaled[byte p of a row] · w[p]).

    Up to WIDEST_COLUMN vectors of TALL, 2 or 1 rows, more, up to WIDEST_ROW, of THIN or 1. Row i's `inputs` bytes are
    at bytes_ + places[i]; scaled (256,) is what a byte is to the network; start[vectors] is where every sum begins.
    `lit` are the bits of what is lit among the first 64 inputs: the next 64 are looked at while these are summed.
    epilogue: STORE, ADD_BIAS or ADD_BIAS_RELU. The bytes at bytes_ + ahead[i], of rows that come later, are asked for
    on the way, 64 of each row at a time: a core waits for few lines of memory at once. Where a batch's were asked for
    in one go, an epoch of batch 64 took a tenth longer.
    """
    dtype = w.dtype
    pointer, size, whole = types.CPointer(dtype), types.intp, types.CPointer(types.int64)
    kinds = types.void(
        size, size, types.int64, size, types.CPointer(types.uint8), whole, whole, pointer, pointer, size, pointer, size,
        pointer, size, pointer,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, vectors, lit, inputs, bytes_, places, ahead, scaled, w, w_row, c, c_row, start, epilogue, bias = args
        words = builder.lshr(builder.add(inputs, constant(63)), constant(6))
        vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)

        def emit(m: int, n: int) -> None:
            offsets = [constant(j * vector.count) for j in range(n)]
            sources, later = (
                [builder.gep(bytes_, [builder.load(builder.gep(at, [constant(i)]))]) for i in range(m)]
                for at in (places, ahead)
            )

            def word(values: list[Any]) -> list[Any]:
                number, lit, *sums = values
                first, number = builder.shl(number, constant(6)), builder.add(number, constant(1))
                for source in later:
                    simd.ask_for(builder, builder.gep(source, [first]))
                following = _next_bits(builder, sources, builder.add(first, constant(64)), inputs)

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

                return [number, following, *_over_bits(builder, lit, sums, bit)]

            begins = [simd._load(builder, vector, start, offset) for offset in offsets]
            sums = loop(builder, words, [constant(0), lit, *begins * m], word)[2:]
            floor = simd._floor(builder, vector, epilogue)
            plain = builder.icmp_signed("==", epilogue, constant(simd.STORE))
            for i, value in enumerate(sums):
                added = builder.fadd(value, simd._load(builder, vector, bias, offsets[i % n]))
                value = builder.select(plain, value, simd._at_least(builder, added, floor))
                simd._store(builder, value, builder.gep(c, [builder.mul(c_row, constant(i // n))]), offsets[i % n])

        widths = range(1, WIDEST_ROW + 1)
        sizes = [(m, n) for n in widths for m in ((TALL, 2, 1) if n <= WIDEST_COLUMN else (THIN, 1))]
        switch(builder, rows, vectors, sizes, emit)
        return context.get_dummy_value()

    return kinds, codegen


@intrinsic
def row_totals(typingctx, vectors, w, w_row, rows, factor, totals):
    """totals[vectors] = factor · Σ of w's rows, vectors up to WIDEST_ROW; nothing is read for a factor of 0."""
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

        switch(builder, constant(1), vectors, [(1, n) for n in range(1, WIDEST_ROW + 1)], emit)
        return context.get_dummy_value()

    return types.void(size, pointer, size, size, dtype, pointer), codegen


@intrinsic
def lit_columns(
    typingctx, groups, columns, vectors, words, always, bytes_, places, column, scaled, delta, delta_row, c, c_row,
    adds, begins, epilogue, rate,
):  # fmt: skip
    """c[groups · columns, vectors] = (c or begins) + Σ scaled[byte] · delta[i] over the bits i of a group's word.

    Of the first gradient. columns is GROUP or 1, vectors up to WIDEST_COLUMN. words[g] tells which rows are lit in
    group g, whose bytes are those at bytes_ + places[i] + column + g · columns; where none is and not `always`, c is
    left.
    adds: whether sums begin with what c holds, else with begins[vectors]. epilogue: STORE, or DESCEND, never with adds,
    which takes rate[0] times the sum from c. (By a call for each group a step of batch 8 took 1.05 times as long.)
    """
    dtype = delta.dtype
    pointer, size = types.CPointer(dtype), types.intp
    kinds = types.void(
        size, size, size, types.CPointer(types.int64), types.boolean, types.CPointer(types.uint8),
        types.CPointer(types.int64), size, pointer, pointer, size, pointer, size, types.boolean, pointer, size, pointer,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        groups, columns, vectors, words, always, bytes_, places, column, scaled, delta, delta_row, *others = args
        c, c_row, adds, begins, epilogue, rate = others
        vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
        descends = builder.icmp_signed("==", epilogue, constant(DESCEND))
        step = simd._splat(builder, builder.load(rate), vector)
        start = builder.gep(bytes_, [column])

        def emit(m: int, n: int) -> None:
            offsets = [constant(j * vector.count) for j in range(n)]
            first_sums = [simd._load(builder, vector, begins, offset) for offset in offsets] * m

            def group(values: list[Any]) -> list[Any]:
                words, first, top = values
                lit = builder.load(words)
                rows = [builder.gep(top, [builder.mul(c_row, constant(p))]) for p in range(m)]

                def bit(i: Any, sums: list[Any]) -> list[Any]:
                    source = builder.gep(first, [builder.load(builder.gep(places, [i]))])
                    row = builder.gep(delta, [builder.mul(i, delta_row)])
                    slopes = [simd._load(builder, vector, row, offset) for offset in offsets]
                    sums = list(sums)
                    for p in range(m):
                        x = _value(builder, vector, scaled, builder.gep(source, [constant(p)]))
                        for j in range(n):
                            sums[p * n + j] = multiply_add(x, slopes[j], sums[p * n + j])
                    return sums

                with builder.if_then(builder.or_(always, builder.icmp_signed("!=", lit, constant(0)))):
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
                return [
                    builder.gep(words, [constant(1)]),
                    builder.gep(first, [constant(m)]),
                    builder.gep(top, [builder.mul(c_row, constant(m))]),
                ]

            loop(builder, groups, [words, start, c], group)

        switch(builder, columns, vectors, [(m, n) for m in (GROUP, 1) for n in range(1, WIDEST_COLUMN + 1)], emit)
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
def lit_bits(typingctx, bytes_):
    """Which of the 64 bytes at bytes_ are not zero, bit by bit."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _nonzero(builder, [args[0]], _I8, 64)

    return types.int64(types.CPointer(types.uint8)), codegen


@intrinsic
def lit_groups(typingctx, bytes_, without, masks, i):
    """masks[i], a 16-bit number: which of 16 groups of 4 bytes at bytes_, without the first few, are not all zero."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, without, masks, i = args
        target = builder.gep(builder.bitcast(masks, _I16.as_pointer()), [i])
        lit = _nonzero(builder, [source], _I32, 16)
        builder.store(builder.lshr(lit, builder.trunc(without, _I16)), target)
        return context.get_dummy_value()

    return types.void(types.CPointer(types.uint8), types.intp, types.CPointer(types.int64), types.intp), codegen


@intrinsic
def turn_groups(typingctx, masks, count, words):
    """words[g], g < 16: which of the first `count`, up to 64, of 16-bit masks have bit g. There is room for all 64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        masks, count, words = args
        few = builder.icmp_signed("<=", count, constant(32))
        those = builder.lshr(constant(-1), builder.sub(constant(64), count))  # what is behind them was never written
        those = builder.select(builder.icmp_signed(">", count, constant(0)), those, constant(0))

        def emit(half: int, _: int) -> None:
            kind = ir.VectorType(_I16, 32 * half)
            load = builder.load(builder.bitcast(masks, kind.as_pointer()))
            load.align = 8
            for g in range(16):
                one = ir.Constant(kind, [1 << g] * kind.count)
                lit = builder.icmp_unsigned("!=", builder.and_(load, one), ir.Constant(kind, None))
                lit = builder.bitcast(lit, ir.IntType(kind.count))
                lit = builder.zext(lit, _I64) if half == 1 else lit
                builder.store(builder.and_(lit, those), builder.gep(words, [constant(g)]))

        switch(builder, builder.select(few, constant(1), constant(2)), constant(1), [(1, 1), (2, 1)], emit)
        return context.get_dummy_value()

    return types.void(types.CPointer(types.int64), types.intp, types.CPointer(types.int64)), codegen
