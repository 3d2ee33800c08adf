"""What is shown while training and downloading, and how numbers and tables look."""

import io
import sys
import time

import pytest
from mlpkernels_cli import errors, progress, tables
from mlpkernels_cli.progress import Downloads, EpochLines, Lines, Live, Silence, compiling_notice

from mlpkernels import EpochResult
from mlpkernels.kernels import beside
from mlpkernels.state import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A function that puts a terminal, 100 columns wide, in place of stdout and stderr and returns it."""

    def connect():  # called in the test: pytest exchanges both streams after the fixtures
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        monkeypatch.setattr(sys, "stderr", screen)
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.delenv("NO_COLOR", raising=False)
        return screen

    return connect


def result(epoch, best=False):
    return EpochResult(epoch, 0.25, 0.5, 1.5, 0.75, 2e-7, 1.0, 0.001, 0.5, 123456.7, best)


def test_epoch_lines_stand_under_their_header():
    lines = EpochLines(10, validation=True, test=True, unit="images")
    assert lines.header() == (
        "epoch       loss   accuracy   val loss  val accuracy  test loss  test accuracy     images/s"
    )
    assert lines.line(result(3, best=True)) == (
        " 3/10     0.2500    50.00 %     1.5000       75.00 %   2.00e-07       100.00 %      123,457 *"
    )
    assert EpochLines(10, validation=False, test=False, unit="rows").line(result(3)) == (
        " 3/10     0.2500    50.00 %      123,457"
    )


def test_a_pipe_gets_a_line_an_epoch_and_quiet_nothing(capsys):
    lines = EpochLines(2, validation=False, test=False, unit="rows")
    with progress.display(lines, "rows", quiet=False) as shown:
        assert type(shown) is Lines
        shown.update(None)
        shown.epoch(result(1))
    with progress.display(lines, "rows", quiet=True) as shown:
        assert type(shown) is Silence
        shown.epoch(result(1))
    assert capsys.readouterr().out == f"{lines.header()}\n{lines.line(result(1))}\n"


def test_a_terminal_gets_a_live_bar(terminal, monkeypatch):
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    screen = terminal()
    lines = EpochLines(4, validation=True, test=False, unit="images")
    with progress.display(lines, "images", quiet=False) as shown:
        assert type(shown) is Live
        shown.update(Progress(2, 4, 10, 40, 1000, 0.5, 0.8, 0.001, 0.25))
        shown.update(Progress(2, 4, 20, 40, 2000, 0.25, 0.9, 0.001, 0.5))
        drawn = screen.getvalue()
        shown.epoch(result(2, best=True))
    for told in ("epoch 2/4", "50%", "loss 0.2500", "accuracy 90.00 %", "4,000 images/s", "left"):
        assert told in drawn
    after = screen.getvalue()
    assert lines.line(result(2, best=True)) in after
    assert after.rindex("\x1b[?25h") > after.rindex("\x1b[?25l")  # the cursor is back


def test_the_bar_is_not_drawn_at_every_call(terminal):
    screen = terminal()
    with Live(EpochLines(1, validation=False, test=False, unit="rows"), "rows") as shown:
        began = time.perf_counter()
        for step in range(2000):
            shown.update(Progress(1, 1, step + 1, 2000, step + 1, 0.5, 0.5, 0.1, 1.0))
        drawings = screen.getvalue().count("epoch 1/1")
        assert drawings <= 3 + (time.perf_counter() - began) / 0.1


def test_downloads_on_a_pipe_are_a_line_a_file(capsys):
    shown = Downloads()
    for done in range(0, 11):
        shown("a.gz", done, 10)
    shown("b.gz", 5, None)
    assert capsys.readouterr().err == "downloading a.gz\ndownloading b.gz\n"


def test_downloads_on_a_terminal_are_a_bar(terminal):
    screen = terminal()
    shown = Downloads()
    shown("a.gz", 500_000, 1_000_000)
    shown("a.gz", 1_000_000, 1_000_000)
    shown("b.gz", 10, None)
    text = screen.getvalue()
    assert " 50 %  500 kB of 1.0 MB" in text and "100 %  1.0 MB of 1.0 MB\n" in text and "b.gz  10 bytes" in text


def test_compiling_is_announced_only_if_it_takes_its_time(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_COMPILING", 0.02)
    with compiling_notice():
        pass
    assert capsys.readouterr().err == ""
    with compiling_notice():
        beside.compiling()
        time.sleep(0.3)
    assert capsys.readouterr().err.startswith("compiling the kernels for this processor")
    said = []
    with compiling_notice(said.append):
        time.sleep(0.1)
        beside.compiling()  # later than after which it is worth a word
        time.sleep(0.3)
    assert len(said) == 1 and capsys.readouterr().err == ""


def test_what_only_takes_long_to_load_is_not_called_compiling(capsys, monkeypatch):
    monkeypatch.setattr(progress, "_COMPILING", 0.02)
    with compiling_notice():
        time.sleep(0.3)
    assert capsys.readouterr().err == ""


def test_tables_are_aligned_by_what_a_terminal_shows():
    text = tables.table([["漢字", 1, "x"], ["e\u0301", 22, "yy"]], align="<><", indent=1)
    assert text == " 漢字   1  x\n e\u0301     22  yy"
    assert tables.table([]) == ""
    assert tables.table([[1, 2]], ["a", "long"]).endswith("1     2")


@pytest.mark.parametrize(
    "text, wanted",
    [
        (tables.percent(0.97561), "97.56 %"), (tables.percent(None), ""),
        (tables.decimal(0.12345), "0.1235"), (tables.decimal(0), "0.0000"), (tables.decimal(1e-7), "1.00e-07"),
        (tables.decimal(None), ""), (tables.decimal(123456.0), "1.23e+05"),
        (tables.seconds(0.314), "0.31 s"), (tables.seconds(59.94), "59.9 s"), (tables.seconds(75), "1 min 15 s"),
        (tables.seconds(3700), "1 h 01 min"),
        (tables.size(0), "0 bytes"), (tables.size(999), "999 bytes"), (tables.size(1500), "1.5 kB"),
        (tables.size(376_000_000), "376 MB"), (tables.size(5e12), "5000 GB"),
        (tables.quantity(12, "FLOP"), "12 FLOP"), (tables.quantity(51_712, "FLOP"), "51.7 kFLOP"),
        (tables.count(12345.6), "12,346"),
    ],
)  # fmt: skip
def test_numbers(text, wanted):
    assert text == wanted


def test_error_lines_are_one_line_without_control_characters():
    assert errors.one_line("a\n b\x1b[31m\tc") == "a b [31m c"
    assert errors.os_error_text(OSError(28, "No space left on device", "x")) == "x: no space left on device"
    assert errors.os_error_text(FileNotFoundError("File.csv: no such file")) == "File.csv: no such file"
    assert errors.os_error_text(OSError()) == "OSError"
    step = ("error: x: file exists; name another", 1)
    assert errors.explain(FileExistsError(17, "File exists", "x")) == step
    assert errors.explain(OSError("told by itself")) == ("error: told by itself", 1)
    assert errors.explain(MemoryError()) == ("error: not enough memory: use a smaller network, batch or data set", 1)
    with pytest.raises(KeyError):
        errors.explain(KeyError("a bug stays visible"))
