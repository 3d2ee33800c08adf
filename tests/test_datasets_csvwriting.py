"""Images written as a CSV of pixels: drawn by a seed, read back equal, never half."""

import hashlib

import numpy as np
import pytest
from small_images import images

from mlpkernels.datasets import Dataset, Part, load, read_inputs
from mlpkernels.datasets.csvwriting import drawn, write_both, write_pixels
from mlpkernels.errors import DataError


def test_rows_are_drawn_from_both_parts_once_each():
    data = images(60, 40)
    chosen, others = drawn(data, 70, 3)
    assert (len(chosen), len(others)) == (70, 30)
    rows = {row.tobytes() for part in (data.train, data.test) for row in part.x}
    assert {row.tobytes() for part in (chosen, others) for row in part.x} == rows
    again = drawn(data, 70, 3)[0]
    assert again.x.tobytes() == chosen.x.tobytes()
    assert drawn(data, 70, 4)[0].x.tobytes() != chosen.x.tobytes()


@pytest.mark.parametrize("rows", [0, 100, 5000])
def test_more_rows_than_there_are_is_refused(rows):
    with pytest.raises(DataError, match=r"images: .* rows of its 100; --rows from 1 to 99 were wanted"):
        drawn(images(60, 40), rows, 0)


def test_all_rows_may_be_written_where_no_others_are_wanted(tmp_path):
    data = images(60, 40)
    assert write_both(data, 100, 0, tmp_path / "a.csv", None) == (100, 0)
    assert len(load(tmp_path / "a.csv").train) == 100
    with pytest.raises(DataError, match="--rows from 1 to 100 were wanted"):
        write_both(data, 101, 0, tmp_path / "b.csv", None)
    with pytest.raises(DataError, match="--rows from 1 to 99 were wanted"):
        write_both(data, 100, 0, tmp_path / "b.csv", tmp_path / "c.csv")


def test_the_csv_reads_back_as_it_was(tmp_path):
    data = images(1300, 40)
    assert write_both(data, 1200, 0, tmp_path / "a.csv", tmp_path / "b.csv") == (1200, 140)
    chosen, others = drawn(data, 1200, 0)
    found = load(tmp_path / "a.csv")
    assert found.shape == (1, 28, 28) and found.classes == tuple(range(10)) and found.full_scale == 255
    assert np.array_equal(found.train.x, chosen.x) and np.array_equal(found.train.y, chosen.y)
    assert np.array_equal(read_inputs([tmp_path / "b.csv"], (1, 28, 28), 255.0)[0], others.x)
    header = (tmp_path / "a.csv").read_text().partition("\n")[0]
    assert header.startswith("label,pixel0,pixel1,") and header.endswith(",pixel783")


def test_classes_are_written_and_not_their_indices(tmp_path):
    small = images(40, 20)
    shifted = Dataset("shifted", small.train, small.test, tuple(range(5, 15)), small.shape, 255.0, True)
    write_both(shifted, 30, 0, tmp_path / "a.csv", None)
    labels = {int(line.split(",")[0]) for line in (tmp_path / "a.csv").read_text().splitlines()[1:]}
    assert labels <= set(range(5, 15)) and max(labels) > 9


def test_what_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="rows of float32; a CSV of pixels holds whole numbers"):
        write_pixels(tmp_path / "a.csv", np.zeros((2, 3), np.float32))
    words = Dataset("words", Part(np.zeros((2, 1), np.uint8), np.array([0, 1])), None, ("a", "b"), (1,))
    with pytest.raises(DataError, match="its classes are words"):
        write_both(words, 1, 0, tmp_path / "a.csv", None)
    with pytest.raises(OSError, match="cannot write"):
        write_both(images(30, 10), 20, 0, tmp_path / "a.csv", tmp_path / "none" / "b.csv")
    assert list(tmp_path.iterdir()) == []


def test_the_csv_of_mnist_is_the_same_everywhere(mnist_dir, tmp_path):
    chosen, _ = drawn(load("mnist", data_dir=mnist_dir, offline=True), 42_000, 0)
    write_pixels(tmp_path / "a.csv", chosen.x[:100], chosen.y[:100])
    digest = hashlib.sha256((tmp_path / "a.csv").read_bytes()).hexdigest()
    assert digest == "935e2aa91cd5c04542052304b98bf4a24bdf536818e425eb3751bb4108234ac7"
