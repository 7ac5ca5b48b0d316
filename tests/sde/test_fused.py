"""``integrate(fused=True)``: its normals on any device, and for which equations the kernel is."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy import stats

import noisekit as nk
from noisekit.sde import EulerMaruyama, StochasticHeun
from noisekit.sde.fused import FusedSteps

ETA, SIGMA, CURVATURE = 0.1, 0.5, torch.tensor([0.5, 1.0, 2.0, 4.0])
PROBLEM, NOISE = nk.Quadratic(CURVATURE), nk.GaussianNoise(scale=SIGMA)


def run(kind: Any = nk.SGDSDE, x0: torch.Tensor | None = None, **options: Any) -> nk.Solution:
    settings: dict[str, Any] = {"steps": 6, "substeps": 4, "replicates": 300, "seed": 2, "fused": True}
    start = torch.ones(4) if x0 is None else x0
    return nk.integrate(kind(PROBLEM.gradient, NOISE, ETA), start, **(settings | options))


def test_variance_of_the_euler_scheme() -> None:
    solution = run(steps=40, save_every=40, replicates=4000)
    shrink = (1 - CURVATURE * ETA / 4) ** 2
    expected = (ETA * SIGMA) ** 2 / 4 * (1 - shrink ** (40 * 4)) / (1 - shrink)
    ratio = solution.state["x"][:, -1].double().var(0) / expected
    # A sample variance of 4000 normals is within 5 of its own deviations, √(2/3999).
    assert bool(((ratio - 1).abs() < 5 * (2 / 3999) ** 0.5).all())
    z = solution.state["x"][:, -1] - (1 - CURVATURE * ETA / 4) ** 160
    assert stats.kstest((z / expected.sqrt()).flatten(), "norm").pvalue > 1e-3
    assert solution.settings["random_numbers"] == "philox"


@pytest.mark.parametrize("kind", [nk.SGDSDE, nk.SignSGDSDE, nk.RMSpropSDE, nk.AdamSDE])
def test_replicates_do_not_know_of_each_other(kind: Any) -> None:
    many = run(kind).state["x"]
    assert torch.equal(run(kind, replicates=7).state["x"], many[:7])
    assert not torch.equal(run(kind, fused=False).state["x"], many)


def test_other_substeps_share_the_path() -> None:
    finest = run(substeps=64).state["x"][:, -1]
    errors = [(run(substeps=n).state["x"][:, -1] - finest).abs().mean() for n in (2, 4, 8)]
    spread = float(finest.std(0).mean())
    assert float(errors[0]) < 0.25 * spread  # other paths differ by 1.1
    for coarse, fine in pairwise(errors):
        assert 1.7 < float(coarse / fine) < 2.6  # strong order 1, the noise does not depend on the state


def test_a_run_goes_on_where_it_stopped() -> None:
    half = run(steps=3)
    rest = run(steps=3, start_step=3, x0=half.state_at(3)["x"])
    assert torch.equal(rest.state["x"][:, -1], run().state["x"][:, -1])


def setting(sde: nk.sde.OptimizerSDE, **options: Any) -> FusedSteps | None:
    given = {"solver": EulerMaruyama(), "x": torch.ones(3, 4), "substeps": 4, "seed": 0} | options
    return FusedSteps.of_equation(sde, **given)


def test_equations_that_the_kernel_is_for() -> None:
    sgd = nk.SGDSDE(PROBLEM.gradient, NOISE, ETA)
    for kind in (nk.SGDSDE, nk.SignSGDSDE, nk.RMSpropSDE, nk.AdamSDE):
        found = setting(kind(PROBLEM.gradient, NOISE, ETA, weight_decay=0.25))
        assert found is not None
        assert torch.equal(found.curvature, CURVATURE)
        assert found.decay == 0.25
    l2 = setting(nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, weight_decay=0.25, decay="l2"))
    assert l2 is not None
    assert torch.equal(l2.curvature, CURVATURE + 0.25)
    assert l2.decay == 0.0
    dense = nk.Quadratic(torch.diag(CURVATURE))
    low_rank, heavy = nk.GaussianNoise(factor=torch.ones(4, 1)), nk.StudentTNoise(scale=0.1, df=5.0)
    others = [
        nk.SGDSDE(PROBLEM.gradient, NOISE, ETA, momentum=0.9),
        nk.SGDSDE(PROBLEM.gradient, NOISE, ETA, order=2),
        nk.SGDSDE(lambda x: x, NOISE, ETA),
        nk.SGDSDE(dense.gradient, NOISE, ETA),
        nk.SGDSDE(PROBLEM.gradient, low_rank, ETA),
        nk.SignSGDSDE(PROBLEM.gradient, heavy, ETA),
        nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, order=2),
        nk.RMSpropSDE(dense.gradient, NOISE, ETA),
    ]
    assert [setting(sde) for sde in others] == [None] * len(others)
    assert setting(sgd, solver=StochasticHeun()) is None
    assert setting(sgd, substeps=16) is None
    assert setting(sgd, x=torch.ones(3, 4, dtype=torch.float64)) is None
    assert FusedSteps.of(sgd, EulerMaruyama(), torch.ones(3, 4), 4, 0) is None  # on the CPU


def test_bias_corrections_and_schedule_of_each_substep() -> None:
    x, eps, betas = torch.ones(3, 4), 0.5, (0.8, 0.9)
    schedule = lambda step: 1 / (1 + step)  # noqa: E731
    for variant, ahead in (("consistent", 0.25 + 0.125), ("published", 1.0), ("malladi", 1.0)):
        sde = nk.AdamSDE(PROBLEM.gradient, NOISE, ETA, betas, eps, variant=variant, schedule=schedule)
        found = setting(sde, lead=0.125)
        assert found is not None
        table = found.table(3, 5, x)
        assert table is not None
        position = 3 + torch.arange(8, dtype=torch.float64) / 4
        root = (1 - betas[1] ** (position + ahead)).sqrt()
        ratio = root / (1 - betas[0] ** (position + 1))
        factor = 1 / (1 + position.floor())
        assert torch.allclose(table.double(), torch.stack([factor, ratio, eps * root], 1), atol=1e-7)
    constant = setting(nk.RMSpropSDE(PROBLEM.gradient, NOISE, ETA))
    assert constant is not None
    assert constant.table(0, 9, x) is None
    scheduled = setting(nk.RMSpropSDE(PROBLEM.gradient, NOISE, ETA, eps=eps, schedule=schedule))
    assert scheduled is not None
    rows = scheduled.table(1, 3, x)
    assert rows is not None
    assert torch.allclose(rows[::4], torch.tensor([[1 / 2, 1, eps], [1 / 3, 1, eps]]))


@pytest.mark.parametrize("given", [False, True])
def test_integrate_hands_the_state_to_the_kernel(given: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, ...]] = []

    class Kernel:
        """Adds the number of steps to x, and finds the last replicate lost after the first one."""

        def advance(self, state: Any, first_replicate: int, first: int, last: int) -> torch.Tensor:
            assert set(state) == {"x", "m", "v"}
            calls.append((first_replicate, first, last))
            state["x"] += last - first
            return torch.where(torch.arange(len(state["x"])) < 4, last - first, int(first == 10))

    def of(sde: Any, solver: Any, x: torch.Tensor, substeps: int, seed: int, lead: float) -> Kernel:
        assert lead == (0.0 if given else sde.lead(substeps))
        return Kernel()

    monkeypatch.setattr(FusedSteps, "of", of)
    held = {"m": torch.zeros(4), "v": torch.ones(4)} if given else None
    solution = run(nk.AdamSDE, replicates=5, save_every=4, start_step=10, init_state=held)
    assert calls == [(0, 10, 14), (0, 14, 16)]
    assert solution.state["x"][0, :, 0].tolist() == [1.0, 5.0, 7.0]
    assert solution.diverged.tolist() == [-1, -1, -1, -1, 12]


def numbers(package: str) -> tuple[int, int]:
    major, minor = version(package).split(".")[:2]
    return int(major), int(minor)


# An optional package of 280 MB, for Linux only; its interpreter before 3.9 stops at what numpy 2.4 forbids.
if find_spec("triton") is not None:
    INTERPRETS = numbers("triton") >= (3, 9) or numbers("numpy") < (2, 4)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("script", "says"), [*[("worker", "equal")] * INTERPRETS, ("compile", "compiled")]
    )
    def test_kernels_in_the_interpreter_and_compiled(script: str, says: str) -> None:
        path = Path(__file__).with_name(f"triton_{script}.py")
        environment = os.environ | {"TRITON_INTERPRET": "1" if script == "worker" else "0"}
        done = subprocess.run(
            [sys.executable, str(path)], env=environment, capture_output=True, text=True, check=False
        )
        assert done.stdout.strip() == says, done.stderr
