"""The same problem solved as well: losses on scikit-learn's example data sets within its own spread over seeds."""

import numpy as np
import pytest
from estimator_cases import ours, quietly, theirs
from sklearn import datasets
from sklearn.preprocessing import MinMaxScaler, StandardScaler

SEEDS = range(4)


def data(name):
    """x, scaled, and y."""
    if name == "moons":
        x, y = datasets.make_moons(noise=0.3, random_state=0)
    elif name == "circles":
        x, y = datasets.make_circles(noise=0.2, factor=0.5, random_state=1)
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return (MinMaxScaler() if name == "digits" else StandardScaler()).fit_transform(x), y


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iris", {"solver": "sgd", "learning_rate": "constant", "momentum": 0.9, "learning_rate_init": 0.2}),
        ("digits", {"solver": "adam", "learning_rate_init": 0.01, "max_iter": 15}),
        ("circles", {"solver": "sgd", "learning_rate": "invscaling", "momentum": 0.9, "learning_rate_init": 0.2}),
        ("moons", {"solver": "adam", "learning_rate_init": 0.01}),
        ("moons", {"solver": "lbfgs", "alpha": 1.0}),
        ("wine", {}),
        ("breast_cancer", {"activation": "tanh", "early_stopping": True}),
        ("diabetes", {"solver": "adam", "learning_rate_init": 0.01, "max_iter": 100}),
        ("diabetes", {"solver": "lbfgs", "activation": "logistic", "hidden_layer_sizes": 8, "max_iter": 60}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("solver", "default"),
)
def test_losses_are_within_the_spread(name, settings, dtype):
    x, y = data(name)
    kind = "MLPRegressor" if name == "diabetes" else "MLPClassifier"
    losses, scores = np.array(
        [
            [
                (estimator.loss_, estimator.score(x, y))
                for estimator in (
                    quietly(getattr(library, kind)(random_state=seed, **settings).fit, x.astype(dtype), y)
                    for seed in SEEDS
                )
            ]
            for library in (theirs, ours)
        ]
    ).transpose(2, 0, 1)
    for mine, wanted, better in ((losses[1], losses[0], -1), (scores[1], scores[0], 1)):
        spread = max(np.ptp(wanted), 0.01 * np.abs(wanted).mean())
        assert better * (mine.mean() - wanted.mean()) > -spread
        assert better * (np.median(mine) - np.median(wanted)) > -spread
