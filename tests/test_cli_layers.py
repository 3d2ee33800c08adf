"""Convolutions, pools, batch normalisation and dropout as options of `mlpk train`, and commands on such runs."""

import csv
import subprocess
import sys
import tomllib

import numpy as np
import pytest
from cli_running import BACKEND, good, mlpk, refusal, train, weights
from mlpkernels_cli import architecture, settings
from PIL import Image

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network
from mlpkernels.datasets import Dataset, Part

EVERYTHING = ("--conv", "4x3,6x2", "--pool", 2, "--hidden", 12, "--batch-norm", "--dropout", 0.25)


@pytest.fixture
def colours(tmp_path):
    """A .npz of 12 x 12 pictures in three channels, whose class is the channel with a bright square."""
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    x = rng.integers(0, 60, (90, 12, 12, 3)).astype(np.uint8)
    for k in range(90):
        i, j = rng.integers(1, 7, 2)
        x[k, i : i + 4, j : j + 4, y[k]] = 230
    path = tmp_path / "colours.npz"
    np.savez(path, X=x, y=y)
    return path


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("kind,a,b\n" + "".join(f"{k % 3},{k % 3 + k / 500},{k % 7}\n" for k in range(81)))
    return path


def dataset(*shape, rows=50):
    part = Part(np.zeros((rows, int(np.prod(shape))), np.uint8), (np.arange(rows) % 10).astype(np.int32))
    return Dataset("made up", part, part, tuple(range(10)), shape, 255.0, len(shape) == 3, source="")


def stack(shape, **values):
    given = settings.from_mapping({name.replace("_", "-"): value for name, value in values.items()})
    return architecture.layers(settings.build(given), dataset(*shape))


# ---- from settings to layers


def test_layers_stand_where_people_expect_them():
    relu = "relu"
    assert stack((1, 28, 28)) == [Dense(128, relu), Dense(128, relu), Dense(10)]
    assert stack((1, 28, 28), conv="10x5,20x5", hidden="50") == [
        Conv2d(10, 5, activation=relu), MaxPool2d(2), Conv2d(20, 5, activation=relu), MaxPool2d(2),
        Dense(50, relu), Dense(10),
    ]  # fmt: skip
    assert stack((3, 9, 9), conv="4x3", pool=0, hidden="none") == [Conv2d(4, 3, activation=relu), Dense(10)]
    assert stack((64,), hidden="8,4", dropout=0.5) == [
        Dense(8, relu), Dropout(0.5), Dense(4, relu), Dropout(0.5), Dense(10),
    ]  # fmt: skip
    assert stack((3, 9, 9), conv="4x3", pool=0, hidden="8", activation="tanh") == [
        Conv2d(4, 3, activation=relu), Dense(8, "tanh"), Dense(10),
    ]  # fmt: skip
    assert stack((3, 9, 9), conv="4x3", pool=3, hidden="8", batch_norm=True, dropout=0.1) == [
        Conv2d(4, 3), BatchNorm(relu), MaxPool2d(3), Dense(8), BatchNorm(relu), Dropout(0.1), Dense(10),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "shape, values, text",
    [
        ((1, 8, 8), {}, "64 → 128 → 128 → 10"),
        ((1, 28, 28), {"conv": "10x5,20x5", "hidden": "50"},
         "1x28x28 → conv 10@5x5 → pool 2 → conv 20@5x5 → pool 2 → 320 → 50 → 10"),
        ((3, 9, 9), {"conv": "4x3", "pool": 0, "hidden": "none"}, "3x9x9 → conv 4@3x3 → 196 → 10"),
        ((5,), {"hidden": "8", "batch_norm": True, "dropout": 0.25}, "5 → 8 → batch norm → dropout 0.25 → 10"),
        ((5,), {"hidden": "8", "activation": "tanh"}, "5 → 8 tanh → 10"),
        ((5,), {"hidden": "8", "activation": "logistic", "batch_norm": True}, "5 → 8 → batch norm logistic → 10"),
    ],
)  # fmt: skip
def test_a_network_is_told_in_a_line(shape, values, text):
    assert architecture.describe(Network(stack(shape, **values), shape)) == text


