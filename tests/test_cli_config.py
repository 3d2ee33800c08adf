"""Settings: the file, its checks, options that override it, and a run repeated from its own file."""

import dataclasses
import tomllib

import pytest
from cli_running import BACKEND, good, mlpk, refusal, train, weights
from mlpkernels_cli import config, settings
from mlpkernels_cli.parsing import AUTO

from mlpkernels import datasets, kernels, layers, optimizers, scaling
from mlpkernels.affinity import cpu_count


def test_lists_kept_here_for_a_quick_help_are_the_library_s():
    assert settings.BUNDLED == datasets.NAMES
    assert set(settings.BACKENDS) == {*kernels.BACKENDS, *kernels.OPTIONAL, AUTO}
    assert settings.INITS == layers.INITS
    assert tuple(filter(None, layers.ACTIVATIONS)) == settings.ACTIVATIONS
    assert settings.SCALES == scaling.KINDS
    for name in optimizers.OPTIMIZERS:
        assert settings.parse("optimizer", name) == name


def test_the_file_holds_every_setting_and_reads_back_equal():
    odd = settings.build(
        {"data": 'a "b"\\ü\x7f\t.csv', "hidden": (), "learning-rate": 1e-5, "quiet": True, "early-stopping": 3}
    )
    text = config.to_toml(odd, with_out=True)
    assert list(tomllib.loads(text)) == list(settings.FIELDS)
    assert settings.build(settings.from_mapping(tomllib.loads(text))) == odd


def test_a_run_s_own_file_leaves_out_away_because_runs_never_share_a_folder():
    assert "out" not in tomllib.loads(config.to_toml(settings.Settings(), with_out=False))


def test_print_config_shows_settings_without_reading_data():
    text = good("train", "no-such-file", "--print-config", "--optimizer", "sgd", backend=False).stdout
    values = tomllib.loads(text)
    assert values["data"] == "no-such-file"
    assert (values["learning-rate"], values["batch-size"], values["hidden"]) == (0.1, AUTO, [128, 128])


def test_defaults_that_depend_on_other_settings():
    def resolved(**values):
        return settings.build({name.replace("_", "-"): value for name, value in values.items()})

    assert resolved().learning_rate == 0.001
    assert resolved(optimizer="sgd").learning_rate == 0.1
    assert (resolved().weight_decay, resolved(optimizer="adamw").weight_decay) == (0.0, 0.01)
    assert (resolved().val_split, resolved(early_stopping=3).val_split) == (0.0, 0.1)


@pytest.mark.parametrize(
    "rows, batch_size, epochs", [(20, 20, 30), (9_999, 32, 30), (10_000, 128, 10), (60_000, 128, 10)]
)
def test_defaults_that_depend_on_the_data(rows, batch_size, epochs):
    found = settings.resolve(settings.build({}), rows, "unit")
    assert (found.batch_size, found.epochs, found.scale) == (batch_size, epochs, "unit")


