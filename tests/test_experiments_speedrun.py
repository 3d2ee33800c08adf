"""The speedrun: its recipes, what it reports, and that the peers train as we do."""

import dataclasses
import functools
import json
import math

import numpy as np
import pytest
from rendering import draw, texts
from small_images import images
from support import timeless

from mlpkernels import AdamW
from mlpkernels.bench import peers
from mlpkernels.errors import MlpkError
from mlpkernels.experiments import Options, figures, find, run, speedrun, speedrun_peers
from mlpkernels.experiments.folder import Folder
from mlpkernels.experiments.report import Measured
from mlpkernels.experiments.side_by_side import Watch
from mlpkernels.layers import Conv2d, Dense, MaxPool2d

ROW = find("speedrun")


@pytest.fixture
def dense(monkeypatch):
    """Only the first recipe, which takes a moment."""
    monkeypatch.setattr(speedrun, "RECIPES", {"mlp-64": speedrun.RECIPES["mlp-64"]})


def test_the_recipes_are_of_the_goals():
    assert {name: recipe.target for name, recipe in speedrun.RECIPES.items()} == {
        "mlp-64": 0.9764, "mlp": 0.98, "cnn": 0.99,
    }  # fmt: skip
    first, second, third = speedrun.RECIPES.values()
    assert first.layers == (Dense(64, "relu"), Dense(64, "relu"), Dense(10)) and first.hidden == (64, 64)
    assert all(isinstance(layer, Dense) for layer in second.layers) and second.hidden
    assert isinstance(third.layers[0], Conv2d) and third.hidden == ()
    for recipe in speedrun.RECIPES.values():
        widths = "-".join(map(str, (784, *recipe.hidden, 10)))
        assert recipe.network.startswith(f"{widths}," if recipe.hidden else "conv 1→")
        assert recipe.make(images(), 0).scaling.kind == "unit"


def test_every_recipe_trains_its_own_epochs_and_is_written_whole(tmp_path):
    report = run("speedrun", images(), Options(seeds=2))
    assert [len(one.history) for one in report.trained] == [
        recipe.epochs for recipe in speedrun.RECIPES.values() for _ in range(2)
    ]
    assert [line.what for line in report.lines] == [f"test accuracy, {name}" for name in speedrun.RECIPES]
    assert [line.claimed for line in report.lines] == ["97.64 %, as a mean", "98.00 %, as a mean", "99.00 %, as a mean"]
    assert all(line.verdict.startswith("at least ") for line in report.lines)
    assert all(line.verdict.endswith("; 20 seeds are wanted") for line in report.lines)
    assert not any("instead of" in remark for remark in report.remarks())
    Folder(tmp_path, False, {}).add(report)
    text = (tmp_path / "table.md").read_text()
    assert "here each network's own epochs, seeds 0 to 1" in text and "of speedrun the median (least…most)" in text
    assert (tmp_path / "pictures" / "speedrun-accuracy-by-seconds.png").stat().st_size > 0
    (found,) = json.loads((tmp_path / "metrics.json").read_text())["experiments"]
    assert found["peers"] == [] and found["peers absent"] == []


def test_a_goal_is_judged_by_the_mean_of_twenty_seeds(dense):
    (line,) = run("speedrun", images(), Options(seeds=20)).lines
    assert line.verdict == f"at least 97.64 %: {'yes' if line.mean >= 0.9764 else 'no'}"


def test_the_listing_has_the_recipes():
    recipes = speedrun.RECIPES.values()
    assert f"batches of {', '.join(str(recipe.batch_size) for recipe in recipes)}; " in ROW.training
    assert ROW.training.endswith(f"{', '.join(str(recipe.epochs) for recipe in recipes)} epochs")
    networks = [recipe.network.partition(",")[0] for recipe in recipes if recipe.hidden]
    channels = [layer.channels for layer in speedrun.RECIPES["cnn"].layers if isinstance(layer, Conv2d)]
    assert ROW.network == "; ".join([*networks, f"a CNN of {' and '.join(map(str, channels))} channels"])


def test_epochs_change_the_length_and_no_goal_is_judged(dense):
    report = run("speedrun", images(), Options(seeds=1, epochs=2))
    assert len(report.trained[0].history) == 2 and report.lines[0].verdict == ""
    batch = speedrun.RECIPES["mlp-64"].batch_size
    assert "2 instead of each network's own epochs: not what was claimed" in report.remarks()
    assert any(f"batch {batch}, 2 epochs; " in remark for remark in report.remarks())


def test_the_rate_follows_the_recipe_s_schedule(dense):
    recipe = speedrun.RECIPES["mlp-64"]
    report = run("speedrun", images(), Options(seeds=1))
    steps = math.ceil(400 / recipe.batch_size)
    wanted = [
        recipe.schedule.rates(recipe.optimizer.learning_rate, epoch, steps, recipe.epochs)[-1]
        for epoch in range(recipe.epochs)
    ]
    assert [result.learning_rate for result in report.trained[0].history] == wanted
    assert wanted[-1] < recipe.optimizer.learning_rate / 1000


def test_a_network_s_threads_change_nothing(dense):
    one, two, either = (run("speedrun", images(), Options(seeds=1, threads=count)) for count in (1, 2, None))
    assert timeless(one.trained[0].history) == timeless(two.trained[0].history) == timeless(either.trained[0].history)


def test_times_are_told_by_their_median():
    line = Measured("x", (0.9, 0.91, 0.92), seconds=(3.0, 1.0, 1.5), races=True)
    assert line.time == "1.5 s (1…3)" and dataclasses.replace(line, races=False).time == "1.83 s"
    assert dataclasses.replace(line, seconds=(1.5,)).time == "1.5 s"


