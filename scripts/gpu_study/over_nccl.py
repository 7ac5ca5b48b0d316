"""What processes tell each other, over NCCL in a group of one, the most that one GPU allows.

Run as: over_nccl.py cuda nccl, or over_nccl.py cpu gloo. Prints a line of JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from torch import distributed as dist
from torch import nn

import noisekit as nk


def main(device: str, backend: str) -> None:
    here = torch.device(device, 0) if device == "cuda" else torch.device(device)
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    ranks, found = nk.Ranks(), {}
    for kind in dict.fromkeys(("cpu", device)):
        rows = torch.arange(6.0, device=kind).view(3, 2)
        for values in (rows, rows.double(), rows.bfloat16(), rows.long()):
            sums = ranks.sum([values, values[0]])
            joined, collected = ranks.concatenate(values, [3]), ranks.collect(values, [3], 0)
            told = [*sums, joined, collected, ranks.broadcast(values, 0)]
            wanted = [values, values[0], values, values, values]
            same = [
                t is not None and t.device == w.device and torch.equal(t, w)
                for t, w in zip(told, wanted, strict=True)
            ]
            found[f"{values.dtype} on {kind}"] = all(same)
    found["objects"] = ranks.exchange({"a": 1}) == ranks.gather({"a": 1}) == [{"a": 1}]
    alone, shared = (integrated(here, given) for given in (None, ranks))
    found["integrate"] = torch.equal(alone.state["x"], shared.state["x"])
    one, other = (recorded(here, given) for given in (None, ranks))
    assert one.gram is not None
    assert other.gram is not None
    found["recorder"] = torch.allclose(one.gram, other.gram, rtol=1e-4)
    dist.destroy_process_group()
    print(json.dumps(found))


def integrated(device: torch.device, ranks: nk.Ranks | None) -> nk.Solution:
    problem = nk.Quadratic(torch.linspace(0.5, 1.5, 20, device=device))
    sde = nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=0.1), 0.01)
    return nk.integrate(sde, torch.ones(20, device=device), steps=10, replicates=50, ranks=ranks)


def recorded(device: torch.device, ranks: nk.Ranks | None) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 3)).to(device)
    x, y = torch.randn(16, 5, 8).to(device), torch.randn(16, 5, 3).to(device)
    optimizer, loss_fn = torch.optim.SGD(model.parameters(), lr=0.1), nn.MSELoss()
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1), ranks=ranks) as recorder:
        for _ in range(2):
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
            optimizer.step()
    return recorder.result()


if __name__ == "__main__":
    main(*sys.argv[1:])
