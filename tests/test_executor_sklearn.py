"""Epochs of mini-batch steps against scikit-learn's: its order of Adam's epsilon, its penalty, its weighted means."""

import numpy as np
import pytest
from problems import ACTIVATIONS, Run

from mlpkernels.kernels import cpu, plan

ROWS, BATCH, EPOCHS, ALPHA, RATE = 50, 16, 3, 0.3, 0.01
# Each loss with scikit-learn's estimator and number of outputs; its mean over several numbers is no sum.
KINDS = {
    "cross-entropy": (plan.SOFTMAX, "MLPClassifier", 3, {}),
    "binary": (plan.BINARY, "MLPClassifier", 1, {}),
    "several of binary": (plan.BINARY, "MLPClassifier", 4, {}),
    "squared-error": (plan.SQUARED, "MLPRegressor", 1, {}),
    "poisson": (plan.POISSON, "MLPRegressor", 1, {"loss": "poisson"}),
}


def prepared(kind, activation, weighted):
    """(run, x, y) with what scikit-learn takes for the run's answers."""
    loss, _, outputs, _ = KINDS[kind]
    run = Run(
        (6, 9, outputs), "float64", "adam-sklearn", rows=ROWS, batch=BATCH, activation=ACTIVATIONS[activation],
        loss=loss,
    )  # fmt: skip
    run.order, run.rates[:] = np.arange(ROWS), RATE
    run.optimizer.settings[[plan.WEIGHT_DECAY, plan.EPSILON]] = ALPHA, 1e-3
    if not weighted:
        run.source.weights[:] = 1
    if loss == plan.BINARY:
        run.source.targets[...] = run.source.targets > 0.5
    answers = run.source.labels if loss == plan.SOFTMAX else run.source.targets
    return run, run.source.rows, answers.ravel() if answers.shape[-1] == 1 else answers


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # three epochs do not converge
def test_three_epochs_of_adam_are_scikit_learns(kind, activation, weighted):
    pytest.importorskip("sklearn", minversion="1.7")  # sample weights and the Poisson loss
    from sklearn import neural_network

    _, name, _, options = KINDS[kind]
    run, x, y = prepared(kind, activation, weighted)
    other = getattr(neural_network, name)(
        hidden_layer_sizes=(9,), activation=activation, alpha=ALPHA, batch_size=BATCH, learning_rate_init=RATE,
        shuffle=False, warm_start=True, max_iter=1, epsilon=1e-3, **options,
    )  # fmt: skip
    weights = run.source.weights if weighted else None
    other.fit(x, y, sample_weight=weights)  # now it has parameters, to be replaced
    for layer in range(2):
        other.coefs_[layer][...] = plan.weight_view(run.model.plan, layer, run.model.params)
        other.intercepts_[layer][...] = plan.bias_view(run.model.plan, layer, run.model.params)
    other.set_params(max_iter=EPOCHS).fit(x, y, sample_weight=weights)
    curve = []
    for _ in range(EPOCHS):
        assert run.train(cpu) == run.steps
        parts = [run.source.weights[s * BATCH : (s + 1) * BATCH] for s in range(run.steps)]
        means = [value / part.sum() for value, part in zip(run.losses, parts, strict=True)]
        curve.append(sum(mean * len(part) for mean, part in zip(means, parts, strict=True)) / ROWS)
    np.testing.assert_allclose(curve, other.loss_curve_[-EPOCHS:], rtol=1e-10)
    for layer in range(2):
        weight = plan.weight_view(run.model.plan, layer, run.model.params)
        np.testing.assert_allclose(weight, other.coefs_[layer], rtol=1e-9, atol=1e-12)
        bias = plan.bias_view(run.model.plan, layer, run.model.params)
        np.testing.assert_allclose(bias, other.intercepts_[layer], rtol=1e-9, atol=1e-12)
