"""results.csv: written and read back, damaged lines named, repeats put together, settings ranked."""

import math

import pytest

from mlpkernels.errors import DataError
from mlpkernels.state import HISTORY_COLUMNS, EpochResult
from mlpkernels.sweep_results import (
    groups,
    header,
    line,
    ordered,
    ranked,
    read,
    text,
    value,
)

HEADER = (
    "batch-size,hidden,seed,status,epoch,train_loss,train_accuracy,val_loss,val_accuracy,test_loss,test_accuracy,"
    "learning_rate,seconds,samples_per_second\n"
)


def result(epoch, accuracy=0.5, val=None, loss=0.25):
    val_loss = None if val is None else 1 - val
    return EpochResult(epoch, 0.1, 0.2, val_loss, val, loss, accuracy, 0.001, 0.5, 123.4, False)


@pytest.fixture
def write(tmp_path):
    """Write networks {settings: (accuracies, last status)} as results.csv; the file's path."""

    def write(networks, options=("batch-size", "seed"), **more):
        lines = [header(options)]
        for settings, (accuracies, status) in networks.items():
            count = len(accuracies)
            for epoch, accuracy in enumerate(accuracies, start=1):
                last = "training" if epoch < count or status == "diverged" else status
                lines.append(line(settings, last, epoch, result(epoch, accuracy, **more)))
            if status == "diverged":
                lines.append(line(settings, "diverged", count + 1, None))
        path = tmp_path / "results.csv"
        path.write_text("".join(lines))
        return path

    return write


def test_the_columns_are_the_options_the_status_and_those_of_history_csv():
    assert header(["batch-size", "hidden", "seed"]) == HEADER
    assert line([8, (64, 64), 0], "training", 1, result(1)) == (
        '8,"64,64",0,training,1,0.1,0.2,,,0.25,0.5,0.001,0.5,123.4\n'
    )
    assert line([8, (), 0], "diverged", 3, None) == "8,none,0,diverged,3,,,,,,,,,\n"


def test_values_are_texts_that_can_be_typed_and_read_again():
    assert [text(v) for v in (True, False, (), (64, 32), 0.1, 1e-30, "full", 3)] == [
        "on", "off", "none", "64,32", "0.1", "1e-30", "full", "3",
    ]  # fmt: skip
    assert [value(cell) for cell in ("3", "0.1", "1e-30", "full", "64,32", "nan", "1_0")] == [
        3, 0.1, 1e-30, "full", "64,32", "nan", "1_0",
    ]  # fmt: skip
    assert ordered(["128,128", "64,64", 32, "full", 8, "64", 8]) == [8, 32, "64", "64,64", "128,128", "full"]


def test_what_was_written_is_read(write):
    path = write({(8, 0): ([0.5, 0.6], "finished"), (16, 0): ([], "diverged"), (16, 1): ([0.7], "training")})
    results = read(path)
    assert results.options == ("batch-size", "seed")
    assert (results.chosen, results.repeats) == (("batch-size",), ("seed",))
    assert results.values("batch-size") == [8, 16]
    one, other, third = results.networks
    assert [key for key, _ in results.lines] == [("8", "0"), ("8", "0"), ("16", "0"), ("16", "1")]
    assert one.settings == {"batch-size": "8", "seed": "0"} and one.done and one.diverged_at is None
    assert [row["test_accuracy"] for row in one.epochs] == [0.5, 0.6] and one.epochs[0]["val_loss"] is None
    assert list(one.epochs[0]) == list(HISTORY_COLUMNS)
    assert (other.status, other.diverged_at, other.epochs, other.done) == ("diverged", 1, [], True)
    assert not third.done
    assert "".join([header(results.options), *(source for _, source in results.lines)]) == path.read_text()


def test_a_cut_last_line_is_passed_over(write):
    path = write({(8, 0): ([0.5, 0.6], "finished"), (16, 0): ([0.5, 0.7], "finished")})
    path.write_text(path.read_text()[:-9])
    assert [len(network.epochs) for network in read(path).networks] == [2, 1]


