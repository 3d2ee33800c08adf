"""The loss and its gradient over a few rows, for an optimiser of the reader's own: the executor behind an address.

A workspace is a second block of int64 numbers, beside the network's (single.py), and its address is all that a caller
has of it. The executor's tuples of arrays are made of it here, without owners, so nothing is allocated.
"""

import numpy as np
from numba import carray

from .. import plan as p
from ..plan import Model, OptimizerState, Source, Workspace
from . import single
from .addresses import at, phases_at
from .held import Call, hold
from .jit import inner
from .network import DELTAS, GRADIENT, moments_phase
from .norm import step_key, update_statistics
from .simd import advance, load, store

# The block's numbers. CAPACITY: the rows that there is room for. PLAN: of the network that it was made for. STEP: calls
# so far, which with SEED is what dropout's masks come from. NORMS, LAYERS, PARAMETERS, STATISTICS: the network's.
# FUNCTION: `gradient`, compiled. PHASES: eight more. ARRAYS: addresses and sizes of MEMBERS; rows, labels, targets and
# weights are the batch, scale is what every row's weight is multiplied by.
CAPACITY, PLAN, SEED, STEP, NORMS, LAYERS, PARAMETERS, STATISTICS, X_STRIDE, FUNCTION, LOSS, PHASES = range(12)
ARRAYS = PHASES + 8
MEMBERS = (
    "rows", "labels", "targets", "weights", "order", "x", "outputs", "deltas", "losses", "corrects", "norms", "scaled",
    "images", "layout", "moments", "settings", "scale",
)  # fmt: skip
FIELDS = ARRAYS + 2 * len(MEMBERS)
ROWS, LABELS, TARGETS, WEIGHTS, ORDER, X, OUTPUTS, LAYER_DELTAS, LOSSES, CORRECTS, SQUARES, SCALED = range(
    ARRAYS, FIELDS - 10, 2
)
IMAGES, LAYOUT, MOMENTS, SETTINGS, SCALE = range(FIELDS - 10, FIELDS, 2)


@inner
def _array(work, member, kind):
    return carray(at(load(work, member), kind), load(work, member + 1))


@inner
def gradient(net, work, rows, grad):
    """The loss of the workspace's first `rows` rows, whose mean it is; its gradient (P,) goes to grad.

    As a step of training has it: dropout draws anew, a batch norm takes the batch's statistics and moves its own.
    """
    layers, inputs = load(work, LAYERS), load(net, single.INPUTS)
    parameters, outputs = load(work, PARAMETERS), load(net, single.OUTPUTS)
    model = Model(
        carray(at(load(net, single.PLAN), np.int64), (layers, p.COLUMNS)),
        carray(at(load(net, single.PARAMS), grad), parameters),
        carray(at(load(net, single.BUFFERS), np.float64), load(work, STATISTICS)),
        carray(at(load(net, single.RATES), np.float64), (layers, p.RATES)),
    )
    T = model.params.dtype.type
    wide = load(work, LOSS) != p.SOFTMAX
    source = Source(
        carray(at(load(work, ROWS), np.uint8), (0, inputs)),
        carray(at(load(work, ROWS), grad), (rows, inputs)),
        T(1),
        T(0),
        _array(work, LABELS, np.int32),
        _array(work, WEIGHTS, grad),
        False,
        carray(at(load(work, TARGETS), grad), (rows if wide else 0, outputs if wide else 0)),
    )
    order = carray(at(load(work, ORDER), np.int64), rows)
    room = Workspace(
        _array(work, X, grad), _array(work, OUTPUTS, grad), _array(work, LAYER_DELTAS, grad), carray(grad, parameters),
        _array(work, LOSSES, np.float64), _array(work, CORRECTS, np.int64), _array(work, SQUARES, np.float64),
        _array(work, SCALED, grad), _array(work, IMAGES, grad), _array(work, LAYOUT, np.int64),
        _array(work, MOMENTS, np.float64), order[:0],
    )  # fmt: skip
    stride, norms = load(work, X_STRIDE), load(work, NORMS)
    nothing = model.params[:0]
    optimizer = OptimizerState(_array(work, SETTINGS, np.float64), order[:1], nothing, nothing)  # of no count of steps
    phases = phases_at(advance(work, PHASES), grad)
    call = hold("Call", Call(phases.kinds, model, source, order, room, stride), grad)
    key = step_key(load(work, SEED), load(work, STEP))
    store(work, STEP, load(work, STEP) + 1)
    for stage in range(2 * norms + 1):
        phases.rows(call, DELTAS, stage, norms, 0, 1, 0, rows, T(rows), key)
        if stage < 2 * norms:
            moments_phase(call, stage, norms, 0, 1, rows)
    phases.params(call, hold("OptimizerState", optimizer, grad), GRADIENT, 0, 1, 0, rows, 0.0, 0.0, T(rows))
    for layer in range(layers if norms > 0 else 0):
        if model.plan[layer, p.KIND] == p.BATCH_NORM:
            update_statistics(model.plan, layer, model.buffers, model.params, model.rates, room.moments, rows)
    loss = 0.0
    for i in range(rows):
        loss += room.losses[i]
    return loss / rows
