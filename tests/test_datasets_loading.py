"""Names and paths: what is known, what is near, and that digits cost little."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mlpkernels import datasets
from mlpkernels.errors import DataError


@pytest.mark.parametrize("data", ["digits", "DIGITS", " digits "])
def test_names_are_forgiving(data):
    assert datasets.load(data).name == "digits"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("minst", r"unknown data set 'minst' \(did you mean mnist\?\)"),
        ("fashion", r"did you mean fashion-mnist\?"),
        (
            "qwertz",
            "unknown data set 'qwertz'; wanted digits, mnist, fashion-mnist, kmnist, or a path to a .csv",
        ),
        ("nowhere/table.csv", "no such file or folder; wanted digits"),
    ],
)
def test_unknown_names_and_paths(data, text):
    with pytest.raises(DataError, match=text):
        datasets.load(data)


def test_other_files(tmp_path):
    for name in ("notes.txt", "train-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"notes\.txt: not a kind of data set; wanted digits"):
        datasets.load(tmp_path / "notes.txt")
    with pytest.raises(DataError, match=f"give its folder {tmp_path} instead"):
        datasets.load(str(tmp_path / "train-images-idx3-ubyte"))


def test_a_path_object_is_never_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="unknown data set 'digits'"):
        datasets.load(Path("digits"))


@pytest.mark.parametrize("data", ["digits", "some.npz"])
def test_only_csv_files_have_a_label_column(data):
    with pytest.raises(DataError, match="only CSV files have a label column"):
        datasets.load(data, label_column="y")


def test_one_class_is_enough_to_evaluate(tmp_path):
    (tmp_path / "t.csv").write_text("y,a\n1,2\n1,3\n")
    assert datasets.load(tmp_path / "t.csv", min_classes=1).classes == (1,)
    with pytest.raises(DataError, match="training needs at least 2 classes"):
        datasets.load(tmp_path / "t.csv")


def test_labels_that_all_differ_are_enough_to_evaluate(tmp_path):
    letters = [chr(ord("a") + index) for index in range(20)]
    table, archive = tmp_path / "t.csv", tmp_path / "t.npz"
    table.write_text("y,a\n" + "".join(f"{letter},{row}\n" for row, letter in enumerate(letters)))
    np.savez(archive, X=np.arange(20.0)[:, None], y=letters)
    for path in (table, archive):
        assert datasets.load(path, min_classes=1).classes == tuple(letters)
        with pytest.raises(DataError, match="20 different labels in 20 rows"):
            datasets.load(path)


def test_digits_import_no_reader_they_do_not_need():
    script = (
        "import sys; from mlpkernels import datasets; datasets.load('digits'); "
        "print([m for m in ('PIL', 'csv', 'urllib.request', 'numba', 'matplotlib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_public_names():
    assert all(hasattr(datasets, name) for name in datasets.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        datasets.nothing  # noqa: B018
