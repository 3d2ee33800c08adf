"""sweep: the same networks as one after another, whatever runs beside them; grids, samples, stops and errors."""

import threading
import time

import numpy as np
import pytest
from support import CLASSES, WIDTH, StopHere, blobs, network, overfitting, timeless

from mlpkernels import SGD, Adam, Dense, Network, Scaling, fit
from mlpkernels import run as runs
from mlpkernels.datasets import Part
from mlpkernels.sweep import DIVERGED, FINISHED, STOPPED_EARLY, TRAINING, Range, grid, sample, sweep

TRAIN, TEST = blobs(), blobs(30, 1)


def make(batch_size=32, seed=0, learning_rate=0.1, epochs=3):
    return network(seed=seed), {
        "train": TRAIN, "test": TEST, "epochs": epochs, "batch_size": batch_size,
        "optimizer": SGD(learning_rate), "seed": seed,
    }  # fmt: skip


def by_number(rows):
    found = {}
    for row in rows:
        found.setdefault(row.number, []).append(row)
    return found


# ---- settings


def test_a_grid_has_every_combination_the_last_option_changing_fastest():
    assert grid(a=[1, 2], b=range(2)) == [{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 2, "b": 0}, {"a": 2, "b": 1}]
    assert grid() == [{}]
    with pytest.raises(ValueError, match="b: no values"):
        grid(a=[1], b=[])
    for wrong in (8, "8,16"):
        with pytest.raises(TypeError, match=r"a=.*a list of values was wanted"):
            grid(a=wrong)


def test_a_sample_of_lists_repeats_nothing_and_is_the_same_again():
    options = {"a": [1, 2, 3], "b": ["x", "y"]}
    drawn = sample(4, 7, **options)
    assert drawn == sample(4, 7, **options) != sample(4, 8, **options)
    assert len({tuple(setting.values()) for setting in drawn}) == 4
    assert sorted(map(str, sample(6, **options))) == sorted(map(str, grid(**options)))
    with pytest.raises(ValueError, match="7 settings of 6 combinations"):
        sample(7, **options)


def test_a_value_that_a_list_repeats_counts_once():
    assert sample(1, 0, a=[1, 1]) == [{"a": 1}]
    with pytest.raises(ValueError, match="2 settings of 1 combinations"):
        sample(2, 0, a=[1, 1])
    drawn = sample(4, 3, a=[[8], [16], [8]], b=["x", "x", "y"])
    assert sorted(map(str, drawn)) == sorted(map(str, grid(a=[[8], [16]], b=["x", "y"])))
    with pytest.raises(ValueError, match="4 settings of 3 combinations"):  # and not of a million and more
        sample(4, 0, a=[1, 2, 3] * 1_000_000)


def draws(wanted, count=20_000):
    generator = np.random.Generator(np.random.PCG64(0))
    return [wanted.draw(generator) for _ in range(count)]


def test_whole_numbers_are_drawn_evenly_both_ends_among_them():
    for wanted in (Range(1, 3, whole=True), Range(1.0, 3.0, whole=True)):
        drawn = draws(wanted)
        assert {type(number) for number in drawn} == {int}
        numbers, counts = np.unique(drawn, return_counts=True)
        assert numbers.tolist() == [1, 2, 3]
        np.testing.assert_allclose(counts / len(drawn), 1 / 3, atol=0.015)
    assert set(draws(Range(-(2**63), 2**63 - 1, whole=True), 9)).isdisjoint([-(2**63), 2**63 - 1])


def test_whole_numbers_are_drawn_evenly_in_their_logarithm():
    drawn = draws(Range(1, 8, log=True, whole=True))
    assert {type(number) for number in drawn} == {int}
    numbers, counts = np.unique(drawn, return_counts=True)
    assert numbers.tolist() == list(range(1, 9))
    wanted = np.log((numbers + 0.5) / (numbers - 0.5)) / np.log(8.5 / 0.5)
    np.testing.assert_allclose(counts / len(drawn), wanted, atol=0.015)


