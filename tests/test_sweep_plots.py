"""The figures of a sweep: all there, legible, for one option and several, for grids, samples and seeds."""

import numpy as np
import pytest
from rendering import BLUE, draw, has_colour, texts

from mlpkernels.state import EpochResult
from mlpkernels.sweep import Range, grid, sample
from mlpkernels.sweep_plots import figures
from mlpkernels.sweep_results import header, line, read
from mlpkernels.sweep_scale import Scale, brief, name_of


@pytest.fixture
def swept(tmp_path):
    """Results of made-up networks: accuracy(setting) after some epochs, or a list of each one's; None: it diverges."""

    def swept(settings, accuracy, epochs=5, val=False):
        random = np.random.default_rng(0)
        lines = [header(settings[0])]
        for setting in settings:
            final = accuracy(setting)
            last = len(final) if isinstance(final, list) else epochs
            for epoch in range(1, last + 1):
                if final is None:
                    lines.append(line(setting.values(), "diverged", epoch, None))
                    break
                if isinstance(final, list):
                    reached = final[epoch - 1]
                else:
                    reached = final - (1 - epoch / epochs) * 0.2 + 0.002 * random.normal()
                shown = (0.3, reached) if val else (None, None)
                row = EpochResult(epoch, 0.1, 0.2, *shown, 1 - reached, reached, 0.001, 0.013, 1.0, False)
                lines.append(line(setting.values(), "finished" if epoch == last else "training", epoch, row))
        path = tmp_path / "results.csv"
        path.write_text("".join(lines))
        return read(path)

    return swept


def drawn(results, *arguments):
    """{name: texts} of all figures, each checked for texts cut off and overlapping."""
    found = {}
    for name, figure in figures(results, *arguments):
        pixels = draw(figure)
        assert has_colour(pixels, BLUE) or name.startswith(("heat", "epochs"))
        found[name] = texts(figure)
    return found


def test_one_option_with_seeds_is_the_study(swept):
    sizes = [8, 16, 32, 48, 64, 90, 128, 150]
    settings = grid(**{"batch-size": sizes, "seed": range(4)})
    found = drawn(swept(settings, lambda s: 0.9 + 0.0004 * s["batch-size"] + 0.001 * s["seed"]), ["batch-size"])
    assert list(found) == ["epochs", "final", "heat-batch-size-epoch", "best"]
    told = "32 networks  ·  mean ± standard deviation over seed, n = 4"
    heat = found["heat-batch-size-epoch"]
    assert all(told in shown for shown in found.values() if shown is not heat)
    assert "32 networks  ·  mean over seed, n = 4" in heat  # its cells have no spread
    assert "Test accuracy by epoch" in found["epochs"] and any(
        shown.startswith("150  96.") for shown in found["epochs"]
    )
    assert {"8", "64", "150", "— mean"} <= set(found["final"])
    assert {"Test accuracy by batch-size and epoch", "96.1"} <= set(heat)
    assert any(shown.startswith("96.1") and " ± 0." in shown for shown in found["best"])


def test_bands_are_within_their_axis(swept):
    settings = grid(**{"batch-size": [8, 32], "seed": range(4)})
    results = swept(settings, lambda s: 0.9 + 0.02 * s["seed"] - 0.001 * s["batch-size"])
    (panel,) = [axes for axes in dict(figures(results))["epochs"].axes if axes.collections]
    low, high = panel.get_ylim()
    for band in panel.collections:
        last = [y for x, y in band.get_paths()[0].vertices if x == max(band.get_paths()[0].vertices[:, 0])]
        assert low < min(last) < max(last) < high
    assert len(panel.collections) == 2


@pytest.mark.parametrize(
    ("options", "best"),
    [({"seed": range(3)}, True), ({"batch-size": [8, 32]}, True), ({"batch-size": [8, 32], "seed": range(3)}, True),
     ({"seed": range(3)}, False)],
)  # fmt: skip
def test_lines_may_end_below_what_was_kept(swept, options, best):
    """By early stopping, or by a rounding error of their mean."""
    ends = {0: 0.9724, 1: 0.9882, 2: 0.9341}
    curves = swept(grid(**options), lambda s: [0.99, 0.9, 0.8] if best else [0.5, ends[int(s["seed"])]], val=best)
    found = {name: texts(figure) for name, figure in figures(curves, (), lambda settings: best)}
    assert f"{'Validation' if best else 'Test'} accuracy by epoch" in found["epochs"]


