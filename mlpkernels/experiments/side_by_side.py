"""Networks trained side by side in Python threads, one a core: compiled calls hold no GIL, the data is held once.

A network's result depends on its own settings alone, never on how many train beside it or in which order.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..arrays import thread_count
from ..datasets import Part
from ..errors import DivergenceError
from ..network import Network
from ..optimizers import Optimizer
from ..schedules import Constant, Schedule
from ..state import EpochResult, Progress
from ..training import fit

_CONSTANT = Constant()
_READY_ROWS = 64  # of the training that loads the kernels before time is taken
_WAIT = 0.2  # seconds between looks at whether the main thread was interrupted


@dataclass(frozen=True)
class Job:
    """One network to train. labels tell it apart from the others, and are its columns in history.csv.

    make() builds the untrained network, parts() gives its (training, test) data: both are called in the job's
    thread. on_epoch(epoch, network) is too, with epoch 0 before training. cost: relative work, the longest goes
    first. eval_train: training figures from a pass over the training part after each epoch. threads: of this network's
    own training, None for one or all, whichever is faster.
    """

    labels: Mapping[str, Any]
    make: Callable[[], Network]
    parts: Callable[[], tuple[Part, Part]]
    epochs: int
    batch_size: int | str
    optimizer: Optimizer
    seed: int
    cost: float = 1.0
    eval_train: bool = False
    schedule: Schedule = _CONSTANT
    threads: int | None = 1
    on_epoch: Callable[[int, Network], None] | None = None


@dataclass
class Trained:
    """A job's network and history; `diverged` says where training ended early, None where it did not."""

    job: Job
    network: Network
    history: list[EpochResult] = field(default_factory=list)
    diverged: str | None = None

    @property
    def seconds(self) -> float:
        """Seconds of training, without evaluation."""
        return sum(result.seconds for result in self.history)

    def column(self, name: str) -> np.ndarray:
        """One figure by epoch (job.epochs,), NaN after a divergence."""
        values = np.full(self.job.epochs, np.nan)
        values[: len(self.history)] = [getattr(result, name) for result in self.history]
        return values

    @property
    def final(self) -> tuple[float, float]:
        """(test loss, test accuracy) after the last epoch; NaN where training diverged."""
        return float(self.column("test_loss")[-1]), float(self.column("test_accuracy")[-1])


class Watch:
    """Told how a row goes, always in the thread that called `train_all`; this one keeps silent."""

    def compiling(self) -> AbstractContextManager[None]:
        """Around the first use of the kernels, which may have to be compiled."""
        return nullcontext()

    def begin(self, name: str, jobs: Sequence[Job]) -> None:
        """A row's networks are about to be trained."""

    def epoch(self, job: Job, result: EpochResult) -> None:
        """A network finished an epoch."""

    def done(self, trained: Trained) -> None:
        """A network is trained."""

    def say(self, text: str) -> None:
        """Something else is going on."""


class _StopError(Exception):
    """Raised within a network's training, because the main thread gave up."""


def train_all(name: str, jobs: Sequence[Job], threads: int | None, watch: Watch) -> list[Trained]:
    """Train all jobs, `threads` at a time (None: one a core); the results in the order of the jobs.

    A network that diverges is recorded as such and the others go on. Any other error of a job, and whatever is
    raised in the calling thread meanwhile, such as an interrupt, stops them all within a tenth of a second.
    """
    with watch.compiling():
        for job in jobs:
            if job.seed == jobs[0].seed:  # one of every kind
                _ready(job)
    watch.begin(name, jobs)
    events: queue.SimpleQueue[tuple[Callable[..., None], Any]] = queue.SimpleQueue()
    stop = threading.Event()

    def one(job: Job) -> Trained:
        trained = _train(job, stop, lambda result: events.put((watch.epoch, (job, result))))
        events.put((watch.done, (trained,)))
        return trained

    order = sorted(range(len(jobs)), key=lambda index: -jobs[index].cost)
    pool = ThreadPoolExecutor(min(thread_count(threads), len(jobs)), thread_name_prefix="mlpk")
    try:
        futures = {index: pool.submit(one, jobs[index]) for index in order}
        while not all(future.done() for future in futures.values()):
            failed = [future for future in futures.values() if future.done() and future.exception() is not None]
            if failed:
                failed[0].result()
            _tell(events, _WAIT)
        results = [futures[index].result() for index in range(len(jobs))]
        _tell(events, 0)
        return results
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _tell(events: "queue.SimpleQueue[tuple[Callable[..., None], Any]]", wait: float) -> None:
    """Pass on what has happened, after waiting up to `wait` seconds for the first of it."""
    try:
        call, arguments = events.get(timeout=wait) if wait else events.get_nowait()
        while True:
            call(*arguments)
            call, arguments = events.get_nowait()
    except queue.Empty:
        return


def _train(job: Job, stop: threading.Event, on_result: Callable[[EpochResult], None]) -> Trained:
    def on_progress(progress: Progress) -> None:
        if stop.is_set():
            raise _StopError

    trained = Trained(job, job.make())
    train, test = job.parts()
    if job.on_epoch is not None:
        job.on_epoch(0, trained.network)
    epochs = fit(
        trained.network, train, test=test, epochs=job.epochs, batch_size=job.batch_size, optimizer=job.optimizer,
        schedule=job.schedule, seed=job.seed, eval_train=job.eval_train, threads=job.threads, on_progress=on_progress,
    )  # fmt: skip
    try:
        # NumPy's warnings of overflow would only announce what DivergenceError says by name.
        with np.errstate(over="ignore", invalid="ignore"):
            for result in epochs:
                trained.history.append(result)
                if job.on_epoch is not None:
                    job.on_epoch(result.epoch, trained.network)
                on_result(result)
    except DivergenceError as error:
        trained.diverged = f"epoch {error.epoch}, step {error.step}"
    return trained


def _ready(job: Job) -> None:
    """Load or compile the kernels by a small training of one job's network, so that no epoch waits for them."""
    network = job.make()
    network.params[...] = 0
    x, y = np.zeros((_READY_ROWS, network.inputs), np.uint8), np.zeros(_READY_ROWS, np.int32)
    few = Part(x, y)
    list(fit(network, few, test=few, epochs=1, batch_size=_READY_ROWS, optimizer=job.optimizer, threads=job.threads))