@pytest.mark.parametrize("log", [False, True])
def test_six_digits_do_not_leave_a_range(log):
    ends = 0.12345651, 0.12345659
    assert all(ends[0] <= number <= ends[1] for number in draws(Range(*ends, log=log), 100))


def test_a_sample_of_ranges_stays_within_them_and_can_be_typed_again():
    drawn = sample(400, 0, rate=Range(1e-4, 0.1, log=True), size=Range(8, 24, whole=True), part=Range(-1, 1))
    rates = np.array([setting["rate"] for setting in drawn])
    assert rates.min() >= 1e-4 and rates.max() <= 0.1 and abs(np.median(np.log10(rates)) + 2.5) < 0.2
    assert {type(setting["size"]) for setting in drawn} == {int}
    assert {setting["size"] for setting in drawn} == set(range(8, 25))
    assert all(float(f"{rate:.6g}") == rate for rate in rates)
    assert min(setting["part"] for setting in drawn) < -0.9


@pytest.mark.parametrize(
    "wrong, error, told",
    [
        (lambda: sample(0, a=[1]), ValueError, "count=0"),
        (lambda: sample(1), ValueError, "no options"),
        (lambda: sample(1, -1, a=[1]), ValueError, "seed=-1"),
        (lambda: sample(5, size=Range(1, 3, whole=True)), ValueError, "5 different settings were wanted, 3 were"),
        (lambda: Range(1, 1), ValueError, "1 to 1"),
        (lambda: Range(0, 1, log=True), ValueError, "above 0"),
        (lambda: Range(1.2, 1.4, whole=True), ValueError, r"low=1\.2: a whole number of 64 bits was wanted"),
        (lambda: Range(1, 2.5, log=True, whole=True), ValueError, r"high=2\.5: a whole number"),
        (lambda: Range(1, 2**63, whole=True), ValueError, "high=9223372036854775808: a whole number of 64 bits"),
        (lambda: sweep(make, [{}], workers=0), ValueError, "threads=0"),
    ],
)
def test_wrong_settings_are_named(wrong, error, told):
    with pytest.raises(error, match=told):
        wrong()


# ---- training


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_side_by_side_networks_are_those_trained_alone(workers):
    settings = grid(batch_size=[8, 32], seed=range(3))
    found = by_number(sweep(make, settings, workers=workers))
    assert sorted(found) == list(range(6))
    for number, rows in found.items():
        alone, arguments = make(**settings[number])
        wanted = list(fit(alone, **arguments, threads=1))
        assert timeless([row.result for row in rows]) == timeless(wanted)
        assert [row.status for row in rows] == [TRAINING, TRAINING, FINISHED]
        assert [row.epoch for row in rows] == [1, 2, 3]
        assert all(row.settings == settings[number] for row in rows)
        assert rows[-1].network.params.tobytes() == alone.params.tobytes()


def test_nothing_to_train_is_nothing():
    assert list(sweep(make, [])) == []


def test_a_network_that_diverges_says_so_and_the_others_go_on():
    found = by_number(sweep(make, grid(learning_rate=[0.1, 1e30, 0.01]), workers=2))
    assert [found[k][-1].status for k in range(3)] == [FINISHED, DIVERGED, FINISHED]
    (row,) = found[1]
    assert row.result is None and row.epoch == 1 and "is not finite in epoch 1" in row.reason


def test_early_stopping_is_a_status_and_the_last_row_has_the_best_weights():
    options = overfitting(early_stopping=2)

    def make_overfitting():
        return network(), {"train": blobs(12), **options}

    rows = list(sweep(make_overfitting, [{}], workers=1))
    assert rows[-1].status == STOPPED_EARLY and {row.status for row in rows[:-1]} == {TRAINING}
    best = min(row.result.val_loss for row in rows)
    validation = options["validation"]
    loss, _ = rows[-1].network.evaluate(validation.x, validation.y, threads=1, backend="reference")
    assert loss == pytest.approx(best) and rows[-1].result.val_loss > best


