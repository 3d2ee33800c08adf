"""One measurement from beginning to end: images, answers checked, rounds of turns, what they came to."""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..kernels.cpu import steps
from . import epochs, forced, images, kernels, machine, peers, timing
from .results import Entry, Results

SECTIONS = ("kernels", "epochs")
_PACKAGES = ("mlpkernels", "numpy", "numba", "llvmlite")
_PEER_PACKAGES = ("torch", "jax", "scikit-learn", "scipy")
BUSY = 0.15  # cores that others use: from there on figures suffer


@dataclass(frozen=True)
class Options:
    """What to measure: only "kernels" or "epochs", or None for both; the installed peers, too; quick: a look.

    data_dir: a folder that holds MNIST. set_aside: what forced.set_aside has removed.
    """

    quick: bool = False
    only: str | None = None
    peers: bool = False
    data_dir: str | os.PathLike[str] | None = None
    set_aside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.only not in (*SECTIONS, None):
            raise ValueError(f"only={self.only!r}: one of {', '.join(SECTIONS)} or None was wanted")


@dataclass(frozen=True)
class Budget:
    """Rounds, seconds of calls in a kernel's turn, seconds for all turns of a section, and for a turn of an epoch."""

    rounds: int
    turn: float
    kernels: float
    epochs: float
    epoch: float


_FULL, _QUICK = Budget(9, 0.004, 10.0, 18.0, 1.5), Budget(3, 0.002, 1.5, 2.0, 0.3)
_PEERS_LONGER = 4.0

# What `run` asks the compiled backend for, on one thread and, of those that have a twin, on several.
_SHARED = ("fma_peak", "gemm", "image_layers", "no_layers", "sparse_layer", "no_sparse_layer", "no_curves",
           "no_targets", "rows_phase", "params_phase")  # fmt: skip
_OWN = {"kernels": ("product", "cross_entropy", "sgd_step", "adam_step"), "epochs": ()}
_LOOPS = {"kernels": ("differentiate", "infer"), "epochs": ("train",)}


class Watch:
    """What `run` tells of its progress; this one keeps it to itself."""

    def say(self, text: str) -> None:
        """A stage begins."""

    def turn(self, done: int, total: int) -> None:
        """A turn of that stage is done."""


def settings(options: Options, found: images.Images) -> dict[str, Any]:
    """What has to be equal where two measurements are compared, beside the machine."""
    return {"quick": options.quick, "images": found.kind, "threads": machine.thread_counts()}


def get_ready(options: Options) -> None:
    """Load or compile the kernels that `run` will call, so that none of its stages waits for them."""
    sections = SECTIONS if options.only is None else (options.only,)
    names = [*_SHARED, *(name for section in sections for name in (*_OWN[section], *_LOOPS[section]))]
    if max(machine.thread_counts()) > 1:
        names += [f"{loop}_parallel" for section in sections for loop in _LOOPS[section]]
        names += ["product_parallel"] if "kernels" in sections else []
    steps.prepare((name, "float32") for name in names)


def run(options: Options, found: images.Images | None = None, watch: Watch | None = None) -> Results:
    """Measure: some 40 s, quick 8 s, with peers a few minutes. found: the images, if they are loaded already.

    MlpkError where an answer is wrong, and errors as of images.load.
    """
    watch = watch or Watch()
    found = found or images.load(options.data_dir)
    load, budget = machine.Load(), _QUICK if options.quick else _FULL
    counts = machine.thread_counts()
    ceilings = machine.Ceilings(counts)
    longer = _PEERS_LONGER if options.peers else 1.0
    entries: list[timing.Timed] = []
    if options.only != "epochs":
        watch.say("checking the kernels' answers")
        entries += _kernels(options, found, counts, budget, longer, ceilings.measure, watch)
    if options.only != "kernels":
        watch.say("checking the epochs' answers")
        entries += _epochs(options, found, counts, budget, longer, ceilings.measure, watch)
    return Results(
        date=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        machine=machine.facts(),
        settings=settings(options, found),
        versions=versions(options),
        load={**load.stop(), "waits": timing.middle_wait(entries)},
        ceilings=ceilings.to_json(),
        peers=_peers(options) if options.peers else {},
        entries=[_entry(entry) for entry in entries],
    )


def _entry(entry: timing.Timed) -> Entry:
    values = entry.to_json()
    return Entry(**{**values, "seconds": tuple(values["seconds"])})


def versions(options: Options) -> dict[str, str]:
    """Ours, Python's and those of packages that play a part."""
    return machine.versions(_PACKAGES + (_PEER_PACKAGES if options.peers else ()))


def _kernels(
    options: Options, found: images.Images, counts: list[int], budget: Budget, longer: float,
    between: Callable[[], None], watch: Watch,
) -> list[timing.Timed]:  # fmt: skip
    entries = list(kernels.entries(found, counts, options.quick))
    if options.peers:
        entries += peers.kernel_entries(counts, options.quick)
    for entry in entries:
        entry.calibrate(budget.turn)
    timing.equal_turns(entries)
    watch.say("timing kernels")
    entries.sort(key=lambda entry: (entry.threads, entry.system != kernels.OURS))  # stable: few changes of settings
    timing.rounds(entries, budget.rounds, longer * budget.kernels, between, watch.turn)
    return entries


def _epochs(
    options: Options, found: images.Images, counts: list[int], budget: Budget, longer: float,
    between: Callable[[], None], watch: Watch,
) -> list[timing.Timed]:  # fmt: skip
    rows = epochs.rows_of(epochs.CASES, options.quick)
    entries = list(epochs.entries(found, counts, rows, budget.epoch))
    if options.peers:
        entries += peers.epoch_entries(found, counts, rows)
    entries.sort(key=lambda entry: [str(case) for case in rows].index(entry.name))  # systems of a case side by side
    watch.say("timing epochs")
    timing.rounds(entries, budget.rounds, longer * budget.epochs, between, watch.turn)
    return entries


def _peers(options: Options) -> dict[str, Any]:
    return {
        "absent": peers.absent(),
        "set aside": list(options.set_aside),
        "forced": forced.settings(),
        "libraries": peers.libraries(),
    }
