"""The time inside compiled code, so that a call can end when it was asked to."""

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_MONOTONIC = 6 if sys.platform == "darwin" else 1


@intrinsic
def clock(typingctx):
    """Seconds of the system's monotonic clock (20 ns a call); 0 on Windows, where a call runs all its steps."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if sys.platform == "win32":
            return ir.Constant(ir.DoubleType(), 0.0)
        long, number = ir.IntType(64), ir.IntType(32)
        time = cgutils.alloca_once(builder, ir.ArrayType(long, 2))  # struct timespec on 64-bit systems
        kind = ir.FunctionType(number, [number, time.type])
        function = cgutils.get_or_insert_function(builder.module, kind, "clock_gettime")
        builder.call(function, [ir.Constant(number, _MONOTONIC), time])
        whole, nanoseconds = (
            builder.sitofp(builder.load(cgutils.gep_inbounds(builder, time, 0, i)), ir.DoubleType()) for i in (0, 1)
        )
        return builder.fadd(whole, builder.fmul(nanoseconds, ir.Constant(ir.DoubleType(), 1e-9)))

    return types.float64(), codegen
