"""The README's embedding section beside its Python: its C is compiled and called, its commands are run, as written."""

import ctypes
import os
import re
import shutil
import stat
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import stacks
from safetensors.numpy import save_file

from mlpkernels import Conv2d, Dense, MaxPool2d, Network, capi, datasets

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## Embed it\n(.*?)^## ", README, re.DOTALL | re.MULTILINE)[1]
PARTS = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", SECTION, re.DOTALL | re.MULTILINE))
EXPORT, IMPORT = "Export: C and ONNX", "Import: networks made elsewhere"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2"]

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="no shell here that runs the README's commands")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here that is called cc")
needs_onnx = pytest.mark.skipif(find_spec("onnx") is None, reason="onnx is not installed")


def blocks(part, kind):
    """The blocks of C or of shell commands in a part of the section."""
    return re.findall(rf"^```{kind}\n(.*?)^```$", PARTS[part], re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def shell(tmp_path_factory):
    """Runs commands in one folder, where `mlpk` is this checkout's; returns what they print."""
    folder = tmp_path_factory.mktemp("readme")
    mlpk = folder / "bin" / "mlpk"
    mlpk.parent.mkdir()
    start = "from mlpkernels_cli.main import main; main()"
    mlpk.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{start}" "$@"\n')
    mlpk.chmod(mlpk.stat().st_mode | stat.S_IXUSR)
    path = os.pathsep.join([str(mlpk.parent), os.environ["PATH"]])
    done: dict[str, str] = {}

    def run(commands):
        if commands not in done:  # blocks go on where those before them ended
            result = subprocess.run(
                ["sh", "-e", "-c", commands], cwd=folder, env={**os.environ, "PATH": path}, capture_output=True,
                text=True, timeout=600,
            )  # fmt: skip
            assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
            done[commands] = result.stdout
        return done[commands]

    run.folder = folder
    return run


def library(folder, source, *more):
    """A block of C compiled beside its headers, as a library for ctypes."""
    (folder / "block.c").write_text(source)
    command = ["cc", *STRICT, "-shared", "-fPIC", "block.c", *more, "-o", "block.so", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return ctypes.CDLL(str(folder / "block.so"))


def pointer(array):
    return array.ctypes.data_as(ctypes.c_void_p)


@needs_cc
def test_the_function_that_asks_a_network_by_its_pointer(tmp_path):
    (source,) = blocks("From C, Cython and SciPy", "c")
    (tmp_path / "mlpkernels.h").write_text(capi.header())
    net = Network([Dense(16, "tanh"), Dense(2)], inputs=3)
    handle = capi.network(net)
    x, scratch, out = np.ones(3, np.float32), handle.value.scratch(), np.zeros(2, np.float32)
    ask = library(tmp_path, source).ask
    assert ask(ctypes.c_void_p(handle.address), pointer(x), pointer(scratch), pointer(out)) == 0
    assert np.array_equal(out, net.predict_logits(x[None])[0])


@needs_cc
def test_an_exported_network_checks_itself_and_is_called(shell):
    commands, _ = blocks(EXPORT, "sh")
    assert re.search(r"digits: (\d) of \1 golden vectors agree\n\Z", shell(commands))
    (source,) = blocks(EXPORT, "c")
    recognise = library(shell.folder / "firmware", source, "digits.c").recognise
    recognise.restype = ctypes.c_char_p
    network, probability = Network.load(shell.folder / "runs/digits/model.safetensors"), np.zeros(1, np.float32)
    x = datasets.load("digits").test.x[:20].reshape(20, -1)
    wanted = network.predict_proba(x)
    for row, label, probabilities in zip(x.astype(np.float32), network.predict(x), wanted, strict=True):
        assert recognise(pointer(row), pointer(probability)) == str(label).encode()
        assert probability[0] == pytest.approx(probabilities.max(), abs=1e-5)


@needs_onnx
@needs_cc
def test_an_exported_graph_is_imported_and_evaluated(shell):
    first, second = blocks(EXPORT, "sh")
    shell(first)
    assert "model.onnx: " in shell(second)
    commands, _ = blocks(IMPORT, "sh")
    assert re.search(r"accuracy .*9\d\.\d+ %", shell(commands))
    before, after = (Network.load(shell.folder / run / "model.safetensors") for run in ("runs/digits", "runs/again"))
    x = datasets.load("digits").test.x
    assert np.array_equal(after.predict(x), before.predict(x))


def test_state_dicts_are_imported(shell):
    """Those of an MLP of two classes, and of a small CNN of pictures."""
    _, commands = blocks(IMPORT, "sh")
    dense = stacks.made([Dense(8, "tanh"), Dense(2)], 5, init="pytorch")
    convolutions = [layer for n in (4, 6) for layer in (Conv2d(n, 3, padding=1, activation="relu"), MaxPool2d(2))]
    images = stacks.made([*convolutions, Dense(10)], (1, 28, 28), init="pytorch")
    for network, name in ((dense, "net"), (images, "cnn")):
        save_file(network.state_dict(), shell.folder / f"{name}.safetensors")
    shell(commands)
    found = {run.name.rsplit("-", 2)[0]: run for run in (shell.folder / "runs").iterdir()}
    x = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    imported = Network.load(found["net"] / "model.safetensors")
    assert imported.classes == ("cat", "dog")
    assert np.allclose(imported.predict_logits(x), dense.predict_logits(x), 1e-5, 1e-5)
    x = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), np.uint8)
    scaled = ((x / 255 - 0.1307) / 0.3081).astype(np.float32)
    wanted = images.predict_logits(scaled)
    assert np.allclose(Network.load(found["cnn"] / "model.safetensors").predict_logits(x), wanted, 1e-4, 1e-4)


def test_no_block_of_c_or_commands_is_left_out():
    """But those of a GPU, which installs and trains there."""
    counts = {part: (len(blocks(part, "c")), len(blocks(part, "sh"))) for part in PARTS}
    counts = {part: count for part, count in counts.items() if any(count) and "GPU" not in part}
    assert counts == {"From C, Cython and SciPy": (1, 0), EXPORT: (1, 2), IMPORT: (0, 2)}
