"""Samples, mistakes and weights, of images and of tables; every figure is drawn and looked at."""

import numpy as np
import pytest
from rendering import BLUE, ORANGE, draw, has_colour, texts

from mlpkernels import plots
from mlpkernels.errors import DataError

RNG = np.random.default_rng(5)


def images(rows, shape, dtype=np.uint8):
    return RNG.integers(0, 17, (rows, int(np.prod(shape)))).astype(dtype)


def probabilities(rows, classes):
    return RNG.dirichlet(np.full(classes, 0.5), size=rows)


def panel_of(figure):
    (panel,) = [axes for axes in figure.axes if axes.axison]
    return panel


def mosaic_of(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


# Samples


def test_samples_are_the_first_rows_of_each_class():
    x, y = images(60, (1, 8, 8)), np.arange(60) % 3
    x[:, 0] = 16
    figure = plots.samples_figure(x, y, (1, 8, 8), ["ant", "bee", "wasp"], per_class=4)
    draw(figure)
    mosaic = mosaic_of(figure)
    assert mosaic.shape == (3 * 72 - 8 + 2, 4 * 72 - 8 + 2, 3)
    for place, row in ((0, 0), (1, 3), (4, 1), (11, 11)):  # row by row: the class, then its rows
        top, left = 1 + place // 4 * 72, 1 + place % 4 * 72
        tile = mosaic[top : top + 64 : 8, left : left + 64 : 8]
        np.testing.assert_allclose(tile, np.repeat(x[row].reshape(8, 8, 1) / 16, 3, axis=2))
    assert {"60 rows in 3 classes", "ant", "bee", "wasp", "20"} <= set(texts(figure))


def test_full_scale_sets_white():
    x = np.full((2, 4), 5.0)
    figure = plots.samples_figure(x, [0, 1], (1, 2, 2), [0, 1], full_scale=10)
    assert mosaic_of(figure)[5, 5, 0] == 0.5
    assert mosaic_of(plots.samples_figure(x, [0, 1], (1, 2, 2), [0, 1]))[5, 5, 0] == 1


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        *(((1, 8, 8), classes) for classes in (1, 2, 12, 13, 130)),
        *((shape, 5) for shape in [(1, 28, 28), (3, 32, 32), (3, 20, 36), (1, 224, 160), (1, 1, 784), (2, 8, 8)]),
        *((shape, 30) for shape in [(3, 20, 36), (1, 1, 784), (1, 64, 1)]),
    ],
)
def test_samples_of_any_shape_and_number_of_classes(shape, classes):
    x = images(200, shape)
    names = [f"class {k} with a name far too long for the room beside or below a tile" for k in range(classes)]
    figure = plots.samples_figure(x.reshape(200, *shape), np.arange(200) % classes, shape, names)
    pixels = draw(figure)
    assert pixels.shape[1] < 2600
    assert (pixels.min(axis=2) < 250).mean() > 0.03
    assert any("100 classes" in text for text in texts(figure)) == (classes > 100)


def test_a_class_without_rows_keeps_its_line():
    figure = plots.samples_figure(images(3, (1, 4, 4)), [0, 0, 1], (1, 4, 4), ["ant", "bee", "nobody"])
    draw(figure)
    assert {"nobody", "0"} <= set(texts(figure))


def test_colours_stay_colours():
    red = np.zeros((2, 3, 4, 4))
    red[:, 0] = 1
    figure = plots.samples_figure(red, [0, 1], (3, 4, 4), ["a", "b"])
    assert has_colour(draw(figure), (255, 0, 0))


