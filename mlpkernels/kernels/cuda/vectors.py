"""Loads of four neighbours at once, 16 bytes for float32: what keeps a product's inner loop fed from shared memory.

Neither package has them in common, so each has its own way; the simulator reads one by one.
"""

from typing import Any

from .driver import PACKAGE, cuda

if PACKAGE == "numba-cuda":
    from llvmlite import ir
    from numba.core import types
    from numba.cuda.extending import intrinsic

    @intrinsic
    def load4(typingctx, array, at):
        """array[at] … array[at + 3]; `at` is a multiple of 4 of an array that starts on 16 bytes."""
        four = types.UniTuple(array.dtype, 4)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            vector = ir.VectorType(context.get_data_type(array.dtype), 4)
            loaded = builder.load(builder.bitcast(builder.gep(data, [args[1]]), vector.as_pointer()))
            loaded.align = 16
            lanes = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), i)) for i in range(4)]
            return context.make_tuple(builder, four, lanes)

        return four(array, types.int64), codegen

elif PACKAGE == "numba-cuda-mlir":

    @cuda.jit(device=True)
    def load4(array, at):
        """array[at] … array[at + 3]; `at` is a multiple of 4 of an array that starts on 16 bytes."""
        loaded = cuda.vector.load(array, at, 4, alignment=16)
        return loaded.x, loaded.y, loaded.z, loaded.w

else:

    def load4(array, at):
        """array[at] … array[at + 3]."""
        return array[at], array[at + 1], array[at + 2], array[at + 3]
