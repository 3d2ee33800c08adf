"""`mlpk predict`: pictures and rows to classes and probabilities, as table, CSV and JSON."""

import csv
import io
import json
import shutil

import numpy as np
import pytest
from cli_running import good, mlpk, refusal, train
from PIL import Image

from mlpkernels import Network, datasets


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on digits."""
    return train(tmp_path_factory.mktemp("runs") / "run", "--epochs", 10)


@pytest.fixture(scope="module")
def expected(run):
    """(raw test rows, the run's probabilities for them)."""
    rows = datasets.load("digits").test.x[:12]
    return rows, Network.load(run / "model.safetensors").predict_proba(rows, backend="reference")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory, expected):
    """The test rows as PNG files of full scale 255."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for k, row in enumerate(expected[0]):
        paths.append(folder / f"{k}.png")
        Image.fromarray(np.round(row.reshape(8, 8) * (255 / 16)).astype(np.uint8)).save(paths[-1])
    return paths


def parsed(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_pictures_as_csv(run, pictures, expected):
    rows = parsed(good("predict", run, *pictures, "--format", "csv").stdout)
    proba = expected[1]
    assert [row["input"] for row in rows] == [str(path) for path in pictures]
    assert [int(row["class"]) for row in rows] == proba.argmax(axis=1).tolist()
    assert [float(row["probability"]) for row in rows] == pytest.approx(proba.max(axis=1), abs=0.02)


def test_rows_of_an_npz_as_json(run, tmp_path, expected):
    rows, proba = expected
    np.savez(tmp_path / "rows.npz", x=rows)
    found = json.loads(good("predict", run, tmp_path / "rows.npz", "--format", "json", "--top", 3).stdout)
    assert [entry["input"] for entry in found] == [f"{tmp_path / 'rows.npz'}:{k}" for k in range(1, 13)]
    order = np.argsort(-proba, axis=1, kind="stable")
    for entry, ranks, row in zip(found, order, proba, strict=True):
        assert [guess["class"] for guess in entry["top"]] == ranks[:3].tolist()
        assert [guess["probability"] for guess in entry["top"]] == pytest.approx(row[ranks[:3]], rel=1e-4, abs=1e-7)
        assert (entry["class"], entry["probability"]) == tuple(entry["top"][0].values())


def test_a_table_for_people(run, pictures, expected):
    text = good("predict", run, *pictures[:2], "--top", 2).stdout
    header, first, second = text.splitlines()
    assert header.split("  ")[0] == "input" and "class 2" in header and "probability 2" in header
    assert first.startswith(str(pictures[0])) and f" {expected[1][0].argmax()} " in first
    assert second.startswith(str(pictures[1])) and second.endswith(" %")


def test_dark_on_light(run, pictures, tmp_path):
    with Image.open(pictures[3]) as picture:
        Image.fromarray(255 - np.array(picture)).save(tmp_path / "inverted.png")
    plain = parsed(good("predict", run, pictures[3], "--format", "csv").stdout)[0]
    inverted = parsed(good("predict", run, tmp_path / "inverted.png", "--invert", "--format", "csv").stdout)[0]
    assert (plain["class"], plain["probability"]) == (inverted["class"], inverted["probability"])


def test_more_ranks_than_classes_give_all(run, pictures):
    (row,) = parsed(good("predict", run, pictures[0], "--top", 99, "--format", "csv").stdout)
    assert len(row) == 21
    assert sum(float(row[name]) for name in row if name.startswith("probability")) == pytest.approx(1, abs=1e-4)


def test_a_table_s_columns_are_found_by_name(tmp_path):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 2)) + 4 * (np.arange(40)[:, None] % 2)
    table = tmp_path / "table.csv"
    table.write_text("kind,a,b\n" + "".join(f"{['no', 'yes'][k % 2]},{a},{b}\n" for k, (a, b) in enumerate(points)))
    run = train(tmp_path / "run", table, "--epochs", 60)
    (tmp_path / "new.csv").write_text("b,a,kind\n0,0,no\n4,4,yes\n")
    rows = parsed(good("predict", run, tmp_path / "new.csv", "--format", "csv").stdout)
    assert [row["class"] for row in rows] == ["no", "yes"]
    (tmp_path / "less.csv").write_text("b\n0\n")
    assert "no column a" in refusal(mlpk("predict", run, tmp_path / "less.csv"))


@pytest.fixture(scope="module")
def labels_last(tmp_path_factory):
    """(table of pixels with the labels in its last column, run on it)."""
    folder = tmp_path_factory.mktemp("last")
    data = datasets.load("digits").train
    rows = [f"{','.join(map(str, x))},{y}\n" for x, y in zip((15 * data.x[:300]).tolist(), data.y[:300], strict=True)]
    table = folder / "table.csv"
    table.write_text(",".join(f"pixel{k}" for k in range(64)) + ",digit\n" + "".join(rows))
    return table, train(folder / "run", table, "--label-column", "digit", "--epochs", 20, "--learning-rate", 0.01)


@pytest.mark.parametrize("alone", [False, True], ids=["run", "model file"])
def test_labels_in_the_last_column_of_pixels(labels_last, tmp_path, alone):
    table, run = labels_last
    if alone:
        copy = tmp_path / "mine.safetensors"
        copy.write_bytes((run / "model.safetensors").read_bytes())
        run = copy
    lines = table.read_text().splitlines()
    other = tmp_path / "other.csv"
    other.write_text("\n".join(lines[:101]) + "\n")
    classes = [row["class"] for row in parsed(good("predict", run, other, "--format", "csv").stdout)]
    right = sum(found == line.rpartition(",")[2] for found, line in zip(classes, lines[1:101], strict=True))
    assert right > 80
    figures = json.loads(good("eval", run, other, "--format", "json").stdout)
    assert figures["accuracy"] == right / 100


def test_the_run_s_label_column_is_left_out_where_it_is_there(labels_last, tmp_path):
    table, run = labels_last
    lines = [line.rpartition(",")[0] for line in table.read_text().splitlines()[:11]]
    (tmp_path / "plain.csv").write_text("\n".join(lines) + "\n")
    found = parsed(good("predict", run, tmp_path / "plain.csv", table, "--format", "csv").stdout)
    assert [row["class"] for row in found[:10]] == [row["class"] for row in found[10:20]]


@pytest.mark.parametrize("name", ["eval", "predict", "info"])
def test_a_good_model_is_used_beside_a_damaged_checkpoint_and_unknown_settings(labels_last, tmp_path, name):
    table, whole = labels_last
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    words = {"eval": [run, table], "predict": [run, table], "info": [run]}[name]
    plain = good(name, *words).stdout
    checkpoint = run / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with open(run / "config.toml", "a") as file:
        file.write("later-setting = 1\n")
    result = good(name, *words)
    assert result.stdout == plain or name == "info"  # which shows the files' sizes
    notes = [line for line in result.stderr.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert f"note: {run / 'config.toml'}: no such setting: later-setting; passed over" in notes
    assert any(str(checkpoint) in note and note.endswith("; going on with the model alone") for note in notes)


def test_a_model_file_alone_predicts_pictures_too(run, pictures, tmp_path):
    copy = tmp_path / "mine.safetensors"
    copy.write_bytes((run / "model.safetensors").read_bytes())
    with_run = good("predict", run, *pictures, "--format", "csv").stdout
    assert good("predict", copy, *pictures, "--format", "csv").stdout == with_run


def test_the_newest_run_is_meant_where_the_first_word_is_a_file(tmp_path, monkeypatch, pictures):
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "runs" / "mine")
    assert good("predict", pictures[0]).stdout == good("predict", "mine", pictures[0]).stdout


def test_output_is_whole_or_not_there(run, pictures, tmp_path):
    good("predict", run, *pictures, "--format", "csv", "--output", tmp_path / "classes.csv")
    assert len(parsed((tmp_path / "classes.csv").read_text())) == 12
    line = refusal(mlpk("predict", run, *pictures, "--output", tmp_path / "no" / "classes.csv"))
    assert line.startswith("error: ") and str(tmp_path / "no" / "classes.csv") in line


def test_a_table_in_a_file_has_no_colours_and_no_file_is_lost(run, pictures, tmp_path):
    target = tmp_path / "classes.txt"
    good("predict", run, *pictures, "--output", target)
    text = target.read_text()
    assert text.startswith("input") and "\x1b" not in text
    for command in (["predict", run, *pictures], ["eval", run], ["doctor"]):
        line = refusal(mlpk(*command, "--output", target))
        assert line == f"mlpk {command[0]}: --output {target}: it exists; name a new file; see mlpk {command[0]} --help"
    assert target.read_text() == text


def test_mnist_pictures(mnist_dir, tmp_path):
    run = train(tmp_path / "run", "mnist", "--data-dir", mnist_dir, "--epochs", 1, "--hidden", 64)
    test = datasets.load("mnist", data_dir=mnist_dir, offline=True).test
    for k in range(5):
        Image.fromarray(test.x[k].reshape(28, 28)).save(tmp_path / f"{k}.png")
    rows = parsed(good("predict", run, *sorted(tmp_path.glob("*.png")), "--format", "csv").stdout)
    network = Network.load(run / "model.safetensors")
    assert [int(row["class"]) for row in rows] == network.predict(test.x[:5], backend="reference").tolist()


@pytest.mark.parametrize(
    "make, told",
    [
        (None, "no such file"),
        (lambda path: Image.new("L", (9, 8)).save(path), "9 x 8"),
        (lambda path: path.write_bytes(b"not a picture"), "picture"),
        (lambda path: path.write_bytes(b""), "empty"),
    ],
    ids=["missing", "of another size", "not a picture", "empty"],
)
def test_wrong_pictures_are_one_line(run, tmp_path, make, told):
    path = tmp_path / "picture.png"
    if make is not None:
        make(path)
    line = refusal(mlpk("predict", run, path))
    assert line.startswith("error: ") and str(path) in line and told in line


def test_wrong_words_are_one_line(run, tmp_path, pictures):
    assert refusal(mlpk("predict", run)).startswith("mlpk predict: FILE: at least one")
    assert refusal(mlpk("predict", run, pictures[0], "--top", 0)).startswith("mlpk predict: --top 0: a whole number")
    assert refusal(mlpk("predict", tmp_path / "nothing", pictures[0])).startswith(
        f"mlpk predict: {tmp_path / 'nothing'}: neither a run folder nor a file"
    )
    np.savez(tmp_path / "nan.npz", x=np.full((2, 64), np.nan))
    assert "nan" in refusal(mlpk("predict", run, tmp_path / "nan.npz"))
