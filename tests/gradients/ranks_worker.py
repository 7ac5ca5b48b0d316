"""One of the processes of test_distributed.py: trains under DistributedDataParallel, saves records.

Run as: ranks_worker.py RANK SIZE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from noisekit.errors import NoisekitError
from noisekit.gradients import GradientNoiseRecorder, every, gradient_statistics

SIZE = 2


def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def sum_loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="sum")


class Tokens(nn.Module):
    """An embedding that may be the output weight, layers on sequences, and an LSTM that is replayed."""

    def __init__(self, *, tied: bool, recurrent: bool):
        super().__init__()
        self.token, self.mix = nn.Embedding(11, 4), nn.Linear(4, 4)
        self.rnn = nn.LSTM(4, 4, batch_first=True) if recurrent else None
        self.head = nn.Linear(4, 11, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = torch.tanh(self.mix(self.token(tokens)))
        return self.head(x if self.rnn is None else self.rnn(x)[0])


def picture() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3)]
    return nn.Sequential(*layers).double()


def tokens(**options: bool) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return Tokens(**options).double()

    return build


def pictures(n: int) -> tuple[Tensor, Tensor]:
    return torch.randn(n, 2, 5, 5).double(), torch.randint(0, 3, (n,))


def texts(n: int, length: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randint(0, 11, (n, length)), torch.randint(0, 11, (n, length))


Batches = list[list[tuple[Tensor, Tensor]]]
"""For each rank, a batch a step (or, where gradients are accumulated, a backward pass)."""


def batches(draw: Callable[..., tuple[Tensor, Tensor]], sizes: list[list[int]]) -> Batches:
    torch.manual_seed(1)
    return [[draw(n) for n in own] for own in sizes]


def ragged() -> Batches:
    torch.manual_seed(1)
    return [[texts(3, 4)], [texts(2, 7)]]


TRAINING: dict[str, tuple[Callable[[], nn.Module], Any, Batches, int]] = {
    "convolution": (picture, loss_fn, batches(pictures, [[3, 3], [3, 3]]), 1),
    "tied": (tokens(tied=True, recurrent=False), loss_fn, batches(texts, [[2, 2], [2, 2]]), 1),
    "replayed": (tokens(tied=False, recurrent=True), loss_fn, batches(texts, [[3, 3], [3, 3]]), 1),
    "sum": (picture, sum_loss, batches(pictures, [[2], [2]]), 1),
    "uneven": (picture, loss_fn, batches(pictures, [[3], [2]]), 1),
    "ragged": (tokens(tied=False, recurrent=False), loss_fn, ragged(), 1),
    "accumulated": (picture, loss_fn, batches(pictures, [[2, 2, 2, 2], [2, 2, 2, 2]]), 2),
    "accumulated text": (tokens(tied=False, recurrent=False), loss_fn, batches(texts, [[2, 3], [2, 3]]), 2),
}
"""Name: model, loss, batches of each rank, backward passes before an optimizer step."""


def train(name: str, rank: int) -> Any:
    build, loss, parts, accumulated = TRAINING[name]
    model = DistributedDataParallel(build())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientNoiseRecorder(
        model, loss, optimizer, schedule=every(1), coordinates=7, sketch=6
    ) as recorder:
        for k, (x, y) in enumerate(parts[rank], start=1):
            if k % accumulated:
                with model.no_sync():
                    (loss(model(x), y) / accumulated).backward()
                continue
            (loss(model(x), y) / accumulated).backward()
            optimizer.step()
            optimizer.zero_grad()
    return recorder.result()


def statistics(rank: int) -> Any:
    model = DistributedDataParallel(picture())
    x, y = batches(pictures, [[1], [3]])[rank][0]
    return gradient_statistics(model, loss_fn, x, y, coordinates=7, sketch=6)


def repeated(rank: int) -> Any:
    model = DistributedDataParallel(picture())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = GradientNoiseRecorder(model, loss_fn, optimizer, coordinates=7, gram=False)
    recorder.repeat(batches(pictures, [[2, 2, 2], [2, 2, 2]])[rank])
    return recorder.result()


def not_a_number(rank: int) -> str:
    model = DistributedDataParallel(picture())
    x, y = batches(pictures, [[3], [3]])[rank][0]
    gradient_statistics(model, loss_fn, x, y)
    if rank == 1:
        x[2, 0, 0, 0] = torch.nan
    return error_of(lambda: gradient_statistics(model, loss_fn, x, y))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)
        self.side = "left"

    def forward(self, x: Tensor) -> Tensor:
        return self.left(x) if self.side == "left" else self.right(x)


def different_layers(rank: int) -> str:
    model = Branches()
    model.side = "left" if rank == 0 else "right"
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    return error_of(lambda: gradient_statistics(wrapped, nn.MSELoss(), x, y))


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except NoisekitError as error:
        return str(error)
    return "no error"


OTHERS: dict[str, Callable[[int], Any]] = {
    "statistics": statistics,
    "repeated": repeated,
    "not a number": not_a_number,
    "different layers": different_layers,
}


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    found = {name: train(name, rank) for name in TRAINING}
    found |= {name: run(rank) for name, run in OTHERS.items()}
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
