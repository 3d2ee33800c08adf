"""Rows by class, means and histograms of data sets; every figure is drawn and looked at."""

import numpy as np
import pytest
from rendering import BLUE, ORANGE, draw, has_colour, texts

from mlpkernels import data_figures, plots, table_figures
from mlpkernels.errors import DataError

RNG = np.random.default_rng(11)
GREEN = (0, 158, 115)


def images(rows, shape, high=256):
    return RNG.integers(0, high, (rows, int(np.prod(shape))), dtype=np.uint8)


def panel_of(figure):
    (panel,) = [axes for axes in figure.axes if axes.axison]
    return panel


def mosaic_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


# Counts


def test_counts_have_a_bar_a_class_and_part():
    figure = plots.counts_figure({"training": [0, 0, 0, 1], "test": [2]}, ["ant", "bee", "wasp"])
    pixels = draw(figure)
    widths = [bar.get_width() for bar in panel_of(figure).patches]
    assert widths == [3, 1, 0, 0, 0, 1]
    assert has_colour(pixels, BLUE) and has_colour(pixels, ORANGE)
    seen = texts(figure)
    assert {"ant", "bee", "wasp", "● training", "● test", "75.0 %", "100.0 %"} <= set(seen)
    assert "4 training and 1 test rows in 3 classes  ·  0 to 3 training rows a class" in seen


def test_counts_of_one_part_need_no_key():
    figure = plots.counts_figure({"training": [0, 1]}, [0, 1])
    draw(figure)
    assert "2 training rows in 2 classes  ·  1 training rows a class" in texts(figure)
    assert not any(text.startswith("●") for text in texts(figure))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("classes", [1, 2, 40, 41, 200, 3000])
def test_counts_of_any_number_of_classes(classes, parts):
    labels = np.concatenate([np.arange(classes), RNG.integers(0, classes, 5000)])
    given = dict(list({"training": labels, "test": labels[::7]}.items())[:parts])
    names = [f"class {k} with a name far too long for the room beside its bar" for k in range(classes)]
    figure = plots.counts_figure(given, names)
    pixels = draw(figure)
    assert pixels.shape[0] < 2300 and pixels.shape[1] < 1000
    assert ("rows" in texts(figure)) == (classes > 40)
    assert (pixels.min(axis=2) < 200).mean() > 0.03


def test_large_counts_and_empty_parts_draw():
    draw(plots.counts_figure({"training": np.repeat([0, 1], [1_234_567, 1])}, ["many", "one"]))
    draw(plots.counts_figure({"training": np.zeros(3, int), "test": np.zeros(1, int)}, ["all", "none"]))


@pytest.mark.parametrize(
    ("parts", "error", "message"),
    [
        ({}, ValueError, "parts: 0 of them"),
        ({"a": [0], "b": [0], "c": [0]}, ValueError, "parts: 3 of them"),
        ({"training": [0, 2]}, ValueError, "training: 2 in row 2"),
        ({"training": [0.5]}, TypeError, "training"),
    ],
)
def test_wrong_parts_are_named(parts, error, message):
    with pytest.raises(error, match=message):
        plots.counts_figure(parts, ["a", "b"])


# Means


def test_means_are_those_of_each_class():
    x, y = images(40, (1, 4, 4)), np.arange(40) % 3
    figure = plots.means_figure(x, y, (1, 4, 4), ["ant", "bee", "wasp"], full_scale=255)
    draw(figure)
    for k in range(3):
        left = 1 + k * (128 + 8)
        tile = mosaic_of(figure)[1:129:32, left : left + 128 : 32, 0]
        np.testing.assert_allclose(tile, x[y == k].mean(axis=0).reshape(4, 4) / 255)
    assert {"ant", "bee", "wasp", "14", "13", "the mean of each class's rows, 40 in 3 classes"} <= set(texts(figure))


@pytest.mark.parametrize("classes", [1, 12, 13, 130])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 36), (1, 1, 50), (5,), (60,)])
def test_means_of_any_shape_and_number_of_classes(shape, classes):
    names = [f"class {k} with a name far too long for its room" for k in range(classes)]
    figure = plots.means_figure(images(200, shape), np.arange(200) % classes, shape, names)
    draw(figure)
    assert any("100 of them" in text for text in texts(figure)) == (classes == 130 and len(shape) == 3)


def test_a_class_without_rows_has_no_mean():
    figure = plots.means_figure(images(4, (1, 2, 2)), [0, 0, 2, 2], (1, 2, 2), ["ant", "nobody", "wasp"])
    draw(figure)
    assert "nobody" not in texts(figure) and "wasp" in texts(figure)


def test_means_of_a_table_are_in_its_columns_deviations():
    x = np.array([[1.0, 7, 0], [3.0, 7, 0], [5.0, 7, 1], [7.0, 7, 1]])
    figure = plots.means_figure(x, [0, 0, 1, 1], (3,), ["low", "high"], feature_names=["a", "b", "c"])
    draw(figure)
    panel = panel_of(figure)
    np.testing.assert_allclose(panel.images[0].get_array(), [[-2 / 5**0.5, 2 / 5**0.5], [0, 0], [-1, 1]])
    assert [label.get_text() for label in panel.get_xticklabels()] == ["low", "high"]
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]


# Histograms of pixels


