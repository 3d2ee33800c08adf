"""Training steps against PyTorch's: loss, gradients and every optimiser, with decay and clipping."""

import numpy as np
import pytest
from bounds import Rounded
from problems import BoundedStep, Run, bounded_gradient, unpadded

from mlpkernels.kernels import cpu, plan, reference
from mlpkernels.kernels.plan import bias_view, weight_view

TORCH_RULES = {
    "sgd": ("SGD", {}),
    "sgd-decay": ("SGD", {"weight_decay": 0.01}),
    "momentum": ("SGD", {"momentum": 0.9}),
    "nesterov": ("SGD", {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": ("Adam", {}),
    "adam-decay": ("Adam", {"weight_decay": 0.01}),
    "adamw-all": ("AdamW", {"weight_decay": 0.01}),
}


class Torch:
    """A Run's network, data and optimiser in PyTorch, started where the run is."""

    def __init__(self, torch, run, rule):
        self.torch, self.run = torch, run
        network, layers = run.model, []
        self.tensors = []
        for layer, row in enumerate(network.plan):
            linear = torch.nn.Linear(
                int(row[plan.INPUTS]), int(row[plan.OUTPUTS]), dtype=getattr(torch, run.dtype.name)
            )
            with torch.no_grad():
                linear.weight.copy_(torch.tensor(weight_view(network.plan, layer, network.params).T.copy()))
                linear.bias.copy_(torch.tensor(bias_view(network.plan, layer, network.params).copy()))
            layers += [linear, torch.nn.ReLU()]
            self.tensors += [linear.weight, linear.bias]
        self.network = torch.nn.Sequential(*layers[:-1])
        name, options = TORCH_RULES[rule]
        self.optimizer = getattr(torch.optim, name)(self.network.parameters(), lr=1.0, **options)

    def flat(self, tensors):
        """As unpadded() gives them: weights (in, out), then biases, layer by layer."""
        return np.concatenate([tensor.detach().numpy().T.ravel() for tensor in tensors])

    def step(self, s):
        """One training step; returns the weighted sum of losses."""
        run, torch = self.run, self.torch
        rows = run.order[s * run.batch : (s + 1) * run.batch]
        x, y, w = (torch.tensor(array[rows]) for array in (run.source.rows, run.source.labels, run.source.weights))
        self.optimizer.param_groups[0]["lr"] = float(run.rates[s])
        self.optimizer.zero_grad()
        losses = w * torch.nn.functional.cross_entropy(self.network(x), y.long(), reduction="none")
        (losses.sum() / len(rows)).backward()
        self.gradient = self.flat([tensor.grad for tensor in self.tensors])
        if run.optimizer.settings[plan.CLIP_NORM]:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), float(run.optimizer.settings[plan.CLIP_NORM]))
        self.optimizer.step()
        return float(losses.detach().sum())


@pytest.mark.parametrize("rule", TORCH_RULES)
@pytest.mark.parametrize("clip", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [(8, 3), (8, 12, 9, 4)], ids=str)
def test_five_steps_in_float64_are_torchs(rule, clip, sizes):
    torch = pytest.importorskip("torch")
    run = Run(sizes, "float64", rule.removesuffix("-all"), rows=77, batch=16, clip=clip)
    run.optimizer.settings[plan.DECAY_BIAS] = 1  # as torch.optim decays
    other = Torch(torch, run, rule)
    for s in range(5):
        rows = run.order[s * 16 : (s + 1) * 16]
        grad = np.empty_like(run.model.params)
        cpu.loss_and_gradient(run.model, run.source, rows, float(len(rows)), run.work, grad)
        loss = other.step(s)
        assert run.train(cpu, s, s + 1) == s + 1
        assert run.losses[s] == pytest.approx(loss, rel=1e-10)
        np.testing.assert_allclose(unpadded(run.model, grad), other.gradient, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(
            unpadded(run.model, run.model.params), other.flat(other.tensors), rtol=1e-10, atol=1e-11
        )


@pytest.mark.parametrize("sizes", [(8, 3), (8, 12, 9, 4), (100, 64, 10)], ids=str)
def test_a_gradient_and_a_step_in_float32_are_torchs_within_both_bounds(sizes):
    """Each is within its bound of what is exact, so they are within twice that of one another."""
    torch = pytest.importorskip("torch")
    run = Run(sizes, "float32", "sgd", rows=64, batch=32)
    other, bound, wanted = Torch(torch, run, "sgd"), BoundedStep(run, 0), run.in_double()
    rows, grad, exact = run.order[:32], np.empty_like(run.model.params), np.empty(len(run.model.params))
    _, gradient, _ = bounded_gradient(run.model.plan, Rounded(run.model.params, "float32"), run.source, rows, 32)
    cpu.loss_and_gradient(run.model, run.source, rows, 32.0, run.work, grad)
    reference.loss_and_gradient(wanted.model, wanted.source, rows, 32.0, None, exact)
    loss = other.step(0)
    run.train(cpu, 0, 1)
    wanted.train(reference, 0, 1)
    bound.check(run, wanted)
    bound.loss.check(loss, wanted.losses[0], "torch: loss")
    Rounded(unpadded(run.model, gradient.value), "float32", unpadded(run.model, gradient.error)).check(
        other.gradient, unpadded(run.model, exact), "torch: gradient"
    )
    Rounded(unpadded(run.model, bound.params.value), "float32", unpadded(run.model, bound.params.error)).check(
        other.flat(other.tensors), unpadded(run.model, wanted.model.params), "torch: parameters"
    )
