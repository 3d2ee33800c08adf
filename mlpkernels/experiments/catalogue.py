"""The rows: what each of the first users trained, what they reported, and which settings are ours; the speedrun."""

from dataclasses import dataclass
from pathlib import Path

QUICK_ROWS = 10_000  # training images of a quick run


@dataclass(frozen=True)
class Row:
    """An experiment: its settings as the document has them, its claim in words, and what is ours.

    epochs (of numpy-gd: iterations) is the document's number, or ours where it is silent; 0: each network has its own.
    needs: (module, package) beyond the library's own. seeds: how many where the row runs by itself and no number is
    asked for. alone: its networks train one after another, each on the whole machine, because the time counts.
    """

    name: str
    module: str
    network: str
    training: str
    claim: str
    ours: tuple[str, ...]
    epochs: int
    quick_epochs: int
    needs: tuple[str, str] | None = None
    unit: str = "epoch"
    seeds: int = 1
    alone: bool = False

    def length(self, epochs: int) -> str:
        """So many epochs, in words; of 0 each network's own."""
        return f"{epochs} {self.unit}{'s' * (epochs > 1)}" if epochs else f"each network's own {self.unit}s"


@dataclass(frozen=True)
class Options:
    """How to run a row. ValueError names what cannot be.

    seeds: how many, from 0. epochs: None for the row's own. quick: few epochs on few images, and every output says
    so. threads: networks trained side by side, None for one a core; of a row whose networks train alone, each one's
    threads, None for one or all, whichever is faster. csv, unlabelled: the reader's own files for numpy-gd. peers:
    speedrun trains its networks by PyTorch and JAX, too, as far as they are installed, with peer_seeds seeds.
    """

    seeds: int = 1
    epochs: int | None = None
    quick: bool = False
    threads: int | None = None
    csv: Path | None = None
    unlabelled: Path | None = None
    peers: bool = False
    peer_seeds: int = 3

    def __post_init__(self) -> None:
        for name in ("seeds", "epochs", "threads", "peer_seeds"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: a whole number from 1 was wanted")

    def epochs_of(self, row: Row) -> int:
        """The epochs to train this row; 0: each network its own."""
        return self.epochs or (row.quick_epochs if self.quick else row.epochs)


_UNIT = "pixels in [0, 1]"
_START = "PyTorch's default initial values (uniform ±1/√fan_in)"
_TEST = "its validation data: MNIST's 10,000 test images"

ROWS = (
    Row(
        "mlp-64", "study", "784-64-64-10, ReLU", "SGD 0.1, pixels in [-1, 1], batches 8 to 150, 15 epochs",
        "test accuracy 91.48, 94.00, 96.82, 97.01, 96.93, 97.45, 97.11, 96.96 % for batch 8, 16, 32, 48, 64, 90, 128, "
        "150; headline 97.64 %; 14 to 15, 7.7, 5.1, 3.7, 3.0, 2.4, 1.9, 1.8 s an epoch",
        ("biases start at PyTorch's default (uniform ±1/√fan_in)",), 15, 2,
    ),
    Row(
        "mlp-64-tsne", "tsne", "784-64-64-10, ReLU", "as mlp-64, batch 90, 50 epochs",
        "t-SNE pictures of the last hidden layer before training and after epochs 1, 10, 20, 30, 40, 50",
        ("the images: the first 1,000 of the training set", "scikit-learn's t-SNE from principal components, seed 0",
         "each picture is turned or mirrored to follow the one before: distances stay", "the series is seed 0's"),
        50, 3, ("sklearn", "scikit-learn"),
    ),
    Row(
        "mlp-128", "curves", "784-128-128-10, ReLU", "Adam 0.001, 100 epochs",
        "train and test accuracy after each epoch, no figure stated",
        ("batch 128", _UNIT, _START), 100, 5,
    ),
    Row(
        "mlp-128-regularised", "curves", "784-128-128-10 with dropout, batch normalisation, both, none",
        "as mlp-128: its document's next steps", "none: the effect is measured",
        ("everything but mlp-128's network: dropout 0.2 after each hidden layer, batch normalisation before each ReLU",
         "batch 128", _UNIT, _START), 100, 3,
    ),
    Row(
        "mlp-120-84", "curves", "784-120-84-10, ReLU, log-softmax", "Adam 0.001",
        "validation accuracy 97 %, loss 0.1778", ("batch 64", "10 epochs", _UNIT, _START, _TEST), 10, 3,
    ),
    Row(
        "mlp-50-50", "curves", "784-50-50-10, ReLU, log-softmax", "Adam 0.01",
        "like mlp-120-84; validation accuracy 96 %", ("batch 64", "10 epochs", _UNIT, _START, _TEST), 10, 3,
    ),
    Row(
        "cnn", "curves", "conv 1→10 5x5, max-pool 2, ReLU; conv 10→20 5x5, max-pool 2, ReLU; 320→50 ReLU→10",
        "Adam 0.001", "validation accuracy 99 %, loss 0.0341", ("batch 64", "10 epochs", _UNIT, _START, _TEST), 10, 2,
    ),
    Row(
        "numpy-gd", "numpy_gd", "784-256-128-64-10, 784-128-32-10, 784-128-10, 784-32-10, ReLU",
        "full-batch gradient descent 0.1, 150 iterations, 42,000 CSV rows split 80/20",
        "test accuracy 92.0, 90.3, 90.7, 84.0 % (train 92.8, 90.8, 90.9, 84.1 %)",
        ("the CSV: 42,000 of MNIST's 70,000 images, drawn by seed 0, unless --csv names one",
         "each seed draws its own shuffle, split and initial values"), 150, 20, unit="iteration",
    ),
    Row(
        "speedrun", "speedrun", "784-64-64-10; 784-128-128-10; a CNN of 8 and 16 channels",
        "AdamW, one cycle of the learning rate, pixels in [0, 1], batches of 192, 96, 48; 3, 3, 2 epochs",
        "the least time of training to a mean test accuracy (20 seeds) of 97.64 % with 784-64-64-10, of 98.0 % with "
        "any MLP, of 99.0 % with a CNN: goals, no document's",
        ("the recipes, tuned by training on MNIST's first 50,000 training images, for accuracy on the other 10,000",),
        0, 1, seeds=20, alone=True,
    ),
)  # fmt: skip


def find(name: str) -> Row:
    """The row called `name`; ValueError lists them all."""
    for row in ROWS:
        if row.name == name:
            return row
    raise ValueError(f"no experiment {name!r}: one of {', '.join(row.name for row in ROWS)} was wanted")
