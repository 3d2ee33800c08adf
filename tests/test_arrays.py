"""The door for arrays: everything a caller may pass is converted or refused by name, and never modified."""

import numpy as np
import pytest

from mlpkernels import arrays
from mlpkernels.errors import DataError
from mlpkernels.scaling import Scaling

SINGLE, DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [
        (np.uint8, np.uint8), (np.bool_, np.uint8), (np.int8, np.float32), (np.uint16, np.float32),
        (np.int32, np.float64), (np.int64, np.float64), (np.float16, np.float32), (np.float32, np.float32),
        (np.float64, np.float64), (">f4", np.float32), (">i8", np.float64), (np.longdouble, np.float64),
    ],
)  # fmt: skip
def test_rows_of_any_real_dtype(dtype, kept):
    x = np.array([[0, 1, 0], [1, 1, 0]]).astype(dtype)
    rows = arrays.as_rows(x, (3,))
    assert rows.dtype == np.dtype(kept) and rows.dtype.isnative and rows.flags.c_contiguous
    assert np.array_equal(rows, x)


def test_rows_of_any_order_are_not_modified():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    for version in (np.asfortranarray(x), x[::-1], np.repeat(x, 2, axis=1)[:, ::2], x[:, ::-1]):
        before = version.copy()
        rows = arrays.as_rows(version, (6,))
        assert rows.flags.c_contiguous and np.array_equal(rows, before)
        assert np.array_equal(version, before)
    assert arrays.as_rows(x, (6,)) is not None and np.shares_memory(arrays.as_rows(x, (6,)), x)
    assert np.array_equal(arrays.as_rows(x.tolist(), (6,)), x)


def test_rows_in_the_shape_of_samples():
    x = np.arange(48, dtype=np.uint8).reshape(4, 1, 3, 4)
    for version in (x, x.reshape(4, 12), x.reshape(4, 3, 4)):
        assert np.shares_memory(arrays.as_rows(version, (1, 3, 4)), x)
    assert arrays.as_rows(np.zeros((0, 12)), (1, 3, 4)).shape == (0, 12)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 11)), r"shape \(N, 12\) or \(N, 3, 4\) or \(N, 1, 3, 4\) was wanted, not \(2, 11\)"),
        (np.zeros((2, 4, 3)), r"not \(2, 4, 3\)"),
        (np.zeros(12), r"one sample alone is x\[None\]"),
        (np.zeros((3, 4)), r"one sample alone is x\[None\]"),
        (np.float32(1), r"not \(\)"),
        ([[1, 2], [1]], "rows differ in length"),
    ],
)
def test_rows_of_another_shape(x, words):
    with pytest.raises(DataError, match=words):
        arrays.as_rows(x, (1, 3, 4))


@pytest.mark.parametrize("x", [np.zeros((2, 3), complex), np.full((2, 3), "a"), np.full((2, 3), None)])
def test_rows_that_are_no_numbers(x):
    with pytest.raises(TypeError, match=r"x: an array of numbers was wanted, not of dtype"):
        arrays.as_rows(x, (3,))


def test_masked_arrays_are_refused_by_name():
    rows = np.ma.masked_array(np.zeros((2, 3)), mask=[[0, 0, 1], [0, 0, 0]])
    column = np.ma.masked_array([0, 1], mask=[0, 1])
    fault = "a masked array: fill or leave out its masked values"
    with pytest.raises(DataError, match=f"^x: {fault}"):
        arrays.as_rows(rows, (3,))
    for check in (arrays.class_indices, arrays.check_indices):
        with pytest.raises(DataError, match=f"^y: {fault}"):
            check(column, (0, 1), 2)
    with pytest.raises(DataError, match=f"^sample_weight: {fault}"):
        arrays.mean_one(column, 2, SINGLE)


