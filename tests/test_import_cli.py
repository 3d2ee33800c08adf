"""`mlpk import` and `mlpk export`: runs of networks made elsewhere, and networks for elsewhere, on a command line."""

import json
import subprocess
import sys

import numpy as np
import pytest
import stacks
from cli_running import good, mlpk, refusal, train
from exported_c import golden_run, needs_compiler
from safetensors.numpy import save_file

from mlpkernels import Conv2d, Dense, MaxPool2d, Network, Scaling, datasets


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def state_dict(path, layers=None, inputs=64, **options):
    """The tensors of a network, as torch would save them; returns the network."""
    network = Network(layers or [Dense(12, "relu"), Dense(10)], inputs, init="pytorch", **options)
    save_file(network.state_dict(), path)
    return network


# ---- import


def test_an_imported_run_is_a_run(folder):
    """eval, predict, info and export take it; predictions are those of the network it came from."""
    made = state_dict("net.safetensors")
    good("import", "net.safetensors", "--scale", "unit", "--full-scale", 16, "--input-shape", "1x8x8",
         "--data", "digits", "--out", "mine", backend=False)  # fmt: skip
    network = Network.load("mine/model.safetensors")
    x = datasets.load("digits").train.x
    assert network.scaling == Scaling("unit", 1 / 16, 0.0) and network.shape == (1, 8, 8)
    wanted = made.predict_logits(x.astype(np.float32) / 16, backend="reference")
    assert np.allclose(network.predict_logits(x, backend="reference"), wanted, 1e-5, 1e-5)
    measured = json.loads(good("eval", "mine", "--format", "json").stdout)
    assert measured["rows"] == 359 and measured["data"] == "digits, test part"
    assert json.loads(good("eval", "mine", "digits", "--part", "train", "--format", "json").stdout)["rows"] == 1438
    np.savez("some.npz", x=x[:3])
    predicted = json.loads(good("predict", "mine", "some.npz", "--format", "json").stdout)
    assert [row["class"] for row in predicted] == wanted[:3].argmax(axis=1).tolist()
    told = good("info", "mine").stdout
    assert f"imported from  {folder / 'net.safetensors'}" in told and "data           digits" in told
    assert "training" not in told
    good("export", "mine", backend=False)
    assert (folder / "mine/export/model.c").exists()
    assert sorted(path.name for path in (folder / "mine").iterdir()) == ["config.toml", "export", "model.safetensors"]


def test_the_newest_run_may_be_an_imported_one(folder):
    train(folder / "runs" / "older", "--backend", "reference")
    state_dict("net.safetensors")
    good("import", "net.safetensors", backend=False)
    run = next(path for path in (folder / "runs").iterdir() if path.name != "older")
    assert run.name.startswith("net-")
    assert f"run            runs/{run.name}" in good("info").stdout


def test_what_an_imported_run_cannot_do_is_one_line(folder):
    state_dict("net.safetensors")
    good("import", "net.safetensors", "--out", "mine", backend=False)
    assert "mine: nothing tells what data it is for: give DATA after it" in refusal(mlpk("eval", "mine"))
    assert "mine: it was imported, with no training to draw" in refusal(mlpk("plot", "mine"))
    assert "mine: it was imported: there is no training to go on with" in refusal(mlpk("train", "--resume", "mine"))


@pytest.mark.parametrize("moments", [("--std", "0.5"), ("--mean", "0.4", "--std", "0.5"), ("--mean", "0.4")])
def test_data_and_pictures_are_brought_to_the_given_full_scale(moments, folder):
    """A mean and a deviation are no part of the full scale: digits (0 to 16) and a PNG (0 to 255) stay so."""
    from PIL import Image

    made = state_dict("net.safetensors")
    good("import", "net.safetensors", "--scale", "unit", "--full-scale", 16, *moments, "--input-shape", "1x8x8",
         "--data", "digits", "--out", "mine", backend=False)  # fmt: skip
    options = dict(zip(moments[::2], map(float, moments[1::2]), strict=True))
    test = datasets.load("digits").test
    x = (test.x / 16 - options.get("--mean", 0)) / options.get("--std", 1)
    right = (made.predict_logits(x, backend="reference").argmax(axis=1) == test.y).mean()
    measured = json.loads(good("eval", "mine", "--format", "json").stdout)
    assert measured["rows"] == 359 and abs(measured["accuracy"] - right) < 4e-3
    logits = made.predict_logits(x, backend="reference")
    loss = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), test.y]
    assert abs(measured["loss"] - loss.mean()) < 1e-4
    image = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(image).save("some.png")
    pixels = ((image.reshape(1, 64) / 255) - options.get("--mean", 0)) / options.get("--std", 1)
    logits = made.predict_logits(pixels, backend="reference")[0]
    shown = json.loads(good("predict", "mine", "some.png", "--format", "json").stdout)[0]
    wanted = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    assert shown["class"] == int(wanted.argmax()) and abs(shown["probability"] - wanted.max()) < 1e-5


