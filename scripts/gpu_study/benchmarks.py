"""How fast the SDEs and the recorder are beside what the device can do at most."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from settings import Findings, Settings, asked_of_driver
from torch.profiler import ProfilerActivity, profile
from training import GPT_SIZES, gpt, seeded

import noisekit as nk
from noisekit.gradients import column_blocks
from noisekit.problems.datasets import shakespeare
from noisekit.problems.gpt import next_token_loss

EQUATIONS = {"SGD": nk.SGDSDE, "SignSGD": nk.SignSGDSDE, "RMSprop": nk.RMSpropSDE, "Adam": nk.AdamSDE}
SUBSTEPS, SHORT, LONG = 8, 10, 60
INSTRUCTIONS = {"SGD": 48.4, "SignSGD": 80.8, "RMSprop": 74.6, "Adam": 79.7}
"""Of the loop of the fused kernel, a path·coordinate·substep, as Triton 3.6 compiles it for sm_90."""


def measure_integrate(settings: Settings, path: Path) -> None:
    """Path·coordinate·substeps per second of a diagonal quadratic with Gaussian noise, float32.

    The time of ``SHORT`` steps is taken from that of ``LONG``, so that only the loop counts. One limit is
    that of a substep which did nothing but read and write x once at the speed of a copy; the other, for the
    kernel, that every lane of the GPU does one of its instructions a cycle of the fastest clock.
    """
    found = Findings(settings, path, "integrate")
    found.add({"optimizer": "copy"}, lambda: {"bytes_per_second": copy_bandwidth(settings)})
    limit = next((row["bytes_per_second"] for row in found.rows if "bytes_per_second" in row), math.nan) / 8
    found.add({"alone": "parts of a substep of SGD"}, lambda: parts_alone(settings))
    shapes = [(8, 64)] if settings.smoke else [(1000, 65_536), (10_000, 4096), (100_000, 256)]
    for coordinates, paths in shapes:
        for name, equation in EQUATIONS.items():
            for fused in (True, False):

                def find(
                    name: str = name,
                    equation: Any = equation,
                    fused: bool = fused,
                    coordinates: int = coordinates,
                    paths: int = paths,
                ) -> dict[str, Any]:
                    sde = quadratic_sde(settings, equation, coordinates)
                    rate = speed(settings, sde, coordinates, paths, fused=fused)
                    row = {"per_second": rate, "of_copy_limit": rate / limit}
                    most = lane_cycles(settings) / INSTRUCTIONS[name]
                    return row | ({"of_instruction_limit": rate / most} if fused and most else {})

                what = {"optimizer": name, "fused": fused, "coordinates": coordinates, "paths": paths}
                found.add(what, find)
    for size in (256, 1024) if triton_normals() else ():
        for name, equation in EQUATIONS.items():
            found.add(
                {"alone": f"{name}, {size} elements a program"},
                lambda size=size, equation=equation: {
                    "per_second": speed_of_programs(settings, equation, size, *shapes[0])
                },
            )
    found.end()


def triton_normals() -> Any:
    """Return the module of the kernels' random numbers, which says how many elements a program takes."""
    return import_module("noisekit.sde.triton_normals") if find_spec("triton") else None


def speed_of_programs(settings: Settings, equation: Any, size: int, coordinates: int, paths: int) -> float:
    """Return ``speed`` of the fused kernel where each program takes ``size`` elements."""
    kernels = triton_normals()
    usual, kernels.BLOCK = kernels.BLOCK, size
    try:
        return speed(settings, quadratic_sde(settings, equation, coordinates), coordinates, paths, fused=True)
    finally:
        kernels.BLOCK = usual


def quadratic_sde(settings: Settings, equation: Any, coordinates: int) -> Any:
    """Return ``equation`` on a diagonal quadratic with Gaussian noise."""
    problem = nk.Quadratic(torch.linspace(0.5, 1.5, coordinates, device=settings.device))
    return equation(problem.gradient, nk.GaussianNoise(scale=0.1), 1e-3)


def parts_alone(settings: Settings) -> dict[str, Any]:
    """Return path·coordinate·substeps per second of what a substep of SGD without the kernel consists of."""
    coordinates = 64 if settings.smoke else 1024
    rows = 8 if settings.smoke else 2**15
    x = torch.ones(rows, coordinates, device=settings.device)
    row, raw = torch.full_like(x[0], 0.999), torch.zeros(SUBSTEPS, *x.shape, device=settings.device)
    bridge, bridged = torch.eye(SUBSTEPS, device=settings.device), torch.zeros_like(raw).flatten(1)
    parts = {
        "normals": (SUBSTEPS, lambda: raw.normal_()),
        "bridge": (SUBSTEPS, lambda: torch.mm(bridge, raw.flatten(1), out=bridged)),
        "update": (1, lambda: torch.addcmul(raw[0], x, row, out=x)),
    }
    return {
        f"{name}_per_second": count * x.numel() / settings.seconds(run)
        for name, (count, run) in parts.items()
    }


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


