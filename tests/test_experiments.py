"""The rows of the experiments: their settings are the documents', their results their own whatever runs beside."""

import csv
import dataclasses
import functools
import importlib.util
import json

import numpy as np
import pytest
from small_images import images
from support import timeless

from mlpkernels import SGD, Adam
from mlpkernels.datasets import Part, load
from mlpkernels.errors import DataError, UnavailableError
from mlpkernels.experiments import ROWS, Options, check, curves, find, initial, numpy_gd, run, speedrun, study, tsne
from mlpkernels.experiments.folder import Folder
from mlpkernels.experiments.report import Measured
from mlpkernels.experiments.side_by_side import Job, Watch, train_all

SKLEARN = importlib.util.find_spec("sklearn") is not None
DENSE = ["mlp-64", "mlp-128", "mlp-120-84", "mlp-50-50", "numpy-gd"]


@pytest.fixture
def few(monkeypatch):
    """A small data set, of which numpy-gd draws 300 rows."""
    monkeypatch.setattr(numpy_gd, "ROWS", 300)
    return images()


class Recorder(Watch):
    """Keeps what it is told."""

    def __init__(self):
        self.epochs, self.trained, self.words = [], [], []

    def epoch(self, job, result):
        self.epochs.append((job.seed, result.epoch))

    def done(self, trained):
        self.trained.append(trained)

    def say(self, text):
        self.words.append(text)


# ---- the catalogue


def test_every_row_of_the_documents_is_there():
    names = [row.name for row in ROWS]
    assert set(names) == {
        "mlp-64", "mlp-64-tsne", "mlp-128", "mlp-128-regularised", "mlp-120-84", "mlp-50-50", "cnn", "numpy-gd",
        "speedrun",
    }  # fmt: skip
    assert {row.name: row.epochs for row in ROWS} == {
        "mlp-64": 15, "mlp-64-tsne": 50, "mlp-128": 100, "mlp-128-regularised": 100, "mlp-120-84": 10,
        "mlp-50-50": 10, "cnn": 10, "numpy-gd": 150, "speedrun": 0,
    }  # fmt: skip
    assert set(curves.SETTINGS) == {row.name for row in ROWS if row.module == "curves"}
    with pytest.raises(ValueError, match="no experiment 'mlp': one of mlp-64, "):
        find("mlp")


def test_the_settings_are_the_documents():
    assert list(study.CLAIMS) == [8, 16, 32, 48, 64, 90, 128, 150]
    assert [claim.accuracy for claim in study.CLAIMS.values()] == [
        0.9148, 0.94, 0.9682, 0.9701, 0.9693, 0.9745, 0.9711, 0.9696,
    ]  # fmt: skip
    settings = {name: (one.learning_rate, one.batch_size) for name, one in curves.SETTINGS.items()}
    assert settings == {
        "mlp-128": (0.001, 128), "mlp-128-regularised": (0.001, 128), "mlp-120-84": (0.001, 64),
        "mlp-50-50": (0.01, 64), "cnn": (0.001, 64),
    }  # fmt: skip
    assert (tsne.BATCH, tsne.PERPLEXITY, tsne.IMAGES, tsne.EPOCHS) == (90, 30, 1000, (0, 1, 10, 20, 30, 40, 50))
    assert (numpy_gd.ROWS, numpy_gd.LEARNING_RATE, numpy_gd.TEST_SHARE) == (42_000, 0.1, 0.2)
    assert [numpy_gd.name(hidden) for hidden in numpy_gd.NETWORKS] == [
        "784-256-128-64-10", "784-128-32-10", "784-128-10", "784-32-10",
    ]  # fmt: skip


@pytest.mark.parametrize("options", [{"seeds": 0}, {"epochs": 0}, {"threads": -1}, {"peer_seeds": 0}])
def test_options_that_cannot_be_are_named(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}=.*: a whole number from 1 was wanted"):
        Options(**options)


def test_other_data_are_refused_before_anything_is_trained():
    with pytest.raises(DataError, match="digits: the experiments take 28 x 28 grey images"):
        run("mlp-64", load("digits"), Options())


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"mlp-64-tsne needs scikit-learn.*: pip install scikit-learn"):
        check(find("mlp-64-tsne"), images(), Options())


# ---- initial values


