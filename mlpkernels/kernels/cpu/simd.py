"""Vector micro-kernels as LLVM IR: what Numba's own loops do not reach (0.28 of OpenBLAS at best).

`tile` multiplies a block of a few rows by a few vectors of columns, with all
sums in registers and the whole k-loop inside. Every sum is one chain of fused multiply-adds in increasing k
that may go on from what `c` holds, so neither the blocking nor the number of threads changes a bit.

The vector width comes from the processor: 64 bytes with AVX-512, 32 with AVX2, 16 elsewhere (SSE, NEON).
"""

from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from .blocks import constant, loop, switch, when

# What happens to the sums when they are stored; the numbers are compiled into every kernel.
STORE, ADD_BIAS, ADD_BIAS_RELU, RELU_SLOPE, DESCEND = range(5)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}


def _host() -> tuple[int, int, bool]:
    """(bytes of a vector register, how many there are, whether multiply-add is fused) of this processor."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("avx512vl"):
        return 64, 32, True
    if features.get("avx2") and features.get("fma"):
        return 32, 16, True
    arm = llvm.get_default_triple().startswith(("aarch64", "arm64"))
    return 16, 32 if arm else 16, arm or bool(features.get("fma"))


VECTOR_BYTES, REGISTERS, FUSED = _host()
# Sums, the vectors of b and one broadcast must fit the registers: 6·4 + 4 + 1 of 32 or 6·2 + 2 + 1 of 16.
TILE_ROWS = (6, 4, 2, 1)
TALL_ROWS = (12, 8)  # of tiles one vector wide: with fewer sums each addition would wait for the one before
VECTORS = 4 if REGISTERS == 32 else 2
# Steps of the largest tile that are written out, where registers are few: see _emit_unrolled.
UNROLL = 4
UNROLLED = (TILE_ROWS[0], VECTORS) if REGISTERS == 16 else None


def _vector(dtype: Any) -> ir.VectorType:
    return ir.VectorType(_FLOATS[dtype], VECTOR_BYTES * 8 // dtype.bitwidth)


def _fused(builder: Any, kind: Any) -> Any:
    """A function that emits x · y + z on numbers or vectors of an LLVM type, fused where the processor can.

    Without the instruction, llvm.fma would become a call of the C library for each element.
    """
    if not FUSED:
        return lambda x, y, z: builder.fadd(builder.fmul(x, y), z)
    name = f"llvm.fma.{_suffix(kind)}"  # declare_intrinsic knows no vector types
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
    return lambda x, y, z: builder.call(function, [x, y, z])


def _suffix(kind: Any) -> str:
    """How an LLVM type ends the name of an intrinsic: v16f32."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{_suffix(kind.element)}"
    return f"i{kind.width}" if isinstance(kind, ir.IntType) else "f32" if isinstance(kind, ir.FloatType) else "f64"


def _multiply_add(builder: Any, dtype: Any) -> Any:
    """`_fused` on vectors."""
    return _fused(builder, _vector(dtype))


def _load(builder: Any, vector: ir.VectorType, pointer: Any, offset: Any = None) -> Any:
    """A vector loaded from pointer + offset elements, aligned to an element only."""
    at = pointer if offset is None else builder.gep(pointer, [offset])
    load = builder.load(builder.bitcast(at, vector.as_pointer()))
    load.align = vector.element.get_abi_size(_target_data())
    return load


def _store(builder: Any, value: Any, pointer: Any, offset: Any = None) -> None:
    at = pointer if offset is None else builder.gep(pointer, [offset])
    store = builder.store(value, builder.bitcast(at, value.type.as_pointer()))
    store.align = value.type.element.get_abi_size(_target_data())


def _target_data() -> Any:
    global _DATA
    if _DATA is None:
        _DATA = llvm.create_target_data("")
    return _DATA


_DATA: Any = None


def _splat(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count))


