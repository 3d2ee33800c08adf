"""Checkpoints: a network and all that an exact resume needs, in one safetensors file."""

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from . import files, seeds
from .errors import ModelFileError
from .kernels import plan
from .kernels.plan import OptimizerState
from .network import Network
from .state import EpochResult, Mark, TrainingState


def save_checkpoint(
    path: str | os.PathLike[str],
    network: Network,
    state: TrainingState,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write the network, the state that `fit` filled and `extra` (what JSON can hold) to a file, atomically.

    Tensors are unpadded and named as in the model's file: 0.weight, optimizer.first.0.weight,
    best.0.weight, …. ValueError for a state that `fit` has not filled and for a network whose parameters or
    running statistics are not all finite, OSError where the file cannot be written: what was there stays.
    """
    mark, optimizer = state.mark, state.optimizer
    if mark is None or optimizer is None:
        raise ValueError("state: it is empty; pass it to fit, which fills it, before saving it")
    tensors = network.finite_state_dict()
    for prefix, flat, buffers in (
        ("optimizer.first", optimizer.first, None), ("optimizer.second", optimizer.second, None),
        ("best", mark.best_params, mark.best_buffers), ("last", state.last_params, state.last_buffers),
    ):  # fmt: skip
        if flat is not None and flat.size:
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in network.tensors(flat, buffers).items()}
    tensors |= {
        "optimizer.settings": optimizer.settings,
        "optimizer.step": optimizer.step,
        "losses": state.losses[: state.step],
        "corrects": state.corrects[: state.step],
    }
    training = {
        "settings": state.settings,
        "steps": state.steps,
        "epoch": mark.epoch,
        "updates": mark.updates,
        "generator": mark.generator,
        "seconds": float(mark.clock[0]),
        "history": [asdict(result) for result in mark.history],
        "best_loss": mark.best_loss,
        "best_epoch": mark.best_epoch,
    }
    texts = {"training": json.dumps(training), "extra": json.dumps(dict(extra or {}))}
    files.write_tensors(
        path, tensors, {"kind": "checkpoint", **network.describe(), **texts}, network.format_version
    )  # fmt: skip


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[Network, TrainingState, dict[str, Any]]:
    """(network, state, extra) of a file that `save_checkpoint` wrote; `fit` takes the first two to go on.

    FileNotFoundError, or ModelFileError that says what is wrong with the file.
    """
    tensors, metadata = files.read_tensors(path, "checkpoint")
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, tensor in tensors.items():
        named = re.fullmatch(r"(?:(.+)\.)?(\d+\.\w+)", name)  # a parameter: optimizer.first.0.weight
        group, rest = (named[1] or "", named[2]) if named else ("state", name)
        groups.setdefault(group, {})[rest] = tensor
    network = Network.restore(groups.pop("", {}), metadata, path)
    try:
        state = _state(network, json.loads(metadata["training"]), groups)
        extra = json.loads(metadata["extra"])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelFileError(
            f"{os.fspath(path)} does not describe a training to resume: {reason}; it is damaged: train again"
        ) from None
    return network, state, extra


def _state(network: Network, training: dict[str, Any], groups: dict[str, dict[str, np.ndarray]]) -> TrainingState:
    arrays = groups.pop("state")
    strange = set(groups) - {"optimizer.first", "optimizer.second", "best", "last"}
    if strange:
        raise ValueError(f"{strange.pop()} was not expected")
    none = plan.zeros(0, network.dtype)
    memory = {name: network.flatten(groups[name]) for name in groups if name.startswith("optimizer.")}
    kept = {name: network.flatten_all(groups[name]) for name in ("best", "last") if name in groups}
    optimizer = OptimizerState(
        _settings(arrays, training["settings"]["seed"]),
        _vector(arrays, "optimizer.step", np.int64, 1),
        memory.get("optimizer.first", none),
        memory.get("optimizer.second", none),
    )
    adam = optimizer.settings[plan.RULE] != plan.SGD
    wanted = (adam or optimizer.settings[plan.MOMENTUM] != 0, adam)
    if wanted != (optimizer.first.size > 0, optimizer.second.size > 0):
        raise ValueError("the optimizer's memory does not fit its settings")
    steps, done = int(training["steps"]), int(optimizer.step[0]) - int(training["updates"])
    if not 0 <= done <= steps:
        raise ValueError(f"step {done} of {steps}")
    losses, corrects = np.zeros(steps), np.zeros(steps, np.int64)
    losses[:done] = _vector(arrays, "losses", np.float64, done)
    corrects[:done] = _vector(arrays, "corrects", np.int64, done)
    generator = training["generator"]
    np.random.PCG64().state = generator  # refuses what is none
    history = tuple(EpochResult(**row) for row in training["history"])
    if len(history) != int(training["epoch"]):
        raise ValueError(f"{len(history)} results of {training['epoch']} epochs")
    mark = Mark(
        len(history), int(training["updates"]), generator, np.array([float(training["seconds"])]), history,
        training["best_loss"], int(training["best_epoch"]), *kept.get("best", (None, None)),
    )  # fmt: skip
    last = kept.get("last", (None, None))
    return TrainingState(dict(training["settings"]), optimizer, losses, corrects, mark, *last)


def _settings(arrays: Mapping[str, np.ndarray], seed: int) -> np.ndarray:
    """The optimiser's settings; older files lack the last ones: what masks come from, and flags that are 0."""
    there = arrays["optimizer.settings"].size
    size = there if there in (plan.SEED, plan.EPSILON_HAT) else plan.SETTINGS
    settings = np.zeros(plan.SETTINGS)
    settings[:size] = _vector(arrays, "optimizer.settings", np.float64, size)
    if size == plan.SEED:
        settings[plan.SEED] = seeds.masks_seed(seed)
    return settings


def _vector(arrays: Mapping[str, np.ndarray], name: str, dtype: Any, size: int) -> np.ndarray:
    array = arrays[name]
    if array.shape != (size,) or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype} {array.shape}; {np.dtype(dtype)} ({size},) was wanted")
    return array
