"""Cost of per-sample gradient statistics over a plain forward and backward pass, beside other libraries.

    python scripts/benchmarks/per_sample.py                  # all models, every method that is there
    python scripts/benchmarks/per_sample.py --models gpt --rounds 30 --memory

CPU time on one thread, methods interleaved, the median over rounds of the ratio to the plain pass next to it;
memory is the growth of the peak resident set of a fresh process over three passes. Opacus and BackPACK are
measured where they are importable.
"""

from __future__ import annotations

import argparse
import copy
import importlib.metadata
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import noisekit as nk

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

EASY = {"inplace": True, "batched_positions": False}
"""Set for the libraries that stop at in-place activations and at positions without a batch axis."""


class Block(nn.Module):
    """Residual block with GroupNorm, two 3×3 convolutions and an average-pooled shortcut."""

    def __init__(self, inside: int, out: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.GroupNorm(8, out), nn.GroupNorm(8, out)
        self.shortcut = nn.Conv2d(inside, out, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)), inplace=EASY["inplace"])
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(2, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, 2))
        return self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, 4)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary: int = 65, length: int = 64, width: int = 128, layers: int = 4):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        positions = torch.arange(tokens.shape[1])
        if EASY["batched_positions"]:
            positions = positions.expand_as(tokens)
        x = self.token(tokens) + self.position(positions)
        return self.head(self.norm(self.layers(x))).transpose(1, 2)


def build(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """Return (model, inputs, targets)."""
    torch.manual_seed(0)
    if name == "mlp":
        sizes = (30, 64, 64)
        hidden = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*hidden, nn.Linear(64, 2)), torch.randn(128, 30), torch.randint(2, (128,))
    if name == "cnn":
        model = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(9216, 128), nn.ReLU(), nn.Linear(128, 10),
        )  # fmt: skip
        return model, torch.randn(128, 1, 28, 28), torch.randint(10, (128,))
    if name == "resnet":
        widths = [(16, 16, 1)] * 3 + [(16, 32, 2)] + [(32, 32, 1)] * 2 + [(32, 64, 2)] + [(64, 64, 1)] * 2
        stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.GroupNorm(8, 16), nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
        model = nn.Sequential(*stem, *(Block(*w) for w in widths), *head)
        return model, torch.randn(64, 3, 32, 32), torch.randint(10, (64,))
    return GPT(), torch.randint(65, (32, 64)), torch.randint(65, (32, 64))


Step = Callable[[], Any]