def test_classes_mean_and_deviation(folder):
    state_dict("net.safetensors", [Conv2d(2, 3, padding=1, activation="relu"), MaxPool2d(2), Dense(3)], (2, 6, 6))
    good("import", "net.safetensors", "--input-shape", "2x6x6", "--padding", 1, "--pool", 2, "--classes", "cat,dog,é",
         "--scale", "unit", "--mean", "0.5,0.25", "--std", "0.5,2", "--out", "mine", backend=False)  # fmt: skip
    network = Network.load("mine/model.safetensors")
    assert network.classes == ("cat", "dog", "é")
    x = np.random.default_rng(0).integers(0, 256, (2, 36)).astype(float)
    wanted = (x / 255 - [[0.5], [0.25]]) / [[0.5], [2]]
    assert np.allclose(network.scaling.apply(x.reshape(1, -1), "float64"), wanted.reshape(1, -1))


def test_numbers_are_predicted_in_every_format(folder):
    network = state_dict("net.safetensors", [Dense(5, "tanh"), Dense(2)], 3)
    good("import", "net.safetensors", "--activation", "tanh", "--loss", "squared-error", "--out", "mine", backend=False)
    x = np.random.default_rng(0).normal(size=(4, 3))
    np.savez("some.npz", x=x)
    wanted = network.predict_logits(x, backend="reference")
    found = json.loads(good("predict", "mine", "some.npz", "--format", "json").stdout)
    assert np.allclose([row["output"] for row in found], wanted, 1e-5, 1e-5)
    lines = good("predict", "mine", "some.npz", "--format", "csv").stdout.splitlines()
    assert lines[0] == "input,output,output_2" and len(lines) == 5
    assert np.allclose([float(word) for word in lines[1].split(",")[1:]], wanted[0], 1e-4, 1e-5)
    assert good("predict", "mine", "some.npz").stdout.split()[:4] == ["input", "output", "output", "2"]
    assert "loss           squared-error" in good("info", "mine").stdout
    assert "it predicts numbers" in refusal(mlpk("eval", "mine", "digits"))

    assert "--top 2: mine predicts numbers" in refusal(mlpk("predict", "mine", "some.npz", "--top", 2))


def test_numbers_beyond_the_range_are_json(folder):
    save_file({"0.weight": np.ones((1, 3), np.float32), "0.bias": np.float32([0])}, "net.safetensors")
    good("import", "net.safetensors", "--loss", "poisson", "--out", "mine", backend=False)
    np.savez("some.npz", x=[[0.0, 0, 0], [100, 100, 100]])

    def refused(word):
        raise AssertionError(word)

    found = json.loads(good("predict", "mine", "some.npz", "--format", "json").stdout, parse_constant=refused)
    assert [row["output"] for row in found] == [[1.0], [None]]
    assert "outputs        1 number\n" in good("info", "mine").stdout


def test_every_class_is_told_where_any_number_may_be_true(folder):
    state_dict("net.safetensors", [Dense(5, "relu"), Dense(3)], 4)
    good("import", "net.safetensors", "--loss", "binary", "--out", "mine", backend=False)
    np.savez("some.npz", x=np.random.default_rng(0).normal(size=(2, 4)))
    first = json.loads(good("predict", "mine", "some.npz", "--format", "json").stdout)[0]
    network = Network.load("mine/model.safetensors")
    proba = network.predict_proba(np.load("some.npz")["x"], backend="reference")[0]
    assert {guess["class"]: pytest.approx(guess["probability"], rel=1e-4) for guess in first["top"]} == dict(
        enumerate(proba)
    )
    one = json.loads(good("predict", "mine", "some.npz", "--format", "json", "--top", 1).stdout)
    assert "top" not in one[0] and one[0]["class"] == int(proba.argmax())


def test_the_order_of_modules_is_told(folder):
    random = np.random.default_rng(0)
    shapes = {"first": (6, 4), "last": (3, 6)}
    save_file({f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()},
              "net.safetensors")  # fmt: skip
    assert "modules        first, last\n" in good("import", "net.safetensors", "--out", "mine", backend=False).stdout


