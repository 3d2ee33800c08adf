"""`mlpkernels.bench`: turns and what is taken off them, answers checked, files, ratios, the roofline."""

import dataclasses
import json
import time

import numpy as np
import pytest
from rendering import draw, has_colour, texts

from mlpkernels import bench
from mlpkernels.affinity import cpu_count
from mlpkernels.bench import epochs, forced, images, kernels, machine, peers, roofline, timing
from mlpkernels.bench.results import Entry, Results, mean, worst
from mlpkernels.errors import MlpkError, UnavailableError


def entry(name="forward 784-64, batch 64", seconds=(1e-3, 1.1e-3, 1.2e-3), **others):
    values = {
        "section": "kernels", "group": "dense forward", "name": name, "system": kernels.OURS, "threads": 1,
        "flops": 1e8, "bytes": 1e7, "images": 64.0, "nominal": False, "cut": False, "seconds": tuple(seconds),
    }  # fmt: skip
    return Entry(**{**values, **others})


def measured(entries, **others):
    values = {
        "date": "2026-01-02 03:04",
        "machine": {"cpu": "Some CPU", "cores": 2, "vector extensions": ["avx2"], "llvm cpu": "x"},
        "settings": {"quick": False, "images": "MNIST", "threads": [1, 2]},
        "versions": {"python": "3.11", "kernels": "abc"},
        "load": {"before": [0.1, 0.1, 0.1], "after": [1.0, 0.5, 0.2], "others": 0.02, "waits": 1.0},
        "ceilings": {"1": {"flops": 2e11, "bytes": 4e10}, "2": {"flops": 4e11, "bytes": 5e10}},
        "peers": {},
        "entries": list(entries),
    }
    return Results(**{**values, **others})


# ---- turns


def timed(call, **others):
    return timing.Timed("kernels", "g", "n", "s", 1, call, **others)


def test_a_turn_is_a_call_s_time_without_entering():
    def call(times):
        time.sleep(0.002 * times)

    one = timed(call, empty=lambda times: time.sleep(0.001 * times))
    one.calibrate(0.01)
    assert one.times in range(2, 6)
    one.turn()
    assert 0.0009 <= one.seconds[0] < 0.05


def test_a_turn_that_did_a_part_is_extrapolated_and_says_so():
    one = timed(lambda times: time.sleep(0.01) or 0.25, warm=False)
    one.turn()
    assert one.cut and 0.04 <= one.seconds[0] < 0.5


def test_rounds_go_forwards_and_backwards_and_stop_when_time_is_up():
    seen, told = [], []
    entries = [timed(lambda times, name=name: seen.append(name), warm=False) for name in "ab"]
    timing.rounds(entries, 4, 10.0, watch=lambda done, total: told.append((done, total)))
    assert "".join(seen) == "abbaabba" and told[-1] == (8, 8)
    seen.clear()
    timing.rounds(entries, 100, 0.0)
    assert len(seen) == 2 * timing.LEAST_ROUNDS


def test_systems_that_do_the_same_take_turns_of_as_many_calls():
    entries = [timed(lambda times: None, times=times) for times in (3, 7)]
    timing.equal_turns(entries)
    assert [each.times for each in entries] == [7, 7]


# ---- the machine


def test_ceilings_are_measured_and_all_cores_reach_what_one_does():
    counts = machine.thread_counts()
    ceilings = machine.Ceilings(counts)
    ceilings.measure()
    found = ceilings.to_json()
    assert [int(count) for count in found] == counts
    for what, low, high in (("flops", 1e9, 1e13), ("bytes", 2e8, 1e13)):
        values = [found[str(count)][what] for count in counts]
        assert low < values[0] < high and values[-1] >= values[0]


def test_the_load_of_others_is_in_cores():
    others = machine.others_now(0.05)
    assert others is None or 0 <= others <= cpu_count() + 0.5


# ---- what is timed


@pytest.fixture(scope="module")
def some_images():
    return images.made_up(2048)


def test_made_up_images_are_as_lit_as_mnist(some_images):
    assert some_images.x.shape == (2048, 784) and some_images.kind == images.MADE_UP
    assert 0.17 < some_images.lit < 0.21
    assert set(some_images.y) == set(range(10))


