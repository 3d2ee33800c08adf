"""Marks: for each of a row of vectors an integer, as wide as an element, whose bits say in which lanes something holds.

They lie in arrays of the vectors' own type. Whether it holds anywhere in a window is their union, first along the
lines and then across them.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop
from .jit import ONE, inner
from .simd import pointer_to


def plane_of_marks(height: int, width: int, lanes: int) -> int:
    """Elements of a plane of marks: a vector more than there are, since whole ones are joined."""
    return -(-height * width // lanes) * lanes + lanes


def integers_of(dtype: Any) -> ir.VectorType:
    """The vector of integers as wide as the elements of dtype."""
    return ir.VectorType(ir.IntType(dtype.bitwidth), simd._vector(dtype).count)


@intrinsic
def mark_pixels(typingctx, count, source, channels, plane, line, size, target):
    """For each of count pixels, vectors of `channels` channels `plane` apart: three marks, a plane of `size` each.

    Which lanes have a channel that is not zero, one that differs from the next pixel's, and one that differs from the
    pixel's a line further. Bits are compared: -0 is not zero.
    """
    dtype = source.dtype
    pointer, number = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, source, channels, plane, line, size, target = args
        integers = integers_of(dtype)
        zero, next_pixel = ir.Constant(integers, None), constant(integers.count)

        def channel(values: list[Any]) -> list[Any]:
            at, *found = values
            here = simd._load(builder, integers, at)
            others = [zero, *(simd._load(builder, integers, at, apart) for apart in (next_pixel, line))]
            unlike = [builder.xor(here, other) for other in others]
            return [builder.gep(at, [plane]), *map(builder.or_, found, unlike)]

        def pixel(values: list[Any]) -> list[Any]:
            at, target_at = values
            for i, found in enumerate(loop(builder, channels, [at, zero, zero, zero], channel)[1:]):
                bits = builder.bitcast(builder.icmp_unsigned("!=", found, zero), ir.IntType(integers.count))
                place = builder.gep(target_at, [builder.mul(size, constant(i))])
                builder.store(builder.zext(bits, integers.element), place)
            return [builder.gep(at, [next_pixel]), builder.gep(target_at, [constant(1)])]

        loop(builder, count, [source, builder.bitcast(target, integers.element.as_pointer())], pixel)
        return context.get_dummy_value()

    return types.void(number, pointer, number, number, number, number, pointer), codegen


@intrinsic
def all_lanes(typingctx, target):
    """The mark of all lanes, to target."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = integers_of(target.dtype).element
        builder.store(ir.Constant(integer, -1), builder.bitcast(args[0], integer.as_pointer()))
        return context.get_dummy_value()

    return types.void(target), codegen


@intrinsic
def _join(typingctx, count, source, step, many, target):
    """target[i] = the union of `many` marks at source[i], source[i + step] …, for count marks and a vector's rest."""
    dtype = source.dtype
    pointer, size = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, source, step, many, target = args
        integers = integers_of(dtype)
        lanes = constant(integers.count)

        def mark(values: list[Any]) -> list[Any]:
            at, joined = values
            return [builder.gep(at, [step]), builder.or_(joined, simd._load(builder, integers, at))]

        def each(values: list[Any]) -> list[Any]:
            source_at, target_at = values
            joined = loop(builder, many, [source_at, ir.Constant(integers, None)], mark)[1]
            simd._store(builder, joined, target_at)
            return [builder.gep(at, [lanes]) for at in values]

        up = builder.add(count, constant(integers.count - 1))
        loop(builder, builder.udiv(up, lanes), [source, target], each)
        return context.get_dummy_value()

    return types.void(size, pointer, size, size, pointer), codegen


@intrinsic
def is_full(typingctx, mark):
    """Whether a mark has all lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count = integers_of(mark.dtype).count
        bits = builder.load(builder.bitcast(args[0], ir.IntType(count).as_pointer()))
        return builder.icmp_unsigned("==", bits, ir.Constant(bits.type, -1))

    return types.boolean(mark), codegen


@intrinsic
def repeat_unmarked(typingctx, count, values, lit, dark, beside, above, over):
    """Of count vectors, in order, replace lanes without a mark: by vector i - 1's where beside[i - 1] has none, else by
    the number at dark where lit[i] has none, else by above[i]'s where over[i] has none.
    """
    dtype = values.dtype
    pointer = types.CPointer(dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, values, lit, dark, beside, above, over = args
        vector, integer = simd._vector(dtype), integers_of(dtype).element
        ground = simd._splat(builder, builder.load(dark), vector)

        def chosen(mark_at: Any, marked: Any, other: Any) -> Any:
            bits = builder.trunc(builder.load(mark_at), ir.IntType(vector.count))
            return builder.select(builder.bitcast(bits, ir.VectorType(ir.IntType(1), vector.count)), marked, other)

        def first(held: list[Any], before: Any = None) -> list[Any]:
            at, above_at, lit_at, over_at, beside_at, *_ = held
            value = chosen(over_at, simd._load(builder, vector, at), simd._load(builder, vector, above_at))
            value = chosen(lit_at, value, ground)
            if before is not None:
                value, beside_at = chosen(beside_at, value, before), builder.gep(beside_at, [constant(1)])
            simd._store(builder, value, at)
            at, above_at = (builder.gep(place, [constant(vector.count)]) for place in (at, above_at))
            lit_at, over_at = (builder.gep(place, [constant(1)]) for place in (lit_at, over_at))
            return [at, above_at, lit_at, over_at, beside_at, value]

        marks = [builder.bitcast(place, integer.as_pointer()) for place in (lit, over, beside)]
        loop(
            builder, builder.sub(count, constant(1)), first([values, above, *marks]), lambda held: first(held, held[-1])
        )
        return context.get_dummy_value()

    return types.void(types.intp, *[pointer] * 6), codegen


@inner
def mark_windows(images, marks, size, height, width, high, wide):
    """Unions over windows of high x wide marks, in two planes of `size` behind theirs; where the second of them begins.

    The window at line y, column x has its union at y · width + x there; what stands for one that does not fit means
    nothing.
    """
    across, down = marks + size, marks + 2 * size
    _join(height * width, pointer_to(images, marks), ONE, wide, pointer_to(images, across))
    fitting = (height - high + 1) * width
    _join(fitting, pointer_to(images, across), width, high, pointer_to(images, down))
    return down


@inner
def marked(images, marks, height, width, line):
    """Whether the marks of a window in every one of height lines, `line` apart, and width columns have all lanes."""
    for y in range(height):
        for x in range(width):
            if not is_full(pointer_to(images, marks + y * line + x)):
                return False
    return True
