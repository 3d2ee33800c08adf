"""Files to predict from: brought to the form of the training data, or refused by name."""

import numpy as np
import pytest
from PIL import Image

from mlpkernels.datasets import conform, load, read_inputs
from mlpkernels.errors import DataError

GREY = (1, 2, 3)  # pictures 3 wide, 2 high


def picture(tmp_path, name="a.png", value=51, mode="L", size=(3, 2)):
    Image.new(mode, size, value).save(tmp_path / name)
    return tmp_path / name


def write(tmp_path, content, name="t.csv"):
    (tmp_path / name).write_text(content)
    return tmp_path / name


def test_pictures_on_the_models_scale(tmp_path):
    path = picture(tmp_path)
    x, names = read_inputs([path], GREY, 255.0)
    assert x.dtype == np.uint8 and x.tolist() == [[51] * 6] and names == [str(path)]
    x, _ = read_inputs([str(path)], GREY, 16.0)
    assert x.dtype == np.float32 and np.allclose(x, 3.2)
    assert np.allclose(read_inputs([path], GREY, 1.0)[0], 0.2)


@pytest.mark.parametrize(
    ("values", "full_scale", "factor"),
    [([0, 3, 16], 16.0, 1), ([0, 200, 16], 16.0, 16 / 255), ([0, 200, 16], 1.0, 1 / 255), ([0, 0.5, 1], 16.0, 16),
     ([0, 2.5, 16], 16.0, 1), ([0, 3, 16], 255.0, 1), ([0, 1, 1], 1.0, 1), ([0, 0.5, 1.0000001], 1.0, 1),
     ([0, 20.5, 200], 1.0, 1 / 255), ([0, 3, 16], 65535.0, 257)],
)  # fmt: skip
def test_pixels_get_the_same_scale_to_predict_from_and_to_evaluate(tmp_path, values, full_scale, factor):
    """255 is a guess where a file states no scale: what keeps within the model's own is on it."""
    rows = np.array([[*values, 0, 0, 0]] * 2)
    text = "label," + ",".join(f"pixel{k}" for k in range(6)) + "\n"
    text += "".join(f"{label}," + ",".join(map(str, row.tolist())) + "\n" for label, row in enumerate(rows))
    np.savez(tmp_path / "t.npz", x=rows.reshape(-1, 2, 3), y=[0, 1])
    for path in (write(tmp_path, text), tmp_path / "t.npz"):
        x, _ = read_inputs([path], GREY, full_scale)
        assert np.allclose(x, rows * factor)
        part = conform(load(str(path)), classes=(0, 1), shape=GREY, full_scale=full_scale).train
        assert part.x.dtype == x.dtype and np.array_equal(part.x, x)


def test_a_scale_that_a_file_states_is_no_guess(tmp_path):
    """However dark the pictures are."""
    for label in ("a", "b"):
        (tmp_path / "by" / label).mkdir(parents=True)
        picture(tmp_path / "by" / label, value=16)
    found = load(str(tmp_path / "by"))
    for full_scale, wanted in ((16.0, 256 / 255), (1.0, 16 / 255), (65535.0, 16 * 257)):
        part = conform(found, classes=("a", "b"), shape=GREY, full_scale=full_scale).train
        assert np.allclose(part.x, wanted)
        x, _ = read_inputs([tmp_path / "by" / "a" / "a.png"], GREY, full_scale)
        assert np.array_equal(x[0], part.x[0])


@pytest.mark.parametrize("values", [[0, 3, 16], [0, 200, 255]])
def test_flat_rows_of_colours_are_taken_alike(tmp_path, values):
    rows = np.array([[*values] * 64] * 2, np.uint8)
    np.savez(tmp_path / "t.npz", x=rows, y=[0, 1])
    x, _ = read_inputs([tmp_path / "t.npz"], (3, 8, 8), 1.0)
    part = conform(load(str(tmp_path / "t.npz")), classes=(0, 1), shape=(3, 8, 8), full_scale=1.0).train
    assert np.array_equal(part.x, x)


def test_inverting_and_colours(tmp_path):
    assert read_inputs([picture(tmp_path)], GREY, 255.0, invert=True)[0].tolist() == [[204] * 6]
    assert np.allclose(read_inputs([picture(tmp_path)], GREY, 1.0, invert=True)[0], 0.8)
    red = picture(tmp_path, "red.png", (255, 0, 0), "RGB")
    assert read_inputs([red], GREY, 255.0)[0].tolist() == [[76] * 6]
    assert read_inputs([picture(tmp_path)], (3, 2, 3), 255.0)[0].tolist() == [[51] * 18]


@pytest.mark.parametrize(
    ("shape", "full_scale", "text"),
    [
        ((1, 28, 28), 255.0, r"a\.png is 3 x 2 pixels, wanted are 28 x 28"),
        ((6,), None, r"a\.png: a picture, the model takes rows of 6 values"),
        (GREY, None, r"a\.png: the full scale of the model's images is not known"),
    ],
)
def test_pictures_that_do_not_fit(tmp_path, shape, full_scale, text):
    with pytest.raises(DataError, match=text):
        read_inputs([picture(tmp_path)], shape, full_scale)