def test_samples_of_a_table():
    x = RNG.normal(size=(90, 3)) + np.arange(90)[:, None] % 3 * 5
    x[:, 1] = 7.0  # constant: no deviation to divide by
    figure = plots.samples_figure(
        x,
        np.arange(90) % 3,
        (3,),
        ["ant", "bee", "wasp"],
        feature_names=["length", "legs", "a $ _ long name"],
    )
    pixels = draw(figure)
    panel = panel_of(figure)
    values = panel.images[0].get_array()
    assert values.shape == (3, 30)
    np.testing.assert_array_equal(values[1], 0)
    assert values[0, :10].mean() < -0.8 and values[0, 20:].mean() > 0.8  # the classes differ, in this order
    assert [label.get_text() for label in panel.get_yticklabels()] == ["length", "legs", "a $ _ long name"]
    assert [label.get_text() for label in panel.get_xticklabels()] == ["ant", "bee", "wasp"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("rows of each class", "column")
    assert (pixels.min(axis=2) < 200).mean() > 0.02


@pytest.mark.parametrize(("columns", "classes"), [(1, 1), (40, 30), (41, 2), (785, 150), (1, 30)])
def test_samples_of_tables_of_any_size(columns, classes):
    x = RNG.normal(size=(300, columns)).astype(np.float32)
    names = [f"class {k} with a name far too long for its room" for k in range(classes)]
    draw(plots.samples_figure(x, np.arange(300) % classes, (columns,), names))


# Mistakes


def test_mistakes_are_the_surest_first_and_named():
    x = np.arange(5, dtype=np.uint8)[:, None].repeat(16, axis=1)
    y = np.array([0, 1, 2, 0, 1])
    proba = np.array([[0.1, 0.9, 0], [0, 0.8, 0.2], [0.25, 0.5, 0.25], [0.01, 0, 0.99], [0.5, 0.4, 0.1]])
    figure = plots.mistakes_figure(x, (1, 4, 4), y, proba.argmax(axis=1), proba, ["ant", "bee", "wasp"])
    pixels = draw(figure)
    seen = [text for text in texts(figure) if text in {"ant", "bee", "wasp"} or text.startswith("→")]
    assert seen == ["ant", "→ wasp", "ant", "→ bee", "wasp", "→ bee", "bee", "→ ant"]
    assert [text for text in texts(figure) if text.endswith(" %")] == ["99 %", "90 %", "50 %", "50 %"]
    assert "4 mistakes in 5 rows, the surest first  ·  true class → predicted class" in texts(figure)
    mosaic = mosaic_of(figure)  # two rows of two tiles of 140 pixels, showing rows 3, 0, 2, 4
    lower = 1 + 140 + 2 * 16 + 12 + 8
    tops_lefts = [(1, 1), (1, 149), (lower, 1), (lower, 149)]
    np.testing.assert_allclose([mosaic[top + 5, left + 5, 0] for top, left in tops_lefts], [0.75, 0, 0.5, 1])
    assert has_colour(pixels, ORANGE)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 36), (1, 64, 1), (30,)])
@pytest.mark.parametrize("rows", [1, 60])
def test_mistakes_of_any_shape_and_number(shape, rows):
    names = [f"class {k} with a name far too long for the room below a tile" for k in range(4)]
    proba = probabilities(rows, 4)
    guess = proba.argmax(axis=1)
    figure = plots.mistakes_figure(images(rows, shape), shape, (guess + 1) % 4, guess, proba, names)
    draw(figure)
    expected = f"25 of {rows} mistakes" if rows > 25 else f"{rows} mistake"
    assert any(text.startswith(expected) for text in texts(figure))


def test_mistakes_of_a_table_show_both_probabilities():
    proba = np.array([[0.1, 0.9], [0.7, 0.3], [0.6, 0.4]])
    figure = plots.mistakes_figure(np.zeros((3, 2)), (2,), [0, 0, 1], [1, 0, 0], proba, ["no", "yes"])
    pixels = draw(figure)
    panel = panel_of(figure)
    true, said = panel.lines
    np.testing.assert_array_equal(true.get_xdata(), [0.1, 0.4])
    np.testing.assert_array_equal(said.get_xdata(), [0.9, 0.6])
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels == ["row 1:  no → yes", "row 3:  yes → no"]
    assert panel.get_xlabel() == "probability"
    assert has_colour(pixels, BLUE) and has_colour(pixels, ORANGE)


@pytest.mark.parametrize("shape", [(1, 2, 2), (4,)])
def test_no_mistake_says_so(shape):
    figure = plots.mistakes_figure(np.zeros((7, 4)), shape, [0] * 7, [0] * 7, np.eye(2)[[0] * 7], [0, 1])
    draw(figure)
    assert "There are none: 7 rows, all right." in texts(figure)


# Weights


def test_weights_are_tiles_largest_first_on_one_scale():
    weights = np.zeros((16, 3))
    weights[:, 0], weights[:, 1], weights[:8, 2] = 0.1, -1.0, 0.5
    figure = plots.weights_figure(weights, (1, 4, 4))
    pixels = draw(figure)
    mosaic = mosaic_of(figure)
    first, second, third = mosaic[5, 5], mosaic[5, 109], mosaic[109, 5]
    assert first[0] > 2 * first[2]  # -1: orange
    assert second[2] > 2 * second[0]  # 0.5: blue
    assert 0.8 < third.min() < 1  # 0.1: nearly white
    np.testing.assert_allclose(mosaic[90, 109], 1, atol=0.01)  # 0: white
    assert {"first layer, 3 units, strongest first", "≤ -1", "0", "≥ 1"} <= set(texts(figure))
    assert (pixels.min(axis=2) < 200).mean() > 0.05


