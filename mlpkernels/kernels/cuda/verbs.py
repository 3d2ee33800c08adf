"""The verbs of the CUDA backend: see reference.py for what each means.

Data stay on the GPU between calls; parameters and the optimiser's memory come with a call and go back at its end, so
the host's arrays are the truth whatever happens. Labels and the order are for the caller to check, as for the other
compiled backend. `threads` means nothing here.
"""

import time
from functools import cache
from typing import Any

import numpy as np

from .. import plan as p
from ..plan import Model, OptimizerState, Source
from . import executor, residency
from . import layout as y
from .arguments import output
from .arrays import fetch, finish, nothing, room, to_device
from .driver import named, stream_of, synchronize
from .workspace import Workspace, layer_rates, make_workspace, mask_keys, no_order, step_rates

__all__ = ["evaluate", "loss_and_gradient", "make_workspace", "predict", "train_steps"]

_TRIALS = 2  # times the data may change under a call before it gives up


class _Call:
    """One call of a verb: its data on the GPU, its head and tables, and how its kernels' arguments are ordered."""

    def __init__(self, model: Model, source: Source, work: Workspace, order: Any, stream: Any) -> None:
        self.model, self.work, self.stream = model, work, stream
        self.resident = residency.Resident(stream)
        take = self.resident.take
        targets = source.targets if source.targets.size else _no_targets(work.dtype.name)
        self.data, self.values, self.labels, self.targets, self.weights = map(
            take, (source.bytes, source.rows, source.labels, targets, source.weights)
        )
        self.order = no_order() if order is None else take(order)
        scalar = work.dtype.type
        self.scaling = scalar(source.factor), scalar(source.offset)
        self.head = work.layout.head.copy()
        self.head[y.ORDERED], self.head[y.FROM_BYTES] = order is not None, len(source.bytes) > 0
        self.out = nothing(work.dtype.name)

    def tables(self, settings: np.ndarray, rates: np.ndarray, seed: int, steps: range, **head: int) -> None:
        """Upload what the steps need: `steps` are the counts of updates before each; head: entries by their names."""
        for name, value in head.items():
            self.head[getattr(y, name)] = value
        upload, count = self._upload, max(1, len(rates))
        self.settings, self.rates = upload(settings), upload(rates.reshape(-1))
        self.keys = upload(mask_keys(self.model.plan, seed, steps))
        self.layer_rates, self.device_head = upload(layer_rates(self.model).reshape(-1)), upload(self.head)
        self.loss, self.correct = room(count, np.float64, self.stream), room(count, np.int64, self.stream)
        self.state = upload(np.array([-1], np.int64))

    def _upload(self, array: np.ndarray) -> Any:
        return to_device(array if array.size else np.zeros(1, array.dtype), self.stream)

    def stop(self) -> None:
        """Have every launch from here on do nothing, as after a loss that is not finite."""
        self.state = self._upload(np.zeros(1, np.int64))

    def arguments(self, program: Any) -> tuple[Any, ...]:
        work = self.work
        return (
            work.numbers, self.data, self.values, self.order, self.labels, self.targets, self.weights, *self.scaling,
            work.places, work.doubles, work.table, program.operations, program.phases, self.device_head,
            self.layer_rates, self.settings, self.rates, self.keys, self.loss, self.correct, self.out, self.state,
        )  # fmt: skip

    def launch(self, program: Any, steps: range) -> None:
        """Run a program's phases for some steps, one launch or many."""
        executor.run_steps(self.work.kernels, program.count, steps, self.stream, self.arguments(program))

    def gather(self, step: int) -> None:
        """Bring a step's batch: those after it come while the one before is being updated."""
        self.launch(self.work.program("gathering"), range(step, step + 1))


def _until_unchanged(call: Any) -> Any:
    """call()'s (result, resident), again where its data had been changed in place since they were uploaded."""
    for _ in range(_TRIALS):
        result, resident = call()
        if not resident.changed():
            return result
    raise ValueError("the data of this call are being changed while it runs")


@cache
def _no_targets(dtype: str) -> np.ndarray:
    """What a loss of classes has in their place."""
    return np.zeros((0, 0), dtype)


