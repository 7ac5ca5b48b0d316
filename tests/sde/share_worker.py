"""One of the processes of test_over_ranks.py: ensembles that are shared, each process saving what it got.

Run as: share_worker.py RANK SIZE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

import noisekit as nk

STEPS, D = 6, 300


def quadratic() -> nk.Quadratic:
    return nk.Quadratic(torch.linspace(0.5, 2.0, D))


def square(x: Tensor) -> Tensor:
    return x.square().sum(1)


def sde(name: str, ranks: Any, **options: Any) -> nk.Solution:
    problem = quadratic()
    noise = nk.StudentTNoise(scale=0.3, df=5.0) if name == "signsgd" else nk.GaussianNoise(scale=0.3)
    kind = {"sgd": nk.SGDSDE, "signsgd": nk.SignSGDSDE, "adam": nk.AdamSDE}[name]
    settings = {"steps": STEPS, "substeps": 4, "save_every": 2, "observables": {"square": square}, "seed": 3}
    equation = kind(problem.gradient, noise, 0.05)
    return nk.integrate(equation, torch.ones(D), **(settings | {"ranks": ranks} | options))


def diverging(ranks: Any) -> nk.Solution:
    """A start beyond the stability of x⁴ in the last rows only."""
    x0 = torch.ones(130, D)
    x0[100:] = 40.0
    equation = nk.SGDSDE(lambda x: x**3, nk.GaussianNoise(scale=0.1), 0.2)
    return nk.integrate(equation, x0, steps=STEPS, substeps=2, replicates=130, ranks=ranks)


def dense(ranks: Any) -> nk.Solution:
    torch.manual_seed(0)
    a = torch.randn(D, D)
    problem = nk.Quadratic(a @ a.T / D)
    equation = nk.SGDSDE(problem.gradient, nk.GaussianNoise(scale=0.3), 0.05)
    return nk.integrate(equation, torch.ones(D), steps=STEPS, substeps=2, replicates=700, ranks=ranks)


def optimizer(ranks: Any, **options: Any) -> nk.Solution:
    settings = {"steps": STEPS, "replicates": 150, "save_every": 3, "seed": 3, "ranks": ranks}
    settings["noise"] = nk.GaussianNoise(scale=0.3)
    return nk.simulate_optimizer(
        quadratic(), lambda p: torch.optim.Adam(p, lr=0.05), torch.ones(D), **(settings | options)
    )


CASES: dict[str, Callable[[Any], nk.Solution]] = {
    "paths of Adam": lambda ranks: sde("adam", ranks, replicates=150),
    "statistics of Adam": lambda ranks: sde("adam", ranks, replicates=150, keep_state=False),
    "SignSGD under heavy tails": lambda ranks: sde("signsgd", ranks, replicates=130),
    "fewer replicates than ranks": lambda ranks: sde("sgd", ranks, replicates=2),
    "fewer replicates, statistics": lambda ranks: sde("sgd", ranks, replicates=2, keep_state=False),
    "diverging paths": diverging,
    "matrix products": dense,
    "real Adam": optimizer,
    "statistics of real Adam": lambda ranks: optimizer(ranks, keep_state=False),
}


def resumed(ranks: Any, folder: Path, name: str) -> nk.Solution:
    """The second half of a run, from the file that the first half left."""
    options = {"replicates": 150, "checkpoint": folder / name, "checkpoint_every": 2, "keep_state": False}
    return sde("sgd", ranks, **options)


def prepare() -> None:
    """Import what noisekit imports on first use."""
    _ = nk.integrate, nk.simulate_optimizer, nk.Quadratic, nk.GaussianNoise


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks = nk.Ranks()
    found: dict[str, Any] = {name: run(ranks) for name, run in CASES.items()}
    found["resumed"] = resumed(ranks, Path(folder), "half.pt")
    try:
        sde("sgd", ranks, replicates=20, seed=rank)
    except nk.errors.InputError as error:
        found["different seeds"] = str(error)
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
