"""Loads of four neighbours at once, 16 bytes for float32: what keeps a product's inner loop fed from shared memory.

Neither package has them in common, so each has its own way; the simulator reads one by one.
"""

from typing import Any

from .driver import PACKAGE, cuda


def _plain(array, at):
    return array[at], array[at + 1], array[at + 2], array[at + 3]


def _vector(array, at):
    # Not `alignment=16`: with it numba-cuda-mlir 0.6 takes any array that was passed to a function for one in global
    # memory. The mask, which changes nothing, tells the compiler that the four lie on 16 bytes.
    loaded = cuda.vector.load(array, at & -4, 4)
    return loaded.x, loaded.y, loaded.z, loaded.w


def _for_numba_cuda() -> Any:
    """A load of an LLVM vector: the package has no other way."""
    from llvmlite import ir
    from numba.core import types
    from numba.cuda.extending import intrinsic

    def load4(typingctx, array, at):
        four = types.UniTuple(array.dtype, 4)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            vector = ir.VectorType(context.get_data_type(array.dtype), 4)
            loaded = builder.load(builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer()))
            loaded.align = 16
            lanes = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(4)]
            return context.make_tuple(builder, four, lanes)

        return four(array, types.int64), codegen

    return intrinsic(load4)


# load4(array, at): array[at] … array[at + 3]; `at` is a multiple of 4 of an array that starts on 16 bytes.
load4: Any = _plain
if PACKAGE == "numba-cuda":
    load4 = _for_numba_cuda()
elif PACKAGE == "numba-cuda-mlir":
    load4 = cuda.jit(device=True)(_vector)