def test_images_are_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert images.load(tmp_path, 100).kind == images.MADE_UP
    with pytest.raises(UnavailableError, match="no such folder"):
        images.load(tmp_path / "nowhere")


def test_every_kernel_passes_its_check_and_has_amounts(some_images):
    found = list(kernels.entries(some_images, [1, 2], quick=True))
    assert {each.group for each in found} == {
        "dense forward", "dense weight gradient", "dense input gradient", "loss", "update", "first layer",
        "convolution",
    }  # fmt: skip
    assert len({(each.name, each.threads) for each in found}) == len(found)
    for each in found:
        each.call(1)
        assert each.bytes > 0 and (each.flops > 0 or each.group == "loss")
        if each.empty is not None:
            each.empty(1)


@pytest.mark.parametrize("kind", [kernels.FORWARD, kernels.WEIGHTS, kernels.INPUTS])
def test_a_wrong_product_is_refused(kind):
    product = kernels.Product(kind, 20, 12, 8)
    a, b = product.operands()
    product.check(a @ b, "NumPy")
    with pytest.raises(MlpkError, match=f"NumPy: {kind} 20-12, batch 8 is wrong"):
        product.check(a @ b + 1e-3, "NumPy")


@pytest.mark.parametrize("case", epochs.CASES, ids=str)
def test_an_epoch_is_checked_against_the_plain_kernels(case, some_images):
    part = some_images.part(case.batch + 100)
    expected = epochs.reference_losses(case, part)
    ours = epochs.Ours(case, part, 1)
    epochs.check(case, kernels.OURS, ours, len(part.y), expected)
    np.testing.assert_array_equal(ours.network.params, ours.start)  # back at the start
    with pytest.raises(MlpkError, match=f"{case} trains otherwise"):
        epochs.check(case, kernels.OURS, ours, len(part.y), expected * 1.1)


def test_flops_of_training():
    pairs = [(784, 64), (64, 64), (64, 10)]
    weights = [i * o for i, o in pairs]
    assert epochs.CASES[0].flops == 6 * sum(weights) - 2 * weights[0]
    assert epochs.CASES[3].flops == pytest.approx(2.6e6, rel=0.1)


@pytest.mark.parametrize("system", [peers.TORCH, peers.SKLEARN, peers.JAX])
@pytest.mark.parametrize("case", [epochs.CASES[1], epochs.CASES[3]], ids=str)
def test_a_peer_trains_as_we_do(system, case, some_images):
    pytest.importorskip(peers.PACKAGES[system])
    if system == peers.SKLEARN and not case.hidden:
        pytest.skip("scikit-learn has no convolutions")
    part = some_images.part(case.batch * 2 + 10)
    x = part.x.astype(np.float32) / np.float32(255)
    trainer = {
        peers.TORCH: lambda: peers.Torch(case, x, part.y, 1),
        peers.SKLEARN: lambda: peers.Sklearn(case, x, part.y),
        peers.JAX: lambda: peers.Jax(case, part.x, part.y),
    }[system]()
    epochs.check(case, system, trainer, len(part.y), epochs.reference_losses(case, part))


def test_settings_that_force_kernels_are_told_and_left_once_numpy_is_there(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert "OPENBLAS_CORETYPE=Haswell" in forced.settings()
    assert forced.set_aside() == []


# ---- results


def test_a_measurement_is_written_and_read_again(tmp_path):
    results = measured([entry(), entry("other", threads=2)])
    results.write(tmp_path / "a.json")
    assert bench.read(tmp_path / "a.json") == results
    assert json.loads((tmp_path / "a.json").read_text())["format"] == "mlpk-bench 1"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"format": "mlpk-bench 9"}, "has format mlpk-bench 9"),
        ({"entries": []}, "times are missing"),
        ({"entries": [{"name": "x"}]}, "damaged"),
        ({"machine": 3}, "machine is no table"),
        ({"ceilings": []}, "ceilings is no table"),
        ({"more": 1}, "damaged"),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, change, message):
    path = tmp_path / "a.json"
    measured([entry()]).write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(MlpkError, match=message):
        bench.read(path)