@intrinsic
def tile(typingctx, rows, vectors, a, a_row, a_k, b, b_k, c, c_row, k, accumulate, epilogue, aux, aux_row):
    """c[rows, vectors · lanes] = epilogue(c or 0 + a @ b), rows one of 6, 4, 2, 1 and vectors 1 … VECTORS,
    or one of TALL_ROWS by one.

    Pointers, and strides in elements: a's element (i, k) is at a + i·a_row + k·a_k, b's row k at b + k·b_k,
    contiguous. epilogue: STORE; ADD_BIAS and ADD_BIAS_RELU add aux[j]; RELU_SLOPE keeps what
    aux[i·aux_row + j] > 0 keeps; DESCEND, never with accumulate, takes aux[0] times the sums from what c holds.

    One kernel a size, chosen by a switch in here: a function a size would be optimised once more in each caller.
    """
    dtype = a.dtype
    pointer, size = types.CPointer(dtype), types.intp
    signature = types.void(
        size, size, pointer, size, size, pointer, size, pointer, size, size, types.boolean, size, pointer, size,
    )  # fmt: skip

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sizes = [(r, v) for r in TILE_ROWS for v in range(1, VECTORS + 1)] + [(r, 1) for r in TALL_ROWS]
        switch(builder, args[0], args[1], sizes, lambda r, v: _emit_tile(builder, dtype, r, v, args[2:]))
        return context.get_dummy_value()

    return signature, codegen


def _emit_tile(builder: Any, dtype: Any, rows: int, vectors: int, args: Any) -> None:
    a, a_row, a_k, b, b_k, c, c_row, k, accumulate, epilogue, aux, aux_row = args
    vector = _vector(dtype)
    multiply_add = _multiply_add(builder, dtype)
    zero = ir.Constant(vector, None)
    columns = [ir.Constant(_I64, j * vector.count) for j in range(vectors)]
    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    c_rows = [builder.gep(c, [builder.mul(c_row, ir.Constant(_I64, i))]) for i in range(rows)]
    a_rows = [builder.gep(a, [builder.mul(a_row, ir.Constant(_I64, i))]) for i in range(rows)]

    # The sums start from zero or from what c holds.
    entry = builder.block
    resume, begun = (builder.append_basic_block(name) for name in ("resume", "begun"))
    builder.cbranch(accumulate, resume, begun)
    builder.position_at_end(resume)
    held = [_load(builder, vector, c_rows[i], columns[j]) for i, j in cells]
    builder.branch(begun)
    builder.position_at_end(begun)
    sums = [builder.phi(vector) for _ in cells]
    for phi, value in zip(sums, held, strict=True):
        phi.add_incoming(zero, entry)
        phi.add_incoming(value, resume)

    def add_products(sums: list[Any], b_at: Any, elements: list[Any]) -> list[Any]:
        """One k: load b's vectors, broadcast each row's element of a, multiply-add."""
        b_vectors = [_load(builder, vector, b_at, column) for column in columns]
        sums = list(sums)
        for i, at in enumerate(elements):
            element = _splat(builder, builder.load(at), vector)
            for j in range(vectors):
                cell = i * vectors + j
                sums[cell] = multiply_add(element, b_vectors[j], sums[cell])
        return sums

    def step(values: list[Any]) -> list[Any]:
        b_at, a_at = values[0], values[1 : 1 + rows]
        sums = add_products(values[1 + rows :], b_at, a_at)
        return [builder.gep(b_at, [b_k]), *(builder.gep(at, [a_k]) for at in a_at), *sums]

    values = [k, b, *a_rows, *sums]
    if (rows, vectors) == UNROLLED:
        values = _emit_unrolled(builder, values, a_row, a_k, b_k, vectors * vector.count, add_products)
    results = loop(builder, values[0], values[1:], step)[1 + rows :]
    _emit_epilogue(builder, vector, cells, results, c_rows, columns, epilogue, aux, aux_row)


