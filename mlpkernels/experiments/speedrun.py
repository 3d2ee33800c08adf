"""speedrun: the least training time to a mean test accuracy, by three networks whose recipes were tuned for it."""

import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..datasets import Dataset
from ..layers import Conv2d, Dense, Layer, MaxPool2d
from ..network import Network
from ..optimizers import AdamW
from ..scaling import Scaling
from ..schedules import OneCycle
from .catalogue import Options, Row
from .report import Measured, Report, columns, finished, grouped, quick_word, reached, times
from .side_by_side import Job, Trained, Watch, train_all
from .study import parts

if TYPE_CHECKING:
    from .report import Figures
    from .speedrun_peers import Raced

OURS = "mlpkernels"
_ONE_CYCLE = OneCycle(0.2)


@dataclass(frozen=True)
class Recipe:
    """A network and how AdamW trains it to a mean test accuracy of `target` in the least time.

    network: in words. Pixels are in [0, 1], which keeps their zeros, and zeros cost nothing in a first dense layer.
    validation: the accuracy that the choice rests on, of training on MNIST's first 50,000 training images, on the other
    10,000: mean ± standard deviation, with how many seeds. It may lie below the target by 0.1 points, which the other
    10,000 images bring: the row `cnn` has 98.80 % there, 98.91 % on the test images. These were not looked at until all
    was chosen.
    """

    target: float
    network: str
    layers: tuple[Layer, ...]
    optimizer: AdamW
    batch_size: int
    epochs: int
    validation: str
    schedule: OneCycle = _ONE_CYCLE
    cost: float = 1.0

    @property
    def hidden(self) -> tuple[int, ...]:
        """The hidden layers' widths; () of a network with convolutions."""
        widths = [layer.outputs for layer in self.layers if isinstance(layer, Dense)]
        return tuple(widths[:-1]) if len(widths) == len(self.layers) else ()

    def make(self, dataset: Dataset, seed: int) -> Network:
        """The untrained network."""
        return Network(
            self.layers, dataset.shape, classes=dataset.classes, init="he-normal", seed=seed,
            scaling=Scaling.fit("unit", dataset.train.x, dataset.full_scale, True),
        )  # fmt: skip

    def told(self, epochs: int) -> str:
        """All of it in a line, with so many epochs."""
        adam, rising = self.optimizer, self.schedule.warmup_fraction
        return (
            f"{self.network}; AdamW, betas {adam.beta1:g} and {adam.beta2:g}, weight decay {adam.weight_decay:g}; one "
            f"cycle that reaches the rate {adam.learning_rate:g} after {100 * rising:g} % of the steps; batch "
            f"{self.batch_size}, {epochs} epoch{'s' * (epochs > 1)}; he-normal, pixels in [0, 1]"
        )


def _adamw(learning_rate: float) -> AdamW:
    """The setting that all recipes share: short training gains by a short memory and much weight decay."""
    return AdamW(learning_rate, beta1=0.8, beta2=0.95, weight_decay=0.15)


RECIPES = {
    "mlp-64": Recipe(
        target=0.9764,
        network="784-64-64-10, ReLU",
        layers=(Dense(64, "relu"), Dense(64, "relu"), Dense(10)),
        optimizer=_adamw(0.013),
        batch_size=192,
        epochs=3,
        validation="97.70 ± 0.10 %, 16 seeds",
    ),
    "mlp": Recipe(
        target=0.98,
        network="784-128-128-10, ReLU",
        layers=(Dense(128, "relu"), Dense(128, "relu"), Dense(10)),
        optimizer=_adamw(0.007),
        batch_size=96,
        epochs=3,
        validation="98.00 ± 0.09 %, 16 seeds",
        cost=2.0,
    ),
    "cnn": Recipe(
        target=0.99,
        network="conv 1→8 5x5, ReLU, max-pool 2; conv 8→16 3x3, ReLU, max-pool 2; 400→64 ReLU→10",
        layers=(
            Conv2d(8, 5, activation="relu"),
            MaxPool2d(2),
            Conv2d(16, 3, activation="relu"),
            MaxPool2d(2),
            Dense(64, "relu"),
            Dense(10),
        ),
        optimizer=_adamw(0.008),
        batch_size=48,
        epochs=2,
        validation="98.96 ± 0.05 %, 4 seeds",
        cost=20.0,
    ),
}


