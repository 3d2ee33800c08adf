"""IDX files: right ones, and every way in which their header and length can lie."""

import gzip
import hashlib
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from dataset_files import idx_bytes
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpkernels import datasets
from mlpkernels.datasets import bounded, idx
from mlpkernels.errors import DataError

IMAGES = np.arange(6 * 3 * 4, dtype=np.uint8).reshape(6, 3, 4)
LABELS = np.array([3, 5, 3, 5, 9, 9], np.uint8)


def write_folder(folder, suffix="", pack=bytes, halves=("train", "t10k")):
    folder.mkdir(exist_ok=True)
    for half in halves:
        (folder / f"{half}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(IMAGES)))
        (folder / f"{half}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(LABELS)))
    return folder


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), ("", gzip.compress)])
def test_a_folder_of_four_files(tmp_path, suffix, pack):
    data = datasets.load(write_folder(tmp_path / "mine", suffix, pack))
    assert data.name == "mine" and data.shape == (1, 3, 4) and data.images and data.full_scale == 255
    assert data.classes == (3, 5, 9)
    for part in (data.train, data.test):
        assert np.array_equal(part.x, IMAGES.reshape(6, 12)) and part.x.dtype == np.uint8
        assert part.y.tolist() == [0, 1, 0, 1, 2, 2]


def test_a_folder_without_a_test_pair_and_other_spellings(tmp_path):
    assert datasets.load(write_folder(tmp_path / "a", halves=("train",))).test is None
    folder = write_folder(tmp_path / "b")
    for file in list(folder.iterdir()):
        file.rename(folder / file.name.replace("-idx", ".idx").replace("t10k", "emnist-test"))
    assert datasets.load(folder).test is not None


def test_a_plain_file_is_preferred_to_its_gz(tmp_path):
    folder = write_folder(tmp_path / "a")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"broken")
    assert len(datasets.load(folder).train) == 6


def test_the_files_own_names_are_preferred_to_similar_ones(tmp_path):
    folder = write_folder(tmp_path / "a")
    for name in ("old-train-images-idx3-ubyte", "train-images-copy", "my-t10k-labels-idx1-ubyte.gz"):
        (folder / name).write_bytes(b"broken")
    assert len(datasets.load(folder).train) == 6
    # without exact names, one that starts rightly is preferred to one that contains it
    for name in ("train-images-copy", "my-t10k-labels-idx1-ubyte.gz"):
        (folder / name).unlink()
    (folder / "train-images-idx3-ubyte").rename(folder / "train-images.bin")
    assert idx.find(folder)["train-images"].name == "train-images.bin"


def test_two_files_for_one_role_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a")
    (folder / "train-images-idx3-ubyte").rename(folder / "train-images-old")
    (folder / "train-images-copy").write_bytes(idx_bytes(IMAGES))
    with pytest.raises(DataError, match="could each be the train-images file"):
        datasets.load(folder)


@pytest.mark.parametrize("missing", ["train-labels-idx1-ubyte", "train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
def test_a_missing_file_is_named(tmp_path, missing):
    folder = write_folder(tmp_path / "a")
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"no {missing.split('-idx')[0]} file"):
        datasets.load(folder)


def test_gzip_of_several_members_is_one_file(tmp_path):
    content = idx_bytes(IMAGES)
    (tmp_path / "x.gz").write_bytes(gzip.compress(content[:20]) + gzip.compress(content[20:]))
    assert np.array_equal(idx.read_idx(tmp_path / "x.gz", 3), IMAGES)


GOOD = idx_bytes(IMAGES)


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"PK\x03\x04" + GOOD[4:], "starts with 50 4b 03 04, wanted 00 00 08 03"),
        (GOOD[:2], "starts with 00 00, wanted"),
        (b"\0\0\x0d\x03" + GOOD[4:], "that is float32 in 3 dimensions"),
        (idx_bytes(LABELS), "that is uint8 in 1 dimensions"),
        (GOOD[:10], "truncated within its header"),
        (GOOD[:-1], "truncated"),
        (GOOD[:16], "truncated"),
        (GOOD + b"\0", "goes on after them"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 28, 28), "no images in it"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1) + b"x" * 50, "truncated"),
    ],
)
def test_lying_headers_and_lengths(tmp_path, pack, content, text):
    (tmp_path / "file").write_bytes(pack(content))
    with pytest.raises(DataError, match=text) as caught:
        idx.read_idx(tmp_path / "file", 3)
    assert str(tmp_path / "file") in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda packed: packed[:-9], "truncated"),
        (lambda packed: packed[:30], "truncated"),
        (lambda packed: packed + b"trailing", "damaged"),
        (lambda packed: packed[:-5] + b"?" + packed[-4:], "damaged"),
        (lambda packed: packed[:20] + bytes(8) + packed[28:], "damaged|truncated|goes on|not an IDX"),
        (lambda packed: b"", "empty"),
    ],
)
def test_spoilt_gzip(tmp_path, spoil, text):
    (tmp_path / "file.gz").write_bytes(spoil(gzip.compress(GOOD)))
    with pytest.raises(DataError, match=text):
        idx.read_idx(tmp_path / "file.gz", 3)


def test_bombs_are_refused_before_they_expand(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "FREE", 1 << 20)
    shape = (4096, 32, 32)
    head = struct.pack(">BBBB3I", 0, 0, 8, 3, *shape)
    (tmp_path / "honest.gz").write_bytes(gzip.compress(head + bytes(4096 * 1024)))
    with pytest.raises(DataError, match="decompression bomb"):
        idx.read_idx(tmp_path / "honest.gz", 3)
    # a header that promises little is believed: what follows is not expanded at all
    (tmp_path / "liar.gz").write_bytes(gzip.compress(GOOD + bytes(1 << 26)))
    with pytest.raises(DataError, match="goes on after them"):
        idx.read_idx(tmp_path / "liar.gz", 3)


def test_counts_and_sizes_that_differ_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a")
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS[:5]))
    with pytest.raises(DataError, match="6 images, but 5 labels in train-labels"):
        datasets.load(folder)
    folder = write_folder(tmp_path / "b")
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(IMAGES.reshape(6, 4, 3)))
    with pytest.raises(DataError, match="images of 4 x 3, those to train on are 3 x 4"):
        datasets.load(folder)


def test_labels_only_in_the_test_part_are_refused(tmp_path):
    folder = write_folder(tmp_path / "a")
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(LABELS + 1))
    with pytest.raises(DataError, match="labels 4, 6, 10 outside the classes 3, 5, 9"):
        datasets.load(folder)


def test_content_checksums_are_those_of_the_plain_file():
    assert idx.content_sha256(IMAGES) == hashlib.sha256(GOOD).hexdigest()


def survives(content, dimensions):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        try:
            values = idx.read_idx(path, dimensions)
        except DataError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert values.dtype == np.uint8 and values.ndim == dimensions and values.size


@given(st.binary(max_size=200), st.sampled_from([1, 3]))
@settings(deadline=None)
def test_any_bytes(content, dimensions):
    survives(content, dimensions)


@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    st.integers(-60, 8),
)
@settings(deadline=None, max_examples=200)
def test_any_mutation_of_a_right_file(packed, changes, length):
    content = bytearray(gzip.compress(GOOD) if packed else GOOD)
    for place, value in changes:
        content[place % len(content)] = value
    survives(bytes(content[:length] if length < 0 else content + bytes(length)), 3)
