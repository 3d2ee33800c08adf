"""`mlpk reproduce` and `mlpk data csv`: what they write, refuse and leave behind."""

import importlib.util
import json
import os
import re
import signal
import time

import numpy as np
import pytest
from cli_running import good, mlpk, refusal, start
from mlpkernels_cli import data as cli_data
from small_images import images

from mlpkernels.experiments import ROWS, numpy_gd, speedrun, speedrun_peers


@pytest.fixture
def few(monkeypatch):
    """Instead of MNIST a small data set, of which numpy-gd draws 300 rows."""
    monkeypatch.setattr(cli_data, "load_one", lambda settings, data, min_classes=2: images())
    monkeypatch.setattr(numpy_gd, "ROWS", 300)


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_without_a_name_the_rows_are_listed_with_their_claims():
    text = good("reproduce").stdout
    for row in ROWS:
        assert f"{row.name}\n" in text
    words = " ".join(text.split())
    assert "headline 97.64 %" in words and "loss 0.0341" in words and "test accuracy 92.0, 90.3, 90.7, 84.0 %" in words
    assert all(len(line) <= 100 for line in text.splitlines())


def test_a_row_writes_table_metrics_history_and_pictures(few, tmp_path):
    result = good("reproduce", "mlp-64", "--seeds", 2, "--epochs", 2, "--out", tmp_path / "out")
    assert "batch size 150, seed 1: test accuracy" in result.stdout and "2 instead of 15 epochs" in result.stdout
    assert files(tmp_path / "out") == [
        "metrics.json", "mlp-64-history.csv", "pictures/mlp-64-accuracy-by-batch.png",
        "pictures/mlp-64-accuracy-by-epoch.png", "pictures/mlp-64-accuracy-heat-map.png",
        "pictures/mlp-64-seconds-by-batch.png", "pictures/samples.png", "table.md",
    ]  # fmt: skip
    text = (tmp_path / "out" / "table.md").read_text()
    assert "- date: 20" in text and "mlpk reproduce mlp-64 --seeds 2 --epochs 2" in text
    assert "batch 8, every seed: " in text and "| mlp-64 | test accuracy, batch 150 | 96.96 %" in text


def test_quick_says_so_in_every_name_and_takes_two_seeds(few, tmp_path):
    result = good("reproduce", "mlp-50-50", "--quick", "--quiet", "--out", tmp_path / "out")
    assert "mlp-50-50 (quick)" in result.stdout
    names = files(tmp_path / "out")
    assert names and all(name.rpartition("/")[2].startswith("quick-") for name in names)
    metrics = json.loads((tmp_path / "out" / "quick-metrics.json").read_text())
    assert metrics["quick"] is True and metrics["experiments"][0]["seeds"] == 2


def test_the_speedrun_takes_twenty_seeds_where_none_are_asked_for(few, tmp_path, monkeypatch):
    monkeypatch.setattr(speedrun, "RECIPES", {"mlp-64": speedrun.RECIPES["mlp-64"]})
    result = good("reproduce", "speedrun", "--out", tmp_path / "out")
    assert "each network's own epochs, 20 seeds" in result.stdout and "recipe mlp-64, seed 19: test" in result.stdout
    text = (tmp_path / "out" / "table.md").read_text()
    assert "mlpk reproduce speedrun --seeds 20\n" in text and ", one network at a time on up to " in text
    monkeypatch.setattr(speedrun_peers.peers, "absent", lambda: ["PyTorch eager", "JAX jit + scan"])
    result = good("reproduce", "speedrun", "--quick", "--peers", "--quiet", "--out", tmp_path / "quick")
    text = (tmp_path / "quick" / "quick-table.md").read_text()
    assert "mlpk reproduce speedrun --seeds 2 --quick --peers --peer-seeds 3\n" in text
    assert "- not installed, so not beside: PyTorch eager, JAX jit + scan" in text


