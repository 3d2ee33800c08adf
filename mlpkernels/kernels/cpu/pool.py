"""Max-pooling of a chunk of samples, forward and backward: see layout.py for how images lie."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..plan import (
    ACTIVATION,
    CHANNELS,
    HEIGHT,
    KERNEL_H,
    KERNEL_W,
    OUT_HEIGHT,
    OUT_WIDTH,
    PADDING_H,
    PADDING_W,
    RELU,
    STRIDE_H,
    STRIDE_W,
    WIDTH,
)  # fmt: skip
from . import simd
from .blocks import constant, loop
from .jit import ZERO, inner
from .layout import (
    ARGMAX,
    DELTA_FIRST,
    DELTA_LINE,
    DELTA_PLANE,
    DELTA_STEP,
    FIELDS,
    FIRST,
    LINE,
    PLANE,
    taken,
)  # fmt: skip
from .simd import lanes, pointer_to


def _index(builder: Any, dtype: Any, number: Any) -> Any:
    """A place in the window as a vector of the image's own type, which holds such small integers exactly."""
    vector = simd._vector(dtype)
    return simd._splat(builder, builder.sitofp(number, vector.element), vector)


def _is_square(builder: Any, high: Any, wide: Any) -> Any:
    """Whether a window is the common one, 2 x 2."""
    return builder.and_(builder.icmp_signed("==", high, constant(2)), builder.icmp_signed("==", wide, constant(2)))


