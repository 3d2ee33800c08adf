"""Folders of pictures by class: sizes, colours, order, and what is wrong with a file."""

import io
import tempfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mlpkernels import datasets
from mlpkernels.datasets import images
from mlpkernels.errors import DataError


def picture(folder, name, value=0, mode="L", size=(4, 3)):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)
    return path


def test_classes_and_natural_order(tmp_path):
    for number in (10, 2, 1):
        picture(tmp_path, f"cat/{number}.png", number)
    picture(tmp_path, "ant/a.bmp", 200)
    picture(tmp_path, "ant/B.PNG", 100)
    (tmp_path / "ant" / ".hidden.png").write_bytes(b"x")
    (tmp_path / "ant" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / ".git").mkdir()
    (tmp_path / "notes.txt").write_bytes(b"x")
    data = datasets.load(tmp_path)
    assert data.classes == ("ant", "cat") and data.shape == (1, 3, 4) and data.images and data.full_scale == 255
    assert data.train.y.tolist() == [0, 0, 1, 1, 1] and data.test is None
    assert data.train.x.dtype == np.uint8 and data.train.x[:, 0].tolist() == [100, 200, 1, 2, 10]


def test_numbers_as_classes(tmp_path):
    for label in ("10", "9", "1"):
        picture(tmp_path, f"{label}/a.png", int(label))
    data = datasets.load(tmp_path)
    assert data.classes == (1, 9, 10) and data.train.x[:, 0].tolist() == [1, 9, 10]


def test_classes_with_leading_zeros_keep_their_names(tmp_path):
    for name in ("10", "007", "9"):
        picture(tmp_path, f"{name}/a.png")
    data = datasets.load(tmp_path)
    assert data.classes == ("007", "9", "10") and "leading zeros" in data.notes[0]
    (tmp_path / "9").rename(tmp_path / "009")
    (tmp_path / "10").rename(tmp_path / "010")
    assert datasets.load(tmp_path).classes == ("007", "009", "010") and not datasets.load(tmp_path).notes


def test_train_and_test_folders(tmp_path):
    for label in ("a", "b"):
        picture(tmp_path, f"train/{label}/1.png", 1)
    picture(tmp_path, "test/b/1.png", 2)
    data = datasets.load(tmp_path)
    assert (len(data.train), len(data.test)) == (2, 1)
    assert data.test.y.tolist() == [1] and data.test.x[0, 0] == 2
    picture(tmp_path, "test/c/1.png", 2)
    with pytest.raises(DataError, match="label c outside the classes a, b"):
        datasets.load(tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    picture(tmp_path, "train/1.png")
    picture(tmp_path, "car/1.png")
    assert datasets.load(tmp_path).classes == ("car", "train")


def test_one_coloured_picture_makes_all_of_them_rgb(tmp_path):
    picture(tmp_path, "a/1.png", 7)
    picture(tmp_path, "b/1.png", (1, 2, 3), "RGB")
    data = datasets.load(tmp_path)
    assert data.shape == (3, 3, 4)
    assert data.train.x[0].tolist() == [7] * 36
    assert data.train.x[1].tolist() == [1] * 12 + [2] * 12 + [3] * 12


@pytest.mark.parametrize(
    ("mode", "value", "pixel"),
    [
        ("1", 1, 255),
        ("L", 77, 77),
        ("LA", (77, 255), 77),
        ("LA", (77, 0), 255),
        ("I;16", 65535, 255),
        ("I;16", 256 * 9 + 3, 9),
        ("P", 0, 0),
    ],
)
def test_grey_modes(tmp_path, mode, value, pixel):
    path = picture(tmp_path, "x.png", value, mode)
    x, shape = images.read_images([path])
    assert shape == (1, 3, 4) and x.tolist() == [[pixel] * 12]


@pytest.mark.parametrize(
    ("mode", "value", "pixel"),
    [
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 255), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 0), [255, 255, 255]),
    ],
)
def test_colour_modes(tmp_path, mode, value, pixel):
    path = picture(tmp_path, "x.png", value, mode)
    x, shape = images.read_images([path])
    assert shape == (3, 3, 4) and x.reshape(3, 12)[:, 5].tolist() == pixel


