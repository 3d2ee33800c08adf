"""Learning curves and confusion matrices, and the files they go to; every figure is drawn and looked at."""

import os
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from rendering import BLUE, ORANGE, draw, has_colour, texts

from mlpkernels import plots
from mlpkernels.errors import DataError

HEADER = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,test_loss,test_accuracy,"
    "learning_rate,seconds,samples_per_second"
)


def history(epochs, parts=("train", "val", "test")):
    rows = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": float(epoch)}
        for lag, part in enumerate(("train", "val", "test")):
            known = part in parts
            row[f"{part}_loss"] = 2.0 * 0.8**epoch + 0.1 * lag if known else None
            row[f"{part}_accuracy"] = 1 - 0.7 * 0.8**epoch - 0.01 * lag if known else None
        rows.append(row)
    return rows


def panels(figure):
    return [axes for axes in figure.axes if axes.axison]


# Learning curves


def test_history_has_a_line_a_part_and_names_it_with_its_last_value():
    figure = plots.history_figure(history(12))
    pixels = draw(figure)
    assert has_colour(pixels, BLUE) and has_colour(pixels, ORANGE)
    loss, accuracy = panels(figure)
    for panel, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        assert panel.get_xlabel() == "epoch"
        assert [line.get_label() for line in panel.lines] == ["training", "validation", "test"]
        for line, part in zip(panel.lines, ("train", "val", "test"), strict=True):
            np.testing.assert_array_equal(line.get_xdata(), range(1, 13))
            np.testing.assert_array_equal(line.get_ydata(), [row[f"{part}_{quantity}"] for row in history(12)])
    seen = texts(figure)
    assert {"Training", "Loss (mean cross-entropy)", "Accuracy"} <= set(seen)
    assert {"training 0.137", "validation 0.237", "test 0.337", "training 95.2 %", "test 93.2 %"} <= set(seen)
    assert "12 epochs  ·  lowest validation loss 0.237 in epoch 12" in seen


def test_the_lowest_validation_loss_is_marked_where_it_is_not_the_last():
    rows = history(6)
    rows[3]["val_loss"] = 0.01
    figure = plots.history_figure(rows)
    draw(figure)
    assert "6 epochs  ·  lowest validation loss 0.010 in epoch 4, dotted; on the right epoch 6" in texts(figure)
    for panel in panels(figure):
        *_, mark = panel.lines
        assert len(panel.lines) == 4 and set(mark.get_xdata()) == {4} and mark.get_linestyle() == ":"


def test_losses_without_accuracies_are_not_called_cross_entropy():
    figure = plots.history_figure([{"epoch": 1, "train_loss": 0.5}, {"epoch": 2, "train_loss": 0.4}])
    draw(figure)
    assert {"Loss (mean)", "not recorded"} <= set(texts(figure))


@pytest.mark.parametrize("epochs", [1, 2, 3, 12, 31, 250])
def test_epochs_are_whole_numbers(epochs):
    figure = plots.history_figure(history(epochs))
    draw(figure)
    for panel in panels(figure):
        labels = [label.get_text() for label in panel.get_xticklabels()]
        assert labels[0] == "1" and all(label.isdigit() and int(label) <= epochs for label in labels)
        assert 1 <= len(labels) <= 8


def test_one_epoch_is_a_dot():
    figure = plots.history_figure(history(1))
    assert has_colour(draw(figure), BLUE)
    assert panels(figure)[0].lines[0].get_marker() == "o"


@pytest.mark.parametrize("parts", [("train",), ("train", "test"), ("val",)])
def test_parts_that_were_not_evaluated_are_left_out(parts):
    figure = plots.history_figure(history(5, parts))
    draw(figure)
    assert [len(panel.lines) for panel in panels(figure)] == [len(parts)] * 2
    assert any("validation" in text for text in texts(figure)) == ("val" in parts)


def test_cells_that_are_missing_or_not_finite_are_left_out():
    rows = history(6)
    rows[0]["val_loss"], rows[2]["val_loss"], rows[5]["test_loss"] = float("nan"), None, float("inf")
    figure = plots.history_figure(rows)
    draw(figure)
    lines = panels(figure)[0].lines
    np.testing.assert_array_equal(lines[1].get_xdata(), [2, 4, 5, 6])
    np.testing.assert_array_equal(lines[2].get_xdata(), [1, 2, 3, 4, 5])


def test_a_quantity_that_was_never_recorded_says_so():
    figure = plots.history_figure([{"epoch": 1, "train_loss": 0.5}])
    draw(figure)
    assert "not recorded" in texts(figure)


def test_no_epoch_says_so():
    figure = plots.history_figure([])
    draw(figure)
    assert "No epoch is finished yet." in texts(figure)


