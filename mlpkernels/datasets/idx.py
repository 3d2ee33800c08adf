"""IDX files, MNIST's own format: a short big-endian header, then bytes; plain or gzip-compressed."""

from __future__ import annotations

import hashlib
import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import labels
from .bounded import check_expansion, is_gzip, opened
from .part import Dataset, Part

_BYTES = 0x08  # IDX's code of unsigned bytes, the only kind used for images and labels
_KINDS = {0x08: "uint8", 0x09: "int8", 0x0B: "int16", 0x0C: "int32", 0x0D: "float32", 0x0E: "float64"}
_DEFLATE_LIMIT = 1032  # no deflate stream expands further
ROLES = {  # what each of the four files is, and what its name starts with (or contains: emnist-test-images...)
    "train-images": ("train-images",),
    "train-labels": ("train-labels",),
    "t10k-images": ("t10k-images", "test-images"),
    "t10k-labels": ("t10k-labels", "test-labels"),
}


def read_idx(path: Path, dimensions: int, shape: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """The array of an IDX file of unsigned bytes: images (N, H, W) or labels (N,).

    dimensions: 3 for images, 1 for labels; shape: what the header must say, where that is known. Raises
    DataError for another magic number, shape or length, and as `bounded.opened` does.
    """
    with opened(path) as file:
        found = _read_header(file, path, dimensions)
        if shape is not None and found != shape:
            raise DataError(f"{path}: the header says {_times(found)}, wanted {_times(shape)}")
        total = math.prod(found)
        _check_possible(path, 4 + 4 * dimensions + total)
        values = np.empty(total, np.uint8)
        filled = _fill(file, values.data)
        if filled < total:
            raise DataError(
                f"{path}: truncated: the header says {_times(found)} = {total:,} bytes, {filled:,} follow it"
            )
        if file.read(1):
            raise DataError(
                f"{path}: the header says {_times(found)} = {total:,} bytes, but the file goes on after them"
            )
    return values.reshape(found)


def content_sha256(values: NDArray[np.uint8]) -> str:
    """sha256 of the plain IDX file that holds these values."""
    digest = hashlib.sha256(struct.pack(f">BBBB{values.ndim}I", 0, 0, _BYTES, values.ndim, *values.shape))
    digest.update(values.data)
    return digest.hexdigest()


def find(folder: Path) -> dict[str, Path]:
    """The IDX files of a folder by role (see ROLES); a plain file is preferred to its .gz.

    MNIST's own names (train-images-idx3-ubyte) come first, then names that start like them, then names that
    contain such a start. Raises DataError where two different files claim one role equally well.
    """
    found: dict[str, Path] = {}
    if not folder.is_dir():
        return found
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    for role, starts in ROLES.items():
        files = [name for name in names if any(start in name for start in starts) and (folder / name).is_file()]
        exact = {f"{start}-idx{3 if 'images' in role else 1}-ubyte" for start in starts}
        files = (
            [name for name in files if _stem(name) in exact]
            or [name for name in files if name.startswith(starts)]
            or files
        )
        if len({_stem(name) for name in files}) > 1:
            raise DataError(f"{folder}: {labels.listed(files)} could each be the {role} file: keep one")
        if files:
            found[role] = folder / files[0]  # "name" sorts before "name.gz"
    return found


def _stem(name: str) -> str:
    return name.removesuffix(".gz").replace(".", "-")


def load_pairs(
    files: dict[str, Path], name: str, shapes: dict[str, tuple[int, ...]] | None = None
) -> tuple[dict[str, NDArray[np.uint8]], Dataset]:
    """The arrays by role and the data set of the given files; the t10k pair may be absent.

    shapes: what each header must say, by role. Raises DataError for a missing file, images and labels of
    different counts, and as `read_idx` does.
    """
    for role in ("train-images", "train-labels") + tuple(ROLES)[2:] * any("t10k" in role for role in files):
        if role not in files:
            folder = next(iter(files.values())).parent
            raise DataError(f"{folder}: no {role} file ({role}-idx{3 if 'images' in role else 1}-ubyte[.gz])")
    arrays = {
        role: read_idx(path, 3 if "images" in role else 1, None if shapes is None else shapes[role])
        for role, path in files.items()
    }
    train_x, train_y = _pair(arrays, files, "train")
    classes, codes = labels.from_array(train_y, str(files["train-labels"]))
    test = None
    if "t10k-images" in files:
        test_x, test_y = _pair(arrays, files, "t10k")
        if test_x.shape[1:] != train_x.shape[1:]:
            raise DataError(
                f"{files['t10k-images']}: images of {_times(test_x.shape[1:])}, those to train on are "
                f"{_times(train_x.shape[1:])}"
            )
        test_classes, test_codes = labels.from_array(test_y, str(files["t10k-labels"]))
        test_codes = labels.matched(test_codes, test_classes, classes, str(files["t10k-labels"]))
        test = Part(test_x.reshape(len(test_x), -1), test_codes)
    dataset = Dataset(
        name=name,
        train=Part(train_x.reshape(len(train_x), -1), codes),
        test=test,
        classes=classes,
        shape=(1, *train_x.shape[1:]),
        full_scale=255.0,
        images=True,
        source=f"IDX files in {files['train-images'].parent}",
    )
    return arrays, dataset


def load_folder(folder: Path) -> Dataset:
    """The data set of a folder of IDX files named train-images..., train-labels... (and t10k-...)."""
    files = find(folder)
    return load_pairs(files, folder.resolve().name)[1]


def _read_header(file: BinaryIO, path: Path, dimensions: int) -> tuple[int, ...]:
    wanted = bytes([0, 0, _BYTES, dimensions])
    kind = "images" if dimensions == 3 else "labels"
    head = file.read(4)
    if head != wanted:
        hint = ""
        if len(head) == 4 and head[:2] == b"\0\0" and head[2] in _KINDS:
            hint = f" (that is {_KINDS[head[2]]} in {head[3]} dimensions)"
        raise DataError(
            f"{path}: not an IDX file of {kind}: it starts with {head.hex(' ') or 'nothing'}{hint}, "
            f"wanted {wanted.hex(' ')}"
        )
    sizes = file.read(4 * dimensions)
    if len(sizes) < 4 * dimensions:
        raise DataError(f"{path}: truncated within its header")
    shape = struct.unpack(f">{dimensions}I", sizes)
    if 0 in shape:
        raise DataError(f"{path}: the header says {_times(shape)}: there are no {kind} in it")
    return shape


def _check_possible(path: Path, wanted: int) -> None:
    """Refuse a header that promises more than the file can hold before memory is asked for it."""
    size = path.stat().st_size
    packed = is_gzip(path)
    if wanted > (size * _DEFLATE_LIMIT if packed else size):
        raise DataError(f"{path}: truncated: the header says {wanted:,} bytes, the file has {size:,}")
    if packed:
        check_expansion(path, size, wanted)


def _fill(file: BinaryIO, view: memoryview) -> int:
    filled = 0
    while filled < len(view):
        count = file.readinto(view[filled : filled + (1 << 22)])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return filled


def _pair(
    arrays: dict[str, NDArray[np.uint8]], files: dict[str, Path], half: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    x, y = arrays[f"{half}-images"], arrays[f"{half}-labels"]
    if len(x) != len(y):
        raise DataError(
            f"{files[f'{half}-images']}: {len(x):,} images, but {len(y):,} labels in {files[f'{half}-labels'].name}"
        )
    return x, y


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
