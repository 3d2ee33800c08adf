"""`mlpk eval`, `plot` and `info`: what they say about a run, and which run they mean."""

import json
import os
import re

import numpy as np
import pytest
from cli_running import good, mlpk, refusal, train
from mlpkernels_cli import report

from mlpkernels import Dense, Network, datasets


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits that is good enough to talk about."""
    return train(tmp_path_factory.mktemp("runs") / "run", "--epochs", 8, "--val-split", 0.1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """(CSV file, run on it): classes with names, two columns."""
    folder = tmp_path_factory.mktemp("table")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(60, 2)) + 3 * np.arange(60)[:, None] % 9
    lines = [f"{'xyz'[k % 3]},{a:.3f},{b:.3f}" for k, (a, b) in enumerate(points)]
    path = folder / "table.csv"
    path.write_text("\n".join(["kind,a,b", *lines]) + "\n")
    return path, train(folder / "run", path, "--epochs", 30)


# ---- eval


def test_eval_repeats_the_figures_of_the_training(run):
    metrics = json.loads((run / "metrics.json").read_text())["test"]
    found = json.loads(good("eval", run, "--format", "json").stdout)
    assert found["loss"] == pytest.approx(metrics["loss"], abs=1e-12)
    assert {name: found[name] for name in ("accuracy", "rows", "by_class", "confusion")} == {
        name: metrics[name] for name in ("accuracy", "rows", "by_class", "confusion")
    }


def test_eval_as_a_table(run):
    found = json.loads(good("eval", run, "--format", "json").stdout)
    text = good("eval", run).stdout
    assert f"accuracy  {100 * found['accuracy']:.2f} %" in text
    assert "data      digits, test part" in text
    rows = re.findall(r"^\d +\d+\.\d\d %.*$", text, re.MULTILINE)
    assert len(rows) == 10
    assert sum(int(row.split()[-1]) for row in rows) == found["rows"] == 359
    assert "true \\ predicted" in text
    for k, counts in enumerate(found["confusion"]):
        assert re.search(rf"^{k} +" + " +".join(str(n) if n else "·" for n in counts) + "$", text, re.MULTILINE)


@pytest.mark.parametrize("part, rows", [("test", 359), ("validation", 144), ("train", 1294)])
def test_eval_of_each_part(run, part, rows):
    assert json.loads(good("eval", run, "--part", part, "--format", "json").stdout)["rows"] == rows


def test_eval_into_a_file(run, tmp_path):
    result = good("eval", run, "--format", "json", "--output", tmp_path / "figures.json")
    assert result.stdout == ""
    assert result.stderr.endswith(f"written to {tmp_path / 'figures.json'}\n")
    assert json.loads((tmp_path / "figures.json").read_text())["rows"] == 359


def test_eval_on_other_data_with_fewer_classes_in_another_order(table, tmp_path):
    _, run = table
    other = tmp_path / "other.csv"
    other.write_text("b,kind,a\n6,z,6\n0,x,0\n6,z,6\n")
    found = json.loads(good("eval", run, other, "--label-column", "kind", "--format", "json").stdout)
    assert (found["data"], found["rows"]) == ("other", 3)
    assert [row["rows"] for row in found["by_class"]] == [1, 0, 2]
    assert found["accuracy"] == 1.0


def test_eval_and_predict_agree_on_pixels_on_their_own_scale(run, tmp_path):
    """Of a CSV of 0 ... 16, which could be dark bytes, too."""
    good("data", "csv", "digits", "--rows", 300, "--output", tmp_path / "some.csv")
    found = json.loads(good("eval", run, tmp_path / "some.csv", "--format", "json").stdout)
    predicted = good("predict", run, tmp_path / "some.csv", "--format", "csv").stdout.splitlines()[1:]
    labels = [line.split(",")[0] for line in (tmp_path / "some.csv").read_text().splitlines()[1:]]
    right = sum(line.split(",")[1] == label for line, label in zip(predicted, labels, strict=True))
    usual = json.loads((run / "metrics.json").read_text())["test"]["accuracy"]
    assert found["accuracy"] == right / 300 == pytest.approx(usual, abs=0.1)


def test_logits_that_hardly_differ_are_counted_as_the_network_predicts():
    """Their probabilities are equal."""
    network = Network([Dense(1)], 1, loss="binary")
    network.parameters()["0.weight"][...] = 1.0
    x = np.array([[1e-9], [-1e-9], [1.0]], np.float32)
    measured = report.measure(network, datasets.Part(x, np.array([1, 0, 1])), "cpu", 1)
    assert measured.predicted.tolist() == network.predict(x).tolist() == [1, 0, 1]
    assert measured.right == 3 and measured.accuracy == 1.0


def test_eval_of_a_model_file_needs_data(run, table, tmp_path):
    copy = tmp_path / "model.safetensors"
    copy.write_bytes((run / "model.safetensors").read_bytes())
    assert "give DATA after it" in refusal(mlpk("eval", copy))
    assert json.loads(good("eval", copy, "digits", "--format", "json").stdout)["rows"] == 359


def test_the_newest_run_is_meant_without_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "no run in runs/ here" in refusal(mlpk("eval"))
    train(tmp_path / "runs" / "first")
    train(tmp_path / "runs" / "second")
    os.utime(tmp_path / "runs" / "first" / "history.csv")
    assert good("eval").stdout.startswith("run       runs/first\n")
    assert good("eval", "second").stdout.startswith("run       runs/second\n")
    assert good("eval", "digits").stdout.startswith("run       runs/first\n")
    (tmp_path / "runs" / "begun").mkdir()
    (tmp_path / "runs" / "begun" / "config.toml").write_text("")
    assert good("eval").stdout.startswith("run       runs/first\n")
    assert "has not finished an epoch" in refusal(mlpk("eval", "begun"))


@pytest.mark.parametrize(
    "words, told",
    [
        ("nothing-like-it", "mlpk eval: nothing-like-it: neither a run folder nor a file"),
        ("{run} no.csv", "error: no.csv: no such file"),
        ("{run} digits mnist", "mlpk eval: mnist: one RUN and one DATA were wanted"),
        ("{run} --part all", "mlpk eval: --part all: one of test, validation, train was wanted"),
        ("{run} {table}", "error: table"),
        ("{run} digits --label-column kind", "error: digits: only CSV files have a label column"),
    ],
)
def test_wrong_words_are_one_line(run, table, monkeypatch, words, told):
    monkeypatch.chdir(run.parent)
    line = refusal(mlpk("eval", *words.format(run=run, table=table[0]).split()))
    assert line.startswith(told)


def test_labels_outside_the_model_s_classes(table, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("kind,a,b\nx,1,2\nw,1,2\n")
    line = refusal(mlpk("eval", table[1], other))
    assert line.startswith("error: other") and "w" in line and "x, y, z" in line


def test_a_run_without_a_validation_part(table):
    assert "has no validation part" in refusal(mlpk("eval", table[1], "--part", "validation"))


@pytest.mark.parametrize("damage", ["truncated", "empty", "another file", "a checkpoint"])
def test_a_damaged_model_is_named(tmp_path, damage):
    run = train(tmp_path / "run")
    model = run / "model.safetensors"
    content = model.read_bytes()
    model.write_bytes({
        "truncated": content[: len(content) // 2], "empty": b"", "another file": b"\x89PNG" * 100,
        "a checkpoint": (run / "checkpoint.safetensors").read_bytes(),
    }[damage])  # fmt: skip
    for command in (["eval"], ["predict", run, "x.png"], ["info"], ["plot"]):
        line = refusal(mlpk(*command, *([run] if len(command) == 1 else [])))
        assert line.startswith("error: ") and str(model) in line


# ---- plot


def test_plot_draws_the_five_figures(run, tmp_path):
    text = good("plot", run).stdout
    names = ["history", "confusion", "mistakes", "weights", "samples"]
    assert text.splitlines() == [str(run / "plots" / f"{name}.png") for name in names]
    assert all((run / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG") for name in names)
    good("plot", run, "--output", tmp_path / "figures")
    assert len(list((tmp_path / "figures").iterdir())) == 5


def test_plot_of_what_is_no_run(tmp_path):
    assert refusal(mlpk("plot", tmp_path)).startswith(f"mlpk plot: {tmp_path}: no run folder")


def test_plot_of_a_damaged_history_is_named(tmp_path):
    run = train(tmp_path / "run")
    (run / "history.csv").write_text("epoch,train_loss\n1,x\n")
    assert "history.csv: line 2, column train_loss" in refusal(mlpk("plot", run))
    assert not (run / "plots").exists()


# ---- info


def test_info_of_a_run(run):
    text = good("info", run).stdout
    for told in (
        "finished after 8 epochs",
        "64 → 16",
        "1,210 float32, 4.8 kB",
        "2.4 kFLOP a sample",
        "model.safetensors",
    ):
        assert told in text


def test_info_of_a_run_s_model_file_and_of_damaged_files(tmp_path):
    run = train(tmp_path / "run")
    assert "finished after 2 epochs" in good("info", run / "model.safetensors").stdout
    for content in ("{", "[]", '{"epochs": 3}'):
        (run / "metrics.json").write_text(content)
        assert refusal(mlpk("info", run)).startswith(f"error: {run / 'metrics.json'}: damaged")
    unknown = "hiden: no such setting, did you mean hidden?"
    for content, told, names in (
        ("hiden = [1]", unknown, ["train"]),
        ("=", "not a TOML file", ["info", "eval", "train"]),
    ):
        (run / "config.toml").write_text(content)
        for command in ([name, *(["--resume"] if name == "train" else []), run] for name in names):
            result = mlpk(*command)
            assert result.exit_code == 1
            assert refusal(result).startswith(f"error: {run / 'config.toml'}: {told}")


def test_eval_of_many_classes_says_where_the_matrix_is(tmp_path):
    table = tmp_path / "many.csv"
    table.write_text("kind,a\n" + "".join(f"c{k % 40},{k % 40}\n" for k in range(200)))
    run = train(tmp_path / "run", table)
    text = good("eval", run).stdout
    assert "confusion matrix of 40 classes is in --format json" in text
    assert len(json.loads(good("eval", run, "--format", "json").stdout)["confusion"]) == 40


def test_info_of_a_data_set():
    text = good("info", "digits").stdout
    for told in ("uint8, 0 to 16, full scale 16", "1,438, 92.0 kB", "1 x 8 x 8", "bundled"):
        assert told in text
    counts = np.bincount(datasets.load("digits").train.y)
    for k, count in enumerate(counts):
        assert re.search(rf"^{k} +{count} +\d+$", text, re.MULTILINE)


def test_info_of_a_table_and_of_a_model_file(table, tmp_path):
    path, run = table
    assert "none of its own" in good("info", path).stdout
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes((run / "model.safetensors").read_bytes())
    assert "3: x, y, z" in good("info", copy).stdout


def test_info_of_something_unknown():
    line = refusal(mlpk("info", "digit"))
    assert line.startswith("error: unknown data set 'digit' (did you mean digits?)")
    assert line.endswith(f", or a run by its folder or its name in runs{os.sep}")
    assert refusal(mlpk("info", "nothing", "--label-column", "x")).endswith("leave out --label-column")


# ---- the text tables


def test_class_and_confusion_tables():
    confusion = np.array([[3, 1], [0, 0]])
    proba = np.full((4, 2), 0.5)
    measured = report.Measured(("a", "b"), 0.5, 0.75, proba, proba.argmax(axis=1), confusion)
    assert measured.class_table().splitlines()[1:] == [
        "a       100.00 %  75.00 %  85.71 %     4",
        "b         0.00 %   0.00 %   0.00 %     0",
    ]
    assert measured.confusion_table().splitlines()[1:] == ["a                 3  1", "b                 ·  ·"]
