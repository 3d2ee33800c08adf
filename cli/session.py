"""One training in its run folder: started or resumed, recorded, stopped without loss, summed up."""

from __future__ import annotations

import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.errors import DivergenceError, MlpkError

from . import architecture, config, report, runs, tables
from .data import Data
from .errors import OptionError
from .interrupts import AT_ONCE, Deferred, Interrupted
from .parsing import AUTO, parse_pairs
from .progress import EpochLines, compiling_notice, display
from .runs import RunFolder
from .settings import Settings
from .summary import LABEL_WIDTH, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mlpkernels import EpochResult, Network, Progress, Scaling, TrainingState
    from mlpkernels.datasets import Part

_FEW = 1024  # rows at most of the training that loads the kernels, or of narrow ones this many values:
_ENOUGH = 1 << 20  # to be worth several threads, if the whole batch is
_CHECKPOINT_SECONDS = 1.0  # without --checkpoint-every, how long a checkpoint is young enough


def fit_scaling(settings: Settings, data: Data) -> Scaling:
    """The scaling of these settings, fitted on the training part."""
    from mlpkernels import Scaling

    return Scaling.fit(settings.scale, data.train.x, data.dataset.full_scale, data.dataset.images)


def make_network(settings: Settings, data: Data, scaling: Scaling | None = None) -> Network:
    """The untrained network of these settings for these data; without a scaling it is fitted here.

    OptionError where the data have no room for its layers.
    """
    from mlpkernels import Network

    dataset = data.dataset
    stack = architecture.layers(settings, dataset)
    scaling = fit_scaling(settings, data) if scaling is None else scaling
    return Network(
        stack, dataset.shape, classes=dataset.classes, dtype=settings.dtype, init=settings.init, seed=settings.seed,
        scaling=scaling,
    )  # fmt: skip


def class_weight(settings: Settings, classes: tuple[int | str, ...]) -> str | dict[Any, float] | None:
    """--class-weight as `fit` takes it; OptionError for a class that the data do not have."""
    if settings.class_weight in ("none", "balanced"):
        return None if settings.class_weight == "none" else "balanced"
    labels = {str(label): label for label in classes}
    pairs = parse_pairs(settings.class_weight) or {}
    for name in pairs:
        if name not in labels:
            raise OptionError(
                "--class-weight",
                settings.class_weight,
                f"no class {name}; the classes are {', '.join(labels)}",
            )
    return {labels[name]: weight for name, weight in pairs.items()}