def _emit_unrolled(
    builder: Any, values: list[Any], a_row: Any, a_k: Any, b_k: Any, width: int, add_products: Callable[..., list[Any]]
) -> list[Any]:
    """A tile's steps, UNROLL at a time, where b is a packed panel and a's elements lie side by side, in columns (a_row
    1) or in rows (a_k 1). Returns [the steps left, …] of values.

    Constants stand in the addresses then, and pointers move seldom: a step takes 21 instructions where the plain loop
    takes 27. A core by itself hides those; one that runs another thread, too, does not: 0.95 of the time.
    """
    rows = TILE_ROWS[0]

    def steps(pointers: int) -> Callable[[list[Any]], list[Any]]:
        """UNROLL steps with one pointer to the elements of all rows, or with one to each row's."""

        def body(values: list[Any]) -> list[Any]:
            b_at, a_at, sums = values[0], values[1 : 1 + pointers], values[1 + pointers :]
            for u in range(UNROLL):
                places = [(a_at[0], i) for i in range(rows)] if pointers == 1 else [(at, u) for at in a_at]
                elements = [builder.gep(at, [constant(offset)]) for at, offset in places]
                sums = add_products(sums, builder.gep(b_at, [constant(u * width)]), elements)
                if pointers == 1:
                    a_at = [builder.gep(a_at[0], [a_k])]
            if pointers != 1:
                a_at = [builder.gep(at, [constant(UNROLL)]) for at in a_at]
            return [builder.gep(b_at, [constant(UNROLL * width)]), *a_at, *sums]

        return body

    def turns(k: Any) -> tuple[Any, Any]:
        return builder.ashr(k, constant(UNROLL.bit_length() - 1)), builder.and_(k, constant(UNROLL - 1))

    def columns(values: list[Any]) -> list[Any]:
        whole, left = turns(values[0])
        b_at, a_at, *sums = loop(builder, whole, [*values[1:3], *values[2 + rows :]], steps(1))
        return [left, b_at, *(builder.gep(a_at, [constant(i)]) for i in range(rows)), *sums]

    def along_rows(values: list[Any]) -> list[Any]:
        whole, left = turns(values[0])
        return [left, *loop(builder, whole, values[1:], steps(rows))]

    packed, transposed, plain = (
        builder.icmp_signed("==", stride, constant(wanted)) for stride, wanted in ((b_k, width), (a_row, 1), (a_k, 1))
    )
    values = when(builder, builder.and_(packed, transposed), values, columns)
    return when(builder, builder.and_(packed, builder.and_(plain, builder.not_(transposed))), values, along_rows)


def _emit_epilogue(
    builder: Any,
    vector: Any,
    cells: Any,
    results: Any,
    c_rows: Any,
    columns: Any,
    epilogue: Any,
    aux: Any,
    aux_row: Any,
) -> None:
    """Store the sums: as they are, through a bias and a floor (zero or none), through ReLU's slope, or as a descent.

    Storing has a block of its own: adding no bias and taking no floor cost a fifth of a product of depth 8.
    """
    names = ("plain", "biased", "slope", "descent", "stored")
    plain, biased, slope, descent, end = (builder.append_basic_block(name) for name in names)
    stores = builder.switch(epilogue, plain)
    stores.add_case(ir.Constant(_I64, ADD_BIAS), biased)
    stores.add_case(ir.Constant(_I64, ADD_BIAS_RELU), biased)
    stores.add_case(ir.Constant(_I64, RELU_SLOPE), slope)
    stores.add_case(ir.Constant(_I64, DESCEND), descent)

    builder.position_at_end(plain)
    for (i, j), value in zip(cells, results, strict=True):
        _store(builder, value, c_rows[i], columns[j])
    builder.branch(end)

    builder.position_at_end(biased)
    biases = [_load(builder, vector, aux, column) for column in columns]
    floor = _floor(builder, vector, epilogue)
    for (i, j), value in zip(cells, results, strict=True):
        _store(builder, _at_least(builder, builder.fadd(value, biases[j]), floor), c_rows[i], columns[j])
    builder.branch(end)

    builder.position_at_end(slope)
    for (i, j), value in zip(cells, results, strict=True):
        row = builder.gep(aux, [builder.mul(aux_row, ir.Constant(_I64, i))])
        output = _load(builder, vector, row, columns[j])
        _store(builder, _where_positive(builder, output, value), c_rows[i], columns[j])
    builder.branch(end)

    builder.position_at_end(descent)
    rate = _splat(builder, builder.load(aux), vector)
    for (i, j), value in zip(cells, results, strict=True):
        held = _load(builder, vector, c_rows[i], columns[j])
        _store(builder, builder.fsub(held, builder.fmul(rate, value)), c_rows[i], columns[j])
    builder.branch(end)
    builder.position_at_end(end)


