"""mlp-64-tsne: t-SNE of the last hidden layer for the same training images, before training and as it goes."""

import functools
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets import Dataset
from ..layers import Dense
from ..network import Network
from ..optimizers import SGD
from .catalogue import Options, Row
from .report import Measured, Report, columns, plain, quick_word, times
from .side_by_side import Job, Watch, train_all
from .study import make, parts

if TYPE_CHECKING:
    from .report import Figures

BATCH, PERPLEXITY, IMAGES = 90, 30, 1000
EPOCHS = (0, 1, 10, 20, 30, 40, 50)
_QUICK_IMAGES = 300
_NEAREST = 10  # neighbours of a point whose class is compared with its own


def run(row: Row, dataset: Dataset, options: Options, watch: Watch | None) -> Report:
    """Train mlp-64 with batch 90 for every seed; draw the series of seed 0."""
    began = time.perf_counter()
    watch = watch or Watch()
    epochs = options.epochs_of(row)
    wanted = sorted({epoch for epoch in EPOCHS if epoch <= epochs} | {epochs})
    train, test = parts(dataset, options)
    count = _QUICK_IMAGES if options.quick else IMAGES
    x, y = train.x[:count], train.y[:count]
    seen: dict[int, np.ndarray] = {}

    def keep(epoch: int, network: Network) -> None:
        if epoch in wanted:
            seen[epoch] = last_hidden(network, x)

    jobs = [
        Job(
            {"seed": seed}, functools.partial(make, dataset, seed), lambda: (train, test), epochs, BATCH, SGD(0.1),
            seed, on_epoch=keep if seed == 0 else None,
        )
        for seed in range(options.seeds)
    ]  # fmt: skip
    trained = train_all(row.name, jobs, options.threads, watch)
    maps = embed(seen, watch)
    kin = {epoch: neighbours(points, y) for epoch, points in maps.items()}
    first, last = min(maps), max(maps)
    lines = [
        Measured(
            f"test accuracy after {epochs} epochs", tuple(one.final[1] for one in trained),
            seconds=times(trained),
        ),
        Measured(f"picture, before training: {_NEAREST} nearest of the same class", (kin[first],), "picture"),
        Measured(f"picture, after epoch {last}: {_NEAREST} nearest of the same class", (kin[last],), "picture"),
    ]  # fmt: skip
    report = Report(row, options, lines, trained, time.perf_counter() - began, _notes(kin, count))
    report.figures = _figures(maps, kin, y, options)
    accuracy = columns(trained, "test_accuracy")
    report.extra = {
        "images": count,
        "perplexity": PERPLEXITY,
        "neighbours_of_the_same_class": {str(epoch): share for epoch, share in kin.items()},
        "test_accuracy": {str(epoch): [plain(value) for value in accuracy[:, epoch - 1]] for epoch in wanted if epoch},
    }
    return report


def last_hidden(network: Network, x: np.ndarray) -> np.ndarray:
    """The last hidden layer's activations (N, width) for raw inputs x, of a network of dense ReLU layers."""
    *before, hidden, _ = network.layers
    assert isinstance(hidden, Dense)
    cut = Network([*before, Dense(hidden.outputs)], network.shape, dtype=network.dtype, scaling=network.scaling)
    state = network.state_dict()
    cut.load_state_dict({name: state[name] for name in cut.state_dict()})
    return np.maximum(cut.predict_logits(x, threads=1), 0)


def embed(activations: Mapping[int, np.ndarray], watch: Watch) -> dict[int, np.ndarray]:
    """t-SNE maps (N, 2) by epoch, each turned or mirrored so that its points lie nearest to the map before.

    They are computed beside the calling thread, so that an interrupt is noticed at once.
    """
    maps: dict[int, np.ndarray] = {}
    before: np.ndarray | None = None
    for epoch in sorted(activations):
        watch.say(f"t-SNE after epoch {epoch}" if epoch else "t-SNE before training")
        points = _in_thread(functools.partial(_tsne, activations[epoch]))
        points -= points.mean(axis=0)
        before = maps[epoch] = points if before is None else aligned(points, before)
    return maps


def _tsne(values: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    method = TSNE(perplexity=PERPLEXITY, init="pca", learning_rate="auto", random_state=0)
    # The same bits on one thread: 4 s a map, where two took 40 s beside another program, waiting for each other.
    with threadpool_limits(1):
        return np.asarray(method.fit_transform(values.astype(np.float64)), np.float64)


def _in_thread(call: Any) -> Any:
    """What `call` returns or raises, awaited so that signals interrupt the wait."""
    outcome: list[Any] = []

    def work() -> None:
        try:
            outcome.append((call(), None))
        except Exception as error:
            outcome.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.2)
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def aligned(points: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Centred points (N, 2) turned or mirrored to lie nearest to `other` (orthogonal Procrustes): distances stay."""
    u, _, v = np.linalg.svd(points.T @ other)
    return points @ (u @ v)


def neighbours(points: np.ndarray, y: np.ndarray) -> float:
    """The share of each point's nearest neighbours in the map that are of its own class."""
    distances = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :_NEAREST]
    return float((y[nearest] == y[:, None]).mean())


def _notes(kin: Mapping[int, float], count: int) -> list[str]:
    series = ", ".join(f"{100 * share:.1f} % after epoch {epoch}" for epoch, share in kin.items() if epoch)
    return [
        f"the same {count:,} training images in every picture; of the {_NEAREST} nearest points in the map, "
        f"{100 * kin[0]:.1f} % are of the same digit before training, {series}",
    ]


def _figures(
    maps: Mapping[int, np.ndarray], kin: Mapping[int, float], y: np.ndarray, options: Options
) -> "Figures":  # fmt: skip
    from . import pictures

    word = quick_word(options)
    names = {epoch: f"after epoch {epoch}" if epoch else "before training" for epoch in maps}
    told = f"{len(y):,} training images, perplexity {PERPLEXITY}, seed 0"
    panels = [(f"{names[epoch]}\t{100 * kin[epoch]:.0f} % same digit nearby", maps[epoch]) for epoch in maps]
    title = f"mlp-64: t-SNE of the last hidden layer{word}"
    figures: Figures = {"series": functools.partial(pictures.series_figure, title, told, panels, y)}
    for epoch, points in maps.items():
        figures[f"epoch-{epoch:02d}"] = functools.partial(
            pictures.map_figure, title, f"{names[epoch]}  ·  {told}", points, y
        )
    return figures
