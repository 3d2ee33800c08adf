"""The networks of a sweep: their settings checked before any is trained, their data held once, the longest first."""

from __future__ import annotations

import collections
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .data import Data, divide, load_one
from .errors import OptionError
from .parsing import AUTO
from .session import class_weight, fit_arguments, fit_scaling, make_network
from .settings import FIELDS, Settings, resolve
from .sweep_plan import Plan

if TYPE_CHECKING:
    from mlpkernels import Network, Scaling, TrainingState

# Seconds of training, roughly: for the order and the time left. Measured with 784-64-64-10 at batches of 8 to 150.
_SECONDS_A_FLOP, _SECONDS_A_STEP, _SECONDS_A_WEIGHT_AND_STEP = 4e-12, 2e-6, 1.5e-10
_ARCHITECTURE = [
    field.name for name, field in FIELDS.items() if field.metadata["section"] == "Network" and name != "init"
]
_DIVISIONS = ("test_split", "val_split", "split_seed")  # settings that say how the data are divided


@dataclasses.dataclass(frozen=True)
class Job:
    """A network to train: its place in the sweep, the swept values, all settings, and about how long it takes."""

    number: int
    setting: Mapping[str, Any]
    settings: Settings
    cost: float


@dataclasses.dataclass
class _Division:
    """The data divided in one way, and the scalings fitted to them."""

    data: Data
    scalings: dict[str, Scaling] = dataclasses.field(default_factory=dict)


class Shelf:
    """The data of a sweep, loaded once; of the ways to divide them only those used last are kept."""

    def __init__(self, settings: Settings, keep: int) -> None:
        self._lock = threading.Lock()
        self._keep = keep
        self._divided: collections.OrderedDict[tuple[Any, ...], _Division] = collections.OrderedDict()
        self.dataset = load_one(settings, settings.data)
        self.other = load_one(settings, settings.test_data, min_classes=1) if settings.test_data else None

    def data(self, settings: Settings) -> Data:
        """The data as these settings divide them."""
        return self._division(settings).data

    def scaling(self, settings: Settings) -> Scaling:
        """The scaling of these settings."""
        division = self._division(settings)
        with self._lock:
            if settings.scale not in division.scalings:
                division.scalings[settings.scale] = fit_scaling(settings, division.data)
            return division.scalings[settings.scale]

    def _division(self, settings: Settings) -> _Division:
        key = division_of(settings)
        with self._lock:
            if key not in self._divided:
                self._divided[key] = _Division(divide(settings, self.dataset, self.other))
                while len(self._divided) > self._keep:
                    self._divided.popitem(last=False)
            self._divided.move_to_end(key)
            return self._divided[key]

    def checksums(self) -> dict[str, str]:
        """Tell the data, as loaded, apart from others."""
        from mlpkernels.run import checksum

        parts = {"training": self.dataset.train, "test": self.other.train if self.other else self.dataset.test}
        return {name: f"{len(part)} rows ({checksum([part.y, part.x])})" for name, part in parts.items() if part}


def division_of(settings: Settings) -> tuple[Any, ...]:
    """What says how the data are divided."""
    return tuple(getattr(settings, name) for name in _DIVISIONS)


def prepare(plan: Plan, combinations: Sequence[Mapping[str, Any]], shelf: Shelf) -> list[Job]:
    """Every network's job, checked. The error names what is wrong before any network is trained."""
    from mlpkernels.scaling import default_kind
    from mlpkernels.schedules import schedule

    jobs, weights = [], dict[tuple[Any, ...], float]()
    kind = default_kind(shelf.dataset.images)
    for number, setting in enumerate(combinations):
        settings = plan.settings(setting)
        data = shelf.data(settings)
        rows = len(data.train)
        settings = resolve(settings, rows, kind)
        if settings.backend == AUTO:  # networks are trained side by side, a core each
            settings = dataclasses.replace(settings, backend="cpu")
        class_weight(settings, data.dataset.classes)
        steps = 1 if settings.batch_size == "full" else -(-rows // settings.batch_size)
        try:
            schedule(settings.schedule).rates(settings.learning_rate, 0, 1, settings.epochs)
        except ValueError as error:
            raise OptionError("--schedule", settings.schedule, str(error)) from None
        shape = tuple(getattr(settings, name) for name in _ARCHITECTURE)
        if shape not in weights:
            weights[shape] = make_network(settings, data, shelf.scaling(settings)).flops / 2
        jobs.append(Job(number, setting, settings, _cost(settings.epochs, rows, steps, weights[shape])))
    return jobs


def _cost(epochs: int, rows: int, steps: int, weights: float) -> float:
    """Seconds, roughly."""
    return epochs * (
        rows * 6 * weights * _SECONDS_A_FLOP + steps * (_SECONDS_A_STEP + weights * _SECONDS_A_WEIGHT_AND_STEP)
    )


def in_order(jobs: Sequence[Job], begun: Mapping[int, Any]) -> list[Job]:
    """Those begun, then one way to divide the data after the other, within it the longest first.

    Long ones at the end would leave all cores but one without work.
    """
    ways = {way: place for place, way in enumerate(dict.fromkeys(division_of(job.settings) for job in jobs))}
    return sorted(jobs, key=lambda job: (job.number not in begun, ways[division_of(job.settings)], -job.cost))


def maker(jobs: Sequence[Job], shelf: Shelf, going: Mapping[int, tuple[Network, TrainingState]]) -> Any:
    """What `sweep` calls with a job's place among `jobs`, as `job`: its network and the arguments of `fit`."""

    def make(job: int) -> tuple[Network, dict[str, Any]]:
        settings, number = jobs[job].settings, jobs[job].number
        data = shelf.data(settings)
        arguments = fit_arguments(settings, data)
        if number in going:
            network, state = going[number]
            return network, arguments | {"state": state}
        return make_network(settings, data, shelf.scaling(settings)), arguments

    return make
