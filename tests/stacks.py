"""Networks with every kind of layer, rows for them, and the equal torch.nn.Sequential."""

import numpy as np

from mlpkernels import BatchNorm, Conv2d, Dense, Dropout, MaxPool2d, Network, seeds
from mlpkernels.kernels import plan as p
from mlpkernels.kernels import reference

CLASSES = 3

# Each kind alone and beside each other, sizes that are odd, windows that overlap and that leave a rest.
STACKS = {
    "conv": ([Conv2d(4, 3), Dense(CLASSES)], (1, 6, 7)),
    "conv-relu": ([Conv2d(3, (2, 3), activation="relu"), Conv2d(5, 2, activation="relu"), Dense(CLASSES)], (2, 5, 7)),
    "strided": (
        [Conv2d(3, (3, 2), (2, 3), (2, 1), "relu"), Conv2d(4, 3, 2, 1), Dense(5, "relu"), Dense(CLASSES)],
        (2, 9, 11),
    ),
    "one pixel": ([Conv2d(17, (5, 3), activation="relu"), Conv2d(2, 1), Dense(CLASSES)], (1, 5, 3)),
    "pool": ([MaxPool2d(2), Dense(CLASSES)], (2, 5, 4)),
    "pools": (
        [Conv2d(3, 2, activation="relu"), MaxPool2d(3, 2, 1), Conv2d(4, 2), MaxPool2d((2, 1), (1, 2)), Dense(CLASSES)],
        (1, 9, 8),
    ),
    "batch norm": ([Dense(7), BatchNorm("relu"), Dense(5, "relu"), BatchNorm(), Dense(CLASSES)], 6),
    "batch norm of images": (
        [BatchNorm(), Conv2d(3, 3), BatchNorm("relu", momentum=0.3, epsilon=1e-3), MaxPool2d(2), BatchNorm(),
         Dense(6), BatchNorm("relu"), Dense(CLASSES)],
        (2, 7, 6),
    ),
    "dropout": ([Dropout(0.2), Dense(9, "relu"), Dropout(0.5), Dense(CLASSES)], 11),
    "dropout of images": (
        [Conv2d(3, 2, activation="relu"), Dropout(0.3), MaxPool2d(2), Dropout(0.1), Dense(CLASSES)],
        (1, 5, 7),
    ),
    "all": (
        [Dropout(0.1), BatchNorm(), Conv2d(4, 3, padding=1, activation="relu"), MaxPool2d(2), Conv2d(5, (2, 3), (1, 2)),
         BatchNorm("relu"), Dropout(0.25), Dense(8), BatchNorm("relu"), Dropout(0.5), Dense(CLASSES)],
        (3, 9, 8),
    ),
    "flat start": ([Dropout(0.2), BatchNorm(), Dense(6, "relu"), Dense(CLASSES)], (1, 3, 4)),
}  # fmt: skip
# tanh and logistic layers of both kinds that may have them, beside every other kind.
CURVED = {
    "curved": ([Dense(6, "tanh"), Dense(5, "logistic"), Dense(CLASSES)], 7),
    "curved batch norm": (
        [Dense(6, "logistic"), BatchNorm("tanh"), Dropout(0.3), Dense(5), BatchNorm("logistic"), BatchNorm("tanh"),
         Dense(4, "tanh"), BatchNorm(), Dense(CLASSES)],
        5,
    ),
    "curved start": ([BatchNorm("logistic"), Dropout(0.2), Dense(5, "tanh"), Dense(CLASSES)], 6),
    "curved behind images": (
        [Conv2d(3, 2, activation="relu"), MaxPool2d(2), Dense(6, "tanh"), Dropout(0.2), Dense(5, "logistic"),
         Dropout(0.4), Dense(CLASSES)],
        (2, 5, 5),
    ),
    "curved behind an image's batch norm": (
        [Conv2d(3, 2), BatchNorm("relu"), Dense(6, "logistic"), BatchNorm("tanh"), Dense(CLASSES)], (1, 4, 4),
    ),
}  # fmt: skip
NORMLESS = [name for name, (stack, _) in STACKS.items() if not any(isinstance(layer, BatchNorm) for layer in stack)]


