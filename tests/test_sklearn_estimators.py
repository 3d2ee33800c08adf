"""mlpkernels.sklearn where scikit-learn's estimators work: its checks and tests, pipelines, searches, files, tables."""

import copy
import importlib.util
import io
import pickle
import re
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
from estimator_cases import assert_same, digits, fitted, one_thread, ours, pair, problem, quietly, theirs
from joblib import Parallel, delayed, dump, load, parallel_config
from sklearn import neural_network
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

KINDS = ["MLPClassifier", "MLPRegressor"]
BEYOND = {"class_weight", "dropout", "threads", "callback"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_check_estimator(kind):
    results = check_estimator(getattr(ours, kind)(max_iter=40), on_skip=None, on_fail="raise")
    assert len(results) > 50
    assert {result["status"] for result in results} <= {"passed", "skipped"}  # none is expected to fail
    assert all(result["check_name"] for result in results if result["status"] == "passed")


def _their_tests():
    """scikit-learn's own tests of its estimators, run on ours."""
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    if spec is None:
        return {}
    with patch.multiple(neural_network, **{kind: getattr(ours, kind) for kind in KINDS}):
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return {name: test for name, test in vars(module).items() if name.startswith("test_") and callable(test)}


@pytest.mark.filterwarnings("ignore")  # theirs are not run with warnings as errors
class TestTheirs:
    """Each of scikit-learn's own tests as a test here."""

    @pytest.fixture(autouse=True)
    def one_thread(self):
        with one_thread():
            yield

    @pytest.fixture
    def global_random_seed(self):
        return 42


for _name, _test in _their_tests().items():
    setattr(TestTheirs, _name, staticmethod(_test))


def test_theirs_are_there():
    assert len([name for name in vars(TestTheirs) if name.startswith("test_")]) > 40


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_and_defaults_are_theirs(kind):
    mine, wanted = getattr(ours, kind)().get_params(), getattr(theirs, kind)().get_params()
    assert {name: mine[name] for name in wanted} == wanted
    assert set(mine) - set(wanted) <= BEYOND
    assert list(mine)  # and by position
    if kind == "MLPClassifier":
        assert getattr(ours, kind)(7, "tanh").get_params()["activation"] == "tanh"
    else:
        assert getattr(ours, kind)("poisson", 7, "tanh").get_params()["loss"] == "poisson"


@pytest.mark.parametrize("name", ["classes", "two classes", "labels", "number", "counts"])
@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
def test_attributes_are_theirs(name, solver):
    one, other, _, _ = fitted(name, solver=solver, early_stopping=True)
    public = {attribute for attribute in vars(one) if attribute.endswith("_") and not attribute.startswith("_")}
    mine = {attribute for attribute in vars(other) if attribute.endswith("_") and not attribute.startswith("_")}
    assert mine - {"validation_loss_curve_"} == public
    assert isinstance(other, type(one))
    assert (is_classifier(other), is_regressor(other)) == (is_classifier(one), is_regressor(one))
    for a, b in zip(one.coefs_ + one.intercepts_, other.coefs_ + other.intercepts_, strict=True):
        assert type(b) is np.ndarray and b.shape == a.shape and b.dtype == a.dtype


# ---- warnings, errors, what is printed


@pytest.mark.parametrize(
    "settings",
    [
        {"solver": "newton"}, {"activation": "gelu"}, {"alpha": -1}, {"batch_size": 0}, {"learning_rate": "cosine"},
        {"learning_rate_init": 0}, {"max_iter": 0}, {"momentum": 2}, {"validation_fraction": 1.0}, {"beta_1": 1.0},
        {"hidden_layer_sizes": (3, 0)}, {"hidden_layer_sizes": -1}, {"n_iter_no_change": 0}, {"random_state": "x"},
        {"early_stopping": True, "validation_fraction": 0.001},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["two classes", "number"])
def test_wrong_settings_are_named_as_theirs_are(name, settings):
    assert_same_error(*pair(name, **settings))


def assert_same_error(one, other, x, y, method="fit", **options):
    messages = []
    for estimator in (one, other):
        with pytest.raises(Exception) as raised:
            getattr(estimator, method)(x, y, **options)
        messages.append((raised.type, str(raised.value)))
    assert messages[0] == messages[1]


def test_wrong_data_are_named_as_theirs_are():
    x, y = digits()
    holes = x.copy()
    holes[3, 4] = np.nan
    cases = [
        (holes, y), (x[:, :, None], y), (x[0], y), (x, y[:-1]), (x[:0], y[:0]), (x.astype(str), y), (x + 1j, y),
        (x, np.linspace(0, 1, len(x))), (x, None),
    ]  # fmt: skip
    for rows, labels in cases:
        one, other, _, _ = pair("classes")
        assert_same_error(one, other, np.where(rows == "a", "b", "c") if rows.dtype.kind == "U" else rows, labels)
    one, other, x, y = pair("number")
    assert_same_error(one, other, x, np.where(y > 1, np.nan, y))
    one, other, x, y = fitted("classes", warm_start=True)
    assert_same_error(one, other, x[:, :5], y)
    assert_same_error(one, other, x, y % 3)
    one, other, x, y = pair("classes", early_stopping=True)
    assert_same_error(one, other, x, y, "partial_fit", classes=np.unique(y))
    one, other, x, y = pair("classes")
    assert_same_error(one, other, x, y, "partial_fit")
    assert_same_error(one, other, x, y, sample_weight=np.ones(3))
    assert_same_error(one, other, x, y, sample_weight=np.zeros(len(x)))
    one, other, _, _ = pair("classes", solver="lbfgs")
    assert not hasattr(one, "partial_fit") and not hasattr(other, "partial_fit")


def test_prediction_errors_are_theirs():
    one, other, x, _ = fitted("classes")
    for rows in (x[:, :5], x[0], x[:0], np.full_like(x, np.inf), [["a"] * 64], x[:, :, None]):
        messages = []
        for estimator in (one, other):
            with pytest.raises(ValueError) as raised:
                estimator.predict(rows)
            messages.append(str(raised.value))
        assert messages[0] == messages[1]
    with pytest.raises(NotFittedError, match="This MLPClassifier instance is not fitted yet"):
        ours.MLPClassifier().predict(x)
    with pytest.raises(NotFittedError, match="This MLPRegressor instance is not fitted yet"):
        ours.MLPRegressor().predict(x)


def test_poisson_refuses_negative_targets():
    _, other, x, y = pair("counts")
    with pytest.raises(ValueError, match=r"loss='poisson' requires y >= 0; the smallest value of y is -3"):
        other.fit(x, y - y.max() - 3 + y.max() - y.min())


def test_another_number_of_outputs_is_refused_in_a_warm_start():
    _, other, x, y = fitted("number", warm_start=True)
    with pytest.raises(ValueError, match="y has 2 outputs, the fitted coefs_ give 1"):
        other.fit(x, np.column_stack([y, y]))


def test_warnings_are_theirs():
    one, other, x, y = pair("classes")
    for estimator in (one, other):
        with pytest.warns(ConvergenceWarning) as caught:
            estimator.fit(x, y)
        assert [str(warning.message) for warning in caught] == [
            "Stochastic Optimizer: Maximum iterations (5) reached and the optimization hasn't converged yet."
        ]
    for estimator in pair("classes", batch_size=1000, max_iter=1)[:2]:
        with pytest.warns(UserWarning) as caught:
            estimator.fit(x, y)
        assert "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped" in [
            str(warning.message) for warning in caught
        ]


@pytest.mark.parametrize(
    "settings",
    [
        {"tol": 5.0, "n_iter_no_change": 2, "max_iter": 30},
        {"early_stopping": True, "tol": 1.0, "n_iter_no_change": 2, "max_iter": 30},
        {"solver": "sgd", "learning_rate": "adaptive", "tol": 5.0, "n_iter_no_change": 1, "max_iter": 60},
    ],
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_progress_is_printed_as_theirs_is(settings, capsys):
    one, other, x, y = pair("classes", verbose=True, **settings)
    one.fit(x, y)
    wanted = capsys.readouterr().out
    other.fit(x, y)
    assert capsys.readouterr().out == wanted
    assert "Iteration 1, loss = " in wanted and wanted.endswith("Stopping.\n")


def test_a_fit_that_diverges_says_so():
    x, y = problem("number")[:2]
    other = ours.MLPRegressor(solver="sgd", learning_rate_init=1e6, max_iter=20, random_state=0)
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        quietly(other.fit, x * 100, y)
    assert len(other.loss_curve_) == 20 and np.isnan(other.loss_)


def test_ctrl_c_ends_a_fit_with_a_warning_and_what_it_has_learnt():
    x, y = digits()

    def interrupt(estimator):
        if estimator.n_iter_ == 3:
            raise KeyboardInterrupt

    other = ours.MLPClassifier(9, random_state=0, callback=interrupt)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        other.fit(x, y)
    assert other.n_iter_ == 3
    assert_same(quietly(theirs.MLPClassifier(9, random_state=0, max_iter=3).fit, x, y), other)


# ---- copies and files


@pytest.mark.parametrize("way", ["pickle", "joblib", "deepcopy"])
@pytest.mark.parametrize("name", ["classes", "number"])
def test_copies_predict_the_same_and_go_on(way, name):
    _, other, x, y = fitted(name, hidden_layer_sizes=(19, 16))
    if way == "pickle":
        again = pickle.loads(pickle.dumps(other))
    elif way == "joblib":
        buffer = io.BytesIO()
        dump(other, buffer)
        buffer.seek(0)
        again = load(buffer)
    else:
        again = copy.deepcopy(other)
    np.testing.assert_array_equal(again.predict(x), other.predict(x))
    for estimator in (again, other):
        estimator.partial_fit(x, y)
    assert_same(again, other, 0)
    assert not any(np.shares_memory(a, b) for a, b in zip(again.coefs_, other.coefs_, strict=True))


def test_clone_forgets_what_was_fitted():
    _, other, _, _ = fitted("classes", hidden_layer_sizes=(4,))
    again = clone(other)
    assert not hasattr(again, "coefs_") and "_flat" not in vars(again)
    assert again.get_params() == other.get_params()


def test_loading_needs_no_import_by_hand(tmp_path):
    _, other, x, _ = fitted("classes")
    dump((other, x), tmp_path / "model.joblib")
    code = "import joblib, sys; m, x = joblib.load(sys.argv[1]); print(m.predict(x[:5]).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.joblib")], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == str(other.predict(x[:5]).tolist()), done.stderr


# ---- among other estimators


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_in_a_pipeline_with_names():
    pandas = pytest.importorskip("pandas")
    x, y = digits()
    table = pandas.DataFrame(x, columns=[f"pixel {column}" for column in range(64)])
    pipelines = [
        make_pipeline(StandardScaler(), library.MLPClassifier(9, max_iter=4, random_state=0)).set_output(
            transform="pandas"
        )
        for library in (theirs, ours)
    ]
    one, other = (pipeline.fit(table, pandas.Series(y))[-1] for pipeline in pipelines)
    assert_same(one, other)
    assert list(other.feature_names_in_) == list(table.columns)
    np.testing.assert_array_equal(pipelines[1].predict(table), pipelines[0].predict(table))
    with pytest.warns(UserWarning, match="X does not have valid feature names, but MLPClassifier was fitted with"):
        other.predict(x)
    with pytest.raises(ValueError, match="The feature names should match"):
        other.predict(table.rename(columns={"pixel 1": "pixel one"}))


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_grid_search_in_processes_and_threads(backend):
    x, y = digits(150)
    grid = {"hidden_layer_sizes": [(4,), (9,)], "alpha": [1e-4, 1.0]}
    scores = []
    for library, jobs in ((theirs, None), (ours, 2)):
        estimator = library.MLPClassifier(max_iter=4, random_state=0)
        with parallel_config(backend):
            search = GridSearchCV(estimator, grid, cv=2, n_jobs=jobs).fit(x, y)
        scores.append(search.cv_results_["mean_test_score"])
    np.testing.assert_array_equal(*scores)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_calibrated_and_cross_validated():
    x, y = digits()
    probabilities = [
        CalibratedClassifierCV(library.MLPClassifier(9, max_iter=4, random_state=0), cv=2).fit(x, y).predict_proba(x)
        for library in (theirs, ours)
    ]
    np.testing.assert_allclose(*probabilities, atol=1e-8)
    one, other, x, y = pair("number")
    np.testing.assert_allclose(cross_val_predict(other, x, y, cv=3), cross_val_predict(one, x, y, cv=3), rtol=1e-8)


def test_many_threads_predict_with_one_estimator():
    _, other, x, _ = fitted("classes")
    wanted = other.predict_proba(x)
    parts = Parallel(n_jobs=4, backend="threading")(
        delayed(other.predict_proba)(x[first : first + size]) for size in (1, 50) for first in range(0, 200, 50)
    )
    for part, (size, first) in zip(parts, [(s, f) for s in (1, 50) for f in range(0, 200, 50)], strict=True):
        np.testing.assert_array_equal(part, wanted[first : first + size])


# ---- installation


@pytest.mark.parametrize("version", [None, "1.6.2"])
def test_without_scikit_learn_the_extra_is_named(version):
    module = "None" if version is None else f"types.SimpleNamespace(__version__={version!r}, __path__=[])"
    code = f"import sys, types\nsys.modules['sklearn'] = {module}\nimport mlpkernels\n"
    code += "try:\n    import mlpkernels.sklearn\nexcept ImportError as error:\n    print(type(error).__mro__, error)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert re.search(
        r"UnavailableError.*needs scikit-learn 1\.7 or newer.*pip install 'mlpkernels\[sklearn\]'", done.stdout
    )
