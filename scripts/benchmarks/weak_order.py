"""Measure the weak order of every SDE and write the table that docs/theory.md shows.

    python scripts/benchmarks/weak_order.py                    # about three minutes on one core
    python scripts/benchmarks/weak_order.py --only sgd adam    # rows whose name contains one of the words

Each row compares an SDE with torch's optimizer on f(x) = ½xᵀHx + ¼Σx⁴ in two dimensions with correlated
Gaussian noise, at five learning rates with ρ = (1 − β)/η and the horizon T = 1 fixed. Both sides are driven
by one Brownian path, so the Monte-Carlo error is that of paired differences. "warm" rows start
at step ½/η with m = ∇f and v = (∇f)² + diag Σ, the same for every η; the others start from zero state.
With momentum μ = 1 − 3√η a step of SGD takes the time √η, so the rates and the slope of these rows are of √η.
Order 1 asks for a slope of 1 ± .15, order 2 for 2 ± .3.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

import noisekit as nk
from noisekit.validation import WeakOrder, fit_order, simulate_coupled, weak_order

REPLICATES = 20_000
RATES = [0.1, 0.05, 0.025, 0.0125, 0.00625]
SUBSTEPS = 8
HORIZON = 1.0
WARM_UP = 0.5
OUTPUT = Path(__file__).with_suffix(".md")


class Quartic:
    """f(x) = ½ xᵀHx + ¼ Σ x⁴."""

    name = "quartic"
    hessian = torch.tensor([[1.0, 0.4], [0.4, 2.0]], dtype=torch.float64)
    x0 = torch.tensor([1.5, -1.2], dtype=torch.float64)

    def loss(self, x: torch.Tensor) -> torch.Tensor:
        return ((x @ self.hessian) * x).sum(-1) / 2 + x.pow(4).sum(-1) / 4

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.hessian + x.pow(3)


CORRELATED = nk.GaussianNoise(factor=torch.tensor([[1.0, 0.0], [0.5, 0.7]], dtype=torch.float64))
INDEPENDENT = nk.GaussianNoise(scale=torch.tensor([1.0, 0.8], dtype=torch.float64))
PROBLEM = Quartic()


@dataclass(frozen=True)
class Case:
    """One row: its SDE and optimizer as functions of η, the order it claims, and where it starts.

    A step takes the time η^``power``.
    """

    name: str
    sde: Callable[[float], nk.sde.OptimizerSDE]
    optimizer: Callable[[float], Callable[[list], torch.optim.Optimizer]]
    order: int = 1
    warm: bool = False
    power: float = 1.0
    noise: nk.NoiseModel = field(default=CORRELATED)


def adam_betas(rate: float) -> tuple[float, float]:
    return 1 - 4 * rate, 1 - rate


def cases() -> list[Case]:
    f, noise = PROBLEM.gradient, CORRELATED
    rows = [
        Case("SGD", lambda r: nk.SGDSDE(f, noise, r), lambda r: lambda p: torch.optim.SGD(p, lr=r)),
        Case(
            "SGD, order 2",
            lambda r: nk.SGDSDE(f, noise, r, order=2),
            lambda r: lambda p: torch.optim.SGD(p, lr=r),
            order=2,
        ),
        Case(
            "SignSGD, independent noise",
            lambda r: nk.SignSGDSDE(f, INDEPENDENT, r),
            lambda r: lambda p: nk.SignSGD(p, lr=r),
            noise=INDEPENDENT,
        ),
        Case(
            "SignSGD, correlated noise",
            lambda r: nk.SignSGDSDE(f, noise, r),
            lambda r: lambda p: nk.SignSGD(p, lr=r),
        ),
        *(
            Case(
                f"SGD, μ = 1 − 3√η, over √η{', order 2' if order == 2 else ''}",
                lambda r, order=order: nk.SGDSDE(f, noise, r, momentum=1 - 3 * r**0.5, order=order),
                lambda r: lambda p: torch.optim.SGD(p, lr=r, momentum=1 - 3 * r**0.5),
                order=order,
                power=0.5,
            )
            for order in (1, 2)
        ),
    ]
    for warm in (False, True):
        rows += [
            Case(
                "RMSprop",
                lambda r: nk.RMSpropSDE(f, noise, r, beta=1 - r),
                lambda r: lambda p: torch.optim.RMSprop(p, lr=r, alpha=1 - r),
                warm=warm,
            ),
            Case(
                "RMSpropW, θ = 1",
                lambda r: nk.RMSpropSDE(f, noise, r, beta=1 - r, weight_decay=1.0),
                lambda r: lambda p: nk.RMSpropW(p, lr=r, alpha=1 - r, weight_decay=1.0),
                warm=warm,
            ),
            Case(
                "AdamW, θ = 1",
                lambda r: nk.AdamSDE(f, noise, r, betas=adam_betas(r), weight_decay=1.0),
                lambda r: lambda p: torch.optim.AdamW(p, lr=r, betas=adam_betas(r), weight_decay=1.0),
                warm=warm,
            ),
        ]
        for variant in ("consistent", "published", "malladi"):
            rows.append(
                Case(
                    f"Adam, {variant}",
                    lambda r, variant=variant: nk.AdamSDE(f, noise, r, betas=adam_betas(r), variant=variant),
                    lambda r: lambda p: torch.optim.Adam(p, lr=r, betas=adam_betas(r)),
                    warm=warm,
                )
            )
    return [
        *rows,
        Case(
            "RMSprop, order 2",
            lambda r: nk.RMSpropSDE(f, noise, r, beta=1 - r, order=2),
            lambda r: lambda p: torch.optim.RMSprop(p, lr=r, alpha=1 - r),
            order=2,
            warm=True,
        ),
        Case(
            "Adam, order 2",
            lambda r: nk.AdamSDE(f, noise, r, betas=adam_betas(r), order=2),
            lambda r: lambda p: torch.optim.Adam(p, lr=r, betas=adam_betas(r)),
            order=2,
            warm=True,
        ),
    ]


def measure(
    case: Case,
    rates: list[float],
    *,
    replicates: int,
    substeps: int = SUBSTEPS,
    seed: int = 0,
    saves: int = 10,
) -> WeakOrder:
    """Return the weak order of one case in the loss, sup over ``saves`` instants of the horizon.

    ``rates`` are the times of a step.
    """
    observables = {"loss": PROBLEM.loss}
    gradient = PROBLEM.gradient(PROBLEM.x0[None])[0]
    second = gradient.square() + case.noise.variance(PROBLEM.x0[None])[0]
    warm_state = {"m": gradient, "v": second} if "Adam" in case.name else {"v": second}
    state = warm_state if case.warm else None

    def steps(rate: float) -> int:
        return round(HORIZON / rate**case.power)

    def start_step(rate: float) -> int:
        return round(WARM_UP / rate) if case.warm else 0

    def optimizer_runs(rate: float) -> nk.Solution:
        return simulate_coupled(
            PROBLEM,
            case.optimizer(rate),
            PROBLEM.x0,
            case.noise,
            steps=steps(rate),
            replicates=replicates,
            save_every=steps(rate) // saves,
            observables=observables,
            keep_state=False,
            start_step=start_step(rate),
            init_state=state,
            seed=seed,
        )

    def paths(rate: float) -> nk.Solution:
        return nk.integrate(
            case.sde(rate),
            PROBLEM.x0,
            steps=steps(rate),
            substeps=substeps,
            replicates=replicates,
            save_every=steps(rate) // saves,
            observables=observables,
            keep_state=False,
            seed=seed,
            start_step=start_step(rate),
            init_state=state,
        )

    found = weak_order(
        paths, optimizer_runs, [r ** (1 / case.power) for r in rates], observable="loss", paired=True
    )
    if case.power == 1:
        return found
    return fit_order(found.learning_rate**case.power, found.gap, found.gap_error, observable="loss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="measure rows whose name contains one of these")
    parser.add_argument("--replicates", type=int, default=REPLICATES)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        "| SDE | start | claims | slope | gap at η = "
        + " / ".join(f"{r:g}" for r in RATES)
        + " | error of the last |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for case in cases():
        if options.only and not any(word.lower() in case.name.lower() for word in options.only):
            continue
        began = time.perf_counter()
        found = measure(case, RATES, replicates=options.replicates)
        gaps = " / ".join(f"{g:.2g}" for g in found.gap)
        start = "warm" if case.warm else "zero state"
        if case.name.startswith(("SGD", "Sign")):
            start = "x₀"
        lines.append(
            f"| {case.name} | {start} | {case.order} | {found.slope:.2f} ± {found.slope_error:.2f} "
            f"| {gaps} | {found.gap_error[-1]:.1g} |"
        )
        print(lines[-1], f"  {time.perf_counter() - began:.0f} s", flush=True)
    if not options.only:
        options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