def test_without_out_the_folder_is_below_runs(few, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good("reproduce", "mlp-128", "--epochs", 1)
    good("reproduce", "mlp-128", "--epochs", 1, "--quick")
    first, second = sorted((tmp_path / "runs").iterdir(), key=lambda path: len(path.name))
    assert first.name.startswith("reproduce-mlp-128-2") and second.name.startswith("reproduce-mlp-128-quick-2")


def test_several_rows_share_one_table(few, tmp_path, monkeypatch):
    import mlpkernels.experiments as experiments

    chosen = tuple(row for row in ROWS if row.name in ("mlp-120-84", "numpy-gd"))
    monkeypatch.setattr(experiments, "ROWS", chosen)
    good("reproduce", "all", "--epochs", 1, "--out", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| mlp-120-84 | test loss | 0.1778 |" in text and "| numpy-gd | test accuracy, 784-32-10 | 84.0 % |" in text
    assert {"numpy-gd-predictions.csv", "mlp-120-84-history.csv"} <= set(files(tmp_path / "out"))


# ---- a stopped `all` that goes on


@pytest.fixture
def three(few, monkeypatch):
    """`all` is three rows."""
    import mlpkernels.experiments as experiments

    chosen = tuple(row for row in ROWS if row.name in ("mlp-120-84", "mlp-50-50", "cnn"))
    monkeypatch.setattr(experiments, "ROWS", chosen)


def stop_at(monkeypatch, name):
    """Ctrl-C in the row `name`; returns what puts an end to that."""
    from mlpkernels_cli.interrupts import Interrupted

    import mlpkernels.experiments as experiments

    plain = experiments.run

    def run(row, *arguments):
        if row == name:
            raise Interrupted(signal.SIGINT)
        return plain(row, *arguments)

    monkeypatch.setattr(experiments, "run", run)
    return lambda: monkeypatch.setattr(experiments, "run", plain)


def test_all_goes_on_where_it_was_stopped(three, tmp_path, monkeypatch):
    out, words = tmp_path / "out", ("all", "--epochs", 1)
    again = stop_at(monkeypatch, "mlp-50-50")
    result = mlpk("reproduce", *words, "--out", out)
    assert result.exit_code == 130
    told = f"stopped; finished and kept in {out}: mlp-120-84; the same command goes on with --out {out}"
    assert result.stderr.splitlines()[-1] == told
    before = {name: (out / name).read_bytes() for name in files(out) if name.startswith("mlp-120-84")}
    kept = json.loads((out / "metrics.json").read_text())["experiments"]
    again()
    (out / "table.md").unlink()  # as if killed just before it was written
    result = good("reproduce", *words, "--out", out)
    assert "mlp-120-84: finished before, kept" in result.stdout and "\nmlp-50-50: 784-50-50-10" in result.stdout
    assert "\nmlp-120-84: 784-120-84-10" not in result.stdout
    assert before == {name: (out / name).read_bytes() for name in before}
    metrics = json.loads((out / "metrics.json").read_text())
    assert [each["experiment"] for each in metrics["experiments"]] == ["mlp-120-84", "mlp-50-50", "cnn"]
    assert metrics["experiments"][0] == kept[0]
    good("reproduce", *words, "--out", tmp_path / "whole")
    assert files(tmp_path / "whole") == files(out)
    one, other = ((folder / "table.md").read_text() for folder in (out, tmp_path / "whole"))
    assert [line.split("|")[1:5] for line in one.splitlines()] == [line.split("|")[1:5] for line in other.splitlines()]
    finished = {name: (out / name).read_bytes() for name in files(out)}
    result = good("reproduce", *words, "--out", out, "--quiet")
    assert "cnn" in result.stdout
    assert finished == {name: (out / name).read_bytes() for name in files(out)}


def test_a_folder_that_goes_on_another_day_says_so(three, tmp_path, monkeypatch):
    again = stop_at(monkeypatch, "cnn")
    mlpk("reproduce", "all", "--epochs", 1, "--out", tmp_path / "out")
    again()
    for file in ("metrics.json", "table.md"):
        text = (tmp_path / "out" / file).read_text()
        today = re.search(r"20\d\d-\d\d-\d\d", text).group()
        (tmp_path / "out" / file).write_text(text.replace(today, "2001-02-03"))
    good("reproduce", "all", "--epochs", 1, "--out", tmp_path / "out")
    assert f"- date: 2001-02-03 to {today}\n" in (tmp_path / "out" / "table.md").read_text()


def test_only_the_same_command_goes_on(three, tmp_path, monkeypatch):
    out = tmp_path / "out"
    stop_at(monkeypatch, "mlp-50-50")
    mlpk("reproduce", "all", "--epochs", 1, "--out", out)
    before = {name: (out / name).read_bytes() for name in files(out)}
    for words in (("all",), ("all", "--epochs", 1, "--seeds", 2), ("mlp-50-50", "--epochs", 1)):
        line = refusal(mlpk("reproduce", *words, "--out", out))
        assert line.startswith(f"error: {out}: the folder is of another run, command mlpk reproduce all --seeds 1 --ep")
        assert line.endswith("nothing is overwritten: name a new one with --out")
    line = refusal(mlpk("reproduce", "all", "--epochs", 1, "--quick", "--out", out))
    assert line == f"error: {out}: the folder is not empty, and nothing is overwritten: name a new one with --out"
    assert before == {name: (out / name).read_bytes() for name in files(out)}


def test_one_finished_row_is_not_overwritten(few, tmp_path):
    good("reproduce", "mlp-128", "--epochs", 1, "--out", tmp_path / "out")
    line = refusal(mlpk("reproduce", "mlp-128", "--epochs", 1, "--out", tmp_path / "out"))
    assert line.startswith(f"error: {tmp_path / 'out'}: mlp-128 is finished in it, and nothing is overwritten")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"facts": 3, "experiments": []}',
                                     '{"facts": {}, "experiments": [{"experiment": "mlp-1"}]}'])  # fmt: skip