def test_mlp_64_starts_glorot_uniform_with_pytorch_s_biases():
    network = study.make(images(), 3)
    named = network.parameters()
    for name, inputs, outputs in (("0", 784, 64), ("2", 64, 64), ("4", 64, 10)):
        weights, biases = named[f"{name}.weight"], named[f"{name}.bias"]
        bound = np.sqrt(6 / (inputs + outputs))
        assert weights.shape == (inputs, outputs)
        assert 0.9 * bound < np.abs(weights).max() <= bound * 1.0001
        assert 0.5 / np.sqrt(inputs) < np.abs(biases).max() <= 1.0001 / np.sqrt(inputs)
    assert network.scaling.kind == "symmetric"
    assert network.scaling.apply(np.array([[0, 255]], np.uint8)).tolist() == [[-1, 1]]


def test_numpy_gd_starts_normal_by_the_square_root_of_the_outputs(few):
    table = numpy_gd.read(few, Options(), Watch())
    network = numpy_gd._make(table, (128, 32), 0)
    named = network.parameters()
    for name, outputs in (("0", 128), ("2", 32)):
        assert named[f"{name}.weight"].std() == pytest.approx(outputs**-0.5, rel=0.05)
        assert named[f"{name}.bias"].std() == pytest.approx(outputs**-0.5, rel=0.4)


@pytest.mark.parametrize("draw", [initial.pytorch_biases, initial.fan_out_normal])
def test_initial_values_follow_the_seed_and_leave_the_padding_zero(draw):
    networks = [study.make(images(), 0) for _ in range(3)]
    for network, seed in zip(networks, (4, 4, 5), strict=True):
        draw(network, seed)
    assert np.array_equal(networks[0].params, networks[1].params)
    assert not np.array_equal(networks[0].params, networks[2].params)
    # 784-64-64-10 has parameters and padding; all that is not a parameter is 0
    padded = networks[0].params.copy()
    for view in networks[0].views(padded).values():
        view[...] = 0
    assert not padded.any()


# ---- side by side


def jobs(count, epochs=2, **options):
    data = images()
    make, parts = functools.partial(study.make, data), (data.train, data.test)
    return [
        Job({"seed": seed}, functools.partial(make, seed), lambda: parts, epochs, 32, SGD(0.05), seed, **options)
        for seed in range(count)
    ]


def test_results_do_not_depend_on_what_trains_beside():
    one, two = (train_all("x", jobs(3), threads, Watch()) for threads in (1, 2))
    for a, b in zip(one, two, strict=True):
        assert a.job.seed == b.job.seed
        assert timeless(a.history) == timeless(b.history)
        assert a.network.params.tobytes() == b.network.params.tobytes()


def test_the_watch_is_told_everything_in_this_thread():
    watch = Recorder()
    trained = train_all("x", jobs(2, epochs=3), 2, watch)
    assert sorted(watch.epochs) == [(seed, epoch) for seed in (0, 1) for epoch in (1, 2, 3)]
    assert {id(one) for one in watch.trained} == {id(one) for one in trained}


def test_what_a_watch_raises_ends_all_trainings():
    class Stop(Watch):
        def epoch(self, job, result):
            raise KeyboardInterrupt

    seen = []
    many = jobs(4, epochs=500, on_epoch=lambda epoch, network: seen.append(epoch))
    with pytest.raises(KeyboardInterrupt):
        train_all("x", many, 2, Stop())
    assert max(seen) < 500


def test_an_error_in_a_job_ends_the_others_and_comes_out():
    def fail(epoch, network):
        raise OSError("no room")

    first, *others = jobs(3, epochs=400)
    broken = Job(**{**vars(first), "on_epoch": fail})
    with pytest.raises(OSError, match="no room"):
        train_all("x", [broken, *others], 2, Watch())


def test_a_network_that_diverges_is_recorded_and_the_others_go_on():
    good, wild = jobs(2)
    wild = Job(**{**vars(wild), "optimizer": SGD(1e30)})
    first, second = train_all("x", [good, wild], 2, Watch())
    assert first.diverged is None and len(first.history) == 2
    assert second.diverged.startswith("epoch 1, step ")
    assert np.isnan(second.final).all() and np.isnan(second.column("test_loss")).all()


# ---- rows


