"""Where a network and its mini-batch lie on the GPU, and the program of phases that a training step is.

All numbers of the network's dtype lie in one flat array: parameters, the optimiser's memory, the gradient, two batches
of inputs, every layer's outputs and deltas. A table has a row a layer: the plan's columns, then those below.
"""

from typing import Any, NamedTuple

import numpy as np

from .. import plan as p
from ..plan import odd_stride
from .sums import THREADS

# Columns behind the plan's: where a layer's inputs (and, of the first, the other batch's), outputs and deltas lie,
# and how far apart samples are; places of a pool; moments of a batch norm; which dropout it is.
IN_AT, IN_SAMPLE, FLIP, OUT_AT, SAMPLE, DELTA_AT, DELTA_BELOW, PLACES_AT, MOMENTS_AT, DROP = range(
    p.COLUMNS, p.COLUMNS + 10
)
FIELDS = p.COLUMNS + 10

# What a batch norm keeps of its batch: MOMENTS_AT plus these times its WEIGHT_STRIDE.
MEAN, VARIANCE, SCALE, DELTA_SUM, PRODUCT_SUM, MOMENTS = range(6)

# Entries of the head: where things lie, and what a call says.
(
    FIRST_AT, SECOND_AT, GRAD_AT, X_AT, X_SAMPLE, X_FLIP, WIDTH, LOSSES_AT, NORMS_AT, NORMS, LAYERS, BATCH, START, STOP,
    ORDERED, FROM_BYTES, FIRST_STEP, LAST_STEP, TRAINS, FUSED, DROPS, ROOM, PENALTY_AT, PENALIZED, HEAD,
) = range(25)  # fmt: skip

# Columns of a program's operations, and of its phases.
CODE, LAYER, PARTIAL, OPERATION = range(4)
CHAINED, BEGIN, END, CHECKED, PHASE = range(5)

# Operations: the first ones take rows of the batch, and may follow one another in a chain that a block runs for a few
# rows; the others are cut into items that know nothing of one another.
(
    GATHER, DENSE_UP, DENSE_DOWN, POOL_UP, POOL_DOWN, NORM_UP, NORM_DOWN, DROP_UP, DROP_DOWN, LOSS, COPY_OUT,
    DENSE_UP_TILES, DENSE_DOWN_TILES, CONV_UP, CONV_DOWN, MOMENTS_UP, MOMENTS_DOWN, DENSE_PARAMS, CONV_PARAMS,
    NORM_PARAMS, BIASES, CHANNEL_BIASES, NORM_BIASES, PENALTY, STATISTICS, SQUARES, UPDATE, GATHER_NEXT, TOTALS,
) = range(29)  # fmt: skip
ROW_OPERATIONS = range(DENSE_UP_TILES)

# Weights of a dense layer at most that a chain's every block reads whole: 128 KB of float32. To be measured on a GPU.
CHAIN_WEIGHTS = 32768
CHUNK = 4 * THREADS  # elements of an item of SQUARES and UPDATE

# step columns of the table of rates: see verbs.step_rates
LEARNING_RATE, ADAM_RATE, ADAM_SCALE, ADAM_EPSILON, KEEP, DECAY, DIVISOR, RATE_COLUMNS = range(8)
# layer columns of the table of layer rates
KEPT_FACTOR, DROP_LIMIT, EPSILON, NORM_MOMENTUM, LAYER_RATES = range(5)


class Layout(NamedTuple):
    """table (L, FIELDS) and head (HEAD,) int64, and the sizes of the flat arrays: numbers, doubles, places."""

    table: np.ndarray
    head: np.ndarray
    numbers: int
    doubles: int
    places: int


