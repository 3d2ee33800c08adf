"""The group and its --help: complete, quick, with examples; versions and unknown words."""

import os
import subprocess
import sys

import click
import pytest
from cli_running import good, mlpk, refusal
from click.testing import CliRunner
from mlpkernels_cli.main import COMMANDS, group

from mlpkernels import __version__


@pytest.mark.parametrize("command", COMMANDS)
def test_help_closes_with_an_example_that_the_options_allow(command):
    text = good(command, "--help", backend=False).stdout
    assert text.endswith("\n")
    examples = text.partition("\nExample")[2].splitlines()[1:]
    assert examples and all(line.startswith(f"  mlpk {command}") for line in examples)
    options = text.partition("\nExample")[0]
    for line in examples:
        for word in line.split("  ")[1].split():
            assert not word.startswith("--") or word in options


def test_every_option_of_every_command_has_a_help_text():
    context = click.Context(group)
    for name in COMMANDS:
        for param in group.get_command(context, name).params:
            if isinstance(param, click.Option):
                assert param.help, f"mlpk {name} {param.opts}"


def test_the_group_alone_shows_its_help():
    result = good("--help")
    assert CliRunner().invoke(group, []).stdout == result.stdout
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert "Examples:\n  mlpk train " in result.stdout


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_imports_neither_numba_nor_matplotlib_nor_numpy(command):
    code = (
        "import sys\n"
        "from mlpkernels_cli.main import group\n"
        f"group.main({[*command.split(), '--help']!r}, standalone_mode=False)\n"
        "heavy = ('numba', 'matplotlib', 'numpy', 'rich', 'PIL')\n"
        "print(*(name for name in heavy if name in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "80"}
    )
    assert "Usage: mlpk" in done.stdout
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["--version"]])
def test_the_group_imports_no_command_to_list_it(words):
    code = (
        "import sys\n"
        "from mlpkernels_cli.main import COMMANDS, group\n"
        f"group.main({words!r}, standalone_mode=False)\n"
        "from mlpkernels_cli import data_group\n"
        "modules = {lazy.module for lazy in (*COMMANDS.values(), *data_group.COMMANDS.values())} - {'data_group'}\n"
        "print(*(name for name in modules if f'mlpkernels_cli.{name}' in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["train", ""], "an argument"), (["train", "--hidden", ""], "--hidden"), (["eval", ""], "an argument"),
        (["train", "--config="], "--config"), (["predict", "", "a.png"], "an argument"), (["info", ""], "an argument"),
        (["train", "--seed=3", ""], "an argument"), (["bench", "--only", ""], "--only"),
    ],
)  # fmt: skip
def test_what_is_empty_is_not_taken_for_the_current_folder(words, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = mlpk(*words)
    assert result.exit_code == 2 and not list(tmp_path.iterdir())
    wanted = "none for no layers" if name == "--hidden" else "a value"
    assert refusal(result).startswith(f"mlpk {words[0]}: {name} '': it is empty; give {wanted}, or leave it out")


def test_an_empty_value_undoes_what_a_settings_file_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('label-column = "b"\n')
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{k % 3},{k % 2}\n" for k in range(30)))
    good("train", "t.csv", "--config", "s.toml", "--label-column", "", "--epochs", 1, "--out", "run", "--quiet")
    assert 'label-column = ""' in (tmp_path / "run" / "config.toml").read_text()
    assert "'--a='" in refusal(mlpk("info", "--", "--a="))


def test_a_mistyped_option_is_compared_without_its_dashes():
    assert ", did you mean --epochs?" in refusal(mlpk("train", "--epoch", "3"))
    assert "did you mean" not in refusal(mlpk("train", "--nosuch"))


@pytest.mark.parametrize("lazy_group", ["mlpk", "data"])
def test_a_shell_that_completes_shows_the_lines_of_help(lazy_group):
    parent = group if lazy_group == "mlpk" else group.get_command(click.Context(group), "data")
    for name, lazy in parent.lazy.items():
        assert parent.get_command(click.Context(parent), name).get_short_help_str(100) == lazy.summary


def test_version():
    assert good("--version").stdout == f"mlpk {__version__}\n"


@pytest.mark.parametrize(
    "words, line",
    [
        (["tran"], "mlpk: tran: no such command, did you mean train? see mlpk --help"),
        (["x"], "mlpk: x: no such command; see mlpk --help"),
        (["--verzion"], "mlpk: --verzion: no such option, did you mean --version? see mlpk --help"),
        (
            ["train", "--epoch-s", "3"],
            "mlpk train: --epoch-s: no such option, did you mean --epochs? see mlpk train --help",
        ),
        (["train", "--epochs"], "mlpk train: option '--epochs' requires an argument; see mlpk train --help"),
        (["train", "digits", "mnist"], "mlpk train: got unexpected extra argument (mnist); see mlpk train --help"),
        (["eval", "--format", "xml"], "mlpk eval: --format xml: one of table, json was wanted; see mlpk eval --help"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(words, line):
    result = mlpk(*words, backend=False)
    assert result.exit_code == 2
    assert refusal(result) == line


def test_a_terminal_without_utf_8_gets_escapes_and_no_traceback():
    code = "import sys; sys.argv = ['mlpk', 'predict', '--help']; from mlpkernels_cli.main import main; main()"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
    assert "FILE\\u2026" in done.stdout and done.stderr == ""


def test_a_reader_that_has_enough_ends_the_command_quietly():
    code = (
        "import os, sys\n"
        "read, write = os.pipe()\n"
        "os.close(read)\n"
        "os.dup2(write, 1)\n"
        "from mlpkernels_cli.main import main\n"
        "sys.argv = ['mlpk', '--help']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 141
    assert done.stderr == ""


def test_the_schedule_s_help_tells_of_the_warm_up():
    text = " ".join(good("train", "--help", backend=False).stdout.split())
    assert "cosine (cosine:2 with 2 epochs of warm-up)" in text