def test_a_damaged_file_of_metrics_is_no_folder_to_go_on_in(three, tmp_path, content):
    (tmp_path / "metrics.json").write_text(content)
    line = refusal(mlpk("reproduce", "all", "--out", tmp_path))
    assert line.startswith(f"error: {tmp_path}: the folder is not empty, and nothing is overwritten")
    assert files(tmp_path) == ["metrics.json"]


# ---- what is left for other commands


def test_the_cnn_can_be_evaluated(few, tmp_path):
    good("reproduce", "cnn", "--epochs", 1, "--out", tmp_path / "out")
    model = tmp_path / "out" / "cnn-model.safetensors"
    assert "Conv2d + relu" in good("info", model, backend=False).stdout
    x = images().test.x.reshape(-1, 28, 28)
    np.savez(tmp_path / "x.npz", X=x, y=images().test.y)
    measured = json.loads((tmp_path / "out" / "metrics.json").read_text())["experiments"][0]["lines"][0]["mean"]
    assert f"accuracy  {100 * measured:.2f} %" in good("eval", model, tmp_path / "x.npz").stdout
    assert len(good("predict", model, tmp_path / "x.npz", "--format", "csv").stdout.splitlines()) == 1 + len(x)


# ---- refusals: one line, nothing left


@pytest.mark.parametrize(
    "words, line",
    [
        (["mlp-46"], "mlpk reproduce: mlp-46: no such experiment, did you mean mlp-64? see mlpk reproduce --help"),
        (["x", "--seeds", "2"], "mlpk reproduce: x: no such experiment; mlp-64, mlp-64-tsne, "),
        (["--quick"], "mlpk reproduce: --quick: it needs the name of an experiment, or all; see mlpk reproduce --help"),
        (["mlp-64", "--seeds", "0"], "mlpk reproduce: --seeds 0: a whole number from 1 to 1000 was wanted; see"),
        (["mlp-64", "--epochs", "few"], "mlpk reproduce: --epochs few: a whole number from 1 was wanted; see"),
        (["mlp-64", "--csv", "/a.csv"], "mlpk reproduce: --csv /a.csv: it goes with numpy-gd and all, not with mlp-64"),
        (["all", "--csv", "/a.csv", "--peer-seeds", "2"], "mlpk reproduce: --peer-seeds 2: it goes with --peers; see"),
        (["cnn", "--peers"], "mlpk reproduce: --peers: it goes with speedrun and all, not with cnn; see mlpk"),
        (["speedrun", "--peers", "--peer-seeds", "0"], "mlpk reproduce: --peer-seeds 0: a whole number from 1 to 1000"),
    ],
)
def test_wrong_words_are_one_line(words, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = mlpk("reproduce", *words)
    assert result.exit_code == 2
    assert refusal(result).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_refused_and_stays(few, tmp_path):
    (tmp_path / "other.txt").write_text("mine")
    line = refusal(mlpk("reproduce", "mlp-64", "--out", tmp_path))
    assert line.startswith(f"error: {tmp_path}: the folder is not empty, and nothing is overwritten")
    assert files(tmp_path) == ["other.txt"]


@pytest.mark.parametrize(
    "header, reason",
    [
        ("a,b,c", "column 1 is 'a'"),
        ("label,pixel0,pixel1", "3 columns"),
        (",".join(["label", *(f"pixel{k}" for k in range(1, 785))]), "column 2 is 'pixel1'"),
        (",".join(["label", *(f"pixel{k}" for k in range(785))]), "786 columns"),
    ],
)
def test_a_csv_with_other_columns_is_refused(few, tmp_path, header, reason):
    file = tmp_path / "mine.csv"
    file.write_text(f"{header}\n{','.join('0' for _ in header.split(','))}\n")
    line = refusal(mlpk("reproduce", "numpy-gd", "--csv", file, "--out", tmp_path / "out"))
    wanted = "the columns label,pixel0,…,pixel783 were wanted, as mlpk data csv mnist writes them"
    assert line == f"error: --csv {file}: {reason}; {wanted}"
    line = refusal(mlpk("reproduce", "all" if SKLEARN else "numpy-gd", "--unlabelled", file, "--out", tmp_path / "out"))
    assert "the columns pixel0,…,pixel783 were wanted" in line
    assert not (tmp_path / "out").exists()


SKLEARN = importlib.util.find_spec("sklearn") is not None


def test_a_csv_that_is_not_there_is_named(few, tmp_path):
    line = refusal(mlpk("reproduce", "numpy-gd", "--csv", tmp_path / "no.csv", "--out", tmp_path / "out"))
    assert str(tmp_path / "no.csv") in line and not (tmp_path / "out").exists()


def test_without_mnist_and_offline_nothing_begins(tmp_path, monkeypatch):
    monkeypatch.setenv("MLPK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    line = refusal(mlpk("reproduce", "mlp-64", "--offline", "--out", tmp_path / "out"))
    assert line.startswith("error: ") and "mnist" in line.lower()
    assert not (tmp_path / "out").exists()


def test_without_scikit_learn_the_series_is_refused_at_once(few, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("mlp-64-tsne", "all"):
        line = refusal(mlpk("reproduce", name, "--out", tmp_path / "out"))
        assert line.startswith("error: mlp-64-tsne needs scikit-learn, which is not installed: pip install")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_ends_at_once_and_leaves_nothing(number, code, mnist_dir, tmp_path):
    process = start(
        "reproduce", "mlp-64", "--seeds", 50, "--out", tmp_path / "out", "--data-dir", mnist_dir, cwd=tmp_path
    )  # fmt: skip
    try:
        for line in process.stdout:
            if "test accuracy" in line:
                break
        began = time.monotonic()
        os.kill(process.pid, number)
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert time.monotonic() - began < 5
    assert process.returncode == code
    assert error.splitlines()[-1] == "stopped; nothing was kept"
    assert list(tmp_path.iterdir()) == []


# ---- mlpk data csv


def test_a_csv_is_written_and_used(few, tmp_path):
    one, two = tmp_path / "train.csv", tmp_path / "test.csv"
    result = good("data", "csv", "mnist", "--rows", 300, "--output", one, "--rest", two)
    assert f"{one}: 300 rows, " in result.stdout and f"{two}: 220 rows, " in result.stdout
    good("reproduce", "numpy-gd", "--epochs", 2, "--out", tmp_path / "a", "--csv", one, "--unlabelled", two)
    good("reproduce", "numpy-gd", "--epochs", 2, "--out", tmp_path / "b")
    a, b = ((tmp_path / name / "numpy-gd-predictions.csv").read_bytes() for name in "ab")
    assert a == b
    assert "train.csv, 300 rows" in (tmp_path / "a" / "table.md").read_text()


def test_data_csv_refuses_what_would_be_lost(few, tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("mine")
    line = refusal(mlpk("data", "csv", "mnist", "--rows", 300, "--output", file))
    assert line == f"mlpk data csv: --output {file}: it exists; name a new file; see mlpk data csv --help"
    other = tmp_path / "new.csv"
    line = refusal(mlpk("data", "csv", "mnist", "--rows", 300, "--output", other, "--rest", other))
    assert "another file than --output was wanted" in line
    assert refusal(mlpk("data", "csv", "mnist", "--rows", 9999, "--output", other)).startswith(
        "error: images: 9,999 rows"
    )
    assert file.read_text() == "mine" and files(tmp_path) == ["train.csv"]
