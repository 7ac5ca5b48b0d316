"""One of the processes of test_sharded.py: trains models that are spread over them, saves records.

Run as: sharded_worker.py RANK SIZE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from noisekit.errors import NoisekitError
from noisekit.gradients import GradientNoiseRecorder, every, gradient_statistics, per_sample_gradients
from noisekit.problems.gpt import GPT, GPTConfig

STEPS, BATCH, RATE = 2, 2, 0.1


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


class Scaled(nn.Module):
    """A layer that no rule knows, between two that have one: its parameter is replayed."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 7))
        self.first, self.last = nn.Linear(5, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x)).cumsum(-1) * self.scale)


def gpt() -> nn.Module:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocabulary=11, context=6, layers=2, heads=2, width=8)).double()


def picture() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)]
    return nn.Sequential(*layers).double()


def scaled() -> nn.Module:
    torch.manual_seed(0)
    return Scaled().double()


def shard_blocks(model: nn.Module, **options: Any) -> nn.Module:
    for block in model.blocks:
        fully_shard(block, **options)
    return fully_shard(model, **options)


def shard_layers(model: nn.Module) -> nn.Module:
    for layer in model.children():
        if list(layer.parameters()):
            fully_shard(layer)
    return fully_shard(model)


def texts(n: int) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 11, (n, 6)), torch.randint(0, 11, (n, 6))


def pictures(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 2, 5, 5).double(), torch.randint(0, 3, (n,))


def points(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 5).double(), torch.randint(0, 3, (n,))


TRAINING: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], nn.Module], Any, int]] = {
    "blocks": (gpt, shard_blocks, texts, 1),
    "the whole": (picture, fully_shard, pictures, 1),
    "every layer": (picture, shard_layers, pictures, 1),
    "accumulated": (gpt, shard_blocks, texts, 2),
    "replayed": (scaled, shard_layers, points, 1),
    "copies": (gpt, DistributedDataParallel, texts, 1),
}
"""Name: model, how it is spread over the processes, batches, backward passes before an optimizer step."""


def batches(draw: Callable[[int], tuple[Tensor, Tensor]], size: int, passes: int) -> Any:
    """Return for each backward pass the batch of each rank."""
    torch.manual_seed(1)
    return [[draw(BATCH) for _ in range(size)] for _ in range(passes)]


def train(name: str, rank: int, size: int) -> Any:
    build, shard, draw, accumulated = TRAINING[name]
    model = shard(build())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    options = {"coordinates": 7, "sketch": 6, "micro_batches": accumulated}
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1), **options) as recorder:
        for k, batch in enumerate(batches(draw, size, STEPS * accumulated), start=1):
            x, y = batch[rank]
            (loss_fn(model(x), y) / accumulated).backward()
            if k % accumulated == 0:
                optimizer.step()
                optimizer.zero_grad()
    parameters = [p.detach() for p in model.parameters()]
    weights = torch.cat([(p.full_tensor() if hasattr(p, "placements") else p).flatten() for p in parameters])
    return recorder.result(), weights


def by_call(rank: int, size: int) -> Any:
    """A batch that is recorded by call, and the statistics of it, at the first weights."""
    model = shard_blocks(gpt())
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    x, y = batches(texts, size, 1)[0][rank]
    recorder = GradientNoiseRecorder(model, loss_fn, optimizer, coordinates=7, sketch=6)
    recorder.repeat([(x, y)])
    return recorder.result(), gradient_statistics(model, loss_fn, x, y, coordinates=7, sketch=6)


def own_samples(rank: int, size: int) -> Any:
    x, y = batches(texts, size, 1)[0][rank]
    return per_sample_gradients(shard_blocks(gpt()), loss_fn, x, y)


def half_precision(rank: int, size: int) -> Any:
    """Parameters and gradients in bf16, statistics in float32."""
    model = shard_blocks(gpt().float(), mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with GradientNoiseRecorder(model, loss_fn, optimizer, schedule=every(1), coordinates=7) as recorder:
        x, y = batches(texts, size, 1)[0][rank]
        loss_fn(model(x).float(), y).backward()
        optimizer.step()
    return recorder.result()


def sharded_otherwise(rank: int, size: int) -> str:
    """Shards on one axis of the processes, copies on the other."""
    mesh = init_device_mesh("cpu", (1, size), mesh_dim_names=("copy", "shard"))
    model = fully_shard(picture(), mesh=mesh)
    try:
        GradientNoiseRecorder(model, loss_fn, torch.optim.SGD(model.parameters(), lr=RATE))
    except NoisekitError as error:
        return str(error)
    return "no error"


OTHERS: dict[str, Callable[[int, int], Any]] = {
    "by call": by_call,
    "own samples": own_samples,
    "half precision": half_precision,
    "sharded otherwise": sharded_otherwise,
}


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    found = {name: train(name, rank, size) for name in TRAINING}
    found |= {name: run(rank, size) for name, run in OTHERS.items()}
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
