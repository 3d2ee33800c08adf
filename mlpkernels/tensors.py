"""Named tensors: what a network's flat arrays hold, named and shaped as in the equal torch.nn.Sequential."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from .kernels import plan as p

STATISTICS = MEAN, VARIANCE, COUNT = "running_mean", "running_var", "num_batches_tracked"


class Naming(NamedTuple):
    """The names of a plan's (L, COLUMNS) parameters and buffers; modules: each layer's number in the Sequential."""

    plan: np.ndarray
    modules: tuple[int, ...]

    def views(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        """Named views of a flat array (P,) laid out as parameters.

        0.weight: of a dense layer (I, O), of a convolution (O, C, kh, kw), of a batch norm (C,); 0.bias (O,) or (C,).
        """
        return dict(self._views(flat, None))

    def statistics(self, buffers: np.ndarray) -> dict[str, np.ndarray]:
        """Named views of buffers (S,): each batch norm's running_mean, running_var (C,), num_batches_tracked (1,)."""
        return {name: view for name, view in self._views(None, buffers) if name.endswith(STATISTICS)}

    def _views(self, flat: np.ndarray | None, buffers: np.ndarray | None) -> Iterator[tuple[str, np.ndarray]]:
        """Both, in the order of torch's state_dict."""
        for layer in np.flatnonzero(self.plan[:, p.OUTPUTS]).tolist():
            module = self.modules[layer]
            if flat is not None:
                yield f"{module}.weight", p.tensor_view(self.plan, layer, flat)
                yield f"{module}.bias", p.bias_view(self.plan, layer, flat)
            if buffers is not None and self.plan[layer, p.KIND] == p.BATCH_NORM:
                for name, view in zip(STATISTICS, p.buffer_views(self.plan, layer, buffers), strict=True):
                    yield f"{module}.{name}", view

    def _as_in_files(self, flat: np.ndarray, buffers: np.ndarray | None) -> dict[str, np.ndarray]:
        """Views shaped as in files: dense weights (O, I), num_batches_tracked ()."""
        return {
            name: view.reshape(()) if name.endswith(COUNT) else view.T if view.ndim == 2 else view
            for name, view in self._views(flat, buffers)
        }

    def tensors(self, flat: np.ndarray, buffers: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Named copies, unpadded and C-contiguous, of a flat array (P,) and, if given, of buffers (S,).

        All are of the flat array's dtype but num_batches_tracked, which is int64.
        """
        return {
            name: np.array(view, np.int64 if name.endswith(COUNT) else flat.dtype, order="C", copy=True)
            for name, view in self._as_in_files(flat, buffers).items()
        }

    def write(
        self, tensors: Mapping[str, Any], flat: np.ndarray, buffers: np.ndarray | None = None, checked: bool = False
    ) -> None:
        """Write named tensors, as `tensors` gives them, into a flat array (P,) and, if given, into buffers (S,).

        checked: ValueError names, before anything is written, one that is missing, too many or of another shape.
        """
        views = self._as_in_files(flat, buffers)
        if checked:
            check_shapes(tensors, {name: view.shape for name, view in views.items()})
        for name, view in views.items():
            with np.errstate(over="ignore"):
                view[...] = np.asarray(tensors[name], None if name.endswith(COUNT) else flat.dtype)

    def read(self, tensors: Mapping[str, Any], flat: np.ndarray, buffers: np.ndarray | None = None) -> None:
        """`write` with checks. ValueError names a tensor that is missing, too many, of another shape, not finite, or
        a variance or count below 0; some may be written by then.
        """
        self.write(tensors, flat, buffers, checked=True)
        for name, view in self._as_in_files(flat, buffers).items():
            if not np.isfinite(view).all():
                raise ValueError(f"{name} holds a value that is not finite in {flat.dtype}; finite values were wanted")
            if name.endswith((VARIANCE, COUNT)) and (view < 0).any():
                raise ValueError(f"{name} holds a negative value; values from 0 were wanted")


def check_shapes(tensors: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse, by ValueError, tensors whose names or shapes are not those wanted."""
    for name, shape in shapes.items():
        if name not in tensors:
            raise ValueError(f"{name} is missing; {', '.join(shapes)} were wanted")
        if np.shape(tensors[name]) != shape:
            raise ValueError(f"{name} has shape {np.shape(tensors[name])}; {shape} was wanted")
    extra = sorted(set(tensors) - set(shapes))
    if extra:
        raise ValueError(f"{extra[0]} was not expected; {', '.join(shapes)} were wanted")


def check_dtypes(tensors: Mapping[str, np.ndarray], dtype: np.dtype) -> None:
    """Refuse, by ValueError, tensors of another dtype than the network's, counts of another than int64."""
    for name, tensor in tensors.items():
        wanted = np.dtype(np.int64) if name.endswith(COUNT) else dtype
        if tensor.dtype != wanted:
            raise ValueError(f"{name} is of {tensor.dtype} in a network of {dtype}; {wanted} was wanted")