def _optimizer(settings: Settings) -> Any:
    from mlpkernels import optimizers

    options = {"learning_rate": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimizer == "sgd":
        options |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
    return optimizers.optimizer(settings.optimizer, **options)


def fit_arguments(settings: Settings, data: Data) -> dict[str, Any]:
    """The arguments of `fit` for these settings and data, but for the network, threads and what watches it."""
    from mlpkernels import schedules

    return {
        "train": data.train, "validation": data.validation, "test": data.test, "epochs": settings.epochs,
        "batch_size": settings.batch_size, "optimizer": _optimizer(settings),
        "schedule": schedules.schedule(settings.schedule), "seed": settings.seed,
        "class_weight": class_weight(settings, data.dataset.classes),
        "early_stopping": settings.early_stopping or None, "clip_norm": settings.clip_norm or None,
        "eval_train": settings.eval_train, "backend": settings.backend, "skip_zeros": _skips(settings),
    }  # fmt: skip


def _skips(settings: Settings) -> bool | None:
    """--skip-zeros as `fit` takes it."""
    return None if settings.skip_zeros == AUTO else settings.skip_zeros == "always"


def get_ready(
    settings: Settings, data: Data, network: Network, threads: int | None, say: Callable[[str], None]
) -> float:
    """Load or compile the kernels by a small training of a copy, so that no epoch waits for them; seconds it took.

    Those that the training will call, of one thread and of several, and no others.
    """
    from mlpkernels import fit
    from mlpkernels.arrays import thread_count
    from mlpkernels.kernels.plan import GIVES
    from mlpkernels.pace import Pace

    began = time.perf_counter()
    network = network.copy()  # with weights of zero: what diverges is the user's training, not this one
    network.params[...] = 0
    wide = network.inputs + int(network.plan[:, GIVES].sum())
    rows = len(data.train) if settings.batch_size == "full" else settings.batch_size
    few = _some(data.train, min(rows, max(_FEW, _ENOUGH // wide)))
    tested = _some(data.test, min(len(data.test), _FEW))
    ways = Pace(thread_count(threads), threads is not None).ways
    parallel = ("train_parallel", "infer_parallel") if max(ways) > 1 else ()
    with compiling_notice(say, "infer", "softmax_rows", *parallel):
        for count in ways:
            list(fit(
                network, few, test=tested, epochs=1, batch_size="full", threads=count, backend=settings.backend,
                skip_zeros=_skips(settings),
            ))  # fmt: skip
            network.predict_proba(tested.x, threads=count, backend=settings.backend)
    seconds = time.perf_counter() - began
    say(f"kernels ready in {tables.seconds(seconds)}")
    return seconds


def _some(part: Part, rows: int) -> Part:
    """Rows from all over a part; of bytes as they are, since kernels may leave out zeros, else zeros."""
    import numpy as np

    from mlpkernels.datasets import Part

    step = max(1, len(part) // rows)
    x, y = part.x[::step][:rows], part.y[::step][:rows]
    return Part(np.ascontiguousarray(x) if x.dtype == np.uint8 else np.zeros_like(x, order="C"), y.copy())


@dataclasses.dataclass
class Session:
    """A training under way; `fit` keeps `state`, and `saved` tells whether a checkpoint was written."""

    folder: RunFolder
    settings: Settings
    data: Data
    network: Network
    state: TrainingState
    saved: bool = False
    saved_at: float = 0.0
    overflowed: bool = False
    ready_seconds: float = 0.0
    _on_progress: Callable[[Progress], None] = dataclasses.field(default=lambda progress: None, repr=False)

    @property
    def path(self) -> Path:
        return self.folder.path

    @property
    def quoted(self) -> str:
        """The run folder as a shell takes it."""
        return shlex.quote(str(self.path))

    @property
    def threads(self) -> int | None:
        return None if self.settings.threads == AUTO else self.settings.threads

    def say(self, text: str) -> None:
        """Print a line, unless --quiet."""
        if not self.settings.quiet:
            click.echo(text)

    # ---- the whole

    def run(self) -> None:
        """Train to the end, measure, draw. A fresh folder in which nothing was reached is removed again."""
        import numpy

        try:
            # NumPy's warnings of overflow would only announce what DivergenceError says by name.
            with numpy.errstate(over="ignore", invalid="ignore"):
                self._describe()
                epochs = self._epochs()  # it refuses what cannot be before anything is written
                self.ready_seconds = get_ready(self.settings, self.data, self.network, self.threads, self.say)
                self._record_settings()
                self._train(epochs)
                self._finish()
        except Interrupted as error:
            if error.message == AT_ONCE and (self.saved or not self.folder.fresh):
                error.message += f"; go on from the last checkpoint with: mlpk train --resume {self.quoted}"
            error.message = error.message or self._stopped()
            raise
        finally:
            self.folder.close(keep=self.saved)

    def _describe(self) -> None:
        settings = self.settings
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads > 1)}"
        self.say(f"{self.data.dataset.name}: {self.data.describe()}")
        self.say(architecture.told(self.network))
        self.say(
            f"{settings.optimizer} {settings.learning_rate:g}, batch {settings.batch_size}, "
            f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}, {settings.backend} kernels{threads}"
        )

    def _record_settings(self) -> None:
        from mlpkernels.files import write_atomic
        from mlpkernels.state import HISTORY_COLUMNS

        write_atomic(self.folder / runs.CONFIG, config.to_toml(self.settings, with_out=False).encode())
        lines = [",".join(HISTORY_COLUMNS) + "\n", *(self._line(result) for result in self.state.history)]
        write_atomic(self.folder / runs.HISTORY, "".join(lines).encode())
        (self.folder / runs.METRICS).unlink(missing_ok=True)  # of fewer epochs, where a finished run goes on

    # ---- training

    def _epochs(self) -> Iterator[EpochResult]:
        """The training, checked but not begun; `_on_progress` is called as it goes."""
        from mlpkernels import fit

        try:
            return fit(
                self.network, **fit_arguments(self.settings, self.data), threads=self.threads, state=self.state,
                on_progress=lambda progress: self._on_progress(progress),
            )  # fmt: skip
        except ValueError as error:  # single settings are checked already; these do not go together
            raise MlpkError(str(error)) from error

    def _train(self, epochs: Iterator[EpochResult]) -> None:
        lines = EpochLines(
            self.settings.epochs, validation=self.data.validation is not None, test=True, unit=self.data.unit
        )
        with Deferred() as stop:
            try:
                with display(lines, self.data.unit, quiet=self.settings.quiet) as shown:

                    def on_progress(progress: Any) -> None:
                        shown.update(progress)
                        stop.check()

                    self._on_progress = on_progress
                    for result in epochs:
                        self._record(result)
                        shown.epoch(result)
                        stop.check()
            except (Interrupted, BrokenPipeError) as error:
                if isinstance(error, Interrupted) and error.message:
                    raise  # the second signal: at once
                self._save_stopped()
                raise
            except DivergenceError as error:
                raise self._diverged(error) from error
            self._save()
            stop.check()

    def _diverged(self, error: DivergenceError) -> DivergenceError:
        """The error in this command's words: which options help, and what is kept."""
        reason = str(error).partition(":")[0]
        advice = f"try a --learning-rate below {self.settings.learning_rate:g}, or --clip-norm 1"
        kept = f"; its last checkpoint is in {self.path}" if self.saved or not self.folder.fresh else ""
        return DivergenceError(f"{reason}: {advice}{kept}", error.epoch, error.step)

    def _stopped(self) -> str:
        """What to say to someone who stopped this training."""
        if not self.saved and self.folder.fresh:
            when = "after a weight had overflowed" if self.overflowed else "before the first step"
            return f"stopped {when}; nothing was kept"
        if self.overflowed:
            return f"stopped; a weight is not finite any more, the last checkpoint is in {self.path}"
        epoch, step = self.state.epoch, self.state.step
        where = f"in epoch {epoch + 1} at step {step} of {self.state.steps}" if step else f"after epoch {epoch}"
        return f"stopped {where}; go on with: mlpk train --resume {self.quoted}"

    def _record(self, result: EpochResult) -> None:
        runs.append_line(self.folder / runs.HISTORY, self._line(result))
        every = self.settings.checkpoint_every
        young = time.perf_counter() - self.saved_at < _CHECKPOINT_SECONDS
        if not self.saved or (not young if every == AUTO else result.epoch % every == 0):
            self._save()

    @staticmethod
    def _line(result: EpochResult) -> str:
        from mlpkernels.state import HISTORY_COLUMNS

        return runs.history_line(getattr(result, name) for name in HISTORY_COLUMNS)

    def _save(self) -> None:
        """Write the model and the checkpoint, each whole or not at all."""
        from mlpkernels import save_checkpoint

        model, mark = self.network, self.state.mark
        if self.settings.early_stopping and mark is not None and mark.best_params is not None:
            model = self.network.copy()
            model.params[...], model.buffers[...] = mark.best_params, mark.best_buffers
        model.save(self.folder / runs.MODEL)
        dataset = self.data.dataset
        extra = {
            "full_scale": dataset.full_scale,
            "feature_names": dataset.feature_names,
            "data": dataset.name,
        }
        save_checkpoint(self.folder / runs.CHECKPOINT, self.network, self.state, extra)
        self.saved, self.saved_at = True, time.perf_counter()

    def _save_stopped(self) -> None:
        """Save where training was stopped; weights that have overflowed leave the last checkpoint as it is."""
        if not (self.state.epoch or self.state.step):
            return
        self.overflowed = not self.network.finite
        if not self.overflowed:
            self._save()

    # ---- afterwards

    def _finish(self) -> None:
        from mlpkernels.files import write_atomic

        measured = report.measure(self.network, self.data.test, self.settings.backend, self.threads)
        state = self.state
        summary = Summary(self.path, self.settings, self.data, measured, state.history, state.best_epoch)
        metrics = {
            **summary.metrics(),
            "parameters": self.network.parameter_count,
            "kernels_ready_seconds": self.ready_seconds,
        }
        write_atomic(self.folder / runs.METRICS, report.to_text(metrics).encode())
        click.echo(summary.text())
        if self.settings.plots:
            self._draw(measured)
        self.say(summary.what_next())

    def _draw(self, measured: report.Measured) -> None:
        began = time.perf_counter()
        dataset, history = self.data.dataset, self.state.history
        try:
            report.draw(self.folder / runs.PLOTS, self.network, dataset, self.data.test, measured, history)
        except Interrupted as error:
            error.message = f"stopped while drawing; the run is complete, draw with: mlpk plot {self.quoted}"
            raise
        took = tables.seconds(time.perf_counter() - began)
        self.say(f"  {'figures':{LABEL_WIDTH}}  {self.path / runs.PLOTS}   drawn in {took}")
