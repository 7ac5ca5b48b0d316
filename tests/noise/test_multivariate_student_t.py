"""The multivariate Student-t fit against scipy's density, its own maximum, and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.optimize import minimize_scalar
from scipy.special import gammaln

from noisekit.errors import InputError
from noisekit.noise.multivariate_student_t_fit import fit_multivariate_student_t


def multivariate_samples(df: float, n: int, d: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return samples (n, d) and their scatter matrix."""
    generator = np.random.default_rng(seed)
    factor = np.eye(d) + 0.2 * np.tril(generator.standard_normal((d, d)))
    z = generator.standard_normal((n, d)) @ factor.T
    radius = 1.0 if math.isinf(df) else np.sqrt(df / generator.chisquare(df, (n, 1)))
    return z * radius + 3, factor @ factor.T


def df_of_known_scatter(distance: np.ndarray, d: int) -> float:
    """Return the maximum-likelihood df given the true squared Mahalanobis distances."""

    def negative(log_df: float) -> float:
        df = math.exp(log_df)
        constant = gammaln((df + d) / 2) - gammaln(df / 2) - d / 2 * math.log(df)
        return -(constant - (df + d) / 2 * np.log1p(distance / df)).sum()

    return math.exp(minimize_scalar(negative, bounds=(0, 6), method="bounded").x)


# .20 and .28 at ν = 3 and 5 are the planned errors; at ν = 10 knowing the scatter leaves .58
@pytest.mark.parametrize(("df", "bound"), [(3.0, 0.20), (5.0, 0.28), (10.0, 0.65)])
def test_df_in_fifty_dimensions_is_as_good_as_with_a_known_scatter(df: float, bound: float) -> None:
    fits, known = [], []
    for seed in range(60):
        x, scatter = multivariate_samples(df, 1000, 50, seed)
        fits.append(fit_multivariate_student_t(torch.tensor(x)))
        known.append(df_of_known_scatter(((x - 3) @ np.linalg.inv(scatter) * (x - 3)).sum(1), 50))
    rmse = np.sqrt(np.mean([(fit.df - df) ** 2 for fit in fits]))
    best = np.sqrt(np.mean(np.square(np.array(known) - df)))
    assert rmse < bound
    assert rmse < 1.1 * best
    assert np.mean([fit.df_interval[0] <= df <= fit.df_interval[1] for fit in fits]) >= 0.85
    assert max(fit.iterations for fit in fits) <= 8


def test_log_likelihood_is_scipys_and_at_a_maximum() -> None:
    x, scatter = multivariate_samples(4.0, 3000, 4, 0)
    fit = fit_multivariate_student_t(torch.tensor(x), tolerance=1e-12)
    location, psi = fit.location.numpy(), fit.scatter.numpy()

    def likelihood(location: np.ndarray, psi: np.ndarray, df: float) -> float:
        return scipy.stats.multivariate_t.logpdf(x, location, psi, df).sum()

    top = likelihood(location, psi, fit.df)
    assert fit.log_likelihood == pytest.approx(top, rel=1e-9)
    gaussian = scipy.stats.multivariate_normal.logpdf(x, x.mean(0), np.cov(x.T, bias=True)).sum()
    assert fit.gaussian_log_likelihood == pytest.approx(gaussian, rel=1e-9)
    assert top > likelihood(location + 0.01, psi, fit.df)
    for factor in (0.99, 1.01):
        assert top > likelihood(location, psi, fit.df * factor)
        assert top > likelihood(location, psi * factor, fit.df)
    np.testing.assert_allclose(psi, scatter, rtol=0, atol=0.15)
    assert fit.location.numpy() == pytest.approx(np.full(4, 3.0), abs=0.15)


def test_gaussian_samples_are_gaussian() -> None:
    x, _ = multivariate_samples(math.inf, 800, 10, 1)
    fit = fit_multivariate_student_t(torch.tensor(x))
    assert fit.df > 150
    assert fit.df_interval[1] == math.inf


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales(scale: float) -> None:
    x = torch.tensor(multivariate_samples(4.0, 300, 3, 2)[0])
    one, other = fit_multivariate_student_t(x), fit_multivariate_student_t(x * scale)
    assert other.df == pytest.approx(one.df, rel=1e-5)
    torch.testing.assert_close(other.scatter / scale**2, one.scatter, rtol=1e-5, atol=1e-8)


def test_model_has_the_fitted_law() -> None:
    x, _ = multivariate_samples(5.0, 2000, 4, 3)
    fit = fit_multivariate_student_t(torch.tensor(x), batch_size=64)
    model = fit.model
    value = torch.tensor(x[:5])
    expected = scipy.stats.multivariate_t.logpdf(x[:5], np.zeros(4), fit.scatter.numpy(), fit.df)
    assert model.log_prob(value).numpy() == pytest.approx(expected, rel=1e-6)
    assert model.batch_size == 64
    variance = fit.scatter.diagonal() * fit.df / (fit.df - 2)
    torch.testing.assert_close(model.variance(value)[0], variance)


def test_impossible_fits_are_refused_with_a_sentence() -> None:
    x = torch.randn(100, 5, dtype=torch.float64)
    with pytest.raises(InputError, match="more than 10 samples"):
        fit_multivariate_student_t(x[:10])
    with pytest.raises(InputError, match="constant"):
        fit_multivariate_student_t(torch.cat([x, torch.ones(100, 1, dtype=torch.float64)], dim=1))
    with pytest.raises(InputError, match="linearly dependent"):
        fit_multivariate_student_t(torch.cat([x, x[:, :1]], dim=1))
