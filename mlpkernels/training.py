"""fit: trains a network as a generator of epoch results that resumes exactly and never prints."""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .errors import DivergenceError
from .network import Network
from .optimizers import Adam, Optimizer
from .run import Data, Run, Settings, prepare
from .schedules import Constant, Schedule
from .state import EpochResult, Mark, Progress, TrainingState

__all__ = ["EpochResult", "Progress", "TrainingState", "fit"]

_ADAM, _CONSTANT = Adam(), Constant()


def fit(
    network: Network,
    train: Data,
    *,
    validation: Data | None = None,
    test: Data | None = None,
    epochs: int = 10,
    batch_size: int | str | None = None,
    optimizer: Optimizer = _ADAM,
    schedule: Schedule = _CONSTANT,
    seed: int = 0,
    sample_weight: Any = None,
    class_weight: str | Mapping[Any, float] | None = None,
    early_stopping: int | None = None,
    clip_norm: float | None = None,
    eval_train: bool = False,
    skip_zeros: bool | None = None,
    threads: int | None = None,
    backend: str = "cpu",
    state: TrainingState | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Iterator[EpochResult]:
    """Train `network` in place and yield each epoch's result.

    train, validation, test: `datasets.Part` or (x, y), raw x (N, D) or (N, *shape) and y as in `Network.source`, labels
    (N,) from network.classes or what else the network's loss asks for; network.scaling is applied. Rows of uint8, or
    unscaled of the network's dtype, are not copied: they have to stay as they are. batch_size is a number of rows,
    "full" or None, 128 or all where there are fewer; the last, smaller mini-batch is used. Class weights (None,
    "balanced", {class: weight}) times sample_weight (N,) are scaled once to mean 1; a mini-batch's loss is Σ weight ·
    loss / rows.

    Validation alone is watched: early_stopping is the number of epochs without a lower validation loss after which
    training ends; the best weights and running statistics are put back, where it ends by that or by `epochs`, before
    the last result is given. clip_norm limits the gradient's norm. eval_train replaces the training figures by a pass
    over the training part after the epoch. skip_zeros: whether a dense first layer leaves out the zeros of uint8 data,
    None for where that is faster; the weights are the same bit for bit, or, where the scaling has an offset, but for
    rounding. threads None takes one or all cores, whichever is measured to be faster as training goes; their number
    never changes a bit of the result.

    on_progress is called several times a second; what it raises ends training with `state` consistent.
    `state` is filled as training goes; one that is filled already goes on exactly where it stood, bit for
    bit: epochs may grow unless the schedule depends on it, threads may change, all else must be as it was.

    Everything is checked before this returns. ValueError, TypeError: a setting out of its range. DataError: NaN or
    infinite values, labels that are no class, no rows. ResumeError: a setting that changed, a network that is
    untrained. While it runs, DivergenceError: a loss is not finite (that step is not applied), or a weight or running
    statistic at an epoch's end.
    """
    settings = Settings(
        epochs=epochs,
        batch_size=batch_size,
        optimizer=optimizer,
        schedule=schedule,
        seed=seed,
        class_weight=class_weight,
        early_stopping=early_stopping,
        clip_norm=clip_norm,
        eval_train=eval_train,
        skip_zeros=skip_zeros,
        threads=threads,
        backend=backend,
    )
    state = TrainingState() if state is None else state
    return _epochs(prepare(network, train, validation, test, sample_weight, settings, state, on_progress))


def _epochs(run: Run) -> Iterator[EpochResult]:
    network, state = run.network, run.state
    if state.last_params is not None and not _finished(run):  # it had ended, and epochs have grown
        network.params[...], network.buffers[...] = state.last_params, state.last_buffers
        state.last_params = None
    if _finished(run):
        _put_best_back(run)
    else:
        run.prepare_kernels()
    while not _finished(run):
        result = _epoch(run)
        if _finished(run):
            _put_best_back(run)  # before the last result is given: who saves then saves these
        yield result


def _put_best_back(run: Run) -> None:
    """The parameters of the best epoch, where early stopping kept them."""
    network, state, mark = run.network, run.state, run.mark
    if mark.best_params is not None:
        if state.last_params is None:  # from these a longer training goes on
            state.last_buffers = network.buffers.copy()
            state.last_params = network.params.copy()
        network.params[...], network.buffers[...] = mark.best_params, mark.best_buffers


def _finished(run: Run) -> bool:
    patience = run.settings.early_stopping
    waited = patience is not None and run.state.epochs_since_best >= patience
    return run.mark.epoch >= run.settings.epochs or waited


def _epoch(run: Run) -> EpochResult:
    """The epoch under way, from the step that the state has reached, with its evaluation."""
    state, mark, settings = run.state, run.mark, run.settings
    order, after = _order(run, mark.generator)
    base = settings.optimizer.learning_rate
    rates = settings.schedule.rates(base, mark.epoch, state.steps, settings.epochs)
    rates = np.ascontiguousarray(rates, np.float64)
    while (first := state.step) < state.steps:
        reached = run.train_steps(order, rates, first, state.steps)
        if reached < state.steps and not math.isfinite(state.losses[reached]):
            raise _divergence("the loss", mark.epoch + 1, reached + 1)
        if run.on_progress is not None:
            run.on_progress(_progress(run, rates))
    return _finish(run, after, float(rates[-1]))


def _order(run: Run, generator_state: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """The epoch's order of the rows (N,) int64, and the generator's state after it was drawn."""
    if run.batch_size == run.rows:
        return np.arange(run.rows), dict(generator_state)  # one batch: its order would change rounding alone
    generator = np.random.Generator(np.random.PCG64())
    generator.bit_generator.state = generator_state
    order = generator.permutation(run.rows).astype(np.int64, copy=False)
    return order, dict(generator.bit_generator.state)


def _divergence(what: str, epoch: int, step: int) -> DivergenceError:
    advice = "try a smaller learning rate, or limit the gradient with clip_norm"
    return DivergenceError(f"{what} is not finite in epoch {epoch}, step {step}: {advice}", epoch, step)


def _progress(run: Run, rates: np.ndarray) -> Progress:
    state, mark = run.state, run.mark
    step = state.step
    samples = min(step * run.batch_size, run.rows)
    return Progress(
        epoch=mark.epoch + 1,
        epochs=run.settings.epochs,
        step=step,
        steps=state.steps,
        samples=samples,
        loss=float(state.losses[:step].sum()) / samples,
        accuracy=run.network.accuracy(int(state.corrects[:step].sum()), samples),
        learning_rate=float(rates[step - 1]),
        seconds=float(mark.clock[0]),
    )


def _finish(run: Run, generator_state: dict[str, Any], learning_rate: float) -> EpochResult:
    """Evaluate after an epoch and move the state's mark to the next one."""
    state, mark = run.state, run.mark
    assert state.optimizer is not None
    epoch, seconds = mark.epoch + 1, float(mark.clock[0])
    for what, tensors in (("a weight", run.network.parameters()), ("a running statistic", run.network.statistics())):
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise _divergence(what, epoch, state.steps)
    correct = run.network.accuracy(int(state.corrects.sum()), run.rows)
    figures: Any = (float(state.losses.sum()) / run.rows, correct)
    if run.settings.eval_train:
        figures = run.evaluate(run.train)
    val_loss, val_accuracy = run.evaluate(run.validation)
    test_loss, test_accuracy = run.evaluate(run.test)
    watched = math.inf if val_loss is None or math.isnan(val_loss) else val_loss
    best = val_loss is not None and (mark.best_loss is None or watched < mark.best_loss)
    result = EpochResult(
        epoch=epoch,
        train_loss=figures[0],
        train_accuracy=figures[1],
        val_loss=val_loss,
        val_accuracy=val_accuracy,
        test_loss=test_loss,
        test_accuracy=test_accuracy,
        learning_rate=learning_rate,
        seconds=seconds,
        samples_per_second=run.rows / seconds if seconds > 0 else 0.0,
        best=best,
    )
    keep = best and run.settings.early_stopping is not None
    state.mark = Mark(
        epoch=epoch,
        updates=int(state.optimizer.step[0]),
        generator=generator_state,
        clock=np.zeros(1),
        history=(*mark.history, result),
        best_loss=watched if best else mark.best_loss,
        best_epoch=epoch if best else mark.best_epoch,
        best_params=run.network.params.copy() if keep else mark.best_params,
        best_buffers=run.network.buffers.copy() if keep else mark.best_buffers,
    )
    return result
