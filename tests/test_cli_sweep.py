"""`mlpk sweep`: what it prints and keeps, how it goes on, what it refuses; `mlpk plot` of its folder."""

import csv
import errno
import os
import re
import shutil
import signal
import time

import numpy as np
import pytest
from cli_running import BACKEND, good, mlpk, refusal, start
from mlpkernels_cli import runs, sweep_session

from mlpkernels.state import HISTORY_COLUMNS
from mlpkernels.sweep_results import read

SMALL = ("--hidden", 8, "--backend", BACKEND, "--no-plots")
GRID = ("--batch-size", "32,64", "--seed", "0:2", "--epochs", 2)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sweep(*arguments):
    return good("sweep", *arguments, *SMALL)


def refused(*arguments):
    return refusal(mlpk("sweep", *arguments, *SMALL))


def rows(folder, timeless=True):
    """The rows of results.csv in an order of their own, without times."""
    with open(folder / "results.csv", newline="") as file:
        found = list(csv.DictReader(file))
    for row in found:
        for name in ("seconds", "samples_per_second") if timeless else ():
            del row[name]
    return sorted(found, key=str)


def only(folder):
    (found,) = (folder / "runs").iterdir()
    return found


# ---- what it does


def test_a_grid_leaves_its_folder_and_tells_what_is_best(here):
    result = sweep(*GRID)
    folder = only(here)
    assert re.fullmatch(r"sweep-digits-\d{8}-\d{6}", folder.name)
    assert sorted(path.name for path in folder.iterdir()) == ["results.csv", "sweep.toml"]
    header = ",".join(["batch-size", "seed", "status", *HISTORY_COLUMNS])
    assert (folder / "results.csv").read_text().splitlines()[0] == header
    found = rows(folder, timeless=False)
    assert len(found) == 8 and [row["status"] for row in found].count("finished") == 4
    assert {(row["batch-size"], row["seed"]) for row in found} == {("32", "0"), ("32", "1"), ("64", "0"), ("64", "1")}
    for told in ("4 networks: 2 of --batch-size x 2 of --seed", "4/4", "best settings, by test accuracy", "±", "next"):
        assert told in result.stdout
    assert "mlpk train --hidden 8 --epochs 2 --batch-size 32\n" in result.stdout.replace(f" --backend {BACKEND}", "")
    assert result.stderr == ""


def test_a_network_of_a_sweep_is_the_one_that_train_makes(here):
    sweep("--batch-size", "16,32", "--epochs", 2, "--optimizer", "sgd", "--val-split", 0.2, "--out", "swept")
    good("train", *SMALL, "--batch-size", 16, "--epochs", 2, "--optimizer", "sgd", "--val-split", 0.2, "--out", "run")
    with open(here / "run" / "history.csv", newline="") as file:
        trained = [{**row, "seconds": "", "samples_per_second": ""} for row in csv.DictReader(file)]
    swept = sorted(
        (row for row in rows(here / "swept") if row["batch-size"] == "16"), key=lambda row: int(row["epoch"])
    )
    for row, other in zip(swept, trained, strict=True):
        assert {**row, "seconds": "", "samples_per_second": ""} == {
            "batch-size": "16", "status": row["status"], **other,
        }  # fmt: skip


def test_every_kind_of_option_may_be_swept(here):
    good(
        "sweep", "--backend", BACKEND, "--no-plots", "--hidden", "8/8,4/none", "--nesterov", "on,off", "--optimizer",
        "sgd", "--momentum", 0.9, "--scale", "unit,standard", "--split-seed", "0:2", "--val-split", 0.2, "--dtype",
        "float32,float64", "--epochs", 1, "--quiet", "--out", "s",
    )  # fmt: skip
    results = read(here / "s" / "results.csv")
    assert results.options == ("scale", "split-seed", "hidden", "dtype", "nesterov")
    assert results.repeats == ("split-seed",) and len(results.networks) == 48
    assert results.values("hidden") == [8, "8,4", "none"]
    finals = {tuple(network.settings.values()): network.epochs[-1]["test_loss"] for network in results.networks}
    assert len(set(finals.values())) == 48


