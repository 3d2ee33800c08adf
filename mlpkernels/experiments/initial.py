"""Initial values that the documents drew and `layers.INITS` lacks, written into a network by its seed."""

import numpy as np

from .. import seeds
from ..network import Network


def pytorch_biases(network: Network, seed: int) -> None:
    """Biases uniform within ±1/√fan_in, as torch.nn.Linear draws them, beside weights that stay as they are."""
    generator = _generator(seed)
    for weights, biases in _pairs(network):
        bound = 1 / np.sqrt(weights.shape[0])
        biases[...] = generator.uniform(-bound, bound, biases.shape)


def fan_out_normal(network: Network, seed: int) -> None:
    """Weights (I, O) and biases (O,) from N(0, 1) · √(1 / O)."""
    generator = _generator(seed)
    for weights, biases in _pairs(network):
        scale = np.sqrt(1 / weights.shape[1])
        weights[...] = generator.standard_normal(weights.shape) * scale
        biases[...] = generator.standard_normal(biases.shape) * scale


def _generator(seed: int) -> np.random.Generator:
    """A stream that neither the network's own initial values nor the order of the rows draw from."""
    key = (seeds.INITIAL_VALUES, 1)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds.check_seed(seed), spawn_key=key)))


def _pairs(network: Network) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each dense layer's weights (I, O) and biases (O,), as views."""
    named = network.parameters()
    return [(named[name], named[name.replace("weight", "bias")]) for name in named if name.endswith(".weight")]