def _check_targets(model: Model, source: Source) -> None:
    """Raise ValueError where a loss of targets would be read past them."""
    wanted = (max(len(source.bytes), len(source.rows)), int(model.plan[-1, p.OUTPUTS]))
    if model.plan[-1, p.LOSS] != p.SOFTMAX and source.targets.shape != wanted:
        raise ValueError(
            f"source.targets must have shape {wanted}, as the network's loss is of targets, got "
            f"{source.targets.shape}: see Network.source"
        )


def _divisors(settings: np.ndarray, source: Source, order: np.ndarray, batch_size: int, first: int, last: int) -> Any:
    """What each step's gradient is divided by: its rows, or the sum of their weights, unless that is 0."""
    rows = np.minimum(batch_size, len(order) - batch_size * np.arange(first, last)).astype(float)
    if settings[p.WEIGHT_SUM]:
        starts = batch_size * np.arange(first, last)
        sums = np.add.reduceat(source.weights[order[: last * batch_size]].astype(float), starts)
        rows[sums != 0] = sums[sums != 0]
    return rows


def _check(model: Model, work: Any, rows: int, reached: int, there: int) -> None:
    """Raise ValueError where a kernel would run past an array."""
    if not isinstance(work, Workspace):
        raise ValueError("work was made for another network, or by another backend: see make_workspace")
    work.check(model, rows)
    if reached > there:
        raise ValueError(f"{reached} is asked for where the arrays end at {there}")


