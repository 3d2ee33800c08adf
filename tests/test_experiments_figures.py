"""The figures of experiments, each drawn and looked at: texts inside the page, none over another, the lines' values."""

import numpy as np
import pytest
from rendering import BLUE, ORANGE, draw, has_colour, texts
from small_images import images

from mlpkernels.experiments import figures, pictures, study

BATCHES = list(study.CLAIMS)
CLAIMED = {batch: claim.accuracy for batch, claim in study.CLAIMS.items()}
OTHER = {batch: (claim.other_mean, claim.other_deviation) for batch, claim in study.CLAIMS.items()}
TIMES = {batch: claim.seconds for batch, claim in study.CLAIMS.items()}


def accuracy(seeds, epochs, collapsed=False):
    random = np.random.default_rng(1)
    table = {}
    for place, batch in enumerate(BATCHES):
        rise = 0.97 - 0.06 / (place + 1) - 0.2 * np.exp(-np.arange(epochs))
        table[batch] = rise + random.normal(0, 0.002, (seeds, epochs))
    if collapsed:
        table[8][0, epochs // 2 :] = 0.1135
    return table


def panel(figure):
    return next(axes for axes in figure.axes if axes.axison)


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("epochs", [1, 2, 15])
@pytest.mark.parametrize("collapsed", [False, True])
def test_accuracy_by_epoch_has_a_line_and_a_band_a_setting(seeds, epochs, collapsed):
    values = accuracy(seeds, epochs, collapsed)
    figure = figures.by_epoch_figure("mlp-64: test accuracy (quick)", values, "batch")
    draw(figure)
    axes = panel(figure)
    assert [line.get_label() for line in axes.lines] == [f"batch {batch}" for batch in BATCHES]
    for line, numbers in zip(axes.lines, values.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), figures.stretched(numbers.mean(axis=0)))
    assert len(axes.collections) == (8 if seeds > 1 else 0)
    last = values[8][:, -1].mean()
    assert f"batch 8  {100 * last:.2f} %" in texts(figure)


@pytest.mark.parametrize("seeds", [1, 5])
@pytest.mark.parametrize("collapsed", [False, True])
def test_final_accuracy_stands_beside_the_document_s(seeds, collapsed):
    figure = figures.final_figure("mlp-64: final test accuracy", accuracy(seeds, 15, collapsed), CLAIMED, OTHER)
    pixels = draw(figure)
    assert has_colour(pixels, BLUE) and has_colour(pixels, ORANGE)
    assert [label.get_text() for label in panel(figure).get_xticklabels()] == [str(batch) for batch in BATCHES]


@pytest.mark.parametrize("epochs", [1, 3, 15])
def test_the_heat_map_shows_every_mean(epochs):
    values = accuracy(3, epochs)
    values[16][:, -1] = np.nan  # every seed diverged
    figure = figures.heat_figure("mlp-64: test accuracy by batch size and epoch", values, "batch size")
    draw(figure)
    shown = [text.get_text() for text in panel(figure).texts]
    assert len(shown) == 8 * epochs
    assert shown[0] == f"{100 * values[8][:, 0].mean():.1f}" and shown[2 * epochs - 1] == ""


def test_seconds_stand_beside_the_document_s():
    seconds = {batch: np.full(2, 0.08 + 1 / batch) for batch in BATCHES}
    figure = figures.seconds_figure("mlp-64: seconds an epoch", seconds, TIMES)
    draw(figure)
    theirs, ours = panel(figure).lines
    assert list(theirs.get_ydata()) == list(TIMES.values())
    np.testing.assert_allclose(ours.get_ydata(), [0.08 + 1 / batch for batch in BATCHES])


def curves(seeds, epochs, networks):
    ramp = np.linspace(1.5, 0.05, epochs) + 0.02 * np.arange(seeds)[:, None]
    columns = {
        "train_loss": ramp,
        "test_loss": ramp + 0.1,
        "train_accuracy": 1 - ramp / 3,
        "test_accuracy": 0.98 - ramp / 3,
    }
    return {name: {key: value - 0.01 * k for key, value in columns.items()} for k, name in enumerate(networks)}


@pytest.mark.parametrize("networks", [["plain"], ["784-256-128-64-10", "784-128-32-10", "784-128-10", "784-32-10"]])
@pytest.mark.parametrize("seeds, epochs", [(1, 1), (2, 4), (3, 150)])
def test_curves_show_both_sets(networks, seeds, epochs):
    figure = figures.curves_figure("row: loss and accuracy by epoch", curves(seeds, epochs, networks))
    draw(figure)
    for axes in (axes for axes in figure.axes if axes.axison):
        assert len(axes.lines) == 2 * len(networks)
        assert axes.get_xlabel() == "epoch"
    seen = " ".join(texts(figure))
    assert all(name in seen for name in (["training", "test"] if len(networks) == 1 else networks))


def test_a_diverged_network_leaves_the_others_lines():
    values = curves(2, 6, ["plain"])
    values["plain"]["test_loss"][0, 3:] = np.nan
    values["plain"]["test_accuracy"][:, 3:] = np.nan
    draw(figures.curves_figure("row: loss and accuracy by epoch", values))


def test_predictions_stand_under_their_images():
    data = images(16)
    network = study.make(data, 0)
    figure = pictures.predictions_figure("16 validation images", data.train, network, "784-64-64-10, seed 0")
    draw(figure)
    seen = texts(figure)
    guesses = network.predict(data.train.x)
    right = int((guesses == data.train.y).sum())
    assert f"784-64-64-10, seed 0  ·  {right} of 16 right" in seen
    assert [text for text in seen if text.startswith("true ")] == [f"true {label}" for label in data.train.y]
    assert [text for text in seen if text.startswith("→ ")] == [f"→ {guess}" for guess in guesses]


def test_maps_are_square_and_hold_every_point():
    random = np.random.default_rng(0)
    y = np.arange(200) % 10
    points = random.normal(size=(200, 2)) * (30, 4) + 12 * np.stack([y, -y], axis=1)
    maps = [(f"after epoch {epoch}\t88 % same digit nearby", points) for epoch in (0, 1, 10, 20, 30, 40, 50)]
    series = pictures.series_figure("t-SNE of the last hidden layer", "200 images", maps, y)
    for figure, count in ((series, 7), (pictures.map_figure("t-SNE", "200 images", points, y), 1)):
        figure.canvas.draw()
        seen = [axes for axes in figure.axes if axes.axison]
        assert len(seen) == count
        for axes in seen:
            (dots,) = axes.collections
            assert len(dots.get_offsets()) == 200
            (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
            assert right - left == pytest.approx(top - bottom)
            assert points[:, 0].min() > left and points[:, 0].max() < right
    assert "after epoch 50" in texts(series)
