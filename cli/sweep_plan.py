"""What a sweep trains: its swept options, its sample, what all networks share; and its file sweep.toml."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlpkernels.errors import MlpkError

from . import config, runs
from .axes import ONCE, SWEPT, Axis, parse_axis
from .errors import OptionError, os_error_text
from .settings import FIELDS, Settings, build, from_mapping

FILE = runs.SWEEP
_FREE = ("data-dir", "offline", "threads", "checkpoint-every", "plots", "out", "quiet")  # may change when it goes on
_SAMPLE, _SAMPLE_SEED = "sample", "sample-seed"
_MOST = 100_000  # networks


@dataclasses.dataclass(frozen=True)
class Plan:
    """A sweep: `fixed` values by option, `axes` of the swept options, `sample` (0: the whole grid) and its seed."""

    fixed: dict[str, Any]
    axes: dict[str, Axis]
    sample: int = 0
    sample_seed: int = 0

    @property
    def options(self) -> tuple[str, ...]:
        """The swept options, in the order of the settings."""
        return tuple(self.axes)

    @property
    def base(self) -> Settings:
        """The settings that all networks share; swept options have their defaults."""
        return Settings(**{FIELDS[name].name: value for name, value in self.fixed.items()})

    def combinations(self) -> list[dict[str, Any]]:
        """A dictionary a network: the values of the swept options. OptionError for too many, or too few to draw."""
        from mlpkernels.sweep import grid, sample
        from mlpkernels.sweep_results import REPEATS

        listed = {name: axis.values for name, axis in self.axes.items() if axis.range is None}
        if not self.sample:
            _check_size(math.prod(map(len, listed.values())))
            return grid(**listed)
        repeats = {name: listed.pop(name) for name in REPEATS if name in listed}
        _check_size(self.sample * math.prod(map(len, repeats.values())))
        drawn = {name: axis.range or axis.values for name, axis in self.axes.items() if name not in repeats}
        if not drawn:
            raise OptionError(f"--{_SAMPLE}", self.sample, "it draws settings, and the seeds alone are swept")
        try:
            chosen = sample(self.sample, self.sample_seed, **drawn)
        except ValueError as error:
            raise OptionError(f"--{_SAMPLE}", self.sample, str(error).removeprefix("sample: ")) from None
        return [self._ordered(one | other) for one, other in itertools.product(chosen, grid(**repeats))]

    def _ordered(self, setting: Mapping[str, Any]) -> dict[str, Any]:
        return {name: setting[name] for name in self.axes}

    def settings(self, setting: Mapping[str, Any]) -> Settings:
        """A network's settings, checked together; what the data decide is open. OptionError names what is wrong."""
        return build(self.fixed | dict(setting))

    # ---- the file

    def to_toml(self, checksums: Mapping[str, str]) -> str:
        """The content of sweep.toml: what all share, the swept options as they are typed, the data's checksums."""
        shared = config.to_toml(self.base, with_out=False, command="sweep", without={*self.axes, "quiet"})
        lines = ["", "[sweep]", *(f"{name} = {config.toml_value(axis.text)}" for name, axis in self.axes.items())]
        if self.sample:
            lines += [f"{_SAMPLE} = {self.sample}", f"{_SAMPLE_SEED} = {self.sample_seed}"]
        lines += ["", "[checksums]", *(f"{part} = {config.toml_value(text)}" for part, text in checksums.items())]
        return shared + "\n".join(lines) + "\n"

    def difference(self, other: Plan) -> tuple[str, str, str] | None:
        """(option, its value here, its value there) of the first one in which two plans differ."""
        for name in FIELDS:
            if name not in _FREE:
                here, there = self._typed(name), other._typed(name)
                if here[0] != there[0]:
                    return f"--{name}" if name != "data" else "DATA", here[1], there[1]
        if self.sample != other.sample:
            return f"--{_SAMPLE}", str(self.sample or "none"), str(other.sample or "none")
        if self.sample and self.sample_seed != other.sample_seed:
            return f"--{_SAMPLE_SEED}", str(self.sample_seed), str(other.sample_seed)
        return None

    def _typed(self, name: str) -> tuple[Any, str]:
        """An option's value for a comparison, and as it is shown."""
        if name in self.axes:
            axis = self.axes[name]
            return (axis.values, axis.range), axis.text
        value = self.fixed.get(name, FIELDS[name].default)
        return ((value,), None), config.shown(value)