def layout(plan: np.ndarray, batch: int) -> Layout:
    """Where everything lies for mini-batches of up to `batch` rows."""
    layers, parameters = len(plan), int(plan[-1, p.BIAS] + plan[-1, p.WEIGHT_STRIDE])
    table, head = np.zeros((layers, FIELDS), np.int64), np.zeros(HEAD, np.int64)
    table[:, : p.COLUMNS] = plan
    width = int(plan[0, p.TAKES])
    x_sample = odd_stride(width)
    head[FIRST_AT], head[SECOND_AT], head[GRAD_AT], head[X_AT] = parameters * np.arange(1, 5)
    head[WIDTH], head[X_SAMPLE], head[X_FLIP], head[LAYERS] = width, x_sample, x_sample * batch, layers
    at = int(head[X_AT]) + 2 * x_sample * batch
    doubles, places, drops = p.buffer_size(plan), 0, 0
    for number, row in enumerate(table):
        below = table[number - 1] if number else None
        row[IN_AT], row[IN_SAMPLE] = (head[X_AT], x_sample) if below is None else (below[OUT_AT], below[SAMPLE])
        row[FLIP] = head[X_FLIP] if below is None else 0
        row[DELTA_BELOW] = 0 if below is None else below[DELTA_AT]
        row[SAMPLE] = odd_stride(int(row[p.GIVES]))
        row[OUT_AT], row[DELTA_AT] = at, at + row[SAMPLE] * batch
        at += 2 * int(row[SAMPLE]) * batch
        if row[p.KIND] == p.POOL:
            row[PLACES_AT], places = places, places + int(row[p.GIVES]) * batch
        elif row[p.KIND] == p.BATCH_NORM:
            row[MOMENTS_AT], doubles = doubles, doubles + MOMENTS * int(row[p.WEIGHT_STRIDE])
        elif row[p.KIND] == p.DROPOUT:
            row[DROP], drops = drops, drops + 1
    head[DROPS], head[ROOM] = drops, batch
    head[LOSSES_AT], doubles = doubles, doubles + 2 * batch  # losses of rows, then whether they are right
    head[NORMS_AT] = doubles  # and behind them as many of the penalty
    head[NORMS] = sum(-(-(int(row[p.BIAS] + row[p.WEIGHT_STRIDE] - row[p.WEIGHT])) // CHUNK) for row in table)
    head[PENALTY_AT] = head[NORMS_AT] + head[NORMS]
    return Layout(table, head, at, doubles + 2 * int(head[NORMS]), places)


class Program:
    """Operations and phases, built one after the other. Between phases every block waits for all others."""

    def __init__(self) -> None:
        self.operations: list[tuple[int, int, int]] = []
        self.phases: list[tuple[int, int, int, int]] = []
        self._chain: list[tuple[int, int, int]] = []
        self._checked = False

    def chain(self, code: int, layer: int = 0) -> None:
        """An operation on rows, behind the one before in the same phase where that is one too."""
        self._chain.append((code, layer, 0))

    def close(self) -> None:
        """End the chain under way: what follows needs all rows."""
        if self._chain:
            self._append(True, self._chain)
            self._chain = []

    def check_next(self) -> None:
        """The next phase first adds up the loss, and stops where it is not finite."""
        self.close()
        self._checked = True

    def items(self, *operations: Any) -> None:
        """A phase of operations that are cut into items, (code, layer) or (code, layer, partial)."""
        self.close()
        self._append(False, [(*operation, 0, 0)[:3] for operation in operations])

    def _append(self, chained: bool, operations: list[tuple[int, int, int]]) -> None:
        begin = len(self.operations)
        self.operations += operations
        self.phases.append((int(chained), begin, len(self.operations), int(self._checked)))
        self._checked = False

    def tables(self) -> tuple[np.ndarray, np.ndarray]:
        """(operations, phases) as the kernels read them."""
        self.close()
        return np.array(self.operations, np.int64).reshape(-1, OPERATION), np.array(self.phases, np.int64)


def _up(program: Program, table: np.ndarray, trains: bool) -> None:
    """All layers forward."""
    for layer, row in enumerate(table):
        kind = row[p.KIND]
        if kind == p.DENSE and row[p.INPUTS] * row[p.OUTPUTS] <= CHAIN_WEIGHTS:
            program.chain(DENSE_UP, layer)
        elif kind == p.DENSE:
            program.items((DENSE_UP_TILES, layer))
        elif kind == p.CONV:
            program.items((CONV_UP, layer))
        elif kind == p.POOL:
            program.chain(POOL_UP, layer)
        elif kind == p.BATCH_NORM:
            if trains:
                program.items((MOMENTS_UP, layer))
            program.chain(NORM_UP, layer)
        else:
            program.chain(DROP_UP, layer)


def _down(program: Program, table: np.ndarray) -> None:
    """The deltas of all layers but the last; a batch norm's sums, of the first layer's too."""
    for layer in range(len(table) - 1, -1, -1):
        row = table[layer]
        if row[p.KIND] == p.BATCH_NORM:
            program.items((MOMENTS_DOWN, layer))
        if layer == 0:
            return
        if row[p.KIND] == p.DENSE and row[p.INPUTS] * row[p.OUTPUTS] > CHAIN_WEIGHTS:
            program.items((DENSE_DOWN_TILES, layer))
        elif row[p.KIND] == p.CONV:
            program.items((CONV_DOWN, layer))
        else:
            codes = {p.DENSE: DENSE_DOWN, p.POOL: POOL_DOWN, p.BATCH_NORM: NORM_DOWN, p.DROPOUT: DROP_DOWN}
            program.chain(codes[int(row[p.KIND])], layer)


def _by_chunks(code: int, table: np.ndarray, layers: list[int]) -> list[tuple[int, int, int]]:
    """An operation on all parameters of some layers, each item with the place of its partial sum."""
    partial, operations = 0, []
    for layer in layers:
        operations.append((code, layer, partial))
        row = table[layer]
        partial += -(-int(row[p.BIAS] + row[p.WEIGHT_STRIDE] - row[p.WEIGHT]) // CHUNK)
    return operations


def training(table: np.ndarray, clips: bool, updates: bool, penalizes: bool) -> Program:
    """The phases of a training step, whose batch is gathered; without updates, those of a gradient."""
    program = Program()
    trained = [layer for layer, row in enumerate(table) if row[p.WEIGHT_STRIDE]]
    if penalizes:
        program.items(*_by_chunks(PENALTY, table, trained))
    _up(program, table, True)
    program.chain(LOSS, len(table) - 1)
    _down(program, table)
    if updates:
        program.check_next()
    params = {
        p.DENSE: (DENSE_PARAMS, BIASES), p.CONV: (CONV_PARAMS, CHANNEL_BIASES),
        p.BATCH_NORM: (NORM_PARAMS, NORM_BIASES),
    }  # fmt: skip
    sums = [(code, layer) for layer in trained for code in params[int(table[layer, p.KIND])]]
    norms = [(STATISTICS, layer) for layer in trained if table[layer, p.KIND] == p.BATCH_NORM]
    if not updates:
        program.items(*sums, (TOTALS, 0))
        return program
    program.items(*sums, *norms, (GATHER_NEXT, 0))
    if clips:
        program.items(*_by_chunks(SQUARES, table, trained))
        program.items(*[(UPDATE, layer) for layer in trained])
    return program


def inference(table: np.ndarray, loses: bool) -> Program:
    """The phases that make logits of rows and, with `loses`, their losses; else the logits are copied out."""
    program = Program()
    program.chain(GATHER)
    _up(program, table, False)
    program.chain(LOSS if loses else COPY_OUT, len(table) - 1)
    if loses:
        program.items((TOTALS, 0))
    return program


def gathering() -> Program:
    """The phase that brings the first batch."""
    program = Program()
    program.chain(GATHER)
    return program