def test_a_sample_is_drawn_with_its_seeds(here):
    words = ("--learning-rate", "log:1e-4:1e-1", "--batch-size", "lin:16:200", "--seed", "0:2", "--epochs", 1)
    result = sweep(*words, "--sample", 3, "--out", "a")
    assert "6 networks, 3 settings drawn with seed 0" in result.stdout
    found = rows(here / "a")
    assert len(found) == 6 and len({row["learning-rate"] for row in found}) == 3
    sweep(*words, "--sample", 3, "--out", "b", "--threads", 1)
    assert rows(here / "b") == found
    sweep(*words, "--sample", 3, "--sample-seed", 1, "--out", "c")
    assert not {row["learning-rate"] for row in rows(here / "c")} & {row["learning-rate"] for row in found}


def test_figures_are_drawn_at_the_end_and_by_plot(here):
    good("sweep", *GRID, "--learning-rate", "log:1e-3:1e-1:3", "--hidden", 8, "--backend", BACKEND, "--out", "s")
    names = ["best.png", "epochs.png", "final.png", "heat-batch-size-learning-rate.png"]
    assert sorted(path.name for path in (here / "s" / "plots").iterdir()) == names
    result = good("plot", "s", "--output", "elsewhere")
    assert sorted(os.path.basename(line) for line in result.stdout.splitlines()) == names
    assert (here / "elsewhere" / "final.png").stat().st_size > 1000


def test_quiet_prints_the_result_alone(here):
    text = sweep(*GRID, "--quiet", "--out", "s").stdout
    assert "kernels ready" not in text and "next" not in text and "4 done" in text


def test_networks_that_diverge_are_recorded_and_the_others_go_on(here):
    result = sweep("--learning-rate", "0.1,1e30", "--optimizer", "sgd", "--epochs", 2, "--out", "s")
    assert "diverged" in result.stdout and "2 done, of which 1 diverged" in result.stdout
    (row,) = (row for row in rows(here / "s") if row["status"] == "diverged")
    assert (row["learning-rate"], row["epoch"], row["train_loss"]) == ("1e+30", "1", "")


def test_all_diverging_is_an_error_that_keeps_the_rows(here):
    result = mlpk("sweep", "--learning-rate", "1e29,1e30", "--optimizer", "sgd", "--epochs", 2, *SMALL, "--out", "s")
    assert result.exit_code == 1
    assert result.stderr == (
        "error: all 2 networks diverged; s/results.csv says in which epoch: try a smaller --learning-rate, or "
        "--clip-norm 1\n"
    )
    assert len(rows(here / "s")) == 2


def test_early_stopping_counts_the_best_epoch(here):
    sweep(
        "--early-stopping", 1, "--learning-rate", "0.05,0.02", "--epochs", 40, "--out", "s", "--val-split", "0.2",
    )  # fmt: skip
    networks = read(here / "s" / "results.csv").networks
    assert {network.status for network in networks} <= {"stopped early", "finished"}
    assert any(network.status == "stopped early" for network in networks)
    text = sweep("--early-stopping", 1, "--learning-rate", "0.05,0.02", "--epochs", 40, "--out", "s",
                 "--val-split", "0.2", "--quiet").stdout  # fmt: skip
    best = max(network.kept(True)["val_accuracy"] for network in networks)
    assert f"{100 * best:.2f} %" in text


# ---- going on


def test_the_same_command_again_trains_nothing_and_tells_the_same(here):
    first = sweep(*GRID)
    before = (only(here) / "results.csv").read_bytes()
    again = sweep(*GRID)
    assert "4 of them are done" in again.stdout and "kernels ready" not in again.stdout
    assert (only(here) / "results.csv").read_bytes() == before
    best = re.search(r"best settings.*?\n\n", first.stdout, re.DOTALL)
    assert best is not None and best.group() in again.stdout


