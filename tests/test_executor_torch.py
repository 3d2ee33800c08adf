"""Training steps against PyTorch's: loss, gradients and every optimiser, with decay and clipping."""

import numpy as np
import pytest
from bounds import Rounded
from problems import ACTIVATIONS, LOSSES, BoundedStep, Run, bounded_gradient, unpadded

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


MODULES = {
    plan.IDENTITY: lambda torch: torch.nn.Identity(),
    plan.RELU: lambda torch: torch.nn.ReLU(),
    plan.TANH: lambda torch: torch.nn.Tanh(),
    plan.LOGISTIC: lambda torch: torch.nn.Sigmoid(),
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
            layers += [linear, MODULES[int(row[plan.ACTIVATION])](torch)]
            self.tensors += [linear.weight, linear.bias]
        self.network = torch.nn.Sequential(*layers)
        name, options = TORCH_RULES[rule]
        self.optimizer = getattr(torch.optim, name)(self.network.parameters(), lr=1.0, **options)

    def follow(self):
        """Go on from the run's parameters and its optimiser's memory."""
        network, memory = self.run.model, self.run.optimizer
        names = ("momentum_buffer", None) if self.optimizer.__class__.__name__ == "SGD" else ("exp_avg", "exp_avg_sq")
        with self.torch.no_grad():
            for i, tensor in enumerate(self.tensors):
                get = (weight_view, bias_view)[i % 2]
                state = self.optimizer.state[tensor]
                for flat, target in (
                    (network.params, tensor),
                    (memory.first, state.get(names[0])),
                    (memory.second, state.get(names[1])),
                ):
                    if target is not None and len(flat):
                        target.copy_(self.torch.tensor(get(network.plan, i // 2, flat).T.copy()))

    def flat(self, tensors):
        """As unpadded() gives them: weights (in, out), then biases, layer by layer."""
        return np.concatenate([tensor.detach().numpy().T.ravel() for tensor in tensors])

    def losses(self, z, rows):
        """Each row's loss."""
        torch, source, loss = self.torch, self.run.source, self.run.model.plan[-1, plan.LOSS]
        if loss == plan.SOFTMAX:
            return torch.nn.functional.cross_entropy(z, torch.tensor(source.labels[rows]).long(), reduction="none")
        y = torch.tensor(source.targets[rows])
        if loss == plan.BINARY:
            return torch.nn.BCEWithLogitsLoss(reduction="none")(z, y).sum(dim=1)
        if loss == plan.SQUARED:
            return torch.nn.MSELoss(reduction="none")(z, y).sum(dim=1) / 2
        poisson = torch.nn.PoissonNLLLoss(log_input=True, full=False, reduction="none")(z, y)
        return (poisson + torch.xlogy(y, y) - y).sum(dim=1)  # what a perfect prediction would cost

    def step(self, s):
        """One training step; returns the weighted sum of losses."""
        run, torch = self.run, self.torch
        rows = run.order[s * run.batch : (s + 1) * run.batch]
        x, w = (torch.tensor(array[rows]) for array in (run.source.rows, run.source.weights))
        self.optimizer.param_groups[0]["lr"] = float(run.rates[s])
        self.optimizer.zero_grad()
        losses = w * self.losses(self.network(x), rows)
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


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rule", ["nesterov", "adam-decay"])
def test_five_steps_of_every_activation_and_loss_are_torchs(activation, loss, rule):
    torch = pytest.importorskip("torch")
    run = Run(
        (8, 12, 9, 4), "float64", rule, rows=77, batch=16, activation=ACTIVATIONS[activation], loss=LOSSES[loss],
        clip=10.0,
    )  # fmt: skip
    run.optimizer.settings[plan.DECAY_BIAS] = 1
    other = Torch(torch, run, rule)
    for s in range(5):
        rows = run.order[s * 16 : (s + 1) * 16]
        grad = np.empty_like(run.model.params)
        cpu.loss_and_gradient(run.model, run.source, rows, float(len(rows)), run.work, grad)
        value = other.step(s)
        assert run.train(cpu, s, s + 1) == s + 1
        assert run.losses[s] == pytest.approx(value, rel=1e-10)
        np.testing.assert_allclose(unpadded(run.model, grad), other.gradient, rtol=1e-9, atol=1e-11)
        after = other.flat(other.tensors)
        np.testing.assert_allclose(unpadded(run.model, run.model.params), after, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", TORCH_RULES)
@pytest.mark.parametrize("clip", [0.0, 0.4])
@pytest.mark.parametrize("sizes", [(8, 3), (100, 64, 10)], ids=str)
def test_five_steps_in_float32_are_torchs_within_their_bounds(rule, clip, sizes):
    """Each step from the same point: what either may round is bounded, so both are close to the reference."""
    torch = pytest.importorskip("torch")
    run = Run(sizes, "float32", rule.removesuffix("-all"), rows=160, batch=32, clip=clip)
    run.optimizer.settings[plan.DECAY_BIAS] = 1
    other = Torch(torch, run, rule)
    for s in range(5):
        bound, wanted, rows = BoundedStep(run, s), run.in_double(), run.order[s * 32 : (s + 1) * 32]
        exact = np.empty(len(run.model.params))
        reference.loss_and_gradient(wanted.model, wanted.source, rows, 32.0, None, exact)
        _, gradient, _ = bounded_gradient(run.model.plan, Rounded(run.model.params, "float32"), run.source, rows, 32)
        loss = other.step(s)
        wanted.train(reference, s, s + 1)
        run.train(cpu, s, s + 1)
        bound.check(run, wanted)
        bound.loss.check(loss, wanted.losses[s], "torch: loss")
        chosen(run, gradient).check(other.gradient, unpadded(run.model, exact), "torch: gradient")
        after = unpadded(run.model, wanted.model.params)
        chosen(run, bound.params).check(other.flat(other.tensors), after, f"torch: parameters after step {s}")
        other.follow()


def chosen(run, bound):
    """A bound of a flat array without its padding."""
    value, error = (unpadded(run.model, array) for array in (bound.value, bound.error))
    return Rounded(value, bound.dtype, error)