def _floor(builder: Any, vector: Any, epilogue: Any) -> Any:
    """What no result falls below: zero with ReLU, else minus infinity."""
    none = ir.Constant(vector, [float("-inf")] * vector.count)
    relu = builder.icmp_signed("==", epilogue, ir.Constant(_I64, ADD_BIAS_RELU))
    return builder.select(relu, ir.Constant(vector, None), none)


def _at_least(builder: Any, value: Any, floor: Any) -> Any:
    """max(value, floor); a NaN stays."""
    return builder.select(builder.fcmp_unordered(">", value, floor), value, floor)


def _where_positive(builder: Any, output: Any, value: Any) -> Any:
    """value where output > 0, else zero."""
    zero = ir.Constant(value.type, None)
    return builder.select(builder.fcmp_ordered(">", output, zero), value, zero)


def _mask(builder: Any, vector: Any, count: Any) -> Any:
    """Which lanes are below count."""
    integers = ir.VectorType(_I64, vector.count)
    return builder.icmp_signed("<", ir.Constant(integers, list(range(vector.count))), _splat(builder, count, integers))


def _masked_load(builder: Any, dtype: Any, pointer: Any, mask: Any) -> Any:
    """The lanes that the mask has, zero in the others, whose memory is not touched."""
    vector = _vector(dtype)
    kind = ir.FunctionType(vector, [vector.as_pointer(), _I32, mask.type, vector])
    name = f"llvm.masked.load.{_suffix(vector)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    align = ir.Constant(_I32, dtype.bitwidth // 8)
    return builder.call(
        function, [builder.bitcast(pointer, vector.as_pointer()), align, mask, ir.Constant(vector, None)]
    )


def _masked_store(builder: Any, value: Any, pointer: Any, mask: Any) -> None:
    """The lanes that the mask has to memory; that of the others is not touched."""
    kind = ir.FunctionType(ir.VoidType(), [value.type, value.type.as_pointer(), _I32, mask.type])
    name = f"llvm.masked.store.{_suffix(value.type)}.p0"
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    align = ir.Constant(_I32, value.type.element.get_abi_size(_target_data()))
    builder.call(function, [value, builder.bitcast(pointer, value.type.as_pointer()), align, mask])


@intrinsic
def load_few(typingctx, source, target, count):
    """A vector of which only count elements exist, from source to target, zeros behind them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = _mask(builder, _vector(source.dtype), args[2])
        _store(builder, _masked_load(builder, source.dtype, args[0], mask), args[1])
        return context.get_dummy_value()

    return types.void(source, source, types.intp), codegen


@intrinsic
def store_few(typingctx, source, target, count, epilogue, aux):
    """count elements of the vector at source to target, through `tile`'s epilogue; aux as it is for them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_at, target_at, count, epilogue, aux_at = args
        dtype = source.dtype
        vector = _vector(dtype)
        mask = _mask(builder, vector, count)
        uses = builder.icmp_signed("!=", epilogue, ir.Constant(_I64, STORE))
        read = builder.and_(mask, _splat(builder, uses, mask.type))
        value, extra = _load(builder, vector, source_at), _masked_load(builder, dtype, aux_at, read)
        slope = builder.icmp_signed("==", epilogue, ir.Constant(_I64, RELU_SLOPE))
        biased = _at_least(builder, builder.fadd(value, extra), _floor(builder, vector, epilogue))
        result = builder.select(slope, _where_positive(builder, extra, value), builder.select(uses, biased, value))
        _masked_store(builder, result, target_at, mask)
        return context.get_dummy_value()

    return types.void(source, source, types.intp, types.intp, source), codegen


