"""`mlpk data show`: every kind of data is drawn and described; what is wrong is one line and leaves nothing."""

import struct

import numpy as np
import pytest
from cli_running import good, mlpk, refusal
from dataset_files import idx_bytes
from mlpkernels_cli import report
from PIL import Image

from mlpkernels import Dense, Network, datasets

NAMES = ["samples", "counts", "means", "histogram"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(result, folder):
    """The command told of four pictures, which are there, whole, and alone; what stood before that list."""
    text, _, listed = result.stdout.partition("\n\nfigures" if str(folder).startswith("figures") else f"\n\n{folder}")
    assert listed.splitlines()[1:] == [str(folder / f"{name}.png") for name in NAMES[1:]]
    assert sorted(path.stem for path in folder.iterdir()) == sorted(NAMES)
    for path in folder.iterdir():
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG" and min(image.size) > 100
    return text


def pictures(folder, mode):
    for k in range(12):
        (folder / f"kind {k % 3}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (6, 9, 3), np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"kind {k % 3}" / f"{k}.png")


def test_digits_into_the_usual_folder(folder):
    text = check(good("data", "show", "digits"), folder.joinpath("figures", "digits").relative_to(folder))
    assert "1 x 8 x 8 (channels, height, width)" in text
    for k, count in enumerate(np.bincount(datasets.load("digits").train.y)):
        assert f"\n{k}           {count}  " in text


def test_a_table_with_names(folder):
    rows = [f"{'xyz'[k % 3]},{k},{k * k % 7},1" for k in range(30)]
    (folder / "mine.csv").write_text("kind,count,rest,one\n" + "\n".join(rows) + "\n")
    text = check(good("data", "show", "mine.csv", "--out", "a/b"), folder.joinpath("a/b").relative_to(folder))
    assert "3 columns" in text and "\nx            10" in text
    (folder / "last.csv").write_text("a,kind\n1,x\n2,y\n3,x\n")
    assert "\ny             1" in good("data", "show", "last.csv", "--label-column", "kind", "--out", "other").stdout
    assert "no column 'no'" in refusal(mlpk("data", "show", "mine.csv", "--label-column", "no", "--out", "third"))
    assert not (folder / "third").exists()


@pytest.mark.parametrize("shape", [(40, 5, 5), (40, 5, 5, 3), (40, 30)])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_npz(folder, shape, kind):
    random = np.random.default_rng(0)
    x = random.integers(0, 256, shape, np.uint8) if kind == "bytes" else random.random(shape)
    np.savez(folder / "mine.npz", x_train=x, y_train=np.arange(40) % 3, x_test=x[:9], y_test=np.arange(9) % 3)
    check(good("data", "show", "mine.npz", "--out", "out"), folder.joinpath("out").relative_to(folder))


def test_an_idx_folder(folder):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 6), np.uint8)
    (folder / "mine").mkdir()
    for role in ("train", "t10k"):
        (folder / "mine" / f"{role}-images-idx3-ubyte").write_bytes(idx_bytes(images))
        labels = np.arange(20, dtype=np.uint8) % 4
        (folder / "mine" / f"{role}-labels-idx1-ubyte").write_bytes(idx_bytes(labels))
    check(good("data", "show", "mine"), folder.joinpath("figures", "mine").relative_to(folder))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_folder_of_pictures(folder, mode, channels):
    pictures(folder / "mine", mode)
    text = check(good("data", "show", "mine/"), folder.joinpath("figures", "mine").relative_to(folder))
    assert f"{channels} x 6 x 9" in text and "kind 2" in text


def test_mnist(folder, mnist_dir):
    result = good("data", "show", "mnist", "--data-dir", mnist_dir)
    assert "60,000" in check(result, folder.joinpath("figures", "mnist").relative_to(folder))


def test_data_of_one_class_can_be_looked_at(folder):
    (folder / "one.csv").write_text("kind,a\nx,1\nx,2\n")
    check(good("data", "show", "one.csv"), folder.joinpath("figures", "one").relative_to(folder))


def test_more_samples_of_a_class(folder):
    good("data", "show", "digits", "--per-class", 3, "--out", "few")
    good("data", "show", "digits", "--per-class", 20, "--out", "many")
    widths = []
    for name in ("few", "many"):
        with Image.open(folder / name / "samples.png") as image:
            widths.append(image.width)
    assert widths[0] < 500 and widths[1] > 1000


