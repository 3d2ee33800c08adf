"""Sums of a batch's rows, which are the gradient of biases."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch
from .jit import inner
from .simd import advance, lanes, pointer_to

# Vectors of columns summed side by side: an addition waits four cycles for the one before, and two begin in each.
_WIDTHS = (8, 4, 2, 1)


@intrinsic
def _sum_rows(typingctx, vectors, few, source, stride, rows, out, descends, rate):
    """out[vectors · lanes] = Σ of rows at source, the first to the last, from 0; vectors one of _WIDTHS.

    few > 0: of one vector only so many columns are there. descends: out loses rate times the sums, instead.
    """
    dtype, size = source.dtype, types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, few, source, stride, rows, out, descends, rate = args
        vector = simd._vector(dtype)

        def emit(masked: int, count: int) -> None:
            places = [constant(j * vector.count) for j in range(count)]
            mask = simd._mask(builder, vector, few)

            def load(at: Any, place: Any) -> Any:
                return simd._masked_load(builder, dtype, at, mask) if masked else simd._load(builder, vector, at, place)

            def store(values: list[Any]) -> None:
                for value, place in zip(values, places, strict=True):
                    if masked:
                        simd._masked_store(builder, value, out, mask)
                    else:
                        simd._store(builder, value, out, place)

            def row(values: list[Any]) -> list[Any]:
                at, *sums = values
                added = [builder.fadd(total, load(at, place)) for total, place in zip(sums, places, strict=True)]
                return [builder.gep(at, [stride]), *added]

            sums = loop(builder, rows, [source, *[ir.Constant(vector, None)] * count], row)[1:]
            step = simd._splat(builder, rate, vector)
            with builder.if_else(descends) as (then, otherwise):
                with then:
                    lost = [builder.fmul(step, total) for total in sums]
                    store([builder.fsub(load(out, place), less) for less, place in zip(lost, places, strict=True)])
                with otherwise:
                    store(sums)

        masked = builder.zext(builder.icmp_signed(">", few, constant(0)), few.type)
        switch(builder, masked, vectors, [*((0, count) for count in _WIDTHS), (1, 1)], emit)
        return context.get_dummy_value()

    return types.void(size, size, source, size, size, source, types.boolean, dtype), codegen


@inner
def column_sums(deltas, at, stride, rows, out):
    """out (n,) = Σ over `rows` rows at deltas[at + i·stride :], in order from 0."""
    take_columns(deltas, at, stride, rows, out, False, 0.0)


@inner
def take_columns(deltas, at, stride, rows, out, descends, rate):
    """`column_sums`; where it descends, out loses rate times the sums instead."""
    vector, columns = lanes(deltas), out.shape[0]
    source, target, j = pointer_to(deltas, at), pointer_to(out, 0), 0
    while j < columns:
        left = (columns - j) // vector
        vectors = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        few = columns - j if left == 0 else 0
        begin, end = advance(source, j), advance(target, j)
        _sum_rows(vectors, few, begin, stride, rows, end, descends, deltas.dtype.type(rate))
        j += vectors * vector
