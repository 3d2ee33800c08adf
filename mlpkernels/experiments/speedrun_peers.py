"""The speedrun's recipes in PyTorch and JAX: from our initial values, in our order of the rows, by the same steps."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import seeds
from ..arrays import thread_count
from ..bench import epochs as bench
from ..bench import peers
from ..bench.images import Images
from ..datasets import Part
from ..network import Network
from ..optimizers import AdamW
from .report import spread
from .side_by_side import Watch

if TYPE_CHECKING:
    from .speedrun import Recipe

SYSTEMS = (peers.TORCH, peers.JAX)
_TRIAL = 10  # of an epoch, the part by which the better number of threads is chosen


@dataclass(frozen=True, eq=False)
class Raced:
    """What a peer made of a recipe: test accuracy and seconds of training, both (seeds, epochs).

    threads: of the peer; chosen: as its better number, rather than all because it cannot be changed.
    """

    system: str
    recipe: str
    threads: int
    chosen: bool
    accuracy: np.ndarray
    seconds: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "system": self.system, "recipe": self.recipe, "threads": self.threads,
            "accuracy": self.accuracy.tolist(), "seconds": self.seconds.tolist(),
        }  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Case(bench.Case):
    """A recipe as the peers take a case; `rate` is that of its first step, for the check of their answers."""

    start: Network
    first_rate: float
    adam: AdamW

    @property
    def betas(self) -> tuple[float, float]:
        return self.adam.beta1, self.adam.beta2

    @property
    def weight_decay(self) -> float:
        return self.adam.weight_decay

    @property
    def rate(self) -> float:
        return self.first_rate

    def __str__(self) -> str:
        return f"{self.start!r} {self.rule} {self.batch}"

    def network(self) -> Network:
        return self.start.copy()


def absent() -> list[str]:
    """The peers that are not installed."""
    missing = peers.absent()
    return [system for system in SYSTEMS if system in missing]


def train(
    name: str, recipe: "Recipe", networks: Sequence[Network], epochs: int, part: Part, test: Part, watch: Watch
) -> list[Raced]:
    """Train the untrained networks of the seeds 0, 1, … by every installed peer, answers checked first.

    MlpkError where a peer trains otherwise than our plain kernels.
    """
    steps, adam = -(-len(part) // recipe.batch_size), recipe.optimizer
    rates = [recipe.schedule.rates(adam.learning_rate, epoch, steps, epochs) for epoch in range(epochs)]
    first = float(rates[0][0])
    cases = [_Case(recipe.hidden, "AdamW", recipe.batch_size, network, first, adam) for network in networks]
    images = Images(part.x, part.y, name, name)
    expected = bench.reference_losses(cases[0], images)
    missing, raced = absent(), []
    for system in (system for system in SYSTEMS if system not in missing):
        watch.say(f"{name} in {system}")
        trainer, threads = _torch(cases[0], part) if system == peers.TORCH else _jax(cases[0], part)
        with trainer.setting():
            bench.check(cases[0], system, trainer, len(part), expected)
            if trainer.compiles:
                trainer.run(trainer.place(np.arange(len(part)), rates[0]))
            found = [_one(trainer, case, seed, rates, test) for seed, case in enumerate(cases)]
        accuracy, seconds = (np.array(values) for values in zip(*found, strict=True))
        raced.append(Raced(system, name, threads, system == peers.TORCH, accuracy, seconds))
        middle, last = float(np.median(seconds.sum(axis=1))), accuracy[:, -1]
        deviation = float(last.std(ddof=1)) if len(last) > 1 else math.nan
        watch.say(f"{name} in {system}: {spread(float(last.mean()), deviation)}, {middle:.3g} s")
    return raced


def _torch(case: _Case, part: Part) -> tuple[peers.Torch, int]:
    """PyTorch at its better number of threads, one or all, by a part of an epoch each."""
    rows = np.arange(len(part))[: max(len(part) // _TRIAL, case.batch)]
    scaling = case.start.scaling
    assert scaling is not None
    x, times = scaling.apply(part.x), {}
    for threads in sorted({1, thread_count(None)}):
        trainer = peers.Torch(case, x, part.y, threads)
        with trainer.setting():
            placed = trainer.place(rows)
            trainer.run(placed)  # the first allocates
            times[threads] = _timed(trainer, placed)
    best = min(times, key=lambda threads: times[threads])
    return peers.Torch(case, x, part.y, best), best


def _jax(case: _Case, part: Part) -> tuple[peers.Jax, int]:
    """JAX on all cores: it cannot be told otherwise once it has begun."""
    return peers.Jax(case, part.x, part.y), thread_count(None)


def _one(
    trainer: peers.Torch | peers.Jax, case: _Case, seed: int, rates: Sequence[np.ndarray], test: Part
) -> tuple[list[float], list[float]]:
    """Test accuracy after each epoch and its seconds, from a seed's network and in the order `fit` takes the rows."""
    trainer.start = [view.copy() for view in case.network().parameters().values()]
    trainer.reset()
    order = seeds.generator(seed, seeds.ORDER)
    network, accuracy, seconds = case.network(), [], []
    for of_epoch in rates:
        placed = trainer.place(order.permutation(len(trainer.y)).astype(np.int64, copy=False), of_epoch)
        seconds.append(_timed(trainer, placed))
        for view, values in zip(network.parameters().values(), trainer.parameters(), strict=True):
            view[...] = values
        accuracy.append(float((network.predict(test.x) == np.asarray(network.classes)[test.y]).mean()))
    return accuracy, seconds


def _timed(trainer: peers.Torch | peers.Jax, placed: Any) -> float:
    """Seconds of a call."""
    began = time.perf_counter()
    trainer.run(placed)
    return time.perf_counter() - began
