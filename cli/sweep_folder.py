"""A sweep's folder: found again by the same command, its finished networks kept, its half-trained ones too."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlpkernels.errors import DataError, MlpkError, ModelFileError, ResumeError

from . import runs, sweep_plan
from .runs import RunFolder
from .sweep_plan import Plan

if TYPE_CHECKING:
    from mlpkernels import Network, TrainingState
    from mlpkernels.sweep import SweepRow
    from mlpkernels.sweep_results import Results

RESULTS, UNFINISHED = "results.csv", "unfinished"


def find(name: str) -> Path | None:
    """The sweep's folder that `name` means: a path, or its name in `runs/`; None where there is none."""
    return next((path for path in (Path(name).expanduser(), runs.PARENT / name) if runs.is_sweep(path)), None)


def open_folder(plan: Plan, checksums: Mapping[str, str], data_name: str) -> RunFolder:
    """The folder of this sweep, begun before or new. ResumeError names a setting in which another's differs."""
    out = plan.base.out
    path = Path(out) if out else _same(plan)
    if path is None:
        return RunFolder.create("", f"sweep-{data_name}")
    if runs.is_sweep(path):
        if path.is_relative_to(Path.cwd()):
            path = path.relative_to(Path.cwd())
        _refuse_other(path, plan, checksums)
        return RunFolder.reopen(path)
    if path.is_dir() and any(entry.name != runs.LOCK for entry in path.iterdir()):
        raise MlpkError(f"{path}: the folder is not empty, and no sweep's; name another with --out")
    return RunFolder.create(out, "")


def _same(plan: Plan) -> Path | None:
    """The newest folder in runs/ that holds the same sweep."""
    folders = [path.parent for path in runs.PARENT.glob(f"*/{sweep_plan.FILE}")]
    for path in sorted(folders, key=lambda path: (path / sweep_plan.FILE).stat().st_mtime_ns, reverse=True):
        try:
            stored, _ = sweep_plan.read(path / sweep_plan.FILE)
        except (MlpkError, OSError):  # a damaged one is no match
            continue
        if plan.difference(stored) is None:
            return path
    return None


def _refuse_other(path: Path, plan: Plan, checksums: Mapping[str, str]) -> None:
    stored, before = sweep_plan.read(path / sweep_plan.FILE)
    if (found := plan.difference(stored)) is not None:
        option, now, then = found
        raise ResumeError(
            f"{option} {now} where the sweep in {path} has {then}: it goes on with the same settings only; "
            "for another sweep name another folder with --out"
        )
    for part, checksum in checksums.items():
        if before.get(part, checksum) != checksum:
            raise ResumeError(
                f"{path}: the {part} data have changed since this sweep was begun, from {before[part]} to {checksum}; "
                "begin a new one with --out"
            )


class Record:
    """results.csv and the half-trained networks of one sweep's folder, which this process alone writes to.

    done: settings, as texts, of the networks that are done. going: number -> (network, state) of those that
    were stopped in the middle and go on from there.
    """

    def __init__(self, folder: RunFolder, plan: Plan, combinations: Sequence[Mapping[str, Any]]) -> None:
        from mlpkernels.sweep_results import text

        self._folder, self._plan = folder, plan
        self._keys = [tuple(text(value) for value in setting.values()) for setting in combinations]
        self.path = folder / RESULTS
        self.rows = 0
        self.done: set[int] = set()
        self.going: dict[int, tuple[Network, TrainingState]] = {}

    def begin(self, checksums: Mapping[str, str]) -> None:
        """Write sweep.toml and results.csv with the rows that stay: of networks done or going on."""
        from mlpkernels.files import write_atomic

        if not runs.is_sweep(self._folder.path):
            write_atomic(self._folder / sweep_plan.FILE, self._plan.to_toml(checksums).encode())
        write_atomic(self.path, "".join(self._kept_lines()).encode())

    def _kept_lines(self) -> list[str]:
        from mlpkernels.sweep_results import header, line, read

        lines = [header(self._plan.options)]
        if self.path.is_file():
            results = read(self.path)
            self._check(results)
            number_of = {key: number for number, key in enumerate(self._keys)}
            self.done = {number_of[tuple(network.settings.values())] for network in results.networks if network.done}
            lines += [source for key, source in results.lines if number_of[key] in self.done]
        self._find_going()
        for number, (_, state) in self.going.items():
            lines += [line(self._keys[number], "training", row.epoch, row) for row in state.history]
        self.rows = len(lines) - 1
        return lines

    def _check(self, results: Results) -> None:
        if results.options != self._plan.options:
            raise DataError(
                f"{self.path}: its options are {', '.join(results.options)}: not those of {sweep_plan.FILE}"
            )
        known = set(self._keys)
        for network in results.networks:
            if tuple(network.settings.values()) not in known:
                shown = ", ".join(f"{name} {cell}" for name, cell in network.settings.items())
                remedy = "remove its rows, and go on"
                if self._plan.sample:
                    remedy = "an earlier version may have drawn it: name a new folder with --out"
                raise DataError(f"{self.path}: {shown}: this sweep has no such network; {remedy}")

    def _find_going(self) -> None:
        """The networks stopped in the middle; a note tells of one that is damaged and starts again."""
        from mlpkernels import load_checkpoint

        for file in sorted((self._folder / UNFINISHED).glob("*.safetensors")):
            number = int(file.stem) if file.stem.isdigit() else -1
            if not 0 <= number < len(self._keys) or number in self.done:
                continue
            try:
                network, state, _ = load_checkpoint(file)
            except ModelFileError as error:
                click.echo(f"note: {error}; this network starts again", err=True)
                continue
            self.going[number] = network, state

    def add(self, number: int, row: SweepRow) -> None:
        """Append an epoch's row, whole, in one write; the last one of a network ends its going on."""
        from mlpkernels.sweep_results import DONE, line

        runs.append_line(self.path, line(self._keys[number], row.status, row.epoch, row.result))
        self.rows += 1
        if row.status in DONE:
            self.done.add(number)
            self._checkpoint(number).unlink(missing_ok=True)

    def save(self, number: int, network: Network, state: TrainingState) -> None:
        """Keep a network that is stopped in the middle; one that has overflowed starts again."""
        from mlpkernels import save_checkpoint

        if (state.epoch or state.step) and network.finite:
            self._checkpoint(number).parent.mkdir(exist_ok=True)
            save_checkpoint(self._checkpoint(number), network, state)

    def _checkpoint(self, number: int) -> Path:
        return self._folder / UNFINISHED / f"{number:06d}.safetensors"

    def close(self) -> None:
        """Remove what is empty, and let others write; a fresh folder in which nothing was reached goes again."""
        unfinished = self._folder / UNFINISHED
        try:
            unfinished.rmdir()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
        self._folder.close(keep=bool(self.rows) or unfinished.is_dir())


def half_trained(path: Path) -> int:
    """How many networks of a sweep's folder were stopped in the middle."""
    return len(list((path / UNFINISHED).glob("*.safetensors"))) if os.path.isdir(path / UNFINISHED) else 0
