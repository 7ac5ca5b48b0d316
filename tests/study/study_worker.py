"""One of the processes of test_over_processes.py: the command line, ensembles that are shared, and failures.

Run by torchrun as: study_worker.py FOLDER
"""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from typing import Any

import torch
from torch import distributed as dist

import noisekit as nk
from noisekit.cli import main
from noisekit.study import StudyConfig, trajectories

WORDS = [
    *("run", "breast-cancer-mlp", "--no-report", "--optimizers", "signsgd", "adamw"),
    *("--learning-rates", "0.001", "0.002", "--weight-decay", "0.01", "--batch-size", "16"),
    *("--steps", "4", "--warmup-steps", "2", "--save-every", "2", "--replicates", "4", "--n-samples", "100"),
    *("--training-steps", "10", "--training-batch-size", "32", "--record-every", "2"),
    *("--coordinates", "32", "--sketch", "8"),
]
TINY = StudyConfig(steps=4, warmup_steps=2, save_every=2, replicates=4)


def failing(*arguments: Any, **options: Any) -> nk.Solution:
    raise nk.errors.NonFiniteError("this process alone fails")


def error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except nk.errors.NonFiniteError as error:
        return str(error)
    return "none"


def shared(folder: str) -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "learning_rate 1e.30 is beyond the stability limit")
    torch.set_num_threads(1)
    with redirect_stdout(io.StringIO()) as data, redirect_stderr(io.StringIO()) as log:
        status = main([*WORDS, "--output", f"{folder}/shared.nc"])
    found: dict[str, Any] = {"status": status, "data": data.getvalue(), "log": log.getvalue()}
    # The store of the launcher remembers the addresses of the group that the command line has left.
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    ranks, bowl = nk.Ranks(), nk.Quadratic(torch.ones(3))

    def ensembles(config: StudyConfig) -> list[trajectories.Ensembles]:
        return trajectories.compare_optimizers(bowl, bowl.x0, config, ranks=ranks)

    found["ensembles"] = [e.comparison.optimizer for e in ensembles(TINY)]
    wild = replace(TINY, learning_rates=(1e30, 0.1), warmup_steps=0, steps=12)
    found["divergence"] = error_of(lambda: ensembles(wild))
    if rank == size - 1:
        trajectories._predict = trajectories._run = failing
    found["failure"] = error_of(lambda: ensembles(TINY))
    torch.save(found, f"{folder}/rank{rank}.pt")
    dist.barrier()  # a group that others have left keeps gloo of torch 2.6 waiting
    dist.destroy_process_group()


if __name__ == "__main__":
    shared(sys.argv[1])