def made(*arguments, **options):
    """A network whose parameters, though as they were drawn, are set: it may be exported."""
    net = Network(*arguments, **options)
    net.load_state_dict(net.state_dict())
    return net


def network(name, dtype="float64", seed=3, **options):
    """The network of a name of STACKS or CURVED; biases, gammas and running statistics are no round numbers."""
    stack, inputs = (STACKS | CURVED)[name]
    net = made(stack, inputs, dtype=dtype, seed=seed, init="pytorch", **options)
    random = np.random.default_rng(seed)
    for number in np.flatnonzero(net.plan[:, p.KIND] == p.BATCH_NORM):
        for view in (p.tensor_view(net.plan, number, net.params), p.bias_view(net.plan, number, net.params)):
            view += random.normal(0, 0.3, view.shape)
        mean, variance, _ = p.buffer_views(net.plan, number, net.buffers)
        mean[...] = random.normal(0, 0.3, mean.shape).astype(dtype)
        variance[...] = random.uniform(0.5, 2, variance.shape).astype(dtype)
    return net


def rows(net, count, seed=0):
    """Normal inputs (N, *shape) and labels around which they lie."""
    random = np.random.default_rng(seed)
    y = random.integers(0, CLASSES, count)
    centres = np.random.default_rng(99).normal(size=(CLASSES, *net.shape))
    return centres[y] + random.normal(size=(count, *net.shape)), y


def sequential(torch, net, seed=0):
    """The equal torch.nn.Sequential with the network's values; its dropout draws the kernels' masks for `fit`'s seed.

    Call `next_step(modules)` after each step: masks depend on the number of steps.
    """
    nn, modules = torch.nn, []

    class Masked(nn.Module):
        def __init__(self, rate, layer):
            super().__init__()
            self.rate, self.layer, self.step = rate, layer, 0

        def forward(self, x):
            if not self.training:
                return x
            mask = np.empty(tuple(x.shape), np.float64)
            reference.dropout(np.ones_like(mask), self.rate, seeds.masks_seed(seed), self.step, self.layer, mask)
            return x * torch.from_numpy(mask).to(x.dtype)

    for number, (layer, row) in enumerate(zip(net.layers, net.plan.tolist(), strict=True)):
        image, channels = row[p.IMAGE], row[p.CHANNELS]
        if isinstance(layer, Dense):
            if number and net.plan[number - 1, p.IMAGE]:
                modules.append(nn.Flatten())
            modules.append(nn.Linear(row[p.INPUTS], layer.outputs))
        elif isinstance(layer, Conv2d):
            modules.append(nn.Conv2d(channels, layer.channels, layer.kernel, layer.stride, layer.padding))
        elif isinstance(layer, MaxPool2d):
            modules.append(nn.MaxPool2d(layer.kernel, layer.stride, layer.padding))
        elif isinstance(layer, Dropout):
            modules.append(Masked(layer.p, number))
        else:
            norm = nn.BatchNorm2d if image else nn.BatchNorm1d
            modules.append(norm(channels, eps=layer.epsilon, momentum=layer.momentum))
        if getattr(layer, "activation", None):
            modules.append(nn.ReLU())
    built = nn.Sequential(*modules).to(getattr(torch, net.dtype.name))
    built.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in net.state_dict().items()})
    return built


def next_step(modules):
    for module in modules:
        if hasattr(module, "step"):
            module.step += 1


def for_torch(torch, net, x):
    """Rows as the Sequential takes them: images only where a layer reads images."""
    x = np.asarray(x, net.dtype).reshape(len(x), *(net.shape if net.plan[0, p.IMAGE] else (-1,)))
    return torch.from_numpy(x)
