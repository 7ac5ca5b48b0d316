"""What holds on every device: same seed, same numbers; no waiting for the device inside a loop."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from settings import Findings, Settings
from training import GPT_SIZES, GPTSize, gpt, seeded

import noisekit as nk
from noisekit.gradients import hooks
from noisekit.problems.datasets import shakespeare
from noisekit.problems.gpt import next_token_loss
from noisekit.sde.philox import has_kernels

D = 50
NOISE = nk.GaussianNoise(scale=0.1)
ADAM = {"betas": (0.9, 0.99)}


def check_promises(settings: Settings, path: Path) -> None:
    """Run every check and write what was found; raise where a promise does not hold."""
    found = Findings(settings, path, "checks")
    for name, check in CHECKS.items():
        found.add({"check": name}, lambda check=check: check(settings))
    broken = [row["check"] for row in found.rows if not row.get("holds", True)]
    if broken:
        raise AssertionError(f"does not hold on {settings.device}: {', '.join(broken)}")
    found.end()


def equations(settings: Settings) -> dict[str, Any]:
    problem = nk.Quadratic(torch.linspace(0.5, 1.5, D, device=settings.device))
    gaussian, heavy = NOISE, nk.StudentTNoise(scale=0.1, df=4.0)
    return {
        "SGD": nk.SGDSDE(problem.gradient, gaussian, 0.01),
        "SignSGD": nk.SignSGDSDE(problem.gradient, heavy, 0.01),
        "RMSprop": nk.RMSpropSDE(problem.gradient, gaussian, 0.01),
        "Adam": nk.AdamSDE(problem.gradient, gaussian, 0.01, **ADAM),
    }


def integrated(
    settings: Settings, sde: Any, steps: int, replicates: int = 300, *, fused: bool = False
) -> nk.Solution:
    options: dict[str, Any] = {"substeps": 4, "seed": settings.seed, "save_every": steps, "fused": fused}
    x0 = torch.ones(D, device=settings.device)
    return nk.integrate(sde, x0, steps=steps, replicates=replicates, **options)


def simulated(settings: Settings, steps: int, replicates: int = 300) -> nk.Solution:
    return nk.simulate_optimizer(
        nk.Quadratic(torch.linspace(0.5, 1.5, D, device=settings.device)),
        lambda p: torch.optim.AdamW(p, lr=0.01),
        torch.ones(D, device=settings.device),
        steps=steps,
        replicates=replicates,
        noise=NOISE,
        save_every=steps,
        seed=settings.seed,
    )


def watched(settings: Settings, steps: int) -> nk.GradientNoiseRecorder:
    """Train a small GPT in bf16 and record every step."""
    shape, run = GPT_SIZES["smoke"]
    data = shakespeare(context=shape.context, n_samples=run.batch_size)
    x, y = data.inputs.to(settings.device), data.targets.to(settings.device)
    model = seeded(settings.seed, lambda: gpt(shape, data.n_classes)).to(settings.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    recorder = nk.GradientNoiseRecorder(model, next_token_loss, optimizer, schedule=nk.every(1))
    with recorder:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(settings.device.type, dtype=torch.bfloat16):
                outputs = model(x)
            next_token_loss(outputs.float(), y).backward()
            optimizer.step()
    return recorder


def same_numbers_again(settings: Settings) -> dict[str, Any]:
    """Two runs of one seed agree bit for bit."""
    pairs = {
        name: (lambda sde=sde: integrated(settings, sde, 20).state["x"])
        for name, sde in equations(settings).items()
    }
    pairs["real AdamW"] = lambda: simulated(settings, 20).state["x"]
    gaps = {name: float((run() - run()).abs().max()) for name, run in pairs.items()}
    return {"holds": all(gap == 0 for gap in gaps.values()), "largest_gap": gaps}


def same_numbers_of_fewer(settings: Settings) -> dict[str, Any]:
    """The first replicates of many are those of few."""
    gaps = {}
    for name, sde in equations(settings).items():
        many, few = (integrated(settings, sde, 20, n).state["x"][:7] for n in (300, 7))
        gaps[name] = float((many - few).abs().max() / few.abs().max())
    many, few = (simulated(settings, 20, n).state["x"][:7] for n in (300, 7))
    gaps["real AdamW"] = float((many - few).abs().max() / few.abs().max())
    return {"holds": all(gap <= 1e-6 for gap in gaps.values()), "relative_gap": gaps}


def fused_kernel(settings: Settings) -> dict[str, Any]:
    """The kernel takes the steps that the CPU takes with the same normals; paths that leave are counted."""
    gaps = {}
    hessian = torch.linspace(0.5, 1.5, D)
    kinds: dict[str, Callable[[Any], Any]] = {
        "SGD": lambda gradient: nk.SGDSDE(gradient, NOISE, 0.01),
        "SignSGD": lambda gradient: nk.SignSGDSDE(gradient, NOISE, 0.01),
        "RMSpropW": lambda gradient: nk.RMSpropSDE(gradient, NOISE, 0.01, 0.9, weight_decay=0.1),
    }
    for variant in ("consistent", "published", "malladi"):
        kinds[f"AdamW, {variant}"] = lambda gradient, variant=variant: nk.AdamSDE(
            gradient, NOISE, 0.01, (0.8, 0.9), weight_decay=0.1, variant=variant
        )
    for name, equation in kinds.items():
        for substeps in (1, 2, 4, 8, 16):  # the last without the kernel, by the same normals
            found = []
            for device in (torch.device("cpu"), settings.device):
                sde = equation(nk.Quadratic(hessian.to(device)).gradient)
                options: dict[str, Any] = {"steps": 20, "substeps": substeps, "save_every": 10}
                x0 = torch.ones(D, device=device)
                solution = nk.integrate(sde, x0, replicates=300, seed=1, fused=True, **options)
                found.append(solution.state["x"].cpu())
            gaps[f"{name}, {substeps} substeps"] = float((found[0] - found[1]).abs().max())
    far = torch.ones(300, D, device=settings.device)
    far[7, 3] = 3e38
    steep = nk.Quadratic(torch.full((D,), 20.0, device=settings.device))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the instability that is wanted here
        sde = nk.SGDSDE(steep.gradient, NOISE, 0.2)
    left = nk.integrate(sde, far, steps=2, substeps=1, replicates=300, fused=True).diverged >= 0
    counted = left.nonzero().flatten().tolist() == [7]
    close = all(gap < 1e-4 for gap in gaps.values())
    kernels = has_kernels(far) or not settings.on_gpu
    return {"holds": counted and close and kernels, "gaps": gaps, "counted": counted, "kernels": kernels}


def statistics_in_float32(settings: Settings) -> dict[str, Any]:
    """Records of bf16 training hold float32, finite, and the same again."""
    first, second = watched(settings, 3).result(), watched(settings, 3).result()
    assert first.gram is not None
    assert second.gram is not None
    kinds = sorted({str(t.dtype) for t in (first.squared_norm, first.trace, first.gram)})
    gap = float((first.gram - second.gram).abs().max() / first.gram.abs().max())
    finite = bool(first.gram.isfinite().all() and first.trace.isfinite().all())
    return {"holds": kinds == ["torch.float32"] and finite and gap <= 1e-2, "kinds": kinds, "gap": gap}


def half_precision_in_blocks(settings: Settings) -> dict[str, Any]:
    """What a device makes of products in half precision is what it makes of the same numbers in float32."""
    data = shakespeare(context=64, n_samples=16)
    x, y = data.inputs.to(settings.device), data.targets.to(settings.device)
    model = seeded(settings.seed, lambda: gpt(GPTSize(2, 2, 128, 64, 16), data.n_classes)).to(settings.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    usual, gaps = hooks.multiplies_halves, {}

    def record(dtype: torch.dtype) -> nk.GradientRecord:
        recorder = nk.GradientNoiseRecorder(model, next_token_loss, optimizer, schedule=nk.every(1))
        with recorder:
            optimizer.zero_grad()
            with torch.autocast(settings.device.type, dtype=dtype):
                outputs = model(x)
            next_token_loss(outputs.float(), y).backward()
            optimizer.step()
        return recorder.result()

    for dtype in (torch.bfloat16, torch.float16):
        found = record(dtype)
        try:
            hooks.multiplies_halves = lambda _: False
            plain = record(dtype)
        finally:
            hooks.multiplies_halves = usual
        for name in ("gram", "trace", "sketch", "coordinate_values"):
            one, other = getattr(found, name), getattr(plain, name)
            gaps[f"{name}, {dtype}"] = float((one - other).abs().max() / other.abs().max())
    return {"holds": all(gap < 1e-2 for gap in gaps.values()), "relative_gap": gaps}


def no_waiting_in_loops(settings: Settings) -> dict[str, Any]:
    """As many waits for the device in 4 steps as in 24: none belongs to a step."""
    loops: dict[str, Callable[[int], Any]] = {
        name: (lambda steps, sde=sde: integrated(settings, sde, steps))
        for name, sde in equations(settings).items()
    }
    adam = equations(settings)["Adam"]
    loops["Adam, fused"] = lambda steps: integrated(settings, adam, steps, fused=True)
    loops["real AdamW"] = lambda steps: simulated(settings, steps)
    loops["recorder"] = lambda steps: watched(settings, steps)
    counts = {name: [waits(settings, run, steps) for steps in (4, 24)] for name, run in loops.items()}
    return {"holds": all(few == many for few, many in counts.values()), "waits_in_4_and_24": counts}


def ranks_over_nccl(settings: Settings) -> dict[str, Any]:
    """In a group of one process over NCCL, tensors of the host and of the GPU arrive as they were sent."""
    given = ("cuda", "nccl") if settings.on_gpu else ("cpu", "gloo")
    command = [sys.executable, str(Path(__file__).with_name("over_nccl.py")), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    if done.returncode:
        return {"holds": False, "said": done.stderr[-1500:]}
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return {"holds": all(found.values()), "arrives": found}


def waits(settings: Settings, run: Callable[[int], Any], steps: int) -> int:
    """Return how often ``run(steps)`` waited for the device."""
    run(steps)  # what is examined or compiled once, is not counted
    if not settings.on_gpu:
        return 0
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run(steps)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(each.message) for each in caught)


CHECKS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "the same numbers again": same_numbers_again,
    "the same numbers of fewer replicates": same_numbers_of_fewer,
    "the fused kernel takes the steps of the CPU": fused_kernel,
    "float32 statistics of bf16 training": statistics_in_float32,
    "half precision is multiplied as float32": half_precision_in_blocks,
    "no waiting in loops": no_waiting_in_loops,
    "what processes tell each other over NCCL": ranks_over_nccl,
}