@pytest.mark.parametrize("units", [1, 300])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12), (4, 5, 5), (1, 1, 50), (1,), (785,)])
def test_weights_of_any_shape_and_number(shape, units):
    weights = RNG.normal(size=(int(np.prod(shape)), units)).astype(np.float32)
    figure = plots.weights_figure(weights, shape)
    draw(figure)
    start = "first layer, 64 of 300 units" if units == 300 else f"first layer, {units} unit"
    assert any(text.startswith(start) for text in texts(figure))


def test_weights_of_three_channels_are_grey_where_zero():
    figure = plots.weights_figure(np.zeros((27, 2)), (3, 3, 3))
    draw(figure)
    np.testing.assert_allclose(mosaic_of(figure)[5, 5], 0.5)
    assert any("grey is 0" in text for text in texts(figure))


def test_outputs_keep_their_order_and_have_names():
    weights = np.array([[0.1, 1.0, 0.2]] * 4)
    names = ["ant", "bee", "an impossibly long name"]
    figure = plots.weights_figure(weights, (1, 2, 2), labels=names)
    draw(figure)
    seen = texts(figure)
    assert seen.index("ant") < seen.index("bee") and "first layer, 3 outputs" in seen
    table = plots.weights_figure(weights, (4,), labels=names)
    draw(table)
    np.testing.assert_array_equal(panel_of(table).images[0].get_array(), weights)
    assert [label.get_text() for label in panel_of(table).get_xticklabels()][:2] == ["ant", "bee"]


