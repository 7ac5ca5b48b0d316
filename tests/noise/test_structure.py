"""What the noise is made of: each verdict against data made to deserve it."""

import math

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats
from torch import Tensor, nn

from noisekit.errors import InputError, NonFiniteError
from noisekit.noise import StudentTNoise, gradient_dependence, hessian_alignment, noise_drift, skewness
from noisekit.noise.hessian_products import hessian_vector_product, top_curvature
from noisekit.noise.trend import fit_line
from noisekit.problems.linear_regression import LinearRegression
from noisekit.problems.network import ModelProblem
from noisekit.problems.quadratic import Quadratic


def run(steps: int, slope: float, seed: int, n: int = 64, d: int = 100) -> tuple[Tensor, Tensor]:
    """Trace and unbiased signal of a run whose |∇f|² falls by e⁴ and whose Tr Σ₁ = 5 d |∇f|^{2·slope}."""
    generator = torch.Generator().manual_seed(seed)
    wave = torch.linspace(0, 3, steps, dtype=torch.float64)
    size = torch.exp(-4 * wave / 3 + 0.5 * torch.sin(6 * wave))
    trace, signal = [], []
    for s in size:
        mean = torch.full((d,), float((s / d).sqrt()), dtype=torch.float64)
        z = torch.randn(n, d, generator=generator, dtype=torch.float64)
        g = mean + math.sqrt(5 * float(s) ** slope / d) * z
        trace.append(g.var(dim=0).sum())
        signal.append(g.mean(dim=0).square().sum() - trace[-1] / n)
    return torch.stack(trace), torch.stack(signal)


@pytest.mark.parametrize(("slope", "word"), [(0.0, "additive"), (1.0, "multiplicative"), (0.5, "partly")])
def test_additive_and_multiplicative_noise_are_told_apart(slope, word):
    slopes, verdicts = [], []
    for seed in range(6):
        found = gradient_dependence(*run(96, slope, seed))
        slopes.append(found.slope)
        verdicts.append(found.verdict)
    assert np.mean(slopes) == pytest.approx(slope, abs=0.06)
    assert sum(v.startswith(word) for v in verdicts) >= 5


def test_noisy_regressor_does_not_pull_the_slope_to_zero():
    slopes = [gradient_dependence(*run(256, 1.0, seed, n=16)).slope for seed in range(6)]
    assert np.mean(slopes) == pytest.approx(1.0, abs=0.1)


def test_dependence_admits_what_it_cannot_know():
    steady = gradient_dependence(torch.ones(50), torch.ones(50))
    assert math.isnan(steady.slope)
    noise = torch.randn(50, generator=torch.Generator().manual_seed(0))
    assert "too noisy" in gradient_dependence(torch.ones(50), noise).verdict
    assert math.isnan(gradient_dependence(torch.ones(4), torch.ones(4)).slope)
    with pytest.raises(InputError, match="both are"):
        gradient_dependence(torch.ones(4), torch.ones(5))


@pytest.mark.parametrize("n", [10, 57])
def test_line_and_its_error_equal_statsmodels(n):
    generator = np.random.default_rng(0)
    x = generator.standard_normal(n)
    y = 2 + 0.3 * x + np.cumsum(generator.standard_normal(n))
    found = fit_line(x, y)
    lags = math.ceil(1.3 * math.sqrt(n)) - 1
    options = {"maxlags": lags, "use_correction": True}
    expected = sm.OLS(y, sm.add_constant(x)).fit(cov_type="HAC", cov_kwds=options)
    assert found.slope == pytest.approx(expected.params[1], rel=1e-9)
    assert found.error == pytest.approx(expected.bse[1], rel=1e-9)
    half = (found.interval[1] - found.interval[0]) / 2
    assert 2.3 < half / found.error < 3.5


def test_drift_finds_the_factor():
    generator = torch.Generator().manual_seed(0)
    step = torch.arange(0, 500, 5)
    covered = 0
    for _ in range(100):
        wobble = 0.1 * torch.randn(100, generator=generator, dtype=torch.float64)
        found = noise_drift(step, torch.exp(-math.log(4) * torch.linspace(0, 1, 100).double() + wobble))
        covered += found.interval[0] <= 0.25 <= found.interval[1]
    assert covered >= 86
    assert found.verdict.startswith("shrinks 4")
    assert "pooling looks heavy-tailed" in found.verdict
    steady = [noise_drift(step, torch.exp(0.1 * torch.randn(100, generator=generator))) for _ in range(50)]
    assert sum("steady" in s.verdict for s in steady) >= 42
    assert "drift unknown" in noise_drift(step[:4], torch.ones(4)).verdict
    assert noise_drift(step, torch.ones(100)).ratio == pytest.approx(1.0)
    with pytest.raises(InputError, match="both are"):
        noise_drift(step, torch.ones(3))


def test_skewness_equals_scipy_and_its_error_is_right():
    generator = torch.Generator().manual_seed(0)
    gamma = torch._standard_gamma(torch.full((2000, 300), 8.0, dtype=torch.float64), generator=generator)
    found = skewness(gamma)
    np.testing.assert_allclose(found.value, stats.skew(gamma.numpy(), axis=0), rtol=1e-9)
    assert float(found.error.median()) == pytest.approx(float(found.value.std()), rel=0.15)
    assert found.is_skewed.all()


