"""Maximum-likelihood Student-t fit of every coordinate at once, by Fisher scoring in (μ, log σ, κ = 1/ν)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit.noise.samples import as_samples, constant_coordinates, coordinates_with_atoms, evenly_spread
from noisekit.noise.student_t_likelihood import fisher_information, log_likelihood_and_score

KAPPA_BOUND = 1e-4  # a row that ends here is Gaussian (ν > 10,000)
KAPPA_LARGEST = 4.0  # ν = 1/4, far heavier than anything with a finite mean
_START_SAMPLES = 1024  # the scoring starts from a fit of this many samples
_CHUNK_ELEMENTS = {"cpu": 1 << 19, "cuda": 1 << 27}  # a chunk and its temporaries stay in the cache
_MAX_ITERATIONS = 100


@dataclass(frozen=True)
class StudentTFit:
    """Student-t and Gaussian maximum-likelihood fits of each coordinate; every field is (coordinate,).

    Constant coordinates and coordinates with atoms have no Student-t fit: df is inf, the log-likelihoods are
    NaN, location and scale are the mean and the standard deviation.
    """

    location: Tensor
    scale: Tensor
    df: Tensor
    """Degrees of freedom; inf where the likelihood is largest at the Gaussian."""
    kappa: Tensor
    """1/df."""
    log_likelihood: Tensor
    gaussian_location: Tensor
    gaussian_scale: Tensor
    gaussian_log_likelihood: Tensor
    location_error: Tensor
    """Standard error of the location."""
    scale_error: Tensor
    """Standard error of the scale."""
    kappa_error: Tensor
    """Standard error of κ = 1/df."""
    is_constant: Tensor
    """Dead or constant coordinates, set aside."""
    has_atom: Tensor
    """Coordinates that repeat one exact value in more than 5 % of the samples, set aside."""
    n_samples: int

    @property
    def is_fitted(self) -> Tensor:
        """Coordinates with a Student-t fit, (coordinate,)."""
        return ~(self.is_constant | self.has_atom)

    @property
    def likelihood_ratio(self) -> Tensor:
        """2 (log L_t − log L_Gauss) ≥ 0; NaN in coordinates that were set aside."""
        return 2 * (self.log_likelihood - self.gaussian_log_likelihood)

    def df_interval(self, level: float = 0.95) -> Tensor:
        """Return the interval for df, (coordinate, 2): every ν whose own standard error allows the fit.

        {κ : |κ̂ − κ| ≤ z · error(κ)}, that is, a Wald test inverted at each κ as Wilson's interval does;
        the error grows with κ, and intervals with the error at κ̂ miss too often from below. inf: reaches
        the Gaussian.
        """
        z = math.sqrt(2) * torch.erfinv(torch.tensor(level, dtype=torch.float64)).item()
        lowest = _bisect(lambda k: k + z * kappa_standard_error(k, self.n_samples), self.kappa, 0.0, 1e3)
        highest = _bisect(lambda k: k - z * kappa_standard_error(k, self.n_samples), self.kappa, 0.0, 1e3)
        interval = torch.stack([1 / highest, torch.where(lowest > 1e-9, 1 / lowest, torch.inf)], dim=1)
        return torch.where(self.is_fitted[:, None], interval, torch.nan)


def kappa_standard_error(kappa: Tensor, n: int) -> Tensor:
    """Return the standard error of κ̂ from n samples at κ, location and scale being estimated too."""
    _, i_scale, i_cross, i_kappa = fisher_information(kappa)
    return (i_scale / (n * (i_scale * i_kappa - i_cross**2))).sqrt()


def _bisect(function: Callable[[Tensor], Tensor], target: Tensor, low: float, high: float) -> Tensor:
    """Return where the rising ``function`` meets ``target``, between ``low`` and ``high``."""
    below, above = torch.full_like(target, low), torch.full_like(target, high)
    for _ in range(60):
        middle = 0.5 * (below + above)
        under = function(middle) < target
        below, above = torch.where(under, middle, below), torch.where(under, above, middle)
    return above


def fit_student_t(samples: object) -> StudentTFit:
    """Fit location, scale and degrees of freedom of every coordinate by maximum likelihood.

    max over (μ, σ, κ ≥ 0) of Σ log p((x − μ)/σ; κ) − n log σ by Fisher scoring with step halving. Sums run in
    the dtype of the samples, parameters in float64.

    Args:
        samples: (sample, coordinate), any floating dtype and device; at least 8 samples.

    Returns:
        StudentTFit, tensors on the device of ``samples``, float64.

    Raises:
        InputError: wrong dtype or axes, too few samples. NonFiniteError: NaN or infinite values.

    Source: Lange, Little, Taylor 1989 (the model); κ = 1/ν so that the Gaussian is a regular boundary point.

    >>> x = torch.distributions.StudentT(3.0).sample((20_000, 1))
    >>> bool((fit_student_t(x).df - 3).abs() < 0.5)
    True
    """
    x = as_samples(samples)
    n, d = x.shape
    constant = constant_coordinates(x)
    atoms = coordinates_with_atoms(x) & ~constant
    fitted = (~(constant | atoms)).nonzero().squeeze(1)

    result = torch.full((d, 9), torch.nan, dtype=torch.float64, device=x.device)
    result[:, 2] = 0.0
    chunk = max(1, _CHUNK_ELEMENTS.get(x.device.type, 1 << 19) // n)
    for index in fitted.split(chunk) if len(fitted) else ():
        result[index] = _fit_rows(x, index)
    if len(fitted) < d:
        aside = (constant | atoms).nonzero().squeeze(1)
        scale, location = torch.std_mean(x[:, aside].double(), dim=0, correction=0)
        location = torch.where(constant[aside], x[0, aside].double(), location)
        scale = torch.where(constant[aside], 0.0, scale)
        result[aside, 0], result[aside, 1], result[aside, 4], result[aside, 5] = (
            location,
            scale,
            location,
            scale,
        )

    location, scale, kappa, log_likelihood, g_location, g_scale, g_log_likelihood = result[:, :7].unbind(1)
    return StudentTFit(
        location=location,
        scale=scale,
        df=1 / kappa,
        kappa=kappa,
        log_likelihood=log_likelihood,
        gaussian_location=g_location,
        gaussian_scale=g_scale,
        gaussian_log_likelihood=g_log_likelihood,
        location_error=scale * (n * fisher_information(kappa)[0]).rsqrt(),
        scale_error=scale * result[:, 7],
        kappa_error=result[:, 8],
        is_constant=constant,
        has_atom=atoms,
        n_samples=n,
    )


def _fit_rows(x: Tensor, index: Tensor) -> Tensor:
    """Fit the coordinates ``index`` and return (coordinate, 9): the fields of StudentTFit in order.

    Rows are first centred and scaled by quantiles, so that magnitudes from 1e-30 to 1e30 all work in float32.
    """
    rows = x[:, index].T.contiguous()
    n = rows.shape[1]
    centre, spread = _quantile_location_scale(rows)
    y = (rows - centre[:, None]) / spread[:, None]
    if y.abs().amax() > 1e15:  # squares of float32 would overflow
        y = (rows.double() - centre.double()[:, None]) / spread.double()[:, None]
    centre, spread = centre.double(), spread.double()

    g_scale, g_location = (t.double() for t in torch.std_mean(y, dim=1, correction=0))
    g_log_likelihood = -n * (g_scale.log() + 0.5 * math.log(2 * math.pi) + 0.5)

    location, log_scale, kappa = _starting_values(y)
    if n >= 8 * _START_SAMPLES:
        few = evenly_spread(y.T, _START_SAMPLES).T.contiguous()
        location, log_scale, kappa, _ = _score(few, location, log_scale, kappa)
    location, log_scale, kappa, log_likelihood = _score(y, location, log_scale, kappa)

    gaussian = (kappa <= KAPPA_BOUND) | (log_likelihood <= g_log_likelihood)
    location = torch.where(gaussian, g_location, location)
    scale = torch.where(gaussian, g_scale, log_scale.exp())
    kappa = torch.where(gaussian, 0.0, kappa)
    log_likelihood = torch.where(gaussian, g_log_likelihood, log_likelihood)
    _, i_scale, i_cross, i_kappa = fisher_information(kappa)
    determinant = n * (i_scale * i_kappa - i_cross**2)
    units = n * spread.log()
    return torch.stack(
        [
            centre + spread * location,
            spread * scale,
            kappa,
            log_likelihood - units,
            centre + spread * g_location,
            spread * g_scale,
            g_log_likelihood - units,
            (i_kappa / determinant).sqrt(),
            (i_scale / determinant).sqrt(),
        ],
        dim=1,
    )


def _quantile_location_scale(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the median and the upper-quartile distance to it, of a spread of the samples of each row."""
    some = evenly_spread(rows.T, _START_SAMPLES).T
    centre = some.median(dim=1).values
    distance = (some - centre[:, None]).abs()
    rank = max(1, math.ceil(0.5 * distance.shape[1]))
    return centre, distance.kthvalue(rank, dim=1).values / 0.6745


