"""The data of a run: loaded as its settings say, split, and named for people."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from .progress import Downloads
from .settings import Settings
from .tables import count

if TYPE_CHECKING:
    from mlpkernels.datasets import Dataset, Part


@dataclasses.dataclass(frozen=True)
class Data:
    """A data set with its training, validation (or None) and test part."""

    dataset: Dataset
    train: Part
    validation: Part | None
    test: Part

    @property
    def unit(self) -> str:
        """What a row is called."""
        return "images" if self.dataset.images else "rows"

    def describe(self) -> str:
        """One line: rows of every part, shape, classes."""
        parts = [f"{count(len(self.train))} training"]
        if self.validation is not None:
            parts.append(f"{count(len(self.validation))} validation")
        parts = [", ".join(parts), f"{count(len(self.test))} test"]
        shape = (
            " x ".join(map(str, self.dataset.shape[-2:])) if self.dataset.images else f"{self.dataset.shape[0]} columns"
        )
        return f"{' and '.join(parts)} {self.unit}, {shape}, {len(self.dataset.classes)} classes"


def load(settings: Settings) -> Data:
    """Load and split the data of a run; notes on them go to stderr. Named errors of `mlpkernels.datasets`."""
    dataset = load_one(settings, settings.data)
    test = load_one(settings, settings.test_data, min_classes=1) if settings.test_data else None
    return divide(settings, dataset, test)


def divide(settings: Settings, dataset: Dataset, test: Dataset | None) -> Data:
    """The parts of a loaded data set, and of other test data, that these settings ask for."""
    from mlpkernels import datasets

    dataset = datasets.with_test(dataset, settings.test_split, settings.split_seed, test)
    assert dataset.test is not None
    train, validation = dataset.train, None
    if settings.val_split:
        train, validation = datasets.split(train, settings.val_split, settings.split_seed)
    return Data(dataset, train, validation, dataset.test)


def load_one(settings: Settings, data: str, min_classes: int = 2) -> Dataset:
    """Load one data set where and how the settings say."""
    from mlpkernels import datasets

    dataset = datasets.load(
        data, data_dir=settings.data_dir or None, offline=settings.offline,
        label_column=settings.label_column or None, on_download=Downloads(), min_classes=min_classes,
    )  # fmt: skip
    for note in dataset.notes:
        click.echo(f"note: {note}", err=True)
    return dataset
