"""Optimisers: settings as the kernels read them, memory, and refusal of what is out of range."""

import numpy as np
import pytest

from mlpkernels.kernels import plan
from mlpkernels.optimizers import SGD, Adam, AdamW, optimizer


def test_sgd_settings_and_memory():
    params = np.zeros(32, np.float32)
    state = SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01, decay_bias=False).state(params, 2.0)
    assert state.settings[plan.RULE] == plan.SGD
    assert state.settings[plan.MOMENTUM] == 0.9 and state.settings[plan.NESTEROV] == 1
    assert state.settings[plan.WEIGHT_DECAY] == 0.01 and state.settings[plan.DECAY_BIAS] == 0
    assert state.settings[plan.CLIP_NORM] == 2 and state.settings.dtype == np.float64
    assert state.first.shape == (32,) and state.first.dtype == np.float32 and state.second.shape == (0,)
    assert state.step.tolist() == [0] and state.step.dtype == np.int64
    assert SGD().state(params).first.shape == (0,)
    assert SGD().settings()[plan.CLIP_NORM] == 0 and SGD().settings()[plan.DECAY_BIAS] == 1


@pytest.mark.parametrize(("kind", "rule", "decay"), [(Adam, plan.ADAM, 0), (AdamW, plan.ADAMW, 0.01)])
def test_adam_settings_and_memory(kind, rule, decay):
    state = kind(beta1=0.8, beta2=0.99, epsilon=1e-6).state(np.zeros(16))
    assert state.settings[plan.RULE] == rule and state.settings[plan.WEIGHT_DECAY] == decay
    assert state.settings[[plan.BETA1, plan.BETA2, plan.EPSILON]].tolist() == [0.8, 0.99, 1e-6]
    for memory in (state.first, state.second):
        assert memory.shape == (16,) and memory.dtype == np.float64 and not memory.any()


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: SGD(0), ValueError, "SGD: learning_rate=0: a finite number above 0"),
        (lambda: SGD(float("nan")), ValueError, "learning_rate=nan"),
        (lambda: SGD(float("inf")), ValueError, "learning_rate=inf"),
        (lambda: SGD("0.1"), TypeError, "learning_rate='0.1'"),
        (lambda: SGD(None), TypeError, "learning_rate=None"),
        (lambda: SGD(momentum=1), ValueError, "momentum=1: a number from 0 to below 1"),
        (lambda: SGD(nesterov=True), ValueError, "nesterov=True without momentum"),
        (lambda: Adam(beta1=-0.1), ValueError, "Adam: beta1=-0.1"),
        (lambda: Adam(beta2=1.0), ValueError, r"beta2=1\.0"),
        (lambda: Adam(epsilon=0), ValueError, "epsilon=0"),
        (lambda: AdamW(weight_decay=-1), ValueError, "AdamW: weight_decay=-1"),
        (lambda: optimizer("rmsprop"), ValueError, "'rmsprop': one of sgd, adam, adamw"),
    ],
)
def test_refuses_by_name(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_the_seed_of_masks_is_a_setting():
    for kind in (SGD, Adam, AdamW):
        assert kind().state(np.zeros(1), seed=2**53 - 1).settings[plan.SEED] == 2**53 - 1
        assert kind().settings()[plan.SEED] == 0


def test_by_name():
    assert optimizer("sgd", learning_rate=0.5, momentum=0.9) == SGD(0.5, 0.9)
    assert optimizer("adam") == Adam() and optimizer("adamw") == AdamW()
    assert Adam(learning_rate=np.float32(0.5)).learning_rate == 0.5
    assert "learning_rate=0.001" in repr(Adam())
