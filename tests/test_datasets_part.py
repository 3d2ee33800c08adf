"""Parts and data sets: what they accept, convert and refuse."""

import numpy as np
import pytest

from mlpkernels.datasets import Dataset, Part
from mlpkernels.errors import DataError


def part(rows=4, columns=3, dtype=np.float64):
    return Part(np.arange(rows * columns).reshape(rows, columns).astype(dtype), np.arange(rows) % 2)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.uint8, np.uint8),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (">f4", np.float32),
        (np.float16, np.float32),
        (np.int64, np.float64),
        (np.bool_, np.float64),
        (np.longdouble, np.float64),
    ],
)
def test_dtypes_are_kept_or_converted(given, kept):
    assert part(dtype=given).x.dtype == np.dtype(kept)


def test_layouts_are_converted_and_inputs_left_alone():
    x = np.asfortranarray(np.arange(12.0).reshape(4, 3))
    x.flags.writeable = False
    y = np.arange(8, dtype=np.uint16)[::2] % 3
    made = Part(x, y)
    assert made.x.flags.c_contiguous and made.x.flags.writeable and made.y.flags.c_contiguous
    assert made.y.dtype == np.int32
    assert np.array_equal(made.x, x) and np.array_equal(made.y, y)
    made.x[:] = -1
    assert x[0, 1] == 1


def test_an_array_that_fits_is_not_copied():
    x, y = np.zeros((4, 3), np.uint8), np.zeros(4, np.int32)
    made = Part(x, y)
    assert np.shares_memory(made.x, x) and np.shares_memory(made.y, y) and len(made) == 4


@pytest.mark.parametrize(
    ("x", "y", "text"),
    [
        (np.zeros((2, 2, 2)), [0, 1], r"shape \(2, 2, 2\)"),
        (np.zeros((3, 2)), [0, 1], "3 rows and 2 labels"),
        (np.array([["a"], ["b"]]), [0, 1], "wanted numbers"),
        (np.zeros((2, 2), complex), [0, 1], "complex128"),
        (np.array([[0, 1], [2, np.nan]]), [0, 1], "row 2, column 2 is nan"),
        (np.array([[0, np.inf], [2, 1]]), [0, 1], "row 1, column 2 is inf"),
        (np.zeros((2, 2)), [0.0, 1.0], "float64, wanted integer"),
        (np.zeros((2, 2)), [[0], [1]], r"y has the shape \(2, 1\)"),
        (np.zeros((2, 2)), [-1, 1], "from -1 to 1"),
        (np.zeros((2, 2)), [0, 2**40], "wanted 0 and above"),
    ],
)
def test_wrong_arrays_are_refused_by_name(x, y, text):
    with pytest.raises(DataError, match=text):
        Part(x, np.array(y))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"shape": (4,)}, "has 3 columns"),
        ({"shape": (3, 1)}, "wanted"),
        ({"shape": (0,)}, "no values"),
        ({"classes": ("a", "a")}, "not all different"),
        ({"classes": (0,)}, "class index 1, wanted 0 to 0"),
        ({"test": part(0)}, "the test part is empty"),
        ({"test": part(4, 2)}, "has 2 columns"),
        ({"feature_names": ("a", "b")}, "2 column names for 3 columns"),
    ],
)
def test_contradicting_data_sets_are_refused(changes, text):
    settings = {"name": "d", "train": part(), "test": None, "classes": (0, 1), "shape": (3,)}
    assert Dataset(**settings).feature_names is None
    with pytest.raises(DataError, match=text):
        Dataset(**{**settings, **changes})


def test_masked_arrays_are_refused_by_name():
    x, y = np.zeros((2, 3)), np.array([0, 1])
    for arguments, name in (((np.ma.masked_array(x, x == 0), y), "x"), ((x, np.ma.masked_array(y)), "y")):
        with pytest.raises(DataError, match=f"^{name}: a masked array: fill or leave out"):
            Part(*arguments)


def test_reprs_say_sizes_and_not_values():
    data = Dataset("d", part(), part(2), ("a", "b"), (3,))
    assert repr(data) == "Dataset(d: 4 rows to train, 2 to test, shape (3,) float64, 2 classes)"
    assert repr(data.train) == "Part(4 rows x 3 float64)"
