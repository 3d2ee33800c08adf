"""CSV files: what people have is read, what is wrong is named by row and column."""

import csv
import gzip
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlpkernels import datasets
from mlpkernels.datasets import bounded, csvfile
from mlpkernels.errors import DataError

IRIS = "species,width,length\nsetosa,1.5,2\nvirginica,-3e2,.25\nsetosa,+7,0\n"


def write(folder, content, name="table.csv"):
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_plain_table(tmp_path):
    data = datasets.load(write(tmp_path, IRIS))
    assert data.name == "table" and data.classes == ("setosa", "virginica") and data.test is None
    assert data.shape == (2,) and data.feature_names == ("width", "length")
    assert not data.images and data.full_scale is None and "column 'species'" in data.source
    assert data.train.x.tolist() == [[1.5, 2], [-300, 0.25], [7, 0]] and data.train.x.dtype == np.float64
    assert data.train.y.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbf" + IRIS.encode(),
        IRIS.replace("\n", "\r\n").encode(),
        IRIS.replace("\n", "\r").encode(),
        IRIS.rstrip("\n").encode(),
        ("\n" + IRIS.replace("\nv", "\n\n  \nv") + "\n\n").encode(),
        IRIS.replace(",", ";").encode(),
        IRIS.replace(",", "\t").encode(),
        IRIS.replace(",", " , ").encode(),
        IRIS.replace("setosa", '"setosa"').replace("width", '"width"').replace("1.5", '"1.5"').encode(),
        gzip.compress(IRIS.encode()),
    ],
    ids=["bom", "crlf", "cr", "no-end", "blanks", "semicolon", "tab", "spaces", "quotes", "gzip"],
)
def test_the_same_table_as_people_have_it(tmp_path, content):
    data = datasets.load(write(tmp_path, content))
    assert data.feature_names == ("width", "length") and data.classes == ("setosa", "virginica")
    assert data.train.x.tolist() == [[1.5, 2], [-300, 0.25], [7, 0]]


def test_gzip_by_name_and_quoted_delimiters_and_lines(tmp_path):
    content = 'kind,a\n"x, y",1\n"x, y",2\n"two\nlines",3\n'
    data = datasets.load(write(tmp_path, gzip.compress(content.encode()), "t.csv.gz"))
    assert data.name == "t" and data.classes == ("two\nlines", "x, y")
    assert data.train.x.tolist() == [[1], [2], [3]]


@pytest.mark.parametrize("column", ["a", "b", "c"])
def test_the_label_column_may_be_anywhere(tmp_path, column):
    data = datasets.load(write(tmp_path, "a,b,c\n1,2,3\n4,5,6\n"), label_column=column)
    keep = [index for index, name in enumerate("abc") if name != column]
    assert data.feature_names == tuple("abc"[index] for index in keep)
    assert data.train.x.tolist() == [[[1, 2, 3][i] for i in keep], [[4, 5, 6][i] for i in keep]]
    assert data.classes == tuple({"a": (1, 4), "b": (2, 5), "c": (3, 6)}[column])


def test_integer_labels_are_sorted_as_numbers(tmp_path):
    data = datasets.load(write(tmp_path, "y,a\n10,0\n-2,0\n9.0,0\n"))
    assert data.classes == (-2, 9, 10) and data.train.y.tolist() == [2, 0, 1]


def test_labels_with_leading_zeros_stay_as_written(tmp_path):
    same = datasets.load(write(tmp_path, "kind,a\n010,1\n007,2\n010,3\n", "same.csv"))
    assert same.classes == ("007", "010") and same.train.y.tolist() == [1, 0, 1] and same.notes == ()
    mixed = datasets.load(write(tmp_path, "kind,a\n10,1\n007,2\n7,3\n", "mixed.csv"))
    assert mixed.classes == ("7", "007", "10") and mixed.train.y.tolist() == [2, 1, 0]
    (note,) = mixed.notes
    assert note.startswith("mixed.csv, column 'kind': the labels are text and not integers") and "007;" in note


def pixel_table(values, names, labels=(1, 2)):
    rows = [f"{label}," + ",".join(map(str, row)) for label, row in zip(labels, values, strict=True)]
    return "label," + ",".join(names) + "\n" + "\n".join(rows) + "\n"


@pytest.mark.parametrize("pattern", ["pixel{}", "pixel_{}_0", "{}x1", "px{}", "Pixel {}"], ids=lambda pattern: pattern)
def test_pixels_stay_bytes(tmp_path, pattern):
    names = [pattern.format(index) for index in range(4)]
    data = datasets.load(write(tmp_path, pixel_table([[0, 1, 254, 255], [7, 7, 7, 7]], names)))
    assert data.train.x.dtype == np.uint8 and data.train.x.tolist() == [[0, 1, 254, 255], [7, 7, 7, 7]]
    assert data.images and data.shape == (1, 2, 2) and data.full_scale == 255 and data.feature_names is None