@pytest.mark.parametrize("text", ["", "[]", "{}", "\x00", "[" * 100_000])
def test_text_that_is_no_measurement_is_refused(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MlpkError, match=r"a\.json is damaged or not a file of mlpk bench"):
        bench.read(tmp_path / "a.json")


def test_ratios_have_a_spread_and_a_worst():
    before = measured([entry(seconds=[1.0, 1.0, 1.1]), entry("b", seconds=[2.0, 2.0]), entry("gone")])
    numpy = entry("b", system="NumPy", seconds=[9.0])
    now = measured([entry(seconds=[2.0, 2.2, 2.1]), entry("b", seconds=[1.0, 1.0]), numpy, entry("new")])
    ratios = bench.compare(before, now)
    assert [each.entry.name for each in ratios] == ["forward 784-64, batch 64", "b"]
    assert ratios[0].ratio == pytest.approx(2.1) and ratios[0].low <= 2.1 <= ratios[0].high
    assert (ratios[1].ratio, ratios[1].low, ratios[1].high) == (0.5, 0.5, 0.5)
    assert mean(ratios) == pytest.approx(np.sqrt(2.1 * 0.5))
    assert worst(ratios) is ratios[0]
    with pytest.raises(MlpkError, match="nothing in common"):
        bench.compare(before, measured([entry("new")]))


def test_times_are_compared_by_the_image():
    before, now = (measured([entry(images=rows, seconds=[seconds])]) for rows, seconds in ((100.0, 1.0), (50.0, 0.5)))
    assert bench.compare(before, now)[0].ratio == 1


def test_what_differs_is_named():
    results = measured([entry()])
    assert bench.differences(results, results.machine, results.settings) == []
    other = {**results.machine, "cpu": "Other", "cores": 4}
    settings = {**results.settings, "quick": True}
    assert bench.differences(results, other, settings) == [
        "cpu was Some CPU, is Other", "cores was 2, is 4", "quick was off, is on",
    ]  # fmt: skip


def test_options_are_checked():
    with pytest.raises(ValueError, match="only='x'"):
        bench.Options(only="x")


# ---- the figure


def several():
    names = [f"kernel number {number}" for number in range(9)]
    return [
        entry(name, threads=count, seconds=[1e-3 * (1 + 0.2 * index) / count], flops=1e8, group=group)
        for index, name in enumerate(names)
        for count in (1, 2)
        for group in ["update" if index == 0 else "convolution" if index == 1 else "dense forward"]
    ]


def test_roofline_has_a_number_a_kernel_in_each_panel_and_names_them_once():
    figure = bench.roofline_figure(measured(several()))
    figure.canvas.draw()
    seen = texts(figure)
    for number in range(9):
        assert seen.count(f"kernel number {number}") == 1
        assert seen.count(str(number + 1)) >= 3  # in two panels and in the key
    assert {"1 thread", "2 threads", "multiply-adds 200 GFLOP/s", "memory 50 GB/s"} <= set(seen)
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    assert has_colour(pixels, (0, 114, 178)) and has_colour(pixels, (213, 94, 0))


def test_roofline_of_one_kernel_on_one_thread_overlaps_nothing():
    results = measured([entry(), entry(system="NumPy")], ceilings={"1": {"flops": 2e11, "bytes": 4e10}})
    figure = bench.roofline_figure(results)
    draw(figure)
    assert "○ NumPy" in texts(figure)


def test_numbers_stand_apart():
    points = [roofline.Point(number, "k", 200.0 + number % 3, 200.0) for number in range(9)]
    slope = (0.0, 320.0, 400.0, 80.0)
    roofline._number(points, (0, 0, 400, 400), (0, 0, 10, 10), [slope])
    places = [point.texts for point in points]
    gaps = [np.hypot(a[0] - b[0], a[1] - b[1]) for i, a in enumerate(places) for b in places[:i]]
    assert min(gaps) > 15
    assert min(roofline._apart(*place, slope) for place in places) > 9
    assert roofline._apart(410.0, 80.0, slope) == pytest.approx(10)  # beyond its end


def test_roofline_without_kernels_says_so():
    figure = bench.roofline_figure(measured([dataclasses.replace(entry(), section="epochs")]))
    assert "No kernels were measured." in texts(figure)
