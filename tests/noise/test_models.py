"""Noise models against scipy, against closed forms, and against their own draws."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from noisekit.errors import InfiniteVarianceError, InputError
from noisekit.noise import EmpiricalNoise, GaussianNoise, NoiseModel, StudentTNoise, student_t_cdf


def points(replicates: int, coordinates: int) -> Tensor:
    return torch.zeros(replicates, coordinates, dtype=torch.float64)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


LOW_RANK = torch.tensor([[1.0, 0.0], [3.0, -1.0], [0.5, 2.0]], dtype=torch.float64)
SCALE = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)


@pytest.mark.parametrize(
    ("model", "covariance"),
    [
        (GaussianNoise(SCALE), torch.diag(SCALE**2)),
        (GaussianNoise(2.0), 4 * torch.eye(3, dtype=torch.float64)),
        (GaussianNoise(factor=LOW_RANK), LOW_RANK @ LOW_RANK.T),
        (GaussianNoise(SCALE, factor=LOW_RANK), torch.diag(SCALE**2) + LOW_RANK @ LOW_RANK.T),
        (StudentTNoise(SCALE, 9.0), torch.diag(SCALE**2) * 9 / 7),
        (StudentTNoise(SCALE, 9.0, factor=LOW_RANK), (torch.diag(SCALE**2) + LOW_RANK @ LOW_RANK.T) * 9 / 7),
    ],
    ids=["diagonal", "isotropic", "low-rank", "diagonal+low-rank", "t", "multivariate-t"],
)
def test_variance_square_root_and_draws_speak_of_one_covariance(model, covariance):
    x = points(1, 3)
    torch.testing.assert_close(model.variance(x)[0], covariance.diagonal())
    torch.testing.assert_close(model.covariance(x)[0], covariance)
    n = 200_000
    draws = model.sample(points(n, 3), seeded())
    products = model.sqrt_covariance_product(
        points(n, 3), torch.randn(n, model.n_normals(x), generator=seeded(1), dtype=torch.float64)
    )
    spread = covariance.diagonal().sqrt()
    for values in (draws, products):
        error = (torch.cov(values.T) - covariance) / torch.outer(spread, spread)
        assert error.abs().max() < 0.03
        assert (values.mean(dim=0) / spread).abs().max() < 0.012


@pytest.mark.parametrize("df", [0.2, 0.5, 1.0, 1.7, 2.0, 3.0, 4.5, 10.0, 100.0, 1e6, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_student_t_cdf_equals_scipy(df, dtype):
    u = np.concatenate([-np.logspace(6, -6, 300), [0.0], np.logspace(-6, 6, 300)]).astype(
        np.float32 if dtype == torch.float32 else np.float64
    )
    expected = stats.norm.cdf(u) if math.isinf(df) else stats.t(df).cdf(u)
    found = student_t_cdf(torch.from_numpy(u), df)
    assert found.dtype == dtype
    assert np.abs(found.numpy() - expected).max() < 1e-6


def test_student_t_cdf_with_one_df_a_coordinate():
    df = torch.tensor([0.4, 1.0, 2.0, 3.3, 50.0, math.inf], dtype=torch.float64)
    u = torch.linspace(-8, 8, 41, dtype=torch.float64)[:, None].expand(-1, 6)
    expected = np.stack([stats.t(min(nu, 1e12)).cdf(u[:, j]) for j, nu in enumerate(df.tolist())], axis=1)
    assert np.abs(student_t_cdf(u, df).numpy() - expected).max() < 1e-7


def test_expected_sign_is_the_mean_sign_of_draws():
    gradient = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    n = 400_000
    models = [
        GaussianNoise(SCALE),
        GaussianNoise(SCALE, factor=LOW_RANK),
        StudentTNoise(SCALE, 1.5),
        StudentTNoise(SCALE, torch.tensor([1.0, 4.0, math.inf], dtype=torch.float64)),
        StudentTNoise(SCALE, 0.8, multivariate=True),
    ]
    for model in models:
        signs = torch.sign(gradient + model.sample(points(n, 3), seeded())).mean(dim=0)
        expected = model.expected_sign(points(1, 3), gradient)[0]
        assert (signs - expected).abs().max() < 5 / math.sqrt(n)


def test_gaussian_expected_sign_is_erf():
    gradient = torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64)
    expected = [math.erf(u / math.sqrt(2)) for u in (0.3, -0.5, 4.0)]
    found = GaussianNoise(SCALE).expected_sign(points(1, 3), gradient)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float64))


def test_without_noise_the_expected_sign_is_the_sign():
    gradient = torch.tensor([[0.0, -1e-20, 3.0]])
    for model in (GaussianNoise(0.0), StudentTNoise(0.0, 3.0), StudentTNoise(0.0, 1.0)):
        assert model.expected_sign(gradient, gradient).tolist() == [[0.0, -1.0, 1.0]]


@pytest.mark.parametrize("df", [0.7, 1.0, 3.0, 40.0])
def test_student_t_draws_follow_their_law(df):
    draws = StudentTNoise(2.0, df).sample(points(40_000, 1), seeded(3))[:, 0]
    assert stats.kstest(draws.numpy(), stats.t(df, scale=2.0).cdf).pvalue > 1e-3
    draws = StudentTNoise(2.0, df, multivariate=True).sample(points(40_000, 1), seeded(4))[:, 0]
    assert stats.kstest(draws.numpy(), stats.t(df, scale=2.0).cdf).pvalue > 1e-3


def test_multivariate_student_t_is_large_in_all_coordinates_together():
    draws = StudentTNoise(1.0, 5.0, multivariate=True).sample(points(100_000, 2), seeded()).abs()
    # Corr(|T₁|, |T₂|) of a bivariate t₅ by quadrature over the common radius: E|z|² (E r² …) in closed form.
    radius, radius_square = math.sqrt(5 / 2) * math.gamma(2.0) / math.gamma(2.5), 5 / 3
    expected = (2 / math.pi * (radius_square - radius**2)) / (radius_square - 2 / math.pi * radius**2)
    assert abs(float(torch.corrcoef(draws.T)[0, 1]) - expected) < 0.03


def test_densities_equal_scipy():
    value = torch.tensor([[0.3, -1.0, 2.0], [4.0, 5.0, -6.0]], dtype=torch.float64)
    covariance = (torch.diag(SCALE**2) + LOW_RANK @ LOW_RANK.T).numpy()
    cases = [
        (GaussianNoise(SCALE).log_prob(value), stats.norm.logpdf(value, scale=SCALE).sum(axis=1)),
        (
            GaussianNoise(SCALE, factor=LOW_RANK).log_prob(value),
            stats.multivariate_normal(cov=covariance).logpdf(value),
        ),
        (StudentTNoise(SCALE, 2.5).log_prob(value), stats.t.logpdf(value, 2.5, scale=SCALE).sum(axis=1)),
        (StudentTNoise(SCALE, 1e7).log_prob(value), stats.t.logpdf(value, 1e7, scale=SCALE).sum(axis=1)),
        (StudentTNoise(SCALE, math.inf).log_prob(value), stats.norm.logpdf(value, scale=SCALE).sum(axis=1)),
        (
            StudentTNoise(SCALE, 2.5, factor=LOW_RANK).log_prob(value),
            stats.multivariate_t(shape=covariance, df=2.5).logpdf(value),
        ),
        (GaussianNoise(SCALE).cdf(value), stats.norm.cdf(value, scale=SCALE)),
        (StudentTNoise(SCALE, 2.5).cdf(value), stats.t.cdf(value, 2.5, scale=SCALE)),
        (StudentTNoise(SCALE, 2.5).marginal_log_prob(value), stats.t.logpdf(value, 2.5, scale=SCALE)),
    ]
    for found, expected in cases:
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("df", [3.0, 1e3, 9e4, 1e9])
def test_float32_densities_keep_their_digits_near_the_gaussian(df):
    value = torch.linspace(-2, 2, 40).reshape(2, 20)
    independent = stats.t.logpdf(value.double().numpy(), df)
    found = StudentTNoise(1.0, df).marginal_log_prob(value)
    np.testing.assert_allclose(found.numpy(), independent, atol=2e-6, rtol=0)
    joint = [stats.multivariate_t.logpdf(v, np.zeros(20), np.eye(20), df) for v in value.double().numpy()]
    found = StudentTNoise(torch.ones(20), df, multivariate=True).log_prob(value)
    np.testing.assert_allclose(found.numpy(), joint, atol=5e-5, rtol=0)


def test_infinite_variance_is_said_and_refused_where_a_square_root_is_needed():
    model = StudentTNoise(SCALE, torch.tensor([2.0, 3.0, 1.0], dtype=torch.float64))
    assert torch.isinf(model.variance(points(2, 3))[0]).tolist() == [True, False, True]
    with pytest.raises(InfiniteVarianceError, match="SignSGD"):
        model.sqrt_covariance_product(points(2, 3), points(2, 3))


def test_gaussian_rescales_exactly_and_student_t_refuses():
    model = GaussianNoise(SCALE, factor=LOW_RANK, batch_size=8).rescale(32)
    before = GaussianNoise(SCALE, factor=LOW_RANK).covariance(points(1, 3))
    torch.testing.assert_close(model.covariance(points(1, 3)), before / 4)
    assert model.batch_size == 32
    with pytest.raises(InputError, match="refit"):
        StudentTNoise(1.0, 3.0, batch_size=8).rescale(32)
    with pytest.raises(InputError, match="batch_size=B"):
        GaussianNoise(1.0).rescale(32)


def test_float32_points_give_float32_noise_from_float64_models():
    x = torch.zeros(4, 3)
    for model in (GaussianNoise(SCALE, factor=LOW_RANK), StudentTNoise(SCALE, 3.0, factor=LOW_RANK)):
        assert model.sample(x, seeded()).dtype == torch.float32
        assert model.variance(x).dtype == torch.float32
        assert model.expected_sign(x, x).dtype == torch.float32


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: GaussianNoise(), "scale, a factor, or both"),
        (lambda: GaussianNoise(-1.0), "negative"),
        (lambda: GaussianNoise(math.nan), "NaN"),
        (lambda: GaussianNoise(torch.ones(2, 2)), "shape"),
        (lambda: GaussianNoise(torch.ones(3), factor=torch.ones(2, 1)), "must agree"),
        (lambda: GaussianNoise(1.0, batch_size=0), "at least 1"),
        (lambda: StudentTNoise(1.0, 0.0), "positive"),
        (lambda: StudentTNoise(torch.ones(3), torch.ones(2)), "must agree"),
        (lambda: StudentTNoise(1.0, torch.ones(2), multivariate=True), "single number"),
        (lambda: GaussianNoise(torch.ones(3)).variance(torch.zeros(1, 4)), "3 coordinates"),
        (lambda: GaussianNoise(1e30).variance(torch.zeros(1, 4)), "float64"),
        (lambda: GaussianNoise(1e-30).variance(torch.zeros(1, 4)), "float64"),
        (lambda: GaussianNoise(factor=LOW_RANK).log_prob(points(1, 3)), "no density"),
        (lambda: EmpiricalNoise(torch.zeros(3, 2)), "at least 8"),
        (lambda: EmpiricalNoise(torch.zeros(20, 2, dtype=torch.int64)), "floating-point"),
        (lambda: EmpiricalNoise(torch.zeros(20, 2), batch_size=4).rescale(6), "multiples"),
        (lambda: EmpiricalNoise(torch.zeros(20, 2), average=2.5), "average is 2.5"),
        (lambda: EmpiricalNoise(torch.zeros(20, 2), draws=0), "draws 0"),
        (lambda: EmpiricalNoise(torch.randn(20, 2) * 1e30).variance(torch.zeros(1, 2)), "float64"),
        (lambda: student_t_cdf(torch.zeros(2), -1.0), "must be positive"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()


def test_extreme_scales_in_float64():
    for scale in (1e-30, 1e30):
        x = points(1, 2)
        model = GaussianNoise(torch.tensor(scale, dtype=torch.float64))
        assert math.isclose(float(model.variance(x)[0, 0]), scale**2, rel_tol=1e-12)
        sign = float(model.expected_sign(x, x + scale)[0, 0])
        assert math.isclose(sign, math.erf(math.sqrt(0.5)), rel_tol=1e-12)


def test_empirical_noise_has_the_moments_and_signs_of_its_samples():
    samples = torch.randn(50, 3, generator=seeded(), dtype=torch.float64).exp()
    centred = samples - samples.mean(dim=0)
    covariance = centred.T @ centred / 50
    gradient = torch.tensor([[0.4, -0.2, 0.0]], dtype=torch.float64)
    for average in (1, 4):
        model = EmpiricalNoise(samples, average=average, batch_size=2, draws=100_000)
        assert model.batch_size == 2 * average
        torch.testing.assert_close(model.covariance(points(1, 3))[0], covariance / average)
        draws = model.sample(points(200_000, 3), seeded(5))
        spread = (covariance / average).diagonal().sqrt()
        error = (torch.cov(draws.T) - covariance / average) / torch.outer(spread, spread)
        assert error.abs().max() < 0.03
        signs = torch.sign(gradient + draws).mean(dim=0)
        assert (model.expected_sign(points(1, 3), gradient)[0] - signs).abs().max() < 0.012
    exact = torch.sign(gradient + centred).mean(dim=0)
    torch.testing.assert_close(EmpiricalNoise(samples).expected_sign(points(1, 3), gradient)[0], exact)
    rank = (centred <= gradient).double().mean(dim=0)
    torch.testing.assert_close(EmpiricalNoise(samples).cdf(gradient)[0], rank)
    assert EmpiricalNoise(samples, batch_size=2).rescale(8).average == 4


class LaplaceNoise(NoiseModel):
    """A law of one's own in a dozen lines: f(z) = exp(−|z|/b)/(2b)."""

    def __init__(self, width: float) -> None:
        self.width = width

    def variance(self, x):
        return torch.full_like(x, 2 * self.width**2)

    def sqrt_covariance_product(self, x, z):
        return math.sqrt(2) * self.width * z

    def expected_sign(self, x, gradient):
        return gradient.sign() * -torch.expm1(-gradient.abs() / self.width)

    def sample(self, x, generator=None):
        uniform = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=x.device) - 0.5
        return -self.width * uniform.sign() * torch.log1p(-2 * uniform.abs())


def test_a_law_of_ones_own_needs_four_methods():
    model = LaplaceNoise(0.7)
    draws = model.sample(points(200_000, 1), seeded())
    assert stats.kstest(draws[:40_000, 0].numpy(), stats.laplace(scale=0.7).cdf).pvalue > 1e-3
    gradient = torch.full((1, 1), 0.5, dtype=torch.float64)
    assert abs(float(torch.sign(draws + gradient).mean() - model.expected_sign(gradient, gradient))) < 0.01
    torch.testing.assert_close(model.covariance(points(1, 2))[0], torch.eye(2, dtype=torch.float64) * 0.98)
    with pytest.raises(InputError, match="LaplaceNoise has no density"):
        model.log_prob(gradient)
    with pytest.raises(InputError, match="refit it at B = 4"):
        model.rescale(4)