def test_another_command_gets_a_folder_of_its_own(here):
    sweep(*GRID)
    sweep("--batch-size", "32,64", "--seed", "0:3", "--epochs", 2)
    assert len(list((here / "runs").iterdir())) == 2


def test_what_was_cut_off_starts_again_without_doubled_rows(here):
    sweep(*GRID, "--out", "whole")
    shutil.copytree("whole", "cut")
    lines = (here / "cut" / "results.csv").read_text().splitlines(keepends=True)
    # a power cut: one network finished, one under way, half a line
    finished = [line for line in lines[1:] if line.startswith("32,0,")]
    begun = [line for line in lines[1:] if line.startswith("64,1,")][:1]
    (here / "cut" / "results.csv").write_text("".join([lines[0], *finished, *begun, lines[1][:30]]))
    result = sweep(*GRID, "--out", "cut")
    assert "1 of them are done" in result.stdout
    assert rows(here / "cut") == rows(here / "whole")
    assert [line for line in (here / "cut" / "results.csv").read_text().splitlines(keepends=True)[1:3]] == finished


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on_exactly(here, number, code):
    words = ("--batch-size", "8,256", "--seed", "0:2", "--epochs", 60, "--hidden", 8, "--no-plots")
    process = start("sweep", *words, "--out", "stopped", cwd=here)
    path = here / "stopped" / "results.csv"
    deadline = time.monotonic() + 60
    while not path.exists() or path.read_bytes().count(b"\n") < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    _, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert re.fullmatch(
        r"stopped; \d of 4 networks are done(, \d half-trained)?, in stopped; the same command goes on\n", told
    )
    assert not list((here / "stopped").rglob("*.tmp")) and not (here / "stopped" / ".lock").exists()
    good("sweep", *words, "--out", "stopped", backend=False)
    good("sweep", *words, "--out", "whole", backend=False)
    assert rows(here / "stopped") == rows(here / "whole")
    assert sorted(path.name for path in (here / "stopped").iterdir()) == ["results.csv", "sweep.toml"]


def test_stopped_before_anything_was_reached_nothing_is_kept(here, monkeypatch):
    monkeypatch.setattr(sweep_session, "get_ready", lambda *words: os.kill(os.getpid(), signal.SIGTERM))
    result = mlpk("sweep", *GRID, *SMALL, "--out", "s")
    assert result.exit_code == 143 and result.stderr == "stopped before the first epoch; nothing was kept\n"
    assert not (here / "s").exists()


def test_a_damaged_half_trained_network_starts_again(here):
    sweep(*GRID, "--out", "whole")
    shutil.copytree("whole", "cut")
    lines = (here / "cut" / "results.csv").read_text().splitlines(keepends=True)
    (here / "cut" / "results.csv").write_text(lines[0])
    (here / "cut" / "unfinished").mkdir()
    (here / "cut" / "unfinished" / "000001.safetensors").write_bytes(b"x" * 100)
    result = sweep(*GRID, "--out", "cut")
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("note: cut/unfinished/000001.safetensors")
    assert rows(here / "cut") == rows(here / "whole") and not (here / "cut" / "unfinished").exists()


