"""MLPClassifier and MLPRegressor: scikit-learn's classes with their computations compiled."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import sklearn.neural_network
from sklearn.utils._param_validation import Interval, StrOptions

from .compiled import Compiled
from .convert import plain

_BEYOND: dict[str, list[Any]] = {
    "dropout": [Interval(Real, 0, 1, closed="left"), "array-like"],
    "threads": [Interval(Integral, 1, None, closed="left"), None],
    "callback": [callable, None],
}


class MLPClassifier(Compiled, sklearn.neural_network.MLPClassifier):
    """scikit-learn's MLPClassifier on compiled kernels: the same parameters, attributes, warnings and results.

    With the same random_state the coefficients are scikit-learn's but for rounding. See
    sklearn.neural_network.MLPClassifier for the parameters and attributes that are not described here.

    Parameters beyond scikit-learn's:
    class_weight: None, "balanced" or {class: weight}, a list of these for multi-label y: multiplied into sample_weight.
    dropout: the probability with which a hidden layer's outputs are left out while training, or one for each layer.
    threads: of a call into the kernels; None takes one or all cores, whichever was faster of late.
    callback: called with the estimator after each epoch of "sgd" and "adam", each iteration of "lbfgs", when n_iter_,
    loss_ and the coefficients are those reached; what it returns, if true, ends the fit.

    Attributes beyond scikit-learn's:
    validation_loss_curve_: with early_stopping, each epoch's mean loss on the rows held out, without the penalty.

    float32 input is fitted and predicted in float32, with every solver.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **sklearn.neural_network.MLPClassifier._parameter_constraints,
        **_BEYOND,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        class_weight: Any = None,
        dropout: Any = 0.0,
        threads: int | None = None,
        callback: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, activation, solver=solver, alpha=alpha, batch_size=batch_size,
            learning_rate=learning_rate, learning_rate_init=learning_rate_init, power_t=power_t, max_iter=max_iter,
            shuffle=shuffle, random_state=random_state, tol=tol, verbose=verbose, warm_start=warm_start,
            momentum=momentum, nesterovs_momentum=nesterovs_momentum, early_stopping=early_stopping,
            validation_fraction=validation_fraction, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
            n_iter_no_change=n_iter_no_change, max_fun=max_fun,
        )  # fmt: skip
        self.class_weight = class_weight
        self.dropout = dropout
        self.threads = threads
        self.callback = callback

    def predict(self, X: Any) -> np.ndarray:
        """The class of each row (N,), or for multi-label y zeros and ones (N, K).

        X: {array-like, sparse matrix} of shape (N, D).
        """
        return self._predict(X)

    def _predict(self, X: Any, check_input: bool = True) -> np.ndarray:
        """What scikit-learn's label binarizer makes of the activations, off the outputs and without its checks."""
        logits = self._outputs(X, check_input)[1]
        kind, classes = self._label_binarizer.y_type_, self.classes_
        if kind == "multiclass":
            return classes.take(logits.argmax(axis=1))
        above = logits > 0
        if kind == "binary":
            return classes.take(above.ravel()) if len(classes) == 2 else np.repeat(classes, len(logits))
        if self._label_binarizer.sparse_input_:
            return self._label_binarizer.inverse_transform(above.astype(np.int64))  # sparse, as y was
        return above.astype(np.int64)

    def predict_proba(self, X: Any) -> np.ndarray:
        """The probability of each class (N, K), classes as in classes_; for multi-label y that each is there.

        X: {array-like, sparse matrix} of shape (N, D).
        """
        outputs = self._forward_pass_fast(X)
        return outputs if outputs.shape[1] > 1 else np.hstack([1 - outputs, outputs])

    def to_sklearn(self) -> sklearn.neural_network.MLPClassifier:
        """A scikit-learn MLPClassifier with the same parameters and, if this is fitted, the same coefficients."""
        return plain(self, sklearn.neural_network.MLPClassifier)


class MLPRegressor(Compiled, sklearn.neural_network.MLPRegressor):
    """scikit-learn's MLPRegressor on compiled kernels: the same parameters, attributes, warnings and results.

    With the same random_state the coefficients are scikit-learn's but for rounding. See
    sklearn.neural_network.MLPRegressor for the parameters and attributes that are not described here, and
    `MLPClassifier` for dropout, threads, callback and validation_loss_curve_, which are beyond it.
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **sklearn.neural_network.MLPRegressor._parameter_constraints,
        **_BEYOND,
    }

    def __init__(
        self,
        loss: str = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        threads: int | None = None,
        callback: Any = None,
    ) -> None:
        super().__init__(
            loss, hidden_layer_sizes, activation, solver=solver, alpha=alpha, batch_size=batch_size,
            learning_rate=learning_rate, learning_rate_init=learning_rate_init, power_t=power_t, max_iter=max_iter,
            shuffle=shuffle, random_state=random_state, tol=tol, verbose=verbose, warm_start=warm_start,
            momentum=momentum, nesterovs_momentum=nesterovs_momentum, early_stopping=early_stopping,
            validation_fraction=validation_fraction, beta_1=beta_1, beta_2=beta_2, epsilon=epsilon,
            n_iter_no_change=n_iter_no_change, max_fun=max_fun,
        )  # fmt: skip
        self.dropout = dropout
        self.threads = threads
        self.callback = callback

    def predict(self, X: Any) -> np.ndarray:
        """The prediction for each row (N,), with several outputs (N, K).

        X: {array-like, sparse matrix} of shape (N, D).
        """
        return self._predict(X)

    def to_sklearn(self) -> sklearn.neural_network.MLPRegressor:
        """A scikit-learn MLPRegressor with the same parameters and, if this is fitted, the same coefficients."""
        return plain(self, sklearn.neural_network.MLPRegressor)
