"""The bundled digits."""

import hashlib

import numpy as np
import pytest

from mlpkernels import datasets
from mlpkernels.datasets import digits
from mlpkernels.errors import DataError


def test_digits_are_whole_and_split():
    data = datasets.load()
    assert data.name == "digits" and data.classes == tuple(range(10))
    assert data.shape == (1, 8, 8) and data.full_scale == 16 and data.images
    assert (len(data.train), len(data.test)) == (1438, 359)
    assert data.train.x.dtype == np.uint8 and data.train.x.max() == 16
    counts = np.bincount(data.train.y) + np.bincount(data.test.y)
    assert counts.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (abs(np.bincount(data.test.y) - counts * 0.2) <= 1).all()
    assert "CC BY 4.0" in data.source


def test_the_split_never_changes():
    data = datasets.load("digits")
    digest = hashlib.sha256(data.train.x.tobytes() + data.train.y.astype("<i4").tobytes())
    assert digest.hexdigest().startswith("6dc4866073af1e14")


def test_digits_are_scikit_learns():
    bunch = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_digits()
    data = datasets.load("digits")
    x, y = np.concatenate([data.train.x, data.test.x]), np.append(data.train.y, data.test.y)
    ours = np.column_stack([x, y])
    theirs = np.column_stack([bunch.data, bunch.target])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not an archive", None])
def test_a_damaged_installation_is_named(monkeypatch, tmp_path, content):
    monkeypatch.setattr(digits.resources, "files", lambda package: tmp_path)
    if content is not None:
        (tmp_path / "digits.npz").write_bytes(content)
    with pytest.raises(DataError, match="install mlpkernels again"):
        digits.load_digits()