@pytest.mark.parametrize("name", DENSE)
def test_a_row_runs_and_is_written_whole(name, few, tmp_path):
    options = Options(seeds=2, epochs=2)
    report = run(name, few, options)
    folder = Folder(tmp_path, options.quick, {"date": "today"})
    folder.add_samples(few)
    folder.add(report)
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    pictures = {f"pictures/{name}-{title}.png" for title in report.figures}
    assert {"table.md", "metrics.json", f"{name}-history.csv", "pictures/samples.png"} | pictures <= written
    text = (tmp_path / "table.md").read_text()
    assert all(line.what in text for line in report.lines) and "2 instead of" in text and "quick" not in text
    assert "| claimed | measured |" in text and " ± " in text
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    (found,) = metrics["experiments"]
    assert (found["experiment"], found["seeds"], found["epochs"]) == (name, 2, 2)
    with (tmp_path / f"{name}-history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(report.trained)
    assert {"seed", "epoch", "test_accuracy", "samples_per_second"} <= set(rows[0])
    first = report.trained[0]
    assert float(rows[0]["test_accuracy"]) == first.history[0].test_accuracy


def test_a_row_is_repeatable_and_a_seed_does_not_depend_on_their_number(few):
    two = run("mlp-120-84", few, Options(seeds=2, epochs=2, threads=2))
    one = run("mlp-120-84", few, Options(seeds=1, epochs=2, threads=1))
    assert timeless(two.trained[0].history) == timeless(one.trained[0].history)


def test_everything_quick_says_so(few, tmp_path):
    options = Options(seeds=1, quick=True, epochs=1)
    folder = Folder(tmp_path, True, {})
    folder.add_samples(few)
    report = run("numpy-gd", few, options)
    folder.add(report)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert path.name.startswith("quick-")
            if path.suffix != ".png" and "predictions" not in path.name:
                assert "quick" in path.read_text(), path
    assert all("quick" in line.cells(report.name)[0] for line in report.lines)
    for draw in report.figures.values():
        assert any("(quick)" in text.get_text() for text in draw().findobj(match=_is_text))


def _is_text(artist):
    return hasattr(artist, "get_text")


def test_a_row_that_cannot_be_written_leaves_nothing_of_it(few, tmp_path, monkeypatch):
    report = run("mlp-128", few, Options(epochs=1))
    report.figures["later"] = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    folder = Folder(tmp_path, False, {})
    with pytest.raises(KeyboardInterrupt):
        folder.add(report)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


# ---- what is told of a row


def taught(accuracies, seconds=(1, 2, 6, 100)):
    """Networks of three epochs with these test accuracies, by seed and epoch: those with fewer diverged."""
    trained = train_all("x", jobs(len(accuracies), epochs=3), 2, Watch())
    for one, values, taken in zip(trained, accuracies, seconds, strict=False):
        one.history = [
            dataclasses.replace(result, test_accuracy=value, seconds=taken)
            for result, value in zip(one.history, values, strict=False)
        ]
        one.diverged = None if len(values) == 3 else f"epoch {len(values) + 1}, step 1"
    return trained


def test_a_line_tells_mean_and_deviation_of_what_did_not_diverge():
    line = Measured("x", (0.9, 0.91, 0.95, float("nan")), seconds=(1, 2, 6), per=("an epoch", 2))
    assert line.cells("row") == ("row", "x", "not stated", "92.00 ± 2.65 %", "4 (1 diverged)", "1.5 s an epoch", "")
    assert dataclasses.replace(line, seconds=(100, 200, 600), per=("", 1)).time == "300 s"
    gone = Measured("x", (float("nan"),) * 2)
    assert gone.cells("row") == ("row", "x", "not stated", "diverged", "2 (2 diverged)", "", "")


def diverging(monkeypatch, module, where):
    """Let a row's networks take 1, 2, 6 and 100 s an epoch, by seed, and those of where(job) diverge in epoch 2."""
    real = module.train_all

    def train_all(*arguments):
        trained = real(*arguments)
        for one in trained:
            taken = (1, 2, 6, 100)[one.job.seed]
            one.history = [dataclasses.replace(result, seconds=taken) for result in one.history]
            if where(one.job):
                one.history, one.diverged = one.history[:1], "epoch 2, step 1"
        return trained

    monkeypatch.setattr(module, "train_all", train_all)


@pytest.mark.parametrize("some", [True, False])
@pytest.mark.parametrize(
    "name, module, told",
    [
        ("mlp-64", study, "3 s an epoch"), ("mlp-50-50", curves, "6 s"), ("numpy-gd", numpy_gd, "6 s"),
        ("mlp-64-tsne", tsne, "6 s"), ("speedrun", speedrun, "4 s (2…12)"),
    ],
)  # fmt: skip
def test_times_are_of_networks_that_did_not_diverge(name, module, told, some, few, monkeypatch):
    if module is tsne:
        pytest.importorskip("sklearn")
        monkeypatch.setattr(tsne, "IMAGES", 100)
    monkeypatch.setattr(speedrun, "RECIPES", {"mlp-64": speedrun.RECIPES["mlp-64"]})
    diverging(monkeypatch, module, lambda job: job.seed == 3 or not some)
    report = run(name, few, Options(seeds=4, epochs=2))
    assert {line.time for line in report.lines if line.time} == ({told} if some else set())
    assert all(len(line.seconds) == 3 * some for line in report.lines if "accuracy" in line.what and line.seconds)
    json.loads(json.dumps(report.to_json()), parse_constant=pytest.fail)


def test_the_figure_of_seconds_leaves_out_what_diverged(few, monkeypatch):
    diverging(monkeypatch, study, lambda job: job.seed == 3 or job.labels["batch_size"] == 8)
    report = run("mlp-64", few, Options(seeds=4, epochs=2))
    axes = next(axes for axes in report.figures["seconds-by-batch"]().axes if axes.axison)
    np.testing.assert_allclose(axes.lines[1].get_ydata(), [np.nan] + [3.0] * 7)
    assert [text.get_text() for text in axes.texts[8:]] == ["3.0"] * 7


def test_the_best_epochs_are_of_networks_that_did_not_diverge():
    trained = taught([[0.5, 0.9, 0.7], [0.95], [0.6, 0.7, 0.8]])
    told = "highest test accuracy of any epoch, which flatters: 85.00 ± 7.07 % (epoch 2, 3)"
    row = find("mlp-128")
    assert curves._notes({"one": trained}, row) == [told]
    assert curves._notes({"one": trained, "two": trained[1:2]}, row) == [f"one: {told}"]


def test_an_earlier_epoch_is_of_networks_that_did_not_diverge():
    row, setting = find("mlp-50-50"), curves.SETTINGS["mlp-50-50"]
    trained = taught([[0.5, 0.97, 0.95], [0.6, 0.98, 0.95], [0.1]])
    line = curves._lines("x", trained, row, Options(seeds=3), setting)[0]
    assert line.verdict == "at least 96 %: no; 97.50 % after 2 epochs, chosen by the test images"
    assert line.time == "4.5 s"
    gone = curves._lines("x", taught([[0.5, 0.97], []]), row, Options(seeds=2), setting)[0]
    assert (gone.text, gone.time, gone.verdict) == ("diverged", "", "")


# ---- numpy-gd


def test_rows_are_shuffled_and_cut_80_to_20():
    y = np.arange(100, dtype=np.int32)
    whole = Part(np.repeat(y[:, None], 3, axis=1).astype(np.uint8), y)
    train, test = numpy_gd.split(whole, 0)
    assert (len(train), len(test)) == (80, 20)
    assert sorted([*train.y, *test.y]) == list(range(100)) and train.y.tolist() != list(range(80))
    assert np.array_equal(train.x[:, 0], train.y)
    assert numpy_gd.split(whole, 0)[0].y.tolist() == train.y.tolist()
    assert numpy_gd.split(whole, 1)[0].y.tolist() != train.y.tolist()


def test_it_is_full_batch_gradient_descent_by_hand(few):
    """Two iterations of a network against NumPy alone, in float64."""
    table = numpy_gd.read(few, Options(), Watch())
    report = run("numpy-gd", few, Options(epochs=2))
    ours = next(one for one in report.trained if one.job.labels["network"] == "784-32-10")
    start = {name: view.astype(np.float64) for name, view in numpy_gd._make(table, (32,), 0).parameters().items()}
    w1, b1, w2, b2 = (start[name] for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    train, test = numpy_gd.split(table.labelled, 0)
    x, t = train.x / 255.0, np.eye(10)[train.y]
    for _ in range(2):
        hidden = np.maximum(x @ w1 + b1, 0)
        proba = np.exp(hidden @ w2 + b2)
        proba /= proba.sum(axis=1, keepdims=True)
        delta = (proba - t) / len(x)
        back = (delta @ w2.T) * (hidden > 0)
        w2, b2 = w2 - 0.1 * hidden.T @ delta, b2 - 0.1 * delta.sum(axis=0)
        w1, b1 = w1 - 0.1 * x.T @ back, b1 - 0.1 * back.sum(axis=0)
    named = ours.network.parameters()
    for name, wanted in (("0.weight", w1), ("0.bias", b1), ("2.weight", w2), ("2.bias", b2)):
        np.testing.assert_allclose(named[name], wanted, rtol=0, atol=2e-5)
    guesses = (np.maximum(test.x / 255.0 @ w1 + b1, 0) @ w2 + b2).argmax(axis=1)
    assert ours.final[1] == pytest.approx((guesses == test.y).mean(), abs=0.02)


def test_predictions_are_counted_from_1(few):
    report = run("numpy-gd", few, Options(epochs=1))
    lines = report.files["predictions.csv"].decode().splitlines()
    assert lines[0] == "imageId,Predictions" and lines[1].startswith("1,")
    assert len(lines) == 1 + len(few.train) + len(few.test) - 300
    network = report.trained[0].network
    others = numpy_gd.drawn(few, 300, 0)[1]
    assert [int(line.split(",")[1]) for line in lines[1:]] == network.predict(others.x).tolist()


def test_predictions_are_of_a_network_that_did_not_diverge(few, monkeypatch):
    diverging(monkeypatch, numpy_gd, lambda job: job.seed == 0)
    report = run("numpy-gd", few, Options(seeds=2, epochs=1))
    assert any(note.endswith("by 784-256-128-64-10, seed 1; imageId counts from 1") for note in report.notes)
    predicted = [int(line.split(",")[1]) for line in report.files["predictions.csv"].decode().splitlines()[1:]]
    others = numpy_gd.drawn(few, 300, 0)[1]
    assert predicted == report.trained[1].network.predict(others.x).tolist()
    report.figures["predictions"]()
    diverging(monkeypatch, numpy_gd, lambda job: True)
    report = run("numpy-gd", few, Options(seeds=2, epochs=1))
    assert "predictions.csv: not written, since every network diverged" in report.notes
    assert (report.files, list(report.figures)) == ({}, ["loss-and-accuracy"])


# ---- mlp-64: comparison


def test_the_study_is_compared_by_both_spreads():
    line = study.Measured("x", (0.970, 0.972, 0.971))
    claim = study.CLAIMS[64]
    wanted = 3 * np.sqrt(0.001**2 / 3 + 0.001**2 / 4)
    assert study.allowance(line, claim) == pytest.approx(wanted)
    assert study.verdict(64, line) == f"agrees with 97.2 ± 0.1 %: 0.10 of {100 * wanted:.2f} points"
    assert study.verdict(64, study.Measured("x", (0.95, 0.951))).startswith("differs from 97.2 ± 0.1 %: 2.15 of")
    wild = study.Measured("x", (0.5, 0.97))
    assert study.allowance(wild, claim) == 0.015
    assert study.verdict(64, study.Measured("x", (0.97,))) == "two seeds or more are needed to compare"
    assert study.verdict(8, study.Measured("x", (0.92, 0.6, float("nan")))).endswith("2 of 3 collapsed")


# ---- mlp-64-tsne


def test_activations_are_the_last_hidden_layer_s():
    data = images()
    network = study.make(data, 0)
    named = network.parameters()
    x = data.train.x[:7] / 255 * 2 - 1
    first = np.maximum(x @ named["0.weight"] + named["0.bias"], 0)
    wanted = np.maximum(first @ named["2.weight"] + named["2.bias"], 0)
    np.testing.assert_allclose(tsne.last_hidden(network, data.train.x[:7]), wanted, rtol=1e-4, atol=1e-5)


def test_aligning_turns_and_mirrors_but_keeps_distances():
    points = np.random.default_rng(0).normal(size=(50, 2))
    points -= points.mean(axis=0)
    turned = points @ np.array([[0.0, 1.0], [1.0, 0.0]]) @ np.array([[0.6, -0.8], [0.8, 0.6]])
    np.testing.assert_allclose(tsne.aligned(turned, points), points, atol=1e-9)


def test_neighbours_of_the_same_class():
    points = np.concatenate([np.random.default_rng(k).normal(100 * k, 1, (20, 2)) for k in range(2)])
    y = np.repeat([0, 1], 20)
    assert tsne.neighbours(points, y) == 1
    assert tsne.neighbours(points, np.arange(40) % 2) < 0.7


@pytest.mark.skipif(not SKLEARN, reason="scikit-learn is not installed")
def test_the_tsne_series_has_one_picture_an_epoch(tmp_path):
    watch = Recorder()
    report = run("mlp-64-tsne", images(), Options(quick=True, epochs=1), watch)
    assert list(report.figures) == ["series", "epoch-00", "epoch-01"]
    assert watch.words == ["t-SNE before training", "t-SNE after epoch 1"]
    assert report.extra["perplexity"] == 30 and set(report.extra["neighbours_of_the_same_class"]) == {"0", "1"}
    Folder(tmp_path, True, {}).add(report)
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_adam_and_batch_sizes_reach_the_networks(few):
    report = run("mlp-50-50", few, Options(epochs=1))
    (one,) = report.trained
    assert one.job.optimizer == Adam(0.01) and one.job.batch_size == 64 and one.job.eval_train
    assert [layer.outputs for layer in one.network.layers] == [50, 50, 10]
    assert one.network.init == "pytorch" and one.network.scaling.kind == "unit"
