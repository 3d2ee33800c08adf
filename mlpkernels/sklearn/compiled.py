"""What replaces scikit-learn's computations in its estimators: the solvers' loops and the forward pass."""

import math
import warnings
from typing import Any

import numpy as np
from scipy.optimize import minimize
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import train_test_split
from sklearn.neural_network._multilayer_perceptron import BaseMultilayerPerceptron
from sklearn.utils import compute_sample_weight
from sklearn.utils.optimize import _check_optimize_result
from sklearn.utils.validation import check_is_fitted, validate_data

from . import optimizer as optimizers
from .flat import Flat, hardly_filled
from .rows import Rows, make_rows
from .solvers import Epochs, Objective, pack, unpack


class Compiled(BaseMultilayerPerceptron):
    """Overrides, to be listed before scikit-learn's MLPClassifier or MLPRegressor among a class's bases.

    What those do beside computing is theirs: validation, attributes, warnings, the rules of stopping. So is fitting to
    large matrices that are hardly filled, where sparse products are faster than our dense ones.
    """

    coefs_: list[np.ndarray]
    intercepts_: list[np.ndarray]
    validation_loss_curve_: list[float] | None
    _no_improvement_count: int
    _flat: Flat  # the parameters that coefs_ and intercepts_ are views of; never pickled

    # ---- parameters

    def _adopt(self, flat: Flat) -> Flat:
        """Make coefs_ and intercepts_ views of flat."""
        best = self.__dict__.get("_best_coefs") is self.coefs_  # scikit-learn lets go on with the best ones like that
        self._flat, self.coefs_, self.intercepts_ = flat, list(flat.coefs), list(flat.intercepts)
        if best:
            self._best_coefs, self._best_intercepts = self.coefs_, self.intercepts_
        return flat

    def _parameters(self, dtype: Any, dropout: tuple[float, ...] | None = None) -> Flat:
        """The parameters that coefs_ and intercepts_ say, of `dtype`, with this dropout if any is given."""
        flat = self.__dict__.get("_flat")
        if flat is not None and flat.dtype == dtype and dropout in (None, flat.dropout) and self._holds(flat):
            return flat
        return Flat.of(self.coefs_, self.intercepts_, self.activation, self.out_activation_, dtype, dropout or ())

    def _holds(self, flat: Flat) -> bool:
        return flat.holds(self.coefs_, self.intercepts_, self.activation, self.out_activation_)

    def __getstate__(self) -> Any:
        return {name: value for name, value in super().__getstate__().items() if name != "_flat"}

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        if hasattr(self, "coefs_"):
            self._adopt(self._parameters(_precision(*self.coefs_, *self.intercepts_)))

    # ---- forward pass

    def _forward_pass_fast(self, X: Any, check_input: bool = True) -> np.ndarray:
        """The last layer's activations (N, K) for rows X (N, D), dense or sparse."""
        flat, logits = self._outputs(X, check_input)
        return flat.activate(logits)

    def _outputs(self, X: Any, check_input: bool = True) -> tuple[Flat, np.ndarray]:
        """What holds the parameters, and the last layer's outputs (N, K) before their activation."""
        if check_input and (found := self._at_once(X)) is not None:
            return found
        check_is_fitted(self)
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        flat = self._parameters(_precision(X.dtype, *self.coefs_, *self.intercepts_))
        return flat, flat.logits(X, self.threads)

    def _at_once(self, X: Any) -> tuple[Flat, np.ndarray] | None:
        """`_outputs` of an array that needs no validation, else None.

        That is a C-contiguous array of finite floats, of the parameters' type and width, where the estimator was
        fitted without names of features. scikit-learn's validator takes longer than one row's forward pass does.
        """
        known = self.__dict__
        flat = known.get("_flat")
        if flat is None or type(X) is not np.ndarray or X.dtype != flat.dtype or X.ndim != 2:
            return None
        if not (X.shape[0] and X.shape[1] == flat.units[0] == known["n_features_in_"] and X.flags.carray):
            return None
        if "feature_names_in_" in known or not self._holds(flat):
            return None
        logits = flat.logits_of_few(X)
        if logits is None:
            row = X.reshape(-1)
            with np.errstate(over="ignore", invalid="ignore"):
                squares = np.dot(row, row)
            if not math.isfinite(squares):  # the validator looks at each: they may just be large
                return None
            logits = flat.logits(X, self.threads)
        return flat, logits

    # ---- solvers

    def _initialize(self, y: np.ndarray, layer_units: Any, dtype: Any) -> None:
        super()._initialize(y, layer_units, dtype)
        if self.solver != "lbfgs":
            self.validation_loss_curve_ = [] if self.early_stopping else None

    def _fit_stochastic(
        self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, activations: Any, deltas: Any, coef_grads: Any,
        intercept_grads: Any, layer_units: Any, incremental: bool,
    ) -> None:  # fmt: skip
        dropout, dtype = self._dropout_rates(), _precision(*self.coefs_)
        sample_weight = self._weights(y, sample_weight, incremental)
        if hardly_filled(X) and not (any(dropout) or self.early_stopping or self.callback):
            super()._fit_stochastic(
                X, y, sample_weight, activations, deltas, coef_grads, intercept_grads, layer_units, incremental
            )
            self._adopt(self._parameters(dtype))
            return
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer = optimizers.make(self)
            self._masks_seed = int(self._random_state.randint(2**31)) if any(dropout) else 0
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        flat = self._adopt(self._parameters(dtype, dropout))
        train, held_out = self._split(flat, X, y, sample_weight)
        seed = getattr(self, "_masks_seed", 0)
        memory = optimizers.Memory(flat, self._optimizer, self.alpha, train.weighted, seed)
        epochs = Epochs(flat, train, memory.state, self._batch_rows(len(train)), self.threads)
        try:
            self._run(epochs, memory, held_out, incremental)
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=2)
        finally:
            memory.write()
        if self.early_stopping:
            self.coefs_, self.intercepts_ = self._best_coefs, self._best_intercepts
            flat.write(self.coefs_, self.intercepts_)
            self._adopt(flat)

    def _run(self, epochs: Epochs, memory: optimizers.Memory, held_out: Any, incremental: bool) -> None:
        """Epoch after epoch, until scikit-learn's rules say to stop."""
        order = np.arange(len(epochs.rows))
        self.n_iter_ = 0
        for _ in range(self.max_iter):
            if self.shuffle:
                self._random_state.shuffle(order)  # the draws, and the order, of sklearn.utils.shuffle
            rate = memory.rate
            self.loss_ = epochs.run(order, rate)
            self.n_iter_ += 1
            self.t_ += len(order)
            self.loss_curve_.append(self.loss_)
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
            self._look_at(held_out, epochs)
            self._optimizer.iteration_ends(self.t_)
            stopping = self._stops()
            memory.rate_changed(rate)
            if self.callback is not None and self.callback(self):
                break
            if stopping or incremental:
                break
            if self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                    "reached and the optimization hasn't converged yet.",
                    ConvergenceWarning,
                    stacklevel=2,
                )

    def _stops(self) -> bool:
        """Whether what is watched has not improved for too long, and the learning rate is not to be smaller either."""
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        watched = "Validation score" if self.early_stopping else "Training loss"
        message = (
            f"{watched} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
        )
        if self._optimizer.trigger_stopping(message, self.verbose):
            return True
        self._no_improvement_count = 0
        return False

    def _look_at(self, held_out: Any, epochs: Epochs) -> None:
        """Score the rows held out, if there are any, and count the epochs without improvement."""
        if held_out is None:
            self._update_no_improvement_count(False, None, None, None)
            return
        x, y, weights, rows = held_out
        self._update_no_improvement_count(True, x, y, weights)
        assert self.validation_loss_curve_ is not None
        self.validation_loss_curve_.append(epochs.mean_loss(rows))

    def _score(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None = None) -> float:
        """As scikit-learn 1.9 has it: before, it failed on labels that are strings."""
        predicted = self._predict(X, check_input=False)
        if predicted.dtype.kind == "f" and not np.isfinite(predicted).all():
            return math.nan
        score = accuracy_score if is_classifier(self) else r2_score
        return score(y, predicted, sample_weight=sample_weight)

    def _split(
        self, flat: Flat, X: Any, y: np.ndarray, sample_weight: np.ndarray | None
    ) -> tuple[Rows, tuple[Any, np.ndarray, np.ndarray | None, Rows] | None]:
        """The rows to fit, and with early stopping those held out: x, y as scores take them, weights, Rows."""
        if not self.early_stopping:
            return make_rows(flat, X, y, sample_weight), None
        arrays = (X, y) if sample_weight is None else (X, y, sample_weight)
        parts = train_test_split(
            *arrays,
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        (x_train, x, y_train, y_held), weights = parts[:4], parts[4:] or (None, None)
        if x.shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        rows = make_rows(flat, x, y_held, weights[1])
        shown = self._label_binarizer.inverse_transform(y_held) if is_classifier(self) else y_held
        return make_rows(flat, x_train, y_train, weights[0]), (x, shown, weights[1], rows)

    def _batch_rows(self, rows: int) -> int:
        """The rows of a mini-batch."""
        if self.batch_size == "auto":
            return min(200, rows)
        if self.batch_size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=2
            )
        return min(int(self.batch_size), rows)

    def _dropout_rates(self) -> tuple[float, ...]:
        """The dropout probability behind each hidden layer."""
        hidden = len(self.coefs_) - 1
        if np.ndim(self.dropout) == 0:
            return (float(self.dropout),) * hidden
        rates = tuple(float(rate) for rate in self.dropout)
        if len(rates) != hidden or not all(0 <= rate < 1 for rate in rates):
            raise ValueError(f"dropout={self.dropout!r}: {hidden} probabilities from 0 to below 1 were wanted")
        return rates

    def _weights(self, y: np.ndarray, sample_weight: np.ndarray | None, incremental: bool) -> np.ndarray | None:
        """Sample weights (N,) times class weights, None where there are neither."""
        class_weight = getattr(self, "class_weight", None)
        if class_weight is None:
            return sample_weight
        if incremental and isinstance(class_weight, str):
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. In order to use 'balanced' weights, use "
                "compute_class_weight('balanced', classes=classes, y=y), y being a large enough sample of the full "
                "training set target, and pass the resulting weights as the class_weight parameter."
            )
        weights = compute_sample_weight(class_weight, self._label_binarizer.inverse_transform(y))
        return weights if sample_weight is None else weights * sample_weight

    def _fit_lbfgs(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None, *scratch: Any) -> None:
        if any(self._dropout_rates()):
            raise ValueError("dropout needs solver='adam' or 'sgd': L-BFGS minimises a loss that must not be random")
        sample_weight = self._weights(y, sample_weight, False)
        dtype = _precision(*self.coefs_)
        if self.callback is not None:
            self._minimise(self._make_objective(X, y, sample_weight))
        else:
            if not hardly_filled(X):
                self._objective = self._make_objective(X, y, sample_weight)
            try:
                super()._fit_lbfgs(X, y, sample_weight, *scratch)
            finally:
                self.__dict__.pop("_objective", None)
        self._adopt(self._parameters(dtype))

    def _minimise(self, objective: Objective) -> None:
        """scikit-learn's minimisation, which takes no callback, with ours after each iteration."""
        parameters = [*self.coefs_, *self.intercepts_]

        def look(packed: np.ndarray) -> None:
            unpack(packed, parameters)
            self.n_iter_ += 1
            self.loss_ = objective.loss  # an iteration ends with what was evaluated last
            if self.verbose:
                print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
            if self.callback(self):
                raise _EnoughError

        self.n_iter_ = 0
        options = {"maxfun": self.max_fun, "maxiter": self.max_iter, "gtol": self.tol}
        try:
            result = minimize(objective, pack(parameters), method="L-BFGS-B", jac=True, options=options, callback=look)
        except _EnoughError:
            return
        unpack(result.x, parameters)
        self.loss_ = result.fun
        self.n_iter_ = _check_optimize_result("lbfgs", result, self.max_iter)

    def _make_objective(self, X: Any, y: np.ndarray, sample_weight: np.ndarray | None) -> Objective:
        """SciPy's L-BFGS works in float64, so the parameters do meanwhile."""
        flat = Flat.of(self.coefs_, self.intercepts_, self.activation, self.out_activation_, np.float64)
        return Objective(flat, make_rows(flat, X, y, sample_weight), self.alpha, self.threads)

    def _loss_grad_lbfgs(
        self, packed_coef_inter: np.ndarray, X: Any, y: np.ndarray, sample_weight: Any, *scratch: Any
    ) -> tuple[float, np.ndarray]:
        if hardly_filled(X):
            return super()._loss_grad_lbfgs(packed_coef_inter, X, y, sample_weight, *scratch)
        objective = self.__dict__.get("_objective") or self._make_objective(X, y, sample_weight)
        return objective(packed_coef_inter)


class _EnoughError(Exception):
    """The callback has seen enough. SciPy itself knows StopIteration from 1.11 on."""


def _precision(*arrays: Any) -> np.dtype:
    """The type, float32 or float64, that NumPy would compute in with arrays of these dtypes."""
    return np.dtype(np.float32 if np.result_type(*arrays) in (np.float16, np.float32) else np.float64)
