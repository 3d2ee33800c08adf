"""Pictures read with Pillow: folders of them by class, and single files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from . import labels
from .part import Dataset, Part

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pbm")
_GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N")


def is_image(path: Path) -> bool:
    """Whether the file is named like a picture."""
    return path.suffix.lower() in SUFFIXES


def natural_key(name: str) -> list[Any]:
    """Sorts 2.png before 10.png."""
    return [(1, int(run), "") if run.isdecimal() else (0, 0, run) for run in re.split(r"([0-9]+)", name) if run]


def load_image_folder(folder: Path) -> Dataset:
    """The data set of folder/<class>/*.png (and other formats), or of folder/train/<class>/ and folder/test/.

    All pictures must have one size; they are RGB where any of them has colour, otherwise grey; what is
    transparent counts as white. uint8, full scale 255. Raises DataError naming the file that is damaged or of
    another size, and for classes that are empty or occur only in test/.
    """
    train_folder, test_folder = folder, None
    if (folder / "train").is_dir() and not _pictures(folder / "train"):
        train_folder = folder / "train"
        test_folder = folder / "test" if (folder / "test").is_dir() else None
    files, classes, y = _by_class(train_folder)
    test_files: list[Path] = []
    test_y = np.zeros(0, np.int32)
    if test_folder is not None:
        test_files, test_classes, test_y = _by_class(test_folder)
        test_y = labels.matched(test_y, test_classes, classes, str(test_folder))
    x, shape = read_images(files + test_files)
    test = Part(x[len(files) :], test_y) if test_files else None
    note = labels.padding_note(classes)
    return Dataset(
        name=folder.resolve().name,
        train=Part(x[: len(files)], y),
        test=test,
        classes=classes,
        shape=shape,
        full_scale=255.0,
        images=True,
        source=f"pictures in {folder}",
        notes=() if note is None else (f"{folder}: {note}",),
    )


def read_images(
    files: Sequence[Path], shape: tuple[int, ...] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int, int]]:
    """(pixels (N, C * H * W) uint8 in C, H, W order, (C, H, W)) of picture files.

    Without a shape the first file's size holds for all, and all are RGB where any file has colour; with one,
    both are as it says. Raises DataError naming the file.
    """
    with _guarded():
        heads = [_head(file) for file in files]
        if shape is None:
            channels = 3 if any(colour for _, colour in heads) else 1
            width, height = heads[0][0]
            wanted = f"{files[0]} is {width} x {height}"
        else:
            channels, height, width = shape
            wanted = f"wanted are {width} x {height}"
        for file, (size, _) in zip(files, heads, strict=True):
            if size != (width, height):
                raise DataError(f"{file} is {size[0]} x {size[1]} pixels, {wanted}: give all the same size")
        pixels = np.empty((len(files), channels, height, width), np.uint8)
        for row, file in zip(pixels, files, strict=True):
            row[:] = _decoded(file, channels)
    return pixels.reshape(len(files), -1), (channels, height, width)


def _by_class(folder: Path) -> tuple[list[Path], tuple[labels.Label, ...], NDArray[np.int32]]:
    """Picture files in natural order class by class, the classes, and each file's class index."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] not in "._")
    if not any(_pictures(folder / name) for name in names):
        raise DataError(
            f"{folder}: neither IDX files (train-images..., train-labels...) nor pictures by class "
            "(one folder of .png, .jpg, ... for each class)"
        )
    try:
        classes, codes = labels.from_texts(names)
    except labels.LabelError as error:
        raise DataError(f"{folder / names[error.index]}: {error}") from None
    files: list[Path] = []
    y: list[int] = []
    for code, name in sorted(zip(codes.tolist(), names, strict=True)):
        found = _pictures(folder / name)
        if not found:
            raise DataError(f"{folder / name}: no pictures in it (wanted {', '.join(SUFFIXES[:4])}, ...)")
        files.extend(found)
        y.extend([code] * len(found))
    return files, classes, np.array(y, np.int32)


def _pictures(folder: Path) -> list[Path]:
    files = [entry for entry in folder.iterdir() if is_image(entry) and entry.name[0] != "."]
    return sorted((file for file in files if file.is_file()), key=lambda file: natural_key(file.name))


@contextmanager
def _guarded() -> Iterator[None]:
    """Pillow's warning about decompression bombs is an error while reading, those about metadata are none."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


@contextmanager
def _image(file: Path) -> Iterator[Image]:
    from PIL import Image

    if not file.is_file():
        raise DataError(f"{file}: no such file")
    if file.stat().st_size == 0:
        raise DataError(f"{file}: the file is empty")
    try:
        with Image.open(file) as image:
            yield image
    except (DataError, MemoryError, PermissionError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise DataError(f"{file}: the picture is enormous: refused as a decompression bomb") from None
    except Exception as error:  # each of Pillow's format readers fails on damaged bytes in its own ways
        reason = "not a picture that Pillow knows" if "cannot identify" in str(error) else str(error)
        raise DataError(f"{file}: cannot be read: {reason or type(error).__name__}") from None


def _head(file: Path) -> tuple[tuple[int, int], bool]:
    """Size (width, height) of a picture and whether it has colour, without decoding it."""
    with _image(file) as image:
        if image.mode == "P":
            palette = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
            return image.size, bool((palette != palette[:, :1]).any())
        return image.size, image.mode not in _GREY


def _decoded(file: Path, channels: int) -> NDArray[np.uint8]:
    """(C, H, W) pixels of a picture as grey or RGB, over white where it is transparent."""
    from PIL import Image

    with _image(file) as image:
        if image.mode.startswith("I"):
            grey = np.asarray(image).astype(np.int64)
            if grey.min() < 0 or grey.max() > 65535:
                raise DataError(f"{file}: pixels from {grey.min()} to {grey.max()}, wanted 8 or 16 bits")
            image = Image.fromarray((grey >> 8).astype(np.uint8))
        elif image.mode == "F":
            raise DataError(f"{file}: floating-point pixels, wanted 8 or 16 bits; save them in a .npz")
        if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
            over = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
        pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.transpose(2, 0, 1) if channels == 3 else pixels[np.newaxis]
