"""exp in compiled code that vectorises: np.exp there is a call of the C library for each element.

That takes 5 ns, the polynomial below 0.5.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .jit import inlined, jit
from .simd import FUSED


@intrinsic
def multiply_add(typingctx, x, y, z):
    """x · y + z, fused where the processor can: spelled out, so that a loop's body and its rest agree."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args) if FUSED else builder.fadd(builder.fmul(args[0], args[1]), args[2])

    return x(x, x, x), codegen


@intrinsic
def _times_power(typingctx, x, shifted):
    """x · 2ⁿ, where shifted = 1.5 · 2^(mantissa bits) + n: its lowest bits are n, added to x's exponent."""
    bits, mantissa = (32, 23) if x == types.float32 else (64, 52)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        integer = ir.IntType(bits)
        exponent = builder.shl(builder.bitcast(args[1], integer), ir.Constant(integer, mantissa))
        return builder.bitcast(builder.add(builder.bitcast(args[0], integer), exponent), args[0].type)

    return x(x, x), codegen


@inlined
def exp_of(x, like):
    """exp(x) for x <= 0, a NaN stays; below -87 (float64: -708) the result is 0. like: an array of x's dtype.

    Cody-Waite reduction x = n·ln 2 + r with a polynomial in r: Cephes' for float32 (relative error 8e-8), Taylor's to
    degree 13 for float64 (2e-16).
    """
    T = like.dtype.type
    single = like.itemsize == 4
    lowest = T(-87.0) if single else T(-708.0)
    shift = T(12582912.0) if single else T(6755399441055744.0)
    high = T(0.693359375) if single else T(0.6931471803691238)
    low = T(-2.12194440e-4) if single else T(1.9082149292705877e-10)
    bounded = x if x > lowest else lowest
    shifted = multiply_add(bounded, T(1.4426950408889634), shift)
    n = shifted - shift
    r = multiply_add(-n, high, bounded)
    r = multiply_add(-n, low, r)
    if single:
        p = multiply_add(T(1.9875691500e-4), r, T(1.3981999507e-3))
        p = multiply_add(p, r, T(8.3334519073e-3))
        p = multiply_add(p, r, T(4.1665795894e-2))
        p = multiply_add(p, r, T(1.6666665459e-1))
        p = multiply_add(p, r, T(5.0000001201e-1))
    else:
        p = multiply_add(T(1 / 6227020800), r, T(1 / 479001600))
        p = multiply_add(p, r, T(1 / 39916800))
        p = multiply_add(p, r, T(1 / 3628800))
        p = multiply_add(p, r, T(1 / 362880))
        p = multiply_add(p, r, T(1 / 40320))
        p = multiply_add(p, r, T(1 / 5040))
        p = multiply_add(p, r, T(1 / 720))
        p = multiply_add(p, r, T(1 / 120))
        p = multiply_add(p, r, T(1 / 24))
        p = multiply_add(p, r, T(1 / 6))
        p = multiply_add(p, r, T(1 / 2))
    p = multiply_add(p, r * r, r) + T(1)
    result = _times_power(p, shifted) if x > lowest else T(0)
    return result if x == x else x


@jit
def exp(z):
    """z = exp(z) in place for z <= 0; see `exp_of`."""
    for i in range(z.shape[0]):
        z[i] = exp_of(z[i], z)
