"""The door to every data set: a known name or a path becomes a checked Dataset."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError, UnknownDataError
from .part import Dataset

if TYPE_CHECKING:
    from .download import OnDownload

NAMES = ("digits", "mnist", "fashion-mnist", "kmnist")
_TABLES = (".csv", ".csv.gz", ".tsv")
_PATHS = "a path to a .csv, a .npz, a folder of IDX files or a folder of pictures by class"


def load(
    data: str | os.PathLike[str] = "digits",
    *,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    label_column: str | None = None,
    on_download: OnDownload | None = None,
    min_classes: int = 2,
) -> Dataset:
    """A data set by name (digits, mnist, fashion-mnist, kmnist) or path (CSV, NPZ, IDX or picture folder).

    data_dir: a folder that holds a named data set, or its parent; after it MLPK_DATA_DIR and the user's cache
    folder are looked at, then it is downloaded there, unless offline. label_column: of a CSV file, the first
    column otherwise. on_download(file, done, total): called as bytes arrive; total is None where unknown.
    min_classes: labels must show as many; 1 for data that is only evaluated, whose labels may then all differ.
    Raises DataError for anything unknown, damaged or inconsistent, UnavailableError for what is neither found
    nor to be had.
    """
    name = data.strip().lower().replace("_", "-") if isinstance(data, str) else None
    if label_column is not None and (name in NAMES or not str(data).lower().endswith(_TABLES)):
        raise DataError(f"{data}: only CSV files have a label column; leave out --label-column")
    dataset = _load(data, name, data_dir, offline, label_column, on_download, min_classes)
    if len(dataset.classes) < min_classes:
        raise DataError(
            f"{data}: all {len(dataset.train):,} rows have the label {dataset.classes[0]}; training needs at "
            f"least {min_classes} classes"
        )
    return dataset


def _load(
    data: str | os.PathLike[str],
    name: str | None,
    data_dir: str | os.PathLike[str] | None,
    offline: bool,
    label_column: str | None,
    on_download: OnDownload | None,
    min_classes: int,
) -> Dataset:
    # each reader is imported when needed: digits must not pay for Pillow or for network code
    if name == "digits":
        from .digits import load_digits

        return load_digits()
    if name in NAMES:
        from .published import load_published

        return load_published(name, data_dir, offline, on_download)
    path = Path(data).expanduser()
    lower = path.name.lower()
    if path.is_dir():
        from . import idx

        if idx.find(path):
            return idx.load_folder(path)
        from .images import load_image_folder

        return load_image_folder(path)
    if not path.exists():
        raise UnknownDataError(_unknown(str(data)))
    if lower.endswith(_TABLES):
        from .table import load_table

        return load_table(path, label_column, min_classes=min_classes)
    if lower.endswith(".npz"):
        from .archive import load_archive

        return load_archive(path, min_classes=min_classes)
    hint = f"; give its folder {path.parent} instead" if "idx" in lower else ""
    raise DataError(f"{path}: not a kind of data set{hint}; wanted {', '.join(NAMES)}, or {_PATHS}")


def _unknown(data: str) -> str:
    near = difflib.get_close_matches(data.lower(), NAMES, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    if os.sep in data or "." in data:
        return f"{data}: no such file or folder{hint}; wanted {', '.join(NAMES)}, or {_PATHS}"
    return f"unknown data set '{data}'{hint}; wanted {', '.join(NAMES)}, or {_PATHS}"