def test_loss_over_many_magnitudes_is_logarithmic():
    rows = [{"epoch": k, "train_loss": 10.0**-k, "train_accuracy": 1.0} for k in range(-2, 14)]
    rows = [{**row, "epoch": number} for number, row in enumerate(rows, 1)]
    figure = plots.history_figure(rows)
    draw(figure)
    loss, accuracy = panels(figure)
    assert loss.get_yscale() == "log" and accuracy.get_yscale() == "linear"
    assert 3 <= len(loss.get_yticks()) <= 12
    assert "training 100.0 %" in texts(figure)


@pytest.mark.parametrize("loss", [0.0, 1e-300, 3e4, 1e30])
def test_losses_of_any_size(loss):
    draw(plots.history_figure([{"epoch": 1, "train_loss": loss, "train_accuracy": 0.0}]))


def test_equal_last_values_get_names_that_do_not_overlap():
    row = {f"{part}_{what}": 0.9 for part in ("train", "val", "test") for what in ("loss", "accuracy")}
    figure = plots.history_figure([{"epoch": 1, **row}, {"epoch": 2, **row}])
    draw(figure)
    assert len([text for text in texts(figure) if text.endswith("90.0 %")]) >= 3


def test_objects_with_attributes_are_rows_too():
    @dataclass(frozen=True)
    class Result:
        epoch: int
        train_loss: float
        val_loss: float | None = None

    figure = plots.history_figure([Result(1, 2.0), Result(2, 1.0)])
    np.testing.assert_array_equal(panels(figure)[0].lines[0].get_ydata(), [2.0, 1.0])


def test_a_row_without_epoch_is_named():
    with pytest.raises(ValueError, match="row 2 has no epoch"):
        plots.history_figure([{"epoch": 1, "train_loss": 1.0}, {"train_loss": 1.0}])


# history.csv


def test_read_history(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(f"{HEADER}\n1,0.5,0.75,,,0.6,0.7,0.001,0.25,4e4\n2,0.4,0.8,,,nan,0.72,0.001,0.25,4e4\n")
    first, second = plots.read_history(path)
    assert list(first) == HEADER.split(",")
    assert first["epoch"] == 1 and first["val_loss"] is None and first["samples_per_second"] == 40000
    assert np.isnan(second["test_loss"])
    draw(plots.history_figure([first, second]))


def test_read_history_of_a_run_without_a_finished_epoch(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text(HEADER + "\r\n")
    assert plots.read_history(path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a,b\n1,2\n", "starts with 'a,b'"),
        (b"epoch,train_loss\n1,0.5\n2\n", "line 3 has 1 cells, wanted 2"),
        (b"epoch,train_loss\n1,0.5,3\n", "line 2 has 3 cells, wanted 2"),
        (b"epoch,train_loss\n1,much\n", "line 2, column train_loss: 'much' is no number"),
        (b"epoch,train_loss\n,0.5\n", "line 2, column epoch: None"),
        (b"epoch,train_loss\nnan,0.5\n", "line 2, column epoch: nan"),
        (b"epoch,train_loss\n0,0.5\n", "line 2, column epoch: 0.0"),
        (b"epoch,train_loss\n1.5,0.5\n", "line 2, column epoch: 1.5"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "not a CSV file"),
        (b'epoch,train_loss\n1,"0.5\n', "not a CSV file"),
        (b"epoch,train_loss\n1,\x00\n", "history.csv: "),
    ],
)
def test_a_damaged_history_is_named(tmp_path, content, message):
    path = tmp_path / "history.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        plots.read_history(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_history_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        plots.read_history(tmp_path / "history.csv")


# Confusion matrix


def confusion(classes, rows=30, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.poisson(2 / classes, (classes, classes)) + np.diag(rng.integers(rows // 2, rows, classes))
    matrix[0, -1] += classes > 1
    return matrix


def test_confusion_matrix_shows_counts_recall_and_precision():
    figure = plots.confusion_figure([[8, 2, 0], [0, 5, 0], [1, 0, 0]], ["ant", "bee", "wasp"])
    pixels = draw(figure)
    (panel,) = panels(figure)
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in panel.get_yticklabels()] == ["ant", "bee", "wasp"]
    counts = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in panel.texts}
    assert counts == {(0, 0): "8", (0, 1): "2", (1, 1): "5", (2, 0): "1"}
    seen = texts(figure)
    assert "13 of 16 right (81.2 %)  ·  3 wrong" in seen
    assert seen.count("89") == 1 and seen.count("71") == 1 and seen.count("n/a") == 1  # precision
    assert seen.count("80") == 1 and seen.count("100") == 1 and seen.count("0") == 1  # recall
    assert has_colour(pixels, ORANGE)  # the wasps, all taken for ants


def test_colours_tell_right_from_wrong():
    figure = plots.confusion_figure([[90, 10], [0, 100]], ["no", "yes"])
    image = panels(figure)[0].images[0].get_array()
    right, wrong, empty = image[1, 1], image[0, 1], image[1, 0]
    assert right[2] > right[0] and wrong[0] > wrong[2]  # blue, orange
    np.testing.assert_array_equal(empty, 1)


@pytest.mark.parametrize("classes", [1, 2, 7, 25, 26, 100, 300])
def test_any_number_of_classes(classes):
    figure = plots.confusion_figure(confusion(classes), list(range(classes)))
    pixels = draw(figure)
    (panel,) = panels(figure)
    assert bool(panel.texts) == (classes <= 25)
    assert ("mistaken" in texts(figure)) == (classes > 25)
    assert panel.images[0].get_array().shape == (classes, classes, 3)
    height, width = pixels.shape[:2]
    assert 200 < height < 1400 and 200 < width < 1400
    # the first class's own cell, at the top left, is blue (beside the number that stands in its middle)
    x, y = panel.transData.transform((-0.25, -0.25) if classes <= 25 else (0, 0))
    red, _, blue = pixels[height - 1 - int(y), int(x)].astype(int)
    assert blue > red + 60


@pytest.mark.parametrize("classes", [2, 10, 25, 100])
def test_long_and_strange_class_names(classes):
    names = [f"{k} a name $that$ goes_on and on for longer than any page could hold it" for k in range(classes)]
    figure = plots.confusion_figure(confusion(classes), names)
    draw(figure)
    assert panels(figure)[0].get_yticklabels()[0].get_text().endswith("…")


def test_a_class_without_rows_and_large_counts():
    figure = plots.confusion_figure([[0, 0], [1, 1_234_567]], ["none", "many"])
    draw(figure)
    assert {"n/a", "1.23M", "1,234,567 of 1,234,568 right (99.99 %)  ·  1 wrong"} <= set(texts(figure))


def test_an_empty_confusion_matrix_draws():
    figure = plots.confusion_figure(np.zeros((3, 3), int), "abc")
    draw(figure)
    assert "0 of 0 right (0.0 %)  ·  0 wrong" in texts(figure)


@pytest.mark.parametrize(
    ("matrix", "classes", "error", "message"),
    [
        ([[1, 2]], ["a"], ValueError, r"shape \(1, 2\)"),
        ([[1.0]], ["a"], TypeError, "dtype float64"),
        ([[1]], ["a", "b"], ValueError, "classes: 2 names for 1 rows"),
        ([[-1]], ["a"], ValueError, "holds -1"),
    ],
)
def test_a_wrong_confusion_matrix_is_named(matrix, classes, error, message):
    with pytest.raises(error, match=message):
        plots.confusion_figure(matrix, classes)


# Files


def test_save_figure_writes_what_is_drawn(tmp_path):
    figure = plots.history_figure(history(3))
    pixels = draw(figure)
    path = tmp_path / "history.png"
    path.write_text("an older file")
    plots.save_figure(figure, path)
    with Image.open(path) as image:
        assert image.format == "PNG"
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), pixels)
    assert os.listdir(tmp_path) == ["history.png"]


