"""The verbs of the compiled backend: see reference.py for what each means.

They check what costs nothing to check. That `order` and the labels lie within their arrays is for the caller to see
to, as `Network` and `fit` do: compiled code would read past the end.
"""

from functools import cache as once
from typing import Any

import numpy as np

from .. import plan as p
from ..plan import Model, OptimizerState, Source, Workspace
from . import steps, team, threads
from .network import LOGITS, LOSSES
from .sparse import WIDEST

_BYTES = np.arange(256)


def _x_stride(model: Model) -> int:
    return p.odd_stride(int(model.plan[0, p.TAKES]))


def _work(model: Model, rows: int, passes: int) -> float:
    """Floating-point operations of a region over that many rows: 2 a weight, pixel and pass."""
    plan = model.plan
    pixels = plan[:, p.OUT_HEIGHT] * plan[:, p.OUT_WIDTH]
    return 2.0 * rows * passes * float((plan[:, p.INPUTS] * plan[:, p.OUTPUTS]) @ pixels)


def uses(model: Model, source: Source) -> steps.Uses:
    """Which kernels the network needs."""
    image = model.plan[:, p.IMAGE] == 1
    flat = (model.plan[:, p.KIND] != p.DENSE) & ~image
    skips = source.skip_zeros and len(source.bytes) > 0 and model.plan[0, p.KIND] == p.DENSE
    curve = model.plan[:, p.ACTIVATION] > p.RELU
    return steps.Uses(
        bool(flat.any()), bool(image.any()), bool(skips), bool(curve.any()), bool(model.plan[-1, p.LOSS] != p.SOFTMAX)
    )


def _norms(model: Model) -> int:
    """The batch norms."""
    return int((model.plan[:, p.KIND] == p.BATCH_NORM).sum())


@once
def _no_optimizer(dtype: Any) -> OptimizerState:
    empty = np.zeros(0, dtype)
    return OptimizerState(np.zeros(p.SETTINGS), np.zeros(1, np.int64), empty, empty)


def _source(source: Source, dtype: np.dtype) -> Source:
    skips = bool(source.skip_zeros) and source.bytes.shape[1] <= WIDEST
    targets = source.targets if source.targets.size else np.zeros((0, 0), dtype)
    return source._replace(
        factor=dtype.type(source.factor), offset=dtype.type(source.offset), skip_zeros=skips, targets=targets
    )


def _check_targets(model: Model, source: Source) -> None:
    """Raise ValueError where a loss of targets would be read past them."""
    rows = max(len(source.bytes), len(source.rows))
    wanted = (rows, int(model.plan[-1, p.OUTPUTS]))
    if model.plan[-1, p.LOSS] != p.SOFTMAX and source.targets.shape != wanted:
        raise ValueError(f"source.targets must have shape {wanted}, as the network's loss is of targets, "
                         f"got {source.targets.shape}: see Network.source")  # fmt: skip


def _check_room(model: Model, work: Workspace, rows: int, reached: int, there: int) -> None:
    """Raise ValueError where compiled code would run past an array."""
    images = bool(model.plan[:, p.IMAGE].any())
    if len(work.moments) != 2 * p.buffer_size(model.plan) or images != (len(work.layout) > 0):
        raise ValueError("work was made for another network, or by another backend: see make_workspace")
    wanted = (_x_stride(model) * len(work.losses), int(model.plan[:, p.OUT_STRIDE].sum()) * len(work.losses))
    if (len(work.x), len(work.outputs)) != wanted or len(work.grad) != len(model.params):
        raise ValueError("work, or grad, was made for another network: see make_workspace; grad is (P,) like params")
    if rows > len(work.losses):
        raise ValueError(f"work has room for {len(work.losses)} rows, {rows} are asked for: see make_workspace")
    if reached > there:
        raise ValueError(f"{reached} is asked for where the arrays end at {there}")


