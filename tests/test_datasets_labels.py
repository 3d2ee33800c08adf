"""Labels as integers or text, turned into sorted classes."""

import numpy as np
import pytest

from mlpkernels.datasets import labels
from mlpkernels.errors import DataError


@pytest.mark.parametrize(
    ("texts", "classes", "codes"),
    [
        (["10", "9", "-1"], (-1, 9, 10), [2, 1, 0]),
        (["3.0", "3", "1e1"], (3, 10), [0, 0, 1]),
        (["b", "a", "10", "9"], ("10", "9", "a", "b"), [3, 2, 0, 1]),
        (["1.5", "x"], ("1.5", "x"), [0, 1]),
        (["1" * 30, "2"], ("1" * 30, "2"), [0, 1]),
        (["1_0", "1"], ("1", "1_0"), [1, 0]),
        (["1", "01", "10"], ("1", "01", "10"), [0, 1, 2]),
        (["01", "02"], ("01", "02"), [0, 1]),
        (["10", "7", "007", "07", "9"], ("7", "07", "007", "9", "10"), [4, 0, 2, 1, 3]),
        (["-02", "010", "-1"], ("-02", "-1", "010"), [0, 2, 1]),
        (["-07", "7.0"], ("-07", "7.0"), [0, 1]),
        (["0", "-0", "+1", "0.0"], (0, 1), [0, 0, 1, 0]),
        (["é", "z"], ("z", "é"), [1, 0]),
        ([], (), []),
    ],
)
def test_texts(texts, classes, codes):
    found, indices = labels.from_texts(texts)
    assert found == classes and indices.tolist() == codes and indices.dtype == np.int32


@pytest.mark.parametrize(
    ("texts", "index"), [(["1", ""], 1), (["nan", "1"], 0), (["1", "2", "2.5"], 2), (["01", "2.5"], 1), (["NaN"], 0)]
)
def test_texts_that_are_no_labels(texts, index):
    with pytest.raises(labels.LabelError) as caught:
        labels.from_texts(texts)
    assert caught.value.index == index


@pytest.mark.parametrize(
    ("y", "classes", "codes"),
    [
        (np.array([5, -3, 5], np.int8), (-3, 5), [1, 0, 1]),
        (np.array([2**63], np.uint64), (2**63,), [0]),
        (np.array([[1], [0]]), (0, 1), [1, 0]),
        (np.array([True, False]), (0, 1), [1, 0]),
        (np.array([2.0, 1.0], np.float32), (1, 2), [1, 0]),
        (np.array(["b", "a "]), ("a", "b"), [1, 0]),
        (np.array([b"b", b"a"]), ("a", "b"), [1, 0]),
        (np.array(["10", "9"]), (9, 10), [1, 0]),
    ],
)
def test_arrays(y, classes, codes):
    found, indices = labels.from_array(y, "y")
    assert found == classes and indices.tolist() == codes and indices.dtype == np.int32


@pytest.mark.parametrize(
    ("y", "text"),
    [
        (np.eye(3), r"argmax\(axis=1\)"),
        (np.array(3), r"shape \(\)"),
        (np.array([0.0, np.nan]), "row 2 is nan"),
        (np.array([0.5]), "row 1 is 0.5"),
        (np.array([np.inf]), "row 1 is inf"),
        (np.array(["a", ""]), "row 2: no label"),
        (np.array([b"\xff"]), "not UTF-8"),
        (np.array([1j]), "complex128"),
        (np.array(["2020-01-01"], "M8[D]"), "datetime64"),
    ],
)
def test_arrays_that_are_no_labels(y, text):
    with pytest.raises(DataError, match=text):
        labels.from_array(y, "y")


def test_matching_onto_other_classes():
    y = np.array([0, 1, 0], np.int32)
    assert labels.matched(y, (3, 7), (1, 3, 7), "new").tolist() == [1, 2, 1]
    assert labels.matched(y, ("3", "7"), (3, 7), "new").tolist() == [0, 1, 0]
    for given, wanted in ((("01",), (1,)), ((1,), ("01",))):
        with pytest.raises(DataError, match="outside the classes"):
            labels.matched(np.array([0], np.int32), given, wanted, "new")
    # only what occurs counts
    assert labels.matched(y, (3, 7, 99), (3, 7), "new").tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="new: label 7 outside the classes 3, 4"):
        labels.matched(y, (3, 7), (3, 4), "new")


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("1", "2", "007"), True),
        (("7", "007"), True),
        (("-07", "7"), True),
        (("01", "02", "12"), False),
        ((1, 2, 7), False),
        (("a", "01", "1"), False),
        (("1" * 20, "2"), False),
        (("00123", "98765"), False),
    ],
)
def test_a_note_on_labels_that_may_be_integers_written_in_two_ways(classes, told):
    note = labels.padding_note(classes)
    assert (note is not None) == told
    assert note is None or "leading zeros tell labels apart" in note


def test_a_label_that_differs_by_its_zeros_alone_is_told_so():
    with pytest.raises(DataError, match="label 007 outside the classes 3, 7; leading zeros tell labels apart"):
        labels.matched(np.array([0], np.int32), ("007",), (3, 7), "new")
    with pytest.raises(DataError, match=r"outside the classes 3, 7$"):
        labels.matched(np.array([0], np.int32), ("008",), (3, 7), "new")


def test_columns_of_identifiers_are_refused():
    labels.check_count(range(16), 16, "y")
    labels.check_count(range(20), 40, "y")
    with pytest.raises(DataError, match="20 different labels in 39 rows"):
        labels.check_count(range(20), 39, "y")


def test_long_lists_are_shortened():
    assert labels.listed(range(3)) == "0, 1, 2"
    assert labels.listed(range(100), 4) == "0, 1, 2, ..., 99 (100 in all)"