def _starting_values(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (location, log scale, κ) from quantiles: the ratio of the 95 % to the 50 % point of |y|."""
    some = evenly_spread(y.T, _START_SAMPLES).T.abs()
    far = some.kthvalue(max(1, math.ceil(0.95 * some.shape[1])), dim=1).values.double() / 0.6745
    ratio = (far.clamp_min(1e-3) / 2.906).log() / math.log(
        12.7 / 2.906
    )  # 0 for the Gaussian, 1 for the Cauchy law
    kappa = ratio.clamp(0.02, 1.0)
    return torch.zeros_like(kappa), -0.35 * kappa, kappa


def _score(
    y: Tensor, location: Tensor, log_scale: Tensor, kappa: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Iterate Fisher scoring on rows ``y`` until steps are below 1e-4 (float32: 1e-3) standard errors."""
    n = y.shape[1]
    tolerance = 1e-8 if y.dtype == torch.float64 else 1e-6
    current = torch.stack([location, log_scale, kappa])
    accepted, accepted_value = current, torch.full_like(kappa, -torch.inf)
    step = torch.zeros_like(current)
    for _ in range(_MAX_ITERATIONS):
        value, s_location, s_scale, s_kappa = log_likelihood_and_score(y, *current)
        worse = ~(value >= accepted_value - 1e-6 * n)
        proposal, decrement = _scoring_step(current, s_location, s_scale, s_kappa, n)
        accepted = torch.where(worse, accepted, current)
        accepted_value = torch.where(worse, accepted_value, value)
        step = torch.where(worse, 0.5 * step, proposal)
        done = (decrement < tolerance) & ~worse
        if bool((done | (step.abs().amax(0) < 1e-12)).all()):
            break
        current = accepted + torch.where(done, 0.0, step)
    location, log_scale, kappa = accepted.unbind(0)
    return location, log_scale, kappa, accepted_value


def _scoring_step(
    current: Tensor, s_location: Tensor, s_scale: Tensor, s_kappa: Tensor, n: int
) -> tuple[Tensor, Tensor]:
    """Return the scoring step (3, row) within the bounds of κ, and its squared size in standard errors."""
    _, log_scale, kappa = current
    i_location, i_scale, i_cross, i_kappa = fisher_information(kappa)
    scale = log_scale.exp()
    d_location = (s_location * scale**2 / (n * i_location)).clamp(-scale, scale)
    free = (i_scale * s_kappa - i_cross * s_scale) / (n * (i_scale * i_kappa - i_cross**2))
    # at most a factor of three in κ at once, except down to the Gaussian
    d_kappa = torch.minimum(torch.maximum(free, KAPPA_BOUND - kappa), 2 * kappa + 0.05)
    d_kappa = torch.minimum(d_kappa, KAPPA_LARGEST - kappa)
    d_scale = ((s_scale / n - i_cross * d_kappa) / i_scale).clamp(-1.0, 1.0)
    decrement = d_location * s_location + d_scale * s_scale + d_kappa * s_kappa
    return torch.stack([d_location, d_scale, d_kappa]), decrement.abs()