def test_pictures_are_replaced_and_others_stay(folder):
    (folder / "out").mkdir()
    (folder / "out" / "notes.txt").write_text("mine")
    good("data", "show", "digits", "--out", "out")
    (folder / "out" / "means.png").write_bytes((folder / "out" / "means.png").read_bytes()[:500])
    good("data", "show", "digits", "--out", "out")
    assert (folder / "out" / "notes.txt").read_text() == "mine" and (folder / "out" / "means.png").stat().st_size > 1000
    (folder / "out" / "means.png").write_text("mine")
    line = refusal(mlpk("data", "show", "digits", "--out", "out"))
    told = "means.png in it was not drawn by this version of mlpk; move it, or name another folder"
    assert line.startswith(f"mlpk data show: --out out: {told}")
    assert (folder / "out" / "means.png").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "mlpk data show: missing argument 'DATA'; see mlpk data show --help"),
        (["digitz"], "error: unknown data set 'digitz' (did you mean digits?)"),
        (["gone.csv"], "error: gone.csv: no such file or folder"),
        (["digits", "mnist"], "mlpk data show: got unexpected extra argument (mnist)"),
        (["digits", "--per-class", "0"], "mlpk data show: --per-class 0: a whole number from 1 to 100 was wanted"),
        (["digits", "--label-column", "a"], "error: digits: only CSV files have a label column"),
        (["damaged.npz"], "error: "),
        (["empty.csv"], "error: "),
        (["nowhere"], "error: "),
        (["digits", "--out", "empty.csv"], "error: empty.csv: "),
        (["digits", "--out", "empty.csv/below"], "error: empty.csv"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(folder, words, line):
    (folder / "empty.csv").write_text("")
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "nowhere").mkdir()
    before = sorted(folder.rglob("*"))
    assert refusal(mlpk("data", "show", *words)).startswith(line)
    assert sorted(folder.rglob("*")) == before


def test_an_idx_file_cut_off_is_named(folder):
    (folder / "mine").mkdir()
    for role, header in (("images-idx3", (3, 9, 4, 6)), ("labels-idx1", (1, 9))):
        content = struct.pack(f">BBB{'B' + 'I' * header[0]}", 0, 0, 8, *header)
        (folder / "mine" / f"train-{role}-ubyte").write_bytes(content)
    assert "train-images-idx3-ubyte" in refusal(mlpk("data", "show", "mine"))
    assert not (folder / "figures").exists()


def test_a_full_disk_is_named(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    line = refusal(mlpk("data", "show", "digits", "--out", "out/below"))
    assert "samples.png" in line and "No space left on device" in line
    assert list(folder.rglob("*")) == []


# ---- labels with leading zeros


def test_labels_that_may_be_integers_written_in_two_ways_are_told(folder):
    (folder / "mixed.csv").write_text("kind,a\n10,1\n007,2\n7,3\n9,4\n")
    result = good("info", "mixed.csv")
    assert "note: mixed.csv, column 'kind': the labels are text and not integers" in result.stderr
    assert [line.split()[0] for line in result.stdout.splitlines()[-4:]] == ["7", "007", "9", "10"]
    (folder / "plain.csv").write_text("kind,a\n010,1\n007,2\n")
    result = good("info", "plain.csv")
    assert result.stderr == "" and "007" in result.stdout


# ---- the group


def test_the_group_shows_its_help():
    assert good("data").stdout == good("data", "--help").stdout
    assert "\n  show " in good("data").stdout


def test_unknown_commands_of_the_group():
    assert refusal(mlpk("data", "shw")) == "mlpk data: shw: no such command, did you mean show? see mlpk data --help"


# ---- the first layer, for mlpk plot


class WithParameters:
    """A network's parameters and layers."""

    def __init__(self, layers, **parameters):
        self.layers, self.classes, self._parameters = [None] * layers, tuple(range(10)), parameters

    def parameters(self):
        return self._parameters


def titles(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def test_the_first_layer_is_drawn_as_what_it_is():
    digits = datasets.load("digits")
    dense = report.first_layer(Network([Dense(5, "relu"), Dense(10)], digits.shape), digits)
    assert "first layer, 5 units, strongest first" in titles(dense)
    alone = report.first_layer(Network([Dense(10)], digits.shape), digits)
    assert "first layer, 10 outputs" in titles(alone)
    random = np.random.default_rng(0)
    first, bias, last = random.normal(size=(6, 1, 3, 3)), np.zeros(6), random.normal(size=(216, 10))
    filters = report.first_layer(WithParameters(2, **{"0.weight": first, "0.bias": bias, "2.weight": last}), digits)
    assert "first layer, 6 filters of 3 x 3, strongest first" in titles(filters)
    normed = report.first_layer(WithParameters(3, **{"0.weight": bias, "1.weight": first}), digits)
    assert "Filters" in titles(normed)
    pooled = report.first_layer(WithParameters(2, **{"1.weight": random.normal(size=(16, 10))}), digits)
    assert "first layer, 10 units, strongest first" in titles(pooled)