@intrinsic
def pointer_to(typingctx, array, offset):
    """The address of a contiguous array's element `offset`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return builder.gep(data, [args[1]])

    return types.CPointer(array.dtype)(array, types.intp), codegen


@intrinsic
def flat(typingctx, array):
    """A C-contiguous array as one of one dimension, a read-only one typed as the others are.

    Types that differ would each be a specialisation, seconds of compiling in the caller's function.
    """
    target = types.Array(array.dtype, 1, "C")

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source = context.make_array(signature.args[0])(context, builder, args[0])
        made = context.make_array(target)(context, builder)
        size, itemsize = source.nitems, source.itemsize
        populate_array(
            made,
            data=source.data,
            shape=cgutils.pack_array(builder, [size]),
            strides=cgutils.pack_array(builder, [itemsize]),
            itemsize=itemsize,
            meminfo=source.meminfo,
            parent=source.parent,
        )
        return impl_ret_borrowed(context, builder, target, made._getvalue())

    return target(array), codegen


@intrinsic
def advance(typingctx, pointer, offset):
    """pointer + offset elements."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.gep(args[0], [args[1]])

    return pointer(pointer, types.intp), codegen


def ask_for(builder: Any, place: Any, to_write: bool = False) -> None:
    """Have the line of a byte brought into the cache, without waiting for it; to_write: and into no other core's."""
    kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    builder.call(function, [place, *(ir.Constant(_I32, flag) for flag in (int(to_write), 3, 1))])  # soon, data


@intrinsic
def prefetch(typingctx, pointer, count):
    """Ask for count elements from pointer on to be brought into the cache, without waiting for them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = builder.bitcast(args[0], ir.IntType(8).as_pointer())
        size = builder.mul(args[1], ir.Constant(_I64, context.get_abi_sizeof(args[0].type.pointee)))
        with cgutils.for_range_slice(builder, ir.Constant(_I64, 0), size, ir.Constant(_I64, 64), _I64) as (at, _):
            ask_for(builder, builder.gep(start, [at]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp), codegen


@intrinsic
def load(typingctx, pointer, offset):
    """pointer[offset]"""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]))

    return pointer.dtype(pointer, types.intp), codegen


@intrinsic
def store(typingctx, pointer, offset, value):
    """pointer[offset] = value"""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(pointer, types.intp, pointer.dtype), codegen


@intrinsic
def load_vector_store(typingctx, source, target):
    """Copy one vector from source to target."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _store(builder, _load(builder, _vector(source.dtype), args[0]), args[1])
        return context.get_dummy_value()

    return types.void(source, source), codegen


def stack(size_bytes: int, when_reached: bool = False) -> Any:
    """An intrinsic stack(like) -> pointer to size_bytes of aligned room on the stack, of like's element type.

    when_reached: taken by the calls that come by here alone, until they return; not to stand in a loop. For much room
    that few calls need: a thread may have a stack of 128 KB in all.
    """

    @intrinsic
    def stack_room(typingctx, like):
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            bytes_ = ir.ArrayType(ir.IntType(8), size_bytes)
            # Not cgutils.alloca_once: it clears what it makes, up to 24 KB a call here and 16 s of compiling.
            if when_reached:
                room = builder.alloca(bytes_)
            else:
                with builder.goto_entry_block():
                    room = builder.alloca(bytes_)
            room.align = 64
            return builder.bitcast(room, context.get_value_type(like.dtype).as_pointer())

        return types.CPointer(like.dtype)(like), codegen

    return stack_room


@intrinsic
def lanes(typingctx, like):
    """How many of like's elements a vector holds: a constant to the compiler."""
    count = _vector(like.dtype).count

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_I64, count)

    return types.intp(like), codegen