def train_steps(
    model: Model, optimizer: OptimizerState, source: Source, order: np.ndarray, batch_size: int, first: int, last: int,
    learning_rates: np.ndarray, work: Workspace, losses: np.ndarray, corrects: np.ndarray, threads: int = 1,
    seconds: float = float("inf"), stream: Any = None,
) -> int:  # fmt: skip
    """Mini-batch steps first … last - 1 on the GPU: see reference.train_steps.

    Without `seconds` nothing waits for the GPU until the end; with them, after a growing number of steps.
    """
    there = min(-(-len(order) // batch_size), *map(len, (learning_rates, losses, corrects)))
    _check(model, work, min(batch_size, len(order)), last, there)
    _check_targets(model, source)
    stream, began = stream_of(stream), time.perf_counter()
    if first >= last:
        _make_ready(model, source, order, work, stream)
        return last
    settings, done = optimizer.settings, int(optimizer.step[0])
    clips, penalizes = bool(settings[p.CLIP_NORM] > 0), bool(settings[p.PENALTY] and settings[p.WEIGHT_DECAY])
    divisors = _divisors(settings, source, order, batch_size, first, last)
    rates = step_rates(settings, np.asarray(learning_rates[first:last], float), done, divisors)

    def steps() -> Any:
        call = _Call(model, source, work, order, stream)
        call.tables(
            settings, rates, int(settings[p.SEED]), range(done, done + last - first), BATCH=batch_size, START=0,
            STOP=len(order), FIRST_STEP=first, LAST_STEP=last, TRAINS=1, FUSED=not clips, PENALIZED=penalizes,
        )  # fmt: skip
        with named("training"):
            work.bring(model, optimizer, stream)
        call.gather(first)
        return (
            call,
            _train(call, work.program("training", clips, True, penalizes), first, last, seconds, began),
        ), call.resident

    call, (reached, stopped) = _until_unchanged(steps)
    told = reached - first + stopped
    losses[first : first + told] = fetch(call.loss, stream)[:told]
    corrects[first : first + told] = fetch(call.correct, stream)[:told]
    with named("training"):
        work.fetch(model, optimizer, stream)
    synchronize(stream)
    optimizer.step[0] += reached - first
    return int(reached)


def _make_ready(model: Model, source: Source, order: np.ndarray, work: Workspace, stream: Any) -> None:
    """Upload the data and compile the kernels that a training would wait for: by a launch that has nothing to do."""
    call = _Call(model, source, work, order, stream)
    settings = np.zeros(p.SETTINGS)
    call.tables(settings, step_rates(settings, np.zeros(1), 0, np.ones(1)), 0, range(1), LAST_STEP=1)
    call.stop()
    call.launch(work.program("training", False, True, False), range(1))
    synchronize(stream)


def _train(call: _Call, program: Any, first: int, last: int, seconds: float, began: float) -> tuple[int, bool]:
    """(the step reached, whether a loss that is not finite ended it there).

    Given a time, first one step, then as many as the time left seems to allow, at most twice as many as before.
    """
    step, count = first, 1 if seconds < float("inf") else last - first
    while step < last and (step == first or time.perf_counter() - began <= seconds):
        stop = min(last, step + count)
        call.launch(program, range(step, stop))
        if call.resident.changed():
            break
        state = int(fetch(call.state, call.stream)[0])
        if state >= 0:
            return state, True
        step, spent = stop, time.perf_counter() - began
        count = max(1, int(min(2 * count, (step - first) * (seconds - spent) / spent)))
    return step, False


def loss_and_gradient(
    model: Model, source: Source, order: np.ndarray, divisor: float, work: Workspace, grad: np.ndarray,
    threads: int = 1, stream: Any = None,
) -> float:  # fmt: skip
    """Σ weight · loss / divisor over the rows of `order` and its gradient: see reference.loss_and_gradient."""
    _check(model, work, len(order), 0, 0)
    if len(order) == 0:
        grad[...] = 0
        return 0.0
    _check_targets(model, source)
    stream, settings = stream_of(stream), np.zeros(p.SETTINGS)

    def gradient() -> Any:
        call = _Call(model, source, work, order, stream)
        rates = step_rates(settings, np.zeros(1), 0, np.array([divisor]))
        call.tables(
            settings, rates, 0, range(1), BATCH=len(order), START=0, STOP=len(order), FIRST_STEP=0, LAST_STEP=1,
            TRAINS=1, FUSED=0,
        )  # fmt: skip
        with named("the gradient"):
            work.bring(model, None, stream)
        call.gather(0)
        call.launch(work.program("training", False, False, False), range(1))
        return call, call.resident

    call = _until_unchanged(gradient)
    at = int(work.layout.head[y.GRAD_AT])
    grad[...] = fetch(work.numbers[at : at + work.parameters], stream)
    first = int(work.layout.head[y.LOSSES_AT])
    work.losses[: len(order)] = fetch(work.doubles[first : first + len(order)], stream)
    return float(fetch(call.loss, stream)[0] / divisor)


def _infer(model: Model, source: Source, start: int, stop: int, work: Workspace, out: Any, stream: Any) -> Any:
    """The call that made the logits of rows start … stop - 1, into out, or without it their losses."""
    batch = len(work.losses)
    steps = -(-(stop - start) // batch)

    def rows() -> Any:
        call = _Call(model, source, work, None, stream)
        settings, rates = np.zeros(p.SETTINGS), step_rates(np.zeros(p.SETTINGS), np.zeros(steps), 0, np.ones(steps))
        call.tables(
            settings, rates, 0, range(steps), BATCH=batch, START=start, STOP=stop, FIRST_STEP=0, LAST_STEP=steps,
            TRAINS=0, FUSED=0,
        )  # fmt: skip
        call.out = call.out if out is None else out
        with named("predicting"):
            work.bring(model, None, stream)
            work.bring_running(model, stream)
        call.launch(work.program("inference", out is None), range(steps))
        return call, call.resident

    return _until_unchanged(rows)


def evaluate(
    model: Model, source: Source, start: int, stop: int, work: Workspace, threads: int = 1, stream: Any = None
) -> tuple[float, int]:
    """(Σ weight · loss, correct count) over rows start … stop - 1: see reference.evaluate."""
    _check(model, work, 0, stop, len(source.labels))
    _check_targets(model, source)
    if start >= stop:
        return 0.0, 0
    stream = stream_of(stream)
    call = _infer(model, source, start, stop, work, None, stream)
    losses, corrects = fetch(call.loss, stream), fetch(call.correct, stream)
    return float(np.add.accumulate(losses)[-1]), int(corrects.sum())


def predict(
    model: Model, source: Source, start: int, stop: int, work: Workspace, out: Any, threads: int = 1, stream: Any = None
) -> None:
    """Logits of rows start … stop - 1 -> out (stop - start, K), on the host or the GPU: see reference.predict."""
    _check(model, work, 0, stop, max(len(source.bytes), len(source.rows)))
    view = output("out", out, 2, (work.dtype,))
    wanted = (stop - start, int(model.plan[-1, p.OUTPUTS]))
    if view.shape != wanted:
        raise ValueError(f"out must have shape {wanted}, got {view.shape}")
    if view.size:
        stream = stream_of(stream)
        _infer(model, source, start, stop, work, view.flat(stream, read=False), stream)
        finish(stream, view)
