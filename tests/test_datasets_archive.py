"""NPZ files: layouts, labels, and the ways in which they are refused."""

import io
import tempfile
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpkernels import datasets
from mlpkernels.datasets import bounded
from mlpkernels.errors import DataError

Y = np.array([3, 1, 3, 1])
PIXELS = np.arange(4 * 2 * 5, dtype=np.uint8).reshape(4, 2, 5)


def write(folder, **arrays):
    path = Path(folder) / "data.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_a_table_with_its_own_test_part(tmp_path):
    x = np.arange(12.0).reshape(4, 3)
    data = datasets.load(write(tmp_path, x_train=x, y_train=Y, x_test=x[:2] + 1, y_test=Y[1:3]))
    assert data.name == "data" and data.shape == (3,) and not data.images and data.full_scale is None
    assert data.classes == (1, 3) and data.train.y.tolist() == [1, 0, 1, 0] and data.test.y.tolist() == [0, 1]
    assert np.array_equal(data.train.x, x) and data.test.x.tolist() == (x[:2] + 1).tolist()


@pytest.mark.parametrize("keys", [("X", "y"), ("x", "y"), ("X", "Y"), ("X_train", "Y_train")])
def test_keys_in_either_case(tmp_path, keys):
    data = datasets.load(write(tmp_path, **{keys[0]: np.zeros((4, 3)), keys[1]: Y, "other": np.zeros(1)}))
    assert data.test is None and len(data.train) == 4


@pytest.mark.parametrize(
    ("x", "shape", "first"),
    [
        (PIXELS, (1, 2, 5), range(10)),
        (PIXELS[:, np.newaxis], (1, 2, 5), range(10)),
        (PIXELS[..., np.newaxis], (1, 2, 5), range(10)),
        (
            np.stack([PIXELS, PIXELS + 100, PIXELS + 200], 1),
            (3, 2, 5),
            [*range(10), *range(100, 110), *range(200, 210)],
        ),
        (
            np.stack([PIXELS, PIXELS + 100, PIXELS + 200], 3),
            (3, 2, 5),
            [*range(10), *range(100, 110), *range(200, 210)],
        ),
        (np.asfortranarray(PIXELS), (1, 2, 5), range(10)),
        (PIXELS.astype(np.int64), (1, 2, 5), range(10)),
    ],
    ids=["nhw", "nchw1", "nhwc1", "nchw3", "nhwc3", "fortran", "int64"],
)
def test_images_become_bytes_in_channel_order(tmp_path, x, shape, first):
    data = datasets.load(write(tmp_path, X=x, y=Y))
    assert data.images and data.shape == shape and data.full_scale == 255
    assert data.train.x.dtype == np.uint8 and data.train.x[0].tolist() == list(first)


@pytest.mark.parametrize(
    ("x", "dtype", "full_scale"),
    [
        (PIXELS.astype(np.float32) / 39, np.float32, 1.0),
        (PIXELS.astype(np.float64), np.float64, 255.0),
        (PIXELS.astype(np.float32) * 100, np.float32, None),
        (PIXELS.astype(np.int16) - 1, np.float64, None),
        (PIXELS > 7, np.uint8, 1.0),
    ],
    ids=["unit", "bytes", "large", "negative", "bool"],
)
def test_images_of_other_dtypes(tmp_path, x, dtype, full_scale):
    data = datasets.load(write(tmp_path, X=x, y=Y))
    assert data.images and data.train.x.dtype == dtype and data.full_scale == full_scale
    assert np.array_equal(data.train.x.reshape(x.shape), x)


def test_rows_of_bytes(tmp_path):
    x = np.arange(4 * 64, dtype=np.uint8).reshape(4, 64)
    data = datasets.load(write(tmp_path, X=x, y=Y))
    assert data.images and data.shape == (1, 8, 8) and data.full_scale == 255
    assert "read as 8 x 8 images" in data.notes[0]
    data = datasets.load(write(tmp_path, X=x[:, :63], y=Y))
    assert not data.images and data.shape == (63,) and data.train.x.dtype == np.uint8


def test_text_labels_with_leading_zeros_are_told(tmp_path):
    data = datasets.load(write(tmp_path, X=np.zeros((3, 64), np.uint8), y=np.array(["7", "007", "10"])))
    assert data.classes == ("7", "007", "10")
    assert "y: the labels are text and not integers" in data.notes[0] and "8 x 8 images" in data.notes[1]


