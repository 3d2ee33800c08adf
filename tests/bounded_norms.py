"""Batch normalisation with error bounds."""

import numpy as np
from bounds import Rounded, gamma, unit


class Normal:
    """What a batch norm computes of x, with bounds: mean and variance in float64, the rest in dtype.

    (x - mean) · scale + beta and x · scale + (beta - mean · scale) are both within them.
    """

    def __init__(self, x, gamma_, beta, epsilon, dtype, running=None):
        """running: exact mean and variance (C,) to take instead of those of x."""
        self.x, self.gamma, self.beta = (a.astype(np.float64) for a in (x, gamma_, beta))
        self.axes, self.count = (0, *range(2, x.ndim)), x.size // x.shape[1]
        self.mean, self.variance = (Rounded(a, "float64") for a in running) if running else self._statistics()
        self.scale = 1 / np.sqrt(self.variance.value + epsilon)
        turned = self.variance.error / (2 * np.maximum(self.variance.value - self.variance.error + epsilon, epsilon))
        self.relative = turned + 4 * unit(dtype)  # the scale's relative error, with what computing it in dtype adds
        self.normal = (self.x - self.along(self.mean.value)) * self.along(self.scale)
        reach = 4 * unit(dtype) * (np.abs(self.x) + np.abs(self.along(self.mean.value))) + self.along(self.mean.error)
        self.error = reach * self.along(self.scale) + np.abs(self.normal) * self.along(self.relative)

    def _statistics(self):
        wide = gamma(self.count + 3, "float64")
        mean = Rounded(self.x.mean(axis=self.axes), "float64", wide * np.abs(self.x).mean(axis=self.axes))
        spread = 4 * wide * (self.x**2).mean(axis=self.axes)  # also of E x² - mean²
        return mean, Rounded(self.x.var(axis=self.axes), "float64", spread)

    def along(self, values):
        return np.reshape(values, (-1, *(1,) * (self.x.ndim - 2)))

    def out(self, dtype):
        value = self.along(self.gamma) * self.normal + self.along(self.beta)
        error = self.along(np.abs(self.gamma)) * self.error + 4 * unit(dtype) * np.abs(self.along(self.beta))
        return Rounded(value, dtype, error + 2 * unit(dtype) * np.abs(value) + np.finfo(dtype).smallest_subnormal)

    def backward(self, delta, dtype):
        """(dx, dgamma, dbeta)."""
        delta, n, u = delta.astype(np.float64), self.count, unit(dtype)
        dbeta, dgamma = delta.sum(axis=self.axes), (delta * self.normal).sum(axis=self.axes)
        beta_error = gamma(n, dtype) * np.abs(delta).sum(axis=self.axes)
        products = np.abs(delta) * (np.abs(self.normal) + self.error)
        gamma_error = (np.abs(delta) * self.error + gamma(n + 3, dtype) * products).sum(axis=self.axes)
        parts = np.abs(delta) + (np.abs(self.along(dbeta)) + np.abs(self.normal * self.along(dgamma))) / n
        inner = delta - (self.along(dbeta) + self.normal * self.along(dgamma)) / n
        spread = self.along(beta_error) + np.abs(self.normal) * self.along(gamma_error)
        error = 8 * u * parts + (spread + self.error * (np.abs(self.along(dgamma)) + self.along(gamma_error))) / n
        scale = self.along(self.gamma * self.scale)
        grown = np.abs(scale) * (error + (np.abs(inner) + error) * (self.along(self.relative) + 4 * u))
        return (
            Rounded(scale * inner, dtype, grown + np.finfo(dtype).smallest_subnormal),
            Rounded(dgamma, dtype, gamma_error + u * np.abs(dgamma)),
            Rounded(dbeta, dtype, beta_error + u * np.abs(dbeta)),
        )