def test_options_override_the_file(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('hidden = [5]\nepochs = 7\noptimizer = "sgd"\nmomentum = 0.5\n')
    text = good("train", "--config", file, "--print-config", "--epochs", 3, "--no-plots", backend=False).stdout
    values = tomllib.loads(text)
    assert (values["hidden"], values["epochs"], values["plots"]) == ([5], 3, False)
    assert (values["optimizer"], values["momentum"]) == ("sgd", 0.5)


@pytest.mark.parametrize(
    "content, told",
    [
        ("epoch = 3", "epoch: no such setting, did you mean epochs?"),
        ("batch_size = 3", "batch_size: no such setting, did you mean batch-size?"),
        ("batch-size = 0", "batch-size = 0: a whole number from 1, full or auto was wanted"),
        ("epochs = 2.5", "epochs = 2.5: a whole number from 1 or auto was wanted"),
        ("epochs = true", "epochs = True: a whole number from 1 or auto was wanted"),
        ("offline = 1", "offline = 1: true or false was wanted"),
        ("hidden = [3, 0]", "hidden = [3, 0]: widths from 1"),
        ("hidden = 3", "hidden = 3: widths from 1"),
        ("data = 3", "data = 3: text was wanted"),
        ("learning-rate = nan", "learning-rate = nan: a number above 0 or auto was wanted"),
        ("scale = 1", "scale = 1: one of auto, unit"),
        ("[network]\nhidden = [3]", "network: no such setting"),
        ("epochs = ", "not a TOML file"),
        ("\xff", "not a TOML file"),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(tmp_path, content, told):
    file = tmp_path / "mine.toml"
    file.write_text(content, encoding="latin-1")
    result = mlpk("train", "--config", file, "--print-config", backend=False)
    assert result.exit_code == 2
    assert refusal(result).startswith(f"mlpk train: --config {file}: {told}")


def test_a_file_may_be_of_a_machine_with_more_cores(tmp_path):
    (tmp_path / "mine.toml").write_text("threads = 4096\n")
    text = good("train", "--config", tmp_path / "mine.toml", "--print-config", backend=False).stdout
    assert tomllib.loads(text)["threads"] == 4096


def test_a_file_that_is_not_there(tmp_path):
    line = refusal(mlpk("train", "--config", tmp_path / "no.toml"))
    assert line.startswith(f"mlpk train: --config {tmp_path / 'no.toml'}: no such file or directory")


@pytest.mark.parametrize(
    "words, told",
    [
        ("--hidden 0", "--hidden 0: widths from 1 to 1000000 were wanted"),
        ("--hidden 12,", "--hidden 12,: widths"),
        ("--hidden -3", "--hidden -3: widths"),
        ("--batch-size 0", "--batch-size 0: a whole number from 1, full or auto was wanted"),
        ("--batch-size half", "--batch-size half: a whole number from 1, full or auto was wanted"),
        ("--epochs 0", "--epochs 0: a whole number from 1 or auto was wanted"),
        ("--epochs 1.5", "--epochs 1.5: a whole number"),
        ("--learning-rate -0.1", "--learning-rate -0.1: a number above 0 or auto was wanted"),
        ("--learning-rate 0", "--learning-rate 0: a number above 0"),
        ("--learning-rate inf", "--learning-rate inf: a number above 0"),
        ("--learning-rate fast", "--learning-rate fast: a number above 0"),
        ("--optimizer sgd --momentum 1", "--momentum 1: a number from 0 and below 1 was wanted"),
        ("--momentum 0.9", "--momentum 0.9: it goes with --optimizer sgd, and the optimizer is adam"),
        ("--nesterov", "--nesterov: it goes with --optimizer sgd"),
        ("--optimizer sgd --nesterov", "--nesterov: it needs a --momentum above 0"),
        ("--weight-decay -1", "--weight-decay -1: a number from 0 or auto was wanted"),
        ("--clip-norm -1", "--clip-norm -1: a number from 0 was wanted"),
        ("--val-split 1", "--val-split 1: a number from 0 and below 1 or auto was wanted"),
        ("--val-split -0.1", "--val-split -0.1: a number from 0"),
        ("--val-split 0 --early-stopping 3", "--early-stopping 3: it needs validation data"),
        ("--test-split 0", "--test-split 0: a number above 0 and below 1 was wanted"),
        ("--test-split 1", "--test-split 1: a number above 0 and below 1 was wanted"),
        ("--early-stopping -1", "--early-stopping -1: a whole number from 0 was wanted"),
        ("--threads 0", "--threads 0: a whole number from 1 or auto was wanted"),
        ("--threads 100000", f"--threads 100000: this machine has {cpu_count()} cores"),
        ("--seed -1", "--seed -1: a whole number from 0 was wanted"),
        ("--init he", "--init he: one of he-normal, he-uniform"),
        ("--dtype float16", "--dtype float16: one of float32, float64 was wanted"),
        ("--backend gpu", "--backend gpu: one of cpu, cuda, reference, auto was wanted"),
        ("--scale units", "--scale units: one of auto, unit, symmetric, standard, none was wanted, did you mean unit?"),
        ("--optimizer adma", "--optimizer adma: one of sgd, adam, adamw was wanted, did you mean adam?"),
        ("--schedule linear", "--schedule linear: one of constant, step, cosine, one-cycle was wanted"),
        ("--schedule step:0", "--schedule step:0: "),
        ("--class-weight 3", "--class-weight 3: none, balanced or CLASS=WEIGHT pairs"),
        ("--class-weight 3=-1", "--class-weight 3=-1: none, balanced or CLASS=WEIGHT pairs"),
        ("--checkpoint-every 0", "--checkpoint-every 0: a whole number from 1 or auto was wanted"),
        # these need the data
        ("--batch-size 1000000", "--batch-size 1000000: at most the 14"),
        ("--class-weight 11=2", "--class-weight 11=2: no class 11; the classes are 0, 1, 2"),
    ],
)
def test_options_out_of_range_are_refused_by_name_and_leave_nothing(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    result = mlpk("train", *words.split())
    assert result.exit_code == 2
    line = refusal(result)
    assert line.startswith(f"mlpk train: {told}")
    assert line.endswith("see mlpk train --help")
    assert list(tmp_path.iterdir()) == []


def test_a_run_s_file_repeats_it_bit_for_bit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train(
        tmp_path / "first", "--seed", 3, "--optimizer", "sgd", "--momentum", 0.9, "--nesterov",
        "--schedule", "cosine", "--val-split", 0.2, "--class-weight", "3=2,8=0.5", "--clip-norm", 5,
    )  # fmt: skip
    good("train", "--config", first / "config.toml", "--out", tmp_path / "second")
    assert (first / "config.toml").read_text() == (tmp_path / "second" / "config.toml").read_text()
    assert weights(first) == weights(tmp_path / "second")
    good("train", "--config", first / "config.toml", "--seed", 4, "--out", tmp_path / "third")
    assert weights(first) != weights(tmp_path / "third")


def test_a_run_s_file_has_nothing_left_open(tmp_path):
    values = tomllib.loads((train(tmp_path / "run") / "config.toml").read_text())
    assert [name for name, value in values.items() if value == AUTO] == ["skip-zeros", "threads", "checkpoint-every"]
    assert values["backend"] == BACKEND
    assert (values["scale"], values["batch-size"]) == ("unit", 32)
    names = {field.name.replace("_", "-") for field in dataclasses.fields(settings.Settings)}
    assert set(values) == names - {"out"}


def test_paths_in_the_file_work_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "table.csv").write_text("kind,a,b\n" + "".join(f"{k % 2},{k},{-k}\n" for k in range(20)))
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "run", "table.csv")
    monkeypatch.chdir("/")
    good("train", "--config", tmp_path / "run" / "config.toml", "--out", tmp_path / "again")