def train_steps(
    model: Model, optimizer: OptimizerState, source: Source, order: np.ndarray, batch_size: int, first: int, last: int,
    learning_rates: np.ndarray, work: Workspace, losses: np.ndarray, corrects: np.ndarray, threads: int = 1,
    seconds: float = float("inf"),
) -> int:  # fmt: skip
    """Mini-batch steps first … last - 1 in one compiled call, without the GIL: see reference.train_steps."""
    dtype = model.params.dtype
    source = _source(source, dtype)
    arguments = (
        model, optimizer, source, order, batch_size, first, last, learning_rates, _x_stride(model),
        work, losses, corrects, float(seconds),
    )  # fmt: skip
    _check_targets(model, source)
    steps_there = min(-(-len(order) // batch_size), *map(len, (learning_rates, losses, corrects)))
    _check_room(model, work, min(batch_size, len(order)), last, steps_there)
    slots = _slots(threads, _work(model, min(batch_size, len(order)), 3) / 2, last - first)
    phases, norms, crew = steps.phases(dtype, uses(model, source)), _norms(model), team.make(slots)
    if slots == 1:
        steps.get("train", dtype)(*phases, 1, crew, 1, norms, *arguments)
    else:
        with _launch(slots) as members:
            one = steps.pointer("train", dtype.name)
            steps.get("train_parallel", dtype)(one, *phases, slots, crew, members, norms, *arguments)
    return int(crew[team.REACHED])


def loss_and_gradient(
    model: Model,
    source: Source,
    order: np.ndarray,
    divisor: float,
    work: Workspace,
    grad: np.ndarray,
    threads: int = 1,
) -> float:
    """Σ weight · loss / divisor over the rows of `order` and its gradient: see reference.loss_and_gradient."""
    dtype, work = model.params.dtype, work._replace(grad=grad)
    source = _source(source, dtype)
    _check_targets(model, source)
    _check_room(model, work, len(order), 0, 0)
    slots = _slots(threads, _work(model, len(order), 3) / 2)
    phases, norms, crew = steps.phases(dtype, uses(model, source)), _norms(model), team.make(slots)
    arguments = (norms, model, _no_optimizer(dtype), source, order, dtype.type(divisor), _x_stride(model), work)
    if slots == 1:
        steps.get("differentiate", dtype)(*phases, 1, crew, 1, *arguments)
    else:
        with _launch(slots) as members:
            one = steps.pointer("differentiate", dtype.name)
            steps.get("differentiate_parallel", dtype)(one, *phases, slots, crew, members, *arguments)
    return float(np.add.accumulate(work.losses[: len(order)])[-1] / divisor) if len(order) else 0.0


def _infer(
    goal: int, model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int, out: np.ndarray,
    losses: np.ndarray, corrects: np.ndarray,
) -> None:  # fmt: skip
    """Rows start … stop - 1 in one compiled call, as far as `goal` says."""
    dtype = model.params.dtype
    source = _source(source, dtype)
    slots = _slots(threads, _work(model, stop - start, 1))
    rows_phase, _, kinds = steps.phases(dtype, uses(model, source))
    np.multiply(_BYTES, source.factor, out=work.scaled, dtype=dtype)
    arguments = (goal, model, source, np.arange(start, stop), _x_stride(model), work, out, losses, corrects)
    if slots == 1:
        steps.get("infer", dtype)(rows_phase, kinds, 0, 1, *arguments)
    else:
        with _launch(slots):
            one = steps.pointer("infer", dtype.name)
            steps.get("infer_parallel", dtype)(one, rows_phase, kinds, slots, *arguments)


def evaluate(
    model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int = 1
) -> tuple[float, int]:
    """(Σ weight · loss, correct count) over rows start … stop - 1: see reference.evaluate."""
    _check_room(model, work, 0, stop, len(source.labels))
    _check_targets(model, source)
    losses, corrects = np.empty(stop - start), np.empty(stop - start, np.int64)
    none = np.empty((0, 0), model.params.dtype)
    _infer(LOSSES, model, source, start, stop, work, threads, none, losses, corrects)
    return float(losses.sum()), int(corrects.sum())


def predict(
    model: Model, source: Source, start: int, stop: int, work: Workspace, out: np.ndarray, threads: int = 1
) -> None:
    """Logits of rows start … stop - 1: see reference.predict."""
    _check_room(model, work, 0, stop, max(len(source.bytes), len(source.rows)))
    fits = out.flags.c_contiguous and out.dtype == model.params.dtype and out.flags.aligned
    logits = out if fits else np.empty(out.shape, model.params.dtype)
    _infer(LOGITS, model, source, start, stop, work, threads, logits, np.empty(0), np.empty(0, np.int64))
    if not fits:
        out[...] = logits


_slots, _launch = threads.slots, threads.launch
