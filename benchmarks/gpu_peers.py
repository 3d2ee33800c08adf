"""PyTorch, JAX and CuPy on the GPU, for the GPU report: each in a process of its own, after its answer is checked."""

import time
from statistics import median
from typing import Any

import numpy as np
from cases import Case, agree, order, trial
from data import Images
from peers import Torch
from peers_jax import Jax

_WARM, _TURNS = 2, 5

# Multiply-adds one behind the other: keep a GPU at work for 5 ms, in no memory, while Python launches what is timed.
HELD = 2_000_000
_CHAIN = """
extern "C" __global__ void chain(float *out, int n, float factor) {
    float value = factor;
    for (int i = 0; i < n; i++) value = value * factor + factor;
    out[0] = value;
}
"""

# Products: rows, depth, columns. Those of training, and large ones.
SHAPES = [(128, 784, 128), (128, 128, 128), (128, 128, 10), (1024, 784, 128), (1024, 1024, 1024), (4096, 4096, 4096)]


class TorchOnGpu(Torch):
    """PyTorch with data and network on the GPU; graphs: a step captured once and replayed, the usual remedy."""

    def __init__(self, case: Case, images: Images, graphs: bool) -> None:
        super().__init__(case, images, 1)
        torch = self.torch
        torch.backends.cuda.matmul.allow_tf32 = False  # as ours: float32 throughout
        self.x, self.y, self.network = self.x.cuda(), self.y.cuda(), self.network.cuda()
        self.forward, self.graphs = self.network, graphs
        self.reset()

    def reset(self) -> None:
        super().reset()
        optim, rate, torch = self.torch.optim, self.case.learning_rate, self.torch
        options: dict[str, Any] = {"fused": True}
        if self.case.optimizer == "adam":
            from cases import BETA1, BETA2, EPSILON

            options["capturable"] = True
            self.optimizer = optim.Adam(
                self.network.parameters(), torch.tensor(rate), (BETA1, BETA2), EPSILON, **options
            )
        else:
            self.optimizer = optim.SGD(self.network.parameters(), rate, **options)
        self.graph: Any = None

    def place(self, order: np.ndarray) -> Any:
        return self.torch.from_numpy(order).cuda()

    def run(self, placed: Any) -> np.ndarray:
        batch = self.case.batch
        whole = len(placed) // batch * batch if self.graphs else 0
        losses = []
        for start in range(0, whole, batch):
            losses.append(self._replayed(placed[start : start + batch]))
        for start in range(whole, len(placed), batch):
            losses.append(self._step(placed[start : start + batch]))
        return self.torch.stack(losses).cpu().numpy().astype(np.float64)

    def _step(self, rows: Any) -> Any:
        loss = self.torch.nn.functional.cross_entropy(
            self.network(self.x.index_select(0, rows)), self.y.index_select(0, rows)
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _replayed(self, rows: Any) -> Any:
        torch = self.torch
        if self.graph is None:
            self.rows, start = rows.clone(), [p.detach().clone() for p in self.network.parameters()]
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):  # warm up, as torch.cuda.graphs asks, then from the start again
                for _ in range(3):
                    self._step(self.rows)
            torch.cuda.current_stream().wait_stream(aside)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.loss = self._step(self.rows)
            with torch.no_grad():
                for parameter, value in zip(self.network.parameters(), start, strict=True):
                    parameter.copy_(value)
                for state in self.optimizer.state.values():
                    for value in state.values():
                        if isinstance(value, torch.Tensor):
                            value.zero_()
        self.rows.copy_(rows)
        self.graph.replay()
        return self.loss.clone()

    def parameters(self) -> Any:
        self.network, there = self.network.cpu(), self.network
        try:
            return super().parameters()
        finally:
            self.network = there.cuda()


def trainer(system: str, case: Case, images: Images) -> Any:
    """What trains like peers.py's, on the GPU."""
    if system == "JAX jit + scan":
        import jax

        jax.config.update("jax_default_matmul_precision", "highest")  # float32 throughout: else TF32 on a GPU
        return Jax(case, images, 1, "uint8")
    return TorchOnGpu(case, images, system == "PyTorch, CUDA graphs")


def epochs(system: str, case: Case, images: Images, answers: dict[str, Any]) -> list[float]:
    """Seconds of each turn, behind a trial whose answer agrees with ours, if we have one. AssertionError where not."""
    peer = trainer(system, case, images)
    if case.name in answers:
        losses, parameters = answers[case.name]
        ours = np.array(losses), [np.array(a, np.float32) for a in parameters]
        placed = peer.place(trial(case, len(images.y)))
        agree(case, system, ours, (peer.run(placed), peer.parameters()))
    peer = trainer(system, case, images)
    placed, times = peer.place(order(len(images.y), 1)), []
    for turn in range(_WARM + _TURNS):
        began = time.perf_counter()
        peer.run(placed)  # which waits: the losses come to the host
        if turn >= _WARM:
            times.append(time.perf_counter() - began)
    return times


def blas(shapes: list[tuple[int, int, int]]) -> list[dict[str, Any]]:
    """cuBLAS's float32 products through CuPy, TF32 off."""
    import cupy

    rows, spare, chain = [], cupy.empty(1, cupy.float32), cupy.RawKernel(_CHAIN, "chain")
    for m, k, n in shapes:
        a, b = (cupy.random.standard_normal(shape, dtype=cupy.float32) for shape in ((m, k), (k, n)))
        out, times = cupy.empty((m, n), cupy.float32), []
        for turn in range(3 + 15):
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            chain((1,), (1,), (spare, np.int32(HELD), np.float32(0.999)))
            begin.record()
            cupy.matmul(a, b, out=out)
            end.record()
            end.synchronize()
            if turn >= 3:
                times.append(cupy.cuda.get_elapsed_time(begin, end) / 1e3)
        seconds = median(times)
        rows.append({"shape": (m, k, n), "seconds": seconds, "flops": 2 * m * k * n / seconds})
    return rows