def lane_cycles(settings: Settings) -> float:
    """Return the lanes of the GPU times its fastest clock, 1/s; 0 where nothing tells them."""
    told = asked_of_driver("clocks.max.sm").get("clocks.max.sm", "") if settings.on_gpu else ""
    if not told.isdigit():
        return 0.0
    return torch.cuda.get_device_properties(settings.device).multi_processor_count * 128 * 1e6 * int(told)


def measure_recorder(settings: Settings, path: Path) -> None:
    """Time and memory of a recorded training step of a GPT beside a plain one, bf16, batch 64.

    "everything" records squared norms, variances, coordinates, sketch and the Gram matrix of every step.
    """
    found = Findings(settings, path, "recorder")
    for size in ("smoke",) if settings.smoke else ("100m", "10m"):
        found.add({"model": size}, lambda size=size: recorder_costs(settings, size))
    for size in ("smoke",) if settings.smoke else ("100m",):
        found.add({"alone": f"kernels of {size}"}, lambda size=size: kernels_of_a_step(settings, size))
        for mib in (8, 128):
            found.add(
                {"alone": f"{size} in blocks of {mib} MiB"},
                lambda size=size, mib=mib: costs_in_blocks(settings, size, 2**20 * mib),
            )
    found.end()


def training_step(settings: Settings, size: str) -> tuple[Any, Any, Callable[[], None]]:
    """Return a GPT, its optimizer, and a step of its training on one batch."""
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

    return model, optimizer, step


def recorder_costs(settings: Settings, size: str) -> dict[str, Any]:
    """Return seconds and peak bytes of a plain and a recorded step."""
    model, optimizer, step = training_step(settings, size)
    plain, plain_bytes = cost(settings, step)
    costs: dict[str, Any] = {}
    for name, options in {
        "everything": {},
        "without the Gram matrix": {"gram": False},
        "without moments": {"moments": False},
        "norms alone": {"gram": False, "coordinates": 0, "sketch": 0, "moments": False},
    }.items():
        # A fresh recorder a measurement, so that the rows of the one before hold no memory.
        with recorder_of_all(model, optimizer, **options) as recorder:
            seconds, memory = cost(settings, step)
            assert len(recorder.result().step) > 1
        costs[name] = {"seconds": seconds, "ratio": seconds / plain, "bytes": memory}
        if memory:
            costs[name]["memory_ratio"] = memory / plain_bytes
    parameters = sum(p.numel() for p in model.parameters())
    return {"parameters": parameters, "batch": GPT_SIZES[size][1].batch_size, "plain_seconds": plain} | {
        "plain_bytes": plain_bytes,
        "recorded": costs,
    }


def recorder_of_all(model: Any, optimizer: Any, **options: Any) -> nk.GradientNoiseRecorder:
    """Return a recorder of every step."""
    return nk.GradientNoiseRecorder(model, next_token_loss, optimizer, schedule=nk.every(1), **options)


def costs_in_blocks(settings: Settings, size: str, block: int) -> dict[str, Any]:
    """Return the seconds of a recorded step where layers are measured ``block`` bytes at a time."""
    usual, column_blocks.BLOCK_BYTES = column_blocks.BLOCK_BYTES, block
    try:
        model, optimizer, step = training_step(settings, size)
        with recorder_of_all(model, optimizer):
            return {"seconds": settings.seconds(step)}
    finally:
        column_blocks.BLOCK_BYTES = usual


def kernels_of_a_step(settings: Settings, size: str, most: int = 25) -> dict[str, Any]:
    """Return on what the device spends a plain and a recorded step, in milliseconds by kernel."""
    model, optimizer, step = training_step(settings, size)
    found: dict[str, Any] = {"plain": profiled(settings, step, most)}
    with recorder_of_all(model, optimizer):
        step()
        found["recorded"] = profiled(settings, step, most)
    return found


def profiled(settings: Settings, step: Callable[[], None], most: int) -> dict[str, Any]:
    """Return the kernels that take most of a step, with how often they ran and their milliseconds."""
    kind = ProfilerActivity.CUDA if settings.on_gpu else ProfilerActivity.CPU
    step()
    settings.synchronize()
    with profile(activities=[kind]) as watched:
        step()
        settings.synchronize()
    by = "self_device_time_total" if settings.on_gpu else "self_cpu_time_total"
    events = sorted(watched.key_averages(), key=lambda event: -getattr(event, by))
    total = sum(getattr(event, by) for event in events) / 1000
    kernels = [[e.key[:90], e.count, round(getattr(e, by) / 1000, 3)] for e in events[:most]]
    return {"milliseconds": round(total, 3), "launched": sum(e.count for e in events), "kernels": kernels}


def cost(settings: Settings, step: Callable[[], None]) -> tuple[float, int]:
    """Return the seconds of a step, and the most memory in use on the device during steps."""
    step()
    if settings.on_gpu:
        torch.cuda.reset_peak_memory_stats(settings.device)
    seconds = settings.seconds(step)
    return seconds, torch.cuda.max_memory_allocated(settings.device) if settings.on_gpu else 0
