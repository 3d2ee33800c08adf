"""A policy network in a simulation's inner loop: ours inside @njit, PyTorch and scikit-learn called from Python.

    python benchmarks/simulation.py [--repeats N]

Carts balance poles (Barto, Sutton & Anderson 1983), pushed as a network of two hidden layers of 64 says. Ours predicts
each cart's push by itself, on one thread and on all; or is called from Python as the peers are, for all carts at once
between two ticks, which are compiled for everyone. Every system begins with the same carts and must take 99 % of them
where NumPy does in float64 (a push may turn on the last bit). Printed are the medians of interleaved repeats, on one
thread where nothing else is said.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import numba
import numpy as np
from numba import njit, prange

from mlpkernels import Dense, Network
from mlpkernels.compiled import predict_one

CASES = ((1, 2000), (32, 200), (1000, 50))  # carts, ticks
FORCE, GRAVITY, LENGTH, POLE, TOTAL, TICK = 10.0, 9.8, 0.5, 0.1, 1.1, 0.02  # newtons, half metres, kilograms, seconds

System = Callable[[np.ndarray, int], None]


@njit
def push(cart, right):
    """One tick of a cart (4,): its position, speed, angle and angular speed."""
    x, speed, angle, turning = cart
    sine, cosine, force = np.sin(angle), np.cos(angle), FORCE if right else -FORCE
    pushed = (force + POLE * LENGTH * turning * turning * sine) / TOTAL
    bent = (GRAVITY * sine - cosine * pushed) / (LENGTH * (4 / 3 - POLE * cosine * cosine / TOTAL))
    cart[0], cart[1] = x + TICK * speed, speed + TICK * (pushed - POLE * LENGTH * bent * cosine / TOTAL)
    cart[2], cart[3] = angle + TICK * turning, turning + TICK * bent


@njit
def push_all(carts, right):
    """One tick of every cart."""
    for i in range(carts.shape[0]):
        push(carts[i], right[i])


@njit
def one_by_one(policy, carts, ticks, scratch, logits):
    """Every cart to its end."""
    for i in range(carts.shape[0]):
        for _ in range(ticks):
            predict_one(policy, carts[i], scratch[0], logits[0])
            push(carts[i], logits[0, 1] > logits[0, 0])


@njit(parallel=True)
def side_by_side(policy, carts, ticks, scratch, logits):
    """As `one_by_one`, the carts shared among the threads."""
    for i in prange(carts.shape[0]):
        thread = numba.get_thread_id()
        for _ in range(ticks):
            predict_one(policy, carts[i], scratch[thread], logits[thread])
            push(carts[i], logits[thread, 1] > logits[thread, 0])


def network() -> Network:
    """The policy, untrained: how long it takes does not depend on what it has learnt."""
    return Network([Dense(64, "tanh"), Dense(64, "tanh"), Dense(2)], 4, init="pytorch", seed=1)


def inside(parallel: bool) -> System:
    """The whole simulation compiled."""
    policy, threads = network().compiled(), numba.get_num_threads()
    scratch, logits = policy.scratch(threads), np.zeros((threads, 2), np.float32)
    loop = side_by_side if parallel else one_by_one
    return lambda carts, ticks: loop(policy, carts, ticks, scratch, logits)


def between(logits: Callable[[np.ndarray], np.ndarray]) -> System:
    """A simulation in Python: all carts' logits (N, 2), then a tick."""

    def run(carts: np.ndarray, ticks: int) -> None:
        for _ in range(ticks):
            made = logits(carts.astype(np.float32))
            push_all(carts, made[:, 1] > made[:, 0])

    return run


def from_python() -> System:
    """`Network.predict_logits`."""
    net = network()
    return between(lambda carts: net.predict_logits(carts, threads=1))


def in_float64() -> System:
    """NumPy: what the others are compared with, and not timed."""
    weights = [view.astype(np.float64) for view in network().parameters().values()]

    def logits(carts: np.ndarray) -> np.ndarray:
        hidden = np.tanh(np.tanh(carts @ weights[0] + weights[1]) @ weights[2] + weights[3])
        return hidden @ weights[4] + weights[5]

    return between(logits)


def torch_eager() -> System:
    """PyTorch in inference mode."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)).eval()
    model.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in network().state_dict().items()})

    def logits(carts: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(carts)).numpy()

    return between(logits)


def sklearn_mlp() -> System:
    """scikit-learn's MLPClassifier with the same weights; for two classes it has one output, the logits' difference."""
    from sklearn.neural_network import MLPClassifier

    net = network()
    model = MLPClassifier((64, 64), activation="tanh", max_iter=1)
    model.partial_fit(np.zeros((2, 4), np.float32), [0, 1], classes=[0, 1])
    views = list(net.parameters().values())
    model.coefs_, model.intercepts_ = views[0::2], views[1::2]
    model.coefs_[-1] = views[4][:, 1:] - views[4][:, :1]
    model.intercepts_[-1] = views[5][1:] - views[5][:1]
    return between(lambda carts: model.predict_proba(carts))


SYSTEMS: dict[str, Callable[[], System]] = {
    "mlpkernels inside @njit": lambda: inside(False),
    "mlpkernels inside @njit, all threads": lambda: inside(True),
    "mlpkernels from Python": from_python,
    "PyTorch from Python": torch_eager,
    "scikit-learn from Python": sklearn_mlp,
}


def start(count: int) -> np.ndarray:
    """Carts (N, 4) about to fall."""
    return np.random.default_rng(0).uniform(-0.05, 0.05, (count, 4))


def check(name: str, system: System, wanted: System) -> None:
    """AssertionError where a system takes carts elsewhere."""
    carts, there = start(500), start(500)
    system(carts, 40)
    wanted(there, 40)
    same = np.isclose(carts, there, atol=1e-9).all(axis=1).mean()
    if same < 0.99:
        raise AssertionError(f"{name}: only {same:.0%} of the carts went where NumPy takes them")


def timed(systems: dict[str, System], repeats: int) -> dict[str, list[float]]:
    """Microseconds a push of each system in each case, in the order of CASES."""
    figures: dict[str, list[float]] = {name: [] for name in systems}
    for carts, ticks in CASES:
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for _ in range(repeats):
            for name, system in systems.items():
                states = start(carts)
                began = time.perf_counter()
                system(states, ticks)
                seconds[name].append(time.perf_counter() - began)
        for name, found in seconds.items():
            figures[name].append(1e6 * median(found) / (carts * ticks))
    return figures


def main() -> None:
    """Check, time and print a Markdown table."""
    parser = argparse.ArgumentParser(description="A policy network inside a simulation, ours and the peers'.")
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    systems, wanted = {}, in_float64()
    for name, make in SYSTEMS.items():
        try:
            systems[name] = make()
        except ImportError as error:
            print(f"left out: {name}: {error}")
            continue
        check(name, systems[name], wanted)
    figures = timed(systems, repeats)
    print("| µs a push | " + " | ".join("1 cart" if n == 1 else f"{n:,} carts" for n, _ in CASES) + " |")
    print("|---" * (len(CASES) + 1) + "|")
    for name, row in figures.items():
        print(f"| {name} | " + " | ".join(f"{value:.3g}" for value in row) + " |")


if __name__ == "__main__":
    main()
