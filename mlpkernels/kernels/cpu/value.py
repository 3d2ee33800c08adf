"""A network as a value: the block of numbers that compiled code, C and Python hand about, and what it refers to."""

import operator
from typing import Any

import numpy as np

from .. import plan as p
from ..plan import Model, Source
from . import gradient, single, single_table, steps
from .arguments import integer
from .inside_types import network_type, workspace_type
from .layout import make_workspace
from .single import EACH, NONE, ONE
from .verbs import uses

ROW_DTYPES = frozenset(map(np.dtype, (np.uint8, np.float32, np.float64)))  # of rows that are predicted as they are

_C_FUNCTIONS = [(name, dtype) for dtype in ("float32", "float64")
                for name in ("c_predict_one", "c_predict_rows", "c_predict_doubles")]  # fmt: skip


class CompiledNetwork:
    """A network for compiled code, as `Network.compiled` makes it: an argument of your own @njit functions.

    It is the network itself, not a copy: parameters that change are seen at once. It must live as long as compiled
    code uses it, as the argument of a call does. Any number of threads may use one, each with a scratch of its own.

    Attributes, inside compiled code too: inputs (D), outputs (K), scratch_size (elements). In Python: dtype, address
    (of the block that C takes, see capi).
    """

    def __init__(self, model: Model, factor: Any = None, offset: Any = None, loss_scale: float = 1.0) -> None:
        """factor, offset: how inputs are scaled, numbers or float64 arrays (D,); None: they are taken as they are.

        loss_scale: what the kernels' loss of a row is multiplied by to be the network's.
        """
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
        self.model, self.loss_scale = model, loss_scale
        self._kept = (program, pair, functions)  # what the block has addresses of, too
        self._block = block = np.zeros(single.FIELDS, np.int64)
        numbers = {
            single.MARK: single.MARKED | dtype.itemsize,
            single.INPUTS: self.inputs, single.OUTPUTS: self.outputs, single.SCRATCH: self.scratch_size,
            single.ROW: functions[0].__wrapper_address__(), single.LAYERS: functions[-1].__wrapper_address__(),
            single.SCALES: scales, single.STEP_COUNT: len(program.steps), single.LIT: program.lit,
        }  # fmt: skip
        arrays = {
            single.FACTOR: pair[0], single.OFFSET: pair[1], single.PLAN: plan, single.STEPS: program.steps,
            single.WINDOWS: program.table, single.PARAMS: model.params, single.BUFFERS: model.buffers,
            single.RATES: model.rates,
        }  # fmt: skip
        for field, number in (numbers | {field: address_of(array) for field, array in arrays.items()}).items():
            block[field] = number
        self.address = address_of(block)
        self._numba_type_ = network_type(dtype.name)
        self._entries = _Entries(dtype)

    def scratch(self, threads: int | None = None) -> np.ndarray:
        """Room for a prediction (scratch_size,), or for one in each of some threads (threads, scratch_size)."""
        room = p.zeros((1 if threads is None else threads) * self.scratch_size, self.dtype)
        return room if threads is None else room.reshape(threads, self.scratch_size)

    def gradient(self) -> np.ndarray:
        """Room for a gradient (P,), laid out as `Network.params`: `Network.views` gives it names."""
        return p.zeros(self.model.params.size, self.dtype)

    def workspace(self, rows: int, seed: int = 0) -> "GradientWorkspace":
        """Room for `loss_and_gradient` of up to so many rows, one a thread. seed: of dropout's masks."""
        return GradientWorkspace(self, rows, seed)

    def rows(self, x: np.ndarray, scratch: np.ndarray, out: np.ndarray, checks: bool) -> Any:
        """Unchecked: raw x (N, D) uint8, float32 or float64 -> out (N, K), all C-contiguous and writeable.

        With `checks` it ends at the first row that is not finite once scaled. Returns the rows that are done.
        """
        return self._entries[x.dtype](self._block, x, scratch, out, checks)

    def with_c_functions(self) -> int:
        """The address of the block, once the functions that C calls are compiled and in it."""
        for field, (name, dtype) in enumerate(_C_FUNCTIONS, single.C_FUNCTIONS):
            self._block[field] = function_address(name, dtype)
        return self.address

    def __reduce__(self) -> Any:
        raise TypeError("a CompiledNetwork holds addresses of this process: pickle the Network, and compile it there")

    def __repr__(self) -> str:
        return f"CompiledNetwork(inputs={self.inputs}, outputs={self.outputs}, dtype='{self.dtype}')"


