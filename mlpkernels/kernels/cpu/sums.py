"""Sums of a batch's rows, which are the gradient of biases."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch
from .jit import jit
from .simd import advance, lanes, pointer_to

# Vectors of columns summed side by side: an addition waits four cycles for the one before, and two begin in each.
_WIDTHS = (8, 4, 2, 1)


@intrinsic
def _sum_rows(typingctx, vectors, few, source, stride, rows, out):
    """out[vectors · lanes] = Σ of rows at source, the first to the last, from 0; vectors one of _WIDTHS.

    few > 0: of one vector only so many columns are there.
    """
    dtype, size = source.dtype, types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, few, source, stride, rows, out = args
        vector = simd._vector(dtype)

        def emit(masked: int, count: int) -> None:
            places = [constant(j * vector.count) for j in range(count)]
            mask = simd._mask(builder, vector, few)

            def load(at: Any, place: Any) -> Any:
                return simd._masked_load(builder, dtype, at, mask) if masked else simd._load(builder, vector, at, place)

            def row(values: list[Any]) -> list[Any]:
                at, *sums = values
                added = [builder.fadd(total, load(at, place)) for total, place in zip(sums, places, strict=True)]
                return [builder.gep(at, [stride]), *added]

            sums = loop(builder, rows, [source, *[ir.Constant(vector, None)] * count], row)[1:]
            for total, place in zip(sums, places, strict=True):
                if masked:
                    simd._masked_store(builder, total, out, mask)
                else:
                    simd._store(builder, total, out, place)

        masked = builder.zext(builder.icmp_signed(">", few, constant(0)), few.type)
        switch(builder, masked, vectors, [*((0, count) for count in _WIDTHS), (1, 1)], emit)
        return context.get_dummy_value()

    return types.void(size, size, source, size, size, source), codegen


@jit
def column_sums(deltas, at, stride, rows, out):
    """out (n,) = Σ over `rows` rows at deltas[at + i·stride :], in order from 0."""
    vector, columns = lanes(deltas), out.shape[0]
    source, target, j = pointer_to(deltas, at), pointer_to(out, 0), 0
    while j < columns:
        left = (columns - j) // vector
        vectors = 8 if left >= 8 else 4 if left >= 4 else 2 if left >= 2 else 1
        few = columns - j if left == 0 else 0
        _sum_rows(vectors, few, advance(source, j), stride, rows, advance(target, j))
        j += vectors * vector
