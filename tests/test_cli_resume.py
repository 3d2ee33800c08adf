"""Stopping and going on: signals, checkpoints, locks, and settings that may not change."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_running import BACKEND, good, mlpk, refusal, start, train, weights
from mlpkernels_cli import interrupts, runs
from mlpkernels_cli.interrupts import Deferred, Interrupted
from mlpkernels_cli.session import Session

from mlpkernels import load_checkpoint
from mlpkernels.pace import Pace

SMALL = ("--hidden", 16, "--epochs", 4, "--no-plots", "--backend", BACKEND)


@pytest.fixture
def stop_after(monkeypatch):
    """A function: Ctrl-C arrives after that many steps, each of them a call of its own."""
    monkeypatch.setattr(Pace, "choose", lambda self: (self.ways[0], 0.0))
    plain = Deferred.check

    def arm(steps):
        left = [steps]

        def check(self):
            left[0] -= 1
            if left[0] == 0:
                self.handle(signal.SIGINT, None)
            plain(self)

        monkeypatch.setattr(interrupts.Deferred, "check", check)

    return arm


def column(run, name):
    with open(run / "history.csv", newline="") as file:
        return [row[name] for row in csv.DictReader(file)]


def same_history(run, other):
    """Every figure that does not tell a time."""
    names = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "test_loss", "test_accuracy")
    return all(column(run, name) == column(other, name) for name in (*names, "learning_rate"))


EXTRAS = [
    (),
    ("--early-stopping", 2, "--learning-rate", 0.05, "--epochs", 12),
    ("--optimizer", "sgd", "--momentum", 0.9, "--schedule", "one-cycle", "--val-split", 0.2),
    ("--dtype", "float64", "--class-weight", "balanced", "--eval-train", "--clip-norm", 1),
]


@pytest.mark.parametrize("extra", EXTRAS, ids=["plain", "early stopping", "one-cycle", "float64"])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bits(tmp_path, stop_after, extra):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    good("train", *SMALL, *extra, "--out", whole)
    stop_after(70)  # in the second epoch
    result = mlpk("train", *SMALL, *extra, "--out", cut)
    assert result.exit_code == 130
    found = re.fullmatch(
        r"stopped in epoch 2 at step \d+ of \d+; go on with: (mlpk train --resume \S+)\n", result.stderr
    )
    assert found
    stop_after(0)
    good(*found[1].split()[1:])
    assert weights(cut) == weights(whole)
    assert same_history(cut, whole)
    assert (cut / "config.toml").read_text() == (whole / "config.toml").read_text()
    assert not (cut / ".lock").exists()


def test_stopped_in_the_first_epoch_there_is_something_to_go_on_with(tmp_path, stop_after):
    stop_after(3)
    result = mlpk("train", *SMALL, "--out", tmp_path / "run")
    assert result.stderr.startswith("stopped in epoch 1 at step 3 of 4")
    assert column(tmp_path / "run", "epoch") == []
    stop_after(0)
    good("train", "--resume", tmp_path / "run")
    good("train", *SMALL, "--out", tmp_path / "whole")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_stopped_before_the_first_step_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def compiling(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("mlpkernels_cli.session.get_ready", compiling)
    result = mlpk("train", *SMALL)
    assert (result.exit_code, result.stderr) == (143, "stopped before the first step; nothing was kept\n")
    assert list(tmp_path.iterdir()) == []


def test_stopped_while_drawing_the_run_is_complete(tmp_path, monkeypatch):
    def drawing(*arguments):
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("mlpkernels_cli.report.draw", drawing)
    result = mlpk("train", "--epochs", 1, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert result.stderr == f"stopped while drawing; the run is complete, draw with: mlpk plot {tmp_path / 'run'}\n"
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_a_second_signal_ends_at_once():
    with Deferred() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(Interrupted, match="stopped at once") as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.exit_code == 143
        with pytest.raises(Interrupted) as caught:
            stop.check()
        assert caught.value.exit_code == 130


def test_a_second_signal_while_saving_leaves_the_checkpoint_before(tmp_path, stop_after, monkeypatch):
    out = tmp_path / "run"
    stop_after(70)

    def impatient(self):
        if self.saved:
            os.kill(os.getpid(), signal.SIGINT)
        plain(self)

    plain = Session._save
    monkeypatch.setattr(Session, "_save", impatient)
    result = mlpk("train", *SMALL, "--out", out)
    line = f"stopped at once; go on from the last checkpoint with: mlpk train --resume {out}\n"
    assert (result.exit_code, result.stderr) == (130, line)
    assert load_checkpoint(out / "checkpoint.safetensors")[1].epoch == 1
    assert sorted(file.name for file in out.iterdir()) == [
        "checkpoint.safetensors", "config.toml", "history.csv", "model.safetensors",
    ]  # fmt: skip


# ---- as a process


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """Data of which an epoch takes a good part of a second."""
    rng = np.random.default_rng(0)
    rows = 24_000 if BACKEND == "cpu" else 4_000
    path = tmp_path_factory.mktemp("data") / "slow.npz"
    np.savez(path, X=rng.normal(size=(rows, 64)).astype(np.float32), y=rng.integers(0, 5, rows))
    return path


SLOW = ("--hidden", "256,256", "--batch-size", 8, "--no-plots", "--backend", BACKEND)


def interrupted_after_an_epoch(signum, *arguments):
    """Start a training, send the signal soon after the first epoch is done; (exit code, stdout, stderr)."""
    process = start("train", *arguments)
    for line in process.stdout:
        if line.lstrip().startswith("1/"):
            time.sleep(0.05)
            process.send_signal(signum)
            break
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout, stderr


def said(stderr):
    """What a process said on stderr, but for the line that a slow machine is told of compiling."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith("compiling the kernels"))