def test_windows_and_pools_of_two_sizes_are_told_too():
    network = Network([Conv2d(4, (3, 5)), MaxPool2d((1, 2)), Dense(3)], (1, 8, 8))
    assert architecture.describe(network) == "1x8x8 → conv 4@3x5 → pool 1x2 → 48 → 3"


def test_a_long_line_is_broken_before_an_arrow():
    shape = (3, 40, 40)
    long = Network(stack(shape, conv="6x3,8x3,9x3", hidden="50,50", batch_norm=True, dropout=0.5), shape)
    lines = architecture.told(long).splitlines()
    assert len(lines) > 1 and all(len(line) <= 100 for line in lines)
    assert all(line.startswith("  → ") for line in lines[1:-1])
    assert lines[-1] == f"  {long.parameter_count:,} parameters, float32"
    assert "".join(lines[:-1]).replace("  →", " →") == f"network {architecture.describe(long)}"
    cnn = Network(stack((1, 28, 28), conv="10x5,20x5", hidden="50"), (1, 28, 28))
    assert architecture.told(cnn).splitlines()[1] == "  21,840 parameters, float32"


# ---- settings


def test_the_options_are_in_the_settings_file_as_they_are_typed():
    text = good("train", "--print-config", *EVERYTHING, backend=False).stdout
    values = tomllib.loads(text)
    assert (values["conv"], values["pool"], values["hidden"]) == (["4x3", "6x2"], 2, [12])
    assert (values["batch-norm"], values["dropout"]) == (True, 0.25)
    values = tomllib.loads(good("train", "--print-config", backend=False).stdout)
    assert (values["conv"], values["pool"], values["batch-norm"], values["dropout"]) == ([], 2, False, 0)


def test_a_run_of_a_version_without_them_is_read(tmp_path):
    run = train(tmp_path / "run")
    lines = (run / "config.toml").read_text().splitlines()
    older = [
        line for line in lines if line.split(" = ")[0] not in ("conv", "pool", "activation", "batch-norm", "dropout")
    ]
    assert len(older) == len(lines) - 5
    (run / "config.toml").write_text("\n".join(older))
    good("train", "--resume", run, "--epochs", 3)
    good("eval", run)


@pytest.mark.parametrize(
    "line, told",
    [
        ('conv = "10x5"', None),
        ("conv = []", None),
        ("conv = [10, 5]", 'conv = [10, 5]: channels x kernel, as 10x5,20x5, or "none" was wanted'),
        ('conv = ["10"]', "conv = ['10']: channels x kernel, as"),
        ("conv = 10", "conv = 10: channels x kernel, as"),
        ("pool = true", "pool = True: a whole number from 0 was wanted"),
        ("batch-norm = 1", "batch-norm = 1: true or false was wanted"),
        ("dropout = 1.0", "dropout = 1.0: a number from 0 and below 1 was wanted"),
    ],
)
def test_values_in_a_file(tmp_path, line, told):
    file = tmp_path / "mine.toml"
    file.write_text(line)
    result = mlpk("train", "--config", file, "--print-config", backend=False)
    if told is None:
        assert result.exit_code == 0
    else:
        assert told in refusal(result)


@pytest.mark.parametrize("words", ["10", "10x", "x5", "0x5", "10x0", "10x5x5", "10x5,", "10x-5", "ten x five"])
def test_convolutions_written_wrong(words):
    wanted = 'channels x kernel, as 10x5,20x5, or "none" was wanted; see mlpk train --help'
    assert refusal(mlpk("train", "--conv", words)) == f"mlpk train: --conv {words}: {wanted}"


