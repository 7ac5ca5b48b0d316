"""The Student-t fit against scipy, autograd, its own invariances and simulated truth."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from noisekit.errors import InputError, NonFiniteError
from noisekit.noise.student_t_fit import fit_student_t
from noisekit.noise.student_t_likelihood import fisher_information, log_constant, log_likelihood_and_score


def student_samples(
    df: float, n: int, d: int, seed: int = 0, dtype: torch.dtype = torch.float64
) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).standard_t(df, size=(n, d)), dtype=dtype)


@pytest.mark.parametrize("kappa", [1e-4, 0.01, 0.0199, 0.0201, 0.2, 1.0, 3.0])
def test_log_density_at_the_centre_is_scipys(kappa: float) -> None:
    expected = scipy.stats.t.logpdf(0.0, 1 / kappa)
    assert log_constant(torch.tensor(kappa, dtype=torch.float64)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("kappa", [1e-3, 0.015, 0.05, 0.5, 2.0])
def test_score_is_the_gradient_of_scipys_log_likelihood(kappa: float) -> None:
    y = student_samples(4.0, 50, 1).T
    at = [torch.tensor([v], dtype=torch.float64) for v in (0.3, -0.2, kappa)]
    value, *score = log_likelihood_and_score(y, *at)

    def reference(theta: np.ndarray) -> float:
        return scipy.stats.t.logpdf(y.numpy()[0], 1 / theta[2], theta[0], math.exp(theta[1])).sum()

    theta = np.array([v.item() for v in at])
    assert value.item() == pytest.approx(reference(theta), abs=1e-8)
    for i, s in enumerate(score):
        step = np.zeros(3)
        step[i] = 1e-5 * max(kappa, 0.1)
        numeric = (reference(theta + step) - reference(theta - step)) / (2 * step[i])
        assert s.item() == pytest.approx(numeric, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("kappa", [0.01, 0.1, 0.5, 1.0])
def test_information_is_the_covariance_of_the_score(kappa: float) -> None:
    # integrate the squared score against the density, on the quantiles of the law
    u = (np.arange(200_000) + 0.5) / 200_000
    y = torch.tensor(scipy.stats.t.ppf(u, 1 / kappa))[:, None]
    zero = torch.zeros(len(y), dtype=torch.float64)
    _, s_location, s_scale, s_kappa = log_likelihood_and_score(y, zero, zero, torch.full_like(zero, kappa))
    location, scale, cross, shape = fisher_information(torch.tensor(kappa, dtype=torch.float64))
    assert (s_location**2).mean().item() == pytest.approx(location.item(), rel=1e-3)
    assert (s_scale**2).mean().item() == pytest.approx(scale.item(), rel=2e-3)
    assert (s_scale * s_kappa).mean().item() == pytest.approx(cross.item(), rel=5e-3)
    assert (s_kappa**2).mean().item() == pytest.approx(shape.item(), rel=2e-2)


@pytest.mark.parametrize(("df", "n"), [(1.0, 100), (3.0, 1000), (5.0, 12_000), (10.0, 1000)])
def test_maximum_is_at_least_scipys(df: float, n: int) -> None:
    x = 7 + 3 * student_samples(df, n, 2)
    fit = fit_student_t(x)
    for j in range(2):
        column = x[:, j].numpy()
        ours = scipy.stats.t.logpdf(
            column, fit.df[j].item(), fit.location[j].item(), fit.scale[j].item()
        ).sum()
        assert fit.log_likelihood[j].item() == pytest.approx(ours, rel=1e-9)
        start = (fit.df[j].item() * 1.3, fit.location[j].item(), fit.scale[j].item())
        theirs = scipy.stats.t.fit(column, start[0], loc=start[1], scale=start[2])
        assert ours >= scipy.stats.t.logpdf(column, *theirs).sum() - 1e-6
        assert fit.df[j].item() == pytest.approx(theirs[0], rel=2e-3)


def test_gaussian_rows_end_at_the_bound_with_gaussian_moments() -> None:
    x = student_samples(3.0, 400, 1).tanh()  # lighter than Gaussian
    fit = fit_student_t(x)
    assert torch.isinf(fit.df).all()
    assert fit.scale.item() == pytest.approx(x.numpy().std())
    assert fit.likelihood_ratio.item() == 0
    expected = scipy.stats.norm.logpdf(x.numpy(), x.numpy().mean(), x.numpy().std()).sum()
    assert fit.log_likelihood.item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_extreme_scales_fit_like_scale_one(dtype: torch.dtype, scale: float) -> None:
    x = student_samples(4.0, 500, 3, dtype=dtype)
    one, other = fit_student_t(x), fit_student_t(x * scale)
    torch.testing.assert_close(other.df, one.df, rtol=1e-3, atol=0)
    torch.testing.assert_close(other.scale / scale, one.scale, rtol=1e-4, atol=0)
    torch.testing.assert_close(other.likelihood_ratio, one.likelihood_ratio, rtol=1e-3, atol=1e-3)


def test_float32_stays_near_float64() -> None:
    x = torch.cat([student_samples(df, 10_000, 8, seed=int(df)) for df in (1.0, 3.0, 10.0, 30.0)], dim=1)
    wide, narrow = fit_student_t(x), fit_student_t(x.float())
    assert ((narrow.kappa - wide.kappa).abs() < 2e-2 * wide.kappa_error).all()
    torch.testing.assert_close(narrow.likelihood_ratio, wide.likelihood_ratio, rtol=1e-4, atol=2e-2)


def test_a_single_far_outlier_does_not_break_the_fit() -> None:
    x = student_samples(5.0, 1000, 1, dtype=torch.float32)
    x[0] = 1e25
    fit = fit_student_t(x)
    assert torch.isfinite(fit.scale).all()
    assert 0.5 < fit.scale.item() < 2


def test_error_of_df_is_as_planned() -> None:
    # reference: RMSE .36 at ν = 3, n = 1000
    fit = fit_student_t(student_samples(3.0, 1000, 600))
    rmse = (fit.df - 3).square().mean().sqrt().item()
    assert 0.30 < rmse < 0.40


@pytest.mark.parametrize("df", [1.0, 3.0, 10.0, 30.0])
@pytest.mark.parametrize("n", [1000, 4000])
def test_interval_covers(df: float, n: int) -> None:
    interval = fit_student_t(student_samples(df, n, 500, seed=2)).df_interval()
    coverage = ((interval[:, 0] <= df) & (df <= interval[:, 1])).double().mean().item()
    assert 0.92 <= coverage <= 0.99


def test_standard_errors_match_the_spread() -> None:
    fit = fit_student_t(student_samples(4.0, 800, 800, seed=5))
    for estimate, error in [
        (fit.location, fit.location_error),
        (fit.scale, fit.scale_error),
        (fit.kappa, fit.kappa_error),
    ]:
        assert error.mean().item() == pytest.approx(estimate.std().item(), rel=0.1)


def test_constant_and_atomic_coordinates_are_set_aside() -> None:
    x = student_samples(5.0, 300, 4)
    x[:, 1] = 2.5
    x[::2, 2] = 0.0
    fit = fit_student_t(x)
    assert fit.is_constant.tolist() == [False, True, False, False]
    assert fit.has_atom.tolist() == [False, False, True, False]
    assert fit.location[1].item() == 2.5
    assert fit.scale[1].item() == 0
    assert fit.scale[2].item() == pytest.approx(x[:, 2].numpy().std())
    assert torch.isnan(fit.log_likelihood[1:3]).all()
    alone = fit_student_t(x[:, [0, 3]])
    torch.testing.assert_close(fit.df[[0, 3]], alone.df)


def test_half_precision_and_numpy_and_vectors_are_read() -> None:
    x = student_samples(3.0, 2000, 1, dtype=torch.float32)
    reference = fit_student_t(x).df.item()
    assert fit_student_t(x[:, 0]).df.item() == pytest.approx(reference)
    assert fit_student_t(x.numpy()).df.item() == pytest.approx(reference)
    assert fit_student_t(x.bfloat16()).df.item() == pytest.approx(reference, rel=0.05)
    assert fit_student_t(x.numpy().astype(np.longdouble)).df.item() == pytest.approx(reference, rel=1e-3)
    assert fit_student_t(x.expand(2000, 3)[::1, 1:]).df[1].item() == pytest.approx(reference)


def test_subnormal_numbers_fit_as_well_as_their_few_digits_allow() -> None:
    x = student_samples(4.0, 500, 2, dtype=torch.float32)
    tiny = torch.cat([x, x * 1e-41], dim=1)
    df = fit_student_t(tiny).df
    torch.testing.assert_close(df[2:], df[:2], rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("samples", "error", "words"),
    [
        (torch.ones(10, 2, dtype=torch.int64), InputError, "real-valued"),
        (np.array([["a"]]), InputError, "floating-point"),
        (torch.randn(10, 2).to(torch.complex64), InputError, "complex64"),
        (torch.randn(10, 2).to(torch.float8_e4m3fn), InputError, "16 to 64 bits"),
        (torch.randn(10, 2).to_sparse(), InputError, "to_dense"),
        ([[1.0, 2.0], [3.0]], InputError, "unequal length"),
        (torch.randn(10, 2).double() * 1e200, InputError, "rescale the samples"),
        (torch.randn(10, 2).double() * 1e-200, InputError, "rescale the samples"),
        (torch.randn(7, 2), InputError, "at least 8"),
        (torch.randn(10, 0), InputError, "no coordinate"),
        (torch.randn(10, 2, 2), InputError, "flatten"),
        (torch.tensor([[0.0, 1.0]] * 9 + [[0.0, math.nan]]), NonFiniteError, "sample 9, coordinate 1"),
        (torch.tensor([[0.0, -math.inf]] + [[0.0, 1.0]] * 9), NonFiniteError, "1 values"),
    ],
)
def test_bad_samples_are_refused_with_a_sentence(samples: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_student_t(samples)
