"""LLVM IR in pieces that the micro-kernels share: a constant, a counted loop, a condition, a choice
among tile sizes.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

I64 = ir.IntType(64)


def constant(value: int) -> Any:
    return ir.Constant(I64, value)


def rolled(builder: Any, back: Any, scalar: bool = False) -> None:
    """Have a loop left as it is written; `back` is the branch that closes it. scalar: not vectorised, either.

    Unrolled, some tiles of 12 sums no longer fit 16 registers, and code grows; an epoch of small batches took 2 to 3 %
    longer.
    """
    module = builder.module
    orders = [module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])]
    if scalar:
        off = [ir.MetaDataString(module, "llvm.loop.vectorize.enable"), ir.Constant(ir.IntType(1), 0)]
        orders.append(module.add_metadata(off))
    name = module.add_metadata([*orders, constant(len(module.metadata))])
    name.operands = (name, *orders)  # LLVM tells loops apart by nodes that begin with themselves
    back.set_metadata("llvm.loop", name)


def loop(
    builder: Any, count: Any, start: list[Any], body: Callable[[list[Any]], list[Any]], scalar: bool = False
) -> list[Any]:  # fmt: skip
    """values = start; count times: values = body(values); scalar: see `rolled`."""
    entry = builder.block
    head, inside, done = (builder.append_basic_block(name) for name in ("head", "inside", "done"))
    builder.branch(head)
    builder.position_at_end(head)
    values = []
    for value in [constant(0), *start]:
        phi = builder.phi(value.type)
        phi.add_incoming(value, entry)
        values.append(phi)
    builder.cbranch(builder.icmp_signed("<", values[0], count), inside, done)
    builder.position_at_end(inside)
    after = [builder.add(values[0], constant(1)), *body(values[1:])]
    for phi, value in zip(values, after, strict=True):
        phi.add_incoming(value, builder.block)
    rolled(builder, builder.branch(head), scalar)
    builder.position_at_end(done)
    return values[1:]


def when(builder: Any, condition: Any, values: list[Any], body: Callable[[list[Any]], list[Any]]) -> list[Any]:
    """values = body(values), if condition holds."""
    entry = builder.block
    inside, done = (builder.append_basic_block(name) for name in ("inside", "done"))
    builder.cbranch(condition, inside, done)
    builder.position_at_end(inside)
    after, last = body(values), builder.block
    builder.branch(done)
    builder.position_at_end(done)
    merged = []
    for before, value in zip(values, after, strict=True):
        phi = builder.phi(value.type)
        phi.add_incoming(before, entry)
        phi.add_incoming(value, last)
        merged.append(phi)
    return merged


def switch(
    builder: Any, rows: Any, columns: Any, sizes: list[tuple[int, int]], emit: Callable[[int, int], None]
) -> None:
    """One block a tile size, the one for (rows, columns) entered."""
    end = builder.append_basic_block("tile.end")
    cases = [(r, c, builder.append_basic_block(f"tile{r}x{c}")) for r, c in sizes]
    chosen = builder.switch(builder.add(builder.mul(rows, constant(8)), columns), cases[0][2])
    for r, c, block in cases:
        if block is not cases[0][2]:
            chosen.add_case(constant(r * 8 + c), block)
        builder.position_at_end(block)
        emit(r, c)
        builder.branch(end)
    builder.position_at_end(end)
