"""Maximum-likelihood Student-t fit of every coordinate at once, by Fisher scoring in (μ, log σ, κ = 1/ν)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from noisekit._readable import Readable, typical
from noisekit.noise.fisher_scoring import KAPPA_BOUND, fisher_scoring
from noisekit.noise.samples import as_samples, check_level, evenly_spread, has_run, sorted_rows
from noisekit.noise.student_t_likelihood import fisher_information, rows_in_a_tile

_START_SAMPLES = 2048  # the scoring starts from a fit of this many samples
_QUANTILE_SAMPLES = 512
_CHUNK_ELEMENTS = {"cpu": 1 << 21, "cuda": 1 << 27}  # a chunk and its temporaries stay in the cache


@dataclass(frozen=True, repr=False)
class StudentTFit(Readable):
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
        the Gaussian. Measured for ν from 1 to 30: 95 % intervals hold ν in 93 to 99 % (n from 500 to 10,000),
        91 to 98 % (n = 100).
        """
        z = math.sqrt(2) * torch.erfinv(torch.tensor(check_level(level), dtype=torch.float64)).item()
        lowest = _bisect(lambda k: k + z * kappa_standard_error(k, self.n_samples), self.kappa, 0.0, 1e3)
        highest = _bisect(lambda k: k - z * kappa_standard_error(k, self.n_samples), self.kappa, 0.0, 1e3)
        interval = torch.stack([1 / highest, torch.where(lowest > 1e-9, 1 / lowest, torch.inf)], dim=1)
        return torch.where(self.is_fitted[:, None], interval, torch.nan)

    def __str__(self) -> str:
        aside = int((~self.is_fitted).sum())
        return (
            f"{self.n_samples} samples of {len(self.df)} coordinates ({aside} set aside)\n"
            f"df {typical(self.df[self.is_fitted])}, scale {typical(self.scale)}"
        )


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
    low, high = x.amin(dim=0), x.amax(dim=0)
    constant = low == high
    ordered = sorted_rows(evenly_spread(x, _QUANTILE_SAMPLES))
    atoms = has_run(ordered) & ~constant
    columns = (~(constant | atoms)).nonzero().squeeze(1)

    fields = torch.full((9, d), torch.nan, dtype=torch.float64, device=x.device)
    fields[2] = 0.0
    if len(columns):
        unit, start = _quantile_start(ordered[columns])
        # squares of float32 would overflow beyond this
        far = torch.maximum((high[columns] - unit[0]).abs(), (low[columns] - unit[0]).abs()) / unit[1]
        # and reciprocals of its subnormal numbers too
        narrow = float(far.max()) < 1e15 and float(unit[1].min()) > 1e-36
        wide = x.dtype if narrow else torch.float64
        if n >= 4 * _START_SAMPLES:
            start, _ = _fit_columns(evenly_spread(x, _START_SAMPLES), columns, unit, start, wide, 0.3)
        maximum, moments = _fit_columns(
            x, columns, unit, start, wide, 1e-4 if wide == torch.float64 else 4e-3
        )
        fields[:, columns] = _assemble(maximum, moments, unit[0].double(), n)
    if len(columns) < d:
        aside = (constant | atoms).nonzero().squeeze(1)
        scale, location = torch.std_mean(x[:, aside].double(), dim=0, correction=0)
        fields[0, aside] = fields[4, aside] = torch.where(constant[aside], x[0, aside].double(), location)
        fields[1, aside] = fields[5, aside] = torch.where(constant[aside], 0.0, scale)

    location, scale, kappa, log_likelihood, g_location, g_scale, g_log_likelihood, e_scale, e_kappa = fields
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
        scale_error=scale * e_scale,
        kappa_error=e_kappa,
        is_constant=constant,
        has_atom=atoms,
        n_samples=n,
    )


