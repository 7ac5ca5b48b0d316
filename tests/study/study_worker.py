"""One of the processes of test_over_processes.py: a study that is shared, and shared failures.

Run as: study_worker.py RANK SIZE FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import distributed as dist

import noisekit as nk
from noisekit.study import StudyConfig, load_study_problem, trajectories

TINY = StudyConfig(
    optimizers=("signsgd", "adamw"),
    learning_rates=(0.001, 0.002),
    weight_decay=0.01,
    batch_size=16,
    steps=4,
    warmup_steps=2,
    save_every=2,
    replicates=4,
    n_samples=100,
    training_steps=10,
    training_batch_size=32,
    record_every=2,
    coordinates=32,
    sketch=8,
)


def study(ranks: Any, config: StudyConfig = TINY) -> Any:
    return nk.run_study(load_study_problem("breast-cancer-mlp", config), config, ranks=ranks)


def failing(*arguments: Any, **options: Any) -> nk.Solution:
    raise nk.errors.NonFiniteError("this process alone fails")


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except nk.errors.NonFiniteError as error:
        return str(error)
    return "none"


def main() -> None:
    rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks = nk.Ranks()
    tree = study(ranks)
    found: dict[str, Any] = {"has a tree": tree is not None}
    if tree is not None:
        nk.save_tree(tree, f"{folder}/shared.nc")
    wild = replace(TINY, training_learning_rate=1e38, training_steps=50)
    found["training"] = error_of(lambda: study(ranks, wild))
    if rank == size - 1:
        trajectories._predict = trajectories._run = failing
    bowl = nk.Quadratic(torch.ones(3))
    found["prediction"] = error_of(lambda: trajectories.compare_optimizers(bowl, bowl.x0, TINY, ranks=ranks))
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