def _over_square(builder: Any, high: Any, wide: Any, start: list[Any], body: Any, after: int = 0) -> list[Any]:
    """values = body(y, x, values) over a window of 2 x 2, straight, but its first `after` places."""
    values = start
    for place in range(after, 4):
        values = body(constant(place // 2), constant(place % 2), values)
    return values


def _over_any(builder: Any, high: Any, wide: Any, start: list[Any], body: Any, after: int = 0) -> list[Any]:
    """The same over any window, all of it."""
    one = constant(1)

    def line(values: list[Any]) -> list[Any]:
        y, *rest = values

        def pixel(values: list[Any]) -> list[Any]:
            x, *rest = values
            return [builder.add(x, one), *body(y, x, rest)]

        return [builder.add(y, one), *loop(builder, wide, [constant(0), *rest], pixel)[1:]]

    return loop(builder, high, [constant(0), *start], line)[1:]


@intrinsic
def _largest(typingctx, count, source, step, line, high, wide, index, index_line, out, places):
    """The largest vector of each of count windows, lane by lane, to out and its place, index + y·index_line + x, to
    places; the windows begin `step` apart, the results lie side by side.

    The first of equal ones counts, and a NaN is larger than all, as in PyTorch.
    """
    dtype = source.dtype
    pointer, size = types.CPointer(dtype), types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        count, source, step, line, high, wide, index, index_line, out, places = args
        vector = simd._vector(dtype)

        def window(over: Any) -> Any:
            def body(values: list[Any]) -> list[Any]:
                source_at, out_at, places_at = values

                def pixel(y: Any, x: Any, values: list[Any]) -> list[Any]:
                    best, place = values
                    at = builder.add(builder.mul(y, line), builder.mul(x, constant(vector.count)))
                    value = simd._load(builder, vector, source_at, at)
                    nan = builder.fcmp_unordered("uno", value, value)
                    larger = builder.or_(builder.fcmp_ordered(">", value, best), nan)
                    number = builder.add(index, builder.add(builder.mul(y, index_line), x))
                    here = _index(builder, dtype, number)
                    return [builder.select(larger, value, best), builder.select(larger, here, place)]

                first = simd._load(builder, vector, source_at)
                best, place = over(builder, high, wide, [first, _index(builder, dtype, index)], pixel, after=1)
                simd._store(builder, best, out_at)
                simd._store(builder, place, places_at)
                moved = [builder.gep(at, [constant(vector.count)]) for at in (out_at, places_at)]
                return [builder.gep(source_at, [step]), *moved]

            return body

        with builder.if_else(_is_square(builder, high, wide)) as (yes, no):
            for branch, over in ((yes, _over_square), (no, _over_any)):
                with branch:
                    loop(builder, count, [source, out, places], window(over))
        return context.get_dummy_value()

    return types.void(size, pointer, *[size] * 6, pointer, pointer), codegen


@intrinsic
def _to_largest(typingctx, delta, places, out, slope, target, line, step, high, wide, index, index_line, adds):
    """delta, where out > 0 or without slope, to those lanes of the window at target that were the largest.

    The other lanes become zero, or with `adds` stay as they are.
    """
    dtype = delta.dtype
    pointer, size, flag = types.CPointer(dtype), types.intp, types.boolean

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        delta, places, out, slope, target, line, step, high, wide, index, index_line, adds = args
        vector = simd._vector(dtype)
        zero = ir.Constant(vector, None)
        value, place = simd._load(builder, vector, delta), simd._load(builder, vector, places)
        masked = simd._where_positive(builder, simd._load(builder, vector, out), value)
        value = builder.select(slope, masked, value)

        def body(y: Any, x: Any, values: list[Any]) -> list[Any]:
            at = builder.add(builder.mul(y, line), builder.mul(x, step))
            number = builder.add(index, builder.add(builder.mul(y, index_line), x))
            mine = builder.fcmp_ordered("==", place, _index(builder, dtype, number))
            part = builder.select(mine, value, zero)
            held = builder.select(adds, simd._load(builder, vector, target, at), zero)
            simd._store(builder, builder.fadd(held, part), target, at)
            return []

        with builder.if_else(_is_square(builder, high, wide)) as (yes, no):
            for branch, over in ((yes, _over_square), (no, _over_any)):
                with branch:
                    over(builder, high, wide, [], body)
        return context.get_dummy_value()

    return types.void(pointer, pointer, pointer, flag, pointer, size, size, size, size, size, size, flag), codegen


@inner
def pool_lines(row, images, layout, me, chunk, channel, y, source, line, top):
    """Line y of a pool's channel from the lines at `source`, of which the first is line `top` of the image it takes."""
    vector = lanes(images)
    high, wide = row[KERNEL_H], row[KERNEL_W]
    start = y * row[STRIDE_H] - row[PADDING_H]
    first, last = max(start, 0), min(start + high, row[HEIGHT])
    out = chunk + layout[me + FIRST] + channel * layout[me + PLANE] + y * layout[me + LINE]
    places = chunk + layout[me + ARGMAX] + (channel * row[OUT_HEIGHT] + y) * row[OUT_WIDTH] * vector
    x = 0
    while x < row[OUT_WIDTH]:
        left = x * row[STRIDE_W] - row[PADDING_W]
        begin, end = max(left, 0), min(left + wide, row[WIDTH])
        # Windows that meet no border are taken together.
        count = row[OUT_WIDTH] - x if row[PADDING_W] == 0 else 1
        _largest(
            count, pointer_to(images, source + (first - top) * line + begin * vector), row[STRIDE_W] * vector, line,
            last - first, end - begin, (first - start) * wide + begin - left, wide,
            pointer_to(images, out + x * vector), pointer_to(images, places + x * vector),
        )  # fmt: skip
        x += count


@inner
def forward(plan, layer, images, layout, chunk):
    """The pool of one chunk."""
    row, me, before = plan[layer], layer * FIELDS, taken(plan, layer)
    for channel in range(row[CHANNELS]):
        source = chunk + layout[before + FIRST] + channel * layout[before + PLANE]
        for y in range(row[OUT_HEIGHT]):
            pool_lines(row, images, layout, me, chunk, channel, y, source, layout[before + LINE], ZERO)


@inner
def _clear(images, layout, row, below, deltas):
    vector = lanes(images)
    for channel in range(row[CHANNELS]):
        for y in range(row[HEIGHT]):
            at = deltas + layout[below + DELTA_FIRST] + channel * layout[below + DELTA_PLANE]
            at += y * layout[below + DELTA_LINE]
            for x in range(row[WIDTH]):
                start = at + x * layout[below + DELTA_STEP]
                for j in range(start, start + vector):
                    images[j] = 0


@inner
def backward(plan, layer, images, layout, chunk, deltas):
    """The gradient by what the layer below gives: to the largest of each window, through that layer's slope.

    Windows side by side are written; what no window covers was zero and stays so. Overlapping ones are summed.
    """
    row, me, below = plan[layer], layer * FIELDS, (layer - 1) * FIELDS
    vector = lanes(images)
    high, wide = row[KERNEL_H], row[KERNEL_W]
    overlaps = row[STRIDE_H] < high or row[STRIDE_W] < wide
    if overlaps:
        _clear(images, layout, row, below, deltas)
    slope = plan[layer - 1, ACTIVATION] == RELU
    line, step = layout[below + DELTA_LINE], layout[below + DELTA_STEP]
    for channel in range(row[CHANNELS]):
        target = deltas + layout[below + DELTA_FIRST] + channel * layout[below + DELTA_PLANE]
        for y in range(row[OUT_HEIGHT]):
            start = y * row[STRIDE_H] - row[PADDING_H]
            first, last = max(start, 0), min(start + high, row[HEIGHT])
            delta = deltas + layout[me + DELTA_FIRST] + channel * layout[me + DELTA_PLANE] + y * layout[me + DELTA_LINE]
            out = chunk + layout[me + FIRST] + channel * layout[me + PLANE] + y * layout[me + LINE]
            places = chunk + layout[me + ARGMAX] + (channel * row[OUT_HEIGHT] + y) * row[OUT_WIDTH] * vector
            for x in range(row[OUT_WIDTH]):
                left = x * row[STRIDE_W] - row[PADDING_W]
                begin, end = max(left, 0), min(left + wide, row[WIDTH])
                _to_largest(
                    pointer_to(images, delta + x * layout[me + DELTA_STEP]), pointer_to(images, places + x * vector),
                    pointer_to(images, out + x * vector), slope,
                    pointer_to(images, target + first * line + begin * step), line, step, last - first, end - begin,
                    (first - start) * wide + begin - left, wide, overlaps,
                )  # fmt: skip
