"""Weight decay at high noise: decoupled decay bounds the loss floor, an L2 term does not."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
import xarray as xr

from noisekit.theory import loss_bound, stationary_law
from noisekit.truth.insights.estimates import Array, plus_minus
from noisekit.truth.insights.floors import floors_at_rest
from noisekit.truth.insights.labelled import Finding, Progress, insight_dataset, report, variable
from noisekit.truth.insights.losses import ShiftedQuadratic, random_spd, side_by_side
from noisekit.truth.insights.sizes import Preset, sizes_of

OPTIMIZERS = ("rmspropw", "adamw", "rmsprop", "adam")
DECOUPLED = ("rmspropw", "adamw")
CENTRES = ("minimum at 0", "minimum away from 0")
CLAIM = "Decoupled weight decay keeps the loss floor bounded as the noise grows; an L2 term does not."


@dataclass(frozen=True)
class Sizes:
    """Eigenvalues of H from .7 to 1.4, so that the bounds are nearly sharp."""

    dimension: int = 6
    replicates: int = 32
    levels: tuple[float, ...] = (0.3, 1.0, 3.0, 10.0, 30.0)
    learning_rate: float = 0.02
    weight_decay: float = 0.5
    offset: float = 0.5
    settle: int = 2500
    keep: int = 2500


SIZES = {
    "quick": Sizes(),
    "full": Sizes(
        replicates=64,
        levels=tuple(np.geomspace(0.3, 60.0, 8).tolist()),
        learning_rate=0.01,
        settle=9000,
        keep=21000,
    ),
}


def decoupled_decay(*, preset: Preset | Sizes, seed: int = 0, progress: Progress = None) -> xr.Dataset:
    """Measure the stationary excess loss of RMSprop and Adam with either kind of decay over two decades of σ.

    H has random axes, the noise unit variances and correlations with other axes. Decay pulls to 0, so the
    published bounds speak of a minimum at 0; the same is measured with a minimum elsewhere, where the floor
    also holds what the decay costs, which nears f(0) − f* as the noise outgrows the gradient.

    Returns:
        ``floor`` with ``floor_error`` and ``stationary_law`` over (centre, optimizer, level), ``bound`` over
        (optimizer, level) for the minimum at 0, ``growth`` with ``growth_error``: d log floor/d log σ between
        the two highest levels, over (centre, optimizer).

    Source: Compagnoni et al. 2025, arXiv 2411.15958.
    """
    sizes = sizes_of(preset, SIZES)
    hessian = random_spd(sizes.dimension, 0.7, 1.4, seed=seed)
    covariance = random_spd(sizes.dimension, 0.5, 2.0, seed=seed + 1)
    unit = covariance.diagonal().rsqrt()
    covariance = covariance * unit[:, None] * unit
    problem, factor, centres = _blocks(hessian, covariance, sizes)
    shape = (len(CENTRES), len(OPTIMIZERS), len(sizes.levels))
    floor, error, law = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    bound = np.zeros(shape[1:])
    for row, name in enumerate(OPTIMIZERS):
        found = floors_at_rest(
            name,
            problem,
            hessian,
            factor,
            sizes,
            seed=seed,
            minimum=problem.minimum,
            weight_decay=sizes.weight_decay,
        )
        floor[:, row], error[:, row] = (each.reshape(len(CENTRES), -1) for each in found)
        bound[row] = [_bound(name, hessian, sigma, sizes) for sigma in sizes.levels]
        for i, centre in enumerate(centres):
            law[i, row] = [
                stationary_law(
                    name,
                    hessian,
                    covariance * sigma**2,
                    sizes.learning_rate,
                    weight_decay=sizes.weight_decay,
                    minimum=centre,
                ).excess_loss
                for sigma in sizes.levels
            ]
        report(progress, (row + 1) / len(OPTIMIZERS))
    return _dataset(floor, error, law, bound, sizes, seed)


def _blocks(
    hessian: torch.Tensor, covariance: torch.Tensor, sizes: Sizes
) -> tuple[ShiftedQuadratic, torch.Tensor, list[torch.Tensor]]:
    """Return every level of the noise with every place of the minimum, side by side."""
    levels = torch.tensor(sizes.levels * len(CENTRES), dtype=torch.float64)
    factor = side_by_side(torch.linalg.cholesky(covariance), levels).float()
    centres = [torch.full((len(hessian),), at, dtype=torch.float64) for at in (0.0, sizes.offset)]
    minimum = torch.cat([centre.repeat(len(sizes.levels)) for centre in centres])
    blocks = torch.block_diag(*[hessian] * len(levels))
    return ShiftedQuadratic(blocks.float(), minimum.float()), factor, centres


def _bound(name: str, hessian: torch.Tensor, sigma: float, sizes: Sizes) -> float:
    eigenvalues = torch.linalg.eigvalsh(hessian)
    bound = loss_bound(
        name,
        10**9,
        learning_rate=sizes.learning_rate,
        initial_excess=0.0,
        strong_convexity=float(eigenvalues[0]),
        smoothness=float(eigenvalues[-1]),
        hessian_trace=float(eigenvalues.sum()),
        noise_std=sigma,
        weight_decay=sizes.weight_decay,
    )
    return float(bound)


def _dataset(floor: Array, error: Array, law: Array, bound: Array, sizes: Sizes, seed: int) -> xr.Dataset:
    octave = np.log(sizes.levels[-1] / sizes.levels[-2])
    growth = np.log(floor[..., -1] / floor[..., -2]) / octave
    relative = error / floor
    growth_error = np.hypot(relative[..., -1], relative[..., -2]) / octave
    axes = ("centre", "optimizer", "level")
    variables = {
        "floor": variable(axes, floor, "stationary excess loss of real runs", "loss"),
        "floor_error": variable(axes, error, "standard error of the floor", "loss"),
        "stationary_law": variable(axes, law, "floor of the stationary law", "loss"),
        "bound": variable(axes[1:], bound, "published bound of the floor, minimum at 0", "loss"),
        "growth": variable(axes[:2], growth, "slope of log floor on log σ at the highest noise"),
        "growth_error": variable(axes[:2], growth_error, "standard error of the slope"),
    }
    coordinates = {
        "centre": list(CENTRES),
        "optimizer": list(OPTIMIZERS),
        "level": variable("level", sizes.levels, "noise level σ", "gradient"),
    }
    excess = floor[0] / bound
    worst = int(excess.argmax())
    return insight_dataset(
        "decoupled_decay",
        CLAIM,
        variables,
        coordinates,
        verdict=_verdict(floor, error, law, growth, growth_error, bound, sizes),
        finding=_finding(
            growth, growth_error, float(excess.flat[worst]), float((error[0] / bound).flat[worst])
        ),
        settings=asdict(sizes) | {"seed": seed},
    )


def _finding(growth: Array, error: Array, excess: float, excess_error: float) -> Finding:
    """Held where growth is below ¼ with decoupled decay, above ¾ with L2, each beyond twice an error of at
    most .15, and no floor is above its bound."""
    decoupled = np.array([name in DECOUPLED for name in OPTIMIZERS])
    flat = bool((growth[0, decoupled] < 0.25 + 2 * error[0, decoupled]).all())
    grows = bool((growth[0, ~decoupled] > 0.75 - 2 * error[0, ~decoupled]).all())
    if flat and grows and bool((error[0] <= 0.15).all()):
        return "held" if excess <= 1.01 + 2 * excess_error else "held in part"
    return "held in part" if flat else "failed"


def _verdict(
    floor: Array, error: Array, law: Array, growth: Array, growth_error: Array, bound: Array, sizes: Sizes
) -> str:
    def slopes(centre: int) -> str:
        pairs = zip(OPTIMIZERS, growth[centre], growth_error[centre], strict=True)
        return ", ".join(f"{name} {plus_minus(g, e)}" for name, g, e in pairs)

    share = floor[0] / bound
    row, column = np.unravel_index(share.argmax(), share.shape)
    ratio = floor / law
    worse = floor[1, OPTIMIZERS.index("rmspropw")] / floor[1, OPTIMIZERS.index("rmsprop")]
    k = int(worse.argmax())
    return (
        f"Growth d log floor/d log σ from σ = {sizes.levels[-2]:.3g} to {sizes.levels[-1]:.3g}, minimum at "
        f"0: {slopes(0)} (W: decoupled, others L2); largest floor over its published bound "
        f"{plus_minus(share[row, column], error[0, row, column] / bound[row, column])} "
        f"({OPTIMIZERS[int(row)]}, σ = {sizes.levels[int(column)]:.3g}); floor over the discrete stationary "
        f"law {ratio[0].min():.3f} to {ratio[0].max():.3f}. With the minimum at {sizes.offset:g} in each "
        f"coordinate the decay itself costs: growth {slopes(1)}; the floor of RMSpropW reaches "
        f"{floor[1, 0, -1]:.3g}, nearly all of it bias; at σ = {sizes.levels[k]:.3g} it is "
        f"{worse[k]:.2f} times that of RMSprop with L2."
    )