@pytest.mark.parametrize("scaling", [None, Scaling("none", 1.0, 0.0), Scaling("unit", 0.5, 0.0)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(scaling, bad, monkeypatch):
    monkeypatch.setattr(arrays, "chunk_rows", lambda width: 4)
    x = np.zeros((11, 3), np.float32)
    x[9, 1] = x[10, 0] = bad
    with pytest.raises(DataError, match=f"^data: row 110, column 2 is {bad:g}: every value must be finite"):
        arrays.scale_rows(x, scaling, SINGLE, "data", first=100)


@pytest.mark.parametrize("scaling", [None, Scaling("unit", 10.0, 0.0)])
def test_a_value_too_large_once_scaled_is_named(scaling):
    x = np.zeros((5, 2))
    x[3, 1] = 1e38 if scaling else 1e39
    with pytest.raises(DataError, match=r"x: row 4, column 2 is 1e\+3[89], too large for float32"):
        arrays.scale_rows(x, scaling, SINGLE)
    assert arrays.scale_rows(x, scaling, DOUBLE).max() == 1e39


def test_rows_are_copied_only_where_they_change():
    x = np.ones((5, 2), np.float32)
    assert arrays.scale_rows(x, None, SINGLE) is x
    assert arrays.scale_rows(x, Scaling("none", 1.0, 0.0), SINGLE) is x
    scaled = arrays.scale_rows(x, Scaling("standard", [2.0, 3.0], [1.0, 0.0]), SINGLE)
    assert scaled.tolist() == [[3, 3]] * 5 and x.tolist() == [[1, 1]] * 5


def test_labels_become_indices():
    assert arrays.class_indices([7, 3, 7], (3, 7), 3).tolist() == [1, 0, 1]
    assert arrays.class_indices([7, 3, 7], (7, 3), 3).tolist() == [0, 1, 0]
    assert arrays.class_indices(np.array([0.0, 1.0]), (0, 1), 2).tolist() == [0, 1]
    assert arrays.class_indices([True, False], (0, 1), 2).tolist() == [1, 0]
    for text in (["b", "a"], np.array(["b", "a"], object), np.array(["b", "a"], np.dtypes.StringDType())):
        indices = arrays.class_indices(text, ("a", "b"), 2)
        assert indices.tolist() == [1, 0] and indices.dtype == np.int32
    assert arrays.class_indices(np.zeros(0, int), (0, 1), 0).shape == (0,)
    large = np.array([2**60 + 1, 2**60, 2**63 - 1], np.uint64)  # beside int64 NumPy takes them for float64
    for y in (large, large.astype(">u8")):
        assert arrays.class_indices(y, (2**60, 2**60 + 1, 2**63 - 1), 3).tolist() == [1, 0, 2]
    with pytest.raises(DataError, match="row 1 is 18446744073709551615, which is none"):
        arrays.class_indices(np.array([2**64 - 1], np.uint64), (-1, 0), 1)


@pytest.mark.parametrize(
    ("y", "classes", "error", "words"),
    [
        ([0, 1, 2], (0, 1), DataError, "y: row 3 is 2, which is none of the model's classes 0, 1"),
        ([0, 0.5, 1], (0, 1), DataError, r"row 2 is 0\.5"),
        ([0, np.nan, 1], (0, 1), DataError, "row 2 is nan"),
        (["a", "c", "b"], ("a", "b"), DataError, "row 2 is c"),
        (["0", "1", "1"], (0, 1), TypeError, "integers were wanted"),
        ([0, 1, 1], ("0", "1"), TypeError, "strings were wanted"),
        ([0, 1], (0, 1), DataError, r"shape \(3,\) was wanted, one value a row, not \(2,\)"),
        ([[0], [1], [1]], (0, 1), DataError, r"not \(3, 1\)"),
        ([99] * 3, tuple(range(50)), DataError, "0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …"),
    ],
)
def test_labels_that_are_no_class(y, classes, error, words):
    with pytest.raises(error, match=words):
        arrays.class_indices(y, classes, 3)


def test_indices_are_checked():
    assert arrays.check_indices(np.array([1, 0], np.int64), (5, 6), 2).dtype == np.int32
    for y, words in (([0, 2], "row 2 is 2; the model has the classes 0 to 1"), ([-1, 0], "row 1 is -1")):
        with pytest.raises(DataError, match=words):
            arrays.check_indices(y, (5, 6), 2)
    with pytest.raises(TypeError, match="class indices, integers, were wanted, not dtype float64"):
        arrays.check_indices([0.0, 1.0], (5, 6), 2)


def test_weights_multiply_and_have_mean_one():
    indices = np.array([0, 0, 0, 1, 2])
    classes = ("a", "b", "c")
    assert arrays.class_weights("balanced", indices, classes) == pytest.approx([5 / 9, 5 / 3, 5 / 3])
    balanced = arrays.combined_weights(indices, classes, None, "balanced", DOUBLE)
    assert balanced == pytest.approx([5 / 9] * 3 + [5 / 3] * 2)
    both = arrays.combined_weights(indices, classes, [1, 0, 2, 1, 1], {"b": 4}, DOUBLE)
    assert both == pytest.approx(np.array([1, 0, 2, 4, 1]) * 5 / 8)
    plain = arrays.combined_weights(indices, classes, None, None, SINGLE)
    assert plain.dtype == SINGLE and plain.tolist() == [1] * 5
    missing = arrays.class_weights("balanced", np.array([0, 0]), (0, 1))  # no rows of class 1
    assert np.isfinite(missing).all()
    assert arrays.mean_one([1, 3], 2, DOUBLE).tolist() == [0.5, 1.5]
    assert arrays.mean_one(None, 2, SINGLE).tolist() == [1, 1]


@pytest.mark.parametrize(
    ("sample", "by_class", "error", "words"),
    [
        ([1, -1], None, DataError, "sample_weight: row 2 is -1"),
        ([np.nan, 1], None, DataError, "sample_weight: row 1 is nan"),
        ([1, 1, 1], None, DataError, r"sample_weight: an array of shape \(2,\)"),
        (["a", "b"], None, TypeError, "sample_weight: numbers were wanted"),
        ([0, 0], None, DataError, "weights of all training rows are 0"),
        (None, {0: 0, 1: 0}, DataError, "weights of all training rows are 0"),
        (None, {2: 1}, ValueError, "class_weight: 2 is none of the model's classes"),
        (None, {0: -1}, ValueError, "class_weight: -1 for class 0"),
        (None, {0: "2"}, TypeError, "class_weight: '2' for class 0: a finite number from 0 was wanted"),
        (None, "even", ValueError, "class_weight='even': None, 'balanced' or a dictionary"),
        (None, [1, 2], TypeError, r"class_weight=\[1, 2\]"),
    ],
)
def test_weights_are_refused_by_name(sample, by_class, error, words):
    with pytest.raises(error, match=words):
        arrays.combined_weights(np.array([0, 1]), (0, 1), sample, by_class, SINGLE)


def test_weights_too_large_or_small_to_be_summed():
    for value in (1e307, 1e308, 1e-310, 5e-324):
        assert arrays.mean_one(np.full(40, value), 40, SINGLE).tolist() == [1] * 40
    assert arrays.mean_one([1e308, 0, 1e308, 1e308], 4, DOUBLE) == pytest.approx([4 / 3, 0, 4 / 3, 4 / 3])
    indices = np.array([0, 1, 1, 0])
    both = arrays.combined_weights(indices, (0, 1), np.array([1, 2, 1, 2]) * 1e200, {0: 1e200, 1: 2e200}, DOUBLE)
    assert both == pytest.approx(np.array([1, 4, 2, 2]) * 4 / 9)
    tiny = arrays.combined_weights(indices, (0, 1), np.array([1, 2, 1, 2]) * 1e-200, {0: 1e-200, 1: 2e-200}, DOUBLE)
    assert tiny == pytest.approx(both)


def test_read_only_memory_is_offered_to_kernels_without_a_copy():
    x = np.arange(6, dtype=np.uint8)
    assert arrays.for_kernels(x) is x
    x.flags.writeable = False
    offered = arrays.for_kernels(x)
    assert offered.flags.writeable and np.shares_memory(offered, x) and np.array_equal(offered, x)
    from_bytes = arrays.for_kernels(np.frombuffer(bytes(range(6)), np.uint8))
    assert from_bytes.tolist() == list(range(6))  # its memory lives on
    assert arrays.for_kernels(np.frombuffer(b"", np.uint8)).size == 0


def test_classes_shapes_dtypes_and_threads():
    assert arrays.check_classes(None, 3) == (0, 1, 2)
    plain = arrays.check_classes(np.array([4, 2]), 2)
    assert plain == (4, 2) and all(type(label) is int for label in plain)
    assert all(type(label) is str for label in arrays.check_classes(np.array(["x", "y"]), 2))
    assert arrays.check_classes(np.array([False, True]), 2) == (0, 1)
    for classes, error, words in (
        ([0], ValueError, "2 were wanted"),
        ([0, 0], ValueError, "each may occur once"),
        ([0, "a"], TypeError, "all integers or all strings"),
        ([0, 1.5], TypeError, r"1\.5 is neither"),
        ([0, 2**70], ValueError, "64 bits"),
    ):
        with pytest.raises(error, match=words):
            arrays.check_classes(classes, 2)
    assert arrays.check_shape(np.int64(5)) == (5,) and arrays.check_shape([1, 8, 8]) == (1, 8, 8)
    for inputs, error in ((0, ValueError), ((1, 0, 8), ValueError), ((), ValueError), (2.5, TypeError)):
        with pytest.raises(error, match="inputs="):
            arrays.check_shape(inputs)
    assert arrays.check_dtype(np.float64) == DOUBLE
    for dtype in ("float16", "int32", "nonsense", None, 5):
        if dtype is not None:
            with pytest.raises(ValueError, match="'float32' or 'float64' was wanted"):
                arrays.check_dtype(dtype)
    assert arrays.thread_count(None) >= 1 and arrays.thread_count(3) == 3
    for threads, error in ((0, ValueError), (1.5, TypeError), (True, ValueError)):
        with pytest.raises(error, match="threads="):
            arrays.thread_count(threads)