@pytest.mark.parametrize("df", [1.0, 3.0, math.inf])
def test_symmetric_tails_are_not_called_skewed(df):
    x = torch.zeros(200, 2000, dtype=torch.float64)
    found = skewness(StudentTNoise(1.0, df).sample(x, torch.Generator().manual_seed(0)))
    level = float((found.p_value < 0.05).double().mean())
    assert 0.03 < level < 0.07
    assert int(found.is_skewed.sum()) <= 2


def test_skewness_sets_constant_coordinates_aside():
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([torch.ones(100, 1), torch.randn(100, 1, generator=generator).exp()], dim=1)
    found = skewness(x)
    assert found.value.isnan().tolist() == [True, False]
    assert found.is_skewed.tolist() == [False, True]
    assert found.verdict.startswith("1 of 1 coordinates asymmetric")
    assert skewness(torch.ones(100, 2)).verdict == "no coordinate varies"
    tiny = skewness(x[:, 1:] * 1e-30)
    torch.testing.assert_close(tiny.value, found.value[1:], rtol=1e-4, atol=0)


def small_network() -> ModelProblem:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
    inputs = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(2, (20,), generator=generator)
    return ModelProblem(model, nn.CrossEntropyLoss(), inputs, targets)


def test_hessian_products_of_a_network_equal_differences_of_its_gradient():
    problem = small_network()
    x = problem.x0
    product = hessian_vector_product(problem, x)
    h = 1e-5
    columns, expected = [], []
    for e in torch.eye(len(x), dtype=torch.float64):
        columns.append(product(e))
        ends = problem.gradient(torch.stack([x + h * e, x - h * e]))
        expected.append((ends[0] - ends[1]) / (2 * h))
    hessian = torch.stack(columns)
    torch.testing.assert_close(hessian, torch.stack(expected), atol=1e-7, rtol=1e-5)
    values, vectors = top_curvature(problem, x, 3)
    truth = torch.linalg.eigvalsh(hessian).flip(0)[:3]
    torch.testing.assert_close(values, truth, atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(hessian @ vectors, vectors * values, atol=1e-6, rtol=1e-5)


def test_alignment_of_a_network_is_that_of_its_per_sample_gradients():
    problem = small_network()
    x = problem.x0
    found = hessian_alignment(problem, x, k=3)
    rows = problem.per_sample_gradients(x[None])[0]
    _, vectors = top_curvature(problem, x, 3)
    covariance = torch.cov(rows.T)
    expected = (vectors * (covariance @ vectors)).sum(dim=0)
    torch.testing.assert_close(found.variance, expected, rtol=1e-5, atol=1e-9)
    share = float(expected.sum() / covariance.trace())
    assert found.share == pytest.approx(share, rel=1e-5)
    assert found.excess == pytest.approx(share * len(x) / 3, rel=1e-5)
    again = hessian_alignment(problem, x, k=3, samples=rows)
    torch.testing.assert_close(again.variance, found.variance, rtol=1e-5, atol=1e-9)


def test_least_squares_noise_is_aligned_with_its_hessian():
    generator = torch.Generator().manual_seed(0)
    scale = torch.logspace(0, -2, 20, dtype=torch.float64)
    design = torch.randn(4000, 20, generator=generator, dtype=torch.float64) * scale
    problem = LinearRegression(design, torch.randn(4000, generator=generator, dtype=torch.float64))
    found = hessian_alignment(problem, torch.zeros(20, dtype=torch.float64), k=4)
    # At the optimum of a well-specified model Σ₁ = H, up to sampling.
    torch.testing.assert_close(found.variance, found.curvature, rtol=0.15, atol=0)
    low, high = found.variance_interval.T
    assert ((low <= found.curvature) & (found.curvature <= high)).all()
    assert found.share == pytest.approx(float(scale[:4].square().sum() / scale.square().sum()), rel=0.05)
    assert found.verdict.endswith("aligned")
    assert found.correlation > 0.9


def test_bad_alignment_input_is_refused():
    problem = small_network()
    with pytest.raises(InputError, match="leading directions"):
        hessian_alignment(problem, problem.x0, k=0)
    with pytest.raises(InputError, match="one point"):
        hessian_alignment(problem, problem.x0[None])
    with pytest.raises(InputError, match="here 26"):
        hessian_alignment(problem, problem.x0[:5])
    with pytest.raises(InputError, match="leading directions"):
        hessian_alignment(problem, problem.x0, k=2.5)
    with pytest.raises(InputError, match="no samples"):
        hessian_alignment(Quadratic(torch.ones(4)), torch.zeros(4))
    with pytest.raises(NonFiniteError, match="no Hessian"):
        hessian_alignment(problem, problem.x0 * math.nan)
    narrow = hessian_alignment(problem, problem.x0.float(), k=2).curvature
    torch.testing.assert_close(
        narrow, hessian_alignment(problem, problem.x0, k=2).curvature, rtol=1e-4, atol=0
    )
    with pytest.raises(InputError, match="pass all of them"):
        hessian_alignment(problem, problem.x0, samples=torch.randn(20, 3, dtype=torch.float64))