def test_palettes_count_as_grey_only_where_they_are(tmp_path):
    grey, colour = Image.new("P", (4, 3), 1), Image.new("P", (4, 3), 1)
    grey.putpalette([0, 0, 0, 50, 50, 50])
    colour.putpalette([0, 0, 0, 50, 60, 70])
    grey.save(tmp_path / "grey.png")
    colour.save(tmp_path / "colour.png", transparency=0)
    assert images.read_images([tmp_path / "grey.png"])[0].tolist() == [[50] * 12]
    x, shape = images.read_images([tmp_path / "colour.png"])
    assert shape == (3, 3, 4) and x[0, ::12].tolist() == [50, 60, 70]


def test_other_sizes_are_named(tmp_path):
    picture(tmp_path, "a/1.png")
    picture(tmp_path, "b/1.png", size=(5, 3))
    with pytest.raises(DataError, match=r"b/1\.png is 5 x 3 pixels, .*a/1\.png is 4 x 3"):
        datasets.load(tmp_path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".webp"])
def test_truncated_files_are_named(tmp_path, suffix):
    picture(tmp_path, "a/1.png", size=(64, 64))
    path = tmp_path / "b" / f"1{suffix}"
    path.parent.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=f"b/1\\{suffix}: "):
        datasets.load(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"), [(b"", "the file is empty"), (b"hello, world", "not a picture that Pillow knows")]
)
def test_files_that_are_no_pictures_are_named(tmp_path, content, text):
    picture(tmp_path, "a/1.png")
    (tmp_path / "a" / "2.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"2\.png: .*{text}"):
        datasets.load(tmp_path)


def test_enormous_pictures_are_refused(tmp_path, monkeypatch):
    picture(tmp_path, "a/1.png", size=(40, 40))
    for limit in (1000, 100):  # Pillow warns above the limit and refuses above its double
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(DataError, match="decompression bomb"):
            datasets.load(tmp_path)


def test_folders_without_pictures_are_named(tmp_path):
    with pytest.raises(DataError, match=r"neither IDX files .* nor pictures by class"):
        datasets.load(tmp_path)
    picture(tmp_path, "a/1.png")
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="b: no pictures in it"):
        datasets.load(tmp_path)
    (tmp_path / "b").rmdir()
    with pytest.raises(DataError, match="training needs at least 2 classes"):
        datasets.load(tmp_path)


def test_floating_point_pixels_are_refused(tmp_path):
    path = picture(tmp_path, "x.tif", 0.5, "F")
    with pytest.raises(DataError, match="floating-point pixels"):
        images.read_images([path])


def test_natural_order():
    names = ["a10", "a2", "a", "10", "2", "b1"]
    assert sorted(names, key=images.natural_key) == ["a", "a2", "a10", "b1", "2", "10"]


def encoded(kind, mode):
    """A picture of 4 x 3 pixels of noise as a file's bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, kind)
    return buffer.getvalue()


GOOD = [
    encoded(*how) for how in (("PNG", "RGB"), ("PNG", "P"), ("PNG", "LA"), ("BMP", "L"), ("GIF", "P"), ("TIFF", "L"))
]


def survives(content):
    """Beside a right picture: either both are read, or a DataError names the file."""
    with tempfile.TemporaryDirectory() as folder:
        picture(Path(folder), "a/1.png")
        path = Path(folder) / "b" / "2.png"
        path.parent.mkdir()
        path.write_bytes(content)
        try:
            data = datasets.load(folder)
        except DataError as error:
            assert str(path) in str(error)
        else:
            assert data.shape[1:] == (3, 4) and len(data.train) == 2


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"P5 4 3 "]))
@settings(deadline=None, max_examples=60)
def test_any_bytes(content, start):
    survives(start + content)


@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    st.integers(-60, 8),
)
@settings(deadline=None, max_examples=60)
def test_any_mutation_of_a_right_picture(content, changes, length):
    content = bytearray(content)
    for place, value in changes:
        content[place % len(content)] = value
    survives(bytes(content[:length] if length < 0 else content + bytes(length)))


@given(st.binary(min_size=13, max_size=13), st.booleans())
@settings(deadline=None, max_examples=60)
def test_any_png_header_with_a_right_checksum(fields, right_size):
    """A damaged header is found by its checksum; one that was written so has to be survived as well."""
    good = encoded("PNG", "RGB")
    head = b"IHDR" + (good[16:24] + fields[8:] if right_size else fields)
    survives(good[:12] + head + zlib.crc32(head).to_bytes(4, "big") + good[33:])