@pytest.mark.parametrize(
    ("values", "dtype", "full_scale"),
    [
        ([["5.0", 1, 2, 3], [4, 5, 6, 7]], np.uint8, 255),
        ([[0.5, 1, 0, 0], [0, 0, 0, 1]], np.float64, 1),
        ([[0.5, 1, 0, 200], [0, 0, 0, 1]], np.float64, 255),
        ([[0, 1, 0, 256], [0, 0, 0, 1]], np.float64, None),
        ([[0, -1, 0, 2], [0, 0, 0, 1]], np.float64, None),
    ],
)
def test_pixels_of_other_values(tmp_path, values, dtype, full_scale):
    data = datasets.load(write(tmp_path, pixel_table(values, [f"pixel{i}" for i in range(4)])))
    assert data.train.x.dtype == dtype and data.full_scale == full_scale and data.images
    assert data.train.x.tolist() == [[float(value) for value in row] for row in values]


def test_pixels_whose_count_is_no_square_are_no_images(tmp_path):
    data = datasets.load(write(tmp_path, pixel_table([[0, 1, 2], [3, 4, 5]], ["pixel0", "pixel1", "pixel2"])))
    assert not data.images and data.shape == (3,) and data.full_scale == 255 and data.train.x.dtype == np.uint8


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", "the file is empty"),
        ("\n\n", "the file is empty"),
        ("y,a\n", "a header, but no rows"),
        ("y,a\n\n \n", "a header, but no rows"),
        ("y\n1\n2\n", "one column, 'y'"),
        ("1,2\n3,4\n", "no header: the first row is 1, 2"),
        ("y,,b\n1,2,3\n2,3,4\n", "column 2 has no name"),
        ("y,a,b\n1,2,3\n2,3\n", r"row 2 \(line 3\) has 2 fields, the header has 3"),
        ("y,a,b\n1,2,3\n\n2,3,4,5\n", r"row 2 \(line 4\) has 4 fields, the header has 3"),
        ("y,a,b\n1,2,3\n2,3,x y\n", r"row 2 \(line 3\), column 3 \('b'\): 'x y' is not a number"),
        ("y,a,b\n1,2,3\n2,,4\n", r"row 2 \(line 3\), column 2 \('a'\): no value"),
        ("y,a,b\n1,2,3\n ,3,4\n", r"row 2 \(line 3\), column 1 \('y'\): no label"),
        ("y,a,b\n1,2,3\nnan,3,4\n", r"row 2, column 1 \('y'\): no label"),
        ("y,a,b\n1,2,3\n1.5,3,4\n", r"row 2, column 1 \('y'\): 1.5 is no class.*--label-column"),
        ("a,b,my kind\n1,2,x\n", r"'x' is not a number; labels are taken from the first column, 'a'; .* 'my kind'$"),
        ("y,a,b\n1,2,nan\n2,3,4\n", r"row 1 \(line 2\), column 3 \('b'\): nan is not a finite number"),
        ("y,a,b\n1,2,3\n2,-inf,4\n", r"row 2 \(line 3\), column 2 \('a'\): -inf is not a finite"),
        ("y,a,b\n1,2,1e999\n2,3,4\n", r"column 3 \('b'\): 1e999 is not a finite"),
        ("y,a,b\n1,2,1_000\n2,3,4\n", r"'1_000' is not a number"),
        ("y,pixel0\n1,2\n2,abc\n", r"row 2 \(line 3\), column 2 \('pixel0'\): 'abc' is not"),
        ("y,a\n1,2\n1,3\n", "all 2 rows have the label 1; training needs at least 2 classes"),
        ("y,a\n" + "".join(f"{i},0\n" for i in range(30)), "30 different labels in 30 rows"),
        (b"y,a\n1,\xff\n", "not UTF-8 text"),
        (b"\xff\xfey\0,\0a\0", "not UTF-8 text"),
        (b"\0\0\0\0,\0", "not a text file"),
        ('y,a\n"1,2\n3,4\n', "has 1 fields, the header has 2|field"),
    ],
)
def test_faults_are_named(tmp_path, content, text):
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=text) as caught:
        datasets.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_text_among_numbers_is_no_hint_where_the_labels_were_named(tmp_path):
    path = write(tmp_path, "a,y,b\n1,2,x\n2,3,4\n")
    with pytest.raises(DataError, match=r"column 3 \('b'\): 'x' is not a number$"):
        datasets.load(path, label_column="y")