def run(row: Row, dataset: Dataset, options: Options, watch: Watch | None) -> Report:
    """Train every recipe with every seed, one network after another, then its peers where they are asked for."""
    began = time.perf_counter()
    watch = watch or Watch()
    train, test = parts(dataset, options)
    jobs = [
        Job(
            {"recipe": name, "seed": seed}, functools.partial(recipe.make, dataset, seed), lambda: (train, test),
            options.epochs_of(row) or recipe.epochs, recipe.batch_size, recipe.optimizer, seed, recipe.cost,
            schedule=recipe.schedule, threads=options.threads,
        )
        for name, recipe in RECIPES.items() for seed in range(options.seeds)
    ]  # fmt: skip
    trained = train_all(row.name, jobs, 1, watch)
    groups = grouped(trained, "recipe")
    raced, absent = _peers(groups, dataset, options, watch) if options.peers else ([], [])
    lines = []
    for name, group in groups.items():
        ours = _line(name, group, row, options)
        lines += [ours, *(_peer_line(one, ours) for one in raced if one.recipe == name)]
    report = Report(row, options, lines, trained, time.perf_counter() - began, _notes(groups, raced, absent))
    report.figures = _figures(groups, raced, options)
    report.extra = {"peers": [one.to_json() for one in raced], "peers absent": absent}
    return report


def _peers(
    groups: Mapping[str, list[Trained]], dataset: Dataset, options: Options, watch: Watch
) -> tuple[list["Raced"], list[str]]:
    """What the installed peers made of the recipes, and the names of those that are not installed."""
    from . import speedrun_peers

    train, test = parts(dataset, options)
    raced = []
    for name, group in groups.items():
        recipe, epochs = RECIPES[name], group[0].job.epochs
        networks = [recipe.make(dataset, seed) for seed in range(options.peer_seeds)]
        raced += speedrun_peers.train(name, recipe, networks, epochs, train, test, watch)
    return raced, speedrun_peers.absent()


def _line(name: str, group: Sequence[Trained], row: Row, options: Options) -> Measured:
    target = RECIPES[name].target
    accuracy = tuple(one.final[1] for one in group)
    told = reached(options, row, Measured("", accuracy).mean, target)
    if told and len(group) < row.seeds:
        told += f"; {row.seeds} seeds are wanted"
    return Measured(
        f"test accuracy, {name}", accuracy, f"{100 * target:.2f} %, as a mean", seconds=times(group), verdict=told,
        races=True,
    )  # fmt: skip


def _peer_line(raced: "Raced", ours: Measured) -> Measured:
    seconds = raced.seconds.sum(axis=1)
    slower = f"{np.median(seconds) / np.median(ours.seconds):.3g} times as long" if ours.seconds else ""
    return Measured(
        f"the same in {raced.system}", tuple(raced.accuracy[:, -1].tolist()), seconds=tuple(seconds.tolist()),
        verdict=slower, races=True,
    )  # fmt: skip


def _notes(groups: Mapping[str, list[Trained]], raced: Sequence["Raced"], absent: Sequence[str]) -> list[str]:
    notes = []
    for name, group in groups.items():
        recipe = RECIPES[name]
        notes.append(f"{name}: {recipe.told(group[0].job.epochs)}; when it was chosen: {recipe.validation}")
    notes.append(
        "timed are the steps of training: not compiling, not reading the data, not drawing the order of the rows (1 ms "
        "an epoch), not the evaluation after each epoch; one network at a time, the peers after ours"
    )
    if raced:
        threads = ", ".join(f"{one.recipe} {one.threads}" for one in raced if one.chosen)
        notes.append(
            "peers: the same initial values, order of rows and steps as ours of the same seed, data in memory; their "
            "accuracy is that of their weights in our network"
        )
        notes += [f"PyTorch's better number of threads: {threads}"] * bool(threads)
        notes += ["JAX: an epoch is one compiled scan, compiled before"] * any(not one.chosen for one in raced)
    notes += [f"not installed, so not beside: {', '.join(absent)}"] * bool(absent)
    return notes


def _figures(groups: Mapping[str, list[Trained]], raced: Sequence["Raced"], options: Options) -> "Figures":
    from . import figures

    races = []
    for name, group in groups.items():
        if done := finished(group):
            races.append(figures.Race(name, OURS, columns(done, "seconds"), columns(done, "test_accuracy")))
        races += [figures.Race(name, one.system, one.seconds, one.accuracy) for one in raced if one.recipe == name]
    targets = {name: RECIPES[name].target for name in groups}
    title = f"speedrun: test accuracy by seconds of training{quick_word(options)}"
    return {"accuracy-by-seconds": functools.partial(figures.race_figure, title, races, targets)} if races else {}
