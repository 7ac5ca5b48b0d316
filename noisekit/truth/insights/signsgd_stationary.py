"""The stationary covariance of SignSGD under Gaussian and heavy-tailed noise."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
import xarray as xr

from noisekit.noise import GaussianNoise, NoiseModel, StudentTNoise
from noisekit.optimizers import SignSGD, simulate_optimizer
from noisekit.problems import Quadratic
from noisekit.theory import stationary_law
from noisekit.truth.insights.estimates import Array, mean_and_error, plus_minus
from noisekit.truth.insights.labelled import Finding, Progress, insight_dataset, report, variable
from noisekit.truth.insights.losses import random_spd
from noisekit.truth.insights.sizes import Preset, sizes_of

LAWS = ("gaussian", "gaussian, correlated", "t5", "t3", "t2", "t1")
SOURCES: tuple[Literal["published", "sde", "discrete"], ...] = ("published", "sde", "discrete")
CLAIM = (
    "SignSGD settles in the stationary law of its SDE for every tail of the noise, even without a variance."
)


@dataclass(frozen=True)
class Sizes:
    """Noise scales run from ½ to 2 over the coordinates."""

    dimension: int = 8
    replicates: int = 96
    learning_rate: float = 0.02
    settle: int = 800
    keep: int = 1600


SIZES = {"quick": Sizes(), "full": Sizes(replicates=192, learning_rate=0.01, settle=1600, keep=13000)}


def signsgd_stationary(*, preset: Preset | Sizes, seed: int = 0, progress: Progress = None) -> xr.Dataset:
    """Measure Cov x∞ of real SignSGD on a quadratic with random axes, and compare three closed forms.

    The noise is Gaussian (coordinates independent, or correlated with axes that are not those of H) or
    Student-t with ν = 5, 3, 2, 1, scales from ½ to 2. The forms are the published one, that of the linearised
    SDE, and that of the linearised discrete update.

    Returns:
        ``variance`` with ``variance_error`` of x in the eigenvectors of H and ``predicted_variance`` over
        (law, component) and source; ``ratio`` with ``ratio_error``, measured over predicted ½ Tr(H Cov);
        ``distance`` with ``distance_floor``, ‖Cov − predicted‖/‖Cov‖ in the Frobenius norm and the part of it
        that is Monte-Carlo error.

    Source: Compagnoni et al. 2025, arXiv 2411.15958, Lemma 3.7; Student-t derived.
    """
    sizes = sizes_of(preset, SIZES)
    hessian = random_spd(sizes.dimension, 0.5, 2.0, seed=seed)
    axes = torch.linalg.eigh(hessian).eigenvectors
    problem = Quadratic(hessian.float())
    found: dict[str, list[Array]] = {}
    for row, law in enumerate(LAWS):
        noise = _noise(law, sizes.dimension, seed)
        solution = simulate_optimizer(
            problem,
            lambda params: SignSGD(params, lr=sizes.learning_rate),
            torch.zeros(sizes.dimension),
            steps=sizes.settle + sizes.keep,
            replicates=sizes.replicates,
            noise=noise,
            save_every=20,
            seed=seed,
        )
        late = solution.state["x"][:, solution.step > sizes.settle].double()
        per_run = torch.einsum("rti,rtj->rij", late, late) / late.shape[1]
        for name, value in _compare(per_run, hessian, axes, noise, sizes.learning_rate).items():
            found.setdefault(name, []).append(value)
        report(progress, (row + 1) / len(LAWS))
    return _dataset({name: np.array(value) for name, value in found.items()}, sizes, seed)


def _noise(law: str, dimension: int, seed: int) -> NoiseModel:
    scale = torch.logspace(0, 1, dimension, base=4.0) / 2
    if law.startswith("t"):
        return StudentTNoise(scale=scale, df=float(law[1:]))
    if law == "gaussian":
        return GaussianNoise(scale=scale)
    return GaussianNoise(
        factor=torch.linalg.cholesky(random_spd(dimension, 0.25, 4.0, seed=seed + 1)).float()
    )


def _compare(
    per_run: torch.Tensor, hessian: torch.Tensor, axes: torch.Tensor, noise: NoiseModel, rate: float
) -> dict[str, Array]:
    """Return the measured covariance in the eigenvectors of H beside every source of the law."""
    cost = torch.einsum("rij,ij->r", per_run, hessian) / 2
    along = torch.einsum("ik,rij,jk->rk", axes, per_run, axes)
    covariance = per_run.mean(0)
    half = len(per_run) // 2
    # The two halves differ by twice the Monte-Carlo error of their mean.
    error = (per_run[:half].mean(0) - per_run[half : 2 * half].mean(0)).norm() / 2
    predicted, ratio, distance = [], [], []
    for source in SOURCES:
        law = torch.from_numpy(stationary_law("signsgd", hessian, noise, rate, source=source).covariance)
        predicted.append(torch.einsum("ik,ij,jk->k", axes, law, axes).numpy())
        ratio.append(mean_and_error(cost / ((hessian * law).sum() / 2)))
        distance.append(float((covariance - law).norm() / covariance.norm()))
    return {
        "variance": along.mean(0).numpy(),
        "variance_error": (along.std(0) / len(along) ** 0.5).numpy(),
        "predicted_variance": np.array(predicted),
        "ratio": np.array(ratio)[:, 0],
        "ratio_error": np.array(ratio)[:, 1],
        "distance": np.array(distance),
        "distance_floor": np.array(float(error / covariance.norm())),
    }


def _dataset(found: dict[str, Array], sizes: Sizes, seed: int) -> xr.Dataset:
    pair, full = ("law", "source"), ("law", "source", "component")
    known = {
        "variance": (("law", "component"), "variance of x along an eigenvector of H", "parameter²"),
        "variance_error": (("law", "component"), "standard error of the variance", "parameter²"),
        "predicted_variance": (full, "predicted variance of x", "parameter²"),
        "ratio": (pair, "measured over predicted ½ Tr(H Cov)", "1"),
        "ratio_error": (pair, "standard error of the ratio", "1"),
        "distance": (pair, "relative Frobenius distance of the covariances", "1"),
        "distance_floor": ("law", "part of the distance that is Monte-Carlo error", "1"),
    }
    variables = {name: variable(axes, found[name], text, unit) for name, (axes, text, unit) in known.items()}
    return insight_dataset(
        "signsgd_stationary",
        CLAIM,
        variables,
        {"law": list(LAWS), "source": list(SOURCES)},
        verdict=_verdict(found),
        finding=_finding(found),
        settings=asdict(sizes) | {"seed": seed},
    )


def _finding(found: dict[str, Array]) -> Finding:
    """Held where under every noise the SDE's ½ Tr(H Cov) is within 3 % beyond twice the error, and its
    covariance within 5 % beyond twice the Monte-Carlo part of the distance, which errors above 5 % and 15 %
    would not show."""
    sde = SOURCES.index("sde")
    cost = np.abs(found["ratio"] - 1)[:, sde] <= 0.03 + 2 * found["ratio_error"][:, sde]
    shape = found["distance"][:, sde] <= 0.05 + 2 * found["distance_floor"]
    seen = (found["ratio_error"][:, sde] <= 0.05) & (found["distance_floor"] <= 0.15)
    good = cost & shape & seen
    return "held" if good.all() else "held in part" if good.mean() >= 0.5 else "failed"


def _verdict(found: dict[str, Array]) -> str:
    ratio, error = found["ratio"], found["ratio_error"]

    def row(source: str) -> str:
        column = SOURCES.index(source)
        terms = (f"{law} {plus_minus(ratio[k, column], error[k, column])}" for k, law in enumerate(LAWS))
        return ", ".join(terms)

    share = found["distance"]
    worst = [f"{share[:, k].max():.3f} ({source})" for k, source in enumerate(SOURCES)]
    return (
        f"½ Tr(H Cov) of real SignSGD over that of the SDE's law: {row('sde')}; over the published form: "
        f"{row('published')}; largest Frobenius distance of the covariances {', '.join(worst)}, of which up "
        f"to {found['distance_floor'].max():.3f} is Monte-Carlo error."
    )