def test_ctrl_c_in_a_real_process_and_the_resumed_model_equals_the_whole_one(tmp_path, slow):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    code, _, stderr = interrupted_after_an_epoch(signal.SIGINT, slow, *SLOW, "--epochs", 3, "--out", cut)
    assert code == 130
    where = r"(in epoch [23] at step \d+ of \d+|after epoch [12])"
    assert re.fullmatch(rf"stopped {where}; go on with: mlpk train --resume {cut}\n", said(stderr))
    resumed = start("train", "--resume", cut, "--quiet")
    assert said(resumed.communicate(timeout=60)[1]) == ""
    assert resumed.returncode == 0
    good("train", slow, *SLOW, "--epochs", 3, "--out", whole)
    assert weights(cut) == weights(whole)
    assert same_history(cut, whole)


def test_sigterm_keeps_a_checkpoint_too(tmp_path, slow):
    out = tmp_path / "run"
    code, _, stderr = interrupted_after_an_epoch(signal.SIGTERM, slow, *SLOW, "--epochs", 50, "--out", out)
    assert code == 143
    assert said(stderr).startswith("stopped ") and f"mlpk train --resume {out}" in stderr
    assert load_checkpoint(out / "checkpoint.safetensors")[1].epoch >= 1


def test_a_closed_pipe_keeps_a_checkpoint(tmp_path, slow):
    out = tmp_path / "run"
    process = start("train", slow, *SLOW, "--epochs", 50, "--out", out)
    for line in process.stdout:
        if line.lstrip().startswith("1/"):
            break
    process.stdout.close()  # as `| head` does
    assert process.wait(60) == 141
    assert said(process.stderr.read()) == ""
    process.stderr.close()
    assert load_checkpoint(out / "checkpoint.safetensors")[1].epoch >= 2


def test_a_killed_run_goes_on_from_its_checkpoint(tmp_path, slow):
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    code, _, _ = interrupted_after_an_epoch(signal.SIGKILL, slow, *SLOW, "--epochs", 2, "--out", cut)
    assert code == -signal.SIGKILL
    assert (cut / ".lock").exists()  # the lock went with the process, its file did not
    good("train", "--resume", cut, "--quiet")
    good("train", slow, *SLOW, "--epochs", 2, "--out", whole)
    assert weights(cut) == weights(whole)
    assert same_history(cut, whole)


