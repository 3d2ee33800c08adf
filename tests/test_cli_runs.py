"""Run folders: made once, locked, found again, without half lines."""

import errno
import os
import subprocess
import sys
import time

import pytest
from mlpkernels_cli import runs
from mlpkernels_cli.runs import RunFolder

from mlpkernels.errors import MlpkError


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "data, stem", [("digits", "digits"), ("/a b/c?ö.csv", "c"), ("/x/...", "run"), ("my data", "my-data"), ("", "run")]
)
def test_a_folder_is_named_after_its_data(here, data, stem):
    folder = RunFolder.create("", data)
    assert folder.path.parent == runs.PARENT
    assert folder.path.name.rsplit("-", 2)[0] == stem
    folder.close()


def test_a_fresh_folder_goes_again_with_its_parents_and_contents(here):
    folder = RunFolder.create("a/b/c", "digits")
    (folder / "plots").mkdir()
    (folder / "plots" / "one.png").write_text("x")
    (folder / "config.toml").write_text("x")
    folder.close(keep=False)
    assert list(here.iterdir()) == []


def test_a_parent_that_another_run_uses_stays(here):
    folder = RunFolder.create("a/b", "digits")
    (here / "a" / "other").mkdir()
    folder.close(keep=False)
    assert [entry.name for entry in (here / "a").iterdir()] == ["other"]


def test_a_reopened_folder_is_never_removed(here):
    RunFolder.create("run", "digits").close()
    RunFolder.reopen(here / "run").close(keep=False)
    assert (here / "run").is_dir() and not (here / "run" / runs.LOCK).exists()


def test_the_lock_names_its_owner_and_ends_with_it(here):
    (here / "run").mkdir()
    code = (
        "from pathlib import Path\n"
        "from mlpkernels_cli.runs import RunFolder\n"
        "folder = RunFolder.reopen(Path('run'))\n"
        "print('locked', flush=True)\n"
        "input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(MlpkError, match=rf"another mlpk command writes to it now \(process {other.pid} on "):
            RunFolder.reopen(here / "run")
        other.kill()
    assert (here / "run" / runs.LOCK).exists()
    RunFolder.reopen(here / "run").close()


def no_locks(*arguments):
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("way", ["no fcntl", "no locks"])
def test_without_locks_whoever_makes_the_file_holds_the_folder(here, monkeypatch, way):
    if way == "no fcntl":
        monkeypatch.setattr(runs, "fcntl", None)
    else:
        monkeypatch.setattr(runs.fcntl, "flock", no_locks)
    folder = RunFolder.create("run", "digits")
    told = rf"another mlpk command writes to it now \(process {os.getpid()} on .*\); if it is gone, remove \.lock there"
    with pytest.raises(MlpkError, match=told):
        RunFolder.reopen(here / "run")
    folder.close()
    RunFolder.reopen(here / "run").close()
    RunFolder.create("fresh", "digits").close(keep=False)
    assert [entry.name for entry in here.iterdir()] == ["run"] and list((here / "run").iterdir()) == []


def test_a_folder_that_cannot_be_made_leaves_no_parents(here, monkeypatch):
    plain = os.mkdir

    def mkdir(path, *arguments):
        if str(path).endswith("c"):
            raise OSError(28, "No space left on device", str(path))
        plain(path, *arguments)

    monkeypatch.setattr(os, "mkdir", mkdir)
    with pytest.raises(OSError, match="No space"):
        RunFolder.create("a/b/c", "digits")
    assert list(here.iterdir()) == []


def test_lines_are_added_whole(here):
    path = here / "history.csv"
    runs.append_line(path, "1,a\n")
    runs.append_line(path, runs.history_line([2, 0.1, None, 1e-9]))
    assert path.read_text() == "1,a\n2,0.1,,1e-09\n"


@pytest.mark.parametrize("written", [0, 3])
def test_a_line_that_does_not_fit_is_taken_back(here, monkeypatch, written):
    path = here / "history.csv"
    runs.append_line(path, "1,a\n")
    plain = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: plain(descriptor, data[:written]))
    with pytest.raises(OSError, match="No space left") as caught:
        runs.append_line(path, "2,bbbb\n")
    assert caught.value.filename == str(path)
    assert path.read_text() == "1,a\n"


def test_runs_are_found_by_path_by_name_and_by_model_file(here):
    run = here / "runs" / "mine"
    run.mkdir(parents=True)
    (run / runs.CONFIG).write_text("")
    assert runs.find("mine") == runs.PARENT / "mine"
    assert runs.find(str(run)) == run
    assert runs.find("runs") is None and runs.find("other") is None
    (run / runs.MODEL).write_text("")
    assert runs.find("runs/mine/model.safetensors") == runs.PARENT / "mine" / runs.MODEL
    assert runs.newest() == runs.PARENT / "mine"


def test_a_sweep_s_folder_is_named(here):
    (here / "runs" / "mine").mkdir(parents=True)
    (here / "runs" / "mine" / "sweep.toml").write_text("")
    for name in ("mine", "runs/mine"):
        with pytest.raises(MlpkError, match="the folder of a sweep, which holds no network: mlpk plot draws it"):
            runs.find(name)


def test_a_run_without_its_settings_is_named_as_such(here):
    folder = here / "runs" / "mine"
    folder.mkdir(parents=True)
    (folder / runs.CHECKPOINT).write_bytes(b"")
    with pytest.raises(MlpkError, match=r"mine: a run folder without its config\.toml: put that back$"):
        runs.find("mine")
    (folder / runs.MODEL).write_bytes(b"")
    for name in ("mine", str(folder)):
        with pytest.raises(MlpkError, match=r"put that back, or name \S*mine.model\.safetensors$"):
            runs.find(name)
    assert runs.find(str(folder / runs.MODEL)) == folder / runs.MODEL
    other = here / "mine"  # a model of that name here does not hide the run
    other.mkdir()
    (other / runs.MODEL).write_bytes(b"")
    (folder / runs.CONFIG).write_text("")
    assert runs.find("mine") == runs.PARENT / "mine"


def test_the_newest_run_is_the_one_written_to_last(here):
    for k, name in enumerate(("b", "a", "c")):
        run = here / "runs" / name
        run.mkdir(parents=True)
        for file in (runs.CONFIG, runs.MODEL, runs.HISTORY):
            (run / file).write_text("")
        os.utime(run / runs.HISTORY, (0, time.time() + k))
    assert runs.newest().name == "c"
    with pytest.raises(MlpkError, match="no run in elsewhere/ here"):
        runs.newest(here.__class__("elsewhere"))
