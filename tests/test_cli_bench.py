"""`mlpk bench`: what it prints and writes, comparing, thresholds, and what it refuses."""

import dataclasses
import json

import pytest
from cli_running import good, mlpk, refusal
from mlpkernels_cli import bench_report
from test_bench import entry, measured

from mlpkernels import bench
from mlpkernels.bench import machine, running


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, a machine that is quiet, and no MNIST."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLPK_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(machine, "others_now", lambda: 0.0)
    return tmp_path


def results(entries, quick=False):
    """A measurement of this machine."""
    settings = {"quick": quick, "images": "made-up images", "threads": machine.thread_counts()}
    return measured(entries, machine=machine.facts(), settings=settings)


def epoch(system="mlpkernels", seconds=(0.1, 0.11, 0.12), **others):
    name, group = "784-64-64-10 SGD 64", "epoch"
    return entry(name, seconds, section="epochs", group=group, system=system, images=12_000.0, bytes=0.0, **others)


@pytest.fixture
def instant(here, monkeypatch):
    """What `run` would measure, without measuring: kernels and an epoch, 2 ms and 0.11 s."""
    made = results([entry(seconds=(2e-3, 2e-3, 2.1e-3)), epoch(), epoch("PyTorch eager", (1.1,))])
    monkeypatch.setattr(bench, "get_ready", lambda options: None, raising=False)
    monkeypatch.setattr(bench, "run", lambda options, found, watch: made, raising=False)
    return here


