"""Workspaces that are free to be taken: kept from call to call, never two threads' at once."""

from types import ModuleType
from typing import Any

import numpy as np

from .kernels import plan as plans
from .kernels.plan import Workspace

FEW = 32  # rows of the small workspace, for one sample or a few
MANY = 1024  # rows of the large one; of both fewer where they would take more than _ROOM
_ROOM = 2**25  # bytes


class Workspaces(dict[tuple[str, int], list[Workspace]]):
    """A network's free workspaces, by backend and rows."""

    def __init__(self, plan: np.ndarray, dtype: Any) -> None:
        super().__init__()
        self._plan, self._dtype = plan, np.dtype(dtype)
        wide = 2 * int(plan[0, plans.TAKES] + plan[:, plans.GIVES].sum())  # what the compiled backend keeps of a row
        self._most = _ROOM // (wide * self._dtype.itemsize)

    def room(self, rows: int) -> int:
        """The rows of a workspace for many or for few."""
        return max(1, min(FEW if rows <= FEW else MANY, self._most))

    def take(self, compiled: ModuleType, batch: int) -> Workspace:
        """One of `batch` rows that no other thread uses: one given back, or a new one."""
        try:
            return self[compiled.__name__, batch].pop()  # atomic, so threads need no lock
        except (KeyError, IndexError):
            return compiled.make_workspace(self._plan, batch, self._dtype)

    def give(self, compiled: ModuleType, work: Workspace) -> None:
        """Keep it for the next call; one that an error kept from coming back is simply made anew."""
        self.setdefault((compiled.__name__, len(work.losses)), []).append(work)