def plain(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    parameters = list(model.parameters())
    return lambda: torch.autograd.grad(loss_fn(model(x), y), parameters)


def ours(**options: Any) -> Callable[..., Step]:
    def make(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
        return lambda: nk.gradient_statistics(model, loss_fn, x, y, **options)

    return make


def recorded(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    """Ten training steps with the recorder at every tenth; shown per step, against ``trained``."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def run() -> None:
        with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(10)):
            _train(model, x, y, loss_fn, optimizer)

    return run


def trained(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    return lambda: _train(model, x, y, loss_fn, optimizer)


def _train(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module, optimizer: Any) -> None:
    for _ in range(10):
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()


def vmap(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: dict[str, Tensor], xi: Tensor, yi: Tensor) -> Tensor:
        return loss_fn(torch.func.functional_call(model, values, (xi[None],)), yi[None])

    def run() -> None:
        rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(parameters, x, y)
        for row in rows.values():
            row.square().sum(0)

    return run


def opacus(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    from opacus import GradSampleModule

    wrapped = GradSampleModule(model)

    def run() -> None:
        wrapped.zero_grad()
        loss_fn(wrapped(x), y).backward()
        for p in wrapped.parameters():
            assert p.grad_sample.shape[0] == len(x)
            p.grad_sample.square().sum(0)

    return run


def backpack(model: nn.Module, x: Tensor, y: Tensor, loss_fn: nn.Module) -> Step:
    from backpack import backpack as context
    from backpack import extend
    from backpack.extensions import SumGradSquared

    plain_layers = isinstance(model, nn.Sequential) and not any(isinstance(m, Block) for m in model)
    extended = extend(model, use_converter=not plain_layers)
    loss = extend(loss_fn)

    def run() -> None:
        extended.zero_grad()
        with context(SumGradSquared()):
            loss(extended(x), y).backward()

    return run


METHODS: dict[str, Callable[..., Step]] = {
    "plain": plain,
    "diagonal": ours(coordinates=0, sketch=0, gram=False),
    "diagonal + Gram": ours(coordinates=0, sketch=0),
    "diagonal + 512 coordinates": ours(sketch=0, gram=False),
    "diagonal + sketch of 256": ours(coordinates=0, gram=False),
    "everything": ours(),
    "ten steps": trained,
    "ten steps, one recorded": recorded,
    "vmap": vmap,
    "opacus": opacus,
    "backpack": backpack,
}
BASE = {"ten steps": "ten steps", "ten steps, one recorded": "ten steps"}


def make(model_name: str, method: str) -> Step:
    model, x, y = build(model_name)
    step = METHODS[method](copy.deepcopy(model), x, y, nn.CrossEntropyLoss())
    if method not in ("opacus", "backpack"):
        return step

    def run() -> Any:
        EASY.update(inplace=False, batched_positions=True)
        try:
            return step()
        finally:
            EASY.update(inplace=True, batched_positions=False)

    return run


def measure_time(model_name: str, methods: list[str], rounds: int) -> dict[str, float]:
    """Return the median over ``rounds`` of the ratio of each method's CPU time to that of its base."""
    steps: dict[str, Step] = {}
    for method in methods:
        try:
            step = make(model_name, method)
            step()
            steps[method] = step
        except Exception as error:
            print(f"  {model_name}, {method}: {type(error).__name__}: {str(error)[:90]}")
    times: dict[str, list[float]] = {method: [] for method in steps}
    repeats = 20 if model_name == "mlp" else 1
    for _ in range(rounds):
        for method, step in steps.items():
            start = time.process_time()
            for _ in range(repeats):
                step()
            times[method].append(time.process_time() - start)
    return {
        method: statistics.median(a / b for a, b in zip(own, times[BASE.get(method, "plain")], strict=True))
        for method, own in times.items()
    }


def measure_memory(model_name: str, methods: list[str]) -> dict[str, float]:
    """Return each method's peak memory over that of the plain pass."""
    peaks = {}
    for method in methods:
        command = [sys.executable, __file__, "--peak", model_name, method]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            peaks[method] = float(done.stdout)
    return {method: peak / max(peaks["plain"], 1.0) for method, peak in peaks.items()}


def peak(model_name: str, method: str) -> float:
    """Return by how much the resident set peaks above its start in three passes, in kilobytes."""
    make("mlp", method)()  # what is imported on first use does not count
    step = make(model_name, method)
    before = memory_of_this_process("VmRSS")
    for _ in range(3):
        step()
    return memory_of_this_process("VmHWM") - before


def memory_of_this_process(field: str) -> float:
    """Return what Linux knows: VmRSS is the resident set now, VmHWM its peak since the program started."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return float(line.split()[1])
    raise SystemExit("Memory is measured on Linux only.")


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["mlp", "cnn", "resnet", "gpt"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--memory", action="store_true", help="also measure peak memory, in fresh processes")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        print(peak(*arguments.peak))
        return
    packages = ("torch", "opacus", "backpack-for-pytorch")
    print(platform.machine(), *(f"{p} {version(p)}" for p in packages), "1 thread, CPU time", sep=" · ")
    methods = ["plain", *(m for m in arguments.methods if m != "plain")]
    if "ten steps, one recorded" in methods and "ten steps" not in methods:
        methods.insert(1, "ten steps")
    columns = {name: measure_time(name, methods, arguments.rounds) for name in arguments.models}
    print(f"{'cost over its plain counterpart':32}", *(f"{name:>8}" for name in columns))
    for method in methods:
        cells = (f"{c[method]:8.2f}" if method in c else f"{'—':>8}" for c in columns.values())
        print(f"{method:32}", *cells)
    if arguments.memory:
        chosen = [m for m in methods if not m.startswith("ten")]
        peaks = {name: measure_memory(name, chosen) for name in arguments.models if name != "mlp"}
        print(f"\n{'peak memory over plain':32}", *(f"{name:>8}" for name in peaks))
        for method in chosen:
            cells = (f"{c[method]:8.2f}" if method in c else f"{'—':>8}" for c in peaks.values())
            print(f"{method:32}", *cells)


if __name__ == "__main__":
    main()
