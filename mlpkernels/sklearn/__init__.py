"""scikit-learn's multi-layer perceptrons on compiled kernels: the same classes, fitted and evaluated faster.

`MLPClassifier` and `MLPRegressor` take the place of those in `sklearn.neural_network`; `from_sklearn` and `to_sklearn`
turn fitted ones into a `Network` and back.
"""

from ..errors import UnavailableError

OLDEST = (1, 7)  # it brought sample_weight, the Poisson loss and today's order of the arguments


class MissingPackageError(UnavailableError, ImportError):
    """scikit-learn is not installed, or too old."""


def _check_installed() -> None:
    wanted = ".".join(map(str, OLDEST))
    try:
        from sklearn import __version__ as version
    except ModuleNotFoundError:
        raise MissingPackageError(
            f"mlpkernels.sklearn needs scikit-learn {wanted} or newer: pip install 'mlpkernels[sklearn]'"
        ) from None
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise MissingPackageError(
            f"mlpkernels.sklearn needs scikit-learn {wanted} or newer, not {version}: pip install 'mlpkernels[sklearn]'"
        )


_check_installed()

from .convert import from_sklearn, to_sklearn  # noqa: E402
from .estimators import MLPClassifier, MLPRegressor  # noqa: E402

__all__ = ["MLPClassifier", "MLPRegressor", "MissingPackageError", "from_sklearn", "to_sklearn"]