@pytest.mark.parametrize(
    "words, told",
    [
        ("--conv 4x9", "--conv 4x9: the kernel of convolution 1, 9 x 9, is larger than the images, 8 x 8; a smaller "
         "one was wanted"),
        ("--conv 4x3,4x4", "--conv 4x3,4x4: the kernel of convolution 2, 4 x 4, is larger than what convolution 1 and "
         "its pool leave of the images, 3 x 3; a smaller one or a smaller --pool was wanted"),
        ("--conv 4x7,4x3 --pool 0", "--conv 4x7,4x3: the kernel of convolution 2, 3 x 3, is larger than what "
         "convolution 1 leaves of the images, 2 x 2"),
        ("--conv 4x3 --pool 7", "--pool 7: its windows are larger than the images behind convolution 1, 6 x 6, and "
         "leave nothing; a smaller pool, 0 for none, or smaller kernels were wanted"),
        ("--conv 4x3,4x3", "--pool 2: its windows are larger than the images behind convolution 2, 1 x 1"),
        ("--pool 3", "--pool 3: it goes with --conv, such as --conv 10x5,20x5, and there is none"),
        ("--pool -1 --conv 4x3", "--pool -1: a whole number from 0 was wanted"),
        ("--dropout 1", "--dropout 1: a number from 0 and below 1 was wanted"),
        ("--dropout -0.1", "--dropout -0.1: a number from 0 and below 1 was wanted"),
        ("--dropout nan", "--dropout nan: a number from 0 and below 1 was wanted"),
        ("--dropout 0.5 --hidden none", "--dropout 0.5: it needs a hidden layer, and --hidden is none"),
        ("--activation tanh --hidden none", "--activation tanh: it needs a hidden layer, and --hidden is none"),
        ("--activation sigmoid", "--activation sigmoid: one of relu, tanh, logistic was wanted"),
        ("--batch-norm --hidden none", "--batch-norm: it needs a hidden layer or a convolution, and both are none"),
        ("--batch-norm --batch-size 1", "--batch-size 1: a mini-batch is one row, of which --batch-norm can take no "
         "variance; 2, for instance, was wanted"),
        ("--batch-norm --batch-size 479", "--batch-size 479: the last mini-batch of 1,438 training rows is one row, of "
         "which --batch-norm can take no variance; 480, for instance, was wanted"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    result = mlpk("train", *words.split())
    assert result.exit_code == 2
    assert refusal(result).startswith(f"mlpk train: {told}")
    assert list(tmp_path.iterdir()) == []


def test_tables_have_no_room_for_convolutions(table):
    told = "--conv 4x3: convolutions need images, and table is a table of 2 columns; --hidden alone was wanted"
    assert refusal(mlpk("train", table, "--conv", "4x3")).startswith(f"mlpk train: {told}")


def test_a_pixel_of_every_channel_needs_more_than_one_row(tmp_path):
    words = ("--conv", "4x8", "--pool", 0, "--hidden", "none", "--batch-norm", "--batch-size", 1)
    line = refusal(mlpk("train", *words, "--quiet", "--out", tmp_path / "run"))
    assert line.startswith("error: batch_size=1: a mini-batch is one row, of which BatchNorm(activation='relu') can")
    assert not (tmp_path / "run").exists()


def test_the_batch_size_that_nobody_chose_suits_batch_norm(tmp_path, table):
    out = tmp_path / "run"  # 65 training rows: 32 would leave one
    train(out, table, "--batch-norm", "--epochs", 1)
    assert tomllib.loads((out / "config.toml").read_text())["batch-size"] == 33
    assert settings.resolve(settings.build({"batch-norm": True}), 64, "unit").batch_size == 32
    assert settings.resolve(settings.build({}), 65, "unit").batch_size == 32


# ---- runs


def test_every_command_takes_such_a_run(tmp_path, colours):
    run = tmp_path / "run"
    result = good("train", colours, *EVERYTHING, "--epochs", 20, "--learning-rate", 0.01, "--out", run)
    told = "network 3x12x12 → conv 4@3x3 → batch norm → pool 2 → conv 6@2x2 → batch norm → pool 2 → 24 → 12\n"
    assert told + "  → batch norm → dropout 0.25 → 3, 597 parameters, float32\n" in result.stdout
    assert (run / "plots" / "weights.png").stat().st_size > 1000
    network = Network.load(run / "model.safetensors")
    assert [type(layer) for layer in network.layers] == [
        Conv2d, BatchNorm, MaxPool2d, Conv2d, BatchNorm, MaxPool2d, Dense, BatchNorm, Dropout, Dense,
    ]  # fmt: skip
    with open(run / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["test_accuracy"]) > 0.9
    text = good("eval", run).stdout
    assert f"{100 * float(last['test_accuracy']):.2f} %" in text
    text = good("info", run, backend=False).stdout
    assert "3 x 12 x 12" in text and "Conv2d" in text and "MaxPool2d" in text and "Dropout" in text
    with np.load(colours) as data:
        Image.fromarray(data["X"][1]).save(tmp_path / "one.png")
    assert good("predict", run, tmp_path / "one.png", "--format", "csv").stdout.splitlines()[1].split(",")[1] == "1"
    assert "weights.png" in good("plot", run, "--output", tmp_path / "figures").stdout


@pytest.mark.parametrize("words", [EVERYTHING, ("--conv", "4x3"), ("--batch-norm", "--early-stopping", 2)])
def test_a_run_that_goes_on_is_the_same_bit_for_bit(tmp_path, words):
    whole = train(tmp_path / "whole", *words, "--epochs", 4)
    begun = train(tmp_path / "begun", *words, "--epochs", 2)
    good("train", "--resume", begun, "--epochs", 4)
    assert weights(begun) == weights(whole)


def test_the_seed_draws_the_masks_of_dropout(tmp_path):
    words = ("--dropout", 0.5, "--epochs", 1)
    one, same, other = (train(tmp_path / name, *words, "--seed", seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))
    assert weights(one) == weights(same) != weights(other)


def test_contradictions_are_refused_by_name(tmp_path):
    run = train(tmp_path / "run", "--conv", "4x3", "--dropout", 0.25)
    good("train", "--resume", run, "--conv", "4x3", "--pool", 2, "--dropout", 0.25)
    for words, told in (
        ("--conv 4x3,4x2", "--conv 4x3,4x2 where the run has 4x3"),
        ("--conv none", "--conv none where the run has 4x3"),
        ("--pool 0", "--pool 0 where the run has 2"), ("--batch-norm", "--batch-norm on where the run has off"),
        ("--dropout 0.5", "--dropout 0.5 where the run has 0.25"),
    ):  # fmt: skip
        line = refusal(mlpk("train", "--resume", run, *words.split()))
        assert line.startswith(f"error: --resume {run} with {told}: only --epochs")


@pytest.mark.skipif(BACKEND != "cpu", reason="the reference backend has nothing to compile")
@pytest.mark.parametrize(
    "words, wanted",
    [
        ((), set()),
        (("--conv", "4x3"), {"image_layers"}),
        (("--batch-norm",), {"flat_layers"}),
        (("--activation", "tanh"), {"curved_layer"}),
        (("--conv", "4x3", "--dropout", 0.1), {"image_layers", "flat_layers"}),
        (("--threads", 1), set()),
        (("--scale", "standard"), set()),
    ],
)
def test_exactly_the_kernels_that_the_run_needs_are_compiled_before_it(tmp_path, words, wanted):
    code = (
        "import sys\n"
        "from mlpkernels.kernels.cpu import steps\n"
        "from mlpkernels_cli import session\n"
        "from mlpkernels_cli.main import group\n"
        "plain, ready = session.get_ready, []\n"
        "session.get_ready = lambda *words: (plain(*words), ready.extend(steps._made))[0]\n"
        "group.main(sys.argv[1:], standalone_mode=False)\n"
        "assert set(steps._made) == set(ready), set(steps._made) ^ set(ready)\n"
        "print(*(name for name, dtype in ready))"
    )
    words = ("train", "--quiet", "--no-plots", "--hidden", 64, "--epochs", 2, "--out", tmp_path / "run", *words)
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names = set(done.stdout.splitlines()[-1].split())
    assert names & {"image_layers", "flat_layers", "curved_layer", "target_losses"} == wanted
    if "--threads" in words:
        assert not {"train_parallel", "run_parallel"} & names