def test_text_labels_and_byte_order(tmp_path):
    data = datasets.load(write(tmp_path, X=np.ones((4, 2), ">f4"), y=np.array(["b", "a", "b", "c"])))
    assert data.classes == ("a", "b", "c") and data.train.x.dtype == np.dtype("=f4")


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"X": np.zeros((4, 2))}, r"no array y; wanted x_train and y_train .* there is: X"),
        ({"a": np.zeros(1)}, "no array x; wanted"),
        ({}, "no array x; .*there is: none"),
        ({"x_train": np.zeros((4, 2))}, "no array y_train"),
        ({"x_train": np.zeros((4, 2)), "y_train": Y, "x_test": np.zeros((4, 2))}, "no array y_test"),
        ({"x_train": np.zeros((4, 2)), "y_train": Y, "y_test": Y}, "no array x_test"),
        ({"x": np.zeros((4, 2)), "X": np.zeros((4, 2)), "y": Y}, "which is meant"),
        ({"X": np.array([[1], [None]], object), "y": Y}, "X holds pickled Python objects.*refused"),
        ({"X": np.zeros((4, 2)), "y": np.array([1, "a", 2, 3], object)}, "y holds pickled Python objects"),
        ({"X": np.zeros((3, 2)), "y": Y}, "3 rows in x, but 4 labels in y"),
        ({"X": np.zeros((0, 2)), "y": Y[:0]}, "x is empty"),
        ({"X": np.zeros((4, 0)), "y": Y}, r"shape \(4, 0\)"),
        ({"X": np.zeros(4), "y": Y}, r"shape \(4,\), wanted rows"),
        ({"X": np.zeros((4, 5, 5, 5)), "y": Y}, "1 or 3 channels"),
        ({"X": np.zeros((4, 2), "U3"), "y": Y}, "wanted numbers"),
        ({"X": np.zeros((4, 2), complex), "y": Y}, "complex128"),
        ({"X": np.zeros((4, 2), [("a", "i4")]), "y": Y}, "wanted numbers"),
        ({"X": np.full((4, 2), np.nan), "y": Y}, "row 1, column 1 is nan"),
        ({"X": np.full((4, 3, 3), np.nan), "y": Y}, "row 1, column 1 is nan"),
        ({"X": np.zeros((4, 2)), "y": np.eye(4)}, "argmax"),
        ({"X": np.zeros((4, 2)), "y": np.array([0, 1, np.nan, 1])}, "row 3 is nan"),
        ({"X": np.zeros((4, 2)), "y": np.ones(4, int)}, "training needs at least 2 classes"),
        (
            {"x_train": np.zeros((4, 2)), "y_train": Y, "x_test": np.zeros((4, 3)), "y_test": Y},
            r"x_test has rows of shape \(3,\), x_train of \(2,\)",
        ),
        (
            {"x_train": np.zeros((4, 2)), "y_train": Y, "x_test": np.zeros((4, 2)), "y_test": Y + 5},
            "labels 6, 8 outside the classes 1, 3",
        ),
        ({"x_train": PIXELS, "y_train": Y, "x_test": PIXELS / 255, "y_test": Y}, "up to 255, x_test up to 1"),
    ],
)
def test_faults_are_named(tmp_path, arrays, text):
    path = write(tmp_path, **arrays)
    with pytest.raises(DataError, match=text) as caught:
        datasets.load(path)
    assert "data.npz" in str(caught.value) or "training needs" in text or "is nan" in text


def npy(values, shape=None):
    """The bytes of an .npy file, its header claiming another shape where one is given."""
    out = io.BytesIO()
    np.lib.format.write_array(out, values, allow_pickle=True)
    content = out.getvalue()
    if shape is None:
        return content
    old = str(values.shape).encode()
    return content.replace(old + b", }" + b" " * (len(shape) - len(old)), shape.encode() + b", }", 1)


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "the file is empty"),
        (b"not a zip", "not a .npz file, or damaged"),
        (zipped({"X.npy": npy(np.zeros((4, 2))), "y.npy": npy(Y)})[:-30], "not a .npz file, or damaged"),
        (zipped({"X.npy": npy(np.zeros((4, 2)), "(9999, 9999)"), "y.npy": npy(Y)}), "its header says"),
        (zipped({"X.npy": npy(np.zeros((4, 2)), "(-4, -2)"), "y.npy": npy(Y)}), "its header says"),
        (zipped({"X.npy": npy(np.zeros((4, 2)))[:-8], "y.npy": npy(Y)}), "there are 56"),
        (zipped({"X.npy": npy(np.zeros((4, 2))) + b"x", "y.npy": npy(Y)}), "there are 65"),
        (zipped({"X.npy": b"", "y.npy": npy(Y)}), "X: damaged"),
        (zipped({"X.npy": b"\x93NUMPY\x09\x00" + bytes(50), "y.npy": npy(Y)}), "version 9.0"),
    ],
)
def test_damage_is_named(tmp_path, content, text):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text):
        datasets.load(path)


def test_a_wrong_checksum_is_noticed(tmp_path):
    content = bytearray(zipped({"X.npy": npy(np.zeros((4, 2))), "y.npy": npy(Y)}, zipfile.ZIP_STORED))
    content[content.index(b"\x93NUMPY") + 140] ^= 1
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        datasets.load(path)


def test_bombs_are_refused_before_they_expand(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "FREE", 1 << 20)
    with pytest.raises(DataError, match="decompression bomb"):
        datasets.load(write(tmp_path, X=np.zeros((1 << 16, 8)), y=np.arange(1 << 16) % 2))


def survives(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.npz"
        path.write_bytes(content)
        try:
            data = datasets.load(path, min_classes=1)
        except DataError as error:
            assert "\n" not in str(error)
        else:
            assert len(data.train)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes(content):
    survives(content)


CHANGES = st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=3)


def changed(content, changes):
    content = bytearray(content)
    for place, value in changes:
        content[place % len(content)] = value
    return bytes(content)


@given(CHANGES, st.integers(0, 40))
@settings(deadline=None, max_examples=200)
def test_any_mutation_of_the_archive(changes, cut):
    whole = zipped({"X.npy": npy(np.zeros((4, 2))), "y.npy": npy(Y)}, zipfile.ZIP_STORED)
    survives(changed(whole, changes)[: len(whole) - cut])


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=3))
@settings(deadline=None, max_examples=300)
def test_any_mutation_of_an_arrays_header(changes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        survives(zipped({"X.npy": changed(npy(np.zeros((4, 2))), changes), "y.npy": npy(Y)}))


@pytest.mark.parametrize("where", ["x_train", "x_test"])
def test_a_value_that_is_not_finite_is_named_with_its_file_and_array(tmp_path, where):
    arrays = {"x_train": np.ones((20, 3)), "y_train": np.arange(20) % 2, "x_test": np.ones((20, 3))}
    arrays["y_test"] = arrays["y_train"]
    arrays[where][3, 2] = np.nan
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz: {where}: row 4, column 3 is nan: every value must be finite"):
        datasets.load(tmp_path / "a.npz")