def _check_size(networks: int) -> None:
    if networks > _MOST:
        reason = f"{networks:,} networks; at most {_MOST:,} were wanted: fewer values, or a smaller --{_SAMPLE}"
        raise OptionError("the grid", None, reason)


def from_options(file: str | None, given: Mapping[str, Any], sample: int | None, seed: int | None) -> Plan:
    """The plan of a command line: `given` holds an Axis for an option that may be swept, else a checked value.

    OptionError where nothing is swept.
    """
    stored = _read_for_option(Path(file)) if file is not None else Plan({}, {})
    fixed, axes = dict(stored.fixed), dict(stored.axes)
    for name, value in given.items():
        fixed.pop(name, None)
        axes.pop(name, None)
        if isinstance(value, Axis) and value.swept:
            axes[name] = value
        else:
            fixed[name] = value.values[0] if isinstance(value, Axis) else value
    axes = {name: axes[name] for name in FIELDS if name in axes}
    plan = Plan(fixed, axes, stored.sample if sample is None else sample, stored.sample_seed if seed is None else seed)
    if not axes:
        raise OptionError("nothing to sweep", None, "give an option several values, such as --batch-size 16,32,64")
    if not plan.sample:
        for name, axis in axes.items():
            if axis.range is not None:
                raise OptionError(f"--{name}", axis.text, f"how many values? {axis.text}:N was wanted, or --sample N")
    return plan


def _read_for_option(path: Path) -> Plan:
    """The plan in the file of --config: a sweep.toml, or the settings of a single training."""
    try:
        return read(path)[0]
    except (MlpkError, ValueError) as error:
        raise OptionError("--config", str(path), str(error).removeprefix(f"{path}: ")) from None
    except OSError as error:
        raise OptionError("--config", str(path), os_error_text(error).removeprefix(f"{path}: ")) from None


def read(path: Path) -> tuple[Plan, dict[str, str]]:
    """The plan in a sweep.toml, and the checksums of its data. MlpkError names what is wrong with it."""
    import tomllib

    try:
        values = tomllib.loads(path.read_bytes().decode())
        swept, checksums = values.pop("sweep", {}), values.pop("checksums", {})
        if not isinstance(swept, dict) or not isinstance(checksums, dict):
            raise ValueError("sweep and checksums are sections, [sweep]")
        count, seed = swept.pop(_SAMPLE, 0), swept.pop(_SAMPLE_SEED, 0)
        if not all(isinstance(number, int) and number >= 0 for number in (count, seed)):
            raise ValueError(f"{_SAMPLE} and {_SAMPLE_SEED}: whole numbers from 0 were wanted")
        axes = {name: _stored_axis(name, text) for name, text in swept.items()}
        fixed = {name: value for name, value in from_mapping(values).items() if name not in axes}
    except ValueError as error:  # no TOML, no UTF-8, or a wrong value
        raise MlpkError(f"{path}: {error}") from None
    return Plan(fixed, {name: axes[name] for name in FIELDS if name in axes}, count, seed), checksums


def _stored_axis(name: str, text: Any) -> Axis:
    if name not in SWEPT:
        raise ValueError(f"[sweep] {name}: no option that {'may be swept' if name in ONCE else 'there is'}")
    if not isinstance(text, str):
        raise ValueError(f'[sweep] {name} = {text!r}: text as on the command line, "8,16", was wanted')
    try:
        return parse_axis(name, text)
    except ValueError as error:
        raise ValueError(f"[sweep] {name} = {text!r}: {error}") from None