def test_quick_kernels_for_real(here):
    result = good("bench", "--quick", "--only", "kernels", "--out", "out")
    assert "forward 784-128, batch 128" in result.stdout and "at best, 1 thread" in result.stdout
    found = bench.read(here / "out" / "results.json")
    assert {each.section for each in found.entries} == {"kernels"} and found.settings["quick"] is True
    assert all(len(each.seconds) >= 3 for each in found.entries)
    assert (here / "out" / "roofline.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in (here / "out").iterdir()) == ["results.json", "roofline.png"]


def test_quick_epochs_for_real(here, monkeypatch):
    monkeypatch.setattr(running.epochs, "CASES", running.epochs.CASES[:1])
    result = good("bench", "--quick", "--only", "epochs", "--save", "kept.json", "--quiet")
    assert "784-64-64-10 SGD 64" in result.stdout and "images/s" in result.stdout
    (run,) = (here / "runs").iterdir()
    assert [path.name for path in run.iterdir()] == ["results.json"]
    assert (here / "kept.json").read_bytes() == (run / "results.json").read_bytes()


def test_the_tables(instant):
    text = good("bench").stdout
    assert "processor" in text and "Some" not in text
    (kernel,) = (line for line in text.splitlines() if line.startswith("forward 784-64"))
    assert "2,000.0" in kernel and "50 " in kernel  # µs, GFLOP/s
    (peer,) = (line for line in text.splitlines() if "PyTorch eager" in line)
    assert peer.endswith("10.0 x") and "5.500" in peer  # 1.1 s for 12,000 images


def test_a_kernel_has_a_row_for_each_number_of_threads():
    measurement = [entry(name, threads=count) for count in (1, 2) for name in ("a", "b")]
    rows = [line.split() for line in bench_report.text(results(measurement)).splitlines() if line.endswith("%")]
    assert [row[:2] for row in rows] == [["a", "1"], ["2", "1,100.0"], ["b", "1"], ["2", "1,100.0"]]
    peer = entry("b", (3.3e-3,), system="NumPy", threads=2)
    lines = bench_report.text(results([*measurement, peer])).splitlines()
    assert [line.split()[0] for line in lines if line.endswith("3.00 x")] == ["2"]


def test_comparing(instant):
    results([entry(seconds=(1e-3, 1e-3, 1.1e-3)), epoch()]).write("before.json")
    text = good("bench", "--compare", "before.json", "--threshold", "2.5").stdout
    assert "compared with" in text and "of 2026-01-02 03:04" in text
    (line,) = (line for line in text.splitlines() if line.endswith("slower"))
    assert "2.00" in line and "1.0 ms" in line and "2.0 ms" in line


def test_beyond_the_threshold_is_one_line_and_exit_code_1(instant):
    results([entry(seconds=(1e-3, 1e-3, 1.1e-3)), epoch()]).write("before.json")
    result = mlpk("bench", "--compare", "before.json", "--threshold", "1.5", "--save", "now.json", "--quiet")
    assert result.exit_code == 1
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith("error: forward 784-64, batch 64 on 1 thread takes 2.00 times as long as before (")
    assert line.endswith("beyond 1.5, the worst of 1")
    assert bench.read("now.json").entries[0].seconds[0] == 2e-3


def test_a_file_that_was_missed_stays_as_it_was(instant):
    results([entry(seconds=(1e-3,)), epoch()]).write("before.json")
    kept = (instant / "before.json").read_bytes()
    result = mlpk("bench", "--compare", "before.json", "--threshold", "1.5", "--save", "before.json")
    assert result.exit_code == 1 and "stays as it was" in result.stderr
    assert (instant / "before.json").read_bytes() == kept
    done = good("bench", "--compare", "before.json", "--threshold", "3", "--save", "before.json")
    assert done.stdout.endswith("before.json\n") and "saved: " in done.stdout
    assert (instant / "before.json").read_bytes() != kept


def test_another_machine_is_refused_unless_forced(instant):
    made = results([entry(), epoch()])
    dataclasses.replace(made, machine={**made.machine, "cpu": "Another CPU"}).write("before.json")
    line = refusal(mlpk("bench", "--compare", "before.json"))
    assert line.startswith("error: ") and "cpu was Another CPU, is " in line and line.endswith("all the same")
    assert not (instant / "runs").exists()
    result = good("bench", "--compare", "before.json", "--force")
    assert "note: compared all the same: cpu was Another CPU" in result.stderr and "compared with" in result.stdout


def test_quick_is_not_compared_with_a_whole_measurement(instant):
    results([entry()], quick=True).write("before.json")
    assert "quick was on, is off" in refusal(mlpk("bench", "--compare", "before.json"))


def test_a_file_without_the_section_is_refused_before_measuring(instant):
    results([entry()]).write("before.json")
    line = refusal(mlpk("bench", "--only", "epochs", "--compare", "before.json"))
    assert "has no epochs" in line


@pytest.mark.parametrize(
    "words, code, message",
    [
        (["--threshold", "1.1"], 2, "--threshold 1.1: it goes with --compare FILE"),
        (["--force"], 2, "--force: it goes with --compare FILE"),
        (["--only", "epoch"], 2, "--only epoch: one of kernels, epochs was wanted, did you mean epochs?"),
        (["--compare", "x", "--threshold", "0.9"], 2, "--threshold 0.9: a number from 1 was wanted"),
        (["--compare", "nothing.json"], 1, "nothing.json: no such file or directory"),
        (["--save", "nowhere/x.json"], 2, "there is no such folder"),
        (["--save", "."], 2, "it is a folder"),
        (["--save", "mine.csv"], 2, "it exists and is no measurement; name a new file"),
        (["--data-dir", "nowhere"], 1, "no such folder"),
        (["--out", "full"], 1, "the folder is not empty"),
    ],
)
def test_what_cannot_be_is_one_line(instant, words, code, message):
    (instant / "full").mkdir()
    (instant / "full" / "file").touch()
    (instant / "mine.csv").write_text("mine")
    result = mlpk("bench", *words)
    assert result.exit_code == code and message in refusal(result) and "--resume" not in result.stderr
    assert (instant / "mine.csv").read_text() == "mine"
    assert not (instant / "runs").exists()


def test_a_wrong_answer_ends_it_and_leaves_nothing(here, monkeypatch):
    def wrong(options, found, watch):
        from mlpkernels.errors import MlpkError

        raise MlpkError("mlpkernels: forward is wrong, so nothing is timed")

    monkeypatch.setattr(bench, "run", wrong, raising=False)
    assert refusal(mlpk("bench", "--quiet")) == "error: mlpkernels: forward is wrong, so nothing is timed"
    assert not (here / "runs").exists()


def test_a_busy_machine_is_warned_of(instant, monkeypatch):
    monkeypatch.setattr(machine, "others_now", lambda: 1.4)
    assert "warning: other programs keep 1.4 of " in good("bench", "--quiet").stderr


def test_warnings_name_what_makes_figures_doubtful():
    made = results([entry(cut=True)])
    busy = dataclasses.replace(made, load={**made.load, "others": 0.7})
    assert [line.split(":")[0] for line in bench_report.warnings(busy)] == [
        "other programs took 0.7 cores while this ran", "too slow for a whole epoch, extrapolated from a part",
    ]  # fmt: skip
    unknown = dataclasses.replace(made, load={**made.load, "others": None, "before": [1.5, 1, 1]}, entries=[entry()])
    assert bench_report.warnings(unknown) == ["the load average was 1.5 before: measure again on a quiet machine"]


def test_the_file_is_json_for_other_programs(instant):
    good("bench", "--save", "a.json")
    found = json.loads((instant / "a.json").read_text())
    assert {"machine", "settings", "versions", "load", "ceilings", "entries"} <= found.keys()
    assert found["entries"][0]["seconds"] == [2e-3, 2e-3, 2.1e-3]
