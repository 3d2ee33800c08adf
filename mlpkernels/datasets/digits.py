"""The bundled data set: 1,797 handwritten digits of 8 x 8 pixels, with a fixed test part."""

from __future__ import annotations

import zipfile
from importlib import resources

import numpy as np

from ..errors import DataError
from .part import Dataset, Part


def load_digits() -> Dataset:
    """1,797 digits, classes 0 to 9, shape (1, 8, 8), uint8 from 0 to 16; 1,438 to train, 359 to test.

    The split is stored with the data, so it is the same everywhere and for ever. Raises DataError where the
    installed file is damaged or missing.
    """
    try:
        with (
            resources.files(__package__).joinpath("digits.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as archive,
        ):
            train = Part(archive["x_train"], archive["y_train"])
            test = Part(archive["x_test"], archive["y_test"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"the bundled digits cannot be read ({error}); install mlpkernels again") from None
    return Dataset(
        name="digits",
        train=train,
        test=test,
        classes=tuple(range(10)),
        shape=(1, 8, 8),
        full_scale=16.0,
        images=True,
        source="bundled: UCI Optical Recognition of Handwritten Digits (Alpaydin and Kaynak 1998, CC BY 4.0)",
    )
