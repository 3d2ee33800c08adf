"""A batch's samples, brought from anywhere in a data set to where they lie side by side as numbers."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop
from .jit import inlined, inner
from .simd import pointer_to, prefetch

_AHEAD = 16  # a row is asked for so many rows before it is read
_I8 = ir.IntType(8)


@intrinsic
def bring(typingctx, source, target, count, factor, offset):
    """target[j] = source[j] for count numbers, source[j] · factor + offset for bytes; a vector of them at a time."""
    dtype, scales = target.dtype, source.dtype == types.uint8

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, count, factor, offset = args
        vector = simd._vector(dtype)
        element = _I8 if scales else vector.element

        def move(kind: Any, many: Any, factor: Any, offset: Any) -> Any:
            """What moves so many elements, of a type or a vector of it, from one place on to the next."""

            def step(values: list[Any]) -> list[Any]:
                (at,) = values
                load = builder.load(builder.bitcast(builder.gep(source, [at]), kind.as_pointer()))
                load.align = element.get_abi_size(simd._target_data())
                value = load
                if scales:
                    value = builder.fadd(builder.fmul(builder.uitofp(load, factor.type), factor), offset)
                store = builder.store(value, builder.bitcast(builder.gep(target, [at]), value.type.as_pointer()))
                store.align = vector.element.get_abi_size(simd._target_data())
                return [builder.add(at, constant(many))]

            return step

        splats = [simd._splat(builder, value, vector) for value in (factor, offset)]
        whole = builder.udiv(count, constant(vector.count))
        kind = ir.VectorType(element, vector.count)
        (done,) = loop(builder, whole, [constant(0)], move(kind, vector.count, *splats))
        loop(builder, builder.sub(count, done), [done], move(element, 1, factor, offset))
        return context.get_dummy_value()

    return types.void(source, target, types.intp, dtype, dtype), codegen


@inner
def later(order, at, rows, start, stop, i, ahead):
    """The sample that a slot with rows start … stop - 1 of the batch order[at : at + rows] asks for as it reads row i.

    So many rows ahead; behind its last it is the next batch's. Its bytes lie anywhere in memory: 0.1 µs away.
    """
    row = i + min(ahead, stop - start)
    place = at + row if row < stop else at + rows + start + row - stop
    return order[place if place < order.shape[0] else at + i]


@inner
def _bring_row(data, source, sample, after, first, count, target):
    """count columns from `first` on of a sample's row of data to the target; those of the one after are asked for."""
    width = data.shape[1]
    prefetch(pointer_to(data, after * width + first), count)
    bring(pointer_to(data, sample * width + first), target, count, source.factor, source.offset)


@inlined
def gather(source, order, at, rows, start, stop, first, last, x, stride):
    """A slot's rows start … stop - 1 of the batch order[at : at + rows] into the flat x, row i at i · stride.

    Of each row its columns first … last - 1, to where they are in a whole one.
    """
    for i in range(start, stop):
        sample, target = order[at + i], pointer_to(x, i * stride + first)
        after = later(order, at, rows, start, stop, i, _AHEAD)
        if source.bytes.shape[0] > 0:
            _bring_row(source.bytes, source, sample, after, first, last - first, target)
        else:
            _bring_row(source.rows, source, sample, after, first, last - first, target)


@inlined
def ask_for_answers(source, order, first, last):
    """Have brought near what the loss needs of the next batch, the labels and weights of the samples order[first:last].

    On one thread an epoch of batch 8 takes 0.96 of the time, of batch 64 0.97.
    """
    for i in range(first, min(last, order.shape[0])):
        prefetch(pointer_to(source.weights, order[i]), 1)
        if source.labels.shape[0] > 0:
            prefetch(pointer_to(source.labels, order[i]), 1)