@pytest.mark.parametrize(
    "content, told",
    [
        ("", "line 1 is no header of a sweep"),
        ("epoch,train_loss\n1,2\n", "line 1 is no header of a sweep"),
        (HEADER + "8,64\n", "line 2 has 2 cells, wanted 14"),
        (HEADER + "8,64,0,gone,1" + "," * 9 + "\n", "line 2, column status: 'gone', wanted one of training"),
        (HEADER + "8,64,0,training,1,x" + "," * 8 + "\n", "line 2, column train_loss: 'x' is no number"),
        (HEADER + "8,64,0,training,2" + "," * 9 + "\n", "line 2: epoch 2 after epoch 0"),
        (HEADER + "8,64,0,diverged,1" + "," * 9 + "\n8,64,0,training,2" + "," * 9 + "\n", "line 3: .* its last row"),
    ],
)
def test_damage_is_named(tmp_path, content, told):
    path = tmp_path / "results.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=told):
        read(path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not a CSV file"):
        read(path)


def test_seeds_are_put_together(write):
    finals = {0: 0.5, 1: 0.6, 2: 0.7}
    networks = {(16, seed): ([0.1, final], "finished") for seed, final in finals.items()}
    networks |= {(8, 0): ([0.9, 0.9], "finished"), (8, 1): ([0.9], "diverged"), (8, 2): ([0.9], "training")}
    small, large = groups(read(write(networks)))
    assert (small.settings, large.settings) == ({"batch-size": 8}, {"batch-size": 16})
    assert large.mean("test_accuracy") == pytest.approx(0.6) and large.deviation("test_accuracy") == pytest.approx(0.1)
    assert (len(small.finals), small.diverged, len(small.networks)) == (1, 1, 3)
    assert math.isnan(small.deviation("test_accuracy")) and math.isnan(small.mean("val_accuracy"))
    # a setting of which a network diverged comes after those that always work
    assert [group.settings["batch-size"] for group in ranked([small, large], "test_accuracy")] == [16, 8]


def test_equal_accuracies_are_ranked_by_their_loss(tmp_path):
    rows = [(8, 0.3), (16, 0.2), (32, 0.4)]
    lines = [line([size], "finished", 1, result(1, 0.9, loss=loss)) for size, loss in rows]
    (tmp_path / "results.csv").write_text(header(["batch-size"]) + "".join(lines))
    best = ranked(groups(read(tmp_path / "results.csv")), "test_accuracy")
    assert [group.settings["batch-size"] for group in best] == [16, 8, 32]


def test_validation_decides_where_there_is_some(write):
    assert read(write({(8, 0): ([0.5], "finished")})).measure == "test_accuracy"
    assert read(write({(8, 0): ([0.5], "finished")}, val=0.4)).measure == "val_accuracy"


def test_where_only_some_networks_have_validation_data_test_data_decide(tmp_path):
    path = tmp_path / "results.csv"
    lines = [line([0], "finished", 1, result(1, 0.5)), line([3], "finished", 1, result(1, 0.6, 0.7))]
    path.write_text(header(["early-stopping"]) + "".join(lines))
    assert read(path).measure == "test_accuracy"


def test_with_early_stopping_the_best_epoch_counts(tmp_path):
    accuracies = [(0.5, 0.3), (0.6, 0.8), (0.7, 0.4)]  # test, validation
    lines = [line([8], "training", k, result(k, test, val)) for k, (test, val) in enumerate(accuracies, start=1)]
    lines[-1] = lines[-1].replace("training", "stopped early")
    path = tmp_path / "results.csv"
    path.write_text(header(["batch-size"]) + "".join(lines))
    (last,) = groups(read(path))
    (best,) = groups(read(path), lambda settings: settings["batch-size"] == "8")
    assert last.mean("test_accuracy") == 0.7 and best.mean("test_accuracy") == 0.6
