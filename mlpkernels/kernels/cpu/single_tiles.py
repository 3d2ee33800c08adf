"""Micro-kernels of one sample, as LLVM IR: a row times a matrix, and a few pixels of one image's convolution.

Every sum is one chain of fused multiply-adds in increasing k, so the bits are those of the kernels for batches. A chain
waits four cycles for each addition, hence many sums side by side; the weights are read once, in order.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from . import simd
from .blocks import constant, loop, switch

# Vectors of sums of a row: two multiply-adds a cycle of four cycles each keep 8 going, and 8 of 16 registers are free.
ROW_VECTORS = 8
# Rows of weights that are asked for ahead of their use: 4 KB of eight vectors. 784-128-128-10 takes 2.0 µs with it, as
# long as reading its weights from the level-2 cache, and 3.0-3.7 without.
AHEAD = 8
_LINE = 64  # bytes
# (pixels, vectors of channels) of a convolution's tiles.
PIXEL_TILES = [(8, 1), (4, 1), (2, 1), (1, 1), (4, 2), (2, 2), (1, 2)]

_I32 = ir.IntType(32)


def _finish(builder: Any, sums: Any, biases: Any, epilogue: Any) -> list[Any]:
    """The sums with bias, and no less than zero where epilogue is ADD_BIAS_RELU; a NaN stays."""
    floor = simd._floor(builder, sums[0].type, epilogue)
    return [simd._at_least(builder, builder.fadd(s, b), floor) for s, b in zip(sums, biases, strict=True)]


def _ask_for(builder: Any, pointer: Any, offset: Any) -> None:
    """Have the cache line at pointer + offset elements brought near; an address of nobody's does no harm."""
    bytes_ = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [bytes_, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to be read, soon, data
    builder.call(function, [builder.bitcast(builder.gep(pointer, [offset]), bytes_), *flags])


@intrinsic
def row_tile(typingctx, vectors, x, w, w_k, k, bias, epilogue, out):
    """out[vectors · lanes] = x (k,) @ w + bias, vectors 1 … ROW_VECTORS; epilogue ADD_BIAS or ADD_BIAS_RELU.

    Pointers; row i of w is at w + i·w_k elements and is read, as bias and out, in whole vectors.
    """
    dtype, size = x.dtype, types.intp
    pointer = types.CPointer(dtype)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, *rest = args
        sizes = [(0, count) for count in range(1, ROW_VECTORS + 1)]
        switch(builder, constant(0), vectors, sizes, lambda _, count: _emit_row(builder, dtype, count, rest))
        return context.get_dummy_value()

    return types.void(size, pointer, pointer, size, size, pointer, size, pointer), codegen


def _emit_row(builder: Any, dtype: Any, count: int, args: Any) -> None:
    x, w, w_k, k, bias, epilogue, out = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    columns = [constant(j * vector.count) for j in range(count)]
    lines = range(0, count * vector.count, _LINE * 8 // dtype.bitwidth)
    ahead = builder.mul(w_k, constant(AHEAD))

    def one(values: list[Any]) -> list[Any]:
        x_at, w_at, *sums = values
        element = simd._splat(builder, builder.load(x_at), vector)
        for at in lines:
            _ask_for(builder, w_at, builder.add(ahead, constant(at)))
        for j, column in enumerate(columns):
            sums[j] = multiply_add(element, simd._load(builder, vector, w_at, column), sums[j])
        return [builder.gep(x_at, [constant(1)]), builder.gep(w_at, [w_k]), *sums]

    sums = loop(builder, k, [x, w, *[ir.Constant(vector, None)] * count], one)[2:]
    _store_row(builder, sums, columns, bias, epilogue, out)


@intrinsic
def lit_row_tile(typingctx, vectors, x, lit, w, w_k, count, bias, epilogue, out):
    """`row_tile` over those elements of x alone whose numbers `lit` has, count of them and AHEAD more that are read."""
    dtype, size = x.dtype, types.intp
    pointer, places = types.CPointer(dtype), types.CPointer(types.int32)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vectors, *rest = args
        sizes = [(0, count) for count in range(1, ROW_VECTORS + 1)]
        switch(builder, constant(0), vectors, sizes, lambda _, count: _emit_lit_row(builder, dtype, count, rest))
        return context.get_dummy_value()

    return types.void(size, pointer, places, pointer, size, size, pointer, size, pointer), codegen


def _emit_lit_row(builder: Any, dtype: Any, count: int, args: Any) -> None:
    x, lit, w, w_k, k, bias, epilogue, out = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    columns = [constant(j * vector.count) for j in range(count)]
    lines = range(0, count * vector.count, _LINE * 8 // dtype.bitwidth)

    def number(place: Any) -> Any:
        return builder.sext(builder.load(place), ir.IntType(64))

    def one(values: list[Any]) -> list[Any]:
        place, *sums = values
        here, later = number(place), number(builder.gep(place, [constant(AHEAD)]))
        element = simd._splat(builder, builder.load(builder.gep(x, [here])), vector)
        ahead, w_at = builder.mul(w_k, later), builder.gep(w, [builder.mul(w_k, here)])
        for at in lines:
            _ask_for(builder, w, builder.add(ahead, constant(at)))
        for j, column in enumerate(columns):
            sums[j] = multiply_add(element, simd._load(builder, vector, w_at, column), sums[j])
        return [builder.gep(place, [constant(1)]), *sums]

    sums = loop(builder, k, [lit, *[ir.Constant(vector, None)] * count], one)[1:]
    _store_row(builder, sums, columns, bias, epilogue, out)


def _store_row(builder: Any, sums: list[Any], columns: list[Any], bias: Any, epilogue: Any, out: Any) -> None:
    biases = [simd._load(builder, sums[0].type, bias, column) for column in columns]
    for value, column in zip(_finish(builder, sums, biases, epilogue), columns, strict=True):
        simd._store(builder, value, out, column)


@intrinsic
def pixels_tile(typingctx, pixels, vectors, x, step, table, k, w, w_k, bias, epilogue, out, out_step):
    """out[pixels, vectors · lanes] = windows of x @ w + bias, the sizes one of PIXEL_TILES; epilogue as in `row_tile`.

    Element i of pixel p's window is x[p·step + table[i]], i < k; p's channels go to out + p·out_step.
    """
    dtype, size = x.dtype, types.intp
    pointer, places = types.CPointer(dtype), types.CPointer(types.int64)
    signature = types.void(
        size, size, pointer, size, places, size, pointer, size, pointer, size, pointer, size
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pixels, vectors, *rest = args
        switch(builder, pixels, vectors, PIXEL_TILES, lambda p, v: _emit_pixels(builder, dtype, p, v, rest))
        return context.get_dummy_value()

    return signature, codegen


def _emit_pixels(builder: Any, dtype: Any, pixels: int, count: int, args: Any) -> None:
    x, step, table, k, w, w_k, bias, epilogue, out, out_step = args
    vector, multiply_add = simd._vector(dtype), simd._multiply_add(builder, dtype)
    columns = [constant(j * vector.count) for j in range(count)]
    steps = [builder.mul(step, constant(p)) for p in range(pixels)]

    def one(values: list[Any]) -> list[Any]:
        place, w_at, *sums = values
        window = builder.gep(x, [builder.load(place)])
        weights = [simd._load(builder, vector, w_at, column) for column in columns]
        for p in range(pixels):
            element = simd._splat(builder, builder.load(builder.gep(window, [steps[p]])), vector)
            for j in range(count):
                sums[p * count + j] = multiply_add(element, weights[j], sums[p * count + j])
        return [builder.gep(place, [constant(1)]), builder.gep(w_at, [w_k]), *sums]

    sums = loop(builder, k, [table, w, *[ir.Constant(vector, None)] * (pixels * count)], one)[2:]
    biases = [simd._load(builder, vector, bias, column) for column in columns] * pixels
    for i, value in enumerate(_finish(builder, sums, biases, epilogue)):
        p, j = divmod(i, count)
        simd._store(builder, value, out, builder.add(builder.mul(out_step, constant(p)), columns[j]))