def test_a_spread_is_told_only_where_it_is_drawn(swept):
    settings = grid(**{"batch-size": [8, 32], "hidden": ["4", "8"], "seed": range(2)})
    found = {name: texts(figure) for name, figure in figures(swept(settings, lambda s: 0.9 + 0.01 * s["seed"]))}
    with_spread, without = (f"8 networks  ·  {mean} over seed, n = 2" for mean in ("mean ± standard deviation", "mean"))
    assert without in found["epochs"] and with_spread not in found["epochs"]
    assert all(with_spread in found[name] for name in ("final", "heat-batch-size-hidden", "best"))


def test_several_options_have_a_panel_each_and_a_heat_map_a_pair(swept):
    settings = grid(
        **{"batch-size": [8, 32, 128], "learning-rate": [1e-4, 0.00316228, 0.1], "optimizer": ["sgd", "adam"]}
    )
    found = drawn(swept(settings, lambda s: 0.95 - s["learning-rate"], val=True), ["learning-rate"])
    assert list(found) == [
        "epochs", "final", "heat-batch-size-learning-rate", "heat-batch-size-optimizer",
        "heat-learning-rate-optimizer", "best",
    ]  # fmt: skip
    assert {"by batch-size", "by learning-rate", "by optimizer"} <= set(found["epochs"])
    assert any("the best of optimizer" in shown for shown in found["heat-batch-size-learning-rate"])
    assert "0.003162" in found["final"] and "Final validation accuracy" in found["final"]
    assert any("the first 15 of 18 settings" in shown for shown in found["best"])


def test_a_random_sample_is_points(swept):
    settings = sample(60, **{"learning-rate": Range(1e-4, 1, log=True), "batch-size": Range(8, 500, whole=True)})
    found = drawn(swept(settings, lambda s: 0.9 - 0.1 * abs(np.log10(s["learning-rate"]) + 2)), ["learning-rate"])
    assert list(found) == ["epochs", "final", "heat-learning-rate-batch-size", "best"]
    assert {"0.001", "0.01", "0.1"} <= set(found["heat-learning-rate-batch-size"])
    assert "• a network" in found["final"] and "— best of the others" not in found["final"]


def test_what_diverged_is_told_and_left_grey(swept):
    settings = grid(a=[1, 2], b=["x", "y"], seed=[0, 1])
    bad = {(2, "y", 0), (2, "y", 1), (1, "x", 1)}
    found = drawn(swept(settings, lambda s: None if tuple(s.values()) in bad else 0.8))
    assert all(any("3 diverged" in shown for shown in told) for told in found.values())
    assert "-  none finished" in found["heat-a-b"] and "1 diverged" in found["best"]


def test_few_settings_far_below_the_others_are_cut_off_and_told(swept):
    found = drawn(swept(grid(a=range(10)), lambda s: 0.1 if s["a"] == 9 else 0.97))
    assert any("1 setting below" in shown for shown in found["epochs"])
    assert any(shown.endswith("and less") for shown in found["heat-a-epoch"])


def test_many_lines_close_together_keep_their_names_apart(swept):
    found = drawn(swept(grid(**{"batch-size": range(8, 20), "seed": [0, 1]}), lambda s: 0.97))
    assert sum((shown.endswith(" %") and "  97." in shown) or "  96." in shown for shown in found["epochs"]) == 12


def test_seeds_alone_and_a_single_epoch(swept):
    found = drawn(swept(grid(seed=range(3)), lambda s: 0.9, epochs=1))
    assert list(found) == ["epochs", "best"]


def test_long_names_fit(swept):
    wide = ",".join(["1024"] * 30)
    found = drawn(swept(grid(hidden=[wide, "8", "漢字" * 30], depth=[1, 2]), lambda s: 0.9))
    assert list(found) == ["epochs", "final", "heat-hidden-depth", "best"]


def test_where_nothing_finished_a_figure_says_so(swept):
    found = drawn_message(swept(grid(a=[1, 2]), lambda s: None))
    assert found == [["Sweep", "No network is finished yet, or all of them diverged."]]


def drawn_message(results):
    return [texts(figure) for _, figure in figures(results)]


def test_places_on_an_axis():
    log = Scale([1, 10, 100], False)
    assert log.logarithmic and log.place(10) == pytest.approx(0.5)
    even = Scale([1, 2, 3], False)
    assert not even.logarithmic and even.place(2) == pytest.approx(0.5)
    assert Scale([1, 2, 3], True).logarithmic and not Scale([0, 1, 1000], True).logarithmic
    assert Scale([8, "full"], True).place("full") == 0.75 and Scale([8, 64], True).place(8) == 0.25
    assert (name_of(0.000316228), name_of(8), name_of("x")) == ("0.0003162", "8", "x")
    assert (brief(0.00134), brief(0.151), brief(12.34)) == ("0.0013", "0.15", "12.3")
