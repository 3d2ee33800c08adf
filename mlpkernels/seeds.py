"""One seed, several independent random streams: initial values, order of the rows, dropout."""

import operator

import numpy as np

INITIAL_VALUES, ORDER, DROPOUT = range(3)  # the streams; a new one goes to the end, or every seed changes


def generator(seed: int, stream: int) -> np.random.Generator:
    """A generator for one stream of `seed` (an integer from 0); what another stream draws never moves it."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(check_seed(seed), spawn_key=(stream,))))


def masks_seed(seed: int) -> int:
    """What dropout's masks come from: an integer below 2^53, so that the kernels' float64 settings hold it."""
    return int(generator(seed, DROPOUT).integers(2**53))


def check_seed(seed: int) -> int:
    """`seed` as an int. TypeError unless it is an integer, ValueError below 0."""
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed={seed!r}: an integer from 0 was wanted") from None
    if number < 0:
        raise ValueError(f"seed={number}: an integer from 0 was wanted")
    return number