def _quantile_start(ordered: Tensor) -> tuple[Tensor, Tensor]:
    """Return median and spread of each row, (2, row), and starting values for x − median, (3, row).

    The spread is the standard deviation of a Gaussian with the same quartiles; the ratio of the 5–95 % range
    to the quartile range tells κ, from 2.44 for the Gaussian to 6.31 for the Cauchy law.
    """
    m = ordered.shape[1] - 1
    q05, q25, q50, q75, q95 = (ordered[:, round(p * m)] for p in (0.05, 0.25, 0.5, 0.75, 0.95))
    # each difference is divided first: the largest float32 numbers would overflow in a sum
    spread = q75 / 1.349 - q25 / 1.349
    ratio = (q95 / spread - q05 / spread).double() / 1.349
    kappa = ((ratio.clamp_min(0.1) / 2.44).log() / math.log(6.31 / 2.44)).clamp(0.02, 1.0)
    log_scale = spread.double().log() - 0.39 * kappa
    return torch.stack([q50, spread]), torch.stack([torch.zeros_like(kappa), log_scale, kappa])


def _fit_columns(
    x: Tensor, columns: Tensor, unit: Tensor, start: Tensor, dtype: torch.dtype, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return the maxima (4, column): μ, log σ, κ, log L, and mean and standard deviation, (2, column).

    Locations are relative to the median. Samples are squared only after division by a scale, so that
    magnitudes from 1e-30 to 1e30 all work in float32.
    """
    chunk = max(1, _CHUNK_ELEMENTS.get(x.device.type, 1 << 21) // len(x))
    block = chunk * 16  # columns are turned into rows many at a time, which is twice as fast as a few
    all_columns = len(columns) == x.shape[1]
    maxima, moments = [], []
    for first in range(0, len(columns), block):
        wanted = slice(first, first + block)
        rows = (x[:, wanted] if all_columns else x[:, columns[wanted]]).T.contiguous()
        for offset in range(0, len(rows), chunk):
            part = slice(first + offset, first + min(offset + chunk, len(rows)))
            centre, spread = unit[:, part]
            y = rows[offset : offset + chunk].to(dtype) - centre.to(dtype)[:, None]
            best, value = fisher_scoring(y, start[:3, part], tolerance)
            maxima.append(torch.cat([best, value[None]]))
            moments.append(_mean_and_deviation(y, spread.to(dtype)))
    return torch.cat(maxima, dim=1), torch.cat(moments, dim=1)


def _mean_and_deviation(y: Tensor, spread: Tensor) -> Tensor:
    """Return mean and standard deviation of rows that are centred at their medians, (2, row), float64."""
    parts = []
    tile = rows_in_a_tile(y)
    for rows, inverse in zip(y.split(tile), (1 / spread)[:, None].split(tile), strict=True):
        z = rows * inverse
        parts.append(torch.stack([z.mean(1), z.mul_(z).mean(1)]))
    mean, square = torch.cat(parts, dim=1).double()
    return torch.stack([mean, (square - mean**2).sqrt()]) * spread.double()


def _assemble(maximum: Tensor, moments: Tensor, centre: Tensor, n: int) -> Tensor:
    """Return the nine fields (9, column), Gaussian where that is the maximum."""
    location, log_scale, kappa, log_likelihood = maximum
    g_location, g_scale = moments
    g_log_likelihood = -n * (g_scale.log() + 0.5 * math.log(2 * math.pi) + 0.5)
    gaussian = (kappa <= 1.001 * KAPPA_BOUND) | (log_likelihood <= g_log_likelihood)
    location = torch.where(gaussian, g_location, location)
    scale = torch.where(gaussian, g_scale, log_scale.exp())
    kappa = torch.where(gaussian, 0.0, kappa)
    log_likelihood = torch.where(gaussian, g_log_likelihood, log_likelihood)
    _, i_scale, i_cross, i_kappa = fisher_information(kappa)
    determinant = n * (i_scale * i_kappa - i_cross**2)
    return torch.stack(
        [
            centre + location,
            scale,
            kappa,
            log_likelihood,
            centre + g_location,
            g_scale,
            g_log_likelihood,
            (i_kappa / determinant).sqrt(),
            (i_scale / determinant).sqrt(),
        ]
    )