def test_line_numbers_count_quoted_lines(tmp_path):
    path = write(tmp_path, 'y,"two\nlines"\n"a\nb",1\nc,x\n')
    with pytest.raises(DataError, match=r"row 2 \(line 5\), column 2"):
        datasets.load(path)


def test_unknown_and_doubled_label_columns(tmp_path):
    path = write(tmp_path, "label,a,a\n1,2,3\n2,3,4\n")
    with pytest.raises(DataError, match=r"no column 'lable' \(did you mean 'label'\?\); the columns are label, a"):
        datasets.load(path, label_column="lable")
    with pytest.raises(DataError, match="2 columns are called 'a'"):
        datasets.load(path, label_column="a")


def test_bombs_and_endless_lines_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "FREE", 1 << 20)
    content = b"y,a\n" + b"1,0\n" * (1 << 20)
    with pytest.raises(DataError, match="decompression bomb"):
        datasets.load(write(tmp_path, gzip.compress(content), "t.csv.gz"))
    monkeypatch.setattr(csvfile, "_LONGEST_LINE", 1000)
    with pytest.raises(DataError, match="line 2 is longer than 1,000 characters"):
        datasets.load(write(tmp_path, "y,a\n1," + "0" * 2000))


def test_damaged_gzip_is_named(tmp_path):
    packed = gzip.compress(IRIS.encode() * 100)
    with pytest.raises(DataError, match="truncated"):
        datasets.load(write(tmp_path, packed[:-20], "t.csv"))


def test_an_mnist_sized_table_loads_in_seconds(tmp_path):
    rows = 4200
    pixels = np.random.default_rng(0).integers(0, 256, (rows, 784), dtype=np.uint8)
    names = [f"pixel{index}" for index in range(784)]
    path = write(tmp_path, pixel_table(pixels.tolist(), names, [i % 10 for i in range(rows)]))
    start = time.perf_counter()
    data = datasets.load(path)
    seconds = time.perf_counter() - start
    assert np.array_equal(data.train.x, pixels) and data.shape == (1, 28, 28)
    assert seconds < 2, f"a tenth of MNIST took {seconds:.1f} s"


@pytest.mark.parametrize("header", ["y,a,b, a", "y,pixel0,pixel1,pixel0", "a,b,c,a"])
def test_two_columns_of_one_name_are_refused(tmp_path, header):
    path = write(tmp_path, header + "\n1,2,3,4\n2,3,4,5\n")
    first = 1 if header.startswith("a") else 2
    with pytest.raises(DataError, match=f"columns {first} and 4 are both called '(a|pixel0)': rename"):
        datasets.load(path)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(-1e300, 1e300), st.integers(0, 255)), min_size=1),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
@settings(deadline=None)
def test_written_tables_are_read_back_exactly(rows, ending, quoting):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=ending, quoting=quoting)
    writer.writerows([("y", "a", "b"), *[(f"class {row[0]}", *row[1:]) for row in rows]])
    with tempfile.TemporaryDirectory() as folder:
        data = datasets.load(write(Path(folder), text.getvalue()), min_classes=1)
    assert data.train.x.tolist() == [[row[1], row[2]] for row in rows]
    assert [data.classes[index] for index in data.train.y] == [f"class {row[0]}" for row in rows]


PIECES = [
    "0",
    "1",
    "25",
    "-1",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "x",
    "",
    " ",
    ",",
    ",",
    ";",
    "\n",
    "\n",
    "\r\n",
    '"',
    "_",
]


def survives(content):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), content)
        try:
            data = datasets.load(path, min_classes=1)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert np.isfinite(data.train.x).all() and len(data.train)


@given(st.one_of(st.binary(max_size=100), st.text(max_size=100).map(lambda text: "y,a\n" + text)))
@settings(deadline=None)
def test_any_bytes(content):
    survives(content)


@given(st.lists(st.sampled_from(PIECES), max_size=40), st.sampled_from(["y,a\n", "y,pixel0\n", "y;a;b\n"]))
@settings(deadline=None, max_examples=300)
def test_the_two_readers_agree(pieces, header):
    """What the fast reader takes, the slow one, which defines what is right, takes alike."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), header + "".join(pieces))
        survives(header + "".join(pieces))
        head = csvfile.read_header(path)
        roles = [csvfile.LABEL] + [csvfile.NUMBER] * (len(head.names) - 1)
        for dtype in (np.uint8, np.float64):
            try:
                fast = csvfile._read_fast(head, roles, np.dtype(dtype))
            except (ValueError, DataError, DeprecationWarning):
                continue
            slow = csvfile._read_slow(head, roles)
            assert np.array_equal(fast.values, slow.values)
            assert fast.texts == slow.texts and np.array_equal(fast.codes, slow.codes)
