"""Stratified splits, and data sets matched to one another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlpkernels.datasets import Dataset, Part, conform, split, with_test
from mlpkernels.errors import DataError


def numbered(y):
    """A part whose rows say which they were."""
    return Part(np.arange(len(y), dtype=np.float64)[:, np.newaxis], np.asarray(y, np.int32))


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=80),
    st.floats(0.01, 0.99),
    st.integers(0, 2**32),
)
def test_splits_cover_the_rows_and_both_sides(y, fraction, seed):
    part, counts = numbered(y), np.bincount(y, minlength=7)
    if not (counts >= 2).any():
        with pytest.raises(DataError, match="cannot split"):
            split(part, fraction, seed)
        return
    rest, held = split(part, fraction, seed)
    assert len(rest) and len(held)
    assert sorted([*rest.x[:, 0], *held.x[:, 0]]) == list(range(len(y)))
    for side in (rest, held):
        assert np.array_equal(side.y, part.y[side.x[:, 0].astype(int)])
        assert (np.diff(side.x[:, 0]) > 0).all()
        assert (np.bincount(side.y, minlength=7)[counts >= 2] >= 1).all()
    # every class keeps its share, within one row
    assert (abs(np.bincount(held.y, minlength=7) - counts * fraction)[counts >= 2] <= 1).all()


def test_splits_repeat_by_seed_and_differ_between_seeds():
    part = numbered(np.arange(200) % 4)
    first, again, other = (split(part, 0.25, seed)[1].x for seed in (3, 3, 4))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert len(first) == 50


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_fractions_outside_0_to_1_are_refused(fraction):
    with pytest.raises(ValueError, match="fraction"):
        split(numbered([0, 0, 1, 1]), fraction, 0)


def test_negative_seeds_and_empty_parts_are_refused():
    with pytest.raises(ValueError, match="seed -1"):
        split(numbered([0, 0]), 0.5, -1)
    with pytest.raises(DataError, match="cannot split 0 rows"):
        split(numbered([]), 0.5, 0)


def table(y, classes, names=("a", "b"), test=None, **changes):
    x = np.column_stack([np.arange(len(y)), np.arange(len(y)) + 100.0])
    part = Part(x, np.asarray(y, np.int32))
    settings = {"shape": (2,), "feature_names": names, "source": "here", **changes}
    return Dataset("t", part, test, classes, **settings)


def test_a_test_part_is_split_off_only_where_there_is_none():
    data = table([0, 1] * 10, (0, 1))
    made = with_test(data, 0.2, 1)
    assert (len(made.train), len(made.test)) == (16, 4)
    assert with_test(made, 0.5) is made


def test_test_data_is_matched_to_the_training_data():
    data = table([0, 1, 2], (4, 5, 6))
    made = with_test(data, test_data=table([1, 0], ("5", "6"), names=("b", "a")))
    assert made.train is data.train
    assert made.test.y.tolist() == [2, 1]
    assert made.test.x.tolist() == [[100, 0], [101, 1]]
    both = table([0], (4,), test=Part(np.ones((1, 2)), np.zeros(1, np.int32)))
    assert with_test(data, test_data=both).test.x.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (table([0, 1], (4, 9)), "label 9 outside the classes 4, 5, 6"),
        (table([0, 1], (4, 5), names=("a", "c")), "no column b"),
        (table([0, 1], ("x", "y")), "labels x, y outside"),
    ],
)
def test_test_data_that_does_not_match_is_refused(other, text):
    with pytest.raises(DataError, match=text):
        with_test(table([0, 1, 2], (4, 5, 6)), test_data=other)


def test_conform_checks_shapes_and_rescales():
    pixels = Part(np.array([[0, 8, 16, 4]], np.uint8), np.zeros(1, np.int32))
    data = Dataset("p", pixels, None, (0,), (1, 2, 2), 16.0, True)
    made = conform(data, classes=(0, 1), shape=(1, 2, 2), full_scale=255.0)
    assert made.train.x.dtype == np.float32 and made.full_scale == 255.0
    assert made.train.x.tolist() == [[0, 127.5, 255, 63.75]]
    assert conform(data, classes=(0,), shape=(4,)).train.x.dtype == np.uint8
    with pytest.raises(DataError, match="2 x 2 grey images where 4 x 1 grey images are wanted"):
        conform(data, classes=(0,), shape=(1, 1, 4))
    with pytest.raises(DataError, match="2 x 2 grey images where rows of 9 values are wanted"):
        conform(data, classes=(0,), shape=(9,))