def test_what_diverges_is_left_out_of_times_and_figure(dense, monkeypatch):
    recipe = dataclasses.replace(speedrun.RECIPES["mlp-64"], optimizer=AdamW(1e30))
    monkeypatch.setattr(speedrun, "RECIPES", {"mlp-64": recipe})
    report = run("speedrun", images(), Options(seeds=1))
    (line,) = report.lines
    assert line.text == "diverged" and line.time == "" and line.verdict == "" and report.figures == {}
    raced = speedrun_peers.Raced("another", "mlp-64", 1, False, np.ones((1, 2)), np.ones((1, 2)))
    assert speedrun._peer_line(raced, line).verdict == ""


# ---- peers

SYSTEMS = {peers.TORCH: "torch", peers.JAX: "jax"}


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", speedrun.RECIPES)
def test_a_peer_trains_as_we_do(system, name, monkeypatch):
    pytest.importorskip(SYSTEMS[system])
    monkeypatch.setattr(speedrun_peers, "SYSTEMS", (system,))
    monkeypatch.setattr(speedrun, "RECIPES", {name: speedrun.RECIPES[name]})
    told = []
    watch = Watch()
    watch.say = told.append
    report = run("speedrun", images(2000, 1000), Options(seeds=2, peers=True, peer_seeds=2), watch)
    ours, theirs = report.lines
    assert theirs.what == f"the same in {system}" and theirs.verdict.endswith(" times as long")
    assert len(theirs.seconds) == 2 and min(theirs.seconds) > 0
    np.testing.assert_allclose(theirs.values, ours.values, rtol=0, atol=0.01)
    (raced,) = report.extra["peers"]
    by_epoch = [one.column("test_accuracy") for one in report.trained]
    np.testing.assert_allclose(raced["accuracy"], by_epoch, rtol=0, atol=0.02)
    assert told[0] == f"{name} in {system}" and told[1].startswith(f"{name} in {system}: ")
    assert any(remark.startswith("peers: the same initial values") for remark in report.remarks())
    seen = texts(drawn := report.figures["accuracy-by-seconds"]())
    draw(drawn)
    assert any(text.startswith(f"{name}, {system}: ") for text in seen)


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_peer_that_trains_otherwise_is_refused(system, monkeypatch):
    pytest.importorskip(SYSTEMS[system])
    monkeypatch.setattr(speedrun_peers, "SYSTEMS", (system,))
    wrong = functools.partial(np.full, 3, 1.0)
    monkeypatch.setattr(speedrun_peers.bench, "reference_losses", lambda case, found: wrong())
    recipe, data = speedrun.RECIPES["mlp-64"], images()
    with pytest.raises(MlpkError, match="trains otherwise than the plain kernels"):
        speedrun_peers.train("mlp-64", recipe, [recipe.make(data, 0)], 1, data.train, data.test, Watch())


def test_a_peer_that_is_not_installed_is_told(dense, monkeypatch):
    monkeypatch.setattr(peers, "absent", lambda: [peers.TORCH, peers.JAX, peers.SKLEARN])
    report = run("speedrun", images(), Options(seeds=1, epochs=1, peers=True))
    assert len(report.lines) == 1
    assert "not installed, so not beside: PyTorch eager, JAX jit + scan" in report.remarks()


# ---- its figure


@pytest.mark.parametrize("seeds, epochs", [(1, 1), (20, 4)])
@pytest.mark.parametrize("systems", [["mlpkernels"], ["mlpkernels", "PyTorch eager", "JAX jit + scan"]])
def test_the_race_shows_every_system_s_end(seeds, epochs, systems):
    random = np.random.default_rng(0)
    targets = {name: recipe.target for name, recipe in speedrun.RECIPES.items()}
    races = [
        figures.Race(
            name, system, random.uniform(1, 1.1, (seeds, epochs)) * 0.05 * 9**place * 4**which,
            np.linspace(0.93, target + 0.0005, epochs) + random.normal(0, 0.0005, (seeds, epochs)),
        )
        for place, (name, target) in enumerate(targets.items()) for which, system in enumerate(systems)
    ]  # fmt: skip
    figure = figures.race_figure("speedrun: test accuracy by seconds of training (quick)", races, targets)
    draw(figure)
    panel = next(axes for axes in figure.axes if axes.axison)
    lines = [line for line in panel.lines if line.get_marker() != "None"]
    for race, line in zip(races, lines, strict=True):
        np.testing.assert_allclose(line.get_xdata(), np.cumsum(np.median(race.seconds, axis=0)))
        np.testing.assert_allclose(line.get_ydata(), figures.stretched(race.accuracy.mean(axis=0)))
    seen = texts(figure)
    assert len([text for text in seen if " % in " in text]) == len(races)


def test_the_race_tells_how_many_seeds_each_system_had():
    targets = {name: recipe.target for name, recipe in speedrun.RECIPES.items()}
    races = [
        figures.Race(name, system, np.full((seeds, 2), 0.05), np.full((seeds, 2), target))
        for name, target in targets.items()
        for system, seeds in (("mlpkernels", 20), ("PyTorch", 3), ("JAX", 20))
    ]
    seen = texts(figures.race_figure("speedrun", races, targets))
    assert any(text.startswith("mean accuracy of 20 seeds (PyTorch of 3), median seconds") for text in seen)


def test_pools_and_kernels_are_what_the_peers_know():
    """The peers' networks are convolutions without padding, each with a ReLU and a pool of 2."""
    layers = speedrun.RECIPES["cnn"].layers
    for place, layer in enumerate(layers):
        if isinstance(layer, Conv2d):
            assert layer == Conv2d(layer.channels, layer.kernel, activation="relu")
            assert layers[place + 1] == MaxPool2d(2)
