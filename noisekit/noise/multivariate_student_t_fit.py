"""Multivariate Student-t by parameter-expanded EM: one radius makes all coordinates large together."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable, interval_95
from noisekit.errors import InputError
from noisekit.noise.base import check_batch_size
from noisekit.noise.fisher_scoring import KAPPA_BOUND, KAPPA_LARGEST
from noisekit.noise.samples import as_samples, constant_coordinates
from noisekit.noise.student_t import StudentTNoise


@dataclass(frozen=True, repr=False)
class MultivariateStudentTFit(Readable):
    """A multivariate Student-t with location μ, scatter Ψ and ν degrees of freedom; float64."""

    location: Tensor
    """μ, (coordinate,)."""
    scatter: Tensor
    """Ψ, (coordinate, coordinate); the covariance is Ψ ν/(ν − 2)."""
    df: float
    """Degrees of freedom; inf where the likelihood is largest at the Gaussian."""
    df_interval: tuple[float, float]
    """95 % interval, made in κ = 1/ν."""
    log_likelihood: float
    gaussian_log_likelihood: float
    iterations: int
    n_samples: int
    batch_size: int | None = None

    @property
    def model(self) -> StudentTNoise:
        """The noise model: mean zero with Ψ = s² + FFᵀ, s² half its least eigenvalue."""
        square = 0.5 * torch.linalg.eigvalsh(self.scatter)[0]
        identity = torch.eye(len(self.scatter), dtype=self.scatter.dtype, device=self.scatter.device)
        factor = torch.linalg.cholesky(self.scatter - square * identity)
        scale = square.sqrt().expand(len(factor))
        return StudentTNoise(scale=scale, df=self.df, factor=factor, batch_size=self.batch_size)

    def __str__(self) -> str:
        gain = self.log_likelihood - self.gaussian_log_likelihood
        return (
            f"df {self.df:.3g} ({interval_95(*self.df_interval)}), {len(self.location)} coordinates, "
            f"{self.n_samples} samples\nlog-likelihood {gain:.3g} above the Gaussian's"
        )


def fit_multivariate_student_t(
    samples: object, *, tolerance: float = 1e-8, max_iterations: int = 500, batch_size: int | None = None
) -> MultivariateStudentTFit:
    """Fit a multivariate Student-t by maximum likelihood with PX-EM.

    Weights w_i = (ν + d)/(ν + δ_i) with δ_i = (x_i − μ)ᵀΨ⁻¹(x_i − μ); then μ = Σw_i x_i/Σw_i and
    Ψ = Σw_i(x_i − μ)(x_i − μ)ᵀ/Σw_i, and ν maximises the likelihood given both. Dividing by Σw_i instead of
    n is the parameter expansion: a handful of iterations where plain EM takes a hundred.

    Measured in 50 dimensions, 60 to 100 data sets, ν = 3, 5, 10: at n = 1,000 the error of ν̂ is .14, .22, .63
    (.14, .20, .58 were the scatter known) and 95 % intervals hold ν in 92, 94, 89 %. With n = 10 d, ν̂ reads 1
    to 4 % high and intervals hold it in 93, 87, 82 %: want n ≥ 20 d.

    Args:
        samples: (sample, coordinate), more samples than twice the coordinates.
        tolerance: stop when the log-likelihood per sample gains less.

    Raises:
        InputError: too few samples for the coordinates, constant or linearly dependent coordinates.
        NonFiniteError: NaN or infinite values.

    Source: Liu, Rubin, Wu 1998 (Biometrika 85), Liu, Rubin 1995.
    """
    x = as_samples(samples)
    n, d = x.shape
    check_batch_size(batch_size)
    if n <= 2 * d:
        raise InputError(
            f"{n} samples cannot give the {d} × {d} scatter matrix of a multivariate Student-t; pass more "
            f"than {2 * d} samples or fewer coordinates."
        )
    if constant_coordinates(x).any():
        raise InputError(
            f"{int(constant_coordinates(x).sum())} coordinates are constant; leave them out of a joint fit."
        )
    unit = x.abs().amax(dim=0).double()
    y = x.double() / unit
    centre = y.median(dim=0).values
    spread = (y - centre).abs().median(dim=0).values.clamp_min(1e-12)
    unit, y = unit * spread, (y - centre) / spread

    moments = y.mean(0), torch.cov(y.T, correction=0)
    gaussian = _log_likelihood(y, *moments, 0.0)[0]
    kappa, best, iterations = 0.2, -math.inf, 0
    distance = y.square().sum(1)  # medians and quartiles of y are those of a standard law
    while iterations < max_iterations:
        iterations += 1
        weight = (1 + d * kappa) / (1 + kappa * distance)
        location = weight @ y / weight.sum()
        centred = y - location
        scatter = (centred * weight[:, None]).T @ centred / weight.sum()
        distance = _log_likelihood(y, location, scatter, kappa)[1]
        kappa = _best_kappa(distance, d)
        previous, best = best, _log_likelihood(y, location, scatter, kappa)[0]
        if best - previous < tolerance * n:
            break

    if kappa <= 1.01 * KAPPA_BOUND or best <= gaussian:
        kappa, best = 0.0, gaussian
        location, scatter = moments
    error = _kappa_error(_log_likelihood(y, location, scatter, kappa)[1], d, max(kappa, KAPPA_BOUND))
    low, high = kappa - 1.96 * error, kappa + 1.96 * error
    units = n * unit.log().sum().item()
    return MultivariateStudentTFit(
        location=unit * location + x.abs().amax(dim=0).double() * centre,
        scatter=unit[:, None] * scatter * unit,
        df=1 / kappa if kappa > 0 else math.inf,
        df_interval=(1 / high, 1 / low if low > 0 else math.inf),
        log_likelihood=best - units,
        gaussian_log_likelihood=gaussian - units,
        iterations=iterations,
        n_samples=n,
        batch_size=batch_size,
    )


def _log_likelihood(y: Tensor, location: Tensor, scatter: Tensor, kappa: float) -> tuple[float, Tensor]:
    """Return the log-likelihood and the squared Mahalanobis distances δ (sample,)."""
    factor, failed = torch.linalg.cholesky_ex(scatter)
    # a squared pivot over the diagonal is the share of a coordinate that the others do not explain
    if failed or (factor.diagonal().square() < 1e-10 * scatter.diagonal()).any():
        raise InputError(
            "The coordinates are linearly dependent, so their scatter matrix has no inverse; leave some out."
        )
    distance = torch.linalg.solve_triangular(factor, (y - location).T, upper=False).square().sum(0)
    n, d = y.shape
    log_determinant = 2 * factor.diagonal().log().sum().item()
    return _radial_log_likelihood(distance, d, kappa) - 0.5 * n * log_determinant, distance


def _radial_log_likelihood(distance: Tensor, d: int, kappa: float) -> float:
    n = len(distance)
    if kappa < KAPPA_BOUND:
        return -0.5 * (n * d * math.log(2 * math.pi) + distance.sum().item())
    nu = 1 / kappa
    constant = math.lgamma((nu + d) / 2) - math.lgamma(nu / 2) - 0.5 * d * math.log(math.pi * nu)
    return n * constant - 0.5 * (nu + d) * torch.log1p(kappa * distance).sum().item()


def _best_kappa(distance: Tensor, d: int) -> float:
    """Return the κ that maximises the likelihood given the distances."""
    from scipy.optimize import minimize_scalar  # half a second, spared to everyone else

    some = distance.cpu()
    result = minimize_scalar(
        lambda log_kappa: -_radial_log_likelihood(some, d, math.exp(log_kappa)),
        bounds=(math.log(KAPPA_BOUND), math.log(KAPPA_LARGEST)),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return math.exp(float(result.x))


def _kappa_error(distance: Tensor, d: int, kappa: float) -> float:
    """Return the standard error of κ̂ from the outer product of the scores in (log scale, κ).

    By symmetry only the overall scale of Ψ is entangled with κ, not its shape and not μ.
    """
    u = kappa * distance
    score_scale = (1 + d * kappa) * distance / (1 + u) - d
    nu = torch.tensor(1 / kappa, dtype=torch.float64)
    constant_slope = -0.5 * nu**2 * (torch.digamma((nu + d) / 2) - torch.digamma(nu / 2) - d / nu)
    score_kappa = (
        constant_slope.item()
        + 0.5 * torch.log1p(u) / kappa**2
        - 0.5 * (1 + d * kappa) / kappa * distance / (1 + u)
    )
    score = torch.stack([score_scale, score_kappa])
    return float(torch.linalg.inv(score @ score.T)[1, 1].clamp_min(0).sqrt())
