"""The verbs of the compiled backend: see reference.py for what each means.

They check what costs nothing to check. That `order` and the labels lie within their arrays is for the caller to see
to, as `Network` and `fit` do: compiled code would read past the end.
"""

from functools import cache as once
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .. import plan as p
from ..plan import Model, OptimizerState, Source, Workspace
from . import steps, team, threads
from .network import LOGITS, LOSSES
from .sparse import WIDEST

_BYTES = np.arange(256)


class _Facts(NamedTuple):
    """What a plan says of every call."""

    x_stride: int
    flops: float  # of a row and a pass: 2 a weight and pixel
    norms: int  # batch norms
    uses: steps.Uses  # but for a first layer that leaves out zeros
    width: int  # of all outputs of a row
    statistics: int


def _facts(plan: np.ndarray) -> _Facts:
    return _facts_of(plan.tobytes())  # kept by what it says: found in 0.5 µs, where to look it all up again takes 12


@lru_cache(maxsize=256)
def _facts_of(content: bytes) -> _Facts:
    plan = np.frombuffer(content, np.int64).reshape(-1, p.COLUMNS)
    pixels, image, kind = plan[:, p.OUT_HEIGHT] * plan[:, p.OUT_WIDTH], plan[:, p.IMAGE] == 1, plan[:, p.KIND]
    used = steps.Uses(
        flat=bool(((kind != p.DENSE) & ~image).any()),
        image=bool(image.any()),
        curve=bool((plan[:, p.ACTIVATION] > p.RELU).any()),
        loss=bool(plan[-1, p.LOSS] != p.SOFTMAX),
    )
    return _Facts(
        x_stride=p.odd_stride(int(plan[0, p.TAKES])),
        flops=2.0 * float((plan[:, p.INPUTS] * plan[:, p.OUTPUTS]) @ pixels),
        norms=int((kind == p.BATCH_NORM).sum()),
        uses=used,
        width=int(plan[:, p.OUT_STRIDE].sum()),
        statistics=p.buffer_size(plan),
    )


def uses(model: Model, source: Source) -> steps.Uses:
    """Which kernels the network needs."""
    skips = source.skip_zeros and len(source.bytes) > 0 and model.plan[0, p.KIND] == p.DENSE
    return _facts(model.plan).uses._replace(sparse=bool(skips))


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
    facts = _facts(model.plan)
    if len(work.moments) != 2 * facts.statistics or facts.uses.image != (len(work.layout) > 0):
        raise ValueError("work was made for another network, or by another backend: see make_workspace")
    wanted = (facts.x_stride * len(work.losses), facts.width * len(work.losses))
    if (len(work.x), len(work.outputs)) != wanted or len(work.grad) != len(model.params):
        raise ValueError("work, or grad, was made for another network: see make_workspace; grad is (P,) like params")
    if rows > len(work.losses):
        raise ValueError(f"work has room for {len(work.losses)} rows, {rows} are asked for: see make_workspace")
    if reached > there:
        raise ValueError(f"{reached} is asked for where the arrays end at {there}")


def _by_team(loop: str, how: int, model: Model, source: Source, slots: int, *arguments: Any) -> np.ndarray:
    """Run a loop over so many slots; returns what its team shared.

    how: the batch norms of "train" and "differentiate", the goal of "infer".
    """
    dtype, crew = model.params.dtype, team.make(slots)
    functions = steps.functions(dtype, uses(model, source), loop)
    if slots == 1:
        steps.get(loop, dtype)(functions, 1, crew, 1, how, model, *arguments)
    else:
        with _launch(slots) as members:
            steps.get(f"{loop}_parallel", dtype)(functions, slots, crew, members, how, model, *arguments)
    return crew


def train_steps(
    model: Model, optimizer: OptimizerState, source: Source, order: np.ndarray, batch_size: int, first: int, last: int,
    learning_rates: np.ndarray, work: Workspace, losses: np.ndarray, corrects: np.ndarray, threads: int = 1,
    seconds: float = float("inf"),
) -> int:  # fmt: skip
    """Mini-batch steps first … last - 1 in one compiled call, without the GIL: see reference.train_steps."""
    dtype, facts = model.params.dtype, _facts(model.plan)
    source = _source(source, dtype)
    _check_targets(model, source)
    steps_there = min(-(-len(order) // batch_size), *map(len, (learning_rates, losses, corrects)))
    _check_room(model, work, min(batch_size, len(order)), last, steps_there)
    # Three passes in two phases, or at times, where a first layer is divided, three.
    slots = _slots(threads, 1.5 * facts.flops * min(batch_size, len(order)), last - first)
    crew = _by_team(
        "train", facts.norms, model, source, slots, optimizer, source, order, batch_size, first, last, learning_rates,
        facts.x_stride, work, losses, corrects, float(seconds),
    )  # fmt: skip
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
    dtype, facts, work = model.params.dtype, _facts(model.plan), work._replace(grad=grad)
    source = _source(source, dtype)
    _check_targets(model, source)
    _check_room(model, work, len(order), 0, 0)
    slots = _slots(threads, 1.5 * facts.flops * len(order))
    _by_team(
        "differentiate", facts.norms, model, source, slots, _no_optimizer(dtype), source, order, dtype.type(divisor),
        facts.x_stride, work,
    )  # fmt: skip
    return float(np.add.accumulate(work.losses[: len(order)])[-1] / divisor) if len(order) else 0.0


def _infer(
    goal: int, model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int, out: np.ndarray,
    losses: np.ndarray, corrects: np.ndarray,
) -> None:  # fmt: skip
    """Rows start … stop - 1 in one compiled call, as far as `goal` says."""
    dtype, facts = model.params.dtype, _facts(model.plan)
    source = _source(source, dtype)
    slots = _slots(threads, facts.flops * (stop - start))
    np.multiply(_BYTES, source.factor, out=work.scaled, dtype=dtype)
    rows = np.arange(start, stop)
    _by_team("infer", goal, model, source, slots, source, rows, facts.x_stride, work, out, losses, corrects)


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
