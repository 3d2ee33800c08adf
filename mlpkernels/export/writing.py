"""Exported files: all of them new and whole, or none."""

from collections.abc import Mapping
from pathlib import Path

from .. import files


def write_new(contents: Mapping[Path, bytes]) -> list[Path]:
    """Write files that are not there yet, each atomically; returns their paths.

    FileExistsError, before anything is written, where one is there; OSError where one cannot be written, and then
    those before it are gone again.
    """
    for path in contents:
        if path.exists():
            raise FileExistsError(f"{path} exists; it was left as it is: name another place, or remove it")
    written: list[Path] = []
    try:
        for path, content in contents.items():
            files.write_atomic(path, content)
            written.append(path)
    except BaseException:  # Ctrl-C too
        for path in written:
            path.unlink(missing_ok=True)
        raise
    return written