def test_interrupted_downloads_and_predictions_are_one_line_too(tmp_path):
    code = (
        "import os, signal\n"
        "from mlpkernels_cli import errors\n"
        "raise SystemExit(errors.guarded(lambda: os.kill(os.getpid(), signal.SIGINT)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


# ---- what may change


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of two epochs."""
    return train(tmp_path_factory.mktemp("finished") / "run", "--seed", 5)


def test_a_finished_run_says_so(finished):
    before = {file.name: file.read_bytes() for file in finished.iterdir()}
    text = good("train", "--resume", finished).stdout
    assert text == f"{finished}: finished all 2 epochs; for more: mlpk train --resume {finished} --epochs 4\n"
    assert {file.name: file.read_bytes() for file in finished.iterdir()} == before


def test_more_epochs_in_another_folder_equal_a_longer_run(finished, tmp_path):
    good("train", "--resume", finished, "--epochs", 5, "--threads", 1, "--quiet", "--out", tmp_path / "more")
    longer = train(tmp_path / "longer", "--seed", 5, "--epochs", 5)
    assert weights(tmp_path / "more") == weights(longer)
    assert same_history(tmp_path / "more", longer)
    assert column(finished, "epoch") == ["1", "2"]


def test_more_epochs_in_its_own_folder(tmp_path):
    run = train(tmp_path / "run")
    good("train", "--resume", run, "--epochs", 3)
    assert column(run, "epoch") == ["1", "2", "3"]
    assert "\nepochs = 3\n" in (run / "config.toml").read_text()


@pytest.mark.parametrize(
    "words, told",
    [
        (
            "--learning-rate 0.1",
            "--learning-rate 0.1 where the run has 0.001: only --epochs, --threads, --quiet, --out",
        ),
        ("--hidden 16,16", "--hidden 16,16 where the run has 16: only"),
        ("--seed 4", "--seed 4 where the run has 5: only"),
        ("--batch-size full", "--batch-size full where the run has 32"),
        ("--data-dir /", '--data-dir / where the run has ""'),
        ("--no-plots --nesterov", "--nesterov on where the run has off"),
        ("mnist", "DATA mnist where the run has digits"),
    ],
)
def test_contradicting_options_are_refused_by_name(finished, words, told):
    result = mlpk("train", "--resume", finished, *words.split())
    assert result.exit_code == 1
    assert refusal(result).startswith(f"error: --resume {finished} with {told}")


def test_options_that_agree_are_fine(finished):
    good("train", "digits", "--resume", finished, "--hidden", 16, "--learning-rate", "1e-3", "--epochs", 2)
    assert "finished all 2 epochs" in good("train", "--resume", finished, "--epochs", "auto", "--scale", "auto").stdout


def test_fewer_epochs_are_refused(finished):
    line = refusal(mlpk("train", "--resume", finished, "--epochs", 1))
    assert line == "error: --epochs 1: the run was started with 2; epochs may grow only"


def test_epochs_are_fixed_where_the_schedule_depends_on_them(tmp_path):
    run = train(tmp_path / "run", "--schedule", "cosine")
    line = refusal(mlpk("train", "--resume", run, "--epochs", 5))
    assert line == f"error: --resume {run} with --epochs 5 where the run has 2: its schedule cosine depends on it"


def test_other_data_under_the_same_name_are_refused(tmp_path):
    table = tmp_path / "table.csv"
    rows = [f"{k % 2},{k % 7},{k % 5}" for k in range(50)]
    table.write_text("\n".join(["kind,a,b", *rows]) + "\n")
    run = train(tmp_path / "run", table)
    table.write_text("\n".join(["kind,a,b", *rows[:-1], "1,9,9"]) + "\n")
    before = {file.name: file.read_bytes() for file in run.iterdir()}
    assert "data was" in refusal(mlpk("train", "--resume", run, "--epochs", 3, "--quiet"))
    assert {file.name: file.read_bytes() for file in run.iterdir()} == before


def test_a_run_of_a_machine_with_more_cores_goes_on(tmp_path):
    run = train(tmp_path / "run")
    config = run / "config.toml"
    config.write_text(config.read_text().replace('threads = "auto"', "threads = 4096"))
    good("eval", run)
    good("train", "--resume", run, "--epochs", 3)
    assert column(run, "epoch") == ["1", "2", "3"]
    assert "\nthreads = 4096\n" in config.read_text()


@pytest.mark.parametrize("name, value", [("epochs", "2"), ("batch-size", "32"), ("scale", '"unit"')])
@pytest.mark.parametrize("line", ['{} = "auto"', "# {}"])
def test_a_run_s_file_without_what_was_decided_is_refused(tmp_path, finished, name, value, line):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    text = (run / "config.toml").read_text()
    assert f"\n{name} = {value}\n" in text
    (run / "config.toml").write_text(text.replace(f"\n{name} = {value}\n", f"\n{line.format(name)}\n"))
    told = refusal(mlpk("train", "--resume", run, "--learning-rate", 0.001))
    assert told.startswith(f"error: {run / 'config.toml'}: {name} is not there or auto: the value")


def overflow_when_stopped(monkeypatch, saved):
    """A weight is infinite when the first signal comes, before (saved False) or after a first checkpoint."""
    plain = Session._record

    def check(self):
        monkeypatch.setattr(Deferred, "check", lambda self: None)
        session.network.params[0] = np.inf
        raise Interrupted(signal.SIGINT)

    def record(self, result):
        nonlocal session
        plain(self, result)
        session = self
        monkeypatch.setattr(Deferred, "check", check)

    def train(self, epochs):
        nonlocal session
        session = self
        monkeypatch.setattr(Deferred, "check", check)
        train_plain(self, epochs)

    session, train_plain = None, Session._train
    if saved:
        monkeypatch.setattr(Session, "_record", record)
    else:
        monkeypatch.setattr(Session, "_train", train)


@pytest.mark.parametrize("extra", [(), ("--early-stopping", 2)], ids=["plain", "early stopping"])
def test_stopped_after_an_overflow_the_last_checkpoint_stays(tmp_path, monkeypatch, extra):
    overflow_when_stopped(monkeypatch, saved=True)
    out = tmp_path / "run"
    result = mlpk("train", *SMALL, *extra, "--out", out)
    told = f"stopped; a weight is not finite any more, the last checkpoint is in {out}\n"
    assert (result.exit_code, result.stderr) == (130, told)
    assert load_checkpoint(out / "checkpoint.safetensors")[1].epoch == 1
    assert all(np.isfinite(np.frombuffer(value, np.float32)).all() for value in weights(out).values())


def test_stopped_after_an_overflow_before_a_checkpoint_nothing_is_left(tmp_path, monkeypatch):
    overflow_when_stopped(monkeypatch, saved=False)
    result = mlpk("train", *SMALL, "--out", tmp_path / "run")
    assert (result.exit_code, result.stderr) == (130, "stopped after a weight had overflowed; nothing was kept\n")
    assert list(tmp_path.iterdir()) == []


def test_config_and_resume_do_not_go_together(finished):
    line = refusal(mlpk("train", "--resume", finished, "--config", finished / "config.toml"))
    assert line.startswith("mlpk train: --config: it does not go with --resume")
    assert "--print-config" in refusal(mlpk("train", "--resume", finished, "--print-config"))


def test_what_is_no_run_is_refused(tmp_path):
    line = refusal(mlpk("train", "--resume", tmp_path / "nothing"))
    assert line.startswith(f"mlpk train: --resume {tmp_path / 'nothing'}: no run folder")


@pytest.mark.parametrize("damage", ["missing", "truncated", "of another architecture"])
def test_a_damaged_checkpoint_is_named(tmp_path, finished, damage):
    run = train(tmp_path / "run")
    checkpoint = run / "checkpoint.safetensors"
    if damage == "missing":
        checkpoint.unlink()
    elif damage == "truncated":
        checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    else:
        other = train(tmp_path / "other", "--hidden", 9)
        checkpoint.write_bytes((other / "checkpoint.safetensors").read_bytes())
    line = refusal(mlpk("train", "--resume", run, "--epochs", 3, "--quiet"))
    assert line.startswith("error: ")
    assert str(run) in line and checkpoint.name in line


def test_two_processes_never_write_into_one_run(tmp_path):
    run = train(tmp_path / "run")
    held = runs.RunFolder.reopen(run)
    try:
        line = refusal(mlpk("train", "--resume", run, "--epochs", 3))
        assert line.startswith(f"error: {run}: another mlpk command writes to it now (process {os.getpid()} on ")
    finally:
        held.close()
    good("train", "--resume", run, "--epochs", 3)
