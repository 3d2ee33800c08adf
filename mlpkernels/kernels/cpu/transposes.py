"""Squares of numbers transposed in registers, as LLVM IR."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant


def transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """As many vectors as they have lanes, transposed.

    First squares within each 16 bytes, then these as a whole: x86 does both in one operation a step, where interleaving
    whole vectors takes a table of places and a copy.
    """
    n, size = len(rows), rows[0].type.element.get_abi_size(simd._target_data())
    each = min(n, 16 // size)  # elements of 16 bytes

    def pick(x: Any, y: Any, blocks: list[tuple[int, int]], count: int) -> Any:
        """count elements of each block: (0, start) of x, (1, start) of y."""
        places = [which * n + start + i for which, start in blocks for i in range(count)]
        return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(simd._I32, n), places))

    def square(group: list[Any], count: int) -> list[Any]:
        """Each 16 bytes of a few rows transposed, in blocks of count elements."""
        if len(group) == 1:
            return group
        made = []
        for x, y in zip(group[::2], group[1::2], strict=True):
            for half in (0, each // 2):
                starts = range(half, half + each // 2, count)
                blocks = [(q, lane + i) for lane in range(0, n, each) for i in starts for q in (0, 1)]
                made.append(pick(x, y, blocks, count))
        return [row for first in (0, 1) for row in square(made[first::2], 2 * count)]

    def lanes(group: list[Any]) -> list[Any]:
        """The 16 bytes of a few rows transposed."""
        if len(group) == 1:
            return group
        halves = [
            [pick(x, y, [(q, lane) for q in (0, 1) for lane in range(odd, n, 2 * each)], each) for x, y in pairs]
            for odd in (0, each)
            for pairs in [zip(group[::2], group[1::2], strict=True)]
        ]
        return [row for both in zip(lanes(halves[0]), lanes(halves[1]), strict=True) for row in both]

    squares = [square(rows[i : i + each], 1) for i in range(0, n, each)]
    columns = [lanes([group[c] for group in squares]) for c in range(each)]
    return [columns[c][lane] for lane in range(n // each) for c in range(each)]


@intrinsic
def transpose_block(typingctx, source, source_row, target, target_row):
    """target[i, j] = source[j, i] for a square of `lanes` elements, in registers."""
    dtype, size = source.dtype, types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = simd._vector(dtype)
        rows = [simd._load(builder, vector, place) for place in _rows(builder, args[0], args[1], vector.count)]
        _store_transposed(builder, rows, *args[2:])
        return context.get_dummy_value()

    return types.void(source, size, source, size), codegen


@intrinsic
def transpose_few(typingctx, source, source_row, rows, columns, target, target_row):
    """`transpose_block` of a source of which only so many rows and columns are there: what is not counts as 0."""
    dtype, size = source.dtype, types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, source_row, rows, columns, target, target_row = args
        vector, held = simd._vector(dtype), []
        for i, place in enumerate(_rows(builder, source, source_row, vector.count)):
            there = builder.icmp_signed("<", constant(i), rows)
            mask = simd._mask(builder, vector, builder.select(there, columns, constant(0)))
            held.append(simd._masked_load(builder, dtype, place, mask))
        _store_transposed(builder, held, target, target_row)
        return context.get_dummy_value()

    return types.void(source, size, size, size, source, size), codegen


def _rows(builder: Any, start: Any, stride: Any, count: int) -> list[Any]:
    """Where so many rows begin."""
    return [builder.gep(start, [builder.mul(stride, constant(i))]) for i in range(count)]


def _store_transposed(builder: Any, rows: list[Any], target: Any, target_row: Any) -> None:
    places = _rows(builder, target, target_row, len(rows))
    for row, place in zip(transposed(builder, rows), places, strict=True):
        simd._store(builder, row, place)