def test_save_figure_in_another_format(tmp_path):
    plots.save_figure(plots.history_figure(history(3)), str(tmp_path / "history.svg"))
    assert b"<svg" in (tmp_path / "history.svg").read_bytes()


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    figure = plots.history_figure([])
    path = tmp_path / "history.png"
    path.write_text("an older file")

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        plots.save_figure(figure, path)
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["history.png"] and path.read_text() == "an older file"
    with pytest.raises(ValueError, match="strange"):
        plots.save_figure(figure, tmp_path / "history.strange")
    with pytest.raises(FileNotFoundError):
        plots.save_figure(figure, tmp_path / "nowhere" / "history.png")
    assert os.listdir(tmp_path) == ["history.png"]


def test_figures_keep_to_themselves(tmp_path):
    code = f"""
import sys
from mlpkernels import plots
assert "matplotlib" not in sys.modules
import matplotlib
def settings():  # not the backend, which is chosen when it is looked up
    return {{key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}}
before = settings()
plots.save_figure(plots.history_figure([{{"epoch": 1, "train_loss": 1.0}}]), {str(tmp_path / "a.png")!r})
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules and "numba" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_the_readers_own_matplotlib_settings_change_nothing():
    import matplotlib

    expected = draw(plots.confusion_figure(confusion(3), ["a%", "b_1", "$c"]))
    own = {
        "text.usetex": True,
        "font.size": 30,
        "font.family": "serif",
        "axes.facecolor": "black",
        "axes.grid": True,
        "figure.autolayout": True,
        "text.color": "red",
        "axes.labelcolor": "red",
        "image.origin": "lower",
    }
    with matplotlib.rc_context(own):
        np.testing.assert_array_equal(draw(plots.confusion_figure(confusion(3), ["a%", "b_1", "$c"])), expected)
        draw(plots.history_figure(history(3)))
