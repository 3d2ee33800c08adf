"""The order of a state dict's modules, which a file does not keep: by their numbers, else by what fits what."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

Shape = tuple[int, ...]
_STEPS = 100_000  # of the search; beyond, nothing is certain


def orders(weights: Mapping[str, Shape], shape: Shape | None = None) -> list[list[str]]:
    """One order where it is certain, else two that are possible.

    weights: {module: its weight's shape}; shape: a sample's, where it is known. Names that differ first in a number,
    as fc1 and fc2, are in its order; others, as fc and out, wherever their shapes fit. Where none fits it is that of
    the names, so that an error can tell what does not.
    """
    names = sorted(weights, key=_natural)
    later = {name: {other for other in names if _before(name, other)} for name in names}
    if all(b in later[a] for k, a in enumerate(names) for b in names[k + 1 :]):
        return [names]
    found: list[list[str]] = []
    search = _fitting(weights, later, shape)
    for _ in range(_STEPS):
        step = next(search, [])
        if step is None:
            continue
        if not step:
            return found or [names]
        found.append(step)
        if len(found) == 2:
            return found
    return [*found, names, names[::-1]][:2]


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


def _before(first: str, second: str) -> bool:
    """Whether a number tells that one comes before the other."""
    for a, b in zip(_natural(first), _natural(second), strict=False):
        if a != b:
            return a[0] == b[0] == 0 and a[1] < b[1]
    return False


def _fitting(
    weights: Mapping[str, Shape], later: Mapping[str, set[str]], shape: Shape | None
) -> Iterator[list[str] | None]:
    """The orders in which each module takes what the one before gives; None for each step of the search between."""
    images = any(len(weight) == 4 for weight in weights.values())

    def behind(taken: list[str], image: bool, width: int | None) -> Iterator[list[str] | None]:
        yield None
        rest = [name for name in weights if name not in taken]
        if not rest:
            if len(weights[taken[-1]]) == 2:
                yield list(taken)
            return
        for name in rest:
            weight = weights[name]
            if any(name in later[other] for other in rest) or not _takes(weight, image, width):
                continue
            yield from behind([*taken, name], image and len(weight) != 2, weight[0])

    if shape is None or (len(shape) == 3 and not images):
        width = None if shape is None else math.prod(shape)
    else:
        width = shape[0]
    yield from behind([], images, width)


def _takes(weight: Sequence[int], image: bool, width: int | None) -> bool:
    """Whether a module takes values, or an image's channels; None: any number of them."""
    if len(weight) == 4:
        return image and width in (None, weight[1])
    if len(weight) == 1:
        return width in (None, weight[0])
    return width is None or (weight[1] % width == 0 if image else weight[1] == width)
