"""The fused kernels in Triton's interpreter, against ``integrate`` in float64. Prints "equal" or raises.

Run as: TRITON_INTERPRET=1 triton_worker.py, where Triton is installed.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor

import noisekit as nk
from noisekit.sde import EulerMaruyama, fused, philox
from noisekit.sde.brownian import bridge_matrix
from noisekit.sde.fused import FusedSteps
from noisekit.sde.philox import PhiloxNormals

D, ROWS, FIRST_ROW, FIRST, LAST, SEED, ETA, DECAY = 37, 41, 100, 3, 9, 5, 0.1, 0.3
CURVATURE, SCALE = torch.linspace(0.3, 2.0, D), torch.linspace(0.1, 0.5, D)
SCHEDULES = (None, lambda step: 1 / (1 + step))


def expected(name: str, start: Tensor, substeps: int, schedule: object) -> Tensor:
    """The same steps of SGD or SignSGD with the same normals, substep by substep."""
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


def check_sgd_and_signsgd(start: Tensor) -> None:
    """Against a loop of their own, with weight decay; an element that is not finite is counted."""
    problem, noise = nk.Quadratic(CURVATURE), nk.GaussianNoise(scale=SCALE)
    for name, kind in (("sgd", nk.SGDSDE), ("signsgd", nk.SignSGDSDE)):
        for schedule in SCHEDULES:
            for substeps in (1, 2, 4, 8):
                sde = kind(problem.gradient, noise, ETA, weight_decay=DECAY, schedule=schedule)
                steps = FusedSteps.of_equation(sde, EulerMaruyama(), start, substeps, SEED)
                assert steps is not None
                x = start.clone()
                finite = steps.advance({"x": x}, FIRST_ROW, FIRST, LAST)
                assert bool((finite == LAST - FIRST).all())
                gap = float((x - expected(name, start, substeps, schedule)).abs().max())
                # √(1 − E²) has few digits left in float32 where E is near 1.
                assert gap < (5e-6 if name == "sgd" else 2e-4), (name, substeps, gap)
    bad = start.clone()
    bad[3, 4] = torch.inf
    finite = steps.advance({"x": bad}, FIRST_ROW, FIRST, LAST)
    assert finite.tolist() == [0 if row == 3 else LAST - FIRST for row in range(ROWS)]


def check_averages(kind: Any, start: Tensor, substeps: int, *, given: bool, **options: Any) -> None:
    """RMSprop or Adam against ``integrate`` with float64, the same normals and the same start of m and v."""
    x0 = torch.cat([torch.ones(FIRST_ROW, D), start]).double()
    held = {"m": 0.2 * x0, "v": 0.1 + x0.square()} if given else {}

    def equation(dtype: torch.dtype) -> Any:
        problem = nk.Quadratic(CURVATURE.to(dtype))
        noise = nk.GaussianNoise(scale=SCALE.to(dtype))
        return kind(problem.gradient, noise, ETA, eps=1e-2, weight_decay=DECAY, **options)

    reference = nk.integrate(
        equation(torch.float64),
        x0,
        steps=LAST - FIRST,
        substeps=substeps,
        replicates=len(x0),
        start_step=FIRST,
        init_state=held,
        seed=SEED,
        save_every=LAST - FIRST,
        fused=True,
    )
    sde = equation(torch.float32)
    lead = 0.0 if given else sde.lead(substeps)
    steps = FusedSteps.of_equation(sde, EulerMaruyama(), start, substeps, SEED, lead)
    assert steps is not None
    state = {name: value[FIRST_ROW:].float() for name, value in reference.state_at(FIRST).items()}
    # In two calls, as between saved steps.
    finite = sum(steps.advance(state, FIRST_ROW, *part) for part in ((FIRST, FIRST + 2), (FIRST + 2, LAST)))
    assert bool((finite == LAST - FIRST).all())
    for name, value in reference.state_at(LAST).items():
        gap = float((state[name] - value[FIRST_ROW:]).abs().max() / value.abs().max())
        assert gap < 1e-5, (kind, options, substeps, name, gap)


def check_integrate() -> None:
    """The whole of ``integrate`` with kernels and without, where it takes them for those of a GPU."""
    problem, noise = nk.Quadratic(CURVATURE), nk.GaussianNoise(scale=SCALE)
    settings: dict[str, Any] = {"steps": 3, "substeps": 2, "replicates": 1000, "save_every": 2, "seed": SEED}
    equations = {
        "one kernel": nk.AdamSDE(problem.gradient, noise, ETA, eps=1e-2, schedule=SCHEDULES[1]),
        "normals alone": nk.SGDSDE(problem.gradient, noise, ETA, momentum=0.5),
    }
    for name, sde in equations.items():
        plain, kernels = (with_kernels(on, sde, settings) for on in (False, True))
        for key, value in plain.state.items():
            gap = float((kernels.state[key] - value).abs().max())
            assert 0 < gap < 2e-5, (name, key, gap)


def with_kernels(on: bool, sde: Any, settings: dict[str, Any]) -> nk.Solution:
    """The solution where ``has_kernels`` is true or false of every tensor."""
    known = fused.has_kernels, philox.has_kernels
    fused.has_kernels = philox.has_kernels = lambda x: on
    try:
        return nk.integrate(sde, torch.ones(D), fused=True, **settings)
    finally:
        fused.has_kernels, philox.has_kernels = known


def main() -> None:
    torch.manual_seed(0)
    check_normals()
    check_integrate()
    start = torch.randn(ROWS, D)
    check_sgd_and_signsgd(start)
    # Averages so short that all terms of V and M count within these steps.
    kinds = ((nk.RMSpropSDE, {"beta": 0.9}), (nk.AdamSDE, {"betas": (0.8, 0.9)}))
    for (kind, averages), variant in product(kinds, ("consistent", "published", "malladi")):
        for number, substeps in enumerate((1, 2, 4, 8)):
            options = averages | {"variant": variant, "decay": ("decoupled", "l2")[number % 2]}
            options["schedule"] = SCHEDULES[number in (1, 2)]
            check_averages(kind, start, substeps, given=number >= 2, **options)
    print("equal")


if __name__ == "__main__":
    main()
