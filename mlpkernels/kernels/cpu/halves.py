"""A wide first layer in training: sums over one half of its inputs, then over the other, each half for one core.

Most of a dense network's weights are the first layer's. Where threads share a batch's rows going forward, each of them
reads all of these weights, half of which the other one has just changed: they travel from core to core in every step,
and so do a gathered batch's columns for the gradient. Where a thread sums the half of the inputs whose weights it
updates, for all rows, only the sums travel, a number a row and unit.

Two threads that are about equally fast keep to a half each: who has updated its weights goes on with that half of the
next batch, whoever else is at work on this one: a step has two barriers, as without halves. Other layers' weights,
where they are not too few, are shared by what each thread waits. Two threads that are too unequal for that (shares.py),
and more than two, go forward in a phase of its own, with a third barrier behind it.

On two threads (Zen 5; medians of 21 interleaved turns, of the time without halves) an epoch of MNIST takes 0.85 with
784-64-64-10 at batch 8, 0.93 at 16, 0.97 at 64; with 784-128-128-10 0.85 to 0.98 at 128, 0.92 at 256, 0.98 at 128 where
nothing is left out. One thread pays for two sums in place of one: 1.02 to 1.04, at batch 8 1.07.

The halves are there for one thread or many, with zeros left out or not, so the bits are the same. Their sums are kept
where their weights' gradients will be: nobody else sees them.
"""

from typing import Any

from numba import types
from numba.extending import intrinsic

from ..plan import ACTIVATION, BIAS, DENSE, INPUTS, KIND, OUT, OUT_STRIDE, RELU, WEIGHT, WEIGHT_STRIDE
from . import simd
from .blocks import constant, loop, switch
from .jit import inner
from .shares import HALVES_PHASE, settled, share
from .simd import ADD_BIAS, ADD_BIAS_RELU, lanes, pointer_to

# Of fewer inputs the weights are soon fetched. Of more rows the sums weigh as much as they do: 0.95 to 1.05 of the time
# at 512 and 1,024. Of fewer, what is done for each half counts: at 4, 0.99 on two threads, 1.07 on one.
LEAST_INPUTS, LEAST_ROWS, MOST_ROWS = 512, 8, 256
_ACROSS = 8  # vectors of a row that are added without a loop


@inner
def divided(plan, rows):
    """Whether a step of so many rows sums the first layer in halves."""
    return plan[0, KIND] == DENSE and plan[0, INPUTS] >= LEAST_INPUTS and LEAST_ROWS <= rows <= MOST_ROWS


@inner
def half(inputs, number):
    """The inputs first … last - 1 of half 0 or 1.

    The second has a multiple of 64, as many as are looked through for zeros at once. It has the larger part of what is
    lit in MNIST, 52 of 100, but one look less.
    """
    cut = inputs - (inputs + 64) // 128 * 64
    return (0, cut) if number == 0 else (cut, inputs)


@inner
def half_share(number, rows, slot, slots, shares):
    """The rows start … stop - 1 whose sums over a half a slot takes: two slots that are settled take a half each.

    Others take whole parts of a half's rows, of which there are as many as slots: for a few rows one would fetch all
    weights.
    """
    if slots == 1:
        return 0, rows
    if settled(slots, shares):
        return (0, rows) if number == slot else (0, 0)
    first, last = share(2 * slots, HALVES_PHASE, slot, slots, shares, 1)
    first, last = min(max(first - number * slots, 0), slots), min(max(last - number * slots, 0), slots)
    return rows * first // slots, rows * last // slots


@inner
def half_sums(plan, number):
    """Where in work.grad a half's sums are kept, a row behind the other."""
    # There is room: a half has at least as many inputs as a batch has rows. Of two settled slots only one writes there.
    return plan[0, WEIGHT] + half(plan[0, INPUTS], number)[0] * plan[0, WEIGHT_STRIDE]


@intrinsic
def _add(typingctx, rows, vectors, first, second, row, bias, out, out_row, epilogue):
    """out[rows, vectors] = epilogue(first + second + bias), up to _ACROSS vectors; ADD_BIAS or ADD_BIAS_RELU."""
    dtype, size = first.dtype, types.intp

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, vectors, first, second, stride, bias, out, out_stride, epilogue = args
        vector = simd._vector(dtype)
        floor = simd._floor(builder, vector, epilogue)

        def emit(_: int, count: int) -> None:
            places = [constant(j * vector.count) for j in range(count)]
            biases = [simd._load(builder, vector, bias, place) for place in places]

            def row(tops: list[Any]) -> list[Any]:
                for place, more in zip(places, biases, strict=True):
                    one, other = (simd._load(builder, vector, top, place) for top in tops[:2])
                    value = builder.fadd(builder.fadd(one, other), more)
                    simd._store(builder, simd._at_least(builder, value, floor), tops[2], place)
                return [builder.gep(top, [row]) for top, row in zip(tops, (stride, stride, out_stride), strict=True)]

            loop(builder, rows, [first, second, out], row)

        switch(builder, constant(1), vectors, [(1, count) for count in range(1, _ACROSS + 1)], emit)
        return context.get_dummy_value()

    pointer = types.CPointer(dtype)
    return types.void(size, size, pointer, pointer, size, pointer, pointer, size, size), codegen


@inner
def add_halves(plan, params, work, start, stop):
    """The first layer's outputs of rows start … stop - 1, but for an activation that is not ReLU."""
    width, stride, vector = plan[0, WEIGHT_STRIDE], plan[0, OUT_STRIDE], lanes(params)
    first, second = half_sums(plan, 0) + start * width, half_sums(plan, 1) + start * width
    out = plan[0, OUT] * work.losses.shape[0] + start * stride
    epilogue = ADD_BIAS_RELU if plan[0, ACTIVATION] == RELU else ADD_BIAS
    for j in range(0, width, _ACROSS * vector):
        _add(
            stop - start, min((width - j) // vector, _ACROSS), pointer_to(work.grad, first + j),
            pointer_to(work.grad, second + j), width, pointer_to(params, plan[0, BIAS] + j),
            pointer_to(work.outputs, out + j), stride, epilogue,
        )  # fmt: skip