def test_each_byte_has_its_bin():
    x = images(50, (1, 6, 6), high=17)
    figure = plots.histogram_figure(x, (1, 6, 6), full_scale=16)
    pixels = draw(figure)
    (steps,) = panel_of(figure).patches
    counts, edges, _ = steps.get_data()
    np.testing.assert_allclose(counts, np.bincount(x.ravel(), minlength=17) / x.size)
    np.testing.assert_allclose(edges, np.arange(18) - 0.5)
    assert has_colour(pixels, BLUE)
    (subtitle,) = [text for text in texts(figure) if text.startswith("50 images of 6 x 6")]
    assert f"mean {x.mean():.4g}, deviation {x.std():.4g}" in subtitle
    assert f"{x.mean() / 16:.4f} and {x.std() / 16:.4f}" in subtitle
    assert f"{100 * (x == 0).mean():.1f} % are 0" in subtitle


def test_rare_values_make_the_axis_logarithmic():
    x = np.zeros((40, 100), np.uint8)
    x[0, :2] = 1, 255
    figure = plots.histogram_figure(x, (1, 10, 10))
    draw(figure)
    assert panel_of(figure).get_yscale() == "log" and {"100 %", "0.1 %"} <= set(texts(figure))


def test_three_channels_have_a_line_each():
    x = np.zeros((10, 3, 4, 4), np.uint8)
    x[:, 0], x[:, 2] = 255, 128
    figure = plots.histogram_figure(x, (3, 4, 4), full_scale=255)
    pixels = draw(figure)
    red, green, blue = (patch.get_data().values for patch in panel_of(figure).patches)
    assert (red.argmax(), green.argmax(), blue.argmax()) == (63, 0, 32) and len(red) == 64
    assert all(has_colour(pixels, colour) for colour in (ORANGE, BLUE, GREEN))
    assert {"● red", "● green", "● blue"} <= set(texts(figure))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-1, 1), (5, 5), (0, 0), (-1e300, 1e300), (1e-300, 2e-300)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pixels_of_any_range(low, high, dtype):
    largest = float(np.finfo(dtype).max) / 10
    x = np.linspace(max(low, -largest), min(high, largest), 320).reshape(5, 64).astype(dtype)
    figure = plots.histogram_figure(x, (1, 8, 8))
    draw(figure)
    np.testing.assert_allclose(panel_of(figure).patches[0].get_data().values.sum(), 1)


def test_figures_of_pixels_are_exact_over_many_chunks(monkeypatch):
    monkeypatch.setattr(data_figures, "chunk_rows", lambda width: 7)
    x = RNG.normal(1e4, 1e-2, (50, 12))
    found = data_figures._pixels(x, 3, None)
    np.testing.assert_allclose([found.mean, found.deviation], [x.mean(), x.std()], rtol=1e-9)
    assert found.counts.shape == (3, 64) and found.counts.sum() == x.size and found.zeros == 0


# Histograms of columns


def test_columns_of_a_table():
    x = np.array([[1.0, 0, 7], [2.5, 1, 7], [4.0, 1, 7]])
    figure = plots.histogram_figure(x, (3,), feature_names=["length", "legs", "always"])
    pixels = draw(figure)
    assert {"length", "legs", "1", "4", "0", "always 7", "3 columns of 3 rows"} <= set(texts(figure))
    assert has_colour(pixels, BLUE)


def test_bins_of_a_column():
    np.testing.assert_array_equal(table_figures._histogram(np.array([3.0, 3, 5, 4, 3])), [3, 1, 1])
    np.testing.assert_array_equal(table_figures._histogram(np.full(4, 1e300)), [4])
    spread = table_figures._histogram(np.linspace(-1, 1, 2400) * 1.7e308)
    assert len(spread) == 24 and spread.sum() == 2400 and abs(spread - 100).max() <= 1
    assert len(table_figures._histogram(np.array([0.0, 24]))) == 24
    values = RNG.normal(size=500)
    np.testing.assert_array_equal(table_figures._histogram(values), np.histogram(values, 24)[0])


@pytest.mark.parametrize("columns", [1, 9, 10, 48, 49, 785])
def test_columns_of_tables_of_any_width(columns):
    names = [f"column {k} with a name far too long for its room" for k in range(columns)]
    figure = plots.histogram_figure(RNG.normal(size=(30, columns)), (columns,), feature_names=names)
    draw(figure)
    assert any("the first 48 shown" in text for text in texts(figure)) == (columns > 48)


# Wrong input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.means_figure(np.zeros((2, 4)), [0], (1, 2, 2), "ab"), ValueError, "y: 1 labels for 2"),
        (lambda: plots.means_figure(np.zeros((2, 5)), [0, 1], (1, 2, 2), "ab"), DataError, "x: .*2, 5"),
        (lambda: plots.histogram_figure(np.zeros((0, 4)), (4,)), ValueError, "x: no rows"),
        (lambda: plots.histogram_figure(np.zeros((2, 4)), (2, 2)), ValueError, r"shape: \(2, 2\)"),
        (lambda: plots.histogram_figure(np.zeros((2, 4)), (4,), count=0), ValueError, "count: 0"),
        (
            lambda: plots.histogram_figure(np.zeros((2, 4)), (4,), feature_names=["one"]),
            ValueError,
            "feature_names: 1 names for 4 columns",
        ),
    ],
)
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_inputs_are_not_modified():
    x, y = images(20, (3, 4, 4)), np.arange(20) % 2
    for array in (x, y):
        array.flags.writeable = False
    for shape in ((3, 4, 4), (48,)):
        plots.means_figure(x, y, shape, "ab")
        plots.histogram_figure(x, shape)
    plots.counts_figure({"training": y}, "ab")
