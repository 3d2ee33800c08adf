"""Running `mlpk` in tests: in this process through Click's runner, or as a process of its own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result
from conftest import BACKEND
from mlpkernels_cli.main import group

from mlpkernels import Network

COMMAND = [sys.executable, "-c", "from mlpkernels_cli.main import main; main()"]


def mlpk(*arguments: Any, backend: bool = True) -> Result:
    """Run a command in this process; train, eval, predict and plot take the tests' backend unless told not to."""
    words = [str(argument) for argument in arguments]
    if backend and words[0] in ("train", "eval", "predict", "plot") and not {"--backend", "--resume"} & set(words):
        words += ["--backend", BACKEND]
    return CliRunner().invoke(group, words)


def good(*arguments: Any, **options: Any) -> Result:
    """Run a command that must succeed."""
    result = mlpk(*arguments, **options)
    assert result.exit_code == 0, result.output
    return result


def train(out: Path, *arguments: Any) -> Path:
    """A quick training into the folder `out`, without figures."""
    good("train", "--no-plots", "--hidden", 16, "--epochs", 2, *arguments, "--out", out)
    return out


def weights(run: Path) -> dict[str, bytes]:
    """Every bit of a run's model, by name."""
    return {name: tensor.tobytes() for name, tensor in Network.load(run / "model.safetensors").state_dict().items()}


def refusal(result: Result) -> str:
    """The line on stderr of a command that failed as it should: one line, no traceback, nothing on stdout."""
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    return lines[0]


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """Start a command as a process of its own."""
    return subprocess.Popen(
        [*COMMAND, *map(str, arguments)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"}, **options,
    )  # fmt: skip
