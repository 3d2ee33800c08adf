"""The rows with convolutions, dropout and batch normalisation: their networks, and that they run."""

import numpy as np
import pytest
from small_images import images

from mlpkernels import Network
from mlpkernels.experiments import Options, curves, run, side_by_side
from mlpkernels.experiments.folder import Folder
from mlpkernels.experiments.report import Measured
from mlpkernels.layers import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d


def test_the_cnn_is_the_document_s():
    (stack,) = curves.SETTINGS["cnn"].networks.values()
    network = curves._make(images(), stack, 0)
    assert [type(layer) for layer in network.layers] == [Conv2d, MaxPool2d, Conv2d, MaxPool2d, Dense, Dense]
    # 1 -> 10 5 x 5, 10 -> 20 5 x 5, 320 -> 50 -> 10
    assert network.parameter_count == 260 + 5020 + 320 * 50 + 50 + 510


def test_the_regularised_networks_differ_from_the_plain_one_by_one_thing_each():
    kinds = {
        name: [type(layer) for layer in curves._make(images(), stack, 0).layers]
        for name, stack in curves.SETTINGS["mlp-128-regularised"].networks.items()
    }
    assert kinds == {
        "plain": [Dense] * 3,
        "dropout": [Dense, Dropout, Dense, Dropout, Dense],
        "batch norm": [Dense, BatchNorm, Dense, BatchNorm, Dense],
        "both": [Dense, BatchNorm, Dropout, Dense, BatchNorm, Dropout, Dense],
    }


@pytest.mark.parametrize("name", ["cnn", "mlp-128-regularised"])
def test_the_rows_run(name):
    report = run(name, images(), Options(seeds=2, epochs=2))
    assert all(len(one.history) == 2 for one in report.trained)
    for draw in report.figures.values():
        draw()
    if name == "mlp-128-regularised":
        gains = [line for line in report.lines if line.what.startswith("gain")]
        assert [line.what.rpartition(" by ")[2] for line in gains] == ["dropout", "batch norm", "both"]
        plain, *others = (line for line in report.lines if line.what.startswith("test accuracy"))
        assert gains[0].values == pytest.approx([a - b for a, b in zip(others[0].values, plain.values, strict=True)])
        assert all(line.text.endswith(" points") for line in gains)


def test_the_cnn_leaves_its_filters_and_its_network(tmp_path):
    report = run("cnn", images(), Options(seeds=2, epochs=1, quick=True))
    assert list(report.figures) == ["curves", "filters"]
    words = [
        text.get_text() for text in report.figures["filters"]().findobj(match=lambda one: hasattr(one, "get_text"))
    ]
    assert "cnn: filters, seed 0 (quick)" in words and "first layer, 10 filters of 5 x 5, strongest first" in words
    Folder(tmp_path, True, {}).add(report)
    network = Network.load(tmp_path / "quick-cnn-model.safetensors")
    assert network.params.tobytes() == report.trained[0].network.params.tobytes()
    assert any(remark.startswith("quick-cnn-model.safetensors: the network of seed 0") for remark in report.remarks())


def test_one_network_is_kept_and_of_several_none():
    assert run("mlp-50-50", images(), Options(epochs=1)).model is not None
    assert run("mlp-128-regularised", images(), Options(epochs=1)).model is None


@pytest.mark.parametrize(
    "gains, told",
    [
        ([0.01], ""),
        ([0.012, 0.011], "may be chance (t test, 99 %)"),  # 23 standard errors, of two pairs
        ([0.0021, 0.0019, 0.002, 0.0022, 0.0018], "clear (t test, 99 %)"),
        ([-0.0021, -0.0019, -0.002, -0.0022, -0.0018], "clear (t test, 99 %)"),
        ([0.001, -0.001, 0.002, 0.0005, 0.0], "may be chance (t test, 99 %)"),
        ([0.01, float("nan")], ""),
    ],
)
def test_an_effect_is_clear_where_chance_hardly_makes_it(gains, told):
    assert curves._beyond_chance(Measured("gain", tuple(gains))) == told


def test_an_earlier_epoch_that_reached_the_claim_is_told():
    accuracy = np.array([[0.98, 0.991, 0.988], [0.97, 0.989, 0.989]])
    assert curves._earlier(accuracy, 0.9895) == "; 99.00 % after 2 epochs, chosen by the test images"
    assert curves._earlier(accuracy, 0.995) == "" == curves._earlier(accuracy[:, :1], 0.5)
    assert curves._earlier(np.array([[0.9, np.nan, np.nan]]), 0.99) == ""


def test_student_s_t_is_scipy_s():
    stats = pytest.importorskip("scipy.stats")
    wanted = stats.t.ppf(0.995, range(1, len(curves._STUDENT) + 1))
    assert pytest.approx(wanted, rel=2e-4) == curves._STUDENT


def test_kernels_of_every_network_are_ready_before_the_first_epoch(monkeypatch):
    seen = []
    monkeypatch.setattr(side_by_side, "_ready", lambda job: seen.append((job.labels["network"], job.seed)))
    run("mlp-128-regularised", images(), Options(seeds=2, epochs=1))
    assert seen == [(name, 0) for name in ("plain", "dropout", "batch norm", "both")]
