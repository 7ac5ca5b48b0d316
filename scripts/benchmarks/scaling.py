"""How cost grows with samples, parameters, paths, coordinates and processes. Prints tables in Markdown.

    python scripts/benchmarks/scaling.py                    # all tables, about three minutes of two cores
    python scripts/benchmarks/scaling.py samples ranks      # some of them

CPU time on one thread a process, the least of several repeats, so that other work on the machine counts
little. Of several processes the busiest counts.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import distributed as dist
from torch import nn

import noisekit as nk

torch.set_num_threads(1)
WIDTH, BATCH, REPEATS = 256, 32, 7
EQUATIONS = {"SGD": nk.SGDSDE, "Adam": nk.AdamSDE}
SUBSTEPS, STEPS = 8, 8


def seconds(run: Callable[[], Any], repeats: int = REPEATS) -> float:
    """CPU seconds of ``run()``, the least of ``repeats`` after one that does not count."""
    run()
    found = []
    for _ in range(repeats):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def network(width: int) -> nn.Module:
    layers = [nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10)]
    torch.manual_seed(0)
    return nn.Sequential(*layers)


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, batch: int) -> Callable[[], None]:
    x, y = torch.randn(batch, 64), torch.randint(10, (batch,))
    loss_fn = nn.functional.cross_entropy

    def step() -> None:
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        optimizer.step()

    return step


def recorded_seconds(model: nn.Module, batch: int, **options: Any) -> tuple[float, float]:
    """CPU seconds of a plain and of a recorded training step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    step = step_of(model, optimizer, batch)
    plain = seconds(step)
    loss_fn = nn.functional.cross_entropy
    with nk.GradientNoiseRecorder(model, loss_fn, optimizer, schedule=nk.every(1), **options):
        return plain, seconds(step)


def samples() -> None:
    """A recorded step beside a plain one, for batches of more samples."""
    rows = []
    for batch in (8, 16, 32, 64, 128, 256):
        plain, everything = recorded_seconds(network(WIDTH), batch)
        _, norms = recorded_seconds(network(WIDTH), batch, gram=False, sketch=0, coordinates=0, moments=False)
        rows.append((batch, f"{1e3 * plain:.2f}", f"{1e3 * everything:.2f}", f"{everything / plain:.2f}"))
        rows[-1] += (f"{norms / plain:.2f}",)
    head = ("samples", "plain step, ms", "recorded, ms", "ratio, everything", "ratio, norms alone")
    print_table(f"An MLP of {size_of(network(WIDTH)):,} parameters", head, rows)


def parameters() -> None:
    """A recorded step beside a plain one, for larger networks."""
    rows = []
    for width in (64, 128, 256, 512, 1024, 2048):
        plain, everything = recorded_seconds(network(width), BATCH)
        size = f"{size_of(network(width)):,}"
        rows.append((size, f"{1e3 * plain:.2f}", f"{1e3 * everything:.2f}", f"{everything / plain:.2f}"))
    head = ("parameters", "plain step, ms", "recorded, ms", "ratio, everything")
    print_table(f"MLPs on batches of {BATCH} samples", head, rows)


def size_of(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def integrated(name: str, paths: int, coordinates: int, ranks: Any = None, steps: int = STEPS) -> Any:
    problem = nk.Quadratic(torch.linspace(0.5, 1.5, coordinates))
    sde = EQUATIONS[name](problem.gradient, nk.GaussianNoise(scale=0.1), 1e-3)
    options: dict[str, Any] = {"save_every": steps, "keep_state": False, "quantiles": (), "ranks": ranks}
    start = torch.ones(coordinates)
    return nk.integrate(sde, start, steps=steps, substeps=SUBSTEPS, replicates=paths, **options)


def nanoseconds(paths: int, coordinates: int) -> tuple[str, ...]:
    """CPU nanoseconds a path, coordinate and substep, for each equation."""
    numbers = paths * coordinates * SUBSTEPS * STEPS
    found = [seconds(lambda name=name: integrated(name, paths, coordinates), 4) for name in EQUATIONS]
    return tuple(f"{1e9 * each / numbers:.2f}" for each in found)


def paths() -> None:
    """Integration of more paths of 100 coordinates."""
    rows = [(f"{n:,}", *nanoseconds(n, 100)) for n in (10, 100, 1000, 10_000)]
    print_table("100 coordinates; ns a path·coordinate·substep", ("paths", *EQUATIONS), rows)


def coordinates() -> None:
    """Integration of about as many numbers, in fewer and longer rows."""
    rows = [(f"{d:,}", f"{10**6 // d:,}", *nanoseconds(10**6 // d, d)) for d in (10, 100, 10_000, 1_000_000)]
    head = ("coordinates", "paths", *EQUATIONS)
    print_table("A million numbers; ns a path·coordinate·substep", head, rows)


def ranks() -> None:
    """The same ensemble, study, and batch of a recorded step, over more processes."""
    rows = []
    for size in (1, 2, 4):
        found = over_processes(size)
        rows.append((size, *(f"{1e3 * each:.1f}" for each in found)))
    head = ("processes", "Adam SDE, ms", "study, ms", "recorded step with DDP, ms", "with FSDP2, ms")
    about = f"2000 paths of 300 coordinates; {size_of(network(WIDTH)):,} parameters, 128 samples in all"
    print_table(f"{about}; CPU time of the busiest process", head, rows)


def over_processes(size: int) -> list[float]:
    """CPU seconds of the busiest of ``size`` gloo processes, for each of the four."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, context.Pool(size) as pool:
        jobs = [pool.apply_async(process, (rank, size, folder)) for rank in range(size)]
        found = [job.get(timeout=300) for job in jobs]
    return [max(times) for times in zip(*found, strict=True)]


def process(rank: int, size: int, folder: str) -> list[float]:
    """What one of the processes measures."""
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    from noisekit.study import StudyConfig
    from noisekit.study.trajectories import compare_optimizers

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    group = nk.Ranks()
    found = [seconds(lambda: integrated("Adam", 2000, 300, group, 16), 3)]
    problem, config = nk.load_problem("breast-cancer-mlp"), StudyConfig(steps=20)
    found.append(seconds(lambda: compare_optimizers(problem, problem.x0, config, ranks=group), 3))
    for wrap in (DistributedDataParallel, fully_shard):
        found.append(recorded_seconds(wrap(network(WIDTH)), 128 // size)[1])
    dist.destroy_process_group()
    return found


def print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(str(value) for value in row)} |", flush=True)


TABLES = {
    "samples": samples,
    "parameters": parameters,
    "paths": paths,
    "coordinates": coordinates,
    "ranks": ranks,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(TABLES)}; all if none is named")
    given = parser.parse_args().tables
    unknown = [name for name in given if name not in TABLES]
    if unknown:
        parser.error(f"there is no table {unknown[0]!r}; there are {', '.join(TABLES)}")
    print(f"torch {torch.__version__}, one thread a process")
    for name in given or TABLES:
        TABLES[name]()


if __name__ == "__main__":
    main()
