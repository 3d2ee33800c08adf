"""`mlpk train`: what it prints, what it leaves in the run folder, how it copes with data and disks."""

import csv
import json
import math
import os
import re
import tomllib

import numpy as np
import pytest
from cli_running import BACKEND, good, mlpk, refusal, train
from mlpkernels_cli import runs

from mlpkernels import Network, files, layers, schedules

COLUMNS = (
    "epoch,train_loss,train_accuracy,val_loss,val_accuracy,test_loss,test_accuracy,learning_rate,seconds,"
    "samples_per_second"
)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def table(tmp_path):
    """A CSV file of 60 rows in three classes that two columns tell apart."""
    rng = np.random.default_rng(0)
    lines = ["kind,a,b"]
    for k in range(60):
        a, b = rng.normal(size=2) + 3 * np.array([k % 3, -(k % 3)])
        lines.append(f"{'xyz'[k % 3]},{a:.3f},{b:.3f}")
    path = tmp_path / "table.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def history(run):
    with open(run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_the_first_line_anyone_types(here):
    result = good("train")
    assert result.stderr == ""
    (run,) = (here / "runs").iterdir()
    assert re.fullmatch(r"digits-\d{8}-\d{6}", run.name)
    assert sorted(file.relative_to(run).as_posix() for file in run.rglob("*") if file.is_file()) == [
        "checkpoint.safetensors", "config.toml", "history.csv", "metrics.json", "model.safetensors",
        "plots/confusion.png", "plots/history.png", "plots/mistakes.png", "plots/samples.png", "plots/weights.png",
    ]  # fmt: skip
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.96
    for told in ("images, 8 x 8, 10 classes", "64 → 128 → 128 → 10, 26,122 parameters", "kernels ready in ", "30/30"):
        assert told in result.stdout
    share = f"{100 * metrics['test']['accuracy']:.2f} %"
    assert re.search(rf"test accuracy  {share}   \d+ of \d+ images\n", result.stdout)
    for command in ("eval", "predict", "plot"):
        assert f"mlpk {command} runs/{run.name}" in result.stdout


def test_history_has_a_row_an_epoch_and_leaves_empty_what_does_not_apply(tmp_path):
    run = train(tmp_path / "run", "--epochs", 3)
    assert (run / "history.csv").read_text().splitlines()[0] == COLUMNS
    rows = history(run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for row in rows:
        assert row["val_loss"] == row["val_accuracy"] == ""
        assert float(row["learning_rate"]) == 0.001
        assert all(float(row[name]) > 0 for name in COLUMNS.split(",") if not name.startswith("val"))
    rows = history(train(tmp_path / "validated", "--val-split", 0.1))
    assert all(float(row["val_loss"]) > 0 for row in rows)


def test_metrics_agree_with_the_model_and_the_history(tmp_path):
    run = train(tmp_path / "run")
    metrics = json.loads((run / "metrics.json").read_text())
    last = history(run)[-1]
    assert metrics["test"]["loss"] == pytest.approx(float(last["test_loss"]), abs=1e-12)
    assert metrics["test"]["accuracy"] == float(last["test_accuracy"])
    assert metrics["seconds"] == math.fsum(float(row["seconds"]) for row in history(run))
    assert (metrics["epochs"], metrics["model_epoch"], metrics["best_epoch"], metrics["stopped_early"]) == (
        2,
        2,
        None,
        False,
    )
    confusion = np.array(metrics["test"]["confusion"])
    assert confusion.trace() / confusion.sum() == pytest.approx(metrics["test"]["accuracy"])
    assert metrics["parameters"] == Network.load(run / "model.safetensors").parameter_count


def test_quiet_prints_the_result_alone(tmp_path):
    result = good("train", "--quiet", "--no-plots", "--epochs", 1, "--out", tmp_path / "run")
    assert [line.split("  ")[1] for line in result.stdout.splitlines()] == [
        "test accuracy", "test loss", "epochs", "training", "run folder",
    ]  # fmt: skip


def test_early_stopping_keeps_the_best_epoch(tmp_path):
    out = tmp_path / "run"
    result = good(
        "train", "--early-stopping", 2, "--learning-rate", 0.02, "--epochs", 60, "--no-plots", "--out", out,
    )  # fmt: skip
    metrics = json.loads((out / "metrics.json").read_text())
    losses = [float(row["val_loss"]) for row in history(out)]
    assert metrics["stopped_early"] and len(losses) == metrics["epochs"] < 60
    assert metrics["best_epoch"] == metrics["model_epoch"] == np.argmin(losses) + 1 == len(losses) - 2
    assert metrics["test"]["loss"] == pytest.approx(float(history(out)[-3]["test_loss"]), abs=1e-12)
    assert re.search(
        rf"best epoch     {metrics['best_epoch']}   .*: kept; stopped after {len(losses)} of 60", result.stdout
    )


def test_a_table_with_names_as_classes(here, table):
    result = good("train", table, "--hidden", "none", "--epochs", 40, "--optimizer", "sgd")
    assert "48 training and 12 test rows, 2 columns, 3 classes" in result.stdout
    (run,) = (here / "runs").iterdir()
    assert run.name.startswith("table-")
    network = Network.load(run / "model.safetensors")
    assert network.classes == ("x", "y", "z") and len(network.layers) == 1
    assert tomllib.loads((run / "config.toml").read_text())["data"] == str(table)
    assert len(list((run / "plots").iterdir())) == 5


def test_test_data_of_its_own(tmp_path, table):
    other = tmp_path / "other.csv"
    other.write_text("kind,a,b\ny,3,-3\nx,0,0\n")
    result = good("train", table, "--test-data", other, "--no-plots", "--epochs", 1, "--out", tmp_path / "run")
    assert "60 training and 2 test rows" in result.stdout


@pytest.mark.parametrize("words", ["--dtype float64", "--scale symmetric", "--batch-size full", "--eval-train",
                                   "--schedule step:1:0.5", "--schedule one-cycle", "--optimizer adamw",
                                   "--class-weight balanced", "--threads 1", "--init pytorch"])  # fmt: skip
def test_other_settings_train(tmp_path, words):
    run = train(tmp_path / "run", *words.split())
    assert float(history(run)[-1]["train_loss"]) < float(history(run)[0]["train_loss"])


def test_two_runs_in_one_second_get_folders_of_their_own(here, monkeypatch):
    class Now(runs.datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 11, 21, 23, 30, 15)

    monkeypatch.setattr(runs.datetime, "datetime", Now)
    for _ in range(3):
        good("train", "--no-plots", "--epochs", 1)
    assert sorted(run.name for run in (here / "runs").iterdir()) == [
        "digits-20261121-233015", "digits-20261121-233015-2", "digits-20261121-233015-3",
    ]  # fmt: skip


def test_a_folder_with_files_is_no_run_folder(tmp_path):
    out = tmp_path / "run"
    train(out)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    line = refusal(mlpk("train", "--out", out))
    assert line.startswith(f"error: {out}: the folder is not empty; name another with --out")
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_an_empty_folder_is_taken_and_left_empty_on_failure(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    assert "not finite" in refusal(mlpk("train", "--quiet", *DIVERGING, "--out", out))
    assert list(out.iterdir()) == []
    train(out)


DIVERGING = ("--optimizer", "sgd", "--learning-rate", "1e30", "--no-plots")


def test_divergence_in_the_first_epoch_names_it_and_leaves_nothing(here):
    result = mlpk("train", *DIVERGING, "--quiet")
    assert result.exit_code == 1
    assert re.match(r"error: .* not finite in epoch 1, step \d+: ", refusal(result))
    assert list(here.iterdir()) == []


class Exploding(schedules.Constant):
    """A learning rate that no training survives after the third epoch."""

    def rates(self, base, epoch, steps_per_epoch, epochs):
        return np.full(steps_per_epoch, base if epoch < 3 else 1e30)


def test_divergence_later_leaves_the_last_good_checkpoint(tmp_path, monkeypatch):
    out = tmp_path / "run"
    words = ("--hidden", 16, "--no-plots", "--quiet", "--checkpoint-every", 1, "--out", out)
    monkeypatch.setitem(schedules.SCHEDULES, "constant", Exploding)
    result = mlpk("train", *words, "--epochs", 9, "--optimizer", "sgd")
    assert re.match(r"error: .*not finite .*epoch 4", refusal(result))
    assert len(history(out)) == 3
    assert Network.load(out / "model.safetensors").parameter_count
    assert "not finished; go on with: mlpk train --resume" in good("info", out).stdout


@pytest.mark.parametrize("words", [(), ("--out", "mine/run")])
def test_an_unwritable_folder(here, monkeypatch, words):
    def refused(path, *arguments):  # root, as tests in containers are, may write everywhere
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "mkdir", refused)
    result = mlpk("train", *words)
    assert result.exit_code == 1
    advice = "allow it, or name another place" if words else "name a place for the run with --out"
    assert re.fullmatch(rf"error: \S*(runs|mine): permission denied; {advice}", refusal(result))
    assert list(here.iterdir()) == []


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        line = refusal(mlpk("train", "--out", out))
        assert line.startswith(f"error: {tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_full_disk_at_the_start_leaves_nothing(here, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    result = mlpk("train", "--quiet")
    assert result.exit_code == 1
    assert "no space left on device" in refusal(result).lower()
    assert list(here.iterdir()) == []


def test_a_full_disk_later_keeps_what_was_whole(tmp_path, monkeypatch):
    out, real = tmp_path / "run", os.write
    written = []

    def full(descriptor, data):
        written.append(data)
        if data.startswith(b"3,"):
            real(descriptor, data[:5])  # half a line goes through
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(runs.os, "write", full)
    result = mlpk("train", "--quiet", "--epochs", 5, "--hidden", 8, "--no-plots", "--out", out)
    full_disk = "no space left on device; make room"
    assert refusal(result) == f"error: {out / 'history.csv'}: {full_disk}"
    assert [row["epoch"] for row in history(out)] == ["1", "2"]
    assert (out / "history.csv").read_bytes().endswith(b"\n")
    monkeypatch.undo()
    good("train", "--resume", out, "--quiet")
    assert [row["epoch"] for row in history(out)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize(
    "content, told",
    [
        (None, "no such file or folder"),
        ("", "empty"),
        ("kind,a\n", "rows"),
        ("kind,a\nx,1\ny,2,3\n", "row"),
        ("kind,a\nx,1\n,2\n", "label"),
        ("kind,a\nx,1\ny,two\n", "column"),
        ("kind,a\nx,1\ny,nan\n", "nan"),
    ],
)
def test_wrong_data_are_one_line_and_leave_nothing(here, content, told):
    (here / "in").mkdir()
    file = here / "in" / "data.csv"
    if content is not None:
        file.write_text(content)
    result = mlpk("train", file)
    assert result.exit_code == 1
    line = refusal(result)
    assert line.startswith("error: ") and str(file) in line and told in line.lower()
    assert [entry.name for entry in here.iterdir()] == ["in"]


def test_a_network_too_large_for_the_memory(here, monkeypatch):
    def too_large(*arguments):  # to try it in earnest would bring down a machine that promises memory it lacks
        raise MemoryError("Unable to allocate 7.28 TiB")

    monkeypatch.setattr(layers, "initial_values", too_large)
    line = refusal(mlpk("train", "--quiet"))
    assert line == "error: not enough memory: Unable to allocate 7.28 TiB; use a smaller network, batch or data set"
    assert list(here.iterdir()) == []


def test_a_pipe_closed_from_the_start_leaves_nothing(here, monkeypatch):
    def broken(self):
        raise BrokenPipeError

    monkeypatch.setattr("mlpkernels_cli.progress.Lines.__enter__", broken)
    assert mlpk("train").exit_code == 141
    assert list(here.iterdir()) == []


def test_unknown_data_and_data_that_are_not_there(here, monkeypatch):
    assert "did you mean mnist?" in refusal(mlpk("train", "mnits"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.delenv("MLPK_DATA_DIR", raising=False)
    line = refusal(mlpk("train", "mnist", "--offline"))
    assert "looked in" in line and "--offline" in line and "--data-dir" in line
    assert list(here.iterdir()) == []


def test_mnist_by_folder(mnist_dir, tmp_path):
    out = tmp_path / "run"
    result = good("train", "mnist", "--data-dir", mnist_dir, "--offline", "--epochs", 1, "--no-plots", "--out", out)
    assert "60,000 training and 10,000 test images, 28 x 28" in result.stdout
    assert float(history(out)[0]["test_accuracy"]) > 0.93
    assert tomllib.loads((out / "config.toml").read_text())["batch-size"] == 128


def test_the_settings_say_which_kernels(tmp_path):
    assert tomllib.loads((train(tmp_path / "run") / "config.toml").read_text())["backend"] == BACKEND


def test_data_that_diverge_at_once_are_told_of_in_the_user_s_words(tmp_path):
    table = tmp_path / "huge.csv"
    table.write_text("kind,a,b\n" + "".join(f"{k % 2},{3e38 * (-1) ** k},3e38\n" for k in range(40)))
    result = mlpk("train", table, "--scale", "none", "--learning-rate", 0.25, "--no-plots", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "kernels ready" in result.stdout  # loading them has not met the data
    line = refusal_line(result)
    assert line.startswith("error: the loss is not finite in epoch 1, step 1: try a --learning-rate below 0.25")
    assert not (tmp_path / "run").exists()


def refusal_line(result):
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize("when", ["auto", "always", "never"])
def test_zeros_may_be_left_out_or_not(here, when):
    dark = np.random.default_rng(0).integers(0, 256, (120, 8, 8)).astype(np.uint8)
    dark[:, 2:] = 0
    np.savez("dark.npz", X=dark, y=np.arange(120) % 3)
    run = train(here / "run", "dark.npz", "--skip-zeros", when)
    dense = train(here / "dense", "dark.npz", "--skip-zeros", "never")
    assert (run / "model.safetensors").read_bytes() == (dense / "model.safetensors").read_bytes()
