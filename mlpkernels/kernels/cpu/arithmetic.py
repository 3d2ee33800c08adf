"""Floating-point formulas as LLVM IR, written once for a number and for all lanes of a vector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from . import simd


def _constant(kind: Any, value: float) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)


class Numbers:
    """Floating-point LLVM values in Python's notation, a number or a vector's lanes: each operation is emitted.

    Python's numbers stand for constants. Comparisons are false where there is a NaN, and are what `where` chooses by.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value
        self.single = isinstance(getattr(value.type, "element", value.type), ir.FloatType)

    def _new(self, value: Any) -> Numbers:
        return Numbers(self.builder, value)

    def _operand(self, other: Numbers | float) -> Any:
        return other.value if isinstance(other, Numbers) else _constant(self.value.type, other)

    def constant(self, value: float) -> Numbers:
        """The number, of the same type."""
        return self._new(_constant(self.value.type, value))

    def __add__(self, other: Numbers | float) -> Numbers:
        return self._new(self.builder.fadd(self.value, self._operand(other)))

    def __sub__(self, other: Numbers | float) -> Numbers:
        return self._new(self.builder.fsub(self.value, self._operand(other)))

    def __mul__(self, other: Numbers | float) -> Numbers:
        return self._new(self.builder.fmul(self.value, self._operand(other)))

    def __truediv__(self, other: Numbers | float) -> Numbers:
        return self._new(self.builder.fdiv(self.value, self._operand(other)))

    def __neg__(self) -> Numbers:
        return self._new(self.builder.fneg(self.value))

    def __gt__(self, other: Numbers | float) -> Any:
        return self.builder.fcmp_ordered(">", self.value, self._operand(other))

    def __lt__(self, other: Numbers | float) -> Any:
        return self.builder.fcmp_ordered("<", self.value, self._operand(other))

    def is_nan(self) -> Any:
        return self.builder.fcmp_unordered("uno", self.value, self.value)

    def where(self, condition: Any, other: Numbers | float) -> Numbers:
        """self where the condition holds, else the other."""
        return self._new(self.builder.select(condition, self.value, self._operand(other)))

    def times_plus(self, factor: Numbers | float, term: Numbers | float) -> Numbers:
        """self · factor + term, fused where the processor can: spelled out, so that a loop's body and rest agree."""
        fused = simd._fused(self.builder, self.value.type)
        return self._new(fused(self.value, self._operand(factor), self._operand(term)))

    def polynomial(self, coefficients: Sequence[float]) -> Numbers:
        """Σ of coefficients times powers of self, that of the highest power first, by Horner's scheme."""
        made = self.constant(coefficients[0])
        for coefficient in coefficients[1:]:
            made = made.times_plus(self, coefficient)
        return made

    # ---- as bits

    def _bits(self) -> tuple[Any, int]:
        """(the type of integers as wide, the bits of a mantissa)."""
        integer, mantissa = (ir.IntType(32), 23) if self.single else (ir.IntType(64), 52)
        kind = self.value.type
        return ir.VectorType(integer, kind.count) if isinstance(kind, ir.VectorType) else integer, mantissa

    def times_power(self, shifted: Numbers) -> Numbers:
        """self · 2ⁿ, where shifted = 1.5 · 2^(mantissa bits) + n: its lowest bits are n, added to self's exponent."""
        builder, (whole, mantissa) = self.builder, self._bits()
        exponent = builder.shl(builder.bitcast(shifted.value, whole), _constant(whole, mantissa))
        return self._new(builder.bitcast(builder.add(builder.bitcast(self.value, whole), exponent), self.value.type))

    def parted(self, lowest: int) -> tuple[Numbers, Numbers]:
        """(n, m), self = 2ⁿ · m, of a normal number above 0; m from the number of the bits `lowest` to its double."""
        builder, (whole, mantissa) = self.builder, self._bits()
        low = _constant(whole, lowest)
        above = builder.sub(builder.bitcast(self.value, whole), low)
        n = builder.sitofp(builder.ashr(above, _constant(whole, mantissa)), self.value.type)
        m = builder.add(builder.and_(above, _constant(whole, (1 << mantissa) - 1)), low)
        return self._new(n), self._new(builder.bitcast(m, self.value.type))


@intrinsic
def multiply_add(typingctx, x, y, z):
    """x · y + z of numbers; see `Numbers.times_plus`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, y, z = (Numbers(builder, value) for value in args)
        return x.times_plus(y, z).value

    return x(x, x, x), codegen
