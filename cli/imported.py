"""Runs that `mlpk import` made: what their folders hold, and how they are told from runs that were trained."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import config, runs

if TYPE_CHECKING:
    from mlpkernels import Network

KEY = "imported"  # in config.toml: the file that the network came from
FULL_SCALE = "full-scale"  # the greatest raw value that its scaling is for


def write(
    folder: runs.RunFolder, file: Path, network: Network, data: str | None, label_column: str | None,
    full_scale: float | None,
) -> None:  # fmt: skip
    """Fill the folder of a run: the model, and a config.toml that tells where it came from and on what it is used."""
    from mlpkernels import __version__
    from mlpkernels.files import write_atomic

    values: dict[str, str | float] = {KEY: str(file.expanduser().absolute())}
    if full_scale is not None:
        values[FULL_SCALE] = full_scale
    if data is not None:
        values["data"] = data
        label_column = label_column or _label_column(data)
    if label_column:
        values["label-column"] = label_column
    lines = [f"# Imported by mlpk import, mlpkernels {__version__}"]
    lines += [f"{name} = {config.toml_value(value)}" for name, value in values.items()]
    network.save(folder / runs.MODEL)
    write_atomic(folder / runs.CONFIG, ("\n".join(lines) + "\n").encode())


def _label_column(data: str) -> str | None:
    """The first column of a table, which holds its labels: mlpk predict leaves it out by name."""
    if not data.lower().endswith((".csv", ".csv.gz", ".tsv")):
        return None
    from mlpkernels.datasets import csvfile

    return csvfile.read_header(Path(data)).names[0]


def origin(run: Path) -> str | None:
    """The file that a run was imported from; None of one that was trained, or whose config.toml is damaged."""
    found = _values(run).get(KEY)
    return found if isinstance(found, str) else None


def full_scale(run: Path) -> float | None:
    """The greatest raw value that an imported run's scaling is for; None where it was not told."""
    found = _values(run).get(FULL_SCALE)
    return float(found) if isinstance(found, (int, float)) and 0 < found < float("inf") else None


def _values(run: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((run / runs.CONFIG).read_bytes().decode())
    except (OSError, ValueError):
        return {}


def tells_data(run: Path) -> bool:
    """Whether an imported run was given data of its own."""
    return "data" in tomllib.loads((run / runs.CONFIG).read_bytes().decode())