def test_csv_with_and_without_labels(tmp_path):
    path = write(tmp_path, "a,b\n1,2\n3,4\n")
    x, names = read_inputs([path], (2,))
    assert x.tolist() == [[1, 2], [3, 4]] and names == [f"{path}:1", f"{path}:2"]
    labelled = write(tmp_path, "y,a,b\nx,1,2\n,3,4\n", "labelled.csv")
    assert read_inputs([labelled], (2,), label_column="y")[0].tolist() == [[1, 2], [3, 4]]
    assert read_inputs([path, labelled], (2,), usual_label="y")[0].tolist() == [[1, 2], [3, 4]] * 2
    last = write(tmp_path, "a,b,y\n1,2,x\n3,4,y\n", "last.csv")
    assert read_inputs([last], (2,), label_column="y")[0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("place", [0, 2, 4])
def test_labels_anywhere_among_pixels(tmp_path, place):
    names, values = [f"pixel{i}" for i in range(4)], ["1", "2", "3", "4"]
    names.insert(place, "digit")
    values.insert(place, "7")
    path = write(tmp_path, f"{','.join(names)}\n{','.join(values)}\n")
    assert read_inputs([path], (1, 2, 2), 255.0)[0].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize("header", ["y,a,b", "a,b,y", "pixel0,pixel1,pixel2", "label,id,pixel0"])
def test_a_column_too_many_that_may_be_any_is_refused(tmp_path, header):
    path = write(tmp_path, f"{header}\n1,2,3\n")
    with pytest.raises(
        DataError, match=rf"t\.csv: one column more than the 2 .* --label-column \(columns: {header[:1]}"
    ):
        read_inputs([path], (2,))


def test_csv_columns_by_name(tmp_path):
    path = write(tmp_path, "id,b,y,a\nr1,2,x,1\nr2,4,y,3\n")
    assert read_inputs([path], (2,), feature_names=("a", "b"))[0].tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DataError, match="no column c, which the model takes; it has id, b, y, a"):
        read_inputs([path], (2,), feature_names=("a", "c"))
    three = write(tmp_path, "c,a,b\n3,1,2\n", "three.csv")
    assert read_inputs([three], (3,), feature_names=("b", "c", "a"))[0].tolist() == [[2, 3, 1]]


def test_csv_of_pixels(tmp_path):
    header = "label," + ",".join(f"pixel{i}" for i in range(6))
    path = write(tmp_path, f"{header}\n7,0,1,2,3,4,255\n")
    x, _ = read_inputs([path], GREY, 255.0)
    assert x.dtype == np.uint8 and x.tolist() == [[0, 1, 2, 3, 4, 255]]
    path = write(tmp_path, f"{header}\n7,0,0.5,1,0,0,0\n")
    assert read_inputs([path], GREY, 255.0)[0].tolist() == [[0, 127.5, 255, 0, 0, 0]]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a,b,c,d\n1,2,3,4\n", "4 columns, wanted are rows of 2 values"),
        ("a\n1\n", "1 columns, wanted"),
        ("a,b\n1,x\n", r"row 1 \(line 2\), column 2 \('b'\): 'x' is not a number"),
        ("a,b\n1,nan\n", "nan is not a finite number"),
        ("a,b\n", "no rows"),
        ("", "empty"),
    ],
)
def test_csv_faults_are_named(tmp_path, content, text):
    with pytest.raises(DataError, match=text):
        read_inputs([write(tmp_path, content)], (2,))


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


@pytest.mark.parametrize(
    "x",
    [
        np.arange(12, dtype=np.uint8).reshape(2, 6),
        np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
        np.arange(12, dtype=np.uint8).reshape(2, 1, 2, 3),
        np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1),
    ],
)
def test_npz_layouts(tmp_path, x):
    rows, names = read_inputs([npz(tmp_path, X=x)], GREY, 255.0)
    assert rows.dtype == np.uint8 and rows.tolist() == x.reshape(2, 6).tolist() and names[1].endswith("a.npz:2")


def test_npz_of_one_sample_and_of_fractions(tmp_path):
    assert read_inputs([npz(tmp_path, x=np.ones((1, 2, 3)))], GREY, 16.0)[0].tolist() == [[16.0] * 6]
    assert read_inputs([npz(tmp_path, x=np.arange(3.0))], (3,))[0].tolist() == [[0, 1, 2]]
    assert read_inputs([npz(tmp_path, x_test=np.ones((2, 3)))], (3,))[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("arrays", "text"),
    [
        ({"z": np.ones((2, 3))}, "no array x; wanted an array x of the rows to predict from, or x_test; there is: z"),
        ({"x": np.ones((2, 4))}, "rows of 4 values where rows of 3 values are wanted"),
        ({"x": np.array([[1, 2, np.nan]])}, "row 1, column 3 is nan"),
        ({"x": np.array([[1, 2, None]])}, "pickled"),
        ({"x": np.array([["a", "b", "c"]])}, "wanted numbers"),
    ],
)
def test_npz_faults_are_named(tmp_path, arrays, text):
    with pytest.raises(DataError, match=text):
        read_inputs([npz(tmp_path, **arrays)], (3,))


def test_several_files_keep_their_order(tmp_path):
    table = write(tmp_path, "a,b,c,d,e,f\n1,2,3,4,5,6\n")
    first, second = picture(tmp_path, "1.png", 1), picture(tmp_path, "2.png", 2)
    x, names = read_inputs([second, first, table, first], GREY, 255.0)
    assert x[:, 0].tolist() == [2, 1, 1, 1] and x.dtype == np.float64
    assert names == [str(second), str(first), f"{table}:1", str(first)]
    assert read_inputs([second, first], GREY, 255.0)[0].dtype == np.uint8


def test_other_files_and_none_are_refused(tmp_path):
    with pytest.raises(DataError, match="no files to predict from"):
        read_inputs([], GREY, 255.0)
    with pytest.raises(DataError, match=r"x\.doc: cannot be read; wanted a picture"):
        read_inputs([tmp_path / "x.doc"], GREY, 255.0)
    for name in ("x.png", "x.csv", "x.npz"):
        with pytest.raises(DataError, match="no such file"):
            read_inputs([tmp_path / name], GREY, 255.0)
    with pytest.raises(DataError, match="--invert needs a known full scale"):
        read_inputs([picture(tmp_path)], (6,), invert=True)
