"""Settings files: `config.toml` of a run folder, `--config FILE.toml`, `--print-config`."""

import dataclasses
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mlpkernels import __version__
from mlpkernels.errors import MlpkError

from .errors import OptionError, os_error_text
from .parsing import AUTO
from .settings import DECIDED, FIELDS, Settings, build, from_mapping


def read(path: Path) -> dict[str, Any]:
    """The checked values in the file of --config, by option name. OptionError names what is wrong with it."""
    try:
        return _checked(path)
    except ValueError as error:
        raise OptionError("--config", str(path), str(error)) from None
    except OSError as error:
        raise OptionError("--config", str(path), os_error_text(error).removeprefix(f"{path}: ")) from None


def read_run(path: Path, on_unknown: Callable[[str], None] | None = None) -> Settings:
    """The settings in a run folder's file `path`. MlpkError names what is wrong with it.

    `on_unknown` is told the names that are no settings, such as a later version's, where reading them is not
    going on with the run: without it they are an error, and so is "auto" for what a run had to decide.
    """
    try:
        settings = build(_checked(path, on_unknown))
        if on_unknown is None:
            _refuse_undecided(settings)
        return settings
    except (ValueError, OptionError) as error:
        raise MlpkError(f"{path}: {error}; copy it from where the run came from, or train again") from None


def _refuse_undecided(settings: Settings) -> None:
    for name in DECIDED:
        if getattr(settings, FIELDS[name].name) == AUTO:
            raise ValueError(f"{name} is not there or {AUTO}: the value that the run was started with was wanted")


def _checked(path: Path, on_unknown: Callable[[str], None] | None = None) -> dict[str, Any]:
    import tomllib

    try:
        values = tomllib.loads(path.read_bytes().decode())
    except ValueError as error:  # no TOML, or no UTF-8
        raise ValueError(f"not a TOML file: {error}") from None
    return from_mapping(values, on_unknown)


def to_toml(settings: Settings, *, with_out: bool, command: str = "train", without: Collection[str] = ()) -> str:
    """All settings as TOML, in sections that are comments: every key is at the top, named as its option.

    `with_out` is for --print-config; a run folder's file leaves `out` away, because --config repeats the run
    and two runs never share a folder. `without` are further options to leave away.
    """
    again = f"the {'run' if command == 'train' else command} again: mlpk {command} --config THIS-FILE"
    lines = [f"# Settings of mlpk {command}, mlpkernels {__version__}; {again}"]
    section = None
    for name, field in FIELDS.items():
        if name in without or (name == "out" and not with_out):
            continue
        if field.metadata["section"] != section:
            section = field.metadata["section"]
            lines += ["", f"# {section}"]
        lines.append(f"{name} = {toml_value(getattr(settings, field.name))}")
    return "\n".join(lines) + "\n"


def toml_value(value: Any) -> str:
    """A TOML value. Written here because tomli-w puts each width of `hidden` on a line of its own."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(toml_value, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for DEL, which JSON leaves as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def differences(stored: Settings, given: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Option name -> (stored, given) where a given value is not the stored one."""
    before = {name: getattr(stored, field.name) for name, field in FIELDS.items()}
    return {name: (before[name], value) for name, value in given.items() if before[name] != value}


def merged(stored: Settings, given: dict[str, Any]) -> Settings:
    """`stored` with the given values in place."""
    return dataclasses.replace(stored, **{FIELDS[name].name: value for name, value in given.items()})


def shown(value: Any) -> str:
    """A setting's value as people type it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'
