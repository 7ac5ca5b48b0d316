"""The loss floor against the noise: quadratic for SGD, linear for SignSGD, RMSprop and Adam."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import xarray as xr

from noisekit.optimizers import simulate_optimizer
from noisekit.optimizers.named import build_optimizer
from noisekit.problems import Quadratic, load_problem
from noisekit.problems.linear_regression import LinearRegression
from noisekit.theory import noise_floor, stationary_law
from noisekit.truth.insights.estimates import Array, mean_and_error, plus_minus, power_law
from noisekit.truth.insights.floors import floors_at_rest
from noisekit.truth.insights.labelled import Finding, Progress, insight_dataset, report, variable
from noisekit.truth.insights.losses import block_losses, random_spd, side_by_side
from noisekit.truth.insights.sizes import Preset, sizes_of

OPTIMIZERS = ("sgd", "signsgd", "rmsprop", "adam")
POWER = {"sgd": 2.0, "signsgd": 1.0, "rmsprop": 1.0, "adam": 1.0}
PROBLEMS = ("quadratic", "linear-regression")
CLAIM = "The loss floor is quadratic in the noise level for SGD and linear for SignSGD, RMSprop and Adam."


@dataclass(frozen=True)
class Sizes:
    """Runs and steps; noise levels are batch sizes for the regression."""

    dimension: int = 8
    replicates: int = 40
    levels: tuple[float, ...] = tuple(np.geomspace(0.15, 6.0, 6).tolist())
    learning_rate: float = 0.02
    settle: int = 1000
    keep: int = 1000
    batch_sizes: tuple[int, ...] = (2, 8, 32, 128, 512)
    batch_replicates: int = 16
    batch_learning_rate: float = 0.01
    sign_learning_rate: float = 0.002
    batch_keep: float = 6.0
    """Relaxation times over which the regression is averaged, after six to settle."""


SIZES = {
    "quick": Sizes(),
    "full": Sizes(
        replicates=96,
        levels=tuple(np.geomspace(0.1, 6.0, 8).tolist()),
        learning_rate=0.01,
        settle=5000,
        keep=10000,
        batch_sizes=(2, 8, 32, 128, 512, 2048),
        batch_replicates=32,
        batch_keep=25.0,
    ),
}


def noise_floors(*, preset: Preset | Sizes, seed: int = 0, progress: Progress = None) -> xr.Dataset:
    """Measure the stationary excess loss of real optimizers over more than a decade and a half of noise.

    On a quadratic with Gaussian noise, H and Σ random and not commuting; and on least squares with real
    minibatches, where the noise level is B^{-1/2} and the noise neither Gaussian nor constant. Both start at
    the minimum and are averaged once the slowest direction has settled, so all directions have. Beside each
    floor stand the first-order closed form, which needs diag Σ alone, and the exact stationary law of the
    discrete optimizer.

    Returns:
        ``floor`` with ``floor_error``, ``noise_floor`` and ``stationary_law`` over (problem, optimizer,
        level), and the fitted ``slope`` with ``slope_error`` over (problem, optimizer).

    Source: Compagnoni et al. 2025, arXiv 2411.15958; the closed form is derived.
    """
    sizes = sizes_of(preset, SIZES)
    n = max(len(sizes.levels), len(sizes.batch_sizes))
    shape = (len(PROBLEMS), len(OPTIMIZERS), n)
    names = ("floor", "floor_error", "noise_floor", "stationary_law")
    values = {name: np.full(shape, np.nan) for name in names}
    level = np.full((len(PROBLEMS), n), np.nan)
    for row, name in enumerate(OPTIMIZERS):
        for problem, measure in enumerate((_on_quadratic, _on_regression)):
            level_here, *found = measure(name, sizes, seed)
            level[problem, : len(level_here)] = level_here
            for key, column in zip(names, found, strict=True):
                values[key][problem, row, : len(level_here)] = column
            report(progress, (row + (1 + problem) / 2) / len(OPTIMIZERS))
    return _dataset(level, values, sizes, seed)


def _on_quadratic(name: str, sizes: Sizes, seed: int) -> tuple[Array, Array, Array, Array, Array]:
    hessian = random_spd(sizes.dimension, 0.5, 2.0, seed=seed)
    covariance = random_spd(sizes.dimension, 0.25, 4.0, seed=seed + 1)
    covariance = covariance / covariance.diagonal().mean()
    levels = torch.tensor(sizes.levels, dtype=torch.float64)
    factor = side_by_side(torch.linalg.cholesky(covariance), levels).float()
    problem = Quadratic(torch.block_diag(*[hessian] * len(levels)).float())
    floor, error = floors_at_rest(name, problem, hessian, factor, sizes, seed=seed)
    scaled = [covariance * a**2 for a in levels]
    return (
        np.array(sizes.levels),
        floor,
        error,
        np.array([noise_floor(name, s.diagonal(), sizes.learning_rate) for s in scaled]),
        np.array([stationary_law(name, hessian, s, sizes.learning_rate).excess_loss for s in scaled]),
    )


def _on_regression(name: str, sizes: Sizes, seed: int) -> tuple[Array, Array, Array, Array, Array]:
    problem = load_problem("linear-regression", seed=seed, dimension=sizes.dimension, noise=1.0)
    assert isinstance(problem, LinearRegression)
    minimum = torch.linalg.lstsq(problem.design.double(), problem.response.double()).solution
    samples = problem.per_sample_gradients(minimum[None].float())[0].double()
    covariance = samples.T @ samples / len(samples)
    hessian, eta = problem.hessian.double(), _rate(name, sizes)
    sigma, slowest = covariance.diagonal().mean().sqrt(), torch.linalg.eigvalsh(hessian)[0]
    floors, closed, exact = [], [], []
    for batch in sizes.batch_sizes:
        pull = slowest if name == "sgd" else slowest / (sigma / batch**0.5)
        relaxation = 1 / (2 * eta * float(pull))
        keep = max(300, round(sizes.batch_keep * relaxation))
        settle = max(100, round(6 * relaxation))
        solution = simulate_optimizer(
            problem,
            build_optimizer(name, eta),
            minimum.float(),
            steps=settle + keep,
            replicates=sizes.batch_replicates,
            batch_size=batch,
            save_every=max(1, keep // 150),
            seed=seed,
        )
        off = solution.state["x"][:, solution.step > settle] - minimum
        floors.append(mean_and_error(block_losses(off, hessian)[..., 0].mean(1)))
        closed.append(noise_floor(name, covariance.diagonal() / batch, eta))
        exact.append(stationary_law(name, hessian, covariance / batch, eta).excess_loss)
    level = np.array(sizes.batch_sizes, dtype=float) ** -0.5
    return level, *np.array(floors).T, np.array(closed), np.array(exact)


def _rate(name: str, sizes: Sizes) -> float:
    return sizes.batch_learning_rate if name == "sgd" else sizes.sign_learning_rate


def _dataset(level: Array, values: dict[str, Array], sizes: Sizes, seed: int) -> xr.Dataset:
    slope = np.array(
        [
            [
                power_law(at[known], floor[known], error[known] / floor[known])
                for floor, error in zip(values["floor"][p], values["floor_error"][p], strict=True)
            ]
            for p, (at, known) in enumerate(zip(level, np.isfinite(level), strict=True))
        ]
    )
    expected = np.array([POWER[name] for name in OPTIMIZERS])
    axes = ("problem", "optimizer", "level")
    variables = {
        "floor": variable(axes, values["floor"], "stationary excess loss of real runs", "loss"),
        "floor_error": variable(axes, values["floor_error"], "standard error of the floor", "loss"),
        "noise_floor": variable(axes, values["noise_floor"], "floor to first order in η", "loss"),
        "stationary_law": variable(axes, values["stationary_law"], "floor of the stationary law", "loss"),
        "noise_level": variable(("problem", "level"), level, "noise level σ"),
        "slope": variable(axes[:2], slope[..., 0], "slope of log floor on log σ"),
        "slope_error": variable(axes[:2], slope[..., 1], "standard error of the slope"),
        "expected_slope": variable("optimizer", expected, "slope in theory"),
    }
    coordinates = {"problem": list(PROBLEMS), "optimizer": list(OPTIMIZERS)}
    return insight_dataset(
        "noise_floors",
        CLAIM,
        variables,
        coordinates,
        verdict=_verdict(slope, values, sizes),
        finding=_finding(slope, expected),
        settings=asdict(sizes) | {"seed": seed},
    )


def _finding(slope: Array, expected: Array) -> Finding:
    """Held where every slope is within .05 of theory beyond twice its error, and no error above .1 hides a
    slope of another power; in part within .25."""
    off = np.abs(slope[..., 0] - expected)
    if (off <= 0.05 + 2 * slope[..., 1]).all() and (slope[..., 1] <= 0.1).all():
        return "held"
    return "held in part" if (off <= 0.25).all() else "failed"


def _verdict(slope: Array, values: dict[str, Array], sizes: Sizes) -> str:
    def slopes(problem: int) -> str:
        return ", ".join(f"{name} {plus_minus(*slope[problem, row])}" for row, name in enumerate(OPTIMIZERS))

    ratio = values["floor"] / values["noise_floor"]
    low, high = np.nanmin(ratio, axis=(1, 2)), np.nanmax(ratio, axis=(1, 2))
    row, column = np.unravel_index(np.nanargmax(ratio[1]), ratio[1].shape)
    return (
        f"Slope of log floor on log σ, quadratic: {slopes(0)} (floor over closed form {low[0]:.2f} to "
        f"{high[0]:.2f}); real minibatches of least squares: {slopes(1)} (floor over closed form "
        f"{low[1]:.2f} to {high[1]:.2f}, the largest for {OPTIMIZERS[int(row)]} at a batch of "
        f"{sizes.batch_sizes[int(column)]})."
    )
