"""The fused kernels in Triton's interpreter, against a loop in float64. Prints "equal" or raises.

Run as: TRITON_INTERPRET=1 triton_worker.py, where Triton is installed.
"""

from __future__ import annotations

import torch
from torch import Tensor

import noisekit as nk
from noisekit.sde import EulerMaruyama
from noisekit.sde.brownian import bridge_matrix
from noisekit.sde.fused import FusedSteps
from noisekit.sde.philox import PhiloxNormals

D, ROWS, FIRST_ROW, FIRST, LAST, SEED, ETA, DECAY = 37, 41, 100, 3, 9, 5, 0.1, 0.3
CURVATURE, SCALE = torch.linspace(0.3, 2.0, D), torch.linspace(0.1, 0.5, D)
SCHEDULES = (None, lambda step: 1 / (1 + step))


def expected(name: str, start: Tensor, substeps: int, schedule: object) -> Tensor:
    """The same steps with the same normals, substep by substep."""
    x, h, s = start.double(), CURVATURE.double(), SCALE.double()
    source = PhiloxNormals(FIRST_ROW, ROWS, D, substeps, x)
    dt, noise_step = ETA / substeps, ETA / substeps**0.5
    for step in range(FIRST, LAST):
        u = schedule(step) if callable(schedule) else 1.0
        increments = torch.einsum("sk,krd->srd", bridge_matrix(substeps), source.draw(SEED, step))
        for w in increments:
            if name == "sgd":
                x = x - u * dt * (h + DECAY) * x - u * noise_step * s * w
            else:
                mean = torch.erf(h * x / (2**0.5 * s))
                deviation = (1 - mean**2).clamp(min=0).sqrt()
                x = x - u * dt * (mean + DECAY * x) - u * noise_step * deviation * w
    return x


def check_normals() -> None:
    """The kernel that writes normals against the same numbers by torch."""
    for substeps in (1, 2, 4, 8, 32):
        source = PhiloxNormals(FIRST_ROW, ROWS, D, substeps, torch.empty(0))
        out = torch.empty(source.shape)
        source.draw_by_kernel(out, SEED, FIRST)
        assert float((out - source.draw(SEED, FIRST)).abs().max()) < 2e-6, substeps


def main() -> None:
    torch.manual_seed(0)
    check_normals()
    start = torch.randn(ROWS, D)
    problem, noise = nk.Quadratic(CURVATURE), nk.GaussianNoise(scale=SCALE)
    for name, kind in (("sgd", nk.SGDSDE), ("signsgd", nk.SignSGDSDE)):
        for schedule in SCHEDULES:
            for substeps in (1, 2, 4, 8):
                sde = kind(problem.gradient, noise, ETA, weight_decay=DECAY, schedule=schedule)
                steps = FusedSteps.of_equation(sde, EulerMaruyama(), start, substeps, SEED)
                assert steps is not None
                x = start.clone()
                finite = steps.advance(x, FIRST_ROW, FIRST, LAST)
                assert bool((finite == LAST - FIRST).all())
                gap = float((x - expected(name, start, substeps, schedule)).abs().max())
                # √(1 − E²) has few digits left in float32 where E is near 1.
                assert gap < (5e-6 if name == "sgd" else 2e-4), (name, substeps, gap)
    bad = start.clone()
    bad[3, 4] = torch.inf
    finite = steps.advance(bad, FIRST_ROW, FIRST, LAST)
    assert finite.tolist() == [0 if row == 3 else LAST - FIRST for row in range(ROWS)]
    print("equal")


if __name__ == "__main__":
    main()