def test_weights_of_a_table_are_a_heat_map():
    weights = np.array([[0.5, -2.0], [0.25, 1.0], [0.0, 0.5]])
    figure = plots.weights_figure(weights, (3,), feature_names=["length", "width", "mass"])
    draw(figure)
    panel = panel_of(figure)
    np.testing.assert_array_equal(panel.images[0].get_array(), weights[:, ::-1])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["length", "width", "mass"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("unit", "column")


def test_columns_without_names_are_counted_from_1():
    figure = plots.weights_figure(RNG.normal(size=(785, 5)), (785,))
    draw(figure)
    panel = panel_of(figure)
    labels = [label.get_text() for label in panel.get_yticklabels()]
    assert labels[:3] == ["1", "100", "200"]
    assert list(panel.get_yticks())[:2] == [0, 99]


# Filters


def test_filters_are_tiles_largest_first_on_one_scale():
    weights = np.zeros((3, 1, 2, 2))
    weights[0], weights[1], weights[2, 0, 0, 0] = 0.1, -1.0, 1.0
    figure = plots.filters_figure(weights)
    draw(figure)
    mosaic = mosaic_of(figure)
    assert mosaic.shape == (2 * 104 - 8 + 2, 2 * 104 - 8 + 2, 3)
    first, second, third = mosaic[5, 5], mosaic[5, 109], mosaic[109, 5]
    assert first[0] > 2 * first[2] and second[2] > 2 * second[0] and 0.8 < third.min() < 1
    np.testing.assert_allclose(mosaic[90, 109], 1, atol=0.01)  # 0: white
    assert {"first layer, 3 filters of 2 x 2, strongest first", "≤ -1", "0", "≥ 1"} <= set(texts(figure))


@pytest.mark.parametrize("filters", [1, 10, 300])
@pytest.mark.parametrize("kernel", [(1, 5, 5), (3, 3, 3), (2, 1, 7), (10, 5, 5), (64, 3, 3), (1, 1, 1), (3, 28, 28)])
def test_filters_of_any_shape_and_number(kernel, filters):
    figure = plots.filters_figure(RNG.normal(size=(filters, *kernel)).astype(np.float32))
    draw(figure)
    most = 64 if kernel[0] in (1, 3) else 16
    start = f"first layer, {most} of 300 filters" if filters == 300 else f"first layer, {filters} filter"
    (subtitle,) = [text for text in texts(figure) if text.startswith(start)]
    assert ("grey is 0" in subtitle) == (kernel[0] == 3)
    assert ("a row is a filter, a column a channel" in subtitle) == (kernel[0] not in (1, 3))
    assert ("the first 16 of 64" in subtitle) == (kernel[0] == 64)


def test_channels_of_a_filter_stand_side_by_side():
    weights = np.zeros((2, 4, 3, 3))
    weights[1, 2], weights[0, 0] = 1.0, -0.5
    figure = plots.filters_figure(weights)
    draw(figure)
    mosaic = mosaic_of(figure)  # 2 rows of 4 tiles of 48 pixels, the second filter first
    middles = mosaic[25::56, 25::56]
    assert middles.shape == (2, 4, 3)
    assert middles[0, 2, 2] > 2 * middles[0, 2, 0] and middles[1, 0, 0] > 2 * middles[1, 0, 2]
    np.testing.assert_allclose(np.delete(middles.reshape(8, 3), [2, 4], axis=0), 1, atol=0.01)


# Wrong input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: plots.samples_figure(np.zeros((2, 5)), [0, 1], (1, 2, 2), "ab"), DataError, "x: .*2, 5"),
        (lambda: plots.samples_figure(np.zeros((0, 4)), [], (1, 2, 2), "ab"), ValueError, "x: no rows"),
        (
            lambda: plots.samples_figure(np.zeros((2, 4)), [0], (1, 2, 2), "ab"),
            ValueError,
            "y: 1 labels for 2",
        ),
        (lambda: plots.samples_figure(np.zeros((2, 4)), [0, 2], (4,), "ab"), ValueError, "y: 2 in row 2"),
        (
            lambda: plots.samples_figure(np.zeros((2, 4)), [0, 1], (2, 2), "ab"),
            ValueError,
            r"shape: \(2, 2\)",
        ),
        (lambda: plots.samples_figure([["a"]], [0], (1,), "ab"), TypeError, "x: "),
        (
            lambda: plots.samples_figure(np.zeros((2, 4)), [0, 1], (4,), "ab", feature_names=["one"]),
            ValueError,
            "feature_names: 1 names for 4 columns",
        ),
        (
            lambda: plots.samples_figure(np.zeros((2, 4)), [0, 1], (1, 2, 2), "ab", per_class=0),
            ValueError,
            "per_class: 0",
        ),
        (
            lambda: plots.mistakes_figure(np.zeros((2, 4)), (4,), [0, 1], [0, 1], np.zeros((2, 3)), "ab"),
            ValueError,
            r"proba: shape \(2, 3\), wanted \(2, 2\)",
        ),
        (
            lambda: plots.mistakes_figure(np.zeros((1, 4)), (4,), [0], [1], [[0.0, np.nan]], "ab"),
            ValueError,
            "proba: NaN",
        ),
        (
            lambda: plots.mistakes_figure(np.zeros((1, 4)), (4,), [0], [1], [[0.0, 1.0]], "ab", 0),
            ValueError,
            "count: 0",
        ),
        (lambda: plots.weights_figure(np.zeros((5, 2)), (1, 2, 2)), ValueError, r"wanted \(4, units\)"),
        (lambda: plots.weights_figure(np.zeros((4, 0)), (4,)), ValueError, r"shape \(4, 0\)"),
        (lambda: plots.weights_figure([[np.inf]], (1,)), ValueError, "weights: NaN or infinite"),
        (lambda: plots.weights_figure([[1.0]], (1,), count=0), ValueError, "count: 0"),
        (lambda: plots.filters_figure(np.zeros((4, 9))), ValueError, r"shape \(4, 9\), wanted \(filters"),
        (lambda: plots.filters_figure(np.zeros((4, 0, 3, 3))), ValueError, r"shape \(4, 0, 3, 3\)"),
        (lambda: plots.filters_figure(np.full((1, 1, 1, 1), np.nan)), ValueError, "weights: NaN or infinite"),
        (lambda: plots.filters_figure(np.zeros((1, 1, 1, 1)), count=0), ValueError, "count: 0"),
        (lambda: plots.weights_figure([[1.0]], (1,), labels="ab"), ValueError, "labels: 2 names for 1 units"),
    ],
)
def test_wrong_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_inputs_are_not_modified():
    x, y, proba = images(20, (1, 4, 4)), np.arange(20) % 2, probabilities(20, 2)
    weights, filters = RNG.normal(size=(16, 3)), RNG.normal(size=(4, 2, 3, 3))
    for array in (x, y, proba, weights, filters):
        array.flags.writeable = False
    plots.samples_figure(x, y, (1, 4, 4), "ab")
    plots.mistakes_figure(x, (1, 4, 4), y, proba.argmax(axis=1), proba, "ab")
    plots.weights_figure(weights, (1, 4, 4))
    plots.filters_figure(filters)
