"""What a sweep shows while it trains, and in which order it trains its networks."""

import io
import sys

import pytest
from mlpkernels_cli import sweep_display, sweep_plan
from mlpkernels_cli.settings import Settings
from mlpkernels_cli.sweep_display import Lines, Live, NetworkLines, Silence, display
from mlpkernels_cli.sweep_jobs import Job, Shelf, in_order, prepare

from mlpkernels import EpochResult
from mlpkernels.state import Progress
from mlpkernels.sweep import SweepRow


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A function that puts a terminal, 120 columns wide, in place of stdout and returns it."""

    def connect():
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.delenv("NO_COLOR", raising=False)
        monkeypatch.setattr(sweep_display, "_REFRESH", 0.0)
        return screen

    return connect


def jobs(count=3):
    return [Job(10 + k, {"batch-size": 8 * k, "hidden": (64, 64)}, Settings(), 1.0 + k) for k in range(count)]


def progress(epoch, step=5):
    return Progress(epoch, 4, step, 10, 100, 0.5, 0.8, 0.001, 0.25)


def row(status="finished"):
    return SweepRow(0, {}, status, 4, None, None)


def test_lines_of_networks_stand_under_their_header():
    lines = NetworkLines(jobs(), 12, validation=False)
    result = EpochResult(4, 0.1, 0.2, None, None, 0.25, 0.975, 0.001, 0.5, 100.0, False)
    assert lines.header() == "network  batch-size  hidden  epochs  test accuracy  test loss      training"
    told = lines.line(jobs()[1], row(), 7, 1.5, result)
    assert told == "   7/12           8   64,64       4        97.50 %     0.2500        1.50 s"
    assert lines.line(jobs()[1], row("diverged"), 7, 0.0, None).endswith("0.00 s  diverged")
    assert "val accuracy" in NetworkLines(jobs(), 12, validation=True).header()


def test_a_pipe_gets_a_line_a_network_and_quiet_nothing(capsys):
    with display("header", jobs(), 0, {}, quiet=False) as shown:
        assert type(shown) is Lines
        shown.update({0: progress(1)})
        shown.network("line", jobs()[0], False)
    with display("header", jobs(), 0, {}, quiet=True) as shown:
        assert type(shown) is Silence
        shown.update({0: progress(1)})
        shown.network("line", jobs()[0], False)
    assert capsys.readouterr().out == "header\nline\n"


def test_a_terminal_gets_a_table_of_those_under_way(terminal):
    screen = terminal()
    with display("header", jobs(), 2, {10: 0.25}, quiet=False) as shown:
        assert type(shown) is Live
        shown.update({0: progress(2), 1: progress(1)})
        drawn = screen.getvalue()
        shown.network("the line", jobs()[0], False)
        shown.update({0: progress(4), 1: progress(3)})
    for told in (
        "batch-size 0, hidden 64,64",
        "epoch 2/4",
        "loss 0.5000",
        "accuracy 80.00 %",
        "2 of 5 networks",
        "left",
    ):
        assert told in drawn
    after = screen.getvalue()[len(drawn) :]
    assert "the line" in after and "3 of 5 networks" in after and "epoch 3/4" in after
    assert "epoch 4/4" not in after  # it is done, even if its last progress is still there
    assert after.rindex("\x1b[?25h") > 0  # the cursor is back


def test_the_time_left_counts_what_is_longer_as_more(terminal, monkeypatch):
    screen = terminal()
    now = [100.0]
    monkeypatch.setattr(sweep_display.time, "perf_counter", lambda: now[0])
    with Live("header", jobs(), 0, {}) as shown:  # costs 1, 2 and 3
        now[0] += 10
        shown.network("line", jobs()[0], False)
        shown.update({1: progress(3, 0)})  # half of the second: 2 of 6 are done in 10 s
    assert "20.0 s left" in screen.getvalue()


def test_those_begun_come_first_then_the_longest_of_each_way_to_divide_the_data():
    def job(number, seed, cost):
        return Job(number, {}, Settings(split_seed=seed, val_split=0.1), cost)

    some = [job(0, 0, 1.0), job(1, 1, 9.0), job(2, 0, 3.0), job(3, 1, 2.0), job(4, 0, 2.0)]
    assert [one.number for one in in_order(some, {})] == [2, 4, 0, 1, 3]
    assert [one.number for one in in_order(some, {3: None})] == [3, 2, 4, 0, 1]


def test_small_batches_and_many_epochs_are_longer():
    given = {"batch-size": "8,64", "epochs": "1,5"}
    axes = {name: sweep_plan.parse_axis(name, text) for name, text in given.items()}
    plan = sweep_plan.from_options(None, axes, None, None)
    found = {tuple(job.setting.values()): job.cost for job in prepare(plan, plan.combinations(), Shelf(plan.base, 2))}
    assert plan.options == ("epochs", "batch-size")
    assert found[1, 64] < found[1, 8] < found[5, 8] == 5 * found[1, 8]


def test_the_data_are_divided_once_and_few_divisions_are_kept():
    shelf = Shelf(Settings(val_split=0.1), keep=2)
    first = shelf.data(Settings(val_split=0.1))
    assert shelf.data(Settings(val_split=0.1, seed=3)) is first
    shelf.data(Settings(val_split=0.2))
    assert shelf.data(Settings(val_split=0.1)) is first
    shelf.data(Settings(val_split=0.3))
    shelf.data(Settings(val_split=0.2))
    assert shelf.data(Settings(val_split=0.1)) is not first
    unit, standard = Settings(val_split=0.1, scale="unit"), Settings(val_split=0.1, scale="standard")
    assert shelf.scaling(unit) is shelf.scaling(unit) and shelf.scaling(standard).kind == "standard"
