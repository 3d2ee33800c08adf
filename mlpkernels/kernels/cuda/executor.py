"""What runs a program: a launch for each phase, or one cooperative launch in which the blocks wait for one another.

Both run the same phase function with the same pieces, so they give the same bits. The one launch costs a grid barrier
a phase; the other, which is always there, a launch a phase.

Kernels are compiled by each process anew: numba-cuda-mlir 0.6 has a cache on disk, but it forgets that a kernel has to
be launched cooperatively, and no key of either package knows the device functions of other files.
"""

import warnings
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from .. import beside
from . import driver
from .driver import SIMULATED, cuda
from .phases import phase_function
from .product import LARGE, MEDIUM, ROWS, SMALL, Tile
from .sums import THREADS, WIDE

MODES = ("auto", "phases", "one launch")
mode = "auto"  # of MODES; "auto" takes one launch where the GPU can


@cache
def kernels(dtype: str, tile: Tile, images: bool) -> SimpleNamespace:
    """phase: one phase of one step; steps: all phases of steps first … last - 1, in one cooperative launch.

    images: for networks with layers other than dense ones and dropout, which take more registers.
    """
    T, run = np.dtype(dtype).type, phase_function(dtype, tile, images)
    SIZE = max(tile.scratch, ROWS[dtype].scratch, MEDIUM[dtype].scratch if images else 0)

    def phase(
        number, step, mem, data, values, order, labels, targets, weights, factor, offset, places, doubles, table,
        operations, phases, head, layer_rates, settings, rates, keys, loss, correct, out, state,
    ):  # fmt: skip
        if SIMULATED:  # noqa: SIM108 (the branch that is not taken is not compiled)
            shared = cuda.shared.array(SIZE, T)
        else:
            shared = cuda.shared.array(SIZE, T, alignment=16)
        wide, stopped_at = cuda.shared.array(WIDE, np.float64), cuda.shared.array(1, np.int64)
        # one look for all threads: a block that comes late may find the first one at writing there
        if cuda.threadIdx.x == 0:
            stopped_at[0] = state[0]
        cuda.syncthreads()
        if stopped_at[0] < 0:
            run(
                number, step, cuda.blockIdx.x, cuda.gridDim.x, shared, wide, mem, data, values, order, labels, targets,
                weights, factor, offset, places, doubles, table, operations, phases, head, layer_rates, settings, rates,
                keys, loss, correct, out, state,
            )  # fmt: skip

    def steps(
        count, first, last, mem, data, values, order, labels, targets, weights, factor, offset, places, doubles, table,
        operations, phases, head, layer_rates, settings, rates, keys, loss, correct, out, state,
    ):  # fmt: skip
        if SIMULATED:  # noqa: SIM108 (the branch that is not taken is not compiled)
            shared = cuda.shared.array(SIZE, T)
        else:
            shared = cuda.shared.array(SIZE, T, alignment=16)
        wide = cuda.shared.array(WIDE, np.float64)
        grid = cuda.cg.this_grid()
        going = state[0] < 0
        step = first
        while going and step < last:
            number = 0
            while going and number < count:
                going = run(
                    number, step, cuda.blockIdx.x, cuda.gridDim.x, shared, wide, mem, data, values, order, labels,
                    targets, weights, factor, offset, places, doubles, table, operations, phases, head, layer_rates,
                    settings, rates, keys, loss, correct, out, state,
                )  # fmt: skip
                grid.sync()
                number += 1
            step += 1

    beside.compiling()
    for kernel in (phase, steps):
        kernel.__name__ += f"{'_of_images' if images else ''}_{tile.rows}x{tile.columns}"
    return SimpleNamespace(phase=cuda.jit(phase), steps=cuda.jit(steps))


def tile_of(dtype: str, batch: int, widest: int) -> Tile:
    """The tile of a network's products: large ones where its widest layer makes at least 64 of them.

    To be measured on a GPU.
    """
    large = LARGE[dtype]
    return large if -(-batch // large.rows) * -(-widest // large.columns) >= 64 else SMALL[dtype]


@cache
def _multiprocessors() -> int:
    return 1 if SIMULATED else int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


@cache
def _cooperative() -> bool:
    """Whether the GPU can launch blocks that wait for one another."""
    return SIMULATED or bool(cuda.get_current_device().COOPERATIVE_LAUNCH)


def run_phases(made: Any, phases: int, steps: range, stream: Any, arguments: tuple[Any, ...]) -> None:
    """Launch every phase of some steps, one after the other."""
    for step in steps:
        for number in range(phases):
            driver.launch(made.phase, 2 * _multiprocessors(), THREADS, stream, number, step, *arguments)


_refusals: list[str] = []  # why the GPU did not take the one launch: then it is not asked again


def run_steps(made: Any, phases: int, steps: range, stream: Any, arguments: tuple[Any, ...]) -> None:
    """The same, in one launch where that is chosen and the GPU can.

    A block a multiprocessor: with 256 threads, at most 255 registers each and 48 KB all of them are there at once.
    RuntimeWarning where it should be possible and the package or the driver refuses; DeviceError in "one launch".
    """
    if mode == "phases" or (mode == "auto" and (_refusals or not _cooperative())):
        run_phases(made, phases, steps, stream, arguments)
        return
    blocks = 1 if SIMULATED else _multiprocessors()  # the simulator runs a block after the other
    try:
        driver.launch(made.steps, blocks, THREADS, stream, phases, steps.start, steps.stop, *arguments)
    except driver.DeviceError as error:
        if mode != "auto":
            raise
        _refusals.append(str(error))
        warnings.warn(f"each phase is a launch of its own, since {error}", RuntimeWarning, stacklevel=2)
        run_phases(made, phases, steps, stream, arguments)
