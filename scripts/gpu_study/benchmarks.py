"""How fast the SDEs and the recorder are beside what the device can do at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from settings import Settings, write_json
from training import GPT_SIZES, gpt, seeded

import noisekit as nk
from noisekit.problems.datasets import shakespeare
from noisekit.problems.gpt import next_token_loss

EQUATIONS = {"SGD": nk.SGDSDE, "SignSGD": nk.SignSGDSDE, "RMSprop": nk.RMSpropSDE, "Adam": nk.AdamSDE}
FUSED = ("SGD", "SignSGD")
SUBSTEPS, SHORT, LONG = 8, 10, 60


def measure_integrate(settings: Settings, path: Path) -> None:
    """Path·coordinate·substeps per second of a diagonal quadratic with Gaussian noise, float32.

    The time of ``SHORT`` steps is taken from that of ``LONG``, so that only the loop counts. The limit is
    that of a substep which did nothing but read and write x once at the speed of a copy.
    """
    bandwidth = copy_bandwidth(settings)
    limit = bandwidth / 8
    found = []
    shapes = [(8, 64)] if settings.smoke else [(1000, 65_536), (10_000, 4096), (100_000, 256)]
    for coordinates, paths in shapes:
        problem = nk.Quadratic(torch.linspace(0.5, 1.5, coordinates, device=settings.device))
        for name, equation in EQUATIONS.items():
            sde = equation(problem.gradient, nk.GaussianNoise(scale=0.1), 1e-3)
            for fused in (False, True) if name in FUSED else (False,):
                if settings.late:
                    break
                rate = speed(settings, sde, coordinates, paths, fused=fused)
                found.append(
                    {"optimizer": name, "fused": fused, "coordinates": coordinates, "paths": paths}
                    | {"per_second": rate, "of_copy_limit": rate / limit}
                )
    write_json(path, settings.facts() | {"copy_bytes_per_second": bandwidth, "integrate": found})


def speed(settings: Settings, sde: Any, coordinates: int, paths: int, *, fused: bool) -> float:
    """Return path·coordinate·substeps per second of the loop."""
    x0 = torch.ones(coordinates, device=settings.device)

    def run(steps: int) -> Callable[[], Any]:
        options: dict[str, Any] = {"save_every": steps, "keep_state": False, "quantiles": (), "fused": fused}
        return lambda: nk.integrate(
            sde, x0, steps=steps, substeps=SUBSTEPS, replicates=paths, seed=settings.seed, **options
        )

    seconds = settings.seconds(run(LONG), 3) - settings.seconds(run(SHORT), 3)
    return (LONG - SHORT) * SUBSTEPS * coordinates * paths / max(seconds, 1e-9)


def copy_bandwidth(settings: Settings) -> float:
    """Return bytes read and written per second by a copy within the device."""
    source = torch.zeros(2**16 if settings.smoke else 2**28, device=settings.device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / settings.seconds(lambda: target.copy_(source))


def measure_recorder(settings: Settings, path: Path) -> None:
    """Time and memory of a recorded training step of a GPT beside a plain one, bf16, batch 64.

    "everything" records squared norms, variances, coordinates, sketch and the Gram matrix of every step.
    """
    sizes = ["smoke"] if settings.smoke else ["10m", "100m"]
    found = [recorder_costs(settings, size) for size in sizes if not settings.late]
    write_json(path, settings.facts() | {"recorder": found})


def recorder_costs(settings: Settings, size: str) -> dict[str, Any]:
    """Return seconds and peak bytes of a plain and a recorded step."""
    shape, run = GPT_SIZES[size]
    data = shakespeare(context=shape.context, n_samples=run.batch_size)
    x, y = data.inputs.to(settings.device), data.targets.to(settings.device)
    model = seeded(settings.seed, lambda: gpt(shape, data.n_classes)).to(settings.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(settings.device.type, dtype=torch.bfloat16):
            outputs = model(x)
        next_token_loss(outputs.float(), y).backward()
        optimizer.step()

    plain, plain_bytes = cost(settings, step)
    costs: dict[str, Any] = {}
    for name, options in {
        "everything": {},
        "without the Gram matrix": {"gram": False},
        "norms alone": {"gram": False, "coordinates": 0, "sketch": 0, "moments": False},
    }.items():
        # A fresh recorder a measurement, so that the rows of the one before hold no memory.
        with nk.GradientNoiseRecorder(
            model, next_token_loss, optimizer, schedule=nk.every(1), **options
        ) as recorder:
            seconds, memory = cost(settings, step)
            assert len(recorder.result().step) > 1
        costs[name] = {"seconds": seconds, "ratio": seconds / plain, "bytes": memory}
        if memory:
            costs[name]["memory_ratio"] = memory / plain_bytes
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "batch": run.batch_size, "plain_seconds": plain} | {
        "plain_bytes": plain_bytes,
        "recorded": costs,
    }


def cost(settings: Settings, step: Callable[[], None]) -> tuple[float, int]:
    """Return the seconds of a step, and the most memory in use on the device during steps."""
    step()
    if settings.on_gpu:
        torch.cuda.reset_peak_memory_stats(settings.device)
    seconds = settings.seconds(step)
    return seconds, torch.cuda.max_memory_allocated(settings.device) if settings.on_gpu else 0