def test_a_table_is_evaluated_and_predicted(folder):
    state_dict("net.safetensors", [Dense(5, "relu"), Dense(2)], 3)
    rows = "".join(f"{'ab'[k % 2]},{k},{k * k},1\n" for k in range(20))
    (folder / "mine.csv").write_text("kind,one,two,three\n" + rows)
    good("import", "net.safetensors", "--data", "mine.csv", "--classes", "a,b", "--out", "run", backend=False)
    assert json.loads(good("eval", "run", "mine.csv", "--format", "json").stdout)["rows"] == 4
    assert len(json.loads(good("predict", "run", "mine.csv", "--format", "json").stdout)) == 20
    (folder / "empty.csv").write_text("")
    before = sorted(folder.iterdir())
    assert "empty.csv" in refusal(mlpk("import", "net.safetensors", "--data", "empty.csv", "--out", "b", backend=False))
    assert sorted(folder.iterdir()) == before


WRONG = {
    "no file": (("nothing",), "nothing: no such file; an ONNX or .safetensors file was wanted"),
    "a folder": (("full",), "full is a folder; an ONNX or .safetensors file was wanted"),
    "a run": (("run",), "run: it is a run already, which mlpk eval, predict, info and export take"),
    "pool": (("net.safetensors", "--pool", "2"), "pool: it goes with convolutions, and no module in the file is one"),
    "padding": (("net.safetensors", "--padding", "0,1"), "padding: it goes with convolutions, and no module"),
    "no place": (("one.safetensors", "--activation", "tanh"), "--activation tanh: one.safetensors leaves no place"),
    "shape": (("net.safetensors", "--input-shape", "1x"), "--input-shape 1x: sizes were wanted"),
    "shapes disagree": (("net.safetensors", "--input-shape", "1x9x9"), "it takes 64 values, not the given shape 1x9x9"),
    "activation": (("net.safetensors", "--activation", "gelu"), "--activation gelu: one of relu, tanh, logistic, none"),
    "loss": (("net.safetensors", "--loss", "hinge"), "--loss hinge: one of cross-entropy"),
    "classes": (("net.safetensors", "--classes", "a,b"), "classes: 10 were wanted"),
    "data": (("net.safetensors", "--data", "nowhere.csv"), "--data nowhere.csv: digits, mnist"),
    "full scale": (("net.safetensors", "--scale", "unit", "--full-scale", "1e-320"), "--full-scale 9.99989e-321: inp"),
    "std": (("net.safetensors", "--std", "0"), "--std 0: a number above 0 was wanted"),
    "small std": (("net.safetensors", "--std", "1e-320"), "--std 9.99989e-321: inputs divided by it are not finite"),
    "mean and std": (("net.safetensors", "--mean", "1,2", "--std", "1,2,3"), "--std: 3 values, and --mean 2; as many"),
    "means": (("net.safetensors", "--mean", "1,2"), "a scaling of 2 values; one for all, or one a column of 64 was"),
    "mean": (("net.safetensors", "--input-shape", "64", "--mean", "1,2,3"), "--mean: 3 values; one, or one a channel"),
    "a model of ours": (("own.safetensors",), "a file of mlpkernels, which needs no import"),
    "damaged": (("bad.safetensors",), "bad.safetensors is no safetensors file, or damaged"),
    "there": (("net.safetensors", "--out", "full"), "full: the folder is not empty; name another with --out$"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_leaves_nothing(name, folder):
    arguments, message = WRONG[name]
    state_dict("net.safetensors")
    state_dict("one.safetensors", [Dense(10)])
    Network([Dense(3)], 4).save("own.safetensors")
    (folder / "run").mkdir()
    (folder / "run" / "config.toml").write_text('data = "digits"\n')
    (folder / "bad.safetensors").write_bytes(b"nothing of the kind")
    (folder / "full").mkdir()
    (folder / "full" / "mine.txt").write_text("mine")
    before = sorted(folder.rglob("*"))
    line = refusal(mlpk("import", *arguments, backend=False)) + "$"
    assert message in line
    assert sorted(folder.rglob("*")) == before


def test_an_onnx_file_becomes_a_run(folder):
    pytest.importorskip("onnx", reason="onnx is not installed")
    train(folder / "first", "--backend", "reference")
    good("export", "first", "--format", "onnx", "--out", ".", "--name", "digits", backend=False)
    good("import", "digits.onnx", "--data", "digits", "--out", "second", backend=False)
    first, second = (json.loads(good("eval", run, "--format", "json").stdout) for run in ("first", "second"))
    assert first["confusion"] == second["confusion"] and abs(first["loss"] - second["loss"]) < 1e-5
    refused = refusal(mlpk("import", "digits.onnx", "--pool", 2, backend=False))
    assert "--pool: it goes with a .safetensors file" in refused
    (folder / "bad.onnx").write_bytes(b"nothing of the kind")
    assert "bad.onnx is no ONNX file, or damaged" in refusal(mlpk("import", "bad.onnx", backend=False))


# ---- export


@needs_compiler
def test_export_as_c(folder):
    train(folder / "runs" / "first", "--backend", "reference")
    told = good("export", backend=False).stdout
    assert told.startswith("runs/first/export/model.h: ") and "runs/first/export/model.c: " in told
    good("export", "first", "--out", "firmware/net", "--name", "digits", backend=False)
    assert golden_run(folder / "firmware/net", "digits").returncode == 0


def test_export_of_a_model_file(folder):
    stacks.made([Dense(3)], 4, classes=["a", "b", "c"]).save("net.safetensors")
    good("export", "net.safetensors", "--name", "net", backend=False)
    assert sorted(path.name for path in (folder / "export").iterdir()) == ["net.c", "net.h"]
    assert '"a", "b", "c"' in (folder / "export" / "net.c").read_text()


EXPORTS = {
    "untrained": (("runs/empty",), 1, "runs/empty: no model.safetensors in it; its training has not finished an epoch"),
    "initial values": (("runs/new.safetensors",), 1, "error: the network is untrained, its parameters are the initial"),
    "no run": (("runs/nowhere",), 2, "runs/nowhere: neither a run folder nor a file"),
    "no run in it": (("there",), 2, "there: no run folder: there is no config.toml in it"),
    "another file": (("there/model.h",), 2, "there/model.h: no run folder and no .safetensors file"),
    "keyword": (("runs/net.safetensors", "--name", "static"), 2, "--name static: a word of C or C++"),
    "identifier": (("runs/net.safetensors", "--name", "3d-net"), 2, "--name 3d-net: a C identifier was wanted"),
    "format": (("runs/net.safetensors", "--format", "tflite"), 2, "--format tflite: one of c, onnx was wanted"),
    "two runs": (("runs/net.safetensors", "more"), 2, "more: one RUN was wanted, no more"),
    "there": (("runs/net.safetensors", "--out", "there"), 1, "model.h exists; it was left as it is"),
    "a file": (("runs/net.safetensors", "--out", "there/model.h"), 1, "model.h"),
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_wrong_exports_are_one_line_and_leave_nothing(name, folder):
    arguments, code, message = EXPORTS[name]
    (folder / "runs" / "empty").mkdir(parents=True)
    (folder / "runs" / "empty" / "config.toml").write_text('data = "digits"\n')
    stacks.made([Dense(3)], 4).save("runs/net.safetensors")
    Network([Dense(3)], 4).save("runs/new.safetensors")
    (folder / "there").mkdir()
    (folder / "there" / "model.h").write_text("mine")
    before = sorted(folder.rglob("*"))
    result = mlpk("export", *arguments, backend=False)
    assert message in refusal(result) and result.exit_code == code
    assert sorted(folder.rglob("*")) == before
    assert (folder / "there" / "model.h").read_text() == "mine"


def test_onnx_without_the_package_names_the_extra(folder, monkeypatch):
    stacks.made([Dense(3)], 4).save("net.safetensors")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install 'mlpkernels[onnx]'" in refusal(
        mlpk("export", "net.safetensors", "--format", "onnx", backend=False)
    )
    (folder / "net.onnx").write_bytes(b"x")
    assert "pip install 'mlpkernels[onnx]'" in refusal(mlpk("import", "net.onnx", backend=False))
    assert sorted(path.name for path in folder.iterdir()) == ["net.onnx", "net.safetensors"]


def test_names_of_onnx_files(folder):
    stacks.made([Dense(3)], 4).save("net.safetensors")
    assert "--name a/b: a file's name was wanted" in refusal(
        mlpk("export", "net.safetensors", "--format", "onnx", "--name", "a/b", backend=False)
    )


def test_importing_the_library_needs_none_of_it():
    code = (
        "import mlpkernels.export, mlpkernels.foreign, sys\n"
        "print(sorted({'onnx', 'onnxruntime', 'google', 'numba', 'sklearn', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
