"""A network as a value: the block of numbers that compiled code, C and Python hand about, and what it refers to."""

from typing import Any

import numpy as np

from .. import plan as p
from ..plan import Model
from . import single, single_table, steps
from .single import EACH, NONE, ONE

ROW_DTYPES = frozenset(map(np.dtype, (np.uint8, np.float32, np.float64)))  # of rows that are predicted as they are


class CompiledNetwork:
    """A network for compiled code, as `Network.compiled` makes it: an argument of your own @njit functions.

    It is the network itself, not a copy: parameters that change are seen at once. It must live as long as compiled
    code uses it, as the argument of a call does. Any number of threads may use one, each with a scratch of its own.

    Attributes, inside compiled code too: inputs (D), outputs (K), scratch_size (elements). In Python: dtype, address
    (of the block that C takes, see capi).
    """

    def __init__(self, model: Model, factor: Any = None, offset: Any = None) -> None:
        """factor, offset: how inputs are scaled, numbers or float64 arrays (D,); None: they are taken as they are."""
        plan, dtype = model.plan, model.params.dtype
        self.dtype = dtype
        self.inputs, self.outputs = int(plan[0, p.TAKES]), int(plan[-1, p.OUTPUTS])
        program = single_table.build(plan)
        self.scratch_size = program.scratch
        scales = NONE if factor is None else ONE if np.ndim(factor) == 0 else EACH
        pair = [np.array(np.ravel(1.0 if n is None else n), np.float64) for n in (factor, offset)]
        curved = plan[:, p.ACTIVATION] > p.RELU
        others = bool(curved.any() or (program.steps[:, single_table.WHAT] != single_table.DENSE).any())
        functions = [steps.pointer("predict_row", dtype.name)]
        functions += [steps.pointer("single_layers", dtype.name)] if others else []
        self._kept = (model, program, pair, functions)  # what the block has addresses of
        self._block = block = np.zeros(single.FIELDS, np.int64)
        numbers = {
            single.MARK: single.MARKED | dtype.itemsize,
            single.INPUTS: self.inputs, single.OUTPUTS: self.outputs, single.SCRATCH: self.scratch_size,
            single.ROW: functions[0].__wrapper_address__(), single.LAYERS: functions[-1].__wrapper_address__(),
            single.SCALES: scales, single.STEP_COUNT: len(program.steps),
        }  # fmt: skip
        arrays = {
            single.FACTOR: pair[0], single.OFFSET: pair[1], single.PLAN: plan, single.STEPS: program.steps,
            single.WINDOWS: program.table, single.PARAMS: model.params, single.BUFFERS: model.buffers,
            single.RATES: model.rates,
        }  # fmt: skip
        for field, number in (numbers | {field: address_of(array) for field, array in arrays.items()}).items():
            block[field] = number
        self.address = address_of(block)
        self._entries = _Entries(dtype)

    def scratch(self, threads: int | None = None) -> np.ndarray:
        """Room for a prediction (scratch_size,), or for one in each of some threads (threads, scratch_size)."""
        room = p.zeros((1 if threads is None else threads) * self.scratch_size, self.dtype)
        return room if threads is None else room.reshape(threads, self.scratch_size)

    def rows(self, x: np.ndarray, scratch: np.ndarray, out: np.ndarray, checks: bool) -> Any:
        """Unchecked: raw x (N, D) uint8, float32 or float64 -> out (N, K), all C-contiguous and writeable.

        With `checks` it ends at the first row that is not finite once scaled. Returns the rows that are done.
        """
        return self._entries[x.dtype](self._block, x, scratch, out, checks)

    def __reduce__(self) -> Any:
        raise TypeError("a CompiledNetwork holds addresses of this process: pickle the Network, and compile it there")

    def __repr__(self) -> str:
        return f"CompiledNetwork(inputs={self.inputs}, outputs={self.outputs}, dtype='{self.dtype}')"


def address_of(array: np.ndarray) -> int:
    """Where an array's elements begin."""
    return int(array.__array_interface__["data"][0])


class _Entries(dict[np.dtype, Any]):
    """What predicts rows of a dtype, compiled when they first come."""

    def __init__(self, dtype: np.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __missing__(self, kind: np.dtype) -> Any:
        entry = self[kind] = steps.get(f"rows_of_{kind.name}", self.dtype)
        return entry