@pytest.mark.parametrize(
    "words, told",
    [
        (("--batch-size", "32,64,128"), "--batch-size 32,64,128 where the sweep in s has 32,64"),
        (("--batch-size", "32"), "--batch-size 32 where the sweep in s has 32,64"),
        (("--epochs", 3), "--epochs 3 where the sweep in s has 2"),
        (("--seed", "1:3"), "--seed 1:3 where the sweep in s has 0:2"),
        (("--momentum", "0,0.9", "--optimizer", "sgd"), "--optimizer sgd where the sweep in s has adam"),
        (("--sample", "2"), "--sample 2 where the sweep in s has none"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused_by_the_setting(here, words, told):
    sweep(*GRID, "--out", "s")
    before = (here / "s" / "results.csv").read_bytes()
    line = refused(*GRID, *words, "--out", "s")
    assert line.startswith(f"error: {told}: it goes on with the same settings only")
    assert (here / "s" / "results.csv").read_bytes() == before


def test_the_same_values_written_otherwise_are_the_same_sweep(here):
    sweep(*GRID, "--out", "s")
    again = sweep("--batch-size", "log:32:64:2", "--seed", "0,1", "--epochs", 2, "--out", "s", "--threads", 1)
    assert "4 of them are done" in again.stdout


def test_data_that_have_changed_are_refused(here):
    rng = np.random.default_rng(0)
    table = [f"{'xy'[k % 2]},{a:.3f},{b:.3f}" for k, (a, b) in enumerate(rng.normal(size=(40, 2)))]
    (here / "t.csv").write_text("\n".join(["kind,a,b", *table]) + "\n")
    sweep("t.csv", "--seed", "0:2", "--epochs", 1, "--out", "s")
    (here / "t.csv").write_text("\n".join(["kind,a,b", *table[:-1], "x,0,0"]) + "\n")
    assert "the training data have changed since this sweep was begun" in refused(
        "t.csv", "--seed", "0:2", "--epochs", 1, "--out", "s"
    )


def test_its_own_file_repeats_a_sweep_and_options_override_it(here):
    sweep(*GRID, "--out", "s")
    sweep("--config", "s/sweep.toml", "--out", "again")
    assert rows(here / "again") == rows(here / "s")
    sweep("--config", "s/sweep.toml", "--seed", 0, "--out", "fewer")
    assert read(here / "fewer" / "results.csv").options == ("batch-size",)


# ---- what it refuses


@pytest.mark.parametrize(
    "words, told",
    [
        ((), "nothing to sweep: give an option several values"),
        (("--batch-size", 8), "nothing to sweep"),
        (("--batch-siz", "8,16"), "--batch-siz: no such option, did you mean --batch-size?"),
        (("--seed", "5:5"), "--seed 5:5: an empty range; an end above 5 was wanted"),
        (("--batch-size", "8,x"), "--batch-size 8,x: x: a whole number from 1, full or auto was wanted"),
        (("--batch-size", "8,2000"), "--batch-size 2000: at most the 1438 training rows, or full, was wanted"),
        (("--optimizer", "sgd,adam", "--momentum", 0.9), "--momentum 0.9: it goes with --optimizer sgd"),
        (("--schedule", "cosine,cosine:9", "--epochs", 5), "--schedule cosine:9: Cosine: warmup=9"),
        (("--learning-rate", "log:1e-3:1"), "--learning-rate log:1e-3:1: how many values? log:1e-3:1:N"),
        (("--class-weight", "none/77=2"), "--class-weight 77=2: no class 77"),
        (("--batch-size", "8,16", "--sample", 9), "--sample 9: 9 settings of 2 combinations"),
        (("--seed", "0:2", "--sample", 2), "--sample 2: it draws settings, and the seeds alone are swept"),
        (("--seed", "0:1000", "--split-seed", "0:1000"), "the grid: 1,000,000 networks; at most 100,000"),
        (("--config", "nosuch.toml"), "--config nosuch.toml: no such file or directory"),
        (("nosuch.csv", "--seed", "0:2"), "nosuch.csv: no such file or folder"),
    ],
)
def test_wrong_usage_is_one_line_and_leaves_nothing(here, words, told):
    assert told in refused(*words)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "content, told",
    [
        ("[sweep]\nbatch-size = 8\n", "[sweep] batch-size = 8: text as on the command line"),
        ("[sweep]\nout = 'a,b'\n", "[sweep] out: no option that may be swept"),
        ("[sweep]\nnosuch = 'a,b'\n", "[sweep] nosuch: no option that there is"),
        ("[sweep]\nseed = '5:5'\n", "[sweep] seed = '5:5': an empty range"),
        ("[sweep]\nsample = 'x'\n", "sample and sample-seed: whole numbers from 0"),
        ("sweep = 3\n", "sweep and checksums are sections"),
        ("epochz = 3\n", "epochz: no such setting, did you mean epochs?"),
        ("[sweep\n", "Expected"),
    ],
)
def test_a_damaged_sweep_toml_is_named(here, content, told):
    (here / "sweep.toml").write_text(content)
    line = refused("--config", "sweep.toml")
    assert line.startswith("mlpk sweep: --config sweep.toml: ") and told in line


def test_folders_that_are_something_else_are_refused(here):
    (here / "full").mkdir()
    (here / "full" / "letter").touch()
    assert "full: the folder is not empty, and no sweep's; name another with --out" in refused(*GRID, "--out", "full")
    (here / "file").touch()
    assert "file: file exists" in refused(*GRID, "--out", "file").lower()


def test_a_folder_that_another_process_writes_to_is_refused(here):
    sweep(*GRID, "--out", "s")
    folder = runs.RunFolder.reopen(here / "s")
    try:
        assert "s: another mlpk command writes to it now" in refused(*GRID, "--out", "s")
    finally:
        folder.close()


def test_a_full_disk_is_named_and_the_same_command_goes_on(here, monkeypatch):
    really, count = runs.append_line, []

    def full(path, line):
        count.append(line)
        if len(count) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        really(path, line)

    monkeypatch.setattr(runs, "append_line", full)
    line = refusal_last(mlpk("sweep", *GRID, *SMALL, "--out", "s"))
    assert re.match(r"error: s/results.csv: no space left on device; \d of 4 networks are done", line)
    monkeypatch.undo()
    monkeypatch.chdir(here)
    sweep(*GRID, "--out", "s")
    sweep(*GRID, "--out", "whole")
    assert rows(here / "s") == rows(here / "whole")


def refusal_last(result):
    """The line on stderr of a command that failed on its way."""
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    return line


def test_results_that_are_not_of_this_sweep_are_named(here):
    sweep(*GRID, "--out", "s")
    text = (here / "s" / "results.csv").read_text()
    (here / "s" / "results.csv").write_text(text.replace("\n64,1,", "\n65,1,"))
    assert "batch-size 65, seed 1: this sweep has no such network" in refused(*GRID, "--out", "s")
    (here / "s" / "results.csv").write_text(text.replace("batch-size,seed,", "batch-size,sead,"))
    assert "its options are batch-size, sead: not those of sweep.toml" in refused(*GRID, "--out", "s")


def test_plot_names_a_damaged_sweep(here):
    sweep(*GRID, "--out", "s")
    (here / "s" / "results.csv").write_text("x\n")
    assert "s/results.csv: line 1 is no header of a sweep" in refusal(mlpk("plot", "s"))
    (here / "s" / "results.csv").unlink()
    assert "results.csv" in refusal(mlpk("plot", "s"))


def test_a_mini_batch_of_one_row_is_no_batch_to_normalise(here):
    one = ("--batch-norm", "--batch-size", "1,32", "--epochs", 1)
    assert "--batch-size 1: a mini-batch is one row" in refused(*one)
    told = refusal(mlpk("sweep", *one, "--conv", "4x8", "--pool", 0, "--hidden", "none", "--backend", BACKEND))
    assert "take batch_size=2" in told  # images of one pixel, as only the data tell
    assert not (here / "runs").exists() or not list((here / "runs").iterdir())


def test_networks_of_several_kinds_train_in_one_sweep(here):
    sweep("--batch-norm", "on,off", "--dropout", "0,0.2", "--epochs", 1)
    found = rows(only(here))
    assert len(found) == 4 and {row["status"] for row in found} == {"finished"}