def test_data_are_made_ready_once_for_all(monkeypatch):
    made = []
    really = runs.hold
    monkeypatch.setattr("mlpkernels.sweep.hold", lambda *words: made.append(words[1]) or really(*words))
    table = Part(np.random.default_rng(0).normal(size=(60, WIDTH)), blobs(60).y)

    def make_scaled(seed, kind):
        scaling = Scaling.fit(kind, table.x)
        return Network([Dense(CLASSES)], WIDTH, seed=seed, scaling=scaling), {
            "train": table, "test": (TEST.x, TEST.y), "epochs": 1, "batch_size": 16,
        }  # fmt: skip

    rows = list(sweep(make_scaled, grid(seed=range(4), kind=["standard", "symmetric"]), workers=3))
    assert len(rows) == 8 and made == [table, table]  # once for each scaling; what is no Part each time anew


def test_held_data_fit_one_kind_of_network_alone():
    held = runs.hold(network(), TRAIN, "train")
    assert timeless(fit(network(), held, epochs=1, batch_size=32, threads=1)) == timeless(
        fit(network(), TRAIN, epochs=1, batch_size=32, threads=1)
    )
    with pytest.raises(ValueError, match="train: held for networks of dtype float32, this one's is float64"):
        fit(network("float64"), held)


def test_bytes_under_one_scale_are_not_copied():
    assert np.shares_memory(runs.hold(network(), TRAIN, "train").source.bytes, TRAIN.x)


# ---- stopping


def test_what_on_progress_raises_stops_all_and_they_go_on_exactly():
    settings = grid(seed=range(3), epochs=[400])
    kept, seen = {}, []

    def on_progress(under_way):
        seen.append(dict(under_way))
        if under_way:
            raise StopHere

    with pytest.raises(StopHere):
        for _ in sweep(make, settings, workers=2, on_progress=on_progress,
                       on_stop=lambda number, net, state: kept.update({number: (net, state)})):  # fmt: skip
            pass
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sweep-")]
    assert set(kept) <= {0, 1, 2} and kept and all(progress.epochs == 400 for progress in seen[-1].values())

    def go_on(number):
        net, arguments = make(seed=number, epochs=400)
        return (kept[number][0], arguments | {"state": kept[number][1]}) if number in kept else (net, arguments)

    found = by_number(sweep(go_on, grid(number=range(3)), workers=2))
    for number, rows in found.items():
        alone, arguments = make(seed=number, epochs=400)
        wanted = list(fit(alone, **arguments, threads=1))
        before = kept[number][1].epoch - len(rows) if number in kept else 0
        assert timeless([row.result for row in rows]) == timeless(wanted[before:])
        assert rows[-1].network.params.tobytes() == alone.params.tobytes()


def test_closing_the_generator_stops_the_threads():
    rows = sweep(make, grid(seed=range(50), epochs=[200]), workers=2)
    next(rows)
    began = time.perf_counter()
    rows.close()
    assert time.perf_counter() - began < 5
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sweep-")]


def test_an_error_ends_the_sweep_and_tells_of_which_network():
    def wrong(seed):
        net, arguments = make(seed=seed, epochs=100)
        return net, arguments | ({"batch_size": 10_000} if seed == 1 else {})

    with pytest.raises(ValueError, match="batch_size=10000") as caught:
        list(sweep(wrong, grid(seed=range(4)), workers=2))
    assert caught.value.__notes__ == ["sweep: this is network 1: {'seed': 1}"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sweep-")]


def test_optimizers_of_their_own_settings_keep_apart():
    def make_adam(beta):
        net, arguments = make()
        return net, arguments | {"optimizer": Adam(0.01, beta1=beta)}

    found = by_number(sweep(make_adam, grid(beta=[0.5, 0.9]), workers=2))
    assert found[0][-1].result.train_loss != found[1][-1].result.train_loss
