"""Scaling: what each kind maps to what, at the edges of floating point too, and as JSON."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlpkernels.errors import DataError
from mlpkernels.scaling import KINDS, Scaling, default_kind

BYTES = np.random.default_rng(0).integers(0, 256, (50, 7), dtype=np.uint8)
TABLE = np.random.default_rng(1).normal(5, 3, (60, 4)) * [1, 1e-3, 1e6, 1]


def test_default_kinds():
    assert default_kind(True) == "unit" and default_kind(False) == "standard"


@pytest.mark.parametrize(("kind", "low", "high"), [("unit", 0, 1), ("symmetric", -1, 1), ("none", 0, 255)])
def test_kinds_with_a_full_scale(kind, low, high):
    scaling = Scaling.fit(kind, BYTES, 255.0, True)
    assert scaling.is_scalar and scaling.width is None
    ends = scaling.apply(np.array([[0, 255]], np.uint8), np.float64)
    assert ends == pytest.approx(np.array([[low, high]]), abs=1e-15)


def test_standard_is_one_scale_for_images_and_one_a_column_for_tables():
    scaled = Scaling.fit("standard", BYTES, 255.0, True).apply(BYTES, np.float64)
    assert scaled.mean() == pytest.approx(0, abs=1e-12) and scaled.std() == pytest.approx(1)
    for x in (TABLE, TABLE.astype(np.float32), BYTES):
        scaling = Scaling.fit("standard", x)
        assert not scaling.is_scalar and scaling.width == x.shape[1]
        scaled = scaling.apply(x, np.float64)
        assert scaled.mean(0) == pytest.approx(np.zeros(x.shape[1]), abs=1e-9)
        assert scaled.std(0) == pytest.approx(np.ones(x.shape[1]))


@pytest.mark.parametrize(("kind", "low"), [("unit", 0), ("symmetric", -1)])
def test_without_a_full_scale_the_extremes_are_taken(kind, low):
    scaled = Scaling.fit(kind, TABLE).apply(TABLE, np.float64)
    assert scaled.min(0) == pytest.approx(np.full(4, low), abs=1e-9)
    assert scaled.max(0) == pytest.approx(np.ones(4))
    together = Scaling.fit(kind, TABLE, images=True)
    assert together.is_scalar
    scaled = together.apply(TABLE, np.float64)
    assert scaled.min() == pytest.approx(low, abs=1e-9) and scaled.max() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["unit", "symmetric", "standard"])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e300, 1e-310])
def test_constant_columns_become_0(kind, value):
    x = np.column_stack([np.full(1000, value), np.arange(1000.0)])
    scaling = Scaling.fit(kind, x)
    assert (scaling.apply(x)[:, 0] == 0).all()
    # also where later data differs there: nothing is known of its scale
    assert (scaling.apply(x + 1)[:, 0] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(
    x=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.uint8]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    images=st.booleans(),
)
@settings(deadline=None, max_examples=50)
def test_any_finite_values_scale_to_finite_values(kind, dtype, x, images):
    before = x.copy()
    scaling = Scaling.fit(kind, x, None, images)
    try:
        scaled = scaling.apply(x, dtype)
    except DataError:
        assert kind == "none" and abs(x).max() > np.finfo(dtype).max
        return
    assert scaled.dtype == dtype and scaled.flags.c_contiguous and np.isfinite(scaled).all()
    assert np.array_equal(x, before)
    if kind != "none" and x.size:
        # values close together far from 0 lose digits in x * factor + offset
        slack = 1e-6 + 8 * np.finfo(dtype).eps * np.max(abs(x.astype(np.float64)) * scaling.factor)
        assert abs(scaled).max() <= (np.sqrt(x.size) if kind == "standard" else 1) + slack


@pytest.mark.parametrize("images", [False, True])
def test_json_gives_the_same_scaling_back(images):
    for kind in KINDS:
        scaling = Scaling.fit(kind, TABLE, None, images)
        again = Scaling.from_json(json.loads(json.dumps(scaling.to_json())))
        assert again == scaling and again.is_scalar == scaling.is_scalar
    assert Scaling.fit("unit", TABLE) != Scaling.fit("standard", TABLE) and scaling != "none"


@pytest.mark.parametrize(
    "description",
    [
        None,
        [],
        {},
        {"kind": "unit", "factor": 1.0},
        {"kind": "unit", "factor": 1.0, "offset": 0.0, "more": 1},
        {"kind": "other", "factor": 1.0, "offset": 0.0},
        {"kind": "unit", "factor": "x", "offset": 0.0},
        {"kind": "unit", "factor": None, "offset": 0.0},
        {"kind": "unit", "factor": [1.0], "offset": 0.0},
        {"kind": "unit", "factor": [[1.0]], "offset": [[0.0]]},
        {"kind": "unit", "factor": float("nan"), "offset": 0.0},
        {"kind": ["unit"], "factor": 1.0, "offset": 0.0},
        {"kind": "unit", "factor": {}, "offset": 0.0},
    ],
)
def test_other_json_is_refused(description):
    with pytest.raises(ValueError):
        Scaling.from_json(description)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="unknown scaling 'units': wanted unit, symmetric"):
        Scaling.fit("units", BYTES)
    for numbers in ((2.0, 0.0), (1.0, 1.0), ([1.0, 2.0], [0.0, 0.0])):
        with pytest.raises(ValueError, match="kind 'none' scales nothing: factor 1 and offset 0 were wanted"):
            Scaling("none", *numbers)
    assert Scaling("none", [1.0, 1.0], [0.0, 0.0]).width == 2
    for full_scale in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="full_scale"):
            Scaling.fit("unit", BYTES, full_scale)
    with pytest.raises(DataError, match="NaN or infinity"):
        Scaling.fit("standard", np.array([[1.0], [np.nan]]))
    with pytest.raises(DataError, match="no values to find the scale of"):
        Scaling.fit("standard", np.zeros((0, 3)))
    with pytest.raises(DataError, match="wanted rows of numbers"):
        Scaling.fit("standard", np.zeros(3))
    scaling = Scaling.fit("standard", TABLE)
    with pytest.raises(ValueError, match="x has 3 columns, this scaling was fitted to 4"):
        scaling.apply(TABLE[:, :3])
    with pytest.raises(ValueError, match="float16"):
        scaling.apply(TABLE, np.float16)
    with pytest.raises(ValueError, match="wanted rows of numbers"):
        scaling.apply(np.zeros((4, 4), "U1"))
    with pytest.raises(DataError, match=r"row 2, column 1 is 1e\+300: after scaling \(none\) .* float32"):
        Scaling("none", 1.0, 0.0).apply(np.array([[1.0], [1e300]]))


def test_arrays_are_kept_from_changes():
    factor = np.ones(3)
    scaling = Scaling("unit", factor, np.zeros(3))
    factor[0] = 9
    assert scaling.factor[0] == 1
    with pytest.raises(ValueError):
        scaling.factor[0] = 2


def test_large_offsets_do_not_cost_precision():
    x = 1.6e9 + np.arange(1000.0)[:, np.newaxis]
    scaled = Scaling.fit("standard", x).apply(x, np.float32)
    assert np.diff(scaled[:, 0]) == pytest.approx(np.full(999, 1 / np.arange(1000.0).std()), rel=1e-3)


def test_bytes_scale_alike_however_they_are_scaled():
    scaling = Scaling.fit("symmetric", BYTES, 255.0)
    expected = BYTES.astype(np.float32) * np.float32(2 / 255) + np.float32(-1)
    assert np.array_equal(scaling.apply(BYTES, np.float32), expected)
    assert np.allclose(scaling.apply(BYTES.astype(np.float32), np.float32), expected, atol=1e-7)


def test_empty_rows_and_reprs():
    assert Scaling("none", 1.0, 0.0).apply(np.zeros((0, 5), np.uint8)).shape == (0, 5)
    assert Scaling.fit("standard", TABLE).apply(np.zeros((0, 4))).shape == (0, 4)
    assert repr(Scaling("none", 1, 0)) == "Scaling(none: x * 1 + 0)"
    assert repr(Scaling.fit("standard", TABLE)) == "Scaling(standard: 4 columns, each its own factor and offset)"
