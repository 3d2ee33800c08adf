"""The page, its texts and tiles."""

import numpy as np
import pytest

from mlpkernels import drawing


def test_a_page_is_as_large_as_asked_to_the_pixel():
    for size in (100, 333, 1279):
        page = drawing.Page(size, size, "", "")
        page.figure.canvas.draw()
        assert page.figure.canvas.buffer_rgba().shape[:2] == (page.height, page.width)
        assert page.width == size + 2 * drawing.MARGIN


def test_a_page_grows_with_its_subtitle():
    page = drawing.Page(1, 1, "title", "a subtitle that is much longer than the content is wide")
    assert page.width > 300


def test_a_picture_is_drawn_pixel_for_pixel():
    page = drawing.Page(200, 100, "", "")
    image = np.random.default_rng(0).random((61, 87, 3))
    page.picture(40, 90, image)
    page.figure.canvas.draw()
    pixels = np.asarray(page.figure.canvas.buffer_rgba())[90:151, 40:127, :3]
    np.testing.assert_allclose(pixels, 255 * image, atol=1)


def test_fit_keeps_to_its_room():
    page = drawing.Page(1, 1, "", "")
    assert page.fit("short", 100, 8) == "short"
    cut = page.fit("a name that goes on and on", 100, 8)
    assert cut.startswith("a name") and cut.endswith("…") and page.measure(cut, 8) <= 100
    assert page.fit("narrow", 1, 8) == "n…"
    names = ["the mean radius of the nucleus", "short", "the mean radius of the cell", "another name of some length"]
    labels = page.fit_each([*names, names[0]], 100, 8)
    assert labels[0] == labels[4] and labels[0].startswith("the ") and labels[0].endswith("leus")
    assert labels[1] == "short" and labels[2].endswith("cell") and labels[3].startswith("another")
    assert all(page.measure(label, 8) <= 100 for label in labels) and labels[3].endswith("…")


def test_measured_width_is_the_drawn_width():
    page = drawing.Page(900, 20, "", "")
    for size, bold, line in ((8.0, False, "Some words, 12.5 %"), (13.0, True, "A Title of Words")):
        page.text(5, 50, line, size, bold=bold)
        drawn = page.sheet.texts[-1].get_window_extent().width
        assert drawn <= page.measure(line, size, bold) + 1 <= 1.08 * drawn + 2


def test_names_are_made_drawable():
    names = drawing.names_of([3, "$x$", "two\nlines\there", "bell\x07", "", "\U0010fffe", "é→"])
    assert names == ["3", "$x$", "two lines here", "bell\\x07", "(blank)", "\\U0010fffe", "é→"]


def test_letters_that_the_usual_font_lacks_come_from_another():
    letter = "\N{SCRIPT SMALL G}"  # in STIXGeneral, which comes with Matplotlib, and not in DejaVu Sans
    assert drawing.names_of([letter]) == [letter]
    assert len(drawing.families_for(letter)) == 2
    assert drawing.families_for("plain") == ("DejaVu Sans",)


def test_names_are_counted():
    with pytest.raises(ValueError, match="classes: 2 names for 3 rows of the matrix"):
        drawing.check_names("classes", ["a", "b"], 3, "rows of the matrix")


def test_one_channel_is_grey_three_are_colours_others_stand_side_by_side():
    images = np.arange(2 * 4 * 5 * 6.0).reshape(2, 4, 5, 6)
    grey = drawing.to_rgb(images[:, :1], 0, 200)
    assert grey.shape == (2, 5, 6, 3)
    np.testing.assert_allclose(grey[..., 1], np.minimum(images[:, 0] / 200, 1))
    colour = drawing.to_rgb(images[:, :3], 0, 240)
    np.testing.assert_allclose(colour[..., 2], images[:, 2] / 240)
    beside = drawing.to_rgb(images, 0, 240)
    assert beside.shape == (2, 5, 24, 3)
    np.testing.assert_allclose(beside[:, :, 6:12, 0], images[:, 1] / 240)


def test_an_image_of_one_value_is_finite():
    assert np.isfinite(drawing.to_rgb(np.zeros((1, 1, 2, 2)), 0, 0)).all()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (8, 8, (64, 64)),
        (28, 28, (56, 56)),
        (20, 36, (40, 72)),
        (64, 64, (64, 64)),
        (224, 160, (64, 46)),
        (1, 784, (8, 64)),
        (784, 1, (64, 8)),
        (1, 1, (64, 64)),
    ],
)
def test_resize(height, width, expected):
    image = np.random.default_rng(0).random((2, height, width, 3))
    resized = drawing.resize(image, 64)
    assert resized.shape == (2, *expected, 3)
    assert resized.min() >= image.min() and resized.max() <= image.max()


def test_resize_averages_blocks_when_it_shrinks_and_repeats_when_it_enlarges():
    image = np.random.default_rng(0).random((1, 128, 128, 3))
    blocks = image.reshape(1, 64, 2, 64, 2, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(drawing.resize(image, 64), blocks)
    np.testing.assert_array_equal(drawing.resize(image, 256), image.repeat(2, axis=1).repeat(2, axis=2))


def test_round_ticks():
    assert drawing.round_ticks(1, 1, 6) == [1]
    assert drawing.round_ticks(1, 4, 6) == [1, 2, 3, 4]
    assert drawing.round_ticks(1, 15, 6) == [1, 5, 10, 15]
    assert drawing.round_ticks(1, 120, 6) == [1, 20, 40, 60, 80, 100, 120]
    assert drawing.round_ticks(31, 40, 6) == [31, 34, 36, 38, 40]


def test_percent_calls_only_everything_100():
    assert drawing.percent(1.0) == "100.0 %"
    assert drawing.percent(0.99996) == "99.99 %"
    assert drawing.percent(0.9996) == "99.96 %"
    assert drawing.percent(0.125) == "12.5 %"


def test_signed_colours_are_white_at_zero():
    np.testing.assert_allclose(drawing.colours("signed")(0.5)[:3], 1, atol=0.01)


def test_names_are_as_wide_as_the_longest():
    lone = drawing.Page(1, 1, "", "").measure("a longer name", 8)
    assert drawing.widest(["short", "a longer name"], 8) == lone
    assert drawing.widest(["a longer name" * 100], 8) == drawing.NAME_ROOM


def test_positions_are_moved_apart_in_their_order():
    assert drawing.apart([1.0, 50.0], 10) == [1.0, 50.0]
    assert drawing.apart([10.0, 10.0], 4) == [8.0, 12.0]
    assert drawing.apart([12.0, 0.0, 10.0], 4) == [13.0, 0.0, 9.0]


@pytest.mark.parametrize(
    ("kind", "low", "high", "scale", "bottom", "label"),
    [
        ("value", 1.0, 40.0, "linear", 0.0, "10"),
        ("value", 1.0, 60.0, "log", None, "10"),
        ("value", -1.0, 60.0, "linear", -1.0, "20"),
        ("accuracy", 0.01, 0.9, "linear", None, "40 %"),
        ("share", 0.2, 0.5, "linear", 0.0, "20 %"),
        ("share", 0.001, 0.5, "log", None, "10 %"),
    ],
)
def test_value_axis(kind, low, high, scale, bottom, label):
    page = drawing.Page(300, 300, "", "")
    panel = page.panel(60, 90, 200, 200)
    drawing.value_axis(page, panel, low, high, kind)
    assert panel.get_yscale() == scale and label in [text.get_text() for text in panel.get_yticklabels()]
    limits = panel.get_ylim()
    assert limits[0] <= low and limits[1] >= high and (bottom is None or limits[0] == bottom)