def function_address(name: str, dtype: str) -> int:
    """The address of an entry point, as C calls it."""
    return int(steps.pointer(name, dtype).__wrapper_address__())


def address_of(array: np.ndarray) -> int:
    """Where an array's elements begin."""
    return int(array.__array_interface__["data"][0])


class GradientWorkspace:
    """What `loss_and_gradient` works in: room for `rows` rows of one network, and the count of its calls.

    It must live as long as compiled code uses it; of several threads each has one of its own.
    """

    def __init__(self, net: CompiledNetwork, rows: int, seed: int = 0) -> None:
        rows, seed = operator.index(rows), integer("seed", seed)
        if rows < 1:
            raise ValueError(f"rows={rows}: room for at least 1 was wanted")
        self.net, self.rows = net, rows
        model, dtype = net.model, net.dtype
        work = make_workspace(model.plan, rows, dtype)
        loss = int(model.plan[-1, p.LOSS])
        batch = {
            "rows": p.zeros(rows * net.inputs, dtype), "labels": np.zeros(rows, np.int32),
            "targets": p.zeros(rows * net.outputs if loss != p.SOFTMAX else 0, dtype), "weights": p.zeros(rows, dtype),
            "order": np.arange(rows), "settings": np.zeros(p.SETTINGS), "scale": np.array([net.loss_scale]),
        }  # fmt: skip
        arrays = [(work._asdict() | batch)[name] for name in gradient.MEMBERS]
        empty = np.zeros(0, dtype)
        source = Source(np.zeros((0, 0), np.uint8), np.zeros((0, 0), dtype), 1, 0, batch["labels"], empty)
        rows_phase, params_phase, kinds = steps.phases(dtype, uses(model, source))
        functions = [rows_phase, params_phase, *kinds]
        entry = steps.pointer("gradient", dtype.name)
        self._kept = (arrays, functions, entry)  # what the block has addresses of
        self._block = block = np.zeros(gradient.FIELDS, np.int64)
        numbers = {
            gradient.CAPACITY: rows, gradient.PLAN: address_of(model.plan), gradient.SEED: seed, gradient.LOSS: loss,
            gradient.NORMS: int((model.plan[:, p.KIND] == p.BATCH_NORM).sum()), gradient.LAYERS: len(model.plan),
            gradient.PARAMETERS: model.params.size, gradient.STATISTICS: model.buffers.size,
            gradient.X_STRIDE: p.odd_stride(net.inputs), gradient.FUNCTION: entry.__wrapper_address__(),
        }  # fmt: skip
        for field, number in numbers.items():
            block[field] = number
        block[gradient.PHASES : gradient.ARRAYS] = [function.__wrapper_address__() for function in functions]
        block[gradient.ARRAYS :: 2] = [address_of(array) for array in arrays]
        block[gradient.ARRAYS + 1 :: 2] = [array.size for array in arrays]
        self.address = address_of(block)
        self._numba_type_ = workspace_type(dtype.name)

    def __reduce__(self) -> Any:
        raise TypeError("a GradientWorkspace holds addresses of this process: make another there")

    def __repr__(self) -> str:
        return f"GradientWorkspace(rows={self.rows}, {self.net!r})"


class _Entries(dict[np.dtype, Any]):
    """What predicts rows of a dtype, compiled when they first come."""

    def __init__(self, dtype: np.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __missing__(self, kind: np.dtype) -> Any:
        entry = self[kind] = steps.get(f"rows_of_{kind.name}", self.dtype)
        return entry
